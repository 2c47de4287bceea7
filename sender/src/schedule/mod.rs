//! Pushes volumes by themselves, by `schedule` of sender.toml.
//!
//! [`watch`] looks at every volume and receiver whenever a run can be due. `outlook.rs` says what each waits for, by
//! [`crate::decide::schedule`]; `unchanged.rs` finds out, without a snapshot and without waking a disk, that there is nothing
//! to push; `run.rs` runs a push and notes its outcome. `turns.rs` decides which of the due runs begin.
//!
//! The daemon looks again at least every half minute by the wall clock, since its timers stand still while the host sleeps.

pub mod if_due;
pub mod outlook;
mod run;
mod turns;
pub mod unchanged;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sendshot_model::human;
use sendshot_service::notify;

use crate::schedule::outlook::{Outlook, Pair};
use crate::schedule::turns::Turns;
use crate::shared::sender::Sender;

/// Longest wait between two looks.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Shortest wait: many runs that become due at once are looked at together.
const MIN_WAIT: Duration = Duration::from_millis(200);

/// How often the runs are written to the state directory, at most.
const STORE_INTERVAL: Duration = Duration::from_secs(60);

/// Runs the schedules; ends only by being dropped. The pushes that it has begun belong to the daemon.
pub async fn watch(sender: Arc<Sender>) -> Infallible {
    run::resume_stopped(&sender).await;
    let turns = Arc::new(Turns::default());
    let mut stored = tokio::time::Instant::now();
    let mut told = String::new();
    loop {
        let (wait, next) = look(&sender, &turns).await;
        let text = in_a_line(&sender, next);
        if text != told {
            notify::status(&text);
            told = text;
        }
        if stored.elapsed() >= STORE_INTERVAL {
            store(&sender).await;
            stored = tokio::time::Instant::now();
        }
        tokio::time::sleep(MIN_WAIT).await;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = sender.schedule_changed().notified() => {}
        }
    }
}

/// Writes the runs to the state directory.
pub async fn store(sender: &Arc<Sender>) {
    let storing = Arc::clone(sender);
    let stored = sendshot_service::blocking::run("runs", move || storing.runs().store());
    if let Err(e) = stored.await {
        tracing::warn!("cannot store the runs: {e}");
    }
}

/// What the daemon is doing, for `systemctl status`.
fn in_a_line(sender: &Sender, next: Option<Timestamp>) -> String {
    let running = sender.table().all();
    match (running.as_slice(), next) {
        ([one], _) => format!("pushing {} to {}", one.volume, one.receiver),
        ([], Some(next)) => format!("the next run begins at {}", human::utc(next.as_second())),
        ([], None) => "no push is running".to_owned(),
        (several, _) => format!("{} pushes are running", several.len()),
    }
}

/// Begins what is due; returns how long nothing else is, and when the next run begins.
async fn look(sender: &Arc<Sender>, turns: &Arc<Turns>) -> (Duration, Option<Timestamp>) {
    let looking = Arc::clone(sender);
    let looked = sendshot_service::blocking::run("schedule", move || outlook::all(&looking)).await;
    let outlooks = match looked {
        Ok(outlooks) => outlooks,
        Err(e) => {
            tracing::warn!("cannot look at the schedules: {e}");
            return (MAX_WAIT, None);
        }
    };
    let mut next: Option<Timestamp> = None;
    let now = Timestamp::now();
    let mut wait = MAX_WAIT;
    let mut due: Vec<(Timestamp, Pair)> = Vec::new();
    let mut waiting = Vec::new();
    for (pair, outlook) in outlooks {
        match outlook {
            Outlook::Due { slot } => due.push((slot, pair)),
            Outlook::Waits { at } => {
                let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                wait = wait.min(left);
                next = Some(next.map_or(at, |next| next.min(at)));
                waiting.push(pair);
            }
            Outlook::Paused(_) => waiting.push(pair),
            Outlook::NotScheduled | Outlook::Running => {}
        }
    }
    due.sort_by_key(|(slot, _)| *slot);
    let due = unchanged::serve(sender, due).await;
    let mut all: Vec<(Option<Timestamp>, Pair)> = due
        .into_iter()
        .map(|(slot, pair)| (Some(slot), pair))
        .collect();
    if turns.is_time_to_confirm() {
        let old = unchanged::to_be_confirmed(sender, waiting).await;
        all.extend(old.into_iter().map(|pair| (None, pair)));
    }
    let max = sender.config().max_parallel.get() as usize;
    let to_confirm = all.iter().filter(|(slot, _)| slot.is_none()).count();
    let mut begun = 0;
    for (slot, pair, turn) in turns.choose(all, max) {
        begun += usize::from(slot.is_none());
        run::begin(sender, turn, pair, slot);
    }
    if begun < to_confirm {
        turns.confirm_soon();
    }
    (wait, next)
}
