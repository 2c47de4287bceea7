//! What the administrator has decided for the copies of a volume.

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::rule::Rule;

/// Minimum age if the configuration does not say: a mistake, or a thief's work, is noticed within two weeks more likely
/// than not. It also keeps a host that is off at weekends from losing most of its copies in one run.
pub const DEFAULT_PROTECT: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// A rule, a minimum age, and the calendar by which days, weeks, months and years are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The rule.
    pub rule: Rule,
    /// A copy younger than this stays.
    pub protect: Duration,
    /// The zone of the calendar. Hours are those of UTC.
    pub timezone: TimeZone,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            rule: Rule::All,
            protect: DEFAULT_PROTECT,
            timezone: TimeZone::UTC,
        }
    }
}

impl Policy {
    /// Seconds of `protect`.
    pub(crate) fn protect_seconds(&self) -> i64 {
        i64::try_from(self.protect.as_secs()).unwrap_or(i64::MAX)
    }
}
