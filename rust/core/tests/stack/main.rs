//! Stacks: gradients against differences, physics against closed forms, the same bits for any
//! number of threads.
#![allow(clippy::unwrap_used)]

use pnncore::Error;
use pnncore::batch::{Batch, Rows, Targets};
use pnncore::draw::DrawIndex;
use pnncore::kernels::philox::{Philox, Purpose};
use pnncore::kernels::{Level, Real};
use pnncore::loss::Loss;
use pnncore::method::backprop::{Backprop, Model};
use pnncore::method::cmaes::CMAES;
use pnncore::method::coordinate_descent::CoordinateDescent;
use pnncore::method::direct_feedback_alignment::DirectFeedbackAlignment;
use pnncore::method::evolution_strategy::EvolutionStrategy;
use pnncore::method::feedback_alignment::{Feedback, FeedbackAlignment};
use pnncore::method::finite_difference::FiniteDifference;
use pnncore::method::forward_forward::{ForwardForward, Goodness};
use pnncore::method::forward_gradient::ForwardGradient;
use pnncore::method::genetic_algorithm::GeneticAlgorithm;
use pnncore::method::parameter_shift::ParameterShift;
use pnncore::method::physics_aware::PhysicsAware;
use pnncore::method::ridge_readout::RidgeReadout;
use pnncore::method::spsa::SPSA;
use pnncore::method::surrogate_optimization::SurrogateOptimization;
use pnncore::method::{Method, MethodConfig, StepState};
use pnncore::optim::Optimizer;
use pnncore::params::ParamSpec;
use pnncore::params::Params;
use pnncore::plan::PhasePlan;
use pnncore::runtime::Runtime;
use pnncore::settling::Settling;
use pnncore::signal::Signal;
use pnncore::states::States;
use pnncore::system::stack::{
    BackwardRule, Carrier, DetectSpec, EncodeSpec, Entry, ForwardRecord, Function, Layer,
    LayerChoice, LayerContext, LayerSpec, Layers, MZIMeshSpec, MeshLayout, Parts, PendulaSpec,
    PlateSpec, PointwiseSpec, Propagation, Quantity, SecondHarmonicSpec, Site, Spec, SpeckleSpec,
    Stack, StackAt, Stage, SurrogateDerivative, TransistorSpec,
};
use pnncore::system::{Experiment, System};
use pnncore::train::{Progress, StepBudget, TrainingTask, train, write_gradient};
use std::time::Duration;

mod candidates;
mod drift;
mod kinds;
mod light;
mod noise;
mod physics;

use kinds::{kinds, linear, tanh};

fn stack<T: Real>(layers: &[LayerChoice], mismatch: f64, noise: f64) -> Stack<T> {
    let layers = layers.iter().cloned().map(Entry::from).collect();
    Spec { layers, noise, mismatch, seed: 3, numbered: true }.build_for().unwrap()
}

fn between(chain: &[LayerChoice], width: usize) -> Vec<LayerChoice> {
    [&[linear(5, 6)], chain, &[linear(width, 3)]].concat()
}

fn initial<T: Real>(stack: &Stack<T>) -> Vec<Vec<T>> {
    let mut params: Vec<Vec<T>> =
        stack.specs().iter().map(|spec| vec![T::ZERO; spec.len()]).collect();
    let runtime = Runtime::new(Some(1), 0).unwrap();
    stack.initialise(
        &runtime,
        7,
        1.0,
        &mut params.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(),
    );
    params
}

fn shared<T: Real>(params: &[Vec<T>]) -> Params<'_, T> {
    Params::shared(params.iter().map(Vec::as_slice))
}

struct Data<T> {
    x: Vec<T>,
    labels: Vec<i64>,
    width: usize,
}

impl<T: Real> Data<T> {
    fn new(samples: usize, width: usize) -> Self {
        let x = (0..samples * width).map(|k| T::from_f64((k as f64 * 0.731).sin() * 0.8)).collect();
        Self { x, labels: (0..samples as i64).map(|i| i % 3).collect(), width }
    }

    fn batch(&self) -> Batch<'_, T> {
        Batch { x: Rows::all(&self.x, self.width), y: Targets::Labels(Rows::all(&self.labels, 1)) }
    }
}

/// The gradient of a method, all parameters in a row.
fn method(config: impl MethodConfig) -> Method {
    config.with(Loss::CrossEntropy, Settling::default())
}

fn gradient<T: Real>(
    method: Method,
    stack: &Stack<T>,
    params: &[Vec<T>],
    data: &Data<T>,
    threads: usize,
) -> Vec<f64> {
    let protocol = method.protocol::<T>(stack).unwrap();
    let runtime = Runtime::new(Some(threads), 1).unwrap();
    let mut memory: Vec<Vec<T>> =
        protocol.memory(stack).iter().map(|spec| vec![T::ZERO; spec.len()]).collect();
    let mut memory: Vec<&mut [T]> = memory.iter_mut().map(Vec::as_mut_slice).collect();
    protocol.initialise(&runtime, stack, &mut memory);
    let (params, batch, mut state) = (shared(params), data.batch(), StepState::new(stack));
    let mut found = vec![Vec::new(); stack.specs().len()];
    runtime.enter(|| {
        protocol
            .step(
                &protocol.experiment(&runtime, stack, &params, &batch, 4),
                &mut memory,
                &mut state,
            )
            .unwrap();
        write_gradient(&runtime, stack.specs(), &mut state, &mut found);
    });
    found.into_iter().flatten().map(T::to_f64).collect()
}

const EXACT: Backprop = Backprop { model: Model::Hardware, noise: 0.0, vaccination: 0.0 };
const TWIN: Backprop = Backprop { model: Model::Twin, noise: 0.0, vaccination: 0.0 };

fn difference(a: &[f64], b: &[f64]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn gradients_of_all_layers_are_those_of_differences() {
    let data = Data::new(19, 5);
    for (kind, width) in kinds() {
        for mismatch in [0.0, 0.2] {
            let net = stack::<f64>(&between(&kind, width), mismatch, 0.0);
            let params = initial(&net);
            let exact = gradient(method(EXACT), &net, &params, &data, 1);
            let found =
                gradient(method(FiniteDifference { epsilon: Some(1e-5) }), &net, &params, &data, 1);
            assert!(exact.iter().any(|g| *g != 0.0));
            assert!(
                difference(&found, &exact) < 1e-7,
                "{kind:?} {mismatch}: {}",
                difference(&found, &exact)
            );
        }
    }
}

/// Slopes along directions are those that the exact gradient says: the forward gradient is made of
/// nothing else.
#[test]
fn forward_gradients_are_slopes_times_directions() {
    let data = Data::new(19, 5);
    for (kind, width) in kinds() {
        for mismatch in [0.0, 0.2] {
            let net = stack::<f64>(&between(&kind, width), mismatch, 0.0);
            let params = initial(&net);
            // At measured signals, as physics-aware training.
            let exact = gradient(method(PhysicsAware {}), &net, &params, &data, 1);
            let found =
                gradient(method(ForwardGradient { directions: 1 }), &net, &params, &data, 1);
            let direction = {
                let mut drawn = vec![0.0; exact.len()];
                let random = Runtime::new(Some(1), 1).unwrap().random(Purpose::Direction);
                DrawIndex::of_step(4).of(random).fill_normal(Level::get(), 0, 0, &mut drawn);
                drawn
            };
            let slope: f64 = exact.iter().zip(&direction).map(|(g, d)| g * d).sum();
            let wanted: Vec<f64> = direction.iter().map(|d| slope * d).collect();
            assert!(
                difference(&found, &wanted) < 1e-10,
                "{kind:?} {mismatch}: {}",
                difference(&found, &wanted)
            );
            for threads in [2, 3] {
                let other = gradient(
                    method(ForwardGradient { directions: 1 }),
                    &net,
                    &params,
                    &data,
                    threads,
                );
                assert_eq!(found, other);
            }
        }
    }
}

#[test]
fn physics_aware_training_is_backpropagation_where_the_twin_is_exact() {
    let data = Data::new(19, 5);
    for (kind, width) in kinds() {
        let net = stack::<f64>(&between(&kind, width), 0.0, 0.0);
        let params = initial(&net);
        let exact = gradient(method(EXACT), &net, &params, &data, 1);
        for rule in [method(PhysicsAware {}), method(TWIN)] {
            assert!(difference(&gradient(rule, &net, &params, &data, 1), &exact) < 1e-12);
        }
        // With a twin that is off, the twin's Jacobians at measured signals are nearer than those
        // at its own.
        let net = stack::<f64>(&between(&kind, width), 0.1, 0.0);
        let exact = gradient(method(EXACT), &net, &params, &data, 1);
        let aware = difference(&gradient(method(PhysicsAware {}), &net, &params, &data, 1), &exact);
        assert!(aware > 1e-6 && aware < 1.0, "{kind:?}: {aware}");
    }
}

#[test]
fn feedback_that_is_the_transpose_is_backpropagation() {
    let layers = [linear(5, 6), tanh(), linear(6, 6), tanh(), linear(6, 3)];
    let net = stack::<f64>(&layers, 0.0, 0.0);
    let (params, data) = (initial(&net), Data::new(19, 5));
    let exact = gradient(method(EXACT), &net, &params, &data, 1);
    let protocol =
        method(FeedbackAlignment { feedback: Feedback::Random }).protocol::<f64>(&net).unwrap();
    let mut turned: Vec<Vec<f64>> = [(2, 6, 6), (4, 6, 3)]
        .iter()
        .map(|&(k, rows, cols)| {
            (0..rows * cols).map(|e| params[k][e % rows * cols + e / rows]).collect()
        })
        .collect();
    let mut memory: Vec<&mut [f64]> = turned.iter_mut().map(Vec::as_mut_slice).collect();
    let runtime = Runtime::new(Some(1), 1).unwrap();
    let (values, batch, mut state) = (shared(&params), data.batch(), StepState::new(&net));
    protocol
        .step(&protocol.experiment(&runtime, &net, &values, &batch, 0), &mut memory, &mut state)
        .unwrap();
    let mut found = vec![Vec::new(); params.len()];
    write_gradient(&runtime, net.specs(), &mut state, &mut found);
    assert!(difference(&found.concat(), &exact) < 1e-12);
    // The last layer never depends on feedback.
    for rule in [
        method(FeedbackAlignment { feedback: Feedback::Random }),
        method(FeedbackAlignment { feedback: Feedback::SignSymmetric }),
        method(DirectFeedbackAlignment { slope: SurrogateDerivative::Twin }),
        method(DirectFeedbackAlignment { slope: SurrogateDerivative::Triangle }),
    ] {
        let found = gradient(rule.clone(), &net, &params, &data, 1);
        let last = found.len() - 21;
        assert!(difference(&found[last..], &exact[last..]) < 1e-12, "{rule:?}");
        assert!(difference(&found[..last], &exact[..last]) > 0.1, "{rule:?}");
    }
}

/// cos = sqrt(q / (q + D - 1)), as a root mean square.
#[test]
fn zeroth_order_estimates_are_as_far_off_as_they_should_be() {
    let net = stack::<f64>(&[linear(5, 6), tanh(), linear(6, 3)], 0.0, 0.0);
    let (params, data) = (initial(&net), Data::new(19, 5));
    let exact = gradient(method(EXACT), &net, &params, &data, 1);
    let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let runtime = Runtime::new(Some(1), 1).unwrap();
    for q in [1u32, 10, 57] {
        let rules = [
            method(SPSA { epsilon: Some(1e-4), directions: q }),
            method(EvolutionStrategy { sigma: Some(1e-4), directions: q, adaptation: 0.0 }),
        ];
        for rule in rules {
            let protocol = rule.protocol::<f64>(&net).unwrap();
            let (values, batch, mut state) = (shared(&params), data.batch(), StepState::new(&net));
            let (mut squares, mut mean, repeats) = (0.0, vec![0.0; exact.len()], 600);
            for step in 0..repeats {
                protocol
                    .step(
                        &protocol.experiment(&runtime, &net, &values, &batch, step),
                        &mut [],
                        &mut state,
                    )
                    .unwrap();
                let mut found = vec![Vec::new(); params.len()];
                write_gradient(&runtime, net.specs(), &mut state, &mut found);
                let found = found.concat();
                let dot: f64 = found.iter().zip(&exact).map(|(a, b)| a * b).sum();
                squares += (dot / norm(&found) / norm(&exact)).powi(2) / repeats as f64;
                mean.iter_mut().zip(&found).for_each(|(m, g)| *m += g / repeats as f64);
            }
            let expected = (f64::from(q) / (f64::from(q) + exact.len() as f64 - 1.0)).sqrt();
            // The mean square of a cosine has a spread of about sqrt(2 / repeats) of itself at q
            // = 1.
            let tolerance = if q == 1 { 0.1 } else { 0.05 };
            assert!(
                (squares.sqrt() / expected - 1.0).abs() < tolerance,
                "{rule:?} {} {expected}",
                squares.sqrt()
            );
            let spread = (exact.len() as f64 / f64::from(q) / repeats as f64).sqrt();
            assert!(difference(&mean, &exact) < 2.0 * spread, "{rule:?}: the mean is the gradient");
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for (kind, width) in kinds() {
        let net = stack::<f32>(&between(&kind, width), 0.1, 0.05);
        let (params, data) = (initial(&net), Data::new(83, 5));
        let rules = [
            method(EXACT),
            method(PhysicsAware {}),
            method(Backprop { model: Model::Twin, noise: 0.1, vaccination: 0.1 }),
            method(FeedbackAlignment { feedback: Feedback::Random }),
            method(DirectFeedbackAlignment { slope: SurrogateDerivative::Box }),
            method(SPSA { epsilon: Some(0.01), directions: 5 }),
            method(EvolutionStrategy { sigma: Some(0.1), directions: 70, adaptation: 0.0 }),
        ];
        for rule in rules {
            let one = gradient(rule.clone(), &net, &params, &data, 1);
            for threads in [2, 3, 8] {
                assert_eq!(
                    one,
                    gradient(rule.clone(), &net, &params, &data, threads),
                    "{kind:?} {rule:?}"
                );
            }
        }
    }
}

fn outputs(net: &Stack<f64>, params: &[Vec<f64>], x: &[f64], draw: u64) -> Vec<f64> {
    let runtime = Runtime::new(Some(1), 0).unwrap();
    let batch = Batch { x: Rows::all(x, net.inputs()), y: Targets::None };
    let plan = PhasePlan::free(Loss::SquaredError, Settling::default());
    let mut states = States::new(System::<f64>::layout(net));
    let mut workspace = net.workspace();
    let (params, draw) = (shared(params), DrawIndex::of_step(0).after(draw));
    let experiment = Experiment::new(&runtime, net, &params, &batch, &plan, draw);
    experiment.infer(&mut states, &mut workspace).unwrap();
    (0..batch.len()).flat_map(|r| states.outputs(r).to_vec()).collect()
}

/// Steps of training on all data at once; returns the loss before each.
fn train_on(
    config: impl MethodConfig,
    stack: &Stack<f64>,
    params: &mut [Vec<f64>],
    batch: Batch<'_, f64>,
    steps: usize,
) -> Vec<f64> {
    let protocol =
        config.with(Loss::SquaredError, Settling::default()).protocol::<f64>(stack).unwrap();
    let runtime = Runtime::new(Some(1), 1).unwrap();
    let mut memory: Vec<Vec<f64>> =
        protocol.memory(stack).iter().map(|spec| vec![0.0; spec.len()]).collect();
    let mut memory: Vec<&mut [f64]> = memory.iter_mut().map(Vec::as_mut_slice).collect();
    protocol.initialise(&runtime, stack, &mut memory);
    let order: Vec<u64> = (0..batch.len() as u64).collect();
    let optimizer = Optimizer::SGD { momentum: 0.0, weight_decay: 0.0 };
    let rates = vec![0.01; params.len()];
    let task = TrainingTask {
        system: stack,
        protocol: &protocol,
        optimizer: &optimizer,
        rates: &rates,
        data: batch,
        order: &order,
        batch_size: order.len(),
    };
    let mut values = Params::exclusive(params.iter_mut().map(Vec::as_mut_slice));
    (0..steps)
        .map(|step| {
            let budget = StepBudget {
                first: 0,
                before: step as u64,
                steps: 1,
                time: Duration::MAX,
                first_epoch: 0.0,
            };
            let mut progress = Progress::default();
            train(&runtime, task, budget, &mut values, &mut memory, &mut progress).unwrap();
            progress.loss / order.len() as f64
        })
        .collect()
}

#[test]
fn forward_forward_leaves_out_what_is_lost() {
    let net = stack::<f64>(&[linear(6, 6), tanh(), linear(6, 4)], 0.0, 0.0);
    let params = initial(&net);
    let mut data = Data::<f64>::new(10, 6);
    data.x[6] = f64::MAX;
    for goodness in [Goodness::Squares, Goodness::Cosine] {
        let rule = method(ForwardForward { classes: 3, goodness, threshold: None, tau: None });
        let mut large = params.clone();
        large[2].iter_mut().for_each(|w| *w *= 1e308);
        assert!(gradient(rule.clone(), &net, &large, &data, 1).iter().all(|g| g.is_finite()));
        let found = gradient(rule, &net, &params, &data, 1);
        assert!(found.iter().all(|g| g.is_finite()) && found.iter().any(|g| *g != 0.0));
    }
}

#[test]
fn phases_that_are_shifted_give_the_exact_gradient() {
    // Behind a layer without parameters.
    let light = SpeckleSpec { inputs: 6, outputs: 3, reference: 0.3 };
    let site = Site { layer: 1, arrives: Some(Signal::real(6)), mismatch: 0.2, seed: 3 };
    let before = PointwiseSpec { function: Function::Tanh }.build(&site).unwrap();
    let stages = vec![Stage::new(before, 0.0), Stage::new(light.build(&site).unwrap(), 0.0)];
    let net = Stack::<f64>::new(stages, 3, false, true).unwrap();
    let (params, data) = (initial(&net), Data::new(19, 6));
    let exact = gradient(method(EXACT), &net, &params, &data, 1);
    let found = gradient(method(ParameterShift {}), &net, &params, &data, 1);
    assert!(difference(&found, &exact) < 1e-10, "{}", difference(&found, &exact));
    for layers in [
        vec![linear(5, 3)],
        between(&[SpeckleSpec { inputs: 6, outputs: 6, reference: 0.0 }.into()], 6),
    ] {
        let net = stack::<f64>(&layers, 0.0, 0.0);
        let refused = method(ParameterShift {}).protocol::<f64>(&net);
        assert!(matches!(refused, Err(Error::Capability(_))));
    }
}

/// One pass over the data in batches is ridge regression on all of them.
#[test]
fn a_readout_is_ridge_regression() {
    let net = stack::<f64>(&[linear(5, 6), tanh(), linear(6, 3)], 0.0, 0.0);
    let (mut params, data) = (initial(&net), Data::<f64>::new(60, 5));
    let batch = data.batch();
    let hidden: Vec<f64> = {
        let first = stack::<f64>(&[linear(5, 6), tanh()], 0.0, 0.0);
        outputs(&first, &params[..2], &data.x, 0)
    };
    train_on(RidgeReadout { regularization: 0.1, forgetting: 1.0 }, &net, &mut params, batch, 1);
    // The gradient of the regression vanishes, without a penalty on the bias.
    for j in 0..3 {
        let residual = |i: usize| {
            let row = &hidden[6 * i..6 * i + 6];
            let wanted = if data.labels[i] == j as i64 { 1.0 } else { 0.0 };
            row.iter().enumerate().map(|(k, h)| h * params[2][3 * k + j]).sum::<f64>()
                + params[3][j]
                - wanted
        };
        for k in 0..6 {
            let slope: f64 = (0..60).map(|i| residual(i) * hidden[6 * i + k]).sum();
            assert!((slope + 0.1 * params[2][3 * k + j]).abs() < 1e-10);
        }
        assert!((0..60).map(residual).sum::<f64>().abs() < 1e-10);
    }
}

/// Samples whose outputs are not finite are blank, and teach nothing.
#[test]
fn rows_that_diverge_teach_nothing() {
    let net = stack::<f64>(
        &[linear(5, 6), SecondHarmonicSpec { inputs: 6, parameters: 2 }.into(), linear(15, 3)],
        0.0,
        0.0,
    );
    let (params, mut data) = (initial(&net), Data::new(8, 5));
    data.x[7] = 1e200;
    let found = gradient(method(EXACT), &net, &params, &data, 1);
    assert!(found.iter().all(|g| g.is_finite()) && found.iter().any(|g| *g != 0.0));
    let mut states = States::new(System::<f64>::layout(&net));
    let (runtime, values, batch) =
        (Runtime::new(Some(1), 0).unwrap(), shared(&params), data.batch());
    let plan = PhasePlan::free(Loss::CrossEntropy, Settling::default());
    let draw = DrawIndex::of_step(0);
    let experiment = Experiment::new(&runtime, &net, &values, &batch, &plan, draw);
    experiment.infer(&mut states, &mut System::<f64>::workspace(&net)).unwrap();
    let usable: Vec<bool> = states.outcomes.iter().map(|outcome| outcome.status.usable()).collect();
    assert_eq!(usable, [true, false, true, true, true, true, true, true]);
}
