//! Signals: what goes into systems and layers, and what comes out.

use std::fmt;

/// A signal: the values that are there at once, for a number of steps in time.
///
/// A row of a complex signal holds the real parts of all its values, step by step, and then the
/// imaginary parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    /// How many steps in time; one where there is no time.
    pub steps: usize,
    /// How many values at once.
    pub width: usize,
    /// Whether values are complex amplitudes of a field, which nothing measures.
    pub complex: bool,
}

impl Signal {
    /// So many real values.
    pub const fn real(width: usize) -> Self {
        Self { steps: 1, width, complex: false }
    }

    /// So many complex amplitudes.
    pub const fn complex(width: usize) -> Self {
        Self { steps: 1, width, complex: true }
    }

    /// How many numbers a row of it is.
    pub const fn numbers(self) -> usize {
        let parts = if self.complex { 2 } else { 1 };
        self.steps.saturating_mul(self.width).saturating_mul(parts)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps > 1 {
            write!(f, "{} steps of ", self.steps)?;
        }
        let plural = if self.width == 1 { "" } else { "s" };
        write!(
            f,
            "{} {}{plural}",
            self.width,
            if self.complex { "complex amplitude" } else { "real value" }
        )
    }
}
