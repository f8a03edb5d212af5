//! The file operations that a journal needs, as a trait, so that tests can make each of them fail.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint::storage::{Disk, Storage};

/// A file that is only appended to. [`DiskLog`] is the real one.
///
/// Errors are those of the operating system.
pub trait Log: Send {
    /// Its length.
    ///
    /// # Errors
    /// What the operating system reports.
    fn length(&self) -> io::Result<u64>;

    /// Reads from `at` on, as many bytes as there are and as fit; gives how many.
    ///
    /// # Errors
    /// What the operating system reports.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes at the end. Where it fails, a part may have been written.
    ///
    /// # Errors
    /// What the operating system reports.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the end off.
    ///
    /// # Errors
    /// What the operating system reports.
    fn truncate(&mut self, len: u64) -> io::Result<()>;

    /// Makes all that was written survive a power cut.
    ///
    /// # Errors
    /// What the operating system reports. What was written is then lost: trying again may wrongly
    /// succeed.
    fn sync(&mut self) -> io::Result<()>;

    /// Copies what lies from `from` on to a new file beside, and gives its name. Where it fails, no
    /// file stays.
    ///
    /// # Errors
    /// What the operating system reports.
    fn set_aside(&mut self, from: u64) -> io::Result<String>;
}

/// A file of the operating system. One that is appended to is locked against other writers.
#[derive(Debug)]
pub struct DiskLog {
    file: File,
    path: PathBuf,
    /// Whether the file is positioned at its end.
    at_end: Cell<bool>,
    /// The process that opened it, whose lock it is.
    process: u32,
}

/// How many torn ends with the same beginning are kept beside a file.
const MOST_ASIDE: u32 = 10_000;

impl DiskLog {
    /// Opens a file for appending, and makes it where there is none.
    ///
    /// # Errors
    /// What the operating system reports; [`io::ErrorKind::WouldBlock`] where another writer has
    /// it.
    pub fn append_to(path: &Path) -> io::Result<Self> {
        if let Ok(metadata) = fs::metadata(path)
            && !metadata.is_file()
        {
            return Err(io::Error::other("is not a regular file"));
        }
        let new = !path.try_exists()?;
        let log = Self::of(
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?,
            path,
        );
        log.lock()?;
        if new {
            sync_parent(path)?;
        }
        Ok(log)
    }

    /// Makes a file for appending where there is none, not even a symbolic link.
    ///
    /// # Errors
    /// What the operating system reports; [`io::ErrorKind::AlreadyExists`] where the name is taken.
    pub fn create(path: &Path) -> io::Result<Self> {
        let log =
            Self::of(OpenOptions::new().read(true).write(true).create_new(true).open(path)?, path);
        log.lock()?;
        sync_parent(path)?;
        Ok(log)
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// What the operating system reports; that it is no regular file.
    pub fn read(path: &Path) -> io::Result<Self> {
        // Asked before opening: opening a pipe would wait for a writer.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("is not a regular file"));
        }
        Ok(Self::of(File::open(path)?, path))
    }

    fn of(file: File, path: &Path) -> Self {
        Self { file, path: path.to_owned(), at_end: Cell::new(false), process: std::process::id() }
    }

    fn lock(&self) -> io::Result<()> {
        match self.file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn copy_to(&self, aside: &mut File, from: u64) -> io::Result<()> {
        self.at_end.set(false);
        // Who may not read the journal may not read its end.
        aside.set_permissions(self.file.metadata()?.permissions())?;
        (&self.file).seek(SeekFrom::Start(from))?;
        io::copy(&mut &self.file, aside)?;
        aside.sync_all()
    }
}

impl Drop for DiskLog {
    /// A process that was forked meanwhile holds the file open, and the lock with it: the owner
    /// gives it back for both.
    fn drop(&mut self) {
        if self.process == std::process::id() {
            let _ = self.file.unlock();
        }
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Disk.sync_dir(Path::new(".")),
        Some(parent) => Disk.sync_dir(parent),
        None => Ok(()),
    }
}

/// Makes a file `NAME.torn-FROM` that was not there, numbered where there are others.
fn create_beside(path: &Path, from: u64) -> io::Result<(File, OsString)> {
    for k in 0..MOST_ASIDE {
        let mut name = path.to_owned().into_os_string();
        name.push(if k == 0 { format!(".torn-{from}") } else { format!(".torn-{from}-{k}") });
        // A new file is never one that a link leads to.
        match OpenOptions::new().write(true).create_new(true).open(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return Ok((other?, name)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Reads without moving the place where a process that shares the open file writes.
#[cfg(unix)]
fn read_some(file: &File, at: u64, into: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, into, at)
}

/// Reads at a place; appending seeks the end again.
#[cfg(not(unix))]
fn read_some(mut file: &File, at: u64, into: &mut [u8]) -> io::Result<usize> {
    file.seek(SeekFrom::Start(at))?;
    io::Read::read(&mut file, into)
}

impl Log for DiskLog {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        if cfg!(not(unix)) {
            self.at_end.set(false);
        }
        let mut done = 0;
        while done < into.len() {
            match read_some(&self.file, at + done as u64, &mut into[done..]) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.at_end.replace(true) {
            self.file.seek(SeekFrom::End(0))?;
        }
        self.file.write_all(bytes)
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.at_end.set(false);
        self.file.set_len(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_aside(&mut self, from: u64) -> io::Result<String> {
        let (mut aside, name) = create_beside(&self.path, from)?;
        let done = self.copy_to(&mut aside, from).and_then(|()| sync_parent(&self.path));
        drop(aside);
        if let Err(error) = done {
            // Half of it would look like the whole; the journal still has it.
            let _ = fs::remove_file(&name);
            return Err(error);
        }
        Ok(name.to_string_lossy().into_owned())
    }
}
