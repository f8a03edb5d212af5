//! Systems as Python sees them.

use std::str::FromStr;

use numpy::PyReadonlyArrayDyn;
use pnncore::Error;
use pnncore::check::check_system;
use pnncore::lab::Lab;
use pnncore::system::System as CoreSystem;
use pnncore::system::hopfield::{Activation, Hopfield};
use pyo3::prelude::*;

use crate::arrays::{Exclusive, Float, with_dtype};
use crate::errors::{OrRaise, exception};
use crate::user::UserSystem;

/// The physics of a system, without parameters.
#[pyclass(frozen, module = "pnncore._core")]
pub(crate) struct System {
    kind: Kind,
}

enum Kind {
    Hopfield(Hopfield),
    User(UserSystem),
}

impl System {
    /// The system for states of type `T`.
    pub(crate) fn of<T: Float>(&self) -> &dyn CoreSystem<T> {
        match &self.kind {
            Kind::Hopfield(net) => net,
            Kind::User(system) => system,
        }
    }

    /// Runs `work` with the GIL released.
    pub(crate) fn run<R: Send>(&self, py: Python<'_>, work: impl FnOnce() -> Result<R, Error> + Send) -> PyResult<R> {
        py.detach(work).map_err(|error| {
            let raised = match &self.kind {
                Kind::User(system) => system.take_raised(),
                Kind::Hopfield(_) => None,
            };
            raised.unwrap_or_else(|| exception(py, &error))
        })
    }

    /// A lab that suits the system.
    pub(crate) fn lab(&self, threads: Option<usize>, seed: u64) -> Result<Lab, Error> {
        match &self.kind {
            Kind::Hopfield(_) => Lab::new(threads, seed),
            // The user's code runs on the calling thread.
            Kind::User(_) => Lab::new(Some(1), seed),
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

    /// A system of the user's own: a `pnncore.systems.EnergySystem`.
    #[staticmethod]
    fn user(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self { kind: Kind::User(UserSystem::new(object)?) })
    }

    /// Checks the system in float64: for each check its name, whether it passed, and a message.
    fn check(
        &self,
        py: Python<'_>,
        params: Vec<PyReadonlyArrayDyn<'_, f64>>,
        seed: u64,
    ) -> PyResult<Vec<(&'static str, bool, String)>> {
        let params = params.iter().map(|a| Ok(a.as_array().iter().copied().collect())).collect::<PyResult<Vec<_>>>()?;
        let findings = self.run(py, || check_system(self.of::<f64>(), &params, seed))?;
        Ok(findings.into_iter().map(|f| (f.check, f.passed, f.message)).collect())
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
                Kind::User(_) => {}
            }
        });
        Ok(())
    }
}
