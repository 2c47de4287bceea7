//! The size of each copy, as counted by the receiver: the length of its stream, and what the stream's commands
//! allocated beyond that. A sender's `max_bytes` is compared with it, since no size reported by a sender is
//! trusted. Also what each copy lacks because this file system cannot keep it.
//!
//! A small file in the volume's directory, on disk before the copy is: a crash in between leaves the size of a
//! copy that does not exist, which does not count. The same holds for a push at its checkpoints: its size counts as
//! long as its partial exists.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;

use sendshot_apply::Identity;
use sendshot_model::NotKept;
use sendshot_sys::durable::{self, Filled};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::volumes;

/// Name of the file.
const FILE: &str = ".sendshot-usage";

/// Identifies a state: a sender can send several under one UUID.
pub type State = (Uuid, u64);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Usage {
    /// Bytes by the state's UUID and the sender's ctransid of it.
    #[serde(default)]
    states: BTreeMap<Uuid, BTreeMap<u64, u64>>,
    /// Bytes by UUID alone, as the first version wrote them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    copies: BTreeMap<Uuid, u64>,
    /// What the states lack. A state without an entry lacks nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    not_kept: BTreeMap<Uuid, BTreeMap<u64, Lacks>>,
    /// The states that have taken over sizes of deleted ones, and were not counted again since.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    inherited: BTreeSet<State>,
    /// The states with sizes of deleted ones whose data may be in other copies, too: their sums stay.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    fixed: BTreeSet<State>,
}

/// A state that was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    pub state: State,
    /// Whether its data can be in no other copy than the next younger one that stays.
    pub is_only_in_heir: bool,
}

/// What a state lacks of its stream up to each offset. A push may be resumed from the checkpoint before the
/// last recorded one, so the last two are kept.
type Lacks = BTreeMap<u64, NotKept>;

/// The values to record of a push.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Bytes that it takes so far, or in the end.
    pub bytes: u64,
    /// Bytes applied of its stream.
    pub offset: u64,
    /// What is not kept up to there, and what the parent lacks.
    pub not_kept: NotKept,
}

impl Usage {
    /// All recorded sizes; a size by UUID alone belongs to the first state of that UUID that is held.
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

    /// Replaces the sizes of all states.
    fn set_sizes(&mut self, all: BTreeMap<State, u64>) {
        self.copies.clear();
        self.states.clear();
        for ((uuid, ctransid), bytes) in all {
            self.states.entry(uuid).or_default().insert(ctransid, bytes);
        }
    }

    fn lacks_of(&self, state: State) -> Option<&Lacks> {
        self.not_kept
            .get(&state.0)
            .and_then(|of_uuid| of_uuid.get(&state.1))
    }

    /// Records what a push lacks up to an offset.
    fn lacks(&mut self, state: State, offset: u64, list: NotKept) {
        let of_uuid = self.not_kept.entry(state.0).or_default();
        let lacks = of_uuid.entry(state.1).or_default();
        // Entries after the offset describe a part of the stream that is sent again.
        lacks.split_off(&offset);
        while lacks.len() > 1 {
            lacks.pop_first();
        }
        lacks.insert(offset, list);
        if lacks.values().all(NotKept::is_empty) {
            of_uuid.remove(&state.1);
        }
    }
}

/// Makes the key of a state.
pub fn state(identity: Identity) -> State {
    (identity.uuid, identity.ctransid)
}

/// Records the size of a push at a checkpoint in its volume's directory. Deletes the entries of other states that do not
/// exist.
///
/// # Errors
/// I/O errors.
pub fn note(dir: impl AsFd, state: State, progress: Progress) -> io::Result<()> {
    let usage = with(&dir, state, progress)?;
    durable::write_json_at(dir, OsStr::new(FILE), &usage)
}

/// Fills a file like that of [`note`] for a copy that is about to be made; it counts when the file takes its name.
///
/// # Errors
/// I/O errors.
pub fn fill(dir: impl AsFd, state: State, progress: Progress) -> io::Result<Filled> {
    let usage = with(&dir, state, progress)?;
    Filled::json(dir, OsStr::new(FILE), &usage)
}

/// What is recorded, with the progress of `state`, and without states that do not exist.
fn with(dir: impl AsFd, state: State, progress: Progress) -> io::Result<Usage> {
    let held = held(&dir)?;
    let mut before = read(&dir)?;
    let mut all = before.all(&held);
    all.retain(|known, _| held.contains(known));
    all.insert(state, progress.bytes);
    let mut usage = Usage {
        inherited: before.inherited.clone(),
        fixed: before.fixed.clone(),
        ..Usage::default()
    };
    usage.inherited.retain(|state| all.contains_key(state));
    usage.fixed.retain(|state| all.contains_key(state));
    before.lacks(state, progress.offset, progress.not_kept);
    for (uuid, of_uuid) in before.not_kept {
        for (ctransid, lacks) in of_uuid {
            if all.contains_key(&(uuid, ctransid)) {
                let of_uuid = usage.not_kept.entry(uuid).or_default();
                of_uuid.insert(ctransid, lacks);
            }
        }
    }
    for ((uuid, ctransid), bytes) in all {
        let of_uuid = usage.states.entry(uuid).or_default();
        of_uuid.insert(ctransid, bytes);
    }
    Ok(usage)
}

/// Gives the sizes of states that were deleted to the next younger ones that stay, which hold the data from now on: else
/// deleting would void a sender's limit. `order` are all states of the volume in the order of their commits.
///
/// # Errors
/// I/O errors.
pub fn give_to_younger(dir: impl AsFd, order: &[State], deleted: &[Deleted]) -> io::Result<()> {
    if deleted.is_empty() {
        return Ok(());
    }
    let held = held(&dir)?;
    let mut before = read(&dir)?;
    let mut all = before.all(&held);
    let heirs = inherit(&mut all, order, deleted, &before.fixed);
    for (heir, is_limitable) in heirs {
        let of_kind = match is_limitable && !before.fixed.contains(&heir) {
            true => &mut before.inherited,
            false => &mut before.fixed,
        };
        of_kind.insert(heir);
    }
    before.fixed.retain(|state| all.contains_key(state));
    let fixed = &before.fixed;
    before
        .inherited
        .retain(|state| all.contains_key(state) && !fixed.contains(state));
    before.set_sizes(all);
    durable::write_json_at(&dir, OsStr::new(FILE), &before)
}

/// The states that have taken over sizes, and were not limited since by [`limit`].
///
/// # Errors
/// I/O errors.
pub fn with_inherited(dir: impl AsFd) -> io::Result<BTreeSet<State>> {
    Ok(read(dir)?.inherited)
}

/// Limits the size of a state that has taken over others to what it really holds; not if it has taken over one meanwhile whose
/// data may be in other copies, too.
///
/// # Errors
/// I/O errors.
pub fn limit(dir: impl AsFd, state: State, bytes: u64) -> io::Result<()> {
    let held = held(&dir)?;
    let mut usage = read(&dir)?;
    if !usage.inherited.remove(&state) {
        return Ok(());
    }
    let mut all = usage.all(&held);
    if let Some(counted) = all.get_mut(&state) {
        *counted = bytes.min(*counted);
    }
    usage.set_sizes(all);
    durable::write_json_at(&dir, OsStr::new(FILE), &usage)
}

/// Moves the sizes; returns the states that took over some, and whether their sums can be limited to what they hold. A state
/// that was counted before has none left, so that this can be done again after a crash.
fn inherit(
    all: &mut BTreeMap<State, u64>,
    order: &[State],
    deleted: &[Deleted],
    fixed: &BTreeSet<State>,
) -> Vec<(State, bool)> {
    let mut carried: u64 = 0;
    let mut is_limitable = true;
    let mut heirs = Vec::new();
    for state in order {
        match deleted.iter().find(|deleted| deleted.state == *state) {
            Some(deleted) => {
                carried = carried.saturating_add(all.remove(state).unwrap_or(0));
                is_limitable &= deleted.is_only_in_heir && !fixed.contains(state);
            }
            None if carried > 0 => {
                let bytes = all.entry(*state).or_default();
                *bytes = bytes.saturating_add(carried);
                heirs.push((*state, is_limitable));
                (carried, is_limitable) = (0, true);
            }
            None => {}
        }
    }
    heirs
}

/// The recorded size of a state; 0 if there is none.
///
/// # Errors
/// I/O errors.
pub fn noted(dir: impl AsFd, state: State) -> io::Result<u64> {
    let all = read(dir)?.all(&BTreeSet::new());
    Ok(all.get(&state).copied().unwrap_or(0))
}

/// The recorded sizes of all states in a volume's directory.
///
/// # Errors
/// I/O errors.
pub fn sizes(dir: impl AsFd) -> io::Result<BTreeMap<State, u64>> {
    let held = held(&dir)?;
    Ok(read(&dir)?.all(&held))
}

/// What the copies in a volume's directory lack because this file system cannot keep it.
#[derive(Debug)]
pub struct NotKeptOf(Usage);

impl NotKeptOf {
    /// What a copy lacks; nothing if nothing was recorded.
    pub fn copy(&self, state: State) -> NotKept {
        let last = self.0.lacks_of(state).and_then(BTreeMap::last_key_value);
        last.map_or_else(NotKept::default, |(_, list)| list.clone())
    }

    /// What a push lacked at a checkpoint.
    pub fn checkpoint(&self, state: State, offset: u64) -> NotKept {
        let there = self.0.lacks_of(state).and_then(|lacks| lacks.get(&offset));
        there.cloned().unwrap_or_default()
    }
}

/// Reads what the copies in a volume's directory lack.
///
/// # Errors
/// I/O errors.
pub fn not_kept(dir: impl AsFd) -> io::Result<NotKeptOf> {
    read(dir).map(NotKeptOf)
}

/// Bytes of all copies in a volume's directory, and of the interrupted pushes that `waits` selects. States
/// without a recorded size count as 0.
///
/// # Errors
/// I/O errors.
pub fn of(dir: impl AsFd, waits: impl Fn(State) -> bool) -> io::Result<u64> {
    let held = held(&dir)?;
    let all = read(&dir)?.all(&held).into_iter();
    let there = all.filter(|(state, _)| held.contains(state) || waits(*state));
    Ok(there.fold(0, |sum: u64, (_, bytes)| sum.saturating_add(bytes)))
}

fn held(dir: impl AsFd) -> io::Result<BTreeSet<State>> {
    let copies = volumes::copies(dir)?;
    Ok(copies
        .into_iter()
        .map(|copy| (copy.uuid, copy.ctransid))
        .collect())
}

/// Reads the file. A damaged one counts as missing: it limits no sender, and the next copy rewrites it.
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
    use sendshot_model::NotKeptKind;

    use super::*;

    fn list(count: u64) -> NotKept {
        let mut list = NotKept::default();
        (0..count).for_each(|_| list.add(NotKeptKind::NoCopyOnWrite, "a"));
        list
    }

    #[test]
    fn a_resumed_push_keeps_its_not_kept_list() {
        let (mut usage, state) = (Usage::default(), (Uuid::from_u128(1), 7));
        for (offset, count) in [(10, 1), (20, 2), (30, 3)] {
            usage.lacks(state, offset, list(count));
        }
        let again = |usage: &Usage| {
            let text = serde_json::to_string(usage).unwrap();
            NotKeptOf(serde_json::from_str(&text).unwrap())
        };
        assert_eq!(again(&usage).copy(state), list(3));
        assert_eq!(again(&usage).checkpoint(state, 20), list(2));
        assert_eq!(again(&usage).checkpoint(state, 10), list(0));
        // Resumed at 20, the push ends differently.
        usage.lacks(state, 25, list(4));
        assert_eq!(again(&usage).copy(state), list(4));
        usage.lacks(state, 0, list(0));
        assert_eq!(again(&usage).copy(state), list(0));
    }

    #[test]
    fn a_deleted_copys_size_goes_to_its_younger_neighbour() {
        let state = |number| (Uuid::from_u128(number), 7);
        let order: Vec<State> = (1..=5).map(state).collect();
        let mut all: BTreeMap<State, u64> =
            order.iter().copied().zip([100, 20, 3, 4, 50]).collect();
        let deleted = |number, is_only_in_heir| Deleted {
            state: state(number),
            is_only_in_heir,
        };
        let going = [deleted(1, true), deleted(3, false), deleted(4, true)];
        let heirs = inherit(&mut all, &order, &going, &BTreeSet::new());
        assert_eq!(heirs, [(state(2), true), (state(5), false)]);
        let left: Vec<u64> = all.values().copied().collect();
        assert_eq!(left, [120, 57]);
        // What the newest held is gone with it.
        inherit(&mut all, &order, &[deleted(5, true)], &BTreeSet::new());
        assert_eq!(all.into_values().collect::<Vec<_>>(), [120]);
    }

    #[test]
    fn a_sum_is_not_limited_that_became_fixed_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        let state = (Uuid::from_u128(1), 7);
        let mut usage = Usage::default();
        usage.set_sizes(BTreeMap::from([(state, 100)]));
        usage.inherited.insert(state);
        let write = |usage: &Usage| durable::write_json_at(&fd, OsStr::new(FILE), usage).unwrap();
        let size = || read(&fd).unwrap().states[&state.0][&state.1];
        write(&usage);
        limit(&fd, state, 40).unwrap();
        assert_eq!(size(), 40);
        // While it was counted, it took over a size whose data may be elsewhere.
        usage.inherited.clear();
        usage.fixed.insert(state);
        write(&usage);
        limit(&fd, state, 40).unwrap();
        assert_eq!(size(), 100);
    }

    #[test]
    fn a_note_by_uuid_counts_for_a_held_state() {
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
