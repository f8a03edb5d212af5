//! dE/dW_l = -s_{l-1} s_l^T and dE/db_l = -s_l, as factors. Conductances: dE/dg_ij = 1/2 (v_i -
//! v_j)^2, which is the same outer product, plus half the squares of v_i in row i and of v_j in
//! column j.

use num_complex::Complex;
use pnncore_kernels::sparse::SparseRows;
use pnncore_kernels::watch::poll;
use pnncore_kernels::{Level, Real, add_scaled, avec};
use rayon::prelude::*;

use super::settle::Buffers;
use super::{LAYER_VISIT, Layered};
use crate::batch::Batch;
use crate::runtime::Runtime;
use crate::states::States;
use crate::system::Experiment;
use crate::update::{Lists, LocalUpdate, Outer, OuterProducts, Side, Term};

/// Layers narrower than this are cheaper summed as the transpose, with the wide side dense.
const NARROW: usize = 16;

pub(super) fn local_update<T: Real>(
    net: &Layered,
    experiment: &Experiment<'_, T>,
    states: &States<T>,
    weights: &[Complex<f64>],
    buffers: &mut Buffers<T>,
    update: &mut LocalUpdate<T>,
) {
    let Experiment { runtime, batch, .. } = *experiment;
    if update.terms.len() != 2 * net.layers() {
        update.terms = terms(net, states.is_complex());
    }
    // dE/dtheta = -(...), and the mean over the batch.
    let scale = -1.0 / batch.len() as f64;
    for (l, pair) in update.terms.chunks_exact_mut(2).enumerate() {
        let [couplings, bias] = pair else { continue };
        let Term::Outer(Outer { products, transposed, rows, columns }) = couplings else {
            continue;
        };
        let Term::Dense(bias) = bias else { continue };
        if l == 0 {
            first_layer(
                net,
                runtime,
                batch,
                states,
                weights,
                scale,
                buffers,
                &mut products[0],
                bias,
            );
        } else {
            let list_layer = if *transposed { l } else { l - 1 };
            for (part, product) in products.iter_mut().enumerate() {
                let Lists::ByRow(lists) = &mut product.lists else { continue };
                weighted_lists(runtime.level(), states, weights, scale, list_layer, part, lists);
            }
            bias.fill(T::ZERO);
            (0..states.samples())
                .for_each(|i| add_phases(runtime.level(), states, weights, scale, l, i, bias));
        }
        if net.is_resistive() {
            add_squares(states, weights, scale, l, columns);
            match l {
                0 => add_input_squares(net, batch, states, weights, scale, rows),
                _ => add_squares(states, weights, scale, l - 1, rows),
            }
        }
    }
}

/// sums = -1/2 times the sum over all rows of w v^2, for the voltages v of a layer.
fn add_squares<T: Real>(
    states: &States<T>,
    weights: &[Complex<f64>],
    scale: f64,
    layer: usize,
    sums: &mut [T],
) {
    sums.fill(T::ZERO);
    let layer = states.layout().layer(layer);
    let total: f64 = weights.iter().map(|w| w.re).sum();
    for i in (0..states.samples()).filter(|&i| states.usable(i)) {
        let first = i * states.phases();
        let free = &states.row(first)[layer.clone()];
        // Against the free phase, so that the difference of two squares is not one of large
        // numbers.
        for (p, weight) in weights.iter().enumerate().skip(1).filter(|(_, w)| w.re != 0.0) {
            let factor = T::from_f64(-0.5 * scale * weight.re);
            for ((sum, &v), &v0) in
                sums.iter_mut().zip(&states.row(first + p)[layer.clone()]).zip(free)
            {
                *sum += factor * (v - v0) * (v + v0);
            }
        }
        if total != 0.0 {
            let factor = T::from_f64(-0.5 * scale * total);
            sums.iter_mut().zip(free).for_each(|(sum, &v)| *sum += factor * v * v);
        }
    }
}

/// [`add_squares`] for the inputs, which are the same in all phases.
fn add_input_squares<T: Real>(
    net: &Layered,
    batch: &Batch<'_, T>,
    states: &States<T>,
    weights: &[Complex<f64>],
    scale: f64,
    sums: &mut [T],
) {
    sums.fill(T::ZERO);
    let total: f64 = weights.iter().map(|w| w.re).sum();
    if total == 0.0 {
        return;
    }
    let factor = T::from_f64(-0.5 * scale * total);
    let mut memory = Vec::new();
    for i in (0..states.samples()).filter(|&i| states.usable(i)) {
        net.with_inputs(batch.x.row(i), 0..net.sizes[0], &mut memory, |x| {
            sums.iter_mut().zip(x).for_each(|(sum, &x)| *sum += factor * x * x);
        });
    }
}

/// The terms of a network, empty.
fn terms<T: Real>(net: &Layered, complex: bool) -> Vec<Term<T>> {
    let outer = |cols, dense| OuterProducts { lists: Lists::ByRow(SparseRows::new(cols)), dense };
    let mut terms = Vec::new();
    for l in 0..net.layers() {
        let (products, transposed) = if l == 0 {
            let dense = Side::Own(avec![], net.layout.padded(0));
            (vec![OuterProducts { lists: Lists::ByParameter(Vec::new(), 0), dense }], false)
        } else {
            let transposed = net.sizes[l + 1] < NARROW;
            let (cols, layer) =
                if transposed { (net.sizes[l + 1], l - 1) } else { (net.sizes[l], l) };
            let mut products = vec![outer(cols, Side::States(layer))];
            if complex {
                products.push(outer(cols, Side::Imaginary(layer)));
            }
            (products, transposed)
        };
        // Empty where nothing is added to whole rows and columns.
        let sums = |n: usize| vec![T::ZERO; if net.is_resistive() { n } else { 0 }];
        let (rows, columns) = (sums(net.sizes[l]), sums(net.sizes[l + 1]));
        terms.push(Term::Outer(Outer { products, transposed, rows, columns }));
        terms.push(Term::Dense(vec![T::ZERO; net.sizes[l + 1]]));
    }
    terms
}

/// The inputs are the same in all phases, so the states of the phases are summed first: one
/// product, not one per phase.
#[allow(clippy::too_many_arguments, reason = "the pieces of an update, each owned elsewhere")]
fn first_layer<T: Real>(
    net: &Layered,
    runtime: &Runtime,
    batch: &Batch<'_, T>,
    states: &States<T>,
    weights: &[Complex<f64>],
    scale: f64,
    buffers: &mut Buffers<T>,
    product: &mut OuterProducts<T>,
    bias: &mut [T],
) {
    let (Side::Own(sums, stride), Lists::ByParameter(blocks, height)) =
        (&mut product.dense, &mut product.lists)
    else {
        return;
    };
    *height =
        buffers.inputs.turned(net, runtime, batch, std::mem::take(&mut buffers.taken), blocks);
    sums.clear();
    sums.resize(batch.len() * *stride, T::ZERO);
    // States that another core has settled take as long to read as several multiply-adds.
    let parts = runtime.parts(8 * batch.len() * states.phases() * *stride, batch.len());
    let chunk = batch.len().div_ceil(parts).max(1);
    runtime.for_each(sums.par_chunks_mut(chunk * *stride).enumerate(), |(c, sums)| {
        for (i, sum) in sums.chunks_exact_mut(*stride).enumerate() {
            add_phases(runtime.level(), states, weights, scale, 0, c * chunk + i, sum);
        }
    });
    bias.fill(T::ZERO);
    for sum in sums.chunks_exact(*stride) {
        add_scaled(runtime.level(), &sum[..bias.len()], T::ONE, bias);
    }
}

/// sum += the real part of w s over the phases of sample `i`, for the states s of a layer.
#[allow(clippy::too_many_arguments, reason = "a row of an update, each piece owned elsewhere")]
fn add_phases<T: Real>(
    level: Level,
    states: &States<T>,
    weights: &[Complex<f64>],
    scale: f64,
    layer: usize,
    i: usize,
    sum: &mut [T],
) {
    if !states.usable(i) {
        return;
    }
    let layer = states.layout().layer(layer);
    for (p, weight) in weights.iter().enumerate() {
        if *weight == Complex::ZERO {
            continue;
        }
        let r = i * states.phases() + p;
        add_scaled(level, &states.row(r)[layer.clone()], T::from_f64(weight.re * scale), sum);
        if let Some(imaginary) = states.imaginary_row(r).get(layer.clone()) {
            add_scaled(level, imaginary, T::from_f64(-weight.im * scale), sum);
        }
    }
}

/// With w p q = (w_re p_re - w_im p_im) q_re - (w_im p_re + w_re p_im) q_im for the real part: the
/// lists over layer `layer` that go with the real (`part` 0) or imaginary (1) parts of the other
/// layer.
fn weighted_lists<T: Real>(
    level: Level,
    states: &States<T>,
    weights: &[Complex<f64>],
    scale: f64,
    layer: usize,
    part: usize,
    lists: &mut SparseRows<T>,
) {
    let layer = states.layout().layer(layer);
    lists.reset(layer.len());
    let complex = states.is_complex();
    let mut mixed = vec![T::ZERO; if complex { layer.len() } else { 0 }];
    for i in 0..states.samples() {
        poll(weights.len() * (LAYER_VISIT + layer.len()));
        let usable = states.usable(i);
        for (p, weight) in weights.iter().enumerate() {
            if !usable || *weight == Complex::ZERO {
                lists.push_empty();
                continue;
            }
            let r = i * states.phases() + p;
            let real = &states.row(r)[layer.clone()];
            if complex {
                let (of_real, of_imaginary) =
                    if part == 0 { (weight.re, -weight.im) } else { (-weight.im, -weight.re) };
                mixed.fill(T::ZERO);
                add_scaled(level, real, T::from_f64(of_real * scale), &mut mixed);
                add_scaled(
                    level,
                    &states.imaginary_row(r)[layer.clone()],
                    T::from_f64(of_imaginary * scale),
                    &mut mixed,
                );
                lists.push(level, &mixed);
            } else {
                lists.push(level, real);
                lists.scale_last(T::from_f64(weight.re * scale));
            }
        }
    }
}
