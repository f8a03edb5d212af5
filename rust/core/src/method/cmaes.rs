//! Covariance matrix adaptation (CMA-ES; Hansen, "The CMA evolution strategy: a tutorial", arXiv
//! 1604.00772).

use faer::linalg::solvers::SelfAdjointEigen;
use faer::{Mat, Side};
use pnncore_kernels::Real;
use pnncore_kernels::philox::{Philox, Purpose};
use pnncore_kernels::watch::poll;
use serde::Deserialize;

use super::candidates::{comparable, distance, flatten, ranked};
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::params::{ParamSpec, cut};
use crate::runtime::Runtime;
use crate::settings::{at_least, positive};
use crate::settling::Settling;
use crate::system::{Abilities, Experiment, System};
use crate::{Error, Result};

/// The most parameters that covariances of all pairs are kept for.
const MOST_DIMENSIONS: usize = 500;

/// Covariance matrix adaptation.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CMAES {
    /// The standard deviation of candidates at first. `None`: a usual one, where parameters have no
    /// units.
    pub sigma: Option<f64>,
    /// Candidates per step; `None`: 4 + 3 ln D in D dimensions.
    pub population: Option<u32>,
}

impl MethodConfig for CMAES {
    const NAME: &'static str = "CMAES";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::OUTPUTS)];

    fn check(&self, _settling: &Settling) -> Result<()> {
        positive("sigma", self.sigma.unwrap_or(1.0))?;
        at_least("population", self.population.unwrap_or(4), 4)
    }

    fn compile<T: Real>(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        let sigma = distance(Self::NAME, "sigma", self.sigma, 0.3, setup.system)?;
        let dimensions: usize = setup.system.specs().iter().map(ParamSpec::len).sum();
        if dimensions > MOST_DIMENSIONS {
            return Err(Error::Config(format!(
                "CMAES keeps a covariance of all pairs of parameters, for at most \
                 {MOST_DIMENSIONS} of them; the system has {dimensions}. \
                 EvolutionStrategy(adaptation=...) has one deviation per parameter"
            )));
        }
        let usual = 4 + (3.0 * (dimensions as f64).ln()).floor() as usize;
        let population = self.population.map_or(usual, |population| population as usize);
        Ok(Box::new(Adaptation { sigma, population, dimensions }))
    }
}

/// The method, compiled.
#[derive(Debug)]
struct Adaptation {
    sigma: f64,
    population: usize,
    dimensions: usize,
}

impl<T: Real> CompiledMethod<T> for Adaptation {
    fn memory(&self, _system: &dyn System<T>) -> Vec<ParamSpec> {
        let n = self.dimensions;
        let array = |name: &str, shape: Vec<usize>| ParamSpec { name: name.into(), shape };
        vec![
            array("covariance", vec![n, n]),
            array("covariance_path", vec![n]),
            array("step_path", vec![n]),
            array("sigma", vec![1]),
        ]
    }

    fn writes_memory(&self) -> bool {
        true
    }

    fn initialise(&self, _runtime: &Runtime, _system: &dyn System<T>, memory: &mut [&mut [T]]) {
        if let [covariance, paths @ .., width] = memory {
            covariance.fill(T::ZERO);
            covariance.iter_mut().step_by(self.dimensions + 1).for_each(|own| *own = T::ONE);
            paths.iter_mut().for_each(|path| path.fill(T::ZERO));
            width.fill(T::from_f64(self.sigma));
        }
    }

    fn kept(&self, _system: &dyn System<T>, _samples: usize) -> u128 {
        let (dimensions, population) = (self.dimensions as u128, self.population as u128);
        dimensions.saturating_mul(4 * population + 8 * dimensions)
    }

    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let base = flatten(experiment.params);
        let random = experiment.draw.of(experiment.runtime.random(Purpose::Direction));
        let [covariance, covariance_path, step_path, width] = memory else {
            return Err(Error::Shape("CMAES keeps four arrays".into()));
        };
        let mut distribution = Distribution { covariance, covariance_path, step_path, width };
        let ellipsoid = Ellipsoid::of(&distribution)?;
        let moves = distribution.draw(experiment, &base, &ellipsoid, self.population, random);
        let sigma = distribution.sigma();
        let place = |c: usize, values: &mut [T]| {
            values
                .iter_mut()
                .enumerate()
                .for_each(|(k, value)| *value += T::from_f64(sigma * moves[(k, c)]));
        };
        let StepState { candidates, cost, states, .. } = &mut *state;
        let losses =
            candidates.losses(experiment, &base, self.population, cost, Some(states), place)?;
        let losses = comparable(&losses);
        let specs = experiment.system.specs();
        if !losses.iter().any(|loss| loss.is_finite()) {
            // Nothing was learned: chance alone would choose the parents.
            return Ok(state.found_values(cut(specs, &base)));
        }
        let constants = Constants::of(self.dimensions, self.population);
        let parents: Vec<Move> = ranked(&losses)
            .into_iter()
            .zip(&constants.weights)
            .map(|(candidate, &weight)| Move { candidate, weight })
            .collect();
        let n = self.dimensions;
        let mean: Vec<f64> = (0..n)
            .map(|k| parents.iter().map(|p| p.weight * moves[(k, p.candidate)]).sum())
            .collect();
        distribution.adapt(&constants, &ellipsoid, &moves, &parents, &mean, experiment.draw.step());
        let values: Vec<T> =
            base.iter().zip(&mean).map(|(&value, y)| value + T::from_f64(sigma * y)).collect();
        Ok(state.found_values(cut(specs, &values)))
    }
}

/// The constants of table 1 of the tutorial, by their names there.
struct Constants {
    /// w_i.
    weights: Vec<f64>,
    /// mu_eff.
    effective: f64,
    /// c_sigma.
    c_step: f64,
    /// d_sigma.
    damping: f64,
    /// c_c.
    c_path: f64,
    /// c_1.
    c_one: f64,
    /// c_mu.
    c_many: f64,
    /// The expected length of a standard normal vector.
    expected: f64,
}

impl Constants {
    fn of(dimensions: usize, population: usize) -> Self {
        let (dims, count) = (dimensions as f64, population as f64);
        let parents = population / 2;
        let raw: Vec<f64> =
            (0..parents).map(|i| ((count + 1.0) / 2.0).ln() - (i as f64 + 1.0).ln()).collect();
        let total: f64 = raw.iter().sum();
        let weights: Vec<f64> = raw.iter().map(|w| w / total).collect();
        let effective = 1.0 / weights.iter().map(|w| w * w).sum::<f64>();
        let c_step = (effective + 2.0) / (dims + effective + 5.0);
        let c_one = 2.0 / ((dims + 1.3).powi(2) + effective);
        let c_many = 2.0 * (effective - 2.0 + 1.0 / effective) / ((dims + 2.0).powi(2) + effective);
        Self {
            weights,
            effective,
            c_step,
            damping: 1.0
                + c_step
                + 2.0 * (((effective - 1.0) / (dims + 1.0)).sqrt() - 1.0).max(0.0),
            c_path: (4.0 + effective / dims) / (dims + 4.0 + 2.0 * effective / dims),
            c_one,
            c_many: (1.0 - c_one).min(c_many),
            expected: dims.sqrt() * (1.0 - 1.0 / (4.0 * dims) + 1.0 / (21.0 * dims * dims)),
        }
    }
}

/// A candidate among the parents of the next mean.
struct Move {
    candidate: usize,
    weight: f64,
}

/// The axes B and their lengths D of the covariance C = B D^2 B^T.
struct Ellipsoid {
    eigen: SelfAdjointEigen<f64>,
    lengths: Vec<f64>,
}

impl Ellipsoid {
    fn of<T: Real>(distribution: &Distribution<'_, T>) -> Result<Self> {
        let (covariance, n) = (&distribution.covariance, distribution.step_path.len());
        let matrix = Mat::from_fn(n, n, |i, j| {
            0.5 * (covariance[i * n + j] + covariance[j * n + i]).to_f64()
        });
        let failed =
            |_| Error::Config("the covariance of CMAES is not finite: training diverged".into());
        let eigen = matrix.self_adjoint_eigen(Side::Lower).map_err(failed)?;
        let lengths = (0..n).map(|k| eigen.S()[k].max(0.0).sqrt()).collect();
        Ok(Self { eigen, lengths })
    }

    /// C^-1/2 y = B D^-1 B^T y.
    fn whiten(&self, y: &[f64]) -> Vec<f64> {
        let (axes, n) = (self.eigen.U(), y.len());
        let turned: Vec<f64> = (0..n)
            .map(|a| {
                let along: f64 = (0..n).map(|k| axes[(k, a)] * y[k]).sum();
                if self.lengths[a] > 0.0 { along / self.lengths[a] } else { 0.0 }
            })
            .collect();
        (0..n).map(|k| (0..n).map(|a| axes[(k, a)] * turned[a]).sum()).collect()
    }
}

/// The normal distribution that candidates are drawn from, kept from step to step.
struct Distribution<'a, T> {
    covariance: &'a mut [T],
    covariance_path: &'a mut [T],
    step_path: &'a mut [T],
    width: &'a mut [T],
}

impl<T: Real> Distribution<'_, T> {
    fn sigma(&self) -> f64 {
        self.width[0].to_f64()
    }

    /// How far candidates are from the mean, in units of sigma, each in a column: y = B D z, cut
    /// off where ranges end: what is learned of a candidate is learned where its range let it be.
    fn draw(
        &self,
        experiment: &Experiment<'_, T>,
        base: &[T],
        ellipsoid: &Ellipsoid,
        count: usize,
        random: Philox,
    ) -> Mat<f64> {
        let (n, sigma) = (base.len(), self.sigma());
        let normals = Mat::from_fn(n, count, |k, c| {
            poll(64);
            ellipsoid.lengths[k] * random.normal((c * n + k) as u64, 0)
        });
        let mut moves: Mat<f64> = ellipsoid.eigen.U() * &normals;
        for (span, (lower, upper)) in experiment.bounded() {
            for (c, k) in (0..count).flat_map(|c| span.clone().map(move |k| (c, k))) {
                let wanted = base[k] + T::from_f64(sigma * moves[(k, c)]);
                let kept = wanted.within(lower, upper);
                if kept != wanted {
                    moves[(k, c)] = (kept.to_f64() - base[k].to_f64()) / sigma;
                }
            }
        }
        moves
    }

    /// Learns from the moves of the parents and their weighted mean: the paths first, then
    /// covariance and width.
    fn adapt(
        &mut self,
        constants: &Constants,
        ellipsoid: &Ellipsoid,
        moves: &Mat<f64>,
        parents: &[Move],
        mean: &[f64],
        step: u64,
    ) {
        let Constants { effective, c_step, damping, c_path, c_one, c_many, expected, .. } =
            *constants;
        let n = mean.len();
        let gain = (c_step * (2.0 - c_step) * effective).sqrt();
        let mut square = 0.0;
        for (path, white) in self.step_path.iter_mut().zip(ellipsoid.whiten(mean)) {
            let moved = (1.0 - c_step) * path.to_f64() + gain * white;
            square += moved * moved;
            *path = T::from_f64(moved);
        }
        let fade = 1.0 - (1.0 - c_step).powf(2.0 * (step as f64 + 1.0));
        let steady = (square / fade).sqrt() / expected < 1.4 + 2.0 / (n as f64 + 1.0);
        let gain = if steady { (c_path * (2.0 - c_path) * effective).sqrt() } else { 0.0 };
        for (path, &y) in self.covariance_path.iter_mut().zip(mean) {
            *path = T::from_f64((1.0 - c_path) * path.to_f64() + gain * y);
        }
        let lost = if steady { 0.0 } else { c_path * (2.0 - c_path) };
        for i in 0..n {
            for j in 0..n {
                let own = self.covariance[i * n + j].to_f64();
                let rank_one = self.covariance_path[i].to_f64() * self.covariance_path[j].to_f64()
                    + lost * own;
                let product =
                    |p: &Move| p.weight * moves[(i, p.candidate)] * moves[(j, p.candidate)];
                let rank_many: f64 = parents.iter().map(product).sum();
                let kept = 1.0 - c_one - c_many;
                self.covariance[i * n + j] =
                    T::from_f64(kept * own + c_one * rank_one + c_many * rank_many);
            }
        }
        let change = (c_step / damping) * (square.sqrt() / expected - 1.0);
        self.width[0] = T::from_f64(self.sigma() * change.min(1.0).exp());
    }
}
