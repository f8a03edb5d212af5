//! Experiments and training, with the GIL released.

use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pnncore::Error;
use pnncore::device::{Device, TileSpec};
use pnncore::draw::DrawIndex;
use pnncore::kernels::philox::{Philox, Purpose};
use pnncore::kernels::{Level, Real};
use pnncore::loss::Loss;
use pnncore::memory;
use pnncore::method::forward_forward::ForwardForward;
use pnncore::method::{Method, Protocol, StepResult, StepState, variants};
use pnncore::optim::Optimizer;
use pnncore::params::ParamSpec;
use pnncore::plan::{Boundary, PhasePlan};
use pnncore::runtime::Runtime;
use pnncore::settling::Settling;
use pnncore::states::{States, Status};
use pnncore::system::stack::{Layers, Propagation, Stage};
use pnncore::system::{Experiment, System as CoreSystem, check_rows};
use pnncore::train::{Progress, write_gradient};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::{Data, Exclusive, Float, with_dtype};
use crate::calls::{self, detached};
use crate::errors::{OrRaise, parse};
use crate::experiment::{append_outputs, gradients, measured};
use crate::lent::Lent;
use crate::own_method::method_of;
use crate::system::System;

/// Checks the configuration of a method.
#[pyfunction]
pub(crate) fn check_method(py: Python<'_>, method: &str) -> PyResult<()> {
    parse::<Method>(py, "method", method)?.check().or_raise(py)
}

/// Checks that a method can train a system whose states have this dtype, with an optimizer; returns
/// names and shapes of the arrays that optimizer, cells and method keep.
#[pyfunction]
pub(crate) fn check_pair(
    py: Python<'_>,
    system: &System,
    dtype: &str,
    method: &Bound<'_, PyAny>,
    optimizer: &str,
) -> PyResult<Vec<(String, Vec<usize>)>> {
    let method = method_of(method, system.raised())?;
    let optimizer = parse(py, "optimizer", optimizer)?;
    fn kept<T: Real>(
        core: &dyn CoreSystem<T>,
        method: &Method,
        optimizer: &Optimizer,
    ) -> Result<Vec<ParamSpec>, Error> {
        let protocol = method.protocol(core)?;
        protocol.check_optimizer(optimizer)?;
        let named = |kind: &'static str| {
            move |spec: ParamSpec| ParamSpec { name: format!("{kind}/{}", spec.name), ..spec }
        };
        let cells = pnncore::train::cells(core).into_iter().map(named("cells"));
        let moments = optimizer.memory(core.specs()).into_iter();
        Ok(moments
            .chain(cells)
            .chain(protocol.memory(core).into_iter().map(named("method")))
            .collect())
    }
    let specs = match dtype {
        "float64" => kept(system.of::<f64>(), &method, &optimizer),
        _ => kept(system.of::<f32>(), &method, &optimizer),
    };
    Ok(specs.or_raise(py)?.into_iter().map(|spec| (spec.name, spec.shape)).collect())
}

/// Fills the arrays that a method keeps with what they hold before the first step.
#[pyfunction]
pub(crate) fn initialise_memory(
    py: Python<'_>,
    system: &System,
    method: &Bound<'_, PyAny>,
    memory: Vec<Bound<'_, PyAny>>,
    seed: u64,
) -> PyResult<()> {
    let method = method_of(method, system.raised())?;
    with_dtype!(py, memory, T => {
        let core = system.of::<T>();
        let protocol = method.protocol(core).or_raise(py)?;
        let mut arrays = Exclusive::<T>::new(&memory, "every array of the method")?;
        let runtime = system.runtime(py, Some(1), seed)?;
        let mut slices = arrays.slices(py, "every array of the method")?;
        detached(py, || protocol.initialise(&runtime, core, &mut slices))?;
    });
    Ok(())
}

/// The arrays of a method before the first step.
fn fresh_memory<T: Float>(
    protocol: &Protocol<T>,
    runtime: &Runtime,
    core: &dyn CoreSystem<T>,
) -> Vec<Vec<T>> {
    let mut memory: Vec<Vec<T>> =
        protocol.memory(core).iter().map(|spec| vec![T::ZERO; spec.len()]).collect();
    protocol.initialise(
        runtime,
        core,
        &mut memory.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(),
    );
    memory
}

/// Brings parameters into the ranges of the cells that they are stored in.
#[pyfunction]
pub(crate) fn clip(py: Python<'_>, system: &System, params: Vec<Bound<'_, PyAny>>) -> PyResult<()> {
    with_dtype!(py, params, T => {
        let core = system.of::<T>();
        let mut arrays = Exclusive::<T>::new(&params, "every parameter")?;
        for (i, values) in arrays.slices(py, "every parameter")?.into_iter().enumerate() {
            core.store(i).keep_within(values);
        }
    });
    Ok(())
}

/// Checks the configuration of an array of cells.
#[pyfunction]
pub(crate) fn check_tile(py: Python<'_>, tile: &str) -> PyResult<()> {
    parse::<TileSpec>(py, "tile", tile)?.check().or_raise(py)
}

/// Checks the configuration of a device.
#[pyfunction]
pub(crate) fn check_device(py: Python<'_>, device: &str) -> PyResult<()> {
    parse::<Device>(py, "device", device)?.check().or_raise(py)
}

/// Checks the configuration of an optimizer.
#[pyfunction]
pub(crate) fn check_optimizer(py: Python<'_>, optimizer: &str) -> PyResult<()> {
    let optimizer: Optimizer = parse(py, "optimizer", optimizer)?;
    optimizer.check().or_raise(py)
}

/// The order of `n` samples in an epoch.
#[pyfunction]
pub(crate) fn permutation(
    py: Python<'_>,
    n: usize,
    seed: u64,
    epoch: u32,
) -> PyResult<Bound<'_, PyArray1<u64>>> {
    let shuffled = || {
        let mut order = vec![0; n];
        Philox::new(seed, Purpose::Shuffle).shuffle(&mut order, epoch);
        order
    };
    Ok(PyArray1::from_vec(py, detached(py, shuffled)?))
}

/// Version, instruction set, threads, methods.
#[pyfunction]
pub(crate) fn info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("version", env!("CARGO_PKG_VERSION"))?;
    dict.set_item("simd", Level::get().name())?;
    dict.set_item("simd_available", Level::available().map(Level::name).collect::<Vec<_>>())?;
    dict.set_item("threads", calls::runtime(py, None, 0)?.threads())?;
    dict.set_item("methods", methods())?;
    Ok(dict)
}

/// The direction that the outputs of a linear map are compared with: see
/// [`ForwardForward::direction`].
#[pyfunction]
pub(crate) fn goodness_direction(
    py: Python<'_>,
    map: u32,
    width: usize,
) -> Bound<'_, PyArray1<f64>> {
    PyArray1::from_vec(py, ForwardForward::direction(map, width))
}

/// The calls that make methods, with what each needs of a system, in words.
#[pyfunction]
pub(crate) fn methods() -> Vec<(&'static str, String)> {
    variants().map(|(name, needs)| (name, needs.words())).collect()
}

pub(crate) fn progress_dict<'py>(
    py: Python<'py>,
    progress: &Progress,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("samples", progress.samples)?;
    dict.set_item("usable", progress.usable)?;
    dict.set_item("loss", progress.loss)?;
    dict.set_item("correct", progress.correct)?;
    dict.set_item("scored", progress.scored)?;
    dict.set_item("free_sweeps", progress.free_sweeps)?;
    dict.set_item("other_sweeps", progress.other_sweeps)?;
    dict.set_item("passes", progress.cost.passes)?;
    dict.set_item("measured", progress.cost.measured)?;
    dict.set_item("operations", progress.cost.operations)?;
    dict.set_item("pulses", progress.cost.pulses)?;
    dict.set_item("reversed", progress.cost.reversed)?;
    dict.set_item("reads", progress.cost.reads)?;
    for status in Status::ALL {
        dict.set_item(status.name(), progress.rows_with(status))?;
    }
    Ok(dict)
}

/// What a call without a step finds: the names and the types of what others find.
#[pyfunction]
pub(crate) fn no_progress(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    progress_dict(py, &Progress::default())
}

/// Settles all samples in the free phase and, with targets and `beta`, in one nudged phase. Returns
/// states by layer, energies, residuals, sweeps and status numbers of the last phase.
#[pyfunction]
#[pyo3(signature = (system, params, x, y, beta, loss, settling, threads))]
#[allow(clippy::too_many_arguments, reason = "one call of the Python layer")]
pub(crate) fn settle<'py>(
    py: Python<'py>,
    system: &System,
    params: Vec<Bound<'py, PyAny>>,
    x: Bound<'py, PyAny>,
    y: Option<Bound<'py, PyAny>>,
    beta: Option<f64>,
    loss: &str,
    settling: &str,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyDict>> {
    let loss: Loss = parse(py, "loss", loss)?;
    let settling: Settling = parse(py, "settling", settling)?;
    settling.check().or_raise(py)?;
    let plan = PhasePlan::from_free(loss, beta.map(|beta| Boundary::Nudged(beta.into())), settling);
    let lent = Lent { system, arrays: &params, x: &x, y: y.as_ref(), seed: 0, threads };
    with_dtype!(py, [params.first().unwrap_or(&x)], T => {
        lent.with::<T, _>(py, &plan, DrawIndex::of_inference(0), |experiment| {
            settle_all(py, system, experiment)
        })
    })
}

fn settle_all<'py, T: Float>(
    py: Python<'py>,
    system: &System,
    experiment: &Experiment<'_, T>,
) -> PyResult<Bound<'py, PyDict>> {
    let Experiment { runtime, system: core, params, batch, plan, .. } = *experiment;
    check_rows(core, batch.len(), plan.rows_per_sample(), false).or_raise(py)?;
    let mut states = States::new(core.layout());
    let (energy, residual) = system.run(py, || {
        runtime.enter(|| -> Result<_, Error> {
            experiment.run(&mut [], &mut states, &mut core.workspace())?;
            let last = states.last_phase();
            let (mut energy, mut residual) = (None, None);
            if let Some(exact) = core.as_state_derivatives() {
                let mut sums = vec![f64::NAN; last.rows()];
                if exact.is_reciprocal() {
                    exact.energy(params, batch, &last, &mut sums)?;
                }
                energy = Some(sums);
                let boundary = plan.boundary(plan.phases.len());
                residual = Some(pnncore::system::residual(
                    exact, params, batch, plan.loss, boundary, &states,
                )?);
            }
            states = last;
            Ok((energy, residual))
        })
    })?;
    let dict = PyDict::new(py);
    let layers: Vec<_> = (0..states.layout().sizes().len())
        .map(|l| {
            let n = states.layout().sizes()[l];
            let array = PyArray2::<T>::zeros(py, [states.rows(), n], false);
            let mut view = array.readwrite();
            if let Ok(slice) = view.as_slice_mut() {
                for (r, row) in slice.chunks_exact_mut(n).enumerate() {
                    row.copy_from_slice(states.layer(r, l));
                }
            }
            array
        })
        .collect();
    dict.set_item("states", layers)?;
    dict.set_item("energy", energy.map(|e| PyArray1::from_vec(py, e)))?;
    dict.set_item("residual", residual.map(|e| PyArray1::from_vec(py, e)))?;
    dict.set_item(
        "sweeps",
        PyArray1::from_iter(py, states.outcomes.iter().map(|o| i64::from(o.sweeps))),
    )?;
    dict.set_item(
        "status",
        PyArray1::from_iter(py, states.outcomes.iter().map(|o| o.status as u8)),
    )?;
    Ok(dict)
}

/// Samples that inference runs together: bounds its memory.
const INFERENCE_BATCH: usize = 1024;

/// The outputs of every sample (of systems that settle, in the free steady state), NaN where it
/// diverged, and status numbers.
#[pyfunction]
#[pyo3(signature = (system, params, x, settling, repeat, threads))]
pub(crate) fn predict<'py>(
    py: Python<'py>,
    system: &System,
    params: Vec<Bound<'py, PyAny>>,
    x: Bound<'py, PyAny>,
    settling: &str,
    repeat: u64,
    threads: Option<usize>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyArray1<u8>>)> {
    let settling: Settling = parse(py, "settling", settling)?;
    settling.check().or_raise(py)?;
    let plan = PhasePlan::free(Loss::SquaredError, settling);
    let lent = Lent { system, arrays: &params, x: &x, y: None, seed: 0, threads };
    with_dtype!(py, [&x], T => {
        lent.with::<T, _>(py, &plan, DrawIndex::of_inference(repeat), |experiment| {
            infer_all(py, system, experiment)
        })
    })
}

fn infer_all<'py, T: Float>(
    py: Python<'py>,
    system: &System,
    experiment: &Experiment<'_, T>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyArray1<u8>>)> {
    let Experiment { runtime, system: core, batch, draw, .. } = *experiment;
    check_rows(core, batch.len().min(INFERENCE_BATCH), 1, false).or_raise(py)?;
    let bytes = memory::product(&[batch.len(), core.outputs(), size_of::<T>()]);
    memory::check(bytes, || format!("the outputs of {} samples", batch.len())).or_raise(py)?;
    let mut outputs = Vec::with_capacity(batch.len() * core.outputs());
    let mut status = Vec::with_capacity(batch.len());
    let mut states = States::new(core.layout());
    let mut workspace = core.workspace();
    let order: Vec<u64> = (0..batch.len() as u64).collect();
    for (k, index) in order.chunks(INFERENCE_BATCH).enumerate() {
        py.check_signals()?;
        system.run(py, || {
            let batch = batch.pick(index);
            let experiment =
                Experiment { batch: &batch, draw: draw.after(k as u64), ..*experiment };
            runtime.enter(|| experiment.infer(&mut states, &mut workspace))
        })?;
        status.extend(states.outcomes.iter().map(|outcome| outcome.status as u8));
        append_outputs(&states, 0, &mut outputs);
    }
    let outputs = PyArray1::from_vec(py, outputs).reshape([batch.len(), core.outputs()])?;
    Ok((outputs.into_any(), PyArray1::from_vec(py, status)))
}

/// What is measured after every layer of a stack: arrays (samples, outputs of the layer), none
/// after layers that give fields.
#[pyfunction]
#[pyo3(signature = (system, params, x, repeat, threads))]
pub(crate) fn measure<'py>(
    py: Python<'py>,
    system: &System,
    params: Vec<Bound<'py, PyAny>>,
    x: Bound<'py, PyAny>,
    repeat: u64,
    threads: Option<usize>,
) -> PyResult<Vec<Option<Bound<'py, PyAny>>>> {
    let lent = Lent { system, arrays: &params, x: &x, y: None, seed: 0, threads };
    let plan = PhasePlan::free(Loss::SquaredError, Settling::default());
    with_dtype!(py, [&x], T => {
        let stack = system.stack_of::<T>(py)?;
        lent.with::<T, _>(py, &plan, DrawIndex::of_inference(repeat), |experiment| {
            let mut propagation = Propagation::default();
            system.run(py, || {
                experiment.runtime.enter(|| {
                    propagation.begin(stack, experiment.batch);
                    let at = experiment.at(stack);
                    propagation.forward(at, Layers::Hardware, false, experiment.draw)
                })
            })?;
            measured(py, stack, &propagation, experiment.batch.len())
        })
    })
}

/// The fields behind every layer of a stack that gives one, of its hardware or of its twins,
/// without noise: arrays (samples, real parts and then imaginary parts), and none where signals are
/// real.
#[pyfunction]
#[pyo3(signature = (system, params, x, hardware, threads))]
pub(crate) fn fields<'py>(
    py: Python<'py>,
    system: &System,
    params: Vec<Bound<'py, PyAny>>,
    x: Bound<'py, PyAny>,
    hardware: bool,
    threads: Option<usize>,
) -> PyResult<Vec<Option<Bound<'py, PyAny>>>> {
    let lent = Lent { system, arrays: &params, x: &x, y: None, seed: 0, threads };
    let plan = PhasePlan::free(Loss::SquaredError, Settling::default());
    with_dtype!(py, [&x], T => {
        let stack = system.stack_of::<T>(py)?;
        lent.with::<T, _>(py, &plan, DrawIndex::of_inference(0), |experiment| {
            let mut propagation = Propagation::default();
            let layers = if hardware { Layers::Hardware } else { Layers::Twin };
            system.run(py, || {
                experiment.runtime.enter(|| {
                    propagation.begin(stack, experiment.batch);
                    let random = experiment.runtime.random(Purpose::Noise);
                    propagation.pass(experiment.at(stack), layers, false, |_| 0.0, random)
                })
            })?;
            let rows = experiment.batch.len();
            let field = |(l, stage): (usize, &Stage<T>)| {
                let gives = stage.twin().gives();
                let found = gives.complex.then(|| PyArray1::from_vec(py, propagation.outputs(l)));
                let shaped = found.map(|own| own.reshape([rows, gives.numbers()]));
                shaped.map(|own| own.map(Bound::into_any)).transpose()
            };
            stack.stages().iter().enumerate().map(field).collect()
        })
    })
}

/// What `dy`, errors of the outputs, says of the inputs and of the parameters, through the twins of
/// a stack.
#[pyfunction]
#[pyo3(signature = (system, params, x, dy, threads))]
#[allow(clippy::type_complexity, reason = "arrays of inputs, and of all parameters")]
pub(crate) fn vjp<'py>(
    py: Python<'py>,
    system: &System,
    params: Vec<Bound<'py, PyAny>>,
    x: Bound<'py, PyAny>,
    dy: Bound<'py, PyAny>,
    threads: Option<usize>,
) -> PyResult<(Bound<'py, PyAny>, Vec<Bound<'py, PyAny>>)> {
    let lent = Lent { system, arrays: &params, x: &x, y: None, seed: 0, threads };
    let plan = PhasePlan::free(Loss::SquaredError, Settling::default());
    with_dtype!(py, [&x], T => {
        let stack = system.stack_of::<T>(py)?;
        lent.with::<T, _>(py, &plan, DrawIndex::of_inference(0), |experiment| {
            let Experiment { runtime, system: core, batch, .. } = *experiment;
            let errors = Data::<T>::new(&dy, None)?;
            let errors = errors.batch(py, core.outputs(), core.outputs())?;
            check_rows(core, batch.len(), 1, true).or_raise(py)?;
            if errors.len() != batch.len() {
                let text = format!("dy must have {} rows, got {}", batch.len(), errors.len());
                return Err(Error::Shape(text)).or_raise(py);
            }
            let errors: Vec<T> = (0..errors.len()).flat_map(|i| errors.x.row(i)).copied().collect();
            let mut propagation = Propagation::default();
            let mut state = StepState::new(core);
            let mut gradient = vec![Vec::new(); core.specs().len()];
            system.run(py, || {
                runtime.enter(|| -> Result<_, Error> {
                    propagation.vjp(experiment.at(stack), batch, &errors, &mut state.update)?;
                    state.states.reset(batch.len(), 1, false);
                    write_gradient(runtime, core.specs(), &mut state, &mut gradient);
                    Ok(())
                })
            })?;
            let dx = PyArray1::from_vec(py, propagation.input_errors())
                .reshape([batch.len(), core.inputs()])?;
            Ok((dx.into_any(), gradients(py, core.specs(), gradient)?))
        })
    })
}

/// The gradient that a step on all samples would use, by parameter, and what the step found.
#[pyfunction]
#[pyo3(signature = (system, params, x, y, method, seed, step, threads))]
#[allow(clippy::too_many_arguments, reason = "one call of the Python layer")]
pub(crate) fn gradient<'py>(
    py: Python<'py>,
    system: &System,
    params: Vec<Bound<'py, PyAny>>,
    x: Bound<'py, PyAny>,
    y: Bound<'py, PyAny>,
    method: &Bound<'py, PyAny>,
    seed: u64,
    step: u64,
    threads: Option<usize>,
) -> PyResult<(Vec<Bound<'py, PyAny>>, Bound<'py, PyDict>)> {
    let method = method_of(method, system.raised())?;
    let threads = if method.calls_out() { Some(1) } else { threads };
    let lent = Lent { system, arrays: &params, x: &x, y: Some(&y), seed, threads };
    with_dtype!(py, [params.first().unwrap_or(&x)], T => {
        let protocol = method.protocol(system.of::<T>()).or_raise(py)?;
        lent.with::<T, _>(py, protocol.plan(), DrawIndex::of_step(step), |experiment| {
            let experiment = protocol.with_own_loss(*experiment);
            let Experiment { runtime, system: core, batch, .. } = experiment;
            protocol.check_batch(core, batch.len()).or_raise(py)?;
            let mut gradient = vec![Vec::new(); core.specs().len()];
            let mut progress = Progress::default();
            system.run(py, || {
                runtime.enter(|| -> Result<_, Error> {
                    let mut state = StepState::new(core);
                    let mut memory = fresh_memory(&protocol, runtime, core);
                    let mut memory: Vec<&mut [T]> =
                        memory.iter_mut().map(Vec::as_mut_slice).collect();
                    protocol.step(&experiment, &mut memory, &mut state)?;
                    if state.found == StepResult::Change {
                        let text = format!(
                            "{} gives new parameters, not a gradient",
                            method.name()
                        );
                        return Err(Error::Capability(text));
                    }
                    progress.cost = state.cost;
                    progress.count(&protocol, batch, &state, &mut Vec::new());
                    write_gradient(runtime, core.specs(), &mut state, &mut gradient);
                    Ok(())
                })
            })?;
            let wide = gradient
                .iter()
                .map(|values| values.iter().map(|&v| v.to_f64()).collect())
                .collect();
            let found = progress_dict(py, &progress)?;
            found.set_item("whole", progress.whole)?;
            Ok((gradients::<f64>(py, core.specs(), wide)?, found))
        })
    })
}

/// The current (samples, elements) through every element of a circuit at its free operating
/// point.
#[pyfunction]
pub(crate) fn currents<'py>(
    py: Python<'py>,
    system: &System,
    params: Vec<Bound<'py, PyAny>>,
    x: Bound<'py, PyAny>,
    threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let lent = Lent { system, arrays: &params, x: &x, y: None, seed: 0, threads };
    let plan = PhasePlan::free(Loss::SquaredError, Settling::default());
    with_dtype!(py, [params.first().unwrap_or(&x)], T => {
        lent.with::<T, _>(py, &plan, DrawIndex::of_inference(0), |experiment| {
            let Experiment { runtime, system: core, params, batch, .. } = *experiment;
            let circuit = core
                .as_circuit()
                .ok_or_else(|| Error::Capability("only circuits have currents".into()));
            let circuit = circuit.or_raise(py)?;
            let found = system
                .run(py, || Ok(runtime.enter(|| circuit.currents(runtime, params, batch))))?;
            PyArray1::from_vec(py, found).reshape([batch.len(), circuit.elements()])
        })
    })
}
