//! The directory that holds everything received.
//!
//! A root that is not mounted must never be filled: what lies under the mount point is another
//! file system, or none. So the first start leaves a mark in the root and remembers in the
//! state directory that it did; from then on a root without this mark is refused.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use sendshot_model::ReceiverId;
use sendshot_proto::failure::{Code, Failure};
use sendshot_sys::{durable, filesystem, subvolume};
use serde::{Deserialize, Serialize};

/// The mark in the root; also the name of our memory of it in the state directory.
const MARK: &str = ".sendshot-root";
/// File in the state directory that says in which root the mark was left.
const REMEMBERED: &str = "root.json";

/// Why the root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be opened.
    #[error("root {}: cannot be opened: {source}", path.display())]
    Open {
        /// The root.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It lies on another kind of file system.
    #[error("root {}: is not on btrfs", path.display())]
    NotBtrfs {
        /// The root.
        path: PathBuf,
    },
    /// It cannot be written to.
    #[error("root {}: its file system is mounted read-only", path.display())]
    ReadOnly {
        /// The root.
        path: PathBuf,
    },
    /// This process sees it through a read-only mount.
    #[error("root {}: it is mounted read-only here, though its file system is not read-only", path.display())]
    ReadOnlyMount {
        /// The root.
        path: PathBuf,
    },
    /// The subvolume that it lies in cannot be written to.
    #[error("root {}: it lies in a read-only subvolume", path.display())]
    ReadOnlySubvolume {
        /// The root.
        path: PathBuf,
    },
    /// The mark that was left in it is not there.
    #[error("root {}: this is not the directory that was set up before; is its disk mounted?", path.display())]
    Unmarked {
        /// The root.
        path: PathBuf,
    },
    /// It was set up by another receiver.
    #[error("root {}: it belongs to the receiver with id {owner}", path.display())]
    Foreign {
        /// The root.
        path: PathBuf,
        /// Who set it up.
        owner: ReceiverId,
    },
    /// Reading or writing it failed.
    #[error("root {}: {source}", path.display())]
    Io {
        /// The root.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// What the administrator can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Open { .. } => "create the directory, or mend `root` in receiver.toml",
            Self::NotBtrfs { .. } => "`root` in receiver.toml must be a directory on btrfs",
            Self::ReadOnly { .. } => {
                "mount it read-write; if btrfs made it read-only, look into the kernel's log first"
            }
            Self::ReadOnlyMount { .. } => {
                "remount it read-write; a service of systemd writes only below its ReadWritePaths"
            }
            Self::ReadOnlySubvolume { .. } => {
                "make the subvolume writable, `btrfs property set SUBVOLUME ro false`, or choose another root"
            }
            Self::Unmarked { .. } => {
                "mount the disk; if the root is a new one on purpose, remove root.json from the state directory"
            }
            Self::Foreign { .. } => {
                "give this receiver a root of its own; if it takes over from the other one, remove .sendshot-root in the root"
            }
            Self::Io { .. } => "look into the kernel's log for what the disk says",
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::ReadOnly { .. }
            | Error::ReadOnlyMount { .. }
            | Error::ReadOnlySubvolume { .. } => Code::ReadOnly,
            Error::Open { .. }
            | Error::NotBtrfs { .. }
            | Error::Unmarked { .. }
            | Error::Foreign { .. } => Code::RootMissing,
            Error::Io { .. } => Code::Io,
        };
        Failure::new(code, error.to_string(), error.remedy())
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    receiver: ReceiverId,
}

#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    root: PathBuf,
}

/// Where the root is and whose.
#[derive(Debug, Clone)]
pub struct Root {
    path: PathBuf,
    receiver: ReceiverId,
}

/// The root, opened and found good. Keeps the file system busy: hold it only while working.
#[derive(Debug)]
pub struct OpenRoot {
    fd: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// The root of a receiver; it is looked at when it is opened.
    pub fn new(path: PathBuf, receiver: ReceiverId) -> Self {
        Self { path, receiver }
    }

    /// Marks a root that is used for the first time, and checks it.
    ///
    /// Steps: 1. mark the root; 2. remember that it is marked. A crash between leaves a marked
    /// root of ours, which the next start takes.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn set_up(&self, state_dir: &Path) -> Result<(), Error> {
        let io = |source| Error::Io {
            path: self.path.clone(),
            source,
        };
        let memory = state_dir.join(REMEMBERED);
        let remembered: Option<Remembered> = durable::read_json(&memory).map_err(io)?;
        if remembered.is_some_and(|known| known.root == self.path) {
            return self.open().map(drop);
        }
        let opened = self.open_unmarked()?;
        if read_mark(&opened.fd).map_err(io)?.is_none() {
            let mark = Mark {
                receiver: self.receiver,
            };
            durable::write_json_at(&opened.fd, OsStr::new(MARK), &mark).map_err(io)?; // 1
        }
        self.check_mark(&opened)?;
        let root = self.path.clone();
        durable::write_json(&memory, &Remembered { root }).map_err(io) // 2
    }

    /// Opens the root and checks that it is the right one and can be written to.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(&self) -> Result<OpenRoot, Error> {
        let opened = self.open_unmarked()?;
        self.check_mark(&opened)?;
        Ok(opened)
    }

    /// Checks what can be checked before the first start.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn check(path: &Path) -> Result<(), Error> {
        Self::new(path.to_owned(), ReceiverId::generate())
            .open_unmarked()
            .map(drop)
    }

    fn open_unmarked(&self) -> Result<OpenRoot, Error> {
        let path = self.path.clone();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(e) => {
                let source = e.into();
                return Err(Error::Open { path, source });
            }
        };
        match filesystem::is_btrfs(&fd) {
            Ok(true) => {}
            Ok(false) => return Err(Error::NotBtrfs { path }),
            Err(source) => return Err(Error::Io { path, source }),
        }
        match write_obstacle(&fd) {
            Ok(None) => Ok(OpenRoot { fd, path }),
            Ok(Some(obstacle)) => Err(obstacle(path)),
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    fn check_mark(&self, opened: &OpenRoot) -> Result<(), Error> {
        let path = self.path.clone();
        match read_mark(&opened.fd) {
            Ok(Some(mark)) if mark.receiver == self.receiver => Ok(()),
            Ok(Some(mark)) => Err(Error::Foreign {
                path,
                owner: mark.receiver,
            }),
            Ok(None) => Err(Error::Unmarked { path }),
            Err(source) => Err(Error::Io { path, source }),
        }
    }
}

/// An error that needs the root's path only.
type AtPath = fn(PathBuf) -> Error;

/// What keeps everything from being written below `fd`; `None` if nothing does.
fn write_obstacle(fd: &OwnedFd) -> io::Result<Option<AtPath>> {
    Ok(if filesystem::is_read_only_everywhere(fd)? {
        Some(|path| Error::ReadOnly { path })
    } else if filesystem::is_read_only(fd)? {
        Some(|path| Error::ReadOnlyMount { path })
    } else if subvolume::info(fd)?.read_only {
        Some(|path| Error::ReadOnlySubvolume { path })
    } else {
        None
    })
}

fn read_mark(root: impl AsFd) -> io::Result<Option<Mark>> {
    durable::read_json_at(root, OsStr::new(MARK))
}

impl OpenRoot {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for OpenRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
