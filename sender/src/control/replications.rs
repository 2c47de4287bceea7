//! The part of `sendshotctl status` about each volume and receiver.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use sendshot_config::SenderConfig;
use sendshot_proto::{malformed, v1};

use super::running as message;
use crate::schedule::outlook::{self, Outlook, Pair};
use crate::schedule::unchanged::{self, Found};
use crate::shared::blocking::blocking;
use crate::shared::holdings::{self, Holding};
use crate::shared::last_pushes::{Last, Outcome};
use crate::shared::sender::Sender;

/// Every configured volume with each of its receivers, and the others that were pushed, by volume and receiver.
pub(super) async fn all(sender: &Arc<Sender>) -> Vec<v1::ReplicationState> {
    let looking = Arc::clone(sender);
    let states = blocking("status", move || states(&looking));
    states.await.unwrap_or_default()
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
        .map(|pair| state(sender, &config, pair, (last.get(pair), &held)))
        .collect();
    states.sort_by(|a, b| (&a.volume, &a.receiver).cmp(&(&b.volume, &b.receiver)));
    states
}

fn state(
    sender: &Sender,
    config: &SenderConfig,
    pair: &Pair,
    (last, held): (Option<&Last>, &[Holding]),
) -> v1::ReplicationState {
    let of_pair = held.iter().filter(|held| {
        (&held.summary.receiver, &held.summary.volume) == (&pair.receiver, &pair.volume)
    });
    let newest = of_pair.max_by_key(|held| held.summary.as_of);
    let configured = config.volumes.get(&pair.volume);
    let run = sender.runs().get(&pair.key());
    let unchanged_at = run.and_then(|run| run.unchanged_at);
    let found = unchanged::look(sender, config, pair);
    let is_unchanged = !matches!(found, Found::Changed);
    let pushed_at = last.and_then(|last| last.last_success);
    let fresh_at = pushed_at.max(unchanged_at);
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
