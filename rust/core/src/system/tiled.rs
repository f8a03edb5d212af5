//! Systems whose couplings are stored in arrays of cells: the physics is that of the system, the changes are what pulses make of them.

use pnncore_kernels::Real;

use super::{Abilities, Dynamics, StateDerivatives, System, Workspace, stack};
use crate::Result;
use crate::device::{CellArray, Device, TileSpec};
use crate::params::ParamSpec;
use crate::runtime::Runtime;
use crate::signal::Signal;
use crate::states::Layout;

/// A system, and the cells that its matrices are stored in.
#[derive(Debug, Clone)]
pub struct Tiled<T, S> {
    system: S,
    tiles: Vec<Option<CellArray<T>>>,
}

impl<T: Real, S: System<T>> Tiled<T, S> {
    /// Stores all parameters that are matrices in arrays of cells, drawn from `seed`.
    ///
    /// # Errors
    /// As [`TileSpec::check`].
    pub fn new(system: S, spec: &TileSpec, seed: u64) -> Result<Self> {
        let tile = |(i, own): (usize, &ParamSpec)| {
            let is_matrix = own.shape.len() == 2;
            is_matrix.then(|| CellArray::new(spec, own.rows_cols(), seed, i)).transpose()
        };
        let tiles = system.specs().iter().enumerate().map(tile).collect::<Result<_>>()?;
        Ok(Self { system, tiles })
    }
}

impl<T: Real, S: System<T>> System<T> for Tiled<T, S> {
    fn name(&self) -> &str {
        self.system.name()
    }

    fn takes(&self) -> Signal {
        self.system.takes()
    }

    fn gives(&self) -> Signal {
        self.system.gives()
    }

    fn layout(&self) -> Layout {
        self.system.layout()
    }

    fn specs(&self) -> &[ParamSpec] {
        self.system.specs()
    }

    fn device(&self, parameter: usize) -> &Device {
        self.system.device(parameter)
    }

    fn tile(&self, parameter: usize) -> Option<&CellArray<T>> {
        self.tiles[parameter].as_ref()
    }

    fn workspace(&self) -> Workspace {
        self.system.workspace()
    }

    /// As the system does, and brings parameters into the ranges of their cells.
    fn initialise(&self, runtime: &Runtime, seed: u64, gain: f64, params: &mut [&mut [T]]) {
        self.system.initialise(runtime, seed, gain, params);
        for (tile, values) in self.tiles.iter().zip(params) {
            tile.iter().for_each(|tile| tile.keep_within(values));
        }
    }

    fn as_dynamics(&self) -> Option<&dyn Dynamics<T>> {
        self.system.as_dynamics()
    }

    fn as_state_derivatives(&self) -> Option<&dyn StateDerivatives<T>> {
        self.system.as_state_derivatives()
    }

    fn as_stack(&self) -> Option<&stack::Stack<T>> {
        self.system.as_stack()
    }

    fn abilities(&self) -> Abilities {
        self.system.abilities()
    }

    fn is_reciprocal(&self) -> bool {
        self.system.is_reciprocal()
    }
}
