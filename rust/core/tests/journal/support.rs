//! Journals in memory, with known content, and a disk that fails or loses power.

use std::io;
use std::sync::{Arc, Mutex};

use pnncore::journal::log::Log;
use pnncore::journal::{Durability, Journal, Kind, Purpose, Record, Values};
use pnncore::{Error, Result};

use super::common::Rng;

/// A file in memory.
#[derive(Debug, Default, Clone)]
pub(crate) struct Memory(pub(crate) Arc<Mutex<File>>);

#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    pub(crate) flushed: usize,
    /// Operations until one fails.
    pub(crate) left: Option<u64>,
    /// Whether all that come after fail, too.
    pub(crate) stays: bool,
    pub(crate) fired: bool,
    /// How often it was read, and how many bytes.
    pub(crate) reads: (u64, u64),
}

impl Memory {
    pub(crate) fn holding(bytes: &[u8]) -> Self {
        let memory = Self::default();
        memory.0.lock().unwrap().bytes.extend_from_slice(bytes);
        memory
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }

    /// The power goes and comes back: what was not flushed is kept, cut or garbled.
    pub(crate) fn cut(&self, rng: &mut Rng) {
        let mut file = self.0.lock().unwrap();
        let (old, new) = (file.flushed, file.bytes.len());
        let len = match rng.below(3) {
            0 => new,
            1 => old,
            _ => old + rng.below(new - old + 1),
        };
        file.bytes.truncate(len);
        for sector in file.bytes[old.min(len)..].chunks_mut(64) {
            match rng.below(4) {
                0 => sector.fill(0),
                1 => sector.iter_mut().for_each(|byte| *byte = rng.next() as u8),
                _ => {}
            }
        }
        file.flushed = len;
    }
}

impl File {
    fn check(&mut self) -> io::Result<()> {
        let failure = || Err(io::Error::from_raw_os_error(28));
        if self.fired {
            return if self.stays { failure() } else { Ok(()) };
        }
        match self.left {
            Some(0) => {
                self.fired = true;
                failure()
            }
            Some(left) => {
                self.left = Some(left - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Log for Memory {
    fn length(&self) -> io::Result<u64> {
        let mut file = self.0.lock().unwrap();
        file.check()?;
        Ok(file.bytes.len() as u64)
    }
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut file = self.0.lock().unwrap();
        file.check()?;
        let from = &file.bytes[(at as usize).min(file.bytes.len())..];
        let n = from.len().min(into.len());
        into[..n].copy_from_slice(&from[..n]);
        file.reads = (file.reads.0 + 1, file.reads.1 + n as u64);
        Ok(n)
    }
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.0.lock().unwrap();
        if let Err(error) = file.check() {
            // A failing write may leave a part behind.
            file.bytes.extend_from_slice(&bytes[..bytes.len() / 2]);
            return Err(error);
        }
        file.bytes.extend_from_slice(bytes);
        Ok(())
    }
    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut file = self.0.lock().unwrap();
        file.check()?;
        file.bytes.truncate(len as usize);
        file.flushed = file.flushed.min(len as usize);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        let mut file = self.0.lock().unwrap();
        file.check()?;
        file.flushed = file.bytes.len();
        Ok(())
    }
    fn set_aside(&mut self, from: u64) -> io::Result<String> {
        self.0.lock().unwrap().check()?;
        Ok(format!("memory.torn-{from}"))
    }
}

/// The inputs, parameters and outputs of shot `k`: every third has new parameters.
pub(crate) fn content(k: u64) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let numbers = |seed: u64, n: usize| -> Vec<u8> {
        let mut rng = Rng(seed);
        (0..n).flat_map(|_| (rng.below(1000) as f32).to_ne_bytes()).collect()
    };
    (numbers(3 * k, 6), numbers(1_000_000 + k / 3, 4), numbers(3 * k + 1, 4))
}

pub(crate) fn values(bytes: &[u8], columns: u32) -> Values<'_> {
    Values { double: false, rows: 2, columns, bytes }
}

/// Makes shot `k`; every fifth fails once.
pub(crate) fn shoot(journal: &mut Journal, k: u64) -> Result<()> {
    let (x, params, y) = content(k);
    let (mut shot, mut attempt) = journal.intend(false, Purpose::Run, 5, values(&x, 3), &params)?;
    assert_eq!((shot, attempt), (k, 0));
    if k % 5 == 4 {
        journal.append(&Record::Fail {
            shot,
            attempt,
            duration: 7,
            text: "{\"reason\":\"nan\"}",
        })?;
        (shot, attempt) = journal.intend(true, Purpose::Run, 6, values(&x, 3), &params)?;
    }
    journal.append(&Record::Result { shot, attempt, duration: 9, y: values(&y, 2) })?;
    Ok(())
}

pub(crate) fn begin(log: &Memory, durability: Durability) -> Result<Journal> {
    let (mut journal, _) = Journal::append_on(Box::new(log.clone()), "memory".into(), durability)?;
    journal.append(&Record::Note { kind: Kind::RunStart, text: "{\"run\":\"test\"}" })?;
    Ok(journal)
}

/// A journal of `n` shots.
pub(crate) fn sample(n: u64) -> Vec<u8> {
    let log = Memory::default();
    let mut journal = begin(&log, Durability::Shot).unwrap();
    (0..n).for_each(|k| shoot(&mut journal, k).unwrap());
    journal.append(&Record::Note { kind: Kind::RunStop, text: "{}" }).unwrap();
    log.bytes()
}

/// Reads; anything but content or a refusal fails the test.
pub(crate) fn read(bytes: &[u8]) -> std::result::Result<(Journal, pnncore::journal::End), String> {
    match Journal::read_on(Box::new(Memory::holding(bytes)), "memory".into()) {
        Ok(found) => Ok(found),
        Err(Error::Journal(message)) => Err(message),
        Err(other) => panic!("{other:?}"),
    }
}

/// All records, as text.
pub(crate) fn records(journal: &Journal) -> Vec<String> {
    let all = 0..journal.entries().len() as u64;
    all.map(|k| journal.with_record(k, |record| format!("{record:?}")).unwrap()).collect()
}

/// Checks that the shots are the first ones of a sample, whole; gives how many have answers.
pub(crate) fn check_prefix(journal: &Journal) -> u64 {
    let mut answered = 0;
    for (k, shot) in journal.shots().iter().enumerate() {
        let (x, params, y) = content(k as u64);
        journal
            .with_record(shot.intent, |record| match record {
                Record::Intent { x: found, .. } => assert_eq!(found, values(&x, 3)),
                other => panic!("{other:?}"),
            })
            .unwrap();
        journal
            .with_record(shot.params, |record| match record {
                Record::Intent { params: found, .. } => assert_eq!(found, params),
                other => panic!("{other:?}"),
            })
            .unwrap();
        if let pnncore::journal::Fate::Answered(result) = shot.fate {
            journal
                .with_record(result, |record| match record {
                    Record::Result { y: found, .. } => assert_eq!(found, values(&y, 2)),
                    other => panic!("{other:?}"),
                })
                .unwrap();
            assert_eq!(answered, k as u64, "an answer after a shot without one");
            answered += 1;
        }
    }
    answered
}
