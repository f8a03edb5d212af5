//! The file operations that a checkpoint needs, as a trait, so that tests can make each of them
//! fail.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Symbolic links that are followed, one to the next.
const MAX_LINKS: usize = 40;

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

    /// Creates a file as [`create_new`](Self::create_new) does, with the permissions of the file
    /// `like` and, as far as it is allowed, its owner. Where there is no such file, or no such
    /// thing, it is as any new one.
    ///
    /// # Errors
    ///
    /// Those of [`create_new`](Self::create_new); that the permissions cannot be had.
    fn create_like(&self, path: &Path, like: &Path) -> io::Result<Box<dyn NewFile>> {
        let _ = like;
        self.create_new(path)
    }

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

    /// The path of the file itself where `path` is a symbolic link, whether there is one yet or
    /// not.
    ///
    /// # Errors
    ///
    /// That something else than a file is there; what the operating system reports.
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
        create(path, None)
    }

    fn create_like(&self, path: &Path, like: &Path) -> io::Result<Box<dyn NewFile>> {
        match fs::metadata(like) {
            Ok(model) => create(path, Some(&model)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => create(path, None),
            Err(e) => Err(e),
        }
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
            Err(e)
                if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) =>
            {
                Ok(())
            }
            result => result,
        }
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut at = path.to_owned();
        for _ in 0..MAX_LINKS {
            match fs::symlink_metadata(&at) {
                Ok(metadata) if metadata.is_symlink() => {
                    let to = fs::read_link(&at)?;
                    at.pop();
                    at.push(to);
                }
                Ok(metadata) => return require_regular(&metadata).map(|()| at),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(at),
                Err(e) => return Err(e),
            }
        }
        // The operating system says that there are too many.
        fs::canonicalize(path)
    }
}

/// Creates a file that is in use, like `model` where there is one.
fn create(path: &Path, model: Option<&fs::Metadata>) -> io::Result<Box<dyn NewFile>> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    if model.is_some() {
        attributes::restrict(&mut options);
    }
    let file = options.open(path)?;
    let taken = match file.try_lock() {
        // Between its creation and its lock another writer may have taken it for abandoned.
        Ok(()) => !path.try_exists()?,
        Err(TryLockError::WouldBlock) => true,
        // Without locks, nothing is ever taken for abandoned.
        Err(TryLockError::Error(_)) => false,
    };
    if taken {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    if let Some(model) = model {
        attributes::adopt(&file, model).inspect_err(|_| drop(fs::remove_file(path)))?;
    }
    Ok(Box::new(file))
}

/// Permissions and owners of files, where the operating system has them.
#[cfg(unix)]
mod attributes {
    use std::fs::{File, Metadata, OpenOptions, Permissions};
    use std::io;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};

    /// Lets nobody else open the file, until [`adopt`] says who may.
    pub(super) fn restrict(options: &mut OpenOptions) {
        options.mode(0o600);
    }

    /// Gives the file the owner and the permissions of another. Where the group cannot be had, the
    /// group that the file has is allowed no more than all others are.
    pub(super) fn adopt(file: &File, model: &Metadata) -> io::Result<()> {
        let own = file.metadata()?;
        if own.uid() != model.uid() {
            // Root may, others may not: then it is the writer's.
            let _ = fchown(file, Some(model.uid()), None);
        }
        let has_group = own.gid() == model.gid() || fchown(file, None, Some(model.gid())).is_ok();
        let wanted = model.mode() & 0o777;
        let mode = if has_group { wanted } else { wanted & (0o707 | (wanted & 0o007) << 3) };
        if own.mode() & 0o777 == mode {
            return Ok(());
        }
        file.set_permissions(Permissions::from_mode(mode))
    }
}

/// There are none.
#[cfg(not(unix))]
mod attributes {
    pub(super) fn restrict(_: &mut std::fs::OpenOptions) {}

    pub(super) fn adopt(_: &std::fs::File, _: &std::fs::Metadata) -> std::io::Result<()> {
        Ok(())
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
