//! Copies come back from a disk that takes no more writes: it is full, or mounted read-only.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use sendshot_harness::compare::exact::{Reference, assert_same};
use sendshot_harness::faults::link::{Link, Rule, Way};
use sendshot_harness::hosts::command::{Running, tool};
use sendshot_harness::hosts::pairing::{Linked, pair_at};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;

const MIB: u64 = 1 << 20;
/// Small, so that it is soon full.
const DISK: u64 = 300 * MIB;
/// Bytes of the copy.
const BIG: u64 = 24 * MIB;
/// Bytes per second while the captures are looked at.
const RATE: u64 = 8 * MIB;

fn hosts() -> Linked {
    let (sender, receiver) = (SenderHost::new(), ReceiverHost::with_size(DISK));
    let link = Link::to(receiver.address());
    pair_at(&sender, &receiver, "nas2", link.address());
    fill::tree(&sender.photos(), 1);
    fill::file(sender.photos().join("big"), 2, BIG as usize);
    sender.push("nas2:photos");
    receiver
        .ctl(&["peer", "grant", "nas1", "--for", "24h"])
        .success();
    Linked {
        sender,
        link,
        receiver,
    }
}

fn fill_to_the_last_byte(fs: &Path) {
    let noise = fill::noise(7, MIB as usize);
    for (name, len) in [("filler", noise.len()), ("filler-rest", 4096)] {
        let mut file = File::create(fs.join(name)).unwrap();
        while file.write_all(&noise[..len]).is_ok() {}
        let _ = file.sync_all();
    }
    // Small files are stored in the metadata, where a capture needs room for its name.
    let names = fs.join("filler-names");
    if fs::create_dir(&names).is_ok() {
        let written = |number: u64| fs::write(names.join(number.to_string()), &noise[..2000]);
        for number in 0.. {
            if written(number).is_err() {
                break;
            }
        }
    }
    let refused = fs::write(fs.join("one more"), &noise[..65536]);
    assert!(refused.is_err(), "the disk is not full");
}

fn entries(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.collect()
}

/// Restores beside the volume, and looks at the captures meanwhile and afterwards.
fn restores_with_captures_in_the_state_directory(hosts: &Linked) {
    let captures = hosts.receiver.daemon.state_dir().join("captures");
    let staging = hosts.receiver.root().join(".sendshot-staging");
    let before = entries(&staging);
    let target = hosts.sender.fs().join("new");
    let arguments = ["nas2:photos", target.to_str().unwrap()];
    hosts.link.set(Way::Down, Rule::Slow(RATE));
    let restore = Running::start(&mut hosts.sender.restore_command(&arguments));
    until::holds("the capture is in the state directory", || {
        entries(&captures).len() == 1
    });
    assert_eq!(entries(&staging), before, "something was left at the root");
    hosts.link.set(Way::Down, Rule::Pass);
    restore.finish().success();
    let snapshot = Reference::of(hosts.sender.fs(), &target);
    assert_same(&hosts.sender.photos(), snapshot.path());
    until::holds("the capture is deleted", || entries(&captures).is_empty());
    assert_eq!(entries(&staging), before, "something was left at the root");
}

#[test]
fn a_full_disk_gives_its_copies_back() {
    let hosts = hosts();
    fill_to_the_last_byte(hosts.receiver.fs());
    restores_with_captures_in_the_state_directory(&hosts);
}

#[test]
fn a_read_only_disk_gives_its_copies_back() {
    let hosts = hosts();
    let remount = |options: &str| {
        let fs = hosts.receiver.fs().to_str().unwrap();
        tool("mount", &["-o", &format!("remount,{options}"), fs]);
    };
    remount("ro");
    restores_with_captures_in_the_state_directory(&hosts);
    remount("rw");
}
