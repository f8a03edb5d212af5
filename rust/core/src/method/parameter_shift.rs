//! Parameter shift (Mitarai et al. 2018, Schuld et al. 2019): exact derivatives from shifted
//! measurements.
//!
//! An intensity is A + B cos(phase) + C sin(phase) in each phase, so that dL/d(phase) = sum over
//! outputs of dL/d(intensity) times half the difference of intensities a quarter turn to either
//! side. The chain rule goes through the loss: shifting the loss itself would be wrong. Where the
//! range of a phase cuts a shift short, the three intensities at hand tell C all the same.

use pnncore_kernels::Real;
use serde::Deserialize;

use super::candidates::flatten;
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::params::cut;
use crate::states::States;
use crate::system::{Abilities, Experiment};
use crate::{Error, Result};

/// Parameter shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterShift {}

impl MethodConfig for ParameterShift {
    const NAME: &'static str = "ParameterShift";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::PHASES)];

    fn compile<T: Real>(&self, _setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        Ok(Box::new(*self))
    }
}

impl<T: Real> CompiledMethod<T> for ParameterShift {
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        _memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let Experiment { system, params, batch, .. } = *experiment;
        let base = flatten(params);
        let StepState { candidates, cost, states, workspace, .. } = &mut *state;
        experiment.infer(states, workspace)?;
        cost.add(1, batch.len());
        let errors = experiment.errors(states)?;
        let quarter = T::from_f64(std::f64::consts::FRAC_PI_2);
        let places = |j: usize| {
            let (lower, upper) = experiment.range(j);
            [base[j] + quarter, base[j] - quarter].map(|place| place.within(lower, upper))
        };
        let moved = |c: usize, values: &mut [T]| values[c / 2] = places(c / 2)[c % 2];
        let shifted = Experiment { draw: experiment.draw.after(1), ..*experiment };
        let weigh = |found: &States<T>| {
            let rows = errors.chunks_exact(system.outputs()).enumerate();
            rows.flat_map(|(i, errors)| errors.iter().zip(found.outputs(i)))
                .map(|(e, y)| e * y.to_f64())
                .sum::<f64>()
        };
        let here = weigh(states);
        let weighed = |found: &States<T>| Ok(weigh(found));
        let sums =
            candidates.measures(&shifted, &base, 2 * base.len(), cost, None, moved, weighed)?;
        let slope = |(j, pair): (usize, &[f64])| {
            if places(j) == [base[j] + quarter, base[j] - quarter] {
                return Ok(T::from_f64(0.5 * (pair[0] - pair[1])));
            }
            let turns = places(j).map(|place| place.to_f64() - base[j].to_f64());
            sine_of_three(here, turns, [pair[0], pair[1]]).map(T::from_f64).ok_or_else(|| {
                Error::Config(format!(
                    "the range of the phases is too narrow for ParameterShift: phase {j} at {} \
                     cannot be shifted",
                    base[j]
                ))
            })
        };
        let gradient = sums.chunks_exact(2).enumerate().map(slope).collect::<Result<Vec<T>>>()?;
        Ok(state.found_gradient(cut(system.specs(), &gradient)))
    }
}

/// C of A + B cos(turn) + C sin(turn), given its values at zero and at two turns; `None` where
/// these do not tell.
fn sine_of_three(here: f64, turns: [f64; 2], values: [f64; 2]) -> Option<f64> {
    /// Turns of which differences would be mostly rounding errors.
    const LEAST: f64 = 1e-6;
    let [(s, c), (t, d)] = turns.map(|turn| (turn.sin(), 1.0 - turn.cos()));
    let determinant = s * d - t * c;
    (determinant.abs() > LEAST)
        .then(|| ((values[0] - here) * d - (values[1] - here) * c) / determinant)
}
