//! The receiving daemon's state that all its calls share.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use sendshot_config::{ConfigError, ReceiverConfig};
use sendshot_identity::{Authority, Connections, Senders};
use sendshot_model::PeerName;
use sendshot_model::ReceiverId;
use sendshot_model::history::ReceiverEvent;
use sendshot_service::History;
use sendshot_service::metrics::{Counts, Trouble};
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::receive::ledger_writer::LedgerWriter;
use crate::receive::table::Transfers;
use crate::receive::turns::Turns;
use crate::restore::fetches::Fetches;
use crate::shared::calls::Calls;
use crate::shared::pending::{DueVolumes, LoggedReasons};
use crate::store::captures::Captures;
use crate::store::clock::{Clock, NotAccepted, Reading};
use crate::store::confirmed::Confirmations;
use crate::store::generations::Generations;
use crate::store::locks::VolumeLocks;
use crate::store::partials;
use crate::store::root::{OpenRoot, Root};

/// File in the state directory that holds the receiver's id.
const INSTANCE: &str = "instance.json";

#[derive(Debug, Serialize, Deserialize)]
struct Instance {
    receiver_id: ReceiverId,
}

#[derive(Debug)]
pub struct Receiver {
    id: ReceiverId,
    config: RwLock<Arc<ReceiverConfig>>,
    config_file: PathBuf,
    history: History<ReceiverEvent>,
    metrics_trouble: Trouble,
    counts: Counts<PeerName>,
    authority: Arc<Authority>,
    senders: Senders,
    root: Root,
    transfers: Transfers,
    turns: Turns,
    fetches: Fetches,
    captures: Captures,
    clock: Arc<Clock>,
    logged_reasons: LoggedReasons,
    due: DueVolumes,
    confirmations: Confirmations,
    deleted: Notify,
    locks: VolumeLocks,
    generations: Arc<Generations>,
    connections: Connections,
    calls: Calls,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Receiver {
    /// Reads configuration and state, which it makes at the first start; sets up the root and deletes what
    /// pushes of a dead daemon left in staging.
    ///
    /// # Errors
    /// The file that cannot be read or made.
    pub fn load(config_file: PathBuf, state_dir: &Path) -> anyhow::Result<Self> {
        let config = ReceiverConfig::load(&config_file)?;
        let id = instance(state_dir)?;
        let root = Root::new(config.root.clone(), id, state_dir, reconcile)
            .map_err(|error| anyhow::anyhow!("{error}; {}", error.remedy()))?;
        match root.set_up() {
            Ok(()) => {}
            // The disk can be mounted, added or taken over while the daemon runs; until then every push gets this
            // error.
            Err(error) if root.may_come(&error) => {
                tracing::warn!("{error}; {}", error.remedy());
            }
            Err(error) => anyhow::bail!("{error}; {}", error.remedy()),
        }
        let authority = Arc::new(Authority::load_or_create(state_dir, id, Timestamp::now())?);
        let senders = Senders::open(state_dir, Arc::clone(&authority))?;
        Ok(Self {
            id,
            config: RwLock::new(Arc::new(config)),
            config_file,
            history: History::of(state_dir),
            metrics_trouble: Trouble::default(),
            counts: Counts::new(),
            authority,
            senders,
            root,
            transfers: Transfers::default(),
            turns: Turns::default(),
            fetches: Fetches::default(),
            captures: Captures::new(state_dir),
            clock: Arc::new(Clock::new(state_dir)),
            logged_reasons: LoggedReasons::default(),
            due: DueVolumes::default(),
            confirmations: Confirmations::load(state_dir),
            deleted: Notify::new(),
            locks: VolumeLocks::default(),
            generations: Arc::new(Generations::new(state_dir)),
            connections: Connections::default(),
            calls: Calls::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Id of this instance.
    pub fn id(&self) -> ReceiverId {
        self.id
    }

    /// The current configuration.
    pub fn config(&self) -> Arc<ReceiverConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the configuration again. Running pushes keep the one with which they began; the rule for reading copies
    /// holds at once, also for running fetches. Blocks.
    ///
    /// # Errors
    /// The error in the file; the former configuration then stays.
    pub fn reload(&self) -> Result<(), ConfigError> {
        let mut config = ReceiverConfig::load(&self.config_file)?;
        for key in config.keep_fixed(&self.config()) {
            tracing::warn!(
                "`{key}` of receiver.toml stays as it was: restart sendshot-receiver to change it"
            );
        }
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        Ok(())
    }

    /// Path of the file that it reads.
    pub fn config_file(&self) -> &Path {
        &self.config_file
    }

    /// Why the metrics are not served.
    pub fn metrics_trouble(&self) -> &Trouble {
        &self.metrics_trouble
    }

    /// Adds an event that happened now to the history, and counts it. Blocks.
    pub fn note(&self, event: ReceiverEvent) {
        match &event {
            ReceiverEvent::Received {
                sender,
                stream_bytes,
                ..
            } => self.counts.done(sender.clone(), 1, *stream_bytes),
            ReceiverEvent::Failed { sender, .. } => self.counts.failed(sender.clone()),
            _ => {}
        }
        self.history.note(event);
    }

    /// The pushes that have ended since the start, by sender: the names of volumes that fail may be any.
    pub fn counts(&self) -> &Counts<PeerName> {
        &self.counts
    }

    /// The record of what happened.
    pub fn history(&self) -> &History<ReceiverEvent> {
        &self.history
    }

    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// The paired, revoked and invited senders.
    pub fn senders(&self) -> &Senders {
        &self.senders
    }

    /// The directory of all copies.
    pub fn root(&self) -> &Root {
        &self.root
    }

    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// The calls that do their work on threads.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Limits how many transfers are applied at the same time.
    pub fn turns(&self) -> &Turns {
        &self.turns
    }

    /// The transfers that run or wait.
    pub fn transfers(&self) -> &Transfers {
        &self.transfers
    }

    /// The running fetches.
    pub fn fetches(&self) -> &Fetches {
        &self.fetches
    }

    /// The captures of copies that are being fetched.
    pub fn captures(&self) -> &Captures {
        &self.captures
    }

    /// What it takes to enter copies into ledgers.
    pub fn ledger_writer(&self) -> LedgerWriter {
        LedgerWriter {
            clock: Arc::clone(&self.clock),
            rule: self.config().clock,
            generations: Arc::clone(&self.generations),
            locks: self.locks.clone(),
        }
    }

    /// The locks of the volumes' ledgers.
    pub fn locks(&self) -> &VolumeLocks {
        &self.locks
    }

    /// The volumes that were pushed since retention looked at them.
    pub fn due(&self) -> &DueVolumes {
        &self.due
    }

    /// What senders reported of unchanged volumes.
    pub fn confirmations(&self) -> &Confirmations {
        &self.confirmations
    }

    /// Notified when copies were deleted, so that those left hold their data alone.
    pub fn deleted(&self) -> &Notify {
        &self.deleted
    }

    /// The reasons for which no copy of a volume is deleted, as they were logged last.
    pub fn logged_reasons(&self) -> &LoggedReasons {
        &self.logged_reasons
    }

    /// The generations of ledgers that were seen.
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    /// Reads the clock of this host.
    pub fn clock(&self) -> Reading {
        self.clock.read(self.config().clock)
    }

    /// Accepts a time of this host as right; see [`Clock::accept`].
    ///
    /// # Errors
    /// See [`NotAccepted`].
    pub fn accept_clock(&self, confirmed: i64) -> Result<(), NotAccepted> {
        self.clock.accept(self.config().clock, confirmed)
    }

    /// Cancelled when the daemon stops.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// The daemon's tasks, which it waits for at the end.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Ends all pushes.
    pub fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
    }
}

/// Reconciles a disk. What cannot be reconciled does no harm, and the next start tries again.
fn reconcile(root: &OpenRoot) {
    if let Err(e) = partials::reconcile(root) {
        tracing::warn!("cannot reconcile earlier pushes: {e:#}");
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
