//! What each disk of a receiver holds of a volume, as the receiver reported it during the last successful push. It is only
//! shown: a push asks the receiver.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sendshot_model::{PeerName, ReceiverId, RootId, VolumeId, VolumeName};
use sendshot_sys::durable;
use serde::{Deserialize, Serialize};

/// Directory in the state directory, with a file for each volume and disk: pushes end at the same time.
const DIR: &str = "holdings";

/// Bytes of names that are kept of one volume on one disk; the names of the oldest copies are left out beyond it. A lying
/// receiver must not fill the file. Enough for 200,000 copies of usual names.
const MAX_NAMES: usize = 4 * 1024 * 1024;

/// Most disks of one receiver that are remembered for a volume.
const MAX_DISKS: usize = 32;

/// The copies of a volume on a disk of a receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    pub volume: VolumeName,
    pub volume_id: VolumeId,
    pub receiver: PeerName,
    pub receiver_id: ReceiverId,
    pub root: Option<RootId>,
    /// End of the push, in seconds since 1970 UTC.
    pub as_of: i64,
    /// Number of copies.
    pub count: usize,
    /// Their names in order, without those of the oldest if they are very many.
    pub names: Vec<String>,
}

impl Holding {
    /// Adds a copy that the push has made, sorts the names, and limits them.
    #[must_use]
    pub fn with(mut self, copy: &str) -> Self {
        if !self.names.iter().any(|name| name == copy) {
            self.names.push(copy.to_owned());
        }
        self.names.sort();
        self.count = self.names.len();
        let mut bytes = 0;
        let fitting = self.names.iter().rev().take_while(|name| {
            bytes += name.len() + 1;
            bytes <= MAX_NAMES
        });
        let fitting = fitting.count();
        self.names.drain(..self.count - fitting);
        self
    }

    fn prefix(&self) -> String {
        format!("{}.{}.", self.receiver_id, self.volume_id)
    }

    fn file_name(&self) -> String {
        let disk = self.root.map(|root| root.to_string()).unwrap_or_default();
        format!("{}{disk}.json", self.prefix())
    }
}

/// Records a holding, in the place of the last one of its volume and disk. Written without a sync: what a crash damages
/// counts as not recorded.
///
/// # Errors
/// I/O errors.
pub fn note(state_dir: &Path, holding: &Holding) -> io::Result<()> {
    let dir = state_dir.join(DIR);
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(durable::PRIVATE_DIR);
    private.create(&dir)?;
    let path = dir.join(holding.file_name());
    if !path.exists() {
        drop_oldest(&dir, &holding.prefix())?;
    }
    durable::replace_json(&path, holding)
}

/// Makes place for one more disk.
fn drop_oldest(dir: &Path, prefix: &str) -> io::Result<()> {
    let is_of_volume = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str);
        name.is_some_and(|name| name.starts_with(prefix))
    };
    let mut files: Vec<PathBuf> = files(dir)?.into_iter().filter(is_of_volume).collect();
    if files.len() < MAX_DISKS {
        return Ok(());
    }
    files.sort_by_key(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok());
    for path in &files[..=files.len() - MAX_DISKS] {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Reads the holdings, by receiver, volume and disk.
///
/// # Errors
/// I/O errors.
pub fn all(state_dir: &Path) -> io::Result<Vec<Holding>> {
    let mut holdings = Vec::new();
    for path in files(&state_dir.join(DIR))? {
        match durable::read_json::<Holding>(&path) {
            Ok(holding) => holdings.extend(holding),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {}
            Err(e) => return Err(e),
        }
    }
    holdings.sort_by(|a, b| {
        (&a.receiver, &a.volume, a.root, a.as_of).cmp(&(&b.receiver, &b.volume, b.root, b.as_of))
    });
    Ok(holdings)
}

fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| Ok(entry?.path()));
    let paths: Vec<PathBuf> = paths.collect::<io::Result<_>>()?;
    let is_whole = |path: &PathBuf| path.extension() == Some(OsStr::new("json"));
    Ok(paths.into_iter().filter(is_whole).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(root: u8, as_of: i64) -> Holding {
        Holding {
            volume: "photos".parse().unwrap(),
            volume_id: VolumeId::from_bytes([1; 16]),
            receiver: "nas2".parse().unwrap(),
            receiver_id: ReceiverId::from_bytes([2; 16]),
            root: Some(RootId::from_bytes([root; 16])),
            as_of,
            count: 0,
            names: vec!["20261122T030000Z".to_owned(), "20261121T030000Z".to_owned()],
        }
    }

    #[test]
    fn a_holding_has_the_new_copy_once_and_in_order() {
        let with = holding(1, 5)
            .with("20261123T030000Z")
            .with("20261123T030000Z");
        assert_eq!(with.count, 3);
        assert_eq!(with.names[0], "20261121T030000Z");
        assert_eq!(with.names[2], "20261123T030000Z");
    }

    #[test]
    fn names_beyond_the_limit_are_counted_and_left_out() {
        let mut many = holding(1, 5);
        many.names = (0..30_000).map(|n| format!("{n:0>250}")).collect();
        let last = many.names.last().cloned();
        let with = many.with("00");
        assert_eq!(with.count, 30_001);
        assert!(with.names.len() < 20_000, "{}", with.names.len());
        assert_eq!(with.names.last().cloned(), last);
    }

    #[test]
    fn disks_are_kept_apart_and_their_number_is_limited() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(all(dir.path()).unwrap(), []);
        for root in 0..40 {
            note(dir.path(), &holding(root, i64::from(root))).unwrap();
        }
        note(dir.path(), &holding(39, 99)).unwrap();
        let all = all(dir.path()).unwrap();
        assert_eq!(all.len(), MAX_DISKS);
        assert!(all.iter().any(|holding| holding.as_of == 99));
        assert!(all.iter().all(|holding| holding.as_of != 39));
    }
}
