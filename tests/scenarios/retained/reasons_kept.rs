//! Each reason to keep or delete a state on the sender, in the situation that leads to it. Situations that a
//! real file system cannot have are in unit tests.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::thread;
use std::time::Duration;

use sendshot_engine::format::entry::ROOT;
use sendshot_harness::compare::reasons::{
    codes, filled, in_state, pinned, snapshot, stated, with_image,
};
use sendshot_harness::faults::fail_points::{VARIABLE, armed};
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::pairing::{Linked, Paired, pair};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use sendshot_harness::trees::ghosts;

#[test]
fn why_something_is_kept() {
    let mut hosts = filled();
    let sender = &mut hosts.sender;
    for _ in 0..3 {
        sender.push("nas2:photos");
    }
    assert_eq!(codes(sender, &["list"]), ["spare", "spare", "next-parent"]);
    let config = fs::read_to_string(sender.config()).unwrap();
    fs::write(sender.config(), config.replace("keep = 3", "keep = 2")).unwrap();
    sender.daemon.stop();
    sender.daemon.start();
    let expected = ["more-than-keep", "spare", "next-parent"];
    assert_eq!(codes(sender, &["list"]), expected);
    assert_eq!(codes(sender, &["prune", "--dry-run"]), expected);
    let newest = sender.push("nas2:photos");
    in_state(sender, &newest, |_, path| fs::remove_file(path).unwrap());
    let expected = ["next-parent", "deleted-elsewhere"];
    assert_eq!(codes(sender, &["prune", "--dry-run"]), expected);
    let again = ReceiverHost::new();
    fs::remove_file(sender.receiver_file("nas2")).unwrap();
    assert_eq!(codes(sender, &["list"]), ["not-paired"]);
    pair(sender, &again, "nas2");
    assert_eq!(codes(sender, &["list"]), ["receiver-replaced"]);
}

#[test]
fn why_something_is_kept_while_and_after_a_push_is_cut_off() {
    let hosts = Linked::new();
    let sender = &hosts.sender;
    fill::tree(&sender.photos(), 1);
    sender.push("nas2:photos");
    let (_monday, to_monday) = snapshot(sender, "monday");
    sender.push(&to_monday);
    fill::file(sender.photos().join("large"), 1, 24 << 20);
    hosts.link.set(Way::Up, Rule::Slow(4 << 20));
    let before = hosts.link.bytes(Way::Up);
    let push = sender.ctl_start(&["push", "nas2:photos"]);
    until::holds("data is sent", || {
        hosts.link.bytes(Way::Up) > before + (9 << 20)
    });
    // Monday was captured afterwards: only the receiver's report shows that it holds it.
    let expected = ["last-sent", "next-parent-reported", "being-pushed"];
    assert_eq!(codes(sender, &["list"]), expected);
    let expected = ["may-be-used", "may-be-used", "being-pushed"];
    assert_eq!(codes(sender, &["prune", "--dry-run"]), expected);
    hosts.link.set(Way::Up, Rule::Cut);
    push.finish().fails(3, &["nas2"]);
    sender.wait_until_released();
    let expected = ["last-sent", "next-parent-reported", "interrupted"];
    assert_eq!(codes(sender, &["list"]), expected);
    hosts.link.mend();
    sender.push("nas2:photos");
}

/// A captured state is as old as its snapshot, not as its capture.
#[test]
fn a_captured_held_snapshot_keeps_its_time() {
    let hosts = filled();
    let sender = &hosts.sender;
    let (_monday, to_monday) = snapshot(sender, "monday");
    sender.push(&to_monday);
    // Times in lists are whole seconds.
    thread::sleep(Duration::from_secs(2));
    sender.push("nas2:photos");
    let listed = sender.ctl(&["list", "--json"]).success().jsons();
    let times: Vec<_> = listed
        .iter()
        .map(|state| state["time"].as_str().unwrap())
        .collect();
    let [monday, now] = times[..] else {
        panic!("{listed:#?}")
    };
    assert!(monday < now, "{listed:#?}");
}

/// Asserts the reason that `list` shows for the oldest state.
#[track_caller]
fn assert_first(sender: &SenderHost, code: &str, texts: &[&str]) {
    assert_says(stated(sender, &["list"]).first(), code, texts);
}

/// Asserts the reason that `list` shows for the newest state.
#[track_caller]
fn assert_last(sender: &SenderHost, code: &str, texts: &[&str]) {
    assert_says(stated(sender, &["list"]).last(), code, texts);
}

#[track_caller]
fn assert_says(stated: Option<&(String, String)>, code: &str, texts: &[&str]) {
    let (found, words) = stated.unwrap();
    assert_eq!(found, code, "{words}");
    for text in texts {
        assert!(words.contains(text), "`{text}`: {words}");
    }
}

/// Makes the sender's daemon die at a fail point of its next push.
#[track_caller]
fn dies_at(sender: &mut SenderHost, place: &str) {
    sender.daemon.env(VARIABLE, &armed(place, 0));
    sender.daemon.stop();
    sender.daemon.start();
    sender.ctl(&["push", "nas2:photos"]).fails(1, &["daemon"]);
    assert!(sender.daemon.wait_dead(until::PATIENCE), "it did not die");
    sender.daemon.clear_env();
}

#[test]
fn an_unconfirmed_state_waits_for_the_receivers_report() {
    let Paired {
        sender,
        mut receiver,
    } = filled();
    sender.push("nas2:photos");
    receiver.daemon.env(VARIABLE, &armed("commit-destroyed", 0));
    receiver.daemon.stop();
    receiver.daemon.start();
    fs::write(sender.photos().join("news"), "news").unwrap();
    sender.ctl(&["push", "nas2:photos"]).fails(3, &["nas2"]);
    assert!(receiver.daemon.wait_dead(until::PATIENCE), "it did not die");
    let texts = ["nas2 may have committed it", "the next push finds out"];
    assert_last(&sender, "unconfirmed", &texts);
    let expected = ["next-parent", "unconfirmed"];
    assert_eq!(codes(&sender, &["list"]), expected);
    assert_eq!(codes(&sender, &["prune", "--dry-run"]), expected);
    receiver.daemon.clear_env();
    receiver.daemon.start();
    sender.push("nas2:photos");
    assert_eq!(codes(&sender, &["list"]), ["spare", "next-parent"]);
}

#[test]
fn the_last_state_stays_though_no_stream_can_be_built_on_it() {
    let hosts = filled();
    let sender = &hosts.sender;
    let first = sender.push("nas2:photos");
    in_state(sender, &first, |_, path| ghosts::add(path, ROOT, "ghost"));
    sender.daemon.may_log("a stream could not be applied");
    fs::write(sender.photos().join("news"), "news").unwrap();
    let uuid = first["uuid"].as_str().unwrap();
    let by_hand = ["push", "nas2:photos", "--parent", uuid];
    let texts = ["unlink ghost", "help:", "without `--parent`"];
    sender.ctl(&by_hand).fails(1, &texts);
    sender.wait_until_released();
    let texts = [
        "the last state that nas2 acknowledged",
        "no stream is built on it",
    ];
    assert_first(sender, "last-refused", &texts);
    let pruned = codes(sender, &["prune", "--dry-run"]);
    assert_eq!(pruned[0], "last-refused");
}

#[test]
fn prune_deletes_an_older_snapshot_left_by_a_crash() {
    let mut hosts = pinned();
    let sender = &mut hosts.sender;
    sender.push("nas2:photos");
    dies_at(sender, "acknowledged-noted");
    sender.daemon.start();
    let texts = [
        "a newer state was acknowledged",
        "pins data",
        "`prune` deletes it",
    ];
    assert_first(sender, "pins-data", &texts);
    let expected = ["pins-data", "next-parent"];
    assert_eq!(codes(sender, &["list"]), expected);
    assert_eq!(codes(sender, &["prune", "--dry-run"]), expected);
    sender.ctl(&["prune"]).success();
    assert_eq!(codes(sender, &["list"]), ["next-parent"]);
}

/// The daemon reconciles the mounted disks when it starts. This one is plugged in later.
#[test]
fn prune_deletes_what_a_crash_left_on_a_returned_disk() {
    let mut hosts = pinned();
    let sender = &mut hosts.sender;
    sender.push("nas2:photos");
    dies_at(sender, "snapshot-noted");
    let fs = sender.fs().to_owned();
    with_image(&fs, |_| sender.daemon.start());
    let texts = ["an interrupted push", "the next push or `prune` deletes it"];
    assert_last(sender, "left-over", &texts);
    let expected = ["next-parent", "left-over"];
    assert_eq!(codes(sender, &["list"]), expected);
    assert_eq!(codes(sender, &["prune", "--dry-run"]), expected);
    sender.ctl(&["prune"]).success();
    assert_eq!(codes(sender, &["list"]), ["next-parent"]);
}
