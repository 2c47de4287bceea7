//! A state subvolume that cannot be used.

use sendshot_proto::problem::{Kind, Problem, io_remedy};

use crate::state::store::Error;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
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
