//! Errors of volumes: not found, or not suitable for a push.

use sendshot_proto::problem::{Kind, Problem, ask_remedy};

use crate::volume::engine;
use crate::volume::resolve;
use crate::volume::{ids, series};

impl From<resolve::Error> for Problem {
    fn from(error: resolve::Error) -> Self {
        let (kind, remedy) = match &error {
            resolve::Error::Unknown { .. } => (
                Kind::Usage,
                "name one of these, add it to sender.toml, or give an absolute path",
            ),
            resolve::Error::Open { .. } => return Problem::open(&error),
            resolve::Error::NotBtrfs { .. } => (
                Kind::Usage,
                "is its disk mounted? only btrfs subvolumes can be replicated",
            ),
            resolve::Error::Untested { .. } => (
                Kind::Refused,
                "keep the volume on a file system that was made with `mkfs.btrfs --sectorsize 4096`, on a host with pages of that size",
            ),
            resolve::Error::NotSubvolume { .. } => (
                Kind::Usage,
                "is its disk mounted? if it is: push the subvolume that contains it, or make it one: `btrfs \
                 subvolume create`, then move its files in",
            ),
            resolve::Error::NotDirectory { .. } => {
                (Kind::Usage, "push the subvolume that contains it")
            }
            resolve::Error::NotMounted { .. } => (Kind::Usage, "mount it, and push again"),
            resolve::Error::Received { .. } => (
                Kind::Usage,
                "work in a snapshot of it instead, which has no received UUID: `btrfs subvolume snapshot`",
            ),
            resolve::Error::Ours { .. } => (Kind::Usage, "push the volume it was made from"),
            resolve::Error::Replaced { .. } => (
                Kind::Refused,
                "mount the restored volume there: unmount this one, and mount it again by its name",
            ),
            resolve::Error::Id(ids::Error::Conflict { .. }) => (
                Kind::Usage,
                "give the volume back its former name, or choose a name that was never used",
            ),
            resolve::Error::Series(series::Error::Look { .. }) => return Problem::failed(&error),
            resolve::Error::Series(error) => (Kind::Usage, error.remedy()),
            resolve::Error::Id(ids::Error::Twice { .. }) => (
                Kind::Usage,
                "give it one name only; if one of the two lies on a copy of the disk, unmount the copy and give it an id of its own: `btrfstune -u DEVICE`",
            ),
            resolve::Error::Id(ids::Error::Clone { .. }) => (
                Kind::Usage,
                "unmount the copy and give it an id of its own: `btrfstune -u DEVICE`",
            ),
            resolve::Error::Id(ids::Error::Io(source)) => {
                return Problem::state_io("read or write the list of volumes", source);
            }
            resolve::Error::Ask { .. } => {
                return Problem::from_error(Kind::Failed, &error).remedy(ask_remedy(&error));
            }
        };
        Problem::from_error(kind, &error).remedy(remedy)
    }
}

impl From<engine::Error> for Problem {
    fn from(error: engine::Error) -> Self {
        let remedy = match &error {
            engine::Error::ReadOnlySnapshot { .. } => {
                "leave out --engine, or push the volume that the snapshot is of"
            }
            engine::Error::NoSnapshot { .. } => {
                "leave out --engine, or mount the file system read-write"
            }
        };
        Problem::from_error(Kind::Usage, &error).remedy(remedy)
    }
}
