//! What methods for stacks share: one pass forward through the hardware, and errors back.

use pnncore_kernels::Real;
use pnncore_kernels::philox::Purpose;

use super::{StepResult, StepState};
use crate::Result;
use crate::params::ParamSpec;
use crate::runtime::Runtime;
use crate::system::Experiment;
use crate::system::stack::{BackwardRule, Layers, Propagation, Stack};

/// Passes the batch through the hardware, once.
///
/// # Errors
/// What a layer may fail with.
pub(super) fn measure<T: Real>(
    experiment: &Experiment<'_, T>,
    stack: &Stack<T>,
    state: &mut StepState<T>,
) -> Result<()> {
    let Experiment { batch, draw, .. } = *experiment;
    let propagation = Propagation::of(&mut state.workspace)?;
    propagation.begin(stack, batch);
    state.cost.add(1, batch.len());
    state.cost.operations += 2 * stack.operations() * batch.len() as u64;
    propagation.forward(experiment.at(stack), Layers::Hardware, stack.twins_are_exact(), draw)
}

/// Passes the gradient of the loss at the outputs that were measured back through the stack.
///
/// # Errors
/// What a layer may fail with.
pub(super) fn send_back<T: Real>(
    experiment: &Experiment<'_, T>,
    stack: &Stack<T>,
    rule: &BackwardRule<'_, T>,
    state: &mut StepState<T>,
) -> Result<StepResult> {
    let StepState { workspace, states, update, .. } = state;
    let propagation = Propagation::of(workspace)?;
    propagation.report(states);
    experiment.seed_output_errors(propagation, states)?;
    propagation.backward(experiment.at(stack), rule, update)?;
    Ok(StepResult::Gradient)
}

/// The matrix that brings errors to the outputs of layer `l`, or back through it.
pub(super) fn feedback_spec(l: usize, rows: usize, cols: usize) -> ParamSpec {
    ParamSpec { name: format!("feedback/{}", l + 1), shape: vec![rows, cols] }
}

/// Draws feedback matrices, with variance one over the number that `fan` picks of rows and columns.
pub(super) fn draw_feedback<T: Real>(
    runtime: &Runtime,
    specs: &[ParamSpec],
    fan: impl Fn((usize, usize)) -> usize,
    memory: &mut [&mut [T]],
) {
    let random = runtime.random(Purpose::Feedback);
    for (m, (array, spec)) in memory.iter_mut().zip(specs).enumerate() {
        let scale = 1.0 / (fan(spec.rows_cols()) as f64).sqrt();
        for (k, value) in array.iter_mut().enumerate() {
            *value = T::from_f64(scale * random.normal(k as u64, m as u32));
        }
    }
}
