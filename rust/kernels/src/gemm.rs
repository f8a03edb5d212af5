//! Dense products of row-major matrices.

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
    /// holds: it does not depend on how rows are grouped into calls.
    ///
    /// Tiles of the target stay in registers while B streams by, so that each vector of B that is
    /// read (from L2, where the matrix is large) serves eight rows.
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
    let product = Product { a, b, inner, stride };
    /// Work from which on it is not only before a product that an interrupt comes.
    const LARGE: usize = 1 << 16;
    let each = rows * inner * 3 * V::LANES;
    poll(if each < LARGE { rows * inner * cols } else { 0 });
    // SAFETY: the assertion above; `dispatch!` vouches for the instruction set.
    unsafe {
        let mut col = 0;
        while cols - col >= 3 * V::LANES {
            if each >= LARGE {
                poll(each);
            }
            product.columns::<V, 3>(rows, col, 0, target);
            col += 3 * V::LANES;
        }
        while cols - col >= V::LANES {
            product.columns::<V, 1>(rows, col, 0, target);
            col += V::LANES;
        }
        if col < cols {
            product.columns::<V, 1>(rows, col, cols - col, target);
        }
    }
}

struct Product<'a, T> {
    a: Strided<'a, T>,
    b: Dense<'a, T>,
    inner: usize,
    stride: usize,
}

impl<T: Real> Product<'_, T> {
    /// N vectors of columns of all rows; with `part`, the first elements of one vector.
    #[inline(always)]
    unsafe fn columns<V: Vector<Scalar = T>, const N: usize>(
        &self,
        rows: usize,
        col: usize,
        part: usize,
        target: &mut [T],
    ) {
        let mut row = 0;
        // SAFETY: the caller vouches for rows and columns.
        unsafe {
            if V::REGISTERS >= 32 {
                while rows - row >= 8 {
                    self.tile::<V, 8, N>(row, col, part, target);
                    row += 8;
                }
            }
            while rows - row >= 4 {
                self.tile::<V, 4, N>(row, col, part, target);
                row += 4;
            }
            while row < rows {
                self.tile::<V, 1, N>(row, col, part, target);
                row += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<V: Vector<Scalar = T>, const M: usize, const N: usize>(
        &self,
        row: usize,
        col: usize,
        part: usize,
        target: &mut [T],
    ) {
        // SAFETY: the caller vouches for M rows and N vectors of columns, or one vector's first
        // `part` elements.
        unsafe {
            let load = |p: *const T| if part == 0 { V::load(p) } else { V::load_first(p, part) };
            let to = target.as_mut_ptr().add(row * self.stride + col);
            let mut sums = [[V::splat(Real::ZERO); N]; M];
            for (i, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = load(to.add(i * self.stride + j * V::LANES));
                }
            }
            let mut a = self.a.data.as_ptr().add(row * self.a.row);
            let mut b = self.b.data.as_ptr().add(col);
            for _ in 0..self.inner {
                let line: [V; N] = std::array::from_fn(|j| load(b.add(j * V::LANES)));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let factor = V::splat(*a.add(i * self.a.row));
                    for (sum, line) in sums.iter_mut().zip(line) {
                        *sum = factor.mul_add(line, *sum);
                    }
                }
                a = a.wrapping_add(self.a.column);
                b = b.wrapping_add(self.b.stride);
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
