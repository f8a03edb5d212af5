//! Stacks from their description.

use pnncore_kernels::Real;
use pnncore_kernels::philox::{Philox, Purpose};
use serde::Deserialize;

use super::linear::Linear;
use super::pointwise::{Function, Pointwise};
use super::{GROUPS, Layer, Stack, Stage};
use crate::{Error, Result};

/// What a layer is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Kind {
    /// A linear map.
    Linear {
        /// The number of inputs.
        inputs: usize,
        /// The number of outputs.
        outputs: usize,
        /// Whether a bias is added.
        bias: bool,
    },
    /// A function of each signal.
    Pointwise {
        /// How many signals there are.
        width: usize,
        /// Which function.
        function: Function,
    },
}

/// A layer and how its hardware differs from its twin.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is.
    pub layer: Kind,
    /// The standard deviation of what a measurement of an output adds.
    pub noise: f64,
    /// By how much, relatively, the constants of the hardware are off.
    pub mismatch: f64,
}

/// A stack.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The layers, the first one first.
    pub layers: Vec<Entry>,
    /// What the constants of disordered layers, mismatches and noise are drawn from.
    pub seed: u64,
}

impl Kind {
    fn build<T: Real>(&self, disorder: Philox, group: u32) -> Result<Box<dyn Layer<T>>> {
        let _ = (disorder, group);
        Ok(match *self {
            Self::Linear { inputs, outputs, bias } => {
                positive(&[("inputs", inputs), ("outputs", outputs)])?;
                Box::new(Linear::new(inputs, outputs, bias))
            }
            Self::Pointwise { width, function } => Box::new(Pointwise::new(function, width)?),
        })
    }
}

fn positive(sizes: &[(&str, usize)]) -> Result<()> {
    match sizes.iter().find(|(_, n)| *n == 0) {
        Some((name, _)) => Err(Error::Config(format!("{name} must be at least 1, got 0"))),
        None => Ok(()),
    }
}

impl Spec {
    /// Makes the stack.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, [`Error::Shape`] where layers do not fit each other.
    pub fn build<T: Real>(&self) -> Result<Stack<T>> {
        let disorder = Philox::new(self.seed, Purpose::Disorder);
        let wrong = Philox::new(self.seed, Purpose::Mismatch);
        let stage = |(l, entry): (usize, &Entry)| {
            for (name, value) in [("noise", entry.noise), ("mismatch", entry.mismatch)] {
                if !(value >= 0.0 && value.is_finite()) {
                    return Err(Error::Config(format!("{name} must be at least 0 and finite, got {value}")));
                }
            }
            let group = GROUPS * l as u32;
            let twin = entry.layer.build(disorder, group)?;
            let hardware = (entry.mismatch > 0.0).then(|| twin.mismatched(entry.mismatch, wrong, group));
            Ok(Stage { twin, hardware, noise: entry.noise, params: 0..0 })
        };
        Stack::new(self.layers.iter().enumerate().map(stage).collect::<Result<_>>()?, self.seed, false)
    }
}
