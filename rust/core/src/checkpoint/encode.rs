//! From content to bytes.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::tensor::Tensor;
use super::{
    CHUNK, FORMAT_VERSION, KEY_DIGEST, KEY_JSON, KEY_VERSION, MAX_FILE_BYTES, MAX_HEADER_BYTES,
    MAX_JSON_DEPTH, METADATA, PREFIX, Summary, digest,
};

/// A checked checkpoint with its header, ready to be written.
pub(super) struct Plan<'a> {
    /// The prefix and the header.
    head: Vec<u8>,
    /// The tensors in the order of the file.
    order: Vec<&'a Tensor>,
}

/// The JSON of the header, and how many bytes the tensors take, which are in this order.
fn header(
    digest: &str,
    json: &str,
    order: &[(&String, &Tensor, u64)],
) -> Result<(String, u64), String> {
    let mut header = format!(
        "{{\"{METADATA}\":{{\"{KEY_DIGEST}\":\"{digest}\",\"{KEY_JSON}\":{},\
         \"{KEY_VERSION}\":\"{FORMAT_VERSION}\"}}",
        quoted(json)
    );
    let mut end = 0_u64;
    for &(name, tensor, bytes) in order {
        let start = end;
        let fits = |end: &u64| *end <= MAX_FILE_BYTES;
        end = start.checked_add(bytes).filter(fits).ok_or_else(too_large)?;
        let (name, dtype) = (quoted(name), tensor.data.dtype());
        let shape: Vec<_> = tensor.shape.iter().map(ToString::to_string).collect();
        // Writing to a String cannot fail.
        let _ = write!(
            header,
            ",{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{}],\"data_offsets\":[{start},{end}]}}",
            shape.join(",")
        );
    }
    header.push('}');
    Ok((header, end))
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        metadata: &Map<String, Value>,
        tensors: &'a BTreeMap<String, Tensor>,
    ) -> Result<Self, String> {
        let mut order = Vec::with_capacity(tensors.len());
        for (name, tensor) in tensors {
            if name == METADATA {
                return Err(format!(
                    "a tensor cannot be named \"{METADATA}\"; safetensors reserves the name"
                ));
            }
            let bytes = tensor.check().map_err(|reason| format!("tensor \"{name}\" {reason}"))?;
            order.push((name, tensor, bytes));
        }
        let mut json = String::new();
        write_object(&mut json, metadata, 1)?;
        let summaries = tensors.iter().map(|(name, tensor)| Summary {
            name,
            dtype: tensor.data.dtype(),
            shape: &tensor.shape,
            data: hash(tensor),
        });
        let digest = digest(summaries, &json);

        // The widest types first, so that every tensor is aligned to its type.
        order.sort_by_key(|(name, tensor, _)| (Reverse(tensor.data.element_size()), *name));
        let (header, end) = header(&digest, &json, &order)?;
        let len = (header.len() as u64).next_multiple_of(PREFIX);
        if len > MAX_HEADER_BYTES {
            return Err(format!(
                "metadata and tensor names take {len} bytes; at most {MAX_HEADER_BYTES} can be \
                 stored: keep long lists as tensors"
            ));
        }
        if PREFIX + len + end > MAX_FILE_BYTES {
            return Err(too_large());
        }
        let mut head = len.to_le_bytes().to_vec();
        head.extend_from_slice(header.as_bytes());
        head.resize((PREFIX + len) as usize, b' ');
        Ok(Self { head, order: order.into_iter().map(|(_, tensor, _)| tensor).collect() })
    }

    /// Gives the bytes of the file to `sink`, piece by piece.
    pub(super) fn emit(&self, sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = self.head.clone();
        for tensor in &self.order {
            tensor.data.stream(&mut buffer, &mut |buffer| {
                if buffer.len() >= CHUNK {
                    sink(buffer)?;
                    buffer.clear();
                }
                io::Result::Ok(())
            })?;
        }
        if buffer.is_empty() { Ok(()) } else { sink(&buffer) }
    }
}

fn too_large() -> String {
    format!(
        "the tensors are larger than {MAX_FILE_BYTES} bytes, the most that one checkpoint can hold"
    )
}

fn hash(tensor: &Tensor) -> [u8; 32] {
    let mut hash = Sha256::new();
    let Ok(()) = tensor.data.stream::<std::convert::Infallible>(&mut Vec::new(), &mut |buffer| {
        hash.update(&*buffer);
        buffer.clear();
        Ok(())
    });
    hash.finalize().into()
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Writes JSON with sorted keys, whichever order the map keeps (another crate may turn on
/// `preserve_order`).
fn write_object(out: &mut String, map: &Map<String, Value>, depth: usize) -> Result<(), String> {
    let sorted: BTreeMap<_, _> = map.iter().collect();
    out.push('{');
    for (i, (key, value)) in sorted.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(&quoted(key));
        out.push(':');
        write_value(out, value, depth + 1)?;
    }
    out.push('}');
    Ok(())
}

fn write_value(out: &mut String, value: &Value, depth: usize) -> Result<(), String> {
    if depth > MAX_JSON_DEPTH {
        return Err(format!("metadata is nested more than {MAX_JSON_DEPTH} deep"));
    }
    match value {
        Value::Object(map) => write_object(out, map, depth)?,
        Value::Array(values) => {
            out.push('[');
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(out, value, depth + 1)?;
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
    Ok(())
}
