//! Products of which both sides are copied, block by block, to where they lie as they are read.
//!
//! A panel of B whose rows are far apart is slow to read again and again: its lines compete for the
//! same few sets of the caches, and prefetchers stop at the ends of pages. Copied side by side it
//! streams from the first-level cache (Goto and van de Geijn, "Anatomy of high-performance matrix
//! multiplication", ACM TOMS 34, 2008). A stays in the second level meanwhile.

use std::cell::Cell;

use super::{Factors, Left, Part, Terms, Tiles, height, vectors};
use crate::cache::Caches;
use crate::simd::Vector;
use crate::watch::poll;

thread_local! {
    /// Memory for the copies, kept between products.
    static MEMORY: Cell<Vec<u64>> = const { Cell::new(Vec::new()) };
}

/// Columns from which on rows of A are read often enough to be copied, too.
const COPY_LEFT_FROM: usize = 256;

/// Adds products, as [`multiply_all`](super::multiply_all) does, to `to`.
///
/// # Safety
/// Factors and pointer must be valid for the shape; the instruction set must be there.
#[inline(always)]
pub(super) unsafe fn multiply<V: Vector>(
    factors: &[Factors<'_, V::Scalar>],
    (rows, inner, cols): (usize, usize, usize),
    to: *mut V::Scalar,
    stride: usize,
) {
    let caches = Caches::get();
    let (width, size) = (vectors::<V>() * V::LANES, size_of::<V::Scalar>());
    let depth = (caches.first / (width * size)).min(inner);
    let high = (caches.second / 2 / (depth * size)).min(rows);
    let copies_left = cols >= COPY_LEFT_FROM;
    let mut memory = MEMORY.take();
    let wanted = depth * (width + if copies_left { high } else { 0 }) * size;
    memory.resize(memory.len().max(wanted.div_ceil(size_of::<u64>())), 0);
    let panel = memory.as_mut_ptr().cast::<V::Scalar>();
    // SAFETY: the memory holds a panel of B of this depth and, after it, a block of A.
    let left = unsafe { panel.add(depth * width) };
    for row in (0..rows).step_by(high) {
        let high = high.min(rows - row);
        // SAFETY: rows and columns of A, B and the target exist as the caller vouches.
        unsafe {
            let mut terms = Terms::default();
            while let Some(pieces) = terms.next(factors, row, depth) {
                let depth = pieces.iter().map(|piece| piece.inner).sum();
                if copies_left {
                    copy_left::<V>(pieces, high, depth, left);
                }
                let to = to.add(row * stride);
                for col in (0..cols).step_by(width) {
                    let width = width.min(cols - col);
                    poll(high * depth * width);
                    let step = width.next_multiple_of(V::LANES);
                    copy_right::<V>(pieces, col, width, panel);
                    if copies_left {
                        let a = Left { data: left.cast_const(), row: 0, column: 0 };
                        let parts = &[Part { a, b: panel, step, inner: depth }];
                        Tiles { parts, to, stride }.panel::<V, true>(high, (0, col), width);
                        continue;
                    }
                    let mut b = panel.cast_const();
                    for &Part { a, inner, .. } in pieces {
                        let parts = &[Part { a, b, step, inner }];
                        Tiles { parts, to, stride }.panel::<V, false>(high, (0, col), width);
                        b = b.add(inner * step);
                    }
                }
            }
        }
    }
    MEMORY.set(memory);
}

/// Copies `width` columns of B from `col` on side by side, padded with zeros to whole vectors.
#[inline(always)]
unsafe fn copy_right<V: Vector>(
    pieces: &[Part<V::Scalar>],
    col: usize,
    width: usize,
    mut to: *mut V::Scalar,
) {
    let (whole, rest) = (width / V::LANES, width % V::LANES);
    for &Part { b, step, inner, .. } in pieces {
        for k in 0..inner {
            // SAFETY: the caller vouches for the columns and for the padded copies.
            unsafe {
                let from = b.add(k * step + col);
                if whole == vectors::<V>() {
                    for v in 0..vectors::<V>() {
                        V::load(from.add(v * V::LANES)).store(to.add(v * V::LANES));
                    }
                } else {
                    for v in 0..whole {
                        V::load(from.add(v * V::LANES)).store(to.add(v * V::LANES));
                    }
                    if rest > 0 {
                        let at = whole * V::LANES;
                        V::load_first(from.add(at), rest).store(to.add(at));
                    }
                }
                to = to.add(width.next_multiple_of(V::LANES));
            }
        }
    }
}

/// Copies rows of A, tile by tile, term by term.
#[inline(always)]
unsafe fn copy_left<V: Vector>(
    pieces: &[Part<V::Scalar>],
    rows: usize,
    depth: usize,
    to: *mut V::Scalar,
) {
    let mut row = 0;
    while row < rows {
        let high = height::<V>(rows - row);
        // SAFETY: the caller vouches for `rows` rows of `depth` elements on both sides.
        unsafe {
            let mut to = to.add(row * depth);
            for &Part { a, inner, .. } in pieces {
                let from = a.at(row, 0);
                match high {
                    8 => copy_tile::<V, 8>(from, inner, to),
                    6 => copy_tile::<V, 6>(from, inner, to),
                    4 => copy_tile::<V, 4>(from, inner, to),
                    2 => copy_tile::<V, 2>(from, inner, to),
                    _ => copy_tile::<V, 1>(from, inner, to),
                }
                to = to.add(high * inner);
            }
        }
        row += high;
    }
}

#[inline(always)]
unsafe fn copy_tile<V: Vector, const M: usize>(
    a: Left<V::Scalar>,
    depth: usize,
    to: *mut V::Scalar,
) {
    for k in 0..depth {
        for i in 0..M {
            // SAFETY: as for `copy_left`.
            unsafe { *to.add(k * M + i) = *a.data.add(k * a.column + i * a.row) };
        }
    }
}
