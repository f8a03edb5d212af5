//! The linear map: digital, or an ideal crossbar.

use pnncore_kernels::gemm::{Dense, Strided, multiply};
use pnncore_kernels::philox::Philox;
use pnncore_kernels::watch::{poll, polled};
use pnncore_kernels::{Level, Real, bfloat16, sparse, sum_rows, transpose};

use serde::Deserialize;

use super::layer::{ForwardRecord, Layer, LayerContext, Role, factors};
use super::layer_spec::{LayerOutline, LayerSpec, Parts, Site};
use crate::params::ParamSpec;
use crate::precision::Precision;
use crate::settings::at_least_one;
use crate::signal::Signal;
use crate::{Result, memory};

/// The description of a linear map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearSpec {
    /// The number of inputs.
    pub inputs: usize,
    /// The number of outputs.
    pub outputs: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// What signals, errors and weights are rounded to where they are multiplied.
    #[serde(default)]
    pub precision: Precision,
}

impl LinearSpec {
    /// A map in the precision of the stack.
    pub fn new(inputs: usize, outputs: usize, bias: bool) -> Self {
        Self { inputs, outputs, bias, precision: Precision::Full }
    }

    /// The map, without deviations.
    pub(super) fn map<T: Real>(&self) -> Linear<T> {
        let precision = self.precision;
        Linear { precision, ..Linear::new(self.inputs, self.outputs, self.bias) }
    }
}

impl LayerSpec for LinearSpec {
    const KIND: &'static str = "linear";

    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        let Self { inputs, outputs, .. } = *self;
        at_least_one(&[("inputs", inputs), ("outputs", outputs)])?;
        let crosstalk = memory::product(&[outputs, group(outputs)]);
        let weights = memory::product(&[inputs, outputs]);
        let constants = if site.is_mismatched() { weights.saturating_add(crosstalk) } else { 0 };
        Ok(LayerOutline {
            parameters: self.map::<f32>().parameters(),
            constants,
            numbers: weights.saturating_add(constants),
            ..LayerOutline::new(Signal::real(inputs), Signal::real(outputs))
        })
    }

    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        Ok(Parts::of(self.map(), site))
    }
}

/// The smallest range of inputs: that of a converter is not zero.
const LEAST: f64 = 1e-6;

/// y = x W + b. With a mismatch, y = (x (W * gains) + b) crosstalk. With a learned range, x is cut
/// at plus and minus a parameter. In a low precision, what is multiplied is rounded, also on the
/// way back: derivatives are those of the map without rounding.
#[derive(Debug, Clone)]
pub struct Linear<T> {
    inputs: usize,
    outputs: usize,
    bias: bool,
    ranged: bool,
    precision: Precision,
    /// Factors of the elements of W; empty: one.
    gains: Vec<T>,
    /// What outputs leak into each other: a square matrix for each group of [`group`] outputs;
    /// empty: nothing.
    crosstalk: Vec<T>,
}

/// The widest map all of whose outputs leak into each other.
const CLOSE: usize = 1024;

/// In wider ones they do so within groups of this many: a square matrix of all would be as large as
/// no weights are.
const NEIGHBOURS: usize = 256;

/// How many outputs of `n` leak into each other.
fn group(n: usize) -> usize {
    if n <= CLOSE { n } else { NEIGHBOURS }
}

impl<T: Real> Linear<T> {
    /// A linear map of these numbers of inputs and outputs.
    pub fn new(inputs: usize, outputs: usize, bias: bool) -> Self {
        let (precision, ranged) = (Precision::Full, false);
        let (gains, crosstalk) = (Vec::new(), Vec::new());
        Self { inputs, outputs, bias, ranged, precision, gains, crosstalk }
    }

    /// The same map of inputs that are cut at the ends of a range, which is its last parameter
    /// (Choi et al. 2018, arXiv 1805.06085).
    pub fn with_range(self) -> Self {
        Self { ranged: true, ..self }
    }

    /// Names and shapes of the parameters.
    pub(super) fn parameters(&self) -> Vec<ParamSpec> {
        let weights = ParamSpec { name: "W".into(), shape: vec![self.inputs, self.outputs] };
        let bias = self.bias.then(|| ParamSpec { name: "b".into(), shape: vec![self.outputs] });
        let range = self.ranged.then(|| ParamSpec { name: "A".into(), shape: vec![1] });
        [weights].into_iter().chain(bias).chain(range).collect()
    }

    /// Whether it has such a range.
    pub(super) fn is_ranged(&self) -> bool {
        self.ranged
    }

    /// The largest input that is not cut.
    pub(super) fn range(&self, params: &[&[T]]) -> Option<T> {
        let size = params.last().filter(|_| self.ranged)?[0].abs();
        let least = T::from_f64(LEAST);
        Some(if size < least { least } else { size })
    }

    /// The bias, among parameters.
    pub(super) fn bias<'a>(&self, params: &[&'a [T]]) -> Option<&'a [T]> {
        params.get(1).copied().filter(|_| self.bias)
    }

    /// The gradient of the bias, among those of parameters.
    pub(super) fn bias_of<'a>(&self, gradient: &'a mut [Vec<T>]) -> Option<&'a mut Vec<T>> {
        gradient.get_mut(1).filter(|_| self.bias)
    }

    /// Cuts inputs at the ends of the range, where there is one.
    fn clip_inputs(&self, params: &[&[T]], x: &mut [T]) {
        let Some(range) = self.range(params) else { return };
        for x in x {
            *x = if *x > range { range } else { *x };
            *x = if *x < -range { -range } else { *x };
        }
    }

    /// Inputs, cut at the ends of the range, where there is one: then they are in `clipped`.
    pub(super) fn clipped<'a>(
        &self,
        params: &[&[T]],
        x: &'a [T],
        clipped: &'a mut Vec<T>,
    ) -> &'a [T] {
        if !self.ranged {
            return x;
        }
        clipped.extend_from_slice(x);
        self.clip_inputs(params, clipped);
        clipped
    }

    /// Inputs as they are multiplied: cut, and rounded. Where they are not what arrives, they are
    /// in `memory`.
    fn multiplied<'a>(
        &self,
        context: LayerContext<'_, T>,
        x: &'a [T],
        memory: &'a mut Vec<T>,
    ) -> &'a [T] {
        if !self.ranged {
            return self.precision.rounded(context.level, x, memory);
        }
        self.clipped(context.params, x, memory);
        self.precision.round(context.level, memory);
        memory
    }

    /// The changes of inputs after they were cut, as these and the range change: in `pushed`
    /// where there is one.
    fn push_range<'a>(
        &self,
        params: &[&[T]],
        along: &[&[T]],
        x: &[T],
        dx: &'a [T],
        pushed: &'a mut Vec<T>,
    ) -> &'a [T] {
        let (Some(range), Some(moved)) = (self.range(params), along.last()) else {
            return dx;
        };
        let moved =
            if params.last().is_some_and(|own| own[0] < T::ZERO) { -moved[0] } else { moved[0] };
        let change = |(&dx, &x): (&T, &T)| {
            if x > range {
                moved
            } else if x < -range {
                -moved
            } else {
                dx
            }
        };
        pushed.extend(dx.iter().zip(x).map(change));
        pushed
    }

    /// Takes the errors of inputs that were cut away from these, and gives them to the gradient of
    /// the range.
    pub(super) fn pull_range(
        &self,
        params: &[&[T]],
        x: &[T],
        dx: &mut [T],
        gradient: &mut [Vec<T>],
    ) {
        let Some(range) = self.range(params) else { return };
        let sign = if params.last().is_some_and(|own| own[0] < T::ZERO) { -T::ONE } else { T::ONE };
        let mut total = T::ZERO;
        for (dx, &x) in dx.iter_mut().zip(x).filter(|(_, x)| x.abs() > range) {
            total += if x < T::ZERO { -*dx } else { *dx };
            *dx = T::ZERO;
        }
        if let Some(own) = gradient.last_mut() {
            own[0] += sign * total;
        }
    }

    /// Writes what [`Layer::prepare`] does to places from `first` on, which there may not be yet.
    pub(super) fn prepare_from(
        &self,
        first: usize,
        level: Level,
        weights: &[T],
        derivatives: bool,
        prepared: &mut Vec<T>,
    ) {
        let (_, effective) = self.places(weights, first, first, self.gains.len(), prepared);
        for ((own, &gain), &weight) in effective.iter_mut().zip(&self.gains).zip(weights) {
            *own = gain * weight;
        }
        if self.precision == Precision::Bfloat16 {
            let shape = (self.inputs, self.outputs);
            let count = bfloat16::packed_len::<T>(level, shape);
            let at = first + self.gains.len();
            let (weights, packed) = self.places(weights, first, at, count, prepared);
            bfloat16::pack(level, weights, shape, false, packed);
        }
        if derivatives {
            self.prepare_transpose_from(first, level, weights, prepared);
        }
    }

    /// Writes the transpose of the weights behind what else was prepared from place `first` on.
    fn prepare_transpose_from(
        &self,
        first: usize,
        level: Level,
        weights: &[T],
        prepared: &mut Vec<T>,
    ) {
        let (n, m) = (self.inputs, self.outputs);
        let (at, count) = (first + self.prepared_forward(level), self.prepared_transpose(level));
        let (weights, turned) = self.places(weights, first, at, count, prepared);
        match self.precision {
            Precision::Full => transpose(level, weights, n, m, 0..m, turned, n),
            Precision::Bfloat16 => bfloat16::pack(level, weights, (m, n), true, turned),
        }
    }

    /// `count` places from `at` on, which are made where there are none; and the weights as they
    /// are multiplied, which may have been prepared from place `first` on.
    fn places<'a>(
        &self,
        weights: &'a [T],
        first: usize,
        at: usize,
        count: usize,
        prepared: &'a mut Vec<T>,
    ) -> (&'a [T], &'a mut [T]) {
        prepared.resize(prepared.len().max(at + count), T::ZERO);
        let (before, own) = prepared.split_at_mut(at);
        let effective = before.get(first..first + self.gains.len()).unwrap_or_default();
        (if effective.is_empty() { weights } else { effective }, &mut own[..count])
    }

    /// How many numbers are prepared for the forward pass.
    fn prepared_forward(&self, level: Level) -> usize {
        let shape = (self.inputs, self.outputs);
        self.gains.len()
            + match self.precision {
                Precision::Full => 0,
                Precision::Bfloat16 => bfloat16::packed_len::<T>(level, shape),
            }
    }

    /// How many numbers the transpose of the weights is.
    fn prepared_transpose(&self, level: Level) -> usize {
        match self.precision {
            Precision::Full => self.inputs * self.outputs,
            Precision::Bfloat16 => bfloat16::packed_len::<T>(level, (self.outputs, self.inputs)),
        }
    }

    fn weights<'a>(&self, context: LayerContext<'a, T>) -> &'a [T] {
        if self.gains.is_empty() {
            context.params[0]
        } else {
            &context.prepared[..self.inputs * self.outputs]
        }
    }

    /// y += x W, for inputs as they are multiplied. Zeros are skipped in full precision alone: what
    /// is packed is read by dense products.
    fn add_forward(&self, context: LayerContext<'_, T>, rows: usize, x: &[T], y: &mut [T]) {
        let (level, shape) = (context.level, (rows, self.inputs, self.outputs));
        match self.precision {
            Precision::Full => {
                let memory = &mut context.scratch.product();
                sparse::product(level, x, self.weights(context), shape, y, memory);
            }
            Precision::Bfloat16 => {
                let packed = &context.prepared[self.gains.len()..self.prepared_forward(level)];
                let x = Strided { data: x, row: self.inputs, column: 1 };
                bfloat16::multiply_packed(level, x, packed, shape, y, self.outputs);
            }
        }
    }

    /// dx = dy W^T, for errors as they are multiplied, where derivatives were prepared.
    fn send_back(&self, context: LayerContext<'_, T>, dy: Dense<'_, T>, dx: &mut [T]) {
        let (n, m) = (self.inputs, self.outputs);
        let shape = (dx.len() / n, m, n);
        let turned = &context.prepared[self.prepared_forward(context.level)..];
        let turned = &turned[..self.prepared_transpose(context.level)];
        dx.fill(T::ZERO);
        match self.precision {
            Precision::Full => {
                let turned = Dense { data: turned, stride: n };
                multiply(context.level, dy.into(), turned, shape, dx, n);
            }
            Precision::Bfloat16 => {
                bfloat16::multiply_packed(context.level, dy.into(), turned, shape, dx, n);
            }
        }
    }

    /// Writes rows of outputs times the crosstalk, or its transpose.
    fn leak(
        &self,
        LayerContext { level, scratch, .. }: LayerContext<'_, T>,
        rows: usize,
        clean: &[T],
        y: &mut [T],
        turned: bool,
    ) {
        let (n, size) = (self.outputs, group(self.outputs));
        let mut transposed = scratch.empty();
        y.fill(T::ZERO);
        for (g, crosstalk) in self.crosstalk.chunks(size * size).enumerate() {
            let first = g * size;
            let width = size.min(n - first);
            let matrix = if turned {
                transposed.resize(crosstalk.len(), T::ZERO);
                transpose(level, crosstalk, width, width, 0..width, &mut transposed, width);
                &transposed
            } else {
                crosstalk
            };
            let clean = Strided { data: &clean[first.min(clean.len())..], row: n, column: 1 };
            let matrix = Dense { data: matrix, stride: width };
            multiply(level, clean, matrix, (rows, width, width), &mut y[first..], n);
        }
    }
}

impl<T: Real> Layer<T> for Linear<T> {
    fn name(&self) -> &'static str {
        "Linear"
    }

    fn takes(&self) -> Signal {
        Signal::real(self.inputs)
    }

    fn gives(&self) -> Signal {
        Signal::real(self.outputs)
    }

    fn specs(&self) -> Vec<ParamSpec> {
        self.parameters()
    }

    /// Weights uniform with variance 1 / inputs, biases zero.
    fn initialise(&self, random: Philox, group: u32, params: &mut [&mut [T]]) {
        let scale = (3.0 / self.inputs as f64).sqrt();
        for (k, weight) in params[0].iter_mut().enumerate() {
            poll(16);
            *weight = T::from_f64(scale * (2.0 * random.uniform(k as u64, group) - 1.0));
        }
        params[1..].iter_mut().for_each(|bias| bias.fill(T::ZERO));
        if let Some(range) = params.last_mut().filter(|_| self.ranged) {
            range.fill(T::ONE);
        }
    }

    fn operations(&self) -> u64 {
        (self.inputs * self.outputs) as u64
    }

    fn prepare(
        &self,
        level: Level,
        params: &[&[T]],
        _memory: &[&[T]],
        derivatives: bool,
        prepared: &mut Vec<T>,
    ) {
        self.prepare_from(0, level, params[0], derivatives, prepared);
    }

    fn forward(
        &self,
        context: LayerContext<'_, T>,
        rows: usize,
        x: &[T],
        y: &mut [T],
        _tape: &mut [T],
    ) -> Result<()> {
        let mut multiplied = context.scratch.empty();
        let x = self.multiplied(context, x, &mut multiplied);
        let start = |y: &mut [T]| match self.bias(context.params) {
            Some(bias) => y.chunks_exact_mut(self.outputs).for_each(|y| y.copy_from_slice(bias)),
            None => y.fill(T::ZERO),
        };
        if self.crosstalk.is_empty() {
            start(y);
            self.add_forward(context, rows, x, y);
            return Ok(());
        }
        let mut clean = context.scratch.zeros(y.len());
        start(&mut clean);
        self.add_forward(context, rows, x, &mut clean);
        self.leak(context, rows, &clean, y, false);
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
        let (rows, n) = (record.rows, self.outputs);
        let mut through = context.scratch.empty();
        let dy = if self.crosstalk.is_empty() {
            dy
        } else {
            through.resize(dy.len(), T::ZERO);
            self.leak(context, rows, dy, &mut through, true);
            &through
        };
        if let Some(bias) = self.bias_of(gradient) {
            let mut sums = context.scratch.zeros(n);
            sum_rows(context.level, dy, &mut sums);
            bias.iter_mut().zip(&*sums).for_each(|(total, &sum)| *total += sum);
        }
        let mut rounded = context.scratch.empty();
        let dy = Dense { data: self.precision.rounded(context.level, dy, &mut rounded), stride: n };
        if !self.gains.is_empty() {
            let mut product = context.scratch.zeros(self.inputs * n);
            let mut multiplied = context.scratch.empty();
            let x = self.multiplied(context, record.x, &mut multiplied);
            let x = Strided { data: x, row: self.inputs, column: 1 }.transposed();
            let shape = (self.inputs, rows, n);
            self.precision.multiply(context.level, x, dy, shape, &mut product);
            for ((total, &sum), &gain) in gradient[0].iter_mut().zip(&*product).zip(&self.gains) {
                *total += sum * gain;
            }
        }
        let unasked = if dx.is_empty() && self.ranged { record.x.len() } else { 0 };
        let mut own = context.scratch.zeros(unasked);
        let dx = if own.is_empty() { dx } else { &mut own };
        if !dx.is_empty() {
            self.send_back(context, dy, dx);
            self.pull_range(context.params, record.x, dx, gradient);
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
        let (rows, n, m) = (record.rows, self.inputs, self.outputs);
        let mut clean = context.scratch.zeros(if self.crosstalk.is_empty() { 0 } else { dy.len() });
        let into: &mut [T] = if self.crosstalk.is_empty() { &mut *dy } else { &mut clean };
        into.fill(T::ZERO);
        if let Some(bias) = self.bias(along) {
            into.chunks_exact_mut(m).for_each(|into| into.copy_from_slice(bias));
        }
        let mut gained = context.scratch.empty();
        gained.extend(self.gains.iter().zip(along[0]).map(|(&gain, &w)| gain * w));
        let moved = if gained.is_empty() { along[0] } else { &gained };
        let [mut multiplied, mut pushed, mut steps, mut weights] =
            [(); 4].map(|()| context.scratch.empty());
        let x = self.multiplied(context, record.x, &mut multiplied);
        let dx = self.push_range(context.params, along, record.x, dx, &mut pushed);
        let dx = self.precision.rounded(context.level, dx, &mut steps);
        let moved = self.precision.rounded(context.level, moved, &mut weights);
        let mut held = context.scratch.empty();
        let held = self.precision.rounded(context.level, self.weights(context), &mut held);
        for (left, right) in [(dx, held), (x, moved)] {
            let (left, right) = (Dense { data: left, stride: n }, Dense { data: right, stride: m });
            self.precision.multiply(context.level, left.into(), right, (rows, n, m), into);
        }
        if !self.crosstalk.is_empty() {
            self.leak(context, rows, &clean, dy, false);
        }
        Ok(())
    }

    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        let n = self.outputs;
        let mut crosstalk = Vec::with_capacity(n * self::group(n));
        for first in (0..n).step_by(self::group(n)) {
            let width = self::group(n).min(n - first);
            let leak = 0.5 * mismatch / (width as f64).sqrt();
            let drawn = crosstalk.len();
            crosstalk.extend(polled(width * width, 64).map(|k| {
                let own = if k % (width + 1) == 0 { 1.0 } else { 0.0 };
                T::from_f64(own + leak * random.normal((drawn + k) as u64, group + 1))
            }));
        }
        let gains = factors(self.inputs * n, mismatch, random, group);
        Box::new(Self { gains, crosstalk, ..self.clone() })
    }

    fn role(&self) -> Role {
        Role::LinearMap { bias: self.bias }
    }

    fn prepares_transpose_alone(&self) -> bool {
        !self.ranged
    }

    fn prepare_transpose(&self, level: Level, params: &[&[T]], prepared: &mut Vec<T>) {
        self.prepare_transpose_from(0, level, params[0], prepared);
    }

    fn is_factored(&self) -> bool {
        self.gains.is_empty()
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn factor_inputs(&self, params: &[&[T]], x: &mut [T]) {
        self.clip_inputs(params, x);
    }

    /// The range of inputs hears what came back, and not what derivatives would have given.
    fn replace_input_errors(
        &self,
        params: &[&[T]],
        x: &[T],
        dx: &mut [T],
        gradient: &mut [Vec<T>],
    ) {
        if self.ranged {
            gradient.iter_mut().last().into_iter().for_each(|range| range.fill(T::ZERO));
            self.pull_range(params, x, dx, gradient);
        }
    }
}
