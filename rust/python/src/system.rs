//! Systems as Python sees them.

use std::str::FromStr;

use pnncore::Error;
use pnncore::lab::Lab;
use pnncore::system::System as CoreSystem;
use pnncore::system::hopfield::{Activation, Hopfield};
use pyo3::prelude::*;

use crate::arrays::{Exclusive, Float, with_dtype};
use crate::errors::OrRaise;

/// The physics of a system, without parameters.
#[pyclass(frozen, module = "pnncore._core")]
pub(crate) struct System {
    kind: Kind,
}

enum Kind {
    Hopfield(Hopfield),
}

impl System {
    /// The system for states of type `T`.
    pub(crate) fn of<T: Float>(&self) -> &dyn CoreSystem<T> {
        match &self.kind {
            Kind::Hopfield(net) => net,
        }
    }

    /// Runs `work` with the GIL released.
    pub(crate) fn run<R: Send>(&self, py: Python<'_>, work: impl FnOnce() -> Result<R, Error> + Send) -> PyResult<R> {
        py.detach(work).or_raise(py)
    }

    /// A lab that suits the system.
    pub(crate) fn lab(&self, threads: Option<usize>, seed: u64) -> Result<Lab, Error> {
        match &self.kind {
            Kind::Hopfield(_) => Lab::new(threads, seed),
        }
    }
}

#[pymethods]
impl System {
    /// A layered Hopfield network.
    #[staticmethod]
    fn hopfield(py: Python<'_>, layers: Vec<usize>, activation: &str) -> PyResult<Self> {
        let activation = Activation::from_str(activation).or_raise(py)?;
        Ok(Self { kind: Kind::Hopfield(Hopfield::new(&layers, activation).or_raise(py)?) })
    }

    /// Name and shape of every parameter, in order.
    fn specs(&self) -> Vec<(String, Vec<usize>)> {
        self.of::<f32>().specs().iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect()
    }

    /// The sizes of the layers that have states, outputs last.
    fn layers(&self) -> Vec<usize> {
        self.of::<f32>().layout().sizes().to_vec()
    }

    /// The methods that can train the system.
    fn methods(&self) -> Vec<&'static str> {
        pnncore::method::methods_for(self.of::<f32>())
    }

    /// Writes initial parameters.
    fn initialise(&self, py: Python<'_>, params: Vec<Bound<'_, PyAny>>, seed: u64, gain: f64) -> PyResult<()> {
        with_dtype!(py, params, T => {
            let mut arrays = Exclusive::<T>::new(&params, "every parameter")?;
            let mut slices = arrays.slices(py, "every parameter")?;
            match &self.kind {
                Kind::Hopfield(net) => net.initialise(seed, gain, &mut slices),
            }
        });
        Ok(())
    }
}
