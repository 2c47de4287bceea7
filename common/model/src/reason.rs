//! Reasons: a sentence for users, and a code for programs that stays the same when the sentence is improved.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Defines the codes and, only here, their texts.
macro_rules! reason_codes {
    ($($(#[$meta:meta])* $variant:ident = $text:literal,)+) => {
        /// The code of a reason. Each code stands for one situation; `docs/reasons.md` describes them.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "&'static str", from = "String")]
        #[non_exhaustive]
        pub enum ReasonCode {
            $($(#[$meta])* $variant,)+
        }

        impl ReasonCode {
            /// All codes, in the order of their definition.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the code's text in JSON.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

reason_codes! {
    /// The reason was not recorded, or a later version wrote it.
    #[default]
    NotRecorded = "not-recorded",

    // Reasons for the choice of a parent.
    /// The parent is the newest state that both sides hold, by snapshots.
    NewestCommonSnapshot = "newest-common-snapshot",
    /// The parent is the newest usable one by snapshots; a newer copy cannot be the parent.
    NewestUsableSnapshot = "newest-usable-snapshot",
    /// The parent is the newest state of the volume's lineage with a sendshot.
    NewestSendshot = "newest-sendshot",
    /// The parent is the newest usable one of the lineage; a newer copy cannot be the parent.
    NewestUsableSendshot = "newest-usable-sendshot",
    /// No candidate is of the volume's lineage; this one gives the shortest stream.
    ShortestStream = "shortest-stream",
    /// No candidate is of the volume's lineage, and only this one can be the parent.
    OnlyUsableSendshot = "only-usable-sendshot",
    /// The user chose the parent.
    ChosenByHand = "chosen-by-hand",

    // Reasons for having no parent.
    /// The user requested a full send.
    FullAskedFor = "full-asked-for",
    /// No snapshot could be made, so the changes since an earlier one are unknown.
    ReadAsItIs = "read-as-it-is",
    /// Nothing was sent: the receiver already holds the state.
    AlreadyHeld = "already-held",
    /// Nothing was sent: the receiver's disk has acknowledged every snapshot of the series.
    AllAcknowledged = "all-acknowledged",
    /// The receiver holds no copy, and no copy was acknowledged.
    NoCopyYet = "no-copy-yet",
    /// The receiver holds no copy, but had acknowledged one.
    CopiesGone = "copies-gone",
    /// The receiver's present disk holds no copy; another disk of it has acknowledged one.
    NewDisk = "new-disk",
    /// All acknowledgements are from another instance of the receiver.
    ReceiverReplaced = "receiver-replaced",
    /// A stream of this push that was based on a parent was refused.
    StreamRefused = "stream-refused",

    // Verdicts on a copy.
    /// It can be the parent, without any doubt.
    Usable = "usable",
    /// It can be the parent, but is a state of another subvolume than the present volume.
    UsableVolumeReplaced = "usable-volume-replaced",
    /// It can be the parent, but the subvolume of which it is a state is unknown.
    UsableOriginUnknown = "usable-origin-unknown",
    /// It can be the parent, but its snapshot changed after it was taken.
    UsableParentChanged = "usable-parent-changed",
    /// It can be the parent, but the new snapshot changed after it was taken.
    UsableNewChanged = "usable-new-changed",
    /// The copy is writable.
    CopyWritable = "copy-writable",
    /// The copy changed after it was received.
    CopyChanged = "copy-changed",
    /// The copy is a snapshot of a copy that had changed.
    CopyOfChangedCopy = "copy-of-changed-copy",
    /// Another tool received the copy.
    CopyReceivedByOtherTool = "copy-received-by-other-tool",
    /// Another tool received the copy, which was written to afterwards.
    CopyWrittenAfterOtherTool = "copy-written-after-other-tool",
    /// The receiver gives the reason in words only.
    CopyUnusable = "copy-unusable",
    /// The snapshot named by the journal was deleted.
    SnapshotDeleted = "snapshot-deleted",
    /// No snapshot on the volume's file system has the UUID.
    SnapshotNotHere = "snapshot-not-here",
    /// There is only a sendshot here, but the kernel needs a snapshot.
    OnlySendshotHere = "only-sendshot-here",
    /// The snapshot here is writable.
    SnapshotWritable = "snapshot-writable",
    /// The snapshot here changed after it was sent.
    SnapshotChanged = "snapshot-changed",
    /// The snapshot here has an older transaction number than the copy.
    SnapshotOtherState = "snapshot-other-state",
    /// The snapshot here was changed after it was made and before it was sent.
    SnapshotOnceChanged = "snapshot-once-changed",
    /// The snapshot here was received by another tool.
    SnapshotReceivedByOtherTool = "snapshot-received-by-other-tool",
    /// The snapshot was taken after the pushed one.
    LaterThanPushed = "later-than-pushed",
    /// The snapshot was taken after the volume was made from an earlier state.
    LaterThanRollback = "later-than-rollback",
    /// A subvolume between the volume and its past was deleted.
    AncestryCut = "ancestry-cut",
    /// The snapshot is of another subvolume.
    Unrelated = "unrelated",
    /// The copy has no sendshot.
    NoSendshot = "no-sendshot",
    /// The sendshot named by the journal was deleted.
    SendshotDeleted = "sendshot-deleted",
    /// The sendshot could not be read.
    SendshotUnreadable = "sendshot-unreadable",
    /// The file is not a sendshot.
    SendshotForeign = "sendshot-foreign",
    /// A later version wrote the sendshot.
    SendshotTooNew = "sendshot-too-new",
    /// An earlier version wrote the sendshot, in a layout that is no longer supported.
    SendshotTooOld = "sendshot-too-old",
    /// The sendshot is damaged.
    SendshotDamaged = "sendshot-damaged",
    /// The sendshot has an inode in no directory.
    SendshotOrphan = "sendshot-orphan",
    /// No sendshot could be made of the snapshot here.
    SendshotNotMade = "sendshot-not-made",
    /// The sendshot is of another state than the copy.
    SendshotOtherState = "sendshot-other-state",
    /// The sendshot is of another file system.
    OtherFilesystem = "other-file-system",
    /// The sendshot is of a later transaction than the pushed state.
    LaterTransaction = "later-transaction",
    /// Streams that were based on it could not be applied.
    StreamsRefused = "streams-refused",

    // Reasons for keeping or deleting retained state.
    /// It is the parent of the next push.
    NextParent = "next-parent",
    /// It is the parent of the next push, acknowledged only by the receiver's report.
    NextParentReported = "next-parent-reported",
    /// It is the newest state that was sent; a newer one is known only from the receiver's report.
    LastSent = "last-sent",
    /// It is the last acknowledged state, on which no further stream is based.
    LastRefused = "last-refused",
    /// It is an older state, for the case that the receiver loses its newest copy.
    Spare = "spare",
    /// The receiver may have committed it.
    Unconfirmed = "unconfirmed",
    /// It is being pushed.
    BeingPushed = "being-pushed",
    /// A running push may use it.
    MayBeUsed = "may-be-used",
    /// It is an older snapshot, which pins data.
    PinsData = "pins-data",
    /// It exceeds the number that `keep` allows.
    MoreThanKeep = "more-than-keep",
    /// It belongs to an interrupted push that the next one resumes.
    Interrupted = "interrupted",
    /// It was left by a push that cannot be resumed.
    LeftOver = "left-over",
    /// The state named by the journal was deleted.
    DeletedElsewhere = "deleted-elsewhere",
    /// Its receiver is not paired.
    NotPaired = "not-paired",

    /// Another host left it on the disk.
    OtherHost = "other-host",

    // Reasons why a file system was not read.
    /// There is no btrfs at the path of its last mount.
    NotMounted = "not-mounted",
    /// Another file system is at the path of its last mount.
    OtherFilesystemThere = "other-file-system-there",
    /// The file system could not be read.
    LookFailed = "look-failed",
}

impl ReasonCode {
    /// Returns the code with this text; `None` if this version does not know it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<ReasonCode> for &'static str {
    fn from(code: ReasonCode) -> Self {
        code.as_str()
    }
}

impl From<String> for ReasonCode {
    fn from(text: String) -> Self {
        Self::parse(&text).unwrap_or_default()
    }
}

/// The reason for a decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reason {
    /// Code for programs.
    pub code: ReasonCode,
    /// Sentence for users.
    pub text: String,
}

impl Reason {
    /// Makes a reason from its code and sentence.
    pub fn new(code: ReasonCode, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text }
    }

    /// Appends to the sentence; the code stays the same.
    #[must_use]
    pub fn and(mut self, more: &str) -> Self {
        self.text.push_str("; ");
        self.text.push_str(more);
        self
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_is_one_of_its_own_in_lower_case_with_hyphens() {
        let texts: BTreeSet<_> = ReasonCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), ReasonCode::ALL.len());
        for code in ReasonCode::ALL {
            let text = code.as_str();
            assert!(
                text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{text}"
            );
            assert_eq!(ReasonCode::parse(text), Some(*code));
        }
        assert_eq!(
            ReasonCode::from("of-a-later-version".to_owned()),
            ReasonCode::NotRecorded
        );
    }
}
