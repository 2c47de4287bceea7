//! Staging: makes subvolumes where no user can see them.
//!
//! The area is a private directory on the receiving file system. A staging subvolume in it is locked (flock
//! on its root directory) as long as the process that makes it lives. The lock distinguishes remnants of a
//! dead process from the work of a running one.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FlockOperation, Mode, RenameFlags};
use rustix::io::Errno;
use sendshot_sys::durable::{self, PRIVATE_DIR};
use sendshot_sys::filesystem;
use sendshot_sys::subvolume::{self, Access};

use crate::commands::dirs::INHERITED;
use crate::obstacle::NoDirectory;
use sendshot_sys::durable::proc_path;

/// Name of the area in the directory in which copies are made.
pub const AREA: &str = ".sendshot-staging";

/// Maximum number of attempts if another process removes the area just when it is opened here. Each attempt
/// needs another process that has just finished.
const ATTEMPTS: usize = 100;

/// Reason why staging failed.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The area cannot be made, opened or prepared.
    #[error("cannot prepare the staging directory {AREA}")]
    Area(#[source] io::Error),
    /// Another user owns the directory with the area's name.
    #[error(
        "the staging directory {AREA} belongs to user {owner}, who could change copies in it; remove it"
    )]
    ForeignArea {
        /// User ID of the owner.
        owner: u32,
    },
    /// The subvolume cannot be made.
    #[error("cannot make the staging subvolume {}", .name.display())]
    Make {
        /// Name of the subvolume.
        name: OsString,
        /// Error from the kernel.
        #[source]
        source: io::Error,
    },
    /// The subvolume cannot be moved to its final place.
    #[error("cannot move the finished subvolume to {}", .name.display())]
    Publish {
        /// Its final name.
        name: OsString,
        /// Error from the kernel.
        #[source]
        source: io::Error,
    },
    /// The subvolume cannot be deleted.
    #[error("cannot delete the staging subvolume {}", .name.display())]
    Drop {
        /// Name of the subvolume.
        name: OsString,
        /// Error from the kernel.
        #[source]
        source: io::Error,
    },
}

/// The entry of a directory that a staging subvolume takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// There is no such entry.
    Free,
    /// The entry is an empty directory, which is replaced.
    EmptyDirectory,
}

/// The staging area of a directory. It is made together with the first staging subvolume.
#[derive(Debug)]
pub struct Area {
    parent: OwnedFd,
}

/// A staging subvolume. It is deleted when this is dropped.
#[derive(Debug)]
pub struct Staged {
    /// Directory of the area.
    area: OwnedFd,
    name: OsString,
    root: OwnedFd,
    gone: bool,
}

impl Area {
    /// Returns the staging area in the directory `parent`.
    ///
    /// # Errors
    /// I/O errors, if the descriptor cannot be duplicated.
    pub fn new(parent: impl AsFd) -> io::Result<Self> {
        let parent = parent.as_fd().try_clone_to_owned()?;
        Ok(Self { parent })
    }

    /// Makes the staging subvolume `name`: empty, or as a writable snapshot of `source`.
    ///
    /// # Errors
    /// See [`StagingError`].
    pub fn stage(
        &self,
        name: &OsStr,
        source: Option<BorrowedFd<'_>>,
    ) -> Result<Staged, StagingError> {
        let area = self.lock()?;
        make_neutral(&area).map_err(StagingError::Area)?;
        let made = make(&area, name, source).map_err(|source| StagingError::Make {
            name: name.to_owned(),
            source,
        })?;
        unlock(&area).map_err(StagingError::Area)?;
        Ok(Staged {
            area,
            name: name.to_owned(),
            root: made,
            gone: false,
        })
    }

    /// Deletes the staging subvolumes of dead processes whose names begin with `prefix`; returns their
    /// number.
    ///
    /// # Errors
    /// [`StagingError::Area`]; a subvolume that cannot be deleted is only logged.
    pub fn sweep(&self, prefix: &str) -> Result<usize, StagingError> {
        let area = self.lock()?;
        let mut swept = 0;
        for name in durable::names(&area).map_err(StagingError::Area)? {
            if !name.as_bytes().starts_with(prefix.as_bytes()) {
                continue;
            }
            match sweep_one(&area, &name) {
                Ok(true) => swept += 1,
                Ok(false) => {}
                Err(e) => {
                    tracing::warn!(name = %name.display(), error = %e, "stale staging subvolume stays");
                }
            }
        }
        Ok(swept)
    }

    /// Whether the area's directory exists.
    pub fn exists(&self) -> bool {
        durable::open_dir(&self.parent, AREA.as_ref()).is_ok()
    }

    /// Returns the area's directory, making it if it is missing.
    ///
    /// # Errors
    /// See [`StagingError`].
    pub fn dir(&self) -> Result<OwnedFd, StagingError> {
        let area = self.lock()?;
        unlock(&area).map_err(StagingError::Area)?;
        Ok(area)
    }

    /// Removes the area if it is empty.
    ///
    /// # Errors
    /// [`StagingError::Area`].
    pub fn remove_if_empty(&self) -> Result<(), StagingError> {
        let _locked = self.lock()?;
        match rustix::fs::unlinkat(&self.parent, AREA, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOTEMPTY) => Ok(()),
            Err(e) => Err(StagingError::Area(e.into())),
        }
    }

    /// Opens the area's directory, making it if it is missing, and locks it: no other process makes, sweeps
    /// or removes anything in it until the descriptor is closed or unlocked.
    fn lock(&self) -> Result<OwnedFd, StagingError> {
        let mut last = io::ErrorKind::ResourceBusy.into();
        for _ in 0..ATTEMPTS {
            let area = match durable::private_dir(&self.parent, AREA.as_ref()) {
                // It was removed after it was found and before it was opened.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    last = e;
                    continue;
                }
                Err(e) => {
                    let told = NoDirectory::explain(&self.parent, AREA.as_ref(), e);
                    return Err(StagingError::Area(told));
                }
                Ok(area) => area,
            };
            flock(&area, FlockOperation::LockExclusive).map_err(StagingError::Area)?;
            let stat = rustix::fs::fstat(&area).map_err(|e| StagingError::Area(e.into()))?;
            if stat.st_nlink == 0 {
                continue;
            }
            if stat.st_uid != rustix::process::geteuid().as_raw() {
                return Err(StagingError::ForeignArea { owner: stat.st_uid });
            }
            return Ok(area);
        }
        Err(StagingError::Area(last))
    }
}

impl Staged {
    /// Returns its root directory: the descriptor that was opened first, through which
    /// [`crate::commit::flush`] detects every write failure since.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Duplicates the descriptor of its root directory for an applier.
    ///
    /// # Errors
    /// I/O errors.
    pub fn root_for_applier(&self) -> io::Result<OwnedFd> {
        self.root.try_clone()
    }

    /// Returns its name in the area.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Moves the staging subvolume, writable as it is, to its final place: the entry `name` of the directory `target`,
    /// on the same file system. Returns its root directory. The move is atomic, and durable after the next commit.
    ///
    /// # Errors
    /// [`StagingError::Publish`]; the staging subvolume is then deleted.
    pub fn publish(
        mut self,
        target: impl AsFd,
        name: &OsStr,
        place: Place,
    ) -> Result<OwnedFd, StagingError> {
        let failed = |source| StagingError::Publish {
            name: name.to_owned(),
            source,
        };
        let root = self.root.try_clone().map_err(failed)?;
        let moved = match place {
            Place::Free => rustix::fs::renameat_with(
                &self.area,
                &self.name,
                &target,
                name,
                RenameFlags::NOREPLACE,
            ),
            // The kernel replaces only an empty directory by a directory.
            Place::EmptyDirectory => rustix::fs::renameat(&self.area, &self.name, &target, name),
        };
        moved.map_err(|e| failed(e.into()))?;
        self.gone = true;
        Ok(root)
    }

    /// Deletes the staging subvolume.
    ///
    /// # Errors
    /// [`StagingError::Drop`].
    pub fn destroy(mut self) -> Result<(), StagingError> {
        self.gone = true;
        subvolume::destroy(&self.area, &self.name).map_err(|source| StagingError::Drop {
            name: self.name.clone(),
            source,
        })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        if let Err(e) = subvolume::destroy(&self.area, &self.name) {
            tracing::warn!(name = %self.name.display(), error = %e, "staging subvolume stays");
        }
    }
}

/// Makes, opens and locks a staging subvolume. The caller holds the lock of the area, so no sweep sees it
/// before it is locked.
fn make(area: &OwnedFd, name: &OsStr, source: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    match source {
        None => subvolume::create(area, name)?,
        Some(source) => subvolume::snapshot(source, area, name, Access::ReadWrite)?,
    }
    let locked = durable::open_dir(area, name)
        .and_then(|root| flock(&root, FlockOperation::NonBlockingLockExclusive).map(|()| root));
    if locked.is_err() {
        subvolume::destroy(area, name)?;
    }
    locked
}

/// Deletes a staging subvolume, unless it is locked or is not a subvolume.
fn sweep_one(area: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    let root = durable::open_dir(area, name)?;
    if !subvolume::is_subvolume(&root)? {
        return Ok(false);
    }
    match rustix::fs::flock(&root, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(false),
        other => other?,
    }
    subvolume::destroy(area, name)?;
    Ok(true)
}

/// Makes the area private, and clears everything that new entries would inherit.
fn make_neutral(area: &OwnedFd) -> io::Result<()> {
    let path = proc_path(area);
    for name in INHERITED.into_iter().chain(["system.posix_acl_access"]) {
        match rustix::fs::removexattr(&path, name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    rustix::fs::fchmod(area, Mode::from_raw_mode(PRIVATE_DIR))?;
    filesystem::clear_inherited_flags(area)
}

fn unlock(area: &OwnedFd) -> io::Result<()> {
    flock(area, FlockOperation::Unlock)
}

fn flock(fd: &OwnedFd, operation: FlockOperation) -> io::Result<()> {
    loop {
        match rustix::fs::flock(fd, operation) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}
