//! When a volume is pushed by itself. Pure: the time is an argument.
//!
//! The moments of a schedule are its *slots*. A run serves the newest slot that has come, and with it every earlier one: so a
//! slot that was missed while the host was off or asleep is made up for once, and none is served twice.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use sendshot_config::{Schedule, When};

/// Shortest and longest wait after a failed run.
const MIN_BACKOFF: Duration = Duration::from_secs(60);
pub const MAX_BACKOFF: Duration = Duration::from_secs(60 * 60);

/// Longest search for the next moment in a window, in steps of a quarter of an hour: two days.
const MAX_WINDOW_STEPS: usize = 2 * 24 * 4;

/// What a schedule says of a volume and a receiver now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The slot to serve, if one has come.
    pub slot: Option<Timestamp>,
    /// When the run may begin, by the first slot that was not served.
    pub at: Timestamp,
}

impl Due {
    /// Whether a run may begin.
    pub fn is_now(&self, now: Timestamp) -> bool {
        self.slot.is_some() && self.at <= now
    }
}

/// Finds the slot to serve. `served` is the last slot that was served, or the moment at which the schedule was seen first;
/// `spread` spreads the runs of different volumes over the jitter.
pub fn due(
    schedule: &Schedule,
    served: Timestamp,
    (now, zone): (Timestamp, &TimeZone),
    spread: u64,
) -> Due {
    let slot = newest_slot(schedule, served, now, zone).filter(|slot| *slot > served);
    // The first slot that was not served begins the run, whatever slots come until then: with a jitter as long as the interval,
    // the newest one would always be too new.
    let first = next_slot(schedule, served, served, zone);
    let jitter = match u64::try_from(schedule.jitter.as_millis()).unwrap_or(u64::MAX) {
        0 => SignedDuration::ZERO,
        millis => SignedDuration::from_millis(i64::try_from(spread % millis).unwrap_or(0)),
    };
    let begins = first.saturating_add(jitter).unwrap_or(first);
    // A run that waits for its window begins there, not at its slot.
    let at = in_window(schedule, begins, now, zone);
    Due { slot, at }
}

/// What counts as served last if the noted slot is in the future: it was served while the clock was ahead. One slot is due then.
/// Returns `None` if nothing is wrong.
pub fn after_a_clock_that_was_ahead(
    schedule: &Schedule,
    served: Timestamp,
    (now, zone): (Timestamp, &TimeZone),
) -> Option<Timestamp> {
    if served <= now {
        return None;
    }
    let before = match &schedule.when {
        When::Every(interval) => {
            let interval = SignedDuration::try_from(*interval).ok()?;
            now.checked_sub(interval).ok()
        }
        When::Calendar(calendar) => {
            let last = calendar.last(&now.to_zoned(zone.clone()));
            last.and_then(|last| last.checked_sub(SignedDuration::from_secs(1)).ok())
        }
    };
    Some(before.unwrap_or(now))
}

/// The newest slot that is not after `now`; none if there is none after `served`.
fn newest_slot(
    schedule: &Schedule,
    served: Timestamp,
    now: Timestamp,
    zone: &TimeZone,
) -> Option<Timestamp> {
    match &schedule.when {
        When::Every(interval) => {
            let passed = u64::try_from(now.duration_since(served).as_secs()).ok()?;
            let whole = passed - passed % interval.as_secs().max(1);
            let whole = SignedDuration::from_secs(i64::try_from(whole).ok()?);
            served.checked_add(whole).ok()
        }
        When::Calendar(calendar) => calendar.last(&now.to_zoned(zone.clone())),
    }
}

/// The first slot after `time`, counted from `served`.
fn next_slot(
    schedule: &Schedule,
    time: Timestamp,
    served: Timestamp,
    zone: &TimeZone,
) -> Timestamp {
    let next = match &schedule.when {
        When::Every(interval) => {
            let interval = SignedDuration::try_from(*interval).ok();
            interval.and_then(|interval| served.checked_add(interval).ok())
        }
        When::Calendar(calendar) => calendar.after(&time.to_zoned(zone.clone())),
    };
    // A calendar that has no further moment never runs.
    next.unwrap_or(Timestamp::MAX)
}

/// The first moment from `time` on, and not before `now`, that is in a window.
fn in_window(schedule: &Schedule, time: Timestamp, now: Timestamp, zone: &TimeZone) -> Timestamp {
    let is_open = |at: &Zoned| {
        let windows = &schedule.windows;
        windows.is_empty() || windows.iter().any(|window| window.contains(at.time()))
    };
    let late = time.max(now);
    if is_open(&late.to_zoned(zone.clone())) {
        return time;
    }
    // Windows begin at whole minutes; a quarter of an hour is found first, and then the minute.
    let step = |at: Timestamp, minutes: i64| {
        let span = SignedDuration::from_mins(minutes);
        at.saturating_add(span).unwrap_or(Timestamp::MAX)
    };
    let minute = late.as_second() - late.as_second().rem_euclid(60);
    let mut at = Timestamp::from_second(minute).unwrap_or(late);
    for _ in 0..MAX_WINDOW_STEPS {
        let later = step(at, 15);
        let found = (1..=15).map(|minutes| step(at, minutes));
        let found = found
            .into_iter()
            .find(|at| is_open(&at.to_zoned(zone.clone())));
        if let Some(found) = found {
            return found;
        }
        at = later;
    }
    at
}

/// How long to wait after so many failed runs without a success.
pub fn backoff(failed: u32) -> Duration {
    let doubled = MIN_BACKOFF.saturating_mul(1 << failed.saturating_sub(1).min(10));
    doubled.min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(when: &str, windows: &[&str]) -> Schedule {
        Schedule {
            when: when.parse().unwrap(),
            jitter: Duration::ZERO,
            windows: windows
                .iter()
                .map(|window| window.parse().unwrap())
                .collect(),
        }
    }

    fn at(text: &str) -> Timestamp {
        format!("{text}Z").parse().unwrap()
    }

    fn run(schedule: &Schedule, served: &str, now: &str) -> (Option<Timestamp>, Timestamp) {
        let due = due(schedule, at(served), (at(now), &TimeZone::UTC), 0);
        (due.slot, due.at)
    }

    #[test]
    fn an_interval_keeps_its_phase_and_is_made_up_for_once() {
        let hourly = schedule("every 1h", &[]);
        let next = at("2026-11-22T04:00:00");
        assert_eq!(
            run(&hourly, "2026-11-22T03:00:00", "2026-11-22T03:59:59"),
            (None, next)
        );
        assert_eq!(
            run(&hourly, "2026-11-22T03:00:00", "2026-11-22T04:00:07"),
            (Some(next), next)
        );
        // Off for two days: one run, of the newest slot.
        let newest = at("2026-11-24T05:00:00");
        assert_eq!(
            run(&hourly, "2026-11-22T03:00:00", "2026-11-24T05:10:00"),
            (Some(newest), next)
        );
    }

    #[test]
    fn no_jitter_keeps_a_run_from_its_turn() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        for (when, jitter) in [
            ("every 5 min", 5),
            ("every 5 min", 12),
            ("*/5 * * * *", 5),
            ("*/5 * * * *", 12),
        ] {
            let schedule = Schedule {
                jitter: minutes(jitter),
                ..schedule(when, &[])
            };
            let begin = at("2026-11-22T03:00:00");
            for spread in (0..minutes(jitter).as_millis() as u64).step_by(997) {
                // It is looked now and then only.
                let mut looks = (1..).map(|n| begin + SignedDuration::from_secs(29 * n));
                let runs = looks
                    .find(|now| due(&schedule, begin, (*now, &TimeZone::UTC), spread).is_now(*now));
                let waited = runs.unwrap().duration_since(begin);
                let longest =
                    SignedDuration::from_mins(5 + jitter as i64) + SignedDuration::from_secs(29);
                assert!(waited <= longest, "{when}, {jitter}: {waited:#}");
            }
        }
    }

    #[test]
    fn a_calendar_is_made_up_for_once() {
        let daily = schedule("0 3 * * *", &[]);
        let (monday, tuesday) = (at("2026-11-23T03:00:00"), at("2026-11-24T03:00:00"));
        assert_eq!(
            run(&daily, "2026-11-22T03:00:00", "2026-11-22T20:00:00"),
            (None, monday)
        );
        assert_eq!(
            run(&daily, "2026-11-22T03:00:00", "2026-11-24T09:00:00"),
            (Some(tuesday), monday)
        );
        let after = at("2026-11-25T03:00:00");
        assert_eq!(
            run(&daily, "2026-11-24T03:00:00", "2026-11-24T09:00:01"),
            (None, after)
        );
    }

    #[test]
    fn a_run_waits_for_its_window() {
        let nightly = schedule("every 1h", &["22:00-06:00"]);
        let (slot, begins) = run(&nightly, "2026-11-22T05:30:00", "2026-11-22T12:10:33");
        assert_eq!(slot, Some(at("2026-11-22T11:30:00")));
        assert_eq!(begins, at("2026-11-22T22:00:00"));
        let (_, begins) = run(&nightly, "2026-11-22T05:30:00", "2026-11-22T22:00:00");
        assert!(begins <= at("2026-11-22T22:00:00"));
    }

    #[test]
    fn a_clock_that_was_ahead_does_not_stop_the_runs() {
        for when in ["every 1h", "0 3 * * *", "0 3 * * 0"] {
            let schedule = schedule(when, &[]);
            let mut served = at("2036-11-22T12:00:00");
            let mut runs = 0;
            for hour in 0..24 * 15 {
                let now = at("2026-11-22T12:10:00");
                let now = now.checked_add(SignedDuration::from_hours(hour)).unwrap();
                let clock = (now, &TimeZone::UTC);
                served = after_a_clock_that_was_ahead(&schedule, served, clock).unwrap_or(served);
                let due = due(&schedule, served, clock, 0);
                if due.is_now(now) {
                    served = due.slot.unwrap();
                    runs += 1;
                    assert!(hour > 0 || runs == 1, "{when}: not at once");
                }
            }
            let expected = match when {
                "every 1h" => 24 * 15,
                "0 3 * * *" => 16,
                _ => 3,
            };
            assert_eq!(runs, expected, "{when}");
        }
    }

    #[test]
    fn jitter_delays_by_less_than_itself() {
        let mut hourly = schedule("every 1h", &[]);
        hourly.jitter = Duration::from_secs(300);
        let now = at("2026-11-22T04:00:00");
        for spread in [0, 1, 299_999, 300_000, u64::MAX] {
            let due = due(
                &hourly,
                at("2026-11-22T03:00:00"),
                (now, &TimeZone::UTC),
                spread,
            );
            let late = due.at.duration_since(now).as_millis();
            assert!((0..300_000).contains(&late), "{spread}: {late}");
        }
    }

    #[test]
    fn a_month_with_downtime_makes_up_for_each_gap_once() {
        let hourly = schedule("every 1h", &[]);
        let (mut served, mut runs) = (at("2026-11-01T00:00:00"), Vec::new());
        for minute in 0..30 * 24 * 60 {
            let now = at("2026-11-01T00:00:00")
                .checked_add(SignedDuration::from_mins(minute))
                .unwrap();
            let hour = minute / 60;
            // Asleep from 22 to 7 each night, and off for a week.
            if !(7..22).contains(&(hour % 24)) || (240..408).contains(&hour) {
                continue;
            }
            let due = due(&hourly, served, (now, &TimeZone::UTC), 0);
            if due.is_now(now) {
                served = due.slot.unwrap();
                runs.push((now, served));
            }
        }
        let slots: std::collections::BTreeSet<_> = runs.iter().map(|run| run.1).collect();
        assert_eq!(slots.len(), runs.len(), "a slot was served twice");
        // 23 days of 15 hours; each has its slots from 7 to 21, the first of which makes up for the night.
        assert_eq!(runs.len(), 23 * 15);
    }

    #[test]
    fn the_wait_after_failures_grows_to_an_hour() {
        assert_eq!(backoff(1), MIN_BACKOFF);
        assert_eq!(backoff(2), MIN_BACKOFF * 2);
        assert_eq!(backoff(100), MAX_BACKOFF);
    }
}
