//! `sendshot-apply` makes the same copy of a stream as `btrfs receive`, equal to the snapshot.
//! Needs root.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sendshot_apply::parent::Trust;
use sendshot_apply::receive::Options;
use sendshot_apply::{
    ClonePolicy, EncodedPolicy, Policies, Privileges, RunPolicy, Scope, Unsupported,
};
use sendshot_harness::compare::tree::{self, Layout};
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams::{self, Format};
use sendshot_harness::trees::history;

/// Size of the file systems, with room for the sparse files' data and all copies.
const SIZE: u64 = 4 << 30;

/// The policies of a normal receiver.
const DEFAULT: Policies = Policies {
    encoded: EncodedPolicy::Store,
    clone: ClonePolicy::Share,
    unsupported: Unsupported::Refuse,
    privileges: Privileges::Apply,
    runs: RunPolicy::USUAL,
};
/// The policies of a receiver whose kernel refuses encoded writes and clones.
const FALLBACK: Policies = Policies {
    encoded: EncodedPolicy::Decode,
    clone: ClonePolicy::Copy,
    unsupported: Unsupported::Refuse,
    privileges: Privileges::Apply,
    runs: RunPolicy::USUAL,
};

/// A file system with a history of two snapshots, s1 and s2.
struct Source {
    fs: LoopFs,
}

impl Source {
    fn new(mount_options: &str) -> Self {
        let fs = LoopFs::new(SIZE, &[], mount_options).unwrap();
        let live = fs.path().join("live");
        streams::create(&live).unwrap();
        history::first(&live).unwrap();
        streams::snapshot(&live, &fs.path().join("s1")).unwrap();
        history::second(&live).unwrap();
        streams::snapshot(&live, &fs.path().join("s2")).unwrap();
        Self { fs }
    }

    fn snapshot(&self, name: &str) -> PathBuf {
        self.fs.path().join(name)
    }

    /// A full stream and the incremental one that follows it.
    fn streams(&self, format: Format) -> [Vec<u8>; 2] {
        let (s1, s2) = (self.snapshot("s1"), self.snapshot("s2"));
        [
            streams::send(format, None, &s1).unwrap(),
            streams::send(format, Some(&s1), &s2).unwrap(),
        ]
    }
}

fn receive(stream: &[u8], dir: &Path, policies: Policies) {
    let options = Options {
        scope: Scope::default(),
        trust: Trust::Strict,
        policies,
    };
    let dir = File::open(dir).unwrap();
    sendshot_apply::receive(stream, &dir, options, |_| {})
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(e) = source {
        text.push_str(&format!(": {e}"));
        source = e.source();
    }
    text
}

/// Mistakes of stock receive: new inodes keep what they inherit from the directory in which the
/// stream first makes them, which is the root with its default ACL.
const WRONG_IN_STOCK: [&str; 2] = [
    "meta/plain-in-default: xattrs",
    "meta/plain-in-default/f: xattrs",
];

fn assert_same_as_stock(stock: &Path, ours: &Path) {
    let mut differences = tree::compare_with(stock, ours, Layout::Holes).unwrap();
    let all = differences.len();
    differences.retain(|line| !WRONG_IN_STOCK.iter().any(|wrong| line.starts_with(wrong)));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(
        all > 0,
        "stock receive has learnt it: forget WRONG_IN_STOCK"
    );
}

fn assert_same(a: &Path, b: &Path, layout: Layout) {
    let differences = tree::compare_with(a, b, layout).unwrap();
    let (a, b) = (a.display(), b.display());
    assert!(
        differences.is_empty(),
        "{a} / {b}:\n{}",
        differences.join("\n")
    );
}

fn subdirectory(fs: &LoopFs, name: &str) -> PathBuf {
    let dir = fs.path().join(name);
    fs::create_dir(&dir).unwrap();
    dir
}

/// Receives full and incremental streams of all formats with stock receive and with both policies.
fn check(mount_options: &str) {
    let source = Source::new(mount_options);
    for format in [Format::V1, Format::V2, Format::V2Compressed] {
        let target = LoopFs::new(SIZE, &[], "").unwrap();
        let stock = subdirectory(&target, "stock");
        let ours = subdirectory(&target, "ours");
        let fallback = subdirectory(&target, "fallback");
        for (stream, name) in source.streams(format).iter().zip(["s1", "s2"]) {
            streams::stock_receive(stream, &stock).unwrap();
            receive(stream, &ours, DEFAULT);
            receive(stream, &fallback, FALLBACK);
            assert_same(&source.snapshot(name), &ours.join(name), Layout::Ignore);
            assert_same_as_stock(&stock.join(name), &ours.join(name));
            assert_same(&source.snapshot(name), &fallback.join(name), Layout::Ignore);
        }
        for dir in [&ours, &fallback] {
            assert!(!dir.join(".sendshot-staging").exists());
        }
    }
}

#[test]
fn uncompressed() {
    check("");
}

#[test]
fn compressed_with_zstd() {
    check("compress-force=zstd");
}

#[test]
fn compressed_with_zlib() {
    check("compress-force=zlib");
}

#[test]
fn compressed_with_lzo() {
    check("compress-force=lzo");
}

/// Stock receive cannot make these: its own prefix makes the path too long for the kernel.
#[test]
fn paths_as_long_as_they_can_be() {
    let source = LoopFs::new(1 << 30, &[], "").unwrap();
    let live = source.path().join("live");
    streams::create(&live).unwrap();
    // Made by moving, as no system call takes the whole path together with its prefix.
    history::deep(&live, 15).unwrap();
    let rest = "/deep".len() + 15 * 256 + "/bottom".len();
    let upper = live.join("u".repeat(4095 - rest));
    fs::create_dir(&upper).unwrap();
    fs::rename(live.join("deep"), upper.join("deep")).unwrap();
    let snapshot = source.path().join("s1");
    streams::snapshot(&live, &snapshot).unwrap();

    let target = LoopFs::new(1 << 30, &[], "").unwrap();
    let stream = streams::send(Format::V2, None, &snapshot).unwrap();
    receive(&stream, target.path(), DEFAULT);
    assert_same(&snapshot, &target.path().join("s1"), Layout::Holes);
}

/// Copies in a directory whose new files are NOCOW must not be NOCOW: the kernel refuses to clone
/// between files with and without checksums, and compression would be lost.
#[test]
fn copies_inherit_nothing_from_the_target_directory() {
    use sendshot_harness::disks::loopfs::run;
    use std::process::Command;

    let source = Source::new("compress-force=zstd");
    let target = LoopFs::new(SIZE, &[], "").unwrap();
    let dir = subdirectory(&target, "dir");
    run(Command::new("setfacl")
        .args(["-d", "-m", "u:4242:rwx"])
        .arg(&dir))
    .unwrap();
    run(Command::new("chattr").arg("+C").arg(&dir)).unwrap();
    for (stream, name) in source
        .streams(Format::V2Compressed)
        .iter()
        .zip(["s1", "s2"])
    {
        receive(stream, &dir, DEFAULT);
        assert_same(&source.snapshot(name), &dir.join(name), Layout::Ignore);
    }
    let flags = sendshot_harness::disks::loopfs::output(
        Command::new("lsattr").arg(dir.join("s1/plain/noise")),
    );
    let flags = String::from_utf8(flags.unwrap()).unwrap();
    let flags = flags.split_whitespace().next().unwrap();
    assert!(!flags.contains('C'), "{flags}");
}

/// A fallback that is always used would also make correct copies, but slow and large ones.
#[test]
fn compressed_extents_are_stored_as_they_come() {
    let source = Source::new("compress-force=zstd");
    let target = LoopFs::new(SIZE, &[], "").unwrap();
    let [stream, _] = source.streams(Format::V2Compressed);
    let (stored, decoded) = (
        subdirectory(&target, "stored"),
        subdirectory(&target, "decoded"),
    );
    receive(&stream, &stored, DEFAULT);
    receive(&stream, &decoded, FALLBACK);
    let blocks = |dir: &Path| {
        use std::os::unix::fs::MetadataExt;
        let path = dir.join("s1/plain/text300001");
        let out = sendshot_harness::disks::loopfs::output(
            std::process::Command::new("filefrag").arg("-v").arg(&path),
        );
        let text = String::from_utf8(out.unwrap()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().size(), 300_001);
        text.matches("encoded").count()
    };
    assert!(blocks(&stored) > 0);
    assert_eq!(blocks(&decoded), 0);
}
