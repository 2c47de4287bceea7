//! Errors of a restore.

use sendshot_apply::staging::StagingError;
use sendshot_proto::problem::{Kind, Problem, io_remedy};

use crate::decide::copy;
use crate::restore::error::{Error, PlaceError, TargetError};
use crate::restore::record;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let message = |kind| Problem::from_error(kind, &error);
        match &error {
            Error::Connection(_) => match error {
                Error::Connection(error) => error.into(),
                other => Problem::from_error(Kind::Failed, &other),
            },
            Error::Pair(_) => match error {
                Error::Pair(error) => error.into(),
                other => Problem::from_error(Kind::Failed, &other),
            },
            Error::Name(_) | Error::Volume(_) | Error::Address(_) | Error::Config(_) => {
                message(Kind::Usage)
            }
            Error::NoTemporaryKeys { .. } => message(Kind::Refused).remedy(
                "upgrade sendshot-receiver on that host; until then, copy from its root with `btrfs send` or `cp`",
            ),
            Error::Unnamed { .. } => message(Kind::Usage).remedy("give it one with --name"),
            Error::NotPaired { name } => message(Kind::Usage).remedy(format!(
                "on a host that was paired: `sendshotctl pair HOST --name {name}`; on a rescue system: `sendshotctl \
                 restore --pair HOST --name {name} --list`"
            )),
            Error::NoVolume { .. } => {
                message(Kind::Usage).remedy("`sendshotctl restore --list HOST` shows the volumes")
            }
            Error::Copy(copy) => message(Kind::Usage).remedy(copy_remedy(copy)),
            Error::Target(target) => message(Kind::Usage).remedy(target_remedy(target)),
            Error::NoRoom { .. } => message(Kind::Failed).remedy(
                "free space there, or choose a target on a larger file system; nothing was fetched",
            ),
            Error::Damaged(_) => message(Kind::Failed).remedy(
                "check for faulty memory or network hardware; the same command continues",
            ),
            Error::Stalled { .. } => message(Kind::Unreachable)
                .remedy("read the receiver's journal; the same command continues"),
            Error::Differs { .. } => message(Kind::Failed).remedy(
                "the tree was deleted; look at the copy on the receiver, and use --accept-differences if you trust it",
            ),
            Error::Key(_)
            | Error::Invalid(_)
            | Error::Apply(_)
            | Error::Check(_)
            | Error::Io { .. }
            | Error::Publish(_)
            | Error::Staging(
                StagingError::Area(_)
                | StagingError::ForeignArea { .. }
                | StagingError::Make { .. }
                | StagingError::Publish { .. }
                | StagingError::Drop { .. },
            ) => message(Kind::Failed).remedy(io_remedy(&error)),
            Error::Place(place) => message(Kind::Usage).remedy(place_remedy(place)),
            Error::OtherCopy { .. } => message(Kind::Failed)
                .remedy("the same command brings the copy that you want"),
            Error::InUse { .. } => message(Kind::Refused).remedy(
                "stop its users and unmount it; or use --while-in-use, and remount it afterwards as the report says",
            ),
            Error::State(_) | Error::Record(_) => message(Kind::Failed).remedy(io_remedy(&error)),
            Error::Daemon { kind, remedy, .. } => message(*kind).remedy(remedy.clone()),
            Error::Alone(_) => message(Kind::Failed)
                .remedy("start sendshot-sender, or name its paths with --socket and --state-dir"),
            Error::Cancelled => message(Kind::Cancelled)
                .remedy("what was fetched is kept; the same command continues"),
        }
    }
}

impl From<record::Error> for Problem {
    fn from(error: record::Error) -> Self {
        match error {
            record::Error::Resolve(error) => error.into(),
            other => Problem::from_error(Kind::Failed, &other).remedy(io_remedy(&other)),
        }
    }
}

fn copy_remedy(error: &copy::Error) -> &'static str {
    match error {
        copy::Error::None => "`sendshotctl restore --list HOST` shows the volumes with copies",
        copy::Error::NoSuch { .. } | copy::Error::TooEarly { .. } => {
            "`sendshotctl restore --list HOST:VOL` shows the copies"
        }
        copy::Error::Ambiguous { .. } => "use the name of the copy",
        copy::Error::Writable { .. } => {
            "make it read-only on the receiver, `btrfs property set PATH ro true`, or choose another copy"
        }
    }
}

fn place_remedy(error: &PlaceError) -> &'static str {
    const BESIDE: &str =
        "restore it beside, `sendshotctl restore HOST:VOL TARGET`, and exchange them yourself";
    match error {
        PlaceError::NotConfigured(_) => {
            "add it to sender.toml, or restore it beside: `sendshotctl restore HOST:VOL TARGET`"
        }
        PlaceError::Unknown { .. } => "mount its file system, or name the device: --device PATH",
        PlaceError::Absent { .. } => {
            "plug the disk in, or name its device: --device PATH; if the volume has a new disk, which is mounted at its \
             path: --new-disk"
        }
        PlaceError::NoDisk { .. } => "make btrfs on the new disk, and mount it there",
        PlaceError::PutAside { .. } => "mount the restored volume there",
        PlaceError::Changed(_) => {
            "look at what is there now; the same command continues, and puts that aside"
        }
        PlaceError::NotSubvolume(_) => {
            "is the disk mounted? Otherwise move the directory away, and restore again"
        }
        PlaceError::TopLevel(_)
        | PlaceError::Default(_)
        | PlaceError::Root
        | PlaceError::Nested { .. } => BESIDE,
    }
}

fn target_remedy(error: &TargetError) -> String {
    match error {
        TargetError::Relative(_) | TargetError::NoName(_) => {
            "name the subvolume to be made, like /srv/photos.restored".to_owned()
        }
        TargetError::Open { .. } => "the directory of the target must exist".to_owned(),
        TargetError::NotBtrfs(_) => {
            "a whole volume needs a target on btrfs; --path brings single files to any file system"
                .to_owned()
        }
        TargetError::ReadOnly { obstacle, .. } => obstacle.remedy().to_owned(),
        TargetError::Taken(_) => {
            "choose a path where nothing exists, or an empty directory: a restore overwrites nothing"
                .to_owned()
        }
        TargetError::SameName(_) => "restore them one after the other, to different targets".to_owned(),
        TargetError::Within { .. } => "leave the inner path out".to_owned(),
        TargetError::Exists(_) => {
            "move it away, or choose another target: a restore overwrites nothing".to_owned()
        }
        TargetError::MountPoint(path) => {
            format!("choose a path below it, like {}/restored", path.display())
        }
        TargetError::Running(_) => "wait for it, or choose another target".to_owned(),
    }
}
