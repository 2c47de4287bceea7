//! The running pushes.

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

/// The parts of a running push that other tasks see.
#[derive(Debug)]
pub struct Running {
    pub push: PushId,
    pub volume: VolumeName,
    /// The volume's path on this host.
    pub path: PathBuf,
    pub receiver: PeerName,
    pub cancel: CancellationToken,
    stage: Mutex<&'static str>,
    stream_bytes: AtomicU64,
    applied_bytes: AtomicU64,
    total_bytes: AtomicU64,
    started: Instant,
    /// When the transfer began, and at which offset of the stream.
    transfer_began: Mutex<Option<(Instant, u64)>>,
    reported: AtomicBool,
    over: watch::Sender<bool>,
}

impl Running {
    fn new(volume: &Volume, receiver: PeerName, cancel: CancellationToken) -> Self {
        let (name, path) = (volume.key.name.clone(), volume.path.clone());
        Self::of(name, path, receiver, cancel)
    }

    fn of(
        volume: VolumeName,
        path: PathBuf,
        receiver: PeerName,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            push: PushId::generate(),
            volume,
            path,
            receiver,
            cancel,
            stage: Mutex::new("connect"),
            stream_bytes: AtomicU64::new(0),
            applied_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            started: Instant::now(),
            transfer_began: Mutex::new(None),
            reported: AtomicBool::new(false),
            over: watch::Sender::new(false),
        }
    }

    pub fn stage(&self) -> &'static str {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn enter(&self, stage: &'static str) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    /// Counts bytes of the stream that were handed to the connection.
    pub fn sent(&self, bytes: u64) {
        self.stream_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Records that a stream is sent from this offset on. The length of an earlier stream of the push is not its length.
    pub fn resumes_at(&self, offset: u64) {
        self.total_bytes.store(0, Ordering::Relaxed);
        self.stream_bytes.store(offset, Ordering::Relaxed);
        self.applied_bytes.store(offset, Ordering::Relaxed);
        let mut began = self
            .transfer_began
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *began = Some((Instant::now(), offset));
    }

    /// Bytes a second that the receiver has applied since the transfer began; 0 if it has not, or has applied nothing.
    pub fn rate(&self) -> u64 {
        let began = *self
            .transfer_began
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some((at, offset)) = began else { return 0 };
        let applied = self.progress().1.saturating_sub(offset);
        let millis = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        applied.saturating_mul(1000) / millis.max(1)
    }

    /// Records how far the receiver is.
    pub fn applied(&self, offset: u64) {
        // A receiver cannot have applied more than it was sent, whatever it reports, nor less than before:
        // otherwise one whose reports go up and down would seem to make progress for ever.
        let offset = offset.min(self.stream_bytes.load(Ordering::Relaxed));
        self.applied_bytes.fetch_max(offset, Ordering::Relaxed);
    }

    /// Records the length of the stream.
    pub fn expect(&self, bytes: u64) {
        self.total_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Length of the stream in bytes; 0 if not known.
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

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Records that the user has got the outcome; only the release is left.
    pub fn reported(&self) {
        self.reported.store(true, Ordering::Release);
    }

    /// Whether the user has got the outcome.
    pub fn is_reported(&self) -> bool {
        self.reported.load(Ordering::Acquire)
    }

    /// Waits until the push has ended.
    pub async fn over(&self) {
        // An error means that the push was dropped, so it has ended, too.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}

/// A receiver counts by its id: it can have several names.
type Key = (VolumeId, ReceiverId);

/// The table of running pushes; one per volume and receiver.
#[derive(Debug, Clone, Default)]
pub struct Table {
    entries: Arc<Mutex<Entries>>,
}

#[derive(Debug, Default)]
struct Entries {
    pushes: HashMap<Key, Arc<Running>>,
    /// Records in use that are not of running pushes: those of dry runs, of held snapshots and of interrupted pushes
    /// being resumed.
    others: HashSet<PushId>,
    /// Volumes that are being restored in place: none of their pushes starts.
    held: HashSet<VolumeName>,
    /// See [`Table::last_transfer`].
    last_transfers: HashMap<Key, TransferId>,
}

/// A push's slot in the table, freed on drop.
#[derive(Debug)]
pub struct Slot {
    table: Table,
    key: Key,
    pub running: Arc<Running>,
}

impl Table {
    /// Takes the slot of a volume and receiver.
    ///
    /// # Errors
    /// The push that has the slot.
    pub fn enter(
        &self,
        volume: &Volume,
        (receiver, id): (PeerName, ReceiverId),
        cancel: CancellationToken,
    ) -> Result<Slot, Arc<Running>> {
        let key = (volume.key.id, id);
        let mut entries = self.lock();
        if let Some(running) = entries.pushes.get(&key) {
            return Err(Arc::clone(running));
        }
        let running = Arc::new(Running::new(volume, receiver, cancel));
        entries.pushes.insert(key, Arc::clone(&running));
        Ok(Slot {
            table: self.clone(),
            key,
            running,
        })
    }

    /// Makes a push that is not listed in the table, for a dry run.
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

    /// Protects a record from reconciliation, which would take it for one left by a crash.
    pub fn protect(&self, push: PushId) -> Protected {
        self.lock().others.insert(push);
        Protected {
            table: self.clone(),
            push,
        }
    }

    /// Holds back the pushes of a volume.
    ///
    /// # Errors
    /// The push that is running; `None` if it is held already.
    pub fn hold(&self, volume: &VolumeName) -> Result<HeldVolume, Option<Arc<Running>>> {
        let mut entries = self.lock();
        let mut running = entries.pushes.values();
        if let Some(running) = running.find(|running| running.volume == *volume) {
            return Err(Some(Arc::clone(running)));
        }
        if !entries.held.insert(volume.clone()) {
            return Err(None);
        }
        Ok(HeldVolume {
            table: self.clone(),
            volume: volume.clone(),
        })
    }

    /// Whether the pushes of a volume are held back.
    pub fn is_held(&self, volume: &VolumeName) -> bool {
        self.lock().held.contains(volume)
    }

    /// Whether the pushes of any volume are held back.
    pub fn holds_any(&self) -> bool {
        !self.lock().held.is_empty()
    }

    /// All listed pushes, sorted by volume and receiver.
    pub fn all(&self) -> Vec<Arc<Running>> {
        let mut all: Vec<_> = self.lock().pushes.values().cloned().collect();
        all.sort_by(|a, b| (&a.volume, &a.receiver).cmp(&(&b.volume, &b.receiver)));
        all
    }

    /// Whether the record of a push is in use.
    pub fn contains(&self, push: PushId) -> bool {
        let entries = self.lock();
        let mut pushes = entries.pushes.values();
        entries.others.contains(&push) || pushes.any(|running| running.push == push)
    }

    /// A running push of a volume, to any receiver. It may build on any sendshot of the volume: copies can have
    /// moved from one receiver to another.
    pub fn of_volume(&self, volume: VolumeId) -> Option<Arc<Running>> {
        let entries = self.lock();
        let found = entries.pushes.iter().find(|((id, _), _)| *id == volume);
        found.map(|(_, running)| Arc::clone(running))
    }

    /// The transfer of a volume to a receiver that this process opened last. For a moment after its push has ended
    /// here, the receiver may not have noticed.
    pub fn last_transfer(&self, volume: VolumeId, receiver: ReceiverId) -> Option<TransferId> {
        let entries = self.lock();
        entries.last_transfers.get(&(volume, receiver)).copied()
    }

    /// Records that a transfer is opened.
    pub fn opens(&self, volume: VolumeId, receiver: ReceiverId, transfer: TransferId) {
        let mut entries = self.lock();
        entries.last_transfers.insert((volume, receiver), transfer);
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.table.lock().pushes.remove(&self.key);
        self.running.over.send_replace(true);
    }
}

/// Holds back the pushes of a volume, until dropped.
#[derive(Debug)]
pub struct HeldVolume {
    table: Table,
    volume: VolumeName,
}

impl Drop for HeldVolume {
    fn drop(&mut self) {
        self.table.lock().held.remove(&self.volume);
    }
}

/// Protects a record in use, until dropped.
#[derive(Debug)]
pub struct Protected {
    table: Table,
    /// The push whose record it is.
    pub push: PushId,
}

impl Drop for Protected {
    fn drop(&mut self) {
        self.table.lock().others.remove(&self.push);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_earlier_stream_counts_for_the_next() {
        let cancel = CancellationToken::new();
        let (volume, receiver) = ("photos".parse().unwrap(), "nas2".parse().unwrap());
        let running = Running::of(volume, "/photos".into(), receiver, cancel);
        for offset in [0, 40] {
            running.resumes_at(offset);
            assert_eq!(running.total(), 0, "the length is not known yet");
            assert_eq!(running.progress(), (offset, offset));
            assert_eq!(running.rate(), 0);
            running.expect(1000);
            running.sent(900);
            running.applied(800);
            assert_eq!((running.total(), running.progress().1), (1000, 800));
        }
    }
}
