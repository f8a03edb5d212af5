//! Elastic networks: nodes joined by springs, in two or three dimensions.
//!
//! The states are displacements of coordinates from where the nodes were placed; inputs are
//! coordinates that are held at x, outputs are the last states. E = sum over springs of 1/2 k (l -
//! l0)^2, with stiffness k and rest length l0 as parameters: dE/dk = 1/2 (l - l0)^2, dE/dl0 = -k
//! (l - l0). Geometry makes it nonlinear, and there may be several minima: settling descends from
//! where the nodes were placed. Where that ends in a saddle point, or at one of many states of
//! equal energy, the status says so.

mod stability;

use num_complex::Complex;
use pnncore_kernels::Real;
use pnncore_kernels::watch::poll;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::device::{Device, Store};
use crate::params::{ParamSpec, Params};
use crate::signal::Signal;
use crate::states::{Layout, States};
use crate::system::{
    Abilities, AnySystem, Descents, Dynamics, Experiment, Reading, StateDerivatives, System,
    SystemAt, SystemSpec, Workspace, read_at_end,
};
use crate::update::LocalUpdate;
use crate::{Error, Result};
use stability::{Judgement, Stiffness};

/// A coordinate: node and axis.
type Coordinate = (usize, usize);

/// An elastic network, as it is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Where the nodes are placed, all in the same number of dimensions: 2 or 3.
    pub positions: Vec<Vec<f64>>,
    /// The nodes that each spring joins.
    pub springs: Vec<(usize, usize)>,
    /// The coordinates that inputs displace.
    pub inputs: Vec<Coordinate>,
    /// The coordinates whose displacements are the outputs.
    pub outputs: Vec<Coordinate>,
    /// Nodes that cannot move.
    pub fixed: Vec<usize>,
    /// What stiffnesses are stored in.
    pub device: Device,
}

impl SystemSpec for Spec {
    const NAME: &'static str = "Elastic";

    fn build(&self) -> Result<AnySystem> {
        Ok(AnySystem::same(Elastic::new(self)?))
    }
}

/// Where the displacement of a coordinate comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Source {
    Still,
    Input(usize),
    /// The place in a row of states.
    State(usize),
}

/// An elastic network.
///
/// Parameters are `k`, the stiffness, and `l0`, the rest length of every spring.
#[derive(Debug, Clone)]
pub struct Elastic {
    dimensions: usize,
    sources: Vec<Source>,
    springs: Vec<Spring>,
    inputs: usize,
    specs: Vec<ParamSpec>,
    device: Device,
    layout: Layout,
    stiffness: Stiffness,
}

/// A spring between two nodes.
#[derive(Debug, Clone)]
struct Spring {
    nodes: (usize, usize),
    /// From the first node to the second, where they were placed. Forces depend on differences of
    /// places alone: formed once, these keep their digits wherever the origin is.
    placed: [f64; 3],
}

/// A spring that is stretched.
struct Stretched {
    length: f64,
    /// From the first node to the second.
    direction: [f64; 3],
}

fn refuse<R>(text: String) -> Result<R> {
    Err(Error::Config(text))
}

/// Checks positions, springs and device; gives the number of dimensions.
fn check(spec: &Spec) -> Result<usize> {
    let nodes = spec.positions.len();
    let dimensions = spec.positions.first().map_or(0, Vec::len);
    if !(2..=3).contains(&dimensions) || spec.positions.iter().any(|p| p.len() != dimensions) {
        return refuse(format!(
            "positions must have 2 or 3 coordinates for every node, got {dimensions}"
        ));
    }
    if spec.positions.iter().flatten().any(|p| !p.is_finite()) {
        return refuse("positions must be finite".into());
    }
    if spec.outputs.is_empty() || spec.springs.is_empty() {
        return refuse("an elastic network needs springs and outputs".into());
    }
    for &(a, b) in &spec.springs {
        if a >= nodes || b >= nodes {
            return refuse(format!(
                "spring ({a}, {b}) joins a node that does not exist: there are {nodes}"
            ));
        }
        if spec.positions[a] == spec.positions[b] {
            return refuse(format!("spring ({a}, {b}) has no length"));
        }
    }
    spec.device.check()?;
    if !spec.device.lower.is_some_and(|lower| lower >= 0.0) {
        return refuse(
            "stiffness cannot be negative: the device's smallest must be at least 0".into(),
        );
    }
    Ok(dimensions)
}

/// Where every coordinate comes from, and where the states of those that move lie.
fn arrange(spec: &Spec, dimensions: usize) -> Result<(Vec<Source>, Layout)> {
    let nodes = spec.positions.len();
    let mut sources = vec![None; nodes * dimensions];
    let mut claim = |(node, axis): Coordinate, source: Source| {
        if node >= nodes || axis >= dimensions {
            return refuse(format!("there is no axis {axis} of node {node}"));
        }
        match sources[node * dimensions + axis].replace(source) {
            None => Ok(()),
            Some(_) => refuse(format!(
                "axis {axis} of node {node} is named twice: as input, output or fixed"
            )),
        }
    };
    for &node in &spec.fixed {
        (0..dimensions).try_for_each(|axis| claim((node, axis), Source::Still))?;
    }
    spec.inputs.iter().enumerate().try_for_each(|(k, &at)| claim(at, Source::Input(k)))?;
    // The place in a row comes when all are counted.
    spec.outputs.iter().try_for_each(|&at| claim(at, Source::State(0)))?;
    let hidden: Vec<usize> = (0..sources.len()).filter(|&c| sources[c].is_none()).collect();
    let sizes: Vec<usize> =
        [hidden.len(), spec.outputs.len()].into_iter().filter(|&n| n > 0).collect();
    let layout = Layout::new(&sizes);
    for (place, &c) in hidden.iter().enumerate() {
        sources[c] = Some(Source::State(layout.layer(0).start + place));
    }
    for (k, &(node, axis)) in spec.outputs.iter().enumerate() {
        sources[node * dimensions + axis] = Some(Source::State(layout.outputs().start + k));
    }
    Ok((sources.into_iter().flatten().collect(), layout))
}

impl Elastic {
    /// Builds a network.
    ///
    /// # Errors
    /// [`Error::Config`] for nodes that do not exist, coordinates that are named twice, springs
    /// without length, or a device that allows negative stiffness.
    pub fn new(spec: &Spec) -> Result<Self> {
        let dimensions = check(spec)?;
        let (sources, layout) = arrange(spec, dimensions)?;
        let spring = |&(a, b): &(usize, usize)| {
            let mut placed = [0.0; 3];
            let ends = spec.positions[a].iter().zip(&spec.positions[b]);
            placed.iter_mut().zip(ends).for_each(|(apart, (a, b))| *apart = b - a);
            Spring { nodes: (a, b), placed }
        };
        let specs = ["k", "l0"]
            .map(|name| ParamSpec { name: name.into(), shape: vec![spec.springs.len()] });
        let springs: Vec<Spring> = spec.springs.iter().map(spring).collect();
        let stiffness = Stiffness::new(&springs, &sources, dimensions, &layout)?;
        Ok(Self {
            dimensions,
            sources,
            springs,
            inputs: spec.inputs.len(),
            specs: specs.to_vec(),
            device: spec.device.clone(),
            layout,
            stiffness,
        })
    }

    /// The spring with its ends moved by inputs and states.
    fn stretch<T: Real>(&self, (x, row): (&[T], &[T]), spring: &Spring) -> Stretched {
        let moved = |node: usize, axis: usize| match self.sources[node * self.dimensions + axis] {
            Source::Still => 0.0,
            Source::Input(k) => x[k].to_f64(),
            Source::State(k) => row[k].to_f64(),
        };
        let (a, b) = spring.nodes;
        let mut direction = spring.placed;
        for (axis, d) in direction[..self.dimensions].iter_mut().enumerate() {
            *d += moved(b, axis) - moved(a, axis);
        }
        let length = direction.iter().map(|d| d * d).sum::<f64>().sqrt();
        // A spring without length has no direction; any will do.
        let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
        Stretched { length, direction: direction.map(|d| d * scale) }
    }

    /// The length of the longest spring, where the nodes were placed.
    fn longest(&self) -> f64 {
        let length = |spring: &Spring| spring.placed.iter().map(|d| d * d).sum::<f64>().sqrt();
        self.springs.iter().map(length).fold(0.0, f64::max)
    }

    /// Adds a vector to the states that move a node.
    fn add<T: Real>(&self, node: usize, vector: &[f64; 3], factor: f64, row: &mut [T]) {
        for (axis, v) in vector[..self.dimensions].iter().enumerate() {
            if let Source::State(k) = self.sources[node * self.dimensions + axis] {
                row[k] += T::from_f64(factor * v);
            }
        }
    }
}

/// Memory for experiments.
struct Memory<T> {
    descents: Descents<T>,
    judgement: Judgement<T>,
    /// The sums of dE/dk and dE/dl0 over rows.
    sums: [Vec<f64>; 2],
}

impl<T: Real> Memory<T> {
    fn of(workspace: &mut Workspace) -> Result<&mut Self> {
        let other = || Error::Capability("the memory of a step belongs to another system".into());
        workspace.downcast_mut().ok_or_else(other)
    }
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self {
            descents: Descents::default(),
            judgement: Judgement::default(),
            sums: Default::default(),
        }
    }
}

impl<T: Real> System<T> for Elastic {
    fn name(&self) -> &str {
        "Elastic"
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
        if parameter == 0 { Store::of(&self.device) } else { Store::IDEAL }
    }

    fn abilities(&self) -> Abilities {
        Abilities::LOCAL_RULE
            .and(Abilities::CLAMPING)
            .and(Abilities::STATE_DERIVATIVES)
            .and(Abilities::RELAXATION)
    }

    fn workspace(&self) -> Workspace {
        Box::new(Memory::<T>::default())
    }

    fn as_dynamics(&self) -> Option<&dyn Dynamics<T>> {
        Some(self)
    }

    fn as_state_derivatives(&self) -> Option<&dyn StateDerivatives<T>> {
        Some(self)
    }
}

impl<T: Real> Dynamics<T> for Elastic {
    fn run(
        &self,
        experiment: &Experiment<'_, T>,
        readings: &mut [Reading<'_, T>],
        states: &mut States<T>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        /// Multiply-adds of a spring in an energy and its gradient.
        const SPRING: usize = 64;
        let Experiment { runtime, params, batch, plan, .. } = *experiment;
        let work = SPRING * self.springs.len();
        let Memory { descents, judgement, .. } = Memory::of(workspace)?;
        SystemAt { system: self, params, batch }.settle(runtime, work, plan, states, descents)?;
        self.judge(experiment, states, judgement);
        read_at_end(self, experiment, readings, states, workspace)
    }

    fn read(
        &self,
        experiment: &Experiment<'_, T>,
        states: &States<T>,
        weights: &[Complex<f64>],
        workspace: &mut Workspace,
        update: &mut LocalUpdate<T>,
    ) -> Result<()> {
        let Experiment { params, batch, .. } = *experiment;
        let Memory { sums, .. } = Memory::<T>::of(workspace)?;
        for sums in &mut *sums {
            sums.clear();
            sums.resize(self.springs.len(), 0.0);
        }
        for r in (0..states.rows()).filter(|r| states.usable(r / states.phases())) {
            let weight = weights[r % states.phases()].re / batch.len() as f64;
            poll(32 * self.springs.len());
            let moved = (batch.x.row(r / states.phases()), states.row(r));
            for (e, spring) in self.springs.iter().enumerate() {
                let extension = self.stretch(moved, spring).length - params.get(1)[e].to_f64();
                sums[0][e] += weight * 0.5 * extension * extension;
                sums[1][e] -= weight * params.get(0)[e].to_f64() * extension;
            }
        }
        for (term, sums) in update.dense(sums.len()).zip(sums) {
            term.extend(sums.iter().map(|&s| T::from_f64(s)));
        }
        Ok(())
    }
}

impl<T: Real> StateDerivatives<T> for Elastic {
    fn energy(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        states: &States<T>,
        energy: &mut [f64],
    ) -> Result<()> {
        for (r, energy) in energy.iter_mut().enumerate() {
            poll(32 * self.springs.len());
            let moved = (batch.x.row(r / states.phases()), states.row(r));
            let springs = self.springs.iter().zip(params.get(0)).zip(params.get(1));
            *energy = springs
                .map(|((spring, k), l0)| {
                    0.5 * k.to_f64() * (self.stretch(moved, spring).length - l0.to_f64()).powi(2)
                })
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
        gradient.fill(T::ZERO);
        for (r, gradient) in gradient.chunks_exact_mut(states.stride()).enumerate() {
            poll(32 * self.springs.len());
            let moved = (batch.x.row(r / states.phases()), states.row(r));
            for ((spring, k), l0) in self.springs.iter().zip(params.get(0)).zip(params.get(1)) {
                let Stretched { length, direction } = self.stretch(moved, spring);
                let tension = k.to_f64() * (length - l0.to_f64());
                self.add(spring.nodes.0, &direction, -tension, gradient);
                self.add(spring.nodes.1, &direction, tension, gradient);
            }
        }
        Ok(())
    }

    fn hessian_product(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        states: &States<T>,
        v: &[T],
        product: &mut [T],
    ) -> Result<()> {
        product.fill(T::ZERO);
        let stride = states.stride();
        for (r, product) in product.chunks_exact_mut(stride).enumerate() {
            poll(32 * self.springs.len());
            let moved = (batch.x.row(r / states.phases()), states.row(r));
            let v = &v[r * stride..(r + 1) * stride];
            let along_v =
                |node: usize, axis: usize| match self.sources[node * self.dimensions + axis] {
                    Source::State(k) => v[k].to_f64(),
                    Source::Still | Source::Input(_) => 0.0,
                };
            for ((spring, k), l0) in self.springs.iter().zip(params.get(0)).zip(params.get(1)) {
                let (a, b) = spring.nodes;
                let Stretched { length, direction } = self.stretch(moved, spring);
                let mut apart = [0.0; 3];
                (0..self.dimensions)
                    .for_each(|axis| apart[axis] = along_v(b, axis) - along_v(a, axis));
                let along: f64 = apart.iter().zip(&direction).map(|(v, d)| v * d).sum();
                // k n n^T along the spring, k (1 - l0 / l) (1 - n n^T) across it.
                let across = 1.0 - l0.to_f64() / length;
                let force: [f64; 3] = std::array::from_fn(|axis| {
                    k.to_f64()
                        * (along * direction[axis]
                            + across * (apart[axis] - along * direction[axis]))
                });
                self.add(a, &force, -1.0, product);
                self.add(b, &force, 1.0, product);
            }
        }
        Ok(())
    }

    fn scales(&self, params: &Params<'_, T>) -> (f64, f64) {
        let length = self.longest();
        let stiffness: f64 = params.get(0).iter().map(|k| k.to_f64()).sum();
        (length, stiffness * length * length)
    }

    fn domain(&self, _l: usize, _j: usize) -> (f64, f64) {
        // Near where the nodes were placed, so that no spring is turned round.
        let near = 0.1 * self.longest();
        (-near, near)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check_system;

    fn sheet(dimensions: usize) -> Spec {
        let side: usize = if dimensions == 2 { 3 } else { 2 };
        let mut positions = Vec::new();
        for i in 0..side.pow(dimensions as u32) {
            let place = |axis: usize| {
                (i / side.pow(axis as u32) % side) as f64 + 0.1 * ((i * 7 + axis * 3) % 5) as f64
            };
            positions.push((0..dimensions).map(place).collect::<Vec<f64>>());
        }
        let near =
            |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() < 5.0;
        let n = positions.len();
        let springs = (0..n)
            .flat_map(|a| (0..a).map(move |b| (a, b)))
            .filter(|&(a, b)| near(&positions[a], &positions[b]));
        let springs = springs.collect();
        Spec {
            positions,
            springs,
            inputs: vec![(n - 1, 0)],
            outputs: vec![(n - 2, 0), (n - 2, 1)],
            fixed: vec![0, 1],
            device: Device { lower: Some(0.0), ..Device::IDEAL },
        }
    }

    #[test]
    fn conformance() {
        for dimensions in [2, 3] {
            let spec = sheet(dimensions);
            let network = Elastic::new(&spec).expect("a network");
            let lengths = spec.springs.iter().enumerate().map(|(e, &(a, b))| {
                let square: f64 = spec.positions[a]
                    .iter()
                    .zip(&spec.positions[b])
                    .map(|(a, b)| (a - b).powi(2))
                    .sum();
                square.sqrt() * (1.0 + 0.02 * (e % 3) as f64)
            });
            let params = vec![
                (0..spec.springs.len()).map(|e| 1.0 + 0.1 * (e % 4) as f64).collect(),
                lengths.collect(),
            ];
            for finding in check_system(&network, &params, 2).expect("no failure") {
                assert!(finding.passed, "{dimensions}: {finding:?}");
            }
        }
    }

    #[test]
    fn impossible_networks_are_refused() {
        let refused = |change: &dyn Fn(&mut Spec), words: &str| {
            let mut spec = sheet(2);
            change(&mut spec);
            let error = Elastic::new(&spec).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(&|spec| spec.springs.push((0, 99)), "does not exist");
        refused(&|spec| spec.springs.push((2, 2)), "has no length");
        refused(&|spec| spec.outputs.push((0, 0)), "named twice");
        refused(&|spec| spec.inputs.push((3, 2)), "no axis 2");
        refused(&|spec| spec.positions[1].clear(), "2 or 3 coordinates");
        refused(&|spec| spec.outputs.clear(), "needs springs and outputs");
        refused(&|spec| spec.device = Device::IDEAL, "stiffness cannot be negative");
    }
}
