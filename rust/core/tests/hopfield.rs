//! Hopfield networks through the public interface: physics, gradients, reproducibility.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use num_complex::Complex;
use pnncore::batch::{Batch, Rows, Targets};
use pnncore::check::check_system;
use pnncore::draw::DrawIndex;
use pnncore::kernels::Real;
use pnncore::kernels::philox::{Philox, Purpose};
use pnncore::loss::Loss;
use pnncore::method::agnostic_equilibrium_propagation::AgnosticEquilibriumPropagation;
use pnncore::method::backprop::{Backprop, Model};
use pnncore::method::cmaes::CMAES;
use pnncore::method::contrastive_learning::ContrastiveLearning;
use pnncore::method::coordinate_descent::CoordinateDescent;
use pnncore::method::coupled_learning::{CoupledLearning, Side};
use pnncore::method::direct_feedback_alignment::DirectFeedbackAlignment;
use pnncore::method::equilibrium_propagation::{EquilibriumPropagation, Estimator, Sign};
use pnncore::method::evolution_strategy::EvolutionStrategy;
use pnncore::method::feedback_alignment::{Feedback, FeedbackAlignment};
use pnncore::method::finite_difference::FiniteDifference;
use pnncore::method::forward_forward::{ForwardForward, Goodness};
use pnncore::method::forward_gradient::ForwardGradient;
use pnncore::method::frequency_propagation::FrequencyPropagation;
use pnncore::method::genetic_algorithm::GeneticAlgorithm;
use pnncore::method::implicit_differentiation::ImplicitDifferentiation;
use pnncore::method::in_situ_backprop::InSituBackprop;
use pnncore::method::parameter_shift::ParameterShift;
use pnncore::method::physical_local_learning::PhysicalLocalLearning;
use pnncore::method::physics_aware::PhysicsAware;
use pnncore::method::recurrent_backprop::RecurrentBackprop;
use pnncore::method::ridge_readout::RidgeReadout;
use pnncore::method::spsa::SPSA;
use pnncore::method::surrogate_optimization::SurrogateOptimization;
use pnncore::method::{Method, MethodConfig, StepState, methods_for, variants};
use pnncore::optim::Optimizer;
use pnncore::params::Params;
use pnncore::plan::{Boundary, PhasePlan};
use pnncore::runtime::Runtime;
use pnncore::settling::{Order, OutputUpdate, Settling, Stop};
use pnncore::states::{States, Status};
use pnncore::system::hopfield::Activation;
use pnncore::system::layered::Layered;
use pnncore::system::stack::SurrogateDerivative;
use pnncore::system::{
    Abilities, Accumulation, Dynamics, Experiment, Reading, StateDerivatives, System, read_at_end,
    residual,
};
use pnncore::train::{Progress, StepBudget, TrainingTask, train, write_gradient};
use proptest::prelude::*;
use std::time::Duration;

fn network<T: Real>(
    sizes: &[usize],
    activation: Activation,
    gain: f64,
    seed: u64,
) -> (Layered, Vec<Vec<T>>) {
    let net = Layered::hopfield(sizes, activation).unwrap();
    let mut params: Vec<Vec<T>> =
        System::<T>::specs(&net).iter().map(|s| vec![T::ZERO; s.len()]).collect();
    let mut slices: Vec<&mut [T]> = params.iter_mut().map(Vec::as_mut_slice).collect();
    net.initialise(&Runtime::new(Some(1), 0).unwrap(), seed, gain, &mut slices);
    let random = Philox::new(seed, Purpose::Probe);
    for (i, bias) in params.iter_mut().skip(1).step_by(2).enumerate() {
        for (k, b) in bias.iter_mut().enumerate() {
            *b = T::from_f64(0.5 * random.normal(k as u64, 50 + i as u32));
        }
    }
    (net, params)
}

fn noise<T: Real>(n: usize, group: u32) -> Vec<T> {
    let random = Philox::new(9, Purpose::Probe);
    (0..n).map(|i| T::from_f64(random.uniform(i as u64, group))).collect()
}

fn shared<T: Real>(params: &[Vec<T>]) -> Params<'_, T> {
    Params::shared(params.iter().map(Vec::as_slice))
}

fn all_methods(settling: Settling) -> Vec<Method> {
    let loss = Loss::CrossEntropy;
    let propagation = |variant, sign, points| {
        EquilibriumPropagation { variant, beta: Some(0.3), sign, points }.with(loss, settling)
    };
    vec![
        propagation(Estimator::Centered, Sign::Positive, 8),
        propagation(Estimator::OneSided, Sign::Random, 8),
        propagation(Estimator::Holomorphic, Sign::Positive, 5),
        FrequencyPropagation { amplitude: Some(0.1), points: 8 }.with(loss, settling),
        AgnosticEquilibriumPropagation { beta: Some(0.1), softness: Some(0.01), relaxations: 2 }
            .with(loss, settling),
        ContrastiveLearning {}.with(loss, settling),
        CoupledLearning { eta: 0.2, variant: Side::Negative }.with(loss, settling),
        CoupledLearning { eta: 0.2, variant: Side::Centered }.with(loss, settling),
        ImplicitDifferentiation {}.with(loss, settling),
        RecurrentBackprop { steps: 7 }.with(loss, settling),
    ]
}

#[test]
fn conformance() {
    for (sizes, activation) in [
        (vec![4, 3], Activation::HardSigmoid),
        (vec![5, 8, 3], Activation::HardSigmoid),
        (vec![5, 8, 7, 3], Activation::Tanh),
        (vec![5, 8, 7, 6, 3], Activation::Logistic),
    ] {
        let (net, params) = network::<f64>(&sizes, activation, 0.7, 3);
        for finding in check_system(&net, &params, 1).unwrap() {
            assert!(finding.passed, "{sizes:?} {activation:?}: {finding:?}");
        }
    }
}

#[test]
fn conformance_finds_planted_errors() {
    // The check of the check: a network that reads its parameters in the wrong place must not pass.
    let (net, params) = network::<f64>(&[5, 8, 3], Activation::Tanh, 0.7, 3);
    struct Wrong(Layered, f64, f64);
    impl System<f64> for Wrong {
        fn abilities(&self) -> Abilities {
            System::<f64>::abilities(&self.0)
        }
        fn name(&self) -> &str {
            "Wrong"
        }
        fn takes(&self) -> pnncore::signal::Signal {
            System::<f64>::takes(&self.0)
        }
        fn layout(&self) -> pnncore::states::Layout {
            System::<f64>::layout(&self.0)
        }
        fn specs(&self) -> &[pnncore::params::ParamSpec] {
            System::<f64>::specs(&self.0)
        }
        fn workspace(&self) -> pnncore::system::Workspace {
            System::<f64>::workspace(&self.0)
        }
        fn as_dynamics(&self) -> Option<&dyn Dynamics<f64>> {
            Some(self)
        }
        fn as_state_derivatives(&self) -> Option<&dyn StateDerivatives<f64>> {
            Some(self)
        }
    }
    impl Dynamics<f64> for Wrong {
        fn run(
            &self,
            experiment: &Experiment<'_, f64>,
            readings: &mut [Reading<'_, f64>],
            states: &mut States<f64>,
            workspace: &mut pnncore::system::Workspace,
        ) -> pnncore::Result<()> {
            self.0.run(experiment, &mut [], states, workspace)?;
            read_at_end(self, experiment, readings, states, workspace)
        }

        fn read(
            &self,
            experiment: &Experiment<'_, f64>,
            states: &States<f64>,
            weights: &[Complex<f64>],
            workspace: &mut pnncore::system::Workspace,
            update: &mut pnncore::update::LocalUpdate<f64>,
        ) -> pnncore::Result<()> {
            let scaled: Vec<_> = weights.iter().map(|w| w * self.2).collect();
            self.0.read(experiment, states, &scaled, workspace, update)
        }
    }
    impl StateDerivatives<f64> for Wrong {
        fn energy(
            &self,
            params: &Params<'_, f64>,
            batch: &Batch<'_, f64>,
            states: &States<f64>,
            energy: &mut [f64],
        ) -> pnncore::Result<()> {
            self.0.energy(params, batch, states, energy)
        }
        fn state_gradient(
            &self,
            params: &Params<'_, f64>,
            batch: &Batch<'_, f64>,
            states: &States<f64>,
            gradient: &mut [f64],
        ) -> pnncore::Result<()> {
            self.0.state_gradient(params, batch, states, gradient)?;
            gradient.iter_mut().for_each(|g| *g *= self.1);
            Ok(())
        }
    }
    let failed = |state: f64, local: f64| -> Vec<String> {
        let findings = check_system(&Wrong(net.clone(), state, local), &params, 1).unwrap();
        findings
            .into_iter()
            .filter(|f| !f.passed)
            .map(|f| format!("{}: {}", f.check, f.message))
            .collect()
    };
    assert_eq!(failed(1.0, 1.0), Vec::<String>::new());
    assert!(failed(-1.0, 1.0)[0].contains("sign is wrong"));
    assert!(failed(2.0, 1.0)[0].contains("factor of 2"));
    assert!(
        failed(1.0, -1.0)
            .iter()
            .all(|f| f.contains("param_gradient") && f.contains("sign is wrong"))
    );
    assert!(failed(1.0, 0.5).iter().any(|f| f.contains("factor of 2")));
}

fn settle<T: Real>(
    net: &Layered,
    params: &[Vec<T>],
    x: &[T],
    y: &[T],
    beta: Option<f64>,
    settling: Settling,
    threads: usize,
) -> States<T> {
    let batch = Batch {
        x: Rows::all(x, System::<T>::inputs(net)),
        y: Targets::Values(Rows::all(y, System::<T>::outputs(net))),
    };
    let phases = beta.map(|b| Boundary::Nudged(b.into()));
    let plan = PhasePlan::from_free(Loss::SquaredError, phases, settling);
    let runtime = Runtime::new(Some(threads), 0).unwrap();
    let mut states = States::new(System::<T>::layout(net));
    let mut workspace = System::<T>::workspace(net);
    let (params, draw) = (shared(params), DrawIndex::of_inference(0));
    let experiment = Experiment::new(&runtime, net, &params, &batch, &plan, draw);
    experiment.run(&mut [], &mut states, &mut workspace).unwrap();
    states
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Each block moves to its minimum, so the energy never rises from one sweep to the next,
    /// nudged or not.
    #[test]
    fn energy_never_rises(
        sizes in prop::collection::vec(1usize..9, 2..6), gain in 0.1..4.0, seed in 0u64..1000,
        nudged in any::<bool>(),
        kind in 0usize..3,
    ) {
        let activation = [Activation::HardSigmoid, Activation::Tanh, Activation::Logistic][kind];
        let (net, params) = network::<f64>(&sizes, activation, gain, seed);
        let (x, y) = (noise(3 * sizes[0], 0), noise(3 * sizes[sizes.len() - 1], 1));
        let beta = 0.4;
        let mut last: Option<Vec<f64>> = None;
        for sweeps in 1..12 {
            let stop = if nudged { Stop::Sweeps(30, sweeps) } else { Stop::Sweeps(sweeps, 1) };
            let settling = Settling { stop, ..Settling::default() };
            let states =
                settle(&net, &params, &x, &y, nudged.then_some(beta), settling, 1).last_phase();
            let batch = Batch { x: Rows::all(&x, sizes[0]), y: Targets::None };
            let mut energy = vec![0.0; 3];
            net.energy(&shared(&params), &batch, &states, &mut energy).unwrap();
            for (r, e) in energy.iter_mut().enumerate() {
                if nudged {
                    let n = states.outputs(r).len();
                    *e +=
                        beta * Loss::SquaredError.value(states.outputs(r), &y[r * n..(r + 1) * n]);
                }
            }
            if let Some(last) = &last {
                for (now, before) in energy.iter().zip(last) {
                    prop_assert!(
                        *now <= before + 1e-11 * (1.0 + before.abs()),
                        "{before} -> {now}"
                    );
                }
            }
            last = Some(energy);
        }
    }

    /// Any number of threads, any shape, any method: the same bits.
    #[test]
    fn threads_do_not_change_bits(
        sizes in prop::collection::vec(1usize..40, 2..5), samples in 1usize..40, seed in 0u64..1000,
    ) {
        let (net, params) = network::<f32>(&sizes, Activation::Tanh, 0.7, seed);
        let (x, y) = (
            noise::<f32>(samples * sizes[0], 0),
            noise::<f32>(samples * sizes[sizes.len() - 1], 1),
        );
        let batch = Batch {
            x: Rows::all(&x, sizes[0]),
            y: Targets::Values(Rows::all(&y, sizes[sizes.len() - 1])),
        };
        for method in all_methods(Settling::default()) {
            let gradient = |threads| {
                let runtime = Runtime::new(Some(threads), 3).unwrap();
                runtime.enter(|| {
                    let (shared, mut state) =
                        (shared(&params), StepState::new(&net as &dyn System<f32>));
                    let protocol = method.protocol(&net as &dyn System<f32>).unwrap();
                    protocol
                        .step(
                            &protocol.experiment(&runtime, &net, &shared, &batch, 5),
                            &mut [],
                            &mut state,
                        )
                        .unwrap();
                    let mut gradient = vec![Vec::new(); params.len()];
                    write_gradient(&runtime, System::<f32>::specs(&net), &mut state, &mut gradient);
                    gradient
                })
            };
            let one = gradient(1);
            for threads in [2, 3, 8] {
                prop_assert_eq!(
                    &one,
                    &gradient(threads),
                    "{} with {} threads",
                    method.name(),
                    threads
                );
            }
        }
    }
}

/// Large enough that the work really is split (the property above stays under the threshold).
#[test]
fn threads_do_not_change_bits_of_training() {
    let sizes = [50, 301, 203, 10];
    let run = |threads: usize, calls: usize| {
        let (net, mut params) = network::<f32>(&sizes, Activation::HardSigmoid, 0.7, 1);
        let x = noise::<f32>(120 * 50, 0);
        let labels: Vec<i64> = (0..120).map(|i| i % 10).collect();
        let data = Batch { x: Rows::all(&x, 50), y: Targets::Labels(Rows::all(&labels, 1)) };
        let runtime = Runtime::new(Some(threads), 3).unwrap();
        let system: &dyn System<f32> = &net;
        let protocol = all_methods(Settling::default())[0].protocol(system).unwrap();
        let optimizer = Optimizer::SGD { momentum: 0.5, weight_decay: 1e-4 };
        let mut velocity: Vec<Vec<f32>> = params.iter().map(|p| vec![0.0; p.len()]).collect();
        let order: Vec<u64> = (0..120).rev().collect();
        runtime.enter(|| {
            let mut done = 0;
            while done < 3 {
                let task = TrainingTask {
                    system,
                    protocol: &protocol,
                    optimizer: &optimizer,
                    rates: &[0.1; 6],
                    data,
                    order: &order,
                    batch_size: 50,
                };
                let budget = StepBudget {
                    first: done,
                    before: 0,
                    steps: 3usize.div_ceil(calls),
                    time: Duration::MAX,
                    first_epoch: 0.0,
                };
                let mut values = Params::exclusive(params.iter_mut().map(Vec::as_mut_slice));
                let mut memory: Vec<&mut [f32]> =
                    velocity.iter_mut().map(Vec::as_mut_slice).collect();
                let mut progress = Progress::default();
                train(&runtime, task, budget, &mut values, &mut memory, &mut progress).unwrap();
                done += progress.steps as usize;
            }
        });
        (params, velocity)
    };
    let reference = run(1, 1);
    for threads in [1, 2, 3, 8] {
        for calls in [1, 3] {
            assert!(run(threads, calls) == reference, "{threads} threads, {calls} calls");
        }
    }
}

#[test]
fn orders_and_updates_share_the_fixed_point() {
    for sizes in [vec![6, 9, 4], vec![6, 9, 8, 4], vec![6, 20, 15]] {
        let (net, params) = network::<f64>(&sizes, Activation::HardSigmoid, 0.5, 2);
        let (x, y) = (noise(5 * 6, 0), noise(5 * sizes[sizes.len() - 1], 1));
        let settled = |order, output_update| {
            let settling = Settling {
                stop: Stop::Absolute(1e-13),
                max_sweeps: (5000, 5000),
                order,
                output_update,
            };
            settle(&net, &params, &x, &y, Some(0.3), settling, 1)
        };
        let reference = settled(Order::Asynchronous, OutputUpdate::Exact);
        assert!(reference.outcomes.iter().all(|o| o.status == Status::Converged));
        let batch = Batch {
            x: Rows::all(&x, 6),
            y: Targets::Values(Rows::all(&y, sizes[sizes.len() - 1])),
        };
        let boundary = Boundary::Nudged(0.3.into());
        let last = reference.last_phase();
        let rest =
            residual(&net, &shared(&params), &batch, Loss::SquaredError, boundary, &last).unwrap();
        assert!(rest.iter().all(|&r| r < 1e-12), "{rest:?}");
        for (order, update) in [
            (Order::Synchronous, OutputUpdate::Exact),
            (Order::Asynchronous, OutputUpdate::Explicit),
            (Order::Synchronous, OutputUpdate::Explicit),
        ] {
            let other = settled(order, update);
            for (a, b) in reference.values.iter().zip(other.values.iter()) {
                assert!((a - b).abs() < 1e-11, "{sizes:?} {order:?} {update:?}");
            }
        }
    }
}

#[test]
fn bad_rows_are_blank_and_contribute_nothing() {
    let (net, params) = network::<f64>(&[3, 5, 2], Activation::HardSigmoid, 0.7, 1);
    // The drives of one sample are not numbers; the others must not notice. (Whether a sum that
    // overflows becomes infinite, where units saturate, or NaN depends on how an instruction set
    // multiplies and adds.)
    let x = [vec![0.2, 0.4, 0.6], vec![f64::NAN, 1e308, 1e308], vec![0.5, 0.1, 0.9]].concat();
    let mut huge = params.clone();
    huge[0].iter_mut().for_each(|w| *w *= 1e10);
    let y = noise(3 * 2, 1);
    let states = settle(&net, &huge, &x, &y, Some(0.3), Settling::default(), 1);
    let statuses: Vec<_> = states.outcomes.iter().map(|o| o.status).collect();
    assert_eq!(statuses[2..4], [Status::Diverged; 2], "{statuses:?}");
    assert!(states.row(2).iter().chain(states.row(3)).all(|&s| s == 0.0));
    assert!(statuses.iter().enumerate().all(|(r, s)| r / 2 == 1 || s.usable()), "{statuses:?}");

    let unbounded = settle(&net, &params, &noise(3 * 3, 0), &y, Some(-1.0), Settling::default(), 1);
    assert!(unbounded.outcomes.iter().skip(1).step_by(2).all(|o| o.status == Status::Unbounded));
    assert!(unbounded.outcomes.iter().step_by(2).all(|o| o.status == Status::Converged));
}

/// What only motions have is refused by what settles: phases that turn round, and readings on the
/// way.
#[test]
fn a_network_that_settles_has_no_motion() {
    let (net, params) = network::<f64>(&[3, 4, 2], Activation::Tanh, 0.7, 1);
    let (x, y) = (noise(3 * 3, 0), noise(3 * 2, 1));
    let batch = Batch { x: Rows::all(&x, 3), y: Targets::Values(Rows::all(&y, 2)) };
    let (runtime, params, draw) =
        (Runtime::new(Some(1), 0).unwrap(), shared(&params), DrawIndex::of_step(0));
    let refused = |phase: Boundary, accumulation: Accumulation| {
        let settling = Settling::default();
        let plan = PhasePlan::from_free(Loss::SquaredError, [phase], settling);
        let experiment = Experiment::new(&runtime, &net, &params, &batch, &plan, draw);
        let mut states = States::new(System::<f64>::layout(&net));
        let (weights, mut update) =
            ([Complex::ONE, -Complex::ONE], pnncore::update::LocalUpdate::default());
        let mut readings = [Reading { accumulation, weights: &weights, update: &mut update }];
        experiment.run(&mut readings, &mut states, &mut System::<f64>::workspace(&net)).err()
    };
    let nudged = Boundary::Nudged(Complex::ONE * 0.1);
    assert_eq!(refused(nudged, Accumulation::Final), None);
    assert!(matches!(refused(nudged, Accumulation::Integral), Some(pnncore::Error::Capability(_))));
    assert!(matches!(
        refused(Boundary::Kicked(0.1), Accumulation::Final),
        Some(pnncore::Error::Capability(_))
    ));
}

#[test]
fn table_of_methods_is_true() {
    let mut methods = all_methods(Settling::default());
    fn with_loss(config: impl MethodConfig) -> Method {
        config.with(Loss::SquaredError, Settling::default())
    }
    let others = [
        with_loss(Backprop { model: Model::Twin, noise: 0.0, vaccination: 0.0 }),
        with_loss(PhysicsAware {}),
        with_loss(FeedbackAlignment { feedback: Feedback::Random }),
        with_loss(DirectFeedbackAlignment { slope: SurrogateDerivative::Twin }),
        with_loss(ForwardForward {
            classes: 2,
            goodness: Goodness::Squares,
            threshold: None,
            tau: None,
        }),
        with_loss(PhysicalLocalLearning { tau: 1.0 }),
        with_loss(FiniteDifference { epsilon: Some(0.1) }),
        with_loss(SPSA { epsilon: Some(0.1), directions: 1 }),
        with_loss(EvolutionStrategy { sigma: Some(0.1), directions: 1, adaptation: 0.0 }),
        with_loss(CoordinateDescent { epsilon: Some(0.1), coordinates: 1 }),
        with_loss(CMAES { sigma: Some(0.1), population: None }),
        with_loss(GeneticAlgorithm { population: 4, mutation: Some(0.1) }),
        with_loss(RidgeReadout { regularization: 0.1, forgetting: 1.0 }),
        with_loss(ParameterShift {}),
        with_loss(InSituBackprop { protocol: None }),
        with_loss(ForwardGradient { directions: 1 }),
        with_loss(SurrogateOptimization {
            hidden: 4,
            samples: 16,
            fits: 1,
            learning_rate: 0.01,
            exploration: Some(0.1),
            explorers: 1,
        }),
    ];
    methods.extend(others);
    for method in &methods {
        let name = method.name();
        assert!(variants().any(|variant| variant == (name, method.needs())), "{name}");
        for activation in [Activation::HardSigmoid, Activation::Tanh] {
            let (net, _) = network::<f32>(&[3, 4, 2], activation, 0.7, 1);
            let system: &dyn System<f32> = &net;
            let able = methods_for(system).contains(&name);
            assert_eq!(method.protocol(system).is_ok(), able, "{name} on {activation:?}");
        }
    }
    let (net, _) = network::<f32>(&[3, 4, 2], Activation::HardSigmoid, 0.7, 1);
    let error = methods[2].protocol(&net as &dyn System<f32>).unwrap_err().to_string();
    assert!(error.contains("CoupledLearning") && error.contains("smooth"), "{error}");
}

/// Extrapolated sweeps end where plain ones do, sooner: counted on a deep network with slow modes.
#[test]
fn secants_save_sweeps() {
    let sizes = [20, 40, 40, 5];
    let (net, params) = network::<f64>(&sizes, Activation::Tanh, 1.0, 3);
    let (x, y) = (noise(8 * 20, 0), noise(8 * 5, 1));
    let tolerance = 1e-9;
    let stopping = Settling {
        stop: Stop::Absolute(tolerance),
        max_sweeps: (5000, 5000),
        ..Settling::default()
    };
    let fast = settle(&net, &params, &x, &y, Some(0.3), stopping, 1);
    assert!(fast.outcomes.iter().all(|o| o.status == Status::Converged));
    let sweeps =
        |phase: usize| fast.outcomes.iter().skip(phase).step_by(2).map(|o| o.sweeps).max().unwrap();
    let plain = |free: u32, nudged: u32| {
        let fixed = Settling { stop: Stop::Sweeps(free, nudged), ..Settling::default() };
        settle(&net, &params, &x, &y, Some(0.3), fixed, 1)
    };
    let resting = |states: &States<f64>, phase: usize| {
        states.outcomes.iter().skip(phase).step_by(2).all(|o| o.change <= tolerance)
    };
    let (free, nudged) = (2 * sweeps(0), 2 * sweeps(1));
    assert!(!resting(&plain(free, 1), 0), "plain sweeps settle within {free}, too");
    assert!(
        !resting(&plain(1000, nudged), 1),
        "plain sweeps settle within {nudged} when nudged, too"
    );
    let slow = plain(3000, 3000);
    for (a, b) in fast.values.iter().zip(slow.values.iter()) {
        assert!((a - b).abs() < 1e-7, "{a} {b}");
    }
}
