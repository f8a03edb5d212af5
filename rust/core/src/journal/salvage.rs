//! Copies what is whole out of a damaged journal.

use std::ops::Range;
use std::path::Path;

use super::frame::HEADER;
use super::log::{DiskLog, Log};
use super::record::Record;
use super::scan::{Source, start};
use super::{Durability, Journal, START, io_error, log_to_read};
use crate::{Error, Result};

/// What was saved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Salvage {
    /// Shots that were copied with their results.
    pub shots: u64,
    /// Whole records that say nothing any more: results without an intent, intents without
    /// parameters or a result.
    pub dropped: u64,
    /// Bytes of the damaged file that are no whole records.
    pub gaps: Vec<Range<u64>>,
}

/// Copies every shot that has its inputs, parameters and results from a damaged journal to a new
/// one, and all whole notes. Shots are numbered anew.
///
/// # Errors
/// [`Error::Journal`] where there is something at `to` already; [`Error::Io`] where the operating
/// system refuses.
pub fn salvage(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Salvage> {
    let from = from.as_ref();
    salvage_from(&log_to_read(from)?, &from.display().to_string(), to)
}

/// [`salvage`] from any [`Log`] to a new file.
///
/// # Errors
/// Those of [`salvage`].
pub fn salvage_from(log: &dyn Log, name: &str, to: impl AsRef<Path>) -> Result<Salvage> {
    let to = to.as_ref();
    let new = DiskLog::create(to).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Error::Journal(format!("{}: it exists; salvage() writes a new file", to.display()))
        }
        _ => io_error("open", &to.display().to_string(), &error),
    })?;
    let mut copy = Journal::append_on(Box::new(new), to.display().to_string(), Durability::None)?.0;
    let found = salvage_on(log, name, &mut copy)?;
    copy.mark()?;
    Ok(found)
}

/// An intent that waits for its result.
struct Waiting {
    shot: u64,
    attempt: u32,
    payload: Vec<u8>,
    params: Vec<u8>,
}

/// [`salvage`] from any [`Log`].
///
/// # Errors
/// Those of [`salvage`].
pub fn salvage_on(log: &dyn Log, name: &str, copy: &mut Journal) -> Result<Salvage> {
    let refused = |error: std::io::Error| io_error("read", name, &error);
    let mut source = Source::new(log).map_err(refused)?;
    let mut found = Salvage::default();
    let whole = source.bytes(0, START).map_err(refused)? == start();
    let mut at = if whole { START as u64 } else { 0 };
    // Parameters by the number of the record that held them: only the last ones are referred to.
    let mut params: Option<(u64, Vec<u8>)> = None;
    let mut waiting: Option<Waiting> = None;
    let len = log.length().map_err(refused)?;
    while at < len {
        let Some(head) = source.frame(at).map_err(refused)? else {
            let next = source.next_frame(at + 1).map_err(refused)?.unwrap_or(len);
            found.gaps.push(at..next);
            at = next;
            continue;
        };
        let payload = source.bytes(at + HEADER as u64, head.length).map_err(refused)?.to_vec();
        at += head.frame();
        match Record::parse(head.kind, &payload) {
            Some(Record::Intent { shot, attempt, params_at, params: held, .. }) => {
                if params_at == head.sequence {
                    params = Some((params_at, held.to_vec()));
                }
                found.dropped += u64::from(waiting.is_some());
                let known = params
                    .as_ref()
                    .filter(|(at, _)| *at == params_at)
                    .map(|(_, known)| known.clone());
                found.dropped += u64::from(known.is_none());
                waiting = known.map(|params| Waiting { shot, attempt, payload, params });
            }
            Some(Record::Result { shot, attempt, duration, y }) => {
                let own = waiting
                    .take()
                    .filter(|intent| (intent.shot, intent.attempt) == (shot, attempt));
                let intent = own
                    .as_ref()
                    .and_then(|own| Some((Record::parse(super::Kind::Intent, &own.payload)?, own)));
                let Some((Record::Intent { purpose, time, x, .. }, own)) = intent else {
                    found.dropped += 1;
                    continue;
                };
                let (shot, attempt) = copy.intend(false, purpose, time, x, &own.params)?;
                copy.append(&Record::Result { shot, attempt, duration, y })?;
                found.shots += 1;
            }
            Some(note @ Record::Note { .. }) => {
                copy.append(&note)?;
            }
            // Hashes are made anew; failures belong to attempts that are not copied.
            Some(Record::Sync { .. } | Record::Fail { .. }) => {}
            None => found.dropped += 1,
        }
    }
    found.dropped += u64::from(waiting.is_some());
    Ok(found)
}
