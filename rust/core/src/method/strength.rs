//! How strongly outputs are nudged where nobody says: as much as moves them by a tenth of their
//! error.
//!
//! A strength of nudging has the units of a stiffness: what is little on networks whose units have
//! stiffness one is far too much on circuits in millisiemens. It is measured: constant forces along
//! the gradient of the loss displace the outputs, and their strength is changed until the
//! displacement is the wanted fraction of that gradient for the softest sample of the batch.
//! Outputs of several kinds, voltages and currents, are compared in a unit that they share. The
//! gradient of the squared error is a displacement; that of another loss is not, and outputs are
//! displaced by no more than the same fraction of themselves.

use pnncore_kernels::Real;

use super::StepState;
use crate::loss::Loss;
use crate::params::ParamSpec;
use crate::plan::{Boundary, PhasePlan};
use crate::states::States;
use crate::system::{Experiment, System};
use crate::{Error, Result};

/// The fraction of the gradient of the loss by which outputs are displaced: biases are of the order
/// of its square, a few per cent.
const FRACTION: f64 = 0.1;
/// How near to the wanted displacement is near enough, as a factor.
const NEAR: f64 = 1.02;
/// The most that a strength is changed by at once, and the most changes: enough for any unit.
const FARTHEST: f64 = 1e6;
const TRIES: u32 = 60;

/// The strength of nudging of a method.
#[derive(Debug, Clone, Copy)]
pub(super) enum Strength {
    /// This one.
    Given(f64),
    /// The one that displaces outputs by [`FRACTION`] of their error, which the first step measures
    /// and memory holds.
    Measured,
}

impl Strength {
    /// The given strength. `None`: the usual one where the stiffness of outputs is one, elsewhere a
    /// measured one.
    pub(super) fn of<T: Real>(given: Option<f64>, usual: f64, system: &dyn System<T>) -> Self {
        match given {
            Some(strength) => Self::Given(strength),
            None if system.has_unit_stiffness() => Self::Given(usual),
            None => Self::Measured,
        }
    }

    /// The strength, where it need not be measured.
    pub(super) fn given(self) -> Option<f64> {
        match self {
            Self::Given(strength) => Some(strength),
            Self::Measured => None,
        }
    }

    /// The array that holds a measured strength; 0 before it is measured.
    pub(super) fn memory(self) -> Vec<ParamSpec> {
        match self {
            Self::Given(_) => Vec::new(),
            Self::Measured => vec![ParamSpec { name: "strength".into(), shape: vec![1] }],
        }
    }

    /// The strength at a step, measured there if it has not been.
    ///
    /// # Errors
    /// [`Error::Config`] where no strength displaces the outputs; what the physics may fail with.
    pub(super) fn at<T: Real>(
        self,
        experiment: &Experiment<'_, T>,
        memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<f64> {
        let Self::Measured = self else { return Ok(self.given().unwrap_or(1.0)) };
        let [kept] = memory else {
            return Err(Error::Shape("a method that measures its strength keeps one array".into()));
        };
        if kept[0] == T::ZERO {
            kept[0] = T::from_f64(measure(experiment, state)?.unwrap_or(0.0));
        }
        // Where no sample has an error every strength teaches the same: nothing.
        Ok(if kept[0] == T::ZERO { 1.0 } else { kept[0].to_f64() })
    }
}

/// The strength of a force that displaces outputs by [`FRACTION`] of the gradient of the loss;
/// `None` where no sample has a gradient, so that any strength teaches the same: nothing.
fn measure<T: Real>(
    experiment: &Experiment<'_, T>,
    state: &mut StepState<T>,
) -> Result<Option<f64>> {
    let mut strength = FRACTION;
    let units = experiment.system.output_units(experiment.params);
    // The largest strength that was too weak, and the smallest that was too strong.
    let (mut weak, mut strong) = (0.0f64, f64::INFINITY);
    for _ in 0..TRIES {
        let Some(response) = response(experiment, strength, &units, state)? else {
            return Ok(None);
        };
        let change = FRACTION / response;
        let found = change < NEAR && NEAR * change > 1.0;
        if response.is_finite() && response > 0.0 && (found || strong < NEAR * weak) {
            return Ok(Some(if found { strength * change } else { weak }));
        }
        if response < FRACTION {
            weak = weak.max(strength);
        } else {
            strong = strong.min(strength);
        }
        let change =
            if response.is_nan() { 1.0 / FARTHEST } else { change.clamp(1.0 / FARTHEST, FARTHEST) };
        strength *= change;
        // Where the response has kinks, proportion leads to and fro: the middle of what was found
        // does not.
        if weak > 0.0 && strong < f64::INFINITY {
            strength = (weak * strong).sqrt();
        }
    }
    Err(Error::Config(format!(
        "no strength of nudging displaces the outputs by {FRACTION} of their error: give the \
         method one, in units of the stiffness of the outputs"
    )))
}

/// The displacement of outputs over the gradient of the loss, for the softest sample; NaN where one
/// found no steady state; `None` where no sample has a gradient.
fn response<T: Real>(
    experiment: &Experiment<'_, T>,
    strength: f64,
    units: &[f64],
    state: &mut StepState<T>,
) -> Result<Option<f64>> {
    let StepState { states, workspace, cost, .. } = state;
    let phases = [strength, -strength]
        .map(|strength| Boundary::Forced(strength).into())
        .into_iter()
        .collect();
    let plan = PhasePlan { phases, measures_free: true, ..*experiment.plan };
    let experiment = Experiment { plan: &plan, ..*experiment };
    let batch = experiment.batch;
    cost.add(plan.rows_per_sample(), batch.len());
    experiment.run(&mut [], states, workspace)?;
    let found: Vec<(f64, f64)> =
        (0..batch.len()).filter_map(|i| softness(&experiment, states, units, i)).collect();
    // Beside others the displacement of a sample that is right already is one of rounding errors.
    let least =
        T::EPSILON.to_f64().sqrt() * found.iter().fold(0.0f64, |m, &(error, _)| m.max(error));
    let taught = found.into_iter().filter(|&(error, _)| error >= least);
    Ok(taught.map(|(_, softness)| softness).reduce(f64::max_magnitude))
}

/// The largest gradient of the loss by an output of sample `i`, and the displacement over it;
/// `None` where it has none.
fn softness<T: Real>(
    experiment: &Experiment<'_, T>,
    states: &States<T>,
    units: &[f64],
    i: usize,
) -> Option<(f64, f64)> {
    let n = states.layout().outputs().len();
    let (mut target, mut gradient) = (vec![T::ZERO; n], vec![T::ZERO; n]);
    let free = i * states.phases();
    if !states.outcomes[free].status.usable() || !experiment.batch.y.write(i, &mut target) {
        return None;
    }
    experiment.plan.loss.gradient(states.outputs(free), &target, &mut gradient);
    let largest = |values: &mut dyn Iterator<Item = T>| {
        let units = units.iter().copied().chain(std::iter::repeat(1.0));
        values.zip(units).fold(0.0, |m, (value, unit)| f64::max_magnitude(m, unit * value.to_f64()))
    };
    let error = largest(&mut gradient.into_iter());
    if error == 0.0 {
        return None;
    }
    let outputs = largest(&mut states.outputs(free).iter().copied());
    let wanted = match experiment.plan.loss {
        Loss::SquaredError => error,
        _ if outputs > 0.0 => error.min(outputs),
        _ => error,
    };
    if !states.usable(i) {
        return Some((error, f64::NAN));
    }
    // To either side: where a diode conducts outputs are stiff, and soft where it blocks.
    let displaced = (1..states.phases()).map(|p| {
        let forced = states.outputs(free + p).iter().zip(states.outputs(free));
        largest(&mut forced.map(|(&forced, &free)| forced - free))
    });
    Some((error, displaced.fold(0.0, f64::max_magnitude) / wanted))
}
