//! What experiments on a circuit keep between calls.

use pnncore_kernels::Real;

use super::reading::Columns;
use super::sample::Fed;
use super::values::Values;
use super::{linear, search};
use crate::scratch::Pool;
use crate::system::Workspace;
use crate::{Error, Result};

/// Memory for experiments.
#[derive(Debug)]
pub(super) struct Memory<T> {
    pub(super) values: Values,
    pub(super) linear: linear::Memory<T>,
    pub(super) samples: Pool<SampleMemory<T>>,
    pub(super) reading: ReadingMemory,
}

impl<T: Real> Memory<T> {
    pub(super) fn of(workspace: &mut Workspace) -> Result<&mut Self> {
        let other = || Error::Capability("the memory of a step belongs to another system".into());
        workspace.downcast_mut().ok_or_else(other)
    }
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self {
            values: Values::default(),
            linear: linear::Memory::default(),
            samples: Pool::default(),
            reading: ReadingMemory::default(),
        }
    }
}

/// Memory for one sample after the other.
#[derive(Debug, Default)]
pub(super) struct SampleMemory<T> {
    pub(super) fed: Fed,
    pub(super) given: Vec<T>,
    pub(super) target: Vec<f64>,
    /// That of the loss at the free outputs.
    pub(super) gradient: Vec<f64>,
    pub(super) free: Vec<f64>,
    pub(super) v: Vec<f64>,
    pub(super) search: search::Memory,
}

/// Memory for what is read.
#[derive(Debug, Default)]
pub(super) struct ReadingMemory {
    /// Sample, phase, and weight.
    pub(super) rows: Vec<(usize, usize, f64)>,
    pub(super) sums: Vec<Vec<(usize, f64)>>,
    pub(super) voltages: Columns,
    pub(super) adjoint: Columns,
}
