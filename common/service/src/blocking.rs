//! Runs blocking work on threads.
//!
//! The runtime's blocking pool is not used: its threads have no names, and the runtime waits for them at
//! shutdown without a time limit.
//!
//! A push has some 20 short pieces of work one after the other. So a thread that has ended its work waits a moment for more:
//! making it takes longer than waking it.

use std::any::Any;
use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::Span;

/// Blocking work gave no result.
#[derive(Debug, thiserror::Error)]
pub enum BlockingError {
    /// The system cannot start a thread.
    #[error("cannot start thread `{name}`: {source}")]
    Spawn {
        /// Name of the thread.
        name: &'static str,
        /// Error from the system.
        source: io::Error,
    },
    /// The work panicked, which is a defect of this program.
    #[error("thread `{name}` panicked: {message}; this is a defect of sendshot")]
    Panicked {
        /// Name of the thread.
        name: &'static str,
        /// Message of the panic.
        message: String,
    },
}

/// How long a thread waits for more work.
const PATIENCE: Duration = Duration::from_secs(1);

/// The name of all these threads in the message of a panic.
const BLOCKING: &str = "blocking";

/// The kernel's name of a thread that waits.
const WAITING: &str = "waiting";

/// Work, and the kernel's name of the thread meanwhile.
type Work = (&'static str, Box<dyn FnOnce() + Send>);

/// The threads that wait.
static IDLE: Idle = Idle::new(PATIENCE);

struct Idle {
    patience: Duration,
    waiting: Mutex<Waiting>,
    is_given: Condvar,
}

struct Waiting {
    /// Number of threads; at least that of the work given to them.
    threads: usize,
    /// What no thread has taken yet.
    given: VecDeque<Work>,
}

impl Idle {
    const fn new(patience: Duration) -> Self {
        let waiting = Waiting {
            threads: 0,
            given: VecDeque::new(),
        };
        Self {
            patience,
            waiting: Mutex::new(waiting),
            is_given: Condvar::new(),
        }
    }

    /// Starts work on a thread that waits, otherwise on a new one.
    fn start(&'static self, work: Work) -> io::Result<()> {
        let mut waiting = self.lock();
        if waiting.threads > waiting.given.len() {
            waiting.given.push_back(work);
            self.is_given.notify_one();
            return Ok(());
        }
        drop(waiting);
        let thread = thread::Builder::new().name(BLOCKING.to_owned());
        thread.spawn(move || self.serve(work)).map(drop)
    }

    fn serve(&self, first: Work) {
        let mut next = Some(first);
        while let Some((name, work)) = next {
            rename(name);
            work();
            rename(WAITING);
            next = self.wait();
        }
    }

    /// Waits for more work. What was given at the last moment is taken, too.
    fn wait(&self) -> Option<Work> {
        let mut waiting = self.lock();
        waiting.threads += 1;
        let waited = self
            .is_given
            .wait_timeout_while(waiting, self.patience, |waiting| waiting.given.is_empty());
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        waiting.threads -= 1;
        waiting.given.pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets the kernel's name of this thread, which shows 15 bytes of it.
fn rename(name: &str) {
    if let Ok(name) = CString::new(name) {
        // Only who looks at the threads misses it.
        let _ = rustix::thread::set_name(&name);
    }
}

/// Runs `work` on a thread that the kernel calls `name` meanwhile, in the caller's log span.
///
/// Dropping the future does not end the work, but only loses the result: long work must watch a cancellation
/// token of its own.
///
/// # Errors
/// [`BlockingError`] if no thread can be started, or the work panics.
pub async fn run<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BlockingError> {
    let (done, result) = oneshot::channel();
    let span = Span::current();
    let body = move || {
        // A panic leaves no shared state half changed, because the closure owns what it uses.
        let outcome = catch_unwind(AssertUnwindSafe(|| span.in_scope(work)));
        // The caller may have dropped the future.
        let _ = done.send(outcome.map_err(|panic| message(panic.as_ref())));
    };
    if let Err(source) = IDLE.start((name, Box::new(body))) {
        return Err(BlockingError::Spawn { name, source });
    }
    match result.await {
        Ok(outcome) => outcome.map_err(|message| BlockingError::Panicked { name, message }),
        Err(_) => Err(BlockingError::Panicked {
            name,
            message: "no result".to_owned(),
        }),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_runs_on_a_thread_of_that_name() {
        for name in ["apply", "commit"] {
            let found = run(name, || rustix::thread::name().unwrap()).await.unwrap();
            assert_eq!(found.to_str().unwrap(), name);
        }
    }

    #[tokio::test]
    async fn it_does_not_hold_up_the_runtime() {
        let (go, wait) = std::sync::mpsc::channel();
        let (seven, ()) = tokio::join!(run("wait", move || wait.recv()), async {
            go.send(7).unwrap();
        });
        assert_eq!(seven.unwrap(), Ok(7));
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error() {
        let error = run("broken", || -> () { panic!("no such {}", "luck") })
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "thread `broken` panicked: no such luck; this is a defect of sendshot"
        );
    }

    fn idle(patience: Duration) -> &'static Idle {
        Box::leak(Box::new(Idle::new(patience)))
    }

    #[test]
    fn a_thread_that_waits_takes_more_work_and_no_work_waits_for_another() {
        let idle = idle(Duration::from_secs(60));
        let (done, ids) = std::sync::mpsc::channel();
        let told = || {
            let done = done.clone();
            Box::new(move || done.send(thread::current().id()).unwrap())
        };
        idle.start(("first", told())).unwrap();
        let first = ids.recv().unwrap();
        while idle.lock().threads == 0 {
            thread::yield_now();
        }
        idle.start(("second", told())).unwrap();
        assert_eq!(ids.recv().unwrap(), first);
        while idle.lock().threads == 0 {
            thread::yield_now();
        }
        // Each of them needs the others.
        let all = std::sync::Arc::new(std::sync::Barrier::new(4));
        for _ in 0..4 {
            let (all, told) = (all.clone(), told());
            let work = move || {
                all.wait();
                told();
            };
            idle.start(("together", Box::new(work))).unwrap();
        }
        let next = || ids.recv_timeout(Duration::from_secs(10)).unwrap();
        let found: std::collections::HashSet<_> = (0..4).map(|_| next()).collect();
        assert_eq!(found.len(), 4);
        assert!(found.contains(&first));
    }

    #[test]
    fn no_work_is_lost_to_a_thread_that_stops_waiting() {
        for patience in [0, 1, 20].map(Duration::from_micros) {
            let idle = idle(patience);
            let (done, ended) = std::sync::mpsc::channel();
            thread::scope(|scope| {
                for _ in 0..2 {
                    let done = done.clone();
                    scope.spawn(move || {
                        for _ in 0..2000 {
                            let done = done.clone();
                            let work = move || done.send(()).unwrap();
                            idle.start(("work", Box::new(work))).unwrap();
                            thread::sleep(patience);
                        }
                    });
                }
            });
            for work in 0..4000 {
                let ended = ended.recv_timeout(Duration::from_secs(10));
                assert!(ended.is_ok(), "{work} of 4000 ended, {patience:?}");
            }
        }
    }
}
