//! Propagation through a stack: signals forward, errors back.
//!
//! Rows pass in blocks, each through all layers at once, so that a block's signals stay in the
//! caches of one core; two barriers per batch, whatever the number of layers.

mod back;
mod light;

use pnncore_kernels::philox::{Philox, Purpose};
use pnncore_kernels::{Real, add_scaled};
use rayon::prelude::*;
use smallvec::SmallVec;

use super::layer::{ForwardRecord, LayerContext};
use super::{Layers, Stack, StackAt, Stage, outcome};
use crate::batch::{Batch, Targets};
use crate::draw::DrawIndex;
use crate::loss::Loss;
use crate::params::{ParamSpec, Params, all_finite};
use crate::runtime::Runtime;
use crate::scratch::{Pool, Scratch};
use crate::states::States;
use crate::system::{Experiment, Workspace};
use crate::{Error, Result};

use back::Retraced;
pub use back::{BackwardRule, ErrorSignal};

/// Some rows on their way.
#[derive(Debug, Clone, Default)]
pub struct Block<T> {
    /// The number of the first row.
    pub first: usize,
    /// How many rows there are.
    pub rows: usize,
    /// Signals between layers, the inputs first; after every layer as measured.
    pub signals: Vec<Vec<T>>,
    /// dL/d(signals).
    pub errors: Vec<Vec<T>>,
    /// The outputs of layers whose measurement adds noise, as they were before: derivatives are
    /// taken there. Empty where nothing is added.
    noiseless: Vec<Vec<T>>,
    tapes: Vec<Vec<T>>,
    /// Gradients of parameters that are no plain products, summed over the rows.
    gradients: Vec<Vec<T>>,
    /// The change of the loss along a direction.
    slope: f64,
    failure: Option<Error>,
}

impl<T: Real> Block<T> {
    /// Clears the rows whose outputs, of this number, are not finite; gives which.
    fn zero_nonfinite_rows(&mut self, outputs: usize) -> Vec<usize> {
        let Some(last) = self.signals.last() else { return Vec::new() };
        let lost = |row: &[T]| row.iter().any(|y| !y.is_finite());
        let lost: Vec<usize> = last
            .chunks_exact(outputs)
            .enumerate()
            .filter(|(_, row)| lost(row))
            .map(|(i, _)| i)
            .collect();
        for &i in &lost {
            let kept = self.signals.iter_mut().chain(&mut self.noiseless).chain(&mut self.tapes);
            for values in kept.chain(self.errors.last_mut()) {
                let width = values.len() / self.rows;
                values[i * width..(i + 1) * width].fill(T::ZERO);
            }
        }
        lost
    }
}

/// Does `work` for every stage and what is kept of it, on several threads where that is worth it
/// and all layers are of this library.
fn for_each_stage<T: Real, M: Send>(
    at: StackAt<'_, T>,
    kept: &mut [M],
    work: impl Fn(usize, &Stage<T>, &mut M) + Sync + Send,
) {
    let stages = at.stack.stages();
    let numbers: usize = at.stack.specs.iter().map(ParamSpec::len).sum();
    let shares = !at.stack.foreign;
    let chunk = if shares { at.runtime.grouped(numbers, kept.len()) } else { kept.len().max(1) };
    at.runtime.for_each(kept.par_chunks_mut(chunk).enumerate(), |(c, kept)| {
        for (k, kept) in kept.iter_mut().enumerate() {
            let l = c * chunk + k;
            work(l, &stages[l], kept);
        }
    });
}

/// The outputs of layer `l` before a measurement added noise, which says nothing of the layer's
/// slope.
fn outputs_without_noise<'a, T>(
    signals: &'a [Vec<T>],
    noiseless: &'a [Vec<T>],
    l: usize,
) -> &'a [T] {
    if noiseless[l].is_empty() { &signals[l + 1] } else { &noiseless[l] }
}

/// The rows of a batch on their way.
#[derive(Debug, Clone)]
pub struct Propagation<T> {
    /// The rows, in blocks.
    pub blocks: Vec<Block<T>>,
    prepared: Vec<Vec<T>>,
    /// The same for signals that are sent back through the physics.
    reversed: Vec<Vec<T>>,
    /// The random numbers of the last pass.
    random: Option<Philox>,
    /// What the next pass adds to the outputs of layers, all rows of a layer one after the other;
    /// empty: nothing.
    injected: Vec<Vec<T>>,
    scratch: Pool<Scratch<T>>,
}

impl<T> Default for Propagation<T> {
    fn default() -> Self {
        Self {
            blocks: Vec::new(),
            prepared: Vec::new(),
            reversed: Vec::new(),
            random: None,
            injected: Vec::new(),
            scratch: Pool::default(),
        }
    }
}

impl<T: Real> Propagation<T> {
    /// The propagation that a stack's workspace is.
    ///
    /// # Errors
    /// [`Error::Capability`] for the workspace of another system.
    pub fn of(workspace: &mut Workspace) -> Result<&mut Self> {
        let other = || Error::Capability("the memory of a step belongs to another system".into());
        workspace.downcast_mut().ok_or_else(other)
    }

    /// Prepares all layers; those that need a transpose for derivatives, for signals alone.
    fn prepare(&mut self, at: StackAt<'_, T>, layers: Layers<'_, T>, derivatives: bool) {
        self.prepared.resize_with(at.stack.stages().len(), Vec::new);
        for_each_stage(at, &mut self.prepared, |l, stage, prepared| {
            let layer = at.stack.layer(layers, l);
            let derivatives = derivatives && !layer.prepares_transpose_alone();
            layer.prepare(
                at.runtime.level(),
                &at.params_of(stage),
                at.memory_of(stage, layers),
                derivatives,
                prepared,
            );
        });
    }

    /// Takes the inputs of a batch in.
    pub fn begin(&mut self, stack: &Stack<T>, batch: &Batch<'_, T>) {
        self.begin_with(stack, batch.len(), |i, inputs| stack.take_in(batch.x.row(i), inputs));
    }

    /// The same for signals alone, which one thread takes in larger blocks: there is nobody to
    /// share small ones with, and rows do not see how they are grouped.
    pub fn begin_forward(&mut self, at: &Experiment<'_, T>, stack: &Stack<T>) {
        /// Signals of so many rows stay in a second-level cache beside weights.
        const ROWS: usize = 64;
        let (batch, own) = (at.batch, stack.block_rows(at.batch.len()));
        let rows = if at.runtime.threads() == 1 { own.max(ROWS) } else { own };
        self.begin_in_blocks(stack, batch.len(), rows, |i, inputs| {
            stack.take_in(batch.x.row(i), inputs);
        });
    }

    /// Takes `samples` rows in, each appended by `row`.
    pub fn begin_with(
        &mut self,
        stack: &Stack<T>,
        samples: usize,
        row: impl Fn(usize, &mut Vec<T>),
    ) {
        self.begin_in_blocks(stack, samples, stack.block_rows(samples), row);
    }

    fn begin_in_blocks(
        &mut self,
        stack: &Stack<T>,
        samples: usize,
        rows: usize,
        row: impl Fn(usize, &mut Vec<T>),
    ) {
        let stages = stack.stages().len();
        let rows = rows.min(samples.max(1));
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

    /// Adds signals to the outputs of layers in all passes that follow, given layer by layer for
    /// all rows; empty ones add nothing.
    pub fn inject(&mut self, signals: Vec<Vec<T>>) {
        self.injected = signals;
    }

    /// Sends what is sent back from now on with the noise of another draw than that of the last
    /// pass.
    pub fn draw_anew(&mut self, stack: &Stack<T>, draw: DrawIndex) {
        self.random = Some(stack.noise(draw));
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
            block.errors[l + 1].extend_from_slice(
                &errors[block.first * width..(block.first + block.rows) * width],
            );
        }
    }

    /// Sets the errors of the stack's outputs, row by row, and no others. Rows whose outputs are
    /// not finite are blanked.
    pub fn set_output_errors(&mut self, stack: &Stack<T>, errors: &[T]) {
        self.clear_errors();
        self.zero_nonfinite_rows(stack);
        self.set_errors(stack.stages().len() - 1, errors);
    }

    /// Passes the rows through `layers`, each measured with the noise of its stage as of `draw`.
    /// `derivatives` tells whether [`Propagation::backward`] comes next.
    ///
    /// # Errors
    /// What a layer may fail with.
    pub fn forward(
        &mut self,
        at: StackAt<'_, T>,
        layers: Layers<'_, T>,
        derivatives: bool,
        draw: DrawIndex,
    ) -> Result<()> {
        let noise = |l: usize| at.stack.stages()[l].noise();
        self.pass(at, layers, derivatives, noise, at.stack.noise(draw))
    }

    /// [`Propagation::forward`] with noise of these standard deviations, layer by layer, from this
    /// stream.
    ///
    /// # Errors
    /// What a layer may fail with.
    pub fn pass(
        &mut self,
        at: StackAt<'_, T>,
        layers: Layers<'_, T>,
        derivatives: bool,
        noise: impl Fn(usize) -> f64 + Sync,
        random: Philox,
    ) -> Result<()> {
        self.prepare(at, layers, derivatives);
        self.random = Some(random);
        let StackAt { runtime, stack, .. } = at;
        let (prepared, injected) = (&self.prepared, &self.injected);
        let run = |block: &mut Block<T>, scratch: &Scratch<T>| -> Result<()> {
            let first = block.first;
            block.tapes.resize_with(stack.stages().len(), Vec::new);
            block.noiseless.resize_with(stack.stages().len(), Vec::new);
            for (l, stage) in stack.stages().iter().enumerate() {
                let (layer, noise) = (stack.layer(layers, l), noise(l));
                let context = LayerContext {
                    level: runtime.level(),
                    params: &at.params_of(stage),
                    prepared: &prepared[l],
                    layer: l,
                    first,
                    random,
                    scratch,
                };
                let (before, after) = block.signals.split_at_mut(l + 1);
                let y = &mut after[0];
                y.resize(block.rows * layer.outputs(), T::ZERO);
                block.tapes[l]
                    .resize(if derivatives { block.rows * layer.tape() } else { 0 }, T::ZERO);
                layer.forward(context, block.rows, &before[l], y, &mut block.tapes[l])?;
                let added = injected.get(l).filter(|added| !added.is_empty());
                block.noiseless[l].clear();
                if derivatives && (noise > 0.0 || added.is_some()) {
                    block.noiseless[l].extend_from_slice(y);
                }
                if let Some(added) = added {
                    add_scaled(
                        runtime.level(),
                        &added[first * layer.outputs()..][..y.len()],
                        T::ONE,
                        y,
                    );
                }
                add_noise(context, layer.outputs(), noise, y);
            }
            Ok(())
        };
        each(runtime, stack.work(), &mut self.blocks, &self.scratch, run)
    }

    /// Writes outputs and outcomes to states of one phase.
    pub fn report(&self, states: &mut States<T>) {
        states.reset(self.blocks.iter().map(|block| block.rows).sum(), 1, false);
        let outputs = states.layout().outputs();
        for block in &self.blocks {
            let Some(found) = block.signals.last() else { continue };
            let all_completed = all_finite(found);
            for (i, found) in found.chunks_exact(outputs.len()).enumerate() {
                let r = block.first + i;
                states.outcomes[r] = outcome(all_completed || all_finite(found));
                if states.outcomes[r].status.usable() {
                    states.row_mut(r)[outputs.clone()].copy_from_slice(found);
                }
            }
        }
    }

    /// Clears the rows whose outputs are not finite, and gives which: what is not finite times no
    /// error would be no zero.
    pub fn zero_nonfinite_rows(&mut self, stack: &Stack<T>) -> Vec<usize> {
        let lost = |block: &mut Block<T>| {
            let first = block.first;
            block.zero_nonfinite_rows(stack.outputs).into_iter().map(move |i| first + i)
        };
        self.blocks.iter_mut().flat_map(lost).collect()
    }

    /// Sets the errors of the outputs: the gradient of the loss, a mean over the batch. Rows that
    /// are not finite are blanked: what is not finite times no error would be no zero.
    pub fn seed_output_errors(&mut self, loss: Loss, targets: &Targets<'_, T>) {
        let Self { blocks, scratch, .. } = self;
        let samples: usize = blocks.iter().map(|block| block.rows).sum();
        let scale = T::from_f64(1.0 / samples as f64);
        for block in blocks {
            let stages = block.signals.len() - 1;
            let n = block.signals[stages].len() / block.rows;
            block.errors.resize_with(stages + 1, Vec::new);
            block.errors[stages].resize(block.rows * n, T::ZERO);
            let rows =
                block.signals[stages].chunks_exact(n).zip(block.errors[stages].chunks_exact_mut(n));
            scratch.with(|scratch| {
                let mut target = scratch.zeros(n);
                for (i, (outputs, error)) in rows.enumerate() {
                    targets.write(block.first + i, &mut target);
                    loss.gradient(outputs, &target, error);
                    error.iter_mut().for_each(|e| *e *= scale);
                }
            });
            block.zero_nonfinite_rows(n);
        }
    }

    /// The sum over rows of how the loss, by the errors that [`Propagation::seed_output_errors`]
    /// left, changes as the parameters move along `along`.
    ///
    /// # Errors
    /// What a layer may fail with.
    pub fn slope(
        &mut self,
        at: StackAt<'_, T>,
        layers: Layers<'_, T>,
        same: bool,
        along: &Params<'_, T>,
    ) -> Result<f64> {
        let StackAt { runtime, stack, .. } = at;
        let prepared = &self.prepared;
        let random = self.random.unwrap_or_else(|| runtime.random(Purpose::Noise));
        let run = |block: &mut Block<T>, scratch: &Scratch<T>| -> Result<()> {
            let first = block.first;
            let Block { rows, signals, errors, noiseless, tapes, slope, .. } = block;
            let rows = *rows;
            let mut change = scratch.zeros(signals[0].len());
            let mut field = scratch.empty();
            for (l, stage) in stack.stages().iter().enumerate() {
                let layer = stack.layer(layers, l);
                let mut after = scratch.zeros(rows * layer.outputs());
                // Before the first parameters nothing moves.
                if stage.params.end > 0 || layer.gives().complex {
                    let (values, along) =
                        (at.params_of(stage), of_stage(along, stage.params.clone()));
                    let context = LayerContext {
                        level: runtime.level(),
                        params: &values,
                        prepared: &prepared[l],
                        layer: l,
                        first,
                        random,
                        scratch,
                    };
                    let y = outputs_without_noise(signals, noiseless, l);
                    let arrives = l > 0 && layer.takes().complex;
                    let x = if arrives && !same { &field } else { &signals[l] };
                    let left = ForwardRecord { rows, x, y, tape: &tapes[l] };
                    let mut own = Retraced::new(scratch);
                    let record = if same { left } else { own.retrace(layer, context, left)? };
                    layer.jvp(context, record, &change, &along, &mut after)?;
                    field = own.y;
                }
                change = after;
            }
            let errors = errors.last().map_or(&[][..], Vec::as_slice);
            *slope = errors.iter().zip(&*change).map(|(e, c)| e.to_f64() * c.to_f64()).sum();
            Ok(())
        };
        each(runtime, stack.work(), &mut self.blocks, &self.scratch, run)?;
        Ok(self.blocks.iter().map(|block| block.slope).sum())
    }

    /// Prepares the layers whose Jacobians [`Propagation::slope`] takes, where they are not those
    /// that signals passed.
    pub fn prepare_twins(&mut self, at: StackAt<'_, T>, layers: Layers<'_, T>) {
        self.prepare(at, layers, true);
    }
}

/// Adds noise of a standard deviation to rows of outputs.
fn add_noise<T: Real>(context: LayerContext<'_, T>, width: usize, noise: f64, y: &mut [T]) {
    if noise == 0.0 {
        return;
    }
    let LayerContext { level, layer, first, random, scratch, .. } = context;
    let mut drawn = scratch.zeros(width);
    for (r, y) in (first as u64..).zip(y.chunks_exact_mut(width)) {
        // Every row has draws of its own, in whole blocks.
        random.fill_normal(level, r * width.next_multiple_of(64) as u64, layer as u32, &mut drawn);
        add_scaled(level, &drawn, T::from_f64(noise), y);
    }
}

/// Runs every block, and returns the failure of the first that failed.
fn each<T: Real>(
    runtime: &Runtime,
    work: usize,
    blocks: &mut [Block<T>],
    scratch: &Pool<Scratch<T>>,
    run: impl Fn(&mut Block<T>, &Scratch<T>) -> Result<()> + Sync,
) -> Result<()> {
    let rows: usize = blocks.iter().map(|block| block.rows).sum();
    let chunk = runtime.grouped(work * rows, blocks.len());
    runtime.for_each(blocks.par_chunks_mut(chunk), |blocks| {
        scratch.with(|scratch| {
            blocks.iter_mut().for_each(|block| block.failure = run(block, scratch).err());
        });
    });
    blocks.iter_mut().find_map(|block| block.failure.take()).map_or(Ok(()), Err)
}

/// The parameters of a layer: few, so that a list of them takes no memory of its own.
pub(super) fn of_stage<'a, T: Real>(
    params: &'a Params<'_, T>,
    range: std::ops::Range<usize>,
) -> SmallVec<[&'a [T]; 4]> {
    range.map(|i| params.get(i)).collect()
}
