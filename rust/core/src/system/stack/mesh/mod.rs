//! Meshes of Mach-Zehnder interferometers.
//!
//! An interferometer mixes two waveguides by T = B diag(e^{i theta}, 1) B diag(e^{i phi}, 1), with
//! couplers B = [[cos v, i sin v], [i sin v, cos v]] of angle v = pi / 4. Light meets them in the
//! order of a [`MeshLayout`], and at last a phase gamma in each mode that comes out.
//!
//! An interferometer with a loss that is the same in both arms is a unitary matrix times a number.
//! So fields are not kept on their way, but retraced from what comes out, as long as not too much
//! of them is lost; otherwise they are kept at some columns and passed again from there.

mod layer;
mod layout;
mod light;
mod program;
mod shifters;
mod spec;

pub use layout::{Circuit, MeshLayout};
pub use program::{MeshTarget, Square};
pub use spec::MZIMeshSpec;

use std::ops::Range;

use num_complex::Complex;
use pnncore_kernels::mesh::{self, Element, NUMBERS};
use pnncore_kernels::trig::sin_cos;
use pnncore_kernels::{Level, Real};

use super::GROUPS_OF_TAPS;
use super::layer::{LayerContext, vector};
use crate::params::ParamSpec;
use light::Place;
use shifters::{NAMES, Shifters};

/// Names and shapes of the phases of a mesh.
fn parameters(interferometers: usize, outputs: usize) -> Vec<ParamSpec> {
    let sizes = [interferometers, interferometers, outputs];
    NAMES.into_iter().zip(sizes).flat_map(|(name, len)| vector(name, len)).collect()
}

/// How derivatives get the fields that light had on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trace {
    /// From those that came out.
    Back,
    /// From those that were kept in front of the first interferometers of some columns.
    Kept(Vec<usize>),
}

/// A mesh, with the couplers and the shifters that it has.
#[derive(Debug, Clone)]
struct MZIMesh {
    circuit: Circuit,
    /// The angles of the couplers, two to an interferometer.
    angles: Vec<[f64; 2]>,
    /// The amplitudes that pass them.
    transmission: Vec<f64>,
    /// c and s of the couplers [[c, i s], [i s, c]]: c^2 + s^2 is the power that passes.
    couplers: Vec<[f64; 2]>,
    shifters: Shifters,
    /// The standard deviation of a step of the random walk of every phase.
    drift: f64,
    /// What a monitor reads is off by, in mean powers that are sent into a mode.
    tap_noise: f64,
    trace: Trace,
    /// The pairs of the circuit as light meets them that comes from the other side.
    backward_pairs: Vec<[u32; 2]>,
}

impl MZIMesh {
    /// A mesh that loses nothing.
    fn new(circuit: Circuit, angles: Vec<[f64; 2]>, shifters: Shifters) -> Self {
        let transmission = vec![1.0; 2 * angles.len()];
        let trace = Trace::Back;
        let mesh = Self {
            backward_pairs: circuit.pairs.iter().rev().copied().collect(),
            circuit,
            angles,
            transmission,
            couplers: Vec::new(),
            shifters,
            drift: 0.0,
            tap_noise: 0.0,
            trace,
        };
        mesh.with_couplers()
    }

    /// The mesh with the couplers that angles and amplitudes make.
    fn with_couplers(mut self) -> Self {
        let both = self.angles.as_flattened().iter().zip(&self.transmission);
        self.couplers = both.map(|(angle, t)| [t * angle.cos(), t * angle.sin()]).collect();
        self
    }

    /// How many shifters there are of each kind.
    fn sizes(&self) -> [usize; 3] {
        [self.angles.len(), self.angles.len(), self.circuit.outputs.len()]
    }

    /// Adds to the angles of couplers, given their number.
    fn move_couplers(&mut self, by: impl Fn(u64) -> f64) {
        for (k, angle) in (0..).zip(self.angles.as_flattened_mut()) {
            *angle += by(k);
        }
    }

    /// The share of power that interferometer `k` passes.
    fn power(&self, k: usize) -> f64 {
        (self.transmission[2 * k] * self.transmission[2 * k + 1]).powi(2)
    }

    /// How fields are traced: from what comes out while no path loses more than this share of
    /// amplitude, for rounding errors grow by as much.
    fn choose_trace(&self) -> Trace {
        const LEAST: f64 = 0.1;
        let mut passed = vec![1.0; self.circuit.waveguides];
        for (k, &[a, b]) in self.circuit.pairs.iter().enumerate() {
            let (a, b) = (a as usize, b as usize);
            let least = f64::min(passed[a], passed[b]) * self.power(k).sqrt();
            (passed[a], passed[b]) = (least, least);
        }
        if passed.iter().all(|&amplitude| amplitude >= LEAST) {
            return Trace::Back;
        }
        let starts: Vec<usize> = self.circuit.columns().map(|column| column.start).collect();
        let apart = (starts.len() as f64).sqrt().ceil() as usize;
        Trace::Kept(starts.into_iter().step_by(apart).collect())
    }

    /// The matrix of interferometer `k` at these phases, and what else derivatives need.
    fn element(&self, k: usize, theta: Complex<f64>, phi: Complex<f64>) -> Element {
        let ([c, s], [d, t]) = (self.couplers[2 * k], self.couplers[2 * k + 1]);
        let i = Complex::<f64>::i();
        let parts = |z: Complex<f64>| [z.re, z.im];
        Element {
            matrix: [
                (theta * (d * c) - t * s) * phi,
                i * (theta * (d * s) + t * c),
                i * (theta * (t * c) + d * s) * phi,
                -theta * (t * s) + d * c,
            ]
            .map(parts),
            arm: [theta * phi * c, theta * i * s].map(parts),
            coupler: [d, t],
            power: self.power(k),
        }
    }

    /// Hands on the cosines and sines of the phases of interferometers, second shifters and first
    /// ones, and then of those behind, in lots.
    fn for_each_phase<T: Real>(
        &self,
        level: Level,
        params: &[&[T]],
        memory: &[&[T]],
        mut element: impl FnMut(usize, Complex<f64>, Complex<f64>),
        mut end: impl FnMut(Complex<f64>),
    ) {
        const LOT: usize = 64;
        let circle = |i: usize, range: Range<usize>| {
            let (mut phases, mut sin, mut cos) = ([0.0; LOT], [0.0; LOT], [0.0; LOT]);
            for (phase, k) in phases.iter_mut().zip(range) {
                let drift = memory.get(i).copied();
                *phase = self.shifters.phase((i, k), params[i], drift);
            }
            sin_cos(level, &phases, &mut sin, &mut cos);
            std::array::from_fn::<_, LOT, _>(|n| Complex::new(cos[n], sin[n]))
        };
        let [count, _, ends] = self.sizes();
        for first in (0..count).step_by(LOT) {
            let range = first..count.min(first + LOT);
            let (theta, phi) = (circle(0, range.clone()), circle(1, range.clone()));
            range.zip(theta).zip(phi).for_each(|((k, theta), phi)| element(k, theta, phi));
        }
        for first in (0..ends).step_by(LOT) {
            let range = first..ends.min(first + LOT);
            circle(2, range.clone()).into_iter().take(range.len()).for_each(&mut end);
        }
    }

    /// Writes all interferometers, each to the place and as the element that `placed` makes of its
    /// number and of what it is, and then cosines and sines of the phases behind them.
    fn write_elements<T: Real>(
        &self,
        level: Level,
        params: &[&[T]],
        memory: &[&[T]],
        prepared: &mut Vec<T>,
        placed: impl Fn(usize, Element) -> (usize, Element),
    ) {
        let count = NUMBERS * self.angles.len();
        prepared.clear();
        prepared.resize(count + 2 * self.circuit.outputs.len(), T::ZERO);
        let (elements, ends) = prepared.split_at_mut(count);
        let mut ends = ends.chunks_exact_mut(2);
        let write = |k, theta, phi| {
            let (place, element) = placed(k, self.element(k, theta, phi));
            element.write(&mut elements[NUMBERS * place..NUMBERS * (place + 1)]);
        };
        self.for_each_phase(level, params, memory, write, |end| {
            if let Some([cos, sin]) = ends.next() {
                (*cos, *sin) = (T::from_f64(end.re), T::from_f64(end.im));
            }
        });
    }

    /// Adds noise to what monitors read in a pass of `sent` fields, as sums over rows with these
    /// weights have it.
    fn add_tap_noise<T: Real>(
        &self,
        context: LayerContext<'_, T>,
        (number, sent): (u32, &[T]),
        weights: &[T],
        sums: &mut [T],
    ) {
        if self.tap_noise == 0.0 {
            return;
        }
        let width = sent.len() / weights.len();
        let variance = |(row, weight): (&[T], &T)| {
            let power: f64 = row.iter().map(|e| e.to_f64().powi(2)).sum();
            (weight.to_f64() * power / (width / 2) as f64).powi(2)
        };
        let rows = sent.chunks_exact(width).zip(weights);
        let deviation = self.tap_noise * rows.map(variance).sum::<f64>().sqrt();
        let group = GROUPS_OF_TAPS + 4 * context.layer as u32 + number;
        for (k, sum) in (context.first as u64 * sums.len() as u64..).zip(sums) {
            *sum += T::from_f64(deviation * context.random.normal(k, group));
        }
    }

    /// The interferometers of a range, as they were prepared.
    fn part<'a, T>(&'a self, prepared: &'a [T], range: Range<usize>) -> mesh::Mesh<'a, T> {
        mesh::Mesh {
            waveguides: &self.circuit.pairs[range.clone()],
            elements: &prepared[NUMBERS * range.start..NUMBERS * range.end],
        }
    }

    /// Cosines and sines of the phases behind the mesh, as they were prepared.
    fn ends<'a, T>(&self, prepared: &'a [T]) -> &'a [T] {
        &prepared[NUMBERS * self.angles.len()..]
    }

    /// What light passes between the places where it is kept.
    fn segments(&self) -> impl DoubleEndedIterator<Item = (usize, Range<usize>)> + use<'_> {
        const FIRST: &[usize] = &[0];
        let (starts, all) = (self.starts().unwrap_or(FIRST), self.angles.len());
        let end = move |n: usize| starts.get(n + 1).copied().unwrap_or(all);
        (0..starts.len()).map(move |n| (n, starts[n]..end(n)))
    }

    /// Where fields are kept; `None`: nowhere.
    fn starts(&self) -> Option<&[usize]> {
        match &self.trace {
            Trace::Back => None,
            Trace::Kept(starts) => Some(starts),
        }
    }

    /// Adds what a loss changes by with phases, of interferometers two each, the first shifter's
    /// first, and of the ends, to its gradient by settings, which `convert` tells of each.
    fn add_gradient<T: Real>(
        &self,
        inner: &[T],
        ends: &[T],
        gradient: &mut [Vec<T>],
        convert: impl Fn((usize, usize), &dyn Fn(usize) -> f64) -> f64,
    ) {
        let of: [&dyn Fn(usize) -> f64; 3] =
            [&|k| inner[2 * k + 1].to_f64(), &|k| inner[2 * k].to_f64(), &|k| ends[k].to_f64()];
        for (i, (gradient, by_phase)) in gradient.iter_mut().zip(of).enumerate() {
            for (k, to) in gradient.iter_mut().enumerate() {
                *to += T::from_f64(convert((i, k), by_phase));
            }
        }
    }

    /// Where segment `n` keeps the fields of a row on the tape.
    fn kept(&self, n: usize) -> Place {
        let count = self.circuit.waveguides;
        let segments = self.starts().map_or(1, <[usize]>::len);
        Place { width: 2 * count * segments, first: 2 * count * n, count }
    }

    /// Whether all light that there is comes out.
    fn shows_all(&self) -> bool {
        self.circuit.outputs.len() == self.circuit.waveguides
    }
}
