//! Serves due runs of volumes that have not changed: no snapshot, no sync, and nothing read from the volume's disk.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sendshot_config::SenderConfig;

use crate::push::confirm;
use crate::schedule::outlook::Pair;
use crate::shared::blocking::blocking;
use crate::shared::pushed_states::PushedState;
use crate::shared::sender::Sender;
use crate::volume::live_state;

/// How old the receiver's report of a copy may be.
const MAX_REPORT_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// What was found of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It may have changed, or it is not known what the receiver holds.
    Changed,
    /// It is in the state that the receiver reported to hold, recently.
    Unchanged(PushedState),
    /// It is in that state, but the receiver's report is old.
    ToBeConfirmed(PushedState),
}

/// Compares the volume with what the receiver holds. Blocks.
pub fn look(sender: &Sender, config: &SenderConfig, pair: &Pair) -> Found {
    let Some(configured) = config.volumes.get(&pair.volume) else {
        return Found::Changed;
    };
    let receiver = sender.receiver_id(&pair.receiver);
    let pushed = receiver.and_then(|id| sender.pushed_states().get(id, &pair.volume));
    let (Some(pushed), None) = (pushed, &configured.snapshots) else {
        return Found::Changed;
    };
    match live_state::read(&configured.path) {
        Ok(Some(live)) if live == pushed.live => {}
        // Whatever it is, the push says it.
        Ok(_) | Err(_) => return Found::Changed,
    }
    let quarter = configured.max_age.map_or(MAX_REPORT_AGE, |age| age / 4);
    let max_age = i64::try_from(quarter.min(MAX_REPORT_AGE).as_secs()).unwrap_or(i64::MAX);
    let age = Timestamp::now().as_second() - pushed.reported_at;
    match (0..max_age).contains(&age) {
        true => Found::Unchanged(pushed),
        false => Found::ToBeConfirmed(pushed),
    }
}

/// Looks at a volume, and has the receiver confirm an old report. Returns the state that it certainly still holds.
pub async fn check(sender: &Arc<Sender>, pair: &Pair) -> Option<PushedState> {
    let (looking, of) = (Arc::clone(sender), pair.clone());
    let found = blocking("unchanged", move || {
        let config = looking.config();
        look(&looking, &config, &of)
    });
    match found.await.unwrap_or(Found::Changed) {
        Found::Changed => None,
        Found::Unchanged(pushed) => Some(pushed),
        Found::ToBeConfirmed(pushed) => confirm_again(sender, pair, pushed).await,
    }
}

async fn confirm_again(
    sender: &Arc<Sender>,
    pair: &Pair,
    pushed: PushedState,
) -> Option<PushedState> {
    let (receiver, volume) = (&pair.receiver, &pair.volume);
    match confirm::confirm(sender, (receiver, volume), pushed).await {
        Ok(Some(confirmed)) => Some(confirmed),
        Ok(None) => None,
        // The push finds out what is wrong, and says it.
        Err(e) => {
            tracing::debug!(%receiver, %volume, "cannot confirm that it is unchanged: {e}");
            None
        }
    }
}

/// Serves the due runs whose volumes are unchanged; returns the others. Those that the receiver has to confirm come after the
/// others, so that an absent receiver delays none of them.
pub(super) async fn serve(
    sender: &Arc<Sender>,
    due: Vec<(Timestamp, Pair)>,
) -> Vec<(Timestamp, Pair)> {
    if due.is_empty() {
        return due;
    }
    let looking = Arc::clone(sender);
    let looked = blocking("unchanged", move || {
        let config = looking.config();
        let look = |(slot, pair): (Timestamp, Pair)| {
            let found = look(&looking, &config, &pair);
            (slot, pair, found)
        };
        due.into_iter().map(look).collect::<Vec<_>>()
    });
    let mut changed = Vec::new();
    for (slot, pair, found) in looked.await.unwrap_or_default() {
        match found {
            Found::Unchanged(_) => served(sender, &pair, slot),
            // A run that contacts the receiver takes its turn like a push.
            Found::Changed | Found::ToBeConfirmed(_) => changed.push((slot, pair)),
        }
    }
    changed
}

/// Notes that a slot was served without a push.
pub(super) fn served(sender: &Sender, pair: &Pair, slot: Timestamp) {
    let now = Timestamp::now().as_second();
    sender.runs().change(&pair.key(), |run| {
        (run.served, run.failed, run.not_before) = (slot, 0, None);
        run.unchanged_at = Some(now);
    });
}
