//! The forward-forward algorithm (Hinton 2022): every layer learns to tell positive data from
//! negative data.
//!
//! Positive rows carry their true label among their inputs, negative ones a wrong label; a layer's
//! goodness is the sum of squares of its outputs. Every layer has a loss of its own, and no error
//! passes from one to another.

use pnncore_kernels::Real;
use pnncore_kernels::philox::Purpose;
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

/// The forward-forward algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardForward {
    /// How many of the last inputs carry the label.
    pub classes: u32,
    /// The goodness per output that lies between positive and negative rows.
    pub threshold: f64,
}

impl MethodConfig for ForwardForward {
    const NAME: &'static str = "ForwardForward";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::TWINS)];
    const TAKES_LOSS: bool = false;

    fn check(&self, _settling: &Settling) -> Result<()> {
        at_least("classes", self.classes, 2)?;
        positive("threshold", self.threshold)
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
        for group in stack.groups() {
            goodness_errors(propagation, group.end - 1, samples, self.threshold, &mut losses);
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
/// others; goodness is the sum of squares, the threshold counts per output. The error is
/// dL/d(outputs), a mean over samples.
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
