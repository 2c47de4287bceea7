//! The sending daemon: replicates live btrfs subvolumes to paired receivers.
//!
//! [`push`] is the way of a push and names the module of every stage. [`daemon`] is what
//! `main` starts; [`control`] serves sendshotctl.

pub mod connection;
pub mod control;
pub mod daemon;
pub mod decide;
pub mod problem;
pub mod push;
pub mod report;
pub mod retained;
pub mod shared;
pub mod state;
pub mod volume;

use crate::problem::{Kind, Problem, io_remedy};
use crate::push::generate;
use crate::state::state_subvolume;

/// Runs blocking work on a thread of its own, whose death becomes a [`Problem`].
async fn blocking<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    sendshot_service::blocking::run(name, work)
        .await
        .map_err(|e| Problem::from_error(Kind::Failed, &e))
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Problem::failed(&error)
    }
}

impl From<sendshot_sys::top_level::Error> for Problem {
    fn from(error: sendshot_sys::top_level::Error) -> Self {
        let remedy = error.remedy();
        Problem::from_error(Kind::Failed, &error).remedy(remedy)
    }
}

impl From<state_subvolume::Error> for Problem {
    fn from(error: state_subvolume::Error) -> Self {
        use state_subvolume::Error;
        let remedy = match &error {
            Error::Top(top) => &top.remedy(),
            Error::NotASubvolume { .. } | Error::NotADirectory { .. } => {
                "mount the top level (`mount -o subvolid=5 DEVICE DIR`), and move it away; Sendshot keeps its own there"
            }
            Error::ReadOnly => "mount the file system read-write",
            Error::ReadOnlySubvolume => {
                "mount the top level (`mount -o subvolid=5`) and make it writable: `btrfs property set .sendshot ro false`"
            }
            Error::Io { .. } | Error::Open { .. } => io_remedy(&error),
            Error::Passing { path, source } => {
                let what = format!("make {}", path.display());
                return Problem::state_io(&what, source);
            }
        };
        Problem::from_error(Kind::Failed, &error).remedy(remedy)
    }
}

impl From<sendshot_engine::capture::save::Error> for Problem {
    fn from(error: sendshot_engine::capture::save::Error) -> Self {
        use sendshot_engine::capture;
        use sendshot_engine::capture::recapture;
        use sendshot_engine::capture::save;
        let problem = Problem::failed(&error);
        match error {
            save::Error::Capture(recapture::Error::Capture(capture::Error::Incomplete {
                ..
            })) => problem.remedy(
                "the file system is damaged: copy the file from a backup, or look with `btrfs check`",
            ),
            save::Error::Capture(_) | save::Error::Check(_) => problem,
        }
    }
}

impl From<generate::Error> for Problem {
    fn from(error: generate::Error) -> Self {
        Problem::failed(&error)
    }
}
