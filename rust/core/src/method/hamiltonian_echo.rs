//! Hamiltonian echo backpropagation (Lopez-Pastor and Marquardt, Phys. Rev. X 13, 031020, 2023):
//! run, turn round, kick by the error, run again.
//!
//! A kick of the turned momenta by epsilon dL/dq moves the echo along the adjoint of the motion, so
//! that dL/dtheta is minus the derivative by epsilon of the integral of dH/dtheta along it. Two
//! kicks, to either side, leave an error of order epsilon^2. Exact for motions that run backwards;
//! damping spoils the echo.

use num_complex::Complex;
use pnncore_kernels::Real;
use serde::Deserialize;

use super::contrast::{Contrast, Contrastive};
use super::strength::Strength;
use super::{CompiledMethod, MethodConfig, Setup};
use crate::Result;
use crate::plan::{Boundary, Phase, Start};
use crate::settings::positive;
use crate::settling::Settling;
use crate::system::{Abilities, Accumulation};

/// Hamiltonian echo backpropagation.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HamiltonianEcho {
    /// How hard errors kick, in units of time: a momentum per dL/dq.
    pub kick: f64,
}

impl MethodConfig for HamiltonianEcho {
    const NAME: &'static str = "HamiltonianEcho";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::ECHOES)];

    fn check(&self, _settling: &Settling) -> Result<()> {
        positive("kick", self.kick)
    }

    fn compile<T: Real>(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        let contrast = Box::new(|kick: f64| {
            let weight = Complex::new(0.5 / kick, 0.0);
            let kicked =
                |kick: f64| Phase { start: Start::Reversed(0), boundary: Boundary::Kicked(kick) };
            Contrast {
                phases: [kick, -kick].map(kicked).into_iter().collect(),
                weights: [Complex::ZERO, -weight, weight].into_iter().collect(),
            }
        });
        let strength = Strength::Given(self.kick);
        Ok(Box::new(Contrastive::new(setup, strength, Accumulation::Integral, vec![contrast])?))
    }
}
