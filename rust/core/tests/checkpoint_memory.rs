//! What hostile files cost in memory. One test, as the peak is that of the whole process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fmt::Write as _;
use std::fs;

use pnncore::checkpoint::{Checkpoint, MAX_HEADER_BYTES};
use sha2::{Digest, Sha256};

/// A line of the kernel's account of this process, in MiB.
fn status(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|text| text.starts_with(line)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn fields(json: &str) -> String {
    let mut all = b"pnncore-checkpoint-1\n".to_vec();
    all.extend(0_u64.to_le_bytes());
    all.extend((json.len() as u64).to_le_bytes());
    all.extend(json.as_bytes());
    let mut digest = String::new();
    for byte in Sha256::digest(&all) {
        write!(digest, "{byte:02x}").unwrap();
    }
    let json = serde_json::Value::from(json);
    format!("\"__metadata__\":{{\"pnncore\":\"1\",\"metadata\":{json},\"digest\":\"{digest}\"}}")
}

#[test]
fn hostile_lengths_are_not_allocated() {
    // A stated length costs nothing.
    let before = status("VmPeak");
    for len in [100, MAX_HEADER_BYTES, MAX_HEADER_BYTES + 1, 1 << 40, u64::MAX - 7, u64::MAX] {
        assert!(Checkpoint::from_bytes(&file("{}", &len.to_le_bytes())).is_err());
        let mut bytes = file("{}", &[]);
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        assert!(Checkpoint::from_bytes(&bytes).is_err());
    }
    for values in [1_u64 << 30, 1 << 40, 1 << 60] {
        let end = values.wrapping_mul(4);
        let x =
            format!("\"x\":{{\"dtype\":\"F32\",\"shape\":[{values}],\"data_offsets\":[0,{end}]}}");
        assert!(
            Checkpoint::from_bytes(&file(&format!("{{{},{x}}}", fields("{}")), &[0; 64])).is_err()
        );
    }
    let cost = status("VmPeak") - before;
    assert!(cost < 16, "{cost} MiB");

    // Reading the headers that unfold most, with this test's own strings, stays under the promise.
    let room = MAX_HEADER_BYTES as usize - 1000;
    let zeros = "0,".repeat(room / 2);
    let lists = "[],".repeat(room / 3);
    let (mut keys, mut escapes) = (String::new(), 0);
    while keys.len() + escapes < room - 20 {
        write!(keys, "\"{escapes:x}\":[],").unwrap();
        escapes += 2;
    }
    let mut empty = String::new();
    while empty.len() < room - 80 {
        let name = empty.len();
        let tensor = "{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}";
        write!(empty, ",\"{name:x}\":{tensor}").unwrap();
    }
    // Where there are no tensors the digest is right, so that the JSON is read.
    let headers = [
        (format!("{{{}}}", fields(&format!("{{\"a\":[{zeros}0]}}"))), true),
        (format!("{{{}}}", fields(&format!("{{\"a\":[{lists}[]]}}"))), true),
        (format!("{{{}}}", fields(&format!("{{{keys}\"\":1}}"))), true),
        (
            format!(
                "{{{},\"x\":{{\"dtype\":\"U8\",\"shape\":[{zeros}0],\"data_offsets\":[0,0]}}}}",
                fields("{}")
            ),
            false,
        ),
        (format!("{{{}{empty}}}", fields("{}")), false),
    ];
    for (header, understood) in headers {
        assert!(header.len() as u64 <= MAX_HEADER_BYTES, "{}", header.len());
        let read = Checkpoint::from_bytes(&file(&header, &[]));
        assert_eq!(read.is_ok(), understood);
    }
    let cost = status("VmHWM");
    assert!(cost < 512, "{cost} MiB");
}
