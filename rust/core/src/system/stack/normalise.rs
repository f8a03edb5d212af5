//! Normalisation of rows.

use pnncore_kernels::philox::Philox;
use pnncore_kernels::{Real, dot};

use serde::Deserialize;

use super::layer::{ForwardRecord, Layer, LayerContext, Role};
use super::layer_spec::{LayerOutline, LayerSpec, Parts, Site};
use crate::Result;
use crate::signal::Signal;

/// The description of a normalisation of however many signals arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NormaliseSpec {}

impl LayerSpec for NormaliseSpec {
    const KIND: &'static str = "normalise";

    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        let signal = Signal::real(site.width("Normalize")?);
        Ok(LayerOutline::new(signal, signal))
    }

    /// Digital: it is what it is, whatever the mismatch.
    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        Ok(Parts::new(Box::new(Normalise { width: site.width("Normalize")? }), None))
    }
}

/// y = x / sqrt(mean of x^2 + epsilon): every row gets the same power.
#[derive(Debug, Clone)]
pub(super) struct Normalise {
    pub(super) width: usize,
}

/// What keeps a dark row dark.
const EPSILON: f64 = 1e-8;

impl Normalise {
    fn scale<T: Real>(&self, context: LayerContext<'_, T>, x: &[T]) -> f64 {
        1.0 / (dot(context.level, x, x).to_f64() / self.width as f64 + EPSILON).sqrt()
    }
}

impl<T: Real> Layer<T> for Normalise {
    fn name(&self) -> &'static str {
        "Normalise"
    }

    fn takes(&self) -> Signal {
        Signal::real(self.width)
    }

    fn gives(&self) -> Signal {
        Signal::real(self.width)
    }

    fn forward(
        &self,
        context: LayerContext<'_, T>,
        _rows: usize,
        x: &[T],
        y: &mut [T],
        _tape: &mut [T],
    ) -> Result<()> {
        for (x, y) in x.chunks_exact(self.width).zip(y.chunks_exact_mut(self.width)) {
            let scale = T::from_f64(self.scale(context, x));
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = scale * x);
        }
        Ok(())
    }

    fn vjp(
        &self,
        context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dy: &[T],
        dx: &mut [T],
        _gradient: &mut [Vec<T>],
    ) -> Result<()> {
        let rows = record.x.chunks_exact(self.width).zip(dy.chunks_exact(self.width));
        for (dx, (x, dy)) in dx.chunks_exact_mut(self.width).zip(rows) {
            let scale = self.scale(context, x);
            let along =
                T::from_f64(scale.powi(3) * dot(context.level, x, dy).to_f64() / self.width as f64);
            let scale = T::from_f64(scale);
            dx.iter_mut().zip(x).zip(dy).for_each(|((dx, &x), &dy)| *dx = scale * dy - along * x);
        }
        Ok(())
    }

    /// The Jacobian is symmetric.
    fn jvp(
        &self,
        context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dx: &[T],
        _along: &[&[T]],
        dy: &mut [T],
    ) -> Result<()> {
        self.vjp(context, record, dx, dy, &mut [])
    }

    fn mismatched(&self, _mismatch: f64, _random: Philox, _group: u32) -> Box<dyn Layer<T>> {
        // Digital: it is what it is.
        Box::new(self.clone())
    }

    fn role(&self) -> Role {
        Role::Normalisation
    }
}
