//! Gradients through the steady state: implicit differentiation and recurrent backpropagation.
//!
//! At the free equilibrium dE/ds = 0, so ds/dtheta = -H^-1 d2E/ds dtheta with H = d2E/ds2 over the units that are not
//! held at a wall, and dL/dtheta = -lambda . d2E/ds dtheta with H lambda = dL/ds. The last product is the derivative of
//! dE/dtheta along -lambda: a contrast of two states, like everything else here.

use num_complex::Complex;
use pnncore_kernels::Real;

use super::{Method, Scratch};
use crate::Result;
use crate::batch::Batch;
use crate::differences::{conjugate_gradients, largest};
use crate::lab::Lab;
use crate::params::Params;
use crate::system::Exact;
use crate::trial::{Outcome, Plan, Trial};

pub(super) fn step<T: Real>(
    lab: &Lab,
    method: &Method,
    plan: &Plan,
    system: &dyn Exact<T>,
    params: &Params<'_, T>,
    batch: &Batch<'_, T>,
    scratch: &mut Scratch<T>,
) -> Result<()> {
    let Scratch { trial, update, workspace } = scratch;
    trial.reset(batch.len(), 1, false);
    system.settle(lab, params, batch, plan, trial, workspace)?;
    let problem = Problem { system, params, batch, trial, frozen: frozen(system, trial) };
    let error = problem.output_gradient(plan);
    let adjoint = match method {
        Method::RecurrentBackprop { steps, .. } => problem.relax(&error, *steps)?,
        _ => problem.conjugate_gradients(&error)?,
    };
    let (probe, weights) = displaced(trial, &adjoint, system.local_step());
    *trial = probe;
    system.local_update(lab, params, batch, trial, &weights, workspace, update)
}

/// The units that are held at a wall.
fn frozen<T: Real>(system: &dyn Exact<T>, trial: &Trial<T>) -> Vec<bool> {
    let mut frozen = vec![true; trial.states.len()];
    for (r, frozen) in frozen.chunks_exact_mut(trial.stride()).enumerate() {
        for l in 0..trial.layout().sizes().len() {
            for (j, k) in trial.layout().layer(l).enumerate() {
                let (s, (lo, hi)) = (trial.row(r)[k].to_f64(), system.interval(l, j));
                frozen[k] = !trial.outcomes[r].status.usable() || s <= lo || s >= hi;
            }
        }
    }
    frozen
}

/// Three phases per sample: the free state, and the states a step along the adjoint to either side. With weights such
/// that their contrast is minus the derivative along the adjoint.
fn displaced<T: Real>(trial: &Trial<T>, adjoint: &[T], step: f64) -> (Trial<T>, Vec<Complex<f64>>) {
    let stride = trial.stride();
    let size = largest(adjoint);
    let step = if size > 0.0 { step / size } else { 1.0 };
    let mut probe = Trial::new(trial.layout().clone());
    probe.reset(trial.samples(), 3, false);
    for i in 0..trial.samples() {
        for (p, sign) in [0.0, 1.0, -1.0].into_iter().enumerate() {
            let r = 3 * i + p;
            let factor = T::from_f64(sign * step);
            let direction = &adjoint[i * stride..(i + 1) * stride];
            for ((m, &s), &d) in probe.row_mut(r).iter_mut().zip(trial.row(i)).zip(direction) {
                *m = s + factor * d;
            }
            // Only the free phase was settled.
            let outcome = trial.outcomes[i];
            probe.outcomes[r] = if p == 0 { outcome } else { Outcome { sweeps: 0, ..outcome } };
        }
    }
    let weight = Complex::new(0.5 / step, 0.0);
    (probe, vec![Complex::ZERO, -weight, weight])
}

/// H lambda = e over the free units of every row.
struct Problem<'a, T: Real> {
    system: &'a dyn Exact<T>,
    params: &'a Params<'a, T>,
    batch: &'a Batch<'a, T>,
    trial: &'a Trial<T>,
    frozen: Vec<bool>,
}

impl<T: Real> Problem<'_, T> {
    /// dL/ds: the gradient of the loss at the outputs, zero elsewhere.
    fn output_gradient(&self, plan: &Plan) -> Vec<T> {
        let outputs = self.trial.layout().outputs();
        let mut error = vec![T::ZERO; self.trial.states.len()];
        let mut target = vec![T::ZERO; outputs.len()];
        for (r, row) in error.chunks_exact_mut(self.trial.stride()).enumerate() {
            self.batch.y.write(r, &mut target);
            plan.loss.gradient(self.trial.outputs(r), &target, &mut row[outputs.clone()]);
        }
        self.project(&mut error);
        error
    }

    fn project(&self, v: &mut [T]) {
        v.iter_mut().zip(&self.frozen).filter(|(_, frozen)| **frozen).for_each(|(v, _)| *v = T::ZERO);
    }

    fn product(&self, v: &[T], product: &mut [T]) -> Result<()> {
        self.system.hessian_product(self.params, self.batch, self.trial, v, product)?;
        self.project(product);
        Ok(())
    }

    /// lambda += M^-1 (e - H lambda), from zero.
    fn relax(&self, error: &[T], steps: u32) -> Result<Vec<T>> {
        let mut curvature = vec![T::ONE; error.len()];
        self.system.curvature(self.params, self.batch, self.trial, &mut curvature)?;
        let mut lambda = vec![T::ZERO; error.len()];
        let mut product = vec![T::ZERO; error.len()];
        for _ in 0..steps {
            self.product(&lambda, &mut product)?;
            for (k, l) in lambda.iter_mut().enumerate().filter(|(k, _)| !self.frozen[*k]) {
                *l += (error[k] - product[k]) / curvature[k];
            }
        }
        Ok(lambda)
    }

    /// To the rounding error.
    fn conjugate_gradients(&self, error: &[T]) -> Result<Vec<T>> {
        let limit = 4 * self.trial.layout().sizes().iter().sum::<usize>().max(25);
        let tolerance = 4.0 * T::EPSILON.to_f64();
        conjugate_gradients(|v, product| self.product(v, product), error, self.trial.stride(), tolerance, limit)
    }
}
