//! Power cuts: a disk in memory that keeps, drops or garbles whatever was not flushed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use pnncore::Error;
use pnncore::checkpoint::storage::{NewFile, Storage};
use pnncore::checkpoint::{Checkpoint, previous_path};

use super::common::{Rng, count};
use super::faults::Faulty;
use super::support::{sample, step_of};

#[derive(Default, Clone)]
struct Memory(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    files: Vec<FileState>,
    names: BTreeMap<PathBuf, usize>,
    flushed_names: BTreeMap<PathBuf, usize>,
    /// Changes of names since the directory was flushed; each is atomic.
    changes: Vec<Change>,
}

#[derive(Default)]
struct FileState {
    bytes: Vec<u8>,
    flushed: Vec<u8>,
    in_use: bool,
}

#[derive(Clone)]
struct Change {
    set: Option<(PathBuf, usize)>,
    unset: Option<PathBuf>,
}

impl State {
    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::Error::from_raw_os_error(2))
    }

    fn change(&mut self, set: Option<(&Path, usize)>, unset: Option<&Path>) {
        let change = Change {
            set: set.map(|(path, id)| (path.to_owned(), id)),
            unset: unset.map(Path::to_owned),
        };
        change.apply(&mut self.names);
        self.changes.push(change);
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        if let Some(path) = &self.unset {
            names.remove(path);
        }
        if let Some((path, id)) = &self.set {
            names.insert(path.clone(), *id);
        }
    }
}

impl Memory {
    /// The power goes and comes back.
    fn cut(&self, rng: &mut Rng) {
        let mut state = self.0.borrow_mut();
        // Journaled file systems lose the last changes of names; others may lose any.
        let changes = std::mem::take(&mut state.changes);
        let in_order = rng.below(2) == 0;
        let kept = rng.below(changes.len() + 1);
        for (i, change) in changes.iter().enumerate() {
            if if in_order { i < kept } else { rng.below(2) == 0 } {
                change.apply(&mut state.flushed_names);
            }
        }
        state.names = state.flushed_names.clone();
        for file in &mut state.files {
            file.in_use = false;
            if file.bytes != file.flushed {
                let old = file.flushed.len();
                let len = match rng.below(3) {
                    0 => file.bytes.len(),
                    1 => old,
                    _ => old + rng.below(file.bytes.len() - old + 1),
                };
                file.bytes.truncate(len);
                for sector in file.bytes[old.min(len)..].chunks_mut(64) {
                    match rng.below(4) {
                        0 => sector.fill(0),
                        1 => sector.iter_mut().for_each(|byte| *byte = rng.next() as u8),
                        _ => {}
                    }
                }
                file.flushed.clone_from(&file.bytes);
            }
        }
    }
}

struct MemoryFile {
    disk: Memory,
    id: usize,
}

impl Write for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Several writes per file, so that some are kept and some are not.
        let part = &bytes[..bytes.len().min(256)];
        self.disk.0.borrow_mut().files[self.id].bytes.extend(part);
        Ok(part.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for MemoryFile {
    fn sync(&mut self) -> io::Result<()> {
        let file = &mut self.disk.0.borrow_mut().files[self.id];
        file.flushed.clone_from(&file.bytes);
        Ok(())
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        self.disk.0.borrow_mut().files[self.id].in_use = false;
    }
}

impl Storage for Memory {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let mut state = self.0.borrow_mut();
        if state.names.contains_key(path) {
            return Err(io::Error::from_raw_os_error(17));
        }
        let id = state.files.len();
        state.files.push(FileState { in_use: true, ..FileState::default() });
        state.change(Some((path, id)), None);
        Ok(Box::new(MemoryFile { disk: self.clone(), id }))
    }
    fn open(&self, path: &Path) -> io::Result<(Box<dyn Read>, u64)> {
        let state = self.0.borrow();
        let bytes = state.files[state.find(path)?].bytes.clone();
        let len = bytes.len() as u64;
        Ok((Box::new(io::Cursor::new(bytes)), len))
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let id = state.find(from)?;
        if state.names.contains_key(to) {
            return Err(io::Error::from_raw_os_error(17));
        }
        state.change(Some((to, id)), None);
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let id = state.find(from)?;
        // As POSIX wants it: two names of one file both stay.
        if state.names.get(to) != Some(&id) {
            state.change(Some((to, id)), Some(from));
        }
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.find(path)?;
        state.change(None, Some(path));
        Ok(())
    }
    fn remove_unused(&self, path: &Path) -> io::Result<bool> {
        let in_use = {
            let state = self.0.borrow();
            state.files[state.find(path)?].in_use
        };
        if !in_use {
            self.remove(path)?;
        }
        Ok(!in_use)
    }
    fn list(&self, _: &Path) -> io::Result<Vec<OsString>> {
        Ok(self.0.borrow().names.keys().map(|path| path.file_name().unwrap().to_owned()).collect())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        state.changes.clear();
        state.flushed_names.clone_from(&state.names);
        Ok(())
    }
}

/// The step that is at `path`, or None if nothing is; anything else fails the test.
fn step_at(disk: &Memory, path: &Path) -> Option<u64> {
    match Checkpoint::read_from(disk, path) {
        Ok(checkpoint) => Some(step_of(&checkpoint)),
        Err(Error::Io { errno: Some(2), .. }) => None,
        Err(other) => panic!("after a power cut: {other}"),
    }
}

#[test]
fn old_or_new_after_every_power_cut() {
    let (path, mut seen) = (Path::new("/a.pnn"), [0_u64; 3]);
    for seed in 0..count(3_000, 200_000) {
        let (disk, mut rng) = (Memory::default(), Rng(seed));
        let (mut safe, mut previous_safe) = (None, None);
        for step in 1..=5 {
            let faulty = Faulty::new(&disk, rng.below(24) as u64, true, 5);
            let result = sample(step).write_to(&faulty, path);
            disk.cut(&mut rng);
            let (now, previous) = (step_at(&disk, path), step_at(&disk, &previous_path(path)));
            match result {
                Ok(()) => {
                    assert_eq!((now, previous), (Some(step), safe), "seed {seed}");
                    seen[0] += 1;
                }
                Err(_) if now == Some(step) => seen[1] += 1,
                Err(_) => {
                    assert_eq!(now, safe, "seed {seed}");
                    seen[2] += 1;
                }
            }
            assert!(previous == safe || previous == previous_safe, "seed {seed}: {previous:?}");
            (safe, previous_safe) = (now, previous);
        }
    }
    assert!(seen.iter().all(|&n| n > 100), "{seen:?}");
}

#[test]
fn the_disk_in_memory_catches_a_missing_flush() {
    let path = Path::new("/a.pnn");
    let bytes = sample(2).to_bytes().unwrap();
    let (mut torn, mut lost) = (0, 0);
    for seed in 0..200 {
        for flush_file in [false, true] {
            let (disk, mut rng) = (Memory::default(), Rng(seed));
            sample(1).write_to(&disk, path).unwrap();
            let mut file = disk.create_new(Path::new("/tmp")).unwrap();
            file.write_all(&bytes).unwrap();
            if flush_file {
                file.sync().unwrap();
            }
            drop(file);
            disk.rename(Path::new("/tmp"), path).unwrap();
            disk.cut(&mut rng);
            match Checkpoint::read_from(&disk, path) {
                Ok(checkpoint) => lost += u64::from(step_of(&checkpoint) == 1 && flush_file),
                Err(_) => {
                    assert!(!flush_file);
                    torn += 1;
                }
            }
        }
    }
    assert!(torn > 20 && lost > 20, "{torn} {lost}");
}
