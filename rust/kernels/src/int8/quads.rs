//! Quads of integers of eight bits, for the instruction that multiplies and adds them: `vpdpbusd`.
//!
//! It wants one side without signs: B is raised by 128, which adds 128 times the sum of a row of A
//! to all of its sums. They begin at minus that.

use std::arch::x86_64::*;
use std::cell::Cell;

use super::{LARGEST, copy, multiply_floats};
use crate::cache::Caches;
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
    matrix: &[f32],
    (inner, cols): (usize, usize),
    packed: &mut Vec<f32>,
) {
    if !pay(level, inner) {
        return copy(level, matrix, (inner, cols), packed);
    }
    let first = packed.len();
    packed.resize(first + packed_len(inner, cols), 0.0);
    let panels = words_of_mut(&mut packed[first..]);
    level.vectorize(|| pack_panels(matrix, (inner, cols), panels));
}

#[inline(always)]
fn pack_panels(matrix: &[f32], (inner, cols): (usize, usize), panels: &mut [u32]) {
    for col in (0..cols).step_by(VECTORS * LANES) {
        let width = (cols - col).min(VECTORS * LANES);
        let padded = width.next_multiple_of(LANES);
        poll(inner * width);
        let panel = &mut panels[inner.div_ceil(4) * col..];
        for (k, line) in matrix.chunks_exact(cols).enumerate() {
            let words = &mut panel[k / 4 * padded..][..width];
            for (word, &code) in words.iter_mut().zip(&line[col..col + width]) {
                *word |= ((code as i32 + RAISE) as u32) << (8 * (k % 4));
            }
        }
    }
}

thread_local! {
    /// Memory for copies of A, and for what the sums of its rows begin at.
    static MEMORY: Cell<(Vec<u32>, Vec<i32>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

/// [`super::multiply_packed`].
pub(super) fn multiply_packed(
    level: Level,
    a: &[f32],
    packed: &[f32],
    shape: (usize, usize, usize),
    scale: f32,
    target: &mut [f32],
) {
    if pay(level, shape.1) {
        // SAFETY: `pay` has asked for the instructions.
        unsafe { multiply_quads(a, packed, shape, scale, target) }
    } else {
        multiply_floats(level, a, packed, shape, scale, target);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
fn multiply_quads(
    a: &[f32],
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
            words.extend(row.chunks(4).map(word));
            let sum: i32 = row.iter().map(|&code| code as i32).sum();
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

/// Up to four integers as a word.
#[inline(always)]
fn word(codes: &[f32]) -> u32 {
    let byte = |k: usize| u32::from(codes.get(k).map_or(0, |&code| code as i8) as u8) << (8 * k);
    byte(0) | byte(1) | byte(2) | byte(3)
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
