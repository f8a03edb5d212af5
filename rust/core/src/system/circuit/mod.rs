//! Electrical circuits: any graph of two-terminal elements, and Kirchhoff's laws.
//!
//! The states are the voltages of the free nodes, outputs last; inputs are voltages of held nodes. The steady state is the
//! minimum of the co-content, the sum over elements of the integral of I dV, at which the currents into every node
//! cancel (Millar 1951). A trained element learns from its own voltage: the derivative of the co-content by a
//! conductance is 1/2 V^2. The squared-error nudge is a current beta (y - v) into each output.
//!
//! Operating points are found to rounding errors whatever the settling asks for, so nothing of an error is left to
//! tolerances; a sweep is one Newton step.

mod law;
mod linear;
mod matrix;
mod newton;
mod values;

use num_complex::Complex;
use pnncore_kernels::Real;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use law::Law;
use matrix::Pattern;
use newton::{Memory, Pull, Sample};
use values::Values;

use crate::batch::Batch;
use crate::device::Device;
use crate::lab::Lab;
use crate::params::{ParamSpec, Params};
use crate::system::{Energetic, Exact, Settling, System, Workspace};
use crate::trial::{Boundary, Layout, Outcome, Plan, Trial};
use crate::update::{LocalUpdate, Term};
use crate::{Error, Result};

/// What a terminal of an element is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Terminal {
    /// A free node, by number; the last ones are the outputs.
    Node(usize),
    /// An input, by number.
    Input(usize),
    /// A voltage: 0 is ground.
    Fixed(f64),
}

impl Terminal {
    /// The number of the free node.
    fn node(self) -> Option<usize> {
        match self {
            Self::Node(node) => Some(node),
            Self::Input(_) | Self::Fixed(_) => None,
        }
    }

    fn voltage(self, x: &[f64], v: &[f64]) -> f64 {
        match self {
            Self::Node(node) => v[node],
            Self::Input(input) => x[input],
            Self::Fixed(voltage) => voltage,
        }
    }
}

/// An element, as it is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ElementSpec {
    /// What it does.
    #[serde(flatten)]
    pub law: Law,
    /// The first terminal: the anode of a diode.
    pub from: Terminal,
    /// The second terminal.
    pub to: Terminal,
    /// Its value, where it is not trained and the law has one.
    #[serde(default)]
    pub value: f64,
    /// Whether the value is a parameter.
    #[serde(default)]
    pub trained: bool,
}

/// A circuit, as it is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The number of inputs.
    pub inputs: usize,
    /// The number of outputs.
    pub outputs: usize,
    /// The names of the free nodes, outputs last.
    pub nodes: Vec<String>,
    /// The elements.
    pub elements: Vec<ElementSpec>,
    /// What trained conductances are stored in.
    pub device: Device,
}

/// Where the value of an element comes from.
#[derive(Debug, Clone, Copy)]
enum Value {
    Fixed(f64),
    /// Parameter, and index in it.
    Trained(usize, usize),
}

#[derive(Debug, Clone)]
struct Element {
    law: Law,
    from: Terminal,
    to: Terminal,
    value: Value,
    /// Where the matrix holds the diagonals of its nodes, and the element between them.
    places: [Option<usize>; 3],
}

impl Element {
    /// Adds a conductance between the terminals to a matrix.
    fn stamp(&self, conductance: f64, matrix: &mut [f64]) {
        for (place, sign) in self.places.iter().zip([1.0, 1.0, -1.0]) {
            place.iter().for_each(|&place| matrix[place] += sign * conductance);
        }
    }
}

/// A resistor between a free node and an input.
#[derive(Debug, Clone, Copy)]
struct Coupling {
    node: u32,
    input: u32,
    element: u32,
}

/// An electrical circuit.
///
/// Parameters are `g`, the conductances of trained resistors and cubic elements, and `i`, the currents of trained sources,
/// in the order of the elements; one that would be empty does not exist.
#[derive(Debug, Clone)]
pub struct Circuit {
    inputs: usize,
    outputs: usize,
    elements: Vec<Element>,
    nonlinear: Vec<usize>,
    couplings: Vec<Coupling>,
    /// The interval of every free node, from ideal diodes.
    walls: Vec<(f64, f64)>,
    pattern: Pattern,
    specs: Vec<ParamSpec>,
    device: Device,
    layout: Layout,
}

impl Circuit {
    /// Builds a circuit.
    ///
    /// # Errors
    /// [`Error::Config`] for one that has no unique operating point whatever its values are (naming the nodes), for elements
    /// that contradict each other, and for settings out of range.
    pub fn new(spec: &Spec) -> Result<Self> {
        let n = spec.nodes.len();
        if spec.outputs == 0 || spec.outputs > n {
            return Err(Error::Config(format!("a circuit of {n} free nodes cannot have {} outputs", spec.outputs)));
        }
        spec.device.check()?;
        check_elements(spec)?;
        check_grounded(spec)?;
        let walls = walls(spec)?;
        let first_output = n - spec.outputs;
        let outputs = (first_output..n).flat_map(|i| (first_output..i).map(move |j| (i, j)));
        let joined = spec.elements.iter().filter_map(|e| Some((e.from.node()?, e.to.node()?)));
        let pattern = Pattern::new(n, outputs.chain(joined))?;
        let (conductances, currents): (Vec<&ElementSpec>, Vec<&ElementSpec>) =
            spec.elements.iter().filter(|e| e.trained).partition(|e| e.law.is_conductance());
        let mut specs = Vec::new();
        for (name, trained) in [("g", &conductances), ("i", &currents)] {
            if !trained.is_empty() {
                specs.push(ParamSpec { name: name.into(), shape: vec![trained.len()] });
            }
        }
        let mut counts = [0; 2];
        let elements = spec.elements.iter().map(|e| {
            let (i, j) = (e.from.node(), e.to.node());
            let places = [
                i.map(|i| pattern.place(i, i)),
                j.map(|j| pattern.place(j, j)),
                i.zip(j).map(|(i, j)| pattern.place(i, j)),
            ];
            let value = if e.trained {
                let kind = usize::from(!e.law.is_conductance());
                counts[kind] += 1;
                Value::Trained(if conductances.is_empty() { 0 } else { kind }, counts[kind] - 1)
            } else {
                Value::Fixed(e.value)
            };
            Element { law: e.law, from: e.from, to: e.to, value, places }
        });
        let elements: Vec<Element> = elements.collect();
        let nonlinear = (0..elements.len())
            .filter(|&e| !elements[e].law.is_linear() && elements[e].law != Law::IdealDiode)
            .collect();
        let couplings =
            elements.iter().enumerate().filter(|(_, e)| e.law == Law::Resistor).filter_map(|(e, element)| {
                let (node, input) = match (element.from, element.to) {
                    (Terminal::Node(node), Terminal::Input(input)) | (Terminal::Input(input), Terminal::Node(node)) => {
                        (node, input)
                    }
                    _ => return None,
                };
                Some(Coupling { node: node as u32, input: input as u32, element: e as u32 })
            });
        let couplings = couplings.collect();
        let sizes: Vec<usize> = [first_output, spec.outputs].into_iter().filter(|&size| size > 0).collect();
        Ok(Self {
            inputs: spec.inputs,
            outputs: spec.outputs,
            elements,
            nonlinear,
            couplings,
            walls,
            pattern,
            specs,
            device: spec.device.clone(),
            layout: Layout::new(&sizes),
        })
    }

    /// The voltage of element `e`.
    fn drop(&self, e: usize, x: &[f64], v: &[f64]) -> f64 {
        let element = &self.elements[e];
        element.from.voltage(x, v) - element.to.voltage(x, v)
    }

    /// The free nodes of a row, one after the other.
    fn unpack<T: Real>(&self, row: &[T]) -> Vec<f64> {
        (0..self.layout.sizes().len()).flat_map(|l| &row[self.layout.layer(l)]).map(|v| v.to_f64()).collect()
    }

    fn pack<T: Real>(&self, v: &[f64], row: &mut [T]) {
        let mut v = v.iter();
        for l in 0..self.layout.sizes().len() {
            row[self.layout.layer(l)].iter_mut().zip(&mut v).for_each(|(to, &v)| *to = T::from_f64(v));
        }
    }

    fn sample<'a, T: Real>(&'a self, values: &'a Values, batch: &Batch<'_, T>, i: usize) -> Sample<'a> {
        let x: Vec<f64> = batch.x.row(i).iter().map(|x| x.to_f64()).collect();
        let sources = values.sources(self, &x);
        Sample { circuit: self, values, x, sources }
    }

    /// Settles all phases of one sample.
    fn settle_sample<T: Real>(
        &self,
        values: &Values,
        batch: &Batch<'_, T>,
        plan: &Plan,
        i: usize,
        rows: (&mut [T], &mut [Outcome]),
        memory: &mut Memory,
    ) {
        let (states, outcomes) = rows;
        let sample = self.sample(values, batch, i);
        let mut target = vec![T::ZERO; self.outputs];
        let wanted = batch.y.write(i, &mut target);
        let target: Vec<f64> = target.iter().map(|y| y.to_f64()).collect();
        let mut gradient = vec![0.0; self.outputs];
        let mut free: Vec<f64> = self.walls.iter().map(|&(lo, hi)| 0f64.clamp(lo, hi)).collect();
        let stride = self.layout.stride();
        for (p, outcome) in outcomes.iter_mut().enumerate() {
            let boundary = plan.boundary(p);
            let mut v = free.clone();
            let pull = match boundary {
                Boundary::Nudged(beta) if wanted => Pull::Loss(plan.loss, beta.re, &target),
                Boundary::Clamped(eta) if wanted => {
                    let first = v.len() - self.outputs;
                    v[first..].iter_mut().zip(&target).for_each(|(v, y)| *v += eta * (y - *v));
                    Pull::Clamp
                }
                Boundary::Forced(strength) if wanted => Pull::Force(strength, &gradient),
                _ => Pull::Nothing,
            };
            let solved = sample.solve(pull, plan.settling.limit(boundary), &mut v, memory);
            *outcome =
                Outcome { status: solved.status, sweeps: solved.steps, change: solved.change, ..Outcome::default() };
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

/// Checks every element by itself.
fn check_elements(spec: &Spec) -> Result<()> {
    for (e, element) in spec.elements.iter().enumerate() {
        let refuse = |text: String| Err(Error::Config(format!("element {e}: {text}")));
        let positive = |x: f64| x > 0.0 && x.is_finite();
        for terminal in [element.from, element.to] {
            match terminal {
                Terminal::Node(node) if node >= spec.nodes.len() => return refuse(format!("there is no node {node}")),
                Terminal::Input(input) if input >= spec.inputs => return refuse(format!("there is no input {input}")),
                Terminal::Fixed(voltage) if !voltage.is_finite() => {
                    return refuse(format!("a voltage must be finite, got {voltage}"));
                }
                _ => {}
            }
        }
        if element.from == element.to {
            return refuse("both terminals are at the same node".into());
        }
        match element.law {
            Law::Cubic { scale } if !positive(scale) => return refuse(format!("scale must be positive, got {scale}")),
            Law::Diode { saturation, slope } if !(positive(saturation) && positive(slope)) => {
                return refuse(format!("saturation and slope must be positive, got {saturation} and {slope}"));
            }
            _ => {}
        }
        if element.trained && !element.law.has_value() {
            return refuse("this kind has no value to train".into());
        }
        if !element.trained && element.law.is_conductance() && !positive(element.value) {
            return refuse(format!("a conductance must be positive, got {}", element.value));
        }
        if !element.value.is_finite() {
            return refuse(format!("a current must be finite, got {}", element.value));
        }
    }
    let trained = spec.elements.iter().any(|e| e.trained && e.law.is_conductance());
    if trained && !spec.device.lower.is_some_and(|lower| lower >= 0.0) {
        return Err(Error::Config("conductances cannot be negative: the device's smallest must be at least 0".into()));
    }
    Ok(())
}

/// Checks that every free node has a way to a held one.
fn check_grounded(spec: &Spec) -> Result<()> {
    let n = spec.nodes.len();
    // Node n stands for all that is held.
    let mut neighbours = vec![Vec::new(); n + 1];
    for element in spec.elements.iter().filter(|e| e.law.conducts()) {
        let (i, j) = (element.from.node().unwrap_or(n), element.to.node().unwrap_or(n));
        neighbours[i].push(j);
        neighbours[j].push(i);
    }
    let (mut seen, mut queue) = (vec![false; n + 1], vec![n]);
    seen[n] = true;
    while let Some(i) = queue.pop() {
        for &j in &neighbours[i] {
            if !std::mem::replace(&mut seen[j], true) {
                queue.push(j);
            }
        }
    }
    let floating: Vec<&str> =
        spec.nodes.iter().zip(&seen).filter(|(_, seen)| !**seen).map(|(name, _)| name.as_str()).collect();
    if floating.is_empty() {
        return Ok(());
    }
    let more = if floating.len() > 5 { format!(" and {} more", floating.len() - 5) } else { String::new() };
    Err(Error::Config(format!(
        "no conducting path from {}{more} to an input, a voltage source or ground: the voltage there is undetermined",
        floating[..floating.len().min(5)].join(", ")
    )))
}

/// The intervals in which ideal diodes keep the free nodes.
fn walls(spec: &Spec) -> Result<Vec<(f64, f64)>> {
    let mut walls = vec![(f64::NEG_INFINITY, f64::INFINITY); spec.nodes.len()];
    for (e, element) in spec.elements.iter().enumerate().filter(|(_, e)| e.law == Law::IdealDiode) {
        match (element.from, element.to) {
            (Terminal::Node(node), Terminal::Fixed(voltage)) => walls[node].1 = walls[node].1.min(voltage),
            (Terminal::Fixed(voltage), Terminal::Node(node)) => walls[node].0 = walls[node].0.max(voltage),
            _ => {
                return Err(Error::Config(format!(
                    "element {e}: an ideal diode must join a node and ground or a fixed voltage; use an exponential diode"
                )));
            }
        }
    }
    for (name, (lo, hi)) in spec.nodes.iter().zip(&walls) {
        if lo > hi {
            return Err(Error::Config(format!("the ideal diodes at node {name} want it above {lo} and below {hi}")));
        }
    }
    Ok(walls)
}

impl<T: Real> System<T> for Circuit {
    fn name(&self) -> &str {
        "Circuit"
    }

    fn inputs(&self) -> usize {
        self.inputs
    }

    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    fn device(&self, parameter: usize) -> &Device {
        if self.specs[parameter].name == "g" { &self.device } else { &Device::IDEAL }
    }

    fn as_settling(&self) -> Option<&dyn Settling<T>> {
        Some(self)
    }

    fn as_energetic(&self) -> Option<&dyn Energetic<T>> {
        Some(self)
    }

    fn as_exact(&self) -> Option<&dyn Exact<T>> {
        Some(self)
    }
}

impl<T: Real> Settling<T> for Circuit {
    fn settle(
        &self,
        lab: &Lab,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        plan: &Plan,
        trial: &mut Trial<T>,
        _workspace: &mut Workspace,
    ) -> Result<()> {
        /// Multiply-adds per element of the matrix and phase: some Newton steps.
        const COST: usize = 50;
        let values = Values::new(self, params);
        if linear::is_linear(self, plan) {
            linear::settle(self, &values, lab, batch, plan, trial);
            return Ok(());
        }
        let (phases, stride) = (trial.phases(), trial.stride());
        let chunk =
            batch.len().div_ceil(lab.parts(COST * batch.len() * phases * self.elements.len(), batch.len())).max(1);
        let rows =
            trial.states.par_chunks_mut(chunk * phases * stride).zip(trial.outcomes.par_chunks_mut(chunk * phases));
        lab.for_each(rows.enumerate(), |(c, (states, outcomes))| {
            let mut memory = Memory::default();
            let samples = states.chunks_exact_mut(phases * stride).zip(outcomes.chunks_exact_mut(phases));
            for (i, rows) in samples.enumerate() {
                self.settle_sample(&values, batch, plan, c * chunk + i, rows, &mut memory);
            }
        });
        Ok(())
    }
}

impl<T: Real> Energetic<T> for Circuit {
    fn local_update(
        &self,
        lab: &Lab,
        _params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        trial: &Trial<T>,
        weights: &[Complex<f64>],
        _workspace: &mut Workspace,
        update: &mut LocalUpdate<T>,
    ) -> Result<()> {
        let states: Vec<Vec<f64>> = (0..trial.rows()).map(|r| self.unpack(trial.row(r))).collect();
        let inputs: Vec<Vec<f64>> =
            (0..batch.len()).map(|i| batch.x.row(i).iter().map(|x| x.to_f64()).collect()).collect();
        let mut sums: Vec<Vec<(usize, f64)>> = self.specs.iter().map(|_| Vec::new()).collect();
        for (e, element) in self.elements.iter().enumerate() {
            if let Value::Trained(parameter, _) = element.value {
                sums[parameter].push((e, 0.0));
            }
        }
        for sums in &mut sums {
            let chunk = sums.len().div_ceil(lab.parts(8 * sums.len() * trial.rows(), sums.len())).max(1);
            lab.for_each(sums.par_chunks_mut(chunk), |sums| {
                // Row by row: the voltages of a row stay in cache for all elements.
                for (i, x) in inputs.iter().enumerate().filter(|(i, _)| trial.usable(*i)) {
                    for (p, weight) in weights.iter().enumerate().filter(|(_, w)| w.re != 0.0) {
                        let v = &states[i * trial.phases() + p];
                        for (e, sum) in sums.iter_mut() {
                            *sum += weight.re * self.elements[*e].law.sensitivity(self.drop(*e, x, v));
                        }
                    }
                }
            });
        }
        let samples = batch.len() as f64;
        let terms = sums.into_iter().map(|sums| sums.into_iter().map(|(_, sum)| T::from_f64(sum / samples)).collect());
        update.terms = terms.map(Term::Dense).collect();
        Ok(())
    }
}

impl<T: Real> Exact<T> for Circuit {
    fn energy(&self, params: &Params<'_, T>, batch: &Batch<'_, T>, trial: &Trial<T>, energy: &mut [f64]) -> Result<()> {
        let values = Values::new(self, params);
        for (r, energy) in energy.iter_mut().enumerate() {
            let sample = self.sample(&values, batch, r / trial.phases());
            let v = self.unpack(trial.row(r));
            let contents = self.elements.iter().enumerate();
            *energy = contents.map(|(e, el)| el.law.content(values.theta[e], self.drop(e, &sample.x, &v))).sum();
        }
        Ok(())
    }

    fn state_gradient(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        trial: &Trial<T>,
        gradient: &mut [T],
    ) -> Result<()> {
        let values = Values::new(self, params);
        let mut force = vec![0.0; self.pattern.size()];
        for (r, gradient) in gradient.chunks_exact_mut(trial.stride()).enumerate() {
            let v = self.unpack(trial.row(r));
            self.sample(&values, batch, r / trial.phases()).force(&v, &mut force);
            self.pack(&force, gradient);
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
        trial: &Trial<T>,
        v: &[T],
        product: &mut [T],
    ) -> Result<()> {
        let values = Values::new(self, params);
        let (n, stride) = (self.pattern.size(), trial.stride());
        let (mut matrix, mut found) = (Vec::new(), vec![0.0; n]);
        for (r, product) in product.chunks_exact_mut(stride).enumerate() {
            let sample = self.sample(&values, batch, r / trial.phases());
            sample.curvature(&self.unpack(trial.row(r)), &mut matrix);
            self.pattern.multiply(&matrix, &self.unpack(&v[r * stride..(r + 1) * stride]), &mut found);
            self.pack(&found, product);
        }
        Ok(())
    }
}
