//! Physics-aware training (Wright et al. 2022): forward on the hardware, back through the Jacobians
//! of its digital twin.
//!
//! The twin's Jacobians are taken at the signals that were measured, so that errors of the twin do
//! not add up from layer to layer.

use pnncore_kernels::Real;
use serde::Deserialize;

use super::propagated::{measure, send_back};
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::Result;
use crate::system::stack::{BackwardRule, Layers};
use crate::system::{Abilities, Experiment};

/// Physics-aware training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhysicsAware {}

impl MethodConfig for PhysicsAware {
    const NAME: &'static str = "PhysicsAware";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::TWINS)];

    fn compile<T: Real>(&self, _setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        Ok(Box::new(*self))
    }
}

impl<T: Real> CompiledMethod<T> for PhysicsAware {
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        _memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let stack = experiment.stack()?;
        measure(experiment, stack, state)?;
        let rule = BackwardRule::of(Layers::Twin, stack.twins_are_exact());
        send_back(experiment, stack, &rule, state)
    }
}
