//! What steps of training change, and what they cost.

use pnncore_kernels::Real;

use super::candidates::CandidatePool;
use super::cost::Cost;
use crate::states::States;
use crate::system::{System, Workspace};
use crate::update::LocalUpdate;

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StepResult {
    /// A gradient, in [`StepState::update`].
    #[default]
    Gradient,
    /// New values of the parameters, in [`StepState::wanted`].
    Change,
}

/// What the steps of a method change: states, the update, what they cost, and memory that later
/// steps use again.
#[derive(Debug)]
pub struct StepState<T> {
    /// The states of the last step.
    pub states: States<T>,
    /// What the last step found.
    pub found: StepResult,
    /// The gradient of the last step, factored.
    pub update: LocalUpdate<T>,
    /// The values of parameters that the last step wants.
    pub wanted: Vec<Vec<T>>,
    /// The losses of the samples, where a method has local ones in the place of that of the
    /// outputs.
    pub local_losses: Option<Vec<f64>>,
    /// The losses of the samples, where the loss is one of the user's own.
    pub own_losses: Option<Vec<f64>>,
    /// What all steps cost.
    pub cost: Cost,
    /// The memory of the system's experiments.
    pub workspace: Workspace,
    pub(super) candidates: CandidatePool<T>,
}

impl<T: Real> StepState<T> {
    /// Memory for the steps on a system.
    pub fn new(system: &dyn System<T>) -> Self {
        Self {
            states: States::new(system.layout()),
            found: StepResult::default(),
            update: LocalUpdate::default(),
            wanted: Vec::new(),
            local_losses: None,
            own_losses: None,
            cost: Cost::default(),
            workspace: system.workspace(),
            candidates: CandidatePool::default(),
        }
    }

    /// Leaves the gradient by all parameters, given one by one.
    pub fn found_gradient<'a>(
        &mut self,
        gradient: impl ExactSizeIterator<Item = &'a [T]>,
    ) -> StepResult
    where
        T: 'a,
    {
        self.update.set(gradient);
        StepResult::Gradient
    }

    /// Leaves new values of all parameters, given one by one.
    pub fn found_values<'a>(&mut self, values: impl Iterator<Item = &'a [T]>) -> StepResult
    where
        T: 'a,
    {
        self.wanted.clear();
        self.wanted.extend(values.map(<[T]>::to_vec));
        StepResult::Change
    }
}
