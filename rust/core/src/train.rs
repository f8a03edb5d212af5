//! Training: steps over batches, some milliseconds at a time.

use std::time::{Duration, Instant};

use pnncore_kernels::{Real, watch};
use smallvec::SmallVec;

use crate::batch::Batch;
use crate::device::{CellArray, Change, Device, UpdateKey};
use crate::divergence::{Divergence, Kept, Scale, are_finite, copy_into};
use crate::method::{Cost, Protocol, StepResult, StepState};
use crate::optim::Optimizer;
use crate::params::{ParamSpec, Params, all_finite};
use crate::runtime::Runtime;
use crate::states::Status;
use crate::system::{Experiment, System};
use crate::{Error, Result};

/// What is trained, how, and on what.
#[derive(Clone, Copy)]
pub struct TrainingTask<'a, T: Real> {
    /// The physics.
    pub system: &'a dyn System<T>,
    /// The method, compiled for the system.
    pub protocol: &'a Protocol<T>,
    /// The optimizer.
    pub optimizer: &'a Optimizer,
    /// One rate per parameter.
    pub rates: &'a [f64],
    /// The data set.
    pub data: Batch<'a, T>,
    /// The order of its samples in this epoch.
    pub order: &'a [u64],
    /// The most samples per step. The steps of an epoch differ by one sample at most: a short last
    /// batch would move the parameters as far as a full one, on the word of a few samples.
    pub batch_size: usize,
}

impl<'a, T: Real> TrainingTask<'a, T> {
    /// Steps of an epoch.
    pub fn steps(&self) -> usize {
        self.order.len().div_ceil(self.batch_size)
    }

    /// The samples of step `k`.
    fn batch(&self, k: usize) -> &'a [u64] {
        let (n, steps) = (self.order.len(), self.steps());
        &self.order[k * n / steps..(k + 1) * n / steps]
    }
}

/// How far to go.
#[derive(Debug, Clone, Copy)]
pub struct StepBudget {
    /// Steps of the epoch that are done.
    pub first: usize,
    /// Steps of earlier epochs.
    pub before: u64,
    /// The most steps to make.
    pub steps: usize,
    /// Stop after the step that ends later than this.
    pub time: Duration,
    /// The mean loss of the first epoch, by which it is told whether training diverges where
    /// nothing but zero is wanted; 0 where there was none.
    pub first_epoch: f64,
}

/// Sums over steps.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// Steps made.
    pub steps: u64,
    /// Samples seen.
    pub samples: u64,
    /// Samples whose free state is usable: those that the loss and the hits are summed over.
    pub usable: u64,
    /// Samples all of whose phases are usable: those that a gradient comes from.
    pub whole: u64,
    /// Sum of the losses of samples with usable states, at the free state.
    pub loss: f64,
    /// Samples with outputs of which some mean a label: those that hits may be among.
    pub scored: u64,
    /// Samples whose largest output was that of their label, where targets are labels.
    pub correct: u64,
    /// Rows settled, by [`Status`].
    pub rows: [u64; Status::ALL.len()],
    /// Sweeps of free phases.
    pub free_sweeps: u64,
    /// Sweeps of all other phases.
    pub other_sweeps: u64,
    /// What the experiments cost.
    pub cost: Cost,
    /// Why the next step is not made.
    pub divergence: Option<Divergence>,
}

impl Progress {
    /// Adds what a step found.
    pub fn count<T: Real>(
        &mut self,
        protocol: &Protocol<T>,
        batch: &Batch<'_, T>,
        state: &StepState<T>,
        target: &mut Vec<T>,
    ) {
        let states = &state.states;
        target.resize(states.layout().outputs().len(), T::ZERO);
        self.steps += 1;
        self.samples += batch.len() as u64;
        for i in 0..batch.len() {
            let free = i * states.phases();
            for (p, outcome) in states.outcomes[free..free + states.phases()].iter().enumerate() {
                if outcome.sweeps > 0 || !outcome.status.usable() {
                    let counted = match outcome.status {
                        Status::Saddle => Status::Unconverged,
                        Status::Floppy => Status::Converged,
                        status => status,
                    };
                    self.rows[counted as usize] += 1;
                }
                *(if p == 0 { &mut self.free_sweeps } else { &mut self.other_sweeps }) +=
                    u64::from(outcome.sweeps);
            }
            self.whole += u64::from(states.usable(i));
            if !states.outcomes[free].status.usable() {
                continue;
            }
            self.usable += 1;
            if let Some(losses) = &state.local_losses {
                self.loss += losses[i];
                continue;
            }
            self.scored += 1;
            let outputs = states.outputs(free);
            batch.y.write(i, target);
            let value = || protocol.loss().value(outputs, target);
            self.loss += state.own_losses.as_ref().map_or_else(value, |losses| losses[i]);
            if argmax(outputs).is_some_and(|found| batch.y.label(i) == Some(found)) {
                self.correct += 1;
            }
        }
    }

    /// Rows that ended with a status; saddle points count as unconverged, floppy states as
    /// converged.
    pub fn rows_with(&self, status: Status) -> u64 {
        self.rows[status as usize]
    }
}

/// The place of the largest element, the first of equals; `None` where one is infinite or not a
/// number: such outputs have no label.
pub fn argmax<T: Real>(values: &[T]) -> Option<usize> {
    let mut best = None;
    let mut top = T::ZERO;
    for (k, &v) in values.iter().enumerate() {
        if !v.is_finite() {
            return None;
        }
        if best.is_none() || v > top {
            (best, top) = (Some(k), v);
        }
    }
    best
}

/// Makes steps until the budget or the epoch ends, or until a step [diverges](crate::divergence),
/// and adds what they found to `progress`: its sum of losses is gone on from, since floating-point
/// sums depend on where they begin.
///
/// Where calls end does not change any bit of the result. A step that diverges leaves parameters
/// and memory as they were before it.
///
/// # Errors
/// Whatever a step may fail with. The steps before it are in the parameters and in `progress`; the
/// failed one changed nothing.
pub fn train<T: Real>(
    runtime: &Runtime,
    task: TrainingTask<'_, T>,
    budget: StepBudget,
    params: &mut Params<'_, T>,
    memory: &mut [&mut [T]],
    progress: &mut Progress,
) -> Result<()> {
    task.protocol.check_optimizer(task.optimizer)?;
    let (mut kept, before) = (Kept::of(params, memory), *progress);
    let result = make_steps(runtime, &task, budget, params, memory, progress, None);
    let made = (progress.steps - before.steps) as usize;
    // What is not finite stays so: it is enough to look once per call, and to look for the step
    // only then.
    if made == 0 || are_finite(params, memory) {
        return result;
    }
    kept.restore(params, memory)?;
    *progress = before;
    if made == 1 {
        progress.divergence = Some(Divergence::Parameters);
        return Ok(());
    }
    let again = StepBudget { steps: made, time: Duration::MAX, ..budget };
    make_steps(runtime, &task, again, params, memory, progress, Some(&mut kept))
}

/// Makes the steps of a budget. With `kept`, each is taken back that leaves what is not finite;
/// otherwise that is the caller's to see.
fn make_steps<T: Real>(
    runtime: &Runtime,
    task: &TrainingTask<'_, T>,
    budget: StepBudget,
    params: &mut Params<'_, T>,
    memory: &mut [&mut [T]],
    progress: &mut Progress,
    mut kept: Option<&mut Kept<T>>,
) -> Result<()> {
    let start = Instant::now();
    let mut run = Run {
        runtime,
        task,
        state: StepState::new(task.system),
        scale: Scale::new(
            task.protocol.loss(),
            task.data.y,
            task.system.outputs(),
            budget.first_epoch,
        ),
        gradient: Vec::new(),
        target: Vec::new(),
        copies: Vec::new(),
    };
    for k in (budget.first..task.steps()).take(budget.steps) {
        if let Some(kept) = &mut kept {
            kept.renew(params, memory);
        }
        let counted = match run.step(k, budget.before + k as u64, params, memory, *progress)? {
            Ok(counted) => counted,
            Err(divergence) => {
                progress.divergence = Some(divergence);
                break;
            }
        };
        if let Some(kept) = &kept
            && !are_finite(params, memory)
        {
            kept.restore(params, memory)?;
            progress.divergence = Some(Divergence::Parameters);
            break;
        }
        *progress = counted;
        if start.elapsed() >= budget.time {
            break;
        }
    }
    Ok(())
}

/// The steps of a call, and their memory.
struct Run<'a, 'b, T: Real> {
    runtime: &'a Runtime,
    task: &'a TrainingTask<'b, T>,
    state: StepState<T>,
    scale: Scale<'b, T>,
    gradient: Vec<T>,
    target: Vec<T>,
    /// What the method kept before the step.
    copies: Vec<Vec<T>>,
}

impl<T: Real> Run<'_, '_, T> {
    /// Makes step `k` of the epoch, `step` of all, and gives the progress after it. One that
    /// diverges leaves the parameters as they are.
    fn step(
        &mut self,
        k: usize,
        step: u64,
        params: &mut Params<'_, T>,
        memory: &mut [&mut [T]],
        before: Progress,
    ) -> Result<Result<Progress, Divergence>> {
        let Self { runtime, task, state, scale, gradient, target, copies } = self;
        let TrainingTask { system, protocol, optimizer, rates, .. } = **task;
        let (memory, kept) = memory.split_at_mut(optimizer.memory(system.specs()).len());
        let (cells, kept) = kept.split_at_mut(kept_by_cells(system));
        let (own, kept) = kept.split_at_mut(system.memory().len());
        let batch = task.data.pick(task.batch(k));
        state.cost = before.cost;
        let mut undo = Undo::of(kept, copies, protocol.writes_memory());
        {
            let begun = shared(own);
            let experiment = Experiment {
                memory: &begun,
                ..protocol.experiment(runtime, system, params, &batch, step)
            };
            protocol.step(&experiment, undo.memory, state)?;
        }
        let mut counted = before;
        counted.count(protocol, &batch, state, target);
        let mut alone = counted.loss - before.loss;
        if !before.loss.is_finite() {
            // What a file brought along says nothing of this step.
            let mut fresh = Progress::default();
            fresh.count(protocol, &batch, state, target);
            alone = fresh.loss;
        }
        if let Some(divergence) = diverges(&before, &counted, alone, scale, &batch, state) {
            return Ok(Err(divergence));
        }
        undo.armed = false;
        drop(undo);
        // From here on the step is made or not, but not left in the middle.
        let pulses = watch::to_the_end(|| {
            let pulses = if state.found == StepResult::Change {
                write(runtime, task, &state.wanted, params, cells, step)?
            } else {
                let begun = shared(own);
                let experiment = Experiment {
                    memory: &begun,
                    ..protocol.experiment(runtime, system, params, &batch, step)
                };
                protocol.before_update(&experiment, optimizer, rates, &state.update, kept);
                let StepState { states, update, .. } = &mut *state;
                optimizer.step(
                    runtime, system, states, update, params, memory, cells, gradient, rates, step,
                )?
            };
            system.advance(own);
            Ok::<_, Error>(pulses)
        })?;
        state.cost.pulses += pulses as u64;
        counted.cost = state.cost;
        Ok(Ok(counted))
    }
}

/// Arrays to read: most systems keep few, and then the list takes no memory of its own.
fn shared<'a, T>(arrays: &'a [&mut [T]]) -> SmallVec<[&'a [T]; 8]> {
    arrays.iter().map(|array| &**array).collect()
}

/// Takes back what the method changed in its memory, unless the step comes to its end: by an error
/// or a divergence, or by an interrupt that unwinds.
struct Undo<'a, 'b, T: Real> {
    memory: &'a mut [&'b mut [T]],
    copies: &'a [Vec<T>],
    armed: bool,
}

impl<'a, 'b, T: Real> Undo<'a, 'b, T> {
    fn of(memory: &'a mut [&'b mut [T]], copies: &'a mut Vec<Vec<T>>, armed: bool) -> Self {
        if armed {
            copies.resize_with(memory.len(), Vec::new);
            for (copy, array) in copies.iter_mut().zip(&*memory) {
                copy_into(array, copy);
            }
        }
        Self { memory, copies, armed }
    }
}

impl<T: Real> Drop for Undo<'_, '_, T> {
    fn drop(&mut self) {
        if self.armed {
            self.memory
                .iter_mut()
                .zip(self.copies)
                .for_each(|(array, copy)| array.copy_from_slice(copy));
        }
    }
}

/// Whether the experiments of a step, whose losses sum to `loss`, say that training has diverged.
fn diverges<T: Real>(
    before: &Progress,
    after: &Progress,
    loss: f64,
    scale: &Scale<'_, T>,
    batch: &Batch<'_, T>,
    state: &StepState<T>,
) -> Option<Divergence> {
    let usable = after.usable - before.usable;
    if usable == 0 {
        return Some(Divergence::Outputs);
    }
    let mean = loss / usable as f64;
    let is_exceeded = match &state.own_losses {
        Some(_) => scale.is_exceeded_by_own(mean),
        None => scale.is_exceeded(mean, batch, state.local_losses.is_some()),
    };
    if is_exceeded {
        return Some(Divergence::Loss(mean));
    }
    let finite = match state.found {
        StepResult::Change => state.wanted.iter().all(|values| all_finite(values)),
        StepResult::Gradient => state.update.is_finite(),
    };
    (!finite).then_some(Divergence::Change)
}

/// How many arrays the tiles of a system keep.
fn kept_by_cells<T: Real>(system: &dyn System<T>) -> usize {
    (0..system.specs().len()).map(|i| system.store(i).kept()).sum()
}

/// Names and shapes of the arrays that the tiles of a system keep, parameter by parameter; they are
/// zero at first.
pub fn cells<T: Real>(system: &dyn System<T>) -> Vec<ParamSpec> {
    let of_parameter = |(i, spec): (usize, &ParamSpec)| {
        let own = system.store(i).cells.map_or_else(Vec::new, CellArray::memory);
        let named =
            |array: ParamSpec| ParamSpec { name: format!("{}/{}", spec.name, array.name), ..array };
        own.into_iter().map(named).collect::<Vec<_>>()
    };
    system.specs().iter().enumerate().flat_map(of_parameter).collect()
}

/// Brings parameters to wanted values, as near as their devices can. Those with a rate of zero
/// stay. Returns how many pulses that took.
fn write<T: Real>(
    runtime: &Runtime,
    task: &TrainingTask<'_, T>,
    wanted: &[Vec<T>],
    params: &mut Params<'_, T>,
    cells: &mut [&mut [T]],
    step: u64,
) -> Result<f64> {
    let (mut rest, mut pulses) = (cells, 0.0);
    for (i, (wanted, &rate)) in wanted.iter().zip(task.rates).enumerate() {
        let store = task.system.store(i);
        let own;
        (own, rest) = rest.split_at_mut(store.kept());
        if rate == 0.0 {
            continue;
        }
        let values = params.get_mut(i)?;
        if let Some(cells) = store.cells {
            let change: Vec<T> =
                wanted.iter().zip(&*values).map(|(&wanted, &value)| wanted - value).collect();
            pulses += cells.update(
                runtime,
                UpdateKey { parameter: i, step, rate },
                Change::Dense(&change),
                values,
                own,
            );
        } else {
            values.copy_from_slice(wanted);
            store.device.write(runtime, i, step + 1, values);
        }
    }
    Ok(pulses)
}

/// Writes the gradient that a step found, parameter by parameter. Uses the update in `state` up.
pub fn write_gradient<T: Real>(
    runtime: &Runtime,
    specs: &[ParamSpec],
    state: &mut StepState<T>,
    gradient: &mut [Vec<T>],
) {
    let StepState { states, update, .. } = state;
    for (i, (spec, values)) in specs.iter().zip(gradient).enumerate() {
        values.clear();
        values.resize(spec.len(), T::ZERO);
        update.apply(runtime, states, i, spec, values, 1.0, Device::IDEAL.range());
    }
}
