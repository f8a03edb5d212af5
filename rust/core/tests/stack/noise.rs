//! Derivatives under noise: with the same draws, a gradient is the difference of the loss that was
//! measured, to rounding.
//!
//! What a measurement adds to an output is part of the loss, and of what the next layer sees; it
//! says nothing of the slope of the layer that it was added to. With the draws held, the noisy loss
//! is a smooth function of the parameters, so that no statistics are needed: an expectation over
//! draws is a sum of such functions.

use super::*;
use pnncore::method::in_situ_backprop::InSituBackprop;

const NOISE: f64 = 0.4;

/// The mean loss of outputs, row by row.
fn mean_loss(data: &Data<f64>, states: &States<f64>) -> f64 {
    let mut target = vec![0.0; states.layout().outputs().len()];
    let batch = data.batch();
    let losses = (0..batch.len()).map(|i| {
        batch.y.write(i, &mut target);
        Loss::CrossEntropy.value(states.outputs(i), &target)
    });
    losses.sum::<f64>() / batch.len() as f64
}

/// The loss of a pass through `layers`, with these draws.
fn loss(
    net: &Stack<f64>,
    params: &[Vec<f64>],
    data: &Data<f64>,
    noise: &[f64],
    random: Philox,
) -> f64 {
    let runtime = Runtime::new(Some(1), 1).unwrap();
    let (mut propagation, mut states) =
        (Propagation::default(), States::new(System::<f64>::layout(net)));
    propagation.begin(net, &data.batch());
    let params = shared(params);
    let at = StackAt { runtime: &runtime, stack: net, params: &params, memory: &[] };
    propagation.pass(at, Layers::Twin, false, |l| noise[l], random).unwrap();
    propagation.report(&mut states);
    mean_loss(data, &states)
}

/// Its gradient by central differences, all parameters in a row.
fn differences(
    net: &Stack<f64>,
    params: &[Vec<f64>],
    data: &Data<f64>,
    noise: &[f64],
    random: Philox,
) -> Vec<f64> {
    let h = 1e-5;
    let mut found = Vec::new();
    for k in 0..params.len() {
        for e in 0..params[k].len() {
            let at = |h: f64| {
                let mut moved = params.to_vec();
                moved[k][e] += h;
                loss(net, &moved, data, noise, random)
            };
            found.push((at(h) - at(-h)) / (2.0 * h));
        }
    }
    found
}

/// Chains in which every kind of layer is measured with noise: in the middle, and at the end.
fn chains() -> Vec<Vec<LayerChoice>> {
    let mut all = Vec::new();
    for (kind, width) in kinds() {
        all.push(between(&kind, width));
        all.push([&[linear(5, 6)], &kind[..]].concat());
    }
    all
}

#[test]
fn gradients_are_those_of_the_measured_loss() {
    // Step 4 of the helper that takes gradients.
    let draw = DrawIndex::of_step(4);
    for layers in chains() {
        let net = stack::<f64>(&layers, 0.0, NOISE);
        let (params, mut data) = (initial(&net), Data::<f64>::new(7, 5));
        data.labels.iter_mut().for_each(|label| *label %= System::<f64>::outputs(&net) as i64);
        let noise: Vec<f64> = net.stages().iter().map(Stage::noise).collect();
        let measured = draw.of(Philox::new(3, Purpose::Noise));
        let wanted = differences(&net, &params, &data, &noise, measured);
        for rule in [method(PhysicsAware {}), method(InSituBackprop { protocol: None })] {
            let found = gradient(rule.clone(), &net, &params, &data, 1);
            assert!(
                difference(&found, &wanted) < 1e-6,
                "{layers:?} {rule:?}: {}",
                difference(&found, &wanted)
            );
        }
        // The noise of training in silico has draws of its own.
        let quiet = stack::<f64>(&layers, 0.0, 0.0);
        let drawn = draw.of(Philox::new(1, Purpose::Noise));
        let wanted = differences(&quiet, &params, &data, &noise, drawn);
        let rule = method(Backprop { model: Model::Twin, noise: NOISE, vaccination: 0.0 });
        let found = gradient(rule, &quiet, &params, &data, 1);
        assert!(difference(&found, &wanted) < 1e-6, "{layers:?}: {}", difference(&found, &wanted));
    }
}

/// Slopes along directions are those of the measured loss, too.
#[test]
fn forward_gradients_are_slopes_of_the_measured_loss() {
    for layers in chains() {
        let net = stack::<f64>(&layers, 0.0, NOISE);
        let (params, mut data) = (initial(&net), Data::<f64>::new(7, 5));
        data.labels.iter_mut().for_each(|label| *label %= System::<f64>::outputs(&net) as i64);
        let random = Philox::new(3, Purpose::Noise).at(4 << 24);
        let exact = differences(
            &net,
            &params,
            &data,
            &net.stages().iter().map(Stage::noise).collect::<Vec<_>>(),
            random,
        );
        let found = gradient(method(ForwardGradient { directions: 1 }), &net, &params, &data, 1);
        let mut direction = vec![0.0; exact.len()];
        let drawn = Runtime::new(Some(1), 1).unwrap().random(Purpose::Direction);
        DrawIndex::of_step(4).of(drawn).fill_normal(Level::get(), 0, 0, &mut direction);
        let slope: f64 = exact.iter().zip(&direction).map(|(g, d)| g * d).sum();
        let wanted: Vec<f64> = direction.iter().map(|d| slope * d).collect();
        assert!(difference(&found, &wanted) < 1e-5, "{layers:?}: {}", difference(&found, &wanted));
    }
}
