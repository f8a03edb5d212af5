//! Optical chips that are programmed.

use num_complex::Complex64;
use numpy::{PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pnncore::Error;
use pnncore::system::stack::{
    DiffractionSpec, FibreSpec, MZIMeshSpec, MeshTarget, MicroringSpec, Square, WaveguideSpec,
};
use pyo3::prelude::*;

use crate::errors::{OrRaise, parse};

/// The circuit of a mesh: how many waveguides there are, those that light goes into and comes out
/// of, and, column by column, the pairs that meet.
#[pyfunction]
#[allow(clippy::type_complexity, reason = "what Python unpacks")]
pub(crate) fn mesh_circuit(
    py: Python<'_>,
    mesh: &str,
) -> PyResult<(usize, Vec<usize>, Vec<usize>, Vec<Vec<[u32; 2]>>)> {
    let circuit = parse::<MZIMeshSpec>(py, "mesh", mesh)?.circuit().or_raise(py)?;
    let columns = circuit.columns().map(|column| circuit.pairs[column].to_vec()).collect();
    let (inputs, outputs) = (circuit.inputs.clone().collect(), circuit.outputs.clone().collect());
    Ok((circuit.waveguides, inputs, outputs, columns))
}

/// The settings theta, phi and gamma with which a mesh makes a unitary matrix; or, given two of
/// them and singular values, the product of the first one, these, and the second one.
#[pyfunction]
#[allow(clippy::type_complexity, reason = "what Python unpacks")]
pub(crate) fn program_mesh(
    py: Python<'_>,
    mesh: &str,
    matrices: Vec<PyReadonlyArray2<'_, Complex64>>,
    values: Vec<f64>,
) -> PyResult<(Vec<f64>, Vec<f64>, Vec<f64>)> {
    let mesh = parse::<MZIMeshSpec>(py, "mesh", mesh)?;
    let square = |matrix: &PyReadonlyArray2<'_, Complex64>| -> PyResult<Square> {
        Square::new(matrix.shape()[0], matrix.as_slice()?.to_vec()).or_raise(py)
    };
    let target = match matrices.as_slice() {
        [unitary] => MeshTarget::Unitary(square(unitary)?),
        [u, v] => MeshTarget::Factors(square(u)?, values, square(v)?),
        _ => {
            return Err(Error::Config("a mesh is programmed by one matrix, or two".into()))
                .or_raise(py);
        }
    };
    let [theta, phi, gamma] = mesh.program(&target).or_raise(py)?;
    Ok((theta, phi, gamma))
}

/// The detunings with which a bank of microrings has weights, bus by bus.
#[pyfunction]
pub(crate) fn program_rings(py: Python<'_>, bank: &str, weights: Vec<f64>) -> PyResult<Vec<f64>> {
    parse::<MicroringSpec>(py, "bank", bank)?.program(&weights).or_raise(py)
}

/// The numbers of rows and columns that the fields of a diffractive layer are padded to.
#[pyfunction]
pub(crate) fn padded_shape(py: Python<'_>, diffraction: &str) -> PyResult<[usize; 2]> {
    parse::<DiffractionSpec>(py, "diffraction", diffraction)?.padded_shape().or_raise(py)
}

/// The field in a waveguide, in the middle of every step, points after points.
#[pyfunction]
pub(crate) fn waveguide_field<'py>(
    py: Python<'py>,
    waveguide: &str,
    logits: Vec<f64>,
    x: PyReadonlyArray1<'py, Complex64>,
) -> PyResult<Bound<'py, PyArray1<Complex64>>> {
    let spec = parse::<WaveguideSpec>(py, "waveguide", waveguide)?;
    Ok(PyArray1::from_vec(py, spec.trace(&logits, x.as_slice()?).or_raise(py)?))
}

/// The field in time in a fibre, in the middle of every step, points after points.
#[pyfunction]
pub(crate) fn fibre_field<'py>(
    py: Python<'py>,
    fibre: &str,
    phases: Vec<f64>,
    x: PyReadonlyArray1<'py, Complex64>,
) -> PyResult<Bound<'py, PyArray1<Complex64>>> {
    let spec = parse::<FibreSpec>(py, "fibre", fibre)?;
    Ok(PyArray1::from_vec(py, spec.trace(&phases, x.as_slice()?).or_raise(py)?))
}
