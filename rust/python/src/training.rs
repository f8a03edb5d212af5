//! Training, some milliseconds at a time.

use std::time::Duration;

use numpy::PyReadonlyArray1;
use pnncore::Error;
use pnncore::method::{Method, Protocol};
use pnncore::optim::Optimizer;
use pnncore::params::{ParamSpec, Params};
use pnncore::system::System as CoreSystem;
use pnncore::train::{Progress, StepBudget, TrainingTask};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::arrays::{Data, Exclusive, Float, with_dtype};
use crate::errors::{OrRaise, parse};
use crate::lent::{Arrays, MEMORY, check_memory, parted};
use crate::own_method::method_of;
use crate::run::progress_dict;
use crate::system::System;

/// Trains within a budget: `steps` steps or `seconds`, whichever ends first. Counts what was done
/// in the attributes `step` and `_sums` of `record`, and in no other moment can Python code run
/// than before the steps or after they are counted. Returns why the next step is not made, where it
/// diverges.
#[pyfunction]
#[pyo3(signature = (
    system, params, memory, x, y, order, *, method, optimizer, rates, batch_size, record, before,
    steps, seconds, first_epoch, seed, threads
))]
#[allow(clippy::too_many_arguments, reason = "one call of the Python layer")]
pub(crate) fn train<'py>(
    py: Python<'py>,
    system: &System,
    params: Vec<Bound<'py, PyAny>>,
    memory: Vec<Bound<'py, PyAny>>,
    x: Bound<'py, PyAny>,
    y: Bound<'py, PyAny>,
    order: PyReadonlyArray1<'py, u64>,
    method: &Bound<'py, PyAny>,
    optimizer: &str,
    rates: Vec<f64>,
    batch_size: usize,
    record: Bound<'py, PyDict>,
    before: u64,
    steps: usize,
    seconds: f64,
    first_epoch: f64,
    seed: u64,
    threads: Option<usize>,
) -> PyResult<Option<String>> {
    let method = method_of(method, system.raised())?;
    let optimizer: Optimizer = parse(py, "optimizer", optimizer)?;
    optimizer.check().or_raise(py)?;
    let time = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
    let (first, sums) = recorded(&record)?;
    let loss = sums.get_item("loss")?.map_or(Ok(0.0), |loss| loss.extract())?;
    let budget = StepBudget { first, before, steps, time, first_epoch };
    let training = Training {
        system,
        method: &method,
        optimizer: &optimizer,
        rates: &rates,
        batch_size,
        budget,
        seed,
        threads,
    };
    let mut progress = Progress { loss, ..Progress::default() };
    let data = (&x, &y, order.as_slice()?);
    let result = with_dtype!(py, params, T => {
        training.make_steps::<T>(py, &params, &memory, data, &mut progress)
    });
    // Also what was done before a step failed.
    if progress.steps > 0 {
        count(&record, first, &sums, &progress)?;
    }
    result.map(|()| progress.divergence.map(|divergence| divergence.to_string()))
}

/// What trains which system, and for how long.
struct Training<'a> {
    system: &'a System,
    method: &'a Method,
    optimizer: &'a Optimizer,
    rates: &'a [f64],
    batch_size: usize,
    budget: StepBudget,
    seed: u64,
    threads: Option<usize>,
}

impl Training<'_> {
    /// Makes the steps on data (inputs, targets, order), and adds what they found to `progress`.
    fn make_steps<T: Float>(
        &self,
        py: Python<'_>,
        params: Arrays<'_, '_>,
        memory: Arrays<'_, '_>,
        (x, y, order): (&Bound<'_, PyAny>, &Bound<'_, PyAny>, &[u64]),
        progress: &mut Progress,
    ) -> PyResult<()> {
        let Self { system, method, optimizer, rates, batch_size, budget, seed, threads } = *self;
        let core = system.of::<T>();
        let protocol = method.protocol(core).or_raise(py)?;
        let threads = if method.calls_out() { Some(1) } else { threads };
        let runtime = system.runtime(py, threads, seed)?;
        let (params, own) = parted(py, core, params)?;
        let mut arrays = Exclusive::<T>::new(params, "every parameter")?;
        let mut own = Exclusive::<T>::new(own, MEMORY)?;
        let mut kept = Exclusive::<T>::new(memory, KEPT)?;
        let mut params = Params::exclusive(arrays.slices(py, "every parameter")?);
        core.check_params(&params).or_raise(py)?;
        let (own, mut memory) = (own.slices(py, MEMORY)?, kept.slices(py, KEPT)?);
        self.place(core, &protocol, own, &mut memory).or_raise(py)?;
        let data = Data::<T>::new(x, Some(y))?;
        let data = data.batch(py, core.inputs(), core.outputs())?;
        let beyond = order.iter().any(|&i| i >= data.len() as u64);
        if rates.len() != core.specs().len() || batch_size == 0 || beyond {
            let text = "rates, batch size and order must fit the parameters and the data";
            return Err(Error::Config(text.into())).or_raise(py);
        }
        protocol.check_batch(core, data.len().min(batch_size)).or_raise(py)?;
        let protocol = &protocol;
        let task =
            TrainingTask { system: core, protocol, optimizer, rates, data, order, batch_size };
        system.run(py, || {
            runtime.enter(|| {
                let (params, memory) = (&mut params, &mut memory[..]);
                pnncore::train::train(&runtime, task, budget, params, memory, progress)
            })
        })
    }

    /// Puts the arrays that the system keeps before those of the method; all are checked.
    fn place<'m, T: Float>(
        &self,
        core: &dyn CoreSystem<T>,
        protocol: &Protocol<T>,
        own: Vec<&'m mut [T]>,
        memory: &mut Vec<&'m mut [T]>,
    ) -> Result<(), Error> {
        check_memory(core, own.iter().map(|array| &**array))?;
        let (moments, cells) = (self.optimizer.memory(core.specs()), pnncore::train::cells(core));
        let kept = protocol.memory(core);
        let needed = moments.iter().chain(&cells).chain(&kept).map(ParamSpec::len);
        if !memory.iter().map(|array| array.len()).eq(needed) {
            let text = "the arrays of optimizer and method do not fit the parameters";
            return Err(Error::Shape(text.into()));
        }
        let first = memory.len() - kept.len();
        memory.splice(first..first, own);
        Ok(())
    }
}

/// What arrays of optimizer, cells and method are called in errors.
const KEPT: &str = "every array of optimizer and method";

/// The step and the sums of a trainer.
fn recorded<'py>(record: &Bound<'py, PyDict>) -> PyResult<(usize, Bound<'py, PyDict>)> {
    let item =
        |name: &str| record.get_item(name)?.ok_or_else(|| PyKeyError::new_err(name.to_owned()));
    Ok((item("step")?.extract()?, item("_sums")?.cast_into::<PyDict>()?))
}

/// Adds what a call found to what a trainer knows.
fn count(
    record: &Bound<'_, PyDict>,
    first: usize,
    sums: &Bound<'_, PyDict>,
    progress: &Progress,
) -> PyResult<()> {
    let found = progress_dict(record.py(), progress)?;
    for (key, value) in sums {
        match found.get_item(&key)? {
            // The core goes on from the sum of losses.
            Some(own) if key.ne("loss")? => found.set_item(key, value.add(own)?)?,
            Some(_) => {}
            None => found.set_item(key, value)?,
        }
    }
    record.set_item("_sums", found)?;
    record.set_item("step", first + progress.steps as usize)
}

/// Ends an epoch of a trainer, at once: the row goes to the history, and the attributes change.
#[pyfunction]
pub(crate) fn finish_epoch(
    record: &Bound<'_, PyDict>,
    changes: &Bound<'_, PyDict>,
    rows: &Bound<'_, PyList>,
    row: &Bound<'_, PyDict>,
) -> PyResult<()> {
    rows.append(row)?;
    record.update(changes.as_mapping())
}
