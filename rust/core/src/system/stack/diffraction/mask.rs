//! Masks of pixels that light passes.

use std::f64::consts::TAU;

use pnncore_kernels::Real;
use pnncore_kernels::philox::Philox;
use serde::Deserialize;

use crate::params::ParamSpec;
use crate::settings::{at_least_zero, converter_bits};
use crate::{Error, Result};

/// What of the light the pixels of a mask change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskKind {
    /// The phase.
    Phase,
    /// The amplitude, by a factor from 0 to 1.
    Amplitude,
    /// Both.
    Complex,
}

impl MaskKind {
    fn has_phases(self) -> bool {
        matches!(self, Self::Phase | Self::Complex)
    }

    fn has_amplitudes(self) -> bool {
        matches!(self, Self::Amplitude | Self::Complex)
    }

    /// The name of each parameter.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Phase => &["phase"],
            Self::Amplitude => &["logit"],
            Self::Complex => &["phase", "logit"],
        }
    }
}

/// A mask: each pixel multiplies the field by a = 1 / (1 + exp(-s)), with the logit s, and by
/// exp(i phi - absorption (phi mod 2 pi)), with the phase phi.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Mask {
    /// `None`: there is none, and no parameter.
    pub kind: Option<MaskKind>,
    /// How much of the amplitude is absorbed, as exponents per radian.
    pub absorption: f64,
    /// Steps of a turn, and of amplitudes from 0 to 1, are 2^bits; `None`: they are not rounded.
    pub bits: Option<u32>,
}

impl Mask {
    pub(super) fn check(&self) -> Result<()> {
        at_least_zero("absorption", self.absorption)?;
        converter_bits("bits", self.bits)?;
        let refuse = |text: &str| Err(Error::Config(text.into()));
        if self.absorption > 0.0 && !self.kind.is_some_and(MaskKind::has_phases) {
            return refuse("absorption is for masks with phases: give mask=\"phase\", or leave it");
        }
        if self.bits.is_some() && self.kind.is_none() {
            return refuse("bits are for masks: give mask, or leave them out");
        }
        Ok(())
    }

    pub(super) fn specs(&self, shape: [usize; 2]) -> Vec<ParamSpec> {
        let names = self.kind.map_or(&[][..], MaskKind::names);
        names.iter().map(|&name| ParamSpec { name: name.into(), shape: shape.into() }).collect()
    }

    /// Phases uniform over a turn; amplitudes of .88, about.
    pub(super) fn initialise<T: Real>(&self, random: Philox, group: u32, params: &mut [&mut [T]]) {
        let Some(kind) = self.kind else { return };
        for (values, (name, group)) in params.iter_mut().zip(kind.names().iter().zip(group..)) {
            for (k, value) in (0..).zip(values.iter_mut()) {
                *value = T::from_f64(match *name {
                    "phase" => TAU * random.uniform(k, group),
                    _ => 2.0 + 0.1 * random.normal(k, group),
                });
            }
        }
    }

    /// The phase and the logit of pixel `k`.
    fn settings<T: Real>(&self, params: &[&[T]], k: usize) -> (f64, f64) {
        let value = |i: usize| params[i][k].to_f64();
        match self.kind {
            None => (0.0, f64::INFINITY),
            Some(MaskKind::Phase) => (value(0), f64::INFINITY),
            Some(MaskKind::Amplitude) => (0.0, value(0)),
            Some(MaskKind::Complex) => (value(0), value(1)),
        }
    }

    /// Writes what pixels multiply fields by: real parts, and then imaginary ones.
    pub(super) fn write_transmission<T: Real>(&self, params: &[&[T]], to: &mut [T]) {
        let (re, im) = to.split_at_mut(to.len() / 2);
        for (k, (re, im)) in re.iter_mut().zip(im).enumerate() {
            let (phase, logit) = self.settings(params, k);
            let (mut phase, mut amplitude) = (phase, logistic(logit));
            if let Some(bits) = self.bits {
                let steps = f64::from(bits).exp2();
                // Steps of one turn: a whole number of turns is none.
                phase = (phase * steps / TAU).round_ties_even().rem_euclid(steps) * TAU / steps;
                amplitude = (amplitude * (steps - 1.0)).round_ties_even() / (steps - 1.0);
            }
            if self.absorption > 0.0 {
                amplitude *= (-self.absorption * phase.rem_euclid(TAU)).exp();
            }
            let (sin, cos) = phase.sin_cos();
            (*re, *im) = (T::from_f64(amplitude * cos), T::from_f64(amplitude * sin));
        }
    }

    /// Adds what a loss changes by with parameters to `gradient`, given by how much it changes with
    /// the phases of pixels, and then with the logarithms of their amplitudes: steps are passed
    /// over.
    pub(super) fn pull_back<T: Real>(
        &self,
        params: &[&[T]],
        by_pixel: &[T],
        gradient: &mut [Vec<T>],
    ) {
        let Some(kind) = self.kind else { return };
        let (by_phase, by_amplitude) = by_pixel.split_at(by_pixel.len() / 2);
        let absorption = T::from_f64(self.absorption);
        if kind.has_phases() {
            let both = by_phase.iter().zip(by_amplitude);
            for (gradient, (&phase, &amplitude)) in gradient[0].iter_mut().zip(both) {
                *gradient += phase - absorption * amplitude;
            }
        }
        if let (true, Some(gradient)) = (kind.has_amplitudes(), gradient.last_mut()) {
            for (k, (gradient, &own)) in gradient.iter_mut().zip(by_amplitude).enumerate() {
                let (_, logit) = self.settings(params, k);
                *gradient += T::from_f64(1.0 - logistic(logit)) * own;
            }
        }
    }

    /// By how much the phase of pixel `k` changes, and the logarithm of its amplitude, as
    /// parameters move along `along`.
    pub(super) fn push_forward<T: Real>(
        &self,
        params: &[&[T]],
        along: &[&[T]],
        k: usize,
    ) -> [T; 2] {
        let Some(kind) = self.kind else { return [T::ZERO; 2] };
        let turn = if kind.has_phases() { along[0][k] } else { T::ZERO };
        let absorbed = T::from_f64(self.absorption) * turn;
        let amplitude = match along.last() {
            Some(along) if kind.has_amplitudes() => {
                T::from_f64(1.0 - logistic(self.settings(params, k).1)) * along[k]
            }
            _ => T::ZERO,
        };
        [turn, amplitude - absorbed]
    }
}

fn logistic(s: f64) -> f64 {
    1.0 / (1.0 + (-s).exp())
}

/// Where the pixels of a mask really are: a pixel of the grid meets up to four of them, each with
/// a share of its area. Outside of the mask there is no light.
#[derive(Debug, Clone)]
pub(super) struct Placement<T> {
    /// The pixels that each of the grid meets, with their shares.
    shares: Vec<[(u32, T); 4]>,
}

impl<T: Real> Placement<T> {
    /// A mask that was moved by (rows, columns) pixels, and turned about its middle.
    pub(super) fn new(shape: [usize; 2], moved: [f64; 2], angle: f64) -> Self {
        let [n, m] = shape.map(|n| n as f64);
        let (sin, cos) = angle.sin_cos();
        let share = |at: usize| {
            let (i, j) = ((at / shape[1]) as f64, (at % shape[1]) as f64);
            let y = i - 0.5 * (n - 1.0) - moved[0];
            let x = j - 0.5 * (m - 1.0) - moved[1];
            let row = cos * y - sin * x + 0.5 * (n - 1.0);
            let column = sin * y + cos * x + 0.5 * (m - 1.0);
            let (top, left) = (row.floor(), column.floor());
            let corners = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)];
            corners.map(|(down, right)| {
                let (i, j) = (top + down, left + right);
                let weight = (1.0 - (row - i).abs()) * (1.0 - (column - j).abs());
                let inside = (0.0..n).contains(&i) && (0.0..m).contains(&j);
                if inside { ((i * m + j) as u32, T::from_f64(weight)) } else { (0, T::ZERO) }
            })
        };
        Self { shares: (0..shape[0] * shape[1]).map(share).collect() }
    }

    /// Writes what of `values`, a number for each pixel of the mask, pixels of the grid meet.
    pub(super) fn gather(&self, values: &[T], to: &mut [T]) {
        for (to, shares) in to.iter_mut().zip(&self.shares) {
            *to = shares.iter().map(|&(k, share)| share * values[k as usize]).sum();
        }
    }

    /// Adds what pixels of the grid have to those of the mask that they meet: the transpose.
    pub(super) fn scatter(&self, values: &[T], to: &mut [T]) {
        for (&value, shares) in values.iter().zip(&self.shares) {
            shares.iter().for_each(|&(k, share)| to[k as usize] += share * value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::{FRAC_PI_2, PI};

    fn moved(shape: [usize; 2], by: [f64; 2], angle: f64) -> Vec<f64> {
        let values: Vec<f64> = (0..shape[0] * shape[1]).map(|k| (k + 1) as f64).collect();
        let mut found = vec![0.0; values.len()];
        Placement::new(shape, by, angle).gather(&values, &mut found);
        found
    }

    fn near(found: &[f64], wanted: &[f64]) {
        assert_eq!(found.len(), wanted.len());
        let off = found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 1e-12, "{found:?} {wanted:?}");
    }

    #[test]
    fn masks_are_moved_and_turned() {
        let still = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        near(&moved([2, 3], [0.0, 0.0], 0.0), &still);
        // Down by a row; to the right by half a column, where two pixels share.
        near(&moved([2, 3], [1.0, 0.0], 0.0), &[0.0, 0.0, 0.0, 1.0, 2.0, 3.0]);
        near(&moved([2, 3], [0.0, 0.5], 0.0), &[0.5, 1.5, 2.5, 2.0, 4.5, 5.5]);
        // Half a turn, and a quarter of one.
        near(&moved([2, 3], [0.0, 0.0], PI), &[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]);
        near(&moved([2, 2], [0.0, 0.0], FRAC_PI_2), &[3.0, 1.0, 4.0, 2.0]);
        near(&moved([2, 3], [5.0, -7.0], 0.3), &[0.0; 6]);
    }

    #[test]
    fn scattering_is_the_transpose_of_gathering() {
        let placement = Placement::<f64>::new([4, 5], [0.7, -1.2], 0.2);
        let values = |phase: f64| -> Vec<f64> {
            (0..20).map(|k| (f64::from(k) * 0.9 + phase).sin()).collect()
        };
        let (x, y) = (values(0.0), values(1.0));
        let (mut forward, mut back) = (vec![0.0; 20], vec![0.0; 20]);
        placement.gather(&x, &mut forward);
        placement.scatter(&y, &mut back);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        assert!((dot(&forward, &y) - dot(&x, &back)).abs() < 1e-14);
        assert!(dot(&forward, &y).abs() > 1e-3);
    }
}
