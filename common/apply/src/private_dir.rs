//! A private directory in the target directory of a restore, on any file system. Entries are made in it and get
//! their place in the target when they are complete.
//!
//! The directory is locked (flock) as long as the process that makes it lives. The lock distinguishes remnants of a
//! dead process from the work of a running one. Symbolic links are never followed, in the target directory or
//! beneath.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use sendshot_sys::durable::{self, PRIVATE_DIR};
use sendshot_sys::{crash, filesystem, inode_attributes};
use uuid::Uuid;

use crate::beneath::{CONFINED, open_beneath};
use crate::paths::{self, PathError};
use sendshot_sys::durable::proc_path;

/// Prefix of the names of these directories.
pub const PREFIX: &str = ".sendshot-restore-";

/// Name of the directory in it in which an applier works: the stream sets the permissions of its root, and those of
/// the private directory must not change.
const TREE: &str = "tree";

/// Name of the file that marks such a directory: the owner of the target directory could give the name of one to
/// any other directory in it.
const MARK: &str = ".sendshot-restore";

/// Maximum number of attempts to make a directory with a name that is not in use.
const ATTEMPTS: usize = 100;

/// Number of names that are read at a time when a directory is deleted.
const BATCH: usize = 1024;

/// Flags that forbid changes of an inode.
const GUARDS: u32 = inode_attributes::IMMUTABLE | inode_attributes::APPEND;

/// Reason why an entry was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The name for the target directory is not valid.
    #[error("{}: {source}", .name.display())]
    Name {
        /// The name.
        name: OsString,
        /// Reason why it is not valid.
        source: PathError,
    },
    /// The path of the entry is not valid.
    #[error("the path of the entry is not valid")]
    Path(#[from] PathError),
    /// The target directory has an entry with this name.
    #[error("{} exists already", .0.display())]
    Exists(OsString),
    /// The content could not be written to disk.
    #[error("cannot write everything to disk")]
    Flush(#[source] io::Error),
    /// The entry was not made, or cannot be opened.
    #[error("cannot find the entry to publish")]
    Entry(#[source] io::Error),
    /// The entry cannot be moved.
    #[error("cannot move the entry to {}", .name.display())]
    Move {
        /// Name in the target directory.
        name: OsString,
        /// Error from the kernel.
        #[source]
        source: io::Error,
    },
    /// The entry has its name, but may lose it in a crash.
    #[error("{} is complete, but a crash of the system may undo it", .name.display())]
    NotDurable {
        /// Name in the target directory.
        name: OsString,
        /// Error from the kernel.
        #[source]
        source: io::Error,
    },
}

/// A private directory; deleted with everything in it when this is dropped.
#[derive(Debug)]
pub struct PrivateDir {
    target: OwnedFd,
    name: OsString,
    dir: OwnedFd,
    tree: OwnedFd,
    is_deleted: bool,
}

impl PrivateDir {
    /// Makes a private directory in `target`.
    ///
    /// # Errors
    /// I/O errors.
    pub fn new(target: impl AsFd) -> io::Result<Self> {
        let target = reopen(&target)?;
        let (name, dir) = make(&target)?;
        match fill(&dir) {
            Ok(tree) => Ok(Self {
                target,
                name,
                dir,
                tree,
                is_deleted: false,
            }),
            Err(error) => {
                discard(&target, &name, &dir);
                Err(error)
            }
        }
    }

    /// Duplicates the descriptor of the directory in which an applier works.
    ///
    /// # Errors
    /// I/O errors.
    pub fn tree_for_applier(&self) -> io::Result<OwnedFd> {
        self.tree.try_clone()
    }

    /// Returns the name in the target directory.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Moves the entry with this path in the applier's directory to `name` in the target directory, which must not
    /// have such an entry. All commands must have been applied. When it returns, the entry is durable.
    ///
    /// The steps, and what a crash after each leaves:
    ///
    /// 1. Write everything to disk, and detect any write failure since the directory was made. A crash leaves the
    ///    private directory, which [`sweep`] deletes.
    /// 2. Clear flags that forbid moving the entry. A crash leaves the same.
    /// 3. Move the entry to its name, which is atomic and replaces nothing. A crash leaves the entry in one of the
    ///    two places, whole, perhaps without these flags.
    /// 4. Set the flags again. A crash leaves the same as after 3.
    /// 5. Write the target directory to disk, then the former one. A crash leaves the complete entry, and the
    ///    private directory.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn publish(&self, path: &[u8], name: &OsStr) -> Result<(), PublishError> {
        let invalid = |source| PublishError::Name {
            name: name.to_owned(),
            source,
        };
        paths::single(name.as_bytes()).map_err(invalid)?;
        let place = paths::split(path)?;
        rustix::fs::syncfs(&self.tree).map_err(|e| PublishError::Flush(e.into()))?; // 1
        crash::point("publish-flushed");
        let from = self.open_dir(place.dir).map_err(PublishError::Entry)?;
        let guards = Guards::clear(&from, place.name).map_err(PublishError::Entry)?; // 2
        crash::point("publish-unguarded");
        let moved = rustix::fs::renameat_with(
            &from,
            place.name,
            &self.target,
            name,
            RenameFlags::NOREPLACE,
        ); // 3
        crash::point("publish-moved");
        let guarded = guards.restore(); // 4
        match moved {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(PublishError::Exists(name.to_owned())),
            Err(e) => {
                return Err(PublishError::Move {
                    name: name.to_owned(),
                    source: e.into(),
                });
            }
        }
        let synced = guarded.and_then(|()| {
            rustix::fs::fsync(&self.target)?;
            Ok(rustix::fs::fsync(&from)?)
        }); // 5
        crash::point("publish-durable");
        synced.map_err(|source| PublishError::NotDurable {
            name: name.to_owned(),
            source,
        })
    }

    fn open_dir(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = if path.is_empty() { b"." } else { path };
        Ok(rustix::fs::openat2(
            &self.tree,
            path,
            flags,
            Mode::empty(),
            CONFINED,
        )?)
    }

    /// Deletes the directory with everything in it.
    ///
    /// # Errors
    /// I/O errors.
    pub fn delete(mut self) -> io::Result<()> {
        self.is_deleted = true;
        delete(&self.target, &self.name, &self.dir)
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        if !self.is_deleted {
            discard(&self.target, &self.name, &self.dir);
        }
    }
}

/// Makes what is in a private directory; returns the directory for the applier.
fn fill(dir: &OwnedFd) -> io::Result<OwnedFd> {
    neutral(dir)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, MARK, flags, Mode::from_raw_mode(durable::PRIVATE))?;
    durable::private_dir(dir, TREE.as_ref())
}

/// Deletes the private directories of dead processes in `target`, if they belong to this user; returns their number.
///
/// # Errors
/// I/O errors of reading `target`; a directory that cannot be deleted is only logged.
pub fn sweep(target: impl AsFd) -> io::Result<usize> {
    let target = reopen(&target)?;
    let mut swept = 0;
    for name in durable::names(&target)? {
        if !name.as_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        match sweep_one(&target, &name) {
            Ok(true) => swept += 1,
            Ok(false) => {}
            Err(e) => {
                tracing::warn!(name = %name.display(), error = %e, "a stale restore directory stays");
            }
        }
    }
    Ok(swept)
}

fn sweep_one(target: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    let dir = match durable::open_dir(target, name) {
        // Another type of file only has such a name; or another process deletes it now.
        Err(e)
            if matches!(
                Errno::from_io_error(&e),
                Some(Errno::NOTDIR | Errno::LOOP | Errno::NOENT)
            ) =>
        {
            return Ok(false);
        }
        dir => dir?,
    };
    let is_ours = rustix::fs::fstat(&dir)?.st_uid == rustix::process::geteuid().as_raw();
    if !is_ours || !lock(&dir)? || !(is_marked(&dir)? || some_names(&dir)?.is_empty()) {
        return Ok(false);
    }
    delete(target, name, &dir)?;
    Ok(true)
}

fn is_marked(dir: &OwnedFd) -> io::Result<bool> {
    match rustix::fs::statat(dir, MARK, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn make(target: &OwnedFd) -> io::Result<(OsString, OwnedFd)> {
    let mut last = io::ErrorKind::AlreadyExists.into();
    for _ in 0..ATTEMPTS {
        let number = Uuid::new_v4().simple().to_string();
        let name = OsString::from(format!("{PREFIX}{}", &number[..16]));
        match rustix::fs::mkdirat(target, &name, Mode::from_raw_mode(PRIVATE_DIR)) {
            Ok(()) => {}
            Err(Errno::EXIST) => continue,
            Err(e) => return Err(e.into()),
        }
        let dir = durable::open_dir(target, &name)?;
        let stat = rustix::fs::fstat(&dir)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(Errno::PERM.into());
        }
        // A sweep may have found it before it was locked.
        match lock(&dir)? && rustix::fs::fstat(&dir)?.st_nlink > 0 {
            true => return Ok((name, dir)),
            false => last = io::ErrorKind::ResourceBusy.into(),
        }
    }
    Err(last)
}

fn lock(dir: &OwnedFd) -> io::Result<bool> {
    match rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Clears everything that new entries would inherit.
fn neutral(dir: &OwnedFd) -> io::Result<()> {
    let path = proc_path(dir);
    for name in [
        "system.posix_acl_default",
        "system.posix_acl_access",
        "btrfs.compression",
    ] {
        match rustix::fs::removexattr(&path, name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    match rustix::fs::fchmod(dir, Mode::from_raw_mode(PRIVATE_DIR)) {
        // The file system has no modes; its mount options decide who sees the files.
        Ok(()) | Err(Errno::PERM | Errno::OPNOTSUPP) => {}
        Err(e) => return Err(e.into()),
    }
    match filesystem::clear_inherited_flags(dir) {
        Err(e)
            if matches!(
                Errno::from_io_error(&e),
                Some(Errno::NOTTY | Errno::OPNOTSUPP)
            ) =>
        {
            Ok(())
        }
        cleared => cleared,
    }
}

/// Opens a directory again, for reading and with its own position.
fn reopen(dir: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&dir, ".", flags, Mode::empty())?)
}

/// The flags of an entry that forbid moving it.
struct Guards {
    file: Option<OwnedFd>,
    flags: u32,
}

impl Guards {
    fn clear(dir: &OwnedFd, name: &[u8]) -> io::Result<Self> {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let none = Self {
            file: None,
            flags: 0,
        };
        if !matches!(
            FileType::from_raw_mode(stat.st_mode),
            FileType::RegularFile | FileType::Directory
        ) {
            return Ok(none);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match open_beneath(dir, name, flags) {
            // Only a privileged process can have set these flags, and it can open every file.
            Err(Errno::ACCESS) => return Ok(none),
            file => file?,
        };
        let flags = match rustix::fs::ioctl_getflags(&file) {
            Ok(flags) => inode_guards(flags),
            // The file system has no flags.
            Err(_) => 0,
        };
        if flags == 0 {
            return Ok(none);
        }
        inode_attributes::set(&file, 0, GUARDS)?;
        let file = Some(file);
        Ok(Self { file, flags })
    }

    fn restore(self) -> io::Result<()> {
        match self.file {
            Some(file) => inode_attributes::set(file, self.flags, GUARDS),
            None => Ok(()),
        }
    }
}

fn inode_guards(flags: rustix::fs::IFlags) -> u32 {
    let set = |flag, attribute| if flags.contains(flag) { attribute } else { 0 };
    set(rustix::fs::IFlags::IMMUTABLE, inode_attributes::IMMUTABLE)
        | set(rustix::fs::IFlags::APPEND, inode_attributes::APPEND)
}

fn discard(target: &OwnedFd, name: &OsStr, dir: &OwnedFd) {
    if let Err(e) = delete(target, name, dir) {
        tracing::warn!(name = %name.display(), error = %e, "a restore directory stays");
    }
}

/// Deletes a private directory with everything in it. Directories in directories are first moved up to it, so the
/// depth of the tree needs neither descriptors nor stack. The mark goes last.
fn delete(target: &OwnedFd, name: &OsStr, dir: &OwnedFd) -> io::Result<()> {
    let mut moved = 0_u64;
    loop {
        let names = some_names(dir)?;
        if names.is_empty() {
            break;
        }
        let is_last = names == [MARK.as_bytes()];
        for name in names {
            if name == MARK.as_bytes() && !is_last {
                continue;
            }
            if !unlink(dir, &name)? {
                empty(dir, &name, &mut moved)?;
                remove(dir, &name, AtFlags::REMOVEDIR)?;
            }
        }
    }
    remove(target, name.as_bytes(), AtFlags::REMOVEDIR)
}

/// Empties the directory `name` of `top`: moves its directories to `top`, and deletes everything else.
fn empty(top: &OwnedFd, name: &[u8], moved: &mut u64) -> io::Result<()> {
    let dir = open_for_deletion(top, name)?;
    loop {
        let names = some_names(&dir)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            if !unlink(&dir, &name)? {
                move_up(&dir, &name, top, moved)?;
            }
        }
    }
}

fn move_up(dir: &OwnedFd, name: &[u8], top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let to = format!("{moved}");
        match rustix::fs::renameat_with(dir, name, top, &to, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            // To move a directory changes its entry `..`.
            Err(Errno::PERM | Errno::ACCESS) => {
                drop(open_for_deletion(dir, name)?);
                rustix::fs::renameat_with(dir, name, top, &to, RenameFlags::NOREPLACE)?;
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        }
    }
}

/// Opens a directory, and lets its entries be deleted.
fn open_for_deletion(parent: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let name = OsStr::from_bytes(name);
    let dir = match durable::open_dir(parent, name) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let look = rustix::fs::openat(parent, name, flags, Mode::empty())?;
            rustix::fs::chmod(proc_path(&look), Mode::from_raw_mode(PRIVATE_DIR))?;
            durable::open_dir(parent, name)?
        }
        dir => dir?,
    };
    let guards = rustix::fs::ioctl_getflags(&dir).map_or(0, inode_guards);
    if guards != 0 {
        inode_attributes::set(&dir, 0, GUARDS)?;
    }
    if rustix::fs::fstat(&dir)?.st_mode & 0o700 != 0o700 {
        rustix::fs::fchmod(&dir, Mode::from_raw_mode(PRIVATE_DIR))?;
    }
    Ok(dir)
}

/// Deletes an entry; returns false if it is a directory.
fn unlink(dir: &OwnedFd, name: &[u8]) -> io::Result<bool> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Ok(false);
    }
    remove(dir, name, AtFlags::empty())?;
    Ok(true)
}

/// Removes a name, if necessary after clearing flags that forbid it.
fn remove(dir: &OwnedFd, name: &[u8], flags: AtFlags) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, flags) {
        Err(Errno::PERM) => {
            Guards::clear(dir, name)?;
            Ok(rustix::fs::unlinkat(dir, name, flags)?)
        }
        removed => Ok(removed?),
    }
}

/// Returns some of the names in a directory: a directory with millions of them must not fill the memory.
fn some_names(dir: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(reopen(dir)?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
        if names.len() == BATCH {
            break;
        }
    }
    Ok(names)
}
