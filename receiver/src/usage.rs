//! How much each copy is, as we counted it: the length of the stream that made it, and what its commands
//! made beyond that. It is what a sender's `max_bytes` is measured by, since nothing that a sender says is.
//!
//! A small file in the volume's directory, written before the copy is made: a crash in between leaves
//! a number of a copy that is not there, which does not count. So it is with a push at its checkpoints: its
//! number counts as long as its partial is there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;

use sendshot_apply::Identity;
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::holdings;

/// The file.
const FILE: &str = ".sendshot-usage";

/// A state: a sender can send several under one UUID.
pub type State = (Uuid, u64);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Usage {
    /// Bytes by the state's UUID and the sender's ctransid of it.
    copies: BTreeMap<Uuid, BTreeMap<u64, u64>>,
}

impl Usage {
    fn states(&self) -> impl Iterator<Item = (State, u64)> + '_ {
        self.copies.iter().flat_map(|(uuid, bytes)| {
            let of_uuid = bytes.iter();
            of_uuid.map(|(ctransid, bytes)| ((*uuid, *ctransid), *bytes))
        })
    }
}

/// Names a state.
pub fn state(identity: Identity) -> State {
    (identity.uuid, identity.ctransid)
}

/// Notes how much a copy is that is about to be made in a volume's directory, or a push at a checkpoint. What
/// is noted of others that are not there is forgotten.
///
/// # Errors
/// The kernel's.
pub fn note(dir: impl AsFd, state: State, bytes: u64) -> io::Result<()> {
    let held = held(&dir)?;
    let mut usage = Usage::default();
    for (known, bytes) in read(&dir)?
        .states()
        .filter(|(known, _)| held.contains(known))
    {
        usage
            .copies
            .entry(known.0)
            .or_default()
            .insert(known.1, bytes);
    }
    usage
        .copies
        .entry(state.0)
        .or_default()
        .insert(state.1, bytes);
    durable::write_json_at(&dir, OsStr::new(FILE), &usage)
}

/// What was noted of a state; 0 if nothing was.
///
/// # Errors
/// The kernel's.
pub fn noted(dir: impl AsFd, state: State) -> io::Result<u64> {
    let noted = read(dir)?
        .states()
        .find(|(known, _)| *known == state)
        .map(|(_, bytes)| bytes);
    Ok(noted.unwrap_or(0))
}

/// Bytes of all copies in a volume's directory, and of pushes that `waits` knows to be interrupted. What
/// was never noted counts nothing.
///
/// # Errors
/// The kernel's.
pub fn of(dir: impl AsFd, waits: impl Fn(State) -> bool) -> io::Result<u64> {
    let held = held(&dir)?;
    let usage = read(&dir)?;
    let there = usage
        .states()
        .filter(|(state, _)| held.contains(state) || waits(*state));
    Ok(there.fold(0, |sum: u64, (_, bytes)| sum.saturating_add(bytes)))
}

fn held(dir: impl AsFd) -> io::Result<BTreeSet<State>> {
    let copies = holdings::copies(dir)?;
    Ok(copies
        .into_iter()
        .map(|copy| (copy.uuid, copy.ctransid))
        .collect())
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
