//! Methods compiled for a system.

use std::sync::Arc;

use pnncore_kernels::Real;

use super::{CompiledMethod, Method, Setup, StepResult, StepState, methods_for};
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
    /// The free phase that the model is made at.
    model_plan: PhasePlan,
}

impl Method {
    /// Compiles the method for a system.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, or more memory than there is;
    /// [`Error::Capability`] where the system has no parameters, or lacks an ability, naming the
    /// methods that train it.
    pub fn protocol<T: Real>(&self, system: &dyn System<T>) -> Result<Protocol<T>> {
        self.check()?;
        if system.specs().is_empty() {
            return Err(Error::Capability(format!("{} has no parameters to train", system.name())));
        }
        let missing = self.needs().missing_from(system.abilities());
        if !missing.is_empty() {
            return Err(Error::Capability(format!(
                "{} needs {missing}; {}. Methods that train this system: {}",
                self.name(),
                system.explain_lack(self.needs()),
                methods_for(system).join(", "),
            )));
        }
        let setup = Setup { system, loss: self.loss, settling: self.settling };
        let compiled = T::pick(&*self.config).compile_for(setup)?;
        let protocol = Protocol::new(self, compiled);
        protocol.check_batch(system, 1)?;
        Ok(protocol)
    }
}

impl<T: Real> Protocol<T> {
    fn new(method: &Method, compiled: Box<dyn CompiledMethod<T>>) -> Self {
        let plan = PhasePlan::free(method.loss, method.settling);
        let settles = [Abilities::LOCAL_RULE, Abilities::STATE_DERIVATIVES, Abilities::ECHOES];
        // Where the model is made is where all methods find the system, however exactly they settle
        // it.
        let model_plan = PhasePlan::exact::<T>(method.loss, method.settling);
        // Methods of a user's own ask the loss themselves.
        let by_model =
            !method.is_own() && settles.iter().any(|&ability| method.needs().has(ability));
        Self {
            name: method.name().to_owned(),
            needs: method.needs(),
            plan,
            method: compiled,
            own_loss: method.own_loss(),
            by_model,
            model_plan,
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

    /// Whether [`Protocol::step`] changes those arrays; in the other methods that have some,
    /// [`Protocol::before_update`] alone does.
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

    /// The experiment of a step, `steps` having been made before, on a system as it is at first.
    pub fn experiment<'a>(
        &'a self,
        runtime: &'a Runtime,
        system: &'a dyn System<T>,
        params: &'a Params<'a, T>,
        batch: &'a Batch<'a, T>,
        steps: u64,
    ) -> Experiment<'a, T> {
        let draw = DrawIndex::of_step(steps);
        self.with_own_loss(Experiment::new(runtime, system, params, batch, &self.plan, draw))
    }

    /// The free phase alone, with the loss of the method.
    pub fn plan(&self) -> &PhasePlan {
        &self.plan
    }

    /// An experiment with the loss of the method, where that is one of the user's own.
    pub fn with_own_loss<'a>(&'a self, experiment: Experiment<'a, T>) -> Experiment<'a, T> {
        Experiment { own_loss: self.own_loss(), ..experiment }
    }

    /// Runs the experiments of a step, and leaves in `state` the states, and a gradient or the
    /// parameters that are wanted. `memory` are the arrays of [`Protocol::memory`].
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

    /// A step with a loss C of the user's own, on a system that settles or moves: by the model s
    /// C(o) + s dC/do (o' - o) + |o' - o|^2 / 2 of it at the free outputs o. That is the squared
    /// error from o - s dC/do, less a constant: it nudges with the force of s C, and its gradient
    /// at o is s times that of C. The scale s puts what the model aims at as far away as the
    /// targets are, whatever the units of C; for the squared error it is one.
    fn step_by_model(
        &self,
        own: &dyn OwnLoss<T>,
        experiment: &Experiment<'_, T>,
        memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let (n, samples) = (experiment.system.outputs(), experiment.batch.len());
        let free = Experiment { plan: &self.model_plan, ..*experiment };
        free.infer(&mut state.states, &mut state.workspace)?;
        if !self.needs.has(Abilities::STATE_DERIVATIVES) {
            // Methods in silico make no passes.
            state.cost.add(1, samples);
        }
        let (_, mut targets) = free.evaluate(own, &state.states)?;
        let scale = free.model_scale(&state.states, &targets);
        for (i, target) in targets.chunks_exact_mut(n).enumerate() {
            let outputs = state.states.outputs(i);
            target.iter_mut().zip(outputs).for_each(|(y, &o)| *y = o - T::from_f64(scale) * *y);
        }
        let batch = Batch { x: experiment.batch.x, y: Targets::Values(Rows::all(&targets, n)) };
        let found = self.method.step(
            &Experiment { batch: &batch, own_loss: None, ..*experiment },
            memory,
            state,
        )?;
        let back = T::from_f64(1.0 / scale);
        match found {
            _ if scale == 1.0 => {}
            StepResult::Gradient => state.update.scale(back),
            StepResult::Change => {
                for (i, wanted) in state.wanted.iter_mut().enumerate() {
                    let present = experiment.params.get(i);
                    wanted
                        .iter_mut()
                        .zip(present)
                        .for_each(|(new, &old)| *new = old + back * (*new - old));
                }
            }
        }
        Ok(found)
    }

    /// Changes what follows the parameters as the optimizer is about to change those, at these
    /// rates.
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
