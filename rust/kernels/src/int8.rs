//! Products of matrices that are rounded to integers of eight bits, which are exact.
//!
//! Sums of products of two integers of at most seven bits and a sign are integers. AVX-512 VNNI
//! has an instruction that adds four of them to one of 32 bits; elsewhere they are summed as
//! floats, so few at a time that these hold every sum.

#[cfg(target_arch = "x86_64")]
mod quads;

use crate::Level;
use crate::gemm::{Dense, Strided, multiply};
use crate::level::single_or_plain;
use crate::memory::with_zeros;
use crate::simd::Real;

/// The largest magnitude of an integer.
pub const LARGEST: u32 = 127;

/// Adding and taking away what leaves no bits below one rounds, halves to even.
fn shift<T: Real>() -> T {
    T::from_f64(1.5 / T::EPSILON.to_f64())
}

/// Writes a matrix (`shape.0` x `shape.1`), times `per_unit` and rounded to integers, as
/// [`multiply_packed`] reads it: how depends on the instruction set. No magnitude may be above
/// [`LARGEST`] then.
///
/// # Panics
/// If the matrix is too short for the shape, or `packed` has not [`packed_len`] elements.
pub fn pack<T: Real>(
    level: Level,
    matrix: Dense<'_, T>,
    shape: (usize, usize),
    per_unit: T,
    packed: &mut [T],
) {
    assert_eq!(packed.len(), packed_len::<T>(level, shape));
    single_or_plain!(
        T,
        (
            level: Level, matrix: Dense<'_, T>, shape: (usize, usize), per_unit: T,
            packed: &mut [T],
        ),
        single = quads::pack,
        plain = pack_floats,
    );
}

/// How many elements [`pack`] writes.
pub fn packed_len<T: Real>(level: Level, (inner, cols): (usize, usize)) -> usize {
    #[cfg(target_arch = "x86_64")]
    if size_of::<T>() == size_of::<f32>() && quads::pay(level, inner) {
        return quads::packed_len(inner, cols);
    }
    let _ = level;
    inner * cols
}

/// target = scale A B, for A (`shape.0` x `shape.1`, row-major without gaps, as the target), times
/// `per_unit` and rounded to integers of at most [`LARGEST`], and what [`pack`] has made of B. Sums
/// are exact, rounded once, and scaled. A row of A with what is no finite number gives none.
///
/// Floor: 2 flops per element of A and column of B, eight per lane of an instruction for quads.
///
/// # Panics
/// If a slice is too short for its shape.
pub fn multiply_packed<T: Real>(
    level: Level,
    (a, per_unit): (&[T], T),
    packed: &[T],
    shape: (usize, usize, usize),
    scale: T,
    target: &mut [T],
) {
    let (rows, inner, cols) = shape;
    let integers = (a, per_unit);
    single_or_plain!(
        T,
        (
            level: Level, integers: (&[T], T), packed: &[T], shape: (usize, usize, usize),
            scale: T, target: &mut [T],
        ),
        single = quads::multiply_packed,
        plain = multiply_floats,
    );
    if inner == 0 || cols == 0 {
        return;
    }
    for (a, target) in a[..rows * inner].chunks_exact(inner).zip(target.chunks_exact_mut(cols)) {
        if !crate::converter::largest(level, a).is_finite() {
            target.fill(T::from_f64(f64::NAN));
        }
    }
}

/// [`pack`] without an instruction for quads: the integers, row by row.
fn pack_floats<T: Real>(
    level: Level,
    matrix: Dense<'_, T>,
    (inner, cols): (usize, usize),
    per_unit: T,
    packed: &mut [T],
) {
    let rows = matrix.data.chunks(matrix.stride.max(1)).take(inner);
    for (packed, row) in packed.chunks_exact_mut(cols.max(1)).zip(rows) {
        packed.copy_from_slice(&row[..cols]);
    }
    round_to_integers(level, per_unit, packed);
}

fn round_to_integers<T: Real>(level: Level, per_unit: T, values: &mut [T]) {
    let shift = shift::<T>();
    level.vectorize(|| values.iter_mut().for_each(|v| *v = *v * per_unit + shift - shift));
}

/// [`multiply_packed`] without one.
fn multiply_floats<T: Real>(
    level: Level,
    (a, per_unit): (&[T], T),
    b: &[T],
    (rows, inner, cols): (usize, usize, usize),
    scale: T,
    target: &mut [T],
) {
    // A float holds every integer up to two over its epsilon.
    let terms = (2.0 / (T::EPSILON.to_f64() * f64::from(LARGEST * LARGEST))) as usize;
    let target = &mut target[..rows * cols];
    let mut sum = |integers: &mut [T], totals: &mut [f64]| {
        integers.copy_from_slice(&a[..rows * inner]);
        round_to_integers(level, per_unit, integers);
        for first in (0..inner).step_by(terms) {
            let depth = terms.min(inner - first);
            target.fill(T::ZERO);
            let a = Strided { data: &integers[first..], row: inner, column: 1 };
            let b = Dense { data: &b[first * cols..], stride: cols };
            multiply(level, a, b, (rows, depth, cols), target, cols);
            totals.iter_mut().zip(&*target).for_each(|(total, sum)| *total += sum.to_f64());
        }
        for (target, &total) in target.iter_mut().zip(&*totals) {
            *target = scale * T::from_f64(total);
        }
    };
    with_zeros(rows * cols, |totals| with_zeros(rows * inner, |integers| sum(integers, totals)));
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
            seed in 0usize..1000, scale in 0usize..2, lost in 0usize..40, pad in 0usize..3,
        ) {
            let inner = if long { 40 * inner + 1 } else { inner };
            let (scale, per_unit) = ([0.25, 3.3e-4][scale], [2.0f64, 30.1][scale]);
            let code = |k: usize| {
                let place = if full { k % 2 * 254 } else { (k * 7919 + seed * 31) % 255 };
                place as f32 - 127.0
            };
            // What is rounded: values off the integers by less than a half.
            let near = |code: f32| (code + 0.3 * (code * 0.7).sin()) / per_unit as f32;
            let code_of_a = |k: usize| code(if full { 2 * k } else { 3 * k });
            let stride = cols + pad;
            let mut a: Vec<f32> = (0..rows * inner).map(|k| near(code_of_a(k))).collect();
            let b: Vec<f32> = (0..inner * stride).map(|k| near(code(3 * k))).collect();
            if let Some(lost) = a.get_mut(lost * inner) {
                *lost = if seed % 2 == 0 { f32::NAN } else { f32::INFINITY };
            }
            let shape = (rows, inner, cols);
            let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&v| v.into()).collect() };
            let (a_wide, b_wide) = (wide(&a), wide(&b));
            for level in Level::available() {
                let mut packed = vec![9.0; packed_len::<f32>(level, (inner, cols))];
                let mut packed_wide = vec![9.0; inner * cols];
                let matrix = Dense { data: &b[..], stride };
                pack(level, matrix, (inner, cols), per_unit as f32, &mut packed);
                let matrix = Dense { data: &b_wide[..], stride };
                pack(level, matrix, (inner, cols), per_unit, &mut packed_wide);
                let (mut found, mut found_wide) = (vec![9.0; rows * cols], vec![9.0; rows * cols]);
                multiply_packed(level, (&a, per_unit as f32), &packed, shape, scale, &mut found);
                multiply_packed(
                    level, (&a_wide, per_unit), &packed_wide, shape, 1.0, &mut found_wide,
                );
                for (e, (&found, found_wide)) in found.iter().zip(found_wide).enumerate() {
                    let (i, j) = (e / cols, e % cols);
                    if i == lost {
                        prop_assert!(found.is_nan() && found_wide.is_nan());
                        continue;
                    }
                    let sum: i64 = (0..inner)
                        .map(|k| (code_of_a(i * inner + k) * code(3 * (k * stride + j))) as i64)
                        .sum();
                    prop_assert_eq!(found, scale * sum as f32, "{}", level.name());
                    prop_assert_eq!(found_wide, sum as f64);
                }
            }
        }
    }
}
