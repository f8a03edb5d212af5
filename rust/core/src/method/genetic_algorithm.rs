//! A genetic algorithm: tournaments, uniform crossover, Gaussian mutation; the best two survive.

use pnncore_kernels::Real;
use pnncore_kernels::philox::Purpose;
use pnncore_kernels::watch::poll;
use serde::Deserialize;

use super::candidates::{comparable, distance, flatten, ranked};
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::params::{ParamSpec, cut, elements};
use crate::runtime::Runtime;
use crate::settings::{at_least, positive};
use crate::settling::Settling;
use crate::system::{Abilities, Experiment, System};
use crate::{Error, Result};

/// How many meet in a tournament.
const TOURNAMENT: u64 = 3;

/// A genetic algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneticAlgorithm {
    /// Candidates per step.
    pub population: u32,
    /// The standard deviation of mutations. `None`: a usual one, where parameters have no units.
    pub mutation: Option<f64>,
}

impl MethodConfig for GeneticAlgorithm {
    const NAME: &'static str = "GeneticAlgorithm";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::OUTPUTS)];

    fn check(&self, _settling: &Settling) -> Result<()> {
        positive("mutation", self.mutation.unwrap_or(1.0))?;
        at_least("population", self.population, 4)
    }

    fn compile<T: Real>(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        let mutation = distance(Self::NAME, "mutation", self.mutation, 0.05, setup.system)?;
        Ok(Box::new(Breeding { population: self.population as usize, mutation }))
    }
}

/// The method, compiled.
#[derive(Debug)]
struct Breeding {
    population: usize,
    mutation: f64,
}

impl<T: Real> CompiledMethod<T> for Breeding {
    fn memory(&self, system: &dyn System<T>) -> Vec<ParamSpec> {
        let n = system.specs().iter().map(ParamSpec::len).sum();
        let array = |name: &str, shape: Vec<usize>| ParamSpec { name: name.into(), shape };
        vec![array("population", vec![self.population, n]), array("born", vec![1])]
    }

    fn writes_memory(&self) -> bool {
        true
    }

    /// Zeros, written: memory that nobody has written comes page by page, which a step that is
    /// taken back would wait for.
    fn initialise(&self, _runtime: &Runtime, _system: &dyn System<T>, memory: &mut [&mut [T]]) {
        for chunk in memory.iter_mut().flat_map(|array| array.chunks_mut(1 << 16)) {
            poll(chunk.len());
            chunk.fill(T::ZERO);
        }
    }

    fn kept(&self, system: &dyn System<T>, _samples: usize) -> u128 {
        elements(system.specs()).saturating_mul(3 * self.population as u128)
    }

    /// Tries the population, and breeds the next: the best two survive, the others are children of
    /// winners of tournaments, mixed parameter by parameter and mutated. The first step fills it,
    /// around the parameters of then. Leaves the best.
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let Self { population: count, mutation } = *self;
        let base = flatten(experiment.params);
        let random = experiment.draw.of(experiment.runtime.random(Purpose::Direction));
        let n = base.len();
        let [population, born] = memory else {
            return Err(Error::Shape("GeneticAlgorithm keeps two arrays".into()));
        };
        let mutate = |value: T, c: usize, k: usize| {
            poll(64);
            value + T::from_f64(mutation * random.normal((c * n + k) as u64, 0))
        };
        if born[0] == T::ZERO {
            born[0] = T::ONE;
            for (c, own) in population.chunks_exact_mut(n).enumerate() {
                for (k, (value, &start)) in own.iter_mut().zip(&base).enumerate() {
                    *value = if c == 0 { start } else { mutate(start, c, k) };
                }
            }
        }
        population.chunks_exact_mut(n).for_each(|own| experiment.keep_within(own));
        let StepState { candidates, cost, states, .. } = &mut *state;
        let given = &*population;
        let losses =
            candidates.losses(experiment, &base, count, cost, Some(states), |c, values| {
                values.copy_from_slice(&given[c * n..(c + 1) * n]);
            })?;
        let order = ranked(&comparable(&losses));
        let mut rank = vec![0; count];
        order.iter().enumerate().for_each(|(place, &c)| rank[c] = place);
        let winner = |c: usize, side: u32| {
            let drawn = (0..TOURNAMENT)
                .map(|k| random.below(count as u64, c as u64 * TOURNAMENT + k, 1 + side) as usize);
            drawn.min_by_key(|&c| rank[c]).unwrap_or(0)
        };
        let elite = 2.min(count);
        let mut next = Vec::with_capacity(population.len());
        for c in 0..count {
            if c < elite {
                next.extend_from_slice(&population[order[c] * n..(order[c] + 1) * n]);
                continue;
            }
            let parents = [winner(c, 0), winner(c, 1)];
            next.extend((0..n).map(|k| {
                let coin = random.words((c * n + k) as u64, 3)[0] & 1;
                mutate(population[parents[coin as usize] * n + k], c, k)
            }));
        }
        population.copy_from_slice(&next);
        Ok(state.found_values(cut(experiment.system.specs(), &next[..n])))
    }
}
