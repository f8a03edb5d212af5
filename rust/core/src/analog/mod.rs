//! Analog arrays: how they are read, by converters and with noise, and what their wires do.
//!
//! Devices, which read fast arrays to transfer them, and the layers of stacks stand on this.

pub(crate) mod codes;
pub mod io;
pub mod wires;
