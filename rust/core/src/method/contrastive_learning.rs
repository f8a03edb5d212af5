//! Contrastive Hebbian learning (Movellan 1991): outputs clamped to the target, against free.

use num_complex::Complex;
use pnncore_kernels::Real;
use serde::Deserialize;

use super::contrast::{Contrast, Contrastive};
use super::strength::Strength;
use super::{CompiledMethod, MethodConfig, Setup};
use crate::Result;
use crate::plan::Boundary;
use crate::system::{Abilities, Accumulation};

/// Contrastive Hebbian learning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContrastiveLearning {}

impl MethodConfig for ContrastiveLearning {
    const NAME: &'static str = "ContrastiveLearning";
    const VARIANTS: &'static [(&'static str, Abilities)] =
        &[(Self::NAME, Abilities::LOCAL_RULE.and(Abilities::CLAMPING))];

    fn compile<T: Real>(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        let contrast = Box::new(|eta| {
            Contrast::from_free([Boundary::Clamped(eta)], [-Complex::ONE, Complex::ONE])
        });
        Ok(Box::new(Contrastive::new(
            setup,
            Strength::Given(1.0),
            Accumulation::Final,
            vec![contrast],
        )?))
    }
}
