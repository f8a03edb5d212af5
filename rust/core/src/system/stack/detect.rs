//! Photodetectors.

use pnncore_kernels::Real;
use pnncore_kernels::philox::Philox;
use serde::Deserialize;

use super::GROUPS_OF_SHOTS;
use super::counter::Counter;
use super::layer::{ForwardRecord, Layer, LayerContext, Role, factors};
use super::layer_spec::{LayerOutline, LayerSpec, Parts, Site};
use crate::signal::Signal;
use crate::{Error, Result};

/// What of a field is detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantity {
    /// The intensity |E|^2 of every mode.
    Intensity,
    /// The differences of the intensities of modes 1 and 2, of 3 and 4, and so on.
    Balanced,
    /// The real parts, by interference with a strong field (homodyne detection).
    Real,
    /// The imaginary parts.
    Imaginary,
    /// Real parts, and then imaginary parts, each of half of the light.
    Quadratures,
}

impl Quantity {
    fn outputs(self, modes: usize) -> usize {
        match self {
            Self::Intensity | Self::Real | Self::Imaginary => modes,
            Self::Balanced => modes / 2,
            Self::Quadratures => 2 * modes,
        }
    }

    fn counts_photons(self) -> bool {
        matches!(self, Self::Intensity | Self::Balanced)
    }
}

/// The description of photodetectors for all modes that arrive.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectSpec {
    /// What they detect.
    pub quantity: Quantity,
    /// The photons that the hardware detects of an intensity of one; `None`: so many that they are
    /// not counted.
    pub photons: Option<f64>,
    /// How many counts of a detector come without light.
    pub dark_counts: f64,
    /// Converters of the hardware have 2^bits levels, up to `full_scale`; `None`: they are exact.
    pub bits: Option<u32>,
    /// The largest output that converters tell from larger ones.
    pub full_scale: Option<f64>,
}

impl DetectSpec {
    /// Perfect detectors.
    pub fn new(quantity: Quantity) -> Self {
        Self { quantity, photons: None, dark_counts: 0.0, bits: None, full_scale: None }
    }

    fn check(&self, modes: usize) -> Result<()> {
        if self.quantity == Quantity::Balanced && !modes.is_multiple_of(2) {
            return Err(Error::Config(format!(
                "balanced detectors take pairs of modes, got {modes}"
            )));
        }
        self.counter().check(self.quantity.counts_photons())
    }

    fn counter(&self) -> Counter {
        let Self { photons, dark_counts, bits, full_scale, .. } = *self;
        Counter { photons, dark_counts, bits, full_scale }
    }
}

impl LayerSpec for DetectSpec {
    const KIND: &'static str = "detect";

    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        let modes = site.width("Detect")?;
        self.check(modes)?;
        let constants = if site.is_mismatched() { modes as u128 } else { 0 };
        let outputs = self.quantity.outputs(modes);
        Ok(LayerOutline {
            constants,
            ..LayerOutline::new(Signal::complex(modes), Signal::real(outputs))
        })
    }

    /// Hardware counts photons, and converts.
    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        let responsivities = vec![T::ONE; site.width("Detect")?];
        let twin = Detect { quantity: self.quantity, counter: Counter::EXACT, responsivities };
        let differs = site.is_mismatched() || self.counter() != Counter::EXACT;
        let hardware = differs.then(|| {
            let real = Detect { counter: self.counter(), ..twin.clone() };
            real.mismatched(site.mismatch, site.deviations(), site.group())
        });
        Ok(Parts::new(Box::new(twin), hardware))
    }
}

/// Detectors with their responsivities r, which are one, and off in hardware: r |E|^2, or r Re E
/// and r Im E.
#[derive(Debug, Clone)]
struct Detect<T> {
    quantity: Quantity,
    counter: Counter,
    responsivities: Vec<T>,
}

impl<T: Real> Detect<T> {
    fn modes(&self) -> usize {
        self.responsivities.len()
    }

    /// Rows of fields: real parts and imaginary parts.
    fn fields<'a>(&self, x: &'a [T]) -> impl Iterator<Item = (&'a [T], &'a [T])> + use<'a, T> {
        let n = self.modes();
        x.chunks_exact(2 * n).map(move |row| row.split_at(n))
    }

    /// What one row shows, without noise.
    fn show(&self, re: &[T], im: &[T], y: &mut [T]) {
        let r = &self.responsivities;
        let intensity = |k: usize| r[k] * (re[k] * re[k] + im[k] * im[k]);
        let n = self.modes();
        for (k, y) in y.iter_mut().enumerate() {
            *y = match self.quantity {
                Quantity::Intensity => intensity(k),
                Quantity::Balanced => intensity(2 * k) - intensity(2 * k + 1),
                Quantity::Real => r[k] * re[k],
                Quantity::Imaginary => r[k] * im[k],
                Quantity::Quadratures if k < n => r[k] * re[k],
                Quantity::Quadratures => r[k - n] * im[k - n],
            };
        }
    }

    /// What one row shows where photons are counted one by one; `row` is its number.
    fn count(
        &self,
        (re, im): (&[T], &[T]),
        y: &mut [T],
        photons: f64,
        row: u64,
        random: &Philox,
        group: u32,
    ) {
        if !self.quantity.counts_photons() {
            // The noise of the vacuum: a quarter of a photon in either quadrature, and twice that
            // for both at once.
            self.show(re, im, y);
            let both = if self.quantity == Quantity::Quadratures { 2.0 } else { 1.0 };
            let deviation = (0.25 * both / photons).sqrt();
            for (k, y) in (row * y.len() as u64..).zip(y) {
                *y += T::from_f64(deviation * random.normal(k, group));
            }
            return;
        }
        let n = self.modes();
        let counted = |k: usize| {
            let light = re[k].to_f64().powi(2) + im[k].to_f64().powi(2);
            let intensity = self.responsivities[k].to_f64() * light;
            self.counter.count(intensity, random, row * n as u64 + k as u64, group)
        };
        let is_balanced = self.quantity == Quantity::Balanced;
        for (k, y) in y.iter_mut().enumerate() {
            *y = T::from_f64(if is_balanced {
                counted(2 * k) - counted(2 * k + 1)
            } else {
                counted(k)
            });
        }
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
        Signal::real(self.quantity.outputs(self.modes()))
    }

    fn role(&self) -> Role {
        Role::Detection
    }

    fn forward(
        &self,
        context: LayerContext<'_, T>,
        _rows: usize,
        x: &[T],
        y: &mut [T],
        _tape: &mut [T],
    ) -> Result<()> {
        let LayerContext { layer, first, random, .. } = context;
        let outputs = self.quantity.outputs(self.modes());
        let rows = y.chunks_exact_mut(outputs).zip(self.fields(x));
        for (row, (y, (re, im))) in (first as u64..).zip(rows) {
            match self.counter.photons {
                Some(photons) => {
                    let group = GROUPS_OF_SHOTS + layer as u32;
                    self.count((re, im), y, photons, row, &random, group);
                }
                None => self.show(re, im, y),
            }
            self.counter.convert(self.quantity != Quantity::Intensity, y);
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
        let (n, two, r) = (self.modes(), T::from_f64(2.0), &self.responsivities);
        let rows = self.fields(record.x).zip(dy.chunks_exact(self.quantity.outputs(n)));
        for (dx, ((re, im), dy)) in dx.chunks_exact_mut(2 * n).zip(rows) {
            let (dx_re, dx_im) = dx.split_at_mut(n);
            for k in 0..n {
                (dx_re[k], dx_im[k]) = match self.quantity {
                    Quantity::Intensity => (two * r[k] * dy[k] * re[k], two * r[k] * dy[k] * im[k]),
                    Quantity::Balanced => {
                        let error = if k % 2 == 0 { dy[k / 2] } else { -dy[k / 2] };
                        (two * r[k] * error * re[k], two * r[k] * error * im[k])
                    }
                    Quantity::Real => (r[k] * dy[k], T::ZERO),
                    Quantity::Imaginary => (T::ZERO, r[k] * dy[k]),
                    Quantity::Quadratures => (r[k] * dy[k], r[k] * dy[n + k]),
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
        let (n, two, r) = (self.modes(), T::from_f64(2.0), &self.responsivities);
        let rows = self.fields(record.x).zip(self.fields(dx));
        for (dy, ((re, im), (dre, dim))) in dy.chunks_exact_mut(self.quantity.outputs(n)).zip(rows)
        {
            let change = |k: usize| two * r[k] * (re[k] * dre[k] + im[k] * dim[k]);
            for (k, dy) in dy.iter_mut().enumerate() {
                *dy = match self.quantity {
                    Quantity::Intensity => change(k),
                    Quantity::Balanced => change(2 * k) - change(2 * k + 1),
                    Quantity::Real => r[k] * dre[k],
                    Quantity::Imaginary => r[k] * dim[k],
                    Quantity::Quadratures if k < n => r[k] * dre[k],
                    Quantity::Quadratures => r[k - n] * dim[k - n],
                };
            }
        }
        Ok(())
    }

    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        let off = factors::<T>(self.modes(), mismatch, random, group);
        Box::new(Self { responsivities: off.into_iter().map(T::abs).collect(), ..self.clone() })
    }
}
