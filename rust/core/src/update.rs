//! Local updates: what a gradient of couplings is made of, kept factored until it meets the parameters.

use pnncore_kernels::sparse::{Dense, Panel, SparseRows, accumulate};
use pnncore_kernels::{AVec, Real, transpose};
use rayon::prelude::*;

use crate::lab::Lab;
use crate::params::ParamSpec;
use crate::trial::Trial;

/// The dense side of an outer product.
#[derive(Debug, Clone)]
pub enum Side<T> {
    /// Rows of its own, `width` elements each, `stride` apart.
    Own(AVec<T>, usize),
    /// A layer of the real parts of the trial: one row per row of the trial.
    States(usize),
    /// A layer of the imaginary parts of the trial.
    Imaginary(usize),
}

/// A sum over rows r of outer products l_r d_r^T: l_r are lists of non-zeros (with all weights folded in), d_r dense.
#[derive(Debug, Clone)]
pub struct OuterProducts<T> {
    /// The lists.
    pub lists: SparseRows<T>,
    /// The dense side.
    pub dense: Side<T>,
}

/// The change of one parameter.
#[derive(Debug, Clone)]
pub enum Term<T> {
    /// Element by element.
    Dense(Vec<T>),
    /// A matrix: the sum of some [`OuterProducts`], or the transpose of it, which is cheaper where the columns are few.
    Outer {
        /// The products.
        products: Vec<OuterProducts<T>>,
        /// Whether the lists are over columns of the parameter rather than rows.
        transposed: bool,
    },
}

/// The changes of all parameters, in the order of the system's specifications.
#[derive(Debug, Clone)]
pub struct LocalUpdate<T> {
    /// One term per parameter.
    pub terms: Vec<Term<T>>,
    parts: Vec<Part<T>>,
}

/// Buffers of one part of a parallel region.
#[derive(Debug, Clone)]
struct Part<T> {
    lists: SparseRows<T>,
    panel: Panel<T>,
    sums: Vec<T>,
}

impl<T: Real> Default for Part<T> {
    fn default() -> Self {
        Self { lists: SparseRows::new(0), panel: Panel::default(), sums: Vec::new() }
    }
}

impl<T: Real> Default for LocalUpdate<T> {
    fn default() -> Self {
        Self { terms: Vec::new(), parts: Vec::new() }
    }
}

impl<T: Real> LocalUpdate<T> {
    /// Adds `scale` times the term of parameter `i` to `target`. Uses the term up.
    pub fn apply(&mut self, lab: &Lab, trial: &Trial<T>, i: usize, spec: &ParamSpec, target: &mut [T], scale: f64) {
        let scale = T::from_f64(scale);
        match &mut self.terms[i] {
            Term::Dense(values) => {
                for (t, &v) in target.iter_mut().zip(values.iter()) {
                    *t += scale * v;
                }
            }
            Term::Outer { products, transposed } => {
                let (rows, cols) = spec.rows_cols();
                for product in products {
                    product.lists.scale(scale);
                    let dense = product.dense.view(trial);
                    if *transposed {
                        // Few columns: sum the transpose, then turn it. Cheap enough for one thread.
                        if self.parts.is_empty() {
                            self.parts.push(Part::default());
                        }
                        let Part { lists, panel, sums } = &mut self.parts[0];
                        product.lists.transpose_into(0..cols, lists);
                        sums.clear();
                        sums.resize(2 * rows * cols, T::ZERO);
                        let (sums, turned) = sums.split_at_mut(rows * cols);
                        accumulate(lab.level(), lists, 0, cols, dense, rows, sums, rows, panel);
                        transpose(sums, cols, rows, 0..rows, turned, cols);
                        for (t, &v) in target.iter_mut().zip(turned.iter()) {
                            *t += v;
                        }
                        continue;
                    }
                    let parts = lab.parts(product.lists.len() * cols, rows);
                    let chunk = rows.div_ceil(parts).max(1);
                    let parts = rows.div_ceil(chunk);
                    if self.parts.len() < parts {
                        self.parts.resize_with(parts, Part::default);
                    }
                    let lists = &product.lists;
                    let pieces =
                        target.par_chunks_mut(chunk * cols).zip(self.parts[..parts].par_iter_mut()).enumerate();
                    lab.for_each(pieces, |(c, (piece, part))| {
                        let first = c * chunk;
                        lists.transpose_into(first..first + piece.len() / cols, &mut part.lists);
                        let count = part.lists.rows();
                        accumulate(lab.level(), &part.lists, 0, count, dense, cols, piece, cols, &mut part.panel);
                    });
                }
            }
        }
    }
}

impl<T: Real> Side<T> {
    fn view<'a>(&'a self, trial: &'a Trial<T>) -> Dense<'a, T> {
        let layout = trial.layout();
        match self {
            Self::Own(data, stride) => Dense { data, stride: *stride },
            Self::States(l) => Dense { data: &trial.states[layout.layer(*l).start..], stride: trial.stride() },
            Self::Imaginary(l) => {
                Dense { data: &trial.states[layout.stride() + layout.layer(*l).start..], stride: trial.stride() }
            }
        }
    }
}
