//! Tiles: arrays of cells that are changed by pulses, and the algorithms that decide which pulses come.

use pnncore_kernels::gemm::{Strided, multiply};
use pnncore_kernels::philox::{Philox, Purpose};
use pnncore_kernels::pulses::Source;
use pnncore_kernels::sparse::Dense;
use pnncore_kernels::{Real, add_scaled};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::cells::{Cells, GROUPS_OF_CELLS, Pulsed};
use super::pulses::{Heard, Sent, Trains};
use super::transfer::Transfer;
use crate::lab::Lab;
use crate::params::ParamSpec;
use crate::{Error, Result};

/// How wanted changes become pulses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "algorithm", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Algorithm {
    /// As they come: outer products by trains on rows and columns, anything else cell by cell.
    Direct,
    /// Changes are summed digitally, and cells get a pulse for every whole step of it (Le Gallo et al. 2018).
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
    /// Whether every weight is the difference of two cells that only move up: the part of their range above which one of them makes both
    /// lose what they have in common.
    pub pair: Option<f64>,
    /// How outer products are sent.
    pub trains: Trains,
    /// How changes become pulses.
    pub algorithm: Algorithm,
}

/// A change that is wanted of the weights.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a, T> {
    /// Minus the rate of the optimizer times the sum of outer products of rows: blocks (left, right).
    Product(&'a [(Vec<T>, Vec<T>)]),
    /// Element by element.
    Dense(&'a [T]),
}

/// Which update of which array this is.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The number of the parameter.
    pub parameter: usize,
    /// Updates before this one.
    pub step: u64,
    /// The rate of the optimizer.
    pub rate: f64,
}

/// An array of cells.
#[derive(Debug, Clone)]
pub struct Tile<T> {
    spec: TileSpec,
    rows: usize,
    cols: usize,
    cells: Cells<T>,
    /// The second array of an algorithm that has one.
    second: Option<Cells<T>>,
    /// How many arrays updates keep.
    kept: usize,
}

/// The state of an array of cells.
#[derive(Debug)]
pub(super) struct Store<'a, T> {
    /// What is seen of the cells.
    pub values: &'a mut [T],
    /// How many pulses each has had.
    pub pulses: &'a mut [T],
    /// By how much what is seen is off the state; empty: by nothing.
    pub offset: &'a mut [T],
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
const GROUPS_OF_UPDATE: u32 = 16;

/// Arrays of cells that a parameter may have.
const ARRAYS: u32 = 2;

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
            Algorithm::MixedPrecision { threshold } if *threshold > 0.0 && threshold.is_finite() => Ok(()),
            Algorithm::MixedPrecision { threshold } => {
                Err(Error::Config(format!("threshold must be positive and finite, got {threshold}")))
            }
            Algorithm::Transfer(transfer) => transfer.check(),
        }?;
        let Some(refresh) = self.pair else { return Ok(()) };
        let refuse = |text: String| Err(Error::Config(text));
        if !(refresh > 0.0 && refresh <= 1.0) {
            return refuse(format!("refresh must be above 0 and at most 1, got {refresh}"));
        }
        if self.device.lower < 0.0 {
            return refuse(format!("cells of a pair begin at 0: lower must be 0, got {}", self.device.lower));
        }
        if self.device.write_noise > 0.0 {
            return refuse("pairs of cells with write_noise are not modelled".into());
        }
        if matches!(self.algorithm, Algorithm::Transfer(_)) {
            return refuse("transfers to pairs of cells are not modelled: use MixedPrecision".into());
        }
        Ok(())
    }
}

impl<T: Real> Tile<T> {
    /// The array of parameter number `parameter`, of this shape, with cells drawn from `seed`.
    ///
    /// # Errors
    /// As [`TileSpec::check`].
    pub fn new(spec: &TileSpec, (rows, cols): (usize, usize), seed: u64, parameter: usize) -> Result<Self> {
        spec.check()?;
        let random = Philox::new(seed, Purpose::Cells);
        let group = GROUPS_OF_CELLS * ARRAYS * parameter as u32;
        let draw =
            |device: &Pulsed, array: u32| Cells::draw(device, rows * cols, random, group + GROUPS_OF_CELLS * array);
        let (mut cells, mut second) = (draw(&spec.device, 0), None);
        if spec.pair.is_some() {
            cells = cells.upward();
            second = Some(draw(&spec.device, 1).upward());
        }
        if let Algorithm::Transfer(transfer) = &spec.algorithm {
            second = Some(draw(transfer.fast.as_ref().unwrap_or(&spec.device), 1));
        }
        let mut tile = Self { spec: spec.clone(), rows, cols, cells, second, kept: 0 };
        tile.kept = tile.memory().len();
        Ok(tile)
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
        if self.spec.pair.is_some() {
            all.extend([full("minus"), full("minus_pulses")]);
        }
        match (&self.spec.algorithm, &self.second) {
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
        for (i, value) in values.iter_mut().enumerate() {
            let (lower, upper) = self.range(i);
            *value = if *value < lower { lower } else { *value };
            *value = if *value > upper { upper } else { *value };
        }
    }

    /// The first value that its cell cannot have, and the range of that. What is seen of cells whose writes are noisy may be anything.
    pub fn outside(&self, values: &[T]) -> Option<(usize, (T, T))> {
        if self.spec.device.write_noise > 0.0 {
            return None;
        }
        let range = |i: usize| self.range(i);
        let found = values.iter().enumerate().position(|(i, &v)| v < range(i).0 || v > range(i).1);
        found.map(|i| (i, range(i)))
    }

    fn range(&self, i: usize) -> (T, T) {
        let minus = self.second.as_ref().filter(|_| self.spec.pair.is_some());
        let lower = minus.map_or(self.cells.lower[i], |minus| -minus.upper[i]);
        (lower, self.cells.upper[i])
    }

    /// Changes `values` as near to what is wanted as pulses can. `memory` holds the arrays of [`Tile::memory`]. Returns how many pulses
    /// came to cells.
    pub fn update(
        &self,
        lab: &Lab,
        place: Place,
        change: Change<'_, T>,
        values: &mut [T],
        memory: &mut [&mut [T]],
    ) -> f64 {
        let random = lab.random(Purpose::Pulses).at(place.step);
        let group = GROUPS_OF_UPDATE * ARRAYS * place.parameter as u32;
        let own = Draws { random, group, row: 0 };
        let other = Draws { group: group + GROUPS_OF_UPDATE, ..own };
        let mut memory = memory.iter_mut().map(|array| &mut **array);
        let mut next = |is_there: bool| is_there.then(|| memory.next()).flatten().unwrap_or_default();
        let noisy = |cells: &Cells<T>| cells.device.write_noise > 0.0;
        let mut store = Store { values, pulses: next(true), offset: next(noisy(&self.cells)) };
        let mut below = Store { values: &mut [], pulses: &mut [], offset: &mut [] };
        if self.spec.pair.is_some() {
            (below.values, below.pulses) = (next(true), next(true));
        }
        let sent = match (&self.spec.algorithm, &self.second) {
            (Algorithm::Transfer(transfer), Some(fast)) => {
                let mut hidden = Store { values: next(true), pulses: next(true), offset: next(noisy(fast)) };
                let (slow, fast) = ((&self.cells, &mut store, own), (fast, &mut hidden, other));
                let sent = transfer.update(lab, self, place.rate, change, slow, fast, &mut memory.collect::<Vec<_>>());
                self.cells.age(lab, self.cols, &mut store, own);
                return sent;
            }
            (Algorithm::MixedPrecision { threshold }, _) => {
                self.summed(lab, change, place.rate, threshold * self.spec.device.granularity(), next(true))
            }
            _ => self.sent(lab, &self.cells, change, (place.rate, 1.0, &[]), own),
        };
        match (self.spec.pair, &self.second) {
            (Some(refresh), Some(minus)) => {
                self.update_pair(lab, sent, refresh, (&mut store, own), (minus, &mut below, other))
            }
            _ => {
                let total = self.send(lab, &self.cells, &sent, &mut store, own);
                self.cells.age(lab, self.cols, &mut store, own);
                total
            }
        }
    }

    /// The pulses that a change, made at a rate, asks of an array of cells: times a factor, and with these signs of its rows (empty:
    /// plus).
    pub(super) fn sent(
        &self,
        lab: &Lab,
        cells: &Cells<T>,
        change: Change<'_, T>,
        (rate, factor, signs): (f64, f64, &[T]),
        draws: Draws,
    ) -> Sent<T> {
        let step = cells.device.granularity();
        let sign = |row: usize| signs.get(row).copied().unwrap_or(T::ONE);
        match change {
            Change::Product(blocks) => {
                let x = blocks.iter().flat_map(|(x, _)| x).enumerate().map(|(k, &x)| x * sign(k % self.rows));
                let x: Vec<T> = x.collect();
                let d: Vec<T> = blocks.iter().flat_map(|(_, d)| d).map(|&d| -d).collect();
                let random = (draws.random, draws.group);
                self.spec.trains.send(lab.level(), (&x, self.rows), (&d, self.cols), rate * factor, step, random)
            }
            Change::Dense(change) => {
                let pulses = T::from_f64(factor / step);
                Sent::Cells(change.iter().enumerate().map(|(k, &c)| c * pulses * sign(k / self.cols)).collect())
            }
        }
    }

    /// Sends pulses to all rows of an array of cells.
    pub(super) fn send(
        &self,
        lab: &Lab,
        cells: &Cells<T>,
        sent: &Sent<T>,
        store: &mut Store<'_, T>,
        draws: Draws,
    ) -> f64 {
        cells.send(lab, 0..self.rows, self.cols, sent, self.spec.trains.at_once, store, draws)
    }

    /// Adds a change to a sum, and takes all whole steps out of it: the pulses that are due.
    fn summed(&self, lab: &Lab, change: Change<'_, T>, rate: f64, step: f64, sum: &mut [T]) -> Sent<T> {
        match change {
            Change::Dense(change) => add_scaled(lab.level(), change, T::ONE, sum),
            Change::Product(blocks) => {
                for (x, d) in blocks {
                    let x: Vec<T> = x.iter().map(|&x| x * T::from_f64(-rate)).collect();
                    let x = Strided { data: &x, row: 1, column: self.rows };
                    let shape = (self.rows, d.len() / self.cols, self.cols);
                    multiply(lab.level(), x, Dense { data: d, stride: self.cols }, shape, sum, self.cols);
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
        Sent::Cells(due.collect())
    }

    /// Sends pulses up to one array and pulses down, as pulses up, to the other, of which `store` sees the difference.
    fn update_pair(
        &self,
        lab: &Lab,
        sent: Sent<T>,
        refresh: f64,
        (store, own): (&mut Store<'_, T>, Draws),
        (minus, below, other): (&Cells<T>, &mut Store<'_, T>, Draws),
    ) -> f64 {
        let mut above = Vec::with_capacity(store.values.len());
        for (value, below) in store.values.iter().zip(below.values.iter_mut()) {
            // A weight that was set from outside: the pair begins with one cell at zero.
            if *value + *below < T::ZERO {
                *below = -*value;
            }
            above.push(*value + *below);
        }
        let mut upper = Store { values: &mut above, pulses: &mut *store.pulses, offset: &mut [] };
        let mut total = self.send(lab, &self.cells, &sent, &mut upper, own);
        self.cells.age(lab, self.cols, &mut upper, own);
        total += self.send(lab, minus, &sent.opposite(), below, other);
        minus.age(lab, self.cols, below, other);
        let refresh = T::from_f64(refresh);
        for (i, (above, below)) in above.iter_mut().zip(below.values.iter_mut()).enumerate() {
            if *above > refresh * self.cells.upper[i] || *below > refresh * minus.upper[i] {
                let common = if *above < *below { *above } else { *below };
                *above -= common;
                *below -= common;
            }
        }
        let pairs = above.iter().zip(below.values.iter());
        store.values.iter_mut().zip(pairs).for_each(|(value, (&above, &below))| *value = above - below);
        total
    }
}

impl<T: Real> Cells<T> {
    /// Sends pulses to `rows` of an array with `cols` columns.
    #[allow(clippy::too_many_arguments, reason = "cells, and what comes to them")]
    pub(super) fn send(
        &self,
        lab: &Lab,
        rows: std::ops::Range<usize>,
        cols: usize,
        sent: &Sent<T>,
        at_once: bool,
        store: &mut Store<'_, T>,
        draws: Draws,
    ) -> f64 {
        /// About what a cell takes per sample, in multiply-adds.
        const COST: usize = 32;
        let count = rows.len();
        let chunk = count.div_ceil(lab.parts(COST * sent.samples() * count * cols, count)).max(1);
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
        lab.for_each(pieces.enumerate(), |(c, (((values, pulses), offset), total))| {
            let (mut heard, mut state) = (Heard::default(), Vec::new());
            for (k, (values, pulses)) in values.chunks_exact_mut(cols).zip(pulses.chunks_exact_mut(cols)).enumerate() {
                let j = rows.start + c * chunk + k;
                let source = Source { random: draws.random, group: draws.group + 2, row: draws.row + j as u64 };
                let counts = sent.row((j, c * chunk + k), cols, &mut heard);
                if noisy {
                    let offset = &mut offset[k * cols..(k + 1) * cols];
                    state.clear();
                    state.extend(values.iter().zip(&*offset).map(|(&value, &offset)| value - offset));
                    *total += self.pulse(lab.level(), (j, cols), counts, at_once, source, &mut state, values, pulses);
                    offset.iter_mut().zip(&*values).zip(&state).for_each(|((o, &v), &s)| *o = v - s);
                } else {
                    *total += self.pulse(lab.level(), (j, cols), counts, at_once, source, values, &mut [], pulses);
                }
            }
        });
        totals.iter().sum()
    }

    /// Lets cells lose and wander for one update.
    pub(super) fn age(&self, lab: &Lab, cols: usize, store: &mut Store<'_, T>, draws: Draws) {
        let deviation = T::from_f64(self.device.diffusion * self.device.step);
        if self.keep.is_empty() && deviation == T::ZERO {
            return;
        }
        let mut drawn = vec![T::ZERO; cols];
        for (j, values) in store.values.chunks_exact_mut(cols).enumerate() {
            if deviation > T::ZERO {
                let first = (j * cols.next_multiple_of(64)) as u64;
                draws.random.fill_normal(lab.level(), first, draws.group + 4, &mut drawn);
            }
            for (i, value) in values.iter_mut().enumerate() {
                let k = j * cols + i;
                let offset = store.offset.get(k).copied().unwrap_or(T::ZERO);
                let state = (*value - offset) * self.keep.get(k).copied().unwrap_or(T::ONE) + deviation * drawn[i];
                let state = if state < self.lower[k] { self.lower[k] } else { state };
                *value = offset + if state > self.upper[k] { self.upper[k] } else { state };
            }
        }
    }

    /// The same cells, which do not answer pulses down.
    fn upward(mut self) -> Self {
        self.down.fill(T::ZERO);
        self.down_slope.fill(T::ZERO);
        self
    }
}
