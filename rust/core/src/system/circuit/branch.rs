//! Branches whose currents are unknowns of their own, as in modified nodal analysis (Ho, Ruehli and
//! Brennan 1975): ammeters and voltmeters, whose readings are outputs like voltages of nodes.
//!
//! To the co-content a branch adds its current times what its voltage is short of being right. The
//! operating point is a stationary point of the sum, no minimum, and derivatives of the currents by
//! the voltages are symmetric but indefinite. What nudges an output is what a laboratory would do:
//! at an ammeter the gradient of the loss is a voltage in series with it, at a voltmeter a current
//! between its probes. It stays what it is at the free outputs: one that followed them would be a
//! negative resistance in series with an ammeter, with a pole where that is the circuit's own.

use serde::{Deserialize, Serialize};

use super::terminal::Terminal;
use crate::system::matrix::Pattern;

/// A branch between two terminals, as it is given: V(from) - V(to) is zero, or the unknown
/// `across`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BranchSpec {
    /// The first terminal.
    pub from: Terminal,
    /// The second terminal; its offset is the voltage of a source that is an ammeter, too.
    pub to: Terminal,
    /// The number of the unknown that is the current from the first to the second.
    pub current: usize,
    /// The number of the unknown that is the voltage, of a voltmeter.
    #[serde(default)]
    pub across: Option<usize>,
}

/// An input that is a current, as it is given.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct InputCurrent {
    /// The number of the input.
    pub input: usize,
    /// The terminal that it is taken from.
    pub from: Terminal,
    /// The terminal that it is fed into.
    pub to: Terminal,
}

impl BranchSpec {
    /// The pairs of unknowns that it couples.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let current = self.current;
        [self.from.free(), self.to.free(), self.across]
            .into_iter()
            .flatten()
            .map(move |other| (current, other))
    }
}

impl InputCurrent {
    /// Its co-content.
    pub(super) fn content(&self, x: &[f64], v: &[f64]) -> f64 {
        x[self.input] * (self.from.voltage(x, v) - self.to.voltage(x, v))
    }
}

/// A branch, with its places in the matrix.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    from: Terminal,
    to: Terminal,
    pub(super) current: usize,
    pub(super) across: Option<usize>,
    /// Places in the matrix, and what belongs there.
    places: Vec<(usize, f64)>,
}

impl Branch {
    pub(super) fn new(spec: &BranchSpec, pattern: &Pattern) -> Self {
        let BranchSpec { from, to, current, across } = *spec;
        let mut places = Vec::new();
        for (other, sign) in [(from.free(), 1.0), (to.free(), -1.0), (across, -1.0)] {
            let pairs = other.into_iter().flat_map(|k| [(current, k), (k, current)]);
            places.extend(pairs.map(|(i, j)| (pattern.place(i, j), sign)));
        }
        Self { from, to, current, across, places }
    }

    /// The nodes that it holds against each other: none of a voltmeter.
    pub(super) fn joins(&self) -> Option<[Terminal; 2]> {
        self.across.is_none().then_some([self.from, self.to])
    }

    /// The terminals of a voltmeter.
    pub(super) fn measures(&self) -> Option<[Terminal; 2]> {
        self.across.map(|_| [self.from, self.to])
    }

    pub(super) fn stamp(&self, matrix: &mut [f64]) {
        self.places.iter().for_each(|&(place, value)| matrix[place] += value);
    }

    /// Adds the products with what [stamps](Self::stamp) have put into the matrix.
    pub(super) fn add_flow(&self, v: &[f64], out: &mut [f64]) {
        let Self { from, to, current, across, .. } = *self;
        for (other, sign) in [(from.free(), 1.0), (to.free(), -1.0), (across, -1.0)] {
            if let Some(k) = other {
                out[k] += sign * v[current];
                out[current] += sign * v[k];
            }
        }
    }

    /// What known voltages contribute to that of the branch.
    pub(super) fn known(&self, x: &[f64]) -> f64 {
        let known = |t: Terminal| t.known() + t.held_input().map_or(0.0, |input| x[input]);
        known(self.from) - known(self.to)
    }

    /// What the branch adds to the co-content: zero where its voltage is right.
    pub(super) fn content(&self, x: &[f64], v: &[f64]) -> f64 {
        let across = self.across.map_or(0.0, |k| v[k]);
        v[self.current] * (self.from.voltage(x, v) - self.to.voltage(x, v) - across)
    }

    /// How far the terminals' voltages differ where all known ones are 1.
    pub(super) fn known_of_ones(&self) -> f64 {
        let is_known = |t: Terminal| if t.free().is_none() { 1.0 } else { 0.0 };
        is_known(self.from) - is_known(self.to)
    }
}
