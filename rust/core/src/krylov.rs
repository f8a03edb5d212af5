//! Linear systems from products alone.

use pnncore_kernels::Real;
use pnncore_kernels::watch::poll;

use crate::Result;

/// Solves A x = b for symmetric positive A by conjugate gradients with a diagonal preconditioner
/// (Hestenes and Stiefel 1952; empty: none), on rows of `stride` elements each with coefficients of
/// its own, until every residual is `tolerance` of its right-hand side, both in the norm of the
/// inverse preconditioner, or for `limit` products.
pub(crate) fn conjugate_gradients<T: Real>(
    mut multiply: impl FnMut(&[T], &mut [T]) -> Result<()>,
    preconditioner: &[T],
    b: &[T],
    stride: usize,
    tolerance: f64,
    limit: usize,
) -> Result<Vec<T>> {
    let dot =
        |a: &[T], b: &[T]| -> f64 { a.iter().zip(b).map(|(a, b)| a.to_f64() * b.to_f64()).sum() };
    let precondition =
        |k: usize, r: T| if preconditioner.is_empty() { r } else { r / preconditioner[k] };
    let mut x = vec![T::ZERO; b.len()];
    let mut residual = b.to_vec();
    let mut scaled: Vec<T> = b.iter().enumerate().map(|(k, &r)| precondition(k, r)).collect();
    let mut direction = scaled.clone();
    let mut product = vec![T::ZERO; b.len()];
    let pairs = residual.chunks_exact(stride).zip(scaled.chunks_exact(stride));
    let mut squares: Vec<f64> = pairs.map(|(r, z)| dot(r, z)).collect();
    let goal: Vec<f64> = squares.iter().map(|s| s * tolerance.powi(2)).collect();
    for _ in 0..limit {
        poll(8 * b.len());
        if squares.iter().zip(&goal).all(|(s, g)| s <= g) {
            break;
        }
        multiply(&direction, &mut product)?;
        for r in 0..squares.len() {
            if squares[r] <= goal[r] {
                continue;
            }
            let span = r * stride..(r + 1) * stride;
            let curvature = dot(&direction[span.clone()], &product[span.clone()]);
            if curvature <= 0.0 {
                // Not at a minimum, or at the end of precision: what has been found is the best
                // there is.
                squares[r] = 0.0;
                continue;
            }
            let step = T::from_f64(squares[r] / curvature);
            for k in span.clone() {
                x[k] += step * direction[k];
                residual[k] -= step * product[k];
                scaled[k] = precondition(k, residual[k]);
            }
            let square = dot(&residual[span.clone()], &scaled[span.clone()]);
            let keep = T::from_f64(square / squares[r]);
            for k in span {
                direction[k] = scaled[k] + keep * direction[k];
            }
            squares[r] = square;
        }
    }
    Ok(x)
}
