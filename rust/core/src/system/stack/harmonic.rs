//! Second-harmonic generation of a shaped pulse (Wright et al. 2022).

use pnncore_kernels::philox::Philox;
use pnncore_kernels::watch::poll;
use pnncore_kernels::{Real, add_scaled, dot};

use serde::Deserialize;

use super::layer::{ForwardRecord, Layer, LayerContext, factors, tape_or, vector};
use super::layer_spec::{LayerOutline, LayerSpec, Parts, ROWS, Site};
use crate::params::ParamSpec;
use crate::settings::at_least_one;
use crate::signal::Signal;
use crate::{Result, memory};

/// The description of second-harmonic generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondHarmonicSpec {
    /// The number of inputs.
    pub inputs: usize,
    /// The number of parameters.
    pub parameters: usize,
}

impl LayerSpec for SecondHarmonicSpec {
    const KIND: &'static str = "second-harmonic";

    fn outline(&self, _site: &Site) -> Result<LayerOutline> {
        let Self { inputs, parameters } = *self;
        at_least_one(&[("inputs", inputs), ("parameters", parameters)])?;
        let lines = inputs.saturating_add(parameters);
        Ok(LayerOutline {
            parameters: vector("theta", parameters),
            constants: memory::product(&[6, lines]),
            numbers: memory::product(&[lines, 4 * ROWS]),
            ..LayerOutline::new(Signal::real(inputs), Signal::real(lines.saturating_mul(2) - 1))
        })
    }

    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        Ok(Parts::of(Harmonic::new(self.inputs, self.parameters), site))
    }
}

/// Spectral powers y(2w) = |B(2w)|^2 with B(2w) = sum over w1 of A(w1) A(2w - w1): the spectrum A
/// has the inputs, then the parameters theta. In hardware the amplitudes that arrive and the
/// efficiencies of conversion are off.
#[derive(Debug, Clone)]
pub(super) struct Harmonic<T> {
    inputs: usize,
    parameters: usize,
    amplitudes: Vec<T>,
    efficiencies: Vec<T>,
}

impl<T: Real> Harmonic<T> {
    /// A spectrum of so many inputs and parameters.
    fn new(inputs: usize, parameters: usize) -> Self {
        let n = inputs + parameters;
        Self {
            inputs,
            parameters,
            amplitudes: vec![T::ONE; n],
            efficiencies: vec![T::ONE; 2 * n - 1],
        }
    }

    fn lines(&self) -> usize {
        self.inputs + self.parameters
    }

    /// The spectrum of a row.
    fn spectrum(&self, x: &[T], theta: &[T], spectrum: &mut Vec<T>) {
        spectrum.clear();
        spectrum
            .extend(x.iter().chain(theta).zip(&self.amplitudes).map(|(&a, &arrives)| a * arrives));
    }
}

impl<T: Real> Layer<T> for Harmonic<T> {
    fn name(&self) -> &'static str {
        "SecondHarmonic"
    }

    fn takes(&self) -> Signal {
        Signal::real(self.inputs)
    }

    fn gives(&self) -> Signal {
        Signal::real(2 * self.lines() - 1)
    }

    fn work(&self) -> usize {
        self.lines() * self.lines()
    }

    fn specs(&self) -> Vec<ParamSpec> {
        vector("theta", self.parameters)
    }

    /// Uniform in [-1, 1).
    fn initialise(&self, random: Philox, group: u32, params: &mut [&mut [T]]) {
        for (k, value) in params[0].iter_mut().enumerate() {
            *value = T::from_f64(2.0 * random.uniform(k as u64, group) - 1.0);
        }
    }

    /// The second harmonic's amplitudes, without efficiencies.
    fn tape(&self) -> usize {
        2 * self.lines() - 1
    }

    fn forward(
        &self,
        context: LayerContext<'_, T>,
        _rows: usize,
        x: &[T],
        y: &mut [T],
        tape: &mut [T],
    ) -> Result<()> {
        let n = self.lines();
        let (mut spectrum, mut own) = (context.scratch.empty(), context.scratch.empty());
        let tape = tape_or(&mut own, y.len(), tape);
        let rows = x
            .chunks_exact(self.inputs)
            .zip(y.chunks_exact_mut(2 * n - 1))
            .zip(tape.chunks_exact_mut(2 * n - 1));
        for ((x, y), b) in rows {
            self.spectrum(x, context.params[0], &mut spectrum);
            b.fill(T::ZERO);
            for (k, &a) in spectrum.iter().enumerate() {
                poll(n);
                add_scaled(context.level, &spectrum, a, &mut b[k..k + n]);
            }
            for ((y, &b), &efficiency) in y.iter_mut().zip(&*b).zip(&self.efficiencies) {
                *y = efficiency * b * b;
            }
        }
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
        let (n, four) = (self.lines(), T::from_f64(4.0));
        let (mut spectrum, mut pulled) = (context.scratch.empty(), context.scratch.empty());
        let rows = dy.chunks_exact(2 * n - 1).zip(record.tape.chunks_exact(2 * n - 1));
        for (r, (dy, b)) in rows.enumerate() {
            self.spectrum(
                &record.x[r * self.inputs..(r + 1) * self.inputs],
                context.params[0],
                &mut spectrum,
            );
            // dy / dA is 4 B correlated with A.
            let products = dy.iter().zip(b).zip(&self.efficiencies);
            pulled.clear();
            pulled.extend(products.map(|((&dy, &b), &e)| four * e * dy * b));
            for k in 0..n {
                poll(n);
                let slope = self.amplitudes[k] * dot(context.level, &spectrum, &pulled[k..k + n]);
                if k >= self.inputs {
                    gradient[0][k - self.inputs] += slope;
                } else if !dx.is_empty() {
                    dx[r * self.inputs + k] = slope;
                }
            }
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
        let (n, four) = (self.lines(), T::from_f64(4.0));
        let (mut spectrum, mut change) = (context.scratch.empty(), context.scratch.empty());
        let mut b_change = context.scratch.zeros(2 * n - 1);
        let rows = record.x.chunks_exact(self.inputs).zip(dx.chunks_exact(self.inputs));
        let outputs = dy.chunks_exact_mut(2 * n - 1).zip(record.tape.chunks_exact(2 * n - 1));
        for ((x, dx), (dy, b)) in rows.zip(outputs) {
            self.spectrum(x, context.params[0], &mut spectrum);
            self.spectrum(dx, along[0], &mut change);
            // B changes by twice the convolution of A with its change, and B^2 by 2 B times that.
            b_change.fill(T::ZERO);
            for (k, &a) in change.iter().enumerate() {
                poll(n);
                add_scaled(context.level, &spectrum, a, &mut b_change[k..k + n]);
            }
            for (((dy, &b), &change), &e) in
                dy.iter_mut().zip(b).zip(&*b_change).zip(&self.efficiencies)
            {
                *dy = four * e * b * change;
            }
        }
        Ok(())
    }

    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        let amplitudes = factors(self.lines(), mismatch, random, group);
        let efficiencies = factors(2 * self.lines() - 1, mismatch, random, group + 1);
        Box::new(Self { amplitudes, efficiencies, ..self.clone() })
    }
}
