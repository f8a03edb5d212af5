//! Settling by descent: for energetic systems that do not know their own exact minimisers.
//!
//! Projected gradient descent with Barzilai-Borwein steps, guarded by a non-monotone line search
//! (Birgin, Martinez, Raydan, SIAM J. Optim. 10, 1196 (2000)). Every row has its own step length
//! and stops by itself; energies and gradients are asked for all rows at once. Phases with a
//! complex nudge have no minimum to descend to: `chord` finds their steady state from the free one.

mod chord;

use pnncore_kernels::Real;
use pnncore_kernels::watch::poll;

use crate::batch::Batch;
use crate::differences::{largest, within};
use crate::plan::{Boundary, PhasePlan, Start, clamp_towards};
use crate::states::{Outcome, States, Status};
use crate::{Error, Result};

/// Energies and their gradients over rows of states.
pub trait Landscape<T: Real> {
    /// Writes the energy of every row.
    ///
    /// # Errors
    /// What the physics may fail with.
    fn energy(&self, states: &States<T>, energy: &mut [f64]) -> Result<()>;

    /// Writes dE/ds of every row.
    ///
    /// # Errors
    /// What the physics may fail with.
    fn state_gradient(&self, states: &States<T>, gradient: &mut [T]) -> Result<()>;

    /// Writes energies and dE/ds of some rows of real states, and may write those of others.
    ///
    /// # Errors
    /// What the physics may fail with.
    fn evaluate(
        &self,
        states: &States<T>,
        rows: &[usize],
        energy: &mut [f64],
        gradient: &mut [T],
        memory: &mut Picked<T>,
    ) -> Result<()> {
        let _ = (rows, memory);
        self.energy(states, energy)?;
        self.state_gradient(states, gradient)
    }

    /// Writes dE/ds of every row of complex states: real parts, then imaginary parts, as there.
    /// Only asked of systems that say that they are holomorphic.
    ///
    /// # Errors
    /// [`Error::Capability`] unless it is overridden; what the physics may fail with.
    fn complex_gradient(&self, states: &States<T>, gradient: &mut [T]) -> Result<()> {
        let _ = (states, gradient);
        Err(Error::Capability("this system has no gradients at complex states".into()))
    }

    /// The interval that state `j` of layer `l` may take; infinite where there are no walls.
    fn interval(&self, l: usize, j: usize) -> (f64, f64);

    /// The magnitudes of what states and energies are sums with: rounding errors are relative to
    /// these. Zero: to themselves.
    fn scales(&self) -> (f64, f64) {
        (0.0, 0.0)
    }
}

/// Accepted energies that the line search looks back on.
const WINDOW: usize = 8;
/// Long steps that estimates of distances look back on: the softest mode shows in few of them.
const LONG_STEPS: usize = 32;
/// How much a refused step is shortened.
const SHORTEN: f64 = 0.25;
/// Refusals in a row, and overflows in all, after which a row is given up.
const MAX_REFUSALS: u32 = 60;
/// Steps of descent say little of how far soft modes have to go: inference, which has no
/// displacement to stop by, wants them smaller by this.
const CAUTION: f64 = 1e3;
/// The same for phases, whose tolerance follows their displacement.
const CAUTION_OF_PHASES: f64 = 5.0;
/// Steps of descent that count as one sweep of block minimisers, where sweeps have a limit but no
/// given number.
const STEPS_PER_SWEEP: u32 = 10;
/// States that have grown by this factor since a row was on its way say that the energy has no
/// minimum.
const UNBOUNDED: f64 = 1e8;
/// The first step: in no unit the right one, but the change of the force along any step that
/// registers tells.
const FIRST_STEP: f64 = 0.1;
/// By how much a step grows that was too short to move any state.
const LENGTHEN: f64 = 1e4;
/// The most that the change of the force along a refused step may shorten the next one.
const SHORTEST: f64 = 1e-8;

/// Memory for rows that are picked from states.
#[derive(Debug, Default)]
pub struct Picked<T> {
    pub(crate) index: Vec<u64>,
    pub(crate) states: Option<States<T>>,
    pub(crate) energy: Vec<f64>,
    pub(crate) gradient: Vec<T>,
}

/// Memory of [`settle`], to be kept between calls.
#[derive(Debug, Default)]
pub struct Memory<T> {
    target: Vec<T>,
    spare: Vec<T>,
    /// Of every sample at its free state: the largest output error, and the gradient of the loss.
    errors: Vec<f64>,
    pulls: Vec<T>,
    rows: Vec<usize>,
    course: Course<T>,
}

/// Settles the free phase, then every other phase of the plan from the free state, as
/// [`Dynamics::run`](crate::system::Dynamics::run) asks.
///
/// # Errors
/// What the landscape fails with.
pub fn settle<T: Real>(
    landscape: &dyn Landscape<T>,
    batch: &Batch<'_, T>,
    plan: &PhasePlan,
    states: &mut States<T>,
    memory: &mut Memory<T>,
) -> Result<()> {
    let outputs = states.layout().outputs();
    let phases = states.phases();
    let Memory { target, spare, errors, pulls, rows, course } = memory;
    renew(target, outputs.len(), T::ZERO);
    renew(spare, outputs.len(), T::ZERO);
    renew(errors, batch.len(), 0.0);
    renew(pulls, batch.len() * outputs.len(), T::ZERO);
    for group in [0..1, 1..phases] {
        if group.is_empty() {
            continue;
        }
        if group.start == 1 {
            for (i, error) in errors.iter_mut().enumerate() {
                let free = i * phases;
                if batch.y.write(i, target) {
                    *error = plan.loss.error(states.outputs(free), target, spare);
                    pulls[i * spare.len()..(i + 1) * spare.len()].copy_from_slice(spare);
                }
                let (start, stride) = (free * states.stride(), states.stride());
                for p in group.clone() {
                    states.outcomes[free + p].status = states.outcomes[free].status;
                    states.values.copy_within(start..start + stride, start + p * stride);
                    let row = states.row_mut(free + p);
                    if let Boundary::Clamped(eta) = plan.boundary(p) {
                        clamp_towards(eta, target, &mut row[outputs.clone()]);
                    }
                }
            }
        }
        let usable =
            |r: &usize| group.contains(&(r % phases)) && states.outcomes[*r].status.usable();
        rows.clear();
        rows.extend((0..states.rows()).filter(usable));
        if states.is_complex() && group.start == 1 {
            chord::settle(landscape, batch, plan, states, rows)?;
        } else {
            course.begin(states);
            let mut descent =
                Descent { landscape, batch, plan, states, errors, pulls, own: course };
            descent.run(rows)?;
        }
    }
    Ok(())
}

/// Makes `values` so many times `value`.
fn renew<E: Copy>(values: &mut Vec<E>, len: usize, value: E) {
    values.clear();
    values.resize(len, value);
}

/// What is known of a row on its way.
#[derive(Debug, Clone, Default)]
struct Walk {
    step: f64,
    energies: Vec<f64>,
    /// The largest magnitude of an energy so far.
    highest: f64,
    /// The last long steps: one over a curvature of the energy each, sooner or later one over the
    /// smallest.
    lengths: Vec<f64>,
    /// The shortest of the short steps: about one over the largest curvature.
    shortest: f64,
    refusals: u32,
    /// Steps in all to where energies or forces are not finite, and steps too short to register.
    overflows: u32,
    idle: u32,
    accepted: u32,
    /// The largest state when the row was well on its way.
    size: f64,
}

impl Walk {
    /// Begins anew, in the same memory.
    fn begin(&mut self) {
        let Self { mut energies, mut lengths, .. } = std::mem::take(self);
        energies.clear();
        energies.reserve_exact(WINDOW);
        lengths.clear();
        lengths.reserve_exact(LONG_STEPS);
        let (step, shortest) = (FIRST_STEP, f64::INFINITY);
        *self = Self { step, shortest, energies, lengths, ..Self::default() };
    }

    /// Keeps the last values.
    fn remember(values: &mut Vec<f64>, window: usize, value: f64) {
        if values.len() == window {
            values.remove(0);
        }
        values.push(value);
    }

    /// Takes note of an energy. From given states, which may be far off, only the last ones count.
    fn see_energy(&mut self, energy: f64, is_given: bool) {
        Self::remember(&mut self.energies, WINDOW, energy);
        self.highest = if is_given {
            self.energies.iter().fold(0.0, |m, e| m.max(e.abs()))
        } else {
            self.highest.max(energy.abs())
        };
    }

    /// Takes note of a step that was made, by products of the changes of states and forces, and
    /// chooses the next one.
    fn accept(&mut self, Products { ss, sf, ff }: Products) {
        self.refusals = 0;
        self.accepted += 1;
        let taken = self.step;
        if ss == 0.0 {
            // Too short to register, or nothing is left to move.
            self.idle += 1;
            if self.lengths.is_empty() {
                self.step = taken * LENGTHEN;
            }
            return;
        }
        // Long and short Barzilai-Borwein steps take turns; along negative curvature the step
        // grows.
        let (long, short) = if sf > 0.0 { (ss / sf, sf / ff) } else { (4.0 * taken, 4.0 * taken) };
        let next = if self.accepted.is_multiple_of(2) { long } else { short };
        self.step = if next.is_finite() && next > 0.0 { next } else { taken };
        if sf > 0.0 {
            self.shortest = self.shortest.min(short);
        }
        Self::remember(&mut self.lengths, LONG_STEPS, long);
    }

    /// Shortens a step that raised the energy, to where the force along it would vanish if it
    /// changed evenly.
    fn refuse(&mut self, Products { ss, sf, .. }: Products) {
        self.refusals += 1;
        let level = if sf > 0.0 && sf.is_finite() { ss / sf / self.step } else { SHORTEN };
        self.step *= level.clamp(SHORTEST, SHORTEN);
    }

    /// The longest of the last long steps.
    fn longest(&self, steps: usize) -> f64 {
        self.lengths.iter().rev().take(steps).fold(0.0, |m, &length| f64::max(m, length))
    }
}

/// Products of the changes of states s and forces f along a step.
#[derive(Debug, Clone, Copy)]
struct Products {
    ss: f64,
    sf: f64,
    ff: f64,
}

struct Descent<'a, 't, T: Real> {
    landscape: &'a dyn Landscape<T>,
    batch: &'a Batch<'a, T>,
    plan: &'a PhasePlan,
    states: &'t mut States<T>,
    /// Of every sample at its free state: the largest output error, and the gradient of the loss.
    errors: &'a [f64],
    pulls: &'a [T],
    own: &'t mut Course<T>,
}

/// Where descents of all rows are, and where they try to go.
#[derive(Debug, Default)]
struct Course<T> {
    /// The states that the steps under way began from.
    accepted: Vec<T>,
    force: Vec<T>,
    energy: Vec<f64>,
    next_force: Vec<T>,
    next_energy: Vec<f64>,
    walks: Vec<Walk>,
    target: Vec<T>,
    pull: Vec<T>,
    picked: Picked<T>,
}

impl<T: Real> Course<T> {
    fn begin(&mut self, states: &States<T>) {
        let (len, rows) = (states.values.len(), states.rows());
        for values in [&mut self.accepted, &mut self.force, &mut self.next_force] {
            renew(values, len, T::ZERO);
        }
        for outputs in [&mut self.target, &mut self.pull] {
            renew(outputs, states.layout().outputs().len(), T::ZERO);
        }
        renew(&mut self.energy, rows, 0.0);
        renew(&mut self.next_energy, rows, 0.0);
        self.walks.resize_with(rows, Walk::default);
        self.walks.iter_mut().for_each(Walk::begin);
    }
}

impl<T: Real> Descent<'_, '_, T> {
    fn run(&mut self, rows: &mut Vec<usize>) -> Result<()> {
        for r in &*rows {
            self.project(*r);
        }
        self.evaluate(rows)?;
        std::mem::swap(&mut self.own.energy, &mut self.own.next_energy);
        std::mem::swap(&mut self.own.force, &mut self.own.next_force);
        while !rows.is_empty() {
            poll(64 * rows.len() * self.states.stride());
            self.own.accepted.copy_from_slice(&self.states.values);
            for &r in &*rows {
                let step = T::from_f64(self.own.walks[r].step);
                let span = self.span(r);
                for (s, &f) in
                    self.states.values[span.clone()].iter_mut().zip(&self.own.force[span])
                {
                    *s -= step * f;
                }
                self.project(r);
            }
            self.evaluate(rows)?;
            rows.retain(|&r| match self.judge(r) {
                None => true,
                Some(status) => {
                    self.states.outcomes[r].status = status;
                    if !status.usable() {
                        self.states.row_mut(r).fill(T::ZERO);
                    }
                    false
                }
            });
        }
        Ok(())
    }

    fn span(&self, r: usize) -> std::ops::Range<usize> {
        r * self.states.stride()..(r + 1) * self.states.stride()
    }

    /// Puts a row back within its walls.
    fn project(&mut self, r: usize) {
        for l in 0..self.states.layout().sizes().len() {
            let layer = self.states.layout().layer(l);
            for (j, s) in self.states.row_mut(r)[layer].iter_mut().enumerate() {
                let (lo, hi) = self.landscape.interval(l, j);
                *s = within(*s, lo, hi);
            }
        }
    }

    /// Energy and force of the nudged or clamped system at the states of some rows.
    fn evaluate(&mut self, rows: &[usize]) -> Result<()> {
        let Self { landscape, batch, plan, states, pulls, own, .. } = self;
        let Course { next_energy: energy, next_force, target, pull, picked, .. } = &mut **own;
        landscape.evaluate(states, rows, energy, next_force, picked)?;
        let (outputs, phases, stride) =
            (states.layout().outputs(), states.phases(), states.stride());
        for &r in rows {
            let force = &mut next_force[r * stride..(r + 1) * stride][outputs.clone()];
            match plan.boundary(r % phases) {
                Boundary::Free | Boundary::Kicked(_) => {}
                Boundary::Clamped(_) => force.fill(T::ZERO),
                Boundary::Forced(strength) => {
                    let first = r / phases * outputs.len();
                    let own = &pulls[first..first + outputs.len()];
                    for ((f, &g), &o) in force.iter_mut().zip(own).zip(states.outputs(r)) {
                        *f += T::from_f64(strength) * g;
                        energy[r] += strength * g.to_f64() * o.to_f64();
                    }
                }
                Boundary::Nudged(beta) => {
                    batch.y.write(r / phases, target);
                    energy[r] += beta.re * plan.loss.value(states.outputs(r), target);
                    plan.loss.gradient(states.outputs(r), target, pull);
                    force.iter_mut().zip(&*pull).for_each(|(f, &p)| *f += T::from_f64(beta.re) * p);
                }
            }
        }
        Ok(())
    }

    /// The products of the changes along the step of a row that was tried.
    fn products(&self, r: usize) -> Products {
        let mut products = Products { ss: 0.0, sf: 0.0, ff: 0.0 };
        for k in self.span(r) {
            let ds = (self.states.values[k] - self.own.accepted[k]).to_f64();
            let df = (self.own.next_force[k] - self.own.force[k]).to_f64();
            products.ss += ds * ds;
            products.sf += ds * df;
            products.ff += df * df;
        }
        products
    }

    /// Takes or refuses the step of a row; the status if the row is done.
    fn judge(&mut self, r: usize) -> Option<Status> {
        let span = self.span(r);
        let products = self.products(r);
        let offset = self.landscape.scales().1;
        let is_given = self.plan.phase(r % self.states.phases()).start == Start::Given;
        let walk = &mut self.own.walks[r];
        if walk.energies.is_empty() {
            walk.energies.push(self.own.energy[r]);
            walk.highest = self.own.energy[r].abs();
            if !self.own.energy[r].is_finite()
                || !largest(&self.own.force[span.clone()]).is_finite()
            {
                return Some(Status::Diverged);
            }
        }
        let bound = walk.energies.iter().fold(f64::NEG_INFINITY, |m, &e| m.max(e));
        let rounding = 16.0 * (T::EPSILON.to_f64() * walk.highest + f64::EPSILON * offset);
        let next = self.own.next_energy[r];
        let finite = next.is_finite() && largest(&self.own.next_force[span.clone()]).is_finite();
        if !(finite && next <= bound + rounding) {
            self.states.values[span.clone()].copy_from_slice(&self.own.accepted[span]);
            walk.refuse(products);
            walk.overflows += u32::from(!finite);
            if walk.refusals.max(walk.overflows) < MAX_REFUSALS {
                return None;
            }
            // The energy says no more; what is left to go is what it was.
            let done = self.verdict(r).filter(|_| self.own.walks[r].accepted > 0);
            return Some(if finite {
                done.unwrap_or(Status::Unconverged)
            } else {
                Status::Diverged
            });
        }
        walk.accept(products);
        walk.see_energy(next, is_given);
        let registers = !walk.lengths.is_empty() || walk.idle >= MAX_REFUSALS;
        self.own.force[span.clone()].copy_from_slice(&self.own.next_force[span.clone()]);
        self.own.energy[r] = next;
        let size = largest(self.states.row(r));
        let walk = &mut self.own.walks[r];
        if walk.lengths.len() < WINDOW {
            walk.size = walk.size.max(size);
        } else if size > UNBOUNDED * walk.size {
            return Some(Status::Unbounded);
        }
        if !registers && self.distance(r, f64::MAX.sqrt()) > 0.0 {
            return None;
        }
        // Inference is cautious enough.
        let steps = if self.plan.phases.is_empty() { WINDOW } else { LONG_STEPS };
        let distance = self.distance(r, self.own.walks[r].longest(steps));
        let outcome = &mut self.states.outcomes[r];
        outcome.sweep(distance);
        // Given states may be far larger than those where the row comes to rest.
        outcome.magnitude = if is_given { size } else { outcome.magnitude.max(size) };
        outcome.rounding = f64::EPSILON * self.landscape.scales().0;
        self.verdict(r)
    }

    /// How far a step of this length along the force would move the row: an estimate of the
    /// distance to the minimum.
    fn distance(&self, r: usize, step: f64) -> f64 {
        let span = self.span(r);
        let layout = self.states.layout();
        let mut distance = 0.0f64;
        for l in 0..layout.sizes().len() {
            for (j, k) in layout.layer(l).enumerate() {
                let s = self.states.row(r)[k].to_f64();
                let (lo, hi) = self.landscape.interval(l, j);
                let moved = within(s - step * self.own.force[span.start + k].to_f64(), lo, hi);
                distance = distance.max_magnitude(moved - s);
            }
        }
        distance
    }

    fn verdict(&mut self, r: usize) -> Option<Status> {
        let Self { batch, plan, states, errors, own, .. } = self;
        let Course { walks, target, pull, .. } = &mut **own;
        let (i, p) = (r / states.phases(), r % states.phases());
        let boundary = plan.boundary(p);
        // The distance is an estimate already, and steps of descent need not shrink evenly.
        let caution = if plan.phases.is_empty() { CAUTION } else { CAUTION_OF_PHASES };
        let steps = states.outcomes[r].sweeps;
        let sweeps = if plan.settling.stop.is_free() { steps / STEPS_PER_SWEEP } else { steps };
        let ratio = caution / (1.0 + caution);
        let outcome = Outcome { ratio, growing: 0, sweeps, ..states.outcomes[r] };
        plan.verdict::<T>(boundary, &outcome, 1.0, || match boundary {
            Boundary::Free => {
                // A nudge moves the outputs by at least this.
                let walk = &walks[r];
                let softness = if walk.shortest.is_finite() {
                    walk.shortest
                } else {
                    walk.longest(LONG_STEPS)
                };
                let reach = plan.reach(boundary, softness)?;
                let known = batch.y.write(i, target);
                known.then(|| reach * plan.loss.error(states.outputs(r), target, pull))
            }
            Boundary::Clamped(eta) => Some(eta.abs() * errors[i]),
            Boundary::Kicked(_) => None,
            Boundary::Nudged(_) | Boundary::Forced(_) => {
                let moved = states.row(r).iter().zip(states.row(r - p));
                Some(moved.fold(T::ZERO, |m, (&s, &free)| m.max_magnitude(s - free)).to_f64())
            }
        })
    }
}
