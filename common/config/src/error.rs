//! Faults of a configuration, with their position and the accepted alternatives.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use sendshot_model::{PeerNameError, ReceiverId};

/// A configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file does not exist.
    #[error("{}: there is no such file; {remedy}", file.display())]
    Absent {
        /// Path of the missing file.
        file: PathBuf,
        /// How to create it.
        remedy: &'static str,
    },
    /// The file or directory cannot be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Read {
        /// Path of the file or directory.
        file: PathBuf,
        /// Error from the kernel.
        source: io::Error,
    },
    /// The content of the file is not accepted.
    #[error(transparent)]
    Invalid(Box<Fault>),
    /// The name of a file in `receivers.d` is not valid for a receiver.
    #[error("{}: the file must be called after its receiver: {source}", file.display())]
    FileName {
        /// Path of the file.
        file: PathBuf,
        /// The fault of the name.
        source: PeerNameError,
    },
    /// Two receivers have the same id but different authorities.
    #[error(
        "{} and {} name the same receiver ({id}) with different authorities: one of them is wrong, or a copy of the other; `sendshot-receiver` logs its id when it starts: remove the file of the receiver that has another id",
        file.display(), other.display()
    )]
    SameReceiver {
        /// Path of one file.
        file: PathBuf,
        /// Path of the other file.
        other: PathBuf,
        /// The id that both have.
        id: ReceiverId,
    },
    /// The result of pairing cannot be written.
    #[error("cannot write {}: {source}", file.display())]
    Write {
        /// Path of the file or directory.
        file: PathBuf,
        /// Error from the kernel.
        source: io::Error,
    },
}

/// A fault with its position in a file; its `Display` shows the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Path of the file.
    pub file: PathBuf,
    /// Position of the fault, unless something without a position is missing.
    pub place: Option<SourceLocation>,
    /// Description of the fault.
    pub message: String,
    /// What would be accepted.
    pub help: Option<String>,
}

/// A range of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLocation {
    /// Number of the line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
    /// Length in characters.
    pub width: usize,
    /// Text of the whole line.
    pub source: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(place) = &self.place {
            write!(f, "{}:{}:", place.line, place.column)?;
        }
        write!(f, " {}", self.message)?;
        if let Some(place) = &self.place {
            write!(f, "\n{place}")?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  = {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fault {}

impl fmt::Display for SourceLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        // Tabs are kept, so that the mark is below its text.
        let before = self.source.chars().take(self.column - 1);
        let indent: String = before.map(|c| if c == '\t' { c } else { ' ' }).collect();
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{number} | {}", self.source)?;
        write!(f, "{gutter} | {indent}{}", "^".repeat(self.width))
    }
}

/// A fault as found by the readers: with its byte range, without file or line.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) span: Option<Range<usize>>,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Problem {
    pub(crate) fn new(span: Option<Range<usize>>, message: impl Into<String>) -> Self {
        Self {
            span,
            message: message.into(),
            help: None,
        }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }

    pub(crate) fn locate(self, file: &Path, text: &str) -> ConfigError {
        ConfigError::Invalid(Box::new(Fault {
            file: file.to_owned(),
            place: self.span.map(|span| place(text, span)),
            message: self.message,
            help: self.help,
        }))
    }
}

fn place(text: &str, span: Range<usize>) -> SourceLocation {
    let start = boundary(text, span.start);
    let end = boundary(text, span.end).max(start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    SourceLocation {
        line: text[..line_start].matches('\n').count() + 1,
        column: text[line_start..start].chars().count() + 1,
        width: text[start..end.min(line_end)]
            .trim_end()
            .chars()
            .count()
            .max(1),
        source: text[line_start..line_end].trim_end().to_owned(),
    }
}

fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
