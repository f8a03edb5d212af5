//! Readings: what of dE/dtheta a run of the physics is asked for.

use num_complex::Complex;

use crate::update::LocalUpdate;

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
