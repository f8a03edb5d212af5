//! Descriptions of layers, and how one is made where it stands.

use pnncore_kernels::Real;
use pnncore_kernels::philox::{Philox, Purpose};
use serde::de::DeserializeOwned;

use super::{GROUPS, Layer};
use crate::device::{CellArray, Device, Store};
use crate::params::ParamSpec;
use crate::signal::Signal;
use crate::{Error, Result};

/// The description of a layer: what makes one, as configurations have it.
pub trait LayerSpec: std::fmt::Debug + DeserializeOwned + Send + Sync + 'static {
    /// The name of the kind of layer.
    const KIND: &'static str;

    /// Checks the settings and tells what the layer would be; nothing of its size is allocated.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting, what it is and what it may be.
    fn outline(&self, site: &Site) -> Result<LayerOutline>;

    /// Makes the layer, whose outline has been found right.
    ///
    /// # Errors
    /// [`Error::Config`] as [`LayerSpec::outline`].
    fn build<T: Real>(&self, site: &Site) -> Result<Parts<T>>;
}

/// Rows of a block, about, that the memory of layers is reckoned for.
pub(super) const ROWS: usize = 16;

/// What a layer would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerOutline {
    /// What it takes.
    pub takes: Signal,
    /// What it gives.
    pub gives: Signal,
    /// Names and shapes of its parameters.
    pub parameters: Vec<ParamSpec>,
    /// Numbers that twin and hardware are drawn from a seed with; no fewer than that.
    pub constants: u128,
    /// About how many numbers it takes: parameters and constants, and what a block of rows leaves
    /// for derivatives.
    pub numbers: u128,
}

impl LayerOutline {
    /// A layer without parameters and constants.
    pub fn new(takes: Signal, gives: Signal) -> Self {
        let numbers = ROWS as u128 * takes.numbers().max(gives.numbers()) as u128;
        Self { takes, gives, parameters: Vec::new(), constants: 0, numbers }
    }
}

/// Where a layer stands: after which signals, and what its constants are drawn from.
#[derive(Debug, Clone, Copy)]
pub struct Site {
    /// The number of the layer, from zero.
    pub layer: usize,
    /// What the layer before gives; `None` for the first one.
    pub arrives: Option<Signal>,
    /// By how much, relatively, the constants of the hardware are off.
    pub mismatch: f64,
    /// The seed of the stack.
    pub seed: u64,
}

impl Site {
    /// The random numbers that constants of disordered layers are drawn from.
    pub fn disorder(&self) -> Philox {
        Philox::new(self.seed, Purpose::Disorder)
    }

    /// The random numbers that tell what of the hardware is off, and by how much.
    pub fn deviations(&self) -> Philox {
        Philox::new(self.seed, Purpose::Mismatch)
    }

    /// The first of the groups of random numbers that are the layer's own.
    pub fn group(&self) -> u32 {
        GROUPS * self.layer as u32
    }

    /// Whether constants of the hardware are off.
    pub fn is_mismatched(&self) -> bool {
        self.mismatch > 0.0
    }

    /// How many values arrive, for a layer named `name` that takes as many as there are.
    ///
    /// # Errors
    /// [`Error::Shape`] for the first layer.
    pub fn width(&self, name: &str) -> Result<usize> {
        let unknown = || {
            Error::Shape(format!(
                "{name} does not say how many inputs it has: begin the stack with a layer that does"
            ))
        };
        self.arrives.map(|signal| signal.width).ok_or_else(unknown)
    }
}

/// What a layer is made of.
pub struct Parts<T> {
    /// The model with known derivatives.
    pub twin: Box<dyn Layer<T>>,
    /// What is measured on; `None`: the same.
    pub hardware: Option<Box<dyn Layer<T>>>,
    /// What parameters are stored in.
    pub device: Device,
    /// The cells of the first one, where it is stored in an array of these.
    pub cells: Option<CellArray<T>>,
    /// Within how many of their standard deviations the values of the first one are kept.
    pub clip: Option<f64>,
}

impl<T: Real> Parts<T> {
    /// A model and its hardware, whose parameters are stored in something ideal.
    pub fn new(twin: Box<dyn Layer<T>>, hardware: Option<Box<dyn Layer<T>>>) -> Self {
        Self { twin, hardware, device: Device::IDEAL, cells: None, clip: None }
    }

    /// What parameter number `i` of the layer is stored in.
    pub(super) fn store(&self, i: usize) -> Store<'_, T> {
        let material = Store::of(&self.device);
        if i == 0 {
            Store { cells: self.cells.as_ref(), clip: self.clip, ..material }
        } else {
            material
        }
    }

    /// A model, and hardware that differs from it where that is so at `site`.
    pub fn of(twin: impl Layer<T> + 'static, site: &Site) -> Self {
        let off = || twin.mismatched(site.mismatch, site.deviations(), site.group());
        let hardware = site.is_mismatched().then(off);
        Self::new(Box::new(twin), hardware)
    }
}
