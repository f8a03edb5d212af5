//! Feedback alignment (Lillicrap et al. 2016): errors come back through matrices that are not the
//! transposed weights.

use pnncore_kernels::gemm::{Dense, Strided, multiply};
use pnncore_kernels::{Level, Real, bfloat16, transpose};
use serde::Deserialize;

use super::propagated::{draw_feedback, feedback_spec, measure, send_back};
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::optim::Optimizer;
use crate::params::ParamSpec;
use crate::precision::Precision;
use crate::runtime::Runtime;
use crate::system::stack::{BackwardRule, Layers, Stack};
use crate::system::{Abilities, Experiment, System};
use crate::update::{LocalUpdate, Products, Term};
use crate::{Error, Result};

/// What errors come back through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feedback {
    /// Fixed random matrices.
    Random,
    /// The signs of the weights, times their initial deviation (Liao et al. 2016).
    SignSymmetric,
    /// Matrices that are changed as the weights are (Kolen and Pollack 1994, Akrout et al. 2019):
    /// both decay, and meet.
    KolenPollack,
}

/// Feedback alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedbackAlignment {
    /// Which matrices.
    pub feedback: Feedback,
}

impl MethodConfig for FeedbackAlignment {
    const NAME: &'static str = "FeedbackAlignment";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::TWINS)];

    fn compile<T: Real>(&self, _setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        Ok(Box::new(*self))
    }
}

impl<T: Real> CompiledMethod<T> for FeedbackAlignment {
    fn memory(&self, system: &dyn System<T>) -> Vec<ParamSpec> {
        let Some(stack) = system.as_stack().filter(|_| self.feedback != Feedback::SignSymmetric)
        else {
            return Vec::new();
        };
        let shape =
            |l: usize| (stack.stages()[l].twin().outputs(), stack.stages()[l].twin().inputs());
        let matrix = |l: usize| feedback_spec(l, shape(l).0, shape(l).1);
        feedback_layers(stack).into_iter().map(matrix).collect()
    }

    /// Draws the feedback matrices as large as initial weights are: with variance 1 / inputs of the
    /// layer.
    fn initialise(&self, runtime: &Runtime, system: &dyn System<T>, memory: &mut [&mut [T]]) {
        draw_feedback(runtime, &self.memory(system), |(_, cols)| cols, memory);
    }

    fn check_optimizer(&self, optimizer: &Optimizer) -> Result<()> {
        match *optimizer {
            Optimizer::SGD { momentum: 0.0, weight_decay } if weight_decay > 0.0 => Ok(()),
            _ if self.feedback != Feedback::KolenPollack => Ok(()),
            _ => Err(Error::Config(
                "feedback=\"kolen-pollack\" needs SGD without momentum and with a weight_decay \
                 above 0: weights and feedback meet because both forget where they began"
                    .into(),
            )),
        }
    }

    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let stack = experiment.stack()?;
        measure(experiment, stack, state)?;
        let signs: Vec<Vec<T>> = match self.feedback {
            Feedback::SignSymmetric => feedback_layers(stack)
                .into_iter()
                .map(|l| transposed_signs(experiment, stack, l))
                .collect(),
            _ => Vec::new(),
        };
        let own: Vec<&[T]> = match self.feedback {
            Feedback::SignSymmetric => signs.iter().map(Vec::as_slice).collect(),
            _ => memory.iter().map(|array| &**array).collect(),
        };
        // Propagations count all linear layers.
        let all = stack.stages().iter().filter(|stage| stage.is_linear_map()).count();
        let transposed = std::iter::repeat_n(&[][..], all.saturating_sub(own.len()));
        let feedback: Vec<&[T]> = transposed.chain(own).collect();
        let rule = BackwardRule {
            feedback: &feedback,
            ..BackwardRule::of(Layers::Twin, stack.twins_are_exact())
        };
        send_back(experiment, stack, &rule, state)
    }

    /// Changes the matrices of Kolen and Pollack as plain gradient descent is about to change the
    /// weights that they stand for.
    fn before_update(
        &self,
        experiment: &Experiment<'_, T>,
        optimizer: &Optimizer,
        rates: &[f64],
        update: &LocalUpdate<T>,
        memory: &mut [&mut [T]],
    ) {
        let (Feedback::KolenPollack, &Optimizer::SGD { weight_decay, .. }, Some(stack)) =
            (self.feedback, optimizer, experiment.system.as_stack())
        else {
            return;
        };
        let runtime = experiment.runtime;
        for (l, matrix) in feedback_layers(stack).into_iter().zip(memory) {
            let stage = &stack.stages()[l];
            let (k, rows, cols) =
                (stage.params.start, stage.twin().outputs(), stage.twin().inputs());
            let keep = T::from_f64(1.0 - rates[k] * weight_decay);
            matrix.iter_mut().for_each(|value| *value *= keep);
            let Term::Product(Products { blocks, precision }) = &update.terms[k] else { continue };
            let rate = T::from_f64(-rates[k]);
            let level = runtime.level();
            if *precision == Precision::Bfloat16 {
                // Sums are scaled as those of the weights are, so that both stay as near.
                let rounded: Vec<_> =
                    blocks.iter().map(|block| both_rounded(level, block)).collect();
                let factors: Vec<_> = rounded
                    .iter()
                    .map(|(inputs, errors)| {
                        let inputs = Dense { data: &inputs[..], stride: cols };
                        (turned(errors, rows), inputs, errors.len() / rows)
                    })
                    .collect();
                bfloat16::multiply_all(level, &factors, (rows, cols), rate, matrix, cols);
                continue;
            }
            for (inputs, errors) in blocks {
                let errors: Vec<T> = errors.iter().map(|&e| rate * e).collect();
                let shape = (rows, inputs.len() / cols, cols);
                let inputs = Dense { data: inputs, stride: cols };
                multiply(level, turned(&errors, rows), inputs, shape, matrix, cols);
            }
        }
    }
}

/// The transpose of rows of so many elements.
fn turned<T>(rows: &[T], width: usize) -> Strided<'_, T> {
    Strided { data: rows, row: 1, column: width }
}

/// Rows of both sides of a product, rounded to bfloat16.
fn both_rounded<T: Real>(level: Level, (left, right): &(Vec<T>, Vec<T>)) -> (Vec<T>, Vec<T>) {
    let mut both = (left.clone(), right.clone());
    bfloat16::round_all(level, &mut both.0);
    bfloat16::round_all(level, &mut both.1);
    both
}

/// The linear layers through which errors go back to parameters: their places.
fn feedback_layers<T: Real>(stack: &Stack<T>) -> Vec<usize> {
    let stages = stack.stages().iter().enumerate();
    stages.filter(|(_, s)| s.is_linear_map() && s.params.start > 0).map(|(l, _)| l).collect()
}

/// The signs of the transposed weights of a layer, times their initial deviation.
fn transposed_signs<T: Real>(experiment: &Experiment<'_, T>, stack: &Stack<T>, l: usize) -> Vec<T> {
    let Experiment { runtime, params, .. } = *experiment;
    let stage = &stack.stages()[l];
    let (rows, cols) = (stage.twin().inputs(), stage.twin().outputs());
    let mut turned = vec![T::ZERO; rows * cols];
    transpose(
        runtime.level(),
        params.get(stage.params.start),
        rows,
        cols,
        0..cols,
        &mut turned,
        rows,
    );
    let scale = T::from_f64(1.0 / (rows as f64).sqrt());
    for value in &mut turned {
        *value = if *value < T::ZERO { -scale } else { scale };
    }
    turned
}
