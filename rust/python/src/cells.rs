//! Cells that pulses move, by themselves.

use numpy::{PyArray1, PyArrayMethods, PyReadonlyArray1};
use pnncore::device::{CellArray, TileSpec};
use pnncore::{Error, memory};
use pyo3::prelude::*;

use crate::calls::{self, detached};
use crate::errors::{OrRaise, parse};

/// Sends single pulses to cells, up where they are positive: their states (pulses + 1, cells).
#[pyfunction]
pub(crate) fn pulse_response<'py>(
    py: Python<'py>,
    tile: &str,
    start: PyReadonlyArray1<'py, f64>,
    pulses: PyReadonlyArray1<'py, i8>,
    seed: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let spec: TileSpec = parse(py, "tile", tile)?;
    let runtime = calls::runtime(py, None, seed)?;
    let (start, pulses) = (start.as_slice()?, pulses.as_slice()?);
    let size = memory::product(&[pulses.len() + 1, start.len(), size_of::<f64>()]);
    memory::check(size, || format!("the states of cells after {} pulses", pulses.len()))
        .or_raise(py)?;
    let found: Result<_, Error> = detached(py, || {
        runtime.enter(|| {
            let cells = CellArray::<f64>::new(&spec, (1, start.len()), seed, 0)?;
            Ok(cells.respond(&runtime, pulses, start))
        })
    })?;
    let shape = [pulses.len() + 1, start.len()];
    Ok(PyArray1::from_vec(py, found.or_raise(py)?).reshape(shape)?.into_any())
}
