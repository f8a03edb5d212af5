//! Frames: what a journal is made of.

use crc32c::{crc32c, crc32c_append};

/// Length of a frame's header.
pub(super) const HEADER: usize = 24;
/// Length of what follows its payload.
pub(super) const TRAILER: usize = 4;
/// The longest payload: bounds the memory that a hostile length can cost.
pub(super) const MAX_PAYLOAD: usize = 1 << 26;
/// How a frame begins.
pub(super) const MAGIC: [u8; 4] = *b"PnnF";

/// What a record tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A process begins to write.
    RunStart = 1,
    /// A shot is about to be made.
    Intent = 2,
    /// What it measured.
    Result = 3,
    /// That it failed, or answered too late.
    Fail = 4,
    /// The instrument changed its state.
    State = 5,
    /// The hash of all bytes before: what was on the disk when this was written.
    Sync = 6,
    /// A checkpoint was made.
    CheckpointRef = 7,
    /// A process ends to write.
    RunStop = 8,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::RunStart,
        Self::Intent,
        Self::Result,
        Self::Fail,
        Self::State,
        Self::Sync,
        Self::CheckpointRef,
        Self::RunStop,
    ];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u8 == byte)
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) sequence: u64,
    pub(super) length: usize,
    crc: u32,
}

impl Head {
    /// The header in these bytes, if they are one.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.first_chunk()?;
        let (fields, crc) = bytes.split_at(HEADER - 4);
        let crc = u32::from_ne_bytes(crc.try_into().ok()?);
        if fields[..4] != MAGIC || crc32c(fields) != crc || fields[17..20] != [0; 3] {
            return None;
        }
        let length = u32::from_ne_bytes(fields[4..8].try_into().ok()?) as usize;
        let sequence = u64::from_ne_bytes(fields[8..16].try_into().ok()?);
        let kind = Kind::of(fields[16])?;
        (length <= MAX_PAYLOAD).then_some(Self { kind, sequence, length, crc })
    }

    /// The length of the whole frame.
    pub(super) fn frame(&self) -> u64 {
        (HEADER + self.length + TRAILER) as u64
    }

    /// Whether these bytes, payload and trailer, belong to the header.
    pub(super) fn fits(&self, rest: &[u8]) -> bool {
        let Some((payload, crc)) = rest.split_last_chunk::<TRAILER>() else { return false };
        payload.len() == self.length && crc32c_append(self.crc, payload) == u32::from_ne_bytes(*crc)
    }
}

/// Appends a frame whose payload comes in parts.
pub(super) fn encode(kind: Kind, sequence: u64, payload: &[&[u8]], out: &mut Vec<u8>) {
    let start = out.len();
    let length: usize = payload.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&(length as u32).to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&[kind as u8, 0, 0, 0]);
    let head = crc32c(&out[start..]);
    out.extend_from_slice(&head.to_ne_bytes());
    let crc = payload.iter().fold(head, |crc, part| crc32c_append(crc, part));
    payload.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(&crc.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        for kind in Kind::ALL {
            let mut bytes = Vec::new();
            encode(kind, 7, &[b"pay", b"load"], &mut bytes);
            let head = Head::parse(&bytes).expect("a header");
            assert_eq!((head.kind, head.sequence, head.length), (kind, 7, 7));
            assert_eq!(head.frame(), bytes.len() as u64);
            assert!(head.fits(&bytes[HEADER..]));
            assert!(!head.fits(&bytes[HEADER + 1..]));
        }
    }

    #[test]
    fn no_page_of_one_byte_is_a_frame() {
        for byte in 0..=255 {
            assert_eq!(Head::parse(&[byte; 4096]), None);
        }
    }
}
