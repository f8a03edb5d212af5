//! Energy and its derivatives, summed in f64: for audits and in-silico methods.

use pnncore_kernels::Real;
use pnncore_kernels::watch::poll;

use super::{Activation, Layered, Physics};
use crate::Result;
use crate::batch::Batch;
use crate::params::Params;
use crate::states::States;
use crate::system::{StateDerivatives, near_zero};

impl Layered {
    /// The stiffness of every unit, by layer.
    fn stiffness<T: Real>(&self, params: &Params<'_, T>) -> Vec<Vec<f64>> {
        let mut stiffness: Vec<_> = self.sizes[1..].iter().map(|&n| vec![1.0; n]).collect();
        if !self.is_resistive() {
            return stiffness;
        }
        stiffness.iter_mut().for_each(|layer| layer.fill(0.0));
        for l in 0..self.layers() {
            for (i, row) in self.weights(params, l).chunks_exact(self.sizes[l + 1]).enumerate() {
                for (j, g) in row.iter().map(|g| g.to_f64()).enumerate() {
                    stiffness[l][j] += g;
                    if l > 0 {
                        stiffness[l - 1][i] += g;
                    }
                }
            }
        }
        stiffness
    }

    /// The inputs of a sample as the first couplings see them.
    fn seen_inputs<T: Real>(&self, x: &[T]) -> Vec<T> {
        let mut seen = Vec::new();
        self.with_inputs(x, 0..self.sizes[0], &mut Vec::new(), |x| seen.extend_from_slice(x));
        seen
    }

    /// Phi, its derivative (the inverse activation) and its second derivative at a state of layer
    /// `l`, of a unit with this stiffness.
    fn potential(&self, l: usize, stiffness: f64, s: f64, epsilon: f64) -> [f64; 3] {
        let hidden = l + 1 < self.layers();
        match self.physics {
            Physics::Hopfield(Activation::Tanh) if hidden => {
                // Saturated states keep a large but finite slope.
                let s = s.clamp(-1.0 + epsilon / 2.0, 1.0 - epsilon / 2.0);
                let (up, down) = (1.0 + s, 1.0 - s);
                [0.5 * (up * s.ln_1p() + down * (-s).ln_1p()), s.atanh(), 1.0 / (up * down)]
            }
            Physics::Hopfield(Activation::Logistic) if hidden => {
                let s = s.clamp(epsilon * epsilon, 1.0 - epsilon / 2.0);
                let down = 1.0 - s;
                [s * s.ln() + down * (-s).ln_1p(), s.ln() - (-s).ln_1p(), 1.0 / (s * down)]
            }
            _ => [0.5 * stiffness * s * s, stiffness * s, stiffness],
        }
    }

    /// Calls `visit(l, j, sum)` with what the neighbours of every unit sum to: W_l^T below +
    /// W_{l+1} above, plus the biases where `biased`. `below` of the first layer is `inputs`.
    fn neighbour_sums<T: Real>(
        &self,
        params: &Params<'_, T>,
        inputs: Option<&[T]>,
        row: &[T],
        mut visit: impl FnMut(usize, usize, f64),
    ) {
        for l in 0..self.layers() {
            let n = self.sizes[l + 1];
            let mut sums: Vec<f64> = match inputs {
                Some(_) => self.bias(params, l).iter().map(|b| b.to_f64()).collect(),
                None => vec![0.0; n],
            };
            let below = if l == 0 { inputs.unwrap_or(&[]) } else { &row[self.layout.layer(l - 1)] };
            for (weights, s) in self.weights(params, l).chunks_exact(n).zip(below) {
                for (sum, w) in sums.iter_mut().zip(weights) {
                    *sum += w.to_f64() * s.to_f64();
                }
            }
            if l + 1 < self.layers() {
                let above = &row[self.layout.layer(l + 1)];
                for (sum, weights) in
                    sums.iter_mut().zip(self.weights(params, l + 1).chunks_exact(above.len()))
                {
                    *sum += weights
                        .iter()
                        .zip(above)
                        .map(|(w, s)| w.to_f64() * s.to_f64())
                        .sum::<f64>();
                }
            }
            sums.into_iter().enumerate().for_each(|(j, sum)| visit(l, j, sum));
        }
    }
}

impl<T: Real> StateDerivatives<T> for Layered {
    fn energy(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        states: &States<T>,
        energy: &mut [f64],
    ) -> Result<()> {
        let stiffness = self.stiffness(params);
        for (r, energy) in energy.iter_mut().enumerate() {
            poll(self.sweep_work());
            *energy = 0.0;
            let inputs = self.seen_inputs(batch.x.row(r / states.phases()));
            if self.is_resistive() {
                // Half the dissipation counts the squares of the sources, too.
                for (x, row) in
                    inputs.iter().zip(self.weights(params, 0).chunks_exact(self.sizes[1]))
                {
                    *energy +=
                        0.5 * x.to_f64() * x.to_f64() * row.iter().map(|g| g.to_f64()).sum::<f64>();
                }
            }
            for (l, stiffness) in stiffness.iter().enumerate() {
                let (n, layer) = (self.sizes[l + 1], states.layer(r, l));
                let below = if l == 0 { &inputs[..] } else { states.layer(r, l - 1) };
                for ((&s, b), &k) in layer.iter().zip(self.bias(params, l)).zip(stiffness) {
                    *energy += self.potential(l, k, s.to_f64(), T::EPSILON.to_f64())[0]
                        - b.to_f64() * s.to_f64();
                }
                for (weights, p) in self.weights(params, l).chunks_exact(n).zip(below) {
                    let field: f64 =
                        weights.iter().zip(layer).map(|(w, s)| w.to_f64() * s.to_f64()).sum();
                    *energy -= p.to_f64() * field;
                }
            }
        }
        Ok(())
    }

    fn state_gradient(
        &self,
        params: &Params<'_, T>,
        batch: &Batch<'_, T>,
        states: &States<T>,
        gradient: &mut [T],
    ) -> Result<()> {
        let stiffness = self.stiffness(params);
        for (r, gradient) in gradient.chunks_exact_mut(states.stride()).enumerate() {
            poll(self.sweep_work());
            let row = states.row(r);
            let inputs = self.seen_inputs(batch.x.row(r / states.phases()));
            self.neighbour_sums(params, Some(&inputs), row, |l, j, sum| {
                let k = self.layout.layer(l).start + j;
                let slope =
                    self.potential(l, stiffness[l][j], row[k].to_f64(), T::EPSILON.to_f64())[1];
                gradient[k] = T::from_f64(slope - sum);
            });
        }
        Ok(())
    }

    fn interval(&self, l: usize, j: usize) -> (f64, f64) {
        self.unit_interval(l, j)
    }

    fn loose_units(&self, params: &Params<'_, T>) -> Vec<Vec<bool>> {
        let stiffness = self.stiffness(params);
        if stiffness.iter().flatten().all(|&k| k > 0.0) {
            return Vec::new();
        }
        stiffness.iter().map(|layer| layer.iter().map(|&k| k == 0.0).collect()).collect()
    }

    fn domain(&self, l: usize, j: usize) -> (f64, f64) {
        match self.physics {
            Physics::Hopfield(Activation::Logistic) if l + 1 < self.layers() => (0.0, 1.0),
            _ => near_zero(self.unit_interval(l, j)),
        }
    }

    fn hessian_product(
        &self,
        params: &Params<'_, T>,
        _batch: &Batch<'_, T>,
        states: &States<T>,
        v: &[T],
        product: &mut [T],
    ) -> Result<()> {
        let (stride, stiffness) = (states.stride(), self.stiffness(params));
        for (r, product) in product.chunks_exact_mut(stride).enumerate() {
            poll(self.sweep_work());
            let (row, v) = (states.row(r), &v[r * stride..(r + 1) * stride]);
            self.neighbour_sums(params, None, v, |l, j, sum| {
                let k = self.layout.layer(l).start + j;
                let curvature =
                    self.potential(l, stiffness[l][j], row[k].to_f64(), T::EPSILON.to_f64())[2];
                product[k] = T::from_f64(curvature * v[k].to_f64() - sum);
            });
        }
        Ok(())
    }

    fn curvature(
        &self,
        params: &Params<'_, T>,
        _batch: &Batch<'_, T>,
        states: &States<T>,
        curvature: &mut [T],
    ) -> Result<()> {
        let stiffness = self.stiffness(params);
        for (r, curvature) in curvature.chunks_exact_mut(states.stride()).enumerate() {
            let row = states.row(r);
            for (l, stiffness) in stiffness.iter().enumerate() {
                for (k, &stiffness) in self.layout.layer(l).zip(stiffness) {
                    curvature[k] = T::from_f64(
                        self.potential(l, stiffness, row[k].to_f64(), T::EPSILON.to_f64())[2],
                    );
                }
            }
        }
        Ok(())
    }

    fn local_step(&self) -> f64 {
        // dE/dW = -s s^T: central differences are exact.
        1.0
    }
}
