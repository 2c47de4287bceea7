//! Which parent a push takes, and the reason it states. A wrong one would give a wrong copy; none
//! where there is one would send everything again.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sendshot_harness::compare::exact::{assert_copy_of, assert_exact};
use sendshot_harness::compare::subvolumes::{self, assert_no_leftovers};
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::command::tool;
use sendshot_harness::hosts::pairing::{Paired, pair};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::trees::every_file_kind;
use sendshot_harness::trees::fill;
use serde_json::Value;

#[track_caller]
fn push(hosts: &Paired, target: &str) -> Value {
    let pushed = hosts.sender.push(target);
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    pushed
}

/// Asserts a full send, and each text in its reason.
#[track_caller]
fn assert_full(pushed: &Value, texts: &[&str]) {
    assert_eq!(
        pushed["parent"],
        Value::Null,
        "a parent that is no longer fit: {pushed}"
    );
    let reason = pushed["parent_reason"].as_str().unwrap();
    for text in texts {
        assert!(
            reason.contains(text),
            "the user cannot know why everything is sent again (`{text}`): {reason}"
        );
    }
}

#[track_caller]
fn assert_parent(pushed: &Value, parent: &Value) {
    assert_eq!(
        pushed["parent"], parent["uuid"],
        "everything was sent again: {pushed}"
    );
}

fn set_ro(path: &Path, value: &str) {
    let arguments = ["property", "set", "-f", path.to_str().unwrap(), "ro", value];
    tool("btrfs", &arguments);
}

fn delete(path: &Path) {
    tool("btrfs", &["subvolume", "delete", path.to_str().unwrap()]);
}

/// Hosts whose volume keeps its last snapshot as parent.
fn pinned() -> Paired {
    let setup = SenderHost::setup().volume("photos", "photos");
    Paired::of(setup.pin_parent().start())
}

#[test]
fn each_push_builds_on_the_one_acknowledged_before() {
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    fill::tree(&photos, 1);
    let mut all = vec![push(&hosts, "nas2:photos")];
    assert_full(&all[0], &[]);
    for i in 0..4 {
        fill::file(photos.join("changes"), i, 10_000);
        let next = push(&hosts, "nas2:photos");
        assert_eq!(next["engine"], "sendshot");
        assert_parent(&next, all.last().unwrap());
        all.push(next);
        // Three sendshots are kept; the one before them is deleted, and reported.
        let pruned: Vec<_> = all.iter().rev().skip(3).take(1).collect();
        let pruned: Vec<_> = pruned.iter().map(|pushed| &pushed["uuid"]).collect();
        assert_eq!(all.last().unwrap()["pruned"], serde_json::json!(pruned));
    }
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn with_pin_parent_only_the_last_snapshot_is_kept() {
    let hosts = pinned();
    let photos = hosts.sender.photos();
    fill::tree(&photos, 1);
    let mut last = push(&hosts, "nas2:photos");
    assert_full(&last, &[]);
    for i in 0..4 {
        fill::file(photos.join("changes"), i, 10_000);
        let next = push(&hosts, "nas2:photos");
        assert_eq!(next["engine"], "kernel");
        assert_parent(&next, &last);
        // The previous snapshot is no longer needed and must not pin space on the sender.
        assert_eq!(next["pruned"], serde_json::json!([last["uuid"]]));
        last = next;
    }
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_restart_of_both_daemons_forgets_nothing() {
    let mut hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = push(&hosts, "nas2:photos");
    hosts.sender.daemon.stop();
    hosts.receiver.daemon.stop();
    hosts.receiver.daemon.start();
    hosts.sender.daemon.start();
    assert_parent(&push(&hosts, "nas2:photos"), &first);
}

#[track_caller]
fn a_plan_is_what_the_push_does(hosts: &Paired) {
    fill::tree(&hosts.sender.photos(), 1);
    let plan = |options: &[&str]| {
        let arguments = [&["plan", "--json", "nas2:photos"], options].concat();
        hosts.sender.ctl(&arguments).success().json()
    };
    #[track_caller]
    fn assert_done(planned: &Value, pushed: &Value) {
        for field in ["parent", "parent_reason", "parent_reason_code", "engine"] {
            assert_eq!(planned[field], pushed[field], "{field}");
        }
        if planned["engine"] == "sendshot" {
            assert_eq!(planned["stream_bytes"], pushed["stream_bytes"]);
            assert!(planned["commands"].as_u64() > Some(0), "{planned}");
        } else {
            assert_eq!(planned["stream_bytes"], Value::Null);
            assert_eq!(planned["commands"], Value::Null);
        }
    }
    let before = subvolumes::others(hosts.sender.fs());
    let planned = plan(&[]);
    assert_eq!(planned["parent"], Value::Null);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
    let first = push(hosts, "nas2:photos");
    assert_done(&planned, &first);
    fill::file(hosts.sender.photos().join("new"), 7, 50_000);
    let planned = plan(&[]);
    assert_eq!(planned["parent"], first["uuid"]);
    assert_eq!(plan(&["--parent", "none"])["parent"], Value::Null);
    let dry = ["push", "--dry-run", "--json", "nas2:photos"];
    assert_eq!(hosts.sender.ctl(&dry).success().json(), planned);
    let second = push(hosts, "nas2:photos");
    assert_done(&planned, &second);
    assert_parent(&second, &first);
    assert_eq!(subvolumes::others(hosts.sender.fs()), before);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_plan_says_what_the_push_then_does_and_changes_nothing() {
    a_plan_is_what_the_push_does(&Paired::new());
}

#[test]
fn with_pin_parent_a_plan_predicts_the_push() {
    a_plan_is_what_the_push_does(&pinned());
}

#[test]
fn a_renamed_volume_keeps_its_history() {
    let mut hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = push(&hosts, "nas2:photos");
    let fs = hosts.sender.fs().to_owned();
    fs::create_dir(fs.join("moved")).unwrap();
    fs::rename(fs.join("photos"), fs.join("moved/pictures")).unwrap();
    hosts.sender.reconfigure(&[("pictures", "moved/pictures")]);
    let second = push(&hosts, "nas2:pictures");
    assert_parent(&second, &first);
    // The receiver's directory keeps its name, so that scripts that use it continue to work.
    let copy = second["copy"].as_str().unwrap();
    assert!(copy.starts_with("nas1/photos/"), "{copy}");
    // Now only the name changes.
    hosts.sender.reconfigure(&[("album", "moved/pictures")]);
    assert_parent(&push(&hosts, "nas2:album"), &second);
}

#[test]
fn a_configured_volume_pushed_by_its_path_is_the_same_volume() {
    let hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = push(&hosts, "nas2:photos");
    let second = push(&hosts, &format!("nas2:{}", hosts.sender.photos().display()));
    assert_parent(&second, &first);
    assert_eq!(second["volume"], "photos");
}

#[test]
fn a_path_that_becomes_a_configured_volume_keeps_its_history() {
    let mut hosts = Paired::of(SenderHost::setup().volume("x", "srv/photos").start());
    fill::tree(&hosts.sender.fs().join("srv/photos"), 1);
    hosts.sender.reconfigure(&[]);
    let volume = hosts.sender.fs().join("srv/photos");
    let first = hosts.sender.push(&format!("nas2:{}", volume.display()));
    assert_copy_of(&hosts.sender, &hosts.receiver, &first, &volume);
    let copy = first["copy"].as_str().unwrap();
    assert!(copy.starts_with("nas1/srv-photos/"), "{copy}");
    hosts.sender.reconfigure(&[("photos", "srv/photos")]);
    assert_parent(&push(&hosts, "nas2:photos"), &first);
}

/// Rolls back to a snapshot as users do: the volume is replaced by a writable snapshot
/// of its past.
fn roll_back(fs: &Path, to: &str) {
    fs::rename(fs.join("photos"), fs.join("photos.bad")).unwrap();
    let [from, to] = [fs.join(to), fs.join("photos")];
    tool(
        "btrfs",
        &[
            "subvolume".as_ref(),
            "snapshot".as_ref(),
            from.as_os_str(),
            to.as_os_str(),
        ],
    );
}

#[test]
fn a_volume_replaced_by_its_past_is_exact() {
    let hosts = Paired::new();
    let fs = hosts.sender.fs().to_owned();
    let photos = hosts.sender.photos();
    every_file_kind::fill(&photos);
    streams::snapshot(&photos, &fs.join("past")).unwrap();
    push(&hosts, "nas2:photos");
    every_file_kind::change(&photos);
    fs::write(photos.join("of the bad future"), "bad").unwrap();
    let bad = push(&hosts, "nas2:photos");
    roll_back(&fs, "past");
    let back = push(&hosts, "nas2:photos");
    assert!(
        !hosts
            .receiver
            .copy(&back)
            .join("of the bad future")
            .exists()
    );
    let reason = back["parent_reason"].as_str().unwrap();
    assert!(
        reason.contains("replaced") || reason.contains("snapshot") || reason.contains("not"),
        "the roll-back is not explained: {reason}"
    );
    assert_eq!(back["volume"], bad["volume"]);
    // Inode numbers are reused for other files.
    every_file_kind::change(&photos);
    fs::write(photos.join("of the good future"), "good").unwrap();
    let next = push(&hosts, "nas2:photos");
    assert_parent(&next, &back);
}

#[test]
fn equal_inode_numbers_hide_no_change() {
    // Old and new state are written in one transaction: the file system's numbers are equal, only
    // the content differs.
    let hosts = Paired::of(
        SenderHost::setup()
            .mount("commit=300")
            .volume("photos", "photos")
            .start(),
    );
    let fs = hosts.sender.fs().to_owned();
    let photos = hosts.sender.photos();
    fill::tree(&photos, 1);
    streams::snapshot(&photos, &fs.join("past")).unwrap();
    fill::file(photos.join("same numbers"), 1, 3000);
    fs::hard_link(photos.join("same numbers"), photos.join("now")).unwrap();
    push(&hosts, "nas2:photos");
    roll_back(&fs, "past");
    fill::file(photos.join("same numbers"), 2, 3000);
    fs::hard_link(photos.join("same numbers"), photos.join("now")).unwrap();
    push(&hosts, "nas2:photos");
}

#[test]
fn two_volumes_that_trade_their_names_are_not_mixed_up() {
    let setup = SenderHost::setup()
        .volume("one", "one")
        .volume("two", "two");
    let mut hosts = Paired::of(setup.start());
    let fs = hosts.sender.fs().to_owned();
    fill::tree(&fs.join("one"), 1);
    fill::tree(&fs.join("two"), 2);
    push(&hosts, "nas2:one");
    push(&hosts, "nas2:two");
    hosts.sender.reconfigure(&[("one", "two"), ("two", "one")]);
    let refused = hosts.sender.ctl(&["push", "nas2:one"]);
    refused.fails(2, &["one", "two", "help:"]);
}

#[test]
fn a_parent_named_by_hand_is_taken_or_refused() {
    let hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = push(&hosts, "nas2:photos");
    let uuid = first["uuid"].as_str().unwrap();

    let none = hosts.sender.push_with("nas2:photos", &["--parent", "none"]);
    assert_full(&none, &[]);
    assert_exact(&hosts.sender, &hosts.receiver, &none);

    let newest = none["uuid"].as_str().unwrap();
    let by_hand = hosts.sender.push_with("nas2:photos", &["--parent", newest]);
    assert_parent(&by_hand, &none);
    assert_exact(&hosts.sender, &hosts.receiver, &by_hand);

    let auto = hosts.sender.push_with("nas2:photos", &["--parent", "auto"]);
    assert_parent(&auto, &by_hand);

    // Pruned on the sender, and one that never existed: neither causes a silent full send.
    for gone in [uuid, "01234567-89ab-cdef-0123-456789abcdef"] {
        let arguments = ["push", "nas2:photos", "--parent", gone];
        hosts.sender.ctl(&arguments).fails(2, &[gone]);
    }
    for garbage in ["garbage", "", "01234567", "../../etc"] {
        let arguments = ["push", "nas2:photos", "--parent", garbage];
        hosts.sender.ctl(&arguments).fails(2, &["parent"]);
    }
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_copy_deleted_on_the_receiver_is_not_counted_on() {
    let hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = push(&hosts, "nas2:photos");
    delete(&hosts.receiver.copy(&first));
    let second = push(&hosts, "nas2:photos");
    assert_full(&second, &["no copy"]);
    assert_parent(&push(&hosts, "nas2:photos"), &second);
}

#[test]
fn a_copy_moved_to_another_name_by_the_admin_is_still_found() {
    let hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = push(&hosts, "nas2:photos");
    let copy = hosts.receiver.copy(&first);
    fs::rename(&copy, copy.with_file_name("before-the-wedding")).unwrap();
    assert_parent(&push(&hosts, "nas2:photos"), &first);
}

#[test]
fn a_copy_that_is_writable_is_no_parent() {
    let hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = push(&hosts, "nas2:photos");
    // Not with stock tools, which would clear the received UUID.
    raw_flags(&hosts.receiver.copy(&first), 0);
    assert_full(&push(&hosts, "nas2:photos"), &["writable"]);
}

#[test]
fn a_copy_that_was_writable_for_a_while_is_never_a_parent() {
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    fill::tree(&photos, 1);
    let first = push(&hosts, "nas2:photos");
    let copy = hosts.receiver.copy(&first);

    raw_flags(&copy, 0);
    fs::write(copy.join("dir0/below/file3"), "changed on the receiver").unwrap();
    raw_flags(&copy, READ_ONLY);

    fs::write(photos.join("new"), "new").unwrap();
    let second = push(&hosts, "nas2:photos");
    assert_full(&second, &["changed"]);
    let listed = hosts.receiver.ctl(&["copy", "list", "--json"]).success();
    let listed = listed.jsons();
    let shown = listed.iter().find(|c| c["uuid"] == first["uuid"]).unwrap();
    assert!(
        shown["unusable"].is_string(),
        "the list shows a changed copy like any other: {shown}"
    );
    assert_parent(&push(&hosts, "nas2:photos"), &second);
}

#[test]
fn a_copy_changed_with_stock_tools_is_never_a_parent() {
    let hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = push(&hosts, "nas2:photos");
    let copy = hosts.receiver.copy(&first);
    set_ro(&copy, "false");
    fs::write(copy.join("dir0/below/file3"), "changed on the receiver").unwrap();
    set_ro(&copy, "true");
    assert_full(&push(&hosts, "nas2:photos"), &[]);
}

const READ_ONLY: u64 = 2;

/// Sets the flags of a subvolume without the additional steps of `btrfs property set`.
fn raw_flags(path: &Path, flags: u64) {
    // BTRFS_IOC_SUBVOL_SETFLAGS
    let program = "import fcntl, os, struct, sys\n\
        fd = os.open(sys.argv[1], os.O_RDONLY)\n\
        fcntl.ioctl(fd, 0x4008941a, struct.pack('<Q', int(sys.argv[2])))";
    let flags = flags.to_string();
    tool("python3", &["-c", program, path.to_str().unwrap(), &flags]);
}

#[test]
fn a_deleted_hidden_snapshot_costs_a_full_send() {
    let hosts = pinned();
    fill::tree(&hosts.sender.photos(), 1);
    let first = push(&hosts, "nas2:photos");
    delete(&subvolumes::by_uuid(hosts.sender.fs(), &first["uuid"]));
    let second = push(&hosts, "nas2:photos");
    assert_full(&second, &[]);
    assert_parent(&push(&hosts, "nas2:photos"), &second);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_changed_hidden_snapshot_is_never_a_parent() {
    let hosts = pinned();
    fill::tree(&hosts.sender.photos(), 1);
    let first = push(&hosts, "nas2:photos");
    let hidden = subvolumes::by_uuid(hosts.sender.fs(), &first["uuid"]);
    raw_flags(&hidden, 0);
    fs::write(hidden.join("dir0/below/file3"), "changed").unwrap();
    fs::remove_file(hidden.join("dir0/below/file4")).unwrap();
    raw_flags(&hidden, READ_ONLY);
    let second = push(&hosts, "nas2:photos");
    assert_full(&second, &[]);
    assert_copy_of(
        &hosts.sender,
        &hosts.receiver,
        &second,
        &hosts.sender.photos(),
    );
}

/// Pushes different volumes by their paths, twice each, and asserts that each has its own directory and
/// its own history.
#[track_caller]
fn assert_apart(hosts: &Paired, volumes: &[PathBuf]) {
    let targets: Vec<_> = volumes
        .iter()
        .map(|path| format!("nas2:{}", path.display()))
        .collect();
    let first: Vec<_> = targets.iter().map(|t| hosts.sender.push(t)).collect();
    let dirs: BTreeSet<_> = first
        .iter()
        .map(|pushed| hosts.receiver.copy(pushed).parent().unwrap().to_owned())
        .collect();
    assert_eq!(
        dirs.len(),
        volumes.len(),
        "copies of different volumes are in one directory: {dirs:?}"
    );
    for (target, first) in targets.iter().zip(&first) {
        assert_full(first, &[]);
        assert_parent(&hosts.sender.push(target), first);
    }
}

#[test]
fn volumes_with_the_same_base_name_do_not_meet() {
    let setup = SenderHost::setup().volume("data", "data");
    let setup = setup.volume("other", "a/data").volume("another", "b/data");
    let mut hosts = Paired::of(setup.start());
    hosts.sender.reconfigure(&[("data", "data")]);
    let fs = hosts.sender.fs();
    assert_apart(
        &hosts,
        &["data", "a/data", "b/data"].map(|path| fs.join(path)),
    );
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn volumes_with_equal_derived_names_are_separate() {
    let setup = SenderHost::setup();
    let setup = setup.volume("x", "a/data").volume("y", "a-data");
    let mut hosts = Paired::of(setup.start());
    hosts.sender.reconfigure(&[]);
    let fs = hosts.sender.fs();
    assert_apart(&hosts, &["a/data", "a-data"].map(|path| fs.join(path)));
}

#[test]
fn volumes_at_the_same_place_of_two_file_systems_do_not_meet() {
    let mut hosts = Paired::of(SenderHost::setup().volume("x", "data").start());
    hosts.sender.reconfigure(&[]);
    let disk = LoopFs::new(256 << 20, &[], "").unwrap();
    streams::create(&disk.path().join("data")).unwrap();
    let here = hosts.sender.fs().join("data");
    assert_apart(&hosts, &[here, disk.path().join("data")]);
}

#[test]
fn a_path_is_not_mixed_up_with_a_configured_name() {
    let setup = SenderHost::setup();
    let setup = setup.volume("data", "srv/photos").volume("x", "data");
    let mut hosts = Paired::of(setup.start());
    hosts.sender.reconfigure(&[("data", "srv/photos")]);
    let fs = hosts.sender.fs();
    assert_apart(&hosts, &["srv/photos", "data"].map(|path| fs.join(path)));
}

#[test]
fn each_receiver_has_its_own_last_common_state() {
    let hosts = Paired::new();
    let other = ReceiverHost::new();
    pair(&hosts.sender, &other, "nas3");
    let photos = hosts.sender.photos();
    fill::tree(&photos, 1);
    let first = push(&hosts, "nas2:photos");
    let there = hosts.sender.push("nas3:photos");
    assert_full(&there, &[]);
    // Many pushes to nas2 while nas3 is absent must not delete what nas3 has.
    for i in 0..5 {
        fill::file(photos.join("changes"), i, 10_000);
        push(&hosts, "nas2:photos");
    }
    let after = hosts.sender.push("nas3:photos");
    assert_parent(&after, &there);
    assert_exact(&hosts.sender, &other, &after);
    assert_ne!(first["uuid"], there["uuid"]);
    assert_no_leftovers(&hosts.sender, &other);
}
