//! Pulses against what their formulas say, cell by cell.

use pnncore_kernels::philox::{Philox, Purpose};
use pnncore_kernels::pulses::{
    Constant, Counts, Exponential, GROUP, Law, Linear, Power, Row, Scatter, Source, Table,
};
use pnncore_kernels::pulses::{pulse, trains};
use pnncore_kernels::{Level, Real};
use proptest::prelude::*;

const QUIET: Scatter<f64> = Scatter { cycle: 0.0, additive: false, write: 0.0 };

/// Cells with constants of their own, and slopes where asked for.
struct Array<T> {
    weights: Vec<T>,
    pulses: Vec<T>,
    up: Vec<T>,
    down: Vec<T>,
    slopes: [Vec<T>; 2],
    lower: Vec<T>,
    upper: Vec<T>,
}

impl<T: Real> Array<T> {
    fn new(n: usize, sloped: bool, seed: u64) -> Self {
        let random = Philox::new(seed, Purpose::Probe);
        let draw = |group: u32, low: f64, high: f64| -> Vec<T> {
            (0..n as u64)
                .map(|i| T::from_f64(low + (high - low) * random.uniform(i, group)))
                .collect()
        };
        let mut slopes = [draw(4, -0.004, -0.001), draw(5, -0.003, -0.002)];
        if !sloped {
            slopes = Default::default();
        }
        Self {
            weights: draw(1, -0.4, 0.4),
            pulses: vec![T::ZERO; n],
            up: draw(2, 0.001, 0.003),
            down: draw(3, -0.003, -0.001),
            slopes,
            lower: draw(6, -0.7, -0.5),
            upper: draw(7, 0.5, 0.7),
        }
    }

    fn send<L: Law<T>>(
        &mut self,
        level: Level,
        law: L,
        scatter: Scatter<T>,
        counts: Counts<'_, T>,
        at_once: bool,
        row: u64,
    ) {
        let source = Source { random: Philox::new(3, Purpose::Pulses), group: 2, row };
        let mut row = Row {
            weights: &mut self.weights,
            visible: &mut [],
            pulses: &mut self.pulses,
            up: &self.up,
            down: &self.down,
            up_slope: &self.slopes[0],
            down_slope: &self.slopes[1],
            lower: &self.lower,
            upper: &self.upper,
            one_way: false,
        };
        pulse(level, law, scatter, counts, at_once, source, &mut row);
    }
}

/// One pulse up to every cell, then one down, against `mean(array, cell, weight, falls)`.
fn one_pulse<T: Real, L: Law<T>>(
    law: L,
    sloped: bool,
    mean: impl Fn(&Array<T>, usize, f64, bool) -> f64,
    tolerance: f64,
) {
    let n = 37;
    let quiet = Scatter { cycle: T::ZERO, additive: false, write: T::ZERO };
    for level in Level::available() {
        let mut array = Array::<T>::new(n, sloped, 8);
        for sign in [1.0, -1.0] {
            let wanted: Vec<f64> = (0..n)
                .map(|i| {
                    let w = array.weights[i].to_f64();
                    (w + mean(&array, i, w, sign < 0.0))
                        .clamp(array.lower[i].to_f64(), array.upper[i].to_f64())
                })
                .collect();
            let ones = vec![T::ONE; n];
            array.send(
                level,
                law,
                quiet,
                Counts::Means(&[T::from_f64(sign)], &ones, T::ONE),
                false,
                0,
            );
            for (i, wanted) in wanted.iter().enumerate() {
                let found = array.weights[i].to_f64();
                assert!(
                    (found - wanted).abs() <= tolerance,
                    "{} cell {i}: {found} != {wanted}",
                    level.name()
                );
            }
        }
        assert!(array.pulses.iter().all(|&p| p.to_f64() == 2.0));
    }
}

fn every_law<T: Real>(tolerance: f64) {
    let number = |x: f64| T::from_f64(x);
    let step = |a: &Array<T>, i: usize, falls: bool| {
        if falls { a.down[i].to_f64() } else { a.up[i].to_f64() }
    };
    let place = |a: &Array<T>, i: usize, w: f64| {
        (w - a.lower[i].to_f64()) / (a.upper[i] - a.lower[i]).to_f64()
    };
    one_pulse::<T, _>(Constant, false, |a, i, _, falls| step(a, i, falls), tolerance);
    let linear = |a: &Array<T>, i: usize, w: f64, falls: bool| {
        step(a, i, falls) + a.slopes[usize::from(falls)][i].to_f64() * w
    };
    one_pulse::<T, _>(Linear, true, linear, tolerance);
    let law = Exponential {
        up: (number(-1.18445), number(5.0)),
        down: (number(-0.081404), number(5.0)),
        a: number(-0.5),
        b: number(-0.5),
    };
    let exponential = |a: &Array<T>, i: usize, w: f64, falls: bool| {
        let z = 2.0 * -0.5 * w / (a.upper[i] - a.lower[i]).to_f64() - 0.5;
        let factor =
            if falls { 1.0 + 0.081404 * (-5.0 * z).exp() } else { 1.0 + 1.18445 * (5.0 * z).exp() };
        step(a, i, falls) * factor.max(0.0)
    };
    one_pulse(law, false, exponential, tolerance);
    let power = |a: &Array<T>, i: usize, w: f64, falls: bool| {
        let place = place(a, i, w);
        step(a, i, falls) * if falls { place.powf(1.7) } else { (1.0 - place).powf(0.6) }
    };
    one_pulse(Power { up: number(0.6), down: number(1.7) }, false, power, tolerance);
    let (up, down) = ([1.5, 1.0, 0.25].map(number), [0.0, 2.0].map(number));
    let table = |a: &Array<T>, i: usize, w: f64, falls: bool| {
        let place = place(a, i, w);
        let factor = match (falls, place < 0.5) {
            (true, _) => 2.0 * place,
            (false, true) => 1.5 - place,
            (false, false) => 1.0 - 1.5 * (place - 0.5),
        };
        step(a, i, falls) * factor
    };
    one_pulse(Table { up: &up, down: &down }, false, table, tolerance);
}

#[test]
fn one_pulse_of_every_law() {
    every_law::<f64>(1e-14);
    every_law::<f32>(1e-7);
}

#[test]
fn trains_have_their_means_and_their_signs() {
    let (width, samples, slots) = (21, 400, 31);
    let value = |i: usize| (i as f64 - 10.0) / 8.0;
    let values: Vec<f64> = (0..width * samples).map(|k| value(k % width)).collect();
    for level in Level::available() {
        let mut drawn = Vec::new();
        let random = Philox::new(5, Purpose::Pulses);
        trains(level, &values, (width, &[slots; 400]), &[0.9; 400], (random, 1), &mut drawn);
        for i in 0..width {
            let own = (0..samples).map(|s| drawn[(i / GROUP * samples + s) * GROUP + i % GROUP]);
            assert!(own.clone().all(|train| (train >> 31 != 0) == (value(i) < 0.0)));
            let n = f64::from(slots) * samples as f64;
            let found = own.map(|train| f64::from((train << 1).count_ones())).sum::<f64>() / n;
            let p = (0.9 * value(i).abs()).min(1.0);
            assert!(
                (found - p).abs() <= 4.5 * (p * (1.0 - p) / n).sqrt(),
                "{}: {found} {p}",
                level.name()
            );
        }
        // Values beyond the last are no pulses.
        assert!(
            drawn[samples * GROUP..]
                .chunks(GROUP)
                .all(|group| group[width - GROUP..].iter().all(|&t| t == 0))
        );
    }
}

#[test]
fn coincidences_are_counted() {
    let (n, samples) = (35, 9);
    let random = Philox::new(5, Purpose::Pulses);
    let values: Vec<f64> = (0..n * samples).map(|k| random.uniform(k as u64, 9) - 0.5).collect();
    for level in Level::available() {
        let mut columns = Vec::new();
        trains(level, &values, (n, &[31; 9]), &[2.0; 9], (random, 1), &mut columns);
        let rows: Vec<(u32, u32)> =
            (0..samples as u32).map(|s| (s, random.words(u64::from(s), 4)[0])).collect();
        let mut array = Array::<f64>::new(n, false, 2);
        array.lower.fill(-1e3);
        array.upper.fill(1e3);
        let before = array.weights.clone();
        array.send(level, Constant, QUIET, Counts::Trains(&rows, &columns, samples), true, 0);
        for i in 0..n {
            let (mut count, mut change) = (0.0, 0.0);
            for &(s, own) in &rows {
                let other = columns[(i / GROUP * samples + s as usize) * GROUP + i % GROUP];
                let pulses = f64::from((own & other & (u32::MAX >> 1)).count_ones());
                count += pulses;
                change +=
                    pulses * if (own ^ other) >> 31 == 0 { array.up[i] } else { array.down[i] };
            }
            assert_eq!(array.pulses[i], count);
            assert!((array.weights[i] - before[i] - change).abs() < 1e-13, "{}", level.name());
        }
    }
}

/// The mean and the variance of where 20 noisy pulses take a cell, at once and one by one, against
/// the exact recursions.
#[test]
fn pulses_at_once_have_the_moments_of_pulses_one_by_one() {
    let (n, pulses, cycle) = (1 << 14, 20, 2.0);
    for (additive, at_once) in [(false, false), (false, true), (true, false), (true, true)] {
        let level = Level::get();
        let mut array = Array::<f64>::new(n, true, 4);
        let (start, up, slope) = (-0.5, 0.002, -0.02);
        array.weights.fill(start);
        array.up.fill(up);
        array.slopes[0].fill(slope);
        array.lower.fill(-9.0);
        array.upper.fill(9.0);
        let scatter = Scatter { cycle, additive, write: 0.0 };
        array.send(
            level,
            Linear,
            scatter,
            Counts::Means(&[f64::from(pulses)], &vec![1.0; n], 31.0),
            at_once,
            0,
        );
        let (mut mean, mut square) = (start, start * start);
        for _ in 0..pulses {
            // w' = w + (up + slope w) (1 + cycle xi), or with the noise of up alone.
            let (a, b, c) = (up, 1.0 + slope, slope);
            let noise = |w: f64, w2: f64| {
                if additive {
                    (cycle * up).powi(2)
                } else {
                    cycle * cycle * (up * up + 2.0 * up * c * w + c * c * w2)
                }
            };
            let next = a * a + 2.0 * a * b * mean + b * b * square + noise(mean, square);
            (square, mean) = (next, a + b * mean);
        }
        let variance = square - mean * mean;
        let found = array.weights.iter().sum::<f64>() / n as f64;
        let spread = array.weights.iter().map(|w| (w - mean).powi(2)).sum::<f64>() / n as f64;
        assert!(
            (found - mean).abs() < 4.5 * (variance / n as f64).sqrt(),
            "{additive} {at_once}: {found} {mean}"
        );
        assert!(
            (spread / variance - 1.0).abs() < 4.5 * (2.0 / n as f64).sqrt(),
            "{additive} {at_once}: {spread} {variance}"
        );
    }
}

proptest! {
    #[test]
    fn bounds_are_never_crossed(
        n in 1usize..40, samples in 1usize..6, cycle in 0.0f32..9.0, additive in any::<bool>(),
        at_once in any::<bool>(), seed in 0u64..99,
    ) {
        let random = Philox::new(seed, Purpose::Probe);
        let (rows, columns): (Vec<f32>, Vec<f32>) = (
            (0..samples).map(|s| 60.0 * random.uniform(s as u64, 1) as f32 - 30.0).collect(),
            (0..samples * n).map(|k| 2.0 * random.uniform(k as u64, 2) as f32 - 1.0).collect(),
        );
        for level in Level::available() {
            let mut array = Array::<f32>::new(n, true, seed);
            let scatter = Scatter { cycle, additive, write: 0.0 };
            array.send(level, Linear, scatter, Counts::Means(&rows, &columns, 31.0), at_once, seed);
            for i in 0..n {
                prop_assert!((array.lower[i]..=array.upper[i]).contains(&array.weights[i]));
                prop_assert!(array.pulses[i] >= 0.0 && array.pulses[i].fract() == 0.0);
            }
        }
    }
}
