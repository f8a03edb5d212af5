//! The writer accepts what the reader accepts, no more and no less.

use pnncore::Error;
use pnncore::journal::{Durability, End, Journal, Kind, Purpose, Record, Values};

use super::common::{Rng, count};
use super::support::{Memory, begin, read};

/// Texts: JSON objects, and what looks like some.
const TEXTS: [&str; 18] = [
    "{}",
    r#"{"reason":"exception","text":"lamp off"}"#,
    r#"{"text":"\u0000\u001f\uffff\ud83d\ude00 \u00b5"}"#,
    r#"{"a":[1,2.5,-0.0,1e308,null,true],"b":{"c":{}}}"#,
    r#"{"a":1,"a":2}"#,
    r#" {"a" : 18446744073709551616} "#,
    r#"{"text":"\ud800"}"#,
    r#"{"text":"\udc80\udc80"}"#,
    r#"{"output_range":[0.0,Infinity]}"#,
    r#"{"output_range":[-Infinity,0.0]}"#,
    r#"{"x":NaN}"#,
    r#"{"x":1e999}"#,
    r#"{"x":1}{"#,
    "[]",
    "null",
    "",
    "{\"a\":\"\u{0}\"}",
    "{'a':1}",
];

/// What records are made of; texts and numbers live as long as the record does.
struct Parts {
    text: String,
    x: Vec<u8>,
    params: Vec<u8>,
    shape: (bool, u32, u32),
}

impl Parts {
    fn new(rng: &mut Rng) -> Self {
        let mut text = rng.choose(&TEXTS).to_string();
        if rng.below(8) == 0 {
            // A number of levels around the one that a parser bears.
            let levels = 100 + rng.below(60);
            text = format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        }
        let shape = (rng.below(2) == 0, rng.below(4) as u32, rng.below(4) as u32);
        let whole = (shape.1 * shape.2) as usize * if shape.0 { 8 } else { 4 };
        let n = if rng.below(4) == 0 { rng.below(64) } else { whole };
        let params = (0..rng.below(3) * 8).map(|_| rng.next() as u8).collect();
        Self { text, x: (0..n).map(|_| rng.next() as u8).collect(), params, shape }
    }

    fn values(&self) -> Values<'_> {
        let (double, rows, columns) = self.shape;
        Values { double, rows, columns, bytes: &self.x }
    }

    /// A record of any kind, mostly one that could follow.
    fn record(&self, rng: &mut Rng, journal: &Journal) -> Record<'_> {
        let shots = journal.shots();
        let last = shots.len().saturating_sub(1) as u64;
        let mut near =
            |value: u64| if rng.below(6) == 0 { rng.next() >> rng.below(64) } else { value };
        let (shot, duration) = (near(last), near(9));
        let attempt = near(shots.last().map_or(0, |shot| u64::from(shot.attempts - 1))) as u32;
        let (sequence, time) = (near(journal.entries().len() as u64), near(5));
        match rng.below(5) {
            0 => {
                let purposes = [Purpose::Run, Purpose::Reference, Purpose::Check, Purpose::Predict];
                let (shot, attempt) = *rng.choose(&[(shots.len() as u64, 0), (shot, attempt + 1)]);
                let purpose = *rng.choose(&purposes);
                let params = &self.params;
                Record::Intent {
                    shot,
                    attempt,
                    purpose,
                    time,
                    x: self.values(),
                    params_at: sequence,
                    params,
                }
            }
            1 => Record::Result { shot, attempt, duration, y: self.values() },
            2 => Record::Fail { shot, attempt, duration, text: &self.text },
            3 => Record::Sync { hash: [rng.next() as u8; 32] },
            _ => Record::Note { kind: *rng.choose(&Kind::ALL), text: &self.text },
        }
    }
}

#[test]
fn what_is_written_is_read() {
    let (mut accepted, mut refused) = ([0; 5], 0);
    for seed in 0..count(300, 20_000) {
        let mut rng = Rng(seed);
        let log = Memory::default();
        let mut journal = begin(&log, Durability::None).unwrap();
        for _ in 0..20 {
            let parts = Parts::new(&mut rng);
            let record = parts.record(&mut rng, &journal);
            let before = log.bytes();
            match journal.append(&record) {
                Ok(sequence) => {
                    let (found, end) = read(&log.bytes())
                        .unwrap_or_else(|why| panic!("seed {seed}: {record:?}: {why}"));
                    assert_eq!(
                        (end, found.entries().len() as u64),
                        (End::Clean, sequence + 1),
                        "seed {seed}: {record:?}"
                    );
                    let same = found.with_record(sequence, |other| other == record);
                    assert!(same.unwrap(), "seed {seed}: {record:?} is read otherwise");
                    accepted[rng_kind(&record)] += 1;
                }
                Err(Error::Journal(_)) => {
                    assert_eq!(
                        log.bytes(),
                        before,
                        "seed {seed}: {record:?} was refused, and written"
                    );
                    refused += 1;
                }
                Err(other) => panic!("seed {seed}: {other:?}"),
            }
        }
        // Whatever was refused, the journal goes on.
        super::support::begin(&Memory::holding(&log.bytes()), Durability::Group).unwrap();
        journal.append(&Record::Note { kind: Kind::RunStop, text: "{}" }).unwrap();
    }
    assert!(refused > 1000 && accepted.iter().all(|&n| n > 50), "{refused} {accepted:?}");
}

/// The variant of a record; marks are written as they are due.
fn rng_kind(record: &Record<'_>) -> usize {
    match record {
        Record::Intent { .. } => 0,
        Record::Result { .. } => 1,
        Record::Fail { .. } => 2,
        Record::Note { kind: Kind::State, .. } => 3,
        Record::Note { .. } | Record::Sync { .. } => 4,
    }
}

/// What is too long is refused before it is copied, by the shape alone if need be.
#[test]
fn what_is_too_long_is_refused() {
    let log = Memory::default();
    let mut journal = begin(&log, Durability::None).unwrap();
    let before = log.bytes();
    let long = "x".repeat(1 << 26);
    let text = format!("{{\"text\":\"{long}\"}}");
    for text in [&text[..], &long[..]] {
        let message =
            journal.append(&Record::Note { kind: Kind::State, text }).unwrap_err().to_string();
        assert!(message.len() < 400, "the message holds the record");
        assert_eq!(log.bytes(), before);
    }
    let most = format!("{{\"text\":\"{}\"}}", &long[..(1 << 26) - 11]);
    journal.append(&Record::Note { kind: Kind::State, text: &most }).unwrap();
    assert_eq!(read(&log.bytes()).unwrap().1, End::Clean);
}
