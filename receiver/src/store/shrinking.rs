//! The hold on the last copy before a volume that shrank.

use std::os::fd::AsFd;

use uuid::Uuid;

use crate::store::ledger::{Entry, Hold, Ledger, Placed};
use crate::store::usage;

/// A copy that is held now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    copy: String,
    reason: String,
}

impl Held {
    /// Logs it, for the time when the ledger is written.
    pub fn log(&self) {
        let Self { copy, reason } = self;
        tracing::info!(%copy, "{copy} is held: {reason}; `sendshotctl copy release` ends that");
    }
}

/// Holds the last copy if a full push with less than half of its data follows: a replaced host that pushes an empty volume
/// must not become the only one that is kept. There is at most one such hold in a volume, the oldest. The full push is the
/// last entry of the ledger, and the last copy the one before it.
pub fn hold_before(ledger: &mut Ledger, dir: impl AsFd, now: i64) -> Option<Held> {
    let [.., last, new] = ledger.entries.as_slice() else {
        return None;
    };
    let sizes = usage::sizes(dir).unwrap_or_default();
    let size = |entry: &Entry| {
        sizes
            .get(&(entry.uuid, entry.ctransid))
            .copied()
            .unwrap_or(0)
    };
    let is_of_shrinking = |hold: &Hold| hold.placed == Placed::ByShrinking;
    let mut entries = ledger.entries.iter();
    if entries.any(|entry| entry.holds.iter().any(is_of_shrinking)) {
        return None;
    }
    let before = chain(&ledger.entries, last.local)
        .map(size)
        .fold(0u64, u64::saturating_add);
    let after = size(new);
    if after.saturating_mul(2) >= before {
        return None;
    }
    let reason = format!(
        "a full push with less than half of its data followed: {} after {}",
        sendshot_model::human::bytes_human(after),
        sendshot_model::human::bytes_human(before)
    );
    let held = Held {
        copy: last.name.clone(),
        reason: reason.clone(),
    };
    if let [.., last, _] = ledger.entries.as_mut_slice() {
        last.holds.push(Hold {
            reason,
            until: None,
            placed_at: now,
            placed: Placed::ByShrinking,
        });
    }
    Some(held)
}

/// A copy and its ancestors, as far as they are in the ledger.
fn chain(entries: &[Entry], local: Uuid) -> impl Iterator<Item = &Entry> {
    let find = move |local: Uuid| entries.iter().find(|entry| entry.local == local);
    // A ledger whose parents form a circle is not followed for ever.
    std::iter::successors(find(local), move |entry| find(entry.parent?)).take(entries.len())
}
