//! Deep resistive networks through the public interface: physics, gradients, devices,
//! reproducibility.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use pnncore::batch::{Batch, Rows, Targets};
use pnncore::check::check_system;
use pnncore::device::Device;
use pnncore::draw::DrawIndex;
use pnncore::kernels::Real;
use pnncore::kernels::philox::{Philox, Purpose};
use pnncore::loss::Loss;
use pnncore::method::equilibrium_propagation::{EquilibriumPropagation, Estimator, Sign};
use pnncore::method::implicit_differentiation::ImplicitDifferentiation;
use pnncore::method::{Method, MethodConfig, StepState};
use pnncore::optim::Optimizer;
use pnncore::params::Params;
use pnncore::plan::{Boundary, PhasePlan};
use pnncore::runtime::Runtime;
use pnncore::settling::{Settling, Stop};
use pnncore::states::{States, Status};
use pnncore::system::layered::Layered;
use pnncore::system::{Experiment, StateDerivatives, System, residual};
use pnncore::train::{Progress, StepBudget, TrainingTask, train, write_gradient};
use proptest::prelude::*;
use std::time::Duration;

const CONDUCTANCES: Device = Device { lower: Some(0.0), ..Device::IDEAL };

fn runtime(threads: usize) -> Runtime {
    Runtime::new(Some(threads), 3).unwrap()
}

fn network<T: Real>(sizes: &[usize], input_gain: f64, seed: u64) -> (Layered, Vec<Vec<T>>) {
    let net = Layered::resistive(sizes, input_gain, CONDUCTANCES).unwrap();
    let mut params: Vec<Vec<T>> =
        System::<T>::specs(&net).iter().map(|s| vec![T::ZERO; s.len()]).collect();
    net.initialise(
        &runtime(1),
        seed,
        1.0,
        &mut params.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(),
    );
    let random = Philox::new(seed, Purpose::Probe);
    for (i, sources) in params.iter_mut().skip(1).step_by(2).enumerate() {
        for (k, b) in sources.iter_mut().enumerate() {
            *b = T::from_f64(0.3 * random.normal(k as u64, 50 + i as u32));
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

#[test]
fn conformance() {
    for sizes in [vec![4, 3], vec![5, 8, 3], vec![5, 9, 7, 3], vec![5, 8, 7, 6, 3], vec![4, 20, 14]]
    {
        let (net, params) = network::<f64>(&sizes, 2.0, 3);
        for finding in check_system(&net, &params, 1).unwrap() {
            assert!(finding.passed, "{sizes:?}: {finding:?}");
        }
    }
}

fn settled<T: Real>(
    net: &Layered,
    params: &[Vec<T>],
    batch: &Batch<'_, T>,
    phases: Vec<Boundary>,
    settling: Settling,
) -> States<T> {
    let plan = PhasePlan::from_free(Loss::SquaredError, phases, settling);
    let mut states = States::new(System::<T>::layout(net));
    let mut workspace = System::<T>::workspace(net);
    let (runtime, params, draw) = (runtime(1), shared(params), DrawIndex::of_inference(0));
    let experiment = Experiment::new(&runtime, net, &params, batch, &plan, draw);
    experiment.run(&mut [], &mut states, &mut workspace).unwrap();
    states
}

#[test]
fn kirchhoff_holds_and_diodes_carry_no_current_backward() {
    let (net, params) = network::<f64>(&[6, 13, 10, 4], 3.0, 1);
    let (x, y) = (noise(8 * 6, 0), noise(8 * 4, 1));
    let batch = Batch { x: Rows::all(&x, 6), y: Targets::Values(Rows::all(&y, 4)) };
    let tight = Settling { stop: Stop::Absolute(1e-14), ..Settling::default() };
    let boundary = Boundary::Nudged(0.7.into());
    let states = settled(&net, &params, &batch, vec![boundary], tight);
    assert!(states.outcomes.iter().all(|o| o.status == Status::Converged));
    // The residual is the largest current that flows into a node and not out of it: that of a diode
    // that conducts is its own, and has the right sign.
    let last = states.last_phase();
    let rest =
        residual(&net, &shared(&params), &batch, Loss::SquaredError, boundary, &last).unwrap();
    let largest = params[0].iter().fold(0.0f64, |m, &g| m.max(3.0 * g));
    assert!(rest.iter().all(|&r| r < 1e-10 * largest), "{rest:?}");
    let held = (0..8).flat_map(|r| states.layer(2 * r, 0)).filter(|&&v| v == 0.0).count();
    assert!(held > 8, "only {held} diodes conduct: the test sees none of them");
    for r in 0..16 {
        for l in 0..2 {
            for (j, &v) in states.layer(r, l).iter().enumerate() {
                let (lo, hi) = StateDerivatives::<f64>::interval(&net, l, j);
                assert!((lo..=hi).contains(&v));
            }
        }
    }
}

/// The energy is half the dissipation: sum over resistors of 1/2 g (v_i - v_j)^2, less what current
/// sources feed in.
#[test]
fn energy_is_half_the_dissipation() {
    let (net, params) = network::<f64>(&[3, 5, 4, 2], 1.5, 2);
    let x: Vec<f64> = noise(3, 0);
    let batch = Batch { x: Rows::all(&x, 3), y: Targets::None };
    let states = settled(&net, &params, &batch, vec![], Settling::default());
    let mut energy = [0.0];
    net.energy(&shared(&params), &batch, &states, &mut energy).unwrap();
    let sources: Vec<f64> = x.iter().map(|x| 1.5 * x).chain(x.iter().map(|x| -1.5 * x)).collect();
    let mut expected = 0.0;
    for l in 0..3 {
        let below = if l == 0 { &sources[..] } else { states.layer(0, l - 1) };
        let above = states.layer(0, l);
        for (i, vi) in below.iter().enumerate() {
            for (j, vj) in above.iter().enumerate() {
                expected += 0.5 * params[2 * l][i * above.len() + j] * (vi - vj).powi(2);
            }
        }
        expected -= params[2 * l + 1].iter().zip(above).map(|(b, v)| b * v).sum::<f64>();
    }
    assert!((energy[0] - expected).abs() < 1e-12 * expected.abs(), "{energy:?} {expected}");
}

fn gradient<T: Real>(
    method: &Method,
    net: &Layered,
    params: &[Vec<T>],
    batch: &Batch<'_, T>,
) -> Vec<f64> {
    let (runtime, shared, mut state) = (runtime(1), shared(params), StepState::new(net));
    let protocol = method.protocol::<T>(net).unwrap();
    protocol
        .step(&protocol.experiment(&runtime, net, &shared, batch, 0), &mut [], &mut state)
        .unwrap();
    let mut gradient = vec![Vec::new(); params.len()];
    write_gradient(&runtime, System::<T>::specs(net), &mut state, &mut gradient);
    gradient.into_iter().flatten().map(Real::to_f64).collect()
}

fn propagation(variant: Estimator, beta: f64, settling: Settling) -> Method {
    let (sign, loss) = (Sign::Positive, Loss::SquaredError);
    EquilibriumPropagation { variant, beta: Some(beta), sign, points: 2 }.with(loss, settling)
}

fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn bias_of_equilibrium_propagation_has_the_right_order() {
    let (net, params) = network::<f64>(&[6, 16, 14, 4], 3.0, 5);
    let (x, y) = (noise(5 * 6, 0), noise(5 * 4, 1));
    let batch = Batch { x: Rows::all(&x, 6), y: Targets::Values(Rows::all(&y, 4)) };
    let settling = Settling { stop: Stop::Absolute(1e-15), ..Settling::default() };
    let exact = gradient(
        &ImplicitDifferentiation {}.with(Loss::SquaredError, settling),
        &net,
        &params,
        &batch,
    );
    for (variant, order) in [(Estimator::OneSided, 1), (Estimator::Centered, 2)] {
        let errors = [0.002, 0.001].map(|beta| {
            relative_error(
                &gradient(&propagation(variant, beta, settling), &net, &params, &batch),
                &exact,
            )
        });
        let slope = (errors[0] / errors[1]).log2();
        assert!((slope - f64::from(order)).abs() < 0.1, "{variant:?}: {errors:?}");
    }
}

#[test]
fn automatic_stopping_costs_little_of_the_gradient() {
    for sizes in [vec![20, 40, 5], vec![20, 40, 30, 5]] {
        for gain in [1.0, 30.0] {
            let (net, params) = network::<f64>(&sizes, gain, 5);
            let single: Vec<Vec<f32>> =
                params.iter().map(|p| p.iter().map(|&v| v as f32).collect()).collect();
            let (x, noise) = (noise::<f64>(16 * 20, 0), noise::<f64>(16 * 5, 1));
            let tight = Settling { stop: Stop::Absolute(1e-14), ..Settling::default() };
            let batch = Batch { x: Rows::all(&x, 20), y: Targets::None };
            let free = settled(&net, &params, &batch, vec![], tight);
            for error in [0.3, 0.01] {
                let y: Vec<f64> = (0..16 * 5)
                    .map(|k| free.outputs(k / 5)[k % 5] + error * (2.0 * noise[k] - 1.0))
                    .collect();
                let batch = Batch { x: Rows::all(&x, 20), y: Targets::Values(Rows::all(&y, 5)) };
                let beta = 0.5;
                let reference =
                    gradient(&propagation(Estimator::Centered, beta, tight), &net, &params, &batch);
                let automatic = propagation(Estimator::Centered, beta, Settling::default());
                let off = relative_error(&gradient(&automatic, &net, &params, &batch), &reference);
                assert!(off < 0.015, "{sizes:?} gain {gain} error {error}: {off}");
                let (x, y): (Vec<f32>, Vec<f32>) =
                    (x.iter().map(|&v| v as f32).collect(), y.iter().map(|&v| v as f32).collect());
                let batch = Batch { x: Rows::all(&x, 20), y: Targets::Values(Rows::all(&y, 5)) };
                let off = relative_error(&gradient(&automatic, &net, &single, &batch), &reference);
                // In single precision the smallest displacements of nodes at high voltage drown in
                // rounding errors.
                assert!(off < 0.02, "{sizes:?} gain {gain} error {error} in f32: {off}");
            }
        }
    }
}

#[test]
fn outputs_nudged_beyond_their_stiffness_are_unbounded() {
    let (net, params) = network::<f64>(&[4, 6, 3], 2.0, 1);
    let (x, y) = (noise(4, 0), noise(3, 1));
    let batch = Batch { x: Rows::all(&x, 4), y: Targets::Values(Rows::all(&y, 3)) };
    let stiffness = (0..3)
        .map(|o| (0..6).map(|j| params[2][3 * j + o]).sum::<f64>())
        .fold(f64::INFINITY, f64::min);
    for (beta, status) in
        [(-0.99 * stiffness, Status::Converged), (-1.01 * stiffness, Status::Unbounded)]
    {
        let settling = Settling {
            max_sweeps: (100_000, 100_000),
            stop: Stop::Absolute(1e-9),
            ..Settling::default()
        };
        let states = settled(&net, &params, &batch, vec![Boundary::Nudged(beta.into())], settling);
        let found = states.outcomes[1].status;
        assert!(
            found == status || (status == Status::Converged && found.usable()),
            "{beta}: {found:?}"
        );
    }
}

fn trained<T: Real>(
    net: &Layered,
    params: &mut [Vec<T>],
    optimizer: &Optimizer,
    threads: usize,
    steps: usize,
) {
    let (inputs, outputs) = (System::<T>::inputs(net), System::<T>::outputs(net));
    let n = 40;
    let x: Vec<T> = noise::<T>(n * inputs, 0)
        .into_iter()
        .map(|v| if v < T::from_f64(0.6) { T::ZERO } else { v })
        .collect();
    let y = noise(n * outputs, 1);
    let data = Batch { x: Rows::all(&x, inputs), y: Targets::Values(Rows::all(&y, outputs)) };
    let order: Vec<u64> = (0..n as u64).collect();
    let protocol =
        propagation(Estimator::Centered, 0.5, Settling::default()).protocol::<T>(net).unwrap();
    let rates = vec![0.02; params.len()];
    let kept = optimizer.memory(System::<T>::specs(net));
    let mut memory: Vec<Vec<T>> = kept.iter().map(|spec| vec![T::ZERO; spec.len()]).collect();
    let task = TrainingTask {
        system: net,
        protocol: &protocol,
        optimizer,
        rates: &rates,
        data,
        order: &order,
        batch_size: 8,
    };
    let budget = StepBudget { first: 0, before: 0, steps, time: Duration::MAX, first_epoch: 0.0 };
    let mut memory: Vec<&mut [T]> = memory.iter_mut().map(Vec::as_mut_slice).collect();
    let mut params = Params::exclusive(params.iter_mut().map(Vec::as_mut_slice));
    let runtime = runtime(threads);
    runtime
        .enter(|| train(&runtime, task, budget, &mut params, &mut memory, &mut Progress::default()))
        .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn same_bits_for_any_number_of_threads(
        sizes in prop::collection::vec(1usize..40, 2..5), wide in 1usize..600, gain in 0.5f64..20.0,
        momentum in 0..2,
    ) {
        let mut sizes = sizes;
        sizes[0] = wide;
        let optimizer = Optimizer::SGD { momentum: 0.9 * f64::from(momentum), weight_decay: 0.0 };
        let (net, start) = network::<f32>(&sizes, gain, 2);
        let mut one = start.clone();
        trained(&net, &mut one, &optimizer, 1, 3);
        for threads in [2, 3, 8] {
            let mut params = start.clone();
            trained(&net, &mut params, &optimizer, threads, 3);
            prop_assert_eq!(&one, &params);
        }
        prop_assert!(one.iter().step_by(2).flatten().all(|&g| g >= 0.0));
    }
}

/// Plain steps apply the factored update and the walls in one pass; momentum zero by way of the
/// dense gradient must agree.
#[test]
fn fused_steps_are_the_dense_ones() {
    let mut at_wall = 0;
    for sizes in [vec![300, 33, 20], vec![20, 24, 18, 3], vec![7, 3]] {
        let (net, start) = network::<f64>(&sizes, 2.0, 2);
        let mut fused = start.clone();
        trained(&net, &mut fused, &Optimizer::SGD { momentum: 0.0, weight_decay: 0.0 }, 1, 1);
        let mut dense = start.clone();
        trained(&net, &mut dense, &Optimizer::SGD { momentum: 0.5, weight_decay: 0.0 }, 1, 1);
        let mut moved = 0.0f64;
        for ((fused, dense), start) in
            fused.iter().flatten().zip(dense.iter().flatten()).zip(start.iter().flatten())
        {
            assert!((fused - dense).abs() < 1e-13);
            moved = moved.max((fused - start).abs());
        }
        assert!(moved > 1e-4, "{sizes:?}: nothing moved");
        at_wall += fused.iter().step_by(2).flatten().filter(|&&g| g == 0.0).count();
    }
    assert!(at_wall > 0, "no conductance met its wall");
}

#[test]
fn a_device_keeps_conductances_on_its_levels() {
    let device = Device { upper: Some(0.6), levels: Some(31), open: 0.05, seed: 1, ..CONDUCTANCES };
    let net = Layered::resistive(&[10, 12, 3], 2.0, device).unwrap();
    let mut params: Vec<Vec<f64>> =
        System::<f64>::specs(&net).iter().map(|s| vec![0.0; s.len()]).collect();
    net.initialise(
        &runtime(1),
        0,
        1.0,
        &mut params.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(),
    );
    let on_level = |params: &[Vec<f64>]| {
        params
            .iter()
            .step_by(2)
            .flatten()
            .all(|g| ((g / 0.02).round() - g / 0.02).abs() < 1e-9 && *g <= 0.6 + 1e-12)
    };
    assert!(on_level(&params));
    let start = params.clone();
    trained(&net, &mut params, &Optimizer::SGD { momentum: 0.0, weight_decay: 0.0 }, 1, 5);
    assert!(on_level(&params) && params[0] != start[0]);
    assert!(
        Layered::resistive(&[2, 2], 1.0, Device::IDEAL).is_err()
            && Layered::resistive(&[2, 2], 0.0, CONDUCTANCES).is_err()
    );
}
