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
    /// The neighbours of the heaters of interferometers, and of those of the outputs.
    neighbours: [Vec<Neighbours>; 2],
}

/// The heaters next to one in its column, above and below.
type Neighbours = [Option<u32>; 2];

impl Shifters {
    /// Perfect heaters.
    pub(super) fn new(circuit: &Circuit, voltage: Option<f64>) -> Self {
        let mut inner = vec![[None; 2]; circuit.pairs.len()];
        for column in circuit.columns() {
            for k in column.start + 1..column.end {
                // Unless there is a gap where one would be.
                if circuit.pairs[k][0] - circuit.pairs[k - 1][0] <= 2 {
                    (inner[k - 1][1], inner[k][0]) = (Some(k as u32), Some(k as u32 - 1));
                }
            }
        }
        let last = circuit.outputs.len() as u32;
        let ends = (0..last).map(|k| [k.checked_sub(1), (k + 1 < last).then_some(k + 1)]);
        let neighbours = [inner, ends.collect()];
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

    /// Phase `k` of array `i` at these settings, with what it has drifted by.
    pub(super) fn phase<T: Real>(
        &self,
        (i, k): (usize, usize),
        settings: &[T],
        drift: Option<&[T]>,
    ) -> f64 {
        let turned = |k: usize| self.law(self.rounded(settings[k].to_f64()));
        // What a heater turns by: where settings are phases, the least one that does.
        let heat = |k: usize| match self.voltage {
            Some(_) => turned(k),
            None => turned(k).rem_euclid(TAU),
        };
        turned(k)
            + self.share((i, k), heat)
            + self.errors[i].get(k).copied().unwrap_or(0.0)
            + drift.map_or(0.0, |drift| drift[k].to_f64())
    }

    /// What a loss changes by with setting `k` of array `i`, by what it changes by with phases:
    /// rounding is passed over.
    pub(super) fn pull_back<T: Real>(
        &self,
        (i, k): (usize, usize),
        settings: &[T],
        by_phase: impl Fn(usize) -> f64,
    ) -> f64 {
        self.slope(settings[k].to_f64()) * (by_phase(k) + self.share((i, k), by_phase))
    }

    /// By how much phase `k` of array `i` changes with settings.
    pub(super) fn push_forward<T: Real>(
        &self,
        (i, k): (usize, usize),
        settings: &[T],
        along: &[T],
    ) -> f64 {
        let moved = |k: usize| self.slope(settings[k].to_f64()) * along[k].to_f64();
        moved(k) + self.share((i, k), moved)
    }

    /// The slope of the law that the twin knows, at a setting.
    pub(super) fn slope(&self, setting: f64) -> f64 {
        match self.voltage {
            Some(half_turn) => TAU * setting / (half_turn * half_turn),
            None => 1.0,
        }
    }

    /// The setting that makes a phase, which is not negative.
    pub(super) fn setting(&self, phase: f64) -> f64 {
        match self.voltage {
            Some(half_turn) => half_turn * (phase / PI).sqrt(),
            None => phase,
        }
    }

    /// The share of what its neighbours have that comes to a heater.
    fn share(&self, (i, k): (usize, usize), own: impl Fn(usize) -> f64) -> f64 {
        if self.crosstalk == 0.0 {
            return 0.0;
        }
        let neighbours = self.neighbours[usize::from(i == 2)][k].into_iter().flatten();
        self.crosstalk * neighbours.map(|k| own(k as usize)).sum::<f64>()
    }

    fn law(&self, setting: f64) -> f64 {
        match self.voltage {
            Some(half_turn) => PI * (setting / half_turn).powi(2),
            None => setting,
        }
    }

    fn rounded(&self, setting: f64) -> f64 {
        let Some(bits) = self.bits else { return setting };
        let turn = self.voltage.map_or(TAU, |half_turn| half_turn * 2f64.sqrt());
        let step = turn / f64::from(bits).exp2();
        (setting / step).round_ties_even() * step
    }
}
