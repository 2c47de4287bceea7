//! The pushes that are under way.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sendshot_model::{PeerName, PushId, ReceiverId, TransferId, VolumeId, VolumeName};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::volume::resolve::Volume;

/// A push as others see it.
#[derive(Debug)]
pub struct Running {
    /// Its id.
    pub push: PushId,
    /// What is pushed.
    pub volume: VolumeName,
    /// Where it lies on this box.
    pub path: PathBuf,
    /// Where to.
    pub receiver: PeerName,
    /// Cancels it.
    pub cancel: CancellationToken,
    stage: Mutex<&'static str>,
    stream_bytes: AtomicU64,
    applied_bytes: AtomicU64,
    total_bytes: AtomicU64,
    started: Instant,
    reported: AtomicBool,
    over: watch::Sender<bool>,
}

impl Running {
    fn new(volume: &Volume, receiver: PeerName, cancel: CancellationToken) -> Self {
        Self {
            push: PushId::generate(),
            volume: volume.key.name.clone(),
            path: volume.path.clone(),
            receiver,
            cancel,
            stage: Mutex::new("connect"),
            stream_bytes: AtomicU64::new(0),
            applied_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            started: Instant::now(),
            reported: AtomicBool::new(false),
            over: watch::Sender::new(false),
        }
    }

    /// The stage it is in.
    pub fn stage(&self) -> &'static str {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a stage.
    pub fn enter(&self, stage: &'static str) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// Counts bytes of the stream that were handed to the connection.
    pub fn sent(&self, bytes: u64) {
        self.stream_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that the stream is sent from this offset on.
    pub fn goes_on_at(&self, offset: u64) {
        self.stream_bytes.store(offset, Ordering::Relaxed);
        self.applied_bytes.store(offset, Ordering::Relaxed);
    }

    /// Notes how far the receiver is.
    pub fn applied(&self, offset: u64) {
        // It cannot have more than it was sent, whatever it says, and not less than before: else one that
        // goes to and fro would seem to come forward for ever.
        let offset = offset.min(self.stream_bytes.load(Ordering::Relaxed));
        self.applied_bytes.fetch_max(offset, Ordering::Relaxed);
    }

    /// Notes how long the stream will be.
    pub fn expect(&self, bytes: u64) {
        self.total_bytes.store(bytes, Ordering::Relaxed);
    }

    /// How long the stream will be; 0 if nobody knows.
    pub fn total(&self) -> u64 {
        self.total_bytes.load(Ordering::Relaxed)
    }

    /// Bytes handed to the connection, and bytes applied by the receiver.
    pub fn progress(&self) -> (u64, u64) {
        (
            self.stream_bytes.load(Ordering::Relaxed),
            self.applied_bytes.load(Ordering::Relaxed),
        )
    }

    /// How long it has been running.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Notes that the user has been told how it ended; only letting go is left.
    pub fn reported(&self) {
        self.reported.store(true, Ordering::Release);
    }

    /// Whether the user has been told how it ended.
    pub fn is_reported(&self) -> bool {
        self.reported.load(Ordering::Acquire)
    }

    /// Returns when it is over.
    pub async fn over(&self) {
        // An error means that the push was dropped, which is over as well.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}

/// By the receiver's id: it can have several names.
type Key = (VolumeId, ReceiverId);

/// All running pushes; one per volume and receiver.
#[derive(Debug, Clone, Default)]
pub struct Table {
    entries: Arc<Mutex<Entries>>,
}

#[derive(Debug, Default)]
struct Entries {
    pushes: HashMap<Key, Arc<Running>>,
    /// Records of the journal that somebody works on and that are no push's: of plans and of
    /// adoptions.
    others: HashSet<PushId>,
    /// See [`Table::last_transfer`].
    last_transfers: HashMap<Key, TransferId>,
}

/// A place in the table, given up when dropped.
#[derive(Debug)]
pub struct Place {
    table: Table,
    key: Key,
    /// The push.
    pub running: Arc<Running>,
}

impl Table {
    /// Takes the place of a volume and receiver.
    ///
    /// # Errors
    /// The push that already has it.
    pub fn enter(
        &self,
        volume: &Volume,
        (receiver, id): (PeerName, ReceiverId),
        cancel: CancellationToken,
    ) -> Result<Place, Arc<Running>> {
        let key = (volume.key.id, id);
        let mut entries = self.lock();
        if let Some(running) = entries.pushes.get(&key) {
            return Err(Arc::clone(running));
        }
        let running = Arc::new(Running::new(volume, receiver, cancel));
        entries.pushes.insert(key, Arc::clone(&running));
        Ok(Place {
            table: self.clone(),
            key,
            running,
        })
    }

    /// Something that runs like a push and does not go into the table's list: a plan.
    pub fn aside(
        &self,
        volume: &Volume,
        receiver: PeerName,
        cancel: CancellationToken,
    ) -> (Arc<Running>, Protected) {
        let running = Arc::new(Running::new(volume, receiver, cancel));
        let protected = self.protect(running.push);
        (running, protected)
    }

    /// Keeps others from settling a record as one that nobody works on any more.
    pub fn protect(&self, push: PushId) -> Protected {
        self.lock().others.insert(push);
        Protected {
            table: self.clone(),
            push,
        }
    }

    /// All pushes.
    pub fn all(&self) -> Vec<Arc<Running>> {
        let mut all: Vec<_> = self.lock().pushes.values().cloned().collect();
        all.sort_by(|a, b| (&a.volume, &a.receiver).cmp(&(&b.volume, &b.receiver)));
        all
    }

    /// Whether somebody works on the record of a push.
    pub fn contains(&self, push: PushId) -> bool {
        let entries = self.lock();
        let mut pushes = entries.pushes.values();
        entries.others.contains(&push) || pushes.any(|running| running.push == push)
    }

    /// A running push of a volume, to whatever receiver. It may build on any sendshot of the
    /// volume: copies can have moved from one receiver to another.
    pub fn of_volume(&self, volume: VolumeId) -> Option<Arc<Running>> {
        let entries = self.lock();
        let found = entries.pushes.iter().find(|((id, _), _)| *id == volume);
        found.map(|(_, running)| Arc::clone(running))
    }

    /// The transfer of a volume to a receiver that this process opened last. Once its push is over here,
    /// the receiver may for a moment not have noticed.
    pub fn last_transfer(&self, volume: VolumeId, receiver: ReceiverId) -> Option<TransferId> {
        let entries = self.lock();
        entries.last_transfers.get(&(volume, receiver)).copied()
    }

    /// Notes that a transfer is opened.
    pub fn opens(&self, volume: VolumeId, receiver: ReceiverId, transfer: TransferId) {
        let mut entries = self.lock();
        entries.last_transfers.insert((volume, receiver), transfer);
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.lock().pushes.remove(&self.key);
        self.running.over.send_replace(true);
    }
}

/// A record that is being worked on, until this is dropped.
#[derive(Debug)]
pub struct Protected {
    table: Table,
    /// Names the record.
    pub push: PushId,
}

impl Drop for Protected {
    fn drop(&mut self) {
        self.table.lock().others.remove(&self.push);
    }
}
