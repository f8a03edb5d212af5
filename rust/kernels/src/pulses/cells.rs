//! A piece of a row of cells in vectors, and what pulses do to it.

use super::{FAR, Row, Scatter, choose, load};
use crate::simd::{Real, Vector};

/// A piece of a row: as many cells as a vector holds.
#[derive(Debug, Clone, Copy)]
#[doc(hidden)]
pub struct Cells<V> {
    pub(super) weights: V,
    pub(super) lower: V,
    pub(super) upper: V,
    pub(super) up: V,
    pub(super) down: V,
    pub(super) up_slope: V,
    pub(super) down_slope: V,
}

/// The pulses of one sample on their way to a piece.
pub(super) struct Coming<V> {
    /// How many come to each cell.
    pub(super) number: V,
    /// One where they are down, otherwise zero.
    pub(super) falls: V,
    /// How many come to the cell that most come to.
    pub(super) most: u32,
}

impl<V: Vector> Cells<V> {
    #[inline(always)]
    pub(super) fn new(row: &Row<'_, V::Scalar>, first: usize) -> Self {
        Self {
            weights: load(row.weights, first),
            lower: load(row.lower, first),
            upper: load(row.upper, first),
            up: load(row.up, first),
            down: load(row.down, first),
            up_slope: load(row.up_slope, first),
            down_slope: load(row.down_slope, first),
        }
    }

    /// Sends all pulses of a batch at once, where steps do not depend on the state, unless one of
    /// the cells may come near a bound on its way; tells whether it did. `xi` is normal where there
    /// are pulses.
    #[inline(always)]
    pub(super) fn batch_at_once(
        &mut self,
        scatter: Scatter<V::Scalar>,
        ups: V,
        downs: V,
        xi: V,
    ) -> bool {
        // SAFETY: as for `splat`.
        unsafe {
            let (w, one) = (self.weights, V::splat(Real::ONE));
            let (rise, fall) = (ups.mul(self.up), downs.mul(self.down));
            let variance = rise.mul_add(self.up, fall.mul(self.down));
            let deviation = variance.sqrt().mul(V::splat(scatter.cycle));
            let margin = deviation.mul(V::splat(Real::from_f64(FAR)));
            let over = w.add(rise).add(margin).step(self.upper);
            let under = self.lower.step(w.add(fall).sub(margin));
            let moved = ups.add(downs).step(one);
            if over.add(under).mul(moved).any() {
                return false;
            }
            self.weights = w.add(deviation.mul_add(xi, rise.add(fall)));
        }
        true
    }

    /// Sends all pulses of a sample at once, unless one of the cells comes near a bound; tells
    /// whether it did.
    ///
    /// A step is u = a + b w, times 1 + cycle xi: u becomes q u with q = 1 + b (1 + cycle xi). So
    /// the n-th step has the mean square (E q^2)^(n-1) times that of the first, and what it adds to
    /// the end is scaled by E q once per pulse that follows.
    #[inline(always)]
    pub(super) fn pulse_at_once(
        &mut self,
        sloped: bool,
        scatter: Scatter<V::Scalar>,
        coming: &Coming<V>,
        xi: V,
    ) -> bool {
        let (w, falls, number) = (self.weights, coming.falls, coming.number);
        // SAFETY: as for `splat`.
        unsafe {
            let (zero, one, cycle) =
                (V::splat(Real::ZERO), V::splat(Real::ONE), V::splat(scatter.cycle));
            let step = choose(falls, self.down, self.up);
            let (mut sum, mut variance, mut first) = (number, number, step);
            if sloped {
                let slope = choose(falls, self.down_slope, self.up_slope);
                first = slope.mul_add(w, step);
                let keep = one.add(slope);
                let kept = keep.mul(keep);
                let off = slope.mul(cycle);
                let grow = if scatter.additive { one } else { off.mul_add(off, kept) };
                let mut square = one;
                (sum, variance) = (zero, zero);
                for k in 1..=coming.most {
                    let comes = number.step(V::splat(<V::Scalar as Real>::from_u32(k)));
                    sum = choose(comes, sum.mul_add(keep, one), sum);
                    variance = choose(comes, variance.mul_add(kept, square), variance);
                    square = square.mul(grow);
                }
            }
            let mean = first.mul(sum);
            let spread = if scatter.additive { step } else { first };
            let deviation = spread.mul(cycle).mul(variance.sqrt());
            let size = |x: V| zero.max_magnitude(x);
            let reach = V::splat(Real::from_f64(FAR)).mul_add(size(deviation), size(mean));
            // What is left to the nearer bound; cells that stay where they are may be at one.
            let left = w.sub(self.lower).min(self.upper.sub(w));
            let short = one.sub(left.step(reach)).mul(number.step(one));
            if short.any() {
                return false;
            }
            self.weights = w.add(deviation.mul_add(xi, mean));
        }
        true
    }
}
