//! Descent that evaluates only the rows under way, against its plain twin that evaluates all of
//! them in every step.

use pnncore::Result;
use pnncore::batch::{Batch, Rows, Targets};
use pnncore::descent::{Landscape, Memory, settle};
use pnncore::device::Device;
use pnncore::kernels::Real;
use pnncore::loss::Loss;
use pnncore::params::Params;
use pnncore::plan::{Boundary, PhasePlan};
use pnncore::runtime::Runtime;
use pnncore::settling::{Settling, Stop};
use pnncore::states::{Outcome, States};
use pnncore::system::elastic::{Elastic, Spec};
use pnncore::system::{Descents, StateDerivatives, System, SystemAt};

/// Nodes on the side of a sheet.
const SIDE: usize = 4;

const SAMPLES: usize = 5;

/// A system at its parameters and a batch, whose energies and forces are those of all rows.
struct Whole<'a, T: Real>(SystemAt<'a, T>);

impl<T: Real> Landscape<T> for Whole<'_, T> {
    fn energy(&self, states: &States<T>, energy: &mut [f64]) -> Result<()> {
        self.0.energy(states, energy)
    }

    fn state_gradient(&self, states: &States<T>, gradient: &mut [T]) -> Result<()> {
        self.0.state_gradient(states, gradient)
    }

    fn interval(&self, l: usize, j: usize) -> (f64, f64) {
        self.0.interval(l, j)
    }

    fn scales(&self) -> (f64, f64) {
        self.0.scales()
    }
}

/// A square sheet with diagonals, not quite regular, held at one side.
fn sheet() -> Spec {
    let place = |i: usize| {
        let bent = |k: usize| 0.15 * (k as f64).sin();
        vec![(i % SIDE) as f64 + bent(3 * i), (i / SIDE) as f64 + bent(5 * i + 1)]
    };
    let near = |a: usize, b: usize| {
        (a % SIDE).abs_diff(b % SIDE) <= 1 && (a / SIDE).abs_diff(b / SIDE) <= 1
    };
    let n = SIDE * SIDE;
    Spec {
        positions: (0..n).map(place).collect(),
        springs: (0..n)
            .flat_map(|a| (0..a).filter(move |&b| near(a, b)).map(move |b| (a, b)))
            .collect(),
        inputs: vec![(SIDE, 0), (2 * SIDE - 1, 1)],
        outputs: vec![(n - 1, 0), (n - SIDE, 1)],
        fixed: (0..SIDE).collect(),
        device: Device { lower: Some(0.0), ..Device::IDEAL },
    }
}

/// How all rows end, to the bit.
fn ends<T: Real>(
    landscape: &dyn Landscape<T>,
    net: &dyn System<T>,
    batch: &Batch<'_, T>,
    plan: &PhasePlan,
) -> (Vec<f64>, Vec<Outcome>) {
    let mut states = States::new(net.layout());
    states.reset(batch.len(), plan.rows_per_sample(), false);
    settle(landscape, batch, plan, &mut states, &mut Memory::default()).expect("a sheet settles");
    (states.values.iter().map(|s| s.to_f64()).collect(), states.outcomes.clone())
}

/// The rows of a batch that threads share end where they do one after the other, to the bit; what
/// is wanted need not be picked as inputs are.
fn check_threads<T: Real>(at: &SystemAt<'_, T>, net: &dyn System<T>, plan: &PhasePlan) {
    let data: Vec<T> = (0..2 * SAMPLES).map(|k| T::from_f64(0.1 * (k as f64).cos())).collect();
    let batch = Batch { y: Targets::Values(Rows::all(&data, 2)), ..*at.batch };
    let at = SystemAt { batch: &batch, ..*at };
    let wanted = ends(&at, net, &batch, plan);
    let mut memory = Descents::default();
    for threads in [1, 2, 3, 8] {
        let runtime = Runtime::new(Some(threads), 0).expect("a runtime");
        let mut states = States::new(net.layout());
        states.reset(batch.len(), plan.rows_per_sample(), false);
        let settled =
            runtime.enter(|| at.settle(&runtime, 1 << 20, plan, &mut states, &mut memory));
        settled.expect("a sheet settles");
        let found: Vec<f64> = states.values.iter().map(|s| s.to_f64()).collect();
        assert_eq!((found, states.outcomes.clone()), wanted, "{threads} threads, {plan:?}");
    }
}

/// Every row ends where it ends among rows that are all evaluated, and where it ends alone.
fn check<T: Real>(loss: Loss, phases: &[Boundary], settling: Settling) {
    let spec = sheet();
    let net = Elastic::new(&spec).expect("a sheet");
    let system: &dyn StateDerivatives<T> = &net;
    let distance = |&(a, b): &(usize, usize)| {
        let square: f64 =
            spec.positions[a].iter().zip(&spec.positions[b]).map(|(a, b)| (a - b).powi(2)).sum();
        square.sqrt()
    };
    let cast = |values: Vec<f64>| values.into_iter().map(T::from_f64).collect::<Vec<T>>();
    let stiffness = cast((0..spec.springs.len()).map(|e| 1.0 + 0.2 * (e % 5) as f64).collect());
    let lengths = cast(spec.springs.iter().map(distance).collect());
    let params = Params::shared([&stiffness[..], &lengths[..]]);
    // Samples of very different strength stop at very different times.
    let draw = |i: usize| 0.2 * (-(i as f64)).exp2() * (1.0 + i as f64).sin();
    let x = cast((0..4 * SAMPLES).map(|k| draw(k % 7)).collect());
    let y = cast((0..4 * SAMPLES).map(|k| draw(k % 5 + 1)).collect());
    let index: Vec<u64> = [7, 2, 9, 2, 5].to_vec();
    let batch = Batch { x: Rows::all(&x, 2), y: Targets::Values(Rows::all(&y, 2)) }.pick(&index);
    let plan = PhasePlan::from_free(loss, phases.iter().copied(), settling);
    let system_at = SystemAt { system, params: &params, batch: &batch };
    check_threads(&system_at, &net, &plan);
    let (states, outcomes) = ends(&system_at, &net, &batch, &plan);
    assert_eq!(
        ends(&Whole(system_at), &net, &batch, &plan),
        (states.clone(), outcomes.clone()),
        "{plan:?}"
    );
    let (rows, width) = (plan.rows_per_sample(), states.len() / SAMPLES);
    for i in 0..SAMPLES {
        let own =
            Batch { x: Rows::all(&x, 2), y: Targets::Values(Rows::all(&y, 2)) }.pick(&index[i..=i]);
        let alone = ends(&SystemAt { system, params: &params, batch: &own }, &net, &own, &plan);
        let among = (
            states[i * width..(i + 1) * width].to_vec(),
            outcomes[i * rows..(i + 1) * rows].to_vec(),
        );
        assert_eq!(alone, among, "sample {i} of {plan:?}");
    }
}

#[test]
fn rows_end_where_they_would_alone() {
    let nudged = |beta: f64| Boundary::Nudged(beta.into());
    let plans: [&[Boundary]; 6] = [
        &[],
        &[nudged(0.05)],
        &[nudged(0.05), nudged(-0.05)],
        &[Boundary::Clamped(1.0)],
        &[Boundary::Clamped(0.1), nudged(0.02)],
        &[Boundary::Forced(0.05), Boundary::Forced(-0.05)],
    ];
    for loss in [Loss::SquaredError, Loss::CrossEntropy] {
        for phases in plans {
            for stop in
                [Stop::Automatic, Stop::Relative(0.05), Stop::Absolute(1e-6), Stop::Sweeps(12, 7)]
            {
                let settling = Settling { stop, ..Settling::default() };
                check::<f32>(loss, phases, settling);
                check::<f64>(loss, phases, settling);
            }
        }
    }
}
