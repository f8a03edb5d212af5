//! The elements of a circuit at given parameters: what does not change from sample to sample.

use pnncore_kernels::Real;

use super::{Circuit, Terminal, Value};
use crate::params::Params;

/// The values of all elements, and what the linear ones sum to.
#[derive(Debug)]
pub(super) struct Values {
    /// One per element.
    pub(super) theta: Vec<f64>,
    /// The conductance matrix of the linear elements.
    pub(super) linear: Vec<f64>,
    /// What fixed voltages and current sources feed into every node.
    constant: Vec<f64>,
    /// The largest conductance that diodes are followed to at first.
    pub(super) cap: f64,
}

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
            let (g, source) = (element.law.conductance(theta, 0.0), element.law.current(theta, 0.0));
            element.stamp(g, &mut linear);
            for (here, there, sign) in [(element.from, element.to, 1.0), (element.to, element.from, -1.0)] {
                let Some(node) = here.node() else { continue };
                constant[node] -= sign * source;
                if let Terminal::Fixed(voltage) = there {
                    constant[node] += g * voltage;
                }
            }
        }
        let largest = linear.iter().fold(0.0f64, |m, g| m.max(g.abs()));
        let cap = if largest > 0.0 { CAP * largest } else { f64::INFINITY };
        Self { theta, linear, constant, cap }
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
