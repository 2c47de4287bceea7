//! Whether this host's clock is good enough to delete by.
//!
//! It is good if the kernel says that it is synchronised, and the wall clock has not moved against the time since the boot
//! by an hour or more since the kernel first said so in this boot. That moment is kept with the id of the boot, so that a
//! restart of the daemon does not accept a clock that jumped before it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use sendshot_config::ClockRule;
use sendshot_model::human;
use sendshot_sys::{clock, durable};
use serde::{Deserialize, Serialize};

use crate::store::ledger::BootMoment;

/// File in the state directory.
const FILE: &str = "clock.json";

/// Movement of the wall clock from which it is not good: programs that keep the time correct it by less, and a wrong time
/// server or a dead battery by more.
const MAX_MOVEMENT_SECONDS: i64 = 60 * 60;

/// Movement between the confirmation of a time and its acceptance that does not matter.
const MAX_CONFIRMED_SECONDS: i64 = 60;

/// The first moment of a boot at which the clock was synchronised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Anchor {
    boot: String,
    /// Seconds of the wall clock minus those since the boot.
    offset: i64,
}

/// Why the clock is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockTrouble {
    /// Nothing has told the kernel that it is synchronised.
    NotSynchronised,
    /// It has moved since it was synchronised.
    Moved {
        /// By so many seconds.
        seconds: i64,
    },
}

impl ClockTrouble {
    /// Words for users, with the remedy.
    pub fn describe(self) -> String {
        match self {
            Self::NotSynchronised => "the kernel does not say that this host's clock is synchronised: run a time daemon, or \
                                      write `clock = \"trusted\"` into receiver.toml"
                .to_owned(),
            Self::Moved { seconds } => format!(
                "this host's clock has moved by {} since it was synchronised in this boot: correct it, or accept the \
                 present time by `sendshotctl copy retime --clock`",
                human::duration(std::time::Duration::from_secs(seconds.unsigned_abs()))
            ),
        }
    }
}

/// A reading of the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Seconds since 1970 UTC.
    pub now: i64,
    /// `None` if the clock is good.
    pub trouble: Option<ClockTrouble>,
    /// The same moment since the boot.
    pub boot: Option<BootMoment>,
}

/// The clock of this host.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
    anchor: Mutex<Option<Anchor>>,
}

impl Clock {
    /// The clock, with what an earlier run in this boot has noted. A file that cannot be read counts as missing.
    pub fn new(state_dir: &Path) -> Self {
        let file = state_dir.join(FILE);
        let anchor = durable::read_json(&file).unwrap_or_else(|e| {
            tracing::warn!("cannot read {}: {e}", file.display());
            None
        });
        Self {
            file,
            anchor: Mutex::new(anchor),
        }
    }

    /// Reads the clock.
    pub fn read(&self, rule: ClockRule) -> Reading {
        let now = Timestamp::now().as_second();
        let since_boot = i64::try_from(clock::since_boot().as_secs()).unwrap_or(i64::MAX);
        let boot = clock::boot_id();
        let trouble = match rule {
            ClockRule::Trusted => None,
            ClockRule::Kernel => self.trouble(boot.as_deref(), now - since_boot),
        };
        let boot = boot.map(|boot| BootMoment {
            boot,
            seconds: since_boot,
        });
        Reading { now, trouble, boot }
    }

    fn trouble(&self, boot: Option<&str>, offset: i64) -> Option<ClockTrouble> {
        let Some(boot) = boot else {
            return Some(ClockTrouble::NotSynchronised);
        };
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let of_boot = anchor.as_ref().filter(|anchor| anchor.boot == boot);
        let verdict = judge(
            clock::is_synchronised(),
            of_boot.map(|anchor| anchor.offset),
            offset,
        );
        if verdict.is_none() && of_boot.is_none() {
            let first = Anchor {
                boot: boot.to_owned(),
                offset,
            };
            if let Err(e) = durable::write_json(&self.file, &first) {
                tracing::warn!("cannot write {}: {e}", self.file.display());
            }
            *anchor = Some(first);
        }
        verdict
    }

    /// Accepts the time as right that the administrator has confirmed, although the clock has moved: `confirmed` is the wall
    /// clock minus the time since the boot, in seconds. It must be synchronised, and must not have moved since.
    ///
    /// # Errors
    /// See [`NotAccepted`].
    pub fn accept(&self, rule: ClockRule, confirmed: i64) -> Result<(), NotAccepted> {
        if rule == ClockRule::Trusted {
            return Err(NotAccepted::Trusted);
        }
        let Some(boot) = clock::boot_id().filter(|_| clock::is_synchronised()) else {
            return Err(NotAccepted::NotSynchronised);
        };
        let since_boot = i64::try_from(clock::since_boot().as_secs()).unwrap_or(i64::MAX);
        let offset = Timestamp::now().as_second() - since_boot;
        if offset.saturating_sub(confirmed).saturating_abs() > MAX_CONFIRMED_SECONDS {
            return Err(NotAccepted::Moved);
        }
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Anchor { boot, offset };
        durable::write_json(&self.file, &new)?;
        *anchor = Some(new);
        Ok(())
    }
}

/// Why the present time is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum NotAccepted {
    #[error("the kernel does not say that this host's clock is synchronised")]
    NotSynchronised,
    #[error("this host's clock has moved since the time was confirmed")]
    Moved,
    #[error("this host's clock is trusted by `clock` in receiver.toml")]
    Trusted,
    #[error("cannot record that the present time is right")]
    Io(#[from] std::io::Error),
}

fn judge(is_synchronised: bool, first: Option<i64>, offset: i64) -> Option<ClockTrouble> {
    if !is_synchronised {
        return Some(ClockTrouble::NotSynchronised);
    }
    let seconds = offset - first?;
    (seconds.abs() >= MAX_MOVEMENT_SECONDS).then_some(ClockTrouble::Moved { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_good_if_it_is_synchronised_and_stays() {
        assert_eq!(judge(true, None, 5), None);
        assert_eq!(judge(true, Some(5), 5 + 3599), None);
        assert_eq!(
            judge(false, Some(5), 5),
            Some(ClockTrouble::NotSynchronised)
        );
        assert_eq!(
            judge(true, Some(5), 5 + 3600),
            Some(ClockTrouble::Moved { seconds: 3600 })
        );
        assert_eq!(
            judge(true, Some(5), 5 - 3600),
            Some(ClockTrouble::Moved { seconds: -3600 })
        );
    }
}
