//! Experiments: what the physics is run on, and under which conditions.

use pnncore_kernels::Real;

use super::stack::{Propagation, Stack};
use super::{Dynamics, StateDerivatives, System, Workspace};
use crate::batch::Batch;
use crate::draw::DrawIndex;
use crate::params::Params;
use crate::plan::PhasePlan;
use crate::runtime::Runtime;
use crate::states::States;
use crate::{Error, Result};

/// An experiment on a system: where it runs, at which parameters, on which samples, in which phases, and with which random
/// numbers. It is shared by all that run it; what they change is passed beside it.
#[derive(Debug, Clone, Copy)]
pub struct Experiment<'a, T: Real> {
    /// Threads, instruction set and seed.
    pub runtime: &'a Runtime,
    /// The physics.
    pub system: &'a dyn System<T>,
    /// The values of the parameters.
    pub params: &'a Params<'a, T>,
    /// Inputs and targets.
    pub batch: &'a Batch<'a, T>,
    /// The phases of systems that settle, and the loss.
    pub plan: &'a PhasePlan,
    /// What random numbers are drawn for.
    pub draw: DrawIndex,
}

impl<T: Real> std::fmt::Debug for dyn System<T> + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl<'a, T: Real> Experiment<'a, T> {
    /// The system as one with dynamics.
    ///
    /// # Errors
    /// [`Error::Capability`] where it has none.
    pub fn dynamics(&self) -> Result<&'a dyn Dynamics<T>> {
        self.system.as_dynamics().ok_or_else(|| self.lacks("does not settle"))
    }

    /// The system as one whose energy and derivatives can be evaluated.
    ///
    /// # Errors
    /// [`Error::Capability`] where they cannot.
    pub fn state_derivatives(&self) -> Result<&'a dyn StateDerivatives<T>> {
        self.system.as_state_derivatives().ok_or_else(|| self.lacks("has no exact derivatives"))
    }

    /// The system as one of layers.
    ///
    /// # Errors
    /// [`Error::Capability`] where it has none.
    pub fn stack(&self) -> Result<&'a Stack<T>> {
        self.system.as_stack().ok_or_else(|| self.lacks("has no layers"))
    }

    fn lacks(&self, what: &str) -> Error {
        Error::Capability(format!("{} {what}", self.system.name()))
    }

    /// Runs the system once on every sample, and leaves its outputs in states of one phase. A system that settles follows the
    /// plan, which has the free phase alone.
    ///
    /// # Errors
    /// As [`Dynamics::run`]; [`Error::Capability`] for systems that neither have layers nor settle.
    pub fn infer(&self, states: &mut States<T>, workspace: &mut Workspace) -> Result<()> {
        if let Some(stack) = self.system.as_stack() {
            return stack.infer(self, states, Propagation::of(workspace)?);
        }
        states.reset(self.batch.len(), 1, false);
        self.dynamics()?.run(self, &mut [], states, workspace)
    }
}
