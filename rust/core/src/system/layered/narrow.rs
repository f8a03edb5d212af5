//! The units that can still move while a sample settles: the others stay at a wall, wherever the
//! outputs go within a radius.

use pnncore_kernels::Real;
use pnncore_kernels::hidden::MAX_OUTPUTS;
use pnncore_kernels::narrow::Narrowed;

/// The units of a sample that can move, shared by its phases.
#[derive(Debug)]
pub(super) struct Narrow<T> {
    pub(super) units: Narrowed<T>,
    /// The outputs that they were found at, and how far these may move.
    pub(super) centre: [T; MAX_OUTPUTS],
    pub(super) radius: T,
    /// Whether the units hold the states of the row under way.
    pub(super) holding: bool,
    /// Whether the sample settles so slowly that it is worth while.
    pub(super) worth: bool,
}

impl<T: Real> Default for Narrow<T> {
    fn default() -> Self {
        Self {
            units: Narrowed::default(),
            centre: [T::ZERO; MAX_OUTPUTS],
            radius: -T::ONE,
            holding: false,
            worth: false,
        }
    }
}

impl<T: Real> Narrow<T> {
    /// Forgets the sample.
    pub(super) fn reset(&mut self) {
        self.radius = -T::ONE;
        self.worth = false;
    }

    /// Whether the units that can move at these outputs are known. False for NaN.
    pub(super) fn covers(&self, outputs: &[T]) -> bool {
        outputs.iter().zip(&self.centre).all(|(&o, &c)| (o - c).abs() <= self.radius)
    }

    /// Puts the states of the row under way back among the rest.
    pub(super) fn release(&mut self, hidden: &mut [T]) {
        if std::mem::take(&mut self.holding) {
            self.units.scatter(hidden);
        }
    }
}
