//! Panels of columns of a product: what one walk over the non-zeros sums.

use super::Panel;
use crate::gemm::Dense;
use crate::simd::Vector;

/// The columns from `col` on, fewer than eight vectors of them.
///
/// # Safety
/// As for [`direct_panel`].
#[inline(always)]
pub(super) unsafe fn rest_of_columns<V: Vector>(
    task: &Task<'_, V::Scalar>,
    mut col: usize,
    n: usize,
) {
    let (vectors, rest) = ((n - col) / V::LANES, (n - col) % V::LANES);
    // SAFETY: as the caller vouches.
    unsafe {
        match (vectors, rest) {
            (_, 0) => {
                if vectors & 4 != 0 {
                    direct_panel::<V, 4>(task, col);
                    col += 4 * V::LANES;
                }
                if vectors & 2 != 0 {
                    direct_panel::<V, 2>(task, col);
                    col += 2 * V::LANES;
                }
                if vectors & 1 != 0 {
                    direct_panel::<V, 1>(task, col);
                }
            }
            // One walk over the entries for whole vectors and the rest together.
            (0, rest) => last_columns::<V>(task, col, rest),
            (1, rest) => ragged_panel::<V, 1>(task, col, rest),
            (2, rest) => ragged_panel::<V, 2>(task, col, rest),
            (3, rest) => ragged_panel::<V, 3>(task, col, rest),
            (4, rest) => ragged_panel::<V, 4>(task, col, rest),
            (5, rest) => ragged_panel::<V, 5>(task, col, rest),
            (6, rest) => ragged_panel::<V, 6>(task, col, rest),
            (_, rest) => ragged_panel::<V, 7>(task, col, rest),
        }
    }
}

pub(super) struct Task<'a, T> {
    pub(super) starts: &'a [u32],
    pub(super) index: &'a [u32],
    pub(super) value: &'a [T],
    pub(super) cols: usize,
    pub(super) m: Dense<'a, T>,
    pub(super) y: *mut T,
    pub(super) stride: usize,
}

/// sums += entry `e` times its row of m; row k lies at `base + (k - k0) stride`.
#[inline(always)]
unsafe fn add_entry<V: Vector, const N: usize>(
    sums: &mut [V; N],
    task: &Task<'_, V::Scalar>,
    e: usize,
    base: *const V::Scalar,
    stride: usize,
    k0: usize,
) {
    // SAFETY: the caller vouches that `e` is an entry, and that its column is a row of m with N
    // vectors at `base`.
    unsafe {
        let v = V::splat(*task.value.get_unchecked(e));
        let row = base.add((*task.index.get_unchecked(e) as usize - k0) * stride);
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = v.mul_add(V::load(row.add(i * V::LANES)), *sum);
        }
    }
}

#[inline(always)]
unsafe fn load_row<V: Vector, const N: usize>(p: *const V::Scalar) -> [V; N] {
    // SAFETY: the caller vouches for N vectors.
    std::array::from_fn(|i| unsafe { V::load(p.add(i * V::LANES)) })
}

#[inline(always)]
unsafe fn store_row<V: Vector, const N: usize>(sums: [V; N], p: *mut V::Scalar) {
    for (i, sum) in sums.into_iter().enumerate() {
        // SAFETY: the caller vouches for N vectors.
        unsafe { sum.store(p.add(i * V::LANES)) }
    }
}

#[inline(always)]
pub(super) unsafe fn direct_panel<V: Vector, const N: usize>(
    task: &Task<'_, V::Scalar>,
    col: usize,
) {
    // Rows without entries are many where inputs are mostly zero and batches small: they are not
    // even read.
    for (i, span) in task.starts.windows(2).enumerate().filter(|(_, span)| span[0] < span[1]) {
        // SAFETY: the caller vouches that columns col..col + N LANES exist in m and y.
        unsafe {
            let y = task.y.add(i * task.stride + col);
            let mut sums = load_row::<V, N>(y);
            let base = task.m.data.as_ptr().add(col);
            for e in span[0] as usize..span[1] as usize {
                add_entry(&mut sums, task, e, base, task.m.stride, 0);
            }
            store_row(sums, y);
        }
    }
}

/// N vectors, and the `rest` columns after them, fewer than a vector.
#[inline(always)]
unsafe fn ragged_panel<V: Vector, const N: usize>(
    task: &Task<'_, V::Scalar>,
    col: usize,
    rest: usize,
) {
    for (i, span) in task.starts.windows(2).enumerate().filter(|(_, span)| span[0] < span[1]) {
        // SAFETY: the caller vouches that columns col..col + N LANES + rest exist in m and y.
        unsafe {
            let y = task.y.add(i * task.stride + col);
            let mut sums = load_row::<V, N>(y);
            let mut last = V::load_first(y.add(N * V::LANES), rest);
            let base = task.m.data.as_ptr().add(col);
            for e in span[0] as usize..span[1] as usize {
                add_entry(&mut sums, task, e, base, task.m.stride, 0);
                let row =
                    base.add(*task.index.get_unchecked(e) as usize * task.m.stride + N * V::LANES);
                last =
                    V::splat(*task.value.get_unchecked(e)).mul_add(V::load_first(row, rest), last);
            }
            store_row(sums, y);
            last.store_first(y.add(N * V::LANES), rest);
        }
    }
}

#[inline(always)]
pub(super) unsafe fn packed_panel<V: Vector, const N: usize>(
    task: &Task<'_, V::Scalar>,
    col: usize,
    panel: &mut Panel<V::Scalar>,
) {
    let width = N * V::LANES;
    let depth = panel.packed.len() / width;
    let rows = task.starts.len() - 1;
    panel.cursors.clear();
    panel.cursors.extend_from_slice(&task.starts[..rows]);
    let packed = panel.packed.as_mut_ptr();
    for k0 in (0..task.cols).step_by(depth) {
        let k1 = (k0 + depth).min(task.cols);
        for k in k0..k1 {
            // SAFETY: rows k0..k1 of m have columns col..col + width, and the buffer has `depth`
            // rows of `width`.
            unsafe {
                let row = load_row::<V, N>(task.m.data.as_ptr().add(k * task.m.stride + col));
                store_row(row, packed.add((k - k0) * width));
            }
        }
        for i in 0..rows {
            let mut e = panel.cursors[i] as usize;
            let end = task.starts[i + 1] as usize;
            // SAFETY: as in `direct_panel`, with the rows k0..k1 in the buffer; `e` is an entry of
            // row i.
            unsafe {
                if e == end || *task.index.get_unchecked(e) as usize >= k1 {
                    continue;
                }
                let y = task.y.add(i * task.stride + col);
                let mut sums = load_row::<V, N>(y);
                while e < end && (*task.index.get_unchecked(e) as usize) < k1 {
                    add_entry(&mut sums, task, e, packed, width, k0);
                    e += 1;
                }
                store_row(sums, y);
            }
            panel.cursors[i] = e as u32;
        }
    }
}

/// The last columns, fewer than a vector has: four rows side by side, whose sums cover each other's
/// latency. Each is in the order of its entries, as in whole vectors, whatever is beside it.
#[inline(always)]
unsafe fn last_columns<V: Vector>(task: &Task<'_, V::Scalar>, col: usize, width: usize) {
    let rows = task.starts.len() - 1;
    // SAFETY: as the caller vouches.
    unsafe {
        for row in (0..rows).step_by(4) {
            if rows - row >= 4 {
                last_of_rows::<V, 4>(task, row, col, width);
            } else {
                (row..rows).for_each(|row| last_of_rows::<V, 1>(task, row, col, width));
            }
        }
    }
}

#[inline(always)]
unsafe fn last_of_rows<V: Vector, const R: usize>(
    task: &Task<'_, V::Scalar>,
    row: usize,
    col: usize,
    width: usize,
) {
    let span = |r: usize| (task.starts[row + r] as usize, task.starts[row + r + 1] as usize);
    let spans: [(usize, usize); R] = std::array::from_fn(span);
    let together = spans.iter().map(|(start, end)| end - start).min().unwrap_or(0);
    // SAFETY: the caller vouches that columns col..col + width exist in m and y, and width < LANES.
    unsafe {
        let base = task.m.data.as_ptr().add(col);
        let add = |sum: V, e: usize| {
            let line = base.add(*task.index.get_unchecked(e) as usize * task.m.stride);
            V::splat(*task.value.get_unchecked(e)).mul_add(V::load_first(line, width), sum)
        };
        let y: [_; R] = std::array::from_fn(|r| task.y.add((row + r) * task.stride + col));
        let mut sums: [V; R] = std::array::from_fn(|r| V::load_first(y[r], width));
        for k in 0..together {
            for (sum, (start, _)) in sums.iter_mut().zip(&spans) {
                *sum = add(*sum, start + k);
            }
        }
        for ((sum, (start, end)), y) in sums.into_iter().zip(spans).zip(y) {
            if start < end {
                (start + together..end).fold(sum, add).store_first(y, width);
            }
        }
    }
}
