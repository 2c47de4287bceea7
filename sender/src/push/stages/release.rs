//! Stage *release*: deleting what an acknowledged push made superfluous, giving its space back and
//! letting go of the file system, after the user has been told.
//!
//! It commits the file system, which on a busy one takes as long as writing what others have in
//! memory; nobody who waits for the push needs that. The push keeps its place in the table of
//! running pushes meanwhile: `status` shows it, the daemon does not stop before it is over, and the
//! next push of the volume to this receiver waits for it.
//!
//! Steps, and what a crash after each leaves:
//!
//! 1. Delete the push's own snapshot, for which a sendshot stands. — Older states; the next push
//!    supersedes them too.
//! 2. Delete the older states. — Nothing but space that comes back by itself in half a minute.
//! 3. Commit and wake the cleaner; close the hidden mount.

use std::sync::Arc;

use crate::push::stages::record::Superfluous;
use crate::shared::blocking::blocking;
use crate::state::discard;
use crate::state::store::StateSubvolume;

/// The name of this stage in `status`.
pub const STAGE: &str = "release";

/// What a push still has to do when its user has been told how it ended.
#[derive(Debug)]
pub struct Release {
    state: Arc<StateSubvolume>,
    superfluous: Superfluous,
}

impl Release {
    /// For a push that is over.
    pub fn new(state: Arc<StateSubvolume>, superfluous: Superfluous) -> Self {
        Self { state, superfluous }
    }

    /// Does it. What cannot be deleted now stays on record and is tried again by the next push.
    pub async fn carry_out(self) {
        // All of it goes with the state.
        if self.state.is_passing() {
            return;
        }
        let work = move || {
            self.superfluous.delete(&self.state);
            self.state.reclaim_space();
        };
        if let Err(e) = blocking("release", work).await {
            tracing::warn!("let go of what a push left: {e}");
        }
    }
}

impl Superfluous {
    fn delete(&self, state: &StateSubvolume) {
        let own = self.snapshot_of.iter();
        let own = own.map(|record| (record, discard::release(state, record))); // 1
        let older = self.older.iter();
        let older = older.map(|record| (record, discard::let_go(state, record))); // 2
        for (record, deleted) in own.chain(older) {
            if let Err(e) = deleted {
                tracing::warn!(push = %record.push, "delete what is superfluous: {e}");
            }
        }
    }
}
