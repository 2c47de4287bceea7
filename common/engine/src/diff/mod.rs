//! The diff: a pure function of two sendshots, or of nothing and one, to the steps of a stream.
//!
//! It reads the files several times from front to back and holds in memory only directories
//! and what changed its name. The same two files give the same steps. Order, and why:
//!
//! 1. [`names`]: what forbids changes is taken off; everything that exists in M gets its place in N, what is gone is deleted, and
//!    new directories are made. Nothing gets a name that another still holds.
//! 2. [`content`], [`data`], [`clones`], [`blocks`]: file by file in the order of inode numbers, new ones are made under their
//!    final names; attributes that a write would drop come after it, times last.
//! 3. Directories' attributes and times, at the very end: default ACLs would be inherited by
//!    what is made in them, and every name made or removed touches their times.

mod blocks;
mod clones;
mod content;
mod data;
mod flags;
mod names;
pub(crate) mod paths;
pub mod rule;
mod side_by_side;

use std::collections::HashSet;

use sendshot_stream::Command;

use clones::Clones;

use crate::diff::paths::{DirId, Tree};
use crate::diff::rule::Rule;
use crate::format::entry::{Extent, Head};
use crate::format::error;
use crate::format::file::Sendshot;
use crate::format::hashes::Hash;

/// A step of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A command that is complete.
    Command(Command<'a>),
    /// File data, to be read from the snapshot and sent as plain writes.
    Data {
        /// The file, in the snapshot as in the stream.
        path: &'a [u8],
        /// First byte.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// A whole compressed extent, to be sent as it is stored if that is possible, else as data.
    Encoded {
        /// The file.
        path: &'a [u8],
        /// The extent.
        extent: Extent,
        /// How many of its bytes count, at the end of the file.
        len: u64,
    },
    /// The hash of this block would tell whether it has to be sent; nobody knows it yet. See
    /// [`mod@crate::format::hashes`].
    Check {
        /// The file.
        ino: u64,
        /// The file in the snapshot.
        path: &'a [u8],
        /// Which block.
        block: u64,
        /// Its length.
        len: u64,
    },
    /// The hash of this block will be wanted by the next push.
    Hash {
        /// The file.
        ino: u64,
        /// The file in the snapshot, if its hash is not known.
        path: &'a [u8],
        /// Which block.
        block: u64,
        /// Its length.
        len: u64,
        /// Its hash, if it is the same block that M has.
        known: Option<Hash>,
    },
}

/// Where steps go.
pub trait Sink {
    /// Why it cannot take a step.
    type Error: From<Error>;

    /// Takes the next step.
    ///
    /// # Errors
    /// Ends the diff.
    fn step(&mut self, step: Step<'_>) -> Result<(), Self::Error>;
}

/// Why two sendshots cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] error::Error),
    /// A name leads nowhere.
    #[error("{}: inode {ino} has a name in a directory that is not there", path.display())]
    Orphan {
        /// The file.
        path: std::path::PathBuf,
        /// The inode.
        ino: u64,
    },
}

/// Whether a path is one under which something waits for a moment while names change.
pub fn is_temporary(path: &[u8]) -> bool {
    path.starts_with(names::TEMPORARY.as_bytes())
}

/// Versions of the stream differ in what they can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Zeros are written, compressed extents are sent decoded.
    V1,
    /// Holes are punched, compressed extents are sent as they are.
    V2,
}

/// What all passes share.
struct Pair<'a> {
    m: Option<&'a Sendshot>,
    n: &'a Sendshot,
    rule: Option<Rule>,
    version: Version,
    m_dirs: Tree,
    n_dirs: Tree,
    /// Directories whose times have to be set again.
    touched: HashSet<DirId>,
    /// Whether any directory is new or changed.
    changes_dirs: bool,
    /// Directories of either side whose flags are inherited.
    inherited: HashSet<DirId>,
    clones: Clones,
}

/// Hands the steps of the stream of `n`, based on `m` or in full, to `sink`. `name` is what the
/// stream calls the subvolume.
///
/// # Errors
/// The sink's, and [`Error`] for files that make no sense.
pub fn diff<S: Sink>(
    m: Option<&Sendshot>,
    n: &Sendshot,
    name: &[u8],
    version: Version,
    sink: &mut S,
) -> Result<(), S::Error> {
    sink.step(Step::Command(begin(m.map(Sendshot::head), n.head(), name)))?;
    let mut pair = Pair {
        m,
        n,
        rule: m.map(|m| Rule::new(m.head(), n.head())),
        version,
        m_dirs: Tree::default(),
        n_dirs: Tree::default(),
        touched: HashSet::new(),
        changes_dirs: false,
        inherited: HashSet::new(),
        clones: Clones::new(n.head().otransid),
    };
    let changes = names::gather(&mut pair)?;
    Clones::look_in_parent(&mut pair)?;
    names::emit(&mut pair, changes, sink)?;
    content::files(&mut pair, sink)?;
    content::directories(&pair, sink)?;
    sink.step(Step::Command(Command::End))
}

fn begin<'a>(m: Option<&Head>, n: &Head, path: &'a [u8]) -> Command<'a> {
    match m {
        None => Command::Subvol {
            path,
            uuid: n.wire_uuid,
            ctransid: n.wire_ctransid,
        },
        Some(m) => Command::Snapshot {
            path,
            uuid: n.wire_uuid,
            ctransid: n.wire_ctransid,
            clone_uuid: m.wire_uuid,
            clone_ctransid: m.wire_ctransid,
        },
    }
}

impl Pair<'_> {
    /// An inode of M has a name that leads nowhere.
    fn orphan_before(&self, ino: u64) -> Error {
        Error::Orphan {
            path: self.m.unwrap_or(self.n).path().to_owned(),
            ino,
        }
    }

    fn orphan(&self, ino: u64) -> Error {
        Error::Orphan {
            path: self.n.path().to_owned(),
            ino,
        }
    }
}
