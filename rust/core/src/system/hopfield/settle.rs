//! Settling a batch: block-coordinate descent, each row stopping by itself.
//!
//! A batch is cut into tiles of samples, one tile at a time per thread, so that a batch costs two barriers: one after
//! all phases of all tiles, one after the update. The input drive W_1^T x + b_1 does not change while a sample
//! settles and is computed once.

use num_complex::Complex;
use pnncore_kernels::hidden::{MAX_OUTPUTS, hidden_sweep, padded_outputs};
use pnncore_kernels::sparse::{Dense, Panel, SparseRows, accumulate};
use pnncore_kernels::unit::{self, HardSigmoid, Logistic, Tanh, Unit};
use pnncore_kernels::{AVec, Real, avec, transpose};
use rayon::prelude::*;

use super::{Activation, Hopfield};
use crate::batch::Batch;
use crate::lab::Lab;
use crate::params::Params;
use crate::secant::Secants;
use crate::trial::{Boundary, Order, Outcome, OutputUpdate, Plan, Status, Stop, Trial};

/// Memory for the batches of one call.
#[derive(Debug)]
pub(super) struct Buffers<T> {
    /// The transposed couplings of layer l, with rows padded like the layer below; empty for the first layer.
    back: Vec<AVec<T>>,
    tiles: Vec<Tile<T>>,
    /// Tiles of the last batch.
    used: usize,
}

impl<T> Buffers<T> {
    /// The non-zero inputs of the last batch, in pieces.
    pub(super) fn input_lists(&self) -> impl Iterator<Item = &SparseRows<T>> {
        self.tiles[..self.used].iter().map(|tile| &tile.inputs)
    }
}

impl<T> Default for Buffers<T> {
    fn default() -> Self {
        Self { back: Vec::new(), tiles: Vec::new(), used: 0 }
    }
}

/// Memory for the samples that a thread settles together.
#[derive(Debug)]
struct Tile<T> {
    inputs: SparseRows<T>,
    drive: AVec<T>,
    /// The non-zero states of the active rows, by layer; imaginary parts apart.
    lists: Vec<[SparseRows<T>; 2]>,
    /// The drives of the active rows of one layer; imaginary parts apart.
    drives: [AVec<T>; 2],
    panel: Panel<T>,
    target: Vec<T>,
    scratch: Vec<T>,
    /// The output error of each sample at its free state.
    errors: Vec<f64>,
    active: Vec<usize>,
    /// The largest change of each active row in the sweep under way.
    changes: Vec<f64>,
    secants: Secants<T>,
    /// The layers that sweeps end with, of one row, side by side.
    last: AVec<T>,
}

impl<T: Real> Default for Tile<T> {
    fn default() -> Self {
        Self {
            inputs: SparseRows::new(0),
            drive: avec![],
            lists: Vec::new(),
            drives: [avec![], avec![]],
            panel: Panel::default(),
            target: Vec::new(),
            scratch: Vec::new(),
            errors: Vec::new(),
            active: Vec::new(),
            changes: Vec::new(),
            secants: Secants::default(),
            last: avec![],
        }
    }
}

/// What all tiles of a batch share.
struct Context<'a, T> {
    net: &'a Hopfield,
    lab: &'a Lab,
    params: &'a Params<'a, T>,
    batch: &'a Batch<'a, T>,
    plan: &'a Plan,
    back: &'a [AVec<T>],
    phases: usize,
    stride: usize,
    complex: bool,
}

pub(super) fn settle<T: Real>(
    net: &Hopfield,
    lab: &Lab,
    params: &Params<'_, T>,
    batch: &Batch<'_, T>,
    plan: &Plan,
    trial: &mut Trial<T>,
    buffers: &mut Buffers<T>,
) {
    let samples = batch.len();
    let couplings: usize = net.sizes.windows(2).map(|pair| pair[0] * pair[1]).sum();
    // Fewer samples than this per tile would read the couplings of deep networks too often.
    const TILE: usize = 8;
    let parts = lab.parts(samples * couplings, samples.div_ceil(TILE));
    transpose_couplings(net, lab, params, &mut buffers.back);
    let chunk = samples.div_ceil(parts).max(1);
    let parts = samples.div_ceil(chunk);
    if buffers.tiles.len() < parts {
        buffers.tiles.resize_with(parts, Tile::default);
    }
    buffers.used = parts;
    let (phases, stride, complex) = (trial.phases(), trial.stride(), trial.is_complex());
    let context = Context { net, lab, params, batch, plan, back: &buffers.back, phases, stride, complex };
    let states = trial.states.par_chunks_mut(chunk * phases * stride);
    let outcomes = trial.outcomes.par_chunks_mut(chunk * phases);
    let tiles = states.zip(outcomes).zip(buffers.tiles[..parts].par_iter_mut()).enumerate();
    lab.for_each(tiles, |(t, ((states, outcomes), tile))| {
        context.settle_tile(t * chunk, states, outcomes, tile);
    });
}

fn transpose_couplings<T: Real>(net: &Hopfield, lab: &Lab, params: &Params<'_, T>, back: &mut Vec<AVec<T>>) {
    back.resize_with(net.layers(), || avec![]);
    for (l, back) in back.iter_mut().enumerate().skip(1) {
        let (rows, cols) = (net.sizes[l], net.sizes[l + 1]);
        let stride = net.layout.padded(l - 1);
        // Rows past the last stay zero, as `hidden_sweep` wants.
        back.resize(padded_outputs(cols) * stride, T::ZERO);
        let parts = lab.parts(rows * cols, cols);
        let chunk = cols.div_ceil(parts);
        let pieces = back[..cols * stride].par_chunks_mut(chunk * stride).enumerate();
        lab.for_each(pieces, |(c, piece)| {
            let first = c * chunk;
            let span = first..first + piece.len() / stride;
            transpose(net.weights(params, l), rows, cols, span, piece, stride);
        });
    }
}

impl<T: Real> Context<'_, T> {
    /// Settles samples `first..` of the batch in all phases.
    fn settle_tile(&self, first: usize, states: &mut [T], outcomes: &mut [Outcome], tile: &mut Tile<T>) {
        let samples = outcomes.len() / self.phases;
        self.prepare(first, samples, tile);
        self.settle_phases(first, 0..1, states, outcomes, tile);
        if self.phases == 1 {
            return;
        }
        self.measure_errors(first, samples, states, tile);
        for i in 0..samples {
            let free = i * self.phases;
            for p in 1..self.phases {
                states.copy_within(free * self.stride..(free + 1) * self.stride, (free + p) * self.stride);
                outcomes[free + p].status = outcomes[free].status;
                if !outcomes[free].status.usable() {
                    continue;
                }
                let row = &mut states[(free + p) * self.stride..(free + p + 1) * self.stride];
                self.apply_boundary(first + i, self.plan.boundary(p), row, &mut outcomes[free + p], tile);
            }
        }
        if self.accelerated() {
            for r in (0..outcomes.len()).filter(|r| r % self.phases > 0) {
                tile.secants.inherit(r - r % self.phases, r);
            }
        }
        self.settle_phases(first, 1..self.phases, states, outcomes, tile);
    }

    /// Whether one hidden layer and few outputs go through the fused kernel.
    fn fused(&self) -> bool {
        self.net.layers() == 2
            && self.net.sizes[2] <= MAX_OUTPUTS
            && !self.complex
            && self.plan.settling.order == Order::Asynchronous
    }

    /// Whether secants shorten the settling. A given number of sweeps means plain ones.
    fn accelerated(&self) -> bool {
        !self.fused()
            && !self.complex
            && self.plan.settling.order == Order::Asynchronous
            && !matches!(self.plan.settling.stop, Stop::Sweeps(..))
    }

    /// Brings a row from its free state under the boundary of its phase.
    fn apply_boundary(
        &self,
        sample: usize,
        boundary: Boundary,
        row: &mut [T],
        outcome: &mut Outcome,
        tile: &mut Tile<T>,
    ) {
        match boundary {
            Boundary::Nudged(beta) if !self.plan.loss.bounds_output(beta) => {
                outcome.status = Status::Unbounded;
                row.fill(T::ZERO);
            }
            Boundary::Clamped(eta) => {
                self.batch.y.write(sample, &mut tile.target);
                for (o, &y) in row[self.net.layout.outputs()].iter_mut().zip(&tile.target) {
                    *o += T::from_f64(eta) * (y - *o);
                }
            }
            // The force acts on the outputs first; the drive of free outputs is what they are.
            Boundary::Nudged(beta) if !self.complex && !matches!(self.plan.settling.stop, Stop::Sweeps(..)) => {
                self.batch.y.write(sample, &mut tile.target);
                let outputs = &mut row[self.net.layout.outputs()];
                tile.scratch.copy_from_slice(outputs);
                self.plan.loss.nudge(&tile.scratch, &tile.target, beta.re, outputs);
            }
            Boundary::Nudged(_) | Boundary::Free => {}
        }
    }

    /// The input drives of the tile, and room for everything else.
    fn prepare(&self, first: usize, samples: usize, tile: &mut Tile<T>) {
        let net = self.net;
        let (n, stride) = (net.sizes[1], net.layout.padded(0));
        tile.inputs.reset(net.sizes[0]);
        tile.drive.clear();
        tile.drive.resize(samples * stride, T::ZERO);
        for (i, drive) in tile.drive.chunks_exact_mut(stride).enumerate() {
            tile.inputs.push(self.lab.level(), self.batch.x.row(first + i));
            drive[..n].copy_from_slice(net.bias(self.params, 0));
        }
        let m = Dense { data: net.weights(self.params, 0), stride: n };
        accumulate(self.lab.level(), &tile.inputs, 0, samples, m, n, &mut tile.drive, stride, &mut tile.panel);
        tile.lists.resize_with(net.layers(), || [SparseRows::new(0), SparseRows::new(0)]);
        if self.accelerated() {
            let width = (1..net.layers()).step_by(2).map(|l| net.layout.padded(l)).sum();
            tile.secants.reset(samples * self.phases, width);
            tile.last.resize(width, T::ZERO);
        }
        tile.target.resize(net.layout.outputs().len(), T::ZERO);
        tile.scratch.resize(net.layout.outputs().len(), T::ZERO);
    }

    /// The output error of each sample at its free state.
    fn measure_errors(&self, first: usize, samples: usize, states: &[T], tile: &mut Tile<T>) {
        tile.errors.clear();
        for i in 0..samples {
            let outputs = &states[i * self.phases * self.stride..][self.net.layout.outputs()];
            let error = self.output_error(first + i, outputs, &mut tile.target, &mut tile.scratch);
            tile.errors.push(error.unwrap_or(0.0));
        }
    }

    fn output_error(&self, sample: usize, outputs: &[T], target: &mut [T], scratch: &mut [T]) -> Option<f64> {
        self.batch.y.write(sample, target).then(|| self.plan.loss.error(outputs, target, scratch))
    }

    fn settle_phases(
        &self,
        first: usize,
        phases: std::ops::Range<usize>,
        states: &mut [T],
        outcomes: &mut [Outcome],
        tile: &mut Tile<T>,
    ) {
        match self.net.activation {
            Activation::HardSigmoid => self.settle_units::<HardSigmoid>(first, phases, states, outcomes, tile),
            Activation::Tanh => self.settle_units::<Tanh>(first, phases, states, outcomes, tile),
            Activation::Logistic => self.settle_units::<Logistic>(first, phases, states, outcomes, tile),
        }
    }

    fn settle_units<U: Unit>(
        &self,
        first: usize,
        phases: std::ops::Range<usize>,
        states: &mut [T],
        outcomes: &mut [Outcome],
        tile: &mut Tile<T>,
    ) {
        let mut active = std::mem::take(&mut tile.active);
        active.clear();
        active.extend(
            (0..outcomes.len()).filter(|r| phases.contains(&(r % self.phases)) && outcomes[*r].status.usable()),
        );
        if self.fused() {
            for &r in &active {
                let row = &mut states[r * self.stride..(r + 1) * self.stride];
                outcomes[r] = self.settle_row::<U>(first, r, row, tile);
            }
        } else {
            self.settle_together::<U>(first, &mut active, states, outcomes, tile);
        }
        tile.active = active;
    }

    /// Moves the outputs of row `r` from their drive `a`, given their target; returns the largest change.
    fn move_outputs(&self, r: usize, a: &[T], outputs: &mut [T], target: &[T], old: &mut [T]) -> T {
        old.copy_from_slice(outputs);
        match self.plan.boundary(r % self.phases) {
            Boundary::Free => outputs.copy_from_slice(a),
            Boundary::Clamped(_) => return T::ZERO,
            Boundary::Nudged(beta) => match self.plan.settling.output_update {
                OutputUpdate::Exact => self.plan.loss.nudge(a, target, beta.re, outputs),
                OutputUpdate::Explicit => {
                    self.plan.loss.gradient(old, target, outputs);
                    for (o, &a) in outputs.iter_mut().zip(a) {
                        *o = a - T::from_f64(beta.re) * *o;
                    }
                }
            },
        }
        outputs.iter().zip(old).fold(T::ZERO, |m, (&new, &mut old)| m.max_magnitude(new - old))
    }

    /// Whether row `r` is done, and how.
    fn verdict(&self, first: usize, r: usize, outcome: &Outcome, outputs: &[T], tile: &mut Tile<T>) -> Option<Status> {
        let (i, boundary) = (r / self.phases, self.plan.boundary(r % self.phases));
        self.plan.verdict::<T>(boundary, outcome, || match boundary {
            // The output error that matters is the one at the free state, of which this is the best guess.
            Boundary::Free => self.output_error(first + i, outputs, &mut tile.target, &mut tile.scratch),
            _ => tile.errors.get(i).copied(),
        })
    }

    /// One hidden layer and few outputs: row by row, everything in L1.
    fn settle_row<U: Unit>(&self, first: usize, r: usize, row: &mut [T], tile: &mut Tile<T>) -> Outcome {
        let layout = &self.net.layout;
        let stride = layout.padded(0);
        let bias = self.net.bias(self.params, 1);
        let mut sums = [T::ZERO; MAX_OUTPUTS];
        let sums = &mut sums[..layout.outputs().len()];
        let drive = std::mem::replace(&mut tile.drive, avec![]);
        let mut outcome = Outcome::default();
        let wanted = self.batch.y.write(first + r / self.phases, &mut tile.target);
        loop {
            let (hidden, outputs) = row.split_at_mut(stride);
            let outputs = &mut outputs[..sums.len()];
            let own_drive = &drive[r / self.phases * stride..][..stride];
            let change = hidden_sweep::<T, U>(self.lab.level(), own_drive, &self.back[1], outputs, hidden, sums);
            for (sum, &b) in sums.iter_mut().zip(bias) {
                *sum += b;
            }
            let moved = self.move_outputs(r, sums, outputs, &tile.target, &mut tile.scratch);
            let change = change.max_magnitude(moved);
            outcome.sweep(change.to_f64());
            let boundary = self.plan.boundary(r % self.phases);
            let status = self.plan.verdict::<T>(boundary, &outcome, || match boundary {
                Boundary::Free => wanted.then(|| self.plan.loss.error(outputs, &tile.target, &mut tile.scratch)),
                _ => tile.errors.get(r / self.phases).copied(),
            });
            if let Some(status) = status {
                outcome.status = status;
                break;
            }
        }
        tile.drive = drive;
        if outcome.status == Status::Diverged {
            row.fill(T::ZERO);
        }
        outcome
    }

    /// Any number of layers: the active rows of the tile sweep together, and leave as they are done.
    fn settle_together<U: Unit>(
        &self,
        first: usize,
        active: &mut Vec<usize>,
        states: &mut [T],
        outcomes: &mut [Outcome],
        tile: &mut Tile<T>,
    ) {
        let layers = self.net.layers();
        // Layers `group`, `group + groups`, ... move at once, from lists made before any of them moved.
        let groups = match self.plan.settling.order {
            Order::Asynchronous => 2,
            Order::Synchronous => 1,
        };
        let accelerated = self.accelerated();
        for &r in active.iter() {
            outcomes[r] = Outcome::default();
            if accelerated {
                self.gather_last(&states[r * self.stride..], &mut tile.last);
                tile.secants.start(r, &tile.last);
            }
        }
        // Where a nudge has moved the outputs, and they move first in a sweep, the layers that move with them have seen
        // nothing of it yet.
        let mut skip = accelerated && layers % 2 == 1 && active.iter().all(|r| r % self.phases > 0);
        while !active.is_empty() {
            (groups - 1..layers).step_by(groups).for_each(|l| self.list_layer(l, active, states, tile));
            tile.changes.clear();
            tile.changes.resize(active.len(), 0.0);
            for group in 0..groups {
                if group == 0 && std::mem::take(&mut skip) {
                    (0..layers).step_by(2).for_each(|l| self.list_layer(l, active, states, tile));
                    continue;
                }
                for l in (group..layers).step_by(groups) {
                    self.drive_layer(l, active, tile);
                    self.move_layer::<U>(first, l, active, states, tile);
                }
                if group + 1 < groups {
                    (group..layers).step_by(groups).for_each(|l| self.list_layer(l, active, states, tile));
                }
            }
            for (&r, &change) in active.iter().zip(&tile.changes) {
                outcomes[r].sweep(change);
            }
            active.retain(|&r| {
                let row = &mut states[r * self.stride..(r + 1) * self.stride];
                let outputs = self.net.layout.outputs();
                if accelerated {
                    self.gather_last(row, &mut tile.last);
                    let (level, bounded) = (self.lab.level(), self.bounded_last());
                    let ratio = tile.secants.advance(level, r, &mut tile.last, bounded, self.net.activation.range());
                    outcomes[r].ratio = ratio.unwrap_or(0.0);
                }
                let Some(status) = self.verdict(first, r, &outcomes[r], &row[outputs], tile) else {
                    if accelerated {
                        self.scatter_last(&tile.last, row);
                    }
                    return true;
                };
                outcomes[r].status = status;
                if status == Status::Diverged {
                    row.fill(T::ZERO);
                }
                false
            });
        }
    }

    /// How many units of the layers that sweeps end with are hidden, padding included.
    fn bounded_last(&self) -> usize {
        (1..self.net.layers() - 1).step_by(2).map(|l| self.net.layout.padded(l)).sum()
    }

    /// Copies the layers that sweeps end with out of a row.
    fn gather_last(&self, row: &[T], last: &mut [T]) {
        let mut rest = last;
        for l in (1..self.net.layers()).step_by(2) {
            let (part, next) = rest.split_at_mut(self.net.layout.padded(l));
            part.copy_from_slice(&row[self.net.layout.padded_layer(l)]);
            rest = next;
        }
    }

    /// Copies the layers that sweeps end with into a row.
    fn scatter_last(&self, last: &[T], row: &mut [T]) {
        let mut rest = last;
        for l in (1..self.net.layers()).step_by(2) {
            let (part, next) = rest.split_at(self.net.layout.padded(l));
            row[self.net.layout.padded_layer(l)].copy_from_slice(part);
            rest = next;
        }
    }

    /// Lists the non-zeros of layer `l` of the active rows.
    fn list_layer(&self, l: usize, active: &[usize], states: &[T], tile: &mut Tile<T>) {
        let layer = self.net.layout.layer(l);
        for (part, lists) in tile.lists[l].iter_mut().enumerate().take(if self.complex { 2 } else { 1 }) {
            lists.reset(layer.len());
            for &r in active {
                let row = &states[r * self.stride + part * self.net.layout.stride()..];
                lists.push(self.lab.level(), &row[layer.clone()]);
            }
        }
    }

    /// Sums what drives layer `l` of the active rows: biases, the layer before, the layer after.
    fn drive_layer(&self, l: usize, active: &[usize], tile: &mut Tile<T>) {
        let (net, level) = (self.net, self.lab.level());
        let n = net.sizes[l + 1];
        let stride = net.layout.padded(l);
        for part in 0..if self.complex { 2 } else { 1 } {
            let drives = &mut tile.drives[part];
            drives.clear();
            drives.resize(active.len() * stride, T::ZERO);
            if part == 0 {
                for (drive, &r) in drives.chunks_exact_mut(stride).zip(active) {
                    drive[..n].copy_from_slice(match l {
                        0 => &tile.drive[r / self.phases * stride..][..n],
                        _ => net.bias(self.params, l),
                    });
                }
            }
            if l > 0 {
                let m = Dense { data: net.weights(self.params, l), stride: n };
                let lists = &tile.lists[l - 1][part];
                accumulate(level, lists, 0, active.len(), m, n, drives, stride, &mut tile.panel);
            }
            if l + 1 < net.layers() {
                let m = Dense { data: &self.back[l + 1][..], stride };
                let lists = &tile.lists[l + 1][part];
                accumulate(level, lists, 0, active.len(), m, n, drives, stride, &mut tile.panel);
            }
        }
    }

    /// Moves layer `l` of the active rows to the minimum that their drives give.
    fn move_layer<U: Unit>(&self, first: usize, l: usize, active: &[usize], states: &mut [T], tile: &mut Tile<T>) {
        let layer = self.net.layout.layer(l);
        let stride = self.net.layout.padded(l);
        let is_output = l + 1 == self.net.layers();
        let [real, imaginary] = &tile.drives;
        for (j, &r) in active.iter().enumerate() {
            let drive = &real[j * stride..][..layer.len()];
            let row = &mut states[r * self.stride..(r + 1) * self.stride];
            let change = if self.complex {
                let drive = (drive, &imaginary[j * stride..][..layer.len()]);
                let (re, im) = row.split_at_mut(self.net.layout.stride());
                let parts = (&mut re[layer.clone()], &mut im[layer.clone()]);
                self.move_complex(first, r, is_output, drive, parts, &mut tile.target)
            } else if is_output {
                self.batch.y.write(first + r / self.phases, &mut tile.target);
                self.move_outputs(r, drive, &mut row[layer.clone()], &tile.target, &mut tile.scratch)
            } else {
                unit::relax::<T, U>(self.lab.level(), drive, &mut row[layer.clone()])
            };
            tile.changes[j] = tile.changes[j].max_magnitude(change.to_f64());
        }
    }

    /// Moves a complex layer; returns the largest change of a real or imaginary part.
    fn move_complex(
        &self,
        first: usize,
        r: usize,
        is_output: bool,
        drive: (&[T], &[T]),
        state: (&mut [T], &mut [T]),
        target: &mut [T],
    ) -> T {
        let (re, im) = state;
        let (old_re, old_im) = (re.to_vec(), im.to_vec());
        if is_output {
            let beta = match self.plan.boundary(r % self.phases) {
                Boundary::Nudged(beta) => beta,
                Boundary::Free => Complex::ZERO,
                Boundary::Clamped(_) => return T::ZERO,
            };
            self.batch.y.write(first + r / self.phases, target);
            self.plan.loss.nudge_complex(drive, target, beta, (re, im));
        } else {
            for (k, (re, im)) in re.iter_mut().zip(im.iter_mut()).enumerate() {
                let a = Complex::new(drive.0[k].to_f64(), drive.1[k].to_f64());
                let s = match self.net.activation {
                    // Not holomorphic: methods refuse it before it comes to this.
                    Activation::HardSigmoid => Complex::new(a.re.clamp(0.0, 1.0), 0.0),
                    Activation::Tanh => a.tanh(),
                    Activation::Logistic => ((-a).exp() + 1.0).inv(),
                };
                (*re, *im) = (T::from_f64(s.re), T::from_f64(s.im));
            }
        }
        let change =
            |new: &[T], old: &[T]| new.iter().zip(old).fold(T::ZERO, |m, (&new, &old)| m.max_magnitude(new - old));
        change(re, &old_re).max_magnitude(change(im, &old_im))
    }
}
