//! Gradients of stacks: one pass forward, one back. Methods differ in what signals pass through, and in how layers answer errors.

use pnncore_kernels::gemm::{Strided, multiply};
use pnncore_kernels::philox::Purpose;
use pnncore_kernels::sparse::Dense;
use pnncore_kernels::{Real, add_scaled, transpose};

use super::rule::{Feedback, Model, Rule};
use super::{Scratch, StepState};
use crate::Result;
use crate::batch::Batch;
use crate::draw::DrawIndex;
use crate::loss::Loss;
use crate::params::{ParamSpec, Params, cut};
use crate::runtime::Runtime;
use crate::system::System;
use crate::system::stack::{BackwardRule, ErrorSignal, Layer, Propagation, Stack, groups};
use crate::update::{LocalUpdate, Term};

/// The linear layers through which errors go back to parameters: their places.
fn feedback_layers<T: Real>(stack: &Stack<T>) -> Vec<usize> {
    let stages = stack.stages().iter().enumerate();
    stages.filter(|(_, s)| s.twin.as_linear().is_some() && s.params.start > 0).map(|(l, _)| l).collect()
}

/// The groups of layers to which the output error goes directly: the ends of all but the last.
fn feedback_targets<T: Real>(stack: &Stack<T>) -> Vec<usize> {
    let mut ends: Vec<usize> = groups(stack).into_iter().map(|group| group.end - 1).collect();
    ends.pop();
    ends
}

pub(super) fn memory<T: Real>(rule: &Rule, stack: &Stack<T>) -> Vec<ParamSpec> {
    let matrix = |l: &usize, rows: usize, cols: usize| ParamSpec {
        name: format!("feedback/{}", l + 1),
        shape: vec![rows, cols],
    };
    let stages = stack.stages();
    match rule {
        Rule::FeedbackAlignment { feedback: Feedback::Random | Feedback::KolenPollack } => feedback_layers(stack)
            .iter()
            .map(|l| matrix(l, stages[*l].twin.outputs(), stages[*l].twin.inputs()))
            .collect(),
        Rule::DirectFeedbackAlignment { .. } => {
            let outputs = stages.last().map_or(0, |stage| stage.twin.outputs());
            feedback_targets(stack).iter().map(|l| matrix(l, outputs, stages[*l].twin.outputs())).collect()
        }
        _ => Vec::new(),
    }
}

/// Draws the feedback matrices, as large as initial weights are: with variance 1 / inputs of the layer, or 1 / outputs of the
/// stack.
pub(super) fn initialise<T: Real>(rule: &Rule, specs: &[ParamSpec], runtime: &Runtime, memory: &mut [&mut [T]]) {
    let random = runtime.random(Purpose::Feedback);
    for (m, (array, spec)) in memory.iter_mut().zip(specs).enumerate() {
        let (rows, cols) = spec.rows_cols();
        let fan = if matches!(rule, Rule::DirectFeedbackAlignment { .. }) { rows } else { cols };
        let scale = 1.0 / (fan as f64).sqrt();
        for (k, value) in array.iter_mut().enumerate() {
            *value = T::from_f64(scale * random.normal(k as u64, m as u32));
        }
    }
}

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
    let Scratch { workspace, states, update, cost, .. } = scratch;
    let propagation = Propagation::of(workspace)?;
    let (hardware, twin) = (stack.hardware(), stack.twin());
    let draw = DrawIndex::of_step(state.step);
    let operations = stack.operations() * batch.len() as u64;
    propagation.begin(stack, batch);
    let exact = stack.twins_are_exact();
    let mut backward_rule = BackwardRule::of(&twin, exact);
    let mut back = |propagation: &mut Propagation<T>, backward_rule: &BackwardRule<'_, T>, update| {
        propagation.report(states);
        propagation.seed_output_errors(loss, &batch.y);
        propagation.backward(runtime, stack, backward_rule, params, update)
    };
    if let Rule::Backprop { model, noise, vaccination } = *rule {
        cost.operations += 3 * operations;
        let vaccines;
        let drawn: Vec<&dyn Layer<T>>;
        backward_rule.layers = match model {
            Model::Hardware => &hardware,
            Model::Twin if vaccination > 0.0 => {
                vaccines = stack.vaccines(vaccination, runtime.random(Purpose::Mismatch).at(state.step));
                drawn = vaccines.iter().map(|layer| &**layer).collect();
                &drawn
            }
            Model::Twin => &twin,
        };
        backward_rule.same = true;
        let noise = vec![noise; stack.stages().len()];
        let random = draw.of(runtime.random(Purpose::Noise));
        propagation.pass(runtime, stack, backward_rule.layers, params, true, &noise, random)?;
        return back(propagation, &backward_rule, update);
    }
    cost.add(1, batch.len());
    cost.operations += 2 * operations;
    propagation.forward(runtime, stack, &hardware, params, exact, draw)?;
    if let Rule::ForwardGradient { directions } = *rule {
        propagation.report(states);
        propagation.seed_output_errors(loss, &batch.y);
        if !exact {
            propagation.prepare_twins(runtime, stack, &twin, params);
        }
        cost.operations += u64::from(directions) * 2 * operations;
        return forward(runtime, (directions, state.step), stack, &twin, exact, params, propagation, update);
    }
    let mut turned = Vec::new();
    let matrices: Vec<&[T]>;
    backward_rule.reverse = *rule == Rule::InSituBackprop;
    cost.reversed += if backward_rule.reverse { batch.len() as u64 } else { 0 };
    match *rule {
        Rule::FeedbackAlignment { feedback } => {
            if feedback == Feedback::SignSymmetric {
                turned = feedback_layers(stack).iter().map(|&l| signs(runtime, stack, l, params)).collect();
            }
            let mut found: Vec<&[T]> = if feedback == Feedback::SignSymmetric {
                turned.iter().map(Vec::as_slice).collect()
            } else {
                state.memory.iter().map(|array| &**array).collect()
            };
            // Propagations count all linear layers.
            let all = stack.stages().iter().filter(|stage| stage.twin.as_linear().is_some()).count();
            (found.len()..all).for_each(|_| found.insert(0, &[]));
            matrices = found;
            backward_rule.feedback = &matrices;
        }
        Rule::DirectFeedbackAlignment { slope } => {
            matrices = state.memory.iter().map(|array| &**array).collect();
            backward_rule.error_signal = ErrorSignal::DirectFeedback(&matrices);
            backward_rule.slope = slope;
        }
        _ => {}
    }
    back(propagation, &backward_rule, update)
}

/// The mean over random directions of each times the slope of the loss along it (Baydin et al. 2022): signals change along with
/// the parameters, and nothing goes back.
#[allow(clippy::too_many_arguments, reason = "a step, and where it is made")]
fn forward<T: Real>(
    runtime: &Runtime,
    (directions, step): (u32, u64),
    stack: &Stack<T>,
    twin: &[&dyn Layer<T>],
    same: bool,
    params: &Params<'_, T>,
    propagation: &mut Propagation<T>,
    update: &mut LocalUpdate<T>,
) -> Result<()> {
    let n = stack.specs().iter().map(ParamSpec::len).sum();
    let (mut direction, mut gradient) = (vec![T::ZERO; n], vec![T::ZERO; n]);
    let random = runtime.random(Purpose::Direction);
    for k in 0..u64::from(directions) {
        DrawIndex::of_step(step).after(k).of(random).fill_normal(runtime.level(), 0, 0, &mut direction);
        let along = Params::shared(cut(stack.specs(), &direction));
        let slope = propagation.slope(runtime, stack, twin, same, params, &along)?;
        add_scaled(runtime.level(), &direction, T::from_f64(slope / f64::from(directions)), &mut gradient);
    }
    update.set(stack.specs(), &gradient);
    Ok(())
}

/// The signs of the transposed weights of a layer, times their initial deviation.
fn signs<T: Real>(runtime: &Runtime, stack: &Stack<T>, l: usize, params: &Params<'_, T>) -> Vec<T> {
    let stage = &stack.stages()[l];
    let (rows, cols) = (stage.twin.inputs(), stage.twin.outputs());
    let mut turned = vec![T::ZERO; rows * cols];
    transpose(runtime.level(), params.get(stage.params.start), rows, cols, 0..cols, &mut turned, rows);
    let scale = T::from_f64(1.0 / (rows as f64).sqrt());
    for value in &mut turned {
        *value = if *value < T::ZERO { -scale } else { scale };
    }
    turned
}

/// Changes the feedback matrices as plain gradient descent is about to change the weights that they stand for.
pub(super) fn follow<T: Real>(
    runtime: &Runtime,
    stack: &Stack<T>,
    weight_decay: f64,
    rates: &[f64],
    update: &LocalUpdate<T>,
    memory: &mut [&mut [T]],
) {
    for (l, matrix) in feedback_layers(stack).into_iter().zip(memory) {
        let stage = &stack.stages()[l];
        let (k, rows, cols) = (stage.params.start, stage.twin.outputs(), stage.twin.inputs());
        let keep = T::from_f64(1.0 - rates[k] * weight_decay);
        matrix.iter_mut().for_each(|value| *value *= keep);
        let Term::Product(blocks) = &update.terms[k] else { continue };
        let rate = T::from_f64(-rates[k]);
        for (inputs, errors) in blocks {
            let errors: Vec<T> = errors.iter().map(|&e| rate * e).collect();
            let errors = Strided { data: &errors, row: 1, column: rows };
            let shape = (rows, inputs.len() / cols, cols);
            multiply(runtime.level(), errors, Dense { data: inputs, stride: cols }, shape, matrix, cols);
        }
    }
}
