//! What parameters are stored in.

use pnncore_kernels::{BothPrecisions, Real};

use super::{CellArray, Device, TileSpec};
use crate::params::{ParamSpec, all_finite};
use crate::{Error, Result};

/// What a parameter is stored in.
#[derive(Debug, Clone, Copy)]
pub struct Store<'a, T> {
    /// The material.
    pub device: &'a Device,
    /// The array of cells, where there is one: there is then no other device.
    pub cells: Option<&'a CellArray<T>>,
    /// Within how many of their standard deviations the values are kept by every update.
    pub clip: Option<f64>,
}

impl<T> Store<'_, T> {
    /// The store that holds any value.
    pub const IDEAL: Self = Self { device: &Device::IDEAL, cells: None, clip: None };
}

impl<'a, T: Real> Store<'a, T> {
    /// A material, which has no cells.
    pub fn of(device: &'a Device) -> Self {
        Self { device, ..Store::IDEAL }
    }

    /// How many arrays the cells keep.
    pub fn kept(&self) -> usize {
        self.cells.map_or(0, CellArray::kept)
    }

    /// Brings values into the ranges of their cells.
    pub fn keep_within(&self, values: &mut [T]) {
        if let Some(cells) = self.cells {
            cells.keep_within(values);
        }
    }

    /// Checks that there are as many values as a parameter has elements, that all are finite, and
    /// that they are such as can be stored.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Data`], naming the parameter.
    pub fn check(&self, spec: &ParamSpec, values: &[T]) -> Result<()> {
        let name = &spec.name;
        if values.len() != spec.len() {
            return Err(Error::Shape(format!(
                "parameter {name} needs shape {:?} ({} elements), got {} elements",
                spec.shape,
                spec.len(),
                values.len()
            )));
        }
        if !all_finite(values) {
            return Err(Error::Data(format!(
                "parameter {name} holds NaN or infinity; training diverged or the array was \
                 overwritten"
            )));
        }
        if let Some((at, (lower, upper))) = self.cells.and_then(|cells| cells.outside(values)) {
            let columns = spec.rows_cols().1;
            return Err(Error::Data(format!(
                "parameter {name} holds {} at {:?}, but the cell there only has values in \
                 [{lower}, {upper}]: system.clip() brings all into their ranges",
                values[at],
                (at / columns, at % columns),
            )));
        }
        let (lower, upper) = self.device.range::<T>();
        let is_outside = |value: &T| *value < lower || *value > upper;
        let bounded = if lower.is_finite() || upper.is_finite() { values } else { &[] };
        // A whole chunk at a time vectorises; the first value alone would not.
        let outside = bounded
            .chunks(256)
            .find(|chunk| chunk.iter().fold(false, |any, v| any | is_outside(v)));
        match outside.and_then(|chunk| chunk.iter().find(|value| is_outside(value))) {
            Some(value) => Err(Error::Data(format!(
                "parameter {name} holds {value}, but its device only has values in [{lower}, \
                 {upper}]"
            ))),
            None => Ok(()),
        }
    }
}

/// Arrays of cells that the matrices among parameters are stored in, for either precision.
#[derive(Debug, Clone)]
pub struct CellArrays {
    single: Vec<Option<CellArray<f32>>>,
    double: Vec<Option<CellArray<f64>>>,
}

impl CellArrays {
    /// Stores all parameters that are matrices in arrays of cells, drawn from `seed`.
    ///
    /// # Errors
    /// As [`TileSpec::check`].
    pub fn of_matrices(spec: &TileSpec, params: &[ParamSpec], seed: u64) -> Result<Self> {
        fn arrays<T: Real>(
            spec: &TileSpec,
            params: &[ParamSpec],
            seed: u64,
        ) -> Result<Vec<Option<CellArray<T>>>> {
            let array = |(i, own): (usize, &ParamSpec)| {
                let is_matrix = own.shape.len() == 2;
                is_matrix.then(|| CellArray::new(spec, own.rows_cols(), seed, i)).transpose()
            };
            params.iter().enumerate().map(array).collect()
        }
        Ok(Self { single: arrays(spec, params, seed)?, double: arrays(spec, params, seed)? })
    }
}

impl BothPrecisions for CellArrays {
    type Of<T: Real> = [Option<CellArray<T>>];

    fn f32(&self) -> &Self::Of<f32> {
        &self.single
    }

    fn f64(&self) -> &Self::Of<f64> {
        &self.double
    }
}
