//! How results, notes and errors are printed.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use sendshot_model::{NotKeptEntry, human};
use sendshot_proto::problem::Problem;
use serde::Serialize;

#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
    quiet: bool,
}

#[derive(Serialize)]
struct ErrorJson<'a> {
    error: ErrorText<'a>,
}

#[derive(Serialize)]
struct ErrorText<'a> {
    message: &'a str,
    remedy: &'a str,
}

impl Output {
    pub fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Whether results are JSON.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Whether a progress line can be drawn.
    pub fn is_live(self) -> bool {
        !self.json && !self.quiet && io::stderr().is_terminal()
    }

    /// Prints a result: JSON, or text for users.
    pub fn result(self, json: &impl Serialize, text: impl FnOnce() -> String) {
        let line = if self.json {
            serde_json::to_string(json).unwrap_or_default()
        } else {
            text()
        };
        self.line(line.trim_end_matches('\n'));
    }

    /// Prints a line that is JSON already.
    pub fn stored(self, json: &str) {
        self.line(json);
    }

    /// Prints the result of an operation; with `--quiet` only as JSON.
    pub fn report(self, json: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json || !self.quiet {
            self.result(json, text);
        }
    }

    /// Prints a message that is not a result; not with `--quiet` and not among JSON.
    pub fn note(self, text: &str) {
        if !self.quiet && !self.json {
            eprintln!("{text}");
        }
    }

    /// Prints a note to standard output, where a stock tool prints the same one.
    pub fn stdout_note(self, text: &str) {
        if !self.quiet && !self.json {
            self.line(text);
        }
    }

    /// Prints an error; with `--json` as an object too.
    pub fn problem(self, problem: &Problem) {
        if self.json {
            let error = ErrorText {
                message: &problem.message,
                remedy: &problem.remedy,
            };
            self.line(&serde_json::to_string(&ErrorJson { error }).unwrap_or_default());
        }
        eprintln!("sendshotctl: {}", problem.message);
        if !problem.remedy.is_empty() {
            eprintln!("  help: {}", problem.remedy);
        }
    }

    /// Prints a line. A reader that has closed the pipe (`| head`) is not an error.
    fn line(self, text: &str) {
        if !text.is_empty() {
            let _ = writeln!(io::stdout(), "{text}");
        }
    }
}

/// Makes a table for users, as wide as its content.
pub fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(head.iter().map(|title| title.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

/// The time since then; zero if the clock is before that time.
pub fn age(seconds: i64) -> Duration {
    let age = jiff::Timestamp::now().as_second() - seconds;
    Duration::from_secs(u64::try_from(age).unwrap_or(0))
}

/// Formats a time, in UTC like the names of copies; 0 is never.
pub fn time(seconds: i64) -> String {
    match seconds {
        0 => "never".to_owned(),
        seconds => human::utc(seconds),
    }
}

/// Formats a time for JSON; `None` for "never".
pub fn time_json(seconds: i64) -> Option<String> {
    if seconds == 0 {
        return None;
    }
    jiff::Timestamp::from_second(seconds)
        .ok()
        .map(|time| time.to_string())
}

/// Formats a UUID of a message; empty if there is none.
pub fn uuid(bytes: &[u8]) -> String {
    uuid::Uuid::from_slice(bytes)
        .map(|uuid| uuid.to_string())
        .unwrap_or_default()
}

/// Characters of a disk's id in tables: enough to distinguish a few disks.
const SHORT_ID: usize = 8;

/// The beginning of an id, for tables.
pub fn short_id(id: &str) -> String {
    id.chars().take(SHORT_ID).collect()
}

/// Describes what a receiver could not keep of one kind, for users.
pub fn not_kept_line(entry: &NotKeptEntry) -> String {
    let what = entry.kind.description();
    let example = match entry.count {
        1 => entry.example.clone(),
        _ => format!("{}, for example", entry.example),
    };
    format!("  not kept {} × {what}: {example}", entry.count)
}
