//! Complex symmetric systems of linear equations, eliminated without exchanges of rows.
//!
//! That is stable where the real or the imaginary part of the matrix is definite: what grows in the
//! elimination does so by a factor below three (George, Ikramov, Kucherov, SIAM J. Matrix Anal.
//! Appl. 23, 549, 2001). Floor: n³ / 6 + n² m complex multiply-adds for n unknowns and m right-hand
//! sides, each of them four real ones.

use crate::level::dispatch;
use crate::simd::{Real, Vector};

dispatch! {
    /// Solves a complex symmetric system for `columns` right-hand sides: `sides` become the
    /// solutions. Rows of both are all real parts, then all imaginary parts. The matrix is read
    /// above its diagonal alone, and lost.
    ///
    /// # Panics
    /// If the matrix has not as many rows as the sides, or there is no column.
    pub fn solve<T>(level: Level, matrix: &mut [T], sides: &mut [T], columns: usize) = solve_body
}

#[inline(always)]
fn solve_body<V: Vector>(matrix: &mut [V::Scalar], sides: &mut [V::Scalar], columns: usize) {
    let n = sides.len() / (2 * columns);
    assert!(
        matrix.len() == 2 * n * n && sides.len() == 2 * n * columns,
        "a square matrix, and as many rows of sides"
    );
    for k in 0..n {
        let (above, below) = matrix.split_at_mut(2 * n * (k + 1));
        let (re, im) = above[2 * n * k..].split_at_mut(n);
        let pivot = inverse([re[k], im[k]]);
        let (solved, rest) = sides.split_at_mut(2 * columns * (k + 1));
        let side = solved[2 * columns * k..].split_at(columns);
        let rows = below.chunks_exact_mut(2 * n).zip(rest.chunks_exact_mut(2 * columns));
        for (i, (to, side_to)) in (k + 1..).zip(rows) {
            // What is below the diagonal is what is above it.
            let factor = times([re[i], im[i]], pivot);
            let (to_re, to_im) = to.split_at_mut(n);
            subtract::<V>(factor, (&re[i..], &im[i..]), (&mut to_re[i..], &mut to_im[i..]));
            subtract::<V>(factor, side, side_to.split_at_mut(columns));
        }
        [re[k], im[k]] = pivot;
    }
    for k in (0..n).rev() {
        let (re, im) = matrix[2 * n * k..][..2 * n].split_at(n);
        let (above, below) = sides.split_at_mut(2 * columns * (k + 1));
        let side = &mut above[2 * columns * k..];
        for (i, solved) in (k + 1..).zip(below.chunks_exact(2 * columns)) {
            subtract::<V>([re[i], im[i]], solved.split_at(columns), side.split_at_mut(columns));
        }
        let (side_re, side_im) = side.split_at_mut(columns);
        for (to_re, to_im) in side_re.iter_mut().zip(side_im) {
            [*to_re, *to_im] = times([*to_re, *to_im], [re[k], im[k]]);
        }
    }
}

/// Subtracts a multiple of complex numbers from as many others.
#[inline(always)]
fn subtract<V: Vector>(
    [a, b]: [V::Scalar; 2],
    (re, im): (&[V::Scalar], &[V::Scalar]),
    (to_re, to_im): (&mut [V::Scalar], &mut [V::Scalar]),
) {
    let n = re.len().min(im.len()).min(to_re.len()).min(to_im.len());
    // SAFETY: all slices have n elements; `dispatch!` vouches for the instruction set.
    unsafe {
        let (minus_a, plus_b, minus_b) = (V::splat(-a), V::splat(b), V::splat(-b));
        let multiply = |re: V, im: V, to_re: V, to_im: V| {
            (
                plus_b.mul_add(im, minus_a.mul_add(re, to_re)),
                minus_b.mul_add(re, minus_a.mul_add(im, to_im)),
            )
        };
        let whole = n - n % V::LANES;
        for j in (0..whole).step_by(V::LANES) {
            let (p, q) = (to_re.as_mut_ptr().add(j), to_im.as_mut_ptr().add(j));
            let (x, y) = (V::load(re.as_ptr().add(j)), V::load(im.as_ptr().add(j)));
            let (x, y) = multiply(x, y, V::load(p), V::load(q));
            x.store(p);
            y.store(q);
        }
        let rest = n - whole;
        let (p, q) = (to_re.as_mut_ptr().add(whole), to_im.as_mut_ptr().add(whole));
        let x = V::load_first(re.as_ptr().add(whole), rest);
        let y = V::load_first(im.as_ptr().add(whole), rest);
        let (x, y) = multiply(x, y, V::load_first(p, rest), V::load_first(q, rest));
        x.store_first(p, rest);
        y.store_first(q, rest);
    }
}

#[inline(always)]
fn times<T: Real>([a, b]: [T; 2], [c, d]: [T; 2]) -> [T; 2] {
    [a * c - b * d, a * d + b * c]
}

/// One over a complex number, scaled so that no square overflows.
#[inline(always)]
pub fn inverse<T: Real>([a, b]: [T; 2]) -> [T; 2] {
    let size = a.abs().max_magnitude(b);
    let (p, q) = (a / size, b / size);
    let square = size * (p * p + q * q);
    [p / square, -q / square]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;
    use crate::philox::{Philox, Purpose};

    /// The largest element of A x - b, over that of b, for a random matrix whose imaginary part is
    /// definite, by however little beside the real one.
    fn residual<T: Real>(level: Level, n: usize, columns: usize, loss: f64) -> f64 {
        let random = Philox::new(n as u64, Purpose::Direction);
        let draw = |k: usize, group: u32| 2.0 * random.uniform(k as u64, group) - 1.0;
        let element = |i: usize, j: usize| {
            let (i, j) = (i.min(j), i.max(j));
            [draw(i * n + j, 0), if i == j { loss * (1.5 + draw(i, 1)) } else { 0.0 }]
        };
        let mut matrix = vec![T::ZERO; 2 * n * n];
        let mut sides = vec![T::ZERO; 2 * n * columns];
        for i in 0..n {
            for j in i..n {
                let [re, im] = element(i, j);
                matrix[2 * n * i + j] = T::from_f64(re);
                matrix[2 * n * i + n + j] = T::from_f64(im);
            }
        }
        (0..).zip(&mut sides).for_each(|(k, side)| *side = T::from_f64(draw(k, 2)));
        let wanted = sides.clone();
        solve(level, &mut matrix, &mut sides, columns);
        let at = |values: &[T], row: usize, column: usize| {
            [0, columns].map(|part| values[2 * columns * row + part + column].to_f64())
        };
        let mut worst: f64 = 0.0;
        for i in 0..n {
            for column in 0..columns {
                let mut left = at(&wanted, i, column);
                for j in 0..n {
                    let [re, im] = times(element(i, j), at(&sides, j, column));
                    left[0] -= re;
                    left[1] -= im;
                }
                worst = worst.max(left[0].abs()).max(left[1].abs());
            }
        }
        worst
    }

    #[test]
    fn solutions_leave_no_residual() {
        for level in Level::available() {
            for n in [1, 2, 3, 7, 15, 16, 17, 33, 50] {
                for columns in [1, 3, 16, 18] {
                    assert!(residual::<f64>(level, n, columns, 0.3) < 1e-12, "{level:?} {n}");
                    assert!(residual::<f64>(level, n, columns, 1e-3) < 1e-9, "{level:?} {n}");
                    assert!(residual::<f32>(level, n, columns, 0.3) < 1e-3, "{level:?} {n}");
                }
            }
        }
    }

    #[test]
    fn numbers_of_any_size_have_an_inverse() {
        for size in [1e-150, 1.0, 1e150] {
            let [re, im] = inverse([3.0 * size, -4.0 * size]);
            assert!((re * size - 0.12).abs() < 1e-15 && (im * size - 0.16).abs() < 1e-15);
        }
    }
}
