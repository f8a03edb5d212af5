//! Arrays of cells: what stores a parameter, and how pulses come to it.

use pnncore_kernels::gemm::{Dense, Strided, multiply};
use pnncore_kernels::philox::Philox;
use pnncore_kernels::pulses::Source;
use pnncore_kernels::{Real, add_scaled};
use rayon::prelude::*;

use super::cells::Cells;
use super::pulses::{PulseCounts, RowPulses, Trains};
use crate::runtime::Runtime;

/// A change that is wanted of the weights.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a, T> {
    /// Minus the rate of the optimizer times the sum of outer products of rows: blocks (left,
    /// right).
    Product(&'a [(Vec<T>, Vec<T>)]),
    /// Element by element.
    Dense(&'a [T]),
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

/// The arrays of cells that store one parameter, all of one shape.
#[derive(Debug, Clone)]
pub(super) struct Arrays<T> {
    pub rows: usize,
    pub cols: usize,
    /// How outer products are sent.
    pub trains: Trains,
    /// The cells that compute; the first of them.
    pub cells: Cells<T>,
    /// The other cells of a unit, or the fast ones of an algorithm that has some.
    pub others: Vec<Cells<T>>,
    /// What is read of the lines of the fast ones is off by; empty: nothing.
    pub offsets: Vec<T>,
}

impl<T: Real> Arrays<T> {
    /// The cells of all arrays.
    pub(super) fn all_cells(&self) -> impl Iterator<Item = &Cells<T>> {
        std::iter::once(&self.cells).chain(&self.others)
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
                self.trains.send(
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
        cells.send(runtime, 0..self.rows, self.cols, sent, self.trains.at_once, store, draws)
    }

    /// Adds a change to a sum, and takes all whole steps out of it: the pulses that are due.
    pub(super) fn summed(
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
