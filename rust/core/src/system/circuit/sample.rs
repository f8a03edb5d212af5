//! One sample of a circuit: currents, energies, and what moves towards the operating point.
//!
//! On the way the exponential of a diode is followed by its tangent from some large conductance on,
//! which keeps the energy convex and the numbers near each other; if an operating point lies
//! beyond, the search goes on with a larger one.
//!
//! Ideal diodes between nodes are inequalities that the method of multipliers satisfies (Hestenes,
//! Powell 1969): a diode of multiplier m carries max(m + G V, 0), and what it carries at the
//! operating point is its next multiplier.

use pnncore_kernels::Real;
use smallvec::SmallVec;

use super::terminal::Terminal;
use super::values::Values;
use super::{Circuit, Element, Law};
use crate::batch::Batch;
use crate::loss::Loss;
use crate::plan::Boundary;
use crate::system::circuit::law::Response;
use crate::system::matrix::{Factor, Stack};

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

impl Circuit {
    /// What a boundary does to the circuit: where there are branches a nudge is the force at the
    /// free outputs.
    pub(super) fn acting(&self, boundary: Boundary) -> Boundary {
        match boundary {
            Boundary::Nudged(beta) if !self.branches.is_empty() => Boundary::Forced(beta.re),
            other => other,
        }
    }
}

/// A circuit at given inputs.
pub(super) struct Sample<'a> {
    pub(super) circuit: &'a Circuit,
    pub(super) values: &'a Values,
    /// The inputs.
    pub(super) x: &'a [f64],
    /// What inputs, fixed voltages and current sources feed into every node through linear
    /// elements.
    pub(super) sources: &'a [f64],
}

/// The voltages of inputs, and what they feed into nodes: memory for one sample after the other.
#[derive(Debug, Default)]
pub(super) struct Fed {
    x: Vec<f64>,
    sources: Vec<f64>,
}

impl Fed {
    /// Sample `i` of a batch.
    pub(super) fn sample<'a, T: Real>(
        &'a mut self,
        circuit: &'a Circuit,
        values: &'a Values,
        batch: &Batch<'_, T>,
        i: usize,
    ) -> Sample<'a> {
        self.x.clear();
        self.x.extend(batch.x.row(i).iter().map(|x| x.to_f64()));
        self.sources.clear();
        values.add_sources(circuit, &self.x, &mut self.sources);
        Sample { circuit, values, x: &self.x, sources: &self.sources }
    }
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

/// How near to each other two rounds of multipliers must be, relative to the largest current.
pub(super) const FINE: f64 = 1e-12;
/// Rounds of multipliers of an adjoint, at the most.
const MAX_ROUNDS: u32 = 100;
impl Sample<'_> {
    /// Whether a node stays where it is: at a wall that its current pushes it against, or clamped.
    pub(super) fn is_held(&self, pull: Pull<'_>, k: usize, v: f64, force: f64) -> bool {
        let (lo, hi) = self.circuit.walls[k];
        (v <= lo && force > 0.0)
            || (v >= hi && force < 0.0)
            || (pull == Pull::Clamp && k >= self.circuit.pattern.size() - self.circuit.outputs)
    }

    /// Whether steps from here are along the co-content: there is one, and the branches' voltages
    /// are right, to which it is restricted. `left` are the currents left at the nodes.
    pub(super) fn falls_by_energy(&self, v: &[f64], left: &[f64]) -> bool {
        /// How near to right, relative to the highest voltage.
        const RIGHT: f64 = 1e-10;
        let highest = || self.highest(v);
        let mut short = self.circuit.branches.iter().map(|b| left[b.current].abs());
        self.circuit.reciprocal
            && (self.circuit.definite || short.all(|short| short <= RIGHT * highest()))
    }

    /// What steps must bring down, and the rounding error of it: the energy, or the square of the
    /// currents left at the nodes, which go to `left`.
    pub(super) fn merit(
        &self,
        by_energy: bool,
        pull: Pull<'_>,
        v: &[f64],
        live: &[Live],
        left: &mut [f64],
    ) -> (f64, f64) {
        if by_energy {
            return self.energy(pull, v, live);
        }
        self.currents(pull, v, live, left);
        let free = left.iter().enumerate().filter(|&(k, &f)| !self.is_held(pull, k, v[k], f));
        (free.map(|(k, &f)| self.circuit.amperes(self.values, k, f).powi(2)).sum(), 0.0)
    }

    /// Lists the nonlinear elements that something depends on, without knees. What flows between
    /// two held nodes would only hide other currents behind its rounding errors.
    pub(super) fn find_live(&self, pull: Pull<'_>, live: &mut Vec<Live>) {
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

    pub(super) fn set_knees(&self, cap: f64, live: &mut [Live]) {
        live.iter_mut().for_each(|l| l.knee = self.circuit.elements[l.element].law.knee(cap));
    }

    /// Whether an element is on its tangent.
    pub(super) fn is_beyond(&self, v: &[f64], live: &[Live]) -> bool {
        live.iter().any(|l| self.circuit.drop(l.element, self.x, v) > l.knee)
    }

    /// Sets the multipliers of ideal diodes to what these carry. Returns the largest change.
    pub(super) fn update_multipliers(&self, v: &[f64], live: &mut [Live]) -> f64 {
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
        let ends = self.circuit.ends(l.element, self.x, v);
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
        let highest = self.highest(v);
        let conduct = ideal
            .into_iter()
            .filter(|l| self.circuit.drop(l.element, self.x, v) >= -tolerance * highest);
        conduct.map(|l| Live { multiplier: f64::INFINITY, ..l }).collect()
    }

    /// The highest voltage anywhere.
    pub(super) fn highest(&self, v: &[f64]) -> f64 {
        let is_voltage = |k: usize| self.circuit.input_currents.iter().all(|c| c.input != k);
        let inputs = self.x.iter().enumerate().filter(|&(k, _)| is_voltage(k));
        inputs.fold(self.circuit.highest(self.values, v), |m, (_, x)| m.max(x.abs()))
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
        let (pattern, mut factor, mut stack) =
            (&circuit.pattern, Factor::default(), Stack::default());
        if !pattern.factorise(&matrix, &mut factor, &mut stack) {
            return false;
        }
        let mut multipliers = vec![0.0; tied.len()];
        let wanted = right.to_vec();
        for _ in 0..MAX_ROUNDS {
            right.copy_from_slice(&wanted);
            for (l, multiplier) in tied.iter().zip(&multipliers) {
                ends(l).iter().for_each(|&(k, sign)| {
                    k.into_iter().for_each(|k| right[k] -= sign * multiplier)
                });
            }
            pattern.solve_transposed(&factor, right, &mut stack);
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

    /// The co-content of the circuit and what pulls at it, up to a constant, where voltages of
    /// branches are right; and its error: rounding, of some units in the last place of all terms,
    /// and what those voltages are short of.
    fn energy(&self, pull: Pull<'_>, v: &[f64], live: &[Live]) -> (f64, f64) {
        let (circuit, values) = (self.circuit, self.values);
        let (mut energy, mut magnitude) = (0.0, 0.0);
        // Without branches a triangle of the matrix is kept, with them all of it.
        let half = if circuit.definite { 0.5 } else { 0.25 };
        let mut add = |term: f64| {
            energy += term;
            magnitude += term.abs();
        };
        circuit.pattern.for_each(|row, column, place| {
            let drop = v[row] - v[column];
            add(match row == column {
                true => 0.5 * values.leak[row] * v[row] * v[row],
                false => -half * values.linear[place] * drop * drop,
            });
        });
        let is_voltage = |k: usize| !circuit.is_current(k);
        let fed = self.sources.iter().zip(v).enumerate().filter(|&(k, _)| is_voltage(k));
        fed.for_each(|(_, (s, v))| add(-s * v));
        self.nonlinear(v, live).for_each(|(_, response)| add(response.content));
        let first = v.len() - circuit.outputs;
        let outputs = &v[first..];
        match pull {
            Pull::Loss(loss, beta, target) => add(beta * loss.value(outputs, target)),
            Pull::Force(strength, g) => {
                let forced = outputs.iter().zip(g).enumerate();
                forced
                    .filter(|&(o, _)| is_voltage(first + o))
                    .for_each(|(_, (v, g))| add(strength * v * g))
            }
            Pull::Nothing | Pull::Clamp => {}
        }
        let short = circuit.branches.iter().map(|b| {
            let pulled = match pull {
                Pull::Force(strength, g) if b.current >= first => strength * g[b.current - first],
                _ => 0.0,
            };
            (b.content(self.x, v) + pulled * v[b.current]).abs()
        });
        (energy, 4.0 * f64::EPSILON * magnitude + 2.0 * short.sum::<f64>())
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
        let sources = self.sources.iter().enumerate();
        let mut largest = sources
            .fold(f64::MIN_POSITIVE, |m, (k, &s)| m.max(circuit.amperes(values, k, s).abs()));
        circuit.branches.iter().for_each(|b| largest = largest.max(v[b.current].abs()));
        circuit.pattern.for_each(|row, column, place| {
            if row == column {
                largest = largest.max((values.linear[place] * v[row]).abs());
            }
        });
        force.iter_mut().zip(self.sources).for_each(|(f, s)| *f -= s);
        for (element, Response { current, .. }) in self.nonlinear(v, live) {
            largest = largest.max(current.abs());
            element.from.free().into_iter().for_each(|i| force[i] += current);
            element.to.free().into_iter().for_each(|j| force[j] -= current);
        }
        let first = v.len() - circuit.outputs;
        match pull {
            Pull::Loss(loss, beta, target) => {
                // Few outputs: no memory of its own.
                let mut gradient = SmallVec::<[f64; 16]>::from_elem(0.0, circuit.outputs);
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
    pub(super) fn jacobian(
        &self,
        pull: Pull<'_>,
        v: &[f64],
        live: &[Live],
        held: &[bool],
        matrix: &mut Vec<f64>,
    ) {
        let circuit = self.circuit;
        self.values.write_linear(circuit, matrix);
        for (element, response) in self.nonlinear(v, live) {
            element.stamp(response.slopes, matrix);
        }
        if let Pull::Loss(loss, beta, target) = pull {
            let first = v.len() - circuit.outputs;
            for i in 0..circuit.outputs {
                for j in 0..if circuit.definite { i + 1 } else { circuit.outputs } {
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
