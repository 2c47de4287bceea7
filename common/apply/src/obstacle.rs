//! Obstacles to making copies in a directory, distinguished where the kernel has one error for all of them.

use std::ffi::OsStr;
use std::fmt;
use std::fs::FileType;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use sendshot_sys::{filesystem, subvolume};

/// Reason why nothing can be written below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteObstacle {
    /// The file system is mounted read-only.
    FileSystem,
    /// The mount through which the directory was opened is read-only, and the file system is not.
    Mount,
    /// The subvolume of the directory is read-only.
    Subvolume,
}

impl WriteObstacle {
    /// Returns the reason why nothing can be written below `dir`; `None` if writing is possible.
    ///
    /// # Errors
    /// I/O errors.
    pub fn of(dir: impl AsFd) -> io::Result<Option<Self>> {
        Ok(if filesystem::is_read_only_everywhere(&dir)? {
            Some(Self::FileSystem)
        } else if filesystem::is_read_only(&dir)? {
            Some(Self::Mount)
        } else if filesystem::is_btrfs(&dir)? && subvolume::info(&dir)?.read_only {
            Some(Self::Subvolume)
        } else {
            None
        })
    }
}

impl WriteObstacle {
    /// Returns what the administrator can do.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::FileSystem => {
                "mount it read-write; if btrfs made it read-only, read the kernel log first"
            }
            Self::Mount => "remount it read-write",
            Self::Subvolume => {
                "make the subvolume writable, `btrfs property set SUBVOLUME ro false`, or choose another directory"
            }
        }
    }
}

/// Describes the obstacle with the directory as "it".
impl fmt::Display for WriteObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FileSystem => "its file system is mounted read-only",
            Self::Mount => "it is mounted read-only here, though its file system is not read-only",
            Self::Subvolume => "it lies in a read-only subvolume",
        })
    }
}

/// A file of another type has the name of a directory that is needed.
#[derive(Debug, thiserror::Error)]
#[error("{} is {what}, not a directory", path.display())]
pub struct NoDirectory {
    path: PathBuf,
    what: &'static str,
}

impl NoDirectory {
    /// Makes an error of opening `name` in `dir` report the type of the file in the directory's place. Other
    /// errors stay unchanged, and so does the error if it is a directory by now.
    pub fn explain(dir: impl AsFd, name: &OsStr, error: io::Error) -> io::Error {
        if error.kind() != io::ErrorKind::NotADirectory {
            return error;
        }
        let link = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
        let parent = std::fs::read_link(link).unwrap_or_default();
        let path = parent.join(name);
        match std::fs::symlink_metadata(&path).map(|found| kind(found.file_type())) {
            Ok(Some(what)) => io::Error::new(error.kind(), Self { path, what }),
            Ok(None) | Err(_) => error,
        }
    }

    /// Returns the [`NoDirectory`] inside an error.
    pub fn within(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Returns what the administrator can do.
    pub fn remedy(&self) -> String {
        let place = self.path.parent().unwrap_or(Path::new("/")).display();
        format!("copies must lie on the file system of {place}: move it away, or mount there")
    }
}

/// Names the type of a file; `None` for a directory.
fn kind(found: FileType) -> Option<&'static str> {
    Some(if found.is_dir() {
        return None;
    } else if found.is_symlink() {
        "a symbolic link"
    } else if found.is_file() {
        "a regular file"
    } else if found.is_fifo() {
        "a pipe"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device"
    })
}

#[cfg(test)]
mod tests {
    use crate::staging::{AREA, Area, StagingError};
    use std::error::Error;

    #[test]
    fn an_odd_staging_area_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(AREA);
        let message = || {
            let area = Area::new(std::fs::File::open(dir.path()).unwrap()).unwrap();
            let error = area.dir().unwrap_err();
            assert!(matches!(error, StagingError::Area(_)));
            error.source().unwrap().to_string()
        };
        std::fs::write(&path, "").unwrap();
        let told = message();
        assert!(told.contains(&*path.to_string_lossy()), "{told}");
        assert!(
            told.contains("is a regular file, not a directory"),
            "{told}"
        );
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/", &path).unwrap();
        assert!(message().contains("is a symbolic link, not a directory"));
    }
}
