//! Walks through a stack: signals forward, errors back.
//!
//! Rows pass in blocks, each through all layers at once, so that a block's signals stay in the caches of one core; two
//! barriers per batch, whatever the number of layers.

use pnncore_kernels::gemm::{Strided, multiply};
use pnncore_kernels::philox::{Philox, Purpose};
use pnncore_kernels::sparse::Dense;
use pnncore_kernels::{Real, add_scaled};
use rayon::prelude::*;

use super::layer::{Given, Layer, Passed};
use super::{Stack, Stage, outcome};
use crate::batch::{Batch, Targets};
use crate::lab::Lab;
use crate::loss::Loss;
use crate::params::Params;
use crate::system::Workspace;
use crate::trial::Trial;
use crate::update::{LocalUpdate, Term};
use crate::{Error, Result};

/// Some rows on their way.
#[derive(Debug, Default)]
pub struct Block<T> {
    /// The number of the first row.
    pub first: usize,
    /// How many rows there are.
    pub rows: usize,
    /// Signals between layers, the inputs first; after every layer as measured.
    pub signals: Vec<Vec<T>>,
    /// dL/d(signals).
    pub errors: Vec<Vec<T>>,
    tapes: Vec<Vec<T>>,
    /// Gradients of parameters that are no plain products, summed over the rows.
    gradients: Vec<Vec<T>>,
    /// The change of the loss along a direction.
    slope: f64,
    failure: Option<Error>,
}

/// How a pointwise layer answers an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slope {
    /// By the slope of the twin.
    Twin,
    /// By one.
    One,
    /// By one where |z| < 1, otherwise by zero.
    Box,
    /// By 1 - |z| / 2 where that is positive.
    Triangle,
}

impl<T: Real> Block<T> {
    /// Clears the rows whose outputs, of this number, are not finite; gives which.
    fn blank(&mut self, outputs: usize) -> Vec<usize> {
        let Some(last) = self.signals.last() else { return Vec::new() };
        let lost = |row: &[T]| row.iter().any(|y| !y.is_finite());
        let lost: Vec<usize> =
            last.chunks_exact(outputs).enumerate().filter(|(_, row)| lost(row)).map(|(i, _)| i).collect();
        for &i in &lost {
            for values in self.signals.iter_mut().chain(&mut self.tapes).chain(self.errors.last_mut()) {
                let width = values.len() / self.rows;
                values[i * width..(i + 1) * width].fill(T::ZERO);
            }
        }
        lost
    }
}

impl Slope {
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
pub enum Hears<'a, T> {
    /// What comes back through the layers after it.
    Chain,
    /// The error of the stack's outputs times a matrix (outputs of the stack, outputs of the group), for each group but the
    /// last, which hears the error itself.
    Direct(&'a [&'a [T]]),
    /// What [`Walk::set_errors`] has put there, for whichever layers; nothing goes from one linear layer to the one before.
    Local,
}

/// How the layers of a stack answer an error on its way back.
pub struct Answers<'a, T> {
    /// The layers whose derivatives are used.
    pub layers: &'a [&'a dyn Layer<T>],
    /// Whether the signals came from these very layers: what they left on the tape then serves.
    pub same: bool,
    /// In the place of the transposed weights of a linear layer: a matrix (outputs, inputs) for each; empty: the transposed
    /// weights.
    pub feedback: &'a [&'a [T]],
    /// What the outputs of a group of layers hear.
    pub hears: Hears<'a, T>,
    /// How pointwise layers answer.
    pub slope: Slope,
    /// Whether the errors of the inputs are wanted, too.
    pub inputs: bool,
    /// Whether hardware that can be run backwards passes errors back itself.
    pub reverse: bool,
}

impl<'a, T> Answers<'a, T> {
    /// Errors come back through these layers, by their derivatives.
    pub fn of(layers: &'a [&'a dyn Layer<T>], same: bool) -> Self {
        let (feedback, hears, slope) = (&[][..], Hears::Chain, Slope::Twin);
        Self { layers, same, feedback, hears, slope, inputs: false, reverse: false }
    }
}

/// The rows of a batch on their way.
#[derive(Debug, Default)]
pub struct Walk<T> {
    /// The rows, in blocks.
    pub blocks: Vec<Block<T>>,
    prepared: Vec<Vec<T>>,
    /// The same for signals that are sent back through the physics.
    reversed: Vec<Vec<T>>,
    /// The random numbers of the last pass.
    random: Option<Philox>,
}

/// The layers that a linear layer begins, with the normalisation before it: up to the next one. What comes before the first one
/// is a group, too.
pub fn groups<T: Real>(stack: &Stack<T>) -> Vec<std::ops::Range<usize>> {
    let stages = stack.stages();
    let linear = (1..stages.len()).filter(|&l| stages[l].twin.as_linear().is_some());
    let start = |l: usize| if stages[l - 1].twin.is_normalisation() { l - 1 } else { l };
    let mut starts: Vec<usize> = linear.map(start).filter(|&l| l > 0).collect();
    starts.insert(0, 0);
    let ends = starts.iter().skip(1).copied().chain([stack.stages().len()]).collect::<Vec<_>>();
    starts.into_iter().zip(ends).map(|(start, end)| start..end).collect()
}

impl<T: Real> Walk<T> {
    /// The walk that a stack's workspace is.
    ///
    /// # Errors
    /// [`Error::Capability`] for the workspace of another system.
    pub fn of(workspace: &mut Workspace) -> Result<&mut Self> {
        let other = || Error::Capability("the memory of a step belongs to another system".into());
        workspace.downcast_mut().ok_or_else(other)
    }

    /// Prepares all layers; plain linear ones for signals alone.
    fn prepare(
        &mut self,
        lab: &Lab,
        stack: &Stack<T>,
        layers: &[&dyn Layer<T>],
        params: &Params<'_, T>,
        derivatives: bool,
    ) {
        self.prepared.resize_with(layers.len(), Vec::new);
        for ((layer, stage), prepared) in layers.iter().zip(stack.stages()).zip(&mut self.prepared) {
            let values = of_stage(params, stage.params.clone());
            layer.prepare(lab.level(), &values, derivatives && !is_plain(*layer), prepared);
        }
    }

    /// Takes the inputs of a batch in.
    pub fn begin(&mut self, stack: &Stack<T>, batch: &Batch<'_, T>) {
        self.begin_with(stack, batch.len(), |i, inputs| inputs.extend_from_slice(batch.x.row(i)));
    }

    /// Takes `samples` rows in, each appended by `row`.
    pub fn begin_with(&mut self, stack: &Stack<T>, samples: usize, row: impl Fn(usize, &mut Vec<T>)) {
        let stages = stack.stages().len();
        let rows = stack.block_rows(samples).min(samples.max(1));
        self.blocks.resize_with(samples.div_ceil(rows), Block::default);
        for (b, block) in self.blocks.iter_mut().enumerate() {
            block.first = b * rows;
            block.rows = rows.min(samples - block.first);
            block.signals.resize_with(stages + 1, Vec::new);
            let inputs = &mut block.signals[0];
            inputs.clear();
            (block.first..block.first + block.rows).for_each(|i| row(i, inputs));
        }
    }

    /// The inputs of all rows, one after the other.
    pub fn inputs(&self) -> Vec<T> {
        self.blocks.iter().flat_map(|block| &block.signals[0]).copied().collect()
    }

    /// The outputs of layer `l` for all rows, one after the other.
    pub fn outputs(&self, l: usize) -> Vec<T> {
        self.blocks.iter().flat_map(|block| &block.signals[l + 1]).copied().collect()
    }

    /// The errors of the inputs for all rows, one after the other.
    pub fn input_errors(&self) -> Vec<T> {
        self.blocks.iter().flat_map(|block| &block.errors[0]).copied().collect()
    }

    /// Forgets all errors.
    pub fn clear_errors(&mut self) {
        for block in &mut self.blocks {
            block.errors.resize_with(block.signals.len(), Vec::new);
            block.errors.iter_mut().for_each(Vec::clear);
        }
    }

    /// Sets the errors of the outputs of layer `l`, row by row.
    pub fn set_errors(&mut self, l: usize, errors: &[T]) {
        let rows: usize = self.blocks.iter().map(|block| block.rows).sum();
        let width = errors.len() / rows.max(1);
        for block in &mut self.blocks {
            block.errors[l + 1].clear();
            block.errors[l + 1].extend_from_slice(&errors[block.first * width..(block.first + block.rows) * width]);
        }
    }

    /// Passes the rows through `layers`, each measured with the noise of its stage as of `occasion`. `derivatives` tells
    /// whether [`Walk::backward`] comes next.
    ///
    /// # Errors
    /// What a layer may fail with.
    pub fn forward(
        &mut self,
        lab: &Lab,
        stack: &Stack<T>,
        layers: &[&dyn Layer<T>],
        params: &Params<'_, T>,
        derivatives: bool,
        occasion: u64,
    ) -> Result<()> {
        let noise: Vec<f64> = stack.stages().iter().map(|stage| stage.noise).collect();
        self.pass(lab, stack, layers, params, derivatives, &noise, stack.noise(occasion))
    }

    /// [`Walk::forward`] with noise of these standard deviations, from this stream.
    ///
    /// # Errors
    /// What a layer may fail with.
    #[allow(clippy::too_many_arguments, reason = "a pass, and the conditions it is made under")]
    pub fn pass(
        &mut self,
        lab: &Lab,
        stack: &Stack<T>,
        layers: &[&dyn Layer<T>],
        params: &Params<'_, T>,
        derivatives: bool,
        noise: &[f64],
        random: Philox,
    ) -> Result<()> {
        self.prepare(lab, stack, layers, params, derivatives);
        self.random = Some(random);
        let prepared = &self.prepared;
        let values: Vec<Vec<&[T]>> =
            stack.stages().iter().map(|stage| of_stage(params, stage.params.clone())).collect();
        let run = |block: &mut Block<T>| -> Result<()> {
            let first = block.first;
            block.tapes.resize_with(layers.len(), Vec::new);
            for (l, layer) in layers.iter().enumerate() {
                let given =
                    Given { level: lab.level(), params: &values[l], prepared: &prepared[l], layer: l, first, random };
                let (before, after) = block.signals.split_at_mut(l + 1);
                let y = &mut after[0];
                y.resize(block.rows * layer.outputs(), T::ZERO);
                block.tapes[l].resize(block.rows * layer.tape(), T::ZERO);
                layer.forward(given, block.rows, &before[l], y, &mut block.tapes[l])?;
                if noise[l] > 0.0 {
                    let width = layer.outputs();
                    let mut drawn = vec![T::ZERO; width];
                    for (r, y) in (block.first as u64..).zip(y.chunks_exact_mut(width)) {
                        // Every row has draws of its own, in whole blocks.
                        random.fill_normal(lab.level(), r * width.next_multiple_of(64) as u64, l as u32, &mut drawn);
                        add_scaled(lab.level(), &drawn, T::from_f64(noise[l]), y);
                    }
                }
            }
            Ok(())
        };
        each(lab, work(params), &mut self.blocks, run)
    }

    /// Writes outputs and outcomes to a trial of one phase.
    pub fn report(&self, trial: &mut Trial<T>) {
        trial.reset(self.blocks.iter().map(|block| block.rows).sum(), 1, false);
        let outputs = trial.layout().outputs();
        for block in &self.blocks {
            let Some(found) = block.signals.last() else { continue };
            for (i, found) in found.chunks_exact(outputs.len()).enumerate() {
                let r = block.first + i;
                trial.outcomes[r] = outcome(found);
                if trial.outcomes[r].status.usable() {
                    trial.row_mut(r)[outputs.clone()].copy_from_slice(found);
                }
            }
        }
    }

    /// Clears the rows whose outputs are not finite, and gives which: what is not finite times no error would be no zero.
    pub fn blank(&mut self, stack: &Stack<T>) -> Vec<usize> {
        let lost = |block: &mut Block<T>| {
            let first = block.first;
            block.blank(stack.outputs).into_iter().map(move |i| first + i)
        };
        self.blocks.iter_mut().flat_map(lost).collect()
    }

    /// Sets the errors of the outputs: the gradient of the loss, a mean over the batch. Rows that are not finite are blanked: what
    /// is not finite times no error would be no zero.
    pub fn meet(&mut self, loss: Loss, targets: &Targets<'_, T>) {
        let samples: usize = self.blocks.iter().map(|block| block.rows).sum();
        let scale = T::from_f64(1.0 / samples as f64);
        for block in &mut self.blocks {
            let stages = block.signals.len() - 1;
            let n = block.signals[stages].len() / block.rows;
            block.errors.resize_with(stages + 1, Vec::new);
            block.errors[stages].resize(block.rows * n, T::ZERO);
            let mut target = vec![T::ZERO; n];
            let rows = block.signals[stages].chunks_exact(n).zip(block.errors[stages].chunks_exact_mut(n));
            for (i, (outputs, error)) in rows.enumerate() {
                targets.write(block.first + i, &mut target);
                loss.gradient(outputs, &target, error);
                error.iter_mut().for_each(|e| *e *= scale);
            }
            block.blank(n);
        }
    }

    /// Passes the errors of the outputs back, and leaves the gradient in `update`.
    ///
    /// # Errors
    /// What a layer may fail with.
    pub fn backward(
        &mut self,
        lab: &Lab,
        stack: &Stack<T>,
        answers: &Answers<'_, T>,
        params: &Params<'_, T>,
        update: &mut LocalUpdate<T>,
    ) -> Result<()> {
        let stages = stack.stages();
        // What comes back before the first parameters nobody asks for.
        let asked = |stage: &Stage<T>| stage.params.start > 0 || answers.inputs;
        let back = |stage: &Stage<T>| answers.reverse && asked(stage) && stage.hardware().has_reverse();
        let groups = groups(stack);
        // Nor what comes back to where something else is heard.
        let heard = |l: usize| match answers.hears {
            Hears::Chain => true,
            Hears::Direct(direct) => groups.iter().position(|group| group.end == l).is_none_or(|g| g >= direct.len()),
            Hears::Local => answers.layers[l].as_linear().is_none(),
        };
        let linear = |l: usize| stages[..l].iter().filter(|stage| stage.twin.as_linear().is_some()).count();
        let matrix = |l: usize| answers.layers[l].as_linear().and_then(|_| answers.feedback.get(linear(l)));
        for (l, (layer, stage)) in answers.layers.iter().zip(stages).enumerate() {
            let plain = is_plain(*layer);
            if plain || !answers.same {
                let own = asked(stage) && heard(l) && !back(stage) && matrix(l).is_none();
                let values = of_stage(params, stage.params.clone());
                layer.prepare(lab.level(), &values, own || !plain, &mut self.prepared[l]);
            }
        }
        self.reversed.resize_with(stages.len(), Vec::new);
        for (stage, reversed) in stages.iter().zip(&mut self.reversed).filter(|(stage, _)| back(stage)) {
            stage.hardware().prepare_reverse(lab.level(), &of_stage(params, stage.params.clone()), reversed);
        }
        let (prepared, reversed) = (&self.prepared, &self.reversed);
        let random = self.random.unwrap_or_else(|| lab.random(Purpose::Noise));
        let run = |block: &mut Block<T>| -> Result<()> {
            let first = block.first;
            let Block { rows, signals, errors, tapes, gradients, .. } = block;
            let rows = *rows;
            gradients.resize_with(stack.specs.len(), Vec::new);
            for l in (0..stages.len()).rev() {
                let (layer, stage) = (answers.layers[l], &stages[l]);
                let values = of_stage(params, stage.params.clone());
                let given =
                    Given { level: lab.level(), params: &values, prepared: &prepared[l], layer: l, first, random };
                let group = groups.iter().position(|group| group.end == l + 1);
                if let (Hears::Direct(direct), Some(g)) = (answers.hears, group)
                    && let Some(matrix) = direct.get(g)
                {
                    let (out, n) = (stack.outputs, layer.outputs());
                    let (into, from) = errors.split_at_mut(stages.len());
                    let into = &mut into[l + 1];
                    into.clear();
                    into.resize(rows * n, T::ZERO);
                    let from = Strided { data: &from[0], row: out, column: 1 };
                    multiply(lab.level(), from, Dense { data: matrix, stride: n }, (rows, out, n), into, n);
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
                let heard = heard(l) && (dx.is_empty() || !matches!(answers.hears, Hears::Local));
                let matrix = matrix(l);
                let wanted = asked(stage) && heard;
                let dx: &mut Vec<T> = if heard { dx } else { &mut Vec::new() };
                dx.resize(if wanted { rows * layer.inputs() } else { 0 }, T::ZERO);
                let hardware = stage.hardware();
                let back = back(stage) && wanted && matrix.is_none();
                let asked: &mut [T] = if matrix.is_some() || back { &mut [] } else { dx };
                if answers.slope != Slope::Twin && layer.is_pointwise() {
                    for ((dx, &dy), &z) in asked.iter_mut().zip(dy).zip(&signals[l]) {
                        *dx = dy * answers.slope.at(z);
                    }
                    continue;
                }
                let gradient = &mut gradients[stage.params.clone()];
                if asked.is_empty() && gradient.is_empty() && !wanted {
                    continue;
                }
                let left = Passed { rows, x: &signals[l], y: &signals[l + 1], tape: &tapes[l] };
                let mut memory = Default::default();
                let passed = if answers.same { left } else { again(layer, given, left, &mut memory)? };
                layer.vjp(given, passed, dy, asked, gradient)?;
                if back {
                    hardware.reverse(Given { prepared: &reversed[l], ..given }, dy, dx)?;
                }
                if let (Some(matrix), true) = (matrix, wanted) {
                    let (n, m) = (layer.outputs(), layer.inputs());
                    dx.fill(T::ZERO);
                    let dy = Strided { data: dy, row: n, column: 1 };
                    multiply(lab.level(), dy, Dense { data: matrix, stride: m }, (rows, n, m), dx, m);
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
        each(lab, work(params), &mut self.blocks, run)?;
        self.collect(stack, answers.layers, params, update);
        Ok(())
    }

    /// The sum over rows of how the loss, by the errors that [`Walk::meet`] left, changes as the parameters move along `along`.
    ///
    /// # Errors
    /// What a layer may fail with.
    pub fn slope(
        &mut self,
        lab: &Lab,
        stack: &Stack<T>,
        layers: &[&dyn Layer<T>],
        same: bool,
        params: &Params<'_, T>,
        along: &Params<'_, T>,
    ) -> Result<f64> {
        let prepared = &self.prepared;
        let random = self.random.unwrap_or_else(|| lab.random(Purpose::Noise));
        let run = |block: &mut Block<T>| -> Result<()> {
            let first = block.first;
            let Block { rows, signals, errors, tapes, slope, .. } = block;
            let rows = *rows;
            let mut change = vec![T::ZERO; signals[0].len()];
            for (l, (layer, stage)) in layers.iter().zip(stack.stages()).enumerate() {
                let mut after = vec![T::ZERO; rows * layer.outputs()];
                // Before the first parameters nothing moves.
                if stage.params.end > 0 {
                    let (values, along) =
                        (of_stage(params, stage.params.clone()), of_stage(along, stage.params.clone()));
                    let given =
                        Given { level: lab.level(), params: &values, prepared: &prepared[l], layer: l, first, random };
                    let left = Passed { rows, x: &signals[l], y: &signals[l + 1], tape: &tapes[l] };
                    let mut memory = Default::default();
                    let passed = if same { left } else { again(*layer, given, left, &mut memory)? };
                    layer.jvp(given, passed, &change, &along, &mut after)?;
                }
                change = after;
            }
            let errors = errors.last().map_or(&[][..], Vec::as_slice);
            *slope = errors.iter().zip(&change).map(|(e, c)| e.to_f64() * c.to_f64()).sum();
            Ok(())
        };
        each(lab, work(params), &mut self.blocks, run)?;
        Ok(self.blocks.iter().map(|block| block.slope).sum())
    }

    /// Prepares the layers whose Jacobians [`Walk::slope`] takes, where they are not those that signals passed.
    pub fn prepare_twins(&mut self, lab: &Lab, stack: &Stack<T>, layers: &[&dyn Layer<T>], params: &Params<'_, T>) {
        self.prepare(lab, stack, layers, params, true);
    }

    /// Passes a batch through the twins, without noise, and `errors` of the outputs, row by row, back to parameters, in `update`,
    /// and to inputs: see [`Walk::input_errors`].
    ///
    /// # Errors
    /// What a layer may fail with.
    pub fn pull(
        &mut self,
        lab: &Lab,
        stack: &Stack<T>,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        errors: &[T],
        update: &mut LocalUpdate<T>,
    ) -> Result<()> {
        let twin = stack.twin();
        self.begin(stack, batch);
        self.pass(lab, stack, &twin, params, true, &vec![0.0; twin.len()], lab.random(Purpose::Noise))?;
        self.clear_errors();
        self.set_errors(twin.len() - 1, errors);
        self.backward(lab, stack, &Answers { inputs: true, ..Answers::of(&twin, true) }, params, update)
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

/// The pass of the same inputs through a layer that the signals did not come from; linear layers need none for derivatives.
fn again<'a, T: Real>(
    layer: &dyn Layer<T>,
    given: Given<'_, T>,
    left: Passed<'a, T>,
    (y, tape): &'a mut (Vec<T>, Vec<T>),
) -> Result<Passed<'a, T>> {
    if layer.as_linear().is_some() {
        return Ok(left);
    }
    y.resize(left.rows * layer.outputs(), T::ZERO);
    tape.resize(left.rows * layer.tape(), T::ZERO);
    layer.forward(given, left.rows, left.x, y, tape)?;
    Ok(Passed { y, tape, ..left })
}

/// Runs every block, and returns the failure of the first that failed.
fn each<T: Real>(
    lab: &Lab,
    work: usize,
    blocks: &mut [Block<T>],
    run: impl Fn(&mut Block<T>) -> Result<()> + Sync,
) -> Result<()> {
    let rows: usize = blocks.iter().map(|block| block.rows).sum();
    let chunk = lab.grouped(work * rows, blocks.len());
    lab.for_each(blocks.par_chunks_mut(chunk), |blocks| {
        blocks.iter_mut().for_each(|block| block.failure = run(block).err());
    });
    blocks.iter_mut().find_map(|block| block.failure.take()).map_or(Ok(()), Err)
}

/// Whether a layer is a linear one whose transpose is all that its derivatives need, and only where errors pass through it.
fn is_plain<T: Real>(layer: &dyn Layer<T>) -> bool {
    layer.as_linear().is_some_and(|map| !map.is_ranged())
}

/// About what a row takes, in multiply-adds.
fn work<T: Real>(params: &Params<'_, T>) -> usize {
    (0..params.len()).map(|i| params.get(i).len()).sum()
}

fn of_stage<'a, T: Real>(params: &'a Params<'_, T>, range: std::ops::Range<usize>) -> Vec<&'a [T]> {
    range.map(|i| params.get(i)).collect()
}
