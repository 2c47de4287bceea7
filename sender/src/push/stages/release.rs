//! Stage *release*: deletes what an acknowledged push superseded, frees its space and closes the file system,
//! after the user got the report.
//!
//! It commits the file system, which on a busy one takes as long as writing all data that other programs have
//! in memory; no user needs to wait for that. Meanwhile the push keeps its slot in the table of running pushes:
//! `status` shows it, the daemon does not stop before it has ended, and the next push of the volume to this
//! receiver waits for it.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Delete the push's own snapshot, which its sendshot replaces. — Older states; the next push supersedes them
//!    too.
//! 2. Delete the older states. — Only space that btrfs frees by itself in half a minute.
//! 3. Commit and wake the cleaner; close the hidden mount.

use std::sync::Arc;

use crate::push::stages::record::Superseded;
use crate::shared::blocking::blocking;
use crate::state::discard;
use crate::state::store::StateSubvolume;

/// Name of this stage in `status`.
pub const STAGE: &str = "release";

/// The work left for a push after its user got the outcome.
#[derive(Debug)]
pub struct Release {
    state: Arc<StateSubvolume>,
    superseded: Superseded,
}

impl Release {
    pub fn new(state: Arc<StateSubvolume>, superseded: Superseded) -> Self {
        Self { state, superseded }
    }

    /// Carries it out. What cannot be deleted now stays on record, and the next push tries again.
    pub async fn carry_out(self) {
        // The temporary state directory is deleted as a whole.
        if self.state.is_temporary() {
            return;
        }
        let work = move || {
            self.superseded.delete(&self.state);
            self.state.reclaim_space();
        };
        if let Err(e) = blocking("release", work).await {
            tracing::warn!("cannot delete the snapshot and records of a push: {e}");
        }
    }
}

impl Superseded {
    fn delete(&self, state: &StateSubvolume) {
        let own = self.snapshot_of.iter();
        let own = own.map(|record| (record, discard::delete_snapshot(state, record))); // 1
        let older = self.older.iter();
        let older = older.map(|record| (record, discard::discard(state, record))); // 2
        for (record, deleted) in own.chain(older) {
            if let Err(e) = deleted {
                tracing::warn!(push = %record.push, "cannot delete a superseded state: {e}");
            }
        }
    }
}
