//! How far the model is explored, and what can be wrong in it on purpose.

use std::num::NonZeroU32;

/// Receivers in the model.
pub const SLOTS: usize = 2;

/// What happens at most, each so often in one run of the model; a run is any order of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Segments of a stream.
    pub segments: u8,
    /// Snapshots taken for each receiver.
    pub snapshots: [u8; SLOTS],
    /// Pushes asked for to each receiver; one that goes on takes no snapshot.
    pub requests: [u8; SLOTS],
    /// How many of those ask for a full send, which goes on from nothing.
    pub full_sends: u8,
    /// Deaths of the sender.
    pub sender_crashes: u8,
    /// Deaths of each receiver.
    pub receiver_crashes: [u8; SLOTS],
    /// Starts of each receiver after that.
    pub receiver_starts: [u8; SLOTS],
    /// Receivers set up anew and paired again.
    pub replacements: [u8; SLOTS],
    /// Connections that break, each with every part of what is under way lost, the rest late.
    pub breaks: u8,
    /// Attempts after a failure, beyond the first of each push.
    pub attempts: u8,
    /// Messages that come twice.
    pub duplicates: u8,
    /// Copies that a user deletes.
    pub deletions: u8,
    /// Interrupted pushes and partials that have got too old.
    pub ages: u8,
    /// Sendshots kept per receiver.
    pub keep: NonZeroU32,
}

impl Bounds {
    /// One push to the first receiver, and nothing that goes wrong.
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
    /// None: the order of the daemons.
    None,
    /// The sender records the acknowledgement when it has sent all, not when it was told.
    RecordBeforeAcknowledge,
    /// The sender tells that it is all, and then writes down that it may be committed.
    EndBeforeUnconfirmed,
    /// What the receiver may have committed goes at the sender's next start.
    DropUnconfirmed,
    /// The sender does not mind that a call of it is still at work at the receiver.
    IgnoreWork,
    /// A segment leaves before its mark is durable.
    MarkAfterSegment,
    /// Staging is taken up after a restart, at the last place that was written down.
    ReplayOverStaging,
    /// A parent is chosen of what was acknowledged once.
    PlanWithoutAsking,
    /// Retention does not tell receiver instances apart.
    PruneAcrossInstances,
    /// An attempt of a push goes to whatever answers to the receiver's name by then.
    ReconnectToAnother,
}
