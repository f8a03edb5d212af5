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

mod currents;
mod element;
mod law;
mod linear;
mod matrix;
mod reading;
mod sample;
mod search;
mod spec;
mod values;

use std::ops::Range;

use num_complex::Complex;
use pnncore_kernels::Real;
use pnncore_kernels::watch::poll;
use rayon::prelude::*;

use element::{Element, WallDiode, assemble, specs, wall_diodes};
pub use law::Law;
use matrix::Pattern;
use reading::{Columns, TOGETHER, dot};
use sample::{Pull, Sample};
use search::Memory;
pub use spec::{ElementSpec, Place, Spec, Terminal};
use spec::{check_elements, check_grounded, walls};
use values::{Assembly, Values};

use crate::batch::Batch;
use crate::device::{Device, Store};
use crate::params::{ParamSpec, Params};
use crate::plan::{Boundary, PhasePlan, Start, clamp_towards};
use crate::signal::Signal;
use crate::states::{Layout, Outcome, States};
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
    /// Whether there is a co-content.
    reciprocal: bool,
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
        check_grounded(spec)?;
        let walls = walls(spec)?;
        let first_output = n - spec.outputs;
        let outputs = (first_output..n).flat_map(|i| (first_output..i).map(move |j| (i, j)));
        let joined = spec.elements.iter().filter_map(|e| Some((e.from.free()?, e.to.free()?)));
        let reciprocal = spec.elements.iter().all(|e| e.law.is_reciprocal());
        let pattern = Pattern::new(n, outputs.chain(joined), reciprocal)?;
        let specs = specs(spec);
        let (elements, assembly) = assemble(spec, &specs, &pattern, reciprocal);
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
            reciprocal,
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

    /// Where the search for an operating point begins: a node beyond a wall would count as held
    /// there.
    fn within_walls(&self, mut v: Vec<f64>) -> Vec<f64> {
        v.iter_mut().zip(&self.walls).for_each(|(v, &(lo, hi))| *v = v.clamp(lo, hi));
        v
    }

    fn sample<'a, T: Real>(
        &'a self,
        values: &'a Values,
        batch: &Batch<'_, T>,
        i: usize,
    ) -> Sample<'a> {
        let x = to_f64(batch.x.row(i));
        let sources = values.sources(self, &x);
        Sample { circuit: self, values, x, sources }
    }

    /// Settles all phases of one sample.
    fn settle_sample<T: Real>(
        &self,
        values: &Values,
        batch: &Batch<'_, T>,
        plan: &PhasePlan,
        i: usize,
        rows: (&mut [T], &mut [Outcome]),
        memory: &mut Memory,
    ) {
        let (states, outcomes) = rows;
        let sample = self.sample(values, batch, i);
        let mut target = vec![T::ZERO; self.outputs];
        let wanted = batch.y.write(i, &mut target);
        let target = to_f64(&target);
        let mut gradient = vec![0.0; self.outputs];
        let stride = self.layout.stride();
        let mut free = match plan.start {
            Start::Given => self.within_walls(self.unpack(&states[..stride])),
            _ => self.within_walls(vec![0.0; self.walls.len()]),
        };
        for (p, outcome) in outcomes.iter_mut().enumerate() {
            let boundary = plan.boundary(p);
            let mut v = free.clone();
            let pull = match boundary {
                Boundary::Nudged(beta) if wanted => Pull::Loss(plan.loss, beta.re, &target),
                Boundary::Clamped(eta) if wanted => {
                    let first = v.len() - self.outputs;
                    clamp_towards(eta, &target, &mut v[first..]);
                    Pull::Clamp
                }
                Boundary::Forced(strength) if wanted => Pull::Force(strength, &gradient),
                _ => Pull::Nothing,
            };
            let solved =
                sample.solve(pull, plan.settling.limit(boundary == Boundary::Free), &mut v, memory);
            *outcome = Outcome {
                status: solved.status,
                sweeps: solved.steps,
                change: solved.change,
                ..Outcome::default()
            };
            if solved.status.usable() {
                self.pack(&v, &mut states[p * stride..(p + 1) * stride]);
            } else {
                states[p * stride..(p + 1) * stride].fill(T::ZERO);
            }
            if p == 0 {
                if !solved.status.usable() {
                    outcomes.iter_mut().for_each(|outcome| outcome.status = solved.status);
                    states.fill(T::ZERO);
                    return;
                }
                free = v;
                if wanted {
                    plan.loss.gradient(&free[free.len() - self.outputs..], &target, &mut gradient);
                }
            }
        }
    }
}

fn inputs<T: Real>(batch: &Batch<'_, T>) -> Vec<Vec<f64>> {
    (0..batch.len()).map(|i| to_f64(batch.x.row(i))).collect()
}

fn to_f64<T: Real>(row: &[T]) -> Vec<f64> {
    row.iter().map(|x| x.to_f64()).collect()
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

    fn abilities(&self) -> Abilities {
        Abilities::LOCAL_RULE.and(Abilities::STATE_DERIVATIVES)
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
        let values = Values::new(self, params);
        if linear::is_linear(self, plan) {
            linear::settle(self, &values, runtime, batch, plan, states);
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
            let mut memory = Memory::default();
            let samples =
                states.chunks_exact_mut(phases * stride).zip(outcomes.chunks_exact_mut(phases));
            for (i, rows) in samples.enumerate() {
                poll(COST * phases * self.elements.len());
                self.settle_sample(&values, batch, plan, c * chunk + i, rows, &mut memory);
            }
        });
        read_at_end(self, experiment, readings, states, workspace)
    }

    fn read(
        &self,
        experiment: &Experiment<'_, T>,
        states: &States<T>,
        weights: &[Complex<f64>],
        _workspace: &mut Workspace,
        update: &mut LocalUpdate<T>,
    ) -> Result<()> {
        let Experiment { runtime, params, batch, .. } = *experiment;
        let values = Values::new(self, params);
        let inputs = inputs(batch);
        let phases: Vec<(usize, f64)> =
            weights.iter().map(|w| w.re).enumerate().filter(|(_, w)| *w != 0.0).collect();
        let usable = (0..batch.len()).filter(|&i| states.usable(i));
        let rows: Vec<(usize, usize, f64)> =
            usable.flat_map(|i| phases.iter().map(move |&(p, w)| (i, p, w))).collect();
        let block = |span: Range<usize>| {
            let rows = &rows[span];
            let mut weights = [0.0; TOGETHER];
            weights.iter_mut().zip(rows).for_each(|(to, &(_, _, weight))| *to = weight);
            let row = |i: usize, p: usize| self.unpack(states.row(i * states.phases() + p));
            (Columns::new(self, rows.iter().map(|&(i, p, _)| (row(i, p), &inputs[i][..]))), weights)
        };
        update.terms =
            self.read(runtime, rows.len(), batch.len() as f64, block, |e, (columns, weights)| {
                let Element { law, from, to, .. } = self.elements[e];
                dot(
                    &law.sensitivities(values.theta[e], &columns.at(from), &columns.at(to)),
                    weights,
                )
            });
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
        let values = Values::new(self, params);
        for (r, energy) in energy.iter_mut().enumerate() {
            let sample = self.sample(&values, batch, r / states.phases());
            let v = self.unpack(states.row(r));
            let contents = self.elements.iter().enumerate();
            *energy = contents
                .map(|(e, el)| el.law.content(values.theta[e], self.drop(e, &sample.x, &v)))
                .sum();
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
        let values = Values::new(self, params);
        let mut force = vec![0.0; self.pattern.size()];
        for (r, gradient) in gradient.chunks_exact_mut(states.stride()).enumerate() {
            let v = self.unpack(states.row(r));
            self.sample(&values, batch, r / states.phases()).force(&v, &mut force);
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
        let values = Values::new(self, params);
        for (force, (r, held)) in force
            .chunks_exact_mut(states.stride())
            .zip(held.chunks_exact(states.stride()).enumerate())
        {
            let mut found = self.unpack(force);
            let sample = self.sample(&values, batch, r / states.phases());
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
        let values = Values::new(self, params);
        let (n, stride) = (self.pattern.size(), states.stride());
        let (mut matrix, mut found) = (Vec::new(), vec![0.0; n]);
        for (r, product) in product.chunks_exact_mut(stride).enumerate() {
            let sample = self.sample(&values, batch, r / states.phases());
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
        let values = Values::new(self, params);
        let stride = states.stride();
        let mut adjoint = vec![T::ZERO; error.len()];
        for (r, adjoint) in adjoint.chunks_exact_mut(stride).enumerate() {
            let span = r * stride..(r + 1) * stride;
            let held: Vec<bool> = self.nodes(&frozen[span.clone()]).collect();
            let mut found = self.unpack(&error[span]);
            let sample = self.sample(&values, batch, r / states.phases());
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
        _workspace: &mut Workspace,
        update: &mut LocalUpdate<T>,
    ) -> Result<()> {
        let Experiment { runtime, params, batch, .. } = *experiment;
        let values = Values::new(self, params);
        let inputs = inputs(batch);
        // Inputs do not move along the adjoint.
        let held = vec![0.0; self.inputs];
        let row = |rows: &[T], i: usize| {
            self.unpack(&rows[i * states.stride()..(i + 1) * states.stride()])
        };
        let block = |span: Range<usize>| {
            let voltages =
                Columns::new(self, span.clone().map(|i| (row(&states.values, i), &inputs[i][..])));
            (voltages, Columns::new(self, span.map(|i| (row(adjoint, i), &held[..]))))
        };
        update.terms = self.read(
            runtime,
            batch.len(),
            -(batch.len() as f64),
            block,
            |e, (voltages, adjoint)| {
                let Element { law, from, to, .. } = self.elements[e];
                let at = |terminal: Terminal| match terminal.place {
                    Place::Fixed(_) => [0.0; TOGETHER],
                    _ => adjoint.at(Terminal { offset: 0.0, ..terminal }),
                };
                let (here, there) = (at(from), at(to));
                let along = std::array::from_fn(|k| here[k] - there[k]);
                dot(
                    &law.current_sensitivities(
                        values.theta[e],
                        &voltages.at(from),
                        &voltages.at(to),
                    ),
                    &along,
                )
            },
        );
        Ok(())
    }
}
