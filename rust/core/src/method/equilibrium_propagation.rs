//! Equilibrium propagation (Scellier and Bengio 2017): the contrast of free and nudged steady
//! states.

use std::f64::consts::TAU;

use num_complex::Complex;
use pnncore_kernels::Real;
use serde::Deserialize;

use super::contrast::{Contrast, ContrastAt, Contrastive};
use super::strength::Strength;
use super::{CompiledMethod, MethodConfig, Setup};
use crate::plan::{Boundary, OfPhases};
use crate::settings::{at_least, at_most, nonzero};
use crate::settling::{OutputUpdate, Settling};
use crate::system::{Abilities, Accumulation};
use crate::{Error, Result};

/// The most points of a circle or a period: each is a phase of every sample.
pub(super) const MOST_POINTS: u32 = 1 << 16;

/// Which estimator of equilibrium propagation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Estimator {
    /// \[D(beta) - D(0)\] / beta, with D(beta) = dE/dtheta of the steady state: its bias is of
    /// order beta.
    OneSided,
    /// \[D(beta) - D(-beta)\] / 2 beta (Laborieux et al. 2021): its bias is of order beta^2.
    Centered,
    /// The first Fourier coefficient of D on a circle of radius beta (Laborieux and Zenke 2022):
    /// its bias is of order beta^points.
    Holomorphic,
}

/// The sign of beta of the one-sided estimator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    /// Towards the target.
    Positive,
    /// Away from it.
    Negative,
    /// Drawn anew for every step, which cancels the bias on average.
    Random,
}

/// Equilibrium propagation.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EquilibriumPropagation {
    /// Which estimator.
    pub variant: Estimator,
    /// The strength of nudging; the radius for the holomorphic estimator. `None`: the strength that
    /// displaces outputs by a fraction of their error.
    pub beta: Option<f64>,
    /// The sign of beta of the one-sided estimator.
    pub sign: Sign,
    /// The number of points on the circle of the holomorphic estimator.
    pub points: u32,
}

impl MethodConfig for EquilibriumPropagation {
    const NAME: &'static str = "EquilibriumPropagation";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[
        ("EquilibriumPropagation", Abilities::LOCAL_RULE),
        (
            "EquilibriumPropagation(variant=\"holomorphic\")",
            Abilities::LOCAL_RULE.and(Abilities::HOLOMORPHIC),
        ),
    ];

    fn variant(&self) -> usize {
        usize::from(self.variant == Estimator::Holomorphic)
    }

    fn check(&self, settling: &Settling) -> Result<()> {
        at_most("points", self.points, MOST_POINTS)?;
        let beta = self.beta.unwrap_or(1.0);
        nonzero("beta", beta)?;
        if beta < 0.0 {
            return Err(Error::Config(format!(
                "beta must be positive, got {beta}; to nudge away from the target use \
                 sign=\"negative\""
            )));
        }
        if self.variant != Estimator::OneSided && self.sign != Sign::Positive {
            return Err(Error::Config("sign applies to variant=\"one-sided\" only".into()));
        }
        if self.variant == Estimator::Holomorphic {
            at_least("points", self.points, 2)?;
            if settling.output_update == OutputUpdate::Explicit {
                return Err(Error::Config(
                    "output_update=\"explicit\" is for real beta only".into(),
                ));
            }
        }
        Ok(())
    }

    fn compile<T: Real>(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        let points = self.points;
        let contrasts: Vec<ContrastAt> = match (self.variant, self.sign) {
            (Estimator::OneSided, Sign::Positive) => vec![Box::new(one_sided)],
            (Estimator::OneSided, Sign::Negative) => vec![Box::new(|beta| one_sided(-beta))],
            (Estimator::OneSided, Sign::Random) => {
                vec![Box::new(one_sided), Box::new(|beta| one_sided(-beta))]
            }
            (Estimator::Centered, _) => vec![Box::new(centered)],
            (Estimator::Holomorphic, _) => vec![Box::new(move |beta| on_circle(beta, points))],
        };
        let strength = Strength::of(self.beta, 0.2, setup.system);
        Ok(Box::new(Contrastive::new(setup, strength, Accumulation::Final, contrasts)?))
    }
}

fn one_sided(beta: f64) -> Contrast {
    let beta = Complex::new(beta, 0.0);
    Contrast::from_free([Boundary::Nudged(beta)], [-beta.inv(), beta.inv()])
}

fn centered(beta: f64) -> Contrast {
    let (beta, weight) = (Complex::new(beta, 0.0), Complex::new(0.5 / beta, 0.0));
    Contrast::from_free([beta, -beta].map(Boundary::Nudged), [Complex::ZERO, weight, -weight])
}

/// D at conjugate points is conjugate: the upper half of the circle carries the weight of both.
fn on_circle(beta: f64, points: u32) -> Contrast {
    let n = f64::from(points);
    let (mut phases, mut weights) = (OfPhases::new(), OfPhases::from_iter([Complex::ZERO]));
    for k in 0..=points / 2 {
        let alone = k == 0 || 2 * k == points;
        // cos and sin of exactly 0 and pi, or a real phase would become a complex one.
        let turn = match k {
            0 => Complex::ONE,
            _ if alone => -Complex::ONE,
            _ => Complex::cis(TAU * f64::from(k) / n),
        };
        phases.push(Boundary::Nudged(turn * beta));
        weights.push(turn.conj() * if alone { 1.0 } else { 2.0 } / (n * beta));
    }
    Contrast::from_free(phases, weights)
}
