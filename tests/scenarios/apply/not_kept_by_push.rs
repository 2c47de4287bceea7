//! A push leaves out and lists what the receiver's file system cannot keep; it fails if data cannot be held.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::process::Signal;
use sendshot_harness::faults::link::{Link, Rule, Way};
use sendshot_harness::hosts::pairing::{Linked, Paired, pair, pair_at};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;
const CHECKPOINTS: &str = "checkpoint_bytes = \"2 MiB\"\ncheckpoint_interval = \"0s\"";

fn hosts(mount: &str) -> Paired {
    let sender = SenderHost::new();
    let receiver = ReceiverHost::setup().mount(mount).start();
    pair(&sender, &receiver, "nas2");
    Paired { sender, receiver }
}

fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// Makes a file with a compression property.
fn compressed(path: &Path, algorithm: &str) {
    File::create(path).unwrap();
    set(path, "btrfs.compression", algorithm.as_bytes());
    fill::file(path, 1, 20_000);
}

fn properties(count: u64, example: &str) -> Value {
    json!([{"kind": "compression_property", "count": count, "example": example}])
}

/// Returns what the copy of a push lacks according to `copy list`.
#[track_caller]
fn listed(receiver: &ReceiverHost, pushed: &Value) -> Value {
    let copies = receiver.ctl(&["copy", "list", "--json"]).success().jsons();
    let name = pushed["copy"].as_str().unwrap();
    let copy = copies
        .iter()
        .find(|copy| copy["path"].as_str().unwrap().ends_with(name));
    copy.unwrap()["not_kept"].clone()
}

#[test]
fn a_receiver_without_checksums_lists_lost_compression() {
    for mount in ["nodatacow", "nodatasum"] {
        let mut hosts = hosts(mount);
        let photos = hosts.sender.photos();
        compressed(&photos.join("a"), "zstd:3");
        compressed(&photos.join("b"), "lzo");
        fill::file(photos.join("plain"), 2, 20_000);
        let first = hosts.sender.push("nas2:photos");
        assert_eq!(first["not_kept"], properties(2, "a"), "{mount}");
        assert_eq!(listed(&hosts.receiver, &first), first["not_kept"]);
        let copy = hosts.receiver.copy(&first);
        for name in ["a", "b", "plain"] {
            let same = fs::read(copy.join(name)).unwrap() == fs::read(photos.join(name)).unwrap();
            assert!(same, "{name}");
        }
        // A copy lacks what its parent lacks, and new losses; also after a restart of the receiver.
        hosts.receiver.daemon.stop();
        hosts.receiver.daemon.start();
        fs::create_dir(photos.join("new")).unwrap();
        compressed(&photos.join("new/c"), "zlib");
        let second = hosts.sender.push("nas2:photos");
        assert!(second["parent"].is_string(), "{second}");
        assert_eq!(second["not_kept"], properties(3, "a"), "{mount}");
        assert_eq!(listed(&hosts.receiver, &second), second["not_kept"]);
        assert_eq!(listed(&hosts.receiver, &first), first["not_kept"]);
        // A copy of a full send lacks only what its own stream lost.
        fs::remove_file(photos.join("a")).unwrap();
        let full = hosts.sender.push_with("nas2:photos", &["--parent", "none"]);
        assert_eq!(full["not_kept"], properties(2, "b"), "{mount}");
        let text = hosts.receiver.ctl(&["copy", "list"]).success().stdout;
        assert!(text.contains("compression property"), "{text}");
        fs::write(photos.join("later"), "later").unwrap();
        let text = hosts.sender.ctl(&["push", "nas2:photos"]).success().stdout;
        assert!(text.contains("not kept 2 × compression property"), "{text}");
    }
}

#[test]
fn a_receiver_with_checksums_lists_nothing() {
    let hosts = hosts("");
    compressed(&hosts.sender.photos().join("a"), "zstd:3");
    let pushed = hosts.sender.push("nas2:photos");
    assert_eq!(pushed["not_kept"], json!([]));
    assert_eq!(listed(&hosts.receiver, &pushed), json!([]));
    let text = hosts.sender.ctl(&["push", "nas2:photos"]).success().stdout;
    assert!(!text.contains("not kept"), "{text}");
}

/// The kernel's streams contain the property as well.
#[test]
fn the_kernels_engine_lists_what_is_not_kept_too() {
    let hosts = hosts("nodatacow");
    compressed(&hosts.sender.photos().join("a"), "zstd");
    let pushed = hosts
        .sender
        .push_with("nas2:photos", &["--engine", "kernel"]);
    let not_kept = &pushed["not_kept"][0];
    assert_eq!(not_kept["kind"], "compression_property", "{pushed}");
    assert_eq!(not_kept["count"], 1, "{pushed}");
}

#[test]
fn a_resumed_push_lists_what_was_left_out_before() {
    for dies in [false, true] {
        let sender = SenderHost::setup().volume("photos", "photos");
        let sender = sender.keys("retry_for = \"0s\"").start();
        let receiver = ReceiverHost::setup().mount("nodatacow");
        let receiver = receiver.keys(CHECKPOINTS).start();
        let link = Link::to(receiver.address());
        pair_at(&sender, &receiver, "nas2", link.address());
        let mut hosts = Linked {
            sender,
            link,
            receiver,
        };
        let photos = hosts.sender.photos();
        compressed(&photos.join("first"), "zstd");
        for i in 0..4 {
            fill::file(photos.join(format!("big{i}")), i, 8 * MIB);
            compressed(&photos.join(format!("small{i}")), "zstd");
        }
        let push = hosts.sender.ctl_start(&["push", "nas2:photos"]);
        until::holds("so much was sent", || hosts.link.bytes(Way::Up) > 24 << 20);
        hosts.link.set(Way::Up, Rule::Stall);
        until::holds("a checkpoint was taken", || {
            let partials = ["copy", "list", "--partials", "--json"];
            let partials = hosts.receiver.ctl(&partials).success().jsons();
            let checkpoints = partials[0]["checkpoints"].as_array().unwrap().len();
            checkpoints > 0
        });
        if dies {
            hosts.receiver.daemon.kill();
        } else {
            push.signal(Signal::INT);
        }
        hosts.link.cut();
        push.finish();
        hosts.link.mend();
        if dies {
            hosts.receiver.daemon.start();
        }
        let pushed = hosts.sender.push("nas2:photos");
        assert!(pushed["resumed_at"].as_u64().unwrap() > 4 << 20, "{pushed}");
        let first = pushed["not_kept"][0]["example"].as_str().unwrap();
        assert_eq!(pushed["not_kept"], properties(5, first), "dies: {dies}");
        assert_eq!(listed(&hosts.receiver, &pushed), pushed["not_kept"]);
    }
}

#[test]
fn an_acl_that_the_receiver_cannot_hold_fails_the_push() {
    /// u::rwx u:7:rwx g::r-x m::rwx o::r-x
    const ACL: &[u8] = b"\x02\0\0\0\
        \x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0\x07\0\0\0\x04\0\x05\0\xff\xff\xff\xff\
        \x10\0\x07\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff";
    let sender = SenderHost::new();
    let receiver = ReceiverHost::setup().mount("noacl");
    let receiver = receiver.keys(CHECKPOINTS).start();
    pair(&sender, &receiver, "nas2");
    let hosts = Paired { sender, receiver };
    // Enough data that the push could be resumed, and fail again.
    for i in 0..4 {
        fill::file(hosts.sender.photos().join(format!("big{i}")), i, 8 * MIB);
    }
    let file = hosts.sender.photos().join("file");
    fs::write(&file, "x").unwrap();
    set(&file, "system.posix_acl_access", ACL);
    let push = hosts.sender.ctl(&["push", "nas2:photos"]);
    push.fails(1, &["does not support", "file", "noacl"]);
    let copies = hosts.receiver.ctl(&["copy", "list", "--json"]).success();
    assert!(copies.jsons().is_empty(), "{}", copies.stdout);
    // The user removes the cause, and the next push works.
    rustix::fs::removexattr(&file, "system.posix_acl_access").unwrap();
    hosts.sender.push("nas2:photos");
}
