//! Experiments on stacks.

use pnncore_kernels::Real;

use super::{Propagation, Stack, StackAt};
use crate::Result;
use crate::states::States;
use crate::system::Experiment;

impl<'a, T: Real> Experiment<'a, T> {
    /// The system as one of layers.
    ///
    /// # Errors
    /// [`Error::Capability`](crate::Error::Capability) where it has none.
    pub fn stack(&self) -> Result<&'a Stack<T>> {
        self.system.as_stack().ok_or_else(|| self.lacks("has no layers"))
    }

    /// A stack at the parameters and the memory of the experiment.
    pub fn at(&self, stack: &'a Stack<T>) -> StackAt<'a, T> {
        StackAt { runtime: self.runtime, stack, params: self.params, memory: self.memory }
    }

    /// Sets the errors of the outputs of a stack: the gradient of the loss, a mean over the batch.
    /// `states` are what the propagation reports.
    ///
    /// # Errors
    /// What a loss of the user's own may fail with.
    pub(crate) fn seed_output_errors(
        &self,
        propagation: &mut Propagation<T>,
        states: &States<T>,
    ) -> Result<()> {
        let Some(own) = self.own_loss else {
            propagation.seed_output_errors(self.plan.loss, &self.batch.y);
            return Ok(());
        };
        let share = T::from_f64(1.0 / self.batch.len() as f64);
        let (_, mut errors) = self.evaluate(own, states)?;
        errors.iter_mut().for_each(|e| *e *= share);
        propagation.set_output_errors(self.stack()?, &errors);
        Ok(())
    }
}
