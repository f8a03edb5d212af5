//! Linear circuits: one factorisation for each boundary, shared by all samples.
//!
//! Where conductances differ so much that factors lose the small ones beside the large, solutions
//! are refined: what is left of the currents, summed from differences of voltages, is solved for
//! again until nothing moves.

use num_complex::Complex;
use pnncore_kernels::Real;
use rayon::prelude::*;

use super::Circuit;
use super::values::Values;
use crate::batch::Batch;
use crate::loss::Loss;
use crate::plan::{Boundary, PhasePlan};
use crate::runtime::Runtime;
use crate::scratch::Pool;
use crate::states::{Outcome, States, Status};
use crate::system::matrix::{Factor, Stack};

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

/// Memory for a batch.
#[derive(Debug)]
pub(super) struct Memory<T> {
    factors: Vec<PhaseFactor>,
    groups: Pool<GroupMemory<T>>,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self { factors: Vec::new(), groups: Pool::default() }
    }
}

/// The factor of the circuit under the boundary of a phase, where there is one.
#[derive(Debug, Default)]
struct PhaseFactor {
    is_known: bool,
    factor: Factor,
    matrix: Vec<f64>,
    stack: Stack,
}

/// Memory for some samples of a batch.
#[derive(Debug, Default)]
struct GroupMemory<T> {
    x: Vec<f64>,
    /// The voltages of the free phase, sample after sample.
    free: Vec<f64>,
    /// How far a phase moves them, and how far forces of one do.
    moves: Vec<f64>,
    unit: Vec<f64>,
    solver: SolverMemory<T>,
}

/// Memory for right-hand sides.
#[derive(Debug, Default)]
struct SolverMemory<T> {
    target: Vec<T>,
    /// The currents that solutions are refined by.
    given: Vec<f64>,
    left: Vec<f64>,
    /// The moves that a clamp gives, and the currents that they make.
    clamped: Vec<f64>,
    product: Vec<f64>,
    v: Vec<f64>,
    stack: Stack,
}

/// Settles all phases of a batch.
pub(super) fn settle<T: Real>(
    circuit: &Circuit,
    values: &Values,
    runtime: &Runtime,
    batch: &Batch<'_, T>,
    plan: &PhasePlan,
    states: &mut States<T>,
    Memory { factors, groups }: &mut Memory<T>,
) {
    let (phases, stride) = (states.phases(), states.stride());
    factors.resize_with(phases, PhaseFactor::default);
    runtime.for_each(factors.par_iter_mut().enumerate(), |(p, own)| {
        let boundary = circuit.acting(plan.boundary(p));
        // A force moves the circuit as it is.
        own.is_known = (p == 0 || !matches!(boundary, Boundary::Free | Boundary::Forced(_)))
            && own.factorise(circuit, values, boundary);
    });
    let refines = factors[0].is_known && factors[0].error(circuit, values) > PRECISE;
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
        groups.with(|memory| group.settle(plan, factors, stride, states, outcomes, memory));
    });
}

impl PhaseFactor {
    /// The factor, where there is one.
    fn known(&self) -> Option<&Factor> {
        self.is_known.then_some(&self.factor)
    }

    /// How far the voltages of a circuit all of whose known voltages are one are from one.
    fn error(&mut self, circuit: &Circuit, values: &Values) -> f64 {
        let Self { factor, matrix: ones, stack, .. } = self;
        ones.clone_from(&values.leak);
        circuit.branches.iter().for_each(|b| ones[b.current] = -b.known_of_ones());
        circuit.pattern.solve(factor, ones, 1, stack);
        ones.iter().enumerate().fold(0.0f64, |m, (k, &v)| {
            let right = if circuit.is_node(k) { 1.0 } else { 0.0 };
            m.max(circuit.volts(values, k, v - right).abs())
        })
    }

    /// Finds the factor under a boundary; false where there is none.
    fn factorise(&mut self, circuit: &Circuit, values: &Values, boundary: Boundary) -> bool {
        let Self { factor, matrix, stack, .. } = self;
        let n = circuit.pattern.size();
        values.write_linear(circuit, matrix);
        for o in n - circuit.outputs..n {
            if let Boundary::Nudged(beta) = boundary {
                matrix[circuit.pattern.place(o, o)] += beta.re;
            }
        }
        if matches!(boundary, Boundary::Clamped(_)) {
            circuit.pattern.for_each(|row, column, place| {
                if row.max(column) >= n - circuit.outputs {
                    matrix[place] = if row == column { 1.0 } else { 0.0 };
                }
            });
        }
        circuit.pattern.factorise(matrix, factor, stack)
    }
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
        factors: &[PhaseFactor],
        stride: usize,
        states: &mut [T],
        outcomes: &mut [Outcome],
        memory: &mut GroupMemory<T>,
    ) {
        let GroupMemory { x, free, moves, unit, solver } = memory;
        if let Some(factor) = factors[0].known() {
            self.solve_free(factor, x, free, solver);
        }
        let mut has_unit = false;
        for (p, own) in factors.iter().enumerate() {
            // How far each sample moves from its free state: this times that. A phase alone may
            // have no minimum; without a free state there is none of the others either.
            let moves = match (factors[0].known(), self.circuit.acting(plan.boundary(p))) {
                (None, _) => None,
                (Some(_), Boundary::Free) => Some((0.0, &[][..])),
                (Some(factor), Boundary::Forced(strength)) => {
                    // Forces of all strengths move it along one displacement.
                    if !has_unit {
                        self.displace(Boundary::Forced(1.0), free, factor, unit, solver);
                        has_unit = true;
                    }
                    Some((strength, &unit[..]))
                }
                (Some(_), boundary) => own.known().map(|factor| {
                    self.displace(boundary, free, factor, moves, solver);
                    (1.0, &moves[..])
                }),
            };
            let phase = moves.map(|(strength, moves)| Displaced { free, strength, moves });
            let rows = states.chunks_exact_mut(stride).zip(outcomes.iter_mut());
            self.write(phase, rows.skip(p).step_by(factors.len()), &mut solver.v);
        }
    }

    /// Writes the rows of a phase: free voltages, and how far they move.
    fn write<'r>(
        &self,
        phase: Option<Displaced<'_>>,
        rows: impl Iterator<Item = (&'r mut [T], &'r mut Outcome)>,
        v: &mut Vec<f64>,
    ) {
        let n = self.circuit.pattern.size();
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
            if finite { self.circuit.pack(v, row) } else { row.fill(T::ZERO) }
        }
    }

    /// Writes the voltages of the free phase, sample after sample.
    fn solve_free(
        &self,
        factor: &Factor,
        x: &mut Vec<f64>,
        free: &mut Vec<f64>,
        memory: &mut SolverMemory<T>,
    ) {
        free.clear();
        for i in self.samples.clone() {
            x.clear();
            x.extend(self.batch.x.row(i).iter().map(|x| x.to_f64()));
            self.values.add_sources(self.circuit, x, free);
        }
        memory.given.clone_from(free);
        self.circuit.pattern.solve(factor, free, self.samples.len(), &mut memory.stack);
        self.refine(Boundary::Free, factor, free, memory);
    }

    /// Solves again for what is left of the currents that are given at voltages `v`, until nothing
    /// moves; samples that go on moving lose their voltages: they count as diverged.
    fn refine(
        &self,
        boundary: Boundary,
        factor: &Factor,
        v: &mut [f64],
        memory: &mut SolverMemory<T>,
    ) {
        if !self.refines {
            return;
        }
        let SolverMemory { given, left, stack, .. } = memory;
        let n = self.circuit.pattern.size();
        let moving =
            n - if matches!(boundary, Boundary::Clamped(_)) { self.circuit.outputs } else { 0 };
        left.resize(n, 0.0);
        for (v, given) in v.chunks_exact_mut(n).zip(given.chunks_exact(n)) {
            let mut change = f64::INFINITY;
            for _ in 0..MAX_ROUNDS {
                self.values.flow(self.circuit, v, left);
                if let Boundary::Nudged(beta) = boundary {
                    let first = n - self.circuit.outputs;
                    left[first..]
                        .iter_mut()
                        .zip(&v[first..])
                        .for_each(|(left, v)| *left += beta.re * v);
                }
                left.iter_mut().zip(given).for_each(|(left, given)| *left = given - *left);
                left[moving..].fill(0.0);
                self.circuit.pattern.solve(factor, left, 1, stack);
                let moved = self.circuit.highest(self.values, left);
                if moved.is_nan() || moved >= change {
                    break;
                }
                v.iter_mut().zip(&*left).for_each(|(v, d)| *v += d);
                change = moved;
            }
            let highest = self.circuit.highest(self.values, v);
            if change > REFINED * highest || highest.is_nan() {
                v.fill(f64::NAN);
            }
        }
    }

    /// Writes what a boundary changes of the free voltages.
    fn displace(
        &self,
        boundary: Boundary,
        free: &[f64],
        factor: &Factor,
        moves: &mut Vec<f64>,
        memory: &mut SolverMemory<T>,
    ) {
        let (n, outputs) = (self.circuit.pattern.size(), self.circuit.outputs);
        let SolverMemory { target, given, clamped, product, stack, .. } = &mut *memory;
        target.resize(outputs, T::ZERO);
        product.resize(n, 0.0);
        moves.clear();
        moves.resize(free.len(), 0.0);
        for (k, i) in self.samples.clone().enumerate() {
            let (free, moves) = (&free[k * n..(k + 1) * n], &mut moves[k * n..(k + 1) * n]);
            if !self.batch.y.write(i, target) {
                continue;
            }
            let pulled = free[n - outputs..].iter().zip(&*target).map(|(v, y)| y.to_f64() - v);
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
                    clamped.clear();
                    clamped.resize(n, 0.0);
                    clamped[n - outputs..]
                        .iter_mut()
                        .zip(pulled)
                        .for_each(|(m, pulled)| *m = eta * pulled);
                    self.circuit.pattern.multiply(&self.values.linear, clamped, product);
                    let branches = self.circuit.branches.iter();
                    branches.for_each(|branch| branch.add_flow(clamped, product));
                    for (j, m) in moves.iter_mut().enumerate() {
                        *m = if j < n - outputs { -product[j] } else { clamped[j] };
                    }
                }
            }
        }
        given.clone_from(moves);
        if let Boundary::Clamped(_) = boundary {
            // Nothing flows into nodes that are not clamped.
            given.fill(0.0);
        }
        self.circuit.pattern.solve(factor, moves, self.samples.len(), stack);
        self.refine(boundary, factor, moves, memory);
    }
}
