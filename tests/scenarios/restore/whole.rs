//! A whole volume comes back beside the old one.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::path::Path;

use sendshot_harness::compare::exact::{Reference, assert_same};
use sendshot_harness::compare::subvolumes::{self, assert_no_leftovers};
use sendshot_harness::hosts::command;
use sendshot_harness::hosts::pairing::Paired;
use sendshot_harness::trees::{every_file_kind, fill};

fn paired() -> Paired {
    let hosts = Paired::new();
    hosts.receiver.grant("nas1");
    hosts
}

fn push(hosts: &Paired) -> serde_json::Value {
    hosts
        .sender
        .ctl(&["--json", "push", "nas2:photos"])
        .success()
        .json()
}

fn restore(hosts: &Paired, arguments: &[&str]) -> serde_json::Value {
    let all: Vec<&str> = ["--json"]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    hosts.sender.restore(&all).success().json()
}

/// Compares a restored, writable subvolume with what it must be. A snapshot is compared, since reading the subvolume
/// changes its access times.
#[track_caller]
fn assert_restored(hosts: &Paired, expected: &Path, restored: &Path) {
    let snapshot = Reference::of(hosts.sender.fs(), restored);
    assert_same(expected, snapshot.path());
}

#[test]
fn every_kind_of_file_comes_back() {
    let hosts = paired();
    every_file_kind::fill(&hosts.sender.photos());
    let first = Reference::of(hosts.sender.fs(), &hosts.sender.photos());
    let pushed = push(&hosts);
    every_file_kind::change(&hosts.sender.photos());
    let second = Reference::of(hosts.sender.fs(), &hosts.sender.photos());
    push(&hosts);
    let new = hosts.sender.fs().join("new");
    let restored = restore(&hosts, &["nas2:photos", new.to_str().unwrap()]);
    assert_restored(&hosts, second.path(), &new);
    assert_eq!(restored["checked"]["own_sendshot"], true, "{restored}");
    assert_eq!(restored["resumed_at"], serde_json::Value::Null);
    let old = hosts.sender.fs().join("old");
    let name = pushed["copy"]
        .as_str()
        .unwrap()
        .rsplit('/')
        .next()
        .unwrap()
        .to_owned();
    restore(
        &hosts,
        &["nas2:photos", "--at", &name, old.to_str().unwrap()],
    );
    assert_restored(&hosts, first.path(), &old);
    // It is a volume of its own: writable, and without a chain.
    fs::write(new.join("written"), "x").unwrap();
    let all = subvolumes::list(hosts.sender.fs());
    let made = all.iter().find(|s| s.path.ends_with("new")).unwrap();
    assert_eq!(made.received_uuid, "-");
    drop((first, second));
    for path in [&new, &old] {
        command::tool(
            "btrfs",
            &["subvolume".as_ref(), "delete".as_ref(), path.as_os_str()],
        );
    }
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn an_empty_directory_is_filled_and_nothing_else() {
    let hosts = paired();
    fill::tree(&hosts.sender.photos(), 1);
    push(&hosts);
    let at = |name: &str| hosts.sender.fs().join(name);
    fs::create_dir(at("empty")).unwrap();
    restore(&hosts, &["nas2:photos", at("empty").to_str().unwrap()]);
    assert_restored(&hosts, &hosts.sender.photos(), &at("empty"));
    fs::create_dir(at("full")).unwrap();
    fs::write(at("full/mine"), "x").unwrap();
    fs::write(at("file"), "x").unwrap();
    std::os::unix::fs::symlink("empty", at("link")).unwrap();
    for taken in ["full", "file", "link", "empty"] {
        let path = at(taken);
        hosts
            .sender
            .restore(&["nas2:photos".as_ref(), path.as_os_str()])
            .fails(
                2,
                &["exists and is not an empty directory", "overwrites nothing"],
            );
    }
    assert_eq!(fs::read_to_string(at("full/mine")).unwrap(), "x");
    let nowhere = at("no/such");
    hosts
        .sender
        .restore(&["nas2:photos".as_ref(), nowhere.as_os_str()])
        .fails(2, &["the directory of the target must exist"]);
    hosts
        .sender
        .restore(&["nas2:photos", "/dev/shm/sendshot-no-btrfs"])
        .fails(2, &["/dev/shm is not on btrfs", "--path"]);
}

#[test]
fn copies_are_listed_and_chosen_by_time() {
    let hosts = paired();
    fill::tree(&hosts.sender.photos(), 1);
    let first = push(&hosts);
    fs::write(hosts.sender.photos().join("more"), "x").unwrap();
    let second = push(&hosts);
    let listed = hosts
        .sender
        .restore(&["--json", "--list", "nas2"])
        .success()
        .json();
    assert_eq!(listed["volume"], "photos");
    let copies = listed["copies"].as_array().unwrap();
    let uuids: Vec<_> = copies.iter().map(|copy| copy["uuid"].clone()).collect();
    assert_eq!(uuids, [first["uuid"].clone(), second["uuid"].clone()]);
    assert!(copies[0]["received_bytes"].as_u64() > copies[1]["received_bytes"].as_u64());
    let table = hosts
        .sender
        .restore(&["--list", "nas2:photos"])
        .success()
        .stdout;
    assert!(
        table.contains("photos") && table.contains("RECEIVED"),
        "{table}"
    );
    hosts.sender.restore(&["--list", "nas2:videos"]).fails(
        2,
        &["nas2 has no volume `videos` of this host; it has photos"],
    );
    let target = hosts.sender.fs().join("x");
    hosts
        .sender
        .restore(&[
            "nas2:photos",
            "--at",
            "1999-12-31",
            target.to_str().unwrap(),
        ])
        .fails(2, &["no copy is as old as 1999-12-31", "the oldest is"]);
    hosts
        .sender
        .restore(&["nas3:photos", target.to_str().unwrap()])
        .fails(2, &["receiver `nas3` is not paired", "sendshotctl pair"]);
    let uuid = second["uuid"].as_str().unwrap();
    let restored = restore(
        &hosts,
        &["nas2:photos", "--at", &uuid[..8], target.to_str().unwrap()],
    );
    assert_eq!(restored["uuid"], uuid);
}

#[test]
fn too_little_room_is_refused_before_the_first_byte() {
    let hosts = paired();
    fill::file(hosts.sender.photos().join("big"), 1, 300 << 20);
    push(&hosts);
    let small = sendshot_harness::disks::loopfs::LoopFs::new(200 << 20, &[], "").unwrap();
    let target = small.path().join("new");
    let free = || command::tool("df", &["--output=avail".as_ref(), small.path().as_os_str()]);
    let before = free();
    let refused = hosts
        .sender
        .restore(&["nas2:photos".as_ref(), target.as_os_str()])
        .fails(
            1,
            &["the copy needs 30", "are free at", "nothing was fetched"],
        );
    assert!(!refused.stderr.contains("fetch "), "{}", refused.stderr);
    assert_eq!(before, free());
    assert!(fs::read_dir(small.path()).unwrap().next().is_none());
}
