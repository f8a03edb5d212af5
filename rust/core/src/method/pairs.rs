//! Pairs of candidates to either side of the present parameters, and what their losses tell.

use pnncore_kernels::Real;
use pnncore_kernels::gemm::{Dense, Strided, multiply};
use rayon::prelude::*;

use super::StepState;
use super::candidates::{CandidateLoss, comparable};
use crate::Result;
use crate::runtime::Runtime;
use crate::system::Experiment;

/// Directions that are held at once.
const TOGETHER: usize = 64;

/// Multiply-adds that a random number is worth.
const NORMAL: usize = 64;

/// (L+ - L-) / 2 reach; 0 where that is not finite: such a pair teaches nothing.
pub(super) fn slope<T: Real>(&[plus, minus]: &[f64; 2], reach: f64) -> T {
    let slope = (plus - minus) / (2.0 * reach);
    if slope.is_finite() { T::from_f64(slope) } else { T::ZERO }
}

/// The pairs whose difference is known.
pub(super) fn known_pairs(losses: &[[f64; 2]]) -> usize {
    losses.iter().filter(|[plus, minus]| (plus - minus).is_finite()).count()
}

/// Makes a mean over all pairs one over those that are known.
pub(super) fn make_mean<T: Real>(pairs: usize, known: usize, gradient: &mut [T]) {
    if (1..pairs).contains(&known) {
        let more = T::from_f64(pairs as f64 / known as f64);
        gradient.iter_mut().for_each(|g| *g *= more);
    }
}

/// The losses of two candidates that are compared.
pub(super) fn pair_of(candidates: &[CandidateLoss]) -> [f64; 2] {
    let losses = comparable(candidates);
    [losses[0], losses[1]]
}

/// gradient += the sum of weighted directions.
pub(super) fn add<T: Real>(runtime: &Runtime, weights: &[T], directions: &[T], gradient: &mut [T]) {
    let n = gradient.len();
    let weights = Strided { data: weights, row: weights.len(), column: 1 };
    multiply(
        runtime.level(),
        weights,
        Dense { data: directions, stride: n },
        (1, weights.row, n),
        gradient,
        n,
    );
}

/// Candidates to either side of the present parameters.
pub(super) struct Pairs<'a, T> {
    pub(super) count: usize,
    /// How far along a direction candidates are.
    pub(super) reach: f64,
    /// Fills direction number k.
    pub(super) draw: &'a (dyn Fn(usize, &mut [T]) + Sync),
}

impl<T: Real> Pairs<'_, T> {
    /// Tries all pairs, and hands losses and directions over, some at a time.
    pub(super) fn each(
        &self,
        experiment: &Experiment<'_, T>,
        base: &[T],
        state: &mut StepState<T>,
        mut take: impl FnMut(&[[f64; 2]], &mut [T]),
    ) -> Result<()> {
        let n = base.len();
        let mut directions = vec![T::ZERO; n * self.count.min(TOGETHER)];
        let StepState { candidates, cost, states, .. } = state;
        for first in (0..self.count).step_by(TOGETHER) {
            let count = TOGETHER.min(self.count - first);
            let directions = &mut directions[..n * count];
            let runtime = experiment.runtime;
            let group = runtime.grouped(NORMAL * n * count, count);
            let groups = directions.par_chunks_mut((group * n).max(1)).enumerate();
            runtime.for_each(groups, |(g, directions)| {
                for (k, direction) in directions.chunks_mut(n.max(1)).enumerate() {
                    (self.draw)(first + g * group + k, direction);
                }
            });
            let (reach, level) = (T::from_f64(self.reach), runtime.level());
            let moved = |c: usize, values: &mut [T]| {
                let reach = if c.is_multiple_of(2) { reach } else { -reach };
                let direction = &directions[c / 2 * n..(c / 2 + 1) * n];
                let moved = values.iter_mut().zip(direction);
                level.vectorize(|| moved.for_each(|(value, &d)| *value += reach * d));
            };
            let experiment =
                Experiment { draw: experiment.draw.after(2 * first as u64), ..*experiment };
            let shown = (first == 0).then_some(&mut *states);
            let losses = candidates.losses(&experiment, base, 2 * count, cost, shown, moved)?;
            let losses: Vec<[f64; 2]> = losses.chunks_exact(2).map(pair_of).collect();
            take(&losses, directions);
        }
        Ok(())
    }
}
