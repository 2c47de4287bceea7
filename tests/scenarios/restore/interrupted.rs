//! An interrupted restore continues, and leaves the target absent until it is complete.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::path::PathBuf;

use rustix::process::Signal;
use sendshot_harness::compare::exact::{Reference, assert_same};
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::command::Running;
use sendshot_harness::hosts::pairing::Linked;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// Bytes per second while a restore is to be interrupted.
const RATE: u64 = 48 * MIB;
/// Bytes of the copy.
const BIG: u64 = 96 * MIB;
/// Bytes that may be sent twice if only the connection breaks.
const WINDOW: u64 = 8 * MIB;
/// Bytes between two points to continue from.
const INTERVAL: u64 = 8 * MIB;

fn hosts() -> Linked {
    let hosts = Linked::new();
    hosts.receiver.grant("nas1");
    fill::tree(&hosts.sender.photos(), 1);
    for i in 0..4 {
        let path = hosts.sender.photos().join(format!("big{i}"));
        fill::file(path, i, (BIG / 4) as usize);
    }
    hosts.sender.ctl(&["push", "nas2:photos"]).success();
    hosts
}

fn target(hosts: &Linked) -> PathBuf {
    hosts.sender.fs().join("new")
}

/// Starts a restore and waits until so many bytes have come.
fn start_until(hosts: &Linked, options: &[&str], bytes: u64) -> Running {
    let before = hosts.link.bytes(Way::Down);
    hosts.link.set(Way::Down, Rule::Slow(RATE));
    let interval = INTERVAL.to_string();
    let mut command = hosts
        .sender
        .restore_command(&["--json", "--checkpoint-bytes", &interval]);
    command.args(options).arg("nas2:photos").arg(target(hosts));
    let running = Running::start(&mut command);
    until::holds("so much has come", || {
        hosts.link.bytes(Way::Down) >= before + bytes
    });
    running
}

fn finish(hosts: &Linked) -> Value {
    hosts.link.set(Way::Down, Rule::Pass);
    let target = target(hosts);
    let all = [
        "--json".as_ref(),
        "nas2:photos".as_ref(),
        target.as_os_str(),
    ];
    let restored = hosts.sender.restore(&all).success().json();
    let snapshot = Reference::of(hosts.sender.fs(), &target);
    assert_same(&hosts.sender.photos(), snapshot.path());
    restored
}

#[test]
fn a_broken_connection_is_continued_at_the_last_segment() {
    let hosts = hosts();
    let before = hosts.link.bytes(Way::Down);
    let restore = start_until(&hosts, &["--retry-for", "60s"], BIG / 2);
    hosts.link.reset();
    let restored = restore.finish().success().json();
    assert_eq!(restored["checked"]["own_sendshot"], true);
    let came = hosts.link.bytes(Way::Down) - before;
    let length = restored["stream_bytes"].as_u64().unwrap();
    assert!(came < length + length / 50 + WINDOW, "{came} of {length}");
    let snapshot = Reference::of(hosts.sender.fs(), &target(&hosts));
    assert_same(&hosts.sender.photos(), snapshot.path());
}

#[test]
fn a_killed_restore_continues_at_its_checkpoint() {
    let hosts = hosts();
    let restore = start_until(&hosts, &[], BIG * 3 / 4);
    // The program that restores ends with the command, whose end of the pipe closes.
    restore.signal(Signal::KILL);
    restore.finish();
    assert!(!target(&hosts).exists());
    let before = hosts.link.bytes(Way::Down);
    let restored = finish(&hosts);
    let resumed = restored["resumed_at"].as_u64().unwrap();
    assert!(resumed >= BIG / 2, "{resumed}");
    let came = hosts.link.bytes(Way::Down) - before;
    let left = restored["stream_bytes"].as_u64().unwrap() - resumed;
    assert!(came < left + left / 20 + MIB, "{came} of {left}");
}

#[test]
fn a_cancelled_restore_says_so_and_continues() {
    let hosts = hosts();
    let restore = start_until(&hosts, &[], BIG * 3 / 4);
    restore.signal(Signal::INT);
    restore.signal_children(Signal::INT);
    restore.finish().fails(
        1,
        &["the restore was cancelled", "the same command continues"],
    );
    assert!(finish(&hosts)["resumed_at"].as_u64().is_some());
}

#[test]
fn a_receiver_that_restarts_continues() {
    let mut hosts = hosts();
    let restore = start_until(&hosts, &["--retry-for", "60s"], BIG / 2);
    hosts.receiver.daemon.stop();
    hosts.receiver.daemon.start();
    restore.finish().success();
    let snapshot = Reference::of(hosts.sender.fs(), &target(&hosts));
    assert_same(&hosts.sender.photos(), snapshot.path());
}
