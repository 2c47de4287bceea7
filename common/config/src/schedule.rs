//! When a volume is pushed by itself: `schedule`, `jitter` and `windows` of sender.toml.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::civil::Time;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp, Zoned};

/// Shortest interval: a push of an unchanged volume is cheap, and not free.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// Longest interval; a longer one is more likely a typing error.
const MAX_INTERVAL: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// When a volume is pushed by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Its moments.
    pub when: When,
    /// Each run begins up to so much later, so that many hosts do not begin at the same moment.
    pub jitter: Duration,
    /// Runs begin only in these parts of a day; at any time if there are none.
    pub windows: Vec<Window>,
}

/// The moments of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// Again and again after this span of time.
    Every(Duration),
    /// By the calendar of the host.
    Calendar(Box<Calendar>),
}

/// A calendar expression of five fields, as for cron: minute, hour, day of the month, month, day of the week.
#[derive(Debug, Clone)]
pub struct Calendar {
    text: String,
    cron: croner::Cron,
}

impl PartialEq for Calendar {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Calendar {}

/// A part of each day, by the clock of the host. It may contain midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first moment.
    pub from: Time,
    /// The moment after its last.
    pub to: Time,
}

/// Why a text is not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// It is neither of both kinds.
    #[error(
        "`{0}` is neither an interval like `every 15 min` nor a calendar expression like `0 3 * * *`"
    )]
    Neither(String),
    /// The interval is too short or too long.
    #[error("the interval of `{0}` is not between a minute and a year")]
    Interval(String),
    /// The expression names no moment that comes, such as a 30 February.
    #[error("`{0}` names no moment that comes")]
    Never(String),
    /// A part of a day is not understood.
    #[error("`{0}` is not a part of a day like `22:00-06:00`")]
    Window(String),
}

impl FromStr for When {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        if let Some(interval) = text.trim().strip_prefix("every ") {
            return interval_of(text, interval).map(Self::Every);
        }
        let neither = || ScheduleError::Neither(text.to_owned());
        // Seconds and years would be two more fields.
        let is_plain = text.split_whitespace().count() == 5 || text.starts_with('@');
        let cron: croner::Cron = text.parse().map_err(|_| neither())?;
        if !is_plain {
            return Err(neither());
        }
        let calendar = Calendar {
            text: text.to_owned(),
            cron,
        };
        match calendar.after(&Zoned::now()) {
            Some(_) => Ok(Self::Calendar(Box::new(calendar))),
            None => Err(ScheduleError::Never(text.to_owned())),
        }
    }
}

fn interval_of(text: &str, interval: &str) -> Result<Duration, ScheduleError> {
    let span: Span = interval
        .trim()
        .parse()
        .map_err(|_| ScheduleError::Neither(text.to_owned()))?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok();
    let duration = duration.and_then(|span: SignedDuration| Duration::try_from(span).ok());
    duration
        .filter(|span| (MIN_INTERVAL..=MAX_INTERVAL).contains(span))
        .ok_or_else(|| ScheduleError::Interval(text.to_owned()))
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(interval) => {
                write!(f, "every {}", sendshot_model::human::duration(*interval))
            }
            Self::Calendar(calendar) => f.write_str(&calendar.text),
        }
    }
}

impl Calendar {
    /// The expression.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first moment after a time; `None` if there is none.
    #[must_use]
    pub fn after(&self, time: &Zoned) -> Option<Timestamp> {
        let next = self.cron.find_next_occurrence(time, false).ok()?;
        Some(next.timestamp())
    }

    /// The last moment not after a time; `None` if there is none.
    #[must_use]
    pub fn last(&self, time: &Zoned) -> Option<Timestamp> {
        let last = self.cron.find_previous_occurrence(time, true).ok()?;
        Some(last.timestamp())
    }
}

impl FromStr for Window {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let wrong = || ScheduleError::Window(text.to_owned());
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        let time = |text: &str| -> Result<Time, ScheduleError> {
            // "24:00" is the end of a day.
            match text.trim() {
                "24:00" => Ok(Time::midnight()),
                text => Time::strptime("%H:%M", text).map_err(|_| wrong()),
            }
        };
        let window = Self {
            from: time(from)?,
            to: time(to)?,
        };
        if window.from == window.to {
            return Err(wrong());
        }
        Ok(window)
    }
}

impl Window {
    /// Whether a time of a day is in it.
    #[must_use]
    pub fn contains(&self, time: Time) -> bool {
        match self.from < self.to {
            true => (self.from..self.to).contains(&time),
            false => time >= self.from || time < self.to,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(text: &str) -> Result<When, ScheduleError> {
        text.parse()
    }

    #[test]
    fn a_schedule_is_an_interval_or_a_calendar_expression() {
        assert_eq!(
            when("every 15 min"),
            Ok(When::Every(Duration::from_secs(900)))
        );
        assert_eq!(when("every 1h"), Ok(When::Every(Duration::from_secs(3600))));
        assert!(matches!(when("0 3 * * *"), Ok(When::Calendar(_))));
        assert!(matches!(when("*/5 * * * 1-5"), Ok(When::Calendar(_))));
        assert!(matches!(when("@daily"), Ok(When::Calendar(_))));
        for wrong in [
            "hourly?",
            "every",
            "every day",
            "0 3 * *",
            "61 3 * * *",
            "0 0 3 * * *",
            "",
        ] {
            assert!(
                matches!(when(wrong), Err(ScheduleError::Neither(_))),
                "{wrong}: {:?}",
                when(wrong)
            );
        }
        for wrong in ["every 5s", "every 400 days"] {
            assert!(
                matches!(when(wrong), Err(ScheduleError::Interval(_))),
                "{wrong}"
            );
        }
        assert!(
            matches!(when("0 3 30 2 *"), Err(ScheduleError::Never(_))),
            "{:?}",
            when("0 3 30 2 *")
        );
    }

    #[test]
    fn moments_are_those_of_the_hosts_clock() {
        let Ok(When::Calendar(daily)) = when("30 2 * * *") else {
            panic!("no calendar");
        };
        let at = |text: &str| text.parse::<Zoned>().unwrap();
        // A night without 02:30, and one with two of them.
        let spring = at("2026-03-28T12:00[Europe/Berlin]");
        let first = daily.after(&spring).unwrap();
        assert_eq!(
            first
                .to_zoned(spring.time_zone().clone())
                .date()
                .to_string(),
            "2026-03-29"
        );
        let last = daily.last(&at("2026-03-28T02:30[Europe/Berlin]")).unwrap();
        assert_eq!(last, at("2026-03-28T02:30[Europe/Berlin]").timestamp());
    }

    #[test]
    fn a_window_may_contain_midnight() {
        let night: Window = "22:00-06:00".parse().unwrap();
        let time = |text: &str| text.parse::<Time>().unwrap();
        assert!(night.contains(time("22:00")) && night.contains(time("00:00")));
        assert!(!night.contains(time("06:00")) && !night.contains(time("12:00")));
        let day: Window = "08:00-24:00".parse().unwrap();
        assert!(day.contains(time("23:59")) && !day.contains(time("07:59")));
        for wrong in ["", "22:00", "22-23-24", "08:00-08:00", "25:00-26:00"] {
            assert!(wrong.parse::<Window>().is_err(), "{wrong}");
        }
    }
}
