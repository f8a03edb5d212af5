//! Circuits through the public interface: Kirchhoff's laws, gradients, walls, errors.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use pnncore::batch::{Batch, Rows, Targets};
use pnncore::check::check_system;
use pnncore::device::Device;
use pnncore::draw::DrawIndex;
use pnncore::kernels::philox::{Philox, Purpose};
use pnncore::loss::Loss;
use pnncore::method::agnostic_equilibrium_propagation::AgnosticEquilibriumPropagation;
use pnncore::method::coupled_learning::{CoupledLearning, Side};
use pnncore::method::equilibrium_propagation::{EquilibriumPropagation, Estimator, Sign};
use pnncore::method::frequency_propagation::FrequencyPropagation;
use pnncore::method::implicit_differentiation::ImplicitDifferentiation;
use pnncore::method::recurrent_backprop::RecurrentBackprop;
use pnncore::method::{Method, MethodConfig, StepState};
use pnncore::params::Params;
use pnncore::plan::{Boundary, PhasePlan};
use pnncore::runtime::Runtime;
use pnncore::settling::Settling;
use pnncore::states::{States, Status};
use pnncore::system::circuit::{Circuit, ElementSpec, Law, Place, Spec, Terminal};
use pnncore::system::{Experiment, System, residual};
use pnncore::train::write_gradient;
use proptest::prelude::*;

const CONDUCTANCES: Device = Device { lower: Some(0.0), ..Device::IDEAL };

fn element(law: Law, from: Terminal, to: Terminal) -> ElementSpec {
    ElementSpec {
        law,
        from,
        to,
        value: 1.0,
        trained: !matches!(law, Law::Diode { .. } | Law::IdealDiode),
    }
}

fn spec(inputs: usize, nodes: usize, outputs: usize, elements: Vec<ElementSpec>) -> Spec {
    let nodes = (0..nodes).map(|i| format!("n{i}")).collect();
    Spec {
        inputs,
        outputs,
        nodes,
        elements,
        branches: Vec::new(),
        input_currents: Vec::new(),
        device: CONDUCTANCES,
    }
}

/// A random connected circuit with elements of the given laws in turn, and its parameters.
fn random_circuit(
    nodes: usize,
    outputs: usize,
    laws: &[Law],
    seed: u64,
) -> (Circuit, Vec<Vec<f64>>) {
    let random = Philox::new(seed, Purpose::Probe);
    let inputs = 3;
    let terminal = |k: usize| match k {
        0 => Terminal::fixed(0.0),
        1 => Terminal::fixed(0.7),
        k if k < 2 + inputs => Terminal::input(k - 2),
        k => Terminal::node(k - 2 - inputs),
    };
    let mut elements = Vec::new();
    for node in 0..nodes {
        // A resistor to something before it keeps every node in touch with what is held.
        let before = random.below((node + 2 + inputs) as u64, node as u64, 0) as usize;
        elements.push(element(Law::Resistor, Terminal::node(node), terminal(before)));
        for (k, &law) in laws.iter().enumerate() {
            let other =
                random.below((nodes + 2 + inputs) as u64, node as u64, 1 + k as u32) as usize;
            if terminal(other) != Terminal::node(node) {
                let ends = (Terminal::node(node), terminal(other));
                let forth = random.words(node as u64, 50 + k as u32)[0] & 1 == 0;
                let (from, to) = if forth { ends } else { (ends.1, ends.0) };
                // What joins two points twice in opposite directions, or inputs alone, could not be
                // satisfied.
                if law != Law::IdealDiode
                    || (node < other && matches!(ends.1.place, Place::Node(_)))
                {
                    elements.push(element(law, from, to));
                }
            }
        }
    }
    let circuit = Circuit::new(&spec(inputs, nodes, outputs, elements)).unwrap();
    let params = System::<f64>::specs(&circuit).iter().enumerate().map(|(i, spec)| {
        let least = [("g", 0.2), ("i", 0.0), ("gate", 1.5)]
            .iter()
            .find(|(name, _)| spec.name == *name)
            .unwrap()
            .1;
        (0..spec.len()).map(|k| least + random.uniform(k as u64, 90 + i as u32)).collect()
    });
    let params = params.collect();
    (circuit, params)
}

const LINEAR: [Law; 2] = [Law::Resistor, Law::CurrentSource];
/// Not reciprocal; some transistors saturate.
const TRANSISTORS: [Law; 3] = [
    Law::Transistor { strength: 0.6, threshold: 1.2 },
    Law::Cubic { scale: 0.5 },
    Law::CurrentSource,
];
/// With ideal diodes between free nodes.
const TIED: [Law; 3] = [Law::Resistor, Law::IdealDiode, Law::CurrentSource];
const CURVED: [Law; 3] =
    [Law::Resistor, Law::Cubic { scale: 0.5 }, Law::Diode { saturation: 1e-6, slope: 0.05 }];

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
) -> States<f64> {
    let plan = PhasePlan::from_free(Loss::SquaredError, phases, Settling::default());
    let mut states = States::new(System::<f64>::layout(circuit));
    let runtime = Runtime::new(Some(threads), 0).unwrap();
    let mut workspace = System::<f64>::workspace(circuit);
    let (params, draw) = (shared(params), DrawIndex::of_inference(0));
    let experiment = Experiment::new(&runtime, circuit, &params, batch, &plan, draw);
    experiment.run(&mut [], &mut states, &mut workspace).unwrap();
    states
}

#[test]
fn conformance() {
    let cases: [(usize, usize, &[Law]); 6] = [
        (6, 2, &LINEAR),
        (9, 3, &CURVED),
        (3, 3, &CURVED),
        (12, 1, &LINEAR),
        (10, 2, &TRANSISTORS),
        (10, 2, &TIED),
    ];
    for (nodes, outputs, laws) in cases {
        let (circuit, params) = random_circuit(nodes, outputs, laws, 4);
        for finding in check_system(&circuit, &params, 1).unwrap() {
            assert!(finding.passed, "{nodes} {laws:?}: {finding:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn kirchhoff_holds(
        nodes in 3usize..60, seed in 0u64..1000, kind in 0usize..4, gain in 0.1f64..2.0,
    ) {
        let laws: [&[Law]; 4] = [&LINEAR, &CURVED, &TRANSISTORS, &TIED];
        let (curved, laws) = (kind == 1, laws[kind]);
        let (circuit, params) = random_circuit(nodes, 2, laws, seed);
        let x: Vec<f64> = noise(5 * 3, 0).iter().map(|x| gain * x).collect();
        let y = noise(5 * 2, 1);
        let batch = Batch { x: Rows::all(&x, 3), y: Targets::Values(Rows::all(&y, 2)) };
        for phase in [
            Boundary::Nudged(0.3.into()),
            Boundary::Nudged((-0.001).into()),
            Boundary::Clamped(0.4),
        ] {
            let states = settled(&circuit, &params, &batch, vec![phase], 1);
            let bad: Vec<_> =
                states.outcomes.iter().filter(|o| o.status != Status::Converged).collect();
            // An ideal diode that clamped outputs and inputs drive forward has no operating point:
            // its current grows for ever.
            if kind == 3 && matches!(phase, Boundary::Clamped(_)) && !bad.is_empty() {
                continue;
            }
            prop_assert!(bad.is_empty(), "{:?} {:?}", phase, bad);
            let last = states.last_phase();
            let rest =
                residual(&circuit, &shared(&params), &batch, Loss::SquaredError, phase, &last)
                    .unwrap();
            // The largest current is at least what flows through the largest voltage at the
            // smallest conductance.
            let scale = last.values.iter().fold(1e-3f64, |m, v| m.max(0.2 * v.abs()));
            // Diodes between clamped outputs and inputs may carry far more.
            let scale =
                if curved && matches!(phase, Boundary::Clamped(_)) { f64::INFINITY } else { scale };
            prop_assert!(rest.iter().all(|&r| r < 1e-10 * scale), "{:?} {:?}", phase, rest);
            for threads in [2, 3, 8] {
                prop_assert_eq!(
                    &settled(&circuit, &params, &batch, vec![phase], threads).values[..],
                    &states.values[..]
                );
            }
        }
    }
}

fn gradient(
    method: &Method,
    circuit: &Circuit,
    params: &[Vec<f64>],
    batch: &Batch<'_, f64>,
) -> Vec<f64> {
    let runtime = Runtime::new(Some(1), 0).unwrap();
    let mut state = StepState::new(circuit);
    let (protocol, shared) = (method.protocol::<f64>(circuit).unwrap(), shared(params));
    protocol
        .step(&protocol.experiment(&runtime, circuit, &shared, batch, 0), &mut [], &mut state)
        .unwrap();
    let mut gradient = vec![Vec::new(); params.len()];
    write_gradient(&runtime, System::<f64>::specs(circuit), &mut state, &mut gradient);
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
        let exact =
            gradient(&ImplicitDifferentiation {}.with(LOSS, settling), &circuit, &params, &batch);
        for (variant, order) in [(Estimator::OneSided, 1.0), (Estimator::Centered, 2.0)] {
            let errors = [0.02, 0.01].map(|beta| {
                let sign = Sign::Positive;
                let method = EquilibriumPropagation { variant, beta: Some(beta), sign, points: 2 }
                    .with(LOSS, settling);
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
        let exact =
            gradient(&ImplicitDifferentiation {}.with(LOSS, settling), &circuit, &params, &batch);
        let tone = |amplitude: f64, points| {
            let method =
                FrequencyPropagation { amplitude: Some(amplitude), points }.with(LOSS, settling);
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
        let springs = |beta, softness, relaxations| {
            let method = AgnosticEquilibriumPropagation {
                beta: Some(beta),
                softness: Some(softness),
                relaxations,
            }
            .with(LOSS, settling);
            relative_error(&gradient(&method, &circuit, &params, &batch), &exact)
        };
        let errors = [springs(1e-4, 1e-4, 3), springs(1e-5, 1e-5, 3), springs(1e-6, 1e-6, 3)];
        assert!(
            errors[2] < 1e-4
                && errors.windows(2).all(|pair| (pair[0] / pair[1] - 10.0).abs() < 1.0),
            "{errors:?}"
        );
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
        let exact =
            gradient(&ImplicitDifferentiation {}.with(LOSS, settling), &circuit, &params, &batch);
        let method = CoupledLearning { eta: 1e-4, variant: Side::Centered }.with(LOSS, settling);
        let coupled = gradient(&method, &circuit, &params, &batch);
        let dot: f64 = coupled.iter().zip(&exact).map(|(a, b)| a * b).sum();
        let cosine = dot / norm(coupled.into_iter()) / norm(exact.into_iter());
        assert_eq!(cosine > 1.0 - 1e-7, parallel, "{outputs} outputs: {cosine}");
    }
}

/// An inequality v[from] - v[to] <= most; ground where there is no node.
struct Inequality {
    from: Option<usize>,
    to: Option<usize>,
    most: f64,
}

/// Against all subsets of diodes that may conduct: the one whose solution satisfies every
/// inequality.
#[test]
fn ideal_diodes_solve_the_quadratic_program() {
    let random = Philox::new(3, Purpose::Probe);
    for seed in 0..20u64 {
        let n = 6;
        let mut elements = Vec::new();
        let mut dense = vec![vec![0.0; n]; n];
        let mut right = vec![0.0; n];
        let mut inequalities = Vec::new();
        let resistor = |value: f64, trained: bool, from: Terminal, to: Terminal| ElementSpec {
            value,
            trained,
            ..element(Law::Resistor, from, to)
        };
        for i in 0..n {
            for j in 0..i {
                let g = 0.1 + random.uniform((i * n + j) as u64, 10 + seed as u32);
                elements.push(resistor(g, false, Terminal::node(i), Terminal::node(j)));
                dense[i][i] += g;
                dense[j][j] += g;
                dense[i][j] -= g;
                dense[j][i] -= g;
            }
            let (g, e) = (
                0.3 + random.uniform(i as u64, 40 + seed as u32),
                4.0 * random.normal(i as u64, 70 + seed as u32),
            );
            elements.push(resistor(g, i == 0, Terminal::node(i), Terminal::fixed(e)));
            dense[i][i] += if i == 0 { 0.9 } else { g };
            right[i] += if i == 0 { 0.9 } else { g } * e;
            // v >= 0 for even nodes, v <= 0.2 for odd ones.
            let (from, to, most) =
                if i % 2 == 0 { (None, Some(i), 0.0) } else { (Some(i), None, 0.2) };
            inequalities.push(Inequality { from, to, most });
        }
        // And some between free nodes, one with a source in series.
        for (from, to, most) in [(0, 3, 0.0), (4, 1, 0.0), (2, 5, 0.05)] {
            inequalities.push(Inequality { from: Some(from), to: Some(to), most });
        }
        let resistors = elements.len();
        for &Inequality { from, to, most } in &inequalities {
            let terminal = |node: Option<usize>| node.map_or(Terminal::fixed(0.0), Terminal::node);
            let to = Terminal { offset: most, ..terminal(to) };
            elements.push(element(Law::IdealDiode, terminal(from), to));
        }
        let circuit = Circuit::new(&spec(1, n, 1, elements)).unwrap();
        let batch = Batch { x: Rows::all(&[0.0][..], 1), y: Targets::None };
        let params = [vec![0.9]];
        let states = settled(&circuit, &params, &batch, vec![], 1);
        assert_eq!(states.outcomes[0].status, Status::Converged);
        let v = [states.layer(0, 0), states.layer(0, 1)].concat();
        let solutions: Vec<Vec<f64>> = (0..1 << inequalities.len())
            .filter_map(|subset: usize| {
                solve_with(&dense, &right, &inequalities, |d| subset >> d & 1 == 1)
            })
            .collect();
        assert!(!solutions.is_empty());
        let currents =
            circuit.currents(&Runtime::new(Some(1), 0).unwrap(), &shared(&params), &batch);
        for (found, expected) in v.iter().chain(&currents[resistors..]).zip(&solutions[0]) {
            assert!((found - expected).abs() < 1e-10, "{v:?} {currents:?} {solutions:?}");
        }
    }
}

/// Voltages, then the currents of all diodes, where those of a subset conduct; nothing if an
/// inequality is violated then.
fn solve_with(
    dense: &[Vec<f64>],
    right: &[f64],
    inequalities: &[Inequality],
    conducts: impl Fn(usize) -> bool,
) -> Option<Vec<f64>> {
    let (n, m) = (right.len(), inequalities.len());
    let mut a = vec![vec![0.0; n + m]; n + m];
    let mut b = [right, &vec![0.0; m]].concat();
    for i in 0..n {
        a[i][..n].copy_from_slice(&dense[i]);
    }
    for (d, inequality) in inequalities.iter().enumerate() {
        if !conducts(d) {
            a[n + d][n + d] = 1.0;
            continue;
        }
        for (node, sign) in [(inequality.from, 1.0), (inequality.to, -1.0)] {
            if let Some(node) = node {
                a[n + d][node] = sign;
                a[node][n + d] = sign;
            }
        }
        b[n + d] = inequality.most;
    }
    let found = solve_dense(&a, &b);
    let holds = inequalities.iter().enumerate().all(|(d, i)| {
        let at = |node: Option<usize>| node.map_or(0.0, |node| found[node]);
        found[n + d] >= -1e-12 && at(i.from) - at(i.to) <= i.most + 1e-12
    });
    holds.then_some(found)
}

/// Gaussian elimination.
fn solve_dense(a: &[Vec<f64>], b: &[f64]) -> Vec<f64> {
    let n = b.len();
    let mut rows: Vec<Vec<f64>> =
        a.iter().zip(b).map(|(row, &b)| [&row[..], &[b]].concat()).collect();
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

/// Where nodes are tied together, equilibrium propagation is as exact as elsewhere; with
/// transistors it is near.
#[test]
fn tied_nodes_and_transistors() {
    let (x, y) = (noise(4 * 3, 0), noise(4 * 3, 1));
    let batch = Batch { x: Rows::all(&x, 3), y: Targets::Values(Rows::all(&y, 3)) };
    let settling = Settling::default();
    for (laws, exact) in [(&TIED, true), (&TRANSISTORS, false)] {
        let (circuit, params) = random_circuit(24, 3, laws, 7);
        let found = [
            ImplicitDifferentiation {}.with(LOSS, settling),
            RecurrentBackprop { steps: 4000 }.with(LOSS, settling),
            EquilibriumPropagation {
                variant: Estimator::Centered,
                beta: Some(1e-5),
                sign: Sign::Positive,
                points: 2,
            }
            .with(LOSS, settling),
        ]
        .map(|method| gradient(&method, &circuit, &params, &batch));
        let [relaxed, error] = [1, 2].map(|k| relative_error(&found[k], &found[0]));
        assert!(relaxed < 1e-6, "{relaxed}");
        if exact {
            assert!(error < 1e-6, "{error}");
        } else {
            let dot: f64 = found[2].iter().zip(&found[0]).map(|(a, b)| a * b).sum();
            let cosine = dot / norm(found[2].iter().copied()) / norm(found[0].iter().copied());
            assert!(error > 1e-3 && cosine > 0.98, "{error} {cosine}");
        }
    }
}

/// A floating source shifts a node: the same circuit with the node's voltage written down by hand.
#[test]
fn floating_sources_shift() {
    let (n0, n1) = (Terminal::node(0), Terminal::node(1));
    let lifted = Terminal { offset: 0.4, ..n0 };
    let laws = [Law::Cubic { scale: 0.5 }, Law::Diode { saturation: 1e-6, slope: 0.05 }];
    for law in laws {
        let elements = vec![
            element(Law::Resistor, n0, Terminal::input(0)),
            element(law, lifted, n1),
            element(Law::Resistor, lifted, n0),
            element(Law::Resistor, n1, Terminal::fixed(0.0)),
        ];
        let circuit = Circuit::new(&spec(1, 2, 1, elements)).unwrap();
        let params = [vec![0.7; if matches!(law, Law::Cubic { .. }) { 4 } else { 3 }]];
        let batch = Batch { x: Rows::all(&[1.0][..], 1), y: Targets::None };
        let states = settled(&circuit, &params, &batch, vec![], 1);
        let (a, b) = (states.layer(0, 0)[0], states.layer(0, 1)[0]);
        // What flows in from the input flows through the element and to ground; the resistor beside
        // the source keeps its own.
        let through = law.current(0.7, a + 0.4 - b);
        assert!((0.7 * (1.0 - a) - through).abs() < 1e-14 && (0.7 * b - through).abs() < 1e-14);
        let currents =
            circuit.currents(&Runtime::new(Some(1), 0).unwrap(), &shared(&params), &batch);
        assert!(
            (currents[2] - 0.28).abs() < 1e-15 && (currents[1] - through).abs() < 1e-14,
            "{currents:?}"
        );
    }
}

#[test]
fn impossible_circuits_are_refused() {
    let resistor = |from, to| element(Law::Resistor, from, to);
    let (n0, n1, ground) = (Terminal::node(0), Terminal::node(1), Terminal::fixed(0.0));
    let refused = |elements: Vec<ElementSpec>, words: &str| {
        let error = Circuit::new(&spec(1, 2, 1, elements)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(vec![resistor(n0, n1)], "no conducting path from n0, n1");
    refused(
        vec![resistor(n0, ground), element(Law::CurrentSource, n1, ground)],
        "no conducting path from n1",
    );
    refused(vec![resistor(n0, Terminal::input(1)), resistor(n1, ground)], "no input 1");
    // Both ends at one place: nothing flows, and nothing is held.
    refused(vec![resistor(n0, n0), resistor(n1, ground)], "no conducting path from n0");
    let negative = ElementSpec { value: -1.0, trained: false, ..resistor(n0, ground) };
    refused(vec![negative, resistor(n1, ground)], "must be positive, got -1");
    let between = element(Law::IdealDiode, n0, n1);
    let across = ElementSpec { to: Terminal { offset: -1.0, ..n0 }, ..between };
    refused(
        vec![resistor(n0, ground), resistor(n1, ground), across],
        "no source holds against the other",
    );
    let diode = |from, to| element(Law::IdealDiode, from, to);
    let contradiction = vec![diode(n0, ground), diode(Terminal::fixed(1.0), n0)];
    refused(
        [vec![resistor(n0, ground), resistor(n1, ground)], contradiction].concat(),
        "above 1 and below 0",
    );
}

/// Conductances that training has brought to zero cut a node off: it has no operating point, and
/// says so.
#[test]
fn a_node_cut_off_is_unbounded() {
    for law in [Law::Resistor, Law::Cubic { scale: 1.0 }] {
        let elements = vec![
            element(law, Terminal::node(0), Terminal::input(0)),
            element(law, Terminal::node(1), Terminal::node(0)),
        ];
        let circuit = Circuit::new(&spec(1, 2, 1, elements)).unwrap();
        let batch = Batch { x: Rows::all(&[1.0][..], 1), y: Targets::None };
        assert_eq!(
            settled(&circuit, &[vec![1.0, 0.5]], &batch, vec![], 1).outcomes[0].status,
            Status::Converged
        );
        let states = settled(&circuit, &[vec![1.0, 0.0]], &batch, vec![], 1);
        assert_eq!(states.outcomes[0].status, Status::Unbounded);
        assert!(states.values.iter().all(|&v| v == 0.0));
    }
}
