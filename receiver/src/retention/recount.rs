//! Counts again what the copies hold that took over the sizes of deleted ones, for `max_bytes`.
//!
//! When a copy is deleted, its size goes to its younger neighbour, which holds its data from then on, as far as it was not
//! overwritten. The sum would grow with everything that was ever pushed. So it is limited to what the neighbour really
//! holds: its metadata, and its extents, each one counted once.
//!
//! That is right only if no other copy can hold data of the deleted one. A sender chooses the parent and the sources of
//! clones, so [`is_only_in_heir`] decides by what the receiver has recorded of each copy; when unsure, the sum stays.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;

use sendshot_engine::{Entry, ExtentKind, Sendshot, WireNumber};
use sendshot_proto::failure::Failure;
use sendshot_sys::subvolume::Info;
use uuid::Uuid;

use crate::receive::limits;
use crate::restore::copy::OpenCopy;
use crate::shared::receiver::Receiver;
use crate::store::ledger;
use crate::store::root::OpenRoot;
use crate::store::usage::{self, State};
use crate::store::{captures, volumes};

/// Most extents that are distinguished; those beyond count each time that they are mapped. 16 MiB of memory.
const MAX_EXTENTS: usize = 1 << 20;

/// Bytes that an inode takes besides its names, attributes and extents: its item, and the heads of the items about it.
const INODE_BYTES: u64 = 512;

/// Bytes of a copy without any file.
const COPY_BYTES: u64 = 16 * 1024;

/// Whether no copy that stays can hold data of a deleted one but its heir, the next younger one that stays. `entries` are in
/// the order of their commits.
pub(super) fn is_only_in_heir(
    entries: &[ledger::Entry],
    deleted: Uuid,
    goes: impl Fn(Uuid) -> bool,
) -> bool {
    let younger = entries.iter().skip_while(|entry| entry.local != deleted);
    let staying = younger.skip(1).filter(|entry| !goes(entry.local));
    let builds_on_deleted = |entry: &ledger::Entry| {
        let goes_or_is = |local: Uuid| local == deleted || goes(local);
        !entry.shares_only_with_parent || entry.parent.is_some_and(goes_or_is)
    };
    // What the heir holds is counted.
    !staying.skip(1).any(builds_on_deleted)
}

/// Counts again the copies of senders with a limit that took over sizes. It takes as long as reading their metadata,
/// and locks nothing meanwhile. A copy that cannot be counted keeps the sum until the next run. Blocks.
pub fn over(receiver: &Receiver) {
    for (sender, volume, state) in waiting(receiver) {
        if receiver.stopping().is_cancelled() {
            return;
        }
        let path = format!("{sender}/{volume}");
        if let Err(failure) = one(receiver, (&sender, &volume), state) {
            tracing::info!(volume = %path, "what a copy of {path} holds cannot be counted now: {failure}");
        }
    }
}

/// The states to count.
fn waiting(receiver: &Receiver) -> Vec<(String, String, State)> {
    let config = receiver.config();
    let mut found = Vec::new();
    let Ok(root) = receiver.root().open() else {
        return found; // an absent root is reported by the pushes
    };
    for (sender, volume, dir) in volumes::all(&root).unwrap_or_default() {
        let policy = sender.parse().map(|name| config.policy(&name));
        if policy.is_ok_and(|policy| policy.max_bytes.is_some()) {
            let states = usage::with_inherited(&dir).unwrap_or_default();
            found.extend(
                states
                    .into_iter()
                    .map(|state| (sender.clone(), volume.clone(), state)),
            );
        }
    }
    found
}

fn one(receiver: &Receiver, (sender, volume): (&str, &str), state: State) -> Result<(), Failure> {
    let root = receiver.root().open()?;
    let failed = |e: io::Error| crate::receive::failures::io_failure("count a copy", &e);
    let mut all = volumes::all(&root).map_err(failed)?.into_iter();
    let Some((.., dir)) = all.find(|(s, v, _)| s == sender && v == volume) else {
        return Ok(());
    };
    let Some(copy) = find(&dir, state).map_err(failed)? else {
        return Ok(());
    };
    limits::check_free(&root, receiver.config().min_free)?;
    let bytes = held(receiver, &root, &copy).map_err(failed)?;
    let _lock = receiver.locks().lock(&format!("{sender}/{volume}"));
    usage::limit(&dir, state, bytes).map_err(failed)
}

fn find(dir: impl AsFd, state: State) -> io::Result<Option<OpenCopy>> {
    let is_of_state = |info: &Info| (info.received_uuid, info.stransid) == state && info.read_only;
    for (name, info) in volumes::with_info(&dir)? {
        if is_of_state(&info)
            && let Some((fd, info)) = volumes::open_copy(&dir, &name)?
        {
            let doubt = None;
            return Ok(Some(OpenCopy { fd, info, doubt }));
        }
    }
    Ok(None)
}

/// Bytes that a copy holds. The capture lies on the disk with the copies, and is deleted at once: only the descriptor is used.
fn held(receiver: &Receiver, root: &OpenRoot, copy: &OpenCopy) -> io::Result<u64> {
    let place = receiver.captures().place_at(root)?;
    // A crash leaves a capture of no copy, which expires.
    let name = captures::name(Uuid::new_v4());
    let frozen = copy.frozen()?;
    let saved = sendshot_engine::save(frozen, WireNumber::Origin, None, &place.dir, &name);
    place.forget(&name);
    let (sendshot, _) = saved.map_err(io::Error::other)?;
    count(&sendshot).map_err(io::Error::other)
}

fn count(sendshot: &Sendshot) -> Result<u64, sendshot_engine::format::error::Error> {
    let len = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let mut seen = HashSet::new();
    let mut bytes = COPY_BYTES;
    let mut reader = sendshot.reader()?;
    while let Some(entry) = reader.next_entry()? {
        let more = match entry {
            Entry::Inode(..) => INODE_BYTES,
            // A name is in three items.
            Entry::Name(name) => 3 * len(&name.name),
            Entry::Xattr(xattr) => len(&xattr.name) + len(&xattr.value),
            Entry::Target(target) => len(&target),
            Entry::Extent(extent) => match extent.kind {
                ExtentKind::Inline => extent.len,
                ExtentKind::Regular | ExtentKind::Prealloc => {
                    let is_new = match seen.len() < MAX_EXTENTS {
                        true => seen.insert(extent.disk_bytenr),
                        false => !seen.contains(&extent.disk_bytenr),
                    };
                    if is_new { extent.disk_len } else { 0 }
                }
            },
        };
        bytes = bytes.saturating_add(more);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries 1, 2, 3 …, each with its parent and whether it shares with that alone.
    fn entries(of: &[(u128, bool)]) -> Vec<ledger::Entry> {
        let entry = |(at, (parent, only)): (usize, &(u128, bool))| ledger::Entry {
            local: Uuid::from_u128(at as u128 + 1),
            parent: (*parent > 0).then(|| Uuid::from_u128(*parent)),
            shares_only_with_parent: *only,
            ..ledger::tests::of(0)
        };
        of.iter().enumerate().map(entry).collect()
    }

    fn check(of: &[(u128, bool)], deleted: &[u128]) -> bool {
        let going: Vec<Uuid> = deleted.iter().copied().map(Uuid::from_u128).collect();
        is_only_in_heir(&entries(of), going[0], |local| going.contains(&local))
    }

    #[test]
    fn data_of_a_deleted_copy_is_only_in_its_heir_in_a_chain() {
        assert!(check(&[(0, true), (1, true), (2, true), (3, true)], &[1]));
        assert!(check(
            &[(0, true), (1, true), (2, true), (3, true)],
            &[1, 2]
        ));
        assert!(check(&[(0, true)], &[1]));
        // A copy beside the chain that shares with none.
        assert!(check(&[(0, true), (1, true), (0, true)], &[1]));
    }

    #[test]
    fn data_of_a_deleted_copy_may_be_beside_its_heir() {
        // 3 was built on 1, and the heir is 2.
        assert!(!check(&[(0, true), (0, true), (1, true)], &[1]));
        // 3 may have cloned from 1.
        assert!(!check(&[(0, true), (1, true), (2, false)], &[1]));
        // 4 was built on 2, which goes with 1; the heir is 3.
        assert!(!check(
            &[(0, true), (1, true), (0, true), (2, true)],
            &[1, 2]
        ));
    }
}
