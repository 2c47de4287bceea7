//! Volumes at any mount point and with any content, and subvolumes on the disks that are
//! not Sendshot's: they stay unchanged.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use sendshot_harness::compare::exact::{
    Reference, assert_copy, assert_exact, assert_same, assert_same_but,
};
use sendshot_harness::compare::subvolumes::{self, Subvolume, assert_no_leftovers};
use sendshot_harness::disks::loopfs::unmount_free;
use sendshot_harness::disks::mount::{self, Mount};
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::pairing::{Paired, pair};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::every_file_kind;
use sendshot_harness::trees::fill;
use serde_json::{Value, json};

fn names(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_str().unwrap())
        .collect()
}

/// Returns the messages of a plan and of a push of `target`.
#[track_caller]
fn messages(sender: &SenderHost, target: &str) -> [String; 2] {
    let plan = sender.ctl(&["plan", target]).success();
    let push = sender.ctl(&["push", target]).success();
    [plan, push].map(|output| output.stdout + &output.stderr)
}

#[test]
fn a_volume_mounted_without_its_top_level_is_pushed() {
    // The usual Debian and openSUSE layout: the top level is not mounted.
    let sender = SenderHost::setup().volume("unused", "@photos").make();
    let fs = sender.fs().to_owned();
    let image = mount::image(&fs);
    unmount_free(&fs).unwrap();
    mount::mount(&image, &fs, "loop,subvol=@photos");
    let mut sender = sender;
    sender.configure([("photos", Path::new(""))]);
    sender.daemon.start();
    let receiver = ReceiverHost::new();
    pair(&sender, &receiver, "nas2");

    every_file_kind::fill(&fs);
    let first = sender.push("nas2:photos");
    every_file_kind::change(&fs);
    let second = sender.push("nas2:photos");
    let top = Mount::private(&mount::devices(&fs)[0], "subvolid=5");
    let reference = Reference::of(top.path(), &top.path().join("@photos"));
    assert_eq!(second["parent"], first["uuid"]);
    assert_eq!(second["skipped"], json!([]));
    let names: BTreeSet<_> = fs::read_dir(&fs)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        !names.contains(OsStr::new(".sendshot")),
        "the user's tree shows what is ours"
    );

    let copy = assert_copy(&receiver, &second);
    assert_same(reference.path(), &copy);
    let mode = fs::metadata(top.path().join(".sendshot")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o7777,
        0o700
    );
}

#[test]
fn nested_subvolumes_are_named_as_left_out() {
    let setup = SenderHost::setup().volume("photos", "photos");
    let setup = setup
        .volume("a", "photos/nested")
        .volume("b", "photos/dir/deep");
    let hosts = Paired::of(setup.volume("c", "photos/nested/in nested").start());
    let Paired { sender, receiver } = &hosts;
    let photos = sender.photos();
    for dir in [&photos, &photos.join("nested"), &photos.join("dir/deep")] {
        fs::write(dir.join("file"), "content").unwrap();
    }
    for text in messages(sender, "nas2:photos") {
        for path in ["dir/deep", "nested"] {
            assert!(
                text.contains(path),
                "{path} is left out without a message: {text}"
            );
        }
    }
    let planned = sender
        .ctl(&["plan", "--json", "nas2:photos"])
        .success()
        .json();
    let pushed = sender.push("nas2:photos");
    for report in [&planned, &pushed] {
        let mut skipped = names(&report["skipped"]);
        skipped.sort_unstable();
        // Subvolumes within a nested one are reported only for that one.
        skipped.retain(|path| *path != "nested/in nested");
        assert_eq!(
            skipped,
            ["dir/deep", "nested"],
            "data is left out without a message"
        );
    }
    let reference = Reference::of(sender.fs(), &photos);
    let left_out = ["dir/deep", "nested"];
    assert_same_but(reference.path(), &receiver.copy(&pushed), &left_out);
    drop(reference);

    // A nested subvolume can be pushed like any other volume.
    let nested = sender.push(&format!("nas2:{}", photos.join("nested").display()));
    assert_eq!(names(&nested["skipped"]), ["in nested"]);
    assert!(receiver.copy(&nested).join("file").exists());
    let status = sender.ctl(&["status"]).success().stdout;
    for path in ["dir/deep", "nested"] {
        assert!(
            status.contains(path),
            "status does not name {path}: {status}"
        );
    }
}

#[test]
fn a_top_level_volume_does_not_contain_dot_sendshot() {
    let setup = SenderHost::setup().volume("own", "home");
    let hosts = Paired::of(setup.configured("all", "").start());
    let Paired { sender, receiver } = &hosts;
    every_file_kind::fill(&sender.fs().join("home"));
    fs::create_dir(sender.fs().join("etc")).unwrap();
    fs::write(sender.fs().join("etc/passwd"), "root").unwrap();
    let mut last = Value::Null;
    for round in 0..3 {
        fs::write(sender.fs().join("round"), round.to_string()).unwrap();
        let pushed = sender.push("nas2:all");
        assert_eq!(pushed["parent"], last["uuid"]);
        assert_eq!(
            names(&pushed["skipped"]),
            ["home"],
            "ours is not the user's concern"
        );
        let reference = Reference::of(sender.fs(), sender.fs());
        let ours = reference.path().join(".sendshot").exists();
        let left_out = ["home", ".sendshot"];
        assert_same_but(
            reference.path(),
            &assert_copy(receiver, &pushed),
            &left_out[..1 + usize::from(ours)],
        );
        last = pushed;
    }
}

#[test]
fn a_read_only_snapshot_is_pushed_as_it_is_and_left_alone() {
    let hosts = Paired::new();
    let Paired { sender, receiver } = &hosts;
    let photos = sender.photos();
    every_file_kind::fill(&photos);
    let snapshot = sender.fs().join("monday");
    streams::snapshot(&photos, &snapshot).unwrap();
    let before = subvolumes::others(sender.fs());
    let uuid_of = |path: &str| {
        let all = subvolumes::list(sender.fs());
        json!(all.iter().find(|s| s.path == path).unwrap().uuid)
    };
    every_file_kind::change(&photos);

    let target = format!("nas2:{}", snapshot.display());
    let first = sender.push(&target);
    assert_eq!(
        first["uuid"],
        uuid_of("monday"),
        "another snapshot than the one that was named"
    );
    assert_same(&snapshot, &assert_copy(receiver, &first));
    assert_eq!(
        subvolumes::others(sender.fs()),
        before,
        "the user's snapshot was touched"
    );

    let again = sender.ctl(&["push", &target]).success();
    let text = again.stdout.clone() + &again.stderr;
    assert!(
        text.contains("nothing to do") || text.contains("already"),
        "a second copy of the same, or no word on why not: {text}"
    );
    let copies = receiver.ctl(&["copy", "list", "--json"]).success().jsons();
    assert_eq!(copies.len(), 1, "{copies:?}");
    let again = sender.push(&target);
    for field in [
        "volume",
        "receiver",
        "uuid",
        "parent_reason",
        "stream_bytes",
        "wire_bytes",
    ] {
        assert!(
            !again[field].is_null(),
            "a script misses `{field}`: {again}"
        );
    }

    // The snapshot belongs to its volume: the next push builds on it.
    let next = sender.push("nas2:photos");
    assert_eq!(next["parent"], first["uuid"], "{next}");
    assert_exact(sender, receiver, &next);
    assert!(snapshot.exists());
    sender.push("nas2:photos");
    assert!(snapshot.exists(), "a user's snapshot was pruned");
}

/// Makes a snapshot as snapper does: in a nested subvolume with a directory for each.
fn snapper(volume: &Path, number: u32) {
    let all = volume.join(".snapshots");
    if !all.exists() {
        streams::create(&all).unwrap();
    }
    let dir = all.join(number.to_string());
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("info.xml"), "<?xml version=\"1.0\"?><snapshot/>").unwrap();
    streams::snapshot(volume, &dir.join("snapshot")).unwrap();
}

fn received_by_others(fs: &Path) -> BTreeSet<Subvolume> {
    let theirs =
        |path: &str| !path.starts_with("backup/nas1/photos/2") && !path.contains(".sendshot");
    let all = subvolumes::list(fs).into_iter();
    all.filter(|s| theirs(&s.path))
        .map(|s| Subvolume { generation: 0, ..s })
        .collect()
}

#[test]
fn other_peoples_snapshots_are_never_touched() {
    let mut hosts = Paired::new();
    let photos = hosts.sender.photos();
    let (here, there) = (hosts.sender.fs().to_owned(), hosts.receiver.fs().to_owned());
    fill::tree(&photos, 1);
    snapper(&photos, 1);
    let first = hosts.sender.push("nas2:photos");
    assert_eq!(names(&first["skipped"]), [".snapshots"]);

    // On both sides, also in directories that belong to Sendshot.
    snapper(&photos, 2);
    streams::snapshot(&photos, &here.join("mine")).unwrap();
    streams::snapshot(&photos, &here.join(".sendshot/snapshots/mine")).unwrap();
    let like_ours = ".sendshot/snapshots/01234567-89ab-4def-8123-456789abcdef";
    streams::snapshot(&photos, &here.join(like_ours)).unwrap();
    let copy = hosts.receiver.copy(&first);
    streams::snapshot(&copy, &there.join("mine")).unwrap();
    streams::create(&there.join("backup/nas1/photos/mine")).unwrap();
    streams::create(&there.join("backup/nas1/photos/20200101T000000Z")).unwrap();
    streams::create(&there.join("backup/nas1/theirs")).unwrap();
    streams::create(&there.join("backup/theirs")).unwrap();
    let staging = there.join("backup/.sendshot-staging");
    if staging.exists() {
        streams::create(&staging.join("mine")).unwrap();
    }
    let before = (subvolumes::others(&here), received_by_others(&there));
    let theirs_in_ours = [here.join(".sendshot/snapshots/mine"), here.join(like_ours)];

    for round in 0..3 {
        fill::file(photos.join("changes"), round, 10_000);
        let pushed = hosts.sender.push("nas2:photos");
        assert!(pushed["parent"].is_string(), "{pushed}");
        hosts.sender.daemon.kill();
        hosts.receiver.daemon.kill();
        hosts.receiver.daemon.start();
        hosts.sender.daemon.start();
    }
    let after = (subvolumes::others(&here), received_by_others(&there));
    assert_eq!(after.0, before.0, "the sender touched what is not ours");
    assert_eq!(after.1, before.1, "the receiver touched what is not ours");
    for path in theirs_in_ours {
        assert!(
            path.exists(),
            "{} was deleted, though no journal has it",
            path.display()
        );
    }
    if staging.exists() {
        assert!(
            staging.join("mine").exists(),
            "a subvolume that we never made was deleted"
        );
    }
}

#[test]
fn the_disk_can_be_unplugged_between_pushes() {
    let hosts = Paired::new();
    let Paired { sender, receiver } = &hosts;
    fill::tree(&sender.photos(), 1);
    let first = sender.push("nas2:photos");
    for (side, fs) in [("sender", sender.fs()), ("receiver", receiver.fs())] {
        let image = mount::image(fs);
        unmount_free(fs).unwrap();
        let devices = mount::devices(fs);
        assert!(
            devices.is_empty(),
            "the {side}'s disk is unmounted and still busy: {devices:?}"
        );
        mount::mount(&image, fs, "loop");
    }
    // After plugging in again, pushes continue.
    let second = sender.push("nas2:photos");
    assert_eq!(second["parent"], first["uuid"]);
    assert_exact(sender, receiver, &second);
}

/// Hosts with much unwritten data, so that the stage after a push takes a while, and after a push by
/// the kernel engine, whose snapshot the next push deletes.
fn slow_to_release() -> (Paired, Value) {
    let hosts = Paired::of(
        SenderHost::setup()
            .volume("photos", "photos")
            .volume("other", "other")
            .start(),
    );
    fill::tree(&hosts.sender.photos(), 1);
    let options = ["--engine", "kernel"];
    let first = hosts.sender.push_with("nas2:photos", &options);
    for i in 0..4 {
        fill::file(hosts.sender.fs().join(format!("other/{i}")), i, 64 << 20);
    }
    (hosts, first)
}

fn hidden(sender: &SenderHost) -> usize {
    let all = subvolumes::list(sender.fs()).into_iter();
    all.filter(|s| s.path.starts_with(".sendshot/")).count()
}

#[test]
fn the_disk_is_free_right_after_a_push() {
    let (hosts, _) = slow_to_release();
    let Paired { sender, receiver } = &hosts;
    sender.ctl(&["push", "nas2:photos"]).success();
    let image = mount::image(sender.fs());
    // The daemon's own mount does not block an unmount.
    unmount_free(sender.fs()).unwrap();
    until::holds("the disk is free", || {
        mount::devices(sender.fs()).is_empty()
    });
    sender.wait_until_released();
    mount::mount(&image, sender.fs(), "loop");
    assert_eq!(hidden(sender), 0, "the snapshots were not deleted");
    assert_no_leftovers(sender, receiver);
}

#[test]
fn a_push_waits_for_the_release_of_the_one_before() {
    let (hosts, mut last) = slow_to_release();
    for round in 0..5 {
        fs::write(hosts.sender.photos().join("file"), round.to_string()).unwrap();
        let output = hosts.sender.ctl(&["push", "--json", "nas2:photos"]);
        let pushed = output.success().json();
        assert_eq!(pushed["parent"], last["uuid"]);
        last = pushed;
    }
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_daemon_completes_the_release_before_it_stops() {
    let (mut hosts, _) = slow_to_release();
    hosts.sender.ctl(&["push", "nas2:photos"]).success();
    hosts.sender.daemon.stop();
    assert_eq!(hidden(&hosts.sender), 0, "the snapshots were not deleted");
}

#[test]
fn a_crash_before_release_is_cleaned_up_later() {
    let (mut hosts, _) = slow_to_release();
    let pushed = hosts.sender.ctl(&["push", "--json", "nas2:photos"]);
    let pushed = pushed.success().json();
    hosts.sender.daemon.kill();
    hosts.sender.daemon.start();
    fs::write(hosts.sender.photos().join("file"), "more").unwrap();
    let next = hosts.sender.push("nas2:photos");
    assert_eq!(next["parent"], pushed["uuid"]);
    assert_eq!(hidden(&hosts.sender), 0, "the snapshots were not deleted");
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_missing_disk_is_reported_and_nothing_is_lost() {
    let mut hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = hosts.sender.push("nas2:photos");
    let fs = hosts.sender.fs().to_owned();
    let image = mount::image(&fs);
    unmount_free(&fs).unwrap();
    hosts.sender.daemon.stop();
    hosts.sender.daemon.start();
    let photos = fs.join("photos");
    hosts
        .sender
        .ctl(&["push", "nas2:photos"])
        .fails(2, &[photos.to_str().unwrap()]);
    mount::mount(&image, &fs, "loop");
    let second = hosts.sender.push("nas2:photos");
    assert_eq!(
        second["parent"], first["uuid"],
        "the history of a disk that was away is lost"
    );
}
