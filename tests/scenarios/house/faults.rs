//! The harness's faults do what they say, and the programs withstand each of them once.

#![allow(clippy::unwrap_used, reason = "what fails in a test ends it")]

use sendshot_adversary::liar::{Liar, Lie};
use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::compare::subvolumes::assert_no_leftovers;
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::command::Output;
use sendshot_harness::hosts::pairing::Linked;
use sendshot_harness::hosts::receiver_box::ReceiverBox;
use sendshot_harness::hosts::sender_box::SenderBox;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::Value;

/// So much takes some seconds at [`SLOW`].
const BIG: usize = 8 << 20;
const SLOW: Rule = Rule::Slow(2 << 20);

/// Boxes whose power can be cut, of which the volume has been pushed once and has much new since.
fn with_news() -> (Linked, Value) {
    let sender = SenderBox::setup().volume("photos", "photos").power();
    let receiver = ReceiverBox::setup().power();
    let boxes = Linked::between(sender.start(), receiver.start());
    fill::tree(&boxes.sender.photos(), 1);
    let first = boxes.sender.push("nas2:photos");
    fill::file(boxes.sender.photos().join("big"), 1, BIG);
    (boxes, first)
}

/// The link works again, and so does a push; it builds on `parent`.
#[track_caller]
fn goes_on_from(boxes: &Linked, parent: &Value) {
    boxes.link.mend();
    let next = boxes.sender.push("nas2:photos");
    assert_eq!(next["parent"], parent["uuid"], "all was sent again: {next}");
    assert_exact(&boxes.sender, &boxes.receiver, &next);
    until::holds("the receiver has dropped what was not committed", || {
        let copies = boxes.receiver.ctl(&["copy", "list", "--json"]);
        let copies = copies.success().jsons().len();
        sendshot_harness::compare::subvolumes::list(boxes.receiver.fs()).len() == copies
    });
    assert_no_leftovers(&boxes.sender, &boxes.receiver);
}

#[track_caller]
fn in_the_middle(boxes: &Linked, before: u64) {
    until::holds("a push transfers data", || {
        boxes.link.bytes(Way::Up) > before + (1 << 20)
    });
}

#[test]
fn a_link_that_flips_a_bit_makes_no_wrong_copy() {
    let (boxes, first) = with_news();
    boxes.link.set_after(Way::Up, 1 << 20, Rule::Flip(5));
    let pushed = boxes.sender.ctl(&["push", "nas2:photos"]);
    assert_eq!(boxes.link.faults(), 1, "{pushed:?}");
    assert_ne!(pushed.code, 2, "{pushed:?}");
    if pushed.code != 0 {
        goes_on_from(&boxes, &first);
    }
}

#[test]
fn a_power_cut_of_the_sender_loses_nothing() {
    let (mut boxes, first) = with_news();
    boxes.link.set(Way::Up, SLOW);
    let before = boxes.link.bytes(Way::Up);
    let push = boxes.sender.ctl_start(&["push", "nas2:photos"]);
    in_the_middle(&boxes, before);
    boxes.link.cut();
    boxes.sender.power_cut();
    assert_eq!(push.finish().code, 1);
    boxes.sender.daemon.start();
    goes_on_from(&boxes, &first);
}

#[test]
fn a_power_cut_of_the_receiver_loses_nothing() {
    let (mut boxes, first) = with_news();
    boxes.link.set(Way::Up, SLOW);
    let before = boxes.link.bytes(Way::Up);
    let push = boxes.sender.ctl_start(&["push", "nas2:photos"]);
    in_the_middle(&boxes, before);
    boxes.link.cut();
    boxes.receiver.power_cut();
    boxes.receiver.daemon.start();
    boxes.link.mend();
    push.finish();
    let copies = boxes.receiver.ctl(&["copy", "list", "--json"]).success();
    if copies.jsons().len() == 1 {
        goes_on_from(&boxes, &first);
    }
}

#[test]
fn what_a_disk_had_not_taken_is_gone_after_a_power_cut() {
    let (mut boxes, _) = with_news();
    let photos = boxes.sender.photos();
    fill::file(photos.join("big"), 2, BIG);
    boxes.sender.power_cut();
    boxes.sender.daemon.start();
    assert!(
        !photos.join("big").exists(),
        "the page cache survived a power cut"
    );
    boxes.sender.push("nas2:photos");
}

/// A push through somebody who tells one lie; returns how it ended.
#[track_caller]
fn push_through(boxes: &Linked, lie: Lie) -> Output {
    let liar = Liar::between(&boxes.sender, &boxes.receiver, "nas2", lie, 7);
    boxes.link.aim(liar.address());
    let pushed = boxes.sender.ctl(&["push", "--json", "nas2:photos"]);
    assert!(liar.told() > 0, "{lie:?}: no lie was told: {pushed:?}");
    boxes.link.aim(boxes.receiver.address());
    boxes.link.reset();
    pushed
}

#[test]
fn a_receiver_that_commits_early_is_not_believed() {
    let (boxes, first) = with_news();
    let pushed = push_through(&boxes, Lie::CommitEarly);
    pushed.fails(1, &["no sense"]);
    let kept = boxes.sender.ctl(&["list", "--json"]).success().jsons();
    let acknowledged = kept.iter().filter(|k| k["state"] == "acknowledged");
    let acknowledged: Vec<_> = acknowledged.map(|k| &k["uuid"]).collect();
    assert_eq!(acknowledged, [&first["uuid"]], "{kept:#?}");
    goes_on_from(&boxes, &first);
}

#[test]
fn data_that_was_changed_on_the_way_is_not_taken() {
    let (boxes, first) = with_news();
    push_through(&boxes, Lie::FlipData).fails(1, &[]);
    goes_on_from(&boxes, &first);
}

#[test]
fn a_receiver_that_claims_commits_again_and_again_costs_no_common_state() {
    let (boxes, first) = with_news();
    for number in 0..4 {
        fill::file(boxes.sender.photos().join("more"), number, 10_000);
        push_through(&boxes, Lie::CommitNothing).success();
    }
    goes_on_from(&boxes, &first);
}
