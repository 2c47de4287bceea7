//! `sendshotctl list`: the kept states as messages.

use std::sync::Arc;

use sendshot_model::{Engine, Reason, ReasonCode};
use sendshot_proto::problem::Problem;
use sendshot_proto::report::path_bytes;
use sendshot_proto::{malformed, v1};
use uuid::Uuid;

use super::request::{paired, target};
use crate::problem::state;
use crate::retained::expire::{self, Waiting};
use crate::retained::foreign::{self, Foreign};
use crate::retained::list::{self, Kept, Paired};
use crate::retained::selection::Selection;
use crate::shared::blocking::blocking;
use crate::shared::holdings::{self, Holding, Summary};
use crate::shared::sender::Sender;
use crate::state::filesystems::NotLookedAt;
use crate::state::record::{Phase, Record};

/// Lists the kept states.
pub(super) async fn answer(
    sender: &Arc<Sender>,
    message: v1::ListRequest,
    root: bool,
) -> Result<v1::ListResponse, Problem> {
    let with_names = message.copies;
    let target = target(message.receiver, message.volume, root)?;
    let paired = paired(sender).await?;
    let sender = Arc::clone(sender);
    blocking("list", move || {
        let selection = Selection::resolve(&sender, target)?;
        let (listed, missed) = list::list(&sender, &selection, &paired);
        let mut snapshots = own(listed, &paired);
        if matches!(selection, Selection::All) {
            for found in foreign::list(&sender) {
                snapshots.extend(of_others(&found, &paired));
            }
        }
        let waiting = expire::list(&sender, &selection);
        let wanted = |held: &Summary| {
            let is_paired = paired.values().any(|id| *id == held.receiver_id);
            is_paired && selection.names(&held.receiver, (&held.volume, held.volume_id))
        };
        let held = holdings::all(&sender.paths().state_dir, with_names, wanted);
        let held = held.unwrap_or_else(|e| {
            tracing::warn!("cannot read what the receivers hold: {e}");
            Vec::new()
        });
        Ok(v1::ListResponse {
            held: held.into_iter().map(by_receiver).collect(),
            snapshots,
            interrupted: waiting.iter().map(interrupted).collect(),
            not_looked_at: missed.into_iter().map(not_looked_at).collect(),
            problem: None,
        })
    })
    .await?
}

fn by_receiver(held: Holding) -> v1::HeldByReceiver {
    let summary = held.summary;
    v1::HeldByReceiver {
        volume: summary.volume.to_string(),
        receiver: summary.receiver.to_string(),
        root_id: malformed::root_bytes(summary.root),
        as_of: summary.as_of,
        count: u64::try_from(summary.count).unwrap_or(u64::MAX),
        oldest: summary.oldest,
        newest: summary.newest,
        names: held.names,
    }
}

fn own(listed: Vec<(Kept, Reason)>, paired: &Paired) -> Vec<v1::KeptSnapshot> {
    let all: Vec<Kept> = listed.iter().map(|(kept, _)| kept.clone()).collect();
    let describe = |(kept, reason)| describe(&kept, reason, &all, paired);
    listed.into_iter().map(describe).collect()
}

/// Describes what other hosts left on one file system.
pub(super) fn of_others(found: &[Foreign], paired: &Paired) -> Vec<v1::KeptSnapshot> {
    let all: Vec<Kept> = found.iter().map(|foreign| foreign.kept.clone()).collect();
    let describe = |foreign: &Foreign| v1::KeptSnapshot {
        foreign_host: foreign.host.clone(),
        ..describe(&foreign.kept, foreign.reason.clone(), &all, paired)
    };
    found.iter().map(describe).collect()
}

/// Describes a file system that was not read.
pub(super) fn not_looked_at(missed: NotLookedAt) -> v1::NotLookedAt {
    let (reason, remedy) = state::reason(missed.why);
    v1::NotLookedAt {
        filesystem: missed.fsid.as_bytes().to_vec(),
        path: path_bytes(&missed.path),
        last_seen: missed.last_seen.unwrap_or(0),
        code: reason.code.to_string(),
        reason: match remedy.as_str() {
            "" => reason.text,
            remedy => format!("{} ({remedy})", reason.text),
        },
    }
}

fn interrupted(waiting: &Waiting) -> v1::Interrupted {
    let record = &waiting.record;
    let uuid = record.snapshot.map(|snapshot| snapshot.uuid);
    let transfer = record.transfer.as_ref();
    v1::Interrupted {
        volume: record.volume_name.to_string(),
        receiver: record.receiver_name.to_string(),
        push_id: record.push.to_bytes().to_vec(),
        transfer_id: transfer.map_or_else(Vec::new, |t| t.id.to_bytes().to_vec()),
        uuid: uuid.map_or_else(Vec::new, |uuid| uuid.as_bytes().to_vec()),
        taken_at: record.taken_at,
        offset: waiting.offset,
        until: waiting.until,
        unconfirmed: record.phase == Phase::Unconfirmed,
    }
}

/// Describes a kept state. Its holders are those of all records of this state in `all`.
pub(super) fn describe(
    kept: &Kept,
    reason: Reason,
    all: &[Kept],
    paired: &Paired,
) -> v1::KeptSnapshot {
    let record = &kept.record;
    let same_state = |other: &&Kept| match uuid(kept) {
        Some(known) => uuid(other) == Some(known),
        None => other.record.push == record.push,
    };
    v1::KeptSnapshot {
        volume: record.volume_name.to_string(),
        receiver: record.receiver_name.to_string(),
        uuid: uuid(kept)
            .map(|uuid| uuid.as_bytes().to_vec())
            .unwrap_or_default(),
        taken_at: record.taken_at,
        state: phase_name(record.phase).to_owned(),
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

/// Name of a state in messages.
fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Acknowledged => "acknowledged",
        Phase::Unconfirmed => "unconfirmed",
        Phase::Sending => "unfinished",
    }
}

fn holder(record: &Record, paired: &Paired) -> Option<v1::Holder> {
    if record.phase == Phase::Sending {
        return None;
    }
    Some(v1::Holder {
        receiver: record.receiver_name.to_string(),
        receiver_id: record.receiver.to_bytes().to_vec(),
        state: phase_name(record.phase).to_owned(),
        paired: paired.values().any(|id| *id == record.receiver),
    })
}

fn uuid(kept: &Kept) -> Option<Uuid> {
    kept.record.snapshot.map(|snapshot| snapshot.uuid)
}
