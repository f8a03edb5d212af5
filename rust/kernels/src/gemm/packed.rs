//! Products of which both sides are copied, block by block, to where they lie as they are read.
//!
//! A panel of B whose rows are far apart is slow to read again and again: its lines compete for the
//! same few sets of the caches, and prefetchers stop at the ends of pages. Copied side by side it
//! streams from the first-level cache (Goto and van de Geijn, "Anatomy of high-performance matrix
//! multiplication", ACM TOMS 34, 2008). A stays in the second level meanwhile.

use std::cell::Cell;

use super::{Left, Tiles, VECTORS, height, shape_is_blocked};
use crate::cache::Caches;
use crate::simd::Vector;
use crate::watch::poll;

thread_local! {
    /// Memory for the copies, kept between products.
    static MEMORY: Cell<Vec<u64>> = const { Cell::new(Vec::new()) };
}

/// Columns from which on rows of A are read often enough to be copied, too.
const COPY_LEFT_FROM: usize = 256;

/// The sum of A B, with B `inner` x `cols` and rows `step` elements apart, is added to `to`.
///
/// # Safety
/// The pointers must be valid for the shape; the instruction set must be there.
#[inline(always)]
pub(super) unsafe fn multiply<V: Vector>(
    a: Left<V::Scalar>,
    b: *const V::Scalar,
    step: usize,
    (rows, inner, cols): (usize, usize, usize),
    to: *mut V::Scalar,
    stride: usize,
) {
    debug_assert!(shape_is_blocked::<V>(rows, inner, cols, step));
    let caches = Caches::get();
    let (width, size) = (VECTORS * V::LANES, size_of::<V::Scalar>());
    let depth = (caches.first / (width * size)).min(inner);
    let high = (caches.second / 2 / (depth * size)).min(rows);
    let copies_left = cols >= COPY_LEFT_FROM;
    let mut memory = MEMORY.take();
    let wanted = depth * (width + if copies_left { high } else { 0 }) * size;
    memory.resize(memory.len().max(wanted.div_ceil(size_of::<u64>())), 0);
    let panel = memory.as_mut_ptr().cast::<V::Scalar>();
    for row in (0..rows).step_by(high) {
        let high = high.min(rows - row);
        for k in (0..inner).step_by(depth) {
            let depth = depth.min(inner - k);
            // SAFETY: rows and columns of A, B and the target exist as the caller vouches; the
            // memory holds a panel of B and, after it, the block of A.
            unsafe {
                let from = a.at(row, k);
                let left = panel.add(depth * width);
                if copies_left {
                    copy_left::<V>(from, high, depth, left);
                }
                let tiles = Tiles { inner: depth, to: to.add(row * stride), stride };
                for col in (0..cols).step_by(width) {
                    let width = width.min(cols - col);
                    poll(high * depth * width);
                    let padded = copy_right::<V>(b.add(k * step + col), step, depth, width, panel);
                    if copies_left {
                        tiles.panel_of_copies::<V>(left, panel, padded, high, col, width);
                    } else {
                        tiles.panel::<V>(from, panel, padded, high, col, width);
                    }
                }
            }
        }
    }
    MEMORY.set(memory);
}

/// Copies `width` columns of B side by side, padded with zeros to whole vectors; gives their
/// padded width.
#[inline(always)]
unsafe fn copy_right<V: Vector>(
    from: *const V::Scalar,
    step: usize,
    depth: usize,
    width: usize,
    to: *mut V::Scalar,
) -> usize {
    let (whole, rest) = (width / V::LANES, width % V::LANES);
    let padded = width.next_multiple_of(V::LANES);
    for k in 0..depth {
        // SAFETY: the caller vouches for the columns and for the padded copies.
        unsafe {
            let (from, to) = (from.add(k * step), to.add(k * padded));
            if whole == VECTORS {
                for v in 0..VECTORS {
                    V::load(from.add(v * V::LANES)).store(to.add(v * V::LANES));
                }
                continue;
            }
            for v in 0..whole {
                V::load(from.add(v * V::LANES)).store(to.add(v * V::LANES));
            }
            if rest > 0 {
                let at = whole * V::LANES;
                V::load_first(from.add(at), rest).store(to.add(at));
            }
        }
    }
    padded
}

/// Copies rows of A, tile by tile, column by column.
#[inline(always)]
unsafe fn copy_left<V: Vector>(a: Left<V::Scalar>, rows: usize, depth: usize, to: *mut V::Scalar) {
    let mut row = 0;
    while row < rows {
        let high = height::<V>(rows - row);
        // SAFETY: the caller vouches for `rows` rows of `depth` elements on both sides.
        unsafe {
            let (from, to) = (a.at(row, 0), to.add(row * depth));
            match high {
                8 => copy_tile::<V, 8>(from, depth, to),
                4 => copy_tile::<V, 4>(from, depth, to),
                2 => copy_tile::<V, 2>(from, depth, to),
                _ => copy_tile::<V, 1>(from, depth, to),
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
