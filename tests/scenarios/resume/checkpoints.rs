//! Pushes that broke off go on where they stopped, and send little twice: counted by the link.

#![allow(clippy::unwrap_used, reason = "what fails in a test ends it")]

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::compare::subvolumes::{
    self, assert_no_leftovers, assert_only_resumable_left,
};
use sendshot_harness::faults::link::{Link, Rule, Way};
use sendshot_harness::hosts::command::{self, Running};
use sendshot_harness::hosts::pairing::{Linked, pair, pair_at};
use sendshot_harness::hosts::receiver_box::ReceiverBox;
use sendshot_harness::hosts::sender_box::SenderBox;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// What a first push sends.
const BIG: u64 = 96 * MIB;
/// What may be sent twice when only the connection breaks.
const WINDOW: u64 = 8 * MIB;
/// Between two checkpoints, in these tests.
const INTERVAL: u64 = 8 * MIB;
const CHECKPOINTS: &str = "checkpoint_bytes = \"8 MiB\"\ncheckpoint_interval = \"0s\"";
const PATIENT: &str = "retry_for = \"60s\"";

/// What the boxes are to be like.
#[derive(Default)]
struct Wanted {
    sender: &'static str,
    receiver: &'static str,
    power: bool,
}

fn boxes(wanted: &Wanted) -> Linked {
    let mut sender = SenderBox::setup().volume("photos", "photos");
    let mut receiver = ReceiverBox::setup().keys(&format!("{CHECKPOINTS}\n{}", wanted.receiver));
    sender = sender.keys(if wanted.sender.is_empty() {
        "retry_for = \"0s\""
    } else {
        wanted.sender
    });
    if wanted.power {
        sender = sender.power();
        receiver = receiver.power();
    }
    let (sender, receiver) = (sender.start(), receiver.start());
    let link = Link::to(receiver.address());
    pair_at(&sender, &receiver, "nas2", link.address());
    fill::tree(&sender.photos(), 1);
    for i in 0..4 {
        let path = sender.photos().join(format!("big{i}"));
        fill::file(path, i, (BIG / 4) as usize);
    }
    Linked {
        sender,
        link,
        receiver,
    }
}

/// Has something happen when so many more bytes went up.
fn start_until(boxes: &Linked, arguments: &[&str], bytes: u64) -> Running {
    let before = boxes.link.bytes(Way::Up);
    let push = boxes.sender.ctl_start(arguments);
    until::holds("so much was sent", || {
        boxes.link.bytes(Way::Up) >= before + bytes
    });
    push
}

/// Bytes that went up for a push of this length beyond what it takes at the least. TLS and frames
/// are less than one in a hundred.
#[track_caller]
fn sent_twice(boxes: &Linked, before: u64, pushed: &Value) -> u64 {
    let sent = boxes.link.bytes(Way::Up) - before;
    let stream = pushed["stream_bytes"].as_u64().unwrap();
    assert!(
        sent >= stream,
        "less was sent than there is: {sent} of {stream}"
    );
    (sent - stream).saturating_sub(stream / 100)
}

#[track_caller]
fn partials(of: &ReceiverBox) -> Vec<Value> {
    of.ctl(&["copy", "list", "--partials", "--json"])
        .success()
        .jsons()
}

#[track_caller]
fn interrupted(of: &SenderBox) -> Vec<Value> {
    of.ctl(&["list", "--partials", "--json"]).success().jsons()
}

#[track_caller]
fn is_exact_and_tidy(boxes: &Linked, pushed: &Value) {
    assert_exact(&boxes.sender, &boxes.receiver, pushed);
    assert_no_leftovers(&boxes.sender, &boxes.receiver);
    assert!(partials(&boxes.receiver).is_empty() && interrupted(&boxes.sender).is_empty());
}

#[test]
fn a_connection_that_breaks_is_made_again_and_little_is_sent_twice() {
    let boxes = boxes(&Wanted {
        sender: PATIENT,
        ..Wanted::default()
    });
    let before = boxes.link.bytes(Way::Up);
    boxes.link.set_after(Way::Up, BIG * 9 / 10, Rule::Cut);
    let pushed = boxes.sender.push("nas2:photos");
    let resumed_at = pushed["resumed_at"].as_u64().unwrap();
    assert!(resumed_at > BIG * 8 / 10 - WINDOW, "{pushed}");
    let twice = sent_twice(&boxes, before, &pushed);
    assert!(twice <= WINDOW, "{twice} bytes were sent twice");
    is_exact_and_tidy(&boxes, &pushed);
}

#[test]
fn a_push_goes_on_over_a_link_that_breaks_again_and_again() {
    let boxes = boxes(&Wanted {
        sender: PATIENT,
        ..Wanted::default()
    });
    boxes.link.set_after(Way::Up, 3 * MIB, Rule::Cut);
    let push = boxes.sender.ctl_start(&["push", "--json", "nas2:photos"]);
    for cut in 1..6 {
        let at = boxes.link.bytes(Way::Up) + 10 * MIB;
        until::holds("it goes on", || boxes.link.bytes(Way::Up) > at);
        boxes.link.set_after(Way::Up, cut * MIB, Rule::Cut);
    }
    let pushed = push.finish().success().json();
    is_exact_and_tidy(&boxes, &pushed);
}

#[test]
fn ctrl_c_keeps_what_was_sent_and_the_next_push_goes_on_there() {
    let boxes = boxes(&Wanted::default());
    let before = boxes.link.bytes(Way::Up);
    let push = start_until(&boxes, &["push", "nas2:photos"], BIG / 2);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled", "goes on where"]);
    until::holds("the receiver waits", || {
        partials(&boxes.receiver)
            .iter()
            .any(|partial| partial["state"] == "waiting")
    });
    let there = partials(&boxes.receiver).remove(0);
    let here = interrupted(&boxes.sender).remove(0);
    assert_eq!(there["transfer"], here["transfer"]);
    assert_eq!(there["uuid"], here["uuid"]);
    assert!(
        there["offset"].as_u64().unwrap() > BIG / 2 - WINDOW - MIB,
        "{there}"
    );
    assert_only_resumable_left(&boxes.sender, &boxes.receiver);
    let pushed = boxes.sender.push("nas2:photos");
    assert_eq!(pushed["resumed_at"], there["offset"]);
    assert_eq!(pushed["uuid"], here["uuid"], "another snapshot was sent");
    let twice = sent_twice(&boxes, before, &pushed);
    assert!(twice <= WINDOW, "{twice} bytes were sent twice");
    is_exact_and_tidy(&boxes, &pushed);
}

#[test]
fn what_changed_since_the_interruption_is_sent_too() {
    let boxes = boxes(&Wanted::default());
    let push = start_until(&boxes, &["push", "nas2:photos"], BIG / 2);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    fs::write(boxes.sender.photos().join("later"), "later").unwrap();
    let pushed = boxes.sender.push("nas2:photos");
    assert!(pushed["resumed_at"].as_u64().unwrap() > BIG / 3, "{pushed}");
    assert!(pushed["stream_bytes"].as_u64().unwrap() < MIB, "{pushed}");
    let first = pushed["completed_first"].as_str().unwrap();
    assert!(boxes.receiver.root().join(first).join("big3").exists());
    assert!(boxes.receiver.copy(&pushed).join("later").exists());
    is_exact_and_tidy(&boxes, &pushed);
}

/// Kills one of the boxes' daemons in the middle, or cuts its power; the push goes on from the last
/// checkpoint.
fn goes_on_from_the_last_checkpoint(power: bool, fault: impl FnOnce(&mut Linked)) {
    let mut boxes = boxes(&Wanted {
        sender: "retry_for = \"60s\"",
        power,
        ..Wanted::default()
    });
    let before = boxes.link.bytes(Way::Up);
    let push = start_until(&boxes, &["push", "--json", "nas2:photos"], BIG * 3 / 4);
    boxes.link.set(Way::Up, Rule::Stall);
    until::holds("checkpoints were taken", || {
        let partials = partials(&boxes.receiver);
        let checkpoints = partials[0]["checkpoints"].as_array().unwrap();
        let last = checkpoints.last().and_then(Value::as_u64);
        last.is_some_and(|last| last > BIG * 3 / 4 - INTERVAL - WINDOW - MIB)
    });
    fault(&mut boxes);
    boxes.link.mend();
    let ended = push.finish();
    let pushed = match ended.code {
        0 => ended.json(),
        _ => boxes.sender.push("nas2:photos"),
    };
    assert!(
        pushed["resumed_at"].as_u64().unwrap() > BIG / 2,
        "it began anew: {pushed}"
    );
    let twice = sent_twice(&boxes, before, &pushed);
    assert!(
        twice <= INTERVAL + WINDOW,
        "{twice} bytes were sent twice: {pushed}"
    );
    is_exact_and_tidy(&boxes, &pushed);
}

#[test]
fn a_killed_sender_goes_on_from_the_last_checkpoint() {
    goes_on_from_the_last_checkpoint(false, |boxes| {
        boxes.sender.daemon.kill();
        boxes.sender.daemon.start();
    });
}

#[test]
fn a_killed_receiver_goes_on_from_its_last_checkpoint() {
    goes_on_from_the_last_checkpoint(false, |boxes| {
        boxes.receiver.daemon.kill();
        boxes.receiver.daemon.start();
    });
}

#[test]
fn a_receiver_that_restarts_is_tried_again_by_itself() {
    goes_on_from_the_last_checkpoint(false, |boxes| {
        boxes.link.mend();
        boxes.receiver.daemon.stop();
        boxes.receiver.daemon.start();
    });
}

#[test]
fn a_sender_that_lost_power_goes_on_from_the_last_checkpoint() {
    goes_on_from_the_last_checkpoint(true, |boxes| {
        boxes.link.cut();
        boxes.sender.power_cut();
        boxes.sender.daemon.start();
    });
}

#[test]
fn a_receiver_that_lost_power_goes_on_from_its_last_checkpoint() {
    goes_on_from_the_last_checkpoint(true, |boxes| {
        boxes.link.cut();
        boxes.receiver.power_cut();
        boxes.receiver.daemon.start();
    });
}

#[test]
fn both_daemons_killed_at_once_go_on_from_the_last_checkpoint() {
    goes_on_from_the_last_checkpoint(false, |boxes| {
        boxes.receiver.daemon.kill();
        boxes.sender.daemon.kill();
        boxes.receiver.daemon.start();
        boxes.sender.daemon.start();
    });
}

#[test]
fn a_partial_that_is_not_what_was_sent_is_dropped_and_the_push_begins_anew() {
    let mut boxes = boxes(&Wanted::default());
    let push = start_until(&boxes, &["push", "nas2:photos"], BIG / 2);
    boxes.sender.daemon.kill();
    push.finish();
    // The marks of another stream: whole, and wrong.
    boxes.receiver.daemon.kill();
    forge_marks(&boxes.sender);
    boxes.sender.daemon.start();
    boxes.receiver.daemon.start();
    let output = boxes.sender.ctl(&["push", "--json", "nas2:photos"]);
    let pushed = output.success().json();
    assert!(pushed["resumed_at"].is_null(), "{pushed}");
    let log = boxes.sender.daemon.log();
    assert!(log.contains("not what was sent"), "nobody was told: {log}");
    is_exact_and_tidy(&boxes, &pushed);
}

/// Rewrites all marks with other chain values, well-formed.
fn forge_marks(sender: &SenderBox) {
    use sendshot_harness::disks::mount::{self, Mount};
    let top = Mount::private(&mount::devices(sender.fs())[0], "subvolid=5");
    let dir = top.path().join(".sendshot/pushes");
    let marks = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut forged = 0;
    for path in marks.filter(|path| path.extension().is_some_and(|e| e == "marks")) {
        let mut bytes = fs::read(&path).unwrap();
        for mark in bytes[8..].chunks_exact_mut(80) {
            mark[8] ^= 1;
            let check = sendshot_harness::blake3(&mark[..72]);
            mark[72..].copy_from_slice(&check[..8]);
            forged += 1;
        }
        fs::write(path, bytes).unwrap();
    }
    assert!(forged > 0, "nothing was marked");
}

#[test]
fn a_checkpoint_that_somebody_changed_is_not_gone_on_from() {
    let mut boxes = boxes(&Wanted::default());
    let push = start_until(&boxes, &["push", "nas2:photos"], BIG / 2);
    boxes.receiver.daemon.kill();
    push.finish();
    let all = subvolumes::list(boxes.receiver.fs());
    let checkpoint = all
        .iter()
        .find(|s| s.path.contains("/checkpoint-"))
        .unwrap();
    let path = boxes.receiver.fs().join(&checkpoint.path);
    let set = |ro: &str| {
        let mut btrfs = Command::new("btrfs");
        command::run(
            btrfs
                .args(["property", "set", "-f"])
                .arg(&path)
                .args(["ro", ro]),
        )
        .success();
    };
    set("false");
    fs::write(path.join("big0"), "changed").unwrap();
    set("true");
    boxes.receiver.daemon.start();
    let pushed = boxes.sender.push("nas2:photos");
    assert!(pushed["resumed_at"].is_null(), "{pushed}");
    assert_exact(&boxes.sender, &boxes.receiver, &pushed);
}

#[test]
fn a_vanished_receiver_is_noticed_in_under_a_minute() {
    let boxes = boxes(&Wanted::default());
    let push = start_until(&boxes, &["push", "nas2:photos"], BIG / 4);
    boxes.link.set(Way::Up, Rule::Lose);
    boxes.link.set(Way::Down, Rule::Lose);
    let began = Instant::now();
    push.finish().fails(3, &["nas2"]);
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
    boxes.link.cut();
    boxes.link.mend();
    let pushed = boxes.sender.push("nas2:photos");
    assert!(pushed["resumed_at"].as_u64().is_some(), "{pushed}");
    is_exact_and_tidy(&boxes, &pushed);
}

#[test]
fn a_push_that_comes_no_further_is_given_up_by_progress_not_by_time() {
    let boxes = boxes(&Wanted {
        sender: "retry_for = \"0s\"\nstall_after = \"2s\"",
        ..Wanted::default()
    });
    // Slow for much longer than that, and never still.
    boxes.link.set(Way::Up, Rule::Slow(4 * MIB));
    let push = boxes.sender.ctl_start(&["push", "nas2:photos"]);
    std::thread::sleep(Duration::from_secs(6));
    // A receiver that is stopped still has the kernel answer for it; nothing moves.
    boxes.receiver.daemon.signal(rustix::process::Signal::STOP);
    let output = push.finish();
    boxes.receiver.daemon.signal(rustix::process::Signal::CONT);
    output.fails(3, &["came no further for 2"]);
    boxes.link.mend();
    let pushed = boxes.sender.push("nas2:photos");
    assert!(
        pushed["resumed_at"].as_u64().unwrap() > 10 * MIB,
        "{pushed}"
    );
    is_exact_and_tidy(&boxes, &pushed);
}

#[test]
fn what_cannot_pass_is_not_tried_again() {
    let boxes = boxes(&Wanted {
        sender: PATIENT,
        ..Wanted::default()
    });
    boxes.receiver.ctl(&["peer", "revoke", "nas1"]).success();
    let began = Instant::now();
    boxes
        .sender
        .ctl(&["push", "nas2:photos"])
        .fails(4, &["revoked"]);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "it was tried again"
    );
}

#[test]
fn a_receiver_that_is_away_is_waited_for_only_if_the_user_says_so() {
    let mut boxes = boxes(&Wanted {
        sender: PATIENT,
        ..Wanted::default()
    });
    boxes.receiver.daemon.kill();
    let began = Instant::now();
    boxes
        .sender
        .ctl(&["push", "nas2:photos"])
        .fails(3, &["nas2"]);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "it was waited for"
    );
    let push = boxes
        .sender
        .ctl_start(&["push", "--json", "--retry-for", "60s", "nas2:photos"]);
    std::thread::sleep(Duration::from_secs(1));
    boxes.receiver.daemon.start();
    let pushed = push.finish().success().json();
    is_exact_and_tidy(&boxes, &pushed);
}

#[test]
fn a_checkpoint_that_falls_due_at_the_end_of_a_stream_is_none() {
    let sender = SenderBox::new();
    // Every segment is marked, the last one too.
    let receiver = ReceiverBox::setup()
        .keys("checkpoint_bytes = \"1 B\"\ncheckpoint_interval = \"0s\"")
        .start();
    pair(&sender, &receiver, "nas2");
    for len in [0, 1000, MIB as usize] {
        fill::file(sender.photos().join("file"), len as u64 + 1, len);
        let pushed = sender.push("nas2:photos");
        assert_exact(&sender, &receiver, &pushed);
    }
    assert_no_leftovers(&sender, &receiver);
}

#[test]
fn with_the_kernels_engine_an_interrupted_push_starts_over() {
    let boxes = boxes(&Wanted {
        sender: PATIENT,
        ..Wanted::default()
    });
    boxes.link.set_after(Way::Up, BIG / 2, Rule::Cut);
    let pushed = boxes
        .sender
        .push_with("nas2:photos", &["--engine", "kernel"]);
    assert!(pushed["resumed_at"].is_null(), "{pushed}");
    assert_exact(&boxes.sender, &boxes.receiver, &pushed);
    assert_no_leftovers(&boxes.sender, &boxes.receiver);
}

#[test]
fn an_incremental_push_goes_on_too() {
    let boxes = boxes(&Wanted {
        sender: PATIENT,
        ..Wanted::default()
    });
    let first = boxes.sender.push("nas2:photos");
    for i in 0..2 {
        fill::file(
            boxes.sender.photos().join(format!("big{i}")),
            9 + i,
            20 << 20,
        );
    }
    boxes.link.set_after(Way::Up, 20 * MIB, Rule::Cut);
    let pushed = boxes.sender.push("nas2:photos");
    assert_eq!(pushed["parent"], first["uuid"]);
    assert!(pushed["resumed_at"].as_u64().is_some(), "{pushed}");
    is_exact_and_tidy(&boxes, &pushed);
}

#[test]
fn another_wish_lets_go_of_what_was_interrupted() {
    let boxes = boxes(&Wanted::default());
    let push = start_until(&boxes, &["push", "nas2:photos"], BIG / 2);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    let pushed = boxes.sender.push_with("nas2:photos", &["--parent", "none"]);
    assert!(pushed["resumed_at"].is_null(), "{pushed}");
    is_exact_and_tidy(&boxes, &pushed);
}

#[test]
fn a_partial_is_dropped_when_it_is_older_than_partial_keep() {
    let mut boxes = boxes(&Wanted {
        receiver: "partial_keep = \"1s\"",
        ..Wanted::default()
    });
    let push = start_until(&boxes, &["push", "nas2:photos"], BIG / 2);
    boxes.receiver.daemon.kill();
    push.finish().fails(3, &[]);
    boxes.receiver.daemon.start();
    std::thread::sleep(Duration::from_secs(3));
    boxes.receiver.daemon.stop();
    boxes.receiver.daemon.start();
    until::holds("the partial was dropped", || {
        partials(&boxes.receiver).is_empty()
    });
    let pushed = boxes.sender.push("nas2:photos");
    assert!(pushed["resumed_at"].is_null(), "{pushed}");
    is_exact_and_tidy(&boxes, &pushed);
}

#[test]
fn an_interrupted_push_older_than_resume_keep_is_given_up_loudly() {
    let mut boxes = boxes(&Wanted {
        sender: "retry_for = \"0s\"\nresume_keep = \"1s\"",
        ..Wanted::default()
    });
    let first = boxes.sender.push("nas2:photos");
    fill::file(boxes.sender.photos().join("big0"), 9, (BIG / 2) as usize);
    let push = start_until(&boxes, &["push", "nas2:photos"], BIG / 4);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    given_up(&mut boxes, "resume_keep", &first);
}

#[test]
fn an_interrupted_push_is_given_up_loudly_when_space_runs_low() {
    let mut boxes = boxes(&Wanted {
        sender: "retry_for = \"0s\"\nresume_min_free = \"99%\"",
        ..Wanted::default()
    });
    let first = boxes.sender.push("nas2:photos");
    fill::file(boxes.sender.photos().join("big0"), 9, (BIG / 2) as usize);
    let push = start_until(&boxes, &["push", "nas2:photos"], BIG / 4);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    given_up(&mut boxes, "resume_min_free", &first);
}

/// Its snapshot goes, the log says why, and the next push builds on the last acknowledged state.
#[track_caller]
fn given_up(boxes: &mut Linked, because: &str, first: &Value) {
    boxes.sender.daemon.may_log("is given up");
    assert_eq!(interrupted(&boxes.sender).len(), 1);
    std::thread::sleep(Duration::from_secs(2));
    boxes.sender.daemon.stop();
    boxes.sender.daemon.start();
    until::holds("it was given up", || interrupted(&boxes.sender).is_empty());
    boxes.sender.wait_until_released();
    let log = boxes.sender.daemon.log();
    let line = log
        .lines()
        .find(|line| line.contains("is given up"))
        .unwrap();
    assert!(line.contains("WARN") && line.contains(because), "{line}");
    let hidden = subvolumes::list(boxes.sender.fs());
    assert!(
        hidden.iter().all(|s| !s.path.starts_with(".sendshot/")),
        "{hidden:#?}"
    );
    let pushed = boxes.sender.push("nas2:photos");
    assert_eq!(pushed["parent"], first["uuid"]);
    assert!(pushed["resumed_at"].is_null(), "{pushed}");
    is_exact_and_tidy(boxes, &pushed);
}

#[test]
fn a_push_that_broke_off_keeps_no_disk_busy_and_goes_on_when_it_is_back() {
    let boxes = boxes(&Wanted::default());
    let push = start_until(&boxes, &["push", "nas2:photos"], BIG / 2);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    boxes.sender.wait_until_released();
    boxes.sender.replug();
    let pushed = boxes.sender.push("nas2:photos");
    assert!(pushed["resumed_at"].as_u64().is_some(), "{pushed}");
    is_exact_and_tidy(&boxes, &pushed);
}

#[test]
fn a_file_that_cannot_be_sent_is_not_tried_for_ever() {
    // What the snapshot of the first push holds is gone from the volume when the next one begins.
    let boxes = boxes(&Wanted::default());
    let push = start_until(&boxes, &["push", "nas2:photos"], BIG / 2);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    delete_from_interrupted(&boxes.sender, "big3");
    fs::remove_file(boxes.sender.photos().join("big3")).unwrap();
    let pushed = boxes.sender.push("nas2:photos");
    assert!(pushed["completed_first"].is_null(), "{pushed}");
    is_exact_and_tidy(&boxes, &pushed);
}

#[test]
fn who_cancels_a_push_can_push_again_at_once() {
    // Nothing of these can be resumed, so each begins a transfer of its own; the receiver may not have
    // noticed yet that the one before is over. Nobody tries again here.
    let boxes = boxes(&Wanted::default());
    let again = ["push", "--json", "--engine", "kernel", "nas2:photos"];
    for _ in 0..8 {
        let push = start_until(&boxes, &again, BIG / 4);
        push.signal(rustix::process::Signal::INT);
        push.finish().fails(1, &["cancelled"]);
    }
    let pushed = boxes.sender.ctl(&again).success().json();
    boxes.sender.wait_until_released();
    is_exact_and_tidy(&boxes, &pushed);
}

/// Has a file of the hidden snapshot be unreadable, by not being there.
fn delete_from_interrupted(sender: &SenderBox, name: &str) {
    use sendshot_harness::disks::mount::{self, Mount};
    let top = Mount::private(&mount::devices(sender.fs())[0], "subvolid=5");
    let snapshots = top.path().join(".sendshot/snapshots");
    let hidden = fs::read_dir(snapshots).unwrap().next().unwrap().unwrap();
    let path = hidden.path();
    let set = |ro: &str| {
        let mut btrfs = Command::new("btrfs");
        command::run(btrfs.args(["property", "set"]).arg(&path).args(["ro", ro])).success();
    };
    set("false");
    fs::remove_file(path.join(name)).unwrap();
    set("true");
}
