//! The target of a restore: a new subvolume beside what exists.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use sendshot_apply::WriteObstacle;
use sendshot_apply::staging::Place;
use sendshot_sys::{durable, filesystem};
use uuid::Uuid;

use crate::restore::error::{Error, TargetError};
use crate::state::restores::Purpose;

/// Part of the free space that a restore leaves, as its divisor: btrfs needs some to delete anything.
const RESERVE: u64 = 50;

/// Most bytes of that part.
const MAX_RESERVE: u64 = 1 << 30;

/// An entry of a directory that a restore may fill.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    /// The directory that contains it.
    pub(super) dir: OwnedFd,
    pub(super) name: OsString,
    pub(super) purpose: Purpose,
}

/// What is at a target's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It can be used.
    Free(Place),
    /// A subvolume with this UUID.
    Subvolume(Uuid),
    Taken,
}

impl Target {
    /// Opens the directory of a target, and checks that it is on a writable btrfs.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        if !path.is_absolute() {
            return Err(TargetError::Relative(path.to_owned()).into());
        }
        let named = path.parent().zip(path.file_name());
        let (dir, name) = named.ok_or_else(|| TargetError::NoName(path.to_owned()))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(dir, flags, Mode::empty()).map_err(|e| TargetError::Open {
            dir: dir.to_owned(),
            source: e.into(),
        })?;
        let look = Error::io("check the directory of the target");
        if !filesystem::is_btrfs(&fd).map_err(&look)? {
            return Err(TargetError::NotBtrfs(dir.to_owned()).into());
        }
        match WriteObstacle::of(&fd).map_err(&look)? {
            None => Ok(Self {
                path: path.to_owned(),
                dir: fd,
                name: name.to_owned(),
                purpose: Purpose::Restore,
            }),
            Some(obstacle) => Err(TargetError::ReadOnly {
                dir: dir.to_owned(),
                obstacle,
            }
            .into()),
        }
    }

    /// Returns what is at its path.
    pub(super) fn look(&self) -> Result<Found, Error> {
        let look = Error::io("check the target");
        let stat = match rustix::fs::statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(Found::Free(Place::Free)),
            Err(e) => return Err(look(e.into())),
            Ok(stat) => stat,
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(Found::Taken);
        }
        let found = durable::open_dir(&self.dir, &self.name).map_err(&look)?;
        let here = rustix::fs::fstat(&self.dir).map_err(|e| look(e.into()))?;
        if !filesystem::is_btrfs(&found).map_err(&look)?
            || filesystem::fsid(&found).map_err(&look)?
                != filesystem::fsid(&self.dir).map_err(&look)?
        {
            return Err(TargetError::MountPoint(self.path.clone()).into());
        }
        if sendshot_sys::subvolume::is_subvolume(&found).map_err(&look)? {
            let info = sendshot_sys::subvolume::info(&found).map_err(&look)?;
            return Ok(Found::Subvolume(info.uuid));
        }
        let is_empty = durable::names(&found).map_err(&look)?.is_empty();
        Ok(match is_empty && stat.st_dev == here.st_dev {
            true => Found::Free(Place::EmptyDirectory),
            false => Found::Taken,
        })
    }

    /// Returns the bytes that may be written there, with some left.
    pub(super) fn room(&self) -> Result<u64, Error> {
        let space = filesystem::space(&self.dir).map_err(Error::io("read the free space"))?;
        let reserve = (space.total / RESERVE).min(MAX_RESERVE);
        Ok(space.free.saturating_sub(reserve))
    }

    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }
}
