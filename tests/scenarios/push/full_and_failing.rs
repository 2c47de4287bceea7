//! Full and failing disks on either side: the logs and messages say what failed and where, copies stay
//! unchanged, and the push works once the cause is gone.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use sendshot_harness::compare::exact::{Reference, assert_exact, assert_same};
use sendshot_harness::compare::subvolumes::{
    self, assert_no_leftovers, assert_only_resumable_left,
};
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::faults::damage::Damage;
use sendshot_harness::faults::link::{Link, Rule, Way};
use sendshot_harness::hosts::command::{run, tool};
use sendshot_harness::hosts::pairing::{Linked, Paired, pair, pair_at};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::Value;

const MIB: usize = 1 << 20;

/// Fills a file system with data until it takes no more; returns the file to delete.
pub(crate) fn fill_with_data(dir: &Path) -> PathBuf {
    let path = dir.join("filler");
    let mut file = File::create(&path).unwrap();
    let noise = fill::noise(99, MIB);
    while file.write_all(&noise).is_ok() {}
    // Fills what is left of the last piece, too.
    let mut rest = File::create(dir.join("filler-rest")).unwrap();
    while rest.write_all(&noise[..4096]).is_ok() {}
    let _ = (file.sync_all(), rest.sync_all());
    path
}

/// Fills a file system's metadata: small files are stored in it as inline extents.
fn fill_with_metadata(dir: &Path) -> PathBuf {
    let filler = dir.join("filler-names");
    if fs::create_dir(&filler).is_err() {
        return filler; // no room even for a directory
    }
    let noise = fill::noise(98, 2000);
    for i in 0.. {
        if fs::write(filler.join(i.to_string()), &noise).is_err() {
            break;
        }
        if i % 2000 == 0 {
            File::open(&filler).unwrap().sync_all().ok();
        }
    }
    filler
}

fn make_room(fs: &Path) {
    for name in ["filler", "filler-rest", "filler-names"] {
        let path = fs.join(name);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else if path.exists() {
            fs::remove_file(path).unwrap();
        }
    }
    tool(
        "btrfs",
        &["filesystem".as_ref(), "sync".as_ref(), fs.as_os_str()],
    );
}

fn copies(receiver: &ReceiverHost) -> Vec<Value> {
    receiver.ctl(&["copy", "list", "--json"]).success().jsons()
}

/// Hosts of which the volume has been pushed once and has much new data since.
fn with_news(sender: SenderHost, receiver: ReceiverHost) -> (Paired, Value) {
    pair(&sender, &receiver, "nas2");
    let hosts = Paired { sender, receiver };
    fill::tree(&hosts.sender.photos(), 1);
    let first = hosts.sender.push("nas2:photos");
    fill::file(hosts.sender.photos().join("big"), 1, 60 * MIB);
    (hosts, first)
}

/// Asserts that after the repair the push works, incrementally to the common state.
#[track_caller]
fn works_again(hosts: &Paired, first: &Value) {
    let next = hosts.sender.push("nas2:photos");
    assert_eq!(next["parent"], first["uuid"], "all was sent again: {next}");
    assert_exact(&hosts.sender, &hosts.receiver, &next);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_receiver_with_full_data_is_named() {
    let receiver = ReceiverHost::with_size(300 << 20);
    let (hosts, first) = with_news(SenderHost::new(), receiver);
    fill_with_data(hosts.receiver.fs());
    let before = copies(&hosts.receiver);
    let push = hosts.sender.ctl(&["push", "nas2:photos"]);
    push.fails(1, &["receiver", "full", "free space"]);
    assert!(hosts.receiver.daemon.log().contains("is full"));
    assert_eq!(copies(&hosts.receiver), before, "copies were touched");
    assert_only_resumable_left(&hosts.sender, &hosts.receiver);
    make_room(hosts.receiver.fs());
    works_again(&hosts, &first);
}

#[test]
fn a_receiver_with_full_metadata_is_named() {
    let receiver = ReceiverHost::with_size(300 << 20);
    let (hosts, first) = with_news(SenderHost::new(), receiver);
    // Data chunks occupy all space into which metadata could grow.
    fill_with_data(hosts.receiver.fs());
    fill_with_metadata(&hosts.receiver.fs().join("backup"));
    let before = copies(&hosts.receiver);
    hosts
        .sender
        .ctl(&["push", "nas2:photos"])
        .fails(1, &["receiver", "full"]);
    assert_eq!(copies(&hosts.receiver), before, "copies were touched");
    fs::remove_dir_all(hosts.receiver.fs().join("backup/filler-names")).unwrap();
    make_room(hosts.receiver.fs());
    works_again(&hosts, &first);
}

#[test]
fn a_partial_on_a_full_receiver_is_resumed() {
    let sender = SenderHost::new();
    let receiver = ReceiverHost::setup()
        .size(300 << 20)
        .keys("checkpoint_bytes = \"4 MiB\"\ncheckpoint_interval = \"0s\"")
        .start();
    pair(&sender, &receiver, "nas2");
    let hosts = Paired { sender, receiver };
    fill::file(hosts.sender.photos().join("big"), 1, 100 * MIB);
    // Leaves room for about half of it.
    let filler = hosts.receiver.fs().join("filler");
    fill::file(&filler, 7, 140 * MIB);
    File::open(&filler).unwrap().sync_all().unwrap();
    hosts
        .sender
        .ctl(&["push", "nas2:photos"])
        .fails(1, &["full", "resumes where"]);
    assert_only_resumable_left(&hosts.sender, &hosts.receiver);
    make_room(hosts.receiver.fs());
    let pushed = hosts.sender.push("nas2:photos");
    assert!(pushed["resumed_at"].as_u64().is_some(), "{pushed}");
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_full_sender_still_pushes() {
    let sender = SenderHost::setup()
        .size(300 << 20)
        .volume("photos", "photos");
    let (hosts, first) = with_news(sender.start(), ReceiverHost::new());
    fill_with_data(hosts.sender.fs());
    let pushed = hosts.sender.ctl(&["push", "--json", "nas2:photos"]);
    if pushed.code == 0 {
        assert_eq!(pushed.json()["parent"], first["uuid"]);
    } else {
        // No room for a sendshot: reported at the start, and nothing was sent.
        pushed.fails(1, &["space"]);
        assert_eq!(copies(&hosts.receiver).len(), 1);
    }
    make_room(hosts.sender.fs());
    let next = hosts.sender.push("nas2:photos");
    assert_exact(&hosts.sender, &hosts.receiver, &next);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_full_sender_fails_the_push_at_its_start_not_at_its_end() {
    let sender = SenderHost::setup()
        .size(300 << 20)
        .volume("photos", "photos");
    let (hosts, first) = with_news(sender.start(), ReceiverHost::new());
    fill_with_data(hosts.sender.fs());
    fill_with_metadata(hosts.sender.fs());
    // No room even for a file name.
    let push = hosts.sender.ctl(&["push", "nas2:photos"]);
    push.fails(1, &["space"]);
    assert_eq!(
        copies(&hosts.receiver).len(),
        1,
        "it was sent before it failed"
    );
    make_room(hosts.sender.fs());
    works_again(&hosts, &first);
}

#[test]
fn a_sender_that_runs_full_in_the_middle_loses_nothing() {
    let sender = SenderHost::setup()
        .size(300 << 20)
        .volume("photos", "photos");
    let (sender, receiver) = (sender.start(), ReceiverHost::new());
    let link = Link::to(receiver.address());
    pair_at(&sender, &receiver, "nas2", link.address());
    let hosts = Linked {
        sender,
        link,
        receiver,
    };
    fill::tree(&hosts.sender.photos(), 1);
    let first = hosts.sender.push("nas2:photos");
    fill::file(hosts.sender.photos().join("big"), 1, 30 * MIB);
    hosts.link.set(Way::Up, Rule::Slow(8 << 20));
    let before = hosts.link.bytes(Way::Up);
    let push = hosts.sender.ctl_start(&["push", "--json", "nas2:photos"]);
    until::holds("data is sent", || {
        hosts.link.bytes(Way::Up) > before + 4 * MIB as u64
    });
    fill_with_data(hosts.sender.fs());
    fill_with_metadata(hosts.sender.fs());
    hosts.link.mend();
    // The file system decides whether there is room for a line in the journal.
    let output = push.finish();
    hosts.sender.daemon.may_log("");
    if output.code != 0 {
        output.fails(1, &[]);
    }
    make_room(hosts.sender.fs());
    hosts.sender.wait_until_released();
    let next = hosts.sender.push("nas2:photos");
    assert!(
        !next["parent"].is_null(),
        "all was sent again: {next}, {first}"
    );
    assert_exact(&hosts.sender, &hosts.receiver, &next);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn an_unreadable_file_is_named() {
    let (hosts, first) = with_news(SenderHost::new(), ReceiverHost::new());
    let content = fill::noise(4711, 64 << 10);
    let file = hosts.sender.photos().join("rotten");
    fs::write(&file, &content).unwrap();
    let damaged = Damage::of(hosts.sender.fs(), &file, &content);
    let push = hosts.sender.ctl(&["push", "nas2:photos"]);
    push.fails(1, &["rotten", "read"]);
    assert_eq!(
        copies(&hosts.receiver).len(),
        1,
        "a copy without it was made"
    );
    assert_only_resumable_left(&hosts.sender, &hosts.receiver);
    damaged.restore();
    works_again(&hosts, &first);
}

#[test]
fn a_failing_receiver_disk_is_reported_and_makes_no_copy() {
    // The disk accepts no more writes from some moment on: its image lies on a file system that is
    // smaller than the image.
    let outer = LoopFs::made_by(Command::new("mkfs.ext4").arg("-F"), 150 << 20, "").unwrap();
    let mut mkfs = Command::new("mkfs.btrfs");
    let disk = LoopFs::made_in(outer.path(), &mut mkfs, 1 << 30, "").unwrap();
    let root = disk.path().join("backup");
    fs::create_dir(&root).unwrap();
    let mut receiver = ReceiverHost::make(1 << 30, "");
    receiver.configure(&root);
    receiver.daemon.start();
    let sender = SenderHost::new();
    pair(&sender, &receiver, "nas2");
    fill::tree(&sender.photos(), 1);
    let first = sender.push("nas2:photos");
    let filler = fill_with_data(outer.path());
    fill::file(sender.photos().join("big"), 1, 60 * MIB);
    receiver.daemon.may_log("");
    sender.ctl(&["push", "nas2:photos"]).fails(1, &["receiver"]);
    receiver.daemon.kill();
    // The disk works again: the old copy is whole, and no copy of lost data exists.
    fs::remove_file(filler).unwrap();
    fs::remove_file(outer.path().join("filler-rest")).unwrap();
    disk.remount().unwrap();
    let copy = |pushed: &Value| root.join(pushed["copy"].as_str().unwrap());
    let names = fs::read_dir(copy(&first).parent().unwrap()).unwrap();
    let names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| !name.to_string_lossy().starts_with('.'))
        .collect();
    assert_eq!(
        names.len(),
        1,
        "a copy of what never reached the disk: {names:?}"
    );
    receiver.daemon.start();
    let next = sender.push("nas2:photos");
    assert_eq!(next["parent"], first["uuid"]);
    let reference = Reference::of(sender.fs(), &sender.photos());
    assert_same(reference.path(), &copy(&next));
    receiver.daemon.stop();
}

#[test]
fn a_receiver_that_becomes_read_only_is_reported() {
    let hosts = Linked::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = hosts.sender.push("nas2:photos");
    fill::file(hosts.sender.photos().join("big"), 1, 30 * MIB);
    hosts.link.set(Way::Up, Rule::Slow(8 << 20));
    let before = hosts.link.bytes(Way::Up);
    let push = hosts.sender.ctl_start(&["push", "nas2:photos"]);
    until::holds("data is sent", || {
        hosts.link.bytes(Way::Up) > before + 4 * MIB as u64
    });
    // Staging becomes read-only, as when the kernel has stopped writing.
    let all = subvolumes::list(hosts.receiver.fs());
    let staging = all.iter().find(|s| s.path.contains("/push-")).unwrap();
    let path = hosts.receiver.fs().join(&staging.path);
    let mut btrfs = Command::new("btrfs");
    run(btrfs
        .args(["property", "set"])
        .arg(&path)
        .args(["ro", "true"]))
    .success();
    hosts.link.mend();
    push.finish()
        .fails(1, &["staging subvolume was made read-only"]);
    until::holds("staging is gone", || {
        let all = subvolumes::list(hosts.receiver.fs());
        all.iter().all(|s| !s.path.contains("/push-"))
    });
    let next = hosts.sender.push("nas2:photos");
    assert_eq!(next["parent"], first["uuid"]);
    assert_exact(&hosts.sender, &hosts.receiver, &next);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_root_that_is_unmounted_between_two_pushes_is_not_filled() {
    let hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = hosts.sender.push("nas2:photos");
    fill::file(hosts.sender.photos().join("big"), 1, MIB);
    let root = hosts.receiver.root();
    // Another directory takes the root's place, as when the disk is not mounted.
    let aside = hosts.receiver.fs().join("aside");
    fs::rename(&root, &aside).unwrap();
    fs::create_dir(&root).unwrap();
    hosts
        .sender
        .ctl(&["push", "nas2:photos"])
        .fails(1, &["mount the disk"]);
    assert_eq!(
        fs::read_dir(&root).unwrap().count(),
        0,
        "an empty root was filled"
    );
    fs::remove_dir(&root).unwrap();
    fs::rename(&aside, &root).unwrap();
    works_again(&hosts, &first);
}
