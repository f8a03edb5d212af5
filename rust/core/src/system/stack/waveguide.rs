//! A slab of glass whose refractive index is programmed, pixel by pixel, as a guide for waves
//! (Onodera et al., arXiv:2402.17750).
//!
//! The field's envelope A (x, z) obeys i A_z = -A_xx / 2 k - k0 dn A, with k = n k0 (the paraxial
//! wave equation; Agrawal, Applications of Nonlinear Fiber Optics). Near both edges light is
//! absorbed, for nothing must come back from there.

use std::f64::consts::TAU;

use num_complex::Complex64;
use pnncore_kernels::philox::Philox;
use pnncore_kernels::{Level, Real};
use serde::Deserialize;

use super::complex::{conjugate_rows, deinterleave, interleave};
use super::layer::{ForwardRecord, Layer, LayerContext, LightPass, factors};
use super::layer_spec::{LayerOutline, LayerSpec, Parts, ROWS, Site};
use super::split_step::{PointStep, SplitStep, frequencies};
use crate::params::ParamSpec;
use crate::scratch::Scratch;
use crate::settings::{at_least_brief, at_least_one, at_most_brief, positive};
use crate::signal::Signal;
use crate::{Error, Result, memory};

/// The description of a programmable waveguide.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaveguideSpec {
    /// How many points of the field there are across.
    pub points: usize,
    /// From edge to edge.
    pub width: f64,
    /// From end to end, in units of `width`.
    pub length: f64,
    /// The wavelength in vacuum, in units of `width`.
    pub wavelength: f64,
    /// The refractive index where nothing is programmed.
    pub index: f64,
    /// By how much, at most, it is raised.
    pub index_range: f64,
    /// How many steps the field takes.
    pub steps: usize,
    /// Rows of pixels along the way: each is met in as many steps.
    pub sections: usize,
    /// Pixels across: each has as many points.
    pub pixels: usize,
    /// The share of the width in which either edge absorbs.
    pub absorber: f64,
}

/// What light at half of the steepest angle that points resolve loses of its amplitude where it
/// crosses both edges, in nepers: a ten thousandth of its power is left.
const CROSSING_LOSS: f64 = 4.6;

/// A step that turns phases by more is refused, in radians.
const LARGEST_TURN: f64 = 1.0;

impl WaveguideSpec {
    fn check(&self) -> Result<()> {
        let Self { points, width, length, wavelength, index, index_range, .. } = *self;
        let Self { steps, sections, pixels, absorber, .. } = *self;
        at_least_one(&[
            ("points", points),
            ("steps", steps),
            ("sections", sections),
            ("pixels", pixels),
        ])?;
        for (name, value) in [
            ("width", width),
            ("length", length),
            ("wavelength", wavelength),
            ("index", index),
            ("index_range", index_range),
        ] {
            positive(name, value)?;
        }
        let refuse = |text: String| Err(Error::Config(text));
        if !(0.0..0.5).contains(&absorber) {
            return refuse(format!("absorber must be in [0, 0.5), got {absorber}"));
        }
        for (name, count, of, all) in
            [("pixels", pixels, "points", points), ("sections", sections, "steps", steps)]
        {
            if !all.is_multiple_of(count) {
                return refuse(format!("{name} must divide {of}, {all}, got {count}"));
            }
        }
        let within = wavelength / index;
        let spacing = width / points as f64;
        if spacing < 0.5 * within {
            let most = (2.0 * width / within) as usize;
            let advice = if most < 2 {
                "give width and wavelength in the same unit".into()
            } else {
                format!("take at most {most} points")
            };
            return refuse(format!(
                "points are {} apart, less than half a wavelength in the glass, {}, which waves \
                 along the axis do not need: {advice}",
                at_most_brief(spacing),
                at_least_brief(0.5 * within)
            ));
        }
        let turn = TAU / wavelength * index_range * length / steps as f64;
        if turn > LARGEST_TURN {
            let least = (steps as f64 * turn / LARGEST_TURN).ceil();
            let each = (least / sections as f64).ceil();
            return refuse(format!(
                "index_range turns the phase by {} rad in a step, more than {LARGEST_TURN}: take \
                 at least {} steps, {each} to a section, or a smaller index_range",
                at_least_brief(turn),
                each * sections as f64
            ));
        }
        Ok(())
    }

    /// The field of a twin on its way, in the middle of every step: as many points of each.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, [`Error::Shape`] for as many logits or points
    /// as there are not.
    pub fn trace(&self, logits: &[f64], field: &[Complex64]) -> Result<Vec<Complex64>> {
        self.check()?;
        let wanted = (self.sections * self.pixels, self.points);
        if (logits.len(), field.len()) != wanted {
            return Err(Error::Shape(format!(
                "logit must have {} elements and x {} points, got {} and {}",
                wanted.0,
                wanted.1,
                logits.len(),
                field.len()
            )));
        }
        let guide = self.twin::<f64>();
        let (mut prepared, scratch) = (Vec::new(), Scratch::default());
        guide.prepare(Level::get(), &[logits], &[], false, &mut prepared);
        let mut passed: Vec<[f64; 2]> = field.iter().map(|value| [value.re, value.im]).collect();
        let mut found = Vec::with_capacity(self.steps * self.points);
        let pixels = guide.pixels(&prepared, &[]);
        guide.steps.show((Level::get(), &scratch), &pixels, &mut passed, |_, field| {
            found.extend(field.iter().map(|&[re, im]| Complex64::new(re, im)));
        });
        Ok(found)
    }

    fn twin<T: Real>(&self) -> Waveguide<T> {
        let steps = SplitStep::new(Level::get(), self.steps, &self.turns());
        Waveguide { spec: *self, steps, survivals: self.survivals(), responses: Vec::new() }
    }

    /// What spectra turn by in a step.
    fn turns(&self) -> Vec<f64> {
        let spacing = self.width / self.points as f64;
        let step = self.length / self.steps as f64;
        let wavenumber = TAU * self.index / self.wavelength;
        let turn = |cycles: f64| -(TAU * cycles / spacing).powi(2) * step / (2.0 * wavenumber);
        frequencies(self.points).map(turn).collect()
    }

    /// What a step leaves of the amplitude at each point: absorption rises as the square of how far
    /// in the edge it is, so that little is reflected.
    fn survivals<T: Real>(&self) -> Vec<T> {
        let points = self.points as f64;
        let (spacing, edge) = (self.width / points, self.absorber * self.width);
        let angle = self.wavelength / (4.0 * self.index * spacing);
        // A third of the largest rate is met in the mean, in two edges of edge / angle length each.
        let largest = 1.5 * CROSSING_LOSS * angle / edge.max(f64::MIN_POSITIVE);
        let survival = |k: usize| {
            let from_edge = (k as f64 + 0.5).min(points - k as f64 - 0.5) * spacing;
            let depth = (1.0 - from_edge / edge.max(f64::MIN_POSITIVE)).max(0.0);
            let rate = if depth > 0.0 { largest * depth * depth } else { 0.0 };
            T::from_f64((-rate * self.length / self.steps as f64).exp())
        };
        (0..self.points).map(survival).collect()
    }
}

impl LayerSpec for WaveguideSpec {
    const KIND: &'static str = "waveguide";

    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        self.check()?;
        let Self { points, sections, pixels, steps, .. } = *self;
        let programmed = memory::product(&[sections, pixels]);
        let constants = if site.is_mismatched() { programmed } else { 0 };
        let kept = (steps as f64).sqrt() as usize + 2;
        let fields = memory::product(&[points, kept, 2 * (ROWS + 2)]);
        let field = Signal::complex(points);
        Ok(LayerOutline {
            parameters: parameters(sections, pixels),
            constants,
            numbers: fields.saturating_add(programmed.saturating_mul(8)),
            ..LayerOutline::new(field, field)
        })
    }

    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        Ok(Parts::of(self.twin(), site))
    }
}

fn parameters(sections: usize, pixels: usize) -> Vec<ParamSpec> {
    vec![ParamSpec { name: "logit".into(), shape: vec![sections, pixels] }]
}

/// A waveguide, whose pixels raise the index by its range over 1 + exp(-s), with the logit s; in
/// hardware by a multiple of that, the response of the pixel.
#[derive(Debug, Clone)]
struct Waveguide<T> {
    spec: WaveguideSpec,
    steps: SplitStep<T>,
    /// What a step leaves of the amplitude at each point.
    survivals: Vec<T>,
    /// One to a pixel; empty: all one.
    responses: Vec<T>,
}

/// The pixels of a waveguide at its parameters.
struct Pixels<'a, T> {
    waveguide: &'a Waveguide<T>,
    /// Real and imaginary parts of what each multiplies a field by in a step.
    turns: &'a [[T; 2]],
    /// By how much the phases of a step change, pixel by pixel; empty: they do not.
    along: &'a [T],
}

impl<T: Real> Pixels<'_, T> {
    /// The first pixel of a step's row.
    fn first(&self, step: usize) -> usize {
        let WaveguideSpec { steps, sections, pixels, .. } = self.waveguide.spec;
        step / (steps / sections) * pixels
    }

    fn points_of_pixel(&self) -> usize {
        self.waveguide.spec.points / self.waveguide.spec.pixels
    }
}

impl<T: Real> PointStep<T> for Pixels<'_, T> {
    #[inline(always)]
    fn pass(&self, step: usize, field: &mut [[T; 2]]) {
        let width = self.points_of_pixel();
        let points = field.chunks_exact_mut(width);
        let survivals = self.waveguide.survivals.chunks_exact(width);
        for ((points, survivals), &[c, s]) in
            points.zip(survivals).zip(&self.turns[self.first(step)..])
        {
            for ([re, im], &left) in points.iter_mut().zip(survivals) {
                let (a, b) = (left * *re, left * *im);
                (*re, *im) = (c * a - s * b, s * a + c * b);
            }
        }
    }

    /// dL/dphase = Im(conj(A) e), with the field A and the error e in front of a pixel.
    #[inline(always)]
    fn pull_back(&self, step: usize, before: &[[T; 2]], error: &mut [[T; 2]], gradient: &mut [T]) {
        let (width, first) = (self.points_of_pixel(), self.first(step));
        let points = error.chunks_exact_mut(width).zip(before.chunks_exact(width));
        let survivals = self.waveguide.survivals.chunks_exact(width);
        for (k, ((error, before), survivals)) in points.zip(survivals).enumerate() {
            let [c, s] = self.turns[first + k];
            let mut sum = T::ZERO;
            for ((error, &[re, im]), &left) in error.iter_mut().zip(before).zip(survivals) {
                let [a, b] = *error;
                *error = [left * (c * a + s * b), left * (c * b - s * a)];
                sum += re * error[1] - im * error[0];
            }
            if let Some(gradient) = gradient.get_mut(first + k) {
                *gradient += sum;
            }
        }
    }

    #[inline(always)]
    fn push_forward(&self, step: usize, before: &[[T; 2]], change: &mut [[T; 2]]) {
        let (width, first) = (self.points_of_pixel(), self.first(step));
        if !self.along.is_empty() {
            for (k, (change, &[re, im])) in change.iter_mut().zip(before).enumerate() {
                let turn = self.along[first + k / width];
                change[0] -= turn * im;
                change[1] += turn * re;
            }
        }
        self.pass(step, change);
    }
}

impl<T: Real> Waveguide<T> {
    /// By how much phases should turn in a step at most.
    fn largest_turn(&self) -> f64 {
        let WaveguideSpec { wavelength, index_range, length, steps, .. } = self.spec;
        TAU / wavelength * index_range * length / steps as f64
    }

    /// What pixel `k` does of what it should.
    fn response(&self, k: usize) -> f64 {
        self.responses.get(k).map_or(1.0, |response| response.to_f64())
    }

    /// The slope that the phase of a pixel should have by its logit.
    fn slope(&self, logit: T) -> f64 {
        let share = 1.0 / (1.0 + (-logit.to_f64()).exp());
        self.largest_turn() * share * (1.0 - share)
    }

    fn pixels<'a>(&'a self, prepared: &'a [T], along: &'a [T]) -> Pixels<'a, T> {
        Pixels { waveguide: self, turns: prepared.as_chunks().0, along }
    }

    fn count(&self) -> usize {
        self.spec.sections * self.spec.pixels
    }

    /// Brings errors back, row by row, and adds to what a loss changes by with phases.
    fn bring_back(
        &self,
        context: LayerContext<'_, T>,
        tape: &[T],
        (dy, dx): (&[T], &mut [T]),
        by_phase: &mut [T],
    ) {
        let LayerContext { level, prepared, scratch, .. } = context;
        let (points, pixels) = (self.spec.points, self.pixels(prepared, &[]));
        let mut error = scratch.zeros(2 * points);
        let (error, _) = error.as_chunks_mut();
        let mut dx = dx.chunks_exact_mut(2 * points);
        for (tape, dy) in tape.chunks_exact(self.steps.tape()).zip(dy.chunks_exact(2 * points)) {
            interleave(dy, error);
            self.steps.pull_back((level, scratch), &pixels, tape, error, by_phase);
            dx.next().into_iter().for_each(|dx| deinterleave(error, dx));
        }
    }
}

impl<T: Real> Layer<T> for Waveguide<T> {
    fn name(&self) -> &'static str {
        "Waveguide"
    }

    fn takes(&self) -> Signal {
        Signal::complex(self.spec.points)
    }

    fn gives(&self) -> Signal {
        Signal::complex(self.spec.points)
    }

    fn specs(&self) -> Vec<ParamSpec> {
        parameters(self.spec.sections, self.spec.pixels)
    }

    /// Near the middle of the range.
    fn initialise(&self, random: Philox, group: u32, params: &mut [&mut [T]]) {
        for (k, logit) in (0..).zip(params[0].iter_mut()) {
            *logit = T::from_f64(0.1 * random.normal(k, group));
        }
    }

    fn tape(&self) -> usize {
        self.steps.tape()
    }

    fn work(&self) -> usize {
        32 * self.spec.points * self.spec.steps
    }

    fn prepare(
        &self,
        _level: Level,
        params: &[&[T]],
        _memory: &[&[T]],
        _derivatives: bool,
        prepared: &mut Vec<T>,
    ) {
        prepared.clear();
        prepared.extend(params[0].iter().enumerate().flat_map(|(k, logit)| {
            let turn = self.response(k) * self.largest_turn() / (1.0 + (-logit.to_f64()).exp());
            [T::from_f64(turn.cos()), T::from_f64(turn.sin())]
        }));
    }

    fn forward(
        &self,
        context: LayerContext<'_, T>,
        _rows: usize,
        x: &[T],
        y: &mut [T],
        tape: &mut [T],
    ) -> Result<()> {
        let LayerContext { level, prepared, scratch, .. } = context;
        let (points, pixels) = (self.spec.points, self.pixels(prepared, &[]));
        let mut field = scratch.zeros(2 * points);
        let (field, _) = field.as_chunks_mut();
        let mut tapes = tape.chunks_exact_mut(self.steps.tape());
        for (x, y) in x.chunks_exact(2 * points).zip(y.chunks_exact_mut(2 * points)) {
            interleave(x, field);
            let tape = tapes.next().unwrap_or_default();
            self.steps.pass((level, scratch), &pixels, field, tape);
            deinterleave(field, y);
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
        let mut by_phase =
            context.scratch.zeros(if gradient.is_empty() { 0 } else { self.count() });
        self.bring_back(context, record.tape, (dy, dx), &mut by_phase);
        for (k, own) in by_phase.iter_mut().enumerate() {
            *own *= T::from_f64(self.response(k));
        }
        self.learn_phases(context.params, &by_phase, gradient);
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
        let LayerContext { level, prepared, params, scratch, .. } = context;
        let points = self.spec.points;
        let mut turns = scratch.empty();
        if let Some(along) = along.first() {
            let moved = along.iter().zip(params[0]).enumerate();
            turns.extend(moved.map(|(k, (&along, &logit))| {
                T::from_f64(self.response(k) * self.slope(logit)) * along
            }));
        }
        let pixels = self.pixels(prepared, &turns);
        let (mut field, mut change) = (scratch.zeros(2 * points), scratch.zeros(2 * points));
        let (field, change) = (field.as_chunks_mut().0, change.as_chunks_mut().0);
        let rows = record.x.chunks_exact(2 * points).zip(dx.chunks_exact(2 * points));
        for ((x, dx), dy) in rows.zip(dy.chunks_exact_mut(2 * points)) {
            interleave(x, field);
            interleave(dx, change);
            self.steps.push_forward((level, scratch), &pixels, field, change);
            deinterleave(change, dy);
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

    fn is_linear_in_fields(&self) -> bool {
        true
    }

    fn monitors(&self) -> Option<usize> {
        Some(self.count())
    }

    /// At every point, in front of every step's pixels.
    fn points_read(&self) -> Option<usize> {
        Some(self.spec.points * self.spec.steps)
    }

    fn pass_light(
        &self,
        context: LayerContext<'_, T>,
        rows: usize,
        pass: LightPass<'_, T>,
    ) -> Result<()> {
        let LightPass { backward, sent, received, signals, weights, sums, .. } = pass;
        if !backward {
            return self.forward(context, rows, sent, received, &mut []);
        }
        let points = self.spec.points;
        // The medium is reciprocal: what is sent back, conjugate, arrives as the conjugate of what
        // the adjoint makes of it.
        let mut error = context.scratch.copy(sent);
        conjugate_rows(&mut error, points);
        let tape_of_row = self.steps.tape();
        let mut tape = context.scratch.zeros(tape_of_row * rows);
        let mut passed = context.scratch.zeros(sent.len());
        self.forward(context, rows, signals, &mut passed, &mut tape)?;
        let mut by_phase = context.scratch.zeros(if weights.is_empty() { 0 } else { sums.len() });
        for r in 0..rows {
            let row = r * 2 * points..(r + 1) * 2 * points;
            let tape = &tape[r * tape_of_row..(r + 1) * tape_of_row];
            by_phase.fill(T::ZERO);
            let ends = (&error[row.clone()], &mut received[row]);
            self.bring_back(context, tape, ends, &mut by_phase);
            let Some(&weight) = weights.get(r) else { continue };
            sums.iter_mut().zip(&*by_phase).for_each(|(sum, &own)| *sum += weight * own);
        }
        conjugate_rows(received, points);
        Ok(())
    }

    /// What pixels do of what they should, nobody knows.
    fn learn_phases(&self, params: &[&[T]], by_phase: &[T], gradient: &mut [Vec<T>]) {
        let Some(gradient) = gradient.first_mut() else { return };
        for (k, (gradient, &by_phase)) in gradient.iter_mut().zip(by_phase).enumerate() {
            *gradient += T::from_f64(self.slope(params[0][k])) * by_phase;
        }
    }

    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        let responses = factors(self.count(), mismatch, random, group);
        Box::new(Self { responses, ..self.clone() })
    }
}
