//! The last restore drill of every volume from every receiver. The program that restores writes them; the daemon only
//! reads them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use sendshot_model::PeerName;
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};

/// File in the state directory.
const FILE: &str = "drills.json";

/// The outcome of a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// Name of the volume at the receiver.
    pub volume: String,
    pub receiver: PeerName,
    /// When it ended, seconds since 1970 UTC.
    pub ended_at: i64,
    /// Name of the copy, if one was chosen.
    pub copy: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// Reads the last drills. A damaged file counts as empty, and is rewritten by the next drill.
///
/// # Errors
/// I/O errors.
pub fn all(state_dir: &Path) -> io::Result<Vec<Drill>> {
    match durable::read_json::<BTreeMap<String, Drill>>(&file(state_dir)) {
        Ok(drills) => Ok(drills.unwrap_or_default().into_values().collect()),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// Records a drill, in the place of the last one of its volume and receiver.
///
/// # Errors
/// I/O errors.
pub fn note(state_dir: &Path, drill: Drill) -> io::Result<()> {
    let mut drills: BTreeMap<String, Drill> = all(state_dir)?
        .into_iter()
        .map(|drill| (key(&drill), drill))
        .collect();
    drills.insert(key(&drill), drill);
    durable::write_json(&file(state_dir), &drills)
}

fn key(drill: &Drill) -> String {
    format!("{}:{}", drill.receiver, drill.volume)
}
