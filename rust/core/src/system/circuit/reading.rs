//! What trained elements read off many rows of voltages: a sum of terms over rows for each.
//!
//! Rows are taken some at a time and turned around, so that the voltages of a node in all of them
//! lie side by side.

use std::ops::Range;

use pnncore_kernels::Real;
use rayon::prelude::*;

use super::lanes::{Lanes, TOGETHER};
use super::{Circuit, Place, Terminal};
use crate::runtime::Runtime;
use crate::update::LocalUpdate;

/// Voltages of some rows, or what else there is one of at every node.
#[derive(Debug, Default)]
pub(super) struct Columns {
    nodes: Vec<Lanes>,
    inputs: Vec<Lanes>,
}

impl Columns {
    /// Makes all voltages zero.
    pub(super) fn clear(&mut self, circuit: &Circuit) {
        for (columns, count) in
            [(&mut self.nodes, circuit.pattern.size()), (&mut self.inputs, circuit.inputs)]
        {
            columns.clear();
            columns.resize(count, [0.0; TOGETHER]);
        }
    }

    /// Sets the voltages of row `k`.
    pub(super) fn set(
        &mut self,
        k: usize,
        nodes: impl Iterator<Item = f64>,
        inputs: impl Iterator<Item = f64>,
    ) {
        self.nodes.iter_mut().zip(nodes).for_each(|(column, v)| column[k] = v);
        self.inputs.iter_mut().zip(inputs).for_each(|(column, x)| column[k] = x);
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
    /// Writes for every trained element the sum of `term` over `rows` rows, divided by `divisor`.
    /// `fill` makes `block` what terms are read off, of at most [`TOGETHER`] rows.
    #[allow(clippy::too_many_arguments, reason = "what is read, by which terms, and where it goes")]
    pub(super) fn read<T: Real, B: Sync>(
        &self,
        runtime: &Runtime,
        (rows, divisor): (usize, f64),
        sums: &mut Vec<Vec<(usize, f64)>>,
        block: &mut B,
        mut fill: impl FnMut(&mut B, Range<usize>),
        term: impl Fn(usize, &B) -> f64 + Sync,
        update: &mut LocalUpdate<T>,
    ) {
        sums.resize_with(self.specs.len(), Vec::new);
        sums.iter_mut().for_each(Vec::clear);
        for (e, element) in self.elements.iter().enumerate() {
            if let Some(parameter) = element.parameter {
                sums[parameter].push((e, 0.0));
            }
        }
        for first in (0..rows).step_by(TOGETHER) {
            fill(block, first..(first + TOGETHER).min(rows));
            let block = &*block;
            for sums in &mut *sums {
                let parts = runtime.parts(TOGETHER * sums.len(), sums.len());
                let chunk = sums.len().div_ceil(parts).max(1);
                runtime.for_each(sums.par_chunks_mut(chunk), |sums| {
                    sums.iter_mut().for_each(|(e, sum)| *sum += term(*e, block));
                });
            }
        }
        for (term, sums) in update.dense(sums.len()).zip(&*sums) {
            term.extend(sums.iter().map(|(_, sum)| T::from_f64(sum / divisor)));
        }
    }
}
