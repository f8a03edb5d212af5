//! The elements of a circuit as it is solved: where each is in the matrix, and in which parameter.

use super::law::Law;
use super::spec::Spec;
use super::terminal::Terminal;
use super::values::Assembly;
use crate::params::ParamSpec;
use crate::system::matrix::Pattern;

/// An element, with its places.
#[derive(Debug, Clone)]
pub(super) struct Element {
    pub(super) law: Law,
    pub(super) from: Terminal,
    pub(super) to: Terminal,
    /// The parameter that its value is in.
    pub(super) parameter: Option<usize>,
    /// Where the matrix holds the diagonals of its nodes, and the two elements between them, of
    /// which there is but one where the matrix is symmetric.
    pub(super) places: [Option<usize>; 4],
}

impl Element {
    /// Adds to a matrix what the current does with the voltages of the terminals: it grows with the
    /// first and falls with the second, by these conductances.
    pub(super) fn stamp(&self, [from, to]: [f64; 2], matrix: &mut [f64]) {
        for (place, slope) in self.places.iter().zip([from, to, -to, -from]) {
            place.iter().for_each(|&place| matrix[place] += slope);
        }
    }
}

/// An ideal diode that holds a node at a wall.
#[derive(Debug, Clone, Copy)]
pub(super) struct WallDiode {
    pub(super) element: usize,
    pub(super) node: usize,
    /// The sign of the current that flows out of the node through all else, where the diode
    /// conducts.
    pub(super) sign: f64,
    /// The part of it that the diode carries.
    pub(super) share: f64,
}

/// Names and shapes of the parameters: a vector of each kind that is trained.
pub(super) fn specs(spec: &Spec) -> Vec<ParamSpec> {
    let mut specs = Vec::new();
    for name in ["g", "i", "gate"] {
        let trained =
            spec.elements.iter().filter(|e| e.trained && e.law.parameter() == name).count();
        if trained > 0 {
            specs.push(ParamSpec { name: name.into(), shape: vec![trained] });
        }
    }
    specs
}

/// The elements with their places in the matrix, and how parameters come to their values.
pub(super) fn assemble(
    spec: &Spec,
    specs: &[ParamSpec],
    pattern: &Pattern,
    definite: bool,
) -> (Vec<Element>, Assembly) {
    let mut counts = vec![0; specs.len()];
    let (mut elements, mut assembly) =
        (Vec::with_capacity(spec.elements.len()), Assembly::default());
    for e in &spec.elements {
        let (i, j) = (e.from.free(), e.to.free());
        let between = i.zip(j).filter(|(i, j)| i != j);
        let places = [
            i.map(|i| pattern.place(i, i)),
            j.map(|j| pattern.place(j, j)),
            between.map(|(i, j)| pattern.place(i, j)),
            between.filter(|_| !definite).map(|(i, j)| pattern.place(j, i)),
        ];
        // What flows from a node into the same one changes nothing.
        let places = if e.is_shorted() { [None; 4] } else { places };
        let parameter = specs.iter().position(|spec| e.trained && spec.name == e.law.parameter());
        let element = Element { law: e.law, from: e.from, to: e.to, parameter, places };
        assembly.push(&element, e.value, parameter.map(|parameter| (parameter, counts[parameter])));
        parameter.into_iter().for_each(|parameter| counts[parameter] += 1);
        elements.push(element);
    }
    (elements, assembly)
}

/// The ideal diodes that hold nodes at these walls: not those that a nearer wall keeps from
/// conducting.
pub(super) fn wall_diodes(spec: &Spec, walls: &[(f64, f64)]) -> Vec<WallDiode> {
    let mut found = Vec::new();
    let mut counts = vec![[0.0; 2]; walls.len()];
    for (element, (node, lo, hi)) in
        spec.elements.iter().enumerate().filter_map(|(e, spec)| Some((e, spec.wall()?)))
    {
        // The anode is at the node of an upper wall.
        let upper = hi.is_finite();
        let nearest = if upper { hi == walls[node].1 } else { lo == walls[node].0 };
        if nearest {
            counts[node][usize::from(upper)] += 1.0;
            found.push(WallDiode {
                element,
                node,
                sign: if upper { -1.0 } else { 1.0 },
                share: 1.0,
            });
        }
    }
    found.iter_mut().for_each(|d| d.share = 1.0 / counts[d.node][usize::from(d.sign < 0.0)]);
    found
}
