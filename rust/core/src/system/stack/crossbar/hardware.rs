//! What the arrays of a crossbar are like.

use serde::{Deserialize, Serialize};

use crate::analog::io::{Io, Scale};
use crate::analog::wires::Wires;
use crate::{Error, Result};

/// What shares a digital scale, by which weights are brought to -1 to 1 before they are held by an
/// array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remap {
    /// The weights of an array.
    Array,
    /// Those of a column of an array.
    Columns,
}

/// In what precision weights are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadPrecision {
    /// As integers of seven bits and a sign, of which the largest is that of the largest weight of
    /// an array.
    Int8,
}

/// What the hardware of a linear map is like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// The most rows and columns of an array.
    pub most: (usize, usize),
    /// How the arrays are read.
    pub io: Io,
    /// How their transposes are read.
    pub backward: Io,
    /// What is between the cells; `None`: nothing.
    pub wires: Option<Wires>,
    /// What shares a digital scale; `None`: weights are held as they are.
    pub remap: Option<Remap>,
    /// In what precision weights are read; `None`: in that of the stack.
    #[serde(default)]
    pub precision: Option<ReadPrecision>,
}

impl Hardware {
    /// Checks the ranges of all settings.
    ///
    /// # Errors
    /// [`Error::Config`], naming the setting.
    pub fn check(&self) -> Result<()> {
        self.io.check()?;
        self.backward.check()?;
        self.wires.as_ref().map_or(Ok(()), Wires::check)?;
        if self.most.0 == 0 || self.most.1 == 0 {
            return Err(Error::Config(format!(
                "arrays must have at least one row and one column, got {:?}",
                self.most
            )));
        }
        if self.backward.scale == Scale::Learned {
            return Err(Error::Config(
                "only the range of inputs is learned: give backward a scale of its own".into(),
            ));
        }
        if self.remap.is_some() && self.wires.is_some() {
            return Err(Error::Config(
                "wires map weights to conductances themselves: leave remap out".into(),
            ));
        }
        if self.precision.is_some() {
            self.io.check_integers()?;
            self.backward.check_integers()?;
            if self.wires.is_some() {
                return Err(Error::Config(
                    "what wires make of weights is no integer: leave precision out, or wires"
                        .into(),
                ));
            }
        }
        Ok(())
    }
}
