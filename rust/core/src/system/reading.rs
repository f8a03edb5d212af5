//! Readings: what of dE/dtheta a run of the physics is asked for.

use num_complex::Complex;
use pnncore_kernels::Real;

use super::{Dynamics, Experiment, Workspace};
use crate::Result;
use crate::states::States;
use crate::update::LocalUpdate;

/// A reading of the local rule dE/dtheta in a run of the physics: a sum over phases, each with a weight, at the end of each
/// phase. Physics that is read on the way there (samplers, motions) says so in [`Dynamics::run`].
#[derive(Debug)]
pub struct Reading<'a, T> {
    /// The weight of every phase, the free one first.
    pub weights: &'a [Complex<f64>],
    /// Where the sum goes: a mean over samples.
    pub update: &'a mut LocalUpdate<T>,
}

/// Fills readings from the states that a run ended with: all that physics does which settles.
///
/// # Errors
/// As [`Dynamics::read`].
pub fn read_at_end<T: Real>(
    system: &(impl Dynamics<T> + ?Sized),
    experiment: &Experiment<'_, T>,
    readings: &mut [Reading<'_, T>],
    states: &States<T>,
    workspace: &mut Workspace,
) -> Result<()> {
    readings
        .iter_mut()
        .try_for_each(|reading| system.read(experiment, states, reading.weights, workspace, reading.update))
}
