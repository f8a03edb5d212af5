//! Checkpoint files.

use std::path::PathBuf;

use numpy::{PyArrayDyn, PyArrayMethods, PyUntypedArrayMethods};
use pnncore::Error;
use pnncore::checkpoint::{Checkpoint, Tensor, TensorData};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::OrRaise;

/// Writes a checkpoint: JSON text of an object, and arrays by name.
#[pyfunction]
pub(crate) fn save(
    py: Python<'_>,
    path: PathBuf,
    metadata: &str,
    tensors: &Bound<'_, PyDict>,
) -> PyResult<()> {
    let metadata = serde_json::from_str(metadata)
        .map_err(|e| Error::Config(format!("metadata: {e}")))
        .or_raise(py)?;
    let mut checkpoint = Checkpoint { metadata, ..Checkpoint::default() };
    for (name, array) in tensors {
        let name: String = name.extract()?;
        let tensor = tensor(&array, &name)?;
        checkpoint.tensors.insert(name, tensor);
    }
    py.detach(|| checkpoint.write(path)).or_raise(py)
}

fn tensor(array: &Bound<'_, PyAny>, name: &str) -> PyResult<Tensor> {
    fn copy<T: numpy::Element + Clone>(
        array: &Bound<'_, PyArrayDyn<T>>,
    ) -> PyResult<(Vec<usize>, TensorData)>
    where
        TensorData: From<Vec<T>>,
    {
        Ok((array.shape().to_vec(), array.to_vec()?.into()))
    }
    let (shape, data) = if let Ok(a) = array.cast::<PyArrayDyn<f32>>() {
        copy(a)?
    } else if let Ok(a) = array.cast::<PyArrayDyn<f64>>() {
        copy(a)?
    } else if let Ok(a) = array.cast::<PyArrayDyn<i64>>() {
        copy(a)?
    } else if let Ok(a) = array.cast::<PyArrayDyn<u64>>() {
        copy(a)?
    } else {
        let text = format!("array {name} must be float32, float64, int64 or uint64");
        return Err(Error::Config(text)).or_raise(array.py());
    };
    Tensor::new(shape, data).or_raise(array.py())
}

/// Reads a checkpoint: JSON text, and arrays by name.
#[pyfunction]
pub(crate) fn load<'py>(py: Python<'py>, path: PathBuf) -> PyResult<(String, Bound<'py, PyDict>)> {
    let checkpoint = py.detach(|| Checkpoint::read(path)).or_raise(py)?;
    let tensors = PyDict::new(py);
    for (name, tensor) in checkpoint.tensors {
        let shape = tensor.shape;
        macro_rules! array {
            ($values:expr) => {
                tensors.set_item(name, numpy::PyArray1::from_vec(py, $values).reshape(shape)?)?
            };
        }
        match tensor.data {
            TensorData::F32(values) => array!(values),
            TensorData::F64(values) => array!(values),
            TensorData::I64(values) => array!(values),
            TensorData::U64(values) => array!(values),
            TensorData::U32(values) => array!(values),
            TensorData::U8(values) => array!(values),
            TensorData::Bool(values) => array!(values),
            _ => {
                return Err(Error::Checkpoint(format!(
                    "array {name} has a type that Python cannot read"
                )))
                .or_raise(py);
            }
        }
    }
    let text = serde_json::to_string(&checkpoint.metadata)
        .map_err(|e| Error::Checkpoint(e.to_string()))
        .or_raise(py)?;
    Ok((text, tensors))
}
