//! The forward-forward algorithm (Hinton 2022): every layer learns to tell positive data from
//! negative data.
//!
//! Positive rows carry their true label among their inputs, negative ones a wrong label; a layer's
//! goodness is the sum of squares of its outputs, or, as physical local learning was published
//! (Momeni et al. 2023), the cosine of their magnitudes to a fixed direction. Every layer has a
//! loss of its own, and no error passes from one to another.

use pnncore_kernels::Real;
use pnncore_kernels::philox::{Philox, Purpose};
use serde::Deserialize;

use super::physical_local_learning::{check_labels, learn_locally};
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::batch::Batch;
use crate::settings::{at_least, positive};
use crate::settling::Settling;
use crate::states::Status;
use crate::system::stack::{Layers, Propagation};
use crate::system::{Abilities, Experiment};
use crate::{Error, Result};

/// What tells how well a label fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goodness {
    /// The sum of squares of outputs a, with softplus(threshold - goodness) as the loss of true
    /// labels and softplus(goodness - threshold) as that of wrong ones.
    Squares,
    /// The cosine to a fixed direction of |a|, of outputs of linear maps alone, with
    /// softplus(tau (wrong - true)) as the loss.
    Cosine,
}

/// The forward-forward algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardForward {
    /// How many of the last inputs carry the label.
    pub classes: u32,
    /// What tells how well a label fits.
    pub goodness: Goodness,
    /// The goodness per output that lies between positive and negative rows, if it is a sum of
    /// squares; `None`: 0.2.
    pub threshold: Option<f64>,
    /// How steep the comparison of cosines is; `None`: 4.
    pub tau: Option<f64>,
}

impl ForwardForward {
    /// The direction (width) that outputs of linear map number `map` are compared with: its
    /// elements are uniform between 0 and 1, before they are scaled to a length of one.
    pub fn direction(map: u32, width: usize) -> Vec<f64> {
        let random = Philox::new(0, Purpose::Feedback);
        let drawn: Vec<f64> = (0..width as u64).map(|k| random.uniform(k, map)).collect();
        let norm = drawn.iter().map(|p| p * p).sum::<f64>().sqrt();
        drawn.into_iter().map(|p| p / norm).collect()
    }
}

impl MethodConfig for ForwardForward {
    const NAME: &'static str = "ForwardForward";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::TWINS)];
    const TAKES_LOSS: bool = false;

    fn check(&self, _settling: &Settling) -> Result<()> {
        at_least("classes", self.classes, 2)?;
        let (own, other) = match self.goodness {
            Goodness::Squares => (("threshold", self.threshold), ("tau", self.tau)),
            Goodness::Cosine => (("tau", self.tau), ("threshold", self.threshold)),
        };
        if other.1.is_some() {
            return Err(Error::Config(format!(
                "{} has no effect on this goodness: leave it out",
                other.0
            )));
        }
        own.1.map_or(Ok(()), |value| positive(own.0, value))
    }

    fn compile<T: Real>(&self, _setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        Ok(Box::new(*self))
    }
}

impl<T: Real> CompiledMethod<T> for ForwardForward {
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        _memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let Experiment { runtime, batch, draw, .. } = *experiment;
        let stack = experiment.stack()?;
        check_labels(stack, batch)?;
        let (samples, classes) = (batch.len(), self.classes as usize);
        check_classes(batch, classes)?;
        let random = draw.of(runtime.random(Purpose::Method));
        let wrong = |i: usize| {
            let other = 1 + random.below(classes as u64 - 1, i as u64, 0) as usize;
            (batch.y.label(i).unwrap_or(0) + other) % classes
        };
        let propagation = Propagation::of(&mut state.workspace)?;
        // Positive rows, then negative ones.
        propagation.begin_with(stack, 2 * samples, |r, inputs| {
            let i = r % samples;
            let label = if r < samples { batch.y.label(i).unwrap_or(0) } else { wrong(i) };
            let x = batch.x.row(i);
            let own = x.len() - classes;
            inputs.extend_from_slice(&x[..own]);
            inputs.extend((0..classes).map(|k| if k == label { T::ONE } else { T::ZERO }));
        });
        state.cost.add(2, samples);
        let derivatives = stack.twins_are_exact();
        propagation.forward(experiment.at(stack), Layers::Hardware, derivatives, draw)?;
        propagation.clear_errors();
        state.states.reset(samples, 1, false);
        for r in propagation.zero_nonfinite_rows(stack) {
            state.states.outcomes[r % samples].status = Status::Diverged;
        }
        let mut losses = vec![0.0; samples];
        match self.goodness {
            Goodness::Squares => {
                let threshold = self.threshold.unwrap_or(0.2);
                for group in stack.groups() {
                    let l = group.end - 1;
                    let mut outputs = propagation.outputs(l);
                    goodness_errors(&mut outputs, samples, threshold, &mut losses);
                    propagation.set_errors(l, &outputs);
                }
            }
            Goodness::Cosine => {
                let maps = (0..stack.stages().len()).filter(|&l| stack.stages()[l].is_linear_map());
                for (number, l) in (0..).zip(maps) {
                    let mut outputs = propagation.outputs(l);
                    let direction = Self::direction(number, outputs.len() / (2 * samples));
                    cosine_errors(&mut outputs, &direction, self.tau.unwrap_or(4.0), &mut losses);
                    propagation.set_errors(l, &outputs);
                }
            }
        }
        state.local_losses = Some(losses);
        learn_locally(experiment, stack, state)
    }
}

fn check_classes<T: Real>(batch: &Batch<'_, T>, classes: usize) -> Result<()> {
    let inputs = batch.x.width();
    if classes < 2 || classes >= inputs {
        return Err(Error::Config(format!(
            "classes must be at least 2 and less than the {inputs} inputs, the last of which carry \
             the label; got {classes}"
        )));
    }
    if let Some(bad) =
        (0..batch.len()).filter_map(|i| batch.y.label(i)).find(|&label| label >= classes)
    {
        return Err(Error::Data(format!("labels must be below classes = {classes}, got {bad}")));
    }
    Ok(())
}

/// softplus(threshold - goodness) for rows of true labels, softplus(goodness - threshold) for the
/// others; goodness is the sum of squares, the threshold counts per output. Outputs become errors,
/// dL/d(outputs), of a mean over samples.
fn goodness_errors<T: Real>(outputs: &mut [T], samples: usize, threshold: f64, losses: &mut [f64]) {
    let width = outputs.len() / (2 * samples);
    for (r, row) in outputs.chunks_exact_mut(width).enumerate() {
        let goodness: f64 = row.iter().map(|y| y.to_f64().powi(2)).sum();
        let sign = if r < samples { 1.0 } else { -1.0 };
        let surplus = sign * (goodness - threshold * width as f64);
        let pull = if surplus.is_finite() { -sign / (1.0 + surplus.exp()) } else { 0.0 };
        losses[r % samples] += (-surplus).max(0.0) + (-surplus.abs()).exp().ln_1p();
        let scale = T::from_f64(2.0 * pull / samples as f64);
        row.iter_mut().for_each(|y| *y = if y.is_finite() { *y * scale } else { T::ZERO });
    }
}

/// softplus(tau (wrong - true)) for every sample, with the goodness cos(|a|, p) of its rows of true
/// and of wrong labels; outputs become errors, as above. Rows without a direction have none.
fn cosine_errors<T: Real>(outputs: &mut [T], direction: &[f64], tau: f64, losses: &mut [f64]) {
    let (samples, width) = (losses.len(), direction.len());
    let (positive, negative) = outputs.split_at_mut(samples * width);
    let rows = positive.chunks_exact_mut(width).zip(negative.chunks_exact_mut(width));
    for (loss, (positive, negative)) in losses.iter_mut().zip(rows) {
        let goodness = |row: &[T]| -> (f64, f64) {
            let norm = row.iter().map(|a| a.to_f64().powi(2)).sum::<f64>().sqrt();
            let along = row.iter().zip(direction).map(|(a, p)| a.to_f64().abs() * p).sum::<f64>();
            (along / norm, norm)
        };
        let (good, bad) = (goodness(positive), goodness(negative));
        let excess = tau * (bad.0 - good.0);
        if !excess.is_finite() {
            positive.fill(T::ZERO);
            negative.fill(T::ZERO);
            continue;
        }
        *loss += excess.max(0.0) + (-excess.abs()).exp().ln_1p();
        let pull = tau / (1.0 + (-excess).exp()) / samples as f64;
        for (row, (cosine, norm), pull) in [(positive, good, -pull), (negative, bad, pull)] {
            for (a, p) in row.iter_mut().zip(direction) {
                let own = a.to_f64();
                let sign = if own == 0.0 { 0.0 } else { own.signum() };
                *a = T::from_f64(pull * (p * sign - cosine * own / norm) / norm);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_differentiated() {
        let outputs: Vec<f64> = (0..24).map(|k| (f64::from(k) * 1.7).sin()).collect();
        let direction = ForwardForward::direction(1, 4);
        let total = |outputs: &[f64]| {
            let (mut errors, mut losses) = (outputs.to_vec(), vec![0.0; 3]);
            cosine_errors(&mut errors, &direction, 4.0, &mut losses);
            (losses.iter().sum::<f64>() / 3.0, errors)
        };
        let (_, found) = total(&outputs);
        for k in 0..24 {
            let at = |h: f64| {
                let mut moved = outputs.clone();
                moved[k] += h;
                total(&moved).0
            };
            let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
            assert!((slope - found[k]).abs() < 1e-9, "{k}: {slope} {}", found[k]);
        }
    }
}
