//! SIMD kernels with run-time dispatch, and counter-based random numbers.
//!
//! This is the only crate of the workspace with `unsafe` code. Every public function is safe: it
//! checks the shapes it relies on and picks an instruction set that the processor has. A kernel is
//! written once, over [`simd::Vector`], and instantiated per instruction set; the portable instance
//! is the reference that the others are tested against.
//!
//! Reductions have a fixed order, so that a result depends on the instruction set alone: never on
//! the number of threads, the alignment of a buffer, or how rows are grouped into calls.

pub mod bfloat16;
pub mod cache;
pub mod converter;
mod fft;
pub mod fourier;
pub mod gemm;
pub mod hidden;
pub mod int8;
pub mod level;
mod logarithm;
mod memory;
pub mod mesh;
pub mod narrow;
pub mod philox;
pub mod potential;
pub mod pulses;
pub mod simd;
pub mod sparse;
pub mod symmetric;
pub mod trig;
pub mod unit;
pub mod watch;
pub mod wires;
#[cfg(target_arch = "x86_64")]
mod words;

pub use aligned_vec::{AVec, avec};
pub use level::Level;
pub use simd::{BothPrecisions, Real};

level::dispatch! {
    /// y += factor x.
    ///
    /// # Panics
    /// If y is shorter than x.
    pub fn add_scaled<T>(level: Level, x: &[T], factor: T, y: &mut [T]) = add_scaled_body
}

#[inline(always)]
fn add_scaled_body<V: simd::Vector>(x: &[V::Scalar], factor: V::Scalar, y: &mut [V::Scalar]) {
    let y = &mut y[..x.len()];
    // SAFETY: both slices have x.len() elements; `dispatch!` vouches for the instruction set.
    unsafe {
        let scale = V::splat(factor);
        let whole = x.len() - x.len() % V::LANES;
        for j in (0..whole).step_by(V::LANES) {
            let p = y.as_mut_ptr().add(j);
            scale.mul_add(V::load(x.as_ptr().add(j)), V::load(p)).store(p);
        }
        let (p, rest) = (y.as_mut_ptr().add(whole), x.len() - whole);
        scale
            .mul_add(V::load_first(x.as_ptr().add(whole), rest), V::load_first(p, rest))
            .store_first(p, rest);
    }
}

level::dispatch! {
    /// y_j <- y_j + factor x_j + constant, or the end of `range` that this is beyond. NaN stays
    /// NaN. An empty x is zero.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn shift_within<T>(
        level: Level, x: &[T], factor: T, constant: T, range: (T, T), y: &mut [T],
    ) = shift_within_body
}

#[inline(always)]
fn shift_within_body<V: simd::Vector>(
    x: &[V::Scalar],
    factor: V::Scalar,
    constant: V::Scalar,
    range: (V::Scalar, V::Scalar),
    y: &mut [V::Scalar],
) {
    assert!(x.is_empty() || x.len() == y.len());
    let whole = y.len() - y.len() % V::LANES;
    let rest = y.len() - whole;
    // SAFETY: both slices have y.len() elements, or x is not read; `dispatch!` vouches for the
    // instruction set.
    unsafe {
        let (factor, constant, lower, upper) =
            (V::splat(factor), V::splat(constant), V::splat(range.0), V::splat(range.1));
        let within = |v: V| upper.min(lower.max(v));
        for j in (0..whole).step_by(V::LANES) {
            let p = y.as_mut_ptr().add(j);
            let shift = if x.is_empty() {
                constant
            } else {
                factor.mul_add(V::load(x.as_ptr().add(j)), constant)
            };
            within(V::load(p).add(shift)).store(p);
        }
        let p = y.as_mut_ptr().add(whole);
        let shift = if x.is_empty() {
            constant
        } else {
            factor.mul_add(V::load_first(x.as_ptr().add(whole), rest), constant)
        };
        within(V::load_first(p, rest).add(shift)).store_first(p, rest);
    }
}

level::dispatch! {
    /// The sum of x_j y_j, in an order fixed by the instruction set.
    ///
    /// # Panics
    /// If y is shorter than x.
    pub fn dot<T>(level: Level, x: &[T], y: &[T]) -> T = dot_body
}

#[inline(always)]
fn dot_body<V: simd::Vector>(x: &[V::Scalar], y: &[V::Scalar]) -> V::Scalar {
    let y = &y[..x.len()];
    // SAFETY: both slices have x.len() elements; `dispatch!` vouches for the instruction set.
    unsafe {
        // Four sums cover the latency of a multiply-add.
        let mut sums = [V::splat(simd::Real::ZERO); 4];
        let whole = x.len() - x.len() % V::LANES;
        for (i, j) in (0..whole).step_by(V::LANES).enumerate() {
            let sum = &mut sums[i % 4];
            *sum = V::load(x.as_ptr().add(j)).mul_add(V::load(y.as_ptr().add(j)), *sum);
        }
        let rest = x.len() - whole;
        let (p, q) = (x.as_ptr().add(whole), y.as_ptr().add(whole));
        sums[0] = V::load_first(p, rest).mul_add(V::load_first(q, rest), sums[0]);
        let [a, b, c, d] = sums;
        a.add(b).add(c.add(d)).sum()
    }
}

level::dispatch! {
    /// Writes the sum of the rows of a row-major matrix, each as long as `sums`, in ascending
    /// order.
    ///
    /// # Panics
    /// If the matrix has no whole number of rows.
    pub fn sum_rows<T>(level: Level, matrix: &[T], sums: &mut [T]) = sum_rows_body
}

#[inline(always)]
fn sum_rows_body<V: simd::Vector>(matrix: &[V::Scalar], sums: &mut [V::Scalar]) {
    let n = sums.len();
    assert!(n > 0 && matrix.len().is_multiple_of(n), "no whole number of rows");
    let rows = matrix.len() / n;
    let mut col = 0;
    // SAFETY: columns col..col + 8 LANES, LANES or rest exist in every row and in `sums`;
    // `dispatch!` vouches for the instruction set.
    unsafe {
        while col + 8 * V::LANES <= n {
            sum_columns::<V, 8>(matrix.as_ptr().add(col), rows, n, sums.as_mut_ptr().add(col));
            col += 8 * V::LANES;
        }
        while col + V::LANES <= n {
            sum_columns::<V, 1>(matrix.as_ptr().add(col), rows, n, sums.as_mut_ptr().add(col));
            col += V::LANES;
        }
        let mut last = V::splat(Real::ZERO);
        for row in 0..rows {
            last = last.add(V::load_first(matrix.as_ptr().add(row * n + col), n - col));
        }
        last.store_first(sums.as_mut_ptr().add(col), n - col);
    }
}

/// The sums of N vectors of columns.
#[inline(always)]
unsafe fn sum_columns<V: simd::Vector, const N: usize>(
    from: *const V::Scalar,
    rows: usize,
    stride: usize,
    to: *mut V::Scalar,
) {
    // SAFETY: the caller vouches for the columns of all rows.
    unsafe {
        let mut sums = [V::splat(Real::ZERO); N];
        for row in 0..rows {
            for (k, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add(V::load(from.add(row * stride + k * V::LANES)));
            }
        }
        for (k, sum) in sums.into_iter().enumerate() {
            sum.store(to.add(k * V::LANES));
        }
    }
}

level::dispatch! {
    /// Rounds every value, which lies in `range`, to one of the two levels lower + k step next to
    /// it: the one above where the number of `uniform` is smaller than the part of a step that the
    /// value is above the other. NaN stays NaN.
    ///
    /// # Panics
    /// If there are fewer numbers than values.
    pub fn round_to_levels<T>(
        level: Level, uniform: &[T], step: T, range: (T, T), values: &mut [T],
    ) = round_body
}

#[inline(always)]
fn round_body<V: simd::Vector>(
    uniform: &[V::Scalar],
    step: V::Scalar,
    range: (V::Scalar, V::Scalar),
    values: &mut [V::Scalar],
) {
    let uniform = &uniform[..values.len()];
    // SAFETY: both slices have values.len() elements; `dispatch!` vouches for the instruction set.
    unsafe {
        let constants = [V::splat(step), V::splat(Real::ONE), V::splat(range.0), V::splat(range.1)];
        let whole = values.len() - values.len() % V::LANES;
        for j in (0..whole).step_by(V::LANES) {
            let p = values.as_mut_ptr().add(j);
            round_vector(V::load(p), V::load(uniform.as_ptr().add(j)), constants).store(p);
        }
        let (p, rest) = (values.as_mut_ptr().add(whole), values.len() - whole);
        let uniform = V::load_first(uniform.as_ptr().add(whole), rest);
        round_vector(V::load_first(p, rest), uniform, constants).store_first(p, rest);
    }
}

#[inline(always)]
unsafe fn round_vector<V: simd::Vector>(v: V, u: V, [step, one, lower, upper]: [V; 4]) -> V {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let place = v.sub(lower).div(step);
        let nearest = place.round();
        let below = nearest.sub(one).add(place.step(nearest));
        let up = place.sub(below).step(u);
        upper.min(lower.max(below.add(up).mul_add(step, lower)))
    }
}

level::dispatch! {
    /// Transposes columns `span` of `source` (`rows` x `cols`, row-major) into `target`: row i of
    /// the target is column `span.start + i`, and rows are `stride >= rows` elements apart.
    ///
    /// # Panics
    /// If a slice is too short for its shape.
    pub fn transpose<T>(
        level: Level,
        source: &[T],
        rows: usize,
        cols: usize,
        span: std::ops::Range<usize>,
        target: &mut [T],
        stride: usize,
    ) = transpose_body
}

#[inline(always)]
fn transpose_body<V: simd::Vector>(
    source: &[V::Scalar],
    rows: usize,
    cols: usize,
    span: std::ops::Range<usize>,
    target: &mut [V::Scalar],
    stride: usize,
) {
    assert!(
        span.end <= cols
            && source.len() >= rows * cols
            && stride >= rows
            && target.len() >= span.len() * stride
    );
    for r in (0..rows).step_by(V::LANES) {
        watch::poll(V::LANES * span.len());
        for c in span.clone().step_by(V::LANES) {
            let (from, to) = (r * cols + c, (c - span.start) * stride + r);
            if r + V::LANES <= rows && c + V::LANES <= span.end {
                // SAFETY: the block lies within both matrices; `dispatch!` vouches for the
                // instruction set.
                unsafe {
                    turn_block::<V>(
                        source.as_ptr().add(from),
                        cols,
                        target.as_mut_ptr().add(to),
                        stride,
                    )
                };
                continue;
            }
            for j in 0..V::LANES.min(span.end - c) {
                for i in 0..V::LANES.min(rows - r) {
                    target[to + j * stride + i] = source[from + i * cols + j];
                }
            }
        }
    }
}

/// Transposes a square of vectors in registers: in each round lines half a block apart are merged
/// lane by lane, which rotates the bits of (row, column) by one.
#[inline(always)]
unsafe fn turn_block<V: simd::Vector>(
    from: *const V::Scalar,
    cols: usize,
    to: *mut V::Scalar,
    stride: usize,
) {
    const { assert!(V::LANES <= simd::SLACK && V::LANES.is_power_of_two()) };
    // SAFETY: the caller vouches for LANES lines of LANES elements on both sides.
    unsafe {
        let mut block: [V; simd::SLACK] =
            simd::each(V::splat(Real::ZERO), |i| V::load(from.add(i % V::LANES * cols)));
        for _ in 0..V::LANES.ilog2() {
            let lines = block;
            for i in 0..V::LANES / 2 {
                (block[2 * i], block[2 * i + 1]) = lines[i].interleave(lines[i + V::LANES / 2]);
            }
        }
        for (j, line) in block[..V::LANES].iter().enumerate() {
            line.store(to.add(j * stride));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Level;

    #[test]
    fn add_scaled_adds_all_lengths() {
        for level in Level::available() {
            for n in 0..70 {
                let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
                let mut y = vec![1.0f32; n + 1];
                super::add_scaled(level, &x, 2.0, &mut y);
                assert!(y[..n].iter().zip(&x).all(|(&y, &x)| y == 1.0 + 2.0 * x) && y[n] == 1.0);
            }
        }
    }

    #[test]
    fn shift_within_stays_within() {
        for level in Level::available() {
            for n in 0..70usize {
                let x: Vec<f32> = (0..n).map(|i| i as f32 - 20.0).collect();
                let mut y = vec![1.0f32; n + 1];
                super::shift_within(level, &x, 1.0, 2.0, (0.0, f32::INFINITY), &mut y[..n]);
                assert!(
                    y[..n].iter().zip(&x).all(|(&y, &x)| y == (3.0 + x).max(0.0)) && y[n] == 1.0
                );
                let mut y = vec![2.0f32; n];
                super::shift_within(level, &[], 1.0, -1.5, (0.75, 1.0), &mut y);
                assert!(y.iter().all(|&y| y == 0.75));
                let mut y = vec![f32::NAN; n];
                super::shift_within(level, &x, 1.0, 2.0, (0.0, 1.0), &mut y);
                assert!(y.iter().all(|y| y.is_nan()));
            }
        }
    }

    #[test]
    fn dot_sums_all_lengths() {
        for level in Level::available() {
            for n in 0..70 {
                let x: Vec<f64> = (0..n).map(f64::from).collect();
                let y = vec![2.0; n as usize + 1];
                assert_eq!(
                    super::dot(level, &x, &y),
                    f64::from(n * (n - 1)),
                    "{n} elements, {}",
                    level.name()
                );
            }
        }
    }

    #[test]
    fn rows_are_summed_in_order() {
        for n in [1, 7, 16, 100, 150] {
            for rows in [0, 1, 5] {
                let matrix: Vec<f32> = (0..rows * n).map(|k| (k as f32 * 0.37).sin()).collect();
                for level in Level::available() {
                    let mut found = vec![9.0; n];
                    super::sum_rows(level, &matrix, &mut found);
                    for (j, &found) in found.iter().enumerate() {
                        assert_eq!(found, (0..rows).fold(0.0, |sum, i| sum + matrix[i * n + j]));
                    }
                }
            }
        }
    }

    #[test]
    fn values_go_to_the_levels_beside_them() {
        let values = [1.0f32, 1.2, 1.7, 2.5, 2.99, 3.0, f32::NAN];
        for (u, expected) in [(0.35, [1.0, 1.5, 2.0, 2.5, 3.0]), (0.45, [1.0, 1.0, 1.5, 2.5, 3.0])]
        {
            for level in Level::available() {
                for n in [1, 5, 7, 30] {
                    let mut found: Vec<f32> = values.iter().cycle().take(n).copied().collect();
                    super::round_to_levels(level, &vec![u; n], 0.5, (1.0, 3.0), &mut found);
                    for (k, &found) in found.iter().enumerate() {
                        match values[k % 7] {
                            v if v.is_nan() => assert!(found.is_nan()),
                            3.0 => assert_eq!(found, 3.0),
                            _ => assert_eq!(found, expected[k % 7]),
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn transpose_moves_every_element() {
        for (rows, cols) in [(1, 1), (3, 5), (16, 16), (17, 33), (40, 7)] {
            let source: Vec<f32> = (0..rows * cols).map(|k| k as f32).collect();
            let span = cols / 3..cols;
            for level in Level::available() {
                let mut target = vec![-1.0; span.len() * (rows + 3)];
                super::transpose(level, &source, rows, cols, span.clone(), &mut target, rows + 3);
                for (i, row) in target.chunks_exact(rows + 3).enumerate() {
                    for (r, &found) in row.iter().enumerate() {
                        let expected =
                            if r < rows { source[r * cols + span.start + i] } else { -1.0 };
                        assert_eq!(found, expected);
                    }
                }
            }
        }
    }
}
