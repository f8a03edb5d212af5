//! Checkpoints: named arrays and a JSON object in one file that cannot be half written or misread.
//!
//! # Format
//!
//! A checkpoint is a [safetensors](https://huggingface.co/docs/safetensors) file, so that any
//! safetensors library can open it. Its `__metadata__` has three keys:
//!
//! - `pnncore`: the version of this format, [`FORMAT_VERSION`];
//! - `metadata`: the JSON object, keys sorted, no white space;
//! - `digest`: SHA-256 in hexadecimal of the concatenation of: the text `pnncore-checkpoint-1` and
//!   a newline; the number of tensors; for each tensor in the order of its name's bytes the name's
//!   length and bytes, the data type's length and bytes (`F32`), the rank, the dimensions, and the
//!   SHA-256 (32 bytes) of its data; the JSON text's length and bytes. Numbers are little-endian
//!   `u64`.
//!
//! Equal content gives equal bytes. Other keys are allowed and ignored; other data types than those
//! of [`TensorData`] are not. Complex arrays are stored with a last axis of two.
//!
//! # Writing
//!
//! [`Checkpoint::write`] replaces a file such that a kill or a power cut at any instant leaves a
//! complete old or new checkpoint under its name. Once it has returned without an error, the new
//! one stays. The one before is kept under the name that [`previous_path`] gives.
//!
//! # Reading
//!
//! [`Checkpoint::read`] gives exactly what was written, or an error. Nothing in the file is
//! believed before it is checked: no declared length is allocated unless the file is that long, and
//! nothing is executed.
//!
//! ```
//! # fn main() -> pnncore::Result<()> {
//! use pnncore::checkpoint::{Checkpoint, Tensor};
//!
//! let mut checkpoint = Checkpoint::default();
//! checkpoint.metadata.insert("epoch".into(), 3.into());
//! checkpoint.tensors.insert("w".into(), Tensor::new(vec![2, 2], vec![1.0_f32, 2.0, 3.0, 4.0])?);
//!
//! # let dir = tempfile::tempdir().unwrap();
//! let path = dir.path().join("run.pnn");
//! checkpoint.write(&path)?;
//! assert_eq!(Checkpoint::read(&path)?, checkpoint);
//! # Ok(())
//! # }
//! ```

mod decode;
mod encode;
mod replace;
pub mod storage;
mod tensor;

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::io;
use std::path::Path;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{Error, Result};
use storage::{Disk, Storage};

pub use replace::previous_path;
pub use tensor::{Tensor, TensorData};

/// The version of the file format that this crate writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// The longest header, which holds the JSON text too. It bounds the memory that a hostile header
/// can cost.
pub const MAX_HEADER_BYTES: u64 = 8 << 20;

/// The largest file that is written or read (64 GiB).
pub const MAX_FILE_BYTES: u64 = 64 << 30;

/// The most dimensions of a tensor.
pub const MAX_RANK: usize = 32;

/// The deepest nesting of the JSON object.
pub const MAX_JSON_DEPTH: usize = 64;

/// Keys of the safetensors `__metadata__`.
const METADATA: &str = "__metadata__";
const KEY_VERSION: &str = "pnncore";
const KEY_JSON: &str = "metadata";
const KEY_DIGEST: &str = "digest";

/// Length of the field before the header, which holds the header's length.
const PREFIX: u64 = 8;

/// Bytes that are converted, hashed, and read or written at a time.
const CHUNK: usize = 1 << 18;

/// The content of one checkpoint file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checkpoint {
    /// The JSON object: settings, counters, seeds. Long lists belong in [`tensors`](Self::tensors).
    pub metadata: Map<String, Value>,
    /// The arrays by name. Any name but `__metadata__`.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    /// Writes the checkpoint to `path`, replacing what is there only when the new one is complete
    /// and on the disk.
    ///
    /// What was at `path` is kept at [`previous_path`]. The new file has its permissions and, as
    /// far as allowed, its owner; without an old one, those of any new file. A symbolic link is
    /// followed, to a file that need not exist yet; what is no file (a directory, a pipe, a device)
    /// is refused and left alone. Temporary files that killed writers of the same `path` left
    /// behind are removed.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if the content cannot be stored: a shape that does not fit its data,
    /// too large, too deeply nested. [`Error::Io`] if the operating system refuses; then the
    /// temporary file is removed and `path` is untouched, unless the operation is `fsync
    /// directory`: then the new checkpoint is complete and in place, but may not survive a power
    /// cut.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        self.write_to(&Disk, path.as_ref())
    }

    /// [`write`](Self::write) to any [`Storage`].
    ///
    /// # Errors
    ///
    /// Those of [`write`](Self::write).
    pub fn write_to(&self, storage: &dyn Storage, path: &Path) -> Result<()> {
        let plan = self.plan().map_err(|reason| refusal(path.display(), &reason))?;
        replace::replace(storage, path, &mut |out| plan.emit(&mut |bytes| out.write_all(bytes)))
    }

    /// Reads the checkpoint at `path` into memory of its own; the file is not kept open or mapped.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if the file is foreign, truncated, damaged or of a newer version.
    /// [`Error::Io`] if it cannot be opened or read.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::read_from(&Disk, path.as_ref())
    }

    /// [`read`](Self::read) from any [`Storage`].
    ///
    /// # Errors
    ///
    /// Those of [`read`](Self::read).
    pub fn read_from(storage: &dyn Storage, path: &Path) -> Result<Self> {
        let (mut file, len) = storage.open(path).map_err(|e| io_error("open", path, &e))?;
        decode::decode(&mut *file, len).map_err(|failure| match failure {
            decode::Failure::Refused(reason) => refusal(path.display(), &reason),
            decode::Failure::Io(e) => io_error("read", path, &e),
        })
    }

    /// The bytes that [`write`](Self::write) puts into the file.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if the content cannot be stored.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let plan = self.plan().map_err(|reason| refusal("checkpoint", &reason))?;
        let mut bytes = Vec::new();
        plan.emit(&mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })
        .map_err(|e| io_error("write", Path::new("memory"), &e))?;
        Ok(bytes)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) gave.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if the bytes are foreign, truncated, damaged or of a newer version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        decode::decode(&mut &*bytes, bytes.len() as u64).map_err(|failure| match failure {
            decode::Failure::Refused(reason) => refusal("checkpoint", &reason),
            decode::Failure::Io(e) => io_error("read", Path::new("memory"), &e),
        })
    }

    fn plan(&self) -> Result<encode::Plan<'_>, String> {
        encode::Plan::new(&self.metadata, &self.tensors)
    }
}

/// What the digest says of one tensor.
struct Summary<'a> {
    name: &'a str,
    dtype: &'a str,
    shape: &'a [usize],
    data: [u8; 32],
}

/// The digest of a checkpoint whose tensors come in the order of their names.
fn digest<'a>(tensors: impl ExactSizeIterator<Item = Summary<'a>>, json: &str) -> String {
    let mut hash = Sha256::new();
    let number = |hash: &mut Sha256, n: usize| hash.update((n as u64).to_le_bytes());
    let text = |hash: &mut Sha256, s: &str| {
        number(hash, s.len());
        hash.update(s);
    };
    hash.update(format!("pnncore-checkpoint-{FORMAT_VERSION}\n"));
    number(&mut hash, tensors.len());
    for tensor in tensors {
        text(&mut hash, tensor.name);
        text(&mut hash, tensor.dtype);
        number(&mut hash, tensor.shape.len());
        for &dim in tensor.shape {
            number(&mut hash, dim);
        }
        hash.update(tensor.data);
    }
    text(&mut hash, json);
    let mut hex = String::with_capacity(64);
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

fn refusal(place: impl Display, reason: &str) -> Error {
    Error::Checkpoint(format!("{place}: {reason}"))
}

fn io_error(op: &'static str, path: &Path, error: &io::Error) -> Error {
    Error::Io {
        op,
        path: path.display().to_string(),
        errno: error.raw_os_error(),
        message: error.to_string(),
    }
}
