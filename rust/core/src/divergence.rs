//! When training has diverged, and how it is taken back.
//!
//! A step has diverged if it leaves, or would leave, something that is not finite, or if its mean
//! loss is beyond all units that the problem has: [`FARTHEST`] times the loss that outputs of zero
//! have (local losses: one nat). Where that is zero, as many times the mean loss of the first
//! epoch.

use pnncore_kernels::Real;
use pnncore_kernels::watch::poll;

use crate::Result;
use crate::batch::{Batch, Targets};
use crate::loss::Loss;
use crate::params::{Params, all_finite};

/// How many times its natural size a loss may have: outputs are then some 30,000 times as large as
/// what is wanted of them. A run that comes back from there would have begun anew.
pub const FARTHEST: f64 = 1e9;

/// Why training ends before a step.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Divergence {
    /// No sample has finite outputs.
    #[error("no sample of the step has finite outputs")]
    Outputs,
    /// The mean loss is too large to mean anything, infinite, or not a number.
    #[error("the mean loss of the step is {0:.3e}")]
    Loss(f64),
    /// The gradient, or the change that is wanted, is not finite.
    #[error("the step's change of the parameters is not finite")]
    Change,
    /// The step would leave parameters, or memory of optimizer, method or cells, that are not
    /// finite.
    #[error("the step would leave parameters or moments that are not finite")]
    Parameters,
}

/// The loss that a mean over a batch is measured by.
pub(crate) struct Scale<'a, T> {
    loss: Loss,
    /// The targets of the data set.
    targets: Targets<'a, T>,
    /// The mean loss of the first epoch; zero where there was none.
    first_epoch: f64,
    /// The loss of outputs of zero, for a label.
    label: f64,
    zeros: Vec<T>,
}

impl<'a, T: Real> Scale<'a, T> {
    pub(crate) fn new(
        loss: Loss,
        targets: Targets<'a, T>,
        outputs: usize,
        first_epoch: f64,
    ) -> Self {
        let zeros = vec![T::ZERO; outputs];
        let mut target = zeros.clone();
        target.iter_mut().take(1).for_each(|wanted| *wanted = T::ONE);
        let label = loss.value(&zeros, &target);
        Self { loss, targets, first_epoch, label, zeros }
    }

    /// The mean loss of outputs of zero.
    fn natural(&self, targets: &Targets<'_, T>) -> f64 {
        match targets {
            Targets::Values(rows) => {
                let values =
                    (0..rows.len()).map(|i| self.loss.value(&self.zeros, rows.row(i)).abs());
                values.sum::<f64>() / rows.len() as f64
            }
            _ => self.label,
        }
    }

    /// The same for a loss of the user's own, of which nothing is known but what it was in the
    /// first epoch.
    pub(crate) fn is_exceeded_by_own(&self, mean: f64) -> bool {
        !mean.is_finite() || (self.first_epoch > 0.0 && mean > FARTHEST * self.first_epoch)
    }

    /// Whether the mean loss of a batch is beyond all units. `local` losses have one of their own:
    /// the nat.
    pub(crate) fn is_exceeded(&self, mean: f64, batch: &Batch<'_, T>, local: bool) -> bool {
        if !mean.is_finite() {
            return true;
        }
        if local {
            return mean > FARTHEST;
        }
        // What is wanted in one batch may happen to be small; hardly any step looks at the whole
        // data set.
        if mean <= FARTHEST * self.natural(&batch.y) {
            return false;
        }
        let natural = self.natural(&self.targets);
        // Where nothing but zero is wanted and no epoch was made, there is no unit.
        let unit = if natural > 0.0 { natural } else { self.first_epoch };
        unit > 0.0 && mean > FARTHEST * unit
    }
}

/// Parameters and memory as they were.
pub(crate) struct Kept<T> {
    params: Vec<Vec<T>>,
    memory: Vec<Vec<T>>,
}

impl<T: Real> Kept<T> {
    pub(crate) fn of(params: &Params<'_, T>, memory: &[&mut [T]]) -> Self {
        let copied = |array: &[T]| {
            let mut copy = Vec::new();
            copy_into(array, &mut copy);
            copy
        };
        Self {
            params: (0..params.len()).map(|i| copied(params.get(i))).collect(),
            memory: memory.iter().map(|array| copied(array)).collect(),
        }
    }

    /// Keeps what there is now instead.
    pub(crate) fn renew(&mut self, params: &Params<'_, T>, memory: &[&mut [T]]) {
        self.params.iter_mut().enumerate().for_each(|(i, own)| own.copy_from_slice(params.get(i)));
        self.memory.iter_mut().zip(memory).for_each(|(own, array)| own.copy_from_slice(array));
    }

    pub(crate) fn restore(
        &self,
        params: &mut Params<'_, T>,
        memory: &mut [&mut [T]],
    ) -> Result<()> {
        for (i, own) in self.params.iter().enumerate() {
            params.get_mut(i)?.copy_from_slice(own);
        }
        memory.iter_mut().zip(&self.memory).for_each(|(array, own)| array.copy_from_slice(own));
        Ok(())
    }
}

/// Makes `copy` one of `array`. An interrupt need not wait for one of some hundred megabytes.
pub(crate) fn copy_into<T: Real>(array: &[T], copy: &mut Vec<T>) {
    /// Elements between two looks.
    const CHUNK: usize = 1 << 16;
    copy.clear();
    copy.reserve_exact(array.len());
    for chunk in array.chunks(CHUNK) {
        poll(CHUNK);
        copy.extend_from_slice(chunk);
    }
}

/// Whether all parameters and all memory are finite. What is not stays so: no later step makes it
/// finite again.
pub(crate) fn are_finite<T: Real>(params: &Params<'_, T>, memory: &[&mut [T]]) -> bool {
    (0..params.len()).all(|i| all_finite(params.get(i)))
        && memory.iter().all(|array| all_finite(array))
}
