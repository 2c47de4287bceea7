//! Why a restore failed.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use sendshot_apply::WriteObstacle;
use sendshot_apply::private_dir::PublishError;
use sendshot_apply::staging::StagingError;
use sendshot_config::{AddressError, ConfigError};
use sendshot_identity::KeyFileError;
use sendshot_model::{PeerName, PeerNameError, VolumeName, VolumeNameError, human};
use sendshot_proto::problem::Kind;
use sendshot_transfer::position;
use uuid::Uuid;

use crate::connection;
use crate::connection::pair;
use crate::decide::copy;
use crate::restore::apply::ApplyFailure;
use crate::restore::check;
use crate::restore::record;
use crate::state::store;

/// Why a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Name(PeerNameError),
    #[error(transparent)]
    Volume(VolumeNameError),
    #[error(transparent)]
    Address(AddressError),
    /// The address is no name for a receiver.
    #[error("`{address}` is not a name for a receiver")]
    Unnamed { address: String },
    /// The receiver knows no temporary keys.
    #[error("receiver `{name}` is older than temporary keys: it cannot send copies back")]
    NoTemporaryKeys { name: PeerName },
    #[error(transparent)]
    Pair(#[from] pair::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("receiver `{name}` is not paired with this host")]
    NotPaired { name: PeerName },
    /// This host's key cannot be read.
    #[error(transparent)]
    Key(KeyFileError),
    /// The receiver was not reached, or refused.
    #[error(transparent)]
    Connection(#[from] connection::error::Error),
    /// The receiver has no such volume of this host.
    #[error("{receiver} has no volume `{volume}` of this host{}", other_volumes(.others))]
    NoVolume {
        receiver: PeerName,
        volume: String,
        /// The volumes that it has.
        others: Vec<String>,
    },
    /// No copy was chosen.
    #[error(transparent)]
    Copy(#[from] copy::Error),
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The target's file system has too little room.
    #[error(
        "the copy needs {}, and only {} are free at {}",
        human::bytes_human(*.needed), human::bytes_human(*.free), .at.display()
    )]
    NoRoom { needed: u64, free: u64, at: PathBuf },
    /// The receiver breaks the contract.
    #[error("the receiver's response is invalid: {0}")]
    Invalid(String),
    /// Data arrived damaged, again and again.
    #[error(transparent)]
    Damaged(position::Error),
    /// No progress within the stall time-out.
    #[error("the receiver is connected, but the restore made no progress for {}", human::duration(*.after))]
    Stalled { after: Duration },
    /// The stream could not be applied here.
    #[error(transparent)]
    Apply(#[from] ApplyFailure),
    #[error(transparent)]
    Check(#[from] check::Error),
    /// The restored tree differs from this host's own sendshot.
    #[error(
        "the restored tree differs from this host's own sendshot of that state: {}",
        human::few(.differences)
    )]
    Differs {
        /// At most twenty differences.
        differences: Vec<String>,
    },
    #[error("cannot {what}")]
    Io {
        /// The operation that failed.
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// A restored path could not be moved to its name.
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// An interrupted restore in place is complete now, and it was of another copy.
    #[error("{} has the content of copy {copy} now, which an interrupted restore had brought", .volume.display())]
    OtherCopy { copy: String, volume: PathBuf },
    /// The old volume is mounted or open.
    #[error("{} is in use: {users}", .path.display())]
    InUse { path: PathBuf, users: String },
    /// The state subvolume cannot be used.
    #[error(transparent)]
    State(store::Error),
    /// The restored volume could not be recorded.
    #[error(transparent)]
    Record(record::Error),
    /// The daemon of this host refused.
    #[error("{message}")]
    Daemon {
        /// Determines the exit code.
        kind: Kind,
        message: String,
        remedy: String,
    },
    /// No daemon runs, and its state directory cannot be used.
    #[error("{0}")]
    Alone(String),
    #[error("the restore was cancelled")]
    Cancelled,
}

/// Why a volume cannot be restored in its place.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("`{0}` is not a volume of sender.toml, so its place is not known")]
    NotConfigured(VolumeName),
    /// Neither its path nor the records tell where it is.
    #[error("the place of `{volume}` is not known: nothing is mounted for {}, and no record tells where it was", .path.display())]
    Unknown { volume: VolumeName, path: PathBuf },
    /// Its file system is not there.
    #[error(
        "file system {fsid}, which `{volume}` was pushed from last, is not mounted, and no device of it was found"
    )]
    Absent {
        volume: VolumeName,
        path: PathBuf,
        fsid: Uuid,
    },
    /// The user says that the disk is new, and none is mounted.
    #[error("neither {} nor the directory that contains it is on btrfs, so `{volume}` has no new disk", .path.display())]
    NoDisk { volume: VolumeName, path: PathBuf },
    /// The path still opens the volume that an earlier restore has put aside.
    #[error(
        "{} still opens the volume that was replaced by a restore and is now called {}",
        .path.display(), .now.display()
    )]
    PutAside {
        path: PathBuf,
        /// Its path from the top level.
        now: PathBuf,
    },
    /// It was replaced, deleted or made meanwhile.
    #[error("{} is not the same subvolume any more as when the restore began", .0.display())]
    Changed(PathBuf),
    #[error("{} is a directory, not a subvolume", .0.display())]
    NotSubvolume(PathBuf),
    #[error("{} is the top level of its file system", .0.display())]
    TopLevel(PathBuf),
    #[error("{} is the default subvolume of its file system", .0.display())]
    Default(PathBuf),
    #[error("the system runs from this volume")]
    Root,
    #[error("{} holds nested subvolumes, which would be put aside with it: {}", .path.display(), paths(.nested))]
    Nested { path: PathBuf, nested: Vec<PathBuf> },
}

fn paths(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    human::few(&paths)
}

/// Why a target cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("the target must be an absolute path: {}", .0.display())]
    Relative(PathBuf),
    #[error("the target {} has no name of its own", .0.display())]
    NoName(PathBuf),
    /// The directory that contains it cannot be opened.
    #[error("cannot open {}, the directory of the target", .dir.display())]
    Open {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not on btrfs", .0.display())]
    NotBtrfs(PathBuf),
    #[error("nothing can be written to {}: {obstacle}", .dir.display())]
    ReadOnly {
        dir: PathBuf,
        obstacle: WriteObstacle,
    },
    /// Something is at the target's path.
    #[error("{} exists and is not an empty directory", .0.display())]
    Taken(PathBuf),
    /// A file system is mounted at the target's path.
    #[error("a file system is mounted at {}", .0.display())]
    MountPoint(PathBuf),
    /// Two paths have the same last name.
    #[error("two of the paths are called {}", .0.display())]
    SameName(OsString),
    /// A path lies in another one, with which it comes anyway.
    #[error("{} lies in {}, which is restored with all that is in it", .inner.display(), .outer.display())]
    Within { inner: PathBuf, outer: PathBuf },
    #[error("{} exists", .0.display())]
    Exists(PathBuf),
    /// Another process restores to it.
    #[error("another restore to {} is running", .0.display())]
    Running(PathBuf),
}

fn other_volumes(others: &[String]) -> String {
    match others {
        [] => "; it has no copies of this host at all".to_owned(),
        others => format!("; it has {}", human::few(others)),
    }
}

impl Error {
    /// Makes the error for a failed operation.
    pub(crate) fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    /// Whether a new connection can continue the restore.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Connection(connection::error::Error::Failure(failure)) => {
                failure.code == sendshot_proto::failure::Code::ShuttingDown
            }
            Self::Connection(error) => error.is_transient(),
            Self::Damaged(_) | Self::Stalled { .. } => true,
            Self::Name(_)
            | Self::Volume(_)
            | Self::Address(_)
            | Self::Unnamed { .. }
            | Self::NoTemporaryKeys { .. }
            | Self::Pair(_)
            | Self::Config(_)
            | Self::NotPaired { .. }
            | Self::Key(_)
            | Self::NoVolume { .. }
            | Self::Copy(_)
            | Self::Target(_)
            | Self::NoRoom { .. }
            | Self::Invalid(_)
            | Self::Apply(_)
            | Self::Check(_)
            | Self::Differs { .. }
            | Self::Io { .. }
            | Self::Staging(_)
            | Self::Publish(_)
            | Self::Place(_)
            | Self::InUse { .. }
            | Self::OtherCopy { .. }
            | Self::State(_)
            | Self::Record(_)
            | Self::Daemon { .. }
            | Self::Alone(_)
            | Self::Cancelled => false,
        }
    }
}
