//! In-situ backpropagation: signals through the hardware, and errors back through it where it can
//! be run backwards.
//!
//! Elsewhere errors go back through the twin, at the signals that were measured.

use pnncore_kernels::Real;
use serde::Deserialize;

use super::propagated::{measure, send_back};
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::Result;
use crate::system::stack::{BackwardRule, Layers};
use crate::system::{Abilities, Experiment};

/// In-situ backpropagation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InSituBackprop {}

impl MethodConfig for InSituBackprop {
    const NAME: &'static str = "InSituBackprop";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::TWINS)];

    fn compile<T: Real>(&self, _setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        Ok(Box::new(*self))
    }
}

impl<T: Real> CompiledMethod<T> for InSituBackprop {
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        _memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let stack = experiment.stack()?;
        measure(experiment, stack, state)?;
        state.cost.reversed += experiment.batch.len() as u64;
        let plain = BackwardRule::of(Layers::Twin, stack.twins_are_exact());
        let rule = BackwardRule { reverse: true, ..plain };
        send_back(experiment, stack, &rule, state)
    }
}
