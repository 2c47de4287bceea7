//! The life of a daemon's process, around the library that does its work.

use std::process::ExitCode;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::logging;
use crate::notify::{self, Watchdog};
use crate::signals::Signals;

/// Exit code for every failure that keeps a daemon from its work.
const FAILED: u8 = 1;

/// Requests from outside to a daemon.
#[derive(Debug, Clone, Default)]
pub struct Life {
    /// Cancelled when the daemon must end, which it should do soon.
    pub stop: CancellationToken,
    /// Notified when the daemon must read its configuration again.
    pub reload: Arc<Notify>,
}

/// Runs `work` with logs, signal handlers and systemd's watchdog set up.
pub fn run<F>(work: impl FnOnce(Life) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    exit_code(try_run(work))
}

fn try_run<F>(work: impl FnOnce(Life) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    logging::init()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(async {
        let reload = Arc::new(Notify::new());
        let hook = Arc::clone(&reload);
        let signals = Signals::install(move || hook.notify_one())?;
        let _watchdog = Watchdog::start();
        let stop = signals.shutdown();
        let result = work(Life { stop, reload }).await;
        notify::stopping();
        result
    });
    // Remaining tasks have had their time; a call that hangs in the kernel must not block the exit.
    runtime.shutdown_background();
    result
}

/// Prints an error with its causes and returns the exit code.
pub fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(FAILED)
        }
    }
}
