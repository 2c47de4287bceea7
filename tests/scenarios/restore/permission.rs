//! Copies come back only while root of the receiver permits it.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::time::{Duration, Instant};

use sendshot_harness::compare::exact::{Reference, assert_same};
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::command::Running;
use sendshot_harness::hosts::pairing::Linked;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;

const MIB: u64 = 1 << 20;

fn hosts() -> Linked {
    let hosts = Linked::new();
    fill::tree(&hosts.sender.photos(), 1);
    fill::file(hosts.sender.photos().join("big"), 2, (48 * MIB) as usize);
    hosts.sender.ctl(&["push", "nas2:photos"]).success();
    hosts
}

fn start(hosts: &Linked) -> Running {
    hosts.link.set(Way::Down, Rule::Slow(8 * MIB));
    let target = hosts.sender.fs().join("new");
    let before = hosts.link.bytes(Way::Down);
    let mut command = hosts
        .sender
        .restore_command(&["--checkpoint-bytes", "1000000"]);
    let running = Running::start(command.arg("nas2:photos").arg(target));
    until::holds("some of it has come", || {
        hosts.link.bytes(Way::Down) > before + 4 * MIB
    });
    running
}

/// Finishes an interrupted restore; returns the bytes that came for it.
#[track_caller]
fn finish(hosts: &Linked) -> u64 {
    hosts.link.set(Way::Down, Rule::Pass);
    let before = hosts.link.bytes(Way::Down);
    let target = hosts.sender.fs().join("new");
    let all = [
        "--json".as_ref(),
        "nas2:photos".as_ref(),
        target.as_os_str(),
    ];
    let restored = hosts.sender.restore(&all).success().json();
    assert!(restored["resumed_at"].as_u64().unwrap() > MIB, "{restored}");
    let snapshot = Reference::of(hosts.sender.fs(), &target);
    assert_same(&hosts.sender.photos(), snapshot.path());
    hosts.link.bytes(Way::Down) - before
}

#[test]
fn without_a_grant_the_exact_command_is_named() {
    let hosts = hosts();
    let target = hosts.sender.fs().join("new");
    let before = hosts.link.bytes(Way::Down);
    hosts
        .sender
        .restore(&["nas2:photos".as_ref(), target.as_os_str()])
        .fails(
            4,
            &["sendshotctl peer grant nas1 --volume photos --for 24h"],
        );
    let came = hosts.link.bytes(Way::Down) - before;
    assert!(came < 16 * 1024, "{came} bytes have left");
    assert!(!target.exists());
    assert!(!hosts.sender.fs().join(".sendshot-staging").exists());
    // A grant for another volume does not help.
    let grant = ["peer", "grant", "nas1", "--volume", "videos", "--for", "1h"];
    hosts.receiver.ctl(&grant).success();
    hosts
        .sender
        .restore(&["nas2:photos".as_ref(), target.as_os_str()])
        .fails(4, &["--volume photos"]);
    let grant = ["peer", "grant", "nas1", "--volume", "photos", "--for", "1h"];
    hosts.receiver.ctl(&grant).success();
    hosts
        .sender
        .restore(&["nas2:photos".as_ref(), target.as_os_str()])
        .success();
    let log = hosts.receiver.daemon.log();
    assert!(log.contains("sends the copy nas1/photos/"), "{log}");
}

#[test]
fn a_grant_that_ends_ends_the_fetch_and_a_new_one_continues_it() {
    let hosts = hosts();
    let granted = Instant::now();
    let grant = ["peer", "grant", "nas1", "--for", "4s"];
    hosts.receiver.ctl(&grant).success();
    let restore = start(&hosts);
    let ended = restore.finish();
    let took = granted.elapsed();
    ended.fails(
        4,
        &["sendshotctl peer grant nas1 --volume photos --for 24h"],
    );
    assert!(took < Duration::from_millis(5_500), "{took:?}");
    hosts.receiver.grant("nas1");
    let came = finish(&hosts);
    assert!(came < 44 * MIB, "{came} bytes: what was here came again");
}

#[test]
fn a_revoked_key_gets_nothing_more() {
    let hosts = hosts();
    hosts.receiver.grant("nas1");
    let restore = start(&hosts);
    let revoked = Instant::now();
    hosts.receiver.ctl(&["peer", "revoke", "nas1"]).success();
    restore.finish().fails(4, &["revoked"]);
    assert!(revoked.elapsed() < Duration::from_secs(2));
}

#[test]
fn at_most_so_many_fetches_run_at_a_time() {
    let hosts = hosts();
    hosts.receiver.grant("nas1");
    let first = start(&hosts);
    let at = |name: &str| hosts.sender.fs().join(name);
    let mut command = hosts.sender.restore_command(&["nas2:photos"]);
    let second = Running::start(command.arg(at("second")));
    until::holds("two run", || {
        hosts
            .receiver
            .daemon
            .log()
            .matches("sends the copy")
            .count()
            == 2
    });
    hosts
        .sender
        .restore(&["nas2:photos".as_ref(), at("third").as_os_str()])
        .fails(4, &["2 fetches of this sender are running", "max_fetches"]);
    hosts.link.set(Way::Down, Rule::Pass);
    first.finish().success();
    second.finish().success();
}

#[test]
fn a_bare_host_restores_with_one_token() {
    let hosts = hosts();
    let token = hosts.receiver.invite(&["nas1", "--restore", "--for", "1h"]);
    // It has neither configuration nor daemon nor keys.
    let bare = SenderHost::setup().make();
    fs::remove_file(bare.config()).unwrap();
    let address = hosts.link.address().to_string();
    let pair = ["--pair", &address, "--name", "nas2", "--token", &token];
    let mut command = bare.restore_command(&pair);
    let listed = sendshot_harness::hosts::command::run(command.args(["--json", "--list"]));
    assert_eq!(listed.success().json()["volume"], "photos");
    let target = bare.fs().join("back");
    bare.restore(&["nas2:photos".as_ref(), target.as_os_str()])
        .success();
    let content = Reference::of(hosts.sender.fs(), &hosts.sender.photos());
    let snapshot = Reference::of(bare.fs(), &target);
    assert_same(content.path(), snapshot.path());
    // The host that is paired continues to push, and the key can do nothing else.
    fs::write(hosts.sender.photos().join("more"), "x").unwrap();
    hosts.sender.ctl(&["push", "nas2:photos"]).success();
    let revoke = ["peer", "revoke", "nas1", "--restore"];
    hosts.receiver.ctl(&revoke).success();
    let again = bare.fs().join("again");
    bare.restore(&["nas2:photos".as_ref(), again.as_os_str()])
        .fails(4, &["sendshotctl peer invite"]);
    fs::write(hosts.sender.photos().join("more"), "y").unwrap();
    hosts.sender.ctl(&["push", "nas2:photos"]).success();
}

#[test]
fn a_token_for_restoring_does_not_pair() {
    let hosts = hosts();
    let token = hosts.receiver.invite(&["nas1", "--restore"]);
    let address = hosts.link.address().to_string();
    hosts
        .sender
        .ctl(&["pair", &address, "--name", "again", "--token", &token])
        .fails(4, &["sendshotctl restore --pair"]);
    let pair = [
        "--pair", &address, "--name", "nas2", "--token", &token, "--list",
    ];
    hosts.sender.restore(&pair).success();
}
