//! Capture from the sendshot before: only leaves that changed since are read, everything else is
//! taken over.
//!
//! Needs lineage: then every change since M was taken has put its leaf into a later
//! transaction, and a tree search can skip the others. What it finds:
//!
//! - Every inode that has *any* item in a younger leaf is read again, whole. So a balance, which
//!   writes leaves anew, makes all that it touches be read again, and the addresses that are taken
//!   over belong to leaves that have not changed since M: their extents were referenced all
//!   the time, and what M knew of them is still true.
//! - Deletions leave no trace in such a search. But who loses a name changes the directory that
//!   held it; so inodes of M that are named in a changed or deleted directory, and were not read
//!   again, are looked up one by one.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::AsFd;

use sendshot_sys::search::{self, Key, Lookup, Range};
use sendshot_sys::subvolume;

use crate::capture::{LAST_INODE, Scan, capture, head};
use crate::entry::{Entry, Head, InodeItem, Name, ROOT};
use crate::file::{self, Counts, Inode, Sendshot, Writer};
use crate::rule::Kinship;

/// How a sendshot was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Everything was read: there is no lineage.
    Full,
    /// So many inodes were read again.
    Changes(u64),
}

/// Why there is no sendshot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The snapshot cannot be read, or the sendshot not be written.
    #[error("capture the snapshot's metadata")]
    Io(#[from] io::Error),
    /// The sendshot before cannot be read.
    #[error(transparent)]
    Before(#[from] file::Error),
}

/// Writes the sendshot of a snapshot, as [`capture()`] does, with what `m` knows already.
///
/// # Errors
/// See [`Error`].
pub fn recapture<W: Write>(
    m: &Sendshot,
    snapshot: impl AsFd,
    out: W,
) -> Result<(W, Head, Counts, Effort), Error> {
    let info = subvolume::info(&snapshot)?;
    let head = head(&snapshot, &info)?;
    if Kinship::of(m.head(), &head) != Kinship::Lineage {
        let (out, head, counts) = capture(snapshot, out)?;
        return Ok((out, head, counts, Effort::Full));
    }
    let again = changed(&snapshot, m.head().otransid)?;
    let mut gone = Gone::new(m, &snapshot, &again)?;
    let mut scan = Scan::new(snapshot.as_fd(), Writer::new(out, &head)?);
    let mut reader = m.reader()?;
    let mut next = again.iter().copied().peekable();
    while let Some(inode) = reader.next_inode()? {
        while let Some(ino) = next.next_if(|ino| *ino <= inode.ino) {
            scan.inodes(ino, ino)?;
        }
        if again.binary_search(&inode.ino).is_ok() || gone.is_gone(&inode)? {
            continue;
        }
        for entry in entries(inode) {
            scan.writer.entry(&entry)?;
        }
        while let Some(extent) = reader.next_extent()? {
            scan.writer.entry(&Entry::Extent(extent))?;
        }
    }
    for ino in next {
        scan.inodes(ino, ino)?;
    }
    let (out, counts) = scan.writer.finish()?;
    Ok((out, head, counts, Effort::Changes(again.len() as u64)))
}

fn entries(inode: Inode) -> impl Iterator<Item = Entry> {
    let names = inode.names.into_iter().map(Entry::Name);
    let xattrs = inode.xattrs.into_iter().map(Entry::Xattr);
    let target = inode.target.map(Entry::Target);
    std::iter::once(Entry::Inode(inode.ino, inode.item))
        .chain(names)
        .chain(xattrs)
        .chain(target)
}

/// Numbers of the inodes that have an item in a leaf younger than `since`, sorted.
fn changed(snapshot: impl AsFd, since: u64) -> io::Result<Vec<u64>> {
    let range = Range {
        tree: 0,
        min: Key {
            objectid: ROOT,
            kind: 0,
            offset: 0,
        },
        max: Key {
            objectid: LAST_INODE,
            kind: u8::MAX,
            offset: u64::MAX,
        },
        min_transid: since + 1,
    };
    let mut changed: Vec<u64> = Vec::new();
    search::items(snapshot, range, |item| {
        if changed.last() != Some(&item.key.objectid) {
            changed.push(item.key.objectid);
        }
        Ok(())
    })?;
    Ok(changed)
}

/// Finds out which inodes of M are gone.
struct Gone<'a, F> {
    snapshot: &'a F,
    again: &'a [u64],
    lookup: Lookup,
    /// M's directories: the directory that names them, and their generation.
    dirs: HashMap<u64, (u64, u64)>,
    /// Directories about which it is known already whether they are gone.
    known: HashMap<u64, bool>,
}

impl<'a, F: AsFd> Gone<'a, F> {
    fn new(m: &Sendshot, snapshot: &'a F, again: &'a [u64]) -> Result<Self, Error> {
        let mut dirs = HashMap::new();
        let mut reader = m.reader()?;
        while let Some(inode) = reader.next_inode()? {
            if inode.item.is_dir() {
                let parent = inode.names.first().map_or(ROOT, |name| name.parent);
                dirs.insert(inode.ino, (parent, inode.item.generation));
            }
        }
        Ok(Self {
            snapshot,
            again,
            lookup: Lookup::new(),
            dirs,
            known: HashMap::new(),
        })
    }

    /// Whether an inode that was not read again is gone.
    fn is_gone(&mut self, inode: &Inode) -> io::Result<bool> {
        let mut doubtful = inode.ino != ROOT && inode.names.is_empty();
        for Name { parent, .. } in &inode.names {
            doubtful |= self.was_read_again(*parent) || self.is_dir_gone(*parent)?;
        }
        Ok(doubtful && !self.exists(inode.ino, &inode.item)?)
    }

    fn was_read_again(&self, ino: u64) -> bool {
        self.again.binary_search(&ino).is_ok()
    }

    /// Walks up until something is known, then looks downwards at what is in doubt.
    fn is_dir_gone(&mut self, ino: u64) -> io::Result<bool> {
        let mut chain = Vec::new();
        let mut at = ino;
        let mut gone = loop {
            if let Some(known) = self.known.get(&at) {
                break *known;
            }
            // One that was read again is there, or its number would not have been found.
            if at == ROOT || chain.len() > self.dirs.len() {
                break false;
            }
            chain.push(at);
            match self.dirs.get(&at) {
                Some((parent, _)) => at = *parent,
                None => break true,
            }
        };
        while let Some(dir) = chain.pop() {
            let (parent, generation) = self.dirs.get(&dir).copied().unwrap_or((ROOT, 0));
            let doubtful = gone || self.was_read_again(parent);
            let item = InodeItem {
                generation,
                ..InodeItem::default()
            };
            gone = doubtful && !self.exists(dir, &item)?;
            self.known.insert(dir, gone);
        }
        Ok(gone)
    }

    fn exists(&mut self, ino: u64, item: &InodeItem) -> io::Result<bool> {
        let key = Key {
            objectid: ino,
            kind: search::INODE_ITEM,
            offset: 0,
        };
        let range = Range {
            tree: 0,
            min: key,
            max: key,
            min_transid: 0,
        };
        let mut same = false;
        self.lookup.first(self.snapshot, range, |found| {
            let generation = found.data.get(..8).and_then(|bytes| bytes.try_into().ok());
            same = generation.map(u64::from_le_bytes) == Some(item.generation);
            Ok(())
        })?;
        Ok(same)
    }
}
