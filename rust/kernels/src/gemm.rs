//! Dense products of row-major matrices.

mod packed;

use crate::cache::Caches;
use crate::level::dispatch;
use crate::simd::{Real, Vector};
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

/// Vectors of columns of a panel: with tiles of eight rows, 24 sums cover the latency of a
/// multiply-add in two units, and leave registers for B.
const VECTORS: usize = 3;

/// Work from which on it is not only before a product that an interrupt comes.
const LARGE: usize = 1 << 16;

#[inline(always)]
fn multiply_body<V: Vector>(
    a: Strided<'_, V::Scalar>,
    b: Dense<'_, V::Scalar>,
    (rows, inner, cols): (usize, usize, usize),
    target: &mut [V::Scalar],
    stride: usize,
) {
    if rows == 0 || inner == 0 || cols == 0 {
        return;
    }
    assert!(
        a.data.len() > (rows - 1) * a.row + (inner - 1) * a.column
            && b.data.len() >= (inner - 1) * b.stride + cols
            && target.len() >= (rows - 1) * stride + cols
            && stride >= cols,
        "slices are too short for the product"
    );
    let a = Left { data: a.data.as_ptr(), row: a.row, column: a.column };
    let (from, to) = (b.data.as_ptr(), target.as_mut_ptr());
    // SAFETY: the assertion above; `dispatch!` vouches for the instruction set.
    unsafe {
        if shape_is_blocked::<V>(rows, inner, cols, b.stride) {
            return packed::multiply::<V>(a, from, b.stride, (rows, inner, cols), to, stride);
        }
        let large = rows * inner * VECTORS * V::LANES >= LARGE;
        poll(if large { 0 } else { rows * inner * cols });
        let tiles = Tiles { inner, to, stride };
        for col in (0..cols).step_by(VECTORS * V::LANES) {
            let width = (cols - col).min(VECTORS * V::LANES);
            poll(if large { rows * inner * width } else { 0 });
            tiles.panel::<V>(a, from.add(col), b.stride, rows, col, width);
        }
    }
}

/// Whether copies pay: from some rows on where panels of B are slow to read, because rows lie half
/// pages apart or all of B does not stay in the second-level cache; from more rows on always.
fn shape_is_blocked<V: Vector>(rows: usize, inner: usize, cols: usize, step: usize) -> bool {
    const SOME: usize = 24;
    const MANY: usize = 128;
    const HALF_PAGE: usize = 2048;
    let size = size_of::<V::Scalar>();
    let is_slow = || {
        (step * size).is_multiple_of(HALF_PAGE) || inner * cols * size > Caches::get().second / 2
    };
    // Less than a panel is over before it is copied.
    cols >= VECTORS * V::LANES && inner >= V::LANES && (rows >= MANY || rows >= SOME && is_slow())
}

/// The rows of the next tile.
#[inline(always)]
fn height<V: Vector>(rows: usize) -> usize {
    match rows {
        8.. if V::REGISTERS >= 32 => 8,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// The left side of a product: element (i, k) is at `data + i row + k column`.
struct Left<T> {
    data: *const T,
    row: usize,
    column: usize,
}

impl<T> Clone for Left<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Left<T> {}

impl<T> Left<T> {
    /// From row `i` and column `k` on.
    #[inline(always)]
    unsafe fn at(self, i: usize, k: usize) -> Self {
        // SAFETY: the caller vouches for the element.
        Self { data: unsafe { self.data.add(i * self.row + k * self.column) }, ..self }
    }
}

/// Tiles of the target, whose rows are `stride` apart, of a product of `inner` terms.
struct Tiles<T> {
    inner: usize,
    to: *mut T,
    stride: usize,
}

// SAFETY of every block below: callers vouch for the rows and columns of A, B and the target, and
// for the instruction set.
#[allow(clippy::undocumented_unsafe_blocks, reason = "stated once, for all of them")]
impl<T: Real> Tiles<T> {
    /// Columns `col..col + width` of all rows, with a panel of B whose rows are `step` apart.
    #[inline(always)]
    unsafe fn panel<V: Vector<Scalar = T>>(
        &self,
        a: Left<T>,
        b: *const T,
        step: usize,
        rows: usize,
        col: usize,
        width: usize,
    ) {
        let mut row = 0;
        while row < rows {
            let high = height::<V>(rows - row);
            unsafe {
                let (a, to) = (a.at(row, 0), self.to.add(row * self.stride + col));
                match high {
                    8 => self.columns::<V, 8>(a, b, step, to, width),
                    4 => self.columns::<V, 4>(a, b, step, to, width),
                    2 => self.columns::<V, 2>(a, b, step, to, width),
                    _ => self.columns::<V, 1>(a, b, step, to, width),
                }
            }
            row += high;
        }
    }

    /// The same with rows of A that were copied tile by tile.
    #[inline(always)]
    unsafe fn panel_of_copies<V: Vector<Scalar = T>>(
        &self,
        a: *const T,
        b: *const T,
        step: usize,
        rows: usize,
        col: usize,
        width: usize,
    ) {
        let mut row = 0;
        while row < rows {
            let high = height::<V>(rows - row);
            unsafe {
                let data = a.add(row * self.inner);
                let to = self.to.add(row * self.stride + col);
                // Constants, so that a tile reads A without computing where.
                let left = |column| Left { data, row: 1, column };
                match high {
                    8 => self.columns::<V, 8>(left(8), b, step, to, width),
                    4 => self.columns::<V, 4>(left(4), b, step, to, width),
                    2 => self.columns::<V, 2>(left(2), b, step, to, width),
                    _ => self.columns::<V, 1>(left(1), b, step, to, width),
                }
            }
            row += high;
        }
    }

    /// M rows: as many vectors of columns at once as there are.
    #[inline(always)]
    unsafe fn columns<V: Vector<Scalar = T>, const M: usize>(
        &self,
        a: Left<T>,
        b: *const T,
        step: usize,
        to: *mut T,
        width: usize,
    ) {
        let (whole, rest) = (width / V::LANES, width % V::LANES);
        unsafe {
            match whole {
                VECTORS.. => return self.tile::<V, M, VECTORS>(a, b, step, to, 0),
                2 => self.tile::<V, M, 2>(a, b, step, to, 0),
                1 => self.tile::<V, M, 1>(a, b, step, to, 0),
                0 => {}
            }
            if rest > 0 {
                let at = whole * V::LANES;
                self.tile::<V, M, 1>(a, b.add(at), step, to.add(at), rest);
            }
        }
    }

    /// M rows of N vectors of columns; with `part`, the first elements of one vector.
    #[inline(always)]
    unsafe fn tile<V: Vector<Scalar = T>, const M: usize, const N: usize>(
        &self,
        a: Left<T>,
        mut b: *const T,
        step: usize,
        to: *mut T,
        part: usize,
    ) {
        unsafe {
            let load = |p: *const T| if part == 0 { V::load(p) } else { V::load_first(p, part) };
            let mut sums = [[V::splat(Real::ZERO); N]; M];
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = load(to.add(i * self.stride + j * V::LANES));
                }
            }
            let mut factors = a.data;
            for _ in 0..self.inner {
                let line: [V; N] = std::array::from_fn(|j| load(b.add(j * V::LANES)));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let factor = V::splat(*factors.add(i * a.row));
                    for (sum, line) in sums.iter_mut().zip(line) {
                        *sum = factor.mul_add(line, *sum);
                    }
                }
                factors = factors.wrapping_add(a.column);
                b = b.wrapping_add(step);
            }
            for (i, sums) in sums.into_iter().enumerate() {
                for (j, sum) in sums.into_iter().enumerate() {
                    let to = to.add(i * self.stride + j * V::LANES);
                    if part == 0 { sum.store(to) } else { sum.store_first(to, part) }
                }
            }
        }
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
}
