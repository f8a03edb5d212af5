//! A driven oscillating plate: some modes with a hardening spring (Wright et al. 2022).

use pnncore_kernels::Real;
use pnncore_kernels::philox::Philox;

use serde::Deserialize;

use super::layer::factors;
use super::layer_spec::{LayerOutline, LayerSpec, Parts, Site};
use super::multiplexed::{Device, Multiplexed, outline};
use crate::settings::{at_least_one, at_least_zero};
use crate::{Result, memory};

/// The description of a driven oscillating plate.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlateSpec {
    /// The number of inputs.
    pub inputs: usize,
    /// The number of parameters.
    pub parameters: usize,
    /// How many modes.
    pub modes: usize,
    /// Their damping.
    pub damping: f64,
    /// How much their springs harden.
    pub cubic: f64,
}

/// Steps per unit of time: the fastest mode turns by less than half a radian in each.
const SUBSTEPS: usize = 8;

impl LayerSpec for PlateSpec {
    const KIND: &'static str = "plate";

    fn outline(&self, _site: &Site) -> Result<LayerOutline> {
        at_least_one(&[("modes", self.modes)])?;
        at_least_zero("damping", self.damping)?;
        at_least_zero("cubic", self.cubic)?;
        let own = outline(self.inputs, self.parameters, self.modes.saturating_mul(2), SUBSTEPS)?;
        Ok(LayerOutline { constants: memory::product(&[6, self.modes]), ..own })
    }

    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        let device = Plate::<T>::new(self, site.disorder(), site.group());
        let Self { inputs, parameters, .. } = *self;
        Ok(Parts::of(Multiplexed { device, inputs, parameters, substeps: SUBSTEPS }, site))
    }
}

/// Modes q'' + c q' + W^2 q + a q^3 = g u(t), read as the sum of r q.
#[derive(Debug, Clone)]
struct Plate<T> {
    damping: T,
    cubic: T,
    /// W^2, mode by mode.
    stiffness: Vec<T>,
    drive: Vec<T>,
    pickup: Vec<T>,
}

/// The frequencies of the lowest and the highest mode, in radians per unit of time. Plates have as
/// many modes in any interval of frequencies of the same width.
const FREQUENCIES: (f64, f64) = (0.3, 3.0);

impl<T: Real> Plate<T> {
    /// The plate of a description, whose couplings to drive and pickup are drawn from groups
    /// `group..`.
    fn new(spec: &PlateSpec, disorder: Philox, group: u32) -> Self {
        let PlateSpec { modes, damping, cubic, .. } = *spec;
        let (low, high) = FREQUENCIES;
        let frequency = |m: usize| {
            low + (high - low) * (m as f64 + disorder.uniform(m as u64, group)) / modes as f64
        };
        let normals = |group: u32, scale: f64| -> Vec<T> {
            (0..modes as u64).map(|m| T::from_f64(scale * disorder.normal(m, group))).collect()
        };
        Self {
            damping: T::from_f64(damping),
            cubic: T::from_f64(cubic),
            stiffness: (0..modes).map(|m| T::from_f64(frequency(m).powi(2))).collect(),
            drive: normals(group + 1, 1.0),
            pickup: normals(group + 2, 1.0 / (modes as f64).sqrt()),
        }
    }
}

impl<T: Real> Device<T> for Plate<T> {
    const NAME: &'static str = "Plate";

    fn states(&self) -> usize {
        2 * self.stiffness.len()
    }

    fn rate(&self, s: &[T], u: T, rate: &mut [T]) {
        let (q, p) = s.split_at(self.stiffness.len());
        let (to_q, to_p) = rate.split_at_mut(q.len());
        to_q.copy_from_slice(p);
        for (m, force) in to_p.iter_mut().enumerate() {
            let spring = self.stiffness[m] + self.cubic * q[m] * q[m];
            *force = self.drive[m] * u - self.damping * p[m] - spring * q[m];
        }
    }

    fn vjp(&self, s: &[T], _u: T, back: &[T], into: &mut [T]) -> T {
        let modes = self.stiffness.len();
        let three = T::from_f64(3.0);
        let mut sum = T::ZERO;
        for m in 0..modes {
            let (q, force) = (s[m], back[modes + m]);
            into[m] = -(self.stiffness[m] + three * self.cubic * q * q) * force;
            into[modes + m] = back[m] - self.damping * force;
            sum += self.drive[m] * force;
        }
        sum
    }

    fn jvp(&self, s: &[T], ds: &[T], du: T, rate: &mut [T]) {
        let modes = self.stiffness.len();
        let three = T::from_f64(3.0);
        for m in 0..modes {
            let (q, dq, dp) = (s[m], ds[m], ds[modes + m]);
            rate[m] = dp;
            let spring = self.stiffness[m] + three * self.cubic * q * q;
            rate[modes + m] = self.drive[m] * du - self.damping * dp - spring * dq;
        }
    }

    fn reading(&self, s: &[T]) -> T {
        self.pickup.iter().zip(s).map(|(&r, &q)| r * q).sum()
    }

    fn push_reading(&self, _s: &[T], ds: &[T]) -> T {
        self.pickup.iter().zip(ds).map(|(&r, &q)| r * q).sum()
    }

    fn pull_reading(&self, _s: &[T], back: T, into: &mut [T]) {
        into.iter_mut().zip(&self.pickup).for_each(|(into, &r)| *into += r * back);
    }

    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Self {
        let modes = self.stiffness.len();
        let off = |values: &[T], group: u32| -> Vec<T> {
            values
                .iter()
                .zip(factors::<T>(modes, mismatch, random, group))
                .map(|(&v, f)| v * f)
                .collect()
        };
        let common: Vec<T> = factors(2, mismatch, random, group + 3);
        Self {
            damping: self.damping * common[0].abs(),
            cubic: self.cubic * common[1].abs(),
            stiffness: off(&self.stiffness, group).into_iter().map(T::abs).collect(),
            drive: off(&self.drive, group + 1),
            pickup: off(&self.pickup, group + 2),
        }
    }
}
