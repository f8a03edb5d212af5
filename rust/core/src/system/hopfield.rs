//! Layered Hopfield networks.
//!
//! E = sum_l Phi(s_l) - sum_l s_{l-1}^T W_l s_l - sum_l b_l^T s_l, with the inputs s_0 clamped, outputs linear
//! (Phi = 1/2 s^2) and hidden units of one kind: Phi' is the inverse of the activation rho, or Phi = 1/2 s^2 within the
//! box [0, 1] for the hard sigmoid. Given its neighbours, the exact minimiser of a layer is
//! s_l = rho(W_l^T s_{l-1} + W_{l+1} s_{l+1} + b_l).

use std::str::FromStr;

use super::layered::{Layered, Physics};
use crate::device::Device;
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
    pub(super) fn range(self) -> (f64, f64) {
        match self {
            Self::HardSigmoid | Self::Logistic => (0.0, 1.0),
            Self::Tanh => (-1.0, 1.0),
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

impl Layered {
    /// A Hopfield network with layers of these sizes, inputs first, outputs last.
    ///
    /// Parameters are, in this order, `W1`, `b1`, `W2`, `b2`, ...: couplings (size of the layer before, size of the layer)
    /// and biases.
    ///
    /// # Errors
    /// [`Error::Config`] for fewer than two layers or an empty one.
    pub fn hopfield(sizes: &[usize], activation: Activation) -> Result<Self> {
        Self::new(Physics::Hopfield(activation), sizes, "W", Device::IDEAL)
    }
}
