//! What the administrator says by signals: end, or read the configuration again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The handlers of a daemon. Dropping it ends its task; the signals are then ignored.
#[derive(Debug)]
pub struct Signals {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Signals {
    /// Catches SIGTERM and SIGINT, the first of which cancels [`Signals::shutdown`], and SIGHUP,
    /// each of which calls `reload` on the runtime: it must not block.
    ///
    /// To be called within the runtime.
    ///
    /// # Errors
    /// If the system refuses a handler.
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

    /// Cancelled when the daemon is to end; a clone of the one token.
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

    // One test, since signals are the whole process's.
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
