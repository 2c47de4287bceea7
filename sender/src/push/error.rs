//! Why a push, or a plan of one, did not come to its end.

use std::io;
use std::path::PathBuf;

use sendshot_engine::format;
use sendshot_model::{PeerName, RootId, VolumeName, human};
use sendshot_proto::problem::{Kind, with_causes};
use sendshot_sys::top_level;

use crate::connection;
use crate::decide::parent;
use crate::push::generate;
use crate::push::stages::{capture, snapshot, transfer};
use crate::shared::blocking::Died;
use crate::shared::sender;
use crate::state::store;
use crate::volume::{engine, resolve};

/// Why a push, or a plan of one, did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The volume's disk failed.
    #[error("{what}: {source}")]
    Volume {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The disk of this sender's state directory failed; the error names the file.
    #[error("{what}: {source}")]
    StateDir {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The disk's own list of volumes cannot be read or written.
    #[error("write down which volumes are on the disk, in .sendshot/register.json: {0}")]
    Register(io::Error),
    /// A thread gave no result.
    #[error(transparent)]
    Thread(#[from] Died),
    /// The receiver is not one that is paired.
    #[error(transparent)]
    Receiver(#[from] sender::Error),
    /// The volume was not found, or cannot be pushed.
    #[error("{}", with_causes(.0))]
    Resolve(#[from] resolve::Error),
    /// The engine that was asked for cannot be had.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// The top level of the file system cannot be reached.
    #[error("{}", with_causes(.0))]
    TopLevel(#[from] top_level::Error),
    /// The state subvolume cannot be used.
    #[error("{}", with_causes(.0))]
    Store(#[from] store::Error),
    /// There is no snapshot.
    #[error("{}", with_causes(.0))]
    Snapshot(#[from] snapshot::Error),
    /// The snapshot cannot be captured.
    #[error("{}", with_causes(.0))]
    Capture(#[from] capture::Error),
    /// A sendshot cannot be read.
    #[error("{}", with_causes(.0))]
    Sendshot(#[from] format::error::Error),
    /// The parent that was asked for cannot be had.
    #[error(transparent)]
    Parent(#[from] parent::Error),
    /// The stream cannot be made, or measured.
    #[error("{}", with_causes(.0))]
    Generate(#[from] generate::Error),
    /// The receiver was not reached, or a call to it failed.
    #[error(transparent)]
    Connection(#[from] connection::error::Error),
    /// There is no copy, or no word of one.
    #[error("{}", with_causes(.0))]
    Transfer(#[from] transfer::Error),
    /// A push of this volume to this receiver is running already.
    #[error("a push of `{volume}` to `{receiver}` is running since {}", human::duration(*.since))]
    Running {
        /// Of which volume.
        volume: VolumeName,
        /// To which receiver.
        receiver: PeerName,
        /// For how long.
        since: std::time::Duration,
    },
    /// The receiver is about to commit something.
    #[error("{0} is still at work on it")]
    AtWork(PeerName),
    /// The name stands for another receiver than when the push began.
    #[error("`{0}` was paired with another receiver while the push was under way")]
    OtherReceiver(PeerName),
    /// A receiver has had as many disks as are remembered.
    #[error(
        "{receiver} has had {known} disks that this host has something in common with, and {root} is one more"
    )]
    TooManyRoots {
        /// The receiver.
        receiver: PeerName,
        /// The volume.
        volume: VolumeName,
        /// How many it has had.
        known: usize,
        /// The one that is there.
        root: RootId,
    },
    /// The disk that may have committed is gone, so that it cannot be asked.
    #[error("the receiver's disk that it was sent to is not there any more; another one is")]
    SentToOtherDisk,
    /// In the middle of a series the receiver's disks were exchanged.
    #[error("another of the receiver's disks is there than when the push began")]
    DiskExchanged,
    /// Its record is gone.
    #[error("the record of the push was deleted by somebody else")]
    RecordGone,
    /// A sendshot that was chosen is gone.
    #[error("the parent's sendshot is not among those that were read")]
    ParentGone,
    /// A snapshot of a series is another than when it was found.
    #[error("{} was replaced just now", .0.display())]
    Replaced(PathBuf),
    /// What broke off cannot be gone on with, nor sent anew.
    #[error("the push came to nothing")]
    CameToNothing,
    /// A plan has nothing to measure.
    #[error("nothing was captured")]
    NothingCaptured,
    /// The daemon stopped before a plan was made.
    #[error("the daemon stopped in the middle of the plan")]
    Stopped,
    /// One of a series failed.
    #[error("{}", in_series(&.source.to_string(), *.pushed, *.of))]
    InSeries {
        /// How many were pushed before.
        pushed: usize,
        /// Of how many.
        of: usize,
        /// Why.
        source: Box<Error>,
    },
    /// It failed, and the next push goes on from what is kept.
    #[error("{0}")]
    Kept(Box<Error>),
    /// The receiver could not apply a stream that was built on the parent that was asked for.
    #[error("{0}")]
    ParentRefused(Box<Error>),
}

/// The message of one of a series that failed.
pub(crate) fn in_series(message: &str, pushed: usize, of: usize) -> String {
    format!("{message} ({pushed} of {of} snapshots were pushed before)")
}

/// What an error means for what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It can pass by itself.
    Passing,
    /// The user cancelled it.
    Cancelled,
    /// Something failed.
    Failed,
    /// It may not be, or was asked for wrongly.
    Refused,
}

impl Error {
    /// The volume's disk failed while `what` was done.
    pub(crate) fn volume(what: &'static str) -> impl Fn(io::Error) -> Self + Copy {
        move |source| Self::Volume { what, source }
    }

    /// The disk of the state directory failed while `what` was done.
    pub(crate) fn state_dir(what: &'static str) -> impl Fn(io::Error) -> Self + Copy {
        move |source| Self::StateDir { what, source }
    }

    /// The user cancelled it.
    pub(crate) fn cancelled() -> Self {
        Self::Transfer(transfer::Error::Cancelled)
    }

    /// What it means for what was sent.
    pub fn class(&self) -> Class {
        match self {
            Self::Connection(error) | Self::Transfer(transfer::Error::Connection(error)) => {
                error.kind().into()
            }
            Self::Transfer(transfer::Error::Refused(failure)) => failure.code.kind().into(),
            Self::Transfer(transfer::Error::Stalled { .. }) | Self::AtWork(_) => Class::Passing,
            Self::Transfer(transfer::Error::Cancelled) => Class::Cancelled,
            Self::Receiver(sender::Error::Config(_) | sender::Error::NotPaired(_))
            | Self::Engine(_)
            | Self::Parent(_)
            | Self::Snapshot(snapshot::Error::SwapFile { .. })
            | Self::Running { .. }
            | Self::TooManyRoots { .. } => Class::Refused,
            Self::InSeries { source, .. } | Self::Kept(source) | Self::ParentRefused(source) => {
                source.class()
            }
            Self::Transfer(
                transfer::Error::Generate(_)
                | transfer::Error::Nonsense(_)
                | transfer::Error::Moved(_)
                | transfer::Error::Record(_),
            )
            | Self::Volume { .. }
            | Self::StateDir { .. }
            | Self::Register(_)
            | Self::Thread(_)
            | Self::Receiver(sender::Error::Thread(_))
            // Of many kinds, and before anything was sent.
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
            | Self::CameToNothing
            | Self::NothingCaptured
            | Self::Stopped => Class::Failed,
        }
    }
}

impl From<Kind> for Class {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Unreachable => Self::Passing,
            Kind::Cancelled => Self::Cancelled,
            Kind::Failed => Self::Failed,
            Kind::Usage | Kind::Refused => Self::Refused,
        }
    }
}
