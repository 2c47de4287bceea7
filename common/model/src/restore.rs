//! The messages between `sendshotctl` and the program that restores: one request as a line of JSON on its standard
//! input, and events as lines of JSON on its standard output.

use serde::{Deserialize, Serialize};

use crate::any_path::AnyPath;
use crate::left_out::LeftOutEntry;
use crate::not_kept::NotKeptEntry;

/// A request to the program that restores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// The receiver's name on this host.
    pub receiver: String,
    /// A pairing for restoring that comes first; the receiver's name is then the one that it gives.
    pub pairing: Option<RestorePairing>,
    /// Seconds since the last progress for which a broken connection is made again; `None` for the default.
    pub retry_seconds: Option<u64>,
    /// The task.
    pub task: RestoreTask,
}

/// A pairing with a token of `peer invite NAME --restore`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestorePairing {
    /// The receiver's address, `HOST[:PORT]`.
    pub address: String,
    /// Name for it; `None` for the first label of its address.
    pub name: Option<String>,
    /// The token.
    pub token: String,
}

impl std::fmt::Debug for RestorePairing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RestorePairing { address, name, .. } = self;
        let mut shown = f.debug_struct("RestorePairing");
        shown
            .field("address", address)
            .field("name", name)
            .finish_non_exhaustive()
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case", deny_unknown_fields)]
pub enum RestoreTask {
    /// Lists the copies at the receiver.
    List {
        /// Only those of this volume.
        volume: Option<String>,
    },
    /// Makes a new subvolume of a copy.
    Beside {
        /// The copy.
        copy: WantedCopy,
        /// Path of the new subvolume, absolute.
        target: AnyPath,
        /// Whether a tree is accepted that differs from this host's own sendshot of the state.
        accept_differences: bool,
    },
    /// Brings single files and directories of a copy into a directory on any file system.
    Paths {
        /// The copy.
        copy: WantedCopy,
        /// The paths, relative to the volume.
        paths: Vec<AnyPath>,
        /// The directory, absolute; it is made if it does not exist.
        target: AnyPath,
        /// Whether set-id bits, capabilities and device nodes are made.
        as_is: bool,
    },
    /// Restores a copy to a scratch subvolume on the volume's file system, checks it, and deletes it.
    Drill {
        /// The copy.
        copy: WantedCopy,
    },
    /// Puts a copy in the place of its volume, and keeps the old volume under another name.
    InPlace {
        /// The copy.
        copy: WantedCopy,
        /// Device of the file system, if it is not mounted and not found by itself.
        device: Option<AnyPath>,
        /// Whether the volume is put on the file system that is mounted at its path, whatever the records say.
        new_disk: bool,
        /// Whether the old volume may be mounted or open.
        while_in_use: bool,
        /// Whether a tree is accepted that differs from this host's own sendshot of the state.
        accept_differences: bool,
    },
}

/// The copy that the user wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantedCopy {
    /// Name of the volume, or path of its subvolume on this host.
    pub volume: AnyPath,
    /// Name, UUID or time; `None` for the newest copy.
    pub at: Option<String>,
}

/// An event of a restore.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RestoreEvent {
    /// A line for the user.
    Note {
        /// One sentence.
        text: String,
    },
    /// The list of copies.
    Listed {
        /// The volumes by name, each with its copies from the oldest to the newest.
        volumes: Vec<ListedVolume>,
    },
    /// A stage begins.
    Stage {
        /// Its name.
        stage: String,
        /// What there is to say about it; may be empty.
        detail: String,
    },
    /// The copy was chosen and measured.
    Begun {
        /// The copy, as `volume/name`.
        copy: String,
        /// Length of the stream in bytes.
        length: u64,
        /// Offset from which it is fetched; 0 for all of it.
        resumed_at: u64,
        /// Seconds until the permission of the receiver's administrator ends.
        permitted_seconds: Option<u64>,
    },
    /// Bytes of the stream that were applied.
    Progress {
        /// Bytes applied so far.
        done: u64,
        /// Length of the stream in bytes.
        length: u64,
    },
    /// The task is complete.
    Restored {
        /// The result.
        report: Box<RestoreReport>,
    },
    /// A drill is complete: the copy could be restored and was as expected.
    Drilled {
        /// The result; its target is the scratch subvolume, which is gone.
        report: Box<RestoreReport>,
    },
    /// The task failed. The last event.
    Failed {
        /// Determines the exit code: `failed`, `cancelled`, `usage`, `unreachable` or `refused`.
        kind: String,
        /// One sentence.
        message: String,
        /// What the user can do; may be empty.
        remedy: String,
    },
}

/// A volume at the receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedVolume {
    /// Its name there.
    pub volume: String,
    /// Its copies.
    pub copies: Vec<ListedCopy>,
}

/// A copy at the receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedCopy {
    /// Its name: the snapshot's UTC time on this host.
    pub name: String,
    /// UUID of the state.
    pub uuid: String,
    /// Time of its commit in RFC 3339, on the receiver's clock.
    pub committed_at: Option<String>,
    /// Bytes of the stream that made it: for an incremental push, only the changes.
    pub received_bytes: Option<u64>,
    /// What is known about a change since its commit.
    pub doubt: Option<String>,
    /// Whether it cannot be restored, because it is writable.
    pub writable: bool,
}

/// The result of a restore.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// The receiver's name on this host.
    pub receiver: String,
    /// Name of the volume at the receiver.
    pub volume: String,
    /// Name of the copy.
    pub copy: String,
    /// UUID of the state.
    pub uuid: String,
    /// Path of what was restored.
    pub target: AnyPath,
    /// Length of the stream in bytes.
    pub stream_bytes: u64,
    /// Bytes on the connections of this run.
    pub wire_bytes: u64,
    /// Offset at which this run continued an earlier one.
    pub resumed_at: Option<u64>,
    /// Duration of this run in seconds.
    pub seconds: f64,
    /// What was checked.
    pub checked: Checked,
    /// Path of the old volume, if the copy was put in its place.
    pub replaced: Option<AnyPath>,
    /// What the next push builds on, if the copy was put in the place of its volume.
    #[serde(default)]
    pub next_push: Option<NextPush>,
    /// What is known about a change of the copy since its commit.
    pub doubt: Option<String>,
    /// What this file system could not keep.
    pub not_kept: Vec<NotKeptEntry>,
    /// What of single paths was left out or changed.
    #[serde(default)]
    pub left_out: Vec<LeftOutEntry>,
}

/// What the next push of a volume builds on that was restored in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "builds_on", rename_all = "snake_case")]
pub enum NextPush {
    /// The copy that was restored.
    ThisCopy,
    /// Not this copy: the volume may differ from it.
    NotThisCopy {
        /// Why.
        reason: String,
    },
}

/// What was checked of a restored tree, besides the hashes of the transfer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Whether the metadata was compared with this host's own sendshot of the state.
    pub own_sendshot: bool,
    /// Number of names in the tree.
    pub names: u64,
    /// The differences from the own sendshot, at most twenty.
    pub differences: Vec<String>,
    /// Paths of files with set-user-id or set-group-id bits, without a sendshot to compare with.
    pub set_id: Vec<String>,
    /// Paths of files with capabilities, without a sendshot to compare with.
    pub capabilities: Vec<String>,
    /// Paths of device nodes, without a sendshot to compare with.
    pub devices: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_line() {
        let request = RestoreRequest {
            receiver: "nas2".into(),
            pairing: None,
            retry_seconds: None,
            task: RestoreTask::Beside {
                copy: WantedCopy {
                    volume: std::path::Path::new("photos").into(),
                    at: Some("2026-11-22\n".into()),
                },
                target: std::path::Path::new("/srv/new\nline").into(),
                accept_differences: false,
            },
        };
        let text = serde_json::to_string(&request).unwrap();
        assert!(!text.contains('\n'));
        assert_eq!(
            serde_json::from_str::<RestoreRequest>(&text).unwrap(),
            request
        );
    }
}
