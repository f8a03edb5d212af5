//! Converters: what digital-to-analog and analog-to-digital converters make of numbers.
//!
//! A number in, a number out: the floor is the bandwidth of the cache that they lie in. Loops are
//! plain, and become vectors where they are compiled for an instruction set.

use crate::level::dispatch;
use crate::simd::{Real, Vector};

/// The levels of a converter: multiples of a step, between two ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Levels<T> {
    /// Steps per unit, and units per step: 1 / step and step, or both zero where nothing is
    /// rounded.
    pub per_unit: T,
    /// See `per_unit`.
    pub step: T,
    /// What is beyond plus or minus this is cut; infinite: nothing is.
    pub bound: T,
}

dispatch! {
    /// Rounds every value to a level, and cuts it at the ends: to the nearest level (halves to
    /// even), or at random to one of the two next to it by the numbers of `uniform`, where there
    /// are any. NaN stays NaN.
    ///
    /// # Panics
    /// If there are numbers, but fewer than values.
    pub fn convert<T>(
        level: Level, levels: Levels<T>, uniform: &[T], values: &mut [T],
    ) = convert_body
}

#[inline(always)]
fn convert_body<V: Vector>(
    levels: Levels<V::Scalar>,
    uniform: &[V::Scalar],
    values: &mut [V::Scalar],
) {
    let Levels { per_unit, step, bound } = levels;
    if per_unit > Real::ZERO {
        // Adding and taking away what leaves no bits below one rounds.
        let shift = V::Scalar::from_f64(1.5 / V::Scalar::EPSILON.to_f64());
        if uniform.is_empty() {
            for v in &mut *values {
                *v = (*v * per_unit + shift - shift) * step;
            }
        } else {
            let (uniform, half) = (&uniform[..values.len()], V::Scalar::from_f64(0.5));
            for (v, &u) in values.iter_mut().zip(uniform) {
                *v = ((*v * per_unit + (u - half)) + shift - shift) * step;
            }
        }
    }
    for v in values {
        *v = v.within(-bound, bound);
    }
}

dispatch! {
    /// The largest magnitude; NaN if there is one.
    pub fn largest<T>(level: Level, values: &[T]) -> T = largest_body
}

#[inline(always)]
fn largest_body<V: Vector>(values: &[V::Scalar]) -> V::Scalar {
    let whole = values.len() - values.len() % V::LANES;
    // SAFETY: whole vectors and the rest are there; `dispatch!` vouches for the instruction set.
    unsafe {
        let mut most = V::splat(Real::ZERO);
        for j in (0..whole).step_by(V::LANES) {
            most = most.max_magnitude(V::load(values.as_ptr().add(j)));
        }
        most.max_magnitude(V::load_first(values.as_ptr().add(whole), values.len() - whole))
            .largest()
    }
}

dispatch! {
    /// Writes values divided by a number.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn divide<T>(level: Level, values: &[T], by: T, out: &mut [T]) = divide_body
}

#[inline(always)]
fn divide_body<V: Vector>(values: &[V::Scalar], by: V::Scalar, out: &mut [V::Scalar]) {
    assert!(values.len() == out.len());
    for (out, &v) in out.iter_mut().zip(values) {
        *out = v / by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn all_instruction_sets_do_the_same(
            values in proptest::collection::vec(-3.0f32..3.0, 0..70), steps in 0u32..300,
            bound in 0.1f32..2.0, by in 0.1f32..9.0,
        ) {
            let step = if steps == 0 { 0.0 } else { 2.0 * bound / steps as f32 };
            let levels = Levels {
                per_unit: if steps == 0 { 0.0 } else { steps as f32 / (2.0 * bound) },
                step,
                bound,
            };
            let uniform: Vec<f32> = (0..values.len()).map(|i| (0.37 * i as f32).fract()).collect();
            for uniform in [&[][..], &uniform] {
                let all: Vec<Vec<f32>> = Level::available()
                    .map(|level| {
                        let mut out = values.clone();
                        convert(level, levels, uniform, &mut out);
                        out
                    })
                    .collect();
                for out in &all {
                    prop_assert_eq!(out, &all[0]);
                    for (&v, &x) in values.iter().zip(out) {
                        let cut = v.clamp(-bound, bound);
                        let most = if uniform.is_empty() { 0.5 } else { 1.0 };
                        prop_assert!(
                            (x - cut).abs() <= most * step * 1.0001 + 1e-6,
                            "{v} became {x}"
                        );
                        prop_assert!(x.abs() <= bound);
                    }
                }
            }
            let most = values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            for level in Level::available() {
                let mut out = vec![0.0; values.len()];
                divide(level, &values, by, &mut out);
                prop_assert!(out.iter().zip(&values).all(|(&out, &v)| out == v / by));
                prop_assert_eq!(largest(level, &values), most);
            }
        }
    }

    #[test]
    fn nan_stays() {
        for level in Level::available() {
            let mut values = [f64::NAN, 5.0, -5.0];
            convert(level, Levels { per_unit: 4.0, step: 0.25, bound: 1.0 }, &[], &mut values);
            assert!(values[0].is_nan() && values[1..] == [1.0, -1.0]);
            assert!(largest(level, &[1.0, f64::NAN]).is_nan());
        }
    }
}
