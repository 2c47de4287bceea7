//! Runs blocking work on its own thread.
//!
//! The runtime's blocking pool is not used: its threads have no names, and the runtime waits for them at
//! shutdown without a time limit.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

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

/// Runs `work` on a new thread called `name` (the kernel shows 15 bytes of it), in the caller's log span.
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
    if let Err(source) = thread::Builder::new().name(name.to_owned()).spawn(body) {
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
        let name = run("apply", || thread::current().name().map(str::to_owned))
            .await
            .unwrap();
        assert_eq!(name.as_deref(), Some("apply"));
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
}
