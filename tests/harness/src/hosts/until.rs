//! Waits for a condition instead of for a fixed time.

use std::thread;
use std::time::{Duration, Instant};

/// Interval between two checks of a condition.
const EVERY: Duration = Duration::from_millis(10);
/// Time limit for anything that takes a moment on an idle host.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` returns a value.
///
/// # Panics
/// If it does not within [`PATIENCE`]; `what` names the condition.
#[track_caller]
pub fn some<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::sleep(EVERY);
    }
}

/// Waits until `condition` is true.
///
/// # Panics
/// If it does not become true within [`PATIENCE`].
#[track_caller]
pub fn holds(what: &str, mut condition: impl FnMut() -> bool) {
    some(what, || condition().then_some(()));
}
