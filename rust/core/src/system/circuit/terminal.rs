//! Where terminals of elements and branches are.

use serde::{Deserialize, Serialize};

/// What a terminal is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// A free node, by number; the last ones are the outputs.
    Node(usize),
    /// An input, by number.
    Input(usize),
    /// A voltage: 0 is ground.
    Fixed(f64),
}

/// A terminal of an element: a place, and the voltage over it that a floating source adds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Terminal {
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// The voltage of the terminal over that of the place.
    #[serde(default)]
    pub offset: f64,
}

impl Terminal {
    /// A terminal at a free node.
    pub const fn node(node: usize) -> Self {
        Self { place: Place::Node(node), offset: 0.0 }
    }

    /// A terminal at an input.
    pub const fn input(input: usize) -> Self {
        Self { place: Place::Input(input), offset: 0.0 }
    }

    /// A terminal at a fixed voltage.
    pub const fn fixed(voltage: f64) -> Self {
        Self { place: Place::Fixed(voltage), offset: 0.0 }
    }

    /// The number of the free node.
    pub(super) fn free(self) -> Option<usize> {
        match self.place {
            Place::Node(node) => Some(node),
            Place::Input(_) | Place::Fixed(_) => None,
        }
    }

    /// The number of the input.
    pub(super) fn held_input(self) -> Option<usize> {
        match self.place {
            Place::Input(input) => Some(input),
            Place::Node(_) | Place::Fixed(_) => None,
        }
    }

    pub(super) fn voltage(self, x: &[f64], v: &[f64]) -> f64 {
        self.known()
            + match self.place {
                Place::Node(node) => v[node],
                Place::Input(input) => x[input],
                Place::Fixed(_) => 0.0,
            }
    }

    /// The part of the voltage that never changes.
    pub(super) fn known(self) -> f64 {
        match self.place {
            Place::Node(_) | Place::Input(_) => self.offset,
            Place::Fixed(voltage) => voltage + self.offset,
        }
    }
}
