//! States of a file system in which a plausible rule takes changed data for unchanged, each made
//! for real: each test first shows that the trap exists, then that every copy is right. Needs root.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sendshot_engine::diff::rule::Kinship;
use sendshot_harness::disks::{loopfs, streams};
use sendshot_harness::faults::snapshotless::{Snapshotless, State, btrfs};
use sendshot_harness::hosts::command::{run, tool};
use sendshot_harness::hosts::pairing::Paired;
use sendshot_sys::clone::clone_range;

const MIB: usize = 1 << 20;
/// Size of a file system that is soon full, so that an allocation has only one place to go.
const SMALL: u64 = 512 << 20;
const LARGE: u64 = 1 << 30;
/// Attempts to make a state that depends on when a transaction ends.
const ATTEMPTS: usize = 20;

/// Shares all of one file with another, as `cp --reflink` over an existing file does.
fn reflink(from: &Path, to: &Path) {
    let source = File::open(from).unwrap();
    let target = OpenOptions::new().write(true).open(to).unwrap();
    clone_range(&target, &source, 0, 0, 0).unwrap();
}

fn truncate(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(0).unwrap();
}

/// Overwrites from the beginning, without waiting for the disk.
fn overwrite(path: &Path, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

/// Makes a file without checksums, whose data is written in place.
fn create_nocow(path: &Path, bytes: &[u8]) {
    File::create(path).unwrap();
    tool("chattr", &["+C".as_ref(), path.as_os_str()]);
    overwrite(path, bytes);
}

/// Asserts that the naive rule would take changed bytes of a file for unchanged, even one that also
/// compares the generation of the extent itself for [`Trap::SameExtent`].
#[track_caller]
fn assert_trap(m: &State, n: &State, name: &str, trap: Trap) {
    assert_eq!(
        Kinship::of(m.sendshot.head(), n.sendshot.head()),
        Kinship::Lineage,
        "the easy way out was taken"
    );
    assert_eq!(m.file(name).0, n.file(name).0, "it is another inode");
    let found = m.collisions(n, name);
    assert!(
        !found.is_empty(),
        "no trap was made: {:?}, then {:?}",
        m.file(name).2,
        n.file(name).2
    );
    let since = m.sendshot.head().otransid;
    let is_young = |n: &sendshot_engine::Extent| n.extent_generation > since;
    match trap {
        Trap::MovedExtent => assert!(found.iter().all(|(_, n)| is_young(n)), "{found:?}"),
        Trap::SameExtent => assert!(found.iter().any(|(_, n)| !is_young(n)), "{found:?}"),
    }
}

/// Bytes of an extent whose address is reused by another.
const EXTENT: usize = 8 * MIB;

/// What is stored at the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trap {
    /// Another extent, which its own item shows.
    MovedExtent,
    /// The very same extent, written in place: only the leaf shows it.
    SameExtent,
}

// --- Another extent under the same address ---

/// Writes a file as a single new extent.
fn write_extent(path: &Path, len: usize, seed: u8) {
    let command = format!("pwrite -b {len} -S {seed} 0 {len}");
    let file: [&std::ffi::OsStr; 5] = [
        "-f".as_ref(),
        "-d".as_ref(),
        "-c".as_ref(),
        command.as_ref(),
        path.as_os_str(),
    ];
    tool("xfs_io", &file);
}

/// Fills a directory with files of 1 MiB until the disk is full.
fn fill_up(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    for n in 0.. {
        let path = dir.join(n.to_string());
        let mut command = Command::new("fallocate");
        command.args(["-l", "1MiB"]).arg(&path);
        if run(&mut command).code != 0 {
            return;
        }
    }
}

/// Returns the address range of the block group that contains an address.
fn block_group(lab: &Snapshotless, address: u64) -> std::ops::Range<u64> {
    let image = sendshot_harness::disks::mount::image(lab.fs());
    let arguments = ["inspect-internal", "dump-tree", "-t", "chunk"];
    let mut command = Command::new("btrfs");
    let dump = run(command.args(arguments).arg(image)).success().stdout;
    let mut start = None;
    for line in dump.lines() {
        if let Some((_, key)) = line.split_once("CHUNK_ITEM ") {
            start = key.split(')').next().unwrap().parse::<u64>().ok();
        }
        let length = line.trim().strip_prefix("length ");
        if let (Some(start), Some(length)) = (start, length) {
            let length: u64 = length.split(' ').next().unwrap().parse().unwrap();
            if (start..start + length).contains(&address) {
                return start..start + length;
            }
        }
    }
    panic!("no block group has {address}: {dump}");
}

/// Returns the address of the first extent of a file; `None` if it has none.
fn address(path: &Path) -> Option<u64> {
    let mut command = Command::new("filefrag");
    let shown = run(command.args(["-v", "-b1"]).arg(path)).success().stdout;
    let first = shown.lines().find(|line| line.trim().starts_with("0:"))?;
    let physical = first.split(':').nth(2).unwrap();
    physical.split("..").next().unwrap().trim().parse().ok()
}

/// Makes a disk on which `f` and `x`, 8 MiB each, are two extents of one generation in different block
/// groups with no other free space, and pushes that state. `None` if the allocator laid them out
/// otherwise, or the transaction ended by itself, which the kernel decides.
fn two_extents_of_one_transaction() -> Option<(Snapshotless, State)> {
    let lab = Snapshotless::new(SMALL, "commit=900");
    let volume = lab.volume();
    let fill = |name: &str| lab.fs().join(name);
    write_extent(&volume.join("f"), EXTENT, 1);
    fs::create_dir(fill("between")).unwrap();
    for n in 0..128 {
        write_extent(&fill("between").join(n.to_string()), MIB, 7);
    }
    write_extent(&volume.join("x"), EXTENT, 2);
    fill_up(&fill("rest"));
    let m = lab.push(None, "m");
    let ([f], [x]) = (&m.file("f").2[..], &m.file("x").2[..]) else {
        return None;
    };
    let apart = !block_group(&lab, x.disk_bytenr).contains(&f.disk_bytenr);
    (f.generation == x.generation && apart).then_some((lab, m))
}

/// Makes a balance move the extent shared by `f` and `x` to the former address of `f`; returns the state.
fn move_to_the_freed_place(lab: &Snapshotless, m: &State) -> State {
    let volume = lab.volume();
    let other = m.file("x").2[0];
    // The former place of `f` becomes the only free one of this size.
    reflink(&volume.join("x"), &volume.join("f"));
    lab.commit();
    let group = block_group(lab, other.disk_bytenr);
    for dir in ["between", "rest"] {
        for entry in fs::read_dir(lab.fs().join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if address(&path).is_some_and(|at| group.contains(&at)) {
                fs::remove_file(path).unwrap();
            }
        }
    }
    lab.commit();
    let range = format!("-dvrange={}..{}", other.disk_bytenr, other.disk_bytenr + 1);
    btrfs(&["balance", "start", &range], &[lab.fs()]);
    lab.take("n")
}

#[test]
fn a_balance_onto_a_freed_address_hides_no_change() {
    let made = (0..20).filter_map(|_| two_extents_of_one_transaction());
    let mut moved = made.map(|(lab, m)| {
        let n = move_to_the_freed_place(&lab, &m);
        (lab, m, n)
    });
    let trap = moved.find(|(_, m, n)| !m.collisions(n, "f").is_empty());
    let (lab, m, n) = trap.expect("the kernel never moved an extent to the freed place");
    assert_trap(&m, &n, "f", Trap::MovedExtent);
    lab.send(Some(&m), &n);
}

// --- The same extent, written in place by another file ---

/// Makes a volume and another subvolume that share an extent without checksums, and a state of the
/// volume whose snapshot is deleted.
fn shared_nocow() -> (Snapshotless, PathBuf, PathBuf, State) {
    let lab = Snapshotless::new(LARGE, "");
    let other = lab.fs().join("other");
    streams::create(&other).unwrap();
    let (f, g) = (lab.volume().join("f"), other.join("g"));
    create_nocow(&f, &vec![1; MIB]);
    lab.commit();
    create_nocow(&g, b"");
    reflink(&f, &g);
    lab.commit();
    let m = lab.push(None, "m");
    (lab, f, g, m)
}

#[test]
fn unchecksummed_data_written_while_lent_is_sent() {
    let (lab, f, g, m) = shared_nocow();
    truncate(&f);
    lab.commit();
    overwrite(&g, &vec![2; MIB]);
    lab.commit();
    reflink(&g, &f);
    let n = lab.take("n");
    assert_trap(&m, &n, "f", Trap::SameExtent);
    lab.send(Some(&m), &n);
}

#[test]
fn unchecksummed_data_written_by_taking_back_is_sent() {
    let (lab, f, g, m) = shared_nocow();
    truncate(&f);
    lab.commit();
    // Still in memory when it is shared: sharing first writes it, in place.
    overwrite(&g, &vec![2; MIB]);
    reflink(&g, &f);
    let n = lab.take("n");
    assert_trap(&m, &n, "f", Trap::SameExtent);
    lab.send(Some(&m), &n);
}

#[test]
fn a_partly_lent_file_is_exact() {
    let (lab, f, g, m) = shared_nocow();
    // The file stays; a part of it is lent to the other file and taken back.
    let part = (256 << 10, 512 << 10);
    let punch = format!("fpunch {} {}", part.0, part.1);
    tool("xfs_io", &["-c".as_ref(), punch.as_ref(), f.as_os_str()]);
    truncate_to(&g, part.0 + part.1);
    lab.commit();
    let target = OpenOptions::new().write(true).open(&g).unwrap();
    target
        .write_all_at(&vec![3; part.1 as usize], part.0)
        .unwrap();
    target.sync_all().unwrap();
    let back = OpenOptions::new().write(true).open(&f).unwrap();
    clone_range(&back, File::open(&g).unwrap(), part.0, part.1, part.0).unwrap();
    let n = lab.take("n");
    let changed = m.content("f") != n.content("f");
    assert!(changed, "nothing was written");
    lab.send(Some(&m), &n);
}

fn truncate_to(path: &Path, len: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

// --- Swap files ---

/// A swap file in use, until it is dropped.
struct Swap(PathBuf);

impl Swap {
    fn on(path: &Path) -> Self {
        tool("swapon", &[path]);
        Self(path.to_owned())
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        run(Command::new("swapoff").arg(&self.0));
    }
}

/// A control group of processes with a small memory limit; removed on drop.
struct Cramped(PathBuf);

impl Cramped {
    /// Works with both versions of the kernel's cgroup interface.
    fn new(bytes: usize) -> Self {
        let name = format!("sendshot-test-{}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (dir, limit) = if v1.exists() {
            (v1.join(name), "memory.limit_in_bytes")
        } else {
            let root = Path::new("/sys/fs/cgroup");
            fs::write(root.join("cgroup.subtree_control"), "+memory").unwrap();
            (root.join(name), "memory.high")
        };
        fs::create_dir(&dir).unwrap();
        let cramped = Self(dir);
        fs::write(cramped.0.join(limit), bytes.to_string()).unwrap();
        cramped
    }

    /// Runs a command in the group by a shell.
    fn run(&self, command: &str) {
        let procs = self.0.join("cgroup.procs");
        let script = format!("echo $$ > {} && {command}", procs.display());
        run(Command::new("sh").args(["-e", "-c", &script])).success();
    }
}

impl Drop for Cramped {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn swapped_out_pages_in_a_file_are_sent() {
    let lab = Snapshotless::new(LARGE, "noatime");
    let file = lab.volume().join("swap");
    create_nocow(&file, &vec![0; 64 * MIB]);
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    tool("mkswap", &[&file]);
    let m = lab.push(None, "m");
    {
        let _swap = Swap::on(&file);
        let cramped = Cramped::new(8 * MIB);
        let memory = tempfile::Builder::new().tempfile_in("/dev/shm").unwrap();
        cramped.run(&format!(
            "dd if=/dev/urandom of={} bs=1M count=32 status=none",
            memory.path().display()
        ));
        drop(memory);
    }
    let n = lab.take("n");
    let (_, before, _) = m.file("swap");
    let (_, after, _) = n.file("swap");
    assert!(
        m.content("swap") != n.content("swap"),
        "nothing was swapped out"
    );
    assert_eq!(before.transid, after.transid, "the inode tells");
    assert_trap(&m, &n, "swap", Trap::SameExtent);
    lab.send(Some(&m), &n);
}

// --- Transactions and lineage ---

#[test]
fn an_old_disk_image_is_not_a_later_state() {
    let lab = Snapshotless::new(SMALL, "");
    let f = lab.volume().join("f");
    fs::write(&f, vec![0; MIB]).unwrap();
    let first = lab.push(None, "first");
    let image = lab.image();
    for round in 1..4 {
        overwrite(&f, &vec![round; MIB]);
        lab.commit();
    }
    let m = lab.push(Some(&first), "m");

    lab.restore(&image);
    overwrite(&f, &vec![9; MIB]);
    let n = lab.take("n");
    let (m_head, n_head) = (m.sendshot.head(), n.sendshot.head());
    assert!(n_head.otransid < m_head.otransid, "time did not go back");
    assert_eq!(n_head.fsid, m_head.fsid);
    assert_eq!(n_head.parent_uuid, m_head.parent_uuid);
    assert!(
        n.file("f").1.transid <= m_head.otransid,
        "a rule by transaction would send it"
    );
    // States of the lost future are no parents; states that the image itself has are.
    assert_eq!(Kinship::of(m_head, n_head), Kinship::None);
    let full = lab.stream(None, &n).unwrap().len();
    assert_eq!(Kinship::of(first.sendshot.head(), n_head), Kinship::Lineage);
    let sent = lab.send(Some(&first), &n);
    assert!(sent <= full + 1000, "{sent} of {full}");
    lab.forget(&n);
    overwrite(&f, b"and on");
    let later = lab.take("later");
    lab.send(Some(&n), &later);
}

#[test]
fn an_older_disk_image_has_matching_retained_states() {
    let mut hosts = Paired::new();
    let photos = hosts.sender.photos();
    let push = |hosts: &Paired| {
        let engine = ["--engine", "sendshot"];
        let pushed = hosts.sender.push_with("nas2:photos", &engine);
        let copy = sendshot_harness::compare::exact::assert_copy(&hosts.receiver, &pushed);
        sendshot_harness::compare::exact::assert_same(&hosts.sender.photos(), &copy);
        pushed
    };
    let write = |byte: u8| fs::write(photos.join("f"), vec![byte; MIB]).unwrap();
    write(1);
    let first = push(&hosts);
    hosts.sender.daemon.stop();
    let (mounted, dir) = (hosts.sender.fs().to_owned(), tempfile::tempdir().unwrap());
    let (image, old) = (
        sendshot_harness::disks::mount::image(&mounted),
        dir.path().join("old"),
    );
    let unmounted = |work: &dyn Fn()| {
        loopfs::unmount_free(&mounted).unwrap();
        work();
        sendshot_harness::disks::mount::mount(&image, &mounted, "loop");
    };
    unmounted(&|| {
        fs::copy(&image, &old).unwrap();
    });
    hosts.sender.daemon.start();
    write(2);
    let lost = push(&hosts);
    write(3);
    push(&hosts);
    hosts.sender.daemon.stop();
    unmounted(&|| {
        fs::copy(&old, &image).unwrap();
    });
    hosts.sender.daemon.start();

    // The transaction numbers of the lost future are used again, with other content.
    write(4);
    for _ in 0..20 {
        btrfs(&["filesystem", "sync"], &[&mounted]);
        fs::write(photos.join("tick"), "tock").unwrap();
    }
    let again = push(&hosts);
    assert_eq!(again["parent"], first["uuid"], "not {}", lost["uuid"]);
    write(5);
    assert_eq!(push(&hosts)["parent"], again["uuid"]);
}

/// Replaces the volume by a writable snapshot of `to`.
fn roll_back(lab: &Snapshotless, to: &Path) {
    lab.delete(&lab.volume());
    btrfs(&["subvolume", "snapshot"], &[to, &lab.volume()]);
}

#[test]
fn a_volume_replaced_by_an_older_state_is_compared() {
    let lab = Snapshotless::new(LARGE, "");
    let volume = lab.volume();
    let write = |name: &str, byte: u8| fs::write(volume.join(name), vec![byte; MIB]).unwrap();
    create_nocow(&volume.join("nocow"), &vec![1; MIB]);
    write("changed", 1);
    write("deleted", 1);
    write("same", 1);
    let past = lab.snapshot("past");
    write("changed", 2);
    overwrite(&volume.join("nocow"), &vec![2; MIB]);
    fs::remove_file(volume.join("deleted")).unwrap();
    write("new", 2);
    let m = lab.push(None, "m");
    roll_back(&lab, &past);
    let n = lab.take("n");
    let since = m.sendshot.head().otransid;
    for name in ["changed", "nocow", "deleted"] {
        let (_, inode, extents) = n.file(name);
        assert!(
            inode.transid <= since && extents.iter().all(|e| e.generation <= since),
            "{name}: a rule by transaction alone would see it"
        );
    }
    assert!(m.content("changed") != n.content("changed"));
    let kinship = Kinship::of(m.sendshot.head(), n.sendshot.head());
    assert_eq!(kinship, Kinship::Filesystem);
    lab.send(Some(&m), &n);
}

/// Makes a volume and its past in which a file of the same name was made in one transaction, with the
/// same inode number but other bytes. `None` if a transaction ended in between.
fn try_twins(len: usize, nocow: bool) -> Option<(Snapshotless, State, State)> {
    // With this option data is written in the transaction in which it was handed over.
    let lab = Snapshotless::new(LARGE, "flushoncommit");
    fs::write(lab.volume().join("before"), "both have it").unwrap();
    let past = lab.fs().join("past");
    btrfs(&["subvolume", "snapshot"], &[&lab.volume(), &past]);
    lab.commit();
    for (root, byte) in [(lab.volume(), 1), (past.clone(), 2)] {
        let (file, bytes) = (root.join("twin"), vec![byte; len]);
        if nocow {
            create_nocow(&file, &bytes);
        } else {
            fs::write(&file, bytes).unwrap();
        }
    }
    lab.commit();
    let m = lab.push(None, "m");
    roll_back(&lab, &past);
    let n = lab.take("n");
    let identity = |of: &State| {
        let (ino, inode, _) = of.file("twin");
        (*ino, inode.generation, inode.transid, inode.size)
    };
    (identity(&m) == identity(&n)).then_some((lab, m, n))
}

fn twins(len: usize, nocow: bool) -> (Snapshotless, State, State) {
    let made = (0..ATTEMPTS).find_map(|_| try_twins(len, nocow));
    let (lab, m, n) = made.unwrap_or_else(|| {
        panic!("{len} bytes: a transaction ended between two writes, {ATTEMPTS} times")
    });
    assert!(m.content("twin") != n.content("twin"));
    (lab, m, n)
}

#[test]
fn twins_of_one_transaction_are_distinguished() {
    for (len, nocow) in [
        (1000, false),
        (3000, false),
        (64 << 10, false),
        (64 << 10, true),
    ] {
        let (lab, m, n) = twins(len, nocow);
        lab.send(Some(&m), &n);
    }
}

// --- Deduplication of a snapshot being sent ---

/// Makes the kernel share the first bytes of one file with another, both read-only, as duperemove
/// and bees do.
fn dedupe(snapshot: &Path, from: &str, to: &str, len: usize) {
    let command = format!("dedupe {} 0 0 {len}", snapshot.join(from).display());
    let to = snapshot.join(to);
    tool(
        "xfs_io",
        &[
            "-r".as_ref(),
            "-c".as_ref(),
            command.as_ref(),
            to.as_os_str(),
        ],
    );
}

fn ctransid(snapshot: &Path) -> u64 {
    sendshot_sys::subvolume::info(File::open(snapshot).unwrap())
        .unwrap()
        .ctransid
}

/// Makes a volume with equal files that was sent once.
fn equals(mount_options: &str) -> (Snapshotless, State) {
    let lab = Snapshotless::new(LARGE, mount_options);
    let write = |name: &str, byte: u8| {
        let bytes: Vec<u8> = (0..MIB).map(|n| byte ^ (n / 5000) as u8).collect();
        fs::write(lab.volume().join(name), bytes).unwrap();
        lab.commit();
    };
    write("a", 1);
    write("b", 1);
    write("c", 2);
    let m = lab.push(None, "m");
    // Now equal to `c`, and different from what was sent.
    write("b", 2);
    write("d", 1);
    (lab, m)
}

#[test]
fn a_snapshot_deduplicated_before_capture_is_exact() {
    for options in ["", "compress-force=zstd"] {
        let (lab, m) = equals(options);
        let snapshot = lab.snapshot("n");
        let before = ctransid(&snapshot);
        // Shares old extents with a changed file, and changed ones with an old file.
        dedupe(&snapshot, "c", "b", MIB);
        dedupe(&snapshot, "d", "a", MIB / 2);
        lab.commit();
        let n = lab.capture(snapshot);
        let head = n.sendshot.head();
        assert!(head.ctransid > before, "it was not deduplicated");
        assert!(!head.is_pristine());
        let since = m.sendshot.head().otransid;
        let (_, _, shared) = n.file("b");
        assert!(
            shared.iter().all(|e| e.generation <= since),
            "b has no old extents"
        );
        lab.send(Some(&m), &n);
        lab.forget(&n);
        overwrite(&lab.volume().join("a"), b"changed after all that");
        fs::copy(lab.volume().join("c"), lab.volume().join("d")).unwrap();
        let later = lab.take("later");
        lab.send(Some(&n), &later);
    }
}

#[test]
fn a_snapshot_deduplicated_during_the_send_is_exact() {
    for options in ["", "compress-force=zstd"] {
        let (lab, m) = equals(options);
        let n = lab.take("n");
        assert!(n.sendshot.head().is_pristine());
        dedupe(&n.snapshot, "c", "b", MIB);
        dedupe(&n.snapshot, "a", "d", MIB / 2);
        lab.commit();
        let now = ctransid(&n.snapshot);
        assert!(now > n.sendshot.head().ctransid, "it was not deduplicated");
        lab.send(Some(&m), &n);
        lab.forget(&n);
        overwrite(&lab.volume().join("b"), b"changed after all that");
        let later = lab.take("later");
        lab.send(Some(&n), &later);
    }
}

// --- Attributes that a stock receiver adds by itself ---

#[test]
fn a_moved_file_inherits_no_compression() {
    let lab = Snapshotless::new(LARGE, "");
    let dir = lab.volume().join("dir");
    fs::create_dir(&dir).unwrap();
    btrfs(
        &["property", "set"],
        &[&dir, Path::new("compression"), Path::new("zlib")],
    );
    let m = lab.push(None, "m");
    let new = lab.volume().join("new");
    fs::write(&new, "made elsewhere").unwrap();
    fs::rename(&new, dir.join("new")).unwrap();
    let n = lab.take("n");
    lab.send(Some(&m), &n);
}
