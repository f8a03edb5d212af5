//! Training: steps over batches, some milliseconds at a time.

use std::time::{Duration, Instant};

use pnncore_kernels::Real;

use crate::Result;
use crate::batch::Batch;
use crate::device::{Change, Device, Place, Tile};
use crate::lab::Lab;
use crate::method::{Cost, Course, Found, Protocol, Scratch};
use crate::optim::Optimizer;
use crate::params::{ParamSpec, Params};
use crate::system::System;
use crate::trial::Status;

/// What is trained, how, and on what.
#[derive(Clone, Copy)]
pub struct Task<'a, T: Real> {
    /// The physics.
    pub system: &'a dyn System<T>,
    /// The method, compiled for the system.
    pub protocol: &'a Protocol,
    /// The optimizer.
    pub optimizer: &'a Optimizer,
    /// One rate per parameter.
    pub rates: &'a [f64],
    /// The data set.
    pub data: Batch<'a, T>,
    /// The order of its samples in this epoch.
    pub order: &'a [u64],
    /// The most samples per step. The steps of an epoch differ by one sample at most: a short last batch would move
    /// the parameters as far as a full one, on the word of a few samples.
    pub batch_size: usize,
}

impl<'a, T: Real> Task<'a, T> {
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
pub struct Leg {
    /// Steps of the epoch that are done.
    pub first: usize,
    /// Steps of earlier epochs.
    pub before: u64,
    /// The most steps to make.
    pub steps: usize,
    /// Stop after the step that ends later than this.
    pub time: Duration,
    /// The sum of losses to go on from: floating-point sums depend on where they begin.
    pub loss: f64,
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
    /// Sum of the losses of samples with usable states, at the free state; [`Leg::loss`] included.
    pub loss: f64,
    /// Samples with outputs of which some mean a label: those that hits may be among.
    pub scored: u64,
    /// Samples whose largest output was that of their label, where targets are labels.
    pub correct: u64,
    /// Rows settled, by [`Status`].
    pub rows: [u64; 4],
    /// Sweeps of free phases.
    pub free_sweeps: u64,
    /// Sweeps of all other phases.
    pub other_sweeps: u64,
    /// What the experiments cost.
    pub cost: Cost,
}

impl Progress {
    /// Adds what a step found.
    pub fn count<T: Real>(
        &mut self,
        protocol: &Protocol,
        batch: &Batch<'_, T>,
        scratch: &Scratch<T>,
        target: &mut Vec<T>,
    ) {
        let trial = &scratch.trial;
        target.resize(trial.layout().outputs().len(), T::ZERO);
        self.steps += 1;
        self.samples += batch.len() as u64;
        for i in 0..batch.len() {
            let free = i * trial.phases();
            for (p, outcome) in trial.outcomes[free..free + trial.phases()].iter().enumerate() {
                if outcome.sweeps > 0 || !outcome.status.usable() {
                    self.rows[outcome.status as usize] += 1;
                }
                *(if p == 0 { &mut self.free_sweeps } else { &mut self.other_sweeps }) += u64::from(outcome.sweeps);
            }
            if !trial.outcomes[free].status.usable() {
                continue;
            }
            self.usable += 1;
            if let Some(losses) = &scratch.local {
                self.loss += losses[i];
                continue;
            }
            self.scored += 1;
            let outputs = trial.outputs(free);
            batch.y.write(i, target);
            self.loss += protocol.loss().value(outputs, target);
            if batch.y.label(i).is_some_and(|label| argmax(outputs) == label) {
                self.correct += 1;
            }
        }
    }

    /// Rows that ended with a status.
    pub fn rows_with(&self, status: Status) -> u64 {
        self.rows[status as usize]
    }
}

/// The place of the largest element; the first of equals.
pub fn argmax<T: Real>(values: &[T]) -> usize {
    let mut best = 0;
    for (k, v) in values.iter().enumerate() {
        if *v > values[best] {
            best = k;
        }
    }
    best
}

/// Makes steps until the leg or the epoch ends.
///
/// Where legs end does not change any bit of the result.
///
/// # Errors
/// Whatever a step may fail with. The steps before it are in the parameters; the failed one changed nothing.
pub fn train<T: Real>(
    lab: &Lab,
    task: Task<'_, T>,
    leg: Leg,
    params: &mut Params<'_, T>,
    memory: &mut [&mut [T]],
) -> Result<Progress> {
    let start = Instant::now();
    let mut progress = Progress { loss: leg.loss, ..Progress::default() };
    let mut scratch = Scratch::new(task.system);
    let (mut gradient, mut target) = (Vec::new(), Vec::new());
    task.protocol.check_optimizer(task.optimizer)?;
    let (memory, kept) = memory.split_at_mut(task.optimizer.memory(task.system.specs()).len());
    let (cells, kept) = kept.split_at_mut(cells(task.system).len());
    for k in (leg.first..task.steps()).take(leg.steps) {
        let step = leg.before + k as u64;
        let batch = task.data.pick(task.batch(k));
        let mut course = Course { step, memory: &mut *kept };
        task.protocol.step(lab, task.system, params, &batch, &mut course, &mut scratch)?;
        progress.count(task.protocol, &batch, &scratch, &mut target);
        scratch.cost.pulses += if scratch.found == Found::Change {
            write(lab, &task, &scratch.wanted, params, cells, step)?
        } else {
            task.protocol.follow(lab, task.system, task.optimizer, task.rates, &scratch.update, kept);
            task.optimizer.step(
                lab,
                task.system,
                &scratch.trial,
                &mut scratch.update,
                params,
                memory,
                cells,
                &mut gradient,
                task.rates,
                step,
            )?
        } as u64;
        if start.elapsed() >= leg.time {
            break;
        }
    }
    progress.cost = scratch.cost;
    Ok(progress)
}

/// Names and shapes of the arrays that the tiles of a system keep, parameter by parameter; they are zero at first.
pub fn cells<T: Real>(system: &dyn System<T>) -> Vec<ParamSpec> {
    let of_parameter = |(i, spec): (usize, &ParamSpec)| {
        let own = system.tile(i).map_or_else(Vec::new, Tile::memory);
        let named = |array: ParamSpec| ParamSpec { name: format!("{}/{}", spec.name, array.name), ..array };
        own.into_iter().map(named).collect::<Vec<_>>()
    };
    system.specs().iter().enumerate().flat_map(of_parameter).collect()
}

/// Brings parameters to wanted values, as near as their devices can. Those with a rate of zero stay. Returns how many pulses that took.
fn write<T: Real>(
    lab: &Lab,
    task: &Task<'_, T>,
    wanted: &[Vec<T>],
    params: &mut Params<'_, T>,
    cells: &mut [&mut [T]],
    step: u64,
) -> Result<f64> {
    let (mut rest, mut pulses) = (cells, 0.0);
    for (i, (wanted, &rate)) in wanted.iter().zip(task.rates).enumerate() {
        let own;
        (own, rest) = rest.split_at_mut(task.system.tile(i).map_or(0, Tile::kept));
        if rate == 0.0 {
            continue;
        }
        let values = params.get_mut(i)?;
        if let Some(tile) = task.system.tile(i) {
            let change: Vec<T> = wanted.iter().zip(&*values).map(|(&wanted, &value)| wanted - value).collect();
            pulses += tile.update(lab, Place { parameter: i, step, rate }, Change::Dense(&change), values, own);
        } else {
            values.copy_from_slice(wanted);
            task.system.device(i).write(lab, i, step + 1, values);
        }
    }
    Ok(pulses)
}

/// Writes the gradient that a step found, parameter by parameter. Uses the update in `scratch` up.
pub fn write_gradient<T: Real>(lab: &Lab, specs: &[ParamSpec], scratch: &mut Scratch<T>, gradient: &mut [Vec<T>]) {
    let Scratch { trial, update, .. } = scratch;
    for (i, (spec, values)) in specs.iter().zip(gradient).enumerate() {
        values.clear();
        values.resize(spec.len(), T::ZERO);
        update.apply(lab, trial, i, spec, values, 1.0, Device::IDEAL.range());
    }
}
