//! The register in the state subvolume: which hosts have written there, and which volumes they have on
//! this file system. It lies with the data, so that a system that was set up anew, or rolled back, finds
//! its volumes again.
//!
//! A disk can come from anywhere, so nothing in it is believed of any other file system, and what does not
//! make sense is passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::sync::{Mutex, PoisonError};

use sendshot_model::{SenderId, VolumeId, printable_within};
use sendshot_sys::{durable, subvolume};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::state::engine::Engine;
use crate::state::journal::{self, Record};
use crate::state::state_subvolume::StateSubvolume;
use crate::volume::volume_ids::{Binding, Naming};

/// Its file in the state subvolume.
const FILE: &str = "register.json";
/// Layout version.
const VERSION: u32 = 1;
/// Most hosts, and most volumes, that are listened to.
const MOST: usize = 4096;
/// Most receivers of a volume whose own ids for it are listened to.
const MOST_LABELS: usize = 64;
/// Longest name of a host, in bytes.
const MOST_NAME: usize = 64;

/// Two that read, change and write files of a state subvolume must not lose what the other has written.
pub(crate) static WRITING: Mutex<()> = Mutex::new(());

/// What is registered on a file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    version: u32,
    /// Names of hosts, by their senders' ids.
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
    /// Reads that of a file system. One that is damaged says nothing, and is written anew.
    ///
    /// # Errors
    /// The kernel's; `InvalidData` for one that a newer version wrote.
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

    /// Reads one from its bytes, as [`Register::load`] does from the disk.
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
            while entry.binding.at.len() > MOST_LABELS {
                entry.binding.at.pop_last();
            }
        }
        for name in self.hosts.values_mut() {
            *name = printable_within(name, MOST_NAME);
        }
        Ok(self)
    }

    /// The volumes of a sender, each once: those of its own, and those of what it was before (`own`) that
    /// it has not found again by itself since.
    pub fn volumes_of(&self, me: SenderId, own: impl Fn(SenderId) -> bool) -> Vec<Binding> {
        let mut found: Vec<Binding> = Vec::new();
        let same = self.same_here(me);
        let is_known_here =
            |entry: &Entry| entry.sender != me && same.contains_key(&entry.binding.id);
        let own = self.volumes.iter().filter(|entry| own(entry.sender));
        for entry in own.filter(|entry| !is_known_here(entry)) {
            if !found.iter().any(|known| known.id == entry.binding.id) {
                found.push(entry.binding.clone());
            }
        }
        found
    }

    /// What a sender's host is called, if it has said.
    pub fn host(&self, sender: SenderId) -> Option<&str> {
        self.hosts.get(&sender).map(String::as_str)
    }

    /// Registers a host and one of its volumes.
    pub fn note(&mut self, sender: SenderId, host: &str, volume: &Binding) {
        self.hosts.insert(sender, printable_within(host, MOST_NAME));
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

    /// For each volume of other senders that has the subvolume or the configured name of one of this
    /// sender's: what that is here.
    fn same_here(&self, own: SenderId) -> BTreeMap<VolumeId, VolumeId> {
        let (mine, others): (Vec<_>, Vec<_>) =
            self.volumes.iter().partition(|entry| entry.sender == own);
        let find = |is_it: &dyn Fn(&Binding) -> bool| {
            let mut mine = mine.iter().map(|entry| &entry.binding);
            mine.find(|mine| is_it(mine)).map(|mine| mine.id)
        };
        let here = |other: &&Entry| {
            let other = &other.binding;
            let same_name = |mine: &Binding| {
                matches!(mine.naming, Naming::Configured(_)) && mine.naming == other.naming
            };
            // A name can have been given to another subvolume since.
            let found = find(&|mine| mine.subvolume == other.subvolume);
            Some((other.id, found.or_else(|| find(&same_name))?))
        };
        others.iter().filter_map(here).collect()
    }

    /// Makes these volumes of other senders this one's.
    pub fn hand_over(&mut self, to: SenderId, volumes: &BTreeSet<(SenderId, VolumeId)>) {
        for entry in &mut self.volumes {
            if volumes.contains(&(entry.sender, entry.binding.id)) {
                entry.sender = to;
            }
        }
        let senders: BTreeSet<SenderId> = self.volumes.iter().map(|entry| entry.sender).collect();
        self.hosts.retain(|sender, _| senders.contains(sender));
        let mut seen = BTreeSet::new();
        self.volumes
            .retain(|entry| seen.insert((entry.sender, entry.binding.id)));
    }

    /// Writes it, durably, unless it is so already.
    ///
    /// # Errors
    /// The kernel's.
    pub fn store(&self, state: &StateSubvolume) -> io::Result<()> {
        if Self::load(state)? == *self {
            return Ok(());
        }
        durable::write_json_at(state.root(), OsStr::new(FILE), self)
    }
}

/// What a file system says of the volumes of some senders: its register, and, for those that it does not
/// name, the records of their pushes.
///
/// # Errors
/// The kernel's.
pub fn volumes(
    state: &StateSubvolume,
    me: SenderId,
    own: impl Fn(SenderId) -> bool,
) -> io::Result<Vec<Binding>> {
    let mut found = Register::load(state)?.volumes_of(me, &own);
    // Records do not say of which file system they are, and a copy of a disk has the same: they are asked
    // only where an older version wrote no register.
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

/// The subvolume that the snapshot of a record was taken of, by its sendshot, or by itself.
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
/// # Errors
/// The kernel's.
pub fn adopt(
    state: &StateSubvolume,
    own: SenderId,
    former: impl Fn(&Record) -> bool,
) -> io::Result<usize> {
    let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut adopted = 0;
    let mut volumes = BTreeSet::new();
    let mut register = Register::load(state)?;
    let same = register.same_here(own);
    for listed in journal::records(state.pushes())? {
        if listed.sender == own || !former(&listed) {
            continue;
        }
        // As it is now.
        if let Some(record) = journal::find(state.pushes(), listed.push)? {
            volumes.insert((record.sender, record.volume));
            let record = Record {
                sender: own,
                volume: same.get(&record.volume).copied().unwrap_or(record.volume),
                ..record
            };
            record.store(state.pushes())?;
            adopted += 1;
        }
    }
    let is_adopted = |entry: &Entry| volumes.contains(&(entry.sender, entry.binding.id));
    register
        .volumes
        .retain(|entry| !is_adopted(entry) || !same.contains_key(&entry.binding.id));
    register.hand_over(own, &volumes);
    register.store(state)?;
    Ok(adopted)
}

/// Name of this host, for others to read.
pub fn host_name() -> String {
    let name = rustix::system::uname();
    printable_within(&name.nodename().to_string_lossy(), MOST_NAME)
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
        assert_eq!(read.volumes_of(me, |sender| sender == me), [here]);
        assert_eq!(read.host(me), Some("nas1"));
    }

    #[test]
    fn what_this_host_was_before_has_the_volumes_of_the_same_subvolumes() {
        let (me, former) = (SenderId::generate(), SenderId::generate());
        let on = |name: &str, subvolume: u128| Binding {
            subvolume: Uuid::from_u128(subvolume),
            ..binding(name, FSID)
        };
        let before = on("photos", 1);
        // Its name was given to another subvolume since.
        let (other, same) = (on("photos", 2), on("old", 1));
        let mut register = Register::default();
        for (sender, volume) in [(me, &other), (former, &before), (me, &same)] {
            register.note(sender, "nas1", volume);
        }
        assert_eq!(register.same_here(me)[&before.id], same.id);
        assert_eq!(register.volumes_of(me, |_| true), [other, same]);
    }

    #[test]
    fn what_is_handed_over_is_there_once() {
        let (me, former) = (SenderId::generate(), SenderId::generate());
        let (mut register, photos) = (Register::default(), binding("photos", FSID));
        register.note(former, "old", &photos);
        register.note(me, "new", &photos);
        register.hand_over(me, &BTreeSet::from([(former, photos.id)]));
        assert_eq!(register.volumes_of(me, |sender| sender == me), [photos]);
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
            !name.contains('\u{1b}') && name.len() <= MOST_NAME + '…'.len_utf8(),
            "{name}"
        );
    }
}
