//! Derivatives by differences, for systems that do not give them in closed form.

use pnncore_kernels::Real;

use crate::Result;
use crate::states::States;

/// The largest magnitude of a slice.
pub(crate) fn largest<T: Real>(values: &[T]) -> f64 {
    values.iter().fold(T::ZERO, |m, &v| m.max_magnitude(v)).to_f64()
}

/// The size of states that differences are taken in proportion to: the largest state, or what the
/// system says of their scale; one where nothing is known. Results must not depend on units.
pub(crate) fn size_of_states<T: Real>(states: &[T], scale: f64) -> f64 {
    /// States that are smaller are what rounding errors left of zero.
    const LEAST: f64 = 1e-15;
    let size = largest(states).max(scale);
    if size > LEAST { size } else { 1.0 }
}

/// d2E/ds2 v by central differences of dE/ds, each row with a step that moves states by the cube
/// root of the rounding error, in proportion to `size`.
pub(crate) fn hessian_product<T: Real>(
    gradient: impl Fn(&States<T>, &mut [T]) -> Result<()>,
    states: &States<T>,
    size: f64,
    v: &[T],
    product: &mut [T],
) -> Result<()> {
    let stride = states.stride();
    let step = |v: &[T]| {
        let length = largest(v);
        if length > 0.0 { T::EPSILON.to_f64().cbrt() * size / length } else { 0.0 }
    };
    let steps: Vec<f64> = v.chunks_exact(stride).map(step).collect();
    let mut moved = states.clone();
    let mut other = vec![T::ZERO; v.len()];
    for (sign, found) in [(1.0, &mut *product), (-1.0, &mut other[..])] {
        for (r, step) in steps.iter().enumerate() {
            let step = T::from_f64(sign * step);
            for ((m, &s), &v) in
                moved.row_mut(r).iter_mut().zip(states.row(r)).zip(&v[r * stride..])
            {
                *m = s + step * v;
            }
        }
        gradient(&moved, found)?;
    }
    for (r, (up, down)) in
        product.chunks_exact_mut(stride).zip(other.chunks_exact(stride)).enumerate()
    {
        let scale = if steps[r] > 0.0 { T::from_f64(0.5 / steps[r]) } else { T::ZERO };
        for (u, &d) in up.iter_mut().zip(down) {
            *u = (*u - d) * scale;
        }
    }
    Ok(())
}

/// `s`, or the end of the interval that it is beyond. NaN passes.
pub(crate) fn within<T: Real>(s: T, lo: f64, hi: f64) -> T {
    let (lo, hi) = (T::from_f64(lo), T::from_f64(hi));
    if s < lo {
        lo
    } else if s > hi {
        hi
    } else {
        s
    }
}
