//! What flows through every element at the free operating point.

use pnncore_kernels::Real;
use rayon::prelude::*;

use super::sample::{Fed, Pull};
use super::search::Memory;
use super::values::Values;
use super::{Circuit, Law};
use crate::batch::Batch;
use crate::params::Params;
use crate::runtime::Runtime;
use crate::states::Status;

impl Circuit {
    /// The current of every element, from its first terminal to its second, sample after sample;
    /// NaN for samples whose operating point is not found. Ideal diodes that hold one node at the
    /// same voltage share what flows.
    pub fn currents<T: Real>(
        &self,
        runtime: &Runtime,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
    ) -> Vec<f64> {
        /// Newton steps that are enough for any circuit that has an operating point.
        const LIMIT: u32 = 10_000;
        let values = Values::new(self, params);
        let width = self.elements.len();
        let mut found = vec![f64::NAN; batch.len() * width];
        runtime.for_each(found.par_chunks_mut(width.max(1)).enumerate(), |(i, found)| {
            let (mut fed, mut memory) = (Fed::default(), Memory::default());
            let sample = fed.sample(self, &values, batch, i);
            let mut v = vec![0.0; self.walls.len()];
            self.keep_within_walls(&mut v);
            let solved = sample.solve(Pull::Nothing, LIMIT, &mut v, &mut memory);
            if solved.status != Status::Converged {
                return;
            }
            for (e, (found, element)) in found.iter_mut().zip(&self.elements).enumerate() {
                *found = match element.law {
                    Law::IdealDiode => 0.0,
                    law => {
                        law.respond(values.theta[e], self.ends(e, sample.x, &v), f64::INFINITY)
                            .current
                    }
                };
            }
            for l in &memory.live {
                found[l.element] = sample.respond(&v, l).current;
            }
            // What flows out of a node through all else flows in through the diodes that hold it.
            let mut force = vec![0.0; v.len()];
            sample.currents(Pull::Nothing, &v, &memory.live, &mut force);
            for diode in &self.wall_diodes {
                found[diode.element] = (diode.sign * force[diode.node]).max(0.0) * diode.share;
            }
        });
        found
    }
}
