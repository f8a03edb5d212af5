//! Sparse matrices of a system, of conductances or stiffnesses: a fixed pattern, analysed once,
//! with new values for every factorisation.

use std::sync::Arc;

use faer::dyn_stack::{MemBuffer, MemStack, StackReq};
use faer::sparse::linalg::cholesky::{LltRef, SymbolicCholesky, factorize_symbolic_cholesky};
use faer::sparse::linalg::lu::{LuRef, NumericLu, SymbolicLu, factorize_symbolic_lu};
use faer::sparse::{SparseColMatRef, SymbolicSparseColMat};
use faer::{Conj, MatMut, Par, Side};

use crate::{Error, Result};

/// Where the elements lie, and the symbolic factorisation.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    symbolic: SymbolicSparseColMat<usize>,
    analysis: Analysis,
}

#[derive(Debug, Clone)]
enum Analysis {
    /// Of a symmetric matrix, of which the lower triangle is kept.
    Cholesky(Arc<SymbolicCholesky<usize>>),
    Lu(Arc<SymbolicLu<usize>>),
}

/// A factorised matrix, and memory for the next one of the same pattern.
#[derive(Debug, Clone, Default)]
pub(super) struct Factor {
    cholesky: Vec<f64>,
    lu: NumericLu<usize, f64>,
    probe: Vec<f64>,
}

/// Memory that factorisations and solutions take while they run.
#[derive(Default)]
pub(super) struct Stack {
    memory: Option<MemBuffer>,
    /// What it is enough for.
    enough: StackReq,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").field("enough", &self.enough).finish_non_exhaustive()
    }
}

impl Stack {
    fn of(&mut self, needed: StackReq) -> &mut MemStack {
        let both = self.enough.or(needed);
        if both != self.enough {
            (self.memory, self.enough) = (None, both);
        }
        MemStack::new(self.memory.get_or_insert_with(|| MemBuffer::new(both)))
    }
}

impl Pattern {
    /// The pattern of an `n` x `n` matrix with a full diagonal and these other elements, by row and
    /// column, in any order and either triangle; each stands for its mirror image too.
    pub(super) fn new(
        n: usize,
        pairs: impl Iterator<Item = (usize, usize)>,
        symmetric: bool,
    ) -> Result<Self> {
        let mut places: Vec<(usize, usize)> =
            pairs.map(|(i, j)| (i.min(j), i.max(j))).chain((0..n).map(|i| (i, i))).collect();
        if !symmetric {
            places.extend(places.clone().into_iter().map(|(i, j)| (j, i)));
        }
        places.sort_unstable();
        places.dedup();
        let mut starts = vec![0; n + 1];
        places.iter().for_each(|&(column, _)| starts[column + 1] += 1);
        (0..n).for_each(|column| starts[column + 1] += starts[column]);
        let rows = places.iter().map(|&(_, row)| row).collect();
        let symbolic = SymbolicSparseColMat::new_checked(n, n, starts, None, rows);
        let analysis = if symmetric {
            let (order, params) = (Default::default(), Default::default());
            factorize_symbolic_cholesky(symbolic.as_ref(), Side::Lower, order, params)
                .map(|found| Analysis::Cholesky(Arc::new(found)))
        } else {
            factorize_symbolic_lu(symbolic.as_ref(), Default::default())
                .map(|found| Analysis::Lu(Arc::new(found)))
        };
        let analysis = analysis
            .map_err(|e| Error::Config(format!("the system is too large to analyse: {e:?}")))?;
        Ok(Self { symbolic, analysis })
    }

    fn is_symmetric(&self) -> bool {
        matches!(self.analysis, Analysis::Cholesky(_))
    }

    /// The number of rows.
    pub(super) fn size(&self) -> usize {
        self.symbolic.nrows()
    }

    /// The number of elements.
    pub(super) fn len(&self) -> usize {
        self.symbolic.row_idx().len()
    }

    /// Where element (i, j) lies; it is part of the pattern. The same for (j, i), where the matrix
    /// is symmetric.
    pub(super) fn place(&self, i: usize, j: usize) -> usize {
        let (column, row) = if self.is_symmetric() { (i.min(j), i.max(j)) } else { (j, i) };
        let span = self.symbolic.col_range(column);
        span.start + self.symbolic.row_idx()[span].partition_point(|&r| r < row)
    }

    /// Calls `visit(row, column, place)` for every element that is kept.
    pub(super) fn for_each(&self, mut visit: impl FnMut(usize, usize, usize)) {
        for column in 0..self.size() {
            for place in self.symbolic.col_range(column) {
                visit(self.symbolic.row_idx()[place], column, place);
            }
        }
    }

    /// product = A v.
    pub(super) fn multiply(&self, values: &[f64], v: &[f64], product: &mut [f64]) {
        let symmetric = self.is_symmetric();
        product.fill(0.0);
        self.for_each(|row, column, place| {
            product[row] += values[place] * v[column];
            if symmetric && row != column {
                product[column] += values[place] * v[row];
            }
        });
    }

    /// product = A^T v.
    pub(super) fn multiply_transposed(&self, values: &[f64], v: &[f64], product: &mut [f64]) {
        if self.is_symmetric() {
            return self.multiply(values, v, product);
        }
        product.fill(0.0);
        self.for_each(|row, column, place| product[column] += values[place] * v[row]);
    }

    /// Factorises; false unless the matrix is finite, and positive definite or invertible.
    pub(super) fn factorise(&self, values: &[f64], factor: &mut Factor, stack: &mut Stack) -> bool {
        if !values.iter().all(|v| v.is_finite()) {
            return false;
        }
        let matrix = SparseColMatRef::new(self.symbolic.as_ref(), values);
        let Factor { cholesky, lu, .. } = factor;
        let (par, regularization) = (Par::Seq, Default::default());
        let is_regular = match &self.analysis {
            Analysis::Cholesky(analysis) => {
                cholesky.clear();
                cholesky.resize(analysis.len_val(), 0.0);
                let params = Default::default();
                let needed = analysis.factorize_numeric_llt_scratch::<f64>(par, params);
                let stack = stack.of(needed);
                let side = Side::Lower;
                analysis
                    .factorize_numeric_llt(
                        cholesky,
                        matrix,
                        side,
                        regularization,
                        par,
                        stack,
                        params,
                    )
                    .is_ok()
            }
            Analysis::Lu(analysis) => {
                let params = Default::default();
                let stack = stack.of(analysis.factorize_numeric_lu_scratch::<f64>(par, params));
                analysis.factorize_numeric_lu(lu, matrix, par, stack, params).is_ok()
            }
        };
        is_regular && self.is_grounded(values, factor, stack)
    }

    /// Whether pivots are no rounding errors, which pass as positive: a matrix whose rows sum to
    /// zero, which nothing grounds, answers a current of one with a voltage of 1e13 or more at unit
    /// conductance. Rows without diagonal have currents, in units of the largest conductance.
    fn is_grounded(&self, values: &[f64], factor: &mut Factor, stack: &mut Stack) -> bool {
        let mut probe = std::mem::take(&mut factor.probe);
        probe.clear();
        probe.extend((0..self.size()).map(|i| values[self.place(i, i)].abs()));
        self.solve(factor, &mut probe, 1, stack);
        let diagonal = (0..self.size()).map(|i| values[self.place(i, i)].abs());
        let largest = diagonal.clone().fold(0.0, f64::max);
        let is_grounded = probe.iter().zip(diagonal).all(|(x, own)| {
            let unit = if own > 0.0 || largest == 0.0 { 1.0 } else { largest };
            x.is_finite() && x.abs() < UNGROUNDED * unit
        });
        factor.probe = probe;
        is_grounded
    }

    /// Solves A x = b for `count` right-hand sides, one after the other in memory.
    pub(super) fn solve(
        &self,
        factor: &Factor,
        right: &mut [f64],
        count: usize,
        stack: &mut Stack,
    ) {
        let n = right.len() / count.max(1);
        let right = MatMut::from_column_major_slice_mut(right, n, count);
        match &self.analysis {
            Analysis::Cholesky(analysis) => {
                let stack = stack.of(analysis.solve_in_place_scratch::<f64>(count, Par::Seq));
                let solver = LltRef::new(analysis, &factor.cholesky);
                solver.solve_in_place_with_conj(Conj::No, right, Par::Seq, stack);
            }
            Analysis::Lu(analysis) => {
                let stack = stack.of(analysis.solve_in_place_scratch::<f64>(count, Par::Seq));
                let solver = LuRef::new_unchecked(analysis, &factor.lu);
                solver.solve_in_place_with_conj(Conj::No, right, Par::Seq, stack);
            }
        }
    }

    /// Solves A^T x = b.
    pub(super) fn solve_transposed(&self, factor: &Factor, right: &mut [f64], stack: &mut Stack) {
        let Analysis::Lu(analysis) = &self.analysis else {
            return self.solve(factor, right, 1, stack);
        };
        let stack = stack.of(analysis.solve_transpose_in_place_scratch::<f64>(1, Par::Seq));
        let right = MatMut::from_column_major_slice_mut(right, right.len(), 1);
        let solver = LuRef::new_unchecked(analysis, &factor.lu);
        solver.solve_transpose_in_place_with_conj(Conj::No, right, Par::Seq, stack);
    }
}

/// The voltage at which a node counts as cut off, where a current of one flows through a
/// conductance of one.
const UNGROUNDED: f64 = 1e13;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solves_and_refuses_singular_matrices() {
        let pattern =
            Pattern::new(3, [(0, 1), (2, 1), (1, 0)].into_iter(), true).expect("a pattern");
        assert_eq!((pattern.size(), pattern.len()), (3, 5));
        let mut values = vec![0.0; 5];
        for (i, j, v) in [(0, 0, 2.0), (1, 1, 3.0), (2, 2, 1.5), (0, 1, -1.0), (1, 2, -0.5)] {
            values[pattern.place(i, j)] = v;
        }
        let (x, mut b) = ([1.0, -2.0, 0.5], [0.0; 3]);
        pattern.multiply(&values, &x, &mut b);
        assert_eq!(b, [4.0, -7.25, 1.75]);
        let mut both = [b, b].concat();
        let (mut factor, mut stack) = (Factor::default(), Stack::default());
        assert!(pattern.factorise(&values, &mut factor, &mut stack));
        pattern.solve(&factor, &mut both, 2, &mut stack);
        assert!(both.iter().zip(x.iter().cycle()).all(|(a, b)| (a - b).abs() < 1e-14));
        // Without a way to ground the rows sum to zero.
        for (i, v) in [1.0, 1.5, 0.5].into_iter().enumerate() {
            values[pattern.place(i, i)] = v;
        }
        assert!(!pattern.factorise(&values, &mut factor, &mut stack));
        values[0] = f64::NAN;
        assert!(!pattern.factorise(&values, &mut factor, &mut stack));
    }
    #[test]
    fn solves_matrices_that_are_not_symmetric() {
        let pattern = Pattern::new(3, [(0, 1), (2, 1)].into_iter(), false).expect("a pattern");
        assert_eq!(pattern.len(), 7);
        let mut values = vec![0.0; 7];
        for (i, j, v) in [
            (0, 0, 2.0),
            (1, 1, 3.0),
            (2, 2, 1.5),
            (0, 1, -1.0),
            (1, 0, 0.25),
            (1, 2, -0.5),
            (2, 1, 4.0),
        ] {
            values[pattern.place(i, j)] = v;
        }
        let x = [1.0, -2.0, 0.5];
        let (mut factor, mut stack) = (Factor::default(), Stack::default());
        assert!(pattern.factorise(&values, &mut factor, &mut stack));
        let (mut b, mut turned) = ([0.0; 3], [0.0; 3]);
        pattern.multiply(&values, &x, &mut b);
        assert_eq!(b, [4.0, -6.0, -7.25]);
        pattern.multiply_transposed(&values, &x, &mut turned);
        assert_eq!(turned, [1.5, -5.0, 1.75]);
        pattern.solve(&factor, &mut b, 1, &mut stack);
        pattern.solve_transposed(&factor, &mut turned, &mut stack);
        assert!(b.iter().chain(&turned).zip(x.iter().cycle()).all(|(a, b)| (a - b).abs() < 1e-14));
        // Column by column: nothing is grounded.
        for singular in [[1.0, -1.0, -1.0, 2.0, -1.0, -1.0, 1.0], [0.0; 7]] {
            assert!(!pattern.factorise(&singular, &mut factor, &mut stack));
        }
    }
}
