//! Reduces a sendshot to some paths: a stream of the result brings only these.
//!
//! The result has the root directory, the directories on the way to each path without their other entries, and
//! everything at and beneath each path. Entries are the same as in the source, except that names outside are
//! dropped: a hard link that leaves the subtree becomes a file of its own. The source is read twice from front
//! to back. Memory holds its directories, as in a diff, and the paths.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use sendshot_stream::dump::escaped;
use sendshot_sys::durable;
use uuid::Uuid;

use crate::format::entry::{Entry, Head, Inode, ROOT};
use crate::format::error;
use crate::format::file::Sendshot;
use crate::format::hashes;
use crate::format::read_from::ReadFrom;
use crate::format::reader::Reader;
use crate::format::writer::Writer;

/// Reason why a sendshot cannot be reduced to paths.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list of paths is empty.
    #[error("no path is given")]
    NoPaths,
    /// A path is not valid.
    #[error("{}: {fault}", escaped(path))]
    Path {
        /// The path.
        path: Vec<u8>,
        /// Reason why it is not valid.
        fault: PathFault,
    },
    /// The snapshot has no entry with this path.
    #[error("{} does not exist in the snapshot", escaped(.0))]
    Missing(Vec<u8>),
    /// A path leads through an entry that is not a directory. Symbolic links are not followed.
    #[error(
        "{} is not a directory, so {} does not exist in the snapshot",
        escaped(through),
        escaped(path)
    )]
    NotADirectory {
        /// The path.
        path: Vec<u8>,
        /// The beginning of it that is not a directory.
        through: Vec<u8>,
    },
    /// The source or the result cannot be read.
    #[error(transparent)]
    File(#[from] error::Error),
    /// The result cannot be written.
    #[error("cannot write the sendshot of the paths")]
    Write(#[from] io::Error),
}

/// Reason why a path is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// It is empty: the root cannot be chosen, because a stream of the whole snapshot brings it.
    #[error("the path is empty")]
    Empty,
    /// It begins with a slash.
    #[error("the path must be relative to the volume")]
    Absolute,
    /// It has two slashes in a row, or one at its end.
    #[error("a component of the path is empty")]
    EmptyComponent,
    /// A component is `.` or `..`.
    #[error("a component of the path is \".\" or \"..\"")]
    Dots,
}

/// Checks a path as [`subtree`] does, without looking for it.
///
/// # Errors
/// See [`PathFault`].
pub fn check_path(path: &[u8]) -> Result<(), PathFault> {
    match path.first() {
        None => return Err(PathFault::Empty),
        Some(b'/') => return Err(PathFault::Absolute),
        Some(_) => {}
    }
    components(path).try_for_each(|component| match component {
        b"" => Err(PathFault::EmptyComponent),
        b"." | b".." => Err(PathFault::Dots),
        _ => Ok(()),
    })
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
}

/// Writes the part of `source` at and beneath some paths as the sendshot `name` of `dir`, durably, and opens it.
///
/// Paths are relative to the root of the snapshot, and may overlap. A path that is a symbolic link stands for
/// the link. The result has a wire identity of its own, derived from that of the source and from the paths: a
/// copy that is made of it must never be taken for a copy of the whole snapshot.
///
/// # Errors
/// See [`Error`]; an error leaves no file of the result.
pub fn subtree(
    source: &Sendshot,
    paths: &[Vec<u8>],
    dir: impl AsFd,
    name: &OsStr,
) -> Result<Sendshot, Error> {
    if paths.is_empty() {
        return Err(Error::NoPaths);
    }
    for path in paths {
        check_path(path).map_err(|fault| Error::Path {
            path: path.clone(),
            fault,
        })?;
    }
    let directories = Directories::read(source, paths)?;
    let mut selection = Selection::new(directories, paths);
    // Hashes of another state under this name must not outlive that state.
    durable::remove_at(&dir, &hashes::companion(name))?;
    durable::stream_at(&dir, name, durable::PRIVATE, |file| {
        let mut writer = Writer::new(BufWriter::new(file), &part_of(source.head(), paths))?;
        selection.copy(&mut source.reader()?, &mut writer)?;
        let (out, _) = writer.finish()?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok::<_, Error>((file, ()))
    })?;
    let opened = open(&dir, name);
    if opened.is_err() {
        durable::remove_at(&dir, name)?;
    }
    opened
}

fn open(dir: impl AsFd, name: &OsStr) -> Result<Sendshot, Error> {
    let file = durable::open_file(dir, name)?.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
    Ok(Sendshot::from_file(file, &PathBuf::from(name))?)
}

/// Returns the head of a part of a snapshot.
fn part_of(whole: &Head, paths: &[Vec<u8>]) -> Head {
    let mut sorted: Vec<&Vec<u8>> = paths.iter().collect();
    sorted.sort();
    sorted.dedup();
    let mut hasher = blake3::Hasher::new_derive_key("sendshot: identity of a part of a snapshot");
    hasher.update(whole.wire_uuid.as_bytes());
    hasher.update(&whole.wire_ctransid.to_le_bytes());
    for path in sorted {
        hasher.update(&(path.len() as u64).to_le_bytes());
        hasher.update(path);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    Head {
        wire_uuid: uuid_of(bytes),
        ..whole.clone()
    }
}

fn uuid_of(bytes: [u8; 16]) -> Uuid {
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// The directories of a sendshot.
struct Directories {
    /// Number of each directory's own directory.
    parents: HashMap<u64, u64>,
    /// The directories that have a component of a path as their name.
    named: HashMap<u64, HashMap<Vec<u8>, u64>>,
}

impl Directories {
    fn read(source: &Sendshot, paths: &[Vec<u8>]) -> Result<Self, Error> {
        let wanted: HashSet<&[u8]> = paths.iter().flat_map(|path| components(path)).collect();
        let mut directories = Self {
            parents: HashMap::new(),
            named: HashMap::new(),
        };
        let mut reader = source.reader()?;
        while let Some(glance) = reader.glance()? {
            if glance.is_dir() {
                reader.peek_names(|parent, name| {
                    directories.parents.insert(glance.ino, parent);
                    if wanted.contains(name) {
                        let names = directories.named.entry(parent).or_default();
                        names.insert(name.to_vec(), glance.ino);
                    }
                })?;
            }
            reader.skip_inode()?;
        }
        Ok(directories)
    }

    fn child(&self, dir: u64, name: &[u8]) -> Option<u64> {
        self.named.get(&dir)?.get(name).copied()
    }
}

/// An entry that is not a directory, if it exists, and that a path names.
struct Sought {
    /// The path that names it.
    path: Vec<u8>,
    /// The length of the part of the path that ends with it.
    len: usize,
    found: bool,
}

impl Sought {
    /// Whether the path leads through it.
    fn is_through(&self) -> bool {
        self.len < self.path.len()
    }
}

/// What is kept of a sendshot.
struct Selection {
    parents: HashMap<u64, u64>,
    /// Directories on the way to a path.
    bare: HashSet<u64>,
    /// Directories of which it is known whether they are at or beneath a path.
    within: HashMap<u64, bool>,
    /// Other entries to find, by directory and name.
    sought: HashMap<u64, HashMap<Vec<u8>, Sought>>,
}

impl Selection {
    fn new(directories: Directories, paths: &[Vec<u8>]) -> Self {
        let mut selection = Self {
            parents: HashMap::new(),
            bare: HashSet::from([ROOT]),
            within: HashMap::new(),
            sought: HashMap::new(),
        };
        for path in paths {
            selection.add(&directories, path);
        }
        selection.parents = directories.parents;
        selection
    }

    fn add(&mut self, directories: &Directories, path: &[u8]) {
        let (mut at, mut len) = (ROOT, 0);
        for component in components(path) {
            self.bare.insert(at);
            len += component.len() + usize::from(len > 0);
            let Some(child) = directories.child(at, component) else {
                let sought = self.sought.entry(at).or_default();
                let sought = sought.entry(component.to_vec()).or_insert_with(|| Sought {
                    path: path.to_vec(),
                    len,
                    found: false,
                });
                // A path through the entry is wrong even if another path ends with it.
                if len < path.len() {
                    sought.path = path.to_vec();
                }
                return;
            };
            at = child;
        }
        self.within.insert(at, true);
    }

    /// Copies what is kept from `source` to `result`.
    fn copy<W: Write>(
        &mut self,
        source: &mut Reader<ReadFrom<&File>>,
        result: &mut Writer<W>,
    ) -> Result<(), Error> {
        while let Some(glance) = source.glance()? {
            if glance.is_dir() {
                match self.bare.contains(&glance.ino) || self.is_within(glance.ino) {
                    true => source.copy(result)??,
                    false => source.skip_inode()?,
                }
                continue;
            }
            let (mut kept, mut dropped) = (0_u64, 0_u64);
            let all = source.peek_names(|parent, name| match self.keeps(parent, name) {
                true => kept += 1,
                false => dropped += 1,
            })?;
            match (kept, dropped) {
                (0, _) if all => source.skip_inode()?,
                (_, 0) if all => source.copy(result)??,
                _ => self.copy_in_part(source, result)?,
            }
        }
        self.check()
    }

    /// Copies the next inode with those of its names that are kept; skips it if it has none.
    fn copy_in_part<W: Write>(
        &mut self,
        source: &mut Reader<ReadFrom<&File>>,
        result: &mut Writer<W>,
    ) -> Result<(), Error> {
        let Some(inode) = source.next_inode()? else {
            return Ok(());
        };
        let Inode {
            ino,
            item,
            mut names,
            xattrs,
            target,
        } = inode;
        names.retain(|name| self.keeps(name.parent, &name.name));
        if names.is_empty() {
            return Ok(());
        }
        result.entry(&Entry::Inode(ino, item))?;
        let names = names.into_iter().map(Entry::Name);
        let xattrs = xattrs.into_iter().map(Entry::Xattr);
        for entry in names.chain(xattrs).chain(target.map(Entry::Target)) {
            result.entry(&entry)?;
        }
        while let Some(extent) = source.next_extent()? {
            result.entry(&Entry::Extent(extent))?;
        }
        Ok(())
    }

    /// Whether a name of an entry that is not a directory is kept.
    fn keeps(&mut self, parent: u64, name: &[u8]) -> bool {
        let sought = self.sought.get_mut(&parent);
        let is_path = match sought.and_then(|names| names.get_mut(name)) {
            Some(sought) => {
                sought.found = true;
                true
            }
            None => false,
        };
        is_path || self.is_within(parent)
    }

    /// Whether a directory is at or beneath a path: walks up to a directory for which this is known.
    fn is_within(&mut self, dir: u64) -> bool {
        let (mut chain, mut at) = (Vec::new(), dir);
        let within = loop {
            if let Some(known) = self.within.get(&at) {
                break *known;
            }
            // Directories of a damaged file may be in a loop. They are beneath no path.
            self.within.insert(at, false);
            chain.push(at);
            match self.parents.get(&at) {
                Some(parent) => at = *parent,
                None => break false,
            }
        };
        if within {
            self.within.extend(chain.into_iter().map(|dir| (dir, true)));
        }
        within
    }

    /// Checks that every path exists. Of several errors, that of the first path in byte order is returned.
    fn check(&self) -> Result<(), Error> {
        let all = self.sought.values().flat_map(HashMap::values);
        let wrong = all.filter(|sought| sought.is_through() || !sought.found);
        let Some(sought) = wrong.min_by_key(|sought| &sought.path) else {
            return Ok(());
        };
        let path = sought.path.clone();
        Err(match sought.found {
            true => Error::NotADirectory {
                through: path[..sought.len].to_vec(),
                path,
            },
            false => Error::Missing(path),
        })
    }
}

#[cfg(test)]
#[path = "subtree_tests.rs"]
mod tests;
