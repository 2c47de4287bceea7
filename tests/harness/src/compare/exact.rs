//! Checks that a copy equals the snapshot it was made from.

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

/// Most differences shown in a failure.
const SHOWN: usize = 20;

/// A snapshot of a volume to compare copies with; deleted on drop.
#[derive(Debug)]
pub struct Reference {
    path: PathBuf,
}

impl Reference {
    /// Takes the snapshot beside the volumes of a file system whose top level is mounted at `fs`.
    ///
    /// # Panics
    /// If the snapshot fails.
    #[track_caller]
    pub fn of(fs: &Path, volume: &Path) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = fs.join(format!("reference-{number}"));
        streams::snapshot(volume, &path).unwrap();
        Self { path }
    }

    /// Path of the snapshot.
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

/// Compares the copy that a push reported with its source, in everything that a copy keeps and in the
/// position of holes. With the kernel engine the source is the snapshot that the sender keeps hidden, else
/// the volume, which must be unchanged since the push.
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

/// Compares the copy that a push reported with a volume that is unchanged since then. Compares
/// with a snapshot: reading the volume itself would change its access times.
///
/// # Panics
/// If anything differs.
#[track_caller]
pub fn assert_copy_of(sender: &SenderHost, receiver: &ReceiverHost, pushed: &Value, volume: &Path) {
    let reference = Reference::of(sender.fs(), volume);
    assert_same(reference.path(), &assert_copy(receiver, pushed));
}

/// Asserts that the copy of a push is at its reported path, read-only, and carries the snapshot's UUID.
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
    assert_eq!(flags.trim(), "ro=true", "the copy could be changed");
    copy
}

/// Asserts that two trees are equal.
///
/// # Panics
/// If they differ.
#[track_caller]
pub fn assert_same(snapshot: &Path, copy: &Path) {
    assert_same_but(snapshot, copy, &[]);
}

/// Asserts that two trees are equal except for `left_out`, which the copy lacks: the empty
/// directories that a snapshot has in place of nested subvolumes.
///
/// # Panics
/// If they differ.
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
