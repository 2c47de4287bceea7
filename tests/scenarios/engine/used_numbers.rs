//! Inode numbers that are reused after a mount: a number is no identity. Needs root.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sendshot_engine::format::entry::ROOT;
use sendshot_engine::format::error;
use sendshot_engine::{Frozen, Sendshot, WireNumber, capture, save_to};
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams;
use sendshot_harness::faults::snapshotless::{Snapshotless, State};
use sendshot_harness::trees::ghosts;

const SIZE: u64 = 1 << 30;

fn ino(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

/// Sends a state from another: captured whole and from the previous sendshot, it must be the same.
fn send_next(lab: &Snapshotless, before: &State, name: &str) -> State {
    let state = lab.take(name);
    lab.recapture(before, &state);
    lab.send(Some(before), &state);
    lab.forget(&state);
    state
}

#[test]
fn the_number_of_a_deleted_directory_goes_to_a_new_file() {
    let lab = Snapshotless::new(SIZE, "");
    let volume = lab.volume();
    fs::create_dir(volume.join("dir")).unwrap();
    fs::write(volume.join("dir/f"), "gone with it").unwrap();
    let number = ino(&volume.join("dir"));
    let first = lab.push(None, "s0");
    fs::remove_dir_all(volume.join("dir")).unwrap();
    lab.remount();
    fs::write(volume.join("new"), "new").unwrap();
    assert_eq!(ino(&volume.join("new")), number, "the kernel gave another");
    let second = send_next(&lab, &first, "s1");
    fs::write(volume.join("more"), "more").unwrap();
    send_next(&lab, &second, "s2");
}

#[test]
fn the_numbers_of_a_deleted_tree_go_to_things_of_every_kind() {
    let lab = Snapshotless::new(SIZE, "");
    let volume = lab.volume();
    let make = |round: u64| {
        for n in 0..40 {
            let dir = volume.join(format!("tree-{round}/{}/{n}", n % 7));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("file"), format!("{round} {n}")).unwrap();
        }
    };
    make(0);
    let mut before = lab.push(None, "s0");
    for round in 1..5 {
        fs::remove_dir_all(volume.join(format!("tree-{}", round - 1))).unwrap();
        lab.remount();
        for n in 0..(round * 23) % 60 {
            let path = volume.join(format!("{round}-{n}"));
            match (n + round) % 4 {
                0 => fs::write(path, "file").unwrap(),
                1 => fs::create_dir(path).unwrap(),
                2 => std::os::unix::fs::symlink("target", path).unwrap(),
                _ => {
                    let other = volume.join(format!("{round}-{n} too"));
                    fs::write(&other, "two names").unwrap();
                    fs::hard_link(other, path).unwrap();
                }
            }
        }
        make(round);
        before = send_next(&lab, &before, &format!("s{round}"));
    }
}

/// The name is the same as before: the same directory number, and the same file name.
#[test]
fn a_file_moves_into_a_directory_with_a_reused_number() {
    let lab = Snapshotless::new(SIZE, "");
    let volume = lab.volume();
    fs::write(volume.join("f"), "moved twice").unwrap();
    fs::create_dir(volume.join("dir")).unwrap();
    fs::rename(volume.join("f"), volume.join("dir/f")).unwrap();
    let number = ino(&volume.join("dir"));
    let first = lab.push(None, "s0");
    fs::rename(volume.join("dir/f"), volume.join("f")).unwrap();
    fs::remove_dir(volume.join("dir")).unwrap();
    lab.remount();
    fs::create_dir(volume.join("other")).unwrap();
    assert_eq!(
        ino(&volume.join("other")),
        number,
        "the kernel gave another"
    );
    fs::rename(volume.join("f"), volume.join("other/f")).unwrap();
    send_next(&lab, &first, "s1");
}

/// As above without a mount: a volume that is rolled back reuses the numbers of its lost future.
#[test]
fn a_rollback_puts_a_file_into_a_directory_of_equal_number() {
    let lab = Snapshotless::new(SIZE, "");
    let volume = lab.volume();
    fs::write(volume.join("f"), "in both").unwrap();
    let past = lab.snapshot("past");
    let make = |name: &str| {
        fs::create_dir(volume.join(name)).unwrap();
        fs::rename(volume.join("f"), volume.join(name).join("f")).unwrap();
        ino(&volume.join(name))
    };
    let number = make("future");
    let first = lab.push(None, "s0");
    streams::delete(&volume).unwrap();
    let arguments = ["subvolume", "snapshot"].map(std::ffi::OsStr::new);
    let paths = [past.as_os_str(), volume.as_os_str()];
    sendshot_harness::hosts::command::tool("btrfs", &[arguments, paths].concat());
    assert_eq!(make("present"), number, "the kernel gave another");
    let second = lab.take("s1");
    lab.send(Some(&first), &second);
}

#[test]
fn a_sendshot_with_an_orphan_name_is_detected() {
    let disk = LoopFs::new(SIZE, &[], "").unwrap();
    let volume = disk.path().join("volume");
    streams::create(&volume).unwrap();
    fs::write(volume.join("file"), "file").unwrap();
    let snapshot = disk.path().join("s");
    streams::snapshot(&volume, &snapshot).unwrap();
    let root = File::open(&snapshot).unwrap();
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("sendshot");
    capture(
        Frozen::snapshot(&root),
        WireNumber::Local,
        File::create(&path).unwrap(),
    )
    .unwrap();
    let sendshot = Sendshot::open(&path).unwrap();
    let doctored = files.path().join("doctored");
    let add_ghost = |parent| {
        fs::copy(&path, &doctored).unwrap();
        ghosts::add(&doctored, parent, "ghost");
    };
    add_ghost(ROOT);
    Sendshot::open(&doctored).unwrap();
    for parent in [ino(&volume.join("file")), 100_000] {
        add_ghost(parent);
        let error = Sendshot::open(&doctored).unwrap_err();
        assert!(matches!(error, error::Error::Orphan { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("a name in no directory"), "{text}");
    }
    let (saved, _) = save_to(Frozen::snapshot(&root), WireNumber::Local, None, &doctored).unwrap();
    assert_eq!(saved.counts(), sendshot.counts());
}
