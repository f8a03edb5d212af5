//! The one error type of the core.

/// Result of a fallible operation of the core.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Every message names the argument, what it got and what it needs.
///
/// Numerical outcomes (did not converge, diverged, unbounded) are no errors: they are a status in
/// the result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An array has the wrong shape.
    #[error("{0}")]
    Shape(String),
    /// A setting is out of range, or its name is unknown.
    #[error("{0}")]
    Config(String),
    /// Data hold NaN, infinity or labels out of range, or a data file is damaged.
    #[error("{0}")]
    Data(String),
    /// The method needs an ability that the system does not have.
    #[error("{0}")]
    Capability(String),
    /// A device or a user's system failed.
    #[error("{0}")]
    Hardware(String),
    /// A checkpoint is damaged, foreign, or does not fit.
    #[error("{0}")]
    Checkpoint(String),
    /// A journal is damaged, foreign, in use, or does not fit.
    #[error("{0}")]
    Journal(String),
    /// A mistake in this library: a panic that was caught.
    #[error("internal error, please report it: {0}")]
    Internal(String),
    /// The operating system refused a file operation.
    #[error("{op} {path}: {message}")]
    Io {
        /// What was tried, for instance `write`.
        op: &'static str,
        /// The path it was tried on.
        path: String,
        /// The operating system's number of the error, where there is one.
        errno: Option<i32>,
        /// The operating system's description.
        message: String,
    },
}
