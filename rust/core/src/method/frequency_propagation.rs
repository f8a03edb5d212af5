//! Frequency propagation (Anisetti et al. 2024): errors act as forces that swing.
//!
//! The output errors of the free state act as a constant force whose strength swings as amplitude
//! sin(phi), slowly enough that the states follow; the update is what of dE/dtheta swings with it.

use std::f64::consts::TAU;

use num_complex::Complex;
use pnncore_kernels::Real;
use serde::Deserialize;

use super::contrast::{Contrast, Contrastive};
use super::equilibrium_propagation::MOST_POINTS;
use super::strength::Strength;
use super::{CompiledMethod, MethodConfig, Setup};
use crate::plan::{Boundary, OfPhases};
use crate::settings::{at_most, positive};
use crate::settling::Settling;
use crate::system::{Abilities, Accumulation};
use crate::{Error, Result};

/// Frequency propagation.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrequencyPropagation {
    /// The largest strength of the force. `None`: the strength that displaces outputs by a fraction
    /// of their error.
    pub amplitude: Option<f64>,
    /// The points of a period at which dE/dtheta is read.
    pub points: u32,
}

impl MethodConfig for FrequencyPropagation {
    const NAME: &'static str = "FrequencyPropagation";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::LOCAL_RULE)];

    fn check(&self, _settling: &Settling) -> Result<()> {
        at_most("points", self.points, MOST_POINTS)?;
        positive("amplitude", self.amplitude.unwrap_or(1.0))?;
        if self.points < 4 || !self.points.is_multiple_of(4) {
            return Err(Error::Config(format!(
                "points must be a multiple of 4, got {}",
                self.points
            )));
        }
        Ok(())
    }

    fn compile<T: Real>(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        let points = self.points;
        let contrast = Box::new(move |amplitude| over_period(amplitude, points));
        let strength = Strength::of(self.amplitude, 0.1, setup.system);
        Ok(Box::new(Contrastive::new(setup, strength, Accumulation::Final, vec![contrast])?))
    }
}

/// Points of equal force are one phase: those at phi and pi - phi, so that a quarter of the period
/// and its mirror image are all there is. Where sin(phi) is 0 nothing is read.
fn over_period(amplitude: f64, points: u32) -> Contrast {
    let n = f64::from(points);
    let (mut phases, mut weights) = (OfPhases::new(), OfPhases::from_iter([Complex::ZERO]));
    for k in 1..=points / 4 {
        let swing = (TAU * f64::from(k) / n).sin();
        let copies = if 4 * k == points { 1.0 } else { 2.0 };
        for sign in [1.0, -1.0] {
            phases.push(Boundary::Forced(sign * amplitude * swing));
            weights.push(Complex::new(sign * 2.0 * copies * swing / (n * amplitude), 0.0));
        }
    }
    Contrast::from_free(phases, weights)
}
