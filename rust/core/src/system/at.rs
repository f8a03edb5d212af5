//! A system at its parameters and a batch: the landscape that descent goes down.

use pnncore_kernels::Real;

use super::StateDerivatives;
use crate::Result;
use crate::batch::{Batch, Targets};
use crate::descent::Landscape;
use crate::params::Params;
use crate::states::States;

/// A system with its parameters and a batch.
pub struct SystemAt<'a, T: Real> {
    /// The system.
    pub system: &'a dyn StateDerivatives<T>,
    /// Its parameters.
    pub params: &'a Params<'a, T>,
    /// The batch.
    pub batch: &'a Batch<'a, T>,
}

impl<T: Real> Landscape<T> for SystemAt<'_, T> {
    fn energy(&self, states: &States<T>, energy: &mut [f64]) -> Result<()> {
        self.system.energy(self.params, self.batch, states, energy)
    }

    fn state_gradient(&self, states: &States<T>, gradient: &mut [T]) -> Result<()> {
        self.system.state_gradient(self.params, self.batch, states, gradient)
    }

    /// Each row as the only phase of a sample of its own: rows that are done, or have not begun,
    /// cost nothing.
    fn evaluate(
        &self,
        states: &States<T>,
        rows: &[usize],
        energy: &mut [f64],
        gradient: &mut [T],
    ) -> Result<()> {
        let stride = states.stride();
        let index: Vec<u64> =
            rows.iter().map(|r| self.batch.x.position(r / states.phases())).collect();
        // Energies know nothing of targets.
        let batch = Batch { x: self.batch.x.pick(&index), y: Targets::None };
        let mut part = States::new(states.layout().clone());
        part.reset(rows.len(), 1, false);
        let (mut energies, mut forces) =
            (vec![0.0; rows.len()], vec![T::ZERO; rows.len() * stride]);
        for (row, &r) in part.values.chunks_exact_mut(stride).zip(rows) {
            row.copy_from_slice(states.row(r));
        }
        self.system.energy(self.params, &batch, &part, &mut energies)?;
        self.system.state_gradient(self.params, &batch, &part, &mut forces)?;
        for ((&r, &e), force) in rows.iter().zip(&energies).zip(forces.chunks_exact(stride)) {
            energy[r] = e;
            gradient[r * stride..(r + 1) * stride].copy_from_slice(force);
        }
        Ok(())
    }

    fn interval(&self, l: usize, j: usize) -> (f64, f64) {
        self.system.interval(l, j)
    }

    fn scales(&self) -> (f64, f64) {
        self.system.scales(self.params)
    }
}
