//! Layered Hopfield networks.
//!
//! E = sum_l Phi(s_l) - sum_l s_{l-1}^T W_l s_l - sum_l b_l^T s_l, with the inputs s_0 clamped,
//! outputs linear (Phi = 1/2 s^2) and hidden units of one kind: Phi' is the inverse of the
//! activation rho, or Phi = 1/2 s^2 within the box [0, 1] for the hard sigmoid. Given its
//! neighbours, the exact minimiser of a layer is s_l = rho(W_l^T s_{l-1} + W_{l+1} s_{l+1} + b_l).

use serde::Deserialize;

pub use super::layered::Activation;
use super::layered::{Layered, Physics};
use super::{AnySystem, SystemSpec};
use crate::Result;
use crate::device::{Device, TileSpec};
use crate::precision::Precision;

/// A Hopfield network, as it is given.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The sizes of the layers, inputs first, outputs last.
    pub layers: Vec<usize>,
    /// The activation function of hidden units.
    pub activation: Activation,
    /// The cells that couplings are stored in, where there are any.
    pub tile: Option<TileSpec>,
    /// What cells are drawn from.
    pub seed: u64,
    /// What couplings and states are rounded to where they are multiplied.
    #[serde(default)]
    pub precision: Precision,
}

impl SystemSpec for Spec {
    const NAME: &'static str = "Hopfield";

    fn build(&self) -> Result<AnySystem> {
        let net = Layered::hopfield(&self.layers, self.activation)?.with_precision(self.precision);
        Ok(AnySystem::same(match &self.tile {
            Some(tile) => net.with_cells(tile, self.seed)?,
            None => net,
        }))
    }
}

impl Layered {
    /// A Hopfield network with layers of these sizes, inputs first, outputs last.
    ///
    /// Parameters are, in this order, `W1`, `b1`, `W2`, `b2`, ...: couplings (size of the layer
    /// before, size of the layer) and biases.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for fewer than two layers or an empty one.
    pub fn hopfield(sizes: &[usize], activation: Activation) -> Result<Self> {
        Self::new(Physics::Hopfield(activation), sizes, "W", Device::IDEAL)
    }
}
