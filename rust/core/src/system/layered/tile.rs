//! The samples that a thread settles together, what all of them share, and what every way of
//! settling them does alike: how outputs move, and when a row is done.

use pnncore_kernels::{AVec, Real, avec};

use super::Layered;
use super::couplings::{Couplings, Products, Signals};
use super::energy::Energy;
use super::inputs::Inputs;
use super::narrow::Narrow;
use super::units::Units;
use crate::batch::{Batch, Targets};
use crate::params::Params;
use crate::plan::{Boundary, PhasePlan, Start};
use crate::runtime::Runtime;
use crate::secant::Secants;
use crate::settling::{Order, OutputUpdate};
use crate::states::{Outcome, Status};

/// Memory for the samples that a thread settles together.
#[derive(Debug)]
pub(super) struct SampleTile<T> {
    pub(super) drive: AVec<T>,
    /// The states of the active rows as products take them, by layer; imaginary parts apart.
    pub(super) signals: Vec<[Signals<T>; 2]>,
    /// The drives of the active rows of one layer; imaginary parts apart.
    pub(super) drives: [AVec<T>; 2],
    pub(super) products: Products<T>,
    pub(super) target: Vec<T>,
    pub(super) scratch: Vec<T>,
    /// What the nudged step of the outputs needs.
    pub(super) nudge: Vec<f64>,
    /// The output error of each sample at its free state.
    pub(super) errors: Vec<f64>,
    /// The gradient of the loss at the free outputs of each sample, one after the other.
    pub(super) pulls: Vec<T>,
    pub(super) active: Vec<usize>,
    /// The rows that an extrapolation is taken back of.
    pub(super) raised: Vec<usize>,
    /// Of every row: the largest change in the sweep under way; the sum of drive times state over
    /// the layers that moved last; and, where the sweep began with an extrapolation, the energy
    /// that the one before had reached, and the potentials of the layers that moved in its first
    /// half.
    pub(super) changes: Vec<f64>,
    pub(super) fields: Vec<f64>,
    pub(super) reached: Vec<Option<Energy>>,
    pub(super) followed: Vec<Option<Energy>>,
    pub(super) secants: Secants<T>,
    /// The layers that sweeps end with, of one row, side by side.
    pub(super) last: AVec<T>,
    pub(super) narrow: Narrow<T>,
}

impl<T: Real> Default for SampleTile<T> {
    fn default() -> Self {
        Self {
            drive: avec![],
            signals: Vec::new(),
            drives: [avec![], avec![]],
            products: Products::default(),
            target: Vec::new(),
            scratch: Vec::new(),
            nudge: Vec::new(),
            errors: Vec::new(),
            pulls: Vec::new(),
            active: Vec::new(),
            raised: Vec::new(),
            changes: Vec::new(),
            fields: Vec::new(),
            reached: Vec::new(),
            followed: Vec::new(),
            secants: Secants::default(),
            last: avec![],
            narrow: Narrow::default(),
        }
    }
}

/// What all tiles of a batch share.
pub(super) struct Context<'a, T> {
    pub(super) net: &'a Layered,
    pub(super) runtime: &'a Runtime,
    pub(super) params: &'a Params<'a, T>,
    pub(super) batch: &'a Batch<'a, T>,
    pub(super) plan: &'a PhasePlan,
    pub(super) couplings: &'a Couplings<T>,
    pub(super) reach: &'a [T],
    pub(super) units: &'a Units<T>,
    pub(super) displacements: &'a [Option<f64>],
    pub(super) inputs: &'a Inputs<T>,
    pub(super) phases: usize,
    pub(super) stride: usize,
    pub(super) complex: bool,
}

impl<T: Real> Context<'_, T> {
    /// Whether one hidden layer and few outputs go through the fused kernel.
    pub(super) fn fused(&self) -> bool {
        self.net.fused_layers() && !self.complex && self.plan.settling.order == Order::Asynchronous
    }

    /// Whether secants shorten the settling. A given number of sweeps means plain ones; and where
    /// states are rounded they come to rest by themselves.
    pub(super) fn accelerated(&self) -> bool {
        !self.fused()
            && !self.complex
            && !self.net.is_resistive()
            && !self.net.precision.rounds()
            && self.plan.settling.order == Order::Asynchronous
            && self.plan.settling.stop.is_free()
    }

    /// Writes what row `r` is pulled to: the target of its sample, or the gradient that forces it.
    /// Returns whether there is a target.
    pub(super) fn write_pull(&self, first: usize, r: usize, tile: &mut SampleTile<T>) -> bool {
        let (i, n) = (r / self.phases, tile.target.len());
        if let Boundary::Forced(_) = self.plan.boundary(r % self.phases) {
            tile.target.copy_from_slice(&tile.pulls[i * n..(i + 1) * n]);
            return !matches!(self.batch.y, Targets::None);
        }
        self.batch.y.write(first + i, &mut tile.target)
    }

    /// The output error of a sample.
    pub(super) fn output_error(
        &self,
        sample: usize,
        outputs: &[T],
        target: &mut [T],
        scratch: &mut [T],
    ) -> Option<f64> {
        self.batch.y.write(sample, target).then(|| self.plan.loss.error(outputs, target, scratch))
    }

    /// Moves the outputs of row `r` from their drive `a`, given what pulls at them; returns the
    /// largest change, or what a nudge left to be done where that is larger.
    pub(super) fn move_outputs(
        &self,
        r: usize,
        a: &[T],
        outputs: &mut [T],
        pull: &[T],
        (old, nudge): (&mut [T], &mut Vec<f64>),
    ) -> T {
        old.copy_from_slice(outputs);
        let mut left = T::ZERO;
        let stiffness = self.units.output_stiffness(self.net);
        let softness = self.units.nodes(self.net.layers() - 1, stiffness.len()).softness;
        match self.plan.boundary(r % self.phases) {
            Boundary::Free | Boundary::Kicked(_) => {
                outputs.copy_from_slice(a);
                outputs.iter_mut().zip(softness).for_each(|(o, &softness)| *o *= softness);
            }
            Boundary::Clamped(_) => return T::ZERO,
            Boundary::Forced(strength) => {
                for ((o, &a), &g) in outputs.iter_mut().zip(a).zip(pull) {
                    *o = a - T::from_f64(strength) * g;
                }
                outputs.iter_mut().zip(softness).for_each(|(o, &softness)| *o *= softness);
            }
            Boundary::Nudged(beta) => match self.plan.settling.output_update {
                OutputUpdate::Exact => {
                    left = self.plan.loss.nudge(a, stiffness, pull, beta.re, outputs, nudge);
                }
                OutputUpdate::Explicit => {
                    self.plan.loss.gradient(old, pull, outputs);
                    for (o, &a) in outputs.iter_mut().zip(a) {
                        *o = a - T::from_f64(beta.re) * *o;
                    }
                    outputs.iter_mut().zip(softness).for_each(|(o, &softness)| *o *= softness);
                    // A small step says little where the next one would be |beta| times as long.
                    let moved = outputs
                        .iter()
                        .zip(&*old)
                        .fold(left, |m, (&new, &old)| m.max_magnitude(new - old));
                    self.plan.loss.gradient(outputs, pull, old);
                    let next = |k: usize, slope: T| {
                        (a[k] - T::from_f64(beta.re) * slope)
                            * softness.get(k).copied().unwrap_or(T::ONE)
                    };
                    let steps = outputs.iter().zip(&*old).enumerate();
                    return steps.fold(moved, |m, (k, (&new, &slope))| {
                        m.max_magnitude(next(k, slope) - new)
                    });
                }
            },
        }
        outputs.iter().zip(old).fold(left, |m, (&new, &mut old)| m.max_magnitude(new - old))
    }

    /// Notes how large the states of row `r` are. From rest they grow, and now and then is enough;
    /// where they begin at given ones, which may be far larger than where they settle, after every
    /// sweep.
    pub(super) fn see_magnitude(&self, r: usize, states: [&[T]; 2], outcome: &mut Outcome) {
        let is_given = self.plan.phase(r % self.phases).start == Start::Given;
        if is_given {
            outcome.magnitude = 0.0;
        }
        if is_given || outcome.sweeps.is_power_of_two() {
            states.into_iter().for_each(|states| outcome.see_magnitude(states));
        }
    }

    /// By how much, at least, the phase of row `r` displaces outputs per unit of output error.
    pub(super) fn displacement(&self, r: usize) -> Option<f64> {
        self.displacements[r % self.phases]
    }

    /// Whether row `r` is done, and how. `here` is the output error as it is now: of the free
    /// phase, whose end is what the others are measured by, that is the best guess.
    pub(super) fn verdict(
        &self,
        r: usize,
        outcome: &Outcome,
        tile: &mut SampleTile<T>,
        here: impl FnOnce(&mut SampleTile<T>) -> Option<f64>,
    ) -> Option<Status> {
        let boundary = self.plan.boundary(r % self.phases);
        self.plan.verdict::<T>(boundary, outcome, self.units.arriving(), || {
            let displacement = self.displacement(r)?;
            let error = match boundary {
                Boundary::Free => here(tile),
                _ => tile.errors.get(r / self.phases).copied(),
            }?;
            Some(displacement * error)
        })
    }
}
