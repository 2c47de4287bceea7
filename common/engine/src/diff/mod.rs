//! The diff: a pure function from two sendshots, or one for a full send, to the steps of a stream.
//!
//! It reads the files several times from front to back and holds only directories and changed names in
//! memory. The same two files give the same steps. Order, and why:
//!
//! 1. [`names`]: flags that forbid changes are removed; everything that exists in the parent gets its place in the
//!    target, what no longer exists is deleted, and new directories are made. Nothing gets a name still in use.
//! 2. [`content`], [`data`], [`clones`], [`blocks`]: file by file in the order of inode numbers, new files
//!    are made under their final names; attributes that a write would drop follow it, times come last.
//! 3. Attributes and times of directories, at the very end: default ACLs would be inherited by new entries,
//!    and every name added or removed changes the times.

mod blocks;
mod clones;
mod content;
mod data;
mod flags;
mod names;
mod out;
mod pair;
pub(crate) mod paths;
pub mod rule;
mod side_by_side;
pub mod step;

use sendshot_stream::Command;

use clones::Clones;
use pair::Pair;
pub use step::{Error, Reads, Sink, Step, Version};

use crate::format::entry::Head;
use crate::format::file::Sendshot;

/// Whether a path is a temporary one, used while names change.
pub fn is_temporary(path: &[u8]) -> bool {
    path.starts_with(names::TEMPORARY.as_bytes())
}

/// Passes the steps of the stream of `target`, based on `parent` or in full, to `sink`. `name` is the stream's name for
/// the subvolume.
///
/// # Errors
/// Errors of the sink, and [`Error`] for invalid files.
pub fn diff<S: Sink>(
    parent: Option<&Sendshot>,
    target: &Sendshot,
    name: &[u8],
    version: Version,
    sink: &mut S,
) -> Result<(), S::Error> {
    sink.step(Step::Command(begin(
        parent.map(Sendshot::head),
        target.head(),
        name,
    )))?;
    let mut pair = Pair::new(parent, target, version);
    if pair.is_unchanged_whole() {
        return sink.step(Step::Command(Command::End));
    }
    let mut clones = Clones::new(target.head().otransid);
    let changes = names::gather(&mut pair, &mut clones)?;
    clones.look_in_parent(&pair)?;
    names::emit(&mut pair, changes, sink)?;
    content::files(&mut pair, clones, sink)?;
    content::directories(&pair, sink)?;
    sink.step(Step::Command(Command::End))
}

fn begin<'a>(parent: Option<&Head>, target: &Head, path: &'a [u8]) -> Command<'a> {
    match parent {
        None => Command::Subvol {
            path,
            uuid: target.wire_uuid,
            ctransid: target.wire_ctransid,
        },
        Some(parent) => Command::Snapshot {
            path,
            uuid: target.wire_uuid,
            ctransid: target.wire_ctransid,
            clone_uuid: parent.wire_uuid,
            clone_ctransid: parent.wire_ctransid,
        },
    }
}
