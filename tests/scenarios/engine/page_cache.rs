//! What a stream leaves in the page cache, how much it reads, and that it reads the right bytes.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use sendshot_engine::diff::Version;
use sendshot_engine::format::hashes;
use sendshot_engine::stream::Pages;
use sendshot_engine::{Frozen, Source, WireNumber, save_to, stream};
use sendshot_harness::compare::chain::Chain;
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::command::tool;
use sendshot_harness::trees::random::Random;

const MIB: usize = 1 << 20;
/// Files of the volume and their sizes in bytes.
const FILES: [(&str, usize); 3] = [
    ("large", 5 * MIB + 100),
    ("small", 10_000),
    ("unsummed", 6 * MIB),
];

struct Disk {
    fs: LoopFs,
    files: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let fs = LoopFs::new(1 << 30, &[], "").unwrap();
        let volume = fs.path().join("volume");
        streams::create(&volume).unwrap();
        let mut random = Random::new(1);
        for (name, size) in FILES {
            let path = volume.join(name);
            File::create(&path).unwrap();
            if name == "unsummed" {
                tool("chattr", &["+C".as_ref(), path.as_os_str()]);
            }
            fs::write(&path, random.bytes(size)).unwrap();
        }
        tool("sync", &["-f".as_ref(), fs.path().as_os_str()]);
        let files = tempfile::tempdir().unwrap();
        Self { fs, files }
    }

    /// Bytes that were read from the disk so far.
    fn read(&self) -> u64 {
        let mounts = tool(
            "findmnt",
            &[
                "-no".as_ref(),
                "SOURCE".as_ref(),
                self.fs.path().as_os_str(),
            ],
        );
        let device = Path::new(mounts.trim()).file_name().unwrap().to_owned();
        let stat = Path::new("/sys/block").join(device).join("stat");
        let stat = fs::read_to_string(stat).unwrap();
        stat.split_whitespace()
            .nth(2)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 512
    }

    /// Makes a stream of a new snapshot with its hashes. Returns the snapshot, and the bytes that were read from the disk.
    fn stream(&self, name: &str, pages: Pages) -> (PathBuf, u64) {
        let snapshot = self.fs.path().join(name);
        streams::snapshot(&self.fs.path().join("volume"), &snapshot).unwrap();
        let root = File::open(&snapshot).unwrap();
        let path = self.files.path().join(name);
        let target = save_to(Frozen::snapshot(&root), WireNumber::Local, None, &path)
            .unwrap()
            .0;
        let source = Source {
            parent: None,
            target: &target,
            snapshot: &root,
            name: b"s",
            version: Version::V2,
            pages,
        };
        let before = self.read();
        let dir = File::open(self.files.path()).unwrap();
        let uuid = target.head().uuid;
        let mut bytes = 0;
        hashes::save(&dir, name.as_ref(), uuid, |hashes| {
            stream(&source, Some(hashes), |part| {
                bytes += part.len();
                Ok(())
            })
        })
        .unwrap()
        .unwrap();
        assert!(bytes > FILES.iter().map(|(_, size)| size).sum::<usize>());
        (snapshot, self.read() - before)
    }
}

/// Bytes of a file that are in the page cache.
fn cached(file: &Path) -> u64 {
    let shown = tool(
        "fincore",
        &["-bno".as_ref(), "RES".as_ref(), file.as_os_str()],
    );
    shown.trim().parse().unwrap()
}

#[test]
fn a_push_leaves_nothing_of_its_snapshot_in_memory() {
    let disk = Disk::new();
    let (kept, _) = disk.stream("kept", Pages::Keep);
    let (forgotten, _) = disk.stream("forgotten", Pages::Forget);
    for (name, size) in FILES {
        let pages = (size as u64).next_multiple_of(4096);
        assert_eq!(cached(&kept.join(name)), pages, "{name}");
        assert_eq!(cached(&forgotten.join(name)), 0, "{name}");
    }
}

#[test]
fn what_is_hashed_is_read_from_the_disk_once() {
    let disk = Disk::new();
    let all: u64 = FILES.iter().map(|(_, size)| *size as u64).sum();
    for (name, pages) in [("kept", Pages::Keep), ("forgotten", Pages::Forget)] {
        let (_, read) = disk.stream(name, pages);
        let differs = read.abs_diff(all);
        assert!(differs < MIB as u64, "{name}: {read} of {all}");
    }
}

/// Files that are read in several pieces, from places that are no multiple of a piece.
#[test]
fn runs_of_every_length_and_place_arrive_as_they_are() {
    const PAGE: u64 = 4096;
    for (seed, mount) in [(1, ""), (2, "compress=zstd"), (3, "nodatacow")] {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let chain = Chain::with(Version::V2, &[], mount, mount).unwrap();
        for round in 0..5 {
            // The same range of two files, one after the other.
            for name in ["c", "d"] {
                fs::write(chain.volume().join(name), random.bytes(MIB)).unwrap();
            }
            for name in ["a", "b"] {
                let path = chain.volume().join(name);
                let file = File::options()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .open(path)
                    .unwrap();
                for _ in 0..3 {
                    let long = random.pick(&[1, 255, 256, 257, 800]) * PAGE;
                    let len = long - random.pick(&[0, 0, 1, 4095]);
                    let offset = random.below(2000) * PAGE;
                    match random.below(5) {
                        0 => punch(&file, offset, len),
                        1 => file.set_len(offset + len).unwrap(),
                        _ => file
                            .write_all_at(&random.bytes(len as usize), offset)
                            .unwrap(),
                    }
                }
            }
            let sent = chain
                .send()
                .unwrap_or_else(|e| panic!("{mount}, round {round}: {e:#}"));
            assert!(
                sent.commands().contains_key("write"),
                "{:?}",
                sent.commands()
            );
            chain.clean().unwrap();
        }
    }
}

fn punch(file: &File, offset: u64, len: u64) {
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, how, offset, len).unwrap();
}
