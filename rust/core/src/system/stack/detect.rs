//! Photodetectors.

use pnncore_kernels::Real;
use pnncore_kernels::philox::Philox;
use serde::Deserialize;

use super::layer::{ForwardRecord, Layer, LayerContext, Role, factors};
use super::layer_spec::{LayerOutline, LayerSpec, Parts, Site};
use crate::Result;
use crate::signal::Signal;

/// The description of photodetectors, one for each mode that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectSpec {}

impl LayerSpec for DetectSpec {
    const KIND: &'static str = "detect";

    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        let modes = site.width("Detect")?;
        let constants = if site.is_mismatched() { modes as u128 } else { 0 };
        Ok(LayerOutline {
            constants,
            ..LayerOutline::new(Signal::complex(modes), Signal::real(modes))
        })
    }

    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        Ok(Parts::of(Detect { responsivities: vec![T::ONE; site.width("Detect")?] }, site))
    }
}

/// Intensities y = r |E|^2. The responsivities r are one, and off in hardware.
#[derive(Debug, Clone)]
struct Detect<T> {
    responsivities: Vec<T>,
}

impl<T: Real> Detect<T> {
    fn modes(&self) -> usize {
        self.responsivities.len()
    }
}

impl<T: Real> Layer<T> for Detect<T> {
    fn name(&self) -> &'static str {
        "Detect"
    }

    fn takes(&self) -> Signal {
        Signal::complex(self.modes())
    }

    fn gives(&self) -> Signal {
        Signal::real(self.modes())
    }

    fn role(&self) -> Role {
        Role::Detection
    }

    fn forward(
        &self,
        _: LayerContext<'_, T>,
        _rows: usize,
        x: &[T],
        y: &mut [T],
        _tape: &mut [T],
    ) -> Result<()> {
        let n = self.modes();
        for (y, field) in y.chunks_exact_mut(n).zip(x.chunks_exact(2 * n)) {
            let (re, im) = field.split_at(n);
            for ((y, &r), (&re, &im)) in
                y.iter_mut().zip(&self.responsivities).zip(re.iter().zip(im))
            {
                *y = r * (re * re + im * im);
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
        let (n, two) = (self.modes(), T::from_f64(2.0));
        let rows = record.x.chunks_exact(2 * n).zip(dy.chunks_exact(n));
        for (dx, (field, dy)) in dx.chunks_exact_mut(2 * n).zip(rows) {
            for (dx, field) in dx.chunks_exact_mut(n).zip(field.chunks_exact(n)) {
                for (((dx, &part), &dy), &r) in
                    dx.iter_mut().zip(field).zip(dy).zip(&self.responsivities)
                {
                    *dx = two * r * dy * part;
                }
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
        let (n, two) = (self.modes(), T::from_f64(2.0));
        let rows = record.x.chunks_exact(2 * n).zip(dx.chunks_exact(2 * n));
        for (dy, (field, dx)) in dy.chunks_exact_mut(n).zip(rows) {
            for (k, (dy, &r)) in dy.iter_mut().zip(&self.responsivities).enumerate() {
                *dy = two * r * (field[k] * dx[k] + field[n + k] * dx[n + k]);
            }
        }
        Ok(())
    }

    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        let off = factors::<T>(self.modes(), mismatch, random, group);
        Box::new(Self { responsivities: off.into_iter().map(T::abs).collect() })
    }
}
