//! Electrical circuits: any graph of two-terminal elements, and Kirchhoff's laws.
//!
//! The states are the voltages of the free nodes, outputs last; inputs are voltages of held nodes.
//! The steady state is the minimum of the co-content, the sum over elements of the integral of I
//! dV, at which the currents into every node cancel (Millar 1951). A trained element learns from
//! its own voltage: the derivative of the co-content by a conductance is 1/2 V^2. The squared-error
//! nudge is a current beta (y - v) into each output.
//!
//! With transistors there is no co-content: the current of one is not a function of its voltage
//! alone, and the derivatives of the currents by the voltages are not symmetric. Kirchhoff's laws
//! hold all the same, found by LU instead of Cholesky factors; local rules are approximations
//! there, and implicit differentiation solves with the transpose.
//!
//! Operating points are found to rounding errors whatever the settling asks for, so nothing of an
//! error is left to tolerances; a sweep is one Newton step.

mod branch;
mod currents;
mod element;
mod lanes;
mod law;
mod linear;
mod memory;
mod reading;
mod sample;
mod search;
mod spec;
mod terminal;
mod values;

use std::ops::Range;

use num_complex::Complex;
use pnncore_kernels::Real;
use pnncore_kernels::watch::poll;
use rayon::prelude::*;

use branch::Branch;
pub use branch::{BranchSpec, InputCurrent};
use element::{Element, WallDiode, assemble, specs, wall_diodes};
use lanes::{Lanes, TOGETHER, dot};
pub use law::Law;
use memory::{Memory, ReadingMemory, SampleMemory};

use reading::Columns;
use sample::{Fed, Pull};
pub use spec::{ElementSpec, Spec};
use spec::{check_branches, check_elements, check_grounded, walls};
pub use terminal::{Place, Terminal};
use values::{Assembly, Values};

use crate::batch::Batch;
use crate::device::{Device, Store};
use crate::params::{ParamSpec, Params};
use crate::plan::{Boundary, PhasePlan, Start, clamp_towards};
use crate::signal::Signal;
use crate::states::{Layout, Outcome, States};
use crate::system::matrix::Pattern;
use crate::system::{
    Abilities, Dynamics, Experiment, Reading, StateDerivatives, System, Workspace, read_at_end,
};
use crate::update::LocalUpdate;
use crate::{Error, Result};

/// An electrical circuit.
///
/// Parameters are `g`, the conductances of trained resistors and cubic elements, `i`, the currents
/// of trained sources, and `gate`, the gate voltages of trained transistors, in the order of the
/// elements; one that would be empty does not exist.
#[derive(Debug, Clone)]
pub struct Circuit {
    inputs: usize,
    outputs: usize,
    elements: Vec<Element>,
    /// The elements that are not linear, but for walls.
    nonlinear: Vec<usize>,
    branches: Vec<Branch>,
    /// Which unknowns are currents; empty where none is.
    currents: Vec<bool>,
    input_currents: Vec<InputCurrent>,
    /// Whether there is a co-content.
    reciprocal: bool,
    /// Whether operating points are minima of it.
    definite: bool,
    assembly: Assembly,
    /// The interval of every free node, from ideal diodes.
    walls: Vec<(f64, f64)>,
    wall_diodes: Vec<WallDiode>,
    pattern: Pattern,
    specs: Vec<ParamSpec>,
    device: Device,
    layout: Layout,
}

impl Circuit {
    /// Builds a circuit.
    ///
    /// # Errors
    /// [`Error::Config`] for one that has no unique operating point whatever its values are (naming
    /// the nodes), for elements that contradict each other, and for settings out of range.
    pub fn new(spec: &Spec) -> Result<Self> {
        let n = spec.nodes.len();
        if spec.outputs == 0 || spec.outputs > n {
            return Err(Error::Config(format!(
                "a circuit of {n} free nodes cannot have {} outputs",
                spec.outputs
            )));
        }
        spec.device.check()?;
        check_elements(spec)?;
        check_branches(spec)?;
        check_grounded(spec)?;
        let walls = walls(spec)?;
        let first_output = n - spec.outputs;
        let outputs = (first_output..n).flat_map(|i| (first_output..i).map(move |j| (i, j)));
        let joined = spec.elements.iter().filter_map(|e| Some((e.from.free()?, e.to.free()?)));
        let branches = spec.branches.iter().flat_map(BranchSpec::pairs);
        let definite = spec.is_definite();
        let pattern = Pattern::new(n, outputs.chain(joined).chain(branches), definite)?;
        let specs = specs(spec);
        let (elements, assembly) = assemble(spec, &specs, &pattern, definite);
        let is_nonlinear =
            |e: &ElementSpec| !e.law.is_linear() && !e.is_shorted() && e.wall().is_none();
        let nonlinear = spec
            .elements
            .iter()
            .enumerate()
            .filter(|(_, e)| is_nonlinear(e))
            .map(|(e, _)| e)
            .collect();
        let sizes: Vec<usize> =
            [first_output, spec.outputs].into_iter().filter(|&size| size > 0).collect();
        Ok(Self {
            inputs: spec.inputs,
            outputs: spec.outputs,
            elements,
            nonlinear,
            branches: spec.branches.iter().map(|b| Branch::new(b, &pattern)).collect(),
            currents: spec.currents(),
            input_currents: spec.input_currents.clone(),
            reciprocal: spec.is_reciprocal(),
            definite,
            assembly,
            wall_diodes: wall_diodes(spec, &walls),
            walls,
            pattern,
            specs,
            device: spec.device.clone(),
            layout: Layout::new(&sizes),
        })
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.elements.len()
    }

    /// The voltages of the terminals of element `e`.
    fn ends(&self, e: usize, x: &[f64], v: &[f64]) -> [f64; 2] {
        let element = &self.elements[e];
        [element.from.voltage(x, v), element.to.voltage(x, v)]
    }

    /// The voltage of element `e`.
    fn drop(&self, e: usize, x: &[f64], v: &[f64]) -> f64 {
        let [from, to] = self.ends(e, x, v);
        from - to
    }

    /// What a row has for the free nodes, one after the other.
    fn nodes<'a, U: Copy>(&self, row: &'a [U]) -> impl Iterator<Item = U> + use<'_, 'a, U> {
        (0..self.layout.sizes().len()).flat_map(|l| &row[self.layout.layer(l)]).copied()
    }

    fn unpack<T: Real>(&self, row: &[T]) -> Vec<f64> {
        self.nodes(row).map(|v| v.to_f64()).collect()
    }

    fn pack<T: Real>(&self, v: &[f64], row: &mut [T]) {
        let mut v = v.iter();
        for l in 0..self.layout.sizes().len() {
            row[self.layout.layer(l)]
                .iter_mut()
                .zip(&mut v)
                .for_each(|(to, &v)| *to = T::from_f64(v));
        }
    }

    /// Brings voltages to where the search for an operating point begins: a node beyond a wall
    /// would count as held there.
    fn keep_within_walls(&self, v: &mut [f64]) {
        v.iter_mut().zip(&self.walls).for_each(|(v, &(lo, hi))| *v = v.clamp(lo, hi));
    }

    /// Settles all phases of one sample.
    fn settle_sample<T: Real>(
        &self,
        values: &Values,
        batch: &Batch<'_, T>,
        plan: &PhasePlan,
        i: usize,
        rows: (&mut [T], &mut [Outcome]),
        memory: &mut SampleMemory<T>,
    ) {
        let (states, outcomes) = rows;
        let SampleMemory { fed, given, target, gradient, free, v, search } = memory;
        let sample = fed.sample(self, values, batch, i);
        given.resize(self.outputs, T::ZERO);
        let wanted = batch.y.write(i, given);
        target.clear();
        target.extend(given.iter().map(|y| y.to_f64()));
        gradient.clear();
        gradient.resize(self.outputs, 0.0);
        let stride = self.layout.stride();
        free.clear();
        match plan.start {
            Start::Given => free.extend(self.nodes(&states[..stride]).map(|v| v.to_f64())),
            _ => free.resize(self.walls.len(), 0.0),
        }
        self.keep_within_walls(free);
        for (p, outcome) in outcomes.iter_mut().enumerate() {
            let boundary = self.acting(plan.boundary(p));
            v.clone_from(free);
            let pull = match boundary {
                Boundary::Nudged(beta) if wanted => Pull::Loss(plan.loss, beta.re, target),
                Boundary::Clamped(eta) if wanted => {
                    let first = v.len() - self.outputs;
                    clamp_towards(eta, target, &mut v[first..]);
                    Pull::Clamp
                }
                Boundary::Forced(strength) if wanted => Pull::Force(strength, gradient),
                _ => Pull::Nothing,
            };
            let limit = plan.settling.limit(boundary == Boundary::Free);
            let solved = sample.solve(pull, limit, v, search);
            *outcome = Outcome {
                status: solved.status,
                sweeps: solved.steps,
                change: solved.change,
                ..Outcome::default()
            };
            if solved.status.usable() {
                self.pack(v, &mut states[p * stride..(p + 1) * stride]);
            } else {
                states[p * stride..(p + 1) * stride].fill(T::ZERO);
            }
            if p == 0 {
                if !solved.status.usable() {
                    outcomes.iter_mut().for_each(|outcome| outcome.status = solved.status);
                    states.fill(T::ZERO);
                    return;
                }
                free.copy_from_slice(v);
                if wanted {
                    plan.loss.gradient(&free[free.len() - self.outputs..], target, gradient);
                }
            }
        }
    }
}

/// How far rounding, to `T` or of what ideal diodes carry, may pull voltages apart that are equal,
/// relative to the largest.
fn rounding<T: Real>() -> f64 {
    (16.0 * T::EPSILON.to_f64()).max(1e-10)
}

impl<T: Real> System<T> for Circuit {
    fn name(&self) -> &str {
        "Circuit"
    }

    fn takes(&self) -> Signal {
        Signal::real(self.inputs)
    }

    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    fn store(&self, parameter: usize) -> Store<'_, T> {
        if self.specs[parameter].name == "g" { Store::of(&self.device) } else { Store::IDEAL }
    }

    fn is_reciprocal(&self) -> bool {
        self.reciprocal
    }

    fn output_units(&self, params: &Params<'_, T>) -> Vec<f64> {
        if self.branches.is_empty() {
            return Vec::new();
        }
        let values = Values::new(self, params);
        let n = self.pattern.size();
        (n - self.outputs..n).map(|k| self.volts(&values, k, 1.0)).collect()
    }

    fn abilities(&self) -> Abilities {
        Abilities::LOCAL_RULE
            .and(Abilities::STATE_DERIVATIVES)
            .and_if(self.branches.is_empty(), Abilities::RELAXATION)
            .and_if(self.branches.iter().all(|b| b.across.is_some()), Abilities::CLAMPING)
    }

    fn workspace(&self) -> Workspace {
        Box::new(Memory::<T>::default())
    }

    fn as_circuit(&self) -> Option<&Circuit> {
        Some(self)
    }

    fn as_dynamics(&self) -> Option<&dyn Dynamics<T>> {
        Some(self)
    }

    fn as_state_derivatives(&self) -> Option<&dyn StateDerivatives<T>> {
        Some(self)
    }
}

impl<T: Real> Dynamics<T> for Circuit {
    fn run(
        &self,
        experiment: &Experiment<'_, T>,
        readings: &mut [Reading<'_, T>],
        states: &mut States<T>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        /// Multiply-adds per element of the matrix and phase: some Newton steps.
        const COST: usize = 50;
        let Experiment { runtime, params, batch, plan, .. } = *experiment;
        let Memory { values, linear, samples: pool, .. } = Memory::of(workspace)?;
        values.assemble(self, params);
        let values = &*values;
        if linear::is_linear(self, plan) {
            linear::settle(self, values, runtime, batch, plan, states, linear);
            return read_at_end(self, experiment, readings, states, workspace);
        }
        let (phases, stride) = (states.phases(), states.stride());
        let chunk = batch
            .len()
            .div_ceil(runtime.parts(COST * batch.len() * phases * self.elements.len(), batch.len()))
            .max(1);
        let rows = states
            .values
            .par_chunks_mut(chunk * phases * stride)
            .zip(states.outcomes.par_chunks_mut(chunk * phases));
        runtime.for_each(rows.enumerate(), |(c, (states, outcomes))| {
            let samples =
                states.chunks_exact_mut(phases * stride).zip(outcomes.chunks_exact_mut(phases));
            pool.with(|memory| {
                for (i, rows) in samples.enumerate() {
                    poll(COST * phases * self.elements.len());
                    self.settle_sample(values, batch, plan, c * chunk + i, rows, memory);
                }
            });
        });
        read_at_end(self, experiment, readings, states, workspace)
    }

    fn is_nudged_by_forces(&self) -> bool {
        !self.branches.is_empty()
    }

    fn read(
        &self,
        experiment: &Experiment<'_, T>,
        states: &States<T>,
        weights: &[Complex<f64>],
        workspace: &mut Workspace,
        update: &mut LocalUpdate<T>,
    ) -> Result<()> {
        let Experiment { runtime, params, batch, .. } = *experiment;
        let Memory { values, reading, .. } = Memory::<T>::of(workspace)?;
        values.assemble(self, params);
        let ReadingMemory { rows, sums, voltages, .. } = reading;
        let phases = weights.iter().map(|w| w.re).enumerate().filter(|(_, w)| *w != 0.0);
        let usable = (0..batch.len()).filter(|&i| states.usable(i));
        rows.clear();
        rows.extend(usable.flat_map(|i| phases.clone().map(move |(p, w)| (i, p, w))));
        let fill = |(columns, weights): &mut (&mut Columns, Lanes), span: Range<usize>| {
            columns.clear(self);
            weights.fill(0.0);
            for (k, &(i, p, weight)) in rows[span].iter().enumerate() {
                let nodes = self.nodes(states.row(i * states.phases() + p)).map(|v| v.to_f64());
                columns.set(k, nodes, batch.x.row(i).iter().map(|x| x.to_f64()));
                weights[k] = weight;
            }
        };
        let term = |e: usize, (columns, weights): &(&mut Columns, Lanes)| {
            let Element { law, from, to, .. } = self.elements[e];
            dot(&law.sensitivities(values.theta[e], &columns.at(from), &columns.at(to)), weights)
        };
        let (read, mut block) = ((rows.len(), batch.len() as f64), (voltages, [0.0; TOGETHER]));
        self.read(runtime, read, sums, &mut block, fill, term, update);
        Ok(())
    }
}

impl<T: Real> StateDerivatives<T> for Circuit {
    fn energy(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        states: &States<T>,
        energy: &mut [f64],
    ) -> Result<()> {
        let (values, mut fed) = (Values::new(self, params), Fed::default());
        for (r, energy) in energy.iter_mut().enumerate() {
            let sample = fed.sample(self, &values, batch, r / states.phases());
            let v = self.unpack(states.row(r));
            let elements = self.elements.iter().enumerate();
            let contents =
                elements.map(|(e, el)| el.law.content(values.theta[e], self.drop(e, sample.x, &v)));
            let branches = self.branches.iter().map(|b| b.content(sample.x, &v));
            let fed = self.input_currents.iter().map(|c| c.content(sample.x, &v));
            *energy = contents.chain(branches).chain(fed).sum();
        }
        Ok(())
    }

    fn state_gradient(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        states: &States<T>,
        gradient: &mut [T],
    ) -> Result<()> {
        let (values, mut fed) = (Values::new(self, params), Fed::default());
        let mut force = vec![0.0; self.pattern.size()];
        for (r, gradient) in gradient.chunks_exact_mut(states.stride()).enumerate() {
            let v = self.unpack(states.row(r));
            fed.sample(self, &values, batch, r / states.phases()).force(&v, &mut force);
            self.pack(&force, gradient);
        }
        Ok(())
    }

    fn share_tied(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        states: &States<T>,
        held: &[bool],
        force: &mut [T],
    ) -> Result<()> {
        if !self.nonlinear.iter().any(|&e| self.elements[e].law == Law::IdealDiode) {
            return Ok(());
        }
        let (values, mut fed) = (Values::new(self, params), Fed::default());
        for (force, (r, held)) in force
            .chunks_exact_mut(states.stride())
            .zip(held.chunks_exact(states.stride()).enumerate())
        {
            let mut found = self.unpack(force);
            let sample = fed.sample(self, &values, batch, r / states.phases());
            sample.share_tied(
                &self.unpack(states.row(r)),
                rounding::<T>(),
                &self.nodes(held).collect::<Vec<bool>>(),
                &mut found,
            );
            self.pack(&found, force);
        }
        Ok(())
    }

    fn interval(&self, l: usize, j: usize) -> (f64, f64) {
        let before: usize = self.layout.sizes()[..l].iter().sum();
        self.walls[before + j]
    }

    fn hessian_product(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        states: &States<T>,
        v: &[T],
        product: &mut [T],
    ) -> Result<()> {
        let (values, mut fed) = (Values::new(self, params), Fed::default());
        let (n, stride) = (self.pattern.size(), states.stride());
        let (mut matrix, mut found) = (Vec::new(), vec![0.0; n]);
        for (r, product) in product.chunks_exact_mut(stride).enumerate() {
            let sample = fed.sample(self, &values, batch, r / states.phases());
            sample.curvature(&self.unpack(states.row(r)), &mut matrix);
            self.pattern.multiply_transposed(
                &matrix,
                &self.unpack(&v[r * stride..(r + 1) * stride]),
                &mut found,
            );
            self.pack(&found, product);
        }
        Ok(())
    }

    fn adjoint(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        states: &mut States<T>,
        frozen: &[bool],
        error: &[T],
    ) -> Result<Vec<T>> {
        let (values, mut fed) = (Values::new(self, params), Fed::default());
        let stride = states.stride();
        let mut adjoint = vec![T::ZERO; error.len()];
        for (r, adjoint) in adjoint.chunks_exact_mut(stride).enumerate() {
            let span = r * stride..(r + 1) * stride;
            let held: Vec<bool> = self.nodes(&frozen[span.clone()]).collect();
            let mut found = self.unpack(&error[span]);
            let sample = fed.sample(self, &values, batch, r / states.phases());
            if sample.adjoint(&self.unpack(states.row(r)), rounding::<T>(), &held, &mut found) {
                self.pack(&found, adjoint);
            }
        }
        Ok(adjoint)
    }

    fn contract(
        &self,
        experiment: &Experiment<'_, T>,
        states: &mut States<T>,
        adjoint: &[T],
        workspace: &mut Workspace,
        update: &mut LocalUpdate<T>,
    ) -> Result<()> {
        let Experiment { runtime, params, batch, .. } = *experiment;
        let Memory { values, reading, .. } = Memory::<T>::of(workspace)?;
        values.assemble(self, params);
        let ReadingMemory { sums, voltages, adjoint: along, .. } = reading;
        let stride = states.stride();
        let fill = |(voltages, along): &mut (&mut Columns, &mut Columns), span: Range<usize>| {
            voltages.clear(self);
            along.clear(self);
            for (k, i) in span.enumerate() {
                let row = i * stride..(i + 1) * stride;
                let inputs = batch.x.row(i).iter().map(|x| x.to_f64());
                let nodes = self.nodes(&states.values[row.clone()]).map(|v| v.to_f64());
                voltages.set(k, nodes, inputs);
                // Inputs do not move along the adjoint.
                let nodes = self.nodes(&adjoint[row]).map(|v| v.to_f64());
                along.set(k, nodes, std::iter::empty());
            }
        };
        let term = |e: usize, (voltages, along): &(&mut Columns, &mut Columns)| {
            let Element { law, from, to, .. } = self.elements[e];
            let at = |terminal: Terminal| match terminal.place {
                Place::Fixed(_) => [0.0; TOGETHER],
                _ => along.at(Terminal { offset: 0.0, ..terminal }),
            };
            let (here, there) = (at(from), at(to));
            let along = std::array::from_fn(|k| here[k] - there[k]);
            let (from, to) = (voltages.at(from), voltages.at(to));
            dot(&law.current_sensitivities(values.theta[e], &from, &to), &along)
        };
        let (read, mut block) = ((batch.len(), -(batch.len() as f64)), (voltages, along));
        self.read(runtime, read, sums, &mut block, fill, term, update);
        Ok(())
    }
}
