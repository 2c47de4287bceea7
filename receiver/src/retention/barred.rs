//! Why a copy is never deleted, neither by a rule nor by hand.

/// Why a copy is no candidate at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Barred {
    NoLedger,
    NotInLedger,
    Writable,
    Changed,
    HasSubvolume,
}

impl Barred {
    /// Words for users, of one copy.
    pub fn describe(self) -> &'static str {
        match self {
            Self::NoLedger => "its volume has no ledger",
            Self::NotInLedger => "it is not in the ledger: no push has made it here",
            Self::Writable => "it is writable",
            Self::Changed => "it was changed after it was made, perhaps by deduplication",
            Self::HasSubvolume => "a subvolume lies in it",
        }
    }
}
