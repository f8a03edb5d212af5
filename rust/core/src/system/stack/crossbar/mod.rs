//! Analog crossbars: a linear map that is read from arrays of conductances.

mod hardware;

use std::ops::Range;

use pnncore_kernels::converter::largest;
use pnncore_kernels::gemm::{Dense, Strided, multiply};
use pnncore_kernels::philox::Philox;
use pnncore_kernels::{Level, Real, add_scaled, int8, sum_rows, transpose};
use serde::Deserialize;

pub use hardware::{Hardware, ReadPrecision, Remap};

use super::layer::{ForwardRecord, Layer, LayerContext};
use super::layer_spec::{LayerOutline, LayerSpec, Parts, Site};
use super::linear::{Linear, LinearSpec};
use crate::analog::codes::{Codes, step_of, write_codes};
use crate::analog::io::{Array, Draws, GROUPS_OF_READ, Scale};
use crate::analog::wires::{Grid, Wires};
use crate::device::{CellArray, TileSpec};
use crate::params::ParamSpec;
use crate::scratch::{Lent, Scratch};
use crate::settings::positive;
use crate::signal::Signal;
use crate::{Result, memory};

/// Groups of random numbers from here on are those of reads.
const GROUPS_OF_READS: u32 = 1 << 16;

/// Groups of a layer: of its reads forward, and of those back.
const GROUPS_OF_LAYER: u32 = 2 * GROUPS_OF_READ;

/// The description of a linear map that is read from an analog array.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossbarSpec {
    /// The number of inputs.
    pub inputs: usize,
    /// The number of outputs.
    pub outputs: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// The arrays, and how they are read.
    pub hardware: Hardware,
    /// Within how many of their standard deviations weights are kept; `None`: they are not.
    pub clip: Option<f64>,
    /// What it is made of, and how that is changed; `None`: any weight can be had.
    pub tile: Option<TileSpec>,
}

impl CrossbarSpec {
    /// What it is a model of: the linear map itself.
    fn ideal(&self) -> LinearSpec {
        LinearSpec::new(self.inputs, self.outputs, self.bias)
    }

    fn map<T: Real>(&self) -> Linear<T> {
        let map = self.ideal().map();
        if self.hardware.io.scale == Scale::Learned { map.with_range() } else { map }
    }
}

impl LayerSpec for CrossbarSpec {
    const KIND: &'static str = "crossbar";

    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        self.clip.map_or(Ok(()), |deviations| positive("clip", deviations))?;
        let ideal = self.ideal().outline(&Site { mismatch: 0.0, ..*site })?;
        // Steps, slopes, bounds and lifetimes of the cells, in double precision while they are
        // drawn.
        let copies = if self.tile.is_some() { 16 } else { 1 };
        let numbers = memory::product(&[self.inputs, self.outputs, copies]);
        Ok(LayerOutline { parameters: self.map::<f32>().parameters(), numbers, ..ideal })
    }

    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        let map = self.map();
        let hardware = Crossbar::new(map.clone(), &self.hardware, site.deviations(), site.group())?;
        let array = |tile: &TileSpec| {
            CellArray::new(tile, (self.inputs, self.outputs), site.seed, site.layer)
        };
        let cells = self.tile.as_ref().map(array).transpose()?;
        Ok(Parts { cells, clip: self.clip, ..Parts::new(Box::new(map), Some(Box::new(hardware))) })
    }
}

/// A part of a matrix that is an array of its own.
#[derive(Debug, Clone)]
struct Tile<T> {
    rows: Range<usize>,
    columns: Range<usize>,
    /// What outputs of reads are off by, and those of reads of the transpose; empty: nothing.
    offsets: (Vec<T>, Vec<T>),
}

/// The hardware of a linear map: arrays of conductances, read through converters. The bias is
/// digital.
#[derive(Debug, Clone)]
pub(super) struct Crossbar<T> {
    map: Linear<T>,
    inputs: usize,
    outputs: usize,
    hardware: Hardware,
    tiles: Vec<Tile<T>>,
}

/// Columns of a matrix with rows of this width.
fn pick<'a, T: Real>(
    values: &[T],
    width: usize,
    columns: &Range<usize>,
    scratch: &'a Scratch<T>,
) -> Lent<'a, Vec<T>> {
    let mut picked = scratch.empty();
    values.chunks_exact(width).for_each(|row| picked.extend_from_slice(&row[columns.clone()]));
    picked
}

/// Adds to columns of a matrix with rows of this width.
fn add_to<T: Real>(part: &[T], width: usize, columns: &Range<usize>, values: &mut [T]) {
    for (row, part) in values.chunks_exact_mut(width).zip(part.chunks_exact(columns.len())) {
        row[columns.clone()].iter_mut().zip(part).for_each(|(value, &part)| *value += part);
    }
}

impl<T: Real> Crossbar<T> {
    /// The arrays of a linear map. What is fixed about their outputs is drawn from groups `group`
    /// and `group + 1`.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range.
    pub(super) fn new(
        map: Linear<T>,
        hardware: &Hardware,
        random: Philox,
        group: u32,
    ) -> Result<Self> {
        hardware.check()?;
        let (inputs, outputs) = (map.inputs(), map.outputs());
        // As even as can be, as one would lay them out.
        let cut = |n: usize, most: usize| {
            let count = n.div_ceil(most);
            (0..count).map(move |k| k * n / count..(k + 1) * n / count)
        };
        let (high, wide) = hardware.most;
        let places = cut(inputs, high)
            .flat_map(|rows| cut(outputs, wide).map(move |columns| (rows.clone(), columns)));
        let tile = |(k, (rows, columns)): (usize, (Range<usize>, Range<usize>))| {
            let random = random.at(k as u64);
            let ahead = hardware.io.offsets(columns.len(), random, group);
            let back = hardware.backward.offsets(rows.len(), random, group + 1);
            Tile { rows, columns, offsets: (ahead, back) }
        };
        let tiles = places.enumerate().map(tile).collect();
        Ok(Self { map, inputs, outputs, hardware: hardware.clone(), tiles })
    }

    /// Of what [`Layer::prepare`] leaves, how much is of remapped weights: these as they are held,
    /// and the scales of the columns of all tiles.
    fn remapped(&self) -> usize {
        let columns: usize = self.tiles.iter().map(|tile| tile.columns.len()).sum();
        if self.hardware.remap.is_some() { self.inputs * self.outputs + columns } else { 0 }
    }

    /// How much is of held weights in all: those, and the integers of each tile.
    fn held_len(&self, level: Level) -> usize {
        self.remapped() + (0..self.tiles.len()).map(|k| self.codes_len(level, k)).sum::<usize>()
    }

    /// The weights as they are held, given what was prepared.
    fn held<'a>(&self, weights: &'a [T], prepared: &'a [T]) -> &'a [T] {
        if self.hardware.remap.is_some() {
            &prepared[..self.inputs * self.outputs]
        } else {
            weights
        }
    }

    /// The scales of the columns of tile `k`; empty: all are one.
    fn scales<'a>(&self, k: usize, prepared: &'a [T]) -> &'a [T] {
        if self.hardware.remap.is_none() {
            return &[];
        }
        let before: usize = self.tiles[..k].iter().map(|tile| tile.columns.len()).sum();
        &prepared[self.inputs * self.outputs + before..][..self.tiles[k].columns.len()]
    }

    /// Appends the weights as they are held, and the scales of the columns of all tiles.
    fn remap(&self, level: Level, weights: &[T], prepared: &mut Vec<T>) {
        let Some(remap) = self.hardware.remap else { return };
        prepared.extend_from_slice(weights);
        for Tile { rows, columns, .. } in &self.tiles {
            let first = prepared.len();
            prepared.resize(first + columns.len(), T::ZERO);
            let (held, most) = prepared.split_at_mut(first);
            for row in weights[rows.start * self.outputs..rows.end * self.outputs]
                .chunks_exact(self.outputs)
            {
                most.iter_mut()
                    .zip(&row[columns.clone()])
                    .for_each(|(most, &w)| *most = most.max_magnitude(w));
            }
            if remap == Remap::Array {
                let all = largest(level, most);
                most.fill(all);
            }
            most.iter_mut().filter(|most| **most == T::ZERO).for_each(|most| *most = T::ONE);
            for j in rows.clone() {
                let own = &mut held[j * self.outputs..][columns.clone()];
                own.iter_mut().zip(&*most).for_each(|(w, &most)| *w /= most);
            }
        }
    }

    /// How many numbers are kept of the integers of tile `k`: their step, and they themselves,
    /// packed.
    fn codes_len(&self, level: Level, k: usize) -> usize {
        let Tile { rows, columns, .. } = &self.tiles[k];
        let packed = || int8::packed_len::<T>(level, (rows.len(), columns.len()));
        self.hardware.precision.map_or(0, |_| 1 + packed())
    }

    /// Appends the held weights as integers, tile by tile: what a step of them is worth, and they.
    fn append_codes(&self, level: Level, weights: &[T], prepared: &mut Vec<T>) {
        if self.hardware.precision.is_none() {
            return;
        }
        let before = prepared.len();
        prepared.resize(self.held_len(level), T::ZERO);
        let (remapped, mut rest) = prepared.split_at_mut(before);
        let held = self.held(weights, remapped);
        for (k, Tile { rows, columns, .. }) in self.tiles.iter().enumerate() {
            let own;
            (own, rest) = rest.split_at_mut(self.codes_len(level, k));
            let Some((step, packed)) = own.split_first_mut() else { return };
            let most = self
                .lines(k, held)
                .fold(T::ZERO, |most, line| most.max_magnitude(largest(level, line)));
            *step = step_of(most);
            let data = &self.across(k, held)[columns.start..];
            let shape = (rows.len(), columns.len());
            write_codes(level, Dense { data, stride: self.outputs }, shape, *step, packed);
        }
    }

    /// How many numbers are kept of the integers of all tiles, transposed.
    fn turned_codes_len(&self, level: Level) -> usize {
        let packed_len =
            |tile: &Tile<T>| int8::packed_len::<T>(level, (tile.columns.len(), tile.rows.len()));
        self.hardware.precision.map_or(0, |_| self.tiles.iter().map(packed_len).sum())
    }

    /// The integers of tile `k`.
    fn codes<'a>(&self, level: Level, k: usize, prepared: &'a [T]) -> Option<Codes<'a, T>> {
        self.hardware.precision?;
        let before: usize = (0..k).map(|k| self.codes_len(level, k)).sum();
        let own = &prepared[self.remapped() + before..][..self.codes_len(level, k)];
        let (&step, packed) = own.split_first()?;
        Some(Codes { packed, step })
    }

    /// The wires of tile `k`, as [`Layer::prepare`] left them.
    fn grid<'a>(&'a self, k: usize, prepared: &'a [T], turned: bool) -> Option<Grid<'a, T>> {
        let wires = self.hardware.wires.as_ref()?;
        let size = |tile: &Tile<T>| Wires::prepared(tile.rows.len() * tile.columns.len());
        let first: usize = self.tiles[..k].iter().map(size).sum();
        let Tile { rows, columns, .. } = &self.tiles[k];
        Some(Grid::of(
            wires,
            (rows.len(), columns.len()),
            &prepared[first..first + size(&self.tiles[k])],
            turned,
        ))
    }

    fn prepare_wires(&self, weights: &[T], prepared: &mut Vec<T>) {
        let Some(wires) = &self.hardware.wires else { return };
        for (k, Tile { rows, columns, .. }) in self.tiles.iter().enumerate() {
            let own = self.lines(k, weights).flatten().copied();
            wires.prepare((rows.len(), columns.len()), own, prepared);
        }
    }

    /// The weights of the rows that tile `k` is in.
    fn across<'a>(&self, k: usize, weights: &'a [T]) -> &'a [T] {
        let rows = &self.tiles[k].rows;
        &weights[rows.start * self.outputs..rows.end * self.outputs]
    }

    /// The rows of weights of tile `k`.
    fn lines<'a>(&self, k: usize, weights: &'a [T]) -> impl Iterator<Item = &'a [T]> + Clone {
        let columns = self.tiles[k].columns.clone();
        let rows = self.across(k, weights).chunks_exact(self.outputs);
        rows.map(move |row| &row[columns.clone()])
    }

    /// The weights of tile `k`: in `own`, unless they lie together.
    fn weights<'a>(&self, k: usize, weights: &'a [T], own: &'a mut Vec<T>) -> &'a [T] {
        if self.tiles[k].columns.len() == self.outputs {
            return self.across(k, weights);
        }
        own.clear();
        self.lines(k, weights).for_each(|line| own.extend_from_slice(line));
        own
    }

    fn draws(context: &LayerContext<'_, T>, k: usize, back: bool) -> Draws {
        let group = GROUPS_OF_READS
            + GROUPS_OF_LAYER * context.layer as u32
            + if back { GROUPS_OF_READ } else { 0 };
        // No batch has as many rows as tiles are apart.
        Draws {
            level: context.level,
            random: context.random,
            group,
            first: context.first + (k << 32),
        }
    }
}

/// Multiplies the columns of a matrix; by one where there are no factors.
fn scale_columns<T: Real>(factors: &[T], values: &mut [T]) {
    if !factors.is_empty() {
        for row in values.chunks_exact_mut(factors.len()) {
            row.iter_mut().zip(factors).for_each(|(value, &factor)| *value *= factor);
        }
    }
}

impl<T: Real> Layer<T> for Crossbar<T> {
    fn name(&self) -> &'static str {
        "Crossbar"
    }

    fn takes(&self) -> Signal {
        Signal::real(self.inputs)
    }

    fn gives(&self) -> Signal {
        Signal::real(self.outputs)
    }

    fn specs(&self) -> Vec<ParamSpec> {
        self.map.specs()
    }

    fn prepare(
        &self,
        level: Level,
        params: &[&[T]],
        _memory: &[&[T]],
        derivatives: bool,
        prepared: &mut Vec<T>,
    ) {
        prepared.clear();
        self.remap(level, params[0], prepared);
        self.append_codes(level, params[0], prepared);
        if self.hardware.wires.is_some() {
            self.prepare_wires(params[0], prepared);
        } else if derivatives {
            let held = prepared.len();
            self.map.prepare_from(held, level, params[0], derivatives, prepared);
        }
    }

    fn forward(
        &self,
        context: LayerContext<'_, T>,
        _rows: usize,
        x: &[T],
        y: &mut [T],
        _tape: &mut [T],
    ) -> Result<()> {
        let whole = self.tiles.len() == 1;
        if !whole {
            y.fill(T::ZERO);
        }
        let range = self.map.range(context.params);
        let held = self.held(context.params[0], context.prepared);
        let scratch = context.scratch;
        let mut together = scratch.empty();
        for (k, Tile { rows, columns, offsets }) in self.tiles.iter().enumerate() {
            let weights = self.weights(k, held, &mut together);
            let (io, grid) = (&self.hardware.io, self.grid(k, context.prepared, false));
            let (inputs, outputs, offsets) = (rows.len(), columns.len(), &offsets.0);
            let codes = self.codes(context.level, k, context.prepared);
            let array = Array { io, weights, codes, grid, inputs, outputs, offsets, scratch };
            let (draws, scales) =
                (Self::draws(&context, k, false), self.scales(k, context.prepared));
            if whole {
                array.read(draws, range, x, y);
                scale_columns(scales, y);
                continue;
            }
            let own = pick(x, self.inputs, rows, scratch);
            let mut part = scratch.zeros(own.len() / inputs * outputs);
            array.read(draws, range, &own, &mut part);
            scale_columns(scales, &mut part);
            add_to(&part, self.outputs, columns, y);
        }
        if let Some(bias) = self.map.bias(context.params) {
            y.chunks_exact_mut(self.outputs)
                .for_each(|y| add_scaled(context.level, bias, T::ONE, y));
        }
        Ok(())
    }

    /// That of the map without noise and converters, which have no derivatives.
    fn vjp(
        &self,
        context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dy: &[T],
        dx: &mut [T],
        gradient: &mut [Vec<T>],
    ) -> Result<()> {
        let (level, scratch) = (context.level, context.scratch);
        let mut clipped = scratch.empty();
        let x = self.map.clipped(context.params, record.x, &mut clipped);
        if self.hardware.wires.is_none() {
            if let Some(weights) = gradient.first_mut().filter(|weights| !weights.is_empty()) {
                let x = Strided { data: x, row: self.inputs, column: 1 }.transposed();
                let shape = (self.inputs, record.rows, self.outputs);
                let dy = Dense { data: dy, stride: self.outputs };
                multiply(level, x, dy, shape, weights, self.outputs);
            }
            let context =
                LayerContext { prepared: &context.prepared[self.held_len(level)..], ..context };
            return self.map.vjp(context, record, dy, dx, gradient);
        }
        let unasked = dx.is_empty() && !self.map.is_ranged();
        let mut errors = scratch.zeros(if unasked { 0 } else { x.len() });
        let mut together = scratch.empty();
        for (k, Tile { rows, columns, .. }) in self.tiles.iter().enumerate() {
            let Some(grid) = self.grid(k, context.prepared, false) else { continue };
            let x = pick(x, self.inputs, rows, scratch);
            let d = pick(dy, self.outputs, columns, scratch);
            let mut back = scratch.zeros(if errors.is_empty() { 0 } else { x.len() });
            let wanted = gradient.first_mut().filter(|weights| !weights.is_empty());
            let cells = if wanted.is_some() { rows.len() * columns.len() } else { 0 };
            let mut own = scratch.zeros(cells);
            let held = self.weights(k, context.params[0], &mut together);
            grid.vjp((level, scratch), held, (&x, &d), &mut back, &mut own);
            add_to(&back, self.inputs, rows, &mut errors);
            if let Some(weights) = wanted {
                add_to(
                    &own,
                    self.outputs,
                    columns,
                    &mut weights[rows.start * self.outputs..rows.end * self.outputs],
                );
            }
        }
        if let Some(bias) = self.map.bias_of(gradient) {
            sum_rows(level, dy, bias);
        }
        self.map.pull_range(context.params, record.x, &mut errors, gradient);
        if !dx.is_empty() {
            dx.copy_from_slice(&errors);
        }
        Ok(())
    }

    fn jvp(
        &self,
        context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dx: &[T],
        along: &[&[T]],
        dy: &mut [T],
    ) -> Result<()> {
        self.map.jvp(context, record, dx, along, dy)
    }

    fn has_reverse(&self) -> bool {
        true
    }

    fn prepare_reverse(
        &self,
        level: Level,
        params: &[&[T]],
        memory: &[&[T]],
        prepared: &mut Vec<T>,
    ) {
        self.prepare(level, params, memory, false, prepared);
        let first = prepared.len();
        prepared.resize(first + self.inputs * self.outputs, T::ZERO);
        let (forward, mut rest) = prepared.split_at_mut(first);
        for (k, Tile { rows, columns, .. }) in self.tiles.iter().enumerate() {
            let (n, held) = (rows.len(), self.across(k, self.held(params[0], forward)));
            let own;
            (own, rest) = rest.split_at_mut(n * columns.len());
            transpose(level, held, n, self.outputs, columns.clone(), own, n);
        }
        if self.hardware.precision.is_none() {
            return;
        }
        let end = first + self.inputs * self.outputs;
        let all = end + self.turned_codes_len(level);
        prepared.resize(all, T::ZERO);
        let (before, mut rest) = prepared.split_at_mut(end);
        let (forward, mut turned) = before.split_at(first);
        for (k, Tile { rows, columns, .. }) in self.tiles.iter().enumerate() {
            let Some(Codes { step, .. }) = self.codes(level, k, forward) else { return };
            let (data, packed);
            (data, turned) = turned.split_at(rows.len() * columns.len());
            let shape = (columns.len(), rows.len());
            (packed, rest) = rest.split_at_mut(int8::packed_len::<T>(level, shape));
            write_codes(level, Dense { data, stride: rows.len() }, shape, step, packed);
        }
    }

    fn reverse(&self, context: LayerContext<'_, T>, dy: &[T], dx: &mut [T]) -> Result<()> {
        let (level, size) = (context.level, self.inputs * self.outputs);
        let end = context.prepared.len() - self.turned_codes_len(level);
        let (before, mut packed) = context.prepared.split_at(end);
        let (prepared, mut turned) = before.split_at(end - size);
        dx.fill(T::ZERO);
        for (k, Tile { rows, columns, offsets }) in self.tiles.iter().enumerate() {
            let (n, m) = (rows.len(), columns.len());
            let weights;
            (weights, turned) = turned.split_at(n * m);
            let (io, grid, scratch) =
                (&self.hardware.backward, self.grid(k, prepared, true), context.scratch);
            let (inputs, outputs, offsets) = (m, n, &offsets.1);
            let codes = self.codes(level, k, prepared).map(|codes| {
                let own;
                (own, packed) = packed.split_at(int8::packed_len::<T>(level, (m, n)));
                Codes { packed: own, ..codes }
            });
            let array = Array { io, weights, codes, grid, inputs, outputs, offsets, scratch };
            let mut own = pick(dy, self.outputs, columns, scratch);
            scale_columns(self.scales(k, prepared), &mut own);
            let mut part = scratch.zeros(own.len() / m * n);
            array.read(Self::draws(&context, k, true), None, &own, &mut part);
            add_to(&part, self.inputs, rows, dx);
        }
        Ok(())
    }

    fn mismatched(&self, _mismatch: f64, _random: Philox, _group: u32) -> Box<dyn Layer<T>> {
        Box::new(self.clone())
    }
}
