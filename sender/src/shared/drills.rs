//! The last restore drill of every volume from every receiver. The program that restores writes them; the daemon only
//! reads them.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use sendshot_model::PeerName;
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};

/// Directory in the state directory, with a file for every volume and receiver: drills can run at the same time.
const DIR: &str = "drills";

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

/// Reads the last drills, by receiver and volume. A damaged file counts as none, and is rewritten by the next drill.
///
/// # Errors
/// I/O errors.
pub fn all(state_dir: &Path) -> io::Result<Vec<Drill>> {
    let mut drills = Vec::new();
    let entries = match fs::read_dir(state_dir.join(DIR)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(drills),
        entries => entries?,
    };
    for entry in entries {
        match durable::read_json::<Drill>(&entry?.path()) {
            Ok(drill) => drills.extend(drill),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {}
            Err(e) => return Err(e),
        }
    }
    drills.sort_by(|a, b| (&a.receiver, &a.volume).cmp(&(&b.receiver, &b.volume)));
    Ok(drills)
}

/// Records a drill, in the place of the last one of its volume and receiver.
///
/// # Errors
/// I/O errors.
pub fn note(state_dir: &Path, drill: &Drill) -> io::Result<()> {
    let dir = state_dir.join(DIR);
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(durable::PRIVATE_DIR);
    private.create(&dir)?;
    durable::write_json(&dir.join(file_name(drill)), drill)
}

/// A name in which neither of the two parts can be taken for the other.
fn file_name(drill: &Drill) -> String {
    let key = format!("{}:{}", drill.receiver, drill.volume);
    format!("{}.json", blake3::hash(key.as_bytes()).to_hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drills_at_the_same_time_lose_no_entry() {
        let dir = tempfile::tempdir().unwrap();
        let drill = |n: i64| Drill {
            volume: format!("volume-{n}"),
            receiver: "nas2".parse().unwrap(),
            ended_at: n,
            copy: None,
            error: None,
        };
        std::thread::scope(|scope| {
            for n in 0..16 {
                let (dir, drill) = (dir.path(), drill(n));
                scope.spawn(move || note(dir, &drill).unwrap());
            }
        });
        assert_eq!(all(dir.path()).unwrap().len(), 16);
        note(
            dir.path(),
            &Drill {
                ended_at: 99,
                ..drill(3)
            },
        )
        .unwrap();
        let again = all(dir.path()).unwrap();
        assert_eq!(again.len(), 16);
        assert!(again.iter().any(|drill| drill.ended_at == 99));
    }
}
