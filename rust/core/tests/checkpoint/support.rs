//! What the tests share: small checkpoints, a generator, and an independent reading of the format.

use std::collections::BTreeMap;

use pnncore::checkpoint::{Checkpoint, Tensor, TensorData};
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// A small checkpoint with every data type; each step has its own content.
pub(crate) fn sample(step: u64) -> Checkpoint {
    let s = step as f32;
    let tensor = |shape: &[usize], data: TensorData| Tensor::new(shape.to_vec(), data).unwrap();
    let nested = json!({ "name": "ångström", "list": [1, null, true] });
    let metadata = json!({ "step": step, "lr": 0.1, "nested": nested });
    let Value::Object(metadata) = metadata else { unreachable!() };
    let tensors = [
        ("w", tensor(&[2, 3], vec![s, 1.0, -0.0, f32::MIN_POSITIVE, 4.5, 1e30].into())),
        ("bias", tensor(&[2], vec![f64::from(s), -1.0].into())),
        ("counter", tensor(&[], vec![step].into())),
        ("chain", tensor(&[3], vec![i64::MIN, 0, i64::MAX].into())),
        ("key", tensor(&[1], vec![7_u32].into())),
        ("image", tensor(&[5], vec![0_u8, 1, 2, 254, 255].into())),
        ("mask", tensor(&[3], vec![true, false, true].into())),
        ("none", tensor(&[0, 4], Vec::<f32>::new().into())),
    ];
    Checkpoint { metadata, tensors: tensors.map(|(name, t)| (name.to_owned(), t)).into() }
}

/// The step of a [`sample`] whose content is what it was.
pub(crate) fn step_of(checkpoint: &Checkpoint) -> u64 {
    let step = checkpoint.metadata["step"].as_u64().unwrap();
    assert!(*checkpoint == sample(step), "content of another step");
    step
}

/// Whether two checkpoints agree in every bit.
pub(crate) fn identical(a: &Checkpoint, b: &Checkpoint) -> bool {
    a.to_bytes().unwrap() == b.to_bytes().unwrap()
}

/// A tensor as the stock reader sees it: data type, shape, bytes.
pub(crate) type StockTensor = (String, Vec<usize>, Vec<u8>);

/// A file as the stock safetensors library reads it.
pub(crate) struct Stock {
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) tensors: BTreeMap<String, StockTensor>,
}

pub(crate) fn stock_read(bytes: &[u8]) -> Option<Stock> {
    let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
    let file = SafeTensors::deserialize(bytes).ok()?;
    let fields = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let tensors = file.iter().map(|(name, view)| {
        let tensor = (view.dtype().to_string(), view.shape().to_vec(), view.data().to_vec());
        (name.to_owned(), tensor)
    });
    Some(Stock { fields, tensors: tensors.collect() })
}

/// The content of a checkpoint in the form of [`Stock`].
pub(crate) fn plain(checkpoint: &Checkpoint) -> BTreeMap<String, StockTensor> {
    let bytes = |data: &TensorData| -> Vec<u8> {
        match data {
            TensorData::Bool(v) => v.iter().map(|&b| u8::from(b)).collect(),
            TensorData::U8(v) => v.clone(),
            TensorData::U32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            TensorData::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            TensorData::U64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            TensorData::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            TensorData::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            other => panic!("unknown type {other:?}"),
        }
    };
    let tensors = checkpoint.tensors.iter().map(|(name, tensor)| {
        (name.clone(), (tensor.data.dtype().to_owned(), tensor.shape.clone(), bytes(&tensor.data)))
    });
    tensors.collect()
}

/// The digest, written after the documentation of the format.
pub(crate) fn documented_digest(tensors: &BTreeMap<String, StockTensor>, json: &str) -> String {
    let mut all = b"pnncore-checkpoint-1\n".to_vec();
    let number = |all: &mut Vec<u8>, n: usize| all.extend((n as u64).to_le_bytes());
    number(&mut all, tensors.len());
    for (name, (dtype, shape, data)) in tensors {
        for text in [name, dtype] {
            number(&mut all, text.len());
            all.extend(text.as_bytes());
        }
        number(&mut all, shape.len());
        for &dim in shape {
            number(&mut all, dim);
        }
        all.extend(Sha256::digest(data));
    }
    number(&mut all, json.len());
    all.extend(json.as_bytes());
    Sha256::digest(&all).iter().map(|b| format!("{b:02x}")).collect()
}

/// A file from a header and data, whatever they say.
pub(crate) fn assemble(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// The header and the data of a file.
pub(crate) fn split(bytes: &[u8]) -> (Map<String, Value>, Vec<u8>) {
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..end]).unwrap(), bytes[end..].to_vec())
}
