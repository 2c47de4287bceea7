//! How long an interrupted push keeps its snapshot, which pins data: until its age or little free space ends it.

use std::time::Duration;

use jiff::Timestamp;
use sendshot_model::human;
use sendshot_sys::filesystem::Space;

use crate::state::record::Record;

/// Why an interrupted push is not kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// Its snapshot is older than `resume_keep`.
    Age(Duration),
    /// Less is free than `resume_min_free`.
    Space(Space),
}

impl Expired {
    /// The reason, for the user.
    pub fn reason(self) -> String {
        match self {
            Self::Age(age) => format!(
                "it is {} old, more than `resume_keep` allows",
                human::duration(age)
            ),
            Self::Space(space) => format!(
                "only {} of {} are free on its file system, less than `resume_min_free` asks for",
                human::bytes_human(space.free),
                human::bytes_human(space.total)
            ),
        }
    }
}

/// The configured limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Greatest age of a snapshot that is kept.
    pub keep: Duration,
    /// Least free space with which snapshots are kept, in percent.
    pub min_free: u8,
}

/// Whether an interrupted push is to be discarded. A clock that went back makes it young; one that jumps forward
/// costs only what was sent.
pub fn judge(record: &Record, now: Timestamp, space: Space, limits: Limits) -> Option<Expired> {
    let age = now.as_second().saturating_sub(record.taken_at);
    let age = Duration::from_secs(u64::try_from(age).unwrap_or(0));
    if age > limits.keep {
        return Some(Expired::Age(age));
    }
    let least = u128::from(space.total) * u128::from(limits.min_free) / 100;
    (u128::from(space.free) < least).then_some(Expired::Space(space))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::retention;

    const LIMITS: Limits = Limits {
        keep: Duration::from_secs(100),
        min_free: 5,
    };
    const ROOMY: Space = Space {
        free: 50,
        total: 1000,
    };

    fn taken_at(taken_at: i64) -> Record {
        Record {
            taken_at,
            ..retention::tests::record()
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn age_and_little_space_end_it() {
        let record = taken_at(1000);
        assert_eq!(judge(&record, at(1100), ROOMY, LIMITS), None);
        let age = Duration::from_secs(101);
        assert_eq!(
            judge(&record, at(1101), ROOMY, LIMITS),
            Some(Expired::Age(age))
        );
        let tight = Space { free: 49, ..ROOMY };
        assert_eq!(
            judge(&record, at(1100), tight, LIMITS),
            Some(Expired::Space(tight))
        );
    }

    #[test]
    fn a_clock_that_went_back_does_not_end_it() {
        assert_eq!(judge(&taken_at(1000), at(0), ROOMY, LIMITS), None);
        assert_eq!(judge(&taken_at(i64::MAX), at(0), ROOMY, LIMITS), None);
        assert!(judge(&taken_at(i64::MIN), at(0), ROOMY, LIMITS).is_some());
    }
}
