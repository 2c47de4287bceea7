//! Whether a push brought over exactly what was snapshotted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::compare::subvolumes;
use crate::compare::tree::{self, Layout};
use crate::disks::streams;
use crate::hosts::command::run;
use crate::hosts::receiver_host::ReceiverHost;
use crate::hosts::sender_host::SenderHost;

/// Most differences that are shown.
const SHOWN: usize = 20;

/// A snapshot of a volume to compare copies with, deleted when this is dropped.
#[derive(Debug)]
pub struct Reference {
    path: PathBuf,
}

impl Reference {
    /// Takes it, beside the volumes of a file system whose top level is mounted at `fs`.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn of(fs: &Path, volume: &Path) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = fs.join(format!("reference-{number}"));
        streams::snapshot(volume, &path).unwrap();
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let mut delete = Command::new("btrfs");
        let deleted = run(delete.args(["subvolume", "delete"]).arg(&self.path));
        if deleted.code != 0 {
            eprintln!("{deleted:?}");
        }
    }
}

/// Compares the copy that a push reported, in everything a copy has and where holes are, with what
/// was pushed: with the kernel's engine with the snapshot that the sender keeps hidden, else with the
/// volume, which must have stood still since then.
///
/// # Panics
/// If anything differs.
#[track_caller]
pub fn assert_exact(sender: &SenderHost, receiver: &ReceiverHost, pushed: &Value) {
    if pushed["engine"] == "kernel" {
        let hidden = subvolumes::by_uuid(sender.fs(), &pushed["uuid"]);
        return assert_same(&hidden, &assert_copy(receiver, pushed));
    }
    assert_copy_of(sender, receiver, pushed, &sender.volume(pushed));
}

/// Compares the copy that a push reported with a volume that stood still since then. By a
/// snapshot of it: looking at the volume would change its access times.
///
/// # Panics
/// If anything differs.
#[track_caller]
pub fn assert_copy_of(sender: &SenderHost, receiver: &ReceiverHost, pushed: &Value, volume: &Path) {
    let reference = Reference::of(sender.fs(), volume);
    assert_same(reference.path(), &assert_copy(receiver, pushed));
}

/// Expects that a push's copy is where it says: read-only, whole, known by the snapshot's UUID.
///
/// # Panics
/// If it is not.
#[track_caller]
pub fn assert_copy(receiver: &ReceiverHost, pushed: &Value) -> PathBuf {
    let copy = receiver.copy(pushed);
    let all = subvolumes::list(receiver.fs());
    let found = all.iter().find(|s| receiver.fs().join(&s.path) == copy);
    let found = found.unwrap_or_else(|| panic!("there is no copy {}", copy.display()));
    assert_eq!(
        found.received_uuid, pushed["uuid"],
        "the copy would not be found as a parent: a full send next time"
    );
    let flags = crate::hosts::command::tool(
        "btrfs",
        &[
            "property".as_ref(),
            "get".as_ref(),
            copy.as_os_str(),
            "ro".as_ref(),
        ],
    );
    assert_eq!(flags.trim(), "ro=true", "anybody could change the copy");
    copy
}

/// Expects two trees to be the same.
///
/// # Panics
/// If they are not.
#[track_caller]
pub fn assert_same(snapshot: &Path, copy: &Path) {
    assert_same_but(snapshot, copy, &[]);
}

/// Expects two trees to be the same, but for what is not there in the copy: the empty
/// directories that a snapshot has where the volume has subvolumes.
///
/// # Panics
/// If they are not.
#[track_caller]
pub fn assert_same_but(snapshot: &Path, copy: &Path, left_out: &[&str]) {
    let mut found = tree::compare_with(snapshot, copy, Layout::Holes).unwrap();
    for path in left_out {
        let expected = format!("{path}: exists only in: \"a\"");
        let before = found.len();
        found.retain(|line| !line.starts_with(&expected));
        assert_eq!(found.len(), before - 1, "{path} is in the copy: {found:#?}");
    }
    assert!(
        found.is_empty(),
        "the copy is not what was snapshotted, {} differences: {:#?}",
        found.len(),
        &found[..found.len().min(SHOWN)]
    );
}
