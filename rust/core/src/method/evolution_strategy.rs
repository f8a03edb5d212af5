//! Evolution strategies with antithetic Gaussian perturbations (Salimans et al. 2017).
//!
//! With adaptation they are PEPG (Sehnke et al. 2010), which adapts the deviation of every
//! parameter.

use pnncore_kernels::Real;
use pnncore_kernels::philox::Purpose;
use serde::Deserialize;

use super::candidates::{distance, flatten};
use super::pairs::{Pairs, add, known_pairs, make_mean, slope};
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::Result;
use crate::params::{ParamSpec, cut};
use crate::runtime::Runtime;
use crate::settings::{at_least, at_least_zero, positive};
use crate::settling::Settling;
use crate::system::{Abilities, Experiment, System};

/// The most that a deviation changes by in a step, as a fraction.
const MOST_ADAPTED: f64 = 0.2;

/// Evolution strategies.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvolutionStrategy {
    /// The standard deviation of perturbations; with adaptation, at first. `None`: a usual one,
    /// where parameters have no units.
    pub sigma: Option<f64>,
    /// Pairs of candidates per step.
    pub directions: u32,
    /// How fast deviations adapt; 0: not at all.
    pub adaptation: f64,
}

impl MethodConfig for EvolutionStrategy {
    const NAME: &'static str = "EvolutionStrategy";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::OUTPUTS)];

    fn check(&self, _settling: &Settling) -> Result<()> {
        positive("sigma", self.sigma.unwrap_or(1.0))?;
        at_least("directions", self.directions, 1)?;
        at_least_zero("adaptation", self.adaptation)
    }

    fn compile<T: Real>(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        let sigma = distance(Self::NAME, "sigma", self.sigma, 0.1, setup.system)?;
        Ok(Box::new(Evolution {
            sigma,
            directions: self.directions as usize,
            adaptation: self.adaptation,
        }))
    }
}

/// The method, compiled.
#[derive(Debug)]
struct Evolution {
    sigma: f64,
    directions: usize,
    adaptation: f64,
}

impl<T: Real> CompiledMethod<T> for Evolution {
    fn memory(&self, system: &dyn System<T>) -> Vec<ParamSpec> {
        let named = |spec: &ParamSpec| ParamSpec {
            name: format!("deviation/{}", spec.name),
            ..spec.clone()
        };
        if self.adaptation > 0.0 { system.specs().iter().map(named).collect() } else { Vec::new() }
    }

    fn writes_memory(&self) -> bool {
        self.adaptation > 0.0
    }

    fn initialise(&self, _runtime: &Runtime, _system: &dyn System<T>, memory: &mut [&mut [T]]) {
        memory.iter_mut().for_each(|array| array.fill(T::from_f64(self.sigma)));
    }

    /// Leaves the gradient of the mean loss of Gaussian candidates by their mean; deviations adapt
    /// to what it changes by them.
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let Self { sigma, directions: count, adaptation } = *self;
        let base = flatten(experiment.params);
        let n = base.len();
        let random = experiment.runtime.random(Purpose::Direction);
        let deviations: Vec<T> = if adaptation > 0.0 {
            memory.iter().flat_map(|array| array.iter()).copied().collect()
        } else {
            vec![T::from_f64(sigma); n]
        };
        let first = experiment.draw;
        let draw = |k: usize, direction: &mut [T]| {
            let level = experiment.runtime.level();
            first.after(k as u64).of(random).fill_normal(level, 0, 0, direction);
            let scaled = direction.iter_mut().zip(&deviations);
            level.vectorize(|| scaled.for_each(|(d, &deviation)| *d *= deviation));
        };
        let mut gradient = vec![T::ZERO; n];
        let mut known = 0;
        let mut spread = Spread::new(if adaptation > 0.0 { n } else { 0 });
        let tried = Pairs { count, reach: 1.0, draw: &draw };
        tried.each(experiment, &base, state, |losses, directions| {
            let weights: Vec<T> = losses.iter().map(|pair| slope(pair, count as f64)).collect();
            known += known_pairs(losses);
            add(experiment.runtime, &weights, directions, &mut gradient);
            spread.see(experiment.runtime, losses, directions);
        })?;
        make_mean(count, known, &mut gradient);
        for (g, &deviation) in gradient.iter_mut().zip(&deviations) {
            *g /= deviation * deviation;
        }
        make_up(experiment, &base, &deviations, &mut gradient);
        if adaptation > 0.0 {
            let mut changes = spread.changes(&deviations, adaptation);
            for array in memory.iter_mut() {
                let rest = changes.split_off(array.len());
                array
                    .iter_mut()
                    .zip(changes)
                    .for_each(|(deviation, factor)| *deviation *= T::from_f64(factor));
                changes = rest;
            }
        }
        Ok(state.found_gradient(cut(experiment.system.specs(), &gradient)))
    }
}

/// Makes up for what a range cuts off of Gaussian perturbations: the gradient of a linear loss is
/// divided by the mean product of a perturbation and the half distance of its two candidates, which
/// is that of the perturbation's square where nothing is cut off. With u the distance to an end in
/// standard deviations, each end leaves erf(u / sqrt 2) of its half.
fn make_up<T: Real>(
    experiment: &Experiment<'_, T>,
    base: &[T],
    deviations: &[T],
    gradient: &mut [T],
) {
    for (span, (lower, upper)) in experiment.bounded() {
        for j in span {
            let left = |end: T| {
                let distance = (end.to_f64() - base[j].to_f64()).abs();
                libm::erf(distance / deviations[j].to_f64() / std::f64::consts::SQRT_2)
            };
            let share = 0.5 * (left(lower) + left(upper));
            gradient[j] = if share > 0.0 { gradient[j] / T::from_f64(share) } else { T::ZERO };
        }
    }
}

/// How the mean losses of pairs go with the squares of their directions.
struct Spread<T> {
    means: Vec<f64>,
    /// The sum over pairs of d^2 and of mean loss times d^2.
    squares: Vec<T>,
    weighted: Vec<T>,
}

impl<T: Real> Spread<T> {
    fn new(n: usize) -> Self {
        Self { means: Vec::new(), squares: vec![T::ZERO; n], weighted: vec![T::ZERO; n] }
    }

    fn see(&mut self, runtime: &Runtime, losses: &[[f64; 2]], directions: &[T]) {
        if self.squares.is_empty() {
            return;
        }
        let squared: Vec<T> = directions.iter().map(|&d| d * d).collect();
        let means: Vec<f64> = losses.iter().map(|[plus, minus]| 0.5 * (plus + minus)).collect();
        let usable = |mean: &f64| if mean.is_finite() { *mean } else { 0.0 };
        let count: Vec<T> =
            means.iter().map(|m| if m.is_finite() { T::ONE } else { T::ZERO }).collect();
        add(runtime, &count, &squared, &mut self.squares);
        add(
            runtime,
            &means.iter().map(|m| T::from_f64(usable(m))).collect::<Vec<_>>(),
            &squared,
            &mut self.weighted,
        );
        self.means.extend(means.into_iter().filter(|m| m.is_finite()));
    }

    /// The factors of the deviations: a relative step against the derivative of the mean loss by
    /// the logarithm of each deviation, in units of the spread of losses (Sehnke et al. 2010, eq.
    /// 13).
    fn changes(&self, deviations: &[T], rate: f64) -> Vec<f64> {
        let count = self.means.len() as f64;
        let mean = self.means.iter().sum::<f64>() / count;
        let deviation = (self.means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / count).sqrt();
        if !(deviation > 0.0 && deviation.is_finite()) {
            return vec![1.0; deviations.len()];
        }
        let sums = self.squares.iter().zip(&self.weighted).zip(deviations);
        sums.map(|((&squares, &weighted), &own)| {
            let own = own.to_f64();
            let steep =
                (weighted.to_f64() - mean * squares.to_f64()) / (count * own * own * deviation);
            (-rate * steep).clamp(-MOST_ADAPTED, MOST_ADAPTED).exp()
        })
        .collect()
    }
}
