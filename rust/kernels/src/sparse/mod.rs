//! Products of a matrix whose rows are lists of non-zeros with a dense matrix: y += x m.
//!
//! All heavy products of the core have this form: the input drive (most pixels are zero), the
//! couplings between layers (most hidden units rest at exactly zero) and, with the transposed
//! lists, the outer-product updates.
//!
//! Floor: 2 flops per non-zero and column. The matrix is walked in panels of eight vectors, so that
//! eight independent sums cover the latency of a multiply-add; where each panel row is used often
//! enough, panels are copied to a buffer that stays in L1 (a matrix with rows a power of two apart
//! would otherwise evict itself).

mod panels;

use crate::gemm::{Dense, Strided, multiply};
use crate::level::{Level, dispatch};
use crate::simd::{Real, SLACK, Vector};
use aligned_vec::{AVec, avec};
use std::ops::Range;

use panels::{Task, direct_panel, packed_panel, rest_of_columns};

/// A matrix as lists of the non-zeros of its rows, in ascending order of columns. NaN counts as
/// non-zero.
#[derive(Debug, Clone, Default)]
pub struct SparseRows<T> {
    cols: usize,
    // Row i is entries starts[i]..starts[i + 1]. Invariant: every index is below `cols`.
    starts: Vec<u32>,
    index: Vec<u32>,
    value: Vec<T>,
}

impl<T: Real> SparseRows<T> {
    /// A matrix without rows.
    pub fn new(cols: usize) -> Self {
        let mut this = Self::default();
        this.reset(cols);
        this
    }

    /// Removes all rows, keeps the memory, and sets the number of columns.
    pub fn reset(&mut self, cols: usize) {
        self.cols = cols;
        self.starts.clear();
        self.starts.push(0);
        self.index.clear();
        self.value.clear();
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The number of stored elements.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether no element is stored.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The columns and values of row `i`.
    pub fn row(&self, i: usize) -> (&[u32], &[T]) {
        let span = self.starts[i] as usize..self.starts[i + 1] as usize;
        (&self.index[span.clone()], &self.value[span])
    }

    /// Appends a dense row.
    ///
    /// # Panics
    /// If the row does not have `cols` elements.
    pub fn push(&mut self, level: Level, row: &[T]) {
        assert_eq!(row.len(), self.cols);
        let start = self.index.len();
        // Room for a full row, and for the whole vectors that `compress` writes; the unused end is
        // cut off again. Growth is amortised, and there is none in steady state.
        self.index.resize(start + row.len() + SLACK, 0);
        self.value.resize(start + row.len() + SLACK, T::ZERO);
        let n = compress::<T>(level, row, &mut self.index[start..], &mut self.value[start..]);
        self.index.truncate(start + n);
        self.value.truncate(start + n);
        self.starts.push((start + n) as u32);
    }

    /// Appends a row of zeros.
    pub fn push_empty(&mut self) {
        self.starts.push(self.index.len() as u32);
    }

    /// Multiplies the elements of the last row.
    pub fn scale_last(&mut self, factor: T) {
        let start = self.starts.len().checked_sub(2).map_or(0, |i| self.starts[i]);
        self.value[start as usize..].iter_mut().for_each(|v| *v *= factor);
    }

    /// Multiplies all elements.
    pub fn scale(&mut self, factor: T) {
        self.value.iter_mut().for_each(|v| *v *= factor);
    }

    /// Rounds all elements to bfloat16; what becomes zero stays stored.
    pub fn round_to_bfloat16(&mut self, level: Level) {
        crate::bfloat16::round_all(level, &mut self.value);
    }

    /// Writes the transpose of columns `span` to `target`, by counting sort: row i of the target is
    /// column `span.start + i`.
    ///
    /// # Panics
    /// If the span reaches past the columns.
    pub fn transpose_into(&self, span: Range<usize>, target: &mut Self) {
        assert!(span.start <= span.end && span.end <= self.cols);
        target.reset(self.rows());
        target.starts.resize(span.len() + 1, 0);
        let whole = span.len() == self.cols;
        // The entries of row i within the span.
        let within = |i: usize| {
            let row = self.starts[i] as usize..self.starts[i + 1] as usize;
            if whole {
                return row;
            }
            let index = &self.index[row.clone()];
            let from = index.partition_point(|&k| (k as usize) < span.start);
            let to = index.partition_point(|&k| (k as usize) < span.end);
            row.start + from..row.start + to
        };
        for i in 0..self.rows() {
            for &k in &self.index[within(i)] {
                target.starts[k as usize - span.start + 1] += 1;
            }
        }
        for k in 0..span.len() {
            target.starts[k + 1] += target.starts[k];
        }
        let entries = target.starts[span.len()] as usize;
        target.index.resize(entries, 0);
        target.value.resize(entries, T::ZERO);
        // starts[k] now walks from the beginning of row k to its end, that is to the beginning of
        // row k + 1.
        for i in 0..self.rows() {
            for e in within(i) {
                let slot = &mut target.starts[self.index[e] as usize - span.start];
                target.index[*slot as usize] = i as u32;
                target.value[*slot as usize] = self.value[e];
                *slot += 1;
            }
        }
        target.starts.copy_within(0..span.len(), 1);
        target.starts[0] = 0;
    }
}

dispatch! {
    /// Writes position and value of every non-zero of `row`, in order; returns how many there are.
    fn compress<T>(
        level: Level, row: &[T], index: &mut [u32], value: &mut [T],
    ) -> usize = compress_body
}

#[inline(always)]
fn compress_body<V: Vector>(
    row: &[V::Scalar],
    index: &mut [u32],
    value: &mut [V::Scalar],
) -> usize {
    assert!(index.len() >= row.len() + SLACK && value.len() >= row.len() + SLACK);
    const { assert!(V::LANES <= SLACK) };
    let mut n = 0;
    let mut k = 0;
    while k + V::LANES <= row.len() {
        // SAFETY: n <= k, so one vector and one index vector past n are within the slack.
        n += unsafe {
            V::compress(
                row.as_ptr().add(k),
                k as u32,
                index.as_mut_ptr().add(n),
                value.as_mut_ptr().add(n),
            )
        };
        k += V::LANES;
    }
    for (k, &v) in row.iter().enumerate().skip(k) {
        index[n] = k as u32;
        value[n] = v;
        n += usize::from(v != Real::ZERO);
    }
    n
}

/// Buffers of [`accumulate`], to be kept between calls.
#[derive(Debug, Clone)]
pub struct Panel<T> {
    packed: AVec<T>,
    cursors: Vec<u32>,
}

impl<T: Real> Default for Panel<T> {
    fn default() -> Self {
        Self { packed: avec![T::ZERO; PANEL_BYTES / size_of::<T>()], cursors: Vec::new() }
    }
}

/// Memory of [`product`], to be kept between calls.
#[derive(Debug, Clone)]
pub struct SparseProduct<T> {
    lists: SparseRows<T>,
    panel: Option<Panel<T>>,
}

impl<T> Default for SparseProduct<T> {
    fn default() -> Self {
        let lists =
            SparseRows { cols: 0, starts: Vec::new(), index: Vec::new(), value: Vec::new() };
        Self { lists, panel: None }
    }
}

/// Size of a packed panel: two thirds of the smallest L1 data cache around.
const PANEL_BYTES: usize = 32 * 1024;

/// Mean number of uses of a panel row from which packing pays.
const PACK_FROM: usize = 4;

dispatch! {
    /// y += x m for rows `first..first + count` of the sparse x (`rows` x `cols`), the dense m
    /// (`cols` x `n`), and y (`count` x `n`, row-major, `stride` apart).
    ///
    /// Each element is summed in ascending order of columns of x, starting from y: the result does
    /// not depend on how rows are grouped into calls.
    ///
    /// # Panics
    /// If a slice is too short for its shape.
    pub fn accumulate<T>(
        level: Level,
        x: &SparseRows<T>,
        first: usize,
        count: usize,
        m: Dense<'_, T>,
        n: usize,
        y: &mut [T],
        stride: usize,
        panel: &mut Panel<T>,
    ) = accumulate_body
}

dispatch! {
    /// How many elements are not zero; NaN counts as such.
    pub fn non_zeros<T>(level: Level, values: &[T]) -> usize = non_zeros_body
}

#[inline(always)]
fn non_zeros_body<V: Vector>(values: &[V::Scalar]) -> usize {
    let mut total = 0;
    // Counts of this many fit in lanes as wide as the values.
    for values in values.chunks(1 << 16) {
        let mut count = 0u32;
        for v in values {
            count += u32::from(*v != Real::ZERO);
        }
        total += count as usize;
    }
    total
}

/// Whether lists pay for a product with so many elements that are not zero, of so many: they need
/// an index each, and a row of the dense matrix serves one row of lists.
pub fn lists_pay(there: usize, of: usize) -> bool {
    3 * there <= of
}

/// y += x m for a dense x (`shape.0` x `shape.1`), m (`shape.1` x `shape.2`) and y, row-major
/// without gaps: the zeros of x are skipped where most of it is zero. The result is that of
/// [`multiply`], to the bit, as long as m is finite.
///
/// # Panics
/// If a slice is too short for its shape.
pub fn product<T: Real>(
    level: Level,
    x: &[T],
    m: &[T],
    shape: (usize, usize, usize),
    y: &mut [T],
    memory: &mut SparseProduct<T>,
) {
    let (rows, inner, cols) = shape;
    let m = Dense { data: m, stride: cols };
    if !lists_pay(non_zeros(level, x), x.len()) {
        return multiply(level, Strided { data: x, row: inner, column: 1 }, m, shape, y, cols);
    }
    crate::watch::poll(x.len() * cols / 4);
    let SparseProduct { lists, panel } = memory;
    lists.reset(inner);
    x.chunks_exact(inner).for_each(|row| lists.push(level, row));
    let panel = panel.get_or_insert_default();
    accumulate(level, lists, 0, rows, m, cols, y, cols, panel);
}

/// Entries from which on it is not only before a product that an interrupt comes.
const LARGE: usize = 1 << 12;

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "kernels take slices with their strides")]
fn accumulate_body<V: Vector>(
    x: &SparseRows<V::Scalar>,
    first: usize,
    count: usize,
    m: Dense<'_, V::Scalar>,
    n: usize,
    y: &mut [V::Scalar],
    stride: usize,
    panel: &mut Panel<V::Scalar>,
) {
    assert!(first + count <= x.rows());
    if count == 0 || n == 0 || x.cols == 0 {
        return;
    }
    assert!(n <= m.stride && (x.cols - 1) * m.stride + n <= m.data.len(), "m is too short");
    assert!(n <= stride && (count - 1) * stride + n <= y.len(), "y is too short");
    let starts = &x.starts[first..=first + count];
    let entries = (starts[count] - starts[0]) as usize;
    let task = Task {
        starts,
        index: &x.index,
        value: &x.value,
        cols: x.cols,
        m,
        y: y.as_mut_ptr(),
        stride,
    };
    let pack = entries >= PACK_FROM * x.cols;
    // Small products are counted by who makes them, together.
    let each = if entries >= LARGE { 8 * V::LANES * entries } else { 0 };
    let mut col = 0;
    // SAFETY: the columns stay below `n`, so the assertions above cover all rows; indices are below
    // `cols` by the invariant of SparseRows; `dispatch!` vouches for the instruction set.
    unsafe {
        while n - col >= 8 * V::LANES {
            if each > 0 {
                crate::watch::poll(each);
            }
            if pack {
                packed_panel::<V, 8>(&task, col, panel);
            } else {
                direct_panel::<V, 8>(&task, col);
            }
            col += 8 * V::LANES;
        }
        rest_of_columns::<V>(&task, col, n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matrix(rows: usize, cols: usize, zeros: f64, seed: u64) -> Vec<f64> {
        let stream = crate::philox::Philox::new(seed, crate::philox::Purpose::Probe);
        (0..rows * cols)
            .map(|i| {
                if stream.uniform(i as u64, 1) < zeros {
                    0.0
                } else {
                    stream.uniform(i as u64, 0) - 0.5
                }
            })
            .collect()
    }

    fn check<T: Real>(rows: usize, cols: usize, n: usize, zeros: f64, tolerance: f64) {
        let cast = |v: &[f64]| v.iter().map(|&x| T::from_f64(x)).collect::<Vec<_>>();
        let (x, m, y) = (
            matrix(rows, cols, zeros, 1),
            matrix(cols, n + 2, 0.0, 2),
            matrix(rows, n + 1, 0.0, 3),
        );
        let (x, m, start) = (cast(&x), cast(&m), cast(&y));
        let mut lists = SparseRows::new(cols);
        x.chunks(cols).for_each(|row| lists.push(Level::get(), row));
        for level in Level::available() {
            let mut again = SparseRows::new(cols);
            x.chunks(cols).for_each(|row| again.push(level, row));
            assert_eq!(
                (&lists.starts, &lists.index, &lists.value),
                (&again.starts, &again.index, &again.value)
            );
        }
        let mut back = SparseRows::new(0);
        let mut forth = SparseRows::new(0);
        lists.transpose_into(0..cols, &mut back);
        back.transpose_into(0..rows, &mut forth);
        let (from, to) = (cols / 3, cols - cols / 4);
        let mut part = SparseRows::new(0);
        lists.transpose_into(from..to, &mut part);
        for k in from..to {
            assert_eq!(part.row(k - from), back.row(k));
        }
        assert_eq!(
            (&lists.starts, &lists.index, &lists.value),
            (&forth.starts, &forth.index, &forth.value)
        );
        for level in Level::available() {
            let (mut y, mut panel) = (start.clone(), Panel::default());
            let m_view = Dense { data: &m, stride: n + 2 };
            accumulate(level, &lists, 0, rows, m_view, n, &mut y, n + 1, &mut panel);
            // One row at a time gives the same bits.
            let mut single = start.clone();
            for (i, line) in single.chunks_mut(n + 1).enumerate() {
                accumulate(level, &lists, i, 1, m_view, n, line, n + 1, &mut panel);
            }
            assert_eq!(y, single, "{} depends on the grouping of rows", level.name());
            for i in 0..rows {
                for j in 0..n {
                    let exact: f64 = (0..cols)
                        .map(|k| x[i * cols + k].to_f64() * m[k * (n + 2) + j].to_f64())
                        .sum::<f64>()
                        + start[i * (n + 1) + j].to_f64();
                    let got = y[i * (n + 1) + j].to_f64();
                    assert!(
                        (got - exact).abs() <= tolerance * (1.0 + cols as f64).sqrt(),
                        "{got} != {exact}"
                    );
                }
                assert_eq!(y[i * (n + 1) + n], start[i * (n + 1) + n], "wrote past the row");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn product_agrees_with_a_plain_sum(
            rows in 1usize..40, cols in 1usize..150, n in 1usize..300, zeros in 0.0..1.0,
        ) {
            check::<f32>(rows, cols, n, zeros, 1e-6);
            check::<f64>(rows, cols, n, zeros, 1e-15);
        }
    }

    #[test]
    fn zeros_are_skipped_to_the_bit() {
        (1..=70).for_each(|n| {
            check_zeros::<f32>(13, 70, n);
            check_zeros::<f64>(13, 70, n);
        });
        check_zeros::<f32>(5, 9, 300);
        check_zeros::<f64>(1, 70, 10);
    }

    fn check_zeros<T: Real>(rows: usize, inner: usize, n: usize) {
        let mut memory = SparseProduct::default();
        for zeros in [0.0, 0.5, 0.9, 1.0] {
            let cast = |v: Vec<f64>| v.into_iter().map(T::from_f64).collect::<Vec<_>>();
            let (x, m) = (cast(matrix(rows, inner, zeros, 1)), cast(matrix(inner, n, 0.0, 2)));
            let start = cast(matrix(rows, n, 0.0, 3));
            for level in Level::available() {
                let (mut dense, mut skipped) = (start.clone(), start.clone());
                let left = Strided { data: &x, row: inner, column: 1 };
                multiply(
                    level,
                    left,
                    Dense { data: &m, stride: n },
                    (rows, inner, n),
                    &mut dense,
                    n,
                );
                product(level, &x, &m, (rows, inner, n), &mut skipped, &mut memory);
                assert_eq!(dense, skipped, "{}, {n} columns, {zeros} zeros", level.name());
            }
        }
    }

    #[test]
    fn nan_is_not_skipped() {
        let mut lists = SparseRows::new(3);
        lists.push(Level::get(), &[0.0, f32::NAN, 0.0]);
        assert_eq!(lists.len(), 1);
    }
}
