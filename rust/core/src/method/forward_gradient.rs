//! Forward gradients (Baydin et al. 2022): the mean over random directions of each times the slope
//! of the loss along it.
//!
//! Signals change along with the parameters, as the twins' Jacobians tell, and nothing goes back.

use pnncore_kernels::philox::Purpose;
use pnncore_kernels::{Real, add_scaled};
use serde::Deserialize;

use super::propagated::measure;
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::Result;
use crate::params::{ParamSpec, Params, cut};
use crate::settings::at_least;
use crate::settling::Settling;
use crate::system::stack::{Layers, Propagation};
use crate::system::{Abilities, Experiment, System};

/// Forward gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardGradient {
    /// Directions per step.
    pub directions: u32,
}

impl MethodConfig for ForwardGradient {
    const NAME: &'static str = "ForwardGradient";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::TWINS)];

    fn check(&self, _settling: &Settling) -> Result<()> {
        at_least("directions", self.directions, 1)
    }

    fn compile<T: Real>(&self, _setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        Ok(Box::new(*self))
    }
}

impl<T: Real> CompiledMethod<T> for ForwardGradient {
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        _memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let Experiment { runtime, batch, draw, .. } = *experiment;
        let stack = experiment.stack()?;
        measure(experiment, stack, state)?;
        let propagation = Propagation::of(&mut state.workspace)?;
        propagation.report(&mut state.states);
        experiment.seed_output_errors(propagation, &state.states)?;
        let (twin, same) = (Layers::Twin, stack.twins_are_exact());
        if !same {
            propagation.prepare_twins(experiment.at(stack), twin);
        }
        state.cost.operations +=
            u64::from(self.directions) * 2 * stack.operations() * batch.len() as u64;
        let n = stack.specs().iter().map(ParamSpec::len).sum();
        let (mut direction, mut gradient) = (vec![T::ZERO; n], vec![T::ZERO; n]);
        let random = runtime.random(Purpose::Direction);
        for k in 0..u64::from(self.directions) {
            draw.after(k).of(random).fill_normal(runtime.level(), 0, 0, &mut direction);
            let along = Params::shared(cut(stack.specs(), &direction));
            let slope = propagation.slope(experiment.at(stack), twin, same, &along)?;
            let share = T::from_f64(slope / f64::from(self.directions));
            add_scaled(runtime.level(), &direction, share, &mut gradient);
        }
        Ok(state.found_gradient(cut(stack.specs(), &gradient)))
    }
}
