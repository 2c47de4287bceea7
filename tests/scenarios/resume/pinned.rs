//! Pushes by the kernel engine, with `pin_parent`, that are cancelled, killed or lose their
//! acknowledgement: the snapshot that both sides hold stays, and no other.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;

use rustix::process::Signal;
use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::compare::subvolumes::{self, assert_no_leftovers};
use sendshot_harness::disks::mount::{self, Mount};
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::command::Running;
use sendshot_harness::hosts::pairing::Linked;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::Value;

const BIG: usize = 24 << 20;

fn pinned() -> Linked {
    let setup = SenderHost::setup().volume("photos", "photos");
    Linked::of(setup.pin_parent().start())
}

fn push(hosts: &Linked) -> Value {
    let pushed = hosts.sender.push("nas2:photos");
    assert_eq!(pushed["engine"], "kernel");
    pushed
}

fn start(hosts: &Linked) -> Running {
    hosts.sender.ctl_start(&["push", "nas2:photos"])
}

/// Hosts of which the volume has been pushed once and has much new data since, with a push of that in
/// the middle of its data.
fn in_the_middle() -> (Linked, Value, Running) {
    let hosts = pinned();
    fill::tree(&hosts.sender.photos(), 1);
    let first = push(&hosts);
    fill::file(hosts.sender.photos().join("big"), 1, BIG);
    hosts.link.set(Way::Up, Rule::Slow(2 << 20));
    let before = hosts.link.bytes(Way::Up);
    let running = start(&hosts);
    until::holds("a push transfers data", || {
        hosts.link.bytes(Way::Up) > before + (1 << 20)
    });
    (hosts, first, running)
}

fn copies(hosts: &Linked) -> Vec<Value> {
    let list = hosts.receiver.ctl(&["copy", "list", "--json"]);
    list.success().jsons()
}

/// Asserts that the next push builds on `parent` and leaves only what `list` shows.
#[track_caller]
fn next_push_builds_on(hosts: &Linked, parent: &Value) {
    hosts.link.mend();
    until::holds("the receiver has dropped what was not committed", || {
        subvolumes::list(hosts.receiver.fs()).len() == copies(hosts).len()
    });
    let next = push(hosts);
    assert_eq!(next["parent"], parent["uuid"], "all was sent again: {next}");
    assert_exact(&hosts.sender, &hosts.receiver, &next);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
    let kept = hosts.sender.ctl(&["list", "--json"]).success().jsons();
    let top = Mount::private(&mount::devices(hosts.sender.fs())[0], "subvolid=5");
    let state = top.path().join(".sendshot");
    for (dir, expected) in [("snapshots", 1), ("pushes", kept.len()), ("sendshots", 0)] {
        let found = fs::read_dir(state.join(dir)).unwrap().count();
        assert_eq!(found, expected, "{dir} holds what no push will ever use");
    }
}

#[test]
fn a_push_that_is_cancelled_leaves_nothing() {
    let (hosts, first, running) = in_the_middle();
    running.signal(Signal::INT);
    running.finish().fails(1, &["cancelled"]);
    next_push_builds_on(&hosts, &first);
}

#[test]
fn a_crash_of_the_sender_leaves_nothing() {
    let (mut hosts, first, running) = in_the_middle();
    hosts.sender.daemon.kill();
    running.finish().fails(1, &["daemon"]);
    hosts.link.mend();
    hosts.sender.daemon.start();
    next_push_builds_on(&hosts, &first);
}

#[test]
fn a_crash_of_the_receiver_leaves_nothing() {
    let (mut hosts, first, running) = in_the_middle();
    hosts.receiver.daemon.kill();
    running.finish().fails(3, &[]);
    hosts.receiver.daemon.start();
    next_push_builds_on(&hosts, &first);
}

#[test]
fn a_lost_acknowledgement_costs_nothing() {
    let hosts = pinned();
    fill::tree(&hosts.sender.photos(), 1);
    push(&hosts);
    // Less data than the sender may send without an answer.
    fill::file(hosts.sender.photos().join("small"), 3, 40_000);
    let before = hosts.link.bytes(Way::Up);
    hosts.link.set(Way::Up, Rule::Slow(20_000));
    let running = start(&hosts);
    until::holds("the data is on its way", || {
        hosts.link.bytes(Way::Up) > before + 25_000
    });
    hosts.link.set(Way::Down, Rule::Lose);
    hosts.link.set(Way::Up, Rule::Pass);
    let committed = until::some("the receiver has committed", || {
        let mut all = copies(&hosts);
        (all.len() == 2).then(|| all.remove(1))
    });
    hosts.link.cut();
    running.finish().fails(3, &[]);
    fs::write(hosts.sender.photos().join("later"), "later").unwrap();
    next_push_builds_on(&hosts, &committed);
}
