//! Physical local learning (Momeni et al. 2023), in its pair-contrastive form.
//!
//! Every linear map learns to make the outputs of two samples of a class more alike than those of
//! two classes, in their cosine. The last one is a readout, and learns from the loss. Nothing goes
//! back through the physics.

use pnncore_kernels::Real;
use pnncore_kernels::philox::{Philox, Purpose};
use serde::Deserialize;

use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::batch::{Batch, Targets};
use crate::settings::positive;
use crate::settling::Settling;
use crate::system::stack::{BackwardRule, ErrorSignal, Layers, Propagation, Stack};
use crate::system::{Abilities, Experiment, System};
use crate::{Error, Result};

/// Physical local learning.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhysicalLocalLearning {
    /// How steep the comparison is.
    pub tau: f64,
}

impl MethodConfig for PhysicalLocalLearning {
    const NAME: &'static str = "PhysicalLocalLearning";
    const VARIANTS: &'static [(&'static str, Abilities)] =
        &[(Self::NAME, Abilities::LAYERS.and(Abilities::LINEAR_MAPS))];

    fn check(&self, _settling: &Settling) -> Result<()> {
        positive("tau", self.tau)
    }

    fn compile<T: Real>(&self, _setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        Ok(Box::new(*self))
    }
}

impl<T: Real> CompiledMethod<T> for PhysicalLocalLearning {
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        _memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let Experiment { runtime, batch, draw, .. } = *experiment;
        let stack = experiment.stack()?;
        check_labels(stack, batch)?;
        let samples = batch.len();
        let partners = partners(batch, draw.of(runtime.random(Purpose::Method)));
        let propagation = Propagation::of(&mut state.workspace)?;
        propagation.begin(stack, batch);
        state.cost.add(1, samples);
        let derivatives = stack.twins_are_exact();
        propagation.forward(experiment.at(stack), Layers::Hardware, derivatives, draw)?;
        propagation.report(&mut state.states);
        // The readout learns from the loss.
        propagation.clear_errors();
        experiment.seed_output_errors(propagation, &state.states)?;
        let is_linear = |l: &usize| stack.stages()[*l].is_linear_map();
        let readout = (0..stack.stages().len()).rev().find(is_linear);
        for l in (0..readout.unwrap_or(0)).filter(is_linear) {
            let (errors, _) =
                contrast_errors(&propagation.outputs(l), samples, &partners, self.tau);
            propagation.set_errors(l, &errors);
        }
        learn_locally(experiment, stack, state)
    }
}

/// Refuses batches without labels, and inputs that labels cannot be written over.
pub(super) fn check_labels<T: Real>(stack: &Stack<T>, batch: &Batch<'_, T>) -> Result<()> {
    if System::<T>::takes(stack).complex {
        return Err(Error::Config(
            "local learning writes labels over the first inputs, which must be real: put Encode \
             in front of the field"
                .into(),
        ));
    }
    match batch.y {
        Targets::Labels(_) => Ok(()),
        _ => Err(Error::Config(
            "local learning needs integer labels: it compares samples of different classes".into(),
        )),
    }
}

/// Turns the errors that every layer has of its own into a gradient.
pub(super) fn learn_locally<T: Real>(
    experiment: &Experiment<'_, T>,
    stack: &Stack<T>,
    state: &mut StepState<T>,
) -> Result<StepResult> {
    let StepState { workspace, update, cost, .. } = state;
    let rule = BackwardRule {
        error_signal: ErrorSignal::Local,
        ..BackwardRule::of(Layers::Twin, stack.twins_are_exact())
    };
    Propagation::of(workspace)?.backward(experiment.at(stack), &rule, update)?;
    cost.operations += 2 * stack.operations() * experiment.batch.len() as u64;
    Ok(StepResult::Gradient)
}

/// For every sample another one of its class and one of another class; `None` where the batch has
/// none.
fn partners<T: Real>(batch: &Batch<'_, T>, random: Philox) -> Vec<Option<(usize, usize)>> {
    let labels: Vec<usize> = (0..batch.len()).map(|i| batch.y.label(i).unwrap_or(0)).collect();
    let n = labels.len();
    (0..n)
        .map(|i| {
            // From a random place on, the first that fits.
            let from = |group: u32| random.below(n as u64, i as u64, group) as usize;
            let find = |group: u32, fits: &dyn Fn(usize) -> bool| {
                (0..n).map(|k| (from(group) + k) % n).find(|&j| fits(j))
            };
            let same = find(1, &|j| j != i && labels[j] == labels[i])?;
            Some((same, find(2, &|j| labels[j] != labels[i])?))
        })
        .collect()
}

/// softplus(tau (cos(a_i, a_other) - cos(a_i, a_same))) for every sample with partners: its
/// gradient by all three, and its mean.
fn contrast_errors<T: Real>(
    outputs: &[T],
    samples: usize,
    partners: &[Option<(usize, usize)>],
    tau: f64,
) -> (Vec<T>, f64) {
    let width = outputs.len() / samples.max(1);
    let row = |i: usize| outputs[i * width..(i + 1) * width].iter().map(|y| y.to_f64());
    let norms: Vec<f64> = (0..samples).map(|i| row(i).map(|y| y * y).sum::<f64>().sqrt()).collect();
    let usable = |i: usize| norms[i] > 0.0 && norms[i].is_finite();
    let cosine = |i: usize, j: usize| {
        row(i).zip(row(j)).map(|(a, b)| a * b).sum::<f64>() / (norms[i] * norms[j])
    };
    let (mut errors, mut loss) = (vec![0.0; outputs.len()], 0.0);
    for (i, found) in partners.iter().enumerate() {
        let Some((same, other)) = *found else { continue };
        if ![i, same, other].into_iter().all(usable) {
            continue;
        }
        let (near, far) = (cosine(i, same), cosine(i, other));
        let excess = tau * (far - near);
        loss += excess.max(0.0) + (-excess.abs()).exp().ln_1p();
        let pull = tau / (1.0 + (-excess).exp()) / samples as f64;
        for (j, cos, weight) in [(same, near, -pull), (other, far, pull)] {
            for (a, b) in [(i, j), (j, i)] {
                for (k, (own, their)) in row(a).zip(row(b)).enumerate() {
                    errors[a * width + k] +=
                        weight / norms[a] * (their / norms[b] - cos * own / norms[a]);
                }
            }
        }
    }
    (errors.into_iter().map(T::from_f64).collect(), loss / samples as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contrasts_are_differentiated() {
        let outputs: Vec<f64> = (0..12).map(|k| (f64::from(k) * 1.7).sin()).collect();
        let partners = [Some((1, 2)), Some((0, 3)), Some((3, 0)), None];
        let total = |outputs: &[f64]| contrast_errors(outputs, 4, &partners, 3.0).1;
        let (found, _) = contrast_errors(&outputs, 4, &partners, 3.0);
        for k in 0..12 {
            let at = |h: f64| {
                let mut moved = outputs.clone();
                moved[k] += h;
                total(&moved)
            };
            assert!(((at(1e-6) - at(-1e-6)) / 2e-6 - found[k]).abs() < 1e-9, "{k}");
        }
    }
}
