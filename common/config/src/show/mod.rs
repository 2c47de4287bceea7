//! The configuration in effect, as a file that says the same.

mod receiver;
mod sender;

use std::fmt::{Display, Write};
use std::time::Duration;

/// The text of a file, line by line.
#[derive(Debug, Default)]
struct Lines(String);

impl Lines {
    /// Begins a table.
    fn table(&mut self, path: &[&str]) {
        let path: Vec<String> = path.iter().map(|key| bare_or_quoted(key)).collect();
        let _ = writeln!(self.0, "\n[{}]", path.join("."));
    }

    /// A value that is TOML already, with a remark if it is the default.
    fn raw(&mut self, key: &str, value: impl Display, is_default: bool) {
        let remark = if is_default { "   # the default" } else { "" };
        let _ = writeln!(self.0, "{key} = {value}{remark}");
    }

    fn text(&mut self, key: &str, value: impl Display, is_default: bool) {
        self.raw(key, quoted(&value.to_string()), is_default);
    }

    fn duration(&mut self, key: &str, value: Duration, default: Duration) {
        self.text(key, span(value), value == default);
    }

    /// A key that has no value.
    fn absent(&mut self, key: &str, what: &str) {
        let _ = writeln!(self.0, "# {key}: {what}");
    }
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn bare_or_quoted(key: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match !key.is_empty() && key.bytes().all(is_bare) {
        true => key.to_owned(),
        false => quoted(key),
    }
}

fn list(texts: impl IntoIterator<Item = String>) -> String {
    let quoted: Vec<String> = texts.into_iter().map(|text| quoted(&text)).collect();
    format!("[{}]", quoted.join(", "))
}

/// A span of time in the largest unit that divides it.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() > 0 {
        return format!("{}s {}ns", seconds, duration.subsec_nanos());
    }
    for (unit, name) in [(86_400, " days"), (3600, "h"), (60, "m")] {
        if seconds >= unit && seconds.is_multiple_of(unit) {
            let number = seconds / unit;
            let name = if number == 1 && unit == 86_400 {
                " day"
            } else {
                name
            };
            return format!("{number}{name}");
        }
    }
    format!("{seconds}s")
}

/// Bytes in the largest unit that divides them.
fn size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_in_their_largest_units() {
        let seconds = |number| span(Duration::from_secs(number));
        assert_eq!(seconds(0), "0s");
        assert_eq!(seconds(90), "90s");
        assert_eq!(seconds(600), "10m");
        assert_eq!(seconds(7 * 86_400), "7 days");
        assert_eq!(seconds(86_400), "1 day");
        assert_eq!(span(Duration::from_millis(1500)), "1s 500000000ns");
        assert_eq!(size(64 << 20), "64 MiB");
        assert_eq!(size(0), "0 B");
        assert_eq!(size((1 << 20) + 1), "1048577 B");
        assert_eq!(bare_or_quoted("a.b"), "\"a.b\"");
    }
}
