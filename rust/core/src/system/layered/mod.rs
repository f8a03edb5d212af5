//! Networks of layers: what [Hopfield networks](super::hopfield) and [resistive
//! networks](super::resistive) share.
//!
//! E = sum_l Phi_l(s_l) - sum_l s_{l-1}^T W_l s_l - sum_l b_l^T s_l, with the inputs s_0 clamped
//! and outputs linear. Given its neighbours, each unit has an exact minimiser: a = W_l^T s_{l-1} +
//! W_{l+1} s_{l+1} + b_l goes through an activation (Hopfield), or is divided by the unit's
//! stiffness and kept between walls (resistive: the stiffness of a node is the sum of its
//! conductances).

mod couplings;
mod energy;
mod exact;
mod extrapolated;
mod fused;
mod inputs;
mod local;
mod narrow;
mod settle;
mod tile;
mod together;
mod units;

use std::ops::Range;

use num_complex::Complex;
use pnncore_kernels::Real;
use pnncore_kernels::hidden::MAX_OUTPUTS;
use pnncore_kernels::philox::{Philox, Purpose};
use pnncore_kernels::watch::poll;
use serde::Deserialize;

use crate::device::{CellArrays, Device, Store, TileSpec};
use crate::loss::Loss;
use crate::params::{ParamSpec, Params};
use crate::precision::Precision;
use crate::runtime::Runtime;
use crate::signal::Signal;
use crate::states::{Layout, States};
use crate::system::{
    Abilities, Dynamics, Experiment, Reading, StateDerivatives, System, Workspace, read_at_end,
};
use crate::update::LocalUpdate;
use crate::{Error, Result, memory};

/// The activation function of hidden units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// The box [0, 1].
    HardSigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// The logistic function.
    Logistic,
}

impl Activation {
    /// The interval of its states.
    fn range(self) -> (f64, f64) {
        match self {
            Self::HardSigmoid | Self::Logistic => (0.0, 1.0),
            Self::Tanh => (-1.0, 1.0),
        }
    }
}

/// What the units and couplings of a network are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Physics {
    Hopfield(Activation),
    Resistive {
        /// Inputs are pairs of voltage sources, at plus and minus this times x.
        input_gain: f64,
    },
}

/// What a visit of one layer of one row takes beside its products, in multiply-adds: narrow layers
/// cost little else.
const LAYER_VISIT: usize = 64;

/// A layered network: [`Layered::hopfield`] or [`Layered::resistive`].
#[derive(Debug, Clone)]
pub struct Layered {
    physics: Physics,
    /// Inputs (as the first couplings see them) first, outputs last.
    sizes: Vec<usize>,
    specs: Vec<ParamSpec>,
    layout: Layout,
    device: Device,
    /// The cells that couplings are stored in, where there are any.
    cells: Option<CellArrays>,
    /// What couplings and states are rounded to where they are multiplied.
    precision: Precision,
}

impl Layered {
    /// A network whose couplings are called `coupling` and the number of their layer.
    pub(super) fn new(
        physics: Physics,
        sizes: &[usize],
        coupling: &str,
        device: Device,
    ) -> Result<Self> {
        if sizes.len() < 2 || sizes.contains(&0) {
            return Err(Error::Config(format!(
                "layers must be at least two positive sizes, inputs first and outputs last, got \
                 {sizes:?}"
            )));
        }
        let mut sizes = sizes.to_vec();
        if matches!(physics, Physics::Resistive { .. }) {
            sizes[0] = sizes[0].saturating_mul(2);
        }
        let couplings =
            sizes.windows(2).fold(0u128, |all, pair| all.saturating_add(memory::product(pair)));
        memory::check(couplings.saturating_mul(size_of::<f32>() as u128), || {
            format!("a network of {sizes:?} units")
        })?;
        let mut specs = Vec::new();
        for (l, pair) in sizes.windows(2).enumerate() {
            specs.push(ParamSpec { name: format!("{coupling}{}", l + 1), shape: pair.to_vec() });
            specs.push(ParamSpec { name: format!("b{}", l + 1), shape: vec![pair[1]] });
        }
        let layout = Layout::new(&sizes[1..]);
        let precision = Precision::Full;
        Ok(Self { physics, sizes, specs, layout, device, cells: None, precision })
    }

    /// The same network, whose couplings and states are rounded where they are multiplied: a =
    /// W_l^T s_{l-1} + W_{l+1} s_{l+1} + b_l is of rounded W and s, with sums in the precision of
    /// the states. States themselves are not rounded, nor is what the local rule reads.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Stores couplings in arrays of cells, drawn from `seed`.
    ///
    /// # Errors
    /// As [`TileSpec::check`].
    pub fn with_cells(self, spec: &TileSpec, seed: u64) -> Result<Self> {
        Ok(Self { cells: Some(CellArrays::of_matrices(spec, &self.specs, seed)?), ..self })
    }

    /// What a sweep of one row takes, in multiply-adds.
    fn sweep_work(&self) -> usize {
        self.sizes.windows(2).map(|pair| pair[0] * pair[1] + LAYER_VISIT).sum()
    }

    /// Whether inputs come as pairs of sources.
    fn is_resistive(&self) -> bool {
        matches!(self.physics, Physics::Resistive { .. })
    }

    /// Calls `take` with the inputs `span` as the first couplings see them.
    fn with_inputs<T: Real>(
        &self,
        x: &[T],
        span: Range<usize>,
        memory: &mut Vec<T>,
        take: impl FnOnce(&[T]),
    ) {
        let Physics::Resistive { input_gain } = self.physics else { return take(&x[span]) };
        let gain = T::from_f64(input_gain);
        memory.clear();
        let n = x.len();
        memory.extend(x[span.start.min(n)..span.end.min(n)].iter().map(|&x| gain * x));
        memory.extend(x[span.start.max(n) - n..span.end.max(n) - n].iter().map(|&x| -gain * x));
        take(memory);
    }

    /// The interval that unit `j` of layer `l` may take.
    fn unit_interval(&self, l: usize, j: usize) -> (f64, f64) {
        let (hidden, first_half) = (l + 1 < self.layers(), 2 * j < self.sizes[l + 1]);
        match self.physics {
            Physics::Hopfield(Activation::HardSigmoid) if hidden => (0.0, 1.0),
            Physics::Resistive { .. } if hidden && first_half => (0.0, f64::INFINITY),
            Physics::Resistive { .. } if hidden => (f64::NEG_INFINITY, 0.0),
            _ => (f64::NEG_INFINITY, f64::INFINITY),
        }
    }

    /// The interval of all hidden units of a Hopfield network.
    fn range(&self) -> (f64, f64) {
        match self.physics {
            Physics::Hopfield(activation) => activation.range(),
            Physics::Resistive { .. } => (f64::NEG_INFINITY, f64::INFINITY),
        }
    }

    /// The number of layers that have states: all but the inputs.
    fn layers(&self) -> usize {
        self.sizes.len() - 1
    }

    /// Whether it has one hidden layer and so few outputs that the fused kernel takes them.
    fn fused_layers(&self) -> bool {
        self.layers() == 2 && self.sizes[2] <= MAX_OUTPUTS && !self.precision.rounds()
    }

    fn weights<'a, T: Real>(&self, params: &'a Params<'_, T>, layer: usize) -> &'a [T] {
        params.get(2 * layer)
    }

    fn bias<'a, T: Real>(&self, params: &'a Params<'_, T>, layer: usize) -> &'a [T] {
        params.get(2 * layer + 1)
    }
}

fn buffers<T: Real>(workspace: &mut Workspace) -> Result<&mut settle::Buffers<T>> {
    workspace
        .downcast_mut()
        .ok_or_else(|| Error::Config("the workspace belongs to another system".into()))
}

impl<T: Real> System<T> for Layered {
    fn name(&self) -> &str {
        match self.physics {
            Physics::Hopfield(_) => "Hopfield",
            Physics::Resistive { .. } => "DeepResistive",
        }
    }

    fn takes(&self) -> Signal {
        Signal::real(if self.is_resistive() { self.sizes[0] / 2 } else { self.sizes[0] })
    }

    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    fn store(&self, parameter: usize) -> Store<'_, T> {
        if !parameter.is_multiple_of(2) {
            return Store::IDEAL;
        }
        let cells = self.cells.as_ref().and_then(|cells| T::pick(cells)[parameter].as_ref());
        Store { cells, ..Store::of(&self.device) }
    }

    fn workspace(&self) -> Workspace {
        Box::new(settle::Buffers::<T>::new(self))
    }

    /// Writes initial parameters: couplings uniform in +-gain/sqrt(fan-in), the magnitudes of such
    /// numbers where they are conductances, as the device stores them, and within the ranges of
    /// cells; biases zero.
    fn initialise(&self, runtime: &Runtime, seed: u64, gain: f64, params: &mut [&mut [T]]) {
        let random = Philox::new(seed, Purpose::Initialise);
        for (i, (spec, values)) in self.specs.iter().zip(params).enumerate() {
            if i % 2 == 1 {
                values.fill(T::ZERO);
                continue;
            }
            let bound = gain / (spec.shape[0] as f64).sqrt();
            for (k, value) in values.iter_mut().enumerate() {
                poll(16);
                let drawn = bound * (2.0 * random.uniform(k as u64, i as u32) - 1.0);
                *value = T::from_f64(if self.is_resistive() { drawn.abs() } else { drawn });
            }
            self.device.write(runtime, i, 0, values);
            System::<T>::store(self, i).keep_within(values);
        }
    }

    fn as_dynamics(&self) -> Option<&dyn Dynamics<T>> {
        Some(self)
    }

    fn as_state_derivatives(&self) -> Option<&dyn StateDerivatives<T>> {
        Some(self)
    }

    fn has_unit_stiffness(&self) -> bool {
        !self.is_resistive()
    }

    fn abilities(&self) -> Abilities {
        let smooth =
            matches!(self.physics, Physics::Hopfield(Activation::Tanh | Activation::Logistic));
        Abilities::LOCAL_RULE
            .and(Abilities::CLAMPING)
            .and(Abilities::STATE_DERIVATIVES)
            .and(Abilities::RELAXATION)
            .and_if(smooth, Abilities::HOLOMORPHIC)
    }
}

impl<T: Real> Dynamics<T> for Layered {
    fn check_nudge(&self, loss: Loss, beta: Complex<f64>) -> Result<()> {
        // The stiffness of resistive outputs depends on the parameters: there the status tells.
        if self.is_resistive() { Ok(()) } else { loss.check_beta(beta) }
    }

    fn run(
        &self,
        experiment: &Experiment<'_, T>,
        readings: &mut [Reading<'_, T>],
        states: &mut States<T>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        settle::settle(self, experiment, states, buffers(workspace)?);
        read_at_end(self, experiment, readings, states, workspace)
    }

    fn read(
        &self,
        experiment: &Experiment<'_, T>,
        states: &States<T>,
        weights: &[Complex<f64>],
        workspace: &mut Workspace,
        update: &mut LocalUpdate<T>,
    ) -> Result<()> {
        local::local_update(self, experiment, states, weights, buffers(workspace)?, update);
        Ok(())
    }
}
