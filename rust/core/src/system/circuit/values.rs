//! The elements of a circuit at given parameters: what does not change from sample to sample.

use pnncore_kernels::Real;

use super::{Circuit, Value};
use crate::params::Params;

/// The values of all elements, and what the linear ones sum to.
#[derive(Debug)]
pub(super) struct Values {
    /// One per element.
    pub(super) theta: Vec<f64>,
    /// The conductance matrix of the linear elements.
    pub(super) linear: Vec<f64>,
    /// What known voltages and current sources feed into every node.
    constant: Vec<f64>,
    /// The largest conductance that diodes are followed to at first.
    pub(super) cap: f64,
    /// The conductance of an ideal diode before its multiplier makes up for what it is short of.
    pub(super) stiffness: f64,
}

/// The same, over the largest linear conductance: each round of multipliers leaves about its inverse of an error, and
/// rounding errors grow with it.
const STIFFNESS: f64 = 1e3;

/// How much more diodes may conduct than anything linear before they are replaced by tangents: in series with less, more
/// than this conducts like a wire, and rounding errors of it would hide everything else.
const CAP: f64 = 1e5;

impl Values {
    pub(super) fn new<T: Real>(circuit: &Circuit, params: &Params<'_, T>) -> Self {
        let theta = circuit.elements.iter().map(|element| match element.value {
            Value::Fixed(value) => value,
            Value::Trained(parameter, index) => params.get(parameter)[index].to_f64(),
        });
        let theta: Vec<f64> = theta.collect();
        let mut linear = vec![0.0; circuit.pattern.len()];
        let mut constant = vec![0.0; circuit.pattern.size()];
        for (element, &theta) in circuit.elements.iter().zip(&theta).filter(|(e, _)| e.law.is_linear()) {
            element.stamp([element.law.conductance(theta, 0.0); 2], &mut linear);
            let current = element.law.current(theta, element.from.known() - element.to.known());
            for (terminal, sign) in [(element.from, 1.0), (element.to, -1.0)] {
                terminal.free().into_iter().for_each(|node| constant[node] -= sign * current);
            }
        }
        let largest = linear.iter().fold(0.0f64, |m, g| m.max(g.abs()));
        let cap = if largest > 0.0 { CAP * largest } else { f64::INFINITY };
        let stiffness = STIFFNESS * if largest > 0.0 { largest } else { 1.0 };
        Self { theta, linear, constant, cap, stiffness }
    }

    /// What inputs, fixed voltages and current sources feed into every node through linear elements.
    pub(super) fn sources(&self, circuit: &Circuit, x: &[f64]) -> Vec<f64> {
        let mut sources = self.constant.clone();
        circuit
            .couplings
            .iter()
            .for_each(|c| sources[c.node as usize] += self.theta[c.element as usize] * x[c.input as usize]);
        sources
    }
}
