//! Couplings and states as products between layers take them.

use pnncore_kernels::gemm::{Dense, Strided, multiply};
use pnncore_kernels::hidden::padded_outputs;
use pnncore_kernels::sparse::{Panel, SparseRows, accumulate, non_zeros};
use pnncore_kernels::{AVec, Level, Real, add_scaled, avec, bfloat16, transpose};
use rayon::prelude::*;

use super::Layered;
use crate::params::Params;
use crate::precision::Precision;
use crate::runtime::Runtime;

/// What of the couplings does not change while a batch settles.
#[derive(Debug)]
pub(super) struct Couplings<T> {
    /// The transposed couplings of layer l, with rows padded like the layer below; empty for the
    /// first layer.
    back: Vec<AVec<T>>,
    /// Where they are rounded, those of layer l themselves.
    ahead: Vec<Vec<T>>,
    /// And both packed: of layer l, from the layer below to it, and from it to the layer below.
    packed: Vec<[Vec<T>; 2]>,
}

impl<T> Default for Couplings<T> {
    fn default() -> Self {
        Self { back: Vec::new(), ahead: Vec::new(), packed: Vec::new() }
    }
}

/// The matrix of a product: its rows, with `width` columns; and, where it is rounded, packed.
pub(super) struct Matrix<'a, T> {
    rows: Dense<'a, T>,
    width: usize,
    packed: &'a [T],
}

impl<T: Real> Couplings<T> {
    /// Transposes the couplings of all layers but the first; rounds and packs them where they are
    /// to be.
    pub(super) fn prepare(&mut self, net: &Layered, runtime: &Runtime, params: &Params<'_, T>) {
        self.back.resize_with(net.layers(), || avec![]);
        for (l, back) in self.back.iter_mut().enumerate().skip(1) {
            let (rows, cols) = (net.sizes[l], net.sizes[l + 1]);
            let stride = net.layout.padded(l - 1);
            // Rows past the last stay zero, as `hidden_sweep` wants.
            back.resize(padded_outputs(cols) * stride, T::ZERO);
            let parts = runtime.parts(rows * cols, cols);
            let chunk = cols.div_ceil(parts);
            let pieces = back[..cols * stride].par_chunks_mut(chunk * stride).enumerate();
            runtime.for_each(pieces, |(c, piece)| {
                let first = c * chunk;
                let span = first..first + piece.len() / stride;
                transpose(runtime.level(), net.weights(params, l), rows, cols, span, piece, stride);
                net.precision.round(runtime.level(), piece);
            });
        }
        if net.precision.rounds() {
            self.pack(net, runtime, params);
        }
    }

    fn pack(&mut self, net: &Layered, runtime: &Runtime, params: &Params<'_, T>) {
        self.ahead.resize_with(net.layers(), Vec::new);
        self.packed.resize_with(net.layers(), Default::default);
        let numbers = net.sizes[1..].windows(2).map(|pair| pair[0] * pair[1]).sum();
        let chunk = runtime.grouped(numbers, net.layers());
        let pieces = self.ahead.par_chunks_mut(chunk).zip(self.packed.par_chunks_mut(chunk));
        runtime.for_each(pieces.enumerate(), |(c, (ahead, packed))| {
            for (k, (ahead, packed)) in ahead.iter_mut().zip(packed).enumerate() {
                let (l, level) = (c * chunk + k, runtime.level());
                if l == 0 {
                    continue;
                }
                let (weights, below, own) =
                    (net.weights(params, l), net.sizes[l], net.sizes[l + 1]);
                ahead.clear();
                ahead.extend_from_slice(weights);
                net.precision.round(level, ahead);
                let ways = [((below, own), false), ((own, below), true)];
                for (packed, (shape, turned)) in packed.iter_mut().zip(ways) {
                    packed.resize(bfloat16::packed_len::<T>(level, shape), T::ZERO);
                    bfloat16::pack(level, weights, shape, turned, packed);
                }
            }
        });
    }

    /// The transposed couplings of all layers, see [`Couplings`].
    pub(super) fn back(&self) -> &[AVec<T>] {
        &self.back
    }

    /// From the layer below `l` to it.
    pub(super) fn ahead<'a>(
        &'a self,
        net: &Layered,
        params: &'a Params<'_, T>,
        l: usize,
    ) -> Matrix<'a, T> {
        let width = net.sizes[l + 1];
        let (data, packed) = if net.precision.rounds() {
            (&self.ahead[l][..], &self.packed[l][0][..])
        } else {
            (net.weights(params, l), &[][..])
        };
        Matrix { rows: Dense { data, stride: width }, width, packed }
    }

    /// From layer `l` to the one below.
    pub(super) fn behind(&self, net: &Layered, l: usize) -> Matrix<'_, T> {
        let rows = Dense { data: &self.back[l][..], stride: net.layout.padded(l - 1) };
        let packed = if net.precision.rounds() { &self.packed[l][1][..] } else { &[] };
        Matrix { rows, width: net.sizes[l], packed }
    }
}

/// The states of a layer of some rows: those that are not zero, or, where most are not, all of
/// them.
#[derive(Debug)]
pub(super) struct Signals<T> {
    lists: SparseRows<T>,
    all: Vec<T>,
    precision: Precision,
    is_dense: bool,
}

impl<T: Real> Default for Signals<T> {
    fn default() -> Self {
        let (lists, all, precision) = (SparseRows::new(0), Vec::new(), Precision::Full);
        Self { lists, all, precision, is_dense: false }
    }
}

impl<T: Real> Signals<T> {
    /// Takes rows of `width` states.
    pub(super) fn take<'a>(
        &mut self,
        level: Level,
        precision: Precision,
        width: usize,
        rows: impl Iterator<Item = &'a [T]>,
    ) {
        self.lists.reset(width);
        self.precision = precision;
        self.all.clear();
        rows.for_each(|row| self.all.extend_from_slice(row));
        precision.round(level, &mut self.all);
        // Rows of lists share what they read: an element takes little longer than in a dense one.
        let there = precision.advantage::<T>(level) * non_zeros(level, &self.all);
        self.is_dense = 5 * there > 4 * self.all.len();
        if !self.is_dense {
            self.all.chunks_exact(width).for_each(|row| self.lists.push(level, row));
        }
    }
}

/// Memory of products of states and couplings.
#[derive(Debug)]
pub(super) struct Products<T> {
    panel: Panel<T>,
    sums: Vec<T>,
}

impl<T: Real> Default for Products<T> {
    fn default() -> Self {
        Self { panel: Panel::default(), sums: Vec::new() }
    }
}

impl<T: Real> Products<T> {
    /// drives += states times couplings, for rows of drives `stride` elements apart. Where they are
    /// rounded the products are summed first, and their sum is added: zeros that are skipped do not
    /// show then.
    pub(super) fn add(
        &mut self,
        level: Level,
        signals: &Signals<T>,
        Matrix { rows: m, width: n, packed }: Matrix<'_, T>,
        drives: &mut [T],
        stride: usize,
    ) {
        let Signals { lists, all, precision, is_dense } = signals;
        let (count, panel, width) = (drives.len() / stride, &mut self.panel, lists.cols());
        let (all, shape) = (Strided { data: all, row: width, column: 1 }, (count, width, n));
        match precision {
            Precision::Full if *is_dense => multiply(level, all, m, shape, drives, stride),
            Precision::Full => accumulate(level, lists, 0, count, m, n, drives, stride, panel),
            Precision::Bfloat16 if *is_dense => {
                bfloat16::multiply_packed(level, all, packed, shape, drives, stride);
            }
            Precision::Bfloat16 => {
                self.sums.clear();
                self.sums.resize(drives.len(), T::ZERO);
                accumulate(level, lists, 0, count, m, n, &mut self.sums, stride, panel);
                add_scaled(level, &self.sums, T::ONE, drives);
            }
        }
    }
}
