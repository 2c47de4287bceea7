//! A missing disk with volumes: what is kept on it is unknown, which is not the same as nothing.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::path::Path;

use sendshot_harness::disks::loopfs::{LoopFs, unmount_free};
use sendshot_harness::disks::mount::{self, Mount};
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::command::tool;
use sendshot_harness::hosts::pairing::Paired;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::fill;
use serde_json::Value;

const FORGET: [&str; 5] = ["forget", "nas2:photos", "--all", "--yes", "--break-chain"];

fn fsid(fs: &Path) -> String {
    let arguments = ["-n", "-o", "UUID", "--target", fs.to_str().unwrap()];
    tool("findmnt", &arguments).trim().to_owned()
}

fn unplug(sender: &SenderHost) {
    unmount_free(sender.fs()).unwrap();
    until::holds("the disk is free", || {
        mount::devices(sender.fs()).is_empty()
    });
}

fn plug_in(sender: &SenderHost) {
    mount::mount(&mount::image(sender.fs()), sender.fs(), "loop");
}

/// Returns the objects that a command prints: those found, and those not looked at.
fn jsons(sender: &SenderHost, arguments: &[&str]) -> (Vec<Value>, Vec<Value>) {
    let shown = sender.ctl(&[arguments, &["--json"]].concat()).success();
    let away = |object: &Value| object["not_looked_at"].is_object();
    let (away, found): (Vec<_>, Vec<_>) = shown.jsons().into_iter().partition(away);
    let away = away.into_iter().map(|mut one| one["not_looked_at"].take());
    (found, away.collect())
}

#[test]
fn a_disk_that_is_away_is_not_called_empty() {
    let hosts = Paired::new();
    let sender = &hosts.sender;
    fill::tree(&sender.photos(), 1);
    let nothing = sender.ctl(&["list"]).success();
    assert!(
        nothing.stderr.contains("no state is retained"),
        "{nothing:?}"
    );
    sender.push("nas2:photos");
    assert_eq!(jsons(sender, &["list"]).0.len(), 1);
    let (id, path) = (fsid(sender.fs()), sender.photos());
    let path = path.to_str().unwrap();
    unplug(sender);
    let commands: [&[&str]; 5] = [
        &["list"],
        &["list", "nas2:photos"],
        &["list", "--partials"],
        &["prune"],
        &["prune", "--dry-run"],
    ];
    for command in commands {
        let shown = sender.ctl(command).success();
        for text in ["not checked", &id, path, "last seen 2", "not mounted"] {
            assert!(
                shown.stderr.contains(text),
                "{command:?} `{text}`: {shown:?}"
            );
        }
        assert!(!shown.stderr.contains("no state is retained"), "{shown:?}");
        assert!(!shown.stderr.contains("no push was"), "{shown:?}");
        let (found, away) = jsons(sender, command);
        assert!(found.is_empty(), "{found:?}");
        let [away] = &away[..] else {
            panic!("{command:?}: {away:?}");
        };
        assert_eq!(away["filesystem"], *id);
        assert_eq!(away["path"], *path);
        assert_eq!(away["code"], "not-mounted");
        assert!(away["last_seen"].as_str().unwrap().ends_with('Z'), "{away}");
    }
    let texts = [
        "nothing of `nas2:photos`",
        &id,
        path,
        "not checked",
        "mount it",
    ];
    sender.ctl(&FORGET).fails(2, &texts);
    // A daemon that never saw the disk reads about it in the state directory.
    let mut hosts = hosts;
    hosts.sender.daemon.stop();
    hosts.sender.daemon.start();
    let sender = &hosts.sender;
    assert_eq!(jsons(sender, &["list"]).1[0]["filesystem"], *id);
    plug_in(sender);
    let (found, away) = jsons(sender, &FORGET);
    assert_eq!((found.len(), away.len()), (1, 0));
    let nothing = sender.ctl(&["prune"]).success();
    assert!(
        nothing.stderr.contains("no state is retained"),
        "{nothing:?}"
    );
}

#[test]
fn a_disk_that_is_gone_for_good_is_named_no_more() {
    let hosts = Paired::new();
    let sender = &hosts.sender;
    let pushed = sender.push("nas2:photos");
    let forget = |id: &str| sender.ctl(&["forget", "--filesystem", id]);
    let id = fsid(sender.fs());
    forget(&id).fails(4, &["is mounted"]);
    unplug(sender);
    forget("ffffffff").fails(2, &["no file system", "sendshotctl list"]);
    let (_, away) = jsons(sender, &["list"]);
    assert_eq!(away[0]["filesystem"], id.as_str());
    let done = forget(&id[..8]).success();
    assert!(done.stdout.contains(&id), "{done:?}");
    let (found, away) = jsons(sender, &["list"]);
    assert_eq!((found.len(), away.len()), (0, 0));
    // The disk itself is unchanged: when it is found after all, pushes continue.
    plug_in(sender);
    let again = sender.push("nas2:photos");
    assert_eq!(again["parent"], pushed["uuid"]);
}

#[test]
fn a_push_from_a_disk_that_is_away_says_so() {
    let hosts = Paired::new();
    let sender = &hosts.sender;
    sender.push("nas2:photos");
    let fsid = fsid(sender.fs());
    unplug(sender);
    // The mount point is missing, empty, or shows the directory under the mount.
    let away = [fsid.as_str(), "is not mounted there", "mount it"];
    sender.ctl(&["push", "nas2:photos"]).fails(2, &away);
    fs::create_dir(sender.photos()).unwrap();
    sender.ctl(&["push", "nas2:photos"]).fails(2, &away);
    fs::remove_dir(sender.photos()).unwrap();
    {
        let other = LoopFs::new(256 << 20, &[], "").unwrap();
        fs::create_dir(other.path().join("photos")).unwrap();
        let _instead = Mount::at(other.path(), sender.fs(), "bind");
        sender.ctl(&["push", "nas2:photos"]).fails(2, &away);
    }
    plug_in(sender);
    sender.push("nas2:photos");
}

#[test]
fn a_disk_that_is_mounted_elsewhere_is_looked_at_there() {
    let hosts = Paired::new();
    let sender = &hosts.sender;
    fill::tree(&sender.photos(), 1);
    sender.push("nas2:photos");
    unplug(sender);
    {
        let _elsewhere = Mount::private(&mount::image(sender.fs()), "loop");
        let (found, away) = jsons(sender, &["list"]);
        assert_eq!((found.len(), away.len()), (1, 0));
    }
    until::holds("the disk is free", || {
        mount::devices(sender.fs()).is_empty()
    });
    assert_eq!(jsons(sender, &["list"]).1.len(), 1);
    plug_in(sender);
}

#[test]
fn another_disk_at_the_mount_point_is_reported() {
    let hosts = Paired::new();
    let sender = &hosts.sender;
    fill::tree(&sender.photos(), 1);
    sender.push("nas2:photos");
    // The other disk is pushed from too, and stays.
    let other = LoopFs::new(256 << 20, &[], "").unwrap();
    streams::create(&other.path().join("photos")).unwrap();
    let target = format!("nas2:{}", other.path().join("photos").display());
    let there = sender.push(&target);
    unplug(sender);
    {
        let _instead = Mount::at(other.path(), sender.fs(), "bind");
        let (found, away) = jsons(sender, &["list"]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["uuid"], there["uuid"]);
        assert_eq!(away[0]["code"], "other-file-system-there");
        let reason = away[0]["reason"].as_str().unwrap();
        assert!(reason.contains(&fsid(other.path())), "{reason}");
        let shown = sender.ctl(&["list"]).success();
        assert!(shown.stderr.contains("another file system"), "{shown:?}");
        assert!(
            shown.stdout.contains("parent of the next push"),
            "{shown:?}"
        );
    }
    plug_in(sender);
    // The disk is mounted, but cannot be read.
    let top = Mount::private(&mount::devices(sender.fs())[0], "subvolid=5");
    let state = top.path().join(".sendshot");
    fs::rename(&state, top.path().join("aside")).unwrap();
    fs::write(&state, "no subvolume").unwrap();
    sender.daemon.may_log("look for this host's states");
    let (found, away) = jsons(sender, &["prune", "--dry-run"]);
    assert_eq!((found.len(), away.len()), (1, 1));
    assert_eq!(away[0]["code"], "look-failed");
    let reason = away[0]["reason"].as_str().unwrap();
    for told in ["not a subvolume of Sendshot", "subvolid=5", "move it away"] {
        assert!(reason.contains(told), "{reason}");
    }
}
