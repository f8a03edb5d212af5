//! Products whose operands are packed into words of 32 bits, each of which holds several terms of a
//! sum, for instructions that multiply the terms of two words and add them up (AVX-512).

use std::arch::x86_64::*;

use crate::simd::each;

/// Lanes of a vector, and vectors of a panel of columns.
pub(crate) const LANES: usize = 16;
pub(crate) const VECTORS: usize = 3;

/// The rows of the highest tiles.
pub(crate) const HEIGHT: usize = 8;

/// The first lanes of a vector: so many, or all.
#[inline(always)]
pub(crate) fn first_lanes(count: usize) -> __mmask16 {
    ((1u32 << count.min(LANES)) - 1) as __mmask16
}

/// Words that are kept as the bits of floats. What is moved only keeps its bits.
pub(crate) fn words_of(bits: &[f32]) -> &[u32] {
    // SAFETY: both have the same size and alignment, and all bits are allowed for both.
    unsafe { std::slice::from_raw_parts(bits.as_ptr().cast(), bits.len()) }
}

/// The same, to be written.
pub(crate) fn words_of_mut(bits: &mut [f32]) -> &mut [u32] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts_mut(bits.as_mut_ptr().cast(), bits.len()) }
}

/// Words as the bits of floats.
pub(crate) fn floats_of(words: &[u32]) -> &[f32] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len()) }
}

/// An instruction that adds the products of the terms of words.
///
/// # Safety
/// The methods need its instruction set.
#[allow(clippy::missing_safety_doc, reason = "stated once, for the trait")]
pub(crate) unsafe trait WordProduct {
    /// The sums of a vector of columns.
    type Sum: Copy;
    /// Sums that begin at a number.
    unsafe fn start(number: i32) -> Self::Sum;
    /// Adds the products of the words of A and B.
    unsafe fn add(sum: Self::Sum, a: __m512i, b: __m512i) -> Self::Sum;
    /// The sums as floats.
    unsafe fn finish(sum: Self::Sum) -> __m512;
}

/// Copies of rows of A: word k of row i is `data[i * row + k * column]`.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    pub(crate) data: &'a [u32],
    pub(crate) row: usize,
    pub(crate) column: usize,
}

/// Tiles of a product of A and a panel of B, which has `width` columns and is padded to whole
/// vectors: target += scale A B, for rows of the target `stride` apart.
pub(crate) struct Tiles<'a> {
    pub(crate) a: Left<'a>,
    /// What the sums of each row begin at; empty: zero.
    pub(crate) starts: &'a [i32],
    pub(crate) b: &'a [u32],
    pub(crate) depth: usize,
    pub(crate) width: usize,
    pub(crate) scale: f32,
    pub(crate) to: *mut f32,
    pub(crate) stride: usize,
}

// SAFETY of every block below: callers vouch for the rows and columns of A, B and the target, and
// for the instruction set.
#[allow(clippy::undocumented_unsafe_blocks, reason = "stated once, for all of them")]
impl Tiles<'_> {
    /// All rows.
    #[inline(always)]
    pub(crate) unsafe fn multiply<P: WordProduct>(&self, rows: usize) {
        let mut row = 0;
        while row < rows {
            unsafe {
                row += match rows - row {
                    8.. => self.columns::<P, 8>(row),
                    4.. => self.columns::<P, 4>(row),
                    2.. => self.columns::<P, 2>(row),
                    _ => self.columns::<P, 1>(row),
                };
            }
        }
    }

    #[inline(always)]
    unsafe fn columns<P: WordProduct, const M: usize>(&self, row: usize) -> usize {
        unsafe {
            match self.width.div_ceil(LANES) {
                1 => self.tile::<P, M, 1>(row),
                2 => self.tile::<P, M, 2>(row),
                _ => self.tile::<P, M, VECTORS>(row),
            }
        }
        M
    }

    /// M rows of N vectors of columns, the last of which may not be whole.
    #[inline(always)]
    unsafe fn tile<P: WordProduct, const M: usize, const N: usize>(&self, row: usize) {
        unsafe {
            let start = |i: usize| P::start(self.starts.get(row + i).copied().unwrap_or(0));
            let mut sums: [[P::Sum; N]; M] = each([P::start(0); N], |i| [start(i); N]);
            let mut a = self.a.data.as_ptr().add(row * self.a.row);
            let mut b = self.b.as_ptr();
            for _ in 0..self.depth {
                let line: [__m512i; N] =
                    each(_mm512_setzero_si512(), |j| _mm512_loadu_si512(b.add(j * LANES).cast()));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let factor = _mm512_set1_epi32(*a.add(i * self.a.row) as i32);
                    for (sum, line) in sums.iter_mut().zip(line) {
                        *sum = P::add(*sum, factor, line);
                    }
                }
                a = a.wrapping_add(self.a.column);
                b = b.wrapping_add(N * LANES);
            }
            let scale = _mm512_set1_ps(self.scale);
            for (i, sums) in sums.into_iter().enumerate() {
                for (j, sum) in sums.into_iter().enumerate() {
                    let mask = first_lanes(self.width - j * LANES);
                    let to = self.to.add((row + i) * self.stride + j * LANES);
                    let held = _mm512_maskz_loadu_ps(mask, to);
                    let all = _mm512_fmadd_ps(scale, P::finish(sum), held);
                    _mm512_mask_storeu_ps(to, mask, all);
                }
            }
        }
    }
}
