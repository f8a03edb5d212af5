//! Agnostic equilibrium propagation: parameters that relax by themselves.
//!
//! The energy is E(theta, s) + |u - theta|^2 / (2 softness). In the free phase the control u holds
//! theta where it is, which needs u = theta + softness dE/dtheta. Then the outputs are nudged, u
//! stays, and theta relaxes with the states to theta' = u - softness dE/dtheta(theta', s'). So
//! (theta - theta') / (softness beta) tends to the gradient of the loss as softness and beta go to
//! zero (Scellier, Mishra, Bengio, Ollivier, arXiv 2205.15021).

use num_complex::Complex;
use pnncore_kernels::Real;
use serde::Deserialize;

use super::contrast::{Contrast, WeightedPlan};
use super::strength::Strength;
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::Result;
use crate::device::Device;
use crate::differences::largest;
use crate::loss::Loss;
use crate::params::{ParamSpec, Params};
use crate::plan::Boundary;
use crate::settings::{at_least, nonzero, positive};
use crate::settling::Settling;
use crate::system::{Abilities, Experiment, System};
use crate::update::Term;

/// How far springs of the default softness give way at most, in units of the largest parameter of a
/// kind.
const GIVING_WAY: f64 = 1e-3;

/// The softness of the springs of each kind of parameters by default, from what pulls at them in
/// the free phase: however small errors are, springs are stiff against the energy. Kinds have
/// different units; what is the same for all is the energy that the spring that is pulled most
/// would take up, as large as lets none give way by more than [`GIVING_WAY`].
fn yielding<T: Real>(start: &[Vec<T>], free: &[Vec<T>]) -> Vec<f64> {
    let pulls: Vec<f64> = free.iter().map(|free| largest(free)).collect();
    let work = start.iter().zip(&pulls).map(|(start, pull)| GIVING_WAY * largest(start) * pull);
    let least = work.filter(|&work| work > 0.0).reduce(f64::min);
    pulls
        .iter()
        .map(|pull| least.filter(|_| *pull > 0.0).map_or(GIVING_WAY, |work| work / (pull * pull)))
        .collect()
}

/// Agnostic equilibrium propagation.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgnosticEquilibriumPropagation {
    /// The strength of nudging. `None`: the strength that displaces outputs by a fraction of their
    /// error.
    pub beta: Option<f64>,
    /// The softness of the springs. `None`: such that they give way by a thousandth of the largest
    /// parameter of a kind.
    pub softness: Option<f64>,
    /// How often parameters and states relax in turn.
    pub relaxations: u32,
}

impl MethodConfig for AgnosticEquilibriumPropagation {
    const NAME: &'static str = "AgnosticEquilibriumPropagation";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::LOCAL_RULE)];

    fn check(&self, _settling: &Settling) -> Result<()> {
        nonzero("beta", self.beta.unwrap_or(1.0))?;
        positive("softness", self.softness.unwrap_or(1.0))?;
        at_least("relaxations", self.relaxations, 1)
    }

    fn compile<T: Real>(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        let strength = Strength::of(self.beta, 0.1, setup.system);
        if let Some(beta) = strength.given() {
            plan(beta, setup.loss, setup.settling).check(setup.system)?;
        }
        Ok(Box::new(Springs { strength, softness: self.softness, relaxations: self.relaxations }))
    }
}

/// The free phase and the nudged one.
fn plan(beta: f64, loss: Loss, settling: Settling) -> WeightedPlan {
    let phases = [Boundary::Nudged(Complex::new(beta, 0.0))];
    WeightedPlan::new(Contrast::from_free(phases, [-Complex::ONE, Complex::ONE]), loss, settling)
}

/// The method, compiled.
#[derive(Debug)]
struct Springs {
    strength: Strength,
    softness: Option<f64>,
    relaxations: u32,
}

impl<T: Real> CompiledMethod<T> for Springs {
    fn memory(&self, _system: &dyn System<T>) -> Vec<ParamSpec> {
        self.strength.memory()
    }

    fn writes_memory(&self) -> bool {
        self.strength.given().is_none()
    }

    fn phases(&self) -> usize {
        2
    }

    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let beta = self.strength.at(experiment, memory, state)?;
        let WeightedPlan { plan, .. } = plan(beta, experiment.plan.loss, experiment.plan.settling);
        let experiment = Experiment { plan: &plan, ..*experiment };
        let (system, params) = (experiment.system, experiment.params);
        let count = system.specs().len();
        let start: Vec<Vec<T>> = (0..count).map(|i| params.get(i).to_vec()).collect();
        settle(&experiment, state)?;
        let free = read(&experiment, state, [Complex::ONE, Complex::ZERO])?;
        let mut nudged = read(&experiment, state, [Complex::ZERO, Complex::ONE])?;
        let softnesses = match self.softness {
            Some(softness) => vec![softness; count],
            None => yielding(&start, &free),
        };
        let (mut moved, mut changes) = (start.clone(), start.clone());
        for relaxation in 1..=self.relaxations {
            for i in 0..count {
                let (softness, (lower, upper)) =
                    (softnesses[i], system.store(i).device.range::<f64>());
                for (k, start) in start[i].iter().map(|start| start.to_f64()).enumerate() {
                    // The springs pull, but the material has its range. (Not moved - start, which
                    // would be mostly rounding.)
                    let pulled = softness * (free[i][k] - nudged[i][k]).to_f64();
                    let change = pulled.within(lower - start, upper - start);
                    changes[i][k] = T::from_f64(-change / (softness * beta));
                    moved[i][k] = T::from_f64(start + change);
                }
            }
            if relaxation < self.relaxations {
                let params = Params::shared(moved.iter().map(Vec::as_slice));
                let experiment = Experiment { params: &params, ..experiment };
                settle(&experiment, state)?;
                nudged = read(&experiment, state, [Complex::ZERO, Complex::ONE])?;
            }
        }
        // The states that are reported are those at the parameters that training is at.
        if self.relaxations > 1 {
            settle(&experiment, state)?;
        }
        state.update.terms = changes.into_iter().map(Term::Dense).collect();
        Ok(StepResult::Gradient)
    }
}

fn settle<T: Real>(experiment: &Experiment<'_, T>, state: &mut StepState<T>) -> Result<()> {
    let StepState { states, workspace, cost, .. } = state;
    cost.add(experiment.plan.rows_per_sample(), experiment.batch.len());
    experiment.run(&mut [], states, workspace)
}

/// dE/dtheta, summed over the phases with these weights.
fn read<T: Real>(
    experiment: &Experiment<'_, T>,
    state: &mut StepState<T>,
    weights: [Complex<f64>; 2],
) -> Result<Vec<Vec<T>>> {
    let StepState { states, update, workspace, .. } = state;
    // Terms of the step before are dense here.
    update.terms.clear();
    experiment.dynamics()?.read(experiment, states, &weights, workspace, update)?;
    let read = experiment.system.specs().iter().enumerate().map(|(i, spec)| {
        let mut sums = vec![T::ZERO; spec.len()];
        update.apply(experiment.runtime, states, i, spec, &mut sums, 1.0, Device::IDEAL.range());
        sums
    });
    Ok(read.collect())
}
