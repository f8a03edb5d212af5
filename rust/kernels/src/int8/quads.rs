//! Quads of integers of eight bits, for the instruction that multiplies and adds them: `vpdpbusd`.
//!
//! It wants one side without signs: B is raised by 128, which adds 128 times the sum of a row of A
//! to all of its sums. They begin at minus that.

use std::arch::x86_64::*;
use std::cell::Cell;

use super::{LARGEST, multiply_floats, pack_floats};
use crate::cache::Caches;
use crate::gemm::Dense;
use crate::level::{Isa, Level};
use crate::watch::poll;
use crate::words::{HEIGHT, LANES, Left, Tiles, VECTORS, WordProduct, words_of, words_of_mut};

/// What B is raised by.
const RAISE: i32 = 128;

/// Whether the instruction is there, and its 32 bits hold every sum of so many terms.
pub(super) fn pay(level: Level, inner: usize) -> bool {
    inner <= (i32::MAX as u32 / (LARGEST * LARGEST)) as usize
        && level.0 == Isa::Avx512
        && std::arch::is_x86_feature_detected!("avx512vnni")
}

/// [`super::packed_len`]: panels of quads.
pub(super) fn packed_len(inner: usize, cols: usize) -> usize {
    inner.div_ceil(4) * cols.next_multiple_of(LANES)
}

/// [`super::pack`]: panel by panel.
pub(super) fn pack(
    level: Level,
    matrix: Dense<'_, f32>,
    (inner, cols): (usize, usize),
    per_unit: f32,
    packed: &mut [f32],
) {
    if !pay(level, inner) {
        return pack_floats(level, matrix, (inner, cols), per_unit, packed);
    }
    let panels = words_of_mut(packed);
    level.vectorize(|| pack_panels(matrix, (inner, cols), per_unit, panels));
}

#[inline(always)]
fn pack_panels(
    Dense { data, stride }: Dense<'_, f32>,
    (inner, cols): (usize, usize),
    per_unit: f32,
    panels: &mut [u32],
) {
    /// The bytes of a word, raised.
    const RAISED: u32 = u32::from_ne_bytes([RAISE as u8; 4]);
    let depth = inner.div_ceil(4);
    for col in (0..cols).step_by(VECTORS * LANES) {
        let width = (cols - col).min(VECTORS * LANES);
        let padded = width.next_multiple_of(LANES);
        poll(inner * width);
        let panel = &mut panels[depth * col..][..depth * padded];
        for (first, words) in (0..inner).step_by(4).zip(panel.chunks_exact_mut(padded)) {
            // Terms past the last meet zeros of A.
            let line = |k: usize| &data[(first + k).min(inner - 1) * stride + col..][..width];
            let [a, b, c, d] = [line(0), line(1), line(2), line(3)];
            words[width..].fill(0);
            for (j, word) in words[..width].iter_mut().enumerate() {
                let bytes = [a[j], b[j], c[j], d[j]];
                *word = word_of(bytes, per_unit) ^ RAISED;
            }
        }
    }
}

/// Four numbers, times `per_unit` and rounded to integers, as bytes: what is added to round leaves
/// them at the end of the bits.
#[inline(always)]
fn word_of(numbers: [f32; 4], per_unit: f32) -> u32 {
    let [a, b, c, d] = numbers.map(|x| (x * per_unit + SHIFT).to_bits() & 0xff);
    a | b << 8 | c << 16 | d << 24
}

/// [`super::shift`].
const SHIFT: f32 = 1.5 / f32::EPSILON;

thread_local! {
    /// Memory for copies of A, and for what the sums of its rows begin at.
    static MEMORY: Cell<(Vec<u32>, Vec<i32>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

/// [`super::multiply_packed`].
pub(super) fn multiply_packed(
    level: Level,
    (a, per_unit): (&[f32], f32),
    packed: &[f32],
    shape: (usize, usize, usize),
    scale: f32,
    target: &mut [f32],
) {
    if pay(level, shape.1) {
        // SAFETY: `pay` has asked for the instructions.
        unsafe { multiply_quads((a, per_unit), packed, shape, scale, target) }
    } else {
        multiply_floats(level, (a, per_unit), packed, shape, scale, target);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
fn multiply_quads(
    (a, per_unit): (&[f32], f32),
    packed: &[f32],
    (rows, inner, cols): (usize, usize, usize),
    scale: f32,
    target: &mut [f32],
) {
    let target = &mut target[..rows * cols];
    target.fill(0.0);
    let depth = inner.div_ceil(4);
    if depth == 0 || rows == 0 || cols == 0 {
        return;
    }
    assert_eq!(packed.len(), packed_len(inner, cols));
    let panels = words_of(packed);
    let fitting = Caches::get().second / 2 / (depth * size_of::<u32>());
    let high = fitting.clamp(HEIGHT, HEIGHT.max(rows));
    let (mut words, mut starts) = MEMORY.take();
    for (a, target) in a[..rows * inner].chunks(high * inner).zip(target.chunks_mut(high * cols)) {
        words.clear();
        starts.clear();
        for row in a.chunks_exact(inner) {
            let (quads, rest) = row.as_chunks::<4>();
            let mut last = [0.0; 4];
            last[..rest.len()].copy_from_slice(rest);
            let first = words.len();
            words.extend(quads.iter().map(|&quad| word_of(quad, per_unit)));
            words.extend((!rest.is_empty()).then(|| word_of(last, per_unit)));
            let sum = words[first..].iter().fold(0, |sum: i32, &word| sum + sum_of_bytes(word));
            // What wraps here wraps back in the sums, which fit.
            starts.push(sum.wrapping_mul(-RAISE));
        }
        let (a, stride) = (Left { data: &words, row: depth, column: 1 }, cols);
        for col in (0..cols).step_by(VECTORS * LANES) {
            let width = (cols - col).min(VECTORS * LANES);
            poll(starts.len() * depth * width);
            let b = &panels[depth * col..][..depth * width.next_multiple_of(LANES)];
            let to = target[col..].as_mut_ptr();
            let tiles = Tiles { a, starts: &starts, b, depth, width, scale, to, stride };
            // SAFETY: operands were copied for all rows, columns and terms, and the target has
            // these rows and columns.
            unsafe { tiles.multiply::<Quads>(starts.len()) }
        }
    }
    MEMORY.set((words, starts));
}

/// The sum of the bytes of a word, which have signs.
#[inline(always)]
fn sum_of_bytes(word: u32) -> i32 {
    let byte = |k: u32| (word << (24 - 8 * k)) as i32 >> 24;
    byte(0) + byte(1) + byte(2) + byte(3)
}

/// Four products of integers in every word: of A with signs, and of B without.
struct Quads;

// SAFETY: the methods are those of the instructions, which the callers vouch for.
unsafe impl WordProduct for Quads {
    type Sum = __m512i;

    #[inline(always)]
    unsafe fn start(number: i32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi32(number) }
    }

    #[inline(always)]
    unsafe fn add(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_dpbusd_epi32(sum, b, a) }
    }

    #[inline(always)]
    unsafe fn finish(sum: __m512i) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi32_ps(sum) }
    }
}
