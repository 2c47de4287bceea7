//! Streams of single paths: both receivers must make exactly the same part of the snapshot. The reference is a
//! writable snapshot from which everything else was deleted.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::IFlags;
use sendshot_engine::diff::Version;
use sendshot_engine::format::subtree::Error;
use sendshot_engine::stream::Pages;
use sendshot_engine::stream::measure::measure;
use sendshot_engine::{Frozen, Sendshot, Source, WireNumber, save_to, stream, subtree};
use sendshot_harness::compare::chain::Receivers;
use sendshot_harness::compare::{extents, inode_flags};
use sendshot_harness::disks::loopfs::{LoopFs, run};
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::command::tool;
use sendshot_harness::trees::random::Random;
use sendshot_harness::trees::{changes, every_file_kind, fill};

/// Random trees in every run of the tests.
const TREES: u64 = 12;
/// Changes that make a random tree.
const CHANGES: u64 = 250;

struct Volume {
    disk: LoopFs,
    receivers: Receivers,
    files: tempfile::TempDir,
    parts: usize,
}

/// A part of a snapshot on both receivers.
struct Part {
    stock: PathBuf,
    ours: PathBuf,
    commands: BTreeMap<&'static str, u64>,
}

impl Volume {
    fn new(mount: &str) -> Self {
        let disk = LoopFs::new(1 << 30, &[], mount).unwrap();
        streams::create(&disk.path().join("volume")).unwrap();
        Self {
            disk,
            receivers: Receivers::new().unwrap(),
            files: tempfile::tempdir().unwrap(),
            parts: 0,
        }
    }

    fn root(&self) -> PathBuf {
        self.disk.path().join("volume")
    }

    fn snapshot(&self) -> PathBuf {
        self.disk.path().join("snapshot")
    }

    fn capture(&self) -> Sendshot {
        streams::snapshot(&self.root(), &self.snapshot()).unwrap();
        let root = File::open(self.snapshot()).unwrap();
        let path = self.files.path().join("whole");
        let frozen = Frozen::snapshot(&root);
        save_to(frozen, WireNumber::Local, None, &path).unwrap().0
    }

    /// Sends some paths of the snapshot, and compares both copies with the reference.
    fn send(&mut self, whole: &Sendshot, paths: &[Vec<u8>], version: Version) -> Part {
        self.parts += 1;
        let name = format!("part{}", self.parts);
        let dir = File::open(self.files.path()).unwrap();
        let part = subtree(whole, paths, &dir, OsStr::new(&name)).unwrap();
        let root = File::open(self.snapshot()).unwrap();
        let source = Source {
            parent: None,
            target: &part,
            snapshot: &root,
            name: name.as_bytes(),
            version,
            pages: Pages::Keep,
        };
        let mut bytes = Vec::new();
        stream(&source, None, |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })
        .unwrap();
        let size = measure(None, &part, name.as_bytes(), version).unwrap();
        assert_eq!(size.bytes, bytes.len() as u64, "the measured size");
        let reference = self.reference(&name, paths);
        self.receivers.receive(&bytes, &reference).unwrap();
        let made = Part {
            stock: self.receivers.stock.path().join(&name),
            ours: self.receivers.ours.path().join(&name),
            commands: streams::commands(&bytes).unwrap(),
        };
        if version == Version::V2 {
            let differences = inode_flags::compare(&reference, &made.ours).unwrap();
            assert!(differences.is_empty(), "{differences:?}");
        }
        made
    }

    /// Makes a writable snapshot and deletes what is at or beneath no path.
    fn reference(&self, name: &str, paths: &[Vec<u8>]) -> PathBuf {
        let reference = self.disk.path().join(name);
        let (from, to) = (self.snapshot(), &reference);
        run(Command::new("btrfs")
            .args(["subvolume", "snapshot"])
            .arg(from)
            .arg(to))
        .unwrap();
        prune(&reference, b"", paths);
        // Otherwise the comparison itself would change access times.
        let read_only = ["property", "set", "-ts"];
        run(Command::new("btrfs")
            .args(read_only)
            .arg(&reference)
            .args(["ro", "true"]))
        .unwrap();
        reference
    }
}

fn prune(dir: &Path, at: &[u8], paths: &[Vec<u8>]) {
    let times = fs::metadata(dir).unwrap();
    let guards = without_guards(dir);
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name());
        let inner = match at {
            b"" => name.as_bytes().to_vec(),
            _ => [at, b"/", name.as_bytes()].concat(),
        };
        let starts = |path: &Vec<u8>, with: &[u8]| {
            let rest = path.strip_prefix(with);
            rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        let is_dir = entry.file_type().unwrap().is_dir();
        if paths.iter().any(|path| starts(&inner, path)) {
            continue;
        }
        if is_dir && paths.iter().any(|path| starts(path, &inner)) {
            prune(&path, &inner, paths);
        } else if is_dir {
            // Most types of files have no flags, so errors are no failures.
            let _ = Command::new("chattr")
                .args(["-R", "-f", "-ia"])
                .arg(&path)
                .output();
            fs::remove_dir_all(&path).unwrap();
        } else {
            // To resolve a link would change its access time, and it may be another name of one that stays.
            if entry.file_type().unwrap().is_file() {
                let off = ["-f", "-ia"];
                let _ = Command::new("chattr").args(off).arg(&path).output();
            }
            fs::remove_file(&path).unwrap();
        }
    }
    let file = File::open(dir).unwrap();
    let times = FileTimes::new()
        .set_accessed(times.accessed().unwrap())
        .set_modified(times.modified().unwrap());
    file.set_times(times).unwrap();
    if let Some(flags) = guards {
        rustix::fs::ioctl_setflags(&file, flags).unwrap();
    }
}

/// Lets entries of a directory be deleted; returns its former flags if they forbid that.
fn without_guards(dir: &Path) -> Option<IFlags> {
    let file = File::open(dir).unwrap();
    let flags = rustix::fs::ioctl_getflags(&file).unwrap();
    let guards = IFlags::IMMUTABLE | IFlags::APPEND;
    if !flags.intersects(guards) {
        return None;
    }
    rustix::fs::ioctl_setflags(&file, flags - guards).unwrap();
    Some(flags)
}

fn paths(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|path| path.as_bytes().to_vec()).collect()
}

#[test]
fn parts_of_a_tree_with_every_kind_of_file_are_exact() {
    for (version, mount) in [(Version::V1, ""), (Version::V2, "compress-force=zstd")] {
        let mut volume = Volume::new(mount);
        every_file_kind::fill(&volume.root());
        let whole = volume.capture();
        for chosen in [
            &["attributes"][..],
            &["data"],
            &["names", "times/far"],
            &["links/sub", "fifo", "null", "disk", "socket"],
            &["links/two", "links/symlink", "links/sub/three"],
            &["inherits/deeper", "attributes/acl", "attributes/capable"],
            &["attributes/all", "attributes"],
        ] {
            volume.send(&whole, &paths(chosen), version);
        }
        let not_text = b"names/not \xff\xfe UTF-8".to_vec();
        volume.send(&whole, &[not_text], version);
    }
}

#[test]
fn links_that_leave_the_part_become_files_and_others_stay_links() {
    let mut volume = Volume::new("");
    let root = volume.root();
    fs::create_dir_all(root.join("in/deep")).unwrap();
    fs::create_dir(root.join("out")).unwrap();
    fill::file(root.join("in/a"), 1, 300_000);
    fs::hard_link(root.join("in/a"), root.join("in/deep/a")).unwrap();
    fs::hard_link(root.join("in/a"), root.join("out/a")).unwrap();
    fill::file(root.join("out/b"), 2, 5000);
    // The name outside is the first one of the inode.
    fs::hard_link(root.join("out/b"), root.join("in/b")).unwrap();
    let whole = volume.capture();
    let part = volume.send(&whole, &paths(&["in"]), Version::V2);
    for side in [&part.stock, &part.ours] {
        let links = |path: &str| fs::metadata(side.join(path)).unwrap().nlink();
        assert_eq!(
            (links("in/a"), links("in/deep/a"), links("in/b")),
            (2, 2, 1)
        );
        assert!(!side.join("out").exists());
    }
    let part = volume.send(&whole, &paths(&["in/deep/a"]), Version::V2);
    assert_eq!(
        fs::metadata(part.ours.join("in/deep/a")).unwrap().nlink(),
        1
    );
    assert_eq!(fs::read_dir(part.ours.join("in")).unwrap().count(), 1);
    let bytes = fs::read(root.join("in/a")).unwrap();
    assert_eq!(fs::read(part.stock.join("in/deep/a")).unwrap(), bytes);
}

#[test]
fn shared_data_is_shared_within_the_part_and_sent_otherwise() {
    let mut volume = Volume::new("");
    let root = volume.root();
    fs::create_dir(root.join("in")).unwrap();
    fill::file(root.join("outside"), 1, 1 << 20);
    let clone = |from: &str, to: &str| {
        let (from, to) = (root.join(from), root.join(to));
        tool(
            "cp",
            &[
                "--reflink=always".as_ref(),
                from.as_os_str(),
                to.as_os_str(),
            ],
        );
    };
    clone("outside", "in/one");
    clone("outside", "in/two");
    let whole = volume.capture();
    let part = volume.send(&whole, &paths(&["in"]), Version::V2);
    let physical = |name: &str| {
        let found = extents::of(&part.ours.join(name));
        found
            .iter()
            .map(|extent| extent.physical)
            .collect::<Vec<_>>()
    };
    assert_eq!(physical("in/one"), physical("in/two"));
    assert!(part.commands["clone"] > 0, "{:?}", part.commands);
    let part = volume.send(&whole, &paths(&["in/two"]), Version::V2);
    assert_eq!(part.commands.get("clone"), None);
}

#[test]
fn a_symlink_is_sent_as_a_link_and_never_followed() {
    let mut volume = Volume::new("");
    let root = volume.root();
    fs::create_dir(root.join("dir")).unwrap();
    fs::write(root.join("dir/file"), "x").unwrap();
    symlink("dir", root.join("link")).unwrap();
    let whole = volume.capture();
    let part = volume.send(&whole, &paths(&["link"]), Version::V2);
    assert!(part.ours.join("link").is_symlink());
    assert!(!part.ours.join("dir").exists());
    let dir = File::open(volume.files.path()).unwrap();
    let through = subtree(&whole, &paths(&["link/file"]), &dir, OsStr::new("no"));
    assert!(matches!(through, Err(Error::NotADirectory { .. })));
    assert!(!volume.files.path().join("no").exists());
}

#[test]
fn random_parts_of_random_trees_are_exact() {
    for seed in 1..=TREES {
        let random = &mut Random::new(seed);
        let mount = random.pick(&["", "", "compress-force=zstd", "compress=lzo", "nodatacow"]);
        let mut volume = Volume::new(mount);
        for _ in 0..CHANGES {
            changes::change(random, &volume.root());
        }
        let whole = volume.capture();
        let mut all = Vec::new();
        list(&volume.snapshot(), b"", &mut all);
        for _ in 0..4 {
            let count = 1 + random.below(4);
            let chosen: Vec<Vec<u8>> = (0..count)
                .map(|_| all[random.below(all.len() as u64) as usize].clone())
                .collect();
            let version = random.pick(&[Version::V1, Version::V2]);
            let text: Vec<_> = chosen
                .iter()
                .map(|path| path.escape_ascii().to_string())
                .collect();
            eprintln!("seed {seed}: {mount:?}, {version:?}, {text:?}");
            volume.send(&whole, &chosen, version);
        }
    }
}

/// Lists all paths of a tree, sorted by directory.
fn list(dir: &Path, at: &[u8], found: &mut Vec<Vec<u8>>) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let path = match at {
            b"" => name.as_bytes().to_vec(),
            _ => [at, b"/", name.as_bytes()].concat(),
        };
        found.push(path.clone());
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), &path, found);
        }
    }
}
