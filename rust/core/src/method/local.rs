//! Local learning in stacks: every layer has a loss of its own, and no error passes from one to another.

use pnncore_kernels::Real;
use pnncore_kernels::philox::Purpose;

use super::rule::Rule;
use super::{Scratch, StepState};
use crate::batch::{Batch, Targets};
use crate::draw::DrawIndex;
use crate::loss::Loss;
use crate::params::Params;
use crate::runtime::Runtime;
use crate::states::Status;
use crate::system::stack::{BackwardRule, ErrorSignal, Propagation, Stack, groups};
use crate::{Error, Result};

#[allow(clippy::too_many_arguments, reason = "a step, and where it is made")]
pub(super) fn step<T: Real>(
    runtime: &Runtime,
    rule: &Rule,
    loss: Loss,
    stack: &Stack<T>,
    params: &Params<'_, T>,
    batch: &Batch<'_, T>,
    state: &mut StepState<'_, '_, T>,
    scratch: &mut Scratch<T>,
) -> Result<()> {
    let Scratch { workspace, states, update, cost, local, .. } = scratch;
    let propagation = Propagation::of(workspace)?;
    if !matches!(batch.y, Targets::Labels(_)) {
        return Err(Error::Config(
            "local learning needs integer labels: it compares samples of different classes".into(),
        ));
    }
    let (hardware, twin) = (stack.hardware(), stack.twin());
    let same = stack.twins_are_exact();
    let draw = DrawIndex::of_step(state.step);
    let samples = batch.len();
    let mut losses = vec![0.0; samples];
    let random = draw.of(runtime.random(Purpose::Method));
    if let Rule::ForwardForward { classes, threshold } = *rule {
        let classes = classes as usize;
        let wrong = |i: usize| {
            let other = 1 + random.below(classes as u64 - 1, i as u64, 0) as usize;
            (batch.y.label(i).unwrap_or(0) + other) % classes
        };
        check_classes(batch, classes)?;
        // Rows of true labels, then rows of wrong ones.
        propagation.begin_with(stack, 2 * samples, |r, inputs| {
            let i = r % samples;
            let label = if r < samples { batch.y.label(i).unwrap_or(0) } else { wrong(i) };
            let x = batch.x.row(i);
            let own = x.len() - classes;
            inputs.extend_from_slice(&x[..own]);
            inputs.extend((0..classes).map(|k| if k == label { T::ONE } else { T::ZERO }));
        });
        cost.add(2, samples);
        propagation.forward(runtime, stack, &hardware, params, same, draw)?;
        propagation.clear_errors();
        states.reset(samples, 1, false);
        for r in propagation.zero_nonfinite_rows(stack) {
            states.outcomes[r % samples].status = Status::Diverged;
        }
        for group in groups(stack) {
            goodness_errors(propagation, group.end - 1, samples, threshold, &mut losses);
        }
    } else if let Rule::PhysicalLocalLearning { tau } = *rule {
        let partners = partners(batch, random);
        propagation.begin(stack, batch);
        cost.add(1, samples);
        propagation.forward(runtime, stack, &hardware, params, same, draw)?;
        propagation.report(states);
        // The readout learns from the loss.
        propagation.clear_errors();
        propagation.seed_output_errors(loss, &batch.y);
        let last = stack.stages().len() - 1;
        let readout = (0..=last).rev().find(|&l| stack.stages()[l].twin.as_linear().is_some());
        for l in (0..readout.unwrap_or(0)).filter(|&l| stack.stages()[l].twin.as_linear().is_some()) {
            let errors = contrast_errors(&propagation.outputs(l), samples, &partners, tau, &mut losses);
            propagation.set_errors(l, &errors);
        }
    }
    let backward_rule = BackwardRule { error_signal: ErrorSignal::Local, ..BackwardRule::of(&twin, same) };
    propagation.backward(runtime, stack, &backward_rule, params, update)?;
    if matches!(rule, Rule::ForwardForward { .. }) {
        *local = Some(losses);
    }
    cost.operations += 2 * stack.operations() * samples as u64;
    Ok(())
}

fn check_classes<T: Real>(batch: &Batch<'_, T>, classes: usize) -> Result<()> {
    let inputs = batch.x.width();
    if classes < 2 || classes >= inputs {
        return Err(Error::Config(format!(
            "classes must be at least 2 and less than the {inputs} inputs, the last of which carry the label; got {classes}"
        )));
    }
    if let Some(bad) = (0..batch.len()).filter_map(|i| batch.y.label(i)).find(|&label| label >= classes) {
        return Err(Error::Data(format!("labels must be below classes = {classes}, got {bad}")));
    }
    Ok(())
}

/// softplus(threshold - goodness) for rows of true labels, softplus(goodness - threshold) for the others; goodness is the sum
/// of squares, the threshold counts per output. The error is dL/d(outputs), a mean over samples.
fn goodness_errors<T: Real>(
    propagation: &mut Propagation<T>,
    l: usize,
    samples: usize,
    threshold: f64,
    losses: &mut [f64],
) {
    let mut outputs = propagation.outputs(l);
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
    propagation.set_errors(l, &outputs);
}

/// For every sample another one of its class and one of another class; `None` where the batch has none.
fn partners<T: Real>(batch: &Batch<'_, T>, random: pnncore_kernels::philox::Philox) -> Vec<Option<(usize, usize)>> {
    let labels: Vec<usize> = (0..batch.len()).map(|i| batch.y.label(i).unwrap_or(0)).collect();
    let n = labels.len();
    (0..n)
        .map(|i| {
            // From a random place on, the first that fits.
            let from = |group: u32| random.below(n as u64, i as u64, group) as usize;
            let find =
                |group: u32, fits: &dyn Fn(usize) -> bool| (0..n).map(|k| (from(group) + k) % n).find(|&j| fits(j));
            let same = find(1, &|j| j != i && labels[j] == labels[i])?;
            Some((same, find(2, &|j| labels[j] != labels[i])?))
        })
        .collect()
}

/// softplus(tau (cos(a_i, a_other) - cos(a_i, a_same))) for every sample with partners, and its gradient by all three.
fn contrast_errors<T: Real>(
    outputs: &[T],
    samples: usize,
    partners: &[Option<(usize, usize)>],
    tau: f64,
    losses: &mut [f64],
) -> Vec<T> {
    let width = outputs.len() / samples.max(1);
    let row = |i: usize| outputs[i * width..(i + 1) * width].iter().map(|y| y.to_f64());
    let norms: Vec<f64> = (0..samples).map(|i| row(i).map(|y| y * y).sum::<f64>().sqrt()).collect();
    let usable = |i: usize| norms[i] > 0.0 && norms[i].is_finite();
    let cosine = |i: usize, j: usize| row(i).zip(row(j)).map(|(a, b)| a * b).sum::<f64>() / (norms[i] * norms[j]);
    let mut errors = vec![0.0; outputs.len()];
    for (i, found) in partners.iter().enumerate() {
        let Some((same, other)) = *found else { continue };
        if ![i, same, other].into_iter().all(usable) {
            continue;
        }
        let (near, far) = (cosine(i, same), cosine(i, other));
        let excess = tau * (far - near);
        losses[i] += excess.max(0.0) + (-excess.abs()).exp().ln_1p();
        let pull = tau / (1.0 + (-excess).exp()) / samples as f64;
        for (j, cos, weight) in [(same, near, -pull), (other, far, pull)] {
            for (a, b) in [(i, j), (j, i)] {
                for (k, (own, their)) in row(a).zip(row(b)).enumerate() {
                    errors[a * width + k] += weight / norms[a] * (their / norms[b] - cos * own / norms[a]);
                }
            }
        }
    }
    errors.into_iter().map(T::from_f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contrasts_are_differentiated() {
        let outputs: Vec<f64> = (0..12).map(|k| (f64::from(k) * 1.7).sin()).collect();
        let partners = [Some((1, 2)), Some((0, 3)), Some((3, 0)), None];
        let total = |outputs: &[f64]| {
            let mut losses = [0.0; 4];
            contrast_errors(outputs, 4, &partners, 3.0, &mut losses);
            losses.iter().sum::<f64>() / 4.0
        };
        let found = contrast_errors(&outputs, 4, &partners, 3.0, &mut [0.0; 4]);
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
