//! A circuit as it is given, and what is wrong with it.

use serde::{Deserialize, Serialize};

use super::branch::{BranchSpec, InputCurrent};
use super::terminal::{Place, Terminal};
use super::{Circuit, Law};
use crate::device::Device;
use crate::system::{AnySystem, SystemSpec};
use crate::{Error, Result};

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

    /// Which unknowns are currents of branches; empty where none is.
    pub(super) fn currents(&self) -> Vec<bool> {
        let mut found = vec![false; if self.branches.is_empty() { 0 } else { self.nodes.len() }];
        self.branches.iter().for_each(|branch| found[branch.current] = true);
        found
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

/// Checks branches and currents that are inputs.
pub(super) fn check_branches(spec: &Spec) -> Result<()> {
    let refuse = |text: &str| Err(Error::Config(format!("branches: {text}")));
    let mut own = vec![false; spec.nodes.len()];
    for unknown in spec.branches.iter().flat_map(|b| [Some(b.current), b.across]).flatten() {
        match own.get_mut(unknown) {
            None => return refuse(&format!("there is no unknown {unknown}")),
            Some(true) => return refuse(&format!("unknown {unknown} is that of two")),
            Some(free) => *free = true,
        }
    }
    let fed = spec.input_currents.iter();
    let is_current = |input: usize| spec.input_currents.iter().any(|c| c.input == input);
    let ends = (spec.elements.iter().map(|e| [e.from, e.to]))
        .chain(spec.branches.iter().map(|b| [b.from, b.to]))
        .chain(fed.clone().map(|c| [c.from, c.to]));
    for terminal in ends.flatten() {
        if terminal.free().is_some_and(|node| own.get(node).copied().unwrap_or(true)) {
            return refuse("a terminal is at no node");
        }
        if terminal.held_input().is_some_and(|input| input >= spec.inputs || is_current(input)) {
            return refuse("a terminal is at an input that is no voltage");
        }
    }
    for (k, current) in fed.enumerate() {
        let twice = spec.input_currents[..k].iter().any(|before| before.input == current.input);
        if current.input >= spec.inputs || twice {
            return refuse("an input that is a current is there once");
        }
    }
    Ok(())
}
