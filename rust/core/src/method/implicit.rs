//! Gradients through the steady state: implicit differentiation and recurrent backpropagation.
//!
//! At the free equilibrium dE/ds = 0, so ds/dtheta = -H^-1 d2E/ds dtheta with H = d2E/ds2 over the units that are not
//! held at a wall, and dL/dtheta = -lambda . d2E/ds dtheta with H lambda = dL/ds.

use pnncore_kernels::Real;
use pnncore_kernels::watch::poll;

use super::{Rule, Scratch};
use crate::Result;
use crate::batch::Batch;
use crate::lab::Lab;
use crate::params::Params;
use crate::system::{Exact, at_walls};
use crate::trial::{Plan, Trial};

pub(super) fn step<T: Real>(
    lab: &Lab,
    rule: &Rule,
    plan: &Plan,
    system: &dyn Exact<T>,
    params: &Params<'_, T>,
    batch: &Batch<'_, T>,
    scratch: &mut Scratch<T>,
) -> Result<()> {
    let Scratch { trial, update, workspace, .. } = scratch;
    trial.reset(batch.len(), 1, false);
    system.settle(lab, params, batch, plan, trial, workspace)?;
    let frozen = at_walls(system, params, trial);
    let error = output_gradient(batch, plan, trial, &frozen);
    let adjoint = match rule {
        Rule::RecurrentBackprop { steps } => relax(system, params, batch, trial, &frozen, &error, *steps)?,
        _ => system.adjoint(params, batch, trial, &frozen, &error)?,
    };
    system.contract(lab, params, batch, trial, &adjoint, workspace, update)
}

/// dL/ds: the gradient of the loss at the outputs, zero elsewhere and at frozen units.
fn output_gradient<T: Real>(batch: &Batch<'_, T>, plan: &Plan, trial: &Trial<T>, frozen: &[bool]) -> Vec<T> {
    let outputs = trial.layout().outputs();
    let mut error = vec![T::ZERO; trial.states.len()];
    let mut target = vec![T::ZERO; outputs.len()];
    for (r, row) in error.chunks_exact_mut(trial.stride()).enumerate() {
        batch.y.write(r, &mut target);
        plan.loss.gradient(trial.outputs(r), &target, &mut row[outputs.clone()]);
    }
    error.iter_mut().zip(frozen).filter(|(_, frozen)| **frozen).for_each(|(e, _)| *e = T::ZERO);
    error
}

/// lambda += M^-1 (e - H lambda), from zero.
fn relax<T: Real>(
    system: &dyn Exact<T>,
    params: &Params<'_, T>,
    batch: &Batch<'_, T>,
    trial: &Trial<T>,
    frozen: &[bool],
    error: &[T],
    steps: u32,
) -> Result<Vec<T>> {
    let mut curvature = vec![T::ONE; error.len()];
    system.curvature(params, batch, trial, &mut curvature)?;
    let mut lambda = vec![T::ZERO; error.len()];
    let mut product = vec![T::ZERO; error.len()];
    for _ in 0..steps {
        poll(8 * lambda.len());
        system.hessian_product(params, batch, trial, &lambda, &mut product)?;
        product.iter_mut().zip(error).for_each(|(p, &e)| *p = e - *p);
        system.share_tied(params, batch, trial, frozen, &mut product)?;
        for (k, l) in lambda.iter_mut().enumerate().filter(|(k, _)| !frozen[*k]) {
            *l += product[k] / curvature[k];
        }
    }
    Ok(lambda)
}
