//! Files that were cut, changed or made up.

use std::fs;

use pnncore::Error;
use pnncore::checkpoint::{Checkpoint, MAX_FILE_BYTES, Tensor};
use serde_json::{Map, Value, json};

use super::common::{self, Rng, count};
use super::support::{assemble, documented_digest, identical, plain, sample, split, stock_read};

/// Reads; anything but content or a refusal fails the test.
fn read(bytes: &[u8]) -> Result<Checkpoint, String> {
    match Checkpoint::from_bytes(bytes) {
        Ok(checkpoint) => Ok(checkpoint),
        Err(Error::Checkpoint(message)) => Err(message),
        Err(other) => panic!("{other:?}"),
    }
}

fn tiny() -> Checkpoint {
    let mut checkpoint = Checkpoint::default();
    checkpoint.metadata.insert("a".into(), 1.into());
    checkpoint.tensors.insert("x".into(), Tensor::new(vec![2], vec![1.0_f32, 2.0]).unwrap());
    checkpoint.tensors.insert("m".into(), Tensor::new(vec![1], vec![true]).unwrap());
    checkpoint
}

#[test]
fn every_truncation() {
    let bytes = sample(1).to_bytes().unwrap();
    for len in 0..bytes.len() {
        let message = read(&bytes[..len]).unwrap_err();
        assert!(message.contains("truncated"), "{len}: {message}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(read(&longer).unwrap_err().contains("1 bytes after its data"));
}

#[test]
fn every_change_of_a_byte() {
    let original = tiny();
    let bytes = original.to_bytes().unwrap();
    let padding = bytes[..8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize]
        .iter()
        .rposition(|&b| b != b' ')
        .unwrap();
    for at in 0..bytes.len() {
        for value in 0..=255 {
            let mut changed = bytes.clone();
            changed[at] = value;
            if let Ok(back) = read(&changed) {
                // White space for white space leaves the content as it was.
                assert!(value == bytes[at] || (at > padding && bytes[at] == b' '), "{at} {value}");
                assert!(identical(&back, &original));
            }
        }
    }
}

#[test]
fn files_name_themselves_and_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mine.pnn");
    let message = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let Err(Error::Checkpoint(message)) = Checkpoint::read(&path) else { panic!() };
        assert!(message.contains("mine.pnn: "), "{message}");
        message
    };
    let bytes = sample(1).to_bytes().unwrap();
    let (header, data) = split(&bytes);
    let with_field = |key: &str, value: Option<&str>| {
        let mut header = header.clone();
        let fields = header["__metadata__"].as_object_mut().unwrap();
        match value {
            Some(value) => fields.insert(key.into(), value.into()),
            None => fields.remove(key),
        };
        assemble(&Value::from(header).to_string(), &data)
    };
    assert!(message(b"").contains("truncated: it has 0 bytes"));
    assert!(message(b"\x89PNG\r\n\x1a\n and so on").contains("not a pnncore checkpoint"));
    assert!(message(b"{\"json\": \"but no safetensors\"}").contains("not a pnncore checkpoint"));
    assert!(message(&with_field("pnncore", None)).contains("not a pnncore checkpoint"));
    assert!(
        message(&with_field("pnncore", Some("2")))
            .contains("newer format version 2; this pnncore reads version 1")
    );
    assert!(
        message(&with_field("pnncore", Some("0"))).contains("damaged: its format version is \"0\"")
    );
    assert!(message(&with_field("digest", None)).contains("damaged: its header has no \"digest\""));
    assert!(
        message(&with_field("metadata", Some("{}"))).contains("damaged: the digest does not match")
    );
    assert!(message(&bytes[..bytes.len() - 3]).contains("(.prev)"));
    let large = fs::File::create(&path).unwrap();
    if large.set_len(MAX_FILE_BYTES + 1).is_ok() {
        let Err(Error::Checkpoint(message)) = Checkpoint::read(&path) else { panic!() };
        assert!(message.contains("a checkpoint at most"), "{message}");
    }
}

/// A file with one tensor, whose digest is right as far as there can be one.
fn signed(dtype: &str, shape: &Value, offsets: &Value, data: &[u8], json: &str) -> Vec<u8> {
    let dims: Vec<usize> = serde_json::from_value(shape.clone()).unwrap_or_default();
    let tensors = [("x".to_owned(), (dtype.to_owned(), dims, data.to_vec()))].into();
    let digest = documented_digest(&tensors, json);
    let header = json!({
        "__metadata__": { "pnncore": "1", "metadata": json, "digest": digest },
        "x": { "dtype": dtype, "shape": shape, "data_offsets": offsets },
    });
    assemble(&header.to_string(), data)
}

#[test]
fn a_right_digest_does_not_help_a_wrong_file() {
    let data = [0_u8; 8];
    let of = |dtype: &str, shape: Value, offsets: Value| {
        read(&signed(dtype, &shape, &offsets, &data, "{}"))
    };
    assert!(of("F32", json!([2]), json!([0, 8])).is_ok());
    let max = u64::MAX;
    for (dtype, shape, offsets) in [
        ("F32", json!([3]), json!([0, 12])),
        ("F32", json!([2]), json!([4, 12])),
        ("F32", json!([2]), json!([8, 0])),
        ("F32", json!([2]), json!([0, 7])),
        ("F32", json!([1]), json!([0, 4])),
        ("F32", json!([-2]), json!([0, 8])),
        ("F32", json!([2.0]), json!([0, 8])),
        ("F32", json!([max, max]), json!([0, 8])),
        ("F32", json!([max, 2, 0]), json!([0, 0])),
        ("F32", json!([1_u64 << 62]), json!([0, 0])),
        ("F32", json!([1_u64 << 40]), json!([0, 1_u64 << 42])),
        ("F32", json!(vec![1; 33]), json!([0, 4])),
        ("F32", json!([2]), json!([0, 8, 0])),
        ("F32", json!([2]), json!([0])),
        ("F32", json!("2"), json!([0, 8])),
        ("F16", json!([4]), json!([0, 8])),
        ("f32", json!([2]), json!([0, 8])),
        ("F4", json!([16]), json!([0, 8])),
        ("", json!([2]), json!([0, 8])),
    ] {
        let message = of(dtype, shape.clone(), offsets.clone()).unwrap_err();
        assert!(
            message.contains("; use") || message.contains("; pass"),
            "{dtype} {shape}: {message}"
        );
    }
    let hole = of("F32", json!([1]), json!([4, 8])).unwrap_err();
    assert!(hole.contains("must start at 0"), "{hole}");
    let bool_of = |byte: u8| read(&signed("BOOL", &json!([1]), &json!([0, 1]), &[byte], "{}"));
    assert!(bool_of(0).is_ok() && bool_of(1).is_ok());
    assert!(bool_of(2).unwrap_err().contains("truth value"));
    let deep = "[".repeat(100_000);
    for json in ["", "[]", "null", "{", "{} {}", "{\"a\":NaN}", &format!("{{\"a\":{deep}")] {
        let message = read(&signed("F32", &json!([2]), &json!([0, 8]), &data, json)).unwrap_err();
        assert!(message.contains("damaged: its metadata is no JSON object"), "{message}");
    }
}

#[test]
fn a_key_that_is_repeated_anywhere_in_the_metadata_is_refused() {
    let of = |json: &str| read(&signed("F32", &json!([2]), &json!([0, 8]), &[0; 8], json));
    let plain = r#"{"a":{"b":[{"c":1,"d":-2}],"e":null},"f":[0.1,true,"x"]}"#;
    assert_eq!(
        Value::Object(of(plain).unwrap().metadata),
        serde_json::from_str::<Value>(plain).unwrap()
    );
    for twice in [r#"{"a":1,"a":1}"#, r#"{"a":{"b":1,"b":2}}"#, r#"{"a":[{"b":1,"c":0,"b":1}]}"#] {
        assert!(of(twice).unwrap_err().contains("a key is repeated"), "{twice}");
    }
}

#[test]
fn what_readers_could_understand_differently_is_refused() {
    let header = |fields: &str, entries: &str| {
        let json = "{}";
        let tensors = [("x".to_owned(), ("U8".to_owned(), vec![1], vec![7]))].into();
        let digest = documented_digest(&tensors, json);
        let text = format!(
            "{{\"__metadata__\":{{\"pnncore\":\"1\",\"metadata\":\"{json}\",\
             \"digest\":\"{digest}\"{fields}}}{entries}}}"
        );
        read(&assemble(&text, &[7]))
    };
    let x = ",\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}";
    assert!(header("", x).is_ok());
    assert!(header(",\"pnncore\":\"1\"", x).is_err());
    assert!(header(",\"other\":1", x).is_err());
    assert!(header("", &format!("{x}{x}")).is_err());
    assert!(header("", &format!("{x},\"__metadata__\":{{}}")).is_err());
    assert!(
        header("", &x.replace("\"dtype\":\"U8\"", "\"dtype\":\"BOOL\",\"dtype\":\"U8\"")).is_err()
    );
    assert!(header("", &x.replace("\"shape\"", "\"more\":0,\"shape\"")).is_err());
    // The same bytes under two names, overlapping bytes, and bytes under no name.
    let y = x.replace("\"x\"", "\"y\"");
    assert!(header("", &format!("{x}{y}")).unwrap_err().contains("must start at 1"));
    let wide = x.replace("[1]", "[2]").replace("[0,1]", "[0,2]");
    let second = y.replace("[0,1]", "[1,2]");
    assert!(header("", &format!("{wide}{second}")).unwrap_err().contains("must start at 2"));
    assert!(header("", "").is_err());
}

#[test]
fn mutations() {
    let rounds = count(20_000, 1_000_000);
    let originals = [tiny(), sample(1), Checkpoint::default()].map(|c| c.to_bytes().unwrap());
    let (mut read_back, mut resigned) = (0, 0);
    for seed in 0..rounds {
        let mut rng = Rng(seed);
        let original = rng.choose(&originals).clone();
        let mut bytes = original.clone();
        if rng.below(2) == 0 {
            bytes = change_header(&mut rng, &bytes);
        }
        if rng.below(2) == 0 {
            for _ in 0..=rng.below(3) {
                change_bytes(&mut rng, &mut bytes);
            }
        }
        let signed = rng.below(2) == 0 && sign(&mut bytes);
        if let Ok(ours) = read(&bytes) {
            // It says what the stock library says, and its digest is the documented one.
            let stock =
                stock_read(&bytes).unwrap_or_else(|| panic!("seed {seed}: only ours reads it"));
            assert_eq!(plain(&ours), stock.tensors, "seed {seed}");
            let json = &stock.fields["metadata"];
            assert_eq!(
                stock.fields["digest"],
                documented_digest(&stock.tensors, json),
                "seed {seed}"
            );
            assert_eq!(ours.metadata, serde_json::from_str(json).unwrap(), "seed {seed}");
            if signed {
                resigned += 1;
            } else {
                let original = Checkpoint::from_bytes(&original).unwrap();
                assert!(identical(&ours, &original), "seed {seed}: changed content was read");
                read_back += 1;
            }
        }
    }
    // The mutations reach what lies behind the digest, and most files are refused.
    assert!(resigned > rounds / 200, "{resigned}");
    assert!(read_back + resigned < rounds / 2, "{read_back} {resigned}");
}

/// Changes bytes, or writes a length: that of the header.
fn change_bytes(rng: &mut Rng, bytes: &mut Vec<u8>) {
    common::change_bytes(rng, bytes, &[0, 0xff, b' ', b'"', b'{', b'9'], 40, |rng, bytes, _| {
        let len = *rng.choose(&[0, 1, 8, 1 << 20, 1 << 27, 1 << 40, u64::MAX, u64::MAX - 7]);
        for (to, from) in bytes.iter_mut().zip(len.to_le_bytes()) {
            *to = from;
        }
    });
}

/// Changes the header as JSON, and states its length rightly.
fn change_header(rng: &mut Rng, bytes: &[u8]) -> Vec<u8> {
    let (mut header, data) = split(bytes);
    for _ in 0..=rng.below(2) {
        let keys: Vec<String> = header.keys().cloned().collect();
        let Some(key) = (!keys.is_empty()).then(|| rng.choose(&keys)) else {
            break;
        };
        match rng.below(6) {
            0 => drop(header.remove(key)),
            1 => {
                let value = header[key].clone();
                header
                    .insert((*rng.choose(&["y", "", "__metadata__", "é", "\u{0}"])).into(), value);
            }
            _ => change_value(rng, &mut header[key]),
        }
    }
    let mut text = Value::from(header).to_string();
    if rng.below(4) == 0 {
        text.push_str(&" ".repeat(rng.below(9)));
    }
    assemble(&text, &data)
}

fn change_value(rng: &mut Rng, value: &mut Value) {
    let numbers = [0, 1, 2, 3, 4, 8, 12, 16, 1 << 31, 1 << 61, u64::MAX];
    match value {
        Value::Object(map) if !map.is_empty() && rng.below(8) > 0 => {
            let keys: Vec<String> = map.keys().cloned().collect();
            let key = rng.choose(&keys);
            match rng.below(8) {
                0 => drop(map.remove(key)),
                1 => drop(map.insert("extra".into(), 1.into())),
                _ => change_value(rng, &mut map[key]),
            }
        }
        Value::Array(values) if rng.below(8) > 0 => match rng.below(5) {
            0 => values.push((*rng.choose(&numbers)).into()),
            1 => drop(values.pop()),
            2 => values.reverse(),
            3 if values.len() == 1 => values.push(1.into()),
            _ => {
                let at = rng.below(values.len().max(1));
                if let Some(value) = values.get_mut(at) {
                    *value = (*rng.choose(&numbers)).into();
                }
            }
        },
        other => {
            *other = match rng.below(6) {
                0 => Value::Null,
                1 => (*rng.choose(&numbers)).into(),
                2 => json!({}),
                3 => json!([1]),
                4 => (*rng.choose(&["{}", "[]", "{\"a\":[1e999]}", "2", "1", "\u{0}"])).into(),
                _ => (*rng
                    .choose(&["F32", "F64", "I64", "U64", "U32", "U8", "BOOL", "F16", "C64"]))
                .into(),
            }
        }
    }
}

/// Puts the right digest into a file that the stock library can read.
fn sign(bytes: &mut Vec<u8>) -> bool {
    let Some(stock) = stock_read(bytes) else {
        return false;
    };
    let Some(json) = stock.fields.get("metadata") else {
        return false;
    };
    let digest = documented_digest(&stock.tensors, json);
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let Ok(mut header) = serde_json::from_slice::<Map<String, Value>>(&bytes[8..end]) else {
        return false;
    };
    let Some(fields) = header.get_mut("__metadata__").and_then(Value::as_object_mut) else {
        return false;
    };
    fields.insert("digest".into(), digest.into());
    *bytes = assemble(&Value::from(header).to_string(), &bytes[end..]);
    true
}
