//! Disks that are mounted read-only, as users do when a disk begins to fail: the data on them can still
//! be pushed.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::path::Path;

use sendshot_harness::compare::exact::{assert_copy, assert_same};
use sendshot_harness::disks::streams;
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::command::tool;
use sendshot_harness::hosts::pairing::Linked;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::Value;

const BIG: usize = 24 << 20;

fn remount(fs: &Path, how: &str) {
    tool(
        "mount",
        &[Path::new("-o"), Path::new(&format!("remount,{how}")), fs],
    );
}

fn hosts() -> Linked {
    let hosts = Linked::of(SenderHost::new());
    fill::tree(&hosts.sender.photos(), 1);
    fill::file(hosts.sender.photos().join("big"), 1, BIG);
    hosts
}

/// Pushes; returns the report and the bytes sent to the receiver.
#[track_caller]
fn push(hosts: &Linked, target: &str) -> (Value, u64) {
    let before = hosts.link.bytes(Way::Up);
    let pushed = hosts.sender.push(target);
    (pushed, hosts.link.bytes(Way::Up) - before)
}

#[test]
fn a_users_snapshot_on_a_read_only_disk_is_pushed() {
    let hosts = hosts();
    let fs = hosts.sender.fs().to_owned();
    let snapshot = fs.join("rescue");
    streams::snapshot(&hosts.sender.photos(), &snapshot).unwrap();
    remount(&fs, "ro");
    let target = format!("nas2:{}", snapshot.display());
    hosts.sender.ctl(&["plan", &target]).success();
    let (pushed, _) = push(&hosts, &target);
    assert_same(&snapshot, &assert_copy(&hosts.receiver, &pushed));
    assert_eq!(pushed["not_recorded"], false, "{pushed:#}");
    remount(&fs, "rw");
}

#[test]
fn a_live_volume_on_a_read_only_disk_is_pushed() {
    let hosts = hosts();
    let fs = hosts.sender.fs().to_owned();
    let photos = hosts.sender.photos();
    let (first, _) = push(&hosts, "nas2:photos");
    fill::file(photos.join("new"), 2, 70_000);
    remount(&fs, "ro");
    let (second, _) = push(&hosts, "nas2:photos");
    assert_eq!(second["parent_reason_code"], "read-as-it-is", "{second:#}");
    assert_eq!(second["not_recorded"], true);
    assert_same(&photos, &assert_copy(&hosts.receiver, &second));
    let text = hosts.sender.ctl(&["push", "nas2:photos"]).success().stdout;
    assert!(text.contains("holds this snapshot already"), "{text}");
    let state = hosts.sender.daemon.state_dir().join("passing");
    until::holds("what was kept for the push is gone", || {
        std::fs::read_dir(&state).is_ok_and(|mut left| left.next().is_none())
    });
    hosts
        .sender
        .ctl(&["push", "--engine", "kernel", "nas2:photos"])
        .fails(2, &["mounted read-only", "leave out --engine"]);
    // Once the disk is repaired, the next push builds on the state before.
    remount(&fs, "rw");
    fill::file(photos.join("newer"), 3, 70_000);
    let (third, sent) = push(&hosts, "nas2:photos");
    assert_eq!(third["parent"], first["uuid"], "{third:#}");
    assert!(sent < 1 << 20, "{sent}");
    assert_same(&photos, &assert_copy(&hosts.receiver, &third));
}

#[test]
fn a_new_read_only_disk_can_be_pushed_from() {
    let hosts = hosts();
    let fs = hosts.sender.fs().to_owned();
    remount(&fs, "ro");
    let (pushed, _) = push(&hosts, "nas2:photos");
    assert_same(
        &hosts.sender.photos(),
        &assert_copy(&hosts.receiver, &pushed),
    );
    let text = hosts.sender.ctl(&["list"]).success();
    assert!(text.stderr.contains("no state is retained"), "{text:?}");
    remount(&fs, "rw");
}

#[test]
fn a_disk_that_is_written_to_in_the_middle_gives_no_copy() {
    let hosts = hosts();
    let fs = hosts.sender.fs().to_owned();
    remount(&fs, "ro");
    let before = hosts.link.bytes(Way::Up);
    hosts.link.set_after(Way::Up, 4 << 20, Rule::Stall);
    let push = hosts.sender.ctl_start(&["push", "nas2:photos"]);
    until::holds("a part was sent", || {
        hosts.link.bytes(Way::Up) >= before + (2 << 20)
    });
    remount(&fs, "rw");
    fill::file(hosts.sender.photos().join("in between"), 9, 5000);
    remount(&fs, "ro");
    hosts.link.mend();
    push.finish()
        .fails(1, &["remounted while the volume was read", "push again"]);
    let copies = hosts.receiver.ctl(&["copy", "list", "--json"]).success();
    assert_eq!(copies.stdout, "");
    // A push of the current state succeeds.
    let (pushed, _) = self::push(&hosts, "nas2:photos");
    assert_same(
        &hosts.sender.photos(),
        &assert_copy(&hosts.receiver, &pushed),
    );
    remount(&fs, "rw");
}
