//! Layers written in Python: instruments, and their twins.
//!
//! Calls happen on the calling thread alone, with all rows at once, and with the GIL taken for
//! each. An exception travels as [`Error::Hardware`](pnncore::Error::Hardware) and is raised again
//! unchanged.

use numpy::{PyArray1, PyArrayDyn, PyArrayMethods};
use pnncore::kernels::philox::Philox;
use pnncore::params::ParamSpec;
use pnncore::signal::Signal;
use pnncore::system::stack::{ForwardRecord, Layer, LayerContext};
use pnncore::{Error, Result};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::arrays::Float;
use crate::calls::attached;
use crate::raised::Raised;

/// Which side of a layer this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Twin,
    Hardware,
}

/// An object with the methods `measure`, `model` and `vjp` on NumPy batches.
pub(crate) struct Foreign {
    object: Py<PyAny>,
    side: Side,
    inputs: usize,
    outputs: usize,
    specs: Vec<ParamSpec>,
    raised: Raised,
}

impl Foreign {
    pub(crate) fn new(object: &Bound<'_, PyAny>, side: Side, raised: &Raised) -> PyResult<Self> {
        let shapes: Vec<(String, Vec<usize>)> = object.getattr("specs")?.extract()?;
        Ok(Self {
            object: object.clone().unbind(),
            side,
            inputs: object.getattr("n_in")?.extract()?,
            outputs: object.getattr("n_out")?.extract()?,
            specs: shapes.into_iter().map(|(name, shape)| ParamSpec { name, shape }).collect(),
            raised: raised.clone(),
        })
    }

    /// Calls a method with inputs and parameters, and perhaps one more array.
    fn call<'py, T: Float>(
        &self,
        py: Python<'py>,
        name: &str,
        params: &[&[T]],
        x: &[T],
        dy: Option<&[T]>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let rows = x.len() / self.inputs;
        let matrix = |values: &[T], width| PyArray1::from_slice(py, values).reshape([rows, width]);
        let arrays = self.arrays(py, params)?;
        let object = self.object.bind(py);
        match dy {
            Some(dy) => object
                .call_method1(name, (matrix(x, self.inputs)?, arrays, matrix(dy, self.outputs)?)),
            None => object.call_method1(name, (matrix(x, self.inputs)?, arrays)),
        }
    }

    /// Parameters, or changes of them, as NumPy arrays.
    fn arrays<'py, T: Float>(
        &self,
        py: Python<'py>,
        params: &[&[T]],
    ) -> PyResult<Bound<'py, PyList>> {
        let arrays = PyList::empty(py);
        for (values, spec) in params.iter().zip(&self.specs) {
            arrays.append(PyArray1::from_slice(py, values).reshape(spec.shape.as_slice())?)?;
        }
        Ok(arrays)
    }

    fn attached<R>(&self, work: impl FnOnce(Python<'_>) -> PyResult<R>) -> Result<R> {
        attached(|py| work(py).map_err(|error| self.raised.keep("instrument", error)))
    }
}

/// Copies an array of known shape; the Python side has checked it.
fn copy<T: Float>(found: &Bound<'_, PyAny>, into: &mut [T]) -> PyResult<()> {
    into.copy_from_slice(found.cast::<PyArrayDyn<T>>()?.readonly().as_slice()?);
    Ok(())
}

impl<T: Float> Layer<T> for Foreign {
    fn name(&self) -> &'static str {
        "instrument"
    }

    fn takes(&self) -> Signal {
        Signal::real(self.inputs)
    }

    fn gives(&self) -> Signal {
        Signal::real(self.outputs)
    }

    fn specs(&self) -> Vec<ParamSpec> {
        self.specs.clone()
    }

    fn has_derivatives(&self) -> bool {
        // A twin may be fitted later. A plain attribute: no code of Python runs here, in which the
        // handler of a signal could raise what nobody would hear of.
        Python::attach(|py| self.object.bind(py).getattr("twin").is_ok_and(|twin| !twin.is_none()))
    }

    fn forward(
        &self,
        context: LayerContext<'_, T>,
        _rows: usize,
        x: &[T],
        y: &mut [T],
        _tape: &mut [T],
    ) -> Result<()> {
        let name = if self.side == Side::Hardware { "measure" } else { "model" };
        self.attached(|py| copy(&self.call(py, name, context.params, x, None)?, y))
    }

    fn vjp(
        &self,
        context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dy: &[T],
        dx: &mut [T],
        gradient: &mut [Vec<T>],
    ) -> Result<()> {
        if self.side == Side::Hardware {
            return Err(Error::Capability(
                "an instrument has no derivatives: only a simulation does".into(),
            ));
        }
        self.attached(|py| {
            let found = self.call(py, "vjp", context.params, record.x, Some(dy))?;
            let (wanted, sums): (Bound<'_, PyAny>, Vec<Bound<'_, PyAny>>) = found.extract()?;
            if !dx.is_empty() {
                copy(&wanted, dx)?;
            }
            for (sum, gradient) in sums.iter().zip(gradient) {
                let sum = sum.cast::<PyArrayDyn<T>>()?.readonly();
                gradient.iter_mut().zip(sum.as_slice()?).for_each(|(total, &part)| *total += part);
            }
            Ok(())
        })
    }

    fn jvp(
        &self,
        context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dx: &[T],
        along: &[&[T]],
        dy: &mut [T],
    ) -> Result<()> {
        if self.side == Side::Hardware {
            return Err(Error::Capability(
                "an instrument has no derivatives: only a simulation does".into(),
            ));
        }
        self.attached(|py| {
            let changes = self.arrays(py, along)?;
            let dx = PyArray1::from_slice(py, dx).reshape([record.rows, self.inputs])?;
            let x = PyArray1::from_slice(py, record.x).reshape([record.rows, self.inputs])?;
            let params = self.arrays(py, context.params)?;
            copy(&self.object.bind(py).call_method1("jvp", (x, params, dx, changes))?, dy)
        })
    }

    /// Nobody knows the constants of an instrument: its twin stays what it is.
    fn mismatched(&self, _mismatch: f64, _random: Philox, _group: u32) -> Box<dyn Layer<T>> {
        let object = Python::attach(|py| self.object.clone_ref(py));
        Box::new(Self { object, specs: self.specs.clone(), raised: self.raised.clone(), ..*self })
    }
}
