//! Contents and attributes, file by file, then those of directories.
//!
//! Order within one file, and why: removals of attributes first (a write or chown at the
//! receiver drops security.capability by itself, and its removal would then fail), then other
//! attributes, data, size, owner, mode (a chown clears set-id bits), capabilities (data and owner
//! drop them), times.

use sendshot_stream::{Command, Timespec};

use super::names::dir_id;
use super::{Error, Pair, Sink, Step, Version};
use crate::entry::{
    BLOCK, CHARACTER, DIRECTORY, Extent, ExtentKind, FIFO, InodeItem, REGULAR, SOCKET, SYMLINK,
    Time, Xattr,
};
use crate::file::{Inode, Reader};
use crate::rule::Rule;

/// The attribute that data and owner drop.
const CAPABILITY: &[u8] = b"security.capability";

/// FALLOC_FL_PUNCH_HOLE and FALLOC_FL_KEEP_SIZE.
const PUNCH: u32 = 3;

/// Whole pages are what holes are made of.
const PAGE: u64 = 4096;

type Open<'a> = Reader<&'a std::fs::File>;

/// Both files read side by side, by the inodes of N.
struct SideBySide<'a> {
    m: Option<Open<'a>>,
    n: Open<'a>,
    /// The inode of M that is not behind N's.
    old: Option<Inode>,
}

impl<'a> SideBySide<'a> {
    fn new(pair: &Pair<'a>) -> Result<Self, Error> {
        let mut m = pair.m.map(|m| m.reader()).transpose()?;
        Ok(Self {
            old: next(&mut m)?,
            n: pair.n.reader()?,
            m,
        })
    }

    /// The next inode of N; `old` is then M's of the same number, if it has one.
    fn next(&mut self) -> Result<Option<Inode>, Error> {
        let Some(inode) = self.n.next_inode()? else {
            return Ok(None);
        };
        while self.old.as_ref().is_some_and(|old| old.ino < inode.ino) {
            self.old = next(&mut self.m)?;
        }
        Ok(Some(inode))
    }

    fn before(&self, inode: &Inode) -> Option<&Inode> {
        self.old.as_ref().filter(|old| old.ino == inode.ino)
    }
}

fn next(m: &mut Option<Open<'_>>) -> Result<Option<Inode>, Error> {
    match m {
        Some(reader) => Ok(reader.next_inode()?),
        None => Ok(None),
    }
}

/// Emits new files, and what changed in old ones.
pub(super) fn files<S: Sink>(pair: &mut Pair<'_>, sink: &mut S) -> Result<(), S::Error> {
    let mut both = SideBySide::new(pair)?;
    while let Some(inode) = both.next()? {
        if inode.item.is_dir() {
            continue;
        }
        let before = both.before(&inode).filter(|old| pair.is_same(old, &inode));
        match (before.cloned(), &mut both.m) {
            (Some(before), Some(m)) => changed(pair, &before, &inode, m, &mut both.n, sink)?,
            _ => made(pair, &inode, &mut both.n, sink)?,
        }
    }
    Ok(())
}

/// A file that M does not have.
fn made<S: Sink>(
    pair: &mut Pair<'_>,
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
    for link in links {
        out.command(Command::Link {
            path: link,
            existing: path,
        })?;
    }
    for xattr in inode.xattrs.iter().filter(|xattr| xattr.name != CAPABILITY) {
        out.set_xattr(xattr)?;
    }
    if inode.item.kind() == REGULAR {
        let version = pair.version;
        new_data(&inode.item, n, version, &mut out)?;
    }
    out.attributes(None, inode, Touched::Yes)?;
    out.utimes(&inode.item)
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

/// A file of both.
fn changed<S: Sink>(
    pair: &Pair<'_>,
    before: &Inode,
    inode: &Inode,
    m: &mut Open<'_>,
    n: &mut Open<'_>,
    sink: &mut S,
) -> Result<(), S::Error> {
    let Some(rule) = pair.rule else {
        return Ok(());
    };
    if rule.is_unchanged(&before.item, &inode.item) {
        return Ok(());
    }
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
    out.changed_xattrs(before, inode)?;
    let mut touched = Touched::No;
    if inode.item.kind() == REGULAR {
        let mut data = Data {
            rule,
            version: pair.version,
            before: &before.item,
            inode: &inode.item,
            written: 0,
            touched: Touched::No,
            run: None,
        };
        data.emit(m, n, &mut out)?;
        touched = data.touched;
    }
    out.attributes(Some(before), inode, touched)?;
    out.utimes(&inode.item)
}

/// Attributes and times of directories that are new, changed, or had names made or removed.
pub(super) fn directories<S: Sink>(pair: &Pair<'_>, sink: &mut S) -> Result<(), S::Error> {
    let mut both = SideBySide::new(pair)?;
    while let Some(inode) = both.next()? {
        if inode.item.is_dir() {
            directory(pair, both.before(&inode), &inode, sink)?;
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
        Some(before) => out.changed_xattrs(before, inode)?,
        None => {
            for xattr in &inode.xattrs {
                out.set_xattr(xattr)?;
            }
        }
    }
    out.attributes(before, inode, Touched::No)?;
    out.utimes(&inode.item)
}

/// Whether data of a file was written, which drops capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Touched {
    Yes,
    No,
}

/// Where the steps of one inode go.
struct Out<'s, 'p, S> {
    sink: &'s mut S,
    path: &'p [u8],
}

impl<S: Sink> Out<'_, '_, S> {
    fn command(&mut self, command: Command<'_>) -> Result<(), S::Error> {
        self.sink.step(Step::Command(command))
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
        for old in &before.xattrs {
            if !inode.xattrs.iter().any(|new| new.name == old.name) {
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
        // Data and owner clear set-id bits.
        let chmod = chown
            || touched == Touched::Yes
            || before.is_none_or(|before| before.item.mode != item.mode);
        if chmod && item.kind() != SYMLINK {
            let mode = u64::from(item.mode & 0o7777);
            self.command(Command::Chmod { path, mode })?;
        }
        let capability = inode.xattrs.iter().find(|xattr| xattr.name == CAPABILITY);
        let same = |xattr: &Xattr| before.is_some_and(|before| before.xattrs.contains(xattr));
        match capability.filter(|xattr| chmod || !same(xattr)) {
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

    fn data(&mut self, offset: u64, len: u64) -> Result<(), S::Error> {
        let path = self.path;
        self.sink.step(Step::Data { path, offset, len })
    }
}

/// The data of a new file. Every extent is written; at last the size, if a hole ends the file.
fn new_data<S: Sink>(
    item: &InodeItem,
    n: &mut Open<'_>,
    version: Version,
    out: &mut Out<'_, '_, S>,
) -> Result<(), S::Error> {
    let mut run: Option<(u64, u64)> = None;
    let mut written = 0;
    while let Some(extent) = n.next_extent().map_err(Error::from)? {
        let end = extent.end().min(item.size);
        if extent.kind == ExtentKind::Prealloc || extent.offset >= end {
            continue;
        }
        if is_encoded(&extent, version) {
            flush(&mut run, out)?;
            let (path, len) = (out.path, end - extent.offset);
            out.sink.step(Step::Encoded { path, extent, len })?;
        } else {
            extend(&mut run, extent.offset, end, out)?;
        }
        written = end;
    }
    flush(&mut run, out)?;
    if written < item.size {
        let (path, size) = (out.path, item.size);
        out.command(Command::Truncate { path, size })?;
    }
    Ok(())
}

/// Compressed extents go as they are, if the stream can say it.
fn is_encoded(extent: &Extent, version: Version) -> bool {
    version == Version::V2 && extent.kind == ExtentKind::Regular && extent.compression != 0
}

/// Adds a range to a run of plain data; one that does not follow it ends the run.
fn extend<S: Sink>(
    run: &mut Option<(u64, u64)>,
    offset: u64,
    end: u64,
    out: &mut Out<'_, '_, S>,
) -> Result<(), S::Error> {
    match run {
        Some((_, last)) if *last == offset => *last = end,
        _ => {
            flush(run, out)?;
            *run = Some((offset, end));
        }
    }
    Ok(())
}

fn flush<S: Sink>(run: &mut Option<(u64, u64)>, out: &mut Out<'_, '_, S>) -> Result<(), S::Error> {
    match run.take() {
        Some((offset, end)) => out.data(offset, end - offset),
        None => Ok(()),
    }
}

/// The data of a changed file: two sorted lists of extents, walked side by side.
struct Data<'r> {
    rule: Rule,
    version: Version,
    before: &'r InodeItem,
    inode: &'r InodeItem,
    /// Behind the last byte that was written.
    written: u64,
    touched: Touched,
    run: Option<(u64, u64)>,
}

/// M's extents, of which the one that reaches furthest back is held.
struct Parent<'o, 'f> {
    reader: &'o mut Open<'f>,
    held: Option<Extent>,
}

impl Parent<'_, '_> {
    fn advance(&mut self) -> Result<(), Error> {
        self.held = self.reader.next_extent()?;
        Ok(())
    }
}

impl Data<'_> {
    fn emit<S: Sink>(
        &mut self,
        m: &mut Open<'_>,
        n: &mut Open<'_>,
        out: &mut Out<'_, '_, S>,
    ) -> Result<(), S::Error> {
        let size = self.inode.size;
        if size < self.before.size {
            self.touched = Touched::Yes;
            let path = out.path;
            out.command(Command::Truncate { path, size })?;
        }
        let mut parent = Parent {
            reader: m,
            held: None,
        };
        parent.advance()?;
        let mut at = 0;
        while let Some(extent) = n.next_extent().map_err(Error::from)? {
            let end = extent.end().min(size);
            if extent.offset >= end {
                continue;
            }
            self.hole(at, extent.offset, &mut parent, out)?;
            match extent.kind {
                ExtentKind::Prealloc => self.hole(extent.offset, end, &mut parent, out)?,
                ExtentKind::Inline => self.write(extent.offset, end, out)?,
                ExtentKind::Regular => self.regular(&extent, end, &mut parent, out)?,
            }
            at = end;
        }
        self.hole(at, size, &mut parent, out)?;
        flush(&mut self.run, out)?;
        if self.written < size && size > self.before.size {
            self.touched = Touched::Yes;
            let path = out.path;
            out.command(Command::Truncate { path, size })?;
        }
        Ok(())
    }

    /// Where M's bytes count: not beyond its end, whatever its last block holds there.
    fn old_end(&self, extent: &Extent) -> u64 {
        extent.end().min(self.before.size)
    }

    fn regular<S: Sink>(
        &mut self,
        extent: &Extent,
        end: u64,
        parent: &mut Parent<'_, '_>,
        out: &mut Out<'_, '_, S>,
    ) -> Result<(), S::Error> {
        let mut unchanged = Vec::new();
        let mut at = extent.offset;
        while let Some(old) = parent.held {
            let old_end = self.old_end(&old);
            let (from, to) = (old.offset.max(at), old_end.min(end));
            if from < to && self.rule.is_same_data(self.inode, &old, extent) {
                unchanged.push((from, to));
                at = to;
            }
            if old.end() > end {
                break; // it reaches into what follows
            }
            parent.advance()?;
        }
        if unchanged.is_empty() && is_encoded(extent, self.version) {
            flush(&mut self.run, out)?;
            self.wrote(end);
            let (path, len) = (out.path, end - extent.offset);
            let extent = *extent;
            return out.sink.step(Step::Encoded { path, extent, len });
        }
        let mut at = extent.offset;
        for (from, to) in unchanged {
            self.write(at, from, out)?;
            at = to;
        }
        self.write(at, end, out)
    }

    fn write<S: Sink>(
        &mut self,
        offset: u64,
        end: u64,
        out: &mut Out<'_, '_, S>,
    ) -> Result<(), S::Error> {
        if offset >= end {
            return Ok(());
        }
        self.wrote(end);
        extend(&mut self.run, offset, end, out)
    }

    fn wrote(&mut self, end: u64) {
        self.touched = Touched::Yes;
        self.written = self.written.max(end);
    }

    /// A range that reads as zeros: what M had there goes.
    fn hole<S: Sink>(
        &mut self,
        offset: u64,
        end: u64,
        parent: &mut Parent<'_, '_>,
        out: &mut Out<'_, '_, S>,
    ) -> Result<(), S::Error> {
        let mut at = offset;
        let mut holes: Vec<(u64, u64)> = Vec::new();
        while at < end {
            let Some(old) = parent.held else { break };
            if old.offset >= end {
                break;
            }
            let (from, to) = (old.offset.max(at), self.old_end(&old).min(end));
            if from < to && old.kind != ExtentKind::Prealloc {
                match holes.last_mut() {
                    Some((_, last)) if *last == from => *last = to,
                    _ => holes.push((from, to)),
                }
                at = to;
            }
            if old.end() > end {
                break;
            }
            parent.advance()?;
        }
        for (from, to) in holes {
            flush(&mut self.run, out)?;
            self.touched = Touched::Yes;
            self.clear(from, to, out)?;
        }
        Ok(())
    }

    /// Whole pages are punched if the stream can say it; else the snapshot's zeros are sent.
    fn clear<S: Sink>(
        &mut self,
        from: u64,
        to: u64,
        out: &mut Out<'_, '_, S>,
    ) -> Result<(), S::Error> {
        let page_end = to.next_multiple_of(PAGE);
        if self.version == Version::V2 && from.is_multiple_of(PAGE) {
            let path = out.path;
            return out.command(Command::Fallocate {
                path,
                mode: PUNCH,
                offset: from,
                len: page_end - from,
            });
        }
        self.written = self.written.max(to);
        out.data(from, to - from)
    }
}
