//! The kinds of lies.

/// A kind of lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// No lie: the peer is honest.
    Nothing,
    // In the inventory.
    /// Adds copies that do not exist.
    Invent,
    /// Leaves out copies.
    Conceal,
    /// Changes the ctransid of copies.
    OtherTransid,
    /// Reports copies as unusable for a parent.
    Unusable,
    /// Changes the UUID of copies.
    OtherUuid,
    /// Exchanges the UUIDs of two copies.
    Exchange,
    /// Inverts the report that a push is still in progress.
    AtWork,
    /// Truncates an id to five bytes.
    Malformed,
    /// Reports that the inventory failed.
    CouldNotLook,
    /// Changes the offset at which a push can resume.
    OtherPoint,
    /// Changes the chain value at which a push can resume.
    OtherPointChain,
    /// Adds a partial of another push, or of a push without one.
    InventPartial,
    /// Leaves out the partial of a push.
    ConcealPartial,
    // In the receiver's responses to a push.
    /// Accepts from the middle.
    AcceptElsewhere,
    /// Accepts twice.
    AcceptTwice,
    /// Reports more as applied than was sent.
    ApplyBeyond,
    /// Reports a checkpoint that does not exist.
    Checkpoint,
    /// Changes how often checkpoints are requested.
    CheckpointRate,
    /// Reports a commit before the end.
    CommitEarly,
    /// Reports a commit at the end, while the receiver never gets the end.
    CommitNothing,
    /// Reports a commit under an invented name.
    CommitElsewhere,
    /// Reports a failure, with any code.
    Fail,
    /// Suppresses everything the receiver sends.
    Silence,
    /// Suppresses everything from the receiver's commit on.
    SwallowCommit,
    // In the sender's messages.
    /// Flips a bit of the data.
    FlipData,
    /// Changes the chain value.
    OtherChain,
    /// Changes the offset.
    OtherOffset,
    /// Drops a segment.
    Drop,
    /// Repeats a segment.
    Twice,
    /// Exchanges two segments.
    Swap,
    /// Ends the stream early.
    EndEarly,
    /// Changes the length at the end.
    OtherLength,
    /// Changes the chain value at the end.
    OtherEndChain,
    /// Changes the snapshot that the push is of.
    BeginOther,
    /// Changes or removes the parent of the push.
    BeginParent,
    /// Changes where the push resumes.
    BeginElsewhere,
    /// Inverts the marks of all segments.
    Marks,
}

/// All kinds that are lies.
pub const LIES: [Lie; 37] = {
    use Lie::*;
    [
        Invent,
        Conceal,
        OtherTransid,
        Unusable,
        OtherUuid,
        Exchange,
        AtWork,
        Malformed,
        CouldNotLook,
        OtherPoint,
        OtherPointChain,
        InventPartial,
        ConcealPartial,
        AcceptElsewhere,
        AcceptTwice,
        ApplyBeyond,
        Checkpoint,
        CheckpointRate,
        CommitEarly,
        CommitNothing,
        CommitElsewhere,
        Fail,
        Silence,
        SwallowCommit,
        FlipData,
        OtherChain,
        OtherOffset,
        Drop,
        Twice,
        Swap,
        EndEarly,
        OtherLength,
        OtherEndChain,
        BeginOther,
        BeginParent,
        BeginElsewhere,
        Marks,
    ]
};
