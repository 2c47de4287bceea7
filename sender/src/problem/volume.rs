//! A volume that was not found, or cannot be pushed.

use sendshot_proto::problem::{Kind as ProblemKind, Problem, ask_remedy};

use crate::volume::resolve::Error;
use crate::volume::{ids, series};

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (kind, remedy) = match &error {
            Error::Unknown { .. } => (
                ProblemKind::Usage,
                "name one of these, add it to sender.toml, or give an absolute path",
            ),
            Error::Open { .. } => return Problem::open(&error),
            Error::NotBtrfs { .. } => (
                ProblemKind::Usage,
                "is its disk mounted? only btrfs subvolumes can be replicated",
            ),
            Error::NotSubvolume { .. } => (
                ProblemKind::Usage,
                "is its disk mounted? if it is: push the subvolume that contains it, or make it one: `btrfs \
                 subvolume create`, then move its files in",
            ),
            Error::NotDirectory { .. } => {
                (ProblemKind::Usage, "push the subvolume that contains it")
            }
            Error::NotMounted { .. } => (ProblemKind::Usage, "mount it, and push again"),
            Error::Received { .. } => (
                ProblemKind::Usage,
                "work in a snapshot of it instead, which has no received UUID: `btrfs subvolume snapshot`",
            ),
            Error::Ours { .. } => (ProblemKind::Usage, "push the volume it was made from"),
            Error::Id(ids::Error::Conflict { .. }) => (
                ProblemKind::Usage,
                "give the volume back its former name, or choose a name that was never used",
            ),
            Error::Series(series::Error::Look { .. }) => return Problem::failed(&error),
            Error::Series(error) => (ProblemKind::Usage, error.remedy()),
            Error::Id(ids::Error::Twice { .. }) => (
                ProblemKind::Usage,
                "give it one name only; if one of the two lies on a copy of the disk, unmount the copy and give it an id of its own: `btrfstune -u DEVICE`",
            ),
            Error::Id(ids::Error::Clone { .. }) => (
                ProblemKind::Usage,
                "unmount the copy and give it an id of its own: `btrfstune -u DEVICE`",
            ),
            Error::Id(ids::Error::Io(source)) => {
                return Problem::state_io("keep the list of volumes", source);
            }
            Error::Ask { .. } => {
                return Problem::from_error(ProblemKind::Failed, &error).remedy(ask_remedy(&error));
            }
        };
        Problem::from_error(kind, &error).remedy(remedy)
    }
}
