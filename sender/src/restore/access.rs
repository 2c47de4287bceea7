//! The credentials of a restore: the receiver's entry that pairing has written, and this host's key.

use std::path::{Path, PathBuf};

use sendshot_config::{ReceiverEntry, SenderConfig};
use sendshot_identity::SenderKey;
use sendshot_model::{AnyPath, PeerName, VolumeName};
use sendshot_proto::resume::CheckpointPolicy;

use crate::restore::error::Error;
use crate::restore::temporary::{self, Temporary};
use crate::shared::sender::Paths;

/// Where the sender's files are, and how often a restore keeps what it has.
#[derive(Debug, Clone)]
pub struct Settings {
    pub config: PathBuf,
    /// The state directory of the sending daemon.
    pub state_dir: PathBuf,
    /// Directory of the files written by pairing.
    pub receivers_dir: PathBuf,
    /// Control socket of the sending daemon.
    pub socket: PathBuf,
    /// Directory of temporary keys.
    pub runtime_dir: PathBuf,
    /// When a snapshot of staging is taken to continue from.
    pub checkpoints: CheckpointPolicy,
}

/// What a restore needs to call a receiver.
#[derive(Debug)]
pub struct Access {
    /// The receiver's name on this host.
    pub name: PeerName,
    pub entry: ReceiverEntry,
    pub key: SenderKey,
    /// The sender's configuration, if there is one.
    pub config: Option<SenderConfig>,
    /// The state directory of the sending daemon.
    pub state_dir: PathBuf,
    pub checkpoints: CheckpointPolicy,
    /// Control socket of the sending daemon.
    pub socket: PathBuf,
    /// Paths for working without the daemon.
    pub paths: Paths,
}

impl Access {
    /// Reads the credentials for a receiver.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(settings: &Settings, receiver: &str) -> Result<Self, Error> {
        let name = PeerName::parse(receiver).map_err(Error::Name)?;
        let (entry, key) = match temporary::open(&settings.runtime_dir, &name)? {
            Some(Temporary { entry, key }) => (entry, key),
            None => {
                let entry = sendshot_config::load_one(&settings.receivers_dir, &name)?;
                let entry = entry.ok_or_else(|| Error::NotPaired { name: name.clone() })?;
                let key = SenderKey::load_or_create(&settings.state_dir).map_err(Error::Key)?;
                (entry, key)
            }
        };
        // A restore needs no configuration; on a host that has lost everything there is none.
        let config = match settings.config.exists() {
            true => Some(SenderConfig::load(&settings.config)?),
            false => None,
        };
        Ok(Self {
            name,
            entry,
            key,
            config,
            state_dir: settings.state_dir.clone(),
            checkpoints: settings.checkpoints,
            socket: settings.socket.clone(),
            paths: Paths {
                config: settings.config.clone(),
                state_dir: settings.state_dir.clone(),
                receivers_dir: settings.receivers_dir.clone(),
            },
        })
    }

    /// Returns the name at the receiver of a volume that the user names by its name or its path on this host.
    ///
    /// # Errors
    /// [`Error::Volume`] for a name that is not one.
    pub fn volume_name(&self, volume: &AnyPath) -> Result<String, Error> {
        let path = PathBuf::from(volume.clone());
        if path.is_absolute() {
            let configured = self.config.iter().flat_map(|config| &config.volumes);
            let mut named = configured.filter(|(_, volume)| volume.path == path);
            return Ok(match named.next() {
                Some((name, _)) => name.to_string(),
                None => from_top(&path),
            });
        }
        let text = path.to_string_lossy();
        let name = VolumeName::parse(&text).map_err(Error::Volume)?;
        Ok(name.to_string())
    }
}

/// The name of a volume that is not configured: its path from the top level of its file system, if it is there.
fn from_top(path: &Path) -> String {
    let from_top = || {
        let dir = std::fs::File::open(path).ok()?;
        let info = sendshot_sys::subvolume::info(&dir).ok()?;
        sendshot_sys::subvolume::path_from_top(&dir, info.id).ok()?
    };
    let relative = from_top().unwrap_or_else(|| path.to_owned());
    VolumeName::from_top_path(&relative).to_string()
}
