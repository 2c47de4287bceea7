//! A record of a file system except staging, to compare with a later one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sendshot_harness::compare::subvolumes;

/// Largest size of a file whose content is read, in bytes.
const READ: u64 = 256 * 1024;

/// Directory in which transfers may change anything.
const STAGING: &str = ".sendshot-staging";

/// What is recorded of a file: type, mode, owner, size, times, content.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    links: u64,
    device: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
    content: Option<[u8; 32]>,
}

/// The record of all files and subvolumes at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    seen: BTreeMap<PathBuf, Seen>,
    subvolumes: BTreeMap<String, [String; 3]>,
}

impl Watch {
    /// Records a file system, and other directories. Ignores the times of the directories in `busy`, where
    /// files come and go, and skips the files in `busy`.
    ///
    /// # Panics
    /// If a file cannot be read.
    #[track_caller]
    pub fn of(fs: &Path, others: &[&Path], busy: &[&Path]) -> Self {
        let mut seen = BTreeMap::new();
        for root in [fs].iter().chain(others) {
            look(root, busy, &mut seen);
        }
        let staged = |path: &str| path.contains(&format!("{STAGING}/"));
        let all = subvolumes::list(fs).into_iter();
        let subvolumes = all
            .filter(|s| !staged(&s.path))
            .map(|s| (s.path, [s.uuid, s.parent_uuid, s.received_uuid]));
        Self {
            seen,
            subvolumes: subvolumes.collect(),
        }
    }

    /// Lists the differences to a later record, one line each.
    pub fn changes(&self, now: &Self) -> Vec<String> {
        let mut changes = differences(&self.seen, &now.seen);
        changes.extend(differences(&self.subvolumes, &now.subvolumes));
        changes
    }
}

fn differences<K, V>(before: &BTreeMap<K, V>, now: &BTreeMap<K, V>) -> Vec<String>
where
    K: Ord + std::fmt::Debug,
    V: PartialEq + std::fmt::Debug,
{
    let gone = before
        .iter()
        .filter(|(key, value)| now.get(key) != Some(value))
        .map(|(key, value)| format!("{key:?} was {value:?}, is {:?}", now.get(key)));
    let new = now
        .iter()
        .filter(|(key, _)| !before.contains_key(key))
        .map(|(key, value)| format!("{key:?} is new: {value:?}"));
    gone.chain(new).collect()
}

fn look(path: &Path, busy: &[&Path], seen: &mut BTreeMap<PathBuf, Seen>) {
    let stat = fs::symlink_metadata(path).unwrap();
    let kind = stat.file_type();
    let content = if kind.is_symlink() {
        let target = fs::read_link(path).unwrap();
        Some(sendshot_harness::blake3(
            target.as_os_str().as_encoded_bytes(),
        ))
    } else if kind.is_file() && stat.size() <= READ {
        Some(sendshot_harness::blake3(&fs::read(path).unwrap()))
    } else {
        None
    };
    let busy_here = busy.contains(&path) || path.ends_with(STAGING);
    let unless_busy = |time| if busy_here { (0, 0) } else { time };
    let found = Seen {
        mode: stat.mode(),
        owner: (stat.uid(), stat.gid()),
        links: stat.nlink(),
        device: stat.rdev(),
        size: if busy_here { 0 } else { stat.size() },
        mtime: unless_busy((stat.mtime(), stat.mtime_nsec())),
        ctime: unless_busy((stat.ctime(), stat.ctime_nsec())),
        content,
    };
    seen.insert(path.to_owned(), found);
    if kind.is_dir() && !path.ends_with(STAGING) {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let is_busy = busy.contains(&entry.path().as_path());
            if is_busy && entry.file_type().unwrap().is_file() {
                continue;
            }
            look(&entry.path(), busy, seen);
        }
    }
}
