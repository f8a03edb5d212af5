//! Steady states under a complex nudge: dE/ds + beta dC/ds = 0, by the chord method.
//!
//! Each step solves H ds = -(dE/ds + beta dC/ds) with the real Hessian H of the free state, which
//! is positive, for real and imaginary parts apart. What it leaves shrinks by about |beta| times
//! the response of the outputs per step: it converges where the steady state is an analytic
//! function of beta, that is where holomorphic equilibrium propagation holds (Laborieux and Zenke,
//! NeurIPS 2022).

use num_complex::Complex;
use pnncore_kernels::Real;
use pnncore_kernels::watch::poll;

use super::Landscape;
use crate::Result;
use crate::batch::Batch;
use crate::differences::{hessian_product, size_of_states};
use crate::krylov::conjugate_gradients;
use crate::plan::{Boundary, PhasePlan};
use crate::states::{Outcome, States, Status};

/// The part of a step's right-hand side that may be left: the next step takes it up.
const LINEAR_TOLERANCE: f64 = 1e-3;

/// Settles `rows` of complex states, which hold their free states.
pub(super) fn settle<T: Real>(
    landscape: &dyn Landscape<T>,
    batch: &Batch<'_, T>,
    plan: &PhasePlan,
    states: &mut States<T>,
    rows: &mut Vec<usize>,
) -> Result<()> {
    let (phases, half, stride) = (states.phases(), states.layout().stride(), states.stride());
    let free = real_parts(states);
    let size = size_of_states(&free.values, landscape.scales().0);
    let multiply = |v: &[T], product: &mut [T]| {
        hessian_product(
            |states, found| landscape.state_gradient(states, found),
            &free,
            size,
            v,
            product,
        )
    };
    let limit = 2 * states.layout().sizes().iter().sum::<usize>();
    let mut force = vec![T::ZERO; states.values.len()];
    for &r in &*rows {
        states.outcomes[r] = Outcome::default();
    }
    while !rows.is_empty() {
        poll(64 * rows.len() * states.stride());
        landscape.complex_gradient(states, &mut force)?;
        for &r in &*rows {
            add_pull(batch, plan, states, r, &mut force);
        }
        let mut steps = [vec![T::ZERO; states.rows() * half], vec![T::ZERO; states.rows() * half]];
        for (part, step) in steps.iter_mut().enumerate() {
            for &r in &*rows {
                step[r * half..(r + 1) * half]
                    .copy_from_slice(&force[r * stride + part * half..][..half]);
            }
            *step = conjugate_gradients(multiply, &[], step, half, LINEAR_TOLERANCE, limit)?;
        }
        rows.retain(|&r| {
            let moved = go(states, r, &steps, free.row(r));
            let outcome = &mut states.outcomes[r];
            outcome.sweep(moved.change);
            outcome.magnitude = size;
            let boundary = plan.boundary(r % phases);
            let status = plan.verdict::<T>(boundary, outcome, 1.0, || Some(moved.displacement));
            let Some(status) = status else { return true };
            outcome.status = status;
            if status == Status::Diverged {
                states.values[r * stride..(r + 1) * stride].fill(T::ZERO);
            }
            false
        });
    }
    Ok(())
}

/// What a step did to a row.
struct Moved {
    /// The largest change of a real or imaginary part.
    change: f64,
    /// The largest distance from the free state.
    displacement: f64,
}

/// Makes a step of row `r`: real parts, then imaginary parts.
fn go<T: Real>(states: &mut States<T>, r: usize, steps: &[Vec<T>; 2], free: &[T]) -> Moved {
    let (half, stride) = (states.layout().stride(), states.stride());
    let row = &mut states.values[r * stride..(r + 1) * stride];
    let mut change = T::ZERO;
    for (part, step) in steps.iter().enumerate() {
        for (s, &d) in row[part * half..].iter_mut().zip(&step[r * half..(r + 1) * half]) {
            *s -= d;
            change = change.max_magnitude(d);
        }
    }
    let (real, imaginary) = row.split_at(half);
    let moved = real.iter().zip(free).fold(T::ZERO, |m, (&s, &f)| m.max_magnitude(s - f));
    let displacement = imaginary.iter().fold(moved, |m, &s| m.max_magnitude(s));
    Moved { change: change.to_f64(), displacement: displacement.to_f64() }
}

/// The free state of every sample in all of its rows, as real states.
fn real_parts<T: Real>(states: &States<T>) -> States<T> {
    let mut real = States::new(states.layout().clone());
    real.reset(states.samples(), states.phases(), false);
    for r in 0..states.rows() {
        real.row_mut(r).copy_from_slice(states.row(r - r % states.phases()));
    }
    real
}

/// Adds beta dC/ds of row `r` to its force.
fn add_pull<T: Real>(
    batch: &Batch<'_, T>,
    plan: &PhasePlan,
    states: &States<T>,
    r: usize,
    force: &mut [T],
) {
    let Boundary::Nudged(beta) = plan.boundary(r % states.phases()) else { return };
    let outputs = states.layout().outputs();
    let mut target = vec![T::ZERO; outputs.len()];
    batch.y.write(r / states.phases(), &mut target);
    let output = (states.outputs(r), &states.imaginary_row(r)[outputs.clone()]);
    let at = r * states.stride() + outputs.start;
    for (k, pull) in plan.loss.gradient_complex(output, &target).into_iter().enumerate() {
        let pull: Complex<f64> = beta * pull;
        force[at + k] += T::from_f64(pull.re);
        force[at + states.layout().stride() + k] += T::from_f64(pull.im);
    }
}
