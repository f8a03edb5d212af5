//! Numbers of rows that are read together.

/// Rows that are read together.
pub(super) const TOGETHER: usize = 64;

/// A number for each of the rows that are read together; zero where there are fewer.
pub(super) type Lanes = [f64; TOGETHER];

/// The sum of products, in eight sums side by side.
pub(super) fn dot(a: &Lanes, b: &Lanes) -> f64 {
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum()
}
