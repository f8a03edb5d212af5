//! Parameters: borrowed from their owner for one call.

use pnncore_kernels::converter::largest;
use pnncore_kernels::{Level, Real};

use crate::system::System;
use crate::{Error, Result};

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

/// Cuts values of all parameters, one after the other, into those of each.
pub(crate) fn cut<'a, T>(specs: &'a [ParamSpec], mut values: &'a [T]) -> impl Iterator<Item = &'a [T]> {
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

    /// Checks number and lengths against the system's specification, and that all values are finite and within the range
    /// of what they are stored in.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Data`], naming the parameter.
    pub fn check(&self, system: &dyn System<T>) -> Result<()> {
        let specs = system.specs();
        if self.slots.len() != specs.len() {
            return Err(Error::Shape(format!("expected {} parameters, got {}", specs.len(), self.slots.len())));
        }
        for (i, spec) in specs.iter().enumerate() {
            let values = self.get(i);
            if values.len() != spec.len() {
                return Err(Error::Shape(format!(
                    "parameter {} needs shape {:?} ({} elements), got {} elements",
                    spec.name,
                    spec.shape,
                    spec.len(),
                    values.len()
                )));
            }
            if !all_finite(values) {
                return Err(Error::Data(format!(
                    "parameter {} holds NaN or infinity; training diverged or the array was overwritten",
                    spec.name
                )));
            }
            if let Some((at, (lower, upper))) = system.tile(i).and_then(|tile| tile.outside(values)) {
                return Err(Error::Data(format!(
                    "parameter {} holds {} at {:?}, but the cell there only has values in [{lower}, {upper}]: \
                     system.clip() brings all into their ranges",
                    spec.name,
                    values[at],
                    (at / spec.rows_cols().1, at % spec.rows_cols().1),
                )));
            }
            let (lower, upper) = system.device(i).range::<T>();
            let is_outside = |value: &T| *value < lower || *value > upper;
            let bounded = if lower.is_finite() || upper.is_finite() { values } else { &[] };
            // A whole chunk at a time vectorises; the first value alone would not.
            let outside = bounded.chunks(256).find(|chunk| chunk.iter().fold(false, |any, v| any | is_outside(v)));
            if let Some(value) = outside.and_then(|chunk| chunk.iter().find(|value| is_outside(value))) {
                return Err(Error::Data(format!(
                    "parameter {} holds {value}, but its device only has values in [{lower}, {upper}]",
                    spec.name
                )));
            }
        }
        Ok(())
    }
}

/// Whether no element is NaN or infinite.
pub fn all_finite<T: Real>(values: &[T]) -> bool {
    largest(Level::get(), values).is_finite()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::system::layered::Layered;

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

    #[test]
    fn check_names_the_parameter() {
        let conductances = Device { lower: Some(0.0), ..Device::IDEAL };
        let net = Layered::resistive(&[1, 3], 1.0, conductances).expect("a network");
        let sources = [0.0f32; 3];
        let check = |g: &[f32]| Params::shared([g, &sources]).check(&net);
        let error = check(&[0.0; 5]).expect_err("too short").to_string();
        assert!(error.contains("g1") && error.contains("[2, 3]"), "{error}");
        assert!(matches!(check(&[0.0, 1.0, 2.0, f32::NAN, 4.0, 5.0]), Err(Error::Data(_))));
        let error = check(&[0.0, 1.0, 2.0, -0.5, 4.0, 5.0]).expect_err("negative").to_string();
        assert!(error.contains("g1 holds -0.5"), "{error}");
        assert!(check(&[0.0; 6]).is_ok());
    }
}
