//! A copy takes the place of its volume, and the chain continues.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use sendshot_harness::compare::exact::{Reference, assert_exact, assert_same};
use sendshot_harness::compare::subvolumes;
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::mount::{self, Mount};
use sendshot_harness::disks::streams::{self, Format};
use sendshot_harness::faults::link::{Link, Rule, Way};
use sendshot_harness::hosts::command;
use sendshot_harness::hosts::pairing::Paired;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use sendshot_sys::subvolume::{Access, set_access};
use serde_json::Value;

fn push(hosts: &Paired) -> Value {
    let pushed = hosts.sender.ctl(&["--json", "push", "nas2:photos"]);
    pushed.success().json()
}

fn restore(hosts: &Paired, options: &[&str]) -> Value {
    let mut all = vec!["--json", "nas2:photos", "--in-place"];
    all.extend(options);
    hosts.sender.restore(&all).success().json()
}

/// Makes a volume of more than 20 MiB, pushes it, and changes it.
fn damaged() -> (Paired, Reference) {
    let hosts = Paired::new();
    hosts.receiver.grant("nas1");
    fill::tree(&hosts.sender.photos(), 1);
    fill::file(hosts.sender.photos().join("big"), 2, 24 << 20);
    let reference = Reference::of(hosts.sender.fs(), &hosts.sender.photos());
    push(&hosts);
    damage(&hosts);
    (hosts, reference)
}

fn damage(hosts: &Paired) {
    let photos = hosts.sender.photos();
    fs::remove_file(photos.join("big")).unwrap();
    fs::write(photos.join("ransom note"), "pay").unwrap();
}

fn old_volumes(hosts: &Paired) -> Vec<PathBuf> {
    let entries = fs::read_dir(hosts.sender.fs()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut old: Vec<_> = paths
        .filter(|path| path.to_string_lossy().contains(".before-restore-"))
        .collect();
    old.sort();
    old
}

#[track_caller]
fn assert_restored(hosts: &Paired, reference: &Reference) {
    let snapshot = Reference::of(hosts.sender.fs(), &hosts.sender.photos());
    assert_same(reference.path(), snapshot.path());
}

/// Changes a little, pushes, and compares the length of the stream with that of the kernel's own send.
#[track_caller]
fn assert_incremental(hosts: &Paired) {
    let photos = hosts.sender.photos();
    let before = Reference::of(hosts.sender.fs(), &photos);
    fill::file(photos.join("more"), 3, 1 << 20);
    fs::rename(photos.join("more"), photos.join("moved")).unwrap();
    let after = Reference::of(hosts.sender.fs(), &photos);
    let kernel = streams::send(Format::V2, Some(before.path()), after.path()).unwrap();
    let pushed = push(hosts);
    assert!(pushed["parent"].is_string(), "a full send: {pushed}");
    let (ours, theirs) = (
        pushed["stream_bytes"].as_u64().unwrap(),
        kernel.len() as u64,
    );
    println!("push after the restore: {ours} bytes, the kernel's send -p: {theirs}");
    assert!(ours * 100 <= theirs * 105, "{ours} of {theirs}");
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
}

#[test]
fn the_next_push_is_incremental() {
    let (hosts, reference) = damaged();
    let restored = restore(&hosts, &[]);
    assert_restored(&hosts, &reference);
    let old = old_volumes(&hosts);
    assert_eq!(restored["replaced"], old[0].to_str().unwrap());
    assert_eq!(
        fs::read_to_string(old[0].join("ransom note")).unwrap(),
        "pay"
    );
    assert!(!old[0].join("big").exists());
    // Both sendshots have the identity of the same copy; their lineages differ.
    let listed = hosts.sender.ctl(&["--json", "list"]).success().jsons();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_incremental(&hosts);
    let received = subvolumes::list(hosts.sender.fs());
    let photos = received
        .iter()
        .find(|s| s.path.ends_with("photos"))
        .unwrap();
    assert_eq!(
        photos.received_uuid, "-",
        "a received UUID would be a lie from now on"
    );
}

#[test]
fn an_older_copy_and_its_chain_come_back() {
    let (hosts, reference) = damaged();
    let first = hosts
        .sender
        .restore(&["--json", "--list", "nas2:photos"])
        .success()
        .json();
    let name = first["copies"][0]["name"].as_str().unwrap().to_owned();
    push(&hosts);
    restore(&hosts, &["--at", &name]);
    assert_restored(&hosts, &reference);
    assert_incremental(&hosts);
}

#[test]
fn a_deleted_volume_comes_back_to_its_place() {
    let (hosts, reference) = damaged();
    streams::delete(&hosts.sender.photos()).unwrap();
    let restored = restore(&hosts, &[]);
    assert_eq!(restored["replaced"], Value::Null);
    assert_restored(&hosts, &reference);
    assert_incremental(&hosts);
}

#[test]
fn a_host_with_a_new_disk_goes_on_where_the_old_one_stopped() {
    let (hosts, reference) = damaged();
    let content = Reference::of(hosts.sender.fs(), reference.path());
    let Paired { sender, receiver } = hosts;
    // The disk, the key and all records of the old host are gone.
    let new = SenderHost::setup().volume("photos", "photos").make();
    streams::delete(&new.photos()).unwrap();
    let mut new = new;
    new.daemon.start();
    let token = receiver.invite(&["nas1", "--replace"]);
    let address = receiver.address().to_string();
    new.ctl(&["pair", &address, "--name", "nas2", "--token", &token])
        .success();
    let hosts = Paired {
        sender: new,
        receiver,
    };
    restore(&hosts, &[]);
    let snapshot = Reference::of(hosts.sender.fs(), &hosts.sender.photos());
    assert_same(content.path(), snapshot.path());
    assert_incremental(&hosts);
    drop((content, reference, sender));
}

#[test]
fn it_works_without_the_daemon_and_on_an_unmounted_disk() {
    let (mut hosts, reference) = damaged();
    hosts.sender.daemon.stop();
    let device = mount::devices(hosts.sender.fs())[0].clone();
    let reference_tree = Reference::of(hosts.sender.fs(), reference.path());
    // The loop device lives as long as a descriptor of it is open.
    let plugged_in = File::open(&device).unwrap();
    command::tool("umount", &[hosts.sender.fs()]);
    let device_text = device.to_str().unwrap().to_owned();
    let restored = hosts.sender.restore(&[
        "--json",
        "nas2:photos",
        "--in-place",
        "--device",
        &device_text,
    ]);
    mount::mount(&device, hosts.sender.fs(), "rw");
    drop(plugged_in);
    let restored = restored.success().json();
    let kept = restored["replaced"].as_str().unwrap();
    assert!(
        kept.starts_with("photos.before-restore-") && hosts.sender.fs().join(kept).exists(),
        "nothing shows it at a path: {kept}"
    );
    assert_restored(&hosts, &reference);
    hosts.sender.daemon.start();
    assert_incremental(&hosts);
    drop(reference_tree);
}

#[test]
fn a_mounted_or_open_volume_is_refused() {
    let (hosts, _reference) = damaged();
    let open = File::open(hosts.sender.photos()).unwrap();
    let all = ["nas2:photos", "--in-place"];
    let refused = hosts
        .sender
        .restore(&all)
        .fails(4, &["is in use", "open files", "--while-in-use"]);
    assert!(
        refused.stderr.contains(&std::process::id().to_string()),
        "{refused:?}"
    );
    drop(open);
    let device = mount::devices(hosts.sender.fs())[0].clone();
    let mounted = Mount::private(&device, "subvol=photos");
    let at = mounted.path().to_str().unwrap().to_owned();
    hosts
        .sender
        .restore(&all)
        .fails(4, &["it is mounted at", &at]);
    drop(mounted);
    assert!(old_volumes(&hosts).is_empty());
}

#[test]
fn a_writer_on_the_old_mount_loses_nothing() {
    let (hosts, reference) = damaged();
    let device = mount::devices(hosts.sender.fs())[0].clone();
    let mounted = Mount::private(&device, "subvol=photos");
    let log = mounted.path().join("log");
    let mut writer = File::create(&log).unwrap();
    let mut written = String::new();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = std::sync::Arc::clone(&stop);
    let writing = std::thread::spawn(move || {
        let mut n = 0;
        while !told.load(std::sync::atomic::Ordering::Relaxed) {
            let line = format!("line {n}\n");
            writer.write_all(line.as_bytes()).unwrap();
            written += &line;
            n += 1;
        }
        writer.sync_all().unwrap();
        written
    });
    let restored = hosts
        .sender
        .restore(&["nas2:photos", "--in-place", "--while-in-use"])
        .success();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let written = writing.join().unwrap();
    let remount = "mount -o subvol=/photos UUID=";
    assert!(restored.stderr.contains(remount), "{restored:?}");
    assert!(
        restored.stderr.contains(mounted.path().to_str().unwrap()),
        "{restored:?}"
    );
    assert_restored(&hosts, &reference);
    let old = old_volumes(&hosts);
    assert_eq!(fs::read_to_string(old[0].join("log")).unwrap(), written);
    // A volume that is configured by the old mount is not pushed: it is the old one.
    let mut hosts = hosts;
    hosts.sender.configure([("photos", mounted.path())]);
    hosts.sender.daemon.stop();
    hosts.sender.daemon.start();
    hosts.sender.ctl(&["push", "nas2:photos"]).fails(
        4,
        &[
            "still opens the volume that was replaced",
            "mount the restored volume there",
        ],
    );
    drop(mounted);
    hosts.sender.configure([("photos", Path::new("photos"))]);
    hosts.sender.daemon.stop();
    hosts.sender.daemon.start();
    assert_incremental(&hosts);
}

#[test]
fn what_cannot_be_exchanged_is_refused() {
    let (hosts, _reference) = damaged();
    let photos = hosts.sender.photos();
    streams::create(&photos.join("nested")).unwrap();
    let all = ["nas2:photos", "--in-place"];
    hosts.sender.restore(&all).fails(
        2,
        &[
            "holds nested subvolumes",
            "nested",
            "exchange them yourself",
        ],
    );
    streams::delete(&photos.join("nested")).unwrap();
    let id = command::tool(
        "btrfs",
        &["inspect-internal", "rootid", photos.to_str().unwrap()],
    );
    let fs_path = hosts.sender.fs().to_str().unwrap();
    command::tool("btrfs", &["subvolume", "set-default", id.trim(), fs_path]);
    hosts
        .sender
        .restore(&all)
        .fails(2, &["is the default subvolume"]);
    command::tool("btrfs", &["subvolume", "set-default", "5", fs_path]);
    hosts
        .sender
        .restore(&["nas2:/srv/elsewhere", "--in-place"])
        .fails(2, &["is not a volume of sender.toml"]);
    restore(&hosts, &[]);
}

#[test]
fn killed_at_any_step_it_is_completed_by_the_same_command() {
    for point in [
        "restore-staged",
        "restore-swap-recorded",
        "restore-beside",
        "restore-exchanged",
    ] {
        let (hosts, reference) = damaged();
        let mut command = hosts.sender.restore_command(&["nas2:photos", "--in-place"]);
        command.env("FAILPOINTS", format!("{point}=return"));
        let killed = command::run(&mut command);
        assert_ne!(killed.code, 0, "{point} was not reached");
        assert!(
            hosts.sender.photos().join("big").exists()
                || hosts.sender.photos().join("ransom note").exists()
        );
        restore(&hosts, &[]);
        assert_restored(&hosts, &reference);
        // Each of these is a restore of its own; none may touch what the earlier ones have put aside.
        for _ in 0..10 {
            restore(&hosts, &[]);
        }
        let old = old_volumes(&hosts);
        let kept = old.iter().filter(|path| path.join("ransom note").exists());
        assert_eq!(
            kept.count(),
            1,
            "{point}: the old volume is not under its name: {old:?}"
        );
        assert_incremental(&hosts);
    }
}

#[test]
fn the_daemon_killed_while_it_records_leaves_nothing_half() {
    for point in ["restore-intent", "restore-captured", "restore-recorded"] {
        let (mut hosts, reference) = damaged();
        hosts.sender.daemon.stop();
        hosts
            .sender
            .daemon
            .env("FAILPOINTS", &format!("{point}=return"));
        hosts.sender.daemon.start();
        hosts
            .sender
            .restore(&["nas2:photos", "--in-place"])
            .fails(1, &["sendshot-sender was lost"]);
        assert!(
            hosts
                .sender
                .daemon
                .wait_dead(std::time::Duration::from_secs(5)),
            "{point}"
        );
        assert!(
            hosts.sender.photos().join("ransom note").exists(),
            "{point}"
        );
        hosts.sender.daemon.clear_env();
        hosts.sender.daemon.start();
        restore(&hosts, &[]);
        assert_restored(&hosts, &reference);
        assert_incremental(&hosts);
    }
}

#[test]
fn no_push_runs_meanwhile() {
    let sender = SenderHost::new();
    let receiver = ReceiverHost::new();
    let link = sendshot_harness::faults::link::Link::to(receiver.address());
    sendshot_harness::hosts::pairing::pair_at(&sender, &receiver, "nas2", link.address());
    receiver.grant("nas1");
    fill::file(sender.photos().join("big"), 2, 24 << 20);
    sender.ctl(&["push", "nas2:photos"]).success();
    link.set(
        sendshot_harness::faults::link::Way::Down,
        sendshot_harness::faults::link::Rule::Slow(4 << 20),
    );
    let mut command = sender.restore_command(&["nas2:photos", "--in-place"]);
    let running = command::Running::start(&mut command);
    // The volume is held before the first byte of the copy comes.
    let before = link.bytes(sendshot_harness::faults::link::Way::Down);
    sendshot_harness::hosts::until::holds("the restore runs", || {
        link.bytes(sendshot_harness::faults::link::Way::Down) > before + (1 << 20)
    });
    sender
        .ctl(&["push", "nas2:photos"])
        .fails(4, &["is being restored in its place"]);
    link.mend();
    link.set(
        sendshot_harness::faults::link::Way::Down,
        sendshot_harness::faults::link::Rule::Pass,
    );
    running.finish().success();
    sender.ctl(&["push", "nas2:photos"]).success();
}

/// Runs a restore in place on the disk while it is not mounted, once for each crash point and once to its end.
fn restore_unmounted(hosts: &Paired, device: &Path, crash_points: &[&str]) -> Value {
    let device_text = device.to_str().unwrap().to_owned();
    let options = [
        "--json",
        "nas2:photos",
        "--in-place",
        "--device",
        &device_text,
    ];
    for point in crash_points {
        let mut command = hosts.sender.restore_command(&options);
        command.env("FAILPOINTS", format!("{point}=return"));
        assert_ne!(
            command::run(&mut command).code,
            0,
            "{point} was not reached"
        );
    }
    hosts.sender.restore(&options).success().json()
}

#[test]
fn killed_on_an_unmounted_disk_it_still_exchanges_the_users_volume() {
    for points in [
        &["restore-swap-recorded"][..],
        &["restore-recorded"],
        &["restore-recorded", "restore-recorded", "restore-beside"],
        &["restore-exchanged"],
    ] {
        let (mut hosts, reference) = damaged();
        hosts.sender.daemon.stop();
        let device = mount::devices(hosts.sender.fs())[0].clone();
        let plugged_in = File::open(&device).unwrap();
        command::tool("umount", &[hosts.sender.fs()]);
        restore_unmounted(&hosts, &device, points);
        // The records name the volume that was put aside.
        let again = restore_unmounted(&hosts, &device, &[]);
        mount::mount(&device, hosts.sender.fs(), "rw");
        drop(plugged_in);
        let kept = again["replaced"].as_str().unwrap().to_owned();
        assert!(
            hosts.sender.fs().join(kept).join("big").exists(),
            "{points:?}"
        );
        let before = paths(&hosts);
        hosts.sender.daemon.start();
        assert_eq!(
            paths(&hosts),
            before,
            "the daemon deleted something: {points:?}"
        );
        assert_restored(&hosts, &reference);
        let old = old_volumes(&hosts);
        assert_eq!(old.len(), 2, "{points:?}: {old:?}");
        assert!(old.iter().any(|path| path.join("ransom note").exists()));
        assert_incremental(&hosts);
    }
}

fn paths(hosts: &Paired) -> Vec<PathBuf> {
    let all = subvolumes::list(hosts.sender.fs()).into_iter();
    all.map(|subvolume| subvolume.path.into()).collect()
}

#[test]
fn a_killed_recording_binds_nothing_to_what_is_deleted() {
    let (mut hosts, reference) = damaged();
    let mut command = hosts.sender.restore_command(&["nas2:photos", "--in-place"]);
    command.env("FAILPOINTS", "restore-beside=return");
    assert_ne!(command::run(&mut command).code, 0);
    // It is another subvolume now, and the user pushes it without completing the restore.
    let pushed = push(&hosts);
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    hosts.sender.daemon.stop();
    hosts.sender.daemon.start();
    let listed = hosts.sender.restore(&["--json", "--list", "nas2:photos"]);
    let listed = listed.success().json();
    let name = listed["copies"][0]["name"].as_str().unwrap().to_owned();
    restore(&hosts, &["--at", &name]);
    assert_restored(&hosts, &reference);
    assert_incremental(&hosts);
}

#[test]
fn another_receiver_that_reports_the_same_state_gets_all_of_the_data() {
    let sender = SenderHost::new();
    let receivers = [ReceiverHost::new(), ReceiverHost::new()];
    for (receiver, name) in receivers.iter().zip(["nas2", "nas3"]) {
        sendshot_harness::hosts::pairing::pair(&sender, receiver, name);
    }
    receivers[0].grant("nas1");
    fill::tree(&sender.photos(), 1);
    fill::file(sender.photos().join("big"), 2, 24 << 20);
    // A snapshot of the user's has one UUID, by which both receivers know it.
    let snapshot = sender.fs().join("snapshot");
    streams::snapshot(&sender.photos(), &snapshot).unwrap();
    for name in ["nas2", "nas3"] {
        sender.push_with(&format!("{name}:{}", snapshot.display()), &[]);
    }
    let copies = sender
        .restore(&["--json", "--list", "nas2"])
        .success()
        .json();
    let volume = copies["volume"].as_str().unwrap().to_owned();
    assert_eq!(volume, "photos", "{copies}");
    let restored = sender
        .restore(&["--json", "nas2:photos", "--in-place"])
        .success()
        .json();
    assert_eq!(
        restored["next_push"]["builds_on"], "this_copy",
        "{restored}"
    );
    let [from, other] = ["nas2:photos", "nas3:photos"].map(|target| sender.push(target));
    let bytes = |pushed: &Value| pushed["stream_bytes"].as_u64().unwrap();
    assert!(bytes(&from) < 1 << 20, "{from}");
    // nas2 could have sent anything as that state: nothing of it may be assumed to be at nas3.
    assert!(bytes(&other) > 24 << 20, "{other}");
    assert_exact(&sender, &receivers[0], &from);
    assert_exact(&sender, &receivers[1], &other);
}

#[test]
fn a_tree_that_may_differ_from_the_copy_is_no_parent() {
    let (hosts, _reference) = damaged();
    let copies = hosts
        .sender
        .restore(&["--json", "--list", "nas2:photos"])
        .success()
        .json();
    let copy = hosts
        .receiver
        .root()
        .join("nas1/photos")
        .join(copies["copies"][0]["name"].as_str().unwrap());
    set_access(File::open(&copy).unwrap(), Access::ReadWrite).unwrap();
    fs::write(copy.join("planted"), "by the receiver").unwrap();
    set_access(File::open(&copy).unwrap(), Access::ReadOnly).unwrap();
    let options = ["nas2:photos", "--in-place", "--accept-differences"];
    let restored = hosts.sender.restore(&options).success();
    assert!(
        restored
            .stdout
            .contains("the next push does not build on this copy"),
        "{restored:?}"
    );
    assert!(hosts.sender.photos().join("planted").exists());
    let pushed = push(&hosts);
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
}

/// Starts a restore in place that stands still after some of the copy has come.
fn slow_restore(options: &[&str]) -> (SenderHost, ReceiverHost, Link, command::Running) {
    let sender = SenderHost::new();
    let receiver = ReceiverHost::new();
    let link = Link::to(receiver.address());
    sendshot_harness::hosts::pairing::pair_at(&sender, &receiver, "nas2", link.address());
    receiver.grant("nas1");
    fill::file(sender.photos().join("big"), 2, 24 << 20);
    sender.ctl(&["push", "nas2:photos"]).success();
    link.set(Way::Down, Rule::Slow(4 << 20));
    let before = link.bytes(Way::Down);
    let mut all = vec!["nas2:photos", "--in-place"];
    all.extend(options);
    let running = command::Running::start(&mut sender.restore_command(&all));
    until::holds("the restore runs", || {
        link.bytes(Way::Down) > before + (1 << 20)
    });
    (sender, receiver, link, running)
}

#[test]
fn a_volume_that_is_opened_or_replaced_meanwhile_is_not_exchanged() {
    let (sender, _receiver, link, running) = slow_restore(&[]);
    let open = File::open(sender.photos()).unwrap();
    link.set(Way::Down, Rule::Pass);
    running.finish().fails(4, &["is in use", "open files"]);
    drop(open);
    sender.restore(&["nas2:photos", "--in-place"]).success();

    let (sender, _receiver, link, running) = slow_restore(&[]);
    let mine = sender.fs().join("mine");
    fs::rename(sender.photos(), &mine).unwrap();
    streams::create(&sender.photos()).unwrap();
    fs::write(sender.photos().join("new"), "by the user").unwrap();
    link.set(Way::Down, Rule::Pass);
    running
        .finish()
        .fails(2, &["is not the same subvolume any more"]);
    assert!(sender.photos().join("new").exists() && mine.join("big").exists());
}

#[test]
fn an_exchange_is_not_completed_under_a_user_of_the_volume() {
    let (hosts, reference) = damaged();
    let mut command = hosts.sender.restore_command(&["nas2:photos", "--in-place"]);
    command.env("FAILPOINTS", "restore-beside=return");
    assert_ne!(command::run(&mut command).code, 0);
    let open = File::open(hosts.sender.photos()).unwrap();
    hosts
        .sender
        .restore(&["nas2:photos", "--in-place"])
        .fails(4, &["is in use", "open files"]);
    assert!(hosts.sender.photos().join("ransom note").exists());
    drop(open);
    restore(&hosts, &[]);
    assert_restored(&hosts, &reference);
}

#[test]
fn the_volume_that_was_put_aside_is_not_restored_over_through_an_old_mount() {
    let (mut hosts, _reference) = damaged();
    let device = mount::devices(hosts.sender.fs())[0].clone();
    let mounted = Mount::private(&device, "subvol=photos");
    restore(&hosts, &["--while-in-use"]);
    hosts.sender.configure([("photos", mounted.path())]);
    hosts.sender.daemon.stop();
    hosts.sender.daemon.start();
    hosts
        .sender
        .restore(&["nas2:photos", "--in-place", "--while-in-use"])
        .fails(
            2,
            &[
                "still opens the volume that was replaced",
                "mount the restored volume there",
            ],
        );
    assert_eq!(old_volumes(&hosts).len(), 1);
}

#[test]
fn a_new_disk_in_a_host_that_kept_its_records_gets_the_volume() {
    let (mut hosts, reference) = damaged();
    let old_disk = Mount::private(&mount::devices(hosts.sender.fs())[0], "");
    let content = old_disk.path().join(reference.path().file_name().unwrap());
    let new_disk = LoopFs::new(256 << 20, &[], "").unwrap();
    let new_device = mount::devices(new_disk.path())[0].clone();
    hosts.sender.daemon.stop();
    let mounted = Mount::at(&new_device, hosts.sender.fs(), "");
    hosts.sender.daemon.start();
    // The old disk is still attached, and not meant: without a word, the records decide.
    let options = ["--json", "nas2:photos", "--in-place", "--new-disk"];
    let restored = hosts.sender.restore(&options).success().json();
    assert_eq!(restored["replaced"], Value::Null, "{restored}");
    assert!(new_disk.path().join("photos/big").exists());
    let snapshot = Reference::of(hosts.sender.fs(), &hosts.sender.photos());
    assert_same(&content, snapshot.path());
    assert_incremental(&hosts);
    drop(snapshot);
    hosts.sender.daemon.stop();
    drop(mounted);
}

#[test]
fn an_abandoned_restore_expires() {
    let (sender, _receiver, link, running) = slow_restore(&["--checkpoint-bytes", "1"]);
    let kept = || {
        let all = subvolumes::list(sender.fs()).into_iter();
        all.filter(|found| format!("{:?}", found.path).contains("restore-"))
            .count()
    };
    until::holds("a snapshot to continue from is kept", || kept() > 0);
    running.signal_children(Signal::KILL);
    running.finish().fails(1, &["ended without a result"]);
    drop(link);
    let mut sender = sender;
    sender.daemon.stop();
    sender.daemon.start();
    let kept = |sender: &SenderHost| {
        let all = subvolumes::list(sender.fs()).into_iter();
        all.filter(|found| format!("{:?}", found.path).contains("restore-"))
            .count()
    };
    assert_eq!(kept(&sender), 1, "it can be continued for `resume_keep`");
    sender.daemon.stop();
    let config = fs::read_to_string(sender.config()).unwrap();
    fs::write(sender.config(), format!("resume_keep = '1s'\n{config}")).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    sender.daemon.start();
    until::holds("it is discarded", || kept(&sender) == 0);
    sender.daemon.may_log("the interrupted restore of photos");
}
