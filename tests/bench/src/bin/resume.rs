//! Measures the cost of an interruption: a push of some GiB is cut at nine tenths by each kind of fault, and
//! the link counts the bytes sent again. Then measures the cost of checkpoints in an uninterrupted push.
//!
//! `resume [MIB] [ROUNDS]`; by default 4096 MiB and 5 rounds. It needs three times as much memory as
//! the push has bytes.

#![allow(clippy::unwrap_used, reason = "a failure in a benchmark ends it")]

use std::time::Duration;

use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::faults::link::{Link, Rule, Way};
use sendshot_harness::hosts::pairing::{Linked, Paired, pair, pair_at};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// Bytes of one file of the volume.
const FILE: u64 = 64 * MIB;
/// Bytes that may be sent twice if only the connection breaks.
const WINDOW: u64 = 8 * MIB;
/// Limit for the cost of checkpoints, as a part of a push's time.
const MOST: f64 = 0.10;

/// The fault at nine tenths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Cut,
    KillSender,
    KillReceiver,
    PowerSender,
    PowerReceiver,
}

/// Measurements of a push with its fault.
struct Measured {
    /// Bytes sent to the receiver.
    up: u64,
    /// The largest distance between two checkpoints, in bytes.
    gap: u64,
    pushed: Value,
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|text| text.parse::<u64>().unwrap());
    let size = arguments.next().unwrap_or(4096) * MIB;
    let rounds = arguments.next().unwrap_or(5);
    let alone = measure(size, Fault::None);
    println!("a push of {} MiB, cut at 90 %:", size / MIB);
    println!(
        "{:<16} {:>12} {:>14} {:>14} {:>12}",
        "", "resumed at", "sent again", "at most", "checkpoints"
    );
    let mut failed = 0;
    for fault in [
        Fault::Cut,
        Fault::KillSender,
        Fault::KillReceiver,
        Fault::PowerSender,
        Fault::PowerReceiver,
    ] {
        let with = measure(size, fault);
        let again = with.up.saturating_sub(alone.up);
        let most = match fault {
            Fault::Cut | Fault::None => WINDOW,
            _ => with.gap + WINDOW,
        };
        failed += u32::from(again > most);
        println!(
            "{:<16} {:>8} MiB {:>10.1} MiB {:>10.1} MiB {:>8.1} MiB",
            format!("{fault:?}"),
            with.pushed["resumed_at"].as_u64().unwrap() / MIB,
            mib(again),
            mib(most),
            mib(with.gap),
        );
    }
    failed += u32::from(!checkpoints_are_cheap(size, rounds));
    println!("{} passed, {failed} failed", 6 - failed);
    std::process::exit(i32::from(failed > 0));
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

fn hosts(size: u64, fault: Fault) -> Linked {
    let disk = size + size / 2 + 512 * MIB;
    let mut sender = SenderHost::setup()
        .size(disk)
        .volume("photos", "photos")
        .keys("retry_for = \"60s\"");
    let mut receiver = ReceiverHost::setup().size(disk);
    match fault {
        Fault::PowerSender => sender = sender.power(),
        Fault::PowerReceiver => receiver = receiver.power(),
        Fault::None | Fault::Cut | Fault::KillSender | Fault::KillReceiver => {}
    }
    let (sender, receiver) = (sender.start(), receiver.start());
    let link = Link::to(receiver.address());
    pair_at(&sender, &receiver, "nas2", link.address());
    fill_volume(&sender, size);
    Linked {
        sender,
        link,
        receiver,
    }
}

fn fill_volume(sender: &SenderHost, size: u64) {
    for i in 0..size / FILE {
        let path = sender.photos().join(format!("file{i}"));
        fill::file(path, i + 1, FILE as usize);
    }
    rustix::fs::sync();
}

fn measure(size: u64, fault: Fault) -> Measured {
    let mut hosts = hosts(size, fault);
    let before = hosts.link.bytes(Way::Up);
    let push = hosts.sender.ctl_start(&["push", "--json", "nas2:photos"]);
    let mut checkpoints = vec![0];
    if fault != Fault::None {
        until::holds("nine tenths were sent", || {
            checkpoints.extend(last_checkpoint(&hosts.receiver));
            hosts.link.bytes(Way::Up) - before >= size * 9 / 10
        });
    }
    strike(&mut hosts, fault);
    let ended = push.finish();
    let pushed = match ended.code {
        0 => ended.json(),
        _ => hosts.sender.push("nas2:photos"),
    };
    hosts.sender.wait_until_released();
    assert_exact(&hosts.sender, &hosts.receiver, &pushed);
    let gap = checkpoints.windows(2).map(|two| two[1] - two[0]).max();
    Measured {
        up: hosts.link.bytes(Way::Up) - before,
        gap: gap.unwrap_or(0),
        pushed,
    }
}

fn last_checkpoint(receiver: &ReceiverHost) -> Option<u64> {
    let listed = receiver.ctl(&["copy", "list", "--partials", "--json"]);
    let partials = listed.success().jsons();
    partials.first()?["checkpoints"]
        .as_array()?
        .last()?
        .as_u64()
}

fn strike(hosts: &mut Linked, fault: Fault) {
    match fault {
        Fault::None => {}
        Fault::Cut => hosts.link.set(Way::Up, Rule::Cut),
        Fault::KillSender => {
            hosts.sender.daemon.kill();
            hosts.sender.daemon.start();
        }
        Fault::KillReceiver => {
            hosts.receiver.daemon.kill();
            hosts.receiver.daemon.start();
        }
        Fault::PowerSender => {
            hosts.link.cut();
            hosts.sender.power_cut();
            hosts.sender.daemon.start();
            hosts.link.mend();
        }
        Fault::PowerReceiver => {
            hosts.link.cut();
            hosts.receiver.power_cut();
            hosts.receiver.daemon.start();
            hosts.link.mend();
        }
    }
}

/// Alternates pushes with and without checkpoints, so that other load on the machine affects both.
fn checkpoints_are_cheap(size: u64, rounds: u64) -> bool {
    let with = paired(size, "");
    let without = paired(size, "checkpoint_bytes = \"1000 TiB\"");
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        a.push(seconds(&with));
        b.push(seconds(&without));
    }
    let (a, b) = (median(a), median(b));
    let cost = a / b - 1.0;
    println!(
        "checkpoints: {a:.2} s with, {b:.2} s without, medians of {rounds}: {:+.1} % (at most {:.0} %)",
        cost * 100.0,
        MOST * 100.0
    );
    cost <= MOST
}

fn paired(size: u64, keys: &str) -> Paired {
    let disk = size + 1024 * MIB;
    let sender = SenderHost::setup()
        .size(disk)
        .volume("photos", "photos")
        .start();
    let receiver = ReceiverHost::setup().size(disk).keys(keys).start();
    pair(&sender, &receiver, "nas2");
    fill_volume(&sender, size / 2);
    Paired { sender, receiver }
}

/// Times a full push, then deletes its copy, so that the next push finds the same free space.
fn seconds(hosts: &Paired) -> f64 {
    let pushed = hosts.sender.push_with("nas2:photos", &["--parent", "none"]);
    let copy = hosts.receiver.copy(&pushed);
    sendshot_harness::hosts::command::tool(
        "btrfs",
        &[
            "subvolume".as_ref(),
            "delete".as_ref(),
            "-C".as_ref(),
            copy.as_os_str(),
        ],
    );
    sendshot_harness::hosts::command::tool(
        "btrfs",
        &[
            "subvolume".as_ref(),
            "sync".as_ref(),
            hosts.receiver.fs().as_os_str(),
        ],
    );
    std::thread::sleep(Duration::from_millis(200));
    pushed["seconds"].as_f64().unwrap()
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
