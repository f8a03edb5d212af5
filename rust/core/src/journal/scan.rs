//! Reading journals that may be damaged.

use std::io;

use sha2::{Digest, Sha256};

use super::frame::{HEADER, Head, Kind, MAGIC, TRAILER};
use super::log::Log;
use super::record::{Purpose, Record};
use super::{FORMAT_VERSION, MARK, SIGNATURE, START};

/// Bytes that are read at a time.
const WINDOW: usize = 1 << 20;

/// Where a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What it tells.
    pub kind: Kind,
    /// The length of its payload.
    pub length: u32,
    /// Where it begins.
    pub offset: u64,
}

/// What became of a shot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing is known: the process ended before there was an answer.
    Unresolved,
    /// Its last attempt failed.
    Failed,
    /// The record with its result.
    Answered(u64),
}

/// A shot with all its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shot {
    /// What it is for.
    pub purpose: Purpose,
    /// Attempts that were made.
    pub attempts: u32,
    /// The record of the last attempt's intent.
    pub intent: u64,
    /// The record with its parameters.
    pub params: u64,
    /// What became of it.
    pub fate: Fate,
}

/// How a journal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With a whole record.
    Clean,
    /// In the middle of a record: a process was killed while it wrote, or the power was cut.
    Torn {
        /// Where the last whole record ends.
        at: u64,
    },
    /// Some of it is damaged, but records follow.
    Corrupt {
        /// Where the damage begins.
        at: u64,
    },
}

/// What has been read.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    pub(super) entries: Vec<Entry>,
    pub(super) shots: Vec<Shot>,
    /// The record that holds the last parameters.
    holder: Option<u64>,
    /// Time spent in shots, in nanoseconds.
    pub(super) busy: u64,
    /// Where the last whole record ends.
    pub(super) good: u64,
    /// The hash of all bytes up to there.
    pub(super) hash: Sha256,
}

impl Index {
    /// The hash of all bytes so far.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    /// Whether a record can follow what was there before.
    pub(super) fn admits(&self, record: &Record<'_>) -> bool {
        let sequence = self.entries.len() as u64;
        let (shots, last) = (self.shots.len() as u64, self.shots.last());
        match *record {
            Record::Intent { shot, attempt, purpose, params_at, params, .. } => {
                let holds =
                    params_at == sequence || params.is_empty() && Some(params_at) == self.holder;
                let again = last.is_some_and(|last| {
                    Some(shot) == shots.checked_sub(1)
                        && (attempt, purpose) == (last.attempts, last.purpose)
                        && !matches!(last.fate, Fate::Answered(_))
                });
                holds && (again || (shot, attempt) == (shots, 0))
            }
            Record::Result { shot, attempt, y, .. } => {
                let awaited = last.is_some_and(|last| {
                    Some(shot) == shots.checked_sub(1)
                        && attempt.checked_add(1) == Some(last.attempts)
                        && last.fate == Fate::Unresolved
                });
                awaited && y.is_whole()
            }
            Record::Fail { shot, attempt, .. } => usize::try_from(shot)
                .ok()
                .and_then(|k| self.shots.get(k))
                .is_some_and(|shot| attempt < shot.attempts),
            Record::Sync { hash } => hash == self.digest(),
            Record::Note { .. } => true,
        }
    }

    /// Takes a record in that is [admitted](Self::admits).
    pub(super) fn add(&mut self, record: &Record<'_>, entry: Entry, bytes: &[u8]) {
        let sequence = self.entries.len() as u64;
        if let Record::Intent { params_at, .. } = *record {
            self.holder = Some(params_at);
        }
        match *record {
            Record::Intent { attempt: 0, purpose, params_at, .. } => {
                let fate = Fate::Unresolved;
                self.shots.push(Shot {
                    purpose,
                    attempts: 1,
                    intent: sequence,
                    params: params_at,
                    fate,
                });
            }
            Record::Intent { attempt, params_at, .. } => {
                if let Some(last) = self.shots.last_mut() {
                    let (attempts, fate) = (attempt + 1, Fate::Unresolved);
                    *last = Shot {
                        purpose: last.purpose,
                        attempts,
                        intent: sequence,
                        params: params_at,
                        fate,
                    };
                }
            }
            Record::Result { duration, .. } => {
                if let Some(last) = self.shots.last_mut() {
                    last.fate = Fate::Answered(sequence);
                }
                self.busy = self.busy.saturating_add(duration);
            }
            Record::Fail { shot, attempt, duration, .. } => {
                // A late answer to an earlier attempt says nothing of the last one.
                if let Some(found) = self.shots.get_mut(shot as usize)
                    && attempt + 1 == found.attempts
                    && found.fate == Fate::Unresolved
                {
                    found.fate = Fate::Failed;
                }
                self.busy = self.busy.saturating_add(duration);
            }
            Record::Sync { .. } | Record::Note { .. } => {}
        }
        self.hash.update(bytes);
        self.entries.push(entry);
        self.good = entry.offset + bytes.len() as u64;
    }
}

/// A log, read through a window.
pub(super) struct Source<'a> {
    log: &'a dyn Log,
    len: u64,
    start: u64,
    window: Vec<u8>,
    /// Bytes that may yet be looked at in search of whole frames.
    patience: u64,
}

impl<'a> Source<'a> {
    pub(super) fn new(log: &'a dyn Log) -> io::Result<Self> {
        let len = log.length()?;
        Ok(Self { log, len, start: 0, window: Vec::new(), patience: 4 * len + 1 })
    }

    /// `n` bytes from `at` on, or as many as there are.
    pub(super) fn bytes(&mut self, at: u64, n: usize) -> io::Result<&[u8]> {
        let n = self.len.saturating_sub(at).min(n as u64) as usize;
        let skip = at.wrapping_sub(self.start);
        if at < self.start || skip + n as u64 > self.window.len() as u64 {
            let wanted = self.len.saturating_sub(at).min(n.max(WINDOW) as u64) as usize;
            self.window.resize(wanted, 0);
            self.start = at;
            let read = self.log.read_at(at, &mut self.window)?;
            self.window.truncate(read);
        }
        let skip = (at - self.start) as usize;
        Ok(&self.window[skip..(skip + n).min(self.window.len())])
    }

    /// The header of the frame at `at`, if a whole one is there.
    pub(super) fn frame(&mut self, at: u64) -> io::Result<Option<Head>> {
        let Some(head) = Head::parse(self.bytes(at, HEADER)?) else { return Ok(None) };
        let rest = self.bytes(at + HEADER as u64, head.length + TRAILER)?;
        Ok(head.fits(rest).then_some(head))
    }

    /// The first place from `at` on where the header of a frame is.
    fn next_head(&mut self, mut at: u64) -> io::Result<Option<(u64, Head)>> {
        loop {
            let bytes = self.ahead(at)?;
            if bytes.len() < HEADER {
                return Ok(None);
            }
            let Some(found) = bytes.windows(MAGIC.len()).position(|four| four == MAGIC) else {
                at += (bytes.len() - (MAGIC.len() - 1)) as u64;
                continue;
            };
            at += found as u64;
            if let Some(head) = Head::parse(self.bytes(at, HEADER)?) {
                return Ok(Some((at, head)));
            }
            at += 1;
        }
    }

    /// What the window holds from `at` on: a whole header at least, where the log has one there.
    fn ahead(&mut self, at: u64) -> io::Result<&[u8]> {
        let n = self.bytes(at, HEADER)?.len();
        let skip = (at - self.start) as usize;
        Ok(if n < HEADER { &self.window[skip..skip + n] } else { &self.window[skip..] })
    }

    /// The first place from `at` on where a whole frame is, or `None` where there is none, or it
    /// [tires](Self::is_tired).
    pub(super) fn next_frame(&mut self, mut at: u64) -> io::Result<Option<u64>> {
        while let Some((found, head)) = self.next_head(at)? {
            let looks = head.frame().min(self.len - found);
            let Some(left) = self.patience.checked_sub(looks) else {
                self.patience = 0;
                return Ok(None);
            };
            self.patience = left;
            if self.frame(found)?.is_some() {
                return Ok(Some(found));
            }
            at = found + 1;
        }
        Ok(None)
    }

    /// Whether there were so many headers without a frame that the rest was not looked at: where
    /// they overlap, that would take the square of the length.
    pub(super) fn is_tired(&self) -> bool {
        self.patience == 0
    }

    /// Takes the frame at `at` in; gives where it ends, or `None` where none is there that could
    /// follow.
    fn take(&mut self, at: u64, index: &mut Index) -> io::Result<Option<u64>> {
        let Some(head) = self.frame(at)? else { return Ok(None) };
        if head.sequence != index.entries.len() as u64 {
            return Ok(None);
        }
        let bytes = self.bytes(at, head.frame() as usize)?;
        let Some(record) = Record::parse(head.kind, &bytes[HEADER..HEADER + head.length]) else {
            return Ok(None);
        };
        if !index.admits(&record) {
            return Ok(None);
        }
        index.add(
            &record,
            Entry { kind: head.kind, length: head.length as u32, offset: at },
            bytes,
        );
        Ok(Some(index.good))
    }
}

/// Why a file is no journal.
pub(super) enum Foreign {
    /// It does not begin like one.
    Other,
    /// It is of a newer version.
    Version(u32),
    /// Numbers have another order of bytes.
    Order,
}

/// What a file begins with.
pub(super) fn start() -> [u8; START] {
    let mut bytes = [0; START];
    bytes[..8].copy_from_slice(&SIGNATURE);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_ne_bytes());
    bytes[12..].copy_from_slice(&MARK.to_ne_bytes());
    bytes
}

/// Reads all records up to the first damage, and tells how the file ends.
pub(super) fn scan(log: &dyn Log) -> io::Result<Result<(Index, End), Foreign>> {
    let mut source = Source::new(log)?;
    let mut index = Index::default();
    let begins = source.bytes(0, START)?.to_vec();
    if begins != start() {
        if begins.len() < START && start().starts_with(&begins) {
            // A process was killed while it made the file.
            return Ok(Ok((
                index,
                if begins.is_empty() { End::Clean } else { End::Torn { at: 0 } },
            )));
        }
        return Ok(Err(foreign(&begins)));
    }
    index.hash.update(&begins);
    index.good = START as u64;
    while index.good < source.len {
        if source.take(index.good, &mut index)?.is_none() {
            let at = index.good;
            // A whole frame that cannot follow is damage, too: records before it are lost.
            let follows = source.next_frame(at)?.is_some() || source.is_tired();
            return Ok(Ok((index, if follows { End::Corrupt { at } } else { End::Torn { at } })));
        }
    }
    Ok(Ok((index, End::Clean)))
}

fn foreign(begins: &[u8]) -> Foreign {
    if begins.len() < START || begins[..8] != SIGNATURE {
        return Foreign::Other;
    }
    let number = |range: std::ops::Range<usize>| {
        begins[range].try_into().map(u32::from_ne_bytes).unwrap_or_default()
    };
    match number(12..16) {
        mark if mark == MARK => Foreign::Version(number(8..12)),
        mark if mark == MARK.swap_bytes() => Foreign::Order,
        _ => Foreign::Other,
    }
}
