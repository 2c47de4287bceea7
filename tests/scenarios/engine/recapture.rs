//! Captures only the changes, on a tree of many leaves. Needs root.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use sendshot_engine::capture::recapture::{Effort, recapture};
use sendshot_engine::diff::Version;
use sendshot_engine::format::hashes;
use sendshot_engine::stream::Pages;
use sendshot_engine::{
    Frozen, Sendshot, Source, WireNumber, capture, compare_hashes, save_to, stream,
};
use sendshot_harness::compare::chain::same_when_captured_from;
use sendshot_harness::disks::loopfs::{LoopFs, run};
use sendshot_harness::disks::{mount, streams};
use sendshot_harness::hosts::command;
use sendshot_harness::trees::random::Random;

const DIRS: u64 = 40;
const FILES: u64 = 100;

fn file(root: &Path, random: &mut Random) -> std::path::PathBuf {
    let (dir, file) = (random.below(DIRS), random.below(FILES));
    root.join(format!("d{dir}/f{file}"))
}

fn fill(root: &Path, random: &mut Random) {
    for dir in 0..DIRS {
        fs::create_dir(root.join(format!("d{dir}"))).unwrap();
        for file in 0..FILES {
            let path = root.join(format!("d{dir}/f{file}"));
            let len = random.pick(&[0, 100, 5000]);
            fs::write(&path, random.bytes(len)).unwrap();
            for name in ["user.z", "user.a"] {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(&path, name, b"value", flags).unwrap();
            }
        }
    }
}

/// Makes a few changes; an operation on a missing file changes nothing.
fn change(root: &Path, random: &mut Random) {
    for _ in 0..3 {
        let _ = fs::remove_file(file(root, random));
        let _ = fs::write(file(root, random), random.bytes(3000));
        let _ = fs::rename(file(root, random), file(root, random));
        let _ = fs::hard_link(file(root, random), file(root, random));
    }
    let dir = root.join(format!("d{}", random.below(DIRS)));
    match random.below(3) {
        0 => drop(fs::remove_dir_all(dir)),
        1 => drop(fs::rename(
            dir,
            root.join(format!("d{}/moved", random.below(DIRS))),
        )),
        _ => {}
    }
}

#[test]
fn a_recapture_equals_a_whole_capture() {
    let disk = LoopFs::new(1 << 30, &["-n", "4096"], "").unwrap();
    let volume = disk.path().join("volume");
    streams::create(&volume).unwrap();
    let mut random = Random::new(7);
    fill(&volume, &mut random);
    let files = tempfile::tempdir().unwrap();
    let mut old: Option<Sendshot> = None;
    for round in 0..12 {
        let snapshot = disk.path().join(format!("s{round}"));
        streams::snapshot(&volume, &snapshot).unwrap();
        let root = File::open(&snapshot).unwrap();
        let path = files.path().join(round.to_string());
        capture(
            Frozen::snapshot(&root),
            WireNumber::Local,
            File::create(&path).unwrap(),
        )
        .unwrap();
        let new = Sendshot::open(&path).unwrap();
        if let Some(old) = &old {
            let effort = same_when_captured_from(old, &new, &root).unwrap();
            let Effort::Changes(inodes) = effort else {
                panic!("round {round}: snapshots of one subvolume were captured whole");
            };
            let all = new.counts().inodes;
            assert!(
                inodes * 4 < all,
                "round {round}: {inodes} of {all} inodes were read again"
            );
        }
        drop(root);
        run(Command::new("btrfs")
            .args(["subvolume", "delete", "--commit-after"])
            .arg(&snapshot))
        .unwrap();
        change(&volume, &mut random);
        old = Some(new);
    }
}

/// Makes a stream, and stores the hashes of files without checksums beside the new sendshot.
fn stream_of(old: Option<&Sendshot>, new: &Sendshot, root: &File, dir: &Path) -> Vec<u8> {
    let (dir, name) = (File::open(dir).unwrap(), new.path().file_name().unwrap());
    let source = Source {
        parent: old,
        target: new,
        snapshot: root,
        name: b"s",
        version: Version::V2,
        pages: Pages::Keep,
    };
    let mut bytes = Vec::new();
    hashes::save(dir, name, new.head().uuid, |hashes| {
        stream(&source, Some(hashes), |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })
    })
    .unwrap()
    .unwrap();
    bytes
}

#[test]
fn the_stream_of_an_unchanged_snapshot_is_that_of_a_whole_capture() {
    // On the same file system, the sendshot of the unchanged snapshot shares the data of the one before.
    for (mount, is_shared) in [("", false), ("nodatasum", false), ("", true)] {
        let disk = LoopFs::new(1 << 30, &[], mount).unwrap();
        let volume = disk.path().join("volume");
        streams::create(&volume).unwrap();
        let mut random = Random::new(11);
        fill(&volume, &mut random);
        let files = match is_shared {
            true => tempfile::tempdir_in(disk.path()).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let snapshot = |name: &str| {
            let path = disk.path().join(name);
            streams::snapshot(&volume, &path).unwrap();
            File::open(path).unwrap()
        };
        let path = |name: &str| files.path().join(name);
        let (one, two) = (snapshot("s1"), snapshot("s2"));
        let number = WireNumber::Local;
        let (old, _) = save_to(Frozen::snapshot(&one), number, None, &path("1")).unwrap();
        stream_of(None, &old, &one, files.path());
        let old = sendshot_engine::open(&path("1")).unwrap();
        let new = |before, name: &str| {
            let (new, effort) =
                save_to(Frozen::snapshot(&two), number, before, &path(name)).unwrap();
            assert_eq!(effort == Effort::Changes(0), before.is_some());
            let hashed = compare_hashes(
                &old,
                new,
                &two,
                File::open(files.path()).unwrap(),
                name.as_ref(),
            );
            hashed.unwrap()
        };
        let (copied, whole) = (new(Some(&old), "copied"), new(None, "whole"));
        let (bytes, ..) = recapture(&old, Frozen::snapshot(&two), number, Vec::new()).unwrap();
        assert!(fs::read(path("copied")).unwrap() == bytes, "{mount}");
        let extents = command::tool("filefrag", &["-v".as_ref(), path("copied").as_os_str()]);
        assert_eq!(extents.contains("shared"), is_shared, "{extents}");
        let streams = [&copied, &whole].map(|new| stream_of(Some(&old), new, &two, files.path()));
        assert!(streams[0] == streams[1], "{mount}");
        let commands = streams::commands(&streams[0]).unwrap();
        assert_eq!(commands.values().sum::<u64>(), 2, "{mount}: {commands:?}");
        // A change afterwards is found from the copy.
        change(&volume, &mut random);
        let three = snapshot("s3");
        let (last, _) =
            save_to(Frozen::snapshot(&three), number, Some(&copied), &path("3")).unwrap();
        let (again, _) = save_to(Frozen::snapshot(&three), number, None, &path("3w")).unwrap();
        let last = stream_of(Some(&copied), &last, &three, files.path());
        assert!(
            last == stream_of(Some(&copied), &again, &three, files.path()),
            "{mount}"
        );
    }
}

/// What is in memory is still good; the new sendshot must not share what is on the disk.
#[test]
fn an_unchanged_snapshot_is_captured_beside_a_sendshot_that_the_disk_has_damaged() {
    let disk = LoopFs::new(512 << 20, &[], "").unwrap();
    let volume = disk.path().join("volume");
    streams::create(&volume).unwrap();
    fill(&volume, &mut Random::new(17));
    let path = |name: &str| disk.path().join(name);
    let snapshot = |name: &str| {
        streams::snapshot(&volume, &path(name)).unwrap();
        File::open(path(name)).unwrap()
    };
    let (one, two) = (snapshot("s1"), snapshot("s2"));
    let number = WireNumber::Local;
    let (old, _) = save_to(Frozen::snapshot(&one), number, None, &path("1")).unwrap();
    rustix::fs::syncfs(&one).unwrap();
    let (bytes, ..) = recapture(&old, Frozen::snapshot(&two), number, Vec::new()).unwrap();
    let before = fs::read(path("1")).unwrap();
    for block in [0, before.len() / 4096 / 2, before.len() / 4096] {
        let block = before.chunks(4096).nth(block).unwrap();
        let image = mount::image(disk.path());
        let on_disk = fs::read(&image).unwrap();
        let mut places = on_disk.chunks(4096).enumerate();
        let (place, _) = places.find(|(_, at)| at.starts_with(block)).unwrap();
        let image = File::options().write(true).open(&image).unwrap();
        let at = place as u64 * 4096;
        image.write_all_at(&[!block[0]], at).unwrap();
        let (_, effort) = save_to(Frozen::snapshot(&two), number, Some(&old), &path("2")).unwrap();
        println!("block at {at}: {effort:?}");
        // It can be read from the disk, too.
        rustix::fs::syncfs(&two).unwrap();
        let saved = File::open(path("2")).unwrap();
        rustix::fs::fadvise(&saved, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let (new, whole) = (fs::read(path("2")).unwrap(), effort == Effort::Full);
        assert!(new == bytes || whole, "block at {at}");
        sendshot_engine::open(&path("2")).unwrap();
        fs::remove_file(path("2")).unwrap();
        image.write_all_at(&block[..1], at).unwrap();
    }
}

#[test]
fn a_snapshot_is_captured_whole_if_the_sendshot_before_cannot_be_read() {
    let disk = LoopFs::new(1 << 30, &[], "").unwrap();
    let volume = disk.path().join("volume");
    streams::create(&volume).unwrap();
    fill(&volume, &mut Random::new(13));
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name);
    let snapshot = |name: &str| {
        let path = disk.path().join(name);
        streams::snapshot(&volume, &path).unwrap();
        File::open(path).unwrap()
    };
    let number = WireNumber::Local;
    let one = snapshot("s1");
    save_to(Frozen::snapshot(&one), number, None, &path("1")).unwrap();
    for is_changed in [false, true] {
        // It was checked before, so that nothing of it is read now.
        let before = sendshot_engine::open(&path("1")).unwrap();
        let whole = fs::read(path("1")).unwrap();
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        fs::write(path("1"), damaged).unwrap();
        if is_changed {
            fs::write(volume.join("d1/f1"), "changed").unwrap();
        }
        let name = format!("s2-{is_changed}");
        let two = snapshot(&name);
        let save = |before| save_to(Frozen::snapshot(&two), number, before, &path(&name));
        let (new, effort) = save(Some(&before)).unwrap();
        assert_eq!(effort, Effort::Full);
        let saved = fs::read(path(&name)).unwrap();
        save(None).unwrap();
        assert!(
            saved == fs::read(path(&name)).unwrap(),
            "{:?}",
            new.counts()
        );
        fs::write(path("1"), whole).unwrap();
    }
}
