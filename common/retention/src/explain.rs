//! A policy in words.

use sendshot_model::human;

use crate::judge::{Copy, judge};
use crate::policy::Policy;
use crate::rule::{Part, Rule};

const SECONDS_PER_HOUR: i64 = 3600;

/// Pushes of a year in the example.
const HOURS_PER_YEAR: i64 = 365 * 24;

/// Says in words what a policy will do, with the number of copies after a year of hourly pushes that end at `now`.
#[must_use]
pub fn explain(policy: &Policy, now: i64) -> String {
    let parts = match &policy.rule {
        Rule::All => return "keeps every copy".to_owned(),
        Rule::Parts(parts) => parts,
    };
    let mut said: Vec<String> = parts.iter().map(words).collect();
    if policy.protect.as_secs() > 0 {
        said.push(format!(
            "everything younger than {}",
            human::duration(policy.protect)
        ));
    }
    let copies: Vec<Copy> = (0..HOURS_PER_YEAR)
        .rev()
        .map(|hours| Copy {
            time: now - hours * SECONDS_PER_HOUR,
            is_certain: true,
            ..Copy::default()
        })
        .collect();
    let judged = judge(&copies, policy, now).verdicts;
    let stay = judged.iter().filter(|verdict| !verdict.goes()).count();
    format!(
        "keeps {}: about {stay} copies after a year of hourly pushes",
        said.join(", and ")
    )
}

fn words(part: &Part) -> String {
    match part {
        Part::OneEach { count, unit } => match count.get() {
            1 => format!("the earliest copy of the current {}", unit.name()),
            count => format!(
                "the earliest copy of each of the last {count} {}s",
                unit.name()
            ),
        },
        Part::AllYounger { days } => match days.get() {
            1 => "every copy younger than a day".to_owned(),
            days => format!("every copy younger than {days} days"),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_year_of_hourly_pushes_is_counted() {
        let now = "2026-11-29T12:30:00Z"
            .parse::<jiff::Timestamp>()
            .unwrap()
            .as_second();
        let policy = Policy {
            rule: "24 hours hourly, 30 days daily, 12 months monthly"
                .parse()
                .unwrap(),
            protect: Duration::ZERO,
            ..Policy::default()
        };
        assert_eq!(
            explain(&policy, now),
            "keeps the earliest copy of each of the last 24 hours, and the earliest copy of each of the last 30 days, \
             and the earliest copy of each of the last 12 months: about 64 copies after a year of hourly pushes"
        );
        assert_eq!(explain(&Policy::default(), now), "keeps every copy");
    }
}
