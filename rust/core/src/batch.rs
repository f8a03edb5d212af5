//! Batches: rows of a data set, by reference.

use std::ops::Range;

use pnncore_kernels::Real;

/// Rows of a row-major matrix, all of them or those that an index picks.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, T> {
    data: &'a [T],
    width: usize,
    index: Option<&'a [u64]>,
}

impl<'a, T> Rows<'a, T> {
    /// All rows of `data`.
    pub fn all(data: &'a [T], width: usize) -> Self {
        Self { data, width, index: None }
    }

    /// The rows that `index` names, instead.
    #[must_use]
    pub fn pick(self, index: &'a [u64]) -> Self {
        Self { index: Some(index), ..self }
    }

    /// Some of the rows, which lie side by side.
    #[must_use]
    pub fn range(self, range: Range<usize>) -> Self {
        match self.index {
            Some(index) => Self { index: Some(&index[range]), ..self },
            None => {
                Self { data: &self.data[range.start * self.width..range.end * self.width], ..self }
            }
        }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.index.map_or_else(|| self.data.len() / self.width.max(1), <[u64]>::len)
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Where row `i` lies in the matrix.
    pub fn position(&self, i: usize) -> u64 {
        self.index.map_or(i as u64, |index| index[i])
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &'a [T] {
        let i = self.position(i) as usize;
        &self.data[i * self.width..(i + 1) * self.width]
    }
}

/// What the outputs should be.
#[derive(Debug, Clone, Copy)]
pub enum Targets<'a, T> {
    /// Nothing is wanted: inference.
    None,
    /// Class labels: the target is one at the label, zero elsewhere.
    Labels(Rows<'a, i64>),
    /// Any values.
    Values(Rows<'a, T>),
}

impl<'a, T: Real> Targets<'a, T> {
    /// The rows that `index` names, instead.
    #[must_use]
    pub fn pick(self, index: &'a [u64]) -> Self {
        match self {
            Self::None => Self::None,
            Self::Labels(rows) => Self::Labels(rows.pick(index)),
            Self::Values(rows) => Self::Values(rows.pick(index)),
        }
    }

    /// Some of the rows, which lie side by side.
    #[must_use]
    pub fn range(self, range: Range<usize>) -> Self {
        match self {
            Self::None => Self::None,
            Self::Labels(rows) => Self::Labels(rows.range(range)),
            Self::Values(rows) => Self::Values(rows.range(range)),
        }
    }

    /// Writes the target of row `i`; returns whether there is one.
    pub fn write(&self, i: usize, target: &mut [T]) -> bool {
        match self {
            Self::None => return false,
            Self::Labels(rows) => {
                target.fill(T::ZERO);
                target[rows.row(i)[0] as usize] = T::ONE;
            }
            Self::Values(rows) => target.copy_from_slice(rows.row(i)),
        }
        true
    }

    /// The label of row `i`, where targets are labels.
    pub fn label(&self, i: usize) -> Option<usize> {
        match self {
            Self::Labels(rows) => Some(rows.row(i)[0] as usize),
            _ => None,
        }
    }
}

/// Inputs and targets of some samples.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a, T> {
    /// The inputs.
    pub x: Rows<'a, T>,
    /// The targets.
    pub y: Targets<'a, T>,
}

impl<'a, T: Real> Batch<'a, T> {
    /// The samples that `index` names, instead.
    #[must_use]
    pub fn pick(self, index: &'a [u64]) -> Self {
        Self { x: self.x.pick(index), y: self.y.pick(index) }
    }

    /// Some of the samples, which lie side by side.
    #[must_use]
    pub fn range(self, range: Range<usize>) -> Self {
        Self { x: self.x.range(range.clone()), y: self.y.range(range) }
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.x.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.x.is_empty()
    }
}
