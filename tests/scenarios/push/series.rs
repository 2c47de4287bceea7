//! A series of read-only snapshots, made by any tool, as one volume.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sendshot_harness::compare::exact::assert_same;
use sendshot_harness::disks::streams;
use sendshot_harness::faults::link::Way;
use sendshot_harness::hosts::command;
use sendshot_harness::hosts::pairing::Linked;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::trees::fill;
use serde_json::Value;

const MIB: u64 = 1 << 20;
const BIG: usize = 16 << 20;

struct Series {
    hosts: Linked,
    made: Vec<PathBuf>,
}

fn btrfs(arguments: &[&str], paths: &[&Path]) {
    command::run(Command::new("btrfs").args(arguments).args(paths)).success();
}

impl Series {
    fn new() -> Self {
        let mut sender = SenderHost::setup().volume("home", "home").make();
        fs::create_dir(sender.fs().join(".snapshots")).unwrap();
        let pattern = sender.fs().join(".snapshots/*/snapshot");
        let table = format!("[volumes.x]\nsnapshots = \"{}\"\n", pattern.display());
        fs::write(sender.config(), format!("retry_for = \"0s\"\n{table}")).unwrap();
        sender.daemon.start();
        let hosts = Linked::of(sender);
        fill::file(hosts.sender.fs().join("home/big"), 1, BIG);
        Self {
            hosts,
            made: Vec::new(),
        }
    }

    /// Changes the volume and takes the next snapshot. Later snapshots have lower numbers.
    fn snapshot(&mut self) -> PathBuf {
        let fs_path = self.hosts.sender.fs();
        let n = self.made.len() as u64;
        fill::file(fs_path.join(format!("home/new{n}")), n, 5000);
        let dir = fs_path.join(format!(".snapshots/{}", 100 - n));
        fs::create_dir(&dir).unwrap();
        let path = dir.join("snapshot");
        streams::snapshot(&fs_path.join("home"), &path).unwrap();
        self.made.push(path.clone());
        path
    }

    /// Pushes; returns the report and the bytes that crossed the link.
    #[track_caller]
    fn push(&self) -> (Value, u64) {
        let link = &self.hosts.link;
        let before = link.bytes(Way::Up) + link.bytes(Way::Down);
        let pushed = self.hosts.sender.push("nas2:x");
        (pushed, link.bytes(Way::Up) + link.bytes(Way::Down) - before)
    }

    /// Lists the copies at the receiver, oldest first.
    fn copies(&self) -> Vec<PathBuf> {
        let copies = self.hosts.receiver.ctl(&["copy", "list", "--json"]);
        let copies = copies.success().jsons();
        let mut paths: Vec<PathBuf> = copies
            .iter()
            .map(|c| c["path"].as_str().unwrap().into())
            .collect();
        paths.sort_by_key(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            let (time, n) = name.split_at(16);
            (
                time.to_owned(),
                n.trim_start_matches('-').parse::<u32>().unwrap_or(1),
            )
        });
        paths
    }

    #[track_caller]
    fn all_are_there(&self) {
        let copies = self.copies();
        assert_eq!(copies.len(), self.made.len(), "{copies:#?}");
        for (snapshot, copy) in self.made.iter().zip(&copies) {
            assert_same(snapshot, copy);
            assert!(
                copy.starts_with(self.hosts.receiver.root().join("nas1/x")),
                "{copy:?}"
            );
        }
    }
}

#[test]
fn a_series_is_sent_oldest_first_and_incrementally() {
    let mut series = Series::new();
    let refused = series.hosts.sender.ctl(&["push", "nas2:x"]);
    refused.fails(2, &["no read-only snapshot", ".snapshots/*/snapshot"]);
    // A match that is no read-only snapshot is reported as such.
    let odd = series.hosts.sender.fs().join(".snapshots/odd");
    fs::create_dir_all(odd.join("snapshot")).unwrap();
    let refused = series.hosts.sender.ctl(&["push", "nas2:x"]);
    refused.fails(2, &["one other thing", "odd/snapshot", "ro true"]);
    fs::remove_dir_all(&odd).unwrap();
    for _ in 0..4 {
        series.snapshot();
    }
    let (pushed, crossed) = series.push();
    assert_eq!(pushed["earlier"].as_array().unwrap().len(), 3, "{pushed:#}");
    assert!(crossed < BIG as u64 + MIB, "{crossed}");
    series.all_are_there();
    let (again, crossed) = series.push();
    assert_eq!(again["stream_bytes"], 0, "{again:#}");
    assert!(crossed < MIB / 8, "{crossed}");
    series.snapshot();
    let (pushed, crossed) = series.push();
    assert!(pushed["earlier"].is_null(), "{pushed:#}");
    assert!(!pushed["parent"].is_null() && crossed < MIB, "{pushed:#}");
    series.all_are_there();
}

#[test]
fn a_copy_that_was_deleted_there_is_not_sent_again() {
    let mut series = Series::new();
    for _ in 0..3 {
        series.snapshot();
    }
    series.push();
    let copies = series.copies();
    btrfs(&["subvolume", "delete"], &[&copies[0]]);
    btrfs(&["subvolume", "delete"], &[&copies[1]]);
    let (again, crossed) = series.push();
    assert_eq!(again["stream_bytes"], 0, "{again:#}");
    assert!(crossed < MIB / 8, "{crossed}");
    let text = series.hosts.sender.ctl(&["push", "nas2:x"]).success();
    assert!(
        text.stdout.contains("has acknowledged every snapshot"),
        "{text:?}"
    );
    let newest = series.snapshot();
    let (pushed, crossed) = series.push();
    assert!(crossed < MIB, "{pushed:#}");
    assert_same(&newest, &series.hosts.receiver.copy(&pushed));
    assert_eq!(series.copies().len(), 2);
    // The same holds after a reinstallation: the list is stored with the snapshots.
    let sender = &mut series.hosts.sender;
    sender.daemon.stop();
    fs::remove_file(sender.daemon.state_dir().join("volumes.json")).unwrap();
    sender.daemon.start();
    let (again, _) = series.push();
    assert_eq!(again["stream_bytes"], 0, "{again:#}");
}

#[test]
fn a_series_stays_one_volume_after_a_rollback() {
    let mut series = Series::new();
    for _ in 0..2 {
        series.snapshot();
    }
    series.push();
    // As snapper does: the volume is replaced by a writable snapshot of an older state.
    let home = series.hosts.sender.fs().join("home");
    btrfs(&["subvolume", "delete"], &[&home]);
    btrfs(&["subvolume", "snapshot"], &[&series.made[0], &home]);
    series.snapshot();
    let (pushed, crossed) = series.push();
    assert!(!pushed["parent"].is_null() && crossed < MIB, "{pushed:#}");
    series.all_are_there();
}

#[test]
fn a_series_without_a_new_snapshot_is_confirmed_to_the_receiver() {
    let mut series = Series::new();
    series.snapshot();
    series.push();
    let confirmed = |series: &Series| {
        let status = series.hosts.receiver.ctl(&["--json", "status"]);
        let mut status = status.success().jsons();
        status.remove(0)["volumes"][0]["confirmed_at"].clone()
    };
    assert_eq!(confirmed(&series), Value::Null);
    // Whatever makes the snapshots may have stopped: its silence has to be heard on both sides.
    let config = series.hosts.sender.config();
    let before = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{before}max_age = '1s'\n")).unwrap();
    series.hosts.sender.daemon.reload("configuration reloaded");
    std::thread::sleep(std::time::Duration::from_millis(2500));
    series.push();
    assert_eq!(confirmed(&series), Value::Null);
    let check = series.hosts.sender.ctl(&["check"]);
    check.fails(2, &[]);
    fs::write(&config, before).unwrap();
    series.hosts.sender.daemon.reload("configuration reloaded");
    series.push();
    assert!(confirmed(&series).is_string());
}
