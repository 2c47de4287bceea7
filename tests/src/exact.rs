//! Whether a push brought over exactly what was snapshotted.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::receiver_box::ReceiverBox;
use crate::sender_box::SenderBox;
use crate::subvolumes;
use crate::tree::{self, Layout};

/// Most differences that are shown.
const SHOWN: usize = 20;

/// Compares the copy that a push reported with the snapshot it was made from, which the sender
/// keeps hidden, in everything a copy has, and where holes are.
///
/// # Panics
/// If anything differs.
#[track_caller]
pub fn assert_exact(sender: &SenderBox, receiver: &ReceiverBox, pushed: &Value) {
    let copy = assert_copy(receiver, pushed);
    assert_same(&subvolumes::by_uuid(sender.fs(), &pushed["uuid"]), &copy);
}

/// Expects that a push's copy is where it says: read-only, whole, known by the snapshot's UUID.
///
/// # Panics
/// If it is not.
#[track_caller]
pub fn assert_copy(receiver: &ReceiverBox, pushed: &Value) -> PathBuf {
    let copy = receiver.copy(pushed);
    let all = subvolumes::list(receiver.fs());
    let found = all.iter().find(|s| receiver.fs().join(&s.path) == copy);
    let found = found.unwrap_or_else(|| panic!("there is no copy {}", copy.display()));
    assert_eq!(
        found.received_uuid, pushed["uuid"],
        "the copy would not be found as a parent: a full send next time"
    );
    let flags = crate::command::tool(
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
