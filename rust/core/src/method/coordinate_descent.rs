//! Coordinate descent: one parameter after the other moves to the bottom of the parabola through
//! three losses.

use pnncore_kernels::Real;
use serde::Deserialize;

use super::candidates::{distance, flatten};
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::Result;
use crate::params::cut;
use crate::settings::{at_least, positive};
use crate::settling::Settling;
use crate::system::{Abilities, Experiment};

/// How far beyond the points that were tried a parabola is believed, in units of their distance.
const FARTHEST: f64 = 2.0;

/// Coordinate descent.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinateDescent {
    /// How far parameters are moved to either side. `None`: a usual distance, where parameters have
    /// no units.
    pub epsilon: Option<f64>,
    /// Parameters tried per step.
    pub coordinates: u32,
}

impl MethodConfig for CoordinateDescent {
    const NAME: &'static str = "CoordinateDescent";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::OUTPUTS)];

    fn check(&self, _settling: &Settling) -> Result<()> {
        positive("epsilon", self.epsilon.unwrap_or(1.0))?;
        at_least("coordinates", self.coordinates, 1)
    }

    fn compile<T: Real>(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        let epsilon = distance(Self::NAME, "epsilon", self.epsilon, 0.3, setup.system)?;
        Ok(Box::new(Descent { epsilon, coordinates: self.coordinates }))
    }
}

/// The method, compiled.
#[derive(Debug)]
struct Descent {
    epsilon: f64,
    coordinates: u32,
}

impl<T: Real> CompiledMethod<T> for Descent {
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        _memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let Self { epsilon, coordinates } = *self;
        let mut values = flatten(experiment.params);
        let n = values.len() as u64;
        let StepState { candidates, cost, states, .. } = &mut *state;
        let first =
            candidates.losses(experiment, &values, 1, cost, Some(states), |_, _| {})?.remove(0);
        let mut here = first.mean;
        let reach = T::from_f64(epsilon);
        for k in 0..u64::from(coordinates) {
            let j = ((experiment.draw.step() * u64::from(coordinates) + k) % n) as usize;
            let (here_is, (lower, upper)) = (values[j], experiment.range(j));
            let places = [here_is + reach, here_is - reach].map(|place| place.within(lower, upper));
            let moved = |c: usize, values: &mut [T]| values[j] = places[c];
            let experiment = Experiment { draw: experiment.draw.after(1 + 2 * k), ..*experiment };
            let losses = candidates.losses(&experiment, &values, 2, cost, None, moved)?;
            let [up, down] = places.map(|place| place.to_f64() - here_is.to_f64());
            let Parabola { slope, curvature } =
                Parabola::through(here, (up, losses[0].mean), (down, losses[1].mean));
            let compared = losses.iter().all(|loss| loss.lost == first.lost);
            if !(compared && slope.is_finite() && curvature.is_finite()) {
                continue;
            }
            let far = if curvature > 0.0 { -slope / curvature } else { -slope.signum() * epsilon };
            let wanted = here_is + T::from_f64(far.clamp(-FARTHEST * epsilon, FARTHEST * epsilon));
            values[j] = wanted.within(lower, upper);
            let moved = values[j].to_f64() - here_is.to_f64();
            here += moved * slope + 0.5 * moved * moved * curvature;
        }
        experiment.keep_within(&mut values);
        Ok(state.found_values(cut(experiment.system.specs(), &values)))
    }
}

/// A loss along a line: its derivatives where the line begins.
struct Parabola {
    slope: f64,
    curvature: f64,
}

impl Parabola {
    /// Through the loss at the beginning and at two places; where a range keeps one of them at the
    /// beginning, a straight line.
    fn through(here: f64, (up, above): (f64, f64), (down, below): (f64, f64)) -> Self {
        let (rise, fall) = ((above - here) / up, (below - here) / down);
        match (up != 0.0, down != 0.0) {
            (true, true) => {
                let curvature = 2.0 * (rise - fall) / (up - down);
                Self { slope: rise - 0.5 * curvature * up, curvature }
            }
            (true, false) => Self { slope: rise, curvature: 0.0 },
            (false, true) => Self { slope: fall, curvature: 0.0 },
            (false, false) => Self { slope: 0.0, curvature: 0.0 },
        }
    }
}
