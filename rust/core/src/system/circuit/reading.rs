//! What trained elements read off many rows of voltages: a sum of terms over rows for each.
//!
//! Rows are taken some at a time and turned around, so that the voltages of a node in all of them
//! lie side by side.

use std::ops::Range;

use pnncore_kernels::Real;
use rayon::prelude::*;

use super::{Circuit, Place, Terminal};
use crate::runtime::Runtime;
use crate::update::Term;

/// Rows that are read together.
pub(super) const TOGETHER: usize = 64;

/// A number for each of the rows that are read together; zero where there are fewer.
pub(super) type Lanes = [f64; TOGETHER];

/// Voltages of some rows, or what else there is one of at every node.
pub(super) struct Columns {
    nodes: Vec<Lanes>,
    inputs: Vec<Lanes>,
}

impl Columns {
    /// Of rows of nodes and inputs.
    pub(super) fn new<'a>(
        circuit: &Circuit,
        rows: impl Iterator<Item = (Vec<f64>, &'a [f64])>,
    ) -> Self {
        let mut columns = Self {
            nodes: vec![[0.0; TOGETHER]; circuit.pattern.size()],
            inputs: vec![[0.0; TOGETHER]; circuit.inputs],
        };
        for (k, (nodes, inputs)) in rows.enumerate() {
            columns.nodes.iter_mut().zip(&nodes).for_each(|(column, &v)| column[k] = v);
            columns.inputs.iter_mut().zip(inputs).for_each(|(column, &x)| column[k] = x);
        }
        columns
    }

    /// The voltages of a terminal.
    pub(super) fn at(&self, terminal: Terminal) -> Lanes {
        match terminal.place {
            Place::Node(node) => self.nodes[node].map(|v| v + terminal.offset),
            Place::Input(input) => self.inputs[input].map(|x| x + terminal.offset),
            Place::Fixed(voltage) => [voltage + terminal.offset; TOGETHER],
        }
    }
}

impl Circuit {
    /// For every trained element the sum of `term` over `rows` rows, divided by `divisor`. `block`
    /// makes what terms are read off, of at most [`TOGETHER`] rows.
    pub(super) fn read<T: Real, B: Sync>(
        &self,
        runtime: &Runtime,
        rows: usize,
        divisor: f64,
        block: impl Fn(Range<usize>) -> B,
        term: impl Fn(usize, &B) -> f64 + Sync,
    ) -> Vec<Term<T>> {
        let mut found: Vec<Vec<(usize, f64)>> = self.specs.iter().map(|_| Vec::new()).collect();
        for (e, element) in self.elements.iter().enumerate() {
            if let Some(parameter) = element.parameter {
                found[parameter].push((e, 0.0));
            }
        }
        for first in (0..rows).step_by(TOGETHER) {
            let block = block(first..(first + TOGETHER).min(rows));
            for found in &mut found {
                let chunk =
                    found.len().div_ceil(runtime.parts(TOGETHER * found.len(), found.len())).max(1);
                runtime.for_each(found.par_chunks_mut(chunk), |found| {
                    found.iter_mut().for_each(|(e, sum)| *sum += term(*e, &block));
                });
            }
        }
        let terms = found.into_iter().map(|found| {
            Term::Dense(found.into_iter().map(|(_, sum)| T::from_f64(sum / divisor)).collect())
        });
        terms.collect()
    }
}

/// The sum of products, in eight sums side by side.
pub(super) fn dot(a: &Lanes, b: &Lanes) -> f64 {
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum()
}
