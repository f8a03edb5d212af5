//! Tiles: arrays of cells that are changed by pulses, and the algorithms that decide which pulses
//! come.

use std::borrow::Cow;

use pnncore_kernels::gemm::{Strided, multiply};
use pnncore_kernels::philox::{Philox, Purpose};
use pnncore_kernels::pulses::Source;
use pnncore_kernels::sparse::Dense;
use pnncore_kernels::{Real, add_scaled};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::cells::{Cells, GROUPS_OF_CELLS, Pulsed};
use super::pulses::{PulseCounts, RowPulses, Trains};
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

/// A change that is wanted of the weights.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a, T> {
    /// Minus the rate of the optimizer times the sum of outer products of rows: blocks (left,
    /// right).
    Product(&'a [(Vec<T>, Vec<T>)]),
    /// Element by element.
    Dense(&'a [T]),
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

/// An array of cells.
#[derive(Debug, Clone)]
pub struct CellArray<T> {
    spec: TileSpec,
    rows: usize,
    cols: usize,
    cells: Cells<T>,
    /// The other arrays of a unit, or the second one of an algorithm that has one.
    others: Vec<Cells<T>>,
    /// What is read of the lines of the second one is off by; empty: nothing.
    offsets: Vec<T>,
    /// How many arrays updates keep.
    kept: usize,
}

/// The state of an array of cells.
#[derive(Debug)]
pub(super) struct CellState<'a, T> {
    /// What is seen of the cells.
    pub values: &'a mut [T],
    /// How many pulses each has had.
    pub pulses: &'a mut [T],
    /// By how much what is seen is off the state; empty: by nothing.
    pub offset: &'a mut [T],
}

impl<T: Real> CellState<'_, T> {
    /// The state of a cell.
    pub(super) fn state(&self, i: usize) -> T {
        self.values[i] - self.offset.get(i).copied().unwrap_or(T::ZERO)
    }
}

/// Where an array of cells gets its random numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draws {
    pub random: Philox,
    pub group: u32,
    /// What is added to the numbers of rows: those of several sends in an update differ by it.
    pub row: u64,
}

/// Groups of random numbers that the updates of an array take.
pub(super) const GROUPS_OF_UPDATE: u32 = 16;

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
        let mut tile = Self { spec: spec.clone(), rows, cols, cells, others, offsets, kept: 0 };
        tile.kept = tile.memory().len();
        Ok(tile)
    }

    /// The cells that compute; the first of them.
    pub(super) fn cells(&self) -> &Cells<T> {
        &self.cells
    }

    /// The cells of all arrays.
    pub(super) fn all_cells(&self) -> impl Iterator<Item = &Cells<T>> {
        std::iter::once(&self.cells).chain(&self.others)
    }

    /// What is read of lines is off by; empty: nothing.
    pub(super) fn offsets(&self) -> &[T] {
        &self.offsets
    }

    /// Names and shapes of the arrays that updates keep, all of them zero before the first.
    pub fn memory(&self) -> Vec<ParamSpec> {
        let named = |name: &str, shape: Vec<usize>| ParamSpec { name: name.to_owned(), shape };
        let full = |name: &str| named(name, vec![self.rows, self.cols]);
        let array = |prefix: &str, cells: &Cells<T>| {
            let mut own = vec![full(&format!("{prefix}pulses"))];
            if cells.device.write_noise > 0.0 {
                own.push(full(&format!("{prefix}offset")));
            }
            own
        };
        let mut all = array("", &self.cells);
        match self.spec.unit {
            Unit::Single => {}
            Unit::Pair { .. } => all.extend([full("minus"), full("minus_pulses")]),
            Unit::Multi { .. } => {
                for (k, cells) in self.others.iter().enumerate() {
                    all.push(full(&format!("cell{}", k + 2)));
                    all.extend(array(&format!("cell{}_", k + 2), cells));
                }
            }
        }
        match (&self.spec.algorithm, self.others.first()) {
            (Algorithm::MixedPrecision { .. }, _) => all.push(full("sum")),
            (Algorithm::Transfer(transfer), Some(fast)) => {
                all.push(full("fast"));
                all.extend(array("fast_", fast));
                all.extend(transfer.memory(self.rows, self.cols));
            }
            _ => {}
        }
        all
    }

    /// How many arrays updates keep.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Rows and columns.
    pub(super) fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
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
        let (lower, upper) = (&self.cells.lower, &self.cells.upper);
        match (&self.spec.unit, self.others.first()) {
            (Unit::Pair { .. }, Some(minus)) => {
                let less = |from: &[T], by: &[T]| {
                    from.iter().zip(by).map(|(&from, &by)| from - by).collect()
                };
                (less(lower, &minus.upper), less(upper, &minus.lower))
            }
            (Unit::Multi { significance, .. }, _) => {
                let sum = |end: fn(&Cells<T>) -> &[T]| {
                    let mut total = vec![T::ZERO; upper.len()];
                    for (cells, &g) in self.all_cells().zip(significance) {
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
        let mut store = CellState { values, pulses: next(true), offset: next(noisy(&self.cells)) };
        let mut others = Vec::new();
        if self.spec.unit != Unit::Single {
            for cells in &self.others {
                let (values, pulses, offset) = (next(true), next(true), next(noisy(cells)));
                others.push(CellState { values, pulses, offset });
            }
        }
        let (chosen, gain) = self.spec.unit.chosen(own, place.step);
        let cells = (&self.cells, &mut store, own);
        let sent = match (&self.spec.algorithm, self.others.first()) {
            (Algorithm::Transfer(transfer), Some(fast)) => {
                let mut hidden =
                    CellState { values: next(true), pulses: next(true), offset: next(noisy(fast)) };
                let (fast, rest) =
                    ((fast, &mut hidden, other), &mut memory.collect::<Vec<_>>()[..]);
                let sent = transfer.update(runtime, self, place.rate, change, cells, fast, rest);
                self.cells.age(runtime, self.cols, &mut store, own);
                return sent;
            }
            (Algorithm::MixedPrecision { threshold }, _) => {
                let step = threshold * gain * self.spec.device.granularity();
                self.summed(runtime, change, place.rate, step, next(true))
            }
            _ => self.sent(runtime, &self.cells, change, (place.rate, 1.0 / gain, &[]), own),
        };
        let own = (&mut store, own);
        match (&self.spec.unit, self.others.first(), others.first_mut()) {
            (&Unit::Pair { refresh }, Some(minus), Some(below)) => {
                self.update_pair(runtime, sent, refresh, own, (minus, below, other))
            }
            (Unit::Multi { significance, .. }, ..) => {
                self.update_multi(runtime, &sent, (significance, chosen), own, &mut others)
            }
            _ => {
                let (store, draws) = own;
                let total = self.send(runtime, &self.cells, &sent, store, draws);
                self.cells.age(runtime, self.cols, store, draws);
                total
            }
        }
    }

    /// The pulses that a change, made at a rate, asks of an array of cells: times a factor, and
    /// with these signs of its rows (empty: plus).
    pub(super) fn sent(
        &self,
        runtime: &Runtime,
        cells: &Cells<T>,
        change: Change<'_, T>,
        (rate, factor, signs): (f64, f64, &[T]),
        draws: Draws,
    ) -> PulseCounts<T> {
        let step = cells.device.granularity();
        match change {
            Change::Product(blocks) => {
                let mut x = Vec::with_capacity(blocks.iter().map(|(x, _)| x.len()).sum());
                blocks.iter().for_each(|(own, _)| x.extend_from_slice(own));
                if !signs.is_empty() {
                    x.chunks_exact_mut(self.rows)
                        .for_each(|x| x.iter_mut().zip(signs).for_each(|(x, &s)| *x *= s));
                }
                let d: Vec<T> = blocks.iter().flat_map(|(_, d)| d).map(|&d| -d).collect();
                let random = (draws.random, draws.group);
                self.spec.trains.send(
                    runtime.level(),
                    (&x, self.rows),
                    (&d, self.cols),
                    rate * factor,
                    step,
                    random,
                )
            }
            Change::Dense(change) => {
                let pulses = T::from_f64(factor / step);
                let sign = |row: usize| signs.get(row).copied().unwrap_or(T::ONE);
                PulseCounts::Cells(
                    change
                        .iter()
                        .enumerate()
                        .map(|(k, &c)| c * pulses * sign(k / self.cols))
                        .collect(),
                )
            }
        }
    }

    /// Sends pulses to all rows of an array of cells.
    pub(super) fn send(
        &self,
        runtime: &Runtime,
        cells: &Cells<T>,
        sent: &PulseCounts<T>,
        store: &mut CellState<'_, T>,
        draws: Draws,
    ) -> f64 {
        cells.send(runtime, 0..self.rows, self.cols, sent, self.spec.trains.at_once, store, draws)
    }

    /// Adds a change to a sum, and takes all whole steps out of it: the pulses that are due.
    fn summed(
        &self,
        runtime: &Runtime,
        change: Change<'_, T>,
        rate: f64,
        step: f64,
        sum: &mut [T],
    ) -> PulseCounts<T> {
        match change {
            Change::Dense(change) => add_scaled(runtime.level(), change, T::ONE, sum),
            Change::Product(blocks) => {
                for (x, d) in blocks {
                    let x: Vec<T> = x.iter().map(|&x| x * T::from_f64(-rate)).collect();
                    let x = Strided { data: &x, row: 1, column: self.rows };
                    let shape = (self.rows, d.len() / self.cols, self.cols);
                    multiply(
                        runtime.level(),
                        x,
                        Dense { data: d, stride: self.cols },
                        shape,
                        sum,
                        self.cols,
                    );
                }
            }
        }
        // Converting to an integer cuts, and is a form that compilers make vectors of.
        let (number, each) = (T::from_f64(1.0 / step), T::from_f64(step));
        let due = sum.iter_mut().map(|sum| {
            let pulses = T::from_i32((*sum * number).to_f64() as i32);
            *sum -= pulses * each;
            pulses
        });
        PulseCounts::Cells(due.collect())
    }
}

impl<T: Real> Cells<T> {
    /// Sends pulses to `rows` of an array with `cols` columns.
    #[allow(clippy::too_many_arguments, reason = "cells, and what comes to them")]
    pub(super) fn send(
        &self,
        runtime: &Runtime,
        rows: std::ops::Range<usize>,
        cols: usize,
        sent: &PulseCounts<T>,
        at_once: bool,
        store: &mut CellState<'_, T>,
        draws: Draws,
    ) -> f64 {
        /// About what a cell takes per sample, in multiply-adds.
        const COST: usize = 32;
        let count = rows.len();
        let chunk =
            count.div_ceil(runtime.parts(COST * sent.samples() * count * cols, count)).max(1);
        let own = rows.start * cols..rows.end * cols;
        let mut totals = vec![0.0; count.div_ceil(chunk)];
        let noisy = !store.offset.is_empty();
        let offsets = if noisy { &mut store.offset[own.clone()] } else { &mut [][..] };
        let mut offsets: Vec<&mut [T]> = offsets.chunks_mut(chunk * cols).collect();
        offsets.resize_with(totals.len(), Default::default);
        let pieces = store.values[own.clone()]
            .par_chunks_mut(chunk * cols)
            .zip(store.pulses[own].par_chunks_mut(chunk * cols))
            .zip(offsets.into_par_iter())
            .zip(totals.par_iter_mut());
        runtime.for_each(pieces.enumerate(), |(c, (((values, pulses), offset), total))| {
            let (mut heard, mut state) = (RowPulses::default(), Vec::new());
            let own = values.chunks_exact_mut(cols).zip(pulses.chunks_exact_mut(cols));
            for (k, (values, pulses)) in own.enumerate() {
                let j = rows.start + c * chunk + k;
                let Draws { random, group, row } = draws;
                let source = Source { random, group: group + 2, row: row + j as u64 };
                let counts = sent.row((j, c * chunk + k), cols, &mut heard);
                let mut send = |state: &mut [T], values: &mut [T]| {
                    let level = runtime.level();
                    self.pulse(level, (j, cols), counts, at_once, source, state, values, pulses)
                };
                if !noisy {
                    *total += send(values, &mut []);
                    continue;
                }
                let offset = &mut offset[k * cols..(k + 1) * cols];
                state.clear();
                state.extend(values.iter().zip(&*offset).map(|(&value, &offset)| value - offset));
                *total += send(&mut state, values);
                for ((offset, &value), &state) in offset.iter_mut().zip(&*values).zip(&state) {
                    *offset = value - state;
                }
            }
        });
        totals.iter().sum()
    }

    /// Lets cells lose and wander for one update.
    pub(super) fn age(
        &self,
        runtime: &Runtime,
        cols: usize,
        store: &mut CellState<'_, T>,
        draws: Draws,
    ) {
        let deviation = T::from_f64(self.device.diffusion * self.device.step);
        if self.keep.is_empty() && deviation == T::ZERO {
            return;
        }
        let mut drawn = vec![T::ZERO; cols];
        for (j, values) in store.values.chunks_exact_mut(cols).enumerate() {
            if deviation > T::ZERO {
                let first = (j * cols.next_multiple_of(64)) as u64;
                draws.random.fill_normal(runtime.level(), first, draws.group + 4, &mut drawn);
            }
            for (i, value) in values.iter_mut().enumerate() {
                let k = j * cols + i;
                let offset = store.offset.get(k).copied().unwrap_or(T::ZERO);
                let state = (*value - offset) * self.keep.get(k).copied().unwrap_or(T::ONE)
                    + deviation * drawn[i];
                *value = offset + state.within(self.lower[k], self.upper[k]);
            }
        }
    }
}
