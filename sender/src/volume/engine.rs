//! What makes a stream, and which engine a push takes.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::problem::{Kind as ProblemKind, Problem};
use crate::volume::resolve::{Kind, Volume};

/// The engines. Both make ordinary send streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// Ours; its parent is a sendshot, which pins no data
    Sendshot,
    /// The kernel's own send; its parent is a snapshot, which pins the data of the past
    Kernel,
}

impl Engine {
    /// What made the pushes whose records do not say.
    pub fn of_old_records() -> Self {
        Self::Kernel
    }

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
#[error("`{0}` is no engine: there are `sendshot` and `kernel`")]
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

/// The user's own choice of an engine cannot be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Our engine was asked for, for something that only the kernel's sends.
    #[error("{} is a read-only snapshot, and those are sent by the kernel engine", path.display())]
    ReadOnlySnapshot {
        /// Where it is.
        path: PathBuf,
    },
    /// The kernel's engine was asked for, where it cannot have what it sends.
    #[error("{} is on a file system that is mounted read-only, so no snapshot can be made for the kernel engine", path.display())]
    NoSnapshot {
        /// Where it is.
        path: PathBuf,
    },
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let remedy = match &error {
            Error::ReadOnlySnapshot { .. } => {
                "leave out --engine, or push the volume that the snapshot is of"
            }
            Error::NoSnapshot { .. } => "leave out --engine, or mount the file system read-write",
        };
        Problem::from_error(ProblemKind::Usage, &error).remedy(remedy)
    }
}

/// The engine of a push. What was `asked` for goes before the volume's `usual` one. The user's own
/// read-only snapshot is sent by the kernel's: it stays where it is and serves as a parent
/// itself, so there is nothing to reduce to a sendshot.
///
/// # Errors
/// [`Error::ReadOnlySnapshot`]: rather than by another engine than was asked for, nothing is sent.
pub fn choose(asked: Option<Engine>, usual: Engine, volume: &Volume) -> Result<Engine, Error> {
    // The kernel sends snapshots only, and none can be made there.
    if volume.kind == Kind::Live && volume.read_only {
        return match asked {
            Some(Engine::Kernel) => Err(Error::NoSnapshot {
                path: volume.path.clone(),
            }),
            Some(Engine::Sendshot) | None => Ok(Engine::Sendshot),
        };
    }
    choose_for(volume.kind, asked, usual).ok_or_else(|| Error::ReadOnlySnapshot {
        path: volume.path.clone(),
    })
}

fn choose_for(kind: Kind, asked: Option<Engine>, usual: Engine) -> Option<Engine> {
    match (kind, asked) {
        (Kind::Live, asked) => Some(asked.unwrap_or(usual)),
        (Kind::Snapshot, None | Some(Engine::Kernel)) => Some(Engine::Kernel),
        (Kind::Snapshot, Some(Engine::Sendshot)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Engine::{Kernel, Sendshot};
    use super::*;

    #[test]
    fn what_was_asked_for_goes_before_what_is_configured() {
        for usual in [Sendshot, Kernel] {
            assert_eq!(choose_for(Kind::Live, None, usual), Some(usual));
            for asked in [Sendshot, Kernel] {
                assert_eq!(choose_for(Kind::Live, Some(asked), usual), Some(asked));
            }
        }
    }

    #[test]
    fn a_snapshot_is_sent_by_the_kernel_or_not_at_all() {
        for usual in [Sendshot, Kernel] {
            assert_eq!(choose_for(Kind::Snapshot, None, usual), Some(Kernel));
            assert_eq!(choose_for(Kind::Snapshot, Some(Sendshot), usual), None);
        }
    }
}
