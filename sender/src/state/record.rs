//! The records of the journal and of the log of segments, as values.

use std::ffi::OsString;

use sendshot_engine::StreamPosition;
use sendshot_engine::format::hashes;
use sendshot_model::history::SenderEvent;
use sendshot_model::{
    Engine, PeerName, PushId, ReasonCode, ReceiverId, RootId, SenderId, TransferId, VolumeId,
    VolumeName,
};
use sendshot_proto::chain::Chain;
use sendshot_proto::resume::Point;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Layout version of a record.
pub(crate) const VERSION: u32 = 1;

/// How far a push has come. Each state is written before the step that it announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The snapshot is about to be made, or was made; the receiver cannot have committed.
    Sending,
    /// Everything was sent: the receiver may have committed, but its acknowledgement is missing.
    Unconfirmed,
    Acknowledged,
}

/// The evidence that the receiver holds an acknowledged state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// This sender sent all of it.
    #[default]
    Sent,
    /// The receiver reports it; see [`crate::push::stages::prepare::capture_held`].
    #[serde(rename = "told")]
    Reported,
    /// It was fetched from this receiver, and took the place of the volume; see [`mod@crate::restore::record`]. No other
    /// receiver is known to hold the same content, whatever it reports: this receiver may have sent any.
    Restored,
}

impl Origin {
    pub(crate) fn is_sent(&self) -> bool {
        *self == Self::Sent
    }
}

/// How far a sendshot is trusted, by the streams that were built on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// No receiver has refused a stream.
    #[default]
    Good,
    /// A receiver could not apply a stream. Nothing is captured from this sendshot any more, and the next stream
    /// built on it is made from a whole capture.
    Suspect,
    /// A receiver could not apply that stream either. The sendshot is not used as a parent any more.
    Rejected,
}

impl Standing {
    fn is_good(&self) -> bool {
        *self == Self::Good
    }
}

/// A push and its hidden snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub version: u32,
    /// Also names the snapshot and the sendshot.
    pub push: PushId,
    /// The sender that made it: a disk can move between hosts.
    pub sender: SenderId,
    pub volume: VolumeId,
    /// The volume's name at that time.
    pub volume_name: VolumeName,
    pub receiver: ReceiverId,
    /// The receiver's name at that time.
    pub receiver_name: PeerName,
    /// The receiver's disk that it went to, if the receiver reports one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootId>,
    /// When the receiver's acknowledgement arrived, seconds since 1970 UTC by this host's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_at: Option<i64>,
    #[serde(rename = "state")]
    pub phase: Phase,
    /// When the snapshot was taken, seconds since 1970 UTC.
    pub taken_at: i64,
    /// The snapshot, known once it is made.
    pub snapshot: Option<SnapshotId>,
    /// The engine that makes the stream. With the sendshot engine the sendshot stays, and the snapshot is
    /// deleted as soon as the receiver has committed.
    #[serde(default = "Engine::of_old_records")]
    pub engine: Engine,
    /// What is needed to resume the transfer, written before it begins. `None` before, and for a transfer that
    /// cannot be resumed.
    #[serde(default)]
    pub transfer: Option<Transferring>,
    #[serde(default, skip_serializing_if = "Origin::is_sent")]
    pub origin: Origin,
    #[serde(default, skip_serializing_if = "Standing::is_good")]
    pub standing: Standing,
}

/// A transfer that can be resumed: with these the stream can be made again, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transferring {
    /// The id by which the receiver knows it.
    pub id: TransferId,
    pub stream_version: u32,
    /// `None` for a full send.
    pub parent: Option<ParentState>,
    /// The reason for this parent, for the user.
    pub reason: String,
    /// The reason for programs; earlier versions did not write it.
    #[serde(default)]
    pub reason_code: ReasonCode,
}

/// The parent state of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParentState {
    /// The push whose sendshot is the parent.
    pub push: PushId,
    /// UUID by which both sides know it.
    pub uuid: Uuid,
    pub ctransid: u64,
}

/// Identity of a hidden snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotId {
    pub uuid: Uuid,
    /// Transaction of its creation; orders the snapshots of one volume.
    pub otransid: u64,
}

/// The fields of a new record.
#[derive(Debug, Clone)]
pub struct Intent {
    pub sender: SenderId,
    pub volume: VolumeId,
    pub volume_name: VolumeName,
    pub receiver: ReceiverId,
    pub receiver_name: PeerName,
    pub push: PushId,
    /// The current time, seconds since 1970 UTC.
    pub taken_at: i64,
    pub engine: Engine,
}

impl Record {
    /// Whether the push can be resumed by this record.
    pub fn is_resumable(&self) -> bool {
        self.engine == Engine::Sendshot
            && self.transfer.is_some()
            && match self.phase {
                Phase::Sending | Phase::Unconfirmed => true,
                Phase::Acknowledged => false,
            }
    }

    /// The event that this state was deleted.
    pub fn pruned(&self, reason: &str) -> SenderEvent {
        SenderEvent::Pruned {
            receiver: self.receiver_name.clone(),
            volume: self.volume_name.clone(),
            uuids: self.snapshot.iter().map(|id| id.uuid).collect(),
            reason: reason.to_owned(),
        }
    }

    /// The record of a push that is about to make its snapshot.
    pub fn new(intent: Intent) -> Self {
        Self {
            version: VERSION,
            push: intent.push,
            sender: intent.sender,
            volume: intent.volume,
            volume_name: intent.volume_name,
            receiver: intent.receiver,
            receiver_name: intent.receiver_name,
            root: None,
            acknowledged_at: None,
            phase: Phase::Sending,
            taken_at: intent.taken_at,
            snapshot: None,
            engine: intent.engine,
            transfer: None,
            origin: Origin::Sent,
            standing: Standing::Good,
        }
    }

    /// Name of the sendshot, if there is one.
    pub fn sendshot_name(&self) -> OsString {
        sendshot_name(self.push)
    }

    /// Name of the file of block hashes beside the sendshot, if there is one.
    pub fn hashes_name(&self) -> OsString {
        hashes::companion(&self.sendshot_name())
    }

    /// Name of the hidden snapshot.
    pub fn snapshot_name(&self) -> OsString {
        self.push.to_string().into()
    }

    /// Sender, volume and receiver instance: states with the same key can be parents of each other.
    pub fn replication_key(&self) -> (SenderId, VolumeId, ReceiverId) {
        (self.sender, self.volume, self.receiver)
    }

    /// Whether the state can be the parent of a stream to a receiver with this disk, if that holds its UUID.
    pub fn may_be_parent_at(&self, (receiver, root): (ReceiverId, Option<RootId>)) -> bool {
        match self.origin {
            Origin::Sent | Origin::Reported => true,
            Origin::Restored => {
                self.receiver == receiver && (self.root.is_none() || self.root == root)
            }
        }
    }

    /// Orders the states of a volume by age. Two snapshots can be of one transaction.
    pub fn age_order(&self) -> (Option<u64>, i64, [u8; 16]) {
        let otransid = self.snapshot.map(|snapshot| snapshot.otransid);
        (otransid, self.taken_at, self.push.to_bytes())
    }
}

/// Name of the sendshot of a push.
pub fn sendshot_name(push: PushId) -> OsString {
    format!("{push}.sendshot").into()
}

/// Whether the snapshot or sendshot of a record exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Here,
    /// Deleted by a user or another program: it cannot be a parent.
    Gone,
}

/// A record with the presence of its snapshot or sendshot, as input of decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub record: Record,
    pub presence: Presence,
}

/// A point in the stream at which the sender can resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumePoint {
    /// The offset, and the skeleton of the stream before it.
    pub position: StreamPosition,
    /// Chain value at the offset.
    pub chain: Chain,
}

impl ResumePoint {
    /// The part that the receiver knows.
    pub fn point(&self) -> Point {
        Point {
            offset: self.position.offset,
            chain: self.chain,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_from_before_there_were_two_engines_is_the_kernels() {
        let record = crate::decide::retention::tests::record();
        let mut old = serde_json::to_value(&record).unwrap();
        old.as_object_mut().unwrap().remove("engine");
        let read: Record = serde_json::from_value(old).unwrap();
        assert_eq!(read.engine, Engine::Kernel);
    }

    #[test]
    fn a_restored_state_is_a_parent_only_where_it_was_fetched() {
        let sent = crate::decide::retention::tests::record();
        let (disk, other_disk) = (RootId::generate(), RootId::generate());
        let other = ReceiverId::generate();
        assert!(sent.may_be_parent_at((other, None)));
        let restored = Record {
            origin: Origin::Restored,
            ..sent.clone()
        };
        assert!(restored.may_be_parent_at((sent.receiver, Some(disk))));
        assert!(!restored.may_be_parent_at((other, Some(disk))));
        let on_disk = Record {
            root: Some(disk),
            ..restored
        };
        assert!(on_disk.may_be_parent_at((sent.receiver, Some(disk))));
        assert!(!on_disk.may_be_parent_at((sent.receiver, Some(other_disk))));
        assert!(!on_disk.may_be_parent_at((sent.receiver, None)));
    }
}
