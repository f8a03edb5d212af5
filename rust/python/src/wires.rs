//! Crossbars with resistive wires, by themselves.

use numpy::{PyArray1, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods};
use pnncore::analog::wires::{Nodal, Resistances, Wires};
use pnncore::{Error, memory};
use pyo3::prelude::*;

use crate::calls::{self, detached};
use crate::errors::{OrRaise, parse};

/// Checks the configuration of wires.
#[pyfunction]
pub(crate) fn check_wires(py: Python<'_>, wires: &str) -> PyResult<()> {
    parse::<Wires>(py, "wires", wires)?.check().or_raise(py)
}

/// Solves for all nodes: currents (samples, lines), voltages of row and column nodes (samples,
/// rows, columns), iterations.
#[pyfunction]
#[pyo3(signature = (conductances, voltages, resistances, turned, tolerance, threads))]
#[allow(clippy::type_complexity, reason = "what Python unpacks")]
pub(crate) fn solve_wires<'py>(
    py: Python<'py>,
    conductances: PyReadonlyArray2<'py, f64>,
    voltages: PyReadonlyArray2<'py, f64>,
    resistances: (f64, f64, f64, f64),
    turned: bool,
    tolerance: f64,
    threads: Option<usize>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, u32)> {
    let runtime = calls::runtime(py, threads, 0)?;
    let shape = (conductances.shape()[0], conductances.shape()[1]);
    // Voltages of both ends of every cell, and what the search for them keeps.
    let nodes = memory::product(&[voltages.shape()[0], shape.0, shape.1, 6 * size_of::<f64>()]);
    memory::check(nodes, || format!("the nodes of {} samples", voltages.shape()[0]))
        .or_raise(py)?;
    let (cells, drive) = (conductances.as_slice()?, voltages.as_slice()?);
    let found: Result<_, Error> = detached(py, || {
        runtime.enter(|| {
            let (row, column, driver, sense) = resistances;
            let resistances = Resistances { row, column, driver, sense };
            Nodal::solve(&runtime, (shape, cells), (drive, turned), resistances, tolerance)
        })
    })?;
    let Nodal { currents, rows, columns, iterations } = found.or_raise(py)?;
    let nodes = [voltages.shape()[0], shape.0, shape.1];
    let ends = [nodes[0], if turned { shape.0 } else { shape.1 }];
    let currents = PyArray1::from_vec(py, currents).reshape(ends)?.into_any();
    let shaped =
        |values: Vec<f64>| PyArray1::from_vec(py, values).reshape(nodes).map(Bound::into_any);
    Ok((currents, shaped(rows)?, shaped(columns)?, iterations))
}
