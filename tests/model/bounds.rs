//! How far the model is explored, and the faults that can be built into it.

use std::num::NonZeroU32;

/// Receivers in the model.
pub const SLOTS: usize = 2;

/// Upper limits of events in one run of the model; a run is any order of these events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Segments of a stream.
    pub segments: u8,
    /// Snapshots taken for each receiver.
    pub snapshots: [u8; SLOTS],
    /// Pushes requested to each receiver; a resumed one takes no snapshot.
    pub requests: [u8; SLOTS],
    /// Number of these that request a full send, which resumes nothing.
    pub full_sends: u8,
    /// Deaths of the sender.
    pub sender_crashes: u8,
    /// Deaths of each receiver.
    pub receiver_crashes: [u8; SLOTS],
    /// Starts of each receiver after a death.
    pub receiver_starts: [u8; SLOTS],
    /// Reinstallations of each receiver, with a new pairing.
    pub replacements: [u8; SLOTS],
    /// Broken connections, each with any number of the messages in flight lost, and the others late.
    pub breaks: u8,
    /// Attempts after a failure, beyond the first of each push.
    pub attempts: u8,
    /// Duplicated messages.
    pub duplicates: u8,
    /// Copies that a user deletes.
    pub deletions: u8,
    /// Interrupted pushes and partials that expire.
    pub ages: u8,
    /// Sendshots kept per receiver.
    pub keep: NonZeroU32,
}

impl Bounds {
    /// One push to the first receiver, without any failure.
    pub const CALM: Self = Self {
        segments: 2,
        snapshots: [1, 0],
        requests: [1, 0],
        full_sends: 0,
        sender_crashes: 0,
        receiver_crashes: [0, 0],
        receiver_starts: [1, 1],
        replacements: [0, 0],
        breaks: 0,
        attempts: 1,
        duplicates: 0,
        deletions: 0,
        ages: 0,
        keep: NonZeroU32::MIN,
    };
}

/// A step in the wrong order, or left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No fault: the order of the daemons.
    None,
    /// The sender records the acknowledgement after sending everything, before it is reported.
    RecordBeforeAcknowledge,
    /// The sender sends the end, and only then records that the push may be committed.
    EndBeforeUnconfirmed,
    /// A starting sender deletes what the receiver may have committed.
    DropUnconfirmed,
    /// The sender ignores that the receiver is still processing one of its calls.
    IgnoreWork,
    /// The sender sends a segment before its mark is durable.
    MarkAfterSegment,
    /// A restarted receiver reuses staging, from the last recorded position.
    ReplayOverStaging,
    /// The sender chooses a parent from everything that was ever acknowledged.
    PlanWithoutAsking,
    /// Retention does not distinguish receiver instances.
    PruneAcrossInstances,
    /// An attempt of a push goes to any receiver that currently has the name.
    ReconnectToAnother,
}
