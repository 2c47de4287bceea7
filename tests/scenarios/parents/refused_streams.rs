//! Streams that the receiver cannot apply: reused inode numbers, and sendshots that describe files that do
//! not exist. The push recovers by itself, and reports how.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::os::unix::fs::MetadataExt;

use sendshot_engine::format::entry::ROOT;
use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::compare::reasons::in_state;
use sendshot_harness::compare::subvolumes::assert_no_leftovers;
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::pairing::{Linked, Paired, pair};
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::trees::fill;
use sendshot_harness::trees::ghosts;
use serde_json::Value;

/// Log line of the sender for a refused stream.
const REFUSED: &str = "a stream could not be applied";

#[track_caller]
fn push(sender: &SenderHost, receiver: &ReceiverHost, target: &str) -> Value {
    let pushed = sender.push(target);
    sender.wait_until_released();
    assert_exact(sender, receiver, &pushed);
    pushed
}

fn reason(pushed: &Value) -> &str {
    pushed["parent_reason"].as_str().unwrap()
}

#[test]
fn a_deleted_directorys_number_is_reused_after_a_mount() {
    let Paired { sender, receiver } = Paired::new();
    let photos = sender.photos();
    fs::create_dir(photos.join("dir")).unwrap();
    fs::write(photos.join("dir/f"), "gone with it").unwrap();
    let number = fs::metadata(photos.join("dir")).unwrap().ino();
    push(&sender, &receiver, "nas2:photos");
    for name in ["new", "newer"] {
        match name {
            "new" => fs::remove_dir_all(photos.join("dir")).unwrap(),
            _ => fs::remove_file(photos.join("new")).unwrap(),
        }
        sender.replug();
        fs::write(photos.join(name), name).unwrap();
        assert_eq!(fs::metadata(photos.join(name)).unwrap().ino(), number);
        let pushed = push(&sender, &receiver, "nas2:photos");
        assert!(pushed["parent"].is_string(), "{pushed}");
    }
    assert_no_leftovers(&sender, &receiver);
}

/// Such sendshots come from versions that took an inode number for an identity.
#[test]
fn a_sendshot_that_names_what_is_gone_is_no_parent() {
    let Paired { sender, receiver } = Paired::new();
    let file = sender.photos().join("file");
    fs::write(&file, "file").unwrap();
    let first = push(&sender, &receiver, "nas2:photos");
    let number = fs::metadata(&file).unwrap().ino();
    in_state(&sender, &first, |_, path| {
        ghosts::add(path, number, "ghost")
    });
    sender.daemon.may_log("a sendshot is not used");
    fs::write(&file, "changed").unwrap();
    let planned = sender.ctl(&["plan", "nas2:photos"]).success();
    assert!(
        planned.stdout.contains("a name in no directory"),
        "{planned:?}"
    );
    let second = push(&sender, &receiver, "nas2:photos");
    assert_eq!(second["parent"], Value::Null);
    assert!(
        reason(&second).contains("a name in no directory"),
        "{second}"
    );
    fs::write(&file, "changed again").unwrap();
    let third = push(&sender, &receiver, "nas2:photos");
    assert_eq!(third["parent"], second["uuid"]);
}

#[test]
fn a_rejected_parent_is_not_used_again() {
    let Paired { sender, receiver } = Paired::new();
    let photos = sender.photos();
    fill::file(photos.join("large"), 1, 3_000_000);
    let first = push(&sender, &receiver, "nas2:photos");
    in_state(&sender, &first, |_, path| ghosts::add(path, ROOT, "ghost"));
    sender.daemon.may_log(REFUSED);
    fs::write(photos.join("news"), "news").unwrap();
    let second = push(&sender, &receiver, "nas2:photos");
    assert_eq!(second["parent"], Value::Null, "{second}");
    assert!(reason(&second).contains("could not apply"), "{second}");
    assert!(reason(&second).contains("unlink ghost"), "{second}");
    let log = sender.daemon.log();
    assert_eq!(log.matches(REFUSED).count(), 2, "{log}");
    assert!(log.contains("captured whole"), "{log}");
    fs::write(photos.join("news"), "more").unwrap();
    let third = push(&sender, &receiver, "nas2:photos");
    assert_eq!(third["parent"], second["uuid"]);
    assert_no_leftovers(&sender, &receiver);
}

/// A capture from a wrong sendshot is wrong; a whole capture is right, and the push stays incremental.
#[test]
fn data_from_a_wrong_sendshot_is_captured_again() {
    let sender = SenderHost::new();
    let (receiver, other) = (ReceiverHost::new(), ReceiverHost::new());
    pair(&sender, &receiver, "nas2");
    pair(&sender, &other, "nas3");
    let photos = sender.photos();
    fs::create_dir(photos.join("dir")).unwrap();
    fs::write(photos.join("dir/f"), "there").unwrap();
    let first = push(&sender, &receiver, "nas2:photos");
    fs::write(photos.join("more"), "more").unwrap();
    let elsewhere = push(&sender, &other, "nas3:photos");
    let dir = fs::metadata(photos.join("dir")).unwrap().ino();
    in_state(&sender, &elsewhere, |_, path| ghosts::add(path, dir, "f"));
    sender.daemon.may_log(REFUSED);
    fs::write(photos.join("news"), "news").unwrap();
    let second = push(&sender, &receiver, "nas2:photos");
    assert_eq!(second["parent"], first["uuid"]);
    assert!(reason(&second).contains("captured whole"), "{second}");
    fs::write(photos.join("news"), "more news").unwrap();
    let third = push(&sender, &receiver, "nas2:photos");
    assert_eq!(third["parent"], second["uuid"]);
    assert!(!reason(&third).contains("captured whole"), "{third}");
}

/// The stream is interrupted before the command that cannot be applied, and is refused when it is resumed.
#[test]
fn a_refused_resumed_stream_is_not_repeated() {
    let hosts = Linked::new();
    let (sender, receiver) = (&hosts.sender, &hosts.receiver);
    let other = ReceiverHost::new();
    pair(sender, &other, "nas3");
    let photos = sender.photos();
    fs::create_dir(photos.join("dir")).unwrap();
    fs::write(photos.join("dir/f"), "there").unwrap();
    let first = push(sender, receiver, "nas2:photos");
    fs::write(photos.join("more"), "more").unwrap();
    let elsewhere = push(sender, &other, "nas3:photos");
    let dir = fs::metadata(photos.join("dir")).unwrap().ino();
    in_state(sender, &elsewhere, |_, path| ghosts::add(path, dir, "f"));
    sender.daemon.may_log(REFUSED);
    fill::file(photos.join("large"), 1, 24 << 20);
    hosts.link.set_after(Way::Up, 12 << 20, Rule::Cut);
    let interrupted = sender.ctl(&["push", "--retry-for=0s", "nas2:photos"]);
    interrupted.fails(3, &["nas2"]);
    hosts.link.set(Way::Up, Rule::Pass);
    let second = push(sender, receiver, "nas2:photos");
    assert_eq!(second["parent"], first["uuid"]);
    assert!(reason(&second).contains("captured whole"), "{second}");
    let log = sender.daemon.log();
    assert_eq!(log.matches(REFUSED).count(), 1, "{log}");
    assert_no_leftovers(sender, receiver);
}
