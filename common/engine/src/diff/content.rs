//! Contents and attributes, file by file, then those of directories.
//!
//! Order within one file, and why: inode flags first (see [`Out::early_flags`]), then removals of
//! attributes (a write or chown at the receiver drops security.capability by itself, and its
//! removal would then fail), other attributes, data, size, owner, mode (a chown clears set-id
//! bits), capabilities (data and owner drop them), times, flags that forbid changes.

use std::collections::HashSet;

use sendshot_stream::{Command, Timespec};

use super::blocks::Blocks;
use super::clones::Clones;
use super::data::{self, Open, Stream};
use super::flags::{self, COMPRESSION};
use super::names::{dir_id, is_inheritable};
use super::side_by_side::SideBySide;
use super::{Error, Pair, Sink, Step, Version};
use crate::format::entry::Inode;
use crate::format::entry::{
    BLOCK, CHARACTER, COMPRESS, DIRECTORY, FIFO, GUARDS, InodeItem, NOCOMPRESS, NODATASUM, ROOT,
    SOCKET, SYMLINK, Time, Xattr,
};

/// Bits of the mode that make a program run as somebody else.
const SET_ID: u32 = 0o6000;

/// The attribute that data and owner drop.
const CAPABILITY: &[u8] = b"security.capability";

/// Emits new files, and what changed in old ones.
pub(super) fn files<S: Sink>(pair: &mut Pair<'_>, sink: &mut S) -> Result<(), S::Error> {
    let mut both = SideBySide::new(pair)?;
    let mut known = Known {
        clones: std::mem::take(&mut pair.clones),
        blocks: Blocks::new(pair)?,
    };
    // Without checksums, there may be hashes to carry over, and the parent is no source of clones.
    while let Some(inode) =
        both.next(|inode| !inode.is_dir() && (inode.swap || inode.flags & NODATASUM != 0))?
    {
        let before = both.before(&inode).filter(|old| pair.is_same(old, &inode));
        if inode.item.is_dir() {
            continue;
        }
        match (before, &mut both.m) {
            (Some(before), Some(_)) if pair.is_unchanged(&before, &inode) => {
                known.unchanged(&inode, &mut both.n, sink)?;
            }
            (Some(before), Some(m)) => {
                changed(pair, &mut known, (&before, m), (&inode, &mut both.n), sink)?;
            }
            _ => made(pair, &mut known, &inode, &mut both.n, sink)?,
        }
    }
    Ok(())
}

/// What is known of data, while one file follows the other.
struct Known {
    clones: Clones,
    blocks: Blocks,
}

impl Known {
    fn stream<'r, 'a>(&'r mut self, pair: &'r Pair<'a>) -> Stream<'r, 'a> {
        Stream {
            pair,
            clones: &mut self.clones,
            blocks: &mut self.blocks,
        }
    }

    /// Other files may share data with it.
    fn unchanged<S: Sink>(
        &mut self,
        inode: &Inode,
        n: &mut Open<'_>,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        while !self.clones.is_idle()
            && let Some(extent) = n.next_extent().map_err(Error::from)?
        {
            self.clones.sent(inode, &extent);
        }
        self.blocks.unchanged(inode, sink)
    }
}

/// A file that M does not have.
fn made<S: Sink>(
    pair: &mut Pair<'_>,
    known: &mut Known,
    inode: &Inode,
    n: &mut Open<'_>,
    sink: &mut S,
) -> Result<(), S::Error> {
    let mut paths = Vec::with_capacity(inode.names.len());
    for name in &inode.names {
        let place = pair
            .n_dirs
            .place_of(name)
            .ok_or_else(|| pair.orphan(inode.ino))?;
        paths.push(
            pair.n_dirs
                .path(&place)
                .ok_or_else(|| pair.orphan(inode.ino))?,
        );
        pair.touched.insert(place.parent);
    }
    let Some((path, links)) = paths.split_first() else {
        return Ok(());
    };
    let mut out = Out { sink, path };
    out.command(make(inode, path))?;
    let inherits = inode.names.first().is_some_and(|name| pair.inherits(name));
    out.early_flags(pair.version, inherits, inode)?;
    for link in links {
        out.command(Command::Link {
            path: link,
            existing: path,
        })?;
    }
    for xattr in inode.xattrs.iter().filter(|xattr| xattr.name != CAPABILITY) {
        out.set_xattr(xattr)?;
    }
    if inode.item.is_regular() {
        data::emit(known.stream(pair), None, inode, n, &mut out)?;
    }
    out.attributes(None, inode, Touched::Yes)?;
    out.utimes(&inode.item)?;
    out.guard(pair.version, inode)
}

fn make<'a>(inode: &'a Inode, path: &'a [u8]) -> Command<'a> {
    match inode.item.kind() {
        SYMLINK => Command::Symlink {
            path,
            target: inode.target.as_deref().unwrap_or_default(),
        },
        CHARACTER | BLOCK => Command::Mknod {
            path,
            mode: u64::from(inode.item.mode),
            rdev: inode.item.rdev,
        },
        FIFO => Command::Mkfifo { path },
        SOCKET => Command::Mksock { path },
        DIRECTORY => Command::Mkdir { path },
        _ => Command::Mkfile { path },
    }
}

/// A file of both that is not the same.
fn changed<S: Sink>(
    pair: &Pair<'_>,
    known: &mut Known,
    (before, m): (&Inode, &mut Open<'_>),
    (inode, n): (&Inode, &mut Open<'_>),
    sink: &mut S,
) -> Result<(), S::Error> {
    let Some(name) = inode.names.first() else {
        return Ok(());
    };
    let place = pair
        .n_dirs
        .place_of(name)
        .ok_or_else(|| pair.orphan(inode.ino))?;
    let path = pair
        .n_dirs
        .path(&place)
        .ok_or_else(|| pair.orphan(inode.ino))?;
    let mut out = Out { sink, path: &path };
    out.changed_flags(pair.version, before, inode)?;
    out.changed_xattrs(before, inode)?;
    let mut touched = Touched::No;
    if inode.item.is_regular() {
        touched = data::emit(known.stream(pair), Some((before, m)), inode, n, &mut out)?;
    }
    out.attributes(Some(before), inode, touched)?;
    out.utimes(&inode.item)?;
    out.guard(pair.version, inode)
}

/// Attributes and times of directories that are new, changed, or had names made or removed.
pub(super) fn directories<S: Sink>(pair: &Pair<'_>, sink: &mut S) -> Result<(), S::Error> {
    if pair.touched.is_empty() && !pair.changes_dirs {
        return Ok(());
    }
    let mut both = SideBySide::new(pair)?;
    let touched: HashSet<u64> = pair.touched.iter().map(|dir| dir.ino).collect();
    while let Some(inode) = both.next(|inode| inode.is_dir() && touched.contains(&inode.ino))? {
        let before = both.before(&inode);
        if inode.item.is_dir() {
            directory(pair, before.as_ref(), &inode, sink)?;
        }
    }
    Ok(())
}

fn directory<S: Sink>(
    pair: &Pair<'_>,
    before: Option<&Inode>,
    inode: &Inode,
    sink: &mut S,
) -> Result<(), S::Error> {
    let id = dir_id(inode);
    let before = before.filter(|before| before.item.is_dir() && dir_id(before) == id);
    let before = before.filter(|_| pair.rule.is_some());
    let unchanged = match (pair.rule, before) {
        (Some(rule), Some(before)) => rule.is_unchanged(&before.item, &inode.item),
        _ => false,
    };
    if unchanged && !pair.touched.contains(&id) {
        return Ok(());
    }
    let path = pair
        .n_dirs
        .dir_path(id)
        .ok_or_else(|| pair.orphan(inode.ino))?;
    let mut out = Out { sink, path: &path };
    match before {
        Some(before) => {
            let mut before = before.clone();
            if !unchanged {
                // They were taken off at the beginning, and with the property went its flags.
                if flags::compression(&before).is_some() {
                    before.item.flags &= !(COMPRESS | NOCOMPRESS);
                }
                before.xattrs.retain(|xattr| !is_inheritable(xattr));
            }
            out.changed_flags(pair.version, &before, inode)?;
            out.changed_xattrs(&before, inode)?;
        }
        None => {
            let inherits = inode.names.first().is_some_and(|name| pair.inherits(name));
            out.early_flags(pair.version, inherits, inode)?;
            for xattr in &inode.xattrs {
                out.set_xattr(xattr)?;
            }
        }
    }
    out.attributes(before, inode, Touched::No)?;
    out.utimes(&inode.item)?;
    out.guard(pair.version, inode)
}

/// Whether data of a file was written, which drops capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touched {
    Yes,
    No,
}

/// Where the steps of one inode go.
pub(super) struct Out<'s, 'p, S> {
    pub(super) sink: &'s mut S,
    pub(super) path: &'p [u8],
}

impl<S: Sink> Out<'_, '_, S> {
    pub(super) fn command(&mut self, command: Command<'_>) -> Result<(), S::Error> {
        self.sink.step(Step::Command(command))
    }

    /// Flags of something new. They come before everything else: only an empty file can become
    /// NOCOW, and setting them changes the attribute `btrfs.compression`, which brings along the flag
    /// for compression. What is made in a directory `inherits` of its flags at the receiver, whatever
    /// it was at the sender.
    fn early_flags(
        &mut self,
        version: Version,
        inherits: bool,
        inode: &Inode,
    ) -> Result<(), S::Error> {
        let flags = flags::stored(inode);
        if inherits && flags & NOCOMPRESS != 0 {
            // The kernel does not change from NOCOW to this in one call.
            self.flags(version, inode, 0)?;
        }
        if flags != 0 || inherits {
            self.flags(version, inode, flags)?;
        }
        Ok(())
    }

    fn changed_flags(
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
        // With the property go both flags for compression.
        let lost = goes && flags & NOCOMPRESS != 0;
        if flags::stored(before) == flags && !lost {
            return Ok(());
        }
        self.flags(version, inode, flags)?;
        property.map_or(Ok(()), |xattr| self.set_xattr(xattr))
    }

    /// What forbids changes comes when all is done. The root of a copy never forbids them: the
    /// copy could not be deleted.
    fn guard(&mut self, version: Version, inode: &Inode) -> Result<(), S::Error> {
        let flags = flags::kept(inode);
        if flags & GUARDS == 0 || inode.ino == ROOT {
            return Ok(());
        }
        self.flags(version, inode, flags)
    }

    /// Only files and directories have flags that can be set.
    fn flags(&mut self, version: Version, inode: &Inode, flags: u64) -> Result<(), S::Error> {
        let settable = inode.item.is_regular() || inode.item.is_dir();
        if version == Version::V1 || !settable {
            return Ok(());
        }
        let path = self.path;
        self.command(Command::Fileattr { path, flags })
    }

    fn set_xattr(&mut self, xattr: &Xattr) -> Result<(), S::Error> {
        /// An access control list without entries is stored as nothing, and can only be set as
        /// its version number.
        const EMPTY_ACL: &[u8] = &[2, 0, 0, 0];
        let is_acl = xattr.name.starts_with(b"system.posix_acl_");
        let data = match xattr.value.as_slice() {
            [] if is_acl => EMPTY_ACL,
            value => value,
        };
        let (path, name) = (self.path, &xattr.name);
        self.command(Command::SetXattr { path, name, data })
    }

    fn changed_xattrs(&mut self, before: &Inode, inode: &Inode) -> Result<(), S::Error> {
        // [`Out::changed_flags`] has removed the property for compression.
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

    /// Owner, mode, capabilities.
    fn attributes(
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
        // Data and owner clear set-id bits, and drop capabilities.
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

    fn utimes(&mut self, item: &InodeItem) -> Result<(), S::Error> {
        let time = |time: Time| Timespec {
            sec: time.sec,
            nsec: time.nsec,
        };
        // Nobody can set the change time; the format wants one.
        self.command(Command::Utimes {
            path: self.path,
            atime: time(item.atime),
            mtime: time(item.mtime),
            ctime: time(item.mtime),
            otime: None,
        })
    }

    pub(super) fn data(&mut self, offset: u64, len: u64) -> Result<(), S::Error> {
        let path = self.path;
        self.sink.step(Step::Data { path, offset, len })
    }
}
