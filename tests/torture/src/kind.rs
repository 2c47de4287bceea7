//! The kinds of faults.

use std::fmt;

/// A list of kinds of faults.
pub trait Fault: Copy + Ord + fmt::Display + Send + Sync + 'static {
    /// All kinds.
    const ALL: &'static [Self];

    /// Name of the kind in lists and tables.
    fn name(self) -> &'static str;

    /// Environment variable with the number of faults of this kind.
    fn variable(self) -> &'static str;

    /// Relative frequency if no numbers are given.
    fn weight(self) -> u64;

    /// Returns the kind with this name.
    fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// A fault of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The connection is reset at some byte.
    Cut,
    /// A bit is flipped in transit.
    Flip,
    /// The link stalls for a while.
    Stall,
    /// The sender's daemon dies.
    KillSender,
    /// The receiver's daemon dies.
    KillReceiver,
    /// Both daemons die.
    KillBoth,
    /// The sender's power is cut.
    PowerSender,
    /// The receiver's power is cut.
    PowerReceiver,
    /// The acknowledgement of a commit is lost.
    LostAck,
    /// A peer lies.
    Lie,
    /// The user presses Ctrl-C.
    Cancel,
}

impl Fault for Kind {
    const ALL: &'static [Self] = &[
        Self::Cut,
        Self::Flip,
        Self::Stall,
        Self::KillSender,
        Self::KillReceiver,
        Self::KillBoth,
        Self::PowerSender,
        Self::PowerReceiver,
        Self::LostAck,
        Self::Lie,
        Self::Cancel,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Flip => "flip",
            Self::Stall => "stall",
            Self::KillSender => "kill-sender",
            Self::KillReceiver => "kill-receiver",
            Self::KillBoth => "kill-both",
            Self::PowerSender => "power-sender",
            Self::PowerReceiver => "power-receiver",
            Self::LostAck => "lost-ack",
            Self::Lie => "lie",
            Self::Cancel => "cancel",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::Cut => "CUTS",
            Self::Flip => "FLIPS",
            Self::Stall => "STALLS",
            Self::KillSender => "KILLS_SENDER",
            Self::KillReceiver => "KILLS_RECEIVER",
            Self::KillBoth => "KILLS_BOTH",
            Self::PowerSender => "POWER_SENDER",
            Self::PowerReceiver => "POWER_RECEIVER",
            Self::LostAck => "LOST_ACKS",
            Self::Lie => "LIES",
            Self::Cancel => "CANCELS",
        }
    }

    fn weight(self) -> u64 {
        match self {
            Self::Cut => 40,
            Self::KillSender | Self::KillReceiver => 15,
            Self::PowerSender | Self::PowerReceiver => 10,
            Self::Lie => 15,
            Self::LostAck | Self::Flip | Self::Cancel => 5,
            Self::Stall | Self::KillBoth => 3,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
