//! A system of one's own in Rust: a chain of springs with a quartic term, trained by every
//! energy-based method.
//!
//! E = sum_i 1/2 k_i (s_i - s_{i-1})^2 + 1/4 q s_i^4 - f s_0, with s_{-1} = 0: the input pulls node
//! 0, the last node is the output, and the stiffnesses k are trained. Only the energy and its
//! derivatives are written here; settling comes from [`pnncore::descent`]. Run it with `cargo run
//! --release --package pnncore --example own_system`.
#![allow(clippy::print_stdout, missing_docs)]

use num_complex::Complex;
use pnncore::batch::{Batch, Rows, Targets};
use pnncore::check::check_system;
use pnncore::descent::{self, Memory};
use pnncore::draw::DrawIndex;
use pnncore::loss::Loss;
use pnncore::method::equilibrium_propagation::{EquilibriumPropagation, Estimator, Sign};
use pnncore::method::{MethodConfig, StepState, methods_for};
use pnncore::params::{ParamSpec, Params};
use pnncore::plan::PhasePlan;
use pnncore::runtime::Runtime;
use pnncore::signal::Signal;
use pnncore::states::{Layout, States};
use pnncore::system::{
    Abilities, Dynamics, Experiment, Reading, StateDerivatives, System, SystemAt, Workspace,
    read_at_end,
};
use pnncore::train::write_gradient;
use pnncore::update::{LocalUpdate, Term};
use pnncore::{Error, Result};

const NODES: usize = 6;
const QUARTIC: f64 = 0.5;

struct Chain {
    specs: Vec<ParamSpec>,
}

/// The places of the nodes in a row: hidden nodes, then the output.
fn places(states: &States<f64>) -> impl Iterator<Item = usize> {
    (0..2).flat_map(|l| states.layout().layer(l))
}

/// The positions of the nodes of a row.
fn positions(states: &States<f64>, r: usize) -> [f64; NODES] {
    let mut s = [0.0; NODES];
    s.iter_mut().zip(places(states)).for_each(|(s, k)| *s = states.row(r)[k]);
    s
}

impl System<f64> for Chain {
    fn name(&self) -> &str {
        "Chain"
    }

    fn takes(&self) -> Signal {
        Signal::real(1)
    }

    fn layout(&self) -> Layout {
        Layout::new(&[NODES - 1, 1])
    }

    fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    fn abilities(&self) -> Abilities {
        Abilities::LOCAL_RULE
            .and(Abilities::CLAMPING)
            .and(Abilities::STATE_DERIVATIVES)
            .and(Abilities::RELAXATION)
    }

    fn as_dynamics(&self) -> Option<&dyn Dynamics<f64>> {
        Some(self)
    }

    fn as_state_derivatives(&self) -> Option<&dyn StateDerivatives<f64>> {
        Some(self)
    }
}

impl Dynamics<f64> for Chain {
    fn run(
        &self,
        experiment: &Experiment<'_, f64>,
        readings: &mut [Reading<'_, f64>],
        states: &mut States<f64>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let Experiment { params, batch, plan, .. } = *experiment;
        let (at, mut memory) = (SystemAt { system: self, params, batch }, Memory::default());
        descent::settle(&at, batch, plan, states, &mut memory)?;
        read_at_end(self, experiment, readings, states, workspace)
    }

    fn read(
        &self,
        _experiment: &Experiment<'_, f64>,
        states: &States<f64>,
        weights: &[Complex<f64>],
        _workspace: &mut Workspace,
        update: &mut LocalUpdate<f64>,
    ) -> Result<()> {
        // dE/dk_i = 1/2 (s_i - s_{i-1})^2: each spring sees its own extension only.
        let mut sum = vec![0.0; NODES];
        for r in (0..states.rows()).filter(|r| states.usable(r / states.phases())) {
            let weight = weights[r % states.phases()].re / states.samples() as f64;
            let mut before = 0.0;
            for (sum, s) in sum.iter_mut().zip(positions(states, r)) {
                *sum += weight * 0.5 * (s - before) * (s - before);
                before = s;
            }
        }
        update.terms = vec![Term::Dense(sum)];
        Ok(())
    }
}

impl StateDerivatives<f64> for Chain {
    fn energy(
        &self,
        params: &Params<'_, f64>,
        batch: &Batch<'_, f64>,
        states: &States<f64>,
        energy: &mut [f64],
    ) -> Result<()> {
        for (r, energy) in energy.iter_mut().enumerate() {
            let s = positions(states, r);
            *energy = -batch.x.row(r / states.phases())[0] * s[0];
            let mut before = 0.0;
            for (k, s) in params.get(0).iter().zip(s) {
                *energy += 0.5 * k * (s - before) * (s - before) + 0.25 * QUARTIC * s.powi(4);
                before = s;
            }
        }
        Ok(())
    }

    fn state_gradient(
        &self,
        params: &Params<'_, f64>,
        batch: &Batch<'_, f64>,
        states: &States<f64>,
        gradient: &mut [f64],
    ) -> Result<()> {
        let k = params.get(0);
        for (r, gradient) in gradient.chunks_exact_mut(states.stride()).enumerate() {
            let s = positions(states, r);
            let mut pull = batch.x.row(r / states.phases())[0];
            let mut before = 0.0;
            for (i, place) in places(states).enumerate() {
                let next = if i + 1 < NODES { k[i + 1] * (s[i + 1] - s[i]) } else { 0.0 };
                gradient[place] = k[i] * (s[i] - before) - next + QUARTIC * s[i].powi(3) - pull;
                (before, pull) = (s[i], 0.0);
            }
        }
        Ok(())
    }
}

/// Where the end of the chain comes to rest under each force.
fn ends(chain: &Chain, runtime: &Runtime, k: &[f64], forces: &[f64]) -> Result<Vec<f64>> {
    let batch = Batch { x: Rows::all(forces, 1), y: Targets::None };
    let settling = pnncore::settling::Settling {
        stop: pnncore::settling::Stop::Absolute(1e-9),
        ..pnncore::settling::Settling::default()
    };
    let mut states = States::new(chain.layout());
    let plan = PhasePlan::free(Loss::SquaredError, settling);
    let (params, draw) = (Params::shared([k]), DrawIndex::of_inference(0));
    let experiment = Experiment::new(runtime, chain, &params, &batch, &plan, draw);
    experiment.infer(&mut states, &mut chain.workspace())?;
    Ok((0..forces.len()).map(|r| states.outputs(r)[0]).collect())
}

fn main() -> Result<()> {
    let chain = Chain { specs: vec![ParamSpec { name: "k".into(), shape: vec![NODES] }] };
    let mut k = vec![1.0; NODES];
    for finding in check_system(&chain, std::slice::from_ref(&k), 0)? {
        println!(
            "{} {}: {}",
            if finding.passed { "ok  " } else { "FAIL" },
            finding.check,
            finding.message
        );
        if !finding.passed {
            return Err(Error::Config(finding.message));
        }
    }
    println!("methods that train it: {}", methods_for(&chain).join(", "));

    // Teach the end of the chain to move half as far.
    let forces = [0.4, 0.8, 1.2, 1.6];
    let runtime = Runtime::new(Some(1), 0)?;
    let before = ends(&chain, &runtime, &k, &forces)?;
    let wanted: Vec<f64> = before.iter().map(|s| 0.5 * s).collect();
    let batch = Batch { x: Rows::all(&forces, 1), y: Targets::Values(Rows::all(&wanted, 1)) };
    let method = EquilibriumPropagation {
        variant: Estimator::Centered,
        beta: Some(0.5),
        sign: Sign::Positive,
        points: 2,
    }
    .with(Loss::SquaredError, pnncore::settling::Settling::default());
    let protocol = method.protocol(&chain)?;
    let mut state = StepState::new(&chain);
    let mut gradient = vec![Vec::new()];
    for step in 0..400 {
        let params = Params::shared([&k[..]]);
        protocol.step(
            &protocol.experiment(&runtime, &chain, &params, &batch, step),
            &mut [],
            &mut state,
        )?;
        write_gradient(&runtime, &chain.specs, &mut state, &mut gradient);
        for (k, g) in k.iter_mut().zip(&gradient[0]) {
            *k = (*k - 20.0 * g).max(0.05);
        }
    }
    let after = ends(&chain, &runtime, &k, &forces)?;
    println!("wanted {wanted:.4?}\nbefore {before:.4?}\nafter  {after:.4?}\nstiffnesses {k:.3?}");
    Ok(())
}
