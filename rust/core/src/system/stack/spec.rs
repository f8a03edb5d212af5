//! Stacks from their descriptions.

use pnncore_kernels::Real;
use serde::Deserialize;

use super::layer_spec::{LayerOutline, Parts, Site};
use super::registry::LayerChoice;
use super::{Stack, Stage, name_in_stack};
use crate::params::ParamSpec;
use crate::settings::at_least_zero;
use crate::system::{AnySystem, SystemSpec};
use crate::{Error, Result, memory};

/// A layer of a stack, and how its hardware differs from its twin.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is.
    pub layer: LayerChoice,
    /// The standard deviation of what a measurement of an output adds; `None`: what the stack says,
    /// where an output is measured.
    pub noise: Option<f64>,
    /// By how much, relatively, the constants of the hardware are off; `None`: by what the stack
    /// says.
    pub mismatch: Option<f64>,
}

impl<L: Into<LayerChoice>> From<L> for Entry {
    /// A layer whose noise and mismatch are those of the stack.
    fn from(layer: L) -> Self {
        Self { layer: layer.into(), noise: None, mismatch: None }
    }
}

/// A stack.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The layers, the first one first.
    pub layers: Vec<Entry>,
    /// The noise of layers that do not say.
    pub noise: f64,
    /// The mismatch of layers that do not say.
    pub mismatch: f64,
    /// What the constants of disordered layers, mismatches and noise are drawn from.
    pub seed: u64,
    /// Whether the names of parameters end with the numbers of their layers.
    pub numbered: bool,
}

/// What a stack would hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Names and shapes of its parameters, those of layers outside the core left out.
    pub parameters: Vec<ParamSpec>,
    /// Numbers that are drawn from its seed beside them, such as the elements of a scattering
    /// medium; no fewer than that.
    pub constants: u64,
}

/// A layer in its place.
struct Placed {
    site: Site,
    own: LayerOutline,
    noise: f64,
}

impl SystemSpec for Spec {
    const NAME: &'static str = "Stack";

    fn build(&self) -> Result<AnySystem> {
        Ok(AnySystem::new(self.build_for::<f32>()?, self.build_for::<f64>()?))
    }
}

impl Spec {
    /// What the stack would hold, told from its description alone: nothing of its size is
    /// allocated.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, [`Error::Shape`] where layers do not fit each
    /// other.
    pub fn outline(&self) -> Result<Outline> {
        let (mut parameters, mut constants) = (Vec::new(), 0u128);
        for Placed { site, own, .. } in self.placed()? {
            constants = constants.saturating_add(own.constants);
            parameters.extend(
                own.parameters
                    .into_iter()
                    .map(|spec| name_in_stack(spec, site.layer, self.numbered)),
            );
        }
        Ok(Outline { parameters, constants: u64::try_from(constants).unwrap_or(u64::MAX) })
    }

    /// Makes the stack.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, [`Error::Shape`] where layers do not fit each
    /// other.
    pub fn build_for<T: Real>(&self) -> Result<Stack<T>> {
        self.build_with(|_| Err(Error::Config("a layer outside the core needs its object".into())))
    }

    /// Makes the stack, with layers outside the core made by `foreign`, given their number.
    ///
    /// # Errors
    /// Those of [`Spec::build_for`], and of `foreign`.
    pub fn build_with<T: Real>(
        &self,
        foreign: impl Fn(usize) -> Result<Parts<T>>,
    ) -> Result<Stack<T>> {
        let mut stages = Vec::with_capacity(self.layers.len());
        for (entry, Placed { site, own, noise }) in self.layers.iter().zip(self.placed()?) {
            memory::check(own.numbers.saturating_mul(size_of::<T>() as u128), || {
                format!("layer {}", site.layer + 1)
            })?;
            let parts = entry.layer.build(&site, || foreign(site.layer))?;
            stages.push(Stage::new(parts, noise));
        }
        let calls_out = self.layers.iter().any(|entry| entry.layer.as_foreign().is_some());
        Stack::new(stages, self.seed, calls_out, self.numbered)
    }

    /// All layers in their places.
    fn placed(&self) -> Result<Vec<Placed>> {
        at_least_zero("noise", self.noise)?;
        at_least_zero("mismatch", self.mismatch)?;
        let mut placed: Vec<Placed> = Vec::with_capacity(self.layers.len());
        for (layer, entry) in self.layers.iter().enumerate() {
            let mismatch = entry.mismatch.unwrap_or(self.mismatch);
            at_least_zero("mismatch", mismatch)?;
            let arrives = placed.last().map(|before| before.own.gives);
            let site = Site { layer, arrives, mismatch, seed: self.seed };
            let own = entry.layer.outline(&site).map_err(|error| match error {
                Error::Config(text) if self.layers.len() > 1 => {
                    Error::Config(format!("layer {}: {text}", layer + 1))
                }
                error => error,
            })?;
            let noise = entry.noise.unwrap_or(if own.gives.complex { 0.0 } else { self.noise });
            at_least_zero("noise", noise)?;
            placed.push(Placed { site, own, noise });
        }
        Ok(placed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::System;

    /// Every kind of layer that can be described, with no two sizes alike.
    const LAYERS: [&str; 12] = [
        r#"{"kind": "linear", "inputs": 3, "outputs": 5, "bias": true}"#,
        r#"{"kind": "linear", "inputs": 3, "outputs": 5, "bias": false}"#,
        r#"{"kind": "speckle", "inputs": 3, "outputs": 5, "reference": 0.1}"#,
        r#"{"kind": "second-harmonic", "inputs": 3, "parameters": 5}"#,
        r#"{"kind": "pendula", "inputs": 3, "time": 1.0, "steps": 7}"#,
        r#"{"kind": "plate", "inputs": 3, "parameters": 5, "modes": 7, "damping": 0.1,
            "cubic": 0.1}"#,
        r#"{"kind": "transistor", "inputs": 3, "parameters": 5}"#,
        r#"{"kind": "normalise"}"#,
        r#"{"kind": "pointwise", "function": {"function": "relu"}}"#,
        r#"{"kind": "pointwise", "function": {"function": "tanh"}}"#,
        r#"{"kind": "pointwise", "function": {"function": "logistic"}}"#,
        r#"{"kind": "pointwise",
            "function": {"function": "saturable-absorber", "depth": 1.0, "saturation": 1.0}}"#,
    ];

    /// The layer, behind one of as many outputs as it may take.
    fn spec(layer: &str, mismatch: f64, numbered: bool) -> Spec {
        let before = r#"{"kind": "linear", "inputs": 1, "outputs": 3, "bias": false}"#;
        let entry =
            |layer: &str| format!(r#"{{"layer": {layer}, "noise": null, "mismatch": null}}"#);
        let layers = [entry(before), entry(layer)].join(", ");
        let own =
            format!(r#""noise": 0.0, "mismatch": {mismatch}, "seed": 3, "numbered": {numbered}"#);
        serde_json::from_str(&format!(r#"{{"layers": [{layers}], {own}}}"#)).unwrap()
    }

    #[test]
    fn an_outline_is_that_of_the_stack() {
        for layer in LAYERS {
            for (mismatch, numbered) in [(0.0, true), (0.1, false)] {
                let spec = spec(layer, mismatch, numbered);
                let stack = spec.build_for::<f64>().unwrap();
                assert_eq!(
                    spec.outline().unwrap().parameters,
                    System::<f64>::specs(&stack),
                    "{layer}"
                );
                for (own, stage) in spec.placed().unwrap().iter().zip(stack.stages()) {
                    let (takes, gives) = (stage.twin().takes(), stage.twin().gives());
                    assert_eq!((own.own.takes, own.own.gives), (takes, gives), "{layer}");
                }
            }
        }
    }

    #[test]
    fn sizes_beyond_all_memory_are_told_and_not_made() {
        for layer in LAYERS.iter().filter(|layer| layer.contains(": 3")) {
            let large = layer.replace(": 3,", ": 4294967295,").replace(": 5", ": 4294967295");
            let mut spec = spec(&large.replace(": 7", ": 4294967295"), 0.1, true);
            spec.layers.remove(0);
            let found = spec.outline().unwrap();
            let parameters = found.parameters.iter().map(|own| memory::product(&own.shape));
            let numbers = parameters.fold(u128::from(found.constants), u128::saturating_add);
            assert!(numbers >= 4_294_967_295, "{layer}: {numbers}");
            assert!(matches!(spec.build_for::<f32>(), Err(Error::Config(_))), "{layer}");
        }
    }

    #[test]
    fn what_is_no_layer_is_refused_by_name() {
        let parsed =
            |layer: &str| serde_json::from_str::<LayerChoice>(layer).unwrap_err().to_string();
        assert!(parsed(r#"{"kind": "lens"}"#).contains("one of linear, pointwise"));
        assert!(
            parsed(r#"{"kind": "speckle", "inputs": 1, "outputs": 2}"#)
                .contains("speckle: missing field")
        );
        assert!(
            parsed(r#"{"kind": "normalise", "width": 3}"#).contains("normalise: unknown field")
        );
    }
}
