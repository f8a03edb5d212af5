//! Activation functions of units, over vectors.

use crate::level::dispatch;
use crate::simd::{Real, Vector};

/// An activation function s = rho(a) of a unit.
pub trait Unit: Copy + Send + Sync + 'static {
    /// Whether states outside (0, 1) are held at its ends: drives at most 0 give exactly 0, drives
    /// at least 1 exactly 1.
    const BOXED: bool = false;

    /// Whether the function takes so long that several vectors should be under way at once.
    const SLOW: bool = false;

    /// Whether units differ: [`Nodes`] then says how.
    const NODES: bool = false;

    /// Applies the function to all lanes, of units with these constants. NaN stays NaN.
    ///
    /// # Safety
    /// Needs the instruction set of `V`.
    unsafe fn apply<V: Vector>(a: V, node: Node<V>) -> V;

    /// Phi at a state of a unit of stiffness one, whose derivative is the inverse of the function:
    /// s^2 / 2 within walls.
    #[inline(always)]
    fn potential<T: Real>(s: T) -> T {
        T::from_f64(0.5) * s * s
    }
}

/// The constants of units that differ from each other: one element per unit, none where they do
/// not.
#[derive(Debug, Clone, Copy)]
pub struct Nodes<'a, T> {
    /// One over the stiffness.
    pub softness: &'a [T],
    /// The smallest state.
    pub lower: &'a [T],
    /// The largest state.
    pub upper: &'a [T],
}

impl<T> Default for Nodes<'_, T> {
    fn default() -> Self {
        Self { softness: &[], lower: &[], upper: &[] }
    }
}

impl<T: Real> Nodes<'_, T> {
    /// Whether they are the constants of `n` units of kind `U`.
    pub(crate) fn fit<U: Unit>(&self, n: usize) -> bool {
        let n = if U::NODES { n } else { 0 };
        self.softness.len() == n && self.lower.len() == n && self.upper.len() == n
    }

    /// The constants of a vector of units from `j` on; zero where `U` has none.
    ///
    /// # Safety
    /// They [`fit`](Self::fit) at least `j + V::LANES` units, and the instruction set of `V` is
    /// there.
    #[inline(always)]
    pub(crate) unsafe fn load<V: Vector<Scalar = T>, U: Unit>(&self, j: usize) -> Node<V> {
        // SAFETY: the caller vouches for the lengths.
        let read = |p: &[T]| unsafe {
            if U::NODES { V::load(p.as_ptr().add(j)) } else { V::splat(Real::ZERO) }
        };
        Node { softness: read(self.softness), lower: read(self.lower), upper: read(self.upper) }
    }

    /// The constants of the `n < V::LANES` units from `j` on; zero past them and where `U` has
    /// none.
    ///
    /// # Safety
    /// They [`fit`](Self::fit) at least `j + n` units, and the instruction set of `V` is there.
    #[inline(always)]
    pub(crate) unsafe fn load_first<V: Vector<Scalar = T>, U: Unit>(
        &self,
        j: usize,
        n: usize,
    ) -> Node<V> {
        let read = |p: &[T]| {
            // SAFETY: the caller vouches for the lengths.
            unsafe {
                if U::NODES { V::load_first(p.as_ptr().add(j), n) } else { V::splat(Real::ZERO) }
            }
        };
        Node { softness: read(self.softness), lower: read(self.lower), upper: read(self.upper) }
    }
}

/// [`Nodes`] of a vector of units.
#[derive(Debug, Clone, Copy)]
pub struct Node<V> {
    softness: V,
    lower: V,
    upper: V,
}

/// The hard sigmoid: the box [0, 1].
#[derive(Debug, Clone, Copy)]
pub struct HardSigmoid;

/// The hyperbolic tangent.
#[derive(Debug, Clone, Copy)]
pub struct Tanh;

/// The logistic function 1 / (1 + exp(-a)).
#[derive(Debug, Clone, Copy)]
pub struct Logistic;

/// A node of its own stiffness between its own walls: a over the stiffness, or the wall that it is
/// beyond.
#[derive(Debug, Clone, Copy)]
pub struct Walled;

// SAFETY of the blocks below: the trait's contract passes on the instruction set.
#[allow(clippy::undocumented_unsafe_blocks, reason = "the trait's contract, for all of them")]
pub(crate) mod apply {
    use super::*;

    impl Unit for HardSigmoid {
        const BOXED: bool = true;

        #[inline(always)]
        unsafe fn apply<V: Vector>(a: V, _: Node<V>) -> V {
            unsafe { V::splat(Real::ONE).min(V::splat(Real::ZERO).max(a)) }
        }
    }

    impl Unit for Tanh {
        const SLOW: bool = true;

        #[inline(always)]
        unsafe fn apply<V: Vector>(a: V, _: Node<V>) -> V {
            unsafe {
                // e / (e + 2) with e = exp(2 a) - 1: small drives keep their digits.
                let e = exp_m1(a.add(a));
                let one = V::splat(Real::ONE);
                e.div(e.add(one.add(one)))
            }
        }

        #[inline(always)]
        fn potential<T: Real>(s: T) -> T {
            T::from_f64(0.5) * (one_plus_ln_one_plus(s) + one_plus_ln_one_plus(-s))
        }
    }

    impl Unit for Logistic {
        const SLOW: bool = true;

        #[inline(always)]
        unsafe fn apply<V: Vector>(a: V, _: Node<V>) -> V {
            unsafe {
                let one = V::splat(Real::ONE);
                one.div(one.add(exp(V::splat(Real::ZERO).sub(a))))
            }
        }

        #[inline(always)]
        fn potential<T: Real>(s: T) -> T {
            u_ln_u(s) + one_plus_ln_one_plus(-s)
        }
    }

    impl Unit for Walled {
        const NODES: bool = true;

        #[inline(always)]
        unsafe fn apply<V: Vector>(a: V, node: Node<V>) -> V {
            unsafe { node.upper.min(node.lower.max(a.mul(node.softness))) }
        }
    }

    /// The exponential, to about one unit in the last place, of arguments clamped to where it is a
    /// normal number.
    #[inline(always)]
    pub(crate) unsafe fn exp<V: Vector>(x: V) -> V {
        unsafe {
            let (power, rest) = exp_parts(x);
            rest.mul_add(power, power)
        }
    }

    /// The exponential less one, to about two units in the last place, also where it is small.
    #[inline(always)]
    pub(crate) unsafe fn exp_m1<V: Vector>(x: V) -> V {
        unsafe {
            let (power, rest) = exp_parts(x);
            rest.mul_add(power, power.sub(V::splat(Real::ONE)))
        }
    }

    /// 2^n and exp(r) - 1 with x = n ln 2 + r and |r| <= ln(2) / 2; ln 2 is subtracted in two
    /// parts, the first with trailing zeros.
    #[inline(always)]
    unsafe fn exp_parts<V: Vector>(x: V) -> (V, V) {
        let double = size_of::<V::Scalar>() == 8;
        let (limit, high, low, degree) = if double {
            (708.0, 6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10, 13)
        } else {
            (87.0, 0.693_359_375, -2.121_944_400_546_905_8e-4, 7)
        };
        let constant = |c: f64| unsafe { V::splat(Real::from_f64(c)) };
        unsafe {
            let x = constant(limit).min(constant(-limit).max(x));
            let n = x.mul(constant(std::f64::consts::LOG2_E)).round();
            let r = n.mul_add(constant(-low), n.mul_add(constant(-high), x));
            let mut sum = constant(RECIPROCAL_FACTORIALS[degree]);
            for k in (1..degree).rev() {
                sum = sum.mul_add(r, constant(RECIPROCAL_FACTORIALS[k]));
            }
            (n.exp2_integer(), sum.mul(r))
        }
    }
}

const RECIPROCAL_FACTORIALS: [f64; 14] = {
    let mut table = [1.0; 14];
    let mut k = 1;
    while k < 14 {
        table[k] = table[k - 1] / k as f64;
        k += 1;
    }
    table
};

dispatch! {
    /// Replaces `states` by the activation of `drives`; returns the largest change, NaN if any
    /// state is NaN.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn relax<T, U: Unit>(
        level: Level, drives: &[T], nodes: Nodes<'_, T>, states: &mut [T],
    ) -> T = relax_body
}

#[inline(always)]
fn relax_body<V: Vector, U: Unit>(
    drives: &[V::Scalar],
    nodes: Nodes<'_, V::Scalar>,
    states: &mut [V::Scalar],
) -> V::Scalar {
    assert!(drives.len() == states.len() && nodes.fit::<U>(states.len()));
    let n = states.len();
    let (drives, states) = (drives.as_ptr(), states.as_mut_ptr());
    // SAFETY: whole vectors are read and written below `n`, the rest by its length; `dispatch!`
    // vouches for the instruction set.
    unsafe {
        let mut change = V::splat(Real::ZERO);
        let mut j = 0;
        while j + V::LANES <= n {
            let s = U::apply(V::load(drives.add(j)), nodes.load::<V, U>(j));
            change = change.max_magnitude(s.sub(V::load(states.add(j))));
            s.store(states.add(j));
            j += V::LANES;
        }
        if j < n {
            let old = V::load_first(states.add(j), n - j);
            let s =
                U::apply(V::load_first(drives.add(j), n - j), nodes.load_first::<V, U>(j, n - j));
            s.store_first(states.add(j), n - j);
            // Read back: the lanes past the end are zero again.
            change = change.max_magnitude(V::load_first(states.add(j), n - j).sub(old));
        }
        change.largest()
    }
}

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

    /// Values are right to a part `tolerance` of themselves, also where drives are small.
    fn check<T: Real, U: Unit>(reference: fn(f64) -> f64, tolerance: f64) {
        let small =
            (0..120).flat_map(|k| [1.0, -1.0].map(|sign| sign * 10f64.powf(-0.25 * f64::from(k))));
        let inputs: Vec<f64> = (-4000..=4000)
            .map(|i| f64::from(i) * 0.0101)
            .chain([-1e30, 1e30])
            .chain(small)
            .collect();
        for level in Level::available() {
            let drives: Vec<T> = inputs.iter().map(|&x| T::from_f64(x)).collect();
            let exact: Vec<f64> = drives.iter().map(|&x| reference(x.to_f64())).collect();
            let mut values = vec![T::ZERO; drives.len()];
            let change = relax::<T, U>(level, &drives, Nodes::default(), &mut values).to_f64();
            assert_eq!(change, values.iter().fold(0.0, |m: f64, v| m.max(v.to_f64().abs())));
            assert_eq!(relax::<T, U>(level, &drives, Nodes::default(), &mut values), T::ZERO);
            for ((&x, got), want) in inputs.iter().zip(&values).zip(exact) {
                let error = (got.to_f64() - want).abs();
                assert!(
                    error <= tolerance * want.abs() + 2e-38,
                    "{} at {x}: {got} != {want}",
                    level.name()
                );
            }
            let mut states = vec![T::ZERO; 5];
            let change =
                relax::<T, U>(level, &[T::from_f64(f64::NAN); 5], Nodes::default(), &mut states);
            assert!(states.iter().chain([&change]).all(|x| !x.is_finite()), "NaN must survive");
        }
    }

    #[test]
    fn activations_agree_with_the_standard_library() {
        check::<f64, HardSigmoid>(|a| a.clamp(0.0, 1.0), 0.0);
        check::<f32, HardSigmoid>(|a| a.clamp(0.0, 1.0), 0.0);
        check::<f64, Tanh>(f64::tanh, 5e-16);
        check::<f32, Tanh>(f64::tanh, 3e-7);
        check::<f64, Logistic>(|a| 1.0 / (1.0 + (-a).exp()), 5e-16);
        check::<f32, Logistic>(|a| 1.0 / (1.0 + (-a).exp()), 2e-7);
    }

    #[test]
    fn walled_nodes_are_softened_and_held() {
        for level in Level::available() {
            for n in [0, 1, 7, 16, 33] {
                let drives: Vec<f64> = (0..n).map(|i| f64::from(i) - 10.0).collect();
                let softness: Vec<f64> = (0..n).map(|i| 1.0 / (1.0 + f64::from(i))).collect();
                let lower: Vec<f64> =
                    (0..n).map(|i| if i % 2 == 0 { 0.0 } else { f64::NEG_INFINITY }).collect();
                let upper: Vec<f64> =
                    (0..n).map(|i| if i % 3 == 0 { 0.25 } else { f64::INFINITY }).collect();
                let nodes = Nodes { softness: &softness, lower: &lower, upper: &upper };
                let mut states = vec![0.0; n as usize];
                relax::<f64, Walled>(level, &drives, nodes, &mut states);
                for j in 0..n as usize {
                    assert_eq!(
                        states[j],
                        (drives[j] * softness[j]).max(lower[j]).min(upper[j]),
                        "{}",
                        level.name()
                    );
                }
            }
        }
    }

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
}
