//! Every operation fails once, or it and all after it fail: the file stays one of the two, and the
//! error is told.

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use pnncore::Error;
use pnncore::checkpoint::storage::{Disk, NewFile, Storage};
use pnncore::checkpoint::{Checkpoint, previous_path};

use super::support::{sample, step_of};

/// Passes operations on to another storage until the one that is to fail.
pub(crate) struct Faulty<'a> {
    inner: &'a dyn Storage,
    plan: Rc<Plan>,
}

struct Plan {
    /// Operations until the fault.
    left: Cell<u64>,
    /// Whether all that comes after fails too.
    stays: bool,
    errno: i32,
    /// Most bytes that one write takes.
    at_once: usize,
    links: bool,
    fired: Cell<bool>,
}

impl<'a> Faulty<'a> {
    /// Fails at operation `k`, counted from 0.
    pub(crate) fn new(inner: &'a dyn Storage, k: u64, stays: bool, errno: i32) -> Self {
        let (left, fired) = (Cell::new(k), Cell::new(false));
        let plan = Plan { left, stays, errno, at_once: usize::MAX, links: true, fired };
        Self { inner, plan: Rc::new(plan) }
    }

    fn change(mut self, change: impl FnOnce(&mut Plan)) -> Self {
        change(Rc::get_mut(&mut self.plan).unwrap());
        self
    }

    pub(crate) fn fired(&self) -> bool {
        self.plan.fired.get()
    }
}

impl Plan {
    fn check(&self) -> io::Result<()> {
        if self.fired.get() {
            return if self.stays { Err(io::Error::from_raw_os_error(self.errno)) } else { Ok(()) };
        }
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                self.fired.set(true);
                Err(io::Error::from_raw_os_error(self.errno))
            }
        }
    }
}

impl Storage for Faulty<'_> {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        self.plan.check()?;
        Ok(Box::new(FaultyFile { inner: self.inner.create_new(path)?, plan: self.plan.clone() }))
    }
    fn open(&self, path: &Path) -> io::Result<(Box<dyn Read>, u64)> {
        self.plan.check()?;
        let (inner, len) = self.inner.open(path)?;
        Ok((Box::new(FaultyFile { inner, plan: self.plan.clone() }), len))
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.plan.check()?;
        if self.plan.links {
            self.inner.hard_link(from, to)
        } else {
            Err(io::Error::from_raw_os_error(1))
        }
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.plan.check()?;
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.plan.check()?;
        self.inner.remove(path)
    }
    fn remove_unused(&self, path: &Path) -> io::Result<bool> {
        self.plan.check()?;
        self.inner.remove_unused(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.plan.check()?;
        self.inner.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.plan.check()?;
        self.inner.sync_dir(dir)
    }
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.plan.check()?;
        self.inner.resolve(path)
    }
}

struct FaultyFile<F> {
    inner: F,
    plan: Rc<Plan>,
}

impl Write for FaultyFile<Box<dyn NewFile>> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(e) = self.plan.check() {
            // A failing write may leave a part behind.
            let _ = self.inner.write(&bytes[..bytes.len() / 2]);
            return Err(e);
        }
        self.inner.write(&bytes[..bytes.len().min(self.plan.at_once)])
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl NewFile for FaultyFile<Box<dyn NewFile>> {
    fn sync(&mut self) -> io::Result<()> {
        self.plan.check()?;
        self.inner.sync()
    }
}

impl Read for FaultyFile<Box<dyn Read>> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.plan.check()?;
        let len = to.len().min(self.plan.at_once);
        self.inner.read(&mut to[..len])
    }
}

/// Full disk, I/O error, permission, read-only, quota, unknown operation.
const ERRNOS: [i32; 6] = [28, 5, 13, 30, 122, 95];

fn leftovers(dir: &Path) -> usize {
    let names = Disk.list(dir).unwrap();
    names.iter().filter(|name| name.to_string_lossy().ends_with(".tmp")).count()
}

/// Fails operation k of a third write, for all k; gives how many there are.
fn every_fault(stays: bool, errno: i32, at_once: usize, links: bool) -> u64 {
    for k in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pnn");
        sample(1).write(&path).unwrap();
        sample(2).write(&path).unwrap();
        // Something that a killed writer left, so that removing it fails too.
        std::fs::write(dir.path().join(".a.pnn.1-0.tmp"), "part").unwrap();

        let faulty = Faulty::new(&Disk, k, stays, errno).change(|plan| {
            plan.at_once = at_once;
            plan.links = links;
        });
        let result = sample(3).write_to(&faulty, &path);
        let (now, previous) = (Checkpoint::read(&path), Checkpoint::read(previous_path(&path)));
        let (now, previous) = (step_of(&now.unwrap()), step_of(&previous.unwrap()));
        match &result {
            Ok(()) => {
                assert_eq!((now, previous), (3, 2), "operation {k}");
            }
            Err(Error::Io { op: "fsync directory", errno: Some(e), .. }) => {
                assert_eq!((now, previous, *e), (3, 2, errno), "operation {k}");
            }
            Err(Error::Io { op, path: at, errno: Some(e), message }) => {
                assert_eq!((now, *e), (2, errno), "operation {k}: {op} {message}");
                assert!(previous == 1 || previous == 2, "operation {k}: {op}");
                assert!(at.contains("a.pnn"), "{at}");
                if !stays {
                    // The first two look at what is there; the removal of leftovers comes after.
                    let left = usize::from(k < 2);
                    assert_eq!(leftovers(dir.path()), left, "operation {k}: {op}");
                }
            }
            Err(other) => panic!("operation {k}: {other:?}"),
        }
        // Nothing is left that hinders the next one.
        sample(4).write(&path).unwrap();
        assert_eq!(step_of(&Checkpoint::read(&path).unwrap()), 4);
        assert_eq!(step_of(&Checkpoint::read(previous_path(&path)).unwrap()), now);
        assert_eq!(leftovers(dir.path()), 0, "operation {k}");
        if !faulty.fired() {
            result.unwrap();
            return k;
        }
    }
    unreachable!()
}

#[test]
fn every_operation_of_a_write() {
    for errno in ERRNOS {
        for stays in [false, true] {
            let operations = every_fault(stays, errno, usize::MAX, true);
            assert!((10..20).contains(&operations), "{operations}");
        }
    }
}

#[test]
fn every_operation_of_a_write_without_links_and_with_short_writes() {
    for stays in [false, true] {
        let whole = every_fault(stays, 28, usize::MAX, true);
        let (short, copied) =
            (every_fault(stays, 28, 100, true), every_fault(stays, 28, 400, false));
        assert!(short > whole + 5 && copied > whole + 5, "{whole} {short} {copied}");
    }
}

#[test]
fn the_first_write() {
    for k in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pnn");
        let faulty = Faulty::new(&Disk, k, false, 28);
        match sample(1).write_to(&faulty, &path) {
            Ok(()) | Err(Error::Io { op: "fsync directory", .. }) => {
                assert_eq!(step_of(&Checkpoint::read(&path).unwrap()), 1);
            }
            Err(Error::Io { errno: Some(28), .. }) => assert!(!path.exists()),
            Err(other) => panic!("{other:?}"),
        }
        assert_eq!(leftovers(dir.path()), 0, "operation {k}");
        if !faulty.fired() {
            break;
        }
    }
}

#[test]
fn every_operation_of_a_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pnn");
    sample(1).write(&path).unwrap();
    for k in 0.. {
        let faulty = Faulty::new(&Disk, k, false, 5).change(|plan| plan.at_once = 50);
        match Checkpoint::read_from(&faulty, &path) {
            Ok(checkpoint) => {
                assert!(!faulty.fired());
                assert_eq!(step_of(&checkpoint), 1);
                assert!(k > 10);
                break;
            }
            Err(Error::Io { op, path: at, errno, .. }) => {
                assert_eq!((op, errno), (if k == 0 { "open" } else { "read" }, Some(5)));
                assert_eq!(at, path.display().to_string());
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}
