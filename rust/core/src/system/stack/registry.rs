//! Layers by the names of their kinds, a line each.

use std::sync::Arc;

use pnncore_kernels::{BothPrecisions, Real};
use serde::{Deserialize, Deserializer, de};

use super::crossbar::CrossbarSpec;
use super::detect::DetectSpec;
use super::diffraction::DiffractionSpec;
use super::encode::EncodeSpec;
use super::fibre::FibreSpec;
use super::harmonic::SecondHarmonicSpec;
use super::layer_spec::{LayerOutline, LayerSpec, Parts, Site};
use super::linear::LinearSpec;
use super::mesh::MZIMeshSpec;
use super::microring::MicroringSpec;
use super::modes::CoupledModesSpec;
use super::normalise::NormaliseSpec;
use super::pendula::PendulaSpec;
use super::plate::PlateSpec;
use super::pointwise::PointwiseSpec;
use super::regions::DetectorRegionsSpec;
use super::speckle::SpeckleSpec;
use super::transistor::TransistorSpec;
use super::waveguide::WaveguideSpec;
use crate::Result;
use crate::device::Device;
use crate::signal::Signal;

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
    Entry::of::<MicroringSpec>(),
    Entry::of::<CoupledModesSpec>(),
    Entry::of::<DiffractionSpec>(),
    Entry::of::<DetectorRegionsSpec>(),
    Entry::of::<WaveguideSpec>(),
    Entry::of::<FibreSpec>(),
];

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
