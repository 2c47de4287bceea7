//! The kinds of faults.

use std::fmt;

use crate::kind::Fault;

/// A fault of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RestoreFault {
    /// The connection is reset at some byte, or the link is down for a while.
    Cut,
    /// A bit is flipped in transit.
    Flip,
    /// The program that restores dies.
    KillRestore,
    /// The daemon of the restoring host dies.
    KillSender,
    /// The receiver's daemon dies.
    KillReceiver,
    /// The power of the restoring host is cut.
    PowerSender,
    /// The receiver's power is cut.
    PowerReceiver,
}

impl Fault for RestoreFault {
    const ALL: &'static [Self] = &[
        Self::Cut,
        Self::Flip,
        Self::KillRestore,
        Self::KillSender,
        Self::KillReceiver,
        Self::PowerSender,
        Self::PowerReceiver,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Flip => "flip",
            Self::KillRestore => "kill-restore",
            Self::KillSender => "kill-sender",
            Self::KillReceiver => "kill-receiver",
            Self::PowerSender => "power-sender",
            Self::PowerReceiver => "power-receiver",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::Cut => "CUTS",
            Self::Flip => "FLIPS",
            Self::KillRestore => "KILLS_RESTORE",
            Self::KillSender => "KILLS_SENDER",
            Self::KillReceiver => "KILLS_RECEIVER",
            Self::PowerSender => "POWER_SENDER",
            Self::PowerReceiver => "POWER_RECEIVER",
        }
    }

    fn weight(self) -> u64 {
        match self {
            Self::KillRestore => 30,
            Self::Cut | Self::PowerSender => 20,
            Self::KillReceiver | Self::PowerReceiver => 10,
            Self::Flip | Self::KillSender => 5,
        }
    }
}

impl fmt::Display for RestoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
