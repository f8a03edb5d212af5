//! Detectors that each gather the light of a region (Lin et al., Science 361, 1004, 2018; Li et
//! al., Adv. Photonics 1, 046001, 2019).

use pnncore_kernels::Real;
use pnncore_kernels::philox::Philox;
use serde::Deserialize;

use super::GROUPS_OF_SHOTS;
use super::counter::Counter;
use super::layer::{ForwardRecord, Layer, LayerContext, Role, factors};
use super::layer_spec::{LayerOutline, LayerSpec, Parts, Site};
use crate::settings::{at_least_one, positive};
use crate::signal::Signal;
use crate::{Error, Result, memory};

/// The description of detectors of regions of a plane.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorRegionsSpec {
    /// Rows and columns of pixels.
    pub shape: [usize; 2],
    /// The first row and column of each region, and those behind its last ones.
    pub regions: Vec<[usize; 4]>,
    /// Whether regions are pairs, of which the difference is told.
    pub differential: bool,
    /// What the share of all light, or the contrast of a pair, is multiplied by; `None`: outputs
    /// are powers, or their differences.
    pub gain: Option<f64>,
    /// As [`DetectSpec::photons`](super::DetectSpec::photons).
    pub photons: Option<f64>,
    /// As [`DetectSpec::dark_counts`](super::DetectSpec::dark_counts).
    pub dark_counts: f64,
    /// As [`DetectSpec::bits`](super::DetectSpec::bits).
    pub bits: Option<u32>,
    /// As [`DetectSpec::full_scale`](super::DetectSpec::full_scale).
    pub full_scale: Option<f64>,
}

impl DetectorRegionsSpec {
    /// Perfect detectors of powers.
    pub fn new(shape: [usize; 2], regions: Vec<[usize; 4]>) -> Self {
        let Counter { photons, dark_counts, bits, full_scale } = Counter::EXACT;
        Self {
            shape,
            regions,
            differential: false,
            gain: None,
            photons,
            dark_counts,
            bits,
            full_scale,
        }
    }

    fn counter(&self) -> Counter {
        let Self { photons, dark_counts, bits, full_scale, .. } = *self;
        Counter { photons, dark_counts, bits, full_scale }
    }

    fn check(&self) -> Result<()> {
        let [n, m] = self.shape;
        at_least_one(&[("shape", n), ("shape", m), ("regions", self.regions.len())])?;
        if let Some(gain) = self.gain {
            positive("gain", gain)?;
        }
        self.counter().check(true)?;
        let refuse = |text: String| Err(Error::Config(text));
        if self.differential && !self.regions.len().is_multiple_of(2) {
            return refuse(format!(
                "differential detectors are pairs of regions, got {}",
                self.regions.len()
            ));
        }
        if self.gain.is_some() && self.regions.len() == 1 {
            return refuse(
                "gain is for shares, and that of one region is all: give gain=None for its power"
                    .into(),
            );
        }
        for (k, &own) in self.regions.iter().enumerate() {
            let [top, left, bottom, right] = own;
            if top >= bottom || left >= right || bottom > n || right > m {
                return refuse(format!(
                    "regions must be (top, left, bottom, right) within {n} x {m} pixels, got \
                     {own:?}"
                ));
            }
            let overlaps = |other: &&[usize; 4]| {
                top < other[2] && other[0] < bottom && left < other[3] && other[1] < right
            };
            if let Some(other) = self.regions[..k].iter().find(overlaps) {
                return refuse(format!("regions must not overlap, got {other:?} and {own:?}"));
            }
        }
        Ok(())
    }

    fn outputs(&self) -> usize {
        outputs(&self.regions, self.differential)
    }
}

/// One of every region, or of every pair.
fn outputs(regions: &[[usize; 4]], differential: bool) -> usize {
    if differential { regions.len() / 2 } else { regions.len() }
}

impl LayerSpec for DetectorRegionsSpec {
    const KIND: &'static str = "detector-regions";

    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        self.check()?;
        let pixels = usize::try_from(memory::product(&self.shape)).unwrap_or(usize::MAX);
        let constants = if site.is_mismatched() { self.regions.len() as u128 } else { 0 };
        Ok(LayerOutline {
            constants,
            ..LayerOutline::new(Signal::complex(pixels), Signal::real(self.outputs()))
        })
    }

    /// Hardware counts photons, and converts.
    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        let twin = Regions {
            shape: self.shape,
            regions: self.regions.clone(),
            differential: self.differential,
            gain: self.gain.map(T::from_f64),
            counter: Counter::EXACT,
            responsivities: vec![T::ONE; self.regions.len()],
        };
        let differs = site.is_mismatched() || self.counter() != Counter::EXACT;
        let hardware = differs.then(|| {
            let real = Regions { counter: self.counter(), ..twin.clone() };
            real.mismatched(site.mismatch, site.deviations(), site.group())
        });
        Ok(Parts::new(Box::new(twin), hardware))
    }
}

/// Detectors with their responsivities, which are one, and off in hardware.
#[derive(Debug, Clone)]
struct Regions<T> {
    shape: [usize; 2],
    regions: Vec<[usize; 4]>,
    differential: bool,
    gain: Option<T>,
    counter: Counter,
    responsivities: Vec<T>,
}

impl<T: Real> Regions<T> {
    fn pixels(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    fn outputs(&self) -> usize {
        outputs(&self.regions, self.differential)
    }

    /// The pixels of a region, row by row.
    fn rows(&self, k: usize) -> impl Iterator<Item = std::ops::Range<usize>> + use<T> {
        let ([top, left, bottom, right], width) = (self.regions[k], self.shape[1]);
        (top..bottom).map(move |row| row * width + left..row * width + right)
    }

    /// The sum over the pixels of every region of products of two fields, real parts with real
    /// parts and imaginary parts with imaginary parts, times responsivities.
    fn gather(&self, a: &[T], b: &[T], to: &mut [T]) {
        let pixels = self.pixels();
        for (k, to) in to.iter_mut().enumerate() {
            let mut sum = T::ZERO;
            for row in self.rows(k) {
                for at in row {
                    sum += a[at] * b[at] + a[pixels + at] * b[pixels + at];
                }
            }
            *to = self.responsivities[k] * sum;
        }
    }

    /// What outputs become of the powers of regions.
    fn tell(&self, powers: &[T], y: &mut [T]) {
        if self.differential {
            for (y, pair) in y.iter_mut().zip(powers.chunks_exact(2)) {
                let (difference, sum) = (pair[0] - pair[1], pair[0] + pair[1]);
                *y = self.gain.map_or(difference, |gain| gain * over(difference, sum));
            }
            return;
        }
        let sum: T = powers.iter().copied().sum();
        for (y, &own) in y.iter_mut().zip(powers) {
            *y = self.gain.map_or(own, |gain| gain * over(own, sum));
        }
    }

    /// What a loss changes by with powers, given by how much it changes with outputs.
    fn pull_back(&self, powers: &[T], dy: &[T], to: &mut [T]) {
        if self.differential {
            let pairs = powers.chunks_exact(2).zip(to.chunks_exact_mut(2));
            for ((pair, to), &dy) in pairs.zip(dy) {
                let slopes = match self.gain {
                    None => [T::ONE, -T::ONE],
                    Some(gain) => {
                        // Shares first: squares of powers may be out of range.
                        let sum = pair[0] + pair[1];
                        let scale = over(gain + gain, sum);
                        [scale * over(pair[1], sum), -scale * over(pair[0], sum)]
                    }
                };
                to.iter_mut().zip(slopes).for_each(|(to, slope)| *to = slope * dy);
            }
            return;
        }
        let sum: T = powers.iter().copied().sum();
        let mean: T = powers.iter().zip(dy).map(|(&own, &dy)| over(own, sum) * dy).sum();
        for (to, &dy) in to.iter_mut().zip(dy) {
            *to = self.gain.map_or(dy, |gain| gain * over(dy - mean, sum));
        }
    }
}

/// A quotient; zero where there is no light.
fn over<T: Real>(a: T, b: T) -> T {
    if b == T::ZERO { T::ZERO } else { a / b }
}

impl<T: Real> Layer<T> for Regions<T> {
    fn name(&self) -> &'static str {
        "DetectorRegions"
    }

    fn takes(&self) -> Signal {
        Signal::complex(self.pixels())
    }

    fn gives(&self) -> Signal {
        Signal::real(self.outputs())
    }

    /// Shares are no sums of intensities.
    fn role(&self) -> Role {
        if self.gain.is_none() { Role::Detection } else { Role::Other }
    }

    fn forward(
        &self,
        context: LayerContext<'_, T>,
        _rows: usize,
        x: &[T],
        y: &mut [T],
        _tape: &mut [T],
    ) -> Result<()> {
        let LayerContext { layer, first, random, scratch, .. } = context;
        let regions = self.regions.len();
        let mut powers = scratch.zeros(regions);
        let rows = x.chunks_exact(2 * self.pixels()).zip(y.chunks_exact_mut(self.outputs()));
        for (row, (x, y)) in (first as u64..).zip(rows) {
            self.gather(x, x, &mut powers);
            if self.counter.photons.is_some() {
                let group = GROUPS_OF_SHOTS + layer as u32;
                for (draw, power) in (row * regions as u64..).zip(powers.iter_mut()) {
                    let counted = self.counter.count(power.to_f64(), &random, draw, group);
                    *power = T::from_f64(counted);
                }
            }
            self.counter.convert(false, &mut powers);
            self.tell(&powers, y);
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
        let (pixels, regions) = (self.pixels(), self.regions.len());
        let mut powers = context.scratch.zeros(regions);
        let mut by_power = context.scratch.zeros(regions);
        let rows = record.x.chunks_exact(2 * pixels).zip(dy.chunks_exact(self.outputs()));
        for (dx, (x, dy)) in dx.chunks_exact_mut(2 * pixels).zip(rows) {
            self.gather(x, x, &mut powers);
            self.pull_back(&powers, dy, &mut by_power);
            dx.fill(T::ZERO);
            for (k, &by_power) in by_power.iter().enumerate() {
                let slope = (by_power + by_power) * self.responsivities[k];
                for at in self.rows(k).flatten() {
                    (dx[at], dx[pixels + at]) = (slope * x[at], slope * x[pixels + at]);
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
        _along: &[&[T]],
        dy: &mut [T],
    ) -> Result<()> {
        let (pixels, regions, outputs) = (self.pixels(), self.regions.len(), self.outputs());
        let zeros = || context.scratch.zeros(regions);
        let (mut powers, mut change, mut slopes) = (zeros(), zeros(), zeros());
        let mut one = context.scratch.zeros(outputs);
        let rows = record.x.chunks_exact(2 * pixels).zip(dx.chunks_exact(2 * pixels));
        for ((x, dx), dy) in rows.zip(dy.chunks_exact_mut(outputs)) {
            self.gather(x, x, &mut powers);
            self.gather(x, dx, &mut change);
            for (k, dy) in dy.iter_mut().enumerate() {
                one.fill(T::ZERO);
                one[k] = T::ONE + T::ONE;
                self.pull_back(&powers, &one, &mut slopes);
                *dy = slopes.iter().zip(&*change).map(|(&slope, &own)| slope * own).sum();
            }
        }
        Ok(())
    }

    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        let off = factors::<T>(self.regions.len(), mismatch, random, group);
        Box::new(Self { responsivities: off.into_iter().map(T::abs).collect(), ..self.clone() })
    }
}
