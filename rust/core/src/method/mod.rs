//! Training methods: how a batch becomes a gradient, or a change of the parameters.
//!
//! A method is a set of experiments and a local rule. Each has a file of its own: its settings
//! ([`MethodConfig`]), what it needs of a system, what it keeps from step to step, and its step
//! ([`CompiledMethod`]). [`Method`] is a choice of one, with a loss; [`Protocol`] is that choice
//! compiled for a system; [`StepState`] is the memory of its steps.
//!
//! To add a method: write its file, a `mod` line for it, and a line in `METHODS`.

mod candidates;
mod choice;
mod contrast;
mod cost;
mod pairs;
mod propagated;
mod protocol;
mod state;
mod strength;

pub mod agnostic_equilibrium_propagation;
pub mod backprop;
pub mod cmaes;
pub mod contrastive_learning;
pub mod coordinate_descent;
pub mod coupled_learning;
pub mod direct_feedback_alignment;
pub mod equilibrium_propagation;
pub mod evolution_strategy;
pub mod feedback_alignment;
pub mod finite_difference;
pub mod forward_forward;
pub mod forward_gradient;
pub mod forward_mode_learning;
pub mod frequency_propagation;
pub mod genetic_algorithm;
pub mod hamiltonian_echo;
pub mod implicit_differentiation;
pub mod in_situ_backprop;
pub mod parameter_shift;
pub mod physical_local_learning;
pub mod physics_aware;
pub mod recurrent_backprop;
pub mod ridge_readout;
pub mod spsa;
pub mod surrogate_optimization;

use pnncore_kernels::Real;
use serde::de::DeserializeOwned;

use crate::Result;
use crate::loss::Loss;
use crate::optim::Optimizer;
use crate::params::ParamSpec;
use crate::runtime::Runtime;
use crate::settling::Settling;
use crate::system::{Abilities, Experiment, System};
use crate::update::LocalUpdate;

use choice::Entry;
pub use choice::{AnyMethod, Compile, Method, methods_for, variants};
pub use cost::Cost;
pub use protocol::Protocol;
pub use state::{StepResult, StepState};

/// All methods, in the order in which they are listed.
static METHODS: &[Entry] = &[
    Entry::of::<equilibrium_propagation::EquilibriumPropagation>(),
    Entry::of::<frequency_propagation::FrequencyPropagation>(),
    Entry::of::<agnostic_equilibrium_propagation::AgnosticEquilibriumPropagation>(),
    Entry::of::<contrastive_learning::ContrastiveLearning>(),
    Entry::of::<coupled_learning::CoupledLearning>(),
    Entry::of::<implicit_differentiation::ImplicitDifferentiation>(),
    Entry::of::<recurrent_backprop::RecurrentBackprop>(),
    Entry::of::<backprop::Backprop>(),
    Entry::of::<physics_aware::PhysicsAware>(),
    Entry::of::<feedback_alignment::FeedbackAlignment>(),
    Entry::of::<direct_feedback_alignment::DirectFeedbackAlignment>(),
    Entry::of::<forward_forward::ForwardForward>(),
    Entry::of::<physical_local_learning::PhysicalLocalLearning>(),
    Entry::of::<finite_difference::FiniteDifference>(),
    Entry::of::<spsa::SPSA>(),
    Entry::of::<evolution_strategy::EvolutionStrategy>(),
    Entry::of::<coordinate_descent::CoordinateDescent>(),
    Entry::of::<cmaes::CMAES>(),
    Entry::of::<genetic_algorithm::GeneticAlgorithm>(),
    Entry::of::<ridge_readout::RidgeReadout>(),
    Entry::of::<parameter_shift::ParameterShift>(),
    Entry::of::<forward_gradient::ForwardGradient>(),
    Entry::of::<surrogate_optimization::SurrogateOptimization>(),
    Entry::of::<in_situ_backprop::InSituBackprop>(),
    Entry::of::<forward_mode_learning::ForwardModeLearning>(),
    Entry::of::<hamiltonian_echo::HamiltonianEcho>(),
];

/// What a method is compiled for.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a, T: Real> {
    /// The physics, which has what the method needs.
    pub system: &'a dyn System<T>,
    /// The loss.
    pub loss: Loss,
    /// How systems that settle do so.
    pub settling: Settling,
}

/// The settings of a training method, and what it needs of a system.
pub trait MethodConfig: std::fmt::Debug + DeserializeOwned + Send + Sync + 'static {
    /// The name, as configurations have it.
    const NAME: &'static str;

    /// The calls that make the variants of the method which need different things, and what each
    /// needs.
    const VARIANTS: &'static [(&'static str, Abilities)];

    /// Whether the method minimises whatever loss it is given; some have one of their own making.
    const TAKES_LOSS: bool = true;

    /// Which of [`MethodConfig::VARIANTS`] these settings are.
    fn variant(&self) -> usize {
        0
    }

    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config), naming the setting, what it is and what it may be.
    fn check(&self, settling: &Settling) -> Result<()> {
        let _ = settling;
        Ok(())
    }

    /// Compiles the method for a system that has what it needs.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for settings that do not go with the system.
    fn compile<T: Real>(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>>;

    /// The method with these settings, a loss, and the settings of settling.
    fn with(self, loss: Loss, settling: Settling) -> Method
    where
        Self: Sized,
    {
        Method::new(self, loss, settling)
    }
}

/// A training method compiled for a system: what it keeps from step to step, and what each step
/// does.
pub trait CompiledMethod<T: Real>: std::fmt::Debug + Send + Sync {
    /// Names and shapes of the arrays that are kept from step to step, zero at first unless
    /// [`CompiledMethod::initialise`] writes others.
    fn memory(&self, system: &dyn System<T>) -> Vec<ParamSpec> {
        let _ = system;
        Vec::new()
    }

    /// Whether [`CompiledMethod::step`] changes those arrays: they are then restored where a step
    /// fails.
    fn writes_memory(&self) -> bool {
        false
    }

    /// Writes what those arrays hold before the first step.
    fn initialise(&self, runtime: &Runtime, system: &dyn System<T>, memory: &mut [&mut [T]]) {
        let _ = (runtime, system, memory);
    }

    /// Refuses an optimizer that does not go with the method.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config), saying what the method needs.
    fn check_optimizer(&self, optimizer: &Optimizer) -> Result<()> {
        let _ = optimizer;
        Ok(())
    }

    /// Phases per sample, the free one included.
    fn phases(&self) -> usize {
        1
    }

    /// How many numbers a step on so many samples keeps, beside states and signals: what its memory
    /// is checked by.
    fn kept(&self, system: &dyn System<T>, samples: usize) -> u128 {
        let _ = (system, samples);
        0
    }

    /// Runs the experiments of a step, and leaves in `state` the states, and a gradient or wanted
    /// parameters. `memory` are the arrays of [`CompiledMethod::memory`].
    ///
    /// # Errors
    /// What the system may fail with.
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult>;

    /// Changes what follows the parameters as the optimizer is about to change those, at these
    /// rates.
    fn before_update(
        &self,
        experiment: &Experiment<'_, T>,
        optimizer: &Optimizer,
        rates: &[f64],
        update: &LocalUpdate<T>,
        memory: &mut [&mut [T]],
    ) {
        let _ = (experiment, optimizer, rates, update, memory);
    }
}
