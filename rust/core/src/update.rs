//! Local updates: what a gradient of couplings is made of, kept factored until it meets the
//! parameters.

use pnncore_kernels::gemm::{Dense, Factors, Strided, multiply_all};
use pnncore_kernels::sparse::{Panel, SparseRows, accumulate, lists_pay, non_zeros};
use pnncore_kernels::{AVec, Level, Real, add_scaled, bfloat16, shift_within};
use rayon::prelude::*;
use smallvec::SmallVec;

use crate::params::{ParamSpec, all_finite};
use crate::precision::Precision;
use crate::runtime::Runtime;
use crate::states::States;

/// The dense side of an outer product.
#[derive(Debug, Clone)]
pub enum Side<T> {
    /// Rows of its own, `width` elements each, `stride` apart.
    Own(AVec<T>, usize),
    /// A layer of the real parts of the states: one row per row there.
    States(usize),
    /// A layer of the imaginary parts of the states.
    Imaginary(usize),
}

/// The sparse side of an outer product: lists of non-zeros.
#[derive(Debug, Clone)]
pub enum Lists<T> {
    /// One list per row of the dense side.
    ByRow(SparseRows<T>),
    /// The transpose of it: one list per row of the parameter, in blocks of this many (the last may
    /// have fewer).
    ByParameter(Vec<SparseRows<T>>, usize),
}

/// A sum over rows r of outer products l_r d_r^T: l_r are lists of non-zeros (with all weights
/// folded in), d_r dense.
#[derive(Debug, Clone)]
pub struct OuterProducts<T> {
    /// The lists. Those of a transposed term are by row.
    pub lists: Lists<T>,
    /// The dense side.
    pub dense: Side<T>,
}

/// The change of one parameter.
#[derive(Debug, Clone)]
pub enum Term<T> {
    /// Element by element.
    Dense(Vec<T>),
    /// A matrix, factored.
    Outer(Outer<T>),
    /// A matrix, as a product.
    Product(Products<T>),
}

/// A sum over rows r of outer products l_r d_r^T, both dense.
#[derive(Debug, Clone)]
pub struct Products<T> {
    /// Blocks of rows (l, d).
    pub blocks: Vec<(Vec<T>, Vec<T>)>,
    /// What they are rounded to where they are multiplied.
    pub precision: Precision,
}

impl<T: Real> LocalUpdate<T> {
    /// Multiplies all of it.
    pub(crate) fn scale(&mut self, factor: T) {
        let all = |values: &mut [T]| values.iter_mut().for_each(|value| *value *= factor);
        for term in &mut self.terms {
            match term {
                Term::Dense(values) => all(values),
                Term::Product(Products { blocks, .. }) => {
                    blocks.iter_mut().for_each(|(_, right)| all(right));
                }
                Term::Outer(Outer { products, rows, columns, .. }) => {
                    all(rows);
                    all(columns);
                    for product in products {
                        match &mut product.lists {
                            Lists::ByRow(lists) => lists.scale(factor),
                            Lists::ByParameter(lists, _) => {
                                lists.iter_mut().for_each(|lists| lists.scale(factor))
                            }
                        }
                    }
                }
            }
        }
    }

    /// Holds a gradient of all parameters, given one by one. Keeps the memory.
    pub(crate) fn set<'a>(&mut self, gradient: impl ExactSizeIterator<Item = &'a [T]>)
    where
        T: 'a,
    {
        for (values, own) in self.dense(gradient.len()).zip(gradient) {
            values.extend_from_slice(own);
        }
    }

    /// So many dense terms, empty yet. Keeps the memory.
    pub(crate) fn dense(&mut self, terms: usize) -> impl Iterator<Item = &mut Vec<T>> {
        self.terms.resize_with(terms, || Term::Dense(Vec::new()));
        self.terms.iter_mut().filter_map(|term| {
            if !matches!(term, Term::Dense(_)) {
                *term = Term::Dense(Vec::new());
            }
            let Term::Dense(values) = term else { return None };
            values.clear();
            Some(values)
        })
    }
}

/// The sum of some [`OuterProducts`], or the transpose of it, which is cheaper where the columns
/// are few; plus a number for each row and each column of the parameter.
#[derive(Debug, Clone)]
pub struct Outer<T> {
    /// The products.
    pub products: Vec<OuterProducts<T>>,
    /// Whether the lists are over columns of the parameter rather than rows.
    pub transposed: bool,
    /// What is added to every element of a row; empty: nothing.
    pub rows: Vec<T>,
    /// What is added to every element of a column; empty: nothing.
    pub columns: Vec<T>,
}

/// The changes of all parameters, in the order of the system's specifications.
#[derive(Debug, Clone)]
pub struct LocalUpdate<T> {
    /// One term per parameter.
    pub terms: Vec<Term<T>>,
    parts: Vec<Part<T>>,
    turned: SparseRows<T>,
    gathered: Vec<T>,
}

/// Buffers of one part of a parallel region.
#[derive(Debug, Clone)]
struct Part<T> {
    lists: SparseRows<T>,
    panel: Panel<T>,
    sums: Vec<T>,
}

impl<T: Real> Default for Part<T> {
    fn default() -> Self {
        Self { lists: SparseRows::new(0), panel: Panel::default(), sums: Vec::new() }
    }
}

impl<T: Real> Default for LocalUpdate<T> {
    fn default() -> Self {
        let (turned, gathered) = (SparseRows::new(0), Vec::new());
        Self { terms: Vec::new(), parts: Vec::new(), turned, gathered }
    }
}

impl<T: Real> Term<T> {
    /// Whether all numbers that the term is made of are finite, but for states, which are.
    fn is_finite(&self) -> bool {
        match self {
            Self::Dense(values) => all_finite(values),
            Self::Product(Products { blocks, .. }) => {
                blocks.iter().all(|(left, right)| all_finite(left) && all_finite(right))
            }
            Self::Outer(Outer { products, rows, columns, .. }) => {
                let own = |product: &OuterProducts<T>| match &product.dense {
                    Side::Own(values, _) => all_finite(values),
                    Side::States(_) | Side::Imaginary(_) => true,
                };
                all_finite(rows) && all_finite(columns) && products.iter().all(own)
            }
        }
    }
}

impl<T: Real> LocalUpdate<T> {
    /// Whether all numbers that the changes are made of are finite, but for states, which are.
    pub fn is_finite(&self) -> bool {
        self.terms.iter().all(Term::is_finite)
    }

    /// Adds `scale` times the term of parameter `i` to `target`, and keeps the result within
    /// `range`. Uses the term up.
    #[allow(clippy::too_many_arguments, reason = "an update, and where it goes")]
    pub fn apply(
        &mut self,
        runtime: &Runtime,
        states: &States<T>,
        i: usize,
        spec: &ParamSpec,
        target: &mut [T],
        scale: f64,
        range: (T, T),
    ) {
        let scale = T::from_f64(scale);
        let Self { terms, parts, turned, gathered } = self;
        match &mut terms[i] {
            Term::Dense(values) => {
                shift_within(runtime.level(), values, scale, T::ZERO, range, target)
            }
            Term::Product(Products { blocks, precision }) => {
                let memory = (parts, turned, gathered);
                let add = match precision {
                    Precision::Full => add_products,
                    Precision::Bfloat16 => add_rounded_products,
                };
                add(runtime, memory, blocks, target, spec.rows_cols(), scale, range)
            }
            Term::Outer(Outer { products, transposed, rows, columns }) => {
                let cols = spec.rows_cols().1;
                rows.iter_mut().chain(columns.iter_mut()).for_each(|sum| *sum *= scale);
                let shift = Shift { rows, columns, range };
                // The last product also shifts, while its rows are in cache.
                let last = products.len() - 1;
                for (p, product) in products.iter_mut().enumerate() {
                    let shift = (p == last && shift.is_needed()).then_some(&shift);
                    let dense = product.dense.view(states);
                    match &mut product.lists {
                        Lists::ByParameter(blocks, height) => {
                            add_blocks(
                                runtime, parts, blocks, *height, dense, target, cols, scale, shift,
                            );
                        }
                        Lists::ByRow(lists) if *transposed => {
                            lists.scale(scale);
                            lists.transpose_into(0..cols, turned);
                            // Narrow products are over before a second thread is awake.
                            first_part(parts).add_turned(runtime, turned, dense, target, cols);
                            shift
                                .into_iter()
                                .for_each(|shift| shift.apply(runtime, 0, target, cols));
                        }
                        Lists::ByRow(lists) => {
                            lists.scale(scale);
                            add_lists(runtime, parts, lists, dense, target, cols, shift);
                        }
                    }
                }
            }
        }
    }
}

/// target += scale times the sum of the blocks' outer products, within the range. A piece of the
/// target stays in cache while all blocks are added to it.
fn add_products<T: Real>(
    runtime: &Runtime,
    (parts, lists, dense): (&mut Vec<Part<T>>, &mut SparseRows<T>, &mut Vec<T>),
    blocks: &mut [(Vec<T>, Vec<T>)],
    target: &mut [T],
    (rows, cols): (usize, usize),
    scale: T,
    range: (T, T),
) {
    /// Rows of the target that stay in cache, and share what is copied of the right sides.
    const GROUP: usize = 64;
    for (_, right) in &mut *blocks {
        right.iter_mut().for_each(|value| *value *= scale);
    }
    let samples: usize = blocks.iter().map(|(left, _)| left.len() / rows).sum();
    let there: usize = blocks.iter().map(|(left, _)| non_zeros(runtime.level(), left)).sum();
    if lists_pay(there, samples * rows) {
        list_rows(runtime.level(), blocks, rows, lists, dense);
        let shift = Shift { rows: &[], columns: &[], range };
        let shift = shift.is_needed().then_some(&shift);
        return add_lists(
            runtime,
            parts,
            lists,
            Dense { data: dense, stride: cols },
            target,
            cols,
            shift,
        );
    }
    let groups = runtime.grouped(samples * target.len(), rows.div_ceil(GROUP));
    let bounded = range.0.is_finite() || range.1.is_finite();
    let blocks = &*blocks;
    runtime.for_each(target.par_chunks_mut(groups * GROUP * cols).enumerate(), |(c, piece)| {
        for (g, piece) in piece.chunks_mut(GROUP * cols).enumerate() {
            let (first, count) = ((c * groups + g) * GROUP, piece.len() / cols);
            for blocks in blocks.chunks(BLOCKS) {
                let factors: SmallVec<[_; BLOCKS]> =
                    blocks.iter().map(|block| factors_of(block, first, (rows, cols))).collect();
                multiply_all(runtime.level(), &factors, (count, cols), piece, cols);
            }
            if bounded {
                shift_within(runtime.level(), &[], T::ZERO, T::ZERO, range, piece);
            }
        }
    });
}

/// [`add_products`] of numbers that are rounded to bfloat16: those of each element are summed from
/// zero, and the sum is scaled.
fn add_rounded_products<T: Real>(
    runtime: &Runtime,
    (parts, lists, dense): (&mut Vec<Part<T>>, &mut SparseRows<T>, &mut Vec<T>),
    blocks: &mut [(Vec<T>, Vec<T>)],
    target: &mut [T],
    (rows, cols): (usize, usize),
    scale: T,
    range: (T, T),
) {
    /// Rows of the target that share what is copied of the right sides.
    const GROUP: usize = 128;
    let level = runtime.level();
    let numbers = blocks.iter().map(|(left, right)| left.len() + right.len()).sum();
    let chunk = runtime.grouped(numbers, blocks.len());
    runtime.for_each(blocks.par_chunks_mut(chunk), |blocks| {
        for (left, right) in blocks {
            bfloat16::round_all(level, left);
            bfloat16::round_all(level, right);
        }
    });
    let shift = Shift { rows: &[], columns: &[], range };
    let shift = shift.is_needed().then_some(&shift);
    let samples: usize = blocks.iter().map(|(left, _)| left.len() / rows).sum();
    let there: usize = blocks.iter().map(|(left, _)| non_zeros(level, left)).sum();
    if lists_pay(bfloat16::advantage::<T>(level) * there, samples * rows) {
        list_rows(level, blocks, rows, lists, dense);
        let dense = Dense { data: dense, stride: cols };
        return add_scaled_lists(runtime, parts, lists, dense, target, cols, scale, shift);
    }
    let groups = runtime.grouped(samples * target.len(), rows.div_ceil(GROUP));
    let blocks = &*blocks;
    runtime.for_each(target.par_chunks_mut(groups * GROUP * cols).enumerate(), |(c, piece)| {
        for (g, piece) in piece.chunks_mut(GROUP * cols).enumerate() {
            let (first, count) = ((c * groups + g) * GROUP, piece.len() / cols);
            let factors: SmallVec<[_; BLOCKS]> =
                blocks.iter().map(|block| factors_of(block, first, (rows, cols))).collect();
            bfloat16::multiply_all(level, &factors, (count, cols), scale, piece, cols);
            shift.into_iter().for_each(|shift| shift.apply(runtime, first, piece, cols));
        }
    });
}

/// Blocks at once: the target is read and written once for all of them.
const BLOCKS: usize = 16;

/// The factors of a block of products, for rows of the target from `first` on.
fn factors_of<T>(
    (left, right): &(Vec<T>, Vec<T>),
    first: usize,
    (rows, cols): (usize, usize),
) -> Factors<'_, T> {
    let from = Strided { data: &left[first.min(left.len())..], row: 1, column: rows };
    (from, Dense { data: right, stride: cols }, left.len() / rows)
}

/// Lists the rows of the left sides, and gathers the right ones.
fn list_rows<T: Real>(
    level: Level,
    blocks: &[(Vec<T>, Vec<T>)],
    rows: usize,
    lists: &mut SparseRows<T>,
    dense: &mut Vec<T>,
) {
    lists.reset(rows);
    dense.clear();
    for (left, right) in blocks {
        left.chunks_exact(rows).for_each(|row| lists.push(level, row));
        dense.extend_from_slice(right);
    }
}

/// What comes after the products: sums of rows and columns, and the range.
struct Shift<'a, T> {
    rows: &'a [T],
    columns: &'a [T],
    range: (T, T),
}

impl<T: Real> Shift<'_, T> {
    fn is_needed(&self) -> bool {
        !self.columns.is_empty() || self.range.0.is_finite() || self.range.1.is_finite()
    }

    /// Shifts the rows of `piece`, which are rows `first..` of the parameter.
    fn apply(&self, runtime: &Runtime, first: usize, piece: &mut [T], cols: usize) {
        for (i, row) in piece.chunks_exact_mut(cols).enumerate() {
            let constant = self.rows.get(first + i).copied().unwrap_or(T::ZERO);
            if self.columns.is_empty() {
                shift_within(runtime.level(), &[], T::ZERO, constant, self.range, row);
            } else {
                shift_within(runtime.level(), self.columns, T::ONE, constant, self.range, row);
            }
        }
    }
}

fn first_part<T: Real>(parts: &mut Vec<Part<T>>) -> &mut Part<T> {
    if parts.is_empty() {
        parts.push(Part::default());
    }
    &mut parts[0]
}

/// target += scale times the blocks of transposed lists times the dense side.
#[allow(clippy::too_many_arguments, reason = "the pieces of an update, each owned elsewhere")]
fn add_blocks<T: Real>(
    runtime: &Runtime,
    parts: &mut Vec<Part<T>>,
    blocks: &mut [SparseRows<T>],
    height: usize,
    dense: Dense<'_, T>,
    target: &mut [T],
    cols: usize,
    scale: T,
    shift: Option<&Shift<'_, T>>,
) {
    /// Rows that are shifted before they leave the cache.
    const GROUP: usize = 32;
    let entries: usize = blocks.iter().map(SparseRows::len).sum();
    // A shift reads and writes every element: that takes as long as several multiply-adds.
    let work = entries * cols + if shift.is_some() { 8 * target.len() } else { 0 };
    let chunk = runtime.grouped(work, blocks.len());
    if parts.len() < blocks.len() {
        parts.resize_with(blocks.len(), Part::default);
    }
    let pieces = target
        .par_chunks_mut(chunk * height * cols)
        .zip(blocks.par_chunks_mut(chunk))
        .zip(parts.par_iter_mut());
    runtime.for_each(pieces.enumerate(), |(c, ((target, blocks), part))| {
        for (b, (rows, block)) in target.chunks_mut(height * cols).zip(blocks).enumerate() {
            block.scale(scale);
            for (g, rows) in rows.chunks_mut(GROUP * cols).enumerate() {
                let (first, count) = (g * GROUP, rows.len() / cols);
                accumulate(
                    runtime.level(),
                    block,
                    first,
                    count,
                    dense,
                    cols,
                    rows,
                    cols,
                    &mut part.panel,
                );
                let first = (c * chunk + b) * height + first;
                shift.into_iter().for_each(|shift| shift.apply(runtime, first, rows, cols));
            }
        }
    });
}

/// target += the transpose of the lists times the dense side.
fn add_lists<T: Real>(
    runtime: &Runtime,
    parts: &mut Vec<Part<T>>,
    lists: &SparseRows<T>,
    dense: Dense<'_, T>,
    target: &mut [T],
    cols: usize,
    shift: Option<&Shift<'_, T>>,
) {
    let rows = target.len() / cols;
    let count = runtime.parts(lists.len() * cols, rows);
    let chunk = rows.div_ceil(count).max(1);
    let count = rows.div_ceil(chunk);
    if parts.len() < count {
        parts.resize_with(count, Part::default);
    }
    let pieces = target.par_chunks_mut(chunk * cols).zip(parts[..count].par_iter_mut()).enumerate();
    runtime.for_each(pieces, |(c, (piece, part))| {
        part.add(runtime, lists, c * chunk, dense, piece, cols);
        shift.into_iter().for_each(|shift| shift.apply(runtime, c * chunk, piece, cols));
    });
}

/// target += scale times the transpose of the lists times the dense side, summed from zero.
#[allow(clippy::too_many_arguments, reason = "the pieces of an update, each owned elsewhere")]
fn add_scaled_lists<T: Real>(
    runtime: &Runtime,
    parts: &mut Vec<Part<T>>,
    lists: &SparseRows<T>,
    dense: Dense<'_, T>,
    target: &mut [T],
    cols: usize,
    scale: T,
    shift: Option<&Shift<'_, T>>,
) {
    /// Rows whose sums stay in cache until they are added.
    const GROUP: usize = 64;
    let groups = target.len().div_ceil(GROUP * cols);
    let chunk = runtime.grouped(lists.len() * cols, groups);
    let count = groups.div_ceil(chunk);
    if parts.len() < count {
        parts.resize_with(count, Part::default);
    }
    let pieces = target.par_chunks_mut(chunk * GROUP * cols).zip(parts.par_iter_mut()).enumerate();
    runtime.for_each(pieces, |(c, (piece, part))| {
        for (g, piece) in piece.chunks_mut(GROUP * cols).enumerate() {
            let first = (c * chunk + g) * GROUP;
            let mut sums = std::mem::take(&mut part.sums);
            sums.clear();
            sums.resize(piece.len(), T::ZERO);
            part.add(runtime, lists, first, dense, &mut sums, cols);
            add_scaled(runtime.level(), &sums, scale, piece);
            part.sums = sums;
            shift.into_iter().for_each(|shift| shift.apply(runtime, first, piece, cols));
        }
    });
}

impl<T: Real> Part<T> {
    /// piece += the rows `first..` of the transposed lists times the dense side.
    fn add(
        &mut self,
        runtime: &Runtime,
        lists: &SparseRows<T>,
        first: usize,
        dense: Dense<'_, T>,
        piece: &mut [T],
        cols: usize,
    ) {
        lists.transpose_into(first..first + piece.len() / cols, &mut self.lists);
        accumulate(
            runtime.level(),
            &self.lists,
            0,
            self.lists.rows(),
            dense,
            cols,
            piece,
            cols,
            &mut self.panel,
        );
    }

    /// piece += the transpose of the lists (one per column) times the dense side. Few columns make
    /// for short rows; the product is summed with the long side contiguous, and turned.
    fn add_turned(
        &mut self,
        runtime: &Runtime,
        lists: &SparseRows<T>,
        dense: Dense<'_, T>,
        piece: &mut [T],
        cols: usize,
    ) {
        let rows = piece.len() / cols;
        self.sums.clear();
        self.sums.resize(cols * rows, T::ZERO);
        accumulate(
            runtime.level(),
            lists,
            0,
            cols,
            dense,
            rows,
            &mut self.sums,
            rows,
            &mut self.panel,
        );
        for (j, sums) in self.sums.chunks_exact(rows).enumerate() {
            for (target, &sum) in piece[j..].iter_mut().step_by(cols).zip(sums) {
                *target += sum;
            }
        }
    }
}

impl<T: Real> Side<T> {
    fn view<'a>(&'a self, states: &'a States<T>) -> Dense<'a, T> {
        let layout = states.layout();
        match self {
            Self::Own(data, stride) => Dense { data, stride: *stride },
            Self::States(l) => {
                Dense { data: &states.values[layout.layer(*l).start..], stride: states.stride() }
            }
            Self::Imaginary(l) => Dense {
                data: &states.values[layout.stride() + layout.layer(*l).start..],
                stride: states.stride(),
            },
        }
    }
}
