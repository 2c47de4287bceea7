//! The kinds of faults.

use std::fmt;

/// What happens to a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The connection is reset at some byte.
    Cut,
    /// A bit is flipped on the way.
    Flip,
    /// Nothing passes any more, for a while.
    Stall,
    /// The sender's daemon dies.
    KillSender,
    /// The receiver's daemon dies.
    KillReceiver,
    /// Both die.
    KillBoth,
    /// The sender's power is cut.
    PowerSender,
    /// The receiver's power is cut.
    PowerReceiver,
    /// The word that all was committed is lost.
    LostAck,
    /// A peer lies.
    Lie,
    /// The user presses Ctrl-C.
    Cancel,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 11] = [
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

    /// Its name in lists and tables.
    pub fn name(self) -> &'static str {
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

    /// The variable that asks for a number of them.
    pub fn variable(self) -> &'static str {
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

    /// How often it comes if nothing is asked for, compared with the others.
    pub fn weight(self) -> u64 {
        match self {
            Self::Cut => 40,
            Self::KillSender | Self::KillReceiver => 15,
            Self::PowerSender | Self::PowerReceiver => 10,
            Self::Lie => 15,
            Self::LostAck | Self::Flip | Self::Cancel => 5,
            Self::Stall | Self::KillBoth => 3,
        }
    }

    /// That of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
