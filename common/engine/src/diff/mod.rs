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
mod out;
mod pair;
pub(crate) mod paths;
pub mod rule;
mod side_by_side;
pub mod step;

use sendshot_stream::Command;

use clones::Clones;
use pair::Pair;
pub use step::{Error, Sink, Step, Version};

use crate::format::entry::Head;
use crate::format::file::Sendshot;

/// Whether a path is one under which something waits for a moment while names change.
pub fn is_temporary(path: &[u8]) -> bool {
    path.starts_with(names::TEMPORARY.as_bytes())
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
    let mut pair = Pair::new(m, n, version);
    let mut clones = Clones::new(n.head().otransid);
    let changes = names::gather(&mut pair, &mut clones)?;
    clones.look_in_parent(&pair)?;
    names::emit(&mut pair, changes, sink)?;
    content::files(&mut pair, clones, sink)?;
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
