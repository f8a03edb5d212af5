//! Settling a batch: block-coordinate descent, each row stopping by itself.
//!
//! A batch is cut into tiles of samples, one tile at a time per thread, so that a batch costs two
//! barriers: one after all phases of all tiles, one after the update. The input drive W_1^T x + b_1
//! does not change while a sample settles and is computed once.

use std::ops::Range;

use pnncore_kernels::unit::{HardSigmoid, Logistic, Tanh, Unit, Walled};
use pnncore_kernels::{AVec, Real, avec};
use rayon::prelude::*;

use super::couplings::Couplings;
use super::inputs::Inputs;
use super::tile::{Context, SampleTile};
use super::units::Units;
use super::{Activation, Layered, Physics};
use crate::plan::{Boundary, clamp_towards};
use crate::states::{Outcome, States, Status};
use crate::system::Experiment;

/// Memory for the batches of one call.
#[derive(Debug)]
pub(super) struct Buffers<T> {
    couplings: Couplings<T>,
    /// The magnitudes of the couplings of the last layer, summed over outputs, where the fused
    /// kernel wants them.
    reach: AVec<T>,
    /// By how much, at least, each phase displaces outputs, see [`PhasePlan::reach`].
    displacements: Vec<Option<f64>>,
    units: Units<T>,
    pub(super) inputs: Inputs<T>,
    /// Whether `inputs` are those of the batch that was settled last, transposed, and not handed
    /// out yet.
    pub(super) taken: bool,
    tiles: Vec<SampleTile<T>>,
}

impl<T: Real> Buffers<T> {
    pub(super) fn new(net: &Layered) -> Self {
        Self {
            couplings: Couplings::default(),
            reach: avec![],
            displacements: Vec::new(),
            units: Units::new(net),
            inputs: Inputs::default(),
            taken: false,
            tiles: Vec::new(),
        }
    }
}

pub(super) fn settle<T: Real>(
    net: &Layered,
    experiment: &Experiment<'_, T>,
    states: &mut States<T>,
    buffers: &mut Buffers<T>,
) {
    let Experiment { runtime, params, batch, plan, .. } = *experiment;
    let samples = batch.len();
    let couplings: usize = net.sizes.windows(2).map(|pair| pair[0] * pair[1]).sum();
    // Fewer samples than this per tile would read the couplings of deep networks too often.
    const TILE: usize = 2;
    let parts = runtime.parts(samples * couplings, samples.div_ceil(TILE));
    buffers.couplings.prepare(net, runtime, params);
    let chunk = samples.div_ceil(parts).max(1);
    let parts = samples.div_ceil(chunk);
    if buffers.tiles.len() < parts {
        buffers.tiles.resize_with(parts, SampleTile::default);
    }
    buffers.taken = !plan.phases.is_empty();
    buffers.inputs.take(net, runtime, params, batch, buffers.taken);
    if net.is_resistive() {
        buffers.units.measure(
            net,
            runtime,
            params,
            buffers.inputs.sums(),
            buffers.couplings.back(),
        );
    } else if net.fused_layers() {
        sum_magnitudes(&buffers.couplings.back()[1], net.layout.padded(0), &mut buffers.reach);
    }
    let (phases, stride, complex) = (states.phases(), states.stride(), states.is_complex());
    let softness = buffers.units.output_softness(net);
    buffers.displacements.clear();
    buffers.displacements.extend((0..phases).map(|p| plan.reach(plan.boundary(p), softness)));
    let (couplings, reach, displacements) =
        (&buffers.couplings, &buffers.reach[..], &buffers.displacements[..]);
    let (units, inputs) = (&buffers.units, &buffers.inputs);
    if units.is_driven_away(net, params) {
        states.values.fill(T::ZERO);
        states.outcomes.iter_mut().for_each(|outcome| outcome.status = Status::Unbounded);
        return;
    }
    let context = Context {
        net,
        runtime,
        params,
        batch,
        plan,
        couplings,
        reach,
        units,
        displacements,
        inputs,
        phases,
        stride,
        complex,
    };
    let rows = states.values.par_chunks_mut(chunk * phases * stride);
    let outcomes = states.outcomes.par_chunks_mut(chunk * phases);
    let tiles = rows.zip(outcomes).zip(buffers.tiles[..parts].par_iter_mut()).enumerate();
    runtime.for_each(tiles, |(t, ((states, outcomes), tile))| {
        context.settle_tile(t * chunk, states, outcomes, tile);
    });
}

/// Sums the magnitudes of rows of `width` elements.
fn sum_magnitudes<T: Real>(rows: &[T], width: usize, sums: &mut AVec<T>) {
    sums.clear();
    sums.resize(width, T::ZERO);
    for row in rows.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(sum, w)| *sum += w.abs());
    }
}

impl<T: Real> Context<'_, T> {
    /// Settles samples `first..` of the batch in all phases.
    fn settle_tile(
        &self,
        first: usize,
        states: &mut [T],
        outcomes: &mut [Outcome],
        tile: &mut SampleTile<T>,
    ) {
        let samples = outcomes.len() / self.phases;
        self.prepare(first, samples, tile);
        if self.fused() {
            // The phases of a sample share what is found of it.
            (0..samples).for_each(|i| self.settle_samples(first, i..i + 1, states, outcomes, tile));
        } else {
            self.settle_samples(first, 0..samples, states, outcomes, tile);
        }
    }

    /// Settles some samples of a tile in all phases.
    fn settle_samples(
        &self,
        first: usize,
        samples: Range<usize>,
        states: &mut [T],
        outcomes: &mut [Outcome],
        tile: &mut SampleTile<T>,
    ) {
        tile.narrow.reset();
        self.settle_phases(first, samples.clone(), 0..1, states, outcomes, tile);
        if self.phases == 1 {
            return;
        }
        for i in samples.clone() {
            let outputs = &states[i * self.phases * self.stride..][self.net.layout.outputs()];
            let error = self.output_error(first + i, outputs, &mut tile.target, &mut tile.scratch);
            tile.errors[i] = error.unwrap_or(0.0);
            if error.is_some() {
                let n = tile.scratch.len();
                tile.pulls[i * n..(i + 1) * n].copy_from_slice(&tile.scratch);
            }
            let free = i * self.phases;
            for p in 1..self.phases {
                states.copy_within(
                    free * self.stride..(free + 1) * self.stride,
                    (free + p) * self.stride,
                );
                outcomes[free + p].status = outcomes[free].status;
                if !outcomes[free].status.usable() {
                    continue;
                }
                let row = &mut states[(free + p) * self.stride..(free + p + 1) * self.stride];
                self.apply_boundary(first, free + p, row, &mut outcomes[free + p], tile);
            }
        }
        if self.accelerated() {
            for r in (0..outcomes.len()).filter(|r| r % self.phases > 0) {
                // Clamped outputs do not follow: what the free phase learned is of another energy.
                if !matches!(self.plan.boundary(r % self.phases), Boundary::Clamped(_)) {
                    tile.secants.inherit(r - r % self.phases, r);
                }
            }
        }
        self.settle_phases(first, samples, 1..self.phases, states, outcomes, tile);
    }

    /// Brings row `r` from its free state under the boundary of its phase: what acts on the outputs
    /// moves them at once, as their drive is what they are when free.
    fn apply_boundary(
        &self,
        first: usize,
        r: usize,
        row: &mut [T],
        outcome: &mut Outcome,
        tile: &mut SampleTile<T>,
    ) {
        let known = self.write_pull(first, r, tile);
        let SampleTile { scratch, target, nudge, .. } = tile;
        let outputs = &mut row[self.net.layout.outputs()];
        let stiffness = self.units.output_stiffness(self.net);
        // A number of sweeps that was asked for begins where the free phase ended.
        let leads = self.plan.settling.stop.is_free() && !self.complex;
        match self.plan.boundary(r % self.phases) {
            Boundary::Nudged(beta) => {
                let mass = if known { target.iter().map(|y| y.to_f64()).sum() } else { 1.0 };
                if !self.units.bound_outputs(self.net, self.plan.loss, beta, mass) {
                    outcome.status = Status::Unbounded;
                    row.fill(T::ZERO);
                } else if leads {
                    scratch.copy_from_slice(outputs);
                    scratch.iter_mut().zip(stiffness).for_each(|(drive, &s)| *drive *= s);
                    self.plan.loss.nudge(scratch, stiffness, target, beta.re, outputs, nudge);
                }
            }
            Boundary::Clamped(eta) => clamp_towards(eta, target, outputs),
            Boundary::Forced(strength) if leads => {
                let softness = self.units.nodes(self.net.layers() - 1, stiffness.len()).softness;
                for (k, (o, &g)) in outputs.iter_mut().zip(&*target).enumerate() {
                    *o -= T::from_f64(strength) * g * softness.get(k).copied().unwrap_or(T::ONE);
                }
            }
            Boundary::Forced(_) | Boundary::Free | Boundary::Kicked(_) => {}
        }
    }

    /// The input drives of the tile, and room for everything else.
    fn prepare(&self, first: usize, samples: usize, tile: &mut SampleTile<T>) {
        let net = self.net;
        let stride = net.layout.padded(0);
        tile.drive.resize(samples * stride, T::ZERO);
        for (i, drive) in tile.drive.chunks_exact_mut(stride).enumerate() {
            self.inputs.drive(self.runtime, first + i, net.bias(self.params, 0), drive);
        }
        tile.errors.resize(samples, 0.0);
        tile.pulls.resize(samples * net.layout.outputs().len(), T::ZERO);
        tile.signals.resize_with(net.layers(), Default::default);
        if self.accelerated() {
            let width = (1..net.layers()).step_by(2).map(|l| net.layout.padded(l)).sum();
            tile.secants.reset(samples * self.phases, width);
            tile.last.resize(width, T::ZERO);
        }
        tile.target.resize(net.layout.outputs().len(), T::ZERO);
        tile.scratch.resize(net.layout.outputs().len(), T::ZERO);
    }

    fn settle_phases(
        &self,
        first: usize,
        samples: Range<usize>,
        phases: Range<usize>,
        states: &mut [T],
        outcomes: &mut [Outcome],
        tile: &mut SampleTile<T>,
    ) {
        match self.net.physics {
            Physics::Resistive { .. } => {
                self.settle_units::<Walled>(first, samples, phases, states, outcomes, tile)
            }
            Physics::Hopfield(activation) => match activation {
                Activation::HardSigmoid => {
                    self.settle_units::<HardSigmoid>(
                        first, samples, phases, states, outcomes, tile,
                    );
                }
                Activation::Tanh => {
                    self.settle_units::<Tanh>(first, samples, phases, states, outcomes, tile)
                }
                Activation::Logistic => {
                    self.settle_units::<Logistic>(first, samples, phases, states, outcomes, tile)
                }
            },
        }
    }

    fn settle_units<U: Unit>(
        &self,
        first: usize,
        samples: Range<usize>,
        phases: Range<usize>,
        states: &mut [T],
        outcomes: &mut [Outcome],
        tile: &mut SampleTile<T>,
    ) {
        let mut active = std::mem::take(&mut tile.active);
        active.clear();
        active.extend(
            (samples.start * self.phases..samples.end * self.phases)
                .filter(|r| phases.contains(&(r % self.phases)) && outcomes[*r].status.usable()),
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
}
