//! Layers against what is known of their physics.

use super::*;

#[test]
fn noise_has_its_deviation_and_differs_between_occasions() {
    let net = stack::<f64>(&[linear(5, 200)], 0.0, 0.3);
    let quiet = stack::<f64>(&[linear(5, 200)], 0.0, 0.0);
    let (params, data) = (initial(&net), Data::<f64>::new(100, 5));
    let clean = outputs(&quiet, &params, &data.x, 0);
    let noise = |draw: u64| -> Vec<f64> {
        outputs(&net, &params, &data.x, draw).iter().zip(&clean).map(|(a, b)| a - b).collect()
    };
    let (first, second) = (noise(1), noise(2));
    assert_eq!(first, noise(1));
    let n = first.len() as f64;
    let product =
        |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / n / 0.09;
    assert!((product(&first, &first) - 1.0).abs() < 4.0 * (2.0 / n).sqrt());
    assert!(product(&first, &second).abs() < 4.0 / n.sqrt());
}

/// Without couplings each pendulum keeps its energy, to the fourth order of the step, and small
/// swings are cosines.
#[test]
fn pendula_swing() {
    let swing = |x: f64, time: f64, steps: usize| {
        let net = stack::<f64>(&[PendulaSpec { inputs: 1, time, steps }.into()], 0.0, 0.0);
        outputs(&net, &[vec![0.4], vec![0.0]], &[x], 0)[0]
    };
    assert!((swing(1e-4, 5.0, 200) - 1e-4 * 5f64.cos()).abs() < 1e-9 * 1e-1);
    // A period at amplitude 2 is 4 K(sin 1), by the arithmetic-geometric mean.
    let (mut a, mut b) = (1.0f64, 1f64.cos());
    for _ in 0..30 {
        (a, b) = (0.5 * (a + b), (a * b).sqrt());
    }
    let period = std::f64::consts::TAU / a;
    assert!((swing(2.0, period, 4000) - 2.0).abs() < 1e-9);
    let error = |steps: usize| (swing(2.5, 5.0, steps) - swing(2.5, 5.0, 4000)).abs();
    let order = (error(100) / error(200)).log2();
    assert!((3.7..5.0).contains(&order), "order {order}");
}

/// A torque holds a pendulum where it is; two coupled pendula answer as the formula says, to second
/// order in time.
#[test]
fn pendula_are_pulled_by_torques_and_couplings() {
    let net = stack::<f64>(&[PendulaSpec { inputs: 2, time: 0.01, steps: 4 }.into()], 0.0, 0.0);
    let (x, couplings, torques) = ([0.5f64, -1.2], [0.3, 0.7, -0.4, 0.1], [0.2, -0.1]);
    let found = outputs(&net, &[couplings.to_vec(), torques.to_vec()], &x, 0);
    for i in 0..2 {
        let pull: f64 = (0..2).map(|j| couplings[2 * j + i] * (x[j].sin() - x[i].sin())).sum();
        let force = -x[i].sin() + pull + torques[i];
        assert!((found[i] - x[i] - 0.5 * 1e-4 * force).abs() < 1e-8, "pendulum {i}");
    }
}

/// A linear plate is a sum of damped oscillators: superposition holds, and its answer decays as it
/// should.
#[test]
fn a_plate_without_hardening_is_linear_and_with_it_is_not() {
    let plate = |cubic: f64| {
        stack::<f64>(
            &[PlateSpec { inputs: 8, parameters: 40, modes: 6, damping: 0.3, cubic }.into()],
            0.0,
            0.0,
        )
    };
    let params = [vec![0.0; 40]];
    let (a, b): (Vec<f64>, Vec<f64>) = (
        (0..8).map(|k| f64::from(k).cos()).collect(),
        (0..8).map(|k| 0.1 * f64::from(k)).collect(),
    );
    let both: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    let off = |cubic: f64| {
        let net = plate(cubic);
        let sum: Vec<f64> = outputs(&net, &params, &a, 0)
            .iter()
            .zip(outputs(&net, &params, &b, 0))
            .map(|(a, b)| a + b)
            .collect();
        difference(&outputs(&net, &params, &both, 0), &sum)
    };
    assert!(off(0.0) < 1e-12 && off(1.0) > 1e-3);
    // The envelope falls as exp(-c t / 2).
    let found = outputs(&plate(0.0), &params, &a, 0);
    let power = |from: usize| found[from..from + 12].iter().map(|v| v * v).sum::<f64>();
    let rate = (power(10) / power(34)).ln() / 24.0;
    assert!((rate - 0.3).abs() < 0.1, "{rate}");
}

/// Under a constant drive the circuit comes to rest where Kirchhoff's laws hold.
#[test]
fn a_transistor_circuit_comes_to_its_operating_point() {
    let net = stack::<f64>(&[TransistorSpec { inputs: 60, parameters: 1 }.into()], 0.0, 0.0);
    let found = outputs(&net, &[vec![1.5]], &[1.5; 60], 0);
    let current = |v: f64| ((v - 0.2) / 0.5).exp().ln_1p().powi(2);
    // (u - v) / R = v / r + I(v), by bisection.
    let (mut low, mut high) = (0.0, 1.5);
    for _ in 0..100 {
        let v = 0.5 * (low + high);
        if (1.5 - v) / 1.5 > v / 0.2 + current(v) { low = v } else { high = v }
    }
    assert!((found[59] - current(low)).abs() < 1e-6, "{} {}", found[59], current(low));
}

/// The medium is complex normal of variance 1 / inputs: intensities are exponentially distributed
/// with mean |x|^2.
#[test]
fn speckle_is_speckle() {
    let n = 4000;
    let net =
        stack::<f64>(&[SpeckleSpec { inputs: 9, outputs: n, reference: 0.0 }.into()], 0.0, 0.0);
    let x: Vec<f64> = (0..9).map(|k| f64::from(k).cos()).collect();
    let power: f64 = x.iter().map(|x| x * x).sum::<f64>() / 9.0;
    let found = outputs(&net, &[(0..9).map(f64::from).collect()], &x, 0);
    let mean = found.iter().sum::<f64>() / n as f64;
    let square = found.iter().map(|y| y * y).sum::<f64>() / n as f64;
    assert!((mean / power - 1.0).abs() < 4.0 / (n as f64).sqrt());
    // The second moment of an exponential distribution is twice the square of its mean; its spread
    // is sqrt(20 / n).
    assert!((square / (2.0 * mean * mean) - 1.0).abs() < 4.0 * (5.0 / n as f64).sqrt());
    // A common phase of all inputs changes no intensity.
    let turned = outputs(&net, &[(0..9).map(|k| f64::from(k) + 1.0).collect()], &x, 0);
    assert!(difference(&turned, &found) < 1e-13);
}

/// The second harmonic is the spectrum convolved with itself: its amplitudes sum to the square of
/// the sum.
#[test]
fn the_second_harmonic_is_a_convolution() {
    let net = stack::<f64>(&[SecondHarmonicSpec { inputs: 3, parameters: 2 }.into()], 0.0, 0.0);
    let found = outputs(&net, &[vec![0.5, 2.0]], &[1.0, 0.3, 0.7], 0);
    let a = [1.0, 0.3, 0.7, 0.5, 2.0];
    let mut b = [0.0; 9];
    for (i, x) in a.iter().enumerate() {
        for (j, y) in a.iter().enumerate() {
            b[i + j] += x * y;
        }
    }
    let expected: Vec<f64> = b.iter().map(|b| b * b).collect();
    assert!(difference(&found, &expected) < 1e-14);
    let total: f64 = found.iter().map(|y| y.sqrt()).sum();
    assert!((total - a.iter().sum::<f64>().powi(2)).abs() < 1e-12);
}
