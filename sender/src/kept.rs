//! What the sender keeps between pushes, for `sendshotctl list`.

use std::ffi::OsStr;

use sendshot_proto::v1;
use sendshot_sys::durable;

use crate::engine::Engine;
use crate::journal::{self, Record, State};
use crate::sender::Sender;
use crate::state_subvolume::StateSubvolume;

/// What messages call a push that the receiver has committed.
const ACKNOWLEDGED: &str = "acknowledged";

/// The hidden snapshots and sendshots on all file systems that are mounted now; empty filters mean all.
pub fn list(sender: &Sender, receiver: &str, volume: &str) -> Vec<v1::KeptSnapshot> {
    let mut kept = Vec::new();
    sender
        .filesystems()
        .each(|state| match journal::records(state.pushes()) {
            Ok(records) => kept.extend(
                records
                    .iter()
                    .filter(|record| record.sender == sender.id())
                    .filter(|record| matches(record.receiver_name.as_str(), receiver))
                    .filter(|record| matches(record.volume_name.as_str(), volume))
                    .filter_map(|record| Some((record, size(state, record)?)))
                    .map(|(record, size)| describe(sender, record, size)),
            ),
            Err(e) => tracing::warn!("read the journal of pushes: {e}"),
        });
    kept.sort_by(|a, b| {
        (&a.volume, &a.receiver, a.taken_at).cmp(&(&b.volume, &b.receiver, b.taken_at))
    });
    explain_older(&mut kept);
    kept
}

/// Only the newest acknowledged state is the parent that a push would take first.
fn explain_older(sorted: &mut [v1::KeptSnapshot]) {
    let mut newer: Option<(String, String)> = None;
    for kept in sorted
        .iter_mut()
        .rev()
        .filter(|kept| kept.state == ACKNOWLEDGED)
    {
        let key = (kept.volume.clone(), kept.receiver.clone());
        if newer.as_ref() == Some(&key) {
            kept.reason = format!(
                "in case {} loses its newest copy; see `keep`",
                kept.receiver
            );
        }
        newer = Some(key);
    }
}

fn matches(found: &str, wanted: &str) -> bool {
    wanted.is_empty() || found == wanted
}

/// Bytes of the sendshot of a record, 0 for one that has its snapshot; `None` for one whose
/// snapshot somebody has deleted.
fn size(state: &StateSubvolume, record: &Record) -> Option<u64> {
    if record.engine == Engine::Sendshot {
        let name = record.sendshot_name();
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statat(state.sendshots(), name, flags).ok()?;
        return u64::try_from(stat.st_size).ok();
    }
    let name = record.snapshot_name();
    durable::open_dir(state.snapshots(), OsStr::new(&name))
        .ok()
        .map(|_| 0)
}

fn describe(sender: &Sender, record: &Record, sendshot_bytes: u64) -> v1::KeptSnapshot {
    let (state, reason) = match record.state {
        State::Acknowledged => (
            ACKNOWLEDGED,
            format!("parent of the next push to {}", record.receiver_name),
        ),
        State::Unconfirmed => (
            "unconfirmed",
            format!(
                "{} may have committed it; the next push finds out",
                record.receiver_name
            ),
        ),
        State::Sending if sender.table().contains(record.push) => {
            ("unfinished", "it is being pushed".to_owned())
        }
        State::Sending => (
            "unfinished",
            "left by a push that broke off; the next one removes it".to_owned(),
        ),
    };
    v1::KeptSnapshot {
        volume: record.volume_name.to_string(),
        receiver: record.receiver_name.to_string(),
        uuid: record
            .snapshot
            .map(|snapshot| snapshot.uuid.as_bytes().to_vec())
            .unwrap_or_default(),
        taken_at: record.taken_at,
        state: state.to_owned(),
        reason,
        sendshot_bytes,
    }
}
