//! Files that were cut, changed or made up.

use pnncore::journal::{End, Journal};
use sha2::{Digest, Sha256};

use super::common::{self, Rng, count};
use super::support::{Memory, check_prefix, read, records, sample};

#[test]
fn every_truncation() {
    let bytes = sample(6);
    let (whole, _) = read(&bytes).unwrap();
    let all = records(&whole);
    let ends: Vec<usize> =
        whole.entries().iter().map(|e| (e.offset + 28) as usize + e.length as usize).collect();
    for len in 0..bytes.len() {
        let (found, end) = read(&bytes[..len]).unwrap();
        let kept = ends.iter().filter(|&&end| end <= len).count();
        assert_eq!(records(&found), all[..kept]);
        let clean = len == 0 || len == 16 || ends.contains(&len);
        assert_eq!(end == End::Clean, clean, "{len}");
        if !clean {
            let at = if len < 16 { 0 } else { *ends[..kept].last().unwrap_or(&16) as u64 };
            assert_eq!(end, End::Torn { at });
        }
    }
}

#[test]
fn every_change_of_a_byte() {
    let bytes = sample(2);
    let all = records(&read(&bytes).unwrap().0);
    for at in 0..bytes.len() {
        for value in 0..=255 {
            if value == bytes[at] {
                continue;
            }
            let mut changed = bytes.clone();
            changed[at] = value;
            // Only damage of the last record looks like a torn end.
            if let Ok((found, end)) = read(&changed) {
                assert!(matches!(end, End::Torn { .. }), "{at} {value}");
                assert_eq!(records(&found), all[..all.len() - 1], "{at} {value}");
            }
        }
    }
}

/// Where frames begin, and where the last one ends.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let (journal, _) = read(bytes).unwrap();
    let mut starts: Vec<usize> =
        journal.entries().iter().map(|entry| entry.offset as usize).collect();
    starts.push(bytes.len());
    starts
}

/// Writes numbers and checksums anew: a forger who does not know of the hash.
fn sign(bytes: &mut [u8], hashes: bool) {
    let (mut at, mut sequence) = (16, 0_u64);
    while at + 28 <= bytes.len() && bytes[at..at + 4] == *b"PnnF" {
        let length = u32::from_ne_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        if at + 28 + length > bytes.len() {
            break;
        }
        bytes[at + 8..at + 16].copy_from_slice(&sequence.to_ne_bytes());
        if hashes && bytes[at + 16] == 6 && length == 32 {
            let hash = Sha256::digest(&bytes[..at]);
            bytes[at + 24..at + 56].copy_from_slice(&hash);
        }
        let head = crc32c::crc32c(&bytes[at..at + 20]);
        bytes[at + 20..at + 24].copy_from_slice(&head.to_ne_bytes());
        let crc = crc32c::crc32c_append(head, &bytes[at + 24..at + 24 + length]);
        bytes[at + 24 + length..at + 28 + length].copy_from_slice(&crc.to_ne_bytes());
        at += 28 + length;
        sequence += 1;
    }
}

#[test]
fn records_that_were_taken_out_or_moved_are_missed() {
    let bytes = sample(6);
    let starts = frames(&bytes);
    for k in 0..starts.len() - 2 {
        for signed in [false, true] {
            let mut without = bytes.clone();
            without.drain(starts[k]..starts[k + 1]);
            let mut moved = bytes.clone();
            moved[starts[k]..starts[k + 2]].rotate_left(starts[k + 1] - starts[k]);
            for mut changed in [without, moved] {
                if signed {
                    sign(&mut changed, false);
                }
                // What comes after the last hash is told apart by numbers alone.
                if !signed || k + 3 < starts.len() {
                    assert!(read(&changed).is_err(), "{k} {signed}");
                }
            }
        }
    }
}

/// Headers that overlap, each announcing the longest payload: looking into all of them would take
/// hours.
#[test]
fn hostile_lengths_take_no_time_or_memory() {
    let mut bytes = sample(1)[..16].to_vec();
    while bytes.len() < 8 << 20 {
        let start = bytes.len();
        bytes.extend(b"PnnF");
        bytes.extend((1_u32 << 26).to_ne_bytes());
        bytes.extend(0_u64.to_ne_bytes());
        bytes.extend([2, 0, 0, 0]);
        bytes.extend(crc32c::crc32c(&bytes[start..]).to_ne_bytes());
    }
    let message = read(&bytes).err().unwrap();
    assert!(message.contains("damaged at byte 16"), "{message}");
}

/// Beginnings of frames, of headers and of whole frames, everywhere: the work is in proportion to
/// the length of the file.
#[test]
fn scanning_is_linear() {
    let head = |length: u32| {
        let mut bytes = b"PnnF".to_vec();
        bytes.extend(length.to_ne_bytes());
        bytes.extend(0_u64.to_ne_bytes());
        bytes.extend([2, 0, 0, 0]);
        bytes.extend(crc32c::crc32c(&bytes).to_ne_bytes());
        bytes
    };
    let mut patterns =
        vec![b"PnnF".to_vec(), b"P".to_vec(), b"PnnFPnn".to_vec(), vec![0], b"Pnn".to_vec()];
    patterns.extend(
        [0, 1, 28, 1000, 1 << 16, 900_000, (1 << 20) - 30, 1 << 20, 1 << 21, 1 << 26].map(head),
    );
    for pattern in patterns {
        for whole in [0, 3] {
            let mut bytes = sample(whole);
            bytes.extend(b"torn");
            let begin = bytes.len();
            bytes.extend(pattern.iter().copied().cycle().take(count(4 << 20, 64 << 20) as usize));
            let log = Memory::holding(&bytes);
            let _ = Journal::read_on(Box::new(log.clone()), "memory".into());
            let mut copy =
                super::support::begin(&Memory::default(), pnncore::journal::Durability::None)
                    .unwrap();
            let scanned = log.0.lock().unwrap().reads;
            pnncore::journal::salvage_on(&log, "memory", &mut copy).unwrap();
            let salvaged = log.0.lock().unwrap().reads;
            assert_eq!(copy.shots().len() as u64, whole);
            for (reads, looked) in [scanned, (salvaged.0 - scanned.0, salvaged.1 - scanned.1)] {
                let most = 16 * bytes.len() as u64;
                let name = String::from_utf8_lossy(&pattern[..pattern.len().min(8)]).into_owned();
                assert!(
                    looked < most,
                    "{name:?} from {begin}: {looked} bytes read of {}",
                    bytes.len()
                );
                assert!(reads < 200, "{name:?} from {begin}: {reads} reads");
            }
        }
    }
}

#[test]
fn mutations() {
    let rounds = count(10_000, 1_000_000);
    let originals = [sample(0), sample(2), sample(7)];
    let (mut exact, mut forged) = (0, 0);
    for seed in 0..rounds {
        let mut rng = Rng(seed);
        let original = rng.choose(&originals).clone();
        let mut bytes = original.clone();
        for _ in 0..=rng.below(3) {
            if rng.below(2) == 0 {
                change_frames(&mut rng, &mut bytes)
            } else {
                change_bytes(&mut rng, &mut bytes)
            }
        }
        let hashes = rng.below(2) == 0;
        let signed = rng.below(2) == 0;
        if signed {
            sign(&mut bytes, hashes);
        }
        let Ok((found, _)) = read(&bytes) else { continue };
        // Every record can be read again.
        let now = records(&found);
        if signed {
            forged += 1;
        } else {
            let all = records(&read(&original).unwrap().0);
            assert_eq!(now, all[..now.len()], "seed {seed}: changed content was read");
            check_prefix(&found);
            exact += 1;
        }
    }
    assert!(exact > rounds / 50 && forged > rounds / 50, "{exact} {forged}");
}

/// Takes out, repeats or moves a frame, or one of another journal.
fn change_frames(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let Ok((journal, _)) = read(bytes) else { return change_bytes(rng, bytes) };
    let entries = journal.entries();
    if entries.is_empty() {
        return;
    }
    let range = |k: usize| {
        let start = entries[k].offset as usize;
        start..start + 28 + entries[k].length as usize
    };
    let (from, to) = (range(rng.below(entries.len())), range(rng.below(entries.len())));
    let frame = bytes[from.clone()].to_vec();
    match rng.below(3) {
        0 => drop(bytes.drain(from)),
        1 => drop(bytes.splice(to.start..to.start, frame)),
        _ => drop(bytes.splice(to, frame)),
    }
}

/// Changes bytes, or writes a length: anywhere.
fn change_bytes(rng: &mut Rng, bytes: &mut Vec<u8>) {
    common::change_bytes(rng, bytes, &[0, 0xff, b'P', b'F'], 5000, |rng, bytes, at| {
        let len = *rng.choose(&[0, 1, 8, 1 << 20, 1 << 26, (1 << 26) + 1, u32::MAX]);
        for (to, from) in bytes[at..].iter_mut().zip(len.to_ne_bytes()) {
            *to = from;
        }
    });
}
