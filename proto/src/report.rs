//! The report of a successful push.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sendshot_model::{NotKept, PeerName, ReasonCode, RootId, VolumeName};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Malformed, malformed, not_kept, v1};

/// Result of a push.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the volume.
    pub volume: VolumeName,
    /// Name of the receiver.
    pub receiver: PeerName,
    /// UUID of the state that was sent.
    pub uuid: Uuid,
    /// UUID of the parent; `None` for a full send.
    pub parent: Option<Uuid>,
    /// Reason for this parent, or for having none.
    pub parent_reason: String,
    /// The same reason for programs.
    #[serde(default)]
    pub parent_reason_code: ReasonCode,
    /// Name of the engine that generated the stream.
    pub engine: String,
    /// Length of the stream in bytes.
    pub stream_bytes: u64,
    /// Whether nothing of it could be retained because its file system is read-only: no other push can build on it.
    #[serde(default)]
    pub not_recorded: bool,
    /// Bytes on the connection in both directions, including encryption.
    pub wire_bytes: u64,
    /// Stream offset at which it was resumed, if it was.
    pub resumed_at: Option<u64>,
    /// Duration of the push in seconds.
    pub seconds: f64,
    /// UUIDs of the snapshots that were deleted on this host.
    pub pruned: Vec<Uuid>,
    /// Nested subvolumes that were left out; bytes of a path that are not UTF-8 are replaced.
    pub skipped: Vec<String>,
    /// Those of `skipped` that the last push of the volume did not leave out.
    #[serde(default)]
    pub newly_skipped: Vec<String>,
    /// Path of the copy below the receiver's root.
    pub copy: String,
    /// Path of the copy of an interrupted push that was completed first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_first: Option<String>,
    /// For a series: paths of the copies of the snapshots sent before this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<String>,
    /// The receiver's disk to which it was sent, if known.
    #[serde(skip)]
    pub root: Option<RootId>,
    /// What the copy lacks because the receiver's file system cannot keep it.
    #[serde(default)]
    pub not_kept: NotKept,
}

impl Report {
    /// Adds the report of the snapshot of the series that was sent before it.
    #[must_use]
    pub fn after_others(self, before: Option<Report>) -> Self {
        let Some(before) = before else { return self };
        let mut earlier = before.earlier;
        earlier.push(before.copy);
        Self {
            stream_bytes: before.stream_bytes + self.stream_bytes,
            wire_bytes: before.wire_bytes + self.wire_bytes,
            earlier,
            ..self
        }
    }

    /// Adds the report of the interrupted push that was completed first, if there was one.
    #[must_use]
    pub fn after(self, completed: Option<Report>) -> Self {
        match completed {
            None => self,
            Some(completed) => Self {
                resumed_at: completed.resumed_at,
                pruned: [completed.pruned, self.pruned].concat(),
                completed_first: Some(completed.copy),
                ..self
            },
        }
    }
}

/// Converts a path to the bytes of a message.
pub fn path_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

impl From<Report> for v1::PushReport {
    fn from(report: Report) -> Self {
        let bytes = |uuid: Uuid| uuid.as_bytes().to_vec();
        Self {
            volume: report.volume.to_string(),
            receiver: report.receiver.to_string(),
            uuid: bytes(report.uuid),
            parent: report.parent.map(bytes).unwrap_or_default(),
            parent_reason: report.parent_reason,
            parent_reason_code: report.parent_reason_code.to_string(),
            engine: report.engine,
            stream_bytes: report.stream_bytes,
            not_recorded: report.not_recorded,
            wire_bytes: report.wire_bytes,
            resumed_at: report.resumed_at,
            seconds: report.seconds,
            pruned: report.pruned.into_iter().map(bytes).collect(),
            skipped: report.skipped.into_iter().map(String::into_bytes).collect(),
            newly_skipped: report
                .newly_skipped
                .into_iter()
                .map(String::into_bytes)
                .collect(),
            copy: report.copy,
            completed_first: report.completed_first.unwrap_or_default(),
            earlier: report.earlier,
            not_kept: not_kept::message(&report.not_kept),
        }
    }
}

impl TryFrom<v1::PushReport> for Report {
    type Error = Malformed;

    fn try_from(message: v1::PushReport) -> Result<Self, Malformed> {
        let parent = match message.parent.as_slice() {
            [] => None,
            bytes => Some(malformed::uuid(bytes, "parent")?),
        };
        Ok(Self {
            volume: message.volume.parse()?,
            receiver: message.receiver.parse()?,
            uuid: malformed::uuid(&message.uuid, "uuid")?,
            parent,
            parent_reason: message.parent_reason,
            parent_reason_code: message.parent_reason_code.into(),
            engine: message.engine,
            stream_bytes: message.stream_bytes,
            not_recorded: message.not_recorded,
            wire_bytes: message.wire_bytes,
            resumed_at: message.resumed_at,
            seconds: message.seconds,
            pruned: message
                .pruned
                .iter()
                .map(|bytes| malformed::uuid(bytes, "pruned"))
                .collect::<Result<_, _>>()?,
            skipped: message.skipped.iter().map(|bytes| lossy(bytes)).collect(),
            newly_skipped: message
                .newly_skipped
                .iter()
                .map(|bytes| lossy(bytes))
                .collect(),
            copy: message.copy,
            completed_first: Some(message.completed_first).filter(|copy| !copy.is_empty()),
            earlier: message.earlier,
            root: None,
            not_kept: not_kept::parse(message.not_kept)?,
        })
    }
}

/// Converts a path of a message to text for users.
pub fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
