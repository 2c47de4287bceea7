//! Streams of data that is not written back yet, and so not in the file system's trees. Needs root.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sendshot_engine::{Frozen, WireNumber, capture, capture::Error};
use sendshot_harness::compare::tree;
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams;
use sendshot_harness::faults::snapshotless::Snapshotless;
use sendshot_harness::hosts::binaries;
use sendshot_harness::hosts::command::tool;
use sendshot_harness::trees::fill;

/// Two file systems, and a directory for streams and sendshots.
struct Lab {
    source: LoopFs,
    target: LoopFs,
    files: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        Self {
            source: LoopFs::new(1 << 30, &[], "").unwrap(),
            target: LoopFs::new(1 << 30, &[], "").unwrap(),
            files: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Sends a read-only subvolume, and receives it into `to` with stock `btrfs receive`.
    #[track_caller]
    fn send(&self, what: &Path, options: &[&str], to: &Path) -> PathBuf {
        let out = self.file("stream");
        let mut send = Command::new(binaries::path("sendshotctl"));
        send.args(["stream", "send"]).args(options);
        sendshot_harness::hosts::command::run(send.arg("-f").arg(&out).arg(what)).success();
        streams::stock_receive(&fs::read(&out).unwrap(), to).unwrap();
        to.join(what.file_name().unwrap())
    }
}

fn set_read_only(subvolume: &Path, value: &str) {
    let arguments = ["property", "set", "-f", "-ts"].map(std::ffi::OsStr::new);
    let rest = [subvolume.as_os_str(), "ro".as_ref(), value.as_ref()];
    tool("btrfs", &[&arguments[..], &rest].concat());
}

fn write(subvolume: &Path, seed: u64) {
    for n in 0..20 {
        fill::file(subvolume.join(format!("file-{n}")), seed + n, 50_000);
    }
}

#[track_caller]
fn assert_same(a: &Path, b: &Path) {
    let differences = tree::compare(a, b).unwrap();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_subvolume_is_written_made_read_only_and_sent_at_once() {
    let lab = Lab::new();
    let subvolume = lab.source.path().join("sub");
    streams::create(&subvolume).unwrap();
    write(&subvolume, 1);
    set_read_only(&subvolume, "true");
    let copy = lab.send(&subvolume, &[], lab.target.path());
    assert_same(&subvolume, &copy);
}

/// Its transaction numbers claim that it was never changed: all was written in the transaction that made it.
#[test]
fn a_rewritten_snapshot_is_saved_as_it_is() {
    let lab = Lab::new();
    let (subvolume, snapshot) = (lab.source.path().join("sub"), lab.source.path().join("s"));
    streams::create(&subvolume).unwrap();
    write(&subvolume, 1);
    streams::snapshot(&subvolume, &snapshot).unwrap();
    set_read_only(&snapshot, "false");
    write(&snapshot, 100);
    set_read_only(&snapshot, "true");
    let saved = lab.file("saved");
    let copy = lab.send(
        &snapshot,
        &["--save-sendshot", saved.to_str().unwrap()],
        lab.target.path(),
    );
    assert_same(&snapshot, &copy);
    let before = sendshot_engine::open(&saved).unwrap().counts();
    tool("sync", &["-f".as_ref(), lab.source.path().as_os_str()]);
    let root = File::open(&snapshot).unwrap();
    let (_, _, counts) = capture(
        Frozen::snapshot(&root),
        WireNumber::Local,
        tempfile::tempfile().unwrap(),
    )
    .unwrap();
    assert_eq!(before, counts, "the saved sendshot lacks something");
}

#[test]
fn a_just_received_subvolume_is_sent_on() {
    let lab = Lab::new();
    let volume = lab.source.path().join("volume");
    let middle = lab.target.path().join("middle");
    let last = lab.target.path().join("last");
    fs::create_dir(&middle).unwrap();
    fs::create_dir(&last).unwrap();
    streams::create(&volume).unwrap();
    let receive = |parent: Option<&Path>, name: &str| {
        let snapshot = lab.source.path().join(name);
        streams::snapshot(&volume, &snapshot).unwrap();
        let stream = streams::send(streams::Format::V2, parent, &snapshot).unwrap();
        streams::stock_receive(&stream, &middle).unwrap();
        snapshot
    };
    write(&volume, 1);
    let first = receive(None, "first");
    let saved = lab.file("sendshot");
    let save = ["--save-sendshot", saved.to_str().unwrap()];
    let copy = lab.send(&middle.join("first"), &save, &last);
    assert_same(&first, &copy);

    write(&volume, 1000);
    fs::write(volume.join("small"), "inline").unwrap();
    let second = receive(Some(&first), "second");
    let from = ["--sendshot", saved.to_str().unwrap()];
    let copy = lab.send(&middle.join("second"), &from, &last);
    assert_same(&second, &copy);
}

/// Without `no-holes` the file system's own items show that one is missing.
#[test]
fn a_file_with_missing_extent_items_is_an_error() {
    let lab = Snapshotless::new(1 << 30, "");
    let sparse = File::create(lab.volume().join("sparse")).unwrap();
    sparse.write_all_at(&fill::noise(1, 8192), 0).unwrap();
    sparse.set_len(1 << 20).unwrap();
    drop(sparse);
    let snapshot = lab.snapshot("s");
    lab.change_image(clear_no_holes);
    let root = File::open(&snapshot).unwrap();
    let captured = capture(
        Frozen::snapshot(&root),
        WireNumber::Local,
        tempfile::tempfile().unwrap(),
    );
    let error = captured.map(drop).unwrap_err();
    match &error {
        Error::Incomplete { path, offset, size } => {
            assert_eq!((&path[..], *offset, *size), (&b"sparse"[..], 8192, 1 << 20));
        }
        Error::Io(_) | Error::Deleted => panic!("{error}"),
    }
    assert!(error.to_string().contains("sparse"), "{error}");
}

/// Clears the feature flag of a file system whose files have no items for their holes.
fn clear_no_holes(image: &Path) {
    const SUPERBLOCK: u64 = 64 << 10;
    const INCOMPATIBLE: usize = 0xbc;
    const NO_HOLES: u64 = 1 << 9;
    let file = File::options().read(true).write(true).open(image).unwrap();
    let mut block = [0; 4096];
    file.read_exact_at(&mut block, SUPERBLOCK).unwrap();
    let mut flags = u64::from_le_bytes(block[INCOMPATIBLE..][..8].try_into().unwrap());
    assert_ne!(flags & NO_HOLES, 0);
    flags &= !NO_HOLES;
    block[INCOMPATIBLE..][..8].copy_from_slice(&flags.to_le_bytes());
    // The usual CRC-32C, which send streams use without its inversions.
    let check = crc32c(&block[32..]);
    block[..4].copy_from_slice(&check.to_le_bytes());
    file.write_all_at(&block, SUPERBLOCK).unwrap();
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            0 => crc >> 1,
            _ => (crc >> 1) ^ 0x82f6_3b78,
        })
    };
    !bytes.iter().fold(!0, step)
}
