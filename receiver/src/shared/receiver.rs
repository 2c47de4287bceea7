//! The receiving daemon's state: what all its calls share.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use sendshot_apply::staging::Area;
use sendshot_config::ReceiverConfig;
use sendshot_identity::{Authority, Connections, Senders};
use sendshot_model::{PeerName, ReceiverId};
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::receive::table::{Transfers, WAITS_FOR};
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

    /// Drops what has waited too long for its sender, and partials that are older than the
    /// configuration allows; renews its own certificate when it is time. Blocks.
    pub fn look_after(&self) {
        for intake in self.transfers.take_waiting(WAITS_FOR) {
            let (transfer, offset) = (intake.transfer(), intake.offset());
            tracing::info!(%transfer, offset, "its sender did not come back; a checkpoint stays, if there is one");
            drop(intake);
        }
        match self.authority.renew_server(Timestamp::now()) {
            Ok(true) => tracing::info!("this receiver's own certificate was renewed"),
            Ok(false) => {}
            Err(e) => tracing::warn!("renew this receiver's own certificate: {e}"),
        }
        if let Err(e) = self.expire_partials() {
            tracing::warn!("look for old partials: {e:#}");
        }
    }

    fn expire_partials(&self) -> anyhow::Result<()> {
        let in_use: Vec<_> = self.transfers.glances();
        let area = Area::new(self.root.open()?)?;
        if !area.exists() {
            return Ok(());
        }
        let (dir, now) = (area.dir()?, Timestamp::now());
        partials::forget_those(&dir, |partial| {
            let record = &partial.record;
            let free = in_use
                .iter()
                .all(|glance| glance.transfer != record.transfer);
            let over = free && partial.is_over(now, self.config.partial_keep);
            if over {
                tracing::info!(transfer = %record.transfer, sender = %record.sender_name,
                    volume = %record.volume_name,
                    "an interrupted push was not resumed in time; its partial is dropped");
            }
            over
        })?;
        Ok(())
    }

    /// Drops what a sender's pushes have left that broke off. Those that run end by themselves. Blocks.
    pub fn drop_interrupted(&self, sender: &PeerName) {
        for intake in self.transfers.take_waiting_of(sender) {
            intake.forget();
        }
        // A root that is away keeps it until it is too old.
        let Ok(root) = self.root.open() else { return };
        let running: Vec<_> = self
            .transfers
            .glances()
            .into_iter()
            .map(|g| g.transfer)
            .collect();
        let forget = || -> anyhow::Result<usize> {
            let area = Area::new(&root)?;
            if !area.exists() {
                return Ok(0);
            }
            Ok(partials::forget_those(area.dir()?, |partial| {
                let record = &partial.record;
                record.sender_name == *sender && !running.contains(&record.transfer)
            })?)
        };
        if let Err(e) = forget() {
            tracing::warn!(%sender, "drop what its pushes have left: {e:#}");
        }
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
