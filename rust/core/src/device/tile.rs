//! Tiles: arrays of cells that are changed by pulses, and the algorithms that decide which pulses
//! come.

use std::borrow::Cow;

use pnncore_kernels::Real;
use pnncore_kernels::philox::{Philox, Purpose};
use serde::{Deserialize, Serialize};

use super::array::{Arrays, CellState, Change, Draws, GROUPS_OF_UPDATE};
use super::cells::{Cells, GROUPS_OF_CELLS, Pulsed};
use super::pulses::Trains;
use super::transfer::Transfer;
use super::unit::Unit;
use crate::params::ParamSpec;
use crate::runtime::Runtime;
use crate::settings::positive;
use crate::{Error, Result};

/// How wanted changes become pulses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "algorithm", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Algorithm {
    /// As they come: outer products by trains on rows and columns, anything else cell by cell.
    Direct,
    /// Changes are summed digitally, and cells get a pulse for every whole step of it (Le Gallo et
    /// al. 2018).
    MixedPrecision {
        /// Steps of the device that make one of the sum.
        threshold: f64,
    },
    /// Changes go to a second array, which is read line by line and transferred (Tiki-Taka).
    Transfer(Box<Transfer>),
}

/// What a parameter is stored in, where that is an array of cells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TileSpec {
    /// The cells.
    pub device: Pulsed,
    /// Which cells a weight is made of.
    pub unit: Unit,
    /// How outer products are sent.
    pub trains: Trains,
    /// How changes become pulses.
    pub algorithm: Algorithm,
}

/// Which update of which array this is.
#[derive(Debug, Clone, Copy)]
pub struct UpdateKey {
    /// The number of the parameter.
    pub parameter: usize,
    /// Updates before this one.
    pub step: u64,
    /// The rate of the optimizer.
    pub rate: f64,
}

/// What stores a parameter, where that is an array of cells.
#[derive(Debug, Clone)]
pub struct CellArray<T> {
    spec: TileSpec,
    arrays: Arrays<T>,
    /// How many arrays updates keep.
    kept: usize,
}

/// Arrays of cells that a parameter may have.
const ARRAYS: u32 = 16;

impl TileSpec {
    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting.
    pub fn check(&self) -> Result<()> {
        self.device.check()?;
        self.trains.check()?;
        match &self.algorithm {
            Algorithm::Direct => Ok(()),
            Algorithm::MixedPrecision { threshold } => positive("threshold", *threshold),
            Algorithm::Transfer(transfer) => transfer.check(),
        }?;
        self.unit.check()?;
        let refuse = |text: &str| Err(Error::Config(text.to_owned()));
        if self.unit != Unit::Single && matches!(self.algorithm, Algorithm::Transfer(_)) {
            return refuse(
                "transfers to weights of several cells are not modelled: use MixedPrecision",
            );
        }
        if !matches!(self.unit, Unit::Pair { .. }) {
            return Ok(());
        }
        if self.device.lower < 0.0 {
            return Err(Error::Config(format!(
                "cells of a pair begin at 0: lower must be 0, got {}",
                self.device.lower
            )));
        }
        if self.device.write_noise > 0.0 {
            return refuse("pairs of cells with write_noise are not modelled");
        }
        Ok(())
    }
}

impl<T: Real> CellArray<T> {
    /// The array of parameter number `parameter`, of this shape, with cells drawn from `seed`.
    ///
    /// # Errors
    /// As [`TileSpec::check`].
    pub fn new(
        spec: &TileSpec,
        (rows, cols): (usize, usize),
        seed: u64,
        parameter: usize,
    ) -> Result<Self> {
        spec.check()?;
        let random = Philox::new(seed, Purpose::Cells);
        let group = GROUPS_OF_CELLS * ARRAYS * parameter as u32;
        let draw = |device: &Pulsed, array: u32| {
            Cells::draw(device, rows * cols, random, group + GROUPS_OF_CELLS * array)
        };
        let mut cells: Vec<Cells<T>> =
            (0..spec.unit.cells()).map(|k| draw(&spec.device, k as u32)).collect();
        if matches!(spec.unit, Unit::Pair { .. }) {
            cells = cells.into_iter().map(Cells::upward).collect();
        }
        let mut offsets = Vec::new();
        if let Algorithm::Transfer(transfer) = &spec.algorithm {
            transfer.check_lines(rows)?;
            cells.push(draw(transfer.fast.as_ref().unwrap_or(&spec.device), 1));
            offsets = transfer.io.offsets(cols, random, group + GROUPS_OF_CELLS * (ARRAYS - 1));
        }
        let others = cells.split_off(1);
        let cells = cells.swap_remove(0);
        let arrays = Arrays { rows, cols, trains: spec.trains, cells, others, offsets };
        let mut tile = Self { spec: spec.clone(), arrays, kept: 0 };
        tile.kept = tile.memory().len();
        Ok(tile)
    }

    /// Names and shapes of the arrays that updates keep, all of them zero before the first.
    pub fn memory(&self) -> Vec<ParamSpec> {
        let named = |name: &str, shape: Vec<usize>| ParamSpec { name: name.to_owned(), shape };
        let full = |name: &str| named(name, vec![self.arrays.rows, self.arrays.cols]);
        let array = |prefix: &str, cells: &Cells<T>| {
            let mut own = vec![full(&format!("{prefix}pulses"))];
            if cells.device.write_noise > 0.0 {
                own.push(full(&format!("{prefix}offset")));
            }
            own
        };
        let mut all = array("", &self.arrays.cells);
        match self.spec.unit {
            Unit::Single => {}
            Unit::Pair { .. } => all.extend([full("minus"), full("minus_pulses")]),
            Unit::Multi { .. } => {
                for (k, cells) in self.arrays.others.iter().enumerate() {
                    all.push(full(&format!("cell{}", k + 2)));
                    all.extend(array(&format!("cell{}_", k + 2), cells));
                }
            }
        }
        match (&self.spec.algorithm, self.arrays.others.first()) {
            (Algorithm::MixedPrecision { .. }, _) => all.push(full("sum")),
            (Algorithm::Transfer(transfer), Some(fast)) => {
                all.push(full("fast"));
                all.extend(array("fast_", fast));
                all.extend(transfer.memory(self.arrays.rows, self.arrays.cols));
            }
            _ => {}
        }
        all
    }

    /// How many arrays updates keep.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Brings values into the range of their cells.
    pub fn keep_within(&self, values: &mut [T]) {
        let (lower, upper) = self.ranges();
        for ((value, &lower), &upper) in values.iter_mut().zip(&*lower).zip(&*upper) {
            *value = value.within(lower, upper);
        }
    }

    /// The first value that its cell cannot have, and the range of that. What is seen of cells
    /// whose writes are noisy may be anything.
    pub fn outside(&self, values: &[T]) -> Option<(usize, (T, T))> {
        if self.spec.device.write_noise > 0.0 {
            return None;
        }
        let (lower, upper) = self.ranges();
        let mut within = values.iter().zip(&*lower).zip(&*upper);
        // All of them, for that vectorises; the first one is looked for where there is one.
        if !within.clone().fold(false, |any, ((v, lower), upper)| any | (v < lower) | (v > upper)) {
            return None;
        }
        let first = within.position(|((v, lower), upper)| v < lower || v > upper)?;
        Some((first, (lower[first], upper[first])))
    }

    /// The lowest and the highest value that each weight can have.
    fn ranges(&self) -> (Cow<'_, [T]>, Cow<'_, [T]>) {
        let (lower, upper) = (&self.arrays.cells.lower, &self.arrays.cells.upper);
        match (&self.spec.unit, self.arrays.others.first()) {
            (Unit::Pair { .. }, Some(minus)) => {
                let less = |from: &[T], by: &[T]| {
                    from.iter().zip(by).map(|(&from, &by)| from - by).collect()
                };
                (less(lower, &minus.upper), less(upper, &minus.lower))
            }
            (Unit::Multi { significance, .. }, _) => {
                let sum = |end: fn(&Cells<T>) -> &[T]| {
                    let mut total = vec![T::ZERO; upper.len()];
                    for (cells, &g) in self.arrays.all_cells().zip(significance) {
                        total
                            .iter_mut()
                            .zip(end(cells))
                            .for_each(|(total, &end)| *total += T::from_f64(g) * end);
                    }
                    total.into()
                };
                (sum(|cells| &cells.lower), sum(|cells| &cells.upper))
            }
            _ => (lower.into(), upper.into()),
        }
    }

    /// Sends single pulses to all cells, one after the other, up where they are positive and down
    /// where they are negative; each is an update. Returns the states (pulses + 1, cells), first
    /// those at the start, brought into the range of the cells.
    pub fn respond(&self, runtime: &Runtime, pulses: &[i8], start: &[T]) -> Vec<T> {
        let mut memory: Vec<Vec<T>> =
            self.memory().iter().map(|spec| vec![T::ZERO; spec.len()]).collect();
        let mut memory: Vec<&mut [T]> = memory.iter_mut().map(Vec::as_mut_slice).collect();
        let mut values = start.to_vec();
        self.keep_within(&mut values);
        let mut states = values.clone();
        let random = runtime.random(Purpose::Pulses);
        for (step, &pulse) in (0..).zip(pulses) {
            let draws = Draws { random: random.at(step), group: 0, row: 0 };
            let gain = self.spec.unit.chosen(draws, step).1;
            let each = gain * self.spec.device.granularity() * f64::from(pulse.signum());
            let change = vec![T::from_f64(each); values.len()];
            let place = UpdateKey { parameter: 0, step, rate: 1.0 };
            self.update(runtime, place, Change::Dense(&change), &mut values, &mut memory);
            states.extend_from_slice(&values);
        }
        states
    }

    /// Changes `values` as near to what is wanted as pulses can. `memory` holds the arrays of
    /// [`CellArray::memory`]. Returns how many pulses came to cells.
    pub fn update(
        &self,
        runtime: &Runtime,
        place: UpdateKey,
        change: Change<'_, T>,
        values: &mut [T],
        memory: &mut [&mut [T]],
    ) -> f64 {
        let random = runtime.random(Purpose::Pulses).at(place.step);
        let group = GROUPS_OF_UPDATE * ARRAYS * place.parameter as u32;
        let own = Draws { random, group, row: 0 };
        let other = Draws { group: group + GROUPS_OF_UPDATE, ..own };
        let mut memory = memory.iter_mut().map(|array| &mut **array);
        let mut next =
            |is_there: bool| is_there.then(|| memory.next()).flatten().unwrap_or_default();
        let noisy = |cells: &Cells<T>| cells.device.write_noise > 0.0;
        let mut store =
            CellState { values, pulses: next(true), offset: next(noisy(&self.arrays.cells)) };
        let mut others = Vec::new();
        if self.spec.unit != Unit::Single {
            for cells in &self.arrays.others {
                let (values, pulses, offset) = (next(true), next(true), next(noisy(cells)));
                others.push(CellState { values, pulses, offset });
            }
        }
        let (chosen, gain) = self.spec.unit.chosen(own, place.step);
        let cells = (&self.arrays.cells, &mut store, own);
        let sent = match (&self.spec.algorithm, self.arrays.others.first()) {
            (Algorithm::Transfer(transfer), Some(fast)) => {
                let mut hidden =
                    CellState { values: next(true), pulses: next(true), offset: next(noisy(fast)) };
                let (fast, rest) =
                    ((fast, &mut hidden, other), &mut memory.collect::<Vec<_>>()[..]);
                let sent =
                    transfer.update(runtime, &self.arrays, place.rate, change, cells, fast, rest);
                self.arrays.cells.age(runtime, self.arrays.cols, &mut store, own);
                return sent;
            }
            (Algorithm::MixedPrecision { threshold }, _) => {
                let step = threshold * gain * self.spec.device.granularity();
                self.arrays.summed(runtime, change, place.rate, step, next(true))
            }
            _ => self.arrays.sent(
                runtime,
                &self.arrays.cells,
                change,
                (place.rate, 1.0 / gain, &[]),
                own,
            ),
        };
        let own = (&mut store, own);
        match (&self.spec.unit, self.arrays.others.first(), others.first_mut()) {
            (&Unit::Pair { refresh }, Some(minus), Some(below)) => {
                self.arrays.update_pair(runtime, sent, refresh, own, (minus, below, other))
            }
            (Unit::Multi { significance, .. }, ..) => {
                self.arrays.update_multi(runtime, &sent, (significance, chosen), own, &mut others)
            }
            _ => {
                let (store, draws) = own;
                let total = self.arrays.send(runtime, &self.arrays.cells, &sent, store, draws);
                self.arrays.cells.age(runtime, self.arrays.cols, store, draws);
                total
            }
        }
    }
}
