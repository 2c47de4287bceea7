//! What was asked for.

use std::time::Duration;

use sendshot_model::{Engine, PeerName, VolumeRef};

use crate::decide::parent::Wish;

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
