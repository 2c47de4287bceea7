//! Our one subvolume on a source file system: `.sendshot` at its top level.
//!
//! It is a subvolume so that a volume that is the top level itself does not replicate it. It
//! holds `snapshots/`, the hidden push snapshots, `sendshots/`, what is kept instead of them, and
//! `pushes/`, the journal of both.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Mode;
use sendshot_sys::subvolume;
use sendshot_sys::top_level::TopLevel;
use sendshot_sys::{durable, filesystem};

/// Its name.
pub const NAME: &str = ".sendshot";
/// Directory of hidden snapshots.
const SNAPSHOTS: &str = "snapshots";
/// Directory of sendshots.
const SENDSHOTS: &str = "sendshots";
/// Directory of journal records.
const PUSHES: &str = "pushes";

/// Why our subvolume cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something else has the name.
    #[error("`{NAME}` at the top level of the file system is not a subvolume of ours")]
    NotASubvolume,
    /// The file system or its mount is read-only.
    #[error("the file system is mounted read-only, so no snapshot can be made on it")]
    ReadOnly,
    /// It is read-only itself, on a file system that is not.
    #[error(
        "the subvolume `{NAME}` at the top level of the file system is read-only, so nothing can be written down"
    )]
    ReadOnlySubvolume,
    /// The kernel said no.
    #[error("{what} in `{NAME}`")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| match source.raw_os_error() {
        Some(code) if code == rustix::io::Errno::ROFS.raw_os_error() => Error::ReadOnly,
        _ => Error::Io { what, source },
    }
}

/// Only if it is open: on a file system that is read-only now, what is there can still be listed.
fn close_to_others(root: &OwnedFd) -> io::Result<()> {
    let private = Mode::from_raw_mode(durable::PRIVATE_DIR);
    if Mode::from_raw_mode(rustix::fs::fstat(root)?.st_mode) != private {
        rustix::fs::fchmod(root, private)?;
    }
    Ok(())
}

/// The opened state subvolume. It keeps the device busy: hold it only while working.
#[derive(Debug)]
pub struct StateSubvolume {
    top: TopLevel,
    root: OwnedFd,
    snapshots: OwnedFd,
    sendshots: OwnedFd,
    pushes: OwnedFd,
}

impl StateSubvolume {
    /// Opens it, if this file system has one.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(top: TopLevel) -> Result<Option<Self>, Error> {
        match durable::open_dir(&top, OsStr::new(NAME)) {
            Ok(root) => Self::from_root(top, root).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(_) => Err(Error::NotASubvolume),
        }
    }

    /// Opens it, made first if need be.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open_or_create(top: TopLevel) -> Result<Self, Error> {
        match subvolume::create(&top, OsStr::new(NAME)) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed("create the state subvolume")(e)),
        }
        let root = durable::open_dir(&top, OsStr::new(NAME)).map_err(|_| Error::NotASubvolume)?;
        let info = subvolume::info(&root).map_err(failed("look"))?;
        if info.read_only && !filesystem::is_read_only(&top).map_err(failed("look"))? {
            return Err(Error::ReadOnlySubvolume);
        }
        Self::from_root(top, root)
    }

    fn from_root(top: TopLevel, root: OwnedFd) -> Result<Self, Error> {
        let ours = subvolume::is_subvolume(&root).map_err(failed("look"))?;
        if !ours {
            return Err(Error::NotASubvolume);
        }
        close_to_others(&root).map_err(failed("close it to other users"))?;
        let dir = |name: &str| {
            durable::private_dir(&root, OsStr::new(name)).map_err(failed("create a directory"))
        };
        Ok(Self {
            snapshots: dir(SNAPSHOTS)?,
            sendshots: dir(SENDSHOTS)?,
            pushes: dir(PUSHES)?,
            top,
            root,
        })
    }

    /// The top level of the file system.
    pub fn top(&self) -> &TopLevel {
        &self.top
    }

    /// Its own root directory.
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

    /// Lets the cleaner give back the space of what was deleted at once instead of in half a
    /// minute. Blocks for a commit.
    pub fn reclaim_space(&self) {
        if let Err(e) = filesystem::sync(&self.top) {
            tracing::debug!("commit after deleting snapshots: {e}");
        }
    }
}
