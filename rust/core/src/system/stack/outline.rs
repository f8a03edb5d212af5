//! How large a stack would be, told from its description alone: nothing is allocated.

use super::Linear;
use super::spec::{Entry, Kind, Spec};
use crate::analog::io::Scale;
use crate::params::ParamSpec;

/// What a stack would hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Names and shapes of its parameters, those of layers outside the core left out.
    pub parameters: Vec<ParamSpec>,
    /// Numbers that are drawn from its seed beside them, such as the elements of a scattering medium; no fewer
    /// than that.
    pub constants: u64,
}

/// One parameter.
pub(super) fn vector(name: &str, len: usize) -> Vec<ParamSpec> {
    vec![ParamSpec { name: name.into(), shape: vec![len] }]
}

/// The product of sizes, or the largest number where it is beyond that.
fn product(sizes: &[usize]) -> u64 {
    sizes.iter().fold(1, |product: u64, &size| product.saturating_mul(size as u64))
}

impl Spec {
    /// What the stack would hold.
    pub fn outline(&self) -> Outline {
        let mut parameters = Vec::new();
        for (l, entry) in self.layers.iter().enumerate() {
            let number = if self.numbered { (l + 1).to_string() } else { String::new() };
            let named = |own: ParamSpec| ParamSpec { name: format!("{}{number}", own.name), ..own };
            parameters.extend(entry.layer.parameters().into_iter().map(named));
        }
        let constants = self.layers.iter().map(Entry::constants).fold(0, u64::saturating_add);
        Outline { parameters, constants }
    }
}

impl Kind {
    /// Names and shapes of the parameters of the layer.
    fn parameters(&self) -> Vec<ParamSpec> {
        match *self {
            Self::Linear { inputs, outputs, bias } => Linear::<f32>::new(inputs, outputs, bias).parameters(),
            Self::Crossbar { inputs, outputs, bias, ref hardware, .. } => {
                let map = Linear::<f32>::new(inputs, outputs, bias);
                if hardware.io.scale == Scale::Learned { map.with_range().parameters() } else { map.parameters() }
            }
            Self::Speckle { inputs, .. } => vector("phase", inputs),
            Self::SecondHarmonic { parameters, .. }
            | Self::Plate { parameters, .. }
            | Self::Transistor { parameters, .. } => vector("theta", parameters),
            Self::Pendula { inputs, .. } => super::pendula::parameters(inputs),
            Self::Pointwise { .. } | Self::Normalise { .. } | Self::Foreign { .. } => Vec::new(),
        }
    }
}

impl Entry {
    /// Numbers that the twin and the hardware of the layer keep.
    fn constants(&self) -> u64 {
        let differs = self.mismatch > 0.0;
        match self.layer {
            Kind::Linear { inputs, outputs, .. } if differs => {
                product(&[outputs, inputs]).saturating_add(product(&[outputs, outputs]))
            }
            Kind::Speckle { inputs, outputs, .. } => {
                product(&[4, inputs, outputs]).saturating_add(product(&[4, outputs]))
            }
            Kind::SecondHarmonic { inputs, parameters } => {
                product(&[6, inputs]).saturating_add(product(&[6, parameters]))
            }
            Kind::Plate { modes, .. } => product(&[6, modes]),
            Kind::Pendula { inputs, .. } if differs => product(&[inputs, inputs]),
            _ => 0,
        }
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
        r#"{"kind": "plate", "inputs": 3, "parameters": 5, "modes": 7, "damping": 0.1, "cubic": 0.1}"#,
        r#"{"kind": "transistor", "inputs": 3, "parameters": 5}"#,
        r#"{"kind": "normalise", "width": 3}"#,
        r#"{"kind": "pointwise", "width": 3, "function": {"function": "relu"}}"#,
        r#"{"kind": "pointwise", "width": 3, "function": {"function": "tanh"}}"#,
        r#"{"kind": "pointwise", "width": 3, "function": {"function": "logistic"}}"#,
        r#"{"kind": "pointwise", "width": 3, "function": {"function": "saturable-absorber", "depth": 1.0, "saturation": 1.0}}"#,
    ];

    fn spec(layer: &str, mismatch: f64, numbered: bool) -> Spec {
        let entry = format!(r#"{{"layer": {layer}, "noise": 0.0, "mismatch": {mismatch}}}"#);
        serde_json::from_str(&format!(r#"{{"layers": [{entry}], "seed": 3, "numbered": {numbered}}}"#)).unwrap()
    }

    #[test]
    fn an_outline_names_the_parameters_that_the_stack_has() {
        for layer in LAYERS {
            for (mismatch, numbered) in [(0.0, true), (0.1, false)] {
                let spec = spec(layer, mismatch, numbered);
                let stack = spec.build_for::<f64>().unwrap();
                assert_eq!(spec.outline().parameters, System::<f64>::specs(&stack), "{layer}");
            }
        }
    }

    #[test]
    fn sizes_beyond_all_memory_are_told_and_not_made() {
        for layer in LAYERS {
            let large = layer.replace(": 3,", ": 4294967295,").replace(": 5", ": 4294967295");
            let large = large.replace(": 3}", ": 4294967295}").replace(": 7", ": 4294967295");
            let found = spec(&large, 0.1, true).outline();
            let numbers =
                found.parameters.iter().map(|own| product(&own.shape)).fold(found.constants, u64::saturating_add);
            assert!(numbers >= 4_294_967_295 || layer.contains("width"), "{layer}: {numbers}");
        }
    }
}
