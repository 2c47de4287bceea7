//! The sending daemon's state that all its pushes share.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use sendshot_config::{ConfigError, ReceiverEntry, SenderConfig};
use sendshot_identity::SenderKey;
use sendshot_model::history::SenderEvent;
use sendshot_model::{PeerName, ReceiverId, SenderId, VolumeName};
use sendshot_service::History;
use sendshot_service::metrics::{Counts, Trouble};
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::shared::blocking::{Died, blocking};
use crate::shared::former::FormerIds;
use crate::shared::interrupted::InterruptedPushes;
use crate::shared::last_pushes::LastPushes;
use crate::shared::pauses::Pauses;
use crate::shared::probes::Probes;
use crate::shared::pushed_states::PushedStates;
use crate::shared::running::Table;
use crate::shared::runs::Runs;
use crate::state::filesystems::Filesystems;
use crate::state::record::Record;
use crate::state::store::StateSubvolume;
use crate::volume::ids::{Binding, VolumeIds};
use crate::volume::register::{self, Register};
use crate::volume::resolve;
use sendshot_model::Engine;

/// File in the state directory that holds the sender's id.
const INSTANCE: &str = "instance.json";

/// Directory in the state directory for the temporary state of pushes from read-only file systems.
const TEMPORARY: &str = "passing";

/// Sendshots kept for each receiver of a volume that is not configured: the configuration's own default.
const UNCONFIGURED_KEEP: NonZeroU32 = NonZeroU32::new(3).expect("three is not zero");

/// Paths of a sending daemon.
#[derive(Debug, Clone)]
pub struct Paths {
    pub config: PathBuf,
    /// The daemon's state directory.
    pub state_dir: PathBuf,
    /// Directory of the files written by pairing, one per receiver.
    pub receivers_dir: PathBuf,
}

/// Why a receiver cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file written by pairing cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A worker thread ended without a result.
    #[error(transparent)]
    Thread(#[from] Died),
    /// No receiver of this name is paired.
    #[error("receiver `{0}` is not paired")]
    NotPaired(PeerName),
}

#[derive(Debug, Serialize, Deserialize)]
struct Instance {
    sender_id: SenderId,
}

#[derive(Debug)]
pub struct Sender {
    id: SenderId,
    key: SenderKey,
    config: RwLock<Arc<SenderConfig>>,
    paths: Paths,
    volume_ids: VolumeIds,
    former: FormerIds,
    filesystems: Filesystems,
    history: History<SenderEvent>,
    metrics_trouble: Trouble,
    counts: Counts<(PeerName, VolumeName)>,
    last_pushes: LastPushes,
    pushed_states: PushedStates,
    runs: Runs,
    probes: Probes,
    pauses: Pauses,
    /// Notified when a schedule, a pause or a run has changed.
    schedule_changed: Notify,
    pub(crate) table: Table,
    /// Held while a push is about to enter the table, and while the user's deletions run: a state found unused then
    /// stays so until it is deleted.
    deleting: Arc<Mutex<()>>,
    interrupted: InterruptedPushes,
    pub(crate) stop: CancellationToken,
    pub(crate) pushes: TaskTracker,
}

impl Sender {
    /// Reads configuration and state; makes id and key at the first start.
    ///
    /// # Errors
    /// The file that cannot be read or made.
    pub fn load(paths: Paths) -> anyhow::Result<Self> {
        let config = SenderConfig::load(&paths.config)?;
        Ok(Self {
            id: instance(&paths.state_dir)?,
            key: SenderKey::load_or_create(&paths.state_dir)?,
            config: RwLock::new(Arc::new(config)),
            volume_ids: VolumeIds::load(&paths.state_dir)?,
            former: FormerIds::load(&paths.state_dir)?,
            filesystems: Filesystems::load(&paths.state_dir)?,
            history: History::of(&paths.state_dir),
            metrics_trouble: Trouble::default(),
            counts: Counts::new(),
            last_pushes: LastPushes::load(&paths.state_dir)?,
            pushed_states: PushedStates::load(&paths.state_dir),
            runs: Runs::load(&paths.state_dir),
            probes: Probes::default(),
            pauses: Pauses::load(&paths.state_dir)?,
            schedule_changed: Notify::new(),
            table: Table::default(),
            deleting: Arc::default(),
            interrupted: InterruptedPushes::default(),
            stop: CancellationToken::new(),
            pushes: TaskTracker::new(),
            paths,
        })
    }

    /// Id of this instance.
    pub fn id(&self) -> SenderId {
        self.id
    }

    pub fn key(&self) -> &SenderKey {
        &self.key
    }

    /// The current configuration.
    pub fn config(&self) -> Arc<SenderConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many sendshots of a volume are kept for each receiver.
    pub fn keep(&self, volume: &VolumeName) -> NonZeroU32 {
        let config = self.config();
        let configured = config.volumes.get(volume).map(|volume| volume.keep);
        configured.unwrap_or(UNCONFIGURED_KEEP)
    }

    /// The volume's usual engine.
    pub fn engine(&self, volume: &VolumeName) -> Engine {
        let config = self.config();
        match config.volumes.get(volume) {
            Some(volume) if volume.pin_parent => Engine::Kernel,
            Some(_) | None => Engine::Sendshot,
        }
    }

    /// Reads the configuration again. Running pushes keep the one with which they began.
    ///
    /// # Errors
    /// The error in the file; the former configuration then stays.
    pub fn reload(&self) -> Result<(), ConfigError> {
        let config = Arc::new(SenderConfig::load(&self.paths.config)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        // What was wrong may be right now.
        self.runs.try_again();
        self.schedule_changed.notify_one();
        Ok(())
    }

    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Directory for the temporary state of pushes from read-only file systems.
    pub fn temporary_dir(&self) -> PathBuf {
        self.paths.state_dir.join(TEMPORARY)
    }

    pub fn volume_ids(&self) -> &VolumeIds {
        &self.volume_ids
    }

    /// The former ids of this sender, as receivers report them.
    pub fn former(&self) -> &FormerIds {
        &self.former
    }

    /// The ids of this sender, now and formerly, as the paired receivers report them. Blocks.
    pub fn own_ids(&self) -> BTreeSet<SenderId> {
        let paired = self.paired_ids();
        let mut own = self.former.all(|receiver| paired.contains(&receiver));
        own.insert(self.id);
        own
    }

    /// The receivers that are paired now. Blocks.
    pub fn paired_ids(&self) -> BTreeSet<ReceiverId> {
        let paired = sendshot_config::load_dir(&self.paths.receivers_dir).unwrap_or_default();
        paired
            .into_values()
            .map(|entry| entry.receiver_id)
            .collect()
    }

    /// The former ids of this sender, each with the paired receiver that reports it: a report counts only for
    /// what that receiver itself holds. Blocks.
    pub fn vouched(&self) -> BTreeSet<(ReceiverId, SenderId)> {
        let paired = self.paired_ids();
        self.former.vouched(|receiver| paired.contains(&receiver))
    }

    /// Looks up a volume. Blocks.
    pub fn find<T>(&self, look: impl FnOnce(resolve::Finder<'_>) -> T) -> T {
        let own = self.own_ids();
        look(resolve::Finder {
            config: &self.config(),
            ids: &self.volume_ids,
            me: self.id,
            own: &|sender| own.contains(&sender),
        })
    }

    /// Takes over what former instances of this sender left on a file system. Blocks.
    ///
    /// # Errors
    /// I/O errors.
    pub fn take_over_former(&self, state: &StateSubvolume) -> io::Result<()> {
        let vouched = self.vouched();
        if vouched.is_empty() {
            return Ok(());
        }
        let is_own = |record: &Record| vouched.contains(&(record.receiver, record.sender));
        let adopted = register::adopt(state, self.id, is_own)?;
        if adopted > 0 {
            tracing::info!(fsid = %state.top().fsid(), records = adopted,
                "states of this sender from before it was set up again were taken over");
        }
        Ok(())
    }

    /// Records the file systems of configured volumes that have a state subvolume, if this host has lost that list.
    /// Blocks.
    pub fn remember_configured(&self) {
        let config = self.config();
        for volume in config.volumes.values() {
            if let Err(e) = self.filesystems.remember_if_ours(&volume.path) {
                tracing::debug!(path = %volume.path.display(), "cannot look for this host's states: {e:#}");
            }
        }
    }

    /// Writes a volume into the register of its disk. Blocks.
    ///
    /// # Errors
    /// I/O errors.
    pub fn register(&self, state: &StateSubvolume, volume: &Binding) -> io::Result<()> {
        let _alone = register::WRITING
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut register = Register::load(state)?;
        register.note(self.id, &register::host_name(), volume);
        register.store(state)
    }

    /// The file systems with a state subvolume.
    pub fn filesystems(&self) -> &Filesystems {
        &self.filesystems
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    pub fn interrupted(&self) -> &InterruptedPushes {
        &self.interrupted
    }

    /// Waits for the pushes that have reported their outcome and are still deleting superseded states.
    pub async fn wait_for_releases(&self) {
        for running in self.table.all() {
            if running.is_reported() {
                running.over().await;
            }
        }
    }

    /// Keeps pushes from starting as long as the guard is held; running pushes continue.
    pub async fn hold_starts(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.deleting).lock_owned().await
    }

    /// Why the metrics are not served.
    pub fn metrics_trouble(&self) -> &Trouble {
        &self.metrics_trouble
    }

    /// Adds an event that happened now to the history, and counts it. Blocks.
    pub fn note(&self, event: SenderEvent) {
        match &event {
            SenderEvent::Pushed {
                receiver,
                volume,
                stream_bytes,
                copy,
                earlier,
                ..
            } => {
                let pair = (receiver.clone(), volume.clone());
                // A series may have had nothing to send.
                let copies = earlier.len() + usize::from(!copy.is_empty());
                self.counts.done(pair, copies, *stream_bytes);
            }
            SenderEvent::Failed {
                receiver, volume, ..
            } => self.counts.failed((receiver.clone(), volume.clone())),
            SenderEvent::Pruned { .. } | SenderEvent::Restored { .. } => {}
        }
        self.history.note(event);
    }

    /// The pushes that have ended since the start, by receiver and volume.
    pub fn counts(&self) -> &Counts<(PeerName, VolumeName)> {
        &self.counts
    }

    /// The record of what happened.
    pub fn history(&self) -> &History<SenderEvent> {
        &self.history
    }

    /// The last push of each volume to each receiver.
    /// The states that the receivers hold of live volumes.
    pub fn pushed_states(&self) -> &PushedStates {
        &self.pushed_states
    }

    /// The runs by schedules.
    pub fn runs(&self) -> &Runs {
        &self.runs
    }

    /// Reads the states of live volumes.
    pub fn probes(&self) -> &Probes {
        &self.probes
    }

    /// The pauses of schedules.
    pub fn pauses(&self) -> &Pauses {
        &self.pauses
    }

    /// Notified when a schedule, a pause or a run has changed.
    pub fn schedule_changed(&self) -> &Notify {
        &self.schedule_changed
    }

    pub fn last_pushes(&self) -> &LastPushes {
        &self.last_pushes
    }

    /// Reads the paired receivers: pairing may have happened a moment ago.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn receivers(&self) -> Result<BTreeMap<PeerName, ReceiverEntry>, Error> {
        let dir = self.paths.receivers_dir.clone();
        Ok(blocking("receivers", move || sendshot_config::load_dir(&dir)).await??)
    }

    /// The id of a paired receiver; `None` if none of this name is paired. Blocks.
    pub fn receiver_id(&self, name: &PeerName) -> Option<ReceiverId> {
        let entry = sendshot_config::load_one(&self.paths.receivers_dir, name);
        Some(entry.ok()??.receiver_id)
    }

    /// Whether the daemon is about to end.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Reads one paired receiver.
    ///
    /// # Errors
    /// See [`Error`]: also if none of this name is paired.
    pub async fn receiver(&self, name: &PeerName) -> Result<ReceiverEntry, Error> {
        let (dir, wanted) = (self.paths.receivers_dir.clone(), name.clone());
        let found = blocking("receivers", move || {
            sendshot_config::load_one(&dir, &wanted)
        });
        found.await??.ok_or_else(|| Error::NotPaired(name.clone()))
    }
}

fn instance(state_dir: &Path) -> io::Result<SenderId> {
    let path = state_dir.join(INSTANCE);
    if let Some(instance) = durable::read_json::<Instance>(&path)? {
        return Ok(instance.sender_id);
    }
    let sender_id = SenderId::generate();
    durable::write_json(&path, &Instance { sender_id })?;
    Ok(sender_id)
}
