//! Losses of candidates: parameters near the present ones, tried on the same batch.

use pnncore_kernels::Real;
use rayon::prelude::*;

use super::cost::Cost;
use crate::params::{Params, cut};
use crate::runtime::Runtime;
use crate::states::States;
use crate::system::stack::Propagation;
use crate::system::{Experiment, System, Workspace};
use crate::{Error, Result};

/// The loss of a candidate on a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct CandidateLoss {
    /// The sum over samples with usable outputs, divided by the number of all samples.
    pub(super) mean: f64,
    /// The samples without usable outputs, in ascending order: they contribute nothing.
    pub(super) lost: Vec<usize>,
}

/// Losses of candidates that are compared with each other. Samples that all of them lose contribute
/// to none; a candidate that loses a sample which another one does not is known too little of: NaN.
pub(super) fn comparable(candidates: &[CandidateLoss]) -> Vec<f64> {
    let common = candidates.split_first().map_or(Vec::new(), |(first, others)| {
        let all = |i: &&usize| others.iter().all(|other| other.lost.binary_search(i).is_ok());
        first.lost.iter().filter(all).copied().collect()
    });
    candidates.iter().map(|c| if c.lost == common { c.mean } else { f64::NAN }).collect()
}

/// Losses in ascending order: the places of candidates. What is not a number comes last.
pub(super) fn ranked(losses: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..losses.len()).collect();
    let known = |i: usize| if losses[i].is_nan() { f64::INFINITY } else { losses[i] };
    order.sort_by(|&i, &j| known(i).total_cmp(&known(j)).then(i.cmp(&j)));
    order
}

/// Where candidates are tried: one slot per thread.
#[derive(Debug)]
pub(super) struct CandidatePool<T> {
    slots: Vec<CandidateSlot<T>>,
}

impl<T> Default for CandidatePool<T> {
    fn default() -> Self {
        Self { slots: Vec::new() }
    }
}

/// What one candidate needs.
#[derive(Debug)]
struct CandidateSlot<T> {
    /// Its parameters, one after the other.
    values: Vec<T>,
    states: States<T>,
    workspace: Workspace,
}

/// How far candidates are from the present parameters: the given distance. `None`: the usual one
/// where parameters are plain numbers, such as the weights of a network; elsewhere it has their
/// units, and must be given.
///
/// # Errors
/// [`Error::Config`] where it must be given.
pub(super) fn distance<T: Real>(
    method: &str,
    setting: &str,
    given: Option<f64>,
    usual: f64,
    system: &dyn System<T>,
) -> Result<f64> {
    match given {
        Some(distance) => Ok(distance),
        None if system.as_dynamics().is_some() && !system.has_unit_stiffness() => {
            Err(Error::Config(format!(
                "{setting} must be given: the parameters of {} have units, and how far {method} \
                 moves them is in these",
                system.name()
            )))
        }
        None => Ok(usual),
    }
}

/// All parameters, one after the other.
pub(super) fn flatten<T: Real>(params: &Params<'_, T>) -> Vec<T> {
    (0..params.len()).flat_map(|i| params.get(i)).copied().collect()
}

impl<T: Real> Experiment<'_, T> {
    /// The parameters, of all one after the other, that are stored in something with a range, and
    /// that range.
    pub(super) fn bounded(&self) -> impl Iterator<Item = (std::ops::Range<usize>, (T, T))> {
        let mut start = 0;
        self.system.specs().iter().enumerate().filter_map(move |(i, spec)| {
            let span = start..start + spec.len();
            start = span.end;
            let (lower, upper) = self.system.store(i).device.range::<T>();
            (lower.is_finite() || upper.is_finite()).then_some((span, (lower, upper)))
        })
    }

    /// The range of one of the parameters, of all one after the other.
    pub(super) fn range(&self, j: usize) -> (T, T) {
        let unbounded = (T::from_f64(f64::NEG_INFINITY), T::from_f64(f64::INFINITY));
        self.bounded().find(|(span, _)| span.contains(&j)).map_or(unbounded, |(_, range)| range)
    }

    /// Keeps values within what each parameter is stored in.
    pub(super) fn keep_within(&self, values: &mut [T]) {
        for (span, (lower, upper)) in self.bounded() {
            values[span].iter_mut().for_each(|value| *value = value.within(lower, upper));
        }
    }

    /// Runs a candidate; `again` where the last one in this slot was one of the same experiment.
    fn run_candidate(
        &self,
        runtime: &Runtime,
        candidate: u64,
        slot: &mut CandidateSlot<T>,
        again: bool,
    ) -> Result<()> {
        let CandidateSlot { values, states, workspace } = slot;
        let params = Params::shared(cut(self.system.specs(), values));
        let experiment =
            Experiment { runtime, params: &params, draw: self.draw.after(candidate), ..*self };
        match self.system.as_stack() {
            Some(stack) if again => {
                stack.infer_again(&experiment, states, Propagation::of(workspace)?)
            }
            _ => experiment.infer(states, workspace),
        }
    }

    /// dL/d(outputs) of a mean over the batch, row by row; zero where a row has no usable outputs.
    ///
    /// # Errors
    /// What a loss of the user's own may fail with.
    pub(super) fn errors(&self, states: &States<T>) -> Result<Vec<f64>> {
        let (n, samples) = (self.system.outputs(), self.batch.len() as f64);
        if let Some(own) = self.own_loss {
            return Ok(self
                .evaluate(own, states)?
                .1
                .iter()
                .map(|e| e.to_f64() / samples)
                .collect());
        }
        let (mut target, mut error) = (vec![T::ZERO; n], vec![T::ZERO; n]);
        let mut errors = Vec::with_capacity(self.batch.len() * n);
        for i in 0..self.batch.len() {
            self.batch.y.write(i, &mut target);
            self.plan.loss.gradient(states.outputs(i), &target, &mut error);
            let usable = states.outcomes[i].status.usable();
            errors.extend(error.iter().map(|e| if usable { e.to_f64() / samples } else { 0.0 }));
        }
        Ok(errors)
    }

    /// The loss of what was found, for targets row by row.
    ///
    /// # Errors
    /// What a loss of the user's own may fail with.
    fn loss(&self, states: &States<T>, targets: &[T]) -> Result<CandidateLoss> {
        let own = self.own_loss.map(|own| self.evaluate(own, states)).transpose()?;
        let mut loss = CandidateLoss::default();
        for (i, target) in targets.chunks_exact(self.system.outputs()).enumerate() {
            if states.outcomes[i].status.usable() {
                let value = || self.plan.loss.value(states.outputs(i), target);
                loss.mean += own.as_ref().map_or_else(value, |(values, _)| values[i]);
            } else {
                loss.lost.push(i);
            }
        }
        loss.mean /= self.batch.len() as f64;
        Ok(loss)
    }
}

impl<T: Real> CandidatePool<T> {
    /// The losses of `count` candidates, each made by `make` out of a copy of `base`. The states of
    /// the first one go to `shown`.
    pub(super) fn losses(
        &mut self,
        experiment: &Experiment<'_, T>,
        base: &[T],
        count: usize,
        cost: &mut Cost,
        shown: Option<&mut States<T>>,
        make: impl Fn(usize, &mut [T]) + Sync,
    ) -> Result<Vec<CandidateLoss>> {
        let n = experiment.system.outputs();
        let mut targets = vec![T::ZERO; experiment.batch.len() * n];
        for (i, target) in targets.chunks_exact_mut(n).enumerate() {
            experiment.batch.y.write(i, target);
        }
        self.measures(experiment, base, count, cost, shown, make, |states| {
            experiment.loss(states, &targets)
        })
    }

    /// As [`CandidatePool::losses`], with what `measure` makes of a candidate's outputs.
    #[allow(clippy::too_many_arguments, reason = "experiments, and where their results go")]
    pub(super) fn measures<R: Clone + Default + Send>(
        &mut self,
        experiment: &Experiment<'_, T>,
        base: &[T],
        count: usize,
        cost: &mut Cost,
        shown: Option<&mut States<T>>,
        make: impl Fn(usize, &mut [T]) + Sync,
        measure: impl Fn(&States<T>) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let Experiment { runtime, system, batch, .. } = *experiment;
        let alone = runtime.alone();
        // Few candidates share the threads, many have one each; the results are the same.
        let slots = if count < runtime.threads() { 1 } else { runtime.threads() };
        let within = if slots == 1 { runtime } else { &alone };
        while self.slots.len() < slots {
            let (states, workspace) = (States::new(system.layout()), system.workspace());
            self.slots.push(CandidateSlot { values: Vec::new(), states, workspace });
        }
        let mut losses = vec![Ok(R::default()); count];
        let chunk = count.div_ceil(slots).max(1);
        let first = std::sync::Mutex::new(shown);
        runtime.for_each(
            losses.par_chunks_mut(chunk).zip(self.slots.par_iter_mut()).enumerate(),
            |(k, (losses, slot))| {
                for (j, loss) in losses.iter_mut().enumerate() {
                    let c = k * chunk + j;
                    slot.values.clear();
                    slot.values.extend_from_slice(base);
                    make(c, &mut slot.values);
                    experiment.keep_within(&mut slot.values);
                    *loss = experiment
                        .run_candidate(within, c as u64, slot, j > 0)
                        .and_then(|()| measure(&slot.states));
                    if c == 0
                        && let Ok(mut first) = first.lock()
                        && let Some(shown) = first.as_mut()
                    {
                        std::mem::swap(*shown, &mut slot.states);
                    }
                    // An instrument that failed is not asked again.
                    if loss.is_err() {
                        break;
                    }
                }
            },
        );
        cost.add(count, batch.len());
        losses.into_iter().collect()
    }
}
