//! One sweep of a network with one hidden layer and few outputs: the settle that most of the
//! field's benchmarks are.
//!
//! s = rho(d + V o), then the sums V^T s from which the new outputs follow; d is the cached input
//! drive. Both products read a vector of V once, while it is in a register. Floor: 4 flops per
//! weight and sweep (20,480 for 512 x 10); everything stays in L1.

use crate::level::dispatch;
use crate::simd::{Real, Vector};
use crate::unit::{Nodes, Unit};

/// The largest number of outputs that [`hidden_sweep`] takes: more would not stay in registers.
pub const MAX_OUTPUTS: usize = 12;

/// The rows that the weights of [`hidden_sweep`] must have for `n` outputs: rows past `n` are zero.
pub fn padded_outputs(n: usize) -> usize {
    n.next_multiple_of(2)
}

dispatch! {
    /// With w_o the rows of `weights`, replaces `states` by s = rho(`drive` + sum of `outputs` w_o)
    /// and writes the products w_o . s to `sums`. Returns the largest change of a state; NaN if any
    /// state is NaN.
    ///
    /// `nodes` holds the constants of the units where these differ, and is empty where they do not.
    /// `weights` has `padded_outputs(outputs.len())` rows of `drive.len()` elements, `stride`
    /// apart; rows past the outputs are zero.
    ///
    /// # Panics
    /// If there are more than [`MAX_OUTPUTS`] outputs, or the lengths do not fit.
    pub fn hidden_sweep<T, U: Unit>(
        level: Level,
        drive: &[T],
        weights: &[T],
        stride: usize,
        nodes: Nodes<'_, T>,
        outputs: &[T],
        states: &mut [T],
        sums: &mut [T],
    ) -> T = hidden_sweep_body
}

#[inline(always)]
fn hidden_sweep_body<V: Vector, U: Unit>(
    drive: &[V::Scalar],
    weights: &[V::Scalar],
    stride: usize,
    nodes: Nodes<'_, V::Scalar>,
    outputs: &[V::Scalar],
    states: &mut [V::Scalar],
    sums: &mut [V::Scalar],
) -> V::Scalar {
    let rows = padded_outputs(outputs.len());
    assert!(rows <= MAX_OUTPUTS && sums.len() == outputs.len());
    assert!(states.len() == drive.len() && drive.len() <= stride && nodes.fit::<U>(drive.len()));
    assert!(rows == 0 || weights.len() >= (rows - 1) * stride + drive.len());
    // SAFETY: the assertions above; `dispatch!` vouches for the instruction set.
    unsafe {
        match rows {
            0 => Real::ZERO,
            2 => sweep::<V, U, 2>(drive, weights, stride, nodes, outputs, states, sums),
            4 => sweep::<V, U, 4>(drive, weights, stride, nodes, outputs, states, sums),
            6 => sweep::<V, U, 6>(drive, weights, stride, nodes, outputs, states, sums),
            8 => sweep::<V, U, 8>(drive, weights, stride, nodes, outputs, states, sums),
            10 => sweep::<V, U, 10>(drive, weights, stride, nodes, outputs, states, sums),
            _ => sweep::<V, U, 12>(drive, weights, stride, nodes, outputs, states, sums),
        }
    }
}

/// Vectors of hidden units that go through both products together where the registers cannot hold
/// the weights: enough independent sums to cover the latency of a multiply-add several times over
/// (measured: 16 beats 4, 6 and 8).
const BLOCK: usize = 16;

#[inline(always)]
unsafe fn sweep<V: Vector, U: Unit, const O: usize>(
    drive: &[V::Scalar],
    weights: &[V::Scalar],
    stride: usize,
    nodes: Nodes<'_, V::Scalar>,
    outputs: &[V::Scalar],
    states: &mut [V::Scalar],
    sums: &mut [V::Scalar],
) -> V::Scalar {
    let n = drive.len();
    let (drive, weights, states) = (drive.as_ptr(), weights.as_ptr(), states.as_mut_ptr());
    // SAFETY: the caller checked the lengths: O rows of n weights, `stride` apart, n drives and
    // states.
    unsafe {
        let zero = V::splat(Real::ZERO);
        let mut pass = Pass {
            outputs: std::array::from_fn(|o| outputs.get(o).map_or(zero, |&x| V::splat(x))),
            totals: [zero; O],
            change: zero,
            nodes,
        };
        let mut j = 0;
        if V::REGISTERS < 32 || U::SLOW {
            while j + BLOCK * V::LANES <= n {
                pass.block::<U, BLOCK>(j, drive.add(j), weights.add(j), stride, states.add(j));
                j += BLOCK * V::LANES;
            }
            while j + BLOCK / 2 * V::LANES <= n {
                pass.block::<U, { BLOCK / 2 }>(
                    j,
                    drive.add(j),
                    weights.add(j),
                    stride,
                    states.add(j),
                );
                j += BLOCK / 2 * V::LANES;
            }
        }
        while j + V::LANES <= n {
            pass.whole::<U>(j, drive.add(j), weights.add(j), stride, states.add(j));
            j += V::LANES;
        }
        if j < n {
            pass.rest::<U>(j, drive.add(j), weights.add(j), stride, states.add(j), n - j);
        }
        for (sum, total) in sums.iter_mut().zip(pass.totals) {
            *sum = total.sum();
        }
        pass.change.largest()
    }
}

/// What a sweep carries from block to block.
struct Pass<'a, V: Vector, const O: usize> {
    nodes: Nodes<'a, V::Scalar>,
    outputs: [V; O],
    totals: [V; O],
    change: V,
}

impl<V: Vector, const O: usize> Pass<'_, V, O> {
    /// The vector of units from `j` on. `weights` has O rows, `stride` apart.
    ///
    /// Its weights stay in registers for both products, or the loads would take as long as the
    /// multiply-adds; what one vector waits for, the processor fills with the next ones.
    #[inline(always)]
    unsafe fn whole<U: Unit>(
        &mut self,
        j: usize,
        drive: *const V::Scalar,
        weights: *const V::Scalar,
        stride: usize,
        states: *mut V::Scalar,
    ) {
        // SAFETY: the caller vouches for a vector everywhere.
        unsafe {
            let w: [V; O] = std::array::from_fn(|o| V::load(weights.add(o * stride)));
            // Two sums: half the latency.
            let mut a = [V::load(drive), V::splat(Real::ZERO)];
            for (o, (w, &output)) in w.iter().zip(&self.outputs).enumerate() {
                a[o % 2] = w.mul_add(output, a[o % 2]);
            }
            let s = U::apply(a[0].add(a[1]), self.nodes.load::<V, U>(j));
            self.change = self.change.max_magnitude(s.sub(V::load(states)));
            s.store(states);
            for (w, total) in w.iter().zip(&mut self.totals) {
                *total = w.mul_add(s, *total);
            }
        }
    }

    /// The B vectors of units from `j` on. `weights` has O rows, `stride` apart.
    #[inline(always)]
    unsafe fn block<U: Unit, const B: usize>(
        &mut self,
        j: usize,
        drive: *const V::Scalar,
        weights: *const V::Scalar,
        stride: usize,
        states: *mut V::Scalar,
    ) {
        // SAFETY: the caller vouches for B vectors everywhere.
        unsafe {
            let mut s: [V; B] = std::array::from_fn(|i| V::load(drive.add(i * V::LANES)));
            for (o, &output) in self.outputs.iter().enumerate() {
                for (i, s) in s.iter_mut().enumerate() {
                    *s = V::load(weights.add(o * stride + i * V::LANES)).mul_add(output, *s);
                }
            }
            for (i, s) in s.iter_mut().enumerate() {
                let place = states.add(i * V::LANES);
                *s = U::apply(*s, self.nodes.load::<V, U>(j + i * V::LANES));
                self.change = self.change.max_magnitude(s.sub(V::load(place)));
                s.store(place);
            }
            for (i, &s) in s.iter().enumerate() {
                for (o, total) in self.totals.iter_mut().enumerate() {
                    *total = V::load(weights.add(o * stride + i * V::LANES)).mul_add(s, *total);
                }
            }
        }
    }

    /// The last `rest` units, from `j` on, fewer than a vector.
    #[inline(always)]
    unsafe fn rest<U: Unit>(
        &mut self,
        j: usize,
        drive: *const V::Scalar,
        weights: *const V::Scalar,
        stride: usize,
        states: *mut V::Scalar,
        rest: usize,
    ) {
        // SAFETY: the caller vouches for `rest` elements everywhere.
        unsafe {
            let mut s = V::load_first(drive, rest);
            for (o, &output) in self.outputs.iter().enumerate() {
                s = V::load_first(weights.add(o * stride), rest).mul_add(output, s);
            }
            let old = V::load_first(states, rest);
            U::apply(s, self.nodes.load_first::<V, U>(j, rest)).store_first(states, rest);
            // Read back: the lanes past the end are zero again.
            let s = V::load_first(states, rest);
            self.change = self.change.max_magnitude(s.sub(old));
            for (o, total) in self.totals.iter_mut().enumerate() {
                *total = V::load_first(weights.add(o * stride), rest).mul_add(s, *total);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;
    use crate::unit::{HardSigmoid, Logistic, Tanh, Walled};
    use proptest::prelude::*;

    fn check<T: Real, U: Unit>(n: usize, outputs: usize, rho: fn(f64) -> f64, tolerance: f64) {
        // Nodes all alike, so that `rho` is the function of each.
        let (softness, lower, upper) =
            (vec![T::from_f64(0.5); n], vec![T::ZERO; n], vec![T::ONE; n]);
        let alike = Nodes { softness: &softness, lower: &lower, upper: &upper };
        let nodes = if U::NODES { alike } else { Nodes::default() };
        let stream = crate::philox::Philox::new(5, crate::philox::Purpose::Probe);
        let draw = |count: usize, group| -> Vec<T> {
            (0..count).map(|i| T::from_f64(stream.uniform(i as u64, group) - 0.5)).collect()
        };
        let (drive, out, old) = (draw(n, 0), draw(outputs, 1), draw(n, 2));
        let mut weights = draw(outputs * n, 3);
        weights.resize(padded_outputs(outputs) * n, T::ZERO);
        for level in Level::available() {
            let (mut states, mut sums) = (old.clone(), vec![T::ZERO; outputs]);
            let change = hidden_sweep::<T, U>(
                level,
                &drive,
                &weights,
                n,
                nodes,
                &out,
                &mut states,
                &mut sums,
            );
            let mut largest = 0.0f64;
            let mut expected = vec![0.0; outputs];
            for j in 0..n {
                let a = drive[j].to_f64()
                    + (0..outputs)
                        .map(|o| weights[o * n + j].to_f64() * out[o].to_f64())
                        .sum::<f64>();
                assert!((states[j].to_f64() - rho(a)).abs() < tolerance);
                largest = largest.max((rho(a) - old[j].to_f64()).abs());
                for (o, sum) in expected.iter_mut().enumerate() {
                    *sum += weights[o * n + j].to_f64() * rho(a);
                }
            }
            assert!((change.to_f64() - largest).abs() < tolerance);
            for (got, want) in sums.iter().zip(expected) {
                assert!((got.to_f64() - want).abs() < tolerance * n as f64);
            }
            let mut poisoned = drive.clone();
            poisoned[n - 1] = T::from_f64(f64::NAN);
            let change = hidden_sweep::<T, U>(
                level,
                &poisoned,
                &weights,
                n,
                nodes,
                &out,
                &mut states,
                &mut sums,
            );
            assert!(!change.is_finite(), "NaN must survive");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn sweep_agrees_with_a_plain_sum(n in 1usize..100, outputs in 1usize..=MAX_OUTPUTS) {
            check::<f32, HardSigmoid>(n, outputs, |a| a.clamp(0.0, 1.0), 1e-5);
            check::<f64, HardSigmoid>(n, outputs, |a| a.clamp(0.0, 1.0), 1e-13);
            check::<f32, Walled>(n, outputs, |a| (0.5 * a).clamp(0.0, 1.0), 1e-5);
            check::<f64, Walled>(n, outputs, |a| (0.5 * a).clamp(0.0, 1.0), 1e-13);
            check::<f64, Tanh>(n, outputs, f64::tanh, 1e-13);
            check::<f64, Logistic>(n, outputs, |a| 1.0 / (1.0 + (-a).exp()), 1e-13);
        }
    }
}
