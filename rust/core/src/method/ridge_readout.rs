//! Ridge regression of the readout: reservoir computing, trained by recursive least squares.
//!
//! Without forgetting, one epoch is ridge regression on all samples.

use faer::linalg::solvers::Solve;
use faer::{Mat, Side};
use pnncore_kernels::Real;
use pnncore_kernels::gemm::{Dense, Strided, multiply};
use serde::Deserialize;

use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::params::ParamSpec;
use crate::settings::{at_least_zero, fraction};
use crate::settling::Settling;
use crate::system::stack::{Layers, Propagation, Role, Stack};
use crate::system::{Abilities, Experiment, System};
use crate::{Error, Result};

/// Ridge regression of the last linear layer, batch by batch.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RidgeReadout {
    /// What is added to the squares of features.
    pub regularization: f64,
    /// By what earlier batches are multiplied.
    pub forgetting: f64,
}

impl MethodConfig for RidgeReadout {
    const NAME: &'static str = "RidgeReadout";
    const VARIANTS: &'static [(&'static str, Abilities)] =
        &[(Self::NAME, Abilities::LINEAR_READOUT)];
    const TAKES_LOSS: bool = false;

    fn check(&self, _settling: &Settling) -> Result<()> {
        at_least_zero("regularization", self.regularization)?;
        fraction("forgetting", self.forgetting)
    }

    fn compile<T: Real>(&self, _setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        Ok(Box::new(*self))
    }
}

/// The last layer of a stack.
struct Readout {
    inputs: usize,
    /// Inputs, and one that is constant where there is a bias.
    features: usize,
    outputs: usize,
    /// Which parameter the weights are.
    weights: usize,
    /// Which parameter the bias is. There may be others, which stay as they are.
    bias: Option<usize>,
}

impl Readout {
    fn of<T: Real>(stack: &Stack<T>) -> Self {
        let Some(last) = stack.stages().last() else {
            return Self { inputs: 0, features: 0, outputs: 0, weights: 0, bias: None };
        };
        let has_bias = last.twin().role() == Role::LinearMap { bias: true };
        let bias = has_bias.then_some(last.params.start + 1);
        let inputs = last.twin().inputs();
        let features = inputs + usize::from(bias.is_some());
        Self { inputs, features, outputs: last.twin().outputs(), weights: last.params.start, bias }
    }
}

/// Sums in double precision, whatever their elements are kept in: each is a number and what that is
/// short of.
struct Sums<'a, T> {
    high: &'a mut [T],
    low: &'a mut [T],
}

impl<T: Real> Sums<'_, T> {
    fn get(&self, k: usize) -> f64 {
        self.high[k].to_f64() + self.low[k].to_f64()
    }

    /// sum = keep sum + added.
    fn add(&mut self, keep: f64, added: &[f64]) {
        for (k, added) in added.iter().enumerate() {
            let sum = keep * self.get(k) + added;
            self.high[k] = T::from_f64(sum);
            self.low[k] = T::from_f64(sum - self.high[k].to_f64());
        }
    }
}

/// The features of usable samples, and their targets, row by row.
fn features<T: Real>(
    experiment: &Experiment<'_, T>,
    stack: &Stack<T>,
    readout: &Readout,
    propagation: &Propagation<T>,
) -> (Vec<f64>, Vec<f64>) {
    let before = stack.stages().len() - 1;
    let signals = if before > 0 { propagation.outputs(before - 1) } else { propagation.inputs() };
    let (mut rows, mut wanted) = (Vec::new(), Vec::new());
    let mut target = vec![T::ZERO; readout.outputs];
    for (i, signals) in signals.chunks_exact(readout.inputs).enumerate() {
        if signals.iter().all(|s| s.is_finite()) && experiment.batch.y.write(i, &mut target) {
            rows.extend(signals.iter().map(|s| s.to_f64()));
            rows.extend(std::iter::repeat_n(1.0, readout.features - readout.inputs));
            wanted.extend(target.iter().map(|y| y.to_f64()));
        }
    }
    (rows, wanted)
}

impl RidgeReadout {
    /// The weights of the features that solve the normal equations; that of the constant one is
    /// not regularised.
    fn solve<T: Real>(
        &self,
        moments: &Sums<'_, T>,
        correlations: &Sums<'_, T>,
        inputs: usize,
        (features, outputs): (usize, usize),
    ) -> Result<Mat<f64>> {
        let matrix = Mat::from_fn(features, features, |i, j| {
            let ridge = if i == j && i < inputs { self.regularization } else { 0.0 };
            moments.get(i * features + j) + ridge
        });
        let right = Mat::from_fn(features, outputs, |i, j| correlations.get(i * outputs + j));
        let singular = |_| {
            Error::Config("the moments of the features are singular: raise regularization".into())
        };
        Ok(matrix.llt(Side::Lower).map_err(singular)?.solve(&right))
    }
}

impl<T: Real> CompiledMethod<T> for RidgeReadout {
    fn memory(&self, system: &dyn System<T>) -> Vec<ParamSpec> {
        let Some(stack) = system.as_stack() else { return Vec::new() };
        let Readout { features, outputs, .. } = Readout::of(stack);
        let array = |name: &str, width: usize| ParamSpec {
            name: name.into(),
            shape: vec![features, width],
        };
        vec![
            array("moments", features),
            array("moments_low", features),
            array("correlations", outputs),
            array("correlations_low", outputs),
        ]
    }

    fn writes_memory(&self) -> bool {
        true
    }

    fn kept(&self, system: &dyn System<T>, _samples: usize) -> u128 {
        let Some(stack) = system.as_stack() else { return 0 };
        let Readout { inputs, outputs, .. } = Readout::of(stack);
        let features = inputs as u128 + 1;
        features.saturating_mul(6 * (features + outputs as u128))
    }

    /// Adds the batch to the moments of the features that arrive at the readout, and solves for its
    /// weights.
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let Experiment { runtime, params, batch, draw, .. } = *experiment;
        let stack = experiment.stack()?;
        let propagation = Propagation::<T>::of(&mut state.workspace)?;
        propagation.begin(stack, batch);
        propagation.forward(experiment.at(stack), Layers::Hardware, false, draw)?;
        propagation.report(&mut state.states);
        state.cost.add(1, batch.len());
        let readout = Readout::of(stack);
        let (rows, wanted) = features(experiment, stack, &readout, propagation);
        let Readout { inputs, features, outputs, .. } = readout;
        let count = rows.len() / features;
        state.cost.operations +=
            (count * features * (features + outputs) + features.pow(3) / 3) as u64;
        let [moments, moments_low, correlations, correlations_low] = memory else {
            return Err(Error::Shape("RidgeReadout keeps four arrays".into()));
        };
        let mut moments = Sums { high: moments, low: moments_low };
        let mut correlations = Sums { high: correlations, low: correlations_low };
        let turned = Strided { data: &rows, row: 1, column: features };
        let products = |right: &[f64], width: usize| {
            let mut found = vec![0.0; features * width];
            let (shape, right) = ((features, count, width), Dense { data: right, stride: width });
            multiply(runtime.level(), turned, right, shape, &mut found, width);
            found
        };
        moments.add(self.forgetting, &products(&rows, features));
        correlations.add(self.forgetting, &products(&wanted, outputs));
        let solution = self.solve(&moments, &correlations, inputs, (features, outputs))?;
        state.wanted.clear();
        state.wanted.extend((0..params.len()).map(|i| params.get(i).to_vec()));
        for (i, j) in (0..features).flat_map(|i| (0..outputs).map(move |j| (i, j))) {
            // The feature after the inputs is the constant one.
            let (k, place) = match readout.bias.filter(|_| i == inputs) {
                Some(bias) => (bias, j),
                None => (readout.weights, i * outputs + j),
            };
            state.wanted[k][place] = T::from_f64(solution[(i, j)]);
        }
        Ok(StepResult::Change)
    }
}
