//! Potentials of units: the integrals of inverse activation functions, summed over many states.

use crate::level::dispatch;
use crate::simd::{Real, Vector};
use crate::unit::Unit;

/// Terms that are summed side by side, so that compilers make vectors of them.
const LANES: usize = 16;

dispatch! {
    /// The sum of Phi(s) over states of units of one kind, Phi' being the inverse of their activation function, in an order
    /// fixed by the instruction set.
    pub fn potential<T, U: Unit>(level: Level, states: &[T]) -> f64 = potential_body
}

#[inline(always)]
fn potential_body<V: Vector, U: Unit>(states: &[V::Scalar]) -> f64 {
    let mut sums = [0.0; LANES];
    let (whole, rest) = states.as_chunks::<LANES>();
    for states in whole {
        for (sum, s) in sums.iter_mut().zip(states) {
            *sum += U::potential(s.to_f64());
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|s| U::potential(s.to_f64())).sum::<f64>()
}

/// u ln u for u >= 0, to a few units in the last place: zero at zero. Without branches.
#[inline(always)]
pub(crate) fn u_ln_u(u: f64) -> f64 {
    /// The bits of the square root of one half: mantissas lie between it and its double.
    const LOW: u64 = 0x3FE6_A09E_667F_3BCD;
    const EXPONENT: u64 = 0x7FF0_0000_0000_0000;
    let one = 1f64.to_bits();
    let bits = u.to_bits().wrapping_add(one - LOW);
    // The exponent as a float: its bits make the low end of the mantissa of 2^52.
    let shift = 4_503_599_627_370_496.0;
    let exponent = f64::from_bits((bits >> 52) | f64::to_bits(shift)) - (shift + 1023.0);
    let m = f64::from_bits((bits & !EXPONENT).wrapping_add(LOW));
    // ln m = 2 artanh t, |t| <= 0.172: the series ends below the rounding error.
    let t = (m - 1.0) / (m + 1.0);
    let square = t * t;
    let mut sum = 1.0 / 21.0;
    for k in (0..10).rev() {
        sum = sum * square + 1.0 / f64::from(2 * k + 1);
    }
    let ln = exponent * std::f64::consts::LN_2 + 2.0 * t * sum;
    // Zero has the smallest exponent: its logarithm is finite here, and the product zero.
    u * ln
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;
    use crate::unit::{HardSigmoid, Logistic, Tanh};

    #[test]
    fn u_ln_u_agrees_with_the_standard_library() {
        for k in -4000..4000 {
            let u = (f64::from(k) * 0.01).exp();
            let expected = u * u.ln();
            assert!((u_ln_u(u) - expected).abs() <= 4e-16 * (u + expected.abs()), "{u}: {}", u_ln_u(u));
        }
        assert_eq!(u_ln_u(0.0), 0.0);
        assert_eq!(u_ln_u(1.0), 0.0);
        assert!(u_ln_u(f64::NAN).is_nan());
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
