//! When a run ends: at its time, or at a request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Set when the run is to stop early.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Ends a run as soon as its hosts are deleted.
pub fn stop() {
    STOPPED.store(true, Ordering::Relaxed);
}

/// Whether no further iteration may begin.
pub(crate) fn is_over(end: Option<Instant>) -> bool {
    STOPPED.load(Ordering::Relaxed) || end.is_some_and(|end| Instant::now() >= end)
}
