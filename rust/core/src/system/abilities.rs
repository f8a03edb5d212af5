//! What systems can do, and what methods ask of them.

use crate::{Error, Result};

/// Abilities of a system, as a set of flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Abilities(u32);

impl Abilities {
    /// Outputs alone: every system has them.
    pub const OUTPUTS: Self = Self(0);
    /// Layers that signals pass through.
    pub const LAYERS: Self = Self(1);
    /// Digital twins of all layers, whose derivatives answer errors.
    pub const TWINS: Self = Self(1 << 1);
    /// A last layer that is linear.
    pub const LINEAR_READOUT: Self = Self(1 << 2);
    /// Parameters that are phases, each once in the intensities that the system puts out.
    pub const PHASES: Self = Self(1 << 3);
    /// A local rule: a steady state that minimises an energy, and dE/dtheta that can be read.
    pub const LOCAL_RULE: Self = Self(1 << 4);
    /// A steady state that is holomorphic in the strength of nudging; complex plans are understood.
    pub const HOLOMORPHIC: Self = Self(1 << 5);
    /// Exact derivatives of the energy by the states: a simulation.
    pub const STATE_DERIVATIVES: Self = Self(1 << 6);
    /// A motion that can be run backwards, and a local rule that is read on the way.
    pub const ECHOES: Self = Self(1 << 7);
    /// Linear maps, the last of which errors of the outputs reach.
    pub const LINEAR_MAPS: Self = Self(1 << 8);

    /// A steady state that relaxation reaches: a minimum of an energy, or as stable as one.
    pub const RELAXATION: Self = Self(1 << 9);

    /// Outputs whose clamping raises the energy, so that contrasts with clamped states descend.
    pub const CLAMPING: Self = Self(1 << 10);

    /// Light in media whose transfer equals its transpose.
    pub const SYMMETRIC_LIGHT: Self = Self(1 << 11);

    /// What each ability is called, and what it is called after "needs".
    const WORDS: [(Self, &'static str, &'static str); 12] = [
        (Self::LAYERS, "layers", "layers that signals pass through (a Stack)"),
        (
            Self::TWINS,
            "twins",
            "layers that signals pass through, with twins that answer errors (a Stack)",
        ),
        (
            Self::LINEAR_READOUT,
            "linear-readout",
            "a last layer that is linear (a Stack that ends in Linear)",
        ),
        (
            Self::PHASES,
            "phases",
            "phases for parameters, and intensities for outputs (a Stack whose only layer with \
             parameters is a last Speckle, or light such as MZIMesh before Detect)",
        ),
        (
            Self::SYMMETRIC_LIGHT,
            "symmetric-light",
            "light in media whose transfer equals its transpose (a Stack with Diffraction)",
        ),
        (Self::LOCAL_RULE, "local-rule", "a steady state that minimises an energy"),
        (
            Self::HOLOMORPHIC,
            "holomorphic",
            "an energy that is holomorphic in its states (smooth units, such as \
             activation=\"tanh\")",
        ),
        (
            Self::STATE_DERIVATIVES,
            "state-derivatives",
            "exact derivatives of the energy, which only a simulation has",
        ),
        (
            Self::LINEAR_MAPS,
            "linear-maps",
            "linear maps, behind the last of which every layer has derivatives (a Stack with a \
             Linear or a Crossbar near its end)",
        ),
        (
            Self::RELAXATION,
            "relaxation",
            "a steady state that relaxation reaches (currents and differences that are outputs of \
             a Circuit make it a saddle point)",
        ),
        (
            Self::CLAMPING,
            "clamping",
            "outputs whose clamping raises the energy (that of a current lowers it)",
        ),
        (Self::ECHOES, "echoes", "a motion that can be run backwards (a Hamiltonian system)"),
    ];

    /// The ability of this name.
    ///
    /// # Errors
    /// [`Error::Config`] with the names of all.
    pub fn named(name: &str) -> Result<Self> {
        let found = Self::WORDS.iter().find(|(_, own, _)| *own == name);
        found.map(|(ability, ..)| *ability).ok_or_else(|| {
            let known: Vec<&str> = Self::WORDS.iter().map(|(_, own, _)| *own).collect();
            Error::Config(format!("unknown ability {name:?}, expected one of {}", known.join(", ")))
        })
    }

    /// These abilities and others.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These abilities, and others where `has` is true.
    #[must_use]
    pub const fn and_if(self, has: bool, other: Self) -> Self {
        if has { self.and(other) } else { self }
    }

    /// Whether all of `others` are among them.
    pub const fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// All of them in words, after "needs".
    pub fn words(self) -> String {
        if self == Self::OUTPUTS { "outputs".into() } else { self.missing_from(Self::OUTPUTS) }
    }

    /// Those that are not among `others`, in words.
    pub fn missing_from(self, others: Self) -> String {
        let missing = Self::WORDS.iter().filter(|(one, ..)| self.has(*one) && !others.has(*one));
        missing.map(|(.., words)| *words).collect::<Vec<_>>().join(" and ")
    }
}
