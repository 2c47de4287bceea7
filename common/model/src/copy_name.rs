//! Names of copies.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// Format of the time: it sorts as text and needs no quoting.
const FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// The name of a copy: the time of its snapshot in UTC, by the sender's clock.
///
/// A suffix distinguishes snapshots of the same second. Names order by time, then suffix; text order differs
/// from that only between suffixes of different length.
///
/// ```
/// # use sendshot_model::CopyName;
/// let name: CopyName = "20261122T030000Z".parse().unwrap();
/// assert_eq!(name.with_suffix(2).to_string(), "20261122T030000Z-2");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CopyName {
    time: Timestamp,
    /// The suffix 1 is not written.
    suffix: u32,
}

/// A text is not a copy's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is not a copy's name: expected a UTC time like `20261122T030000Z`, \
     or `20261122T030000Z-2` for the second of that second",
    .text.escape_debug()
)]
pub struct CopyNameError {
    /// The invalid text.
    pub text: String,
}

impl CopyName {
    /// Makes the name of a copy whose snapshot was taken at `time`, to the second.
    ///
    /// A clock before 1970 is wrong; such a time gets the name of 1970.
    #[must_use]
    pub fn from_time(time: Timestamp) -> Self {
        let seconds = time.as_second().max(0);
        Self {
            time: Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH),
            suffix: 1,
        }
    }

    /// Makes the `n`th name of the same second: 2 gives `-2`, 0 and 1 the name without a suffix.
    #[must_use]
    pub fn with_suffix(self, n: u32) -> Self {
        Self {
            suffix: n.max(1),
            ..self
        }
    }

    /// Returns the time of the snapshot, to the second.
    #[must_use]
    pub fn time(self) -> Timestamp {
        self.time
    }

    /// Returns the number of this name within its second, from 1.
    #[must_use]
    pub fn suffix(self) -> u32 {
        self.suffix
    }

    /// Parses a name; only texts that [`CopyName`] writes are valid.
    ///
    /// # Errors
    /// [`CopyNameError`] for any other text.
    pub fn parse(text: &str) -> Result<Self, CopyNameError> {
        // The conversion back rejects `-1`, `-02`, a sign and other texts that lenient parsers accept.
        read(text)
            .filter(|name| name.to_string() == text)
            .ok_or_else(|| CopyNameError {
                text: text.to_owned(),
            })
    }
}

fn read(text: &str) -> Option<CopyName> {
    let (time, suffix) = match text.split_once('-') {
        Some((time, suffix)) => (time, suffix.parse().ok()?),
        None => (text, 1),
    };
    let civil = DateTime::strptime(FORMAT, time).ok()?;
    let time = TimeZone::UTC.to_timestamp(civil).ok()?;
    Some(CopyName::from_time(time).with_suffix(suffix))
}

impl fmt::Display for CopyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time.strftime(FORMAT);
        match self.suffix {
            1 => f.pad(&time.to_string()),
            n => f.pad(&format!("{time}-{n}")),
        }
    }
}

impl fmt::Debug for CopyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CopyName({self})")
    }
}

impl FromStr for CopyName {
    type Err = CopyNameError;

    fn from_str(text: &str) -> Result<Self, CopyNameError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for CopyName {
    type Error = CopyNameError;

    fn try_from(text: String) -> Result<Self, CopyNameError> {
        Self::parse(&text)
    }
}

impl From<CopyName> for String {
    fn from(name: CopyName) -> String {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> CopyName {
        CopyName::from_time(text.parse().unwrap())
    }

    #[test]
    fn a_time_becomes_a_name_in_utc() {
        assert_eq!(
            at("2026-11-22T04:00:00.987+01:00").to_string(),
            "20261122T030000Z"
        );
        assert_eq!(at("1960-01-01T00:00:00Z").to_string(), "19700101T000000Z");
    }

    #[test]
    fn names_lead_back() {
        for text in [
            "20261122T030000Z",
            "20261122T030000Z-2",
            "20261122T030000Z-17",
        ] {
            assert_eq!(CopyName::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "20261122",
            "20261122T030000",
            "20261122T030000Z-",
            "20261122T030000Z-0",
            "20261122T030000Z-1",
            "20261122T030000Z-02",
            "20261122T030000Z-+2",
            "20261322T030000Z",
            "20261122T240000Z",
            "20261122T030000z",
            " 20261122T030000Z",
            "19690101T000000Z",
            "2026112T0300000Z",
            "20261122T030000Z-99999999999",
        ] {
            assert!(CopyName::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_order_by_time_then_suffix() {
        let first = at("2026-11-22T03:00:00Z");
        let mut names = [
            at("2026-11-22T03:00:01Z"),
            first.with_suffix(10),
            first.with_suffix(2),
            first,
        ];
        names.sort();
        assert_eq!(
            names.map(|name| name.to_string()),
            [
                "20261122T030000Z",
                "20261122T030000Z-2",
                "20261122T030000Z-10",
                "20261122T030001Z"
            ]
        );
    }
}
