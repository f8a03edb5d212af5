//! Currents and differences of voltages as outputs of circuits, and currents as inputs.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use pnncore::batch::{Batch, Rows, Targets};
use pnncore::check::check_system;
use pnncore::device::Device;
use pnncore::draw::DrawIndex;
use pnncore::kernels::philox::{Philox, Purpose};
use pnncore::loss::Loss;
use pnncore::method::MethodConfig;
use pnncore::method::recurrent_backprop::RecurrentBackprop;
use pnncore::params::Params;
use pnncore::plan::{Boundary, PhasePlan};
use pnncore::runtime::Runtime;
use pnncore::settling::Settling;
use pnncore::states::States;
use pnncore::system::circuit::{
    BranchSpec, Circuit, ElementSpec, InputCurrent, Law, Place, Spec, Terminal,
};
use pnncore::system::{Experiment, System, residual};

const NODES: usize = 8;
const DIODE: Law = Law::Diode { saturation: 1e-3, slope: 0.3 };

/// A chain of resistors along unknowns 0 to 6 and 10, with other elements from it to ground and to
/// unknown 7, a column that an ammeter holds at 0.2 V. Unknown 8 hangs on the chain, 9 is the
/// current of a voltmeter. Outputs: the end of the chain, what the voltmeter shows between nodes 2
/// and 5, and the current of the ammeter. Inputs: a voltage, and a current into node 3.
fn spec(laws: &[Law], seed: u64) -> Spec {
    let random = Philox::new(seed, Purpose::Probe);
    let mut elements = Vec::new();
    let mut join = |law, from, to, trained| {
        let value = 0.5 + random.uniform(elements.len() as u64, 0);
        elements.push(ElementSpec { law, from, to, value, trained });
    };
    join(Law::Resistor, Terminal::input(0), Terminal::node(0), true);
    for node in 1..NODES {
        // Node 7 is unknown 10, an output.
        let at = |node: usize| Terminal::node(if node == 7 { 10 } else { node });
        join(Law::Resistor, at(node - 1), at(node), true);
        let end = if node % 2 == 0 { Terminal::fixed(0.0) } else { Terminal::node(7) };
        let law = laws[node % laws.len()];
        let trained = !matches!(law, Law::Diode { .. } | Law::IdealDiode);
        join(law, at(node), end, trained);
    }
    join(Law::Resistor, Terminal::node(8), Terminal::node(1), false);
    Spec {
        inputs: 2,
        outputs: 3,
        nodes: (0..13).map(|k| format!("n{k}")).collect(),
        elements,
        branches: vec![
            BranchSpec {
                from: Terminal::node(7),
                to: Terminal::fixed(0.2),
                current: 12,
                across: None,
            },
            BranchSpec {
                from: Terminal::node(2),
                to: Terminal::node(5),
                current: 9,
                across: Some(11),
            },
        ],
        input_currents: vec![InputCurrent {
            input: 1,
            from: Terminal::fixed(0.0),
            to: Terminal::node(3),
        }],
        device: Device { lower: Some(0.0), ..Device::IDEAL },
    }
}

fn circuit(laws: &[Law], seed: u64) -> (Circuit, Vec<Vec<f64>>) {
    let circuit = Circuit::new(&spec(laws, seed)).expect("a circuit");
    let random = Philox::new(seed, Purpose::Initialise);
    let specs = System::<f64>::specs(&circuit);
    let fill = |p: usize, len: usize| {
        (0..len).map(|k| 0.5 + random.uniform(k as u64, p as u32)).collect::<Vec<f64>>()
    };
    let params = specs.iter().enumerate().map(|(p, spec)| fill(p, spec.shape[0])).collect();
    (circuit, params)
}

fn kinds() -> Vec<Vec<Law>> {
    vec![
        vec![Law::Resistor],
        vec![DIODE, Law::Resistor],
        vec![Law::Cubic { scale: 0.4 }],
        vec![Law::IdealDiode, Law::Resistor],
        vec![Law::Transistor { strength: 0.7, threshold: 0.1 }, DIODE],
        vec![Law::CurrentSource, Law::Resistor],
    ]
}

#[test]
fn derivatives_are_those_of_the_loss() {
    for (seed, laws) in kinds().into_iter().enumerate() {
        let (circuit, params) = circuit(&laws, seed as u64);
        for finding in check_system(&circuit, &params, 3).expect("a check") {
            assert!(finding.passed, "{laws:?}: {}: {}", finding.check, finding.message);
        }
    }
}

#[test]
fn nothing_is_left_under_any_boundary() {
    let x = [0.8, -0.3, -0.5, 1.1, 0.1, 0.0];
    let y = [0.3, -0.2, 0.4, 0.1, 0.5, -0.6, 0.0, 0.2, 0.7];
    let boundaries = [
        Boundary::Free,
        Boundary::Nudged(0.2.into()),
        Boundary::Clamped(0.5),
        Boundary::Forced(0.1),
    ];
    for (seed, laws) in kinds().into_iter().enumerate() {
        let (circuit, params) = circuit(&laws, seed as u64);
        let batch = Batch { x: Rows::all(&x, 2), y: Targets::Values(Rows::all(&y, 3)) };
        let shared = || Params::shared(params.iter().map(Vec::as_slice));
        for boundary in boundaries {
            let settle = |threads| {
                let runtime = Runtime::new(Some(threads), 0).unwrap();
                let plan =
                    PhasePlan::from_free(Loss::SquaredError, vec![boundary], Settling::default());
                let mut states = States::new(System::<f64>::layout(&circuit));
                let shared = shared();
                let draw = DrawIndex::of_step(0);
                let experiment = Experiment::new(&runtime, &circuit, &shared, &batch, &plan, draw);
                let mut workspace = System::<f64>::workspace(&circuit);
                experiment.run(&mut [], &mut states, &mut workspace).unwrap();
                states
            };
            if matches!(boundary, Boundary::Clamped(_)) && laws.contains(&DIODE) {
                // A column that diodes alone lead to cannot carry any current.
                continue;
            }
            let states = settle(1);
            assert_eq!(states.values, settle(3).values, "{laws:?} {boundary:?}");
            assert!((0..3).all(|i| states.usable(i)), "{laws:?} {boundary:?}");
            let left = residual(&circuit, &shared(), &batch, Loss::SquaredError, boundary, &states)
                .unwrap();
            assert!(left.iter().all(|&left| left < 1e-9), "{laws:?} {boundary:?}: {left:?}");
        }
    }
}

#[test]
fn relaxation_is_refused() {
    let (circuit, _) = circuit(&[Law::Resistor], 0);
    let method = RecurrentBackprop { steps: 10 }.with(Loss::SquaredError, Settling::default());
    let error = method.protocol::<f64>(&circuit).map(|_| ()).expect_err("a refusal").to_string();
    assert!(error.contains("a steady state that relaxation reaches"), "{error}");
}

#[test]
fn branches_that_contradict_are_refused() {
    type Change = fn(&mut Spec);
    let changes: [(&str, Change); 5] = [
        ("no unknown 40", |spec| spec.branches[0].current = 40),
        ("unknown 12 is that of two", |spec| spec.branches[1].current = 12),
        ("is at no node", |spec| spec.elements[1].from = Terminal::node(12)),
        ("is at an input that is no voltage", |spec| spec.elements[1].from.place = Place::Input(1)),
        ("is there once", |spec| spec.input_currents[0].input = 7),
    ];
    for (message, change) in changes {
        let mut spec = spec(&[Law::Resistor], 0);
        change(&mut spec);
        let error = Circuit::new(&spec).expect_err("a refusal").to_string();
        assert!(error.contains(message), "{error}");
    }
}
