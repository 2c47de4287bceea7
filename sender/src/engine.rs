//! What makes a stream.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The engines. Both make ordinary send streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// The kernel's own send; its parent is a snapshot, which pins the data of the past
    #[default]
    Kernel,
    /// Ours; its parent is a sendshot, which pins nothing (new, not the default yet)
    Sendshot,
}

impl Engine {
    /// Its name in messages and reports.
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

/// A text that names no engine.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no engine: there are `kernel` and `sendshot`")]
pub struct UnknownEngine(String);

impl FromStr for Engine {
    type Err = UnknownEngine;

    fn from_str(text: &str) -> Result<Self, UnknownEngine> {
        match text {
            "" | "kernel" => Ok(Self::Kernel),
            "sendshot" => Ok(Self::Sendshot),
            other => Err(UnknownEngine(other.to_owned())),
        }
    }
}
