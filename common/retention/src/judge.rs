//! The verdict on each copy.

use std::collections::BTreeMap;

use sendshot_model::human;

use crate::policy::Policy;
use crate::rule::{Part, Rule, Unit};
use crate::span::Spans;

const SECONDS_PER_DAY: i64 = 24 * 60 * 60;

/// A hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// When it ends, seconds since 1970 UTC by the receiver's clock; `None` for a hold without end.
    pub until: Option<i64>,
}

/// A copy, as far as the verdict depends on it. Times are seconds since 1970 UTC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// The time that counts.
    pub time: i64,
    /// Whether that time is certain.
    pub is_certain: bool,
    /// The time of the copy that was the newest when this one was committed, if that was known then.
    pub previous: Option<i64>,
    /// Its holds.
    pub holds: Vec<Hold>,
    /// Whether it is in use.
    pub is_leased: bool,
}

/// Why a copy stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The rule is `all`.
    All,
    /// It is the earliest of its span.
    OneEach {
        /// The kind of span.
        unit: Unit,
        /// Words for the span.
        span: String,
    },
    /// It is younger than so many days.
    AllYounger {
        /// Number of days.
        days: u32,
    },
    /// It is younger than the minimum age.
    Protected,
    /// A gap without pushes followed it that was longer than the minimum age.
    Gap,
    /// It is held.
    Held {
        /// When the last hold ends.
        until: Option<i64>,
    },
    /// It is in use.
    Leased,
    /// It is the newest.
    Newest,
    /// Its time is uncertain.
    Uncertain,
    /// Its time is in the future.
    Future,
}

impl Kept {
    /// Words for users.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::All => "every copy is kept".to_owned(),
            Self::OneEach { unit, span } => {
                format!("the {} copy of {span}", unit.adverb())
            }
            Self::AllYounger { days } => format!("younger than {days} days"),
            Self::Protected => "younger than `protect`".to_owned(),
            Self::Gap => "before a gap longer than `protect`".to_owned(),
            Self::Held { until: None } => "held".to_owned(),
            Self::Held { until: Some(until) } => format!("held until {}", human::utc(*until)),
            Self::Leased => "in use".to_owned(),
            Self::Newest => "the newest copy".to_owned(),
            Self::Uncertain => "its time is uncertain".to_owned(),
            Self::Future => "its time is in the future".to_owned(),
        }
    }
}

/// The verdict on a copy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Why it stays; it goes if there is no reason.
    pub kept: Vec<Kept>,
    /// When the last of the reasons that depend on time ends, seconds since 1970 UTC, counted like T; `None` if one of the
    /// reasons has no end.
    pub until: Option<i64>,
}

impl Verdict {
    /// Whether it goes.
    #[must_use]
    pub fn goes(&self) -> bool {
        self.kept.is_empty()
    }

    /// Words for users: all reasons, or that there is none.
    #[must_use]
    pub fn describe(&self) -> String {
        if self.goes() {
            return "no part of the rule keeps it".to_owned();
        }
        let all: Vec<String> = self.kept.iter().map(Kept::describe).collect();
        all.join("; ")
    }

    fn keep(&mut self, kept: Kept, until: Option<i64>) {
        self.until = match self.kept.is_empty() {
            true => until,
            false => self.until.zip(until).map(|(a, b)| a.max(b)),
        };
        self.kept.push(kept);
    }
}

/// The verdicts on the copies of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The time to which ages are counted.
    pub t: i64,
    /// A verdict for each copy, in their order.
    pub verdicts: Vec<Verdict>,
}

/// Decides which copies of a volume stay. They are those of one disk, in the order of their commits.
#[must_use]
pub fn judge(copies: &[Copy], policy: &Policy, now: i64) -> Judgement {
    let counts = |copy: &Copy| copy.is_certain && copy.time <= now;
    let newest = (0..copies.len())
        .filter(|at| counts(&copies[*at]))
        .max_by_key(|at| (copies[*at].time, *at));
    let t = newest.map_or(now, |at| copies[at].time);
    judge_at(copies, policy, (t, now), newest)
}

/// Judges with ages counted to `t`.
fn judge_at(
    copies: &[Copy],
    policy: &Policy,
    (t, now): (i64, i64),
    newest: Option<usize>,
) -> Judgement {
    let counts = |copy: &Copy| copy.is_certain && copy.time <= now;
    let mut verdicts = vec![Verdict::default(); copies.len()];
    for (copy, verdict) in copies.iter().zip(&mut verdicts) {
        match (copy.is_certain, copy.time <= now) {
            (false, _) => verdict.keep(Kept::Uncertain, None),
            (true, false) => verdict.keep(Kept::Future, None),
            (true, true) => {}
        }
    }
    by_rule(copies, policy, (t, &counts), &mut verdicts);
    let protect = policy.protect_seconds();
    let gap_end = gap(copies, protect, (t, &counts));
    for (at, (copy, verdict)) in copies.iter().zip(&mut verdicts).enumerate() {
        if counts(copy) && t.saturating_sub(copy.time) < protect {
            verdict.keep(Kept::Protected, Some(copy.time.saturating_add(protect)));
        }
        if let Some((before, until)) = gap_end
            && counts(copy)
            && copy.time <= before
        {
            verdict.keep(Kept::Gap, Some(until));
        }
        if let Some(until) = held(copy, now) {
            verdict.keep(Kept::Held { until }, until);
        }
        if copy.is_leased {
            verdict.keep(Kept::Leased, None);
        }
        if newest == Some(at) {
            verdict.keep(Kept::Newest, None);
        }
    }
    Judgement { t, verdicts }
}

fn by_rule(
    copies: &[Copy],
    policy: &Policy,
    (t, counts): (i64, &dyn Fn(&Copy) -> bool),
    verdicts: &mut [Verdict],
) {
    let parts = match &policy.rule {
        Rule::All => {
            verdicts
                .iter_mut()
                .for_each(|verdict| verdict.keep(Kept::All, None));
            return;
        }
        Rule::Parts(parts) => parts,
    };
    for part in parts {
        match part {
            Part::OneEach { count, unit } => {
                let spans = Spans {
                    unit: *unit,
                    timezone: &policy.timezone,
                };
                let last = spans.number(t);
                for (number, at) in earliest(copies, spans, counts) {
                    let count = i64::from(count.get());
                    if (0..count).contains(&(last - number)) {
                        let kept = Kept::OneEach {
                            unit: *unit,
                            span: spans.describe(copies[at].time),
                        };
                        verdicts[at].keep(kept, Some(spans.start(number + count)));
                    }
                }
            }
            Part::AllYounger { days } => {
                let age = i64::from(days.get()) * SECONDS_PER_DAY;
                for (copy, verdict) in copies.iter().zip(verdicts.iter_mut()) {
                    if counts(copy) && t.saturating_sub(copy.time) < age {
                        let until = Some(copy.time.saturating_add(age));
                        verdict.keep(Kept::AllYounger { days: days.get() }, until);
                    }
                }
            }
        }
    }
}

/// The earliest copy of each span; of equal times, the one that was committed first.
fn earliest(
    copies: &[Copy],
    spans: Spans<'_>,
    counts: &dyn Fn(&Copy) -> bool,
) -> BTreeMap<i64, usize> {
    let mut earliest: BTreeMap<i64, usize> = BTreeMap::new();
    for (at, copy) in copies.iter().enumerate().filter(|(_, copy)| counts(copy)) {
        let first = earliest.entry(spans.number(copy.time)).or_insert(at);
        if copy.time < copies[*first].time {
            *first = at;
        }
    }
    earliest
}

/// The last gap without pushes that was longer than `protect` and whose end is younger than that: the copies not later
/// than the first time stay until the second.
fn gap(
    copies: &[Copy],
    protect: i64,
    (t, counts): (i64, &dyn Fn(&Copy) -> bool),
) -> Option<(i64, i64)> {
    let ends = copies.iter().filter(|copy| counts(copy));
    let gaps = ends.filter_map(|copy| {
        let before = copy.previous?;
        let is_gap = copy.time.saturating_sub(before) > protect;
        let until = copy.time.saturating_add(protect);
        (is_gap && t < until).then_some((before, until))
    });
    gaps.max_by_key(|(_, until)| *until)
}

/// When the last hold ends that is in force now; `None` if there is none.
fn held(copy: &Copy, now: i64) -> Option<Option<i64>> {
    let in_force = |hold: &&Hold| hold.until.is_none_or(|until| now < until);
    let ends = copy.holds.iter().filter(in_force).map(|hold| hold.until);
    ends.reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_second()
    }

    fn policy(rule: &str, protect: i64) -> Policy {
        Policy {
            rule: rule.parse().unwrap(),
            protect: Duration::from_secs(protect as u64),
            timezone: TimeZone::UTC,
        }
    }

    fn certain(time: i64) -> Copy {
        Copy {
            time,
            is_certain: true,
            ..Copy::default()
        }
    }

    fn stay(copies: &[Copy], policy: &Policy, now: i64) -> Vec<bool> {
        let judged = judge(copies, policy, now).verdicts;
        judged.iter().map(|verdict| !verdict.goes()).collect()
    }

    #[test]
    fn a_span_keeps_its_earliest_copy() {
        let times = [
            "2026-11-21T01:00:00Z",
            "2026-11-21T01:00:00Z",
            "2026-11-21T09:00:00Z",
            "2026-11-22T02:00:00Z",
        ];
        let copies = times.map(|time| certain(at(time)));
        let now = at("2026-11-22T03:00:00Z");
        assert_eq!(
            stay(&copies, &policy("2 days daily", 0), now),
            [true, false, false, true]
        );
        assert_eq!(
            stay(&copies, &policy("1 day daily", 0), now),
            [false, false, false, true]
        );
        let judged = judge(&copies, &policy("2 days daily", 0), now).verdicts;
        assert_eq!(judged[0].describe(), "the daily copy of 2026-11-21");
        assert_eq!(judged[0].until, Some(at("2026-11-23T00:00:00Z")));
        assert_eq!(judged[1].describe(), "no part of the rule keeps it");
    }

    #[test]
    fn ages_are_counted_to_the_newest_copy() {
        let copies = [
            certain(at("2025-01-01T00:00:00Z")),
            certain(at("2025-01-02T00:00:00Z")),
        ];
        let later = at("2026-11-22T03:00:00Z");
        assert_eq!(
            stay(&copies, &policy("2 days daily", 0), later),
            [true, true]
        );
        // A clock that is behind makes them future, and deletes nothing either.
        assert_eq!(
            stay(
                &copies,
                &policy("1 day daily", 0),
                at("2024-01-01T00:00:00Z")
            ),
            [true, true]
        );
    }

    #[test]
    fn what_is_uncertain_future_held_or_in_use_stays() {
        let now = at("2026-11-22T03:00:00Z");
        let old = certain(at("2020-01-01T00:00:00Z"));
        let hold = |until| Hold { until };
        let copies = [
            old.clone(),
            Copy {
                is_certain: false,
                ..old.clone()
            },
            Copy {
                holds: vec![hold(Some(now)), hold(Some(now + 1))],
                ..old.clone()
            },
            Copy {
                holds: vec![hold(Some(now))],
                ..old.clone()
            },
            Copy {
                holds: vec![hold(None), hold(Some(now + 1))],
                ..old.clone()
            },
            Copy {
                is_leased: true,
                ..old.clone()
            },
            certain(now + 1),
            certain(now - 1),
        ];
        let policy = policy("1 hour hourly", 0);
        assert_eq!(
            stay(&copies, &policy, now),
            [false, true, true, false, true, true, true, true]
        );
        let judged = judge(&copies, &policy, now).verdicts;
        assert_eq!(judged[2].until, Some(now + 1));
        assert_eq!(judged[4].until, None);
    }

    #[test]
    fn a_gap_longer_than_protect_lengthens_the_lives_before_it() {
        let day = 86_400;
        let before = [certain(0), certain(day / 2), certain(day)];
        let back = Copy {
            previous: Some(day),
            ..certain(30 * day)
        };
        let copies = [before.as_slice(), std::slice::from_ref(&back)].concat();
        let policy = policy("2 days daily", 2 * day);
        assert_eq!(stay(&copies, &policy, 30 * day), [true, true, true, true]);
        let judged = judge(&copies, &policy, 30 * day).verdicts;
        assert_eq!(judged[1].describe(), "before a gap longer than `protect`");
        // Once the sender has been back for so long, they go.
        let later = certain(32 * day);
        let copies = [copies.as_slice(), &[later]].concat();
        assert_eq!(
            stay(&copies, &policy, 32 * day),
            [false, false, false, false, true]
        );
    }

    fn any_policy() -> impl Strategy<Value = Policy> {
        let part = (0..6u8, 1..40u32).prop_map(|(kind, number)| {
            let count = std::num::NonZeroU32::new(number).unwrap();
            match kind {
                5 => Part::AllYounger { days: count },
                kind => Part::OneEach {
                    count,
                    unit: Unit::ALL[kind as usize],
                },
            }
        });
        let zones = proptest::sample::select(vec![
            "UTC",
            "Europe/Berlin",
            "America/New_York",
            "Australia/Lord_Howe",
        ]);
        (
            proptest::collection::vec(part, 1..4),
            0..4_000_000u64,
            zones,
        )
            .prop_map(|(parts, protect, zone)| {
                let mut kinds = std::collections::BTreeSet::new();
                let kind = |part: &Part| match part {
                    Part::OneEach { unit, .. } => *unit as u8,
                    Part::AllYounger { .. } => 9,
                };
                let parts = parts
                    .into_iter()
                    .filter(|part| kinds.insert(kind(part)))
                    .collect();
                Policy {
                    rule: Rule::of(parts).unwrap(),
                    protect: Duration::from_secs(protect),
                    timezone: TimeZone::get(zone).unwrap(),
                }
            })
    }

    proptest! {
        /// The theorem, for one run: what goes would go by the receiver's clock alone, without what was pushed later.
        #[test]
        fn nothing_pushed_later_makes_an_earlier_copy_go_before_its_ordinary_time(
            policy in any_policy(),
            steps in proptest::collection::vec(0..400_000i64, 1..60),
            honest in 1..60usize,
            later in 0..10_000_000i64,
        ) {
            let mut time = at("2026-01-01T00:00:00Z");
            let mut copies = Vec::new();
            for step in steps {
                let before = copies.last().map(|copy: &Copy| copy.time);
                time += step;
                copies.push(Copy { previous: before, ..certain(time) });
            }
            let now = time + later;
            let honest = &copies[..honest.min(copies.len())];
            let all = judge(&copies, &policy, now).verdicts;
            let alone = judge_at(honest, &policy, (now, now), None).verdicts;
            for (at, (found, ordinary)) in all.iter().zip(&alone).enumerate() {
                let gap_only = ordinary.kept.iter().all(|kept| *kept == Kept::Gap);
                prop_assert!(!found.goes() || ordinary.goes() || gap_only, "copy {at}: {ordinary:?}");
            }
            prop_assert!(!all.last().unwrap().goes());
        }
    }
}
