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
    #[serde(default)]
    states: BTreeMap<Uuid, BTreeMap<u64, u64>>,
    /// Bytes by UUID alone, as they were noted at first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    copies: BTreeMap<Uuid, u64>,
}

impl Usage {
    /// All that was noted; what was by UUID alone is of the first state of it that is held.
    fn all(&self, held: &BTreeSet<State>) -> BTreeMap<State, u64> {
        let of = |uuid: &Uuid| held.iter().find(|state| state.0 == *uuid).copied();
        let first = self.copies.iter();
        let first = first.filter_map(|(uuid, bytes)| Some((of(uuid)?, *bytes)));
        let states = self.states.iter().flat_map(|(uuid, of_uuid)| {
            let of_uuid = of_uuid.iter();
            of_uuid.map(|(ctransid, bytes)| ((*uuid, *ctransid), *bytes))
        });
        first.chain(states).collect()
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
    let mut all = read(&dir)?.all(&held);
    all.retain(|known, _| held.contains(known));
    all.insert(state, bytes);
    let mut usage = Usage::default();
    for ((uuid, ctransid), bytes) in all {
        let of_uuid = usage.states.entry(uuid).or_default();
        of_uuid.insert(ctransid, bytes);
    }
    durable::write_json_at(&dir, OsStr::new(FILE), &usage)
}

/// What was noted of a state; 0 if nothing was.
///
/// # Errors
/// The kernel's.
pub fn noted(dir: impl AsFd, state: State) -> io::Result<u64> {
    let all = read(dir)?.all(&BTreeSet::new());
    Ok(all.get(&state).copied().unwrap_or(0))
}

/// Bytes of all copies in a volume's directory, and of pushes that `waits` knows to be interrupted. What
/// was never noted counts nothing.
///
/// # Errors
/// The kernel's.
pub fn of(dir: impl AsFd, waits: impl Fn(State) -> bool) -> io::Result<u64> {
    let held = held(&dir)?;
    let all = read(&dir)?.all(&held).into_iter();
    let there = all.filter(|(state, _)| held.contains(state) || waits(*state));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_by_uuid_alone_counts_for_a_state_that_is_held() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let text = format!("{{\"copies\":{{\"{one}\":70,\"{two}\":80}}}}");
        let mut usage: Usage = serde_json::from_str(&text).unwrap();
        usage.states.entry(two).or_default().insert(9, 5);
        let held = BTreeSet::from([(one, 7), (two, 9)]);
        let all = BTreeMap::from([((one, 7), 70), ((two, 9), 5)]);
        assert_eq!(usage.all(&held), all);
        let text = serde_json::to_string(&usage).unwrap();
        let again: Usage = serde_json::from_str(&text).unwrap();
        assert_eq!(again.all(&held), all);
    }
}
