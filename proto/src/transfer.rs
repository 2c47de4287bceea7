//! The messages of one push.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use sendshot_model::{NotKept, RootId, TransferId, printable};
use uuid::Uuid;

use crate::chain::Chain;
use crate::failure::Failure;
use crate::malformed::{self, Malformed};
use crate::not_kept;
use crate::resume::{CheckpointPolicy, Point};
use crate::v1;
use crate::volume::VolumeKey;

/// Maximum segment that a receiver accepts, in bytes: limits the memory for one message.
pub const MAX_SEGMENT: usize = 1024 * 1024;

/// Usual segment length in bytes. It measured best for HTTP/2 over TLS with frames of the same size; larger
/// ones leave the CPU cache between copies.
pub const SEGMENT: usize = 256 * 1024;

/// Maximum HTTP/2 frame in bytes: a whole segment with its header.
pub const FRAME: u32 = 256 * 1024 + 1024;

/// HTTP/2 windows of a connection. They limit what is in flight, and thus what a receiver buffers for a push, and what
/// is sent twice when a connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Of one stream, in bytes.
    pub stream: u32,
    /// Of the whole connection, in bytes.
    pub connection: u32,
}

impl Windows {
    /// They fill 1 Gbit/s at 45 ms: with the queue after them, less than 8 MiB are sent twice.
    pub const NEAR: Self = Self {
        stream: 6 * 1024 * 1024,
        connection: 16 * 1024 * 1024,
    };

    /// They fill nine tenths of 1 Gbit/s at 100 ms: less than 26 MiB are sent twice. (HTTP/2 reports what was taken in parts
    /// of up to half a window, so that it has to be twice what is on the way.)
    pub const FAR: Self = Self {
        stream: 24 * 1024 * 1024,
        connection: 32 * 1024 * 1024,
    };

    /// Longest round trip for which [`Windows::NEAR`] suffice.
    pub const NEAR_ROUND_TRIP: Duration = Duration::from_millis(40);

    /// The windows for a measured round trip.
    pub fn of(round_trip: Duration) -> Self {
        match round_trip <= Self::NEAR_ROUND_TRIP {
            true => Self::NEAR,
            false => Self::FAR,
        }
    }
}

/// Maximum message that a receiver accepts, in bytes: a segment with its header. All other messages of a
/// paired sender are much shorter.
pub const MAX_CALL: usize = MAX_SEGMENT + 16 * 1024;

/// Maximum message that a sender accepts, in bytes: a part of an inventory.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// Identity of a parent, the same on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParentRef {
    /// UUID as which it was received.
    pub uuid: Uuid,
    /// ctransid of its state at the sender.
    pub ctransid: u64,
}

/// Opens a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// Identifies the partial.
    pub transfer: TransferId,
    /// The volume that is pushed.
    pub volume: VolumeKey,
    /// UUID that the stream carries.
    pub uuid: Uuid,
    /// ctransid that the stream carries.
    pub ctransid: u64,
    /// The negotiated parent; `None` for a full send.
    pub parent: Option<ParentRef>,
    /// Time of the snapshot, in seconds since 1970 UTC.
    pub taken_at: i64,
    /// Version of the send stream, 1 or 2.
    pub stream_version: u32,
    /// Whether the transfer can be resumed after an interruption.
    pub resumable: Resumable,
    /// Position at which to resume it; `None` to begin it.
    pub resume_at: Option<Point>,
    /// The receiver's disk on which the negotiation was based, if reported.
    pub root: Option<RootId>,
    /// Whether the snapshot is a read-only one of the sender's user; `None` if the sender does not say it.
    pub of_snapshot: Option<bool>,
    /// Whether the sender knows [`Down::Waiting`].
    pub may_wait: bool,
}

/// Returns the bytes that a message takes in HTTP/2 frames: gRPC prepends a flag and a length.
pub fn framed_len(message: &v1::TransferUp) -> u64 {
    const FLAG_AND_LENGTH: usize = 5;
    (FLAG_AND_LENGTH + message.encoded_len()) as u64
}

/// Whether a transfer can be resumed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Resumable {
    /// Its segments end between commands, and its stream can be regenerated from there.
    Yes,
    /// It restarts from the beginning.
    #[default]
    No,
}

/// A piece of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Position in the stream, in bytes.
    pub offset: u64,
    /// Bytes of the stream.
    pub data: Bytes,
    /// Chain value after it.
    pub chain: Chain,
    /// Whether the receiver may take a checkpoint after it.
    pub mark: Mark,
}

/// Whether the sender durably knows the chain value after a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mark {
    /// The sender can resume there after a crash.
    Durable,
    /// The sender knows it only until it stops.
    #[default]
    None,
}

/// Message from sender to receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Up {
    /// Opens the push.
    Begin(Begin),
    /// A piece of the stream.
    Segment(Segment),
    /// The stream is complete.
    End {
        /// Length of the stream in bytes.
        length: u64,
        /// Chain value after its last segment.
        chain: Chain,
    },
}

/// Message from receiver to sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Down {
    /// The push waits for its turn.
    Waiting,
    /// The receiver is ready.
    Accepted {
        /// Offset from which the stream must be sent.
        resume_at: u64,
        /// Rule for the receiver's checkpoints.
        checkpoints: CheckpointPolicy,
    },
    /// The stream was applied up to this offset.
    Applied(u64),
    /// The stream is durable up to this offset.
    Checkpoint(u64),
    /// The copy exists, durably.
    Committed {
        /// Name of the copy.
        name: String,
        /// Directory of the copy below the receiver's root.
        directory: String,
        /// What the copy lacks because the file system cannot keep it.
        not_kept: NotKept,
    },
    /// The push failed.
    Failure(Failure),
}

impl TryFrom<v1::TransferUp> for Up {
    type Error = Malformed;

    fn try_from(message: v1::TransferUp) -> Result<Self, Malformed> {
        use v1::transfer_up::Message;
        match message.message.ok_or(Malformed::Missing("message"))? {
            Message::Begin(begin) => Ok(Up::Begin(begin.try_into()?)),
            Message::Segment(segment) => Ok(Up::Segment(segment.try_into()?)),
            Message::End(end) => Ok(Up::End {
                length: end.length,
                chain: Chain::parse(&end.chain)?,
            }),
        }
    }
}

impl From<Up> for v1::TransferUp {
    fn from(up: Up) -> Self {
        use v1::transfer_up::Message;
        let message = match up {
            Up::Begin(begin) => Message::Begin(begin.into()),
            Up::Segment(segment) => Message::Segment(segment.into()),
            Up::End { length, chain } => Message::End(v1::End {
                length,
                chain: chain.0.to_vec(),
            }),
        };
        Self {
            message: Some(message),
        }
    }
}

impl TryFrom<v1::Begin> for Begin {
    type Error = Malformed;

    fn try_from(message: v1::Begin) -> Result<Self, Malformed> {
        if !(1..=2).contains(&message.stream_version) {
            return Err(Malformed::Value("stream_version"));
        }
        let id = malformed::id_bytes(&message.transfer_id, "transfer_id")?;
        let parent = message
            .parent
            .map(|parent| {
                Ok::<_, Malformed>(ParentRef {
                    uuid: malformed::uuid(&parent.uuid, "parent.uuid")?,
                    ctransid: parent.ctransid,
                })
            })
            .transpose()?;
        Ok(Self {
            transfer: TransferId::from_bytes(id),
            volume: VolumeKey::parse(&message.volume_id, &message.volume_name)?,
            uuid: malformed::uuid(&message.uuid, "uuid")?,
            ctransid: message.ctransid,
            parent,
            taken_at: message.taken_at,
            stream_version: message.stream_version,
            resumable: if message.resumable {
                Resumable::Yes
            } else {
                Resumable::No
            },
            resume_at: message.resume_at.map(Point::try_from).transpose()?,
            root: malformed::root_id(&message.root_id)?,
            of_snapshot: message.of_snapshot,
            may_wait: message.may_wait,
        })
    }
}

impl From<Begin> for v1::Begin {
    fn from(begin: Begin) -> Self {
        Self {
            transfer_id: begin.transfer.to_bytes().to_vec(),
            volume_id: begin.volume.id.to_bytes().to_vec(),
            volume_name: begin.volume.name.to_string(),
            uuid: begin.uuid.as_bytes().to_vec(),
            ctransid: begin.ctransid,
            parent: begin.parent.map(|parent| v1::Parent {
                uuid: parent.uuid.as_bytes().to_vec(),
                ctransid: parent.ctransid,
            }),
            taken_at: begin.taken_at,
            stream_version: begin.stream_version,
            resumable: begin.resumable == Resumable::Yes,
            resume_at: begin.resume_at.map(Into::into),
            root_id: malformed::root_bytes(begin.root),
            of_snapshot: begin.of_snapshot,
            may_wait: begin.may_wait,
        }
    }
}

impl TryFrom<v1::Segment> for Segment {
    type Error = Malformed;

    fn try_from(message: v1::Segment) -> Result<Self, Malformed> {
        if message.data.is_empty() || message.data.len() > MAX_SEGMENT {
            return Err(Malformed::Value("data"));
        }
        Ok(Self {
            offset: message.offset,
            data: message.data,
            chain: Chain::parse(&message.chain)?,
            mark: if message.marked {
                Mark::Durable
            } else {
                Mark::None
            },
        })
    }
}

impl From<Segment> for v1::Segment {
    fn from(segment: Segment) -> Self {
        Self {
            offset: segment.offset,
            data: segment.data,
            chain: segment.chain.0.to_vec(),
            marked: segment.mark == Mark::Durable,
        }
    }
}

impl TryFrom<v1::TransferDown> for Down {
    type Error = Malformed;

    fn try_from(message: v1::TransferDown) -> Result<Self, Malformed> {
        use v1::transfer_down::Message;
        Ok(
            match message.message.ok_or(Malformed::Missing("message"))? {
                Message::Accepted(accepted) => Down::Accepted {
                    resume_at: accepted.resume_at,
                    checkpoints: CheckpointPolicy {
                        bytes: accepted.checkpoint_bytes,
                        milliseconds: accepted.checkpoint_milliseconds,
                    },
                },
                Message::Applied(applied) => Down::Applied(applied.offset),
                Message::Committed(committed) => Down::Committed {
                    name: printable(&committed.name),
                    directory: printable(&committed.directory),
                    not_kept: not_kept::parse(committed.not_kept)?,
                },
                Message::Failure(failure) => Down::Failure(failure.into()),
                Message::Checkpoint(checkpoint) => Down::Checkpoint(checkpoint.offset),
                Message::Waiting(v1::Waiting {}) => Down::Waiting,
            },
        )
    }
}

impl From<Down> for v1::TransferDown {
    fn from(down: Down) -> Self {
        use v1::transfer_down::Message;
        let message = match down {
            Down::Accepted {
                resume_at,
                checkpoints,
            } => Message::Accepted(v1::Accepted {
                resume_at,
                checkpoint_bytes: checkpoints.bytes,
                checkpoint_milliseconds: checkpoints.milliseconds,
            }),
            Down::Applied(offset) => Message::Applied(v1::Applied { offset }),
            Down::Committed {
                name,
                directory,
                not_kept,
            } => Message::Committed(v1::Committed {
                name,
                directory,
                not_kept: not_kept::message(&not_kept),
            }),
            Down::Failure(failure) => Message::Failure(failure.into()),
            Down::Checkpoint(offset) => Message::Checkpoint(v1::Checkpoint { offset }),
            Down::Waiting => Message::Waiting(v1::Waiting {}),
        };
        Self {
            message: Some(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_depends_on_every_byte_and_on_their_order() {
        let ab = Chain::default().extend(b"a").extend(b"b");
        let ba = Chain::default().extend(b"b").extend(b"a");
        assert_ne!(ab, ba);
        assert_ne!(ab, Chain::default().extend(b"ab"));
    }

    #[test]
    fn an_empty_or_oversized_segment_is_malformed() {
        for len in [0, MAX_SEGMENT + 1] {
            let message = v1::Segment {
                offset: 0,
                data: vec![0; len].into(),
                chain: vec![0; 32],
                marked: false,
            };
            assert!(Segment::try_from(message).is_err());
        }
    }

    #[test]
    fn sent_messages_are_parsed_back() {
        let begin = Begin {
            transfer: TransferId::generate(),
            volume: VolumeKey {
                id: sendshot_model::VolumeId::generate(),
                name: "photos".parse().unwrap(),
            },
            uuid: Uuid::new_v4(),
            ctransid: 7,
            parent: Some(ParentRef {
                uuid: Uuid::new_v4(),
                ctransid: 5,
            }),
            taken_at: 1,
            stream_version: 2,
            resumable: Resumable::Yes,
            resume_at: Some(Point {
                offset: 9,
                chain: Chain([7; 32]),
            }),
            root: Some(RootId::from_bytes([9; 16])),
            of_snapshot: Some(true),
            may_wait: true,
        };
        let up = Up::Begin(begin);
        assert_eq!(Up::try_from(v1::TransferUp::from(up.clone())).unwrap(), up);
    }
}
