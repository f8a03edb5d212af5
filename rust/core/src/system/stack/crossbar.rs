//! Analog crossbars: products that are read through converters, with noise.

use std::borrow::Cow;
use std::ops::Range;

use pnncore_kernels::gemm::{Strided, multiply};
use pnncore_kernels::philox::Philox;
use pnncore_kernels::sparse::Dense;
use pnncore_kernels::{Level, Real, add_scaled, dot, sum_rows, transpose};
use serde::{Deserialize, Serialize};

use super::layer::{Given, Layer, Passed};
use super::linear::Linear;
use super::wires::{Grid, Wires};
use crate::params::ParamSpec;
use crate::{Error, Result};

/// How inputs are scaled to the range of their converters, row by row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// By their largest magnitude.
    Absmax,
    /// By a number.
    Constant(f64),
}

/// What the noise of weights grows with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightNoise {
    /// With the length of the inputs: every weight is off by the same deviation.
    Additive,
    /// With the root of the sum of |w| x^2: deviations grow with the root of the weight, as in phase-change memory.
    PhaseChange,
}

/// Converters and noise of a read: x / a, rounded and clipped, plus input noise; the product, plus weight noise; the output stage
/// y / (1 + |s y|), plus output noise, rounded and clipped; times a. In units of the largest input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Io {
    /// Into how many steps the range of the input converters is cut; 0: none. An even number: zero is a level.
    pub input_steps: u32,
    /// The largest input; `None`: there is none.
    pub input_bound: Option<f64>,
    /// The deviation of input noise.
    pub input_noise: f64,
    /// Into how many steps the range of the output converters is cut; 0: none.
    pub output_steps: u32,
    /// The largest output; `None`: there is none.
    pub output_bound: Option<f64>,
    /// The deviation of output noise.
    pub output_noise: f64,
    /// The deviation of weight noise.
    pub weight_noise: f64,
    /// What it grows with.
    pub weight_noise_kind: WeightNoise,
    /// s of the output stage.
    pub s_shape: f64,
    /// Whether converters round at random to one of the two next steps, so that the mean is the value.
    pub stochastic_rounding: bool,
    /// a.
    pub scale: Scale,
    /// Whether a read whose outputs are clipped is repeated at half the input scale.
    pub bound_management: bool,
}

/// The most repetitions of a read that is clipped.
const REPEATS: u32 = 10;

/// Groups of random numbers from here on are those of reads.
const GROUPS_OF_READS: u32 = 1 << 16;

/// Groups of a layer: of its reads forward, and of those back.
const GROUPS_OF_LAYER: u32 = 128;

impl Io {
    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting.
    pub fn check(&self) -> Result<()> {
        let not_negative = [
            ("input_noise", self.input_noise),
            ("output_noise", self.output_noise),
            ("weight_noise", self.weight_noise),
            ("s_shape", self.s_shape),
        ];
        for (name, value) in not_negative {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::Config(format!("{name} must be at least 0 and finite, got {value}")));
            }
        }
        let constant = match self.scale {
            Scale::Constant(a) => Some(a),
            Scale::Absmax => None,
        };
        for (name, value) in
            [("input_bound", self.input_bound), ("output_bound", self.output_bound), ("scale", constant)]
        {
            if value.is_some_and(|x| !(x > 0.0 && x.is_finite())) {
                return Err(Error::Config(format!("{name} must be positive and finite, got {value:?}")));
            }
        }
        for (name, steps, bound) in
            [("input", self.input_steps, self.input_bound), ("output", self.output_steps, self.output_bound)]
        {
            if steps % 2 == 1 || (steps > 0 && bound.is_none()) {
                return Err(Error::Config(format!("{name} converters need an even number of steps, and a bound")));
            }
        }
        if self.bound_management && self.output_bound.is_none() {
            return Err(Error::Config("bound_management needs an output_bound that clips".into()));
        }
        Ok(())
    }
}

/// Rounds to steps, at random by `uniform` or to the nearest (halves to even), and clips.
fn convert<T: Real>(steps: u32, bound: Option<f64>, uniform: Option<&[T]>, values: &mut [T]) {
    if let Some(bound) = bound.filter(|_| steps > 0) {
        // Adding and taking away what leaves no bits below one rounds; rounding by instructions would not be vectorised.
        let (shift, half) = (T::from_f64(1.5 / T::EPSILON.to_f64()), T::from_f64(0.5));
        // Half a range is half a step off: that must be the same for every way to get there.
        let (up, down) = (T::from_f64(f64::from(steps) / (2.0 * bound)), T::from_f64(2.0 * bound / f64::from(steps)));
        match uniform {
            Some(uniform) => values.iter_mut().zip(uniform).for_each(|(v, &u)| {
                *v = ((*v * up + (u - half)) + shift - shift) * down;
            }),
            None => values.iter_mut().for_each(|v| *v = (*v * up + shift - shift) * down),
        }
    }
    if let Some(bound) = bound {
        let bound = T::from_f64(bound);
        for v in values {
            // NaN stays.
            *v = if *v > bound {
                bound
            } else if *v < -bound {
                -bound
            } else {
                *v
            };
        }
    }
}

/// Where random numbers of a read come from.
#[derive(Debug, Clone, Copy)]
struct Draws {
    level: Level,
    random: Philox,
    group: u32,
    first: usize,
}

impl Draws {
    /// Adds normals of a deviation to one row, or to those of its places.
    fn add<T: Real>(&self, kind: u32, row: usize, deviation: T, values: &mut [T], drawn: &mut Vec<T>) {
        drawn.resize(values.len(), T::ZERO);
        self.random.fill_normal(self.level, self.place(row, values.len()), self.group + kind, drawn);
        add_scaled(self.level, drawn, deviation, values);
    }

    fn uniform<'a, T: Real>(&self, kind: u32, row: usize, width: usize, drawn: &'a mut Vec<T>) -> &'a [T] {
        drawn.resize(width, T::ZERO);
        self.random.fill(self.level, self.place(row, width), self.group + kind, drawn);
        drawn
    }

    fn place(&self, row: usize, width: usize) -> u64 {
        ((self.first + row) * width.next_multiple_of(64)) as u64
    }
}

impl Io {
    /// What the output stage and its converters make of the products of a row.
    fn finish<T: Real>(&self, draws: Draws, row: usize, y: &mut [T], drawn: &mut Vec<T>) {
        if self.s_shape > 0.0 {
            let s = T::from_f64(self.s_shape);
            y.iter_mut().for_each(|y| *y = *y / (T::ONE + (s * *y).abs()));
        }
        if self.output_noise > 0.0 {
            draws.add(3, row, T::from_f64(self.output_noise), y, drawn);
        }
        let uniform = self.stochastic_rounding.then(|| draws.uniform(4, row, y.len(), drawn));
        convert(self.output_steps, self.output_bound, uniform, y);
    }

    /// Reads one line of an array: an input of one on it, and nothing on the others, which are disconnected.
    pub(crate) fn read_line<T: Real>(
        &self,
        level: Level,
        line: &[T],
        (random, group, first): (Philox, u32, usize),
    ) -> Vec<T> {
        let draws = Draws { level, random, group, first };
        let (mut drawn, mut x) = (Vec::new(), [T::ONE]);
        let uniform = self.stochastic_rounding.then(|| draws.uniform(0, 0, 1, &mut drawn));
        convert(self.input_steps, self.input_bound, uniform, &mut x);
        if self.input_noise > 0.0 {
            draws.add(1, 0, T::from_f64(self.input_noise), &mut x, &mut drawn);
        }
        let mut y: Vec<T> = line.iter().map(|&w| x[0] * w).collect();
        Array { io: self, weights: line, grid: None, inputs: 1, outputs: line.len() }.add_weight_noise(
            draws,
            &[0],
            &x,
            &mut y,
        );
        self.finish(draws, 0, &mut y, &mut drawn);
        y
    }
}

/// A matrix that is read.
struct Array<'a, T> {
    io: &'a Io,
    weights: &'a [T],
    grid: Option<Grid<'a, T>>,
    inputs: usize,
    outputs: usize,
}

impl<T: Real> Array<'_, T> {
    /// Writes what is read for rows of inputs.
    fn read(&self, draws: Draws, x: &[T], y: &mut [T]) {
        let (n, m) = (self.inputs, self.outputs);
        let scales: Vec<T> = x
            .chunks_exact(n)
            .map(|x| match self.io.scale {
                Scale::Constant(a) => T::from_f64(a),
                Scale::Absmax => x.iter().fold(T::ZERO, |most, x| if x.abs() > most { x.abs() } else { most }),
            })
            .collect();
        let mut rows: Vec<usize> = (0..scales.len()).collect();
        let (mut own, mut found) = (Vec::new(), Vec::new());
        for repeat in 0..=REPEATS {
            let halved = T::from_f64(f64::from(1u32 << repeat));
            own.clear();
            for &r in &rows {
                let a = scales[r] * halved;
                // A dark row stays dark.
                let a = if a == T::ZERO { T::ONE } else { a };
                own.extend(x[r * n..(r + 1) * n].iter().map(|&x| x / a));
            }
            found.clear();
            found.resize(rows.len() * m, T::ZERO);
            let draws = Draws { group: draws.group + 5 * repeat, ..draws };
            let clipped = self.once(draws, &rows, &mut own, &mut found);
            for (k, &r) in rows.iter().enumerate() {
                let a = scales[r] * halved;
                y[r * m..(r + 1) * m].iter_mut().zip(&found[k * m..]).for_each(|(y, &f)| *y = f * a);
            }
            if !self.io.bound_management || clipped.is_empty() {
                break;
            }
            rows = clipped;
        }
    }

    /// Reads rows of scaled inputs once, in units of their scales; gives those whose outputs are clipped.
    fn once(&self, draws: Draws, rows: &[usize], x: &mut [T], y: &mut [T]) -> Vec<usize> {
        let (n, m, io) = (self.inputs, self.outputs, self.io);
        let mut drawn = Vec::new();
        for (x, &r) in x.chunks_exact_mut(n).zip(rows) {
            let uniform = io.stochastic_rounding.then(|| draws.uniform(0, r, n, &mut drawn));
            convert(io.input_steps, io.input_bound, uniform, x);
            if io.input_noise > 0.0 {
                draws.add(1, r, T::from_f64(io.input_noise), x, &mut drawn);
            }
        }
        if let Some(grid) = self.grid {
            grid.read(draws.level, x, y);
        } else {
            let left = Strided { data: &*x, row: n, column: 1 };
            multiply(draws.level, left, Dense { data: self.weights, stride: m }, (rows.len(), n, m), y, m);
        }
        self.add_weight_noise(draws, rows, x, y);
        let mut clipped = Vec::new();
        for (y, &r) in y.chunks_exact_mut(m).zip(rows) {
            io.finish(draws, r, y, &mut drawn);
            if io.output_bound.is_some_and(|bound| y.iter().any(|y| y.abs() >= T::from_f64(bound))) {
                clipped.push(r);
            }
        }
        clipped
    }

    fn add_weight_noise(&self, draws: Draws, rows: &[usize], x: &[T], y: &mut [T]) {
        if self.io.weight_noise == 0.0 {
            return;
        }
        let (n, m) = (self.inputs, self.outputs);
        let deviation = T::from_f64(self.io.weight_noise);
        let mut drawn = Vec::new();
        if self.io.weight_noise_kind == WeightNoise::Additive {
            for ((x, y), &r) in x.chunks_exact(n).zip(y.chunks_exact_mut(m)).zip(rows) {
                let length = dot(draws.level, x, x).sqrt();
                draws.add(2, r, deviation * length, y, &mut drawn);
            }
            return;
        }
        let squares: Vec<T> = x.iter().map(|&x| x * x).collect();
        let sizes: Vec<T> = self.weights.iter().map(|w| w.abs()).collect();
        let mut sums = vec![T::ZERO; y.len()];
        let squares = Strided { data: &squares, row: n, column: 1 };
        multiply(draws.level, squares, Dense { data: &sizes, stride: m }, (rows.len(), n, m), &mut sums, m);
        for ((sums, y), &r) in sums.chunks_exact_mut(m).zip(y.chunks_exact_mut(m)).zip(rows) {
            drawn.resize(m, T::ZERO);
            draws.random.fill_normal(draws.level, draws.place(r, m), draws.group + 2, &mut drawn);
            y.iter_mut().zip(sums).zip(&drawn).for_each(|((y, sum), &d)| *y += deviation * sum.sqrt() * d);
        }
    }
}

/// The hardware of a linear map: arrays of conductances, read through converters. The bias is digital.
#[derive(Debug, Clone)]
pub(super) struct Crossbar<T> {
    map: Linear<T>,
    inputs: usize,
    outputs: usize,
    io: Io,
    backward: Io,
    wires: Option<Wires>,
    /// The rows and columns of the arrays that the matrix is cut into.
    tiles: Vec<(Range<usize>, Range<usize>)>,
}

/// Columns of a matrix with rows of this width.
fn pick<T: Real>(values: &[T], width: usize, columns: &Range<usize>) -> Vec<T> {
    values.chunks_exact(width).flat_map(|row| &row[columns.clone()]).copied().collect()
}

/// Adds to columns of a matrix with rows of this width.
fn add_to<T: Real>(part: &[T], width: usize, columns: &Range<usize>, values: &mut [T]) {
    for (row, part) in values.chunks_exact_mut(width).zip(part.chunks_exact(columns.len())) {
        row[columns.clone()].iter_mut().zip(part).for_each(|(value, &part)| *value += part);
    }
}

impl<T: Real> Crossbar<T> {
    /// The arrays of a linear map, of at most `most` rows and columns each, with one set of converters for reads, and one for reads of
    /// the transpose, and wires; without these products are exact.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range.
    pub(super) fn new(
        (inputs, outputs): (usize, usize),
        bias: bool,
        most: (usize, usize),
        io: Io,
        backward: Io,
        wires: Option<Wires>,
    ) -> Result<Self> {
        io.check()?;
        backward.check()?;
        wires.as_ref().map_or(Ok(()), Wires::check)?;
        if most.0 == 0 || most.1 == 0 {
            return Err(Error::Config(format!("arrays must have at least one row and one column, got {most:?}")));
        }
        // As even as can be, as one would lay them out.
        let cut = |n: usize, most: usize| {
            let count = n.div_ceil(most);
            (0..count).map(move |k| k * n / count..(k + 1) * n / count)
        };
        let tiles = cut(inputs, most.0).flat_map(|rows| cut(outputs, most.1).map(move |cols| (rows.clone(), cols)));
        let (map, tiles) = (Linear::new(inputs, outputs, bias), tiles.collect());
        Ok(Self { map, inputs, outputs, io, backward, wires, tiles })
    }

    /// The wires of tile `k`, as [`Layer::prepare`] left them.
    fn grid<'a>(&'a self, k: usize, prepared: &'a [T], turned: bool) -> Option<Grid<'a, T>> {
        let wires = self.wires.as_ref()?;
        let size = |(rows, columns): &(Range<usize>, Range<usize>)| Wires::prepared(rows.len() * columns.len());
        let first: usize = self.tiles[..k].iter().map(size).sum();
        let (rows, columns) = &self.tiles[k];
        Some(Grid::of(wires, (rows.len(), columns.len()), &prepared[first..first + size(&self.tiles[k])], turned))
    }

    fn prepare_wires(&self, weights: &[T], prepared: &mut Vec<T>) {
        prepared.clear();
        for k in 0..self.tiles.len() {
            let (rows, columns) = &self.tiles[k];
            if let Some(wires) = &self.wires {
                wires.prepare((rows.len(), columns.len()), &self.weights(k, weights), prepared);
            }
        }
    }

    /// The weights of tile `k`.
    fn weights<'a>(&self, k: usize, weights: &'a [T]) -> Cow<'a, [T]> {
        let (rows, columns) = &self.tiles[k];
        let own = &weights[rows.start * self.outputs..rows.end * self.outputs];
        if columns.len() == self.outputs { own.into() } else { pick(own, self.outputs, columns).into() }
    }

    fn draws(given: &Given<'_, T>, k: usize, back: bool) -> Draws {
        let group = GROUPS_OF_READS + GROUPS_OF_LAYER * given.layer as u32 + if back { GROUPS_OF_LAYER / 2 } else { 0 };
        // No batch has as many rows as tiles are apart.
        Draws { level: given.level, random: given.random, group, first: given.first + (k << 32) }
    }
}

impl<T: Real> Layer<T> for Crossbar<T> {
    fn name(&self) -> &'static str {
        "Crossbar"
    }

    fn inputs(&self) -> usize {
        self.inputs
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn specs(&self) -> Vec<ParamSpec> {
        self.map.specs()
    }

    fn prepare(&self, level: Level, params: &[&[T]], derivatives: bool, prepared: &mut Vec<T>) {
        match &self.wires {
            Some(_) => self.prepare_wires(params[0], prepared),
            None => self.map.prepare(level, params, derivatives, prepared),
        }
    }

    fn forward(&self, given: Given<'_, T>, _rows: usize, x: &[T], y: &mut [T], _tape: &mut [T]) -> Result<()> {
        let whole = self.tiles.len() == 1;
        if !whole {
            y.fill(T::ZERO);
        }
        for (k, (rows, columns)) in self.tiles.iter().enumerate() {
            let (weights, grid) = (self.weights(k, given.params[0]), self.grid(k, given.prepared, false));
            let array = Array { io: &self.io, weights: &weights, grid, inputs: rows.len(), outputs: columns.len() };
            let draws = Self::draws(&given, k, false);
            if whole {
                array.read(draws, x, y);
                continue;
            }
            let own = pick(x, self.inputs, rows);
            let mut part = vec![T::ZERO; own.len() / rows.len() * columns.len()];
            array.read(draws, &own, &mut part);
            add_to(&part, self.outputs, columns, y);
        }
        if let Some(bias) = given.params.get(1) {
            y.chunks_exact_mut(self.outputs).for_each(|y| add_scaled(given.level, bias, T::ONE, y));
        }
        Ok(())
    }

    /// That of the map without noise and converters, which have no derivatives.
    fn vjp(
        &self,
        given: Given<'_, T>,
        passed: Passed<'_, T>,
        dy: &[T],
        dx: &mut [T],
        gradient: &mut [Vec<T>],
    ) -> Result<()> {
        if self.wires.is_none() {
            if let Some(weights) = gradient.first_mut().filter(|weights| !weights.is_empty()) {
                let x = Strided { data: passed.x, row: self.inputs, column: 1 }.transposed();
                let shape = (self.inputs, passed.rows, self.outputs);
                multiply(given.level, x, Dense { data: dy, stride: self.outputs }, shape, weights, self.outputs);
            }
            return self.map.vjp(given, passed, dy, dx, gradient);
        }
        dx.fill(T::ZERO);
        for (k, (rows, columns)) in self.tiles.iter().enumerate() {
            let Some(grid) = self.grid(k, given.prepared, false) else { continue };
            let (x, d) = (pick(passed.x, self.inputs, rows), pick(dy, self.outputs, columns));
            let mut back = vec![T::ZERO; if dx.is_empty() { 0 } else { x.len() }];
            let wanted = gradient.first_mut().filter(|weights| !weights.is_empty());
            let mut own = vec![T::ZERO; if wanted.is_some() { rows.len() * columns.len() } else { 0 }];
            grid.pull(given.level, &self.weights(k, given.params[0]), &x, &d, &mut back, &mut own);
            add_to(&back, self.inputs, rows, dx);
            if let Some(weights) = wanted {
                add_to(&own, self.outputs, columns, &mut weights[rows.start * self.outputs..rows.end * self.outputs]);
            }
        }
        gradient.iter_mut().skip(1).for_each(|bias| sum_rows(given.level, dy, bias));
        Ok(())
    }

    fn jvp(&self, given: Given<'_, T>, passed: Passed<'_, T>, dx: &[T], along: &[&[T]], dy: &mut [T]) -> Result<()> {
        self.map.jvp(given, passed, dx, along, dy)
    }

    fn has_reverse(&self) -> bool {
        true
    }

    fn reverse(&self, given: Given<'_, T>, dy: &[T], dx: &mut [T]) -> Result<()> {
        // What was prepared may be that of the twin.
        let mut prepared = Vec::new();
        self.prepare_wires(given.params[0], &mut prepared);
        dx.fill(T::ZERO);
        for (k, (rows, columns)) in self.tiles.iter().enumerate() {
            let (n, m) = (rows.len(), columns.len());
            let mut turned = vec![T::ZERO; n * m];
            transpose(given.level, &self.weights(k, given.params[0]), n, m, 0..m, &mut turned, n);
            let grid = self.grid(k, &prepared, true);
            let array = Array { io: &self.backward, weights: &turned, grid, inputs: m, outputs: n };
            let own = pick(dy, self.outputs, columns);
            let mut part = vec![T::ZERO; own.len() / m * n];
            array.read(Self::draws(&given, k, true), &own, &mut part);
            add_to(&part, self.inputs, rows, dx);
        }
        Ok(())
    }

    fn mismatched(&self, _mismatch: f64, _random: Philox, _group: u32) -> Box<dyn Layer<T>> {
        Box::new(self.clone())
    }
}
