//! Deep resistive networks: layers of nodes joined by conductances, with ideal diodes (Scellier, "A
//! fast algorithm to simulate nonlinear resistive networks", ICML 2024).
//!
//! The state is the voltage of every node. The energy is half the power that the conductances g
//! dissipate, less what current sources b feed in: E = sum over layers of 1/2 g_ij (v_i - v_j)^2 -
//! sum b_j v_j. Inputs are pairs of voltage sources at plus and minus `input_gain` times x, since
//! conductances cannot be negative. A diode to ground at every hidden node keeps the first half of
//! each layer at v >= 0 and the second half at v <= 0; outputs are free. Given its neighbours a
//! node settles to the mean of their voltages, weighted by the conductances, within its walls. A
//! squared-error nudge is a current beta (y - v) into each output.

use serde::Deserialize;

use super::layered::{Layered, Physics};
use super::{AnySystem, SystemSpec};
use crate::device::Device;
use crate::settings::positive;
use crate::{Error, Result};

/// A deep resistive network, as it is given.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The sizes of the layers, inputs (each a pair of sources) first, outputs last.
    pub layers: Vec<usize>,
    /// The voltage of a source per unit of its input.
    pub input_gain: f64,
    /// What conductances are stored in.
    pub device: Device,
}

impl SystemSpec for Spec {
    const NAME: &'static str = "DeepResistive";

    fn build(&self) -> Result<AnySystem> {
        Ok(AnySystem::same(Layered::resistive(&self.layers, self.input_gain, self.device.clone())?))
    }
}

impl Layered {
    /// A deep resistive network with layers of these sizes: inputs (each a pair of sources) first,
    /// outputs last.
    ///
    /// Parameters are, in this order, `g1`, `b1`, `g2`, `b2`, ...: conductances (nodes of the layer
    /// before, nodes of the layer; `g1` has a row for +x of every input, then one for -x of every
    /// input) and current sources. `device` is what conductances are stored in.
    ///
    /// # Errors
    /// [`Error::Config`] for fewer than two layers or an empty one, an `input_gain` that is not
    /// positive, or a device that allows negative conductances.
    pub fn resistive(sizes: &[usize], input_gain: f64, device: Device) -> Result<Self> {
        positive("input_gain", input_gain)?;
        device.check()?;
        if !device.lower.is_some_and(|lower| lower >= 0.0) {
            return Err(Error::Config(
                "conductances cannot be negative: the device's smallest must be at least 0".into(),
            ));
        }
        Self::new(Physics::Resistive { input_gain }, sizes, "g", device)
    }
}
