//! Contents and attributes, file by file, then those of directories.
//!
//! Order within one file, and why: inode flags first (see [`StepWriter::early_flags`]), then removals of attributes
//! (a write or chown at the receiver drops security.capability by itself, and removing it later would fail),
//! other attributes, data, size, owner, mode (a chown clears set-id bits), capabilities (data and owner drop
//! them), times, flags that forbid changes.

use std::collections::HashSet;

use sendshot_stream::Command;

use super::blocks::Blocks;
use super::clones::Clones;
use super::data::{self, Stream};
use super::flags;
use super::names::{dir_id, is_inheritable};
use super::out::{CAPABILITY, StepWriter, Touched};
use super::pair::FileReader;
use super::pair::Pair;
use super::side_by_side::SideBySide;
use super::step::{Error, Sink};
use crate::format::codec::Glance;
use crate::format::entry::Inode;
use crate::format::entry::{
    BLOCK, CHARACTER, COMPRESS, DIRECTORY, FIFO, NOCOMPRESS, SOCKET, SYMLINK,
};

/// Emits new files and the changes in old ones.
pub(super) fn files<S: Sink>(
    pair: &mut Pair<'_>,
    clones: Clones,
    sink: &mut S,
) -> Result<(), S::Error> {
    let mut both = SideBySide::new(pair)?;
    let mut context = DataContext {
        clones,
        blocks: Blocks::new(pair)?,
    };
    // Unchanged files without checksums are read for their hashes; clones never use them.
    while let Some(inode) = both.next(Glance::is_unsummed)? {
        let before = both.before(&inode).filter(|old| pair.is_same(old, &inode));
        if inode.item.is_dir() {
            continue;
        }
        match (before, &mut both.parent) {
            (Some(before), Some(_)) if pair.is_unchanged(&before, &inode) => {
                context.unchanged(&inode, &mut both.target, sink)?;
            }
            (Some(before), Some(parent)) => {
                changed(
                    pair,
                    &mut context,
                    (&before, parent),
                    (&inode, &mut both.target),
                    sink,
                )?;
            }
            _ => made(pair, &mut context, &inode, &mut both.target, sink)?,
        }
    }
    Ok(())
}

/// What is context of data while the files are walked.
struct DataContext {
    clones: Clones,
    blocks: Blocks,
}

impl DataContext {
    fn stream<'r, 'a>(&'r mut self, pair: &'r Pair<'a>) -> Stream<'r, 'a> {
        Stream {
            pair,
            clones: &mut self.clones,
            blocks: &mut self.blocks,
        }
    }

    /// Notes the data of an unchanged file: other files may share it.
    fn unchanged<S: Sink>(
        &mut self,
        inode: &Inode,
        target: &mut FileReader<'_>,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        while !self.clones.is_idle()
            && let Some(extent) = target.next_extent().map_err(Error::from)?
        {
            self.clones.sent(inode, &extent);
        }
        self.blocks.unchanged(inode, sink)
    }
}

/// Emits a file that the parent does not have.
fn made<S: Sink>(
    pair: &mut Pair<'_>,
    context: &mut DataContext,
    inode: &Inode,
    target: &mut FileReader<'_>,
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
    let mut out = StepWriter { sink, path };
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
        data::emit(context.stream(pair), None, inode, target, &mut out)?;
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

/// Emits a file that both have and that changed.
fn changed<S: Sink>(
    pair: &Pair<'_>,
    context: &mut DataContext,
    (before, parent): (&Inode, &mut FileReader<'_>),
    (inode, target): (&Inode, &mut FileReader<'_>),
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
    let mut out = StepWriter { sink, path: &path };
    out.changed_flags(pair.version, before, inode)?;
    out.changed_xattrs(before, inode)?;
    let mut touched = Touched::No;
    if inode.item.is_regular() {
        touched = data::emit(
            context.stream(pair),
            Some((before, parent)),
            inode,
            target,
            &mut out,
        )?;
    }
    out.attributes(Some(before), inode, touched)?;
    out.utimes(&inode.item)?;
    out.guard(pair.version, inode)
}

/// Emits attributes and times of directories that are new, changed, or had names added or removed.
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
    let mut out = StepWriter { sink, path: &path };
    match before {
        Some(before) => {
            let mut before = before.clone();
            if !unchanged {
                // These were removed at the beginning; removing the property also cleared its flags.
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
