//! Journals: every shot of an instrument, in a file that is only appended to.
//!
//! # Format
//!
//! A file begins with the eight bytes of [`SIGNATURE`], the version of the format, and [`MARK`];
//! all numbers are in the order of bytes of the machine that wrote them, which the mark tells.
//! Frames follow: the magic `PnnF`, the length of the payload (`u32`), a sequence number (`u64`)
//! that counts from 0, the [`Kind`] (one byte, then three zeros), the CRC-32C of these 20 bytes;
//! the payload; the CRC-32C of the payload, begun with that of the header. A payload is at most 64
//! MiB.
//!
//! Payloads, by the kind of record:
//! - intent: shot `u64`, attempt `u32`, purpose `u8`, 8-byte numbers `u8`, two zeros, time `u64`,
//!   record with the parameters `u64`, rows and columns `u32`, inputs, parameters (where this
//!   record holds them);
//! - result: shot `u64`, attempt `u32`, 8-byte numbers `u8`, three zeros, duration `u64`, rows and
//!   columns `u32`, outputs;
//! - fail: shot `u64`, attempt `u32`, zero `u32`, duration `u64`, a JSON object;
//! - sync: the SHA-256 of all bytes before;
//! - others: a JSON object.
//!
//! In JSON objects, an infinite number or NaN is an object such as `{"float": "-inf"}`. A record is
//! read with the reader's own code before it is written, so that none is written that would be
//! refused.
//!
//! An intent is written before the shot is made, and its result before anybody sees it. An intent
//! that nothing follows is an unresolved shot: the process ended before there was an answer.
//!
//! # Durability
//!
//! What was written survives the death of the process at once. It survives a power cut after the
//! next flush: see [`Durability`].
//!
//! # Damage
//!
//! Reading stops at the first frame that is damaged or cannot follow what was before. Where nothing
//! whole comes after it, the end was torn: it is set aside, in a new file `NAME.torn-PLACE`, when
//! the file is next opened for appending. Where whole frames follow, the file is corrupt:
//! [`Journal::append_to`] and [`Journal::read`] refuse it, and [`salvage()`] copies what is whole.

mod frame;
pub mod log;
mod record;
mod salvage;
mod scan;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

pub use frame::Kind;
pub use record::{Purpose, Record, Values};
pub use salvage::{Salvage, salvage, salvage_from, salvage_on};
pub use scan::{End, Entry, Fate, Shot};

use crate::{Error, Result};
use frame::{HEADER, MAX_PAYLOAD, encode};
use log::{DiskLog, Log};
use scan::{Foreign, Index, scan, start};

/// The version of the file format that this crate writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// The first bytes of a journal.
pub const SIGNATURE: [u8; 8] = *b"\x89PNJ\r\n\x1a\n";

/// A number that reads otherwise in another order of bytes.
pub const MARK: u32 = 0x0a0b_0c0d;

/// Bytes before the first frame.
const START: usize = 16;

/// When what was written is flushed to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// After 64 shots, or with the first record that comes 50 ms after the last flush: a power cut
    /// may lose those.
    Group,
    /// With every intent and every result: a power cut loses nothing.
    Shot,
    /// When the journal is closed, and with every [`Journal::mark`]: a power cut may lose all
    /// since.
    None,
}

/// Shots that a group has at most.
const GROUP_SHOTS: u32 = 64;

/// How old a group gets at most, as long as records come.
const GROUP_TIME: Duration = Duration::from_millis(50);

/// A journal, open for appending or for reading.
pub struct Journal {
    log: Box<dyn Log>,
    path: String,
    index: Index,
    durability: Durability,
    writable: bool,
    /// The process that opened it.
    process: u32,
    /// Results since the last flush.
    unflushed: u32,
    flushed: Instant,
    /// Why nothing is written any more.
    poison: Option<Error>,
    /// The record that holds the last parameters.
    params: Option<(u64, Vec<u8>)>,
    frame: Vec<u8>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("path", &self.path)
            .field("shots", &self.index.shots.len())
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens a journal for appending, or begins one. A torn end is set aside: the second value says
    /// where to.
    ///
    /// # Errors
    /// [`Error::Journal`] for a file that is corrupt, no journal, or open in another writer;
    /// [`Error::Io`] where the operating system refuses.
    pub fn append_to(
        path: impl AsRef<Path>,
        durability: Durability,
    ) -> Result<(Self, Option<String>)> {
        let path = path.as_ref();
        Self::append_on(Box::new(log_to_append(path)?), path.display().to_string(), durability)
    }

    /// [`append_to`](Self::append_to) on any [`Log`].
    ///
    /// # Errors
    /// Those of [`append_to`](Self::append_to).
    pub fn append_on(
        mut log: Box<dyn Log>,
        path: String,
        durability: Durability,
    ) -> Result<(Self, Option<String>)> {
        let (mut index, end) = read(&*log, &path)?;
        let mut aside = None;
        if let End::Torn { at } = end {
            let failed = |op| {
                let path = path.clone();
                move |error: io::Error| io_error(op, &path, &error)
            };
            aside = Some(log.set_aside(at).map_err(failed("set aside the torn end of"))?);
            log.truncate(at).map_err(failed("truncate"))?;
        }
        if index.good == 0 {
            log.append(&start()).map_err(|error| io_error("write", &path, &error))?;
            sha2::Digest::update(&mut index.hash, start());
            index.good = START as u64;
        }
        Ok((Self::of(log, path, index, durability, true), aside))
    }

    /// Opens a journal for reading, and tells how it ends. Writers may go on meanwhile.
    ///
    /// # Errors
    /// [`Error::Journal`] for a file that is corrupt or no journal; [`Error::Io`] where the
    /// operating system refuses.
    pub fn read(path: impl AsRef<Path>) -> Result<(Self, End)> {
        let path = path.as_ref();
        Self::read_on(Box::new(log_to_read(path)?), path.display().to_string())
    }

    /// [`read`](Self::read) from any [`Log`].
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub fn read_on(log: Box<dyn Log>, path: String) -> Result<(Self, End)> {
        let (index, end) = read(&*log, &path)?;
        Ok((Self::of(log, path, index, Durability::None, false), end))
    }

    fn of(
        log: Box<dyn Log>,
        path: String,
        index: Index,
        durability: Durability,
        writable: bool,
    ) -> Self {
        Self {
            log,
            path,
            index,
            durability,
            writable,
            process: std::process::id(),
            unflushed: 0,
            flushed: Instant::now(),
            poison: None,
            params: None,
            frame: Vec::new(),
        }
    }

    /// Refuses a process that was forked from the one that opened the journal: the two would write
    /// into one file.
    fn check_process(&self) -> Result<()> {
        if self.process == std::process::id() { Ok(()) } else { Err(forked(&self.path)) }
    }

    /// Where the records are.
    pub fn entries(&self) -> &[Entry] {
        &self.index.entries
    }

    /// All shots, in the order of their numbers.
    pub fn shots(&self) -> &[Shot] {
        &self.index.shots
    }

    /// Attempts that were begun, and nanoseconds spent in them.
    pub fn spent(&self) -> (u64, u64) {
        let attempts = self.index.entries.iter().filter(|entry| entry.kind == Kind::Intent).count();
        (attempts as u64, self.index.busy)
    }

    /// Writes a record, and flushes where that is due.
    ///
    /// # Errors
    /// [`Error::Journal`] for a record that a reader would refuse, or that cannot follow the ones
    /// before: nothing is then written; and in a process that was forked from the one that opened
    /// the journal. [`Error::Io`] where the operating system refuses a write: what was written of
    /// the record is taken back, and the next may be tried; or a flush: then nothing more is
    /// written.
    pub fn append(&mut self, record: &Record<'_>) -> Result<u64> {
        let sequence = self.write(record)?;
        let due = match (self.durability, record.kind()) {
            (Durability::Shot, Kind::Intent | Kind::Result | Kind::Fail) => true,
            (Durability::Group, _) => {
                self.unflushed += u32::from(record.kind() == Kind::Result);
                self.unflushed >= GROUP_SHOTS || self.flushed.elapsed() >= GROUP_TIME
            }
            _ => false,
        };
        if due {
            self.mark()?;
        }
        Ok(sequence)
    }

    /// Writes the intent of a new attempt: of a new shot, or where `again`, of the last one. The
    /// parameters are written where they are not those of the shot before. Gives the number of the
    /// shot and the attempt.
    ///
    /// # Errors
    /// Those of [`append`](Self::append).
    pub fn intend(
        &mut self,
        again: bool,
        purpose: Purpose,
        time: u64,
        x: Values<'_>,
        params: &[u8],
    ) -> Result<(u64, u32)> {
        let sequence = self.index.entries.len() as u64;
        let (shot, attempt) = match self.index.shots.last() {
            Some(last) if again => (self.index.shots.len() as u64 - 1, last.attempts),
            _ => (self.index.shots.len() as u64, 0),
        };
        let known = self.params.as_ref().filter(|(_, known)| known == params).map(|(at, _)| *at);
        let (params_at, written) = match known {
            Some(at) => (at, &[][..]),
            None => (sequence, params),
        };
        self.append(&Record::Intent {
            shot,
            attempt,
            purpose,
            time,
            x,
            params_at,
            params: written,
        })?;
        if known.is_none() {
            self.params = Some((sequence, params.to_vec()));
        }
        Ok((shot, attempt))
    }

    /// Writes the hash of all bytes before, and flushes: what a checkpoint refers to. Gives the
    /// number of the record, and the hash. After a failure nothing more is written: what was lost
    /// cannot be known.
    ///
    /// # Errors
    /// Those of [`append`](Self::append).
    pub fn mark(&mut self) -> Result<(u64, [u8; 32])> {
        let hash = self.index.digest();
        let sequence = self.write(&Record::Sync { hash })?;
        self.unflushed = 0;
        self.log.sync().map_err(|error| {
            let error = io_error("fsync", &self.path, &error);
            self.poison = Some(error.clone());
            error
        })?;
        self.flushed = Instant::now();
        Ok((sequence, hash))
    }

    /// Checks that record `sequence` is a mark with this hash.
    ///
    /// # Errors
    /// [`Error::Journal`] where it is not.
    pub fn check_mark(&self, sequence: u64, hash: [u8; 32]) -> Result<()> {
        let known = usize::try_from(sequence).ok().and_then(|k| self.index.entries.get(k));
        if known.is_some_and(|entry| entry.kind == Kind::Sync)
            && self.with_record(sequence, |record| record == Record::Sync { hash })?
        {
            return Ok(());
        }
        Err(Error::Journal(format!(
            "{}: it is not the journal that the checkpoint was made with, or its end is lost: \
             record {sequence} is not the one that the checkpoint refers to",
            self.path
        )))
    }

    /// The kind and the payload of record `sequence`.
    ///
    /// # Errors
    /// [`Error::Journal`] where there is none, or it has changed since; [`Error::Io`] where the
    /// operating system refuses.
    pub fn payload(&self, sequence: u64) -> Result<(Kind, Vec<u8>)> {
        self.check_process()?;
        let missing = || Error::Journal(format!("{}: there is no record {sequence}", self.path));
        let entry = usize::try_from(sequence)
            .ok()
            .and_then(|k| self.index.entries.get(k))
            .ok_or_else(missing)?;
        let mut bytes = vec![0; HEADER + entry.length as usize + frame::TRAILER];
        let read = self
            .log
            .read_at(entry.offset, &mut bytes)
            .map_err(|e| io_error("read", &self.path, &e))?;
        let whole = read == bytes.len()
            && frame::Head::parse(&bytes).is_some_and(|head| {
                head.kind == entry.kind && head.sequence == sequence && head.fits(&bytes[HEADER..])
            });
        if !whole {
            return Err(Error::Journal(format!(
                "{}: record {sequence} has changed since it was opened",
                self.path
            )));
        }
        bytes.truncate(HEADER + entry.length as usize);
        bytes.drain(..HEADER);
        Ok((entry.kind, bytes))
    }

    /// Calls `read` with record `sequence`.
    ///
    /// # Errors
    /// Those of [`payload`](Self::payload).
    pub fn with_record<R>(&self, sequence: u64, read: impl FnOnce(Record<'_>) -> R) -> Result<R> {
        let (kind, payload) = self.payload(sequence)?;
        let record = Record::parse(kind, &payload);
        let record = record.ok_or_else(|| {
            Error::Journal(format!("{}: record {sequence} is damaged", self.path))
        })?;
        Ok(read(record))
    }

    /// Encodes a record, and gives the length of its payload. What comes out is read with the
    /// reader's own code, so that nothing is written that would not be read.
    fn encode(&mut self, record: &Record<'_>, sequence: u64) -> Result<usize> {
        let refused =
            |why: String| Err(Error::Journal(format!("{}: {why}; nothing was written", self.path)));
        let length = record.payload(|parts| parts.iter().map(|part| part.len()).sum::<usize>());
        if length > MAX_PAYLOAD {
            return refused(format!(
                "a shot of {length} bytes is more than {MAX_PAYLOAD}; use smaller batches"
            ));
        }
        self.frame.clear();
        record.payload(|parts| encode(record.kind(), sequence, parts, &mut self.frame));
        if Record::parse(record.kind(), &self.frame[HEADER..HEADER + length]).as_ref()
            != Some(record)
        {
            return refused(format!("a record ({:?}) would not be read as it is", record.kind()));
        }
        if !self.index.admits(record) {
            return refused(format!(
                "a record ({:?}) cannot follow the ones before",
                record.kind()
            ));
        }
        Ok(length)
    }

    fn write(&mut self, record: &Record<'_>) -> Result<u64> {
        if !self.writable {
            return Err(Error::Journal(format!("{}: it is open for reading", self.path)));
        }
        self.check_process()?;
        if let Some(error) = &self.poison {
            return Err(error.clone());
        }
        let sequence = self.index.entries.len() as u64;
        let length = self.encode(record, sequence)?;
        let offset = self.index.good;
        if let Err(error) = self.log.append(&self.frame) {
            let error = io_error("write", &self.path, &error);
            if let Err(second) = self.log.truncate(offset) {
                self.poison = Some(io_error("truncate", &self.path, &second));
            }
            return Err(error);
        }
        let entry = Entry { kind: record.kind(), length: length as u32, offset };
        self.index.add(record, entry, &self.frame);
        Ok(sequence)
    }
}

/// Opens the file of a journal for appending, and makes it where there is none.
///
/// # Errors
/// [`Error::Journal`] where another writer has it; [`Error::Io`] where the operating system
/// refuses.
pub fn log_to_append(path: &Path) -> Result<DiskLog> {
    DiskLog::append_to(path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Journal(format!(
            "{}: another process or object appends to it; give each a file",
            path.display()
        )),
        _ => io_error("open", &path.display().to_string(), &error),
    })
}

/// Opens the file of a journal for reading.
///
/// # Errors
/// [`Error::Io`] where the operating system refuses, or it is no regular file.
pub fn log_to_read(path: &Path) -> Result<DiskLog> {
    DiskLog::read(path).map_err(|error| io_error("open", &path.display().to_string(), &error))
}

/// The error of a process that uses the journal of the process it was forked from.
pub fn forked(path: &str) -> Error {
    Error::Journal(format!(
        "{path}: it belongs to the process that opened it, not to one forked from it; open it here"
    ))
}

fn read(log: &dyn Log, path: &str) -> Result<(Index, End)> {
    let found = scan(log).map_err(|error| io_error("read", path, &error))?;
    let text = match found {
        Ok((_, End::Corrupt { at })) => {
            format!(
                "damaged at byte {at}, with whole records after it; salvage() copies those that \
                 are whole"
            )
        }
        Ok(found) => return Ok(found),
        Err(Foreign::Other) => "it is no pnncore journal".into(),
        Err(Foreign::Version(version)) => {
            format!("it has format version {version}; this pnncore reads version {FORMAT_VERSION}")
        }
        Err(Foreign::Order) => "it was written on a machine with another order of bytes".into(),
    };
    Err(Error::Journal(format!("{path}: {text}")))
}

fn io_error(op: &'static str, path: &str, error: &io::Error) -> Error {
    Error::Io { op, path: path.to_owned(), errno: error.raw_os_error(), message: error.to_string() }
}
