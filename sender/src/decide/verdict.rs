//! Verdicts on a copy as the parent of a push. Each is the result of a comparison, with a code, a sentence, and a
//! remedy if there is one.

use std::fmt;

use sendshot_engine::diff::rule::Difference;
use sendshot_model::{Reason, ReasonCode};
use sendshot_proto::inventory::{HeldCopy, Unusable};
use uuid::Uuid;

/// The relation of an ancestor to the pushed state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The pushed volume itself, or the volume of the pushed snapshot.
    Volume,
    /// The volume was made from one of its states.
    Past,
}

/// The verdict on a copy as parent. Each variant is the result of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Usable,
    /// Usable, but not of the volume's lineage: every file is compared.
    UsableAllCompared(Difference),
    /// The receiver reports it as unusable.
    UnusableThere(Unusable),
    /// Its snapshot is not on the volume's file system, and the journal names none.
    Gone,
    /// The journal names its snapshot, which is not on the volume's file system.
    Deleted,
    /// Only its sendshot is on this host, not its snapshot, which the kernel engine needs.
    OnlySendshot,
    /// There is no sendshot of it on the volume's file system, and the journal names none.
    NoSendshot,
    /// Its sendshot cannot be used.
    SendshotUnusable(Reason),
    /// Its sendshot is of another state.
    SendshotOtherState {
        /// Transaction of the copy.
        copy: u64,
        /// Transaction of the sendshot.
        sendshot: u64,
    },
    /// Its sendshot is of another file system.
    OtherFilesystem {
        sendshot: Uuid,
        volume: Uuid,
    },
    /// Its sendshot is of a later transaction than the pushed state.
    LaterTransaction {
        sendshot: u64,
        pushed: u64,
    },
    /// Receivers could not apply streams that were built on it.
    Rejected,
    /// Its snapshot is writable.
    Writable,
    /// Its snapshot changed since it was sent.
    Changed {
        /// ctransid when it was sent.
        sent: u64,
        /// ctransid now.
        now: u64,
    },
    /// Its snapshot has an older ctransid than the copy.
    OtherState {
        /// ctransid of the copy.
        sent: u64,
        /// ctransid of the snapshot.
        now: u64,
    },
    /// Its snapshot changed between its creation and its push.
    OnceChanged {
        /// Transaction of the last change.
        changed: u64,
        /// Transaction of the creation.
        created: u64,
    },
    /// Its snapshot was received by a tool that writes into received subvolumes.
    ReceivedByOtherTool,
    /// It was taken from an ancestor, after the pushed state's past.
    Later {
        /// The ancestor's relation.
        of: Relation,
        /// Transaction in which it was taken.
        taken: u64,
        /// Transaction up to which the ancestor is in the pushed state's past.
        until: u64,
    },
    /// It is of no known ancestor, but the lineage is incomplete: this subvolume was deleted.
    AncestryCut(Uuid),
    /// It is not of an ancestor.
    Unrelated,
}

impl Verdict {
    /// Whether the copy can be the parent.
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Usable | Self::UsableAllCompared(_))
    }

    /// The code that programs read.
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::Usable => ReasonCode::Usable,
            Self::UsableAllCompared(difference) => usable_code(*difference),
            Self::UnusableThere(unusable) => unusable.code,
            Self::Gone => ReasonCode::SnapshotNotHere,
            Self::Deleted => ReasonCode::SnapshotDeleted,
            Self::OnlySendshot => ReasonCode::OnlySendshotHere,
            Self::NoSendshot => ReasonCode::NoSendshot,
            Self::SendshotUnusable(why) => why.code,
            Self::SendshotOtherState { .. } => ReasonCode::SendshotOtherState,
            Self::OtherFilesystem { .. } => ReasonCode::OtherFilesystem,
            Self::LaterTransaction { .. } => ReasonCode::LaterTransaction,
            Self::Rejected => ReasonCode::StreamsRefused,
            Self::Writable => ReasonCode::SnapshotWritable,
            Self::Changed { .. } => ReasonCode::SnapshotChanged,
            Self::OtherState { .. } => ReasonCode::SnapshotOtherState,
            Self::OnceChanged { .. } => ReasonCode::SnapshotOnceChanged,
            Self::ReceivedByOtherTool => ReasonCode::SnapshotReceivedByOtherTool,
            Self::Later { of, .. } => match of {
                Relation::Volume => ReasonCode::LaterThanPushed,
                Relation::Past => ReasonCode::LaterThanRollback,
            },
            Self::AncestryCut(_) => ReasonCode::AncestryCut,
            Self::Unrelated => ReasonCode::Unrelated,
        }
    }

    /// What the user can do; `None` if nothing, or if nothing is needed.
    pub fn remedy(&self, copy: &HeldCopy) -> Option<String> {
        let name = &copy.name;
        match self {
            Self::UnusableThere(unusable) => match unusable.code {
                ReasonCode::CopyWritable => Some(format!(
                    "if the copy was not changed, make it read-only again on the receiver: \
                     `btrfs property set {name} ro true`"
                )),
                ReasonCode::CopyReceivedByOtherTool => Some(format!(
                    "a read-only snapshot of the copy can be the parent; make one beside it on the \
                     receiver: `btrfs subvolume snapshot -r {name} {name}-parent`"
                )),
                _ => None,
            },
            Self::OnlySendshot => Some(
                "a push of the live volume with `--engine sendshot` can build on it".to_owned(),
            ),
            Self::SendshotUnusable(why) if why.code == ReasonCode::SendshotUnreadable => {
                Some("read this host's kernel log: the disk may fail".to_owned())
            }
            Self::Writable => Some(
                "if the snapshot was not changed, make it read-only again: \
                 `btrfs property set SNAPSHOT ro true`"
                    .to_owned(),
            ),
            Self::AncestryCut(_) => Some(format!(
                "`--parent {}` uses it, if you know that the volume was made from it or from a later \
                 state of the same subvolume",
                copy.uuid
            )),
            Self::Usable
            | Self::UsableAllCompared(_)
            | Self::Gone
            | Self::Deleted
            | Self::NoSendshot
            | Self::SendshotUnusable(_)
            | Self::SendshotOtherState { .. }
            | Self::OtherFilesystem { .. }
            | Self::LaterTransaction { .. }
            | Self::Rejected
            | Self::Changed { .. }
            | Self::OtherState { .. }
            | Self::OnceChanged { .. }
            | Self::ReceivedByOtherTool
            | Self::Later { .. }
            | Self::Unrelated => None,
        }
    }
}

fn usable_code(difference: Difference) -> ReasonCode {
    match difference {
        Difference::Subvolume => ReasonCode::UsableVolumeReplaced,
        Difference::OriginUnknown => ReasonCode::UsableOriginUnknown,
        Difference::ParentChanged => ReasonCode::UsableParentChanged,
        Difference::NewChanged => ReasonCode::UsableNewChanged,
        Difference::Filesystem => ReasonCode::OtherFilesystem,
        Difference::Later => ReasonCode::LaterTransaction,
    }
}

/// Explains why every file is compared although there is a parent.
pub(crate) fn why_compared(difference: Difference) -> &'static str {
    match difference {
        Difference::Subvolume => "the volume was replaced since, so every file is compared",
        Difference::OriginUnknown => {
            "the copy's original subvolume is not known, so every file is compared"
        }
        Difference::ParentChanged => {
            "its snapshot was deduplicated or written to before its sendshot was made, so every file is \
             compared"
        }
        Difference::NewChanged => {
            "the new snapshot was deduplicated after it was taken, so every file is compared"
        }
        Difference::Filesystem => "it is of another file system, so everything is sent",
        Difference::Later => "it is of a later transaction, so everything is sent",
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usable => f.write_str("usable"),
            Self::UsableAllCompared(difference) => {
                write!(f, "usable; {}", why_compared(*difference))
            }
            Self::UnusableThere(unusable) => {
                write!(f, "not usable at the receiver: {}", unusable.why)
            }
            Self::Gone => f.write_str(
                "its snapshot is not on the volume's file system: it was deleted, or is on another one",
            ),
            Self::Deleted => f.write_str(
                "its hidden snapshot, which the journal of pushes still names, was deleted",
            ),
            Self::OnlySendshot => f.write_str(
                "only a sendshot of it is on this host, and the kernel engine needs the snapshot, \
                 which was deleted after the push",
            ),
            Self::NoSendshot => {
                f.write_str("no sendshot of it is on the volume's file system")
            }
            Self::SendshotUnusable(why) if why.code == ReasonCode::SendshotNotMade => {
                write!(f, "{why}")
            }
            Self::SendshotUnusable(why) => {
                write!(f, "its sendshot on this host cannot be used: {why}")
            }
            Self::SendshotOtherState { copy, sendshot } => write!(
                f,
                "its sendshot is of another state (transaction {sendshot}, that of the copy is {copy})"
            ),
            Self::OtherFilesystem { sendshot, volume } => write!(
                f,
                "its sendshot is of another file system: the file system's id was {sendshot} and is \
                 {volume} now"
            ),
            Self::LaterTransaction { sendshot, pushed } => write!(
                f,
                "its sendshot is of a later transaction ({sendshot}) than the pushed state ({pushed}): \
                 the file system went back to an earlier state"
            ),
            Self::Rejected => {
                f.write_str("a receiver could not apply the streams that were built on it")
            }
            Self::Writable => f.write_str("its snapshot on this host is writable"),
            Self::Changed { sent, now } => write!(
                f,
                "its snapshot on this host changed after it was sent (transaction {now}, sent at {sent})"
            ),
            Self::OtherState { sent, now } => write!(
                f,
                "its snapshot on this host is of transaction {now} and the copy of a later one, {sent}: \
                 they may be different states"
            ),
            Self::OnceChanged { changed, created } => write!(
                f,
                "its snapshot on this host was once writable or was deduplicated (transaction {changed}, \
                 created in {created})"
            ),
            Self::ReceivedByOtherTool => f.write_str(
                "its snapshot on this host was received by another tool, which wrote into it after it \
                 was created",
            ),
            Self::Later {
                of: Relation::Volume,
                taken,
                until,
            } => write!(
                f,
                "it was taken later (transaction {taken}) than the snapshot that is pushed ({until})"
            ),
            Self::Later {
                of: Relation::Past,
                taken,
                until,
            } => write!(
                f,
                "it was taken later (transaction {taken}) than the state that the volume was made from \
                 ({until}), by a rollback for example: it is not in the volume's past"
            ),
            Self::AncestryCut(deleted) => write!(
                f,
                "whether the volume descends from it is not known: the subvolume {deleted}, from which \
                 the volume was made, was deleted"
            ),
            Self::Unrelated => {
                f.write_str("it is not a snapshot of this volume or of an ancestor of it")
            }
        }
    }
}
