//! Tiki-Taka: changes go to a fast array, which is read line by line and transferred to the slow
//! one that computes.
//!
//! Pulses up and down of a cell differ, and so random changes pull it to the state where they do
//! not, its symmetric point. What that does to the fast array is seen as an offset of a small
//! signal, and matters little to the slow one.

use pnncore_kernels::Real;
use serde::{Deserialize, Serialize};

use super::array::{Arrays, CellState, Change, Draws};
use super::cells::{Cells, Pulsed};
use super::pulses::PulseCounts;
use crate::analog::io::{Io, Scale};
use crate::params::ParamSpec;
use crate::runtime::Runtime;
use crate::settings::{below_one, positive};
use crate::{Error, Result};

/// What happens to a line that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Version {
    /// It goes to the slow array (Gokmen and Haensch 2020).
    V1,
    /// It is summed digitally, and the slow array gets a pulse per whole step (Gokmen 2021).
    V2,
    /// The same; and lines go to the fast array with one sign and then with the other, which
    /// cancels offsets (Rasch et al. 2024).
    Chopped,
    /// The same, less what was read at the end of the last period: the reference follows (Rasch et
    /// al. 2024).
    Agad,
}

/// How changes get to the array that computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// What happens to a line that was read.
    pub version: Version,
    /// The cells of the fast array; `None`: those of the slow one.
    pub fast: Option<Pulsed>,
    /// The rate at which changes go to the fast array; `None`: that of the optimizer.
    pub fast_rate: Option<f64>,
    /// By how much the slow array (or the sum) changes per unit that is read.
    pub rate: f64,
    /// Samples per transfer of a line.
    pub every: f64,
    /// Steps of the slow array that the sum must reach.
    pub threshold: f64,
    /// What is left of the part of the sum that becomes pulses.
    pub momentum: f64,
    /// Transfers of a line between two changes of its sign.
    pub period: u32,
    /// How lines are read.
    pub io: Io,
}

/// Beyond this a double cannot count.
const MOST_ROUNDS: usize = 1 << 52;

/// Transfers whose mean is the reference, as a part of a period: the last fifth.
const TAIL: f64 = 5.0;

/// An array of cells, its state, and its random numbers.
type Array<'a, 'b, 'c, T> = (&'a Cells<T>, &'b mut CellState<'c, T>, Draws);

impl Transfer {
    pub(super) fn check(&self) -> Result<()> {
        if let Some(fast) = &self.fast {
            fast.check()?;
        }
        self.io.check()?;
        if self.io.scale != Scale::Absmax {
            return Err(Error::Config(
                "lines are read with an input of one: leave scale out of the io of transfers"
                    .into(),
            ));
        }
        let sizes = [
            ("rate", Some(self.rate)),
            ("every", Some(self.every)),
            ("threshold", Some(self.threshold)),
        ];
        for (name, value) in sizes.into_iter().chain([("fast_rate", self.fast_rate)]) {
            value.map_or(Ok(()), |value| positive(name, value))?;
        }
        below_one("momentum", self.momentum)?;
        if self.period == 0 {
            return Err(Error::Config("period must be at least 1 transfer, got 0".into()));
        }
        Ok(())
    }

    /// Refuses to transfer a line of an array of `rows` more than once per sample.
    pub(super) fn check_lines(&self, rows: usize) -> Result<()> {
        // A little less, for 1 / rows is rounded.
        if self.every * rows as f64 >= 1.0 - 1e-9 {
            return Ok(());
        }
        Err(Error::Config(format!(
            "every must be at least 1 / {rows} for an array of {rows} lines, which transfers all \
             of them after every sample; got {}",
            self.every
        )))
    }

    /// What is kept between updates besides the arrays themselves: `clock` holds the part of a
    /// transfer that is due, the next line, and how often all lines were transferred.
    pub(super) fn memory(&self, rows: usize, cols: usize) -> Vec<ParamSpec> {
        let named = |name: &str, shape: Vec<usize>| ParamSpec { name: name.to_owned(), shape };
        let mut all = vec![named("clock", vec![3])];
        if self.version != Version::V1 {
            all.push(named("sum", vec![rows, cols]));
        }
        if self.version == Version::Agad {
            all.extend([named("mean", vec![rows, cols]), named("reference", vec![rows, cols])]);
        }
        all
    }

    /// Whether the sign of lines changes.
    fn chops(&self) -> bool {
        matches!(self.version, Version::Chopped | Version::Agad)
    }

    /// Which period of its sign a line is in after so many transfers.
    fn period_of(&self, transfers: usize) -> usize {
        if self.chops() { transfers / self.period as usize } else { 0 }
    }

    /// Sends a change to the fast array, and transfers the lines that are due. Returns how many
    /// pulses came to cells.
    #[allow(clippy::too_many_arguments, reason = "two arrays, and what is between them")]
    pub(super) fn update<T: Real>(
        &self,
        runtime: &Runtime,
        arrays: &Arrays<T>,
        rate: f64,
        change: Change<'_, T>,
        (slow, to, slow_draws): Array<'_, '_, '_, T>,
        (fast, from, fast_draws): Array<'_, '_, '_, T>,
        memory: &mut [&mut [T]],
    ) -> f64 {
        let (rows, cols) = (arrays.rows, arrays.cols);
        let Some((clock, kept)) = memory.split_first_mut() else { return 0.0 };
        // A clock comes from a file, too: what no clock shows must not overflow, or transfer lines
        // for ever.
        let whole = |value: T, most: usize| (value.to_f64() as usize).min(most);
        let mut due = clock[0].to_f64().clamp(0.0, 1.0);
        let (next, rounds) =
            (whole(clock[1], rows.saturating_sub(1)), whole(clock[2], MOST_ROUNDS));
        // Lines before the next one have been transferred once more than those after it.
        let transfers = |j: usize| rounds + usize::from(j < next);
        let signs: Vec<T> = (0..rows)
            .map(|j| if self.period_of(transfers(j)).is_multiple_of(2) { T::ONE } else { -T::ONE })
            .collect();
        let factor = self.fast_rate.map_or(1.0, |fast| fast / rate);
        let sent = arrays.sent(runtime, fast, change, (rate, factor, &signs), fast_draws);
        let mut total = arrays.send(runtime, fast, &sent, from, fast_draws);
        fast.age(runtime, cols, from, fast_draws);
        due += sent.samples() as f64 / self.every;
        let lines = due as usize;
        for n in 0..lines {
            let line = next + n;
            let (j, before) = (line % rows, rounds + line / rows);
            let own = j * cols..(j + 1) * cols;
            let random = (fast_draws.random, fast_draws.group + 5, n);
            let read = self.io.read_line(
                runtime.level(),
                &from.values[own.clone()],
                &arrays.offsets,
                random,
            );
            let wanted = self.wanted(slow, read, before, own, kept);
            let draws = Draws { row: (line - j) as u64, ..slow_draws };
            total +=
                slow.send(runtime, j..j + 1, cols, &PulseCounts::Cells(wanted), false, to, draws);
        }
        let line = next + lines;
        clock[0] = T::from_f64(due - lines as f64);
        clock[1] = T::from_f64((line % rows) as f64);
        clock[2] = T::from_f64((rounds + line / rows) as f64);
        total
    }

    /// The pulses that the slow array gets for a line that was read after `before` transfers of it.
    fn wanted<T: Real>(
        &self,
        slow: &Cells<T>,
        read: Vec<T>,
        before: usize,
        own: std::ops::Range<usize>,
        kept: &mut [&mut [T]],
    ) -> Vec<T> {
        let gain = T::from_f64(self.rate / (self.threshold * slow.device.granularity()));
        let Some((sum, followed)) = kept.split_first_mut() else {
            let gain = T::from_f64(self.rate / slow.device.granularity());
            return read.into_iter().map(|v| gain * v).collect();
        };
        let period = self.period_of(before);
        let gain = if period.is_multiple_of(2) { gain } else { -gain };
        let begins = period > 0 && before.is_multiple_of(self.period as usize);
        let follow = T::from_f64((TAIL / f64::from(self.period)).min(1.0));
        let keep = T::from_f64(self.momentum);
        let mut wanted = Vec::with_capacity(read.len());
        for (i, &v) in own.zip(&read) {
            let mut signal = v;
            if let [mean, reference] = followed {
                if begins {
                    reference[i] = mean[i];
                }
                signal = v - reference[i];
                mean[i] += follow * (v - mean[i]);
            }
            sum[i] += gain * signal;
            let pulses = T::from_f64(sum[i].to_f64().trunc());
            sum[i] -= (T::ONE - keep) * pulses;
            wanted.push(pulses);
        }
        if self.version == Version::Agad && period == 0 {
            // There is no reference yet.
            wanted.fill(T::ZERO);
        }
        wanted
    }
}
