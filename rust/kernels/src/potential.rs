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

/// A logarithm of numbers that are not negative, to a few units in the last place, finite at zero.
/// Without branches.
///
/// u is m 2^n, with m between the square root of one half and its double, and ln m is 2 artanh t
/// with t = (m - 1) / (m + 1),
/// |t| <= 0.172: as many terms of its series as end below the rounding error.
macro_rules! finite_ln {
    ($name:ident, $T:ident, $terms:literal, low: $low:literal) => {
        #[inline(always)]
        pub(crate) fn $name(u: $T) -> $T {
            const MANTISSA: u32 = $T::MANTISSA_DIGITS - 1;
            const BIAS: $T = ($T::MAX_EXP - 1) as $T;
            let one = (1.0 as $T).to_bits();
            let bits = u.to_bits().wrapping_add(one - $low);
            // The exponent as a float: its bits make the low end of a mantissa whose last place is
            // one.
            let shift = (1u64 << MANTISSA) as $T;
            let exponent = $T::from_bits((bits >> MANTISSA) | shift.to_bits()) - (shift + BIAS);
            let m = $T::from_bits((bits & !$T::INFINITY.to_bits()).wrapping_add($low));
            let t = (m - 1.0) / (m + 1.0);
            let square = t * t;
            let mut sum = 1.0 / (2 * $terms + 1) as $T;
            for k in (0..$terms).rev() {
                sum = sum * square + 1.0 / (2 * k + 1) as $T;
            }
            exponent * std::$T::consts::LN_2 + 2.0 * t * sum
        }
    };
}
finite_ln!(finite_ln_f32, f32, 4, low: 0x3F35_04F3);
finite_ln!(finite_ln_f64, f64, 10, low: 0x3FE6_A09E_667F_3BCD);

/// u ln u for u >= 0: zero at zero.
#[inline(always)]
pub(crate) fn u_ln_u<T: Real>(u: T) -> T {
    u * u.finite_ln()
}

/// (1 + s) ln (1 + s) for s >= -1, with what is lost of s in the sum.
#[inline(always)]
pub(crate) fn one_plus_ln_one_plus<T: Real>(s: T) -> T {
    let u = T::ONE + s;
    let lost = s - (u - T::ONE);
    let ln = u.finite_ln();
    u * ln + (T::ONE + ln) * lost
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
            assert!(
                (u_ln_u(u) - expected).abs() <= 4e-16 * (u + expected.abs()),
                "{u}: {}",
                u_ln_u(u)
            );
        }
        for k in -800..800 {
            let u = (k as f32 * 0.1).exp();
            let expected = f64::from(u) * f64::from(u).ln();
            assert!(
                (f64::from(u_ln_u(u)) - expected).abs() <= 2e-7 * (f64::from(u) + expected.abs()),
                "{u}"
            );
        }
        assert_eq!((u_ln_u(0.0), u_ln_u(0.0f32)), (0.0, 0.0));
        assert_eq!((u_ln_u(1.0), u_ln_u(1.0f32)), (0.0, 0.0));
        assert!(u_ln_u(f64::NAN).is_nan() && u_ln_u(f32::NAN).is_nan());
    }

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
