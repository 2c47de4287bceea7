//! Why no rule may delete a copy, whatever its age.

use sendshot_retention::Kept;

use crate::retention::barred::Barred;
use crate::retention::view::Viewed;
use crate::store::ledger::Doubt;

/// Why no rule may delete a copy, until an administrator decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Undeletable {
    Barred(Barred),
    Held,
    UncertainTime,
    OldSnapshot,
    Future,
}

impl Undeletable {
    /// The reason, if there is one.
    pub fn of(copy: &Viewed) -> Option<Self> {
        if let Some(barred) = copy.barred {
            return Some(Self::Barred(barred));
        }
        let doubt = copy.entry.as_ref().and_then(|entry| entry.time.doubt);
        let kept = copy.verdict.iter().flat_map(|verdict| &verdict.kept);
        let reasons = kept.filter_map(|kept| match (kept, doubt) {
            (Kept::Held { .. }, _) => Some(Self::Held),
            (Kept::Uncertain, Some(Doubt::OldSnapshot | Doubt::MaybeOldSnapshot)) => {
                Some(Self::OldSnapshot)
            }
            (Kept::Uncertain, _) => Some(Self::UncertainTime),
            (Kept::Future, _) => Some(Self::Future),
            (
                Kept::All
                | Kept::OneEach { .. }
                | Kept::AllYounger { .. }
                | Kept::Protected
                | Kept::Gap
                | Kept::Leased
                | Kept::Newest,
                _,
            ) => None,
        });
        reasons.min()
    }

    /// Words for users after a number of copies.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Barred(Barred::NoLedger) => "of a volume without a ledger",
            Self::Barred(Barred::NotInLedger) => "not in the ledger",
            Self::Barred(Barred::Writable) => "writable",
            Self::Barred(Barred::Changed) => "changed after they were made",
            Self::Barred(Barred::HasSubvolume) => "with a subvolume inside",
            Self::Held => "held",
            Self::UncertainTime => "of uncertain time",
            Self::OldSnapshot => "of read-only snapshots that were old when they came",
            Self::Future => "of a time in the future",
        }
    }
}
