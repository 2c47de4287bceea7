//! The sending daemon's state: what all its pushes share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use sendshot_config::{ConfigError, ReceiverEntry, SenderConfig};
use sendshot_identity::SenderKey;
use sendshot_model::{PeerName, PushId, ReceiverId, SenderId, VolumeName};
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::problem::{Kind, Problem};
use crate::push::dry_run::{self, Foreseen};
use crate::push::progress::Listener;
use crate::push::series;
use crate::push::stages::release;
use crate::push::{self, Request};
use crate::report::Report;
use crate::retained::settle;
use crate::shared::blocking::blocking;
use crate::shared::former::FormerIds;
use crate::shared::history::{History, Outcome};
use crate::shared::running::{Place, Running, Table};
use crate::state::filesystems::Filesystems;
use crate::state::journal::Record;
use crate::state::state_subvolume::StateSubvolume;
use crate::state::trail::Memory;
use crate::volume::engine::Engine;
use crate::volume::register::{self, Register};
use crate::volume::resolve;
use crate::volume::volume_ids::{Binding, VolumeIds};

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
    table: Table,
    /// Held while a push is about to enter the table, and while something is let go by hand: what
    /// was found to be used by no push stays so until it is gone.
    letting_go: Arc<Mutex<()>>,
    /// Whether a push may have broken off that keeps its snapshot.
    interrupted: AtomicBool,
    /// What is known of the streams of such pushes, beyond their marks.
    memories: std::sync::Mutex<HashMap<PushId, Memory>>,
    stop: CancellationToken,
    pushes: TaskTracker,
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
            interrupted: AtomicBool::new(true),
            memories: std::sync::Mutex::default(),
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

    /// Settles what a crash left, at start. Blocks.
    pub fn settle(&self) {
        match std::fs::remove_dir_all(self.passing_dir()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("remove what pushes from read-only file systems left: {e}");
            }
            _ => {}
        }
        self.remember_configured();
        self.filesystems.each(|state| {
            let settled = self
                .take_over_former(state)
                .and_then(|()| settle::leftovers(state, self.id, |_| false));
            if let Err(e) = settled {
                tracing::warn!("settle unfinished pushes: {e}");
            }
            Ok(())
        });
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

    /// Notes that a push has broken off and keeps its snapshot.
    pub fn note_interrupted(&self) {
        self.interrupted.store(true, Ordering::Release);
    }

    /// Keeps what is known of a stream that broke off until it is taken up or let go.
    pub fn keep_memory(&self, push: PushId, memory: Memory) {
        self.memories().insert(push, memory);
    }

    /// What is known of the stream of a push beyond its marks.
    pub fn take_memory(&self, push: PushId) -> Memory {
        self.memories().remove(&push).unwrap_or_default()
    }

    fn memories(&self) -> std::sync::MutexGuard<'_, HashMap<PushId, Memory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there may be such a push; there is none from now on, unless it is noted again.
    pub fn take_interrupted(&self) -> bool {
        self.interrupted.swap(false, Ordering::AcqRel)
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
    /// A [`Problem`] for the user.
    pub async fn receivers(&self) -> Result<BTreeMap<PeerName, ReceiverEntry>, Problem> {
        let dir = self.paths.receivers_dir.clone();
        blocking("receivers", move || sendshot_config::load_dir(&dir))
            .await?
            .map_err(|e| Problem::from_error(Kind::Usage, &e))
    }

    /// One paired receiver.
    ///
    /// # Errors
    /// A [`Problem`] for the user if there is none of this name.
    pub async fn receiver(&self, name: &PeerName) -> Result<ReceiverEntry, Problem> {
        let (dir, wanted) = (self.paths.receivers_dir.clone(), name.clone());
        let found = blocking("receivers", move || {
            sendshot_config::load_one(&dir, &wanted)
        });
        let found = found
            .await?
            .map_err(|e| Problem::from_error(Kind::Usage, &e))?;
        found.ok_or_else(|| {
            Problem::new(Kind::Usage, format!("receiver `{name}` is not paired")).remedy(format!(
                "run `sendshotctl peer invite NAME` on {name}, then `sendshotctl pair {name}` here"
            ))
        })
    }

    /// Starts a push; it runs to its end whether or not anybody listens.
    ///
    /// # Errors
    /// A [`Problem`] if it cannot even start.
    pub async fn start_push(
        self: &Arc<Self>,
        request: Request,
        listener: Listener,
    ) -> Result<(), Problem> {
        let receiver = self.receiver(&request.receiver).await?.receiver_id;
        let volume = self.resolve(&request).await?;
        let place = self.enter((&request, receiver), &volume).await?;
        let sender = Arc::clone(self);
        self.pushes.spawn(async move {
            let running = Arc::clone(&place.running);
            listener.started(&running);
            let (by, told) = (Arc::clone(&sender), listener.clone());
            let (outcome, left) = match volume.series.is_empty() {
                true => push::run(by, request, volume, Arc::clone(&running), told).await,
                false => series::push_all(by, request, volume, Arc::clone(&running), told).await,
            };
            sender.remember(&running, &outcome).await;
            running.enter(release::STAGE);
            running.reported();
            let letting_go = async {
                if let Some(left) = left {
                    left.carry_out().await;
                }
                drop(place);
            };
            tokio::join!(listener.over(outcome), letting_go);
        });
        Ok(())
    }

    /// Takes the place of a push. One that is over but for letting go is waited for: its user has
    /// been told that it is done.
    async fn enter(
        &self,
        (request, id): (&Request, ReceiverId),
        volume: &resolve::Volume,
    ) -> Result<Place, Problem> {
        loop {
            let receiver = (request.receiver.clone(), id);
            let held = self.hold_starts().await;
            let entered = self.table.enter(volume, receiver, self.stop.child_token());
            drop(held);
            match entered {
                Ok(place) => return Ok(place),
                Err(running) if running.is_reported() => running.over().await,
                Err(running) => return Err(is_running(&running)),
            }
        }
    }

    /// What a push would do, and the `top` paths that would cost most. If the caller goes away, what
    /// was taken for it is let go all the same.
    ///
    /// # Errors
    /// A [`Problem`] for the user.
    pub async fn plan(
        self: &Arc<Self>,
        request: Request,
        volume: resolve::Volume,
        top: usize,
    ) -> Result<Foreseen, Problem> {
        let cancel = self.stop.child_token();
        let _nobody_waits = cancel.clone().drop_guard();
        let (running, protected) = self.table.aside(&volume, request.receiver.clone(), cancel);
        let (tell, told) = oneshot::channel();
        let sender = Arc::clone(self);
        self.pushes.spawn(async move {
            let outcome = dry_run::run(sender, request, volume, running, top).await;
            drop(protected);
            // Who asked may have gone.
            let _ = tell.send(outcome);
        });
        let died = |_| Problem::new(Kind::Failed, "the daemon stopped in the middle of the plan");
        told.await.map_err(died)?
    }

    /// Finds and opens what a request names.
    ///
    /// # Errors
    /// A [`Problem`] for the user.
    pub async fn resolve(self: &Arc<Self>, request: &Request) -> Result<resolve::Volume, Problem> {
        let (sender, wanted) = (Arc::clone(self), request.volume.clone());
        let volume = blocking("resolve", move || {
            sender.find(|finder| resolve::resolve(finder, &wanted))
        })
        .await??;
        Ok(volume)
    }

    /// One line in the journal that tells the whole story, and the history.
    async fn remember(self: &Arc<Self>, running: &Running, outcome: &Result<Report, Problem>) {
        let entry = match outcome {
            Ok(report) => {
                log_done(running, report);
                Outcome::Done(Box::new(report.clone()))
            }
            Err(problem) => {
                log_failed(running, problem);
                Outcome::Failed(problem.message.clone())
            }
        };
        let sender = Arc::clone(self);
        let (volume, receiver) = (running.volume.clone(), running.receiver.clone());
        let now = Timestamp::now().as_second();
        let stored = blocking("history", move || {
            sender.history.add(volume, receiver, now, entry)
        });
        if let Ok(Err(e)) = stored.await {
            tracing::warn!("write the history of pushes: {e}");
        }
    }

    /// Cancels all pushes and waits until they have cleaned up, and let go of their file systems.
    pub async fn shut_down(&self) {
        self.stop.cancel();
        self.pushes.close();
        self.pushes.wait().await;
    }
}

fn is_running(running: &Running) -> Problem {
    let message = format!(
        "a push of `{}` to `{}` is running since {}",
        running.volume,
        running.receiver,
        sendshot_model::human::duration(running.elapsed()),
    );
    Problem::new(Kind::Refused, message).remedy("wait for it, or `sendshotctl cancel` it")
}

fn log_done(running: &Running, report: &Report) {
    tracing::info!(
        push = %running.push,
        volume = %report.volume,
        receiver = %report.receiver,
        uuid = %report.uuid,
        parent = report.parent.map(tracing::field::display),
        parent_reason = %report.parent_reason,
        engine = %report.engine,
        stream_bytes = report.stream_bytes,
        wire_bytes = report.wire_bytes,
        seconds = report.seconds,
        pruned = report.pruned.len(),
        skipped = report.skipped.len(),
        copy = %report.copy,
        "pushed {} to {}: {} in {}",
        report.volume,
        report.receiver,
        sendshot_model::human::bytes_human(report.stream_bytes),
        sendshot_model::human::duration(running.elapsed()),
    );
}

fn log_failed(running: &Running, problem: &Problem) {
    tracing::info!(
        push = %running.push,
        volume = %running.volume,
        receiver = %running.receiver,
        stage = running.stage(),
        seconds = running.elapsed().as_secs_f64(),
        remedy = %problem.remedy,
        "push of {} to {} failed: {}",
        running.volume,
        running.receiver,
        problem.message,
    );
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
