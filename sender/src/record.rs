//! Stage *record*: noting that the receiver has committed.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Mark the push acknowledged. — Two acknowledged pushes; the next one prunes the older. With
//!    our engine a snapshot that is not needed any more; settling deletes it.
//! 2. With our engine: delete the snapshot, the sendshot stands for it. — Two sendshots.
//! 3. Delete what it supersedes. — A record without snapshot; settling drops it.

use std::io;
use std::num::NonZeroU32;

use uuid::Uuid;

use crate::engine::Engine;
use crate::journal::{Record, State};
use crate::prune;
use crate::state_subvolume::StateSubvolume;

/// Records an acknowledgement; returns the UUIDs of what was let go. `keep` sendshots stay.
///
/// # Errors
/// The kernel's. The push is then still `unconfirmed`, and the next one finds out.
pub fn acknowledged(
    state: &StateSubvolume,
    mut record: Record,
    keep: NonZeroU32,
) -> io::Result<Vec<Uuid>> {
    record.state = State::Acknowledged;
    record.store(state.pushes())?; // 1
    if record.engine == Engine::Sendshot {
        prune::release(state, &record)?; // 2
    }
    prune::superseded(state, &record, keep) // 3
}
