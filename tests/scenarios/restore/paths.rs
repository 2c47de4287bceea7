//! Single files and directories come back, to any file system.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::process::Signal;
use sendshot_harness::compare::tree;
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::command::Running;
use sendshot_harness::hosts::pairing::{Linked, Paired};
use sendshot_harness::hosts::until;
use sendshot_harness::trees::{every_file_kind, fill};

fn hosts() -> Paired {
    let hosts = Paired::new();
    hosts.receiver.grant("nas1");
    let photos = hosts.sender.photos();
    fs::create_dir_all(photos.join("2019/trip")).unwrap();
    fill::tree(&photos.join("2019/trip"), 1);
    fs::write(photos.join("notes.txt"), "remember").unwrap();
    fs::hard_link(photos.join("notes.txt"), photos.join("2019/trip/linked")).unwrap();
    fs::write(photos.join("program"), "x").unwrap();
    fs::set_permissions(photos.join("program"), fs::Permissions::from_mode(0o4755)).unwrap();
    hosts.sender.ctl(&["push", "nas2:photos"]).success();
    hosts
}

fn arguments<'a>(paths: &[&'a str], target: &'a Path) -> Vec<&'a str> {
    let mut all = vec!["--json", "nas2:photos", target.to_str().unwrap()];
    for path in paths {
        all.extend(["--path", path]);
    }
    all
}

#[track_caller]
fn assert_same(expected: &Path, found: &Path) {
    let differences = tree::compare(expected, found).unwrap();
    // Comparing reads links, which changes their times of access.
    let real: Vec<_> = differences
        .iter()
        .filter(|line| !line.contains("atime"))
        .collect();
    assert!(real.is_empty(), "{real:#?}");
}

#[test]
fn paths_come_back_under_their_last_names() {
    let hosts = hosts();
    let out = hosts.sender.fs().join("out");
    let all = arguments(&["2019/trip", "notes.txt"], &out);
    let restored = hosts.sender.restore(&all).success().json();
    assert_same(&hosts.sender.photos().join("2019/trip"), &out.join("trip"));
    assert_eq!(
        fs::read_to_string(out.join("notes.txt")).unwrap(),
        "remember"
    );
    assert_eq!(
        restored["left_out"].as_array().unwrap().len(),
        0,
        "{restored}"
    );
    // The rest of the copy does not come over the network.
    assert!(fs::read_dir(&out).unwrap().count() == 2);
    // What exists is not touched.
    fs::write(out.join("notes.txt"), "mine").unwrap();
    let again = arguments(&["notes.txt"], &out);
    hosts
        .sender
        .restore(&again)
        .fails(2, &["notes.txt exists", "overwrites nothing"]);
    assert_eq!(fs::read_to_string(out.join("notes.txt")).unwrap(), "mine");
    hosts
        .sender
        .restore(&arguments(&["2019/nothing"], &out))
        .fails(2, &["2019/nothing does not exist"]);
    hosts
        .sender
        .restore(&arguments(&["2019/trip", "trip"], &out))
        .fails(2, &["two of the paths are called trip"]);
    hosts
        .sender
        .restore(&arguments(&["../x"], &out))
        .fails(1, &["paths"]);
}

#[test]
fn set_id_bits_come_only_on_request() {
    let hosts = hosts();
    let out = hosts.sender.fs().join("out");
    let restored = hosts.sender.restore(&arguments(&["program"], &out));
    assert_eq!(restored.code, 5, "{restored:?}");
    assert!(restored.stdout.contains("set_id"), "{restored:?}");
    assert_eq!(
        fs::metadata(out.join("program")).unwrap().mode() & 0o7777,
        0o755
    );
    let out = hosts.sender.fs().join("as-is");
    let mut all = arguments(&["program"], &out);
    all.push("--as-is");
    hosts.sender.restore(&all).success();
    assert_eq!(
        fs::metadata(out.join("program")).unwrap().mode() & 0o7777,
        0o4755
    );
}

#[test]
fn a_target_on_another_file_system_gets_the_data() {
    let hosts = Paired::new();
    hosts.receiver.grant("nas1");
    let kinds = hosts.sender.photos().join("kinds");
    fs::create_dir(&kinds).unwrap();
    fill::tree(&kinds, 1);
    every_file_kind::fill(&hosts.sender.photos());
    hosts.sender.ctl(&["push", "nas2:photos"]).success();
    let tmpfs = tempfile::Builder::new()
        .prefix("sendshot-test-")
        .tempdir_in("/dev/shm")
        .unwrap();
    let restored = hosts.sender.restore(&arguments(&["kinds"], tmpfs.path()));
    assert!([0, 5].contains(&restored.code), "{restored:?}");
    let differences = tree::compare(&kinds, &tmpfs.path().join("kinds")).unwrap();
    let content: Vec<_> = differences
        .iter()
        .filter(|line| line.contains("content") || line.contains("exists only in"))
        .collect();
    assert!(content.is_empty(), "{content:#?}");
}

#[test]
fn no_link_in_the_target_is_followed() {
    let hosts = hosts();
    let out = hosts.sender.fs().join("out");
    let elsewhere = hosts.sender.fs().join("elsewhere");
    fs::create_dir(&out).unwrap();
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, out.join("trip")).unwrap();
    hosts
        .sender
        .restore(&arguments(&["2019/trip"], &out))
        .fails(2, &["trip exists"]);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn a_killed_restore_leaves_each_path_absent() {
    let hosts = Linked::new();
    hosts.receiver.grant("nas1");
    fill::file(hosts.sender.photos().join("big"), 1, 24 << 20);
    hosts.sender.ctl(&["push", "nas2:photos"]).success();
    let out = hosts.sender.fs().join("out");
    hosts.link.set(Way::Down, Rule::Slow(16 << 20));
    let before = hosts.link.bytes(Way::Down);
    let mut command = hosts.sender.restore_command(&arguments(&["big"], &out));
    let restore = Running::start(&mut command);
    until::holds("half of it has come", || {
        hosts.link.bytes(Way::Down) > before + (12 << 20)
    });
    restore.signal_children(Signal::KILL);
    restore.finish().fails(1, &["ended without a result"]);
    assert!(!out.join("big").exists());
    hosts.link.set(Way::Down, Rule::Pass);
    hosts.sender.restore(&arguments(&["big"], &out)).success();
    let big = fs::read(hosts.sender.photos().join("big")).unwrap();
    assert!(fs::read(out.join("big")).unwrap() == big);
    assert_eq!(
        fs::read_dir(&out).unwrap().count(),
        1,
        "the directory of the killed one stays"
    );
}

#[test]
fn a_path_within_another_is_refused_by_name() {
    let hosts = hosts();
    let out = hosts.sender.fs().join("out");
    hosts
        .sender
        .restore(&arguments(&["2019", "2019/trip"], &out))
        .fails(2, &["2019/trip lies in 2019", "leave the inner path out"]);
    assert!(!out.join("trip").exists());
}
