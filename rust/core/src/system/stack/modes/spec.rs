//! Descriptions of coupled modes, and in which order they are eliminated.

use serde::Deserialize;

use crate::params::ParamSpec;
use crate::settings::{at_least_one, at_least_zero, positive};
use crate::signal::Signal;
use crate::system::stack::layer::Layer;
use crate::system::stack::layer_spec::{LayerOutline, LayerSpec, Parts, ROWS, Site};
use crate::{Error, Result, memory};
use pnncore_kernels::Real;

use super::Modes;

/// The description of coupled modes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoupledModesSpec {
    /// How many modes there are.
    pub modes: usize,
    /// How many of the first are detuned by inputs.
    pub inputs: usize,
    /// Pairs of modes that are coupled.
    pub edges: Vec<[usize; 2]>,
    /// The elements of the scattering matrix that are outputs: where light comes out, and where it
    /// goes in.
    pub outputs: Vec<[usize; 2]>,
    /// The rate at which modes decay into their waveguides, at first.
    pub decay: f64,
    /// The rate at which they decay elsewhere.
    pub loss: f64,
    /// The frequency of the light that probes, from that of a mode without detuning.
    pub frequency: f64,
    /// The amplitude of that light.
    pub probe: f64,
    /// Whether decay rates are parameters.
    pub tunable_decay: bool,
    /// The standard deviation of both quadratures of a measured element of the scattering matrix,
    /// where gradients are measured.
    pub probe_noise: f64,
}

impl CoupledModesSpec {
    fn check(&self) -> Result<()> {
        at_least_one(&[("n_in", self.inputs), ("modes", self.modes)])?;
        positive("decay", self.decay)?;
        positive("probe", self.probe)?;
        for (name, value) in [("loss", self.loss), ("probe_noise", self.probe_noise)] {
            at_least_zero(name, value)?;
        }
        let refuse = |message: String| Err(Error::Config(message));
        if !self.frequency.is_finite() {
            return refuse(format!("frequency must be finite, got {}", self.frequency));
        }
        if self.inputs > self.modes {
            return refuse(format!(
                "n_in must be at most the {} modes there are, got {}",
                self.modes, self.inputs
            ));
        }
        for (name, pairs) in [("couplings", &self.edges), ("outputs", &self.outputs)] {
            let largest = pairs.iter().flatten().max().copied().unwrap_or(0);
            if largest >= self.modes {
                return refuse(format!(
                    "{name} must name modes from 0 to {}, got {largest}",
                    self.modes - 1
                ));
            }
        }
        if self.outputs.is_empty() {
            return refuse("outputs must name at least one pair of modes".into());
        }
        let mut seen: Vec<[usize; 2]> =
            self.edges.iter().map(|&[i, j]| [i.min(j), i.max(j)]).collect();
        seen.sort_unstable();
        if let Some([i, _]) = seen.iter().find(|[i, j]| i == j) {
            return refuse(format!(
                "couplings must be between two modes, got {i} and {i}: its detuning is a parameter \
                 of its own"
            ));
        }
        match seen.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => refuse(format!(
                "couplings must name a pair of modes once, got {} and {} again",
                pair[0][0], pair[0][1]
            )),
            None => Ok(()),
        }
    }

    fn parameters(&self) -> Vec<ParamSpec> {
        let spec = |name: &str, len: usize| ParamSpec { name: name.into(), shape: vec![len] };
        let mut parameters = vec![spec("detuning", self.modes), spec("coupling", self.edges.len())];
        if self.tunable_decay {
            parameters.push(spec("log_decay", self.modes));
        }
        parameters
    }
}

impl LayerSpec for CoupledModesSpec {
    const KIND: &'static str = "coupled-modes";

    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        self.check()?;
        let drawn = if site.is_mismatched() { 2 * self.modes + self.edges.len() } else { 0 };
        let order = Elimination::new(self);
        let (modes, core) = (self.modes, order.core.len());
        let row = memory::product(&[2, modes, order.ports.len()]);
        let matrices = memory::product(&[modes, core]).saturating_mul(4);
        Ok(LayerOutline {
            parameters: self.parameters(),
            constants: drawn as u128,
            numbers: row.saturating_mul(3 * ROWS as u128).saturating_add(matrices),
            ..LayerOutline::new(Signal::real(self.inputs), Signal::complex(self.outputs.len()))
        })
    }

    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        let twin = Modes::new(self.clone(), Elimination::new(self), self.parameters());
        let differs = site.is_mismatched() || self.probe_noise > 0.0;
        let hardware = differs
            .then(|| Layer::<T>::mismatched(&twin, site.mismatch, site.deviations(), site.group()));
        Ok(Parts::new(Box::new(twin), hardware))
    }
}

/// The order in which modes are eliminated: first those of inputs that are not coupled to each
/// other, whose matrix is diagonal, then the core of all others, those first that are coupled to
/// the former.
#[derive(Debug, Clone)]
pub(super) struct Elimination {
    /// The modes that go first.
    pub(super) first: Vec<usize>,
    /// The others.
    pub(super) core: Vec<usize>,
    /// How many of the core are coupled to those that go first.
    pub(super) near: usize,
    /// The place of every mode in this order.
    pub(super) place: Vec<usize>,
    /// The places of both modes of every coupling, the first one's first.
    pub(super) edges: Vec<[usize; 2]>,
    /// The places of all modes of outputs, each once: light is sent to each of them.
    pub(super) ports: Vec<usize>,
    /// The two ports of every output.
    pub(super) outputs: Vec<[usize; 2]>,
}

impl Elimination {
    pub(super) fn new(spec: &CoupledModesSpec) -> Self {
        let mut is_first = vec![true; spec.inputs];
        is_first.resize(spec.modes, false);
        for &[i, j] in &spec.edges {
            if is_first[i] && is_first[j] {
                is_first[i.max(j)] = false;
            }
        }
        let mut is_near = vec![false; spec.modes];
        for &[i, j] in &spec.edges {
            is_near[i] |= is_first[j];
            is_near[j] |= is_first[i];
        }
        let (first, mut core): (Vec<usize>, Vec<usize>) =
            (0..spec.modes).partition(|&mode| is_first[mode]);
        core.sort_by_key(|&mode| !is_near[mode]);
        let near = core.iter().filter(|&&mode| is_near[mode]).count();
        let mut place = vec![0; spec.modes];
        first.iter().chain(&core).enumerate().for_each(|(at, &mode)| place[mode] = at);
        let edges = spec.edges.iter().map(|&[i, j]| {
            let (i, j) = (place[i], place[j]);
            [i.min(j), i.max(j)]
        });
        let mut ports: Vec<usize> = Vec::new();
        let mut port = |mode: usize| {
            let known = ports.iter().position(|&port| port == place[mode]);
            known.unwrap_or_else(|| {
                ports.push(place[mode]);
                ports.len() - 1
            })
        };
        let outputs = spec.outputs.iter().map(|pair| pair.map(&mut port)).collect();
        let edges = edges.collect();
        Self { first, core, near, place, edges, ports, outputs }
    }
}
