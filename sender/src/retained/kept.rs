//! What the sender keeps between pushes: the looking at it, for `sendshotctl list`, `prune` and
//! `forget`.

use std::collections::BTreeMap;

use sendshot_model::{PeerName, Reason, ReasonCode, ReceiverId};
use sendshot_proto::{malformed, v1};
use uuid::Uuid;

use crate::decide::retention::{self, Verdict};
use crate::retained::selection::Selection;
use crate::shared::sender::Sender;
use crate::state::filesystems::NotLookedAt;
use crate::state::journal::{Origin, Record, State};
use crate::state::presence;
use crate::state::presence::{Item, Presence};
use crate::state::state_subvolume::StateSubvolume;
use sendshot_model::Engine;

/// Receivers that are paired now, and which instance each is.
pub type Paired = BTreeMap<PeerName, ReceiverId>;

/// One kept state.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its record.
    pub record: Record,
    /// Whether it is there.
    pub presence: Presence,
    /// Bytes of its sendshot; 0 for one that has its snapshot.
    pub sendshot_bytes: u64,
    /// Bytes of the block hashes beside its sendshot.
    pub hashes_bytes: u64,
}

impl Kept {
    /// Looks at what an item names.
    pub fn of(state: &StateSubvolume, item: Item) -> Self {
        let bytes = |name| match (item.record.engine, presence::stat(state, name)) {
            (Engine::Sendshot, Ok(stat)) => u64::try_from(stat.st_size).unwrap_or(0),
            (Engine::Sendshot, Err(_)) | (Engine::Kernel, _) => 0,
        };
        Self {
            sendshot_bytes: bytes(&item.record.sendshot_name()),
            hashes_bytes: bytes(&item.record.hashes_name()),
            presence: item.presence,
            record: item.record,
        }
    }

    /// By volume, receiver and age.
    pub fn order(&self) -> impl Ord + use<> {
        let record = &self.record;
        let name = (record.volume_name.clone(), record.receiver_name.clone());
        (name, record.taken_at, retention::age_order(record))
    }

    fn uuid(&self) -> Option<Uuid> {
        self.record.snapshot.map(|snapshot| snapshot.uuid)
    }
}

/// Shows `work` the selected records of each file system that is there now; returns those that were not
/// looked at. Blocks.
pub fn each(
    sender: &Sender,
    selection: &Selection,
    mut work: impl FnMut(&StateSubvolume, Vec<Item>),
) -> Vec<NotLookedAt> {
    let vouched = sender.vouched();
    sender.remember_configured();
    sender.filesystems().each(|state| {
        let mut items = presence::items(state)?;
        // What this sender left before it was set up anew is its own.
        for item in &mut items {
            if vouched.contains(&(item.record.receiver, item.record.sender)) {
                item.record.sender = sender.id();
            }
        }
        items.retain(|item| selection.selects(sender, &item.record));
        work(state, items);
        Ok(())
    })
}

/// The sendshots and hidden snapshots on all file systems that are mounted now, each with the
/// reason why it is kept, and the file systems that were not looked at. Nobody is contacted. Blocks.
pub fn list(
    sender: &Sender,
    selection: &Selection,
    paired: &Paired,
) -> (Vec<v1::KeptSnapshot>, Vec<NotLookedAt>) {
    let keep = |volume: &_| sender.keep(volume);
    let in_use =
        |record: &Record| record.state == State::Sending && sender.table().contains(record.push);
    let mut listed = Vec::new();
    let missed = each(sender, selection, |state, items| {
        let verdicts = retention::decide(&items, keep, in_use);
        let reasons = reasons(&items, &verdicts);
        for ((item, verdict), reason) in items.into_iter().zip(verdicts).zip(reasons) {
            if item.presence == Presence::Here {
                let reason = why(&item.record, verdict, reason, paired);
                listed.push((Kept::of(state, item), reason));
            }
        }
    });
    listed.sort_by_key(|(kept, _)| kept.order());
    let all: Vec<Kept> = listed.iter().map(|(kept, _)| kept.clone()).collect();
    let described = listed
        .into_iter()
        .map(|(kept, reason)| describe(&kept, reason, &all, paired))
        .collect();
    (described, missed)
}

/// The reason of each verdict, with what the other records add to it.
pub fn reasons(items: &[Item], verdicts: &[Verdict]) -> Vec<Reason> {
    let reason = |(item, verdict): (&Item, &Verdict)| match verdict {
        Verdict::LastCommon if is_superseded_by_report(item, items) => {
            let receiver = &item.record.receiver_name;
            Reason::new(
                ReasonCode::LastSent,
                format!(
                    "the newest state that was sent to {receiver}; a newer one that {receiver} only \
                     reports to hold supersedes nothing"
                ),
            )
        }
        verdict => verdict.reason(&item.record),
    };
    items.iter().zip(verdicts).map(reason).collect()
}

/// Whether the receiver reports a newer state than this one, which was sent to it.
fn is_superseded_by_report(item: &Item, items: &[Item]) -> bool {
    let record = &item.record;
    record.origin == Origin::Sent
        && items.iter().any(|other| {
            other.presence == Presence::Here
                && other.record.state == State::Acknowledged
                && other.record.origin == Origin::Told
                && retention::chain(&other.record) == retention::chain(record)
                && retention::age_order(&other.record) > retention::age_order(record)
        })
}

/// Why it is still there, and what would delete it.
fn why(record: &Record, verdict: Verdict, reason: Reason, paired: &Paired) -> Reason {
    let is_paired = paired.values().any(|id| *id == record.receiver);
    match (verdict.lets_go(), is_paired) {
        (true, true) => return reason.and("the next push or `prune` lets it go"),
        (true, false) => return reason.and("`prune` lets it go"),
        (false, true) => return reason,
        (false, false) => {}
    }
    let receiver = &record.receiver_name;
    match paired.contains_key(receiver) {
        true => Reason::new(
            ReasonCode::ReceiverReplaced,
            format!(
                "the receiver that is paired as {receiver} now is another one, or was set up again since; \
                 `forget` lets it go"
            ),
        ),
        false => Reason::new(
            ReasonCode::NotPaired,
            format!("{receiver} is not paired any more; `forget` lets it go"),
        ),
    }
}

/// A kept state as a message. Its holders are those of all records of this state in `all`.
pub fn describe(kept: &Kept, reason: Reason, all: &[Kept], paired: &Paired) -> v1::KeptSnapshot {
    let record = &kept.record;
    let same_state = |other: &&Kept| match kept.uuid() {
        Some(uuid) => other.uuid() == Some(uuid),
        None => other.record.push == record.push,
    };
    v1::KeptSnapshot {
        volume: record.volume_name.to_string(),
        receiver: record.receiver_name.to_string(),
        uuid: kept
            .uuid()
            .map(|uuid| uuid.as_bytes().to_vec())
            .unwrap_or_default(),
        taken_at: record.taken_at,
        state: state_name(record.state).to_owned(),
        reason_code: reason_code(&reason),
        reason: reason.text,
        sendshot_bytes: kept.sendshot_bytes,
        hashes_bytes: kept.hashes_bytes,
        kind: match record.engine {
            Engine::Sendshot => "sendshot",
            Engine::Kernel => "snapshot",
        }
        .to_owned(),
        holders: all
            .iter()
            .filter(same_state)
            .filter_map(|other| holder(&other.record, paired))
            .collect(),
        push_id: record.push.to_bytes().to_vec(),
        root_id: malformed::root_bytes(record.root),
        acknowledged_at: record.acknowledged_at.unwrap_or_default(),
        foreign_host: String::new(),
    }
}

/// The code of a reason; empty if there is no reason.
fn reason_code(reason: &Reason) -> String {
    match reason.code {
        ReasonCode::NotRecorded => String::new(),
        code => code.to_string(),
    }
}

/// What messages call a state.
fn state_name(state: State) -> &'static str {
    match state {
        State::Acknowledged => "acknowledged",
        State::Unconfirmed => "unconfirmed",
        State::Sending => "unfinished",
    }
}

fn holder(record: &Record, paired: &Paired) -> Option<v1::Holder> {
    if record.state == State::Sending {
        return None;
    }
    Some(v1::Holder {
        receiver: record.receiver_name.to_string(),
        receiver_id: record.receiver.to_bytes().to_vec(),
        state: state_name(record.state).to_owned(),
        paired: paired.values().any(|id| *id == record.receiver),
    })
}
