//! Sets owner, mode, times and extended attributes of any inode, never through a link.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use sendshot_stream::Timespec;

use crate::commands::dirs::{Dirs, INHERITED, Named};
use crate::commands::files::Files;
use crate::error::Cause;
use sendshot_sys::durable::proc_path;

/// Bits of a mode that chmod sets.
pub(crate) const PERMISSIONS: u64 = 0o7777;
/// Bits of a mode including the type of the file.
const ALL_OF_A_MODE: u64 = 0o177_777;
/// Nanoseconds of a second. UTIME_NOW and UTIME_OMIT are larger and have other meanings.
const SECOND: u32 = 1_000_000_000;

/// Maximum length of an attribute's value, and of the list of names, in bytes: the kernel's limit.
const MAX_ATTRIBUTE: usize = 64 * 1024;

/// Bytes in a leaf besides an attribute's name and value: the leaf's header, an item's, and a directory entry
/// (`BTRFS_MAX_XATTR_SIZE` of the kernel's `fs/btrfs/ctree.h`).
const AROUND_ATTRIBUTE: usize = 101 + 25 + 30;

/// Maximum length of an attribute's name and value in bytes, with nodes of this size.
pub(crate) fn largest_attribute(node_size: u32) -> usize {
    (node_size as usize).saturating_sub(AROUND_ATTRIBUTE)
}

/// Extended attributes: names and values.
type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// An inode whose metadata is changed.
pub(crate) enum Inode<'p> {
    /// Open for more than resolution: the root, or a regular file.
    Open(Arc<OwnedFd>),
    /// Reached by its name.
    Named(Named<'p>),
}

impl<'p> Inode<'p> {
    /// Finds the inode with this path; the empty path is the root.
    pub(crate) fn find(path: &'p [u8], dirs: &mut Dirs, files: &mut Files) -> Result<Self, Cause> {
        if path.is_empty() {
            return Ok(Self::Open(dirs.root().clone()));
        }
        match files.kept(path) {
            Some(fd) => Ok(Self::Open(fd)),
            None => dirs.place(path).map(Self::Named),
        }
    }

    /// Returns the metadata of the inode itself.
    pub(crate) fn stat(&self) -> Result<Stat, Cause> {
        Ok(match self {
            Self::Open(fd) => rustix::fs::fstat(fd)?,
            Self::Named(named) => {
                rustix::fs::statat(&named.fd, named.name(), AtFlags::SYMLINK_NOFOLLOW)?
            }
        })
    }

    pub(crate) fn chmod(&self, mode: u64) -> Result<(), Cause> {
        if mode > ALL_OF_A_MODE {
            return Err(Cause::Mode(mode));
        }
        let mode = Mode::from_raw_mode((mode & PERMISSIONS) as u32);
        match self {
            Self::Open(fd) => rustix::fs::fchmod(fd, mode)?,
            Self::Named(named) => chmod_unfollowed(named, mode)?,
        }
        Ok(())
    }

    pub(crate) fn chown(&self, uid: u64, gid: u64) -> Result<(), Cause> {
        let owner = Some(Uid::from_raw(owner_id(uid)?));
        let group = Some(Gid::from_raw(owner_id(gid)?));
        match self {
            Self::Open(fd) => rustix::fs::fchown(fd, owner, group)?,
            Self::Named(named) => {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(&named.fd, named.name(), owner, group, flags)?;
            }
        }
        Ok(())
    }

    pub(crate) fn utimes(&self, times: &Timestamps) -> Result<(), Cause> {
        match self {
            Self::Open(fd) => rustix::fs::futimens(fd, times)?,
            Self::Named(named) => {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::utimensat(&named.fd, named.name(), times, flags)?;
            }
        }
        Ok(())
    }

    pub(crate) fn set_xattr(&self, name: &[u8], data: &[u8]) -> Result<(), Cause> {
        let name = xattr_name(name)?;
        let flags = XattrFlags::empty();
        match self {
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name, data, flags)?,
            Self::Named(named) => rustix::fs::lsetxattr(named.proc_path(), name, data, flags)?,
        }
        Ok(())
    }

    /// Returns all attributes with their values.
    pub(crate) fn xattrs(&self) -> Result<Attributes, Cause> {
        let mut list = vec![0; MAX_ATTRIBUTE];
        let listed = match self {
            Self::Open(fd) => rustix::fs::flistxattr(fd, &mut list[..]),
            Self::Named(named) => rustix::fs::llistxattr(named.proc_path(), &mut list[..]),
        };
        let len = match listed {
            Err(Errno::OPNOTSUPP) => 0,
            listed => listed?,
        };
        let names = list[..len].split(|byte| *byte == 0);
        let mut all = Vec::new();
        for name in names.filter(|name| !name.is_empty()) {
            let mut value = vec![0; MAX_ATTRIBUTE];
            let len = match self {
                Self::Open(fd) => rustix::fs::fgetxattr(fd, name, &mut value[..])?,
                Self::Named(named) => {
                    rustix::fs::lgetxattr(named.proc_path(), name, &mut value[..])?
                }
            };
            value.truncate(len);
            all.push((name.to_vec(), value));
        }
        Ok(all)
    }

    /// Removes an attribute. It may be gone already: writing to a file or changing its owner drops
    /// `security.capability`.
    pub(crate) fn remove_xattr(&self, name: &[u8]) -> Result<(), Cause> {
        let name = xattr_name(name)?;
        let result = match self {
            Self::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Named(named) => rustix::fs::lremovexattr(named.proc_path(), name),
        };
        match result {
            Err(Errno::NODATA) => Ok(()),
            other => Ok(other?),
        }
    }
}

/// Whether new entries of a directory inherit the attribute with this name.
pub(crate) fn is_inherited(xattr: &[u8]) -> bool {
    INHERITED.iter().any(|name| name.as_bytes() == xattr)
}

/// Changes a mode without following links. Not all kernels have such a chmod; but a descriptor opened for
/// resolution only is never that of a link's target.
fn chmod_unfollowed(named: &Named<'_>, mode: Mode) -> Result<(), Cause> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&named.fd, named.name(), flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        return Err(Cause::ModeOfSymlink);
    }
    Ok(rustix::fs::chmod(proc_path(&fd), mode)?)
}

/// Checks a user or group ID. The highest one means "leave unchanged" in system calls.
fn owner_id(id: u64) -> Result<u32, Cause> {
    match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(Cause::OwnerId(id)),
    }
}

/// Converts the times of a command.
pub(crate) fn times(atime: Timespec, mtime: Timespec) -> Result<Timestamps, Cause> {
    Ok(Timestamps {
        last_access: timespec(atime)?,
        last_modification: timespec(mtime)?,
    })
}

/// Returns the times of an inode.
pub(crate) fn times_of(stat: &Stat) -> Timestamps {
    // The kernel's nanoseconds are always below a second.
    let time = |tv_sec, tv_nsec| rustix::fs::Timespec { tv_sec, tv_nsec };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as i64),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as i64),
    }
}

/// Whether two inodes have equal times.
pub(crate) fn are_equal(left: &Timestamps, right: &Timestamps) -> bool {
    (left.last_access, left.last_modification) == (right.last_access, right.last_modification)
}

fn timespec(time: Timespec) -> Result<rustix::fs::Timespec, Cause> {
    if time.nsec >= SECOND {
        return Err(Cause::Nanoseconds(time.nsec));
    }
    Ok(rustix::fs::Timespec {
        tv_sec: time.sec,
        tv_nsec: time.nsec.into(),
    })
}

fn xattr_name(name: &[u8]) -> Result<&[u8], Cause> {
    if name.contains(&0) {
        return Err(Cause::Nul("attribute's name"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_times_with_other_meanings_are_refused() {
        assert_eq!(owner_id(0xffff_fffe).ok(), Some(0xffff_fffe));
        assert!(owner_id(0xffff_ffff).is_err());
        assert!(owner_id(1 << 32).is_err());
        let time = |nsec| timespec(Timespec { sec: -1, nsec });
        assert!(time(999_999_999).is_ok());
        assert!(time(1_000_000_000).is_err());
        assert!(time(0x3fff_ffff).is_err(), "UTIME_NOW");
        assert!(time(0x3fff_fffe).is_err(), "UTIME_OMIT");
    }
}
