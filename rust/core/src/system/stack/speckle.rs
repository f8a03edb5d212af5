//! Light through a random scattering medium.

use pnncore_kernels::gemm::{Dense, Strided, multiply};
use pnncore_kernels::philox::Philox;
use pnncore_kernels::trig::sin_cos;
use pnncore_kernels::watch::polled;
use pnncore_kernels::{Level, Real, transpose};

use serde::Deserialize;

use super::layer::{ForwardRecord, Layer, LayerContext, tape_or, vector};
use super::layer_spec::{LayerOutline, LayerSpec, Parts, Site};
use crate::params::ParamSpec;
use crate::scratch::Lent;
use crate::settings::{at_least_one, at_least_zero};
use crate::signal::Signal;
use crate::{Result, memory};

/// The description of a random scattering medium.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeckleSpec {
    /// The number of inputs.
    pub inputs: usize,
    /// The number of outputs.
    pub outputs: usize,
    /// The mean intensity of the reference beam.
    pub reference: f64,
}

impl LayerSpec for SpeckleSpec {
    const KIND: &'static str = "speckle";

    fn outline(&self, _site: &Site) -> Result<LayerOutline> {
        let Self { inputs, outputs, reference } = *self;
        at_least_one(&[("inputs", inputs), ("outputs", outputs)])?;
        at_least_zero("reference", reference)?;
        let elements = memory::product(&[inputs, outputs]);
        Ok(LayerOutline {
            parameters: vector("phase", inputs),
            constants: elements.saturating_add(outputs as u128).saturating_mul(4),
            numbers: elements.saturating_mul(8),
            ..LayerOutline::new(Signal::real(inputs), Signal::real(outputs))
        })
    }

    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        Ok(Parts::of(Speckle::new(self, site.disorder(), site.group()), site))
    }
}

/// Intensities y = |T (x e^{i phase}) + b|^2: T has independent complex normal elements of variance
/// 1 / inputs, and b, the light of a reference beam, such of a variance of its own. The phases are
/// parameters.
#[derive(Debug, Clone)]
pub(super) struct Speckle<T> {
    inputs: usize,
    outputs: usize,
    /// \[\[Re T, Im T\], \[-Im T, Re T\]\], transposed: (real and imaginary part of inputs, of
    /// outputs).
    medium: Vec<T>,
    /// Its transpose.
    turned: Vec<T>,
    /// Real and imaginary parts of b.
    reference: Vec<T>,
}

impl<T: Real> Speckle<T> {
    /// The medium of a description, drawn from groups `group..`.
    fn new(spec: &SpeckleSpec, disorder: Philox, group: u32) -> Self {
        let SpeckleSpec { inputs, outputs, reference } = *spec;
        let scale = (0.5 / inputs as f64).sqrt();
        let part = |k: usize, group: u32| scale * disorder.normal(k as u64, group);
        let elements = polled(inputs * outputs, 128).map(|k| (part(k, group), part(k, group + 1)));
        let light = (0.5 * reference).sqrt();
        let reference = (0..2 * outputs as u64)
            .map(|k| T::from_f64(light * disorder.normal(k, group + 2)))
            .collect();
        Self::of(inputs, outputs, elements, reference)
    }

    /// A medium of these elements (real, imaginary), input by input.
    fn of(
        inputs: usize,
        outputs: usize,
        elements: impl Iterator<Item = (f64, f64)>,
        reference: Vec<T>,
    ) -> Self {
        let mut medium = vec![T::ZERO; 4 * inputs * outputs];
        for (k, (re, im)) in elements.enumerate() {
            let (i, o) = (k / outputs, k % outputs);
            let (real, imaginary) = (i * 2 * outputs, (inputs + i) * 2 * outputs);
            medium[real + o] = T::from_f64(re);
            medium[real + outputs + o] = T::from_f64(im);
            medium[imaginary + o] = T::from_f64(-im);
            medium[imaginary + outputs + o] = T::from_f64(re);
        }
        let mut turned = vec![T::ZERO; medium.len()];
        transpose(
            Level::get(),
            &medium,
            2 * inputs,
            2 * outputs,
            0..2 * outputs,
            &mut turned,
            2 * inputs,
        );
        Self { inputs, outputs, medium, turned, reference }
    }

    /// Cosines and sines of the phases.
    fn turns<'a>(&self, context: LayerContext<'a, T>) -> (Lent<'a, Vec<T>>, Lent<'a, Vec<T>>) {
        let zeros = || context.scratch.zeros(self.inputs);
        let (mut sin, mut cos) = (zeros(), zeros());
        sin_cos(context.level, context.params[0], &mut sin, &mut cos);
        (cos, sin)
    }
}

impl<T: Real> Layer<T> for Speckle<T> {
    fn name(&self) -> &'static str {
        "Speckle"
    }

    fn takes(&self) -> Signal {
        Signal::real(self.inputs)
    }

    fn gives(&self) -> Signal {
        Signal::real(self.outputs)
    }

    fn work(&self) -> usize {
        4 * self.inputs * self.outputs
    }

    fn specs(&self) -> Vec<ParamSpec> {
        vector("phase", self.inputs)
    }

    /// Uniform on the circle.
    fn initialise(&self, random: Philox, group: u32, params: &mut [&mut [T]]) {
        for (k, value) in params[0].iter_mut().enumerate() {
            *value = T::from_f64(std::f64::consts::TAU * random.uniform(k as u64, group));
        }
    }

    /// The field behind the medium.
    fn tape(&self) -> usize {
        2 * self.outputs
    }

    fn forward(
        &self,
        context: LayerContext<'_, T>,
        rows: usize,
        x: &[T],
        y: &mut [T],
        tape: &mut [T],
    ) -> Result<()> {
        let (n, m) = (self.inputs, self.outputs);
        let (cos, sin) = self.turns(context);
        let mut field = context.scratch.empty();
        for x in x.chunks_exact(n) {
            field.extend(x.iter().zip(&*cos).map(|(&x, &c)| x * c));
            field.extend(x.iter().zip(&*sin).map(|(&x, &s)| x * s));
        }
        let mut own = context.scratch.empty();
        let tape = tape_or(&mut own, rows * 2 * m, tape);
        tape.chunks_exact_mut(2 * m).for_each(|behind| behind.copy_from_slice(&self.reference));
        let field = Strided { data: &field, row: 2 * n, column: 1 };
        let medium = Dense { data: &self.medium, stride: 2 * m };
        multiply(context.level, field, medium, (rows, 2 * n, 2 * m), tape, 2 * m);
        for (y, behind) in y.chunks_exact_mut(m).zip(tape.chunks_exact(2 * m)) {
            let (re, im) = behind.split_at(m);
            y.iter_mut().zip(re.iter().zip(im)).for_each(|(y, (&re, &im))| *y = re * re + im * im);
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
        let (n, m, rows) = (self.inputs, self.outputs, record.rows);
        let (cos, sin) = self.turns(context);
        let two = T::from_f64(2.0);
        let mut behind = context.scratch.copy(record.tape);
        for (behind, dy) in behind.chunks_exact_mut(2 * m).zip(dy.chunks_exact(m)) {
            let (re, im) = behind.split_at_mut(m);
            re.iter_mut()
                .zip(im)
                .zip(dy)
                .for_each(|((re, im), &dy)| (*re, *im) = (two * dy * *re, two * dy * *im));
        }
        let mut field = context.scratch.zeros(rows * 2 * n);
        let behind = Strided { data: &behind, row: 2 * m, column: 1 };
        multiply(
            context.level,
            behind,
            Dense { data: &self.turned, stride: 2 * n },
            (rows, 2 * m, 2 * n),
            &mut field,
            2 * n,
        );
        for (r, field) in field.chunks_exact(2 * n).enumerate() {
            let (re, im) = field.split_at(n);
            if !dx.is_empty() {
                for (i, dx) in dx[r * n..(r + 1) * n].iter_mut().enumerate() {
                    *dx = re[i] * cos[i] + im[i] * sin[i];
                }
            }
            for (i, (sum, &x)) in
                gradient[0].iter_mut().zip(&record.x[r * n..(r + 1) * n]).enumerate()
            {
                *sum += x * (im[i] * cos[i] - re[i] * sin[i]);
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
        let (n, m) = (self.inputs, self.outputs);
        let (cos, sin) = self.turns(context);
        let mut field = context.scratch.empty();
        for (x, dx) in record.x.chunks_exact(n).zip(dx.chunks_exact(n)) {
            field.extend((0..n).map(|i| dx[i] * cos[i] - x[i] * along[0][i] * sin[i]));
            field.extend((0..n).map(|i| dx[i] * sin[i] + x[i] * along[0][i] * cos[i]));
        }
        let mut behind = context.scratch.zeros(record.tape.len());
        let field = Strided { data: &field, row: 2 * n, column: 1 };
        let medium = Dense { data: &self.medium, stride: 2 * m };
        multiply(context.level, field, medium, (record.rows, 2 * n, 2 * m), &mut behind, 2 * m);
        let two = T::from_f64(2.0);
        let rows = record.tape.chunks_exact(2 * m).zip(behind.chunks_exact(2 * m));
        for (dy, (there, change)) in dy.chunks_exact_mut(m).zip(rows) {
            for (k, dy) in dy.iter_mut().enumerate() {
                *dy = two * (there[k] * change[k] + there[m + k] * change[m + k]);
            }
        }
        Ok(())
    }

    fn is_sinusoidal(&self) -> bool {
        true
    }

    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        let (n, m) = (self.inputs, self.outputs);
        // Other elements of the same statistics are mixed in: another position of the medium, say.
        let scale = mismatch * (0.5 / n as f64).sqrt();
        let elements = (0..n * m).map(|k| {
            let (i, o) = (k / m, k % m);
            let at = |place: usize, group: u32| {
                self.medium[i * 2 * m + place].to_f64() + scale * random.normal(k as u64, group)
            };
            (at(o, group), at(m + o, group + 1))
        });
        Box::new(Self::of(n, m, elements, self.reference.clone()))
    }
}
