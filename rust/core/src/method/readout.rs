//! Ridge regression of the readout: reservoir computing.

use faer::linalg::solvers::Solve;
use faer::{Mat, Side};
use pnncore_kernels::Real;
use pnncore_kernels::gemm::{Strided, multiply};
use pnncore_kernels::sparse::Dense;

use super::{Scratch, StepState};
use crate::batch::Batch;
use crate::draw::DrawIndex;
use crate::params::{ParamSpec, Params};
use crate::runtime::Runtime;
use crate::system::stack::{Propagation, Stack};
use crate::{Error, Result};

/// Numbers of features (one is the bias, where there is one) and outputs.
fn shape<T: Real>(stack: &Stack<T>) -> (usize, usize) {
    let Some(last) = stack.stages().last() else { return (0, 0) };
    (last.twin.inputs() + usize::from(bias(stack).is_some()), last.twin.outputs())
}

/// Which parameter the bias of the readout is. It may have others, which stay as they are.
fn bias<T: Real>(stack: &Stack<T>) -> Option<usize> {
    let last = stack.stages().last()?;
    last.twin.specs().iter().position(|spec| spec.name == "b").map(|k| last.params.start + k)
}

pub(super) fn memory<T: Real>(stack: &Stack<T>) -> Vec<ParamSpec> {
    let (features, outputs) = shape(stack);
    let array = |name: &str, width: usize| ParamSpec { name: name.into(), shape: vec![features, width] };
    vec![
        array("moments", features),
        array("moments_low", features),
        array("correlations", outputs),
        array("correlations_low", outputs),
    ]
}

/// Sums in double precision, whatever their elements are kept in: each is a number and what that is short of.
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

/// Adds the batch to the moments of the features that arrive at the readout, and solves for its weights: recursive least
/// squares. Without forgetting, one epoch is ridge regression on all samples.
#[allow(clippy::too_many_arguments, reason = "a step, and where it is made")]
pub(super) fn step<T: Real>(
    runtime: &Runtime,
    (ridge, forgetting): (f64, f64),
    stack: &Stack<T>,
    params: &Params<'_, T>,
    batch: &Batch<'_, T>,
    state: &mut StepState<'_, '_, T>,
    scratch: &mut Scratch<T>,
) -> Result<()> {
    let propagation = Propagation::<T>::of(&mut scratch.workspace)?;
    propagation.begin(stack, batch);
    propagation.forward(runtime, stack, &stack.hardware(), params, false, DrawIndex::of_step(state.step))?;
    propagation.report(&mut scratch.states);
    scratch.cost.add(1, batch.len());
    let ((features, outputs), last) = (shape(stack), stack.stages().len() - 1);
    let (weights_of, bias) = (stack.stages()[last].params.start, bias(stack));
    let inputs = stack.stages()[last].twin.inputs();
    let signals = if last > 0 { propagation.outputs(last - 1) } else { propagation.inputs() };
    let (mut rows, mut wanted) = (Vec::new(), Vec::new());
    let mut target = vec![T::ZERO; outputs];
    for (i, signals) in signals.chunks_exact(inputs).enumerate() {
        if signals.iter().all(|s| s.is_finite()) && batch.y.write(i, &mut target) {
            rows.extend(signals.iter().map(|s| s.to_f64()));
            rows.extend(std::iter::repeat_n(1.0, features - inputs));
            wanted.extend(target.iter().map(|y| y.to_f64()));
        }
    }
    let count = rows.len() / features;
    scratch.cost.operations += (count * features * (features + outputs) + features.pow(3) / 3) as u64;
    let [moments, moments_low, correlations, correlations_low] = &mut *state.memory else {
        return Err(Error::Shape("RidgeReadout keeps four arrays".into()));
    };
    let mut moments = Sums { high: moments, low: moments_low };
    let mut correlations = Sums { high: correlations, low: correlations_low };
    let turned = Strided { data: &rows, row: 1, column: features };
    let products = |right: &[f64], width: usize| {
        let mut found = vec![0.0; features * width];
        let shape = (features, count, width);
        multiply(runtime.level(), turned, Dense { data: right, stride: width }, shape, &mut found, width);
        found
    };
    moments.add(forgetting, &products(&rows, features));
    correlations.add(forgetting, &products(&wanted, outputs));
    let matrix = Mat::from_fn(features, features, |i, j| {
        moments.get(i * features + j) + if i == j && i < inputs { ridge } else { 0.0 }
    });
    let right = Mat::from_fn(features, outputs, |i, j| correlations.get(i * outputs + j));
    let singular = |_| Error::Config("the moments of the features are singular: raise regularization".into());
    let weights = matrix.llt(Side::Lower).map_err(singular)?.solve(&right);
    scratch.wanted.clear();
    scratch.wanted.extend((0..params.len()).map(|i| params.get(i).to_vec()));
    for i in 0..features {
        for j in 0..outputs {
            // The feature after the inputs is the constant one.
            let (k, place) = match bias.filter(|_| i == inputs) {
                Some(bias) => (bias, j),
                None => (weights_of, i * outputs + j),
            };
            scratch.wanted[k][place] = T::from_f64(weights[(i, j)]);
        }
    }
    scratch.found = super::StepResult::Change;
    Ok(())
}
