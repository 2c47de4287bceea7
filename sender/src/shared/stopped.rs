//! The pushes that the end of the daemon interrupts, so that the next start begins them again.

use std::io;
use std::path::{Path, PathBuf};

use sendshot_model::{PeerName, VolumeName};
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};

use crate::shared::running::Running;

/// File in the state directory.
const FILE: &str = "stopped.json";

/// A push that was running when the daemon ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    pub receiver: PeerName,
    pub volume: VolumeName,
    /// The volume's path on this host.
    pub path: PathBuf,
}

impl From<&Running> for Stopped {
    fn from(running: &Running) -> Self {
        Self {
            receiver: running.receiver.clone(),
            volume: running.volume.clone(),
            path: running.path.clone(),
        }
    }
}

/// Records the pushes that are running now.
///
/// # Errors
/// I/O errors.
pub fn note(state_dir: &Path, stopped: &[Stopped]) -> io::Result<()> {
    let path = state_dir.join(FILE);
    match stopped.is_empty() {
        true => durable::remove(&path),
        false => durable::write_json(&path, &stopped),
    }
}

/// Takes what the last daemon has recorded; a start that fails does not try again. A damaged file counts as empty.
///
/// # Errors
/// I/O errors.
pub fn take(state_dir: &Path) -> io::Result<Vec<Stopped>> {
    let path = state_dir.join(FILE);
    let stopped = match durable::read_json(&path) {
        Err(e) if e.kind() == io::ErrorKind::InvalidData => None,
        read => read?,
    };
    durable::remove(&path)?;
    Ok(stopped.unwrap_or_default())
}
