//! Arrays of cells: what pulses do to them on average, how that scatters, and what does not depend
//! on threads.
#![allow(clippy::needless_range_loop, reason = "cells have two indices")]

use pnncore::device::{
    Algorithm, CellArray, Change, Choice, Kind, Law, Pulsed, Spread, TileSpec, Trains, Unit,
    UpdateKey,
};
use pnncore::runtime::Runtime;

const EQUAL: Spread = Spread { step: 0.0, up_down: 0.0, lower: 0.0, upper: 0.0, lifetime: 0.0 };

fn constant(step: f64, bound: f64, cycle: f64) -> Pulsed {
    Pulsed {
        step,
        up_down: 0.0,
        lower: -bound,
        upper: bound,
        law: Law::Constant,
        spread: EQUAL,
        cycle,
        additive: false,
        write_noise: 0.0,
        lifetime: None,
        diffusion: 0.0,
        stuck: 0.0,
    }
}

fn soft_bounds(step: f64, lower: f64, upper: f64, cycle: f64) -> Pulsed {
    let law = Law::Linear { up: 1.0, down: 1.0, spread: 0.0, mean_bound: false };
    Pulsed { lower, upper, law, ..constant(step, 1.0, cycle) }
}

const TRAINS: Trains =
    Trains { kind: Kind::Stochastic, slots: 31, manage_length: true, balance: true, at_once: true };

fn direct(device: Pulsed, trains: Trains) -> TileSpec {
    TileSpec { device, unit: Unit::Single, trains, algorithm: Algorithm::Direct }
}

fn runtime() -> Runtime {
    Runtime::new(Some(1), 5).expect("a runtime")
}

/// Arrays of zeros that a tile keeps.
fn memory(tile: &CellArray<f64>) -> Vec<Vec<f64>> {
    tile.memory().iter().map(|spec| vec![0.0; spec.len()]).collect()
}

fn update(
    tile: &CellArray<f64>,
    runtime: &Runtime,
    (step, rate): (u64, f64),
    change: Change<'_, f64>,
    values: &mut [f64],
    kept: &mut [Vec<f64>],
) {
    let mut kept: Vec<&mut [f64]> = kept.iter_mut().map(Vec::as_mut_slice).collect();
    tile.update(runtime, UpdateKey { parameter: 0, step, rate }, change, values, &mut kept);
}

/// Inputs and errors between -1 and 1 that differ from line to line, none of them zero.
fn lines(n: usize, turn: f64) -> Vec<f64> {
    (0..n).map(|i| ((i as f64 + 1.0) * turn).sin()).collect()
}

/// Repeats of one update of a fresh array: the changes.
fn repeats(
    spec: &TileSpec,
    (x, d): (&[f64], &[f64]),
    rate: f64,
    start: f64,
    count: u64,
) -> Vec<Vec<f64>> {
    let tile = CellArray::new(spec, (x.len(), d.len()), 1, 0).expect("a tile");
    let blocks = [(x.to_vec(), d.to_vec())];
    (0..count)
        .map(|step| {
            let mut values = vec![start; x.len() * d.len()];
            update(
                &tile,
                &runtime(),
                (step, rate),
                Change::Product(&blocks),
                &mut values,
                &mut memory(&tile),
            );
            values.iter().map(|value| value - start).collect()
        })
        .collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0.0), |(sum, n), v| (sum + v, n + 1.0));
    sum / n
}

/// The mean change is -rate d x: slope 1 and z scores as of standard normal numbers; variances and
/// covariances are as derived from shared trains.
///
/// Cells of a line hear the same trains, so their z scores go together: by about the probability of
/// the other line. Where that is near one, there are hardly more independent ones than lines; where
/// it is small, their deviation is known to a percent.
#[test]
fn changes_have_their_mean_variance_and_covariance() {
    for (n, rate, manage_length, apart) in [(64, 0.1, true, 0.2), (96, 0.006, false, 0.03)] {
        for at_once in [false, true] {
            let trains = Trains { at_once, manage_length, ..TRAINS };
            check_moments(n, rate, trains, apart);
        }
    }
}

fn check_moments(n: usize, rate: f64, trains: Trains, apart: f64) {
    let (step, cycle, count) = (0.01, 0.3, 4000);
    let (x, d) = (lines(n, 0.7), lines(n, 1.3));
    let largest = |v: &[f64]| v.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let most = rate / step * largest(&x) * largest(&d);
    let slots = if trains.manage_length { most.ceil() } else { f64::from(trains.slots) };
    let found = repeats(&direct(constant(step, 9.0, cycle), trains), (&x, &d), rate, 0.0, count);
    let (mut slope, mut size, mut z_scores) = (0.0, 0.0, Vec::new());
    let tilt = (largest(&x) / largest(&d)).sqrt();
    let each = (rate / (step * slots)).sqrt();
    let (px, pd) = (|j: usize| each / tilt * x[j].abs(), |i: usize| each * tilt * d[i].abs());
    for j in 0..n {
        for i in 0..n {
            let cell = j * n + i;
            let own = || found.iter().map(|change| change[cell]);
            let (wanted, average) = (-rate * d[i] * x[j], mean(own()));
            let p = px(j) * pd(i);
            let variance = step * step * slots * p * (1.0 - p + cycle * cycle);
            slope += average * wanted;
            size += wanted * wanted;
            // The rarest pulses do not come often enough for moments.
            if count as f64 * slots * p < 20.0 {
                continue;
            }
            z_scores.push((average - wanted) / (variance / count as f64).sqrt());
            let spread = mean(own().map(|change| (change - wanted).powi(2)));
            // The fourth moment of a count of few pulses is above that of a normal number.
            let trust = 5.5 * ((2.0 + 1.5 / (slots * p)) / count as f64).sqrt();
            assert!(
                (spread / variance - 1.0).abs() < trust,
                "{trains:?} {cell}: {spread} {variance}"
            );
        }
    }
    assert!((slope / size - 1.0).abs() < 0.005, "{}", slope / size);
    let deviation = mean(z_scores.iter().map(|z| z * z)).sqrt();
    assert!((deviation - 1.0).abs() < apart, "{trains:?}: {deviation}");
    // Two cells that hear the same errors, and inputs of two rows: p_x p_x' p_d (1 - p_d), with the
    // sign of both changes.
    for (j, k, i) in [(0, 1, 2), (3, 9, 4), (5, 6, 11)] {
        let (a, b) = (j * n + i, k * n + i);
        let wanted =
            slots * px(j) * px(k) * pd(i) * (1.0 - pd(i)) * step * step * (x[j] * x[k]).signum();
        let (mean_a, mean_b) = (-rate * d[i] * x[j], -rate * d[i] * x[k]);
        let products: Vec<f64> = found.iter().map(|c| (c[a] - mean_a) * (c[b] - mean_b)).collect();
        let average = mean(products.iter().copied());
        let error = (mean(products.iter().map(|p| (p - average).powi(2))) / count as f64).sqrt();
        assert!(
            (average - wanted).abs() < 5.0 * error,
            "{trains:?} {j} {k}: {average} {wanted} +- {error}"
        );
    }
}

/// The largest distance between two empirical distributions, in units that do not depend on their
/// sizes.
fn smirnov(mut a: Vec<f64>, mut b: Vec<f64>) -> f64 {
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    let (mut i, mut j, mut most) = (0, 0, 0.0f64);
    while i < a.len() && j < b.len() {
        let at = a[i].min(b[j]);
        while i < a.len() && a[i] <= at {
            i += 1;
        }
        while j < b.len() && b[j] <= at {
            j += 1;
        }
        most = most.max((i as f64 / a.len() as f64 - j as f64 / b.len() as f64).abs());
    }
    let (n, m) = (a.len() as f64, b.len() as f64);
    most * (n * m / (n + m)).sqrt()
}

/// A number that is made of the changes of all cells.
type Look<'a> = &'a dyn Fn(&[f64]) -> f64;

/// Pulses at once and one by one have the same law: of one cell, and of sums and differences along
/// a row, near bounds and far.
#[test]
fn the_law_does_not_depend_on_whether_pulses_are_summed() {
    let (x, d, rate) = (vec![0.9, -0.5], vec![0.8, -0.6, 0.3], 0.3);
    let devices = [
        constant(0.02, 9.0, 0.3),
        constant(0.02, 0.3, 0.9),
        soft_bounds(0.02, -0.5, 0.6, 0.5),
        Pulsed { additive: true, ..soft_bounds(0.02, -0.4, 0.5, 2.0) },
    ];
    for (k, device) in devices.into_iter().enumerate() {
        for start in [0.0, 0.2] {
            let sample = |at_once, first: u64| {
                let spec = direct(device.clone(), Trains { at_once, ..TRAINS });
                repeats(&spec, (&x, &d), rate, start, first)
            };
            // Other numbers, not the same: one more repeat shifts them all.
            let (a, b) = (sample(false, 6000), sample(true, 12_000).split_off(6000));
            let of = |all: &[Vec<f64>], f: &dyn Fn(&[f64]) -> f64| {
                all.iter().map(|change| f(change)).collect::<Vec<f64>>()
            };
            let looks: [(&str, Look<'_>); 5] = [
                ("a cell", &|c| c[0]),
                ("another", &|c| c[5]),
                ("the sum of a row", &|c| c[0] + c[1] + c[2]),
                ("a difference along a row", &|c| c[0] - 1.3 * c[2]),
                ("a difference along a column", &|c| c[0] - 1.7 * c[3]),
            ];
            for (name, look) in looks {
                let distance = smirnov(of(&a, look), of(&b, look));
                // Beyond 2.1 lies one of 3,000.
                assert!(distance < 2.1, "device {k} from {start}, {name}: {distance}");
            }
        }
    }
}

/// Pulses in one direction, cell by cell: as many as `count`, then what is there.
fn after(device: &Pulsed, start: f64, counts: &[f64]) -> f64 {
    let tile = CellArray::new(&direct(device.clone(), TRAINS), (1, 1), 1, 0).expect("a tile");
    let (mut values, mut kept) = (vec![start], memory(&tile));
    for (k, count) in counts.iter().enumerate() {
        let change = [count * device.granularity()];
        update(&tile, &runtime(), (k as u64, 0.1), Change::Dense(&change), &mut values, &mut kept);
    }
    assert!(kept[0][0] == counts.iter().map(|c| c.abs()).sum::<f64>());
    values[0]
}

#[test]
fn a_thousand_pulses_up_and_down_follow_the_closed_forms() {
    let soft = soft_bounds(0.002, -0.75, 1.25, 0.0);
    let up = |w: f64, n: i32| 1.25 - (1.25 - w) * (1.0 - 0.002 / 1.25f64).powi(n);
    let down = |w: f64, n: i32| -0.75 + (w + 0.75) * (1.0 - 0.002 / 0.75f64).powi(n);
    assert!((after(&soft, 0.1, &[1000.0]) - up(0.1, 1000)).abs() < 1e-12);
    assert!((after(&soft, 0.1, &[1000.0, -1000.0]) - down(up(0.1, 1000), 1000)).abs() < 1e-12);
    let plain = constant(0.001, 0.6, 0.0);
    assert!((after(&plain, 0.0, &[400.0, -150.0]) - 0.25).abs() < 1e-12);
    assert!((after(&plain, 0.0, &[1000.0]) - 0.6).abs() < 1e-15);
    // Up and down in turn end where both steps are equal: (a+ - a-) / (a+ / b_max - a- / b_min).
    let tilted = Pulsed { up_down: 0.3, ..soft };
    let (a_up, a_down) = (0.002, 0.002 * 0.7);
    let symmetric = (a_up - a_down) / (a_up / 1.25 + a_down / 0.75);
    let turns: Vec<f64> = (0..8000).map(|k| if k % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let end = after(&tilted, -0.6, &turns);
    assert!((end - symmetric).abs() < 0.002, "{end} {symmetric}");
}

#[test]
fn laws_have_their_steps() {
    let exponential = Pulsed {
        law: Law::Exponential { up: (-1.18445, 5.0), down: (-0.081404, 5.0), a: -0.5, b: -0.5 },
        ..constant(0.00135, 1.0, 0.0)
    };
    let z = -0.5 * 0.3 - 0.5;
    let step = after(&exponential, 0.3, &[1.0]) - 0.3;
    assert!((step - 0.00135 * (1.0 + 1.18445 * f64::exp(5.0 * z))).abs() < 1e-9 * step);
    let step = after(&exponential, 0.3, &[-1.0]) - 0.3;
    assert!((step + 0.00135 * (1.0 + 0.081404 * f64::exp(-5.0 * z))).abs() < 1e-9 * step.abs());
    let power = Pulsed { law: Law::Power { up: 2.0, down: 0.5 }, ..constant(0.01, 0.5, 0.0) };
    assert!((after(&power, 0.1, &[1.0]) - 0.1 - 0.01 * 0.4f64.powi(2)).abs() < 1e-15);
    assert!((after(&power, 0.1, &[-1.0]) - 0.1 + 0.01 * 0.6f64.sqrt()).abs() < 1e-15);
    let table = Pulsed {
        law: Law::Table { up: vec![2.0, 1.0, 0.0], down: vec![1.0, 3.0] },
        ..constant(0.01, 0.5, 0.0)
    };
    // The mean of the steps at zero is 1.5 times the step: changes are in units of it.
    assert!((table.granularity() - 0.015).abs() < 1e-15);
    assert!((after(&table, 0.25, &[1.0]) - 0.25 - 0.005).abs() < 1e-15);
    assert!((after(&table, 0.25, &[-1.0]) - 0.25 + 0.025).abs() < 1e-15);
}

/// Trains without chance coincide as often as the product of their counts says, rounded.
#[test]
fn deterministic_trains_round_products() {
    let (x, d, rate, step) = (lines(20, 0.9), lines(33, 1.1), 0.2, 0.01);
    let trains =
        Trains { kind: Kind::Deterministic, balance: false, manage_length: false, ..TRAINS };
    let found = &repeats(&direct(constant(step, 9.0, 0.0), trains), (&x, &d), rate, 0.0, 1)[0];
    let scale = (rate / (step * 31.0)).sqrt();
    let pulses = |v: f64| ((v.abs() * scale).min(1.0) * 31.0).round();
    for (j, x) in x.iter().enumerate() {
        for (i, d) in d.iter().enumerate() {
            let count = (pulses(*x) * pulses(*d) / 31.0 + 0.5).floor();
            let wanted = -step * count * (x * d).signum();
            assert!((found[j * 33 + i] - wanted).abs() < 1e-12, "{j} {i}");
        }
    }
    let counted = Trains { kind: Kind::MeanCount, ..TRAINS };
    for found in repeats(&direct(constant(step, 9.0, 0.0), counted), (&x, &d), rate, 0.0, 50) {
        for (cell, found) in found.iter().enumerate() {
            let wanted = -rate * x[cell / 33] * d[cell % 33];
            assert!((found - wanted).abs() < step + 1e-12, "never more than a step off");
        }
    }
}

#[test]
fn cells_differ_lose_wander_and_stick() {
    let n = 40_000;
    let spread = Spread { step: 0.2, up_down: 0.05, lower: 0.1, upper: 0.3, lifetime: 0.2 };
    let device = Pulsed { spread, stuck: 0.05, ..constant(0.01, 0.5, 0.0) };
    let tile =
        CellArray::<f64>::new(&direct(device.clone(), TRAINS), (200, 200), 3, 0).expect("a tile");
    let (mut values, mut kept) = (vec![0.0; n], memory(&tile));
    tile.keep_within(&mut values);
    let before = values.clone();
    update(&tile, &runtime(), (0, 0.1), Change::Dense(&vec![0.01; n]), &mut values, &mut kept);
    let steps: Vec<f64> =
        values.iter().zip(&before).map(|(after, before)| after - before).collect();
    let still = steps.iter().filter(|&&s| s == 0.0).count() as f64 / n as f64;
    assert!((still - 0.05).abs() < 4.5 * (0.05 * 0.95 / n as f64).sqrt(), "{still}");
    let moving: Vec<f64> = steps.iter().copied().filter(|&s| s != 0.0).collect();
    let average = mean(moving.iter().copied());
    let deviation = mean(moving.iter().map(|s| (s - average).powi(2))).sqrt();
    let wanted = 0.01 * f64::hypot(0.2, 0.05);
    assert!(
        (average - 0.01).abs() < 5.0 * wanted / (n as f64).sqrt()
            && (deviation / wanted - 1.0).abs() < 0.02
    );
    update(&tile, &runtime(), (1, 0.1), Change::Dense(&vec![9.0; n]), &mut values, &mut kept);
    let free: Vec<f64> =
        values.iter().zip(&steps).filter(|(_, s)| **s != 0.0).map(|(v, _)| *v).collect();
    assert!(
        (mean(free.iter().copied()) / 0.5 - 1.0).abs() < 0.01 && tile.outside(&values).is_none()
    );
    values[7] = 99.0;
    assert_eq!(tile.outside(&values).map(|(i, _)| i), Some(7));
    // Leaking and wandering, without any pulse.
    let leaky =
        Pulsed { lifetime: Some(50.0), diffusion: 0.5, spread: EQUAL, stuck: 0.0, ..device };
    let tile = CellArray::<f64>::new(&direct(leaky, TRAINS), (200, 200), 3, 0).expect("a tile");
    let (mut values, mut kept) = (vec![0.4; n], memory(&tile));
    for step in 0..30 {
        update(
            &tile,
            &runtime(),
            (step, 0.1),
            Change::Dense(&vec![0.0; n]),
            &mut values,
            &mut kept,
        );
    }
    let keep = 1.0 - 1.0 / 50.0f64;
    let variance = 0.005f64.powi(2) * (1.0 - keep.powi(60)) / (1.0 - keep * keep);
    let average = mean(values.iter().copied());
    assert!((average - 0.4 * keep.powi(30)).abs() < 5.0 * (variance / n as f64).sqrt());
    let found = mean(values.iter().map(|v| (v - average).powi(2)));
    assert!((found / variance - 1.0).abs() < 5.0 * (2.0 / n as f64).sqrt(), "{found} {variance}");
}

/// Noise of writes is seen, and does not add up.
#[test]
fn noise_of_writes_stays_what_it_is() {
    let n = 10_000;
    let device = Pulsed { write_noise: 5.0, ..constant(0.01, 0.5, 0.0) };
    let tile = CellArray::<f64>::new(&direct(device, TRAINS), (100, 100), 3, 0).expect("a tile");
    let (mut values, mut kept) = (vec![0.0; n], memory(&tile));
    for step in 0..10 {
        update(
            &tile,
            &runtime(),
            (step, 0.1),
            Change::Dense(&vec![0.02; n]),
            &mut values,
            &mut kept,
        );
        let state = 0.02 * (step + 1) as f64;
        let deviation = mean(values.iter().map(|v| (v - state).powi(2))).sqrt();
        assert!(
            (deviation / 0.05 - 1.0).abs() < 5.0 * (0.5 / n as f64).sqrt(),
            "{step}: {deviation}"
        );
        assert!(
            values
                .iter()
                .zip(&kept[1])
                .all(|(value, offset)| (value - offset - state).abs() < 1e-12)
        );
    }
    let before = values.clone();
    update(&tile, &runtime(), (11, 0.1), Change::Dense(&vec![0.0; n]), &mut values, &mut kept);
    assert_eq!(values, before, "cells without pulses are not written");
}

#[test]
fn mixed_precision_keeps_what_makes_no_step() {
    let spec = TileSpec {
        algorithm: Algorithm::MixedPrecision { threshold: 1.0 },
        ..direct(constant(0.01, 0.5, 0.0), TRAINS)
    };
    let tile = CellArray::<f64>::new(&spec, (3, 2), 3, 0).expect("a tile");
    let (mut values, mut kept) = (vec![0.0; 6], memory(&tile));
    let blocks = [(vec![0.5, -1.0, 0.25, 0.1, 0.2, 0.3], vec![0.3, -0.7, 0.9, 0.2])];
    let mut wanted = [0.0; 6];
    for step in 0..40 {
        update(&tile, &runtime(), (step, 0.007), Change::Product(&blocks), &mut values, &mut kept);
        for s in 0..2 {
            for j in 0..3 {
                for i in 0..2 {
                    wanted[j * 2 + i] -= 0.007 * blocks[0].0[s * 3 + j] * blocks[0].1[s * 2 + i];
                }
            }
        }
        for ((value, sum), wanted) in values.iter().zip(&kept[1]).zip(&wanted) {
            assert!((value + sum - wanted).abs() < 1e-12 && sum.abs() <= 0.01 + 1e-12, "{step}");
            assert!((value / 0.01 - (value / 0.01).round()).abs() < 1e-9);
        }
    }
}

/// A pair moves up on one side and on the other, and begins again where both are large.
#[test]
fn pairs_are_differences() {
    let device = Pulsed { lower: 0.0, ..constant(0.01, 0.5, 0.0) };
    let spec = TileSpec { unit: Unit::Pair { refresh: 0.9 }, ..direct(device, TRAINS) };
    let tile = CellArray::<f64>::new(&spec, (1, 2), 3, 0).expect("a tile");
    let (mut values, mut kept) = (vec![0.1, -0.2], memory(&tile));
    let (mut weights, mut most) = ([0.1, -0.2], 0.0f64);
    for step in 0..300 {
        let change = if step % 3 == 0 { [-0.02, 0.02] } else { [0.01, -0.01] };
        update(&tile, &runtime(), (step, 0.1), Change::Dense(&change), &mut values, &mut kept);
        for i in 0..2 {
            weights[i] += change[i];
            assert!((values[i] - weights[i]).abs() < 1e-9, "{step}: {} {}", values[i], weights[i]);
            most = most.max(kept[1][i]);
        }
    }
    assert!(most > 0.2 && most < 0.46, "the second cells were used, and refreshed: {most}");
}

fn multi(device: Pulsed, significance: &[f64], choice: Choice) -> TileSpec {
    let unit = Unit::Multi { significance: significance.to_vec(), choice };
    TileSpec { unit, ..direct(device, TRAINS) }
}

/// Cells that all hear the same are one cell with the sum of their steps and bounds.
#[test]
fn cells_that_hear_the_same_are_one() {
    let blocks = [(lines(5 * 4, 0.7), lines(3 * 4, 1.3))];
    let several = CellArray::<f64>::new(
        &multi(constant(0.01, 0.1, 0.0), &[1.0, 0.5, 0.25], Choice::All),
        (5, 3),
        1,
        0,
    )
    .unwrap();
    let one =
        CellArray::<f64>::new(&direct(constant(0.0175, 0.175, 0.0), TRAINS), (5, 3), 1, 0).unwrap();
    let (mut values, mut wanted) = (vec![0.02; 15], vec![0.02; 15]);
    let (mut kept, mut kept_of_one) = (memory(&several), memory(&one));
    for step in 0..60 {
        update(&several, &runtime(), (step, 0.1), Change::Product(&blocks), &mut values, &mut kept);
        update(
            &one,
            &runtime(),
            (step, 0.1),
            Change::Product(&blocks),
            &mut wanted,
            &mut kept_of_one,
        );
        for (value, wanted) in values.iter().zip(&wanted) {
            assert!((value - wanted).abs() < 1e-12, "{step}: {value} {wanted}");
        }
    }
    assert!(values.iter().any(|v| v.abs() > 0.174), "some came to their bounds");
}

/// One cell after the other hears of updates; the weight is the sum of all, within its bounds, and
/// may be set from outside.
#[test]
fn cells_take_turns() {
    let factors = [1.0, 0.5, 0.125];
    for choice in [Choice::Cyclic, Choice::Random] {
        let device = Pulsed { write_noise: 2.0, ..soft_bounds(0.01, -0.2, 0.3, 1.0) };
        let tile =
            CellArray::<f64>::new(&multi(device, &factors, choice), (4, 3), 1, 0).expect("a tile");
        let (mut values, mut kept) = (vec![0.05; 12], memory(&tile));
        // As tiles keep them: pulses and offset of the first; value, pulses and offset of each
        // other.
        let pulses = |kept: &[Vec<f64>]| [0, 3, 6].map(|k| kept[k].iter().sum::<f64>());
        let mut turns = [0; 3];
        for step in 0..90 {
            let before = pulses(&kept);
            let change = lines(12, 0.3 + step as f64).iter().map(|v| 0.02 * v).collect::<Vec<_>>();
            update(&tile, &runtime(), (step, 0.1), Change::Dense(&change), &mut values, &mut kept);
            let heard: Vec<usize> = (0..3).filter(|&k| pulses(&kept)[k] > before[k]).collect();
            assert_eq!(heard.len(), 1, "{choice:?}");
            turns[heard[0]] += 1;
            if choice == Choice::Cyclic {
                assert_eq!(heard[0] as u64, step % 3);
            }
            for (i, value) in values.iter().enumerate() {
                // A cell is what is kept and its share; the first has the rest.
                let share = value / 1.625;
                let (second, third) = (kept[2][i] + share, kept[5][i] + share);
                let first = value - 0.5 * second - 0.125 * third;
                let states = [first - kept[1][i], second - kept[4][i], third - kept[7][i]];
                let range = -0.2 - 1e-9..=0.3 + 1e-9;
                assert!(states.iter().all(|state| range.contains(state)), "{states:?}");
            }
            if step == 50 {
                values[0] += 0.01;
            }
        }
        assert!(turns.iter().all(|&n| n > 15), "{turns:?}");
    }
}

/// What is set from outside is there after an update that asks for nothing.
#[test]
fn updates_keep_what_is_set() {
    let spec = multi(constant(0.01, 0.5, 0.0), &[1.0, 0.5, 0.125], Choice::Cyclic);
    let tile = CellArray::<f64>::new(&spec, (1, 2), 1, 0).expect("a tile");
    let (mut values, mut kept) = (vec![0.1, -0.3], memory(&tile));
    for (step, set) in
        [[0.1, -0.3], [0.6, 0.2], [0.8125, -0.8125], [2.0, -2.0]].into_iter().enumerate()
    {
        values.copy_from_slice(&set);
        let nothing = Change::Dense(&[0.0, 0.0]);
        update(&tile, &runtime(), (step as u64, 0.1), nothing, &mut values, &mut kept);
        for (value, set) in values.iter().zip(set) {
            assert!((value - set.clamp(-0.8125, 0.8125)).abs() < 1e-12, "{value} {set}");
        }
    }
}

/// On average a weight of several cells moves as it should, whichever of them hears.
#[test]
fn changes_of_several_cells_have_their_mean() {
    let (n, rate, count) = (24, 0.1, 6000);
    let (x, d) = (lines(n, 0.7), lines(n, 1.3));
    for choice in [Choice::Cyclic, Choice::Random, Choice::All] {
        let found = repeats(
            &multi(constant(0.01, 9.0, 0.3), &[1.0, 0.4], choice),
            (&x, &d),
            rate,
            0.0,
            count,
        );
        let (mut slope, mut size) = (0.0, 0.0);
        for (j, i) in (0..n).flat_map(|j| (0..n).map(move |i| (j, i))) {
            let wanted = -rate * d[i] * x[j];
            slope += wanted * mean(found.iter().map(|change| change[j * n + i]));
            size += wanted * wanted;
        }
        assert!((slope / size - 1.0).abs() < 0.01, "{choice:?}: {}", slope / size);
    }
}

/// The bytes do not depend on threads, whatever the algorithm.
#[test]
fn threads_do_not_matter() {
    let device = Pulsed { write_noise: 3.0, ..soft_bounds(0.01, -0.6, 0.7, 1.0) };
    let (x, d) = (lines(256 * 16, 0.37), lines(200 * 16, 0.91));
    let blocks = [(x, d)];
    let algorithms = [Algorithm::Direct, Algorithm::MixedPrecision { threshold: 1.0 }];
    let units =
        [Unit::Single, Unit::Multi { significance: vec![1.0, 0.5], choice: Choice::Random }];
    for (algorithm, unit) in algorithms.into_iter().zip(units) {
        let spec = TileSpec { algorithm, unit, ..direct(device.clone(), TRAINS) };
        let tile = CellArray::<f64>::new(&spec, (256, 200), 3, 0).expect("a tile");
        let run = |threads| {
            let runtime = Runtime::new(Some(threads), 5).expect("a runtime");
            let (mut values, mut kept) = (vec![0.01; 256 * 200], memory(&tile));
            runtime.enter(|| {
                for step in 0..3 {
                    update(
                        &tile,
                        &runtime,
                        (step, 0.1),
                        Change::Product(&blocks),
                        &mut values,
                        &mut kept,
                    );
                }
            });
            (values, kept)
        };
        let one = run(1);
        assert!([2, 3, 8].into_iter().all(|threads| run(threads) == one));
    }
}
