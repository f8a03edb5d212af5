//! Fields between real signals: what fits, what is measured, and whose derivatives are taken.

use super::*;

fn encode(carrier: Carrier) -> LayerChoice {
    EncodeSpec::new(None, carrier).into()
}

fn spec(layers: &[LayerChoice], noise: f64) -> Spec {
    let layers = layers.iter().cloned().map(Entry::from).collect();
    Spec { layers, noise, mismatch: 0.0, seed: 3, numbered: true }
}

fn refusal(spec: &Spec) -> String {
    spec.build_for::<f64>().err().map_or_else(String::new, |error| error.to_string())
}

#[test]
fn signals_that_do_not_fit_are_refused_with_what_converts_them() {
    let (light, dark) =
        (encode(Carrier::Amplitude), LayerChoice::from(DetectSpec::new(Quantity::Intensity)));
    let refused = |layers: &[LayerChoice]| refusal(&spec(layers, 0.0));
    let behind = refused(&[linear(3, 4), light.clone(), tanh(), linear(4, 2)]);
    assert!(behind.contains("layer 3 (Tanh) takes 4 real values"), "{behind}");
    assert!(
        behind.contains("(Encode) gives 4 complex amplitudes: put Detect between them"),
        "{behind}"
    );
    let before = refused(&[linear(3, 4), dark.clone()]);
    assert!(before.contains("(Linear) gives 4 real values: put Encode between them"), "{before}");
    let first = EncodeSpec::new(Some(4), Carrier::Phase).into();
    assert!(refused(&[first, linear(4, 2)]).contains("put Detect between them"));
    assert!(
        refused(&[linear(3, 4), light.clone()])
            .contains("which nothing measures: put Detect behind it")
    );
    assert!(
        refused(&[linear(3, 4), linear(5, 2)])
            .contains("layer 2 (Linear) takes 5 inputs, but the layer before has 4")
    );
    assert_eq!(refused(&[linear(3, 4), light, dark]), "");
}

#[test]
fn noise_is_of_what_is_measured() {
    let layers =
        [linear(3, 4), encode(Carrier::Amplitude), DetectSpec::new(Quantity::Intensity).into()];
    let net = spec(&layers, 0.1).build_for::<f64>().unwrap();
    assert_eq!(net.stages().iter().map(Stage::noise).collect::<Vec<_>>(), [0.1, 0.0, 0.1]);
    let mut own = spec(&layers, 0.0);
    own.layers[1].noise = Some(0.1);
    assert!(refusal(&own).contains("nothing measures a field"), "{}", refusal(&own));
}

/// The gradient of physics-aware training by plain means: the twins of each part between real
/// signals, at what was measured there.
fn by_parts(
    (chain, width): (&[LayerChoice], usize),
    mismatch: f64,
    data: &Data<f64>,
) -> (Vec<f64>, Vec<f64>) {
    let layers = between(chain, width);
    let net = stack::<f64>(&layers, mismatch, 0.0);
    let params = initial(&net);
    let found = gradient(method(PhysicsAware {}), &net, &params, data, 1);
    let runtime = Runtime::new(Some(1), 1).unwrap();
    let (values, batch) = (shared(&params), data.batch());
    let mut passed = Propagation::default();
    passed.begin(&net, &batch);
    let at = StackAt { runtime: &runtime, stack: &net, params: &values, memory: &[] };
    passed.forward(at, Layers::Hardware, false, DrawIndex::of_step(4)).unwrap();
    passed.seed_output_errors(Loss::CrossEntropy, &batch.y);
    let mut errors: Vec<f64> =
        passed.blocks.iter().flat_map(|block| &block.errors[layers.len()]).copied().collect();
    let mut parts = Vec::new();
    let light = 1..1 + chain.len();
    for part in [light.end..light.end + 1, light.clone(), 0..1] {
        let twins = stack::<f64>(&layers[part.clone()], 0.0, 0.0);
        let arrived =
            if part.start == 0 { passed.inputs() } else { passed.outputs(part.start - 1) };
        let own: Vec<_> = net.stages()[part]
            .iter()
            .flat_map(|stage| params[stage.params.clone()].to_vec())
            .collect();
        let batch =
            Batch { x: Rows::all(&arrived, twins.stages()[0].twin().inputs()), y: Targets::None };
        let (mut pass, mut state) = (Propagation::default(), StepState::new(&twins));
        let own = shared(&own);
        let at = StackAt { runtime: &runtime, stack: &twins, params: &own, memory: &[] };
        pass.vjp(at, &batch, &errors, &mut state.update).unwrap();
        errors = pass.input_errors();
        let mut gradients = vec![Vec::new(); twins.specs().len()];
        write_gradient(&runtime, twins.specs(), &mut state, &mut gradients);
        parts.push(gradients);
    }
    (found, parts.into_iter().rev().flatten().flatten().collect())
}

/// Nothing within a field is measured: the twin's derivatives span it, at the real signals before
/// it.
#[test]
fn derivatives_of_twins_span_fields() {
    let data = Data::new(19, 5);
    let is_light = |chain: &[LayerChoice]| format!("{chain:?}").contains("Encode");
    let mut seen = 0;
    for (chain, width) in kinds().iter().filter(|(chain, _)| is_light(chain)) {
        let chain = (&chain[..], *width);
        let (found, wanted) = by_parts(chain, 0.2, &data);
        assert!(difference(&found, &wanted) < 1e-12, "{chain:?}: {}", difference(&found, &wanted));
        let (exact, _) = by_parts(chain, 0.0, &data);
        assert!(difference(&found, &exact) > 1e-3, "{chain:?}");
        seen += 1;
    }
    assert!(seen > 0);
}
