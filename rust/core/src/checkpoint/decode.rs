//! From bytes to content; the bytes may be anything.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::tensor::{Tensor, TensorData, extent};
use super::{
    CHUNK, Checkpoint, FORMAT_VERSION, KEY_DIGEST, KEY_JSON, KEY_VERSION, MAX_FILE_BYTES,
    MAX_HEADER_BYTES, METADATA, PREFIX, Summary, digest,
};

/// Why there is no content.
pub(super) enum Failure {
    /// The bytes are no valid checkpoint; the reason.
    Refused(String),
    /// The bytes could not be had.
    Io(io::Error),
}

fn foreign(what: impl fmt::Display) -> Failure {
    Failure::Refused(format!("not a pnncore checkpoint: {what}; pass a file that pnncore saved"))
}

fn truncated(what: impl fmt::Display) -> Failure {
    Failure::Refused(format!("truncated: {what}; use the previous checkpoint (.prev) or a copy"))
}

fn damaged(what: impl fmt::Display) -> Failure {
    Failure::Refused(format!("damaged: {what}; use the previous checkpoint (.prev) or a copy"))
}

/// Reads a checkpoint of `len` bytes. No allocation is larger than a small multiple of `len`.
pub(super) fn decode(from: &mut dyn Read, len: u64) -> Result<Checkpoint, Failure> {
    if len > MAX_FILE_BYTES {
        return Err(foreign(format!("it has {len} bytes, a checkpoint at most {MAX_FILE_BYTES}")));
    }
    let header_len = header_length(from, len)?;
    let mut header = vec![0; header_len as usize];
    fill(from, &mut header)?;
    let header: Header = serde_json::from_slice(&header).map_err(|e| {
        foreign(format!("its header is no safetensors header ({e}), or the file is damaged"))
    })?;
    check_version(&header)?;
    let field = |key: &str| {
        let value = header.fields.0.get(key);
        value.ok_or_else(|| damaged(format!("its header has no \"{key}\"")))
    };
    let (json, expected) = (field(KEY_JSON)?, field(KEY_DIGEST)?);

    let layout = layout(&header, len - PREFIX - header_len)?;
    let mut tensors = BTreeMap::new();
    let mut hashes = BTreeMap::new();
    let mut buffer = Vec::new();
    for (name, info, empty) in layout {
        let (data, hash) =
            load(from, &mut buffer, name, empty, info.data_offsets.1 - info.data_offsets.0)?;
        tensors.insert(name.to_owned(), Tensor { shape: info.shape.clone(), data });
        hashes.insert(name, hash);
    }

    let summaries = tensors.iter().zip(hashes.values()).map(|((name, tensor), &data)| Summary {
        name,
        dtype: tensor.data.dtype(),
        shape: &tensor.shape,
        data,
    });
    if digest(summaries, json) != *expected {
        return Err(damaged("the digest does not match the contents"));
    }
    let Strict(metadata) = serde_json::from_str(json)
        .map_err(|e| damaged(format!("its metadata is no JSON object ({e})")))?;
    match metadata {
        Value::Object(metadata) => Ok(Checkpoint { metadata, tensors }),
        _ => Err(damaged("its metadata is no JSON object")),
    }
}

/// Reads the prefix and checks the length that it declares.
fn header_length(from: &mut dyn Read, len: u64) -> Result<u64, Failure> {
    if len < PREFIX {
        return Err(truncated(format!("it has {len} bytes")));
    }
    let mut prefix = [0; PREFIX as usize];
    fill(from, &mut prefix)?;
    let header_len = u64::from_le_bytes(prefix);
    if header_len > MAX_HEADER_BYTES {
        return Err(foreign(format!(
            "its header would have {header_len} bytes, more than {MAX_HEADER_BYTES}, or the file \
             is damaged"
        )));
    }
    if header_len > len - PREFIX {
        return Err(truncated(format!(
            "it has {len} bytes, its header alone needs {}",
            PREFIX + header_len
        )));
    }
    Ok(header_len)
}

fn check_version(header: &Header) -> Result<(), Failure> {
    let Some(version) = header.fields.0.get(KEY_VERSION) else {
        return Err(foreign(format!("its header has no \"{KEY_VERSION}\"")));
    };
    match version.parse::<u32>() {
        Ok(FORMAT_VERSION) => Ok(()),
        Ok(newer) if newer > FORMAT_VERSION => Err(Failure::Refused(format!(
            "written in the newer format version {newer}; this pnncore reads version \
             {FORMAT_VERSION}: update pnncore"
        ))),
        _ => Err(damaged(format!("its format version is {version:?}"))),
    }
}

/// The tensors in the order of their data, which must fill `space` without holes or overlap.
fn layout(header: &Header, space: u64) -> Result<Vec<(&str, &Info, TensorData)>, Failure> {
    let mut layout: Vec<_> = header.tensors.iter().collect();
    layout.sort_by_key(|(_, info)| info.data_offsets);
    let mut position = 0;
    let mut checked = Vec::with_capacity(layout.len());
    for (name, info) in layout {
        let empty = TensorData::of_dtype(&info.dtype).ok_or_else(|| {
            damaged(format!("tensor {name:?} has the unknown data type {:?}", info.dtype))
        })?;
        let (_, bytes) = extent(&info.shape, empty.element_size())
            .map_err(|reason| damaged(format!("tensor {name:?} {reason}")))?;
        let (start, end) = info.data_offsets;
        if start != position || end.checked_sub(start) != Some(bytes) {
            return Err(damaged(format!(
                "tensor {name:?} of {bytes} bytes is said to be at {start} to {end}, but must \
                 start at {position}"
            )));
        }
        position = end;
        checked.push((name.as_str(), info, empty));
    }
    if position > space {
        return Err(truncated(format!("its data need {position} bytes, but {space} are there")));
    }
    if position < space {
        return Err(damaged(format!("it has {} bytes after its data", space - position)));
    }
    Ok(checked)
}

/// Reads the data of one tensor, of `bytes` bytes, and its hash.
fn load(
    from: &mut dyn Read,
    buffer: &mut Vec<u8>,
    name: &str,
    mut data: TensorData,
    bytes: u64,
) -> Result<(TensorData, [u8; 32]), Failure> {
    let values = usize::try_from(bytes / data.element_size() as u64);
    if !values.is_ok_and(|values| data.try_reserve(values).is_ok()) {
        return Err(Failure::Refused(format!(
            "tensor {name:?} needs {bytes} bytes of memory, more than can be had; read it on a \
             larger machine"
        )));
    }
    let mut hash = Sha256::new();
    let mut left = bytes;
    while left > 0 {
        buffer.resize(left.min(CHUNK as u64) as usize, 0);
        fill(from, buffer)?;
        hash.update(&*buffer);
        if !data.append(buffer) {
            return Err(damaged(format!("tensor {name:?} holds a byte that is no truth value")));
        }
        left -= buffer.len() as u64;
    }
    Ok((data, hash.finalize().into()))
}

/// Fills `to`. The end comes too soon only if the file became shorter since its length was asked.
fn fill(from: &mut dyn Read, to: &mut [u8]) -> Result<(), Failure> {
    from.read_exact(to).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => truncated("it became shorter while it was read"),
        _ => Failure::Io(e),
    })
}

/// The header of a safetensors file.
struct Header {
    fields: Fields,
    tensors: BTreeMap<String, Info>,
}

/// What the header says of a tensor.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut fields = None;
                let mut tensors = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    let repeated = if key == METADATA {
                        fields.replace(map.next_value()?).is_some()
                    } else {
                        tensors.insert(key, map.next_value()?).is_some()
                    };
                    if repeated {
                        return Err(A::Error::custom("a name is repeated"));
                    }
                }
                Ok(Header { fields: fields.unwrap_or_default(), tensors })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// A JSON object of strings that repeats no key; readers differ in which of two values they take.
#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    if entries.insert(key, value).is_some() {
                        return Err(A::Error::custom("a key is repeated"));
                    }
                }
                Ok(Fields(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// A JSON value none of whose objects repeats a key.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Self)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Map::new();
        while let Some((key, Strict(value))) = map.next_entry::<String, _>()? {
            if entries.insert(key, value).is_some() {
                return Err(A::Error::custom("a key is repeated"));
            }
        }
        Ok(Value::Object(entries))
    }
}
