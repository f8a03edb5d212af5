//! The elements of a circuit at given parameters: what does not change from sample to sample.

use pnncore_kernels::Real;

use super::branch::{Branch, InputCurrent};
use super::{Circuit, Element, Law, Place, Terminal};
use crate::params::Params;

/// The values of all elements, and what the linear ones sum to.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// One per element.
    pub(super) theta: Vec<f64>,
    /// The conductance matrix of the linear elements, without branches.
    pub(super) linear: Vec<f64>,
    /// What joins every node to places whose voltage is known. The sum of a row of the matrix, but
    /// for rounding: beside large conductances between nodes small ones to ground are lost in its
    /// diagonal.
    pub(super) leak: Vec<f64>,
    /// What known voltages and current sources feed into every node.
    constant: Vec<f64>,
    /// The scale of conductances: a current over it is the voltage that it is worth.
    pub(super) scale: f64,
    /// The largest conductance that diodes are followed to at first.
    pub(super) cap: f64,
    /// The conductance of an ideal diode before its multiplier makes up for what it is short of.
    pub(super) stiffness: f64,
}

/// How much more diodes may conduct than anything linear before they are replaced by tangents: in
/// series with less, more than this conducts like a wire, and rounding errors of it would hide
/// everything else.
const CAP: f64 = 1e5;

/// The same, over the largest linear conductance: each round of multipliers leaves at most about
/// its inverse of an error, and rounding errors grow with it.
const STIFFNESS: f64 = 30.0;

/// How values become sums, as lists that are walked once per call: large circuits are mostly linear
/// elements at inputs.
#[derive(Debug, Clone, Default)]
pub(super) struct Assembly {
    /// The values of all elements, those of trained ones still to come.
    fixed: Vec<f64>,
    runs: Vec<Run>,
    /// Place in the matrix and element: what is added, and what is subtracted.
    added: Vec<(u32, u32)>,
    subtracted: Vec<(u32, u32)>,
    /// Node and element: resistors between a node and a place whose voltage is known.
    leaks: Vec<(u32, u32)>,
    /// Node and element, and what its value is to be multiplied with to have what it feeds into the
    /// node.
    feeds: Vec<(u32, u32, f64)>,
    /// Resistors between nodes and inputs.
    couplings: Vec<Coupling>,
}

/// Trained elements one after the other, here and in their parameter.
#[derive(Debug, Clone, Copy)]
struct Run {
    element: usize,
    parameter: usize,
    index: usize,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Coupling {
    node: u32,
    input: u32,
    element: u32,
}

impl Assembly {
    /// Takes up the next element: its fixed value, or the parameter and index of its trained one.
    pub(super) fn push(&mut self, element: &Element, fixed: f64, trained: Option<(usize, usize)>) {
        let e = self.fixed.len();
        self.fixed.push(fixed);
        if let Some((parameter, index)) = trained {
            match self.runs.last_mut() {
                Some(run) if (run.element + run.len, run.parameter) == (e, parameter) => {
                    run.len += 1
                }
                _ => self.runs.push(Run { element: e, parameter, index, len: 1 }),
            }
        }
        // Circuits are far smaller than u32.
        let number = |k: usize| k as u32;
        let known = element.from.known() - element.to.known();
        let unit = match element.law {
            Law::Resistor => known,
            Law::CurrentSource => 1.0,
            _ => return,
        };
        for (terminal, sign) in [(element.from, -1.0), (element.to, 1.0)] {
            if let Some(node) = terminal.free().filter(|_| unit != 0.0) {
                self.feeds.push((number(node), number(e), sign * unit));
            }
        }
        if element.law != Law::Resistor {
            return;
        }
        let [here, there, between, mirrored] = element.places;
        self.added
            .extend([here, there].into_iter().flatten().map(|place| (number(place), number(e))));
        self.subtracted.extend(
            [between, mirrored].into_iter().flatten().map(|place| (number(place), number(e))),
        );
        if let (Some(node), None) | (None, Some(node)) = (element.from.free(), element.to.free()) {
            self.leaks.push((number(node), number(e)));
        }
        if let (Place::Node(node), Place::Input(input)) | (Place::Input(input), Place::Node(node)) =
            (element.from.place, element.to.place)
        {
            self.couplings.push(Coupling {
                node: number(node),
                input: number(input),
                element: number(e),
            });
        }
    }
}

impl Values {
    pub(super) fn new<T: Real>(circuit: &Circuit, params: &Params<'_, T>) -> Self {
        let mut values = Self::default();
        values.assemble(circuit, params);
        values
    }

    /// Makes the values those of these parameters.
    pub(super) fn assemble<T: Real>(&mut self, circuit: &Circuit, params: &Params<'_, T>) {
        let assembly = &circuit.assembly;
        let Self { theta, linear, leak, constant, .. } = self;
        theta.clone_from(&assembly.fixed);
        for run in &assembly.runs {
            let values = &params.get(run.parameter)[run.index..][..run.len];
            theta[run.element..]
                .iter_mut()
                .zip(values)
                .for_each(|(to, value)| *to = value.to_f64());
        }
        let sizes = [circuit.pattern.len(), circuit.pattern.size(), circuit.pattern.size()];
        for (sums, size) in [&mut *linear, leak, constant].into_iter().zip(sizes) {
            sums.clear();
            sums.resize(size, 0.0);
        }
        add_each(assembly.added.iter().map(|&(place, e)| (place, theta[e as usize])), linear);
        add_each(assembly.subtracted.iter().map(|&(place, e)| (place, -theta[e as usize])), linear);
        add_each(assembly.leaks.iter().map(|&(node, e)| (node, theta[e as usize])), leak);
        add_each(
            assembly.feeds.iter().map(|&(node, e, factor)| (node, factor * theta[e as usize])),
            constant,
        );
        let largest = linear.iter().fold(0.0f64, |m, g| m.max(g.abs()));
        self.cap = if largest > 0.0 { CAP * largest } else { f64::INFINITY };
        self.scale = if largest > 0.0 { largest } else { 1.0 };
        self.stiffness = STIFFNESS * self.scale;
        self.ground_floating(circuit);
    }

    /// Joins to ground, by the largest conductance of the circuit, every node that zero
    /// conductances have cut off from all that is held: nothing else says what its voltage is, and
    /// nothing flows there that it could change. Outputs, and nodes that a current source feeds,
    /// stay as they are: they have no operating point, and samples say so.
    fn ground_floating(&mut self, circuit: &Circuit) {
        let conducts =
            |e: &Element, theta: f64| e.law.conducts() && !(e.law.is_conductance() && theta == 0.0);
        let pairs = || circuit.elements.iter().zip(&self.theta);
        if pairs().all(|(e, &theta)| conducts(e, theta) || !e.law.conducts()) {
            return;
        }
        let n = circuit.pattern.size();
        // Groups of nodes that conduct to each other, as trees; node n stands for all that is held.
        let mut above: Vec<usize> = (0..=n).collect();
        fn root(above: &mut [usize], mut node: usize) -> usize {
            while above[node] != node {
                above[node] = above[above[node]];
                node = above[node];
            }
            node
        }
        for (e, _) in pairs().filter(|&(e, &theta)| conducts(e, theta) || e.law == Law::IdealDiode)
        {
            let [a, b] = [e.from, e.to].map(|t| root(&mut above, t.free().unwrap_or(n)));
            above[a.min(b)] = a.max(b);
        }
        let number = |t: Terminal| t.free().unwrap_or(n);
        for [a, b] in circuit.branches.iter().filter_map(Branch::joins) {
            let [a, b] = [a, b].map(|t| root(&mut above, number(t)));
            above[a.min(b)] = a.max(b);
        }
        // What only branches have is no node.
        circuit.branches.iter().flat_map(|b| [Some(b.current), b.across]).flatten().for_each(|k| {
            above[k] = n;
        });
        let group: Vec<usize> = (0..=n).map(|node| root(&mut above, node)).collect();
        let mut fed = vec![(0.0, 0.0); n + 1];
        for (feed, &g) in self.constant.iter().zip(&group) {
            fed[g] = (fed[g].0 + feed, fed[g].1 + feed.abs());
        }
        for output in n - circuit.outputs..n {
            fed[group[output]] = (f64::INFINITY, f64::INFINITY);
        }
        // A voltmeter between groups measures nothing, and a current into one has no way out.
        let measured = circuit.branches.iter().filter_map(Branch::measures);
        let ends = measured.chain(circuit.input_currents.iter().map(|c| [c.from, c.to]));
        for [a, b] in ends.map(|ends| ends.map(|t| group[number(t)])).filter(|[a, b]| a != b) {
            fed[a] = (f64::INFINITY, f64::INFINITY);
            fed[b] = (f64::INFINITY, f64::INFINITY);
        }
        let scale = self.scale;
        for node in (0..n).filter(|&node| group[node] != group[n]) {
            let (sum, magnitude) = fed[group[node]];
            if sum.is_finite() && sum.abs() <= 1e-12 * magnitude {
                self.leak[node] += scale;
                self.linear[circuit.pattern.place(node, node)] += scale;
            }
        }
    }

    /// The currents that flow out of the nodes at voltages `v` through linear elements, without
    /// what [sources](Self::add_sources) feed in. Each is a sum of differences of voltages: the
    /// matrix times `v` would be one of large numbers.
    pub(super) fn flow(&self, circuit: &Circuit, v: &[f64], out: &mut [f64]) {
        out.iter_mut().zip(&self.leak).zip(v).for_each(|((out, leak), v)| *out = leak * v);
        let symmetric = circuit.definite;
        circuit.pattern.for_each(|row, column, place| {
            if row != column {
                let current = self.linear[place] * (v[column] - v[row]);
                out[row] += current;
                if symmetric {
                    out[column] -= current;
                }
            }
        });
        circuit.branches.iter().for_each(|branch| branch.add_flow(v, out));
    }

    /// The matrix of the linear elements and the branches.
    pub(super) fn write_linear(&self, circuit: &Circuit, matrix: &mut Vec<f64>) {
        matrix.clone_from(&self.linear);
        circuit.branches.iter().for_each(|branch| branch.stamp(matrix));
    }

    /// Appends what inputs, known voltages and current sources feed into every node through linear
    /// elements; for the current of a branch, what its voltage is short of.
    pub(super) fn add_sources(&self, circuit: &Circuit, x: &[f64], sources: &mut Vec<f64>) {
        let first = sources.len();
        sources.extend_from_slice(&self.constant);
        let couplings = circuit.assembly.couplings.iter();
        add_each(
            couplings.map(|c| (c.node, self.theta[c.element as usize] * x[c.input as usize])),
            &mut sources[first..],
        );
        let sources = &mut sources[first..];
        circuit.branches.iter().for_each(|b| sources[b.current] -= b.known(x));
        for &InputCurrent { input, from, to } in &circuit.input_currents {
            from.free().into_iter().for_each(|k| sources[k] -= x[input]);
            to.free().into_iter().for_each(|k| sources[k] += x[input]);
        }
    }
}

impl Circuit {
    /// Whether unknown `k` is the voltage of a node.
    pub(super) fn is_node(&self, k: usize) -> bool {
        self.branches.iter().all(|b| b.current != k && b.across != Some(k))
    }

    /// What unknown `k` is worth in volts: itself, or a current over the scale of conductances.
    pub(super) fn volts(&self, values: &Values, k: usize, unknown: f64) -> f64 {
        if self.is_current(k) { unknown / values.scale } else { unknown }
    }

    /// What is left over at unknown `k` is worth in amperes: a current, or at that of a branch a
    /// voltage times the scale of conductances.
    pub(super) fn amperes(&self, values: &Values, k: usize, left: f64) -> f64 {
        if self.is_current(k) { left * values.scale } else { left }
    }

    /// Whether unknown `k` is the current of a branch.
    pub(super) fn is_current(&self, k: usize) -> bool {
        self.currents.get(k).copied().unwrap_or(false)
    }

    /// The highest voltage among unknowns.
    pub(super) fn highest(&self, values: &Values, v: &[f64]) -> f64 {
        let volts = v.iter().enumerate().map(|(k, &v)| self.volts(values, k, v));
        volts.fold(0.0f64, |m, v| m.max_magnitude(v))
    }
}

/// Adds every term to the sum of its number.
fn add_each(terms: impl Iterator<Item = (u32, f64)>, sums: &mut [f64]) {
    // A sum that many terms in a row go to waits in registers, in four parts: through memory, or in
    // one part, each term would wait for the one before.
    let (mut current, mut parts) = (0, [0.0; 4]);
    let total = |[a, b, c, d]: [f64; 4]| (a + b) + (c + d);
    for (number, term) in terms {
        if number != current {
            sums[current as usize] += total(parts);
            (current, parts) = (number, [0.0; 4]);
        }
        let [a, b, c, d] = parts;
        parts = [b, c, d, a + term];
    }
    if let Some(last) = sums.get_mut(current as usize) {
        *last += total(parts);
    }
}
