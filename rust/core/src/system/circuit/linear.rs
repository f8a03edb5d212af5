//! Linear circuits: one factorisation for each boundary, shared by all samples.
//!
//! Where conductances differ so much that factors lose the small ones beside the large, solutions
//! are refined: what is left of the currents, summed from differences of voltages, is solved for
//! again until nothing moves.

use num_complex::Complex;
use pnncore_kernels::Real;
use rayon::prelude::*;

use super::Circuit;
use super::matrix::Factor;
use super::sample::Sample;
use super::values::Values;
use crate::batch::Batch;
use crate::loss::Loss;
use crate::plan::{Boundary, PhasePlan};
use crate::runtime::Runtime;
use crate::states::{Outcome, States, Status};

/// Samples that are solved for together: their right-hand sides share every element of the factor
/// that is read.
const TOGETHER: usize = 32;

/// Factors that give a known solution to this need no refinement.
const PRECISE: f64 = 1e-13;
/// Rounds of refinement, at the most.
const MAX_ROUNDS: u32 = 20;
/// How little the last round may move any voltage, relative to the largest: otherwise the sample
/// counts as diverged.
const REFINED: f64 = 1e-11;

/// Whether [`settle`] does it.
pub(super) fn is_linear(circuit: &Circuit, plan: &PhasePlan) -> bool {
    circuit.nonlinear.is_empty()
        && circuit.walls.iter().all(|&(lo, hi)| lo.is_infinite() && hi.is_infinite())
        && (plan.loss == Loss::SquaredError
            || !plan
                .phases
                .iter()
                .any(|p| matches!(p.boundary, Boundary::Nudged(_) | Boundary::Forced(_))))
}

/// Settles all phases of a batch.
pub(super) fn settle<T: Real>(
    circuit: &Circuit,
    values: &Values,
    runtime: &Runtime,
    batch: &Batch<'_, T>,
    plan: &PhasePlan,
    states: &mut States<T>,
) {
    let (phases, stride) = (states.phases(), states.stride());
    let mut factors: Vec<Option<Factor>> = Vec::new();
    factors.resize_with(phases, || None);
    runtime.for_each(factors.par_iter_mut().enumerate(), |(p, factor)| {
        let boundary = plan.boundary(p);
        // A force moves the circuit as it is.
        if p == 0 || !matches!(boundary, Boundary::Free | Boundary::Forced(_)) {
            *factor = factorise(circuit, values, boundary);
        }
    });
    let refines = factors[0].as_ref().is_some_and(|factor| error_of(values, factor) > PRECISE);
    let rows = states
        .values
        .par_chunks_mut(TOGETHER * phases * stride)
        .zip(states.outcomes.par_chunks_mut(TOGETHER * phases));
    runtime.for_each(rows.enumerate(), |(c, (states, outcomes))| {
        let first = c * TOGETHER;
        let group = Group {
            circuit,
            values,
            batch,
            samples: first..first + outcomes.len() / phases,
            refines,
        };
        group.settle(plan, &factors, stride, states, outcomes);
    });
}

/// How far the voltages of a circuit all of whose known voltages are one are from one.
fn error_of(values: &Values, factor: &Factor) -> f64 {
    let mut ones = values.leak.clone();
    factor.solve(&mut ones, 1);
    ones.iter().fold(0.0f64, |m, v| m.max((v - 1.0).abs()))
}

/// The factor of the circuit under a boundary.
fn factorise(circuit: &Circuit, values: &Values, boundary: Boundary) -> Option<Factor> {
    let n = circuit.pattern.size();
    let mut matrix = values.linear.clone();
    for o in n - circuit.outputs..n {
        if let Boundary::Nudged(beta) = boundary {
            matrix[circuit.pattern.place(o, o)] += beta.re;
        }
    }
    if matches!(boundary, Boundary::Clamped(_)) {
        circuit.pattern.for_each(|row, column, place| {
            if row >= n - circuit.outputs {
                matrix[place] = if row == column { 1.0 } else { 0.0 };
            }
        });
    }
    circuit.pattern.factorise(&matrix)
}

/// The voltages of a phase, sample after sample: free ones, and how far they move.
#[derive(Clone, Copy)]
struct Displaced<'a> {
    free: &'a [f64],
    /// By what the moves are multiplied.
    strength: f64,
    /// Empty: none.
    moves: &'a [f64],
}

/// Some samples of a batch.
struct Group<'a, T> {
    circuit: &'a Circuit,
    values: &'a Values,
    batch: &'a Batch<'a, T>,
    samples: std::ops::Range<usize>,
    /// Whether solutions are refined.
    refines: bool,
}

impl<T: Real> Group<'_, T> {
    /// Settles all phases of the samples.
    fn settle(
        &self,
        plan: &PhasePlan,
        factors: &[Option<Factor>],
        stride: usize,
        states: &mut [T],
        outcomes: &mut [Outcome],
    ) {
        let (free, phases, mut unit) = (self.free(&factors[0]), factors.len(), None);
        for (p, own) in factors.iter().enumerate() {
            // How far each sample moves from its free state: this times that.
            let moved;
            let moves = match (&free, &factors[0], plan.boundary(p)) {
                (None, ..) => None,
                (Some(_), _, Boundary::Free) => Some((0.0, &[][..])),
                (Some(free), Some(factor), Boundary::Forced(strength)) => {
                    // Forces of all strengths move it along one displacement.
                    let unit = unit.get_or_insert_with(|| {
                        self.displacement(Boundary::Forced(1.0), free, factor)
                    });
                    Some((strength, &unit[..]))
                }
                (Some(free), _, boundary) => match own {
                    Some(factor) => {
                        moved = self.displacement(boundary, free, factor);
                        Some((1.0, &moved[..]))
                    }
                    None => None,
                },
            };
            // A phase alone may have no minimum; without a free state there is none of the others
            // either.
            let phase = free.as_deref().zip(moves);
            let phase = phase.map(|(free, (strength, moves))| Displaced { free, strength, moves });
            let rows = states.chunks_exact_mut(stride).zip(outcomes.iter_mut());
            self.write(phase, rows.skip(p).step_by(phases));
        }
    }

    /// Writes the rows of a phase: free voltages, and how far they move.
    fn write<'r>(
        &self,
        phase: Option<Displaced<'_>>,
        rows: impl Iterator<Item = (&'r mut [T], &'r mut Outcome)>,
    ) {
        let n = self.circuit.pattern.size();
        let mut v = Vec::with_capacity(n);
        for (i, (row, outcome)) in rows.enumerate() {
            outcome.sweeps = 1;
            let Some(Displaced { free, strength, moves }) = phase else {
                outcome.status = Status::Unbounded;
                row.fill(T::ZERO);
                continue;
            };
            v.clear();
            v.extend_from_slice(&free[i * n..(i + 1) * n]);
            if let Some(moves) = moves.get(i * n..(i + 1) * n) {
                v.iter_mut().zip(moves).for_each(|(v, u)| *v += strength * u);
            }
            // Overflow, or conductances that differ by more than refinement makes up for.
            let finite = v.iter().all(|v| v.is_finite());
            outcome.status = if finite { Status::Converged } else { Status::Diverged };
            if finite { self.circuit.pack(&v, row) } else { row.fill(T::ZERO) }
        }
    }

    /// The voltages of the free phase, sample after sample.
    fn free(&self, factor: &Option<Factor>) -> Option<Vec<f64>> {
        let factor = factor.as_ref()?;
        let mut right: Vec<f64> =
            self.samples.clone().flat_map(|i| self.sample(i).sources).collect();
        let sources = if self.refines { right.clone() } else { Vec::new() };
        factor.solve(&mut right, self.samples.len());
        self.refine(Boundary::Free, &sources, factor, &mut right);
        Some(right)
    }

    /// Solves again for what is left of the currents `sources` at voltages `v`, until nothing
    /// moves; samples that go on moving lose their voltages: they count as diverged.
    fn refine(&self, boundary: Boundary, sources: &[f64], factor: &Factor, v: &mut [f64]) {
        if !self.refines {
            return;
        }
        let n = self.circuit.pattern.size();
        let moving =
            n - if matches!(boundary, Boundary::Clamped(_)) { self.circuit.outputs } else { 0 };
        let mut left = vec![0.0; n];
        for (v, sources) in v.chunks_exact_mut(n).zip(sources.chunks_exact(n)) {
            let mut change = f64::INFINITY;
            for _ in 0..MAX_ROUNDS {
                self.values.flow(self.circuit, v, &mut left);
                if let Boundary::Nudged(beta) = boundary {
                    let first = n - self.circuit.outputs;
                    left[first..]
                        .iter_mut()
                        .zip(&v[first..])
                        .for_each(|(left, v)| *left += beta.re * v);
                }
                left.iter_mut().zip(sources).for_each(|(left, source)| *left = source - *left);
                left[moving..].fill(0.0);
                factor.solve(&mut left, 1);
                let moved = left.iter().fold(0.0f64, |m, d| m.max_magnitude(*d));
                if moved.is_nan() || moved >= change {
                    break;
                }
                v.iter_mut().zip(&left).for_each(|(v, d)| *v += d);
                change = moved;
            }
            let highest = v.iter().fold(0.0f64, |m, v| m.max_magnitude(*v));
            if change > REFINED * highest || highest.is_nan() {
                v.fill(f64::NAN);
            }
        }
    }

    fn sample(&self, i: usize) -> Sample<'_> {
        self.circuit.sample(self.values, self.batch, i)
    }

    /// What a boundary changes of the free voltages.
    fn displacement(&self, boundary: Boundary, free: &[f64], factor: &Factor) -> Vec<f64> {
        let (n, outputs) = (self.circuit.pattern.size(), self.circuit.outputs);
        let mut moves = vec![0.0; free.len()];
        let mut target = vec![T::ZERO; outputs];
        let mut product = vec![0.0; n];
        for (k, i) in self.samples.clone().enumerate() {
            let (free, moves) = (&free[k * n..(k + 1) * n], &mut moves[k * n..(k + 1) * n]);
            if !self.batch.y.write(i, &mut target) {
                continue;
            }
            let pulled = free[n - outputs..].iter().zip(&target).map(|(v, y)| y.to_f64() - v);
            match boundary {
                Boundary::Free | Boundary::Kicked(_) => {}
                // (A + beta) dv = beta (y - v) at the outputs; A dv, where a force stays as it is.
                Boundary::Nudged(Complex { re: strength, .. }) | Boundary::Forced(strength) => {
                    moves[n - outputs..]
                        .iter_mut()
                        .zip(pulled)
                        .for_each(|(m, pulled)| *m = strength * pulled);
                }
                // dv is given at the outputs; the others see it through what joins them.
                Boundary::Clamped(eta) => {
                    let mut given = vec![0.0; n];
                    given[n - outputs..]
                        .iter_mut()
                        .zip(pulled)
                        .for_each(|(m, pulled)| *m = eta * pulled);
                    self.circuit.pattern.multiply(&self.values.linear, &given, &mut product);
                    for (j, m) in moves.iter_mut().enumerate() {
                        *m = if j < n - outputs { -product[j] } else { given[j] };
                    }
                }
            }
        }
        let given = if self.refines { moves.clone() } else { Vec::new() };
        factor.solve(&mut moves, self.samples.len());
        if let Boundary::Clamped(_) = boundary {
            // Nothing flows into nodes that are not clamped.
            self.refine(boundary, &vec![0.0; given.len()], factor, &mut moves);
        } else {
            self.refine(boundary, &given, factor, &mut moves);
        }
        moves
    }
}
