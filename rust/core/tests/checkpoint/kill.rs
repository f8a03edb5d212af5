//! A process that writes checkpoints is killed at random instants.

#![cfg(unix)]

use std::fs;
use std::io::Write;
use std::path::Path;

use pnncore::checkpoint::{Checkpoint, Tensor, previous_path};

use super::common::{DIR, Rng, count, kill_writer};

/// Content of a few hundred kilobytes, so that many kills fall into a write.
fn content(step: u64) -> Checkpoint {
    let mut checkpoint = Checkpoint::default();
    checkpoint.metadata.insert("step".into(), step.into());
    for name in 0..8_u64 {
        let mut rng = Rng(step * 8 + name);
        let values: Vec<u64> = (0..8_000).map(|_| rng.next()).collect();
        checkpoint
            .tensors
            .insert(format!("t{name}"), Tensor::new(vec![values.len()], values).unwrap());
    }
    checkpoint
}

fn step_at(path: &Path) -> u64 {
    let checkpoint = Checkpoint::read(path).unwrap();
    let step = checkpoint.metadata["step"].as_u64().unwrap();
    assert!(checkpoint == content(step), "content of another step");
    step
}

/// The writer: does nothing unless the test below has started it.
#[test]
fn writer_process() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let path = Path::new(&dir).join("a.pnn");
    let first = if path.exists() { step_at(&path) + 1 } else { 0 };
    let mut out = std::io::stdout();
    writeln!(out, "\nready").unwrap();
    for step in first.. {
        content(step).write(&path).unwrap();
        writeln!(out, "wrote {step}").unwrap();
    }
}

#[test]
fn kills() {
    let times = count(20, 300);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pnn");
    let mut rng = Rng(times);
    let (mut acknowledged, mut with_leftovers) = (None, 0);
    for _ in 0..times {
        if let Some(step) = kill_writer(&mut rng, dir.path(), 25_000) {
            acknowledged = Some(step);
        }

        if let Some(acknowledged) = acknowledged {
            let step: u64 = step_at(&path);
            assert!(
                step == acknowledged || step == acknowledged + 1,
                "{step}, acknowledged {acknowledged}"
            );
            if step > 0 {
                let previous = step_at(&previous_path(&path));
                assert!(previous == step || previous + 1 == step, "{previous} before {step}");
            }
        } else if path.exists() {
            step_at(&path);
        }
        // What is there now counts, acknowledged or not: no later kill may lose it.
        if path.exists() {
            acknowledged = Some(step_at(&path));
        }
        let names = fs::read_dir(dir.path()).unwrap().count();
        assert!(names <= 4, "{names} files: leftovers pile up");
        with_leftovers += u64::from(names > 2);
    }
    assert!(acknowledged.is_some());
    assert!(with_leftovers > 0, "no kill fell into a write");
    content(0).write(&path).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "temporary files left");
}
