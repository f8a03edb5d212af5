//! Implicit differentiation: the exact gradient of the loss at the free steady state.
//!
//! There dE/ds = 0, so ds/dtheta = -H^-1 d2E/ds dtheta with H = d2E/ds2 over the units that are not
//! held at a wall, and dL/dtheta = -lambda . d2E/ds dtheta with H lambda = dL/ds (the implicit
//! function theorem).

use pnncore_kernels::Real;
use serde::Deserialize;

use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::Result;
use crate::plan::PhasePlan;
use crate::states::States;
use crate::system::{Abilities, Experiment, StateDerivatives, at_walls};

/// Implicit differentiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImplicitDifferentiation {}

impl MethodConfig for ImplicitDifferentiation {
    const NAME: &'static str = "ImplicitDifferentiation";
    const VARIANTS: &'static [(&'static str, Abilities)] =
        &[(Self::NAME, Abilities::STATE_DERIVATIVES)];

    fn compile<T: Real>(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        Ok(Box::new(Implicit { plan: PhasePlan::exact::<T>(setup.loss, setup.settling) }))
    }
}

/// The method, compiled.
#[derive(Debug)]
struct Implicit {
    plan: PhasePlan,
}

impl<T: Real> CompiledMethod<T> for Implicit {
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        _memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let experiment = Experiment { plan: &self.plan, ..*experiment };
        by_adjoint(&experiment, state, |system, states, frozen, error| {
            system.adjoint(experiment.params, experiment.batch, states, frozen, error)
        })
    }
}

/// Settles the free phase, and leaves the gradient that `adjoint` makes of the output errors there.
///
/// # Errors
/// What the physics may fail with.
pub(super) fn by_adjoint<T: Real>(
    experiment: &Experiment<'_, T>,
    state: &mut StepState<T>,
    adjoint: impl FnOnce(&dyn StateDerivatives<T>, &mut States<T>, &[bool], &[T]) -> Result<Vec<T>>,
) -> Result<StepResult> {
    let system = experiment.state_derivatives()?;
    let StepState { states, update, workspace, .. } = state;
    experiment.run(&mut [], states, workspace)?;
    let frozen = at_walls(system, experiment.params, states);
    let error = output_gradient(experiment, states, &frozen);
    let lambda = adjoint(system, states, &frozen, &error)?;
    system.contract(experiment, states, &lambda, workspace, update)?;
    Ok(StepResult::Gradient)
}

/// dL/ds: the gradient of the loss at the outputs, zero elsewhere and at frozen units.
fn output_gradient<T: Real>(
    experiment: &Experiment<'_, T>,
    states: &States<T>,
    frozen: &[bool],
) -> Vec<T> {
    let outputs = states.layout().outputs();
    let mut error = vec![T::ZERO; states.values.len()];
    let mut target = vec![T::ZERO; outputs.len()];
    for (r, row) in error.chunks_exact_mut(states.stride()).enumerate() {
        experiment.batch.y.write(r, &mut target);
        experiment.plan.loss.gradient(states.outputs(r), &target, &mut row[outputs.clone()]);
    }
    error.iter_mut().zip(frozen).filter(|(_, frozen)| **frozen).for_each(|(e, _)| *e = T::ZERO);
    error
}
