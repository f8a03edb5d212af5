//! Backpropagation (Rumelhart et al. 1986) through a model of the layers: training in silico.

use pnncore_kernels::Real;
use pnncore_kernels::philox::Purpose;
use serde::Deserialize;

use super::propagated::send_back;
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::settings::at_least_zero;
use crate::settling::Settling;
use crate::system::stack::{BackwardRule, Layer, Layers, Propagation};
use crate::system::{Abilities, Experiment};
use crate::{Error, Result};

/// A model of a stack of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// The digital twin.
    Twin,
    /// The hardware itself: the exact gradient, which only a simulation has.
    Hardware,
}

/// Backpropagation.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backprop {
    /// Through which model.
    pub model: Model,
    /// The standard deviation of noise that is added to the outputs of every layer of the twin.
    pub noise: f64,
    /// By how much, relatively, the twin's constants are off, drawn anew for every batch
    /// (vaccination).
    pub vaccination: f64,
}

impl MethodConfig for Backprop {
    const NAME: &'static str = "Backprop";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::TWINS)];

    fn check(&self, _settling: &Settling) -> Result<()> {
        for (name, value) in [("noise", self.noise), ("vaccination", self.vaccination)] {
            at_least_zero(name, value)?;
            if value > 0.0 && self.model == Model::Hardware {
                return Err(Error::Config(format!("{name} is for model=\"twin\" only")));
            }
        }
        Ok(())
    }

    fn compile<T: Real>(&self, _setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        Ok(Box::new(*self))
    }
}

impl<T: Real> CompiledMethod<T> for Backprop {
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        _memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let Experiment { runtime, batch, draw, .. } = *experiment;
        let stack = experiment.stack()?;
        state.cost.operations += 3 * stack.operations() * batch.len() as u64;
        let vaccines: Vec<Box<dyn Layer<T>>> = match self.model {
            Model::Twin if self.vaccination > 0.0 => {
                stack.vaccines(self.vaccination, runtime.random(Purpose::Mismatch).at(draw.step()))
            }
            _ => Vec::new(),
        };
        let layers = match self.model {
            Model::Hardware => Layers::Hardware,
            Model::Twin if self.vaccination > 0.0 => Layers::Own(&vaccines),
            Model::Twin => Layers::Twin,
        };
        let noise = |l: usize| stack.stages()[l].measured(self.noise);
        let random = draw.of(runtime.random(Purpose::Noise));
        let propagation = Propagation::of(&mut state.workspace)?;
        propagation.begin(stack, batch);
        propagation.pass(experiment.at(stack), layers, true, noise, random)?;
        send_back(experiment, stack, &BackwardRule::of(layers, true), state)
    }
}
