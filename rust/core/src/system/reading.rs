//! Readings: what of dE/dtheta a run of the physics is asked for.

use num_complex::Complex;
use pnncore_kernels::Real;

use super::{Dynamics, Experiment, Workspace};
use crate::states::States;
use crate::update::LocalUpdate;
use crate::{Error, Result};

/// What of the local rule is taken of each phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accumulation {
    /// Its value at the end.
    Final,
    /// Its mean over samples that are drawn on the way.
    Average,
    /// Its integral over time.
    Integral,
}

/// A reading of the local rule in a run of the physics (dE/dtheta, or dH/dtheta of a motion): a sum
/// over phases, each with a weight.
#[derive(Debug)]
pub struct Reading<'a, T> {
    /// What is taken of each phase.
    pub accumulation: Accumulation,
    /// The weight of every phase, the free one first.
    pub weights: &'a [Complex<f64>],
    /// Where the sum goes: a mean over samples.
    pub update: &'a mut LocalUpdate<T>,
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
