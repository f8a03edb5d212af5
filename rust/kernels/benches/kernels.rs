//! Rates of the kernels on one core: `cargo bench -p pnncore-kernels`.
//!
//! Each line is the best of several repeats, so that a busy machine does not show.
#![allow(clippy::print_stdout, missing_docs)]

use pnncore_kernels::gemm::Dense;
use pnncore_kernels::hidden::{hidden_sweep, padded_outputs};
use pnncore_kernels::philox::{Philox, Purpose};
use pnncore_kernels::pulses::{Constant, Counts, Linear, Row, Scatter, Source, pulse, trains};
use pnncore_kernels::sparse::{Panel, SparseRows, accumulate};
use pnncore_kernels::unit::{HardSigmoid, Nodes, Tanh, Unit, Walled};
use pnncore_kernels::{AVec, Level, Real, avec};
use std::hint::black_box;

mod clock;
use clock::time;

fn noise<T: Real>(n: usize, density: f64) -> AVec<T> {
    let stream = pnncore_kernels::philox::Philox::new(1, pnncore_kernels::philox::Purpose::Probe);
    AVec::from_iter(
        64,
        (0..n).map(|i| {
            let keep = stream.uniform(i as u64, 1) < density;
            T::from_f64(if keep { stream.uniform(i as u64, 0) * 0.1 - 0.05 } else { 0.0 })
        }),
    )
}

fn sweep<T: Real, U: Unit>(name: &str, hidden: usize, outputs: usize) {
    let drive = noise::<T>(hidden, 1.0);
    let weights = noise::<T>(padded_outputs(outputs) * hidden, 1.0);
    let (mut states, mut sums) = (avec![T::ZERO; hidden], vec![T::ZERO; outputs]);
    let mut out = vec![T::ZERO; outputs];
    let (softness, lower, upper) =
        (noise::<T>(hidden, 1.0), vec![T::ZERO; hidden], vec![T::ONE; hidden]);
    let own = Nodes { softness: &softness, lower: &lower, upper: &upper };
    let nodes = if U::NODES { own } else { Nodes::default() };
    for level in Level::available() {
        let seconds = time(|| {
            black_box(hidden_sweep::<T, U>(
                level,
                &drive,
                &weights,
                hidden,
                nodes,
                &out,
                &mut states,
                &mut sums,
            ));
            out.copy_from_slice(&sums);
        });
        let rate = (4 * hidden * outputs) as f64 / seconds / 1e9;
        println!(
            "sweep {name} {} {hidden}x{outputs} {}: {:.0} ns, {rate:.1} GFLOP/s",
            T::NAME,
            level.name(),
            seconds * 1e9
        );
    }
}

fn product<T: Real>(rows: usize, cols: usize, n: usize, density: f64) {
    let (x, m) = (noise::<T>(rows * cols, density), noise::<T>(cols * n, 1.0));
    let mut lists = SparseRows::new(cols);
    let (mut y, mut panel) = (avec![T::ZERO; rows * n], Panel::default());
    for level in Level::available() {
        let build = time(|| {
            lists.reset(cols);
            x.chunks(cols).for_each(|row| lists.push(level, row));
        });
        let seconds = time(|| {
            accumulate(
                level,
                &lists,
                0,
                rows,
                Dense { data: &m, stride: n },
                n,
                &mut y,
                n,
                &mut panel,
            )
        });
        let rate = |flops: usize| flops as f64 / seconds / 1e9;
        println!(
            "product {} {rows}x{cols}x{n} density {density} {}: {:.1} us, {:.1} GFLOP/s done, \
             {:.1} if it were dense; lists {:.1} us",
            T::NAME,
            level.name(),
            seconds * 1e6,
            rate(2 * lists.len() * n),
            rate(2 * rows * cols * n),
            build * 1e6
        );
    }
}

/// Pulses for a square array, uniform inputs and errors, with and without a slope of the steps.
fn pulses(n: usize, samples: usize, slots: u32, at_once: bool, slope: f32) {
    let stream = Philox::new(5, Purpose::Probe);
    let uniform = |group| {
        (0..samples * n)
            .map(|i| 2.0 * stream.uniform(i as u64, group) as f32 - 1.0)
            .collect::<Vec<_>>()
    };
    let (x, d) = (uniform(2), uniform(3));
    let (all, scales) = (vec![slots; samples], vec![1.0; samples]);
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    let (up, down, slopes) =
        (vec![0.001f32; n], vec![-0.001f32; n], vec![slope; if slope == 0.0 { 0 } else { n }]);
    let (lower, upper) = (vec![-0.6f32; n], vec![0.6f32; n]);
    let (mut weights, mut counts) = (vec![0.0f32; n * n], vec![0.0f32; n * n]);
    let mut own = Vec::new();
    for level in Level::available() {
        let seconds = time(|| {
            weights.fill(0.0);
            trains(level, &x, (n, &all), &scales, (stream, 4), &mut rows);
            trains(level, &d, (n, &all), &scales, (stream, 5), &mut columns);
            for (j, (weights, counts)) in
                weights.chunks_mut(n).zip(counts.chunks_mut(n)).enumerate()
            {
                own.clear();
                own.extend(
                    (0..samples)
                        .map(|s| (s as u32, rows[(j / 16 * samples + s) * 16 + j % 16]))
                        .filter(|(_, t)| t << 1 != 0),
                );
                let mut row = Row {
                    weights,
                    visible: &mut [],
                    pulses: counts,
                    up: &up,
                    down: &down,
                    up_slope: &slopes,
                    down_slope: &slopes,
                    lower: &lower,
                    upper: &upper,
                    one_way: false,
                };
                let source = Source { random: stream, group: 8, row: j as u64 };
                let scatter = Scatter { cycle: 0.3, additive: false, write: 0.0 };
                let counts = Counts::Trains(&own, &columns, samples);
                if slope == 0.0 {
                    pulse(level, Constant, scatter, counts, at_once, source, &mut row);
                } else {
                    pulse(level, Linear, scatter, counts, at_once, source, &mut row);
                }
            }
        });
        let how = if at_once { "at once" } else { "one by one" };
        println!(
            "pulses {n}x{n}, {samples} samples, {slots} slots, slope {slope}, {how}, {}: {:.2} ms",
            level.name(),
            seconds * 1e3
        );
    }
}

fn main() {
    for (slots, at_once, slope) in
        [(1, false, 0.0), (31, true, 0.0), (31, false, 0.0), (31, true, -0.002)]
    {
        pulses(512, 32, slots, at_once, slope);
    }
    sweep::<f32, Walled>("walled", 512, 10);
    sweep::<f32, HardSigmoid>("hard-sigmoid", 512, 10);
    sweep::<f32, Tanh>("tanh", 512, 10);
    sweep::<f64, HardSigmoid>("hard-sigmoid", 512, 10);
    sweep::<f32, HardSigmoid>("hard-sigmoid", 1024, 10);
    for (rows, density) in [(8, 0.19), (64, 0.19), (64, 1.0), (128, 0.25)] {
        product::<f32>(rows, 784, 512, density);
    }
    for (rows, density) in
        [(1, 0.4), (4, 0.4), (8, 0.4), (16, 0.4), (32, 0.4), (64, 0.4), (64, 1.0)]
    {
        product::<f32>(rows, 1024, 1024, density);
    }
    product::<f32>(784, 64, 512, 0.19);
    product::<f32>(64, 1024, 10, 0.25);
    product::<f32>(64, 10, 1024, 1.0);
}
