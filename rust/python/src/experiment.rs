//! Experiments of methods written in Python: passes and phases on arrays of NumPy, and what is read
//! of them.

use std::any::Any;
use std::sync::{Mutex, PoisonError};

use num_complex::Complex;
use numpy::{PyArray1, PyArray2, PyArrayDyn, PyArrayMethods};
use pnncore::Error;
use pnncore::draw::DrawIndex;
use pnncore::kernels::Real;
use pnncore::loss::Loss;
use pnncore::method::StepState;
use pnncore::params::ParamSpec;
use pnncore::plan::{Boundary, PhasePlan, Start};
use pnncore::settling::Settling;
use pnncore::states::States;
use pnncore::system::stack::{
    BackwardRule, Layers, LightProtocol, Propagation, Stack, StackAt, TapProtocol,
};
use pnncore::system::{Experiment, check_rows};
use pnncore::train::write_gradient;
use pyo3::prelude::*;

use crate::arrays::{Data, Float, Shared, with_dtype};
use crate::errors::{OrRaise, parse};
use crate::lent::{Lent, MEMORY, parted};
use crate::system::System;

/// States of one of the two types of numbers.
type Held = Mutex<Box<dyn Any + Send>>;

/// A pass of a batch through a system, with what derivatives need of it.
#[pyclass(frozen, module = "pnncore._core")]
pub(crate) struct Pass {
    held: Held,
}

struct PassOf<T> {
    states: States<T>,
    /// Of a stack.
    propagation: Option<Propagation<T>>,
}

/// Phases of a batch on a system that settles.
#[pyclass(frozen, module = "pnncore._core")]
pub(crate) struct Phases {
    held: Held,
    plan: PhasePlan,
}

fn hold(value: impl Any + Send) -> Held {
    Mutex::new(Box::new(value))
}

/// Runs `work` with what is held; one type of numbers is that of the arrays that come with it.
fn with<H: Any, R>(py: Python<'_>, held: &Held, work: impl FnOnce(&mut H) -> R) -> PyResult<R> {
    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
    let other = || {
        Error::Config(
            "an experiment must be read with arrays of the dtype that it was made with".into(),
        )
    };
    Ok(work(held.downcast_mut().ok_or_else(other).or_raise(py)?))
}

/// Which draw of random numbers an experiment is: the step, and the number of the experiment in it.
fn draw((step, after): (u64, u64)) -> DrawIndex {
    DrawIndex::of_step(step).after(after)
}

/// Passes a batch through a system once; `injected` are signals that are added to the outputs of
/// the layers of a stack.
#[pyfunction]
#[pyo3(signature = (system, params, x, injected, settling, seed, at, threads))]
#[allow(clippy::too_many_arguments, reason = "one call of the Python layer")]
pub(crate) fn run_pass<'py>(
    py: Python<'py>,
    system: &System,
    params: Vec<Bound<'py, PyAny>>,
    x: Bound<'py, PyAny>,
    injected: Vec<Option<Bound<'py, PyAny>>>,
    settling: &str,
    seed: u64,
    at: (u64, u64),
    threads: Option<usize>,
) -> PyResult<Pass> {
    let plan = PhasePlan::free(Loss::SquaredError, parse(py, "settling", settling)?);
    let lent = Lent { system, arrays: &params, x: &x, y: None, seed, threads };
    with_dtype!(py, [&x], T => {
        let added = injected.iter().map(|signals| {
            let signals = signals
                .as_ref()
                .map(|signals| signals.cast::<PyArrayDyn<T>>()?.to_vec().map_err(PyErr::from));
            signals.unwrap_or_else(|| Ok(Vec::new()))
        });
        let added = added.collect::<PyResult<Vec<Vec<T>>>>()?;
        lent.with::<T, _>(py, &plan, draw(at), |experiment| {
            let Experiment { runtime, system: core, batch, draw, .. } = *experiment;
            check_rows(core, batch.len(), 1, true).or_raise(py)?;
            let mut states = States::new(core.layout());
            let propagation = system.run(py, || {
                runtime.enter(|| -> Result<_, Error> {
                    let Some(stack) = core.as_stack() else {
                        experiment.infer(&mut states, &mut core.workspace())?;
                        return Ok(None);
                    };
                    let mut propagation = Propagation::default();
                    propagation.begin(stack, batch);
                    propagation.inject(added);
                    propagation.forward(
                        experiment.at(stack),
                        Layers::Hardware,
                        stack.twins_are_exact(),
                        draw,
                    )?;
                    propagation.report(&mut states);
                    Ok(Some(propagation))
                })
            })?;
            Ok(Pass { held: hold(PassOf { states, propagation }) })
        })
    })
}

#[pymethods]
impl Pass {
    /// The outputs (rows, outputs), NaN where a row diverged, with statuses and sweeps (rows,).
    #[allow(clippy::type_complexity, reason = "three arrays")]
    fn outputs<'py>(
        &self,
        py: Python<'py>,
        system: &System,
        like: Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyArray2<u8>>, Bound<'py, PyArray2<u32>>)> {
        with_dtype!(py, [&like], T => {
            let width = system.of::<T>().outputs();
            with(py, &self.held, |own: &mut PassOf<T>| {
                Ok((
                    phase_outputs(py, &own.states, 0, width)?,
                    statuses(py, &own.states)?,
                    sweeps(py, &own.states)?,
                ))
            })?
        })
    }

    /// What was measured after every layer of a stack; none after layers that give fields.
    fn signals<'py>(
        &self,
        py: Python<'py>,
        system: &System,
        like: Bound<'py, PyAny>,
    ) -> PyResult<Vec<Option<Bound<'py, PyAny>>>> {
        with_dtype!(py, [&like], T => {
            with(py, &self.held, |own: &mut PassOf<T>| {
                match (&own.propagation, system.of::<T>().as_stack()) {
                    (Some(propagation), Some(stack)) => {
                        measured(py, stack, propagation, own.states.samples())
                    }
                    _ => Ok(Vec::new()),
                }
            })?
        })
    }
}

/// What a propagation measured after every layer.
pub(crate) fn measured<'py, T: Float>(
    py: Python<'py>,
    stack: &Stack<T>,
    propagation: &Propagation<T>,
    rows: usize,
) -> PyResult<Vec<Option<Bound<'py, PyAny>>>> {
    let layers = stack.stages().iter().enumerate().map(|(l, stage)| {
        let gives = stage.twin().gives();
        let found = (!gives.complex).then(|| PyArray1::from_vec(py, propagation.outputs(l)));
        found.map(|found| found.reshape([rows, gives.numbers()]).map(Bound::into_any)).transpose()
    });
    layers.collect()
}

/// Sends errors (rows, outputs) back through the stack that a pass went through: what comes back to
/// the inputs, and the gradient.
#[pyfunction]
#[pyo3(signature = (run, system, params, errors, physics, feedback, at, threads))]
#[allow(clippy::type_complexity, reason = "arrays of inputs, and of all parameters")]
#[allow(clippy::too_many_arguments, reason = "one call of the Python layer")]
pub(crate) fn send_back<'py>(
    py: Python<'py>,
    run: &Pass,
    system: &System,
    params: Vec<Bound<'py, PyAny>>,
    errors: Bound<'py, PyAny>,
    physics: bool,
    feedback: Vec<Bound<'py, PyAny>>,
    at: Option<(u64, u64)>,
    threads: Option<usize>,
) -> PyResult<(Bound<'py, PyAny>, Vec<Bound<'py, PyAny>>)> {
    with_dtype!(py, [&errors], T => {
        let core = system.of::<T>();
        let stack = system.stack_of::<T>(py)?;
        let runtime = system.runtime(py, threads, 0)?;
        let (params, memory) = parted(py, core, &params)?;
        let params = Shared::<T>::new(params, "every parameter")?;
        let memory = Shared::<T>::new(memory, MEMORY)?;
        let (params, memory) = (params.params(py)?, memory.slices(py, MEMORY)?);
        let errors = errors.cast::<PyArrayDyn<T>>()?.to_vec()?;
        let matrices = feedback_of(py, stack, &feedback)?;
        // A pass may be sent back through more than once.
        let own = with(py, &run.held, |own: &mut PassOf<T>| own.propagation.clone())?;
        let none = || Error::Capability("the pass went through no layers".into());
        let mut propagation = own.ok_or_else(none).or_raise(py)?;
        let mut state = StepState::new(core);
        let mut gradient = vec![Vec::new(); core.specs().len()];
        system.run(py, || {
            runtime.enter(|| -> Result<_, Error> {
                if let Some(at) = at {
                    propagation.draw_anew(stack, draw(at));
                }
                propagation.set_output_errors(stack, &errors);
                let feedback: Vec<&[T]> = matrices.iter().map(Vec::as_slice).collect();
                let plain = BackwardRule::of(Layers::Twin, stack.twins_are_exact());
                let feedback = &feedback;
                let in_situ = physics.then_some(LightProtocol::Backward(TapProtocol::Difference));
                let rule = BackwardRule { inputs: true, in_situ, feedback, ..plain };
                let place = StackAt { runtime: &runtime, stack, params: &params, memory: &memory };
                propagation.backward(place, &rule, &mut state.update)?;
                state.states.reset(errors.len() / core.outputs(), 1, false);
                write_gradient(&runtime, core.specs(), &mut state, &mut gradient);
                Ok(())
            })
        })?;
        let shape = [errors.len() / core.outputs(), core.inputs()];
        let dx = PyArray1::from_vec(py, propagation.input_errors()).reshape(shape)?;
        Ok((dx.into_any(), gradients(py, core.specs(), gradient)?))
    })
}

/// The matrices in the place of transposed weights: one (outputs, inputs) for each linear map, or
/// none.
fn feedback_of<T: Float>(
    py: Python<'_>,
    stack: &Stack<T>,
    feedback: &[Bound<'_, PyAny>],
) -> PyResult<Vec<Vec<T>>> {
    check_feedback(stack, feedback)?.or_raise(py)?;
    feedback.iter().map(|matrix| Ok(matrix.cast::<PyArrayDyn<T>>()?.to_vec()?)).collect()
}

/// Refuses feedback but one matrix (outputs, inputs) for each linear map.
fn check_feedback<T: Float>(
    stack: &Stack<T>,
    feedback: &[Bound<'_, PyAny>],
) -> PyResult<Result<(), Error>> {
    let maps = stack.stages().iter().filter(|stage| stage.is_linear_map());
    let wanted: Vec<(usize, usize)> =
        maps.map(|stage| (stage.twin().outputs(), stage.twin().inputs())).collect();
    let shapes = feedback.iter().map(|matrix| matrix.getattr("shape")?.extract::<Vec<usize>>());
    let shapes = shapes.collect::<PyResult<Vec<_>>>()?;
    let fits = shapes.iter().map(Vec::as_slice).eq(wanted.iter().map(|&(n, m)| [n, m]));
    let refusal = || {
        Error::Shape(format!(
            "feedback must be matrices of shapes {wanted:?}, one for each linear map, got \
             {shapes:?}"
        ))
    };
    Ok(if feedback.is_empty() || fits { Ok(()) } else { Err(refusal()) })
}

/// Gradients as arrays of the shapes of the parameters.
pub(crate) fn gradients<'py, T: Float>(
    py: Python<'py>,
    specs: &[ParamSpec],
    values: Vec<Vec<T>>,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let shaped = |(spec, values): (&ParamSpec, Vec<T>)| {
        PyArray1::from_vec(py, values).reshape(spec.shape.as_slice()).map(Bound::into_any)
    };
    specs.iter().zip(values).map(shaped).collect()
}

fn boundary(kind: &str, strength: f64) -> Result<Boundary, Error> {
    Ok(match kind {
        "nudged" => Boundary::Nudged(Complex::from(strength)),
        "clamped" => Boundary::Clamped(strength),
        "forced" => Boundary::Forced(strength),
        _ => {
            return Err(Error::Config(format!(
                "unknown boundary {kind:?}, expected nudged, clamped or forced"
            )));
        }
    })
}

/// Settles a batch in the free phase, from rest or from the states of every layer (rows, units),
/// and then in phases with these boundary conditions and strengths.
#[pyfunction]
#[pyo3(signature = (system, params, x, y, boundaries, start, loss, settling, seed, at, threads))]
#[allow(clippy::too_many_arguments, reason = "one call of the Python layer")]
pub(crate) fn run_phases<'py>(
    py: Python<'py>,
    system: &System,
    params: Vec<Bound<'py, PyAny>>,
    x: Bound<'py, PyAny>,
    y: Bound<'py, PyAny>,
    boundaries: Vec<(String, f64)>,
    start: Option<Vec<Bound<'py, PyAny>>>,
    loss: &str,
    settling: &str,
    seed: u64,
    at: (u64, u64),
    threads: Option<usize>,
) -> PyResult<Phases> {
    let phases: Result<Vec<_>, _> =
        boundaries.iter().map(|(kind, strength)| boundary(kind, *strength)).collect();
    let (loss, settling): (Loss, Settling) =
        (parse(py, "loss", loss)?, parse(py, "settling", settling)?);
    let first = if start.is_some() { Start::Given } else { Start::Rest };
    let plan =
        PhasePlan { start: first, ..PhasePlan::from_free(loss, phases.or_raise(py)?, settling) };
    let lent = Lent { system, arrays: &params, x: &x, y: Some(&y), seed, threads };
    with_dtype!(py, [&x], T => {
        let state = lent.with::<T, _>(py, &plan, draw(at), |experiment| {
            let Experiment { runtime, system: core, batch, plan, .. } = *experiment;
            let dynamics = experiment.dynamics().or_raise(py)?;
            for phase in &plan.phases {
                if let Boundary::Nudged(beta) = phase.boundary {
                    dynamics.check_nudge(plan.loss, beta).or_raise(py)?;
                }
            }
            check_rows(core, batch.len(), plan.rows_per_sample(), false).or_raise(py)?;
            let mut state = StepState::<T>::new(core);
            if let Some(start) = &start {
                state.states.reset(batch.len(), plan.rows_per_sample(), false);
                write_free(start, &mut state.states)?;
            }
            system.run(py, || {
                runtime.enter(|| experiment.run(&mut [], &mut state.states, &mut state.workspace))
            })?;
            Ok(state)
        })?;
        Ok(Phases { held: hold(state), plan })
    })
}

/// Writes the free states of every layer (rows, units); the Python side has checked their shapes.
fn write_free<T: Float>(layers: &[Bound<'_, PyAny>], states: &mut States<T>) -> PyResult<()> {
    for (l, layer) in layers.iter().enumerate() {
        let (values, place) = (layer.cast::<PyArrayDyn<T>>()?.to_vec()?, states.layout().layer(l));
        for (i, own) in values.chunks_exact(place.len().max(1)).enumerate() {
            states.row_mut(i * states.phases())[place.clone()].copy_from_slice(own);
        }
    }
    Ok(())
}

#[pymethods]
impl Phases {
    /// The outputs of every phase (rows, outputs), NaN where a row has none, with statuses and
    /// sweeps (rows, phases).
    #[allow(clippy::type_complexity, reason = "three arrays")]
    fn outputs<'py>(
        &self,
        py: Python<'py>,
        system: &System,
        like: Bound<'py, PyAny>,
    ) -> PyResult<(Vec<Bound<'py, PyAny>>, Bound<'py, PyArray2<u8>>, Bound<'py, PyArray2<u32>>)>
    {
        with_dtype!(py, [&like], T => {
            let width = system.of::<T>().outputs();
            with(py, &self.held, |own: &mut StepState<T>| {
                let states = &own.states;
                let outputs = (0..states.phases())
                    .map(|p| phase_outputs(py, states, p, width))
                    .collect::<PyResult<_>>()?;
                Ok((outputs, statuses(py, states)?, sweeps(py, states)?))
            })?
        })
    }

    /// The states of every layer (rows, units) in phase `p`.
    fn states<'py>(
        &self,
        py: Python<'py>,
        p: usize,
        like: Bound<'py, PyAny>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        with_dtype!(py, [&like], T => {
            with(py, &self.held, |own: &mut StepState<T>| {
                let states = &own.states;
                let layer = |(l, &n): (usize, &usize)| {
                    let mut found = Vec::with_capacity(states.samples() * n);
                    for row in (0..states.samples()).map(|i| i * states.phases() + p) {
                        let usable = states.outcomes[row].status.usable();
                        found.extend(
                            states
                                .layer(row, l)
                                .iter()
                                .map(|&s| if usable { s } else { T::from_f64(f64::NAN) }),
                        );
                    }
                    PyArray1::from_vec(py, found)
                        .reshape([states.samples(), n])
                        .map(Bound::into_any)
                };
                states.layout().sizes().iter().enumerate().map(layer).collect()
            })?
        })
    }

    /// The local rule: the sum over phases of weight times dE/dtheta, a mean over samples, by
    /// parameter.
    #[allow(clippy::too_many_arguments, reason = "one call of the Python layer")]
    fn read<'py>(
        &self,
        py: Python<'py>,
        system: &System,
        params: Vec<Bound<'py, PyAny>>,
        x: Bound<'py, PyAny>,
        y: Bound<'py, PyAny>,
        weights: Vec<f64>,
        threads: Option<usize>,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let lent = Lent { system, arrays: &params, x: &x, y: Some(&y), seed: 0, threads };
        with_dtype!(py, [&x], T => {
            lent.with::<T, _>(py, &self.plan, DrawIndex::of_step(0), |experiment| {
                let Experiment { runtime, system: core, .. } = *experiment;
                let dynamics = experiment.dynamics().or_raise(py)?;
                let weights: Vec<Complex<f64>> = weights.into_iter().map(Complex::from).collect();
                let mut gradient = vec![Vec::new(); core.specs().len()];
                with(py, &self.held, |own: &mut StepState<T>| {
                    system.run(py, || {
                        runtime.enter(|| -> Result<_, Error> {
                            let StepState { states, workspace, update, .. } = &mut *own;
                            dynamics.read(experiment, states, &weights, workspace, update)?;
                            write_gradient(runtime, core.specs(), own, &mut gradient);
                            Ok(())
                        })
                    })
                })??;
                gradients(py, core.specs(), gradient)
            })
        })
    }
}

/// Appends the outputs of a phase, NaN where a row has none.
pub(crate) fn append_outputs<T: Float>(states: &States<T>, phase: usize, outputs: &mut Vec<T>) {
    let width = states.layout().outputs().len();
    for row in (0..states.samples()).map(|i| i * states.phases() + phase) {
        if states.outcomes[row].status.usable() {
            outputs.extend_from_slice(states.outputs(row));
        } else {
            outputs.resize(outputs.len() + width, T::from_f64(f64::NAN));
        }
    }
}

fn phase_outputs<'py, T: Float>(
    py: Python<'py>,
    states: &States<T>,
    phase: usize,
    width: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let mut outputs = Vec::with_capacity(states.samples() * width);
    append_outputs(states, phase, &mut outputs);
    Ok(PyArray1::from_vec(py, outputs).reshape([states.samples(), width])?.into_any())
}

fn statuses<'py, T: Float>(
    py: Python<'py>,
    states: &States<T>,
) -> PyResult<Bound<'py, PyArray2<u8>>> {
    let found = states.outcomes.iter().map(|outcome| outcome.status as u8);
    PyArray1::from_iter(py, found).reshape([states.samples(), states.phases()])
}

fn sweeps<'py, T: Float>(
    py: Python<'py>,
    states: &States<T>,
) -> PyResult<Bound<'py, PyArray2<u32>>> {
    let found = states.outcomes.iter().map(|outcome| outcome.sweeps);
    PyArray1::from_iter(py, found).reshape([states.samples(), states.phases()])
}

/// The loss of every sample, and the gradient of their mean by the outputs, for outputs (rows,
/// outputs) that are known.
#[pyfunction]
pub(crate) fn loss<'py>(
    py: Python<'py>,
    outputs: Bound<'py, PyAny>,
    y: Bound<'py, PyAny>,
    loss: &str,
) -> PyResult<(Bound<'py, PyArray1<f64>>, Bound<'py, PyAny>)> {
    let loss: Loss = parse(py, "loss", loss)?;
    with_dtype!(py, [&outputs], T => {
        let width: usize = outputs.getattr("shape")?.extract::<(usize, usize)>()?.1;
        let data = Data::<T>::new(&outputs, Some(&y))?;
        let batch = data.batch(py, width, width)?;
        let scale = T::from_f64(1.0 / batch.len().max(1) as f64);
        let (mut values, mut errors) =
            (Vec::with_capacity(batch.len()), vec![T::ZERO; batch.len() * width]);
        let mut target = vec![T::ZERO; width];
        for (i, error) in errors.chunks_exact_mut(width.max(1)).enumerate() {
            batch.y.write(i, &mut target);
            values.push(loss.value(batch.x.row(i), &target));
            loss.gradient(batch.x.row(i), &target, error);
            error.iter_mut().for_each(|e| *e *= scale);
        }
        let errors = PyArray1::from_vec(py, errors).reshape([batch.len(), width])?.into_any();
        Ok((PyArray1::from_vec(py, values), errors))
    })
}
