//! Exceptions of the user's code on their way through the core.

use std::sync::{Arc, Mutex, PoisonError};

use pnncore::Error;
use pyo3::prelude::*;

/// Where the last exception of the user's code is kept while an [`Error::Hardware`] travels in its
/// place.
#[derive(Clone, Default)]
pub(crate) struct Raised(Arc<Mutex<Option<PyErr>>>);

impl Raised {
    /// The exception that made an experiment fail, once.
    pub(crate) fn take(&self) -> Option<PyErr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps an exception, and gives the error that stands for it.
    pub(crate) fn keep(&self, name: &str, error: PyErr) -> Error {
        let text = format!("{name}: {error}");
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        Error::Hardware(text)
    }
}
