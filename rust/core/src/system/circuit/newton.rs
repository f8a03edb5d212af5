//! The operating point of one sample: damped Newton steps on the co-content, with walls.
//!
//! Bertsekas' projected Newton method (SIAM J. Control Optim. 20, 221 (1982)): nodes that a wall holds are left out of the
//! linear system, the others step along the Newton direction as far as the energy falls, and stop at walls.
//!
//! On the way the exponential of a diode is followed by its tangent from some large conductance on, which keeps the energy
//! convex and the numbers near each other; if an operating point lies beyond, the search goes on with a larger one.

use super::values::Values;
use super::{Circuit, Element, Terminal};
use crate::loss::Loss;
use crate::trial::Status;

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
    /// What inputs, fixed voltages and current sources feed into every node through linear elements.
    pub(super) sources: Vec<f64>,
}

/// The memory of a solve.
#[derive(Debug, Default)]
pub(super) struct Memory {
    matrix: Vec<f64>,
    force: Vec<f64>,
    step: Vec<f64>,
    next: Vec<f64>,
    held: Vec<bool>,
    live: Vec<Live>,
}

/// A nonlinear element that something depends on: one of its terminals moves.
#[derive(Debug, Clone, Copy)]
struct Live {
    element: usize,
    /// The voltage from which it goes on along its tangent.
    knee: f64,
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
/// How near to zero the current left at every node must be, relative to the largest that flows anywhere.
const TOLERANCE: f64 = 1e-13;
/// The same, where the energy cannot fall any more.
const ENOUGH: f64 = 1e-10;
/// The factor by which the conductance at which tangents begin grows.
const RAISE: f64 = 1e5;

impl Sample<'_> {
    /// Brings the node voltages `v` to the operating point, by at most `limit` Newton steps.
    pub(super) fn solve(&self, pull: Pull<'_>, limit: u32, v: &mut [f64], memory: &mut Memory) -> Solved {
        let (circuit, n) = (self.circuit, v.len());
        let Memory { matrix, force, step, next, held, live } = memory;
        [&mut *force, &mut *step, &mut *next].into_iter().for_each(|buffer| buffer.resize(n, 0.0));
        held.resize(n, false);
        let mut cap = self.values.cap;
        self.find_live(pull, live);
        self.set_knees(cap, live);
        let mut energy = self.energy(pull, v, live).0;
        let (mut steps, mut change, mut last, mut stuck) = (0, f64::INFINITY, false, false);
        loop {
            let largest = self.currents(pull, v, live, force);
            for (k, held) in held.iter_mut().enumerate() {
                let (lo, hi) = circuit.walls[k];
                let at_wall = (v[k] <= lo && force[k] > 0.0) || (v[k] >= hi && force[k] < 0.0);
                *held = at_wall || (pull == Pull::Clamp && k >= n - circuit.outputs);
            }
            let left = force.iter().zip(&*held).filter(|(_, held)| !**held).fold(0.0f64, |m, (f, _)| m.max(f.abs()));
            if !(energy.is_finite() && force.iter().all(|f| f.is_finite())) {
                return Solved { status: Status::Diverged, steps, change };
            }
            // One more step after the tolerance is met costs little and squares the error.
            if left == 0.0 || last {
                if cap.is_finite() && self.is_beyond(v, live) {
                    cap *= RAISE;
                    self.set_knees(cap, live);
                    energy = self.energy(pull, v, live).0;
                    last = false;
                    continue;
                }
                let change = if left == 0.0 { 0.0 } else { change };
                let status = if left <= ENOUGH * largest { Status::Converged } else { Status::Unconverged };
                return Solved { status, steps, change };
            }
            if steps == limit {
                return Solved { status: Status::Unconverged, steps, change };
            }
            last = left <= TOLERANCE * largest || stuck;
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
                let mut slope = 0.0;
                change = 0.0;
                for k in 0..n {
                    let (lo, hi) = circuit.walls[k];
                    next[k] = (v[k] + length * step[k]).clamp(lo, hi);
                    slope += force[k] * (next[k] - v[k]);
                    change = f64::max(change, (next[k] - v[k]).abs());
                }
                let (moved, magnitude) = self.energy(pull, next, live);
                let rounding = 4.0 * f64::EPSILON * magnitude;
                if moved <= energy + SUFFICIENT * slope + rounding {
                    energy = moved;
                    break;
                }
                if halvings == MAX_HALVINGS {
                    let status = if left <= ENOUGH * largest { Status::Converged } else { Status::Unconverged };
                    return Solved { status, steps, change };
                }
                (length, halvings) = (0.5 * length, halvings + 1);
            }
            v.copy_from_slice(next);
            // Steps of a rounding error only shuffle.
            stuck = change <= 4.0 * f64::EPSILON * v.iter().fold(0.0, |m, v| f64::max(m, v.abs()));
        }
    }

    /// Lists the nonlinear elements that something depends on, without knees. What flows between two held nodes would only
    /// hide other currents behind its rounding errors.
    fn find_live(&self, pull: Pull<'_>, live: &mut Vec<Live>) {
        let circuit = self.circuit;
        let moving = circuit.pattern.size() - if pull == Pull::Clamp { circuit.outputs } else { 0 };
        let moves = |terminal: Terminal| terminal.node().is_some_and(|node| node < moving);
        live.clear();
        let all = circuit.nonlinear.iter().map(|&element| Live { element, knee: f64::INFINITY });
        live.extend(all.filter(|l| moves(circuit.elements[l.element].from) || moves(circuit.elements[l.element].to)));
    }

    fn set_knees(&self, cap: f64, live: &mut [Live]) {
        live.iter_mut().for_each(|l| l.knee = self.circuit.elements[l.element].law.knee(cap));
    }

    /// Whether an element is on its tangent.
    fn is_beyond(&self, v: &[f64], live: &[Live]) -> bool {
        live.iter().any(|l| self.circuit.drop(l.element, &self.x, v) > l.knee)
    }

    /// Every live element, with its content, current and conductance.
    fn nonlinear<'b>(&'b self, v: &'b [f64], live: &'b [Live]) -> impl Iterator<Item = (&'b Element, [f64; 3])> {
        live.iter().map(|l| {
            let element = &self.circuit.elements[l.element];
            let v = self.circuit.drop(l.element, &self.x, v);
            (element, element.law.tangent(self.values.theta[l.element], v, l.knee))
        })
    }

    /// The currents of [`Self::currents`] for a circuit that nothing pulls at.
    pub(super) fn force(&self, v: &[f64], force: &mut [f64]) {
        let mut live = Vec::new();
        self.find_live(Pull::Nothing, &mut live);
        self.currents(Pull::Nothing, v, &live, force);
    }

    /// The derivatives of [`Self::force`] by the voltages.
    pub(super) fn curvature(&self, v: &[f64], matrix: &mut Vec<f64>) {
        let mut live = Vec::new();
        self.find_live(Pull::Nothing, &mut live);
        self.jacobian(Pull::Nothing, v, &live, &vec![false; v.len()], matrix);
    }

    /// The co-content of the circuit and what pulls at it, up to a constant; and the sum of the magnitudes of its terms, of
    /// which its rounding error is some units in the last place.
    fn energy(&self, pull: Pull<'_>, v: &[f64], live: &[Live]) -> (f64, f64) {
        let (circuit, values) = (self.circuit, self.values);
        let (mut energy, mut magnitude) = (0.0, 0.0);
        let mut add = |term: f64| {
            energy += term;
            magnitude += term.abs();
        };
        circuit.pattern.for_each(|row, column, place| {
            let factor = if row == column { 0.5 } else { 1.0 };
            add(factor * values.linear[place] * v[row] * v[column]);
        });
        self.sources.iter().zip(v).for_each(|(s, v)| add(-s * v));
        self.nonlinear(v, live).for_each(|(_, [content, ..])| add(content));
        let outputs = &v[v.len() - circuit.outputs..];
        match pull {
            Pull::Loss(loss, beta, target) => add(beta * loss.value(outputs, target)),
            Pull::Force(strength, g) => outputs.iter().zip(g).for_each(|(v, g)| add(strength * v * g)),
            Pull::Nothing | Pull::Clamp => {}
        }
        (energy, magnitude)
    }

    /// Writes the current that flows out of every node: zero, where Kirchhoff's law holds. Returns the largest current that
    /// flows anywhere.
    fn currents(&self, pull: Pull<'_>, v: &[f64], live: &[Live], force: &mut [f64]) -> f64 {
        let (circuit, values) = (self.circuit, self.values);
        circuit.pattern.multiply(&values.linear, v, force);
        let mut largest = self.sources.iter().fold(f64::MIN_POSITIVE, |m, s| m.max(s.abs()));
        circuit.pattern.for_each(|row, column, place| {
            if row == column {
                largest = largest.max((values.linear[place] * v[row]).abs());
            }
        });
        force.iter_mut().zip(&self.sources).for_each(|(f, s)| *f -= s);
        for (element, [_, current, _]) in self.nonlinear(v, live) {
            largest = largest.max(current.abs());
            element.from.node().into_iter().for_each(|i| force[i] += current);
            element.to.node().into_iter().for_each(|j| force[j] -= current);
        }
        let first = v.len() - circuit.outputs;
        match pull {
            Pull::Loss(loss, beta, target) => {
                let mut gradient = vec![0.0; circuit.outputs];
                loss.gradient(&v[first..], target, &mut gradient);
                force[first..].iter_mut().zip(&gradient).for_each(|(f, g)| *f += beta * g);
            }
            Pull::Force(strength, g) => force[first..].iter_mut().zip(g).for_each(|(f, g)| *f += strength * g),
            Pull::Nothing | Pull::Clamp => {}
        }
        largest
    }

    /// Writes the derivatives of the currents by the voltages; held nodes stand apart.
    fn jacobian(&self, pull: Pull<'_>, v: &[f64], live: &[Live], held: &[bool], matrix: &mut Vec<f64>) {
        let circuit = self.circuit;
        matrix.clear();
        matrix.extend_from_slice(&self.values.linear);
        for (element, [.., conductance]) in self.nonlinear(v, live) {
            element.stamp(conductance, matrix);
        }
        if let Pull::Loss(loss, beta, target) = pull {
            let first = v.len() - circuit.outputs;
            for i in 0..circuit.outputs {
                for j in 0..=i {
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
