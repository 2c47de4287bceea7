//! A plan by sendshots takes a hidden snapshot to be exact; whatever happens, it does not stay.

#![allow(clippy::unwrap_used, reason = "what fails in a test ends it")]

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::disks::mount::{self, Mount};
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::command::Running;
use sendshot_harness::hosts::pairing::{Linked, pair};
use sendshot_harness::hosts::receiver_box::ReceiverBox;
use sendshot_harness::hosts::sender_box::SenderBox;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::Value;

/// Names of what there is of hidden snapshots, sendshots and records.
fn kept(sender: &SenderBox) -> Vec<PathBuf> {
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

/// Boxes of which the volume has been pushed once, by the kernel's engine or ours, and a plan that
/// has its snapshot and waits for the receiver's answer.
fn in_the_middle(engine: &str) -> (Linked, Value, Vec<PathBuf>, Running) {
    let boxes = Linked::new();
    fill::tree(&boxes.sender.photos(), 1);
    let first = boxes.sender.push_with("nas2:photos", &["--engine", engine]);
    fill::file(boxes.sender.photos().join("new"), 1, 100_000);
    let before = kept(&boxes.sender);
    // So slow that the answer takes seconds, once most of what comes before it has passed.
    boxes.link.set_after(Way::Down, 1400, Rule::Slow(100));
    let plan = boxes.sender.ctl_start(&["plan", "--json", "nas2:photos"]);
    let top = Mount::private(&mount::devices(boxes.sender.fs())[0], "subvolid=5");
    let snapshots = || {
        let all = fs::read_dir(top.path().join(".sendshot/snapshots"));
        all.unwrap().count()
    };
    let had = usize::from(engine == "kernel");
    until::holds("the plan has its snapshot", || snapshots() > had);
    boxes.link.set(Way::Down, Rule::Stall);
    (boxes, first, before, plan)
}

#[track_caller]
fn nothing_is_left(boxes: &Linked, first: &Value, before: &[PathBuf]) {
    until::holds("what the plan took is gone", || {
        kept(&boxes.sender) == before
    });
    boxes.link.mend();
    let next = boxes.sender.push("nas2:photos");
    assert_eq!(next["parent"], first["uuid"]);
    assert_exact(&boxes.sender, &boxes.receiver, &next);
}

#[test]
fn a_plan_whose_user_leaves_lets_go_of_its_snapshot() {
    for engine in ["sendshot", "kernel"] {
        let (boxes, first, before, plan) = in_the_middle(engine);
        plan.signal(Signal::INT);
        plan.finish();
        nothing_is_left(&boxes, &first, &before);
    }
}

#[test]
fn a_plan_whose_daemon_is_stopped_lets_go_of_its_snapshot() {
    let (mut boxes, first, before, plan) = in_the_middle("sendshot");
    boxes.sender.daemon.stop();
    plan.finish().fails(1, &[]);
    assert_eq!(kept(&boxes.sender), before);
    boxes.sender.daemon.start();
    nothing_is_left(&boxes, &first, &before);
}

#[test]
fn a_crash_in_the_middle_of_a_plan_leaves_nothing() {
    let (mut boxes, first, before, plan) = in_the_middle("sendshot");
    boxes.sender.daemon.kill();
    plan.finish().fails(1, &[]);
    assert_ne!(kept(&boxes.sender), before);
    boxes.sender.daemon.start();
    assert_eq!(kept(&boxes.sender), before, "it was not settled");
    nothing_is_left(&boxes, &first, &before);
}

#[test]
fn a_push_to_another_receiver_leaves_a_plan_its_snapshot() {
    let (boxes, first, _, plan) = in_the_middle("sendshot");
    let other = ReceiverBox::new();
    pair(&boxes.sender, &other, "nas3");
    let there = boxes.sender.push("nas3:photos");
    assert_exact(&boxes.sender, &other, &there);
    boxes.link.mend();
    let planned = plan.finish().success().json();
    assert_eq!(planned["parent"], first["uuid"]);
    let pushed = boxes.sender.push("nas2:photos");
    assert_eq!(planned["stream_bytes"], pushed["stream_bytes"]);
}
