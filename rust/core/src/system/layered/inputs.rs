//! The inputs of a batch, in blocks of input units: their non-zeros, and what each block drives the
//! first layer with.
//!
//! The couplings of the inputs are most of a network's parameters. Each block of their rows is read
//! (drive) and written (update) by one thread, mostly the same, so that they stay in that core's
//! cache from one batch to the next. Blocks do not depend on the number of threads, and a drive is
//! summed over them in order: the same bits for any number.

use pnncore_kernels::gemm::Dense;
use pnncore_kernels::sparse::{Panel, SparseRows, accumulate};
use pnncore_kernels::{AVec, Real, add_scaled, avec, sum_rows};
use rayon::prelude::*;

use super::Layered;
use crate::batch::Batch;
use crate::params::Params;
use crate::runtime::Runtime;

/// The most input units per block. Fewer would cost more sums of drives, more would occupy fewer
/// threads.
const BLOCK: usize = 256;

/// Memory for the inputs of a batch.
#[derive(Debug)]
pub(super) struct Inputs<T> {
    blocks: Vec<Block<T>>,
    /// Elements per row of a block's drive.
    stride: usize,
}

#[derive(Debug)]
struct Block<T> {
    /// The non-zeros, one row per sample, and transposed, one row per input.
    lists: SparseRows<T>,
    turned: SparseRows<T>,
    drive: AVec<T>,
    panel: Panel<T>,
    /// The sums of the couplings over the inputs, where they are conductances.
    sums: AVec<T>,
    memory: Vec<T>,
    /// The couplings, where they are rounded.
    rounded: Vec<T>,
}

impl<T: Real> Default for Inputs<T> {
    fn default() -> Self {
        Self { blocks: Vec::new(), stride: 0 }
    }
}

impl<T: Real> Default for Block<T> {
    fn default() -> Self {
        Self {
            lists: SparseRows::new(0),
            turned: SparseRows::new(0),
            drive: avec![],
            panel: Panel::default(),
            sums: avec![],
            memory: Vec::new(),
            rounded: Vec::new(),
        }
    }
}

/// The same for conductances, every one of which is read twice: for the sums of columns and for the
/// drive. A block must still be in the second-level cache by then.
const RESISTIVE_BLOCK_BYTES: usize = 256 * 1024;

/// Input units per block: as even as can be.
fn height<T: Real>(net: &Layered) -> usize {
    let fitting = RESISTIVE_BLOCK_BYTES / (net.sizes[1] * size_of::<T>());
    let (inputs, most) =
        (net.sizes[0], if net.is_resistive() { fitting.clamp(32, BLOCK) } else { BLOCK });
    inputs.div_ceil(inputs.div_ceil(most))
}

impl<T: Real> Inputs<T> {
    /// Lists the inputs of a batch, transposed too if it is to be learnt from, and sums what they
    /// drive the first layer with.
    pub(super) fn take(
        &mut self,
        net: &Layered,
        runtime: &Runtime,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        transposed: bool,
    ) {
        let (n, samples) = (net.sizes[1], batch.len());
        let stride = net.layout.padded(0);
        self.stride = stride;
        // Summing columns takes as long as multiplying two samples.
        let cost = if net.is_resistive() { 2 * n } else { n };
        self.for_each(net, runtime, batch, transposed, cost, |span, block| {
            block.drive.clear();
            block.drive.resize(samples * stride, T::ZERO);
            let couplings = &net.weights(params, 0)[span.start * n..span.end * n];
            let Block { rounded, .. } = block;
            let couplings = net.precision.rounded(runtime.level(), couplings, rounded);
            if net.is_resistive() {
                block.sums.resize(n, T::ZERO);
                sum_rows(runtime.level(), &couplings[..span.len() * n], &mut block.sums);
            }
            let m = Dense { data: couplings, stride: n };
            accumulate(
                runtime.level(),
                &block.lists,
                0,
                samples,
                m,
                n,
                &mut block.drive,
                stride,
                &mut block.panel,
            );
        });
    }

    /// The sums of conductances over the inputs of each block.
    pub(super) fn sums(&self) -> impl Iterator<Item = &[T]> {
        self.blocks.iter().map(|block| &block.sums[..])
    }

    /// Hands out the transposed lists of a batch: blocks of so many inputs, in exchange for memory.
    /// They are made anew unless `taken` says that [`take`](Self::take) has transposed those of
    /// this batch last.
    pub(super) fn turned(
        &mut self,
        net: &Layered,
        runtime: &Runtime,
        batch: &Batch<'_, T>,
        taken: bool,
        memory: &mut Vec<SparseRows<T>>,
    ) -> usize {
        if !taken {
            self.for_each(net, runtime, batch, true, 1, |_, _| {});
        }
        memory.resize_with(self.blocks.len(), || SparseRows::new(0));
        self.blocks
            .iter_mut()
            .zip(memory)
            .for_each(|(block, memory)| std::mem::swap(&mut block.turned, memory));
        height::<T>(net)
    }

    /// Lists the non-zeros of every block, then does `work` with them, worth `cost` multiply-adds
    /// per input.
    fn for_each(
        &mut self,
        net: &Layered,
        runtime: &Runtime,
        batch: &Batch<'_, T>,
        transposed: bool,
        cost: usize,
        work: impl Fn(std::ops::Range<usize>, &mut Block<T>) + Send + Sync,
    ) {
        let (inputs, samples) = (net.sizes[0], batch.len());
        let height = height::<T>(net);
        self.blocks.resize_with(inputs.div_ceil(height), Block::default);
        let chunk = runtime.grouped(samples * inputs * cost, self.blocks.len());
        runtime.for_each(self.blocks.par_chunks_mut(chunk).enumerate(), |(c, blocks)| {
            for (b, block) in blocks.iter_mut().enumerate() {
                let first = (c * chunk + b) * height;
                let span = first..(first + height).min(inputs);
                block.lists.reset(span.len());
                let Block { lists, turned, memory, .. } = block;
                for i in 0..samples {
                    net.with_inputs(batch.x.row(i), span.clone(), memory, |x| {
                        lists.push(runtime.level(), x)
                    });
                }
                if transposed {
                    lists.transpose_into(0..span.len(), turned);
                }
                // What the local rule reads is not rounded.
                if net.precision.rounds() {
                    lists.round_to_bfloat16(runtime.level());
                }
                work(span, block);
            }
        });
    }

    /// Writes the drive of sample `i`, `bias` included.
    pub(super) fn drive(&self, runtime: &Runtime, i: usize, bias: &[T], drive: &mut [T]) {
        drive[..bias.len()].copy_from_slice(bias);
        drive[bias.len()..].fill(T::ZERO);
        for block in &self.blocks {
            add_scaled(
                runtime.level(),
                &block.drive[i * self.stride..][..self.stride],
                T::ONE,
                drive,
            );
        }
    }
}
