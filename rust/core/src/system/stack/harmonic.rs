//! Second-harmonic generation of a shaped pulse (Wright et al. 2022).

use pnncore_kernels::philox::Philox;
use pnncore_kernels::watch::poll;
use pnncore_kernels::{Real, add_scaled, dot};

use super::layer::{ForwardRecord, Layer, LayerContext, factors, tape_or};
use crate::params::ParamSpec;
use crate::{Error, Result};

/// Spectral powers y(2w) = |B(2w)|^2 with B(2w) = sum over w1 of A(w1) A(2w - w1): the spectrum A has the inputs, then the
/// parameters theta. In hardware the amplitudes that arrive and the efficiencies of conversion are off.
#[derive(Debug, Clone)]
pub struct Harmonic<T> {
    inputs: usize,
    parameters: usize,
    amplitudes: Vec<T>,
    efficiencies: Vec<T>,
}

impl<T: Real> Harmonic<T> {
    /// A spectrum of so many inputs and parameters.
    ///
    /// # Errors
    /// [`Error::Config`] without inputs or parameters.
    pub fn new(inputs: usize, parameters: usize) -> Result<Self> {
        if inputs == 0 || parameters == 0 {
            return Err(Error::Config(format!(
                "inputs and parameters must be at least 1, got {inputs} and {parameters}"
            )));
        }
        let n = inputs + parameters;
        Ok(Self { inputs, parameters, amplitudes: vec![T::ONE; n], efficiencies: vec![T::ONE; 2 * n - 1] })
    }

    fn lines(&self) -> usize {
        self.inputs + self.parameters
    }

    /// The spectrum of a row.
    fn spectrum(&self, x: &[T], theta: &[T], spectrum: &mut Vec<T>) {
        spectrum.clear();
        spectrum.extend(x.iter().chain(theta).zip(&self.amplitudes).map(|(&a, &arrives)| a * arrives));
    }
}

impl<T: Real> Layer<T> for Harmonic<T> {
    fn name(&self) -> &'static str {
        "SecondHarmonic"
    }

    fn inputs(&self) -> usize {
        self.inputs
    }

    fn outputs(&self) -> usize {
        2 * self.lines() - 1
    }

    fn specs(&self) -> Vec<ParamSpec> {
        super::outline::vector("theta", self.parameters)
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

    fn forward(&self, context: LayerContext<'_, T>, _rows: usize, x: &[T], y: &mut [T], tape: &mut [T]) -> Result<()> {
        let n = self.lines();
        let mut spectrum = Vec::with_capacity(n);
        let mut own = Vec::new();
        let tape = tape_or(&mut own, y.len(), tape);
        let rows = x.chunks_exact(self.inputs).zip(y.chunks_exact_mut(2 * n - 1)).zip(tape.chunks_exact_mut(2 * n - 1));
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
        let mut spectrum = Vec::with_capacity(n);
        let rows = dy.chunks_exact(2 * n - 1).zip(record.tape.chunks_exact(2 * n - 1));
        for (r, (dy, b)) in rows.enumerate() {
            self.spectrum(&record.x[r * self.inputs..(r + 1) * self.inputs], context.params[0], &mut spectrum);
            // dy / dA is 4 B correlated with A.
            let pulled: Vec<T> =
                dy.iter().zip(b).zip(&self.efficiencies).map(|((&dy, &b), &e)| four * e * dy * b).collect();
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
        let (mut spectrum, mut change) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let mut b_change = vec![T::ZERO; 2 * n - 1];
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
            for (((dy, &b), &change), &e) in dy.iter_mut().zip(b).zip(&b_change).zip(&self.efficiencies) {
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
