//! How the steps of pulses depend on the state: one law per kind of device.

use super::{Cells, GROUP, Scatter, choose};
use crate::simd::{Real, Vector};
use crate::unit::apply::exp;

/// How the step of a pulse depends on where a cell is. `up` and `down` are those of
/// [`Row`](super::Row), with their signs.
pub trait Law<T: Real>: Copy + Send + Sync {
    /// Whether steps are up + up_slope w, or the same of down: those of several pulses can then be
    /// summed at once.
    const AFFINE: bool = false;
    /// Whether these slopes are not zero.
    const SLOPED: bool = false;

    /// The mean step of a pulse from where cells are, given the constant of the direction in which
    /// it goes.
    #[doc(hidden)]
    fn mean<V: Vector<Scalar = T>>(self, cells: &Cells<V>, falls: V, step: V) -> V;
}

impl<V: Vector> Cells<V> {
    /// Sends one pulse, down where `falls` is one, to the cells where `comes` is one.
    #[inline(always)]
    pub(super) fn pulse(
        &mut self,
        law: impl Law<V::Scalar>,
        scatter: Scatter<V::Scalar>,
        falls: V,
        comes: V,
        xi: V,
    ) {
        let step = choose(falls, self.down, self.up);
        let mean = law.mean(self, falls, step);
        let spread = if scatter.additive { step } else { mean };
        // SAFETY: as for `splat`.
        unsafe {
            let change = spread.mul_add(xi.mul(V::splat(scatter.cycle)), mean);
            self.weights = self.lower.max(self.upper.min(comes.mul_add(change, self.weights)));
        }
    }
}

/// up or down, wherever the cell is.
#[derive(Debug, Clone, Copy)]
pub struct Constant;

/// up + up_slope w, or the same of down.
#[derive(Debug, Clone, Copy)]
pub struct Linear;

/// up max(1 - A exp(gamma z), 0) and down max(1 - A exp(-gamma z), 0), with z = 2 a w / (upper -
/// lower) + b.
#[derive(Debug, Clone, Copy)]
pub struct Exponential<T> {
    /// A and gamma of pulses up.
    pub up: (T, T),
    /// A and gamma of pulses down.
    pub down: (T, T),
    /// a.
    pub a: T,
    /// b.
    pub b: T,
}

/// up ((upper - w) / (upper - lower))^gamma and down ((w - lower) / (upper - lower))^gamma.
#[derive(Debug, Clone, Copy)]
pub struct Power<T> {
    /// gamma of pulses up.
    pub up: T,
    /// gamma of pulses down.
    pub down: T,
}

/// up and down times numbers between those at places that are evenly spaced from lower to upper: at
/// least two each.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a, T> {
    /// Factors of pulses up.
    pub up: &'a [T],
    /// Factors of pulses down.
    pub down: &'a [T],
}

impl<T: Real> Law<T> for Constant {
    const AFFINE: bool = true;

    #[inline(always)]
    fn mean<V: Vector<Scalar = T>>(self, _cells: &Cells<V>, _falls: V, step: V) -> V {
        step
    }
}

impl<T: Real> Law<T> for Linear {
    const AFFINE: bool = true;
    const SLOPED: bool = true;

    #[inline(always)]
    fn mean<V: Vector<Scalar = T>>(self, cells: &Cells<V>, falls: V, step: V) -> V {
        // SAFETY: as for `splat`.
        unsafe { choose(falls, cells.down_slope, cells.up_slope).mul_add(cells.weights, step) }
    }
}

impl<T: Real> Law<T> for Exponential<T> {
    #[inline(always)]
    fn mean<V: Vector<Scalar = T>>(self, cells: &Cells<V>, falls: V, step: V) -> V {
        // SAFETY: as for `splat`.
        unsafe {
            // Cells without a range do not move, wherever z is.
            let range = cells.upper.sub(cells.lower).max(V::splat(T::EPSILON));
            let z = V::splat(self.a + self.a).mul(cells.weights).div(range).add(V::splat(self.b));
            let factor = choose(falls, V::splat(self.down.0), V::splat(self.up.0));
            let gamma = choose(falls, V::splat(-self.down.1), V::splat(self.up.1));
            let left = V::splat(T::ONE).sub(factor.mul(exp(gamma.mul(z))));
            step.mul(V::splat(T::ZERO).max(left))
        }
    }
}

impl<T: Real> Law<T> for Power<T> {
    #[inline(always)]
    fn mean<V: Vector<Scalar = T>>(self, cells: &Cells<V>, falls: V, step: V) -> V {
        let factor = |place: f64, falls: bool| match falls {
            true => place.powf(self.down.to_f64()),
            false => (1.0 - place).powf(self.up.to_f64()),
        };
        by_place(cells, falls, step, factor)
    }
}

impl<T: Real> Law<T> for Table<'_, T> {
    #[inline(always)]
    fn mean<V: Vector<Scalar = T>>(self, cells: &Cells<V>, falls: V, step: V) -> V {
        let factor = |place: f64, falls: bool| {
            let table = if falls { self.down } else { self.up };
            let place = place * (table.len() - 1) as f64;
            let k = (place as usize).min(table.len() - 2);
            let (here, next) = (table[k].to_f64(), table[k + 1].to_f64());
            here + (next - here) * (place - k as f64)
        };
        by_place(cells, falls, step, factor)
    }
}

/// Steps times a factor for each cell, by its place from zero at the lower bound to one at the
/// upper, and by whether it falls.
fn by_place<V: Vector>(
    cells: &Cells<V>,
    falls: V,
    step: V,
    factor: impl Fn(f64, bool) -> f64,
) -> V {
    let [mut w, mut lower, mut upper, mut fall] = [[<V::Scalar as Real>::ZERO; GROUP]; 4];
    // SAFETY: the arrays hold at least a vector; the rest as for `splat`.
    unsafe {
        cells.weights.store(w.as_mut_ptr());
        cells.lower.store(lower.as_mut_ptr());
        cells.upper.store(upper.as_mut_ptr());
        falls.store(fall.as_mut_ptr());
    }
    for i in 0..V::LANES {
        let (low, range) = (lower[i].to_f64(), (upper[i] - lower[i]).to_f64());
        let place = if range > 0.0 { ((w[i].to_f64() - low) / range).clamp(0.0, 1.0) } else { 0.0 };
        w[i] = Real::from_f64(factor(place, fall[i] != Real::ZERO));
    }
    // SAFETY: as above.
    unsafe { step.mul(V::load(w.as_ptr())) }
}
