//! Pairs of bfloat16, for the instruction that multiplies and adds them: `vdpbf16ps`.
//!
//! It adds the product of the upper halves first, then that of the lower ones, each as a fused
//! multiply-add would, but takes numbers below the normal ones for zero. Sums are the same bits as
//! those of multiply-adds where none of them can come to such a number.

use std::arch::x86_64::*;
use std::cell::Cell;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::multiply_one_by_one;
use crate::cache::Caches;
use crate::gemm::{Dense, Factors, Strided};
use crate::level::{Isa, Level};
use crate::transpose;
use crate::watch::poll;
use crate::words::{
    HEIGHT, LANES, Left, Tiles, VECTORS, WordProduct, first_lanes, floats_of, words_of,
    words_of_mut,
};

/// [`super::multiply_all`], by the instruction where it pays.
pub(super) fn multiply_all(
    level: Level,
    factors: &[Factors<'_, f32>],
    shape: (usize, usize),
    scale: f32,
    target: &mut [f32],
    stride: usize,
) {
    /// Rows and columns from which on operands are read often enough to be copied.
    const ROWS: usize = 4;
    if shape.0 >= ROWS && shape.1 >= LANES && pay(level) {
        // SAFETY: `pay` has asked for the instructions.
        unsafe { multiply_pairs(level, factors, Right::Given, shape, scale, target, stride) }
    } else {
        multiply_one_by_one(level, factors, shape, scale, target, stride);
    }
}

/// Whether the instruction is there, and faster than the two multiply-adds that it stands for. That
/// is measured once, in some 50 us.
pub(super) fn pay(level: Level) -> bool {
    static PAY: OnceLock<bool> = OnceLock::new();
    level.0 == Isa::Avx512
        && *PAY.get_or_init(|| {
            std::arch::is_x86_feature_detected!("avx512bf16") && {
                const TRIES: usize = 5;
                // SAFETY: the instructions are there.
                let times = || unsafe { (time(sum_pairs), time(sum_products)) };
                let least = (0..TRIES).map(|_| times()).reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)));
                least.is_some_and(|(pairs, products)| 5 * pairs < 8 * products)
            }
        })
}

unsafe fn time(sum: unsafe fn(__m512) -> f32) -> Duration {
    let start = Instant::now();
    // SAFETY: the caller vouches for the instructions.
    std::hint::black_box(unsafe { sum(std::hint::black_box(_mm512_set1_ps(1.0))) });
    start.elapsed()
}

/// Additions to every sum of a measurement, which has as many sums as a tile.
const ADDITIONS: usize = 200;

#[target_feature(enable = "avx512f,avx512bf16")]
fn sum_pairs(one: __m512) -> f32 {
    let mut sums = [one; 8 * VECTORS];
    let pairs = as_pairs(_mm512_castps_si512(one));
    for _ in 0..ADDITIONS {
        sums.iter_mut().for_each(|sum| *sum = _mm512_dpbf16_ps(*sum, pairs, pairs));
    }
    _mm512_reduce_add_ps(sums.into_iter().fold(one, |all, sum| _mm512_add_ps(all, sum)))
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn sum_products(one: __m512) -> f32 {
    let mut sums = [one; 8 * VECTORS];
    for _ in 0..2 * ADDITIONS {
        sums.iter_mut().for_each(|sum| *sum = _mm512_fmadd_ps(one, one, *sum));
    }
    _mm512_reduce_add_ps(sums.into_iter().fold(one, |all, sum| _mm512_add_ps(all, sum)))
}

#[inline(always)]
fn as_pairs(bits: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits of anything.
    unsafe { std::mem::transmute(bits) }
}

thread_local! {
    /// Memory for copies of the operands, kept between products.
    static MEMORY: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
}

/// [`super::packed_len`]: panels of pairs, and the least of all numbers.
pub(super) fn packed_len(inner: usize, cols: usize) -> usize {
    inner.div_ceil(2) * cols.next_multiple_of(LANES) + 1
}

/// [`super::pack`]: panel by panel.
pub(super) fn pack(
    level: Level,
    matrix: &[f32],
    shape: (usize, usize),
    transposed: bool,
    packed: &mut [f32],
) {
    if !pay(level) {
        return super::pack_rows(level, matrix, shape, transposed, packed);
    }
    // SAFETY: `pay` has asked for the instructions.
    unsafe { pack_pairs(level, matrix, shape, transposed, packed) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
fn pack_pairs(
    level: Level,
    matrix: &[f32],
    (inner, cols): (usize, usize),
    transposed: bool,
    packed: &mut [f32],
) {
    let depth = inner.div_ceil(2);
    let Some((end, panels)) = packed.split_last_mut() else { return };
    let mut least = Least::NONE;
    let mut turned = MEMORY.take();
    for col in (0..cols).step_by(VECTORS * LANES) {
        poll(inner * VECTORS * LANES);
        let width = (cols - col).min(VECTORS * LANES);
        let padded = width.next_multiple_of(LANES);
        let panel = &mut panels[depth * col..][..depth * padded];
        let own = if transposed {
            let rows = Strided { data: &matrix[col * inner..], row: inner, column: 1 };
            turned.resize(turned.len().max(depth * width), 0);
            let factors = [(rows, Dense { data: &[], stride: 0 }, inner)];
            let own = copy_flat::<true>(&factors, 0..width, &mut turned);
            let lines = floats_of(&turned[..depth * width]);
            // What pads a panel is not written.
            panel.fill(0.0);
            transpose(level, lines, width, depth, 0..depth, panel, padded);
            own
        } else {
            let lines = std::iter::once((matrix, cols, inner));
            copy_lines::<true>(lines, col..col + width, words_of_mut(panel), padded)
        };
        least = Least(least.0.min(own.0));
    }
    MEMORY.set(turned);
    *end = f32::from_bits(least.0);
}

/// [`super::multiply_packed`].
pub(super) fn multiply_packed(
    level: Level,
    a: Strided<'_, f32>,
    packed: &[f32],
    shape: (usize, usize, usize),
    target: &mut [f32],
    stride: usize,
) {
    if !pay(level) {
        return super::multiply_rows(level, a, packed, shape, target, stride);
    }
    let (rows, inner, cols) = shape;
    assert_eq!(packed.len(), packed_len(inner, cols));
    let Some((least, panels)) = packed.split_last() else { return };
    let right = Right::Packed(words_of(panels), Least(least.to_bits()));
    let factors = [(a, Dense { data: &[], stride: 0 }, inner)];
    // SAFETY: `pay` has asked for the instructions.
    unsafe {
        multiply_pairs(level, &factors, right, (rows, cols), 1.0, target, stride);
    }
}

/// B of a product: as it lies in the factors, or panels of pairs and the least number in them.
#[derive(Clone, Copy)]
enum Right<'a> {
    Given,
    Packed(&'a [u32], Least),
}

/// Copies blocks of rows of A and, unless they are packed, panels of columns of B as pairs of terms
/// of the sums, and multiplies them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")]
fn multiply_pairs(
    level: Level,
    factors: &[Factors<'_, f32>],
    right: Right<'_>,
    (rows, cols): (usize, usize),
    scale: f32,
    target: &mut [f32],
    stride: usize,
) {
    let depth: usize = factors.iter().map(|(.., depth)| depth.div_ceil(2)).sum();
    if depth == 0 || rows == 0 || cols == 0 {
        return;
    }
    assert!(target.len() >= (rows - 1) * stride + cols && stride >= cols, "the target is short");
    let lies_flat = factors.iter().all(|(a, ..)| a.column == 1);
    let is_turned = factors.iter().all(|(a, ..)| a.row == 1);
    let fitting = Caches::get().second / 2 / (depth * size_of::<u32>());
    let high = fitting.clamp(HEIGHT, HEIGHT.max(rows));
    let mut memory = MEMORY.take();
    memory.resize(memory.len().max(depth * (high + VECTORS * LANES)), 0);
    let (left, panel) = memory.split_at_mut(depth * high);
    for row in (0..rows).step_by(high) {
        let high = high.min(rows - row);
        let (left_least, apart, column) = if lies_flat {
            (copy_flat::<false>(factors, row..row + high, left), depth, 1)
        } else if is_turned {
            let lines = factors.iter().map(|&(a, _, depth)| (a.data, a.column, depth));
            (copy_lines::<false>(lines, row..row + high, left, high), 1, high)
        } else {
            (Least::UNKNOWN, 1, 1)
        };
        let a = Left { data: left, row: apart, column };
        for col in (0..cols).step_by(VECTORS * LANES) {
            let width = (cols - col).min(VECTORS * LANES);
            let padded = width.next_multiple_of(LANES);
            poll(high * depth * width);
            let (b, right_least) = match right {
                Right::Packed(panels, least) => (&panels[depth * col..][..depth * padded], least),
                Right::Given => {
                    let lines = factors.iter().map(|&(_, b, depth)| (b.data, b.stride, depth));
                    let least = copy_lines::<false>(lines, col..col + width, panel, padded);
                    (&panel[..depth * padded], least)
                }
            };
            let to = &mut target[row * stride + col..];
            if left_least.sums_stay_normal(right_least) {
                let to = to.as_mut_ptr();
                let tiles = Tiles { a, starts: &[], b, depth, width, scale, to, stride };
                // SAFETY: operands were copied for all rows, columns and terms; the target was
                // checked.
                unsafe { tiles.multiply::<Pairs>(high) }
            } else {
                one_by_one(level, factors, (b, padded), (row, high, width), scale, to, stride);
            }
        }
    }
    MEMORY.set(memory);
}

/// The product of `high` rows of A from `row` on and a panel of pairs, as multiply-adds.
#[cold]
fn one_by_one(
    level: Level,
    factors: &[Factors<'_, f32>],
    (panel, apart): (&[u32], usize),
    (row, high, width): (usize, usize, usize),
    scale: f32,
    to: &mut [f32],
    stride: usize,
) {
    let both = |line: &[u32]| {
        let halves = [0xffff_0000, 0xffff].map(|half| line.iter().map(move |pair| pair & half));
        let [first, second] = halves;
        first.chain(second.map(|bits| bits << 16)).map(f32::from_bits).collect::<Vec<_>>()
    };
    let lines: Vec<f32> = panel.chunks_exact(apart).flat_map(both).collect();
    let mut first = 0;
    let parts: Vec<_> = factors
        .iter()
        .filter(|(.., depth)| *depth > 0)
        .map(|&(a, _, depth)| {
            let a = Strided { data: &a.data[row * a.row..], ..a };
            let b = Dense { data: &lines[first * apart..], stride: apart };
            first += depth.next_multiple_of(2);
            (a, b, depth)
        })
        .collect();
    multiply_one_by_one(level, &parts, (high, width), scale, to, stride);
}

/// The least magnitude that is not zero, as bits less one, of numbers that were copied.
#[derive(Clone, Copy)]
struct Least(u32);

impl Least {
    /// That of no number.
    const NONE: Self = Self(u32::MAX);
    /// Any number may be there.
    const UNKNOWN: Self = Self(0);

    /// Whether all sums of products with numbers that are at least `other` are zero or normal: they
    /// are multiples of the product of the last bits of both.
    fn sums_stay_normal(self, other: Self) -> bool {
        /// What the exponents of the numbers, as they are written, must add up to, so that their
        /// seventh bits multiply to the least normal number.
        const LEAST: u32 = 127 + 7 + 127 + 7 - 126;
        let exponent = |least: Self| least.0.wrapping_add(1) >> (f32::MANTISSA_DIGITS - 1);
        let both =
            [self, other].map(|least| if least.0 == u32::MAX { 255 } else { exponent(least) });
        both[0] > 0 && both[1] > 0 && both[0] + both[1] >= LEAST
    }
}

/// Makes pairs of numbers, of these or of what they are rounded to where `ROUND`, and keeps the
/// least of all, lane by lane.
struct Pairing<const ROUND: bool>(__m512i);

// SAFETY of every block below: callers vouch for the instruction set.
#[allow(clippy::undocumented_unsafe_blocks, reason = "stated once, for all of them")]
impl<const ROUND: bool> Pairing<ROUND> {
    #[inline(always)]
    unsafe fn new() -> Self {
        unsafe { Self(_mm512_set1_epi32(-1)) }
    }

    /// Numbers as bits: those of [`Real::bfloat16`], where they are rounded.
    #[inline(always)]
    unsafe fn bits(&mut self, x: __m512) -> __m512i {
        const INFINITY: i32 = f32::INFINITY.to_bits() as i32;
        unsafe {
            let bits = _mm512_castps_si512(x);
            let size = _mm512_and_si512(bits, _mm512_set1_epi32(i32::MAX));
            // Zero becomes the largest of all.
            let before = _mm512_sub_epi32(size, _mm512_set1_epi32(1));
            self.0 = _mm512_min_epu32(self.0, before);
            if !ROUND {
                return bits;
            }
            let odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
            let raised = _mm512_add_epi32(size, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let most = _mm512_min_epu32(raised, _mm512_set1_epi32(INFINITY - 1));
            let sign = _mm512_andnot_si512(_mm512_set1_epi32(i32::MAX), bits);
            let kept = _mm512_or_si512(most, sign);
            let is_number = _mm512_cmplt_epu32_mask(size, _mm512_set1_epi32(INFINITY));
            let is_nan = _mm512_cmpgt_epu32_mask(size, _mm512_set1_epi32(INFINITY));
            let lost = _mm512_mask_set1_epi32(bits, is_nan, f32::NAN.to_bits() as i32);
            _mm512_mask_mov_epi32(lost, is_number, kept)
        }
    }

    #[inline(always)]
    unsafe fn pair(&mut self, first: __m512, second: __m512) -> __m512i {
        unsafe {
            let second = _mm512_srli_epi32(self.bits(second), 16);
            let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            _mm512_or_si512(_mm512_and_si512(self.bits(first), upper), second)
        }
    }

    #[inline(always)]
    unsafe fn least(&self) -> Least {
        unsafe { Least(_mm512_reduce_min_epu32(self.0)) }
    }
}

/// Copies rows of A whose elements lie side by side.
#[inline(always)]
fn copy_flat<const ROUND: bool>(
    factors: &[Factors<'_, f32>],
    rows: Range<usize>,
    to: &mut [u32],
) -> Least {
    let mut at = 0;
    // SAFETY: slices are checked, and lanes past their ends are neither read nor written; the
    // caller vouches for the instruction set.
    unsafe {
        let mut pairing = Pairing::<ROUND>::new();
        let evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let odds = _mm512_add_epi32(evens, _mm512_set1_epi32(1));
        for row in rows {
            for &(a, _, depth) in factors.iter().filter(|(.., depth)| *depth > 0) {
                let from = &a.data[row * a.row..][..depth];
                let to = &mut to[at..at + depth.div_ceil(2)];
                at += to.len();
                for (from, to) in from.chunks(2 * LANES).zip(to.chunks_mut(LANES)) {
                    let second = first_lanes(from.len().saturating_sub(LANES));
                    let start = _mm512_maskz_loadu_ps(first_lanes(from.len()), from.as_ptr());
                    let end = _mm512_maskz_loadu_ps(second, from.as_ptr().wrapping_add(LANES));
                    let pairs = pairing.pair(
                        _mm512_permutex2var_ps(start, evens, end),
                        _mm512_permutex2var_ps(start, odds, end),
                    );
                    let to = (first_lanes(to.len()), to.as_mut_ptr().cast());
                    _mm512_mask_storeu_epi32(to.1, to.0, pairs);
                }
            }
        }
        pairing.least()
    }
}

/// Copies the elements `span` of lines of which each has one term of the sums, `apart` elements
/// from one pair to the next, padded with zeros. `matrices` gives the lines, the distance between
/// them, and how many there are.
#[inline(always)]
fn copy_lines<'a, const ROUND: bool>(
    matrices: impl Iterator<Item = (&'a [f32], usize, usize)>,
    span: Range<usize>,
    to: &mut [u32],
    apart: usize,
) -> Least {
    let mut to = to.chunks_exact_mut(apart);
    // SAFETY: as for `copy_flat`.
    unsafe {
        let mut pairing = Pairing::<ROUND>::new();
        for (data, stride, count) in matrices {
            let line = |k: usize| &data[k * stride + span.start..][..span.len()];
            for (k, to) in (0..count).step_by(2).zip(&mut to) {
                let (first, second) = (line(k), (k + 1 < count).then(|| line(k + 1)));
                for (c, to) in to.chunks_mut(LANES).enumerate() {
                    let at = c * LANES;
                    let lanes = first_lanes(span.len().saturating_sub(at));
                    let of =
                        |line: &[f32]| _mm512_maskz_loadu_ps(lanes, line.as_ptr().wrapping_add(at));
                    let second = second.map_or(_mm512_setzero_ps(), of);
                    let to = (first_lanes(to.len()), to.as_mut_ptr().cast());
                    _mm512_mask_storeu_epi32(to.1, to.0, pairing.pair(of(first), second));
                }
            }
        }
        pairing.least()
    }
}

/// Two products of bfloat16 in every word.
struct Pairs;

// SAFETY: the methods are those of the instructions, which the callers vouch for.
unsafe impl WordProduct for Pairs {
    type Sum = __m512;

    #[inline(always)]
    unsafe fn start(_: i32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn add(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_dpbf16_ps(sum, as_pairs(a), as_pairs(b)) }
    }

    #[inline(always)]
    unsafe fn finish(sum: __m512) -> __m512 {
        sum
    }
}
