//! The register in the state subvolume: the hosts that have written there, and their volumes on this file system.
//! It lies with the data, so that a system that was set up again, or rolled back, finds its volumes again.
//!
//! A disk can come from anywhere, so its register counts for its own file system only, and invalid entries are
//! skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::sync::{Mutex, PoisonError};

use sendshot_model::{SenderId, VolumeId, printable_within};
use sendshot_sys::{durable, subvolume};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::state::journal;
use crate::state::record::Record;
use crate::state::store::StateSubvolume;
use crate::volume::ids::{Binding, Naming};
use sendshot_model::Engine;

const FILE: &str = "register.json";
/// Layout version.
const VERSION: u32 = 1;
/// Most hosts, and most volumes, that are read.
const MOST: usize = 4096;
/// Most receivers of a volume whose own ids for it are read.
const MAX_LABELS: usize = 64;
/// Longest name of a host, in bytes.
const MAX_NAME: usize = 64;

/// Held while a file of a state subvolume is read, changed and written, so that no change is lost.
pub(crate) static WRITING: Mutex<()> = Mutex::new(());

/// The register of a file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    version: u32,
    /// Names of hosts, by the ids of their senders.
    hosts: BTreeMap<SenderId, String>,
    volumes: Vec<Entry>,
}

/// A volume of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    sender: SenderId,
    #[serde(flatten)]
    binding: Binding,
}

impl Entry {
    fn key(&self) -> (SenderId, VolumeId) {
        (self.sender, self.binding.id)
    }

    /// The same volume, found by its subvolume alone: its name belongs to another volume now.
    fn without_name(&self) -> Binding {
        let naming = match self.binding.fsid {
            Some(fsid) => Naming::ByPath {
                name: self.binding.naming.name().clone(),
                place: format!("{fsid}:{}", self.binding.id),
            },
            None => self.binding.naming.clone(),
        };
        Binding {
            naming,
            ..self.binding.clone()
        }
    }
}

impl Default for Register {
    fn default() -> Self {
        Self {
            version: VERSION,
            hosts: BTreeMap::new(),
            volumes: Vec::new(),
        }
    }
}

impl Register {
    /// Reads the register of a file system. A damaged one counts as empty, and is rewritten.
    ///
    /// # Errors
    /// I/O errors; `InvalidData` for one that a newer version wrote.
    pub fn load(state: &StateSubvolume) -> io::Result<Self> {
        match durable::read_json_at(state.root(), OsStr::new(FILE)) {
            Ok(Some(read)) => Self::checked(read, state.top().fsid()),
            Ok(None) => Ok(Self::default()),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(fsid = %state.top().fsid(), "the register of volumes is damaged: {e}");
                Ok(Self::default())
            }
            Err(e) => Err(e),
        }
    }

    /// Parses a register, as [`Register::load`] does from the disk.
    ///
    /// # Errors
    /// `InvalidData`.
    pub fn parse(bytes: &[u8], fsid: Uuid) -> io::Result<Self> {
        Self::checked(serde_json::from_slice(bytes)?, fsid)
    }

    fn checked(mut self, fsid: Uuid) -> io::Result<Self> {
        if self.version != VERSION {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                journal::other_version(self.version, VERSION),
            ));
        }
        let is_of = |fsid: Uuid, binding: &Binding| match &binding.naming {
            Naming::ByPath { place, .. } => place.starts_with(&fsid.to_string()),
            Naming::Configured(_) => true,
        };
        self.volumes
            .retain(|entry| entry.binding.fsid == Some(fsid) && is_of(fsid, &entry.binding));
        self.volumes.truncate(MOST);
        while self.hosts.len() > MOST {
            self.hosts.pop_last();
        }
        for entry in &mut self.volumes {
            while entry.binding.at.len() > MAX_LABELS {
                entry.binding.at.pop_last();
            }
        }
        for name in self.hosts.values_mut() {
            *name = printable_within(name, MAX_NAME);
        }
        Ok(self)
    }

    /// Lists the volumes of a sender, each once: its own first, then those of its former instances (`own`) that
    /// are not its own. `exists` says whether a subvolume is on the file system.
    pub fn volumes_of(
        &self,
        me: SenderId,
        own: impl Fn(SenderId) -> bool,
        exists: impl Fn(Uuid) -> bool,
    ) -> Vec<Binding> {
        let same = self.same_here(me, exists);
        let (mine, former): (Vec<_>, Vec<_>) = self
            .volumes
            .iter()
            .filter(|entry| own(entry.sender) && !same.contains_key(&entry.key()))
            .partition(|entry| entry.sender == me);
        let mut found: Vec<Binding> = Vec::new();
        for entry in mine.into_iter().chain(former) {
            if !found.iter().any(|known| known.id == entry.binding.id) {
                let is_named = found.iter().any(|b| b.naming == entry.binding.naming);
                found.push(match is_named {
                    true => entry.without_name(),
                    false => entry.binding.clone(),
                });
            }
        }
        found
    }

    /// Name of a sender's host, if registered.
    pub fn host(&self, sender: SenderId) -> Option<&str> {
        self.hosts.get(&sender).map(String::as_str)
    }

    /// Registers a host and one of its volumes.
    pub fn note(&mut self, sender: SenderId, host: &str, volume: &Binding) {
        self.hosts.insert(sender, printable_within(host, MAX_NAME));
        let mut own = self
            .volumes
            .iter_mut()
            .filter(|entry| entry.sender == sender);
        match own.find(|entry| entry.binding.id == volume.id) {
            Some(entry) => entry.binding = volume.clone(),
            None => self.volumes.push(Entry {
                sender,
                binding: volume.clone(),
            }),
        }
    }

    /// Forgets all senders but these.
    pub fn keep_only(&mut self, own: impl Fn(SenderId) -> bool) {
        self.hosts.retain(|sender, _| own(*sender));
        self.volumes.retain(|entry| own(entry.sender));
    }

    /// Maps each volume of other senders to this sender's volume that is the same: it has the same subvolume;
    /// or its subvolume is gone and the configured name is the same, as after a rollback.
    fn same_here(
        &self,
        own: SenderId,
        exists: impl Fn(Uuid) -> bool,
    ) -> BTreeMap<(SenderId, VolumeId), VolumeId> {
        let (mine, others): (Vec<&Entry>, Vec<&Entry>) =
            self.volumes.iter().partition(|entry| entry.sender == own);
        let mut same = BTreeMap::new();
        for other in &others {
            let is_it = |mine: &&&Entry| mine.binding.subvolume == other.binding.subvolume;
            if let Some(mine) = mine.iter().find(is_it) {
                same.insert(other.key(), mine.binding.id);
            }
        }
        for other in others {
            let is_configured = matches!(other.binding.naming, Naming::Configured(_));
            if !is_configured || same.contains_key(&other.key()) || exists(other.binding.subvolume)
            {
                continue;
            }
            let has_name = |mine: &&&Entry| mine.binding.naming == other.binding.naming;
            let Some(mine) = mine.iter().find(has_name) else {
                continue;
            };
            // Two volumes of one host mapped to one would be judged as states of one volume.
            let is_another = |((sender, _), id): (&(SenderId, VolumeId), &VolumeId)| {
                *sender == other.sender && *id == mine.binding.id
            };
            if !same.iter().any(is_another) {
                same.insert(other.key(), mine.binding.id);
            }
        }
        same
    }

    /// Adds to the `same` volumes the ids by which the receivers of these records knew them before.
    fn name_at_receivers(
        &mut self,
        same: &BTreeMap<(SenderId, VolumeId), VolumeId>,
        own: SenderId,
        records: &[Record],
    ) {
        for record in records {
            let Some(id) = same.get(&key(record)) else {
                continue;
            };
            let former = self.volumes.iter().find(|entry| entry.key() == key(record));
            let known = former.map(|entry| entry.binding.id_at(record.receiver));
            let mine = self
                .volumes
                .iter_mut()
                .find(|entry| entry.key() == (own, *id));
            if let (Some(known), Some(mine)) = (known, mine) {
                mine.binding.at.entry(record.receiver).or_insert(known);
            }
        }
    }

    /// Makes these volumes of other senders this one's. A name that another of its volumes has stays with that.
    pub fn hand_over(&mut self, to: SenderId, volumes: &BTreeSet<(SenderId, VolumeId)>) {
        let own = self.volumes.iter().filter(|entry| entry.sender == to);
        let names: Vec<(VolumeId, Naming)> = own
            .map(|entry| (entry.binding.id, entry.binding.naming.clone()))
            .collect();
        for entry in &mut self.volumes {
            if volumes.contains(&entry.key()) {
                let (id, naming) = (entry.binding.id, &entry.binding.naming);
                if names
                    .iter()
                    .any(|(other, name)| *other != id && name == naming)
                {
                    entry.binding = entry.without_name();
                }
                entry.sender = to;
            }
        }
        let senders: BTreeSet<SenderId> = self.volumes.iter().map(|entry| entry.sender).collect();
        self.hosts.retain(|sender, _| senders.contains(sender));
        let mut seen = BTreeSet::new();
        self.volumes.retain(|entry| seen.insert(entry.key()));
    }

    /// Writes the register, durably, unless it is unchanged.
    ///
    /// # Errors
    /// I/O errors.
    pub fn store(&self, state: &StateSubvolume) -> io::Result<()> {
        if Self::load(state)? == *self {
            return Ok(());
        }
        durable::write_json_at(state.root(), OsStr::new(FILE), self)
    }
}

/// Lists the volumes of some senders on a file system: from its register, and, for those not in it, from the
/// records of their pushes.
///
/// # Errors
/// I/O errors.
pub fn volumes(
    state: &StateSubvolume,
    me: SenderId,
    own: impl Fn(SenderId) -> bool,
) -> io::Result<Vec<Binding>> {
    let mut register = Register::load(state)?;
    let mut same = register.same_here(me, |uuid| exists(state, uuid));
    same.retain(|(sender, _), _| own(*sender));
    if !same.is_empty() {
        // The same as after adoption.
        let records = journal::records(state.pushes())?;
        register.name_at_receivers(&same, me, &records);
    }
    let mut found = register.volumes_of(me, &own, |uuid| exists(state, uuid));
    // Records do not name their file system, and a copy of a disk has the same records: they are used only where
    // an older version wrote no register.
    if durable::read_at(state.root(), OsStr::new(FILE))?.is_some() {
        return Ok(found);
    }
    let mut newest: BTreeMap<_, Record> = BTreeMap::new();
    for record in journal::records(state.pushes())? {
        let known = found.iter().any(|binding| binding.id == record.volume);
        if known || !own(record.sender) {
            continue;
        }
        match newest.get(&record.volume) {
            Some(other) if other.taken_at >= record.taken_at => {}
            _ => {
                newest.insert(record.volume, record);
            }
        }
    }
    for (id, record) in newest {
        let Some(subvolume) = made_from(state, &record) else {
            continue;
        };
        found.push(Binding {
            id,
            naming: Naming::Configured(record.volume_name),
            subvolume,
            fsid: Some(state.top().fsid()),
            at: BTreeMap::new(),
        });
    }
    Ok(found)
}

/// Whether a subvolume exists. When unsure, it counts as existing.
fn exists(state: &StateSubvolume, subvolume: Uuid) -> bool {
    let found = subvolume::ids_by_uuid(state.top(), subvolume);
    found.map_or(true, |ids| !ids.is_empty())
}

/// Finds the subvolume of which a record's snapshot was taken, by the snapshot itself or by its sendshot.
fn made_from(state: &StateSubvolume, record: &Record) -> Option<Uuid> {
    if let Ok(snapshot) = durable::open_dir(state.snapshots(), &record.snapshot_name()) {
        return subvolume::info(snapshot).ok().map(|info| info.parent_uuid);
    }
    if record.engine == Engine::Kernel {
        return None;
    }
    let sendshot = sendshot_engine::open_at(state.sendshots(), &record.sendshot_name()).ok()?;
    let head = sendshot.head();
    (head.fsid == state.top().fsid()).then_some(head.parent_uuid)
}

/// Makes the records of former instances of this sender its own, and its register's entries with them.
/// Returns how many records there were.
///
/// Steps, and what a crash after each leaves:
///
/// 1. Record the ids by which receivers know those of its volumes that it had before. — Nothing else; it is
///    repeated.
/// 2. Change the records, one by one. — Records of both; the next start changes the rest.
/// 3. Change the register. — Entries of volumes that no record of their sender names, which are never listed.
///
/// # Errors
/// I/O errors.
pub fn adopt(
    state: &StateSubvolume,
    own: SenderId,
    former: impl Fn(&Record) -> bool,
) -> io::Result<usize> {
    let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut register = Register::load(state)?;
    let same = register.same_here(own, |uuid| exists(state, uuid));
    let others = journal::records(state.pushes())?.into_iter();
    let (found, left): (Vec<Record>, Vec<Record>) = others
        .filter(|record| record.sender != own)
        .partition(|record| former(record));
    if found.is_empty() {
        return Ok(0);
    }
    register.name_at_receivers(&same, own, &found);
    register.store(state)?; // 1
    let mut adopted = 0;
    for listed in &found {
        // Read the current record.
        if let Some(record) = journal::find(state.pushes(), listed.push)? {
            let volume = same.get(&key(listed)).copied().unwrap_or(record.volume);
            let record = Record {
                sender: own,
                volume,
                ..record
            };
            record.store(state.pushes())?; // 2
            adopted += 1;
        }
    }
    // An entry stays if other records still name it, those of a receiver that is not paired yet.
    let mut volumes: BTreeSet<_> = found.iter().map(key).collect();
    let left: BTreeSet<_> = left.iter().map(key).collect();
    register.volumes.retain(|entry| {
        let key = entry.key();
        !volumes.contains(&key) || !same.contains_key(&key) || left.contains(&key)
    });
    volumes.retain(|key| !same.contains_key(key));
    register.hand_over(own, &volumes);
    register.store(state)?; // 3
    Ok(adopted)
}

fn key(record: &Record) -> (SenderId, VolumeId) {
    (record.sender, record.volume)
}

/// Name of this host, for other hosts to read.
pub fn host_name() -> String {
    let name = rustix::system::uname();
    printable_within(&name.nodename().to_string_lossy(), MAX_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FSID: Uuid = Uuid::from_u128(5);

    fn binding(name: &str, fsid: Uuid) -> Binding {
        Binding {
            id: VolumeId::generate(),
            naming: Naming::Configured(name.parse().unwrap()),
            subvolume: Uuid::from_u128(9),
            fsid: Some(fsid),
            at: BTreeMap::new(),
        }
    }

    #[test]
    fn a_register_speaks_of_its_own_file_system_only() {
        let (me, mut register) = (SenderId::generate(), Register::default());
        let here = binding("photos", FSID);
        register.note(me, "nas1", &here);
        register.note(me, "nas1", &binding("music", Uuid::from_u128(6)));
        let by_path = Naming::by_path(Uuid::from_u128(6), std::path::Path::new("x"));
        let elsewhere = Binding {
            naming: by_path,
            ..binding("x", FSID)
        };
        register.note(me, "nas1", &elsewhere);
        let read = Register::parse(&serde_json::to_vec(&register).unwrap(), FSID).unwrap();
        assert_eq!(read.volumes_of(me, |sender| sender == me, |_| true), [here]);
        assert_eq!(read.host(me), Some("nas1"));
    }

    #[test]
    fn former_ids_keep_their_volumes() {
        let (me, former) = (SenderId::generate(), SenderId::generate());
        let on = |name: &str, subvolume: u128| Binding {
            subvolume: Uuid::from_u128(subvolume),
            ..binding(name, FSID)
        };
        let before = on("photos", 1);
        // Its name was since given to another subvolume.
        let (other, same) = (on("photos", 2), on("old", 1));
        let mut register = Register::default();
        for (sender, volume) in [(me, &other), (former, &before), (me, &same)] {
            register.note(sender, "nas1", volume);
        }
        let here = register.same_here(me, |_| true);
        assert_eq!(here[&(former, before.id)], same.id);
        let found = register.volumes_of(me, |_| true, |_| true);
        assert_eq!(found, [other, same]);
    }

    #[test]
    fn a_reused_name_hides_no_existing_volume() {
        let (me, former) = (SenderId::generate(), SenderId::generate());
        let on = |name: &str, subvolume: u128| Binding {
            subvolume: Uuid::from_u128(subvolume),
            ..binding(name, FSID)
        };
        let (before, now) = (on("photos", 1), on("photos", 2));
        let mut register = Register::default();
        register.note(former, "nas1", &before);
        register.note(me, "nas1", &now);
        let found = register.volumes_of(me, |_| true, |_| true);
        assert_eq!((found.len(), &found[0]), (2, &now));
        assert_eq!(
            (found[1].id, found[1].subvolume),
            (before.id, before.subvolume)
        );
        assert_ne!(found[1].naming, now.naming);
        // After a rollback its own subvolume is gone: the name identifies it.
        let found = register.volumes_of(me, |_| true, |_| false);
        assert_eq!(found, std::slice::from_ref(&now));
        // Once it is handed over, the name still belongs to the other one.
        register.hand_over(me, &BTreeSet::from([(former, before.id)]));
        let found = register.volumes_of(me, |_| true, |_| true);
        let named = found.iter().filter(|volume| volume.naming == now.naming);
        assert_eq!(named.map(|volume| volume.id).collect::<Vec<_>>(), [now.id]);
    }

    #[test]
    fn recent_segments_are_taken_once() {
        let (me, former) = (SenderId::generate(), SenderId::generate());
        let (mut register, photos) = (Register::default(), binding("photos", FSID));
        register.note(former, "old", &photos);
        register.note(me, "new", &photos);
        register.hand_over(me, &BTreeSet::from([(former, photos.id)]));
        assert_eq!(
            register.volumes_of(me, |sender| sender == me, |_| true),
            [photos]
        );
        assert_eq!(register.host(former), None);
    }

    #[test]
    fn names_of_hosts_are_made_harmless() {
        let (me, mut register) = (SenderId::generate(), Register::default());
        register
            .hosts
            .insert(me, format!("\u{1b}[31m{}", "x".repeat(5000)));
        let read = Register::parse(&serde_json::to_vec(&register).unwrap(), FSID).unwrap();
        let name = read.host(me).unwrap();
        assert!(
            !name.contains('\u{1b}') && name.len() <= MAX_NAME + '…'.len_utf8(),
            "{name}"
        );
    }
}
