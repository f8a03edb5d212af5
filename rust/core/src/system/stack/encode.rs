//! Light that real signals are put on.

use pnncore_kernels::Real;
use pnncore_kernels::philox::Philox;
use pnncore_kernels::trig::sin_cos;
use serde::Deserialize;

use super::layer::{ForwardRecord, Layer, LayerContext, factors};
use super::layer_spec::{LayerOutline, LayerSpec, Parts, Site};
use crate::Result;
use crate::settings::at_least_one;
use crate::signal::Signal;

/// What of the light carries a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// The amplitude: E = x.
    Amplitude,
    /// The phase: E = exp(i x).
    Phase,
}

/// The description of a field that carries real signals, one per mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncodeSpec {
    /// The number of signals; `None`: as many as arrive.
    pub inputs: Option<usize>,
    /// What carries them.
    pub carrier: Carrier,
}

impl EncodeSpec {
    fn modes(&self, site: &Site) -> Result<usize> {
        self.inputs.map_or_else(|| site.width("Encode"), Ok)
    }
}

impl LayerSpec for EncodeSpec {
    const KIND: &'static str = "encode";

    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        let modes = self.modes(site)?;
        at_least_one(&[("n_in", modes)])?;
        let constants = if site.is_mismatched() { modes as u128 } else { 0 };
        Ok(LayerOutline {
            constants,
            ..LayerOutline::new(Signal::real(modes), Signal::complex(modes))
        })
    }

    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        Ok(Parts::of(
            Encode { carrier: self.carrier, gains: vec![T::ONE; self.modes(site)?] },
            site,
        ))
    }
}

/// E = x, or E = exp(i x). In hardware each modulator answers to a multiple of x, its gain.
#[derive(Debug, Clone)]
struct Encode<T> {
    carrier: Carrier,
    gains: Vec<T>,
}

impl<T: Real> Encode<T> {
    fn modes(&self) -> usize {
        self.gains.len()
    }

    /// The real and imaginary parts of every row of fields.
    fn parts<'a>(&self, fields: &'a mut [T]) -> impl Iterator<Item = (&'a mut [T], &'a mut [T])> {
        let modes = self.modes();
        fields.chunks_exact_mut(2 * modes).map(move |row| row.split_at_mut(modes))
    }
}

impl<T: Real> Layer<T> for Encode<T> {
    fn name(&self) -> &'static str {
        "Encode"
    }

    fn takes(&self) -> Signal {
        Signal::real(self.modes())
    }

    fn gives(&self) -> Signal {
        Signal::complex(self.modes())
    }

    fn forward(
        &self,
        context: LayerContext<'_, T>,
        _rows: usize,
        x: &[T],
        y: &mut [T],
        _tape: &mut [T],
    ) -> Result<()> {
        let mut driven = context.scratch.zeros(self.modes());
        for ((re, im), x) in self.parts(y).zip(x.chunks_exact(self.modes())) {
            driven
                .iter_mut()
                .zip(x)
                .zip(&self.gains)
                .for_each(|((driven, &x), &gain)| *driven = gain * x);
            match self.carrier {
                Carrier::Amplitude => {
                    re.copy_from_slice(&driven);
                    im.fill(T::ZERO);
                }
                Carrier::Phase => sin_cos(context.level, &driven, im, re),
            }
        }
        Ok(())
    }

    fn vjp(
        &self,
        _context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dy: &[T],
        dx: &mut [T],
        _gradient: &mut [Vec<T>],
    ) -> Result<()> {
        let n = self.modes();
        let rows = record.y.chunks_exact(2 * n).zip(dy.chunks_exact(2 * n));
        for (dx, (field, dy)) in dx.chunks_exact_mut(n).zip(rows) {
            for (k, (dx, &gain)) in dx.iter_mut().zip(&self.gains).enumerate() {
                *dx = match self.carrier {
                    Carrier::Amplitude => gain * dy[k],
                    Carrier::Phase => gain * (dy[n + k] * field[k] - dy[k] * field[n + k]),
                };
            }
        }
        Ok(())
    }

    fn jvp(
        &self,
        _context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dx: &[T],
        _along: &[&[T]],
        dy: &mut [T],
    ) -> Result<()> {
        let n = self.modes();
        let rows = dx.chunks_exact(n).zip(record.y.chunks_exact(2 * n));
        for ((re, im), (dx, field)) in self.parts(dy).zip(rows) {
            for (k, &gain) in self.gains.iter().enumerate() {
                let change = gain * dx[k];
                (re[k], im[k]) = match self.carrier {
                    Carrier::Amplitude => (change, T::ZERO),
                    Carrier::Phase => (-change * field[n + k], change * field[k]),
                };
            }
        }
        Ok(())
    }

    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        Box::new(Self { gains: factors(self.modes(), mismatch, random, group), ..self.clone() })
    }
}
