//! The ids of volumes: generated once, found again by name or by subvolume UUID.
//!
//! A volume is bound to its name and to the UUID of its subvolume. Either finds it: a rename in
//! the configuration keeps the UUID, a rollback to a snapshot keeps the name. When the two find
//! different volumes, nothing is guessed.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use sendshot_model::{VolumeId, VolumeName};
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// File in the state directory.
const FILE: &str = "volumes.json";

/// What a volume is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Naming {
    /// By the configuration.
    Configured(VolumeName),
    /// By its path from the top level. Different paths can make one name, so it is the place
    /// that counts.
    ByPath {
        /// The path, flattened.
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

    /// The name itself.
    pub fn name(&self) -> &VolumeName {
        match self {
            Self::Configured(name) | Self::ByPath { name, .. } => name,
        }
    }
}

/// A volume that was pushed or planned once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Its id, for ever.
    pub id: VolumeId,
    /// Its name when it was last used.
    pub naming: Naming,
    /// UUID of its subvolume when it was last used.
    pub subvolume: Uuid,
}

/// Why a volume has no id.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Name and UUID find different volumes.
    #[error(
        "the name `{name}` belongs to another volume than its subvolume {subvolume}, which was pushed as `{other}`"
    )]
    Conflict {
        /// The name that was used.
        name: VolumeName,
        /// The subvolume that was found under it.
        subvolume: Uuid,
        /// What this subvolume was called before.
        other: VolumeName,
    },
    /// The list could not be read or written.
    #[error("keep the list of volumes")]
    Io(#[from] io::Error),
}

/// The durable list of volumes.
#[derive(Debug)]
pub struct VolumeIds {
    path: PathBuf,
    bindings: Mutex<Vec<Binding>>,
}

impl VolumeIds {
    /// Reads the list of a state directory.
    ///
    /// # Errors
    /// The kernel's, or `InvalidData` for a damaged file.
    pub fn load(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(FILE);
        let bindings = durable::read_json(&path)?.unwrap_or_default();
        Ok(Self {
            path,
            bindings: Mutex::new(bindings),
        })
    }

    /// The volume bound to a subvolume UUID, if there is one.
    pub fn by_subvolume(&self, subvolume: Uuid) -> Option<Binding> {
        let bindings = self.lock();
        bindings.iter().find(|b| b.subvolume == subvolume).cloned()
    }

    /// The volume that goes by this name, if there is one.
    pub fn by_naming(&self, naming: &Naming) -> Option<Binding> {
        let bindings = self.lock();
        bindings.iter().find(|b| b.naming == *naming).cloned()
    }

    /// The volume of this name and subvolume, bound anew where one of them changed, made if
    /// there is none.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn bind(&self, naming: Naming, subvolume: Uuid) -> Result<Binding, Error> {
        let mut bindings = self.lock();
        let mut changed = bindings.clone();
        let found = resolve(&mut changed, naming, subvolume)?;
        if changed != *bindings {
            durable::write_json(&self.path, &changed)?;
            *bindings = changed;
        }
        Ok(found)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Binding>> {
        self.bindings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn resolve(bindings: &mut Vec<Binding>, naming: Naming, subvolume: Uuid) -> Result<Binding, Error> {
    let by_name = bindings.iter().position(|b| b.naming == naming);
    let by_uuid = bindings.iter().position(|b| b.subvolume == subvolume);
    let at = match (by_name, by_uuid) {
        (Some(name), Some(uuid)) if name != uuid => {
            return Err(Error::Conflict {
                name: naming.name().clone(),
                subvolume,
                other: bindings[uuid].naming.name().clone(),
            });
        }
        (Some(at), _) | (None, Some(at)) => at,
        (None, None) => {
            bindings.push(Binding {
                id: VolumeId::generate(),
                naming: naming.clone(),
                subvolume,
            });
            bindings.len() - 1
        }
    };
    bindings[at].naming = naming;
    bindings[at].subvolume = subvolume;
    Ok(bindings[at].clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(name: &str) -> Naming {
        Naming::Configured(name.parse().unwrap())
    }

    #[test]
    fn a_volume_keeps_its_id_across_renames_and_rollbacks() {
        let mut bindings = Vec::new();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let id = resolve(&mut bindings, configured("photos"), one)
            .unwrap()
            .id;
        let renamed = resolve(&mut bindings, configured("pictures"), one).unwrap();
        assert_eq!(renamed.id, id);
        let rolled_back = resolve(&mut bindings, configured("pictures"), two).unwrap();
        assert_eq!(rolled_back.id, id);
        assert_eq!(bindings.len(), 1);
    }

    #[test]
    fn a_name_and_a_subvolume_of_different_volumes_are_a_conflict() {
        let mut bindings = Vec::new();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        resolve(&mut bindings, configured("a"), one).unwrap();
        resolve(&mut bindings, configured("b"), two).unwrap();
        let before = bindings.clone();
        let conflict = resolve(&mut bindings, configured("a"), two);
        assert!(matches!(conflict, Err(Error::Conflict { other, .. }) if other.as_str() == "b"));
        assert_eq!(bindings, before);
    }

    #[test]
    fn a_configured_name_is_not_a_path_name() {
        let mut bindings = Vec::new();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let by_path = Naming::by_path(Uuid::from_u128(9), Path::new("srv"));
        let a = resolve(&mut bindings, configured("srv"), one).unwrap();
        let b = resolve(&mut bindings, by_path, two).unwrap();
        assert_ne!(a.id, b.id);
    }

    #[test]
    fn two_paths_that_flatten_to_one_name_are_two_volumes() {
        let mut bindings = Vec::new();
        let fsid = Uuid::from_u128(9);
        let volume = |path: &str| Naming::by_path(fsid, Path::new(path));
        let a = resolve(&mut bindings, volume("a/data"), Uuid::from_u128(1)).unwrap();
        let b = resolve(&mut bindings, volume("a-data"), Uuid::from_u128(2)).unwrap();
        assert_ne!(a.id, b.id);
        let rolled_back = resolve(&mut bindings, volume("a-data"), Uuid::from_u128(3)).unwrap();
        assert_eq!(rolled_back.id, b.id);
    }
}
