//! A circuit as it is given, and what is wrong with it.

use serde::{Deserialize, Serialize};

use super::branch::{BranchSpec, InputCurrent};
use super::{Circuit, Law};
use crate::device::Device;
use crate::system::{AnySystem, SystemSpec};
use crate::{Error, Result};

/// What a terminal is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// A free node, by number; the last ones are the outputs.
    Node(usize),
    /// An input, by number.
    Input(usize),
    /// A voltage: 0 is ground.
    Fixed(f64),
}

/// A terminal of an element: a place, and the voltage over it that a floating source adds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Terminal {
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// The voltage of the terminal over that of the place.
    #[serde(default)]
    pub offset: f64,
}

impl Terminal {
    /// A terminal at a free node.
    pub const fn node(node: usize) -> Self {
        Self { place: Place::Node(node), offset: 0.0 }
    }

    /// A terminal at an input.
    pub const fn input(input: usize) -> Self {
        Self { place: Place::Input(input), offset: 0.0 }
    }

    /// A terminal at a fixed voltage.
    pub const fn fixed(voltage: f64) -> Self {
        Self { place: Place::Fixed(voltage), offset: 0.0 }
    }

    /// The number of the free node.
    pub(super) fn free(self) -> Option<usize> {
        match self.place {
            Place::Node(node) => Some(node),
            Place::Input(_) | Place::Fixed(_) => None,
        }
    }

    /// The number of the input.
    pub(super) fn held_input(self) -> Option<usize> {
        match self.place {
            Place::Input(input) => Some(input),
            Place::Node(_) | Place::Fixed(_) => None,
        }
    }

    pub(super) fn voltage(self, x: &[f64], v: &[f64]) -> f64 {
        self.known()
            + match self.place {
                Place::Node(node) => v[node],
                Place::Input(input) => x[input],
                Place::Fixed(_) => 0.0,
            }
    }

    /// The part of the voltage that never changes.
    pub(super) fn known(self) -> f64 {
        match self.place {
            Place::Node(_) | Place::Input(_) => self.offset,
            Place::Fixed(voltage) => voltage + self.offset,
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

impl ElementSpec {
    /// Whether both terminals are at one place, so that nothing moves the voltage between them.
    pub(super) fn is_shorted(&self) -> bool {
        self.from.place == self.to.place
    }

    /// The interval of a free node that it is a wall of: an ideal diode between a node and a fixed
    /// voltage.
    pub(super) fn wall(&self) -> Option<(usize, f64, f64)> {
        if self.law != Law::IdealDiode {
            return None;
        }
        match (self.from.place, self.to.place) {
            (Place::Node(node), Place::Fixed(_)) => {
                Some((node, f64::NEG_INFINITY, self.to.known() - self.from.known()))
            }
            (Place::Fixed(_), Place::Node(node)) => {
                Some((node, self.from.known() - self.to.known(), f64::INFINITY))
            }
            _ => None,
        }
    }
}

/// A circuit, as it is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The number of inputs.
    pub inputs: usize,
    /// The number of outputs.
    pub outputs: usize,
    /// The names of the unknowns, outputs last: voltages of free nodes, and what branches have.
    pub nodes: Vec<String>,
    /// The elements.
    pub elements: Vec<ElementSpec>,
    /// The branches whose currents are unknowns.
    #[serde(default)]
    pub branches: Vec<BranchSpec>,
    /// The inputs that are currents.
    #[serde(default)]
    pub input_currents: Vec<InputCurrent>,
    /// What trained conductances are stored in.
    pub device: Device,
}

impl SystemSpec for Spec {
    const NAME: &'static str = "Circuit";

    fn build(&self) -> Result<AnySystem> {
        Ok(AnySystem::same(Circuit::new(self)?))
    }
}

impl Spec {
    /// Whether the operating point is a minimum of the co-content, whatever the parameters are.
    pub(super) fn is_definite(&self) -> bool {
        self.branches.is_empty() && self.is_reciprocal()
    }

    /// Whether there is a co-content.
    pub(super) fn is_reciprocal(&self) -> bool {
        self.elements.iter().all(|e| e.law.is_reciprocal())
    }
}

/// Checks every element by itself.
pub(super) fn check_elements(spec: &Spec) -> Result<()> {
    for (e, element) in spec.elements.iter().enumerate() {
        let refuse = |text: String| Err(Error::Config(format!("element {e}: {text}")));
        let positive = |x: f64| x > 0.0 && x.is_finite();
        for terminal in [element.from, element.to] {
            match terminal.place {
                Place::Node(node) if node >= spec.nodes.len() => {
                    return refuse(format!("there is no node {node}"));
                }
                Place::Input(input) if input >= spec.inputs => {
                    return refuse(format!("there is no input {input}"));
                }
                _ => {}
            }
            if !terminal.known().is_finite() {
                return refuse(format!("a voltage must be finite, got {}", terminal.known()));
            }
        }
        if element.law == Law::IdealDiode
            && (element.is_shorted() || (element.from.free(), element.to.free()) == (None, None))
        {
            return refuse(
                "an ideal diode must have a terminal that no source holds against the other".into(),
            );
        }
        check_law(element.law).or_else(refuse)?;
        if element.trained && !element.law.has_value() {
            return refuse("this kind has no value to train".into());
        }
        if !element.trained && element.law.is_conductance() && !positive(element.value) {
            return refuse(format!("a conductance must be positive, got {}", element.value));
        }
        if !element.value.is_finite() {
            return refuse(format!("a value must be finite, got {}", element.value));
        }
    }
    let trained = spec.elements.iter().any(|e| e.trained && e.law.is_conductance());
    if trained && !spec.device.lower.is_some_and(|lower| lower >= 0.0) {
        return Err(Error::Config(
            "conductances cannot be negative: the device's smallest must be at least 0".into(),
        ));
    }
    Ok(())
}

/// Checks the constants of a law; the error says what is wrong.
fn check_law(law: Law) -> std::result::Result<(), String> {
    let positive = |x: f64| x > 0.0 && x.is_finite();
    match law {
        Law::Cubic { scale } if !positive(scale) => {
            Err(format!("scale must be positive, got {scale}"))
        }
        Law::Diode { saturation, slope } if !(positive(saturation) && positive(slope)) => {
            Err(format!("saturation and slope must be positive, got {saturation} and {slope}"))
        }
        Law::Transistor { strength, threshold }
            if !(positive(strength) && threshold.is_finite()) =>
        {
            Err(format!(
                "strength must be positive and threshold finite, got {strength} and {threshold}"
            ))
        }
        _ => Ok(()),
    }
}

/// Checks that every free node has a way to a held one.
pub(super) fn check_grounded(spec: &Spec) -> Result<()> {
    let n = spec.nodes.len();
    // Node n stands for all that is held.
    let mut neighbours = vec![Vec::new(); n + 1];
    let elements = spec.elements.iter().filter(|e| e.law.conducts() && !e.is_shorted());
    let branches = spec.branches.iter().filter(|b| b.across.is_none());
    let ends = elements.map(|e| [e.from, e.to]).chain(branches.map(|b| [b.from, b.to]));
    for [i, j] in ends.map(|ends| ends.map(|terminal| terminal.free().unwrap_or(n))) {
        neighbours[i].push(j);
        neighbours[j].push(i);
    }
    let (mut seen, mut queue) = (vec![false; n + 1], vec![n]);
    seen[n] = true;
    let own = spec.branches.iter().flat_map(|b| [Some(b.current), b.across]).flatten();
    own.for_each(|unknown| seen[unknown] = true);
    while let Some(i) = queue.pop() {
        for &j in &neighbours[i] {
            if !std::mem::replace(&mut seen[j], true) {
                queue.push(j);
            }
        }
    }
    let floating: Vec<&str> = spec
        .nodes
        .iter()
        .zip(&seen)
        .filter(|(_, seen)| !**seen)
        .map(|(name, _)| name.as_str())
        .collect();
    if floating.is_empty() {
        return Ok(());
    }
    let more = if floating.len() > 5 {
        format!(" and {} more", floating.len() - 5)
    } else {
        String::new()
    };
    Err(Error::Config(format!(
        "no conducting path from {}{more} to an input, a voltage source or ground: the voltage \
         there is undetermined",
        floating[..floating.len().min(5)].join(", ")
    )))
}

/// The intervals in which ideal diodes keep the free nodes.
pub(super) fn walls(spec: &Spec) -> Result<Vec<(f64, f64)>> {
    let mut walls = vec![(f64::NEG_INFINITY, f64::INFINITY); spec.nodes.len()];
    for (node, lo, hi) in spec.elements.iter().filter_map(ElementSpec::wall) {
        walls[node] = (walls[node].0.max(lo), walls[node].1.min(hi));
    }
    for (name, (lo, hi)) in spec.nodes.iter().zip(&walls) {
        if lo > hi {
            return Err(Error::Config(format!(
                "the ideal diodes at node {name} want it above {lo} and below {hi}"
            )));
        }
    }
    Ok(walls)
}
