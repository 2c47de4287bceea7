//! The ids of volumes: generated once, then found by name or by subvolume.
//!
//! A volume is bound to its name and to its subvolume. The subvolume is identified by its UUID and the file
//! system's id, since a copy of a disk has the same UUIDs. Either finds the volume: a rename in the
//! configuration keeps the subvolume, a rollback to a snapshot keeps the name. If the two find different
//! volumes, nothing is guessed.
//!
//! The disk's own list ([`crate::volume::register`]) takes precedence over the list in the state directory, which
//! can be lost, or be older than the disk.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use sendshot_model::{ReceiverId, VolumeId, VolumeName};
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// File in the state directory.
const FILE: &str = "volumes.json";

/// The name of a volume, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Naming {
    /// A name in the configuration.
    Configured(VolumeName),
    /// A name made from the path from the top level. Different paths can make one name, so the place counts.
    ByPath {
        /// The flattened path.
        name: VolumeName,
        /// File system and path; see [`Naming::by_path`].
        place: String,
    },
}

impl Naming {
    /// The naming of an unconfigured volume at `path` from the top level of `fsid`.
    pub fn by_path(fsid: Uuid, path: &Path) -> Self {
        Self::ByPath {
            name: VolumeName::from_top_path(path),
            place: format!("{fsid}:{}", path.as_os_str().as_bytes().escape_ascii()),
        }
    }

    pub fn name(&self) -> &VolumeName {
        match self {
            Self::Configured(name) | Self::ByPath { name, .. } => name,
        }
    }
}

/// A volume that was pushed, or planned in a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Its id, which never changes.
    pub id: VolumeId,
    /// Its name when it was last used.
    pub naming: Naming,
    /// UUID of its subvolume when it was last used.
    pub subvolume: Uuid,
    /// Id of its file system then; `None` if an older version wrote it.
    #[serde(default)]
    pub fsid: Option<Uuid>,
    /// The ids by which receivers know it, where their labels have another one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub at: BTreeMap<ReceiverId, VolumeId>,
}

impl Binding {
    /// The id by which a receiver knows it.
    pub fn id_at(&self, receiver: ReceiverId) -> VolumeId {
        self.at.get(&receiver).copied().unwrap_or(self.id)
    }

    fn is_subvolume(&self, place: &VolumeLocation) -> bool {
        self.subvolume == place.subvolume && self.fsid.is_none_or(|fsid| fsid == place.fsid)
    }
}

/// Location of a subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeLocation {
    /// Id of its file system.
    pub fsid: Uuid,
    /// Whether the file system has this id only until it is unmounted: a copy of a disk, mounted beside the disk.
    pub passing: bool,
    /// UUID of the subvolume.
    pub subvolume: Uuid,
}

/// Where a volume is looked up, besides this list.
#[derive(Debug, Clone, Copy)]
pub struct KnownBindings<'a> {
    /// The disk's own list of its volumes.
    pub disk: &'a [Binding],
    pub configured: &'a [VolumeName],
}

/// Why a volume cannot be bound to an id.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Name and UUID find different volumes.
    #[error(
        "the name `{name}` belongs to another volume than its subvolume {subvolume}, which was pushed as `{other}`"
    )]
    Conflict {
        /// The requested name.
        name: VolumeName,
        /// UUID of the subvolume found under it.
        subvolume: Uuid,
        /// The earlier name of this subvolume.
        other: VolumeName,
    },
    /// Two names are configured for one subvolume.
    #[error("`{name}` and `{other}` are the same subvolume {subvolume} of file system {fsid}")]
    Twice {
        /// The requested name.
        name: VolumeName,
        other: VolumeName,
        subvolume: Uuid,
        fsid: Uuid,
    },
    /// A copy of a disk is mounted beside the disk.
    #[error(
        "the file system of `{name}` is a copy of the one of `{other}`, byte for byte: it has another id ({fsid}) only as long as it is mounted"
    )]
    Clone {
        /// The requested name.
        name: VolumeName,
        /// The volume with the same subvolume.
        other: VolumeName,
        /// The id that its file system has now.
        fsid: Uuid,
    },
    /// The list could not be read or written.
    #[error("cannot read or write the list of volumes")]
    Io(#[from] io::Error),
}

/// The durable list of volumes in the state directory.
#[derive(Debug)]
pub struct VolumeIds {
    path: PathBuf,
    bindings: Mutex<Vec<Binding>>,
}

impl VolumeIds {
    /// Reads the list of a state directory.
    ///
    /// # Errors
    /// I/O errors, or `InvalidData` for a damaged file.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(FILE);
        let bindings = durable::read_json(&path)?.unwrap_or_default();
        Ok(Self {
            path,
            bindings: Mutex::new(bindings),
        })
    }

    /// Finds the volume of a subvolume, without binding it.
    pub fn of_subvolume(&self, place: &VolumeLocation, disk: &[Binding]) -> Option<Binding> {
        let bindings = merge(&self.lock(), disk, place.fsid);
        bindings.into_iter().find(|b| b.is_subvolume(place))
    }

    /// Finds the volume that used a name last.
    pub fn by_naming(&self, naming: &Naming) -> Option<Binding> {
        let bindings = self.lock();
        bindings.iter().find(|b| b.naming == *naming).cloned()
    }

    /// Finds the volume that used a name last, in the list of a disk or in this one, without binding it.
    pub fn merged_by_naming(
        &self,
        naming: &Naming,
        disk: &[Binding],
        fsid: Uuid,
    ) -> Option<Binding> {
        let bindings = merge(&self.lock(), disk, fsid);
        bindings.into_iter().find(|b| b.naming == *naming)
    }

    /// Finds the volume of this name and subvolume; updates the binding where one of them changed, and makes one if
    /// there is none.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn bind(
        &self,
        naming: Naming,
        place: &VolumeLocation,
        known: KnownBindings<'_>,
    ) -> Result<Binding, Error> {
        let mut bindings = self.lock();
        let mut merged = merge(&bindings, known.disk, place.fsid);
        let found = resolve(&mut merged, naming, place, known.configured)?;
        // Only this entry of the disk's list is taken over.
        let stays = |known: &Binding| {
            let same = known.naming == found.naming || known.subvolume == found.subvolume;
            let here = known.fsid.is_none() || known.fsid == found.fsid;
            known.id != found.id && !(here && same)
        };
        let mut changed: Vec<Binding> = bindings.iter().filter(|b| stays(b)).cloned().collect();
        changed.push(found.clone());
        changed.sort_by_key(|binding| binding.id);
        self.replace(&mut bindings, changed)?;
        Ok(found)
    }

    /// Whether an id is free for a receiver to know `volume` by: no other volume has it.
    pub fn is_free(&self, id: VolumeId, volume: VolumeId) -> bool {
        let bindings = self.lock();
        let mut others = bindings.iter().filter(|b| b.id != volume);
        !others.any(|b| b.id == id || b.at.values().any(|other| *other == id))
    }

    /// Records that a receiver knows a volume by the id in its own label. Returns the new binding.
    ///
    /// # Errors
    /// I/O errors; nothing is recorded then.
    pub fn take_label(
        &self,
        volume: VolumeId,
        receiver: ReceiverId,
        label: VolumeId,
    ) -> io::Result<Option<Binding>> {
        let mut bindings = self.lock();
        let mut changed = bindings.clone();
        let mut others = changed.iter().filter(|b| b.id != volume);
        if others.any(|b| b.id == label || b.at.values().any(|other| *other == label)) {
            return Err(io::Error::other(
                "another volume has taken this id just now; push again",
            ));
        }
        let Some(binding) = changed.iter_mut().find(|b| b.id == volume) else {
            return Ok(None);
        };
        binding.at.insert(receiver, label);
        let binding = binding.clone();
        self.replace(&mut bindings, changed)?;
        Ok(Some(binding))
    }

    fn replace(&self, bindings: &mut Vec<Binding>, changed: Vec<Binding>) -> io::Result<()> {
        if changed != *bindings {
            durable::write_json(&self.path, &changed)?;
            *bindings = changed;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Binding>> {
        self.bindings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Merges the lists: the disk's own entries first, then other known ones that do not contradict them.
fn merge(known: &[Binding], disk: &[Binding], fsid: Uuid) -> Vec<Binding> {
    // An id belongs to one volume. The id of another volume on this host, on whatever disk, is not taken from a
    // disk, which can come from anywhere.
    let is_taken = |told: &&Binding| {
        known.iter().any(|known| {
            let elsewhere = known.fsid.is_some_and(|known| known != fsid);
            (known.id == told.id && elsewhere)
                || (known.id != told.id && known.at.values().any(|id| *id == told.id))
        })
    };
    let disk: Vec<Binding> = disk
        .iter()
        .filter(|told| !is_taken(told))
        .cloned()
        .collect();
    let contradicts = |known: &Binding| {
        let here = known.fsid.is_none_or(|known| known == fsid);
        disk.iter().any(|told| {
            let same = told.naming == known.naming || told.subvolume == known.subvolume;
            told.id == known.id || (here && same)
        })
    };
    let rest = known.iter().filter(|known| !contradicts(known));
    disk.iter().chain(rest).cloned().collect()
}

fn resolve(
    bindings: &mut Vec<Binding>,
    naming: Naming,
    place: &VolumeLocation,
    configured: &[VolumeName],
) -> Result<Binding, Error> {
    let still_configured = |binding: &Binding| match &binding.naming {
        Naming::Configured(name) => configured.contains(name),
        Naming::ByPath { .. } => false,
    };
    let by_name = bindings.iter().position(|b| b.naming == naming);
    // Two bindings of one subvolume come from a time when this host did not know its history.
    let by_uuid = match by_name {
        Some(at) if bindings[at].is_subvolume(place) => Some(at),
        _ => bindings.iter().position(|b| b.is_subvolume(place)),
    };
    if place.passing {
        let is_original = |b: &&Binding| b.subvolume == place.subvolume && b.naming != naming;
        if let Some(original) = bindings.iter().find(is_original) {
            return Err(Error::Clone {
                name: naming.name().clone(),
                other: original.naming.name().clone(),
                fsid: place.fsid,
            });
        }
    }
    let at = match (by_name, by_uuid) {
        // The configured name takes precedence; a path is only another way to the volume.
        (_, Some(uuid)) if still_configured(&bindings[uuid]) && bindings[uuid].naming != naming => {
            if let Naming::Configured(name) = naming {
                return Err(Error::Twice {
                    name,
                    other: bindings[uuid].naming.name().clone(),
                    subvolume: place.subvolume,
                    fsid: place.fsid,
                });
            }
            return Ok(bindings[uuid].clone());
        }
        (Some(name), Some(uuid)) if name != uuid => {
            return Err(Error::Conflict {
                name: naming.name().clone(),
                subvolume: place.subvolume,
                other: bindings[uuid].naming.name().clone(),
            });
        }
        (Some(at), _) | (None, Some(at)) => at,
        (None, None) => {
            bindings.push(Binding {
                id: VolumeId::generate(),
                naming: naming.clone(),
                subvolume: place.subvolume,
                fsid: Some(place.fsid),
                at: BTreeMap::new(),
            });
            bindings.len() - 1
        }
    };
    bindings[at].naming = naming;
    bindings[at].subvolume = place.subvolume;
    bindings[at].fsid = Some(place.fsid);
    Ok(bindings[at].clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FSID: Uuid = Uuid::from_u128(100);

    fn configured(name: &str) -> Naming {
        Naming::Configured(name.parse().unwrap())
    }

    fn place(subvolume: u128) -> VolumeLocation {
        VolumeLocation {
            fsid: FSID,
            passing: false,
            subvolume: Uuid::from_u128(subvolume),
        }
    }

    fn bind(bindings: &mut Vec<Binding>, name: &str, subvolume: u128) -> Result<Binding, Error> {
        resolve(bindings, configured(name), &place(subvolume), &[])
    }

    #[test]
    fn a_volume_keeps_its_id_across_renames_and_rollbacks() {
        let mut bindings = Vec::new();
        let id = bind(&mut bindings, "photos", 1).unwrap().id;
        assert_eq!(bind(&mut bindings, "pictures", 1).unwrap().id, id);
        assert_eq!(bind(&mut bindings, "pictures", 2).unwrap().id, id);
        assert_eq!(bindings.len(), 1);
    }

    #[test]
    fn a_name_and_a_subvolume_of_different_volumes_are_a_conflict() {
        let mut bindings = Vec::new();
        bind(&mut bindings, "a", 1).unwrap();
        bind(&mut bindings, "b", 2).unwrap();
        let before = bindings.clone();
        let conflict = bind(&mut bindings, "a", 2);
        assert!(matches!(conflict, Err(Error::Conflict { other, .. }) if other.as_str() == "b"));
        assert_eq!(bindings, before);
    }

    #[test]
    fn a_configured_name_is_not_a_path_name() {
        let mut bindings = Vec::new();
        let by_path = Naming::by_path(FSID, Path::new("srv"));
        let a = bind(&mut bindings, "srv", 1).unwrap();
        let b = resolve(&mut bindings, by_path, &place(2), &[]).unwrap();
        assert_ne!(a.id, b.id);
    }

    #[test]
    fn two_paths_that_flatten_to_one_name_are_two_volumes() {
        let mut bindings = Vec::new();
        let mut volume = |path: &str, subvolume| {
            let naming = Naming::by_path(FSID, Path::new(path));
            resolve(&mut bindings, naming, &place(subvolume), &[]).unwrap()
        };
        let a = volume("a/data", 1);
        let b = volume("a-data", 2);
        assert_ne!(a.id, b.id);
        assert_eq!(volume("a-data", 3).id, b.id);
    }

    #[test]
    fn a_rename_needs_an_unconfigured_old_name() {
        let mut bindings = Vec::new();
        let names = ["photos", "copy"].map(|name| name.parse().unwrap());
        let id = bind(&mut bindings, "photos", 1).unwrap().id;
        let twice = resolve(&mut bindings, configured("copy"), &place(1), &names);
        assert!(matches!(twice, Err(Error::Twice { other, .. }) if other.as_str() == "photos"));
        let by_path = Naming::by_path(FSID, Path::new("elsewhere/photos"));
        let same = resolve(&mut bindings, by_path, &place(1), &names).unwrap();
        assert_eq!((same.id, same.naming), (id, configured("photos")));
        let renamed = resolve(&mut bindings, configured("copy"), &place(1), &names[1..]);
        assert_eq!(renamed.unwrap().id, id);
    }

    #[test]
    fn the_same_subvolume_on_a_copy_of_the_disk_is_another_volume() {
        let mut bindings = Vec::new();
        let original = bind(&mut bindings, "photos", 1).unwrap();
        let mut copy = VolumeLocation {
            fsid: Uuid::from_u128(101),
            passing: true,
            ..place(1)
        };
        let refused = resolve(&mut bindings, configured("copy"), &copy, &[]);
        assert!(matches!(refused, Err(Error::Clone { other, .. }) if other.as_str() == "photos"));
        copy.passing = false;
        let copied = resolve(&mut bindings, configured("copy"), &copy, &[]).unwrap();
        assert_ne!(copied.id, original.id);
        assert_eq!(bind(&mut bindings, "photos", 1).unwrap().id, original.id);
    }

    #[test]
    fn the_disk_precedes_the_hosts_list() {
        let mut told = Vec::new();
        let on_disk = bind(&mut told, "photos", 1).unwrap();
        for (name, subvolume) in [("photos", 1), ("photos", 7), ("pictures", 1)] {
            let mut known = Vec::new();
            bind(&mut known, name, subvolume).unwrap();
            let music = bind(&mut known, "music", 9).unwrap();
            let mut merged = merge(&known, &told, FSID);
            assert_eq!(bind(&mut merged, "photos", 1).unwrap().id, on_disk.id);
            assert_eq!(bind(&mut merged, "music", 9).unwrap().id, music.id);
            assert_eq!(merged.len(), 2);
        }
    }

    #[test]
    fn other_disks_precede_a_disk_that_contradicts() {
        let mut told = Vec::new();
        bind(&mut told, "photos", 1).unwrap();
        let elsewhere = Binding {
            fsid: Some(Uuid::from_u128(101)),
            id: VolumeId::generate(),
            ..told[0].clone()
        };
        let merged = merge(std::slice::from_ref(&elsewhere), &told, FSID);
        assert_eq!(merged, [told[0].clone(), elsewhere]);
    }
}
