//! Interrupted pushes resume where they stopped, and send little twice, as counted by the link.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

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
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// Bytes of a first push.
const BIG: u64 = 96 * MIB;
/// Bytes that may be sent twice if only the connection breaks.
const WINDOW: u64 = 8 * MIB;
/// Bytes between two checkpoints in these tests.
const INTERVAL: u64 = 8 * MIB;
const CHECKPOINTS: &str = "checkpoint_bytes = \"8 MiB\"\ncheckpoint_interval = \"0s\"";
const PATIENT: &str = "retry_for = \"60s\"";

/// Options of the hosts.
#[derive(Default)]
struct Wanted {
    sender: &'static str,
    receiver: &'static str,
    power: bool,
}

fn hosts(wanted: &Wanted) -> Linked {
    let mut sender = SenderHost::setup().volume("photos", "photos");
    let mut receiver = ReceiverHost::setup().keys(&format!("{CHECKPOINTS}\n{}", wanted.receiver));
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

/// Starts a push and waits until it has sent this many bytes.
fn start_until(hosts: &Linked, arguments: &[&str], bytes: u64) -> Running {
    let before = hosts.link.bytes(Way::Up);
    let push = hosts.sender.ctl_start(arguments);
    until::holds("so much was sent", || {
        hosts.link.bytes(Way::Up) >= before + bytes
    });
    push
}

/// Returns the bytes sent to the receiver for a push beyond the length of its stream. TLS and framing
/// are less than one percent.
#[track_caller]
fn sent_twice(hosts: &Linked, before: u64, pushed: &Value) -> u64 {
    let sent = hosts.link.bytes(Way::Up) - before;
    let stream = pushed["stream_bytes"].as_u64().unwrap();
    assert!(
        sent >= stream,
        "less was sent than there is: {sent} of {stream}"
    );
    (sent - stream).saturating_sub(stream / 100)
}

#[track_caller]
fn partials(of: &ReceiverHost) -> Vec<Value> {
    of.ctl(&["copy", "list", "--partials", "--json"])
        .success()
        .jsons()
}

#[track_caller]
fn interrupted(of: &SenderHost) -> Vec<Value> {
    of.ctl(&["list", "--partials", "--json"]).success().jsons()
}

#[track_caller]
fn is_exact_and_tidy(hosts: &Linked, pushed: &Value) {
    assert_exact(&hosts.sender, &hosts.receiver, pushed);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
    assert!(partials(&hosts.receiver).is_empty() && interrupted(&hosts.sender).is_empty());
}

#[test]
fn a_broken_connection_is_made_again() {
    let hosts = hosts(&Wanted {
        sender: PATIENT,
        ..Wanted::default()
    });
    let before = hosts.link.bytes(Way::Up);
    hosts.link.set_after(Way::Up, BIG * 9 / 10, Rule::Cut);
    let pushed = hosts.sender.push("nas2:photos");
    let resumed_at = pushed["resumed_at"].as_u64().unwrap();
    assert!(resumed_at > BIG * 8 / 10 - WINDOW, "{pushed}");
    let twice = sent_twice(&hosts, before, &pushed);
    assert!(twice <= WINDOW, "{twice} bytes were sent twice");
    is_exact_and_tidy(&hosts, &pushed);
}

#[test]
fn a_push_goes_on_over_a_link_that_breaks_again_and_again() {
    let hosts = hosts(&Wanted {
        sender: PATIENT,
        ..Wanted::default()
    });
    hosts.link.set_after(Way::Up, 3 * MIB, Rule::Cut);
    let push = hosts.sender.ctl_start(&["push", "--json", "nas2:photos"]);
    for cut in 1..6 {
        let at = hosts.link.bytes(Way::Up) + 10 * MIB;
        until::holds("it goes on", || hosts.link.bytes(Way::Up) > at);
        hosts.link.set_after(Way::Up, cut * MIB, Rule::Cut);
    }
    let pushed = push.finish().success().json();
    is_exact_and_tidy(&hosts, &pushed);
}

#[test]
fn ctrl_c_keeps_what_was_sent_and_the_next_push_goes_on_there() {
    let hosts = hosts(&Wanted::default());
    let before = hosts.link.bytes(Way::Up);
    let push = start_until(&hosts, &["push", "nas2:photos"], BIG / 2);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled", "resumes where"]);
    until::holds("the receiver waits", || {
        partials(&hosts.receiver)
            .iter()
            .any(|partial| partial["state"] == "waiting")
    });
    let there = partials(&hosts.receiver).remove(0);
    let here = interrupted(&hosts.sender).remove(0);
    assert_eq!(there["transfer"], here["transfer"]);
    assert_eq!(there["uuid"], here["uuid"]);
    assert!(
        there["offset"].as_u64().unwrap() > BIG / 2 - WINDOW - MIB,
        "{there}"
    );
    assert_only_resumable_left(&hosts.sender, &hosts.receiver);
    let pushed = hosts.sender.push("nas2:photos");
    assert_eq!(pushed["resumed_at"], there["offset"]);
    assert_eq!(pushed["uuid"], here["uuid"], "another snapshot was sent");
    let twice = sent_twice(&hosts, before, &pushed);
    assert!(twice <= WINDOW, "{twice} bytes were sent twice");
    is_exact_and_tidy(&hosts, &pushed);
}

#[test]
fn changes_since_the_interruption_are_sent_too() {
    let hosts = hosts(&Wanted::default());
    let push = start_until(&hosts, &["push", "nas2:photos"], BIG / 2);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    fs::write(hosts.sender.photos().join("later"), "later").unwrap();
    let pushed = hosts.sender.push("nas2:photos");
    assert!(pushed["resumed_at"].as_u64().unwrap() > BIG / 3, "{pushed}");
    assert!(pushed["stream_bytes"].as_u64().unwrap() < MIB, "{pushed}");
    let first = pushed["completed_first"].as_str().unwrap();
    assert!(hosts.receiver.root().join(first).join("big3").exists());
    assert!(hosts.receiver.copy(&pushed).join("later").exists());
    is_exact_and_tidy(&hosts, &pushed);
}

/// Applies a fault to the hosts in the middle of a push, which then must resume from the last
/// checkpoint.
fn resumes_from_the_last_checkpoint(power: bool, fault: impl FnOnce(&mut Linked)) {
    let mut hosts = hosts(&Wanted {
        sender: "retry_for = \"60s\"",
        power,
        ..Wanted::default()
    });
    let before = hosts.link.bytes(Way::Up);
    let push = start_until(&hosts, &["push", "--json", "nas2:photos"], BIG * 3 / 4);
    hosts.link.set(Way::Up, Rule::Stall);
    until::holds("checkpoints were taken", || {
        let partials = partials(&hosts.receiver);
        let checkpoints = partials[0]["checkpoints"].as_array().unwrap();
        let last = checkpoints.last().and_then(Value::as_u64);
        last.is_some_and(|last| last > BIG * 3 / 4 - INTERVAL - WINDOW - MIB)
    });
    fault(&mut hosts);
    hosts.link.mend();
    let ended = push.finish();
    let pushed = match ended.code {
        0 => ended.json(),
        _ => hosts.sender.push("nas2:photos"),
    };
    assert!(
        pushed["resumed_at"].as_u64().unwrap() > BIG / 2,
        "it restarted: {pushed}"
    );
    let twice = sent_twice(&hosts, before, &pushed);
    assert!(
        twice <= INTERVAL + WINDOW,
        "{twice} bytes were sent twice: {pushed}"
    );
    is_exact_and_tidy(&hosts, &pushed);
}

#[test]
fn a_killed_sender_goes_on_from_the_last_checkpoint() {
    resumes_from_the_last_checkpoint(false, |hosts| {
        hosts.sender.daemon.kill();
        hosts.sender.daemon.start();
    });
}

#[test]
fn a_killed_receiver_goes_on_from_its_last_checkpoint() {
    resumes_from_the_last_checkpoint(false, |hosts| {
        hosts.receiver.daemon.kill();
        hosts.receiver.daemon.start();
    });
}

#[test]
fn a_receiver_that_restarts_is_tried_again_by_itself() {
    resumes_from_the_last_checkpoint(false, |hosts| {
        hosts.link.mend();
        hosts.receiver.daemon.stop();
        hosts.receiver.daemon.start();
    });
}

#[test]
fn a_sender_that_lost_power_goes_on_from_the_last_checkpoint() {
    resumes_from_the_last_checkpoint(true, |hosts| {
        hosts.link.cut();
        hosts.sender.power_cut();
        hosts.sender.daemon.start();
    });
}

#[test]
fn a_receiver_that_lost_power_resumes_from_its_checkpoint() {
    resumes_from_the_last_checkpoint(true, |hosts| {
        hosts.link.cut();
        hosts.receiver.power_cut();
        hosts.receiver.daemon.start();
    });
}

#[test]
fn both_daemons_killed_at_once_go_on_from_the_last_checkpoint() {
    resumes_from_the_last_checkpoint(false, |hosts| {
        hosts.receiver.daemon.kill();
        hosts.sender.daemon.kill();
        hosts.receiver.daemon.start();
        hosts.sender.daemon.start();
    });
}

#[test]
fn a_corrupt_partial_restarts_the_push() {
    let mut hosts = hosts(&Wanted::default());
    let push = start_until(&hosts, &["push", "nas2:photos"], BIG / 2);
    hosts.sender.daemon.kill();
    push.finish();
    // The marks become those of another stream: valid, and wrong.
    hosts.receiver.daemon.kill();
    forge_marks(&hosts.sender);
    hosts.sender.daemon.start();
    hosts.receiver.daemon.start();
    let output = hosts.sender.ctl(&["push", "--json", "nas2:photos"]);
    let pushed = output.success().json();
    assert!(pushed["resumed_at"].is_null(), "{pushed}");
    let log = hosts.sender.daemon.log();
    assert!(
        log.contains("from the stream that was sent"),
        "it was not logged: {log}"
    );
    is_exact_and_tidy(&hosts, &pushed);
}

/// Rewrites all marks with other chain values and correct checksums.
fn forge_marks(sender: &SenderHost) {
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
fn a_changed_checkpoint_is_not_resumed() {
    let mut hosts = hosts(&Wanted::default());
    let push = start_until(&hosts, &["push", "nas2:photos"], BIG / 2);
    hosts.receiver.daemon.kill();
    push.finish();
    let all = subvolumes::list(hosts.receiver.fs());
    let checkpoint = all
        .iter()
        .find(|s| s.path.contains("/checkpoint-"))
        .unwrap();
    let path = hosts.receiver.fs().join(&checkpoint.path);
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
    hosts.receiver.daemon.start();
    let pushed = hosts.sender.push("nas2:photos");
    assert!(pushed["resumed_at"].is_null(), "{pushed}");
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
}

#[test]
fn a_vanished_receiver_is_noticed_in_under_a_minute() {
    let hosts = hosts(&Wanted::default());
    let push = start_until(&hosts, &["push", "nas2:photos"], BIG / 4);
    hosts.link.set(Way::Up, Rule::Lose);
    hosts.link.set(Way::Down, Rule::Lose);
    let began = Instant::now();
    push.finish().fails(3, &["nas2"]);
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
    hosts.link.cut();
    hosts.link.mend();
    let pushed = hosts.sender.push("nas2:photos");
    assert!(pushed["resumed_at"].as_u64().is_some(), "{pushed}");
    is_exact_and_tidy(&hosts, &pushed);
}

#[test]
fn a_push_is_given_up_by_progress_not_by_time() {
    let hosts = hosts(&Wanted {
        sender: "retry_for = \"0s\"\nstall_after = \"2s\"",
        ..Wanted::default()
    });
    // Slow for much longer than that, but never stalled.
    hosts.link.set(Way::Up, Rule::Slow(4 * MIB));
    let push = hosts.sender.ctl_start(&["push", "nas2:photos"]);
    std::thread::sleep(Duration::from_secs(6));
    // The kernel still answers for a stopped receiver, but the push makes no progress.
    hosts.receiver.daemon.signal(rustix::process::Signal::STOP);
    let output = push.finish();
    hosts.receiver.daemon.signal(rustix::process::Signal::CONT);
    output.fails(3, &["made no progress for 2"]);
    hosts.link.mend();
    let pushed = hosts.sender.push("nas2:photos");
    assert!(
        pushed["resumed_at"].as_u64().unwrap() > 10 * MIB,
        "{pushed}"
    );
    is_exact_and_tidy(&hosts, &pushed);
}

#[test]
fn a_permanent_error_is_not_retried() {
    let hosts = hosts(&Wanted {
        sender: PATIENT,
        ..Wanted::default()
    });
    hosts.receiver.ctl(&["peer", "revoke", "nas1"]).success();
    let began = Instant::now();
    hosts
        .sender
        .ctl(&["push", "nas2:photos"])
        .fails(4, &["revoked"]);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "it was tried again"
    );
}

#[test]
fn an_absent_receiver_is_retried_only_on_request() {
    let mut hosts = hosts(&Wanted {
        sender: PATIENT,
        ..Wanted::default()
    });
    hosts.receiver.daemon.kill();
    let began = Instant::now();
    hosts
        .sender
        .ctl(&["push", "nas2:photos"])
        .fails(3, &["nas2"]);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "it was waited for"
    );
    let push = hosts
        .sender
        .ctl_start(&["push", "--json", "--retry-for", "60s", "nas2:photos"]);
    std::thread::sleep(Duration::from_secs(1));
    hosts.receiver.daemon.start();
    let pushed = push.finish().success().json();
    is_exact_and_tidy(&hosts, &pushed);
}

#[test]
fn a_checkpoint_that_falls_due_at_the_end_of_a_stream_is_none() {
    let sender = SenderHost::new();
    // Every segment is marked, the last one too.
    let receiver = ReceiverHost::setup()
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
    let hosts = hosts(&Wanted {
        sender: PATIENT,
        ..Wanted::default()
    });
    hosts.link.set_after(Way::Up, BIG / 2, Rule::Cut);
    let pushed = hosts
        .sender
        .push_with("nas2:photos", &["--engine", "kernel"]);
    assert!(pushed["resumed_at"].is_null(), "{pushed}");
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn an_incremental_push_goes_on_too() {
    let hosts = hosts(&Wanted {
        sender: PATIENT,
        ..Wanted::default()
    });
    let first = hosts.sender.push("nas2:photos");
    for i in 0..2 {
        fill::file(
            hosts.sender.photos().join(format!("big{i}")),
            9 + i,
            20 << 20,
        );
    }
    hosts.link.set_after(Way::Up, 20 * MIB, Rule::Cut);
    let pushed = hosts.sender.push("nas2:photos");
    assert_eq!(pushed["parent"], first["uuid"]);
    assert!(pushed["resumed_at"].as_u64().is_some(), "{pushed}");
    is_exact_and_tidy(&hosts, &pushed);
}

#[test]
fn another_parent_choice_discards_the_interrupted_push() {
    let hosts = hosts(&Wanted::default());
    let push = start_until(&hosts, &["push", "nas2:photos"], BIG / 2);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    let pushed = hosts.sender.push_with("nas2:photos", &["--parent", "none"]);
    assert!(pushed["resumed_at"].is_null(), "{pushed}");
    is_exact_and_tidy(&hosts, &pushed);
}

#[test]
fn a_partial_is_dropped_when_it_is_older_than_partial_keep() {
    let mut hosts = hosts(&Wanted {
        receiver: "partial_keep = \"1s\"",
        ..Wanted::default()
    });
    let push = start_until(&hosts, &["push", "nas2:photos"], BIG / 2);
    hosts.receiver.daemon.kill();
    push.finish().fails(3, &[]);
    hosts.receiver.daemon.start();
    std::thread::sleep(Duration::from_secs(3));
    hosts.receiver.daemon.stop();
    hosts.receiver.daemon.start();
    until::holds("the partial was dropped", || {
        partials(&hosts.receiver).is_empty()
    });
    let pushed = hosts.sender.push("nas2:photos");
    assert!(pushed["resumed_at"].is_null(), "{pushed}");
    is_exact_and_tidy(&hosts, &pushed);
}

#[test]
fn an_interrupted_push_expires_with_a_warning() {
    let mut hosts = hosts(&Wanted {
        sender: "retry_for = \"0s\"\nresume_keep = \"1s\"",
        ..Wanted::default()
    });
    let first = hosts.sender.push("nas2:photos");
    fill::file(hosts.sender.photos().join("big0"), 9, (BIG / 2) as usize);
    let push = start_until(&hosts, &["push", "nas2:photos"], BIG / 4);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    given_up(&mut hosts, "resume_keep", &first);
}

#[test]
fn an_interrupted_push_is_given_up_loudly_when_space_runs_low() {
    let mut hosts = hosts(&Wanted {
        sender: "retry_for = \"0s\"\nresume_min_free = \"99%\"",
        ..Wanted::default()
    });
    let first = hosts.sender.push("nas2:photos");
    fill::file(hosts.sender.photos().join("big0"), 9, (BIG / 2) as usize);
    let push = start_until(&hosts, &["push", "nas2:photos"], BIG / 4);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    given_up(&mut hosts, "resume_min_free", &first);
}

/// Asserts that the snapshot is deleted, the reason logged, and the acknowledged state the next parent.
#[track_caller]
fn given_up(hosts: &mut Linked, because: &str, first: &Value) {
    hosts.sender.daemon.may_log("is discarded");
    assert_eq!(interrupted(&hosts.sender).len(), 1);
    std::thread::sleep(Duration::from_secs(2));
    hosts.sender.daemon.stop();
    hosts.sender.daemon.start();
    until::holds("it was given up", || interrupted(&hosts.sender).is_empty());
    hosts.sender.wait_until_released();
    let log = hosts.sender.daemon.log();
    let line = log
        .lines()
        .find(|line| line.contains("is discarded"))
        .unwrap();
    assert!(line.contains("WARN") && line.contains(because), "{line}");
    let hidden = subvolumes::list(hosts.sender.fs());
    assert!(
        hidden.iter().all(|s| !s.path.starts_with(".sendshot/")),
        "{hidden:#?}"
    );
    let pushed = hosts.sender.push("nas2:photos");
    assert_eq!(pushed["parent"], first["uuid"]);
    assert!(pushed["resumed_at"].is_null(), "{pushed}");
    is_exact_and_tidy(hosts, &pushed);
}

#[test]
fn an_interrupted_push_keeps_no_disk_busy() {
    let hosts = hosts(&Wanted::default());
    let push = start_until(&hosts, &["push", "nas2:photos"], BIG / 2);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    hosts.sender.wait_until_released();
    hosts.sender.replug();
    let pushed = hosts.sender.push("nas2:photos");
    assert!(pushed["resumed_at"].as_u64().is_some(), "{pushed}");
    is_exact_and_tidy(&hosts, &pushed);
}

#[test]
fn a_file_that_cannot_be_sent_is_not_tried_for_ever() {
    // A file in the snapshot of the first push is deleted from the volume before the next one begins.
    let hosts = hosts(&Wanted::default());
    let push = start_until(&hosts, &["push", "nas2:photos"], BIG / 2);
    push.signal(rustix::process::Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    delete_from_interrupted(&hosts.sender, "big3");
    fs::remove_file(hosts.sender.photos().join("big3")).unwrap();
    let pushed = hosts.sender.push("nas2:photos");
    assert!(pushed["completed_first"].is_null(), "{pushed}");
    is_exact_and_tidy(&hosts, &pushed);
}

#[test]
fn a_push_right_after_a_cancelled_one_runs() {
    // These pushes cannot be resumed, so each begins its own transfer, perhaps before the receiver has
    // noticed the end of the previous one. The sender does not retry here.
    let hosts = hosts(&Wanted::default());
    let again = ["push", "--json", "--engine", "kernel", "nas2:photos"];
    for _ in 0..8 {
        let push = start_until(&hosts, &again, BIG / 4);
        push.signal(rustix::process::Signal::INT);
        push.finish().fails(1, &["cancelled"]);
    }
    let pushed = hosts.sender.ctl(&again).success().json();
    hosts.sender.wait_until_released();
    is_exact_and_tidy(&hosts, &pushed);
}

/// Makes a file of the hidden snapshot unreadable by deleting it.
fn delete_from_interrupted(sender: &SenderHost, name: &str) {
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
