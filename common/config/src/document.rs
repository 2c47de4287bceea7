//! Reads a TOML file table by table, with the position of each value.
//!
//! The tables are walked rather than deserialised: this walk knows the position of every key and value, also
//! for faults that only a second check finds (a relative path, a duplicate name).

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::ConfigError;
use crate::error::Problem;

/// Minimum similarity (0 to 1) of two keys for one to be suggested for the other.
const SUGGEST_FROM: f64 = 0.8;

/// Parses the text of a file with `read`, which receives the whole document.
pub(crate) fn parse<T>(
    file: &Path,
    text: &str,
    read: impl FnOnce(&Section<'_>) -> Result<T, Problem>,
) -> Result<T, ConfigError> {
    let at = |problem: Problem| problem.locate(file, text);
    let table = DeTable::parse(text).map_err(|e| at(Problem::new(e.span(), e.message())))?;
    let root = Section {
        name: String::new(),
        table: table.get_ref(),
        span: None,
    };
    read(&root).map_err(at)
}

/// Reads the text of a file; `remedy` says how to create it if it does not exist.
pub(crate) fn load(file: &Path, remedy: &'static str) -> Result<String, ConfigError> {
    std::fs::read_to_string(file).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => ConfigError::Absent {
            file: file.to_owned(),
            remedy,
        },
        _ => ConfigError::Read {
            file: file.to_owned(),
            source,
        },
    })
}

/// A table of the file.
pub(crate) struct Section<'a> {
    name: String,
    table: &'a DeTable<'a>,
    /// Position of its key; the document itself has none.
    span: Option<Range<usize>>,
}

/// A key and its value.
pub(crate) struct Entry<'a> {
    /// The key alone.
    pub(crate) key: &'a str,
    /// The key, prefixed with the names of its tables.
    name: String,
    key_span: Range<usize>,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Section<'a> {
    /// Rejects every key except these.
    pub(crate) fn accept(&self, keys: &[&str]) -> Result<(), Problem> {
        let unknown = self
            .entries()
            .into_iter()
            .find(|entry| !keys.contains(&entry.key));
        match unknown {
            None => Ok(()),
            Some(entry) => Err(entry
                .key_problem(format!("unknown key `{}`", entry.key))
                .help(self.accepted(entry.key, keys))),
        }
    }

    fn accepted(&self, given: &str, keys: &[&str]) -> String {
        let list: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
        let place = match self.name.as_str() {
            "" => "at the top".to_owned(),
            name => format!("in [{name}]"),
        };
        let accepted = format!("accepted {place}: {}", list.join(", "));
        match similar(given, keys) {
            Some(key) => format!("did you mean `{key}`? {accepted}"),
            None => accepted,
        }
    }

    /// Returns all entries in the order of the file.
    pub(crate) fn entries(&self) -> Vec<Entry<'a>> {
        let mut entries: Vec<_> = self.table.iter().map(|(k, v)| self.entry(k, v)).collect();
        entries.sort_by_key(|entry| entry.key_span.start);
        entries
    }

    fn entry(
        &self,
        key: &'a Spanned<toml::de::DeString<'a>>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Entry<'a> {
        let name = match self.name.as_str() {
            "" => key.get_ref().to_string(),
            section => format!("{section}.{}", key.get_ref()),
        };
        Entry {
            key: key.get_ref(),
            name,
            key_span: key.span(),
            value,
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Entry<'a>> {
        self.table
            .get_key_value(key)
            .map(|(key, value)| self.entry(key, value))
    }

    /// Returns the entry of a required key; `example` is a valid line for it.
    pub(crate) fn require(&self, key: &str, example: &str) -> Result<Entry<'a>, Problem> {
        self.get(key).ok_or_else(|| {
            let message = match self.name.as_str() {
                "" => format!("the key `{key}` is missing"),
                name => format!("[{name}] lacks the key `{key}`"),
            };
            Problem::new(self.span.clone(), message).help(format!("add a line like `{example}`"))
        })
    }
}

impl<'a> Entry<'a> {
    /// Makes a problem about the key.
    pub(crate) fn key_problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(Some(self.key_span.clone()), message)
    }

    /// Makes a problem about the value.
    pub(crate) fn problem(&self, message: impl Display) -> Problem {
        Problem::new(
            Some(self.value.span()),
            format!("`{}`: {message}", self.name),
        )
    }

    fn wrong_type(&self, expected: &str) -> Problem {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a number with a point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.problem(format!("expected {expected}, found {found}"))
    }

    /// Returns the value as a table.
    pub(crate) fn section(&self) -> Result<Section<'a>, Problem> {
        match self.value.get_ref() {
            DeValue::Table(table) => Ok(Section {
                name: self.name.clone(),
                table,
                span: Some(self.key_span.clone()),
            }),
            _ => Err(self.wrong_type("a table")),
        }
    }

    /// Returns the value as a text.
    pub(crate) fn text(&self) -> Result<&'a str, Problem> {
        self.value
            .get_ref()
            .as_str()
            .ok_or_else(|| self.wrong_type("a string"))
    }

    /// Parses the key as a domain type.
    pub(crate) fn parse_key<T: FromStr<Err: Display>>(&self) -> Result<T, Problem> {
        self.key
            .parse()
            .map_err(|e: T::Err| self.key_problem(e.to_string()))
    }

    /// Parses the text as a domain type.
    pub(crate) fn parse<T: FromStr<Err: Display>>(&self) -> Result<T, Problem> {
        self.text()?.parse().map_err(|e| self.problem(e))
    }

    /// Parses the text as an absolute path.
    pub(crate) fn path(&self) -> Result<PathBuf, Problem> {
        let path = PathBuf::from(self.text()?);
        if !path.is_absolute() {
            return Err(self.problem("the path must be absolute, that is start with `/`"));
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(self.problem("the path must not contain `..`"));
        }
        if path.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(self.problem("a path cannot contain a NUL character"));
        }
        Ok(path)
    }

    /// Parses the value as a whole number from 1.
    pub(crate) fn count(&self) -> Result<std::num::NonZeroU32, Problem> {
        let Some(integer) = self.value.get_ref().as_integer() else {
            return Err(self.wrong_type("a whole number"));
        };
        u32::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .and_then(std::num::NonZeroU32::new)
            .ok_or_else(|| self.problem("expected a whole number from 1 to 4294967295"))
    }

    /// Parses the value as a duration with units: `10m`, `7 days`. Days have 24 hours.
    pub(crate) fn duration(&self) -> Result<Duration, Problem> {
        let text = self.text()?;
        let wrong = || {
            self.problem(format!("`{text}` is not a span of time")).help(
                "write a number with a unit, for example \"30s\", \"10m\", \"12h\" or \"7 days\"",
            )
        };
        let span: Span = text.parse().map_err(|_| wrong())?;
        let duration = span.to_duration(SpanRelativeTo::days_are_24_hours());
        duration
            .ok()
            .and_then(|duration| Duration::try_from(duration).ok())
            .ok_or_else(wrong)
    }

    /// Parses the value as an address of this host, and a port, that no other host reaches.
    pub(crate) fn loopback_address(&self) -> Result<SocketAddr, Problem> {
        let text = self.text()?;
        let wrong = |what: &str| {
            self.problem(format!("`{text}` is not {what}"))
                .help("for example \"127.0.0.1:7118\"; who reads it needs no password, so a proxy has to protect it for other hosts")
        };
        let address: SocketAddr = text
            .parse()
            .map_err(|_| wrong("an IP address with a port"))?;
        match (address.ip().is_loopback(), address.port()) {
            (true, 1..) => Ok(address),
            (true, 0) => Err(wrong("an address with a port from 1")),
            (false, _) => Err(wrong("a loopback address")),
        }
    }

    /// Parses the value as an age from which to warn: a duration, or `never`.
    pub(crate) fn age(&self) -> Result<Option<Duration>, Problem> {
        match self.text()? {
            "never" => Ok(None),
            _ => self.duration().map(Some),
        }
    }

    /// Parses the value as a number of bytes with a unit: `64 MiB`.
    pub(crate) fn bytes(&self) -> Result<u64, Problem> {
        let text = self.text()?;
        size(text).ok_or_else(|| {
            self.problem(format!("`{text}` is not a size"))
                .help("write a whole number with B, KiB, MiB, GiB or TiB, for example \"64 MiB\"")
        })
    }

    /// Parses the value as a percentage: `5%`, from 0 to 100.
    pub(crate) fn percent(&self) -> Result<u8, Problem> {
        let text = self.text()?;
        let number = text.strip_suffix('%').map(str::trim_end);
        let number = number.and_then(|number| number.parse().ok());
        number.filter(|percent| *percent <= 100).ok_or_else(|| {
            self.problem(format!("`{text}` is not a percentage"))
                .help("write a whole number from 0 to 100 and %, for example \"5%\"")
        })
    }

    /// Returns the value as true or false.
    pub(crate) fn switch(&self) -> Result<bool, Problem> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Ok(*value),
            _ => Err(self.wrong_type("true or false")),
        }
    }

    /// Returns the values of a list.
    pub(crate) fn list(&self) -> Result<Vec<Entry<'a>>, Problem> {
        let DeValue::Array(items) = self.value.get_ref() else {
            return Err(self.wrong_type("a list"));
        };
        let item = |value: &'a Spanned<DeValue<'a>>| Entry {
            key: self.key,
            name: self.name.clone(),
            key_span: self.key_span.clone(),
            value,
        };
        Ok(items.iter().map(item).collect())
    }
}

fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start() {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn similar<'k>(given: &str, keys: &[&'k str]) -> Option<&'k str> {
    let score = |key: &str| strsim::jaro_winkler(given, key);
    let best = keys
        .iter()
        .copied()
        .max_by(|a, b| score(a).total_cmp(&score(b)))?;
    (score(best) >= SUGGEST_FROM).then_some(best)
}
