//! What calls borrow of Python: a system at its parameters, and a batch.

use pnncore::Error;
use pnncore::draw::DrawIndex;
use pnncore::params::{ParamSpec, all_finite};
use pnncore::plan::PhasePlan;
use pnncore::system::{Experiment, System as CoreSystem};
use pyo3::prelude::*;

use crate::arrays::{Data, Float, Shared};
use crate::errors::OrRaise;
use crate::system::System;

/// Arrays of NumPy, in order.
pub(crate) type Arrays<'a, 'py> = &'a [Bound<'py, PyAny>];

/// What one call lends to the core.
pub(crate) struct Lent<'a, 'py> {
    pub(crate) system: &'a System,
    /// The parameters, then what the system keeps from step to step.
    pub(crate) arrays: Arrays<'a, 'py>,
    pub(crate) x: &'a Bound<'py, PyAny>,
    pub(crate) y: Option<&'a Bound<'py, PyAny>>,
    pub(crate) seed: u64,
    pub(crate) threads: Option<usize>,
}

impl Lent<'_, '_> {
    /// Checks what is lent, and calls `work` with an experiment on it.
    pub(crate) fn with<T: Float, R>(
        &self,
        py: Python<'_>,
        plan: &PhasePlan,
        draw: DrawIndex,
        work: impl FnOnce(&Experiment<'_, T>) -> PyResult<R>,
    ) -> PyResult<R> {
        let core = self.system.of::<T>();
        let runtime = self.system.runtime(py, self.threads, self.seed)?;
        let (params, memory) = parted(py, core, self.arrays)?;
        let (params, memory) =
            (Shared::<T>::new(params, "every parameter")?, Shared::<T>::new(memory, MEMORY)?);
        let params = params.params(py)?;
        core.check_params(&params).or_raise(py)?;
        let memory = memory.slices(py, MEMORY)?;
        check_memory(core, memory.iter().copied()).or_raise(py)?;
        let data = Data::<T>::new(self.x, self.y)?;
        let batch = data.batch(py, core.inputs(), core.outputs())?;
        work(&Experiment {
            memory: &memory,
            ..Experiment::new(&runtime, core, &params, &batch, plan, draw)
        })
    }
}

/// What arrays of a system's memory are called in errors.
pub(crate) const MEMORY: &str = "every array of the system's memory";

/// The parameters of a system, and the arrays of its memory, of all that is lent.
pub(crate) fn parted<'a, 'py, T: Float>(
    py: Python<'_>,
    core: &dyn CoreSystem<T>,
    arrays: Arrays<'a, 'py>,
) -> PyResult<(Arrays<'a, 'py>, Arrays<'a, 'py>)> {
    let count = core.specs().len();
    let short = || Error::Shape(format!("expected {count} parameters, got {}", arrays.len()));
    arrays.split_at_checked(count).ok_or_else(short).or_raise(py)
}

/// Refuses arrays that are not those of the system's memory.
pub(crate) fn check_memory<'a, T: Float>(
    core: &dyn CoreSystem<T>,
    memory: impl ExactSizeIterator<Item = &'a [T]> + Clone,
) -> Result<(), Error> {
    let specs = core.memory();
    if !memory.clone().map(<[T]>::len).eq(specs.iter().map(ParamSpec::len)) {
        return Err(Error::Shape(format!("{MEMORY} must have the shape that it came with")));
    }
    match memory.zip(specs).find(|(array, _)| !all_finite(array)) {
        Some((_, spec)) => Err(Error::Data(format!("memory {} holds NaN or infinity", spec.name))),
        None => Ok(()),
    }
}
