//! What is written is read back, and is what the documentation says.

use pnncore::Error;
use pnncore::journal::{
    Durability, End, FORMAT_VERSION, Fate, Journal, Kind, MARK, Purpose, Record, SIGNATURE, salvage,
};
use sha2::{Digest, Sha256};

use super::support::{Memory, begin, check_prefix, content, read, records, sample, shoot, values};

#[test]
fn shots_come_back() {
    let bytes = sample(10);
    let (journal, end) = read(&bytes).unwrap();
    assert_eq!(end, End::Clean);
    assert_eq!(check_prefix(&journal), 10);
    assert_eq!(journal.spent(), (12, 10 * 9 + 2 * 7));
    assert_eq!(journal.shots()[4].attempts, 2);
    // Parameters are written where they change.
    assert_eq!(journal.shots()[0].params, journal.shots()[2].params);
    assert_ne!(journal.shots()[0].params, journal.shots()[3].params);
}

/// The format, read after its documentation.
#[test]
fn the_format_is_the_documented_one() {
    let bytes = sample(3);
    let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(&bytes[..8], SIGNATURE);
    assert_eq!((u32_at(8), u32_at(12)), (FORMAT_VERSION, MARK));
    let mut at = 16;
    let mut kinds = Vec::new();
    while at < bytes.len() {
        assert_eq!(&bytes[at..at + 4], b"PnnF");
        let (length, kind) = (u32_at(at + 4) as usize, bytes[at + 16]);
        assert_eq!(u64_at(at + 8), kinds.len() as u64);
        assert_eq!(bytes[at + 17..at + 20], [0; 3]);
        let head = crc32c::crc32c(&bytes[at..at + 20]);
        assert_eq!(u32_at(at + 20), head);
        let payload = &bytes[at + 24..at + 24 + length];
        assert_eq!(u32_at(at + 24 + length), crc32c::crc32c_append(head, payload));
        if kind == 6 {
            assert_eq!(payload, Sha256::digest(&bytes[..at]).as_slice());
        }
        if kind == 2 && kinds.len() == 1 {
            let (x, params, _) = content(0);
            assert_eq!((u64_at(at + 24), u32_at(at + 32)), (0, 0));
            assert_eq!(payload[12..16], [0; 4]);
            assert_eq!((u64_at(at + 40), u64_at(at + 48)), (5, 1));
            assert_eq!((u32_at(at + 56), u32_at(at + 60)), (2, 3));
            assert_eq!(payload[40..], [x, params].concat());
        }
        kinds.push(kind);
        at += 28 + length;
    }
    assert_eq!(kinds, [1, 2, 6, 3, 6, 2, 6, 3, 6, 2, 6, 3, 6, 8]);
}

#[test]
fn opening_again_goes_on() {
    let log = Memory::default();
    let mut journal = begin(&log, Durability::None).unwrap();
    (0..5).for_each(|k| shoot(&mut journal, k).unwrap());
    drop(journal);
    let mut journal = begin(&log, Durability::None).unwrap();
    (5..9).for_each(|k| shoot(&mut journal, k).unwrap());
    assert_eq!(check_prefix(&journal), 9);
    assert_eq!(check_prefix(&read(&log.bytes()).unwrap().0), 9);
}

#[test]
fn marks_are_found_again() {
    let log = Memory::default();
    let mut journal = begin(&log, Durability::None).unwrap();
    shoot(&mut journal, 0).unwrap();
    let (sequence, hash) = journal.mark().unwrap();
    shoot(&mut journal, 1).unwrap();
    let (journal, _) = read(&log.bytes()).unwrap();
    journal.check_mark(sequence, hash).unwrap();
    for (sequence, hash) in
        [(sequence - 1, hash), (sequence, [0; 32]), (99, hash), (u64::MAX, hash)]
    {
        let Err(Error::Journal(message)) = journal.check_mark(sequence, hash) else { panic!() };
        assert!(message.contains("not the journal that the checkpoint was made with"), "{message}");
    }
}

#[test]
fn what_cannot_follow_is_not_written() {
    let log = Memory::default();
    let mut journal = begin(&log, Durability::None).unwrap();
    let (x, params, y) = content(0);
    let before = log.bytes();
    let (x, y) = (values(&x, 3), values(&y, 2));
    for record in [
        Record::Result { shot: 0, attempt: 0, duration: 0, y },
        Record::Fail { shot: 0, attempt: 0, duration: 0, text: "{}" },
        Record::Intent {
            shot: 1,
            attempt: 0,
            purpose: Purpose::Run,
            time: 0,
            x,
            params_at: 1,
            params: &params,
        },
        Record::Intent {
            shot: 0,
            attempt: 1,
            purpose: Purpose::Run,
            time: 0,
            x,
            params_at: 1,
            params: &params,
        },
        Record::Intent {
            shot: 0,
            attempt: 0,
            purpose: Purpose::Run,
            time: 0,
            x,
            params_at: 0,
            params: &[],
        },
        Record::Sync { hash: [1; 32] },
    ] {
        assert!(matches!(journal.append(&record), Err(Error::Journal(_))), "{record:?}");
    }
    assert_eq!(log.bytes(), before);
    shoot(&mut journal, 0).unwrap();
    // An answer cannot come twice.
    let twice = Record::Result { shot: 0, attempt: 0, duration: 0, y };
    assert!(matches!(journal.append(&twice), Err(Error::Journal(_))));
    let large = vec![0; 1 << 27];
    let large = journal
        .append(&Record::Note { kind: Kind::State, text: std::str::from_utf8(&large).unwrap() });
    assert!(matches!(large, Err(Error::Journal(message)) if message.contains("smaller batches")));
}

#[test]
fn groups_are_flushed_in_time() {
    for (durability, most) in
        [(Durability::Group, 64), (Durability::Shot, 0), (Durability::None, u64::MAX)]
    {
        let log = Memory::default();
        let mut journal = begin(&log, durability).unwrap();
        let mut flushed = 0;
        for k in 0..200 {
            shoot(&mut journal, k).unwrap();
            let file = log.0.lock().unwrap();
            let safe = file.bytes[..file.flushed].to_vec();
            drop(file);
            flushed = if safe.is_empty() { 0 } else { check_prefix(&read(&safe).unwrap().0) };
            assert!(k + 1 - flushed <= most, "{durability:?}: {flushed} of {} are safe", k + 1);
        }
        assert!(durability != Durability::None || flushed == 0);
    }
}

#[test]
fn files_are_opened_by_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shots.pnj");
    let (mut journal, aside) = Journal::append_to(&path, Durability::Group).unwrap();
    assert_eq!(aside, None);
    shoot(&mut journal, 0).unwrap();
    let Err(Error::Journal(message)) = Journal::append_to(&path, Durability::Group) else {
        panic!()
    };
    assert!(message.contains("another process or object appends to it"), "{message}");
    // Readers need no lock.
    let (reader, end) = Journal::read(&path).unwrap();
    assert_eq!((check_prefix(&reader), end), (1, End::Clean));
    drop(journal);
    Journal::append_to(&path, Durability::Group).unwrap();
    let Err(Error::Io { op: "open", errno: Some(2), .. }) = Journal::read(dir.path().join("no"))
    else {
        panic!()
    };
    let Err(Error::Io { op: "open", .. }) = Journal::append_to(dir.path(), Durability::Group)
    else {
        panic!()
    };
}

#[test]
fn torn_ends_are_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shots.pnj");
    let bytes = sample(4);
    let whole = read(&bytes).unwrap().0.entries()[11].offset;
    std::fs::write(&path, &bytes[..whole as usize + 30]).unwrap();
    assert_eq!(Journal::read(&path).unwrap().1, End::Torn { at: whole });
    let (journal, aside) = Journal::append_to(&path, Durability::None).unwrap();
    assert_eq!(journal.shots()[2].fate, Fate::Unresolved);
    let aside = aside.unwrap();
    assert_eq!(aside, format!("{}.torn-{whole}", path.display()));
    assert_eq!(std::fs::read(aside).unwrap(), bytes[whole as usize..whole as usize + 30]);
    assert_eq!(std::fs::read(&path).unwrap(), bytes[..whole as usize]);
}

/// Several torn ends that begin at one place: none takes the place of another, or of what a link
/// leads to.
#[cfg(unix)]
#[test]
fn no_torn_end_takes_the_place_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let (path, precious) = (dir.path().join("shots.pnj"), dir.path().join("precious"));
    let bytes = sample(4);
    let whole = read(&bytes).unwrap().0.entries()[11].offset as usize;
    std::fs::write(&precious, "precious").unwrap();
    let name = |suffix: &str| format!("{}.torn-{whole}{suffix}", path.display());
    std::os::unix::fs::symlink(&precious, name("-2")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("nowhere"), name("-3")).unwrap();
    for (suffix, n) in [("", 30), ("-1", 20), ("-4", 25)] {
        std::fs::write(&path, &bytes[..whole + n]).unwrap();
        let aside = Journal::append_to(&path, Durability::None).unwrap().1.unwrap();
        assert_eq!(aside, name(suffix));
        assert_eq!(std::fs::read(&path).unwrap(), bytes[..whole]);
    }
    for (suffix, n) in [("", 30), ("-1", 20), ("-4", 25)] {
        assert_eq!(std::fs::read(name(suffix)).unwrap(), bytes[whole..whole + n]);
    }
    assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
    assert!(!dir.path().join("nowhere").exists());
    // A copy that is salvaged follows no link, either.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
    let refusal = salvage(&path, &link);
    assert!(matches!(refusal, Err(Error::Journal(message)) if message.contains("it exists")));
    assert!(!dir.path().join("elsewhere").exists());
}

/// Nothing is opened that would wait, and nothing is written into a device.
#[cfg(unix)]
#[test]
fn only_files_are_journals() {
    let dir = tempfile::tempdir().unwrap();
    let [fifo, loop_a, loop_b] = ["fifo", "a", "b"].map(|name| dir.path().join(name));
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    std::os::unix::fs::symlink(&loop_a, &loop_b).unwrap();
    std::os::unix::fs::symlink(&loop_b, &loop_a).unwrap();
    for path in [
        &fifo,
        &loop_a,
        std::path::Path::new("/dev/null"),
        std::path::Path::new("/dev/zero"),
        dir.path(),
    ] {
        assert!(
            matches!(Journal::append_to(path, Durability::None), Err(Error::Io { op: "open", .. })),
            "{path:?}"
        );
        assert!(matches!(Journal::read(path), Err(Error::Io { op: "open", .. })), "{path:?}");
    }
}

#[test]
fn what_is_whole_is_salvaged() {
    let dir = tempfile::tempdir().unwrap();
    let (path, copy) = (dir.path().join("shots.pnj"), dir.path().join("copy.pnj"));
    let mut bytes = sample(9);
    let (whole, _) = read(&bytes).unwrap();
    let lost = whole.shots()[3];
    let at = whole.entries()[lost.intent as usize].offset as usize + 50;
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let Err(Error::Journal(message)) = Journal::append_to(&path, Durability::None) else {
        panic!()
    };
    assert!(message.contains("damaged at byte") && message.contains("salvage()"), "{message}");
    assert!(Journal::read(&path).is_err());
    let found = salvage(&path, &copy).unwrap();
    // The lost intent held the parameters of the next two shots, too.
    assert_eq!((found.shots, found.dropped, found.gaps.len()), (6, 6, 1));
    assert!(found.gaps[0].contains(&(at as u64)));
    let (saved, end) = Journal::read(&copy).unwrap();
    assert_eq!(end, End::Clean);
    let sent = [0, 1, 2, 6, 7, 8];
    let kept = |journal: &Journal, k: usize| match journal.shots()[k].fate {
        Fate::Answered(at) => journal.with_record(at, |record| match record {
            Record::Result { y, .. } => y.bytes == content(sent[k]).2,
            _ => false,
        }),
        other => panic!("{other:?}"),
    };
    (0..6).for_each(|k| assert!(kept(&saved, k).unwrap(), "{k}"));
    assert_eq!(records(&saved).iter().filter(|r| r.contains("RunStart")).count(), 1);
    let Err(Error::Journal(message)) = salvage(&path, &copy) else { panic!() };
    assert!(message.contains("it exists"), "{message}");
}

#[test]
fn foreign_files_say_so() {
    let bytes = sample(1);
    assert!(read(b"\x89PNG\r\n\x1a\n and so on").err().unwrap().contains("no pnncore journal"));
    let mut newer = bytes.clone();
    newer[8..12].copy_from_slice(&2_u32.to_ne_bytes());
    assert!(read(&newer).err().unwrap().contains("version 2; this pnncore reads version 1"));
    let mut swapped = bytes;
    swapped[12..16].reverse();
    assert!(read(&swapped).err().unwrap().contains("another order of bytes"));
}
