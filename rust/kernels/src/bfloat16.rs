//! Products of matrices of bfloat16, whose sums are in the precision that they are given in.
//!
//! A bfloat16 is an `f32` whose significand has eight bits. The product of two has sixteen, so that
//! it is exact in `f32`: nothing is rounded but sums, which are in ascending order. AVX-512 BF16
//! has an instruction that adds two such products to a sum, one after the other. Where it is faster
//! than the two multiply-adds that it stands for it is used; the bits are the same.

#[cfg(target_arch = "x86_64")]
mod pairs;

use crate::gemm::{self, Dense, Factors, Strided};
use crate::level::single_or_plain;
use crate::memory::with_zeros;
use crate::simd::Real;
use crate::{Level, add_scaled, transpose};

/// Rounds numbers to bfloat16 where they are, see [`Real::bfloat16`].
pub fn round_all<T: Real>(level: Level, values: &mut [T]) {
    level.vectorize(|| values.iter_mut().for_each(|value| *value = value.bfloat16()));
}

/// target += scale (A_1 B_1 + A_2 B_2 + ...), where all elements of A and B are bfloat16. `shape`
/// are the rows and columns of the target, whose rows are `stride` elements apart. Sums begin at
/// zero and are in ascending order: they do not depend on how rows are grouped into calls, nor, as
/// long as products are normal numbers, on the instruction set.
///
/// Floor: 2 flops per element of A and column of B, four per lane of an instruction for pairs.
///
/// # Panics
/// If a slice is too short for its shape. Debug builds: if an element is not bfloat16.
pub fn multiply_all<T: Real>(
    level: Level,
    factors: &[Factors<'_, T>],
    shape: (usize, usize),
    scale: T,
    target: &mut [T],
    stride: usize,
) {
    let is_bfloat16 = |values: &[T]| values.iter().all(|v| !v.is_finite() || *v == v.bfloat16());
    debug_assert!(factors.iter().all(|(a, b, _)| is_bfloat16(a.data) && is_bfloat16(b.data)));
    single_or_plain!(
        T,
        (
            level: Level, factors: &[Factors<'_, T>], shape: (usize, usize), scale: T,
            target: &mut [T], stride: usize,
        ),
        single = pairs::multiply_all,
        plain = multiply_one_by_one,
    );
}

/// target += A B, where all elements of A (`shape.0` x `shape.1`) and B (`shape.1` x `shape.2`) are
/// bfloat16, see [`multiply_all`].
///
/// # Panics
/// As [`multiply_all`].
pub fn multiply<T: Real>(
    level: Level,
    a: Strided<'_, T>,
    b: Dense<'_, T>,
    (rows, inner, cols): (usize, usize, usize),
    target: &mut [T],
    stride: usize,
) {
    multiply_all(level, &[(a, b, inner)], (rows, cols), T::ONE, target, stride);
}

/// Writes a matrix B (`shape.0` x `shape.1`), rounded to bfloat16, as [`multiply_packed`] reads
/// it: how depends on the instruction set. `matrix` is B, or, where `transposed`, the transpose of
/// B.
///
/// # Panics
/// If the matrix is not of that shape, or `packed` has not [`packed_len`] elements.
pub fn pack<T: Real>(
    level: Level,
    matrix: &[T],
    shape: (usize, usize),
    transposed: bool,
    packed: &mut [T],
) {
    assert_eq!(matrix.len(), shape.0 * shape.1);
    assert_eq!(packed.len(), packed_len::<T>(level, shape));
    single_or_plain!(
        T,
        (
            level: Level, matrix: &[T], shape: (usize, usize), transposed: bool, packed: &mut [T],
        ),
        single = pairs::pack,
        plain = pack_rows,
    );
}

/// How many elements [`pack`] writes.
pub fn packed_len<T: Real>(level: Level, (inner, cols): (usize, usize)) -> usize {
    #[cfg(target_arch = "x86_64")]
    if pays::<T>(level) {
        return pairs::packed_len(inner, cols);
    }
    let _ = level;
    inner * cols
}

/// [`multiply`] by what [`pack`] has made of B.
///
/// # Panics
/// As [`multiply_all`].
pub fn multiply_packed<T: Real>(
    level: Level,
    a: Strided<'_, T>,
    packed: &[T],
    shape: (usize, usize, usize),
    target: &mut [T],
    stride: usize,
) {
    single_or_plain!(
        T,
        (
            level: Level, a: Strided<'_, T>, packed: &[T], shape: (usize, usize, usize),
            target: &mut [T], stride: usize,
        ),
        single = pairs::multiply_packed,
        plain = multiply_rows,
    );
}

/// [`pack`] without an instruction for pairs: the matrix, row by row.
fn pack_rows<T: Real>(
    level: Level,
    matrix: &[T],
    (inner, cols): (usize, usize),
    transposed: bool,
    packed: &mut [T],
) {
    if transposed {
        transpose(level, matrix, cols, inner, 0..inner, packed, cols);
    } else {
        packed.copy_from_slice(matrix);
    }
    round_all(level, packed);
}

/// [`multiply_packed`] for such rows.
fn multiply_rows<T: Real>(
    level: Level,
    a: Strided<'_, T>,
    packed: &[T],
    (rows, inner, cols): (usize, usize, usize),
    target: &mut [T],
    stride: usize,
) {
    let b = Dense { data: packed, stride: cols };
    multiply_one_by_one(level, &[(a, b, inner)], (rows, cols), T::ONE, target, stride);
}

/// How many times as fast dense products of bfloat16 are as others of this type.
pub fn advantage<T: Real>(level: Level) -> usize {
    if pays::<T>(level) { 2 } else { 1 }
}

/// Whether there is an instruction for pairs, and pays.
fn pays<T: Real>(level: Level) -> bool {
    #[cfg(target_arch = "x86_64")]
    if size_of::<T>() == size_of::<f32>() {
        return pairs::pay(level);
    }
    let _ = level;
    false
}

/// [`multiply_all`] by multiply-adds.
fn multiply_one_by_one<T: Real>(
    level: Level,
    factors: &[Factors<'_, T>],
    (rows, cols): (usize, usize),
    scale: T,
    target: &mut [T],
    stride: usize,
) {
    with_zeros(rows * cols, |sums| {
        gemm::multiply_all(level, factors, (rows, cols), sums, cols);
        for (sums, target) in sums.chunks_exact(cols.max(1)).zip(target.chunks_mut(stride.max(1))) {
            add_scaled(level, sums, scale, target);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The nearest bfloat16 by search: of the two around, the one that is not farther, or even.
    fn nearest(x: f32) -> f32 {
        let below = f32::from_bits(x.to_bits() >> 16 << 16);
        let above = f32::from_bits((x.to_bits() >> 16 << 16).wrapping_add(1 << 16));
        let apart = |y: f32| (f64::from(x) - f64::from(y)).abs();
        let up = apart(above) - apart(below);
        let is_odd = below.to_bits() >> 16 & 1 == 1;
        if up < 0.0 || up == 0.0 && is_odd { above } else { below }
    }

    proptest! {
        #[test]
        fn numbers_go_to_the_nearest_bfloat16(bits: u32, tie: bool) {
            let x = f32::from_bits(if tie { bits >> 16 << 16 | 1 << 15 } else { bits });
            if !x.is_finite() {
                prop_assert!(x.bfloat16() == x || x.is_nan() && x.bfloat16().is_nan());
            } else if x.abs() >= 3.3895e38 {
                // Nothing finite is next to infinity.
                prop_assert_eq!(x.bfloat16().abs(), f32::from_bits(0x7f7f_0000));
            } else {
                prop_assert_eq!(x.bfloat16().to_bits(), nearest(x).to_bits());
                if x == 0.0 || x.is_normal() {
                    prop_assert_eq!(f64::from(x).bfloat16(), f64::from(x.bfloat16()));
                }
            }
            for level in Level::available() {
                let mut found = vec![x; 37];
                round_all(level, &mut found);
                prop_assert!(found.iter().all(|y| y.to_bits() == x.bfloat16().to_bits()));
            }
        }
    }

    /// Bfloat16 of either sign between 2^-spread and 2^spread, and zeros.
    fn numbers(count: usize, spread: f32, seed: usize) -> Vec<f32> {
        let number = |k: usize| {
            let place = ((k * 37 + seed) as f32 * 0.61).sin();
            let is_zero = (k * 7 + seed).is_multiple_of(11);
            if is_zero { 0.0 } else { (place.signum() * (spread * place).exp2()).bfloat16() }
        };
        (0..count).map(number).collect()
    }

    /// Sums of exact products, each rounded to `f32`, in ascending order from zero.
    fn plainly(a: &dyn Fn(usize, usize) -> f32, b: &[f32], inner: usize, cols: usize) -> Vec<f32> {
        let mut sums = vec![0.0f32; cols];
        for k in 0..inner {
            for (sum, &b) in sums.iter_mut().zip(&b[k * cols..]) {
                *sum = a(0, k).mul_add(b, *sum);
            }
        }
        sums
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// One row at a time, as plain sums, beside all rows at once at every level: the same bits,
        /// also of numbers so small or so far apart that sums leave the normal ones.
        #[test]
        fn products_are_plain_sums(
            rows in 1usize..40, inner in 1usize..70, cols in 1usize..120, turned: bool,
            spread in 0usize..4, tiny in 0usize..3, scale in 0usize..3, seed in 0usize..1000,
            split in 0usize..70,
        ) {
            let spread = [1.0, 8.0, 30.0, 60.0][spread];
            let shrink = [1.0, 1e-18, 1e-30][tiny];
            let a = numbers(rows * inner, spread, seed);
            let mut b = numbers(inner * cols, spread, seed + 3);
            b.iter_mut().for_each(|b| *b = (*b * shrink).bfloat16());
            let scale = [1.0, -0.37, 3.0][scale];
            // What is added to must not hide sums as small as these.
            let held = if tiny > 0 { 0.0 } else { 0.25 };
            let (row, column) = if turned { (1, rows) } else { (inner, 1) };
            let at = |i: usize, k: usize| a[i * row + k * column];
            let split = split.min(inner);
            let part = |from: usize, depth: usize| {
                let start = (from * column).min(a.len());
                let left = Strided { data: &a[start..], row, column };
                (left, Dense { data: &b[from * cols..], stride: cols }, depth)
            };
            let factors = [part(0, split), part(split, inner - split)];
            for level in Level::available() {
                // Without fused multiply-adds products below the normal numbers are rounded.
                if level.name() == "portable" && (tiny > 0 || spread > 30.0) {
                    continue;
                }
                let mut found = vec![held; rows * (cols + 3)];
                multiply_all(level, &factors, (rows, cols), scale, &mut found, cols + 3);
                for (i, found) in found.chunks(cols + 3).enumerate() {
                    let sums = plainly(&|_, k| at(i, k), &b, inner, cols);
                    for (j, &found) in found.iter().enumerate() {
                        let expected = match sums.get(j) {
                            Some(&sum) if level.name() == "portable" => scale * sum + held,
                            Some(&sum) => scale.mul_add(sum, held),
                            None => held,
                        };
                        let name = level.name();
                        let (found, expected) = (found.to_bits(), expected.to_bits());
                        prop_assert_eq!(found, expected, "{} {} {}", name, i, j);
                    }
                }
            }
        }

        /// What is packed from a matrix or from its transpose multiplies as the rounded matrix
        /// does, also where sums leave the normal numbers.
        #[test]
        fn packed_matrices_are_multiplied_alike(
            rows in 1usize..40, inner in 1usize..70, cols in 1usize..120, turned: bool,
            transposed: bool, tiny: bool, seed in 0usize..1000, special in 0usize..8,
        ) {
            let a = numbers(rows * inner, 8.0, seed);
            let shrink = if tiny { 1e-37 } else { 1.01 };
            let mut b: Vec<f32> = numbers(inner * cols, 8.0, seed + 3)
                .iter()
                .map(|b| b * shrink)
                .collect();
            let specials = [f32::MAX, -f32::INFINITY, f32::from_bits(0x7f80_0001)];
            if let Some(&special) = specials.get(special) {
                b[seed % (inner * cols)] = special;
            }
            let mut rounded = b.clone();
            round_all(Level::get(), &mut rounded);
            let given = if transposed {
                (0..inner * cols).map(|e| b[e % inner * cols + e / inner]).collect()
            } else {
                b
            };
            let (row, column) = if turned { (1, rows) } else { (inner, 1) };
            let left = Strided { data: &a, row, column };
            for level in Level::available() {
                let mut packed = vec![7.0; packed_len::<f32>(level, (inner, cols))];
                pack(level, &given, (inner, cols), transposed, &mut packed);
                let mut found = vec![0.0; rows * (cols + 1)];
                let mut expected = found.clone();
                let shape = (rows, inner, cols);
                multiply_packed(level, left, &packed, shape, &mut found, cols + 1);
                let right = Dense { data: &rounded, stride: cols };
                multiply_one_by_one(
                    level, &[(left, right, inner)], (rows, cols), 1.0, &mut expected, cols + 1,
                );
                for (found, expected) in found.iter().zip(&expected) {
                    let same = found == expected || found.is_nan() && expected.is_nan();
                    prop_assert!(same, "{}: {} {}", level.name(), found, expected);
                }
            }
        }
    }
}
