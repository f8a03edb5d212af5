//! What the tests of files share.

use std::path::Path;

/// `normal`, or `torture` when `PNNCORE_TORTURE=1`.
pub(crate) fn count(normal: u64, torture: u64) -> u64 {
    if std::env::var_os("PNNCORE_TORTURE").is_some_and(|v| v == "1") { torture } else { normal }
}

/// `SplitMix64`.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Cuts, repeats, moves and overwrites bytes, with some of `fills` and up to `tail` zeros at the
/// end; now and then `other` does it, given a place.
pub(crate) fn change_bytes(
    rng: &mut Rng,
    bytes: &mut Vec<u8>,
    fills: &[u8],
    tail: usize,
    other: impl FnOnce(&mut Rng, &mut Vec<u8>, usize),
) {
    if bytes.is_empty() {
        return;
    }
    let at = rng.below(bytes.len());
    let end = (at + 1 + rng.below(24)).min(bytes.len());
    match rng.below(8) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = rng.next() as u8,
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let part = bytes[at..end].to_vec();
            let to = rng.below(bytes.len());
            bytes.splice(to..to, part);
        }
        5 => bytes[at..end].fill(*rng.choose(fills)),
        6 => bytes.extend(std::iter::repeat_n(0, rng.below(tail))),
        _ => other(rng, bytes, at),
    }
}

/// The variable that tells a writer where to write.
pub(crate) const DIR: &str = "PNNCORE_TEST_WRITER_DIR";

/// Starts the test `kill::writer_process` in a process of its own that writes into `dir`, kills it
/// within so many microseconds after it is ready, and gives the number of the last line `wrote ...`
/// that it ended.
#[cfg(unix)]
pub(crate) fn kill_writer(rng: &mut Rng, dir: &Path, micros: usize) -> Option<u64> {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::writer_process", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while line.trim() != "ready" {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the writer ended");
    }
    let instant = Instant::now() + Duration::from_micros(rng.below(micros) as u64);
    while Instant::now() < instant {
        std::thread::sleep(Duration::from_micros(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    let whole = &rest[..rest.rfind('\n').map_or(0, |end| end + 1)];
    let last = whole.lines().filter_map(|line| line.strip_prefix("wrote ")).next_back();
    last.map(|number| number.parse().unwrap())
}
