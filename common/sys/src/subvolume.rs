//! Makes, finds, describes and deletes subvolumes and snapshots.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use uuid::Uuid;

use crate::raw::{self, Args};
use crate::search::{self, Range};

/// Inode number of a subvolume's root directory.
pub const ROOT_INODE: u64 = 256;
/// ID of the top level of a file system.
pub const TOP_LEVEL: u64 = 5;

/// BTRFS_SUBVOL_RDONLY.
const RDONLY: u64 = 2;
/// BTRFS_ROOT_SUBVOL_RDONLY, the same property in the kernel's answer for [`Info`].
const ROOT_RDONLY: u64 = 1;
/// Maximum length of a directory entry's name in bytes.
const NAME_MAX: usize = 255;

/// Whether a snapshot is writable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The snapshot is read-only.
    ReadOnly,
    /// The snapshot is writable.
    ReadWrite,
}

/// The kernel's metadata of a subvolume (BTRFS_IOC_GET_SUBVOL_INFO).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// ID in this file system.
    pub id: u64,
    /// ID of the subvolume that contains it; 0 if it is deleted or the top level.
    pub parent_id: u64,
    /// Transaction of its last change of any kind, including relocation.
    pub generation: u64,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Its own UUID; nil for the top level of old file systems.
    pub uuid: Uuid,
    /// UUID of the source if it is a snapshot, otherwise nil.
    pub parent_uuid: Uuid,
    /// UUID of the subvolume that was received into it; nil if none was.
    pub received_uuid: Uuid,
    /// Transaction of the last change of its content.
    pub ctransid: u64,
    /// Transaction in which it was created.
    pub otransid: u64,
    /// ctransid at the sender of the subvolume that was received into it.
    pub stransid: u64,
    /// Transaction in which it was received.
    pub rtransid: u64,
    /// Time of its creation, in seconds since 1970 UTC.
    pub otime: i64,
    /// Time of its reception, in seconds since 1970 UTC; 0 if it was not received.
    pub rtime: i64,
}

impl Info {
    /// Returns the UUID under which a send stream of this subvolume names it: the received UUID, or otherwise
    /// its own (the rule of the kernel's send and of `btrfs send`).
    pub fn wire_uuid(&self) -> Uuid {
        if self.received_uuid.is_nil() {
            self.uuid
        } else {
            self.received_uuid
        }
    }

    /// Returns the transaction number that belongs to [`wire_uuid`](Self::wire_uuid): that of the snapshot's
    /// origin, if it was received and never changed since, so that a chain of hosts passes on one identity.
    /// Otherwise its own, which the kernel's send always uses.
    pub fn wire_ctransid(&self) -> u64 {
        if self.is_untouched_copy() {
            self.stransid
        } else {
            self.ctransid
        }
    }

    /// Whether it contains exactly what was received.
    fn is_untouched_copy(&self) -> bool {
        !self.received_uuid.is_nil() && self.is_pristine() && !self.is_changed_copy()
    }

    /// Whether it was changed after it was received, or is a snapshot of a subvolume that was. A read-only
    /// snapshot inherits the received UUID of its source, even if the source was made writable and changed
    /// later. Only the transaction of the last change shows this: it is later than that of the reception.
    fn is_changed_copy(&self) -> bool {
        !self.received_uuid.is_nil() && self.ctransid > self.rtransid
    }

    /// Whether it is read-only and was never changed since it was created: neither written to while it was
    /// writable, nor deduplicated.
    pub fn is_pristine(&self) -> bool {
        self.read_only && self.ctransid <= self.otransid
    }
}

/// Whether `fd` is the root directory of a subvolume; `fd` must be on btrfs.
///
/// # Errors
/// I/O errors.
pub fn is_subvolume(fd: impl AsFd) -> io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(stat.st_ino == ROOT_INODE
        && rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory)
}

/// Describes the subvolume that contains `fd`.
///
/// # Errors
/// I/O errors.
pub fn info(fd: impl AsFd) -> io::Result<Info> {
    let mut args = Args::<504>::new();
    raw::get_subvol_info(fd, &mut args)?;
    Ok(Info {
        id: args.u64(0),
        parent_id: args.u64(264),
        generation: args.u64(280),
        read_only: args.u64(288) & ROOT_RDONLY != 0,
        uuid: Uuid::from_bytes(args.bytes(296)),
        parent_uuid: Uuid::from_bytes(args.bytes(312)),
        received_uuid: Uuid::from_bytes(args.bytes(328)),
        ctransid: args.u64(344),
        otransid: args.u64(352),
        stransid: args.u64(360),
        rtransid: args.u64(368),
        otime: args.u64(392) as i64,
        rtime: args.u64(424) as i64,
    })
}

/// Whether the subvolume that contains `fd` is deleted. Its open files, and files in directories that are
/// still cached, can be read as long as one of them is open; everything else fails with `ENOENT`, as if only
/// the files were missing, and a send with `EPERM`.
///
/// # Errors
/// I/O errors.
pub fn is_deleted(fd: impl AsFd) -> io::Result<bool> {
    match info(fd) {
        Ok(info) => Ok(info.parent_id == 0 && info.id != TOP_LEVEL),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e),
    }
}

/// Creates an empty subvolume `name` in `dir`.
///
/// # Errors
/// I/O errors; `EEXIST` if the name exists.
pub fn create(dir: impl AsFd, name: &OsStr) -> io::Result<()> {
    raw::subvol_create(dir, &mut named(name)?)
}

/// Makes a snapshot of `source` as `name` in `dir`. It contains everything that was written to the source
/// before, and it is durable when this returns.
///
/// # Errors
/// I/O errors; `ETXTBSY` while a swap file in the source is active, `EEXIST` if the name exists, `EXDEV` if
/// `dir` is on another file system.
pub fn snapshot(source: impl AsFd, dir: impl AsFd, name: &OsStr, access: Access) -> io::Result<()> {
    let mut args = named(name)?;
    if access == Access::ReadOnly {
        args.put_u64(16, RDONLY);
    }
    raw::snap_create(dir, source.as_fd(), &mut args)
}

/// Deletes the subvolume `name` in `dir`, read-only or not, with its content. Its space is freed when the
/// cleaner has run; see [`crate::filesystem::sync`].
///
/// # Errors
/// I/O errors; `EPERM` while a send reads it, `ENOTEMPTY` if it contains a nested subvolume.
pub fn destroy(dir: impl AsFd, name: &OsStr) -> io::Result<()> {
    raw::snap_destroy(dir, &mut named(name)?)
}

/// Deletes the subvolume with this id, read-only or not, with its content, wherever it is on the file system of `fd`. A
/// name could lead to another subvolume by now.
///
/// # Errors
/// I/O errors; `ENOENT` if there is none, `EPERM` while a send reads it, `ENOTEMPTY` if it contains a nested subvolume.
pub fn destroy_by_id(fd: impl AsFd, id: u64) -> io::Result<()> {
    /// BTRFS_SUBVOL_SPEC_BY_ID.
    const BY_ID: u64 = 1 << 4;
    let mut args = Args::<4096>::new();
    args.put_u64(16, BY_ID);
    args.put_u64(56, id);
    raw::snap_destroy(fd, &mut args)
}

/// Records the identity received into a writable subvolume, in one transaction of its own.
///
/// # Errors
/// I/O errors; `EROFS` for a read-only subvolume.
pub fn set_received(subvolume: impl AsFd, uuid: Uuid, stransid: u64) -> io::Result<()> {
    let mut args = Args::<200>::new();
    args.put(0, uuid.as_bytes());
    args.put_u64(16, stransid);
    raw::set_received(subvolume, &mut args)
}

/// Makes a subvolume read-only or writable.
///
/// # Errors
/// I/O errors.
pub fn set_access(subvolume: impl AsFd, access: Access) -> io::Result<()> {
    let mut args = Args::<8>::new();
    if access == Access::ReadOnly {
        args.put_u64(0, RDONLY);
    }
    raw::set_flags(subvolume, &mut args)
}

/// Finds the IDs of the subvolumes of the file system with this UUID. Needs CAP_SYS_ADMIN.
///
/// # Errors
/// I/O errors.
pub fn ids_by_uuid(fd: impl AsFd, uuid: Uuid) -> io::Result<Vec<u64>> {
    uuid_tree(fd, uuid, search::UUID_SUBVOL)
}

/// Finds the IDs of the subvolumes that were received as this UUID. Needs CAP_SYS_ADMIN.
///
/// # Errors
/// I/O errors.
pub fn ids_by_received_uuid(fd: impl AsFd, uuid: Uuid) -> io::Result<Vec<u64>> {
    uuid_tree(fd, uuid, search::UUID_RECEIVED)
}

fn uuid_tree(fd: impl AsFd, uuid: Uuid, kind: u8) -> io::Result<Vec<u64>> {
    let (head, tail) = uuid.as_bytes().split_at(8);
    let key = search::Key {
        objectid: le_u64(head),
        kind,
        offset: le_u64(tail),
    };
    let range = Range {
        tree: search::UUID_TREE,
        min: key,
        max: key,
        min_transid: 0,
    };
    let mut ids = Vec::new();
    search::items(fd, range, |item| {
        ids.extend(item.data.chunks_exact(8).map(le_u64));
        Ok(())
    })?;
    Ok(ids)
}

/// Returns the ID of the subvolume that is mounted if a mount names none. Needs CAP_SYS_ADMIN.
///
/// The file system stores it as the location in the directory item `default` of the root tree's directory
/// (btrfs_tree.h: `BTRFS_ROOT_TREE_DIR_OBJECTID`, `BTRFS_DIR_ITEM_KEY`).
///
/// # Errors
/// I/O errors.
pub fn default_id(fd: impl AsFd) -> io::Result<u64> {
    const ROOT_TREE_DIR: u64 = 6;
    const DIR_ITEM: u8 = 84;
    let mut found = TOP_LEVEL;
    let range = Range::of_object(search::ROOT_TREE, ROOT_TREE_DIR, DIR_ITEM);
    search::items(&fd, range, |item| {
        // A disk key: the object ID in eight bytes, little endian, is first.
        if let Some(id) = item.data.first_chunk::<8>() {
            found = u64::from_le_bytes(*id);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Returns the path of a subvolume from the top level of its file system; empty for the top level itself,
/// `None` if it is deleted. Needs CAP_SYS_ADMIN.
///
/// # Errors
/// I/O errors.
pub fn path_from_top(fd: impl AsFd, id: u64) -> io::Result<Option<PathBuf>> {
    let mut path = PathBuf::new();
    let mut id = id;
    while id != TOP_LEVEL {
        let Some((parent, place)) = place_in_parent(&fd, id)? else {
            return Ok(None);
        };
        path = if path.as_os_str().is_empty() {
            place
        } else {
            place.join(path)
        };
        id = parent;
    }
    Ok(Some(path))
}

/// Lists the subvolumes nested directly in subvolume `id`, with their IDs and their paths relative to it.
/// Needs CAP_SYS_ADMIN.
///
/// # Errors
/// I/O errors.
pub fn children(fd: impl AsFd, id: u64) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut refs = Vec::new();
    let range = Range::of_object(search::ROOT_TREE, id, search::ROOT_REF);
    search::items(&fd, range, |item| {
        refs.push((item.key.offset, root_ref(item.data)?));
        Ok(())
    })?;
    refs.into_iter()
        .map(|(child, (dir, name))| Ok((child, directory(&fd, id, dir)?.join(name))))
        .collect()
}

/// Returns a path of inode `inode`, relative to the root of the subvolume of `fd`; `None` if there is no such
/// inode. Needs CAP_SYS_ADMIN.
///
/// # Errors
/// I/O errors.
pub fn path_of_inode(fd: impl AsFd, inode: u64) -> io::Result<Option<PathBuf>> {
    match directory(fd, 0, inode) {
        // The kernel treats it as a directory and appends a slash.
        Ok(path) => Ok(Some(path.components().collect())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Finds the subvolume that contains subvolume `id`, and the path in it.
fn place_in_parent(fd: impl AsFd, id: u64) -> io::Result<Option<(u64, PathBuf)>> {
    let mut found = None;
    let range = Range::of_object(search::ROOT_TREE, id, search::ROOT_BACKREF);
    search::items(&fd, range, |item| {
        found = Some((item.key.offset, root_ref(item.data)?));
        Ok(())
    })?;
    found
        .map(|(parent, (dir, name))| Ok((parent, directory(&fd, parent, dir)?.join(name))))
        .transpose()
}

/// Parses directory ID and name of a ROOT_REF or ROOT_BACKREF item.
fn root_ref(data: &[u8]) -> io::Result<(u64, OsString)> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "broken root reference");
    let dir = le_u64(data.get(..8).ok_or_else(broken)?);
    let name = data.get(18..).ok_or_else(broken)?;
    Ok((dir, OsString::from_vec(name.to_vec())))
}

/// Returns the path of directory `inode` within subvolume `tree`.
fn directory(fd: impl AsFd, tree: u64, inode: u64) -> io::Result<PathBuf> {
    let mut args = Args::<4096>::new();
    args.put_u64(0, tree);
    args.put_u64(8, inode);
    raw::ino_lookup(fd, &mut args)?;
    Ok(PathBuf::from(OsStr::from_bytes(args.c_str(16, 4096))))
}

fn named(name: &OsStr) -> io::Result<Args<4096>> {
    let bytes = name.as_bytes();
    if bytes.len() > NAME_MAX {
        return Err(rustix::io::Errno::NAMETOOLONG.into());
    }
    let mut args = Args::new();
    args.put(56, bytes);
    Ok(args)
}

fn le_u64(bytes: &[u8]) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy() -> Info {
        Info {
            id: 300,
            parent_id: 5,
            generation: 50,
            read_only: true,
            uuid: Uuid::from_u128(1),
            parent_uuid: Uuid::nil(),
            received_uuid: Uuid::from_u128(7),
            ctransid: 40,
            otransid: 42,
            stransid: 900,
            rtransid: 41,
            otime: 0,
            rtime: 0,
        }
    }

    #[test]
    fn an_untouched_copy_has_the_number_of_its_origin() {
        assert_eq!(copy().wire_ctransid(), 900);
        assert_eq!(copy().wire_uuid(), Uuid::from_u128(7));
    }

    #[test]
    fn everything_else_has_its_own_number() {
        let own = Info {
            received_uuid: Uuid::nil(),
            stransid: 0,
            rtransid: 0,
            ..copy()
        };
        let changed = Info {
            ctransid: 43,
            ..copy()
        };
        // This is a snapshot of a copy that was made writable and changed.
        let inherited = Info {
            ctransid: 45,
            otransid: 46,
            ..copy()
        };
        let writable = Info {
            read_only: false,
            ..copy()
        };
        for info in [own, changed, inherited, writable] {
            assert_eq!(info.wire_ctransid(), info.ctransid, "{info:?}");
        }
    }
}
