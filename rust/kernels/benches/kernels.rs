//! Rates of the kernels on one core: `cargo bench -p pnncore-kernels`.
//!
//! Each line is the best of several repeats, so that a busy machine does not show.
#![allow(clippy::print_stdout, missing_docs)]

use pnncore_kernels::hidden::{hidden_sweep, padded_outputs};
use pnncore_kernels::sparse::{Dense, Panel, SparseRows, accumulate};
use pnncore_kernels::unit::{HardSigmoid, Nodes, Tanh, Unit, Walled};
use pnncore_kernels::{AVec, Level, Real, avec};
use std::hint::black_box;
use std::time::Instant;

/// Best seconds per call.
fn time(mut call: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    let mut calls = 1;
    for _ in 0..15 {
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        let elapsed = start.elapsed().as_secs_f64();
        best = best.min(elapsed / calls as f64);
        if elapsed < 0.01 {
            calls *= 4;
        }
    }
    best
}

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
    let (softness, lower, upper) = (noise::<T>(hidden, 1.0), vec![T::ZERO; hidden], vec![T::ONE; hidden]);
    let own = Nodes { softness: &softness, lower: &lower, upper: &upper };
    let nodes = if U::NODES { own } else { Nodes::default() };
    for level in Level::available() {
        let seconds = time(|| {
            black_box(hidden_sweep::<T, U>(level, &drive, &weights, hidden, nodes, &out, &mut states, &mut sums));
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
        let seconds =
            time(|| accumulate(level, &lists, 0, rows, Dense { data: &m, stride: n }, n, &mut y, n, &mut panel));
        let rate = |flops: usize| flops as f64 / seconds / 1e9;
        println!(
            "product {} {rows}x{cols}x{n} density {density} {}: {:.1} us, {:.1} GFLOP/s done, {:.1} if it were dense; \
             lists {:.1} us",
            T::NAME,
            level.name(),
            seconds * 1e6,
            rate(2 * lists.len() * n),
            rate(2 * rows * cols * n),
            build * 1e6
        );
    }
}

fn main() {
    sweep::<f32, Walled>("walled", 512, 10);
    sweep::<f32, HardSigmoid>("hard-sigmoid", 512, 10);
    sweep::<f32, Tanh>("tanh", 512, 10);
    sweep::<f64, HardSigmoid>("hard-sigmoid", 512, 10);
    sweep::<f32, HardSigmoid>("hard-sigmoid", 1024, 10);
    for (rows, density) in [(8, 0.19), (64, 0.19), (64, 1.0), (128, 0.25)] {
        product::<f32>(rows, 784, 512, density);
    }
    for (rows, density) in [(1, 0.4), (4, 0.4), (8, 0.4), (16, 0.4), (32, 0.4), (64, 0.4), (64, 1.0)] {
        product::<f32>(rows, 1024, 1024, density);
    }
    product::<f32>(784, 64, 512, 0.19);
    product::<f32>(64, 1024, 10, 0.25);
    product::<f32>(64, 10, 1024, 1.0);
}
