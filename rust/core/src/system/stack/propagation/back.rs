//! Errors on their way back through a stack.

use pnncore_kernels::Real;
use pnncore_kernels::gemm::{Strided, multiply};
use pnncore_kernels::philox::Purpose;
use pnncore_kernels::sparse::Dense;

use super::{Block, Propagation, each, groups, needs_transpose, of_stage, outputs_without_noise, work};
use crate::Result;
use crate::batch::Batch;
use crate::params::Params;
use crate::runtime::Runtime;
use crate::system::stack::layer::{ForwardRecord, Layer, LayerContext};
use crate::system::stack::{Stack, Stage};
use crate::update::{LocalUpdate, Term};

/// How a pointwise layer answers an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SurrogateDerivative {
    /// By the slope of the twin.
    Twin,
    /// By one.
    One,
    /// By one where |z| < 1, otherwise by zero.
    Box,
    /// By 1 - |z| / 2 where that is positive.
    Triangle,
}

impl SurrogateDerivative {
    fn at<T: Real>(self, z: T) -> T {
        match self {
            Self::Box if z.abs() >= T::ONE => T::ZERO,
            Self::Triangle => {
                let left = T::ONE - T::from_f64(0.5) * z.abs();
                if left < T::ZERO { T::ZERO } else { left }
            }
            Self::Box | Self::One | Self::Twin => T::ONE,
        }
    }
}

/// What the outputs of a group of layers hear of an error.
#[derive(Debug, Clone, Copy)]
pub enum ErrorSignal<'a, T> {
    /// What comes back through the layers after it.
    Chain,
    /// The error of the stack's outputs times a matrix (outputs of the stack, outputs of the group), for each group but the
    /// last, which hears the error itself.
    DirectFeedback(&'a [&'a [T]]),
    /// What [`Propagation::set_errors`] has put there, for whichever layers; nothing goes from one linear layer to the one before.
    Local,
}

/// How the layers of a stack answer an error on its way back.
pub struct BackwardRule<'a, T> {
    /// The layers whose derivatives are used.
    pub layers: &'a [&'a dyn Layer<T>],
    /// Whether the signals came from these very layers: what they left on the tape then serves.
    pub same: bool,
    /// In the place of the transposed weights of a linear layer: a matrix (outputs, inputs) for each; empty: the transposed
    /// weights.
    pub feedback: &'a [&'a [T]],
    /// What the outputs of a group of layers hear.
    pub error_signal: ErrorSignal<'a, T>,
    /// How pointwise layers answer.
    pub slope: SurrogateDerivative,
    /// Whether the errors of the inputs are wanted, too.
    pub inputs: bool,
    /// Whether hardware that can be run backwards passes errors back itself.
    pub reverse: bool,
}

impl<'a, T> BackwardRule<'a, T> {
    /// Errors come back through these layers, by their derivatives.
    pub fn of(layers: &'a [&'a dyn Layer<T>], same: bool) -> Self {
        let (feedback, error_signal, slope) = (&[][..], ErrorSignal::Chain, SurrogateDerivative::Twin);
        Self { layers, same, feedback, error_signal, slope, inputs: false, reverse: false }
    }
}

impl<T: Real> Propagation<T> {
    /// Passes the errors of the outputs back, and leaves the gradient in `update`.
    ///
    /// # Errors
    /// What a layer may fail with.
    pub fn backward(
        &mut self,
        runtime: &Runtime,
        stack: &Stack<T>,
        backward_rule: &BackwardRule<'_, T>,
        params: &Params<'_, T>,
        update: &mut LocalUpdate<T>,
    ) -> Result<()> {
        let stages = stack.stages();
        // What comes back before the first parameters nobody asks for.
        let asked = |stage: &Stage<T>| stage.params.start > 0 || backward_rule.inputs;
        let back = |stage: &Stage<T>| backward_rule.reverse && asked(stage) && stage.hardware().has_reverse();
        let groups = groups(stack);
        // Nor what comes back to where something else is heard.
        let heard = |l: usize| match backward_rule.error_signal {
            ErrorSignal::Chain => true,
            ErrorSignal::DirectFeedback(direct) => {
                groups.iter().position(|group| group.end == l).is_none_or(|g| g >= direct.len())
            }
            ErrorSignal::Local => backward_rule.layers[l].as_linear().is_none(),
        };
        let linear = |l: usize| stages[..l].iter().filter(|stage| stage.twin.as_linear().is_some()).count();
        let matrix = |l: usize| backward_rule.layers[l].as_linear().and_then(|_| backward_rule.feedback.get(linear(l)));
        for (l, (layer, stage)) in backward_rule.layers.iter().zip(stages).enumerate() {
            let bare = needs_transpose(*layer);
            if bare || !backward_rule.same {
                let own = asked(stage) && heard(l) && !back(stage) && matrix(l).is_none();
                let values = of_stage(params, stage.params.clone());
                layer.prepare(runtime.level(), &values, own || !bare, &mut self.prepared[l]);
            }
        }
        self.reversed.resize_with(stages.len(), Vec::new);
        for (stage, reversed) in stages.iter().zip(&mut self.reversed).filter(|(stage, _)| back(stage)) {
            stage.hardware().prepare_reverse(runtime.level(), &of_stage(params, stage.params.clone()), reversed);
        }
        let samples: usize = self.blocks.iter().map(|block| block.rows).sum();
        let (prepared, reversed) = (&self.prepared, &self.reversed);
        let random = self.random.unwrap_or_else(|| runtime.random(Purpose::Noise));
        let run = |block: &mut Block<T>| -> Result<()> {
            let first = block.first;
            let Block { rows, signals, errors, noiseless, tapes, gradients, .. } = block;
            let rows = *rows;
            gradients.resize_with(stack.specs.len(), Vec::new);
            for l in (0..stages.len()).rev() {
                let (layer, stage) = (backward_rule.layers[l], &stages[l]);
                let values = of_stage(params, stage.params.clone());
                let context = LayerContext {
                    level: runtime.level(),
                    params: &values,
                    prepared: &prepared[l],
                    layer: l,
                    first,
                    random,
                };
                let group = groups.iter().position(|group| group.end == l + 1);
                if let (ErrorSignal::DirectFeedback(direct), Some(g)) = (backward_rule.error_signal, group)
                    && let Some(matrix) = direct.get(g)
                {
                    let (out, n) = (stack.outputs, layer.outputs());
                    let (into, from) = errors.split_at_mut(stages.len());
                    let into = &mut into[l + 1];
                    into.clear();
                    into.resize(rows * n, T::ZERO);
                    let from = Strided { data: &from[0], row: out, column: 1 };
                    multiply(runtime.level(), from, Dense { data: matrix, stride: n }, (rows, out, n), into, n);
                }
                let plain = layer.as_linear().is_some_and(|linear| linear.is_plain());
                for (k, spec) in stage.params.clone().zip(&stack.specs[stage.params.clone()]) {
                    gradients[k].clear();
                    gradients[k].resize(if plain && k == stage.params.start { 0 } else { spec.len() }, T::ZERO);
                }
                let (before, after) = errors.split_at_mut(l + 1);
                let (dx, dy) = (&mut before[l], &after[0]);
                if dy.is_empty() {
                    continue;
                }
                let heard = heard(l) && (dx.is_empty() || !matches!(backward_rule.error_signal, ErrorSignal::Local));
                let matrix = matrix(l);
                let wanted = asked(stage) && heard;
                let dx: &mut Vec<T> = if heard { dx } else { &mut Vec::new() };
                dx.resize(if wanted { rows * layer.inputs() } else { 0 }, T::ZERO);
                let hardware = stage.hardware();
                let back = back(stage) && wanted && matrix.is_none();
                let asked: &mut [T] = if matrix.is_some() || back { &mut [] } else { dx };
                if backward_rule.slope != SurrogateDerivative::Twin && layer.is_pointwise() {
                    for ((dx, &dy), &z) in asked.iter_mut().zip(dy).zip(&signals[l]) {
                        *dx = dy * backward_rule.slope.at(z);
                    }
                    continue;
                }
                let gradient = &mut gradients[stage.params.clone()];
                if asked.is_empty() && gradient.is_empty() && !wanted {
                    continue;
                }
                let y = outputs_without_noise(signals, noiseless, l);
                let left = ForwardRecord { rows, x: &signals[l], y, tape: &tapes[l] };
                let mut memory = Default::default();
                let record = if backward_rule.same { left } else { again(layer, context, left, &mut memory)? };
                layer.vjp(context, record, dy, asked, gradient)?;
                if back {
                    reverse(hardware, LayerContext { prepared: &reversed[l], ..context }, samples, dy, dx)?;
                }
                if let (Some(matrix), true) = (matrix, wanted) {
                    let (n, m) = (layer.outputs(), layer.inputs());
                    dx.fill(T::ZERO);
                    let dy = Strided { data: dy, row: n, column: 1 };
                    multiply(runtime.level(), dy, Dense { data: matrix, stride: m }, (rows, n, m), dx, m);
                }
                let other = wanted && (back || matrix.is_some());
                if let Some(linear) = layer.as_linear().filter(|linear| other && linear.is_ranged()) {
                    // The range of inputs hears what came back, and not what derivatives would have given.
                    gradient.iter_mut().last().into_iter().for_each(|range| range.fill(T::ZERO));
                    linear.pull_range(&values, &signals[l], dx, gradient);
                }
            }
            Ok(())
        };
        each(runtime, work(params), &mut self.blocks, run)?;
        self.collect(stack, backward_rule.layers, params, update);
        Ok(())
    }

    /// Passes a batch through the twins, without noise, and `errors` of the outputs, row by row, back to parameters, in `update`,
    /// and to inputs: see [`Propagation::input_errors`].
    ///
    /// # Errors
    /// What a layer may fail with.
    pub fn vjp(
        &mut self,
        runtime: &Runtime,
        stack: &Stack<T>,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        errors: &[T],
        update: &mut LocalUpdate<T>,
    ) -> Result<()> {
        let twin = stack.twin();
        self.begin(stack, batch);
        self.pass(runtime, stack, &twin, params, true, &vec![0.0; twin.len()], runtime.random(Purpose::Noise))?;
        self.clear_errors();
        self.set_errors(twin.len() - 1, errors);
        self.backward(runtime, stack, &BackwardRule { inputs: true, ..BackwardRule::of(&twin, true) }, params, update)
    }

    /// Moves the gradients of the blocks into the terms of an update: products keep their rows.
    fn collect(
        &mut self,
        stack: &Stack<T>,
        layers: &[&dyn Layer<T>],
        params: &Params<'_, T>,
        update: &mut LocalUpdate<T>,
    ) {
        update.terms.resize_with(stack.specs.len(), || Term::Dense(Vec::new()));
        for (l, (layer, stage)) in layers.iter().zip(stack.stages()).enumerate() {
            let plain = layer.as_linear().filter(|linear| linear.is_plain());
            for k in stage.params.clone() {
                let term = &mut update.terms[k];
                if let Some(linear) = plain.filter(|_| k == stage.params.start) {
                    let values = of_stage(params, stage.params.clone());
                    if !matches!(term, Term::Product(_)) {
                        *term = Term::Product(Vec::new());
                    }
                    let Term::Product(products) = term else { continue };
                    products.resize_with(self.blocks.len(), Default::default);
                    for ((left, right), block) in products.iter_mut().zip(&mut self.blocks) {
                        std::mem::swap(left, &mut block.signals[l]);
                        linear.clip_inputs(&values, left);
                        std::mem::swap(right, &mut block.errors[l + 1]);
                    }
                    continue;
                }
                if !matches!(term, Term::Dense(_)) {
                    *term = Term::Dense(Vec::new());
                }
                let Term::Dense(total) = term else { continue };
                total.clear();
                total.resize(stack.specs[k].len(), T::ZERO);
                for block in &self.blocks {
                    total.iter_mut().zip(&block.gradients[k]).for_each(|(total, &part)| *total += part);
                }
            }
        }
    }
}

/// What comes back through the hardware. Errors are those of a mean over `samples`, but every sample sends its own: what converters
/// and noise make of it does not depend on how many others there are.
fn reverse<T: Real>(
    hardware: &dyn Layer<T>,
    context: LayerContext<'_, T>,
    samples: usize,
    dy: &[T],
    dx: &mut [T],
) -> Result<()> {
    let count = T::from_f64(samples as f64);
    let own: Vec<T> = dy.iter().map(|&e| e * count).collect();
    hardware.reverse(context, &own, dx)?;
    dx.iter_mut().for_each(|dx| *dx /= count);
    Ok(())
}

/// The pass of the same inputs through a layer that the signals did not come from; linear layers need none for derivatives.
pub(super) fn again<'a, T: Real>(
    layer: &dyn Layer<T>,
    context: LayerContext<'_, T>,
    left: ForwardRecord<'a, T>,
    (y, tape): &'a mut (Vec<T>, Vec<T>),
) -> Result<ForwardRecord<'a, T>> {
    if layer.as_linear().is_some() {
        return Ok(left);
    }
    y.resize(left.rows * layer.outputs(), T::ZERO);
    tape.resize(left.rows * layer.tape(), T::ZERO);
    layer.forward(context, left.rows, left.x, y, tape)?;
    Ok(ForwardRecord { y, tape, ..left })
}
