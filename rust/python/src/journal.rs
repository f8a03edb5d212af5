//! Journals as Python sees them: numbers are bytes here, and arrays in `pnncore.journal`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use pnncore::Error;
use pnncore::journal::log::{DiskLog, Log};
use pnncore::journal::{self, Durability, End, Fate, Kind, Purpose, Record, Values};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{OrRaise, parse};
use crate::raised::Raised;

/// A journal, open for appending or reading.
#[pyclass(frozen, module = "pnncore._core")]
pub(crate) struct Journal {
    inner: Mutex<Option<journal::Journal>>,
    path: String,
    raised: Raised,
    /// The process that opened it. Asked before the lock, which a thread may have held when another
    /// process was forked.
    process: u32,
}

/// A file whose reading ends where a handler of a signal raises, such as that of Ctrl-C. Handlers
/// run in the main thread of Python alone.
struct Heeding {
    file: DiskLog,
    raised: Raised,
}

impl Log for Heeding {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        Python::attach(|py| py.check_signals())
            .map_err(|error| io::Error::other(self.raised.keep("a signal", error).to_string()))?;
        self.file.read_at(at, into)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    fn set_aside(&mut self, from: u64) -> io::Result<String> {
        self.file.set_aside(from)
    }
}

/// Works on a file without the GIL; an exception that a handler of a signal raised meanwhile is
/// raised in the place of the error that it made.
fn heeding<R: Send>(
    py: Python<'_>,
    raised: &Raised,
    work: impl FnOnce() -> pnncore::Result<R> + Send,
) -> PyResult<R> {
    let found = py.detach(work);
    match raised.take() {
        Some(error) if found.is_err() => Err(error),
        _ => found.or_raise(py),
    }
}

/// A matrix that was read.
struct Held {
    rows: u32,
    columns: u32,
    double: bool,
    bytes: Vec<u8>,
}

impl Held {
    fn of(values: Values<'_>) -> Self {
        Self {
            rows: values.rows,
            columns: values.columns,
            double: values.double,
            bytes: values.bytes.to_vec(),
        }
    }

    fn matrix(self, py: Python<'_>) -> Matrix<'_> {
        (self.rows, self.columns, self.double, PyBytes::new(py, &self.bytes))
    }
}

/// Rows, columns, whether numbers have 8 bytes, and the numbers.
type Matrix<'py> = (u32, u32, bool, Bound<'py, PyBytes>);

/// Purpose, attempts, record of the intent, record of the parameters, record of the result, whether
/// it failed.
type ShotRow = (&'static str, u32, u64, u64, Option<u64>, bool);

/// Number, kind, shot, attempt, duration and text of a record that is a JSON object.
type NoteRow = (u64, &'static str, u64, u32, u64, String);

/// Shots, records that say nothing any more, and gaps in bytes.
type Saved = (u64, u64, Vec<(u64, u64)>);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (k, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * k..2 * k + 2], 16).ok()?;
    }
    Some(bytes)
}

fn purpose(py: Python<'_>, name: &str) -> PyResult<Purpose> {
    match name {
        "run" => Ok(Purpose::Run),
        "reference" => Ok(Purpose::Reference),
        "check" => Ok(Purpose::Check),
        "predict" => Ok(Purpose::Predict),
        _ => Err(Error::Config(format!("unknown purpose {name:?}"))).or_raise(py),
    }
}

fn purpose_name(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Run => "run",
        Purpose::Reference => "reference",
        Purpose::Check => "check",
        Purpose::Predict => "predict",
    }
}

fn kind(py: Python<'_>, name: &str) -> PyResult<Kind> {
    match name {
        "run-start" => Ok(Kind::RunStart),
        "state" => Ok(Kind::State),
        "checkpoint-ref" => Ok(Kind::CheckpointRef),
        "run-stop" => Ok(Kind::RunStop),
        _ => Err(Error::Config(format!("unknown kind of note {name:?}"))).or_raise(py),
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::RunStart => "run-start",
        Kind::Intent => "intent",
        Kind::Result => "result",
        Kind::Fail => "fail",
        Kind::State => "state",
        Kind::Sync => "sync",
        Kind::CheckpointRef => "checkpoint-ref",
        Kind::RunStop => "run-stop",
    }
}

impl Journal {
    fn new(inner: journal::Journal, path: &Path, raised: Raised) -> Self {
        let path = path.display().to_string();
        Self { inner: Mutex::new(Some(inner)), path, raised, process: std::process::id() }
    }

    fn is_here(&self) -> bool {
        self.process == std::process::id()
    }

    /// Runs `work` on the open journal, without the GIL: a flush takes a while.
    fn with<R: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut journal::Journal) -> pnncore::Result<R> + Send,
    ) -> PyResult<R> {
        if !self.is_here() {
            return Err(journal::forked(&self.path)).or_raise(py);
        }
        heeding(py, &self.raised, || {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            match inner.as_mut() {
                Some(journal) => work(journal),
                None => Err(Error::Journal(format!("{}: it is closed", self.path))),
            }
        })
    }
}

#[pymethods]
impl Journal {
    /// Opens a journal for appending, or begins one; also where its torn end was set aside.
    #[staticmethod]
    fn append_to(
        py: Python<'_>,
        path: PathBuf,
        durability: &str,
    ) -> PyResult<(Self, Option<String>)> {
        let durability: Durability = parse(py, "durability", durability)?;
        let raised = Raised::default();
        let (inner, aside) = heeding(py, &raised, || {
            let file = Heeding { file: journal::log_to_append(&path)?, raised: raised.clone() };
            journal::Journal::append_on(Box::new(file), path.display().to_string(), durability)
        })?;
        Ok((Self::new(inner, &path, raised), aside))
    }

    /// Opens a journal for reading; also where its torn end begins.
    #[staticmethod]
    fn read(py: Python<'_>, path: PathBuf) -> PyResult<(Self, Option<u64>)> {
        let raised = Raised::default();
        let (inner, end) = heeding(py, &raised, || {
            let file = Heeding { file: journal::log_to_read(&path)?, raised: raised.clone() };
            journal::Journal::read_on(Box::new(file), path.display().to_string())
        })?;
        let torn = match end {
            End::Torn { at } => Some(at),
            End::Clean | End::Corrupt { .. } => None,
        };
        Ok((Self::new(inner, &path, raised), torn))
    }

    /// Writes the intent of an attempt; gives the numbers of shot and attempt.
    #[allow(clippy::too_many_arguments, reason = "one call of the Python layer")]
    fn intend(
        &self,
        py: Python<'_>,
        again: bool,
        purpose: &str,
        time: u64,
        rows: u32,
        columns: u32,
        double: bool,
        x: &[u8],
        params: &[u8],
    ) -> PyResult<(u64, u32)> {
        let purpose = self::purpose(py, purpose)?;
        let x = Values { double, rows, columns, bytes: x };
        self.with(py, |journal| journal.intend(again, purpose, time, x, params))
    }

    /// Writes the result of an attempt.
    #[allow(clippy::too_many_arguments, reason = "one call of the Python layer")]
    fn result(
        &self,
        py: Python<'_>,
        shot: u64,
        attempt: u32,
        duration: u64,
        rows: u32,
        columns: u32,
        double: bool,
        y: &[u8],
    ) -> PyResult<()> {
        let y = Values { double, rows, columns, bytes: y };
        self.with(py, |journal| {
            journal.append(&Record::Result { shot, attempt, duration, y }).map(|_| ())
        })
    }

    /// Writes that an attempt failed.
    fn fail(
        &self,
        py: Python<'_>,
        shot: u64,
        attempt: u32,
        duration: u64,
        text: &str,
    ) -> PyResult<()> {
        self.with(py, |journal| {
            journal.append(&Record::Fail { shot, attempt, duration, text }).map(|_| ())
        })
    }

    /// Writes a JSON object.
    fn note(&self, py: Python<'_>, kind: &str, text: &str) -> PyResult<()> {
        let kind = self::kind(py, kind)?;
        self.with(py, |journal| journal.append(&Record::Note { kind, text }).map(|_| ()))
    }

    /// Flushes; gives the number of the record that says so, and the hash of all before.
    fn mark(&self, py: Python<'_>) -> PyResult<(u64, String)> {
        self.with(py, |journal| journal.mark().map(|(sequence, hash)| (sequence, hex(&hash))))
    }

    /// Refuses a mark that is not in the journal.
    fn check_mark(&self, py: Python<'_>, sequence: u64, hash: &str) -> PyResult<()> {
        let hash = unhex(hash).unwrap_or_default();
        self.with(py, |journal| journal.check_mark(sequence, hash))
    }

    /// Flushes what was appended, and closes the file; does nothing in a process that was forked
    /// from the one that opened it.
    fn close(&self, py: Python<'_>, flush: bool) -> PyResult<()> {
        if !self.is_here() {
            return Ok(());
        }
        py.detach(|| {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            match inner.take() {
                Some(mut journal) if flush => journal.mark().map(|_| ()),
                _ => Ok(()),
            }
        })
        .or_raise(py)
    }

    /// How many shots there are.
    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.with(py, |journal| Ok(journal.shots().len()))
    }

    /// How many records there are.
    fn records(&self, py: Python<'_>) -> PyResult<usize> {
        self.with(py, |journal| Ok(journal.entries().len()))
    }

    /// Attempts, and nanoseconds spent in them.
    fn spent(&self, py: Python<'_>) -> PyResult<(u64, u64)> {
        self.with(py, |journal| Ok(journal.spent()))
    }

    /// What became of a shot.
    fn shot(&self, py: Python<'_>, k: usize) -> PyResult<ShotRow> {
        self.with(py, |journal| {
            let missing = || Error::Journal(format!("{}: there is no shot {k}", self.path));
            let shot = journal.shots().get(k).ok_or_else(missing)?;
            let result = match shot.fate {
                Fate::Answered(at) => Some(at),
                Fate::Failed | Fate::Unresolved => None,
            };
            let failed = shot.fate == Fate::Failed;
            Ok((
                purpose_name(shot.purpose),
                shot.attempts,
                shot.intent,
                shot.params,
                result,
                failed,
            ))
        })
    }

    /// The time of an intent, and its inputs.
    fn intent<'py>(&self, py: Python<'py>, sequence: u64) -> PyResult<(u64, Matrix<'py>)> {
        let (time, x) = self.record(py, sequence, |record| match record {
            Record::Intent { time, x, .. } => Some((time, Held::of(x))),
            _ => None,
        })?;
        Ok((time, x.matrix(py)))
    }

    /// The parameters that an intent holds.
    fn params<'py>(&self, py: Python<'py>, sequence: u64) -> PyResult<Bound<'py, PyBytes>> {
        let params = self.record(py, sequence, |record| match record {
            Record::Intent { params, .. } => Some(params.to_vec()),
            _ => None,
        })?;
        Ok(PyBytes::new(py, &params))
    }

    /// The duration of a shot, and its outputs.
    fn answer<'py>(&self, py: Python<'py>, sequence: u64) -> PyResult<(u64, Matrix<'py>)> {
        let (duration, y) = self.record(py, sequence, |record| match record {
            Record::Result { duration, y, .. } => Some((duration, Held::of(y))),
            _ => None,
        })?;
        Ok((duration, y.matrix(py)))
    }

    /// Number, kind and text of all records that are JSON objects; failures with shot, attempt and
    /// duration.
    fn notes(&self, py: Python<'_>) -> PyResult<Vec<NoteRow>> {
        self.with(py, |journal| {
            let mut notes = Vec::new();
            for (k, entry) in (0..).zip(journal.entries()) {
                if matches!(entry.kind, Kind::Intent | Kind::Result | Kind::Sync) {
                    continue;
                }
                let name = kind_name(entry.kind);
                notes.push(journal.with_record(k, |record| match record {
                    Record::Fail { shot, attempt, duration, text } => {
                        (k, name, shot, attempt, duration, text.to_owned())
                    }
                    Record::Note { text, .. } => (k, name, 0, 0, 0, text.to_owned()),
                    _ => (k, name, 0, 0, 0, String::new()),
                })?);
            }
            Ok(notes)
        })
    }
}

impl Journal {
    fn record<R: Send>(
        &self,
        py: Python<'_>,
        sequence: u64,
        read: impl for<'a> FnOnce(Record<'a>) -> Option<R> + Send,
    ) -> PyResult<R> {
        self.with(py, |journal| {
            let other =
                || Error::Journal(format!("{}: record {sequence} is of another kind", self.path));
            journal.with_record(sequence, read)?.ok_or_else(other)
        })
    }
}

/// Copies what is whole: shots, records that say nothing any more, and gaps in bytes.
#[pyfunction]
pub(crate) fn salvage(py: Python<'_>, path: PathBuf, to: PathBuf) -> PyResult<Saved> {
    let raised = Raised::default();
    let found = heeding(py, &raised, || {
        let file = Heeding { file: journal::log_to_read(&path)?, raised: raised.clone() };
        journal::salvage_from(&file, &path.display().to_string(), &to)
    })?;
    Ok((
        found.shots,
        found.dropped,
        found.gaps.into_iter().map(|gap| (gap.start, gap.end)).collect(),
    ))
}
