//! How long, and how often, a broken transfer is continued.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

/// First and longest wait. The first is about what a daemon takes to restart; the longest bounds
/// how long the return of a receiver goes unnoticed.
const MIN_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// How long a transfer is retried since it last made progress.
#[derive(Debug)]
pub struct RetryBudget {
    retry_for: Duration,
    /// Whether to retry a receiver that was never reached.
    from_the_first: bool,
    contact: bool,
    since: Option<Instant>,
    waits: ExponentialBackoff,
}

impl RetryBudget {
    /// Uses the requested time, or else the configured one.
    pub fn new(asked: Option<Duration>, configured: Duration) -> Self {
        Self {
            retry_for: asked.unwrap_or(configured),
            from_the_first: asked.is_some(),
            contact: false,
            since: None,
            waits: waits(),
        }
    }

    /// Notes that the receiver was reached.
    pub fn contact(&mut self) {
        self.contact = true;
    }

    /// Notes progress: the next error starts the time again.
    pub fn progress(&mut self) {
        self.contact = true;
        self.since = None;
        self.waits = waits();
    }

    /// Returns the wait before the next attempt; `None` if there is to be none.
    pub fn next(&mut self, now: Instant) -> Option<Duration> {
        if !self.contact && !self.from_the_first {
            return None;
        }
        let until = *self.since.get_or_insert(now) + self.retry_for;
        let wait = self.waits.next().unwrap_or(MAX_BACKOFF);
        (now < until).then(|| wait.min(until - now))
    }
}

fn waits() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(MIN_BACKOFF)
        .with_max_delay(MAX_BACKOFF)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failure in a test ends it")]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_and_restarts_after_progress() {
        let minute = Duration::from_secs(60);
        let mut retry_budget = RetryBudget::new(None, minute);
        retry_budget.contact();
        let begin = Instant::now();
        let (mut total, mut attempts) = (Duration::ZERO, 0);
        while let Some(wait) = retry_budget.next(begin + total) {
            assert!(wait <= 2 * MAX_BACKOFF, "{wait:?}");
            total += wait;
            attempts += 1;
        }
        assert_eq!(total, minute);
        assert!((4..12).contains(&attempts), "{attempts}");
        retry_budget.progress();
        assert!(retry_budget.next(begin + total).unwrap() <= 3 * MIN_BACKOFF);
    }

    #[test]
    fn an_unreached_receiver_is_retried_on_request() {
        let minute = Duration::from_secs(60);
        assert_eq!(RetryBudget::new(None, minute).next(Instant::now()), None);
        assert!(
            RetryBudget::new(Some(minute), minute)
                .next(Instant::now())
                .is_some()
        );
        let mut none = RetryBudget::new(Some(Duration::ZERO), minute);
        assert_eq!(none.next(Instant::now()), None);
    }
}
