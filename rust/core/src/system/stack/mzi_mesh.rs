//! Meshes of Mach-Zehnder interferometers in the rectangular layout (Clements et al., Optica 3,
//! 1460, 2016).
//!
//! An interferometer mixes two neighbouring modes by T = B diag(e^{i theta}, 1) B diag(e^{i phi},
//! 1), with couplers B = [[cos v, i sin v], [i sin v, cos v]] of angle v = pi / 4. Light meets n
//! columns of them, beginning in turn at the first and at the second mode, and at last a phase
//! gamma in each mode: any unitary map of n modes.

use std::f64::consts::{FRAC_PI_4, TAU};
use std::ops::Range;

use num_complex::Complex;
use pnncore_kernels::philox::Philox;
use pnncore_kernels::watch::poll;
use pnncore_kernels::{Level, Real};
use serde::Deserialize;

use super::layer::{ForwardRecord, Layer, LayerContext, vector};
use super::layer_spec::{LayerOutline, LayerSpec, Parts, ROWS, Site};
use crate::params::ParamSpec;
use crate::scratch::{Lent, Scratch};
use crate::settings::at_least_zero;
use crate::signal::Signal;
use crate::{Error, Result, memory};

/// The description of a mesh of Mach-Zehnder interferometers.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MZIMeshSpec {
    /// How many modes.
    pub modes: usize,
    /// What the hardware loses in each coupler, in decibels of power.
    pub loss: f64,
    /// The standard deviation, in radians, of what every phase of the hardware is off by more at
    /// each step of training than at the one before: a random walk.
    pub drift: f64,
}

impl LayerSpec for MZIMeshSpec {
    const KIND: &'static str = "mzi-mesh";

    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        let Self { modes, loss, drift } = *self;
        if modes < 2 {
            return Err(Error::Config(format!("n must be at least 2 modes, got {modes}")));
        }
        at_least_zero("loss", loss)?;
        at_least_zero("drift", drift)?;
        let couplers = memory::product(&[modes, modes - 1]);
        Ok(LayerOutline {
            parameters: parameters(modes),
            constants: if site.is_mismatched() { couplers } else { 0 },
            numbers: couplers.saturating_mul(8).saturating_add(memory::product(&[
                modes,
                modes - 1,
                2,
                ROWS,
            ])),
            ..LayerOutline::new(Signal::complex(modes), Signal::complex(modes))
        })
    }

    /// Hardware differs from its twin by loss and drift, too.
    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        let Self { modes, loss, drift } = *self;
        let twin = MZIMesh::new(modes, 1.0, |_| FRAC_PI_4);
        let real =
            MZIMesh { drift, ..MZIMesh::new(modes, 10f64.powf(-loss / 20.0), |_| FRAC_PI_4) };
        let off = || real.mismatched(site.mismatch, site.deviations(), site.group());
        let differs = site.is_mismatched() || loss > 0.0 || drift > 0.0;
        let hardware: Option<Box<dyn Layer<T>>> = differs.then(off);
        Ok(Parts::new(Box::new(twin), hardware))
    }
}

/// Names and shapes of the phases of a mesh.
fn parameters(modes: usize) -> Vec<ParamSpec> {
    let interferometers =
        usize::try_from(memory::product(&[modes, modes - 1]) / 2).unwrap_or(usize::MAX);
    [("theta", interferometers), ("phi", interferometers), ("gamma", modes)]
        .into_iter()
        .flat_map(|(name, len)| vector(name, len))
        .collect()
}

/// A mesh, with the couplers that it has.
#[derive(Debug, Clone)]
struct MZIMesh<T> {
    modes: usize,
    /// The upper mode of every interferometer, in the order in which light meets them.
    tops: Vec<usize>,
    /// c and s of the couplers [[c, i s], [i s, c]], two to an interferometer; c^2 + s^2 is the
    /// power that passes.
    couplers: Vec<[T; 2]>,
    /// The amplitude that passes a coupler.
    transmission: f64,
    /// The standard deviation of a step of the random walk of every phase.
    drift: f64,
}

/// The fields of some rows, mode by mode: what all rows have in a mode lies together.
struct Light<'a, T> {
    rows: usize,
    re: Lent<'a, Vec<T>>,
    im: Lent<'a, Vec<T>>,
}

impl<'a, T: Real> Light<'a, T> {
    /// The fields of rows of real parts, then imaginary parts.
    fn of(fields: &[T], modes: usize, scratch: &'a Scratch<T>) -> Self {
        let rows = fields.len() / (2 * modes);
        let part = |offset: usize| {
            let place = |k: usize| (k % rows) * 2 * modes + offset + k / rows;
            let mut part = scratch.empty();
            part.extend((0..rows * modes).map(|k| fields[place(k)]));
            part
        };
        Self { rows, re: part(0), im: part(modes) }
    }

    fn write(&self, fields: &mut [T], modes: usize) {
        for (r, field) in fields.chunks_exact_mut(2 * modes).enumerate() {
            let (re, im) = field.split_at_mut(modes);
            for mode in 0..modes {
                (re[mode], im[mode]) =
                    (self.re[mode * self.rows + r], self.im[mode * self.rows + r]);
            }
        }
    }

    fn mode(&self, mode: usize) -> Range<usize> {
        mode * self.rows..(mode + 1) * self.rows
    }

    /// Multiplies a mode by c + i s.
    fn turn(&mut self, mode: usize, (c, s): (T, T)) {
        let range = self.mode(mode);
        for (re, im) in self.re[range.clone()].iter_mut().zip(&mut self.im[range]) {
            (*re, *im) = (c * *re - s * *im, s * *re + c * *im);
        }
    }

    /// Brings the modes `top` and `top + 1` through a matrix: real and imaginary parts of its
    /// elements, row by row.
    fn mix(&mut self, top: usize, matrix: &[T; 8]) {
        let [ar, ai, br, bi, cr, ci, dr, di] = *matrix;
        let (rows, both) = (self.rows, top * self.rows..(top + 2) * self.rows);
        let (re0, re1) = self.re[both.clone()].split_at_mut(rows);
        let (im0, im1) = self.im[both].split_at_mut(rows);
        for ((x0, y0), (x1, y1)) in re0.iter_mut().zip(im0).zip(re1.iter_mut().zip(im1)) {
            let (u, v, w, z) = (*x0, *y0, *x1, *y1);
            *x0 = ar * u - ai * v + br * w - bi * z;
            *y0 = ar * v + ai * u + br * z + bi * w;
            *x1 = cr * u - ci * v + dr * w - di * z;
            *y1 = cr * v + ci * u + dr * z + di * w;
        }
    }

    /// Adds to a mode other fields times a number, and times a complex factor.
    fn add(&mut self, mode: usize, number: T, [c, s]: [T; 2], re: &[T], im: &[T]) {
        let (c, s) = (number * c, number * s);
        let range = self.mode(mode);
        for ((to_re, to_im), (&x, &y)) in
            self.re[range.clone()].iter_mut().zip(&mut self.im[range]).zip(re.iter().zip(im))
        {
            *to_re += c * x - s * y;
            *to_im += c * y + s * x;
        }
    }

    /// Writes the sum of the fields of `top` and `top + 1` times complex numbers a and b: real
    /// parts, and imaginary parts.
    fn sum(&self, top: usize, [ar, ai, br, bi]: [T; 4], (re, im): (&mut Vec<T>, &mut Vec<T>)) {
        let (upper, lower) = (self.mode(top), self.mode(top + 1));
        let fields = self.re[upper.clone()].iter().zip(&self.im[upper]);
        let fields = fields.zip(self.re[lower.clone()].iter().zip(&self.im[lower]));
        let sum = |((&u, &v), (&w, &z)): ((&T, &T), (&T, &T))| {
            (ar * u - ai * v + br * w - bi * z, ar * v + ai * u + br * z + bi * w)
        };
        re.clear();
        im.clear();
        for (real, imaginary) in fields.map(sum) {
            re.push(real);
            im.push(imaginary);
        }
    }
}

/// The sum over rows of Re(conj(g) i E), the change of a loss with the phase of the fields E, for
/// gradients g by these.
fn by_phase<T: Real>((re, im): (&[T], &[T]), (g_re, g_im): (&[T], &[T])) -> T {
    let fields = re.iter().zip(im);
    fields.zip(g_re.iter().zip(g_im)).map(|((&x, &y), (&u, &v))| v * x - u * y).sum()
}

/// Phase `k` of parameter `i`, with what it has drifted by.
fn phase_at<T: Real>(params: &[&[T]], memory: &[&[T]], i: usize, k: usize) -> f64 {
    params[i][k].to_f64() + memory.get(i).map_or(0.0, |walk| walk[k].to_f64())
}

/// The conjugate transpose of a matrix of real and imaginary parts.
fn adjoint<T: Real>([ar, ai, br, bi, cr, ci, dr, di]: [T; 8]) -> [T; 8] {
    [ar, -ai, cr, -ci, br, -bi, dr, -di]
}

impl<T: Real> MZIMesh<T> {
    /// A mesh of modes whose couplers pass this amplitude, and have these angles.
    fn new(modes: usize, transmission: f64, angle: impl Fn(usize) -> f64) -> Self {
        let tops: Vec<usize> =
            (0..modes).flat_map(|column| (column % 2..modes - 1).step_by(2)).collect();
        let coupler = |k: usize| {
            let (sin, cos) = angle(k).sin_cos();
            [T::from_f64(transmission * cos), T::from_f64(transmission * sin)]
        };
        let couplers = (0..2 * tops.len()).map(coupler).collect();
        Self { modes, tops, couplers, transmission, drift: 0.0 }
    }

    /// The matrix of interferometer `k`, as it was prepared.
    fn matrix(&self, prepared: &[T], k: usize) -> [T; 8] {
        std::array::from_fn(|i| prepared[12 * k + i])
    }

    /// By what the fields in front of interferometer `k` are multiplied to make the upper one
    /// behind its phase theta.
    fn within(&self, prepared: &[T], k: usize) -> [T; 4] {
        std::array::from_fn(|i| prepared[12 * k + 8 + i])
    }

    /// Cosine and sine of the phase of a mode behind the mesh, as they were prepared.
    fn phase(&self, prepared: &[T], mode: usize) -> (T, T) {
        let place = 12 * self.tops.len() + 2 * mode;
        (prepared[place], prepared[place + 1])
    }
}

impl<T: Real> Layer<T> for MZIMesh<T> {
    fn name(&self) -> &'static str {
        "MZIMesh"
    }

    fn takes(&self) -> Signal {
        Signal::complex(self.modes)
    }

    fn gives(&self) -> Signal {
        Signal::complex(self.modes)
    }

    fn specs(&self) -> Vec<ParamSpec> {
        parameters(self.modes)
    }

    /// Uniform on the circle.
    fn initialise(&self, random: Philox, group: u32, params: &mut [&mut [T]]) {
        for (phases, group) in params.iter_mut().zip(group..) {
            for (k, phase) in phases.iter_mut().enumerate() {
                *phase = T::from_f64(TAU * random.uniform(k as u64, group));
            }
        }
    }

    fn work(&self) -> usize {
        16 * self.tops.len()
    }

    /// By how much every phase is off.
    fn memory(&self) -> Vec<ParamSpec> {
        if self.drift == 0.0 {
            return Vec::new();
        }
        let off = |own: ParamSpec| ParamSpec { name: format!("{}_drift", own.name), ..own };
        parameters(self.modes).into_iter().map(off).collect()
    }

    fn advance(&self, random: Philox, group: u32, memory: &mut [&mut [T]]) {
        for (walks, group) in memory.iter_mut().zip(group..) {
            for (k, walk) in walks.iter_mut().enumerate() {
                *walk += T::from_f64(self.drift * random.normal(k as u64, group));
            }
        }
    }

    fn is_sinusoidal(&self) -> bool {
        true
    }

    /// The fields that the phases of interferometers act on: in front of it, and within.
    fn tape(&self) -> usize {
        4 * self.tops.len()
    }

    /// For every interferometer its matrix, and what makes the field within; then the phases behind
    /// them.
    fn prepare(
        &self,
        _level: Level,
        params: &[&[T]],
        memory: &[&[T]],
        _derivatives: bool,
        prepared: &mut Vec<T>,
    ) {
        prepared.clear();
        for (k, couplers) in self.couplers.chunks_exact(2).enumerate() {
            let [[c, s], [d, t]] = [couplers[0], couplers[1]].map(|own| own.map(T::to_f64));
            let [theta, phi] = [0, 1].map(|i| Complex::cis(phase_at(params, memory, i, k)));
            let elements = [
                (theta * (d * c) - t * s) * phi,
                Complex::<f64>::i() * (theta * (d * s) + t * c),
                Complex::<f64>::i() * (theta * (t * c) + d * s) * phi,
                -theta * (t * s) + d * c,
                theta * phi * c,
                theta * Complex::i() * s,
            ];
            prepared.extend(
                elements.into_iter().flat_map(|element| [element.re, element.im]).map(T::from_f64),
            );
        }
        for k in 0..self.modes {
            let (sin, cos) = phase_at(params, memory, 2, k).sin_cos();
            prepared.extend([T::from_f64(cos), T::from_f64(sin)]);
        }
    }

    fn forward(
        &self,
        context: LayerContext<'_, T>,
        rows: usize,
        x: &[T],
        y: &mut [T],
        tape: &mut [T],
    ) -> Result<()> {
        let scratch = context.scratch;
        let mut light = Light::of(x, self.modes, scratch);
        let (mut re, mut im) = (scratch.empty(), scratch.empty());
        let length = self.tape();
        for (k, &top) in self.tops.iter().enumerate() {
            poll(16 * rows);
            if !tape.is_empty() {
                light.sum(top, self.within(context.prepared, k), (&mut re, &mut im));
                let upper = light.mode(top);
                let fields = [&light.re[upper.clone()], &light.im[upper], &re, &im];
                for (r, tape) in tape.chunks_exact_mut(length).enumerate() {
                    fields.iter().enumerate().for_each(|(i, field)| tape[4 * k + i] = field[r]);
                }
            }
            light.mix(top, &self.matrix(context.prepared, k));
        }
        for mode in 0..self.modes {
            light.turn(mode, self.phase(context.prepared, mode));
        }
        light.write(y, self.modes);
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
        let scratch = context.scratch;
        let light = Light::of(record.y, self.modes, scratch);
        let mut back = Light::of(dy, self.modes, scratch);
        let (mut re, mut im) = (scratch.empty(), scratch.empty());
        let mut taped: [Lent<'_, Vec<T>>; 4] = std::array::from_fn(|_| scratch.empty());
        for (mode, gradient) in gradient[2].iter_mut().enumerate() {
            let own = light.mode(mode);
            let fields = (&light.re[own.clone()], &light.im[own.clone()]);
            *gradient += by_phase(fields, (&back.re[own.clone()], &back.im[own]));
            let (cos, sin) = self.phase(context.prepared, mode);
            back.turn(mode, (cos, -sin));
        }
        for (k, &top) in self.tops.iter().enumerate().rev() {
            poll(64 * record.rows);
            for (i, taped) in taped.iter_mut().enumerate() {
                taped.clear();
                taped.extend(record.tape[4 * k + i..].iter().step_by(self.tape()));
            }
            let [before_re, before_im, within_re, within_im] = &taped;
            // The conjugate transpose of the second coupler brings gradients to between the
            // couplers.
            let [c, s] = self.couplers[2 * k + 1];
            back.sum(top, [c, T::ZERO, T::ZERO, -s], (&mut re, &mut im));
            gradient[0][k] += by_phase((within_re, within_im), (&re, &im));
            back.mix(top, &adjoint(self.matrix(context.prepared, k)));
            let upper = back.mode(top);
            let errors = (&back.re[upper.clone()], &back.im[upper]);
            gradient[1][k] += by_phase((before_re, before_im), errors);
        }
        if !dx.is_empty() {
            back.write(dx, self.modes);
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
        let scratch = context.scratch;
        let mut light = Light::of(record.x, self.modes, scratch);
        let mut change = Light::of(dx, self.modes, scratch);
        let (mut re, mut im) = (scratch.empty(), scratch.empty());
        for (k, &top) in self.tops.iter().enumerate() {
            poll(64 * record.rows);
            let [c, s] = self.couplers[2 * k + 1];
            let matrix = self.matrix(context.prepared, k);
            // E changes by i E d(phi) in front, and by the second coupler of i E d(theta) between
            // the couplers.
            change.add(
                top,
                along[1][k],
                [T::ZERO, T::ONE],
                &light.re[light.mode(top)],
                &light.im[light.mode(top)],
            );
            light.sum(top, self.within(context.prepared, k), (&mut re, &mut im));
            change.mix(top, &matrix);
            light.mix(top, &matrix);
            let moved = along[0][k];
            change.add(top, moved, [T::ZERO, c], &re, &im);
            change.add(top + 1, moved, [-s, T::ZERO], &re, &im);
        }
        for (mode, &along) in along[2].iter().enumerate() {
            let phase = self.phase(context.prepared, mode);
            light.turn(mode, phase);
            change.turn(mode, phase);
            let own = light.mode(mode);
            change.add(mode, along, [T::ZERO, T::ONE], &light.re[own.clone()], &light.im[own]);
        }
        change.write(dy, self.modes);
        Ok(())
    }

    /// The angles of the couplers are off.
    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        let angle = |k: usize| FRAC_PI_4 * (1.0 + mismatch * random.normal(k as u64, group));
        Box::new(Self { drift: self.drift, ..Self::new(self.modes, self.transmission, angle) })
    }
}
