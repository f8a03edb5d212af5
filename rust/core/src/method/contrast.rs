//! The contrastive family: which phases a method settles, and with which weights it combines what they show.

use std::f64::consts::TAU;

use num_complex::Complex;

use super::rule::{Estimator, Rule, Side, Sign};
use crate::plan::Boundary;

impl Rule {
    /// The phases after the free one, and the weight of every phase, the free one first; for the sign `sign` where it
    /// is random.
    pub(super) fn contrast(&self, sign: f64) -> (Vec<Boundary>, Vec<Complex<f64>>) {
        let real = |x: f64| Complex::new(x, 0.0);
        match *self {
            Self::EquilibriumPropagation { variant, beta: Some(beta), points, .. } => match variant {
                Estimator::OneSided => {
                    let beta = real(sign * beta);
                    (vec![Boundary::Nudged(beta)], vec![-beta.inv(), beta.inv()])
                }
                Estimator::Centered => {
                    let (beta, weight) = (real(beta), real(0.5 / beta));
                    (vec![Boundary::Nudged(beta), Boundary::Nudged(-beta)], vec![Complex::ZERO, weight, -weight])
                }
                Estimator::Holomorphic => {
                    // D at conjugate points is conjugate: the upper half of the circle carries the weight of both.
                    let n = f64::from(points);
                    let (mut phases, mut weights) = (Vec::new(), vec![Complex::ZERO]);
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
                    (phases, weights)
                }
            },
            Self::FrequencyPropagation { amplitude: Some(amplitude), points, .. } => {
                // Points of equal force are one phase: those at phi and pi - phi, so that a quarter of the period and its
                // mirror image are all there is. Where sin(phi) is 0 nothing is read.
                let n = f64::from(points);
                let (mut phases, mut weights) = (Vec::new(), vec![Complex::ZERO]);
                for k in 1..=points / 4 {
                    let swing = (TAU * f64::from(k) / n).sin();
                    let copies = if 4 * k == points { 1.0 } else { 2.0 };
                    for sign in [1.0, -1.0] {
                        phases.push(Boundary::Forced(sign * amplitude * swing));
                        weights.push(real(sign * 2.0 * copies * swing / (n * amplitude)));
                    }
                }
                (phases, weights)
            }
            Self::AgnosticEquilibriumPropagation { beta: Some(beta), .. } => {
                (vec![Boundary::Nudged(real(beta))], vec![real(-1.0), real(1.0)])
            }
            Self::ContrastiveLearning => (vec![Boundary::Clamped(1.0)], vec![real(-1.0), real(1.0)]),
            Self::CoupledLearning { eta, variant, .. } => match variant {
                Side::Positive => (vec![Boundary::Clamped(eta)], vec![real(-1.0 / eta), real(1.0 / eta)]),
                Side::Negative => (vec![Boundary::Clamped(-eta)], vec![real(1.0 / eta), real(-1.0 / eta)]),
                Side::Centered => {
                    let weight = real(0.5 / eta);
                    let phases = vec![Boundary::Clamped(eta), Boundary::Clamped(-eta)];
                    (phases, vec![Complex::ZERO, weight, -weight])
                }
            },
            _ => (Vec::new(), vec![Complex::ZERO]),
        }
    }

    pub(super) fn random_sign(&self) -> bool {
        matches!(self, Self::EquilibriumPropagation { variant: Estimator::OneSided, sign: Sign::Random, .. })
    }

    /// The signs of beta that may occur.
    pub(super) fn signs(&self) -> &'static [f64] {
        match self {
            Self::EquilibriumPropagation { variant: Estimator::OneSided, sign, .. } => match sign {
                Sign::Positive => &[1.0],
                Sign::Negative => &[-1.0],
                Sign::Random => &[1.0, -1.0],
            },
            _ => &[1.0],
        }
    }
}
