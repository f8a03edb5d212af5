//! Detectors that count photons, and converters behind them.

use pnncore_kernels::Real;
use pnncore_kernels::philox::Philox;

use crate::poisson::poisson;
use crate::settings::{at_least_zero, converter_bits, positive};
use crate::{Error, Result};

/// What stands between light and numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Counter {
    /// The photons that are detected of an intensity of one; `None`: so many that they are not
    /// counted.
    pub photons: Option<f64>,
    /// How many counts of a detector come without light.
    pub dark_counts: f64,
    /// Converters have 2^bits levels, up to `full_scale`; `None`: they are exact.
    pub bits: Option<u32>,
    /// The largest output that converters tell from larger ones.
    pub full_scale: Option<f64>,
}

impl Counter {
    /// Exact intensities.
    pub(super) const EXACT: Self =
        Self { photons: None, dark_counts: 0.0, bits: None, full_scale: None };

    /// Refuses settings out of range; `counts` tells whether photons are counted one by one.
    pub(super) fn check(&self, counts: bool) -> Result<()> {
        let refuse = |text: &str| Err(Error::Config(text.into()));
        if let Some(photons) = self.photons {
            positive("photons", photons)?;
        }
        at_least_zero("dark_counts", self.dark_counts)?;
        if self.dark_counts > 0.0 && (self.photons.is_none() || !counts) {
            return refuse(
                "dark_counts are for detectors that count: give photons, too, and detect \
                 intensities",
            );
        }
        match (self.bits, self.full_scale) {
            (None, None) => Ok(()),
            (Some(bits), Some(scale)) => {
                converter_bits("bits", Some(bits))?;
                positive("full_scale", scale)
            }
            _ => refuse("bits and full_scale go together: both for converters, none without"),
        }
    }

    /// What a detector tells of an intensity: draw number `draw` of a group of `random`.
    pub(super) fn count(&self, intensity: f64, random: &Philox, draw: u64, group: u32) -> f64 {
        let Some(photons) = self.photons else { return intensity };
        let expected = photons * intensity + self.dark_counts;
        if !expected.is_finite() {
            return f64::NAN;
        }
        (poisson(random, expected, draw, group) - self.dark_counts) / photons
    }

    /// Rounds outputs to the levels of converters, which begin at zero, or at minus the largest.
    pub(super) fn convert<T: Real>(&self, signed: bool, y: &mut [T]) {
        let (Some(bits), Some(scale)) = (self.bits, self.full_scale) else { return };
        let lowest = if signed { -scale } else { 0.0 };
        let step = (scale - lowest) / (f64::from(bits).exp2() - 1.0);
        for y in y {
            let within = y.to_f64().clamp(lowest, scale);
            *y = T::from_f64(lowest + ((within - lowest) / step).round_ties_even() * step);
        }
    }
}
