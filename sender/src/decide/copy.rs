//! The choice of the copy that the user wants to have back.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use sendshot_model::{CopyName, human};
use sendshot_proto::restore::RestorableCopy;

/// Least characters of the beginning of a UUID.
const MIN_UUID: usize = 4;

/// Why no copy was chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are no copies.
    #[error("the receiver has no copy of this volume")]
    None,
    /// Nothing matches.
    #[error("no copy has the name, UUID or time `{at}`")]
    NoSuch { at: String },
    /// All copies are younger than the requested time.
    #[error("no copy is as old as {time}: the oldest is {oldest}")]
    TooEarly { time: Timestamp, oldest: String },
    /// Several match.
    #[error("`{at}` can be any of {}", human::few(.names))]
    Ambiguous { at: String, names: Vec<String> },
    /// The requested copy is writable.
    #[error("the copy {name} is writable at the receiver, so it can change while it is read")]
    Writable { name: String },
}

/// Chooses a copy: by its name, a time in UTC, or the beginning of its UUID; without `at` the newest one. A time
/// selects the newest copy that is not later; a day means its end.
///
/// # Errors
/// See [`Error`].
pub fn choose<'a>(
    copies: &'a [RestorableCopy],
    at: Option<&str>,
) -> Result<&'a RestorableCopy, Error> {
    if copies.is_empty() {
        return Err(Error::None);
    }
    let chosen = match at {
        None => newest(copies.iter().filter(|copy| !copy.is_writable)).or(newest(copies)),
        Some(at) => Some(matching(copies, at)?),
    };
    match chosen {
        None => Err(Error::None),
        Some(copy) if copy.is_writable => Err(Error::Writable {
            name: copy.name.clone(),
        }),
        Some(copy) => Ok(copy),
    }
}

/// Sorts copies from the oldest to the newest.
pub fn sort(copies: &mut [RestorableCopy]) {
    copies.sort_by(|a, b| age_order(a).cmp(&age_order(b)));
}

/// By the time of the snapshot, which is in the name; other names by the time of the commit.
fn age_order(copy: &RestorableCopy) -> (Timestamp, u32, &str) {
    match CopyName::parse(&copy.name) {
        Ok(name) => (name.time(), name.suffix(), &copy.name),
        Err(_) => {
            let time = Timestamp::from_second(copy.committed_at);
            (time.unwrap_or(Timestamp::UNIX_EPOCH), 0, &copy.name)
        }
    }
}

fn newest<'a>(copies: impl IntoIterator<Item = &'a RestorableCopy>) -> Option<&'a RestorableCopy> {
    copies
        .into_iter()
        .max_by(|a, b| age_order(a).cmp(&age_order(b)))
}

fn matching<'a>(copies: &'a [RestorableCopy], at: &str) -> Result<&'a RestorableCopy, Error> {
    if let Some(copy) = copies.iter().find(|copy| copy.name == at) {
        return Ok(copy);
    }
    let by_uuid: Vec<_> = copies.iter().filter(|copy| is_uuid(copy, at)).collect();
    let ambiguous = |of: &[&RestorableCopy]| Error::Ambiguous {
        at: at.to_owned(),
        names: of.iter().map(|copy| copy.name.clone()).collect(),
    };
    match (by_uuid.as_slice(), time(at)) {
        ([copy], None) => Ok(copy),
        ([], None) => Err(Error::NoSuch { at: at.to_owned() }),
        ([], Some(time)) => not_later(copies, time),
        (several, None) => Err(ambiguous(several)),
        // Digits can be a day and the beginning of a UUID.
        (by_uuid, Some(time)) => {
            let mut all = by_uuid.to_vec();
            all.extend(not_later(copies, time));
            Err(ambiguous(&all))
        }
    }
}

fn not_later(copies: &[RestorableCopy], time: Timestamp) -> Result<&RestorableCopy, Error> {
    let old_enough = copies.iter().filter(|copy| age_order(copy).0 <= time);
    newest(old_enough).ok_or_else(|| Error::TooEarly {
        time,
        oldest: copies
            .iter()
            .min_by(|a, b| age_order(a).cmp(&age_order(b)))
            .map(|copy| copy.name.clone())
            .unwrap_or_default(),
    })
}

fn is_uuid(copy: &RestorableCopy, at: &str) -> bool {
    let at = at.to_ascii_lowercase();
    let hyphenated = copy.uuid.to_string();
    at.len() >= MIN_UUID
        && (hyphenated.starts_with(&at) || copy.uuid.simple().to_string().starts_with(&at))
}

/// Parses a time; without a zone it is in UTC, and a day means its last second.
fn time(text: &str) -> Option<Timestamp> {
    if let Ok(name) = CopyName::parse(text) {
        return Some(name.time());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let day = || {
        let date = text.parse::<Date>().ok()?;
        let has_time = text.contains([':', 'T', ' ']);
        (!has_time).then(|| date.to_datetime(Time::constant(23, 59, 59, 0)))
    };
    let civil = day().or_else(|| text.parse::<DateTime>().ok())?;
    let zoned = civil.to_zoned(TimeZone::UTC).ok()?;
    Some(zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn copy(name: &str, uuid: &str) -> RestorableCopy {
        RestorableCopy {
            uuid: Uuid::parse_str(uuid).unwrap(),
            ctransid: 1,
            name: name.into(),
            committed_at: 1_800_000_000,
            received_bytes: None,
            doubt: None,
            is_writable: false,
        }
    }

    fn copies() -> Vec<RestorableCopy> {
        vec![
            copy(
                "20261122T030000Z-10",
                "aaaa0000-0000-4000-8000-000000000010",
            ),
            copy("20261121T030000Z", "aaaa1111-0000-4000-8000-000000000001"),
            copy("20261122T030000Z-2", "bbbb0000-0000-4000-8000-000000000002"),
            copy("20261122T030000Z", "20261122-0000-4000-8000-000000000003"),
        ]
    }

    fn chosen(at: Option<&str>) -> Result<String, Error> {
        choose(&copies(), at).map(|copy| copy.name.clone())
    }

    #[test]
    fn the_newest_is_the_default() {
        assert_eq!(chosen(None).unwrap(), "20261122T030000Z-10");
        assert_eq!(choose(&[], None), Err(Error::None));
    }

    #[test]
    fn a_time_selects_the_newest_that_is_not_later() {
        for (at, name) in [
            ("20261121T030000Z", "20261121T030000Z"),
            ("20261122T025959Z", "20261121T030000Z"),
            ("2026-11-21", "20261121T030000Z"),
            ("2026-11-22", "20261122T030000Z-10"),
            ("2026-11-22 02:59", "20261121T030000Z"),
            ("2026-11-22T03:00:00Z", "20261122T030000Z-10"),
            ("2026-11-22T04:00:00+02:00", "20261121T030000Z"),
            ("2027-01-01", "20261122T030000Z-10"),
        ] {
            assert_eq!(chosen(Some(at)).as_deref(), Ok(name), "{at}");
        }
        let early = chosen(Some("2026-11-20")).unwrap_err();
        assert!(
            early.to_string().contains("the oldest is 20261121T030000Z"),
            "{early}"
        );
    }

    #[test]
    fn a_uuid_or_its_beginning_selects_one() {
        assert_eq!(chosen(Some("bbbb")).unwrap(), "20261122T030000Z-2");
        assert_eq!(chosen(Some("AAAA1")).unwrap(), "20261121T030000Z");
        assert!(
            matches!(chosen(Some("aaaa")), Err(Error::Ambiguous { names, .. }) if names.len() == 2)
        );
        assert_eq!(chosen(Some("bbb")), Err(Error::NoSuch { at: "bbb".into() }));
        // A day, and the beginning of a UUID.
        assert!(matches!(
            chosen(Some("20261122")),
            Err(Error::Ambiguous { .. })
        ));
    }

    #[test]
    fn a_writable_copy_is_passed_over_and_refused_by_name() {
        let mut copies = copies();
        copies[0].is_writable = true;
        assert_eq!(choose(&copies, None).unwrap().name, "20261122T030000Z-2");
        let named = choose(&copies, Some("20261122T030000Z-10"));
        assert!(matches!(named, Err(Error::Writable { .. })));
    }
}
