//! What a two-terminal element does: its current at a voltage, and what follows from it.

use serde::{Deserialize, Serialize};

use super::lanes::Lanes;

/// The law of an element. V is the voltage of its first terminal over its second, I the current
/// that flows through it from the first to the second, and theta its value: the parameter that may
/// be trained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "law", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Law {
    /// I = theta V.
    Resistor,
    /// I = theta V (1 + (V / scale)^2).
    Cubic {
        /// The voltage at which the cubic term equals the linear one.
        scale: f64,
    },
    /// I = saturation (exp(V / slope) - 1), from anode to cathode.
    Diode {
        /// The saturation current.
        saturation: f64,
        /// The ideality factor times the thermal voltage.
        slope: f64,
    },
    /// V <= 0; the current is whatever keeps it so, from anode to cathode.
    IdealDiode,
    /// A field-effect transistor (Shichman and Hodges 1968) between drain and source, which may
    /// change places; theta is the voltage of its gate over ground. With a = theta - threshold and
    /// V1, V2 the voltages of the terminals over ground, I = strength / 2 (max(a - V2, 0)^2 -
    /// max(a - V1, 0)^2): while both are below a, a conductance strength (a - (V1 + V2) / 2).
    Transistor {
        /// The conductance per volt of the gate.
        strength: f64,
        /// The voltage of the gate over a terminal below which nothing flows out of it.
        threshold: f64,
    },
    /// I = theta.
    CurrentSource,
}

impl Law {
    /// Whether the current is theta times a number plus theta times the voltage.
    pub(super) fn is_linear(self) -> bool {
        matches!(self, Self::Resistor | Self::CurrentSource)
    }

    /// Whether the element joins its terminals, so that the voltage of one says something of that
    /// of the other.
    pub(super) fn conducts(self) -> bool {
        matches!(
            self,
            Self::Resistor | Self::Cubic { .. } | Self::Diode { .. } | Self::Transistor { .. }
        )
    }

    /// Whether theta is a conductance, which cannot be negative.
    pub(super) fn is_conductance(self) -> bool {
        matches!(self, Self::Resistor | Self::Cubic { .. })
    }

    /// Whether the law has a theta.
    pub(super) fn has_value(self) -> bool {
        self.is_conductance() || matches!(self, Self::CurrentSource | Self::Transistor { .. })
    }

    /// The name of the parameter that theta is an element of.
    pub(super) fn parameter(self) -> &'static str {
        match self {
            Self::CurrentSource => "i",
            Self::Transistor { .. } => "gate",
            _ => "g",
        }
    }

    /// Whether the current depends on the voltage alone, so that there is a co-content.
    pub(super) fn is_reciprocal(self) -> bool {
        !matches!(self, Self::Transistor { .. })
    }

    /// I, of laws of the voltage alone.
    pub fn current(self, theta: f64, v: f64) -> f64 {
        match self {
            Self::Resistor => theta * v,
            Self::Cubic { scale } => theta * v * (1.0 + (v / scale) * (v / scale)),
            Self::Diode { saturation, slope } => saturation * (v / slope).exp_m1(),
            Self::IdealDiode | Self::Transistor { .. } => 0.0,
            Self::CurrentSource => theta,
        }
    }

    /// dI/dV.
    pub fn conductance(self, theta: f64, v: f64) -> f64 {
        match self {
            Self::Resistor => theta,
            Self::Cubic { scale } => theta * (1.0 + 3.0 * (v / scale) * (v / scale)),
            Self::Diode { saturation, slope } => saturation / slope * (v / slope).exp(),
            Self::IdealDiode | Self::CurrentSource | Self::Transistor { .. } => 0.0,
        }
    }

    /// The co-content: the integral of I over V from 0.
    pub fn content(self, theta: f64, v: f64) -> f64 {
        match self {
            Self::Resistor => 0.5 * theta * v * v,
            Self::Cubic { scale } => theta * v * v * (0.5 + 0.25 * (v / scale) * (v / scale)),
            Self::Diode { saturation, slope } => saturation * slope * exp_m1_minus(v / slope),
            Self::IdealDiode | Self::Transistor { .. } => 0.0,
            Self::CurrentSource => theta * v,
        }
    }

    /// The voltage at which the conductance of a diode reaches `cap`; infinite for laws that grow
    /// no faster than powers.
    pub(super) fn knee(self, cap: f64) -> f64 {
        match self {
            Self::Diode { saturation, slope } => slope * (cap * slope / saturation).max(1.0).ln(),
            _ => f64::INFINITY,
        }
    }

    /// Content, current and derivatives of the current at these voltages of the terminals; from the
    /// drop `knee` on along the tangent to the current there.
    pub(super) fn respond(self, theta: f64, ends: [f64; 2], knee: f64) -> Response {
        if let Self::Transistor { strength, threshold } = self {
            let [here, there] = ends.map(|v| (theta - threshold - v).max(0.0));
            let current = 0.5 * strength * (there - here) * (there + here);
            return Response { content: 0.0, current, slopes: [strength * here, strength * there] };
        }
        let v = ends[0] - ends[1];
        let (at, beyond) = (v.min(knee), (v - knee).max(0.0));
        let (current, conductance) = (self.current(theta, at), self.conductance(theta, at));
        Response {
            content: self.content(theta, at) + beyond * (current + 0.5 * conductance * beyond),
            current: current + conductance * beyond,
            slopes: [conductance; 2],
        }
    }

    /// The local rule: the derivative of the co-content by theta. For a transistor, half its
    /// strength times the square of the voltage along its channel, which is that voltage as far as
    /// the gate holds it open.
    pub fn sensitivity(self, theta: f64, ends: [f64; 2]) -> f64 {
        match self {
            Self::Transistor { strength, .. } => 0.5 * strength * self.channel(theta, ends).powi(2),
            _ if self.has_value() => self.content(1.0, ends[0] - ends[1]),
            _ => 0.0,
        }
    }

    /// The derivative of the current by theta.
    pub(super) fn current_sensitivity(self, theta: f64, ends: [f64; 2]) -> f64 {
        match self {
            Self::Transistor { strength, .. } => strength * self.channel(theta, ends),
            _ if self.has_value() => self.current(1.0, ends[0] - ends[1]),
            _ => 0.0,
        }
    }

    /// [`Self::sensitivity`] at the voltages of many rows.
    pub(super) fn sensitivities(self, theta: f64, from: &Lanes, to: &Lanes) -> Lanes {
        // Nearly all elements are resistors, and this is most of the work of a large network's
        // update.
        if self == Self::Resistor {
            return std::array::from_fn(|k| 0.5 * (from[k] - to[k]) * (from[k] - to[k]));
        }
        std::array::from_fn(|k| self.sensitivity(theta, [from[k], to[k]]))
    }

    /// [`Self::current_sensitivity`] at the voltages of many rows.
    pub(super) fn current_sensitivities(self, theta: f64, from: &Lanes, to: &Lanes) -> Lanes {
        std::array::from_fn(|k| self.current_sensitivity(theta, [from[k], to[k]]))
    }

    /// The voltage along the channel of a transistor.
    fn channel(self, theta: f64, ends: [f64; 2]) -> f64 {
        let Self::Transistor { threshold, .. } = self else { return 0.0 };
        let [here, there] = ends.map(|v| v.min(theta - threshold));
        here - there
    }
}

/// What an element does at the voltages of its terminals.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Response {
    /// The co-content, where there is one.
    pub(super) content: f64,
    pub(super) current: f64,
    /// How fast the current grows with the voltage of the first terminal, and falls with that of
    /// the second.
    pub(super) slopes: [f64; 2],
}

/// exp(u) - 1 - u.
fn exp_m1_minus(u: f64) -> f64 {
    if u.abs() < 1e-2 {
        u * u * (0.5 + u * (1.0 / 6.0 + u * (1.0 / 24.0 + u * (1.0 / 120.0 + u / 720.0))))
    } else {
        u.exp_m1() - u
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laws_are_derivatives_of_each_other() {
        let laws = [
            Law::Resistor,
            Law::Cubic { scale: 0.7 },
            Law::Diode { saturation: 1e-3, slope: 0.3 },
            Law::CurrentSource,
        ];
        for law in laws {
            for v in [-1.3, -1e-3, 0.0, 2e-3, 0.4, 1.1] {
                let (theta, h) = (0.8, 1e-5);
                let slope = |f: &dyn Fn(f64) -> f64| (f(v + h) - f(v - h)) / (2.0 * h);
                let current = slope(&|v| law.content(theta, v));
                assert!((current - law.current(theta, v)).abs() < 1e-9, "{law:?} at {v}");
                let conductance = slope(&|v| law.current(theta, v));
                assert!((conductance - law.conductance(theta, v)).abs() < 1e-8, "{law:?} at {v}");
                let sensitivity =
                    (law.content(theta + h, v) - law.content(theta - h, v)) / (2.0 * h);
                assert!(
                    (sensitivity - law.sensitivity(theta, [v, 0.0])).abs() < 1e-9,
                    "{law:?} at {v}"
                );
                assert_eq!(law.content(theta, 0.0), 0.0);
                let tangent = |v: f64| law.respond(theta, [v + 0.2, 0.2], 0.3);
                let (current, conductance) =
                    (slope(&|v| tangent(v).content), slope(&|v| tangent(v).current));
                assert!((current - tangent(v).current).abs() < 1e-8, "{law:?} at {v}");
                assert!((conductance - tangent(v).slopes[0]).abs() < 1e-8, "{law:?} at {v}");
            }
        }
        assert!((exp_m1_minus(1e-2) - exp_m1_minus(0.009_999_999_999)).abs() < 1e-12);
    }
    #[test]
    fn transistors_conduct_saturate_and_block() {
        let law = Law::Transistor { strength: 0.4, threshold: 0.5 };
        let current =
            |theta: f64, a: f64, b: f64| law.respond(theta, [a, b], f64::INFINITY).current;
        // The triode formula of the learning literature, K = S (V_G - (V1 + V2) / 2 - V_th).
        assert!((current(3.0, 0.9, -0.2) - 0.4 * (3.0 - 0.35 - 0.5) * 1.1).abs() < 1e-15);
        assert!((current(1.0, 2.0, 0.0) - 0.5 * 0.4 * 0.25).abs() < 1e-15);
        assert_eq!(current(1.0, 2.0, 0.6), 0.0);
        assert_eq!(current(3.0, 0.9, -0.2), -current(3.0, -0.2, 0.9));
        let h = 1e-6;
        for (theta, a, b) in [(3.0, 0.9, -0.2), (1.0, 2.0, 0.0), (1.0, -0.3, 0.8), (0.2, 1.0, 0.6)]
        {
            let [here, there] = law.respond(theta, [a, b], f64::INFINITY).slopes;
            assert!(
                (here - (current(theta, a + h, b) - current(theta, a - h, b)) / (2.0 * h)).abs()
                    < 1e-9
            );
            assert!(
                (there + (current(theta, a, b + h) - current(theta, a, b - h)) / (2.0 * h)).abs()
                    < 1e-9
            );
            let by_theta = (current(theta + h, a, b) - current(theta - h, a, b)) / (2.0 * h);
            assert!((law.current_sensitivity(theta, [a, b]) - by_theta).abs() < 1e-9);
        }
    }
}
