//! Dense products of row-major matrices.

mod packed;

use crate::cache::Caches;
use crate::level::dispatch;
use crate::simd::{Real, Vector, each};
use crate::watch::poll;

/// A dense row-major matrix: its elements, and the distance between its rows.
#[derive(Debug, Clone, Copy)]
pub struct Dense<'a, T> {
    /// The elements.
    pub data: &'a [T],
    /// Elements from one row to the next.
    pub stride: usize,
}

/// A matrix as a product reads it: element (i, k) is `data[i * row + k * column]`, so that a
/// transpose costs nothing.
#[derive(Debug, Clone, Copy)]
pub struct Strided<'a, T> {
    /// The elements.
    pub data: &'a [T],
    /// From one row to the next.
    pub row: usize,
    /// From one column to the next.
    pub column: usize,
}

impl<'a, T> Strided<'a, T> {
    /// The transpose.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { data: self.data, row: self.column, column: self.row }
    }
}

impl<'a, T> From<Dense<'a, T>> for Strided<'a, T> {
    fn from(matrix: Dense<'a, T>) -> Self {
        Self { data: matrix.data, row: matrix.stride, column: 1 }
    }
}

/// The sides A and B of a product, and how many columns of A are met by rows of B.
pub type Factors<'a, T> = (Strided<'a, T>, Dense<'a, T>, usize);

dispatch! {
    /// target += A B, with A `shape.0` x `shape.1` and B `shape.1` x `shape.2`; rows of the target
    /// are `stride` elements apart. Every element is summed in ascending order from what the target
    /// holds: it does not depend on how rows are grouped into calls, nor on how blocks are cut.
    ///
    /// Tiles of the target stay in registers while B streams by, so that each vector of B that is
    /// read serves eight rows. Floor: 2 flops per element of A and column of B.
    ///
    /// # Panics
    /// If a slice is too short for its shape.
    pub fn multiply<T>(
        level: Level,
        a: Strided<'_, T>,
        b: Dense<'_, T>,
        shape: (usize, usize, usize),
        target: &mut [T],
        stride: usize,
    ) = multiply_body
}

dispatch! {
    /// target += A_1 B_1 + A_2 B_2 + ..., one after the other, as [`multiply`] would add each; but
    /// the target is read and written once for all. `shape` are its rows and columns.
    ///
    /// # Panics
    /// If a slice is too short for its shape.
    pub fn multiply_all<T>(
        level: Level,
        factors: &[Factors<'_, T>],
        shape: (usize, usize),
        target: &mut [T],
        stride: usize,
    ) = multiply_all_body
}

/// Vectors of columns of a panel. With 32 registers, tiles of eight rows have 24 sums, with 16,
/// tiles of six rows have twelve: they cover the latency of a multiply-add in two units, and leave
/// registers for B and a factor.
const fn vectors<V: Vector>() -> usize {
    if V::REGISTERS >= 32 { 3 } else { 2 }
}

/// The same where there is one row.
const WIDE: usize = 8;

#[inline(always)]
fn multiply_body<V: Vector>(
    a: Strided<'_, V::Scalar>,
    b: Dense<'_, V::Scalar>,
    (rows, inner, cols): (usize, usize, usize),
    target: &mut [V::Scalar],
    stride: usize,
) {
    multiply_all_body::<V>(&[(a, b, inner)], (rows, cols), target, stride);
}

#[inline(always)]
fn multiply_all_body<V: Vector>(
    factors: &[Factors<'_, V::Scalar>],
    (rows, cols): (usize, usize),
    target: &mut [V::Scalar],
    stride: usize,
) {
    if rows == 0 || cols == 0 {
        return;
    }
    assert!(
        target.len() >= (rows - 1) * stride + cols && stride >= cols,
        "the target is too short"
    );
    let (mut inner, mut far) = (0, false);
    for &(a, b, depth) in factors.iter().filter(|(.., depth)| *depth > 0) {
        assert!(
            a.data.len() > (rows - 1) * a.row + (depth - 1) * a.column
                && b.data.len() >= (depth - 1) * b.stride + cols,
            "slices are too short for the product"
        );
        inner += depth;
        far |= (b.stride * size_of::<V::Scalar>()).is_multiple_of(HALF_PAGE);
    }
    let (to, shape) = (target.as_mut_ptr(), (rows, inner, cols));
    // SAFETY: the assertions above; `dispatch!` vouches for the instruction set.
    unsafe {
        if copies_pay::<V>(shape, far) {
            return packed::multiply::<V>(factors, shape, to, stride);
        }
        let mut terms = Terms::default();
        while let Some(parts) = terms.next(factors, 0, usize::MAX) {
            direct::<V>(parts, (rows, cols), to, stride);
        }
    }
}

/// The product of matrices as they lie.
#[inline(always)]
unsafe fn direct<V: Vector>(
    parts: &[Part<V::Scalar>],
    (rows, cols): (usize, usize),
    to: *mut V::Scalar,
    stride: usize,
) {
    let inner: usize = parts.iter().map(|part| part.inner).sum();
    /// Work from which on it is not only before a product that an interrupt comes.
    const LARGE: usize = 1 << 16;
    let large = rows * inner * vectors::<V>() * V::LANES >= LARGE;
    poll(if large { 0 } else { rows * inner * cols });
    let tiles = Tiles { parts, to, stride };
    let panel = V::LANES * if rows == 1 { WIDE } else { vectors::<V>() };
    for col in (0..cols).step_by(panel) {
        let width = (cols - col).min(panel);
        poll(if large { rows * inner * width } else { 0 });
        // SAFETY: as the caller vouches.
        unsafe { tiles.panel::<V, false>(rows, (col, col), width) };
    }
}

/// Rows so many bytes apart, or a multiple of it, compete for a few sets of the caches, and no
/// prefetcher follows them.
const HALF_PAGE: usize = 2048;

/// Whether copies pay: from some rows on where panels of B are slow to read, because rows lie far
/// apart or all of B does not stay in the second-level cache; from more rows on always.
fn copies_pay<V: Vector>((rows, inner, cols): (usize, usize, usize), far: bool) -> bool {
    const SOME: usize = 24;
    const MANY: usize = 128;
    let is_slow = || far || inner * cols * size_of::<V::Scalar>() > Caches::get().second / 2;
    // Less than a panel is over before it is copied.
    cols >= vectors::<V>() * V::LANES
        && inner >= V::LANES
        && (rows >= MANY || rows >= SOME && is_slow())
}

/// The rows of the next tile.
#[inline(always)]
fn height<V: Vector>(rows: usize) -> usize {
    match rows {
        8.. if V::REGISTERS >= 32 => 8,
        6.. if V::REGISTERS < 32 => 6,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// The left side of a product: element (i, k) is at `data + i row + k column`.
#[derive(Clone, Copy)]
struct Left<T> {
    data: *const T,
    row: usize,
    column: usize,
}

impl<T> Left<T> {
    /// From row `i` and column `k` on.
    #[inline(always)]
    unsafe fn at(self, i: usize, k: usize) -> Self {
        // SAFETY: the caller vouches for the element.
        Self { data: unsafe { self.data.add(i * self.row + k * self.column) }, ..self }
    }
}

/// A product that is summed: A, B from its first column on, and how many terms there are.
#[derive(Clone, Copy)]
struct Part<T> {
    a: Left<T>,
    b: *const T,
    /// From one row of B to the next.
    step: usize,
    inner: usize,
}

/// Walks through the terms of a sum of products.
struct Terms<T> {
    parts: [Part<T>; MOST],
    /// The product that comes next, and how many of its terms have been.
    next: (usize, usize),
}

/// The most parts of a walk.
const MOST: usize = 16;

impl<T: Copy> Default for Terms<T> {
    fn default() -> Self {
        let nothing = Left { data: std::ptr::null(), row: 0, column: 0 };
        let part = Part { a: nothing, b: std::ptr::null(), step: 0, inner: 0 };
        Self { parts: [part; MOST], next: (0, 0) }
    }
}

impl<T: Copy> Terms<T> {
    /// The next terms, `depth` at most, of rows from `row` on; `None`: there are no more.
    #[inline(always)]
    unsafe fn next(
        &mut self,
        factors: &[Factors<'_, T>],
        row: usize,
        mut depth: usize,
    ) -> Option<&[Part<T>]> {
        let mut count = 0;
        while count < MOST && depth > 0 {
            let Some(&(a, b, inner)) = factors.get(self.next.0) else { break };
            let first = self.next.1;
            let own = depth.min(inner - first);
            let left = Left { data: a.data.as_ptr(), row: a.row, column: a.column };
            self.next =
                if first + own < inner { (self.next.0, first + own) } else { (self.next.0 + 1, 0) };
            if own > 0 {
                // SAFETY: the caller vouches for the row; the terms are those of the product.
                self.parts[count] = unsafe {
                    let (a, from) = (left.at(row, first), b.data.as_ptr().add(first * b.stride));
                    Part { a, b: from, step: b.stride, inner: own }
                };
                count += 1;
                depth -= own;
            }
        }
        (count > 0).then_some(&self.parts[..count])
    }
}

/// Tiles of the target, whose rows are `stride` apart, of a sum of products.
struct Tiles<'a, T> {
    parts: &'a [Part<T>],
    to: *mut T,
    stride: usize,
}

// SAFETY of every block below: callers vouch for the rows and columns of A, B and the target, and
// for the instruction set. COPIES tells that rows of A were copied tile by tile.
#[allow(clippy::undocumented_unsafe_blocks, reason = "stated once, for all of them")]
impl<T: Real> Tiles<'_, T> {
    /// `width` columns of all rows, at most a panel: from `cols.0` on in B, `cols.1` in the target.
    #[inline(always)]
    unsafe fn panel<V: Vector<Scalar = T>, const COPIES: bool>(
        &self,
        rows: usize,
        cols: (usize, usize),
        width: usize,
    ) {
        let mut row = 0;
        while row < rows {
            let high = height::<V>(rows - row);
            unsafe {
                match high {
                    8 if V::REGISTERS >= 32 => self.columns::<V, 8, COPIES>(row, cols, width),
                    6 if V::REGISTERS < 32 => self.columns::<V, 6, COPIES>(row, cols, width),
                    4 => self.columns::<V, 4, COPIES>(row, cols, width),
                    2 => self.columns::<V, 2, COPIES>(row, cols, width),
                    _ => self.columns::<V, 1, COPIES>(row, cols, width),
                }
            }
            row += high;
        }
    }

    /// M rows: as many vectors of columns at once as there are, and sums for.
    #[inline(always)]
    unsafe fn columns<V: Vector<Scalar = T>, const M: usize, const COPIES: bool>(
        &self,
        row: usize,
        (from, to): (usize, usize),
        width: usize,
    ) {
        let mut at = 0;
        while at < width {
            let cols = (from + at, to + at);
            let whole = (width - at) / V::LANES;
            unsafe {
                at += V::LANES
                    * match whole {
                        WIDE.. if M == 1 => self.tile::<V, M, WIDE, COPIES>(row, cols, 0),
                        3.. if V::REGISTERS >= 32 => self.tile::<V, M, 3, COPIES>(row, cols, 0),
                        2.. => self.tile::<V, M, 2, COPIES>(row, cols, 0),
                        1 => self.tile::<V, M, 1, COPIES>(row, cols, 0),
                        0 => self.tile::<V, M, 1, COPIES>(row, cols, width - at),
                    };
            }
        }
    }

    /// M rows of N vectors of columns; with `first`, the first elements of one vector. Gives N.
    #[inline(always)]
    unsafe fn tile<V: Vector<Scalar = T>, const M: usize, const N: usize, const COPIES: bool>(
        &self,
        row: usize,
        (from, to): (usize, usize),
        first: usize,
    ) -> usize {
        unsafe {
            let load = |p: *const T| if first == 0 { V::load(p) } else { V::load_first(p, first) };
            let to = self.to.add(row * self.stride + to);
            let mut sums = [[V::splat(Real::ZERO); N]; M];
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = load(to.add(i * self.stride + j * V::LANES));
                }
            }
            for &Part { ref a, b, step, inner } in self.parts {
                let (start, apart, next) =
                    if COPIES { (row * inner, 1, M) } else { (row * a.row, a.row, a.column) };
                let (mut factors, mut b) = (a.data.wrapping_add(start), b.wrapping_add(from));
                for _ in 0..inner {
                    let line: [V; N] = each(V::splat(Real::ZERO), |j| load(b.add(j * V::LANES)));
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let factor = V::splat(*factors.add(i * apart));
                        for (sum, line) in sums.iter_mut().zip(line) {
                            *sum = factor.mul_add(line, *sum);
                        }
                    }
                    factors = factors.wrapping_add(next);
                    b = b.wrapping_add(step);
                }
            }
            for (i, sums) in sums.into_iter().enumerate() {
                for (j, sum) in sums.into_iter().enumerate() {
                    let to = to.add(i * self.stride + j * V::LANES);
                    if first == 0 { sum.store(to) } else { sum.store_first(to, first) }
                }
            }
        }
        N
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::Level;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn products_are_sums_of_products(
            rows in 0usize..20, inner in 0usize..12, cols in 0usize..70, turned: bool,
        ) {
            let a: Vec<f64> = (0..rows * inner).map(|k| ((k * 7 % 31) as f64) - 15.0).collect();
            let b: Vec<f64> =
                (0..inner * (cols + 2)).map(|k| ((k * 5 % 23) as f64) - 11.0).collect();
            let (stride, pad) = (cols + 3, 0.5);
            let left = if turned {
                Strided { data: &a, row: inner, column: 1 }.transposed().transposed()
            } else {
                Strided { data: &a, row: 1, column: rows }
            };
            let right = Dense { data: &b, stride: cols + 2 };
            for level in Level::available() {
                let mut found = vec![pad; rows * stride];
                multiply(level, left, right, (rows, inner, cols), &mut found, stride);
                for (i, line) in found.chunks_exact(stride).enumerate() {
                    for (j, &value) in line.iter().enumerate() {
                        let sum: f64 = (0..inner)
                            .map(|k| {
                                left.data[i * left.row + k * left.column]
                                    * if j < cols { b[k * (cols + 2) + j] } else { 0.0 }
                            })
                            .sum();
                        // Small whole numbers: sums are exact in any order.
                        prop_assert_eq!(value, if j < cols { pad + sum } else { pad });
                    }
                }
            }
        }

        #[test]
        fn rows_do_not_see_how_they_are_grouped(
            rows in 1usize..20, inner in 1usize..40, cols in 1usize..60, cut in 0usize..20,
        ) {
            let a: Vec<f32> = (0..rows * inner).map(|k| (k as f32 * 0.37).sin()).collect();
            let b: Vec<f32> = (0..inner * cols).map(|k| (k as f32 * 0.73).cos()).collect();
            let right = Dense { data: &b, stride: cols };
            let cut = cut.min(rows);
            for level in Level::available() {
                let (mut whole, mut parts) = (vec![0.1; rows * cols], vec![0.1; rows * cols]);
                let all = Strided { data: &a, row: inner, column: 1 };
                multiply(level, all, right, (rows, inner, cols), &mut whole, cols);
                let (first, second) = parts.split_at_mut(cut * cols);
                multiply(level, all, right, (cut, inner, cols), first, cols);
                let rest = Strided { data: &a[cut * inner..], ..all };
                multiply(level, rest, right, (rows - cut, inner, cols), second, cols);
                prop_assert_eq!(&whole, &parts);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Products in blocks, of which both sides are copied, beside those of a few rows, which
        /// are not: the same bits.
        #[test]
        fn blocks_do_not_show(
            rows in 100usize..300, inner in 1usize..600, cols in 40usize..140, far: bool,
            turned: bool, seed in 0usize..100,
        ) {
            let stride = if far { 512 } else { cols + 3 };
            let value = |k: usize| ((k * 37 + seed) as f64 * 0.61).sin();
            let a: Vec<f64> = (0..rows * inner).map(value).collect();
            let b: Vec<f64> = (0..inner * stride).map(|k| value(3 * k)).collect();
            let left = if turned {
                Strided { data: &a, row: 1, column: rows }
            } else {
                Strided { data: &a, row: inner, column: 1 }
            };
            let right = Dense { data: &b, stride };
            for level in Level::available() {
                let (mut whole, mut parts) = (vec![0.1; rows * cols], vec![0.1; rows * cols]);
                multiply(level, left, right, (rows, inner, cols), &mut whole, cols);
                for (i, line) in parts.chunks_exact_mut(cols).enumerate() {
                    let own = Strided { data: &a[i * left.row..], ..left };
                    multiply(level, own, right, (1, inner, cols), line, cols);
                }
                prop_assert!(whole == parts, "{}", level.name());
            }
        }

        #[test]
        fn sums_of_products_are_their_sums(
            rows in 1usize..140, cols in 1usize..130, far: bool,
            depths in proptest::collection::vec(0usize..60, 0..40),
        ) {
            let stride = if far { 512 } else { cols };
            let inner: usize = depths.iter().sum();
            let a: Vec<f32> = (0..rows * inner).map(|k| (k as f32 * 0.37).sin()).collect();
            let b: Vec<f32> = (0..inner * stride).map(|k| (k as f32 * 0.73).cos()).collect();
            let mut first = 0;
            let factors: Vec<_> = depths
                .iter()
                .map(|&depth| {
                    let (start, at) = (first.min(inner.saturating_sub(1)), first);
                    first += depth;
                    let left = Strided { data: &a[start.min(a.len())..], row: inner, column: 1 };
                    (left, Dense { data: &b[at * stride..], stride }, depth)
                })
                .collect();
            for level in Level::available() {
                let (mut whole, mut parts) = (vec![0.1; rows * cols], vec![0.1; rows * cols]);
                multiply_all(level, &factors, (rows, cols), &mut whole, cols);
                for &(a, b, depth) in &factors {
                    multiply(level, a, b, (rows, depth, cols), &mut parts, cols);
                }
                prop_assert!(whole == parts, "{}", level.name());
            }
        }
    }
}
