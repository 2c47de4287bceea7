//! The kinds of lies.

/// A kind of lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// None: it is honest.
    Nothing,
    // About what is held.
    /// Copies that do not exist.
    Invent,
    /// Copies are left out.
    Conceal,
    /// Copies are of another state than they are.
    OtherTransid,
    /// Copies cannot be parents.
    Unusable,
    /// Copies are of something else.
    OtherUuid,
    /// Two copies are each other.
    Exchange,
    /// A push is at work that is not, or the other way round.
    AtWork,
    /// An id of five bytes.
    Malformed,
    /// It could not look.
    CouldNotLook,
    /// A push can be taken up elsewhere.
    OtherPoint,
    /// A push can be taken up where its chain value is another.
    OtherPointChain,
    /// There is something of another push, or of one that there is nothing of.
    InventPartial,
    /// There is nothing of a push.
    ConcealPartial,
    // In what the receiver says of a push.
    /// Accepted from the middle.
    AcceptElsewhere,
    /// Accepted twice.
    AcceptTwice,
    /// More was applied than sent.
    ApplyBeyond,
    /// A checkpoint that is not there.
    Checkpoint,
    /// Checkpoints are taken more often, or more seldom, than they are.
    CheckpointRate,
    /// Committed before the end.
    CommitEarly,
    /// Committed at the end, by a receiver that never hears of the end.
    CommitNothing,
    /// Committed under an invented name.
    CommitElsewhere,
    /// It failed, with any code.
    Fail,
    /// The receiver is not heard any more.
    Silence,
    /// The receiver is not heard when it has committed.
    SwallowCommit,
    // In what the sender says.
    /// Data with a flipped bit.
    FlipData,
    /// Another chain value.
    OtherChain,
    /// Another offset.
    OtherOffset,
    /// A segment is missing.
    Drop,
    /// A segment comes twice.
    Twice,
    /// Two segments change places.
    Swap,
    /// The end after the first half.
    EndEarly,
    /// Another length.
    OtherLength,
    /// Another chain value at the end.
    OtherEndChain,
    /// The push is of another state.
    BeginOther,
    /// The push builds on another parent, or on none.
    BeginParent,
    /// The push is taken up elsewhere.
    BeginElsewhere,
    /// All segments are marked, or none is.
    Marks,
}

/// All of them that are lies.
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
