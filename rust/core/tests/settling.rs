//! Every way to settle a layered network against one plain, slow settler.
//!
//! The fused kernel, the sweeps that are skipped or extrapolated, the closed and iterated output
//! steps, sparse lists and narrow searches are shortcuts to one thing: states on which no force is
//! left. Here that thing is found unit by unit from the energy alone, for the product of depths,
//! boundaries, losses, activations, precisions, stopping rules and orders.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use pnncore::batch::{Batch, Rows, Targets};
use pnncore::device::Device;
use pnncore::draw::DrawIndex;
use pnncore::kernels::Real;
use pnncore::kernels::philox::{Philox, Purpose};
use pnncore::loss::Loss;
use pnncore::params::Params;
use pnncore::plan::{Boundary, PhasePlan};
use pnncore::runtime::Runtime;
use pnncore::settling::{Order, OutputUpdate, Settling, Stop};
use pnncore::states::{States, Status};
use pnncore::system::hopfield::Activation;
use pnncore::system::layered::Layered;
use pnncore::system::{Experiment, System};

const SAMPLES: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Hopfield(Activation),
    Resistive,
}

const KINDS: [Kind; 4] = [
    Kind::Hopfield(Activation::HardSigmoid),
    Kind::Hopfield(Activation::Tanh),
    Kind::Hopfield(Activation::Logistic),
    Kind::Resistive,
];

/// One to seven layers of states; with one hidden layer, few and many outputs: two ways to settle.
const SIZES: [&[usize]; 9] = [
    &[5, 4],
    &[5, 9, 4],
    &[5, 70, 4],
    &[5, 9, 20],
    &[5, 8, 7, 4],
    &[5, 8, 7, 6, 4],
    &[5, 8, 7, 6, 9, 4],
    &[5, 8, 7, 6, 9, 5, 4],
    &[5, 8, 7, 6, 9, 5, 7, 4],
];

/// A network with its parameters and data, in f64.
struct Case {
    kind: Kind,
    sizes: Vec<usize>,
    params: Vec<Vec<f64>>,
    x: Vec<f64>,
    y: Vec<f64>,
}

impl Case {
    /// Random parameters; couplings of about the spectral norm `gain`, where they are of either
    /// sign: below one, or a half where layers are between two others, there is one minimum.
    fn new(kind: Kind, sizes: &[usize], gain: f64, seed: u64) -> Self {
        let random = Philox::new(seed, Purpose::Probe);
        let mut params = Vec::new();
        for (l, pair) in sizes.windows(2).enumerate() {
            let rows = if l == 0 && kind == Kind::Resistive { 2 * pair[0] } else { pair[0] };
            let [n, m] = [rows, pair[1]].map(|n| (n as f64).sqrt());
            let bound =
                if kind == Kind::Resistive { gain / n } else { gain * 3f64.sqrt() / (n + m) };
            let coupling = |k: usize| {
                let w = bound * (2.0 * random.uniform(k as u64, 2 * l as u32) - 1.0);
                if kind == Kind::Resistive { w.abs() } else { w }
            };
            params.push((0..rows * pair[1]).map(coupling).collect());
            params.push(
                (0..pair[1]).map(|k| 0.3 * random.normal(k as u64, 1 + 2 * l as u32)).collect(),
            );
        }
        let outputs = sizes[sizes.len() - 1];
        let x = (0..SAMPLES * sizes[0]).map(|k| random.uniform(k as u64, 100)).collect();
        // Of a mass that bounds outputs which are nudged away from their targets.
        let largest = 2.0 / outputs as f64;
        let y = (0..SAMPLES * outputs).map(|k| largest * random.uniform(k as u64, 101)).collect();
        Self { kind, sizes: sizes.to_vec(), params, x, y }
    }

    fn net(&self) -> Layered {
        match self.kind {
            Kind::Hopfield(activation) => Layered::hopfield(&self.sizes, activation).unwrap(),
            Kind::Resistive => {
                Layered::resistive(&self.sizes, 1.0, Device { lower: Some(0.0), ..Device::IDEAL })
                    .unwrap()
            }
        }
    }

    fn layers(&self) -> usize {
        self.sizes.len() - 1
    }

    fn outputs(&self) -> usize {
        self.sizes[self.sizes.len() - 1]
    }

    /// The inputs of a sample as the first couplings see them.
    fn inputs(&self, i: usize) -> Vec<f64> {
        let x = &self.x[i * self.sizes[0]..(i + 1) * self.sizes[0]];
        match self.kind {
            Kind::Resistive => x.iter().copied().chain(x.iter().map(|x| -x)).collect(),
            Kind::Hopfield(_) => x.to_vec(),
        }
    }

    /// What the neighbours of unit `j` of layer `l` sum to, and its stiffness.
    fn drive(&self, inputs: &[f64], s: &[Vec<f64>], l: usize, j: usize) -> (f64, f64) {
        let below = if l == 0 { inputs } else { &s[l - 1] };
        let n = self.sizes[l + 1];
        let (mut a, mut k) = (self.params[2 * l + 1][j], 0.0);
        for (i, s) in below.iter().enumerate() {
            a += self.params[2 * l][i * n + j] * s;
            k += self.params[2 * l][i * n + j];
        }
        if l + 1 < self.layers() {
            let m = self.sizes[l + 2];
            for (i, s) in s[l + 1].iter().enumerate() {
                a += self.params[2 * l + 2][j * m + i] * s;
                k += self.params[2 * l + 2][j * m + i];
            }
        }
        (a, if self.kind == Kind::Resistive { k } else { 1.0 })
    }

    /// Where a hidden unit rests, given its drive.
    fn rest(&self, (a, k): (f64, f64), l: usize, j: usize) -> f64 {
        match self.kind {
            Kind::Hopfield(Activation::HardSigmoid) => a.clamp(0.0, 1.0),
            Kind::Hopfield(Activation::Tanh) => a.tanh(),
            Kind::Hopfield(Activation::Logistic) => 1.0 / (1.0 + (-a).exp()),
            Kind::Resistive if 2 * j < self.sizes[l + 1] => (a / k).max(0.0),
            Kind::Resistive => (a / k).min(0.0),
        }
    }

    /// Where output `j` rests, given its drive and the other outputs: by bisection of the force on
    /// it.
    fn rest_output(&self, (a, k): (f64, f64), pull: &dyn Fn(f64) -> f64) -> f64 {
        let force = |o: f64| k * o - a + pull(o);
        let (mut low, mut high) = (-1e4, 1e4);
        for _ in 0..200 {
            let middle = 0.5 * (low + high);
            *(if force(middle) > 0.0 { &mut high } else { &mut low }) = middle;
        }
        0.5 * (low + high)
    }

    /// The steady states of sample `i`, unit by unit. `free` are its free outputs, where a boundary
    /// asks for them.
    fn steady(&self, i: usize, loss: Loss, boundary: Boundary, free: &[f64]) -> Vec<Vec<f64>> {
        let (inputs, n) = (self.inputs(i), self.outputs());
        let y = &self.y[i * n..(i + 1) * n];
        let mut s: Vec<Vec<f64>> = self.sizes[1..].iter().map(|&n| vec![0.0; n]).collect();
        let mut gradient = vec![0.0; n];
        if !free.is_empty() {
            loss.gradient(free, y, &mut gradient);
        }
        for _ in 0..20_000 {
            let mut moved = 0.0f64;
            for l in 0..self.layers() {
                for j in 0..self.sizes[l + 1] {
                    let drive = self.drive(&inputs, &s, l, j);
                    let outputs = s[self.layers() - 1].clone();
                    let new = match boundary {
                        _ if l + 1 < self.layers() => self.rest(drive, l, j),
                        Boundary::Free | Boundary::Kicked(_) => drive.0 / drive.1,
                        Boundary::Forced(strength) => (drive.0 - strength * gradient[j]) / drive.1,
                        Boundary::Clamped(eta) => free[j] + eta * (y[j] - free[j]),
                        Boundary::Nudged(beta) => self.rest_output(drive, &|o| {
                            let (mut at, mut slope) = (outputs.clone(), vec![0.0; n]);
                            at[j] = o;
                            loss.gradient(&at, y, &mut slope);
                            beta.re * slope[j]
                        }),
                    };
                    moved = moved.max((new - s[l][j]).abs());
                    s[l][j] = new;
                }
            }
            if moved < 1e-14 {
                break;
            }
        }
        s
    }

    /// Settles with the library; for every phase, and in it for every sample: how it ended, its
    /// sweeps, and its states by layer.
    fn settle<T: Real>(
        &self,
        loss: Loss,
        phases: &[Boundary],
        settling: Settling,
    ) -> Vec<Vec<Ended>> {
        let net = self.net();
        let params: Vec<Vec<T>> =
            self.params.iter().map(|p| p.iter().map(|&p| T::from_f64(p)).collect()).collect();
        let [x, y] =
            [&self.x, &self.y].map(|v| v.iter().map(|&v| T::from_f64(v)).collect::<Vec<T>>());
        let batch = Batch {
            x: Rows::all(&x, self.sizes[0]),
            y: Targets::Values(Rows::all(&y, self.outputs())),
        };
        let plan = PhasePlan::from_free(loss, phases.iter().copied(), settling);
        let runtime = Runtime::new(Some(1), 0).unwrap();
        let mut states = States::new(System::<T>::layout(&net));
        let mut workspace = System::<T>::workspace(&net);
        let shared = Params::shared(params.iter().map(Vec::as_slice));
        let (system, draw): (&dyn System<T>, _) = (&net, DrawIndex::of_inference(0));
        let experiment = Experiment::new(&runtime, system, &shared, &batch, &plan, draw);
        experiment.run(&mut [], &mut states, &mut workspace).unwrap();
        let ended = |r: usize| Ended {
            status: states.outcomes[r].status,
            sweeps: states.outcomes[r].sweeps,
            states: (0..self.layers())
                .map(|l| states.layer(r, l).iter().map(|s| s.to_f64()).collect())
                .collect(),
        };
        let phases = plan.rows_per_sample();
        (0..phases).map(|p| (0..SAMPLES).map(|i| ended(i * phases + p)).collect()).collect()
    }
}

/// How a row ended, and where.
struct Ended {
    status: Status,
    sweeps: u32,
    states: Vec<Vec<f64>>,
}

fn apart(a: &[Vec<f64>], b: &[Vec<f64>]) -> f64 {
    a.iter().flatten().zip(b.iter().flatten()).fold(0.0, |m: f64, (a, b)| m.max_magnitude(a - b))
}

fn boundaries() -> Vec<Boundary> {
    vec![
        Boundary::Nudged(0.4.into()),
        Boundary::Nudged((-0.3).into()),
        Boundary::Clamped(1.0),
        Boundary::Clamped(0.3),
        Boundary::Clamped(-0.3),
        Boundary::Forced(0.5),
        Boundary::Forced(-0.5),
    ]
}

/// Stopping rules, with the distance from the steady states that each promises in f64.
fn rules() -> [(Stop, f64); 4] {
    [
        (Stop::Absolute(1e-12), 1e-9),
        (Stop::Relative(1e-9), 1e-7),
        (Stop::Automatic, 1e-2),
        (Stop::Sweeps(400, 400), 1e-8),
    ]
}

/// Checks phases that are settled together, in all the ways to settle them, against the plain
/// steady states of each.
fn check<T: Real>(case: &Case, loss: Loss, phases: &[Boundary], steady: &[Vec<Vec<Vec<f64>>>]) {
    let rounding = 2e3 * T::EPSILON.to_f64();
    for (stop, promised) in rules() {
        for order in [Order::Asynchronous, Order::Synchronous] {
            for output_update in [OutputUpdate::Exact, OutputUpdate::Explicit] {
                let settling = Settling { stop, max_sweeps: (4000, 4000), order, output_update };
                let found = case.settle::<T>(loss, phases, settling);
                for (p, (found, steady)) in found.iter().zip(steady).enumerate() {
                    for (Ended { status, sweeps, states }, steady) in found.iter().zip(steady) {
                        let off = apart(states, steady);
                        let what = format!(
                            "{:?} {:?} {loss:?} phase {p} of {phases:?} {settling:?} {}: \
                             {status:?} after {sweeps} sweeps, {off:.1e} off",
                            case.kind,
                            case.sizes,
                            T::NAME
                        );
                        // Whatever is called converged is. f32 cannot meet tolerances below its
                        // rounding errors, and only sweeps that minimise exactly, block by block,
                        // always arrive.
                        let minimises =
                            (order, output_update) == (Order::Asynchronous, OutputUpdate::Exact);
                        if *status == Status::Converged || (!stop.is_free() && minimises) {
                            // Distances are estimates, from how fast sweeps shrink: those of all
                            // layers at once, evenly or not.
                            let estimated =
                                !minimises && (stop == Stop::Automatic || !stop.is_free());
                            let promised = if estimated { 5e-2 } else { promised };
                            assert!(off <= promised.max(rounding), "{what}");
                        }
                        let attainable =
                            minimises && (T::NAME == "float64" || stop == Stop::Automatic);
                        assert!(*status == Status::Converged || !attainable, "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn all_ways_to_settle_end_in_the_steady_state() {
    for kind in KINDS {
        for sizes in SIZES {
            // As strong as leaves one minimum.
            let gain = if sizes.len() <= 3 { 0.9 } else { 0.5 };
            let case = Case::new(kind, sizes, gain, sizes.len() as u64);
            for loss in [Loss::SquaredError, Loss::CrossEntropy] {
                let free: Vec<_> =
                    (0..SAMPLES).map(|i| case.steady(i, loss, Boundary::Free, &[])).collect();
                let under = |boundary| -> Vec<_> {
                    (0..SAMPLES)
                        .map(|i| case.steady(i, loss, boundary, &free[i][case.layers() - 1]))
                        .collect()
                };
                let steady: Vec<_> = boundaries().into_iter().map(under).collect();
                // Each alone, and all at once: what phases share must not show.
                check::<f64>(&case, loss, &[], std::slice::from_ref(&free));
                check::<f32>(&case, loss, &[], std::slice::from_ref(&free));
                for (boundary, steady) in boundaries().into_iter().zip(&steady) {
                    let both = [free.clone(), steady.clone()];
                    check::<f64>(&case, loss, &[boundary], &both);
                    check::<f32>(&case, loss, &[boundary], &both);
                }
                let all: Vec<_> = std::iter::once(free.clone()).chain(steady).collect();
                check::<f64>(&case, loss, &boundaries(), &all);
                check::<f32>(&case, loss, &boundaries(), &all);
            }
        }
    }
}

/// Outputs that are clamped stay where they are put: at the targets, to the last bit, where all of
/// the way is gone.
#[test]
fn clamped_outputs_do_not_move() {
    for kind in KINDS {
        for sizes in SIZES {
            let case = Case::new(kind, sizes, 1.5, 7);
            for stop in [Stop::Automatic, Stop::Absolute(1e-9), Stop::Sweeps(50, 50)] {
                let settling = Settling { stop, ..Settling::default() };
                let found =
                    case.settle::<f64>(Loss::SquaredError, &[Boundary::Clamped(1.0)], settling);
                for (i, Ended { states, .. }) in found[1].iter().enumerate() {
                    let n = case.outputs();
                    assert_eq!(
                        states[case.layers() - 1],
                        case.y[i * n..(i + 1) * n],
                        "{kind:?} {sizes:?} {stop:?}"
                    );
                }
            }
        }
    }
}

/// Targets of any mass: a nudge by the cross-entropy ends at rest, or says that it does not.
#[test]
fn nudges_of_any_mass_end_at_rest() {
    for sizes in [&[4, 6, 4][..], &[4, 6, 5, 4], &[4, 6, 5, 7, 4]] {
        for kind in KINDS {
            for mass in [0.1, 1.0, 5.0, 40.0] {
                for beta in [1.0, 0.3, -0.3, -1.0] {
                    let mut case = Case::new(kind, sizes, 0.4, 3);
                    for y in case.y.chunks_exact_mut(4) {
                        y.copy_from_slice(&[mass, 0.0, 0.0, 0.0]);
                    }
                    let boundary = Boundary::Nudged(beta.into());
                    let settling = Settling { stop: Stop::Absolute(1e-11), ..Settling::default() };
                    let found = case.settle::<f64>(Loss::CrossEntropy, &[boundary], settling);
                    for (i, Ended { status, states, .. }) in found[1].iter().enumerate() {
                        let what = format!(
                            "{kind:?} {sizes:?} mass {mass} beta {beta} sample {i}: {status:?}"
                        );
                        if beta > 0.0 {
                            assert_eq!(*status, Status::Converged, "{what}");
                        }
                        if *status == Status::Converged {
                            let force = largest_force(&case, i, states, beta);
                            assert!(force < 1e-8, "{what}, force {force:.1e}");
                        }
                    }
                }
            }
        }
    }
}

/// The largest force on a unit that is not at a wall.
fn largest_force(case: &Case, i: usize, s: &[Vec<f64>], beta: f64) -> f64 {
    let (inputs, n) = (case.inputs(i), case.outputs());
    let mut slope = vec![0.0; n];
    Loss::CrossEntropy.gradient(&s[case.layers() - 1], &case.y[i * n..(i + 1) * n], &mut slope);
    let mut largest = 0.0f64;
    for l in 0..case.layers() {
        for j in 0..case.sizes[l + 1] {
            let drive = case.drive(&inputs, s, l, j);
            let off = if l + 1 == case.layers() {
                drive.1 * s[l][j] - drive.0 + beta * slope[j]
            } else {
                s[l][j] - case.rest(drive, l, j)
            };
            largest = largest.max_magnitude(off);
        }
    }
    largest
}

/// Where there are many minima, extrapolated sweeps never raise the energy, and mostly end where
/// plain ones do.
#[test]
fn extrapolation_never_raises_the_energy() {
    extrapolate_and_compare::<f32>();
    extrapolate_and_compare::<f64>();
}

fn extrapolate_and_compare<T: Real>() {
    let (mut elsewhere, mut all) = (0, 0);
    // In units of the energy, whose terms are some tens.
    let rounding = 500.0 * T::EPSILON.to_f64();
    for (activation, kind) in [Activation::Tanh, Activation::Logistic, Activation::HardSigmoid]
        .map(|a| (a, Kind::Hopfield(a)))
    {
        for sizes in [&[6, 12, 12, 4][..], &[6, 12, 12, 12, 4], &[6, 12, 12, 12, 12, 4]] {
            for gain in [1.5, 2.5, 4.0] {
                for seed in 0..20 {
                    let case = Case::new(kind, sizes, gain, seed);
                    let (net, params) =
                        (case.net(), Params::shared(case.params.iter().map(Vec::as_slice)));
                    let batch = Batch { x: Rows::all(&case.x, sizes[0]), y: Targets::None };
                    let energies = |stop: Stop, sweeps: u32| {
                        let settling =
                            Settling { stop, max_sweeps: (sweeps, 1), ..Settling::default() };
                        let found = case.settle::<T>(Loss::SquaredError, &[], settling).remove(0);
                        let mut states = States::new(System::<f64>::layout(&net));
                        states.reset(SAMPLES, 1, false);
                        for (i, ended) in found.iter().enumerate() {
                            for (l, layer) in ended.states.iter().enumerate() {
                                let span = states.layout().layer(l);
                                states.row_mut(i)[span].copy_from_slice(layer);
                            }
                        }
                        let mut energy = vec![0.0; SAMPLES];
                        use pnncore::system::StateDerivatives as _;
                        net.energy(&params, &batch, &states, &mut energy).unwrap();
                        energy
                    };
                    let mut before = energies(Stop::Absolute(1e-12), 1);
                    for sweeps in 2..25 {
                        let now = energies(Stop::Absolute(1e-12), sweeps);
                        for (now, before) in now.iter().zip(&before) {
                            assert!(
                                *now <= before + rounding * (1.0 + before.abs()),
                                "{activation:?} {sizes:?} gain {gain} seed {seed}, sweep {sweeps}: \
                                 {before} -> {now}"
                            );
                        }
                        before = now;
                    }
                    let fast = energies(Stop::Absolute(16.0 * T::EPSILON.to_f64()), 5000);
                    let plain = energies(Stop::Sweeps(5000, 1), 5000);
                    all += SAMPLES;
                    elsewhere += fast
                        .iter()
                        .zip(&plain)
                        .filter(|(a, b)| (*a - *b).abs() > T::EPSILON.to_f64().sqrt())
                        .count();
                }
            }
        }
    }
    eprintln!("{}: {elsewhere} of {all} elsewhere", T::NAME);
    assert!(50 * elsewhere <= all, "{elsewhere} of {all} samples end in another minimum");
}

/// Complex phases: a status of converged means that every unit is where its drive puts it, for any
/// mass of the targets.
#[test]
fn complex_phases_that_converge_are_at_rest() {
    use num_complex::Complex;
    let mut converged = 0;
    for activation in [Activation::Tanh, Activation::Logistic] {
        for sizes in SIZES {
            for loss in [Loss::SquaredError, Loss::CrossEntropy] {
                for (mass, radius) in [(1.0, 0.2), (1.0, 0.6), (5.0, 0.3), (30.0, 0.3)] {
                    let mut case = Case::new(Kind::Hopfield(activation), sizes, 0.4, 5);
                    let n = case.outputs();
                    for y in case.y.chunks_exact_mut(n) {
                        let total: f64 = y.iter().sum();
                        y.iter_mut().for_each(|y| *y *= mass / total);
                    }
                    let net = case.net();
                    let phases: Vec<_> = [0.0, 1.0, 2.5]
                        .iter()
                        .map(|turn| Boundary::Nudged(Complex::from_polar(radius, *turn)))
                        .collect();
                    let settling = Settling { stop: Stop::Absolute(1e-11), ..Settling::default() };
                    let plan = PhasePlan {
                        measures_free: false,
                        ..PhasePlan::from_free(loss, phases.clone(), settling)
                    };
                    let batch = Batch {
                        x: Rows::all(&case.x, sizes[0]),
                        y: Targets::Values(Rows::all(&case.y, n)),
                    };
                    let runtime = Runtime::new(Some(1), 0).unwrap();
                    let mut states = States::new(System::<f64>::layout(&net));
                    let mut workspace = System::<f64>::workspace(&net);
                    let params = Params::shared(case.params.iter().map(Vec::as_slice));
                    let (system, draw): (&dyn System<f64>, _) = (&net, DrawIndex::of_inference(0));
                    let experiment =
                        Experiment::new(&runtime, system, &params, &batch, &plan, draw);
                    experiment.run(&mut [], &mut states, &mut workspace).unwrap();
                    for r in (0..states.rows())
                        .filter(|r| states.outcomes[*r].status == Status::Converged)
                    {
                        let (i, p) = (r / states.phases(), r % states.phases());
                        let beta = if p == 0 {
                            Complex::ZERO
                        } else {
                            Complex::from_polar(radius, [0.0, 1.0, 2.5][p - 1])
                        };
                        let state = |l: usize| -> Vec<Complex<f64>> {
                            let span = states.layout().layer(l);
                            let pairs = states.row(r)[span.clone()]
                                .iter()
                                .zip(&states.imaginary_row(r)[span]);
                            pairs.map(|(&re, &im)| Complex::new(re, im)).collect()
                        };
                        let s: Vec<_> = (0..case.layers()).map(state).collect();
                        let off = complex_force(&case, activation, loss, i, beta, &s);
                        assert!(
                            off < 1e-8,
                            "{activation:?} {sizes:?} {loss:?} mass {mass} {beta}: {off:.1e}"
                        );
                        converged += 1;
                    }
                }
            }
        }
    }
    assert!(converged > 1000, "{converged} rows converged");
}

/// How far the unit that is farthest from where its drive puts it is from there.
fn complex_force(
    case: &Case,
    activation: Activation,
    loss: Loss,
    i: usize,
    beta: num_complex::Complex<f64>,
    s: &[Vec<num_complex::Complex<f64>>],
) -> f64 {
    let part = |f: fn(&num_complex::Complex<f64>) -> f64| -> Vec<Vec<f64>> {
        s.iter().map(|layer| layer.iter().map(f).collect()).collect()
    };
    let (real, imaginary, n) = (part(|z| z.re), part(|z| z.im), case.outputs());
    let (inputs, nothing) = (case.inputs(i), vec![0.0; case.sizes[0]]);
    let y = &case.y[i * n..(i + 1) * n];
    let last = case.layers() - 1;
    let pull = loss.gradient_complex((&real[last], &imaginary[last]), y);
    let mut largest = 0.0f64;
    for (l, layer) in s.iter().enumerate() {
        for (j, state) in layer.iter().enumerate() {
            // The drive is linear but for the biases, which are in the real part.
            let re = case.drive(&inputs, &real, l, j).0;
            let im = case.drive(&nothing, &imaginary, l, j).0 - case.params[2 * l + 1][j];
            let a = num_complex::Complex::new(re, im);
            let rest = match activation {
                _ if l == last => a - beta * pull[j],
                Activation::Tanh => a.tanh(),
                _ => ((-a).exp() + 1.0).inv(),
            };
            largest = largest.max_magnitude((state - rest).norm());
        }
    }
    largest
}
