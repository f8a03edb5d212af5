//! Diffractive layers: a mask of pixels, and free space behind it (Lin et al., Science 361, 1004,
//! 2018).
//!
//! What a plane of pixels sends to the next one is a convolution: with the field of one pixel,
//! which is that of its angular spectrum, cut to the waves that pixels resolve (Goodman,
//! Introduction to Fourier Optics), or of the first Rayleigh-Sommerfeld integral. It is even, so
//! that light that comes back passes it alike.

mod free_space;
mod mask;

use std::sync::Arc;

use pnncore_kernels::fourier::Convolution;
use pnncore_kernels::philox::Philox;
use pnncore_kernels::{Level, Real};
use serde::Deserialize;

use super::complex::{conjugate, times};
use super::layer::{ForwardRecord, Layer, LayerContext, LightPass};
use super::layer_spec::{LayerOutline, LayerSpec, Parts, ROWS, Site};
use crate::params::ParamSpec;
use crate::signal::Signal;
use crate::{Result, memory};

use free_space::{FreeSpace, Sampling};
use mask::{Mask, Placement};

pub use mask::MaskKind;

/// The description of a diffractive layer.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffractionSpec {
    /// Rows and columns of pixels.
    pub shape: [usize; 2],
    /// From the mask to the next plane.
    pub distance: f64,
    /// The wavelength, in units of `distance`.
    pub wavelength: f64,
    /// From one pixel to the next, in units of `distance`.
    pub pitch: f64,
    /// What pixels of the mask change; `None`: there is no mask.
    pub mask: Option<MaskKind>,
    /// Amplitudes fall by exp(-absorption phase) with phases, the least ones that are not negative.
    pub absorption: f64,
    /// The hardware has 2^bits phases in a turn, and amplitudes; `None`: any.
    pub bits: Option<u32>,
}

impl DiffractionSpec {
    /// A mask that absorbs nothing.
    pub fn new(shape: [usize; 2], lengths: [f64; 3], mask: Option<MaskKind>) -> Self {
        let [distance, wavelength, pitch] = lengths;
        Self { shape, distance, wavelength, pitch, mask, absorption: 0.0, bits: None }
    }

    fn space(&self) -> FreeSpace {
        let Self { shape, distance, wavelength, pitch, .. } = *self;
        FreeSpace { shape, distance, wavelength, pitch }
    }

    /// The twin's mask.
    fn mask(&self) -> Mask {
        Mask { kind: self.mask, absorption: self.absorption, bits: None }
    }

    fn check(&self) -> Result<()> {
        self.space().check()?;
        Mask { bits: self.bits, ..self.mask() }.check()
    }

    /// The shape of the grid that fields are padded to, for a convolution that does not wrap
    /// around.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for settings out of range.
    pub fn padded_shape(&self) -> Result<[usize; 2]> {
        self.check()?;
        Ok(Convolution::<f64>::padded(self.shape))
    }
}

impl LayerSpec for DiffractionSpec {
    const KIND: &'static str = "diffraction";

    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        self.check()?;
        let pixels = memory::product(&self.shape);
        let field = Signal::complex(usize::try_from(pixels).unwrap_or(usize::MAX));
        let padded = memory::product(&Convolution::<f64>::padded(self.shape));
        let constants = if site.is_mismatched() { pixels.saturating_mul(4) } else { 0 };
        // Transfer functions in the making, in double precision; fields of a block of rows.
        let numbers =
            padded.saturating_mul(8).saturating_add(pixels.saturating_mul(4 * ROWS as u128));
        Ok(LayerOutline {
            parameters: self.mask().specs(self.shape),
            constants,
            numbers: numbers.saturating_add(constants.saturating_mul(2)),
            ..LayerOutline::new(field, field)
        })
    }

    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        let space = self.space();
        let twin = Diffraction::new(space, space.sampling()?, self.mask());
        let differs = site.is_mismatched() || self.bits.is_some();
        let hardware = differs.then(|| {
            let real = Diffraction { mask: Mask { bits: self.bits, ..twin.mask }, ..twin.clone() };
            if !site.is_mismatched() {
                return Box::new(real) as Box<dyn Layer<T>>;
            }
            real.mismatched(site.mismatch, site.deviations(), site.group())
        });
        Ok(Parts::new(Box::new(twin), hardware))
    }
}

/// A mask and the free space behind it.
#[derive(Debug, Clone)]
struct Diffraction<T> {
    space: FreeSpace,
    sampling: Sampling,
    mask: Mask,
    /// Where the mask is, if not where it should be.
    placement: Option<Placement<T>>,
    behind: Arc<Convolution<T>>,
}

impl<T: Real> Diffraction<T> {
    fn new(space: FreeSpace, sampling: Sampling, mask: Mask) -> Self {
        let kernel = space.impulse_response(sampling);
        let behind = Arc::new(Convolution::new(Level::get(), space.shape, &kernel));
        Self { space, sampling, mask, placement: None, behind }
    }

    fn pixels(&self) -> usize {
        self.space.shape[0] * self.space.shape[1]
    }

    /// Number `k` of complex numbers whose real parts come before their imaginary parts.
    fn at(&self, numbers: &[T], k: usize) -> [T; 2] {
        [numbers[k], numbers[self.pixels() + k]]
    }

    /// Sends a field, pixel by pixel, to the next plane, or errors back from there, and gives what
    /// arrives at every pixel to `store`.
    fn cross(
        &self,
        context: LayerContext<'_, T>,
        back: bool,
        field: impl Fn(usize) -> [T; 2],
        mut store: impl FnMut(usize, [T; 2]),
    ) {
        let columns = self.space.shape[1];
        let LayerContext { level, scratch, .. } = context;
        let mut memory = scratch.zeros(self.behind.scratch());
        let load = |r: usize, row: &mut [[T; 2]]| {
            level.vectorize(|| {
                row.iter_mut().zip(r * columns..).for_each(|(value, k)| *value = field(k));
            });
        };
        let store = |r: usize, row: &[[T; 2]]| {
            level.vectorize(|| {
                row.iter().zip(r * columns..).for_each(|(&value, k)| store(k, value));
            });
        };
        self.behind.apply(level, back, &mut memory, load, store);
    }

    /// What the pixels of the grid multiply fields by, as prepared; one where there is no mask.
    fn transmission<'a>(&self, prepared: &'a [T]) -> impl Fn(usize) -> [T; 2] + Copy + use<'a, T> {
        let pixels = self.pixels();
        move |k| {
            if prepared.is_empty() {
                [T::ONE, T::ZERO]
            } else {
                [prepared[k], prepared[pixels + k]]
            }
        }
    }

    /// Makes of what a loss changes by with the pixels of the grid what it changes by with those of
    /// the mask, by the logarithms of what these multiply fields by: phases, and amplitudes.
    fn by_mask(&self, context: LayerContext<'_, T>, by_grid: &[T], to: &mut [T]) {
        let pixels = self.pixels();
        let LayerContext { prepared, scratch, .. } = context;
        let mut own = scratch.copy(by_grid);
        if let Some(placement) = &self.placement {
            own.fill(T::ZERO);
            let parts = by_grid.chunks_exact(pixels).zip(own.chunks_exact_mut(pixels));
            parts.for_each(|(from, to)| placement.scatter(from, to));
        }
        // Those of the mask itself come last.
        let mask = &prepared[prepared.len() - 2 * pixels..];
        for k in 0..pixels {
            let [by_amplitude, by_phase] = times(conjugate(self.at(mask, k)), self.at(&own, k));
            (to[k], to[pixels + k]) = (by_phase, by_amplitude);
        }
    }
}

impl<T: Real> Layer<T> for Diffraction<T> {
    fn name(&self) -> &'static str {
        "Diffraction"
    }

    fn takes(&self) -> Signal {
        Signal::complex(self.pixels())
    }

    fn gives(&self) -> Signal {
        Signal::complex(self.pixels())
    }

    fn specs(&self) -> Vec<ParamSpec> {
        self.mask.specs(self.space.shape)
    }

    fn initialise(&self, random: Philox, group: u32, params: &mut [&mut [T]]) {
        self.mask.initialise(random, group, params);
    }

    /// Twelve multiply-adds, about, for each of the eight or so steps of transforms.
    fn work(&self) -> usize {
        100 * self.pixels()
    }

    /// What pixels of the grid multiply fields by; with derivatives, and where a mask is elsewhere,
    /// also what those of the mask do.
    fn prepare(
        &self,
        _level: Level,
        params: &[&[T]],
        _memory: &[&[T]],
        derivatives: bool,
        prepared: &mut Vec<T>,
    ) {
        prepared.clear();
        if self.mask.kind.is_none() {
            return;
        }
        let pixels = self.pixels();
        let Some(placement) = &self.placement else {
            prepared.resize(2 * pixels, T::ZERO);
            self.mask.write_transmission(params, prepared);
            return;
        };
        prepared.resize(4 * pixels, T::ZERO);
        let (grid, mask) = prepared.split_at_mut(2 * pixels);
        self.mask.write_transmission(params, mask);
        for (mask, grid) in mask.chunks_exact(pixels).zip(grid.chunks_exact_mut(pixels)) {
            placement.gather(mask, grid);
        }
        if !derivatives {
            prepared.truncate(2 * pixels);
        }
    }

    fn forward(
        &self,
        context: LayerContext<'_, T>,
        _rows: usize,
        x: &[T],
        y: &mut [T],
        _tape: &mut [T],
    ) -> Result<()> {
        let pixels = self.pixels();
        let mask = self.transmission(context.prepared);
        for (x, y) in x.chunks_exact(2 * pixels).zip(y.chunks_exact_mut(2 * pixels)) {
            let (re, im) = y.split_at_mut(pixels);
            let field = |k: usize| times(mask(k), self.at(x, k));
            self.cross(context, false, field, |k, value| [re[k], im[k]] = value);
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
        let pixels = self.pixels();
        let (scratch, mask) = (context.scratch, self.transmission(context.prepared));
        let mut by_grid = scratch.zeros(if gradient.is_empty() { 0 } else { 2 * pixels });
        let mut dx = dx.chunks_exact_mut(2 * pixels);
        let rows = record.x.chunks_exact(2 * pixels).zip(dy.chunks_exact(2 * pixels));
        for (x, dy) in rows {
            let mut dx = dx.next().unwrap_or_default().split_at_mut_checked(pixels);
            let (by_re, by_im) = by_grid.split_at_mut(if gradient.is_empty() { 0 } else { pixels });
            self.cross(
                context,
                true,
                |k| self.at(dy, k),
                |k, back| {
                    if let Some((re, im)) = &mut dx {
                        [re[k], im[k]] = times(conjugate(mask(k)), back);
                    }
                    if !by_re.is_empty() {
                        let [re, im] = times(conjugate(self.at(x, k)), back);
                        by_re[k] += re;
                        by_im[k] += im;
                    }
                },
            );
        }
        if !gradient.is_empty() {
            let mut by_pixel = scratch.zeros(2 * pixels);
            self.by_mask(context, &by_grid, &mut by_pixel);
            self.mask.pull_back(context.params, &by_pixel, gradient);
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
        let pixels = self.pixels();
        let mask = self.transmission(context.prepared);
        let mut moved = context.scratch.zeros(if along.is_empty() { 0 } else { 2 * pixels });
        if !along.is_empty() {
            let own = &context.prepared[context.prepared.len() - 2 * pixels..];
            let mut changes = context.scratch.zeros(2 * pixels);
            for k in 0..pixels {
                let [turn, gain] = self.mask.push_forward(context.params, along, k);
                [changes[k], changes[pixels + k]] = times(self.at(own, k), [gain, turn]);
            }
            let parts = changes.chunks_exact(pixels).zip(moved.chunks_exact_mut(pixels));
            parts.for_each(|(from, to)| match &self.placement {
                Some(placement) => placement.gather(from, to),
                None => to.copy_from_slice(from),
            });
        }
        let rows = record.x.chunks_exact(2 * pixels).zip(dx.chunks_exact(2 * pixels));
        for ((x, dx), dy) in rows.zip(dy.chunks_exact_mut(2 * pixels)) {
            let (re, im) = dy.split_at_mut(pixels);
            let field = |k: usize| {
                let passed = times(mask(k), self.at(dx, k));
                if moved.is_empty() {
                    return passed;
                }
                let [a, b] = times(self.at(&moved, k), self.at(x, k));
                [passed[0] + a, passed[1] + b]
            };
            self.cross(context, false, field, |k, value| [re[k], im[k]] = value);
        }
        Ok(())
    }

    fn prepare_reverse(
        &self,
        level: Level,
        params: &[&[T]],
        memory: &[&[T]],
        prepared: &mut Vec<T>,
    ) {
        self.prepare(level, params, memory, false, prepared);
    }

    /// At every pixel, in front of the mask: what a loss changes by with the phase there, and with
    /// the logarithm of the amplitude.
    fn monitors(&self) -> Option<usize> {
        Some(if self.mask.kind.is_some() { 2 * self.pixels() } else { 0 })
    }

    fn points_read(&self) -> Option<usize> {
        Some(if self.mask.kind.is_some() { self.pixels() } else { 0 })
    }

    fn has_symmetric_medium(&self) -> bool {
        true
    }

    fn is_linear_in_fields(&self) -> bool {
        true
    }

    fn is_sinusoidal(&self) -> bool {
        let Mask { kind, absorption, bits } = self.mask;
        // Shifts are a quarter of a turn.
        let are_exact = absorption == 0.0 && bits.is_none_or(|bits| bits > 1);
        kind == Some(MaskKind::Phase) && are_exact
    }

    fn pass_light(
        &self,
        context: LayerContext<'_, T>,
        rows: usize,
        pass: LightPass<'_, T>,
    ) -> Result<()> {
        let LightPass { backward, through_medium, sent, received, signals, weights, sums, .. } =
            pass;
        if !backward {
            return self.forward(context, rows, sent, received, &mut []);
        }
        let pixels = self.pixels();
        let mut as_set = context.scratch.empty();
        let mask = if through_medium && self.mask.kind.is_some() {
            // What it multiplies fields by is not measured: that it should.
            as_set.resize(2 * pixels, T::ZERO);
            self.mask.write_transmission(context.params, &mut as_set);
            self.transmission(&as_set)
        } else {
            self.transmission(context.prepared)
        };
        let ends = sent.chunks_exact(2 * pixels).zip(received.chunks_exact_mut(2 * pixels));
        for (r, (sent, received)) in ends.enumerate() {
            let (re, im) = received.split_at_mut(pixels);
            self.cross(
                context,
                false,
                |k| self.at(sent, k),
                |k, back| {
                    [re[k], im[k]] = times(mask(k), back);
                },
            );
            let (Some(&weight), Some((by_phase, by_amplitude))) =
                (weights.get(r), sums.split_at_mut_checked(pixels))
            else {
                continue;
            };
            let signals = &signals[r * 2 * pixels..(r + 1) * 2 * pixels];
            for k in 0..pixels {
                let [along, across] = times(self.at(signals, k), self.at(received, k));
                by_phase[k] -= weight * across;
                by_amplitude[k] += weight * along;
            }
        }
        Ok(())
    }

    fn learn_phases(&self, params: &[&[T]], by_pixel: &[T], gradient: &mut [Vec<T>]) {
        self.mask.pull_back(params, by_pixel, gradient);
    }

    /// Masks are moved along both axes, and turned about their middle, so that the middle of an
    /// edge moves as far; the next plane is moved along the beam. All in pitches.
    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        let off = |k: u64| mismatch * random.normal(k, group);
        let shape = self.space.shape;
        let angle = off(2) / (0.5 * shape[0].max(shape[1]) as f64);
        let placement = self.mask.kind.map(|_| Placement::new(shape, [off(0), off(1)], angle));
        let space = self.space.moved(off(3), self.sampling);
        Box::new(Self { placement, ..Self::new(space, self.sampling, self.mask) })
    }
}
