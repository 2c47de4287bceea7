//! The sending daemon's state: what all its pushes share.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use sendshot_config::{ConfigError, ReceiverEntry, SenderConfig};
use sendshot_identity::SenderKey;
use sendshot_model::{PeerName, ReceiverId, SenderId, VolumeName};
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::shared::blocking::{Died, blocking};
use crate::shared::former::FormerIds;
use crate::shared::history::History;
use crate::shared::interrupted::InterruptedPushes;
use crate::shared::running::Table;
use crate::state::filesystems::Filesystems;
use crate::state::record::Record;
use crate::state::store::StateSubvolume;
use crate::volume::ids::{Binding, VolumeIds};
use crate::volume::register::{self, Register};
use crate::volume::resolve;
use sendshot_model::Engine;

/// File in the state directory that holds the sender's id.
const INSTANCE: &str = "instance.json";

/// Directory in the state directory for pushes from file systems that are read-only.
const PASSING: &str = "passing";

/// Sendshots kept for each receiver of a volume that is not configured: the configuration's own
/// default.
const UNCONFIGURED_KEEP: NonZeroU32 = NonZeroU32::new(3).expect("three is not zero");

/// Where a sending daemon keeps and finds things.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The configuration file.
    pub config: PathBuf,
    /// Own state.
    pub state_dir: PathBuf,
    /// What pairing wrote.
    pub receivers_dir: PathBuf,
}

/// Why a receiver is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What pairing wrote down cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A thread gave no result.
    #[error(transparent)]
    Thread(#[from] Died),
    /// None of this name is paired.
    #[error("receiver `{0}` is not paired")]
    NotPaired(PeerName),
}

#[derive(Debug, Serialize, Deserialize)]
struct Instance {
    sender_id: SenderId,
}

/// The daemon.
#[derive(Debug)]
pub struct Sender {
    id: SenderId,
    key: SenderKey,
    config: RwLock<Arc<SenderConfig>>,
    paths: Paths,
    volume_ids: VolumeIds,
    former: FormerIds,
    filesystems: Filesystems,
    history: History,
    pub(crate) table: Table,
    /// Held while a push is about to enter the table, and while something is let go by hand: what
    /// was found to be used by no push stays so until it is gone.
    letting_go: Arc<Mutex<()>>,
    interrupted: InterruptedPushes,
    pub(crate) stop: CancellationToken,
    pub(crate) pushes: TaskTracker,
}

impl Sender {
    /// Reads configuration and state; makes id and key at the first start.
    ///
    /// # Errors
    /// Whatever of it cannot be read or made, by name.
    pub fn load(paths: Paths) -> anyhow::Result<Self> {
        let config = SenderConfig::load(&paths.config)?;
        Ok(Self {
            id: instance(&paths.state_dir)?,
            key: SenderKey::load_or_create(&paths.state_dir)?,
            config: RwLock::new(Arc::new(config)),
            volume_ids: VolumeIds::load(&paths.state_dir)?,
            former: FormerIds::load(&paths.state_dir)?,
            filesystems: Filesystems::load(&paths.state_dir)?,
            history: History::load(&paths.state_dir)?,
            table: Table::default(),
            letting_go: Arc::default(),
            interrupted: InterruptedPushes::default(),
            stop: CancellationToken::new(),
            pushes: TaskTracker::new(),
            paths,
        })
    }

    /// This instance.
    pub fn id(&self) -> SenderId {
        self.id
    }

    /// Its key.
    pub fn key(&self) -> &SenderKey {
        &self.key
    }

    /// The configuration as it is now.
    pub fn config(&self) -> Arc<SenderConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many sendshots of a volume are kept for each receiver.
    pub fn keep(&self, volume: &VolumeName) -> NonZeroU32 {
        let config = self.config();
        let configured = config.volumes.get(volume).map(|volume| volume.keep);
        configured.unwrap_or(UNCONFIGURED_KEEP)
    }

    /// What usually makes a volume's streams.
    pub fn engine(&self, volume: &VolumeName) -> Engine {
        let config = self.config();
        match config.volumes.get(volume) {
            Some(volume) if volume.pin_parent => Engine::Kernel,
            Some(_) | None => Engine::Sendshot,
        }
    }

    /// Reads the configuration again. Running pushes go on as they began.
    ///
    /// # Errors
    /// What is wrong with it; the former one then stays.
    pub fn reload(&self) -> Result<(), ConfigError> {
        let config = Arc::new(SenderConfig::load(&self.paths.config)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Where things are.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Where book-keeping is done for file systems that are read-only.
    pub fn passing_dir(&self) -> PathBuf {
        self.paths.state_dir.join(PASSING)
    }

    /// The volumes' ids.
    pub fn volume_ids(&self) -> &VolumeIds {
        &self.volume_ids
    }

    /// What receivers say that this sender was.
    pub fn former(&self) -> &FormerIds {
        &self.former
    }

    /// What this sender is and was, by the word of the receivers that are paired now. Blocks.
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

    /// What this sender was, each with the paired receiver that says so: its word is good for what it holds
    /// itself. Blocks.
    pub fn vouched(&self) -> BTreeSet<(ReceiverId, SenderId)> {
        let paired = self.paired_ids();
        self.former.vouched(|receiver| paired.contains(&receiver))
    }

    /// Looks for a volume. Blocks.
    pub fn find<T>(&self, look: impl FnOnce(resolve::Finder<'_>) -> T) -> T {
        let own = self.own_ids();
        look(resolve::Finder {
            config: &self.config(),
            ids: &self.volume_ids,
            me: self.id,
            own: &|sender| own.contains(&sender),
        })
    }

    /// Makes what former instances of this sender left on a file system its own. Blocks.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take_over_former(&self, state: &StateSubvolume) -> io::Result<()> {
        let vouched = self.vouched();
        if vouched.is_empty() {
            return Ok(());
        }
        let is_own = |record: &Record| vouched.contains(&(record.receiver, record.sender));
        let adopted = register::adopt(state, self.id, is_own)?;
        if adopted > 0 {
            tracing::info!(fsid = %state.top().fsid(), records = adopted,
                "what this sender left before it was set up anew is its own again");
        }
        Ok(())
    }

    /// Finds what is ours on the file systems of the configured volumes, if this box has forgotten where it
    /// was. Blocks.
    pub fn remember_configured(&self) {
        let config = self.config();
        for volume in config.volumes.values() {
            if let Err(e) = self.filesystems.remember_if_ours(&volume.path) {
                tracing::debug!(path = %volume.path.display(), "look for what is ours: {e:#}");
            }
        }
    }

    /// Has the disk say which volume lies on it. Blocks.
    ///
    /// # Errors
    /// The kernel's.
    pub fn register(&self, state: &StateSubvolume, volume: &Binding) -> io::Result<()> {
        let _alone = register::WRITING
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut register = Register::load(state)?;
        register.note(self.id, &register::host_name(), volume);
        register.store(state)
    }

    /// File systems that hold something of ours.
    pub fn filesystems(&self) -> &Filesystems {
        &self.filesystems
    }

    /// The running pushes.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The interrupted pushes.
    pub fn interrupted(&self) -> &InterruptedPushes {
        &self.interrupted
    }

    /// Waits for the pushes whose users have been told that they are done, and which are still
    /// letting go of what they made superfluous.
    pub async fn wait_for_releases(&self) {
        for running in self.table.all() {
            if running.is_reported() {
                running.over().await;
            }
        }
    }

    /// Keeps pushes from starting as long as the answer is held; those that run go on.
    pub async fn hold_starts(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.letting_go).lock_owned().await
    }

    /// The last pushes.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The paired receivers, read anew: pairing may have happened a moment ago.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn receivers(&self) -> Result<BTreeMap<PeerName, ReceiverEntry>, Error> {
        let dir = self.paths.receivers_dir.clone();
        Ok(blocking("receivers", move || sendshot_config::load_dir(&dir)).await??)
    }

    /// One paired receiver.
    ///
    /// # Errors
    /// See [`Error`]: also if there is none of this name.
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
