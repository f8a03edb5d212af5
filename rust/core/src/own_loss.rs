//! Losses of a user's own: values and gradients on a batch.

use pnncore_kernels::{BothPrecisions, Real};

use crate::Result;

/// A loss of a user's own, for outputs of one type of numbers.
pub trait OwnLoss<T: Real>: std::fmt::Debug + Send + Sync {
    /// The loss of every sample, and its gradient by the outputs of the sample, given outputs and
    /// targets row by row.
    ///
    /// # Errors
    /// What the user's code may fail with.
    fn evaluate(&self, outputs: &[T], targets: &[T]) -> Result<(Vec<f64>, Vec<T>)>;
}

/// A loss of a user's own.
pub trait AnyLoss: OwnLoss<f32> + OwnLoss<f64> {}

impl<L: OwnLoss<f32> + OwnLoss<f64>> AnyLoss for L {}

impl BothPrecisions for dyn AnyLoss {
    type Of<T: Real> = dyn OwnLoss<T>;

    fn f32(&self) -> &Self::Of<f32> {
        self
    }

    fn f64(&self) -> &Self::Of<f64> {
        self
    }
}
