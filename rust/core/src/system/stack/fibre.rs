//! Pulses in a nonlinear optical fibre, shaped by phases of their spectrum (Oguz et al., Nat.
//! Commun. 15, 9793, 2024; Agrawal, Nonlinear Fiber Optics).
//!
//! The envelope A (t, z) obeys i A_z = (beta2 / 2) A_tt - gamma |A|^2 A, the nonlinear Schrödinger
//! equation, in a frame that moves with the pulse.

use std::f64::consts::TAU;

use num_complex::Complex64;
use pnncore_kernels::fourier::{Direction, Transform};
use pnncore_kernels::philox::Philox;
use pnncore_kernels::trig::sin_cos;
use pnncore_kernels::{Level, Real};
use serde::Deserialize;

use super::complex::{conjugate, times};
use super::layer::{ForwardRecord, Layer, LayerContext};
use super::layer_spec::{LayerOutline, LayerSpec, Parts, ROWS, Site};
use super::split_step::{PointStep, SplitStep, frequencies};
use crate::params::ParamSpec;
use crate::scratch::Scratch;
use crate::settings::{at_least_brief, at_least_zero, positive};
use crate::signal::Signal;
use crate::{Error, Result, memory};

/// The shape of a pulse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PulseShape {
    /// sech(t / t0).
    Sech,
    /// exp(-t^2 / 2 t0^2).
    Gaussian,
}

/// The description of a fibre with a shaper of pulses before it.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FibreSpec {
    /// How many points in time, and as many frequencies.
    pub points: usize,
    /// From the first point to where they begin again.
    pub window: f64,
    /// From end to end.
    pub length: f64,
    /// The dispersion beta2, in squares of the unit of time over that of length.
    pub dispersion: f64,
    /// The nonlinearity gamma, in inverse units of power and of length.
    pub nonlinearity: f64,
    /// The shape of the pulse before its spectrum is shaped.
    pub pulse: PulseShape,
    /// Its duration t0.
    pub duration: f64,
    /// Its power at the peak.
    pub peak_power: f64,
    /// How many steps the field takes.
    pub steps: usize,
}

/// A step that turns phases by more, at the peak of the pulse, is refused, in radians.
const LARGEST_TURN: f64 = 0.1;

impl FibreSpec {
    fn check(&self) -> Result<()> {
        let Self { points, window, length, nonlinearity, duration, peak_power, steps, .. } = *self;
        let refuse = |text: String| Err(Error::Config(text));
        for (name, value) in [
            ("window", window),
            ("length", length),
            ("duration", duration),
            ("peak_power", peak_power),
        ] {
            positive(name, value)?;
        }
        at_least_zero("nonlinearity", nonlinearity)?;
        if !self.dispersion.is_finite() {
            return refuse(format!("dispersion must be finite, got {}", self.dispersion));
        }
        if points < 2 || steps == 0 {
            return refuse(format!(
                "points must be at least 2 and steps at least 1, got {points} and {steps}"
            ));
        }
        let spacing = window / points as f64;
        if spacing > duration || window < 4.0 * duration {
            return refuse(format!(
                "a pulse of duration {duration} needs points at most that far apart, and a window \
                 of at least four times as much; got {spacing} and {window}: change points, window \
                 or duration"
            ));
        }
        let turn = nonlinearity * peak_power * length / steps as f64;
        if turn > LARGEST_TURN {
            return refuse(format!(
                "nonlinearity turns the phase of the peak by {} rad in a step, more than \
                 {LARGEST_TURN}: take at least {} steps",
                at_least_brief(turn),
                (steps as f64 * turn / LARGEST_TURN).ceil()
            ));
        }
        Ok(())
    }

    /// The field of a twin in time, in the middle of every step: as many points of each, the peak
    /// of the pulse that is not shaped at the first one.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, [`Error::Shape`] for as many phases or points
    /// as there are not.
    pub fn trace(&self, phases: &[f64], spectrum: &[Complex64]) -> Result<Vec<Complex64>> {
        self.check()?;
        if (phases.len(), spectrum.len()) != (self.points, self.points) {
            return Err(Error::Shape(format!(
                "phase and x must have {} elements, got {} and {}",
                self.points,
                phases.len(),
                spectrum.len()
            )));
        }
        let (fibre, level) = (Fibre::<f64>::new(*self, [1.0; 2]), Level::get());
        let (mut prepared, scratch) = (Vec::new(), Scratch::default());
        fibre.prepare(level, &[phases], &[], false, &mut prepared);
        let parts = spectrum.iter().map(|value| value.re).chain(spectrum.iter().map(|v| v.im));
        let (row, mut field) = (parts.collect::<Vec<_>>(), vec![[0.0; 2]; self.points]);
        fibre.shape((&prepared, &scratch), &row, &mut field);
        let mut found = Vec::with_capacity(self.steps * self.points);
        fibre.steps.show((level, &scratch), &fibre.kerr(level), &mut field, |_, field| {
            found.extend(field.iter().map(|&[re, im]| Complex64::new(re, im)));
        });
        Ok(found)
    }

    /// What spectra turn by in a step, where the dispersion is `factor` times what it should be.
    fn turns(&self, factor: f64) -> Vec<f64> {
        let (spacing, step) = (self.window / self.points as f64, self.length / self.steps as f64);
        let dispersion = factor * self.dispersion;
        let turn = |cycles: f64| 0.5 * dispersion * (TAU * cycles / spacing).powi(2) * step;
        frequencies(self.points).map(turn).collect()
    }

    /// The spectrum of the pulse, in the order of a transform: in units in which what comes out has
    /// an energy of one if all of it goes in.
    fn spectrum<T: Real>(&self) -> (Vec<[T; 2]>, f64) {
        let Self { points, window, duration, peak_power, .. } = *self;
        let spacing = window / points as f64;
        let envelope = |k: usize| {
            // The peak is at the first point; what is before it is at the end.
            let t = spacing * if 2 * k < points { k as f64 } else { k as f64 - points as f64 };
            let t = t / duration;
            peak_power.sqrt()
                * match self.pulse {
                    PulseShape::Sech => 1.0 / t.cosh(),
                    PulseShape::Gaussian => (-0.5 * t * t).exp(),
                }
        };
        let mut field: Vec<f64> = (0..points).flat_map(|k| [envelope(k), 0.0]).collect();
        let energy = field.iter().map(|value| value * value).sum::<f64>();
        let transform = Transform::<f64>::new(Level::get(), points, Direction::Forward);
        transform.process(&mut field, &mut vec![0.0; transform.scratch()]);
        let (pairs, _) = field.as_chunks::<2>();
        let scale = 1.0 / points as f64;
        let spectrum = pairs.iter().map(|pair| pair.map(|part| T::from_f64(scale * part)));
        // The transform of a field multiplies its energy by the number of points.
        (spectrum.collect(), 1.0 / (points as f64 * energy).sqrt())
    }
}

impl LayerSpec for FibreSpec {
    const KIND: &'static str = "fibre";

    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        self.check()?;
        let kept = (self.steps as f64).sqrt() as usize + 2;
        let fields = memory::product(&[self.points, kept, 2 * (ROWS + 2)]);
        let field = Signal::complex(self.points);
        Ok(LayerOutline {
            parameters: parameters(self.points),
            constants: if site.is_mismatched() { 2 } else { 0 },
            numbers: fields.saturating_add(16 * self.points as u128),
            ..LayerOutline::new(field, field)
        })
    }

    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        Ok(Parts::of(Fibre::new(*self, [1.0; 2]), site))
    }
}

fn parameters(points: usize) -> Vec<ParamSpec> {
    vec![ParamSpec { name: "phase".into(), shape: vec![points] }]
}

/// A fibre, into which goes the spectrum of a pulse, times the field that arrives, times exp(i phi)
/// of the phases that are parameters, frequency by frequency. Frequencies are in ascending order,
/// that of the carrier in the middle.
#[derive(Debug, Clone)]
struct Fibre<T> {
    spec: FibreSpec,
    steps: SplitStep<T>,
    /// The nonlinear phase of a step, per unit of power.
    kerr: T,
    spectrum: Vec<[T; 2]>,
    /// What the spectrum that comes out is multiplied by.
    scale: T,
}

/// The nonlinear steps of a fibre: A exp(i c |A|^2).
struct Kerr<T> {
    level: Level,
    strength: T,
}

/// Points whose phases are turned together.
const TOGETHER: usize = 64;

impl<T: Real> Kerr<T> {
    /// Gives to every point what it is turned by: its cosine and its sine.
    #[inline(always)]
    fn turn(&self, before: &[[T; 2]], mut each: impl FnMut(usize, [T; 2])) {
        let (mut angle, mut sin, mut cos) =
            ([T::ZERO; TOGETHER], [T::ZERO; TOGETHER], [T::ZERO; TOGETHER]);
        for (chunk, points) in before.chunks(TOGETHER).enumerate() {
            let n = points.len();
            for (angle, &[re, im]) in angle.iter_mut().zip(points) {
                *angle = self.strength * (re * re + im * im);
            }
            sin_cos(self.level, &angle[..n], &mut sin[..n], &mut cos[..n]);
            for (k, (&c, &s)) in cos[..n].iter().zip(&sin[..n]).enumerate() {
                each(chunk * TOGETHER + k, [c, s]);
            }
        }
    }
}

impl<T: Real> PointStep<T> for Kerr<T> {
    fn pass(&self, _step: usize, field: &mut [[T; 2]]) {
        for field in field.chunks_mut(TOGETHER) {
            let mut before = [[T::ZERO; 2]; TOGETHER];
            let before = &mut before[..field.len()];
            before.copy_from_slice(field);
            self.turn(before, |k, turn| field[k] = times(turn, before[k]));
        }
    }

    /// e' = w + 2 c Im(conj(A) w) A, with w = exp(-i c |A|^2) e.
    fn pull_back(
        &self,
        _step: usize,
        before: &[[T; 2]],
        error: &mut [[T; 2]],
        _gradient: &mut [T],
    ) {
        let twice = self.strength + self.strength;
        self.turn(before, |k, turn| {
            let ([re, im], [a, b]) = (before[k], times(conjugate(turn), error[k]));
            let share = twice * (re * b - im * a);
            error[k] = [a + share * re, b + share * im];
        });
    }

    /// exp(i c |A|^2) (d + 2 i c Re(conj(A) d) A).
    fn push_forward(&self, _step: usize, before: &[[T; 2]], change: &mut [[T; 2]]) {
        let twice = self.strength + self.strength;
        self.turn(before, |k, turn| {
            let ([re, im], [a, b]) = (before[k], change[k]);
            let share = twice * (re * a + im * b);
            change[k] = times(turn, [a - share * im, b + share * re]);
        });
    }
}

impl<T: Real> Fibre<T> {
    /// A fibre whose dispersion and nonlinearity are off by these factors.
    fn new(spec: FibreSpec, [dispersion, nonlinearity]: [f64; 2]) -> Self {
        let level = Level::get();
        let (spectrum, scale) = spec.spectrum();
        let strength = nonlinearity * spec.nonlinearity * spec.length / spec.steps as f64;
        Self {
            spec,
            steps: SplitStep::new(level, spec.steps, &spec.turns(dispersion)),
            kerr: T::from_f64(strength),
            spectrum,
            scale: T::from_f64(scale),
        }
    }

    /// The place, among ascending frequencies, of number `k` of a transform.
    fn place(&self, k: usize) -> usize {
        let points = self.spec.points;
        (k + points / 2) % points
    }

    fn kerr(&self, level: Level) -> Kerr<T> {
        Kerr { level, strength: self.kerr }
    }

    /// The field in time of a row of what multiplies the spectrum, as the shaper leaves it.
    fn shape(&self, (prepared, scratch): (&[T], &Scratch<T>), row: &[T], field: &mut [[T; 2]]) {
        let (points, phases) = (self.spec.points, prepared.as_chunks().0);
        for (k, field) in field.iter_mut().enumerate() {
            let at = self.place(k);
            let modulated = times([row[at], row[points + at]], phases[at]);
            *field = times(modulated, self.spectrum[k]);
        }
        let mut transforms = scratch.zeros(self.steps.inverse.scratch());
        self.steps.inverse.process(field.as_flattened_mut(), &mut transforms);
    }

    /// The row of the spectrum of a field in time.
    fn analyse(&self, context: LayerContext<'_, T>, field: &mut [[T; 2]], row: &mut [T]) {
        let points = self.spec.points;
        let mut transforms = context.scratch.zeros(self.steps.forward.scratch());
        self.steps.forward.process(field.as_flattened_mut(), &mut transforms);
        for (k, &[re, im]) in field.iter().enumerate() {
            let at = self.place(k);
            (row[at], row[points + at]) = (self.scale * re, self.scale * im);
        }
    }

    /// The error of the field in time by that of the row of its spectrum: the adjoint.
    fn synthesise(&self, context: LayerContext<'_, T>, row: &[T], error: &mut [[T; 2]]) {
        let points = self.spec.points;
        for (k, error) in error.iter_mut().enumerate() {
            let at = self.place(k);
            *error = [self.scale * row[at], self.scale * row[points + at]];
        }
        let mut transforms = context.scratch.zeros(self.steps.inverse.scratch());
        self.steps.inverse.process(error.as_flattened_mut(), &mut transforms);
    }
}

impl<T: Real> Layer<T> for Fibre<T> {
    fn name(&self) -> &'static str {
        "Fibre"
    }

    fn takes(&self) -> Signal {
        Signal::complex(self.spec.points)
    }

    fn gives(&self) -> Signal {
        Signal::complex(self.spec.points)
    }

    fn specs(&self) -> Vec<ParamSpec> {
        parameters(self.spec.points)
    }

    /// The pulse nearly as it is.
    fn initialise(&self, random: Philox, group: u32, params: &mut [&mut [T]]) {
        for (k, phase) in (0..).zip(params[0].iter_mut()) {
            *phase = T::from_f64(0.1 * random.normal(k, group));
        }
    }

    fn tape(&self) -> usize {
        self.steps.tape()
    }

    fn work(&self) -> usize {
        48 * self.spec.points * self.spec.steps
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
        prepared.extend(params[0].iter().flat_map(|phase| {
            let Complex64 { re, im } = Complex64::cis(phase.to_f64());
            [T::from_f64(re), T::from_f64(im)]
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
        let points = self.spec.points;
        let mut field = scratch.zeros(2 * points);
        let (field, _) = field.as_chunks_mut();
        let mut tapes = tape.chunks_exact_mut(self.steps.tape());
        for (x, y) in x.chunks_exact(2 * points).zip(y.chunks_exact_mut(2 * points)) {
            self.shape((prepared, scratch), x, field);
            let tape = tapes.next().unwrap_or_default();
            self.steps.pass((level, scratch), &self.kerr(level), field, tape);
            self.analyse(context, field, y);
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
        let LayerContext { level, prepared, scratch, .. } = context;
        let (points, phases) = (self.spec.points, prepared.as_chunks::<2>().0);
        let mut error = scratch.zeros(2 * points);
        let (error, _) = error.as_chunks_mut();
        let mut transforms = scratch.zeros(self.steps.forward.scratch());
        let mut dx = dx.chunks_exact_mut(2 * points);
        let rows = record.x.chunks_exact(2 * points).zip(dy.chunks_exact(2 * points));
        for (tape, (x, dy)) in record.tape.chunks_exact(self.steps.tape()).zip(rows) {
            self.synthesise(context, dy, error);
            let (memory, kerr) = ((level, scratch), self.kerr(level));
            self.steps.pull_back(memory, &kerr, tape, error, &mut []);
            self.steps.forward.process(error.as_flattened_mut(), &mut transforms);
            let mut dx = dx.next();
            for (k, &error) in error.iter().enumerate() {
                let at = self.place(k);
                let passed = times(conjugate(self.spectrum[k]), error);
                let [back_re, back_im] = times(conjugate(phases[at]), passed);
                if let Some(gradient) = gradient.first_mut() {
                    gradient[at] += x[at] * back_im - x[points + at] * back_re;
                }
                if let Some(dx) = &mut dx {
                    (dx[at], dx[points + at]) = (back_re, back_im);
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
        let LayerContext { level, prepared, scratch, .. } = context;
        let points = self.spec.points;
        let (mut field, mut change) = (scratch.zeros(2 * points), scratch.zeros(2 * points));
        let (field, change) = (field.as_chunks_mut().0, change.as_chunks_mut().0);
        let mut moved = scratch.zeros(2 * points);
        let rows = record.x.chunks_exact(2 * points).zip(dx.chunks_exact(2 * points));
        for ((x, dx), dy) in rows.zip(dy.chunks_exact_mut(2 * points)) {
            moved.copy_from_slice(dx);
            if let Some(along) = along.first() {
                for (at, &along) in along.iter().enumerate() {
                    moved[at] -= along * x[points + at];
                    moved[points + at] += along * x[at];
                }
            }
            self.shape((prepared, scratch), x, field);
            self.shape((prepared, scratch), &moved, change);
            self.steps.push_forward((level, scratch), &self.kerr(level), field, change);
            self.analyse(context, change, dy);
        }
        Ok(())
    }

    /// Dispersion and nonlinearity are off.
    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        let factors = [0, 1].map(|k| 1.0 + mismatch * random.normal(k, group));
        Box::new(Self::new(self.spec, factors))
    }
}
