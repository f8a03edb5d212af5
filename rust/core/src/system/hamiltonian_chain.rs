//! Hamiltonian chains: anharmonic oscillators side by side, released from the inputs and watched
//! for a time.
//!
//! H = sum_i 1/2 p_i^2 + 1/2 a_i q_i^2 + 1/4 c_i q_i^4 - b_i q_i + sum_i 1/2 k_i (q_{i+1} - q_i)^2.
//! The first masses begin at q = x, the others at zero, all at rest; the outputs are the places of
//! the last masses after the time. Steps are kick, drift, kick (leapfrog): symplectic of second
//! order, and reversible but for rounding errors and the damping p' = -gamma p.
//!
//! The motion is computed in double precision, whatever the parameters and outputs are kept in.

use num_complex::Complex;
use pnncore_kernels::Real;
use pnncore_kernels::watch::poll;
use rayon::prelude::*;
use serde::Deserialize;
use smallvec::SmallVec;

use super::{
    Abilities, Accumulation, AnySystem, Dynamics, Experiment, Reading, System, SystemSpec,
    Workspace,
};
use crate::device::{Device, Store};
use crate::params::{ParamSpec, Params};
use crate::plan::{Boundary, Phase, Start};
use crate::settings::{at_least_one, at_least_zero, positive};
use crate::signal::Signal;
use crate::states::{Layout, Outcome, States, Status};
use crate::update::LocalUpdate;
use crate::{Error, Result};

/// Samples whose integrals are summed one after the other; the sums of these are summed in order.
const TOGETHER: usize = 8;

/// Multiply-adds per mass and step.
const WORK: usize = 16;

/// A chain, as it is given.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The number of masses.
    pub masses: usize,
    /// How many of the first are released from the inputs.
    pub inputs: usize,
    /// How many of the last are watched.
    pub outputs: usize,
    /// The time that the motion takes, in units of the inverse frequency at a = 1.
    pub time: f64,
    /// Steps in that time.
    pub steps: usize,
    /// The rate gamma at which momenta decay.
    pub damping: f64,
}

impl SystemSpec for Spec {
    const NAME: &'static str = "HamiltonianChain";

    fn build(&self) -> Result<AnySystem> {
        Ok(AnySystem::same(HamiltonianChain::new(self)?))
    }
}

/// A Hamiltonian chain. Its parameters are, in this order, `a`, `c`, `b` (of every mass) and `k`
/// (of every bond); `c` and `k` are at least zero.
#[derive(Debug, Clone)]
pub struct HamiltonianChain {
    spec: Spec,
    specs: Vec<ParamSpec>,
    layout: Layout,
    /// What `c` and `k` are stored in: without them being positive nothing would hold the masses.
    positive: Device,
}

impl HamiltonianChain {
    /// Makes a chain.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes, a time or a damping out of range.
    pub fn new(spec: &Spec) -> Result<Self> {
        let Spec { masses: n, inputs, outputs, time, steps, damping } = *spec;
        for (name, size) in [("inputs", inputs), ("outputs", outputs)] {
            if size == 0 || size > n {
                return Err(Error::Config(format!(
                    "{name} must be in 1..={n}, the number of masses, got {size}"
                )));
            }
        }
        positive("time", time)?;
        at_least_zero("damping", damping)?;
        at_least_one(&[("steps", steps)])?;
        let named = |(name, len): (&str, usize)| ParamSpec { name: name.into(), shape: vec![len] };
        let specs = [("a", n), ("c", n), ("b", n), ("k", n - 1)].map(named).to_vec();
        let sizes: Vec<usize> =
            [n, n - outputs, outputs].into_iter().filter(|&size| size > 0).collect();
        Ok(Self {
            spec: *spec,
            specs,
            layout: Layout::new(&sizes),
            positive: Device { lower: Some(0.0), ..Device::IDEAL },
        })
    }

    /// The number of parameters.
    fn size(&self) -> usize {
        4 * self.spec.masses - 1
    }

    /// Writes momenta and places to a row of states, blank where they are not finite.
    fn write<T: Real>(&self, at: &Point, row: &mut [T]) -> Outcome {
        row.fill(T::ZERO);
        let finite = at.p.iter().chain(&at.q).all(|v| T::from_f64(*v).is_finite());
        if finite {
            let values = at.p.iter().chain(&at.q).map(|&v| T::from_f64(v));
            let places = (0..self.layout.sizes().len()).flat_map(|l| self.layout.layer(l));
            places.zip(values).for_each(|(place, value)| row[place] = value);
        }
        Outcome {
            status: if finite { Status::Completed } else { Status::Diverged },
            ..Outcome::default()
        }
    }

    /// Reads momenta and places from a row of states.
    fn read<T: Real>(&self, row: &[T], at: &mut Point) {
        let places = (0..self.layout.sizes().len()).flat_map(|l| self.layout.layer(l));
        let values: Vec<f64> = places.map(|place| row[place].to_f64()).collect();
        (at.p, at.q) = (values[..self.spec.masses].to_vec(), values[self.spec.masses..].to_vec());
    }
}

/// A point in phase space.
#[derive(Debug, Clone, Default)]
struct Point {
    p: Vec<f64>,
    q: Vec<f64>,
}

impl Point {
    fn rest(&mut self, masses: usize) {
        for values in [&mut self.p, &mut self.q] {
            values.clear();
            values.resize(masses, 0.0);
        }
    }

    fn copy(&mut self, other: &Self) {
        self.p.clone_from(&other.p);
        self.q.clone_from(&other.q);
    }
}

/// The equation of motion at some parameters.
struct Motion<'a> {
    spec: &'a Spec,
    a: &'a [f64],
    c: &'a [f64],
    b: &'a [f64],
    k: &'a [f64],
}

impl<'a> Motion<'a> {
    fn new(spec: &'a Spec, values: &'a [f64]) -> Self {
        let (a, rest) = values.split_at(spec.masses);
        let (c, rest) = rest.split_at(spec.masses);
        let (b, k) = rest.split_at(spec.masses);
        Self { spec, a, c, b, k }
    }

    /// Forces act for a time: p' = -dH/dq.
    fn kick(&self, at: &mut Point, time: f64) {
        let (p, q) = (&mut at.p, &at.q);
        for (i, p) in p.iter_mut().enumerate() {
            *p += time * (self.b[i] - self.a[i] * q[i] - self.c[i] * q[i] * q[i] * q[i]);
        }
        for (i, k) in self.k.iter().enumerate() {
            let pull = time * k * (q[i + 1] - q[i]);
            p[i] += pull;
            p[i + 1] -= pull;
        }
    }

    /// Moves on for the time, and calls `see` with places and for how long forces act there: a
    /// quadrature of the order of the steps.
    fn advance(&self, at: &mut Point, mut see: impl FnMut(&[f64], f64)) {
        let step = self.spec.time / self.spec.steps as f64;
        let decay = (-0.5 * self.spec.damping * step).exp();
        for _ in 0..self.spec.steps {
            poll(WORK * at.p.len());
            at.p.iter_mut().for_each(|p| *p *= decay);
            see(&at.q, 0.5 * step);
            self.kick(at, 0.5 * step);
            at.q.iter_mut().zip(&at.p).for_each(|(q, p)| *q += step * p);
            see(&at.q, 0.5 * step);
            self.kick(at, 0.5 * step);
            at.p.iter_mut().for_each(|p| *p *= decay);
        }
    }
}

/// Adds dH/dtheta at these places, times a time, to its integral.
fn add_sensitivities(q: &[f64], time: f64, integral: &mut [f64]) {
    let n = q.len();
    for (i, q) in q.iter().enumerate() {
        integral[i] += time * 0.5 * q * q;
        integral[n + i] += time * 0.25 * q * q * q * q;
        integral[2 * n + i] -= time * q;
    }
    for (i, pair) in q.windows(2).enumerate() {
        integral[3 * n + i] += time * 0.5 * (pair[1] - pair[0]).powi(2);
    }
}

/// Memory for some samples.
#[derive(Debug, Clone, Default)]
struct Chunk<T> {
    /// Where each phase of a sample is, and at last where it ends.
    points: Vec<Point>,
    target: Vec<T>,
    error: Vec<T>,
    /// The integrals of dH/dtheta over each phase of a sample.
    integrals: Vec<f64>,
    /// Their weighted sums over the samples, reading by reading.
    sums: Vec<f64>,
}

/// Memory for a batch.
#[derive(Debug, Default)]
struct Memory<T> {
    /// The values of the parameters, and later the means of what is read.
    values: Vec<f64>,
    chunks: Vec<Chunk<T>>,
    sums: Vec<T>,
}

/// A batch on its way.
struct Run<'a, 'r, T: Real> {
    chain: &'a HamiltonianChain,
    experiment: &'a Experiment<'a, T>,
    motion: Motion<'a>,
    weights: &'a [&'r [Complex<f64>]],
    phases: usize,
    stride: usize,
}

impl<T: Real> Run<'_, '_, T> {
    /// Moves some samples through all phases, and sums what is read of them.
    fn samples(
        &self,
        first: usize,
        rows: &mut [T],
        outcomes: &mut [Outcome],
        chunk: &mut Chunk<T>,
    ) {
        let size = self.chain.size();
        chunk.sums.clear();
        chunk.sums.resize(size * self.weights.len(), 0.0);
        let rows = rows.chunks_mut(self.phases * self.stride).zip(outcomes.chunks_mut(self.phases));
        for (i, (rows, outcomes)) in rows.enumerate() {
            self.sample(first + i, rows, outcomes, chunk);
            if !outcomes.iter().all(|outcome| outcome.status.usable()) {
                continue;
            }
            for (sums, weights) in chunk.sums.chunks_exact_mut(size).zip(self.weights) {
                for (integral, weight) in chunk.integrals.chunks_exact(size).zip(*weights) {
                    sums.iter_mut().zip(integral).for_each(|(sum, v)| *sum += weight.re * v);
                }
            }
        }
    }

    fn sample(&self, i: usize, rows: &mut [T], outcomes: &mut [Outcome], chunk: &mut Chunk<T>) {
        let Chunk { points, target, error, integrals, .. } = chunk;
        let (n, outputs, size) =
            (self.chain.spec.masses, self.chain.spec.outputs, self.chain.size());
        let Experiment { batch, plan, .. } = *self.experiment;
        integrals.clear();
        integrals.resize(size * self.phases, 0.0);
        points.resize_with(self.phases, Point::default);
        for (p, integral) in integrals.chunks_exact_mut(size).enumerate() {
            let Phase { start, boundary } = plan.phase(p);
            let (ended, rest) = points.split_at_mut(p);
            let at = &mut rest[0];
            let row = p * self.stride..(p + 1) * self.stride;
            match start {
                Start::Rest => {
                    at.rest(n);
                    at.q.iter_mut().zip(batch.x.row(i)).for_each(|(q, x)| *q = x.to_f64());
                }
                Start::Given => self.chain.read(&rows[row.clone()], at),
                Start::After(from) | Start::Reversed(from) => at.copy(&ended[from]),
            }
            if matches!(start, Start::Reversed(_)) {
                at.p.iter_mut().for_each(|p| *p = -*p);
            }
            if let Boundary::Kicked(kick) = boundary {
                at.p[n - outputs..]
                    .iter_mut()
                    .zip(&*error)
                    .for_each(|(p, e)| *p += kick * e.to_f64());
            }
            self.motion.advance(at, |q, time| add_sensitivities(q, time, integral));
            outcomes[p] = self.chain.write(at, &mut rows[row]);
            if p == 0 {
                target.resize(outputs, T::ZERO);
                error.clear();
                error.resize(outputs, T::ZERO);
                // Without targets nothing is kicked: an echo comes back to where the motion began.
                if batch.y.write(i, target) {
                    plan.loss.gradient(&rows[self.chain.layout.outputs()], target, error);
                }
            }
        }
    }
}

/// Refuses readings of the end of a motion.
fn check(readings: &[Reading<'_, impl Real>]) -> Result<()> {
    match readings.iter().find(|reading| reading.accumulation != Accumulation::Integral) {
        Some(reading) => {
            let what = reading.accumulation;
            Err(Error::Capability(format!("a HamiltonianChain moves: it has no reading {what:?}")))
        }
        None => Ok(()),
    }
}

impl<T: Real> System<T> for HamiltonianChain {
    fn name(&self) -> &str {
        Spec::NAME
    }

    fn takes(&self) -> Signal {
        Signal::real(self.spec.inputs)
    }

    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    fn store(&self, parameter: usize) -> Store<'_, T> {
        if parameter % 2 == 1 { Store::of(&self.positive) } else { Store::IDEAL }
    }

    fn abilities(&self) -> Abilities {
        Abilities::ECHOES
    }

    fn workspace(&self) -> Workspace {
        Box::new(Memory::<T>::default())
    }

    fn as_dynamics(&self) -> Option<&dyn Dynamics<T>> {
        Some(self)
    }
}

impl<T: Real> Dynamics<T> for HamiltonianChain {
    /// A motion starts at rest, at a given point, or where an earlier phase ended; it is free, and
    /// may begin with a kick.
    fn admits(&self, p: usize, phase: Phase) -> bool {
        let starts = match phase.start {
            Start::Rest | Start::Given => true,
            Start::After(from) | Start::Reversed(from) => from < p,
        };
        starts && matches!(phase.boundary, Boundary::Free | Boundary::Kicked(_))
    }

    fn run(
        &self,
        experiment: &Experiment<'_, T>,
        readings: &mut [Reading<'_, T>],
        states: &mut States<T>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let Experiment { runtime, params, batch, .. } = *experiment;
        check(readings)?;
        let other = || Error::Capability("the memory of a step belongs to another system".into());
        let Memory { values, chunks, sums } = workspace.downcast_mut().ok_or_else(other)?;
        write_values(params, values);
        let weights: SmallVec<[&[Complex<f64>]; 2]> =
            readings.iter().map(|reading| reading.weights).collect();
        let (phases, stride) = (states.phases(), states.stride());
        let motion = Motion::new(&self.spec, values);
        let run = Run { chain: self, experiment, motion, weights: &weights, phases, stride };
        chunks.resize_with(batch.len().div_ceil(TOGETHER), Chunk::default);
        let work = WORK * self.spec.masses * self.spec.steps * batch.len() * phases;
        let group = runtime.grouped(work, chunks.len());
        let rows = states.values.par_chunks_mut(group * TOGETHER * phases * stride);
        let outcomes = states.outcomes.par_chunks_mut(group * TOGETHER * phases);
        let groups = chunks.par_chunks_mut(group).zip(rows).zip(outcomes).enumerate();
        runtime.for_each(groups, |(g, ((chunks, rows), outcomes))| {
            let rows = rows
                .chunks_mut(TOGETHER * phases * stride)
                .zip(outcomes.chunks_mut(TOGETHER * phases));
            for (c, (chunk, (rows, outcomes))) in chunks.iter_mut().zip(rows).enumerate() {
                run.samples((g * group + c) * TOGETHER, rows, outcomes, chunk);
            }
        });
        let size = self.size();
        for (r, reading) in readings.iter_mut().enumerate() {
            values.clear();
            values.resize(size, 0.0);
            for chunk in chunks.iter() {
                let own = &chunk.sums[r * size..(r + 1) * size];
                values.iter_mut().zip(own).for_each(|(sum, v)| *sum += v / batch.len() as f64);
            }
            sums.clear();
            sums.extend(values.iter().map(|&sum| T::from_f64(sum)));
            reading.update.set(crate::params::cut(&self.specs, sums));
        }
        Ok(())
    }

    fn read(
        &self,
        _experiment: &Experiment<'_, T>,
        _states: &States<T>,
        _weights: &[Complex<f64>],
        _workspace: &mut Workspace,
        _update: &mut LocalUpdate<T>,
    ) -> Result<()> {
        Err(Error::Capability("a motion is read on the way, not afterwards".into()))
    }
}

fn write_values<T: Real>(params: &Params<'_, T>, values: &mut Vec<f64>) {
    values.clear();
    values.extend((0..params.len()).flat_map(|i| params.get(i)).map(|v| v.to_f64()));
}
