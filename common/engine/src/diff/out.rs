//! Output for the steps of one inode.

use sendshot_stream::{Command, Timespec};

use super::flags::{self, COMPRESSION};
use super::step::{Reads, Sink, Step, Version};
use crate::format::entry::{GUARDS, Inode, InodeItem, NOCOMPRESS, ROOT, SYMLINK, Time, Xattr};

/// Bits of the mode that make a program run as another user.
const SET_ID: u32 = 0o6000;

/// The attribute that the kernel drops when data or owner change.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// Whether data of a file was written, which drops capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touched {
    Yes,
    No,
}

/// Output for the steps of one inode.
pub(super) struct StepWriter<'s, 'p, S> {
    pub(super) sink: &'s mut S,
    pub(super) path: &'p [u8],
}

impl<S: Sink> StepWriter<'_, '_, S> {
    pub(super) fn command(&mut self, command: Command<'_>) -> Result<(), S::Error> {
        self.sink.step(Step::Command(command))
    }

    /// Sets the flags of a new object. They come before everything else: only an empty file can become NOCOW,
    /// and setting them changes the attribute `btrfs.compression`, which itself sets the compression flag. At
    /// the receiver, new entries of a directory that `inherits` get its flags, whatever they had at the
    /// sender.
    pub(super) fn early_flags(
        &mut self,
        version: Version,
        inherits: bool,
        inode: &Inode,
    ) -> Result<(), S::Error> {
        let flags = flags::stored(inode);
        if inherits && flags & NOCOMPRESS != 0 {
            // The kernel cannot change from NOCOW to this flag in one call.
            self.flags(version, inode, 0)?;
        }
        if flags != 0 || inherits {
            self.flags(version, inode, flags)?;
        }
        Ok(())
    }

    pub(super) fn changed_flags(
        &mut self,
        version: Version,
        before: &Inode,
        inode: &Inode,
    ) -> Result<(), S::Error> {
        let (property, flags) = (flags::compression(inode), flags::stored(inode));
        let goes = flags::compression(before).is_some() && property.is_none();
        if goes {
            let (path, name) = (self.path, COMPRESSION);
            self.command(Command::RemoveXattr { path, name })?;
        }
        // Removing the property clears both compression flags.
        let lost = goes && flags & NOCOMPRESS != 0;
        if flags::stored(before) == flags && !lost {
            return Ok(());
        }
        self.flags(version, inode, flags)?;
        property.map_or(Ok(()), |xattr| self.set_xattr(xattr))
    }

    /// Sets the flags that forbid changes, after everything else. The root of a copy never gets them: the
    /// copy could not be deleted.
    pub(super) fn guard(&mut self, version: Version, inode: &Inode) -> Result<(), S::Error> {
        let flags = flags::kept(inode);
        if flags & GUARDS == 0 || inode.ino == ROOT {
            return Ok(());
        }
        self.flags(version, inode, flags)
    }

    /// Emits flags. Only files and directories have flags that can be set.
    pub(super) fn flags(
        &mut self,
        version: Version,
        inode: &Inode,
        flags: u64,
    ) -> Result<(), S::Error> {
        let settable = inode.item.is_regular() || inode.item.is_dir();
        if version == Version::V1 || !settable {
            return Ok(());
        }
        let path = self.path;
        self.command(Command::Fileattr { path, flags })
    }

    pub(super) fn set_xattr(&mut self, xattr: &Xattr) -> Result<(), S::Error> {
        /// An access control list without entries is stored as an empty value, but can only be set as its
        /// version number.
        const EMPTY_ACL: &[u8] = &[2, 0, 0, 0];
        let is_acl = xattr.name.starts_with(b"system.posix_acl_");
        let data = match xattr.value.as_slice() {
            [] if is_acl => EMPTY_ACL,
            value => value,
        };
        let (path, name) = (self.path, &xattr.name);
        self.command(Command::SetXattr { path, name, data })
    }

    pub(super) fn changed_xattrs(&mut self, before: &Inode, inode: &Inode) -> Result<(), S::Error> {
        // [`StepWriter::changed_flags`] has already removed the compression property.
        for old in &before.xattrs {
            if old.name != COMPRESSION && !inode.xattrs.iter().any(|new| new.name == old.name) {
                let (path, name) = (self.path, &old.name);
                self.command(Command::RemoveXattr { path, name })?;
            }
        }
        for new in &inode.xattrs {
            if new.name != CAPABILITY && !before.xattrs.contains(new) {
                self.set_xattr(new)?;
            }
        }
        Ok(())
    }

    /// Emits owner, mode and capabilities.
    pub(super) fn attributes(
        &mut self,
        before: Option<&Inode>,
        inode: &Inode,
        touched: Touched,
    ) -> Result<(), S::Error> {
        let path = self.path;
        let item = &inode.item;
        let owner = |item: &InodeItem| (item.uid, item.gid);
        let chown = before.is_none_or(|before| owner(&before.item) != owner(item));
        if chown {
            let (uid, gid) = (u64::from(item.uid), u64::from(item.gid));
            self.command(Command::Chown { path, uid, gid })?;
        }
        // Changes of data and owner clear set-id bits and drop capabilities.
        let dropped = chown || touched == Touched::Yes;
        let chmod = before.is_none_or(|before| before.item.mode != item.mode)
            || (dropped && item.mode & SET_ID != 0);
        if chmod && item.kind() != SYMLINK {
            let mode = u64::from(item.mode & 0o7777);
            self.command(Command::Chmod { path, mode })?;
        }
        let capability = inode.xattrs.iter().find(|xattr| xattr.name == CAPABILITY);
        let same = |xattr: &Xattr| before.is_some_and(|before| before.xattrs.contains(xattr));
        match capability.filter(|xattr| dropped || chmod || !same(xattr)) {
            Some(xattr) => self.set_xattr(xattr),
            None => Ok(()),
        }
    }

    pub(super) fn utimes(&mut self, item: &InodeItem) -> Result<(), S::Error> {
        let time = |time: Time| Timespec {
            sec: time.sec,
            nsec: time.nsec,
        };
        // The change time cannot be set, but the format requires one.
        self.command(Command::Utimes {
            path: self.path,
            atime: time(item.atime),
            mtime: time(item.mtime),
            ctime: time(item.mtime),
            otime: None,
        })
    }

    pub(super) fn data(&mut self, offset: u64, len: u64, reads: Reads) -> Result<(), S::Error> {
        let path = self.path;
        self.sink.step(Step::Data {
            path,
            offset,
            len,
            reads,
        })
    }
}
