//! Stage *record*: noting that the receiver has committed.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Mark the push acknowledged. — Two acknowledged pushes; the next one prunes the older.
//! 2. Delete the snapshots it supersedes. — A record without snapshot; settling drops it.

use std::io;

use sendshot_model::{ReceiverId, VolumeId};
use uuid::Uuid;

use crate::journal::{Record, State};
use crate::prune;
use crate::state_subvolume::StateSubvolume;

/// Records an acknowledgement; returns the UUIDs of what was let go.
///
/// # Errors
/// The kernel's. The push is then still `unconfirmed`, and the next one finds out.
pub fn acknowledged(
    state: &StateSubvolume,
    mut record: Record,
    volume: VolumeId,
    receiver: ReceiverId,
) -> io::Result<Vec<Uuid>> {
    record.state = State::Acknowledged;
    record.store(state.pushes())?; // 1
    prune::superseded(state, volume, receiver, record.push) // 2
}
