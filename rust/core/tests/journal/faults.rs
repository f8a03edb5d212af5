//! Every operation fails once, or it and all after it fail; and the power is cut.

use pnncore::journal::{Durability, Fate, Journal};
use pnncore::{Error, Result};

use super::common::{Rng, count};
use super::support::{Memory, begin, check_prefix, shoot};

const DURABILITIES: [Durability; 3] = [Durability::Group, Durability::Shot, Durability::None];

/// Makes shots from where the journal is, up to `n`; gives how many were acknowledged, and how it
/// ended.
fn run(log: &Memory, durability: Durability, n: u64) -> (Option<u64>, Result<()>) {
    let mut journal = match begin(log, durability) {
        Ok(journal) => journal,
        Err(error) => return (None, Err(error)),
    };
    // An unresolved shot is made again: these are idempotent.
    for k in check_prefix(&journal)..n {
        if let Err(error) = again(&mut journal, k) {
            return (Some(k), Err(error));
        }
    }
    (Some(n), journal.mark().map(|_| ()))
}

fn again(journal: &mut Journal, k: u64) -> Result<()> {
    if journal.shots().len() as u64 == k {
        return shoot(journal, k);
    }
    let (x, params, y) = super::support::content(k);
    let (x, y) = (super::support::values(&x, 3), super::support::values(&y, 2));
    let (shot, attempt) = journal.intend(true, pnncore::journal::Purpose::Run, 5, x, &params)?;
    journal.append(&pnncore::journal::Record::Result { shot, attempt, duration: 1, y }).map(|_| ())
}

#[test]
fn every_operation_fails() {
    for durability in DURABILITIES {
        for stays in [false, true] {
            for k in 0.. {
                let log = Memory::default();
                log.0.lock().unwrap().left = Some(k);
                log.0.lock().unwrap().stays = stays;
                let (acknowledged, end) = run(&log, durability, 12);
                let file = std::mem::take(&mut *log.0.lock().unwrap());
                if !file.fired {
                    assert!(end.is_ok() && k > 20);
                    break;
                }
                let Err(Error::Io { path, errno: Some(28), .. }) = end else {
                    panic!("{k}: {end:?}")
                };
                assert_eq!(path, "memory");
                // The file can be opened again, and goes on.
                let log = Memory::holding(&file.bytes);
                let (done, end) = run(&log, durability, 12);
                assert!(end.is_ok() && done == Some(12), "{k}: {end:?}");
                let (journal, _) = super::support::read(&file.bytes).unwrap();
                assert!(
                    check_prefix(&journal) >= acknowledged.unwrap_or(0),
                    "{k}: an acknowledged shot is lost"
                );
            }
        }
    }
}

/// A disk that is full for a while: the same journal goes on. After a flush that failed, it does
/// not.
#[test]
fn writes_are_tried_again_flushes_are_not() {
    for durability in DURABILITIES {
        let log = Memory::default();
        let mut journal = begin(&log, durability).unwrap();
        shoot(&mut journal, 0).unwrap();
        let before = log.bytes();
        log.0.lock().unwrap().left = Some(0);
        assert!(matches!(
            shoot(&mut journal, 1),
            Err(Error::Io { op: "write", errno: Some(28), .. })
        ));
        assert_eq!(log.bytes(), before, "the write was not taken back");
        shoot(&mut journal, 1).unwrap();
        *log.0.lock().unwrap() =
            super::support::File { bytes: log.bytes(), left: Some(1), ..Default::default() };
        assert!(matches!(journal.mark(), Err(Error::Io { op: "fsync", errno: Some(28), .. })));
        let poisoned = log.bytes();
        assert!(matches!(
            shoot(&mut journal, 2),
            Err(Error::Io { op: "fsync", errno: Some(28), .. })
        ));
        assert!(matches!(journal.mark(), Err(Error::Io { op: "fsync", .. })));
        assert_eq!(log.bytes(), poisoned);
    }
}

#[test]
fn power_cuts() {
    let rounds = count(1_000, 50_000);
    let mut corrupt = 0;
    for seed in 0..rounds {
        let mut rng = Rng(seed);
        let log = Memory::default();
        let mut safe = 0;
        for _ in 0..3 {
            let durability = *rng.choose(&DURABILITIES[..2]);
            let Ok(mut journal) = begin(&log, durability) else {
                // Damage with whole records after it: what was flushed is before it.
                corrupt += 1;
                break;
            };
            let done = check_prefix(&journal);
            assert!(done >= safe, "seed {seed}: {done} of {safe} shots that were on the disk");
            for k in done..done + rng.below(90) as u64 {
                again(&mut journal, k).unwrap();
            }
            if rng.below(4) == 0 {
                journal.mark().unwrap();
            }
            let file = log.0.lock().unwrap();
            let kept = file.bytes[..file.flushed].to_vec();
            drop(file);
            let shots = if kept.is_empty() {
                0
            } else {
                check_prefix(&super::support::read(&kept).unwrap().0)
            };
            safe = shots;
            drop(journal);
            log.cut(&mut rng);
            let mut copy = begin(&Memory::default(), Durability::None).unwrap();
            pnncore::journal::salvage_on(&log, "memory", &mut copy).unwrap();
            let saved =
                copy.shots().iter().filter(|shot| matches!(shot.fate, Fate::Answered(_))).count()
                    as u64;
            assert!(
                saved >= safe,
                "seed {seed}: {saved} of {safe} shots that were on the disk are salvaged"
            );
        }
    }
    assert!(corrupt < rounds, "{corrupt}");
}
