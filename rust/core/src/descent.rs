//! Settling by descent: for energetic systems that do not know their own exact minimisers.
//!
//! Projected gradient descent with Barzilai-Borwein steps, guarded by a non-monotone line search (Birgin, Martinez,
//! Raydan, SIAM J. Optim. 10, 1196 (2000)). Every row has its own step length and stops by itself; energies and
//! gradients are asked for all rows at once. Phases with a complex nudge have no minimum to descend to: `chord` finds their
//! steady state from the free one.

mod chord;

use pnncore_kernels::Real;
use pnncore_kernels::watch::poll;

use crate::batch::Batch;
use crate::differences::{largest, within};
use crate::loss::Loss;
use crate::params::Params;
use crate::system::Exact;
use crate::trial::{Boundary, Outcome, Plan, Status, Trial};
use crate::{Error, Result};

/// Energies and their gradients over the rows of a trial.
pub trait Landscape<T: Real> {
    /// Writes the energy of every row.
    ///
    /// # Errors
    /// What the physics may fail with.
    fn energy(&self, trial: &Trial<T>, energy: &mut [f64]) -> Result<()>;

    /// Writes dE/ds of every row.
    ///
    /// # Errors
    /// What the physics may fail with.
    fn state_gradient(&self, trial: &Trial<T>, gradient: &mut [T]) -> Result<()>;

    /// Writes dE/ds of every row of a complex trial: real parts, then imaginary parts, as in the trial. Only asked of
    /// systems that say that they are holomorphic.
    ///
    /// # Errors
    /// [`Error::Capability`] unless it is overridden; what the physics may fail with.
    fn complex_gradient(&self, trial: &Trial<T>, gradient: &mut [T]) -> Result<()> {
        let _ = (trial, gradient);
        Err(Error::Capability("this system has no gradients at complex states".into()))
    }

    /// The interval that state `j` of layer `l` may take; infinite where there are no walls.
    fn interval(&self, l: usize, j: usize) -> (f64, f64);
}

/// A system with its parameters and a batch.
pub struct Landed<'a, T: Real> {
    /// The system.
    pub system: &'a dyn Exact<T>,
    /// Its parameters.
    pub params: &'a Params<'a, T>,
    /// The batch.
    pub batch: &'a Batch<'a, T>,
}

impl<T: Real> Landscape<T> for Landed<'_, T> {
    fn energy(&self, trial: &Trial<T>, energy: &mut [f64]) -> Result<()> {
        self.system.energy(self.params, self.batch, trial, energy)
    }

    fn state_gradient(&self, trial: &Trial<T>, gradient: &mut [T]) -> Result<()> {
        self.system.state_gradient(self.params, self.batch, trial, gradient)
    }

    fn interval(&self, l: usize, j: usize) -> (f64, f64) {
        self.system.interval(l, j)
    }
}

/// Accepted energies that the line search looks back on.
const WINDOW: usize = 8;
/// How much a refused step is shortened.
const SHORTEN: f64 = 0.25;
/// Refusals in a row after which a row is given up.
const MAX_REFUSALS: u32 = 60;
/// Steps of descent say little of how far soft modes have to go: inference, which has no displacement to stop by, wants
/// them smaller by this.
const CAUTION: f64 = 1e3;
/// States this large mean that the energy has no minimum.
const UNBOUNDED: f64 = 1e8;
/// The first step, and the range of steps.
const FIRST_STEP: f64 = 0.1;
const STEPS: (f64, f64) = (1e-10, 1e10);

/// Settles the free phase, then every other phase of the plan from the free state, as
/// [`Settling::settle`](crate::system::Settling::settle) asks.
///
/// # Errors
/// What the landscape fails with.
pub fn settle<T: Real>(
    landscape: &dyn Landscape<T>,
    batch: &Batch<'_, T>,
    plan: &Plan,
    trial: &mut Trial<T>,
) -> Result<()> {
    let outputs = trial.layout().outputs();
    let (mut target, mut spare) = (vec![T::ZERO; outputs.len()], vec![T::ZERO; outputs.len()]);
    let phases = trial.phases();
    let mut errors = vec![0.0; batch.len()];
    let mut pulls = vec![T::ZERO; batch.len() * outputs.len()];
    for group in [0..1, 1..phases] {
        if group.is_empty() {
            continue;
        }
        if group.start == 1 {
            for (i, error) in errors.iter_mut().enumerate() {
                let free = i * phases;
                if batch.y.write(i, &mut target) {
                    *error = plan.loss.error(trial.outputs(free), &target, &mut spare);
                    pulls[i * spare.len()..(i + 1) * spare.len()].copy_from_slice(&spare);
                }
                let (start, stride) = (free * trial.stride(), trial.stride());
                for p in group.clone() {
                    trial.outcomes[free + p].status = trial.outcomes[free].status;
                    trial.states.copy_within(start..start + stride, start + p * stride);
                    let row = trial.row_mut(free + p);
                    if let Boundary::Clamped(eta) = plan.boundary(p) {
                        for (o, &y) in row[outputs.clone()].iter_mut().zip(&target) {
                            *o += T::from_f64(eta) * (y - *o);
                        }
                    }
                }
            }
        }
        let rows: Vec<usize> =
            (0..trial.rows()).filter(|r| group.contains(&(r % phases)) && trial.outcomes[*r].status.usable()).collect();
        if trial.is_complex() && group.start == 1 {
            chord::settle(landscape, batch, plan, trial, &errors, rows)?;
        } else {
            Descent::new(landscape, batch, plan, trial, (&errors, &pulls))?.run(rows)?;
        }
    }
    Ok(())
}

/// What is known of a row on its way.
#[derive(Debug, Clone, Default)]
struct Walk {
    step: f64,
    energies: Vec<f64>,
    /// The last long steps: one over a curvature of the energy each, sooner or later one over the smallest.
    lengths: Vec<f64>,
    refusals: u32,
    accepted: u32,
}

struct Descent<'a, 't, T: Real> {
    landscape: &'a dyn Landscape<T>,
    batch: &'a Batch<'a, T>,
    plan: &'a Plan,
    trial: &'t mut Trial<T>,
    /// Of every sample at its free state: the largest output error, and the gradient of the loss.
    errors: &'a [f64],
    pulls: &'a [T],
    states: Vec<T>,
    force: Vec<T>,
    energy: Vec<f64>,
    next_force: Vec<T>,
    next_energy: Vec<f64>,
    walks: Vec<Walk>,
}

impl<'a, 't, T: Real> Descent<'a, 't, T> {
    fn new(
        landscape: &'a dyn Landscape<T>,
        batch: &'a Batch<'a, T>,
        plan: &'a Plan,
        trial: &'t mut Trial<T>,
        (errors, pulls): (&'a [f64], &'a [T]),
    ) -> Result<Self> {
        let (len, rows) = (trial.states.len(), trial.rows());
        Ok(Self {
            landscape,
            batch,
            plan,
            errors,
            pulls,
            states: vec![T::ZERO; len],
            force: vec![T::ZERO; len],
            energy: vec![0.0; rows],
            next_force: vec![T::ZERO; len],
            next_energy: vec![0.0; rows],
            walks: vec![Walk { step: FIRST_STEP, ..Walk::default() }; rows],
            trial,
        })
    }

    fn run(mut self, mut rows: Vec<usize>) -> Result<()> {
        for r in &rows {
            self.project(*r);
        }
        self.evaluate()?;
        std::mem::swap(&mut self.energy, &mut self.next_energy);
        std::mem::swap(&mut self.force, &mut self.next_force);
        while !rows.is_empty() {
            poll(64 * rows.len() * self.trial.stride());
            self.states.copy_from_slice(&self.trial.states);
            for &r in &rows {
                let step = T::from_f64(self.walks[r].step);
                let span = self.span(r);
                for (s, &f) in self.trial.states[span.clone()].iter_mut().zip(&self.force[span]) {
                    *s -= step * f;
                }
                self.project(r);
            }
            self.evaluate()?;
            rows.retain(|&r| match self.judge(r) {
                None => true,
                Some(status) => {
                    self.trial.outcomes[r].status = status;
                    if !status.usable() {
                        self.trial.row_mut(r).fill(T::ZERO);
                    }
                    false
                }
            });
        }
        Ok(())
    }

    fn span(&self, r: usize) -> std::ops::Range<usize> {
        r * self.trial.stride()..(r + 1) * self.trial.stride()
    }

    /// Puts a row back within its walls.
    fn project(&mut self, r: usize) {
        for l in 0..self.trial.layout().sizes().len() {
            let layer = self.trial.layout().layer(l);
            for (j, s) in self.trial.row_mut(r)[layer].iter_mut().enumerate() {
                let (lo, hi) = self.landscape.interval(l, j);
                *s = within(*s, lo, hi);
            }
        }
    }

    /// Energy and force of the nudged or clamped system at the trial's states.
    fn evaluate(&mut self) -> Result<()> {
        let layout = self.trial.layout().clone();
        self.landscape.energy(self.trial, &mut self.next_energy)?;
        self.landscape.state_gradient(self.trial, &mut self.next_force)?;
        let outputs = layout.outputs();
        let (mut target, mut pull) = (vec![T::ZERO; outputs.len()], vec![T::ZERO; outputs.len()]);
        for r in 0..self.trial.rows() {
            let span = self.span(r);
            let force = &mut self.next_force[span][outputs.clone()];
            match self.plan.boundary(r % self.trial.phases()) {
                Boundary::Free => {}
                Boundary::Clamped(_) => force.fill(T::ZERO),
                Boundary::Forced(strength) => {
                    let first = r / self.trial.phases() * outputs.len();
                    let own = &self.pulls[first..first + outputs.len()];
                    for ((f, &g), &o) in force.iter_mut().zip(own).zip(self.trial.outputs(r)) {
                        *f += T::from_f64(strength) * g;
                        self.next_energy[r] += strength * g.to_f64() * o.to_f64();
                    }
                }
                Boundary::Nudged(beta) => {
                    self.batch.y.write(r / self.trial.phases(), &mut target);
                    let loss: Loss = self.plan.loss;
                    self.next_energy[r] += beta.re * loss.value(self.trial.outputs(r), &target);
                    loss.gradient(self.trial.outputs(r), &target, &mut pull);
                    force.iter_mut().zip(&pull).for_each(|(f, &p)| *f += T::from_f64(beta.re) * p);
                }
            }
        }
        Ok(())
    }

    /// Takes or refuses the step of a row; the status if the row is done.
    fn judge(&mut self, r: usize) -> Option<Status> {
        let span = self.span(r);
        let walk = &mut self.walks[r];
        if walk.energies.is_empty() {
            walk.energies.push(self.energy[r]);
            if !self.energy[r].is_finite() || !largest(&self.force[span.clone()]).is_finite() {
                return Some(Status::Diverged);
            }
        }
        let highest = walk.energies.iter().fold(f64::NEG_INFINITY, |m, &e| m.max(e));
        let rounding = 16.0 * T::EPSILON.to_f64() * (1.0 + highest.abs());
        let next = self.next_energy[r];
        let finite = next.is_finite() && largest(&self.next_force[span.clone()]).is_finite();
        if !(finite && next <= highest + rounding) {
            self.trial.states[span.clone()].copy_from_slice(&self.states[span]);
            walk.step *= SHORTEN;
            walk.refusals += 1;
            if walk.refusals < MAX_REFUSALS {
                return None;
            }
            return Some(if finite { Status::Unconverged } else { Status::Diverged });
        }
        walk.refusals = 0;
        walk.accepted += 1;
        if walk.energies.len() == WINDOW {
            walk.energies.remove(0);
        }
        walk.energies.push(next);
        let (mut ss, mut sf, mut ff) = (0.0, 0.0, 0.0);
        for k in span.clone() {
            let ds = (self.trial.states[k] - self.states[k]).to_f64();
            let df = (self.next_force[k] - self.force[k]).to_f64();
            ss += ds * ds;
            sf += ds * df;
            ff += df * df;
        }
        let taken = walk.step;
        // Long and short Barzilai-Borwein steps take turns; along negative curvature the step grows.
        let long = if sf > 0.0 { ss / sf } else { 4.0 * taken };
        let short = if sf > 0.0 { sf / ff } else { 4.0 * taken };
        walk.step = (if walk.accepted.is_multiple_of(2) { long } else { short }).clamp(STEPS.0, STEPS.1);
        if ss == 0.0 {
            walk.step = taken;
        }
        if walk.lengths.len() == WINDOW {
            walk.lengths.remove(0);
        }
        walk.lengths.push(if ss > 0.0 { long } else { taken });
        let longest = walk.lengths.iter().fold(0.0, |m, &length| f64::max(m, length));
        self.force[span.clone()].copy_from_slice(&self.next_force[span.clone()]);
        self.energy[r] = next;
        let distance = self.distance(r, longest);
        if largest(self.trial.row(r)) > UNBOUNDED {
            return Some(Status::Unbounded);
        }
        self.trial.outcomes[r].sweep(distance);
        self.verdict(r)
    }

    /// How far a step of this length along the force would move the row: an estimate of the distance to the minimum.
    fn distance(&self, r: usize, step: f64) -> f64 {
        let span = self.span(r);
        let layout = self.trial.layout();
        let mut distance = 0.0f64;
        for l in 0..layout.sizes().len() {
            for (j, k) in layout.layer(l).enumerate() {
                let s = self.trial.row(r)[k];
                let (lo, hi) = self.landscape.interval(l, j);
                let moved = within(s - T::from_f64(step) * self.force[span.start + k], lo, hi);
                distance = distance.max_magnitude((moved - s).to_f64());
            }
        }
        distance
    }

    fn verdict(&self, r: usize) -> Option<Status> {
        let (i, p) = (r / self.trial.phases(), r % self.trial.phases());
        let boundary = self.plan.boundary(p);
        // The distance is an estimate already, and steps of descent need not shrink evenly.
        let mut outcome = Outcome { ratio: 0.0, growing: 0, ..self.trial.outcomes[r] };
        if self.plan.phases.is_empty() {
            outcome.change *= CAUTION;
        }
        self.plan.verdict::<T>(boundary, &outcome, || match boundary {
            Boundary::Free => {
                let outputs = self.trial.outputs(r);
                let (mut target, mut spare) = (vec![T::ZERO; outputs.len()], vec![T::ZERO; outputs.len()]);
                self.batch.y.write(i, &mut target).then(|| self.plan.loss.error(outputs, &target, &mut spare))
            }
            _ => Some(self.errors[i]),
        })
    }
}
