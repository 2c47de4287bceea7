//! Where subvolumes are made before anybody may see them.
//!
//! The area is a private directory on the receiving file system. A staging subvolume in it
//! is locked (flock on its root directory) as long as the process that makes it lives, so
//! that what a dead one has left can be told from the work of another.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FlockOperation, Mode};
use rustix::io::Errno;
use sendshot_sys::durable::{self, PRIVATE_DIR};
use sendshot_sys::filesystem;
use sendshot_sys::subvolume::{self, Access};

use crate::beneath::proc_path;
use crate::commands::dirs::INHERITED;
use crate::obstacle::NoDirectory;

/// Name of the area in the directory that copies are made in.
pub const AREA: &str = ".sendshot-staging";

/// How often to begin again when the area is removed by another process in the moment that it
/// was opened here. Each time needs another process that has just finished.
const ATTEMPTS: usize = 100;

/// Why staging does not work.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The area cannot be made, opened or prepared.
    #[error("prepare the staging directory {AREA}")]
    Area(#[source] io::Error),
    /// Somebody else owns the directory that has the area's name.
    #[error(
        "the staging directory {AREA} belongs to user {owner}, who could change copies in it; remove it"
    )]
    ForeignArea {
        /// The owner's user id.
        owner: u32,
    },
    /// The subvolume cannot be made.
    #[error("make the staging subvolume {}", .name.display())]
    Make {
        /// Its name.
        name: OsString,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The subvolume cannot be deleted.
    #[error("delete the staging subvolume {}", .name.display())]
    Drop {
        /// Its name.
        name: OsString,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// The staging area of a directory. It comes into being with the first staging subvolume.
#[derive(Debug)]
pub struct Area {
    parent: OwnedFd,
}

/// A staging subvolume. It is deleted when this is dropped.
#[derive(Debug)]
pub struct Staged {
    /// The area's directory.
    area: OwnedFd,
    name: OsString,
    root: OwnedFd,
    gone: bool,
}

impl Area {
    /// The staging area in the directory `parent`.
    ///
    /// # Errors
    /// The kernel's, if the descriptor cannot be duplicated.
    pub fn new(parent: impl AsFd) -> io::Result<Self> {
        let parent = parent.as_fd().try_clone_to_owned()?;
        Ok(Self { parent })
    }

    /// Makes the staging subvolume `name`: empty, or as a writable snapshot of `source`.
    ///
    /// # Errors
    /// [`StagingError`].
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

    /// Deletes staging subvolumes whose names begin with `prefix` and whose makers are dead;
    /// returns how many.
    ///
    /// # Errors
    /// [`StagingError::Area`]; a subvolume that cannot be deleted only gets into the log.
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

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        durable::open_dir(&self.parent, AREA.as_ref()).is_ok()
    }

    /// The area's directory, made if it is missing.
    ///
    /// # Errors
    /// [`StagingError`].
    pub fn dir(&self) -> Result<OwnedFd, StagingError> {
        let area = self.lock()?;
        unlock(&area).map_err(StagingError::Area)?;
        Ok(area)
    }

    /// Removes the area if nothing is in it.
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

    /// Opens the area's directory, made if it is missing, and locks it: nobody makes, sweeps
    /// or removes anything in it until the descriptor is closed or unlocked.
    fn lock(&self) -> Result<OwnedFd, StagingError> {
        let mut last = io::ErrorKind::ResourceBusy.into();
        for _ in 0..ATTEMPTS {
            let area = match durable::private_dir(&self.parent, AREA.as_ref()) {
                // Removed between being found and being opened.
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
    /// Its root directory: the descriptor that it was first opened with, on which
    /// [`crate::commit::flush`] learns of everything that failed to be written since.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Another descriptor of the same opening of its root directory, for an applier.
    ///
    /// # Errors
    /// The kernel's.
    pub fn root_for_applier(&self) -> io::Result<OwnedFd> {
        self.root.try_clone()
    }

    /// Its name in the area.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Deletes it.
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

/// Makes, opens and locks a staging subvolume. The caller holds the lock of the area, so no
/// sweep sees it in the moment when it is not locked yet.
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

/// Deletes a staging subvolume, unless it is locked or is no subvolume.
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

/// Makes the area private, and takes from it all that new entries would inherit.
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
