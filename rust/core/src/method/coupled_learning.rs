//! Coupled learning (Stern et al. 2021): outputs clamped a fraction of the way to the target,
//! against free.

use num_complex::Complex;
use pnncore_kernels::Real;
use serde::Deserialize;

use super::contrast::{Contrast, ContrastAt, Contrastive};
use super::strength::Strength;
use super::{CompiledMethod, MethodConfig, Setup};
use crate::Result;
use crate::plan::Boundary;
use crate::settings::{fraction, nonzero};
use crate::settling::Settling;
use crate::system::{Abilities, Accumulation};

/// Which phases coupled learning compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Outputs clamped towards the target, against free.
    Positive,
    /// Free, against outputs clamped away from the target.
    Negative,
    /// Clamped towards, against clamped away.
    Centered,
}

/// Coupled learning.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoupledLearning {
    /// The fraction eta of the way.
    pub eta: f64,
    /// Which phases are compared.
    pub variant: Side,
}

impl MethodConfig for CoupledLearning {
    const NAME: &'static str = "CoupledLearning";
    const VARIANTS: &'static [(&'static str, Abilities)] =
        &[(Self::NAME, Abilities::LOCAL_RULE.and(Abilities::CLAMPING))];

    fn check(&self, _settling: &Settling) -> Result<()> {
        nonzero("eta", self.eta)?;
        fraction("eta", self.eta)
    }

    fn compile<T: Real>(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        let real = |x: f64| Complex::new(x, 0.0);
        let contrast: ContrastAt = match self.variant {
            Side::Positive => Box::new(move |eta| {
                Contrast::from_free([Boundary::Clamped(eta)], [real(-1.0 / eta), real(1.0 / eta)])
            }),
            Side::Negative => Box::new(move |eta| {
                Contrast::from_free([Boundary::Clamped(-eta)], [real(1.0 / eta), real(-1.0 / eta)])
            }),
            Side::Centered => Box::new(move |eta| {
                Contrast::from_free(
                    [Boundary::Clamped(eta), Boundary::Clamped(-eta)],
                    [Complex::ZERO, real(0.5 / eta), -real(0.5 / eta)],
                )
            }),
        };
        Ok(Box::new(Contrastive::new(
            setup,
            Strength::Given(self.eta),
            Accumulation::Final,
            vec![contrast],
        )?))
    }
}
