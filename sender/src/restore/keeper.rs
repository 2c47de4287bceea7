//! The one writer of the journal: the sending daemon if it runs, else this process with the daemon's lock.

use std::sync::Arc;

use sendshot_model::VolumeName;
use sendshot_proto::malformed::root_bytes;
use sendshot_proto::problem::Problem;
use sendshot_service::InstanceLock;

use crate::connection::own_daemon::{Hold, OwnDaemon, RestoredMessage};
use crate::restore::access::Access;
use crate::restore::error::Error;
use crate::restore::record::{self, Restored};
use crate::shared::blocking::blocking;
use crate::shared::sender::Sender;

/// Who keeps the journal.
#[derive(Debug)]
pub(super) enum Keeper {
    Daemon(OwnDaemon),
    /// No daemon can start meanwhile.
    Alone {
        sender: Arc<Sender>,
        _lock: InstanceLock,
    },
}

impl Keeper {
    /// Connects to the daemon, or takes its lock.
    ///
    /// # Errors
    /// See [`Error`].
    pub(super) async fn open(access: &Access) -> Result<Self, Error> {
        let daemon = OwnDaemon::connect(&access.socket).await;
        if let Some(daemon) = daemon.map_err(Error::io("connect to sendshot-sender"))? {
            return Ok(Self::Daemon(daemon));
        }
        let lock =
            InstanceLock::take(&access.state_dir).map_err(|e| Error::Alone(e.to_string()))?;
        let paths = access.paths.clone();
        let loaded = blocking("load", move || Sender::load(paths)).await;
        let sender = loaded
            .map_err(|e| Error::Alone(e.to_string()))?
            .map_err(|e| Error::Alone(format!("{e:#}")))?;
        Ok(Self::Alone {
            sender: Arc::new(sender),
            _lock: lock,
        })
    }

    /// Holds back the pushes of a volume, as long as the result lives. Without a daemon there are none.
    ///
    /// # Errors
    /// See [`Error`].
    pub(super) async fn hold(&self, volume: &VolumeName) -> Result<Option<Hold>, Error> {
        match self {
            Self::Daemon(daemon) => Ok(Some(daemon.hold(volume).await.map_err(refused)?)),
            Self::Alone { .. } => Ok(None),
        }
    }

    /// Records a restored volume.
    ///
    /// # Errors
    /// See [`Error`].
    pub(super) async fn record(&self, restored: Restored) -> Result<(), Error> {
        match self {
            Self::Daemon(daemon) => {
                let message = RestoredMessage {
                    volume: &restored.volume,
                    receiver: restored.receiver.as_str(),
                    uuid: restored.uuid,
                    ctransid: restored.ctransid,
                    copy: &restored.copy,
                    root_id: root_bytes(restored.root),
                    fsid: restored.fsid,
                    device: restored.device.as_deref(),
                    staging: &restored.staging,
                    snapshot: &restored.snapshot,
                };
                daemon.record(message).await.map_err(refused)
            }
            Self::Alone { sender, .. } => {
                let sender = Arc::clone(sender);
                let done = blocking("record", move || record::record(&sender, &restored)).await;
                done.map_err(|e| Error::Alone(e.to_string()))?
                    .map_err(Error::Record)
            }
        }
    }
}

fn refused(problem: Problem) -> Error {
    Error::Daemon {
        kind: problem.kind,
        message: problem.message,
        remedy: problem.remedy,
    }
}
