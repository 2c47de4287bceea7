//! A drill proves that a copy can be restored, and leaves nothing.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use rustix::process::Signal;
use sendshot_harness::compare::subvolumes;
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::command::Running;
use sendshot_harness::hosts::pairing::Linked;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;

/// Paths of all subvolumes of the sender.
fn paths(hosts: &Linked) -> Vec<String> {
    let all = subvolumes::list(hosts.sender.fs()).into_iter();
    all.map(|subvolume| format!("{:?}", subvolume.path))
        .collect()
}

fn hosts() -> Linked {
    let hosts = Linked::new();
    fill::tree(&hosts.sender.photos(), 1);
    fill::file(hosts.sender.photos().join("big"), 2, 24 << 20);
    hosts.sender.ctl(&["push", "nas2:photos"]).success();
    hosts.sender.wait_until_released();
    hosts
}

#[test]
fn status_shows_when_a_restore_last_worked() {
    let hosts = hosts();
    let drill = ["--json", "--drill", "nas2:photos"];
    hosts
        .sender
        .restore(&drill)
        .fails(4, &["sendshotctl peer grant nas1"]);
    let status = hosts.sender.ctl(&["--json", "status"]).success().json();
    assert!(status["drills"][0]["error"].is_string(), "{status}");
    hosts.receiver.grant("nas1");
    let before = paths(&hosts);
    let drilled = hosts.sender.restore(&drill).success().json();
    assert_eq!(drilled["checked"]["own_sendshot"], true);
    assert_eq!(paths(&hosts), before, "the scratch subvolume stays");
    let status = hosts.sender.ctl(&["--json", "status"]).success().json();
    assert_eq!(
        status["drills"][0]["error"],
        serde_json::Value::Null,
        "{status}"
    );
    assert_eq!(status["drills"][0]["copy"], drilled["copy"]);
    let text = hosts.sender.ctl(&["status"]).success().stdout;
    assert!(text.contains("drill"), "{text}");
}

#[test]
fn a_killed_drill_leaves_nothing() {
    let mut hosts = hosts();
    hosts.receiver.grant("nas1");
    let before = paths(&hosts);
    hosts.link.set(Way::Down, Rule::Slow(16 << 20));
    let from = hosts.link.bytes(Way::Down);
    let mut command = hosts.sender.restore_command(&["--drill", "nas2:photos"]);
    let drill = Running::start(&mut command);
    until::holds("half of it has come", || {
        hosts.link.bytes(Way::Down) > from + (12 << 20)
    });
    drill.signal_children(Signal::KILL);
    drill.finish().fails(1, &["ended without a result"]);
    assert_ne!(paths(&hosts), before);
    hosts.sender.daemon.stop();
    hosts.sender.daemon.start();
    assert_eq!(paths(&hosts), before);
}

#[test]
fn the_recovery_sheet_has_what_is_needed_and_no_secrets() {
    let hosts = hosts();
    let sheet = hosts.sender.ctl(&["recovery-sheet"]).success().stdout;
    for text in [
        "nas2",
        "photos",
        "nas1/photos/",
        "sendshotctl peer invite nas1 --restore",
        "sendshotctl restore --pair",
    ] {
        assert!(sheet.contains(text), "{text}: {sheet}");
    }
    let page = hosts
        .sender
        .ctl(&["recovery-sheet", "--html"])
        .success()
        .stdout;
    assert!(page.starts_with("<!doctype html>") && page.contains("nas1/photos/"));
    let key = std::fs::read_to_string(hosts.sender.daemon.state_dir().join("sender.key")).unwrap();
    for line in key.lines().filter(|line| !line.starts_with("-----")) {
        assert!(!sheet.contains(line));
    }
}

#[test]
fn a_drill_killed_with_its_snapshot_leaves_nothing_either() {
    let mut hosts = hosts();
    hosts.receiver.grant("nas1");
    let before = paths(&hosts);
    let mut command = hosts.sender.restore_command(&["--drill", "nas2:photos"]);
    command.env("FAILPOINTS", "restore-frozen=return");
    assert_ne!(sendshot_harness::hosts::command::run(&mut command).code, 0);
    assert_eq!(
        paths(&hosts).len(),
        before.len() + 2,
        "a tree and its snapshot"
    );
    hosts.sender.daemon.stop();
    hosts.sender.daemon.start();
    assert_eq!(paths(&hosts), before);
    let area = hosts.sender.fs().join(".sendshot/.sendshot-staging");
    assert!(!area.exists(), "the record of the drill is left");
}

#[test]
fn a_second_drill_of_the_volume_leaves_the_first_alone() {
    let hosts = hosts();
    hosts.receiver.grant("nas1");
    let before = paths(&hosts);
    hosts.link.set(Way::Down, Rule::Slow(8 << 20));
    let from = hosts.link.bytes(Way::Down);
    let mut command = hosts.sender.restore_command(&["--drill", "nas2:photos"]);
    let drill = Running::start(&mut command);
    until::holds("some of it has come", || {
        hosts.link.bytes(Way::Down) > from + (4 << 20)
    });
    hosts
        .sender
        .restore(&["--drill", "nas2:photos"])
        .fails(2, &["another restore", "is running"]);
    hosts.link.set(Way::Down, Rule::Pass);
    drill.finish().success();
    assert_eq!(paths(&hosts), before);
}
