//! What happened, as the daemons record it: one event on each line of a file.
//!
//! The names of events and fields are part of the contract with programs that read `sendshotctl history --json`.
//! Every event has the field `sender` or `receiver` with the name of the other host; without `volume` it concerns all
//! volumes of that host.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use crate::peer_name::PeerName;
use crate::volume_name::VolumeName;

/// An event with its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry<E> {
    /// When it was recorded, by the clock of the host.
    #[serde(serialize_with = "milliseconds")]
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: E,
}

/// Writes a time with three digits after the point, so that the texts of times have their order.
fn milliseconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.3}"))
}

/// An event on the sender.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SenderEvent {
    /// The receiver has a copy of the volume's state, and has acknowledged it.
    Pushed {
        /// The receiver.
        receiver: PeerName,
        /// The volume.
        volume: VolumeName,
        /// Name of the copy.
        copy: String,
        /// UUID of the state.
        uuid: Uuid,
        /// Length of the stream; 0 if the receiver held the state already.
        stream_bytes: u64,
        /// How long the push took.
        seconds: f64,
        /// UUID of the parent, if the push was incremental.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<Uuid>,
        /// Names of the copies that the same push completed before this one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        earlier: Vec<String>,
    },
    /// A push ended without a copy.
    Failed {
        /// The receiver.
        receiver: PeerName,
        /// The volume.
        volume: VolumeName,
        /// The error in one sentence.
        error: String,
    },
    /// Retained states were deleted on the sender.
    Pruned {
        /// The receiver to which they were sent.
        receiver: PeerName,
        /// The volume.
        volume: VolumeName,
        /// UUIDs of the states.
        uuids: Vec<Uuid>,
        /// Why they were deleted.
        reason: String,
    },
    /// A copy takes the place of the volume.
    Restored {
        /// The receiver that holds the copy.
        receiver: PeerName,
        /// The volume.
        volume: VolumeName,
        /// Name of the copy.
        copy: String,
        /// Always true: the daemon does not see other restores.
        in_place: bool,
    },
}

/// An event on the receiver. Volumes are named by their directories.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ReceiverEvent {
    /// A copy was committed.
    Received {
        /// The sender.
        sender: PeerName,
        /// The volume.
        volume: String,
        /// Name of the copy.
        copy: String,
        /// UUID of the state on the sender.
        uuid: Uuid,
        /// Length of the stream.
        stream_bytes: u64,
        /// How long the transfer took, without what was received before an interruption.
        seconds: f64,
    },
    /// A push ended without a copy, and its sender was told, or will not come back to it.
    Failed {
        /// The sender.
        sender: PeerName,
        /// The volume by its name on the sender.
        volume: String,
        /// The error in one sentence.
        error: String,
    },
    /// A copy was read whole, or the paths of it that were asked for.
    Fetched {
        /// The sender whose copy it is.
        sender: PeerName,
        /// The volume.
        volume: String,
        /// Name of the copy.
        copy: String,
        /// Bytes sent, without what was sent before an interruption.
        bytes: u64,
        /// The key that read it.
        by: Key,
    },
    /// Copies can be read from now on.
    Granted {
        /// The sender whose copies they are.
        sender: PeerName,
        /// The only volume that can be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        volume: Option<String>,
        /// End of the permission.
        #[serde(serialize_with = "milliseconds")]
        until: Timestamp,
        /// The key that can read them.
        by: Key,
    },
    /// Root of the receiver withdrew the permissions to read the copies of a sender.
    Withdrawn {
        /// The sender.
        sender: PeerName,
    },
    /// The time of a permission to read copies is over.
    GrantEnded {
        /// The sender whose copies they are.
        sender: PeerName,
        /// The only volume that could be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        volume: Option<String>,
        /// The key that could read them.
        by: Key,
    },
    /// A sender redeemed an invitation.
    Paired {
        /// The sender.
        sender: PeerName,
    },
    /// Root of the receiver stopped serving a sender.
    Revoked {
        /// The sender.
        sender: PeerName,
    },
    /// Copies were deleted.
    Pruned {
        /// The sender whose copies they were.
        sender: PeerName,
        /// The volume.
        volume: String,
        /// Names of the copies.
        copies: Vec<String>,
        /// Why: by the volume's rule, or by the administrator.
        reason: String,
    },
    /// A copy is held: no rule deletes it.
    Held {
        /// The sender whose copy it is.
        sender: PeerName,
        /// The volume.
        volume: String,
        /// Name of the copy.
        copy: String,
        /// Why.
        reason: String,
    },
    /// The holds of a copy were ended.
    Released {
        /// The sender whose copy it is.
        sender: PeerName,
        /// The volume.
        volume: String,
        /// Name of the copy.
        copy: String,
    },
}

/// A key that reads copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Key {
    /// The sender's own.
    #[serde(rename = "own key")]
    Own,
    /// One that only reads, for a time.
    #[serde(rename = "temporary key")]
    Temporary,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "own key",
            Self::Temporary => "temporary key",
        })
    }
}

/// The part of an entry that all events share, also those of later versions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Head {
    /// When it was recorded.
    pub at: Timestamp,
    /// Name of the event.
    pub event: String,
    /// The other host.
    #[serde(alias = "sender", alias = "receiver")]
    pub peer: Option<String>,
    /// The volume, if the event concerns only one.
    pub volume: Option<String>,
}

/// Selects entries; what is absent selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Entries from this time on.
    pub since: Option<Timestamp>,
    /// Entries about this host.
    pub peer: Option<PeerName>,
    /// Entries about this volume, and those about all volumes of the host.
    pub volume: Option<VolumeName>,
}

impl Selection {
    /// Whether an entry is selected.
    #[must_use]
    pub fn has(&self, entry: &Head) -> bool {
        let peer = self.peer.as_ref().map(PeerName::as_str);
        let volume = self.volume.as_ref().map(VolumeName::as_str);
        self.since.is_none_or(|since| entry.at >= since)
            && (peer.is_none() || peer == entry.peer.as_deref())
            && (volume.is_none() || entry.volume.is_none() || volume == entry.volume.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(line: &str) -> Head {
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn an_event_is_one_flat_object() {
        let entry = Entry {
            at: "2026-11-22T03:00:00.25Z".parse().unwrap(),
            event: ReceiverEvent::Granted {
                sender: "nas1".parse().unwrap(),
                volume: None,
                until: "2026-11-23T03:00:00Z".parse().unwrap(),
                by: Key::Own,
            },
        };
        let line = serde_json::to_string(&entry).unwrap();
        assert_eq!(
            line,
            r#"{"at":"2026-11-22T03:00:00.250Z","event":"granted","sender":"nas1","until":"2026-11-23T03:00:00.000Z","by":"own key"}"#
        );
        assert_eq!(
            serde_json::from_str::<Entry<ReceiverEvent>>(&line).unwrap(),
            entry
        );
        let head = head(&line);
        assert_eq!(
            (head.event.as_str(), head.peer.as_deref()),
            ("granted", Some("nas1"))
        );
    }

    #[test]
    fn entries_are_selected_by_time_host_and_volume() {
        let of = |volume: &str| {
            head(&format!(
                r#"{{"at":"2026-11-22T03:00:00Z","event":"later","receiver":"nas2"{volume}}}"#
            ))
        };
        let (photos, music) = (of(r#","volume":"photos""#), of(r#","volume":"music""#));
        let every = of("");
        let selection = Selection {
            peer: Some("nas2".parse().unwrap()),
            volume: Some("photos".parse().unwrap()),
            ..Selection::default()
        };
        assert!(selection.has(&photos) && selection.has(&every) && !selection.has(&music));
        let since = |time: &str| Selection {
            since: Some(time.parse().unwrap()),
            ..Selection::default()
        };
        assert!(since("2026-11-22T03:00:00Z").has(&photos));
        assert!(!since("2026-11-22T03:00:01Z").has(&photos));
        let other = Selection {
            peer: Some("nas3".parse().unwrap()),
            ..Selection::default()
        };
        assert!(!other.has(&every));
    }
}
