//! Energies of networks, as far as rounding lets one compare them.

use pnncore_kernels::Real;

/// Rounding errors of an energy, in units in the last place of the magnitudes of its terms.
const ROUNDING: f64 = 16.0;

/// The terms of an energy, and their magnitudes: of these its rounding error is some units in the
/// last place.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Energy {
    pub(super) value: f64,
    magnitude: f64,
}

impl Energy {
    /// Adds a term.
    pub(super) fn add(&mut self, term: f64) {
        self.value += term;
        self.magnitude += term.abs();
    }

    /// The terms of both.
    pub(super) fn join(mut self, other: Self) -> Self {
        self.value += other.value;
        self.magnitude += other.magnitude;
        self
    }

    /// Whether this energy is above another by more than rounding errors of `T`. Not a number is.
    pub(super) fn is_above<T: Real>(&self, other: &Self) -> bool {
        let rounding = ROUNDING * T::EPSILON.to_f64() * (self.magnitude + other.magnitude);
        self.value > other.value + rounding || self.value.is_nan()
    }
}
