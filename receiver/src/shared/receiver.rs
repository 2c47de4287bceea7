//! The receiving daemon's state: what all its calls share.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use sendshot_config::ReceiverConfig;
use sendshot_identity::{Authority, Connections, Senders};
use sendshot_model::ReceiverId;
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::receive::table::Transfers;
use crate::shared::calls::Calls;
use crate::store::partials;
use crate::store::root::{OpenRoot, Root};

/// File in the state directory that holds the receiver's id.
const INSTANCE: &str = "instance.json";

#[derive(Debug, Serialize, Deserialize)]
struct Instance {
    receiver_id: ReceiverId,
}

/// The daemon.
#[derive(Debug)]
pub struct Receiver {
    id: ReceiverId,
    config: ReceiverConfig,
    authority: Arc<Authority>,
    senders: Senders,
    root: Root,
    transfers: Transfers,
    connections: Connections,
    calls: Calls,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Receiver {
    /// Reads configuration and state, made at the first start; sets up the root and deletes
    /// what pushes of a dead daemon left in staging.
    ///
    /// # Errors
    /// Whatever of it cannot be read or made, by name.
    pub fn load(config: PathBuf, state_dir: &Path) -> anyhow::Result<Self> {
        let config = ReceiverConfig::load(&config)?;
        let id = instance(state_dir)?;
        let root = Root::new(config.root.clone(), id, state_dir, settle)
            .map_err(|error| anyhow::anyhow!("{error}; {}", error.remedy()))?;
        match root.set_up() {
            Ok(()) => {}
            // The disk can be mounted, added or taken over while the daemon runs; until then every push is
            // told so.
            Err(error) if root.may_come(&error) => {
                tracing::warn!("{error}; {}", error.remedy());
            }
            Err(error) => anyhow::bail!("{error}; {}", error.remedy()),
        }
        let authority = Arc::new(Authority::load_or_create(state_dir, id, Timestamp::now())?);
        let senders = Senders::open(state_dir, Arc::clone(&authority))?;
        Ok(Self {
            id,
            config,
            authority,
            senders,
            root,
            transfers: Transfers::default(),
            connections: Connections::default(),
            calls: Calls::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// This instance.
    pub fn id(&self) -> ReceiverId {
        self.id
    }

    /// The configuration.
    pub fn config(&self) -> &ReceiverConfig {
        &self.config
    }

    /// Its certificate authority.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// The senders it knows.
    pub fn senders(&self) -> &Senders {
        &self.senders
    }

    /// Where copies are.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The connections that are open.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// The calls that have work done on threads.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Which volumes are being pushed.
    pub fn transfers(&self) -> &Transfers {
        &self.transfers
    }

    /// Cancelled when the daemon stops.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Its tasks, waited for at the end.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Ends all pushes.
    pub fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
    }
}

/// What cannot be settled harms nobody else, and is tried again at the next start.
fn settle(root: &OpenRoot) {
    if let Err(e) = partials::settle(root) {
        tracing::warn!("settle what earlier pushes left: {e:#}");
    }
}

fn instance(state_dir: &Path) -> io::Result<ReceiverId> {
    let path = state_dir.join(INSTANCE);
    if let Some(instance) = durable::read_json::<Instance>(&path)? {
        return Ok(instance.receiver_id);
    }
    let receiver_id = ReceiverId::generate();
    durable::write_json(&path, &Instance { receiver_id })?;
    Ok(receiver_id)
}
