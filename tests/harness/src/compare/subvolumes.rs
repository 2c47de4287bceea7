//! Subvolumes as `btrfs` lists them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::hosts::command::tool;
use crate::hosts::receiver_host::ReceiverHost;
use crate::hosts::sender_host::SenderHost;

/// A line of `btrfs subvolume list`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subvolume {
    /// Path from the top level.
    pub path: String,
    /// UUID of the subvolume.
    pub uuid: String,
    /// UUID of the subvolume that this is a snapshot of, or `-`.
    pub parent_uuid: String,
    /// UUID of the subvolume that this is a copy of, or `-`.
    pub received_uuid: String,
    /// Generation of its last change.
    pub generation: u64,
}

/// Lists all subvolumes of a file system whose top level is mounted at a path.
///
/// # Panics
/// If `btrfs` fails.
#[track_caller]
pub fn list(fs: &Path) -> Vec<Subvolume> {
    let printed = tool(
        "btrfs",
        &[
            "subvolume".as_ref(),
            "list".as_ref(),
            "-uqR".as_ref(),
            fs.as_os_str(),
        ],
    );
    printed.lines().map(parse).collect()
}

/// Parses `ID 257 gen 11 top level 5 parent_uuid - received_uuid - uuid U path P`, aligned with blanks.
fn parse(line: &str) -> Subvolume {
    let (fields, path) = line.split_once(" path ").unwrap();
    let words: Vec<&str> = fields.split_whitespace().collect();
    let after = |name: &str| {
        let at = words.iter().position(|w| *w == name).unwrap();
        words[at + 1].to_owned()
    };
    Subvolume {
        path: path.to_owned(),
        uuid: after("uuid"),
        parent_uuid: after("parent_uuid"),
        received_uuid: after("received_uuid"),
        generation: after("gen").parse().unwrap(),
    }
}

/// Returns the path of the subvolume with a UUID.
///
/// # Panics
/// If there is none.
#[track_caller]
pub fn by_uuid(fs: &Path, uuid: &Value) -> PathBuf {
    let uuid = uuid.as_str().unwrap();
    let all = list(fs);
    let found = all.iter().find(|s| s.uuid == uuid);
    let found = found.unwrap_or_else(|| panic!("no subvolume has uuid {uuid}: {all:#?}"));
    fs.join(&found.path)
}

/// Lists the subvolumes of a sender's file system that are not Sendshot's: these must never change.
#[track_caller]
pub fn others(fs: &Path) -> BTreeSet<Subvolume> {
    let ours = |path: &str| path == ".sendshot" || path.starts_with(".sendshot/");
    let mut others: BTreeSet<_> = list(fs).into_iter().filter(|s| !ours(&s.path)).collect();
    // Taking a snapshot of a volume, or reading it, may rewrite its root item and so change its generation.
    others = others
        .into_iter()
        .map(|s| Subvolume { generation: 0, ..s })
        .collect();
    others
}

/// Asserts that nothing is left but copies, retained state, and what is listed as an interrupted push: its
/// snapshot on the sender, its staging and checkpoints on the receiver.
///
/// # Panics
/// If anything else is left.
#[track_caller]
pub fn assert_only_resumable_left(sender: &SenderHost, receiver: &ReceiverHost) {
    sender.wait_until_released();
    let text = |v: &Value, key: &str| v[key].as_str().unwrap().to_owned();
    let interrupted = sender.ctl(&["list", "--partials", "--json"]);
    let interrupted = interrupted.success().jsons();
    assert!(interrupted.len() <= 1, "{interrupted:#?}");
    let mut owned: BTreeSet<String> = interrupted.iter().map(|v| text(v, "uuid")).collect();
    let kept = sender.ctl(&["list", "--json"]).success().jsons();
    owned.extend(
        kept.iter()
            .filter(|kept| kept["sendshot_bytes"].is_null())
            .map(|kept| text(kept, "uuid")),
    );
    let hidden = list(sender.fs()).into_iter();
    let hidden: Vec<_> = hidden
        .filter(|s| s.path.starts_with(".sendshot/") && !owned.contains(&s.uuid))
        .collect();
    assert!(hidden.is_empty(), "snapshots without a record: {hidden:#?}");

    let partials = receiver.ctl(&["copy", "list", "--partials", "--json"]);
    let partials = partials.success().jsons();
    assert!(partials.len() <= 1, "{partials:#?}");
    let transfers: Vec<String> = partials.iter().map(|v| text(v, "transfer")).collect();
    let copies = receiver.ctl(&["copy", "list", "--json"]).success().jsons();
    let copies: BTreeSet<String> = copies.iter().map(|v| text(v, "uuid")).collect();
    let unowned: Vec<_> = list(receiver.fs())
        .into_iter()
        .filter(|s| !copies.contains(&s.received_uuid))
        .filter(|s| {
            !transfers
                .iter()
                .any(|transfer| s.path.contains(transfer.as_str()))
        })
        .collect();
    assert!(
        unowned.is_empty(),
        "subvolumes without an owner: {unowned:#?}"
    );
    for s in list(receiver.fs()) {
        let partial = transfers
            .iter()
            .any(|transfer| s.path.contains(transfer.as_str()));
        assert!(
            !partial || s.received_uuid == "-",
            "a partial could be taken for a copy: {s:?}"
        );
    }
}

/// Asserts that no trace of a transfer is left: on the sender only the snapshots that `list`
/// shows as acknowledged (a push by sendshots leaves none), on the receiver only the copies that
/// `copy list` shows.
///
/// # Panics
/// If anything else is left.
#[track_caller]
pub fn assert_no_leftovers(sender: &SenderHost, receiver: &ReceiverHost) {
    sender.wait_until_released();
    let uuids = |all: Vec<Value>| -> BTreeSet<String> {
        let text = |v: &Value| v["uuid"].as_str().unwrap().to_owned();
        all.iter().map(text).collect()
    };
    let mut listed = sender.ctl(&["list", "--json"]).success().jsons();
    listed.retain(|kept| kept["state"] == "acknowledged" && kept["sendshot_bytes"].is_null());
    let listed = uuids(listed);
    let hidden = list(sender.fs()).into_iter();
    let hidden: BTreeSet<_> = hidden
        .filter(|s| s.path.starts_with(".sendshot/"))
        .map(|s| s.uuid)
        .collect();
    assert_eq!(
        hidden, listed,
        "snapshots that hold space and no push will ever use"
    );

    let copies = uuids(receiver.ctl(&["copy", "list", "--json"]).success().jsons());
    let held: BTreeSet<_> = list(receiver.fs())
        .into_iter()
        .map(|s| s.received_uuid)
        .collect();
    assert_eq!(held, copies, "subvolumes that hold space and are no copies");
}
