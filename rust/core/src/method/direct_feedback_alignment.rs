//! Direct feedback alignment (Nøkland 2016): the output error goes straight to every linear layer,
//! through fixed random matrices.
//!
//! Augmented (Nakajima et al. 2022): pointwise layers answer with another function than their
//! slope.

use pnncore_kernels::Real;
use serde::Deserialize;

use super::propagated::{draw_feedback, feedback_spec, measure, send_back};
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::Result;
use crate::params::ParamSpec;
use crate::runtime::Runtime;
use crate::system::stack::{BackwardRule, ErrorSignal, Layers, Stack, SurrogateDerivative};
use crate::system::{Abilities, Experiment, System};

/// Direct feedback alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectFeedbackAlignment {
    /// How pointwise layers answer.
    pub slope: SurrogateDerivative,
}

impl MethodConfig for DirectFeedbackAlignment {
    const NAME: &'static str = "DirectFeedbackAlignment";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::TWINS)];

    fn compile<T: Real>(&self, _setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        Ok(Box::new(*self))
    }
}

impl<T: Real> CompiledMethod<T> for DirectFeedbackAlignment {
    fn memory(&self, system: &dyn System<T>) -> Vec<ParamSpec> {
        let Some(stack) = system.as_stack() else { return Vec::new() };
        let outputs = stack.stages().last().map_or(0, |stage| stage.twin().outputs());
        let matrix = |l: usize| feedback_spec(l, outputs, stack.stages()[l].twin().outputs());
        feedback_targets(stack).into_iter().map(matrix).collect()
    }

    /// Draws the feedback matrices with variance 1 / outputs of the stack.
    fn initialise(&self, runtime: &Runtime, system: &dyn System<T>, memory: &mut [&mut [T]]) {
        draw_feedback(runtime, &self.memory(system), |(rows, _)| rows, memory);
    }

    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let stack = experiment.stack()?;
        measure(experiment, stack, state)?;
        let matrices: Vec<&[T]> = memory.iter().map(|array| &**array).collect();
        let rule = BackwardRule {
            error_signal: ErrorSignal::DirectFeedback(&matrices),
            slope: self.slope,
            ..BackwardRule::of(Layers::Twin, stack.twins_are_exact())
        };
        send_back(experiment, stack, &rule, state)
    }
}

/// The groups of layers to which the output error goes directly: the ends of all but the last.
fn feedback_targets<T: Real>(stack: &Stack<T>) -> Vec<usize> {
    let mut ends: Vec<usize> = stack.groups().iter().map(|group| group.end - 1).collect();
    ends.pop();
    ends
}
