//! Replacing a file so that its name always stands for a complete one.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use super::storage::{NewFile, Storage};
use super::{CHUNK, io_error};
use crate::{Error, Result};

/// Temporary names that are tried before giving up.
const ATTEMPTS: u32 = 1000;

/// The path under which [`Checkpoint::write`](super::Checkpoint::write) keeps what was at `path`:
/// `.prev` appended.
#[must_use]
pub fn previous_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".prev");
    name.into()
}

/// Writes what `emit` gives to `path`: remove what killed writers left, temporary file, flush, keep
/// the old one, rename, flush the directory.
pub(super) fn replace(
    storage: &dyn Storage,
    path: &Path,
    emit: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let target = Target::new(storage, path)?;
    // Before, not after: they may be what fills the disk.
    target.remove_leftovers();
    let temporary = target.fill(emit)?;
    target.keep_previous()?;
    storage.rename(&temporary.path, &target.path).map_err(|e| io_error("rename", path, &e))?;
    temporary.done();
    storage.sync_dir(&target.dir).map_err(|e| io_error("fsync directory", path, &e))
}

struct Target<'a> {
    storage: &'a dyn Storage,
    /// As the caller wrote it, for messages.
    asked: &'a Path,
    path: PathBuf,
    dir: PathBuf,
    name: OsString,
}

impl<'a> Target<'a> {
    fn new(storage: &'a dyn Storage, asked: &'a Path) -> Result<Self> {
        let path = storage.resolve(asked).map_err(|e| io_error("open", asked, &e))?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return Err(Error::Checkpoint(format!(
                "path {:?} does not name a file",
                asked.display()
            )));
        };
        let dir = match path.parent() {
            Some(dir) if dir != Path::new("") => dir.to_owned(),
            _ => PathBuf::from("."),
        };
        // What is no file is nobody's previous checkpoint.
        let previous = previous_path(&path);
        storage.resolve(&previous).map_err(|e| io_error("open", &previous, &e))?;
        Ok(Self { storage, asked, path, dir, name })
    }

    /// Writes and flushes a temporary file, with the permissions of what is at the target.
    fn fill(
        &self,
        emit: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Temporary<'a>> {
        let failed = |op: &'static str| move |e: io::Error| io_error(op, self.asked, &e);
        let (path, file) = self
            .first_free(|path| self.storage.create_like(path, &self.path))
            .map_err(failed("create"))?;
        let mut temporary = Temporary { storage: self.storage, path, file: Some(file) };
        if let Some(file) = &mut temporary.file {
            emit(file).map_err(failed("write"))?;
            file.sync().map_err(failed("fsync"))?;
        }
        Ok(temporary)
    }

    /// Gives what is at the target the second name `.prev`. The target itself never goes away.
    fn keep_previous(&self) -> Result<()> {
        let previous = previous_path(&self.path);
        let kept = match self.first_free(|path| self.storage.hard_link(&self.path, path)) {
            Ok((path, ())) => Temporary { storage: self.storage, path, file: None },
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Not every file system has links, and they disagree in how they say so.
            Err(_) => match self.copy()? {
                Some(copy) => copy,
                None => return Ok(()),
            },
        };
        match self.storage.rename(&kept.path, &previous) {
            // Another writer of the same target has taken the link for abandoned, and keeps a
            // previous one itself.
            Err(e) if e.kind() == io::ErrorKind::NotFound && kept.file.is_none() => Ok(()),
            // Where both names stand for the same file already, rename does nothing: the link goes
            // when dropped.
            result => result.map_err(|e| io_error("rename", &previous, &e)),
        }
    }

    /// A flushed copy of what is at the target, if there is something.
    fn copy(&self) -> Result<Option<Temporary<'a>>> {
        let mut from = match self.storage.open(&self.path) {
            Ok((file, _)) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error("open", self.asked, &e)),
        };
        let mut buffer = vec![0; CHUNK];
        self.fill(&mut |out| {
            loop {
                match from.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(n) => out.write_all(&buffer[..n])?,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
        })
        .map(Some)
    }

    /// Tries `make` with temporary names until one is free.
    fn first_free<T>(
        &self,
        mut make: impl FnMut(&Path) -> io::Result<T>,
    ) -> io::Result<(PathBuf, T)> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut name = OsString::from(".");
            name.push(&self.name);
            name.push(format!(
                ".{}-{}.tmp",
                process::id(),
                COUNTER.fetch_add(1, Ordering::Relaxed)
            ));
            let path = self.dir.join(name);
            match make(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && attempt < ATTEMPTS => {}
                result => return result.map(|made| (path, made)),
            }
        }
    }

    /// Removes temporary files whose writers were killed. That it fails hinders no write.
    fn remove_leftovers(&self) {
        for name in self.storage.list(&self.dir).unwrap_or_default() {
            if is_temporary(&name, &self.name) {
                let _ = self.storage.remove_unused(&self.dir.join(name));
            }
        }
    }
}

/// Whether `name` is what [`Target::first_free`] makes of `target`.
fn is_temporary(name: &OsStr, target: &OsStr) -> bool {
    let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let numbers = (name.as_encoded_bytes().strip_prefix(b"."))
        .and_then(|rest| rest.strip_prefix(target.as_encoded_bytes()))
        .and_then(|rest| rest.strip_prefix(b"."))
        .and_then(|rest| rest.strip_suffix(b".tmp"));
    numbers.is_some_and(|numbers| {
        let mut parts = numbers.split(|&byte| byte == b'-');
        let two = (parts.next(), parts.next(), parts.next());
        matches!(two, (Some(pid), Some(count), None) if is_number(pid) && is_number(count))
    })
}

/// A temporary name, removed when dropped.
struct Temporary<'a> {
    storage: &'a dyn Storage,
    path: PathBuf,
    /// Keeps the file in use.
    file: Option<Box<dyn NewFile>>,
}

impl Temporary<'_> {
    /// The name is gone.
    fn done(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        self.file = None;
        if self.path != Path::new("") {
            let _ = self.storage.remove(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_temporary;
    use std::ffi::OsStr;

    #[test]
    fn only_own_temporaries_are_recognised() {
        let is = |name: &str| is_temporary(OsStr::new(name), OsStr::new("run.pnn"));
        assert!(is(".run.pnn.12-0.tmp"));
        for other in [
            "run.pnn",
            "run.pnn.prev",
            ".run.pnn.tmp",
            ".run.pnn.12.tmp",
            ".run.pnn.12-.tmp",
            ".run.pnn.-1.tmp",
            ".run.pnn.1-2-3.tmp",
            ".run.pnn.a-1.tmp",
            ".run.pnn2.12-0.tmp",
            ".my.run.pnn.12-0.tmp",
            ".run.pnn.12-0.tmp.bak",
        ] {
            assert!(!is(other), "{other}");
        }
    }
}
