//! Devices: what the material does with a wanted change of a parameter.

use pnncore_kernels::philox::{Philox, Purpose};
use pnncore_kernels::{Level, Real, add_scaled, round_to_levels, shift_within};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::runtime::Runtime;
use crate::settings::{at_least, at_least_zero, share};
use crate::{Error, Result};

/// The elements that a parameter is stored in: conductances, say.
///
/// A write brings an element to the wanted value, as near as the device can: within its range, on
/// one of its levels (rounded at random, so that the mean is the wanted value), with noise.
/// Defective elements stay at an end of the range. Every step of training writes every element
/// once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// The smallest value; `None`: there is none.
    pub lower: Option<f64>,
    /// The largest value; `None`: there is none.
    pub upper: Option<f64>,
    /// How many values there are, evenly spaced from the smallest to the largest; `None`: a
    /// continuum.
    pub levels: Option<u32>,
    /// The standard deviation of what a write adds to the wanted value.
    pub write_noise: f64,
    /// The fraction of elements that are open: stuck at the smallest value.
    pub open: f64,
    /// The fraction of elements that are shorted: stuck at the largest value.
    pub shorted: f64,
    /// Which elements are defective, and what noise and rounding draw.
    pub seed: u64,
}

impl Device {
    /// Takes any value.
    pub const IDEAL: Self = Self {
        lower: None,
        upper: None,
        levels: None,
        write_noise: 0.0,
        open: 0.0,
        shorted: 0.0,
        seed: 0,
    };

    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting, what it is and what it may be.
    pub fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::Config(text));
        let (lower, upper) =
            (self.lower.unwrap_or(f64::NEG_INFINITY), self.upper.unwrap_or(f64::INFINITY));
        if self.lower.is_some_and(|x| !x.is_finite())
            || self.upper.is_some_and(|x| !x.is_finite())
            || lower >= upper
        {
            return refuse(format!(
                "the smallest value must be below the largest, got {lower} and {upper}"
            ));
        }
        self.levels.map_or(Ok(()), |n| at_least("levels", n, 2))?;
        if self.levels.is_some() && (self.lower.is_none() || self.upper.is_none()) {
            return refuse("levels need a smallest and a largest value to lie between".into());
        }
        at_least_zero("write_noise", self.write_noise)?;
        for (name, fraction, end, value) in [
            ("open", self.open, "smallest", self.lower),
            ("shorted", self.shorted, "largest", self.upper),
        ] {
            share(name, fraction)?;
            if fraction > 0.0 && value.is_none() {
                return refuse(format!(
                    "{name} elements are stuck at the {end} value: the device needs one"
                ));
            }
        }
        if self.open + self.shorted > 1.0 {
            return refuse(format!(
                "open and shorted must sum to at most 1, got {} and {}",
                self.open, self.shorted
            ));
        }
        Ok(())
    }

    /// The range of values, infinite where there is no end.
    pub fn range<T: Real>(&self) -> (T, T) {
        (
            T::from_f64(self.lower.unwrap_or(f64::NEG_INFINITY)),
            T::from_f64(self.upper.unwrap_or(f64::INFINITY)),
        )
    }

    /// Whether a write does no more than keep values within the range.
    pub fn is_exact(&self) -> bool {
        self.levels.is_none() && self.write_noise == 0.0 && self.open == 0.0 && self.shorted == 0.0
    }

    /// Replaces the wanted values of parameter number `parameter` by what write number `count`
    /// leaves.
    pub fn write<T: Real>(
        &self,
        runtime: &Runtime,
        parameter: usize,
        count: u64,
        values: &mut [T],
    ) {
        /// About what an element takes, in multiply-adds.
        const COST: usize = 16;
        let n = values.len();
        let cost = if self.is_exact() { 1 } else { COST };
        let chunk = n.div_ceil(runtime.parts(n * cost, n)).next_multiple_of(TOGETHER).max(TOGETHER);
        // Every write of a parameter has draws of its own, in whole blocks.
        let draws = count * n.next_multiple_of(TOGETHER) as u64;
        runtime.for_each(values.par_chunks_mut(chunk).enumerate(), |(c, values)| {
            for (b, values) in values.chunks_mut(TOGETHER).enumerate() {
                let first = (c * chunk + b * TOGETHER) as u64;
                self.write_block(runtime.level(), parameter as u32, first, draws + first, values);
            }
        });
    }

    /// What a write leaves in the elements from `first` on, whose numbers are drawn from `draw` on.
    fn write_block<T: Real>(
        &self,
        level: Level,
        parameter: u32,
        first: u64,
        draw: u64,
        values: &mut [T],
    ) {
        let (lower, upper) = self.range::<T>();
        let keep_within =
            |values: &mut [T]| shift_within(level, &[], T::ZERO, T::ZERO, (lower, upper), values);
        keep_within(values);
        let random = Philox::new(self.seed, Purpose::Write);
        let mut drawn = [T::ZERO; TOGETHER];
        if let Some(levels) = self.levels {
            let drawn = &mut drawn[..values.len()];
            random.fill(level, draw, 2 * parameter, drawn);
            let step = (upper - lower) / T::from_f64(f64::from(levels - 1));
            round_to_levels(level, drawn, step, (lower, upper), values);
        }
        if self.write_noise > 0.0 {
            let drawn = &mut drawn[..values.len()];
            random.fill_normal(level, draw, 2 * parameter + 1, drawn);
            add_scaled(level, drawn, T::from_f64(self.write_noise), values);
            keep_within(values);
        }
        if self.open + self.shorted > 0.0 {
            let (open, either) = (T::from_f64(self.open), T::from_f64(self.open + self.shorted));
            let drawn = &mut drawn[..values.len()];
            Philox::new(self.seed, Purpose::Defects).fill(level, first, parameter, drawn);
            for (value, &fate) in values.iter_mut().zip(&*drawn) {
                if fate < either {
                    *value = if fate < open { lower } else { upper };
                }
            }
        }
    }
}

/// Elements that are written together.
const TOGETHER: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(device: &Device, wanted: f64, n: usize) -> Vec<f64> {
        device.check().expect("valid");
        let mut values = vec![wanted; n];
        device.write(&Runtime::new(Some(1), 0).expect("a runtime"), 1, 3, &mut values);
        values
    }

    #[test]
    fn levels_are_hit_and_the_mean_is_kept() {
        let device = Device {
            lower: Some(1.0),
            upper: Some(3.0),
            levels: Some(5),
            seed: 4,
            ..Device::IDEAL
        };
        let n = 40_000;
        let values = written(&device, 1.7, n);
        assert!(values.iter().all(|&v| v == 1.5 || v == 2.0));
        let mean = values.iter().sum::<f64>() / n as f64;
        // 40 % of the values are half a unit above the rest.
        assert!((mean - 1.7).abs() < 4.0 * 0.5 * (0.24 / n as f64).sqrt(), "{mean}");
        // What is on a level stays there.
        assert!(written(&device, 2.5, 100).iter().all(|&v| v == 2.5));
        assert!(written(&device, 9.0, 100).iter().all(|&v| v == 3.0));
    }

    #[test]
    fn noise_has_its_deviation_and_defects_their_share() {
        let noisy = Device { write_noise: 0.1, ..Device::IDEAL };
        let n = 40_000;
        let values = written(&noisy, 2.0, n);
        let variance = values.iter().map(|v| (v - 2.0).powi(2)).sum::<f64>() / n as f64;
        assert!((variance / 0.01 - 1.0).abs() < 4.0 * (2.0 / n as f64).sqrt());
        let defective =
            Device { lower: Some(0.0), upper: Some(1.0), open: 0.1, shorted: 0.2, ..Device::IDEAL };
        let values = written(&defective, 0.5, n);
        for (end, share) in [(0.0, 0.1), (1.0, 0.2)] {
            let found = values.iter().filter(|&&v| v == end).count() as f64 / n as f64;
            assert!(
                (found - share).abs() < 4.0 * (share * (1.0 - share) / n as f64).sqrt(),
                "{end}: {found}"
            );
        }
        // Defects are where they are, whatever is written.
        let again = written(&defective, 0.7, n);
        assert!(values.iter().zip(&again).all(|(a, b)| (*a == 0.5) == (*b == 0.7)));
    }

    #[test]
    fn impossible_settings_are_refused() {
        let wrong = [
            Device { lower: Some(1.0), upper: Some(1.0), ..Device::IDEAL },
            Device { levels: Some(4), ..Device::IDEAL },
            Device { lower: Some(0.0), upper: Some(1.0), levels: Some(1), ..Device::IDEAL },
            Device { write_noise: f64::NAN, ..Device::IDEAL },
            Device { shorted: 0.1, ..Device::IDEAL },
            Device { lower: Some(0.0), open: 1.1, ..Device::IDEAL },
            Device { lower: Some(0.0), upper: Some(1.0), open: 0.6, shorted: 0.6, ..Device::IDEAL },
        ];
        assert!(wrong.iter().all(|device| matches!(device.check(), Err(Error::Config(_)))));
    }
}
