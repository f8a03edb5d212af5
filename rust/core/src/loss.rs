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

/// Steps of the cross-entropy nudge, at the most: Newton's method takes a handful.
const NUDGE_STEPS: usize = 64;

/// Halvings of a step of the cross-entropy nudge, after which no shorter one will do.
const NUDGE_HALVINGS: u32 = 40;

/// Newton steps are taken where the diagonal of the Hessian is at least this fraction of the
/// stiffness.
const TRUSTED_CURVATURE: f64 = 0.25;

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
                let rest =
                    fours.remainder().iter().zip(targets.remainder()).map(square).sum::<f64>();
                for four in fours.zip(targets) {
                    sums.iter_mut()
                        .zip(four.0.iter().zip(four.1))
                        .for_each(|(sum, pair)| *sum += square(pair));
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

    /// Whether the energy of linear outputs of this stiffness k, 1/2 k |o|^2 - a . o + beta C, has
    /// a single minimum, given the sum m of the targets: beta > -k for the squared error, beta m >
    /// -2 k for the cross-entropy, whose curvature is at most m / 2. A complex beta must have
    /// |beta| below k and |beta m| below 2 k.
    pub fn bounds_output(self, beta: Complex<f64>, stiffness: f64, mass: f64) -> bool {
        match self {
            Self::SquaredError if beta.im == 0.0 => beta.re > -stiffness,
            Self::SquaredError => beta.norm() < stiffness,
            Self::CrossEntropy if beta.im == 0.0 => beta.re * mass > -2.0 * stiffness,
            Self::CrossEntropy => beta.norm() * mass.abs() < 2.0 * stiffness,
        }
    }

    /// Refuses a strength of nudging for which [`bounds_output`](Self::bounds_output) is false at
    /// stiffness one and targets that sum to one.
    ///
    /// # Errors
    /// [`Error::Config`] with the admitted range.
    pub fn check_beta(self, beta: Complex<f64>) -> Result<()> {
        if self.bounds_output(beta, 1.0, 1.0) {
            return Ok(());
        }
        let range = match self {
            Self::SquaredError if beta.im == 0.0 => "beta > -1",
            Self::SquaredError => "|beta| < 1 in the complex plane",
            Self::CrossEntropy if beta.im == 0.0 => "beta > -2",
            Self::CrossEntropy => "|beta| < 2 in the complex plane",
        };
        let beta = if beta.im == 0.0 { beta.re.to_string() } else { beta.to_string() };
        Err(Error::Config(format!(
            "a phase with beta = {beta} has no stable state: the nudged energy of the outputs \
             needs {range} for this loss"
        )))
    }

    /// Writes the minimiser of 1/2 sum k o^2 - a . o + beta C(o), with k the stiffness of each
    /// output; empty: one. `output` holds the starting point of iterations, `memory` is theirs.
    /// Returns how far, at the most, an output is from where the force on it would let it rest:
    /// zero but where iterations found no minimum.
    pub fn nudge<T: Real>(
        self,
        a: &[T],
        stiffness: &[T],
        target: &[T],
        beta: f64,
        output: &mut [T],
        memory: &mut Vec<f64>,
    ) -> T {
        match self {
            Self::SquaredError if !stiffness.is_empty() => {
                let b = T::from_f64(beta);
                for (((o, &a), &k), &y) in output.iter_mut().zip(a).zip(stiffness).zip(target) {
                    *o = (a + b * y) / (k + b);
                }
                T::ZERO
            }
            Self::SquaredError => {
                let (b, scale) = (T::from_f64(beta), T::from_f64(1.0 / (1.0 + beta)));
                for ((o, &a), &y) in output.iter_mut().zip(a).zip(target) {
                    *o = (a + b * y) * scale;
                }
                T::ZERO
            }
            Self::CrossEntropy => {
                memory.resize(4 * output.len(), 0.0);
                let mut nudge = CrossEntropyNudge::new(a, stiffness, target, beta, output, memory);
                let left = nudge.minimise(4.0 * T::EPSILON.to_f64());
                output.iter_mut().zip(&*nudge.output).for_each(|(to, &o)| *to = T::from_f64(o));
                T::from_f64(left)
            }
        }
    }

    /// [`gradient`](Self::gradient) at complex outputs: one complex number per output.
    pub fn gradient_complex<T: Real>(
        self,
        output: (&[T], &[T]),
        target: &[T],
    ) -> Vec<Complex<f64>> {
        let outputs: Vec<_> = output
            .0
            .iter()
            .zip(output.1)
            .map(|(re, im)| Complex::new(re.to_f64(), im.to_f64()))
            .collect();
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

    /// [`nudge`](Self::nudge) of outputs of stiffness one for a complex beta: real and imaginary
    /// parts in separate slices.
    pub fn nudge_complex<T: Real>(
        self,
        a: (&[T], &[T]),
        target: &[T],
        beta: Complex<f64>,
        output: (&mut [T], &mut [T]),
    ) -> T {
        let drive: Vec<Complex<f64>> =
            a.0.iter().zip(a.1).map(|(re, im)| Complex::new(re.to_f64(), im.to_f64())).collect();
        let (found, left) = match self {
            Self::SquaredError => {
                let rest = |(a, y): (&Complex<f64>, &T)| (a + beta * y.to_f64()) / (beta + 1.0);
                (drive.iter().zip(target).map(rest).collect(), 0.0)
            }
            Self::CrossEntropy => {
                nudge_cross_entropy_complex(&drive, target, beta, 4.0 * T::EPSILON.to_f64())
            }
        };
        for ((re, im), z) in output.0.iter_mut().zip(output.1).zip(&found) {
            (*re, *im) = (T::from_f64(z.re), T::from_f64(z.im));
        }
        T::from_f64(left)
    }
}

/// The search for the minimum of 1/2 sum k o^2 - a . o + c ln sum exp(o), where a has the pull of
/// the targets in it and c is beta times their sum: Newton's method with a line search. The Hessian
/// diag(k + c p) - c p p^T, p being the softmax, is inverted by the formula of Sherman and
/// Morrison; where its diagonal comes near to zero, as it may for c < 0, the step is that of the
/// fixed point o = (a - c p) / k.
struct CrossEntropyNudge<'m> {
    drive: &'m mut [f64],
    stiffness: &'m mut [f64],
    output: &'m mut [f64],
    softmax: &'m mut [f64],
    strength: f64,
}

impl<'m> CrossEntropyNudge<'m> {
    /// The search from `output` on; `memory` has four numbers per output.
    fn new<T: Real>(
        a: &[T],
        k: &[T],
        target: &[T],
        beta: f64,
        output: &[T],
        memory: &'m mut [f64],
    ) -> Self {
        let n = output.len();
        let (drive, rest) = memory.split_at_mut(n);
        let (stiffness, rest) = rest.split_at_mut(n);
        let (start, softmax) = rest.split_at_mut(n);
        for (i, (drive, y)) in drive.iter_mut().zip(target).enumerate() {
            *drive = a[i].to_f64() + beta * y.to_f64();
            stiffness[i] = k.get(i).map_or(1.0, |k| k.to_f64());
            start[i] = output[i].to_f64();
        }
        let mass: f64 = target.iter().map(|y| y.to_f64()).sum();
        Self { drive, stiffness, output: start, softmax, strength: beta * mass }
    }

    /// The energy at a distance along the last step, which `softmax` holds, before `output`.
    fn energy(&self, length: f64) -> f64 {
        let at = |i: usize| self.output[i] + length * self.softmax[i];
        let top = (0..self.output.len()).map(at).fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = (0..self.output.len()).map(|i| (at(i) - top).exp()).sum();
        let quadratic: f64 = (0..self.output.len())
            .map(|i| (0.5 * self.stiffness[i] * at(i) - self.drive[i]) * at(i))
            .sum();
        quadratic + self.strength * (top + total.ln())
    }

    /// Writes the softmax of the outputs.
    fn weigh(&mut self) {
        let top = self.output.iter().fold(f64::NEG_INFINITY, |m, &o| m.max(o));
        self.softmax.iter_mut().zip(&*self.output).for_each(|(p, o)| *p = (o - top).exp());
        let total: f64 = self.softmax.iter().sum();
        self.softmax.iter_mut().for_each(|p| *p /= total);
    }

    /// Puts the step from here in the place of the softmax. Returns the largest force, as the
    /// distance that it would move an output of this stiffness.
    fn step(&mut self) -> f64 {
        let c = self.strength;
        let force = |i: usize, p: f64, o: f64| self.stiffness[i] * o - self.drive[i] + c * p;
        let (mut left, mut inverse, mut projected, mut trusted) = (0.0f64, 0.0, 0.0, true);
        for (i, (&p, &o)) in self.softmax.iter().zip(&*self.output).enumerate() {
            let (g, diagonal) = (force(i, p, o), self.stiffness[i] + c * p);
            left = left.max_magnitude(g / self.stiffness[i]);
            trusted &= diagonal >= TRUSTED_CURVATURE * self.stiffness[i];
            inverse += p * p / diagonal;
            projected += p * g / diagonal;
        }
        let common = c * projected / (1.0 - c * inverse);
        for (i, (p, &o)) in self.softmax.iter_mut().zip(&*self.output).enumerate() {
            let g = self.stiffness[i] * o - self.drive[i] + c * *p;
            *p = if trusted {
                -(g + common * *p) / (self.stiffness[i] + c * *p)
            } else {
                -g / self.stiffness[i]
            };
        }
        left
    }

    /// Goes to the minimum. Returns what [`Self::step`] does there.
    fn minimise(&mut self, tolerance: f64) -> f64 {
        let mut left = f64::INFINITY;
        for _ in 0..NUDGE_STEPS {
            self.weigh();
            let size = self.output.iter().fold(1.0f64, |m, &o| m.max_magnitude(o));
            left = self.step();
            if left <= tolerance * size || left.is_nan() {
                break;
            }
            let here = self.energy(0.0);
            let rounding = 8.0 * f64::EPSILON * (1.0 + here.abs());
            let shorter = |k: u32| 0.5f64.powi(k as i32);
            let length = (0..NUDGE_HALVINGS)
                .map(shorter)
                .find(|&length| self.energy(length) <= here + rounding);
            let Some(length) = length else { break };
            self.output.iter_mut().zip(&*self.softmax).for_each(|(o, step)| *o += length * step);
        }
        left
    }
}

/// The steady outputs of stiffness one under a complex nudge by the cross-entropy, by the steps of
/// [`CrossEntropyNudge`], and how far from steady they are: there is no energy to search along.
fn nudge_cross_entropy_complex<T: Real>(
    drive: &[Complex<f64>],
    target: &[T],
    beta: Complex<f64>,
    tolerance: f64,
) -> (Vec<Complex<f64>>, f64) {
    let mass: f64 = target.iter().map(|y| y.to_f64()).sum();
    let c = beta * mass;
    let mut outputs = drive.to_vec();
    let mut left = f64::INFINITY;
    for _ in 0..NUDGE_STEPS {
        let top = outputs.iter().fold(f64::NEG_INFINITY, |m, z| m.max(z.re));
        let weights: Vec<_> = outputs.iter().map(|o| (o - top).exp()).collect();
        let total: Complex<f64> = weights.iter().sum();
        let softmax: Vec<_> = weights.iter().map(|w| w / total).collect();
        let forces: Vec<_> = (0..drive.len())
            .map(|i| outputs[i] - drive[i] + c * softmax[i] - beta * target[i].to_f64())
            .collect();
        left = forces.iter().fold(0.0f64, |m, g| m.max_magnitude(g.norm()));
        let size = outputs.iter().fold(1.0f64, |m, o| m.max_magnitude(o.norm()));
        if left <= tolerance * size || left.is_nan() {
            break;
        }
        let diagonal = |i: usize| 1.0 + c * softmax[i];
        let trusted = (0..drive.len()).all(|i| diagonal(i).norm() >= TRUSTED_CURVATURE);
        let inverse: Complex<f64> =
            (0..drive.len()).map(|i| softmax[i] * softmax[i] / diagonal(i)).sum();
        let projected: Complex<f64> =
            (0..drive.len()).map(|i| softmax[i] * forces[i] / diagonal(i)).sum();
        let common = c * projected / (1.0 - c * inverse);
        for (i, output) in outputs.iter_mut().enumerate() {
            *output -=
                if trusted { (forces[i] + common * softmax[i]) / diagonal(i) } else { forces[i] };
        }
    }
    (outputs, left)
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
                        assert!(
                            (difference - loss.curvature(&output, &target, i, j)).abs() < 1e-9,
                            "{loss:?} {i} {j}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn nudged_step_is_stationary() {
        let a = [0.4, -0.3, 1.1];
        for (loss, beta) in
            [(Loss::SquaredError, 0.5), (Loss::SquaredError, -0.9), (Loss::CrossEntropy, 1.0)]
        {
            let mut output = a;
            loss.nudge(&a, &[], &TARGET, beta, &mut output, &mut Vec::new());
            let mut gradient = [0.0; 3];
            loss.gradient(&output, &TARGET, &mut gradient);
            for i in 0..3 {
                assert!((output[i] - a[i] + beta * gradient[i]).abs() < 1e-14, "{loss:?} {beta}");
            }
            let stiffness = [1.5, 3.0, 0.95];
            let mut stiff = a;
            loss.nudge(&a, &stiffness, &TARGET, beta, &mut stiff, &mut Vec::new());
            loss.gradient(&stiff, &TARGET, &mut gradient);
            for i in 0..3 {
                assert!(
                    (stiffness[i] * stiff[i] - a[i] + beta * gradient[i]).abs() < 1e-13,
                    "{loss:?} {beta}"
                );
            }
            let (mut re, mut im) = ([0.0; 3], [0.0; 3]);
            loss.nudge_complex(
                (&a, &[0.0; 3]),
                &TARGET,
                Complex::new(beta, 0.0),
                (&mut re, &mut im),
            );
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
        assert!(Loss::CrossEntropy.check_beta(real(-2.0)).is_err());
        assert!(Loss::CrossEntropy.check_beta(real(20.0)).is_ok());
        assert!(Loss::CrossEntropy.check_beta(Complex::new(1.6, 1.6)).is_err());
        assert!(Loss::CrossEntropy.bounds_output(real(-0.5), 1.0, 3.9));
        assert!(!Loss::CrossEntropy.bounds_output(real(-0.5), 1.0, 4.0));
    }

    /// Any mass of targets, any strength that leaves a minimum: the step ends where no force is
    /// left, and says so.
    #[test]
    fn cross_entropy_nudges_end_at_rest() {
        let (mut gradient, mut memory) = ([0.0; 4], Vec::new());
        for mass in [-3.0, 0.0, 0.5, 1.0, 5.0, 1e3] {
            for strength in [-1.999, -1.5, -0.1, 0.3, 2.0, 5.0, 400.0] {
                for top in [0.0, 1.0, 30.0] {
                    let target = [mass, 0.0, 0.0, 0.0];
                    let beta = if mass == 0.0 { strength } else { strength / mass };
                    let a = [top, -top, 0.3, -0.2];
                    let mut output = a;
                    let left =
                        Loss::CrossEntropy.nudge(&a, &[], &target, beta, &mut output, &mut memory);
                    Loss::CrossEntropy.gradient(&output, &target, &mut gradient);
                    let force = (0..4)
                        .map(|i| output[i] - a[i] + beta * gradient[i])
                        .fold(0.0, f64::max_magnitude);
                    let size = output.iter().fold(1.0f64, |m, o| m.max(o.abs()));
                    assert!(force <= 1e-12 * size, "{mass} {strength} {top}: {force:e}");
                    assert!(left <= 1e-12 * size);
                }
            }
        }
    }
}
