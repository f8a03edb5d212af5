//! Banks of microring resonators that weight wavelength channels (Tait et al., Sci. Rep. 7, 7430,
//! 2017).
//!
//! Every output has a bus that carries its share of the power of all channels past a ring for each.
//! Ring j drops the share D = 1 / (1 + (2 delta)^2) of a channel that is delta linewidths away from
//! its resonance, and lets the rest through; balanced detectors tell what all rings dropped less
//! what all let through: the weight of channel k is 1 - 2 Prod_j (1 - D_kj), over the number of
//! outputs. A ring has a resonance every finesse linewidths.

use pnncore_kernels::gemm::{Dense, Strided, multiply};
use pnncore_kernels::philox::Philox;
use pnncore_kernels::{Level, Real};
use serde::Deserialize;

use super::layer::{ForwardRecord, Layer, LayerContext, walk};
use super::layer_spec::{LayerOutline, LayerSpec, Parts, Site};
use crate::params::ParamSpec;
use crate::settings::{at_least_one, at_least_zero, converter_bits, positive};
use crate::signal::Signal;
use crate::{Error, Result, memory};

/// The description of a bank of microrings.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MicroringSpec {
    /// The number of channels.
    pub inputs: usize,
    /// The number of buses.
    pub outputs: usize,
    /// From one channel to the next, in linewidths.
    pub spacing: f64,
    /// From one resonance of a ring to its next, in linewidths.
    pub finesse: f64,
    /// The standard deviation of what resonances of the hardware are off by, in linewidths.
    pub resonance_error: f64,
    /// The share of a ring's detuning that its neighbours on the bus get, in the hardware.
    pub crosstalk: f64,
    /// Detunings of the hardware are set in 2^bits steps between two channels; `None`: as they are.
    pub bits: Option<u32>,
    /// The standard deviation, in linewidths, of what every resonance of the hardware is off by
    /// more at each step of training than at the one before: a random walk.
    pub drift: f64,
}

impl MicroringSpec {
    /// A perfect bank.
    pub fn new(inputs: usize, outputs: usize, spacing: f64, finesse: f64) -> Self {
        Self {
            inputs,
            outputs,
            spacing,
            finesse,
            resonance_error: 0.0,
            crosstalk: 0.0,
            bits: None,
            drift: 0.0,
        }
    }

    fn check(&self) -> Result<()> {
        let Self { inputs, outputs, spacing, finesse, bits, .. } = *self;
        at_least_one(&[("n_in", inputs), ("n_out", outputs)])?;
        positive("spacing", spacing)?;
        positive("finesse", finesse)?;
        for (name, value) in [
            ("resonance_error", self.resonance_error),
            ("crosstalk", self.crosstalk),
            ("drift", self.drift),
        ] {
            at_least_zero(name, value)?;
        }
        if spacing < 1.0 {
            return Err(Error::Config(format!(
                "spacing must be at least 1 linewidth, or channels overlap, got {spacing}"
            )));
        }
        let needed = spacing * inputs as f64;
        if needed > finesse {
            return Err(Error::Config(format!(
                "{inputs} channels {spacing} linewidths apart take {needed} linewidths, more than \
                 the finesse, {finesse}: the last ones overlap with the next resonances of the \
                 first rings; take a larger finesse, a smaller spacing, or fewer channels"
            )));
        }
        converter_bits("bits", bits)
    }

    /// The twin.
    fn bank(&self) -> Bank {
        let rings = self.inputs * self.outputs;
        Bank {
            spec: *self,
            is_hardware: false,
            offsets: vec![0.0; rings],
            widths: vec![1.0; rings],
        }
    }

    /// The detunings with which a perfect bank has these weights (outputs, inputs), each within
    /// what it can have: above -1 / outputs, and at most 1 / outputs.
    ///
    /// Every ring is brought to drop what the others leave to drop of its channel, again and again.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, [`Error::Shape`] for as many weights as there
    /// are not.
    pub fn program(&self, weights: &[f64]) -> Result<Vec<f64>> {
        /// Rounds, each of which makes up for the crosstalk of the one before.
        const ROUNDS: usize = 200;
        self.check()?;
        let (n, m) = (self.inputs, self.outputs);
        if weights.len() != n * m {
            return Err(Error::Shape(format!(
                "matrix must have {m} x {n} elements, got {}",
                weights.len()
            )));
        }
        // Half of the way to the next channel, a ring drops this share of its own.
        let least = drop_of(self.spacing / 2.0);
        let bank = self.bank();
        let mut found = vec![self.spacing / 2.0; n * m];
        for (row, (weights, detunings)) in
            weights.chunks_exact(n).zip(found.chunks_exact_mut(n)).enumerate()
        {
            for _ in 0..ROUNDS {
                let mut moved: f64 = 0.0;
                for k in 0..n {
                    let passes = (1.0 - m as f64 * weights[k]) / 2.0;
                    let others: f64 = (0..n)
                        .filter(|&j| j != k)
                        .map(|j| 1.0 - bank.dropped(row, j, k, detunings[j]))
                        .product();
                    let share = (1.0 - passes / others).clamp(least, 1.0);
                    let wanted = 0.5 * (1.0 / share - 1.0).sqrt();
                    moved = moved.max((wanted - detunings[k]).abs());
                    detunings[k] = wanted;
                }
                if moved < 1e-15 * self.spacing {
                    break;
                }
            }
        }
        Ok(found)
    }
}

impl LayerSpec for MicroringSpec {
    const KIND: &'static str = "microring-bank";

    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        self.check()?;
        let Self { inputs, outputs, resonance_error, .. } = *self;
        let rings = memory::product(&[inputs, outputs]);
        let drawn = u128::from(resonance_error > 0.0) + u128::from(site.is_mismatched());
        Ok(LayerOutline {
            parameters: parameters(inputs, outputs),
            constants: rings.saturating_mul(drawn),
            numbers: rings.saturating_mul(inputs as u128 + 4),
            ..LayerOutline::new(Signal::real(inputs), Signal::real(outputs))
        })
    }

    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        let twin = self.bank();
        let imperfect = [self.resonance_error, self.crosstalk, self.drift];
        let differs = site.is_mismatched()
            || self.bits.is_some()
            || imperfect.iter().any(|&deviation| deviation > 0.0);
        let hardware: Option<Box<dyn Layer<T>>> = differs.then(|| {
            let (random, group) = (site.deviations(), site.group());
            let mut real = Bank { is_hardware: true, ..twin.clone() };
            for (k, offset) in (0..).zip(&mut real.offsets) {
                *offset = self.resonance_error * random.normal(k, group + 1);
            }
            real.mismatched(site.mismatch, random, group)
        });
        Ok(Parts::new(Box::new(twin), hardware))
    }
}

fn parameters(inputs: usize, outputs: usize) -> Vec<ParamSpec> {
    vec![ParamSpec { name: "detuning".into(), shape: vec![outputs, inputs] }]
}

/// The share that a ring drops of light that is so many linewidths away.
fn drop_of(detuning: f64) -> f64 {
    1.0 / (1.0 + 4.0 * detuning * detuning)
}

/// A bank, as its twin or as its hardware.
#[derive(Debug, Clone)]
struct Bank {
    spec: MicroringSpec,
    /// Whether crosstalk, steps and drift matter.
    is_hardware: bool,
    /// What resonances are off by, in linewidths, bus by bus.
    offsets: Vec<f64>,
    /// The linewidths of rings, in those that detunings are told in.
    widths: Vec<f64>,
}

impl Bank {
    /// How far ring `j` of bus `row`, so far detuned from its own channel, is from channel `k`, in
    /// its own linewidths: from the resonance that is nearest.
    fn distance(&self, row: usize, j: usize, k: usize, detuning: f64) -> f64 {
        let MicroringSpec { inputs, spacing, finesse, .. } = self.spec;
        let off = detuning + spacing * (j as f64 - k as f64);
        (off - finesse * (off / finesse).round()) / self.widths[row * inputs + j]
    }

    fn dropped(&self, row: usize, j: usize, k: usize, detuning: f64) -> f64 {
        drop_of(self.distance(row, j, k, detuning))
    }

    /// How far ring `j` of bus `row` is detuned, at these settings.
    fn detuning<T: Real>(
        &self,
        (row, j): (usize, usize),
        settings: &[T],
        drift: Option<&[T]>,
    ) -> f64 {
        let MicroringSpec { inputs, spacing, bits, .. } = self.spec;
        let at = row * inputs + j;
        let step = bits.filter(|_| self.is_hardware).map(|bits| spacing / f64::from(bits).exp2());
        let set = |j: usize| {
            let setting = settings[row * inputs + j].to_f64();
            step.map_or(setting, |step| (setting / step).round_ties_even() * step)
        };
        let drifted = drift.map_or(0.0, |drift| drift[at].to_f64());
        set(j) + self.shared(j, set) + self.offsets[at] + drifted
    }

    /// What comes to ring `j` of what its neighbours on the bus have.
    fn shared(&self, j: usize, own: impl Fn(usize) -> f64) -> f64 {
        let MicroringSpec { inputs, crosstalk, .. } = self.spec;
        if !self.is_hardware || crosstalk == 0.0 {
            return 0.0;
        }
        let below = j.checked_sub(1).map_or(0.0, &own);
        let above = if j + 1 < inputs { own(j + 1) } else { 0.0 };
        crosstalk * (below + above)
    }

    /// The weight of channel `k` on bus `row` at these detunings of its rings. The `slopes`, unless
    /// they are empty, become by how much it changes with the detuning of each.
    fn weight<T: Real>(
        &self,
        (row, k): (usize, usize),
        detuning: impl Fn(usize) -> f64,
        slopes: &mut [T],
    ) -> f64 {
        let (n, outputs) = (self.spec.inputs, self.spec.outputs as f64);
        let passes = |j: usize| 1.0 - self.dropped(row, j, k, detuning(j));
        // What all let through but those that let nothing through, and how many these are: so the
        // product of all others is known for each.
        let (mut others, mut dark) = (1.0, 0);
        for j in 0..n {
            match passes(j) {
                0.0 => dark += 1,
                passes => others *= passes,
            }
        }
        for (j, slope) in slopes.iter_mut().enumerate() {
            let own = passes(j);
            let rest = match dark {
                0 => others / own,
                1 if own == 0.0 => others,
                _ => 0.0,
            };
            let distance = self.distance(row, j, k, detuning(j));
            let share = drop_of(distance);
            let drops = -8.0 * distance * share * share / self.widths[row * n + j];
            *slope = T::from_f64(2.0 * rest * drops / outputs);
        }
        (1.0 - if dark > 0 { 0.0 } else { 2.0 * others }) / outputs
    }

    /// What was prepared: the transposed weights, the weights, and their slopes.
    fn parts<'a, T>(&self, prepared: &'a [T]) -> (&'a [T], &'a [T], &'a [T]) {
        let count = self.spec.inputs * self.spec.outputs;
        let (turned, rest) = prepared.split_at(count);
        let (weights, slopes) = rest.split_at(count);
        (turned, weights, slopes)
    }

    /// Adds rows of `left` (rows, inner) times a matrix (inner, cols) to `to`.
    fn add_product<T: Real>(level: Level, left: &[T], matrix: &[T], inner: usize, to: &mut [T]) {
        let cols = matrix.len() / inner;
        let rows = left.len() / inner;
        let left = Strided { data: left, row: inner, column: 1 };
        multiply(level, left, Dense { data: matrix, stride: cols }, (rows, inner, cols), to, cols);
    }
}

impl<T: Real> Layer<T> for Bank {
    fn name(&self) -> &'static str {
        "MicroringBank"
    }

    fn takes(&self) -> Signal {
        Signal::real(self.spec.inputs)
    }

    fn gives(&self) -> Signal {
        Signal::real(self.spec.outputs)
    }

    fn specs(&self) -> Vec<ParamSpec> {
        parameters(self.spec.inputs, self.spec.outputs)
    }

    /// Weights uniform within most of what they can be, from detunings to one side.
    fn initialise(&self, random: Philox, group: u32, params: &mut [&mut [T]]) {
        for (k, setting) in (0..).zip(params[0].iter_mut()) {
            let share = 0.1 + 0.8 * random.uniform(k, group);
            *setting = T::from_f64(0.5 * (1.0 / share - 1.0).sqrt());
        }
    }

    fn memory(&self) -> Vec<ParamSpec> {
        if self.spec.drift == 0.0 || !self.is_hardware {
            return Vec::new();
        }
        let shape = vec![self.spec.outputs, self.spec.inputs];
        vec![ParamSpec { name: "detuning_drift".into(), shape }]
    }

    fn advance(&self, random: Philox, group: u32, memory: &mut [&mut [T]]) {
        walk(self.spec.drift, random, group, memory);
    }

    fn prepare(
        &self,
        _level: Level,
        params: &[&[T]],
        memory: &[&[T]],
        derivatives: bool,
        prepared: &mut Vec<T>,
    ) {
        let (n, m) = (self.spec.inputs, self.spec.outputs);
        let drift = memory.first().copied();
        prepared.clear();
        prepared.resize(n * m * if derivatives { n + 2 } else { 2 }, T::ZERO);
        let (turned, rest) = prepared.split_at_mut(n * m);
        let (weights, slopes) = rest.split_at_mut(n * m);
        for (at, weight) in weights.iter_mut().enumerate() {
            let (row, k) = (at / n, at % n);
            let own = if derivatives { &mut slopes[at * n..(at + 1) * n] } else { &mut [] };
            let detuning = |j: usize| self.detuning((row, j), params[0], drift);
            *weight = T::from_f64(self.weight((row, k), detuning, own));
            turned[k * m + row] = *weight;
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
        y.fill(T::ZERO);
        let (turned, ..) = self.parts(context.prepared);
        Self::add_product(context.level, x, turned, self.spec.inputs, y);
        Ok(())
    }

    fn vjp(
        &self,
        context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dy: &[T],
        dx: &mut [T],
        gradient: &mut [Vec<T>],
    ) -> Result<()> {
        let (n, m) = (self.spec.inputs, self.spec.outputs);
        let (_, weights, slopes) = self.parts(context.prepared);
        let mut by_weight = context.scratch.zeros(n * m);
        let errors = Strided { data: dy, row: 1, column: m };
        let x = Dense { data: record.x, stride: n };
        multiply(context.level, errors, x, (m, record.rows, n), &mut by_weight, n);
        for ((row, by_weight), gradient) in
            by_weight.chunks_exact(n).enumerate().zip(gradient[0].chunks_exact_mut(n))
        {
            let slopes = &slopes[row * n * n..(row + 1) * n * n];
            for (by_weight, slopes) in by_weight.iter().zip(slopes.chunks_exact(n)) {
                for (j, to) in gradient.iter_mut().enumerate() {
                    let slope = slopes[j].to_f64() + self.shared(j, |j| slopes[j].to_f64());
                    *to += T::from_f64(by_weight.to_f64() * slope);
                }
            }
        }
        if !dx.is_empty() {
            dx.fill(T::ZERO);
            Self::add_product(context.level, dy, weights, m, dx);
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
        let (n, m) = (self.spec.inputs, self.spec.outputs);
        let (turned, _, slopes) = self.parts(context.prepared);
        let mut change = context.scratch.zeros(n * m);
        for (at, slopes) in slopes.chunks_exact(n).enumerate() {
            let (row, k) = (at / n, at % n);
            let set = |j: usize| along[0][row * n + j].to_f64();
            let moved = |(j, slope): (usize, &T)| slope.to_f64() * (set(j) + self.shared(j, set));
            change[k * m + row] = T::from_f64(slopes.iter().enumerate().map(moved).sum());
        }
        dy.fill(T::ZERO);
        Self::add_product(context.level, dx, turned, n, dy);
        Self::add_product(context.level, record.x, &change, n, dy);
        Ok(())
    }

    /// Linewidths are off.
    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        let mut off = self.clone();
        for (k, width) in (0..).zip(&mut off.widths) {
            // A resonance has a width, however far it is off.
            *width *= (1.0 + mismatch * random.normal(k, group)).abs().max(1e-3);
        }
        Box::new(off)
    }
}
