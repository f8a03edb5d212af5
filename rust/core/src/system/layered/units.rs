//! What differs from unit to unit of a resistive network: stiffness and walls.

use pnncore_kernels::unit::Nodes;
use pnncore_kernels::{AVec, Real, add_scaled, avec, dot};

use super::Layered;
use crate::loss::Loss;
use crate::params::Params;
use crate::runtime::Runtime;

/// Stiffness and walls of all layers; nothing for Hopfield networks, whose units are alike.
#[derive(Debug)]
pub(super) struct Units<T> {
    layers: Vec<Layer<T>>,
    /// See [`Self::arriving`].
    arriving: f64,
}

/// One layer, padded with units that stay at zero.
#[derive(Debug)]
struct Layer<T> {
    stiffness: AVec<T>,
    softness: AVec<T>,
    lower: AVec<T>,
    upper: AVec<T>,
}

impl<T: Real> Units<T> {
    /// The walls of a network's units.
    pub(super) fn new(net: &Layered) -> Self {
        if !net.is_resistive() {
            return Self { layers: Vec::new(), arriving: 1.0 };
        }
        let zeros = |l: usize| {
            let mut zeros = avec![];
            zeros.resize(net.layout.padded(l), T::ZERO);
            zeros
        };
        let layers = (0..net.layers()).map(|l| {
            let (mut lower, mut upper) = (zeros(l), zeros(l));
            for j in 0..net.sizes[l + 1] {
                let (lo, hi) = net.unit_interval(l, j);
                (lower[j], upper[j]) = (T::from_f64(lo), T::from_f64(hi));
            }
            Layer { stiffness: zeros(l), softness: zeros(l), lower, upper }
        });
        Self { layers: layers.collect(), arriving: 1.0 }
    }

    /// Sums the conductances of every node. `inputs` are the sums over the inputs of the first
    /// layer, `back` the transposed couplings of the others.
    pub(super) fn measure<'a>(
        &mut self,
        net: &Layered,
        runtime: &Runtime,
        params: &Params<'_, T>,
        inputs: impl Iterator<Item = &'a [T]>,
        back: &[AVec<T>],
    ) {
        let level = runtime.level();
        let mut inputs = Some(inputs);
        for (l, layer) in self.layers.iter_mut().enumerate() {
            let n = net.sizes[l + 1];
            layer.stiffness.fill(T::ZERO);
            match inputs.take() {
                Some(sums) => {
                    sums.for_each(|sum| add_scaled(level, &sum[..n], T::ONE, &mut layer.stiffness))
                }
                None => {
                    let rows = net.weights(params, l).chunks_exact(n);
                    rows.for_each(|row| add_scaled(level, row, T::ONE, &mut layer.stiffness));
                }
            }
            if let Some(back) = back.get(l + 1) {
                let rows = back.chunks_exact(net.layout.padded(l));
                rows.for_each(|row| add_scaled(level, row, T::ONE, &mut layer.stiffness));
            }
            // A node without conductances stays at zero.
            for (softness, &stiffness) in layer.softness.iter_mut().zip(layer.stiffness.iter()) {
                *softness = if stiffness > T::ZERO { T::ONE / stiffness } else { T::ZERO };
            }
        }
        // The last hidden layer feels the outputs in the first sweep.
        self.arriving =
            (1..net.layers() - 1).map(|l| self.passed_back(net, runtime, params, l)).product();
    }

    /// The part of displacements of layer `l` that arrives at the layer before: the root mean
    /// square over its nodes of sqrt(sum_k g_jk^2) / stiffness_j, what independent displacements
    /// add up to. One where layers do not pass displacements on in this way.
    fn passed_back(
        &self,
        net: &Layered,
        runtime: &Runtime,
        params: &Params<'_, T>,
        l: usize,
    ) -> f64 {
        let rows = net.weights(params, l).chunks_exact(net.sizes[l + 1]);
        let squares = rows.zip(self.layers[l - 1].softness.iter()).map(|(row, softness)| {
            dot(runtime.level(), row, row).to_f64() * softness.to_f64().powi(2)
        });
        let mean = squares.sum::<f64>() / net.sizes[l] as f64;
        if mean > 0.0 { mean.sqrt().min(1.0) } else { 1.0 }
    }

    /// The part of a displacement of the last hidden layer that arrives at the first one: one in
    /// Hopfield networks, whose layers pass displacements on; little in deep resistive networks,
    /// whose first layers would be called steady before they have felt the nudge.
    pub(super) fn arriving(&self) -> f64 {
        self.arriving
    }

    /// The constants of the first `n` units of layer `l`, padding included.
    pub(super) fn nodes(&self, l: usize, n: usize) -> Nodes<'_, T> {
        self.layers.get(l).map_or_else(Nodes::default, |layer| Nodes {
            softness: &layer.softness[..n],
            lower: &layer.lower[..n],
            upper: &layer.upper[..n],
        })
    }

    /// The stiffness of the outputs; empty where it is one.
    pub(super) fn output_stiffness(&self, net: &Layered) -> &[T] {
        self.layers.last().map_or(&[], |layer| &layer.stiffness[..net.layout.outputs().len()])
    }

    /// Whether a current feeds a node that zero conductances have cut off, towards where no wall
    /// stops it: there is no steady state.
    pub(super) fn is_driven_away(&self, net: &Layered, params: &Params<'_, T>) -> bool {
        let away = |(l, layer): (usize, &Layer<T>)| {
            net.bias(params, l).iter().zip(layer.softness.iter()).enumerate().any(
                |(j, (&b, &softness))| {
                    let (lo, hi) = net.unit_interval(l, j);
                    let stopped = if b > T::ZERO { hi.is_finite() } else { lo.is_finite() };
                    softness == T::ZERO && b != T::ZERO && !stopped
                },
            )
        };
        self.layers.iter().enumerate().any(away)
    }

    /// One over the stiffness of the stiffest output.
    pub(super) fn output_softness(&self, net: &Layered) -> f64 {
        let softness = self.nodes(net.layers() - 1, self.output_stiffness(net).len()).softness;
        softness.iter().map(|s| s.to_f64()).filter(|&s| s > 0.0).reduce(f64::min).unwrap_or(1.0)
    }

    /// Whether outputs nudged with strength `beta` towards targets that sum to `mass` have a steady
    /// state that the nudged step finds.
    pub(super) fn bound_outputs(
        &self,
        net: &Layered,
        loss: Loss,
        beta: num_complex::Complex<f64>,
        mass: f64,
    ) -> bool {
        let stiffness =
            self.output_stiffness(net).iter().fold(f64::INFINITY, |m, s| m.min(s.to_f64()));
        loss.bounds_output(beta, if stiffness.is_finite() { stiffness } else { 1.0 }, mass)
    }
}
