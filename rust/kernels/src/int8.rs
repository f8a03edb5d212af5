//! Products of matrices of integers of eight bits, which are exact.
//!
//! Sums of products of two integers of at most seven bits and a sign are integers. AVX-512 VNNI
//! has an instruction that adds four of them to one of 32 bits; elsewhere they are summed as
//! floats, so few at a time that these hold every sum.

#[cfg(target_arch = "x86_64")]
mod quads;

use std::cell::Cell;

use crate::Level;
use crate::gemm::{Dense, Strided, multiply};
use crate::simd::{BothPrecisions, Real};

/// The largest magnitude of an integer.
pub const LARGEST: u32 = 127;

/// Appends a matrix of integers (`shape.0` x `shape.1`) as [`multiply_packed`] reads it: how
/// depends on the instruction set.
///
/// # Panics
/// If the matrix is not of that shape. Debug builds: if an element is no integer, or above
/// [`LARGEST`].
pub fn pack<T: Real>(level: Level, matrix: &[T], shape: (usize, usize), packed: &mut Vec<T>) {
    /// How matrices are packed in a precision.
    type Pack<T> = fn(Level, &[T], (usize, usize), &mut Vec<T>);
    struct Kernels;
    impl BothPrecisions for Kernels {
        type Of<T: Real> = Pack<T>;
        fn f32(&self) -> &Pack<f32> {
            #[cfg(target_arch = "x86_64")]
            const {
                &(quads::pack as Pack<f32>)
            }
            #[cfg(not(target_arch = "x86_64"))]
            const {
                &(copy as Pack<f32>)
            }
        }
        fn f64(&self) -> &Pack<f64> {
            const { &(copy as Pack<f64>) }
        }
    }
    assert_eq!(matrix.len(), shape.0 * shape.1);
    debug_assert!(are_codes(matrix));
    T::pick(&Kernels)(level, matrix, shape, packed);
}

/// How many elements [`pack`] appends.
pub fn packed_len<T: Real>(level: Level, (inner, cols): (usize, usize)) -> usize {
    #[cfg(target_arch = "x86_64")]
    if size_of::<T>() == size_of::<f32>() && quads::pay(level, inner) {
        return quads::packed_len(inner, cols);
    }
    let _ = level;
    inner * cols
}

/// target = scale A B, for integers A (`shape.0` x `shape.1`, row-major without gaps, as the
/// target) and what [`pack`] has made of those of B. Sums are exact, rounded once, and scaled.
///
/// Floor: 2 flops per element of A and column of B, eight per lane of an instruction for quads.
///
/// # Panics
/// If a slice is too short for its shape. Debug builds: as [`pack`].
pub fn multiply_packed<T: Real>(
    level: Level,
    a: &[T],
    packed: &[T],
    shape: (usize, usize, usize),
    scale: T,
    target: &mut [T],
) {
    /// How products are made in a precision.
    type Products<T> = fn(Level, &[T], &[T], (usize, usize, usize), T, &mut [T]);
    struct Kernels;
    impl BothPrecisions for Kernels {
        type Of<T: Real> = Products<T>;
        fn f32(&self) -> &Products<f32> {
            #[cfg(target_arch = "x86_64")]
            const {
                &(quads::multiply_packed as Products<f32>)
            }
            #[cfg(not(target_arch = "x86_64"))]
            const {
                &(multiply_floats as Products<f32>)
            }
        }
        fn f64(&self) -> &Products<f64> {
            const { &(multiply_floats as Products<f64>) }
        }
    }
    debug_assert!(are_codes(a));
    T::pick(&Kernels)(level, a, packed, shape, scale, target);
}

fn are_codes<T: Real>(values: &[T]) -> bool {
    values.iter().all(|v| {
        let size = v.to_f64().abs();
        size <= f64::from(LARGEST) && size.fract() == 0.0
    })
}

/// [`pack`] without an instruction for quads.
fn copy<T: Real>(_: Level, matrix: &[T], _: (usize, usize), packed: &mut Vec<T>) {
    packed.extend_from_slice(matrix);
}

/// [`multiply_packed`] without one.
fn multiply_floats<T: Real>(
    level: Level,
    a: &[T],
    b: &[T],
    (rows, inner, cols): (usize, usize, usize),
    scale: T,
    target: &mut [T],
) {
    thread_local! {
        static TOTALS: Cell<Vec<f64>> = const { Cell::new(Vec::new()) };
    }
    // A float holds every integer up to two over its epsilon.
    let terms = (2.0 / (T::EPSILON.to_f64() * f64::from(LARGEST * LARGEST))) as usize;
    let mut totals = TOTALS.take();
    totals.clear();
    totals.resize(rows * cols, 0.0);
    let target = &mut target[..rows * cols];
    for first in (0..inner).step_by(terms) {
        let depth = terms.min(inner - first);
        target.fill(T::ZERO);
        let a = Strided { data: &a[first..], row: inner, column: 1 };
        let b = Dense { data: &b[first * cols..], stride: cols };
        multiply(level, a, b, (rows, depth, cols), target, cols);
        totals.iter_mut().zip(&*target).for_each(|(total, sum)| *total += sum.to_f64());
    }
    for (target, &total) in target.iter_mut().zip(&totals) {
        *target = scale * T::from_f64(total);
    }
    TOTALS.set(totals);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// Sums of integers, some of which need more bits than a float has, at every level.
        #[test]
        fn sums_are_exact(
            rows in 1usize..20, inner in 1usize..70, cols in 1usize..70, long: bool, full: bool,
            seed in 0usize..1000, scale in 0usize..2,
        ) {
            let inner = if long { 40 * inner + 1 } else { inner };
            let scale = [0.25, 3.3e-4][scale];
            let code = |k: usize| {
                let place = if full { k % 2 * 254 } else { (k * 7919 + seed * 31) % 255 };
                place as f32 - 127.0
            };
            let code_of_a = |k: usize| code(if full { 2 * k } else { 3 * k });
            let a: Vec<f32> = (0..rows * inner).map(code_of_a).collect();
            let b: Vec<f32> = (0..inner * cols).map(|k| code(3 * k * usize::from(!full))).collect();
            for level in Level::available() {
                let mut packed = Vec::new();
                pack(level, &b, (inner, cols), &mut packed);
                prop_assert_eq!(packed.len(), packed_len::<f32>(level, (inner, cols)));
                let mut found = vec![9.0; rows * cols];
                multiply_packed(level, &a, &packed, (rows, inner, cols), scale, &mut found);
                let wide = |values: &[f32]| -> Vec<f64> {
                    values.iter().map(|&v| f64::from(v)).collect()
                };
                let mut in_double = vec![9.0; rows * cols];
                let (a_wide, b_wide) = (wide(&a), wide(&b));
                multiply_packed(level, &a_wide, &b_wide, (rows, inner, cols), 1.0, &mut in_double);
                for (e, (&found, in_double)) in found.iter().zip(in_double).enumerate() {
                    let (i, j) = (e / cols, e % cols);
                    let sum: i64 = (0..inner)
                        .map(|k| a[i * inner + k] as i64 * b[k * cols + j] as i64)
                        .sum();
                    prop_assert_eq!(found, scale * sum as f32, "{}", level.name());
                    prop_assert_eq!(in_double, sum as f64);
                }
            }
        }
    }
}
