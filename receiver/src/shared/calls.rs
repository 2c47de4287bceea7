//! Limits how many calls of each sender do their work on a thread at a time.
//!
//! The work continues if its caller disconnects: HTTP/2's limit no longer counts a call that was reset, so a client
//! that calls and resets repeatedly would have a thread for each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sendshot_model::SenderId;
use sendshot_service::blocking::{self, BlockingError};
use tokio::sync::Semaphore;

/// Concurrent calls of one sender. It makes one for each push that it begins; further ones wait a moment.
const AT_WORK: usize = 4;

/// The calls that are at work or wait.
#[derive(Debug, Default)]
pub struct Calls(Mutex<BTreeMap<Option<SenderId>, Arc<Semaphore>>>);

impl Calls {
    /// Runs `work` on a new thread called `name` when it is its sender's turn; strangers, without an id, take
    /// turns among themselves. Its slot is freed when the work ends, also if the caller has disconnected
    /// meanwhile; a caller that disconnects before its turn takes no slot.
    ///
    /// # Errors
    /// If no thread can be started, or the work panics.
    pub async fn run<T: Send + 'static>(
        &self,
        sender: Option<SenderId>,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingError> {
        // Fails only if the semaphore is closed, which never happens.
        let place = self.of(sender).acquire_owned().await;
        blocking::run(name, move || {
            let _place = place;
            work()
        })
        .await
    }

    /// The slots of a sender. Kept only as long as one is taken or waited for.
    fn of(&self, sender: Option<SenderId>) -> Arc<Semaphore> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Every taken or awaited slot shares the semaphore. None is added meanwhile: that takes the lock.
        all.retain(|_, places| Arc::strong_count(places) > 1);
        let places = all.entry(sender);
        Arc::clone(places.or_insert_with(|| Arc::new(Semaphore::new(AT_WORK))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    async fn until(what: &str, holds: impl Fn() -> bool) {
        let wait = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let waited = tokio::time::timeout(LIMIT, wait).await;
        assert!(waited.is_ok(), "not within {LIMIT:?}: {what}");
    }

    #[tokio::test]
    async fn reset_calls_count_against_a_senders_threads() {
        let (calls, begun) = (Arc::new(Calls::default()), Arc::new(AtomicUsize::new(0)));
        let (greedy, other) = (SenderId::generate(), SenderId::generate());
        let (go, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        for _ in 0..50 {
            let (begun, wait) = (Arc::clone(&begun), Arc::clone(&wait));
            let work = move || {
                begun.fetch_add(1, Ordering::SeqCst);
                let _ = wait.lock().unwrap().recv();
            };
            let call = calls.run(Some(greedy), "slow", work);
            // The caller disconnects before there is an answer.
            let gone = tokio::time::timeout(Duration::from_millis(2), call).await;
            assert!(gone.is_err());
        }
        until("all that may begin have", || {
            begun.load(Ordering::SeqCst) == AT_WORK
        })
        .await;
        // Other senders do not wait for it.
        for sender in [Some(other), None] {
            let quick = tokio::time::timeout(LIMIT, calls.run(sender, "quick", || 7)).await;
            assert_eq!(quick.unwrap().unwrap(), 7);
        }
        // A waiting call has its turn when the work of a disconnected one has ended.
        let waits = {
            let calls = Arc::clone(&calls);
            tokio::spawn(async move { calls.run(Some(greedy), "next", || 7).await })
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waits.is_finished());
        go.send(()).unwrap();
        let next = tokio::time::timeout(LIMIT, waits).await;
        assert_eq!(next.unwrap().unwrap().unwrap(), 7);
        assert_eq!(begun.load(Ordering::SeqCst), AT_WORK);
        drop(go);
    }

    #[tokio::test]
    async fn a_panic_gives_its_place_back() {
        let (calls, sender) = (Calls::default(), Some(SenderId::generate()));
        for _ in 0..2 * AT_WORK {
            let broken = calls.run(sender, "broken", || -> () { panic!("no luck") });
            assert!(broken.await.is_err());
        }
        assert!(calls.run(sender, "sound", || ()).await.is_ok());
    }

    #[tokio::test]
    async fn nothing_is_kept_of_senders_that_are_done() {
        let calls = Calls::default();
        for _ in 0..100 {
            let sender = Some(SenderId::generate());
            calls.run(sender, "quick", || ()).await.unwrap();
            // The thread frees its slot after it has answered.
            let idle = || {
                calls
                    .0
                    .lock()
                    .unwrap()
                    .values()
                    .all(|p| Arc::strong_count(p) == 1)
            };
            until("its thread has ended", idle).await;
        }
        assert_eq!(calls.0.lock().unwrap().len(), 1);
    }
}
