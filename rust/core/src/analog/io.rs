//! Reads of analog arrays: products through converters, with noise.

use pnncore_kernels::converter::{Levels, convert, divide, largest};
use pnncore_kernels::gemm::{Dense, Strided, multiply};
use pnncore_kernels::int8::LARGEST;
use pnncore_kernels::philox::Philox;
use pnncore_kernels::sparse::product;
use pnncore_kernels::{Level, Real, add_scaled, dot};
use serde::{Deserialize, Serialize};

use crate::analog::codes::Codes;
use crate::analog::wires::Grid;
use crate::scratch::{Lent, Scratch};
use crate::settings::{at_least_zero, positive};
use crate::{Error, Result};

/// How inputs are scaled to the range of their converters, row by row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// By their largest magnitude.
    Absmax,
    /// By a number.
    Constant(f64),
    /// By a parameter of the layer: a number for all of an array.
    Learned,
}

/// How inputs with signs and several bits are put on lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Passes {
    /// As they are.
    One,
    /// Positive ones, and then negative ones: what is read of these is taken away digitally.
    Signs,
    /// Bit by bit, each as nothing or plus or minus the largest input, and what is read is added
    /// with its weight digitally.
    Bits,
}

/// What the noise of weights grows with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightNoise {
    /// With the length of the inputs: every weight is off by the same deviation.
    Additive,
    /// With the root of the sum of |w| x^2: deviations grow with the root of the weight, as in
    /// phase-change memory.
    PhaseChange,
}

/// Converters and noise of a read: x / a, rounded and clipped, plus input noise; the product, plus
/// weight noise; the output stage y / (1 + |s y|), plus offsets and output noise, rounded and
/// clipped; times a. In units of the largest input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Io {
    /// Into how many steps the range of the input converters is cut; 0: none. An even number: zero
    /// is a level.
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
    /// The deviation of what outputs are off by, each for good.
    pub output_offset: f64,
    /// How inputs are put on lines.
    pub passes: Passes,
    /// The deviation of weight noise.
    pub weight_noise: f64,
    /// What it grows with.
    pub weight_noise_kind: WeightNoise,
    /// s of the output stage.
    pub s_shape: f64,
    /// Whether converters round at random to one of the two next steps, so that the mean is the
    /// value.
    pub stochastic_rounding: bool,
    /// a.
    pub scale: Scale,
    /// Whether a read whose outputs are clipped is repeated at half the input scale.
    pub bound_management: bool,
}

/// The most repetitions of a read that is clipped.
const REPEATS: u32 = 10;

/// The most passes of a read: bits of a converter.
const PASSES: u32 = 24;

/// Groups of random numbers of a pass: of its inputs, of their noise, of that of weights and
/// outputs, and of outputs.
const GROUPS_OF_PASS: u32 = 5;

/// Groups of random numbers of a read and its repetitions.
pub(crate) const GROUPS_OF_READ: u32 = (REPEATS + 1) * PASSES * GROUPS_OF_PASS;

impl Io {
    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting.
    pub fn check(&self) -> Result<()> {
        let not_negative = [
            ("input_noise", self.input_noise),
            ("output_noise", self.output_noise),
            ("output_offset", self.output_offset),
            ("weight_noise", self.weight_noise),
            ("s_shape", self.s_shape),
        ];
        for (name, value) in not_negative {
            at_least_zero(name, value)?;
        }
        let constant = match self.scale {
            Scale::Constant(a) => Some(a),
            Scale::Absmax | Scale::Learned => None,
        };
        for (name, value) in [
            ("input_bound", self.input_bound),
            ("output_bound", self.output_bound),
            ("scale", constant),
        ] {
            value.map_or(Ok(()), |value| positive(name, value))?;
        }
        for (name, steps, bound) in [
            ("input", self.input_steps, self.input_bound),
            ("output", self.output_steps, self.output_bound),
        ] {
            if steps % 2 == 1 || (steps > 0 && bound.is_none()) {
                return Err(Error::Config(format!(
                    "{name} converters need an even number of steps, and a bound"
                )));
            }
        }
        if let (Scale::Learned, Some(bound)) = (self.scale, self.input_bound)
            && bound < 1.0
        {
            return Err(Error::Config(format!(
                "a learned range is where inputs are cut: input_bound must be at least 1 then, got \
                 {bound}"
            )));
        }
        if self.bound_management && self.output_bound.is_none() {
            return Err(Error::Config("bound_management needs an output_bound that clips".into()));
        }
        if self.passes == Passes::Bits {
            if !(self.input_steps + 2).is_power_of_two() || self.input_steps == 0 {
                return Err(Error::Config(
                    "passes bit by bit need input converters with a number of bits".into(),
                ));
            }
            if self.bound_management {
                return Err(Error::Config(
                    "bound_management halves inputs, which does not make their bits smaller: leave \
                     it out where passes are bits"
                        .into(),
                ));
            }
        }
        Ok(())
    }
}

impl Io {
    /// Checks that what is put on lines is integers of eight bits.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting.
    pub fn check_integers(&self) -> Result<()> {
        let most = 2 * LARGEST;
        if !(2..=most).contains(&self.input_steps) || self.input_noise > 0.0 {
            return Err(Error::Config(format!(
                "precision \"int8\" needs inputs that are integers, forward and backward: \
                 input_bits of 8 or fewer, and no input_noise; got {} steps of input converters \
                 (of at most {most}) and input_noise {}",
                self.input_steps, self.input_noise
            )));
        }
        Ok(())
    }
}

/// The levels of converters.
fn levels<T: Real>(steps: u32, bound: Option<f64>) -> Levels<T> {
    let bound = bound.unwrap_or(f64::INFINITY);
    // Half a range is half a step off: that must be the same for every way to get there.
    let (per_unit, step) = if steps > 0 {
        (f64::from(steps) / (2.0 * bound), 2.0 * bound / f64::from(steps))
    } else {
        (0.0, 0.0)
    };
    Levels { per_unit: T::from_f64(per_unit), step: T::from_f64(step), bound: T::from_f64(bound) }
}

/// Where random numbers of a read come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draws {
    pub level: Level,
    pub random: Philox,
    pub group: u32,
    pub first: usize,
}

impl Draws {
    /// Adds normals of a deviation to one row, or to those of its places.
    fn add<T: Real>(
        &self,
        kind: u32,
        row: usize,
        deviation: T,
        values: &mut [T],
        drawn: &mut Vec<T>,
    ) {
        drawn.resize(values.len(), T::ZERO);
        self.random.fill_normal(
            self.level,
            self.place(row, values.len()),
            self.group + kind,
            drawn,
        );
        add_scaled(self.level, drawn, deviation, values);
    }

    fn uniform<'a, T: Real>(
        &self,
        kind: u32,
        row: usize,
        width: usize,
        drawn: &'a mut Vec<T>,
    ) -> &'a [T] {
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
    fn finish<T: Real>(
        &self,
        draws: Draws,
        row: usize,
        offsets: &[T],
        y: &mut [T],
        drawn: &mut Vec<T>,
    ) {
        if self.s_shape > 0.0 {
            let s = T::from_f64(self.s_shape);
            y.iter_mut().for_each(|y| *y = *y / (T::ONE + (s * *y).abs()));
        }
        add_scaled(draws.level, offsets, T::ONE, y);
        if self.output_noise > 0.0 {
            draws.add(3, row, T::from_f64(self.output_noise), y, drawn);
        }
        let uniform =
            if self.stochastic_rounding { draws.uniform(4, row, y.len(), drawn) } else { &[] };
        convert(draws.level, levels(self.output_steps, self.output_bound), uniform, y);
    }

    /// What the outputs of an array are off by, as drawn from a group; empty: nothing.
    pub(crate) fn offsets<T: Real>(&self, outputs: usize, random: Philox, group: u32) -> Vec<T> {
        let count = if self.output_offset > 0.0 { outputs as u64 } else { 0 };
        (0..count).map(|i| T::from_f64(self.output_offset * random.normal(i, group))).collect()
    }

    /// Reads one line of an array: an input of one on it, and nothing on the others, which are
    /// disconnected.
    pub(crate) fn read_line<T: Real>(
        &self,
        level: Level,
        line: &[T],
        offsets: &[T],
        (random, group, first): (Philox, u32, usize),
    ) -> Vec<T> {
        let (mut y, scratch) = (vec![T::ZERO; line.len()], &Scratch::default());
        let (inputs, outputs, codes, grid) = (1, line.len(), None, None);
        let array =
            Array { io: self, weights: line, codes, grid, inputs, outputs, offsets, scratch };
        array.once(Draws { level, random, group, first }, &[0], &mut [T::ONE], &mut y);
        y
    }
}

/// A matrix that is read.
pub(crate) struct Array<'a, T> {
    pub io: &'a Io,
    pub weights: &'a [T],
    /// The same as integers; `None`: they are no such.
    pub codes: Option<Codes<'a, T>>,
    /// The wires between its cells; `None`: there is nothing between them.
    pub grid: Option<Grid<'a, T>>,
    pub inputs: usize,
    pub outputs: usize,
    /// What outputs are off by; empty: nothing.
    pub offsets: &'a [T],
    pub scratch: &'a Scratch<T>,
}

impl<T: Real> Array<'_, T> {
    /// Writes what is read for rows of inputs, of which the range may have been learned.
    pub(crate) fn read(&self, draws: Draws, range: Option<T>, x: &[T], y: &mut [T]) {
        let (n, m) = (self.inputs, self.outputs);
        let (mut scales, mut rows) = (self.scratch.empty(), self.scratch.indices());
        scales.extend(x.chunks_exact(n).map(|x| match self.io.scale {
            Scale::Constant(a) => T::from_f64(a),
            Scale::Absmax => largest(draws.level, x),
            Scale::Learned => range.unwrap_or(T::ONE),
        }));
        rows.extend(0..scales.len());
        let (mut own, mut found) = (self.scratch.empty(), self.scratch.empty());
        for repeat in 0..=REPEATS {
            let halved = T::from_f64(f64::from(1u32 << repeat));
            own.resize(rows.len() * n, T::ZERO);
            for (own, &r) in own.chunks_exact_mut(n).zip(&*rows) {
                let a = scales[r] * halved;
                // A dark row stays dark.
                let a = if a == T::ZERO { T::ONE } else { a };
                divide(draws.level, &x[r * n..(r + 1) * n], a, own);
                if self.io.scale == Scale::Learned {
                    // Inputs are cut at the range, however far outputs have it widened.
                    let end = T::ONE / halved;
                    own.iter_mut().for_each(|x| *x = x.within(-end, end));
                }
            }
            found.clear();
            found.resize(rows.len() * m, T::ZERO);
            let draws = Draws { group: draws.group + PASSES * GROUPS_OF_PASS * repeat, ..draws };
            let clipped = self.once(draws, &rows, &mut own, &mut found);
            for (k, &r) in rows.iter().enumerate() {
                let a = scales[r] * halved;
                y[r * m..(r + 1) * m]
                    .iter_mut()
                    .zip(&found[k * m..])
                    .for_each(|(y, &f)| *y = f * a);
            }
            if !self.io.bound_management || clipped.is_empty() {
                break;
            }
            rows = clipped;
        }
    }

    /// Reads rows of scaled inputs once, in units of their scales; gives those whose outputs are
    /// clipped. `y` begins as zeros.
    fn once(&self, draws: Draws, rows: &[usize], x: &mut [T], y: &mut [T]) -> Lent<'_, Vec<usize>> {
        let (n, io) = (self.inputs, self.io);
        let mut drawn = self.scratch.empty();
        for (x, &r) in x.chunks_exact_mut(n).zip(rows) {
            let uniform =
                if io.stochastic_rounding { draws.uniform(0, r, n, &mut drawn) } else { &[] };
            convert(draws.level, levels(io.input_steps, io.input_bound), uniform, x);
        }
        let mut clipped = self.scratch.indices();
        clipped.resize(rows.len(), 0);
        match io.passes {
            Passes::One => self.pass(draws, rows, x, y, &mut clipped),
            Passes::Signs => {
                let part = |sign: T, x: T| if sign * x > T::ZERO { sign * x } else { T::ZERO };
                let signs = [T::ONE, -T::ONE].map(|sign| (sign, move |x: T| part(sign, x)));
                self.add_passes(draws, rows, x, signs.into_iter(), y, &mut clipped);
            }
            Passes::Bits => {
                // The largest input has all bits set.
                let bound = io.input_bound.unwrap_or(1.0);
                let bits = (io.input_steps / 2 + 1).trailing_zeros();
                let most = f64::from(io.input_steps / 2);
                let plane = |bit: u32| {
                    let digit = move |x: T| {
                        let code = (x.to_f64().abs() / bound * most).round() as u32;
                        T::from_f64(f64::from(code >> bit & 1) * bound.copysign(x.to_f64()))
                    };
                    (T::from_f64(f64::from(1u32 << bit) / most), digit)
                };
                self.add_passes(draws, rows, x, (0..bits).map(plane), y, &mut clipped);
            }
        }
        let mut found = self.scratch.indices();
        found.extend(
            rows.iter().zip(&*clipped).filter(|(_, times)| **times > 0).map(|(row, _)| row),
        );
        found
    }

    /// Adds what is read in several passes, each with the factor that it counts by, of what it
    /// takes of each input.
    fn add_passes<D: Fn(T) -> T>(
        &self,
        draws: Draws,
        rows: &[usize],
        x: &[T],
        passes: impl Iterator<Item = (T, D)>,
        y: &mut [T],
        clipped: &mut [usize],
    ) {
        let (mut own, mut part) = (self.scratch.empty(), self.scratch.zeros(y.len()));
        for (k, (factor, digit)) in passes.enumerate() {
            own.clear();
            own.extend(x.iter().map(|&x| digit(x)));
            part.fill(T::ZERO);
            let draws = Draws { group: draws.group + GROUPS_OF_PASS * k as u32, ..draws };
            self.pass(draws, rows, &mut own, &mut part, clipped);
            add_scaled(draws.level, &part, factor, y);
        }
    }

    /// Reads rows of converted inputs; counts for each how often its outputs are clipped. `y`
    /// begins as zeros.
    fn pass(&self, draws: Draws, rows: &[usize], x: &mut [T], y: &mut [T], clipped: &mut [usize]) {
        let (n, m, io) = (self.inputs, self.outputs, self.io);
        let mut drawn = self.scratch.empty();
        if io.input_noise > 0.0 {
            for (x, &r) in x.chunks_exact_mut(n).zip(rows) {
                draws.add(1, r, T::from_f64(io.input_noise), x, &mut drawn);
            }
        }
        if let Some(grid) = self.grid {
            grid.read(draws.level, self.scratch, x, y);
        } else if let Some(codes) = self.codes {
            let step = levels(io.input_steps, io.input_bound).step;
            codes.multiply(draws.level, (n, m), step, x, y);
        } else {
            let shape = (rows.len(), n, m);
            product(draws.level, x, self.weights, shape, y, &mut self.scratch.product());
        }
        self.add_weight_noise(draws, rows, x, y);
        for ((y, &r), clipped) in y.chunks_exact_mut(m).zip(rows).zip(clipped) {
            io.finish(draws, r, self.offsets, y, &mut drawn);
            let reached = |bound| largest(draws.level, y) >= T::from_f64(bound);
            *clipped += usize::from(io.output_bound.is_some_and(reached));
        }
    }

    fn add_weight_noise(&self, draws: Draws, rows: &[usize], x: &[T], y: &mut [T]) {
        if self.io.weight_noise == 0.0 {
            return;
        }
        let (n, m) = (self.inputs, self.outputs);
        let deviation = T::from_f64(self.io.weight_noise);
        let mut drawn = self.scratch.empty();
        if self.io.weight_noise_kind == WeightNoise::Additive {
            for ((x, y), &r) in x.chunks_exact(n).zip(y.chunks_exact_mut(m)).zip(rows) {
                let length = dot(draws.level, x, x).sqrt();
                draws.add(2, r, deviation * length, y, &mut drawn);
            }
            return;
        }
        let (mut squares, mut sizes) = (self.scratch.empty(), self.scratch.empty());
        squares.extend(x.iter().map(|&x| x * x));
        sizes.extend(self.weights.iter().map(|w| w.abs()));
        let mut sums = self.scratch.zeros(y.len());
        let squares = Strided { data: &squares, row: n, column: 1 };
        multiply(
            draws.level,
            squares,
            Dense { data: &sizes, stride: m },
            (rows.len(), n, m),
            &mut sums,
            m,
        );
        for ((sums, y), &r) in sums.chunks_exact_mut(m).zip(y.chunks_exact_mut(m)).zip(rows) {
            drawn.resize(m, T::ZERO);
            draws.random.fill_normal(draws.level, draws.place(r, m), draws.group + 2, &mut drawn);
            y.iter_mut()
                .zip(sums)
                .zip(&*drawn)
                .for_each(|((y, sum), &d)| *y += deviation * sum.sqrt() * d);
        }
    }
}
