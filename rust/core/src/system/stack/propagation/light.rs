//! Gradients that light measures itself (Hughes et al., Optica 5, 864, 2018; Pai et al., Science
//! 380, 398, 2023): errors are sent back through the hardware, and what comes out at the inputs is
//! sent forward, conjugate, together with the signals. Where a phase shifter is, intensities then
//! tell the product of both fields, which is the gradient by its phase.
//!
//! With fields F of signals and A of errors behind a shifter, and an error field Gamma by which the
//! loss changes by 2 Re(Gamma dy), the gradient is 2 Re(i F A). Only fields at the inputs and the
//! outputs, and intensities behind shifters, enter.
//!
//! Where light passes free space, its field can be read on both ways by interferometry instead, at
//! every pixel of a mask, and the product taken of what was read (Zhou et al., Photon. Res. 8, 940,
//! 2020).

use std::ops::Range;

use pnncore_kernels::Real;

use super::back::Backward;
use crate::Result;
use crate::scratch::Scratch;
use crate::system::stack::Stage;
use crate::system::stack::complex::conjugate_rows;
use crate::system::stack::layer::{LayerContext, LightPass, LightProtocol, TapProtocol};

/// Fields and readings of some rows, on a run of layers with monitors.
struct LightReading<'b, 'a, T: Real> {
    backward: &'b Backward<'a, T>,
    protocol: LightProtocol,
    run: Range<usize>,
    /// The inputs of all layers.
    signals: &'b [Vec<T>],
    rows: usize,
    first: usize,
    scratch: &'b Scratch<T>,
}

/// What readings of a pass are multiplied by, row by row; none: they are not taken.
#[derive(Clone, Copy)]
struct Weights<'w, T> {
    intensities: &'w [T],
    fields: &'w [T],
}

impl<'w, T> Weights<'w, T> {
    const NONE: Self = Self { intensities: &[], fields: &[] };

    fn of_intensities(intensities: &'w [T]) -> Self {
        Self { intensities, ..Self::NONE }
    }
}

impl<T: Real> Backward<'_, T> {
    /// Lets a run of layers learn from what its monitors read of `rows` rows, beginning with number
    /// `first`: `signals` are the inputs of all layers, `dy` the errors of the run's outputs,
    /// dL/dRe and dL/dIm, and `dx`, unless it is empty, becomes those of its inputs.
    pub(super) fn read_light(
        &self,
        (protocol, run): (LightProtocol, Range<usize>),
        (rows, first): (usize, usize),
        (signals, dy, dx): (&[Vec<T>], &[T], &mut [T]),
        gradients: &mut [Vec<T>],
        scratch: &Scratch<T>,
    ) -> Result<()> {
        let stages = &self.at.stack.stages()[run.clone()];
        let monitors = |stage: &Stage<T>| stage.hardware().monitors().unwrap_or(0);
        let mut by_phase = scratch.zeros(stages.iter().map(monitors).sum());
        let reading = LightReading { backward: self, protocol, run, signals, rows, first, scratch };
        reading.read(dy, dx, &mut by_phase)?;
        let mut rest = &by_phase[..];
        for stage in stages {
            let (own, behind) = rest.split_at(monitors(stage));
            rest = behind;
            let params = self.at.params_of(stage);
            stage.hardware().learn_phases(&params, own, &mut gradients[stage.params.clone()]);
        }
        Ok(())
    }
}

impl<T: Real> LightReading<'_, '_, T> {
    /// Runs all passes, and adds up the gradient by every phase.
    fn read(&self, dy: &[T], dx: &mut [T], by_phase: &mut [T]) -> Result<()> {
        let (scratch, rows, x) = (self.scratch, self.rows, &self.signals[self.run.start]);
        // All light is sent with a power of one, row by row, whatever the units of signals and the
        // size of errors; what is sent back is Gamma = conj(dL/dRe + i dL/dIm) / 2.
        let mut error = scratch.copy(dy);
        conjugate_rows(&mut error, dy.len() / rows / 2);
        let (mut errors, mut powers) = (scratch.zeros(rows), scratch.zeros(rows));
        let mut arrived = scratch.zeros(rows);
        normalise_rows(&mut error, &mut errors);
        let mut back = scratch.zeros(x.len());
        let weights = Weights { fields: &errors, ..Weights::NONE };
        self.pass((true, 0), &error, &mut back, weights, by_phase)?;
        // What goes on to the inputs are the errors themselves.
        if !dx.is_empty() {
            dx.copy_from_slice(&back);
            let width = dx.len() / rows;
            for (row, &size) in dx.chunks_exact_mut(width).zip(&*errors) {
                row.iter_mut().for_each(|e| *e *= size);
            }
            conjugate_rows(dx, width / 2);
        }
        let stages = &self.backward.at.stack.stages()[self.run.clone()];
        if stages.iter().all(|stage| stage.hardware().reads_fields()) {
            return Ok(());
        }
        let mut signals = scratch.copy(x);
        normalise_rows(&mut signals, &mut powers);
        normalise_rows(&mut back, &mut arrived);
        // The gradient by a phase is 2 Re(i F A) of fields in their own units.
        let size = |r: usize| 0.5 * powers[r].to_f64() * errors[r].to_f64() * arrived[r].to_f64();
        let mut weights = scratch.zeros(rows);
        let weigh = |weights: &mut [T], factor: f64| {
            for (r, weight) in weights.iter_mut().enumerate() {
                *weight = T::from_f64(factor * size(r));
            }
        };
        let (mut sent, mut received) = (scratch.zeros(x.len()), scratch.zeros(dy.len()));
        let mut send = |sign: f64, number: u32, weights: &[T], by_phase: &mut [T]| {
            superpose(&signals, &back, T::from_f64(sign), &mut sent, rows);
            let weights = Weights::of_intensities(weights);
            self.pass((false, number), &sent, &mut received, weights, by_phase)
        };
        if self.protocol == LightProtocol::Backward(TapProtocol::Difference) {
            for (number, sign) in [(1, -1.0), (2, 1.0)] {
                weigh(&mut weights, -0.5 * sign);
                send(sign, number, &weights, by_phase)?;
            }
            return Ok(());
        }
        for (number, sign, weight) in [(1, 0.0, -1.0), (2, -1.0, 1.0)] {
            weigh(&mut weights, weight);
            send(sign, number, &weights, by_phase)?;
        }
        // Errors are read on their way back, before it is known how much of them arrives: a number
        // that their intensities are multiplied by afterwards.
        for (r, weight) in weights.iter_mut().enumerate() {
            let arrived = arrived[r].to_f64();
            let gained = if arrived > 0.0 { arrived.powi(-2) } else { 0.0 };
            *weight = T::from_f64(-size(r) * gained);
        }
        self.pass((true, 0), &error, &mut sent, Weights::of_intensities(&weights), by_phase)
    }

    /// Sends light through all layers of the run, forward or backward.
    fn pass(
        &self,
        (backward, number): (bool, u32),
        sent: &[T],
        received: &mut [T],
        weights: Weights<'_, T>,
        sums: &mut [T],
    ) -> Result<()> {
        let Self { backward: Backward { at, prepared, reversed, .. }, run, rows, .. } = self;
        let mut field = self.scratch.copy(sent);
        let mut place = if backward { sums.len() } else { 0 };
        for step in 0..run.len() {
            let l = if backward { run.end - 1 - step } else { run.start + step };
            let stage = &at.stack.stages()[l];
            let hardware = stage.hardware();
            let params = at.params_of(stage);
            let context = self.backward.context(&params, (l, self.first), self.scratch);
            let kept = if backward { &reversed[l] } else { &prepared[l] };
            let width = if backward { hardware.inputs() } else { hardware.outputs() };
            let mut next = self.scratch.zeros(rows * width);
            let monitors = hardware.monitors().unwrap_or(0);
            place -= if backward { monitors } else { 0 };
            let Weights { intensities, fields } = weights;
            let pass = LightPass {
                backward,
                through_medium: self.protocol == LightProtocol::Forward,
                sent: &field,
                received: &mut next,
                signals: &self.signals[l],
                weights: if hardware.reads_fields() { fields } else { intensities },
                sums: &mut sums[place..place + monitors],
                number,
            };
            place += if backward { 0 } else { monitors };
            hardware.pass_light(LayerContext { prepared: kept, ..context }, *rows, pass)?;
            field = next;
        }
        received.copy_from_slice(&field);
        Ok(())
    }
}

/// Gives each row a power of one, unless it is dark, and writes the norms that they had.
fn normalise_rows<T: Real>(fields: &mut [T], norms: &mut [T]) {
    let width = fields.len() / norms.len();
    for (row, own) in fields.chunks_exact_mut(width).zip(norms) {
        // In units of the largest part: squares of what is tiny or huge are none.
        let largest = row.iter().map(|e| e.to_f64().abs()).fold(0.0, f64::max);
        let scaled = row.iter().map(|e| (e.to_f64() / largest).powi(2)).sum::<f64>().sqrt();
        let norm = if largest > 0.0 { largest * scaled } else { 0.0 };
        if norm > 0.0 {
            row.iter_mut().for_each(|e| *e = T::from_f64(e.to_f64() / norm));
        }
        *own = T::from_f64(norm);
    }
}

/// Writes x + sign i conj(a), row by row.
fn superpose<T: Real>(x: &[T], a: &[T], sign: T, sent: &mut [T], rows: usize) {
    let (width, n) = (x.len() / rows, x.len() / rows / 2);
    let fields = x.chunks_exact(width).zip(a.chunks_exact(width));
    for (sent, (x, a)) in sent.chunks_exact_mut(width).zip(fields) {
        // i conj(u + i v) = v + i u.
        for k in 0..n {
            (sent[k], sent[n + k]) = (x[k] + sign * a[n + k], x[n + k] + sign * a[k]);
        }
    }
}
