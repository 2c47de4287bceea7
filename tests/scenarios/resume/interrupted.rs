//! Pushes that are cancelled, cut off or concurrent: nothing is left except what the next push resumes,
//! nothing is lost, and it builds on the common state.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::compare::subvolumes::{assert_no_leftovers, assert_only_resumable_left};
use sendshot_harness::disks::mount::{self, Mount};
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::command::Running;
use sendshot_harness::hosts::pairing::{Linked, pair};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::{Value, json};

/// A file size that takes some ten seconds at [`SLOW`].
const BIG: usize = 24 << 20;
const SLOW: Rule = Rule::Slow(2 << 20);
/// Longest time that a user waits without wondering.
const PROMPT: Duration = Duration::from_secs(5);

/// Hosts of which the volume has been pushed once and has much new data since.
fn with_news() -> (Linked, Value) {
    let hosts = Linked::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = hosts.sender.push("nas2:photos");
    fill::file(hosts.sender.photos().join("big"), 1, BIG);
    (hosts, first)
}

/// Starts a push that takes long, and waits until it is in the middle of its data.
#[track_caller]
fn start_slow(hosts: &Linked, arguments: &[&str]) -> Running {
    hosts.link.set(Way::Up, SLOW);
    let before = hosts.link.bytes(Way::Up);
    let push = hosts.sender.ctl_start(arguments);
    in_the_middle(hosts, before);
    push
}

#[track_caller]
fn in_the_middle(hosts: &Linked, before: u64) {
    until::holds("a push transfers data", || {
        hosts.link.bytes(Way::Up) > before + (1 << 20)
    });
}

/// Lists the pushes whose result has not been reported yet.
fn running(sender: &SenderHost) -> Vec<Value> {
    let status = sender.ctl(&["status", "--json"]).success().json();
    let mut running = status["running"].as_array().unwrap().clone();
    running.retain(|push| push["stage"] != "release");
    running
}

fn copies(receiver: &ReceiverHost) -> Vec<Value> {
    receiver.ctl(&["copy", "list", "--json"]).success().jsons()
}

/// Repairs the link; the next push must succeed, incrementally to `parent`.
#[track_caller]
fn next_push_builds_on(hosts: &Linked, parent: &Value) {
    hosts.link.mend();
    let next = hosts.sender.push("nas2:photos");
    assert_eq!(next["parent"], parent["uuid"], "all was sent again: {next}");
    assert_exact(&hosts.sender, &hosts.receiver, &next);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
    let kept = hosts.sender.ctl(&["list", "--json"]).success().jsons();
    let files = state_files(&hosts.sender);
    assert_eq!(
        files,
        [kept.len(); 2],
        "there is what no push will ever use"
    );
}

/// Counts the files of sendshots and of records.
fn state_files(sender: &SenderHost) -> [usize; 2] {
    let top = Mount::private(&mount::devices(sender.fs())[0], "subvolid=5");
    ["sendshots", "pushes"].map(|dir| {
        let dir = top.path().join(".sendshot").join(dir);
        fs::read_dir(dir).unwrap().count()
    })
}

/// Asserts that nothing is left except what the next push resumes.
#[track_caller]
fn nothing_is_left_but_what_can_be_resumed(hosts: &Linked) {
    hosts.link.mend();
    until::holds("the receiver runs no push any more", || {
        let partials = hosts
            .receiver
            .ctl(&["copy", "list", "--partials", "--json"]);
        let partials = partials.success().jsons();
        partials.iter().all(|partial| partial["state"] != "running")
    });
    assert_only_resumable_left(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_second_push_of_the_same_volume_is_refused() {
    let (hosts, first) = with_news();
    let push = start_slow(&hosts, &["push", "--json", "nas2:photos"]);
    let shown = running(&hosts.sender);
    assert_eq!(shown.len(), 1, "status shows no push that runs: {shown:?}");
    assert_eq!(shown[0]["volume"], "photos");
    let began = Instant::now();
    let second = hosts.sender.ctl(&["push", "nas2:photos"]);
    second.fails(4, &["photos", "nas2", "running"]);
    let by_path = format!("nas2:{}", hosts.sender.photos().display());
    hosts.sender.ctl(&["push", &by_path]).fails(4, &["running"]);
    assert!(began.elapsed() < PROMPT, "the second waited for the first");
    hosts.link.mend();
    let pushed = push.finish().success().json();
    assert_eq!(pushed["parent"], first["uuid"]);
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    assert_eq!(running(&hosts.sender), Vec::<Value>::new());
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_slow_receiver_delays_no_other() {
    let (hosts, _) = with_news();
    let other = ReceiverHost::new();
    pair(&hosts.sender, &other, "nas3");
    let push = start_slow(&hosts, &["push", "--json", "nas2:photos"]);
    let there = hosts.sender.push("nas3:photos");
    assert_exact(&hosts.sender, &other, &there);
    assert_eq!(
        running(&hosts.sender).len(),
        1,
        "the slow one is over already"
    );
    hosts.link.mend();
    let pushed = push.finish().success().json();
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
    assert_no_leftovers(&hosts.sender, &other);
}

#[test]
fn cancel_ends_a_push_at_once_and_cleanly() {
    let (hosts, first) = with_news();
    let push = start_slow(&hosts, &["push", "nas2:photos"]);
    let began = Instant::now();
    hosts.sender.ctl(&["cancel", "nas2:photos"]).success();
    push.finish().fails(1, &["cancelled"]);
    assert!(
        began.elapsed() < PROMPT,
        "cancelling took {:?}",
        began.elapsed()
    );
    nothing_is_left_but_what_can_be_resumed(&hosts);
    hosts
        .sender
        .ctl(&["cancel", "nas2:photos"])
        .fails(1, &["photos"]);
    next_push_builds_on(&hosts, &first);
}

#[test]
fn a_push_to_a_stalled_receiver_can_be_cancelled() {
    let (hosts, first) = with_news();
    let push = start_slow(&hosts, &["push", "nas2:photos"]);
    hosts.link.set(Way::Up, Rule::Stall);
    hosts.link.set(Way::Down, Rule::Stall);
    let began = Instant::now();
    hosts.sender.ctl(&["cancel", "--all"]).success();
    push.finish().fails(1, &["cancelled"]);
    assert!(
        began.elapsed() < PROMPT,
        "cancelling took {:?}",
        began.elapsed()
    );
    nothing_is_left_but_what_can_be_resumed(&hosts);
    next_push_builds_on(&hosts, &first);
}

#[test]
fn ctrl_c_cancels_cleanly() {
    let (hosts, first) = with_news();
    let push = start_slow(&hosts, &["push", "nas2:photos"]);
    push.signal(Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    assert_eq!(
        running(&hosts.sender),
        Vec::<Value>::new(),
        "it goes on in secret"
    );
    nothing_is_left_but_what_can_be_resumed(&hosts);
    next_push_builds_on(&hosts, &first);
}

#[test]
fn ctrl_c_begins_no_further_push() {
    let setup = SenderHost::setup().volume("photos", "photos");
    let hosts = Linked::of(setup.volume("music", "music").start());
    fill::file(hosts.sender.photos().join("big"), 1, BIG);
    let push = start_slow(&hosts, &["push", "nas2:photos", "nas2:music"]);
    push.signal(Signal::INT);
    let output = push.finish();
    hosts.link.mend();
    assert_eq!(
        copies(&hosts.receiver).len(),
        0,
        "after Ctrl-C another push began: {output:?}"
    );
    assert!([1, 10].contains(&output.code), "{output:?}");
}

#[test]
fn a_second_ctrl_c_leaves_at_once_even_if_the_daemon_hangs() {
    let (hosts, first) = with_news();
    let push = start_slow(&hosts, &["push", "nas2:photos"]);
    hosts.sender.daemon.signal(Signal::STOP);
    let began = Instant::now();
    let mut push = push;
    push.signal(Signal::INT);
    // Two pending signals of one kind are delivered as one; users are slower, too.
    std::thread::sleep(Duration::from_millis(300));
    assert!(push.runs(), "the first Ctrl-C waits for the push to end");
    push.signal(Signal::INT);
    let output = push.finish();
    assert_eq!(output.code, 1, "{output:?}");
    assert!(began.elapsed() < PROMPT, "the user had to wait");
    // Whether the running daemon will get the cancellation is open, and the message says so.
    assert!(output.stderr.contains("status"), "{output:?}");
    hosts.sender.daemon.signal(Signal::CONT);
    hosts.link.mend();
    until::holds("the push has ended", || running(&hosts.sender).is_empty());
    let last = copies(&hosts.receiver).pop().unwrap();
    next_push_builds_on(&hosts, &last);
    assert!(
        copies(&hosts.receiver)
            .iter()
            .any(|copy| copy["uuid"] == first["uuid"])
    );
}

#[test]
fn a_cancelled_first_push_is_resumed() {
    let hosts = Linked::new();
    fill::file(hosts.sender.photos().join("big"), 1, BIG);
    let push = start_slow(&hosts, &["push", "nas2:photos"]);
    push.signal(Signal::INT);
    push.finish().fails(1, &["cancelled"]);
    nothing_is_left_but_what_can_be_resumed(&hosts);
    next_push_builds_on(&hosts, &json!({"uuid": null}));
}

#[test]
fn a_push_survives_its_terminal() {
    let (hosts, _) = with_news();
    for (i, signal) in [Signal::KILL, Signal::HUP].into_iter().enumerate() {
        fill::file(hosts.sender.photos().join("big"), i as u64 + 7, BIG / 4);
        let push = start_slow(&hosts, &["push", "nas2:photos"]);
        push.signal(signal);
        push.finish();
        assert_eq!(
            running(&hosts.sender).len(),
            1,
            "the push died with its terminal"
        );
        hosts.link.mend();
        until::holds("the push is done", || running(&hosts.sender).is_empty());
        assert_eq!(
            copies(&hosts.receiver).len(),
            2 + i,
            "the push died with its terminal"
        );
    }
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_detached_push_goes_on_by_itself() {
    let (hosts, first) = with_news();
    hosts.link.set(Way::Up, SLOW);
    let before = hosts.link.bytes(Way::Up);
    let began = Instant::now();
    let detached = hosts
        .sender
        .ctl(&["push", "--detach", "--json", "nas2:photos"]);
    detached.success();
    assert!(began.elapsed() < PROMPT, "--detach waited");
    in_the_middle(&hosts, before);
    hosts.link.mend();
    until::holds("the push is done", || running(&hosts.sender).is_empty());
    let last = hosts.sender.ctl(&["status", "--json"]).success().json();
    let last = &last["last"][0];
    assert_eq!(copies(&hosts.receiver).len(), 2, "{last}");
    assert_ne!(
        last["copy"], first["copy"],
        "status does not tell how it ended: {last}"
    );
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
    // A push that cannot begin is reported although the command does not wait for the end.
    hosts
        .sender
        .ctl(&["push", "--detach", "nas2:nope"])
        .fails(2, &["nope"]);
}

#[test]
fn a_sender_crash_leaves_only_what_resumes() {
    let (mut hosts, first) = with_news();
    let push = start_slow(&hosts, &["push", "nas2:photos"]);
    hosts.sender.daemon.kill();
    push.finish().fails(1, &["daemon"]);
    hosts.link.mend();
    hosts.sender.daemon.start();
    nothing_is_left_but_what_can_be_resumed(&hosts);
    next_push_builds_on(&hosts, &first);
}

/// The replay of the log at the mount after a power loss changes the volume, and not the number of its last change: the push
/// that is resumed then is not of the present state.
#[test]
fn what_was_fsynced_before_a_power_loss_is_in_the_next_push() {
    let sender = SenderHost::setup().volume("photos", "photos").power();
    let receiver =
        ReceiverHost::setup().keys("checkpoint_bytes = '1 MiB'\ncheckpoint_interval = '0s'");
    let mut hosts = Linked::between(sender.start(), receiver.start());
    fill::tree(&hosts.sender.photos(), 1);
    hosts.sender.push("nas2:photos");
    fill::file(hosts.sender.photos().join("big"), 1, BIG);
    let push = start_slow(&hosts, &["push", "nas2:photos", "--retry-for", "0s"]);
    until::holds("the receiver has a checkpoint", || {
        let partials = hosts
            .receiver
            .ctl(&["copy", "list", "--partials", "--json"]);
        let partials = partials.success().jsons();
        partials
            .iter()
            .any(|partial| partial["checkpoints"] != json!([]))
    });
    hosts.link.set(Way::Up, Rule::Sever);
    push.finish().fails(3, &["nas2"]);
    hosts.sender.wait_until_released();
    hosts.sender.lose_power_after_a_fsync("database");
    hosts.link.mend();
    hosts.sender.daemon.start();
    let pushed = hosts.sender.push("nas2:photos");
    assert!(
        pushed["completed_first"].is_string(),
        "the resumed push counts as the present state, or none was resumed: {pushed}"
    );
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
}

#[test]
fn a_receiver_crash_leaves_only_what_resumes() {
    let (mut hosts, first) = with_news();
    let push = start_slow(&hosts, &["push", "nas2:photos"]);
    hosts.receiver.daemon.kill();
    push.finish().fails(3, &["nas2"]);
    hosts.receiver.daemon.start();
    nothing_is_left_but_what_can_be_resumed(&hosts);
    next_push_builds_on(&hosts, &first);
}

#[test]
fn a_crash_of_both_leaves_only_what_resumes() {
    let (mut hosts, first) = with_news();
    let push = start_slow(&hosts, &["push", "nas2:photos"]);
    hosts.receiver.daemon.kill();
    hosts.sender.daemon.kill();
    push.finish();
    hosts.link.cut();
    hosts.link.mend();
    hosts.receiver.daemon.start();
    hosts.sender.daemon.start();
    nothing_is_left_but_what_can_be_resumed(&hosts);
    next_push_builds_on(&hosts, &first);
}

#[test]
fn a_link_that_breaks_is_to_be_tried_again() {
    let (hosts, first) = with_news();
    for _ in 0..2 {
        let push = start_slow(&hosts, &["push", "nas2:photos"]);
        hosts.link.cut();
        push.finish().fails(3, &["nas2"]);
        hosts.sender.ctl(&["push", "nas2:photos"]).fails(3, &[]);
        nothing_is_left_but_what_can_be_resumed(&hosts);
    }
    next_push_builds_on(&hosts, &first);
}

/// Pushes a small change over a link that loses all messages of the receiver from the middle of the
/// data on, and waits until the receiver has committed. Returns the committed copy.
#[track_caller]
fn lose_the_answer(hosts: &Linked) -> (Running, Value) {
    // Less data than the sender may send without an answer.
    fill::file(hosts.sender.photos().join("small"), 3, 40_000);
    let before = hosts.link.bytes(Way::Up);
    hosts.link.set(Way::Up, Rule::Slow(20_000));
    let push = hosts.sender.ctl_start(&["push", "nas2:photos"]);
    until::holds("the data is on its way", || {
        hosts.link.bytes(Way::Up) > before + 25_000
    });
    hosts.link.set(Way::Down, Rule::Lose);
    hosts.link.set(Way::Up, Rule::Pass);
    let committed = until::some("the receiver has committed", || {
        let mut all = copies(&hosts.receiver);
        (all.len() == 2).then(|| all.remove(1))
    });
    (push, committed)
}

#[test]
fn lost_acknowledgement_costs_nothing() {
    let hosts = Linked::new();
    fill::tree(&hosts.sender.photos(), 1);
    hosts.sender.push("nas2:photos");
    let (push, committed) = lose_the_answer(&hosts);
    hosts.link.cut();
    push.finish().fails(3, &[]);
    hosts.link.mend();
    fs::write(hosts.sender.photos().join("later"), "later").unwrap();
    next_push_builds_on(&hosts, &committed);
}

#[test]
fn a_sender_crash_before_the_acknowledgement_costs_nothing() {
    let mut hosts = Linked::new();
    fill::tree(&hosts.sender.photos(), 1);
    let first = hosts.sender.push("nas2:photos");
    let (push, committed) = lose_the_answer(&hosts);
    hosts.sender.daemon.kill();
    push.finish();
    hosts.link.mend();
    hosts.sender.daemon.start();
    let next = hosts.sender.push("nas2:photos");
    assert!(
        [&first["uuid"], &committed["uuid"]].contains(&&next["parent"]),
        "all was sent again: {next}"
    );
    assert_exact(&hosts.sender, &hosts.receiver, &next);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn a_receiver_stops_quickly_during_a_push() {
    let (mut hosts, first) = with_news();
    let push = start_slow(&hosts, &["push", "nas2:photos"]);
    let took = hosts.receiver.daemon.stop();
    assert!(took < PROMPT, "a shutdown waited {took:?} for a push");
    push.finish().fails(3, &[]);
    hosts.receiver.daemon.start();
    nothing_is_left_but_what_can_be_resumed(&hosts);
    next_push_builds_on(&hosts, &first);
}

/// Starts the daemon, which does not begin the push again that its end interrupted.
fn start_without_the_interrupted(sender: &mut SenderHost) {
    fs::remove_file(sender.daemon.state_dir().join("stopped.json")).unwrap();
    sender.daemon.start();
}

#[test]
fn a_sender_stops_quickly_during_a_push() {
    let (mut hosts, first) = with_news();
    let push = start_slow(&hosts, &["push", "nas2:photos"]);
    let took = hosts.sender.daemon.stop();
    assert!(took < PROMPT, "a shutdown waited {took:?} for a push");
    assert_eq!(push.finish().code, 1);
    start_without_the_interrupted(&mut hosts.sender);
    nothing_is_left_but_what_can_be_resumed(&hosts);
    next_push_builds_on(&hosts, &first);
}

#[test]
fn a_stopped_sender_cleans_up_an_unwatched_push() {
    let (mut hosts, first) = with_news();
    // Several times: the shutdown without clients races with the end of the push in the daemon.
    for round in 1..=6 {
        let push = start_slow(&hosts, &["push", "nas2:photos"]);
        let with_client = hosts.sender.daemon.sockets();
        push.signal(Signal::KILL);
        push.finish();
        until::holds("the client is gone", || {
            hosts.sender.daemon.sockets() < with_client
        });
        hosts.sender.daemon.stop();
        let log = hosts.sender.daemon.log();
        let ended = log.matches("push of photos to nas2 failed").count();
        assert_eq!(ended, round, "a push was left to itself:\n{log}");
        start_without_the_interrupted(&mut hosts.sender);
    }
    nothing_is_left_but_what_can_be_resumed(&hosts);
    next_push_builds_on(&hosts, &first);
}
