//! What this process knows of interrupted pushes besides their journal.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sendshot_model::PushId;

use crate::state::segment_log::RecentSegments;

#[derive(Debug)]
pub struct InterruptedPushes {
    /// Whether there may be one that keeps its snapshot.
    may_exist: AtomicBool,
    /// What is known of their streams besides their marks.
    memories: Mutex<HashMap<PushId, RecentSegments>>,
    /// The mounts of their file systems, while their snapshots were taken.
    mounts: Mutex<HashMap<PushId, u64>>,
}

impl Default for InterruptedPushes {
    /// After a start there may be interrupted pushes.
    fn default() -> Self {
        Self {
            may_exist: AtomicBool::new(true),
            memories: Mutex::default(),
            mounts: Mutex::default(),
        }
    }
}

impl InterruptedPushes {
    /// Notes that there is an interrupted push that keeps its snapshot.
    pub fn note(&self) {
        self.may_exist.store(true, Ordering::Release);
    }

    /// Returns whether there may be such a push, and resets that until the next note.
    pub fn take(&self) -> bool {
        self.may_exist.swap(false, Ordering::AcqRel)
    }

    /// Keeps what is known of an interrupted stream until the push is resumed or discarded.
    pub fn keep_recent(&self, push: PushId, memory: RecentSegments) {
        self.memories().insert(push, memory);
    }

    /// Takes what is known of a push's stream besides its marks.
    pub fn take_recent(&self, push: PushId) -> RecentSegments {
        self.memories().remove(&push).unwrap_or_default()
    }

    /// Keeps the mount in which the snapshot of an interrupted push was taken, until the push is completed.
    pub fn keep_mount(&self, push: PushId, mount: u64) {
        self.mounts().insert(push, mount);
    }

    /// Takes the mount in which the snapshot of a push was taken, if this process has seen it.
    pub fn take_mount(&self, push: PushId) -> Option<u64> {
        self.mounts().remove(&push)
    }

    fn mounts(&self) -> MutexGuard<'_, HashMap<PushId, u64>> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memories(&self) -> MutexGuard<'_, HashMap<PushId, RecentSegments>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
