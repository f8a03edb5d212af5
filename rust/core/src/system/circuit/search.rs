//! The search for the operating point of one sample: damped Newton steps on the co-content, with
//! walls.
//!
//! Bertsekas' projected Newton method (SIAM J. Control Optim. 20, 221 (1982)): nodes that a wall
//! holds are left out of the linear system, the others step along the Newton direction as far as
//! the energy falls, and stop at walls. Where there is no energy, or the voltages of branches are
//! not right yet, as far as the currents left at the nodes shrink.

use pnncore_kernels::watch::poll;

use super::sample::{FINE, Live, Pull, Sample};
use crate::states::Status;
use crate::system::matrix::{Factor, Stack};

/// The memory of a search.
#[derive(Debug, Default)]
pub(super) struct Memory {
    matrix: Vec<f64>,
    force: Vec<f64>,
    step: Vec<f64>,
    next: Vec<f64>,
    /// The currents at `next`.
    left: Vec<f64>,
    held: Vec<bool>,
    factor: Factor,
    stack: Stack,
    pub(super) live: Vec<Live>,
}

/// How a search ended: the status, the Newton steps, and the last step's largest change.
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
/// Steps that are made whole though no part of them brings the currents down: at a kink, where
/// diodes change, Newton's method goes on behind it. Where there is an energy every kink is passed.
const MAX_FORCED: u32 = 10;
/// How near to zero the current left at every node must be, relative to the largest that flows
/// anywhere.
const TOLERANCE: f64 = 1e-13;
/// The same, where the energy cannot fall any more.
const ENOUGH: f64 = 1e-10;
/// Steps without progress after which enough is enough.
const PATIENCE: u32 = 4;
/// How little the last step may move any voltage, relative to the largest: currents that are small
/// against those of large conductances beside them would still be wrong.
const SETTLED: f64 = 1e-11;
/// The same, where more steps bring no more.
const LOOSE: f64 = 1e-8;
/// Steps after the first that meets the tolerance, in which that is to happen.
const REFINEMENTS: u32 = 12;
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
        let mut search = Search::new(self, pull, v, memory);
        loop {
            poll(64 * search.v.len());
            let look = search.look();
            if !search.is_finite() {
                return search.ended(Status::Diverged);
            }
            if search.is_near(&look) {
                if !search.settles(&look) {
                    continue;
                }
                if look.left_over == 0.0 {
                    search.change = 0.0;
                }
                return search.ended(look.status);
            }
            if search.steps == limit {
                return search.ended(Status::Unconverged);
            }
            search.count(&look);
            if !search.find_step() {
                return search.ended(Status::Unbounded);
            }
            if !search.go() {
                return search.ended(look.status);
            }
        }
    }
}

/// A search on its way.
struct Search<'a, 'm> {
    sample: &'a Sample<'a>,
    pull: Pull<'a>,
    v: &'m mut [f64],
    memory: &'m mut Memory,
    /// The conductance of diodes from which they go on along their tangents.
    cap: f64,
    /// What steps must bring down, at `v`: the energy, or what is left of the currents.
    by_energy: bool,
    merit: f64,
    steps: u32,
    /// The largest change of a voltage in the last step, and in the one before the last refinement.
    change: f64,
    change_before: f64,
    /// Whether the tolerance is met: one more step costs little and squares the error.
    last: bool,
    /// Whether the last step was of the size of rounding errors.
    stuck: bool,
    /// How far the round of multipliers before moved.
    moved_before: f64,
    /// The least current that was left over, and the steps since that has not been halved.
    least: f64,
    idle: u32,
    /// Steps since the tolerance was met.
    refined: u32,
    /// Steps that were made whole though no part of them was worth it.
    forced: u32,
}

/// What the currents at the voltages of a search say.
struct Look {
    /// The largest current anywhere.
    largest: f64,
    /// The largest that is left over at a node which may move.
    left_over: f64,
    /// Whether the last step was small enough for the voltages to be right.
    precise: bool,
    /// How the search has ended if it ends here.
    status: Status,
}

impl<'a, 'm> Search<'a, 'm> {
    fn new(
        sample: &'a Sample<'a>,
        pull: Pull<'a>,
        v: &'m mut [f64],
        memory: &'m mut Memory,
    ) -> Self {
        let Memory { force, step, next, left, held, live, .. } = &mut *memory;
        [force, step, next, left].into_iter().for_each(|buffer| buffer.resize(v.len(), 0.0));
        held.resize(v.len(), false);
        sample.find_live(pull, live);
        let mut search = Self {
            sample,
            pull,
            v,
            memory,
            cap: sample.values.cap,
            by_energy: sample.circuit.definite,
            merit: 0.0,
            steps: 0,
            change: f64::INFINITY,
            change_before: f64::INFINITY,
            last: false,
            stuck: false,
            moved_before: f64::INFINITY,
            least: f64::INFINITY,
            idle: 0,
            refined: 0,
            forced: 0,
        };
        search.begin();
        search
    }

    /// Begins with the tangents and the multipliers that there are.
    fn begin(&mut self) {
        self.sample.set_knees(self.cap, &mut self.memory.live);
        self.find_merit();
    }

    fn find_merit(&mut self) {
        let Memory { left, live, .. } = &mut *self.memory;
        self.merit = self.sample.merit(self.by_energy, self.pull, self.v, live, left).0;
    }

    fn ended(&self, status: Status) -> Solved {
        Solved { status, steps: self.steps, change: self.change }
    }

    fn is_finite(&self) -> bool {
        self.merit.is_finite() && self.memory.force.iter().all(|f| f.is_finite())
    }

    /// Finds the currents, and which nodes stay where they are.
    fn look(&mut self) -> Look {
        let Memory { force, held, live, .. } = &mut *self.memory;
        let largest = self.sample.currents(self.pull, self.v, live, force);
        for (k, held) in held.iter_mut().enumerate() {
            *held = self.sample.is_held(self.pull, k, self.v[k], force[k]);
        }
        let by_energy = self.sample.falls_by_energy(self.v, force);
        if by_energy != self.by_energy {
            self.by_energy = by_energy;
            self.find_merit();
        }
        let Memory { force, held, .. } = &*self.memory;
        let Sample { circuit, values, .. } = *self.sample;
        let free = force.iter().zip(held).enumerate().filter(|(_, (_, held))| !**held);
        let left_over =
            free.fold(0.0f64, |m, (k, (&f, _))| m.max(circuit.amperes(values, k, f).abs()));
        let highest = self.sample.highest(self.v);
        let precise = left_over == 0.0 || self.change <= SETTLED * highest;
        let enough = precise || (self.change <= LOOSE * highest && self.refined > 0);
        let status = if enough && left_over <= ENOUGH * largest {
            Status::Converged
        } else {
            Status::Unconverged
        };
        Look { largest, left_over, precise, status }
    }

    /// Whether nothing is left to gain by more steps. The first one tells whether anything
    /// determines the voltages at all.
    fn is_near(&self, look: &Look) -> bool {
        let gains = self.change < 0.5 * self.change_before;
        let refines = self.last && !look.precise && self.refined < REFINEMENTS && gains;
        ((look.left_over == 0.0 && self.steps > 0) || self.last) && !refines
    }

    /// Whether tangents and multipliers are right here; otherwise the search goes on with others.
    fn settles(&mut self, look: &Look) -> bool {
        let live = &mut self.memory.live;
        let is_beyond = self.cap.is_finite() && self.sample.is_beyond(self.v, live);
        if is_beyond {
            self.cap *= RAISE;
            self.sample.set_knees(self.cap, live);
        }
        let moved = self.sample.update_multipliers(self.v, live);
        // Where diodes neither conduct nor block, rounding errors go on moving them a little.
        let settled = moved <= FINE * look.largest
            || (moved <= ENOUGH * look.largest && moved > 0.5 * self.moved_before);
        self.moved_before = moved;
        if settled && !is_beyond {
            return true;
        }
        self.find_merit();
        (self.last, self.stuck, self.least) = (false, false, f64::INFINITY);
        (self.refined, self.change_before) = (0, f64::INFINITY);
        false
    }

    /// Notes how near the search has come.
    fn count(&mut self, look: &Look) {
        // At a kink steps may go to and fro within rounding errors.
        (self.least, self.idle) = if look.left_over < 0.5 * self.least {
            (look.left_over, 0)
        } else {
            (self.least, self.idle + 1)
        };
        if self.last {
            (self.refined, self.change_before) = (self.refined + 1, self.change);
        }
        self.last |= look.left_over <= TOLERANCE * look.largest
            || self.stuck
            || (look.left_over <= ENOUGH * look.largest && self.idle >= PATIENCE);
    }

    /// Finds the Newton step; false where nothing determines some voltage.
    fn find_step(&mut self) -> bool {
        let Memory { matrix, force, step, held, live, factor, stack, .. } = &mut *self.memory;
        self.sample.jacobian(self.pull, self.v, live, held, matrix);
        let pattern = &self.sample.circuit.pattern;
        if !pattern.factorise(matrix, factor, stack) {
            return false;
        }
        for ((step, &force), &held) in step.iter_mut().zip(&*force).zip(&*held) {
            *step = if held { 0.0 } else { -force };
        }
        pattern.solve(factor, step, 1, stack);
        self.steps += 1;
        true
    }

    /// Goes along the step as far as that is worth it; false where no part of it is, and the
    /// tolerance is not met.
    fn go(&mut self) -> bool {
        let (&Sample { circuit, values, .. }, Memory { force, step, next, left, live, .. }) =
            (self.sample, &mut *self.memory);
        // Branches are linear: a whole step makes their voltages right, and from there on the
        // energy says how far to go.
        let mut is_forced = circuit.reciprocal && !self.by_energy && self.steps == 1;
        let (mut length, mut halvings) = (1.0, 0);
        loop {
            let mut slope = if self.by_energy { 0.0 } else { -2.0 * length * self.merit };
            self.change = 0.0;
            for (k, next) in next.iter_mut().enumerate() {
                let (lo, hi) = circuit.walls[k];
                *next = (self.v[k] + length * step[k]).clamp(lo, hi);
                let change = circuit.volts(values, k, *next - self.v[k]);
                self.change = f64::max(self.change, change.abs());
                if self.by_energy && !circuit.is_current(k) {
                    slope += force[k] * (*next - self.v[k]);
                }
            }
            let (moved, rounding) = self.sample.merit(self.by_energy, self.pull, next, live, left);
            if is_forced || moved <= self.merit + SUFFICIENT * slope + rounding {
                self.merit = moved;
                self.v.copy_from_slice(next);
                let highest = circuit.highest(values, self.v);
                // Steps of a rounding error only shuffle.
                self.stuck = self.change <= 4.0 * f64::EPSILON * highest;
                return true;
            }
            if halvings == MAX_HALVINGS {
                if self.last || self.by_energy || self.forced == MAX_FORCED {
                    return self.last;
                }
                (length, self.forced, is_forced) = (1.0, self.forced + 1, true);
                continue;
            }
            (length, halvings) = (0.5 * length, halvings + 1);
        }
    }
}
