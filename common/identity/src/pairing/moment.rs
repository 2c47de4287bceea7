//! Time for permissions that end: by the wall clock and by the clock since the boot, whichever ends them first.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sendshot_sys::clock;
use serde::{Deserialize, Serialize};

/// How far the wall clock may be set back during a period without ending it: daemons that keep the time correct it
/// by seconds.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(1);

/// A moment on both clocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    wall: Timestamp,
    /// The boot that `since_boot` counts from; `None` if the kernel did not report it.
    boot_id: Option<String>,
    since_boot: Duration,
}

/// A span of time that begins at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    from: Moment,
    lasts: Duration,
}

/// The rest of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// Its length.
    pub left: Duration,
    /// Its end by the wall clock.
    pub ends_at: Timestamp,
}

impl Moment {
    /// Returns the current moment.
    #[must_use]
    pub fn now() -> Self {
        Self {
            wall: Timestamp::now(),
            boot_id: clock::boot_id(),
            since_boot: clock::since_boot(),
        }
    }

    /// Makes a moment from both clocks.
    #[must_use]
    pub fn new(wall: Timestamp, boot_id: &str, since_boot: Duration) -> Self {
        Self {
            wall,
            boot_id: Some(boot_id.to_owned()),
            since_boot,
        }
    }

    /// Returns the time of the wall clock.
    #[must_use]
    pub const fn wall(&self) -> Timestamp {
        self.wall
    }
}

impl Period {
    /// Makes a period that begins at `from`.
    #[must_use]
    pub const fn new(from: Moment, lasts: Duration) -> Self {
        Self { from, lasts }
    }

    /// Returns its beginning by the wall clock.
    #[must_use]
    pub const fn begins_at(&self) -> Timestamp {
        self.from.wall
    }

    /// Returns its end by the wall clock.
    #[must_use]
    pub fn ends_at(&self) -> Timestamp {
        let end = self.from.wall.checked_add(self.lasts);
        end.unwrap_or(Timestamp::MAX)
    }

    /// Returns the rest of the period; `None` if it has ended.
    ///
    /// It ends at its time by the wall clock, and earlier if the wall clock was set back before its beginning, or
    /// if its time has passed since the boot in which it began. So setting the clock back never prolongs it within
    /// one boot, and a reboot does not either as long as the wall clock is right. If the kernel does not report
    /// boots, all of them count as one, which can only end it earlier.
    #[must_use]
    pub fn remaining(&self, now: &Moment) -> Option<Remaining> {
        let by_wall = now.wall.duration_since(self.from.wall);
        if by_wall < -TOLERANCE {
            return None;
        }
        let by_wall = Duration::try_from(by_wall).unwrap_or_default();
        let by_boot = match now.boot_id == self.from.boot_id {
            true => now.since_boot.saturating_sub(self.from.since_boot),
            false => Duration::ZERO,
        };
        let left = self.lasts.checked_sub(by_wall.max(by_boot))?;
        let ends_at = self.ends_at();
        (!left.is_zero()).then_some(Remaining { left, ends_at })
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self, now: &Moment) -> bool {
        self.remaining(now).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    /// A moment `wall` seconds after the beginning by the wall clock, and `since_boot` seconds after the boot.
    fn at(wall: i64, boot: &str, since_boot: u64) -> Moment {
        let begin: Timestamp = "2026-11-22T03:00:00Z".parse().unwrap();
        let wall = begin + SignedDuration::from_secs(wall);
        Moment::new(wall, boot, Duration::from_secs(since_boot))
    }

    /// A day that begins an hour after the boot "a".
    fn day() -> Period {
        Period::new(at(0, "a", HOUR), Duration::from_secs(24 * HOUR))
    }

    fn left(now: &Moment) -> Option<u64> {
        day().remaining(now).map(|rest| rest.left.as_secs())
    }

    #[test]
    fn it_ends_at_its_time() {
        assert_eq!(left(&at(0, "a", HOUR)), Some(24 * HOUR));
        assert_eq!(left(&at(86_399, "a", HOUR + 86_399)), Some(1));
        assert_eq!(left(&at(86_400, "a", HOUR + 86_400)), None);
        assert_eq!(
            day().ends_at(),
            "2026-11-23T03:00:00Z".parse::<Timestamp>().unwrap()
        );
    }

    #[test]
    fn a_clock_that_is_set_forward_ends_it() {
        assert_eq!(left(&at(86_400, "a", HOUR + 5)), None);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_prolong_it() {
        // Before the beginning: it ends at once. A small correction does not count.
        assert_eq!(left(&at(-61, "a", HOUR + 5)), None);
        assert_eq!(left(&at(-59, "a", HOUR + 5)), Some(86_395));
        // After the beginning: the time since the boot counts.
        assert_eq!(left(&at(10, "a", HOUR + 86_399)), Some(1));
        assert_eq!(left(&at(10, "a", HOUR + 86_400)), None);
    }

    #[test]
    fn after_a_reboot_the_wall_clock_counts() {
        assert_eq!(left(&at(HOUR as i64, "b", 10)), Some(23 * HOUR));
        // The time since another boot says nothing, however long.
        assert_eq!(left(&at(HOUR as i64, "b", 48 * HOUR)), Some(23 * HOUR));
        assert_eq!(left(&at(86_400, "b", 10)), None);
        assert_eq!(left(&at(-61, "b", 10)), None);
    }

    #[test]
    fn boots_without_an_id_count_as_one() {
        let unknown = |wall, since_boot| Moment {
            boot_id: None,
            ..at(wall, "", since_boot)
        };
        let day = Period::new(unknown(0, HOUR), Duration::from_secs(24 * HOUR));
        assert!(!day.has_ended(&unknown(10, HOUR + 10)));
        assert!(day.has_ended(&unknown(10, HOUR + 86_400)));
        assert!(!day.has_ended(&unknown(10, 5)));
    }

    #[test]
    fn a_period_without_a_reachable_end_saturates() {
        let now = at(0, "a", HOUR);
        let long = Period::new(now.clone(), Duration::MAX);
        assert_eq!(long.ends_at(), Timestamp::MAX);
        assert!(!long.has_ended(&now));
        assert!(Period::new(now.clone(), Duration::ZERO).has_ended(&now));
    }

    #[test]
    fn both_clocks_run() {
        let first = Moment::now();
        std::thread::sleep(Duration::from_millis(20));
        let second = Moment::now();
        assert!(first.boot_id.is_some() && first.boot_id == second.boot_id);
        assert!(second.since_boot >= first.since_boot + Duration::from_millis(20));
        let file = serde_json::to_string(&first).unwrap();
        assert_eq!(serde_json::from_str::<Moment>(&file).unwrap(), first);
    }
}
