//! The operating point of one sample: damped Newton steps on the co-content, with walls.
//!
//! Bertsekas' projected Newton method (SIAM J. Control Optim. 20, 221 (1982)): nodes that a wall
//! holds are left out of the linear system, the others step along the Newton direction as far as
//! the energy falls, and stop at walls. Where there is no energy, as far as the currents left at
//! the nodes shrink.
//!
//! On the way the exponential of a diode is followed by its tangent from some large conductance on,
//! which keeps the energy convex and the numbers near each other; if an operating point lies
//! beyond, the search goes on with a larger one.
//!
//! Ideal diodes between nodes are inequalities that the method of multipliers satisfies (Hestenes,
//! Powell 1969): a diode of multiplier m carries max(m + G V, 0), and what it carries at the
//! operating point is its next multiplier.

use super::spec::Terminal;
use super::values::Values;
use super::{Circuit, Element, Law};
use crate::loss::Loss;
use crate::states::Status;
use crate::system::circuit::law::Response;
use pnncore_kernels::watch::poll;

/// What acts on the outputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pull<'a> {
    Nothing,
    /// The loss, times this, for this target.
    Loss(Loss, f64, &'a [f64]),
    /// A constant current: this times these.
    Force(f64, &'a [f64]),
    /// Held where they are.
    Clamp,
}

/// A circuit at given inputs.
pub(super) struct Sample<'a> {
    pub(super) circuit: &'a Circuit,
    pub(super) values: &'a Values,
    /// The voltages of the inputs.
    pub(super) x: Vec<f64>,
    /// What inputs, fixed voltages and current sources feed into every node through linear
    /// elements.
    pub(super) sources: Vec<f64>,
}

/// The memory of a solve.
#[derive(Debug, Default)]
pub(super) struct Memory {
    matrix: Vec<f64>,
    force: Vec<f64>,
    step: Vec<f64>,
    next: Vec<f64>,
    /// The currents at `next`.
    left: Vec<f64>,
    held: Vec<bool>,
    pub(super) live: Vec<Live>,
}

/// A nonlinear element that something depends on: one of its terminals moves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Live {
    pub(super) element: usize,
    /// The voltage from which it goes on along its tangent.
    knee: f64,
    /// The multiplier of an ideal diode.
    multiplier: f64,
}

/// How a solve ended: the status, the Newton steps, and the last step's largest change.
#[derive(Debug)]
pub(super) struct Solved {
    pub(super) status: Status,
    pub(super) steps: u32,
    pub(super) change: f64,
}

/// The fraction of the expected decrease of the energy that a step must bring.
const SUFFICIENT: f64 = 1e-4;
/// Halvings of a step after which the point is as good as rounding errors let it be.
const MAX_HALVINGS: u32 = 60;
/// How near to zero the current left at every node must be, relative to the largest that flows
/// anywhere.
const TOLERANCE: f64 = 1e-13;
/// The same, where the energy cannot fall any more.
const ENOUGH: f64 = 1e-10;
/// How near to each other two rounds of multipliers must be, in the same measure.
const FINE: f64 = 1e-12;
/// Steps without progress after which enough is enough.
const PATIENCE: u32 = 4;
/// How little the last step may move any voltage, relative to the largest: currents that are small
/// against those of large conductances beside them would still be wrong.
const SETTLED: f64 = 1e-11;
/// The same, where more steps bring no more.
const LOOSE: f64 = 1e-8;
/// Steps after the first that meets the tolerance, in which that is to happen.
const REFINEMENTS: u32 = 12;
/// Rounds of multipliers of an adjoint, at the most.
const MAX_ROUNDS: u32 = 100;
/// The factor by which the conductance at which tangents begin grows.
const RAISE: f64 = 1e5;

impl Sample<'_> {
    /// Brings the node voltages `v` to the operating point, by at most `limit` Newton steps.
    pub(super) fn solve(
        &self,
        pull: Pull<'_>,
        limit: u32,
        v: &mut [f64],
        memory: &mut Memory,
    ) -> Solved {
        let (circuit, n) = (self.circuit, v.len());
        let Memory { matrix, force, step, next, left, held, live } = memory;
        [&mut *force, &mut *step, &mut *next, &mut *left]
            .into_iter()
            .for_each(|buffer| buffer.resize(n, 0.0));
        held.resize(n, false);
        let mut cap = self.values.cap;
        self.find_live(pull, live);
        self.set_knees(cap, live);
        let mut merit = self.merit(pull, v, live, left).0;
        let (mut steps, mut change, mut last, mut stuck) = (0, f64::INFINITY, false, false);
        let (mut moved_before, mut least, mut idle) = (f64::INFINITY, f64::INFINITY, 0);
        let (mut refined, mut change_before) = (0, f64::INFINITY);
        loop {
            poll(64 * v.len());
            let largest = self.currents(pull, v, live, force);
            held.iter_mut()
                .enumerate()
                .for_each(|(k, held)| *held = self.is_held(pull, k, v[k], force[k]));
            let left_over = force
                .iter()
                .zip(&*held)
                .filter(|(_, held)| !**held)
                .fold(0.0f64, |m, (f, _)| m.max(f.abs()));
            if !(merit.is_finite() && force.iter().all(|f| f.is_finite())) {
                return Solved { status: Status::Diverged, steps, change };
            }
            let highest = v.iter().chain(&self.x).fold(0.0f64, |m, v| m.max(v.abs()));
            let precise = left_over == 0.0 || change <= SETTLED * highest;
            let enough = precise || (change <= LOOSE * highest && refined > 0);
            let enough = if enough && left_over <= ENOUGH * largest {
                Status::Converged
            } else {
                Status::Unconverged
            };
            // One more step after the tolerance is met costs little and squares the error. The
            // first tells whether anything determines the voltages at all.
            let refines = last && !precise && refined < REFINEMENTS && change < 0.5 * change_before;
            if ((left_over == 0.0 && steps > 0) || last) && !refines {
                let beyond = cap.is_finite() && self.is_beyond(v, live);
                if beyond {
                    cap *= RAISE;
                    self.set_knees(cap, live);
                }
                let moved = self.update_multipliers(v, live);
                // Where diodes neither conduct nor block, rounding errors go on moving them a
                // little.
                let settled = moved <= FINE * largest
                    || (moved <= ENOUGH * largest && moved > 0.5 * moved_before);
                moved_before = moved;
                if !settled || beyond {
                    merit = self.merit(pull, v, live, left).0;
                    (last, stuck, least) = (false, false, f64::INFINITY);
                    (refined, change_before) = (0, f64::INFINITY);
                    continue;
                }
                return Solved {
                    status: enough,
                    steps,
                    change: if left_over == 0.0 { 0.0 } else { change },
                };
            }
            if steps == limit {
                return Solved { status: Status::Unconverged, steps, change };
            }
            // At a kink steps may go to and fro within rounding errors.
            (least, idle) =
                if left_over < 0.5 * least { (left_over, 0) } else { (least, idle + 1) };
            if last {
                (refined, change_before) = (refined + 1, change);
            }
            last |= left_over <= TOLERANCE * largest
                || stuck
                || (left_over <= ENOUGH * largest && idle >= PATIENCE);
            self.jacobian(pull, v, live, held, matrix);
            let Some(factor) = circuit.pattern.factorise(matrix) else {
                return Solved { status: Status::Unbounded, steps, change };
            };
            for ((step, &force), &held) in step.iter_mut().zip(&*force).zip(&*held) {
                *step = if held { 0.0 } else { -force };
            }
            factor.solve(step, 1);
            steps += 1;
            let (mut length, mut halvings) = (1.0, 0);
            loop {
                let mut slope = if circuit.reciprocal { 0.0 } else { -2.0 * length * merit };
                change = 0.0;
                for k in 0..n {
                    let (lo, hi) = circuit.walls[k];
                    next[k] = (v[k] + length * step[k]).clamp(lo, hi);
                    change = f64::max(change, (next[k] - v[k]).abs());
                    if circuit.reciprocal {
                        slope += force[k] * (next[k] - v[k]);
                    }
                }
                let (moved, rounding) = self.merit(pull, next, live, left);
                if moved <= merit + SUFFICIENT * slope + rounding {
                    merit = moved;
                    v.copy_from_slice(next);
                    // Steps of a rounding error only shuffle.
                    stuck = change
                        <= 4.0 * f64::EPSILON * v.iter().fold(0.0, |m, v| f64::max(m, v.abs()));
                    break;
                }
                if halvings == MAX_HALVINGS {
                    if last {
                        // Nothing to be gained any more.
                        break;
                    }
                    return Solved { status: enough, steps, change };
                }
                (length, halvings) = (0.5 * length, halvings + 1);
            }
        }
    }

    /// Whether a node stays where it is: at a wall that its current pushes it against, or clamped.
    fn is_held(&self, pull: Pull<'_>, k: usize, v: f64, force: f64) -> bool {
        let (lo, hi) = self.circuit.walls[k];
        (v <= lo && force > 0.0)
            || (v >= hi && force < 0.0)
            || (pull == Pull::Clamp && k >= self.circuit.pattern.size() - self.circuit.outputs)
    }

    /// What steps must bring down, and the rounding error of it: the energy, or the square of the
    /// currents left at the nodes, which go to `left`.
    fn merit(&self, pull: Pull<'_>, v: &[f64], live: &[Live], left: &mut [f64]) -> (f64, f64) {
        if self.circuit.reciprocal {
            let (energy, magnitude) = self.energy(pull, v, live);
            return (energy, 4.0 * f64::EPSILON * magnitude);
        }
        self.currents(pull, v, live, left);
        let free = left.iter().enumerate().filter(|&(k, &f)| !self.is_held(pull, k, v[k], f));
        (free.map(|(_, f)| f * f).sum(), 0.0)
    }

    /// Lists the nonlinear elements that something depends on, without knees. What flows between
    /// two held nodes would only hide other currents behind its rounding errors.
    fn find_live(&self, pull: Pull<'_>, live: &mut Vec<Live>) {
        let circuit = self.circuit;
        let moving = circuit.pattern.size() - if pull == Pull::Clamp { circuit.outputs } else { 0 };
        let moves = |terminal: Terminal| terminal.free().is_some_and(|node| node < moving);
        live.clear();
        let all = circuit.nonlinear.iter().map(|&element| Live {
            element,
            knee: f64::INFINITY,
            multiplier: 0.0,
        });
        live.extend(all.filter(|l| {
            moves(circuit.elements[l.element].from) || moves(circuit.elements[l.element].to)
        }));
    }

    fn set_knees(&self, cap: f64, live: &mut [Live]) {
        live.iter_mut().for_each(|l| l.knee = self.circuit.elements[l.element].law.knee(cap));
    }

    /// Whether an element is on its tangent.
    fn is_beyond(&self, v: &[f64], live: &[Live]) -> bool {
        live.iter().any(|l| self.circuit.drop(l.element, &self.x, v) > l.knee)
    }

    /// Sets the multipliers of ideal diodes to what these carry. Returns the largest change.
    fn update_multipliers(&self, v: &[f64], live: &mut [Live]) -> f64 {
        let mut moved = 0.0f64;
        for l in live.iter_mut().filter(|l| self.is_ideal(l)) {
            let carried = self.respond(v, l).current;
            moved = moved.max((carried - l.multiplier).abs());
            l.multiplier = carried;
        }
        moved
    }

    fn is_ideal(&self, l: &Live) -> bool {
        self.circuit.elements[l.element].law == Law::IdealDiode
    }

    /// What a live element does.
    pub(super) fn respond(&self, v: &[f64], l: &Live) -> Response {
        let ends = self.circuit.ends(l.element, &self.x, v);
        if !self.is_ideal(l) {
            return self.circuit.elements[l.element].law.respond(
                self.values.theta[l.element],
                ends,
                l.knee,
            );
        }
        let stiffness = self.values.stiffness;
        let current = l.multiplier + stiffness * (ends[0] - ends[1]);
        if current <= 0.0 {
            return Response::default();
        }
        Response { content: 0.5 * current * current / stiffness, current, slopes: [stiffness; 2] }
    }

    /// Every live element and what it does.
    fn nonlinear<'b>(
        &'b self,
        v: &'b [f64],
        live: &'b [Live],
    ) -> impl Iterator<Item = (&'b Element, Response)> {
        live.iter().map(|l| (&self.circuit.elements[l.element], self.respond(v, l)))
    }

    /// The currents of [`Self::currents`] for a circuit that nothing pulls at, but for those of
    /// ideal diodes between nodes.
    pub(super) fn force(&self, v: &[f64], force: &mut [f64]) {
        self.currents(Pull::Nothing, v, &self.split_ideal().0, force);
    }

    /// Lets nodes that ideal diodes tie together share what flows out of them; where one of them is
    /// held, or an input, nothing is left.
    pub(super) fn share_tied(&self, v: &[f64], tolerance: f64, held: &[bool], force: &mut [f64]) {
        // Groups as trees: every node names one with a larger number, the last of its group itself.
        // Node n is held.
        let n = v.len();
        let mut above: Vec<usize> = (0..=n).collect();
        let last = |above: &mut [usize], mut node: usize| {
            while above[node] != node {
                above[node] = above[above[node]];
                node = above[node];
            }
            node
        };
        let number = |terminal: Terminal| terminal.free().filter(|&node| !held[node]).unwrap_or(n);
        for l in self.tied(v, tolerance, self.split_ideal().1) {
            let element = &self.circuit.elements[l.element];
            let (a, b) =
                (last(&mut above, number(element.from)), last(&mut above, number(element.to)));
            above[a.min(b)] = a.max(b);
        }
        let group: Vec<usize> = (0..n).map(|node| last(&mut above, node)).collect();
        let mut sums = vec![(0.0, 0.0); n + 1];
        for (f, &g) in force.iter().zip(&group) {
            sums[g] = (sums[g].0 + f, sums[g].1 + 1.0);
        }
        for (f, &g) in force.iter_mut().zip(&group) {
            let (sum, count) = sums[g];
            if g == n {
                *f = 0.0;
            } else if count > 1.0 {
                *f = sum / count;
            }
        }
    }

    /// The live elements of a circuit that nothing pulls at: all but ideal diodes, and those.
    fn split_ideal(&self) -> (Vec<Live>, Vec<Live>) {
        let mut live = Vec::new();
        self.find_live(Pull::Nothing, &mut live);
        live.into_iter().partition(|l| !self.is_ideal(l))
    }

    /// The ideal diodes that conduct: whose voltage is not below zero by more than this. They
    /// conduct whatever happens.
    fn tied(&self, v: &[f64], tolerance: f64, ideal: Vec<Live>) -> Vec<Live> {
        let highest = v.iter().chain(&self.x).fold(0.0, |m: f64, v| m.max(v.abs()));
        let conduct = ideal
            .into_iter()
            .filter(|l| self.circuit.drop(l.element, &self.x, v) >= -tolerance * highest);
        conduct.map(|l| Live { multiplier: f64::INFINITY, ..l }).collect()
    }

    /// The derivatives of [`Self::force`] by the voltages, without what ideal diodes tie together.
    pub(super) fn curvature(&self, v: &[f64], matrix: &mut Vec<f64>) {
        self.jacobian(Pull::Nothing, v, &self.split_ideal().0, &vec![false; v.len()], matrix);
    }

    /// Solves J^T lambda = `right` for the derivatives J of the currents by the voltages, over
    /// nodes that are not held and move together where ideal diodes tie them. False where J is
    /// singular.
    pub(super) fn adjoint(
        &self,
        v: &[f64],
        tolerance: f64,
        held: &[bool],
        right: &mut [f64],
    ) -> bool {
        let circuit = self.circuit;
        let (mut live, ideal) = self.split_ideal();
        let tied = self.tied(v, tolerance, ideal);
        live.extend(&tied);
        let mut matrix = Vec::new();
        self.jacobian(Pull::Nothing, v, &live, held, &mut matrix);
        let stiffness = self.values.stiffness;
        let ends = |l: &Live| {
            let element = &circuit.elements[l.element];
            [(element.from, 1.0), (element.to, -1.0)]
                .map(|(t, sign)| (t.free().filter(|&k| !held[k]), sign))
        };
        let Some(factor) = circuit.pattern.factorise(&matrix) else { return false };
        let mut multipliers = vec![0.0; tied.len()];
        let wanted = right.to_vec();
        for _ in 0..MAX_ROUNDS {
            right.copy_from_slice(&wanted);
            for (l, multiplier) in tied.iter().zip(&multipliers) {
                ends(l).iter().for_each(|&(k, sign)| {
                    k.into_iter().for_each(|k| right[k] -= sign * multiplier)
                });
            }
            factor.solve_transposed(right);
            let (mut moved, mut largest) = (0.0f64, 0.0f64);
            for (l, multiplier) in tied.iter().zip(&mut multipliers) {
                let apart: f64 =
                    ends(l).iter().filter_map(|&(k, sign)| Some(sign * right[k?])).sum();
                *multiplier += stiffness * apart;
                (moved, largest) =
                    (moved.max((stiffness * apart).abs()), largest.max(multiplier.abs()));
            }
            if moved <= FINE * largest {
                break;
            }
        }
        true
    }

    /// The co-content of the circuit and what pulls at it, up to a constant; and the sum of the
    /// magnitudes of its terms, of which its rounding error is some units in the last place.
    fn energy(&self, pull: Pull<'_>, v: &[f64], live: &[Live]) -> (f64, f64) {
        let (circuit, values) = (self.circuit, self.values);
        let (mut energy, mut magnitude) = (0.0, 0.0);
        let mut add = |term: f64| {
            energy += term;
            magnitude += term.abs();
        };
        circuit.pattern.for_each(|row, column, place| {
            add(match row == column {
                true => 0.5 * values.leak[row] * v[row] * v[row],
                false => -0.5 * values.linear[place] * (v[row] - v[column]) * (v[row] - v[column]),
            });
        });
        self.sources.iter().zip(v).for_each(|(s, v)| add(-s * v));
        self.nonlinear(v, live).for_each(|(_, response)| add(response.content));
        let outputs = &v[v.len() - circuit.outputs..];
        match pull {
            Pull::Loss(loss, beta, target) => add(beta * loss.value(outputs, target)),
            Pull::Force(strength, g) => {
                outputs.iter().zip(g).for_each(|(v, g)| add(strength * v * g))
            }
            Pull::Nothing | Pull::Clamp => {}
        }
        (energy, magnitude)
    }

    /// Writes the current that flows out of every node: zero, where Kirchhoff's law holds. Returns
    /// the largest current that flows anywhere.
    pub(super) fn currents(
        &self,
        pull: Pull<'_>,
        v: &[f64],
        live: &[Live],
        force: &mut [f64],
    ) -> f64 {
        let (circuit, values) = (self.circuit, self.values);
        values.flow(circuit, v, force);
        let mut largest = self.sources.iter().fold(f64::MIN_POSITIVE, |m, s| m.max(s.abs()));
        circuit.pattern.for_each(|row, column, place| {
            if row == column {
                largest = largest.max((values.linear[place] * v[row]).abs());
            }
        });
        force.iter_mut().zip(&self.sources).for_each(|(f, s)| *f -= s);
        for (element, Response { current, .. }) in self.nonlinear(v, live) {
            largest = largest.max(current.abs());
            element.from.free().into_iter().for_each(|i| force[i] += current);
            element.to.free().into_iter().for_each(|j| force[j] -= current);
        }
        let first = v.len() - circuit.outputs;
        match pull {
            Pull::Loss(loss, beta, target) => {
                let mut gradient = vec![0.0; circuit.outputs];
                loss.gradient(&v[first..], target, &mut gradient);
                force[first..].iter_mut().zip(&gradient).for_each(|(f, g)| *f += beta * g);
            }
            Pull::Force(strength, g) => {
                force[first..].iter_mut().zip(g).for_each(|(f, g)| *f += strength * g)
            }
            Pull::Nothing | Pull::Clamp => {}
        }
        largest
    }

    /// Writes the derivatives of the currents by the voltages; held nodes stand apart.
    fn jacobian(
        &self,
        pull: Pull<'_>,
        v: &[f64],
        live: &[Live],
        held: &[bool],
        matrix: &mut Vec<f64>,
    ) {
        let circuit = self.circuit;
        matrix.clear();
        matrix.extend_from_slice(&self.values.linear);
        for (element, response) in self.nonlinear(v, live) {
            element.stamp(response.slopes, matrix);
        }
        if let Pull::Loss(loss, beta, target) = pull {
            let first = v.len() - circuit.outputs;
            for i in 0..circuit.outputs {
                for j in 0..if circuit.reciprocal { i + 1 } else { circuit.outputs } {
                    let curvature = loss.curvature(&v[first..], target, i, j);
                    if curvature != 0.0 {
                        matrix[circuit.pattern.place(first + i, first + j)] += beta * curvature;
                    }
                }
            }
        }
        if held.contains(&true) {
            circuit.pattern.for_each(|row, column, place| {
                if held[row] || held[column] {
                    matrix[place] = if row == column { 1.0 } else { 0.0 };
                }
            });
        }
    }
}
