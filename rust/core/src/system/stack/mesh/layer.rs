//! Light on its way through a mesh, and back.

use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, TAU};

use pnncore_kernels::mesh::{self, Element, NUMBERS, Tap};
use pnncore_kernels::philox::Philox;
use pnncore_kernels::{Level, Real};

use super::layout::Circuit;
use super::light::{Light, Place};
use super::{MZIMesh, Trace, parameters};
use crate::Result;
use crate::params::ParamSpec;
use crate::signal::Signal;
use crate::system::stack::layer::{ForwardRecord, Layer, LayerContext, LightPass, walk};

/// Adds the intensities of fields, row by row, times weights.
fn read_intensities<T: Real>(fields: &[T], weights: &[T], sums: &mut [T]) {
    let n = sums.len();
    for (row, &weight) in fields.chunks_exact(2 * n).zip(weights) {
        for (k, sum) in sums.iter_mut().enumerate() {
            *sum += weight * (row[k] * row[k] + row[n + k] * row[n + k]);
        }
    }
}

impl<T: Real> Layer<T> for MZIMesh {
    fn name(&self) -> &'static str {
        "MZIMesh"
    }

    fn takes(&self) -> Signal {
        Signal::complex(self.circuit.inputs.len())
    }

    fn gives(&self) -> Signal {
        Signal::complex(self.circuit.outputs.len())
    }

    fn specs(&self) -> Vec<ParamSpec> {
        parameters(self.angles.len(), self.circuit.outputs.len())
    }

    /// Phases uniform on the circle; where voltages make them, on the one from a quarter turn on,
    /// for the law is flat at zero.
    fn initialise(&self, random: Philox, group: u32, params: &mut [&mut [T]]) {
        let first = if self.shifters.voltage.is_some() { FRAC_PI_2 } else { 0.0 };
        for (settings, group) in params.iter_mut().zip(group..) {
            for (k, setting) in settings.iter_mut().enumerate() {
                let phase = first + TAU * random.uniform(k as u64, group);
                *setting = T::from_f64(self.shifters.setting(phase));
            }
        }
    }

    fn work(&self) -> usize {
        16 * self.angles.len()
    }

    /// By how much every phase is off.
    fn memory(&self) -> Vec<ParamSpec> {
        if self.drift == 0.0 {
            return Vec::new();
        }
        let off = |own: ParamSpec| ParamSpec { name: format!("{}_drift", own.name), ..own };
        Layer::<T>::specs(self).into_iter().map(off).collect()
    }

    fn advance(&self, random: Philox, group: u32, memory: &mut [&mut [T]]) {
        walk(self.drift, random, group, memory);
    }

    fn is_sinusoidal(&self) -> bool {
        // A quarter of a turn must be a whole number of steps.
        self.shifters.are_direct() && self.shifters.bits != Some(1)
    }

    /// Nothing where fields are told from outputs.
    fn tape(&self) -> usize {
        match self.trace {
            Trace::Back if self.shows_all() => 0,
            _ => self.kept(0).width,
        }
    }

    /// Every interferometer as kernels read it; then the phases behind them.
    fn prepare(
        &self,
        level: Level,
        params: &[&[T]],
        memory: &[&[T]],
        _derivatives: bool,
        prepared: &mut Vec<T>,
    ) {
        self.write_elements(level, params, memory, prepared, |k, own| (k, own));
    }

    fn forward(
        &self,
        context: LayerContext<'_, T>,
        rows: usize,
        x: &[T],
        y: &mut [T],
        tape: &mut [T],
    ) -> Result<()> {
        let Circuit { waveguides, inputs, outputs, .. } = &self.circuit;
        let (level, prepared) = (context.level, context.prepared);
        let mut light = Light::dark(*waveguides, rows, context.scratch);
        light.set(inputs.start, x, Place::all(inputs.len()));
        for (n, segment) in self.segments() {
            if !tape.is_empty() && self.trace != Trace::Back {
                light.write(0, tape, self.kept(n));
            }
            mesh::propagate(level, self.part(prepared, segment), light.padded, &mut light.fields);
        }
        if !tape.is_empty() && self.trace == Trace::Back {
            light.write(0, tape, self.kept(0));
        }
        light.turn(outputs.start, self.ends(prepared), false);
        light.write(outputs.start, y, Place::all(outputs.len()));
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
        let Circuit { waveguides, inputs, outputs, .. } = &self.circuit;
        let LayerContext { level, prepared, scratch, .. } = context;
        let ends = Place::all(outputs.len());
        let mut back = Light::dark(*waveguides, record.rows, scratch);
        back.set(outputs.start, dy, ends);
        back.turn(outputs.start, self.ends(prepared), true);
        let mut by_phase = scratch.zeros(2 * self.angles.len());
        let mut light = Light::dark(*waveguides, record.rows, scratch);
        let padded = light.padded;
        if self.trace == Trace::Back {
            if self.shows_all() {
                light.set(0, record.y, ends);
                light.turn(0, self.ends(prepared), true);
            } else {
                light.set(0, record.tape, self.kept(0));
            }
            let all = self.part(prepared, 0..self.angles.len());
            mesh::retrace(level, all, padded, &mut light.fields, &mut back.fields, &mut by_phase);
        } else {
            for (n, segment) in self.segments().rev() {
                light.set(0, record.tape, self.kept(n));
                let mut kept = scratch.zeros(4 * padded * segment.len());
                let by_phase = &mut by_phase[2 * segment.start..2 * segment.end];
                let part = self.part(prepared, segment);
                mesh::propagate_and_keep(level, part, padded, &mut light.fields, &mut kept);
                mesh::retrace_kept(level, part, padded, &kept, &mut back.fields, by_phase);
            }
        }
        let mut by_end = scratch.zeros(outputs.len());
        for (y, dy) in record.y.chunks_exact(ends.width).zip(dy.chunks_exact(ends.width)) {
            for (k, found) in by_end.iter_mut().enumerate() {
                *found += dy[ends.count + k] * y[k] - dy[k] * y[ends.count + k];
            }
        }
        self.add_gradient(&by_phase, &by_end, gradient, |(i, k), by_phase| {
            self.shifters.pull_back((i, k), context.params[i], by_phase)
        });
        if !dx.is_empty() {
            back.write(inputs.start, dx, Place::all(inputs.len()));
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
        let Circuit { waveguides, inputs, outputs, .. } = &self.circuit;
        let LayerContext { level, prepared, params, scratch, .. } = context;
        let moved = |i: usize, k: usize| {
            T::from_f64(self.shifters.push_forward((i, k), params[i], along[i]))
        };
        let mut turns = scratch.empty();
        turns.extend((0..self.angles.len()).flat_map(|k| [moved(1, k), moved(0, k)]));
        let (mut light, mut change) = (
            Light::dark(*waveguides, record.rows, scratch),
            Light::dark(*waveguides, record.rows, scratch),
        );
        light.set(inputs.start, record.x, Place::all(inputs.len()));
        change.set(inputs.start, dx, Place::all(inputs.len()));
        let all = self.part(prepared, 0..self.angles.len());
        let padded = light.padded;
        mesh::propagate_change(level, all, padded, &mut light.fields, &mut change.fields, &turns);
        for (n, k) in outputs.clone().enumerate() {
            let turn = moved(2, n);
            let ((re, im), (to_re, to_im)) = (light.waveguide(k), change.waveguide(k));
            to_re.iter_mut().zip(im).for_each(|(to, &mut im)| *to -= turn * im);
            to_im.iter_mut().zip(re).for_each(|(to, &mut re)| *to += turn * re);
        }
        change.turn(outputs.start, self.ends(prepared), false);
        change.write(outputs.start, dy, Place::all(outputs.len()));
        Ok(())
    }

    /// Light that comes from the other side meets transposed matrices; what monitors of second
    /// shifters read is in the upper arm, behind the second coupler on this way.
    fn prepare_reverse(
        &self,
        level: Level,
        params: &[&[T]],
        memory: &[&[T]],
        prepared: &mut Vec<T>,
    ) {
        let last = self.angles.len().saturating_sub(1);
        self.write_elements(level, params, memory, prepared, |k, own| {
            let ([a, b, c, d], coupler) = (own.matrix, own.coupler);
            let arm = [[coupler[0], 0.0], [0.0, coupler[1]]];
            (last - k, Element { matrix: [a, c, b, d], arm, ..own })
        });
    }

    fn is_linear_in_fields(&self) -> bool {
        true
    }

    /// One behind every shifter: two to an interferometer, the first one's first, and those at the
    /// outputs.
    fn monitors(&self) -> Option<usize> {
        Some(2 * self.angles.len() + self.circuit.outputs.len())
    }

    fn pass_light(
        &self,
        context: LayerContext<'_, T>,
        rows: usize,
        pass: LightPass<'_, T>,
    ) -> Result<()> {
        let Circuit { waveguides, inputs, outputs, pairs, .. } = &self.circuit;
        let LayerContext { level, prepared, scratch, .. } = context;
        let LightPass { backward, sent, received, weights, sums, number, .. } = pass;
        let (from, to) = if backward { (outputs, inputs) } else { (inputs, outputs) };
        let elements = &prepared[..NUMBERS * pairs.len()];
        let waveguides_met = if backward { &self.backward_pairs } else { pairs };
        let mesh = mesh::Mesh { waveguides: waveguides_met, elements };
        let mut light = Light::dark(*waveguides, rows, scratch);
        light.set(from.start, sent, Place::all(from.len()));
        if backward {
            light.turn(outputs.start, self.ends(prepared), false);
        }
        let (padded, reads) = (light.padded, !weights.is_empty());
        if reads {
            let mut padded_weights = scratch.zeros(padded);
            padded_weights[..rows].copy_from_slice(weights);
            let mut found = scratch.zeros(2 * pairs.len());
            let tap = if backward { Tap::Behind } else { Tap::InFront };
            mesh::propagate_and_read(
                level,
                mesh,
                padded,
                &mut light.fields,
                tap,
                &padded_weights,
                &mut found,
            );
            let found = found.chunks_exact(2);
            for (k, found) in found.enumerate() {
                let k = if backward { pairs.len() - 1 - k } else { k };
                sums[2 * k] += found[0];
                sums[2 * k + 1] += found[1];
            }
        } else {
            mesh::propagate(level, mesh, padded, &mut light.fields);
        }
        if !backward {
            light.turn(outputs.start, self.ends(prepared), false);
        }
        light.write(to.start, received, Place::all(to.len()));
        if reads {
            let ends = &mut sums[2 * pairs.len()..];
            let shown: &[T] = if backward { sent } else { received };
            read_intensities(shown, weights, ends);
            self.add_tap_noise(context, (number, sent), weights, sums);
        }
        Ok(())
    }

    /// Phases are turned by the law of their heaters; of crosstalk nobody knows.
    fn learn_phases(&self, params: &[&[T]], by_phase: &[T], gradient: &mut [Vec<T>]) {
        let (inner, ends) = by_phase.split_at(2 * self.angles.len());
        self.add_gradient(inner, ends, gradient, |(i, k), by_phase| {
            self.shifters.slope(params[i][k].to_f64()) * by_phase(k)
        });
    }

    /// The angles of the couplers are off, and so is what they lose.
    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        let mut off = self.clone();
        off.move_couplers(|k| FRAC_PI_4 * mismatch * random.normal(k, group));
        for (k, transmission) in (0..).zip(&mut off.transmission) {
            // A loss of less than nothing would be a gain.
            let factor = (1.0 + mismatch * random.normal(k, group + 1)).max(0.0);
            *transmission = transmission.powf(factor);
        }
        off.trace = off.choose_trace();
        Box::new(off.with_couplers())
    }
}
