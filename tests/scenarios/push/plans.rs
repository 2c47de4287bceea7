//! A plan by sendshots takes a hidden snapshot to be exact; the snapshot is deleted in every case.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::disks::mount::{self, Mount};
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::command::Running;
use sendshot_harness::hosts::pairing::{Linked, pair};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::Value;

/// Lists the hidden snapshots, sendshots and records.
fn kept(sender: &SenderHost) -> Vec<PathBuf> {
    let top = Mount::private(&mount::devices(sender.fs())[0], "subvolid=5");
    let mut all = Vec::new();
    for dir in ["snapshots", "sendshots", "pushes"] {
        let dir = top.path().join(".sendshot").join(dir);
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            all.push(path.strip_prefix(top.path()).unwrap().to_owned());
        }
    }
    all.sort();
    all
}

/// Hosts of which the volume has been pushed once, by the given engine, and a plan that has its
/// snapshot and waits for the receiver's response.
fn in_the_middle(engine: &str) -> (Linked, Value, Vec<PathBuf>, Running) {
    let hosts = Linked::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = hosts.sender.push_with("nas2:photos", &["--engine", engine]);
    fill::file(hosts.sender.photos().join("new"), 1, 100_000);
    let before = kept(&hosts.sender);
    // So slow that the response takes seconds, once most of what precedes it has passed.
    hosts.link.set_after(Way::Down, 1400, Rule::Slow(100));
    let plan = hosts.sender.ctl_start(&["plan", "--json", "nas2:photos"]);
    let top = Mount::private(&mount::devices(hosts.sender.fs())[0], "subvolid=5");
    let snapshots = || {
        let all = fs::read_dir(top.path().join(".sendshot/snapshots"));
        all.unwrap().count()
    };
    let had = usize::from(engine == "kernel");
    until::holds("the plan has its snapshot", || snapshots() > had);
    hosts.link.set(Way::Down, Rule::Stall);
    (hosts, first, before, plan)
}

#[track_caller]
fn nothing_is_left(hosts: &Linked, first: &Value, before: &[PathBuf]) {
    until::holds("what the plan took is gone", || {
        kept(&hosts.sender) == before
    });
    hosts.link.mend();
    let next = hosts.sender.push("nas2:photos");
    assert_eq!(next["parent"], first["uuid"]);
    assert_exact(&hosts.sender, &hosts.receiver, &next);
}

#[test]
fn a_plan_deletes_its_snapshot_when_the_user_leaves() {
    for engine in ["sendshot", "kernel"] {
        let (hosts, first, before, plan) = in_the_middle(engine);
        plan.signal(Signal::INT);
        plan.finish();
        nothing_is_left(&hosts, &first, &before);
    }
}

#[test]
fn a_plan_deletes_its_snapshot_when_the_daemon_stops() {
    let (mut hosts, first, before, plan) = in_the_middle("sendshot");
    hosts.sender.daemon.stop();
    plan.finish().fails(1, &[]);
    assert_eq!(kept(&hosts.sender), before);
    hosts.sender.daemon.start();
    nothing_is_left(&hosts, &first, &before);
}

#[test]
fn a_crash_in_the_middle_of_a_plan_leaves_nothing() {
    let (mut hosts, first, before, plan) = in_the_middle("sendshot");
    hosts.sender.daemon.kill();
    plan.finish().fails(1, &[]);
    assert_ne!(kept(&hosts.sender), before);
    hosts.sender.daemon.start();
    assert_eq!(kept(&hosts.sender), before, "it was not reconciled");
    nothing_is_left(&hosts, &first, &before);
}

#[test]
fn a_push_to_another_receiver_leaves_a_plan_its_snapshot() {
    let (hosts, first, _, plan) = in_the_middle("sendshot");
    let other = ReceiverHost::new();
    pair(&hosts.sender, &other, "nas3");
    let there = hosts.sender.push("nas3:photos");
    assert_exact(&hosts.sender, &other, &there);
    hosts.link.mend();
    let planned = plan.finish().success().json();
    assert_eq!(planned["parent"], first["uuid"]);
    let pushed = hosts.sender.push("nas2:photos");
    assert_eq!(planned["stream_bytes"], pushed["stream_bytes"]);
}
