//! Derivatives by differences, for systems that do not give them in closed form.

use pnncore_kernels::Real;
use pnncore_kernels::philox::{Philox, Purpose};

use crate::Result;
use crate::batch::Batch;
use crate::params::Params;
use crate::states::States;
use crate::system::StateDerivatives;

/// The largest magnitude of a slice.
pub(crate) fn largest<T: Real>(values: &[T]) -> f64 {
    values.iter().fold(T::ZERO, |m, &v| m.max_magnitude(v)).to_f64()
}

/// The size of states that differences are taken in proportion to: the largest state, or what the system says of their
/// scale; one where nothing is known. Results must not depend on units.
pub(crate) fn size_of_states<T: Real>(states: &[T], scale: f64) -> f64 {
    /// States that are smaller are what rounding errors left of zero.
    const LEAST: f64 = 1e-15;
    let size = largest(states).max(scale);
    if size > LEAST { size } else { 1.0 }
}

/// d2E/ds2 v by central differences of dE/ds, each row with a step that moves states by the cube root of the rounding
/// error, in proportion to `size`.
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
            for ((m, &s), &v) in moved.row_mut(r).iter_mut().zip(states.row(r)).zip(&v[r * stride..]) {
                *m = s + step * v;
            }
        }
        gradient(&moved, found)?;
    }
    for (r, (up, down)) in product.chunks_exact_mut(stride).zip(other.chunks_exact(stride)).enumerate() {
        let scale = if steps[r] > 0.0 { T::from_f64(0.5 / steps[r]) } else { T::ZERO };
        for (u, &d) in up.iter_mut().zip(down) {
            *u = (*u - d) * scale;
        }
    }
    Ok(())
}

/// Power iterations of [`curvature`], and the margin put on what they find.
const POWER_ITERATIONS: usize = 20;
const MARGIN: f64 = 1.2;

/// The largest curvature of each row by power iteration, for all units of the row.
pub(crate) fn curvature<T: Real, S: StateDerivatives<T> + ?Sized>(
    system: &S,
    params: &Params<'_, T>,
    batch: &Batch<'_, T>,
    states: &States<T>,
    curvature: &mut [T],
) -> Result<()> {
    let stride = states.stride();
    let random = Philox::new(0, Purpose::Probe);
    let layers = 0..states.layout().sizes().len();
    let mut v = vec![T::ZERO; curvature.len()];
    for (r, row) in v.chunks_exact_mut(stride).enumerate() {
        for k in layers.clone().flat_map(|l| states.layout().layer(l)) {
            row[k] = T::from_f64(random.normal(k as u64, r as u32));
        }
    }
    let mut product = vec![T::ZERO; v.len()];
    for _ in 0..POWER_ITERATIONS {
        system.hessian_product(params, batch, states, &v, &mut product)?;
        let rows = v.chunks_exact_mut(stride).zip(product.chunks_exact(stride));
        for ((v, product), curvature) in rows.zip(curvature.chunks_exact_mut(stride)) {
            let norm = |x: &[T]| x.iter().map(|x| x.to_f64() * x.to_f64()).sum::<f64>().sqrt();
            let (length, size) = (norm(product), norm(v));
            if length > 0.0 && size > 0.0 {
                let scale = T::from_f64(1.0 / length);
                v.iter_mut().zip(product).for_each(|(v, &p)| *v = p * scale);
                curvature.fill(T::from_f64(MARGIN * length / size));
            } else {
                curvature.fill(T::ONE);
            }
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
