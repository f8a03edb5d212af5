//! Forward mode learning: light measures its gradient without being sent back (Xue et al., Nature
//! 632, 280, 2024).
//!
//! Free space carries light both ways alike: its transfer equals its transpose. Errors are put on
//! the plane of a mask, pass to the next plane as signals do, and tell there what would have come
//! back; their field, times that of the signals, is the gradient. That is done layer by layer, from
//! the last one on, and what masks do to errors is multiplied in between, by what they are set to.

use pnncore_kernels::Real;
use serde::Deserialize;

use super::propagated::{measure, send_back};
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::Result;
use crate::system::stack::{BackwardRule, Layers, LightProtocol};
use crate::system::{Abilities, Experiment};

/// Forward mode learning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardModeLearning {}

impl MethodConfig for ForwardModeLearning {
    const NAME: &'static str = "ForwardModeLearning";
    const VARIANTS: &'static [(&'static str, Abilities)] =
        &[(Self::NAME, Abilities::TWINS.and(Abilities::SYMMETRIC_LIGHT))];

    fn compile<T: Real>(&self, _setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        Ok(Box::new(*self))
    }
}

impl<T: Real> CompiledMethod<T> for ForwardModeLearning {
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        _memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let stack = experiment.stack()?;
        measure(experiment, stack, state)?;
        let samples = experiment.batch.len();
        // Errors pass every layer of light by itself.
        state.cost.add(stack.light().iter().map(|run| run.len()).sum(), samples);
        state.cost.reads += (samples * stack.readings_of_light(0)) as u64;
        let plain = BackwardRule::of(Layers::Twin, stack.twins_are_exact());
        let rule = BackwardRule { in_situ: Some(LightProtocol::Forward), ..plain };
        send_back(experiment, stack, &rule, state)
    }
}
