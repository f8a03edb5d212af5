//! NumPy arrays as slices of the core, without copies.

use num_complex::{Complex32, Complex64};
use numpy::{
    Element, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyReadwriteArrayDyn,
    PyUntypedArrayMethods,
};
use pnncore::Error;
use pnncore::batch::{Batch, Rows, Targets};
use pnncore::kernels::Real;
use pnncore::params::Params;
use pyo3::prelude::*;

use crate::errors::{OrRaise, exception};

/// A floating-point type that NumPy has, too.
pub(crate) trait Float: Real + Element {}

impl Float for f32 {}
impl Float for f64 {}

/// Whether an array holds double precision, real or complex.
pub(crate) fn is_double(array: &Bound<'_, PyAny>) -> bool {
    array.cast::<PyArrayDyn<f64>>().is_ok() || array.cast::<PyArrayDyn<Complex64>>().is_ok()
}

/// Runs `$body` with `$T` the element type of the first of `$params`, or that of its parts where it
/// is complex.
macro_rules! with_dtype {
    ($py:expr, $params:expr, $T:ident => $body:expr) => {{
        let is_double = $params.first().is_some_and(|array| $crate::arrays::is_double(array));
        if is_double {
            type $T = f64;
            $body
        } else {
            type $T = f32;
            $body
        }
    }};
}
pub(crate) use with_dtype;

fn array<'a, 'py, T: Float>(
    value: &'a Bound<'py, PyAny>,
    name: &str,
) -> PyResult<&'a Bound<'py, PyArrayDyn<T>>> {
    value.cast::<PyArrayDyn<T>>().map_err(|_| {
        let kind = value.get_type().name().map_or_else(|_| "?".into(), |n| n.to_string());
        let dtype = value.getattr("dtype").map_or_else(|_| kind, |dtype| dtype.to_string());
        exception(
            value.py(),
            &Error::Config(format!("{name} must be a {} array, got {dtype}", T::NAME)),
        )
    })
}

fn contiguous<T>(py: Python<'_>, slice: Option<T>, name: &str) -> PyResult<T> {
    slice.ok_or_else(|| {
        exception(
            py,
            &Error::Shape(format!(
                "{name} must be C-contiguous; make it so with numpy.ascontiguousarray"
            )),
        )
    })
}

/// Arrays that are lent to read.
pub(crate) struct Shared<'py, T: Float>(Vec<PyReadonlyArrayDyn<'py, T>>);

impl<'py, T: Float> Shared<'py, T> {
    pub(crate) fn new(values: &[Bound<'py, PyAny>], name: &str) -> PyResult<Self> {
        let lent = |value| {
            array::<T>(value, name)?.try_readonly().map_err(|_| {
                let text = format!(
                    "{name} is lent to a step of training that is under way: ask its experiment"
                );
                exception(value.py(), &Error::Config(text))
            })
        };
        values.iter().map(lent).collect::<PyResult<_>>().map(Self)
    }

    pub(crate) fn slices(&self, py: Python<'_>, name: &str) -> PyResult<Vec<&[T]>> {
        self.0.iter().map(|a| contiguous(py, a.as_slice().ok(), name)).collect()
    }

    pub(crate) fn params(&self, py: Python<'_>) -> PyResult<Params<'_, T>> {
        Ok(Params::shared(self.slices(py, "every parameter")?))
    }
}

/// Arrays that are lent to change.
pub(crate) struct Exclusive<'py, T: Float>(Vec<PyReadwriteArrayDyn<'py, T>>);

impl<'py, T: Float> Exclusive<'py, T> {
    pub(crate) fn new(values: &[Bound<'py, PyAny>], name: &str) -> PyResult<Self> {
        let arrays = values.iter().map(|value| {
            array::<T>(value, name)?.try_readwrite().map_err(|_| {
                let text = format!(
                    "{name} must be writable, and every array a different one; got a read-only \
                     array"
                );
                exception(value.py(), &Error::Config(text))
            })
        });
        arrays.collect::<PyResult<_>>().map(Self)
    }

    pub(crate) fn slices(&mut self, py: Python<'_>, name: &str) -> PyResult<Vec<&mut [T]>> {
        self.0.iter_mut().map(|a| contiguous(py, a.as_slice_mut().ok(), name)).collect()
    }
}

/// Inputs and targets, lent to read.
pub(crate) struct Data<'py, T: Float> {
    x: PyReadonlyArrayDyn<'py, T>,
    y: Wanted<'py, T>,
}

enum Wanted<'py, T: Float> {
    None,
    /// A copy: what others write to the array meanwhile must not become an index.
    Labels(Vec<i64>, Vec<usize>),
    Values(PyReadonlyArrayDyn<'py, T>),
}

impl<'py, T: Float> Data<'py, T> {
    /// `x` may be complex; `y` is `None`, int64 labels (one dimension), or an array of targets
    /// (two).
    pub(crate) fn new(x: &Bound<'py, PyAny>, y: Option<&Bound<'py, PyAny>>) -> PyResult<Self> {
        let y = match y {
            None => Wanted::None,
            Some(y) => match y.cast::<PyArrayDyn<i64>>() {
                Ok(labels) => {
                    let labels = labels.try_readonly()?;
                    let values = contiguous(x.py(), labels.as_slice().ok(), "y")?;
                    Wanted::Labels(values.to_vec(), labels.shape().to_vec())
                }
                Err(_) => Wanted::Values(array::<T>(y, "y")?.try_readonly()?),
            },
        };
        // Complex numbers lie as pairs of their parts: rows are twice as long.
        let is_complex =
            x.cast::<PyArrayDyn<Complex64>>().is_ok() || x.cast::<PyArrayDyn<Complex32>>().is_ok();
        let parts = if is_complex { &x.call_method1("view", (T::NAME,))? } else { x };
        Ok(Self { x: array::<T>(parts, "x")?.try_readonly()?, y })
    }

    /// The batch of all samples, after checking shapes and labels against the system's numbers.
    pub(crate) fn batch(
        &self,
        py: Python<'_>,
        inputs: usize,
        outputs: usize,
    ) -> PyResult<Batch<'_, T>> {
        let shape = self.x.shape();
        if shape.len() != 2 || shape[1] != inputs {
            return Err(Error::Shape(format!(
                "x must have shape (samples, {inputs}), got {shape:?}"
            )))
            .or_raise(py);
        }
        let samples = shape[0];
        let x = Rows::all(contiguous(py, self.x.as_slice().ok(), "x")?, inputs);
        let y = match &self.y {
            Wanted::None => Targets::None,
            Wanted::Labels(labels, shape) => {
                if *shape != [samples] {
                    let text = format!("labels must have shape ({samples},), got {shape:?}");
                    return Err(Error::Shape(text)).or_raise(py);
                }
                let is_wrong = |label: &i64| *label < 0 || *label >= outputs as i64;
                // All of them, for that vectorises; the first one is looked for where there is one.
                if labels.iter().fold(false, |any, label| any | is_wrong(label))
                    && let Some(bad) = labels.iter().find(|label| is_wrong(label))
                {
                    let text =
                        format!("labels must be in 0..{outputs}, the number of outputs; got {bad}");
                    return Err(Error::Data(text)).or_raise(py);
                }
                Targets::Labels(Rows::all(labels, 1))
            }
            Wanted::Values(values) => {
                if values.shape() != [samples, outputs] {
                    let text = format!(
                        "targets must have shape ({samples}, {outputs}), got {:?}",
                        values.shape()
                    );
                    return Err(Error::Shape(text)).or_raise(py);
                }
                Targets::Values(Rows::all(contiguous(py, values.as_slice().ok(), "y")?, outputs))
            }
        };
        Ok(Batch { x, y })
    }
}
