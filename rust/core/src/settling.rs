//! Settings of settling: the order of updates, and when a phase ends.

use serde::{Deserialize, Serialize};

use crate::settings::positive;
use crate::{Error, Result};

/// In which order the units of a layered system are brought to their minimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Every other layer, then the layers between: exact block minimisation, which never raises the
    /// energy.
    #[default]
    Asynchronous,
    /// All layers from the previous states at once. May oscillate.
    Synchronous,
}

/// How nudged outputs move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputUpdate {
    /// To the minimum of the nudged energy given the rest.
    #[default]
    Exact,
    /// a - beta dC/do at the previous outputs, as published code does; the same fixed point.
    Explicit,
}

/// When a phase ends.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stop {
    /// When the states are as near to steady as this fraction of the displacement that the phase is
    /// to measure: |beta| times the sample's output error over the stiffness of the outputs (or eta
    /// times it, where outputs are clamped). The distance is estimated from the last two sweeps: if
    /// they moved units by c' and then by c = q c', what is left is c q / (1 - q).
    ///
    /// Inference, which has no displacement, takes it as a fraction of the largest state.
    Relative(f64),
    /// When no unit moved by more than this in a sweep.
    Absolute(f64),
    /// After a number of sweeps, whatever has been reached: (free, nudged).
    Sweeps(u32, u32),
    /// [`Stop::Relative`] at [`DEFAULT_RELATIVE`] or [`DEFAULT_RELATIVE_TO_FREE`]; inference: at
    /// [`INFERENCE_TOLERANCE`].
    #[default]
    Automatic,
}

impl Stop {
    /// Whether phases end by themselves, and not after a given number of sweeps.
    pub fn is_free(self) -> bool {
        !matches!(self, Self::Sweeps(..))
    }
}

/// The fraction of [`Stop::Relative`] by default: the gradient is then less than 1 % off (a test
/// measures it).
pub const DEFAULT_RELATIVE: f64 = 0.004;

/// The same where the free states are part of the contrast: their error, of another size than that
/// of the phases that start from them, is not taken away by it.
pub const DEFAULT_RELATIVE_TO_FREE: f64 = 0.0025;

/// Sweeps in a row, each moving more than the one before, after which a phase other than the free
/// one is stopped: it is leaving the basin of the free state, and would end where its contrast with
/// the others is no derivative of anything.
pub const MAX_GROWING: u32 = 5;

/// The most sweeps of a nudged or clamped phase by default.
pub const MAX_NUDGED: u32 = 200;

/// How near to steady inference stops, in units of the largest state.
pub const INFERENCE_TOLERANCE: f64 = 1e-4;

/// How a system is settled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Settling {
    /// When a phase ends.
    pub stop: Stop,
    /// The largest number of sweeps of a phase that stops by tolerance: (free, any other).
    pub max_sweeps: (u32, u32),
    /// The order of updates.
    pub order: Order,
    /// How nudged outputs move.
    pub output_update: OutputUpdate,
}

impl Default for Settling {
    fn default() -> Self {
        Self {
            stop: Stop::Automatic,
            max_sweeps: (10_000, MAX_NUDGED),
            order: Order::default(),
            output_update: OutputUpdate::default(),
        }
    }
}

impl Settling {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting.
    pub fn check(&self) -> Result<()> {
        match self.stop {
            Stop::Relative(x) => positive("relative tolerance", x),
            Stop::Absolute(x) => positive("tolerance", x),
            Stop::Sweeps(free, nudged) if free == 0 || nudged == 0 => {
                Err(Error::Config(format!("sweeps must be at least 1, got ({free}, {nudged})")))
            }
            _ if self.max_sweeps.0 == 0 || self.max_sweeps.1 == 0 => Err(Error::Config(format!(
                "max_sweeps must be at least 1, got {:?}",
                self.max_sweeps
            ))),
            _ => Ok(()),
        }
    }

    /// The largest number of sweeps of the free phase, or of any other.
    pub fn limit(&self, is_free: bool) -> u32 {
        let (free, other) = match self.stop {
            Stop::Sweeps(free, nudged) => (free, nudged),
            _ => self.max_sweeps,
        };
        if is_free { free } else { other }
    }
}
