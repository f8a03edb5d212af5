//! Finite differences: central differences of the loss by every parameter.

use pnncore_kernels::Real;
use serde::Deserialize;

use super::candidates::{distance, flatten};
use super::pairs::{pair_of, slope};
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::Result;
use crate::params::cut;
use crate::settings::positive;
use crate::settling::Settling;
use crate::system::{Abilities, Experiment};

/// Central finite differences.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FiniteDifference {
    /// How far parameters are moved. `None`: a usual distance, where parameters have no units.
    pub epsilon: Option<f64>,
}

impl MethodConfig for FiniteDifference {
    const NAME: &'static str = "FiniteDifference";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::OUTPUTS)];

    fn check(&self, _settling: &Settling) -> Result<()> {
        positive("epsilon", self.epsilon.unwrap_or(1.0))
    }

    fn compile<T: Real>(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        let epsilon = distance(Self::NAME, "epsilon", self.epsilon, 1e-2, setup.system)?;
        Ok(Box::new(Differences { epsilon }))
    }
}

/// The method, compiled.
#[derive(Debug)]
struct Differences {
    epsilon: f64,
}

impl<T: Real> CompiledMethod<T> for Differences {
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        _memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let base = flatten(experiment.params);
        let StepState { candidates, cost, states, .. } = &mut *state;
        let moved = |c: usize, values: &mut [T]| {
            values[c / 2] +=
                T::from_f64(if c.is_multiple_of(2) { self.epsilon } else { -self.epsilon });
        };
        let losses =
            candidates.losses(experiment, &base, 2 * base.len(), cost, Some(states), moved)?;
        let mut places = [base.clone(), base.clone()];
        for (places, sign) in places.iter_mut().zip([1.0, -1.0]) {
            places.iter_mut().for_each(|value| *value += T::from_f64(sign * self.epsilon));
            experiment.keep_within(places);
        }
        // Where the range, or rounding, let the two candidates come to be.
        let apart = places[0].iter().zip(&places[1]).map(|(up, down)| up.to_f64() - down.to_f64());
        let slopes = losses
            .chunks_exact(2)
            .zip(apart)
            .map(|(pair, apart)| slope(&pair_of(pair), 0.5 * apart));
        let gradient: Vec<T> = slopes.collect();
        Ok(state.found_gradient(cut(experiment.system.specs(), &gradient)))
    }
}
