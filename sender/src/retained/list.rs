//! Lists what the sender keeps between pushes, for `sendshotctl list`, `prune` and `forget`.

use std::collections::BTreeMap;

use sendshot_model::{PeerName, Reason, ReasonCode, ReceiverId};

use crate::decide::retention::{self, Verdict};
use crate::retained::selection::Selection;
use crate::shared::sender::Sender;
use crate::state::filesystems::NotLookedAt;
use crate::state::presence;
use crate::state::record::{Item, Phase, Presence, Record};
use crate::state::store::StateSubvolume;
use sendshot_model::Engine;

/// The paired receivers, and which instance each is.
pub type Paired = BTreeMap<PeerName, ReceiverId>;

#[derive(Debug, Clone)]
pub struct Kept {
    pub record: Record,
    pub presence: Presence,
    /// Bytes of its sendshot; 0 for one that has its snapshot.
    pub sendshot_bytes: u64,
    /// Bytes of the block hashes beside its sendshot.
    pub hashes_bytes: u64,
}

impl Kept {
    /// Adds the sizes of the files that an item names.
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

    /// Orders by volume, receiver and age.
    pub fn order(&self) -> impl Ord + use<> {
        let record = &self.record;
        let name = (record.volume_name.clone(), record.receiver_name.clone());
        (name, record.taken_at, record.age_order())
    }
}

/// Calls `work` with the selected records of each file system that is mounted; returns those that were not read.
/// Blocks.
pub fn each(
    sender: &Sender,
    selection: &Selection,
    mut work: impl FnMut(&StateSubvolume, Vec<Item>),
) -> Vec<NotLookedAt> {
    let vouched = sender.vouched();
    sender.remember_configured();
    sender.filesystems().each(|state| {
        let mut items = presence::items(state)?;
        // States that this sender left before it was set up again are its own.
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

/// Lists the sendshots and hidden snapshots on all file systems that are mounted, each with the reason why it is
/// kept, and the file systems that were not read. No receiver is contacted. Blocks.
pub fn list(
    sender: &Sender,
    selection: &Selection,
    paired: &Paired,
) -> (Vec<(Kept, Reason)>, Vec<NotLookedAt>) {
    let keep = |volume: &_| sender.keep(volume);
    let in_use =
        |record: &Record| record.phase == Phase::Sending && sender.table().contains(record.push);
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
    (listed, missed)
}

/// Makes the reason of each verdict, with what the other records add to it.
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
    record.origin.is_sent()
        && items.iter().any(|other| {
            other.presence == Presence::Here
                && other.record.phase == Phase::Acknowledged
                && !other.record.origin.is_sent()
                && other.record.replication_key() == record.replication_key()
                && other.record.age_order() > record.age_order()
        })
}

/// Explains why a state is still there, and what would delete it.
fn why(record: &Record, verdict: Verdict, reason: Reason, paired: &Paired) -> Reason {
    let is_paired = paired.values().any(|id| *id == record.receiver);
    match (verdict.deletes(), is_paired) {
        (true, true) => return reason.and("the next push or `prune` deletes it"),
        (true, false) => return reason.and("`prune` deletes it"),
        (false, true) => return reason,
        (false, false) => {}
    }
    let receiver = &record.receiver_name;
    match paired.contains_key(receiver) {
        true => Reason::new(
            ReasonCode::ReceiverReplaced,
            format!(
                "the receiver that is paired as {receiver} now is another one, or was set up again since; \
                 `forget` deletes it"
            ),
        ),
        false => Reason::new(
            ReasonCode::NotPaired,
            format!("{receiver} is not paired any more; `forget` deletes it"),
        ),
    }
}
