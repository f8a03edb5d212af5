//! Methods by their names, and a choice of one.

use std::sync::Arc;

use pnncore_kernels::{BothPrecisions, Real};
use serde::{Deserialize, Deserializer, de};

use super::{CompiledMethod, METHODS, MethodConfig, Setup};
use crate::loss::Loss;
use crate::own_loss::AnyLoss;
use crate::settling::Settling;
use crate::system::{Abilities, System};
use crate::{Error, Result};

/// A method in the list of all.
pub(super) struct Entry {
    name: &'static str,
    variants: &'static [(&'static str, Abilities)],
    parse: fn(serde_json::Value) -> serde_json::Result<Arc<dyn AnyMethod>>,
}

impl Entry {
    pub(super) const fn of<C: MethodConfig>() -> Self {
        Self {
            name: C::NAME,
            variants: C::VARIANTS,
            parse: |settings| Ok(Arc::new(serde_json::from_value::<C>(settings)?)),
        }
    }
}

/// A method with its settings, whichever it is: one of the core, or one of a user's own.
pub trait AnyMethod: Compile<f32> + Compile<f64> + std::fmt::Debug + Send + Sync {
    /// The call that makes this variant of the method.
    fn name(&self) -> &str;

    /// What the method needs of a system.
    fn needs(&self) -> Abilities;

    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting, what it is and what it may be.
    fn check(&self, settling: &Settling) -> Result<()> {
        let _ = settling;
        Ok(())
    }

    /// Whether its steps call code of the user's, which is to run on the calling thread.
    fn calls_out(&self) -> bool {
        false
    }

    /// Whether it minimises whatever loss it is given.
    fn takes_loss(&self) -> bool {
        true
    }
}

impl<C: MethodConfig> AnyMethod for C {
    fn name(&self) -> &str {
        C::VARIANTS[self.variant()].0
    }

    fn needs(&self) -> Abilities {
        C::VARIANTS[self.variant()].1
    }

    fn check(&self, settling: &Settling) -> Result<()> {
        MethodConfig::check(self, settling)
    }

    fn takes_loss(&self) -> bool {
        C::TAKES_LOSS
    }
}

/// [`MethodConfig::compile`] for one type of numbers.
pub trait Compile<T: Real> {
    /// Compiles the method for a system that has what it needs.
    ///
    /// # Errors
    /// As [`MethodConfig::compile`].
    fn compile_for(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>>;
}

impl<T: Real, C: MethodConfig> Compile<T> for C {
    fn compile_for(&self, setup: Setup<'_, T>) -> Result<Box<dyn CompiledMethod<T>>> {
        self.compile(setup)
    }
}

impl BothPrecisions for dyn AnyMethod {
    type Of<T: Real> = dyn Compile<T>;

    fn f32(&self) -> &Self::Of<f32> {
        self
    }

    fn f64(&self) -> &Self::Of<f64> {
        self
    }
}

/// A training method with its settings, a loss, and how systems settle.
#[derive(Debug, Clone)]
pub struct Method {
    /// The loss. Contrastive and coupled learning only report it, and measure output errors by it.
    pub loss: Loss,
    /// How systems that settle do so.
    pub settling: Settling,
    pub(super) config: Arc<dyn AnyMethod>,
    own_loss: Option<Arc<dyn AnyLoss>>,
}

impl Method {
    /// The method with these settings.
    pub fn new(config: impl AnyMethod + 'static, loss: Loss, settling: Settling) -> Self {
        Self { loss, settling, config: Arc::new(config), own_loss: None }
    }

    /// The same method with a loss of a user's own.
    #[must_use]
    pub fn with_own_loss(self, own_loss: Arc<dyn AnyLoss>) -> Self {
        Self { loss: Loss::SquaredError, own_loss: Some(own_loss), ..self }
    }

    /// The loss, where it is one of a user's own.
    pub(super) fn own_loss(&self) -> Option<Arc<dyn AnyLoss>> {
        self.own_loss.clone()
    }

    /// The call that makes this variant of the method.
    pub fn name(&self) -> &str {
        self.config.name()
    }

    /// What the method needs of a system.
    pub fn needs(&self) -> Abilities {
        self.config.needs()
    }

    /// Whether it is one of a user's own.
    pub(super) fn is_own(&self) -> bool {
        self.config.calls_out()
    }

    /// Whether its steps call code of the user's, which is to run on the calling thread.
    pub fn calls_out(&self) -> bool {
        self.is_own() || self.own_loss.is_some()
    }

    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting, what it is and what it may be.
    pub fn check(&self) -> Result<()> {
        self.settling.check()?;
        if self.own_loss.is_some() && !self.config.takes_loss() {
            return Err(Error::Config(format!(
                "{} has a loss of its own making, and no use for another: leave loss out",
                self.name()
            )));
        }
        self.config.check(&self.settling)
    }
}

/// A configuration is an object with `name`, `loss`, perhaps `settling`, and the settings of the
/// method.
impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Parts {
            name: String,
            loss: Loss,
            #[serde(default)]
            settling: Settling,
            #[serde(flatten)]
            settings: serde_json::Map<String, serde_json::Value>,
        }
        let Parts { name, loss, settling, settings } = Parts::deserialize(deserializer)?;
        let known = || METHODS.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
        let entry = METHODS.iter().find(|entry| entry.name == name);
        let entry = entry.ok_or_else(|| {
            de::Error::custom(format!("unknown name {name:?}, expected one of {}", known()))
        })?;
        let config = (entry.parse)(settings.into())
            .map_err(|e| de::Error::custom(format!("{name}: {e}")))?;
        Ok(Self { loss, settling, config, own_loss: None })
    }
}

/// All variants of methods: the call that makes one, and what it needs of a system.
pub fn variants() -> impl Iterator<Item = (&'static str, Abilities)> {
    METHODS.iter().flat_map(|entry| entry.variants).copied()
}

/// The methods that can train a system.
pub fn methods_for<T: Real>(system: &dyn System<T>) -> Vec<&'static str> {
    let abilities = system.abilities();
    variants().filter(|(_, needs)| abilities.has(*needs)).map(|(name, _)| name).collect()
}
