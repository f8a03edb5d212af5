//! An analog transistor circuit: a driven resonator whose voltage a transistor reads and loads.

use pnncore_kernels::Real;
use pnncore_kernels::philox::Philox;

use serde::Deserialize;

use super::layer::factors;
use super::layer_spec::{LayerOutline, LayerSpec, Parts, Site};
use super::multiplexed::{Device, Multiplexed, outline};
use crate::Result;

/// The description of an analog transistor circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransistorSpec {
    /// The number of inputs.
    pub inputs: usize,
    /// The number of parameters.
    pub parameters: usize,
}

/// The voltage and the current of the resonator.
const STATES: usize = 2;

/// Steps per unit of time.
const SUBSTEPS: usize = 4;

impl LayerSpec for TransistorSpec {
    const KIND: &'static str = "transistor";

    fn outline(&self, _site: &Site) -> Result<LayerOutline> {
        outline(self.inputs, self.parameters, STATES, SUBSTEPS)
    }

    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        let Self { inputs, parameters } = *self;
        Ok(Parts::of(
            Multiplexed { device: Transistor::NOMINAL, inputs, parameters, substeps: SUBSTEPS },
            site,
        ))
    }
}

/// C v' = (u - v) / R - i - I(v), L i' = v - r i, with the current I(v) = k ln(1 + exp((v -
/// threshold) / width))^2 that an ideal long-channel transistor has from weak to strong inversion;
/// it is also what is read. One unit of time is the time that an input is on; voltages are in units
/// of the drive's.
#[derive(Debug, Clone)]
struct Transistor {
    capacitance: f64,
    inductance: f64,
    source: f64,
    series: f64,
    gain: f64,
    threshold: f64,
    width: f64,
}

impl Transistor {
    /// A resonance of about one radian per unit of time, damped within some of them.
    const NOMINAL: Self = Self {
        capacitance: 1.0,
        inductance: 1.0,
        source: 1.5,
        series: 0.2,
        gain: 1.0,
        threshold: 0.2,
        width: 0.5,
    };

    /// The current at a voltage, and its slope.
    fn current(&self, v: f64) -> (f64, f64) {
        let z = (v - self.threshold) / self.width;
        // ln(1 + exp(z)) without overflow.
        let soft = z.max(0.0) + (-z.abs()).exp().ln_1p();
        (self.gain * soft * soft, 2.0 * self.gain * soft / (self.width * (1.0 + (-z).exp())))
    }
}

impl<T: Real> Device<T> for Transistor {
    const NAME: &'static str = "TransistorCircuit";

    fn states(&self) -> usize {
        STATES
    }

    fn rate(&self, s: &[T], u: T, rate: &mut [T]) {
        let (v, i) = (s[0].to_f64(), s[1].to_f64());
        let drain = self.current(v).0;
        rate[0] = T::from_f64(((u.to_f64() - v) / self.source - i - drain) / self.capacitance);
        rate[1] = T::from_f64((v - self.series * i) / self.inductance);
    }

    fn vjp(&self, s: &[T], _u: T, back: &[T], into: &mut [T]) -> T {
        let slope = self.current(s[0].to_f64()).1;
        let (v, i) = (back[0].to_f64() / self.capacitance, back[1].to_f64() / self.inductance);
        into[0] = T::from_f64(i - v * (1.0 / self.source + slope));
        into[1] = T::from_f64(-v - self.series * i);
        T::from_f64(v / self.source)
    }

    fn jvp(&self, s: &[T], ds: &[T], du: T, rate: &mut [T]) {
        let slope = self.current(s[0].to_f64()).1;
        let (v, i) = (ds[0].to_f64(), ds[1].to_f64());
        rate[0] = T::from_f64(((du.to_f64() - v) / self.source - i - slope * v) / self.capacitance);
        rate[1] = T::from_f64((v - self.series * i) / self.inductance);
    }

    fn reading(&self, s: &[T]) -> T {
        T::from_f64(self.current(s[0].to_f64()).0)
    }

    fn push_reading(&self, s: &[T], ds: &[T]) -> T {
        T::from_f64(self.current(s[0].to_f64()).1) * ds[0]
    }

    fn pull_reading(&self, s: &[T], back: T, into: &mut [T]) {
        into[0] += T::from_f64(self.current(s[0].to_f64()).1) * back;
    }

    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Self {
        let off: Vec<f64> = factors(7, mismatch, random, group);
        let positive = |k: usize| off[k].abs().max(0.1);
        Self {
            capacitance: self.capacitance * positive(0),
            inductance: self.inductance * positive(1),
            source: self.source * positive(2),
            series: self.series * positive(3),
            gain: self.gain * off[4],
            threshold: self.threshold * off[5],
            width: self.width * positive(6),
        }
    }
}
