//! How much each copy is, as we counted it: the length of the stream that made it. It is what a sender's
//! `max_bytes` is measured by, since nothing that a sender says is.
//!
//! A small file in the volume's directory, written before the copy is made: a crash in between leaves
//! a number of a copy that is not there, which does not count.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;

use sendshot_sys::durable;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::holdings;

/// The file.
const FILE: &str = ".sendshot-usage";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Usage {
    /// Bytes by the state's UUID.
    copies: BTreeMap<Uuid, u64>,
}

/// Notes how much a copy is that is about to be made in a volume's directory. What is noted of copies that
/// are gone is forgotten.
///
/// # Errors
/// The kernel's.
pub fn note(dir: impl AsFd, uuid: Uuid, bytes: u64) -> io::Result<()> {
    let mut usage = read(&dir)?;
    let held = held(&dir)?;
    usage.copies.retain(|uuid, _| held.contains(uuid));
    usage.copies.insert(uuid, bytes);
    durable::write_json_at(&dir, OsStr::new(FILE), &usage)
}

/// Bytes of all copies in a volume's directory. What was never noted counts nothing.
///
/// # Errors
/// The kernel's.
pub fn of(dir: impl AsFd) -> io::Result<u64> {
    let usage = read(&dir)?;
    let held = held(&dir)?;
    let there = usage.copies.iter().filter(|(uuid, _)| held.contains(*uuid));
    Ok(there
        .map(|(_, bytes)| bytes)
        .fold(0, |sum, bytes| sum.saturating_add(*bytes)))
}

fn held(dir: impl AsFd) -> io::Result<Vec<Uuid>> {
    let copies = holdings::copies(dir)?;
    Ok(copies.into_iter().map(|copy| copy.uuid).collect())
}

/// A damaged file is as good as none: it limits nobody, and the next copy makes it anew.
fn read(dir: impl AsFd) -> io::Result<Usage> {
    match durable::read_json_at(dir, OsStr::new(FILE)) {
        Ok(usage) => Ok(usage.unwrap_or_default()),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!("{FILE} is damaged: {e}");
            Ok(Usage::default())
        }
        Err(e) => Err(e),
    }
}
