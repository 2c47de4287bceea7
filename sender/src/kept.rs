//! What the sender keeps between pushes, for `sendshotctl list`.

use std::ffi::OsStr;

use sendshot_proto::v1;
use sendshot_sys::durable;

use crate::journal::{self, Record, State};
use crate::sender::Sender;
use crate::state_subvolume::StateSubvolume;

/// The hidden snapshots on all file systems that are mounted now; empty filters mean all.
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
                    .filter(|record| exists(state, record))
                    .map(|record| describe(sender, record)),
            ),
            Err(e) => tracing::warn!("read the journal of pushes: {e}"),
        });
    kept.sort_by(|a, b| {
        (&a.volume, &a.receiver, a.taken_at).cmp(&(&b.volume, &b.receiver, b.taken_at))
    });
    kept
}

fn matches(found: &str, wanted: &str) -> bool {
    wanted.is_empty() || found == wanted
}

fn exists(state: &StateSubvolume, record: &Record) -> bool {
    let name = record.snapshot_name();
    durable::open_dir(state.snapshots(), OsStr::new(&name)).is_ok()
}

fn describe(sender: &Sender, record: &Record) -> v1::KeptSnapshot {
    let (state, reason) = match record.state {
        State::Acknowledged => (
            "acknowledged",
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
    }
}
