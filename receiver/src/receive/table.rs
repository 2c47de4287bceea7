//! The running transfers, one per volume, and the transfers whose connection broke and which wait, with all
//! that was applied, for their senders to come back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sendshot_model::{PeerName, TransferId, VolumeId, VolumeName};
use sendshot_proto::resume::Point;
use sendshot_proto::transfer::Begin;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::receive::incoming::IncomingTransfer;
use crate::store::volumes::Caller;

/// How long a transfer waits for its sender before everything after its last checkpoint is deleted: longer than a
/// sender retries, but not so long that a disk cannot be unmounted all day.
pub const PARK_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Longest wait for a thread whose connection is dead to finish: it applies at most what has arrived, or commits.
const REST_DEADLINE: Duration = Duration::from_secs(60);

/// Most transfers of one sender that wait at a time.
const MAX_PARKED: usize = 64;

type Key = (PeerName, VolumeId);

/// The table of transfers.
#[derive(Debug, Clone, Default)]
pub struct Transfers(Arc<Mutex<HashMap<Key, Entry>>>);

#[derive(Debug)]
enum Entry {
    Running(Running),
    Waiting(Box<IncomingTransfer>, Instant),
}

/// A transfer that is being applied.
#[derive(Debug, Clone)]
struct Running {
    transfer: TransferId,
    volume: VolumeName,
    uuid: Uuid,
    applied: Arc<AtomicU64>,
    made: Arc<AtomicU64>,
    interrupt: CancellationToken,
    over: watch::Sender<bool>,
}

/// A volume's slot in the table, freed on drop.
#[derive(Debug)]
pub struct Slot {
    table: Transfers,
    key: Key,
    running: Running,
}

/// A slot, and the transfer that waited in it.
#[derive(Debug)]
pub struct Entered {
    pub slot: Slot,
    /// What was applied before the connection broke; possibly of another transfer.
    pub waiting: Option<Box<IncomingTransfer>>,
}

/// The status of a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferStatus {
    pub transfer: TransferId,
    pub sender: PeerName,
    pub volume: VolumeName,
    /// UUID of the state in the stream.
    pub uuid: Uuid,
    pub applied: u64,
    /// The point at which it can be resumed, if it waits for its sender.
    pub parked_at: Option<Point>,
}

impl Transfers {
    /// Takes the slot of a volume, unless a transfer runs in it.
    pub fn enter(&self, caller: &Caller, begin: &Begin) -> Option<Entered> {
        let key = key(caller, begin.volume.id);
        let mut table = self.lock();
        if matches!(table.get(&key), Some(Entry::Running(_))) {
            return None;
        }
        let running = Running {
            transfer: begin.transfer,
            volume: begin.volume.name.clone(),
            uuid: begin.uuid,
            applied: Arc::default(),
            made: Arc::default(),
            interrupt: CancellationToken::new(),
            over: watch::Sender::new(false),
        };
        let before = table.insert(key.clone(), Entry::Running(running.clone()));
        let waiting = match before {
            Some(Entry::Waiting(incoming, _)) => Some(incoming),
            Some(Entry::Running(_)) | None => None,
        };
        let slot = Slot {
            table: self.clone(),
            key,
            running,
        };
        Some(Entered { slot, waiting })
    }

    /// Whether a transfer of a volume is running.
    pub fn has(&self, caller: &Caller, volume: VolumeId) -> bool {
        let table = self.lock();
        matches!(table.get(&key(caller, volume)), Some(Entry::Running(_)))
    }

    /// Whether a transfer of a volume runs or waits for its sender; of any volume of the sender, if the id is not known.
    pub fn is_at_work(&self, sender: &str, volume: Option<VolumeId>) -> bool {
        is_at_work(&self.lock(), sender, volume)
    }

    /// Does something while no transfer of the volume runs or waits, and none can begin; `None` if one does.
    pub fn unless_at_work<T>(
        &self,
        sender: &str,
        volume: Option<VolumeId>,
        work: impl FnOnce() -> T,
    ) -> Option<T> {
        let table = self.lock();
        (!is_at_work(&table, sender, volume)).then(work)
    }

    /// Ends the call of a transfer whose sender reports it as dead, and waits until its thread has finished.
    pub async fn interrupt(&self, caller: &Caller, volume: VolumeId, transfer: TransferId) {
        let over = match self.lock().get(&key(caller, volume)) {
            Some(Entry::Running(running)) if running.transfer == transfer => {
                running.interrupt.cancel();
                running.over.subscribe()
            }
            Some(Entry::Running(_) | Entry::Waiting(..)) | None => return,
        };
        let mut over = over;
        // A transfer that does not end in time is reported as at work.
        let _ = tokio::time::timeout(REST_DEADLINE, over.wait_for(|over| *over)).await;
    }

    /// The status of the transfer of a volume, if there is one.
    pub fn status_of(&self, caller: &Caller, volume: VolumeId) -> Option<TransferStatus> {
        let key = key(caller, volume);
        self.lock().get(&key).map(|entry| status_of(&key, entry))
    }

    /// The statuses of all transfers.
    pub fn statuses(&self) -> Vec<TransferStatus> {
        self.lock()
            .iter()
            .map(|(key, entry)| status_of(key, entry))
            .collect()
    }

    /// How many transfers of a sender run or wait, and how many bytes they have applied and allocated together.
    pub fn of_sender(&self, caller: &Caller) -> (usize, u64) {
        let table = self.lock();
        let own = table.iter().filter(|(key, _)| key.0 == caller.name);
        own.fold((0, 0), |(pushes, bytes), (_, entry)| {
            let (applied, made) = match entry {
                Entry::Running(running) => (
                    running.applied.load(Ordering::Relaxed),
                    running.made.load(Ordering::Relaxed),
                ),
                Entry::Waiting(incoming, _) => (incoming.offset(), incoming.made()),
            };
            (
                pushes + 1,
                bytes.saturating_add(applied).saturating_add(made),
            )
        })
    }

    /// Whether no transfer is running.
    pub fn is_idle(&self) -> bool {
        let table = self.lock();
        !table
            .values()
            .any(|entry| matches!(entry, Entry::Running(_)))
    }

    /// Removes the transfers that have waited so long for their senders. Dropping one deletes its staging,
    /// which blocks.
    pub fn take_parked(&self, longer_than: Duration) -> Vec<Box<IncomingTransfer>> {
        let mut table = self.lock();
        let over: Vec<Key> = table
            .iter()
            .filter(|(_, entry)| {
                matches!(entry, Entry::Waiting(_, since) if since.elapsed() >= longer_than)
            })
            .map(|(key, _)| key.clone())
            .collect();
        over.iter()
            .filter_map(|key| match table.remove(key) {
                Some(Entry::Waiting(incoming, _)) => Some(incoming),
                Some(Entry::Running(_)) | None => None,
            })
            .collect()
    }

    /// Removes the waiting transfers of a sender.
    pub fn take_parked_of(&self, sender: &PeerName) -> Vec<Box<IncomingTransfer>> {
        let mut table = self.lock();
        let waits =
            |key: &Key, entry: &Entry| key.0 == *sender && matches!(entry, Entry::Waiting(..));
        let taken = table.extract_if(|key, entry| waits(key, entry));
        taken
            .filter_map(|(_, entry)| match entry {
                Entry::Waiting(incoming, _) => Some(incoming),
                Entry::Running(_) => None,
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_at_work(table: &HashMap<Key, Entry>, sender: &str, volume: Option<VolumeId>) -> bool {
    let mut keys = table.keys();
    keys.any(|(name, id)| name.as_str() == sender && volume.is_none_or(|volume| volume == *id))
}

fn key(caller: &Caller, volume: VolumeId) -> Key {
    (caller.name.clone(), volume)
}

fn status_of(key: &Key, entry: &Entry) -> TransferStatus {
    let sender = key.0.clone();
    match entry {
        Entry::Running(running) => TransferStatus {
            sender,
            transfer: running.transfer,
            volume: running.volume.clone(),
            uuid: running.uuid,
            applied: running.applied.load(Ordering::Relaxed),
            parked_at: None,
        },
        Entry::Waiting(incoming, _) => TransferStatus {
            sender,
            transfer: incoming.transfer(),
            volume: incoming.begin().volume.name.clone(),
            uuid: incoming.begin().uuid,
            applied: incoming.offset(),
            parked_at: incoming.point(),
        },
    }
}

impl Slot {
    pub fn table(&self) -> &Transfers {
        &self.table
    }

    /// Records how far the transfer is, and the bytes that it has allocated beyond those of its stream.
    pub fn applied(&self, offset: u64, made: u64) {
        self.running.applied.store(offset, Ordering::Relaxed);
        self.running.made.store(made, Ordering::Relaxed);
    }

    /// Is cancelled when the sender reports that the connection is dead.
    pub fn interrupted(&self) -> CancellationToken {
        self.running.interrupt.clone()
    }

    /// Replaces the running transfer by its waiting one; returns the sender's longest waiting transfer if the
    /// sender has too many: each holds descriptors.
    pub fn wait_for_sender(self, incoming: Box<IncomingTransfer>) -> Option<Box<IncomingTransfer>> {
        let mut table = self.table.lock();
        let entry = Entry::Waiting(incoming, Instant::now());
        table.insert(self.key.clone(), entry);
        let waiting = table.iter().filter_map(|(key, entry)| match entry {
            Entry::Waiting(_, since) if key.0 == self.key.0 => Some((*since, key.clone())),
            Entry::Waiting(..) | Entry::Running(_) => None,
        });
        let mut waiting: Vec<_> = waiting.collect();
        if waiting.len() <= MAX_PARKED {
            return None;
        }
        waiting.sort();
        let (_, oldest) = waiting.swap_remove(0);
        match table.remove(&oldest) {
            Some(Entry::Waiting(incoming, _)) => Some(incoming),
            Some(Entry::Running(_)) | None => None,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        // Another transfer may have taken the slot of a waiting one.
        let ours = |entry: &Entry| match entry {
            Entry::Running(running) => Arc::ptr_eq(&running.applied, &self.running.applied),
            Entry::Waiting(..) => false,
        };
        if table.get(&self.key).is_some_and(ours) {
            table.remove(&self.key);
        }
        drop(table);
        self.running.over.send_replace(true);
    }
}
