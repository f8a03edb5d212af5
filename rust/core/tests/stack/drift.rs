//! What hardware keeps from step to step: read by every experiment, written by steps that succeed,
//! and by nothing else.

use super::*;
use pnncore::divergence::Divergence;

const DRIFT: f64 = 0.02;

/// Light through a mesh, on six modes.
fn mesh(drift: f64) -> Vec<LayerChoice> {
    let mesh = MZIMeshSpec { loss: 0.1, drift, ..MZIMeshSpec::new(MeshLayout::Clements, 6, 6) };
    let carrier = Carrier::Amplitude;
    vec![
        EncodeSpec::new(Some(6), carrier).into(),
        mesh.into(),
        DetectSpec::new(Quantity::Intensity).into(),
    ]
}

/// Light between a linear map and another one; the mesh is the third layer.
fn net(drift: f64) -> Stack<f64> {
    stack(&[&[linear(5, 6)], &mesh(drift)[..], &[linear(6, 3)]].concat(), 0.05, 0.0)
}

/// The drift of every phase after so many steps, by hand, and their number.
fn walked(net: &Stack<f64>, steps: u64) -> Vec<Vec<f64>> {
    let drawn = Philox::new(3, Purpose::Drift);
    let specs = System::<f64>::memory(net);
    let walk = |(i, spec): (usize, &ParamSpec)| {
        let step = |k: usize| move |n: u64| DRIFT * drawn.at(n).normal(k as u64, 16 + i as u32);
        (0..spec.len()).map(|k| (0..steps).map(step(k)).fold(0.0, |sum, off| sum + off)).collect()
    };
    let phases = specs[..specs.len() - 1].iter().enumerate();
    phases.map(walk).chain([vec![steps as f64, 0.0]]).collect()
}

fn slices(memory: &[Vec<f64>]) -> Vec<&[f64]> {
    memory.iter().map(Vec::as_slice).collect()
}

fn measured(
    net: &Stack<f64>,
    params: &[Vec<f64>],
    memory: &[&[f64]],
    data: &Data<f64>,
) -> Vec<f64> {
    let (runtime, values, batch) =
        (Runtime::new(Some(1), 1).unwrap(), shared(params), data.batch());
    let (plan, draw) =
        (PhasePlan::free(Loss::SquaredError, Settling::default()), DrawIndex::of_inference(0));
    let experiment =
        Experiment { memory, ..Experiment::new(&runtime, net, &values, &batch, &plan, draw) };
    let mut states = States::new(System::<f64>::layout(net));
    experiment.infer(&mut states, &mut System::<f64>::workspace(net)).unwrap();
    (0..states.rows()).flat_map(|r| states.outputs(r).to_vec()).collect()
}

/// Names are those of the phases; a mesh that does not drift keeps nothing.
#[test]
fn meshes_that_drift_keep_how_far() {
    let (net, still) = (net(DRIFT), net(0.0));
    let found: Vec<_> =
        System::<f64>::memory(&net).iter().map(|spec| (spec.name.clone(), spec.len())).collect();
    let wanted = [("theta_drift3", 15), ("phi_drift3", 15), ("gamma_drift3", 6), ("clock", 2)]
        .map(|(n, len)| (n.to_owned(), len));
    assert_eq!(found, wanted);
    assert!(System::<f64>::memory(&still).is_empty());
}

/// Drifted hardware is hardware at other phases; the twin knows nothing of it.
#[test]
fn drift_is_an_offset_of_phases() {
    let (drifting, still, data) = (net(DRIFT), net(0.0), Data::new(7, 5));
    let (params, memory) = (initial(&drifting), walked(&drifting, 40));
    let mut moved = params.clone();
    let phases =
        System::<f64>::specs(&drifting).iter().position(|spec| spec.name == "theta3").unwrap();
    for (own, off) in moved[phases..].iter_mut().zip(&memory[..3]) {
        own.iter_mut().zip(off).for_each(|(phase, off)| *phase += off);
    }
    let found = measured(&drifting, &params, &slices(&memory), &data);
    assert!(difference(&found, &measured(&still, &moved, &[], &data)) < 1e-12);
    assert!(difference(&found, &measured(&drifting, &params, &[], &data)) > 1e-3);
    assert_eq!(measured(&drifting, &params, &[], &data), measured(&still, &params, &[], &data));
}

/// Errors come back through twins, which do not drift, at what drifted hardware has measured.
#[test]
fn twins_do_not_drift() {
    let (drifting, data) = (net(DRIFT), Data::new(7, 5));
    let (params, memory) = (initial(&drifting), walked(&drifting, 40));
    let (runtime, values, batch) =
        (Runtime::new(Some(1), 1).unwrap(), shared(&params), data.batch());
    let found = |memory: &[&[f64]], measured_at: &[&[f64]]| {
        let (mut propagation, mut state) = (Propagation::default(), StepState::new(&drifting));
        let mut gradient = vec![Vec::new(); params.len()];
        let at =
            StackAt { runtime: &runtime, stack: &drifting, params: &values, memory: measured_at };
        propagation.begin(&drifting, &batch);
        propagation.forward(at, Layers::Hardware, true, DrawIndex::of_step(0)).unwrap();
        propagation.seed_output_errors(Loss::CrossEntropy, &batch.y);
        let rule = BackwardRule::of(Layers::Twin, false);
        propagation.backward(StackAt { memory, ..at }, &rule, &mut state.update).unwrap();
        state.states.reset(batch.len(), 1, false);
        write_gradient(&runtime, System::<f64>::specs(&drifting), &mut state, &mut gradient);
        gradient
    };
    let memory = slices(&memory);
    assert_eq!(found(&memory, &memory), found(&[], &memory));
    assert_ne!(found(&memory, &memory), found(&memory, &[]));
}

/// Trains with plain gradient descent at a rate; the parameters, the memory, and why training
/// ended.
fn trained(
    steps: usize,
    rate: f64,
    calls: usize,
) -> (Vec<Vec<f64>>, Vec<Vec<f64>>, Option<Divergence>) {
    let (net, data) = (net(DRIFT), Data::new(16 * steps, 5));
    let mut params = initial(&net);
    let mut memory: Vec<Vec<f64>> =
        System::<f64>::memory(&net).iter().map(|spec| vec![0.0; spec.len()]).collect();
    let protocol = method(PhysicsAware {}).protocol::<f64>(&net).unwrap();
    let optimizer = Optimizer::SGD { momentum: 0.0, weight_decay: 0.0 };
    let (order, rates) = ((0..16 * steps as u64).collect::<Vec<_>>(), vec![rate; params.len()]);
    let runtime = Runtime::new(Some(1), 1).unwrap();
    let mut progress = Progress::default();
    for call in 0..calls {
        let task = TrainingTask {
            system: &net,
            protocol: &protocol,
            optimizer: &optimizer,
            rates: &rates,
            data: data.batch(),
            order: &order,
            batch_size: 16,
        };
        let first = call * steps / calls;
        let budget = StepBudget {
            first,
            before: 0,
            steps: (call + 1) * steps / calls - first,
            time: Duration::MAX,
            first_epoch: 0.0,
        };
        let mut lent = Params::exclusive(params.iter_mut().map(Vec::as_mut_slice));
        let mut kept: Vec<&mut [f64]> = memory.iter_mut().map(Vec::as_mut_slice).collect();
        runtime
            .enter(|| train(&runtime, task, budget, &mut lent, &mut kept, &mut progress))
            .unwrap();
    }
    (params, memory, progress.divergence)
}

/// Each step of training moves what drifts once, after it, however the steps are divided into
/// calls.
#[test]
fn steps_move_what_drifts() {
    let (params, memory, divergence) = trained(6, 0.1, 1);
    assert_eq!((divergence, &memory), (None, &walked(&net(DRIFT), 6)));
    assert_eq!(trained(6, 0.1, 3), (params, memory, None));
    // A step sees the hardware as it was when the step began: the first one, as it is without
    // drift.
    assert_ne!(trained(1, 0.1, 1).0, initial(&net(DRIFT)));
}

/// A step that is taken back leaves what drifts as it was.
#[test]
fn steps_that_are_taken_back_move_nothing() {
    let (params, memory, divergence) = trained(1, f64::INFINITY, 1);
    assert_eq!(divergence, Some(Divergence::Parameters));
    assert_eq!((params, memory), (initial(&net(DRIFT)), walked(&net(DRIFT), 0)));
}

/// Hardware has a clock of its own: training that begins anew goes on with the walk. What is
/// counted in single precision is counted beyond what it tells apart.
#[test]
fn walks_go_on_where_they_stopped() {
    let net = net(DRIFT);
    let mut memory = walked(&net, 5);
    let mut kept: Vec<&mut [f64]> = memory.iter_mut().map(Vec::as_mut_slice).collect();
    (0..3).for_each(|_| System::<f64>::advance(&net, &mut kept));
    assert_eq!(memory, walked(&net, 8));
    let single = stack::<f32>(&[vec![linear(5, 6)], mesh(DRIFT)].concat(), 0.0, 0.0);
    let sizes: Vec<usize> = System::<f32>::memory(&single).iter().map(ParamSpec::len).collect();
    let mut memory: Vec<Vec<f32>> = sizes.iter().map(|&n| vec![0.0; n]).collect();
    let clock = memory.len() - 1;
    memory[clock] = vec![1_048_575.0, 40.0];
    let mut kept: Vec<&mut [f32]> = memory.iter_mut().map(Vec::as_mut_slice).collect();
    System::<f32>::advance(&single, &mut kept);
    assert_eq!(memory[clock], [0.0, 41.0]);
    let drawn = Philox::new(3, Purpose::Drift).at((1 << 20) * 41 - 1).normal(0, 16);
    assert_eq!(memory[0][0], (DRIFT * drawn) as f32);
}
