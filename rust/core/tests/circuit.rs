//! Circuits through the public interface: Kirchhoff's laws, gradients, walls, errors.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use pnncore::batch::{Batch, Rows, Targets};
use pnncore::check::check_system;
use pnncore::device::Device;
use pnncore::kernels::philox::{Philox, Purpose};
use pnncore::lab::Lab;
use pnncore::loss::Loss;
use pnncore::method::{Estimator, Method, Scratch, Side, Sign};
use pnncore::params::Params;
use pnncore::system::circuit::{Circuit, ElementSpec, Law, Spec, Terminal};
use pnncore::system::{Settling as _, System, residual};
use pnncore::train::write_gradient;
use pnncore::trial::{Boundary, Plan, Settling, Status, Trial};
use proptest::prelude::*;

const CONDUCTANCES: Device = Device { lower: Some(0.0), ..Device::IDEAL };

fn element(law: Law, from: Terminal, to: Terminal) -> ElementSpec {
    ElementSpec {
        law,
        from,
        to,
        value: 1.0,
        trained: law.current(1.0, 1.0) != 0.0 && !matches!(law, Law::Diode { .. }),
    }
}

fn spec(inputs: usize, nodes: usize, outputs: usize, elements: Vec<ElementSpec>) -> Spec {
    let nodes = (0..nodes).map(|i| format!("n{i}")).collect();
    Spec { inputs, outputs, nodes, elements, device: CONDUCTANCES }
}

/// A random connected circuit with elements of the given laws in turn, and its parameters.
fn random_circuit(nodes: usize, outputs: usize, laws: &[Law], seed: u64) -> (Circuit, Vec<Vec<f64>>) {
    let random = Philox::new(seed, Purpose::Probe);
    let inputs = 3;
    let terminal = |k: usize| match k {
        0 => Terminal::Fixed(0.0),
        1 => Terminal::Fixed(0.7),
        k if k < 2 + inputs => Terminal::Input(k - 2),
        k => Terminal::Node(k - 2 - inputs),
    };
    let mut elements = Vec::new();
    for node in 0..nodes {
        // A resistor to something before it keeps every node in touch with what is held.
        let before = random.below((node + 2 + inputs) as u64, node as u64, 0) as usize;
        elements.push(element(Law::Resistor, Terminal::Node(node), terminal(before)));
        for (k, &law) in laws.iter().enumerate() {
            let other = random.below((nodes + 2 + inputs) as u64, node as u64, 1 + k as u32) as usize;
            if terminal(other) != Terminal::Node(node) {
                let ends = (Terminal::Node(node), terminal(other));
                let forth = random.words(node as u64, 50 + k as u32)[0] & 1 == 0;
                let (from, to) = if forth { ends } else { (ends.1, ends.0) };
                elements.push(element(law, from, to));
            }
        }
    }
    let circuit = Circuit::new(&spec(inputs, nodes, outputs, elements)).unwrap();
    let params = System::<f64>::specs(&circuit).iter().enumerate().map(|(i, spec)| {
        (0..spec.len()).map(|k| (if i == 0 { 0.2 } else { 0.0 }) + random.uniform(k as u64, 90 + i as u32)).collect()
    });
    let params = params.collect();
    (circuit, params)
}

const LINEAR: [Law; 2] = [Law::Resistor, Law::CurrentSource];
const CURVED: [Law; 3] = [Law::Resistor, Law::Cubic { scale: 0.5 }, Law::Diode { saturation: 1e-6, slope: 0.05 }];

fn noise(n: usize, group: u32) -> Vec<f64> {
    let random = Philox::new(9, Purpose::Probe);
    (0..n).map(|i| 2.0 * random.uniform(i as u64, group) - 1.0).collect()
}

fn shared(params: &[Vec<f64>]) -> Params<'_, f64> {
    Params::shared(params.iter().map(Vec::as_slice))
}

fn settled(
    circuit: &Circuit,
    params: &[Vec<f64>],
    batch: &Batch<'_, f64>,
    phases: Vec<Boundary>,
    threads: usize,
) -> Trial<f64> {
    let plan = Plan { loss: Loss::SquaredError, phases, settling: Settling::default(), measures_free: true };
    let mut trial = Trial::new(System::<f64>::layout(circuit));
    trial.reset(batch.len(), plan.rows_per_sample(), false);
    let lab = Lab::new(Some(threads), 0).unwrap();
    let mut workspace = System::<f64>::workspace(circuit);
    circuit.settle(&lab, &shared(params), batch, &plan, &mut trial, &mut workspace).unwrap();
    trial
}

#[test]
fn conformance() {
    for (nodes, outputs, laws) in [(6, 2, &LINEAR[..]), (9, 3, &CURVED), (3, 3, &CURVED), (12, 1, &LINEAR)] {
        let (circuit, params) = random_circuit(nodes, outputs, laws, 4);
        for finding in check_system(&circuit, &params, 1).unwrap() {
            assert!(finding.passed, "{nodes} {laws:?}: {finding:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn kirchhoff_holds(nodes in 3usize..60, seed in 0u64..1000, curved in any::<bool>(), gain in 0.1f64..2.0) {
        let (circuit, params) = random_circuit(nodes, 2, if curved { &CURVED } else { &LINEAR }, seed);
        let x: Vec<f64> = noise(5 * 3, 0).iter().map(|x| gain * x).collect();
        let y = noise(5 * 2, 1);
        let batch = Batch { x: Rows::all(&x, 3), y: Targets::Values(Rows::all(&y, 2)) };
        for phase in [Boundary::Nudged(0.3.into()), Boundary::Nudged((-0.001).into()), Boundary::Clamped(0.4)] {
            let trial = settled(&circuit, &params, &batch, vec![phase], 1);
            let bad: Vec<_> = trial.outcomes.iter().filter(|o| o.status != Status::Converged).collect();
            prop_assert!(bad.is_empty(), "{:?} {:?}", phase, bad);
            let last = trial.last_phase();
            let rest = residual(&circuit, &shared(&params), &batch, Loss::SquaredError, phase, &last).unwrap();
            // The largest current is at least what flows through the largest voltage at the smallest conductance.
            let scale = last.states.iter().fold(1e-3f64, |m, v| m.max(0.2 * v.abs()));
            // Diodes between clamped outputs and inputs may carry far more.
            let scale = if curved && matches!(phase, Boundary::Clamped(_)) { f64::INFINITY } else { scale };
            prop_assert!(rest.iter().all(|&r| r < 1e-10 * scale), "{:?} {:?}", phase, rest);
            for threads in [2, 3, 8] {
                prop_assert_eq!(&settled(&circuit, &params, &batch, vec![phase], threads).states[..], &trial.states[..]);
            }
        }
    }
}

fn gradient(method: &Method, circuit: &Circuit, params: &[Vec<f64>], batch: &Batch<'_, f64>) -> Vec<f64> {
    let lab = Lab::new(Some(1), 0).unwrap();
    let mut scratch = Scratch::new(circuit);
    method.protocol::<f64>(circuit).unwrap().step(&lab, circuit, &shared(params), batch, 0, &mut scratch).unwrap();
    let mut gradient = vec![Vec::new(); params.len()];
    write_gradient(&lab, System::<f64>::specs(circuit), &mut scratch, &mut gradient);
    gradient.concat()
}

fn norm(v: impl Iterator<Item = f64>) -> f64 {
    v.map(|x| x * x).sum::<f64>().sqrt()
}

fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    norm(a.iter().zip(b).map(|(a, b)| a - b)) / norm(b.iter().copied())
}

const LOSS: Loss = Loss::SquaredError;

#[test]
fn bias_of_equilibrium_propagation_has_the_right_order() {
    for laws in [&LINEAR[..], &CURVED] {
        let (circuit, params) = random_circuit(24, 3, laws, 7);
        let (x, y) = (noise(4 * 3, 0), noise(4 * 3, 1));
        let batch = Batch { x: Rows::all(&x, 3), y: Targets::Values(Rows::all(&y, 3)) };
        let settling = Settling::default();
        let exact = gradient(&Method::ImplicitDifferentiation { loss: LOSS, settling }, &circuit, &params, &batch);
        for (variant, order) in [(Estimator::OneSided, 1.0), (Estimator::Centered, 2.0)] {
            let errors = [0.02, 0.01].map(|beta| {
                let sign = Sign::Positive;
                let method = Method::EquilibriumPropagation { variant, beta, sign, points: 2, loss: LOSS, settling };
                relative_error(&gradient(&method, &circuit, &params, &batch), &exact)
            });
            let slope = (errors[0] / errors[1]).log2();
            assert!((slope - order).abs() < 0.1, "{variant:?}: {errors:?}");
        }
    }
}

#[test]
fn forces_and_springs_tend_to_the_gradient() {
    for laws in [&LINEAR[..], &CURVED] {
        let (circuit, params) = random_circuit(24, 3, laws, 7);
        let (x, y) = (noise(4 * 3, 0), noise(4 * 3, 1));
        let batch = Batch { x: Rows::all(&x, 3), y: Targets::Values(Rows::all(&y, 3)) };
        let settling = Settling::default();
        let exact = gradient(&Method::ImplicitDifferentiation { loss: LOSS, settling }, &circuit, &params, &batch);
        let tone = |amplitude, points| {
            let method = Method::FrequencyPropagation { amplitude, points, loss: LOSS, settling };
            relative_error(&gradient(&method, &circuit, &params, &batch), &exact)
        };
        assert!(tone(1e-4, 8) < 1e-6, "{}", tone(1e-4, 8));
        if laws == LINEAR {
            // dE/dtheta is quadratic in the force: the first harmonic is exact for any.
            assert!(tone(0.5, 4) < 1e-10 && tone(0.5, 12) < 1e-10);
        } else {
            let slope = (tone(2e-2, 8) / tone(1e-2, 8)).log2();
            assert!((slope - 2.0).abs() < 0.1, "{slope}");
        }
        let springs = |beta, epsilon, relaxations| {
            let method = Method::AgnosticEquilibriumPropagation { beta, epsilon, relaxations, loss: LOSS, settling };
            relative_error(&gradient(&method, &circuit, &params, &batch), &exact)
        };
        let errors = [springs(1e-4, 1e-4, 3), springs(1e-5, 1e-5, 3), springs(1e-6, 1e-6, 3)];
        assert!(errors[2] < 1e-4 && errors.windows(2).all(|pair| (pair[0] / pair[1] - 10.0).abs() < 1.0), "{errors:?}");
        // Springs that are soft enough to give way do so to first order in their softness.
        let soft = [4e-3, 2e-3].map(|epsilon| springs(1e-6, epsilon, 20));
        assert!(soft[0] > 10.0 * errors[2] && (soft[0] / soft[1] - 2.0).abs() < 0.3, "{soft:?}");
    }
}

#[test]
fn coupled_learning_is_parallel_to_the_gradient_for_one_output() {
    for (outputs, parallel) in [(1, true), (3, false)] {
        let (circuit, params) = random_circuit(24, outputs, &CURVED, 7);
        let (x, y) = (noise(3, 0), noise(outputs, 1));
        let batch = Batch { x: Rows::all(&x, 3), y: Targets::Values(Rows::all(&y, outputs)) };
        let settling = Settling::default();
        let exact = gradient(&Method::ImplicitDifferentiation { loss: LOSS, settling }, &circuit, &params, &batch);
        let method = Method::CoupledLearning { eta: 1e-4, variant: Side::Centered, loss: LOSS, settling };
        let coupled = gradient(&method, &circuit, &params, &batch);
        let dot: f64 = coupled.iter().zip(&exact).map(|(a, b)| a * b).sum();
        let cosine = dot / norm(coupled.into_iter()) / norm(exact.into_iter());
        assert_eq!(cosine > 1.0 - 1e-7, parallel, "{outputs} outputs: {cosine}");
    }
}

/// Against all subsets of diodes that may conduct: the one whose solution satisfies every inequality.
#[test]
fn ideal_diodes_solve_the_quadratic_program() {
    let random = Philox::new(3, Purpose::Probe);
    for seed in 0..20u64 {
        let n = 6;
        let mut elements = Vec::new();
        let mut dense = vec![vec![0.0; n]; n];
        let mut right = vec![0.0; n];
        for i in 0..n {
            for j in 0..i {
                let g = 0.1 + random.uniform((i * n + j) as u64, 10 + seed as u32);
                elements.push(ElementSpec {
                    value: g,
                    trained: false,
                    ..element(Law::Resistor, Terminal::Node(i), Terminal::Node(j))
                });
                dense[i][i] += g;
                dense[j][j] += g;
                dense[i][j] -= g;
                dense[j][i] -= g;
            }
            let (g, e) =
                (0.3 + random.uniform(i as u64, 40 + seed as u32), 4.0 * random.normal(i as u64, 70 + seed as u32));
            elements.push(ElementSpec {
                value: g,
                trained: i == 0,
                ..element(Law::Resistor, Terminal::Node(i), Terminal::Fixed(e))
            });
            dense[i][i] += if i == 0 { 0.9 } else { g };
            right[i] += if i == 0 { 0.9 } else { g } * e;
            // v >= 0 for even nodes, v <= 0.2 for odd ones.
            elements.push(match i % 2 {
                0 => element(Law::IdealDiode, Terminal::Fixed(0.0), Terminal::Node(i)),
                _ => element(Law::IdealDiode, Terminal::Node(i), Terminal::Fixed(0.2)),
            });
        }
        for e in &mut elements {
            e.trained &= e.law == Law::Resistor;
        }
        let circuit = Circuit::new(&spec(1, n, 1, elements)).unwrap();
        let batch = Batch { x: Rows::all(&[0.0][..], 1), y: Targets::None };
        let trial = settled(&circuit, &[vec![0.9]], &batch, vec![], 1);
        assert_eq!(trial.outcomes[0].status, Status::Converged);
        let v = [trial.layer(0, 0), trial.layer(0, 1)].concat();
        let wall = |i: usize| if i.is_multiple_of(2) { 0.0 } else { 0.2 };
        let solutions: Vec<Vec<f64>> = (0..1 << n)
            .filter_map(|subset: usize| {
                let held = |i: usize| subset >> i & 1 == 1;
                let u = solve_dense(&dense, &right, |i| held(i).then(|| wall(i)));
                let ok = (0..n).all(|i| {
                    let current: f64 = (0..n).map(|j| dense[i][j] * u[j]).sum::<f64>() - right[i];
                    let inward = if i % 2 == 0 { current } else { -current };
                    let outside = if i % 2 == 0 { u[i] } else { 0.2 - u[i] };
                    if held(i) { inward >= 0.0 } else { outside >= 0.0 }
                });
                ok.then_some(u)
            })
            .collect();
        assert_eq!(solutions.len(), 1);
        for (found, expected) in v.iter().zip(&solutions[0]) {
            assert!((found - expected).abs() < 1e-10, "{v:?} {solutions:?}");
        }
    }
}

/// Gaussian elimination, with some unknowns given.
fn solve_dense(a: &[Vec<f64>], b: &[f64], given: impl Fn(usize) -> Option<f64>) -> Vec<f64> {
    let n = b.len();
    let mut rows: Vec<Vec<f64>> = (0..n)
        .map(|i| match given(i) {
            Some(value) => (0..=n).map(|j| if j == n { value } else { f64::from(u8::from(i == j)) }).collect(),
            None => a[i].iter().copied().chain([b[i]]).collect(),
        })
        .collect();
    for k in 0..n {
        let best = (k..n).max_by(|&i, &j| rows[i][k].abs().total_cmp(&rows[j][k].abs())).unwrap();
        rows.swap(k, best);
        for i in 0..n {
            if i != k {
                let factor = rows[i][k] / rows[k][k];
                let pivot = rows[k].clone();
                rows[i].iter_mut().zip(&pivot).skip(k).for_each(|(to, from)| *to -= factor * from);
            }
        }
    }
    (0..n).map(|i| rows[i][n] / rows[i][i]).collect()
}

#[test]
fn impossible_circuits_are_refused() {
    let resistor = |from, to| element(Law::Resistor, from, to);
    let (n0, n1, ground) = (Terminal::Node(0), Terminal::Node(1), Terminal::Fixed(0.0));
    let refused = |elements: Vec<ElementSpec>, words: &str| {
        let error = Circuit::new(&spec(1, 2, 1, elements)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(vec![resistor(n0, n1)], "no conducting path from n0, n1");
    refused(vec![resistor(n0, ground), element(Law::CurrentSource, n1, ground)], "no conducting path from n1");
    refused(vec![resistor(n0, Terminal::Input(1)), resistor(n1, ground)], "no input 1");
    refused(vec![resistor(n0, n0)], "same node");
    let negative = ElementSpec { value: -1.0, trained: false, ..resistor(n0, ground) };
    refused(vec![negative, resistor(n1, ground)], "must be positive, got -1");
    let between = element(Law::IdealDiode, n0, n1);
    refused(vec![resistor(n0, ground), resistor(n1, ground), between], "ideal diode must join");
    let diode = |from, to| element(Law::IdealDiode, from, to);
    let contradiction = vec![diode(n0, ground), diode(Terminal::Fixed(1.0), n0)];
    refused([vec![resistor(n0, ground), resistor(n1, ground)], contradiction].concat(), "above 1 and below 0");
}

/// Conductances that training has brought to zero cut a node off: it has no operating point, and says so.
#[test]
fn a_node_cut_off_is_unbounded() {
    for law in [Law::Resistor, Law::Cubic { scale: 1.0 }] {
        let elements = vec![
            element(law, Terminal::Node(0), Terminal::Input(0)),
            element(law, Terminal::Node(1), Terminal::Node(0)),
        ];
        let circuit = Circuit::new(&spec(1, 2, 1, elements)).unwrap();
        let batch = Batch { x: Rows::all(&[1.0][..], 1), y: Targets::None };
        assert_eq!(settled(&circuit, &[vec![1.0, 0.5]], &batch, vec![], 1).outcomes[0].status, Status::Converged);
        let trial = settled(&circuit, &[vec![1.0, 0.0]], &batch, vec![], 1);
        assert_eq!(trial.outcomes[0].status, Status::Unbounded);
        assert!(trial.states.iter().all(|&v| v == 0.0));
    }
}
