//! Obstacles to `stream receive` are named precisely, with a remedy. Needs root.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::mount::{self, Mount};
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::binaries;
use sendshot_harness::hosts::command::{Output, run, tool};
use sendshot_harness::trees::fill;
use tempfile::TempDir;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn ctl(arguments: &[&str]) -> Output {
    run(Command::new(binaries::path("sendshotctl")).args(arguments))
}

/// A file system to receive into, and one with the snapshots that are sent.
struct Pair {
    from: LoopFs,
    to: LoopFs,
    files: TempDir,
}

impl Pair {
    fn new(to: u64) -> Self {
        let pair = Self {
            from: LoopFs::new(1 << 30, &[], "").unwrap(),
            to: LoopFs::new(to, &[], "").unwrap(),
            files: tempfile::tempdir_in("/dev/shm").unwrap(),
        };
        streams::create(&pair.from.path().join("live")).unwrap();
        pair
    }

    fn snapshot(&self, name: &str, bytes: usize) -> PathBuf {
        let live = self.from.path().join("live");
        fill::file(live.join(name), 1, bytes);
        let snapshot = self.from.path().join(name);
        streams::snapshot(&live, &snapshot).unwrap();
        snapshot
    }

    /// Writes a stream to a file.
    fn stream(&self, snapshot: &Path, more: &[&str]) -> PathBuf {
        let name = snapshot.file_name().unwrap();
        let file = self.files.path().join(name);
        let arguments = ["stream", "send", "-f", text(&file), text(snapshot)];
        ctl(&[&arguments[..], more].concat()).success();
        file
    }
}

fn receive(stream: &Path, dir: &Path, more: &[&str]) -> Output {
    ctl(&[&["stream", "receive", "-f", text(stream), text(dir)], more].concat())
}

fn remount(dir: &Path, how: &str) {
    tool("mount", &["-o", how, text(dir)]);
}

#[test]
fn read_only_obstacles_are_distinguished() {
    let pair = Pair::new(256 << 20);
    let stream = pair.stream(&pair.snapshot("one", 5000), &[]);
    let to = pair.to.path();
    remount(to, "remount,ro");
    let texts = [
        text(to),
        "its file system is mounted read-only",
        "help: mount it read-write",
    ];
    receive(&stream, to, &[]).fails(2, &texts);
    remount(to, "remount,rw");

    let seen = tempfile::tempdir_in("/dev/shm").unwrap();
    {
        let mounted = Mount::at(to, seen.path(), "bind");
        remount(mounted.path(), "remount,bind,ro");
        let texts = [
            "though its file system is not read-only",
            "help: remount it read-write",
        ];
        receive(&stream, mounted.path(), &[]).fails(2, &texts);
    }

    let inside = to.join("inside");
    streams::create(&inside).unwrap();
    tool("btrfs", &["property", "set", text(&inside), "ro", "true"]);
    let texts = ["read-only subvolume", "help:", "btrfs property set"];
    receive(&stream, &inside, &[]).fails(2, &texts);
    receive(&stream, to, &[]).success();
}

#[test]
fn something_else_in_place_of_the_staging_directory_is_named() {
    let pair = Pair::new(256 << 20);
    let stream = pair.stream(&pair.snapshot("one", 5000), &[]);
    let staging = pair.to.path().join(".sendshot-staging");
    std::os::unix::fs::symlink(pair.from.path(), &staging).unwrap();
    let texts = [
        text(&staging),
        "is a symbolic link",
        "help:",
        "move it away",
    ];
    receive(&stream, pair.to.path(), &[]).fails(1, &texts);
    fs::remove_file(&staging).unwrap();
    fs::write(&staging, "").unwrap();
    receive(&stream, pair.to.path(), &[]).fails(1, &[text(&staging), "is a regular file"]);
}

#[test]
fn a_file_system_that_fills_is_to_be_given_space() {
    let pair = Pair::new(128 << 20);
    let stream = pair.stream(&pair.snapshot("large", 140 << 20), &[]);
    let texts = [
        "No space left",
        "help: this file system is full",
        "free space",
    ];
    receive(&stream, pair.to.path(), &[]).fails(1, &texts);
}

/// A removed device node, which is restored on drop.
struct Gone(PathBuf, [String; 2]);

impl Gone {
    fn new(device: PathBuf) -> Self {
        let number = fs::metadata(&device).unwrap().rdev();
        let numbers = [rustix::fs::major(number), rustix::fs::minor(number)];
        fs::remove_file(&device).unwrap();
        Self(device, numbers.map(|number| number.to_string()))
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        let mut make = Command::new("mknod");
        make.args(["-m", "660"]).arg(&self.0).arg("b").args(&self.1);
        let _ = run(&mut make);
    }
}

#[test]
fn a_top_level_that_cannot_be_mounted_has_a_remedy() {
    let pair = Pair::new(256 << 20);
    let one = pair.snapshot("one", 5000);
    let first = pair.stream(&one, &[]);
    let second = pair.stream(&pair.snapshot("two", 5000), &["-p", text(&one)]);
    let [there, dir] = ["there", "in"].map(|name| pair.to.path().join(name));
    for dir in [&there, &dir] {
        fs::create_dir(dir).unwrap();
    }
    receive(&first, &there, &[]).success();
    // The same happens in a container that has the mount but not the device.
    let device = mount::devices(pair.to.path())[0].clone();
    let allow = format!("DeviceAllow={}", device.display());
    let gone = Gone::new(device);
    let refused = receive(&second, &dir, &["--parents-anywhere"]);
    drop(gone);
    refused.fails(
        1,
        &["through the top level", "no device node", "help:", &allow],
    );
    receive(&second, &dir, &["--parents-anywhere"]).success();
}
