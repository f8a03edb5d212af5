//! The Python module `pnncore._core`: conversion, errors, release of the GIL. No physics.

mod arrays;
mod calls;
mod cells;
mod errors;
mod experiment;
mod files;
mod foreign;
mod journal;
mod lent;
mod light;
mod own_method;
mod raised;
mod run;
mod system;
mod training;
mod user;
mod wires;

use pyo3::prelude::*;

/// The compiled core of pnncore. Not a public interface: see the package `pnncore`.
#[pymodule]
mod _core {
    #[pymodule_export]
    use super::calls::{after_fork, after_fork_in_child, before_fork, close, note_main};
    #[pymodule_export]
    use super::cells::pulse_response;
    #[pymodule_export]
    use super::experiment::{Pass, Phases, loss, run_pass, run_phases, send_back};
    #[pymodule_export]
    use super::files::{load, save};
    #[pymodule_export]
    use super::journal::{Journal, salvage};
    #[pymodule_export]
    use super::light::{
        fibre_field, mesh_circuit, padded_shape, program_mesh, program_rings, waveguide_field,
    };
    #[pymodule_export]
    use super::run::{
        check_device, check_method, check_optimizer, check_pair, check_tile, clip, currents,
        fields, goodness_direction, gradient, info, initialise_memory, measure, methods,
        no_progress, permutation, predict, settle, vjp,
    };
    #[pymodule_export]
    use super::system::System;
    #[pymodule_export]
    use super::training::{finish_epoch, train};
    #[pymodule_export]
    use super::wires::{check_wires, solve_wires};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(m: &Bound<'_, PyModule>) -> PyResult<()> {
        // The interface of NumPy is looked up now: a signal in the first call would be taken for
        // its absence.
        numpy::PyArray1::<f64>::zeros(m.py(), 0, false);
        m.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
