//! Small files that are whole or absent after a crash at any moment.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Mode of files that only their owner can read.
pub const PRIVATE: u32 = 0o600;
/// Mode of directories that only their owner can enter.
pub const PRIVATE_DIR: u32 = 0o700;

/// Suffix of files that are being written.
const TEMPORARY_END: &str = ".tmp";

/// Maximum size of a state file that is read, in bytes: a damaged one must not fill the memory.
const MAX_LEN: u64 = 16 * 1024 * 1024;

/// Writes `name` in `dir` so that after a crash it has either its old content or `bytes`; see [`stream_at`].
///
/// # Errors
/// I/O errors.
pub fn write_at(dir: impl AsFd, name: &OsStr, bytes: &[u8], mode: u32) -> io::Result<()> {
    stream_at(dir, name, mode, |mut file| {
        file.write_all(bytes)?;
        Ok((file, ()))
    })
}

/// Lets `fill` write a file that becomes `name` in `dir` when it is complete, and is absent before.
///
/// Steps: 1. write `.name.tmp`, locked; 2. fsync it; 3. rename over `name`; 4. fsync the directory. A crash
/// before 3 leaves a `.tmp` file, which the next write replaces, no reader reads, and [`sweep_temporaries`]
/// removes; an error before 3 removes it.
///
/// # Errors
/// I/O errors, and errors of `fill`.
pub fn stream_at<T, E: From<io::Error>>(
    dir: impl AsFd,
    name: &OsStr,
    mode: u32,
    fill: impl FnOnce(File) -> Result<(File, T), E>,
) -> Result<T, E> {
    let mut filled = Filled::open(dir, name, mode)?;
    let result = filled.fill_by(fill)?;
    filled.locked.sync_all()?;
    filled.rename()?;
    rustix::fs::fsync(&filled.dir).map_err(io::Error::from)?;
    Ok(result)
}

/// A file that has content, but not its name yet. Dropped without its name, it is removed.
///
/// It saves the two syncs of [`write_at`] where the file system is synced and committed anyway: fill the file, sync the file
/// system, let the file take its name, commit the file system. A crash before that commit leaves the old content under the
/// name, and perhaps a `.tmp` file.
#[derive(Debug)]
pub struct Filled {
    dir: OwnedFd,
    tmp: OsString,
    name: OsString,
    locked: File,
    has_name: bool,
}

impl Filled {
    /// Writes `bytes` to the file that is to be `name` in `dir`.
    ///
    /// # Errors
    /// I/O errors.
    pub fn new(dir: impl AsFd, name: &OsStr, bytes: &[u8], mode: u32) -> io::Result<Self> {
        let mut filled = Self::open(dir, name, mode)?;
        filled.fill_by(|mut file| {
            file.write_all(bytes)?;
            Ok::<_, io::Error>((file, ()))
        })?;
        Ok(filled)
    }

    /// Writes a value as JSON, readable only by its owner, like [`Filled::new`].
    ///
    /// # Errors
    /// I/O errors.
    pub fn json(dir: impl AsFd, name: &OsStr, value: &impl Serialize) -> io::Result<Self> {
        Self::new(dir, name, &to_json(value)?, PRIVATE)
    }

    fn open(dir: impl AsFd, name: &OsStr, mode: u32) -> io::Result<Self> {
        let (dir, tmp) = (reopen_dir(dir)?, temporary(name));
        let mode = Mode::from_raw_mode(mode);
        let filled = Self {
            locked: File::from(open_temporary(&dir, &tmp, mode)?),
            dir,
            tmp,
            name: name.to_owned(),
            has_name: false,
        };
        rustix::fs::fchmod(&filled.locked, mode)?;
        Ok(filled)
    }

    fn fill_by<T, E: From<io::Error>>(
        &mut self,
        fill: impl FnOnce(File) -> Result<(File, T), E>,
    ) -> Result<T, E> {
        // The file comes back, so that no buffer around it can still hold a part.
        let (_, result) = fill(self.locked.try_clone()?)?;
        Ok(result)
    }

    /// Renames the file over its name. Its content must have been synced.
    ///
    /// # Errors
    /// I/O errors; the name has its old content then.
    pub fn take_name(mut self) -> io::Result<()> {
        self.rename()
    }

    fn rename(&mut self) -> io::Result<()> {
        rustix::fs::renameat(&self.dir, &self.tmp, &self.dir, &self.name)?;
        self.has_name = true;
        Ok(())
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        if !self.has_name {
            // What cannot be removed, the next write replaces.
            let _ = rustix::fs::unlinkat(&self.dir, &self.tmp, AtFlags::empty());
        }
    }
}

/// Opens the file exclusively and empty. It waits for another writer of the same name, whose file has then
/// been renamed and is another file.
fn open_temporary(dir: impl AsFd, tmp: &OsStr, mode: Mode) -> io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        let file = rustix::fs::openat(&dir, tmp, flags, mode)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
        let ours = rustix::fs::fstat(&file)?;
        match rustix::fs::statat(&dir, tmp, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) if (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino) => {
                rustix::fs::ftruncate(&file, 0)?;
                return Ok(file);
            }
            Ok(_) | Err(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Removes the files that crashes during [`stream_at`] left in `dir`; returns their number. A file that is
/// being written is locked, and stays.
///
/// # Errors
/// I/O errors.
pub fn sweep_temporaries(dir: impl AsFd) -> io::Result<usize> {
    let mut swept = 0;
    for name in names(&dir)? {
        let bytes = name.as_encoded_bytes();
        if !bytes.starts_with(b".") || !bytes.ends_with(TEMPORARY_END.as_bytes()) {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&dir, &name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT) => continue,
            Err(e) => return Err(e.into()),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => continue,
            Err(e) => return Err(e.into()),
        }
        match rustix::fs::unlinkat(&dir, &name, AtFlags::empty()) {
            Ok(()) => swept += 1,
            Err(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(swept)
}

/// Reads `name` in `dir`; `None` if there is no such file.
///
/// # Errors
/// I/O errors, and `InvalidData` for a file larger than 16 MiB.
pub fn read_at(dir: impl AsFd, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = open_file(dir, name)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    file.take(MAX_LEN + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "state file is too large",
        ));
    }
    Ok(Some(bytes))
}

/// Opens `name` in `dir` for reading; `None` if it does not exist. A disk may be untrusted: reading a file of
/// another type, such as a pipe, could block forever.
///
/// # Errors
/// I/O errors, or `InvalidData` if it is not a regular file.
pub fn open_file(dir: impl AsFd, name: &OsStr) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(rustix::io::Errno::LOOP) => return Err(irregular()),
        Err(e) => return Err(e.into()),
    };
    match file.metadata()?.is_file() {
        true => Ok(Some(file)),
        false => Err(irregular()),
    }
}

fn irregular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file")
}

/// Removes `name` in `dir`, durably, and what a crash while writing it left; a missing file is no error.
///
/// # Errors
/// I/O errors.
pub fn remove_at(dir: impl AsFd, name: &OsStr) -> io::Result<()> {
    let mut removed = false;
    for name in [&temporary(name), name] {
        match rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
            Ok(()) => removed = true,
            Err(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    if removed {
        rustix::fs::fsync(reopen_dir(&dir)?)?;
    }
    Ok(())
}

/// Writes a file like [`write_at`], by path.
///
/// # Errors
/// I/O errors, with the path.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (dir, name) = split(path)?;
    write_at(dir, name, bytes, mode).map_err(|e| at(path, e))
}

/// Removes a file like [`remove_at`], by path.
///
/// # Errors
/// I/O errors, with the path.
pub fn remove(path: &Path) -> io::Result<()> {
    let (dir, name) = split(path)?;
    remove_at(dir, name).map_err(|e| at(path, e))
}

/// Writes a value as JSON with [`write`], readable only by its owner.
///
/// # Errors
/// I/O errors, with the path.
pub fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write(path, &to_json(value)?, PRIVATE)
}

/// Writes a value as JSON, readable only by its owner, without a sync: after a crash the file may have its old content, or
/// be damaged. For what can be lost.
///
/// # Errors
/// I/O errors, with the path.
pub fn replace_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let bytes = to_json(value)?;
    let (dir, name) = split(path)?;
    let tmp = temporary(name);
    let replace = || -> io::Result<()> {
        let mut file = File::from(open_temporary(&dir, &tmp, Mode::from_raw_mode(PRIVATE))?);
        file.write_all(&bytes)?;
        rustix::fs::renameat(&dir, &tmp, &dir, name)?;
        Ok(())
    };
    replace().map_err(|e| {
        // The file may not exist, or may have been renamed.
        let _ = rustix::fs::unlinkat(&dir, &tmp, AtFlags::empty());
        at(path, e)
    })
}

/// Reads a file written by [`replace_json`]; `None` if there is none, or a crash has damaged it.
///
/// # Errors
/// I/O errors, with the path.
pub fn recall_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match read_json(path) {
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(None),
        read => read,
    }
}

/// Reads a file written by [`write_json`]; `None` if there is no such file.
///
/// # Errors
/// I/O errors or `InvalidData`, with the path.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let (dir, name) = match split(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    read_json_at(dir, name).map_err(|e| at(path, e))
}

/// Writes a value as JSON with [`write_at`], readable only by its owner.
///
/// # Errors
/// I/O errors.
pub fn write_json_at(dir: impl AsFd, name: &OsStr, value: &impl Serialize) -> io::Result<()> {
    write_at(dir, name, &to_json(value)?, PRIVATE)
}

/// Reads a file written by [`write_json_at`]; `None` if there is no such file.
///
/// # Errors
/// I/O errors, or `InvalidData`.
pub fn read_json_at<T: DeserializeOwned>(dir: impl AsFd, name: &OsStr) -> io::Result<Option<T>> {
    let Some(bytes) = read_at(dir, name)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Opens directory `name` in `dir`, making it with mode 0700 if it is missing.
///
/// # Errors
/// I/O errors; `ELOOP` or `ENOTDIR` if a file of another type has the name.
pub fn private_dir(dir: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(PRIVATE_DIR)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(e.into()),
    }
    open_dir(dir, name)
}

/// Opens directory `name` in `dir` without following a symbolic link.
///
/// # Errors
/// I/O errors.
pub fn open_dir(dir: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Returns the magic link to a descriptor's file, for calls that do not accept descriptors opened with
/// O_PATH.
pub fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Lists the names in a directory, without `.` and `..`, sorted.
///
/// # Errors
/// I/O errors.
pub fn names(dir: impl AsFd) -> io::Result<Vec<OsString>> {
    use std::os::unix::ffi::OsStrExt;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(reopen_dir(dir)?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Opens a new descriptor for a directory, even if the given one is not for reading.
fn reopen_dir(dir: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, ".", flags, Mode::empty())?)
}

fn to_json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn temporary(name: &OsStr) -> OsString {
    let mut tmp = OsString::from(".");
    tmp.push(name);
    tmp.push(TEMPORARY_END);
    tmp
}

fn split(path: &Path) -> io::Result<(File, &OsStr)> {
    let name = path
        .file_name()
        .ok_or_else(|| at(path, io::ErrorKind::InvalidInput.into()))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok((File::open(parent).map_err(|e| at(parent, e))?, name))
}

/// An error with its path; the kernel's error is its source.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
struct At {
    path: PathBuf,
    source: io::Error,
}

fn at(path: &Path, source: io::Error) -> io::Error {
    let path = path.to_owned();
    io::Error::new(source.kind(), At { path, source })
}

/// Returns the kernel's error number from an error or one of its sources.
pub fn errno(error: &(dyn std::error::Error + 'static)) -> Option<rustix::io::Errno> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // The source of an `io::Error` is that of its inner error.
        let within = match error.downcast_ref::<io::Error>() {
            Some(error) => match rustix::io::Errno::from_io_error(error) {
                Some(errno) => return Some(errno),
                None => error.get_ref().map(|within| within as _),
            },
            None => None,
        };
        cause = within.or_else(|| error.source());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrent_writers_leave_one_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        std::thread::scope(|scope| {
            for writer in 0..4_u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..50 {
                        let bytes = vec![writer; 1000 * (1 + usize::from(writer))];
                        write(path, &bytes, PRIVATE).unwrap();
                    }
                });
            }
            for _ in 0..200 {
                let Ok(found) = std::fs::read(&path) else {
                    continue;
                };
                let writer = found[0];
                assert_eq!(found, vec![writer; 1000 * (1 + usize::from(writer))]);
            }
        });
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_filled_file_replaces_the_old_one_when_it_takes_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        write(&path, b"old", PRIVATE).unwrap();
        let fd = File::open(dir.path()).unwrap();
        let fill = || Filled::new(&fd, OsStr::new("record"), b"new", PRIVATE).unwrap();
        let filled = fill();
        assert_eq!(sweep_temporaries(&fd).unwrap(), 0, "it is being written");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        drop(filled);
        assert_eq!(names(&fd).unwrap(), ["record"]);
        fill().take_name().unwrap();
        assert_eq!(names(&fd).unwrap(), ["record"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn only_abandoned_files_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let fd = File::open(dir.path()).unwrap();
        std::fs::write(dir.path().join(".a.json.tmp"), "half").unwrap();
        std::fs::write(dir.path().join("b.json"), "whole").unwrap();
        let done: Result<(), io::Error> = stream_at(&fd, OsStr::new("c"), PRIVATE, |file| {
            assert_eq!(sweep_temporaries(&fd).unwrap(), 1);
            Ok((file, ()))
        });
        done.unwrap();
        let mut names = names(&fd).unwrap();
        names.sort();
        assert_eq!(names, ["b.json", "c"]);
    }
}
