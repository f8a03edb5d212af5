//! Sines and cosines of vectors.

use crate::level::dispatch;
use crate::simd::{Real, Vector};

dispatch! {
    /// Writes the sines and cosines of `x`, to about two units in the last place of one. What is
    /// not finite gives NaN.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn sin_cos<T>(level: Level, x: &[T], sin: &mut [T], cos: &mut [T]) = sin_cos_body
}

#[inline(always)]
fn sin_cos_body<V: Vector>(x: &[V::Scalar], sin: &mut [V::Scalar], cos: &mut [V::Scalar]) {
    assert!(x.len() == sin.len() && x.len() == cos.len(), "lengths differ");
    turn_all::<V>(x, sin, cos);
    // Multiples of pi are too coarse from here on.
    let far = |x: V::Scalar| x.to_f64().abs() > FARTHEST;
    if x.chunks(64).any(|chunk| chunk.iter().fold(false, |any, &x| any | far(x))) {
        for (&x, (sin, cos)) in x.iter().zip(sin.iter_mut().zip(cos)).filter(|(x, _)| far(**x)) {
            let (s, c) = x.to_f64().sin_cos();
            (*sin, *cos) = (Real::from_f64(s), Real::from_f64(c));
        }
    }
}

/// The largest argument from which multiples of pi are subtracted: farther off, the library's
/// functions answer.
const FARTHEST: f64 = 8192.0;

#[inline(always)]
fn turn_all<V: Vector>(x: &[V::Scalar], sin: &mut [V::Scalar], cos: &mut [V::Scalar]) {
    let (n, whole) = (x.len(), x.len() - x.len() % V::LANES);
    let (x, sin, cos) = (x.as_ptr(), sin.as_mut_ptr(), cos.as_mut_ptr());
    // SAFETY: whole vectors below `n`, the rest by its length; `dispatch!` vouches for the
    // instruction set.
    unsafe {
        for j in (0..whole).step_by(V::LANES) {
            let (s, c) = turn(V::load(x.add(j)));
            s.store(sin.add(j));
            c.store(cos.add(j));
        }
        let (s, c) = turn(V::load_first(x.add(whole), n - whole));
        s.store_first(sin.add(whole), n - whole);
        c.store_first(cos.add(whole), n - whole);
    }
}

/// Sine and cosine: x = k pi + r with |r| <= pi / 2, and the sign that k is even or odd by. Pi is
/// subtracted in three parts.
#[inline(always)]
pub(crate) unsafe fn turn<V: Vector>(x: V) -> (V, V) {
    let double = size_of::<V::Scalar>() == 8;
    // The first two parts have trailing zeros, so that their products with k are exact without
    // fused operations, too.
    let (parts, terms) = if double {
        ([3.141_592_651_605_606, 1.984_187_158_327_044_3e-9, 1.034_036_596_358_821e-18], 11)
    } else {
        ([3.140_625, 9.675_025_939_941_406e-4, 1.509_957_990_978_376_5e-7], 7)
    };
    // SAFETY: the caller vouches for the instruction set, here and below.
    let constant = |c: f64| unsafe { V::splat(Real::from_f64(c)) };
    // SAFETY: as above.
    unsafe {
        let k = x.mul(constant(std::f64::consts::FRAC_1_PI)).round();
        let r = parts.iter().fold(x, |r, &part| k.mul_add(constant(-part), r));
        // Half of k is off an integer by one half where k is odd.
        let half = k.mul(constant(0.5));
        let off = half.sub(half.round());
        let sign = off.mul(off).mul_add(constant(-8.0), constant(1.0));
        let square = r.mul(r);
        let (mut odd, mut even) = (constant(SINE[terms - 1]), constant(COSINE[terms]));
        for i in (0..terms - 1).rev() {
            odd = odd.mul_add(square, constant(SINE[i]));
        }
        for i in (0..terms).rev() {
            even = even.mul_add(square, constant(COSINE[i]));
        }
        (odd.mul(r).mul(sign), even.mul(sign))
    }
}

/// Taylor coefficients (-1)^i / (2 i + `first`)!.
const fn taylor(first: u32) -> [f64; 12] {
    let mut table = [1.0; 12];
    let mut i = 1;
    while i < 12 {
        let n = (2 * i as u32 + first) as f64;
        table[i] = -table[i - 1] / (n * (n - 1.0));
        i += 1;
    }
    table
}
const SINE: [f64; 12] = taylor(1);
const COSINE: [f64; 12] = taylor(0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    fn check<T: Real>(tolerance: f64) {
        let inputs: Vec<f64> =
            (-5000..=5000).map(|i| f64::from(i) * 0.217).chain([0.0, 1e-30]).collect();
        for level in Level::available() {
            let x: Vec<T> = inputs.iter().map(|&x| T::from_f64(x)).collect();
            let (mut sin, mut cos) = (vec![T::ZERO; x.len()], vec![T::ZERO; x.len()]);
            sin_cos(level, &x, &mut sin, &mut cos);
            for ((x, s), c) in x.iter().zip(&sin).zip(&cos) {
                let x = x.to_f64();
                assert!((s.to_f64() - x.sin()).abs() < tolerance, "{} sin {x}: {s}", level.name());
                assert!((c.to_f64() - x.cos()).abs() < tolerance, "{} cos {x}: {c}", level.name());
            }
            let (mut sin, mut cos) = ([T::ZERO; 3], [T::ZERO; 3]);
            sin_cos(level, &[T::from_f64(f64::NAN); 3], &mut sin, &mut cos);
            assert!(sin.iter().chain(&cos).all(|v| !v.is_finite()), "NaN must survive");
        }
    }

    /// However far off: a field of light stays one of power one.
    #[test]
    fn large_arguments_are_no_larger_in_error() {
        for level in Level::available() {
            let x: Vec<f32> = (0..200).map(|k| 1e3f32 * 1.3f32.powi(k)).collect();
            let wide: Vec<f64> = (0..200).map(|k| -1e3 * 2.3f64.powi(k)).collect();
            let (mut sin, mut cos) = (vec![0.0f32; x.len()], vec![0.0f32; x.len()]);
            sin_cos(level, &x, &mut sin, &mut cos);
            for ((&x, &s), &c) in x.iter().zip(&sin).zip(&cos).filter(|((x, _), _)| x.is_finite()) {
                let (sin, cos) = f64::from(x).sin_cos();
                assert!(
                    (f64::from(s) - sin).abs() < 1e-6 && (f64::from(c) - cos).abs() < 1e-6,
                    "{x}"
                );
            }
            let (mut sin, mut cos) = (vec![0.0; wide.len()], vec![0.0; wide.len()]);
            sin_cos(level, &wide, &mut sin, &mut cos);
            assert!(sin.iter().zip(&cos).all(|(s, c)| (s * s + c * c - 1.0).abs() < 1e-12));
        }
    }

    #[test]
    fn they_agree_with_the_standard_library() {
        check::<f64>(4e-16);
        check::<f32>(2.5e-7);
    }
}
