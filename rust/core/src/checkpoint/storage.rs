//! The file operations that a checkpoint needs, as a trait, so that tests can make each of them
//! fail.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Where checkpoints are kept. [`Disk`] is the real one.
///
/// Errors are those of the operating system; a missing file is [`io::ErrorKind::NotFound`], a name
/// that is taken is [`io::ErrorKind::AlreadyExists`].
pub trait Storage {
    /// Creates a file that must not exist yet and is in use until it is dropped.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if the name is taken; what the operating system reports.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>>;

    /// Opens a file for reading, and gives its length.
    ///
    /// # Errors
    ///
    /// What the operating system reports; that it is no regular file.
    fn open(&self, path: &Path) -> io::Result<(Box<dyn Read>, u64)>;

    /// Gives a file a second name, which must not exist yet.
    ///
    /// # Errors
    ///
    /// What the operating system reports; not every file system can do it.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Renames a file at once, replacing the one that has the new name.
    ///
    /// # Errors
    ///
    /// What the operating system reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// What the operating system reports.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a file unless it is in use, and gives whether it did.
    ///
    /// # Errors
    ///
    /// What the operating system reports.
    fn remove_unused(&self, path: &Path) -> io::Result<bool>;

    /// The names in a directory.
    ///
    /// # Errors
    ///
    /// What the operating system reports.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// Makes the changes of names in a directory survive a power cut.
    ///
    /// # Errors
    ///
    /// What the operating system reports.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// The path of the file itself where `path` is a symbolic link.
    ///
    /// # Errors
    ///
    /// What the operating system reports.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }
}

/// A file that is being written.
pub trait NewFile: Write {
    /// Makes everything written so far survive a power cut.
    ///
    /// # Errors
    ///
    /// What the operating system reports. What was written is then lost: trying again may wrongly
    /// succeed.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system of the operating system.
///
/// A file is in use while its writer holds an advisory lock on it. Unlike a process number, a lock
/// ends with its process, is never reused, and is seen from other containers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Storage for Disk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let taken = match file.try_lock() {
            // Between its creation and its lock another writer may have taken it for abandoned.
            Ok(()) => !path.try_exists()?,
            Err(TryLockError::WouldBlock) => true,
            // Without locks, nothing is ever taken for abandoned.
            Err(TryLockError::Error(_)) => false,
        };
        if taken { Err(io::ErrorKind::AlreadyExists.into()) } else { Ok(Box::new(file)) }
    }

    fn open(&self, path: &Path) -> io::Result<(Box<dyn Read>, u64)> {
        // Asked before opening: opening a pipe would wait for a writer.
        require_regular(&fs::metadata(path)?)?;
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        require_regular(&metadata)?;
        Ok((Box::new(file), metadata.len()))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_unused(&self, path: &Path) -> io::Result<bool> {
        require_regular(&fs::symlink_metadata(path)?)?;
        let file = File::open(path)?;
        match file.try_lock() {
            Ok(()) => fs::remove_file(path).map(|()| true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Elsewhere a directory cannot be opened, and names are journaled by the file system.
        if cfg!(not(unix)) {
            return Ok(());
        }
        match File::open(dir)?.sync_all() {
            // Some network and user-space file systems have no such operation.
            Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
            result => result,
        }
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_symlink() => fs::canonicalize(path),
            Ok(_) => Ok(path.to_owned()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
            Err(e) => Err(e),
        }
    }
}

impl NewFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

fn require_regular(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_file() { Ok(()) } else { Err(io::Error::other("is not a regular file")) }
}
