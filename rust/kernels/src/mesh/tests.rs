//! Every way through a mesh, beside one element and one row after the other.

use super::*;
use crate::level::Level;
use proptest::prelude::*;

const SIZE: usize = 5;

/// A mesh of some elements on five waveguides, and its light: numbers of sines.
struct Case {
    waveguides: Vec<[u32; 2]>,
    elements: Vec<Element>,
    light: Vec<f64>,
    errors: Vec<f64>,
    rows: usize,
}

fn case(count: usize, rows: usize, power: f64, seed: u64) -> Case {
    let number = |k: usize| ((k as f64 + 31.0 * seed as f64) * 1.7).sin();
    let waveguides = (0..count)
        .map(|k| {
            let first = (7 * k + seed as usize) % SIZE;
            [first as u32, ((first + 1 + k % (SIZE - 1)) % SIZE) as u32]
        })
        .collect();
    let elements = (0..count)
        .map(|k| {
            let [a, b, theta, phi] = std::array::from_fn(|j| 3.0 * number(4 * k + j));
            element([a, b], theta, phi, power)
        })
        .collect();
    let all = |from: usize| (0..2 * SIZE * rows).map(|k| number(from + k)).collect();
    Case { waveguides, elements, light: all(1000), errors: all(5000), rows }
}

type Pair = [(f64, f64); 2];

fn times((a, b): (f64, f64), (x, y): (f64, f64)) -> (f64, f64) {
    (a * x - b * y, a * y + b * x)
}

fn plus((a, b): (f64, f64), (x, y): (f64, f64)) -> (f64, f64) {
    (a + x, b + y)
}

fn coupler(angle: f64, t: f64) -> [(f64, f64); 4] {
    let (s, c) = angle.sin_cos();
    [(t * c, 0.0), (0.0, t * s), (0.0, t * s), (t * c, 0.0)]
}

fn product(m: [(f64, f64); 4], [x, y]: Pair) -> Pair {
    [plus(times(m[0], x), times(m[1], y)), plus(times(m[2], x), times(m[3], y))]
}

/// Couplers of these angles, each of which passes a square root of the power.
fn element(angles: [f64; 2], theta: f64, phi: f64, power: f64) -> Element {
    let t = power.sqrt().sqrt();
    let shift = |x: Pair, phase: f64| [times((phase.cos(), phase.sin()), x[0]), x[1]];
    let within = |x: Pair| shift(product(coupler(angles[0], t), shift(x, phi)), theta);
    let whole = |x: Pair| product(coupler(angles[1], t), within(x));
    let units: [Pair; 2] = [[(1.0, 0.0), (0.0, 0.0)], [(0.0, 0.0), (1.0, 0.0)]];
    let [u, v] = [whole(units[0]), whole(units[1])];
    let list = |z: (f64, f64)| [z.0, z.1];
    Element {
        matrix: [u[0], v[0], u[1], v[1]].map(list),
        arm: [within(units[0])[0], within(units[1])[0]].map(list),
        coupler: [t * angles[1].cos(), t * angles[1].sin()],
        power,
    }
}

fn written(elements: &[Element]) -> Vec<f64> {
    let mut numbers = vec![0.0; NUMBERS * elements.len()];
    let each = elements.iter().zip(numbers.chunks_exact_mut(NUMBERS));
    each.for_each(|(element, numbers)| element.write(numbers));
    numbers
}

fn complex(fields: &[f64], rows: usize, waveguide: u32, r: usize) -> (f64, f64) {
    let at = 2 * rows * waveguide as usize + r;
    (fields[at], fields[at + rows])
}

fn near(found: &[f64], wanted: &[f64], power: f64) {
    for (a, b) in found.iter().zip(wanted) {
        assert!((a - b).abs() < 1e-12 / power, "{a} {b}");
    }
}

/// One element after the other, one row after the other.
fn plain(case: &Case) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let Case { rows, .. } = *case;
    let mut light = case.light.clone();
    let (mut upper, mut within) = (Vec::new(), Vec::new());
    for (&[a, b], element) in case.waveguides.iter().zip(&case.elements) {
        let (mut first, mut second) = (0.0, 0.0);
        for r in 0..rows {
            let x = [complex(&light, rows, a, r), complex(&light, rows, b, r)];
            let factor = |z: [f64; 2]| (z[0], z[1]);
            let y = product(element.matrix.map(factor), x);
            let arm = element.arm.map(factor);
            let inner = plus(times(arm[0], x[0]), times(arm[1], x[1]));
            let weight = 1.0 + r as f64;
            first += weight * (x[0].0.powi(2) + x[0].1.powi(2));
            second += weight * (inner.0.powi(2) + inner.1.powi(2));
            for (waveguide, y) in [a, b].into_iter().zip(y) {
                let at = 2 * rows * waveguide as usize + r;
                (light[at], light[at + rows]) = y;
            }
        }
        upper.push(first);
        within.push(second);
    }
    (light, upper, within)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// All ways through a mesh, at all levels, beside one element and row after the other;
    /// fields come back, and a change forward meets errors on their way back.
    #[test]
    fn every_way_through_is_the_plain_one(
        count in 0usize..30, groups in 1usize..4, lossy: bool, seed in 0u64..1000,
    ) {
        let (rows, power) = (groups * ROWS, if lossy { 0.9 } else { 1.0 });
        let case = case(count, rows, power, seed);
        let elements = written(&case.elements);
        let mesh = Mesh { waveguides: &case.waveguides, elements: &elements };
        let (wanted, upper, within) = plain(&case);
        let least = power.powi(count as i32);
        let along: Vec<f64> = (0..2 * count).map(|k| (k as f64).cos()).collect();
        for level in Level::available() {
            let mut light = case.light.clone();
            propagate(level, mesh, rows, &mut light);
            near(&light, &wanted, 1.0);

            let (mut read, mut sums) = (case.light.clone(), vec![0.0; 2 * count]);
            let weights: Vec<f64> = (0..rows).map(|r| 1.0 + r as f64).collect();
            propagate_and_read(level, mesh, rows, &mut read, Tap::InFront, &weights, &mut sums);
            prop_assert_eq!(&read, &light);
            for k in 0..count {
                near(&sums[2 * k..2 * k + 2], &[upper[k], within[k]], 1e-3);
            }

            let (mut kept_light, mut kept) = (case.light.clone(), vec![0.0; 4 * rows * count]);
            propagate_and_keep(level, mesh, rows, &mut kept_light, &mut kept);
            prop_assert_eq!(&kept_light, &light);

            let (mut errors, mut gradient) = (case.errors.clone(), vec![0.0; 2 * count]);
            let mut traced = light.clone();
            retrace(level, mesh, rows, &mut traced, &mut errors, &mut gradient);
            near(&traced, &case.light, least);
            let (mut other, mut same) = (case.errors.clone(), vec![0.0; 2 * count]);
            retrace_kept(level, mesh, rows, &kept, &mut other, &mut same);
            prop_assert_eq!(&other, &errors);
            near(&gradient, &same, least * 1e-2);

            let (mut moving, mut change) = (case.light.clone(), vec![0.0; case.light.len()]);
            propagate_change(level, mesh, rows, &mut moving, &mut change, &along);
            prop_assert_eq!(&moving, &light);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            near(&[dot(&same, &along)], &[dot(&change, &case.errors)], 1e-3);
        }
    }
}

#[test]
#[should_panic(expected = "two waveguides of the fields")]
fn waveguides_that_are_not_there_are_refused() {
    let elements = written(&[element([0.7, 0.8], 0.1, 0.2, 1.0)]);
    let mesh = Mesh { waveguides: &[[0, 3]], elements: &elements };
    propagate(Level::get(), mesh, ROWS, &mut vec![0.0; 2 * ROWS * 3]);
}
