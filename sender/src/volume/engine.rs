//! Chooses the engine of a push.

use std::path::PathBuf;

use crate::volume::resolve::{Kind, Volume};
use sendshot_model::Engine;

/// Why the engine that the user chose cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The sendshot engine was requested for a read-only snapshot, which only the kernel engine sends.
    #[error("{} is a read-only snapshot, and those are sent by the kernel engine", path.display())]
    ReadOnlySnapshot { path: PathBuf },
    /// The kernel engine was requested where it cannot have the snapshot that it sends.
    #[error("{} is on a file system that is mounted read-only, so no snapshot can be made for the kernel engine", path.display())]
    NoSnapshot { path: PathBuf },
}

/// Chooses the engine of a push. A requested engine (`asked`) takes precedence over the volume's `usual` one. The
/// user's own read-only snapshot is sent by the kernel engine: it stays where it is and serves as a parent itself,
/// so there is nothing to reduce to a sendshot.
///
/// # Errors
/// See [`Error`]: if the requested engine cannot be used, nothing is sent.
pub fn choose(asked: Option<Engine>, usual: Engine, volume: &Volume) -> Result<Engine, Error> {
    // The kernel sends snapshots only, and none can be made on a read-only file system.
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
    use super::*;
    use sendshot_model::Engine::{Kernel, Sendshot};

    #[test]
    fn a_request_overrides_the_configuration() {
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
