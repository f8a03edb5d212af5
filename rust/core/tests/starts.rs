//! Where phases start: at rest, or at states that are given.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use num_complex::Complex;
use pnncore::batch::{Batch, Rows, Targets};
use pnncore::draw::DrawIndex;
use pnncore::kernels::Real;
use pnncore::loss::Loss;
use pnncore::params::Params;
use pnncore::plan::{Boundary, Phase, PhasePlan, Start};
use pnncore::runtime::Runtime;
use pnncore::settling::{Settling, Stop};
use pnncore::states::{States, Status};
use pnncore::system::hopfield::Activation;
use pnncore::system::layered::Layered;
use pnncore::system::{AnySystem, Experiment, System};

fn shared(params: &[Vec<f64>]) -> Params<'_, f64> {
    Params::shared(params.iter().map(Vec::as_slice))
}

/// A network with two steady states ends in that of the basin that it starts in; phases then start
/// from there.
#[test]
fn given_states_choose_the_steady_state() {
    for (sizes, activation) in
        [(&[1, 1, 1][..], Activation::Tanh), (&[1, 2, 2, 1], Activation::Tanh)]
    {
        let net = Layered::hopfield(sizes, activation).unwrap();
        let params: Vec<Vec<f64>> = System::<f64>::specs(&net)
            .iter()
            .map(|spec| vec![if spec.name.starts_with('W') { 2.0 } else { 0.0 }; spec.len()])
            .collect();
        let (x, y) = ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]);
        let batch = Batch { x: Rows::all(&x, 1), y: Targets::Values(Rows::all(&y, 1)) };
        let settling = Settling {
            stop: Stop::Absolute(1e-13),
            max_sweeps: (9_000, 9_000),
            ..Settling::default()
        };
        let nudged = [Boundary::Nudged(Complex::new(0.01, 0.0))];
        let plan = PhasePlan {
            start: Start::Given,
            ..PhasePlan::from_free(Loss::SquaredError, nudged, settling)
        };
        let (runtime, shared, draw) =
            (Runtime::new(Some(1), 0).unwrap(), shared(&params), DrawIndex::of_step(0));
        let experiment = Experiment::new(&runtime, &net, &shared, &batch, &plan, draw);
        let mut states = States::new(System::<f64>::layout(&net));
        states.reset(3, 2, false);
        for (i, sign) in [1.0, -1.0, 0.0].into_iter().enumerate() {
            for l in 0..states.layout().sizes().len() {
                let place = states.layout().layer(l);
                states.row_mut(2 * i)[place].fill(0.3 * sign);
            }
        }
        experiment.run(&mut [], &mut states, &mut System::<f64>::workspace(&net)).unwrap();
        let end = |r: usize| states.outputs(r)[0];
        assert!(states.outcomes.iter().all(|outcome| outcome.status == Status::Converged));
        assert!(
            end(0) > 0.5 && (end(0) + end(2)).abs() < 1e-12 && end(4) == 0.0,
            "{:?}",
            (end(0), end(2), end(4))
        );
        assert!((end(1) - end(0)).abs() < 0.1 && end(1) < end(0), "{:?}", (end(0), end(1)));
        // At the steady state that was found the next run has nothing left to do.
        let (first, sweeps) = (states.clone(), states.outcomes[0].sweeps);
        experiment.run(&mut [], &mut states, &mut System::<f64>::workspace(&net)).unwrap();
        assert!(states.outcomes[0].sweeps < sweeps && sweeps > 4, "{sweeps}");
        assert!(states.values.iter().zip(first.values.iter()).all(|(a, b)| (a - b).abs() < 1e-11));
        let plan = PhasePlan::new(
            Loss::SquaredError,
            [Phase { start: Start::Reversed(0), boundary: Boundary::Free }],
            settling,
        );
        let backwards = Experiment { plan: &plan, ..experiment };
        let refusal =
            backwards.run(&mut [], &mut states, &mut System::<f64>::workspace(&net)).unwrap_err();
        let words = "Hopfield does not admit a free phase from phase 0 with time reversed";
        assert!(refusal.to_string().contains(words), "{refusal}");
    }
}

/// Settles a batch from these states of every row, at rest where there are none.
fn settled<T: Real>(
    system: &dyn System<T>,
    params: &[Vec<f64>],
    x: &[f64],
    start: Option<f64>,
) -> States<T> {
    let cast = |values: &[f64]| values.iter().map(|&v| T::from_f64(v)).collect::<Vec<T>>();
    let (params, x) = (params.iter().map(|p| cast(p)).collect::<Vec<_>>(), cast(x));
    let batch = Batch { x: Rows::all(&x, system.inputs()), y: Targets::None };
    let free = PhasePlan::free(Loss::SquaredError, Settling::default());
    let plan = PhasePlan { start: start.map_or(Start::Rest, |_| Start::Given), ..free };
    let runtime = Runtime::new(Some(1), 0).unwrap();
    let lent = Params::shared(params.iter().map(Vec::as_slice));
    let draw = DrawIndex::of_step(0);
    let experiment = Experiment::new(&runtime, system, &lent, &batch, &plan, draw);
    let mut states = States::new(system.layout());
    states.reset(batch.len(), 1, false);
    for l in 0..states.layout().sizes().len() {
        let place = states.layout().layer(l);
        (0..batch.len())
            .for_each(|i| states.row_mut(i)[place.clone()].fill(T::from_f64(start.unwrap_or(0.0))));
    }
    experiment.run(&mut [], &mut states, &mut system.workspace()).unwrap();
    assert!(states.outcomes.iter().all(|outcome| outcome.status == Status::Converged));
    states
}

/// From however far away a system with one steady state starts, it settles as near to it as from
/// rest.
fn check_far<T: Real>(name: &str, spec: &str, params: &[Vec<f64>], inputs: usize) {
    let any = AnySystem::build(name, spec).unwrap();
    let system: &dyn System<T> = T::pick(&any);
    let x: Vec<f64> = (0..4 * inputs).map(|k| (k as f64 * 1.7).sin()).collect();
    let rest = settled(system, params, &x, None);
    let size = rest.values.iter().fold(0.0f64, |m, v| m.max(v.to_f64().abs()));
    for start in [-5.0, -0.5, 0.3, 5.0, 1e3, -1e4, 1e5, 1e6] {
        let found = settled(system, params, &x, Some(start));
        let off = found.values.iter().zip(rest.values.iter());
        let off = off.fold(0.0f64, |m, (a, b)| m.max((*a - *b).to_f64().abs()));
        assert!(off < 2e-3 * size, "{name} from {start}: {off} of {size}");
    }
}

#[test]
fn far_starts_settle_as_near_as_rest() {
    let device = r#"{"lower": 0.0, "upper": null, "levels": null, "write_noise": 0.0, "open": 0.0,
        "shorted": 0.0, "seed": 0}"#;
    let resistive =
        format!(r#"{{"layers": [2, 4, 3, 2], "input_gain": 50.0, "device": {device}}}"#);
    let positive = |n: usize| (0..n).map(|k| 0.2 + 0.1 * (k % 5) as f64).collect::<Vec<f64>>();
    let params: Vec<Vec<f64>> = [16, 4, 12, 3, 6, 2].into_iter().map(positive).collect();
    check_far::<f32>("DeepResistive", &resistive, &params, 2);
    check_far::<f64>("DeepResistive", &resistive, &params, 2);
}
