//! Training methods: how a batch becomes a gradient.
//!
//! A method is a set of experiments and a local rule. [`Method`] is its configuration; [`Protocol`] is the
//! configuration compiled for a system; [`Scratch`] is the memory of its steps.

mod agnostic;
mod implicit;

use std::f64::consts::TAU;

use num_complex::Complex;
use pnncore_kernels::Real;
use pnncore_kernels::philox::Purpose;
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, Targets};
use crate::lab::Lab;
use crate::loss::Loss;
use crate::params::Params;
use crate::system::{System, Workspace};
use crate::trial::{Boundary, OutputUpdate, Plan, Settling, Stop, Trial};
use crate::update::LocalUpdate;
use crate::{Error, Result};

/// Which estimator of equilibrium propagation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Estimator {
    /// \[D(beta) - D(0)\] / beta.
    OneSided,
    /// \[D(beta) - D(-beta)\] / 2 beta.
    Centered,
    /// The first Fourier coefficient of D on a circle of radius beta.
    Holomorphic,
}

/// The sign of beta of the one-sided estimator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    /// Towards the target.
    Positive,
    /// Away from it.
    Negative,
    /// Drawn anew for every step, which cancels the bias on average.
    Random,
}

/// Which phases coupled learning compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Outputs clamped towards the target, against free.
    Positive,
    /// Free, against outputs clamped away from the target.
    Negative,
    /// Clamped towards, against clamped away.
    Centered,
}

/// The configuration of a training method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", deny_unknown_fields)]
pub enum Method {
    /// Equilibrium propagation (Scellier and Bengio 2017; centred: Laborieux et al. 2021; holomorphic: Laborieux and
    /// Zenke 2022).
    EquilibriumPropagation {
        /// Which estimator.
        variant: Estimator,
        /// The strength of nudging; the radius for the holomorphic estimator.
        beta: f64,
        /// The sign of beta of the one-sided estimator.
        sign: Sign,
        /// The number of points on the circle of the holomorphic estimator.
        points: u32,
        /// The loss.
        loss: Loss,
        /// How phases are settled.
        settling: Settling,
    },
    /// Frequency propagation (Anisetti et al. 2024): the output errors of the free state act as a constant force whose
    /// strength swings as amplitude sin(phi), slowly enough that the states follow; the update is what of dE/dtheta swings
    /// with it.
    FrequencyPropagation {
        /// The largest strength of the force.
        amplitude: f64,
        /// The points of a period at which dE/dtheta is read.
        points: u32,
        /// The loss.
        loss: Loss,
        /// How phases are settled.
        settling: Settling,
    },
    /// Agnostic equilibrium propagation (Scellier et al. 2022): the parameters are held by springs, theta of stiffness
    /// 1/epsilon to a control u, which is set so that they stay where they are in the free phase; nudged, they relax by
    /// themselves.
    AgnosticEquilibriumPropagation {
        /// The strength of nudging.
        beta: f64,
        /// The softness of the springs.
        epsilon: f64,
        /// How often parameters and states relax in turn.
        relaxations: u32,
        /// The loss.
        loss: Loss,
        /// How phases are settled.
        settling: Settling,
    },
    /// Contrastive Hebbian learning (Movellan 1991): outputs clamped to the target, against free.
    ContrastiveLearning {
        /// The loss that is reported and measures output errors; the update does not use it.
        loss: Loss,
        /// How phases are settled.
        settling: Settling,
    },
    /// Coupled learning (Stern et al. 2021): outputs clamped a fraction eta of the way to the target, against free.
    CoupledLearning {
        /// The fraction of the way.
        eta: f64,
        /// Which phases are compared.
        variant: Side,
        /// The loss that is reported and measures output errors; the update does not use it.
        loss: Loss,
        /// How phases are settled.
        settling: Settling,
    },
    /// The exact gradient of the loss at the free equilibrium, by the implicit function theorem.
    ImplicitDifferentiation {
        /// The loss.
        loss: Loss,
        /// How the free phase is settled.
        settling: Settling,
    },
    /// Recurrent backpropagation (Almeida 1987, Pineda 1987): the adjoint state relaxes for a number of steps; the same
    /// as backpropagation through that many steps of settling at the steady state.
    RecurrentBackprop {
        /// Steps of the adjoint.
        steps: u32,
        /// The loss.
        loss: Loss,
        /// How the free phase is settled.
        settling: Settling,
    },
}

/// What a method asks of a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// An energy whose dE/dtheta can be read.
    Energy,
    /// The same, with a steady state that is holomorphic in beta.
    HolomorphicEnergy,
    /// Products with the Hessian of the energy: a simulation.
    Exact,
}

impl Needs {
    /// In words, after "needs".
    pub fn describe(self) -> &'static str {
        match self {
            Self::Energy => "a steady state that minimises an energy",
            Self::HolomorphicEnergy => {
                "an energy that is holomorphic in its states (smooth units, such as activation=\"tanh\")"
            }
            Self::Exact => "exact derivatives of the energy, which only a simulation has",
        }
    }

    fn met_by<T: Real>(self, system: &dyn System<T>) -> bool {
        match self {
            Self::Energy => system.as_energetic().is_some(),
            Self::HolomorphicEnergy => system.as_energetic().is_some() && system.is_holomorphic(),
            Self::Exact => system.as_exact().is_some(),
        }
    }
}

/// All methods, by the call that makes one, with what they need.
pub const METHODS: [(&str, Needs); 8] = [
    ("EquilibriumPropagation", Needs::Energy),
    ("EquilibriumPropagation(variant=\"holomorphic\")", Needs::HolomorphicEnergy),
    ("FrequencyPropagation", Needs::Energy),
    ("AgnosticEquilibriumPropagation", Needs::Energy),
    ("ContrastiveLearning", Needs::Energy),
    ("CoupledLearning", Needs::Energy),
    ("ImplicitDifferentiation", Needs::Exact),
    ("RecurrentBackprop", Needs::Exact),
];

/// The methods that can train a system.
pub fn methods_for<T: Real>(system: &dyn System<T>) -> Vec<&'static str> {
    METHODS.iter().filter(|(_, needs)| needs.met_by(system)).map(|(name, _)| *name).collect()
}

impl Method {
    /// The name in [`METHODS`].
    pub fn name(&self) -> &'static str {
        match self {
            Self::EquilibriumPropagation { variant: Estimator::Holomorphic, .. } => METHODS[1].0,
            Self::EquilibriumPropagation { .. } => METHODS[0].0,
            Self::FrequencyPropagation { .. } => METHODS[2].0,
            Self::AgnosticEquilibriumPropagation { .. } => METHODS[3].0,
            Self::ContrastiveLearning { .. } => METHODS[4].0,
            Self::CoupledLearning { .. } => METHODS[5].0,
            Self::ImplicitDifferentiation { .. } => METHODS[6].0,
            Self::RecurrentBackprop { .. } => METHODS[7].0,
        }
    }

    /// What the method asks of a system.
    pub fn needs(&self) -> Needs {
        METHODS.iter().find(|(name, _)| *name == self.name()).map_or(Needs::Exact, |(_, needs)| *needs)
    }

    /// The loss.
    pub fn loss(&self) -> Loss {
        match self {
            Self::EquilibriumPropagation { loss, .. }
            | Self::FrequencyPropagation { loss, .. }
            | Self::AgnosticEquilibriumPropagation { loss, .. }
            | Self::ContrastiveLearning { loss, .. }
            | Self::CoupledLearning { loss, .. }
            | Self::ImplicitDifferentiation { loss, .. }
            | Self::RecurrentBackprop { loss, .. } => *loss,
        }
    }

    /// How phases are settled.
    pub fn settling(&self) -> Settling {
        match self {
            Self::EquilibriumPropagation { settling, .. }
            | Self::FrequencyPropagation { settling, .. }
            | Self::AgnosticEquilibriumPropagation { settling, .. }
            | Self::ContrastiveLearning { settling, .. }
            | Self::CoupledLearning { settling, .. }
            | Self::ImplicitDifferentiation { settling, .. }
            | Self::RecurrentBackprop { settling, .. } => *settling,
        }
    }

    /// The phases after the free one, and the weight of every phase, the free one first; for the sign `sign` where it
    /// is random.
    fn contrast(&self, sign: f64) -> (Vec<Boundary>, Vec<Complex<f64>>) {
        let real = |x: f64| Complex::new(x, 0.0);
        match *self {
            Self::EquilibriumPropagation { variant, beta, points, .. } => match variant {
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
            Self::FrequencyPropagation { amplitude, points, .. } => {
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
            Self::AgnosticEquilibriumPropagation { beta, .. } => {
                (vec![Boundary::Nudged(real(beta))], vec![real(-1.0), real(1.0)])
            }
            Self::ContrastiveLearning { .. } => (vec![Boundary::Clamped(1.0)], vec![real(-1.0), real(1.0)]),
            Self::CoupledLearning { eta, variant, .. } => match variant {
                Side::Positive => (vec![Boundary::Clamped(eta)], vec![real(-1.0 / eta), real(1.0 / eta)]),
                Side::Negative => (vec![Boundary::Clamped(-eta)], vec![real(1.0 / eta), real(-1.0 / eta)]),
                Side::Centered => {
                    let weight = real(0.5 / eta);
                    let phases = vec![Boundary::Clamped(eta), Boundary::Clamped(-eta)];
                    (phases, vec![Complex::ZERO, weight, -weight])
                }
            },
            Self::ImplicitDifferentiation { .. } | Self::RecurrentBackprop { .. } => (Vec::new(), vec![Complex::ZERO]),
        }
    }

    fn random_sign(&self) -> bool {
        matches!(self, Self::EquilibriumPropagation { variant: Estimator::OneSided, sign: Sign::Random, .. })
    }

    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting, what it is and what it may be.
    pub fn check(&self) -> Result<()> {
        self.settling().check()?;
        let finite = |name: &str, x: f64| {
            if x.is_finite() && x != 0.0 {
                Ok(())
            } else {
                Err(Error::Config(format!("{name} must be a finite number other than 0, got {x}")))
            }
        };
        match self {
            Self::EquilibriumPropagation { variant, beta, sign, points, settling, .. } => {
                finite("beta", *beta)?;
                if *beta < 0.0 {
                    return Err(Error::Config(format!(
                        "beta must be positive, got {beta}; to nudge away from the target use sign=\"negative\""
                    )));
                }
                if *variant != Estimator::OneSided && *sign != Sign::Positive {
                    return Err(Error::Config("sign applies to variant=\"one-sided\" only".into()));
                }
                if *variant == Estimator::Holomorphic && *points < 2 {
                    return Err(Error::Config(format!("points must be at least 2, got {points}")));
                }
                if *variant == Estimator::Holomorphic && settling.output_update == OutputUpdate::Explicit {
                    return Err(Error::Config("output_update=\"explicit\" is for real beta only".into()));
                }
                Ok(())
            }
            Self::CoupledLearning { eta, .. } => {
                finite("eta", *eta)?;
                if *eta > 0.0 && *eta <= 1.0 {
                    return Ok(());
                }
                Err(Error::Config(format!("eta must be in (0, 1], got {eta}")))
            }
            Self::FrequencyPropagation { amplitude, points, .. } => {
                if !(*amplitude > 0.0 && amplitude.is_finite()) {
                    return Err(Error::Config(format!("amplitude must be a positive number, got {amplitude}")));
                }
                if *points < 4 || points % 4 != 0 {
                    return Err(Error::Config(format!("points must be a multiple of 4, got {points}")));
                }
                Ok(())
            }
            Self::AgnosticEquilibriumPropagation { beta, epsilon, relaxations, .. } => {
                finite("beta", *beta)?;
                if !(*epsilon > 0.0 && epsilon.is_finite()) {
                    return Err(Error::Config(format!("epsilon must be a positive number, got {epsilon}")));
                }
                if *relaxations == 0 {
                    return Err(Error::Config("relaxations must be at least 1, got 0".into()));
                }
                Ok(())
            }
            Self::RecurrentBackprop { steps: 0, .. } => Err(Error::Config("steps must be at least 1, got 0".into())),
            _ => Ok(()),
        }
    }

    /// The signs of beta that may occur.
    fn signs(&self) -> &'static [f64] {
        match self {
            Self::EquilibriumPropagation { variant: Estimator::OneSided, sign, .. } => match sign {
                Sign::Positive => &[1.0],
                Sign::Negative => &[-1.0],
                Sign::Random => &[1.0, -1.0],
            },
            _ => &[1.0],
        }
    }

    /// Compiles the method for a system.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, [`Error::Capability`] where the system lacks an ability, naming the
    /// methods that train it.
    pub fn protocol<T: Real>(&self, system: &dyn System<T>) -> Result<Protocol> {
        self.check()?;
        let needs = self.needs();
        if !needs.met_by(system) {
            let others = methods_for(system);
            let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
            return Err(Error::Capability(format!(
                "{} needs {}; {} does not have that. Methods that train this system: {others}",
                self.name(),
                needs.describe(),
                system.name(),
            )));
        }
        if let Some(settling) = system.as_settling() {
            for sign in self.signs() {
                for phase in self.contrast(*sign).0 {
                    if let Boundary::Nudged(beta) = phase {
                        settling.check_nudge(self.loss(), beta)?;
                    }
                }
            }
        }
        let mut settling = self.settling();
        if needs == Needs::Exact && settling.stop == Stop::Automatic {
            // The implicit function theorem holds at the steady state, not near it.
            settling.stop = Stop::Absolute(256.0 * T::EPSILON.to_f64());
        }
        let contrasts = (self.signs().iter())
            .map(|&sign| {
                let (phases, weights) = self.contrast(sign);
                let measures_free = phases.is_empty() || weights[0] != Complex::ZERO;
                Contrast { plan: Plan { loss: self.loss(), phases, settling, measures_free }, weights }
            })
            .collect();
        Ok(Protocol { method: self.clone(), contrasts })
    }
}

/// Phases and their weights.
#[derive(Debug, Clone)]
struct Contrast {
    plan: Plan,
    weights: Vec<Complex<f64>>,
}

/// A method compiled for a system: what each step does.
#[derive(Debug, Clone)]
pub struct Protocol {
    method: Method,
    /// One per sign of beta.
    contrasts: Vec<Contrast>,
}

/// The memory of a method's steps, and what the last one found.
#[derive(Debug)]
pub struct Scratch<T> {
    /// The states of the last step.
    pub trial: Trial<T>,
    /// The gradient of the last step, factored.
    pub update: LocalUpdate<T>,
    workspace: Workspace,
}

impl<T: Real> Scratch<T> {
    /// Memory for the steps on a system.
    pub fn new(system: &dyn System<T>) -> Self {
        Self { trial: Trial::new(system.layout()), update: LocalUpdate::default(), workspace: system.workspace() }
    }
}

impl Protocol {
    /// The loss of the method.
    pub fn loss(&self) -> Loss {
        self.method.loss()
    }

    /// Runs the experiments of a step, and leaves states and gradient in `scratch`.
    ///
    /// # Errors
    /// [`Error::Config`] without targets; what the system may fail with.
    pub fn step<T: Real>(
        &self,
        lab: &Lab,
        system: &dyn System<T>,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        step: u64,
        scratch: &mut Scratch<T>,
    ) -> Result<()> {
        if matches!(batch.y, Targets::None) {
            return Err(Error::Config("training needs targets".into()));
        }
        let missing = || Error::Capability(format!("{} does not settle to an energy minimum", system.name()));
        if self.method.needs() == Needs::Exact {
            let system = system.as_exact().ok_or_else(missing)?;
            return implicit::step(lab, &self.method, &self.contrasts[0].plan, system, params, batch, scratch);
        }
        if let Method::AgnosticEquilibriumPropagation { beta, epsilon, relaxations, .. } = self.method {
            let system = system.as_energetic().ok_or_else(missing)?;
            let springs = agnostic::Springs { beta, epsilon, relaxations };
            return springs.step(lab, &self.contrasts[0].plan, system, params, batch, scratch);
        }
        let negative = self.method.random_sign() && lab.random(Purpose::Method).words(step, 0)[0] & 1 == 1;
        let Contrast { plan, weights } = &self.contrasts[usize::from(negative)];
        let system = system.as_energetic().ok_or_else(missing)?;
        scratch.trial.reset(batch.len(), plan.rows_per_sample(), plan.is_complex());
        system.settle(lab, params, batch, plan, &mut scratch.trial, &mut scratch.workspace)?;
        system.local_update(lab, params, batch, &scratch.trial, weights, &mut scratch.workspace, &mut scratch.update)
    }
}
