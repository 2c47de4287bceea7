//! The engine that generated a stream, as the journal records it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The engines. Both generate ordinary send streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// The sendshot engine; its parent is a sendshot, which pins no data.
    Sendshot,
    /// The kernel's own send; its parent is a snapshot, which pins the data of the past.
    Kernel,
}

impl Engine {
    /// Returns the engine of pushes whose records do not name one.
    pub fn of_old_records() -> Self {
        Self::Kernel
    }

    /// Returns its name in messages and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Sendshot => "sendshot",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text does not name an engine.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not an engine: there are `sendshot` and `kernel`")]
pub struct UnknownEngine(String);

impl FromStr for Engine {
    type Err = UnknownEngine;

    fn from_str(text: &str) -> Result<Self, UnknownEngine> {
        match text {
            "kernel" => Ok(Self::Kernel),
            "sendshot" => Ok(Self::Sendshot),
            other => Err(UnknownEngine(other.to_owned())),
        }
    }
}
