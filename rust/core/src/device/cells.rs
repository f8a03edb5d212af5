//! Cells that pulses move: what they are made of, and how they differ from each other.

use pnncore_kernels::philox::Philox;
use pnncore_kernels::{Level, Real, pulses};
use serde::{Deserialize, Serialize};

use crate::settings::{at_least_zero, positive, share};
use crate::{Error, Result};

/// How the step of a pulse depends on where the cell is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "law", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Law {
    /// It does not.
    Constant,
    /// Steps times 1 - gamma w / bound, with the bound that they go to.
    Linear {
        /// gamma of pulses up.
        up: f64,
        /// gamma of pulses down.
        down: f64,
        /// The relative deviation of both among cells.
        spread: f64,
        /// Whether the bound is that of the device, and not that of the cell.
        mean_bound: bool,
    },
    /// Steps times max(1 - A exp(gamma z), 0), with z = 2 a w / range + b; down with -gamma.
    Exponential {
        /// A and gamma of pulses up.
        up: (f64, f64),
        /// A and gamma of pulses down.
        down: (f64, f64),
        /// a.
        a: f64,
        /// b.
        b: f64,
    },
    /// Steps times (distance from the bound that they go to, over the range)^gamma.
    Power {
        /// gamma of pulses up.
        up: f64,
        /// gamma of pulses down.
        down: f64,
    },
    /// Steps times factors, measured at places that are evenly spaced from the lower bound to the
    /// upper.
    Table {
        /// Factors of pulses up.
        up: Vec<f64>,
        /// Factors of pulses down.
        down: Vec<f64>,
    },
}

/// Relative deviations of constants among cells.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// Of the step.
    pub step: f64,
    /// Of how much larger steps up are than steps down, in units of the step.
    pub up_down: f64,
    /// Of the lower bound.
    pub lower: f64,
    /// Of the upper bound.
    pub upper: f64,
    /// Of the lifetime.
    pub lifetime: f64,
}

/// A device that moves by pulses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pulsed {
    /// The mean step of a pulse, before the law.
    pub step: f64,
    /// By which part of a step pulses up are larger than those down: the smaller of the two is
    /// reduced.
    pub up_down: f64,
    /// The lowest state: at most zero.
    pub lower: f64,
    /// The highest state: at least zero.
    pub upper: f64,
    /// How steps depend on the state.
    pub law: Law,
    /// How cells differ from each other.
    pub spread: Spread,
    /// The deviation of a step from one pulse to the next, relative to it.
    pub cycle: f64,
    /// Whether that is relative to the step before the law.
    pub additive: bool,
    /// The deviation of what a write adds to what is seen of a cell, in steps.
    pub write_noise: f64,
    /// After how many updates a cell has lost all but 1 / e of its state; `None`: it loses nothing.
    pub lifetime: Option<f64>,
    /// The deviation by which a state wanders in every update, in steps.
    pub diffusion: f64,
    /// The fraction of cells that are stuck, anywhere in their range.
    pub stuck: f64,
}

impl Pulsed {
    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting, what it is and what it may be.
    pub fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::Config(text));
        let Spread { step, up_down, lower, upper, lifetime } = self.spread;
        positive("step", self.step)?;
        for (name, value) in [
            ("step_spread", step),
            ("up_down_spread", up_down),
            ("lower_spread", lower),
            ("upper_spread", upper),
            ("lifetime_spread", lifetime),
            ("cycle_noise", self.cycle),
            ("write_noise", self.write_noise),
            ("diffusion", self.diffusion),
        ] {
            at_least_zero(name, value)?;
        }
        if self.up_down.abs() >= 1.0 || self.up_down.is_nan() {
            return refuse(format!("up_down must be between -1 and 1, got {}", self.up_down));
        }
        if !(self.lower <= 0.0
            && self.upper >= 0.0
            && self.lower < self.upper
            && self.upper - self.lower < f64::INFINITY)
        {
            return refuse(format!(
                "zero must lie within lower and upper, and these must be finite and differ, got {} \
                 and {}",
                self.lower, self.upper
            ));
        }
        if let Some(lifetime) = self.lifetime.filter(|t| !(*t >= 1.0 && t.is_finite())) {
            return refuse(format!(
                "lifetime must be at least 1 update, and finite, got {lifetime}"
            ));
        }
        share("stuck", self.stuck)?;
        self.check_law()
    }

    fn check_law(&self) -> Result<()> {
        let finite = |name: &str, values: &[f64]| match values.iter().find(|v| !v.is_finite()) {
            Some(v) => Err(Error::Config(format!("{name} must be finite, got {v}"))),
            None => Ok(()),
        };
        match &self.law {
            Law::Constant => Ok(()),
            Law::Linear { up, down, spread, .. } => {
                if (*up != 0.0 && self.upper == 0.0) || (*down != 0.0 && self.lower == 0.0) {
                    return Err(Error::Config(
                        "steps that shrink towards a bound need one that is not zero".into(),
                    ));
                }
                at_least_zero("gamma_spread", *spread)?;
                finite("gamma", &[*up, *down])
            }
            Law::Exponential { up, down, a, b } => {
                finite("A, gamma, a and b", &[up.0, up.1, down.0, down.1, *a, *b])
            }
            Law::Power { up, down } => {
                [up, down].into_iter().try_for_each(|&gamma| at_least_zero("gamma", gamma))
            }
            Law::Table { up, down } => {
                if up.len() < 2 || down.len() < 2 {
                    return Err(Error::Config("a table needs at least two steps each way".into()));
                }
                up.iter().chain(down).try_for_each(|&f| at_least_zero("steps of a table", f))
            }
        }
    }

    /// The mean of the steps up and down of a device without spread, at zero.
    pub fn granularity(&self) -> f64 {
        let (mut up, mut down) = self.steps();
        let place = -self.lower / (self.upper - self.lower);
        match &self.law {
            Law::Constant | Law::Linear { .. } => {}
            Law::Exponential { up: u, down: d, b, .. } => {
                up *= (1.0 - u.0 * (u.1 * b).exp()).max(0.0);
                down *= (1.0 - d.0 * (-d.1 * b).exp()).max(0.0);
            }
            Law::Power { up: u, down: d } => {
                up *= (1.0 - place).powf(*u);
                down *= place.powf(*d);
            }
            Law::Table { up: u, down: d } => {
                let at = |table: &[f64]| {
                    let place = place * (table.len() - 1) as f64;
                    let k = (place as usize).min(table.len() - 2);
                    table[k] + (table[k + 1] - table[k]) * (place - k as f64)
                };
                up *= at(u);
                down *= at(d);
            }
        }
        let mean = 0.5 * (up + down);
        if mean > 0.0 { mean } else { self.step }
    }

    /// The steps up and down of a device without spread, before the law.
    fn steps(&self) -> (f64, f64) {
        (self.step * (1.0 + self.up_down.min(0.0)), self.step * (1.0 - self.up_down.max(0.0)))
    }
}

/// What makes each cell of an array what it is.
#[derive(Debug, Clone)]
pub(super) struct Cells<T> {
    pub(super) device: Pulsed,
    pub(super) up: Vec<T>,
    pub(super) down: Vec<T>,
    /// Empty unless the law has slopes.
    pub(super) up_slope: Vec<T>,
    pub(super) down_slope: Vec<T>,
    pub(super) lower: Vec<T>,
    pub(super) upper: Vec<T>,
    /// What is left of a state after an update; empty: all.
    pub(super) keep: Vec<T>,
    tables: [Vec<T>; 2],
    /// Whether pulses down go to other cells.
    one_way: bool,
}

/// Groups of random numbers that the constants of an array take.
pub(super) const GROUPS_OF_CELLS: u32 = 16;

/// Normal numbers of a deviation, from one group of random numbers.
fn deviations(n: usize, random: Philox, group: u32, deviation: f64) -> Vec<f64> {
    let mut drawn = vec![0.0; n];
    if deviation > 0.0 {
        random.fill_normal(Level::get(), 0, group, &mut drawn);
    }
    drawn.iter_mut().for_each(|x| *x *= deviation);
    drawn
}

/// How the steps of linear cells change with their states: -step gamma (1 + off) over the bound, or
/// over the mean of all bounds.
fn slopes<T: Real>(
    step: &[f64],
    bound: &[f64],
    mean: Option<f64>,
    gamma: f64,
    off: &[f64],
) -> Vec<T> {
    let own = |i: usize| -step[i] * gamma * (1.0 + off[i]) / mean.unwrap_or(bound[i]);
    let each = |i: usize| T::from_f64(if step[i] == 0.0 { 0.0 } else { own(i) });
    (0..step.len()).map(each).collect()
}

impl<T: Real> Cells<T> {
    /// `n` cells, with constants drawn from groups `group..` of `random`.
    pub(super) fn draw(device: &Pulsed, n: usize, random: Philox, group: u32) -> Self {
        let normal = |kind: u32, deviation: f64| deviations(n, random, group + kind, deviation);
        let spread = &device.spread;
        let (gain, tilt) = (normal(0, spread.step), normal(1, spread.up_down));
        let (low, high) = (normal(2, spread.lower), normal(3, spread.upper));
        let number = T::from_f64;
        let (mean_up, mean_down) = device.steps();
        let mut up: Vec<f64> =
            gain.iter().zip(&tilt).map(|(g, t)| (mean_up + device.step * (g + t)).abs()).collect();
        let mut down: Vec<f64> = gain
            .iter()
            .zip(&tilt)
            .map(|(g, t)| -(mean_down + device.step * (g - t)).abs())
            .collect();
        let mut lower: Vec<f64> = low.iter().map(|x| device.lower * (1.0 + x).abs()).collect();
        let mut upper: Vec<f64> = high.iter().map(|x| device.upper * (1.0 + x).abs()).collect();
        if device.stuck > 0.0 {
            let (mut fate, mut place) = (vec![0.0; n], vec![0.0; n]);
            random.fill(Level::get(), 0, group + 4, &mut fate);
            random.fill(Level::get(), 0, group + 5, &mut place);
            for i in (0..n).filter(|&i| fate[i] < device.stuck) {
                let state = lower[i] + place[i] * (upper[i] - lower[i]);
                (up[i], down[i], lower[i], upper[i]) = (0.0, 0.0, state, state);
            }
        }
        let (mut up_slope, mut down_slope) = (Vec::new(), Vec::new());
        if let Law::Linear { up: gamma_up, down: gamma_down, spread, mean_bound } = device.law {
            let slope = |step: &[f64], bound: &[f64], mean: f64, gamma: f64, kind: u32| {
                let mean = mean_bound.then_some(mean);
                slopes(step, bound, mean, gamma, &normal(kind, spread))
            };
            up_slope = slope(&up, &upper, device.upper, gamma_up, 6);
            down_slope = slope(&down, &lower, device.lower, gamma_down, 7);
        }
        // They live for at least one update.
        let lost = |lifetime: f64, x: f64| 1.0 / (lifetime * (1.0 + x).abs()).max(1.0);
        let keep = device.lifetime.map_or_else(Vec::new, |lifetime| {
            let off = normal(8, spread.lifetime);
            off.iter().map(|&x| number(1.0 - lost(lifetime, x))).collect()
        });
        let tables = match &device.law {
            Law::Table { up, down } => {
                [up, down].map(|table| table.iter().map(|&f| number(f)).collect())
            }
            _ => Default::default(),
        };
        let rounded = |values: Vec<f64>| values.into_iter().map(number).collect::<Vec<T>>();
        Self {
            device: device.clone(),
            up: rounded(up),
            down: rounded(down),
            up_slope,
            down_slope,
            lower: rounded(lower),
            upper: rounded(upper),
            keep,
            tables,
            one_way: false,
        }
    }

    /// The same cells, which get no pulses down.
    pub(super) fn upward(self) -> Self {
        Self { one_way: true, ..self }
    }

    /// Sends pulses to row `j` of `cols` cells each, whose states are `weights`. Returns how many
    /// came.
    #[allow(clippy::too_many_arguments, reason = "cells, and what comes to them")]
    pub(super) fn pulse(
        &self,
        level: Level,
        (j, cols): (usize, usize),
        counts: pulses::Counts<'_, T>,
        at_once: bool,
        source: pulses::Source,
        weights: &mut [T],
        visible: &mut [T],
        counted: &mut [T],
    ) -> f64 {
        let own = j * cols..(j + 1) * cols;
        let mut row = pulses::Row {
            weights,
            visible,
            pulses: counted,
            up: &self.up[own.clone()],
            down: &self.down[own.clone()],
            up_slope: self.up_slope.get(own.clone()).unwrap_or_default(),
            down_slope: self.down_slope.get(own.clone()).unwrap_or_default(),
            lower: &self.lower[own.clone()],
            upper: &self.upper[own],
            one_way: self.one_way,
        };
        let device = &self.device;
        let number = T::from_f64;
        let scatter = pulses::Scatter {
            cycle: number(device.cycle),
            additive: device.additive,
            write: number(device.write_noise * device.step),
        };
        let row = &mut row;
        let both = |(factor, gamma): (f64, f64)| (number(factor), number(gamma));
        match device.law {
            Law::Constant => {
                pulses::pulse(level, pulses::Constant, scatter, counts, at_once, source, row)
            }
            Law::Linear { .. } => {
                pulses::pulse(level, pulses::Linear, scatter, counts, at_once, source, row)
            }
            Law::Exponential { up, down, a, b } => {
                let law = pulses::Exponential {
                    up: both(up),
                    down: both(down),
                    a: number(a),
                    b: number(b),
                };
                pulses::pulse(level, law, scatter, counts, at_once, source, row)
            }
            Law::Power { up, down } => {
                let law = pulses::Power { up: number(up), down: number(down) };
                pulses::pulse(level, law, scatter, counts, at_once, source, row)
            }
            Law::Table { .. } => {
                let law = pulses::Table { up: &self.tables[0], down: &self.tables[1] };
                pulses::pulse(level, law, scatter, counts, at_once, source, row)
            }
        }
    }
}
