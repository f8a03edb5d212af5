//! Units: the cells that a weight is made of, and which of them a change goes to.

use pnncore_kernels::Real;
use serde::{Deserialize, Serialize};

use super::array::{Arrays, CellState, Draws, GROUPS_OF_UPDATE};
use super::cells::Cells;
use super::pulses::PulseCounts;
use crate::runtime::Runtime;
use crate::settings::{fraction, positive};
use crate::{Error, Result};

/// The cells that a weight is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "unit", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Unit {
    /// One.
    Single,
    /// Two that only move up, of which the weight is the difference.
    Pair {
        /// The part of their range above which one of them makes both lose what they have in
        /// common.
        refresh: f64,
    },
    /// Several, of which the weight is a sum (Boybat et al. 2018, Nat. Commun. 9, 2514).
    Multi {
        /// What each counts by.
        significance: Vec<f64>,
        /// Which of them a change goes to.
        choice: Choice,
    },
}

/// Which of several cells a change goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// All of them, with the same pulses.
    All,
    /// One after the other, from update to update.
    Cyclic,
    /// One, drawn anew for every update.
    Random,
}

/// The most cells of a weight.
const MOST: usize = 16;

impl Unit {
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::Config(text));
        match self {
            Self::Pair { refresh } => fraction("refresh", *refresh),
            Self::Multi { significance, .. } if !(2..=MOST).contains(&significance.len()) => {
                refuse(format!(
                    "significance must name 2 to {MOST} cells, got {}",
                    significance.len()
                ))
            }
            Self::Multi { significance, .. } => {
                significance.iter().try_for_each(|&g| positive("significance", g))
            }
            _ => Ok(()),
        }
    }

    /// How many arrays of cells there are.
    pub(super) fn cells(&self) -> usize {
        match self {
            Self::Single => 1,
            Self::Pair { .. } => 2,
            Self::Multi { significance, .. } => significance.len(),
        }
    }

    /// The cells that an update goes to, and by how much a weight changes where each of these
    /// changes by one.
    pub(super) fn chosen(&self, draws: Draws, step: u64) -> (std::ops::Range<usize>, f64) {
        let Self::Multi { significance, choice } = self else { return (0..1, 1.0) };
        let n = significance.len();
        let k = match choice {
            Choice::All => return (0..n, significance.iter().sum()),
            Choice::Cyclic => (step % n as u64) as usize,
            Choice::Random => {
                ((draws.random.uniform(0, draws.group + 6) * n as f64) as usize).min(n - 1)
            }
        };
        (k..k + 1, significance[k])
    }
}

impl<T: Real> Arrays<T> {
    /// Sends pulses up to one array and pulses down, as pulses up, to the other, of which `store`
    /// sees the difference.
    pub(super) fn update_pair(
        &self,
        runtime: &Runtime,
        sent: PulseCounts<T>,
        refresh: f64,
        (store, own): (&mut CellState<'_, T>, Draws),
        (minus, below, other): (&Cells<T>, &mut CellState<'_, T>, Draws),
    ) -> f64 {
        let (plus, mut above) = (&self.cells, Vec::with_capacity(store.values.len()));
        for (i, (&value, below)) in store.values.iter().zip(below.values.iter_mut()).enumerate() {
            // A weight that was set from outside, or that is new: as near to what the lower cell is
            // as the range of the upper one lets it, which is zero where both are free.
            *below = below
                .within(plus.lower[i] - value, plus.upper[i] - value)
                .within(minus.lower[i], minus.upper[i]);
            above.push((value + *below).within(plus.lower[i], plus.upper[i]));
        }
        let mut upper =
            CellState { values: &mut above, pulses: &mut *store.pulses, offset: &mut [] };
        let mut total = self.send(runtime, plus, &sent, &mut upper, own);
        plus.age(runtime, self.cols, &mut upper, own);
        total += self.send(runtime, minus, &sent.opposite(), below, other);
        minus.age(runtime, self.cols, below, other);
        let refresh = T::from_f64(refresh);
        for (i, (above, below)) in above.iter_mut().zip(below.values.iter_mut()).enumerate() {
            if *above > refresh * plus.upper[i] || *below > refresh * minus.upper[i] {
                // Cells that are stuck lose nothing.
                let (most, other) = (*above - plus.lower[i], *below - minus.lower[i]);
                let common = if most < other { most } else { other };
                *above -= common;
                *below -= common;
            }
        }
        let pairs = above.iter().zip(below.values.iter());
        store
            .values
            .iter_mut()
            .zip(pairs)
            .for_each(|(value, (&above, &below))| *value = above - below);
        total
    }

    /// Sends pulses to the chosen ones of several arrays, of which `store` sees the sum; `others`
    /// are those after the first: by how much their values are above an even share of the weights.
    pub(super) fn update_multi(
        &self,
        runtime: &Runtime,
        sent: &PulseCounts<T>,
        (significance, chosen): (&[f64], std::ops::Range<usize>),
        (store, own): (&mut CellState<'_, T>, Draws),
        others: &mut [CellState<'_, T>],
    ) -> f64 {
        let factors: Vec<T> = significance.iter().map(|&g| T::from_f64(g)).collect();
        let share = T::from_f64(1.0 / significance.iter().sum::<f64>());
        let even: Vec<T> = store.values.iter().map(|&value| value * share).collect();
        // What the others are above their shares, the first is below its own.
        let mut first = even.clone();
        for (other, &factor) in others.iter().zip(&factors[1..]) {
            let factor = factor / factors[0];
            first
                .iter_mut()
                .zip(&*other.values)
                .for_each(|(first, &above)| *first -= factor * above);
        }
        let mut parts = vec![CellState {
            values: &mut first,
            pulses: &mut *store.pulses,
            offset: &mut *store.offset,
        }];
        for other in &mut *others {
            other.values.iter_mut().zip(&even).for_each(|(value, &even)| *value += even);
            parts.push(CellState {
                values: &mut *other.values,
                pulses: &mut *other.pulses,
                offset: &mut *other.offset,
            });
        }
        let (sums, mut total) = (&mut *store.values, 0.0);
        self.share_out(&factors, sums, &mut parts);
        sums.fill(T::ZERO);
        for (k, (cells, part)) in self.all_cells().zip(&mut parts).enumerate() {
            let draws = Draws { group: own.group + k as u32 * GROUPS_OF_UPDATE, ..own };
            if chosen.contains(&k) {
                total += self.send(runtime, cells, sent, part, draws);
            }
            cells.age(runtime, self.cols, part, draws);
            sums.iter_mut().zip(&*part.values).for_each(|(sum, &value)| *sum += factors[k] * value);
        }
        for other in others {
            other.values.iter_mut().zip(&*sums).for_each(|(value, &sum)| *value -= share * sum);
        }
        total
    }

    /// Brings cells of weights into their ranges. What one of them cannot hold of its weight,
    /// others do, as far as they can.
    fn share_out(&self, factors: &[T], weights: &[T], parts: &mut [CellState<'_, T>]) {
        let mut moved = vec![false; weights.len()];
        for (cells, part) in self.all_cells().zip(&mut *parts) {
            for (i, moved) in moved.iter_mut().enumerate() {
                let state = part.state(i);
                let kept = state.within(cells.lower[i], cells.upper[i]);
                if kept != state {
                    part.values[i] += kept - state;
                    *moved = true;
                }
            }
        }
        for i in moved.iter().enumerate().filter(|(_, moved)| **moved).map(|(i, _)| i) {
            let held: T =
                parts.iter().zip(factors).map(|(part, &factor)| factor * part.values[i]).sum();
            let mut left = weights[i] - held;
            for ((cells, part), &factor) in self.all_cells().zip(&mut *parts).zip(factors) {
                let state = part.state(i);
                let taken = (state + left / factor).within(cells.lower[i], cells.upper[i]) - state;
                part.values[i] += taken;
                left -= factor * taken;
            }
        }
    }
}
