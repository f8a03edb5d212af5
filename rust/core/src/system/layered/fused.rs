//! Settling networks with one hidden layer and few outputs: sample by sample, everything in L1.

use pnncore_kernels::hidden::{MAX_OUTPUTS, hidden_sweep};
use pnncore_kernels::narrow::narrow as find_movable;
use pnncore_kernels::unit::{Nodes, Unit};
use pnncore_kernels::watch::poll;
use pnncore_kernels::{Real, avec};

use super::narrow::Narrow;
use super::tile::{Context, SampleTile};
use crate::plan::Boundary;
use crate::states::{Outcome, Status};

/// Sweeps of a free phase over all units: outputs go far at first.
const WHOLE_SWEEPS: u32 = 3;

/// Sweeps that shrink the changes by more than this are few: looking for the units that can move
/// takes as long as three.
const SLOW: f64 = 0.25;

/// How far outputs may go, in units of their last change and of the largest change that a nudge
/// makes to them directly, before the units that can move are looked for again. Farther means fewer
/// searches but more units.
const PLAY: f64 = 2.0;

impl<T: Real> Context<'_, T> {
    /// Has `narrow` hold the states of the units that can move at these outputs, and finds those
    /// units if they are not known: `play` tells how far the outputs may then go.
    fn hold(
        &self,
        narrow: &mut Narrow<T>,
        drive: &[T],
        outputs: &[T],
        hidden: &mut [T],
        play: impl FnOnce() -> f64,
    ) {
        if !narrow.covers(outputs) {
            narrow.release(hidden);
            narrow.radius = T::from_f64(play());
            narrow.centre[..outputs.len()].copy_from_slice(outputs);
            let Narrow { units, radius, .. } = narrow;
            find_movable(
                self.runtime.level(),
                drive,
                &self.couplings.back()[1],
                self.reach,
                outputs,
                *radius,
                hidden,
                units,
            );
        }
        if !narrow.holding {
            narrow.units.gather(hidden);
            narrow.holding = true;
        }
    }

    /// Moves hidden units, those that are held or all, and sums what drives the outputs; returns
    /// the largest change.
    fn sweep_hidden<U: Unit>(
        &self,
        drive: &[T],
        outputs: &[T],
        hidden: &mut [T],
        sums: &mut [T],
        narrow: &mut Narrow<T>,
    ) -> T {
        let (level, stride) = (self.runtime.level(), self.net.layout.padded(0));
        if !narrow.holding {
            let (weights, nodes) = (&self.couplings.back()[1], self.units.nodes(0, stride));
            return hidden_sweep::<T, U>(
                level, drive, weights, stride, nodes, outputs, hidden, sums,
            );
        }
        let (drive, weights, apart, states) = narrow.units.parts();
        let nodes = Nodes::default();
        let change =
            hidden_sweep::<T, U>(level, drive, weights, apart, nodes, outputs, states, sums);
        sums.iter_mut().zip(narrow.units.held()).for_each(|(sum, &held)| *sum += held);
        change
    }

    /// Settles row `r` of a tile.
    pub(super) fn settle_row<U: Unit>(
        &self,
        first: usize,
        r: usize,
        row: &mut [T],
        tile: &mut SampleTile<T>,
    ) -> Outcome {
        let layout = &self.net.layout;
        let (stride, bias) = (layout.padded(0), self.net.bias(self.params, 1));
        let sums = &mut [T::ZERO; MAX_OUTPUTS][..layout.outputs().len()];
        let drive = std::mem::replace(&mut tile.drive, avec![]);
        let mut outcome = Outcome::default();
        let boundary = self.plan.boundary(r % self.phases);
        let own_drive = &drive[r / self.phases * stride..][..stride];
        let wanted = self.write_pull(first, r, tile);
        let (hidden, outputs) = row.split_at_mut(stride);
        let outputs = &mut outputs[..sums.len()];
        let mut moved = T::ZERO;
        loop {
            poll(stride * outputs.len());
            if boundary == Boundary::Free {
                let fixed = !self.plan.settling.stop.is_free();
                tile.narrow.worth |=
                    outcome.sweeps >= WHOLE_SWEEPS && (fixed || outcome.ratio > SLOW);
            }
            if U::BOXED && tile.narrow.worth {
                let play = || {
                    let mut error =
                        || self.plan.loss.error(outputs, &tile.target, &mut tile.scratch);
                    let pull = if wanted { error() } else { 0.0 };
                    PLAY * (moved.to_f64() + self.displacement(r).unwrap_or(0.0) * pull)
                };
                self.hold(&mut tile.narrow, own_drive, outputs, hidden, play);
            }
            let change = self.sweep_hidden::<U>(own_drive, outputs, hidden, sums, &mut tile.narrow);
            for (sum, &b) in sums.iter_mut().zip(bias) {
                *sum += b;
            }
            let memory = (&mut tile.scratch[..], &mut tile.nudge);
            moved = self.move_outputs(r, sums, outputs, &tile.target, memory);
            outcome.sweep(change.max_magnitude(moved).to_f64());
            if U::NODES {
                self.see_magnitude(r, [hidden, outputs], &mut outcome);
            }
            let error = |tile: &mut SampleTile<T>| {
                wanted.then(|| self.plan.loss.error(outputs, &tile.target, &mut tile.scratch))
            };
            if let Some(status) = self.verdict(r, &outcome, tile, error) {
                outcome.status = status;
                break;
            }
        }
        tile.narrow.release(hidden);
        tile.drive = drive;
        if outcome.status == Status::Diverged {
            row.fill(T::ZERO);
        }
        outcome
    }
}
