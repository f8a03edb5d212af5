//! Adjoint states of systems that give no more than products with their Hessians and local updates.

use num_complex::Complex;
use pnncore_kernels::Real;

use crate::Result;
use crate::batch::Batch;
use crate::differences::largest;
use crate::krylov::conjugate_gradients;
use crate::params::Params;
use crate::system::Exact;
use crate::trial::{Outcome, Trial};

/// d2E/ds2 lambda = error over states that are not frozen, by conjugate gradients to the rounding error.
pub(crate) fn solve<T: Real, S: Exact<T> + ?Sized>(
    system: &S,
    params: &Params<'_, T>,
    batch: &Batch<'_, T>,
    trial: &Trial<T>,
    frozen: &[bool],
    error: &[T],
) -> Result<Vec<T>> {
    let limit = 4 * trial.layout().sizes().iter().sum::<usize>().max(25);
    let multiply = |v: &[T], product: &mut [T]| {
        system.hessian_product(params, batch, trial, v, product)?;
        product.iter_mut().zip(frozen).filter(|(_, frozen)| **frozen).for_each(|(p, _)| *p = T::ZERO);
        Ok(())
    };
    conjugate_gradients(multiply, error, trial.stride(), 4.0 * T::EPSILON.to_f64(), limit)
}

/// Three phases per sample: the free state, and the states a step along the adjoint to either side. With weights such
/// that their contrast is minus the derivative along the adjoint.
pub(crate) fn displaced<T: Real>(trial: &Trial<T>, adjoint: &[T], step: f64) -> (Trial<T>, Vec<Complex<f64>>) {
    let stride = trial.stride();
    let size = largest(adjoint);
    let step = if size > 0.0 { step / size } else { 1.0 };
    let mut probe = Trial::new(trial.layout().clone());
    probe.reset(trial.samples(), 3, false);
    for i in 0..trial.samples() {
        for (p, sign) in [0.0, 1.0, -1.0].into_iter().enumerate() {
            let r = 3 * i + p;
            let factor = T::from_f64(sign * step);
            let direction = &adjoint[i * stride..(i + 1) * stride];
            for ((m, &s), &d) in probe.row_mut(r).iter_mut().zip(trial.row(i)).zip(direction) {
                *m = s + factor * d;
            }
            // Only the free phase was settled.
            let outcome = trial.outcomes[i];
            probe.outcomes[r] = if p == 0 { outcome } else { Outcome { sweeps: 0, ..outcome } };
        }
    }
    let weight = Complex::new(0.5 / step, 0.0);
    (probe, vec![Complex::ZERO, -weight, weight])
}
