//! A directory with a JSON file for each name, `NAME.json`, and its content in memory.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use sendshot_model::PeerName;
use sendshot_sys::durable;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pairing::refusal::RegistryError;

/// The values of one directory. Reads come from memory; a change is visible only once it is on disk. The caller
/// makes one change at a time.
#[derive(Debug)]
pub(crate) struct Files<T> {
    dir: PathBuf,
    all: RwLock<BTreeMap<PeerName, T>>,
}

impl<T: Clone + Serialize + DeserializeOwned> Files<T> {
    /// Loads every file of a directory, which it makes if it is missing.
    pub(crate) fn open(dir: PathBuf) -> Result<Self, RegistryError> {
        let all = RwLock::new(load(&dir)?);
        Ok(Self { dir, all })
    }

    /// Locks the values for reading. Memory changes only after the disk, so even a panicking thread leaves them
    /// consistent.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, BTreeMap<PeerName, T>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, name: &PeerName) -> Option<T> {
        self.read().get(name).cloned()
    }

    /// Returns a copy of all values, in the order of the names.
    pub(crate) fn all(&self) -> Vec<(PeerName, T)> {
        let all = self.read();
        all.iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    pub(crate) fn put(&self, name: &PeerName, value: T) -> Result<(), RegistryError> {
        durable::write_json(&self.file(name), &value)?;
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(name.clone(), value);
        Ok(())
    }

    /// Removes a value, if there is one.
    pub(crate) fn remove(&self, name: &PeerName) -> Result<(), RegistryError> {
        durable::remove(&self.file(name))?;
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(name);
        Ok(())
    }

    fn file(&self, name: &PeerName) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }
}

fn load<T: DeserializeOwned>(dir: &Path) -> Result<BTreeMap<PeerName, T>, RegistryError> {
    DirBuilder::new()
        .recursive(true)
        .mode(durable::PRIVATE_DIR)
        .create(dir)?;
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        // A file `.NAME.json.tmp` is from an interrupted write.
        let Some(stem) = file.strip_suffix(".json") else {
            continue;
        };
        let name = PeerName::parse(stem).map_err(io::Error::other)?;
        if let Some(value) = durable::read_json(&path)? {
            all.insert(name, value);
        }
    }
    Ok(all)
}
