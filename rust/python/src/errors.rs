//! Errors of the core as the exceptions of `pnncore.errors`.

use pnncore::Error;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// The exception for an error of the core.
pub(crate) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    let class = match error {
        Error::Shape(_) => "ShapeError",
        Error::Config(_) => "ConfigError",
        Error::Data(_) => "DataError",
        Error::Capability(_) => "CapabilityError",
        Error::Hardware(_) => "HardwareError",
        Error::Checkpoint(_) => "CheckpointError",
        Error::Journal(_) => "JournalError",
        Error::Io { path, errno, message, .. } => {
            return match errno {
                Some(errno) => PyOSError::new_err((*errno, message.clone(), path.clone())),
                None => PyOSError::new_err(error.to_string()),
            };
        }
        _ => "PnnError",
    };
    let make = || -> PyResult<PyErr> {
        let class = py.import("pnncore.errors")?.getattr(class)?.cast_into::<PyType>()?;
        Ok(PyErr::from_type(class, error.to_string()))
    };
    make().unwrap_or_else(|failed| failed)
}

/// Turns errors of the core into exceptions with `?`.
pub(crate) trait OrRaise<T> {
    /// The value, or the exception.
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for Result<T, Error> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| exception(py, &error))
    }
}

/// What a text in JSON describes.
pub(crate) fn parse<C: serde::de::DeserializeOwned>(
    py: Python<'_>,
    what: &str,
    json: &str,
) -> PyResult<C> {
    serde_json::from_str(json).map_err(|e| Error::Config(format!("{what}: {e}"))).or_raise(py)
}
