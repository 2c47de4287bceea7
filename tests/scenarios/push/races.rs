//! Interference at the worst moment: with parents, volumes, snapshots, receivers, clocks. No copy is
//! wrong, and the next push builds on the common state.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

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
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::Value;

const MIB: usize = 1 << 20;
/// Slow enough that a push of these tests takes some seconds.
const SLOW: Rule = Rule::Slow(8 << 20);

/// Hosts of which the volume has been pushed once and has much new data since.
fn with_news() -> (Linked, Value) {
    let hosts = Linked::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = hosts.sender.push("nas2:photos");
    fill::file(hosts.sender.photos().join("big"), 1, 24 * MIB);
    (hosts, first)
}

/// Starts a push that takes long, and waits until it is in the middle of its data.
#[track_caller]
fn in_the_middle(hosts: &Linked) -> Running {
    hosts.link.set(Way::Up, SLOW);
    let before = hosts.link.bytes(Way::Up);
    let push = hosts.sender.ctl_start(&["push", "--json", "nas2:photos"]);
    until::holds("a push transfers data", || {
        hosts.link.bytes(Way::Up) > before + 2 * MIB as u64
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

/// Asserts that the next push and the one after it are exact, and that nothing is left over.
#[track_caller]
fn two_pushes_succeed(hosts: &Linked) -> Value {
    hosts.link.mend();
    let next = hosts.sender.push("nas2:photos");
    assert_exact(&hosts.sender, &hosts.receiver, &next);
    fs::write(hosts.sender.photos().join("after"), "after").unwrap();
    let last = hosts.sender.push("nas2:photos");
    assert_eq!(last["parent"], next["uuid"], "{last}");
    assert_exact(&hosts.sender, &hosts.receiver, &last);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
    next
}

#[test]
fn a_parent_deleted_during_a_push_keeps_the_copy_exact() {
    let (hosts, first) = with_news();
    let push = in_the_middle(&hosts);
    delete(&hosts.receiver.copy(&first));
    hosts.link.mend();
    let pushed = push.finish().success().json();
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    two_pushes_succeed(&hosts);
}

#[test]
fn a_parent_changed_during_a_push_keeps_the_copy_exact() {
    let (hosts, first) = with_news();
    let push = in_the_middle(&hosts);
    let parent = hosts.receiver.copy(&first);
    set_ro(&parent, "false");
    fs::write(parent.join("dir0/below/file3"), "changed").unwrap();
    set_ro(&parent, "true");
    hosts.link.mend();
    let pushed = push.finish().success().json();
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    delete(&parent); // no longer a copy, and the user's own
    two_pushes_succeed(&hosts);
}

#[test]
fn a_parent_deduplicated_during_a_push_keeps_the_copy_exact() {
    let (hosts, _) = with_news();
    let twin = hosts.receiver.fs().join("twin");
    fs::copy(hosts.sender.photos().join("dir0/below/file5"), &twin).unwrap();
    let parent = hosts.receiver.copy(&hosts.sender.push("nas2:photos"));
    fill::file(hosts.sender.photos().join("big"), 2, 24 * MIB);
    let push = in_the_middle(&hosts);
    raw::dedupe(&twin, &parent.join("dir0/below/file5"));
    hosts.link.mend();
    let pushed = push.finish().success().json();
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    two_pushes_succeed(&hosts);
}

#[test]
fn a_parent_deduplicated_before_a_push_is_replaced() {
    let (hosts, first) = with_news();
    let twin = hosts.receiver.fs().join("twin");
    fs::copy(hosts.sender.photos().join("dir0/below/file5"), &twin).unwrap();
    let second = hosts.sender.push("nas2:photos");
    fs::write(hosts.sender.photos().join("more"), "more").unwrap();
    raw::dedupe(
        &twin,
        &hosts.receiver.copy(&second).join("dir0/below/file5"),
    );
    let third = hosts.sender.push("nas2:photos");
    assert_eq!(third["parent"], first["uuid"], "{third}");
    assert_exact(&hosts.sender, &hosts.receiver, &third);
}

/// The parent is deleted after the negotiation and before the push begins: the sender negotiates
/// again by itself.
#[test]
fn a_parent_deleted_after_negotiation_is_replaced() {
    let (hosts, first) = with_news();
    let second = hosts.sender.push("nas2:photos");
    fill::file(hosts.sender.photos().join("big"), 2, 4 * MIB);
    // The sender's messages after the inventory arrive late.
    hosts
        .link
        .set(Way::Up, Rule::Delay(Duration::from_millis(700)));
    let push = hosts.sender.ctl_start(&["push", "--json", "nas2:photos"]);
    until::holds("the push is captured", || {
        let status = hosts.sender.ctl(&["status", "--json"]).success().json();
        let running = status["running"].as_array().unwrap();
        running.iter().any(|push| push["stage"] == "transfer")
    });
    delete(&hosts.receiver.copy(&second));
    hosts.link.mend();
    let pushed = push.finish().success().json();
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    let parents = [&first["uuid"], &second["uuid"]];
    assert!(parents.contains(&&pushed["parent"]), "{pushed}");
    two_pushes_succeed(&hosts);
}

#[test]
fn a_volume_deleted_during_its_push_is_copied_as_it_was() {
    let (hosts, _) = with_news();
    let photos = hosts.sender.photos();
    let reference = Reference::of(hosts.sender.fs(), &photos);
    let push = in_the_middle(&hosts);
    delete(&photos);
    hosts.link.mend();
    let pushed = push.finish().success().json();
    let copy = assert_copy(&hosts.receiver, &pushed);
    assert_same(reference.path(), &copy);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
    hosts
        .sender
        .ctl(&["push", "nas2:photos"])
        .fails(2, &["photos"]);
}

#[test]
fn a_volume_replaced_during_its_push_is_copied_twice() {
    let (hosts, _) = with_news();
    let photos = hosts.sender.photos();
    let reference = Reference::of(hosts.sender.fs(), &photos);
    let push = in_the_middle(&hosts);
    let past = hosts.sender.fs().join("past");
    fs::rename(&photos, &past).unwrap();
    let mut btrfs = Command::new("btrfs");
    run(btrfs.args(["subvolume", "snapshot"]).args([&past, &photos])).success();
    fs::remove_file(photos.join("dir1/below/file3")).unwrap();
    hosts.link.mend();
    let pushed = push.finish().success().json();
    assert_same(reference.path(), &assert_copy(&hosts.receiver, &pushed));
    // The name leads to another subvolume than the volume's id: the user decides which it is.
    delete(&past);
    let next = hosts.sender.push("nas2:photos");
    assert_exact(&hosts.sender, &hosts.receiver, &next);
}

#[test]
fn a_volume_replaced_while_interrupted_is_exact() {
    let (hosts, _) = with_news();
    let photos = hosts.sender.photos();
    let push = in_the_middle(&hosts);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    let past = hosts.sender.fs().join("past");
    fs::rename(&photos, &past).unwrap();
    let mut btrfs = Command::new("btrfs");
    run(btrfs.args(["subvolume", "snapshot"]).args([&past, &photos])).success();
    delete(&past);
    fs::write(photos.join("dir1/below/file3"), "new").unwrap();
    hosts.link.mend();
    let next = hosts.sender.push("nas2:photos");
    assert_exact(&hosts.sender, &hosts.receiver, &next);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_receiver_set_up_again_gets_everything() {
    let (mut hosts, _) = with_news();
    let push = in_the_middle(&hosts);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    hosts.receiver.daemon.stop();
    fs::remove_dir_all(hosts.receiver.daemon.state_dir()).unwrap();
    fs::remove_file(hosts.receiver.root().join(".sendshot-root")).unwrap();
    hosts.receiver.daemon.start();
    hosts.receiver.daemon.may_log("certificate");
    hosts.link.mend();
    hosts
        .sender
        .ctl(&["push", "nas2:photos"])
        .fails(4, &["pair"]);
    fs::remove_file(hosts.sender.receiver_file("nas2")).unwrap();
    pair_at(&hosts.sender, &hosts.receiver, "nas2", hosts.link.address());
    let pushed = hosts.sender.push("nas2:photos");
    assert!(pushed["resumed_at"].is_null(), "{pushed}");
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    // States for the old instance are deleted by hand, or after `resume_keep`.
    assert_only_resumable_left(&hosts.sender, &hosts.receiver);
    hosts
        .sender
        .ctl(&["forget", "--yes", "--break-chain", "--all", "nas2:photos"])
        .success();
}

#[test]
fn two_senders_with_the_same_volume_name_do_not_meet() {
    let receiver = ReceiverHost::new();
    let (one, two) = (SenderHost::new(), SenderHost::new());
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
fn a_prune_keeps_what_a_running_push_needs() {
    let (hosts, first) = with_news();
    let push = in_the_middle(&hosts);
    hosts.sender.ctl(&["prune"]).success();
    let forget = ["forget", "--yes", "--break-chain", "--all", "nas2:photos"];
    hosts.sender.ctl(&forget).fails(4, &["running"]);
    hosts.link.mend();
    let pushed = push.finish().success().json();
    assert_eq!(pushed["parent"], first["uuid"]);
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    two_pushes_succeed(&hosts);
}

#[test]
fn a_prune_keeps_what_an_interrupted_push_needs() {
    let (hosts, first) = with_news();
    let push = in_the_middle(&hosts);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    hosts.sender.ctl(&["prune"]).success();
    hosts.link.mend();
    let pushed = hosts.sender.push("nas2:photos");
    assert_eq!(pushed["parent"], first["uuid"]);
    assert!(pushed["resumed_at"].as_u64().is_some(), "{pushed}");
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_snapshot_tool_that_deletes_around_us_harms_no_copy() {
    let (hosts, _) = with_news();
    // The tool's own snapshots are created and deleted.
    for name in ["a", "b"] {
        streams::snapshot(&hosts.sender.photos(), &hosts.sender.fs().join(name)).unwrap();
    }
    let push = in_the_middle(&hosts);
    for name in ["a", "b"] {
        delete(&hosts.sender.fs().join(name));
    }
    hosts.link.mend();
    let pushed = push.finish().success().json();
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    two_pushes_succeed(&hosts);
}

#[test]
fn a_deleted_push_snapshot_fails_only_the_push() {
    let (hosts, first) = with_news();
    // More data than is read ahead.
    for i in 0..40 {
        fill::file(hosts.sender.photos().join(format!("small{i}")), i, MIB);
    }
    let push = in_the_middle(&hosts);
    {
        let top = Mount::private(&mount::devices(hosts.sender.fs())[0], "subvolid=5");
        let snapshots = top.path().join(".sendshot/snapshots");
        let hidden = fs::read_dir(snapshots).unwrap().next().unwrap().unwrap();
        delete(&hidden.path());
    }
    hosts.link.mend();
    push.finish().fails(1, &["snapshot"]);
    let next = two_pushes_succeed(&hosts);
    assert_eq!(next["parent"], first["uuid"], "{next}");
}

#[test]
fn a_deleted_staging_subvolume_fails_only_the_push() {
    let (hosts, _) = with_news();
    let push = in_the_middle(&hosts);
    let all = subvolumes::list(hosts.receiver.fs());
    let staging = all.iter().find(|s| s.path.contains("/push-")).unwrap();
    hosts.receiver.daemon.may_log("staging subvolume stays");
    delete(&hosts.receiver.fs().join(&staging.path));
    hosts.link.mend();
    assert_ne!(push.finish().code, 0, "a copy was made of what was gone");
    two_pushes_succeed(&hosts);
}

#[test]
fn clocks_that_jump_either_way_lose_nothing() {
    let mut hosts = Paired::new();
    let (here, there) = (Clock::new(), Clock::new());
    here.of(&mut hosts.sender.daemon);
    there.of(&mut hosts.receiver.daemon);
    fill::tree(&hosts.sender.photos(), 1);
    let mut last = hosts.sender.push("nas2:photos");
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
        fs::write(hosts.sender.photos().join("file"), i.to_string()).unwrap();
        let pushed = hosts.sender.ctl(&["push", "--json", "nas2:photos"]);
        hosts.sender.wait_until_released();
        if pushed.code != 0 {
            // The certificate is not valid yet, or has expired, by that clock.
            let pushed = pushed.fails(4, &["clock"]);
            assert!(sender != "+0" || receiver != "+0", "{pushed:?}");
            continue;
        }
        let pushed = pushed.json();
        assert_eq!(pushed["parent"], last["uuid"], "{pushed}");
        assert_exact(&hosts.sender, &hosts.receiver, &pushed);
        last = pushed;
    }
    assert_eq!(last["uuid"].as_str().map(str::len), Some(36));
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn clocks_that_jump_during_a_push_do_not_end_it() {
    let mut hosts = Linked::new();
    let (here, there) = (Clock::new(), Clock::new());
    here.of(&mut hosts.sender.daemon);
    there.of(&mut hosts.receiver.daemon);
    fill::file(hosts.sender.photos().join("big"), 1, 24 * MIB);
    let push = in_the_middle(&hosts);
    here.set("-400d");
    there.set("+400d");
    std::thread::sleep(Duration::from_millis(500));
    here.set("+400d");
    there.set("-400d");
    hosts.link.mend();
    let pushed = push.finish().success().json();
    here.set("+0");
    there.set("+0");
    hosts.sender.wait_until_released();
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    two_pushes_succeed(&hosts);
}
