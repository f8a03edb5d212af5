//! Potentials of units: the integrals of inverse activation functions, summed over many states.

use crate::level::dispatch;
use crate::simd::{Real, Vector};
use crate::unit::Unit;

/// Terms that are summed side by side, so that compilers make vectors of them.
const LANES: usize = 16;

dispatch! {
    /// The sum of Phi(s) over states of units of one kind, Phi' being the inverse of their
    /// activation function, in an order fixed by the instruction set, and with the rounding errors
    /// of states of this type.
    pub fn potential<T, U: Unit>(level: Level, states: &[T]) -> f64 = potential_body
}

#[inline(always)]
fn potential_body<V: Vector, U: Unit>(states: &[V::Scalar]) -> f64 {
    let mut sums = [V::Scalar::ZERO; LANES];
    let (whole, rest) = states.as_chunks::<LANES>();
    for states in whole {
        for (sum, &s) in sums.iter_mut().zip(states) {
            *sum += U::potential(s);
        }
    }
    let rest = rest.iter().map(|&s| U::potential(s).to_f64()).sum::<f64>();
    sums.iter().map(|sum| sum.to_f64()).sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;
    use crate::unit::{HardSigmoid, Logistic, Tanh, one_plus_ln_one_plus, u_ln_u};

    /// Small states have small rounding errors, though one added to them is rounded.
    #[test]
    fn potentials_of_single_precision_agree_with_those_of_double() {
        for k in 0..=1000 {
            for scale in [1.0, 1e-2, 1e-4, 1e-8] {
                let s = k as f32 * 1e-3 * scale;
                let error = 4.0 * f64::from(f32::EPSILON * s);
                let exact = 0.5
                    * (one_plus_ln_one_plus(f64::from(s)) + one_plus_ln_one_plus(f64::from(-s)));
                for s in [s, -s] {
                    assert!((f64::from(Tanh::potential(s)) - exact).abs() <= error, "{s}");
                }
                let exact = u_ln_u(f64::from(s)) + one_plus_ln_one_plus(f64::from(-s));
                let size = f64::from(s) - 2.0 * exact.min(0.0);
                assert!((f64::from(Logistic::potential(s)) - exact).abs() <= 2e-7 * size, "{s}");
            }
        }
    }

    /// The derivative of Phi is the inverse activation.
    #[test]
    fn potentials_are_integrals_of_inverse_activations() {
        fn check<U: Unit>(low: f64, high: f64, inverse: fn(f64) -> f64) {
            for level in Level::available() {
                for k in 1..60 {
                    let (s, h) = (low + (high - low) * f64::from(k) / 60.0, 1e-5);
                    let at = |s: f64| potential::<f64, U>(level, &[s; 19]) / 19.0;
                    let slope = (at(s + h) - at(s - h)) / (2.0 * h);
                    assert!((slope - inverse(s)).abs() < 1e-7, "{s}: {slope}");
                }
                assert!(potential::<f32, U>(level, &[low as f32, high as f32]).is_finite());
                assert!(potential::<f64, U>(level, &[f64::NAN]).is_nan());
                assert_eq!(potential::<f64, U>(level, &[]), 0.0);
            }
        }
        check::<HardSigmoid>(0.0, 1.0, |s| s);
        check::<Tanh>(-1.0, 1.0, f64::atanh);
        check::<Logistic>(0.0, 1.0, |s| (s / (1.0 - s)).ln());
    }
}
