//! What the journal and the log of segments record, as values.

use std::ffi::OsString;

use sendshot_engine::Place;
use sendshot_engine::format::hashes;
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

/// How far a push came. Each state is written before the step that it announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The snapshot is about to be made, or was; nothing the receiver could have committed.
    Sending,
    /// All was sent: the receiver may have committed, we have not heard.
    Unconfirmed,
    /// The receiver has committed.
    Acknowledged,
}

/// How we know that the receiver has it, once it is acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// We sent all of it.
    #[default]
    Sent,
    /// It says so; see [`crate::push::stages::adopt`].
    Told,
}

impl Origin {
    fn is_sent(&self) -> bool {
        *self == Self::Sent
    }
}

/// How far a sendshot is trusted, by what became of the streams that were built on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// No receiver has refused one.
    #[default]
    Good,
    /// A receiver could not apply one. Nothing is captured from it any more, and the next stream that
    /// is built on it describes a snapshot that was captured whole.
    Suspect,
    /// A receiver could not apply that one either. It is not used as a parent any more.
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
    /// Layout version.
    pub version: u32,
    /// Names the record and the snapshot.
    pub push: PushId,
    /// Who made it: a disk can move between boxes.
    pub sender: SenderId,
    /// What was pushed.
    pub volume: VolumeId,
    /// Its name at that time.
    pub volume_name: VolumeName,
    /// Where to.
    pub receiver: ReceiverId,
    /// The receiver's name at that time.
    pub receiver_name: PeerName,
    /// The receiver's disk that it went to, if the receiver says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootId>,
    /// When the receiver said that it has committed, seconds since 1970 UTC by this host's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_at: Option<i64>,
    /// How far it came.
    pub state: State,
    /// When the snapshot was taken, seconds since 1970 UTC.
    pub taken_at: i64,
    /// The snapshot, known once it is made.
    pub snapshot: Option<SnapshotId>,
    /// What made the stream: with our engine the sendshot stays, and the snapshot goes as soon
    /// as the receiver has committed.
    #[serde(default = "Engine::of_old_records")]
    pub engine: Engine,
    /// What is needed to go on with the transfer when it breaks off, written before it begins.
    /// `None` before, and for what cannot be resumed.
    #[serde(default)]
    pub transfer: Option<Transferring>,
    /// How we know that the receiver has it.
    #[serde(default, skip_serializing_if = "Origin::is_sent")]
    pub origin: Origin,
    /// How far its sendshot is trusted.
    #[serde(default, skip_serializing_if = "Standing::is_good")]
    pub standing: Standing,
}

/// A transfer that can be resumed: with these the stream can be made again, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transferring {
    /// What the receiver knows it by.
    pub id: TransferId,
    /// Version of the send stream.
    pub stream_version: u32,
    /// What it builds on; `None` for a full send.
    pub parent: Option<ParentState>,
    /// Why on that, in words.
    pub reason: String,
    /// The same for programs; earlier versions did not write it.
    #[serde(default)]
    pub reason_code: ReasonCode,
}

/// The state that a transfer builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParentState {
    /// The push whose sendshot it is.
    pub push: PushId,
    /// UUID that both sides know it by.
    pub uuid: Uuid,
    /// Its ctransid here.
    pub ctransid: u64,
}

/// Identity of a hidden snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotId {
    /// UUID.
    pub uuid: Uuid,
    /// Transaction of its creation; orders the snapshots of one volume.
    pub otransid: u64,
}

/// What a new record says.
#[derive(Debug, Clone)]
pub struct Intent {
    /// Who pushes.
    pub sender: SenderId,
    /// What.
    pub volume: VolumeId,
    /// Its name.
    pub volume_name: VolumeName,
    /// Where to.
    pub receiver: ReceiverId,
    /// The receiver's name.
    pub receiver_name: PeerName,
    /// Which push it is.
    pub push: PushId,
    /// Now, seconds since 1970 UTC.
    pub taken_at: i64,
    /// What will make the stream.
    pub engine: Engine,
}

impl Record {
    /// Whether a push can be gone on with, by this record.
    pub fn is_resumable(&self) -> bool {
        self.engine == Engine::Sendshot
            && self.transfer.is_some()
            && match self.state {
                State::Sending | State::Unconfirmed => true,
                State::Acknowledged => false,
            }
    }

    /// A push that is about to make its snapshot.
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
            state: State::Sending,
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

    /// Which volume goes from which sender to which receiver instance: states of one such pair are parents of
    /// each other.
    pub fn replication_key(&self) -> (SenderId, VolumeId, ReceiverId) {
        (self.sender, self.volume, self.receiver)
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

/// Whether what a record names is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Here,
    /// Somebody deleted it behind our back: it is nobody's parent.
    Gone,
}

/// A record with what decisions need to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The record.
    pub record: Record,
    /// Whether its sendshot or snapshot is there.
    pub presence: Presence,
}

/// A place in the stream that the sender knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waypoint {
    /// Where it is, and what comes before it but the data.
    pub place: Place,
    /// Chain value there.
    pub chain: Chain,
}

impl Waypoint {
    /// It, as the receiver knows it.
    pub fn point(&self) -> Point {
        Point {
            offset: self.place.offset,
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
}
