//! Surrogate optimization: a model of the outputs is fitted while the system is trained, and asked
//! for the gradient.

use pnncore_kernels::philox::Purpose;
use pnncore_kernels::watch::{poll, polled};
use pnncore_kernels::{Real, add_scaled};
use serde::Deserialize;

use super::candidates::{distance, flatten};
use super::{CompiledMethod, MethodConfig, Setup, StepResult, StepState};
use crate::Result;
use crate::batch::{Batch, Rows, Targets};
use crate::loss::Loss;
use crate::optim::Optimizer;
use crate::params::{ParamSpec, Params, cut, elements};
use crate::runtime::Runtime;
use crate::settings::{at_least, positive};
use crate::settling::Settling;
use crate::states::States;
use crate::system::stack::{
    BackwardRule, Entry, Function, Layers, LinearSpec, PointwiseSpec, Propagation, Spec, Stack,
    StackAt,
};
use crate::system::{Abilities, Experiment, System};
use crate::update::LocalUpdate;

/// Samples of a step of fitting.
const FITTED: usize = 64;

/// What the model is fitted with.
const ADAM: Optimizer =
    Optimizer::Adam { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.0 };

/// Arrays that the optimizer keeps per parameter of the model.
const MOMENTS: usize = 3;

/// Surrogate optimization.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SurrogateOptimization {
    /// Units of each of the two hidden layers of the model.
    pub hidden: u32,
    /// Measured samples that are kept to fit it to.
    pub samples: u32,
    /// Steps of fitting per step.
    pub fits: u32,
    /// The rate of fitting.
    pub learning_rate: f64,
    /// The standard deviation of what is added to parameters to see what they do. `None`: a usual
    /// one, where parameters have no units.
    pub exploration: Option<f64>,
    /// Passes per step with such parameters, besides the one with the present ones.
    pub explorers: u32,
}

impl MethodConfig for SurrogateOptimization {
    const NAME: &'static str = "SurrogateOptimization";
    const VARIANTS: &'static [(&'static str, Abilities)] = &[(Self::NAME, Abilities::OUTPUTS)];

    fn check(&self, _settling: &Settling) -> Result<()> {
        at_least("hidden", self.hidden, 1)?;
        at_least("samples", self.samples, 1)?;
        at_least("fits", self.fits, 1)?;
        at_least("explorers", self.explorers, 1)?;
        positive("learning_rate", self.learning_rate)?;
        positive("exploration", self.exploration.unwrap_or(1.0))
    }

    fn compile<T: Real>(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        Ok(Box::new(Surrogate {
            hidden: self.hidden as usize,
            samples: self.samples as usize,
            fits: self.fits as usize,
            learning_rate: self.learning_rate,
            exploration: distance(Self::NAME, "exploration", self.exploration, 0.2, setup.system)?,
            explorers: self.explorers as usize,
        }))
    }
}

/// The method, compiled.
#[derive(Debug)]
struct Surrogate {
    hidden: usize,
    samples: usize,
    fits: usize,
    learning_rate: f64,
    exploration: f64,
    explorers: usize,
}

impl<T: Real> CompiledMethod<T> for Surrogate {
    /// The parameters of the model, their moments, samples (inputs, then outputs), and how many
    /// there are.
    fn memory(&self, system: &dyn System<T>) -> Vec<ParamSpec> {
        let Ok(net) = self.of(system) else { return Vec::new() };
        let named = |kind: &'static str| {
            net.specs().iter().map(move |spec| ParamSpec {
                name: format!("{kind}/{}", spec.name),
                ..spec.clone()
            })
        };
        let mut specs: Vec<ParamSpec> =
            named("surrogate").chain(ADAM.memory(net.specs())).collect();
        for (name, width) in [("inputs", net.inputs()), ("outputs", net.outputs())] {
            specs.push(ParamSpec { name: name.into(), shape: vec![self.samples, width] });
        }
        specs.push(ParamSpec { name: "count".into(), shape: vec![1] });
        specs
    }

    fn writes_memory(&self) -> bool {
        true
    }

    fn initialise(&self, runtime: &Runtime, system: &dyn System<T>, memory: &mut [&mut [T]]) {
        let Ok(net) = self.of(system) else { return };
        let seed = runtime.random(Purpose::Initialise).words(0, u32::MAX)[0];
        net.initialise(runtime, u64::from(seed), 1.0, &mut memory[..net.specs().len()]);
    }

    fn kept(&self, system: &dyn System<T>, samples: usize) -> u128 {
        let width =
            elements(system.specs()).saturating_add((system.inputs() + system.outputs()) as u128);
        let hidden = self.hidden as u128;
        let rows = self.samples as u128 + self.explorers as u128 * samples as u128;
        width.saturating_mul(rows + 4 * hidden).saturating_add(4 * hidden * hidden)
    }

    /// Measures with the present parameters and with some around, fits, and leaves the gradient of
    /// the loss through the model's Jacobian at the measured outputs.
    fn step(
        &self,
        experiment: &Experiment<'_, T>,
        memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<StepResult> {
        let Experiment { runtime, system, batch, .. } = *experiment;
        let net = self.of(system)?;
        let base = flatten(experiment.params);
        self.measure(experiment, &base, memory, state)?;
        let count = net.specs().len();
        let (model, samples) = memory.split_at_mut(count * (1 + MOMENTS));
        let (model, moments) = model.split_at_mut(count);
        let mut propagation = Propagation::default();
        self.fit(experiment, &net, model, moments, samples, &mut propagation)?;
        let model = Params::shared(model.iter().map(|array| &**array));
        let rows: Vec<T> = polled(batch.len(), net.inputs())
            .flat_map(|i| batch.x.row(i).iter().chain(&base))
            .copied()
            .collect();
        let inputs = Batch { x: Rows::all(&rows, net.inputs()), y: Targets::None };
        let errors: Vec<T> =
            experiment.errors(&state.states)?.into_iter().map(T::from_f64).collect();
        let at = StackAt { runtime, stack: &net, params: &model, memory: &[] };
        propagation.vjp(at, &inputs, &errors, &mut LocalUpdate::default())?;
        let mut gradient = vec![T::ZERO; base.len()];
        for row in propagation.input_errors().chunks_exact(net.inputs()) {
            poll(row.len());
            add_scaled(runtime.level(), &row[system.inputs()..], T::ONE, &mut gradient);
        }
        state.cost.operations += net.operations() * 3 * (FITTED * self.fits + batch.len()) as u64;
        Ok(state.found_gradient(cut(system.specs(), &gradient)))
    }
}

impl Surrogate {
    /// The model: from inputs and parameters, side by side, to outputs.
    fn network<T: Real>(&self, inputs: usize, outputs: usize) -> Result<Stack<T>> {
        let linear = |inputs, outputs| Entry::from(LinearSpec::new(inputs, outputs, true));
        let tanh = || Entry::from(PointwiseSpec { function: Function::Tanh });
        let layers = vec![
            linear(inputs, self.hidden),
            tanh(),
            linear(self.hidden, self.hidden),
            tanh(),
            linear(self.hidden, outputs),
        ];
        Spec { layers, noise: 0.0, mismatch: 0.0, seed: 0, numbered: true }.build_for()
    }

    fn of<T: Real>(&self, system: &dyn System<T>) -> Result<Stack<T>> {
        let parameters: usize = system.specs().iter().map(ParamSpec::len).sum();
        self.network(system.inputs() + parameters, system.outputs())
    }

    /// Runs the batch, and keeps what was measured.
    fn measure<T: Real>(
        &self,
        experiment: &Experiment<'_, T>,
        base: &[T],
        memory: &mut [&mut [T]],
        state: &mut StepState<T>,
    ) -> Result<()> {
        let Experiment { runtime, system, batch, draw, .. } = *experiment;
        let StepState { states, workspace, cost, .. } = state;
        let random = runtime.random(Purpose::Direction);
        let mut around = States::new(system.layout());
        let mut drawn = vec![T::ZERO; base.len()];
        // Kept when all have been measured: a step that fails in between leaves no trace.
        let (width_in, width_out) = (system.inputs() + base.len(), system.outputs());
        let (mut seen, mut found) = (Vec::new(), Vec::new());
        for c in 0..=self.explorers as u64 {
            let mut values = base.to_vec();
            let states = if c == 0 { &mut *states } else { &mut around };
            if c > 0 {
                draw.after(c).of(random).fill_normal(runtime.level(), 0, 0, &mut drawn);
                add_scaled(runtime.level(), &drawn, T::from_f64(self.exploration), &mut values);
                experiment.keep_within(&mut values);
            }
            let params = Params::shared(cut(system.specs(), &values));
            Experiment { params: &params, draw: draw.after(c), ..*experiment }
                .infer(states, workspace)?;
            cost.add(1, batch.len());
            for i in (0..batch.len()).filter(|&i| states.outcomes[i].status.usable()) {
                poll(2 * width_in);
                seen.extend_from_slice(batch.x.row(i));
                seen.extend_from_slice(&values);
                found.extend_from_slice(states.outputs(i));
            }
        }
        let [.., inputs, outputs, count] = memory else { return Ok(()) };
        for (seen, found) in seen.chunks_exact(width_in).zip(found.chunks_exact(width_out)) {
            let place = count[0].to_f64() as usize % self.samples;
            inputs[place * width_in..(place + 1) * width_in].copy_from_slice(seen);
            outputs[place * width_out..(place + 1) * width_out].copy_from_slice(found);
            // Counted so that single precision tells all numbers apart.
            let next = count[0].to_f64() + 1.0;
            count[0] = T::from_f64(if next < 2.0 * self.samples as f64 {
                next
            } else {
                next - self.samples as f64
            });
        }
        Ok(())
    }

    /// Fits the model to samples that are drawn from those that are kept.
    fn fit<T: Real>(
        &self,
        experiment: &Experiment<'_, T>,
        net: &Stack<T>,
        model: &mut [&mut [T]],
        moments: &mut [&mut [T]],
        samples: &[&mut [T]],
        propagation: &mut Propagation<T>,
    ) -> Result<()> {
        let [inputs, outputs, count] = samples else { return Ok(()) };
        let filled = (count[0].to_f64() as usize).min(self.samples) as u64;
        if filled == 0 {
            return Ok(());
        }
        let Experiment { runtime, draw, .. } = *experiment;
        let backward_rule = BackwardRule::of(Layers::Twin, true);
        let random = runtime.random(Purpose::Method);
        let (mut update, mut gradient) = (LocalUpdate::default(), Vec::new());
        let mut states = States::new(net.layout());
        let rates = vec![self.learning_rate; net.specs().len()];
        for k in 0..self.fits as u64 {
            let at = draw.step() * self.fits as u64 + k;
            let picked: Vec<u64> = (0..FITTED as u64)
                .map(|i| random.below(filled, at * FITTED as u64 + i, 1))
                .collect();
            let batch = Batch {
                x: Rows::all(inputs, net.inputs()).pick(&picked),
                y: Targets::Values(Rows::all(outputs, net.outputs()).pick(&picked)),
            };
            let mut params = Params::exclusive(model.iter_mut().map(|array| &mut **array));
            propagation.begin(net, &batch);
            let place = StackAt { runtime, stack: net, params: &params, memory: &[] };
            propagation.pass(place, Layers::Twin, true, |_| 0.0, random)?;
            propagation.report(&mut states);
            propagation.seed_output_errors(Loss::SquaredError, &batch.y);
            propagation.backward(place, &backward_rule, &mut update)?;
            ADAM.step(
                runtime,
                net,
                &states,
                &mut update,
                &mut params,
                moments,
                &mut [],
                &mut gradient,
                &rates,
                at,
            )?;
        }
        Ok(())
    }
}
