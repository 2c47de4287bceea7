//! Detects a transfer that makes no progress.

use std::time::Duration;

use tokio::time::Instant;

/// How many times progress is checked during the stall time-out.
const CHECKS: u32 = 20;

/// Least time between two checks.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// Returns when a transfer has made no progress for `after`: `is_progress` compares an earlier and a later value of
/// `progress`. The total time does not count.
pub async fn stalled<T: Copy>(
    after: Duration,
    progress: impl Fn() -> T,
    is_progress: impl Fn(T, T) -> bool,
) {
    let (mut last, mut since) = (progress(), Instant::now());
    let mut checks = tokio::time::interval((after / CHECKS).max(MIN_INTERVAL));
    while since.elapsed() < after {
        checks.tick().await;
        let now = progress();
        if is_progress(last, now) {
            (last, since) = (now, Instant::now());
        }
    }
}
