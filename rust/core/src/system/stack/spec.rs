//! Stacks from their description.

use pnncore_kernels::Real;
use pnncore_kernels::philox::{Philox, Purpose};
use serde::Deserialize;

use super::crossbar::{Crossbar, Hardware};
use super::harmonic::Harmonic;
use super::linear::{self, Linear};
use super::multiplexed::Multiplexed;
use super::normalise::Normalise;
use super::ode::STAGES;
use super::pendula::Pendula;
use super::plate::Plate;
use super::pointwise::{Function, Pointwise};
use super::speckle::Speckle;
use super::transistor::Transistor;
use super::{GROUPS, Layer, Stack, Stage};
use crate::analog::io::Scale;
use crate::device::{CellArray, Device, TileSpec};
use crate::settings::at_least_zero;
use crate::system::{AnySystem, SystemSpec};
use crate::{Error, Result, memory};

/// What a layer is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "a few of them per stack")]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Kind {
    /// A linear map.
    Linear {
        /// The number of inputs.
        inputs: usize,
        /// The number of outputs.
        outputs: usize,
        /// Whether a bias is added.
        bias: bool,
    },
    /// A function of each signal.
    Pointwise {
        /// How many signals there are.
        width: usize,
        /// Which function.
        function: Function,
    },
    /// Rows scaled to the same power.
    Normalise {
        /// How many signals there are.
        width: usize,
    },
    /// Light through a random scattering medium.
    Speckle {
        /// The number of inputs.
        inputs: usize,
        /// The number of outputs.
        outputs: usize,
        /// The mean intensity of the reference beam.
        reference: f64,
    },
    /// Second-harmonic generation.
    SecondHarmonic {
        /// The number of inputs.
        inputs: usize,
        /// The number of parameters.
        parameters: usize,
    },
    /// Coupled pendula.
    Pendula {
        /// How many.
        inputs: usize,
        /// The time that they swing, in units of one over the frequency of small oscillations.
        time: f64,
        /// Runge-Kutta steps in that time.
        steps: usize,
    },
    /// A driven oscillating plate.
    Plate {
        /// The number of inputs.
        inputs: usize,
        /// The number of parameters.
        parameters: usize,
        /// How many modes.
        modes: usize,
        /// Their damping.
        damping: f64,
        /// How much their springs harden.
        cubic: f64,
    },
    /// An analog transistor circuit.
    Transistor {
        /// The number of inputs.
        inputs: usize,
        /// The number of parameters.
        parameters: usize,
    },
    /// A linear map that is read from an analog array.
    Crossbar {
        /// The number of inputs.
        inputs: usize,
        /// The number of outputs.
        outputs: usize,
        /// Whether a bias is added.
        bias: bool,
        /// The arrays, and how they are read.
        hardware: Hardware,
        /// Within how many of their standard deviations weights are kept; `None`: they are not.
        clip: Option<f64>,
        /// What it is made of, and how that is changed; `None`: any weight can be had.
        tile: Option<TileSpec>,
    },
    /// A layer outside the core: an instrument.
    Foreign {
        /// What its parameters are stored in.
        device: Device,
    },
}

/// The twin and the hardware of a layer outside the core.
pub type Sides<T> = (Box<dyn Layer<T>>, Option<Box<dyn Layer<T>>>);

/// A layer and how its hardware differs from its twin.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is.
    pub layer: Kind,
    /// The standard deviation of what a measurement of an output adds.
    pub noise: f64,
    /// By how much, relatively, the constants of the hardware are off.
    pub mismatch: f64,
}

/// A stack.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The layers, the first one first.
    pub layers: Vec<Entry>,
    /// What the constants of disordered layers, mismatches and noise are drawn from.
    pub seed: u64,
    /// Whether the names of parameters end with the numbers of their layers.
    pub numbered: bool,
}

impl Kind {
    /// About how many numbers the layer takes: its parameters and constants, with a `mismatch` those of the hardware too, and what a
    /// block of rows leaves for derivatives.
    fn numbers(&self, mismatch: bool) -> u128 {
        /// Rows of a block.
        const ROWS: usize = 16;
        /// States of the devices of waveforms that are no plates, at most.
        const STATES: usize = 8;
        let n = memory::product;
        match self {
            Self::Linear { inputs, outputs, .. } => {
                let crosstalk = if mismatch { linear::crosstalk_numbers(*outputs) } else { 0 };
                n(&[*inputs, *outputs, if mismatch { 2 } else { 1 }]).saturating_add(crosstalk)
            }
            // Steps, slopes, bounds and lifetimes of the cells, in double precision while they are drawn.
            Self::Crossbar { inputs, outputs, tile, .. } => {
                n(&[*inputs, *outputs, if tile.is_some() { 16 } else { 1 }])
            }
            Self::Pointwise { width, .. } | Self::Normalise { width } => n(&[*width, ROWS]),
            Self::Speckle { inputs, outputs, .. } => n(&[*inputs, *outputs, 8]),
            Self::SecondHarmonic { inputs, parameters } => n(&[inputs.saturating_add(*parameters), 4 * ROWS]),
            Self::Pendula { inputs, steps, .. } => {
                n(&[*inputs, *inputs]).saturating_add(n(&[*inputs, *steps, 8, ROWS]))
            }
            Self::Plate { inputs, parameters, modes, .. } => {
                n(&[inputs.saturating_add(*parameters), *modes, 8 * STAGES * 2, ROWS])
            }
            Self::Transistor { inputs, parameters } => {
                n(&[inputs.saturating_add(*parameters), STATES, 4 * STAGES, ROWS])
            }
            Self::Foreign { .. } => 0,
        }
    }

    fn build<T: Real>(&self, disorder: Philox, group: u32) -> Result<Box<dyn Layer<T>>> {
        Ok(match *self {
            Self::Linear { inputs, outputs, bias } => Box::new(map(inputs, outputs, bias)?),
            Self::Crossbar { .. } => return Err(Error::Config("a crossbar needs its hardware".into())),
            Self::Pointwise { width, function } => Box::new(Pointwise::new(function, width)?),
            Self::Normalise { width } => Box::new(Normalise { width }),
            Self::Speckle { inputs, outputs, reference } => {
                Box::new(Speckle::new(inputs, outputs, reference, disorder, group)?)
            }
            Self::SecondHarmonic { inputs, parameters } => Box::new(Harmonic::new(inputs, parameters)?),
            Self::Pendula { inputs, time, steps } => Box::new(Pendula::new(inputs, time, steps)?),
            Self::Plate { inputs, parameters, modes, damping, cubic } => {
                positive(&[("inputs", inputs), ("parameters", parameters), ("modes", modes)])?;
                for (name, value) in [("damping", damping), ("cubic", cubic)] {
                    at_least_zero(name, value)?;
                }
                let device = Plate::new(modes, damping, cubic, disorder, group);
                // The fastest mode turns by less than half a radian per step.
                Box::new(Multiplexed { device, inputs, parameters, substeps: 8 })
            }
            Self::Transistor { inputs, parameters } => {
                positive(&[("inputs", inputs), ("parameters", parameters)])?;
                Box::new(Multiplexed { device: Transistor::NOMINAL, inputs, parameters, substeps: 4 })
            }
            Self::Foreign { .. } => return Err(Error::Config("a layer outside the core needs its object".into())),
        })
    }
}

fn map<T: Real>(inputs: usize, outputs: usize, bias: bool) -> Result<Linear<T>> {
    positive(&[("inputs", inputs), ("outputs", outputs)])?;
    Ok(Linear::new(inputs, outputs, bias))
}

fn positive(sizes: &[(&str, usize)]) -> Result<()> {
    match sizes.iter().find(|(_, n)| *n == 0) {
        Some((name, _)) => Err(Error::Config(format!("{name} must be at least 1, got 0"))),
        None => Ok(()),
    }
}

impl SystemSpec for Spec {
    const NAME: &'static str = "Stack";

    fn build(&self) -> Result<AnySystem> {
        Ok(AnySystem::new(self.build_for::<f32>()?, self.build_for::<f64>()?))
    }
}

impl Spec {
    /// Makes the stack.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, [`Error::Shape`] where layers do not fit each other.
    pub fn build_for<T: Real>(&self) -> Result<Stack<T>> {
        self.build_with(|_| Err(Error::Config("a layer outside the core needs its object".into())))
    }

    /// Makes the stack, with layers outside the core made by `foreign`, given their number.
    ///
    /// # Errors
    /// Those of [`Spec::build_for`], and of `foreign`.
    pub fn build_with<T: Real>(&self, foreign: impl Fn(usize) -> Result<Sides<T>>) -> Result<Stack<T>> {
        let disorder = Philox::new(self.seed, Purpose::Disorder);
        let wrong = Philox::new(self.seed, Purpose::Mismatch);
        let stage = |(l, entry): (usize, &Entry)| {
            for (name, value) in [("noise", entry.noise), ("mismatch", entry.mismatch)] {
                at_least_zero(name, value)?;
            }
            let bytes = entry.layer.numbers(entry.mismatch > 0.0).saturating_mul(size_of::<T>() as u128);
            memory::check(bytes, || format!("layer {}", l + 1))?;
            let (noise, params) = (entry.noise, 0..0);
            if let Kind::Foreign { device } = &entry.layer {
                device.check()?;
                let (twin, hardware) = foreign(l)?;
                return Ok(Stage { twin, hardware, noise, params, device: device.clone(), tile: None, clip: None });
            }
            let group = GROUPS * l as u32;
            let device = Device::IDEAL;
            if let Kind::Crossbar { inputs, outputs, bias, hardware, tile, clip } = &entry.layer {
                if let Some(k) = clip.filter(|k| !(*k > 0.0 && k.is_finite())) {
                    return Err(Error::Config(format!("clip must be positive and finite, got {k}")));
                }
                let map = map(*inputs, *outputs, *bias)?;
                let map = if hardware.io.scale == Scale::Learned { map.with_range() } else { map };
                let twin = Box::new(map.clone());
                let hardware: Option<Box<dyn Layer<T>>> = Some(Box::new(Crossbar::new(map, hardware, wrong, group)?));
                let made = |tile: &TileSpec| CellArray::new(tile, (*inputs, *outputs), self.seed, l);
                let tile = tile.as_ref().map(made).transpose()?;
                return Ok(Stage { twin, hardware, noise, params, device, tile, clip: *clip });
            }
            let twin = entry.layer.build(disorder, group)?;
            let hardware = (entry.mismatch > 0.0).then(|| twin.mismatched(entry.mismatch, wrong, group));
            Ok(Stage { twin, hardware, noise, params, device, tile: None, clip: None })
        };
        let stages = self.layers.iter().enumerate().map(stage).collect::<Result<_>>()?;
        let foreign = self.layers.iter().any(|entry| matches!(entry.layer, Kind::Foreign { .. }));
        Stack::new(stages, self.seed, foreign, self.numbered)
    }
}
