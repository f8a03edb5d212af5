//! Adjoint states and curvatures of systems that give no more than products with their Hessians and
//! local updates.

use num_complex::Complex;
use pnncore_kernels::Real;
use pnncore_kernels::philox::{Philox, Purpose};

use super::StateDerivatives;
use crate::Result;
use crate::batch::Batch;
use crate::differences::largest;
use crate::krylov::conjugate_gradients;
use crate::params::Params;
use crate::states::{Outcome, States, Status};

/// The residual, as a fraction of the error that is solved for, beyond which an adjoint state was
/// not found.
const FOUND: f64 = 1e-3;

/// d2E/ds2 lambda = error over states that are not frozen, by conjugate gradients to the rounding
/// error. Rows whose adjoint state is not found within so many products count as unconverged.
///
/// Curvatures of saturated units are many orders of magnitude above those of the others: without
/// them as a preconditioner, the conjugate gradients of a network with saturated units stop far
/// from the solution.
pub(super) fn solve<T: Real, S: StateDerivatives<T> + ?Sized>(
    system: &S,
    params: &Params<'_, T>,
    batch: &Batch<'_, T>,
    states: &mut States<T>,
    frozen: &[bool],
    error: &[T],
) -> Result<Vec<T>> {
    let mut curvature = vec![T::ONE; error.len()];
    system.curvature(params, batch, states, &mut curvature)?;
    // Padding has none.
    curvature.iter_mut().filter(|c| **c <= T::ZERO).for_each(|c| *c = T::ONE);
    let limit = 4 * states.layout().sizes().iter().sum::<usize>().max(25);
    let shared = &*states;
    let multiply = |v: &[T], product: &mut [T]| {
        system.hessian_product(params, batch, shared, v, product)?;
        product
            .iter_mut()
            .zip(frozen)
            .filter(|(_, frozen)| **frozen)
            .for_each(|(p, _)| *p = T::ZERO);
        Ok(())
    };
    let stride = states.stride();
    let adjoint =
        conjugate_gradients(multiply, &curvature, error, stride, 4.0 * T::EPSILON.to_f64(), limit)?;
    let mut product = vec![T::ZERO; error.len()];
    multiply(&adjoint, &mut product)?;
    for (r, outcome) in states.outcomes.iter_mut().enumerate() {
        let square = |value: &dyn Fn(usize) -> f64| -> f64 {
            (r * stride..(r + 1) * stride).map(|k| value(k).powi(2) / curvature[k].to_f64()).sum()
        };
        let left = square(&|k| error[k].to_f64() - product[k].to_f64());
        if outcome.status == Status::Converged
            && left > FOUND.powi(2) * square(&|k| error[k].to_f64())
        {
            outcome.status = Status::Unconverged;
        }
    }
    Ok(adjoint)
}

/// Three phases per sample: the free state, and the states a step along the adjoint to either side.
/// With weights such that their contrast is minus the derivative along the adjoint.
pub(super) fn displaced<T: Real>(
    states: &States<T>,
    adjoint: &[T],
    step: f64,
) -> (States<T>, Vec<Complex<f64>>) {
    let stride = states.stride();
    let size = largest(adjoint);
    let step = if size > 0.0 { step / size } else { 1.0 };
    let mut probe = States::new(states.layout().clone());
    probe.reset(states.samples(), 3, false);
    for i in 0..states.samples() {
        for (p, sign) in [0.0, 1.0, -1.0].into_iter().enumerate() {
            let r = 3 * i + p;
            let factor = T::from_f64(sign * step);
            let direction = &adjoint[i * stride..(i + 1) * stride];
            for ((m, &s), &d) in probe.row_mut(r).iter_mut().zip(states.row(i)).zip(direction) {
                *m = s + factor * d;
            }
            // Only the free phase was settled.
            let outcome = states.outcomes[i];
            probe.outcomes[r] = if p == 0 { outcome } else { Outcome { sweeps: 0, ..outcome } };
        }
    }
    let weight = Complex::new(0.5 / step, 0.0);
    (probe, vec![Complex::ZERO, -weight, weight])
}

/// Power iterations of [`largest_curvature`], and the margin put on what they find.
const POWER_ITERATIONS: usize = 20;
const MARGIN: f64 = 1.2;

/// The largest curvature of each row by power iteration, for all units of the row.
pub(super) fn largest_curvature<T: Real, S: StateDerivatives<T> + ?Sized>(
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
