//! Requests by signals: end, or read the configuration again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The signal handlers of a daemon. Dropping this ends its task; the signals are then ignored.
#[derive(Debug)]
pub struct Signals {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Signals {
    /// Catches SIGTERM and SIGINT, the first of which cancels [`Signals::shutdown`], and SIGHUP, each of
    /// which calls `reload` on the runtime: `reload` must not block.
    ///
    /// Must be called within the runtime.
    ///
    /// # Errors
    /// The system's error if it refuses a handler.
    pub fn install(reload: impl FnMut() + Send + 'static) -> io::Result<Self> {
        let caught = Caught {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(watch(caught, shutdown.clone(), reload));
        Ok(Self { shutdown, task })
    }

    /// Returns a clone of the token that is cancelled when the daemon must end.
    #[must_use]
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Caught {
    term: Signal,
    interrupt: Signal,
    hangup: Signal,
}

async fn watch(mut caught: Caught, shutdown: CancellationToken, mut reload: impl FnMut()) {
    loop {
        let name = tokio::select! {
            _ = caught.term.recv() => "SIGTERM",
            _ = caught.interrupt.recv() => "SIGINT",
            _ = caught.hangup.recv() => {
                reload();
                continue;
            }
        };
        tracing::info!(signal = name, "shutting down");
        shutdown.cancel();
        return;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sys::signal::{Signal as Kind, raise};
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    // There is only one test, since signals affect the whole process.
    #[tokio::test]
    async fn hangup_reloads_and_term_shuts_down() {
        let (reloads, mut reloaded) = mpsc::unbounded_channel();
        let signals = Signals::install(move || reloads.send(()).unwrap()).unwrap();
        for _ in 0..2 {
            raise(Kind::SIGHUP).unwrap();
            timeout(LIMIT, reloaded.recv()).await.unwrap().unwrap();
        }
        assert!(!signals.shutdown().is_cancelled());
        raise(Kind::SIGTERM).unwrap();
        timeout(LIMIT, signals.shutdown().cancelled())
            .await
            .unwrap();
    }
}
