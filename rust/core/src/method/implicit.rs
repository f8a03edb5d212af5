//! Gradients through the steady state: implicit differentiation and recurrent backpropagation.
//!
//! At the free equilibrium dE/ds = 0, so ds/dtheta = -H^-1 d2E/ds dtheta with H = d2E/ds2 over the units that are not
//! held at a wall, and dL/dtheta = -lambda . d2E/ds dtheta with H lambda = dL/ds.

use pnncore_kernels::Real;
use pnncore_kernels::watch::poll;

use super::{Rule, Scratch};
use crate::Result;
use crate::batch::Batch;
use crate::params::Params;
use crate::plan::PhasePlan;
use crate::runtime::Runtime;
use crate::states::States;
use crate::system::{StateDerivatives, at_walls};

pub(super) fn step<T: Real>(
    runtime: &Runtime,
    rule: &Rule,
    plan: &PhasePlan,
    system: &dyn StateDerivatives<T>,
    params: &Params<'_, T>,
    batch: &Batch<'_, T>,
    scratch: &mut Scratch<T>,
) -> Result<()> {
    let Scratch { states, update, workspace, .. } = scratch;
    states.reset(batch.len(), 1, false);
    system.settle(runtime, params, batch, plan, states, workspace)?;
    let frozen = at_walls(system, params, states);
    let error = output_gradient(batch, plan, states, &frozen);
    let adjoint = match rule {
        Rule::RecurrentBackprop { steps } => relax(system, params, batch, states, &frozen, &error, *steps)?,
        _ => system.adjoint(params, batch, states, &frozen, &error)?,
    };
    system.contract(runtime, params, batch, states, &adjoint, workspace, update)
}

/// dL/ds: the gradient of the loss at the outputs, zero elsewhere and at frozen units.
fn output_gradient<T: Real>(batch: &Batch<'_, T>, plan: &PhasePlan, states: &States<T>, frozen: &[bool]) -> Vec<T> {
    let outputs = states.layout().outputs();
    let mut error = vec![T::ZERO; states.values.len()];
    let mut target = vec![T::ZERO; outputs.len()];
    for (r, row) in error.chunks_exact_mut(states.stride()).enumerate() {
        batch.y.write(r, &mut target);
        plan.loss.gradient(states.outputs(r), &target, &mut row[outputs.clone()]);
    }
    error.iter_mut().zip(frozen).filter(|(_, frozen)| **frozen).for_each(|(e, _)| *e = T::ZERO);
    error
}

/// lambda += M^-1 (e - H lambda), from zero.
fn relax<T: Real>(
    system: &dyn StateDerivatives<T>,
    params: &Params<'_, T>,
    batch: &Batch<'_, T>,
    states: &States<T>,
    frozen: &[bool],
    error: &[T],
    steps: u32,
) -> Result<Vec<T>> {
    let mut curvature = vec![T::ONE; error.len()];
    system.curvature(params, batch, states, &mut curvature)?;
    let mut lambda = vec![T::ZERO; error.len()];
    let mut product = vec![T::ZERO; error.len()];
    for _ in 0..steps {
        poll(8 * lambda.len());
        system.hessian_product(params, batch, states, &lambda, &mut product)?;
        product.iter_mut().zip(error).for_each(|(p, &e)| *p = e - *p);
        system.share_tied(params, batch, states, frozen, &mut product)?;
        for (k, l) in lambda.iter_mut().enumerate().filter(|(k, _)| !frozen[*k]) {
            *l += product[k] / curvature[k];
        }
    }
    Ok(lambda)
}
