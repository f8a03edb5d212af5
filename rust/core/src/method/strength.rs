//! How strongly outputs are nudged where nobody says: as much as moves them by a tenth of their error.
//!
//! A strength of nudging has the units of a stiffness: what is little on networks whose units have stiffness one is far too much on
//! circuits in millisiemens. It is measured: constant forces along the gradient of the loss displace the outputs, and their
//! strength is changed until the displacement is the wanted fraction of that gradient for the softest sample of the batch.

use pnncore_kernels::Real;

use super::{Cost, Rule, Scratch};
use crate::batch::Batch;
use crate::differences::largest;
use crate::loss::Loss;
use crate::params::Params;
use crate::plan::{Boundary, PhasePlan};
use crate::runtime::Runtime;
use crate::settling::Settling;
use crate::states::States;
use crate::system::Settling as SettlingSystem;
use crate::{Error, Result};

/// The fraction of the gradient of the loss by which outputs are displaced: biases are of the order of its square, a few per
/// cent.
const FRACTION: f64 = 0.1;
/// How near to the wanted displacement is near enough, as a factor.
const NEAR: f64 = 1.02;
/// The most that a strength is changed by at once, and the most changes: enough for any unit.
const FARTHEST: f64 = 1e6;
const TRIES: u32 = 60;

impl Rule {
    /// The strength where none was given and the stiffness of outputs is one.
    pub(super) fn usual_strength(&self) -> Option<f64> {
        match self {
            Self::EquilibriumPropagation { beta: None, .. } => Some(0.2),
            Self::FrequencyPropagation { amplitude: None, .. } => Some(0.1),
            Self::AgnosticEquilibriumPropagation { beta: None, .. } => Some(0.1),
            _ => None,
        }
    }

    /// The rule with this strength.
    pub(super) fn with_strength(&self, strength: f64) -> Self {
        let mut rule = self.clone();
        match &mut rule {
            Self::EquilibriumPropagation { beta: open, .. }
            | Self::FrequencyPropagation { amplitude: open, .. }
            | Self::AgnosticEquilibriumPropagation { beta: open, .. } => *open = Some(strength),
            _ => {}
        }
        rule
    }
}

/// What strengths are measured on.
pub(super) struct Probe<'a, T: Real> {
    pub(super) runtime: &'a Runtime,
    pub(super) system: &'a dyn SettlingSystem<T>,
    pub(super) params: &'a Params<'a, T>,
    pub(super) batch: &'a Batch<'a, T>,
    pub(super) loss: Loss,
    pub(super) settling: Settling,
}

impl<T: Real> Probe<'_, T> {
    /// The strength of a force that displaces outputs by [`FRACTION`] of the gradient of the loss; `None` where no sample has a
    /// gradient, so that any strength teaches the same: nothing.
    ///
    /// # Errors
    /// [`Error::Config`] where no strength does that; what the physics may fail with.
    pub(super) fn strength(&self, scratch: &mut Scratch<T>) -> Result<Option<f64>> {
        let mut strength = FRACTION;
        // The largest strength that was too weak, and the smallest that was too strong.
        let (mut weak, mut strong) = (0.0f64, f64::INFINITY);
        for _ in 0..TRIES {
            let Some(response) = self.response(strength, scratch)? else { return Ok(None) };
            let change = FRACTION / response;
            let found = change < NEAR && NEAR * change > 1.0;
            if response.is_finite() && response > 0.0 && (found || strong < NEAR * weak) {
                return Ok(Some(if found { strength * change } else { weak }));
            }
            if response < FRACTION {
                weak = weak.max(strength);
            } else {
                strong = strong.min(strength);
            }
            let change = if response.is_nan() { 1.0 / FARTHEST } else { change.clamp(1.0 / FARTHEST, FARTHEST) };
            strength *= change;
            // Where the response has kinks, proportion leads to and fro: the middle of what was found does not.
            if weak > 0.0 && strong < f64::INFINITY {
                strength = (weak * strong).sqrt();
            }
        }
        Err(Error::Config(format!(
            "no strength of nudging displaces the outputs by {FRACTION} of their error: give the method one, in units of the \
             stiffness of the outputs"
        )))
    }

    /// The displacement of outputs over the gradient of the loss, for the softest sample; NaN where one found no steady state;
    /// `None` where no sample has a gradient.
    fn response(&self, strength: f64, scratch: &mut Scratch<T>) -> Result<Option<f64>> {
        let Scratch { states, workspace, cost, .. } = scratch;
        let phases = vec![Boundary::Forced(strength), Boundary::Forced(-strength)];
        let plan = PhasePlan { loss: self.loss, phases, settling: self.settling, measures_free: true };
        states.reset(self.batch.len(), plan.rows_per_sample(), false);
        Cost::add(cost, plan.rows_per_sample(), self.batch.len());
        self.system.settle(self.runtime, self.params, self.batch, &plan, states, workspace)?;
        Ok((0..self.batch.len()).filter_map(|i| self.softness(states, i)).reduce(f64::max_magnitude))
    }

    fn softness(&self, states: &States<T>, i: usize) -> Option<f64> {
        let n = states.layout().outputs().len();
        let (mut target, mut gradient) = (vec![T::ZERO; n], vec![T::ZERO; n]);
        let free = i * states.phases();
        if !states.outcomes[free].status.usable() || !self.batch.y.write(i, &mut target) {
            return None;
        }
        self.loss.gradient(states.outputs(free), &target, &mut gradient);
        let error = largest(&gradient);
        if error == 0.0 {
            return None;
        }
        if !states.usable(i) {
            return Some(f64::NAN);
        }
        // To either side: where a diode conducts outputs are stiff, and soft where it blocks.
        let forced = (1..states.phases()).flat_map(|p| states.outputs(free + p).iter().zip(states.outputs(free)));
        Some(forced.fold(T::ZERO, |m, (&forced, &free)| m.max_magnitude(forced - free)).to_f64() / error)
    }
}
