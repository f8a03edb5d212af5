//! Methods that breed: a population of candidates, of which the better ones make the next.

use faer::{Mat, Side};
use pnncore_kernels::Real;
use pnncore_kernels::philox::{Philox, Purpose};
use pnncore_kernels::watch::poll;

use super::candidates::{Experiment, comparable, flatten};
use super::rule::Rule;
use super::{Scratch, StepResult, StepState};
use crate::params::{ParamSpec, Params, cut};
use crate::{Error, Result};

/// Candidates of a step of CMA-ES in D dimensions, where nobody says how many.
fn default_population(dimensions: usize) -> usize {
    4 + (3.0 * (dimensions as f64).ln()).floor() as usize
}

/// The most parameters that covariances of all pairs are kept for.
const MOST_DIMENSIONS: usize = 500;

pub(super) fn memory(rule: &Rule, specs: &[ParamSpec]) -> Vec<ParamSpec> {
    let n: usize = specs.iter().map(ParamSpec::len).sum();
    let array = |name: &str, shape: Vec<usize>| ParamSpec { name: name.into(), shape };
    match *rule {
        Rule::CMAES { .. } => vec![
            array("covariance", vec![n, n]),
            array("covariance_path", vec![n]),
            array("step_path", vec![n]),
            array("sigma", vec![1]),
        ],
        Rule::GeneticAlgorithm { population, .. } => {
            vec![array("population", vec![population as usize, n]), array("born", vec![1])]
        }
        _ => Vec::new(),
    }
}

pub(super) fn initialise<T: Real>(rule: &Rule, memory: &mut [&mut [T]]) {
    match (rule, memory) {
        (Rule::CMAES { sigma: Some(sigma), .. }, [covariance, paths @ .., width]) => {
            let n = paths[0].len();
            covariance.fill(T::ZERO);
            covariance.iter_mut().step_by(n + 1).for_each(|own| *own = T::ONE);
            paths.iter_mut().for_each(|path| path.fill(T::ZERO));
            width.fill(T::from_f64(*sigma));
        }
        // The first step fills it, around the parameters of then.
        (Rule::GeneticAlgorithm { .. }, arrays) => arrays.iter_mut().for_each(|array| array.fill(T::ZERO)),
        _ => {}
    }
}

/// Refuses systems of too many parameters.
pub(super) fn check(rule: &Rule, specs: &[ParamSpec]) -> Result<()> {
    let n: usize = specs.iter().map(ParamSpec::len).sum();
    if matches!(rule, Rule::CMAES { .. }) && n > MOST_DIMENSIONS {
        return Err(Error::Config(format!(
            "CMAES keeps a covariance of all pairs of parameters, for at most {MOST_DIMENSIONS} of them; the system has {n}. \
             EvolutionStrategy(adaptation=...) has one deviation per parameter"
        )));
    }
    Ok(())
}

pub(super) fn step<T: Real>(
    experiment: Experiment<'_, T>,
    rule: &Rule,
    params: &Params<'_, T>,
    state: &mut StepState<'_, '_, T>,
    scratch: &mut Scratch<T>,
) -> Result<()> {
    let base = flatten(params);
    let random = experiment.draw.of(experiment.runtime.random(Purpose::Direction));
    let wanted = match *rule {
        Rule::CMAES { population, .. } => {
            let count = population.map_or_else(|| default_population(base.len()), |count| count as usize);
            adapt(experiment, &base, count, random, state, scratch)?
        }
        Rule::GeneticAlgorithm { population, mutation: Some(mutation) } => {
            breed(experiment, &base, population as usize, mutation, random, state, scratch)?
        }
        _ => return Err(Error::Capability("the method keeps no population".into())),
    };
    scratch.want(experiment.system.specs(), &wanted);
    Ok(())
}

/// Losses in ascending order: the places of candidates. What is not a number comes last.
fn ranked(losses: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..losses.len()).collect();
    let known = |i: usize| if losses[i].is_nan() { f64::INFINITY } else { losses[i] };
    order.sort_by(|&i, &j| known(i).total_cmp(&known(j)).then(i.cmp(&j)));
    order
}

/// A step of CMA-ES (Hansen, "The CMA evolution strategy: a tutorial", arXiv 1604.00772).
fn adapt<T: Real>(
    experiment: Experiment<'_, T>,
    base: &[T],
    count: usize,
    random: Philox,
    state: &mut StepState<'_, '_, T>,
    scratch: &mut Scratch<T>,
) -> Result<Vec<T>> {
    let n = base.len();
    let dims = n as f64;
    let [covariance, covariance_path, step_path, width] = &mut *state.memory else {
        return Err(Error::Shape("CMAES keeps four arrays".into()));
    };
    // Weights, and the constants of the tutorial's table 1.
    let parents = count / 2;
    let raw: Vec<f64> = (0..parents).map(|i| ((count as f64 + 1.0) / 2.0).ln() - (i as f64 + 1.0).ln()).collect();
    let total: f64 = raw.iter().sum();
    let weights: Vec<f64> = raw.iter().map(|w| w / total).collect();
    let effective = 1.0 / weights.iter().map(|w| w * w).sum::<f64>();
    let c_step = (effective + 2.0) / (dims + effective + 5.0);
    let damping = 1.0 + c_step + 2.0 * (((effective - 1.0) / (dims + 1.0)).sqrt() - 1.0).max(0.0);
    let c_path = (4.0 + effective / dims) / (dims + 4.0 + 2.0 * effective / dims);
    let c_one = 2.0 / ((dims + 1.3).powi(2) + effective);
    let c_many = (1.0 - c_one).min(2.0 * (effective - 2.0 + 1.0 / effective) / ((dims + 2.0).powi(2) + effective));
    let expected = dims.sqrt() * (1.0 - 1.0 / (4.0 * dims) + 1.0 / (21.0 * dims * dims));
    // C = B D^2 B^T.
    let matrix = Mat::from_fn(n, n, |i, j| 0.5 * (covariance[i * n + j] + covariance[j * n + i]).to_f64());
    let failed = |_| Error::Config("the covariance of CMAES is not finite: training diverged".into());
    let eigen = matrix.self_adjoint_eigen(Side::Lower).map_err(failed)?;
    let axes = eigen.U();
    let lengths: Vec<f64> = (0..n).map(|k| eigen.S()[k].max(0.0).sqrt()).collect();
    let sigma = width[0].to_f64();
    // y_c = B D z_c.
    let normals = Mat::from_fn(n, count, |k, c| {
        poll(64);
        lengths[k] * random.normal((c * n + k) as u64, 0)
    });
    let mut moves: Mat<f64> = axes * &normals;
    // What is learned of a candidate is learned where its range let it be.
    for (span, (lower, upper)) in experiment.bounded() {
        for (c, k) in (0..count).flat_map(|c| span.clone().map(move |k| (c, k))) {
            let wanted = base[k] + T::from_f64(sigma * moves[(k, c)]);
            let kept = wanted.within(lower, upper);
            if kept != wanted {
                moves[(k, c)] = (kept.to_f64() - base[k].to_f64()) / sigma;
            }
        }
    }
    let place = |c: usize, values: &mut [T]| {
        values.iter_mut().enumerate().for_each(|(k, value)| *value += T::from_f64(sigma * moves[(k, c)]));
    };
    let Scratch { candidates, cost, states, .. } = scratch;
    let losses = candidates.losses(experiment, base, count, cost, Some(states), place)?;
    let losses = comparable(&losses);
    if !losses.iter().any(|loss| loss.is_finite()) {
        // Nothing was learned: chance alone would choose the parents.
        return Ok(base.to_vec());
    }
    let best = &ranked(&losses)[..parents];
    let mean: Vec<f64> = (0..n).map(|k| best.iter().zip(&weights).map(|(&c, w)| w * moves[(k, c)]).sum()).collect();
    // Paths; the step's is whitened: C^-1/2 y = B D^-1 B^T y.
    let turned: Vec<f64> = (0..n)
        .map(|a| {
            let along: f64 = (0..n).map(|k| axes[(k, a)] * mean[k]).sum();
            if lengths[a] > 0.0 { along / lengths[a] } else { 0.0 }
        })
        .collect();
    let gain = (c_step * (2.0 - c_step) * effective).sqrt();
    let mut square = 0.0;
    for (k, path) in step_path.iter_mut().enumerate() {
        let white: f64 = (0..n).map(|a| axes[(k, a)] * turned[a]).sum();
        let moved = (1.0 - c_step) * path.to_f64() + gain * white;
        square += moved * moved;
        *path = T::from_f64(moved);
    }
    let fade = 1.0 - (1.0 - c_step).powf(2.0 * (state.step as f64 + 1.0));
    let steady = (square / fade).sqrt() / expected < 1.4 + 2.0 / (dims + 1.0);
    let gain = if steady { (c_path * (2.0 - c_path) * effective).sqrt() } else { 0.0 };
    for (path, &y) in covariance_path.iter_mut().zip(&mean) {
        *path = T::from_f64((1.0 - c_path) * path.to_f64() + gain * y);
    }
    let lost = if steady { 0.0 } else { c_path * (2.0 - c_path) };
    for i in 0..n {
        for j in 0..n {
            let own = covariance[i * n + j].to_f64();
            let rank_one = covariance_path[i].to_f64() * covariance_path[j].to_f64() + lost * own;
            let rank_many: f64 = best.iter().zip(&weights).map(|(&c, w)| w * moves[(i, c)] * moves[(j, c)]).sum();
            let kept = 1.0 - c_one - c_many;
            covariance[i * n + j] = T::from_f64(kept * own + c_one * rank_one + c_many * rank_many);
        }
    }
    width[0] = T::from_f64(sigma * ((c_step / damping) * (square.sqrt() / expected - 1.0)).min(1.0).exp());
    Ok(base.iter().zip(&mean).map(|(&value, y)| value + T::from_f64(sigma * y)).collect())
}

/// How many meet in a tournament.
const TOURNAMENT: u64 = 3;

/// Tries the population, and breeds the next: the best two survive, the others are children of winners of tournaments, mixed
/// parameter by parameter and mutated. Returns the best.
fn breed<T: Real>(
    experiment: Experiment<'_, T>,
    base: &[T],
    count: usize,
    mutation: f64,
    random: Philox,
    state: &mut StepState<'_, '_, T>,
    scratch: &mut Scratch<T>,
) -> Result<Vec<T>> {
    let n = base.len();
    let [population, born] = &mut *state.memory else {
        return Err(Error::Shape("GeneticAlgorithm keeps two arrays".into()));
    };
    let mutate = |value: T, c: usize, k: usize| {
        poll(64);
        value + T::from_f64(mutation * random.normal((c * n + k) as u64, 0))
    };
    if born[0] == T::ZERO {
        born[0] = T::ONE;
        for (c, own) in population.chunks_exact_mut(n).enumerate() {
            for (k, (value, &start)) in own.iter_mut().zip(base).enumerate() {
                *value = if c == 0 { start } else { mutate(start, c, k) };
            }
        }
    }
    population.chunks_exact_mut(n).for_each(|own| experiment.keep_within(own));
    let Scratch { candidates, cost, states, .. } = scratch;
    let given = &*population;
    let losses = candidates.losses(experiment, base, count, cost, Some(states), |c, values| {
        values.copy_from_slice(&given[c * n..(c + 1) * n]);
    })?;
    let order = ranked(&comparable(&losses));
    let mut rank = vec![0; count];
    order.iter().enumerate().for_each(|(place, &c)| rank[c] = place);
    let winner = |c: usize, side: u32| {
        let drawn = (0..TOURNAMENT).map(|k| random.below(count as u64, c as u64 * TOURNAMENT + k, 1 + side) as usize);
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
    Ok(next[..n].to_vec())
}

impl<T: Real> Scratch<T> {
    /// Leaves new values of all parameters, given one after the other.
    pub(super) fn want(&mut self, specs: &[ParamSpec], values: &[T]) {
        self.wanted.clear();
        self.wanted.extend(cut(specs, values).map(<[T]>::to_vec));
        self.found = StepResult::Change;
    }
}
