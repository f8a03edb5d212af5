//! In-situ backpropagation: signals through the hardware, and errors back through it where it can
//! be run backwards.
//!
//! Light measures its gradient itself: see [`TapProtocol`]; so do networks that scatter, whose
//! derivatives are products of elements of the scattering matrix. Elsewhere errors go back through
//! the twin, at the signals that were measured.

use pnncore_kernels::Real;
use serde::Deserialize;

use super::propagated::{measure, send_back};
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::system::stack::{BackwardRule, Layers, LightProtocol, Stack, TapProtocol};
use crate::system::{Abilities, Experiment};
use crate::{Error, Result};

/// In-situ backpropagation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InSituBackprop {
    /// Which intensities are read where light passes; `None`: differences.
    pub protocol: Option<TapProtocol>,
}

impl MethodConfig for InSituBackprop {
    const NAME: &'static str = "InSituBackprop";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::TWINS)];

    fn compile<T: Real>(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        let has_taps = setup.system.as_stack().is_some_and(Stack::reads_intensities);
        if self.protocol.is_some() && !has_taps {
            return Err(Error::Config(
                "protocol is for stacks with monitors of intensities, such as those of MZIMesh, in \
                 every layer of a field: leave it out"
                    .into(),
            ));
        }
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
        let protocol = self.protocol.unwrap_or(TapProtocol::Difference);
        let samples = experiment.batch.len();
        if stack.goes_back() {
            state.cost.reversed += samples as u64;
        }
        if !stack.light().is_empty() {
            let passes = if stack.reads_intensities() { protocol.passes() } else { 0 };
            state.cost.add(passes, samples);
            state.cost.reads += (samples * stack.readings_of_light(protocol.reads())) as u64;
        }
        state.cost.reads += (samples * stack.scattering_read()) as u64;
        let plain = BackwardRule::of(Layers::Twin, stack.twins_are_exact());
        let rule = BackwardRule { in_situ: Some(LightProtocol::Backward(protocol)), ..plain };
        send_back(experiment, stack, &rule, state)
    }
}
