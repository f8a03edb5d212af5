//! Round trips, determinism, the documented format, messages.

use std::fs;
use std::path::Path;

use pnncore::Error;
use pnncore::checkpoint::{
    Checkpoint, MAX_HEADER_BYTES, MAX_JSON_DEPTH, MAX_RANK, Tensor, TensorData, previous_path,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::support::{assemble, documented_digest, identical, plain, sample, split, stock_read};

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..6).prop_map(String::from_iter)
}

fn json() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<u64>().prop_map(|bits| Value::from(f64::from_bits(bits))),
        text().prop_map(Value::from),
    ];
    scalar.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(text(), inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn tensor() -> impl Strategy<Value = Tensor> {
    (vec(0..4_usize, 0..4), 0..7, any::<u64>()).prop_map(|(shape, dtype, seed)| {
        let mut rng = super::common::Rng(seed);
        // All bit patterns: NaN, infinity and subnormal numbers too.
        let bits: Vec<u64> = (0..shape.iter().product()).map(|_| rng.next()).collect();
        let bits = bits.into_iter();
        let data: TensorData = match dtype {
            0 => bits.map(|b| b & 1 == 1).collect::<Vec<_>>().into(),
            1 => bits.map(|b| b as u8).collect::<Vec<_>>().into(),
            2 => bits.map(|b| b as u32).collect::<Vec<_>>().into(),
            3 => bits.map(|b| b as i64).collect::<Vec<_>>().into(),
            4 => bits.collect::<Vec<_>>().into(),
            5 => bits.map(|b| f32::from_bits(b as u32)).collect::<Vec<_>>().into(),
            _ => bits.map(f64::from_bits).collect::<Vec<_>>().into(),
        };
        Tensor::new(shape, data).unwrap()
    })
}

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    (btree_map(text(), json(), 0..5), btree_map(text(), tensor(), 0..6)).prop_map(
        |(metadata, tensors)| Checkpoint { metadata: metadata.into_iter().collect(), tensors },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn roundtrip(checkpoint in checkpoint()) {
        let bytes = checkpoint.to_bytes().unwrap();
        let back = Checkpoint::from_bytes(&bytes).unwrap();
        prop_assert_eq!(&back.metadata, &checkpoint.metadata);
        prop_assert_eq!(plain(&back), plain(&checkpoint));
        prop_assert_eq!(back.to_bytes().unwrap(), bytes);
    }

    #[test]
    fn the_stock_library_reads_it(checkpoint in checkpoint()) {
        let bytes = checkpoint.to_bytes().unwrap();
        let stock = stock_read(&bytes).unwrap();
        prop_assert_eq!(&stock.tensors, &plain(&checkpoint));
        let json = &stock.fields["metadata"];
        let metadata: Map<String, Value> = serde_json::from_str(json).unwrap();
        prop_assert_eq!(metadata, checkpoint.metadata);
        prop_assert_eq!(&stock.fields["pnncore"], "1");
        prop_assert_eq!(&stock.fields["digest"], &documented_digest(&stock.tensors, json));
    }
}

#[test]
fn equal_content_gives_equal_bytes() {
    let bytes = sample(3).to_bytes().unwrap();
    for _ in 0..20 {
        assert_eq!(sample(3).to_bytes().unwrap(), bytes);
    }
    // The order in which keys arrive does not matter.
    let mut turned = Checkpoint { tensors: sample(3).tensors, ..Checkpoint::default() };
    for (key, value) in sample(3).metadata.into_iter().rev() {
        turned.metadata.insert(key, value);
    }
    assert_eq!(turned.to_bytes().unwrap(), bytes);
}

#[test]
fn data_start_aligned() {
    let bytes = sample(0).to_bytes().unwrap();
    let (header, _) = split(&bytes);
    assert_eq!(u64::from_le_bytes(bytes[..8].try_into().unwrap()) % 8, 0);
    for (name, tensor) in sample(0).tensors {
        let width = match tensor.data.dtype() {
            "F64" | "I64" | "U64" => 8,
            "F32" | "U32" => 4,
            _ => 1,
        };
        assert_eq!(header[&name]["data_offsets"][0].as_u64().unwrap() % width, 0, "{name}");
    }
}

#[test]
fn tensors_longer_than_a_piece() {
    // Around the size that is converted at a time, in bytes and in values.
    for len in [
        (1 << 15) - 1,
        1 << 15,
        (1 << 15) + 1,
        1 << 16,
        (1 << 18) - 1,
        1 << 18,
        (1 << 18) + 1,
        700_001,
    ] {
        let mut checkpoint = Checkpoint::default();
        let wide: Vec<f64> = (0..len).map(|i| f64::from(i) * 0.5).collect();
        let narrow: Vec<u8> = (0..len).map(|i| i as u8).collect();
        checkpoint.tensors.insert("wide".into(), Tensor::new(vec![wide.len()], wide).unwrap());
        checkpoint
            .tensors
            .insert("narrow".into(), Tensor::new(vec![narrow.len()], narrow).unwrap());
        let bytes = checkpoint.to_bytes().unwrap();
        assert_eq!(stock_read(&bytes).unwrap().tensors, plain(&checkpoint));
        assert!(Checkpoint::from_bytes(&bytes).unwrap() == checkpoint);
    }
}

#[test]
fn a_file_written_again_by_another_library_is_read() {
    let mut with_more_fields = split(&sample(2).to_bytes().unwrap());
    let fields = with_more_fields.0["__metadata__"].as_object_mut().unwrap();
    fields.insert("format".into(), "np".into());
    let text = format!("{}   ", serde_json::to_string_pretty(&with_more_fields.0).unwrap());
    let read = Checkpoint::from_bytes(&assemble(&text, &with_more_fields.1)).unwrap();
    assert!(identical(&read, &sample(2)));
}

#[test]
fn files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run ü.pnn");
    for step in 0..4 {
        sample(step).write(&path).unwrap();
        assert!(identical(&Checkpoint::read(&path).unwrap(), &sample(step)));
        if step > 0 {
            assert!(identical(&Checkpoint::read(previous_path(&path)).unwrap(), &sample(step - 1)));
        }
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "temporary files left");
    assert_eq!(fs::read(&path).unwrap(), sample(3).to_bytes().unwrap());
}

#[test]
fn leftovers_of_killed_writers_are_removed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let ours = [".a.pnn.1-0.tmp", ".a.pnn.4194304-77.tmp"];
    let others = [".b.pnn.1-0.tmp", "a.pnn.1-0.tmp", ".a.pnn.1-x.tmp", ".a.pnn.tmp"];
    for name in ours.iter().chain(&others) {
        fs::write(at(name), "part").unwrap();
    }
    // In use: a live writer holds its lock.
    let used = fs::File::create(at(".a.pnn.2-0.tmp")).unwrap();
    used.lock().unwrap();
    sample(1).write(at("a.pnn")).unwrap();
    assert!(ours.iter().all(|name| !at(name).exists()));
    assert!(others.iter().all(|name| at(name).exists()));
    assert!(at(".a.pnn.2-0.tmp").exists());
    drop(used);
    // A process that another test is just starting may hold the lock a moment longer.
    for _ in 0..1000 {
        sample(2).write(at("a.pnn")).unwrap();
        if !at(".a.pnn.2-0.tmp").exists() {
            break;
        }
    }
    assert!(!at(".a.pnn.2-0.tmp").exists());
}

#[test]
fn writers_at_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pnn");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let path = &path;
            scope.spawn(move || {
                for step in 0..50 {
                    sample(thread * 1000 + step).write(path).unwrap();
                    super::support::step_of(&Checkpoint::read(path).unwrap());
                }
            });
        }
    });
    super::support::step_of(&Checkpoint::read(previous_path(&path)).unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "temporary files left");
}

#[cfg(unix)]
#[test]
fn links_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("far")).unwrap();
    let (real, link) = (dir.path().join("far/real.pnn"), dir.path().join("link.pnn"));
    sample(1).write(&real).unwrap();
    std::os::unix::fs::symlink("far/real.pnn", &link).unwrap();
    sample(2).write(&link).unwrap();
    assert!(link.is_symlink());
    assert!(identical(&Checkpoint::read(&real).unwrap(), &sample(2)));
    assert!(identical(&Checkpoint::read(previous_path(&real)).unwrap(), &sample(1)));
}

#[cfg(unix)]
#[test]
fn links_to_files_that_do_not_exist_yet_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (real, near, far) =
        (dir.path().join("real.pnn"), dir.path().join("near.pnn"), dir.path().join("far.pnn"));
    std::os::unix::fs::symlink("real.pnn", &near).unwrap();
    std::os::unix::fs::symlink(&near, &far).unwrap();
    sample(1).write(&far).unwrap();
    assert!(far.is_symlink() && near.is_symlink() && !real.is_symlink());
    assert!(identical(&Checkpoint::read(&real).unwrap(), &sample(1)));
    let ring = dir.path().join("ring.pnn");
    std::os::unix::fs::symlink("ring.pnn", &ring).unwrap();
    let Err(Error::Io { op: "open", errno: Some(_), .. }) = sample(1).write(&ring) else {
        panic!()
    };
    assert!(ring.is_symlink());
}

#[cfg(unix)]
#[test]
fn permissions_are_kept() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.pnn");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    fs::write(dir.path().join("plain"), "").unwrap();
    sample(0).write(&path).unwrap();
    assert_eq!(mode(&path), mode(&dir.path().join("plain")));
    for wanted in [0o600, 0o640, 0o644, 0o666, 0o400, 0o777] {
        fs::set_permissions(&path, fs::Permissions::from_mode(wanted)).unwrap();
        sample(1).write(&path).unwrap();
        assert_eq!((mode(&path), mode(&previous_path(&path))), (wanted, wanted), "{wanted:o}");
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_left_alone() {
    use std::os::unix::fs::FileTypeExt;
    let dir = tempfile::tempdir().unwrap();
    let (socket, link, folder) =
        (dir.path().join("socket"), dir.path().join("link"), dir.path().join("folder"));
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::os::unix::fs::symlink(&socket, &link).unwrap();
    fs::create_dir(&folder).unwrap();
    for path in [&socket, &link, &folder] {
        let Err(Error::Io { op: "open", message, .. }) = sample(0).write(path) else {
            panic!("{}", path.display())
        };
        assert_eq!(message, "is not a regular file");
    }
    // Nor is it replaced where the file before would be kept.
    let beside = dir.path().join("run.pnn");
    fs::create_dir(previous_path(&beside)).unwrap();
    let Err(Error::Io { op: "open", .. }) = sample(0).write(&beside) else { panic!() };
    assert!(
        fs::symlink_metadata(&socket).unwrap().file_type().is_socket()
            && folder.is_dir()
            && !beside.exists()
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    drop(listener);
}

#[test]
fn io_errors_say_what_where_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.pnn");
    let Err(Error::Io { op, path, errno, message }) = Checkpoint::read(&missing) else { panic!() };
    assert_eq!((op, path), ("open", missing.display().to_string()));
    assert_eq!(errno, Some(2), "{message}");
    let nowhere = dir.path().join("no/where.pnn");
    let Err(Error::Io { op: "create", errno: Some(2), .. }) = sample(0).write(&nowhere) else {
        panic!()
    };
    let Err(Error::Io { op: "open", .. }) = Checkpoint::read(dir.path()) else { panic!() };
    let Err(Error::Io { .. }) = sample(0).write(dir.path()) else { panic!() };
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "temporary files left");
    for none in ["", "/", ".."] {
        assert!(sample(0).write(Path::new(none)).is_err());
    }
}

fn refused(checkpoint: &Checkpoint, words: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pnn");
    sample(0).write(&path).unwrap();
    let Err(Error::Checkpoint(message)) = checkpoint.write(&path) else { panic!("{words}") };
    assert!(message.contains(words) && message.contains("a.pnn"), "{message}");
    assert!(identical(&Checkpoint::read(&path).unwrap(), &sample(0)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_could_not_be_read_back_is_not_written() {
    let with = |name: &str, shape: Vec<usize>, data: TensorData| {
        let mut checkpoint = sample(1);
        checkpoint.tensors.insert(name.into(), Tensor { shape, data });
        checkpoint
    };
    refused(
        &with("w", vec![2, 2], vec![1.0_f32].into()),
        "\"w\" has shape [2, 2], which needs 4 values, but 1",
    );
    refused(
        &with("w", vec![usize::MAX, 2, 0], Vec::<u8>::new().into()),
        "more than can be addressed",
    );
    refused(&with("w", vec![1; MAX_RANK + 1], vec![1_u8].into()), "33 axes");
    refused(&with("__metadata__", vec![], vec![1_u8].into()), "reserves the name");
    let mut long = sample(1);
    long.metadata.insert("long".into(), "x".repeat(MAX_HEADER_BYTES as usize).into());
    refused(&long, "keep long lists as tensors");
    for (depth, fits) in [(MAX_JSON_DEPTH - 1, true), (MAX_JSON_DEPTH, false)] {
        let mut deep = sample(1);
        let value = (0..depth - 1).fold(Value::from(1), |inner, _| Value::from(vec![inner]));
        deep.metadata.insert("deep".into(), value);
        if fits {
            assert!(identical(&Checkpoint::from_bytes(&deep.to_bytes().unwrap()).unwrap(), &deep));
        } else {
            refused(&deep, "nested");
        }
    }
    let Err(Error::Shape(message)) = Tensor::new(vec![3], vec![1_u8]) else { panic!() };
    assert_eq!(message, "tensor has shape [3], which needs 3 values, but 1 values");
}
