//! Training does not allocate once it runs: counted, not believed, for every system and layer.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::alloc::{GlobalAlloc, Layout, System as Heap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pnncore::batch::{Batch, Rows, Targets};
use pnncore::kernels::BothPrecisions;
use pnncore::method::Method;
use pnncore::optim::Optimizer;
use pnncore::params::Params;
use pnncore::runtime::Runtime;
use pnncore::system::{AnySystem, System};
use pnncore::train::{Progress, StepBudget, TrainingTask, cells, train};
use serde_json::{Value, json};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { Heap.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { Heap.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

/// Samples of a step.
const BATCH: usize = 40;

/// Allocations of a call that makes `steps` steps.
fn allocations(system: &dyn System<f32>, method: &Method, threads: usize, steps: usize) -> usize {
    let runtime = Runtime::new(Some(threads), 0).unwrap();
    let mut params: Vec<Vec<f32>> = system.specs().iter().map(|s| vec![0.5; s.len()]).collect();
    let mut values: Vec<&mut [f32]> = params.iter_mut().map(Vec::as_mut_slice).collect();
    system.initialise(&runtime, 1, 0.7, &mut values);
    let ((n, m), samples) = ((system.takes().numbers(), system.outputs()), BATCH * steps);
    let x: Vec<f32> = (0..samples * n).map(|i| ((i * 7919) % 101) as f32 / 101.0).collect();
    let y: Vec<f32> = (0..samples * m).map(|i| ((i * 31) % 11) as f32 / 11.0).collect();
    let order: Vec<u64> = (0..samples as u64).collect();
    let protocol = method.protocol(system).unwrap();
    let rates = vec![1e-3; params.len()];
    let optimizer = Optimizer::SGD { momentum: 0.0, weight_decay: 0.0 };
    let task = TrainingTask {
        system,
        protocol: &protocol,
        optimizer: &optimizer,
        rates: &rates,
        data: Batch { x: Rows::all(&x, n), y: Targets::Values(Rows::all(&y, m)) },
        order: &order,
        batch_size: BATCH,
    };
    let budget = StepBudget { first: 0, before: 0, steps, time: Duration::MAX, first_epoch: 0.0 };
    let own = protocol.memory(system);
    let kept = cells(system).into_iter().chain(system.memory().to_vec()).chain(own);
    let mut arrays: Vec<Vec<f32>> = kept.map(|spec| vec![0.0; spec.len()]).collect();
    let mut memory: Vec<&mut [f32]> = arrays.iter_mut().map(Vec::as_mut_slice).collect();
    let mut values = Params::exclusive(params.iter_mut().map(Vec::as_mut_slice));
    let mut progress = Progress::default();
    runtime.enter(|| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        train(&runtime, task, budget, &mut values, &mut memory, &mut progress).unwrap();
        let found = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!((progress.divergence, progress.usable), (None, samples as u64));
        found
    })
}

/// Refuses a step that allocates, on one thread and on two.
fn check(name: &str, spec: &Value, method: &Value) {
    let system = AnySystem::build(name, &spec.to_string()).unwrap();
    let method: Method = serde_json::from_value(method.clone()).unwrap();
    for threads in [1, 2] {
        let count = |steps: usize| allocations(system.f32(), &method, threads, steps);
        count(2);
        // Lists may still grow now and then while parameters learn, the pool's queues come in
        // blocks, and a thread makes buffers of its own when it first gets work, which may be late
        // where others are busy: what steps allocate, they allocate in every try.
        let mut tries = Vec::new();
        let is_steady = (0..5).any(|_| {
            let (short, long) = (count(20), count(80));
            tries.push((short, long));
            long as f64 - (short as f64) < 0.3 * 60.0
        });
        assert!(
            is_steady,
            "{name}, {threads} threads: in 20, then in 80 steps {tries:?} allocations: {method:?}, \
             {spec}"
        );
    }
}

fn equilibrium_propagation() -> Value {
    json!({
        "name": "EquilibriumPropagation", "loss": "squared-error", "beta": null,
        "variant": "centered", "sign": "positive", "points": 8,
        "settling": {
            "stop": "automatic", "max-sweeps": [10000, 200], "order": "asynchronous",
            "output-update": "exact",
        },
    })
}

fn device() -> Value {
    json!({
        "lower": 0.0, "upper": null, "levels": null, "write_noise": 0.0, "open": 0.0,
        "shorted": 0.0, "seed": 0,
    })
}

/// A circuit with one node more than inputs, each of which an element of a law joins to the output.
fn circuit(law: &Value) -> Value {
    let at = |place: &str, k: usize| json!({place: k, "offset": 0.0});
    let ground = || json!({"fixed": 0.0, "offset": 0.0});
    let joined = |own: &Value, from: Value, to: Value| {
        let mut element = own.clone();
        let Value::Object(fields) = &mut element else { return element };
        fields.extend([("from".to_owned(), from), ("to".to_owned(), to)]);
        element
    };
    let resistor = json!({"law": "resistor", "value": 1.0, "trained": true});
    let elements = [
        joined(&resistor, at("input", 0), at("node", 0)),
        joined(&resistor, at("input", 1), at("node", 1)),
        joined(&resistor, at("node", 0), at("node", 1)),
        joined(law, at("node", 0), at("node", 2)),
        joined(law, at("node", 1), at("node", 2)),
        joined(&resistor, at("node", 2), ground()),
    ];
    json!({
        "inputs": 2, "outputs": 1, "nodes": ["a", "b", "out"], "elements": elements,
        "device": device(),
    })
}

/// Systems that settle or move, each with a method.
fn others() -> Vec<(&'static str, Value, Value)> {
    let hopfield = |layers: &[usize]| {
        let tile = Value::Null;
        json!({"layers": layers, "activation": "hard-sigmoid", "tile": tile, "seed": 0})
    };
    let rounded = json!({
        "layers": [20, 30, 20, 10], "activation": "tanh", "tile": null, "seed": 0,
        "precision": "bfloat16",
    });
    let laws = [
        json!({"law": "resistor", "value": 2.0, "trained": true}),
        json!({"law": "diode", "saturation": 1e-3, "slope": 0.04}),
        json!({"law": "cubic", "scale": 0.3, "value": 1.0, "trained": true}),
        json!({
            "law": "transistor", "strength": 1.0, "threshold": 0.0, "value": 3.0, "trained": true,
        }),
    ];
    let sheet = json!({
        "positions": [[0.0, 0.0], [0.1, 1.0], [1.0, 0.1], [0.9, 1.1], [2.0, 0.0], [2.1, 0.9]],
        "springs": [[1, 0], [2, 0], [2, 1], [3, 0], [3, 1], [3, 2], [4, 2], [4, 3], [5, 3], [5, 4]],
        "inputs": [[2, 0]], "outputs": [[4, 0], [5, 1]], "fixed": [0, 1], "device": device(),
    });
    let chain = json!({
        "masses": 6, "inputs": 3, "outputs": 2, "time": 2.0, "steps": 20, "damping": 0.0,
    });
    let echo = json!({"name": "HamiltonianEcho", "loss": "squared-error", "kick": 0.01});
    let deep = json!({"layers": [12, 20, 4], "input_gain": 100.0, "device": device()});
    let circuits = laws.iter().map(|law| ("Circuit", circuit(law), equilibrium_propagation()));
    let settling = [
        ("Hopfield", hopfield(&[64, 128, 10])),
        ("Hopfield", hopfield(&[20, 30, 20, 10])),
        ("Hopfield", rounded),
        ("DeepResistive", deep),
        ("Elastic", sheet),
    ];
    let settling = settling.map(|(name, spec)| (name, spec, equilibrium_propagation()));
    settling.into_iter().chain(circuits).chain([("HamiltonianChain", chain, echo)]).collect()
}

/// A crossbar of six lines in tiles, with all that a read can be.
fn crossbar(passes: &str, noise: &str, wires: &Value, remap: &Value) -> Value {
    let io = json!({
        "input_bound": 1.0, "input_noise": 0.01, "output_bound": 12.0, "output_noise": 0.06,
        "output_offset": 0.01, "passes": passes, "weight_noise": 0.01, "weight_noise_kind": noise,
        "s_shape": 0.1, "stochastic_rounding": passes == "one", "scale": "absmax",
        "bound_management": passes != "bits", "input_steps": 126, "output_steps": 510,
    });
    json!({
        "kind": "crossbar", "inputs": 6, "outputs": 6, "bias": true, "clip": 1.0, "tile": null,
        "hardware": {"most": [4, 4], "io": io, "backward": io, "wires": wires, "remap": remap},
    })
}

fn linear(inputs: usize, outputs: usize) -> Value {
    json!({"kind": "linear", "inputs": inputs, "outputs": outputs, "bias": true})
}

/// Every kind of layer, in chains from six signals to so many.
fn chains() -> Vec<(Vec<Value>, usize)> {
    let wires = json!({
        "resistances": {"row": 1.0, "column": 0.5, "driver": 0.0, "sense": 2.0},
        "on": 1e-4, "off": 1e-6, "weight": null, "exact": true, "tolerance": 1e-6,
    });
    let pointwise = |function: Value| (vec![json!({"kind": "pointwise", "function": function})], 6);
    let mesh = |layout: &str, loss: f64, drift: f64| {
        let voltage = if drift == 0.0 { json!(2.0) } else { Value::Null };
        json!({
            "kind": "mzi-mesh", "inputs": 6, "outputs": 6, "layout": layout, "loss": loss,
            "coupler_error": 0.01, "coupler_errors": [], "phase_error": 0.01, "crosstalk": 0.01,
            "bits": 8, "half_wave_voltage": voltage, "drift": drift, "tap_noise": 0.01,
        })
    };
    let encode = |carrier: &str| {
        json!({
            "kind": "encode", "inputs": 6, "carrier": carrier, "modes": null, "ports": [],
            "references": [],
        })
    };
    let detect = |quantity: &str| {
        json!({
            "kind": "detect", "quantity": quantity, "photons": 100.0, "dark_counts": 0.0,
            "bits": 8, "full_scale": 4.0,
        })
    };
    let none = Value::Null;
    let with = |mut layer: Value, place: &str, precision: &str| {
        layer.pointer_mut(place).unwrap()["precision"] = precision.into();
        layer
    };
    let mut integers =
        with(crossbar("bits", "additive", &none, &json!("array")), "/hardware", "int8");
    for way in ["io", "backward"] {
        integers["hardware"][way]["input_noise"] = 0.0.into();
    }
    vec![
        (vec![linear(6, 6); 12], 6),
        (vec![with(linear(6, 6), "", "bfloat16"); 3], 6),
        (vec![integers], 6),
        pointwise(json!({"function": "relu"})),
        pointwise(json!({"function": "tanh"})),
        pointwise(json!({"function": "logistic"})),
        (vec![json!({"kind": "normalise"})], 6),
        (vec![json!({"kind": "speckle", "inputs": 6, "outputs": 7, "reference": 0.3})], 7),
        (vec![json!({"kind": "second-harmonic", "inputs": 6, "parameters": 5})], 21),
        (vec![json!({"kind": "pendula", "inputs": 6, "time": 2.0, "steps": 20})], 6),
        (
            vec![json!({
                "kind": "plate", "inputs": 6, "parameters": 3, "modes": 5, "damping": 0.1,
                "cubic": 0.5,
            })],
            9,
        ),
        (vec![json!({"kind": "transistor", "inputs": 6, "parameters": 3})], 9),
        (vec![encode("phase"), mesh("clements", 0.01, 0.0), detect("intensity")], 6),
        (vec![encode("amplitude"), mesh("reck", 3.0, 0.01), detect("balanced")], 3),
        (vec![encode("amplitude"), mesh("svd", 0.01, 0.01), detect("quadratures")], 12),
        (
            vec![
                json!({
                    "kind": "coupled-modes", "modes": 9, "inputs": 6,
                    "edges": [[0, 6], [1, 6], [2, 7], [3, 7], [4, 5], [5, 8], [6, 8]],
                    "outputs": [[8, 8], [7, 0]], "decay": 0.7, "loss": 0.1, "frequency": 0.2,
                    "probe": 1.5, "tunable_decay": true, "probe_noise": 0.01,
                }),
                detect("quadratures"),
            ],
            4,
        ),
        (
            vec![json!({
                "kind": "microring-bank", "inputs": 6, "outputs": 4, "spacing": 3.0,
                "finesse": 40.0, "resonance_error": 0.1, "crosstalk": 0.05, "bits": 8,
                "drift": 0.01,
            })],
            4,
        ),
        (
            vec![
                encode("amplitude"),
                json!({
                    "kind": "diffraction", "shape": [2, 3], "distance": 5.0, "wavelength": 1.0,
                    "pitch": 0.8, "mask": "complex", "absorption": 0.1, "bits": 6,
                }),
                json!({
                    "kind": "detector-regions", "shape": [2, 3],
                    "regions": [[0, 0, 1, 3], [1, 1, 2, 3]], "differential": false, "gain": 3.0,
                    "photons": 1e3, "dark_counts": 1.0, "bits": 8, "full_scale": 5.0,
                }),
            ],
            2,
        ),
        (
            vec![
                encode("amplitude"),
                json!({
                    "kind": "waveguide", "points": 6, "width": 20.0, "length": 70.0,
                    "wavelength": 1.5, "index": 1.6, "index_range": 0.02, "steps": 8,
                    "sections": 4, "pixels": 3, "absorber": 0.2,
                }),
                detect("intensity"),
            ],
            6,
        ),
        (
            vec![
                encode("phase"),
                json!({
                    "kind": "fibre", "points": 6, "window": 5.0, "length": 1.5,
                    "dispersion": -1.0, "nonlinearity": 0.5, "pulse": "gaussian",
                    "duration": 1.0, "peak_power": 1.0, "steps": 10,
                }),
                detect("intensity"),
            ],
            6,
        ),
        (vec![crossbar("one", "additive", &none, &none)], 6),
        (vec![crossbar("bits", "phase-change", &none, &json!("columns"))], 6),
        (vec![crossbar("signs", "additive", &none, &json!("array"))], 6),
        (vec![crossbar("one", "additive", &wires, &none)], 6),
    ]
}

/// A chain between linear maps, on hardware that is its twin or is not, by every way through a
/// stack that there is.
fn check_chain(chain: &[Value], width: usize) {
    let layers = [&[linear(5, 6)][..], chain, &[linear(width, 3)]].concat();
    let is_light = layers.iter().any(|layer| layer["kind"] == "encode");
    for (noise, mismatch) in [(0.0, 0.0), (if is_light { 0.0 } else { 0.01 }, 0.05)] {
        let entry = |layer: &Value| json!({"layer": layer, "noise": null, "mismatch": null});
        let layers: Vec<Value> = layers.iter().map(entry).collect();
        let spec = json!({
            "layers": layers, "noise": noise, "mismatch": mismatch, "seed": 0, "numbered": true,
        });
        let methods = [
            json!({
                "name": "Backprop", "loss": "squared-error", "model": "twin", "noise": 0.0,
                "vaccination": 0.0,
            }),
            json!({"name": "PhysicsAware", "loss": "squared-error"}),
            json!({"name": "InSituBackprop", "loss": "squared-error"}),
        ];
        methods.iter().for_each(|method| check("Stack", &spec, method));
    }
}

/// The names in what refuses another one.
fn known(refusal: &str) -> impl Iterator<Item = &str> {
    let (_, names) = refusal.split_once("expected one of ").unwrap();
    names.split([',', ' ', '`', '"']).filter(|name| !name.is_empty())
}

// One test: allocations are counted for the whole process.
#[test]
fn steps_do_not_allocate_in_steady_state() {
    let (others, chains) = (others(), chains());
    others.iter().for_each(|(name, spec, method)| check(name, spec, method));
    chains.iter().for_each(|(chain, width)| check_chain(chain, *width));
    let refusal = AnySystem::build("", "").unwrap_err().to_string();
    for system in known(&refusal).filter(|system| *system != "Stack") {
        assert!(others.iter().any(|(name, ..)| *name == system), "no case of {system}");
    }
    let layer = json!({"layer": {"kind": ""}, "noise": null, "mismatch": null});
    let spec = json!({
        "layers": [layer], "noise": 0.0, "mismatch": 0.0, "seed": 0, "numbered": true,
    });
    let refusal = AnySystem::build("Stack", &spec.to_string()).unwrap_err().to_string();
    let (names, _) = refusal.split_once(", foreign").unwrap();
    for kind in known(names) {
        let is_own = |chain: &[Value]| chain.iter().any(|layer| layer["kind"] == kind);
        assert!(chains.iter().any(|(chain, _)| is_own(chain)), "no case of {kind}");
    }
}
