//! The linear map: digital, or an ideal crossbar.

use pnncore_kernels::gemm::{Strided, multiply};
use pnncore_kernels::philox::Philox;
use pnncore_kernels::sparse::Dense;
use pnncore_kernels::{Level, Real, sum_rows, transpose};

use super::layer::{Given, Layer, Passed, factors};
use crate::Result;
use crate::params::ParamSpec;

/// y = x W + b. With a mismatch, y = (x (W * gains) + b) crosstalk.
#[derive(Debug, Clone)]
pub struct Linear<T> {
    inputs: usize,
    outputs: usize,
    bias: bool,
    /// Factors of the elements of W; empty: one.
    gains: Vec<T>,
    /// What outputs leak into each other; empty: nothing.
    crosstalk: Vec<T>,
}

impl<T: Real> Linear<T> {
    /// A linear map of these numbers of inputs and outputs.
    pub fn new(inputs: usize, outputs: usize, bias: bool) -> Self {
        Self { inputs, outputs, bias, gains: Vec::new(), crosstalk: Vec::new() }
    }

    /// Whether the gradient of W is the plain product of inputs and output errors.
    pub fn is_plain(&self) -> bool {
        self.gains.is_empty()
    }

    fn weights<'a>(&self, given: Given<'a, T>) -> &'a [T] {
        if self.gains.is_empty() { given.params[0] } else { &given.prepared[..self.inputs * self.outputs] }
    }

    /// The transpose of the weights, where derivatives were prepared.
    fn turned<'a>(&self, given: Given<'a, T>) -> &'a [T] {
        let skip = self.gains.len();
        &given.prepared[skip..skip + self.inputs * self.outputs]
    }
}

impl<T: Real> Layer<T> for Linear<T> {
    fn name(&self) -> &'static str {
        "Linear"
    }

    fn inputs(&self) -> usize {
        self.inputs
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn specs(&self) -> Vec<ParamSpec> {
        let weights = ParamSpec { name: "W".into(), shape: vec![self.inputs, self.outputs] };
        let bias = ParamSpec { name: "b".into(), shape: vec![self.outputs] };
        if self.bias { vec![weights, bias] } else { vec![weights] }
    }

    /// Weights uniform with variance 1 / inputs, biases zero.
    fn initialise(&self, random: Philox, group: u32, params: &mut [&mut [T]]) {
        let scale = (3.0 / self.inputs as f64).sqrt();
        for (k, weight) in params[0].iter_mut().enumerate() {
            *weight = T::from_f64(scale * (2.0 * random.uniform(k as u64, group) - 1.0));
        }
        params[1..].iter_mut().for_each(|bias| bias.fill(T::ZERO));
    }

    fn operations(&self) -> u64 {
        (self.inputs * self.outputs) as u64
    }

    fn prepare(&self, level: Level, params: &[&[T]], derivatives: bool, prepared: &mut Vec<T>) {
        prepared.clear();
        prepared.extend(self.gains.iter().zip(params[0]).map(|(&gain, &weight)| gain * weight));
        if derivatives {
            let (skip, n) = (self.gains.len(), self.inputs * self.outputs);
            prepared.resize(skip + n, T::ZERO);
            let (effective, turned) = prepared.split_at_mut(skip);
            let weights = if skip == 0 { params[0] } else { effective };
            transpose(level, weights, self.inputs, self.outputs, 0..self.outputs, turned, self.inputs);
        }
    }

    fn forward(&self, given: Given<'_, T>, rows: usize, x: &[T], y: &mut [T], _tape: &mut [T]) -> Result<()> {
        let start = |y: &mut [T]| match given.params.get(1) {
            Some(bias) => y.chunks_exact_mut(self.outputs).for_each(|y| y.copy_from_slice(bias)),
            None => y.fill(T::ZERO),
        };
        let (weights, shape) = (self.weights(given), (rows, self.inputs, self.outputs));
        let weights = Dense { data: weights, stride: self.outputs };
        let x = Strided { data: x, row: self.inputs, column: 1 };
        if self.crosstalk.is_empty() {
            start(y);
            multiply(given.level, x, weights, shape, y, self.outputs);
            return Ok(());
        }
        let mut clean = vec![T::ZERO; y.len()];
        start(&mut clean);
        multiply(given.level, x, weights, shape, &mut clean, self.outputs);
        y.fill(T::ZERO);
        let clean = Strided { data: &clean, row: self.outputs, column: 1 };
        let crosstalk = Dense { data: &self.crosstalk, stride: self.outputs };
        multiply(given.level, clean, crosstalk, (rows, self.outputs, self.outputs), y, self.outputs);
        Ok(())
    }

    fn vjp(
        &self,
        given: Given<'_, T>,
        passed: Passed<'_, T>,
        dy: &[T],
        dx: &mut [T],
        gradient: &mut [Vec<T>],
    ) -> Result<()> {
        let (rows, n) = (passed.rows, self.outputs);
        let mut through = Vec::new();
        let dy = if self.crosstalk.is_empty() {
            dy
        } else {
            through.resize(dy.len(), T::ZERO);
            let mut turned = vec![T::ZERO; n * n];
            transpose(given.level, &self.crosstalk, n, n, 0..n, &mut turned, n);
            let dy = Strided { data: dy, row: n, column: 1 };
            multiply(given.level, dy, Dense { data: &turned, stride: n }, (rows, n, n), &mut through, n);
            &through
        };
        if let Some(bias) = gradient.get_mut(1) {
            let mut sums = vec![T::ZERO; n];
            sum_rows(given.level, dy, &mut sums);
            bias.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
        }
        if !self.is_plain() {
            let mut product = vec![T::ZERO; self.inputs * n];
            let x = Strided { data: passed.x, row: self.inputs, column: 1 }.transposed();
            multiply(given.level, x, Dense { data: dy, stride: n }, (self.inputs, rows, n), &mut product, n);
            for ((total, sum), &gain) in gradient[0].iter_mut().zip(product).zip(&self.gains) {
                *total += sum * gain;
            }
        }
        if !dx.is_empty() {
            dx.fill(T::ZERO);
            let turned = Dense { data: self.turned(given), stride: self.inputs };
            let dy = Strided { data: dy, row: n, column: 1 };
            multiply(given.level, dy, turned, (rows, n, self.inputs), dx, self.inputs);
        }
        Ok(())
    }

    fn jvp(&self, given: Given<'_, T>, passed: Passed<'_, T>, dx: &[T], along: &[&[T]], dy: &mut [T]) -> Result<()> {
        let (rows, n, m) = (passed.rows, self.inputs, self.outputs);
        let mut clean = vec![T::ZERO; if self.crosstalk.is_empty() { 0 } else { dy.len() }];
        let into: &mut [T] = if self.crosstalk.is_empty() { &mut *dy } else { &mut clean };
        into.fill(T::ZERO);
        if let Some(bias) = along.get(1) {
            into.chunks_exact_mut(m).for_each(|into| into.copy_from_slice(bias));
        }
        let gained: Vec<T> = self.gains.iter().zip(along[0]).map(|(&gain, &w)| gain * w).collect();
        let moved = if gained.is_empty() { along[0] } else { &gained };
        for (left, right) in [(dx, self.weights(given)), (passed.x, moved)] {
            let left = Strided { data: left, row: n, column: 1 };
            multiply(given.level, left, Dense { data: right, stride: m }, (rows, n, m), into, m);
        }
        if !self.crosstalk.is_empty() {
            dy.fill(T::ZERO);
            let clean = Strided { data: &clean, row: m, column: 1 };
            let crosstalk = Dense { data: &self.crosstalk, stride: m };
            multiply(given.level, clean, crosstalk, (rows, m, m), dy, m);
        }
        Ok(())
    }

    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        let n = self.outputs;
        let leak = 0.5 * mismatch / (n as f64).sqrt();
        let crosstalk = (0..n * n)
            .map(|k| {
                let own = if k % (n + 1) == 0 { 1.0 } else { 0.0 };
                T::from_f64(own + leak * random.normal(k as u64, group + 1))
            })
            .collect();
        let gains = factors(self.inputs * n, mismatch, random, group);
        Box::new(Self { gains, crosstalk, ..self.clone() })
    }

    fn as_linear(&self) -> Option<&Linear<T>> {
        Some(self)
    }
}
