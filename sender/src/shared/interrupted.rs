//! What this process knows of interrupted pushes beyond their journal.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sendshot_model::PushId;

use crate::state::segment_log::Memory;

/// Interrupted pushes.
#[derive(Debug)]
pub struct InterruptedPushes {
    /// Whether there may be one that keeps its snapshot.
    may_exist: AtomicBool,
    /// What is known of their streams, beyond their marks.
    memories: Mutex<HashMap<PushId, Memory>>,
}

impl Default for InterruptedPushes {
    /// After a start there may be some.
    fn default() -> Self {
        Self {
            may_exist: AtomicBool::new(true),
            memories: Mutex::default(),
        }
    }
}

impl InterruptedPushes {
    /// Notes that a push has broken off and keeps its snapshot.
    pub fn note(&self) {
        self.may_exist.store(true, Ordering::Release);
    }

    /// Whether there may be such a push; there is none from now on, unless it is noted again.
    pub fn take(&self) -> bool {
        self.may_exist.swap(false, Ordering::AcqRel)
    }

    /// Keeps what is known of a stream that broke off until it is taken up or let go.
    pub fn keep_memory(&self, push: PushId, memory: Memory) {
        self.memories().insert(push, memory);
    }

    /// What is known of the stream of a push beyond its marks.
    pub fn take_memory(&self, push: PushId) -> Memory {
        self.memories().remove(&push).unwrap_or_default()
    }

    fn memories(&self) -> MutexGuard<'_, HashMap<PushId, Memory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
