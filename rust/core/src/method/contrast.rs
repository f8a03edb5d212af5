//! The contrastive family: which phases a method settles, and with which weights it combines
//! dE/dtheta of their states.

use num_complex::Complex;
use pnncore_kernels::Real;
use pnncore_kernels::philox::Purpose;

use super::strength::Strength;
use super::{CompiledMethod, Setup, StepResult, StepState};
use crate::Result;
use crate::loss::Loss;
use crate::params::ParamSpec;
use crate::plan::{Boundary, OfPhases, Phase, PhasePlan};
use crate::settling::Settling;
use crate::system::{Accumulation, Experiment, Reading, System};

/// Phases after the free one, and the weight of every phase, the free one first.
pub(super) struct Contrast {
    pub(super) phases: OfPhases<Phase>,
    pub(super) weights: OfPhases<Complex<f64>>,
}

impl Contrast {
    /// Phases from the free state.
    pub(super) fn from_free(
        phases: impl IntoIterator<Item = Boundary>,
        weights: impl IntoIterator<Item = Complex<f64>>,
    ) -> Self {
        let phases = phases.into_iter().map(Phase::from).collect();
        Self { phases, weights: weights.into_iter().collect() }
    }
}

/// The contrast of a method at a strength of nudging.
pub(super) type ContrastAt = Box<dyn Fn(f64) -> Contrast + Send + Sync>;

/// Phases to settle, and their weights.
#[derive(Debug)]
pub(super) struct WeightedPlan {
    pub(super) plan: PhasePlan,
    pub(super) weights: OfPhases<Complex<f64>>,
}

impl WeightedPlan {
    pub(super) fn new(contrast: Contrast, loss: Loss, settling: Settling) -> Self {
        let Contrast { phases, weights } = contrast;
        let measures_free = phases.is_empty() || weights[0] != Complex::ZERO;
        Self {
            plan: PhasePlan { measures_free, ..PhasePlan::new(loss, phases, settling) },
            weights,
        }
    }

    /// Refuses strengths of nudging under which the system has no steady state.
    ///
    /// # Errors
    /// As [`Dynamics::check_nudge`](crate::system::Dynamics::check_nudge).
    pub(super) fn check<T: Real>(&self, system: &dyn System<T>) -> Result<()> {
        let Some(dynamics) = system.as_dynamics() else { return Ok(()) };
        self.plan.phases.iter().try_for_each(|phase| match phase.boundary {
            Boundary::Nudged(beta) => dynamics.check_nudge(self.plan.loss, beta),
            _ => Ok(()),
        })
    }
}

/// A method of the contrastive family, compiled: at each step one of its contrasts.
pub(super) struct Contrastive {
    loss: Loss,
    settling: Settling,
    strength: Strength,
    /// Of each of those that steps choose among at random.
    contrasts: Vec<ContrastAt>,
    /// Those at the strength that is given; empty where it is measured.
    plans: Vec<WeightedPlan>,
    phases: usize,
    accumulation: Accumulation,
}

impl std::fmt::Debug for Contrastive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contrastive")
            .field("strength", &self.strength)
            .field("plans", &self.plans)
            .finish()
    }
}

impl Contrastive {
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) where the system has no steady state at the given
    /// strength.
    pub(super) fn new<T: Real>(
        setup: Setup<'_, T>,
        strength: Strength,
        accumulation: Accumulation,
        contrasts: Vec<ContrastAt>,
    ) -> Result<Self> {
        let Setup { system, loss, settling } = setup;
        // Any strength has as many phases.
        let phases = contrasts
            .iter()
            .map(|at| at(strength.given().unwrap_or(1.0)).weights.len())
            .fold(1, usize::max);
        let mut method =
            Self { loss, settling, strength, contrasts, plans: Vec::new(), phases, accumulation };
        if let Some(strength) = method.strength.given() {
            method.plans = (0..method.contrasts.len()).map(|k| method.plan(k, strength)).collect();
        }
        method.plans.iter().try_for_each(|plan| plan.check(system))?;
        Ok(method)
    }

    fn plan(&self, contrast: usize, strength: f64) -> WeightedPlan {
        WeightedPlan::new(self.contrasts[contrast](strength), self.loss, self.settling)
    }
}

impl<T: Real> CompiledMethod<T> for Contrastive {
    fn memory(&self, _system: &dyn System<T>) -> Vec<ParamSpec> {
        self.strength.memory()
    }

    fn writes_memory(&self) -> bool {
        self.strength.given().is_none()
    }

    fn phases(&self) -> usize {
        self.phases
    }

    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let strength = self.strength.at(experiment, memory, state)?;
        let choice = if self.contrasts.len() > 1 {
            let random =
                experiment.runtime.random(Purpose::Method).words(experiment.draw.step(), 0)[0];
            random as usize % self.contrasts.len()
        } else {
            0
        };
        let measured;
        let WeightedPlan { plan, weights } = match self.plans.get(choice) {
            Some(plan) => plan,
            None => {
                measured = self.plan(choice, strength);
                &measured
            }
        };
        let experiment = Experiment { plan, ..*experiment };
        let StepState { states, update, workspace, cost, .. } = state;
        cost.add(plan.rows_per_sample(), experiment.batch.len());
        experiment.run(
            &mut [Reading { accumulation: self.accumulation, weights, update }],
            states,
            workspace,
        )?;
        Ok(StepResult::Gradient)
    }
}
