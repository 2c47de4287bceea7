//! Certificates renew themselves long before they expire, without a restart or an interruption.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;

use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::clock::Clock;
use sendshot_harness::hosts::pairing::Linked;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;

const MIB: usize = 1 << 20;

#[test]
fn a_certificate_renews_itself_during_a_push() {
    let setup = SenderHost::setup().volume("photos", "photos");
    let mut hosts = Linked::of(setup.volume("music", "music").start());
    let (here, there) = (Clock::new(), Clock::new());
    here.of(&mut hosts.sender.daemon);
    there.of(&mut hosts.receiver.daemon);
    let file = hosts.sender.receiver_file("nas2");
    let first = fs::read_to_string(&file).unwrap();
    fill::file(hosts.sender.photos().join("big"), 1, 24 * MIB);
    fill::tree(&hosts.sender.fs().join("music"), 2);

    hosts.link.set(Way::Up, Rule::Slow(4 << 20));
    let before = hosts.link.bytes(Way::Up);
    let running = hosts.sender.ctl_start(&["push", "--json", "nas2:photos"]);
    until::holds("it transfers", || {
        hosts.link.bytes(Way::Up) > before + MIB as u64
    });
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        first,
        "renewed for nothing"
    );
    // In the last third of the five years that a sender's certificate lasts.
    here.set("+4y");
    there.set("+4y");
    hosts.sender.push("nas2:music");
    assert_ne!(
        fs::read_to_string(&file).unwrap(),
        first,
        "it was not renewed"
    );
    hosts.link.mend();
    let pushed = running.finish().success().json();
    hosts.sender.wait_until_released();
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);

    // The first certificate would have expired, and the receiver's own is in its last third.
    here.set("+7y");
    there.set("+7y");
    fs::write(hosts.sender.photos().join("new"), "new").unwrap();
    let pushed = hosts.sender.push("nas2:photos");
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    let ends = hosts
        .receiver
        .ctl(&["peer", "list", "--json"])
        .success()
        .jsons();
    assert!(!ends.is_empty());
}

/// No push runs: the daemon checks by itself, and warns while there is time.
#[test]
fn an_unused_certificate_renews_itself_or_warns() {
    let mut hosts = Linked::new();
    let (here, there) = (Clock::new(), Clock::new());
    there.of(&mut hosts.receiver.daemon);
    let file = hosts.sender.receiver_file("nas2");
    let first = fs::read_to_string(&file).unwrap();
    there.set("+4y");
    here.set("+4y");
    here.of(&mut hosts.sender.daemon);
    until::holds("it is renewed", || {
        fs::read_to_string(&file).unwrap() != first
    });

    // Twenty days before the new one expires, the receiver cannot be reached.
    hosts.link.cut();
    let (before, soon) = ("+3230d", "+3265d");
    here.set(before);
    hosts.sender.daemon.stop();
    hosts.sender.daemon.start();
    let state = |hosts: &Linked| hosts.sender.ctl(&["status", "--json"]).success().json();
    assert!(state(&hosts)["receivers"][0]["problem"].is_null());
    here.set(soon);
    hosts.sender.daemon.may_log("the certificate for it ends");
    hosts.sender.daemon.stop();
    hosts.sender.daemon.start();
    until::holds("it is warned of", || {
        hosts.sender.daemon.log().contains("cannot be renewed")
    });
    let problem = state(&hosts)["receivers"][0]["problem"].to_string();
    assert!(problem.contains("certificate"), "{problem}");
}

#[test]
fn a_clock_that_is_wrong_by_years_is_named_as_the_reason() {
    let mut hosts = Linked::new();
    let clock = Clock::new();
    clock.of(&mut hosts.sender.daemon);
    fs::write(hosts.sender.photos().join("file"), "x").unwrap();
    hosts.sender.push("nas2:photos");
    for wrong in ["-3y", "+30y"] {
        clock.set(wrong);
        let refused = hosts.sender.ctl(&["push", "nas2:photos"]);
        refused.fails(4, &["clock"]);
    }
    clock.set("+0");
    let pushed = hosts.sender.push("nas2:photos");
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
}
