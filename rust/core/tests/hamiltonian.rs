//! Motions and their echoes: conservation, reversal, and the gradient against differences of the
//! loss.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use num_complex::Complex;
use pnncore::batch::{Batch, Rows, Targets};
use pnncore::draw::DrawIndex;
use pnncore::loss::Loss;
use pnncore::method::finite_difference::FiniteDifference;
use pnncore::method::hamiltonian_echo::HamiltonianEcho;
use pnncore::method::{MethodConfig, StepState, methods_for};
use pnncore::params::Params;
use pnncore::plan::{Boundary, Phase, PhasePlan, Start};
use pnncore::runtime::Runtime;
use pnncore::settling::Settling;
use pnncore::states::{States, Status};
use pnncore::system::hamiltonian_chain::{HamiltonianChain, Spec};
use pnncore::system::{Accumulation, Experiment, Reading, System};
use pnncore::train::write_gradient;
use pnncore::update::LocalUpdate;

const SPEC: Spec = Spec { masses: 5, inputs: 2, outputs: 3, time: 3.0, steps: 300, damping: 0.0 };
const SAMPLES: usize = 41;

fn params() -> Vec<Vec<f64>> {
    let lengths = [5, 5, 5, 4].into_iter().enumerate();
    lengths
        .map(|(p, n)| (0..n).map(|k| 0.6 + 0.3 * ((7 * k + 3 * p) as f64).sin()).collect())
        .collect()
}

fn inputs() -> Vec<f64> {
    (0..SAMPLES * 2).map(|k| (k as f64 * 0.731).sin()).collect()
}

fn shared(params: &[Vec<f64>]) -> Params<'_, f64> {
    Params::shared(params.iter().map(Vec::as_slice))
}

/// The energy of a chain: momenta, then places.
fn energy(params: &[Vec<f64>], p: &[f64], q: &[f64]) -> f64 {
    let masses = (0..p.len()).map(|i| {
        let (a, c, b) = (params[0][i], params[1][i], params[2][i]);
        0.5 * p[i] * p[i] + 0.5 * a * q[i] * q[i] + 0.25 * c * q[i].powi(4) - b * q[i]
    });
    let bonds =
        params[3].iter().zip(q.windows(2)).map(|(k, pair)| 0.5 * k * (pair[1] - pair[0]).powi(2));
    masses.chain(bonds).sum()
}

/// A kicked echo of the free phase.
fn echo(kick: f64) -> Phase {
    Phase { start: Start::Reversed(0), boundary: Boundary::Kicked(kick) }
}

fn run(spec: Spec, phases: Vec<Phase>) -> States<f64> {
    let (chain, params, x) = (HamiltonianChain::new(&spec).unwrap(), params(), inputs());
    let batch = Batch { x: Rows::all(&x, 2), y: Targets::None };
    let plan = PhasePlan::new(Loss::SquaredError, phases, Settling::default());
    let (runtime, shared, draw) =
        (Runtime::new(Some(1), 0).unwrap(), shared(&params), DrawIndex::of_inference(0));
    let experiment = Experiment::new(&runtime, &chain, &shared, &batch, &plan, draw);
    let mut states = States::new(System::<f64>::layout(&chain));
    experiment.run(&mut [], &mut states, &mut System::<f64>::workspace(&chain)).unwrap();
    states
}

fn point(states: &States<f64>, r: usize) -> (Vec<f64>, Vec<f64>) {
    (states.layer(r, 0).to_vec(), [states.layer(r, 1), states.layer(r, 2)].concat())
}

fn gradient(config: impl MethodConfig, damping: f64, threads: usize) -> Vec<f64> {
    let (chain, params, x) =
        (HamiltonianChain::new(&Spec { damping, ..SPEC }).unwrap(), params(), inputs());
    let labels: Vec<i64> = (0..SAMPLES as i64).map(|i| i % 3).collect();
    let batch = Batch { x: Rows::all(&x, 2), y: Targets::Labels(Rows::all(&labels, 1)) };
    let protocol =
        config.with(Loss::CrossEntropy, Settling::default()).protocol::<f64>(&chain).unwrap();
    let (runtime, shared) = (Runtime::new(Some(threads), 1).unwrap(), shared(&params));
    let (mut state, mut found) = (StepState::new(&chain), vec![Vec::new(); params.len()]);
    runtime.enter(|| {
        protocol
            .step(&protocol.experiment(&runtime, &chain, &shared, &batch, 4), &mut [], &mut state)
            .unwrap();
        write_gradient(&runtime, System::<f64>::specs(&chain), &mut state, &mut found);
    });
    found.concat()
}

fn norm(v: impl Iterator<Item = f64>) -> f64 {
    v.map(|x| x * x).sum::<f64>().sqrt()
}

/// Leapfrog keeps the energy to the second order of its steps.
#[test]
fn energy_is_conserved() {
    let drift = |steps: usize| {
        let (states, params, x) = (run(Spec { steps, ..SPEC }, Vec::new()), params(), inputs());
        let change = |i: usize| {
            let mut start = vec![0.0; 5];
            start[..2].copy_from_slice(&x[2 * i..2 * i + 2]);
            let (p, q) = point(&states, i);
            energy(&params, &p, &q) - energy(&params, &[0.0; 5], &start)
        };
        assert!(states.outcomes.iter().all(|outcome| outcome.status == Status::Completed));
        norm((0..SAMPLES).map(change)) / (SAMPLES as f64).sqrt()
    };
    let (coarse, fine) = (drift(100), drift(200));
    assert!(fine < 1e-3 && (coarse / fine - 4.0).abs() < 0.2, "{coarse} {fine}");
}

/// An echo that nothing kicks comes back to where the motion began.
#[test]
fn motions_run_backwards() {
    let (states, x) = (run(SPEC, vec![echo(0.1)]), inputs());
    for i in 0..SAMPLES {
        let (p, q) = point(&states, 2 * i + 1);
        let off = q.iter().enumerate().map(|(k, q)| q - if k < 2 { x[2 * i + k] } else { 0.0 });
        let off = norm(off.chain(p));
        assert!(off < 1e-12, "{i}: {off}");
    }
}

/// A phase that starts where another one ended makes one motion of both; one from given states goes
/// on from there.
#[test]
fn phases_start_where_they_say() {
    let free = |start: Start| Phase { start, boundary: Boundary::Free };
    let damped = Spec { damping: 0.2, ..SPEC };
    let states =
        run(damped, vec![free(Start::After(0)), free(Start::Rest), free(Start::Reversed(2))]);
    let long = run(Spec { time: 2.0 * SPEC.time, steps: 2 * SPEC.steps, ..damped }, Vec::new());
    let echo = run(damped, vec![free(Start::Reversed(0))]);
    let (chain, params, x) = (HamiltonianChain::new(&damped).unwrap(), params(), inputs());
    let batch = Batch { x: Rows::all(&x, 2), y: Targets::None };
    let plan = PhasePlan {
        start: Start::Given,
        ..PhasePlan::free(Loss::SquaredError, Settling::default())
    };
    let (runtime, shared, draw) =
        (Runtime::new(Some(1), 0).unwrap(), shared(&params), DrawIndex::of_inference(0));
    let experiment = Experiment::new(&runtime, &chain, &shared, &batch, &plan, draw);
    let mut given = States::new(System::<f64>::layout(&chain));
    let mut workspace = System::<f64>::workspace(&chain);
    let refusal = experiment.run(&mut [], &mut given, &mut workspace).unwrap_err();
    assert!(refusal.to_string().contains("needs 41 rows of 1 phases, got 0"), "{refusal}");
    given.reset(SAMPLES, 1, false);
    (0..SAMPLES).for_each(|i| given.row_mut(i).copy_from_slice(states.row(4 * i)));
    experiment.run(&mut [], &mut given, &mut workspace).unwrap();
    for i in 0..SAMPLES {
        let (first, after, again, back) = (4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3);
        assert_eq!(states.row(after), long.row(i));
        assert_eq!(states.row(after), given.row(i));
        assert_eq!(states.row(again), states.row(first));
        assert_eq!(states.row(back), echo.row(2 * i + 1));
        assert_ne!(states.row(first), states.row(after));
    }
}

/// A motion refuses phases that start where none has ended yet, and steady states.
#[test]
fn a_motion_refuses_what_it_has_not() {
    let (chain, params, x) = (HamiltonianChain::new(&SPEC).unwrap(), params(), inputs());
    let batch = Batch { x: Rows::all(&x, 2), y: Targets::None };
    let (runtime, shared, draw) =
        (Runtime::new(Some(1), 0).unwrap(), shared(&params), DrawIndex::of_inference(0));
    for phase in [
        Phase { start: Start::After(1), boundary: Boundary::Free },
        Phase { start: Start::Reversed(1), boundary: Boundary::Kicked(0.1) },
        Boundary::Nudged(Complex::ONE).into(),
        Boundary::Clamped(0.5).into(),
    ] {
        let plan = PhasePlan::new(Loss::SquaredError, vec![phase], Settling::default());
        let experiment = Experiment::new(&runtime, &chain, &shared, &batch, &plan, draw);
        let mut states = States::new(System::<f64>::layout(&chain));
        let found = experiment.run(&mut [], &mut states, &mut System::<f64>::workspace(&chain));
        assert!(matches!(found, Err(pnncore::Error::Capability(_))), "{phase:?}");
    }
}

/// A single oscillator without anharmonicity swings as the closed form says.
#[test]
fn one_mass_swings() {
    let spec = Spec { masses: 1, inputs: 1, outputs: 1, time: 2.0, steps: 4000, damping: 0.0 };
    let chain = HamiltonianChain::new(&spec).unwrap();
    let params: Vec<Vec<f64>> = vec![vec![2.25], vec![0.0], vec![0.9], vec![]];
    let (x, settling) = ([0.3, -1.0], Settling::default());
    let batch = Batch { x: Rows::all(&x, 1), y: Targets::None };
    let plan = PhasePlan::free(Loss::SquaredError, settling);
    let (runtime, shared, draw) =
        (Runtime::new(Some(1), 0).unwrap(), shared(&params), DrawIndex::of_inference(0));
    let experiment = Experiment::new(&runtime, &chain, &shared, &batch, &plan, draw);
    let mut states = States::new(System::<f64>::layout(&chain));
    experiment.infer(&mut states, &mut System::<f64>::workspace(&chain)).unwrap();
    for (i, x) in x.iter().enumerate() {
        // q'' = b - a q, with a = 1.5^2.
        let wanted = 0.4 + (x - 0.4) * (1.5f64 * 2.0).cos();
        assert!((states.outputs(i)[0] - wanted).abs() < 1e-6, "{} {wanted}", states.outputs(i)[0]);
    }
}

#[test]
fn echoes_tell_the_gradient() {
    let exact = gradient(FiniteDifference { epsilon: Some(1e-5) }, 0.0, 1);
    let off = |kick: f64| {
        let found = gradient(HamiltonianEcho { kick }, 0.0, 1);
        for threads in [2, 3, 8] {
            assert_eq!(found, gradient(HamiltonianEcho { kick }, 0.0, threads));
        }
        norm(found.iter().zip(&exact).map(|(a, b)| a - b)) / norm(exact.iter().copied())
    };
    let (coarse, fine, finest) = (off(0.1), off(0.01), off(0.001));
    // The order of the bias is two.
    assert!((coarse / fine / 100.0 - 1.0).abs() < 0.1 && finest < 1e-6, "{coarse} {fine} {finest}");
}

#[test]
fn damping_spoils_echoes() {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let cosines = [0.015, 0.15, 1.5].map(|rate| {
        let damping = rate / SPEC.time;
        let exact = gradient(FiniteDifference { epsilon: Some(1e-5) }, damping, 1);
        let found = gradient(HamiltonianEcho { kick: 1e-3 }, damping, 1);
        dot(&found, &exact) / (dot(&found, &found) * dot(&exact, &exact)).sqrt()
    });
    assert!(cosines[0] > 0.999 && cosines[2] > 0.9, "{cosines:?}");
    assert!(cosines.windows(2).all(|pair| pair[1] < pair[0]), "{cosines:?}");
}

/// Rows that diverge are blank, contribute nothing and hurt no other.
#[test]
fn rows_that_diverge_teach_nothing() {
    let (chain, params) = (HamiltonianChain::new(&SPEC).unwrap(), params());
    let mut x = inputs();
    x[6] = 1e160;
    let targets = vec![0.5; SAMPLES * 3];
    let batch = Batch { x: Rows::all(&x, 2), y: Targets::Values(Rows::all(&targets, 3)) };
    let phases = vec![echo(0.01), echo(-0.01)];
    let plan = PhasePlan {
        measures_free: false,
        ..PhasePlan::new(Loss::SquaredError, phases, Settling::default())
    };
    let (runtime, shared, draw) =
        (Runtime::new(Some(1), 0).unwrap(), shared(&params), DrawIndex::of_step(0));
    let experiment = Experiment::new(&runtime, &chain, &shared, &batch, &plan, draw);
    let mut states = States::new(System::<f64>::layout(&chain));
    let weights = [Complex::ZERO, Complex::ONE, -Complex::ONE];
    let mut update = LocalUpdate::default();
    let reading =
        Reading { accumulation: Accumulation::Integral, weights: &weights, update: &mut update };
    experiment.run(&mut [reading], &mut states, &mut System::<f64>::workspace(&chain)).unwrap();
    assert_eq!(states.outcomes[9].status, Status::Diverged);
    assert!(states.row(9).iter().all(|&s| s == 0.0) && states.usable(2) && !states.usable(3));
    assert!(update.is_finite());
}

#[test]
fn a_motion_has_echoes_and_no_steady_state() {
    let chain = HamiltonianChain::new(&SPEC).unwrap();
    let methods = methods_for::<f64>(&chain);
    assert!(methods.contains(&"HamiltonianEcho") && methods.contains(&"SPSA"));
    assert!(!methods.iter().any(|name| name.contains("Equilibrium") || name.contains("Implicit")));
    for wrong in [
        Spec { masses: 0, ..SPEC },
        Spec { outputs: 6, ..SPEC },
        Spec { inputs: 0, ..SPEC },
        Spec { time: f64::NAN, ..SPEC },
        Spec { steps: 0, ..SPEC },
        Spec { damping: -1.0, ..SPEC },
    ] {
        assert!(
            matches!(HamiltonianChain::new(&wrong), Err(pnncore::Error::Config(_))),
            "{wrong:?}"
        );
    }
}
