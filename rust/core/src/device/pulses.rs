//! Pulses for outer products: what goes out on rows and columns of an array for a batch of inputs
//! and errors.

use pnncore_kernels::converter::largest;
use pnncore_kernels::philox::Philox;
use pnncore_kernels::pulses::{Counts, GROUP, MOST_SLOTS, trains};
use pnncore_kernels::{Level, Real};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How numbers become pulses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Every slot of a train has a pulse with a probability: rows and columns draw for themselves,
    /// and all cells of a line hear the same.
    Stochastic,
    /// The first slots of a row have pulses, and evenly spread ones of a column: they coincide as
    /// often as the product says, rounded.
    Deterministic,
    /// Every cell gets the number of pulses that the product says, rounded at random for itself.
    MeanCount,
}

/// How outer products are sent: stochastic update with trains of pulses (Gokmen and Vlasov 2016,
/// Gokmen et al. 2017).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trains {
    /// How numbers become pulses.
    pub kind: Kind,
    /// The most slots of a train.
    pub slots: u32,
    /// Whether trains are as short as the largest product lets them be.
    pub manage_length: bool,
    /// Whether rows and columns share the probability evenly, whatever their sizes are.
    pub balance: bool,
    /// Whether pulses of a sample are summed at once where their law lets them.
    pub at_once: bool,
}

/// What goes out for a batch.
#[derive(Debug)]
pub(super) enum PulseCounts<T> {
    /// Trains, in the order of [`trains`], and how many samples there are.
    Trains(Vec<u32>, Vec<u32>, usize),
    /// Numbers of pulses as products of `rows` (samples, height) and `columns` (samples, width), at
    /// most so many each.
    Means { rows: Vec<T>, height: usize, columns: Vec<T>, most: T },
    /// Numbers of pulses of each cell.
    Cells(Vec<T>),
}

impl Trains {
    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting.
    pub fn check(&self) -> Result<()> {
        if (1..=MOST_SLOTS).contains(&self.slots) {
            return Ok(());
        }
        Err(Error::Config(format!("slots must be 1 to {MOST_SLOTS}, got {}", self.slots)))
    }

    /// What goes out so that weights change by `rate` times the sum of x^T d on average, cells
    /// moving by `step` per pulse. `x` and `d` are (samples, width each); random numbers come from
    /// groups `group` and `group + 1`.
    pub(super) fn send<T: Real>(
        &self,
        level: Level,
        (x, height): (&[T], usize),
        (d, width): (&[T], usize),
        rate: f64,
        step: f64,
        (random, group): (Philox, u32),
    ) -> PulseCounts<T> {
        let samples = x.len() / height;
        if self.kind == Kind::MeanCount {
            let scale = T::from_f64(rate / step);
            let columns = d.iter().map(|&d| d * scale).collect();
            return PulseCounts::Means {
                rows: x.to_vec(),
                height,
                columns,
                most: T::from_f64(f64::from(self.slots)),
            };
        }
        let largest = |row: &[T]| largest(level, row).to_f64();
        let mut slots = vec![0; samples];
        let (mut of_x, mut of_d) = (vec![0.0; samples], vec![0.0; samples]);
        for s in 0..samples {
            let (most_x, most_d) =
                (largest(&x[s * height..][..height]), largest(&d[s * width..][..width]));
            let most = rate / step * most_x * most_d;
            if most <= 0.0 || most.is_nan() {
                continue;
            }
            slots[s] = if self.manage_length {
                (most.ceil() as u32).clamp(1, self.slots)
            } else {
                self.slots
            };
            let each = (rate / (step * f64::from(slots[s]))).sqrt();
            let tilt = if self.balance { (most_x / most_d).sqrt() } else { 1.0 };
            (of_x[s], of_d[s]) = (each / tilt, each * tilt);
        }
        let (mut rows, mut columns) = (Vec::new(), Vec::new());
        if self.kind == Kind::Stochastic {
            trains(level, x, (height, &slots), &of_x, (random, group), &mut rows);
            trains(level, d, (width, &slots), &of_d, (random, group + 1), &mut columns);
        } else {
            regular(x, (height, &slots), &of_x, first_slots, &mut rows);
            regular(d, (width, &slots), &of_d, spread_slots, &mut columns);
        }
        PulseCounts::Trains(rows, columns, samples)
    }
}

/// The first `n` slots.
fn first_slots(n: u32, _slots: u32) -> u32 {
    (1 << n) - 1
}

/// `n` of `slots` slots, so that of the first m slots n m / slots have pulses, rounded.
fn spread_slots(n: u32, slots: u32) -> u32 {
    let before = |slot: u32| (2 * n * slot + slots) / (2 * slots);
    (0..slots).filter(|&slot| before(slot + 1) > before(slot)).map(|slot| 1 << slot).sum()
}

/// Trains without chance, in the order of [`trains`]: as many pulses as the probability says,
/// rounded.
fn regular<T: Real>(
    values: &[T],
    (width, slots): (usize, &[u32]),
    scales: &[f64],
    place: fn(u32, u32) -> u32,
    out: &mut Vec<u32>,
) {
    let samples = scales.len();
    out.clear();
    out.resize(width.div_ceil(GROUP) * GROUP * samples, 0);
    for (s, values) in values.chunks_exact(width).enumerate().filter(|(s, _)| slots[*s] > 0) {
        for (i, value) in values.iter().enumerate() {
            let value = value.to_f64();
            let pulses = ((value.abs() * scales[s]).min(1.0) * f64::from(slots[s])).round() as u32;
            let sign = if value < 0.0 { 1 << 31 } else { 0 };
            out[(i / GROUP * samples + s) * GROUP + i % GROUP] = place(pulses, slots[s]) | sign;
        }
    }
}

/// What a row hears, sample by sample.
#[derive(Debug, Default)]
pub(super) struct RowPulses<T> {
    trains: Vec<(u32, u32)>,
    means: Vec<T>,
}

impl<T: Real> PulseCounts<T> {
    /// The same pulses the other way.
    pub(super) fn opposite(mut self) -> Self {
        match &mut self {
            Self::Trains(_, columns, _) => columns.iter_mut().for_each(|train| *train ^= 1 << 31),
            Self::Means { columns: numbers, .. } | Self::Cells(numbers) => {
                numbers.iter_mut().for_each(|n| *n = -*n)
            }
        }
        self
    }

    /// About how many times a cell may hear of a pulse.
    pub(super) fn samples(&self) -> usize {
        match self {
            Self::Trains(_, _, samples) => *samples,
            Self::Means { rows, height, .. } => rows.len() / height,
            Self::Cells(_) => 1,
        }
    }

    /// The pulses of row `j`, the `k`-th of those that pulses are sent to, with `cols` cells.
    pub(super) fn row<'a>(
        &'a self,
        (j, k): (usize, usize),
        cols: usize,
        heard: &'a mut RowPulses<T>,
    ) -> Counts<'a, T> {
        match self {
            Self::Trains(rows, columns, samples) => {
                heard.trains.resize(*samples, (0, 0));
                let mut n = 0;
                // Branch-free, for which samples have pulses is unpredictable.
                for (s, trains) in rows[j / GROUP * GROUP * samples..]
                    .chunks_exact(GROUP)
                    .take(*samples)
                    .enumerate()
                {
                    heard.trains[n] = (s as u32, trains[j % GROUP]);
                    n += usize::from(trains[j % GROUP] << 1 != 0);
                }
                heard.trains.truncate(n);
                Counts::Trains(&heard.trains, columns, *samples)
            }
            Self::Means { rows, height, columns, most } => {
                heard.means.clear();
                heard.means.extend(rows.iter().skip(j).step_by(*height));
                Counts::Means(&heard.means, columns, *most)
            }
            Self::Cells(numbers) => {
                heard.means.clear();
                heard.means.push(T::ONE);
                // No number of pulses in an update is larger.
                let most = T::from_f64(f64::from(1u32 << 20));
                Counts::Means(&heard.means, &numbers[k * cols..(k + 1) * cols], most)
            }
        }
    }
}
