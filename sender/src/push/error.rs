//! Why a push or a dry run failed.

use std::io;
use std::path::PathBuf;

use sendshot_engine::format;
use sendshot_model::{PeerName, RootId, VolumeName, human};
use sendshot_proto::problem::{Kind, with_causes};
use sendshot_sys::top_level;

use crate::connection;
use crate::decide::parent;
use crate::push::generate;
use crate::push::stages::prepare::capture;
use crate::push::stages::{snapshot, transfer};
use crate::shared::blocking::Died;
use crate::shared::sender;
use crate::state::store;
use crate::volume::{engine, resolve};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// I/O error on the volume's file system.
    #[error("cannot {what}: {source}")]
    Volume {
        /// The operation that failed.
        what: &'static str,
        source: io::Error,
    },
    /// I/O error on this sender's state directory; the error names the file.
    #[error("cannot {what}: {source}")]
    StateDir {
        /// The operation that failed.
        what: &'static str,
        source: io::Error,
    },
    /// The list of volumes on the disk cannot be read or written.
    #[error("cannot read or write the list of the disk's volumes, .sendshot/register.json: {0}")]
    Register(io::Error),
    /// A worker thread ended without a result.
    #[error(transparent)]
    Thread(#[from] Died),
    /// No receiver of that name is paired, or its configuration cannot be read.
    #[error(transparent)]
    Receiver(#[from] sender::Error),
    /// The volume was not found, or cannot be pushed.
    #[error("{}", with_causes(.0))]
    Resolve(#[from] resolve::Error),
    /// The requested engine cannot send this volume.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error("{}", with_causes(.0))]
    TopLevel(#[from] top_level::Error),
    #[error("{}", with_causes(.0))]
    Store(#[from] store::Error),
    /// The snapshot could not be taken.
    #[error("{}", with_causes(.0))]
    Snapshot(#[from] snapshot::Error),
    #[error("{}", with_causes(.0))]
    Capture(#[from] capture::Error),
    #[error("{}", with_causes(.0))]
    Sendshot(#[from] format::error::Error),
    /// The requested parent cannot be used.
    #[error(transparent)]
    Parent(#[from] parent::Error),
    /// The stream cannot be generated or measured.
    #[error("{}", with_causes(.0))]
    Generate(#[from] generate::Error),
    /// The volume is being restored in place.
    #[error("`{volume}` is being restored in its place")]
    Held { volume: VolumeName },
    /// The path of the volume does not answer: a disk that fails, or one that is mounted on access.
    #[error("{} does not answer", .0.display())]
    NoAnswer(PathBuf),
    /// The receiver was not reached, or a call to it failed.
    #[error(transparent)]
    Connection(#[from] connection::error::Error),
    /// The transfer failed, or its acknowledgement is missing.
    #[error("{}", with_causes(.0))]
    Transfer(#[from] transfer::Error),
    #[error("a push of `{volume}` to `{receiver}` is running since {}", human::duration(*.since))]
    Running {
        volume: VolumeName,
        receiver: PeerName,
        /// How long it has been running.
        since: std::time::Duration,
    },
    /// The receiver has a commit pending.
    #[error("{0} has not finished the commit of this volume yet")]
    CommitPending(PeerName),
    /// The receiver's name was paired with another receiver since the push began.
    #[error("`{0}` was paired with another receiver while the push was under way")]
    OtherReceiver(PeerName),
    /// The receiver has more disks than this host remembers.
    #[error(
        "this host retains states for {known} disks of {receiver} already, and {root} is one more"
    )]
    TooManyRoots {
        receiver: PeerName,
        volume: VolumeName,
        /// Number of its disks that this host remembers.
        known: usize,
        /// The disk that is there now.
        root: RootId,
    },
    /// The disk that may have committed is absent, so its state is unknown.
    #[error("the receiver has another disk mounted than the one to which the push was sent")]
    SentToOtherDisk,
    /// The receiver's disk was exchanged in the middle of a series.
    #[error("the receiver's disk was exchanged for another one after the push began")]
    DiskExchanged,
    /// The record of the push was deleted during the push.
    #[error("the record of the push was deleted by another program")]
    RecordGone,
    /// The sendshot of the chosen parent was not read.
    #[error("the parent's sendshot is not among those that were read")]
    ParentGone,
    /// A snapshot of a series was replaced after it was found.
    #[error("{} was replaced just now", .0.display())]
    Replaced(PathBuf),
    /// An interrupted push can be neither resumed nor sent again.
    #[error("the push did not complete")]
    CameToNothing,
    /// A dry run has no sendshots to measure.
    #[error("nothing was captured")]
    NothingCaptured,
    /// The daemon stopped before the plan was made.
    #[error("the daemon stopped in the middle of the plan")]
    Stopped,
    /// A snapshot of a series failed.
    #[error("{}", in_series(&.source.to_string(), *.pushed, *.of))]
    InSeries {
        /// Number of snapshots pushed before it.
        pushed: usize,
        /// Number of snapshots due.
        of: usize,
        source: Box<Error>,
    },
    /// The push failed, and the next one resumes from what is kept.
    #[error("{0}")]
    Kept(Box<Error>),
    /// The receiver could not apply a stream that was built on the requested parent.
    #[error("{0}")]
    ParentRefused(Box<Error>),
}

/// The message for a failed snapshot of a series.
pub(crate) fn in_series(message: &str, pushed: usize, of: usize) -> String {
    format!("{message} ({pushed} of {of} snapshots were pushed before)")
}

/// What an error means for the state that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Transient: the same push may succeed later.
    Transient,
    /// Cancelled by the user.
    Cancelled,
    Failed,
    /// Not allowed, or an invalid request.
    Refused,
}

impl Error {
    /// Builds the error for an I/O error on the volume's file system during `what`.
    pub(crate) fn volume(what: &'static str) -> impl Fn(io::Error) -> Self + Copy {
        move |source| Self::Volume { what, source }
    }

    /// Builds the error for an I/O error on the state directory during `what`.
    pub(crate) fn state_dir(what: &'static str) -> impl Fn(io::Error) -> Self + Copy {
        move |source| Self::StateDir { what, source }
    }

    pub(crate) fn cancelled() -> Self {
        Self::Transfer(transfer::Error::Cancelled)
    }

    /// Classifies the error by what it means for the state that was sent.
    pub fn class(&self) -> Class {
        match self {
            Self::Connection(error) | Self::Transfer(transfer::Error::Connection(error)) => {
                error.kind().into()
            }
            Self::Transfer(transfer::Error::Refused(failure)) => failure.code.kind().into(),
            Self::Transfer(transfer::Error::Stalled { .. }) | Self::CommitPending(_) => Class::Transient,
            Self::Transfer(transfer::Error::Cancelled) => Class::Cancelled,
            Self::Receiver(sender::Error::Config(_) | sender::Error::NotPaired(_))
            | Self::Engine(_)
            | Self::Parent(_)
            | Self::Snapshot(snapshot::Error::SwapFile { .. })
            | Self::Running { .. }
            | Self::Held { .. }
            | Self::TooManyRoots { .. } => Class::Refused,
            Self::InSeries { source, .. } | Self::Kept(source) | Self::ParentRefused(source) => {
                source.class()
            }
            Self::Transfer(
                transfer::Error::Generate(_)
                | transfer::Error::ProtocolViolation(_)
                | transfer::Error::Moved(_)
                | transfer::Error::Record(_),
            )
            | Self::Volume { .. }
            | Self::StateDir { .. }
            | Self::Register(_)
            | Self::Thread(_)
            | Self::Receiver(sender::Error::Thread(_))
            // Errors of many kinds, all before anything was sent.
            | Self::Resolve(_)
            | Self::TopLevel(_)
            | Self::Store(_)
            | Self::Snapshot(snapshot::Error::Journal(_) | snapshot::Error::Io(_))
            | Self::Capture(_)
            | Self::Sendshot(_)
            | Self::Generate(_)
            | Self::OtherReceiver(_)
            | Self::SentToOtherDisk
            | Self::DiskExchanged
            | Self::RecordGone
            | Self::ParentGone
            | Self::Replaced(_)
            | Self::NoAnswer(_)
            | Self::CameToNothing
            | Self::NothingCaptured
            | Self::Stopped => Class::Failed,
        }
    }
}

impl From<Kind> for Class {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Unreachable => Self::Transient,
            Kind::Cancelled => Self::Cancelled,
            Kind::Failed => Self::Failed,
            Kind::Usage | Kind::Refused => Self::Refused,
        }
    }
}
