//! The file operations that a journal needs, as a trait, so that tests can make each of them fail.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
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
    /// What the operating system reports. What was written is then lost: trying again may wrongly succeed.
    fn sync(&mut self) -> io::Result<()>;

    /// Copies what lies from `from` on to a file beside, and gives its name.
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
}

impl DiskLog {
    /// Opens a file for appending, and makes it where there is none.
    ///
    /// # Errors
    /// What the operating system reports; [`io::ErrorKind::WouldBlock`] where another writer has it.
    pub fn append_to(path: &Path) -> io::Result<Self> {
        if let Ok(metadata) = fs::metadata(path)
            && !metadata.is_file()
        {
            return Err(io::Error::other("is not a regular file"));
        }
        let new = !path.try_exists()?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if new && let Some(parent) = path.parent() {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Disk.sync_dir(parent)?;
        }
        Ok(Self { file, path: path.to_owned(), at_end: Cell::new(false) })
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
        Ok(Self { file: File::open(path)?, path: path.to_owned(), at_end: Cell::new(false) })
    }
}

impl Drop for DiskLog {
    /// A process that was forked meanwhile holds the file open, and the lock with it.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl Log for DiskLog {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.at_end.set(false);
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at))?;
        let mut done = 0;
        while done < into.len() {
            match file.read(&mut into[done..]) {
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
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".torn-{from}"));
        let mut aside = File::create(&name)?;
        self.at_end.set(false);
        (&self.file).seek(SeekFrom::Start(from))?;
        io::copy(&mut &self.file, &mut aside)?;
        aside.sync_all()?;
        Ok(name.to_string_lossy().into_owned())
    }
}
