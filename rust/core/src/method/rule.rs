//! Which methods there are, and the ranges of their settings.

use serde::{Deserialize, Serialize};

use super::surrogate::Surrogate;
use crate::settling::{OutputUpdate, Settling};
use crate::system::stack::SurrogateDerivative;
use crate::{Error, Result};

/// The most points of a circle or a period: each is a phase of every sample.
const MOST_POINTS: u32 = 1 << 16;

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

/// A model of a stack of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// The twin: training in silico.
    Twin,
    /// The hardware itself: the exact gradient, which only a simulation has.
    Hardware,
}

/// What errors come back through in feedback alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feedback {
    /// Fixed random matrices.
    Random,
    /// The signs of the weights, times their initial deviation (Liao et al. 2016).
    SignSymmetric,
    /// Matrices that are changed as the weights are (Kolen and Pollack 1994, Akrout et al. 2019): both decay, and meet.
    KolenPollack,
}

/// Which method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", deny_unknown_fields)]
pub enum Rule {
    /// Equilibrium propagation (Scellier and Bengio 2017; centred: Laborieux et al. 2021; holomorphic: Laborieux and
    /// Zenke 2022).
    EquilibriumPropagation {
        /// Which estimator.
        variant: Estimator,
        /// The strength of nudging; the radius for the holomorphic estimator. `None`: the strength that displaces outputs by a fraction of their error.
        beta: Option<f64>,
        /// The sign of beta of the one-sided estimator.
        sign: Sign,
        /// The number of points on the circle of the holomorphic estimator.
        points: u32,
    },
    /// Frequency propagation (Anisetti et al. 2024): the output errors of the free state act as a constant force whose
    /// strength swings as amplitude sin(phi), slowly enough that the states follow; the update is what of dE/dtheta swings
    /// with it.
    FrequencyPropagation {
        /// The largest strength of the force. `None`: the strength that displaces outputs by a fraction of their error.
        amplitude: Option<f64>,
        /// The points of a period at which dE/dtheta is read.
        points: u32,
    },
    /// Agnostic equilibrium propagation (Scellier et al. 2022): the parameters are held by springs, theta of stiffness
    /// 1/epsilon to a control u, which is set so that they stay where they are in the free phase; nudged, they relax by
    /// themselves.
    AgnosticEquilibriumPropagation {
        /// The strength of nudging. `None`: the strength that displaces outputs by a fraction of their error.
        beta: Option<f64>,
        /// The softness of the springs. `None`: such that they give way by a thousandth of the largest parameter of a kind.
        epsilon: Option<f64>,
        /// How often parameters and states relax in turn.
        relaxations: u32,
    },
    /// Contrastive Hebbian learning (Movellan 1991): outputs clamped to the target, against free.
    ContrastiveLearning,
    /// Coupled learning (Stern et al. 2021): outputs clamped a fraction eta of the way to the target, against free.
    CoupledLearning {
        /// The fraction of the way.
        eta: f64,
        /// Which phases are compared.
        variant: Side,
    },
    /// The exact gradient of the loss at the free equilibrium, by the implicit function theorem.
    ImplicitDifferentiation,
    /// Recurrent backpropagation (Almeida 1987, Pineda 1987): the adjoint state relaxes for a number of steps; the same
    /// as backpropagation through that many steps of settling at the steady state.
    RecurrentBackprop {
        /// Steps of the adjoint.
        steps: u32,
    },
    /// Backpropagation through a model of the layers.
    Backprop {
        /// Which model.
        model: Model,
        /// The standard deviation of noise that is added to the outputs of every layer of the twin.
        noise: f64,
        /// By how much, relatively, the twin's constants are off, drawn anew for every batch (vaccination).
        vaccination: f64,
    },
    /// Physics-aware training (Wright et al. 2022): forward on the hardware, back through the twin's Jacobians at the measured
    /// signals.
    PhysicsAware,
    /// Feedback alignment (Lillicrap et al. 2016): errors come back through matrices that are not the transposed weights.
    FeedbackAlignment {
        /// Which matrices.
        feedback: Feedback,
    },
    /// Direct feedback alignment (Nøkland 2016): the output error goes straight to every linear layer, through fixed random
    /// matrices. Augmented (Nakajima et al. 2022): pointwise layers answer with another function than their slope.
    DirectFeedbackAlignment {
        /// How pointwise layers answer.
        slope: SurrogateDerivative,
    },
    /// Forward-forward (Hinton 2022): every layer learns to tell rows with true labels among their inputs from rows with wrong
    /// ones, by its goodness, the sum of squares of its outputs.
    ForwardForward {
        /// How many of the last inputs carry the label.
        classes: u32,
        /// The goodness per output that lies between the two.
        threshold: f64,
    },
    /// Physical local learning (Momeni et al. 2023), in its pair-contrastive form: every linear map learns to make the outputs of
    /// two samples of a class more alike than those of two classes, in their cosine. The last one is a readout, and learns
    /// from the loss. Nothing goes back through the physics.
    PhysicalLocalLearning {
        /// How steep the comparison is.
        tau: f64,
    },
    /// Central differences of the loss by every parameter.
    FiniteDifference {
        /// How far parameters are moved. `None`: [`usual`](Rule::usual_step), where parameters have no units.
        epsilon: Option<f64>,
    },
    /// The gradient through a model of the outputs, which is fitted to what was measured step by step.
    SurrogateOptimization {
        /// Units of each of the two hidden layers of the model.
        hidden: u32,
        /// Measured samples that are kept to fit it to.
        samples: u32,
        /// Steps of fitting per step.
        fits: u32,
        /// The rate of fitting.
        rate: f64,
        /// The standard deviation of what is added to parameters to see what they do.
        exploration: Option<f64>,
        /// Passes per step with such parameters, besides the one with the present ones.
        explorers: u32,
    },
    /// Signals through the hardware, and errors back through it, where it can be run backwards; elsewhere through the twin.
    InSituBackprop,
    /// The mean over random directions of each times the slope of the loss along it, which twins tell without a way back.
    ForwardGradient {
        /// Directions per step.
        directions: u32,
    },
    /// Simultaneous perturbation (Spall 1992): central differences along random directions of signs.
    SPSA {
        /// How far parameters are moved. `None`: [`usual`](Rule::usual_step), where parameters have no units.
        epsilon: Option<f64>,
        /// Directions per step.
        directions: u32,
    },
    /// Evolution strategies with antithetic Gaussian perturbations (Salimans et al. 2017), or PEPG (Sehnke et al. 2010), which
    /// adapts the deviation of every parameter.
    EvolutionStrategy {
        /// The standard deviation of perturbations; with adaptation, at first.
        sigma: Option<f64>,
        /// Pairs of candidates per step.
        pairs: u32,
        /// How fast deviations adapt; 0: not at all.
        adaptation: f64,
    },
    /// One parameter after the other moves to the bottom of the parabola through three losses.
    CoordinateDescent {
        /// How far parameters are moved to either side. `None`: as above.
        epsilon: Option<f64>,
        /// Parameters tried per step.
        coordinates: u32,
    },
    /// Covariance matrix adaptation (Hansen and Ostermeier 2001).
    CMAES {
        /// The standard deviation of candidates at first.
        sigma: Option<f64>,
        /// Candidates per step; `None`: 4 + 3 ln D.
        population: Option<u32>,
    },
    /// A genetic algorithm: tournaments, uniform crossover, Gaussian mutation; the best two survive.
    GeneticAlgorithm {
        /// Candidates per step.
        population: u32,
        /// The standard deviation of mutations.
        mutation: Option<f64>,
    },
    /// Ridge regression of the last linear layer, batch by batch: reservoir computing, and recursive least squares.
    RidgeReadout {
        /// What is added to the squares of features.
        regularization: f64,
        /// By what earlier batches are multiplied.
        forgetting: f64,
    },
    /// Parameter shift: differences of measured intensities at phases a quarter turn to either side are their derivatives.
    ParameterShift,
}

impl Rule {
    /// The rule as one that fits a model online.
    pub(super) fn surrogate(&self) -> Option<Surrogate> {
        match *self {
            Self::SurrogateOptimization { hidden, samples, fits, rate, exploration, explorers } => Some(Surrogate {
                hidden: hidden as usize,
                samples: samples as usize,
                fits: fits as usize,
                rate,
                exploration: exploration.unwrap_or_default(),
                explorers: explorers as usize,
            }),
            _ => None,
        }
    }

    /// The name and the usual value of how far candidates are from the present parameters, where it was left open: for
    /// parameters that are plain numbers, such as the weights of a network. Elsewhere it has their units, and must be given.
    pub fn usual_step(&self) -> Option<(&'static str, f64)> {
        match self {
            Self::FiniteDifference { epsilon: None } | Self::SPSA { epsilon: None, .. } => Some(("epsilon", 1e-2)),
            Self::CoordinateDescent { epsilon: None, .. } => Some(("epsilon", 0.3)),
            Self::EvolutionStrategy { sigma: None, .. } => Some(("sigma", 0.1)),
            Self::CMAES { sigma: None, .. } => Some(("sigma", 0.3)),
            Self::GeneticAlgorithm { mutation: None, .. } => Some(("mutation", 0.05)),
            Self::SurrogateOptimization { exploration: None, .. } => Some(("exploration", 0.2)),
            _ => None,
        }
    }

    /// The rule with this step.
    pub(super) fn with_step(&self, step: f64) -> Self {
        let mut rule = self.clone();
        match &mut rule {
            Self::FiniteDifference { epsilon: open }
            | Self::SPSA { epsilon: open, .. }
            | Self::CoordinateDescent { epsilon: open, .. }
            | Self::EvolutionStrategy { sigma: open, .. }
            | Self::CMAES { sigma: open, .. }
            | Self::GeneticAlgorithm { mutation: open, .. }
            | Self::SurrogateOptimization { exploration: open, .. } => *open = Some(step),
            _ => {}
        }
        rule
    }

    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting, what it is and what it may be.
    pub(super) fn check(&self, settling: &Settling) -> Result<()> {
        let finite = |name: &str, x: f64| {
            if x.is_finite() && x != 0.0 {
                Ok(())
            } else {
                Err(Error::Config(format!("{name} must be a finite number other than 0, got {x}")))
            }
        };
        match self {
            Self::EquilibriumPropagation { points, .. } | Self::FrequencyPropagation { points, .. }
                if *points > MOST_POINTS =>
            {
                Err(Error::Config(format!("points must be at most {MOST_POINTS}, got {points}")))
            }
            Self::EquilibriumPropagation { variant, beta, sign, points } => {
                let beta = beta.unwrap_or(1.0);
                finite("beta", beta)?;
                if beta < 0.0 {
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
            Self::FrequencyPropagation { amplitude, points } => {
                let amplitude = amplitude.unwrap_or(1.0);
                if !(amplitude > 0.0 && amplitude.is_finite()) {
                    return Err(Error::Config(format!("amplitude must be a positive number, got {amplitude}")));
                }
                if *points < 4 || points % 4 != 0 {
                    return Err(Error::Config(format!("points must be a multiple of 4, got {points}")));
                }
                Ok(())
            }
            Self::AgnosticEquilibriumPropagation { beta, epsilon, relaxations } => {
                finite("beta", beta.unwrap_or(1.0))?;
                let epsilon = epsilon.unwrap_or(1.0);
                if !(epsilon > 0.0 && epsilon.is_finite()) {
                    return Err(Error::Config(format!("epsilon must be a positive number, got {epsilon}")));
                }
                if *relaxations == 0 {
                    return Err(Error::Config("relaxations must be at least 1, got 0".into()));
                }
                Ok(())
            }
            Self::RecurrentBackprop { steps: 0 } => Err(Error::Config("steps must be at least 1, got 0".into())),
            Self::Backprop { model, noise, vaccination } => {
                for (name, value) in [("noise", *noise), ("vaccination", *vaccination)] {
                    if !(value >= 0.0 && value.is_finite()) {
                        return Err(Error::Config(format!("{name} must be at least 0 and finite, got {value}")));
                    }
                    if value > 0.0 && *model == Model::Hardware {
                        return Err(Error::Config(format!("{name} is for model=\"twin\" only")));
                    }
                }
                Ok(())
            }
            Self::FiniteDifference { epsilon }
            | Self::SPSA { epsilon, .. }
            | Self::CoordinateDescent { epsilon, .. }
                if epsilon.is_some_and(|epsilon| !(epsilon > 0.0 && epsilon.is_finite())) =>
            {
                Err(Error::Config(format!("epsilon must be a positive number, got {}", epsilon.unwrap_or_default())))
            }
            Self::ForwardForward { classes, .. } if *classes < 2 => {
                Err(Error::Config(format!("classes must be at least 2, got {classes}")))
            }
            Self::ForwardForward { threshold: value, .. } | Self::PhysicalLocalLearning { tau: value }
                if !(*value > 0.0 && value.is_finite()) =>
            {
                let name = if matches!(self, Self::ForwardForward { .. }) { "threshold" } else { "tau" };
                Err(Error::Config(format!("{name} must be a positive number, got {value}")))
            }
            Self::CMAES { sigma: Some(value), .. } | Self::GeneticAlgorithm { mutation: Some(value), .. }
                if !(*value > 0.0 && value.is_finite()) =>
            {
                let name = if matches!(self, Self::CMAES { .. }) { "sigma" } else { "mutation" };
                Err(Error::Config(format!("{name} must be a positive number, got {value}")))
            }
            Self::CMAES { population: Some(0..4), .. } | Self::GeneticAlgorithm { population: 0..4, .. } => {
                Err(Error::Config("population must be at least 4".into()))
            }
            Self::RidgeReadout { regularization, forgetting } => {
                if !(*regularization >= 0.0 && regularization.is_finite()) {
                    let text = format!("regularization must be at least 0 and finite, got {regularization}");
                    return Err(Error::Config(text));
                }
                if !(*forgetting > 0.0 && *forgetting <= 1.0) {
                    return Err(Error::Config(format!("forgetting must be in (0, 1], got {forgetting}")));
                }
                Ok(())
            }
            Self::SurrogateOptimization { hidden, samples, fits, explorers, rate, exploration } => {
                for (name, n) in [("hidden", hidden), ("samples", samples), ("fits", fits), ("explorers", explorers)] {
                    if *n == 0 {
                        return Err(Error::Config(format!("{name} must be at least 1, got 0")));
                    }
                }
                for (name, value) in [("rate", *rate), ("exploration", exploration.unwrap_or(1.0))] {
                    if !(value > 0.0 && value.is_finite()) {
                        return Err(Error::Config(format!("{name} must be a positive number, got {value}")));
                    }
                }
                Ok(())
            }
            Self::SPSA { directions: 0, .. } | Self::ForwardGradient { directions: 0 } => {
                Err(Error::Config("directions must be at least 1, got 0".into()))
            }
            Self::CoordinateDescent { coordinates: 0, .. } => {
                Err(Error::Config("coordinates must be at least 1, got 0".into()))
            }
            Self::EvolutionStrategy { sigma, pairs, adaptation } => {
                let sigma = sigma.unwrap_or(1.0);
                if !(sigma > 0.0 && sigma.is_finite()) {
                    return Err(Error::Config(format!("sigma must be a positive number, got {sigma}")));
                }
                if *pairs == 0 {
                    return Err(Error::Config("pairs must be at least 1, got 0".into()));
                }
                if !(*adaptation >= 0.0 && adaptation.is_finite()) {
                    return Err(Error::Config(format!("adaptation must be at least 0 and finite, got {adaptation}")));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
