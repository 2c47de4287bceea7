//! Formats sizes, rates and times for users.

use std::time::Duration;

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Formats a size with one digit after the point: `512 B`, `1.2 GiB`.
///
/// ```
/// assert_eq!(sendshot_model::human::bytes_human(1_288_490_189), "1.2 GiB");
/// ```
#[must_use]
pub fn bytes_human(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 1;
    // 1023.95 would print as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Formats a mean rate: `12.3 MiB/s`; `-` for zero time.
#[must_use]
pub fn rate(bytes: u64, time: Duration) -> String {
    if time.is_zero() {
        return "-".to_owned();
    }
    // The conversion rounds and saturates: rates beyond 16 EiB/s do not occur.
    format!(
        "{}/s",
        bytes_human((bytes as f64 / time.as_secs_f64()) as u64)
    )
}

/// Formats a time, seconds since 1970 UTC, like the names of copies: `2026-11-22 03:00:00Z`. A time that no calendar has is
/// given in seconds.
#[must_use]
pub fn utc(seconds: i64) -> String {
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => format!("{seconds} s since 1970"),
    }
}

/// Formats a time in its two leading units: `340 ms`, `4.2 s`, `2 min 05 s`, `3 h 07 min`, `12 d 4 h`.
#[must_use]
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.subsec_millis()),
        1..10 => format!("{seconds}.{} s", time.subsec_millis() / 100),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Maximum number of objects that a message names one by one.
pub const FEW: usize = 5;

/// Lists at most five names, and the number of the others: `a, b, c, d, e and 295 more`.
///
/// Messages to users must not grow with the number of their objects.
#[must_use]
pub fn few<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<&str> = names.iter().take(FEW).map(AsRef::as_ref).collect();
    match names.len().checked_sub(FEW).filter(|more| *more > 0) {
        None => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_few_names_are_shown_and_the_rest_counted() {
        let names: Vec<String> = (1..=8).map(|n| n.to_string()).collect();
        assert_eq!(super::few(&names), "1, 2, 3, 4, 5 and 3 more");
        assert_eq!(super::few(&names[..5]), "1, 2, 3, 4, 5");
        assert_eq!(super::few(&names[..1]), "1");
        assert_eq!(super::few::<String>(&[]), "");
    }

    use super::*;

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (5 << 40, "5.0 TiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes_human(bytes), text);
        }
    }

    #[test]
    fn rates() {
        assert_eq!(rate(100 << 20, Duration::from_secs(4)), "25.0 MiB/s");
        assert_eq!(rate(1, Duration::ZERO), "-");
        assert_eq!(rate(u64::MAX, Duration::from_nanos(1)), "16.0 EiB/s");
    }

    #[test]
    fn durations() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (4_250, "4.2 s"),
            (59_999, "59 s"),
            (125_000, "2 min 05 s"),
            (11_220_000, "3 h 07 min"),
            (1_051_200_000, "12 d 4 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }
}
