//! The receiving daemon's state: what all its calls share.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use sendshot_apply::staging::Area;
use sendshot_config::ReceiverConfig;
use sendshot_identity::{Authority, Senders};
use sendshot_model::ReceiverId;
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::apply::STAGING_PREFIX;
use crate::busy::Busy;
use crate::root::Root;

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
    busy: Busy,
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
        let root = Root::new(config.root.clone(), id);
        if let Err(error) = root.set_up(state_dir) {
            anyhow::bail!("{error}; {}", error.remedy());
        }
        sweep(&root)?;
        let authority = Arc::new(Authority::load_or_create(state_dir, id, Timestamp::now())?);
        let senders = Senders::open(state_dir, Arc::clone(&authority))?;
        Ok(Self {
            id,
            config,
            authority,
            senders,
            root,
            busy: Busy::default(),
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

    /// Which volumes are being pushed.
    pub fn busy(&self) -> &Busy {
        &self.busy
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

fn sweep(root: &Root) -> anyhow::Result<()> {
    let opened = root.open()?;
    let area = Area::new(&opened)?;
    let swept = area.sweep(STAGING_PREFIX)?;
    area.remove_if_empty()?;
    if swept > 0 {
        tracing::info!(swept, "partials of an earlier run were dropped");
    }
    Ok(())
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
