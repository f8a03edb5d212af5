//! Recurrent backpropagation (Almeida 1987, Pineda 1987): the adjoint state relaxes for a number of
//! steps.
//!
//! At the steady state that is the same as backpropagation through that many steps of settling.

use pnncore_kernels::Real;
use pnncore_kernels::watch::poll;
use serde::Deserialize;

use super::implicit_differentiation::by_adjoint;
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::Result;
use crate::plan::PhasePlan;
use crate::settings::at_least;
use crate::settling::Settling;
use crate::states::States;
use crate::system::{Abilities, Experiment, StateDerivatives};

/// Recurrent backpropagation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecurrentBackprop {
    /// Steps of the adjoint.
    pub steps: u32,
}

impl MethodConfig for RecurrentBackprop {
    const NAME: &'static str = "RecurrentBackprop";
    const VARIANTS: &'static [(&'static str, Abilities)] =
        &[(Self::NAME, Abilities::STATE_DERIVATIVES.and(Abilities::RELAXATION))];

    fn check(&self, _settling: &Settling) -> Result<()> {
        at_least("steps", self.steps, 1)
    }

    fn compile<T: Real>(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        Ok(Box::new(Relaxation {
            plan: PhasePlan::exact::<T>(setup.loss, setup.settling),
            steps: self.steps,
        }))
    }
}

/// The method, compiled.
#[derive(Debug)]
struct Relaxation {
    plan: PhasePlan,
    steps: u32,
}

impl<T: Real> CompiledMethod<T> for Relaxation {
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        _memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let experiment = Experiment { plan: &self.plan, ..*experiment };
        by_adjoint(&experiment, state, |system, states, frozen, error| {
            relax(&experiment, system, states, frozen, error, self.steps)
        })
    }
}

/// lambda += M^-1 (e - H lambda), from zero.
fn relax<T: Real>(
    experiment: &Experiment<'_, T>,
    system: &dyn StateDerivatives<T>,
    states: &States<T>,
    frozen: &[bool],
    error: &[T],
    steps: u32,
) -> Result<Vec<T>> {
    let Experiment { params, batch, .. } = *experiment;
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
