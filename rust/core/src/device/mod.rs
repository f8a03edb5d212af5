//! Devices: what the material does with a wanted change of a parameter.
//!
//! A [`Device`] is written: every element is brought to the wanted value, as near as it can. A
//! [`CellArray`] is an array of cells that move by pulses, each in its own way.

mod array;
mod cells;
mod pulses;
mod store;
mod tile;
mod transfer;
mod unit;
mod written;

pub use array::Change;
pub use cells::{Law, Pulsed, Spread};
pub use pulses::{Kind, Trains};
pub use store::{CellArrays, Store};
pub use tile::{Algorithm, CellArray, TileSpec, UpdateKey};
pub use transfer::{Transfer, Version};
pub use unit::{Choice, Unit};
pub use written::Device;
