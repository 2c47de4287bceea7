//! What others do at the worst moment: to parents, volumes, snapshots, receivers, clocks. Nothing
//! wrong comes of it, and the next push goes on from what both sides have.

#![allow(clippy::unwrap_used, reason = "what fails in a test ends it")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sendshot_harness::compare::exact::{Reference, assert_copy, assert_exact, assert_same};
use sendshot_harness::compare::subvolumes::{
    self, assert_no_leftovers, assert_only_resumable_left,
};
use sendshot_harness::disks::mount::{self, Mount};
use sendshot_harness::disks::raw;
use sendshot_harness::disks::streams;
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::clock::Clock;
use sendshot_harness::hosts::command::{Running, run};
use sendshot_harness::hosts::pairing::{Linked, Paired, pair, pair_at};
use sendshot_harness::hosts::receiver_box::ReceiverBox;
use sendshot_harness::hosts::sender_box::SenderBox;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::Value;

const MIB: usize = 1 << 20;
/// Takes some seconds for what these tests push.
const SLOW: Rule = Rule::Slow(8 << 20);

/// Boxes of which the volume has been pushed once and has much new since.
fn with_news() -> (Linked, Value) {
    let boxes = Linked::new();
    fill::tree(&boxes.sender.photos(), 1);
    let first = boxes.sender.push("nas2:photos");
    fill::file(boxes.sender.photos().join("big"), 1, 24 * MIB);
    (boxes, first)
}

/// Starts a push that takes long, and waits until it is in the middle of its data.
#[track_caller]
fn in_the_middle(boxes: &Linked) -> Running {
    boxes.link.set(Way::Up, SLOW);
    let before = boxes.link.bytes(Way::Up);
    let push = boxes.sender.ctl_start(&["push", "--json", "nas2:photos"]);
    until::holds("a push transfers data", || {
        boxes.link.bytes(Way::Up) > before + 2 * MIB as u64
    });
    push
}

fn delete(subvolume: &Path) {
    let mut btrfs = Command::new("btrfs");
    run(btrfs.args(["subvolume", "delete", "-C"]).arg(subvolume)).success();
}

fn set_ro(subvolume: &Path, ro: &str) {
    let mut btrfs = Command::new("btrfs");
    run(btrfs
        .args(["property", "set", "-f"])
        .arg(subvolume)
        .args(["ro", ro]))
    .success();
}

/// After whatever happened: the push, and the one after it, are exact; nothing is left.
#[track_caller]
fn goes_on(boxes: &Linked) -> Value {
    boxes.link.mend();
    let next = boxes.sender.push("nas2:photos");
    assert_exact(&boxes.sender, &boxes.receiver, &next);
    fs::write(boxes.sender.photos().join("after"), "after").unwrap();
    let last = boxes.sender.push("nas2:photos");
    assert_eq!(last["parent"], next["uuid"], "{last}");
    assert_exact(&boxes.sender, &boxes.receiver, &last);
    assert_no_leftovers(&boxes.sender, &boxes.receiver);
    next
}

#[test]
fn a_parent_deleted_on_the_receiver_during_a_push_does_not_spoil_the_copy() {
    let (boxes, first) = with_news();
    let push = in_the_middle(&boxes);
    delete(&boxes.receiver.copy(&first));
    boxes.link.mend();
    let pushed = push.finish().success().json();
    assert_exact(&boxes.sender, &boxes.receiver, &pushed);
    goes_on(&boxes);
}

#[test]
fn a_parent_made_writable_and_changed_during_a_push_does_not_spoil_the_copy() {
    let (boxes, first) = with_news();
    let push = in_the_middle(&boxes);
    let parent = boxes.receiver.copy(&first);
    set_ro(&parent, "false");
    fs::write(parent.join("dir0/below/file3"), "changed").unwrap();
    set_ro(&parent, "true");
    boxes.link.mend();
    let pushed = push.finish().success().json();
    assert_exact(&boxes.sender, &boxes.receiver, &pushed);
    delete(&parent); // a copy no more, and nobody's but the user's
    goes_on(&boxes);
}

#[test]
fn a_parent_deduplicated_during_a_push_does_not_spoil_the_copy() {
    let (boxes, _) = with_news();
    let twin = boxes.receiver.fs().join("twin");
    fs::copy(boxes.sender.photos().join("dir0/below/file5"), &twin).unwrap();
    let parent = boxes.receiver.copy(&boxes.sender.push("nas2:photos"));
    fill::file(boxes.sender.photos().join("big"), 2, 24 * MIB);
    let push = in_the_middle(&boxes);
    raw::dedupe(&twin, &parent.join("dir0/below/file5"));
    boxes.link.mend();
    let pushed = push.finish().success().json();
    assert_exact(&boxes.sender, &boxes.receiver, &pushed);
    goes_on(&boxes);
}

#[test]
fn a_parent_deduplicated_before_a_push_is_explained_and_another_is_used() {
    let (boxes, first) = with_news();
    let twin = boxes.receiver.fs().join("twin");
    fs::copy(boxes.sender.photos().join("dir0/below/file5"), &twin).unwrap();
    let second = boxes.sender.push("nas2:photos");
    fs::write(boxes.sender.photos().join("more"), "more").unwrap();
    raw::dedupe(
        &twin,
        &boxes.receiver.copy(&second).join("dir0/below/file5"),
    );
    let third = boxes.sender.push("nas2:photos");
    assert_eq!(third["parent"], first["uuid"], "{third}");
    assert_exact(&boxes.sender, &boxes.receiver, &third);
}

/// The parent goes after it was agreed on and before the push begins: the sender negotiates again
/// by itself.
#[test]
fn a_parent_that_goes_between_the_agreement_and_the_push_is_replaced_by_another() {
    let (boxes, first) = with_news();
    let second = boxes.sender.push("nas2:photos");
    fill::file(boxes.sender.photos().join("big"), 2, 4 * MIB);
    // What the sender says after it was told of the second copy arrives late.
    boxes
        .link
        .set(Way::Up, Rule::Delay(Duration::from_millis(700)));
    let push = boxes.sender.ctl_start(&["push", "--json", "nas2:photos"]);
    until::holds("the push is captured", || {
        let status = boxes.sender.ctl(&["status", "--json"]).success().json();
        let running = status["running"].as_array().unwrap();
        running.iter().any(|push| push["stage"] == "transfer")
    });
    delete(&boxes.receiver.copy(&second));
    boxes.link.mend();
    let pushed = push.finish().success().json();
    assert_exact(&boxes.sender, &boxes.receiver, &pushed);
    let parents = [&first["uuid"], &second["uuid"]];
    assert!(parents.contains(&&pushed["parent"]), "{pushed}");
    goes_on(&boxes);
}

#[test]
fn a_volume_deleted_during_its_push_is_copied_as_it_was() {
    let (boxes, _) = with_news();
    let photos = boxes.sender.photos();
    let reference = Reference::of(boxes.sender.fs(), &photos);
    let push = in_the_middle(&boxes);
    delete(&photos);
    boxes.link.mend();
    let pushed = push.finish().success().json();
    let copy = assert_copy(&boxes.receiver, &pushed);
    assert_same(reference.path(), &copy);
    assert_no_leftovers(&boxes.sender, &boxes.receiver);
    boxes
        .sender
        .ctl(&["push", "nas2:photos"])
        .fails(2, &["photos"]);
}

#[test]
fn a_volume_replaced_during_its_push_is_copied_as_it_was_and_then_as_it_is() {
    let (boxes, _) = with_news();
    let photos = boxes.sender.photos();
    let reference = Reference::of(boxes.sender.fs(), &photos);
    let push = in_the_middle(&boxes);
    let past = boxes.sender.fs().join("past");
    fs::rename(&photos, &past).unwrap();
    let mut btrfs = Command::new("btrfs");
    run(btrfs.args(["subvolume", "snapshot"]).args([&past, &photos])).success();
    fs::remove_file(photos.join("dir1/below/file3")).unwrap();
    boxes.link.mend();
    let pushed = push.finish().success().json();
    assert_same(reference.path(), &assert_copy(&boxes.receiver, &pushed));
    // The name leads to another subvolume than the volume's id: the user decides which it is.
    delete(&past);
    let next = boxes.sender.push("nas2:photos");
    assert_exact(&boxes.sender, &boxes.receiver, &next);
}

#[test]
fn a_volume_replaced_while_its_push_was_interrupted_is_copied_as_it_is() {
    let (boxes, _) = with_news();
    let photos = boxes.sender.photos();
    let push = in_the_middle(&boxes);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    let past = boxes.sender.fs().join("past");
    fs::rename(&photos, &past).unwrap();
    let mut btrfs = Command::new("btrfs");
    run(btrfs.args(["subvolume", "snapshot"]).args([&past, &photos])).success();
    delete(&past);
    fs::write(photos.join("dir1/below/file3"), "new").unwrap();
    boxes.link.mend();
    let next = boxes.sender.push("nas2:photos");
    assert_exact(&boxes.sender, &boxes.receiver, &next);
    assert_no_leftovers(&boxes.sender, &boxes.receiver);
}

#[test]
fn a_receiver_set_up_anew_while_a_push_was_interrupted_gets_everything() {
    let (mut boxes, _) = with_news();
    let push = in_the_middle(&boxes);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    boxes.receiver.daemon.stop();
    fs::remove_dir_all(boxes.receiver.daemon.state_dir()).unwrap();
    fs::remove_file(boxes.receiver.root().join(".sendshot-root")).unwrap();
    boxes.receiver.daemon.start();
    boxes.receiver.daemon.may_log("certificate");
    boxes.link.mend();
    boxes
        .sender
        .ctl(&["push", "nas2:photos"])
        .fails(4, &["pair"]);
    fs::remove_file(boxes.sender.receiver_file("nas2")).unwrap();
    pair_at(&boxes.sender, &boxes.receiver, "nas2", boxes.link.address());
    let pushed = boxes.sender.push("nas2:photos");
    assert!(pushed["resumed_at"].is_null(), "{pushed}");
    assert_exact(&boxes.sender, &boxes.receiver, &pushed);
    // What the old instance was sent goes by hand, or with `resume_keep`.
    assert_only_resumable_left(&boxes.sender, &boxes.receiver);
    boxes
        .sender
        .ctl(&["forget", "--yes", "--break-chain", "--all", "nas2:photos"])
        .success();
}

#[test]
fn two_senders_with_the_same_volume_name_do_not_meet() {
    let receiver = ReceiverBox::new();
    let (one, two) = (SenderBox::new(), SenderBox::new());
    pair(&one, &receiver, "nas2");
    let token = receiver.invite(&["other"]);
    let address = receiver.address().to_string();
    let arguments = ["pair", &address, "--name", "nas2", "--token", &token];
    two.ctl(&arguments).success();
    for (seed, sender) in [(1, &one), (2, &two)] {
        fill::tree(&sender.photos(), seed);
    }
    let both = [&one, &two].map(|s| s.ctl_start(&["push", "--json", "nas2:photos"]));
    let pushed = both.map(|push| push.finish().success().json());
    for (sender, pushed) in [&one, &two].into_iter().zip(&pushed) {
        sender.wait_until_released();
        assert_exact(sender, &receiver, pushed);
    }
    assert_ne!(pushed[0]["copy"], pushed[1]["copy"]);
}

#[test]
fn a_prune_during_a_push_lets_go_of_nothing_that_it_needs() {
    let (boxes, first) = with_news();
    let push = in_the_middle(&boxes);
    boxes.sender.ctl(&["prune"]).success();
    let forget = ["forget", "--yes", "--break-chain", "--all", "nas2:photos"];
    boxes.sender.ctl(&forget).fails(4, &["running"]);
    boxes.link.mend();
    let pushed = push.finish().success().json();
    assert_eq!(pushed["parent"], first["uuid"]);
    assert_exact(&boxes.sender, &boxes.receiver, &pushed);
    goes_on(&boxes);
}

#[test]
fn a_prune_between_an_interruption_and_its_resumption_lets_go_of_nothing_that_it_needs() {
    let (boxes, first) = with_news();
    let push = in_the_middle(&boxes);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    boxes.sender.ctl(&["prune"]).success();
    boxes.link.mend();
    let pushed = boxes.sender.push("nas2:photos");
    assert_eq!(pushed["parent"], first["uuid"]);
    assert!(pushed["resumed_at"].as_u64().is_some(), "{pushed}");
    assert_exact(&boxes.sender, &boxes.receiver, &pushed);
    assert_no_leftovers(&boxes.sender, &boxes.receiver);
}

#[test]
fn a_snapshot_tool_that_deletes_around_us_harms_no_copy() {
    let (boxes, _) = with_news();
    // Its own snapshots come and go.
    for name in ["a", "b"] {
        streams::snapshot(&boxes.sender.photos(), &boxes.sender.fs().join(name)).unwrap();
    }
    let push = in_the_middle(&boxes);
    for name in ["a", "b"] {
        delete(&boxes.sender.fs().join(name));
    }
    boxes.link.mend();
    let pushed = push.finish().success().json();
    assert_exact(&boxes.sender, &boxes.receiver, &pushed);
    goes_on(&boxes);
}

#[test]
fn a_push_snapshot_deleted_in_the_middle_fails_the_push_and_no_more() {
    let (boxes, first) = with_news();
    // More than what is read ahead.
    for i in 0..40 {
        fill::file(boxes.sender.photos().join(format!("small{i}")), i, MIB);
    }
    let push = in_the_middle(&boxes);
    {
        let top = Mount::private(&mount::devices(boxes.sender.fs())[0], "subvolid=5");
        let snapshots = top.path().join(".sendshot/snapshots");
        let hidden = fs::read_dir(snapshots).unwrap().next().unwrap().unwrap();
        delete(&hidden.path());
    }
    boxes.link.mend();
    push.finish().fails(1, &["snapshot"]);
    let next = goes_on(&boxes);
    assert_eq!(next["parent"], first["uuid"], "{next}");
}

#[test]
fn a_staging_subvolume_deleted_in_the_middle_fails_the_push_and_no_more() {
    let (boxes, _) = with_news();
    let push = in_the_middle(&boxes);
    let all = subvolumes::list(boxes.receiver.fs());
    let staging = all.iter().find(|s| s.path.contains("/push-")).unwrap();
    boxes.receiver.daemon.may_log("staging subvolume stays");
    delete(&boxes.receiver.fs().join(&staging.path));
    boxes.link.mend();
    assert_ne!(push.finish().code, 0, "a copy was made of what was gone");
    goes_on(&boxes);
}

#[test]
fn clocks_that_jump_either_way_lose_nothing() {
    let mut boxes = Paired::new();
    let (here, there) = (Clock::new(), Clock::new());
    here.of(&mut boxes.sender.daemon);
    there.of(&mut boxes.receiver.daemon);
    fill::tree(&boxes.sender.photos(), 1);
    let mut last = boxes.sender.push("nas2:photos");
    let jumps = [
        ("+20d", "+0"),
        ("-20d", "+0"),
        ("+0", "+20d"),
        ("+0", "-20d"),
        ("+0", "+0"),
    ];
    for (i, (sender, receiver)) in jumps.into_iter().enumerate() {
        here.set(sender);
        there.set(receiver);
        fs::write(boxes.sender.photos().join("file"), i.to_string()).unwrap();
        let pushed = boxes.sender.ctl(&["push", "--json", "nas2:photos"]);
        boxes.sender.wait_until_released();
        if pushed.code != 0 {
            // A certificate that is not valid yet, or not any more, by that clock.
            let pushed = pushed.fails(4, &["clock"]);
            assert!(sender != "+0" || receiver != "+0", "{pushed:?}");
            continue;
        }
        let pushed = pushed.json();
        assert_eq!(pushed["parent"], last["uuid"], "{pushed}");
        assert_exact(&boxes.sender, &boxes.receiver, &pushed);
        last = pushed;
    }
    assert_eq!(last["uuid"].as_str().map(str::len), Some(36));
    assert_no_leftovers(&boxes.sender, &boxes.receiver);
}

#[test]
fn clocks_that_jump_during_a_push_do_not_end_it() {
    let mut boxes = Linked::new();
    let (here, there) = (Clock::new(), Clock::new());
    here.of(&mut boxes.sender.daemon);
    there.of(&mut boxes.receiver.daemon);
    fill::file(boxes.sender.photos().join("big"), 1, 24 * MIB);
    let push = in_the_middle(&boxes);
    here.set("-400d");
    there.set("+400d");
    std::thread::sleep(Duration::from_millis(500));
    here.set("+400d");
    there.set("-400d");
    boxes.link.mend();
    let pushed = push.finish().success().json();
    here.set("+0");
    there.set("+0");
    boxes.sender.wait_until_released();
    assert_exact(&boxes.sender, &boxes.receiver, &pushed);
    goes_on(&boxes);
}
