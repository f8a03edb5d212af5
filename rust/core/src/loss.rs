//! Losses: value, gradient, and the exact nudged step of a linear output layer.

use num_complex::Complex;
use pnncore_kernels::Real;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How far outputs are from their targets, per sample; the loss of a batch is the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// 1/2 |o - y|^2.
    SquaredError,
    /// -y . log softmax(o).
    CrossEntropy,
}

/// Fixed-point iterations of the cross-entropy nudge; at |beta| <= 1 they contract by 1/2 or more each.
const NUDGE_ITERATIONS: usize = 64;

impl Loss {
    /// The loss of one sample.
    pub fn value<T: Real>(self, output: &[T], target: &[T]) -> f64 {
        let pairs = output.iter().zip(target).map(|(o, y)| (o.to_f64(), y.to_f64()));
        match self {
            Self::SquaredError => {
                // Four sums side by side: one would wait for each addition.
                let square = |(o, y): (&T, &T)| (o.to_f64() - y.to_f64()).powi(2);
                let mut sums = [0.0; 4];
                let (fours, targets) = (output.chunks_exact(4), target.chunks_exact(4));
                let rest = fours.remainder().iter().zip(targets.remainder()).map(square).sum::<f64>();
                for four in fours.zip(targets) {
                    sums.iter_mut().zip(four.0.iter().zip(four.1)).for_each(|(sum, pair)| *sum += square(pair));
                }
                0.5 * (sums[0] + sums[1] + sums[2] + sums[3] + rest)
            }
            Self::CrossEntropy => {
                let top = output.iter().fold(f64::NEG_INFINITY, |m, o| m.max(o.to_f64()));
                let total: f64 = output.iter().map(|o| (o.to_f64() - top).exp()).sum();
                pairs.map(|(o, y)| if y == 0.0 { 0.0 } else { -y * (o - top - total.ln()) }).sum()
            }
        }
    }

    /// Writes the gradient of the loss of one sample with respect to its outputs.
    pub fn gradient<T: Real>(self, output: &[T], target: &[T], gradient: &mut [T]) {
        match self {
            Self::SquaredError => {
                for ((g, &o), &y) in gradient.iter_mut().zip(output).zip(target) {
                    *g = o - y;
                }
            }
            Self::CrossEntropy => {
                let top = output.iter().fold(f64::NEG_INFINITY, |m, o| m.max(o.to_f64()));
                let total: f64 = output.iter().map(|o| (o.to_f64() - top).exp()).sum();
                // The targets of a sample may sum to any mass; softmax carries that mass.
                let mass: f64 = target.iter().map(|y| y.to_f64()).sum();
                for ((g, o), y) in gradient.iter_mut().zip(output).zip(target) {
                    *g = T::from_f64(mass * (o.to_f64() - top).exp() / total - y.to_f64());
                }
            }
        }
    }

    /// The second derivative of the value by outputs i and j.
    pub fn curvature<T: Real>(self, output: &[T], target: &[T], i: usize, j: usize) -> f64 {
        let same = if i == j { 1.0 } else { 0.0 };
        match self {
            Self::SquaredError => same,
            Self::CrossEntropy => {
                let top = output.iter().fold(f64::NEG_INFINITY, |m, o| m.max(o.to_f64()));
                let total: f64 = output.iter().map(|o| (o.to_f64() - top).exp()).sum();
                let mass: f64 = target.iter().map(|y| y.to_f64()).sum();
                let share = |k: usize| (output[k].to_f64() - top).exp() / total;
                mass * share(i) * (same - share(j))
            }
        }
    }

    /// The largest component of the gradient, without storing it; NaN if an output is NaN.
    pub fn error<T: Real>(self, output: &[T], target: &[T], scratch: &mut [T]) -> f64 {
        self.gradient(output, target, scratch);
        scratch.iter().fold(T::ZERO, |m, &g| m.max_magnitude(g)).to_f64()
    }

    /// Whether the energy of linear outputs of this stiffness k, 1/2 k |o|^2 - a . o + beta C, has a minimum that the
    /// nudged step finds: beta > -k for the squared error, |beta| < 2 k for the cross-entropy (there the iteration
    /// contracts). A complex beta must have |beta| below k and 2 k.
    pub fn bounds_output(self, beta: Complex<f64>, stiffness: f64) -> bool {
        match self {
            Self::SquaredError if beta.im == 0.0 => beta.re > -stiffness,
            Self::SquaredError => beta.norm() < stiffness,
            Self::CrossEntropy => beta.norm() < 2.0 * stiffness,
        }
    }

    /// Refuses a strength of nudging for which [`bounds_output`](Self::bounds_output) is false at stiffness one.
    ///
    /// # Errors
    /// [`Error::Config`] with the admitted range.
    pub fn check_beta(self, beta: Complex<f64>) -> Result<()> {
        if self.bounds_output(beta, 1.0) {
            return Ok(());
        }
        let range = match self {
            Self::SquaredError if beta.im == 0.0 => "beta > -1",
            Self::SquaredError => "|beta| < 1 in the complex plane",
            Self::CrossEntropy => "|beta| < 2",
        };
        let beta = if beta.im == 0.0 { beta.re.to_string() } else { beta.to_string() };
        Err(Error::Config(format!(
            "a phase with beta = {beta} has no stable state: the nudged energy of the outputs needs {range} for this loss"
        )))
    }

    /// Writes the minimiser of 1/2 sum k o^2 - a . o + beta C(o), with k the stiffness of each output; empty: one.
    /// `output` holds the starting point of iterations.
    pub fn nudge<T: Real>(self, a: &[T], stiffness: &[T], target: &[T], beta: f64, output: &mut [T]) {
        match self {
            Self::SquaredError if !stiffness.is_empty() => {
                let b = T::from_f64(beta);
                for (((o, &a), &k), &y) in output.iter_mut().zip(a).zip(stiffness).zip(target) {
                    *o = (a + b * y) / (k + b);
                }
            }
            Self::SquaredError => {
                let (b, scale) = (T::from_f64(beta), T::from_f64(1.0 / (1.0 + beta)));
                for ((o, &a), &y) in output.iter_mut().zip(a).zip(target) {
                    *o = (a + b * y) * scale;
                }
            }
            Self::CrossEntropy => {
                let tolerance = 4.0 * T::EPSILON.to_f64();
                let mass: f64 = target.iter().map(|y| y.to_f64()).sum();
                for _ in 0..NUDGE_ITERATIONS {
                    let top = output.iter().fold(f64::NEG_INFINITY, |m, o| m.max(o.to_f64()));
                    let total: f64 = output.iter().map(|o| (o.to_f64() - top).exp()).sum();
                    let mut change = 0.0f64;
                    for (k, ((o, a), y)) in output.iter_mut().zip(a).zip(target).enumerate() {
                        let pull = y.to_f64() - mass * (o.to_f64() - top).exp() / total;
                        let new = (a.to_f64() + beta * pull) / stiffness.get(k).map_or(1.0, |k| k.to_f64());
                        change = change.max((new - o.to_f64()).abs());
                        *o = T::from_f64(new);
                    }
                    // NaN only spreads further.
                    if change <= tolerance || change.is_nan() {
                        break;
                    }
                }
            }
        }
    }

    /// [`gradient`](Self::gradient) at complex outputs: one complex number per output.
    pub fn gradient_complex<T: Real>(self, output: (&[T], &[T]), target: &[T]) -> Vec<Complex<f64>> {
        let outputs: Vec<_> =
            output.0.iter().zip(output.1).map(|(re, im)| Complex::new(re.to_f64(), im.to_f64())).collect();
        match self {
            Self::SquaredError => outputs.iter().zip(target).map(|(o, y)| o - y.to_f64()).collect(),
            Self::CrossEntropy => {
                let top = outputs.iter().fold(f64::NEG_INFINITY, |m, o| m.max(o.re));
                let weights: Vec<_> = outputs.iter().map(|o| (o - top).exp()).collect();
                let total: Complex<f64> = weights.iter().sum();
                let mass: f64 = target.iter().map(|y| y.to_f64()).sum();
                weights.iter().zip(target).map(|(w, y)| mass * w / total - y.to_f64()).collect()
            }
        }
    }

    /// [`nudge`](Self::nudge) for a complex beta: real and imaginary parts in separate slices.
    pub fn nudge_complex<T: Real>(
        self,
        a: (&[T], &[T]),
        target: &[T],
        beta: Complex<f64>,
        output: (&mut [T], &mut [T]),
    ) {
        let drive = |i: usize| Complex::new(a.0[i].to_f64(), a.1[i].to_f64());
        let (re, im) = output;
        let mut set = |i: usize, z: Complex<f64>| {
            let change = (z - Complex::new(re[i].to_f64(), im[i].to_f64())).norm();
            (re[i], im[i]) = (T::from_f64(z.re), T::from_f64(z.im));
            change
        };
        match self {
            Self::SquaredError => {
                for (i, y) in target.iter().enumerate() {
                    set(i, (drive(i) + beta * y.to_f64()) / (beta + 1.0));
                }
            }
            Self::CrossEntropy => {
                let tolerance = 4.0 * T::EPSILON.to_f64();
                let mass: f64 = target.iter().map(|y| y.to_f64()).sum();
                let mut z: Vec<Complex<f64>> = (0..target.len()).map(drive).collect();
                for _ in 0..NUDGE_ITERATIONS {
                    let top = z.iter().fold(f64::NEG_INFINITY, |m, z| m.max(z.re));
                    let weights: Vec<_> = z.iter().map(|z| (z - top).exp()).collect();
                    let total: Complex<f64> = weights.iter().sum();
                    let mut change = 0.0f64;
                    for (i, y) in target.iter().enumerate() {
                        let new = drive(i) + beta * (y.to_f64() - mass * weights[i] / total);
                        change = change.max((new - z[i]).norm());
                        z[i] = new;
                    }
                    if change <= tolerance || change.is_nan() {
                        break;
                    }
                }
                for (i, &z) in z.iter().enumerate() {
                    set(i, z);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: [f64; 3] = [0.0, 1.0, 0.0];

    #[test]
    fn gradients_are_derivatives_of_values() {
        for loss in [Loss::SquaredError, Loss::CrossEntropy] {
            for target in [TARGET, [0.3, 0.5, 0.9]] {
                let output = [0.3, -1.2, 2.0];
                let mut gradient = [0.0; 3];
                loss.gradient(&output, &target, &mut gradient);
                for i in 0..3 {
                    let at = |h: f64| {
                        let mut moved = output;
                        moved[i] += h;
                        loss.value(&moved, &target)
                    };
                    let difference = (at(1e-5) - at(-1e-5)) / 2e-5;
                    assert!((difference - gradient[i]).abs() < 1e-9, "{loss:?} {i}");
                    for j in 0..3 {
                        let slope = |h: f64| {
                            let (mut moved, mut gradient) = (output, [0.0; 3]);
                            moved[j] += h;
                            loss.gradient(&moved, &target, &mut gradient);
                            gradient[i]
                        };
                        let difference = (slope(1e-5) - slope(-1e-5)) / 2e-5;
                        assert!((difference - loss.curvature(&output, &target, i, j)).abs() < 1e-9, "{loss:?} {i} {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn nudged_step_is_stationary() {
        let a = [0.4, -0.3, 1.1];
        for (loss, beta) in [(Loss::SquaredError, 0.5), (Loss::SquaredError, -0.9), (Loss::CrossEntropy, 1.0)] {
            let mut output = a;
            loss.nudge(&a, &[], &TARGET, beta, &mut output);
            let mut gradient = [0.0; 3];
            loss.gradient(&output, &TARGET, &mut gradient);
            for i in 0..3 {
                assert!((output[i] - a[i] + beta * gradient[i]).abs() < 1e-14, "{loss:?} {beta}");
            }
            let stiffness = [1.5, 3.0, 0.95];
            let mut stiff = a;
            loss.nudge(&a, &stiffness, &TARGET, beta, &mut stiff);
            loss.gradient(&stiff, &TARGET, &mut gradient);
            for i in 0..3 {
                assert!((stiffness[i] * stiff[i] - a[i] + beta * gradient[i]).abs() < 1e-13, "{loss:?} {beta}");
            }
            let (mut re, mut im) = ([0.0; 3], [0.0; 3]);
            loss.nudge_complex((&a, &[0.0; 3]), &TARGET, Complex::new(beta, 0.0), (&mut re, &mut im));
            assert!(re.iter().zip(output).all(|(x, y)| (x - y).abs() < 1e-14) && im == [0.0; 3]);
        }
    }

    #[test]
    fn range_of_beta() {
        let real = |x| Complex::new(x, 0.0);
        assert!(Loss::SquaredError.check_beta(real(-0.99)).is_ok());
        assert!(Loss::SquaredError.check_beta(real(-1.0)).is_err());
        assert!(Loss::SquaredError.check_beta(real(f64::NAN)).is_err());
        assert!(Loss::SquaredError.check_beta(Complex::new(0.8, 0.8)).is_err());
        assert!(Loss::CrossEntropy.check_beta(real(-1.99)).is_ok());
        assert!(Loss::CrossEntropy.check_beta(real(2.0)).is_err());
    }
}
