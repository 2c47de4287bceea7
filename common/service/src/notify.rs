//! Telling systemd how the daemon is. Without systemd, all of this does nothing.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// The daemon does its work from now on; also the end of a reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The daemon has been told to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The daemon reads its configuration again; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => complain(&error),
    }
}

/// What the daemon is doing, in one line, for `systemctl status`.
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

/// The task that tells systemd's watchdog that the runtime still turns. It ends when dropped.
#[derive(Debug)]
pub struct Watchdog(Option<JoinHandle<()>>);

impl Watchdog {
    /// Starts it if the unit asks for it (`WatchdogSec=`). To be called within the runtime.
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
