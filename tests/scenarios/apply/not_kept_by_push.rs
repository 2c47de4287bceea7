//! What a receiver's file system cannot keep is left out and listed; what it cannot hold fails the push.

#![allow(clippy::unwrap_used, reason = "what fails in a test ends it")]

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::process::Signal;
use sendshot_harness::faults::link::{Link, Rule, Way};
use sendshot_harness::hosts::pairing::{Linked, Paired, pair, pair_at};
use sendshot_harness::hosts::receiver_box::ReceiverBox;
use sendshot_harness::hosts::sender_box::SenderBox;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;
const CHECKPOINTS: &str = "checkpoint_bytes = \"2 MiB\"\ncheckpoint_interval = \"0s\"";

fn boxes(mount: &str) -> Paired {
    let sender = SenderBox::new();
    let receiver = ReceiverBox::setup().mount(mount).start();
    pair(&sender, &receiver, "nas2");
    Paired { sender, receiver }
}

fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// A file with a property for compression.
fn compressed(path: &Path, algorithm: &str) {
    File::create(path).unwrap();
    set(path, "btrfs.compression", algorithm.as_bytes());
    fill::file(path, 1, 20_000);
}

fn properties(count: u64, example: &str) -> Value {
    json!([{"kind": "compression_property", "count": count, "example": example}])
}

/// What `copy list` says that the copy of a push lacks.
#[track_caller]
fn listed(receiver: &ReceiverBox, pushed: &Value) -> Value {
    let copies = receiver.ctl(&["copy", "list", "--json"]).success().jsons();
    let name = pushed["copy"].as_str().unwrap();
    let copy = copies
        .iter()
        .find(|copy| copy["path"].as_str().unwrap().ends_with(name));
    copy.unwrap()["not_kept"].clone()
}

#[test]
fn a_receiver_without_checksums_lists_the_compression_it_cannot_keep() {
    for mount in ["nodatacow", "nodatasum"] {
        let mut boxes = boxes(mount);
        let photos = boxes.sender.photos();
        compressed(&photos.join("a"), "zstd:3");
        compressed(&photos.join("b"), "lzo");
        fill::file(photos.join("plain"), 2, 20_000);
        let first = boxes.sender.push("nas2:photos");
        assert_eq!(first["not_kept"], properties(2, "a"), "{mount}");
        assert_eq!(listed(&boxes.receiver, &first), first["not_kept"]);
        let copy = boxes.receiver.copy(&first);
        for name in ["a", "b", "plain"] {
            let same = fs::read(copy.join(name)).unwrap() == fs::read(photos.join(name)).unwrap();
            assert!(same, "{name}");
        }
        // What the parent lacks the copy lacks, and what is new; also after a restart of both.
        boxes.receiver.daemon.stop();
        boxes.receiver.daemon.start();
        fs::create_dir(photos.join("new")).unwrap();
        compressed(&photos.join("new/c"), "zlib");
        let second = boxes.sender.push("nas2:photos");
        assert!(second["parent"].is_string(), "{second}");
        assert_eq!(second["not_kept"], properties(3, "a"), "{mount}");
        assert_eq!(listed(&boxes.receiver, &second), second["not_kept"]);
        assert_eq!(listed(&boxes.receiver, &first), first["not_kept"]);
        // A copy that is made in full lacks what its own stream lost.
        fs::remove_file(photos.join("a")).unwrap();
        let full = boxes.sender.push_with("nas2:photos", &["--parent", "none"]);
        assert_eq!(full["not_kept"], properties(2, "b"), "{mount}");
        let text = boxes.receiver.ctl(&["copy", "list"]).success().stdout;
        assert!(text.contains("compression property"), "{text}");
        fs::write(photos.join("later"), "later").unwrap();
        let text = boxes.sender.ctl(&["push", "nas2:photos"]).success().stdout;
        assert!(text.contains("not kept 2 × compression property"), "{text}");
    }
}

#[test]
fn a_receiver_with_checksums_lists_nothing() {
    let boxes = boxes("");
    compressed(&boxes.sender.photos().join("a"), "zstd:3");
    let pushed = boxes.sender.push("nas2:photos");
    assert_eq!(pushed["not_kept"], json!([]));
    assert_eq!(listed(&boxes.receiver, &pushed), json!([]));
    let text = boxes.sender.ctl(&["push", "nas2:photos"]).success().stdout;
    assert!(!text.contains("not kept"), "{text}");
}

/// The kernel's streams tell the property as well.
#[test]
fn the_kernels_engine_lists_what_is_not_kept_too() {
    let boxes = boxes("nodatacow");
    compressed(&boxes.sender.photos().join("a"), "zstd");
    let pushed = boxes
        .sender
        .push_with("nas2:photos", &["--engine", "kernel"]);
    let not_kept = &pushed["not_kept"][0];
    assert_eq!(not_kept["kind"], "compression_property", "{pushed}");
    assert_eq!(not_kept["count"], 1, "{pushed}");
}

#[test]
fn a_resumed_push_lists_what_was_left_out_before_it_broke_off() {
    for dies in [false, true] {
        let sender = SenderBox::setup().volume("photos", "photos");
        let sender = sender.keys("retry_for = \"0s\"").start();
        let receiver = ReceiverBox::setup().mount("nodatacow");
        let receiver = receiver.keys(CHECKPOINTS).start();
        let link = Link::to(receiver.address());
        pair_at(&sender, &receiver, "nas2", link.address());
        let mut boxes = Linked {
            sender,
            link,
            receiver,
        };
        let photos = boxes.sender.photos();
        compressed(&photos.join("first"), "zstd");
        for i in 0..4 {
            fill::file(photos.join(format!("big{i}")), i, 8 * MIB);
            compressed(&photos.join(format!("small{i}")), "zstd");
        }
        let push = boxes.sender.ctl_start(&["push", "nas2:photos"]);
        until::holds("so much was sent", || boxes.link.bytes(Way::Up) > 24 << 20);
        boxes.link.set(Way::Up, Rule::Stall);
        until::holds("a checkpoint was taken", || {
            let partials = ["copy", "list", "--partials", "--json"];
            let partials = boxes.receiver.ctl(&partials).success().jsons();
            let checkpoints = partials[0]["checkpoints"].as_array().unwrap().len();
            checkpoints > 0
        });
        if dies {
            boxes.receiver.daemon.kill();
        } else {
            push.signal(Signal::INT);
        }
        boxes.link.cut();
        push.finish();
        boxes.link.mend();
        if dies {
            boxes.receiver.daemon.start();
        }
        let pushed = boxes.sender.push("nas2:photos");
        assert!(pushed["resumed_at"].as_u64().unwrap() > 4 << 20, "{pushed}");
        let first = pushed["not_kept"][0]["example"].as_str().unwrap();
        assert_eq!(pushed["not_kept"], properties(5, first), "dies: {dies}");
        assert_eq!(listed(&boxes.receiver, &pushed), pushed["not_kept"]);
    }
}

#[test]
fn an_access_list_that_the_receiver_cannot_hold_fails_the_push() {
    /// u::rwx u:7:rwx g::r-x m::rwx o::r-x
    const ACL: &[u8] = b"\x02\0\0\0\
        \x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0\x07\0\0\0\x04\0\x05\0\xff\xff\xff\xff\
        \x10\0\x07\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff";
    let sender = SenderBox::new();
    let receiver = ReceiverBox::setup().mount("noacl");
    let receiver = receiver.keys(CHECKPOINTS).start();
    pair(&sender, &receiver, "nas2");
    let boxes = Paired { sender, receiver };
    // So much that it could be resumed, and fail again.
    for i in 0..4 {
        fill::file(boxes.sender.photos().join(format!("big{i}")), i, 8 * MIB);
    }
    let file = boxes.sender.photos().join("file");
    fs::write(&file, "x").unwrap();
    set(&file, "system.posix_acl_access", ACL);
    let push = boxes.sender.ctl(&["push", "nas2:photos"]);
    push.fails(1, &["does not support", "file", "noacl"]);
    let copies = boxes.receiver.ctl(&["copy", "list", "--json"]).success();
    assert!(copies.jsons().is_empty(), "{}", copies.stdout);
    // It is for the user to mend, and the next push works.
    rustix::fs::removexattr(&file, "system.posix_acl_access").unwrap();
    boxes.sender.push("nas2:photos");
}
