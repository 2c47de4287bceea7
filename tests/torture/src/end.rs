//! When a run ends: at its time, or at a request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Set when the run is to stop early.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Ends a run as soon as its hosts are deleted.
fn stop() {
    STOPPED.store(true, Ordering::Relaxed);
}

/// Whether no further iteration may begin.
pub(crate) fn is_over(end: Option<Instant>) -> bool {
    STOPPED.load(Ordering::Relaxed) || end.is_some_and(|end| Instant::now() >= end)
}

/// Ends the run on Ctrl-C once its hosts are deleted. Current iterations fail, as the daemons get it too.
pub fn end_by_ctrl_c() {
    std::thread::spawn(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        if let Ok(runtime) = runtime.enable_all().build()
            && runtime.block_on(tokio::signal::ctrl_c()).is_ok()
        {
            eprintln!("ending; what is under way is put away first");
            stop();
        }
    });
}
