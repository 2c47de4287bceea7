//! What was asked for, and what is read for it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use sendshot_model::{PeerName, VolumeRef};
use sendshot_sys::subvolume::Info;

use crate::decide::parent::Wish;
use crate::push::stages::still::Still;
use crate::state::journal::Record;
use sendshot_model::Engine;

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where to.
    pub receiver: PeerName,
    /// What.
    pub volume: VolumeRef,
    /// The parent that the user wants.
    pub wish: Wish,
    /// What is to make the stream; `None` for what is usual for the volume.
    pub engine: Option<Engine>,
    /// For how long to try again; `None` for what the configuration says.
    pub retry_for: Option<Duration>,
}

/// What is read by this push: a snapshot taken for it or for one that broke off, or the user's own.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) fd: OwnedFd,
    pub(crate) info: Info,
    pub(crate) taken_at: i64,
    /// `None` for the user's own snapshot: nothing of it is ours to record or delete.
    pub(crate) record: Option<Record>,
    /// What must not have moved when all was read, if it is no snapshot.
    pub(crate) still: Option<Still>,
}
