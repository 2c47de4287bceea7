//! The copy of a volume has all of its content: full and incremental pushes of all kinds of
//! trees, compared by an independent walk.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, renameat_with};
use sendshot_harness::compare::exact::{Reference, assert_copy, assert_exact, assert_same};
use sendshot_harness::compare::subvolumes::assert_no_leftovers;
use sendshot_harness::disks::mount::{self, Mount};
use sendshot_harness::faults::link::{Rule, Way};
use sendshot_harness::hosts::pairing::{Linked, Paired};
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::hosts::until;
use sendshot_harness::trees::every_file_kind;
use sendshot_harness::trees::fill;
use serde_json::Value;

/// Pushes, compares, and asserts which parent was used.
#[track_caller]
fn push(hosts: &Paired, parent: &Value) -> Value {
    let Paired { sender, receiver } = hosts;
    let pushed = sender.push("nas2:photos");
    assert_eq!(&pushed["parent"], parent, "{pushed}");
    assert_exact(sender, receiver, &pushed);
    pushed
}

#[track_caller]
fn push_full(hosts: &Paired) -> Value {
    push(hosts, &Value::Null)
}

#[test]
fn every_kind_of_file_arrives_and_changes() {
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    every_file_kind::fill(&photos);
    let first = push_full(&hosts);
    every_file_kind::change(&photos);
    let second = push(&hosts, &first["uuid"]);
    let copies = hosts.receiver.ctl(&["copy", "list", "--json"]);
    assert_eq!(copies.success().jsons().len(), 2, "an older copy is gone");
    // The second push must not have changed the first copy, which shares its data.
    assert_ne!(first["copy"], second["copy"]);
    assert_no_leftovers(&hosts.sender, &hosts.receiver);
}

#[test]
fn an_older_copy_stays_what_it_was() {
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    every_file_kind::fill(&photos);
    let first = push_full(&hosts);
    let reference = Reference::of(hosts.sender.fs(), &photos);
    every_file_kind::change(&photos);
    push(&hosts, &first["uuid"]);
    assert_same(reference.path(), &hosts.receiver.copy(&first));
}

#[test]
fn a_compressed_source_gives_the_same_tree() {
    let setup = SenderHost::setup().mount("compress-force=zstd");
    let hosts = Paired::of(setup.volume("photos", "photos").start());
    let photos = hosts.sender.photos();
    every_file_kind::fill(&photos);
    fill::tree(&photos, 1);
    let text = b"compresses well, ".repeat(1_000_000);
    fs::write(photos.join("big text"), &text).unwrap();
    let first = push_full(&hosts);
    assert!(
        first["stream_bytes"].as_u64().unwrap() < 40 << 20,
        "compressed data was sent decompressed: {first}"
    );
    every_file_kind::change(&photos);
    let file = File::options()
        .write(true)
        .open(photos.join("big text"))
        .unwrap();
    file.write_all_at(b"in the middle of compressed extents", 7_000_001)
        .unwrap();
    push(&hosts, &first["uuid"]);
}

#[test]
fn an_unchanged_volume_costs_next_to_nothing() {
    let hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    fill::file(hosts.sender.photos().join("big"), 2, 8 << 20);
    let mut last = push_full(&hosts);
    // Setting the times of the root, too, would copy all nodes above it.
    let root_changed = |pushed: &Value| {
        let root = fs::metadata(hosts.receiver.copy(pushed)).unwrap();
        (root.ctime(), root.ctime_nsec())
    };
    let before = root_changed(&last);
    for _ in 0..3 {
        let next = push(&hosts, &last["uuid"]);
        let wire = next["wire_bytes"].as_u64().unwrap();
        assert!(wire < 64 << 10, "{wire} bytes for no change");
        assert_eq!(root_changed(&next), before, "the root was changed");
        last = next;
    }
}

#[test]
fn an_empty_volume_is_a_copy_too() {
    let hosts = Paired::new();
    let first = push_full(&hosts);
    push(&hosts, &first["uuid"]);
}

#[test]
fn everything_deleted_is_deleted_in_the_copy() {
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    every_file_kind::fill(&photos);
    let first = push_full(&hosts);
    for entry in fs::read_dir(&photos).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
    let second = push(&hosts, &first["uuid"]);
    let mut copy = fs::read_dir(hosts.receiver.copy(&second)).unwrap();
    assert!(copy.next().is_none(), "deleted files came back");
}

#[test]
fn a_directory_moves_under_its_former_child() {
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    fs::create_dir_all(photos.join("a/b/c/d")).unwrap();
    for dir in ["a", "a/b", "a/b/c", "a/b/c/d"] {
        fs::write(photos.join(dir).join("file"), dir).unwrap();
    }
    let first = push_full(&hosts);
    // a/b/c/d becomes c/b/a and c/d: each directory is below one of its former children.
    fs::rename(photos.join("a/b/c"), photos.join("c")).unwrap();
    fs::rename(photos.join("a/b"), photos.join("c/b")).unwrap();
    fs::rename(photos.join("a"), photos.join("c/b/a")).unwrap();
    fs::write(photos.join("c/b/a/more"), "more").unwrap();
    let second = push(&hosts, &first["uuid"]);
    // Then back, with other names.
    fs::rename(photos.join("c/b/a"), photos.join("b")).unwrap();
    fs::rename(photos.join("c"), photos.join("b/a")).unwrap();
    push(&hosts, &second["uuid"]);
}

#[test]
fn exchanged_names_are_exchanged_in_the_copy() {
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    let write = |name: &str| fs::write(photos.join(name), name).unwrap();
    for dir in ["one", "two", "one/in"] {
        fs::create_dir(photos.join(dir)).unwrap();
    }
    for name in ["a", "b", "c", "one/x", "two/x", "one/in/y", "plain"] {
        write(name);
    }
    let first = push_full(&hosts);
    let swap = |a: &str, b: &str| {
        let (a, b) = (photos.join(a), photos.join(b));
        renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
    };
    swap("a", "b");
    swap("b", "c"); // a cycle of three
    swap("one", "two");
    swap("one/x", "two/x");
    swap("two/in", "plain"); // a directory and a file
    let second = push(&hosts, &first["uuid"]);
    // A directory and its content, by way of a third name.
    fs::rename(photos.join("two"), photos.join("t")).unwrap();
    fs::rename(photos.join("plain"), photos.join("two")).unwrap();
    fs::rename(photos.join("t"), photos.join("two/plain")).unwrap();
    write("one/new");
    push(&hosts, &second["uuid"]);
}

#[test]
fn a_reused_name_is_not_the_old_file() {
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    fill::tree(&photos, 1);
    let first = push_full(&hosts);
    for d in 0..5 {
        let dir = photos.join(format!("dir{d}"));
        fs::rename(&dir, photos.join(format!("old{d}"))).unwrap();
        fs::create_dir_all(dir.join("below")).unwrap();
        fill::file(dir.join("below/file0"), 77 + d, 3000);
        fs::remove_file(photos.join(format!("old{d}/below/file1"))).unwrap();
        fs::hard_link(
            photos.join(format!("old{d}/below/file2")),
            photos.join(format!("old{d}/below/file1")),
        )
        .unwrap();
    }
    push(&hosts, &first["uuid"]);
}

/// Nested directories: paths within the volume are nearly as long as the system allows.
const DEPTH: usize = 16;

#[test]
fn paths_as_long_as_the_system_takes_arrive() {
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    // 16 names of 250 bytes with slashes are 4016 bytes, and a file makes it 4091.
    let name = |i: usize| {
        CString::new(
            format!("{i:02}")
                .into_bytes()
                .into_iter()
                .chain([b'd'; 248])
                .collect::<Vec<_>>(),
        )
        .unwrap()
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut dir = rustix::fs::open(&photos, flags, Mode::empty()).unwrap();
    for i in 0..DEPTH {
        rustix::fs::mkdirat(&dir, name(i), Mode::from_raw_mode(0o755)).unwrap();
        dir = rustix::fs::openat(&dir, name(i), flags, Mode::empty()).unwrap();
    }
    let write = |file: &[u8], text: &[u8]| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let file = rustix::fs::openat(&dir, file, flags, Mode::from_raw_mode(0o644)).unwrap();
        File::from(file).write_all(text).unwrap();
    };
    write(&[b'f'; 75], b"deep");
    let first = push_full(&hosts);
    write(&[b'f'; 75], b"deep and changed");
    write(&[b'g'; 70], b"new");
    let second = push(&hosts, &first["uuid"]);
    fs::rename(
        photos.join(OsStr::from_bytes(name(0).as_bytes())),
        photos.join("short"),
    )
    .unwrap();
    push(&hosts, &second["uuid"]);
}

#[test]
fn a_sparse_file_over_four_gibibytes_stays_sparse() {
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    let file = File::create(photos.join("disk image")).unwrap();
    let far = [0, (4 << 30) - 4096, 4 << 30, (5 << 30) + 12_288];
    for at in far {
        file.write_all_at(&fill::noise(at + 1, 8192), at).unwrap();
    }
    file.set_len((6 << 30) + 1).unwrap();
    let first = push_full(&hosts);
    file.write_all_at(b"beyond four", (4 << 30) + 5).unwrap();
    file.set_len(7 << 30).unwrap();
    let second = push(&hosts, &first["uuid"]);
    let blocks = |path: &Path| path.metadata().unwrap().blocks();
    let copied = blocks(&hosts.receiver.copy(&second).join("disk image"));
    assert!(
        copied * 512 < 1 << 20,
        "holes became {copied} blocks of zeros"
    );
}

#[test]
fn a_hundred_thousand_files_in_one_directory_arrive() {
    let hosts = Paired::new();
    let dir = hosts.sender.photos().join("many");
    fs::create_dir(&dir).unwrap();
    for i in 0..100_000 {
        File::create(dir.join(format!("file {i}"))).unwrap();
    }
    let first = push_full(&hosts);
    for i in (0..100_000).step_by(10) {
        fs::remove_file(dir.join(format!("file {i}"))).unwrap();
        fs::rename(
            dir.join(format!("file {}", i + 1)),
            dir.join(format!("moved {i}")),
        )
        .unwrap();
    }
    push(&hosts, &first["uuid"]);
}

#[test]
fn more_hard_links_than_fit_one_item_stay_one_inode() {
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    let dir = photos.join("links");
    fs::create_dir(&dir).unwrap();
    let name = |i: usize| dir.join(format!("link {i} {}", "n".repeat(100)));
    fs::write(photos.join("inode"), "one").unwrap();
    for i in 0..3000 {
        fs::hard_link(photos.join("inode"), name(i)).unwrap();
    }
    let first = push_full(&hosts);
    for i in 0..1000 {
        fs::remove_file(name(i)).unwrap();
        fs::rename(name(i + 1000), photos.join(format!("moved {i}"))).unwrap();
    }
    fs::remove_file(photos.join("inode")).unwrap();
    fs::write(photos.join("moved 5"), "changed by one of its names").unwrap();
    let second = push(&hosts, &first["uuid"]);
    for i in 0..1000 {
        fs::remove_file(photos.join(format!("moved {i}"))).unwrap();
        fs::remove_file(name(i + 2000)).unwrap();
    }
    push(&hosts, &second["uuid"]);
}

/// Writes to a volume until it is stopped.
fn write_on(dir: &Path, stop: &AtomicBool) {
    let mut round = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let name = |n: u64| dir.join(format!("live {}", n % 50));
        fill::file(name(round), round, (round * 977 % 50_000) as usize);
        let _ = fs::rename(name(round / 2), name(round + 7));
        let _ = fs::remove_file(name(round + 13));
        if let Ok(file) = File::options().write(true).open(name(round / 3)) {
            file.write_all_at(&fill::noise(round, 5000), round % 9000)
                .unwrap();
        }
        round += 1;
    }
}

/// Pushes six times while another thread writes.
fn push_while_written(photos: &Path, mut push: impl FnMut(&Value) -> Value + Send) {
    fill::tree(photos, 1);
    fill::file(photos.join("big"), 3, 32 << 20);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| write_on(photos, &stop));
        let pushes = scope.spawn(|| {
            let mut last = Value::Null;
            for _ in 0..6 {
                last = push(&last["uuid"]);
            }
        });
        let pushed = pushes.join();
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        pushed.unwrap();
    });
}

#[test]
fn people_writing_to_the_volume_do_not_disturb_the_copy() {
    let hosts = Linked::new();
    let top = Mount::private(&mount::devices(hosts.sender.fs())[0], "subvolid=5");
    let hidden = top.path().join(".sendshot/snapshots");
    push_while_written(&hosts.sender.photos(), |parent| {
        // Slow enough to take a reference of the pushed snapshot before it is deleted.
        hosts.link.set(Way::Up, Rule::Slow(50_000));
        let running = hosts.sender.ctl_start(&["push", "--json", "nas2:photos"]);
        let snapshot = until::some("there is a snapshot", || {
            let mut all = fs::read_dir(&hidden).ok()?;
            Some(all.next()?.unwrap().path())
        });
        let reference = Reference::of(top.path(), &snapshot);
        hosts.link.mend();
        let pushed = running.finish().success().json();
        assert_eq!(&pushed["parent"], parent, "{pushed}");
        assert_same(reference.path(), &assert_copy(&hosts.receiver, &pushed));
        hosts.sender.wait_until_released();
        pushed
    });
}

#[test]
fn the_kernel_engine_copies_a_volume_in_use() {
    let setup = SenderHost::setup().volume("photos", "photos");
    let hosts = Paired::of(setup.pin_parent().start());
    push_while_written(&hosts.sender.photos(), |parent| push(&hosts, parent));
}
