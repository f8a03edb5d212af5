//! Training methods: how a batch becomes a gradient, or a change of the parameters.
//!
//! A method is a set of experiments and a local rule. [`Method`] is its configuration; [`Protocol`] is the
//! configuration compiled for a system; [`Scratch`] is the memory of its steps.

mod agnostic;
mod backward;
mod candidates;
mod contrast;
mod implicit;
mod local;
mod population;
mod readout;
mod rule;
mod strength;
mod surrogate;
mod zeroth;

use num_complex::Complex;
use pnncore_kernels::Real;
use pnncore_kernels::philox::Purpose;
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, Targets};
use crate::loss::Loss;
use crate::optim::Optimizer;
use crate::params::{ParamSpec, Params};
use crate::plan::{Boundary, PhasePlan};
use crate::runtime::Runtime;
use crate::settling::{Settling, Stop};
use crate::states::States;
use crate::system::stack::Stack;
use crate::system::{Settling as SettlingSystem, System, Workspace, check_rows};
use crate::update::LocalUpdate;
use crate::{Error, Result, memory};

pub use rule::{Estimator, Feedback, Model, Rule, Side, Sign};

/// The configuration of a training method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// The loss. Contrastive and coupled learning only report it, and measure output errors by it.
    pub loss: Loss,
    /// How systems that settle do so.
    #[serde(default)]
    pub settling: Settling,
    /// Which method.
    #[serde(flatten)]
    pub rule: Rule,
}

/// What a method asks of a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Outputs: every system has them.
    Outputs,
    /// Layers with twins that answer errors.
    Layers,
    /// Layers that signals pass through.
    Maps,
    /// A last layer that is linear.
    Readout,
    /// Parameters that are phases, each once in the intensities that the system puts out.
    Phases,
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
            Self::Outputs => "outputs",
            Self::Layers => "layers that signals pass through, with twins that answer errors (a Stack)",
            Self::Maps => "layers that signals pass through (a Stack)",
            Self::Readout => "a last layer that is linear (a Stack that ends in Linear)",
            Self::Phases => {
                "phases for parameters, and intensities for outputs (a Stack whose only layer with parameters is a last \
                 Speckle)"
            }
            Self::Energy => "a steady state that minimises an energy",
            Self::HolomorphicEnergy => {
                "an energy that is holomorphic in its states (smooth units, such as activation=\"tanh\")"
            }
            Self::Exact => "exact derivatives of the energy, which only a simulation has",
        }
    }

    fn met_by<T: Real>(self, system: &dyn System<T>) -> bool {
        match self {
            Self::Outputs => true,
            Self::Layers => system.as_stack().is_some_and(Stack::is_differentiable),
            Self::Maps => system.as_stack().is_some(),
            Self::Readout => {
                let last = system.as_stack().and_then(|stack| stack.stages().last());
                last.is_some_and(|last| last.twin.as_linear().is_some())
            }
            Self::Phases => {
                let stages = system.as_stack().map_or(&[][..], |stack| stack.stages());
                stages.split_last().is_some_and(|(last, others)| {
                    last.twin.is_interference() && others.iter().all(|stage| stage.params.is_empty())
                })
            }
            Self::Energy => system.as_energetic().is_some(),
            Self::HolomorphicEnergy => system.as_energetic().is_some() && system.is_holomorphic(),
            Self::Exact => system.as_exact().is_some(),
        }
    }
}

/// All methods, by the call that makes one, with what they need.
pub const METHODS: [(&str, Needs); 25] = [
    ("EquilibriumPropagation", Needs::Energy),
    ("EquilibriumPropagation(variant=\"holomorphic\")", Needs::HolomorphicEnergy),
    ("FrequencyPropagation", Needs::Energy),
    ("AgnosticEquilibriumPropagation", Needs::Energy),
    ("ContrastiveLearning", Needs::Energy),
    ("CoupledLearning", Needs::Energy),
    ("ImplicitDifferentiation", Needs::Exact),
    ("RecurrentBackprop", Needs::Exact),
    ("Backprop", Needs::Layers),
    ("PhysicsAware", Needs::Layers),
    ("FeedbackAlignment", Needs::Layers),
    ("DirectFeedbackAlignment", Needs::Layers),
    ("ForwardForward", Needs::Layers),
    ("PhysicalLocalLearning", Needs::Maps),
    ("FiniteDifference", Needs::Outputs),
    ("SPSA", Needs::Outputs),
    ("EvolutionStrategy", Needs::Outputs),
    ("CoordinateDescent", Needs::Outputs),
    ("CMAES", Needs::Outputs),
    ("GeneticAlgorithm", Needs::Outputs),
    ("RidgeReadout", Needs::Readout),
    ("ParameterShift", Needs::Phases),
    ("ForwardGradient", Needs::Layers),
    ("SurrogateOptimization", Needs::Outputs),
    ("InSituBackprop", Needs::Layers),
];

/// The methods that can train a system.
pub fn methods_for<T: Real>(system: &dyn System<T>) -> Vec<&'static str> {
    METHODS.iter().filter(|(_, needs)| needs.met_by(system)).map(|(name, _)| *name).collect()
}

impl Rule {
    /// The method of this rule.
    pub fn with(self, loss: Loss, settling: Settling) -> Method {
        Method { loss, settling, rule: self }
    }

    /// The place in [`METHODS`].
    fn place(&self) -> usize {
        match self {
            Self::EquilibriumPropagation { variant: Estimator::Holomorphic, .. } => 1,
            Self::EquilibriumPropagation { .. } => 0,
            Self::FrequencyPropagation { .. } => 2,
            Self::AgnosticEquilibriumPropagation { .. } => 3,
            Self::ContrastiveLearning => 4,
            Self::CoupledLearning { .. } => 5,
            Self::ImplicitDifferentiation => 6,
            Self::RecurrentBackprop { .. } => 7,
            Self::Backprop { .. } => 8,
            Self::PhysicsAware => 9,
            Self::FeedbackAlignment { .. } => 10,
            Self::DirectFeedbackAlignment { .. } => 11,
            Self::ForwardForward { .. } => 12,
            Self::PhysicalLocalLearning { .. } => 13,
            Self::FiniteDifference { .. } => 14,
            Self::SPSA { .. } => 15,
            Self::EvolutionStrategy { .. } => 16,
            Self::CoordinateDescent { .. } => 17,
            Self::CMAES { .. } => 18,
            Self::GeneticAlgorithm { .. } => 19,
            Self::RidgeReadout { .. } => 20,
            Self::ParameterShift => 21,
            Self::ForwardGradient { .. } => 22,
            Self::SurrogateOptimization { .. } => 23,
            Self::InSituBackprop => 24,
        }
    }
}

impl Method {
    /// The name in [`METHODS`].
    pub fn name(&self) -> &'static str {
        METHODS[self.rule.place()].0
    }

    /// Refuses what takes more memory than there is: a batch of so many samples, and what the method keeps.
    ///
    /// # Errors
    /// [`Error::Config`] with the bytes.
    fn check_memory<T: Real>(&self, system: &dyn System<T>, batch: usize, phases: usize) -> Result<()> {
        check_rows(system, batch, phases, matches!(self.needs(), Needs::Layers | Needs::Maps))?;
        let size: u128 = system.specs().iter().fold(0, |all, spec| all.saturating_add(memory::product(&spec.shape)));
        let kept = match self.rule {
            Rule::GeneticAlgorithm { population, .. } => size.saturating_mul(3 * u128::from(population)),
            Rule::CMAES { population, .. } => {
                size.saturating_mul(4 * u128::from(population.unwrap_or(1)) + 8 * size.min(1 << 20))
            }
            Rule::SurrogateOptimization { hidden, samples, explorers, .. } => {
                let width = size.saturating_add((system.inputs() + system.outputs()) as u128);
                let (hidden, samples) = (u128::from(hidden), u128::from(samples));
                let measured = u128::from(explorers) * batch as u128;
                width.saturating_mul(samples + measured + 4 * hidden).saturating_add(4 * hidden * hidden)
            }
            Rule::RidgeReadout { .. } => {
                let last = system.as_stack().and_then(|stack| stack.stages().last());
                let (features, outputs) = last.map_or((0, 0), |last| (last.twin.inputs() + 1, last.twin.outputs()));
                (features as u128).saturating_mul(6 * (features + outputs) as u128)
            }
            _ => 0,
        };
        memory::check(kept.saturating_mul(size_of::<T>() as u128), || format!("what {} keeps", self.name()))
    }

    /// What the method asks of a system.
    pub fn needs(&self) -> Needs {
        METHODS[self.rule.place()].1
    }

    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting, what it is and what it may be.
    pub fn check(&self) -> Result<()> {
        self.settling.check()?;
        self.rule.check(&self.settling)
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
            let others = methods_for(system).join(", ");
            let lacking = match system.as_stack().and_then(Stack::first_without_derivatives) {
                Some(l) if needs == Needs::Layers => {
                    format!("layer {} has no twin: set twin= of the instrument", l + 1)
                }
                _ => format!("{} does not have that", system.name()),
            };
            return Err(Error::Capability(format!(
                "{} needs {}; {lacking}. Methods that train this system: {others}",
                self.name(),
                needs.describe(),
            )));
        }
        // Networks of units of stiffness one need not be measured.
        let rule = match self.rule.usual_strength() {
            Some(strength) if system.has_unit_stiffness() => self.rule.with_strength(strength),
            _ => self.rule.clone(),
        };
        let rule = match rule.usual_step() {
            Some((name, _)) if system.as_settling().is_some() && !system.has_unit_stiffness() => {
                return Err(Error::Config(format!(
                    "{name} must be given: the parameters of {} have units, and how far {} moves them is in these",
                    system.name(),
                    self.name()
                )));
            }
            Some((_, step)) => rule.with_step(step),
            None => rule,
        };
        if let (Some(settling), None) = (system.as_settling(), rule.usual_strength()) {
            for sign in rule.signs() {
                for phase in rule.contrast(*sign).0 {
                    if let Boundary::Nudged(beta) = phase {
                        settling.check_nudge(self.loss, beta)?;
                    }
                }
            }
        }
        population::check(&rule, system.specs())?;
        self.check_memory(system, 1, 1)?;
        let mut settling = self.settling;
        if needs == Needs::Exact && settling.stop == Stop::Automatic {
            // The implicit function theorem holds at the steady state, not near it.
            settling.stop = Stop::Relative(256.0 * T::EPSILON.to_f64());
        }
        let method = Self { rule, settling, ..self.clone() };
        Ok(Protocol { contrasts: method.contrasts(), method })
    }

    /// The phases and weights for each sign of beta.
    fn contrasts(&self) -> Vec<Contrast> {
        let contrast = |&sign: &f64| {
            let (phases, weights) = self.rule.contrast(sign);
            let measures_free = phases.is_empty() || weights[0] != Complex::ZERO;
            Contrast { plan: PhasePlan { loss: self.loss, phases, settling: self.settling, measures_free }, weights }
        };
        self.rule.signs().iter().map(contrast).collect()
    }
}

/// Phases and their weights.
#[derive(Debug, Clone)]
struct Contrast {
    plan: PhasePlan,
    weights: Vec<Complex<f64>>,
}

/// A method compiled for a system: what each step does.
#[derive(Debug, Clone)]
pub struct Protocol {
    method: Method,
    /// One per sign of beta.
    contrasts: Vec<Contrast>,
}

/// What experiments cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Runs of the physics on a batch.
    pub passes: u64,
    /// Samples that the physics was run on, all passes together.
    pub measured: u64,
    /// Multiply-adds of the digital computer beside it.
    pub operations: u64,
    /// Pulses that came to cells.
    pub pulses: u64,
    /// Samples whose errors were sent back through the physics.
    pub reversed: u64,
}

impl Cost {
    /// Counts passes of a batch through the physics.
    pub(crate) fn add(&mut self, passes: usize, samples: usize) {
        self.passes += passes as u64;
        self.measured += (passes * samples) as u64;
    }
}

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StepResult {
    /// A gradient, in [`Scratch::update`].
    #[default]
    Gradient,
    /// New values of the parameters, in [`Scratch::wanted`].
    Change,
}

/// The memory of a method's steps, and what the last one found.
#[derive(Debug)]
pub struct Scratch<T> {
    /// The states of the last step.
    pub states: States<T>,
    /// What the last step found.
    pub found: StepResult,
    /// The gradient of the last step, factored.
    pub update: LocalUpdate<T>,
    /// The values of parameters that the last step wants.
    pub wanted: Vec<Vec<T>>,
    /// The losses of the samples, where a method has local ones in the place of that of the outputs.
    pub local: Option<Vec<f64>>,
    /// What all steps cost.
    pub cost: Cost,
    workspace: Workspace,
    candidates: candidates::CandidatePool<T>,
}

impl<T: Real> Scratch<T> {
    /// Memory for the steps on a system.
    pub fn new(system: &dyn System<T>) -> Self {
        Self {
            states: States::new(system.layout()),
            found: StepResult::default(),
            update: LocalUpdate::default(),
            wanted: Vec::new(),
            local: None,
            cost: Cost::default(),
            workspace: system.workspace(),
            candidates: candidates::CandidatePool::default(),
        }
    }
}

/// Where in training a step is, and what the method keeps from one step to the next.
#[derive(Debug)]
pub struct StepState<'a, 'b, T> {
    /// Steps made before.
    pub step: u64,
    /// The arrays of [`Protocol::memory`].
    pub memory: &'a mut [&'b mut [T]],
}

impl Protocol {
    /// The loss of the method.
    pub fn loss(&self) -> Loss {
        self.method.loss
    }

    /// Names and shapes of the arrays that the method keeps from step to step.
    pub fn memory<T: Real>(&self, system: &dyn System<T>) -> Vec<ParamSpec> {
        match (&self.method.rule, system.as_stack()) {
            (rule, Some(stack)) if self.method.needs() == Needs::Layers => backward::memory(rule, stack),
            (Rule::RidgeReadout { .. }, Some(stack)) => readout::memory(stack),
            (rule, _) => match rule.surrogate() {
                Some(surrogate) => surrogate.memory(system),
                None if rule.usual_strength().is_some() => vec![ParamSpec { name: "strength".into(), shape: vec![1] }],
                None => zeroth::memory(rule, system.specs()),
            },
        }
    }

    /// The protocol with the strength of nudging that its memory holds, which the first step measures where none was given.
    fn settled_strength<T: Real>(
        &self,
        runtime: &Runtime,
        system: &dyn SettlingSystem<T>,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        state: &mut StepState<'_, '_, T>,
        scratch: &mut Scratch<T>,
    ) -> Result<Self> {
        let Method { loss, settling, ref rule } = self.method;
        let [kept] = &mut *state.memory else {
            return Err(Error::Shape("a method that measures its strength keeps one array".into()));
        };
        if kept[0] == T::ZERO {
            let probe = strength::Probe { runtime, system, params, batch, loss, settling };
            kept[0] = T::from_f64(probe.strength(scratch)?.unwrap_or(0.0));
        }
        // Where no sample has an error every strength teaches the same: nothing.
        let strength = if kept[0] == T::ZERO { 1.0 } else { kept[0].to_f64() };
        let method = Method { rule: rule.with_strength(strength), ..self.method.clone() };
        Ok(Self { contrasts: method.contrasts(), method })
    }

    /// Refuses batches that take more memory than there is.
    ///
    /// # Errors
    /// [`Error::Config`] with the bytes.
    pub fn check_batch<T: Real>(&self, system: &dyn System<T>, samples: usize) -> Result<()> {
        // Where the strength is still to be measured, any has as many phases.
        let rule = self.method.rule.usual_strength().map(|strength| self.method.rule.with_strength(strength));
        let open = rule.map_or(0, |rule| rule.contrast(1.0).1.len());
        let phases = self.contrasts.iter().map(|contrast| contrast.weights.len()).fold(open, usize::max).max(1);
        self.method.check_memory(system, samples, phases)
    }

    /// Whether [`Protocol::step`] changes those arrays; in the other methods that have some, [`Protocol::follow`] alone does.
    pub fn learns(&self) -> bool {
        match self.method.rule {
            Rule::EvolutionStrategy { adaptation, .. } => adaptation > 0.0,
            _ if self.method.rule.usual_strength().is_some() => true,
            Rule::CMAES { .. } | Rule::GeneticAlgorithm { .. } | Rule::RidgeReadout { .. } => true,
            _ => self.method.rule.surrogate().is_some(),
        }
    }

    /// Writes what those arrays hold before the first step.
    pub fn initialise<T: Real>(&self, runtime: &Runtime, system: &dyn System<T>, memory: &mut [&mut [T]]) {
        match (&self.method.rule, system.as_stack()) {
            (rule, Some(_)) if self.method.needs() == Needs::Layers => {
                backward::initialise(rule, &self.memory(system), runtime, memory);
            }
            (rule, _) => match rule.surrogate() {
                Some(surrogate) => surrogate.initialise(runtime, system, memory),
                None => zeroth::initialise(rule, memory),
            },
        }
    }

    /// Refuses an optimizer that does not go with the method.
    ///
    /// # Errors
    /// [`Error::Config`], saying what the method needs.
    pub fn check_optimizer(&self, optimizer: &Optimizer) -> Result<()> {
        let follows = matches!(self.method.rule, Rule::FeedbackAlignment { feedback: Feedback::KolenPollack });
        match *optimizer {
            Optimizer::SGD { momentum: 0.0, weight_decay } if weight_decay > 0.0 => Ok(()),
            _ if !follows => Ok(()),
            _ => Err(Error::Config(
                "feedback=\"kolen-pollack\" needs SGD without momentum and with a weight_decay above 0: weights and \
                 feedback seed_output_errors because both forget where they began"
                    .into(),
            )),
        }
    }

    /// Changes what follows the parameters as the optimizer is about to change those.
    pub fn follow<T: Real>(
        &self,
        runtime: &Runtime,
        system: &dyn System<T>,
        optimizer: &Optimizer,
        rates: &[f64],
        update: &LocalUpdate<T>,
        memory: &mut [&mut [T]],
    ) {
        if let (
            Rule::FeedbackAlignment { feedback: Feedback::KolenPollack },
            Some(stack),
            Optimizer::SGD { weight_decay, .. },
        ) = (&self.method.rule, system.as_stack(), optimizer)
        {
            backward::follow(runtime, stack, *weight_decay, rates, update, memory);
        }
    }

    /// Runs the experiments of a step, and leaves in `scratch` states, and a gradient or the parameters that are wanted.
    ///
    /// # Errors
    /// [`Error::Config`] without targets; what the system may fail with.
    pub fn step<T: Real>(
        &self,
        runtime: &Runtime,
        system: &dyn System<T>,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        state: &mut StepState<'_, '_, T>,
        scratch: &mut Scratch<T>,
    ) -> Result<()> {
        if matches!(batch.y, Targets::None) {
            return Err(Error::Config("training needs targets".into()));
        }
        scratch.found = StepResult::Gradient;
        if let (Some(_), Some(settling)) = (self.method.rule.usual_strength(), system.as_settling()) {
            let whole = self.settled_strength(runtime, settling, params, batch, state, scratch)?;
            return whole.step(runtime, system, params, batch, state, scratch);
        }
        let Method { loss, ref rule, .. } = self.method;
        let missing = || Error::Capability(format!("{} lacks what {} needs", system.name(), self.method.name()));
        let plan = &self.contrasts[0].plan;
        match (self.method.needs(), rule) {
            (Needs::Outputs | Needs::Phases, _) => {
                zeroth::step(runtime, rule, plan, system, params, batch, state, scratch)
            }
            (Needs::Layers | Needs::Maps, _) => {
                let stack = system.as_stack().ok_or_else(missing)?;
                if matches!(rule, Rule::ForwardForward { .. } | Rule::PhysicalLocalLearning { .. }) {
                    return local::step(runtime, rule, loss, stack, params, batch, state, scratch);
                }
                backward::step(runtime, rule, loss, stack, params, batch, state, scratch)
            }
            (Needs::Readout, &Rule::RidgeReadout { regularization, forgetting }) => {
                let stack = system.as_stack().ok_or_else(missing)?;
                readout::step(runtime, (regularization, forgetting), stack, params, batch, state, scratch)
            }
            (Needs::Exact, _) => {
                let system = system.as_exact().ok_or_else(missing)?;
                implicit::step(runtime, rule, plan, system, params, batch, scratch)
            }
            (_, &Rule::AgnosticEquilibriumPropagation { beta: Some(beta), epsilon, relaxations }) => {
                let system = system.as_energetic().ok_or_else(missing)?;
                let springs = agnostic::Springs { beta, epsilon, relaxations };
                springs.step(runtime, plan, system, params, batch, scratch)
            }
            (Needs::Energy | Needs::HolomorphicEnergy | Needs::Readout, _) => {
                let negative = rule.random_sign() && runtime.random(Purpose::Method).words(state.step, 0)[0] & 1 == 1;
                let Contrast { plan, weights } = &self.contrasts[usize::from(negative)];
                let system = system.as_energetic().ok_or_else(missing)?;
                let Scratch { states, update, workspace, cost, .. } = scratch;
                states.reset(batch.len(), plan.rows_per_sample(), plan.is_complex());
                cost.add(plan.rows_per_sample(), batch.len());
                system.settle(runtime, params, batch, plan, states, workspace)?;
                system.local_update(runtime, params, batch, states, weights, workspace, update)
            }
        }
    }
}
