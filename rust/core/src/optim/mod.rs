//! Optimizers: how a gradient becomes a change of parameters.

use pnncore_kernels::{Real, shift_within};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::device::{CellArray, Change, Device, Store, UpdateKey};
use crate::params::{ParamSpec, Params};
use crate::precision::Precision;
use crate::runtime::Runtime;
use crate::settings::{at_least_zero, below_one, positive};
use crate::states::States;
use crate::system::System;
use crate::update::{LocalUpdate, Products, Term};

/// The configuration of an optimizer. Rates are passed per step, one per parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent: v <- momentum v + g + decay theta, theta <- theta - rate v.
    /// Without momentum the factored gradient goes straight into the parameters.
    SGD {
        /// The fraction of the velocity that is kept.
        momentum: f64,
        /// The pull of parameters towards zero.
        weight_decay: f64,
    },
    /// Adam (Kingma and Ba 2015), with decoupled weight decay (Loshchilov and Hutter 2019).
    Adam {
        /// The decay of the mean of gradients.
        beta1: f64,
        /// The decay of the mean of squared gradients.
        beta2: f64,
        /// What keeps the denominator from zero.
        epsilon: f64,
        /// The pull of parameters towards zero.
        weight_decay: f64,
    },
}

impl Optimizer {
    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config), naming the setting.
    pub fn check(&self) -> Result<()> {
        match *self {
            Self::SGD { momentum, weight_decay } => {
                below_one("momentum", momentum)?;
                at_least_zero("weight_decay", weight_decay)
            }
            Self::Adam { beta1, beta2, epsilon, weight_decay } => {
                below_one("beta1", beta1)?;
                below_one("beta2", beta2)?;
                at_least_zero("weight_decay", weight_decay)?;
                positive("epsilon", epsilon)
            }
        }
    }

    /// Names and shapes of the arrays that the optimizer keeps, zero at first: all of the first
    /// kind, one per parameter, before those of the second. Adam counts the steps in which the
    /// moments of a parameter moved: a rate of zero stops them, too.
    pub fn memory(&self, specs: &[ParamSpec]) -> Vec<ParamSpec> {
        let kinds: &[&str] = match self {
            Self::SGD { momentum: 0.0, .. } => &[],
            Self::SGD { .. } => &["velocity"],
            Self::Adam { .. } => &["mean", "square", "steps"],
        };
        let shape = |kind: &str, spec: &ParamSpec| {
            if kind == "steps" { vec![1] } else { spec.shape.clone() }
        };
        let of_kind = |kind: &&'static str| {
            let kind = *kind;
            specs.iter().map(move |spec| ParamSpec {
                name: format!("{kind}/{}", spec.name),
                shape: shape(kind, spec),
            })
        };
        kinds.iter().flat_map(of_kind).collect()
    }

    /// Changes all parameters by the gradient in `update`, which is used up. `memory` holds the
    /// arrays of [`Optimizer::memory`]; `cells` those of the tiles. `steps` steps were made before
    /// this one. Returns how many pulses came to cells.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if parameters were lent to read only.
    #[allow(
        clippy::too_many_arguments,
        reason = "the state of training, each piece owned elsewhere"
    )]
    pub fn step<T: Real>(
        &self,
        runtime: &Runtime,
        system: &dyn System<T>,
        states: &States<T>,
        update: &mut LocalUpdate<T>,
        params: &mut Params<'_, T>,
        memory: &mut [&mut [T]],
        cells: &mut [&mut [T]],
        gradient: &mut Vec<T>,
        rates: &[f64],
        steps: u64,
    ) -> Result<f64> {
        let (mut rest, mut pulses) = (cells, 0.0);
        for (i, &rate) in rates.iter().enumerate() {
            let own;
            let Store { device, cells, clip: deviations } = system.store(i);
            (own, rest) = rest.split_at_mut(cells.map_or(0, CellArray::kept));
            if rate == 0.0 {
                continue;
            }
            let values = params.get_mut(i)?;
            let mut turn = ParamStep {
                runtime,
                system,
                states,
                i,
                rate,
                memory: &mut *memory,
                gradient: &mut *gradient,
            };
            let Some(tile) = cells else {
                let kept = self.change(&mut turn, update, device.range(), values);
                // A device that only has a range is done with where that is kept.
                if !device.is_exact() || (!kept && *device != Device::IDEAL) {
                    device.write(runtime, i, steps + 1, values);
                }
                if let Some(deviations) = deviations {
                    clip(runtime, deviations, values);
                }
                continue;
            };
            let place = UpdateKey { parameter: i, step: steps, rate };
            let plain = *self == Self::SGD { momentum: 0.0, weight_decay: 0.0 };
            pulses += match &update.terms[i] {
                // Cells are not written in a low precision: layers of them have none.
                Term::Product(Products { blocks, precision: Precision::Full }) if plain => {
                    tile.update(runtime, place, Change::Product(blocks), values, own)
                }
                _ => {
                    let mut wanted = values.to_vec();
                    self.change(&mut turn, update, Device::IDEAL.range(), &mut wanted);
                    wanted.iter_mut().zip(&*values).for_each(|(wanted, &value)| *wanted -= value);
                    tile.update(runtime, place, Change::Dense(&wanted), values, own)
                }
            };
        }
        Ok(pulses)
    }

    /// Changes the values of one parameter as if any value could be stored. Returns whether they
    /// were kept within `range`.
    fn change<T: Real>(
        &self,
        turn: &mut ParamStep<'_, '_, T>,
        update: &mut LocalUpdate<T>,
        range: (T, T),
        values: &mut [T],
    ) -> bool {
        let ParamStep { runtime, system, states, i, rate, ref mut memory, ref mut gradient } =
            *turn;
        let (spec, anything) = (&system.specs()[i], Device::IDEAL.range());
        match *self {
            Self::SGD { momentum: 0.0, weight_decay } => {
                if weight_decay > 0.0 {
                    let keep = T::from_f64(1.0 - rate * weight_decay);
                    values.iter_mut().for_each(|v| *v *= keep);
                }
                update.apply(runtime, states, i, spec, values, -rate, range);
                return true;
            }
            Self::SGD { momentum, weight_decay } => {
                let velocity = &mut *memory[i];
                let keep = T::from_f64(momentum);
                velocity.iter_mut().for_each(|v| *v *= keep);
                update.apply(runtime, states, i, spec, velocity, 1.0, anything);
                let (decay, rate) = (T::from_f64(weight_decay), T::from_f64(rate));
                for (value, v) in values.iter_mut().zip(velocity.iter_mut()) {
                    *v += decay * *value;
                    *value -= rate * *v;
                }
            }
            Self::Adam { beta1, beta2, epsilon, weight_decay } => {
                gradient.clear();
                gradient.resize(values.len(), T::ZERO);
                update.apply(runtime, states, i, spec, gradient, 1.0, anything);
                let n = system.specs().len();
                let (means, rest) = memory.split_at_mut(n);
                let (squares, counts) = rest.split_at_mut(n);
                let t = counts[i][0].to_f64() + 1.0;
                counts[i][0] = T::from_f64(t);
                let step = T::from_f64(rate / (1.0 - beta1.powf(t)));
                let unbias = T::from_f64(1.0 / (1.0 - beta2.powf(t)).sqrt());
                let keep = T::from_f64(1.0 - rate * weight_decay);
                let (b1, b2, epsilon) =
                    (T::from_f64(beta1), T::from_f64(beta2), T::from_f64(epsilon));
                let moments = means[i].iter_mut().zip(squares[i].iter_mut());
                for ((value, &g), (mean, square)) in
                    values.iter_mut().zip(gradient.iter()).zip(moments)
                {
                    *mean = b1 * *mean + (T::ONE - b1) * g;
                    *square = b2 * *square + (T::ONE - b2) * g * g;
                    *value = *value * keep - step * *mean / (square.sqrt() * unbias + epsilon);
                }
            }
        }
        false
    }
}

/// The turn of one parameter in a step.
struct ParamStep<'a, 'b, T: Real> {
    runtime: &'a Runtime,
    system: &'a dyn System<T>,
    states: &'a States<T>,
    i: usize,
    rate: f64,
    memory: &'a mut [&'b mut [T]],
    gradient: &'a mut Vec<T>,
}

/// Keeps values within so many of their standard deviations.
fn clip<T: Real>(runtime: &Runtime, deviations: f64, values: &mut [T]) {
    let n = values.len() as f64;
    let mean = values.iter().map(|v| v.to_f64()).sum::<f64>() / n;
    let variance = values.iter().map(|v| (v.to_f64() - mean).powi(2)).sum::<f64>() / n;
    let bound = T::from_f64(deviations * variance.sqrt());
    shift_within(runtime.level(), &[], T::ZERO, T::ZERO, (-bound, bound), values);
}
