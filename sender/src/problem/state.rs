//! Errors of file systems and of the state subvolumes on them.

use sendshot_model::{Reason, ReasonCode};
use sendshot_proto::problem::{JOURNAL, Kind, Problem, io_remedy};

use crate::state::filesystems;
use crate::state::store;

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        let remedy = match &error {
            store::Error::Top(top) => &top.remedy(),
            store::Error::NotASubvolume { .. } | store::Error::NotADirectory { .. } => {
                "mount the top level (`mount -o subvolid=5 DEVICE DIR`), and move it away; Sendshot needs this name for its own subvolume"
            }
            store::Error::ReadOnly => "mount the file system read-write",
            store::Error::ReadOnlySubvolume => {
                "mount the top level (`mount -o subvolid=5`) and make it writable: `btrfs property set .sendshot ro false`"
            }
            store::Error::Io { .. } | store::Error::Open { .. } => io_remedy(&error),
            store::Error::Temporary { path, source } => {
                let what = format!("create {}", path.display());
                return Problem::state_io(&what, source);
            }
        };
        Problem::from_error(Kind::Failed, &error).remedy(remedy)
    }
}

impl From<filesystems::ForgetError> for Problem {
    fn from(error: filesystems::ForgetError) -> Self {
        let (kind, remedy) = match &error {
            filesystems::ForgetError::Unknown { .. } => (
                Kind::Usage,
                "`sendshotctl list` names the file systems that it could not check",
            ),
            filesystems::ForgetError::Several { .. } => (Kind::Usage, "give more of the id"),
            filesystems::ForgetError::Mounted { .. } => (
                Kind::Refused,
                "if the disk is dead, unmount it everywhere first; if not, `sendshotctl list` shows the retained states on it, and `sendshotctl forget HOST:VOL` deletes them",
            ),
            filesystems::ForgetError::Io(source) => {
                return Problem::state_io("forget a file system", source);
            }
        };
        Problem::from_error(kind, &error).remedy(remedy)
    }
}

impl From<filesystems::LookError> for Problem {
    fn from(error: filesystems::LookError) -> Self {
        match error {
            filesystems::LookError::Io(error) => error.into(),
            filesystems::LookError::Journal(error) => Problem::local_io(JOURNAL, &error),
            filesystems::LookError::TopLevel(error) => error.into(),
            filesystems::LookError::Store(error) => error.into(),
        }
    }
}

/// Explains why a file system was not read, and what the user can do if reading failed; may be empty.
pub fn reason(why: filesystems::Missed) -> (Reason, String) {
    match why {
        filesystems::Missed::NotThere(reason) => (reason, String::new()),
        filesystems::Missed::Failed(error) => {
            let problem = Problem::from(error);
            let reason = Reason::new(ReasonCode::LookFailed, problem.message);
            (reason, problem.remedy)
        }
    }
}
