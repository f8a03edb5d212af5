//! A system at its parameters and a batch: the landscape that descent goes down.

use pnncore_kernels::Real;
use rayon::prelude::*;

use super::StateDerivatives;
use crate::Result;
use crate::batch::{Batch, Targets};
use crate::descent::{Landscape, Memory, Picked, settle};
use crate::params::Params;
use crate::plan::PhasePlan;
use crate::runtime::Runtime;
use crate::scratch::Pool;
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

impl<T: Real> SystemAt<'_, T> {
    /// Settles all phases of the batch by descent, a few samples at a time on every thread: rows do
    /// not see each other. `work` are the multiply-adds, about, of an energy and its gradient.
    ///
    /// # Errors
    /// What the physics may fail with.
    pub fn settle(
        &self,
        runtime: &Runtime,
        work: usize,
        plan: &PhasePlan,
        states: &mut States<T>,
        memory: &mut Descents<T>,
    ) -> Result<()> {
        /// Samples that go down together.
        const TOGETHER: usize = 4;
        /// Steps of a descent, about.
        const STEPS: usize = 100;
        let Descents { pool, ends } = memory;
        let (phases, stride, samples) = (states.phases(), states.stride(), self.batch.len());
        let pieces = samples.div_ceil(TOGETHER);
        if runtime.parts(STEPS * work * samples * phases, pieces) == 1 {
            return pool
                .with(|Piece { descent, .. }| settle(self, self.batch, plan, states, descent));
        }
        let complex = states.is_complex();
        let (layout, rows, outcomes) = states.parts_mut();
        ends.clear();
        ends.resize(pieces, Ok(()));
        let rows = rows.par_chunks_mut(TOGETHER * phases * stride);
        let outcomes = outcomes.par_chunks_mut(TOGETHER * phases);
        let pieces = rows.zip(outcomes).zip(ends.par_iter_mut()).enumerate();
        runtime.for_each(pieces, |(k, ((rows, outcomes), end))| {
            let first = k * TOGETHER;
            let batch = self.batch.range(first..first + outcomes.len() / phases);
            pool.with(|Piece { states, descent }| {
                let own = states.get_or_insert_with(|| States::new(layout.clone()));
                own.reset(batch.len(), phases, complex);
                own.values.copy_from_slice(rows);
                *end = settle(&SystemAt { batch: &batch, ..*self }, &batch, plan, own, descent);
                rows.copy_from_slice(&own.values);
                outcomes.copy_from_slice(&own.outcomes);
            });
        });
        ends.drain(..).collect()
    }
}

/// Memory of [`SystemAt::settle`], to be kept between calls.
#[derive(Debug)]
pub struct Descents<T> {
    pool: Pool<Piece<T>>,
    ends: Vec<Result<()>>,
}

impl<T> Default for Descents<T> {
    fn default() -> Self {
        Self { pool: Pool::default(), ends: Vec::new() }
    }
}

/// Memory of the descents of one thread.
#[derive(Debug)]
struct Piece<T> {
    states: Option<States<T>>,
    descent: Memory<T>,
}

impl<T: Real> Default for Piece<T> {
    fn default() -> Self {
        Self { states: None, descent: Memory::default() }
    }
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
        memory: &mut Picked<T>,
    ) -> Result<()> {
        let stride = states.stride();
        let Picked { index, states: part, energy: energies, gradient: forces } = memory;
        index.clear();
        index.extend(rows.iter().map(|r| self.batch.x.position(r / states.phases())));
        // Energies know nothing of targets.
        let batch = Batch { x: self.batch.x.pick(index), y: Targets::None };
        let part = part.get_or_insert_with(|| States::new(states.layout().clone()));
        part.reset(rows.len(), 1, false);
        energies.clear();
        energies.resize(rows.len(), 0.0);
        // A user's system may add to what it is given, and leaves the padding of rows alone.
        forces.clear();
        forces.resize(rows.len() * stride, T::ZERO);
        for (row, &r) in part.values.chunks_exact_mut(stride).zip(rows) {
            row.copy_from_slice(states.row(r));
        }
        self.system.energy(self.params, &batch, part, energies)?;
        self.system.state_gradient(self.params, &batch, part, forces)?;
        for ((&r, &e), force) in rows.iter().zip(&*energies).zip(forces.chunks_exact(stride)) {
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
