//! Reading blocks of files without checksums, so that a diff can tell which are unchanged.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;

use crate::capture::snapshot::Snapshot;
use crate::diff::{self, Sink, Step, Version, diff};
use crate::format::file::Sendshot;
use crate::format::hashes;
use crate::stream::HashWriter;

/// Why blocks were not verified.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sendshots cannot be compared.
    #[error(transparent)]
    Diff(#[from] diff::Error),
    /// The hashes cannot be saved.
    #[error("save the hashes of blocks")]
    Save(#[from] io::Error),
}

/// Reads the blocks about which only hashes can tell and writes those of `n`, whose file is
/// `name` in `dir`, to its companion. Returns `n` with them; without hashes of `m` there is
/// nothing to read.
///
/// # Errors
/// See [`Error`]. Nothing is wrong with `n` then, but more would be sent.
pub fn verify(
    m: &Sendshot,
    n: Sendshot,
    snapshot: impl AsFd,
    dir: impl AsFd,
    name: &OsStr,
) -> Result<Sendshot, Error> {
    if m.hashes().is_none_or(|hashes| hashes.count() == 0) {
        return Ok(n);
    }
    let uuid = n.head().uuid;
    let n = n.with_hashes(None);
    let snapshot = Snapshot::new(snapshot)?;
    hashes::save(&dir, name, uuid, |hashes| {
        let mut reading = Reading { snapshot, hashes };
        diff(Some(m), &n, b"", Version::V2, &mut reading)
    })??;
    Ok(n.with_hashes(hashes::open_at(dir, name, uuid)))
}

/// Answers what the diff asks.
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
        // What cannot be read is told by name when it is to be sent.
        if let Ok(hash) = self.snapshot.hash(path, block, len) {
            self.hashes.add(ino, block, &hash);
        }
        Ok(())
    }
}
