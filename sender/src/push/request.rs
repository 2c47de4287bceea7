//! The request for a push.

use std::time::Duration;

use sendshot_model::{Engine, PeerName, VolumeRef};

use crate::decide::parent::ParentChoice;

#[derive(Debug, Clone)]
pub struct Request {
    pub receiver: PeerName,
    pub volume: VolumeRef,
    pub parent_choice: ParentChoice,
    /// `None` for the volume's usual engine.
    pub engine: Option<Engine>,
    /// For how long to retry; `None` for the configured time.
    pub retry_for: Option<Duration>,
}
