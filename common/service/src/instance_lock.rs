//! Ensures that only one daemon uses a state directory.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const FILE: &str = "lock";
const MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// A state directory cannot be locked for this daemon.
#[derive(Debug, thiserror::Error)]
pub enum InstanceLockError {
    /// Another process has locked it.
    #[error(
        "another daemon is using {}; stop it, or choose another directory with --state-dir",
        dir.display()
    )]
    InUse {
        /// Path of the directory.
        dir: PathBuf,
    },
    /// The lock cannot be made.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// Path of the lock's file.
        path: PathBuf,
        /// Error from the kernel.
        source: io::Error,
    },
}

/// Holds a state directory until it is dropped or the process ends for any reason.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

impl InstanceLock {
    /// Locks the directory, making it (mode 0700) if it is missing; does not wait.
    ///
    /// # Errors
    /// [`InstanceLockError`] if another daemon holds it, or the directory or the lock's file cannot be made.
    pub fn take(dir: &Path) -> Result<Self, InstanceLockError> {
        let path = dir.join(FILE);
        let file = match open(dir, &path) {
            Ok(file) => file,
            Err(source) => return Err(InstanceLockError::Io { path, source }),
        };
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(InstanceLockError::InUse {
                dir: dir.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(InstanceLockError::Io { path, source }),
        }
    }
}

fn open(dir: &Path, path: &Path) -> io::Result<File> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIR_MODE)
        .create(dir)?;
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(MODE)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_daemon_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = InstanceLock::take(dir.path()).unwrap();
        let error = InstanceLock::take(dir.path()).unwrap_err();
        assert!(matches!(error, InstanceLockError::InUse { .. }), "{error}");
        drop(first);
        InstanceLock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_missing_directory_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("a/b");
        let _lock = InstanceLock::take(&dir).unwrap();
        assert!(dir.join(FILE).exists());
    }

    #[test]
    fn a_lock_that_fails_is_named() {
        let error = InstanceLock::take(Path::new("/dev/null"))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("cannot lock /dev/null/lock: "), "{error}");
    }
}
