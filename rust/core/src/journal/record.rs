//! Records: what the payloads of frames say.

use super::frame::Kind;

/// What a shot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// Training and inference.
    Run = 0,
    /// Seeing whether the instrument drifts.
    Reference = 1,
    /// Examining the instrument.
    Check = 2,
    /// Looking at what it does, beside a run.
    Predict = 3,
}

impl Purpose {
    fn of(byte: u8) -> Option<Self> {
        [Self::Run, Self::Reference, Self::Check, Self::Predict]
            .into_iter()
            .find(|&purpose| purpose as u8 == byte)
    }
}

/// A matrix of numbers, row by row, as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Values<'a> {
    /// Whether numbers have 8 bytes, not 4.
    pub double: bool,
    /// The number of rows.
    pub rows: u32,
    /// The number of columns.
    pub columns: u32,
    /// The numbers, in the order of bytes of the machine.
    pub bytes: &'a [u8],
}

impl Values<'_> {
    /// Whether there are as many bytes as the shape needs.
    pub fn is_whole(&self) -> bool {
        let size = if self.double { 8 } else { 4 };
        u64::from(self.rows).checked_mul(u64::from(self.columns)).and_then(|n| n.checked_mul(size))
            == Some(self.bytes.len() as u64)
    }
}

/// A record of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// A shot is about to be made.
    Intent {
        /// Its number.
        shot: u64,
        /// How often it was tried before.
        attempt: u32,
        /// What it is for.
        purpose: Purpose,
        /// Nanoseconds since 1970.
        time: u64,
        /// The inputs.
        x: Values<'a>,
        /// The number of the record that holds the parameters: this one, or an earlier intent.
        params_at: u64,
        /// The parameters, where this record holds them.
        params: &'a [u8],
    },
    /// What a shot measured.
    Result {
        /// Its number.
        shot: u64,
        /// The attempt.
        attempt: u32,
        /// How long it took, in nanoseconds.
        duration: u64,
        /// The outputs.
        y: Values<'a>,
    },
    /// That an attempt failed, or answered too late.
    Fail {
        /// The number of the shot.
        shot: u64,
        /// The attempt.
        attempt: u32,
        /// How long it took, in nanoseconds.
        duration: u64,
        /// What happened: a JSON object.
        text: &'a str,
    },
    /// The hash of all bytes before.
    Sync {
        /// SHA-256.
        hash: [u8; 32],
    },
    /// Any other kind: a JSON object.
    Note {
        /// The kind.
        kind: Kind,
        /// The JSON object.
        text: &'a str,
    },
}

const INTENT: usize = 40;
const RESULT: usize = 32;
const FAIL: usize = 24;

/// Reads fields one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn bytes(&mut self, n: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(n).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    /// A matrix of this shape.
    fn values(&mut self, double: bool, rows: u32, columns: u32) -> Option<Values<'a>> {
        let size = if double { 8 } else { 4 };
        let n = u64::from(rows).checked_mul(u64::from(columns))?.checked_mul(size)?;
        Some(Values { double, rows, columns, bytes: self.bytes(n)? })
    }
}

fn flag(byte: u8) -> Option<bool> {
    (byte < 2).then_some(byte == 1)
}

fn object(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).ok().map(|_| text)
}

impl<'a> Record<'a> {
    /// The kind of the record.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Intent { .. } => Kind::Intent,
            Self::Result { .. } => Kind::Result,
            Self::Fail { .. } => Kind::Fail,
            Self::Sync { .. } => Kind::Sync,
            Self::Note { kind, .. } => *kind,
        }
    }

    /// The record in a payload, if it is one.
    pub(super) fn parse(kind: Kind, payload: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        let record = match kind {
            Kind::Intent => {
                let (shot, attempt) = (fields.u64()?, fields.u32()?);
                let [purpose, double, zero @ ..] = fields.take::<4>()?;
                let (purpose, double) = (Purpose::of(purpose)?, flag(double)?);
                let (time, params_at) = (fields.u64()?, fields.u64()?);
                let (rows, columns) = (fields.u32()?, fields.u32()?);
                let x = fields.values(double, rows, columns)?;
                let params = std::mem::take(&mut fields.0);
                (zero == [0; 2]).then_some(Self::Intent {
                    shot,
                    attempt,
                    purpose,
                    time,
                    x,
                    params_at,
                    params,
                })?
            }
            Kind::Result => {
                let (shot, attempt) = (fields.u64()?, fields.u32()?);
                let [double, zero @ ..] = fields.take::<4>()?;
                let double = flag(double)?;
                let duration = fields.u64()?;
                let (rows, columns) = (fields.u32()?, fields.u32()?);
                let y = fields.values(double, rows, columns)?;
                (zero == [0; 3]).then_some(Self::Result { shot, attempt, duration, y })?
            }
            Kind::Fail => {
                let (shot, attempt, zero, duration) =
                    (fields.u64()?, fields.u32()?, fields.u32()?, fields.u64()?);
                let text = object(std::mem::take(&mut fields.0))?;
                (zero == 0).then_some(Self::Fail { shot, attempt, duration, text })?
            }
            Kind::Sync => Self::Sync { hash: fields.take()? },
            kind => Self::Note { kind, text: object(std::mem::take(&mut fields.0))? },
        };
        fields.0.is_empty().then_some(record)
    }

    /// Calls `write` with the payload, in parts.
    pub(super) fn payload<R>(&self, write: impl FnOnce(&[&[u8]]) -> R) -> R {
        let mut head = [0; INTENT];
        let mut end = 0;
        let mut put = |bytes: &[u8]| {
            head[end..end + bytes.len()].copy_from_slice(bytes);
            end += bytes.len();
        };
        match *self {
            Self::Intent { shot, attempt, purpose, time, x, params_at, params } => {
                put(&shot.to_ne_bytes());
                put(&attempt.to_ne_bytes());
                put(&[purpose as u8, u8::from(x.double), 0, 0]);
                put(&time.to_ne_bytes());
                put(&params_at.to_ne_bytes());
                put(&x.rows.to_ne_bytes());
                put(&x.columns.to_ne_bytes());
                write(&[&head, x.bytes, params])
            }
            Self::Result { shot, attempt, duration, y } => {
                put(&shot.to_ne_bytes());
                put(&attempt.to_ne_bytes());
                put(&[u8::from(y.double), 0, 0, 0]);
                put(&duration.to_ne_bytes());
                put(&y.rows.to_ne_bytes());
                put(&y.columns.to_ne_bytes());
                write(&[&head[..RESULT], y.bytes])
            }
            Self::Fail { shot, attempt, duration, text } => {
                put(&shot.to_ne_bytes());
                put(&attempt.to_ne_bytes());
                put(&[0; 4]);
                put(&duration.to_ne_bytes());
                write(&[&head[..FAIL], text.as_bytes()])
            }
            Self::Sync { hash } => write(&[&hash]),
            Self::Note { text, .. } => write(&[text.as_bytes()]),
        }
    }
}
