//! Checks that the harness's faults have their effect, and that the programs withstand each of them once.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use sendshot_adversary::lying_peer::{Lie, LyingPeer};
use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::compare::subvolumes::assert_no_leftovers;
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::command::Output;
use sendshot_harness::hosts::pairing::Linked;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::Value;

/// A file size that takes some seconds at [`SLOW`].
const BIG: usize = 8 << 20;
const SLOW: Rule = Rule::Slow(2 << 20);

/// Hosts whose power can be cut; the volume has been pushed once and has much new data since.
fn with_news() -> (Linked, Value) {
    let sender = SenderHost::setup().volume("photos", "photos").power();
    let receiver = ReceiverHost::setup().power();
    let hosts = Linked::between(sender.start(), receiver.start());
    fill::tree(&hosts.sender.photos(), 1);
    let first = hosts.sender.push("nas2:photos");
    fill::file(hosts.sender.photos().join("big"), 1, BIG);
    (hosts, first)
}

/// Repairs the link; the next push must succeed, incrementally to `parent`.
#[track_caller]
fn next_push_builds_on(hosts: &Linked, parent: &Value) {
    hosts.link.mend();
    let next = hosts.sender.push("nas2:photos");
    assert_eq!(next["parent"], parent["uuid"], "all was sent again: {next}");
    assert_exact(&hosts.sender, &hosts.receiver, &next);
    until::holds("the receiver has dropped what was not committed", || {
        let copies = hosts.receiver.ctl(&["copy", "list", "--json"]);
        let copies = copies.success().jsons().len();
        sendshot_harness::compare::subvolumes::list(hosts.receiver.fs()).len() == copies
    });
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[track_caller]
fn in_the_middle(hosts: &Linked, before: u64) {
    until::holds("a push transfers data", || {
        hosts.link.bytes(Way::Up) > before + (1 << 20)
    });
}

#[test]
fn a_link_that_flips_a_bit_makes_no_wrong_copy() {
    let (hosts, first) = with_news();
    hosts.link.set_after(Way::Up, 1 << 20, Rule::Flip(5));
    let pushed = hosts.sender.ctl(&["push", "nas2:photos"]);
    assert_eq!(hosts.link.faults(), 1, "{pushed:?}");
    assert_ne!(pushed.code, 2, "{pushed:?}");
    if pushed.code != 0 {
        next_push_builds_on(&hosts, &first);
    }
}

#[test]
fn a_power_cut_of_the_sender_loses_nothing() {
    let (mut hosts, first) = with_news();
    hosts.link.set(Way::Up, SLOW);
    let before = hosts.link.bytes(Way::Up);
    let push = hosts.sender.ctl_start(&["push", "nas2:photos"]);
    in_the_middle(&hosts, before);
    hosts.link.cut();
    hosts.sender.power_cut();
    // The daemon may report the broken connection just before its power is cut.
    assert!([1, 3].contains(&push.finish().code));
    hosts.sender.daemon.start();
    next_push_builds_on(&hosts, &first);
}

#[test]
fn a_power_cut_of_the_receiver_loses_nothing() {
    let (mut hosts, first) = with_news();
    hosts.link.set(Way::Up, SLOW);
    let before = hosts.link.bytes(Way::Up);
    let push = hosts.sender.ctl_start(&["push", "nas2:photos"]);
    in_the_middle(&hosts, before);
    hosts.link.cut();
    hosts.receiver.power_cut();
    hosts.receiver.daemon.start();
    hosts.link.mend();
    push.finish();
    let copies = hosts.receiver.ctl(&["copy", "list", "--json"]).success();
    if copies.jsons().len() == 1 {
        next_push_builds_on(&hosts, &first);
    }
}

#[test]
fn unflushed_data_is_lost_in_a_power_cut() {
    let (mut hosts, _) = with_news();
    let photos = hosts.sender.photos();
    fill::file(photos.join("big"), 2, BIG);
    hosts.sender.power_cut();
    hosts.sender.daemon.start();
    assert!(
        !photos.join("big").exists(),
        "the page cache survived a power cut"
    );
    hosts.sender.push("nas2:photos");
}

/// Pushes through a peer that tells one lie; returns the output.
#[track_caller]
fn push_through(hosts: &Linked, lie: Lie) -> Output {
    let lying_peer = LyingPeer::between(&hosts.sender, &hosts.receiver, "nas2", lie, 7);
    hosts.link.aim(lying_peer.address());
    let pushed = hosts.sender.ctl(&["push", "--json", "nas2:photos"]);
    assert!(
        lying_peer.told() > 0,
        "{lie:?}: no lie was told: {pushed:?}"
    );
    hosts.link.aim(hosts.receiver.address());
    hosts.link.reset();
    pushed
}

#[test]
fn a_receiver_that_commits_early_is_not_believed() {
    let (hosts, first) = with_news();
    let pushed = push_through(&hosts, Lie::CommitEarly);
    pushed.fails(1, &["response is invalid"]);
    let kept = hosts.sender.ctl(&["list", "--json"]).success().jsons();
    let acknowledged = kept.iter().filter(|k| k["state"] == "acknowledged");
    let acknowledged: Vec<_> = acknowledged.map(|k| &k["uuid"]).collect();
    assert_eq!(acknowledged, [&first["uuid"]], "{kept:#?}");
    next_push_builds_on(&hosts, &first);
}

#[test]
fn data_that_was_changed_on_the_way_is_not_taken() {
    let (hosts, first) = with_news();
    push_through(&hosts, Lie::FlipData).fails(1, &[]);
    next_push_builds_on(&hosts, &first);
}

#[test]
fn repeated_false_commits_cost_no_common_state() {
    let (hosts, first) = with_news();
    for number in 0..4 {
        fill::file(hosts.sender.photos().join("more"), number, 10_000);
        push_through(&hosts, Lie::CommitNothing).success();
    }
    next_push_builds_on(&hosts, &first);
}
