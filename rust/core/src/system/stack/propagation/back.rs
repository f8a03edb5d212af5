//! Errors on their way back through a stack.

use std::ops::Range;

use pnncore_kernels::Real;
use pnncore_kernels::gemm::{Dense, Strided, multiply};
use pnncore_kernels::philox::{Philox, Purpose};
use smallvec::SmallVec;

use super::{Block, Propagation, each, for_each_stage, outputs_without_noise};
use crate::Result;
use crate::batch::Batch;
use crate::scratch::{Lent, Scratch};
use crate::system::stack::layer::{
    Answer, ForwardRecord, Layer, LayerContext, LightProtocol, Role, SurrogateDerivative,
};
use crate::system::stack::{Layers, Stack, StackAt, Stage};
use crate::update::{LocalUpdate, Products, Term};

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
pub struct BackwardRule<'a, T: Real> {
    /// The layers whose derivatives are used.
    pub layers: Layers<'a, T>,
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
    /// Whether hardware answers itself: what can be run backwards passes errors back, and light is
    /// read by this protocol.
    pub in_situ: Option<LightProtocol>,
}

impl<'a, T: Real> BackwardRule<'a, T> {
    /// Errors come back through these layers, by their derivatives.
    pub fn of(layers: Layers<'a, T>, same: bool) -> Self {
        let (feedback, error_signal, slope) =
            (&[][..], ErrorSignal::Chain, SurrogateDerivative::Twin);
        Self { layers, same, feedback, error_signal, slope, inputs: false, in_situ: None }
    }
}

impl<T: Real> BackwardRule<'_, T> {
    /// Whether errors of the inputs of a stage are of use: what comes back before the first
    /// parameters nobody asks for.
    fn asks(&self, stage: &Stage<T>) -> bool {
        stage.params.start > 0 || self.inputs
    }

    /// Whether the hardware of a stage answers itself.
    fn answers_itself(&self, stage: &Stage<T>) -> bool {
        let hardware = stage.hardware();
        matches!(self.in_situ, Some(LightProtocol::Backward(_)))
            && (hardware.scattering_read().is_some() || self.asks(stage) && hardware.has_reverse())
    }

    /// The run of layers with monitors that layer `l` is in, where light is read in situ.
    fn light<'s>(
        &self,
        stack: &'s Stack<T>,
        l: usize,
    ) -> Option<(LightProtocol, &'s Range<usize>)> {
        self.in_situ.zip(stack.light().iter().find(|run| run.contains(&l)))
    }

    /// Whether what layer `l` answers is heard before it, and not something else.
    fn is_heard(&self, stack: &Stack<T>, l: usize) -> bool {
        match self.error_signal {
            ErrorSignal::Chain => true,
            ErrorSignal::DirectFeedback(direct) => {
                let group = stack.groups().iter().position(|group| group.end == l);
                group.is_none_or(|g| g >= direct.len())
            }
            ErrorSignal::Local => !is_linear(stack.layer(self.layers, l)),
        }
    }

    /// What stands for the transposed weights of layer `l`.
    fn matrix(&self, stack: &Stack<T>, l: usize) -> Option<&[T]> {
        let before = stack.stages()[..l].iter().filter(|stage| stage.is_linear_map()).count();
        self.feedback.get(before).copied().filter(|_| is_linear(stack.layer(self.layers, l)))
    }

    /// What brings the error of the stack to the outputs of layer `l`.
    fn direct(&self, stack: &Stack<T>, l: usize) -> Option<&[T]> {
        let ErrorSignal::DirectFeedback(direct) = self.error_signal else { return None };
        direct.get(stack.groups().iter().position(|group| group.end == l + 1)?).copied()
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
        self.prepare_backward(at, rule);
        let samples: usize = self.blocks.iter().map(|block| block.rows).sum();
        let Self { blocks, prepared, reversed, scratch, .. } = self;
        let random = self.random.unwrap_or_else(|| at.runtime.random(Purpose::Noise));
        let backward = Backward { at, rule, prepared, reversed, samples, random };
        each(at.runtime, at.stack.work(), blocks, scratch, |block, scratch| {
            backward.block(block, scratch)
        })?;
        self.collect(at, rule.layers, update);
        Ok(())
    }

    /// Prepares what derivatives and hardware that is run backwards need.
    fn prepare_backward(&mut self, at: StackAt<'_, T>, rule: &BackwardRule<'_, T>) {
        let StackAt { stack, .. } = at;
        let level = at.runtime.level();
        for_each_stage(at, &mut self.prepared, |l, stage, prepared| {
            if rule.light(stack, l).is_some() {
                // What the hardware passed signals by stays: light passes it again.
                return;
            }
            let layer = stack.layer(rule.layers, l);
            let (late, values) = (layer.prepares_transpose_alone(), &at.params_of(stage));
            let passes = rule.asks(stage) && rule.is_heard(stack, l);
            let by_transpose =
                passes && !rule.answers_itself(stage) && rule.matrix(stack, l).is_none();
            if !rule.same {
                let memory = at.memory_of(stage, rule.layers);
                layer.prepare(level, values, memory, by_transpose || !late, prepared);
            } else if late && by_transpose {
                layer.prepare_transpose(level, values, prepared);
            }
        });
        self.reversed.resize_with(stack.stages().len(), Vec::new);
        for_each_stage(at, &mut self.reversed, |l, stage, reversed| {
            if rule.answers_itself(stage) || rule.light(stack, l).is_some() {
                let memory = at.memory_of(stage, Layers::Hardware);
                stage.hardware().prepare_reverse(level, &at.params_of(stage), memory, reversed);
            }
        });
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
        self.begin(at.stack, batch);
        self.pass(at, Layers::Twin, true, |_| 0.0, at.runtime.random(Purpose::Noise))?;
        self.clear_errors();
        self.set_errors(at.stack.stages().len() - 1, errors);
        let rule = BackwardRule { inputs: true, ..BackwardRule::of(Layers::Twin, true) };
        self.backward(at, &rule, update)
    }

    /// Moves the gradients of the blocks into the terms of an update: products keep their rows.
    fn collect(&mut self, at: StackAt<'_, T>, layers: Layers<'_, T>, update: &mut LocalUpdate<T>) {
        let stack = at.stack;
        update.terms.resize_with(stack.specs.len(), || Term::Dense(Vec::new()));
        for (l, stage) in stack.stages().iter().enumerate() {
            let layer = stack.layer(layers, l);
            for k in stage.params.clone() {
                let term = &mut update.terms[k];
                if layer.is_factored() && k == stage.params.start {
                    let values = at.params_of(stage);
                    let precision = layer.precision();
                    if !matches!(term, Term::Product(_)) {
                        *term = Term::Product(Products { blocks: Vec::new(), precision });
                    }
                    let Term::Product(products) = term else { continue };
                    products.precision = precision;
                    let blocks = &mut products.blocks;
                    blocks.resize_with(self.blocks.len(), Default::default);
                    for ((left, right), block) in blocks.iter_mut().zip(&mut self.blocks) {
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
pub(super) struct Backward<'a, T: Real> {
    pub(super) at: StackAt<'a, T>,
    rule: &'a BackwardRule<'a, T>,
    pub(super) prepared: &'a [Vec<T>],
    /// The same for hardware that is run backwards.
    pub(super) reversed: &'a [Vec<T>],
    samples: usize,
    random: Philox,
}

impl<T: Real> Backward<'_, T> {
    /// Passes the errors of a block back.
    fn block(&self, block: &mut Block<T>, scratch: &Scratch<T>) -> Result<()> {
        let fields = self.fields(block, scratch)?;
        let (stack, rule) = (self.at.stack, self.rule);
        let Block { first, rows, signals, errors, noiseless, tapes, gradients, .. } = block;
        gradients.resize_with(stack.specs.len(), Vec::new);
        for (l, stage) in stack.stages().iter().enumerate().rev() {
            let layer = stack.layer(rule.layers, l);
            self.bring((*rows, l), errors);
            let gradient = &mut gradients[stage.params.clone()];
            for (k, (gradient, spec)) in
                gradient.iter_mut().zip(&stack.specs[stage.params.clone()]).enumerate()
            {
                gradient.clear();
                gradient
                    .resize(if k == 0 && layer.is_factored() { 0 } else { spec.len() }, T::ZERO);
            }
            if let Some((protocol, run)) = rule.light(stack, l) {
                let (before, after) = errors.split_at_mut(run.end);
                let (dx, dy) = (&mut before[l], &after[0]);
                if run.start == l && !dy.is_empty() {
                    let asked = if rule.asks(stage) { *rows * layer.inputs() } else { 0 };
                    dx.resize(asked, T::ZERO);
                    let ends = (&signals[..], &dy[..], &mut dx[..]);
                    let place = (*rows, *first);
                    self.read_light((protocol, run.clone()), place, ends, gradients, scratch)?;
                }
                continue;
            }
            let gradient = &mut gradients[stage.params.clone()];
            let (before, after) = errors.split_at_mut(l + 1);
            let (dx, dy) = (&mut before[l], &after[0]);
            if dy.is_empty() {
                continue;
            }
            // Errors that the layer before has of its own stay what they are.
            let is_local = matches!(rule.error_signal, ErrorSignal::Local);
            let is_heard = rule.is_heard(stack, l) && (dx.is_empty() || !is_local);
            let mut unheard = Vec::new();
            let dx = if is_heard { dx } else { &mut unheard };
            let wanted = if is_heard && rule.asks(stage) { *rows * layer.inputs() } else { 0 };
            dx.resize(wanted, T::ZERO);
            if dx.is_empty() && gradient.is_empty() {
                continue;
            }
            let params = self.at.params_of(stage);
            let context = self.context(&params, (l, *first), scratch);
            let y = outputs_without_noise(signals, noiseless, l);
            let left = ForwardRecord { rows: *rows, x: &signals[l], y, tape: &tapes[l] };
            let mut again = Retraced::new(scratch);
            let record = match fields.get(l) {
                Some(Some(Retraced { y, tape })) => {
                    ForwardRecord { x: arriving(layer, &fields, l, signals), y, tape, ..left }
                }
                _ if rule.same => left,
                _ => again.retrace(layer, context, left)?,
            };
            layer.backward(self.answer(l), context, record, dy, dx, gradient)?;
        }
        Ok(())
    }

    /// By what layer `l` answers.
    fn answer(&self, l: usize) -> Answer<'_, T> {
        let (rule, stack) = (self.rule, self.at.stack);
        let stage = &stack.stages()[l];
        if let Some(matrix) = rule.matrix(stack, l) {
            return Answer::Feedback(matrix);
        }
        if rule.answers_itself(stage) {
            let (prepared, samples) = (&self.reversed[l], self.samples);
            return Answer::Physics { hardware: stage.hardware(), prepared, samples };
        }
        let is_pointwise = stack.layer(rule.layers, l).role() == Role::Pointwise;
        if is_pointwise && rule.slope != SurrogateDerivative::Twin {
            return Answer::Surrogate(rule.slope);
        }
        Answer::Derivatives
    }

    /// What the twins make of fields, layer by layer, where signals came from other layers: from
    /// real signals, which were measured, to the next real ones. Empty where there are none.
    fn fields<'s>(&self, block: &Block<T>, scratch: &'s Scratch<T>) -> Result<Fields<'s, T>> {
        let mut fields = Fields::new();
        let stack = self.at.stack;
        let are_fields = |stage: &Stage<T>| stage.twin().gives().complex;
        if self.rule.same || !stack.stages().iter().any(are_fields) {
            return Ok(fields);
        }
        for (l, stage) in stack.stages().iter().enumerate() {
            let layer = stack.layer(self.rule.layers, l);
            // Where light was read, the field behind is that of the hardware.
            let is_light = layer.takes().complex || layer.gives().complex;
            let is_light = is_light && self.rule.light(stack, l).is_none();
            let mut found = is_light.then(|| Retraced::new(scratch));
            if let Some(found) = &mut found {
                let x = arriving(layer, &fields, l, &block.signals);
                let record = ForwardRecord { rows: block.rows, x, y: &[], tape: &[] };
                let params = self.at.params_of(stage);
                let context = self.context(&params, (l, block.first), scratch);
                found.retrace(layer, context, record)?;
            }
            fields.push(found);
        }
        Ok(fields)
    }

    /// Brings the error of the stack to the outputs of layer `l`, where it goes there directly.
    fn bring(&self, (rows, l): (usize, usize), errors: &mut [Vec<T>]) {
        let stack = self.at.stack;
        let (Some(matrix), Some((last, before))) =
            (self.rule.direct(stack, l), errors.split_last_mut())
        else {
            return;
        };
        let (out, n) = (stack.outputs, stack.stages()[l].twin().outputs());
        let into = &mut before[l + 1];
        into.clear();
        into.resize(rows * n, T::ZERO);
        let from = Strided { data: last, row: out, column: 1 };
        multiply(
            self.at.runtime.level(),
            from,
            Dense { data: matrix, stride: n },
            (rows, out, n),
            into,
            n,
        );
    }

    pub(super) fn context<'c>(
        &'c self,
        params: &'c [&'c [T]],
        (layer, first): (usize, usize),
        scratch: &'c Scratch<T>,
    ) -> LayerContext<'c, T> {
        LayerContext {
            level: self.at.runtime.level(),
            params,
            prepared: &self.prepared[layer],
            layer,
            first,
            random: self.random,
            scratch,
        }
    }
}

/// What arrives at layer `l`: the field of the twin before it, or the real signals that were
/// measured.
fn arriving<'a, T: Real>(
    layer: &dyn Layer<T>,
    fields: &'a [Option<Retraced<'_, T>>],
    l: usize,
    signals: &'a [Vec<T>],
) -> &'a [T] {
    match l.checked_sub(1).and_then(|before| fields[before].as_ref()) {
        Some(field) if layer.takes().complex => &field.y,
        _ => &signals[l],
    }
}

/// The passes of fields through layers, one after the other; few layers are light.
type Fields<'s, T> = SmallVec<[Option<Retraced<'s, T>>; 8]>;

/// The pass of the same inputs through a layer that the signals did not come from.
pub(super) struct Retraced<'s, T> {
    pub(super) y: Lent<'s, Vec<T>>,
    tape: Lent<'s, Vec<T>>,
}

impl<'s, T: Real> Retraced<'s, T> {
    pub(super) fn new(scratch: &'s Scratch<T>) -> Self {
        Self { y: scratch.empty(), tape: scratch.empty() }
    }

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
