//! Methods compiled for a system.

use std::sync::Arc;

use pnncore_kernels::Real;

use super::{CompiledMethod, Method, StepResult, StepState};
use crate::batch::{Batch, Rows, Targets};
use crate::draw::DrawIndex;
use crate::loss::Loss;
use crate::optim::Optimizer;
use crate::own_loss::{AnyLoss, OwnLoss};
use crate::params::{ParamSpec, Params};
use crate::plan::PhasePlan;
use crate::runtime::Runtime;
use crate::system::{Abilities, Experiment, System, check_rows};
use crate::update::LocalUpdate;
use crate::{Error, Result, memory};

/// A method compiled for a system: what each step of training does.
#[derive(Debug)]
pub struct Protocol<T: Real> {
    name: String,
    needs: Abilities,
    /// The free phase alone, which is what methods that only look at outputs settle.
    plan: PhasePlan,
    method: Box<dyn CompiledMethod<T>>,
    own_loss: Option<Arc<dyn AnyLoss>>,
    /// Whether a loss of the user's own comes in by a model of it.
    by_model: bool,
}

impl<T: Real> Protocol<T> {
    pub(super) fn new(method: &Method, compiled: Box<dyn CompiledMethod<T>>) -> Self {
        let plan = PhasePlan::free(method.loss, method.settling);
        let settles = [Abilities::LOCAL_RULE, Abilities::STATE_DERIVATIVES, Abilities::ECHOES];
        // Methods of a user's own ask the loss themselves.
        let by_model = !method.is_own() && settles.iter().any(|&ability| method.needs().has(ability));
        Self {
            name: method.name().to_owned(),
            needs: method.needs(),
            plan,
            method: compiled,
            own_loss: method.own_loss(),
            by_model,
        }
    }

    /// The loss of the method.
    pub fn loss(&self) -> Loss {
        self.plan.loss
    }

    /// Names and shapes of the arrays that the method keeps from step to step.
    pub fn memory(&self, system: &dyn System<T>) -> Vec<ParamSpec> {
        self.method.memory(system)
    }

    /// Whether [`Protocol::step`] changes those arrays; in the other methods that have some, [`Protocol::before_update`] alone
    /// does.
    pub fn writes_memory(&self) -> bool {
        self.method.writes_memory()
    }

    /// Writes what those arrays hold before the first step.
    pub fn initialise(&self, runtime: &Runtime, system: &dyn System<T>, memory: &mut [&mut [T]]) {
        self.method.initialise(runtime, system, memory);
    }

    /// Refuses batches that take more memory than there is, with what the method keeps.
    ///
    /// # Errors
    /// [`Error::Config`] with the bytes.
    pub fn check_batch(&self, system: &dyn System<T>, samples: usize) -> Result<()> {
        let propagates = self.needs.has(Abilities::LAYERS) || self.needs.has(Abilities::TWINS);
        check_rows(system, samples, self.method.phases(), propagates)?;
        let bytes = self.method.kept(system, samples).saturating_mul(size_of::<T>() as u128);
        memory::check(bytes, || format!("what {} keeps", self.name))
    }

    /// Refuses an optimizer that does not go with the method.
    ///
    /// # Errors
    /// [`Error::Config`], saying what the method needs.
    pub fn check_optimizer(&self, optimizer: &Optimizer) -> Result<()> {
        self.method.check_optimizer(optimizer)
    }

    /// The experiment of a step, `steps` having been made before.
    pub fn experiment<'a>(
        &'a self,
        runtime: &'a Runtime,
        system: &'a dyn System<T>,
        params: &'a Params<'a, T>,
        batch: &'a Batch<'a, T>,
        steps: u64,
    ) -> Experiment<'a, T> {
        Experiment {
            runtime,
            system,
            params,
            batch,
            plan: &self.plan,
            draw: DrawIndex::of_step(steps),
            own_loss: self.own_loss(),
        }
    }

    /// Runs the experiments of a step, and leaves in `state` the states, and a gradient or the parameters that are wanted.
    /// `memory` are the arrays of [`Protocol::memory`].
    ///
    /// # Errors
    /// [`Error::Config`] without targets; what the system may fail with.
    pub fn step(
        &self,
        experiment: &Experiment<'_, T>,
        memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<()> {
        if matches!(experiment.batch.y, Targets::None) {
            return Err(Error::Config("training needs targets".into()));
        }
        state.found = StepResult::Gradient;
        state.found = match self.own_loss() {
            Some(own) if self.by_model => self.step_by_model(own, experiment, memory, state)?,
            _ => self.method.step(experiment, memory, state)?,
        };
        if let Some(own) = self.own_loss() {
            state.own_losses = Some(experiment.evaluate(own, &state.states)?.0);
        }
        Ok(())
    }

    fn own_loss(&self) -> Option<&dyn OwnLoss<T>> {
        self.own_loss.as_deref().map(|own| T::pick(own))
    }

    /// A step with a loss C of the user's own, on a system that settles or moves: by the model
    /// C(o) + dC/do (o' - o) + |o' - o|^2 / 2 of it at the free outputs o. That is the squared error from o - dC/do, less a
    /// constant: it nudges with the force of C, and its gradient at o is that of C.
    fn step_by_model(
        &self,
        own: &dyn OwnLoss<T>,
        experiment: &Experiment<'_, T>,
        memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let (n, samples) = (experiment.system.outputs(), experiment.batch.len());
        let free = Experiment { plan: &self.plan, ..*experiment };
        free.infer(&mut state.states, &mut state.workspace)?;
        state.cost.add(1, samples);
        let (_, mut targets) = free.evaluate(own, &state.states)?;
        for (i, target) in targets.chunks_exact_mut(n).enumerate() {
            target.iter_mut().zip(state.states.outputs(i)).for_each(|(y, &o)| *y = o - *y);
        }
        let batch = Batch { x: experiment.batch.x, y: Targets::Values(Rows::all(&targets, n)) };
        self.method.step(&Experiment { batch: &batch, own_loss: None, ..*experiment }, memory, state)
    }

    /// Changes what follows the parameters as the optimizer is about to change those, at these rates.
    pub fn before_update(
        &self,
        experiment: &Experiment<'_, T>,
        optimizer: &Optimizer,
        rates: &[f64],
        update: &LocalUpdate<T>,
        memory: &mut [&mut [T]],
    ) {
        self.method.before_update(experiment, optimizer, rates, update, memory);
    }
}
