//! The receiver reads its configuration again at SIGHUP, and what runs continues as it began.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;

use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::command::Running;
use sendshot_harness::hosts::pairing::Linked;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;

const MIB: usize = 1 << 20;

/// Slow enough that a push runs longer than the steps of a test.
const SLOW: Rule = Rule::Slow(2 << 20);

const RELOADED: &str = "configuration reloaded";

/// Makes a receiver that accepts one volume of its sender, of which the first has much new data since its push.
fn hosts() -> Linked {
    let setup = SenderHost::setup().volume("photos", "photos");
    let sender = setup.volume("music", "music").start();
    let receiver = ReceiverHost::setup().keys("[senders.nas1]\nmax_volumes = 1");
    let hosts = Linked::between(sender, receiver.start());
    fill::tree(&hosts.sender.photos(), 1);
    hosts.sender.push("nas2:photos");
    fill::file(hosts.sender.photos().join("big"), 1, 40 * MIB);
    hosts
}

/// Starts a push that takes long, and waits until it is in the middle of its data.
#[track_caller]
fn in_the_middle(hosts: &Linked) -> Running {
    hosts.link.set(Way::Up, SLOW);
    let before = hosts.link.bytes(Way::Up);
    let push = hosts.sender.ctl_start(&["push", "--json", "nas2:photos"]);
    until::holds("a push transfers data", || {
        hosts.link.bytes(Way::Up) > before + MIB as u64
    });
    push
}

/// Writes the table of the sender in receiver.toml, and has the daemon read it.
#[track_caller]
fn set(receiver: &ReceiverHost, table: &str, outcome: &str) {
    let config = fs::read_to_string(receiver.config()).unwrap();
    let (head, _) = config.split_once("[senders.nas1]").unwrap();
    fs::write(
        receiver.config(),
        format!("{head}[senders.nas1]\n{table}\n"),
    )
    .unwrap();
    receiver.daemon.reload(outcome);
}

#[test]
fn a_reload_is_in_force_at_once_and_leaves_a_running_push_alone() {
    let hosts = hosts();
    let Linked {
        sender, receiver, ..
    } = &hosts;
    let mut push = in_the_middle(&hosts);
    let music = ["push", "nas2:music"];
    sender.ctl(&music).fails(4, &["max_volumes"]);
    set(receiver, "max_volumes = 2", RELOADED);
    sender.ctl(&music).success();

    set(receiver, "max_bytes = '2 MiB'\nrestore = 'never'", RELOADED);
    assert!(push.runs(), "it has ended too early for this test");
    hosts.link.mend();
    let pushed = push.finish().success().json();
    assert_exact(sender, receiver, &pushed);
    fs::write(sender.photos().join("more"), "more").unwrap();
    let photos = ["push", "nas2:photos"];
    sender.ctl(&photos).fails(4, &["max_bytes"]);

    // A file that is not accepted changes nothing.
    receiver
        .daemon
        .may_log("the former configuration stays in use");
    set(receiver, "max_bites = '2 GiB'", "stays in use: ");
    assert!(receiver.daemon.log().contains("max_bites"), "no reason");
    sender.ctl(&photos).fails(4, &["max_bytes"]);
    let granted = receiver.ctl(&["peer", "grant", "nas1", "--for", "1h"]);
    let granted = granted.success();
    assert!(granted.stderr.contains("\"never\""), "{granted:?}");
    set(receiver, "", RELOADED);
    assert_exact(sender, receiver, &sender.push("nas2:photos"));
}

#[test]
fn a_reload_moves_neither_the_address_nor_the_root() {
    let hosts = hosts();
    let Linked {
        sender, receiver, ..
    } = &hosts;
    let elsewhere = receiver.fs().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let config = format!("listen = \"127.0.0.1:1\"\nroot = {elsewhere:?}\n");
    fs::write(receiver.config(), config).unwrap();
    for key in ["`listen`", "`root`"] {
        receiver.daemon.may_log(key);
    }
    receiver.daemon.reload(RELOADED);
    let log = receiver.daemon.log();
    for key in ["listen", "root"] {
        let told = format!("`{key}` of receiver.toml stays as it was: restart sendshot-receiver");
        assert!(log.contains(&told), "{log}");
    }
    assert_exact(sender, receiver, &sender.push("nas2:photos"));
    // The rest of the file holds: there is no limit of volumes any more.
    sender.ctl(&["push", "nas2:music"]).success();
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}
