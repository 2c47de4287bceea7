//! Capture from the previous sendshot: reads only the leaves that changed since, and copies the rest from it.
//!
//! It needs lineage: then every change since the previous sendshot has put its leaf into a later transaction,
//! and a tree search can skip the others. What it finds:
//!
//! - Every inode with *any* item in a younger leaf is read again, whole. A balance rewrites leaves, so every
//!   inode it touches is read again. The addresses that are copied belong to unchanged leaves: their extents
//!   were referenced all the time, and what the previous sendshot says of them is still true.
//! - Deletions leave no trace in such a search. But an inode that loses a name changes the directory that
//!   held it. So inodes that the previous sendshot names in a changed or deleted directory, and that were not
//!   read again, are looked up one by one.
//!
//! An inode number is no identity: after a mount the kernel gives the numbers of the last deleted inodes to
//! new ones. An inode of the previous sendshot still exists only if its generation matches, too.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;

use sendshot_sys::search::{self, Key, Lookup, Range, Search};
use sendshot_sys::subvolume;

use crate::capture::frozen::Frozen;
use crate::capture::{self, LAST_INODE, Scan, capture, head};
use crate::diff::rule::Kinship;
use crate::format::entry::{DIRECTORY, Head, ROOT, TYPE_MASK, WireNumber};
use crate::format::error;
use crate::format::file::{Copying, Sendshot};
use crate::format::layout::Counts;
use crate::format::read_from::ReadFrom;
use crate::format::reader::Reader;
use crate::format::writer::Writer;

/// If more than one inode in so many has to be read again, everything is: changes that are spread touch nearly all leaves.
const WHOLE_SHARE: u64 = 4;
/// So many are read again in any case.
const FEW: u64 = 10_000;

/// How a sendshot was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Everything was read, because there is no lineage.
    Full,
    /// Number of inodes that were read again; all if they were many.
    Changes(u64),
}

/// Reason why a snapshot was not captured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The snapshot cannot be captured.
    #[error(transparent)]
    Capture(#[from] capture::Error),
    /// The previous sendshot cannot be read.
    #[error(transparent)]
    Before(#[from] error::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Capture(error.into())
    }
}

impl From<Copying> for Error {
    fn from(error: Copying) -> Self {
        match error {
            Copying::Read(error) => error.into(),
            Copying::Write(error) => error.into(),
        }
    }
}

/// Writes the sendshot of a snapshot, as [`capture()`] does, reusing the previous sendshot.
///
/// # Errors
/// See [`Error`].
pub fn recapture<W: Write>(
    parent: &Sendshot,
    snapshot: Frozen<'_>,
    number: WireNumber,
    out: W,
) -> Result<(W, Head, Counts, Effort), Error> {
    let recaptured = || {
        let (head, again) = again(parent, snapshot, number)?;
        write(parent, snapshot, (head, number), &again, out)
    };
    recaptured().map_err(|e| about(snapshot, e))
}

/// Writes the sendshot of a snapshot into a new file, like [`recapture()`]. If nothing has changed, the file shares the data of
/// the previous sendshot's where the file system can do that.
///
/// # Errors
/// See [`Error`].
pub(super) fn recapture_into(
    parent: &Sendshot,
    snapshot: Frozen<'_>,
    number: WireNumber,
    file: File,
) -> Result<(File, Effort), Error> {
    let recaptured = || {
        let (head, again) = again(parent, snapshot, number)?;
        if let Again::Nothing = again
            && parent.share(&head, &file)?
        {
            return Ok((file, Effort::Changes(0)));
        }
        let out = BufWriter::new(file);
        let (out, _, _, effort) = write(parent, snapshot, (head, number), &again, out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok((file, effort))
    };
    recaptured().map_err(|e| about(snapshot, e))
}

/// What of a snapshot has to be read.
enum Again {
    /// Everything, because there is no lineage.
    Unrelated,
    /// Everything, because much has changed.
    All,
    /// What is in leaves that have changed.
    Some(Changed),
    Nothing,
}

fn again(
    parent: &Sendshot,
    snapshot: Frozen<'_>,
    number: WireNumber,
) -> Result<(Head, Again), Error> {
    let info = subvolume::info(snapshot)?;
    let head = head(snapshot, &info, number)?;
    if Kinship::of(parent.head(), &head) != Kinship::Lineage {
        return Ok((head, Again::Unrelated));
    }
    let most = (parent.counts().inodes / WHOLE_SHARE).max(FEW);
    let again = match Changed::find(snapshot, parent.head().otransid, most)? {
        None => Again::All,
        Some(changed) if changed.again.is_empty() => Again::Nothing,
        Some(changed) => Again::Some(changed),
    };
    Ok((head, again))
}

fn write<W: Write>(
    parent: &Sendshot,
    snapshot: Frozen<'_>,
    (head, number): (Head, WireNumber),
    again: &Again,
    out: W,
) -> Result<(W, Head, Counts, Effort), Error> {
    let changed = match again {
        Again::Unrelated => {
            let (out, head, counts) = capture(snapshot, number, out)?;
            return Ok((out, head, counts, Effort::Full));
        }
        Again::All => {
            let (out, head, counts) = capture(snapshot, number, out)?;
            return Ok((out, head, counts, Effort::Changes(counts.inodes)));
        }
        Again::Nothing => {
            let (out, counts) = parent.copy(&head, out)?;
            return Ok((out, head, counts, Effort::Changes(0)));
        }
        Again::Some(changed) => changed,
    };
    let mut gone = Gone::new(parent, &snapshot, changed)?;
    let mut scan = Scan::new(snapshot.as_fd(), Writer::new(out, &head)?)?;
    let (mut search, mut reader) = (Search::new(), parent.reader()?);
    let mut next = changed.again.iter().copied().peekable();
    // Adjacent inodes are read with one search.
    let mut run: Option<(u64, u64)> = None;
    while let Some(old) = reader.glance()? {
        let mut is_read_again = false;
        while let Some(ino) = next.next_if(|ino| *ino <= old.ino) {
            run = Some((run.map_or(ino, |(first, _)| first), ino));
            is_read_again = ino == old.ino;
        }
        if is_read_again || gone.is_gone(old.ino, &mut reader)? {
            reader.skip_inode()?;
            continue;
        }
        if let Some((first, last)) = run.take() {
            scan.inodes(&mut search, first, last)?;
        }
        reader.copy(&mut scan.writer)??;
    }
    for ino in next {
        run = Some((run.map_or(ino, |(first, _)| first), ino));
    }
    if let Some((first, last)) = run {
        scan.inodes(&mut search, first, last)?;
    }
    let (out, counts) = scan.finish()?;
    let read = changed.again.len() as u64;
    Ok((out, head, counts, Effort::Changes(read)))
}

/// Names the snapshot in an error if it has been deleted meanwhile.
fn about(snapshot: Frozen<'_>, error: Error) -> Error {
    match error {
        Error::Capture(e) => e.or_deleted(snapshot).into(),
        Error::Before(e) => e.into(),
    }
}

/// Result of a search that skips every leaf not younger than the previous sendshot.
struct Changed {
    /// Numbers of the inodes that have an item in a younger leaf, sorted.
    again: Vec<u64>,
    /// Numbers and generations of the inodes whose own item is in a younger leaf, sorted. An inode of the
    /// previous sendshot with the number and another generation is gone.
    items: Vec<(u64, u64)>,
    /// Numbers of the directories that changed themselves, sorted: among them every directory that lost a
    /// name.
    dirs: Vec<u64>,
}

impl Changed {
    /// Searches; `None` if more than `most` inodes have to be read again.
    fn find(snapshot: impl AsFd, since: u64, most: u64) -> io::Result<Option<Self>> {
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
        let (mut again, mut items, mut dirs) = (Vec::new(), Vec::new(), Vec::new());
        let mut is_too_many = false;
        let searched = search::items(snapshot, range, |item| {
            let ino = item.key.objectid;
            if again.len() as u64 > most {
                is_too_many = true;
                return Err(io::Error::other("too many inodes to read again"));
            }
            if again.last() != Some(&ino) {
                again.push(ino);
            }
            if item.key.kind == search::INODE_ITEM {
                items.extend(generation(item.data).map(|generation| (ino, generation)));
                if is_changed_dir(item.data, since) {
                    dirs.push(ino);
                }
            }
            Ok(())
        });
        if is_too_many {
            return Ok(None);
        }
        searched?;
        Ok(Some(Self { again, items, dirs }))
    }

    /// What the search says about an inode of the previous sendshot.
    fn fate(&self, ino: u64, generation: u64) -> Option<Fate> {
        match self.items.binary_search_by_key(&ino, |item| item.0) {
            Ok(at) if self.items[at].1 == generation => Some(Fate::There),
            Ok(_) => Some(Fate::Gone),
            // Its own item is in a leaf that the previous sendshot covers.
            Err(_) => self.again.binary_search(&ino).ok().map(|_| Fate::There),
        }
    }

    fn has_changed(&self, ino: u64) -> bool {
        self.dirs.binary_search(&ino).is_ok()
    }
}

/// What became of an inode of the previous sendshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It still exists.
    There,
    /// It was deleted, whether or not its number was reused.
    Gone,
}

/// Parses the transaction in which an inode was created from its item.
fn generation(item: &[u8]) -> Option<u64> {
    let bytes = item.get(..8).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u64::from_le_bytes)
}

/// Whether an inode item is that of a directory that changed after `since`.
fn is_changed_dir(item: &[u8], since: u64) -> bool {
    let transid = item.get(8..16).and_then(|bytes| bytes.try_into().ok());
    let mode = item.get(52..56).and_then(|bytes| bytes.try_into().ok());
    let kind = mode.map(|mode| u32::from_le_bytes(mode) & TYPE_MASK);
    kind == Some(DIRECTORY) && transid.map(u64::from_le_bytes) > Some(since)
}

/// Finds the deleted inodes of the previous sendshot.
struct Gone<'a, F> {
    snapshot: &'a F,
    changed: &'a Changed,
    search: Search,
    lookup: Lookup,
    /// Directories of the previous sendshot: their parent directory and their generation.
    dirs: HashMap<u64, (u64, u64)>,
    /// Directories already decided: whether they are gone.
    known: HashMap<u64, bool>,
    /// Inode numbers that the changed directories name now, sorted.
    children: HashMap<u64, Vec<u64>>,
    /// Buffer kept to reuse its memory.
    parents: Vec<u64>,
}

impl<'a, F: AsFd> Gone<'a, F> {
    fn new(parent: &Sendshot, snapshot: &'a F, changed: &'a Changed) -> Result<Self, Error> {
        let mut dirs = HashMap::new();
        let mut reader = parent.reader()?;
        while !changed.dirs.is_empty()
            && let Some(old) = reader.glance()?
        {
            if old.is_dir() {
                let mut parent = None;
                let generation = reader.parents_ahead(|dir| parent = Some(dir))?;
                dirs.insert(old.ino, (parent.unwrap_or(ROOT), generation));
            }
            reader.skip_inode()?;
        }
        Ok(Self {
            snapshot,
            changed,
            search: Search::new(),
            lookup: Lookup::new(),
            dirs,
            known: HashMap::new(),
            children: HashMap::new(),
            parents: Vec::new(),
        })
    }

    /// Whether the next inode of the previous sendshot, which was not read again, is gone.
    fn is_gone(&mut self, ino: u64, parent: &mut Reader<ReadFrom<&File>>) -> Result<bool, Error> {
        if ino == ROOT || self.changed.dirs.is_empty() {
            return Ok(false);
        }
        let mut parents = std::mem::take(&mut self.parents);
        parents.clear();
        let generation = parent.parents_ahead(|dir| parents.push(dir))?;
        let mut is_named = false;
        for parent in &parents {
            is_named = is_named || (!self.is_dir_gone(*parent)? && self.names(*parent, ino)?);
        }
        self.parents = parents;
        Ok(!is_named && !self.exists(ino, generation)?)
    }

    /// Whether an existing directory still names an inode that it named in the previous sendshot.
    fn names(&mut self, dir: u64, ino: u64) -> io::Result<bool> {
        if !self.changed.has_changed(dir) {
            return Ok(true);
        }
        if let Some(children) = self.children.get(&dir) {
            return Ok(children.binary_search(&ino).is_ok());
        }
        let range = Range::of_object(0, dir, search::DIR_INDEX);
        let mut children = Vec::new();
        self.search.items(self.snapshot, range, |item| {
            // Nested subvolumes have numbers of another kind.
            if item.data.get(8) == Some(&search::INODE_ITEM) {
                let bytes = item.data.get(..8).and_then(|bytes| bytes.try_into().ok());
                children.extend(bytes.map(u64::from_le_bytes));
            }
            Ok(())
        })?;
        children.sort_unstable();
        let named = children.binary_search(&ino).is_ok();
        self.children.insert(dir, children);
        Ok(named)
    }

    /// Walks up to a directory that is decided, then decides those below it on the way back.
    fn is_dir_gone(&mut self, ino: u64) -> io::Result<bool> {
        let mut chain = Vec::new();
        let mut at = ino;
        let mut gone = loop {
            if let Some(known) = self.known.get(&at) {
                break *known;
            }
            if at == ROOT || chain.len() > self.dirs.len() {
                break false;
            }
            let Some((parent, generation)) = self.dirs.get(&at).copied() else {
                break true;
            };
            if let Some(fate) = self.changed.fate(at, generation) {
                break fate == Fate::Gone;
            }
            chain.push(at);
            at = parent;
        };
        while let Some(dir) = chain.pop() {
            let (parent, generation) = self.dirs.get(&dir).copied().unwrap_or((ROOT, 0));
            let is_named = !gone && self.names(parent, dir)?;
            gone = !is_named && !self.exists(dir, generation)?;
            self.known.insert(dir, gone);
        }
        Ok(gone)
    }

    fn exists(&mut self, ino: u64, generation: u64) -> io::Result<bool> {
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
            same = self::generation(found.data) == Some(generation);
            Ok(())
        })?;
        Ok(same)
    }
}
