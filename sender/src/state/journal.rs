//! The journal of pushes: what we created on a source file system, and why it is still there.
//!
//! One small file per push in the state subvolume, so it travels with the disk that it
//! describes. We delete only what it names.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;

use sendshot_engine::format::hashes;
use sendshot_model::{
    PeerName, PushId, ReasonCode, ReceiverId, RootId, SenderId, TransferId, VolumeId, VolumeName,
};
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use sendshot_model::Engine;

/// Layout version of a record.
const VERSION: u32 = 1;
/// How record files end.
const SUFFIX: &str = ".json";

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

    /// Writes the record, durably.
    ///
    /// # Errors
    /// The kernel's.
    pub fn store(&self, pushes: impl AsFd) -> io::Result<()> {
        durable::write_json_at(pushes, &file_name(self.push), self)
    }

    /// Removes the record, durably.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&self, pushes: impl AsFd) -> io::Result<()> {
        durable::remove_at(pushes, &file_name(self.push))
    }
}

/// Name of the sendshot of a push.
pub fn sendshot_name(push: PushId) -> OsString {
    format!("{push}.sendshot").into()
}

fn file_name(push: PushId) -> OsString {
    format!("{push}{SUFFIX}").into()
}

/// All records of a journal. One that cannot be read is reported and left alone: what it
/// names is then not known to be ours.
///
/// # Errors
/// The kernel's.
pub fn records(pushes: impl AsFd) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    for name in durable::names(&pushes)? {
        let text = name.to_string_lossy();
        if text.starts_with('.') || !text.ends_with(SUFFIX) {
            continue;
        }
        match read(&pushes, &name) {
            Ok(Some(record)) => records.push(record),
            Ok(None) => {}
            Err(e) => tracing::warn!(record = %text, "journal record cannot be read: {e}"),
        }
    }
    Ok(records)
}

/// What is said of a file of a layout that this version does not have.
pub(crate) fn other_version(found: u32, own: u32) -> String {
    match found > own {
        true => format!("its version {found} is newer than this program; upgrade"),
        false => format!("it says version {found}, which no program ever wrote"),
    }
}

fn read(pushes: impl AsFd, name: &OsStr) -> io::Result<Option<Record>> {
    let record: Option<Record> = durable::read_json_at(pushes, name)?;
    match record {
        Some(record) if record.version != VERSION => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            other_version(record.version, VERSION),
        )),
        Some(record) if file_name(record.push) != name => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it names another push than its file does",
        )),
        other => Ok(other),
    }
}

/// The record of one push, as it is now.
///
/// # Errors
/// The kernel's, or `InvalidData`.
pub fn find(pushes: impl AsFd, push: PushId) -> io::Result<Option<Record>> {
    read(pushes, &file_name(push))
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
