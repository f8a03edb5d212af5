//! Agnostic equilibrium propagation: parameters that relax by themselves.
//!
//! The energy is E(theta, s) + |u - theta|^2 / 2 epsilon. In the free phase the control u holds theta where it is, which needs
//! u = theta + epsilon dE/dtheta. Then the outputs are nudged, u stays, and theta relaxes with the states to theta' =
//! u - epsilon dE/dtheta(theta', s'). So (theta - theta') / (epsilon beta) tends to the gradient of the loss as epsilon and
//! beta go to zero (Scellier, Mishra, Bengio, Ollivier, arXiv 2205.15021).

use num_complex::Complex;
use pnncore_kernels::Real;

use super::Scratch;
use crate::Result;
use crate::batch::Batch;
use crate::device::Device;
use crate::differences::largest;
use crate::params::Params;
use crate::plan::PhasePlan;
use crate::runtime::Runtime;
use crate::system::Energetic;
use crate::update::Term;

/// How far springs of the default softness give way at most, in units of the largest parameter of a kind.
const GIVING_WAY: f64 = 1e-3;

/// The softness of the springs of each kind of parameters by default, from what pulls at them in the free phase: however small
/// errors are, springs are stiff against the energy. Kinds have different units; what is the same for all is the energy that
/// the spring that is pulled most would take up, as large as lets none give way by more than [`GIVING_WAY`].
fn yielding<T: Real>(start: &[Vec<T>], free: &[Vec<T>]) -> Vec<f64> {
    let pulls: Vec<f64> = free.iter().map(|free| largest(free)).collect();
    let work = start.iter().zip(&pulls).map(|(start, pull)| GIVING_WAY * largest(start) * pull);
    let least = work.filter(|&work| work > 0.0).reduce(f64::min);
    pulls.iter().map(|pull| least.filter(|_| *pull > 0.0).map_or(GIVING_WAY, |work| work / (pull * pull))).collect()
}

pub(super) struct Springs {
    pub(super) beta: f64,
    pub(super) epsilon: Option<f64>,
    pub(super) relaxations: u32,
}

impl Springs {
    pub(super) fn step<T: Real>(
        &self,
        runtime: &Runtime,
        plan: &PhasePlan,
        system: &dyn Energetic<T>,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        scratch: &mut Scratch<T>,
    ) -> Result<()> {
        let count = system.specs().len();
        let start: Vec<Vec<T>> = (0..count).map(|i| params.get(i).to_vec()).collect();
        self.settle(runtime, plan, system, params, batch, scratch)?;
        let free = self.read(runtime, system, params, batch, scratch, [Complex::ONE, Complex::ZERO])?;
        let mut nudged = self.read(runtime, system, params, batch, scratch, [Complex::ZERO, Complex::ONE])?;
        let epsilons = match self.epsilon {
            Some(epsilon) => vec![epsilon; count],
            None => yielding(&start, &free),
        };
        let (mut moved, mut changes) = (start.clone(), start.clone());
        for relaxation in 1..=self.relaxations {
            for i in 0..count {
                let (epsilon, (lower, upper)) = (epsilons[i], system.device(i).range::<f64>());
                for (k, start) in start[i].iter().map(|start| start.to_f64()).enumerate() {
                    // The springs pull, but the material has its range. (Not moved - start, which would be mostly rounding.)
                    let pulled = epsilon * (free[i][k] - nudged[i][k]).to_f64();
                    let change = pulled.within(lower - start, upper - start);
                    changes[i][k] = T::from_f64(-change / (epsilon * self.beta));
                    moved[i][k] = T::from_f64(start + change);
                }
            }
            if relaxation < self.relaxations {
                let params = Params::shared(moved.iter().map(Vec::as_slice));
                self.settle(runtime, plan, system, &params, batch, scratch)?;
                nudged = self.read(runtime, system, &params, batch, scratch, [Complex::ZERO, Complex::ONE])?;
            }
        }
        // The states that are reported are those at the parameters that training is at.
        if self.relaxations > 1 {
            self.settle(runtime, plan, system, params, batch, scratch)?;
        }
        scratch.update.terms = changes.into_iter().map(Term::Dense).collect();
        Ok(())
    }

    fn settle<T: Real>(
        &self,
        runtime: &Runtime,
        plan: &PhasePlan,
        system: &dyn Energetic<T>,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        scratch: &mut Scratch<T>,
    ) -> Result<()> {
        scratch.states.reset(batch.len(), plan.rows_per_sample(), false);
        scratch.cost.add(plan.rows_per_sample(), batch.len());
        system.settle(runtime, params, batch, plan, &mut scratch.states, &mut scratch.workspace)
    }

    /// dE/dtheta, summed over the phases with these weights.
    fn read<T: Real>(
        &self,
        runtime: &Runtime,
        system: &dyn Energetic<T>,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        scratch: &mut Scratch<T>,
        weights: [Complex<f64>; 2],
    ) -> Result<Vec<Vec<T>>> {
        let Scratch { states, update, workspace, .. } = scratch;
        // Terms of the step before are dense here.
        update.terms.clear();
        system.local_update(runtime, params, batch, states, &weights, workspace, update)?;
        let read = system.specs().iter().enumerate().map(|(i, spec)| {
            let mut sums = vec![T::ZERO; spec.len()];
            update.apply(runtime, states, i, spec, &mut sums, 1.0, Device::IDEAL.range());
            sums
        });
        Ok(read.collect())
    }
}
