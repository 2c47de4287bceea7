//! Each reason that Sendshot states, in the situation that leads to it: its code, and a text that tells the
//! user what was compared and what to do. Situations that a real file system cannot have are in unit tests.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use sendshot_adversary::lying_peer::{Lie, LyingPeer};
use sendshot_engine::format::entry::ROOT;
use sendshot_harness::compare::exact::assert_copy_of;
use sendshot_harness::compare::reasons::{
    KERNEL, Planned, assert_reason, change, filled, in_state, pinned, plan, snapshot, sync,
    with_image,
};
use sendshot_harness::compare::subvolumes;
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::mount::{self, Mount};
use sendshot_harness::disks::raw;
use sendshot_harness::disks::streams;
use sendshot_harness::faults::damage::Damage;
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::command::tool;
use sendshot_harness::hosts::pairing::{Linked, Paired, pair};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use sendshot_harness::trees::ghosts;
use sendshot_model::ReasonCode;
use serde_json::Value;

/// Bytes of a tree node.
const NODE: usize = 16 << 10;

fn set_ro(path: &Path, value: &str) {
    let path = path.to_str().unwrap();
    tool("btrfs", &["property", "set", path, "ro", value]);
}

fn writable_snapshot(from: &Path, to: &Path) {
    let [from, to] = [from, to].map(|path| path.to_str().unwrap());
    tool("btrfs", &["subvolume", "snapshot", from, to]);
}

#[test]
fn every_code_is_explained() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reasons.md");
    let page = fs::read_to_string(page).unwrap();
    let missing: Vec<_> = ReasonCode::ALL
        .iter()
        .filter(|code| !page.contains(&format!("`{code}`")))
        .collect();
    assert!(missing.is_empty(), "docs/reasons.md lacks {missing:?}");
    let known: BTreeSet<&str> = ReasonCode::ALL.iter().map(|code| code.as_str()).collect();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let codes = rows.map(|row| row.split('`').next().unwrap());
    let codes = codes.filter(|code| code.contains('-') && !known.contains(code));
    let unknown: Vec<_> = codes.collect();
    assert!(unknown.is_empty(), "docs/reasons.md invents {unknown:?}");
}

#[test]
fn reasons_against_a_copy_on_the_receiver() {
    let hosts = filled();
    let Paired { sender, receiver } = &hosts;
    let target = "nas2:photos";
    let listed = || {
        let all = receiver.ctl(&["copy", "list", "--json"]).success().jsons();
        let codes = all.iter().map(|copy| copy["unusable_code"].clone());
        codes.collect::<Vec<_>>()
    };
    let first = sender.push(target);
    let copy = receiver.copy(&first);
    let named = |name: &str| copy.with_file_name(name);
    assert_eq!(listed(), [Value::Null]);

    raw::set_flags(&copy, raw::WRITABLE);
    let texts = ["it is writable", "btrfs property set", "ro true"];
    plan(sender, target, &[])
        .because(ReasonCode::CopyWritable, &texts)
        .sends_all();
    assert_eq!(listed(), ["copy-writable"]);
    // The stated remedy works.
    set_ro(&copy, "true");
    plan(sender, target, &[]).because(ReasonCode::NewestSendshot, &[]);

    change(&copy);
    let texts = ["changed since commit"];
    plan(sender, target, &[])
        .because(ReasonCode::CopyChanged, &texts)
        .sends_all();
    // A snapshot of the changed copy has the same received UUID and was never changed itself.
    streams::snapshot(&copy, &named("of-changed")).unwrap();
    streams::delete(&copy).unwrap();
    let texts = ["snapshot of a copy that was written to"];
    plan(sender, target, &[])
        .because(ReasonCode::CopyOfChangedCopy, &texts)
        .sends_all();
    assert_eq!(listed(), ["copy-of-changed-copy"]);
    let full = sender.push(target);
    assert_eq!(full["parent"], Value::Null);
    assert_copy_of(sender, receiver, &full, &sender.photos());
}

/// Receives a stream with `btrfs receive` and commits the file system in the middle.
fn stock_receive_slowly(stream: &[u8], dir: &Path) {
    let file = dir.with_file_name("stream");
    fs::write(&file, stream).unwrap();
    let [file, dir] = [&file, dir].map(|path| path.to_str().unwrap());
    let half = stream.len() / 2;
    let script = format!(
        "( head -c {half} {file}; sleep 0.3; btrfs filesystem sync {dir}; \
           tail -c +$(({half} + 1)) {file} ) | btrfs receive -q {dir}"
    );
    tool("sh", &["-c", &script]);
}

/// Users often transport the first, large copy by hand.
#[test]
fn reasons_against_a_copy_by_another_tool() {
    let hosts = Paired::new();
    let Paired { sender, receiver } = &hosts;
    let target = "nas2:photos";
    // Without data nothing is written back later.
    for i in 0..500 {
        fs::create_dir(sender.photos().join(format!("dir-{i}"))).unwrap();
    }
    let first = sender.push(target);
    let copy = receiver.copy(&first);
    let named = |name: &str| copy.with_file_name(name);
    let (monday, _) = snapshot(sender, "monday");
    let stream = streams::send(streams::Format::V1, None, &monday).unwrap();
    stock_receive_slowly(&stream, copy.parent().unwrap());
    let texts = ["another tool", "btrfs subvolume snapshot -r monday"];
    streams::delete(&copy).unwrap();
    plan(sender, target, &[])
        .because(ReasonCode::CopyReceivedByOtherTool, &texts)
        .sends_all();
    // The stated remedy works.
    streams::snapshot(&named("monday"), &named("monday-parent")).unwrap();
    fs::write(sender.photos().join("new"), "new").unwrap();
    let next = sender.push(target);
    assert_eq!(next["parent"], uuid_of(sender, &monday)["uuid"], "{next}");
    assert_copy_of(sender, receiver, &next, &sender.photos());

    // Data is written back after the reception.
    fill::tree(&sender.photos(), 1);
    let (tuesday, _) = snapshot(sender, "tuesday");
    let stream = streams::send(streams::Format::V1, None, &tuesday).unwrap();
    streams::stock_receive(&stream, copy.parent().unwrap()).unwrap();
    sync(receiver.fs());
    plan(sender, target, &[]).verdict(
        &uuid_of(sender, &tuesday),
        ReasonCode::CopyWrittenAfterOtherTool,
        &["another tool and written to after that", "last data"],
    );
}

/// Returns an object with the subvolume's UUID, as in a report.
fn uuid_of(sender: &SenderHost, subvolume: &Path) -> Value {
    let all = subvolumes::list(sender.fs());
    let found = all
        .iter()
        .find(|s| sender.fs().join(&s.path) == *subvolume)
        .unwrap();
    serde_json::json!({ "uuid": found.uuid })
}

#[test]
fn reasons_against_a_snapshot_for_the_kernel() {
    let hosts = pinned();
    let sender = &hosts.sender;
    let target = "nas2:photos";
    plan(sender, target, &[]).because(ReasonCode::NoCopyYet, &["no copy of this volume yet"]);
    let first = sender.push(target);
    assert_reason(&first, ReasonCode::NoCopyYet, &[]);
    plan(sender, target, &[]).because(ReasonCode::NewestCommonSnapshot, &["both sides hold"]);
    plan(sender, target, &["--parent", "none"])
        .because(ReasonCode::FullAskedFor, &["was requested"]);
    let hidden = subvolumes::by_uuid(sender.fs(), &first["uuid"]);

    raw::set_flags(&hidden, raw::WRITABLE);
    let texts = ["on this host is writable", "ro true"];
    plan(sender, target, &[]).because(ReasonCode::SnapshotWritable, &texts);
    raw::set_flags(&hidden, raw::READ_ONLY);
    change(&hidden);
    let texts = ["changed after it was sent"];
    plan(sender, target, &[])
        .because(ReasonCode::SnapshotChanged, &texts)
        .sends_all();
    let uuid = first["uuid"].as_str().unwrap();
    let by_hand = ["push", target, "--parent", uuid];
    sender.ctl(&by_hand).fails(2, &[uuid, texts[0], "help:"]);
    streams::delete(&hidden).unwrap();
    let texts = ["journal", "was deleted"];
    plan(sender, target, &[])
        .because(ReasonCode::SnapshotDeleted, &texts)
        .sends_all();

    let (monday, to_monday) = snapshot(sender, "monday");
    let pushed = sender.push(&to_monday);
    let again = sender.push(&to_monday);
    assert_reason(&again, ReasonCode::AlreadyHeld, &["holds this snapshot"]);
    plan(sender, target, &[]).verdict(&pushed, ReasonCode::Usable, &["usable"]);
    streams::delete(&monday).unwrap();
    let texts = ["not on the volume's file system"];
    plan(sender, target, &[]).because(ReasonCode::SnapshotNotHere, &texts);
}

#[test]
fn reasons_against_a_users_snapshot() {
    let hosts = pinned();
    let sender = &hosts.sender;
    let (monday, to_monday) = snapshot(sender, "monday");
    fs::write(sender.photos().join("news"), "of tuesday").unwrap();
    let (tuesday, to_tuesday) = snapshot(sender, "tuesday");
    let pushed = sender.push(&to_tuesday);
    let texts = ["taken later", "than the snapshot that is pushed"];
    plan(sender, &to_monday, &[])
        .because(ReasonCode::LaterThanPushed, &texts)
        .sends_all();

    sender.push(&to_monday);
    raw::set_flags(&tuesday, raw::WRITABLE);
    let texts = ["that can be the parent", "newer copy", "is writable"];
    let planned = plan(sender, "nas2:photos", &[]);
    let planned = planned.because(ReasonCode::NewestUsableSnapshot, &texts);
    planned.verdict(&pushed, ReasonCode::SnapshotWritable, &[]);
    raw::set_flags(&tuesday, raw::READ_ONLY);
    plan(sender, "nas2:photos", &[]).because(ReasonCode::NewestCommonSnapshot, &[]);

    // It is pushed as it is, although it equals no state that the volume ever had.
    streams::delete(&monday).unwrap();
    change(&tuesday);
    sender.push(&to_tuesday);
    let texts = ["once writable or was deduplicated"];
    plan(sender, "nas2:photos", &[])
        .because(ReasonCode::SnapshotOnceChanged, &texts)
        .sends_all();
}

#[test]
fn reasons_against_a_received_snapshot() {
    let hosts = pinned();
    let sender = &hosts.sender;
    let (monday, _) = snapshot(sender, "monday");
    fs::write(sender.photos().join("news"), "of tuesday").unwrap();
    let (tuesday, _) = snapshot(sender, "tuesday");
    let received = sender.fs().join("received");
    fs::create_dir(&received).unwrap();
    let v1 = streams::Format::V1;
    let whole = streams::send(v1, None, &monday).unwrap();
    streams::stock_receive(&whole, &received).unwrap();
    let increment = streams::send(v1, Some(&monday), &tuesday).unwrap();
    streams::stock_receive(&increment, &received).unwrap();
    let target = |name: &str| format!("nas2:{}", received.join(name).display());
    for original in [&monday, &tuesday] {
        streams::delete(original).unwrap();
    }
    sender.push(&target("monday"));
    let planned = plan(sender, &target("tuesday"), &[]);
    planned.because(
        ReasonCode::SnapshotReceivedByOtherTool,
        &["received by another tool"],
    );
}

#[test]
fn where_a_rollback_leaves_the_kernel_without_a_parent() {
    let hosts = pinned();
    let sender = &hosts.sender;
    let fs = sender.fs().to_owned();
    let (past, _) = snapshot(sender, "past");
    fs::write(sender.photos().join("bad"), "bad").unwrap();
    let bad = sender.push("nas2:photos");
    fs::rename(fs.join("photos"), fs.join("photos.bad")).unwrap();
    writable_snapshot(&past, &fs.join("photos"));
    let texts = ["later", "rollback", "not in the volume's past"];
    plan(sender, "nas2:photos", &[])
        .because(ReasonCode::LaterThanRollback, &texts)
        .sends_all();
    // The snapshot that the volume was made from is deleted.
    streams::delete(&past).unwrap();
    let uuid = bad["uuid"].as_str().unwrap();
    let remedy = format!("--parent {uuid}");
    let texts = ["not known", "was deleted", &remedy];
    plan(sender, "nas2:photos", &[])
        .because(ReasonCode::AncestryCut, &texts)
        .sends_all();
    let planned = plan(sender, "nas2:photos", &["--parent", uuid]);
    planned.because(ReasonCode::ChosenByHand, &["by hand", "not known"]);
    // The volume becomes an unrelated subvolume.
    fs::rename(fs.join("photos"), fs.join("photos.back")).unwrap();
    streams::create(&fs.join("photos")).unwrap();
    let texts = ["not a snapshot of this volume or of an ancestor of it"];
    plan(sender, "nas2:photos", &[])
        .because(ReasonCode::Unrelated, &texts)
        .sends_all();
}

#[test]
fn why_a_receiver_holds_nothing() {
    let hosts = filled();
    let Paired { sender, receiver } = &hosts;
    let target = "nas2:photos";
    for options in [&KERNEL[..], &[]] {
        plan(sender, target, options).because(ReasonCode::NoCopyYet, &["yet"]);
    }
    let first = sender.push(target);
    streams::delete(&receiver.copy(&first)).unwrap();
    let texts = ["any more", "acknowledged", "deleted there", "another disk"];
    for options in [&KERNEL[..], &[]] {
        plan(sender, target, options).because(ReasonCode::CopiesGone, &texts);
    }
    let second = sender.push(target);
    assert_reason(&second, ReasonCode::CopiesGone, &texts);
    let again = ReceiverHost::new();
    fs::remove_file(sender.receiver_file("nas2")).unwrap();
    pair(sender, &again, "nas2");
    let texts = ["no copy", "another receiver of this name", "set up again"];
    plan(sender, target, &[]).because(ReasonCode::ReceiverReplaced, &texts);
}

#[test]
fn reasons_against_a_sendshot() {
    let hosts = filled();
    let Paired { sender, receiver } = &hosts;
    let target = "nas2:photos";
    sender.daemon.may_log("a sendshot is not used");
    let first = sender.push(target);
    plan(sender, target, &[]).because(
        ReasonCode::NewestSendshot,
        &["whose sendshot is on this host"],
    );
    let texts = ["only a sendshot", "--engine sendshot"];
    plan(sender, target, &KERNEL)
        .because(ReasonCode::OnlySendshotHere, &texts)
        .sends_all();
    let second = sender.push(target);
    raw::set_flags(&receiver.copy(&second), raw::WRITABLE);
    let texts = ["can be the parent", "newer copy", "it is writable"];
    plan(sender, target, &[]).because(ReasonCode::NewestUsableSendshot, &texts);
    streams::delete(&receiver.copy(&second)).unwrap();

    let whole = in_state(sender, &first, |_, sendshot| fs::read(sendshot).unwrap());
    let overwrite = |at: usize, bytes: &[u8]| {
        let mut spoilt = whole.clone();
        spoilt[at..at + bytes.len()].copy_from_slice(bytes);
        in_state(sender, &first, |_, path| fs::write(path, &spoilt).unwrap());
    };
    let middle = whole.len() / 2;
    type Case<'a> = (usize, &'a [u8], ReasonCode, &'a str);
    let cases: [Case<'_>; 4] = [
        (
            0,
            b"no sends",
            ReasonCode::SendshotForeign,
            "not a sendshot",
        ),
        (8, &[99], ReasonCode::SendshotTooNew, "upgrade Sendshot"),
        (8, &[1], ReasonCode::SendshotTooOld, "earlier program"),
        (middle, &[0; 64], ReasonCode::SendshotDamaged, "is damaged"),
    ];
    for (at, bytes, code, text) in cases {
        overwrite(at, bytes);
        plan(sender, target, &[]).because(code, &[text]).sends_all();
    }
    overwrite(0, b"");
    in_state(sender, &first, |_, path| {
        ghosts::add(path, 999_999, "ghost")
    });
    let texts = ["a name in no directory"];
    plan(sender, target, &[]).because(ReasonCode::SendshotOrphan, &texts);
    in_state(sender, &first, |_, path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    });
    // A directory in place of a sendshot is treated as foreign.
    plan(sender, target, &[]).because(ReasonCode::SendshotForeign, &[]);
    in_state(sender, &first, |_, path| fs::remove_dir(path).unwrap());
    let texts = ["journal", "was deleted"];
    plan(sender, target, &[])
        .because(ReasonCode::SendshotDeleted, &texts)
        .sends_all();

    let (monday, to_monday) = snapshot(sender, "monday");
    sender.push(&to_monday);
    streams::delete(&monday).unwrap();
    plan(sender, target, &[]).because(ReasonCode::NoSendshot, &["no sendshot of it"]);
}

#[test]
fn a_sendshot_of_another_state_is_not_called_changed() {
    let hosts = filled();
    let Paired { sender, receiver } = &hosts;
    let (monday, to_monday) = snapshot(sender, "monday");
    let whole = sender.push(&to_monday);
    // Its sendshot is captured for this push, and stays.
    let built_on_it = sender.push("nas2:photos");
    assert_eq!(built_on_it["parent"], whole["uuid"]);
    change(&monday);
    sender.push(&to_monday);
    for pushed in [&whole, &built_on_it] {
        streams::delete(&receiver.copy(pushed)).unwrap();
    }
    let texts = ["another state", "transaction"];
    plan(sender, "nas2:photos", &[])
        .because(ReasonCode::SendshotOtherState, &texts)
        .sends_all();
}

#[test]
fn why_every_file_is_compared_after_a_rollback() {
    let hosts = filled();
    let sender = &hosts.sender;
    let fs = sender.fs().to_owned();
    let (past, _) = snapshot(sender, "past");
    let first = sender.push("nas2:photos");
    fs::rename(fs.join("photos"), fs.join("photos.bad")).unwrap();
    writable_snapshot(&past, &fs.join("photos"));
    let texts = ["only one that can be the parent", "replaced since"];
    plan(sender, "nas2:photos", &[])
        .because(ReasonCode::OnlyUsableSendshot, &texts)
        .verdict(&first, ReasonCode::UsableVolumeReplaced, &["replaced"]);
    fs::rename(fs.join("photos"), fs.join("photos.good")).unwrap();
    fs::rename(fs.join("photos.bad"), fs.join("photos")).unwrap();
    fill::file(fs.join("photos/large"), 1, 1 << 20);
    sender.push("nas2:photos");
    fs::rename(fs.join("photos"), fs.join("photos.bad")).unwrap();
    fs::rename(fs.join("photos.good"), fs.join("photos")).unwrap();
    let texts = ["shortest stream of the 2", "replaced since"];
    plan(sender, "nas2:photos", &[]).because(ReasonCode::ShortestStream, &texts);
}

#[test]
fn a_file_system_with_another_id_or_an_older_image() {
    let hosts = filled();
    let sender = &hosts.sender;
    sender.push("nas2:photos");
    let before = mount::image(sender.fs()).with_extension("before");
    let before = before.to_str().unwrap();
    with_image(sender.fs(), |image| {
        tool("cp", &["--sparse=always", image, before]);
    });
    fs::write(sender.photos().join("news"), "news").unwrap();
    for _ in 0..3 {
        fs::write(sender.photos().join("news"), "news").unwrap();
        sync(sender.fs());
    }
    let later = sender.push("nas2:photos");
    let uuid = later["uuid"].as_str().unwrap();
    let saved = in_state(sender, &later, |state, sendshot| {
        let name = sendshot.file_stem().unwrap();
        let record = state.join("pushes").join(name).with_extension("json");
        [record, sendshot.to_owned()].map(|path| {
            let bytes = fs::read(&path).unwrap();
            (path.strip_prefix(state).unwrap().to_owned(), bytes)
        })
    });
    // The disk is restored from an image, and its state subvolume from a later backup.
    with_image(sender.fs(), |image| {
        tool("cp", &["--sparse=always", before, image]);
    });
    {
        let top = Mount::private(&mount::devices(sender.fs())[0], "subvolid=5");
        for (path, bytes) in &saved {
            fs::write(top.path().join(".sendshot").join(path), bytes).unwrap();
        }
    }
    let texts = ["went back to an earlier state"];
    let planned = plan(sender, "nas2:photos", &[]);
    let planned = planned.because(ReasonCode::NewestUsableSendshot, &texts);
    planned.verdict(
        &serde_json::json!({ "uuid": uuid }),
        ReasonCode::LaterTransaction,
        &texts,
    );

    with_image(sender.fs(), |image| {
        tool("btrfstune", &["-f", "-u", image]);
    });
    let texts = ["another file system", "id was"];
    plan(sender, "nas2:photos", &[])
        .because(ReasonCode::OtherFilesystem, &texts)
        .sends_all();
}

#[test]
fn a_copy_with_refused_streams() {
    let hosts = Paired::new();
    let sender = &hosts.sender;
    fill::file(sender.photos().join("large"), 1, 3_000_000);
    let first = sender.push("nas2:photos");
    in_state(sender, &first, |_, path| ghosts::add(path, ROOT, "ghost"));
    sender.daemon.may_log("a stream could not be applied");
    fs::write(sender.photos().join("news"), "news").unwrap();
    let second = sender.push("nas2:photos");
    let texts = ["could not apply a stream", "unlink ghost"];
    assert_reason(&second, ReasonCode::StreamRefused, &texts);
    let texts = ["could not apply the streams that were built on it"];
    plan(sender, "nas2:photos", &[])
        .because(ReasonCode::NewestSendshot, &[])
        .verdict(&first, ReasonCode::StreamsRefused, &texts);
}

#[test]
fn each_read_only_obstacle_is_named() {
    let mut hosts = filled();
    let first = hosts.sender.push("nas2:photos");
    let receiver = &mut hosts.receiver;
    receiver.daemon.may_log("read-only");
    let root = receiver.root();
    // Makes read-only only the mount through which the daemon sees the root.
    let options = ["-o", "remount,bind,ro", root.to_str().unwrap()];
    {
        let _mount = Mount::at(&root, &root, "bind");
        tool("mount", &options);
        let texts = ["mounted read-only here", "help:", "remount"];
        let push = hosts.sender.ctl(&["push", "nas2:photos"]);
        push.fails(1, &texts);
    }
    // Makes read-only the subvolume in which the root lies.
    receiver.daemon.stop();
    let inside = receiver.fs().join("pool");
    streams::create(&inside).unwrap();
    let pool = inside.join("backup");
    fs::create_dir(&pool).unwrap();
    receiver.configure(&pool);
    receiver.daemon.start();
    hosts.sender.push("nas2:photos");
    set_ro(&inside, "true");
    let texts = ["read-only subvolume", "help:", "btrfs property set"];
    let push = hosts.sender.ctl(&["push", "nas2:photos"]);
    push.fails(1, &texts);
    set_ro(&inside, "false");

    // Makes read-only the state subvolume on the sender.
    let set_state = |value: &str| {
        in_state(&hosts.sender, &first, |state, _| set_ro(state, value));
    };
    set_state("true");
    let texts = ["`.sendshot`", "read-only", "help:", "ro false"];
    let push = hosts.sender.ctl(&["push", "nas2:photos"]);
    push.fails(1, &texts);
    set_state("false");
    hosts.sender.push("nas2:photos");
}

#[test]
fn an_exhausted_quota_is_not_called_a_full_disk() {
    let hosts = Linked::new();
    let Linked {
        sender, receiver, ..
    } = &hosts;
    fill::tree(&sender.photos(), 1);
    sender.push("nas2:photos");
    fill::file(sender.photos().join("large"), 1, 30 << 20);
    let there = receiver.fs().to_str().unwrap();
    tool("btrfs", &["quota", "enable", there]);
    hosts.link.set(Way::Up, Rule::Slow(8 << 20));
    let before = hosts.link.bytes(Way::Up);
    let push = sender.ctl_start(&["push", "nas2:photos"]);
    until::holds("data is sent", || {
        hosts.link.bytes(Way::Up) > before + (4 << 20)
    });
    let all = subvolumes::list(receiver.fs());
    let staging = all.iter().find(|s| s.path.contains("/push-")).unwrap();
    let staging = receiver.fs().join(&staging.path);
    let limit = ["qgroup", "limit", "8M", staging.to_str().unwrap()];
    tool("btrfs", &limit);
    receiver.daemon.may_log("quota");
    hosts.link.mend();
    let failed = push
        .finish()
        .fails(1, &["quota", "exhausted", "btrfs qgroup"]);
    assert!(!failed.stderr.contains("is full"), "{failed:?}");
    tool("btrfs", &["quota", "disable", there]);
    sender.push("nas2:photos");

    let here = sender.fs().to_str().unwrap();
    tool("btrfs", &["quota", "enable", here]);
    let top = Mount::private(&mount::devices(sender.fs())[0], "subvolid=5");
    let state = top.path().join(".sendshot");
    for i in 0..3000 {
        let name = format!("{i:0>200}");
        fs::File::create(sender.photos().join(name))
            .unwrap()
            .write_all_at(b"x", i)
            .unwrap();
    }
    let limit = ["qgroup", "limit", "40K", state.to_str().unwrap()];
    tool("btrfs", &limit);
    let failed = sender.ctl(&["push", "nas2:photos"]);
    failed.fails(1, &["quota", "help:", "btrfs qgroup"]);
}

#[test]
fn a_receiver_of_another_version_explains_an_unusable_copy() {
    let hosts = Linked::new();
    let Linked {
        sender,
        link,
        receiver,
    } = &hosts;
    fill::tree(&sender.photos(), 1);
    sender.push("nas2:photos");
    let lying_peer = LyingPeer::between(sender, receiver, "nas2", Lie::Unusable, 7);
    link.aim(lying_peer.address());
    let texts = ["not usable at the receiver: changed since commit"];
    for options in [&KERNEL[..], &[]] {
        plan(sender, "nas2:photos", options)
            .because(ReasonCode::CopyUnusable, &texts)
            .sends_all();
    }
}

#[test]
fn a_pushed_snapshot_restored_from_an_older_image() {
    let hosts = pinned();
    let sender = &hosts.sender;
    let (monday, to_monday) = snapshot(sender, "monday");
    let before = mount::image(sender.fs()).with_extension("before");
    let before = before.to_str().unwrap();
    with_image(sender.fs(), |image| {
        tool("cp", &["--sparse=always", image, before]);
    });
    change(&monday);
    sender.push(&to_monday);
    with_image(sender.fs(), |image| {
        tool("cp", &["--sparse=always", before, image]);
    });
    let texts = ["on this host is of transaction", "the copy of a later one"];
    plan(sender, "nas2:photos", &[])
        .because(ReasonCode::SnapshotOtherState, &texts)
        .sends_all();
}

#[test]
fn a_sendshot_in_a_place_that_the_disk_cannot_read() {
    let hosts = filled();
    let sender = &hosts.sender;
    // Enough files that their sendshot has several blocks.
    for i in 0..1000_u64 {
        let name = format!("{:x}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        fs::File::create(sender.photos().join(name)).unwrap();
    }
    sender.daemon.may_log("a sendshot is not used");
    let first = sender.push("nas2:photos");
    let damage = in_state(sender, &first, |_, path| {
        Damage::of(sender.fs(), path, &fs::read(path).unwrap())
    });
    let texts = [
        "its sendshot on this host cannot be used",
        "Input/output error",
        "kernel log",
    ];
    plan(sender, "nas2:photos", &[])
        .because(ReasonCode::SendshotUnreadable, &texts)
        .sends_all();
    damage.restore();
    plan(sender, "nas2:photos", &[]).because(ReasonCode::NewestSendshot, &[]);
}

/// Returns the address of the leaf that contains an inode of a subvolume.
fn leaf_of(image: &str, subvolume: u64, inode: u64) -> u64 {
    let subvolume = subvolume.to_string();
    let arguments = ["inspect-internal", "dump-tree", "-t", &subvolume, image];
    let key = format!(" key ({inode} INODE_ITEM 0) itemoff ");
    let printed = tool("btrfs", &arguments);
    let (before, _) = printed.split_once(&key).unwrap();
    let leaf = before.rsplit("\nleaf ").next().unwrap();
    leaf.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_snapshot_that_cannot_be_captured_for_read_errors() {
    let hosts = Paired::new();
    let Paired { sender, receiver } = &hosts;
    let photos = sender.photos();
    let name = |i: u32| photos.join(format!("{i:0>100}"));
    for i in 0..1000 {
        fs::File::create(name(i)).unwrap();
    }
    let (monday, to_monday) = snapshot(sender, "monday");
    let pushed = sender.push(&to_monday);
    // In neither the first leaf nor the last: the kernel reads those when it opens the snapshot.
    let changed = name(500);
    fs::set_permissions(&changed, fs::Permissions::from_mode(0o600)).unwrap();
    let inode = fs::metadata(&changed).unwrap().ino();
    let id = |path: &Path| {
        let root = fs::File::open(path).unwrap();
        sendshot_sys::subvolume::info(root).unwrap().id
    };
    let ids = [&monday, &photos].map(|path| id(path));
    with_image(sender.fs(), |image| {
        let [old, new] = ids.map(|id| leaf_of(image, id, inode));
        assert_ne!(old, new, "the volume would be damaged, too");
        Damage::of_node(image, old, NODE);
    });
    sender.daemon.may_log("cannot be adopted");
    let texts = [
        "no sendshot could be made of its snapshot, which is here",
        "Input/output error",
    ];
    plan(sender, "nas2:photos", &[])
        .because(ReasonCode::SendshotNotMade, &texts)
        .verdict(&pushed, ReasonCode::SendshotNotMade, &[])
        .sends_all();
    let full = sender.push("nas2:photos");
    assert_reason(&full, ReasonCode::SendshotNotMade, &texts);
    assert_copy_of(sender, receiver, &full, &photos);
}

/// Runs a push or a plan whose snapshot is deduplicated before it is captured; returns the report.
#[track_caller]
fn deduplicated_while(hosts: &Linked, command: &str) -> Value {
    let fs = hosts.sender.fs().to_owned();
    let meddle = move || {
        let all = subvolumes::list(&fs);
        let hidden = all.iter().find(|s| s.path.starts_with(".sendshot/"));
        let hidden = fs.join(&hidden.unwrap().path);
        raw::dedupe(&hidden.join("one"), &hidden.join("twin"));
    };
    let lying_peer = LyingPeer::meddling(&hosts.sender, &hosts.receiver, "nas2", meddle);
    hosts.link.aim(lying_peer.address());
    let done = hosts.sender.ctl(&[command, "--json", "nas2:photos"]);
    let done = done.success().json();
    hosts.sender.wait_until_released();
    hosts.link.aim(hosts.receiver.address());
    hosts.link.reset();
    done
}

#[test]
fn every_file_is_compared_after_deduplication() {
    let hosts = Linked::new();
    let Linked {
        sender, receiver, ..
    } = &hosts;
    let target = "nas2:photos";
    for name in ["one", "twin"] {
        fill::file(sender.photos().join(name), 1, 1 << 20);
    }
    let first = deduplicated_while(&hosts, "push");
    assert_reason(&first, ReasonCode::NoCopyYet, &[]);
    let compared = "so every file is compared";
    let parent = ["deduplicated or written to before its sendshot", compared];
    plan(sender, target, &[])
        .because(ReasonCode::OnlyUsableSendshot, &parent)
        .verdict(&first, ReasonCode::UsableParentChanged, &parent)
        .builds_on(&first);

    let second = sender.push(target);
    assert_reason(&second, ReasonCode::OnlyUsableSendshot, &parent);
    assert_copy_of(sender, receiver, &second, &sender.photos());
    plan(sender, target, &[]).because(ReasonCode::NewestSendshot, &[]);
    let new = [
        "the new snapshot was deduplicated after it was taken",
        compared,
    ];
    Planned::of(deduplicated_while(&hosts, "plan"))
        .because(ReasonCode::ShortestStream, &[])
        .verdict(&first, ReasonCode::UsableParentChanged, &parent)
        .verdict(&second, ReasonCode::UsableNewChanged, &new);

    let third = deduplicated_while(&hosts, "push");
    assert_copy_of(sender, receiver, &third, &sender.photos());
    let texts = ["without comparing every file", "the newer copy", parent[0]];
    plan(sender, target, &[])
        .because(ReasonCode::NewestSendshot, &texts)
        .verdict(&third, ReasonCode::UsableParentChanged, &parent)
        .builds_on(&second);
}

/// A volume made by `btrfs-convert`, or by a kernel before 3.6, has no UUID.
#[test]
fn why_every_file_is_compared_where_the_volume_has_no_uuid() {
    let convert = "mke2fs -q -b 4096 -t ext4 \"$2\" && btrfs-convert \"$2\"";
    let mut convert_to = Command::new("sh");
    convert_to.args(["-c", convert, "convert"]);
    let disk = LoopFs::made_by(&mut convert_to, 1 << 30, "").unwrap();
    streams::delete(&disk.path().join("ext2_saved")).unwrap();
    let setup = SenderHost::setup().configured("photos", disk.path());
    let hosts = Paired::of(setup.start());
    let Paired { sender, receiver } = &hosts;
    fill::tree(disk.path(), 1);
    let first = sender.push("nas2:photos");
    let texts = ["subvolume is not known", "so every file is compared"];
    plan(sender, "nas2:photos", &[])
        .because(ReasonCode::OnlyUsableSendshot, &texts)
        .verdict(&first, ReasonCode::UsableOriginUnknown, &texts);
    fs::write(disk.path().join("news"), "news").unwrap();
    let second = sender.push("nas2:photos");
    assert_eq!(second["parent"], first["uuid"]);
    for name in ["news", "dir0/below/file3"] {
        let read = |dir: &Path| fs::read(dir.join(name)).unwrap();
        assert_eq!(read(&receiver.copy(&second)), read(disk.path()), "{name}");
    }
}
