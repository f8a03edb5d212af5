//! Methods that look at outputs alone, on functions whose minima are known.

use super::*;

/// Residuals whose squares are the function of Rosenbrock: a layer of a user's own.
struct Rosenbrock(usize);

impl Layer<f64> for Rosenbrock {
    fn name(&self) -> &'static str {
        "Rosenbrock"
    }

    fn takes(&self) -> Signal {
        Signal::real(1)
    }

    fn gives(&self) -> Signal {
        Signal::real(2 * (self.0 - 1))
    }

    fn specs(&self) -> Vec<ParamSpec> {
        vec![ParamSpec { name: "x".into(), shape: vec![self.0] }]
    }

    fn forward(
        &self,
        context: LayerContext<'_, f64>,
        _: usize,
        _: &[f64],
        y: &mut [f64],
        _: &mut [f64],
    ) -> Result<(), Error> {
        let root = std::f64::consts::SQRT_2;
        for (y, x) in y.chunks_exact_mut(2).zip(context.params[0].windows(2)) {
            (y[0], y[1]) = (root * 10.0 * (x[1] - x[0] * x[0]), root * (1.0 - x[0]));
        }
        Ok(())
    }

    fn vjp(
        &self,
        _: LayerContext<'_, f64>,
        _: ForwardRecord<'_, f64>,
        _: &[f64],
        _: &mut [f64],
        _: &mut [Vec<f64>],
    ) -> Result<(), Error> {
        Err(Error::Capability("has no derivatives".into()))
    }

    fn jvp(
        &self,
        _: LayerContext<'_, f64>,
        _: ForwardRecord<'_, f64>,
        _: &[f64],
        _: &[&[f64]],
        _: &mut [f64],
    ) -> Result<(), Error> {
        Err(Error::Capability("has no derivatives".into()))
    }

    fn mismatched(&self, _: f64, _: Philox, _: u32) -> Box<dyn Layer<f64>> {
        Box::new(Self(self.0))
    }
}

fn rosenbrock(x: &[f64]) -> f64 {
    x.windows(2).map(|x| 100.0 * (x[1] - x[0] * x[0]).powi(2) + (1.0 - x[0]).powi(2)).sum()
}

/// A row that overflows teaches nothing, and spoils nothing.
#[test]
fn cma_es_finds_the_valley_of_rosenbrock() {
    let stage = Stage::new(Parts::new(Box::new(Rosenbrock(10)), None), 0.0);
    let net = Stack::new(vec![stage], 0, false, true).unwrap();
    let batch = Batch { x: Rows::all(&[0.0], 1), y: Targets::Values(Rows::all(&[0.0; 18], 18)) };
    let mut params = vec![vec![0.0; 10]];
    train_on(CMAES { sigma: Some(0.5), population: None }, &net, &mut params, batch, 700);
    assert!(rosenbrock(&params[0]) < 1e-8, "{}", rosenbrock(&params[0]));
    let mut params = vec![vec![0.5; 10]];
    let before = rosenbrock(&params[0]);
    train_on(
        GeneticAlgorithm { population: 40, mutation: Some(0.05) },
        &net,
        &mut params,
        batch,
        150,
    );
    assert!(rosenbrock(&params[0]) < 0.5 * before, "{} {before}", rosenbrock(&params[0]));
    let mut params = vec![vec![0.5; 10]];
    train_on(
        CoordinateDescent { epsilon: Some(0.01), coordinates: 10 },
        &net,
        &mut params,
        batch,
        300,
    );
    assert!(rosenbrock(&params[0]) < 0.5 * before, "{} {before}", rosenbrock(&params[0]));
}

/// A model that was fitted long enough around the present parameters tells their gradient; its
/// memory goes on from step to step.
#[test]
fn surrogates_find_the_gradient() {
    let net = stack::<f64>(&[linear(5, 3)], 0.0, 0.0);
    let (mut params, data) = (initial(&net), Data::<f64>::new(40, 5));
    let exact = gradient(method(EXACT), &net, &params, &data, 1);
    let rule = |fits| SurrogateOptimization {
        hidden: 40,
        samples: 4000,
        fits,
        learning_rate: 3e-3,
        exploration: Some(0.3),
        explorers: 60,
    };
    let cosine = |fits| {
        let found = gradient(method(rule(fits)), &net, &params, &data, 1);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for threads in [2, 3] {
            assert_eq!(found, gradient(method(rule(fits)), &net, &params, &data, threads));
        }
        dot(&found, &exact) / (dot(&found, &found) * dot(&exact, &exact)).sqrt()
    };
    let (begun, fitted) = (cosine(1), cosine(1500));
    assert!(fitted > 0.95 && begun < fitted, "{begun} {fitted}");
    let before = train_on(TWIN, &net, &mut params.clone(), data.batch(), 1)[0];
    train_on(rule(30), &net, &mut params, data.batch(), 60);
    let after = train_on(TWIN, &net, &mut params, data.batch(), 1)[0];
    assert!(after < 0.8 * before, "{after} {before}");
}
