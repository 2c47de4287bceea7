//! Stage *prune*: deleting hidden snapshots that no later push needs.

use std::io;
use std::num::NonZeroU32;

use sendshot_engine::hashes;
use sendshot_model::{PushId, ReceiverId, VolumeId};
use sendshot_sys::{durable, filesystem, subvolume};

use crate::engine::Engine;
use crate::journal::{self, Record, State};
use crate::state_subvolume::StateSubvolume;

/// Deletes the snapshot and the sendshot of a record, then the record.
///
/// Steps, and what a crash after each leaves:
///
/// 1. Delete the snapshot. — Both, or a record without snapshot, which is let go once more.
/// 2. Commit. — A record without snapshot.
/// 3. Remove the record. — Nothing. Without step 2 it could be durable before step 1 is, and
///    leave a snapshot that no record names and nobody ever deletes.
///
/// # Errors
/// The kernel's; the record then stays, so that settling tries again.
pub fn let_go(state: &StateSubvolume, record: &Record) -> io::Result<()> {
    release(state, record)?; // 1, 2
    let name = record.sendshot_name();
    durable::remove_at(state.sendshots(), &hashes::companion(&name))?;
    durable::remove_at(state.sendshots(), &name)?;
    record.remove(state.pushes()) // 3
}

/// Deletes the snapshot of a record, durably; record and sendshot stay.
///
/// # Errors
/// The kernel's.
pub fn release(state: &StateSubvolume, record: &Record) -> io::Result<()> {
    destroy(state, record)?;
    filesystem::commit(state.top())
}

fn destroy(state: &StateSubvolume, record: &Record) -> io::Result<()> {
    match subvolume::destroy(state.snapshots(), &record.snapshot_name()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// What was acknowledged of this volume and receiver before `newest`, the push just acknowledged,
/// and can go: all snapshots, since they pin data, and all but `keep` sendshots, the newest
/// included.
///
/// # Errors
/// The kernel's, for reading the journal.
pub fn superseded(
    state: &StateSubvolume,
    volume: VolumeId,
    receiver: ReceiverId,
    newest: PushId,
    keep: NonZeroU32,
) -> io::Result<Vec<Record>> {
    let records = journal::records(state.pushes())?;
    let chosen = choose(&records, volume, receiver, newest, keep);
    Ok(chosen.into_iter().cloned().collect())
}

/// What `newest` makes superfluous. Pure.
fn choose(
    records: &[Record],
    volume: VolumeId,
    receiver: ReceiverId,
    newest: PushId,
    keep: NonZeroU32,
) -> Vec<&Record> {
    let Some(newest) = records.iter().find(|record| record.push == newest) else {
        return Vec::new();
    };
    let mut older: Vec<&Record> = records
        .iter()
        .filter(|record| record.volume == volume && record.receiver == receiver)
        .filter(|record| record.push != newest.push && record.sender == newest.sender)
        .filter(|record| record.state == State::Acknowledged)
        .collect();
    older.sort_by_key(|record| record.snapshot.map(|snapshot| snapshot.otransid));
    let (sendshots, mut superfluous): (Vec<_>, Vec<_>) = older
        .into_iter()
        .partition(|record| record.engine == Engine::Sendshot);
    let kept = keep.get() as usize - 1;
    let surplus = sendshots.len().saturating_sub(kept);
    superfluous.extend(sendshots.into_iter().take(surplus));
    superfluous
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Intent;
    use sendshot_model::SenderId;
    use uuid::Uuid;

    fn record(like: Option<&Record>, state: State) -> Record {
        let fresh = Record::new(Intent {
            sender: like.map_or_else(SenderId::generate, |r| r.sender),
            volume: like.map_or_else(VolumeId::generate, |r| r.volume),
            volume_name: "photos".parse().unwrap(),
            receiver: like.map_or_else(ReceiverId::generate, |r| r.receiver),
            receiver_name: "nas2".parse().unwrap(),
            push: PushId::generate(),
            taken_at: 0,
            engine: Engine::Kernel,
        });
        Record { state, ..fresh }
    }

    #[test]
    fn only_older_acknowledged_pushes_of_the_same_volume_and_receiver_go() {
        let newest = record(None, State::Acknowledged);
        let old = record(Some(&newest), State::Acknowledged);
        let unconfirmed = record(Some(&newest), State::Unconfirmed);
        let elsewhere = Record {
            receiver: ReceiverId::generate(),
            ..record(Some(&newest), State::Acknowledged)
        };
        let other_box = Record {
            sender: SenderId::generate(),
            ..record(Some(&newest), State::Acknowledged)
        };
        let all = [
            newest.clone(),
            old.clone(),
            unconfirmed,
            elsewhere,
            other_box,
        ];
        let chosen = choose(
            &all,
            newest.volume,
            newest.receiver,
            newest.push,
            NonZeroU32::MIN,
        );
        assert_eq!(chosen, [&old]);
    }

    #[test]
    fn as_many_sendshots_are_kept_as_are_asked_for() {
        let newest = Record {
            engine: Engine::Sendshot,
            ..record(None, State::Acknowledged)
        };
        let older = |otransid| Record {
            engine: Engine::Sendshot,
            snapshot: Some(crate::journal::SnapshotId {
                uuid: Uuid::from_u128(u128::from(otransid)),
                otransid,
            }),
            ..record(Some(&newest), State::Acknowledged)
        };
        let (a, b, c) = (older(1), older(2), older(3));
        let all = [newest.clone(), c, a.clone(), b.clone()];
        let chosen = |keep| {
            let keep = NonZeroU32::new(keep).unwrap();
            choose(&all, newest.volume, newest.receiver, newest.push, keep)
        };
        assert_eq!(chosen(2), [&a, &b]);
        assert_eq!(chosen(1).len(), 3);
        assert!(chosen(4).is_empty());
    }
}
