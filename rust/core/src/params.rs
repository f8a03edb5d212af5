//! Parameters: borrowed from their owner for one call.

use pnncore_kernels::converter::largest;
use pnncore_kernels::{Level, Real};

use crate::{Error, Result, memory};

/// Name and shape of one parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamSpec {
    /// The name, unique in its system.
    pub name: String,
    /// The shape: one or two dimensions, row-major.
    pub shape: Vec<usize>,
}

impl ParamSpec {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows and columns; a vector is one row.
    pub fn rows_cols(&self) -> (usize, usize) {
        match self.shape.as_slice() {
            [rows, rest @ ..] if !rest.is_empty() => (*rows, rest.iter().product()),
            _ => (1, self.len()),
        }
    }
}

/// The number of elements of all parameters, or the largest number where there would be more.
pub(crate) fn elements(specs: &[ParamSpec]) -> u128 {
    specs.iter().fold(0, |all, spec| all.saturating_add(memory::product(&spec.shape)))
}

/// Cuts values of all parameters, one after the other, into those of each.
pub(crate) fn cut<'a, T>(
    specs: &'a [ParamSpec],
    mut values: &'a [T],
) -> impl ExactSizeIterator<Item = &'a [T]> {
    specs.iter().map(move |spec| {
        let (own, rest) = values.split_at(spec.len());
        values = rest;
        own
    })
}

#[derive(Debug)]
enum Slot<'a, T> {
    Shared(&'a [T]),
    Exclusive(&'a mut [T]),
}

/// The parameter values of a system, in the order of its [`ParamSpec`]s.
#[derive(Debug)]
pub struct Params<'a, T> {
    slots: Vec<Slot<'a, T>>,
}

impl<'a, T: Real> Params<'a, T> {
    /// Values to read.
    pub fn shared(values: impl IntoIterator<Item = &'a [T]>) -> Self {
        Self { slots: values.into_iter().map(Slot::Shared).collect() }
    }

    /// Values to read and change.
    pub fn exclusive(values: impl IntoIterator<Item = &'a mut [T]>) -> Self {
        Self { slots: values.into_iter().map(Slot::Exclusive).collect() }
    }

    /// The number of parameters.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Parameter `i`.
    pub fn get(&self, i: usize) -> &[T] {
        match &self.slots[i] {
            Slot::Shared(values) => values,
            Slot::Exclusive(values) => values,
        }
    }

    /// Parameter `i`, to change.
    ///
    /// # Errors
    /// [`Error::Config`] if the values were lent to read only.
    pub fn get_mut(&mut self, i: usize) -> Result<&mut [T]> {
        match &mut self.slots[i] {
            Slot::Shared(_) => Err(Error::Config(format!("parameter {i} was lent to read only"))),
            Slot::Exclusive(values) => Ok(values),
        }
    }
}

/// Whether no element is NaN or infinite.
pub fn all_finite<T: Real>(values: &[T]) -> bool {
    largest(Level::get(), values).is_finite()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_finite_finds_every_position() {
        for n in [0, 1, 15, 16, 17, 40] {
            let mut values = vec![1e38f32; n];
            assert!(all_finite(&values));
            for i in 0..n {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    values[i] = bad;
                    assert!(!all_finite(&values), "{bad} at {i} of {n}");
                }
                values[i] = -1e38;
            }
        }
    }
}
