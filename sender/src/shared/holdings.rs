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
/// receiver must not fill the disk of this host. Enough for 14,000 copies of usual names.
const MAX_NAMES: usize = 256 * 1024;

/// Most disks of one receiver that are remembered for a volume.
const MAX_DISKS: usize = 8;

/// The copies of a volume on a disk of a receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    pub summary: Summary,
    /// Their names in the order of their commits, without those of the oldest if they are very many.
    pub names: Vec<String>,
}

/// A holding without the names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub volume: VolumeName,
    pub volume_id: VolumeId,
    pub receiver: PeerName,
    pub receiver_id: ReceiverId,
    pub root: Option<RootId>,
    /// End of the push, in seconds since 1970 UTC.
    pub as_of: i64,
    /// Number of copies.
    pub count: usize,
    /// Names of the copies that were committed first and last.
    pub oldest: String,
    pub newest: String,
}

/// The part of a file that a list without names reads.
#[derive(Debug, Deserialize)]
struct WithoutNames {
    summary: Summary,
}

impl Holding {
    /// A holding of copies in the order of their commits. The counts and names of `summary` are replaced.
    pub fn of(summary: Summary, mut names: Vec<String>) -> Self {
        let summary = Summary {
            count: names.len(),
            oldest: names.first().cloned().unwrap_or_default(),
            newest: names.last().cloned().unwrap_or_default(),
            ..summary
        };
        let mut bytes = 0;
        let fitting = names.iter().rev().take_while(|name| {
            bytes += name.len() + 1;
            bytes <= MAX_NAMES
        });
        let fitting = fitting.count();
        names.drain(..names.len() - fitting);
        Self { summary, names }
    }
}

impl Summary {
    fn prefix(&self) -> String {
        format!("{}.{}.", self.receiver_id, self.volume_id)
    }

    fn file_name(&self) -> String {
        let disk = self.root.map(|root| root.to_string()).unwrap_or_default();
        format!("{}{disk}.json", self.prefix())
    }

    /// Whether it is of the same names as another, and of another receiver or volume that had them before.
    fn is_replaced_by(&self, other: &Self) -> bool {
        let ids = |of: &Self| (of.receiver_id, of.volume_id);
        (&self.receiver, &self.volume) == (&other.receiver, &other.volume)
            && ids(self) != ids(other)
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
    let path = dir.join(holding.summary.file_name());
    if !path.exists() {
        drop_others(&dir, &holding.summary)?;
    }
    durable::replace_json(&path, holding)
}

/// Makes place for one more disk, and deletes what an earlier receiver or volume of these names held.
fn drop_others(dir: &Path, new: &Summary) -> io::Result<()> {
    let mut of_volume = Vec::new();
    for path in files(dir)? {
        match durable::recall_json::<WithoutNames>(&path)? {
            Some(WithoutNames { summary }) if summary.prefix() == new.prefix() => {
                of_volume.push((summary.as_of, path));
            }
            Some(WithoutNames { summary }) if !summary.is_replaced_by(new) => {}
            Some(_) | None => fs::remove_file(path)?,
        }
    }
    of_volume.sort();
    let too_many = (of_volume.len() + 1).saturating_sub(MAX_DISKS);
    for (_, path) in &of_volume[..too_many] {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Reads the holdings that `wanted` selects, by receiver, volume and disk; without names unless they are wanted, too.
///
/// # Errors
/// I/O errors.
pub fn all(
    state_dir: &Path,
    with_names: bool,
    wanted: impl Fn(&Summary) -> bool,
) -> io::Result<Vec<Holding>> {
    let mut holdings = Vec::new();
    for path in files(&state_dir.join(DIR))? {
        let Some(WithoutNames { summary }) =
            durable::recall_json(&path)?.filter(|read: &WithoutNames| wanted(&read.summary))
        else {
            continue;
        };
        match with_names {
            true => holdings.extend(durable::recall_json::<Holding>(&path)?),
            false => holdings.push(Holding {
                summary,
                names: Vec::new(),
            }),
        }
    }
    let key = |held: &Holding| {
        let Summary {
            receiver,
            volume,
            root,
            as_of,
            ..
        } = held.summary.clone();
        (receiver, volume, root, as_of)
    };
    holdings.sort_by_key(key);
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

    fn summary(root: u8, as_of: i64) -> Summary {
        Summary {
            volume: "photos".parse().unwrap(),
            volume_id: VolumeId::from_bytes([1; 16]),
            receiver: "nas2".parse().unwrap(),
            receiver_id: ReceiverId::from_bytes([2; 16]),
            root: Some(RootId::from_bytes([root; 16])),
            as_of,
            count: 0,
            oldest: String::new(),
            newest: String::new(),
        }
    }

    fn holding(root: u8, as_of: i64) -> Holding {
        let names = ["20261121T030000Z", "mine", "20261122T030000Z"];
        Holding::of(summary(root, as_of), names.map(str::to_owned).to_vec())
    }

    #[test]
    fn names_beyond_the_limit_are_counted_and_left_out() {
        let names: Vec<String> = (0..3000).map(|n| format!("{n:0>250}")).collect();
        let (first, last) = (names[0].clone(), names[2999].clone());
        let held = Holding::of(summary(1, 5), names);
        assert_eq!(held.summary.count, 3000);
        assert!(held.names.len() < 1100, "{}", held.names.len());
        assert_eq!(held.names.last(), Some(&last));
        assert_eq!((held.summary.oldest, held.summary.newest), (first, last));
    }

    #[test]
    fn disks_are_kept_apart_and_their_number_is_limited() {
        let dir = tempfile::tempdir().unwrap();
        let list = |names| all(dir.path(), names, |_| true).unwrap();
        assert_eq!(list(true), []);
        for root in 0..40 {
            note(dir.path(), &holding(root, i64::from(root))).unwrap();
        }
        note(dir.path(), &holding(39, 99)).unwrap();
        let listed = list(true);
        assert_eq!(listed.len(), MAX_DISKS);
        assert_eq!(listed.last(), Some(&holding(39, 99)));
        let without: Vec<_> = list(false).into_iter().map(|held| held.summary).collect();
        assert_eq!(
            without,
            listed
                .iter()
                .map(|held| held.summary.clone())
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn an_earlier_receiver_of_the_name_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        note(dir.path(), &holding(1, 5)).unwrap();
        let mut other = holding(1, 6);
        other.summary.receiver_id = ReceiverId::from_bytes([3; 16]);
        note(dir.path(), &other).unwrap();
        assert_eq!(all(dir.path(), true, |_| true).unwrap(), [other]);
    }
}
