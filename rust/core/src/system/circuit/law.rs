//! What a two-terminal element does: its current at a voltage, and what follows from it.

use serde::{Deserialize, Serialize};

/// The law of an element. V is the voltage of its first terminal over its second, I the current that flows through it from
/// the first to the second, and theta its value: the parameter that may be trained.
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
    /// I = theta.
    CurrentSource,
}

impl Law {
    /// Whether the current is theta times a number plus theta times the voltage.
    pub(super) fn is_linear(self) -> bool {
        matches!(self, Self::Resistor | Self::CurrentSource)
    }

    /// Whether the element joins its terminals, so that the voltage of one says something of that of the other.
    pub(super) fn conducts(self) -> bool {
        matches!(self, Self::Resistor | Self::Cubic { .. } | Self::Diode { .. })
    }

    /// Whether theta is a conductance, which cannot be negative.
    pub(super) fn is_conductance(self) -> bool {
        matches!(self, Self::Resistor | Self::Cubic { .. })
    }

    /// Whether the law has a theta.
    pub(super) fn has_value(self) -> bool {
        self.is_conductance() || self == Self::CurrentSource
    }

    /// I.
    pub fn current(self, theta: f64, v: f64) -> f64 {
        match self {
            Self::Resistor => theta * v,
            Self::Cubic { scale } => theta * v * (1.0 + (v / scale) * (v / scale)),
            Self::Diode { saturation, slope } => saturation * (v / slope).exp_m1(),
            Self::IdealDiode => 0.0,
            Self::CurrentSource => theta,
        }
    }

    /// dI/dV.
    pub fn conductance(self, theta: f64, v: f64) -> f64 {
        match self {
            Self::Resistor => theta,
            Self::Cubic { scale } => theta * (1.0 + 3.0 * (v / scale) * (v / scale)),
            Self::Diode { saturation, slope } => saturation / slope * (v / slope).exp(),
            Self::IdealDiode | Self::CurrentSource => 0.0,
        }
    }

    /// The co-content: the integral of I over V from 0.
    pub fn content(self, theta: f64, v: f64) -> f64 {
        match self {
            Self::Resistor => 0.5 * theta * v * v,
            Self::Cubic { scale } => theta * v * v * (0.5 + 0.25 * (v / scale) * (v / scale)),
            Self::Diode { saturation, slope } => saturation * slope * exp_m1_minus(v / slope),
            Self::IdealDiode => 0.0,
            Self::CurrentSource => theta * v,
        }
    }

    /// The voltage at which the conductance of a diode reaches `cap`; infinite for laws that grow no faster than powers.
    pub(super) fn knee(self, cap: f64) -> f64 {
        match self {
            Self::Diode { saturation, slope } => slope * (cap * slope / saturation).max(1.0).ln(),
            _ => f64::INFINITY,
        }
    }

    /// Content, current and conductance, beyond the voltage `knee` along the tangent to the current there.
    pub(super) fn tangent(self, theta: f64, v: f64, knee: f64) -> [f64; 3] {
        if v <= knee {
            return [self.content(theta, v), self.current(theta, v), self.conductance(theta, v)];
        }
        let (beyond, conductance) = (v - knee, self.conductance(theta, knee));
        let current = self.current(theta, knee);
        let content = self.content(theta, knee) + beyond * (current + 0.5 * conductance * beyond);
        [content, current + conductance * beyond, conductance]
    }

    /// The derivative of the co-content by theta.
    pub fn sensitivity(self, v: f64) -> f64 {
        if self.has_value() { self.content(1.0, v) } else { 0.0 }
    }
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
        let laws =
            [Law::Resistor, Law::Cubic { scale: 0.7 }, Law::Diode { saturation: 1e-3, slope: 0.3 }, Law::CurrentSource];
        for law in laws {
            for v in [-1.3, -1e-3, 0.0, 2e-3, 0.4, 1.1] {
                let (theta, h) = (0.8, 1e-5);
                let slope = |f: &dyn Fn(f64) -> f64| (f(v + h) - f(v - h)) / (2.0 * h);
                let current = slope(&|v| law.content(theta, v));
                assert!((current - law.current(theta, v)).abs() < 1e-9, "{law:?} at {v}");
                let conductance = slope(&|v| law.current(theta, v));
                assert!((conductance - law.conductance(theta, v)).abs() < 1e-8, "{law:?} at {v}");
                let sensitivity = (law.content(theta + h, v) - law.content(theta - h, v)) / (2.0 * h);
                assert!((sensitivity - law.sensitivity(v)).abs() < 1e-9, "{law:?} at {v}");
                assert_eq!(law.content(theta, 0.0), 0.0);
                let tangent = |v: f64| law.tangent(theta, v, 0.3);
                for k in 0..2 {
                    let difference = slope(&|v| tangent(v)[k]);
                    assert!((difference - tangent(v)[k + 1]).abs() < 1e-8, "{law:?} at {v}");
                }
            }
        }
        assert!((exp_m1_minus(1e-2) - exp_m1_minus(0.009_999_999_999)).abs() < 1e-12);
    }
}
