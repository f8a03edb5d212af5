//! Discrete Fourier transforms, by `rustfft`, and convolutions of fields by them.
//!
//! Complex numbers lie with their two parts in turn. A transform is that of the instruction set it
//! is made for, so that the same set gives the same bits.

use std::fmt;
use std::sync::Arc;

use num_complex::Complex64;

pub use crate::fft::{Direction, Plan};
use crate::level::{Isa, Level};
use crate::simd::Real;

/// The discrete Fourier transform of rows of one length.
#[derive(Clone)]
pub struct Transform<T> {
    plan: Arc<dyn Plan<T>>,
    len: usize,
}

impl<T> fmt::Debug for Transform<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transform({})", self.len)
    }
}

impl<T: Real> Transform<T> {
    /// The transform of `len` complex numbers.
    pub fn new(level: Level, len: usize, direction: Direction) -> Self {
        Self { plan: T::plan_transform(level, len, direction), len }
    }

    /// How many numbers of scratch memory [`Transform::process`] takes.
    pub fn scratch(&self) -> usize {
        self.plan.scratch()
    }

    /// Transforms rows of complex numbers, each by itself.
    ///
    /// # Panics
    /// If there are no whole rows, or if there is too little scratch memory.
    pub fn process(&self, rows: &mut [T], scratch: &mut [T]) {
        assert!(rows.len().is_multiple_of(2 * self.len), "rows of {} complex numbers", self.len);
        self.plan.process(rows, &mut scratch[..self.plan.scratch()]);
    }
}

/// The least length of at least so many that is fast: no prime factors but 2 and 3.
pub fn fast_length(least: usize) -> usize {
    let mut best = least.next_power_of_two();
    let mut threes = 3;
    while threes < best {
        let length = threes * least.div_ceil(threes).next_power_of_two();
        best = best.min(length);
        threes *= 3;
    }
    best
}

/// Columns that are transformed together: theirs of a row fill a line of the cache.
const COLUMNS: usize = 8;

/// The linear convolution of fields on a grid with a kernel that is even along both axes: what it
/// makes of a field that is zero everywhere else, on the grid.
///
/// Fields are padded with zeros to more than twice their size, so that nothing wraps around;
/// columns that are all zeros are not transformed, nor what lies outside of the grid afterwards.
#[derive(Debug, Clone)]
pub struct Convolution<T> {
    shape: [usize; 2],
    padded: [usize; 2],
    /// The transform of the kernel over the number of points, column by column: the others mirror
    /// those up to the middle.
    transfer: Vec<T>,
    /// Along columns, and along rows.
    forward: [Transform<T>; 2],
    inverse: [Transform<T>; 2],
}

impl<T: Real> Convolution<T> {
    /// The convolution on a grid of `shape` rows and columns with the kernel (rows, columns), given
    /// at all distances.
    ///
    /// # Panics
    /// If the kernel has another shape.
    pub fn new(level: Level, shape: [usize; 2], kernel: &[Complex64]) -> Self {
        assert_eq!(kernel.len(), shape[0] * shape[1], "a kernel at all distances");
        let padded = Self::padded(shape);
        let plans = |direction| padded.map(|len| Transform::new(level, len, direction));
        let transfer = transfer(shape, padded, kernel);
        let transfer = transfer.into_iter().map(T::from_f64).collect();
        let (forward, inverse) = (plans(Direction::Forward), plans(Direction::Inverse));
        Self { shape, padded, transfer, forward, inverse }
    }

    /// The shape of the padded grid.
    pub fn padded(shape: [usize; 2]) -> [usize; 2] {
        shape.map(|n| fast_length(2 * n - 1))
    }

    /// How many numbers of scratch memory [`Convolution::apply`] takes.
    pub fn scratch(&self) -> usize {
        let [height, width] = self.padded;
        let all = self.forward.iter().chain(&self.inverse);
        let plans = all.map(Transform::scratch).max().unwrap_or(0);
        2 * self.shape[0] * width + 2 * COLUMNS * height + plans
    }

    /// Convolves a field, whose rows `load` writes, with the kernel, or its `conjugate`, and gives
    /// the rows of what that makes to `store`.
    ///
    /// # Panics
    /// If there is too little scratch memory.
    pub fn apply(
        &self,
        level: Level,
        conjugate: bool,
        scratch: &mut [T],
        mut load: impl FnMut(usize, &mut [[T; 2]]),
        mut store: impl FnMut(usize, &[[T; 2]]),
    ) {
        let ([n, m], [height, width]) = (self.shape, self.padded);
        let (grid, scratch) = scratch.split_at_mut(2 * n * width);
        let (columns, scratch) = scratch.split_at_mut(2 * COLUMNS * height);
        for (r, row) in grid.chunks_exact_mut(2 * width).enumerate() {
            let (row, _) = row.as_chunks_mut();
            load(r, &mut row[..m]);
            row[m..].fill([T::ZERO; 2]);
        }
        self.forward[1].process(grid, scratch);
        for first in (0..width).step_by(COLUMNS) {
            let count = COLUMNS.min(width - first);
            let columns = &mut columns[..2 * count * height];
            let place = (first, count, width);
            level.vectorize(|| gather(grid, columns, place, height));
            self.forward[0].process(columns, scratch);
            for (k, column) in columns.chunks_exact_mut(2 * height).enumerate() {
                let at = (first + k).min(width - first - k);
                let transfer = self.transfer[2 * at * height..][..2 * height].as_chunks().0;
                level.vectorize(|| multiply(column.as_chunks_mut().0, transfer, conjugate));
            }
            self.inverse[0].process(columns, scratch);
            level.vectorize(|| scatter(columns, grid, place, height));
        }
        self.inverse[1].process(grid, scratch);
        for (r, row) in grid.chunks_exact(2 * width).enumerate() {
            store(r, &row.as_chunks().0[..m]);
        }
    }
}

/// Copies `count` columns of a grid from `first` on, and pads them with zeros.
#[inline(always)]
fn gather<T: Real>(
    grid: &[T],
    columns: &mut [T],
    (first, count, width): (usize, usize, usize),
    height: usize,
) {
    let (grid, columns) = (grid.as_chunks::<2>().0, columns.as_chunks_mut::<2>().0);
    let n = grid.len() / width;
    for (r, row) in grid.chunks_exact(width).enumerate() {
        for (k, &value) in row[first..first + count].iter().enumerate() {
            columns[k * height + r] = value;
        }
    }
    columns.chunks_exact_mut(height).for_each(|column| column[n..].fill([T::ZERO; 2]));
}

/// Copies what is within the grid back to its columns.
#[inline(always)]
fn scatter<T: Real>(
    columns: &[T],
    grid: &mut [T],
    (first, count, width): (usize, usize, usize),
    height: usize,
) {
    let (grid, columns) = (grid.as_chunks_mut::<2>().0, columns.as_chunks::<2>().0);
    for (r, row) in grid.chunks_exact_mut(width).enumerate() {
        for (k, value) in row[first..first + count].iter_mut().enumerate() {
            *value = columns[k * height + r];
        }
    }
}

/// Multiplies complex numbers by others, or by their conjugates.
#[inline(always)]
pub fn multiply<T: Real>(values: &mut [[T; 2]], factors: &[[T; 2]], conjugate: bool) {
    let sign = if conjugate { -T::ONE } else { T::ONE };
    for ([re, im], &[a, b]) in values.iter_mut().zip(factors) {
        let b = sign * b;
        (*re, *im) = (*re * a - *im * b, *re * b + *im * a);
    }
}

/// The transform of a kernel, up to the middle column, over the number of points.
fn transfer(shape: [usize; 2], padded: [usize; 2], kernel: &[Complex64]) -> Vec<f64> {
    let ([n, m], [height, width]) = (shape, padded);
    // The same at all instruction sets: it is a constant.
    let level = Level(Isa::Portable);
    let [down, across] = padded.map(|len| Transform::<f64>::new(level, len, Direction::Forward));
    let mut scratch = vec![0.0; down.scratch().max(across.scratch())];
    // Column by column, each with its mirror image behind.
    let mut columns = vec![0.0; 2 * m * height];
    for (k, column) in columns.chunks_exact_mut(2 * height).enumerate() {
        for r in 0..n {
            let Complex64 { re, im } = kernel[r * m + k];
            for at in [r, (height - r) % height] {
                column[2 * at..2 * at + 2].copy_from_slice(&[re, im]);
            }
        }
    }
    down.process(&mut columns, &mut scratch);
    let scale = 1.0 / (height * width) as f64;
    let mut found = vec![0.0; 2 * (width / 2 + 1) * height];
    let mut row = vec![0.0; 2 * width];
    for r in 0..height {
        row.fill(0.0);
        for k in 0..m {
            let value = &columns[2 * (k * height + r)..][..2];
            for at in [k, (width - k) % width] {
                row[2 * at..2 * at + 2].copy_from_slice(value);
            }
        }
        across.process(&mut row, &mut scratch);
        for k in 0..=width / 2 {
            for part in 0..2 {
                found[2 * (k * height + r) + part] = scale * row[2 * k + part];
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox::{Philox, Purpose};

    fn numbers<T: Real>(count: usize, group: u32) -> Vec<T> {
        let random = Philox::new(5, Purpose::Noise);
        (0..count as u64).map(|k| T::from_f64(random.normal(k, group))).collect()
    }

    fn complex<T: Real>(values: &[T]) -> Vec<Complex64> {
        let pairs = values.as_chunks::<2>().0.iter();
        pairs.map(|&[re, im]| Complex64::new(re.to_f64(), im.to_f64())).collect()
    }

    fn distance(found: &[Complex64], wanted: &[Complex64]) -> f64 {
        let norm = |values: &mut dyn Iterator<Item = Complex64>| {
            values.map(|value| value.norm_sqr()).sum::<f64>().sqrt()
        };
        norm(&mut found.iter().zip(wanted).map(|(a, b)| a - b)) / norm(&mut wanted.iter().copied())
    }

    fn transforms_are_sums<T: Real>(bound: f64) {
        for level in Level::available() {
            for len in [1, 2, 3, 8, 12, 17, 54, 96] {
                for (direction, sign) in [(Direction::Forward, -1.0), (Direction::Inverse, 1.0)] {
                    let transform = Transform::<T>::new(level, len, direction);
                    let mut rows = numbers::<T>(2 * 3 * len, 0);
                    let given = complex(&rows);
                    transform.process(&mut rows, &mut vec![T::ZERO; transform.scratch()]);
                    let sum = |row: &[Complex64], k: usize| -> Complex64 {
                        let turn = |j: usize| {
                            let share = (j * k % len) as f64 / len as f64;
                            Complex64::cis(sign * std::f64::consts::TAU * share)
                        };
                        row.iter().enumerate().map(|(j, value)| value * turn(j)).sum()
                    };
                    let wanted: Vec<_> = given
                        .chunks_exact(len)
                        .flat_map(|row| (0..len).map(move |k| sum(row, k)))
                        .collect();
                    let off = distance(&complex(&rows), &wanted);
                    assert!(off < bound, "{level:?} {len} {direction:?}: {off}");
                }
            }
        }
    }

    #[test]
    fn transforms_are_sums_over_all_numbers() {
        transforms_are_sums::<f32>(1e-6);
        transforms_are_sums::<f64>(1e-14);
    }

    fn convolutions_are_sums<T: Real>(bound: f64) {
        for level in Level::available() {
            for shape in [[1, 1], [1, 7], [5, 3], [12, 9], [16, 27]] {
                let ([n, m], count) = (shape, shape[0] * shape[1]);
                let kernel = complex(&numbers::<f64>(2 * count, 1));
                let made = Convolution::<T>::new(level, shape, &kernel);
                let field = numbers::<T>(2 * count, 2);
                let given = complex(&field);
                for conjugate in [false, true] {
                    let (mut scratch, mut found) = (vec![T::ONE; made.scratch()], vec![]);
                    made.apply(
                        level,
                        conjugate,
                        &mut scratch,
                        |r, row| row.copy_from_slice(&field.as_chunks().0[r * m..(r + 1) * m]),
                        |_, row| found.extend(complex(row.as_flattened())),
                    );
                    let factor = |at: usize, from: usize| {
                        let (down, across) =
                            ((at / m).abs_diff(from / m), (at % m).abs_diff(from % m));
                        let own = kernel[down * m + across];
                        if conjugate { own.conj() } else { own }
                    };
                    let wanted: Vec<_> = (0..n * m)
                        .map(|at| (0..n * m).map(|from| factor(at, from) * given[from]).sum())
                        .collect();
                    let off = distance(&found, &wanted);
                    assert!(off < bound, "{level:?} {shape:?} {conjugate}: {off}");
                }
            }
        }
    }

    #[test]
    fn convolutions_are_sums_over_all_points() {
        convolutions_are_sums::<f32>(2e-6);
        convolutions_are_sums::<f64>(1e-14);
    }

    #[test]
    fn lengths_that_are_fast_are_near() {
        assert_eq!([1, 2, 5, 55, 399, 513].map(fast_length), [1, 2, 6, 64, 432, 576]);
        for least in 1..2000 {
            let mut rest = fast_length(least);
            assert!(rest >= least && 3 * rest <= 4 * least.max(2) + 3, "{least}: {rest}");
            for factor in [2, 3] {
                while rest.is_multiple_of(factor) {
                    rest /= factor;
                }
            }
            assert_eq!(rest, 1);
        }
    }
}
