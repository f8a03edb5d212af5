//! Conformance checks for systems: finite differences of everything, and what is wrong in words.

use num_complex::Complex;
use pnncore_kernels::philox::{Philox, Purpose};

use crate::Result;
use crate::batch::{Batch, Rows, Targets};
use crate::device::Device;
use crate::draw::DrawIndex;
use crate::loss::Loss;
use crate::method::equilibrium_propagation::{EquilibriumPropagation, Estimator, Sign};
use crate::method::implicit_differentiation::ImplicitDifferentiation;
use crate::method::{MethodConfig, StepState};
use crate::params::Params;
use crate::plan::{Boundary, PhasePlan};
use crate::runtime::Runtime;
use crate::settling::{Settling, Stop};
use crate::states::States;
use crate::system::{Abilities, Experiment, StateDerivatives, System, residual};
use crate::train::write_gradient;
use crate::update::LocalUpdate;

/// What one check found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What was checked.
    pub check: &'static str,
    /// Whether it is right.
    pub passed: bool,
    /// The figures, and what is wrong where something is.
    pub message: String,
}

/// Samples, and elements per array, that are looked at.
const SAMPLES: usize = 4;
const ELEMENTS: usize = 24;
/// Relative error that a derivative by differences may have.
const TOLERANCE: f64 = 1e-5;

/// Checks a system in f64 at parameters `params` (their lengths as in its specification), on random
/// inputs in [0, 1) and random targets: derivatives against differences, rows against each other,
/// settling, and the gradient of equilibrium propagation against differences of the loss.
///
/// # Errors
/// What the system itself fails with.
pub fn check_system(
    system: &dyn System<f64>,
    params: &[Vec<f64>],
    seed: u64,
) -> Result<Vec<Finding>> {
    let random = Philox::new(seed, Purpose::Probe);
    let inputs: Vec<f64> =
        (0..SAMPLES * system.inputs()).map(|i| random.uniform(i as u64, 0)).collect();
    let targets: Vec<f64> =
        (0..SAMPLES * system.outputs()).map(|i| random.uniform(i as u64, 1)).collect();
    let Some(exact) = system.as_state_derivatives() else {
        let message =
            format!("{} gives no energies and gradients: there is nothing to check", system.name());
        return Ok(vec![Finding { check: "abilities", passed: false, message }]);
    };
    let checker = Checker {
        system: exact,
        runtime: Runtime::new(Some(1), seed)?,
        params,
        batch: Batch {
            x: Rows::all(&inputs, system.inputs()),
            y: Targets::Values(Rows::all(&targets, system.outputs())),
        },
        random,
    };
    let mut findings = Vec::new();
    if system.is_reciprocal() {
        findings.extend([checker.state_gradient()?, checker.rows()?]);
        findings.extend(checker.param_gradients()?);
    }
    findings.push(checker.hessian()?);
    findings.extend(checker.settling()?);
    // The last check builds on all others: it would only repeat their failures.
    if findings.iter().all(|finding| finding.passed) {
        findings.push(checker.gradient()?);
    }
    Ok(findings)
}

struct Checker<'a> {
    system: &'a dyn StateDerivatives<f64>,
    runtime: Runtime,
    params: &'a [Vec<f64>],
    batch: Batch<'a, f64>,
    random: Philox,
}

/// In words what may be wrong where a derivative is `got` instead of `expected`.
fn diagnose(got: f64, expected: f64) -> &'static str {
    let ratio = got / expected;
    let near = |x: f64| (ratio - x).abs() < 1e-3;
    if near(-1.0) {
        "; the sign is wrong"
    } else if near(2.0) || near(0.5) {
        "; off by a factor of 2: a missing 1/2, or a term counted twice"
    } else if got == 0.0 {
        "; the dependence is missing"
    } else {
        ""
    }
}

impl Checker<'_> {
    fn params(&self) -> Params<'_, f64> {
        Params::shared(self.params.iter().map(Vec::as_slice))
    }

    fn experiment<'a>(
        &'a self,
        params: &'a Params<'a, f64>,
        plan: &'a PhasePlan,
    ) -> Experiment<'a, f64> {
        let Self { system, runtime, batch, .. } = self;
        Experiment::new(runtime, *system, params, batch, plan, DrawIndex::of_step(0))
    }

    /// Random states, away from walls.
    fn states(&self) -> States<f64> {
        let mut states = States::new(self.system.layout());
        states.reset(SAMPLES, 1, false);
        for r in 0..SAMPLES {
            for l in 0..states.layout().sizes().len() {
                for (j, k) in states.layout().layer(l).enumerate() {
                    let (lo, hi) = self.system.domain(l, j);
                    states.row_mut(r)[k] = lo
                        + (hi - lo) * (0.1 + 0.8 * self.random.uniform(k as u64, 100 + r as u32));
                }
            }
        }
        states
    }

    /// Some places of the states of a row.
    fn places(&self, states: &States<f64>) -> Vec<usize> {
        let all: Vec<usize> =
            (0..states.layout().sizes().len()).flat_map(|l| states.layout().layer(l)).collect();
        let stride = all.len().div_ceil(ELEMENTS);
        all.into_iter().step_by(stride.max(1)).collect()
    }

    fn state_gradient(&self) -> Result<Finding> {
        let params = self.params();
        let states = self.states();
        let mut gradient = vec![0.0; states.values.len()];
        self.system.state_gradient(&params, &self.batch, &states, &mut gradient)?;
        let mut worst = Worst::default();
        for k in self.places(&states) {
            let h = 1e-5;
            let mut sides = [vec![0.0; SAMPLES], vec![0.0; SAMPLES]];
            for (side, sign) in sides.iter_mut().zip([1.0, -1.0]) {
                let mut moved = states.clone();
                (0..SAMPLES).for_each(|r| moved.row_mut(r)[k] += sign * h);
                self.system.energy(&params, &self.batch, &moved, side)?;
            }
            for r in 0..SAMPLES {
                let expected = (sides[0][r] - sides[1][r]) / (2.0 * h);
                let got = gradient[r * states.stride() + k];
                let error = (got - expected).abs() / (1.0 + expected.abs());
                worst.see(error, || {
                    format!(
                        "at state {k} it is {got:.6e}, not {expected:.6e}{}",
                        diagnose(got, expected)
                    )
                });
            }
        }
        Ok(judge("state_gradient is dE/ds of energy", worst, TOLERANCE))
    }

    fn rows(&self) -> Result<Finding> {
        let params = self.params();
        let states = self.states();
        let mut together = vec![0.0; SAMPLES];
        self.system.energy(&params, &self.batch, &states, &mut together)?;
        let mut worst = Worst::default();
        for (r, &together) in together.iter().enumerate() {
            let mut alone = States::new(self.system.layout());
            alone.reset(1, 1, false);
            alone.row_mut(0).copy_from_slice(states.row(r));
            let index = [r as u64];
            let mut energy = [0.0];
            self.system.energy(&params, &self.batch.pick(&index), &alone, &mut energy)?;
            let error = (energy[0] - together).abs() / (1.0 + together.abs());
            worst.see(error, || {
                format!("sample {r} has energy {together} in a batch, {} alone", energy[0])
            });
        }
        Ok(judge("rows do not depend on each other", worst, 1e-10))
    }

    fn param_gradients(&self) -> Result<Vec<Finding>> {
        let states = self.states();
        let mut update = LocalUpdate::default();
        let weights = [Complex::ONE];
        let mut findings = Vec::new();
        let mut workspace = self.system.workspace();
        let (params, plan) =
            (self.params(), PhasePlan::free(Loss::SquaredError, Settling::default()));
        let experiment = self.experiment(&params, &plan);
        self.system.read(&experiment, &states, &weights, &mut workspace, &mut update)?;
        for (i, spec) in self.system.specs().iter().enumerate() {
            let mut gradient = vec![0.0; spec.len()];
            update.apply(
                &self.runtime,
                &states,
                i,
                spec,
                &mut gradient,
                1.0,
                Device::IDEAL.range(),
            );
            let mut worst = Worst::default();
            for k in (0..spec.len()).step_by(spec.len().div_ceil(ELEMENTS).max(1)) {
                let h = 1e-5;
                let mut means = [0.0; 2];
                for (mean, sign) in means.iter_mut().zip([1.0, -1.0]) {
                    let mut moved = self.params.to_vec();
                    moved[i][k] += sign * h;
                    let mut energy = vec![0.0; SAMPLES];
                    let params = Params::shared(moved.iter().map(Vec::as_slice));
                    self.system.energy(&params, &self.batch, &states, &mut energy)?;
                    *mean = energy.iter().sum::<f64>() / SAMPLES as f64;
                }
                let (expected, got) = ((means[0] - means[1]) / (2.0 * h), gradient[k]);
                let error = (got - expected).abs() / (1.0 + expected.abs());
                let (name, why) = (&spec.name, diagnose(got, expected));
                worst.see(error, || {
                    format!("for {name}[{k}] it is {got:.6e}, not {expected:.6e}{why}")
                });
            }
            findings.push(judge("param_gradient is dE/dtheta of energy", worst, TOLERANCE));
        }
        Ok(findings)
    }

    fn hessian(&self) -> Result<Finding> {
        let params = self.params();
        let states = self.states();
        let probe = |group: u32| {
            let mut v = vec![0.0; states.values.len()];
            for r in 0..SAMPLES {
                for k in (0..states.layout().sizes().len()).flat_map(|l| states.layout().layer(l)) {
                    v[r * states.stride() + k] = self.random.normal(k as u64, group + r as u32);
                }
            }
            v
        };
        let (u, v) = (probe(200), probe(300));
        let (mut hu, mut hv, mut reference) =
            (vec![0.0; u.len()], vec![0.0; u.len()], vec![0.0; u.len()]);
        self.system.hessian_product(&params, &self.batch, &states, &u, &mut hu)?;
        self.system.hessian_product(&params, &self.batch, &states, &v, &mut hv)?;
        let gradient = |states: &States<f64>, found: &mut [f64]| {
            self.system.state_gradient(&params, &self.batch, states, found)
        };
        crate::differences::hessian_product(gradient, &states, 1.0, &v, &mut reference)?;
        let mut worst = Worst::default();
        for r in 0..SAMPLES {
            let span = r * states.stride()..(r + 1) * states.stride();
            let dot = |a: &[f64], b: &[f64]| {
                a[span.clone()].iter().zip(&b[span.clone()]).map(|(a, b)| a * b).sum::<f64>()
            };
            let (uhv, vhu) = (dot(&u, &hv), dot(&v, &hu));
            let scale = 1.0 + uhv.abs() + vhu.abs();
            if self.system.is_reciprocal() {
                let asymmetry = (uhv - vhu).abs() / scale;
                worst.see(asymmetry, || {
                    format!(
                        "u H v is {uhv:.6e}, v H u is {vhu:.6e}: state_gradient is the gradient of \
                         no energy"
                    )
                });
            }
            // What is multiplied is the transpose, where that makes a difference.
            let off = (vhu - dot(&u, &reference)).abs() / scale;
            worst.see(off, || {
                format!("v H u is {vhu:.6e}, differences of state_gradient say otherwise")
            });
        }
        Ok(judge("hessian_product is d2E/ds2 and symmetric", worst, 1e-4))
    }

    fn settled(&self, phases: Vec<Boundary>) -> Result<States<f64>> {
        let settling = Settling {
            stop: Stop::Absolute(1e-9),
            max_sweeps: (20_000, 20_000),
            ..Settling::default()
        };
        let plan = PhasePlan::from_free(Loss::SquaredError, phases, settling);
        let mut states = States::new(self.system.layout());
        let mut workspace = self.system.workspace();
        self.experiment(&self.params(), &plan).run(&mut [], &mut states, &mut workspace)?;
        Ok(states)
    }

    fn settling(&self) -> Result<Vec<Finding>> {
        let params = self.params();
        let beta = 0.1;
        let states = self.settled(vec![Boundary::Nudged(beta.into())])?;
        let mut names: Vec<&str> = states
            .outcomes
            .iter()
            .map(|o| o.status.name())
            .filter(|&name| name != "converged")
            .collect();
        names.dedup();
        let mut findings = vec![Finding {
            check: "settling converges",
            passed: names.is_empty(),
            message: if names.is_empty() {
                String::new()
            } else {
                format!("some samples ended {names:?}")
            },
        }];
        let boundary = Boundary::Nudged(beta.into());
        let rest =
            residual(self.system, &params, &self.batch, Loss::SquaredError, boundary, &states)?;
        let rest = rest.iter().fold(0.0f64, |m, &r| pnncore_kernels::Real::max_magnitude(m, r));
        let text = format!("the largest force at a nudged steady state is {rest:.2e}");
        findings.push(judge(
            "no force is left at the steady state",
            Worst { error: rest, text },
            1e-5,
        ));
        // A nudge moves currents away: the energy is concave in them.
        if !self.system.abilities().has(Abilities::CLAMPING) {
            return Ok(findings);
        }
        let mut target = vec![0.0; self.system.outputs()];
        let mut risen = Worst::default();
        for i in 0..SAMPLES {
            self.batch.y.write(i, &mut target);
            let loss = |r: usize| Loss::SquaredError.value(states.outputs(r), &target);
            let (free, nudged) = (loss(2 * i), loss(2 * i + 1));
            risen.see(nudged - free, || {
                format!("sample {i}: nudging raised the loss from {free:.6} to {nudged:.6}")
            });
        }
        findings.push(judge("nudging moves outputs towards targets", risen, 1e-9));
        Ok(findings)
    }

    /// The mean loss at the free steady state for moved parameters.
    fn loss(&self, params: &[Vec<f64>]) -> Result<f64> {
        let moved = Checker { params, runtime: self.runtime.clone(), ..*self };
        let states = moved.settled(Vec::new())?;
        let mut target = vec![0.0; self.system.outputs()];
        let losses = (0..SAMPLES).map(|i| {
            self.batch.y.write(i, &mut target);
            Loss::SquaredError.value(states.outputs(i), &target)
        });
        Ok(losses.sum::<f64>() / SAMPLES as f64)
    }

    /// The gradient of equilibrium propagation, or of implicit differentiation where the first is
    /// an approximation.
    fn gradient(&self) -> Result<Finding> {
        let settling = Settling {
            stop: Stop::Absolute(1e-10),
            max_sweeps: (20_000, 20_000),
            ..Settling::default()
        };
        let loss = Loss::SquaredError;
        let (check, method) = if self.system.is_reciprocal() {
            let (variant, sign) = (Estimator::Centered, Sign::Positive);
            let method = EquilibriumPropagation { variant, beta: Some(1e-2), sign, points: 2 }
                .with(loss, settling);
            ("equilibrium propagation is the gradient of the loss", method)
        } else {
            (
                "implicit differentiation is the gradient of the loss",
                ImplicitDifferentiation {}.with(loss, settling),
            )
        };
        let mut state = StepState::new(self.system);
        let protocol = method.protocol(self.system)?;
        let params = self.params();
        let experiment = protocol.experiment(&self.runtime, self.system, &params, &self.batch, 0);
        protocol.step(&experiment, &mut [], &mut state)?;
        let mut gradient = vec![Vec::new(); self.params.len()];
        write_gradient(&self.runtime, self.system.specs(), &mut state, &mut gradient);
        let (mut along, mut size) = (0.0, 0.0);
        // Far enough that the change of the loss stands out from what settling leaves.
        let largest = gradient.iter().map(|g| crate::differences::largest(g)).fold(0.0, f64::max);
        let h = if largest > 0.0 { 1e-3 / largest } else { 1.0 };
        let mut sides = [self.params.to_vec(), self.params.to_vec()];
        for (i, g) in gradient.iter().enumerate() {
            for (k, &g) in g.iter().enumerate() {
                // Along the gradient itself, so that the slope is as large as it can be.
                along += g * g;
                size += g * g;
                sides[0][i][k] += h * g;
                sides[1][i][k] -= h * g;
            }
        }
        let slope = (self.loss(&sides[0])? - self.loss(&sides[1])?) / (2.0 * h);
        let error = if size > 0.0 { (slope - along).abs() / size } else { slope.abs() };
        let text =
            format!("along its own gradient the loss has slope {slope:.6e}, not {along:.6e}");
        Ok(judge(check, Worst { error, text }, 1e-2))
    }
}

/// The largest error that was seen, and what it means.
#[derive(Default)]
struct Worst {
    error: f64,
    text: String,
}

impl Worst {
    /// Keeps an error that is larger than those before, or NaN.
    fn see(&mut self, error: f64, text: impl FnOnce() -> String) {
        if error > self.error || (error.is_nan() && !self.error.is_nan()) {
            *self = Self { error, text: text() };
        }
    }
}

fn judge(check: &'static str, worst: Worst, tolerance: f64) -> Finding {
    let passed = worst.error <= tolerance;
    let message = if passed { format!("largest error {:.1e}", worst.error) } else { worst.text };
    Finding { check, passed, message }
}
