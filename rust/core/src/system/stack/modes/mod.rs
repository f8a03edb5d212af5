//! Linear scattering networks (Wanjura and Marquardt, Nat. Phys. 20, 1434, 2024): coupled modes
//! whose detunings are the inputs, and whose scattering matrix holds the outputs.
//!
//! S = 1 - i sqrt(k) M^-1 sqrt(k) with M = frequency - detuning - x - J + i (k + loss) / 2. With
//! s = S - 1, all derivatives are products of elements of s:
//! dS/d(detuning_j) = i s_{:,j} s_{j,:} / k_j,
//! dS/dJ_jl = i (s_{:,j} s_{l,:} + s_{:,l} s_{j,:}) / sqrt(k_j k_l),
//! dS/dk_j = (s_{:,j} s_{j,:} + e_j s_{j,:} + s_{:,j} e_j') / 2 k_j.
//! So they are known from elements that are measured, with a probe at every mode.

mod scattering;
mod spec;

pub use spec::CoupledModesSpec;

use pnncore_kernels::gemm::{Dense, Strided, multiply};
use pnncore_kernels::philox::Philox;
use pnncore_kernels::{Level, Real, add_scaled};

use super::GROUPS_OF_SHOTS;
use super::complex::times;
use super::layer::{Answer, ForwardRecord, Layer, LayerContext, tape_or};
use crate::Result;
use crate::params::ParamSpec;
use crate::signal::Signal;
use scattering::Response;
use spec::Elimination;

/// Coupled modes, as their twin or as hardware.
#[derive(Debug, Clone)]
struct Modes {
    spec: CoupledModesSpec,
    order: Elimination,
    parameters: Vec<ParamSpec>,
    /// By what detunings are off.
    offsets: Vec<f64>,
    /// What couplings and decay rates are multiplied by.
    couplings: Vec<f64>,
    decays: Vec<f64>,
}

impl Modes {
    fn new(spec: CoupledModesSpec, order: Elimination, parameters: Vec<ParamSpec>) -> Self {
        let (offsets, decays) = (vec![0.0; spec.modes], vec![1.0; spec.modes]);
        let couplings = vec![1.0; spec.edges.len()];
        Self { spec, order, parameters, offsets, couplings, decays }
    }

    /// The decay rate of a mode.
    fn decay<T: Real>(&self, params: &[&[T]], mode: usize) -> f64 {
        let set = params.get(2).map_or(self.spec.decay, |logs| logs[mode].to_f64().exp());
        self.decays[mode] * set
    }

    /// The modes in the order of their elimination.
    fn in_order(&self) -> impl Iterator<Item = usize> {
        self.order.first.iter().chain(&self.order.core).copied()
    }

    /// Writes what inputs add to detunings, in the order of elimination.
    fn detune<T: Real>(&self, x: &[T], detunings: &mut [T]) {
        x.iter().zip(&self.order.place).for_each(|(&x, &place)| detunings[place] = x);
    }

    /// The numbers of a port's elements.
    fn per_port(&self) -> usize {
        2 * self.spec.modes
    }

    /// The elements between all modes and a port, from those of all ports: real parts, and
    /// imaginary ones.
    fn column<'a, T>(&self, elements: &'a [T], port: usize) -> (&'a [T], &'a [T]) {
        elements[port * self.per_port()..][..self.per_port()].split_at(self.spec.modes)
    }

    /// Errors of a row's outputs as what multiplies i s s: probe (d/dIm + i d/dRe).
    fn errors<'a, T: Real>(&'a self, dy: &'a [T]) -> impl Iterator<Item = ([usize; 2], [T; 2])> {
        let probe = T::from_f64(self.spec.probe);
        let (re, im) = dy.split_at(self.order.outputs.len());
        let parts = re.iter().zip(im).map(move |(&re, &im)| [probe * im, probe * re]);
        self.order.outputs.iter().copied().zip(parts)
    }
}

/// Derivatives of a row by detunings and logarithms of decay rates, in the order of elimination,
/// and what those by couplings are made of.
struct Sums<'a, T> {
    detuning: &'a mut [T],
    log_decay: &'a mut [T],
    /// Rows of mode by mode, whose products, summed over rows, are derivatives by couplings.
    left: &'a mut [T],
    right: &'a mut [T],
}

impl Modes {
    /// How many rows of [`Sums::left`] a sample makes: the real and the imaginary part of a product
    /// of two columns, of both orders of these where they are not the same.
    fn factors(&self) -> usize {
        self.order.outputs.iter().map(|[to, from]| if to == from { 2 } else { 4 }).sum()
    }

    /// Adds the derivatives of a row whose scattering elements are given.
    #[inline(always)]
    fn add_row<T: Real>(&self, (roots, elements): (&[T], &[T]), dy: &[T], sums: &mut Sums<'_, T>) {
        let modes = self.spec.modes;
        let (mut left, mut right) =
            (sums.left.chunks_exact_mut(modes), sums.right.chunks_exact_mut(modes));
        let half = T::from_f64(0.5);
        for ([to, from], error) in self.errors(dy) {
            let (a, b) = (self.column(elements, to), self.column(elements, from));
            for (j, &root) in roots.iter().enumerate() {
                let [re, im] = times(times(error, [a.0[j], a.1[j]]), [b.0[j], b.1[j]]);
                sums.detuning[j] += re / (root * root);
                sums.log_decay[j] += half * im;
            }
            let (at, out) = (self.order.ports[to], self.order.ports[from]);
            let own = half * times(error, [b.0[at], b.1[at]])[1];
            sums.log_decay[at] += own;
            sums.log_decay[out] += own;
            // A product of a column with itself counts for both orders.
            let weight = if to == from { T::from_f64(2.0) } else { T::ONE };
            let orders = [(a, b), (b, a)];
            for (a, b) in &orders[..if to == from { 1 } else { 2 }] {
                let parts = (left.next(), left.next(), right.next(), right.next());
                let (Some(u), Some(v), Some(re), Some(im)) = parts else { return };
                for (j, &root) in roots.iter().enumerate() {
                    let [p, q] = times(error, [a.0[j], a.1[j]]);
                    let scale = T::ONE / root;
                    (u[j], v[j]) = (weight * scale * p, -(weight * scale * q));
                    (re[j], im[j]) = (scale * b.0[j], scale * b.1[j]);
                }
            }
        }
    }

    /// Adds derivatives by couplings, the products of all rows of `left` and `right`.
    fn add_couplings<T: Real>(
        &self,
        context: LayerContext<'_, T>,
        (left, right): (&[T], &[T]),
        gradient: &mut [T],
    ) {
        let (modes, first) = (self.spec.modes, self.order.first.len());
        let (core, inner) = (self.order.core.len(), left.len() / modes);
        if core == 0 {
            return;
        }
        let mut products = context.scratch.zeros(modes * core);
        let left = Strided { data: left, row: 1, column: modes };
        let right = Dense { data: &right[first..], stride: modes };
        multiply(context.level, left, right, (modes, inner, core), &mut products, core);
        let edges = self.order.edges.iter().zip(&self.couplings);
        for (to, (&[i, j], &off)) in gradient.iter_mut().zip(edges) {
            *to += T::from_f64(off) * products[i * core + j - first];
        }
    }
}

impl<T: Real> Layer<T> for Modes {
    fn name(&self) -> &'static str {
        "CoupledModes"
    }

    fn takes(&self) -> Signal {
        Signal::real(self.spec.inputs)
    }

    fn gives(&self) -> Signal {
        Signal::complex(self.order.outputs.len())
    }

    fn specs(&self) -> Vec<ParamSpec> {
        self.parameters.clone()
    }

    /// Detunings within four linewidths, couplings about two of them (Wanjura and Marquardt 2024).
    fn initialise(&self, random: Philox, group: u32, params: &mut [&mut [T]]) {
        let decay = self.spec.decay;
        let drawn = |k: u64, group: u32| 2.0 * random.uniform(k, group) - 1.0;
        for (k, detuning) in (0..).zip(params[0].iter_mut()) {
            *detuning = T::from_f64(4.0 * decay * drawn(k, group));
        }
        for (k, coupling) in (0..).zip(params[1].iter_mut()) {
            *coupling = T::from_f64(2.0 * decay * (1.0 + 0.1 * drawn(k, group + 1)));
        }
        if let Some(logs) = params.get_mut(2) {
            logs.fill(T::from_f64(decay.ln()));
        }
    }

    fn tape(&self) -> usize {
        self.order.ports.len() * self.per_port()
    }

    fn work(&self) -> usize {
        let (first, core, near) = (self.order.first.len(), self.order.core.len(), self.order.near);
        let columns = 4 * self.order.ports.len() * self.spec.modes * core.max(1);
        2 * first * near * near + core.pow(3) + columns
    }

    fn prepare(
        &self,
        _level: Level,
        params: &[&[T]],
        _memory: &[&[T]],
        _derivatives: bool,
        prepared: &mut Vec<T>,
    ) {
        let (first, core, near) = (self.order.first.len(), self.order.core.len(), self.order.near);
        prepared.clear();
        prepared.resize(Response::<T>::len(&self.order), T::ZERO);
        let (diagonal, rest) = prepared.split_at_mut(2 * (first + core));
        let (re, im) = diagonal.split_at_mut(first + core);
        let (roots, rest) = rest.split_at_mut(first + core);
        for (at, mode) in self.in_order().enumerate() {
            let decay = self.decay(params, mode);
            let detuning = params[0][mode].to_f64() + self.offsets[mode];
            re[at] = T::from_f64(self.spec.frequency - detuning);
            im[at] = T::from_f64(0.5 * (decay + self.spec.loss));
            roots[at] = T::from_f64(decay.sqrt());
        }
        let (to_near, rest) = rest.split_at_mut(first * near);
        let (from_near, within) = rest.split_at_mut(first * near);
        let couplings = params[1].iter().zip(&self.couplings);
        for (&[i, j], (&coupling, &off)) in self.order.edges.iter().zip(couplings) {
            let coupling = T::from_f64(off) * coupling;
            let k = j - first;
            if i < first {
                to_near[i * near + k] = coupling;
                from_near[k * first + i] = coupling;
            } else {
                within[(i - first) * core + k] = coupling;
                within[k * core + i - first] = coupling;
            }
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
        let (n, m) = (self.spec.inputs, self.order.outputs.len());
        let own = Layer::<T>::tape(self);
        let response = Response::of(&self.order, context.prepared);
        let mut detunings = context.scratch.zeros(self.spec.modes);
        let mut memory = context.scratch.empty();
        let tape = tape_or(&mut memory, rows * own, tape);
        let probe = T::from_f64(self.spec.probe);
        let rows = x.chunks_exact(n).zip(y.chunks_exact_mut(2 * m));
        for ((x, y), elements) in rows.zip(tape.chunks_exact_mut(own)) {
            self.detune(x, &mut detunings);
            let memory = (context.level, context.scratch);
            response.scatter(memory, &self.order, &detunings, elements);
            let (re, im) = y.split_at_mut(m);
            for (k, &[to, from]) in self.order.outputs.iter().enumerate() {
                let (s_re, s_im) = self.column(elements, from);
                let at = self.order.ports[to];
                let through = if to == from { T::ONE } else { T::ZERO };
                (re[k], im[k]) = (probe * (through + s_re[at]), probe * s_im[at]);
            }
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
        let LayerContext { level, scratch, prepared, .. } = context;
        let (n, m, modes) = (self.spec.inputs, self.order.outputs.len(), self.spec.modes);
        let roots = Response::of(&self.order, prepared).roots;
        let size = self.factors() * modes;
        let (mut left, mut right) =
            (scratch.zeros(record.rows * size), scratch.zeros(record.rows * size));
        let (mut detuning, mut log_decay) = (scratch.zeros(modes), scratch.zeros(modes));
        let (mut all, mut dx) = (scratch.zeros(modes), dx.chunks_exact_mut(n));
        let factors = left.chunks_exact_mut(size).zip(right.chunks_exact_mut(size));
        let rows = record.tape.chunks_exact(Layer::<T>::tape(self)).zip(dy.chunks_exact(2 * m));
        for ((left, right), (elements, dy)) in factors.zip(rows) {
            detuning.fill(T::ZERO);
            let (detuning, log_decay) = (&mut detuning[..], &mut log_decay[..]);
            let mut sums = Sums { detuning, log_decay, left, right };
            level.vectorize(|| self.add_row((roots, elements), dy, &mut sums));
            all.iter_mut().zip(&*sums.detuning).for_each(|(all, &own)| *all += own);
            if let Some(dx) = dx.next() {
                let places = dx.iter_mut().zip(&self.order.place);
                places.for_each(|(dx, &place)| *dx = sums.detuning[place]);
            }
        }
        for (mode, &place) in self.order.place.iter().enumerate() {
            gradient[0][mode] += all[place];
            if let Some(gradient) = gradient.get_mut(2) {
                gradient[mode] += log_decay[place];
            }
        }
        self.add_couplings(context, (&left, &right), &mut gradient[1]);
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
        let (n, m, modes) = (self.spec.inputs, self.order.outputs.len(), self.spec.modes);
        let roots = Response::of(&self.order, context.prepared).roots;
        let half = T::from_f64(0.5);
        let (mut change, mut probe) = (context.scratch.zeros(modes), [T::ZERO; 2]);
        probe[1] = T::from_f64(self.spec.probe);
        let rows = record.tape.chunks_exact(Layer::<T>::tape(self)).zip(dx.chunks_exact(n));
        for ((elements, dx), dy) in rows.zip(dy.chunks_exact_mut(2 * m)) {
            for (mode, &place) in self.order.place.iter().enumerate() {
                let own = dx.get(mode).copied().unwrap_or(T::ZERO);
                change[place] = (along[0][mode] + own) / (roots[place] * roots[place]);
            }
            let (re, im) = dy.split_at_mut(m);
            for (k, &[to, from]) in self.order.outputs.iter().enumerate() {
                let (a, b) = (self.column(elements, to), self.column(elements, from));
                let product = |i: usize, j: usize| times([a.0[i], a.1[i]], [b.0[j], b.1[j]]);
                let mut sum = [T::ZERO; 2];
                let mut add = |weight: T, [re, im]: [T; 2]| {
                    sum[0] += weight * re;
                    sum[1] += weight * im;
                };
                (0..modes).for_each(|j| add(change[j], product(j, j)));
                let edges = self.order.edges.iter().zip(along[1].iter().zip(&self.couplings));
                for (&[i, j], (&along, &off)) in edges {
                    let weight = T::from_f64(off) * along / (roots[i] * roots[j]);
                    add(weight, product(i, j));
                    add(weight, product(j, i));
                }
                [re[k], im[k]] = times(probe, sum);
                let Some(logs) = along.get(2) else { continue };
                let mut decayed = [T::ZERO; 2];
                let mut add = |weight: T, [re, im]: [T; 2]| {
                    decayed[0] += half * weight * re;
                    decayed[1] += half * weight * im;
                };
                for (mode, &j) in self.order.place.iter().enumerate() {
                    add(logs[mode], product(j, j));
                    for port in [to, from] {
                        if self.order.ports[port] == j {
                            let at = self.order.ports[to];
                            add(logs[mode], [b.0[at], b.1[at]]);
                        }
                    }
                }
                re[k] += probe[1] * decayed[0];
                im[k] += probe[1] * decayed[1];
            }
        }
        Ok(())
    }

    fn scattering_read(&self) -> Option<usize> {
        Some(Layer::<T>::tape(self))
    }

    fn prepare_reverse(
        &self,
        level: Level,
        params: &[&[T]],
        memory: &[&[T]],
        prepared: &mut Vec<T>,
    ) {
        self.prepare(level, params, memory, true, prepared);
    }

    fn read_scattering(
        &self,
        context: LayerContext<'_, T>,
        x: &[T],
        elements: &mut [T],
    ) -> Result<()> {
        let rows = x.len() / self.spec.inputs;
        let mut y = context.scratch.zeros(2 * rows * self.order.outputs.len());
        self.forward(context, rows, x, &mut y, elements)?;
        if self.spec.probe_noise > 0.0 {
            let LayerContext { level, layer, first, random, scratch, .. } = context;
            let (own, noise) = (Layer::<T>::tape(self), T::from_f64(self.spec.probe_noise));
            let mut drawn = scratch.zeros(own);
            for (row, elements) in (first as u64..).zip(elements.chunks_exact_mut(own)) {
                // Every row has draws of its own, in whole blocks.
                let (at, group) = (row * own.next_multiple_of(64) as u64, GROUPS_OF_SHOTS);
                random.fill_normal(level, at, group + layer as u32, &mut drawn);
                add_scaled(level, &drawn, noise, elements);
            }
        }
        Ok(())
    }

    /// What is measured takes the place of what the twin makes of the same signals.
    fn backward(
        &self,
        answer: Answer<'_, T>,
        context: LayerContext<'_, T>,
        record: ForwardRecord<'_, T>,
        dy: &[T],
        dx: &mut [T],
        gradient: &mut [Vec<T>],
    ) -> Result<()> {
        let Answer::Physics { hardware, prepared, .. } = answer else {
            return self.vjp(context, record, dy, dx, gradient);
        };
        let mut tape = context.scratch.zeros(record.rows * Layer::<T>::tape(self));
        hardware.read_scattering(LayerContext { prepared, ..context }, record.x, &mut tape)?;
        self.vjp(context, ForwardRecord { tape: &tape, ..record }, dy, dx, gradient)
    }

    /// Detunings are off by that share of a linewidth, couplings and decay rates relatively.
    fn mismatched(&self, mismatch: f64, random: Philox, group: u32) -> Box<dyn Layer<T>> {
        let mut off = self.clone();
        for (k, offset) in (0..).zip(&mut off.offsets) {
            *offset += mismatch * self.spec.decay * random.normal(k, group);
        }
        for (k, factor) in (0..).zip(&mut off.couplings) {
            *factor *= 1.0 + mismatch * random.normal(k, group + 1);
        }
        for (k, factor) in (0..).zip(&mut off.decays) {
            // A mode decays, however far it is off.
            *factor *= (1.0 + mismatch * random.normal(k, group + 2)).abs().max(1e-3);
        }
        Box::new(off)
    }
}
