//! The description of a mesh, and what its twin and its hardware are made of.

use std::f64::consts::FRAC_PI_4;

use pnncore_kernels::Real;
use pnncore_kernels::mesh::NUMBERS;
use serde::Deserialize;

use super::layout::{Circuit, MeshLayout};
use super::shifters::Shifters;
use super::{MZIMesh, parameters};
use crate::settings::{at_least_zero, converter_bits, positive};
use crate::signal::Signal;
use crate::system::stack::layer::Layer;
use crate::system::stack::layer_spec::{LayerOutline, LayerSpec, Parts, ROWS, Site};
use crate::{Error, Result};

/// The description of a mesh of Mach-Zehnder interferometers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MZIMeshSpec {
    /// How many modes go in.
    pub inputs: usize,
    /// How many come out.
    pub outputs: usize,
    /// How interferometers lie.
    pub layout: MeshLayout,
    /// What the hardware loses in each coupler, in decibels of power.
    pub loss: f64,
    /// The standard deviation, in radians, of what angles of the hardware's couplers are off by.
    pub coupler_error: f64,
    /// What angles of the couplers are known to be off by, in radians, two to an interferometer: in
    /// the twin, too; empty: by nothing.
    pub coupler_errors: Vec<[f64; 2]>,
    /// The standard deviation, in radians, of what every phase of the hardware is off by.
    pub phase_error: f64,
    /// The share of the phase of a heater of the hardware that its neighbours in the column get.
    pub crosstalk: f64,
    /// How finely settings of the hardware are set: 2^bits of them to a turn; `None`: as they are.
    pub bits: Option<u32>,
    /// The voltage that turns a phase by pi, where settings are voltages: phase = pi (V / V_pi)^2.
    pub half_wave_voltage: Option<f64>,
    /// The standard deviation, in radians, of what every phase of the hardware is off by more at
    /// each step of training than at the one before: a random walk.
    pub drift: f64,
    /// The standard deviation of what a monitor of the hardware reads, in mean powers that are sent
    /// into a mode.
    pub tap_noise: f64,
}

impl MZIMeshSpec {
    /// A perfect mesh, whose settings are phases.
    pub fn new(layout: MeshLayout, inputs: usize, outputs: usize) -> Self {
        Self {
            inputs,
            outputs,
            layout,
            loss: 0.0,
            coupler_error: 0.0,
            coupler_errors: Vec::new(),
            phase_error: 0.0,
            crosstalk: 0.0,
            bits: None,
            half_wave_voltage: None,
            drift: 0.0,
            tap_noise: 0.0,
        }
    }

    /// Where light goes.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range.
    pub fn circuit(&self) -> Result<Circuit> {
        self.check()?;
        Ok(self.layout.circuit(self.inputs, self.outputs))
    }

    pub(super) fn check(&self) -> Result<()> {
        self.layout.check(self.inputs, self.outputs)?;
        for (name, value) in [
            ("loss", self.loss),
            ("coupler_error", self.coupler_error),
            ("phase_error", self.phase_error),
            ("crosstalk", self.crosstalk),
            ("drift", self.drift),
            ("tap_noise", self.tap_noise),
        ] {
            at_least_zero(name, value)?;
        }
        if let Some(voltage) = self.half_wave_voltage {
            positive("half_wave_voltage", voltage)?;
        }
        converter_bits("bits", self.bits)?;
        let wanted = self.layout.interferometers(self.inputs, self.outputs);
        let given = self.coupler_errors.len();
        if given > 0 && given as u128 != wanted {
            return Err(Error::Config(format!(
                "coupler_error must have shape ({wanted}, 2), one angle for each coupler of each \
                 interferometer, got ({given}, 2)"
            )));
        }
        if self.coupler_errors.iter().flatten().any(|error| !error.is_finite()) {
            return Err(Error::Config("coupler_error must be finite".into()));
        }
        Ok(())
    }

    /// The angles of couplers in the twin.
    pub(super) fn angles(&self, interferometers: usize) -> Vec<[f64; 2]> {
        let mut known = self.coupler_errors.clone();
        known.resize(interferometers, [0.0; 2]);
        known.into_iter().map(|errors| errors.map(|error| FRAC_PI_4 + error)).collect()
    }

    /// Whether hardware differs from the twin where nothing is mismatched.
    fn is_imperfect(&self) -> bool {
        let deviations = [
            self.loss,
            self.coupler_error,
            self.phase_error,
            self.crosstalk,
            self.drift,
            self.tap_noise,
        ];
        self.bits.is_some() || deviations.iter().any(|&own| own > 0.0)
    }
}

impl LayerSpec for MZIMeshSpec {
    const KIND: &'static str = "mzi-mesh";

    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        self.check()?;
        let count = self.layout.interferometers(self.inputs, self.outputs);
        let drawn = [self.coupler_error > 0.0 || site.is_mismatched(), self.phase_error > 0.0];
        let constants = drawn.map(|own| u128::from(own) * count.saturating_mul(2));
        let width = self.inputs.max(self.outputs) as u128;
        Ok(LayerOutline {
            parameters: parameters(usize::try_from(count).unwrap_or(usize::MAX), self.outputs),
            constants: constants.iter().sum(),
            numbers: count
                .saturating_mul(NUMBERS as u128 + 8)
                .saturating_add(width.saturating_mul(16 * ROWS as u128)),
            ..LayerOutline::new(Signal::complex(self.inputs), Signal::complex(self.outputs))
        })
    }

    /// Hardware differs from its twin by all that is imperfect.
    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>> {
        let circuit = self.layout.circuit(self.inputs, self.outputs);
        let shifters = Shifters::new(&circuit, self.half_wave_voltage);
        let angles = self.angles(circuit.pairs.len());
        let twin = MZIMesh::new(circuit, angles, shifters);
        let differs = site.is_mismatched() || self.is_imperfect();
        let hardware = differs.then(|| {
            let (random, group) = (site.deviations(), site.group());
            let mut real = twin.clone();
            real.transmission = vec![10f64.powf(-self.loss / 20.0); 2 * real.angles.len()];
            real.shifters.crosstalk = self.crosstalk;
            real.shifters.bits = self.bits;
            real.shifters.draw_errors(self.phase_error, real.sizes(), random, group + 3);
            real.move_couplers(|k| self.coupler_error * random.normal(k, group + 2));
            (real.drift, real.tap_noise) = (self.drift, self.tap_noise);
            real.mismatched(site.mismatch, random, group)
        });
        let hardware: Option<Box<dyn Layer<T>>> = hardware;
        Ok(Parts::new(Box::new(twin), hardware))
    }
}
