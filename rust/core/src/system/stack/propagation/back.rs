//! Errors on their way back through a stack.

use std::ops::Range;

use pnncore_kernels::Real;
use pnncore_kernels::gemm::{Strided, multiply};
use pnncore_kernels::philox::{Philox, Purpose};
use pnncore_kernels::sparse::Dense;

use super::{Block, Propagation, each, groups, outputs_without_noise};
use crate::Result;
use crate::batch::Batch;
use crate::runtime::Runtime;
use crate::system::stack::layer::{
    Answer, ForwardRecord, Layer, LayerContext, Role, SurrogateDerivative,
};
use crate::system::stack::{Stack, StackAt, Stage};
use crate::update::{LocalUpdate, Term};

/// What the outputs of a group of layers hear of an error.
#[derive(Debug, Clone, Copy)]
pub enum ErrorSignal<'a, T> {
    /// What comes back through the layers after it.
    Chain,
    /// The error of the stack's outputs times a matrix (outputs of the stack, outputs of the
    /// group), for each group but the last, which hears the error itself.
    DirectFeedback(&'a [&'a [T]]),
    /// What [`Propagation::set_errors`] has put there, for whichever layers; nothing goes from one
    /// linear layer to the one before.
    Local,
}

/// How the layers of a stack answer an error on its way back.
pub struct BackwardRule<'a, T> {
    /// The layers whose derivatives are used.
    pub layers: &'a [&'a dyn Layer<T>],
    /// Whether the signals came from these very layers: what they left on the tape then serves.
    pub same: bool,
    /// In the place of the transposed weights of a linear layer: a matrix (outputs, inputs) for
    /// each; empty: the transposed weights.
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
        let (feedback, error_signal, slope) =
            (&[][..], ErrorSignal::Chain, SurrogateDerivative::Twin);
        Self { layers, same, feedback, error_signal, slope, inputs: false, reverse: false }
    }
}

/// How errors pass a layer, which is the same for all blocks.
struct Passage<'a, T> {
    layer: &'a dyn Layer<T>,
    params: Vec<&'a [T]>,
    prepared: &'a [T],
    answer: Answer<'a, T>,
    /// Whether errors of its inputs are asked for.
    is_asked: bool,
    /// Whether they are heard before it.
    is_heard: bool,
    /// What brings the error of the stack to its outputs.
    direct: Option<&'a [T]>,
}

impl<T: Real> BackwardRule<'_, T> {
    /// Whether errors of the inputs of a stage are of use: what comes back before the first
    /// parameters nobody asks for.
    fn asks(&self, stage: &Stage<T>) -> bool {
        stage.params.start > 0 || self.inputs
    }

    /// Whether the hardware of a stage answers itself.
    fn reverses(&self, stage: &Stage<T>) -> bool {
        self.reverse && self.asks(stage) && stage.hardware().has_reverse()
    }

    /// Whether what layer `l` answers is heard before it, and not something else.
    fn is_heard(&self, groups: &[Range<usize>], l: usize) -> bool {
        match self.error_signal {
            ErrorSignal::Chain => true,
            ErrorSignal::DirectFeedback(direct) => {
                groups.iter().position(|group| group.end == l).is_none_or(|g| g >= direct.len())
            }
            ErrorSignal::Local => !is_linear(self.layers[l]),
        }
    }

    /// What stands for the transposed weights of layer `l`.
    fn matrix(&self, stages: &[Stage<T>], l: usize) -> Option<&[T]> {
        let before = stages[..l].iter().filter(|stage| stage.is_linear_map()).count();
        self.feedback.get(before).copied().filter(|_| is_linear(self.layers[l]))
    }

    /// What brings the error of the stack to the outputs of layer `l`.
    fn direct(&self, groups: &[Range<usize>], l: usize) -> Option<&[T]> {
        let ErrorSignal::DirectFeedback(direct) = self.error_signal else { return None };
        direct.get(groups.iter().position(|group| group.end == l + 1)?).copied()
    }
}

fn is_linear<T: Real>(layer: &dyn Layer<T>) -> bool {
    matches!(layer.role(), Role::LinearMap { .. })
}

impl<T: Real> Propagation<T> {
    /// Passes the errors of the outputs back, and leaves the gradient in `update`.
    ///
    /// # Errors
    /// What a layer may fail with.
    pub fn backward(
        &mut self,
        at: StackAt<'_, T>,
        rule: &BackwardRule<'_, T>,
        update: &mut LocalUpdate<T>,
    ) -> Result<()> {
        let StackAt { runtime, stack, .. } = at;
        let groups = groups(stack);
        self.prepare_backward(at, rule, &groups);
        let samples: usize = self.blocks.iter().map(|block| block.rows).sum();
        let passages = stack.stages().iter().enumerate().map(|(l, stage)| {
            let hardware = stage.hardware();
            let answer = match rule.matrix(stack.stages(), l) {
                Some(matrix) => Answer::Feedback(matrix),
                None if rule.reverses(stage) => {
                    Answer::Physics { hardware, prepared: &self.reversed[l], samples }
                }
                None if rule.slope != SurrogateDerivative::Twin
                    && rule.layers[l].role() == Role::Pointwise =>
                {
                    Answer::Surrogate(rule.slope)
                }
                None => Answer::Derivatives,
            };
            Passage {
                layer: rule.layers[l],
                params: at.params_of(stage),
                prepared: &self.prepared[l],
                answer,
                is_asked: rule.asks(stage),
                is_heard: rule.is_heard(&groups, l),
                direct: rule.direct(&groups, l),
            }
        });
        let backward = Backward {
            runtime,
            stack,
            same: rule.same,
            is_local: matches!(rule.error_signal, ErrorSignal::Local),
            passages: passages.collect(),
            random: self.random.unwrap_or_else(|| runtime.random(Purpose::Noise)),
        };
        each(runtime, stack.work(), &mut self.blocks, |block| backward.block(block))?;
        self.collect(at, rule.layers, update);
        Ok(())
    }

    /// Prepares what derivatives and hardware that is run backwards need.
    fn prepare_backward(
        &mut self,
        at: StackAt<'_, T>,
        rule: &BackwardRule<'_, T>,
        groups: &[Range<usize>],
    ) {
        let StackAt { stack, .. } = at;
        let level = at.runtime.level();
        self.reversed.resize_with(stack.stages().len(), Vec::new);
        for (l, (layer, stage)) in rule.layers.iter().zip(stack.stages()).enumerate() {
            let values = at.params_of(stage);
            let late = layer.prepares_transpose_alone();
            if late || !rule.same {
                let passes = rule.asks(stage) && rule.is_heard(groups, l);
                let by_transpose =
                    passes && !rule.reverses(stage) && rule.matrix(stack.stages(), l).is_none();
                layer.prepare(
                    level,
                    &values,
                    at.memory_of(stage, *layer),
                    by_transpose || !late,
                    &mut self.prepared[l],
                );
            }
            if rule.reverses(stage) {
                let hardware = stage.hardware();
                hardware.prepare_reverse(
                    level,
                    &values,
                    at.memory_of(stage, hardware),
                    &mut self.reversed[l],
                );
            }
        }
    }

    /// Passes a batch through the twins, without noise, and `errors` of the outputs, row by row,
    /// back to parameters, in `update`, and to inputs: see [`Propagation::input_errors`].
    ///
    /// # Errors
    /// What a layer may fail with.
    pub fn vjp(
        &mut self,
        at: StackAt<'_, T>,
        batch: &Batch<'_, T>,
        errors: &[T],
        update: &mut LocalUpdate<T>,
    ) -> Result<()> {
        let twin = at.stack.twin();
        self.begin(at.stack, batch);
        self.pass(at, &twin, true, &vec![0.0; twin.len()], at.runtime.random(Purpose::Noise))?;
        self.clear_errors();
        self.set_errors(twin.len() - 1, errors);
        self.backward(at, &BackwardRule { inputs: true, ..BackwardRule::of(&twin, true) }, update)
    }

    /// Moves the gradients of the blocks into the terms of an update: products keep their rows.
    fn collect(
        &mut self,
        at: StackAt<'_, T>,
        layers: &[&dyn Layer<T>],
        update: &mut LocalUpdate<T>,
    ) {
        let stack = at.stack;
        update.terms.resize_with(stack.specs.len(), || Term::Dense(Vec::new()));
        for (l, (layer, stage)) in layers.iter().zip(stack.stages()).enumerate() {
            for k in stage.params.clone() {
                let term = &mut update.terms[k];
                if layer.is_factored() && k == stage.params.start {
                    let values = at.params_of(stage);
                    if !matches!(term, Term::Product(_)) {
                        *term = Term::Product(Vec::new());
                    }
                    let Term::Product(products) = term else { continue };
                    products.resize_with(self.blocks.len(), Default::default);
                    for ((left, right), block) in products.iter_mut().zip(&mut self.blocks) {
                        std::mem::swap(left, &mut block.signals[l]);
                        layer.factor_inputs(&values, left);
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
                    total
                        .iter_mut()
                        .zip(&block.gradients[k])
                        .for_each(|(total, &part)| *total += part);
                }
            }
        }
    }
}

/// Errors on their way back through all layers.
struct Backward<'a, T> {
    runtime: &'a Runtime,
    stack: &'a Stack<T>,
    /// As [`BackwardRule::same`].
    same: bool,
    is_local: bool,
    passages: Vec<Passage<'a, T>>,
    random: Philox,
}

impl<T: Real> Backward<'_, T> {
    /// Passes the errors of a block back.
    fn block(&self, block: &mut Block<T>) -> Result<()> {
        let fields = self.fields(block)?;
        let Block { first, rows, signals, errors, noiseless, tapes, gradients, .. } = block;
        gradients.resize_with(self.stack.specs.len(), Vec::new);
        for (l, own) in self.passages.iter().enumerate().rev() {
            let layer = own.layer;
            self.bring(own, (*rows, l), errors);
            let params = self.stack.stages()[l].params.clone();
            let gradient = &mut gradients[params.clone()];
            for (k, (gradient, spec)) in
                gradient.iter_mut().zip(&self.stack.specs[params]).enumerate()
            {
                gradient.clear();
                gradient
                    .resize(if k == 0 && layer.is_factored() { 0 } else { spec.len() }, T::ZERO);
            }
            let (before, after) = errors.split_at_mut(l + 1);
            let (dx, dy) = (&mut before[l], &after[0]);
            if dy.is_empty() {
                continue;
            }
            // Errors that the layer before has of its own stay what they are.
            let is_heard = own.is_heard && (dx.is_empty() || !self.is_local);
            let mut unheard = Vec::new();
            let dx = if is_heard { dx } else { &mut unheard };
            dx.resize(if is_heard && own.is_asked { *rows * layer.inputs() } else { 0 }, T::ZERO);
            if dx.is_empty() && gradient.is_empty() {
                continue;
            }
            let context = self.context(l, *first);
            let y = outputs_without_noise(signals, noiseless, l);
            let left = ForwardRecord { rows: *rows, x: &signals[l], y, tape: &tapes[l] };
            let mut again = Retraced::default();
            let record = match fields.get(l) {
                Some(Some(Retraced { y, tape })) => {
                    ForwardRecord { x: arriving(layer, &fields, l, signals), y, tape, ..left }
                }
                _ if self.same => left,
                _ => again.retrace(layer, context, left)?,
            };
            layer.backward(own.answer, context, record, dy, dx, gradient)?;
        }
        Ok(())
    }

    /// What the twins make of fields, layer by layer, where signals came from other layers: from
    /// real signals, which were measured, to the next real ones. Empty where there are none.
    fn fields(&self, block: &Block<T>) -> Result<Vec<Option<Retraced<T>>>> {
        let mut fields = Vec::new();
        if self.same || !self.passages.iter().any(|own| own.layer.gives().complex) {
            return Ok(fields);
        }
        for (l, own) in self.passages.iter().enumerate() {
            let is_light = own.layer.takes().complex || own.layer.gives().complex;
            let mut found = is_light.then(Retraced::default);
            if let Some(found) = &mut found {
                let x = arriving(own.layer, &fields, l, &block.signals);
                let record = ForwardRecord { rows: block.rows, x, y: &[], tape: &[] };
                found.retrace(own.layer, self.context(l, block.first), record)?;
            }
            fields.push(found);
        }
        Ok(fields)
    }

    /// Brings the error of the stack to the outputs of layer `l`, where it goes there directly.
    fn bring(&self, own: &Passage<'_, T>, (rows, l): (usize, usize), errors: &mut [Vec<T>]) {
        let (Some(matrix), Some((last, before))) = (own.direct, errors.split_last_mut()) else {
            return;
        };
        let (out, n) = (self.stack.outputs, own.layer.outputs());
        let into = &mut before[l + 1];
        into.clear();
        into.resize(rows * n, T::ZERO);
        let from = Strided { data: last, row: out, column: 1 };
        multiply(
            self.runtime.level(),
            from,
            Dense { data: matrix, stride: n },
            (rows, out, n),
            into,
            n,
        );
    }

    fn context(&self, layer: usize, first: usize) -> LayerContext<'_, T> {
        let Passage { params, prepared, .. } = &self.passages[layer];
        LayerContext {
            level: self.runtime.level(),
            params,
            prepared,
            layer,
            first,
            random: self.random,
        }
    }
}

/// What arrives at layer `l`: the field of the twin before it, or the real signals that were
/// measured.
fn arriving<'a, T: Real>(
    layer: &dyn Layer<T>,
    fields: &'a [Option<Retraced<T>>],
    l: usize,
    signals: &'a [Vec<T>],
) -> &'a [T] {
    match l.checked_sub(1).and_then(|before| fields[before].as_ref()) {
        Some(field) if layer.takes().complex => &field.y,
        _ => &signals[l],
    }
}

/// The pass of the same inputs through a layer that the signals did not come from.
#[derive(Debug, Default)]
pub(super) struct Retraced<T> {
    pub(super) y: Vec<T>,
    tape: Vec<T>,
}

impl<T: Real> Retraced<T> {
    /// Passes what arrived through the layer; the derivatives of linear maps depend on that alone.
    pub(super) fn retrace<'a>(
        &'a mut self,
        layer: &dyn Layer<T>,
        context: LayerContext<'_, T>,
        left: ForwardRecord<'a, T>,
    ) -> Result<ForwardRecord<'a, T>> {
        if is_linear(layer) {
            return Ok(left);
        }
        self.y.resize(left.rows * layer.outputs(), T::ZERO);
        self.tape.resize(left.rows * layer.tape(), T::ZERO);
        layer.forward(context, left.rows, left.x, &mut self.y, &mut self.tape)?;
        Ok(ForwardRecord { y: &self.y, tape: &self.tape, ..left })
    }
}
