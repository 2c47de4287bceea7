//! The part of `sendshotctl status` about each volume and receiver.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use sendshot_config::SenderConfig;
use sendshot_proto::{malformed, v1};
use tonic::Status;

use super::running as message;
use crate::schedule::outlook::{self, Outlook, Pair};
use crate::schedule::unchanged::{self, Found};
use crate::shared::blocking::blocking;
use crate::shared::holdings::{self, Holding};
use crate::shared::last_pushes::{Last, Outcome};
use crate::shared::probes::Patience;
use crate::shared::sender::Sender;

/// Every configured volume with each of its receivers, and the others that were pushed, by volume and receiver.
pub(super) async fn all(sender: &Arc<Sender>) -> Result<Vec<v1::ReplicationState>, Status> {
    let looking = Arc::clone(sender);
    let states = blocking("status", move || states(&looking)).await;
    states.map_err(|e| Status::internal(e.to_string()))
}

fn states(sender: &Sender) -> Vec<v1::ReplicationState> {
    let config = sender.config();
    let mut last: BTreeMap<Pair, Last> = BTreeMap::new();
    for push in sender.last_pushes().all() {
        let (receiver, volume) = (push.receiver.clone(), push.volume.clone());
        last.insert(Pair { receiver, volume }, push);
    }
    let configured = config.volumes.iter().flat_map(|(name, volume)| {
        let pair = |receiver: &_| Pair {
            receiver: Clone::clone(receiver),
            volume: name.clone(),
        };
        volume.receivers.iter().map(pair).collect::<Vec<_>>()
    });
    let pairs: BTreeSet<Pair> = configured.chain(last.keys().cloned()).collect();
    let held = holdings::all(&sender.paths().state_dir, false, |_| true).unwrap_or_default();
    let mut states: Vec<_> = pairs
        .iter()
        .flat_map(|pair| {
            let (newest, others) = of_pair(pair, &held);
            let current = state(sender, &config, pair, (last.get(pair), newest));
            std::iter::once(current).chain(others.into_iter().map(other_disk))
        })
        .collect();
    states.sort_by(|a, b| (&a.volume, &a.receiver).cmp(&(&b.volume, &b.receiver)));
    states
}

/// What the disk holds that was pushed to last, and what the receiver's other disks hold.
fn of_pair<'a>(pair: &Pair, held: &'a [Holding]) -> (Option<&'a Holding>, Vec<&'a Holding>) {
    let of_pair = held.iter().filter(|held| {
        (&held.summary.receiver, &held.summary.volume) == (&pair.receiver, &pair.volume)
    });
    let mut all: Vec<&Holding> = of_pair.collect();
    all.sort_by_key(|held| held.summary.as_of);
    (all.pop(), all)
}

/// Another disk of a receiver.
fn other_disk(held: &Holding) -> v1::ReplicationState {
    v1::ReplicationState {
        volume: held.summary.volume.to_string(),
        receiver: held.summary.receiver.to_string(),
        root_id: malformed::root_bytes(held.summary.root),
        newest: held.summary.newest.clone(),
        fresh_at: held.summary.as_of,
        other_disk: true,
        ..v1::ReplicationState::default()
    }
}

fn state(
    sender: &Sender,
    config: &SenderConfig,
    pair: &Pair,
    (last, newest): (Option<&Last>, Option<&Holding>),
) -> v1::ReplicationState {
    let configured = config.volumes.get(&pair.volume);
    let run = sender.runs().get(&pair.key());
    let unchanged_at = run.and_then(|run| run.unchanged_at);
    let found = unchanged::look(sender, config, pair, Patience::Short);
    let (is_unchanged, reported_at) = match found {
        Found::Changed | Found::NoAnswer(_) => (false, None),
        Found::Unchanged(pushed) | Found::ToBeConfirmed(pushed) => (true, Some(pushed.reported_at)),
    };
    let pushed_at = last.and_then(|last| last.last_success);
    let fresh_at = pushed_at.max(unchanged_at).max(reported_at);
    let mut state = v1::ReplicationState {
        volume: pair.volume.to_string(),
        receiver: pair.receiver.to_string(),
        root_id: malformed::root_bytes(newest.and_then(|held| held.summary.root)),
        newest: newest.map_or_else(String::new, |held| held.summary.newest.clone()),
        fresh_at: fresh_at.unwrap_or(0),
        unchanged: is_unchanged,
        max_age: configured
            .and_then(|volume| volume.max_age)
            .map_or(0, |age| age.as_secs()),
        schedule: configured
            .and_then(|volume| volume.schedule.as_ref())
            .map_or_else(String::new, |schedule| schedule.when.to_string()),
        trouble: match last.map(|last| &last.outcome) {
            Some(Outcome::Failed(error)) => error.clone(),
            Some(Outcome::Done(_)) | None => String::new(),
        },
        ..v1::ReplicationState::default()
    };
    let running = sender
        .table()
        .all()
        .into_iter()
        .find(|running| (&running.receiver, &running.volume) == (&pair.receiver, &pair.volume));
    state.running = running.as_ref().map(message::describe);
    let now = Timestamp::now();
    match outlook::of(sender, config, pair) {
        Outlook::Waits { at } => state.next_run = at.as_second(),
        Outlook::Due { .. } => state.next_run = now.as_second(),
        Outlook::NotScheduled | Outlook::Running | Outlook::Paused(_) => {}
    }
    if let Some(pause) = sender.pauses().of(&pair.receiver, &pair.volume, now) {
        state.paused_until = pause.until.map_or(-1, Timestamp::as_second);
    }
    state
}
