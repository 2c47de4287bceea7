//! Reads blocks of files without checksums, so that a diff can decide which are unchanged.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;

use crate::capture::snapshot::{Pages, Snapshot};
use crate::diff::{self, Sink, Step, Version, diff};
use crate::format::file::Sendshot;
use crate::format::hashes;
use crate::stream::HashWriter;

/// Reason why blocks were not compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sendshots cannot be compared.
    #[error(transparent)]
    Diff(#[from] diff::Error),
    /// The hashes cannot be saved.
    #[error("save the hashes of blocks")]
    Save(#[from] io::Error),
}

/// Reads the blocks that only hashes can decide and writes their hashes to the companion of `target`, whose file
/// is `name` in `dir`. Returns `target` with these hashes; without hashes of `parent` there is nothing to read.
///
/// # Errors
/// See [`Error`]. `target` stays usable then, but more would be sent.
pub fn compare_hashes(
    parent: &Sendshot,
    target: Sendshot,
    snapshot: impl AsFd,
    dir: impl AsFd,
    name: &OsStr,
) -> Result<Sendshot, Error> {
    if parent.hashes().is_none_or(|hashes| hashes.count() == 0) {
        return Ok(target);
    }
    let uuid = target.head().uuid;
    let target = target.with_hashes(None);
    let snapshot = Snapshot::new(snapshot, Pages::Keep)?;
    hashes::save(&dir, name, uuid, |hashes| {
        let mut reading = Reading { snapshot, hashes };
        diff(Some(parent), &target, b"", Version::V2, &mut reading)
    })??;
    Ok(target.with_hashes(hashes::open_at(dir, name, uuid)))
}

/// Hashes the blocks that the diff requests.
struct Reading<'h> {
    snapshot: Snapshot,
    hashes: &'h mut HashWriter,
}

impl Sink for Reading<'_> {
    type Error = Error;

    fn step(&mut self, step: Step<'_>) -> Result<(), Error> {
        let Step::Check {
            ino,
            path,
            block,
            len,
        } = step
        else {
            return Ok(());
        };
        // A block that cannot be read is reported by name when it is sent.
        if let Ok(hash) = self.snapshot.hash(path, block, len) {
            self.hashes.add(ino, block, &hash);
        }
        Ok(())
    }
}
