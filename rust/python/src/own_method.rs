//! Training methods written in Python: an adapter that lets the core train with them.
//!
//! A step happens on the calling thread, with the GIL taken. It gets copies of parameters, batch
//! and memory, and makes its experiments by calls of [`crate::experiment`]; what it returns goes
//! the way of all methods. An exception of the user's code travels as [`Error::Hardware`] and is
//! raised again unchanged.

use std::sync::Arc;

use numpy::{PyArray1, PyArray2, PyArrayDyn, PyArrayMethods, PyUntypedArrayMethods};
use pnncore::batch::Targets;
use pnncore::method::{AnyMethod, Compile, CompiledMethod, Method, Setup, StepResult, StepState};
use pnncore::own_loss::OwnLoss;
use pnncore::params::ParamSpec;
use pnncore::runtime::Runtime;
use pnncore::settling::Settling;
use pnncore::states::{Outcome, Status};
use pnncore::system::{Abilities, Experiment, System};
use pnncore::{Error, Result};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::arrays::Float;
use crate::calls::attached;
use crate::errors::parse;
use crate::raised::Raised;

/// The method of a configuration, or of an object that has one, or makes the steps of one of the
/// user's own; with the loss of the user's own that the object may have.
pub(crate) fn method_of(method: &Bound<'_, PyAny>, raised: &Raised) -> PyResult<Method> {
    let py = method.py();
    if let Ok(text) = method.extract::<&str>() {
        return parse(py, "method", text);
    }
    let attribute = |name: &str| method.getattr(name)?.extract::<String>();
    let found = if method.hasattr("config")? {
        parse(py, "method", &attribute("config")?)?
    } else {
        let loss = parse(py, "loss", &attribute("loss")?)?;
        let settling: Settling = parse(py, "settling", &attribute("settling")?)?;
        Method::new(OwnMethod::new(method, raised)?, loss, settling)
    };
    let own = method.getattr("own_loss")?;
    if own.is_none() {
        return Ok(found);
    }
    Ok(found.with_own_loss(Arc::new(UserLoss { object: own.unbind(), raised: raised.clone() })))
}

/// A loss of the user's own.
struct UserLoss {
    object: Py<PyAny>,
    raised: Raised,
}

impl std::fmt::Debug for UserLoss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a loss of the user's own")
    }
}

impl<T: Float> OwnLoss<T> for UserLoss {
    fn evaluate(&self, outputs: &[T], targets: &[T]) -> Result<(Vec<f64>, Vec<T>)> {
        attached(|py| {
            let call = || {
                let lent = |values: &[T]| PyArray1::from_slice(py, values);
                let found = self
                    .object
                    .bind(py)
                    .call_method1("evaluate", (lent(outputs), lent(targets)))?;
                let (values, gradients): (Bound<'_, PyArray1<f64>>, Bound<'_, PyArrayDyn<T>>) =
                    found.extract()?;
                Ok((values.to_vec()?, gradients.to_vec()?))
            };
            call().map_err(|error| self.raised.keep("the loss", error))
        })
    }
}

/// A `pnncore.methods.Method` of the user's own, for one system.
#[derive(Clone)]
struct OwnMethod(Arc<Own>);

struct Own {
    object: Py<PyAny>,
    name: String,
    needs: Abilities,
    memory: Vec<ParamSpec>,
    raised: Raised,
}

impl std::fmt::Debug for OwnMethod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.name)
    }
}

impl OwnMethod {
    fn new(object: &Bound<'_, PyAny>, raised: &Raised) -> PyResult<Self> {
        let needs: Vec<String> = object.getattr("needs")?.extract()?;
        let needs = needs
            .iter()
            .try_fold(Abilities::OUTPUTS, |all, name| Ok(all.and(Abilities::named(name)?)));
        let shapes: Vec<(String, Vec<usize>)> = object.getattr("shapes")?.extract()?;
        Ok(Self(Arc::new(Own {
            object: object.clone().unbind(),
            name: object.getattr("name")?.extract()?,
            needs: needs.map_err(|error: Error| crate::errors::exception(object.py(), &error))?,
            memory: shapes.into_iter().map(|(name, shape)| ParamSpec { name, shape }).collect(),
            raised: raised.clone(),
        })))
    }

    fn attached<R>(&self, work: impl FnOnce(Python<'_>) -> PyResult<R>) -> Result<R> {
        attached(|py| work(py).map_err(|error| self.0.raised.keep(&self.0.name, error)))
    }
}

impl AnyMethod for OwnMethod {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn needs(&self) -> Abilities {
        self.0.needs
    }

    fn calls_out(&self) -> bool {
        true
    }
}

impl<T: Float> Compile<T> for OwnMethod {
    fn compile_for(&self, _setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        Ok(Box::new(self.clone()))
    }
}

impl<T: Float> CompiledMethod<T> for OwnMethod {
    fn memory(&self, _system: &dyn System<T>) -> Vec<ParamSpec> {
        self.0.memory.clone()
    }

    fn writes_memory(&self) -> bool {
        !self.0.memory.is_empty()
    }

    fn initialise(&self, _runtime: &Runtime, _system: &dyn System<T>, memory: &mut [&mut [T]]) {
        let written = self.attached(|py| {
            let initial: Vec<Bound<'_, PyAny>> =
                self.0.object.bind(py).getattr("initial")?.extract()?;
            initial.iter().zip(memory).try_for_each(|(from, to)| copy(from, to))
        });
        // The Python side has made these arrays, of these shapes: a failure is no fault of the
        // user's.
        assert!(written.is_ok(), "the initial memory of {} cannot be read", self.0.name);
    }

    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        self.attached(|py| {
            let specs = experiment.system.specs();
            let params = (0..specs.len()).map(|i| experiment.params.get(i));
            let (x, y) = batch(py, experiment)?;
            let arguments = (
                arrays(py, params, specs)?,
                arrays(py, experiment.memory.iter().copied(), experiment.system.memory())?,
                arrays(py, memory.iter().map(|array| &**array), &self.0.memory)?,
                x,
                y,
                experiment.draw.step(),
            );
            let found: Found<'_> =
                self.0.object.bind(py).call_method1("run", arguments)?.extract()?;
            found.memory.iter().zip(memory).try_for_each(|(from, to)| copy(from, to))?;
            found.report(state)?;
            let lent =
                found.values.iter().map(|array| Ok(array.cast::<PyArrayDyn<T>>()?.readonly()));
            let lent = lent.collect::<PyResult<Vec<_>>>()?;
            let values =
                lent.iter().map(|array| array.as_slice()).collect::<Result<Vec<&[T]>, _>>()?;
            Ok(if found.is_change {
                state.found_values(values.into_iter())
            } else {
                state.found_gradient(values.into_iter())
            })
        })
    }
}

/// What a step leaves; the Python side has checked all of it.
#[derive(FromPyObject)]
struct Found<'py> {
    is_change: bool,
    /// Gradients, or new values, of all parameters.
    values: Vec<Bound<'py, PyAny>>,
    memory: Vec<Bound<'py, PyAny>>,
    /// The outputs at the parameters of the step (rows, outputs).
    outputs: Bound<'py, PyAny>,
    /// How each phase of each row ended, and its sweeps (rows, phases).
    status: Bound<'py, PyArray2<u8>>,
    sweeps: Bound<'py, PyArray2<u32>>,
    /// Passes, samples measured, multiply-adds, samples sent back.
    counts: (u64, u64, u64, u64),
}

impl Found<'_> {
    fn report<T: Float>(&self, state: &mut StepState<T>) -> PyResult<()> {
        let (passes, measured, operations, reversed) = self.counts;
        state.cost.passes += passes;
        state.cost.measured += measured;
        state.cost.operations += operations;
        state.cost.reversed += reversed;
        let (rows, phases) = (self.status.shape()[0], self.status.shape()[1]);
        let states = &mut state.states;
        states.reset(rows, phases, false);
        let (status, sweeps) = (self.status.to_vec()?, self.sweeps.to_vec()?);
        for (outcome, (&status, &sweeps)) in
            states.outcomes.iter_mut().zip(status.iter().zip(&sweeps))
        {
            let status = Status::ALL.get(usize::from(status)).copied().unwrap_or_default();
            *outcome = Outcome { status, sweeps, ..Outcome::default() };
        }
        let place = states.layout().outputs();
        let outputs = self.outputs.cast::<PyArrayDyn<T>>()?.to_vec()?;
        for (i, own) in outputs.chunks_exact(place.len().max(1)).enumerate() {
            if states.outcomes[i * phases].status.usable() {
                states.row_mut(i * phases)[place.clone()].copy_from_slice(own);
            }
        }
        Ok(())
    }
}

/// Copies an array of known length.
fn copy<T: Float>(from: &Bound<'_, PyAny>, to: &mut [T]) -> PyResult<()> {
    to.copy_from_slice(from.cast::<PyArrayDyn<T>>()?.readonly().as_slice()?);
    Ok(())
}

/// Copies of arrays, with these shapes.
fn arrays<'a, 'py, T: Float>(
    py: Python<'py>,
    values: impl Iterator<Item = &'a [T]>,
    specs: &[ParamSpec],
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for (values, spec) in values.zip(specs) {
        list.append(PyArray1::from_slice(py, values).reshape(spec.shape.as_slice())?)?;
    }
    Ok(list)
}

/// Copies of the inputs and targets of a batch.
fn batch<'py, T: Float>(
    py: Python<'py>,
    experiment: &Experiment<'_, T>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let (batch, system) = (experiment.batch, experiment.system);
    let matrix =
        |rows: Vec<T>, width: usize| PyArray1::from_vec(py, rows).reshape([batch.len(), width]);
    let x =
        matrix((0..batch.len()).flat_map(|i| batch.x.row(i)).copied().collect(), system.inputs())?
            .into_any();
    let y = match &batch.y {
        Targets::Labels(labels) => {
            PyArray1::from_iter(py, (0..batch.len()).map(|i| labels.row(i)[0])).into_any()
        }
        Targets::Values(rows) => {
            matrix((0..batch.len()).flat_map(|i| rows.row(i)).copied().collect(), system.outputs())?
                .into_any()
        }
        Targets::None => py.None().into_bound(py),
    };
    Ok((x, y))
}
