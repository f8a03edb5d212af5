//! Methods that only look at the loss.

use pnncore_kernels::Real;
use pnncore_kernels::gemm::{Strided, multiply};
use pnncore_kernels::philox::Purpose;
use pnncore_kernels::sparse::Dense;
use rayon::prelude::*;

use super::candidates::{CandidateLoss, Experiment, comparable, flatten};
use super::rule::Rule;
use super::{Scratch, StepState, population};
use crate::batch::Batch;
use crate::draw::DrawIndex;
use crate::params::{ParamSpec, Params};
use crate::plan::PhasePlan;
use crate::runtime::Runtime;
use crate::states::States;
use crate::system::{System, infer};
use crate::{Error, Result};

/// Directions that are held at once.
const TOGETHER: usize = 64;

/// How far beyond the points that were tried a parabola is believed, in units of their distance.
const FARTHEST: f64 = 2.0;

/// The most that a deviation changes by in a step, as a fraction.
const MOST_ADAPTED: f64 = 0.2;

pub(super) fn memory(rule: &Rule, specs: &[ParamSpec]) -> Vec<ParamSpec> {
    let named = |spec: &ParamSpec| ParamSpec { name: format!("deviation/{}", spec.name), ..spec.clone() };
    match rule {
        Rule::EvolutionStrategy { adaptation, .. } if *adaptation > 0.0 => specs.iter().map(named).collect(),
        _ => population::memory(rule, specs),
    }
}

pub(super) fn initialise<T: Real>(rule: &Rule, memory: &mut [&mut [T]]) {
    match rule {
        Rule::EvolutionStrategy { sigma: Some(sigma), .. } => {
            memory.iter_mut().for_each(|array| array.fill(T::from_f64(*sigma)));
        }
        _ => population::initialise(rule, memory),
    }
}

#[allow(clippy::too_many_arguments, reason = "a step, and where it is made")]
pub(super) fn step<T: Real>(
    runtime: &Runtime,
    rule: &Rule,
    plan: &PhasePlan,
    system: &dyn System<T>,
    params: &Params<'_, T>,
    batch: &Batch<'_, T>,
    state: &mut StepState<'_, '_, T>,
    scratch: &mut Scratch<T>,
) -> Result<()> {
    let experiment = Experiment { runtime, system, plan, batch, draw: DrawIndex::of_step(state.step) };
    let base = flatten(params);
    match *rule {
        Rule::FiniteDifference { epsilon: Some(epsilon) } => {
            let gradient = differences(experiment, &base, epsilon, scratch)?;
            scratch.update.set(system.specs(), &gradient);
        }
        Rule::SPSA { epsilon: Some(epsilon), directions } => {
            let signs = |k: usize, direction: &mut [T]| signs(runtime, state.step, k, direction);
            let pairs = Pairs { count: directions as usize, reach: epsilon, draw: &signs };
            let mut gradient = vec![T::ZERO; base.len()];
            let mut known = 0;
            pairs.each(experiment, &base, scratch, |losses, directions| {
                let weights: Vec<T> =
                    losses.iter().map(|pair| slope(pair, epsilon * f64::from(pairs.count as u32))).collect();
                known += known_pairs(losses);
                invert(experiment, &base, T::from_f64(epsilon), directions);
                add(runtime, &weights, directions, &mut gradient);
            })?;
            make_mean(pairs.count, known, &mut gradient);
            scratch.update.set(system.specs(), &gradient);
        }
        Rule::EvolutionStrategy { sigma: Some(sigma), pairs, adaptation } => {
            evolve(experiment, &base, (sigma, pairs as usize, adaptation), state, scratch)?;
        }
        Rule::CoordinateDescent { epsilon: Some(epsilon), coordinates } => {
            descend(experiment, base, (epsilon, coordinates), state.step, scratch)?;
        }
        Rule::ParameterShift => {
            let gradient = shift(experiment, &base, params, scratch)?;
            scratch.update.set(system.specs(), &gradient);
        }
        _ if let Some(surrogate) = rule.surrogate() => surrogate.step(experiment, params, state, scratch)?,
        _ => population::step(experiment, rule, params, state, scratch)?,
    }
    Ok(())
}

/// (L+ - L-) / 2 reach; 0 where that is not finite: such a pair teaches nothing.
fn slope<T: Real>(&[plus, minus]: &[f64; 2], reach: f64) -> T {
    let slope = (plus - minus) / (2.0 * reach);
    if slope.is_finite() { T::from_f64(slope) } else { T::ZERO }
}

/// The pairs whose difference is known.
fn known_pairs(losses: &[[f64; 2]]) -> usize {
    losses.iter().filter(|[plus, minus]| (plus - minus).is_finite()).count()
}

/// Makes a mean over all pairs one over those that are known.
fn make_mean<T: Real>(pairs: usize, known: usize, gradient: &mut [T]) {
    if (1..pairs).contains(&known) {
        let more = T::from_f64(pairs as f64 / known as f64);
        gradient.iter_mut().for_each(|g| *g *= more);
    }
}

fn differences<T: Real>(
    experiment: Experiment<'_, T>,
    base: &[T],
    epsilon: f64,
    scratch: &mut Scratch<T>,
) -> Result<Vec<T>> {
    let Scratch { candidates, cost, states, .. } = scratch;
    let moved = |c: usize, values: &mut [T]| {
        values[c / 2] += T::from_f64(if c.is_multiple_of(2) { epsilon } else { -epsilon });
    };
    let losses = candidates.losses(experiment, base, 2 * base.len(), cost, Some(states), moved)?;
    let mut places = [base.to_vec(), base.to_vec()];
    for (places, sign) in places.iter_mut().zip([1.0, -1.0]) {
        places.iter_mut().for_each(|value| *value += T::from_f64(sign * epsilon));
        experiment.keep_within(places);
    }
    // Where the range, or rounding, let the two candidates come to be.
    let apart = places[0].iter().zip(&places[1]).map(|(up, down)| up.to_f64() - down.to_f64());
    Ok(losses.chunks_exact(2).zip(apart).map(|(pair, apart)| slope(&pair_of(pair), 0.5 * apart)).collect())
}

/// The losses of two candidates that are compared.
fn pair_of(candidates: &[CandidateLoss]) -> [f64; 2] {
    let losses = comparable(candidates);
    [losses[0], losses[1]]
}

/// Brings directions of signs to what a difference of losses is to be multiplied with: one over the distance of the two
/// candidates, in units of `2 reach`, which is less where a range cuts them off. Zero where they do not differ.
fn invert<T: Real>(experiment: Experiment<'_, T>, base: &[T], reach: T, directions: &mut [T]) {
    for (span, (lower, upper)) in experiment.bounded() {
        for direction in directions.chunks_exact_mut(base.len()) {
            for (d, &value) in direction[span.clone()].iter_mut().zip(&base[span.clone()]) {
                let [up, down] = [value + reach * *d, value - reach * *d].map(|v| v.within(lower, upper));
                *d = if up == down { T::ZERO } else { (reach + reach) / (up - down) };
            }
        }
    }
}

/// Makes up for what a range cuts off of Gaussian perturbations: the gradient of a linear loss is divided by the mean product
/// of a perturbation and the half distance of its two candidates, which is that of the perturbation's square where
/// nothing is cut off. With u the distance to an end in standard deviations, each end leaves erf(u / sqrt 2) of its half.
fn make_up<T: Real>(experiment: Experiment<'_, T>, base: &[T], deviations: &[T], gradient: &mut [T]) {
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

/// dL/d(phase) = sum over outputs of dL/d(intensity) times half the difference of intensities a quarter turn to either side: exact,
/// since an intensity is A + B cos(phase) + C sin(phase) in each (Mitarai et al. 2018, Schuld et al. 2019). The chain rule goes
/// through the loss: shifting the loss itself would be wrong. Where the range of a phase cuts a shift short, the three
/// intensities at hand tell C all the same.
fn shift<T: Real>(
    experiment: Experiment<'_, T>,
    base: &[T],
    params: &Params<'_, T>,
    scratch: &mut Scratch<T>,
) -> Result<Vec<T>> {
    let Experiment { runtime, system, plan, batch, .. } = experiment;
    let Scratch { candidates, cost, states, workspace, .. } = scratch;
    infer(runtime, system, params, batch, plan, experiment.draw, states, workspace)?;
    cost.add(1, batch.len());
    let errors = experiment.errors(states);
    let quarter = T::from_f64(std::f64::consts::FRAC_PI_2);
    let places = |j: usize| {
        let (lower, upper) = experiment.range(j);
        [base[j] + quarter, base[j] - quarter].map(|place| place.within(lower, upper))
    };
    let moved = |c: usize, values: &mut [T]| values[c / 2] = places(c / 2)[c % 2];
    let experiment = Experiment { draw: experiment.draw.after(1), ..experiment };
    let weigh = |found: &States<T>| {
        let rows = errors.chunks_exact(system.outputs()).enumerate();
        rows.flat_map(|(i, errors)| errors.iter().zip(found.outputs(i))).map(|(e, y)| e * y.to_f64()).sum()
    };
    let here: f64 = weigh(states);
    let sums = candidates.measures(experiment, base, 2 * base.len(), cost, None, moved, weigh)?;
    let slope = |(j, pair): (usize, &[f64])| {
        if places(j) == [base[j] + quarter, base[j] - quarter] {
            return Ok(T::from_f64(0.5 * (pair[0] - pair[1])));
        }
        let turns = places(j).map(|place| place.to_f64() - base[j].to_f64());
        sine_of_three(here, turns, [pair[0], pair[1]]).map(T::from_f64).ok_or_else(|| {
            Error::Config(format!(
                "the range of the phases is too narrow for ParameterShift: phase {j} at {} cannot be shifted",
                base[j]
            ))
        })
    };
    sums.chunks_exact(2).enumerate().map(slope).collect()
}

/// C of A + B cos(turn) + C sin(turn), given its values at zero and at two turns; `None` where these do not tell.
fn sine_of_three(here: f64, turns: [f64; 2], values: [f64; 2]) -> Option<f64> {
    /// Turns of which differences would be mostly rounding errors.
    const LEAST: f64 = 1e-6;
    let [(s, c), (t, d)] = turns.map(|turn| (turn.sin(), 1.0 - turn.cos()));
    let determinant = s * d - t * c;
    (determinant.abs() > LEAST).then(|| ((values[0] - here) * d - (values[1] - here) * c) / determinant)
}

/// Fills a direction with signs.
fn signs<T: Real>(runtime: &Runtime, step: u64, k: usize, direction: &mut [T]) {
    let random = DrawIndex::of_step(step).after(k as u64).of(runtime.random(Purpose::Direction));
    for (block, signs) in direction.chunks_mut(128).enumerate() {
        let words = random.words(block as u64, 0);
        for (j, sign) in signs.iter_mut().enumerate() {
            *sign = if words[j / 32] >> (j % 32) & 1 == 1 { T::ONE } else { -T::ONE };
        }
    }
}

/// gradient += the sum of weighted directions.
fn add<T: Real>(runtime: &Runtime, weights: &[T], directions: &[T], gradient: &mut [T]) {
    let n = gradient.len();
    let weights = Strided { data: weights, row: weights.len(), column: 1 };
    multiply(runtime.level(), weights, Dense { data: directions, stride: n }, (1, weights.row, n), gradient, n);
}

/// Candidates to either side of the present parameters.
struct Pairs<'a, T> {
    count: usize,
    /// How far along a direction candidates are.
    reach: f64,
    /// Fills direction number k.
    draw: &'a (dyn Fn(usize, &mut [T]) + Sync),
}

impl<T: Real> Pairs<'_, T> {
    /// Tries all pairs, and hands losses and directions over, some at a time.
    fn each(
        &self,
        experiment: Experiment<'_, T>,
        base: &[T],
        scratch: &mut Scratch<T>,
        mut take: impl FnMut(&[[f64; 2]], &mut [T]),
    ) -> Result<()> {
        let n = base.len();
        let mut directions = vec![T::ZERO; n * self.count.min(TOGETHER)];
        let Scratch { candidates, cost, states, .. } = scratch;
        for first in (0..self.count).step_by(TOGETHER) {
            let count = TOGETHER.min(self.count - first);
            let directions = &mut directions[..n * count];
            experiment.runtime.for_each(directions.par_chunks_mut(n.max(1)).enumerate(), |(k, direction)| {
                (self.draw)(first + k, direction);
            });
            let reach = T::from_f64(self.reach);
            let moved = |c: usize, values: &mut [T]| {
                let reach = if c.is_multiple_of(2) { reach } else { -reach };
                let direction = &directions[c / 2 * n..(c / 2 + 1) * n];
                values.iter_mut().zip(direction).for_each(|(value, &d)| *value += reach * d);
            };
            let experiment = Experiment { draw: experiment.draw.after(2 * first as u64), ..experiment };
            let shown = (first == 0).then_some(&mut *states);
            let losses = candidates.losses(experiment, base, 2 * count, cost, shown, moved)?;
            let losses: Vec<[f64; 2]> = losses.chunks_exact(2).map(pair_of).collect();
            take(&losses, directions);
        }
        Ok(())
    }
}

/// The gradient of the mean loss of Gaussian candidates by their mean; deviations adapt to what it changes by them.
fn evolve<T: Real>(
    experiment: Experiment<'_, T>,
    base: &[T],
    (sigma, pairs, adaptation): (f64, usize, f64),
    state: &mut StepState<'_, '_, T>,
    scratch: &mut Scratch<T>,
) -> Result<()> {
    let n = base.len();
    let random = experiment.runtime.random(Purpose::Direction);
    let deviations: Vec<T> = if adaptation > 0.0 {
        state.memory.iter().flat_map(|array| array.iter()).copied().collect()
    } else {
        vec![T::from_f64(sigma); n]
    };
    let first = DrawIndex::of_step(state.step);
    let draw = |k: usize, direction: &mut [T]| {
        first.after(k as u64).of(random).fill_normal(experiment.runtime.level(), 0, 0, direction);
        direction.iter_mut().zip(&deviations).for_each(|(d, &deviation)| *d *= deviation);
    };
    let mut gradient = vec![T::ZERO; n];
    let mut known = 0;
    let mut spread = Spread::new(if adaptation > 0.0 { n } else { 0 });
    let tried = Pairs { count: pairs, reach: 1.0, draw: &draw };
    tried.each(experiment, base, scratch, |losses, directions| {
        let weights: Vec<T> = losses.iter().map(|pair| slope(pair, pairs as f64)).collect();
        known += known_pairs(losses);
        add(experiment.runtime, &weights, directions, &mut gradient);
        spread.see(experiment.runtime, losses, directions);
    })?;
    make_mean(pairs, known, &mut gradient);
    for (g, &deviation) in gradient.iter_mut().zip(&deviations) {
        *g /= deviation * deviation;
    }
    make_up(experiment, base, &deviations, &mut gradient);
    if adaptation > 0.0 {
        let mut changes = spread.changes(&deviations, adaptation);
        for array in state.memory.iter_mut() {
            let rest = changes.split_off(array.len());
            array.iter_mut().zip(changes).for_each(|(deviation, factor)| *deviation *= T::from_f64(factor));
            changes = rest;
        }
    }
    scratch.update.set(experiment.system.specs(), &gradient);
    Ok(())
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
        let count: Vec<T> = means.iter().map(|m| if m.is_finite() { T::ONE } else { T::ZERO }).collect();
        add(runtime, &count, &squared, &mut self.squares);
        add(runtime, &means.iter().map(|m| T::from_f64(usable(m))).collect::<Vec<_>>(), &squared, &mut self.weighted);
        self.means.extend(means.into_iter().filter(|m| m.is_finite()));
    }

    /// The factors of the deviations: a relative step against the derivative of the mean loss by the logarithm of each
    /// deviation, in units of the spread of losses (Sehnke et al. 2010, eq. 13).
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
            let steep = (weighted.to_f64() - mean * squares.to_f64()) / (count * own * own * deviation);
            (-rate * steep).clamp(-MOST_ADAPTED, MOST_ADAPTED).exp()
        })
        .collect()
    }
}

/// A loss along a line: its derivatives where the line begins.
struct Parabola {
    slope: f64,
    curvature: f64,
}

impl Parabola {
    /// Through the loss at the beginning and at two places; where a range keeps one of them at the beginning, a straight line.
    fn through(here: f64, (up, above): (f64, f64), (down, below): (f64, f64)) -> Self {
        let (rise, fall) = ((above - here) / up, (below - here) / down);
        match (up != 0.0, down != 0.0) {
            (true, true) => {
                let curvature = 2.0 * (rise - fall) / (up - down);
                Self { slope: rise - 0.5 * curvature * up, curvature }
            }
            (true, false) => Self { slope: rise, curvature: 0.0 },
            (false, true) => Self { slope: fall, curvature: 0.0 },
            (false, false) => Self { slope: 0.0, curvature: 0.0 },
        }
    }
}

/// Moves one parameter after the other to the bottom of a parabola.
fn descend<T: Real>(
    experiment: Experiment<'_, T>,
    mut values: Vec<T>,
    (epsilon, coordinates): (f64, u32),
    step: u64,
    scratch: &mut Scratch<T>,
) -> Result<()> {
    let n = values.len() as u64;
    let Scratch { candidates, cost, states, .. } = scratch;
    let first = candidates.losses(experiment, &values, 1, cost, Some(states), |_, _| {})?.remove(0);
    let mut here = first.mean;
    let reach = T::from_f64(epsilon);
    for k in 0..u64::from(coordinates) {
        let j = ((step * u64::from(coordinates) + k) % n) as usize;
        let (here_is, (lower, upper)) = (values[j], experiment.range(j));
        let places = [here_is + reach, here_is - reach].map(|place| place.within(lower, upper));
        let moved = |c: usize, values: &mut [T]| values[j] = places[c];
        let experiment = Experiment { draw: experiment.draw.after(1 + 2 * k), ..experiment };
        let losses = candidates.losses(experiment, &values, 2, cost, None, moved)?;
        let [up, down] = places.map(|place| place.to_f64() - here_is.to_f64());
        let Parabola { slope, curvature } = Parabola::through(here, (up, losses[0].mean), (down, losses[1].mean));
        let compared = losses.iter().all(|loss| loss.lost == first.lost);
        if !(compared && slope.is_finite() && curvature.is_finite()) {
            continue;
        }
        let far = if curvature > 0.0 { -slope / curvature } else { -slope.signum() * epsilon };
        let wanted = here_is + T::from_f64(far.clamp(-FARTHEST * epsilon, FARTHEST * epsilon));
        values[j] = wanted.within(lower, upper);
        let moved = values[j].to_f64() - here_is.to_f64();
        here += moved * slope + 0.5 * moved * moved * curvature;
    }
    experiment.keep_within(&mut values);
    scratch.want(experiment.system.specs(), &values);
    Ok(())
}
