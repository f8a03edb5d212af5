//! Layered Hopfield networks.
//!
//! E = sum_l Phi(s_l) - sum_l s_{l-1}^T W_l s_l - sum_l b_l^T s_l, with the inputs s_0 clamped, outputs linear
//! (Phi = 1/2 s^2) and hidden units of one kind: Phi' is the inverse of the activation rho, or Phi = 1/2 s^2 within the
//! box [0, 1] for the hard sigmoid. Given its neighbours, the exact minimiser of a layer is
//! s_l = rho(W_l^T s_{l-1} + W_{l+1} s_{l+1} + b_l).

mod exact;
mod fused;
mod inputs;
mod local;
mod settle;
mod together;

use std::str::FromStr;

use num_complex::Complex;
use pnncore_kernels::Real;
use pnncore_kernels::hidden::MAX_OUTPUTS;
use pnncore_kernels::philox::Purpose;

use crate::batch::Batch;
use crate::lab::Lab;
use crate::loss::Loss;
use crate::params::{ParamSpec, Params};
use crate::system::{Energetic, Exact, Settling, System, Workspace};
use crate::trial::{Layout, Plan, Trial};
use crate::update::LocalUpdate;
use crate::{Error, Result};

/// The activation function of hidden units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The box [0, 1].
    HardSigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// The logistic function.
    Logistic,
}

impl Activation {
    /// The name that users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::HardSigmoid => "hard-sigmoid",
            Self::Tanh => "tanh",
            Self::Logistic => "logistic",
        }
    }

    /// The interval of its states.
    fn range<T: Real>(self) -> (T, T) {
        match self {
            Self::HardSigmoid | Self::Logistic => (T::ZERO, T::ONE),
            Self::Tanh => (-T::ONE, T::ONE),
        }
    }
}

impl FromStr for Activation {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::HardSigmoid, Self::Tanh, Self::Logistic].into_iter().find(|a| a.name() == name).ok_or_else(|| {
            Error::Config(format!("activation must be \"hard-sigmoid\", \"tanh\" or \"logistic\", got {name:?}"))
        })
    }
}

/// A layered Hopfield network.
///
/// Parameters are, in this order, `W1`, `b1`, `W2`, `b2`, ...: couplings (size of the layer before, size of the layer)
/// and biases.
#[derive(Debug, Clone)]
pub struct Hopfield {
    sizes: Vec<usize>,
    activation: Activation,
    specs: Vec<ParamSpec>,
    layout: Layout,
}

impl Hopfield {
    /// A network with layers of these sizes, inputs first, outputs last.
    ///
    /// # Errors
    /// [`Error::Config`] for fewer than two layers or an empty one.
    pub fn new(sizes: &[usize], activation: Activation) -> Result<Self> {
        if sizes.len() < 2 || sizes.contains(&0) {
            return Err(Error::Config(format!(
                "layers must be at least two positive sizes, inputs first and outputs last, got {sizes:?}"
            )));
        }
        let mut specs = Vec::new();
        for (l, pair) in sizes.windows(2).enumerate() {
            specs.push(ParamSpec { name: format!("W{}", l + 1), shape: pair.to_vec() });
            specs.push(ParamSpec { name: format!("b{}", l + 1), shape: vec![pair[1]] });
        }
        Ok(Self { sizes: sizes.to_vec(), activation, specs, layout: Layout::new(&sizes[1..]) })
    }

    /// The activation of hidden units.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Writes initial parameters: couplings uniform in +-gain/sqrt(fan-in), biases zero.
    ///
    /// # Panics
    /// If `params` are not those of the specification.
    pub fn initialise<T: Real>(&self, seed: u64, gain: f64, params: &mut [&mut [T]]) {
        let random = pnncore_kernels::philox::Philox::new(seed, Purpose::Initialise);
        for (i, (spec, values)) in self.specs.iter().zip(params).enumerate() {
            if i % 2 == 1 {
                values.fill(T::ZERO);
                continue;
            }
            let bound = gain / (spec.shape[0] as f64).sqrt();
            for (k, value) in values.iter_mut().enumerate() {
                *value = T::from_f64(bound * (2.0 * random.uniform(k as u64, i as u32) - 1.0));
            }
        }
    }

    /// The number of layers that have states: all but the inputs.
    fn layers(&self) -> usize {
        self.sizes.len() - 1
    }

    /// Whether it has one hidden layer and so few outputs that the fused kernel takes them.
    fn fused_layers(&self) -> bool {
        self.layers() == 2 && self.sizes[2] <= MAX_OUTPUTS
    }

    fn weights<'a, T: Real>(&self, params: &'a Params<'_, T>, layer: usize) -> &'a [T] {
        params.get(2 * layer)
    }

    fn bias<'a, T: Real>(&self, params: &'a Params<'_, T>, layer: usize) -> &'a [T] {
        params.get(2 * layer + 1)
    }
}

fn buffers<T: Real>(workspace: &mut Workspace) -> Result<&mut settle::Buffers<T>> {
    workspace.downcast_mut().ok_or_else(|| Error::Config("the workspace belongs to another system".into()))
}

impl<T: Real> System<T> for Hopfield {
    fn name(&self) -> &str {
        "Hopfield"
    }

    fn inputs(&self) -> usize {
        self.sizes[0]
    }

    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    fn workspace(&self) -> Workspace {
        Box::new(settle::Buffers::<T>::default())
    }

    fn as_settling(&self) -> Option<&dyn Settling<T>> {
        Some(self)
    }

    fn as_energetic(&self) -> Option<&dyn Energetic<T>> {
        Some(self)
    }

    fn as_exact(&self) -> Option<&dyn Exact<T>> {
        Some(self)
    }

    fn is_holomorphic(&self) -> bool {
        self.activation != Activation::HardSigmoid
    }
}

impl<T: Real> Settling<T> for Hopfield {
    fn check_nudge(&self, loss: Loss, beta: Complex<f64>) -> Result<()> {
        loss.check_beta(beta)
    }

    fn settle(
        &self,
        lab: &Lab,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        plan: &Plan,
        trial: &mut Trial<T>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        settle::settle(self, lab, params, batch, plan, trial, buffers(workspace)?);
        Ok(())
    }
}

impl<T: Real> Energetic<T> for Hopfield {
    fn local_update(
        &self,
        lab: &Lab,
        _params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        trial: &Trial<T>,
        weights: &[Complex<f64>],
        workspace: &mut Workspace,
        update: &mut LocalUpdate<T>,
    ) -> Result<()> {
        local::local_update(self, lab, batch, trial, weights, buffers(workspace)?, update);
        Ok(())
    }
}
