//! Phase shifters: what phases a mesh's settings make, in its twin and in its hardware.

use std::f64::consts::{PI, TAU};

use pnncore_kernels::Real;
use pnncore_kernels::philox::Philox;

use super::layout::Circuit;

/// The three arrays of a mesh's parameters: the second and the first shifter of every
/// interferometer, and the shifters at the outputs.
pub(super) const NAMES: [&str; 3] = ["theta", "phi", "gamma"];

/// The law of heaters and what is imperfect about them.
#[derive(Debug, Clone)]
pub(super) struct Shifters {
    /// The voltage that turns a phase by pi, phase = pi (V / V_pi)^2; `None`: settings are phases.
    pub voltage: Option<f64>,
    /// Settings are rounded to 2^bits of them in a turn.
    pub bits: Option<u32>,
    /// The share of a heater's phase that each neighbour in its column gets.
    pub crosstalk: f64,
    /// What every phase is off by; empty: nothing.
    pub errors: [Vec<f64>; 3],
    /// Which shifters of an interferometer, or of the outputs, are neighbours.
    neighbours: [Vec<[u32; 2]>; 2],
}

impl Shifters {
    /// Perfect heaters.
    pub(super) fn new(circuit: &Circuit, voltage: Option<f64>) -> Self {
        // The next heater of the column, unless there is a gap where one would be.
        let next = |column: std::ops::Range<usize>| {
            let pairs = &circuit.pairs;
            let apart = |k: usize| pairs[k + 1][0] - pairs[k][0];
            (column.start..column.end.saturating_sub(1))
                .filter(move |&k| apart(k) <= 2)
                .map(|k| [k as u32, k as u32 + 1])
        };
        let ends = (1..circuit.outputs.len() as u32).map(|k| [k - 1, k]).collect();
        let neighbours = [circuit.columns().flat_map(next).collect(), ends];
        Self { voltage, bits: None, crosstalk: 0.0, errors: Default::default(), neighbours }
    }

    /// Whether a change of a setting is one of its phase alone, and as large.
    pub(super) fn are_direct(&self) -> bool {
        self.voltage.is_none() && self.crosstalk == 0.0
    }

    /// Draws what phases are off by, of this standard deviation.
    pub(super) fn draw_errors(
        &mut self,
        deviation: f64,
        sizes: [usize; 3],
        random: Philox,
        group: u32,
    ) {
        if deviation > 0.0 {
            self.errors = std::array::from_fn(|i| {
                let group = group + i as u32;
                (0..sizes[i] as u64).map(|k| deviation * random.normal(k, group)).collect()
            });
        }
    }

    /// The phases of array `i` at these settings, with what they have drifted by.
    pub(super) fn phases<T: Real>(
        &self,
        i: usize,
        settings: &[T],
        drift: Option<&[T]>,
    ) -> Vec<f64> {
        let mut phases: Vec<f64> =
            settings.iter().map(|&own| self.law(self.rounded(own.to_f64()))).collect();
        if self.crosstalk > 0.0 {
            // What a heater turns by: where settings are phases, the least one that does.
            let heat: Vec<f64> = match self.voltage {
                Some(_) => phases.clone(),
                None => phases.iter().map(|phase| phase.rem_euclid(TAU)).collect(),
            };
            self.share(i, &heat, &mut phases);
        }
        phases.iter_mut().zip(&self.errors[i]).for_each(|(phase, off)| *phase += off);
        let drift = drift.unwrap_or_default();
        phases.iter_mut().zip(drift).for_each(|(phase, off)| *phase += off.to_f64());
        phases
    }

    /// Makes what a loss changes by with phases of array `i` what it changes by with their
    /// settings: rounding is passed over.
    pub(super) fn pull_back<T: Real>(&self, i: usize, settings: &[T], gradient: &mut [f64]) {
        if self.crosstalk > 0.0 {
            let own = gradient.to_vec();
            self.share(i, &own, gradient);
        }
        self.to_settings(settings, gradient);
    }

    /// The same as the twin's law has it, which knows of no crosstalk.
    pub(super) fn to_settings<T: Real>(&self, settings: &[T], gradient: &mut [f64]) {
        if self.voltage.is_some() {
            for (gradient, &own) in gradient.iter_mut().zip(settings) {
                *gradient *= self.slope(own.to_f64());
            }
        }
    }

    /// Makes changes of settings of array `i` changes of phases.
    pub(super) fn push_forward<T: Real>(&self, i: usize, settings: &[T], along: &[T]) -> Vec<f64> {
        let moved = settings.iter().zip(along);
        let moved = moved.map(|(&own, &along)| self.slope(own.to_f64()) * along.to_f64());
        let mut phases: Vec<f64> = moved.collect();
        if self.crosstalk > 0.0 {
            let own = phases.clone();
            self.share(i, &own, &mut phases);
        }
        phases
    }

    /// The setting that makes a phase.
    pub(super) fn setting(&self, phase: f64) -> f64 {
        match self.voltage {
            Some(half_turn) => half_turn * (phase.rem_euclid(TAU) / PI).sqrt(),
            None => phase,
        }
    }

    /// Adds a share of what the neighbours have.
    fn share(&self, i: usize, from: &[f64], to: &mut [f64]) {
        for &[a, b] in &self.neighbours[usize::from(i == 2)] {
            let (a, b) = (a as usize, b as usize);
            to[a] += self.crosstalk * from[b];
            to[b] += self.crosstalk * from[a];
        }
    }

    fn law(&self, setting: f64) -> f64 {
        match self.voltage {
            Some(half_turn) => PI * (setting / half_turn).powi(2),
            None => setting,
        }
    }

    /// The slope of the law.
    fn slope(&self, setting: f64) -> f64 {
        match self.voltage {
            Some(half_turn) => TAU * setting / (half_turn * half_turn),
            None => 1.0,
        }
    }

    fn rounded(&self, setting: f64) -> f64 {
        let Some(bits) = self.bits else { return setting };
        let turn = self.voltage.map_or(TAU, |half_turn| half_turn * 2f64.sqrt());
        let step = turn / f64::from(bits).exp2();
        (setting / step).round_ties_even() * step
    }
}
