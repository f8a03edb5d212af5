//! Layers by the names of their kinds, a line each, and how one is made where it stands.

use std::sync::Arc;

use pnncore_kernels::philox::{Philox, Purpose};
use pnncore_kernels::{BothPrecisions, Real};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, de};

use super::crossbar::CrossbarSpec;
use super::detect::DetectSpec;
use super::encode::EncodeSpec;
use super::harmonic::SecondHarmonicSpec;
use super::linear::LinearSpec;
use super::mzi_mesh::MZIMeshSpec;
use super::normalise::NormaliseSpec;
use super::pendula::PendulaSpec;
use super::plate::PlateSpec;
use super::pointwise::PointwiseSpec;
use super::speckle::SpeckleSpec;
use super::transistor::TransistorSpec;
use super::{GROUPS, Layer};
use crate::device::{CellArray, Device, Store};
use crate::params::ParamSpec;
use crate::signal::Signal;
use crate::{Error, Result};

/// All kinds of layers that are described by data alone.
static LAYERS: &[Entry] = &[
    Entry::of::<LinearSpec>(),
    Entry::of::<PointwiseSpec>(),
    Entry::of::<NormaliseSpec>(),
    Entry::of::<SpeckleSpec>(),
    Entry::of::<SecondHarmonicSpec>(),
    Entry::of::<PendulaSpec>(),
    Entry::of::<PlateSpec>(),
    Entry::of::<TransistorSpec>(),
    Entry::of::<CrossbarSpec>(),
    Entry::of::<EncodeSpec>(),
    Entry::of::<DetectSpec>(),
    Entry::of::<MZIMeshSpec>(),
];

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

/// A layer in the list of all.
struct Entry {
    kind: &'static str,
    parse: fn(serde_json::Value) -> serde_json::Result<LayerChoice>,
}

impl Entry {
    const fn of<S: LayerSpec>() -> Self {
        Self { kind: S::KIND, parse: |settings| Ok(serde_json::from_value::<S>(settings)?.into()) }
    }
}

/// The description of a layer, of whichever kind.
trait AnySpec: Build<f32> + Build<f64> + std::fmt::Debug + Send + Sync {
    fn outline(&self, site: &Site) -> Result<LayerOutline>;
}

impl<S: LayerSpec> AnySpec for S {
    fn outline(&self, site: &Site) -> Result<LayerOutline> {
        LayerSpec::outline(self, site)
    }
}

/// [`LayerSpec::build`] for one type of numbers.
trait Build<T: Real> {
    fn build_for(&self, site: &Site) -> Result<Parts<T>>;
}

impl<T: Real, S: LayerSpec> Build<T> for S {
    fn build_for(&self, site: &Site) -> Result<Parts<T>> {
        self.build(site)
    }
}

impl BothPrecisions for dyn AnySpec {
    type Of<T: Real> = dyn Build<T>;

    fn f32(&self) -> &Self::Of<f32> {
        self
    }

    fn f64(&self) -> &Self::Of<f64> {
        self
    }
}

/// A layer outside the core: an instrument, or functions of a user's own.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignSpec {
    /// The number of inputs.
    pub inputs: usize,
    /// The number of outputs.
    pub outputs: usize,
    /// What its parameters are stored in.
    pub device: Device,
}

/// The choice of a layer.
#[derive(Debug, Clone)]
pub struct LayerChoice(Choice);

#[derive(Debug, Clone)]
enum Choice {
    Described(Arc<dyn AnySpec>),
    Foreign(ForeignSpec),
}

impl<S: LayerSpec> From<S> for LayerChoice {
    fn from(spec: S) -> Self {
        Self(Choice::Described(Arc::new(spec)))
    }
}

impl LayerChoice {
    /// The layer as one outside the core.
    pub fn as_foreign(&self) -> Option<&ForeignSpec> {
        match &self.0 {
            Choice::Foreign(spec) => Some(spec),
            Choice::Described(_) => None,
        }
    }

    /// What the layer would be; the parameters of one outside the core are left out.
    ///
    /// # Errors
    /// As [`LayerSpec::outline`].
    pub fn outline(&self, site: &Site) -> Result<LayerOutline> {
        match &self.0 {
            Choice::Described(spec) => spec.outline(site),
            Choice::Foreign(spec) => {
                spec.device.check()?;
                Ok(LayerOutline::new(Signal::real(spec.inputs), Signal::real(spec.outputs)))
            }
        }
    }

    /// Makes the layer; one outside the core is made by `foreign`.
    ///
    /// # Errors
    /// As [`LayerSpec::build`], and those of `foreign`.
    pub fn build<T: Real>(
        &self,
        site: &Site,
        foreign: impl FnOnce() -> Result<Parts<T>>,
    ) -> Result<Parts<T>> {
        match &self.0 {
            Choice::Described(spec) => T::pick(&**spec).build_for(site),
            Choice::Foreign(spec) => Ok(Parts { device: spec.device.clone(), ..foreign()? }),
        }
    }
}

/// A description is an object with `kind` and the settings of that kind of layer.
impl<'de> Deserialize<'de> for LayerChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The kind of layers outside the core.
        const FOREIGN: &str = "foreign";
        #[derive(Deserialize)]
        struct Described {
            kind: String,
            #[serde(flatten)]
            settings: serde_json::Map<String, serde_json::Value>,
        }
        let Described { kind, settings } = Described::deserialize(deserializer)?;
        let failed = |e: serde_json::Error| de::Error::custom(format!("{kind}: {e}"));
        if kind == FOREIGN {
            return serde_json::from_value(settings.into())
                .map(|spec| Self(Choice::Foreign(spec)))
                .map_err(failed);
        }
        let known = || LAYERS.iter().map(|entry| entry.kind).collect::<Vec<_>>().join(", ");
        let entry = LAYERS.iter().find(|entry| entry.kind == kind);
        let entry = entry.ok_or_else(|| {
            de::Error::custom(format!(
                "unknown kind of layer {kind:?}, expected one of {}, {FOREIGN}",
                known()
            ))
        })?;
        (entry.parse)(settings.into()).map_err(failed)
    }
}
