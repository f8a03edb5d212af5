//! Adjoint states of systems that give no more than products with their Hessians and local updates.

use num_complex::Complex;
use pnncore_kernels::Real;

use crate::Result;
use crate::batch::Batch;
use crate::differences::largest;
use crate::krylov::conjugate_gradients;
use crate::params::Params;
use crate::states::{Outcome, States};
use crate::system::StateDerivatives;

/// d2E/ds2 lambda = error over states that are not frozen, by conjugate gradients to the rounding error.
pub(crate) fn solve<T: Real, S: StateDerivatives<T> + ?Sized>(
    system: &S,
    params: &Params<'_, T>,
    batch: &Batch<'_, T>,
    states: &States<T>,
    frozen: &[bool],
    error: &[T],
) -> Result<Vec<T>> {
    let limit = 4 * states.layout().sizes().iter().sum::<usize>().max(25);
    let multiply = |v: &[T], product: &mut [T]| {
        system.hessian_product(params, batch, states, v, product)?;
        product.iter_mut().zip(frozen).filter(|(_, frozen)| **frozen).for_each(|(p, _)| *p = T::ZERO);
        Ok(())
    };
    conjugate_gradients(multiply, error, states.stride(), 4.0 * T::EPSILON.to_f64(), limit)
}

/// Three phases per sample: the free state, and the states a step along the adjoint to either side. With weights such
/// that their contrast is minus the derivative along the adjoint.
pub(crate) fn displaced<T: Real>(states: &States<T>, adjoint: &[T], step: f64) -> (States<T>, Vec<Complex<f64>>) {
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
