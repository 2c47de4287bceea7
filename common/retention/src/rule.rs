//! Rules, and their text.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// A span of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// An hour of UTC.
    Hour,
    /// A calendar day, of 23 to 25 hours.
    Day,
    /// An ISO week, from Monday.
    Week,
    /// A calendar month.
    Month,
    /// A calendar year.
    Year,
}

impl Unit {
    /// All units, the shortest first.
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// Returns `hour`, `day` and so on.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// Returns `hourly`, `daily` and so on.
    #[must_use]
    pub fn adverb(self) -> &'static str {
        match self {
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }
}

/// A part of a rule. A copy stays if any part keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The last so many spans, the earliest copy of each: `24 hours hourly`.
    OneEach {
        /// Number of spans.
        count: NonZeroU32,
        /// Their kind.
        unit: Unit,
    },
    /// All copies younger than so many times 24 hours: `7 days all`.
    AllYounger {
        /// Number of days.
        days: NonZeroU32,
    },
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: &NonZeroU32| match count.get() {
            1 => "",
            _ => "s",
        };
        match self {
            Self::OneEach { count, unit } => {
                write!(
                    f,
                    "{count} {}{} {}",
                    unit.name(),
                    plural(count),
                    unit.adverb()
                )
            }
            Self::AllYounger { days } => write!(f, "{days} day{} all", plural(days)),
        }
    }
}

/// Which copies are kept, besides what holds, leases and the minimum age keep.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Rule {
    /// Every copy.
    #[default]
    All,
    /// The copies that any of these parts keeps; there is at least one.
    Parts(Vec<Part>),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Parts(parts) => {
                for (number, part) in parts.iter().enumerate() {
                    if number > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{part}")?;
                }
                Ok(())
            }
        }
    }
}

/// A text is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// There is nothing in it.
    #[error("the rule is empty")]
    Empty,
    /// `all` beside other parts.
    #[error("`all` keeps every copy, so it stands alone")]
    AllAndMore,
    /// A part is none.
    #[error("`{0}` is not a part of a rule")]
    Part(String),
    /// The number of a part is none, or too large.
    #[error("`{number}` in `{part}` is not a whole number from 1 to {MAX_COUNT}")]
    Count {
        /// The part.
        part: String,
        /// Its number.
        number: String,
    },
    /// The adverb is not that of the unit.
    #[error("`{part}`: the last {count} {unit}s have one copy each only {}", .unit.adverb(), unit = .unit.name())]
    Mixed {
        /// The part.
        part: String,
        /// Its number.
        count: u32,
        /// Its unit.
        unit: Unit,
    },
}

/// Largest number in a part: 11 years of hours.
const MAX_COUNT: u32 = 100_000;

/// An example for messages.
pub(crate) const EXAMPLE: &str =
    "24 hours hourly, 30 days daily, 12 months monthly, 10 years yearly";

impl RuleError {
    /// What the user can do.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Mixed { count, unit, .. } => format!(
                "write `{count} {}s {}`, or another number of another unit",
                unit.name(),
                unit.adverb()
            ),
            Self::AllAndMore => "remove the other parts, or `all`".to_owned(),
            Self::Empty | Self::Part(_) | Self::Count { .. } => format!(
                "write \"all\", or a list like \"{EXAMPLE}\"; \"7 days all\" keeps all copies of 7 days"
            ),
        }
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        match parts.as_slice() {
            [""] => return Err(RuleError::Empty),
            ["all"] => return Ok(Self::All),
            parts if parts.contains(&"all") => return Err(RuleError::AllAndMore),
            _ => {}
        }
        let mut found = Vec::new();
        for text in parts {
            let part = parse(text)?;
            found.push(part);
        }
        Self::of(found)
    }
}

impl Rule {
    /// Makes a rule of its parts.
    ///
    /// # Errors
    /// [`RuleError`] if there is none.
    pub fn of(parts: Vec<Part>) -> Result<Self, RuleError> {
        if parts.is_empty() {
            return Err(RuleError::Empty);
        }
        Ok(Self::Parts(parts))
    }

    /// Makes the number of a part.
    ///
    /// # Errors
    /// [`RuleError::Count`] if it is out of range.
    pub fn count(part: &str, number: &str) -> Result<NonZeroU32, RuleError> {
        let parsed = number.parse::<NonZeroU32>().ok();
        parsed
            .filter(|count| count.get() <= MAX_COUNT)
            .ok_or_else(|| RuleError::Count {
                part: part.to_owned(),
                number: number.to_owned(),
            })
    }
}

fn parse(text: &str) -> Result<Part, RuleError> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [number, unit, how] = words.as_slice() else {
        return Err(RuleError::Part(text.to_owned()));
    };
    let is_unit = |candidate: &Unit| unit.strip_suffix('s').unwrap_or(unit) == candidate.name();
    let found = Unit::ALL.into_iter().find(is_unit);
    let found = found.ok_or_else(|| RuleError::Part(text.to_owned()))?;
    let count = Rule::count(text, number)?;
    if *how == "all" {
        return match found {
            Unit::Day => Ok(Part::AllYounger { days: count }),
            Unit::Hour | Unit::Week | Unit::Month | Unit::Year => {
                Err(RuleError::Part(text.to_owned()))
            }
        };
    }
    if Unit::ALL.into_iter().all(|unit| unit.adverb() != *how) {
        return Err(RuleError::Part(text.to_owned()));
    }
    match *how == found.adverb() {
        true => Ok(Part::OneEach { count, unit: found }),
        false => Err(RuleError::Mixed {
            part: text.to_owned(),
            count: count.get(),
            unit: found,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_reads_as_it_is_written() {
        for text in [
            "all",
            "24 hours hourly, 30 days daily, 12 months monthly, 10 years yearly",
            "1 day daily, 8 weeks weekly",
            "7 days all",
        ] {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
        let loose: Rule = " 24  hours hourly ,1 days all ".parse().unwrap();
        assert_eq!(loose.to_string(), "24 hours hourly, 1 day all");
    }

    #[test]
    fn what_is_no_rule_is_named() {
        let error = |text: &str| text.parse::<Rule>().unwrap_err().to_string();
        assert_eq!(error(""), "the rule is empty");
        assert_eq!(error("24 hours hourly,"), "`` is not a part of a rule");
        assert_eq!(error("30d"), "`30d` is not a part of a rule");
        assert_eq!(
            error("3 weeks all"),
            "`3 weeks all` is not a part of a rule"
        );
        assert_eq!(
            error("30 days dayly"),
            "`30 days dayly` is not a part of a rule"
        );
        assert_eq!(
            error("30 days hourly"),
            "`30 days hourly`: the last 30 days have one copy each only daily"
        );
        assert_eq!(
            error("0 days daily"),
            "`0` in `0 days daily` is not a whole number from 1 to 100000"
        );
        assert_eq!(
            error("all, 3 days all"),
            "`all` keeps every copy, so it stands alone"
        );
    }
}
