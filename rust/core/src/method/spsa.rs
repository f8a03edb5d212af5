//! Simultaneous perturbation (Spall 1992): central differences along random directions of signs.

use pnncore_kernels::Real;
use pnncore_kernels::philox::Purpose;
use serde::Deserialize;

use super::candidates::{distance, flatten};
use super::pairs::{Pairs, add, known_pairs, make_mean, slope};
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::Result;
use crate::params::cut;
use crate::settings::{at_least, positive};
use crate::settling::Settling;
use crate::system::{Abilities, Experiment};

/// Simultaneous perturbation stochastic approximation.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SPSA {
    /// How far parameters are moved. `None`: a usual distance, where parameters have no units.
    pub epsilon: Option<f64>,
    /// Directions per step.
    pub directions: u32,
}

impl MethodConfig for SPSA {
    const NAME: &'static str = "SPSA";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::OUTPUTS)];

    fn check(&self, _settling: &Settling) -> Result<()> {
        positive("epsilon", self.epsilon.unwrap_or(1.0))?;
        at_least("directions", self.directions, 1)
    }

    fn compile<T: Real>(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        let epsilon = distance(Self::NAME, "epsilon", self.epsilon, 1e-2, setup.system)?;
        Ok(Box::new(Perturbations { epsilon, directions: self.directions }))
    }
}

/// The method, compiled.
#[derive(Debug)]
struct Perturbations {
    epsilon: f64,
    directions: u32,
}

impl<T: Real> CompiledMethod<T> for Perturbations {
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        _memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let Self { epsilon, directions } = *self;
        let base = flatten(experiment.params);
        let signs = |k: usize, direction: &mut [T]| signs(experiment, k, direction);
        let pairs = Pairs { count: directions as usize, reach: epsilon, draw: &signs };
        let mut gradient = vec![T::ZERO; base.len()];
        let mut known = 0;
        pairs.each(experiment, &base, state, |losses, directions| {
            let weights: Vec<T> = losses
                .iter()
                .map(|pair| slope(pair, epsilon * f64::from(pairs.count as u32)))
                .collect();
            known += known_pairs(losses);
            invert(experiment, &base, T::from_f64(epsilon), directions);
            add(experiment.runtime, &weights, directions, &mut gradient);
        })?;
        make_mean(pairs.count, known, &mut gradient);
        Ok(state.found_gradient(cut(experiment.system.specs(), &gradient)))
    }
}

/// Brings directions of signs to what a difference of losses is to be multiplied with: one over the
/// distance of the two candidates, in units of `2 reach`, which is less where a range cuts them
/// off. Zero where they do not differ.
fn invert<T: Real>(experiment: &Experiment<'_, T>, base: &[T], reach: T, directions: &mut [T]) {
    for (span, (lower, upper)) in experiment.bounded() {
        for direction in directions.chunks_exact_mut(base.len()) {
            for (d, &value) in direction[span.clone()].iter_mut().zip(&base[span.clone()]) {
                let [up, down] =
                    [value + reach * *d, value - reach * *d].map(|v| v.within(lower, upper));
                *d = if up == down { T::ZERO } else { (reach + reach) / (up - down) };
            }
        }
    }
}

/// Fills a direction with signs.
fn signs<T: Real>(experiment: &Experiment<'_, T>, k: usize, direction: &mut [T]) {
    let random = experiment.draw.after(k as u64).of(experiment.runtime.random(Purpose::Direction));
    for (block, signs) in direction.chunks_mut(128).enumerate() {
        let words = random.words(block as u64, 0);
        for (j, sign) in signs.iter_mut().enumerate() {
            *sign = if words[j / 32] >> (j % 32) & 1 == 1 { T::ONE } else { -T::ONE };
        }
    }
}
