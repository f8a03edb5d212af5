//! Systems written in Python: an adapter that gives them all methods of the core.
//!
//! Calls happen on the calling thread alone (no thread of the pool ever attaches to Python), with
//! the GIL taken for each experiment. An exception of the user's code travels as
//! [`Error::Hardware`] and is raised again unchanged.

use num_complex::Complex;
use numpy::{PyArray1, PyArrayDyn, PyArrayMethods};
use pnncore::batch::Batch;
use pnncore::descent::{Landscape, Memory, settle};
use pnncore::params::{ParamSpec, Params};
use pnncore::signal::Signal;
use pnncore::states::{Layout, States};
use pnncore::system::{
    Abilities, Dynamics, Experiment, Reading, StateDerivatives, System, Workspace, read_at_end,
};
use pnncore::update::{LocalUpdate, Term};
use pnncore::{Error, Result};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::Float;
use crate::calls::attached;
use crate::raised::Raised;

/// A `pnncore.systems.EnergySystem`.
pub(crate) struct UserSystem {
    object: Py<PyAny>,
    name: String,
    inputs: usize,
    layout: Layout,
    specs: Vec<ParamSpec>,
    bounds: Option<(f64, f64)>,
    /// Whether outputs are within the bounds, too.
    bounded_outputs: bool,
    /// Whether its gradients take complex states.
    holomorphic: bool,
    raised: Raised,
}

impl UserSystem {
    pub(crate) fn new(object: &Bound<'_, PyAny>, raised: &Raised) -> PyResult<Self> {
        let shapes: Vec<(String, Vec<usize>)> = object.getattr("_specs")?.extract()?;
        let hidden: usize = object.getattr("n_hidden")?.extract()?;
        let outputs: usize = object.getattr("_n_out")?.extract()?;
        let sizes: Vec<usize> = [hidden, outputs].into_iter().filter(|&n| n > 0).collect();
        Ok(Self {
            name: object.get_type().name()?.to_string(),
            inputs: object.getattr("n_in")?.extract()?,
            layout: Layout::new(&sizes),
            specs: shapes.into_iter().map(|(name, shape)| ParamSpec { name, shape }).collect(),
            bounds: object.getattr("bounds")?.extract()?,
            bounded_outputs: object.getattr("bounded_outputs")?.extract()?,
            holomorphic: object.getattr("holomorphic")?.extract()?,
            // A weak reference, since the Python object holds this one.
            object: object.py().import("weakref")?.getattr("ref")?.call1((object,))?.unbind(),
            raised: raised.clone(),
        })
    }

    fn fail(&self, error: PyErr) -> Error {
        self.raised.keep(&self.name, error)
    }

    /// Runs `work` with the user's object, its parameters and the inputs of all rows as NumPy
    /// arrays.
    fn call<T: Float, R>(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        phases: usize,
        work: impl FnOnce(&Call<'_, '_, T>) -> Result<R>,
    ) -> Result<R> {
        attached(|py| {
            let call = self.prepare(py, params, batch, phases).map_err(|e| self.fail(e))?;
            work(&call)
        })
    }

    fn prepare<'py, T: Float>(
        &self,
        py: Python<'py>,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        phases: usize,
    ) -> PyResult<Call<'_, 'py, T>> {
        let arrays = PyDict::new(py);
        for (i, spec) in self.specs.iter().enumerate() {
            let array = PyArray1::from_slice(py, params.get(i)).reshape(spec.shape.as_slice())?;
            arrays.set_item(&spec.name, array)?;
        }
        let rows = batch.len() * phases;
        let mut inputs = Vec::with_capacity(rows * self.inputs);
        for r in 0..rows {
            inputs.extend_from_slice(batch.x.row(r / phases));
        }
        let x = PyArray1::from_vec(py, inputs).reshape([rows, self.inputs])?.into_any();
        let object = self.object.bind(py).call0()?;
        Ok(Call { system: self, object, params: arrays, x, scalar: std::marker::PhantomData })
    }

    fn pack<T: Float>(&self, states: &States<T>, values: &[T]) -> Vec<T> {
        let mut packed = Vec::with_capacity(states.rows() * self.states());
        // The last row of imaginary parts ends where the states do.
        for row in values.chunks(states.stride()) {
            (0..self.layout.sizes().len())
                .for_each(|l| packed.extend_from_slice(&row[self.layout.layer(l)]));
        }
        packed
    }

    fn unpack<T: Float>(&self, packed: &[T], stride: usize, values: &mut [T]) {
        for (row, packed) in values.chunks_mut(stride).zip(packed.chunks_exact(self.states())) {
            let mut from = 0;
            for l in 0..self.layout.sizes().len() {
                let layer = self.layout.layer(l);
                let n = layer.len();
                row[layer].copy_from_slice(&packed[from..from + n]);
                from += n;
            }
        }
    }

    fn states(&self) -> usize {
        self.layout.sizes().iter().sum()
    }
}

/// The user's object with the arguments that do not change during an experiment.
struct Call<'a, 'py, T> {
    system: &'a UserSystem,
    object: Bound<'py, PyAny>,
    params: Bound<'py, PyDict>,
    x: Bound<'py, PyAny>,
    scalar: std::marker::PhantomData<T>,
}

impl<'py, T: Float> Call<'_, 'py, T> {
    fn matrix(&self, states: &States<T>, values: &[T]) -> PyResult<Bound<'py, PyAny>> {
        let packed = self.system.pack(states, values);
        let array = PyArray1::from_vec(self.object.py(), packed);
        Ok(array.reshape([states.rows(), self.system.states()])?.into_any())
    }

    fn try_energy(&self, states: &States<T>, energy: &mut [f64]) -> PyResult<()> {
        let s = self.matrix(states, &states.values)?;
        let found = self.object.call_method1("_checked_energy", (&self.params, &self.x, s))?;
        energy.copy_from_slice(&found.cast::<PyArray1<f64>>()?.to_vec()?);
        Ok(())
    }

    fn try_matrix(
        &self,
        name: &str,
        states: &States<T>,
        v: Option<&[T]>,
        result: &mut [T],
    ) -> PyResult<()> {
        let s = self.matrix(states, &states.values)?;
        let found = match v {
            Some(v) => self
                .object
                .call_method1(name, (&self.params, &self.x, s, self.matrix(states, v)?))?,
            None => self.object.call_method1(name, (&self.params, &self.x, s))?,
        };
        self.system.unpack(&found.cast::<PyArrayDyn<T>>()?.to_vec()?, states.stride(), result);
        Ok(())
    }

    /// Complex states: real parts plus i times imaginary parts.
    fn complex_matrix(&self, states: &States<T>) -> PyResult<Bound<'py, PyAny>> {
        let real = self.matrix(states, &states.values)?;
        let half = states.layout().stride();
        let imaginary = self.matrix(states, &states.values[half.min(states.values.len())..])?;
        self.object.call_method1("_complex", (real, imaginary))
    }

    fn try_complex_gradient(&self, states: &States<T>, gradient: &mut [T]) -> PyResult<()> {
        let s = self.complex_matrix(states)?;
        let found =
            self.object.call_method1("_checked_complex_gradient", (&self.params, &self.x, s))?;
        let (real, imaginary): (Bound<'py, PyArrayDyn<T>>, Bound<'py, PyArrayDyn<T>>) =
            found.extract()?;
        self.system.unpack(&real.to_vec()?, states.stride(), gradient);
        let half = states.layout().stride().min(gradient.len());
        self.system.unpack(&imaginary.to_vec()?, states.stride(), &mut gradient[half..]);
        Ok(())
    }

    /// The sum over rows of the real part of weight times dE/dtheta.
    fn try_param_gradient(
        &self,
        states: &States<T>,
        weights: Vec<Complex<f64>>,
    ) -> PyResult<Vec<Vec<T>>> {
        let py = self.object.py();
        let part = |part: fn(&Complex<f64>) -> f64| {
            PyArray1::from_vec(py, weights.iter().map(|w| T::from_f64(part(w))).collect())
        };
        let (states, weights) = if states.is_complex() {
            let weights = self.object.call_method1("_complex", (part(|w| w.re), part(|w| w.im)))?;
            (self.complex_matrix(states)?, weights)
        } else {
            (self.matrix(states, &states.values)?, part(|w| w.re).into_any())
        };
        let found = self
            .object
            .call_method1("_checked_param_gradient", (&self.params, &self.x, states, weights))?;
        let arrays: Vec<Bound<'py, PyArrayDyn<T>>> = found.extract()?;
        arrays.iter().map(|array| Ok(array.to_vec()?)).collect()
    }
}

impl<T: Float> Landscape<T> for Call<'_, '_, T> {
    fn energy(&self, states: &States<T>, energy: &mut [f64]) -> Result<()> {
        self.try_energy(states, energy).map_err(|e| self.system.fail(e))
    }

    fn state_gradient(&self, states: &States<T>, gradient: &mut [T]) -> Result<()> {
        self.try_matrix("_checked_state_gradient", states, None, gradient)
            .map_err(|e| self.system.fail(e))
    }

    fn complex_gradient(&self, states: &States<T>, gradient: &mut [T]) -> Result<()> {
        self.try_complex_gradient(states, gradient).map_err(|e| self.system.fail(e))
    }

    fn interval(&self, l: usize, j: usize) -> (f64, f64) {
        let exact: &dyn StateDerivatives<T> = self.system;
        exact.interval(l, j)
    }
}

impl<T: Float> System<T> for UserSystem {
    fn name(&self) -> &str {
        &self.name
    }

    fn takes(&self) -> Signal {
        Signal::real(self.inputs)
    }

    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    fn calls_out(&self) -> bool {
        true
    }

    fn as_dynamics(&self) -> Option<&dyn Dynamics<T>> {
        Some(self)
    }

    fn as_state_derivatives(&self) -> Option<&dyn StateDerivatives<T>> {
        Some(self)
    }

    fn abilities(&self) -> Abilities {
        Abilities::LOCAL_RULE
            .and(Abilities::CLAMPING)
            .and(Abilities::STATE_DERIVATIVES)
            .and(Abilities::RELAXATION)
            .and_if(self.holomorphic, Abilities::HOLOMORPHIC)
    }
}

impl<T: Float> Dynamics<T> for UserSystem {
    fn run(
        &self,
        experiment: &Experiment<'_, T>,
        readings: &mut [Reading<'_, T>],
        states: &mut States<T>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let Experiment { params, batch, plan, .. } = *experiment;
        self.call(params, batch, states.phases(), |call| {
            settle(call, batch, plan, states, &mut Memory::default())
        })?;
        read_at_end(self, experiment, readings, states, workspace)
    }

    fn read(
        &self,
        experiment: &Experiment<'_, T>,
        states: &States<T>,
        weights: &[Complex<f64>],
        _workspace: &mut Workspace,
        update: &mut LocalUpdate<T>,
    ) -> Result<()> {
        let Experiment { params, batch, .. } = *experiment;
        let samples = batch.len() as f64;
        let row_weights = (0..states.rows()).map(|r| {
            let usable = states.usable(r / states.phases());
            if usable { weights[r % states.phases()] / samples } else { Complex::ZERO }
        });
        let row_weights = row_weights.collect();
        let sums = self.call(params, batch, states.phases(), |call| {
            call.try_param_gradient(states, row_weights).map_err(|e| self.fail(e))
        })?;
        update.terms = sums.into_iter().map(Term::Dense).collect();
        Ok(())
    }
}

impl<T: Float> StateDerivatives<T> for UserSystem {
    fn energy(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        states: &States<T>,
        energy: &mut [f64],
    ) -> Result<()> {
        self.call(params, batch, states.phases(), |call| call.energy(states, energy))
    }

    fn state_gradient(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        states: &States<T>,
        gradient: &mut [T],
    ) -> Result<()> {
        self.call(params, batch, states.phases(), |call| call.state_gradient(states, gradient))
    }

    fn interval(&self, l: usize, _j: usize) -> (f64, f64) {
        let bounded = self.bounded_outputs || l + 1 < self.layout.sizes().len();
        self.bounds.filter(|_| bounded).unwrap_or((f64::NEG_INFINITY, f64::INFINITY))
    }
}
