//! Physical systems, and what they can be asked to do.

mod abilities;
mod adjoint;
mod at;
pub mod circuit;
pub mod elastic;
mod experiment;
pub mod hamiltonian_chain;
pub mod hopfield;
pub mod layered;
mod matrix;
mod reading;
mod registry;
pub mod resistive;
mod rows;
mod spec;
pub mod stack;

pub use abilities::Abilities;
pub use at::{Descents, SystemAt};
pub use experiment::{Experiment, read_at_end};
pub use reading::{Accumulation, Reading};
pub use rows::check_rows;
pub use spec::{AnySystem, SystemSpec};

use num_complex::Complex;
use pnncore_kernels::Real;

use crate::batch::Batch;
use crate::device::Store;
use crate::loss::Loss;
use crate::params::{ParamSpec, Params};
use crate::plan::{Boundary, Phase, Start};
use crate::runtime::Runtime;
use crate::signal::Signal;
use crate::states::{Layout, States};
use crate::update::LocalUpdate;
use crate::{Error, Result};

/// Memory that a system keeps between the experiments of one call.
pub type Workspace = Box<dyn std::any::Any + Send>;

/// The physics: immutable and shareable. Parameters and states are passed in.
///
/// What else a system can be asked to do is what the `as_` methods return; a method that needs more
/// than that is refused with [`Error::Capability`].
pub trait System<T: Real>: Send + Sync {
    /// The name of the kind of system.
    fn name(&self) -> &str;

    /// The signal that it takes.
    fn takes(&self) -> Signal;

    /// The signal that it gives: by default the states of the last layer.
    fn gives(&self) -> Signal {
        Signal::real(self.layout().outputs().len())
    }

    /// Where the layers lie in a row of states; outputs are the last layer.
    fn layout(&self) -> Layout;

    /// Names and shapes of the parameters.
    fn specs(&self) -> &[ParamSpec];

    /// What the system can do.
    fn abilities(&self) -> Abilities;

    /// Why the system lacks one of these abilities, in words.
    fn explain_lack(&self, needs: Abilities) -> String {
        let _ = needs;
        format!("{} does not have that", self.name())
    }

    /// What parameter number `parameter` is stored in.
    fn store(&self, parameter: usize) -> Store<'_, T> {
        let _ = parameter;
        Store::IDEAL
    }

    /// Names and shapes of the arrays in which the system keeps what time makes of it (chains of
    /// samples, clocks, drift); they are zero at first. Experiments read them; nothing but
    /// [`System::advance`] writes them.
    fn memory(&self) -> &[ParamSpec] {
        &[]
    }

    /// Changes those arrays as they do between a step of training, which has succeeded, and the
    /// next.
    fn advance(&self, memory: &mut [&mut [T]]) {
        let _ = memory;
    }

    /// Memory for the experiments of one call.
    fn workspace(&self) -> Workspace {
        Box::new(())
    }

    /// Runs the system once on every sample, and leaves its outputs in states of one phase.
    ///
    /// # Errors
    /// As [`Experiment::run`] for systems that settle; what a layer may fail with.
    fn infer(
        &self,
        experiment: &Experiment<'_, T>,
        states: &mut States<T>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        experiment.run(&mut [], states, workspace)
    }

    /// The system as an electrical circuit.
    fn as_circuit(&self) -> Option<&circuit::Circuit> {
        None
    }

    /// Whether experiments call code of the user's, which is to run on the calling thread.
    fn calls_out(&self) -> bool {
        false
    }

    /// Writes initial parameters; systems that come with theirs write none.
    fn initialise(&self, runtime: &Runtime, seed: u64, gain: f64, params: &mut [&mut [T]]) {
        let _ = (runtime, seed, gain, params);
    }

    /// The system as one with dynamics.
    fn as_dynamics(&self) -> Option<&dyn Dynamics<T>> {
        None
    }

    /// The system as one whose energy and derivatives can be evaluated: simulations only.
    fn as_state_derivatives(&self) -> Option<&dyn StateDerivatives<T>> {
        None
    }

    /// The system as one that signals pass through, layer by layer.
    fn as_stack(&self) -> Option<&stack::Stack<T>> {
        None
    }

    /// Whether the stiffness of outputs is one, by construction: strengths of nudging are then
    /// numbers. Elsewhere they have units.
    fn has_unit_stiffness(&self) -> bool {
        false
    }

    /// What one unit of every output is worth in a unit that all outputs share, so that they can be
    /// compared; empty where they have one unit.
    fn output_units(&self, params: &Params<'_, T>) -> Vec<f64> {
        let _ = params;
        Vec::new()
    }

    /// Whether forces derive from an energy. Where they do not (circuits with transistors),
    /// energies are not asked for, the contrast of a local rule is an approximation to the
    /// gradient, and implicit differentiation is exact all the same.
    fn is_reciprocal(&self) -> bool {
        true
    }

    /// Checks number and lengths of parameters against the specification, and that all values are
    /// finite and within the range of what they are stored in.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Data`], naming the parameter.
    fn check_params(&self, params: &Params<'_, T>) -> Result<()> {
        let specs = self.specs();
        if params.len() != specs.len() {
            return Err(Error::Shape(format!(
                "expected {} parameters, got {}",
                specs.len(),
                params.len()
            )));
        }
        specs.iter().enumerate().try_for_each(|(i, spec)| self.store(i).check(spec, params.get(i)))
    }

    /// The numbers that a row of inputs is.
    fn inputs(&self) -> usize {
        self.takes().numbers()
    }

    /// The numbers that a row of outputs is.
    fn outputs(&self) -> usize {
        self.gives().numbers()
    }
}

/// A system with dynamics: it settles to a steady state under boundary conditions, and has a local
/// rule that can be read there.
///
/// The local rule is dE/dtheta, of the energy E that the steady state minimises; or what stands in
/// its place where the system is not [reciprocal](System::is_reciprocal).
pub trait Dynamics<T: Real>: System<T> {
    /// Refuses a strength of nudging under which the system has no steady state. Where that cannot
    /// be known beforehand, the status [`Unbounded`](crate::states::Status::Unbounded) tells
    /// afterwards.
    ///
    /// # Errors
    /// [`Error::Config`] with the admitted range.
    fn check_nudge(&self, loss: Loss, beta: Complex<f64>) -> Result<()> {
        let _ = (loss, beta);
        Ok(())
    }

    /// Whether a nudge is the force along the gradient of the loss at the free outputs, and stays
    /// so while outputs move.
    fn is_nudged_by_forces(&self) -> bool {
        false
    }

    /// Whether the system has a phase of this kind, as number `p` of a plan; 0 is the free one. By
    /// default as systems do which settle: the free phase at rest or where it is told, and every
    /// other one from the free state.
    fn admits(&self, p: usize, phase: Phase) -> bool {
        match phase.start {
            Start::Rest | Start::Given => p == 0,
            Start::After(from) => {
                from == 0 && p > 0 && !matches!(phase.boundary, Boundary::Kicked(_))
            }
            Start::Reversed(_) => false,
        }
    }

    /// Runs all phases of the plan, which it [admits](Dynamics::admits), and fills the readings.
    ///
    /// `states` have [begun](crate::plan::PhasePlan::begin) for the batch and the plan. Numerical
    /// outcomes go to [`States::outcomes`]; rows that diverged or are unbounded are blank (zero).
    ///
    /// # Errors
    /// What the physics may fail with: [`Error::Hardware`] for systems outside the core.
    fn run(
        &self,
        experiment: &Experiment<'_, T>,
        readings: &mut [Reading<'_, T>],
        states: &mut States<T>,
        workspace: &mut Workspace,
    ) -> Result<()>;

    /// Reads the local rule of states, which need not be those of a run: writes the sum over rows
    /// of the real part of w dE/dtheta, with w the weight of the row's phase (free first) divided
    /// by the number of samples. Samples with an unusable phase contribute nothing. `workspace` is
    /// that of the [`Dynamics::run`] that made the states, if there was one.
    ///
    /// # Errors
    /// As [`Dynamics::run`].
    fn read(
        &self,
        experiment: &Experiment<'_, T>,
        states: &States<T>,
        weights: &[Complex<f64>],
        workspace: &mut Workspace,
        update: &mut LocalUpdate<T>,
    ) -> Result<()>;
}

/// Energies, Jacobians and Hessians: what only a simulation knows. Audits and in-silico methods
/// name this trait.
///
/// Arrays over states have the rows and the stride of `states`. Where a system is not reciprocal,
/// dE/ds stands for the force that vanishes at the steady state, d2E/ds2 for the transpose of its
/// derivatives, and dE/dtheta for the local rule.
pub trait StateDerivatives<T: Real>: Dynamics<T> {
    /// Writes the energy of every row, without the loss.
    ///
    /// # Errors
    /// As [`Dynamics::run`].
    fn energy(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        states: &States<T>,
        energy: &mut [f64],
    ) -> Result<()>;

    /// Writes dE/ds of every row.
    ///
    /// # Errors
    /// As [`Dynamics::run`].
    fn state_gradient(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        states: &States<T>,
        gradient: &mut [T],
    ) -> Result<()>;

    /// The interval that state `j` of layer `l` may take; infinite where there are no walls.
    fn interval(&self, l: usize, j: usize) -> (f64, f64) {
        let _ = (l, j);
        (f64::NEG_INFINITY, f64::INFINITY)
    }

    /// Lets states that inequalities between them tie together share the forces on them; where one
    /// of them is `held`, nothing is left. Where there are no such inequalities, forces stay what
    /// they are.
    ///
    /// # Errors
    /// As [`Dynamics::run`].
    fn share_tied(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        states: &States<T>,
        held: &[bool],
        force: &mut [T],
    ) -> Result<()> {
        let _ = (params, batch, states, held, force);
        Ok(())
    }

    /// An interval of state `j` of layer `l` in which the energy is smooth: where checks look at
    /// it.
    fn domain(&self, l: usize, j: usize) -> (f64, f64) {
        near_zero(self.interval(l, j))
    }

    /// Writes d2E/ds2 v of every row. Units at a wall are the caller's to freeze.
    ///
    /// The default takes central differences of [`StateDerivatives::state_gradient`].
    ///
    /// # Errors
    /// As [`Dynamics::run`].
    fn hessian_product(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        states: &States<T>,
        v: &[T],
        product: &mut [T],
    ) -> Result<()> {
        let gradient =
            |states: &States<T>, found: &mut [T]| self.state_gradient(params, batch, states, found);
        let size = crate::differences::size_of_states(&states.values, self.scales(params).0);
        crate::differences::hessian_product(gradient, states, size, v, product)
    }

    /// By layer, the units that nothing holds at these parameters: their states say nothing, and
    /// derivatives leave them out. Empty where there are none.
    fn loose_units(&self, params: &Params<'_, T>) -> Vec<Vec<bool>> {
        let _ = params;
        Vec::new()
    }

    /// The magnitudes of what states and energies are sums with: rounding errors of displacements
    /// are relative to the places that they start from. Zero: to themselves.
    fn scales(&self, params: &Params<'_, T>) -> (f64, f64) {
        let _ = params;
        (0.0, 0.0)
    }

    /// Writes a positive diagonal M per row such that s - M^-1 dE/ds is a step of relaxation that
    /// converges.
    ///
    /// The default estimates the largest curvature of each row by power iteration.
    ///
    /// # Errors
    /// As [`Dynamics::run`].
    fn curvature(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        states: &States<T>,
        curvature: &mut [T],
    ) -> Result<()> {
        adjoint::largest_curvature(self, params, batch, states, curvature)
    }

    /// Solves d2E/ds2 lambda = error on every row, over states that are not `frozen`: the adjoint
    /// of the steady state.
    ///
    /// Rows where it is not found become unconverged. The default takes conjugate gradients.
    ///
    /// # Errors
    /// As [`Dynamics::run`].
    fn adjoint(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        states: &mut States<T>,
        frozen: &[bool],
        error: &[T],
    ) -> Result<Vec<T>> {
        adjoint::solve(self, params, batch, states, frozen, error)
    }

    /// Writes minus the product of an adjoint and d2E/ds dtheta, as [`Dynamics::read`] writes: the
    /// gradient of the loss. `states` has the free states, and may be changed.
    ///
    /// The default contrasts states to either side along the adjoint.
    ///
    /// # Errors
    /// As [`Dynamics::run`].
    fn contract(
        &self,
        experiment: &Experiment<'_, T>,
        states: &mut States<T>,
        adjoint: &[T],
        workspace: &mut Workspace,
        update: &mut LocalUpdate<T>,
    ) -> Result<()> {
        let size =
            crate::differences::size_of_states(&states.values, self.scales(experiment.params).0);
        let (probe, weights) = adjoint::displaced(states, adjoint, size * self.local_step());
        *states = probe;
        self.read(experiment, states, &weights, workspace, update)
    }

    /// How far along a direction of largest component one to step for a central difference of
    /// dE/dtheta, in units of the size of the states. One is exact where dE/dtheta is quadratic in
    /// the states.
    fn local_step(&self) -> f64 {
        T::EPSILON.to_f64().cbrt()
    }
}

/// A finite part of an interval.
pub(crate) fn near_zero((lo, hi): (f64, f64)) -> (f64, f64) {
    match (lo.is_finite(), hi.is_finite()) {
        (true, true) => (lo, hi),
        (true, false) => (lo, lo + 1.0),
        (false, true) => (hi - 1.0, hi),
        (false, false) => (-1.0, 1.0),
    }
}

/// Which states are at a wall, or nothing holds them, or of rows that are not usable; padding
/// counts as such.
pub(crate) fn at_walls<T: Real>(
    system: &dyn StateDerivatives<T>,
    params: &Params<'_, T>,
    states: &States<T>,
) -> Vec<bool> {
    let mut found = vec![true; states.values.len()];
    let loose = system.loose_units(params);
    let loose = |l: usize, j: usize| loose.get(l).is_some_and(|layer| layer[j]);
    for (r, found) in found.chunks_exact_mut(states.stride().max(1)).enumerate() {
        for l in 0..states.layout().sizes().len() {
            for (j, k) in states.layout().layer(l).enumerate() {
                let (s, (lo, hi)) = (states.row(r)[k].to_f64(), system.interval(l, j));
                found[k] = !states.outcomes[r].status.usable() || s <= lo || s >= hi || loose(l, j);
            }
        }
    }
    found
}

/// The largest component of the force dF/ds = dE/ds + beta dC/ds on the last phase of every sample,
/// where walls do not hold it: how far from steady the states are that settled under `boundary`.
/// Forces, and nudges of systems that are [nudged by them](Dynamics::is_nudged_by_forces), are
/// those at the outputs of the first phase.
///
/// # Errors
/// As [`Dynamics::run`].
pub fn residual<T: Real>(
    system: &dyn StateDerivatives<T>,
    params: &Params<'_, T>,
    batch: &Batch<'_, T>,
    loss: Loss,
    boundary: Boundary,
    states: &States<T>,
) -> Result<Vec<f64>> {
    let (all, states) = (states, &states.last_phase());
    let mut force = vec![T::ZERO; states.values.len()];
    system.state_gradient(params, batch, states, &mut force)?;
    let strength = match boundary {
        Boundary::Nudged(beta) => Some((beta.re, system.is_nudged_by_forces())),
        Boundary::Forced(strength) => Some((strength, true)),
        _ => None,
    };
    let layout = states.layout();
    let outputs = layout.outputs();
    let (mut target, mut pull) = (vec![T::ZERO; outputs.len()], vec![T::ZERO; outputs.len()]);
    for (r, force) in force.chunks_exact_mut(states.stride().max(1)).enumerate() {
        if let Some((strength, is_constant)) = strength
            && batch.y.write(r, &mut target)
        {
            let at = if is_constant { all.outputs(r * all.phases()) } else { states.outputs(r) };
            loss.gradient(at, &target, &mut pull);
            for (f, &p) in force[outputs.clone()].iter_mut().zip(&pull) {
                *f += T::from_f64(strength) * p;
            }
        }
    }
    let clamped = if matches!(boundary, Boundary::Clamped(_)) { outputs.clone() } else { 0..0 };
    let mut held = at_walls(system, params, states);
    held.chunks_exact_mut(states.stride().max(1)).for_each(|held| held[clamped.clone()].fill(true));
    system.share_tied(params, batch, states, &held, &mut force)?;
    let rows = force.chunks_exact(states.stride().max(1)).enumerate().map(|(r, force)| {
        let mut largest = T::ZERO;
        for l in 0..layout.sizes().len() {
            if matches!(boundary, Boundary::Clamped(_)) && layout.layer(l) == outputs {
                continue;
            }
            for (j, k) in layout.layer(l).enumerate() {
                let (s, (lo, hi)) = (states.row(r)[k].to_f64(), system.interval(l, j));
                let held = (s <= lo && force[k] >= T::ZERO) || (s >= hi && force[k] <= T::ZERO);
                if !held {
                    largest = largest.max_magnitude(force[k]);
                }
            }
        }
        largest.to_f64()
    });
    Ok(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::layered::Layered;
    use super::*;

    #[test]
    fn parameters_that_do_not_fit_are_named() {
        use crate::device::Device;
        let conductances = Device { lower: Some(0.0), ..Device::IDEAL };
        let net = Layered::resistive(&[1, 3], 1.0, conductances).expect("a network");
        let sources = [0.0f32; 3];
        let check = |g: &[f32]| net.check_params(&Params::shared([g, &sources]));
        let error = check(&[0.0; 5]).expect_err("too short").to_string();
        assert!(error.contains("g1") && error.contains("[2, 3]"), "{error}");
        assert!(matches!(check(&[0.0, 1.0, 2.0, f32::NAN, 4.0, 5.0]), Err(Error::Data(_))));
        let error = check(&[0.0, 1.0, 2.0, -0.5, 4.0, 5.0]).expect_err("negative").to_string();
        assert!(error.contains("g1 holds -0.5"), "{error}");
        assert!(check(&[0.0; 6]).is_ok());
    }
}
