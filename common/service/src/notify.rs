//! Notifies systemd of the daemon's state. Without systemd, all of this does nothing.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// Reports that the daemon is ready, also after a reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Reports that the daemon was requested to stop.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Reports that the daemon reads its configuration again; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => complain(&error),
    }
}

/// Reports what the daemon is doing, in one line, for `systemctl status`.
pub fn status(text: &str) {
    // A line end would begin another assignment.
    tell(&[NotifyState::Status(&text.replace(['\n', '\r'], " "))]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        complain(&error);
    }
}

fn complain(error: &io::Error) {
    tracing::warn!(%error, "cannot notify systemd");
}

/// The task that reports to systemd's watchdog that the runtime is alive. It ends when this is dropped.
#[derive(Debug)]
pub struct Watchdog(Option<JoinHandle<()>>);

impl Watchdog {
    /// Starts the task if the unit requests it (`WatchdogSec=`). Must be called within the runtime.
    #[must_use]
    pub fn start() -> Self {
        Self(sd_notify::watchdog_enabled().map(|limit| tokio::spawn(ping(limit))))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Pings at half of the limit, as `sd_watchdog_enabled(3)` recommends.
async fn ping(limit: Duration) {
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}
