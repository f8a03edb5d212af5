//! A process that writes a journal is killed at random instants.

#![cfg(unix)]

use std::io::Write;
use std::path::Path;

use pnncore::journal::{Durability, Journal, Purpose, Record, Values};

use super::common::{DIR, Rng, count, kill_writer};

/// What shot `k` measures: some are long, so that kills fall into a write.
fn content(k: u64) -> (Vec<u8>, Vec<u8>) {
    let mut rng = Rng(k);
    let n = if k.is_multiple_of(4) { 5000 } else { 16 };
    let mut numbers = || -> Vec<u8> { (0..n).flat_map(|_| rng.next().to_ne_bytes()).collect() };
    (numbers(), numbers())
}

fn row(bytes: &[u8]) -> Values<'_> {
    Values { double: true, rows: 1, columns: bytes.len() as u32 / 8, bytes }
}

/// The writer: does nothing unless the test below has started it.
#[test]
fn writer_process() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let (mut journal, _) =
        Journal::append_to(Path::new(&dir).join("shots.pnj"), Durability::Group).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\nready").unwrap();
    let first = journal.shots().len() as u64;
    for k in first.. {
        let (x, y) = content(k);
        let (shot, attempt) = journal.intend(false, Purpose::Run, 0, row(&x), &[]).unwrap();
        journal.append(&Record::Result { shot, attempt, duration: 0, y: row(&y) }).unwrap();
        writeln!(out, "wrote {shot}").unwrap();
    }
}

#[test]
fn kills() {
    let times = count(60, 10_000);
    let mut dir = tempfile::tempdir().unwrap();
    let mut rng = Rng(times);
    let (mut acknowledged, mut torn, mut unresolved) = (0, 0, 0);
    for round in 0..times {
        if round % 50 == 0 {
            // Files stay short.
            (dir, acknowledged) = (tempfile::tempdir().unwrap(), 0);
        }
        let path = dir.path().join("shots.pnj");
        if let Some(shot) = kill_writer(&mut rng, dir.path(), 3_000) {
            acknowledged = shot + 1;
        }

        let (journal, end) = Journal::read(&path).unwrap();
        torn += u64::from(end != pnncore::journal::End::Clean);
        let mut answered = 0;
        for (k, shot) in journal.shots().iter().enumerate() {
            let pnncore::journal::Fate::Answered(at) = shot.fate else {
                unresolved += 1;
                continue;
            };
            answered = k as u64 + 1;
            // Long content is checked once; here only the last ones.
            if k + 20 > journal.shots().len() {
                let (_, y) = content(k as u64);
                let same = journal.with_record(
                    at,
                    |r| matches!(r, Record::Result { y: found, .. } if found.bytes == y),
                );
                assert!(same.unwrap(), "shot {k} has other content");
            }
        }
        assert!(answered >= acknowledged, "{answered} shots, {acknowledged} were acknowledged");
        // What is there now counts, acknowledged or not: no later kill may lose it.
        acknowledged = answered;
    }
    assert!(unresolved > 0, "no kill fell into a shot");
    assert!(times < 1000 || torn > 0, "no kill fell into a write");
}
