//! Experiments: what the physics is run on, and under which conditions.

use pnncore_kernels::Real;

use super::{Accumulation, Dynamics, Reading, StateDerivatives, System, Workspace};
use crate::batch::Batch;
use crate::draw::DrawIndex;
use crate::own_loss::OwnLoss;
use crate::params::Params;
use crate::plan::PhasePlan;
use crate::runtime::Runtime;
use crate::states::States;
use crate::{Error, Result};

/// An experiment on a system: where it runs, at which parameters, on which samples, in which
/// phases, and with which random numbers. It is shared by all that run it; what they change is
/// passed beside it.
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
    /// What the system keeps from step to step: the arrays of [`System::memory`] as they are when
    /// the step begins. None: as they are before the first.
    pub memory: &'a [&'a [T]],
    /// A loss of the user's own, in the place of that of the plan.
    pub own_loss: Option<&'a dyn OwnLoss<T>>,
}

impl<T: Real> std::fmt::Debug for dyn System<T> + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl<'a, T: Real> Experiment<'a, T> {
    /// An experiment with the loss of the plan, on a system as it is at first.
    pub fn new(
        runtime: &'a Runtime,
        system: &'a dyn System<T>,
        params: &'a Params<'a, T>,
        batch: &'a Batch<'a, T>,
        plan: &'a PhasePlan,
        draw: DrawIndex,
    ) -> Self {
        Self { runtime, system, params, batch, plan, draw, memory: &[], own_loss: None }
    }

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

    /// The user's loss of every sample at the free states, and its gradients by outputs, row by
    /// row; where a sample has no usable outputs, nothing that it says is used.
    ///
    /// # Errors
    /// What the user's code may fail with.
    pub(crate) fn evaluate(
        &self,
        own: &dyn OwnLoss<T>,
        states: &States<T>,
    ) -> Result<(Vec<f64>, Vec<T>)> {
        let n = self.system.outputs();
        let (mut outputs, mut targets) =
            (Vec::with_capacity(self.batch.len() * n), vec![T::ZERO; self.batch.len() * n]);
        for (i, target) in targets.chunks_exact_mut(n).enumerate() {
            outputs.extend_from_slice(states.outputs(i * states.phases()));
            self.batch.y.write(i, target);
        }
        let (mut values, mut gradients) = own.evaluate(&outputs, &targets)?;
        for (i, gradient) in gradients.chunks_exact_mut(n).enumerate() {
            let usable = states.outcomes[i * states.phases()].status.usable();
            if usable && values[i].is_finite() && !gradient.iter().all(|g| g.is_finite()) {
                return Err(Error::Data(format!(
                    "the gradient of the loss is not finite at sample {i} of the batch, where its \
                     value is {}",
                    values[i]
                )));
            }
            if !states.outcomes[i * states.phases()].status.usable() {
                values[i] = 0.0;
                gradient.fill(T::ZERO);
            }
        }
        Ok((values, gradients))
    }

    /// By what gradients of a loss, row by row, are multiplied to be as large as the distances of
    /// free outputs from their targets.
    pub(crate) fn model_scale(&self, states: &States<T>, gradients: &[T]) -> f64 {
        let n = self.system.outputs();
        let (mut target, mut distances, mut slopes) = (vec![T::ZERO; n], 0.0, 0.0);
        for (i, gradient) in
            gradients.chunks_exact(n).enumerate().filter(|(i, _)| states.usable(*i))
        {
            self.batch.y.write(i, &mut target);
            let outputs = states.outputs(i * states.phases());
            distances +=
                outputs.iter().zip(&target).map(|(&o, &y)| (o - y).to_f64().powi(2)).sum::<f64>();
            slopes += gradient.iter().map(|g| g.to_f64().powi(2)).sum::<f64>();
        }
        let scale = (distances / slopes).sqrt();
        if scale > 0.0 && scale.is_finite() { scale } else { 1.0 }
    }

    /// The error that says what the system lacks.
    pub(super) fn lacks(&self, what: &str) -> Error {
        Error::Capability(format!("{} {what}", self.system.name()))
    }

    /// Runs all phases of the plan on every sample, and fills the readings.
    ///
    /// # Errors
    /// [`Error::Capability`] for systems without dynamics, and for phases that they do not admit;
    /// as [`PhasePlan::begin`] and [`Dynamics::run`].
    pub fn run(
        &self,
        readings: &mut [Reading<'_, T>],
        states: &mut States<T>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let dynamics = self.dynamics()?;
        for p in 0..self.plan.rows_per_sample() {
            let phase = self.plan.phase(p);
            if !dynamics.admits(p, phase) {
                return Err(self.lacks(&format!("does not admit {phase} as phase {p}")));
            }
        }
        self.plan.begin(self.batch.len(), states)?;
        dynamics.run(self, readings, states, workspace)
    }

    /// Runs the system once on every sample, and leaves its outputs in states of one phase. A
    /// system that settles follows the plan, which has the free phase alone.
    ///
    /// # Errors
    /// As [`System::infer`].
    pub fn infer(&self, states: &mut States<T>, workspace: &mut Workspace) -> Result<()> {
        self.system.infer(self, states, workspace)
    }
}

/// Fills readings from the states that a run ended with: all that physics does which settles.
///
/// # Errors
/// [`Error::Capability`] for readings on the way; as [`Dynamics::read`].
pub fn read_at_end<T: Real>(
    system: &(impl Dynamics<T> + ?Sized),
    experiment: &Experiment<'_, T>,
    readings: &mut [Reading<'_, T>],
    states: &States<T>,
    workspace: &mut Workspace,
) -> Result<()> {
    readings.iter_mut().try_for_each(|reading| match reading.accumulation {
        Accumulation::Final => {
            system.read(experiment, states, reading.weights, workspace, reading.update)
        }
        other => Err(Error::Capability(format!(
            "{} has nothing to read on the way: {other:?}",
            system.name()
        ))),
    })
}
