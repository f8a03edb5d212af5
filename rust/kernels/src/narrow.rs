//! The units of a boxed layer that can still move: the others are summed once.
//!
//! While a sample settles most hidden units rest at 0, many at 1. A unit whose drive is a at
//! outputs o stays where it is as long as no output leaves o by more than a radius r: its drive
//! changes by at most r sum_o |w_o|. Those that this cannot bring into (0, 1) add a constant to the
//! sums of the outputs and need not be looked at again; drives, weights and states of the rest are
//! packed side by side, a third of the whole in a trained network. The sweep over them is
//! [`hidden_sweep`](crate::hidden::hidden_sweep) with the same states as that over all, to
//! rounding.
//!
//! Floor: one multiply-add per weight for the drives and one for the sums, as a sweep, plus a load
//! and a store per weight.

use aligned_vec::{AVec, avec};

use crate::hidden::{MAX_OUTPUTS, padded_outputs};
use crate::level::dispatch;
use crate::simd::{Real, SLACK, Vector};

/// The units that can move while the outputs stay near where they were.
#[derive(Debug, Clone)]
pub struct Narrowed<T> {
    units: Vec<u32>,
    count: usize,
    padded: usize,
    stride: usize,
    drive: AVec<T>,
    weights: AVec<T>,
    states: AVec<T>,
    held: [T; MAX_OUTPUTS],
    spare: AVec<T>,
}

impl<T: Real> Default for Narrowed<T> {
    fn default() -> Self {
        Self {
            units: Vec::new(),
            count: 0,
            padded: 0,
            stride: 0,
            drive: avec![],
            weights: avec![],
            states: avec![],
            held: [T::ZERO; MAX_OUTPUTS],
            spare: avec![],
        }
    }
}

impl<T: Real> Narrowed<T> {
    /// Makes room for all units and for the vector past the end that `select` may overwrite, on
    /// cache lines.
    fn make_room(&mut self, stride: usize, rows: usize) {
        if self.stride == stride && self.weights.len() >= rows * stride {
            return;
        }
        self.stride = stride;
        self.units.resize(stride, 0);
        self.drive.resize(stride, Real::ZERO);
        self.states.resize(stride, Real::ZERO);
        self.spare.resize(stride, Real::ZERO);
        self.weights.resize(rows * stride, Real::ZERO);
    }

    /// The units that can move, in ascending order.
    pub fn units(&self) -> &[u32] {
        &self.units[..self.count]
    }

    /// What the other units add to the sum of each output.
    pub fn held(&self) -> &[T] {
        &self.held
    }

    /// Takes the states of the units that can move from those of all.
    ///
    /// # Panics
    /// If there are fewer states than at [`narrow`].
    pub fn gather(&mut self, all: &[T]) {
        for (state, &unit) in self.states.iter_mut().zip(&self.units[..self.count]) {
            *state = all[unit as usize];
        }
        self.states[self.count..self.padded].fill(T::ZERO);
    }

    /// Puts the states of the units that can move among those of all.
    ///
    /// # Panics
    /// If there are fewer states than at [`narrow`].
    pub fn scatter(&self, all: &mut [T]) {
        for (state, &unit) in self.states.iter().zip(&self.units[..self.count]) {
            all[unit as usize] = *state;
        }
    }

    /// Drives, weights with their stride, and states, padded to whole vectors with units that stay
    /// at zero: what [`hidden_sweep`](crate::hidden::hidden_sweep) takes.
    pub fn parts(&mut self) -> (&[T], &[T], usize, &mut [T]) {
        (&self.drive[..self.padded], &self.weights, self.stride, &mut self.states[..self.padded])
    }
}

dispatch! {
    /// Packs the units of a boxed layer that can move while no output leaves `outputs` by more than
    /// `radius`, and brings the others among `states` to where they rest: nothing will move them
    /// from where they were when outputs were elsewhere. `weights` has
    /// `padded_outputs(outputs.len())` rows of `drive.len()` elements, and `reach` is the sum of
    /// their magnitudes.
    ///
    /// # Panics
    /// If the lengths do not fit, or `drive.len()` is no multiple of 16.
    pub fn narrow<T>(
        level: Level,
        drive: &[T],
        weights: &[T],
        reach: &[T],
        outputs: &[T],
        radius: T,
        states: &mut [T],
        into: &mut Narrowed<T>,
    ) = narrow_body
}

#[inline(always)]
fn narrow_body<V: Vector>(
    drive: &[V::Scalar],
    weights: &[V::Scalar],
    reach: &[V::Scalar],
    outputs: &[V::Scalar],
    radius: V::Scalar,
    states: &mut [V::Scalar],
    into: &mut Narrowed<V::Scalar>,
) {
    let (n, rows) = (drive.len(), padded_outputs(outputs.len()));
    assert!(n.is_multiple_of(SLACK) && reach.len() == n && states.len() == n);
    assert!(rows <= MAX_OUTPUTS && weights.len() >= rows * n);
    let stride = n + SLACK;
    into.make_room(stride, rows);
    // SAFETY: the assertion and the sizes above: whole vectors up to `n` are read, and at most one
    // past the number of units before them is written; `dispatch!` vouches for the instruction set.
    unsafe {
        let (zero, one) = (V::splat(Real::ZERO), V::splat(Real::ONE));
        let out: [V; MAX_OUTPUTS] =
            std::array::from_fn(|o| outputs.get(o).map_or(zero, |&x| V::splat(x)));
        let mut held = [zero; MAX_OUTPUTS];
        let mut count = 0;
        for j in (0..n).step_by(V::LANES) {
            let own = V::load(drive.as_ptr().add(j));
            let mut sums = [own, zero];
            for (o, &out) in out[..rows].iter().enumerate() {
                sums[o % 2] = V::load(weights.as_ptr().add(o * n + j)).mul_add(out, sums[o % 2]);
            }
            let a = sums[0].add(sums[1]);
            let play = V::load(reach.as_ptr().add(j)).mul(V::splat(radius));
            let high = a.sub(play).step(one);
            let low = zero.sub(a.add(play)).step(zero);
            // One where neither holds, which NaN makes of any.
            let keep = one.sub(high.add(low));
            let own_state = states.as_mut_ptr().add(j);
            keep.mul_add(V::load(own_state), high).store(own_state);
            let kept = into.spare.as_mut_ptr();
            keep.store(kept);
            let more =
                V::compress(kept, j as u32, into.units.as_mut_ptr().add(count), kept.add(SLACK));
            own.select(keep, into.drive.as_mut_ptr().add(count));
            for (o, held) in held[..rows].iter_mut().enumerate() {
                let w = V::load(weights.as_ptr().add(o * n + j));
                *held = w.mul_add(high, *held);
                w.select(keep, into.weights.as_mut_ptr().add(o * stride + count));
            }
            count += more;
        }
        for (sum, held) in into.held.iter_mut().zip(held) {
            *sum = held.sum();
        }
        into.count = count;
        into.padded = count.next_multiple_of(V::LANES);
        into.drive[count..into.padded].fill(Real::ZERO);
        for o in 0..rows {
            into.weights[o * stride + count..o * stride + into.padded].fill(Real::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;
    use crate::hidden::hidden_sweep;
    use crate::unit::HardSigmoid;
    use crate::unit::Nodes;
    use proptest::prelude::*;

    fn check<T: Real>(blocks: usize, outputs: usize, radius: f64, tolerance: f64) {
        let n = 16 * blocks;
        let stream = crate::philox::Philox::new(7, crate::philox::Purpose::Probe);
        let draw = |count: usize, group, scale: f64| -> Vec<T> {
            (0..count)
                .map(|i| T::from_f64(scale * (stream.uniform(i as u64, group) - 0.5)))
                .collect()
        };
        let (drive, centre) = (draw(n, 0, 6.0), draw(outputs, 1, 1.0));
        let mut weights = draw(outputs * n, 2, 1.0);
        weights.resize(padded_outputs(outputs) * n, T::ZERO);
        let reach: Vec<T> =
            (0..n).map(|j| (0..outputs).map(|o| weights[o * n + j].abs()).sum()).collect();
        // As far from the centre as the radius allows.
        let moved: Vec<T> = (centre.iter().zip(draw(outputs, 3, 1.0)))
            .map(|(&c, d)| c + T::from_f64(radius * d.to_f64().signum()))
            .collect();
        for level in Level::available() {
            let mut narrowed = Narrowed::default();
            // From wherever they are.
            let mut all =
                draw(n, 4, 1.0).into_iter().map(|s| s + T::from_f64(0.5)).collect::<Vec<T>>();
            let mut expected = all.clone();
            narrow(
                level,
                &drive,
                &weights,
                &reach,
                &centre,
                T::from_f64(radius),
                &mut all,
                &mut narrowed,
            );
            assert!(narrowed.units().windows(2).all(|pair| pair[0] < pair[1]));
            assert!(radius > 0.5 || n < 64 || narrowed.units().len() < n, "nothing was held");
            let mut sums = vec![T::ZERO; outputs];
            narrowed.gather(&all);
            hidden_sweep::<T, HardSigmoid>(
                level,
                &drive,
                &weights,
                n,
                Nodes::default(),
                &moved,
                &mut expected,
                &mut sums,
            );
            let mut partial = vec![T::ZERO; outputs];
            let (own, w, stride, states) = narrowed.parts();
            hidden_sweep::<T, HardSigmoid>(
                level,
                own,
                w,
                stride,
                Nodes::default(),
                &moved,
                states,
                &mut partial,
            );
            narrowed.scatter(&mut all);
            for (a, b) in all.iter().zip(&expected) {
                assert!((*a - *b).abs().to_f64() < tolerance);
            }
            for ((&part, &held), &sum) in partial.iter().zip(narrowed.held()).zip(&sums) {
                assert!((part + held - sum).abs().to_f64() < tolerance * n as f64);
            }
            // A unit that is NaN is never held.
            let mut poisoned = drive.clone();
            poisoned[n - 1] = T::from_f64(f64::NAN);
            narrow(
                level,
                &poisoned,
                &weights,
                &reach,
                &centre,
                T::from_f64(radius),
                &mut all,
                &mut narrowed,
            );
            assert_eq!(narrowed.units().last(), Some(&(n as u32 - 1)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_narrow_sweep_is_the_whole_one(
            blocks in 1usize..9, outputs in 1usize..=MAX_OUTPUTS, radius in 0.0..0.6,
        ) {
            check::<f32>(blocks, outputs, radius, 1e-5);
            check::<f64>(blocks, outputs, radius, 1e-13);
        }
    }
}
