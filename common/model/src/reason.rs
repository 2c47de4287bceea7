//! Why something is so: a sentence for people, and a code for programs that stays the same when the
//! sentence is improved.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Defines the codes. The one place where a code gets its text.
macro_rules! reason_codes {
    ($($(#[$meta:meta])* $variant:ident = $text:literal,)+) => {
        /// What a reason stands for. Each code stands for one situation; `docs/reasons.md` describes them.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "&'static str", from = "String")]
        #[non_exhaustive]
        pub enum ReasonCode {
            $($(#[$meta])* $variant,)+
        }

        impl ReasonCode {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The code as JSON has it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

reason_codes! {
    /// It was not written down, or a later version wrote it.
    #[default]
    NotRecorded = "not-recorded",

    // Why a parent was chosen.
    /// The newest state that both sides hold, by snapshots.
    NewestCommonSnapshot = "newest-common-snapshot",
    /// The newest by snapshots that can be the parent; a newer copy cannot.
    NewestUsableSnapshot = "newest-usable-snapshot",
    /// The newest state of the volume's lineage that there is a sendshot of.
    NewestSendshot = "newest-sendshot",
    /// The newest of the lineage that can be the parent; a newer copy cannot.
    NewestUsableSendshot = "newest-usable-sendshot",
    /// None is of the volume's lineage; this one gives the shortest stream.
    ShortestStream = "shortest-stream",
    /// None is of the volume's lineage, and only this one can be the parent.
    OnlyUsableSendshot = "only-usable-sendshot",
    /// The user named it.
    ChosenByHand = "chosen-by-hand",

    // Why there is none.
    /// The user asked for a full send.
    FullAskedFor = "full-asked-for",
    /// No snapshot could be made, so what has changed since one is not known.
    ReadAsItIs = "read-as-it-is",
    /// Nothing was sent: the receiver holds the state.
    AlreadyHeld = "already-held",
    /// Nothing was sent: of a series, the receiver's disk has acknowledged every snapshot.
    AllAcknowledged = "all-acknowledged",
    /// The receiver holds no copy, and none was acknowledged.
    NoCopyYet = "no-copy-yet",
    /// The receiver holds no copy, and has acknowledged one.
    CopiesGone = "copies-gone",
    /// The receiver's disk that is there holds no copy; another one of it has acknowledged one.
    NewDisk = "new-disk",
    /// What was acknowledged was so by another instance of the receiver.
    ReceiverReplaced = "receiver-replaced",
    /// A stream of this push that was built on a parent was refused.
    StreamRefused = "stream-refused",

    // What is said of a copy.
    /// Nothing stands against it.
    Usable = "usable",
    /// It can be the parent, but is a state of another subvolume than the volume is now.
    UsableVolumeReplaced = "usable-volume-replaced",
    /// It can be the parent, but it is not known which subvolume it is a state of.
    UsableOriginUnknown = "usable-origin-unknown",
    /// It can be the parent, but its snapshot changed after it was taken.
    UsableParentChanged = "usable-parent-changed",
    /// It can be the parent, but the new snapshot changed after it was taken.
    UsableNewChanged = "usable-new-changed",
    /// The copy is writable.
    CopyWritable = "copy-writable",
    /// The copy changed after it was received.
    CopyChanged = "copy-changed",
    /// The copy is a snapshot of one that had changed.
    CopyOfChangedCopy = "copy-of-changed-copy",
    /// Another tool received the copy.
    CopyReceivedByOtherTool = "copy-received-by-other-tool",
    /// Another tool received the copy, and it was written to after that.
    CopyWrittenAfterOtherTool = "copy-written-after-other-tool",
    /// The receiver says why in words only.
    CopyUnusable = "copy-unusable",
    /// The snapshot that the journal names was deleted.
    SnapshotDeleted = "snapshot-deleted",
    /// No snapshot of the volume's file system has the UUID.
    SnapshotNotHere = "snapshot-not-here",
    /// Only a sendshot is here, and the kernel needs a snapshot.
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
    /// The snapshot was taken after the one that is pushed.
    LaterThanPushed = "later-than-pushed",
    /// The snapshot was taken after the volume was made from an earlier state.
    LaterThanRollback = "later-than-rollback",
    /// A subvolume between the volume and its past was deleted.
    AncestryCut = "ancestry-cut",
    /// The snapshot is of another subvolume.
    Unrelated = "unrelated",
    /// There is no sendshot of it.
    NoSendshot = "no-sendshot",
    /// The sendshot that the journal names was deleted.
    SendshotDeleted = "sendshot-deleted",
    /// The sendshot could not be read.
    SendshotUnreadable = "sendshot-unreadable",
    /// The file is no sendshot.
    SendshotForeign = "sendshot-foreign",
    /// A later version wrote the sendshot.
    SendshotTooNew = "sendshot-too-new",
    /// An earlier version wrote the sendshot, in a layout that is no longer read.
    SendshotTooOld = "sendshot-too-old",
    /// The sendshot is damaged.
    SendshotDamaged = "sendshot-damaged",
    /// The sendshot has an inode that is in no directory.
    SendshotOrphan = "sendshot-orphan",
    /// No sendshot could be made of the snapshot here.
    SendshotNotMade = "sendshot-not-made",
    /// The sendshot is of another state than the copy.
    SendshotOtherState = "sendshot-other-state",
    /// The sendshot is of another file system.
    OtherFilesystem = "other-file-system",
    /// The sendshot is of a later transaction than what is pushed.
    LaterTransaction = "later-transaction",
    /// Streams that were built on it could not be applied.
    StreamsRefused = "streams-refused",

    // Why something is kept, or is not.
    /// The parent of the next push.
    NextParent = "next-parent",
    /// The parent of the next push, acknowledged in words only.
    NextParentReported = "next-parent-reported",
    /// The newest state that was sent; a newer one is known from the receiver's words only.
    LastSent = "last-sent",
    /// The last acknowledged state, which no stream is built on any more.
    LastRefused = "last-refused",
    /// An older state, in case the receiver loses its newest copy.
    Spare = "spare",
    /// The receiver may have committed it.
    Unconfirmed = "unconfirmed",
    /// It is being pushed.
    BeingPushed = "being-pushed",
    /// A running push may use it.
    MayBeUsed = "may-be-used",
    /// An older snapshot, which pins data.
    PinsData = "pins-data",
    /// More than `keep` allows.
    MoreThanKeep = "more-than-keep",
    /// An interrupted push that the next one resumes.
    Interrupted = "interrupted",
    /// Left by a push that cannot be resumed.
    LeftOver = "left-over",
    /// What the journal names was deleted.
    DeletedElsewhere = "deleted-elsewhere",
    /// Its receiver is not paired.
    NotPaired = "not-paired",

    /// Another host left it on the disk.
    OtherHost = "other-host",

    // Why a file system was not looked at.
    /// Nothing of btrfs is at the path where it was last.
    NotMounted = "not-mounted",
    /// Another file system is at the path where it was last.
    OtherFilesystemThere = "other-file-system-there",
    /// Looking at it failed.
    LookFailed = "look-failed",
}

impl ReasonCode {
    /// The code with this text; `None` for one that this version does not know.
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

/// Why something is so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reason {
    /// For programs.
    pub code: ReasonCode,
    /// For people.
    pub text: String,
}

impl Reason {
    /// A reason.
    pub fn new(code: ReasonCode, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text }
    }

    /// Adds more to the sentence; the situation is the same.
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
