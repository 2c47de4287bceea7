//! Spans of the calendar, numbered.

use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;

use crate::rule::Unit;

const SECONDS_PER_HOUR: i64 = 3600;

/// The spans of one unit in a time zone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spans<'a> {
    pub(crate) unit: Unit,
    pub(crate) timezone: &'a TimeZone,
}

impl Spans<'_> {
    /// Number of the span that a time lies in; consecutive spans have consecutive numbers.
    pub(crate) fn number(self, time: i64) -> i64 {
        if self.unit == Unit::Hour {
            return time.div_euclid(SECONDS_PER_HOUR);
        }
        let day = local_date(time, self.timezone);
        match self.unit {
            Unit::Hour => time.div_euclid(SECONDS_PER_HOUR),
            Unit::Day => days(day),
            // The first of January 1970 was a Thursday.
            Unit::Week => (days(day) + 3).div_euclid(7),
            Unit::Month => i64::from(day.year()) * 12 + i64::from(day.month()) - 1,
            Unit::Year => i64::from(day.year()),
        }
    }

    /// First second of a span; the last time that can be represented for one beyond all calendars.
    pub(crate) fn start(self, number: i64) -> i64 {
        let from_days = |days: i64| {
            let span = jiff::Span::new().try_days(days).ok()?;
            EPOCH.checked_add(span).ok()
        };
        let year = |year: i64| i16::try_from(year).ok();
        let first = match self.unit {
            Unit::Hour => return number.saturating_mul(SECONDS_PER_HOUR),
            Unit::Day => from_days(number),
            Unit::Week => from_days(number.saturating_mul(7) - 3),
            Unit::Month => year(number.div_euclid(12)).and_then(|year| {
                let month = i8::try_from(number.rem_euclid(12) + 1).ok()?;
                Date::new(year, month, 1).ok()
            }),
            Unit::Year => year(number).and_then(|year| Date::new(year, 1, 1).ok()),
        };
        // Where midnight is skipped, the day begins later.
        let start = first.and_then(|day| day.to_zoned(self.timezone.clone()).ok());
        start.map_or(Timestamp::MAX.as_second(), |start| {
            start.timestamp().as_second()
        })
    }

    /// Words for the span that a time lies in.
    pub(crate) fn describe(self, time: i64) -> String {
        let zoned = zoned(time, self.timezone);
        match self.unit {
            Unit::Hour => {
                let utc = zoned.with_time_zone(TimeZone::UTC);
                utc.strftime("%Y-%m-%d %H h UTC").to_string()
            }
            Unit::Day => zoned.strftime("%Y-%m-%d").to_string(),
            Unit::Week => zoned.strftime("%G-W%V").to_string(),
            Unit::Month => zoned.strftime("%Y-%m").to_string(),
            Unit::Year => zoned.strftime("%Y").to_string(),
        }
    }
}

const EPOCH: Date = date(1970, 1, 1);

fn zoned(time: i64, timezone: &TimeZone) -> jiff::Zoned {
    let bounded = time.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    let time = Timestamp::from_second(bounded).unwrap_or_default();
    time.to_zoned(timezone.clone())
}

fn local_date(time: i64, timezone: &TimeZone) -> Date {
    zoned(time, timezone).date()
}

fn days(day: Date) -> i64 {
    EPOCH
        .until(day)
        .map_or(0, |span| i64::from(span.get_days()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    #[test]
    fn each_span_begins_where_the_one_before_ends() {
        for zone in [
            "UTC",
            "Europe/Berlin",
            "America/New_York",
            "Australia/Lord_Howe",
            "America/Sao_Paulo",
        ] {
            let timezone = TimeZone::get(zone).unwrap();
            for unit in Unit::ALL {
                let spans = Spans {
                    unit,
                    timezone: &timezone,
                };
                let first = spans.number(at("2016-06-01T00:00:00Z"));
                for number in first..first + 1000 {
                    let start = spans.start(number);
                    if start == Timestamp::MAX.as_second() {
                        continue;
                    }
                    assert_eq!(spans.number(start), number, "{zone} {unit:?}");
                    assert_eq!(spans.number(start - 1), number - 1, "{zone} {unit:?}");
                }
            }
        }
    }

    #[test]
    fn weeks_begin_on_monday() {
        let spans = Spans {
            unit: Unit::Week,
            timezone: &TimeZone::UTC,
        };
        // 2026-11-23 is a Monday.
        assert_eq!(
            spans.start(spans.number(at("2026-11-29T23:59:59Z"))),
            at("2026-11-23T00:00:00Z")
        );
        assert_eq!(spans.describe(at("2026-11-29T23:59:59Z")), "2026-W48");
    }

    #[test]
    fn a_day_can_have_23_or_25_hours() {
        let timezone = TimeZone::get("Europe/Berlin").unwrap();
        let spans = Spans {
            unit: Unit::Day,
            timezone: &timezone,
        };
        let hours = |text: &str| {
            let number = spans.number(at(text));
            (spans.start(number + 1) - spans.start(number)) / 3600
        };
        assert_eq!(hours("2026-03-29T12:00:00Z"), 23);
        assert_eq!(hours("2026-10-25T12:00:00Z"), 25);
        assert_eq!(hours("2026-10-26T12:00:00Z"), 24);
    }
}
