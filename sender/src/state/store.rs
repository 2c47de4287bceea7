//! The sender's only subvolume on a source file system: `.sendshot` at its top level.
//!
//! It is a subvolume so that a volume that is the top level itself does not replicate it. It holds `snapshots/`,
//! the hidden push snapshots, `sendshots/`, which replace them, and `pushes/`, the journal of both.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use sendshot_sys::subvolume;
use sendshot_sys::top_level::{self, TopLevel};
use sendshot_sys::{durable, filesystem};

use uuid::Uuid;

/// Longest file, in bytes, that is copied from a read-only disk: much more than any list has.
const MAX_COPIED: u64 = 1 << 26;

/// Name of the state subvolume.
pub const NAME: &str = ".sendshot";
/// Name of the file with the acknowledged states of series.
pub(crate) const SERIES: &str = "series.json";
const SNAPSHOTS: &str = "snapshots";
const SENDSHOTS: &str = "sendshots";
const PUSHES: &str = "pushes";

/// Why the state subvolume cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name belongs to something that is not a subvolume of Sendshot.
    #[error("`{NAME}` at the top level of file system {fsid} is not a subvolume of Sendshot")]
    NotASubvolume { fsid: Uuid },
    /// The name of one of its directories belongs to something else.
    #[error("`{NAME}/{name}` at the top level of file system {fsid} is not a directory")]
    NotADirectory {
        fsid: Uuid,
        /// Name of the directory.
        name: &'static str,
    },
    #[error("cannot open `{NAME}` at the top level of file system {fsid}")]
    Open {
        fsid: Uuid,
        #[source]
        source: io::Error,
    },
    /// The temporary directory that replaces it on a read-only file system could not be made.
    #[error("cannot create {} for the records of a push from a read-only file system", path.display())]
    Temporary {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file system or its mount is read-only.
    #[error("the file system is mounted read-only, so no snapshot can be made on it")]
    ReadOnly,
    /// The state subvolume itself is read-only, on a writable file system.
    #[error(
        "the subvolume `{NAME}` at the top level of the file system is read-only, so nothing can be recorded in it"
    )]
    ReadOnlySubvolume,
    #[error(transparent)]
    Top(#[from] top_level::Error),
    /// I/O error.
    #[error("cannot {what} in `{NAME}`")]
    Io {
        /// The operation that failed.
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Whether the error means that the name belongs to something other than a directory.
fn is_other(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(
        errno,
        Some(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP)
    )
}

fn open_root(top: &TopLevel) -> Result<OwnedFd, Error> {
    let fsid = top.fsid();
    durable::open_dir(top, OsStr::new(NAME)).map_err(|source| match is_other(&source) {
        true => Error::NotASubvolume { fsid },
        false => Error::Open { fsid, source },
    })
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| match source.raw_os_error() {
        Some(code) if code == rustix::io::Errno::ROFS.raw_os_error() => Error::ReadOnly,
        _ => Error::Io { what, source },
    }
}

/// Restricts the permissions, only if they are wider: on a file system that is read-only now the states can then
/// still be listed.
fn close_to_others(root: &OwnedFd) -> io::Result<()> {
    let private = Mode::from_raw_mode(durable::PRIVATE_DIR);
    if Mode::from_raw_mode(rustix::fs::fstat(root)?.st_mode) != private {
        rustix::fs::fchmod(root, private)?;
    }
    Ok(())
}

/// Copies a file, if it exists.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let Some(from) = durable::open_file(from, name)? else {
        return Ok(());
    };
    if from.metadata()?.len() > MAX_COPIED {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "a file of the retained states is too large",
        ));
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let to = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
    io::copy(&mut from.take(MAX_COPIED), &mut File::from(to)).map(drop)
}

/// A temporary directory, deleted on drop.
#[derive(Debug)]
struct TemporaryDir(PathBuf);

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        // The next start deletes what is left.
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(path = %self.0.display(), "cannot delete a directory of a push: {e}");
        }
    }
}

/// The open state subvolume. It keeps the device busy: hold it only while working.
#[derive(Debug)]
pub struct StateSubvolume {
    top: TopLevel,
    /// Set if it is a temporary directory instead, which is deleted on drop.
    temporary: Option<TemporaryDir>,
    root: OwnedFd,
    snapshots: OwnedFd,
    sendshots: OwnedFd,
    pushes: OwnedFd,
}

impl StateSubvolume {
    /// Opens the state subvolume, if this file system has one.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(top: TopLevel) -> Result<Option<Self>, Error> {
        match open_root(&top) {
            Ok(root) => Self::from_root(top, root).map(Some),
            Err(Error::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Opens the state subvolume, and creates it if it does not exist.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open_or_create(top: TopLevel) -> Result<Self, Error> {
        match subvolume::create(&top, OsStr::new(NAME)) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed("create the state subvolume")(e)),
        }
        let root = open_root(&top)?;
        let info = subvolume::info(&root).map_err(failed("look"))?;
        if info.read_only && !filesystem::is_read_only(&top).map_err(failed("look"))? {
            return Err(Error::ReadOnlySubvolume);
        }
        Self::from_root(top, root)
    }

    fn from_root(top: TopLevel, root: OwnedFd) -> Result<Self, Error> {
        let ours = subvolume::is_subvolume(&root).map_err(failed("look"))?;
        if !ours {
            return Err(Error::NotASubvolume { fsid: top.fsid() });
        }
        close_to_others(&root).map_err(failed("deny other users access"))?;
        Self::with_dirs(top, root, None)
    }

    fn with_dirs(
        top: TopLevel,
        root: OwnedFd,
        temporary: Option<TemporaryDir>,
    ) -> Result<Self, Error> {
        let fsid = top.fsid();
        let dir = |name: &'static str| {
            let made = durable::private_dir(&root, OsStr::new(name));
            made.map_err(|source| match (&temporary, is_other(&source)) {
                (Some(TemporaryDir(path)), _) => Error::Temporary {
                    path: path.join(name),
                    source,
                },
                (None, true) => Error::NotADirectory { fsid, name },
                (None, false) => failed("create a directory")(source),
            })
        };
        Ok(Self {
            snapshots: dir(SNAPSHOTS)?,
            sendshots: dir(SENDSHOTS)?,
            pushes: dir(PUSHES)?,
            top,
            temporary,
            root,
        })
    }

    /// Makes a temporary state directory at `path`, for a file system that is read-only everywhere. It is
    /// deleted on drop. Of the disk's state only the acknowledged states of series are copied into it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn temporary(top: TopLevel, path: &Path) -> Result<Self, Error> {
        // A failing disk may not give its state: then there is no parent.
        let kept = TopLevel::of(&top).map_err(Error::from).and_then(Self::open);
        let kept = kept.unwrap_or_else(|e| {
            tracing::warn!("the states retained on a read-only file system are not used: {e}");
            None
        });
        let failed = |source| Error::Temporary {
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(path).map_err(failed)?;
        let temporary = TemporaryDir(path.to_owned());
        let made = rustix::fs::openat(
            rustix::fs::CWD,
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let root = made.map_err(|e| failed(e.into()))?;
        let state = Self::with_dirs(top, root, Some(temporary))?;
        if let Some(kept) = kept
            && let Err(e) = copy(kept.root(), state.root(), OsStr::new(SERIES))
        {
            tracing::warn!("the acknowledged snapshots of series are not known: {e}");
        }
        Ok(state)
    }

    /// Whether it is a temporary directory, of which nothing outlives the push.
    pub fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// The top level of the file system.
    pub fn top(&self) -> &TopLevel {
        &self.top
    }

    /// The root directory of the state subvolume.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory of hidden snapshots.
    pub fn snapshots(&self) -> BorrowedFd<'_> {
        self.snapshots.as_fd()
    }

    /// The directory of sendshots.
    pub fn sendshots(&self) -> BorrowedFd<'_> {
        self.sendshots.as_fd()
    }

    /// The directory of journal records.
    pub fn pushes(&self) -> BorrowedFd<'_> {
        self.pushes.as_fd()
    }

    /// Has the cleaner free the space of deleted snapshots at once instead of in half a minute. Blocks for a
    /// commit.
    pub fn reclaim_space(&self) {
        if let Err(e) = filesystem::sync(&self.top) {
            tracing::debug!("cannot commit the file system after deleting snapshots: {e}");
        }
    }
}
