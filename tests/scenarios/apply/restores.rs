//! Restores into plain directories, on file systems that keep everything, little or almost nothing. What is not
//! kept must be listed, and everything else must be as in the source. Needs root.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeSet;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;

use sendshot_apply::private_dir::{self, PREFIX};
use sendshot_apply::{
    Announced, CloneSources, Host, Policies, PrivateDir, Privileges, PublishError, RunPolicy,
    Session, SessionError, Subvolumes, Unsupported,
};
use sendshot_engine::diff::Version;
use sendshot_engine::stream::Pages;
use sendshot_engine::{Frozen, Source, WireNumber, save_to, stream};
use sendshot_harness::compare::tree;
use sendshot_harness::disks::loopfs::{LoopFs, run};
use sendshot_harness::disks::mount::Mount;
use sendshot_harness::disks::simple_fs::{MAX_FILE, SimpleFs};
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::command::tool;
use sendshot_harness::trees::random::Random;
use sendshot_harness::trees::{changes, every_file_kind, fill};
use sendshot_model::LeftOutKind::{self, *};
use sendshot_model::{LeftOut, NotKept, NotKeptKind};
use sendshot_stream::{Command, Encoder, Timespec, Version as StreamVersion};
use uuid::Uuid;

/// Random trees in every run of the tests.
const TREES: u64 = 6;
/// Changes that make a random tree.
const CHANGES: u64 = 250;

const EVERYTHING: Policies = with(Privileges::Apply);
const UNPRIVILEGED: Policies = with(Privileges::List);

const fn with(privileges: Privileges) -> Policies {
    Policies {
        encoded: sendshot_apply::EncodedPolicy::Store,
        clone: sendshot_apply::ClonePolicy::Share,
        unsupported: Unsupported::List,
        privileges,
        runs: RunPolicy::USUAL,
    }
}

struct Restore {
    dir: PrivateDir,
    left_out: LeftOut,
    not_kept: NotKept,
}

impl CloneSources for Restore {
    fn open(&mut self, _: Uuid, _: u64) -> Result<OwnedFd, Box<dyn Error + Send + Sync>> {
        Err("a restore has no other source".into())
    }
}

impl Host for Restore {
    type Error = std::io::Error;

    fn begin(&mut self, _: &Announced) -> Result<OwnedFd, std::io::Error> {
        self.dir.tree_for_applier()
    }

    fn complete(&mut self, _: &Announced, _: Arc<OwnedFd>) -> Result<(), std::io::Error> {
        Ok(())
    }

    fn not_kept(&mut self, lacks: &NotKept) {
        self.not_kept.add_all(lacks);
    }

    fn left_out(&mut self, left_out: &LeftOut) {
        self.left_out.add_all(left_out);
    }
}

impl Restore {
    fn counts(&self) -> Vec<(LeftOutKind, u64, String)> {
        let entries = self.left_out.entries().into_iter();
        entries
            .map(|entry| (entry.kind, entry.count, entry.example))
            .collect()
    }

    fn publish(&self, names: &[&str]) {
        for name in names {
            self.dir.publish(name.as_bytes(), OsStr::new(name)).unwrap();
        }
    }
}

fn apply(
    target: &Path,
    bytes: &[u8],
    policies: Policies,
) -> Result<Restore, SessionError<std::io::Error>> {
    let target = File::open(target).unwrap();
    let host = Restore {
        dir: PrivateDir::new(&target).unwrap(),
        left_out: LeftOut::default(),
        not_kept: NotKept::default(),
    };
    let mut session = Session::new(host, Subvolumes::One, policies);
    for segment in bytes.chunks(100_000) {
        session.feed(segment)?;
    }
    session.finish()
}

fn encoded(commands: &[Command<'_>]) -> Vec<u8> {
    let begin = Command::Subvol {
        path: b"s1",
        uuid: Uuid::from_u128(1),
        ctransid: 5,
    };
    let encoder = Encoder::new(StreamVersion::V2);
    let mut bytes = Vec::new();
    encoder.header(&mut bytes);
    for command in [&[begin], commands, &[Command::End]].concat() {
        encoder.command(&command, &mut bytes).unwrap();
    }
    bytes
}

fn restore(target: &Path, commands: &[Command<'_>], policies: Policies) -> Restore {
    apply(target, &encoded(commands), policies).unwrap()
}

/// A volume and its full stream.
struct Origin {
    disk: LoopFs,
    stream: Vec<u8>,
}

impl Origin {
    fn new(mount: &str, fill: impl FnOnce(&Path)) -> Self {
        let disk = LoopFs::new(1 << 30, &[], mount).unwrap();
        let (volume, snapshot) = (disk.path().join("volume"), disk.path().join("s"));
        streams::create(&volume).unwrap();
        fill(&volume);
        streams::snapshot(&volume, &snapshot).unwrap();
        let files = tempfile::tempdir().unwrap();
        let root = File::open(&snapshot).unwrap();
        let path = files.path().join("whole");
        let (target, _) = save_to(Frozen::snapshot(&root), WireNumber::Local, None, &path).unwrap();
        let source = Source {
            parent: None,
            target: &target,
            snapshot: &root,
            name: b"s",
            version: Version::V2,
            pages: Pages::Keep,
        };
        let mut bytes = Vec::new();
        stream(&source, None, |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })
        .unwrap();
        Self {
            disk,
            stream: bytes,
        }
    }

    fn snapshot(&self) -> PathBuf {
        self.disk.path().join("s")
    }

    fn names(&self) -> BTreeSet<OsString> {
        let entries = fs::read_dir(self.snapshot()).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }

    /// Whether a line is about a directory, or about an entry of `names`, where no file has a second link.
    fn is_dir(&self, line: &str) -> bool {
        let path = line.split(": nlink").next().unwrap();
        path.starts_with("names/") || self.snapshot().join(path).is_dir()
    }

    /// Restores everything into `target` and publishes it; returns the differences.
    fn restore(&self, target: &Path, policies: Policies) -> (Restore, Vec<String>) {
        let restored = apply(target, &self.stream, policies).unwrap();
        for name in self.names() {
            match restored.dir.publish(name.as_bytes(), &name) {
                // It was left out.
                Err(PublishError::Entry(e)) if e.kind() == std::io::ErrorKind::NotFound => {}
                published => published.unwrap(),
            }
        }
        // The root of the comparison is not restored, and only btrfs does not count directories as links.
        let differences =
            tree::compare_with(&self.snapshot(), target, tree::Layout::Holes).unwrap();
        let is_restored = |line: &String| {
            let is_dir_count = line.contains(": nlink: 0o1 / ") && self.is_dir(line);
            !line.starts_with(':') && !line.contains(PREFIX) && !is_dir_count
        };
        let differences = differences.into_iter().filter(is_restored);
        (restored, differences.collect())
    }
}

/// Makes a file system. Without `noatime`, comparing the trees would change the access times of links.
fn made(mkfs: &str, arguments: &[&str]) -> LoopFs {
    let mut mkfs = process::Command::new(mkfs);
    LoopFs::made_by(mkfs.args(arguments), 512 << 20, "noatime").unwrap()
}

fn in_memory(kind: &str) -> Mount {
    Mount::of_kind(kind)
}

fn kinds(restored: &Restore) -> BTreeSet<LeftOutKind> {
    let entries = restored.left_out.entries().into_iter();
    entries.map(|entry| entry.kind).collect()
}

/// Lists the differences that none of the given words explains: `path-part: what`.
fn unexplained<'a>(differences: &'a [String], explained: &[(&str, &str)]) -> Vec<&'a String> {
    let is_explained = |line: &&String| {
        let is = |(path, what): &(&str, &str)| line.contains(path) && line.contains(what);
        explained.iter().any(is)
    };
    differences
        .iter()
        .filter(|line| !is_explained(line))
        .collect()
}

fn mkfile(path: &str) -> Command<'_> {
    let path = path.as_bytes();
    Command::Mkfile { path }
}

fn mkdir(path: &str) -> Command<'_> {
    let path = path.as_bytes();
    Command::Mkdir { path }
}

fn write<'a>(path: &'a str, data: &'a str) -> Command<'a> {
    let (path, data) = (path.as_bytes(), data.as_bytes());
    Command::Write {
        path,
        offset: 0,
        data,
    }
}

fn link<'a>(path: &'a str, existing: &'a str) -> Command<'a> {
    let (path, existing) = (path.as_bytes(), existing.as_bytes());
    Command::Link { path, existing }
}

fn chmod(path: &str, mode: u64) -> Command<'_> {
    let path = path.as_bytes();
    Command::Chmod { path, mode }
}

fn chown(path: &str, uid: u64) -> Command<'_> {
    let path = path.as_bytes();
    Command::Chown {
        path,
        uid,
        gid: uid,
    }
}

fn utimes(path: &str, sec: i64) -> Command<'_> {
    let time = Timespec { sec, nsec: 0 };
    Command::Utimes {
        path: path.as_bytes(),
        atime: time,
        mtime: time,
        ctime: time,
        otime: None,
    }
}

fn xattr<'a>(path: &'a str, name: &'a str, data: &'a [u8]) -> Command<'a> {
    Command::SetXattr {
        path: path.as_bytes(),
        name: name.as_bytes(),
        data,
    }
}

fn clone<'a>(path: &'a str, from: &'a str, len: u64) -> Command<'a> {
    Command::Clone {
        path: path.as_bytes(),
        offset: 0,
        len,
        clone_uuid: Uuid::from_u128(1),
        clone_ctransid: 5,
        clone_path: from.as_bytes(),
        clone_offset: 0,
    }
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap()
}

fn listed(expected: &[(LeftOutKind, u64, &str)]) -> Vec<(LeftOutKind, u64, String)> {
    let owned =
        |(kind, count, example): &(LeftOutKind, u64, &str)| (*kind, *count, (*example).to_owned());
    expected.iter().map(owned).collect()
}

#[test]
fn a_directory_on_btrfs_gets_everything() {
    let origin = Origin::new("compress-force=zstd", every_file_kind::fill);
    let disk = LoopFs::new(1 << 30, &[], "noatime").unwrap();
    let target = disk.path().join("home");
    fs::create_dir(&target).unwrap();
    let (restored, differences) = origin.restore(&target, EVERYTHING);
    assert_eq!(differences, [""; 0]);
    assert_eq!(restored.counts(), []);
    assert!(restored.not_kept.is_empty(), "{:?}", restored.not_kept);
}

#[test]
fn a_directory_on_btrfs_gets_random_trees_exactly() {
    for seed in 1..=TREES {
        eprintln!("seed {seed}");
        let random = &mut Random::new(seed);
        let mount = random.pick(&["", "compress-force=zstd", "nodatasum"]);
        let origin = Origin::new(mount, |root| {
            for _ in 0..CHANGES {
                changes::change(random, root);
            }
        });
        let disk = LoopFs::new(1 << 30, &[], "noatime").unwrap();
        let (restored, differences) = origin.restore(disk.path(), EVERYTHING);
        assert_eq!(differences, [""; 0]);
        assert_eq!(restored.counts(), []);
        assert!(restored.not_kept.is_empty(), "{:?}", restored.not_kept);
    }
}

#[test]
fn other_file_systems_of_linux_lack_what_is_listed() {
    let origin = Origin::new("compress-force=zstd", every_file_kind::fill);
    let far = ("times/far", "time");
    let property = ("attributes/xattrs", "xattrs");
    for (name, disk, kinds_expected, explained) in [
        (
            "ext4",
            made("mkfs.ext4", &["-I", "256"]),
            vec![Times, SharedData, CompressedData],
            vec![far, property],
        ),
        (
            "xfs",
            made("mkfs.xfs", &["-m", "reflink=1", "-s", "size=4096"]),
            vec![SymbolicLink, Times, CompressedData],
            vec![
                far,
                property,
                // A target has at most 1024 bytes.
                ("links/far", "exists only in: \"a\""),
                // Space that is reserved while a file grows is shown as data.
                ("data/sparse", "data and holes"),
                // Access control lists are shown twice.
                ("", "trusted.SGI_ACL_"),
            ],
        ),
    ] {
        let target = disk.path().join("home");
        fs::create_dir(&target).unwrap();
        let (restored, differences) = origin.restore(&target, EVERYTHING);
        eprintln!("{name}: {:?}, {:?}", restored.counts(), restored.not_kept);
        assert_eq!(unexplained(&differences, &explained), [""; 0], "{name}");
        assert_eq!(
            kinds(&restored),
            BTreeSet::from_iter(kinds_expected),
            "{name}"
        );
        let lacks = restored.not_kept.entries();
        assert_eq!(lacks.len(), 1, "{name}: {lacks:?}");
        assert_eq!(lacks[0].kind, NotKeptKind::CompressionProperty, "{name}");
    }
    let memory = in_memory("tmpfs");
    let (restored, differences) = origin.restore(memory.path(), EVERYTHING);
    eprintln!("tmpfs: {:?}, {:?}", restored.counts(), restored.not_kept);
    assert_eq!(unexplained(&differences, &[property]), [""; 0], "tmpfs");
    let expected = BTreeSet::from([SharedData, CompressedData]);
    assert_eq!(kinds(&restored), expected);
}

/// `ramfs` has no extended attributes, reservations, or flags, and shows no holes.
#[test]
fn a_file_system_without_attributes_lacks_what_is_listed() {
    let origin = Origin::new("", |root| {
        every_file_kind::fill(root);
        fill::file(root.join("reserved"), 3, 10_000);
        let path = root.join("reserved");
        tool(
            "fallocate",
            &[
                "-n".as_ref(),
                "-l".as_ref(),
                "1M".as_ref(),
                path.as_os_str(),
            ],
        );
        // The biggest files would fill the memory.
        fs::remove_file(root.join("data/all hole")).unwrap();
        tool("chattr", &["+d".as_ref(), path.as_os_str()]);
    });
    let memory = in_memory("ramfs");
    let (restored, differences) = origin.restore(memory.path(), EVERYTHING);
    eprintln!("{:?}, {:?}", restored.counts(), restored.not_kept);
    let explained = [
        ("", "xattrs"),
        ("data/", "data and holes"),
        ("reserved", "data and holes"),
        // Everything has a list, from the root's default, whose group may only read.
        ("attributes/acl", "mode: 0o100674 / 0o100644"),
        ("", "mode: 0o100660 / 0o100640"),
        ("", "mode: 0o40770 / 0o40750"),
    ];
    assert_eq!(unexplained(&differences, &explained), [""; 0]);
    let expected = BTreeSet::from([
        AccessControlList,
        Capability,
        ExtendedAttribute,
        Holes,
        Reservation,
        SharedData,
    ]);
    assert_eq!(kinds(&restored), expected);
    let lacks = restored.not_kept.entries();
    let lacking: Vec<_> = lacks.iter().map(|entry| entry.kind).collect();
    let both = [NotKeptKind::CompressionProperty, NotKeptKind::OtherFlag];
    assert_eq!(lacking, both);
}

/// The bits of the group in the mode of a file with a list are the upper limit of the list.
#[test]
fn a_lost_access_control_list_gives_its_group_no_more() {
    let memory = in_memory("ramfs");
    let entry =
        |tag: u8, rights: u8, id: u32| [&[tag, 0, rights, 0][..], &id.to_le_bytes()].concat();
    let any = u32::MAX;
    let list = [
        vec![2, 0, 0, 0],
        entry(1, 6, any),
        entry(2, 7, 1001),
        entry(4, 0, any),
        entry(16, 7, any),
        entry(32, 0, any),
    ]
    .concat();
    let restored = restore(
        memory.path(),
        &[
            mkfile("f"),
            xattr("f", "system.posix_acl_access", &list),
            chown("f", 7),
            chmod("f", 0o670),
            mkfile("g"),
            chmod("g", 0o670),
        ],
        EVERYTHING,
    );
    restored.publish(&["f", "g"]);
    let mode = |name: &str| fs::metadata(memory.path().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("f"), mode("g")), (0o600, 0o670));
    assert_eq!(restored.counts(), listed(&[(AccessControlList, 1, "f")]));
}

#[test]
fn privileges_are_left_out_unless_requested() {
    let origin = Origin::new("", every_file_kind::fill);
    let disk = LoopFs::new(1 << 30, &[], "noatime").unwrap();
    for (name, unsupported) in [("list", Unsupported::List), ("refuse", Unsupported::Refuse)] {
        let target = disk.path().join(name);
        fs::create_dir(&target).unwrap();
        let policies = Policies {
            unsupported,
            ..UNPRIVILEGED
        };
        let (restored, differences) = origin.restore(&target, policies);
        let explained = [
            ("null", "exists only in: \"a\""),
            ("disk", "exists only in: \"a\""),
            ("attributes/capable", "xattrs"),
            ("attributes/setuid", "mode"),
            ("attributes/setgid", "mode"),
            ("attributes/sticky", "mode"),
            ("attributes/all", "mode"),
        ];
        assert_eq!(unexplained(&differences, &explained), [""; 0]);
        assert_eq!(differences.len(), explained.len(), "{differences:?}");
        let counts: Vec<_> = restored
            .counts()
            .into_iter()
            .map(|(kind, n, _)| (kind, n))
            .collect();
        let expected = [
            (DeviceNodeNotWanted, 2),
            (SetId, 4),
            (CapabilityNotWanted, 1),
        ];
        assert_eq!(counts, expected);
        let mode = |name: &str| {
            let path = target.join("attributes").join(name);
            fs::metadata(path).unwrap().permissions().mode() & 0o7777
        };
        assert_eq!((mode("setuid"), mode("sticky")), (0o755, 0o1777));
    }
}

#[test]
fn what_a_simple_file_system_cannot_hold_is_listed() {
    let simple = SimpleFs::new();
    let restored = restore(
        simple.path(),
        &[
            mkdir("dir"),
            mkdir("what?"),
            mkdir("what?/deeper"),
            mkfile("dir/plain"),
            write("dir/plain", "plain"),
            chown("dir/plain", 5),
            chmod("dir/plain", 0o4755),
            utimes("dir/plain", 1001),
            mkfile("dir/PLAIN"),
            write("dir/PLAIN", "another file"),
            utimes("dir/PLAIN", 1000),
            mkfile("what?/deeper/file"),
            write("what?/deeper/file", "lost"),
            Command::Symlink {
                path: b"dir/link",
                target: b"plain",
            },
            chown("dir/link", 5),
            utimes("dir/link", 1000),
            Command::Mkfifo { path: b"fifo" },
            chmod("fifo", 0o600),
            Command::Mknod {
                path: b"null",
                mode: 0o020_600,
                rdev: 0x103,
            },
            utimes("null", 1000),
            xattr("dir", "user.text", b"x"),
            utimes("what?/deeper", 1000),
            utimes("dir", 1000),
            utimes("", 1001),
        ],
        EVERYTHING,
    );
    restored.publish(&["dir"]);
    let expected = listed(&[
        (Name, 2, "what?"),
        (InLeftOutDirectory, 2, "what?/deeper"),
        (DeviceNode, 1, "null"),
        (SpecialFile, 1, "fifo"),
        (SymbolicLink, 1, "dir/link"),
        (Owner, 1, "dir/plain"),
        (Mode, 1, "dir/plain"),
        (SetId, 1, "dir/plain"),
        (ExtendedAttribute, 1, "dir"),
        (Times, 2, "dir/plain"),
    ]);
    assert_eq!(restored.counts(), expected);
    assert_eq!(read(simple.path().join("dir/plain")), "plain");
    let dir = fs::read_dir(simple.path().join("dir")).unwrap();
    assert_eq!(dir.count(), 1);
    assert_eq!(
        fs::metadata(simple.path().join("dir")).unwrap().mtime(),
        1000
    );
    drop(restored);
    assert_eq!(fs::read_dir(simple.path()).unwrap().count(), 1);
}

/// The data of an entry that was left out may be needed for another one.
#[test]
fn a_file_is_kept_if_any_of_its_names_can_be() {
    let simple = SimpleFs::new();
    let restored = restore(
        simple.path(),
        &[
            mkdir("d"),
            mkdir("no:dir"),
            mkfile("no:name"),
            link("d/one", "no:name"),
            link("no:dir/two", "no:name"),
            write("no:name", "of a file with three names"),
            utimes("no:name", 500),
            mkfile("no:dir/source"),
            write("no:dir/source", "cloned"),
            mkfile("d/clone"),
            clone("d/clone", "no:dir/source", 6),
            mkfile("d/first"),
            link("d/second", "d/first"),
            link("d/no*third", "d/first"),
            write("d/first", "of a file with two names"),
            utimes("d/first", 500),
            utimes("d", 1000),
            utimes("", 1000),
        ],
        EVERYTHING,
    );
    restored.publish(&["d"]);
    let at = |name: &str| simple.path().join("d").join(name);
    assert_eq!(read(at("one")), "of a file with three names");
    assert_eq!(read(at("clone")), "cloned");
    assert_eq!(read(at("first")), "of a file with two names");
    assert_eq!(read(at("second")), "of a file with two names");
    for (name, time) in [("one", 500), ("second", 500), (".", 1000)] {
        assert_eq!(fs::metadata(at(name)).unwrap().mtime(), time, "{name}");
    }
    let expected = listed(&[
        (Name, 3, "no:dir"),
        (InLeftOutDirectory, 2, "no:dir/two"),
        (HardLink, 2, "d/one"),
        (SharedData, 1, "d/clone"),
    ]);
    assert_eq!(restored.counts(), expected);
    // The substitutes are deleted before anything is published.
    let left = fs::read_dir(simple.path().join(restored.dir.name()).join("tree"));
    assert_eq!(left.unwrap().count(), 0);
}

#[test]
fn more_links_than_a_file_system_counts_become_files() {
    const LINKS: usize = 65_100;
    let disk = made("mkfs.ext4", &["-N", "100000"]);
    let names: Vec<String> = (0..LINKS).map(|n| format!("d/{n}")).collect();
    let mut commands = vec![mkdir("d"), mkfile("d/first")];
    commands.extend(names.iter().map(|name| link(name, "d/first")));
    commands.push(write("d/first", "content"));
    commands.push(xattr("d/first", "user.text", b"value"));
    commands.push(chown("d/first", 5));
    commands.push(chmod("d/first", 0o640));
    commands.push(utimes("d/first", 500));
    let restored = restore(disk.path(), &commands, EVERYTHING);
    restored.publish(&["d"]);
    // The kernel's EXT4_LINK_MAX.
    let linked = 65_000 - 1;
    let expected = [(HardLink, (LINKS - linked) as u64, format!("d/{linked}"))];
    assert_eq!(restored.counts(), expected);
    let last = disk.path().join(&names[LINKS - 1]);
    assert_eq!(read(last.clone()), "content");
    let stat = fs::metadata(&last).unwrap();
    assert_eq!(
        (stat.uid(), stat.mode() & 0o7777, stat.mtime()),
        (5, 0o640, 500)
    );
    let mut value = [0; 10];
    assert_eq!(
        rustix::fs::getxattr(&last, "user.text", &mut value[..]).unwrap(),
        5
    );
}

#[test]
fn data_is_never_left_out() {
    let simple = SimpleFs::new();
    let failed = |commands: &[Command<'_>], target: &Path| {
        let Err(error) = apply(target, &encoded(commands), EVERYTHING) else {
            panic!("it succeeded");
        };
        error.errno().unwrap()
    };
    let too_long = Command::Write {
        path: b"f",
        offset: MAX_FILE - 1,
        data: b"xy",
    };
    let errno = failed(&[mkfile("f"), too_long], simple.path());
    assert_eq!(errno, rustix::io::Errno::FBIG);
    let small = made("mkfs.ext4", &["-b", "1024"]);
    let big = vec![7; 1 << 19];
    let mut commands = vec![mkfile("f")];
    for n in 0..1200 {
        commands.push(Command::Write {
            path: b"f",
            offset: n << 19,
            data: &big,
        });
    }
    assert_eq!(failed(&commands, small.path()), rustix::io::Errno::NOSPC);
    // Nothing is left of failed restores.
    assert_eq!(fs::read_dir(simple.path()).unwrap().count(), 0);
    let left: Vec<_> = fs::read_dir(small.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["lost+found"]);
}

#[test]
fn an_attribute_that_is_too_large_is_listed() {
    let disk = made("mkfs.ext4", &[]);
    let value = vec![b'v'; 10_000];
    let commands = [mkfile("f"), xattr("f", "user.big", &value), write("f", "x")];
    let restored = restore(disk.path(), &commands, EVERYTHING);
    assert_eq!(restored.counts(), listed(&[(ExtendedAttribute, 1, "f")]));
}

#[test]
fn copies_still_refuse_what_cannot_be_kept() {
    let memory = in_memory("ramfs");
    let commands = encoded(&[mkfile("f"), xattr("f", "user.text", b"x")]);
    let refused = apply(memory.path(), &commands, Policies::default());
    let errno = refused.err().unwrap().errno();
    assert_eq!(errno, Some(rustix::io::Errno::OPNOTSUPP));
}

#[test]
fn an_entry_that_was_left_out_cannot_be_changed() {
    let simple = SimpleFs::new();
    let rename = Command::Rename {
        path: b"no?",
        to: b"yes",
    };
    let unlink = Command::Unlink { path: b"no?" };
    for change in [rename, unlink] {
        let failed = apply(
            simple.path(),
            &encoded(&[mkfile("no?"), change]),
            EVERYTHING,
        );
        let error = failed.err().unwrap();
        let text = std::error::Error::source(&error).unwrap().to_string();
        assert!(text.contains("cannot hold"), "{text}");
    }
}

#[test]
fn links_in_the_target_are_never_followed() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let (target, outside) = (dir.path().join("target"), dir.path().join("outside"));
    fs::create_dir(&target).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "untouched").unwrap();
    symlink(&outside, target.join("planted")).unwrap();
    symlink("../outside/new", target.join("dangling")).unwrap();
    let decoy = format!("{PREFIX}0123456789abcdef");
    symlink(&outside, target.join(&decoy)).unwrap();
    let restored = restore(
        &target,
        &[
            mkdir("planted"),
            mkfile("planted/file"),
            write("planted/file", "new"),
            mkfile("dangling"),
            Command::Symlink {
                path: b"out",
                target: outside.as_os_str().as_encoded_bytes(),
            },
        ],
        EVERYTHING,
    );
    for name in ["planted", "dangling", &decoy] {
        let refused = restored.dir.publish(b"planted", OsStr::new(name));
        assert!(matches!(refused, Err(PublishError::Exists(_))), "{name}");
    }
    for (path, name) in [
        ("out/file", "a"),
        ("planted", ".."),
        ("planted", "a/b"),
        ("../x", "a"),
    ] {
        assert!(
            restored
                .dir
                .publish(path.as_bytes(), OsStr::new(name))
                .is_err()
        );
    }
    // A link of the stream is not followed either.
    let through = encoded(&[
        Command::Symlink {
            path: b"out",
            target: b"/",
        },
        mkfile("out/file"),
    ]);
    assert!(apply(&target, &through, EVERYTHING).is_err());
    assert_eq!(private_dir::sweep(File::open(&target).unwrap()).unwrap(), 0);
    drop(restored);
    assert_eq!(read(outside.join("file")), "untouched");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    let left: BTreeSet<_> = fs::read_dir(&target)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        left,
        BTreeSet::from(["planted".into(), "dangling".into(), decoy])
    );
}

#[test]
fn a_private_directory_is_private_whatever_the_target_passes_on() {
    let disk = LoopFs::new(512 << 20, &[], "").unwrap();
    let target = disk.path().join("shared");
    fs::create_dir(&target).unwrap();
    tool(
        "setfacl",
        &[
            "-d".as_ref(),
            "-m".as_ref(),
            "u:1001:rwx,o::rwx".as_ref(),
            target.as_os_str(),
        ],
    );
    tool("chattr", &["+C".as_ref(), target.as_os_str()]);
    fs::set_permissions(&target, fs::Permissions::from_mode(0o2777)).unwrap();
    let restored = restore(&target, &[mkfile("f"), chmod("", 0o777)], EVERYTHING);
    let path = target.join(restored.dir.name());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
    let acl = tool("getfacl", &["-cp".as_ref(), path.as_os_str()]);
    assert!(!acl.contains("1001"), "{acl}");
    restored.publish(&["f"]);
    let acl = tool("getfacl", &["-cp".as_ref(), target.join("f").as_os_str()]);
    assert!(!acl.contains("1001"), "{acl}");
    assert_eq!(
        sendshot_harness::compare::inode_flags::all(&target.join("f")).unwrap(),
        ""
    );
}

#[test]
fn an_immutable_entry_is_published_and_a_deep_tree_deleted() {
    const DEPTH: usize = 2000;
    let disk = LoopFs::new(512 << 20, &[], "").unwrap();
    let flags = |path, flags| Command::Fileattr { path, flags };
    let restored = restore(
        disk.path(),
        &[
            mkdir("d"),
            mkfile("d/file"),
            mkdir("d/append"),
            mkfile("d/append/file"),
            flags(b"d/file", 0x40),
            flags(b"d/append/file", 0x40),
            flags(b"d/append", 0x80),
            flags(b"d", 0x40),
            mkdir("stays"),
            mkfile("stays/file"),
            flags(b"stays/file", 0x40),
            flags(b"stays", 0x40),
        ],
        EVERYTHING,
    );
    restored.publish(&["d"]);
    let all = |path: &str| sendshot_harness::compare::inode_flags::all(&disk.path().join(path));
    assert_eq!(all("d").unwrap(), "i");
    assert_eq!(all("d/append").unwrap(), "a");
    // The rest is deleted with the directory.
    let tree = disk.path().join(restored.dir.name()).join("tree");
    let mut script = String::from("set -e; cd \"$0\"; ");
    script.push_str(&format!(
        "for n in $(seq {DEPTH}); do mkdir d; touch f; cd ./d; done"
    ));
    let deep = process::Command::new("sh")
        .arg("-c")
        .arg(script)
        .arg(&tree)
        .output()
        .unwrap();
    assert!(deep.status.success(), "{deep:?}");
    restored.dir.delete().unwrap();
    let left: Vec<_> = fs::read_dir(disk.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["d"]);
    run(process::Command::new("chattr")
        .args(["-R", "-ia"])
        .arg(disk.path().join("d")))
    .unwrap();
}

#[test]
fn only_directories_of_dead_restores_are_swept() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let target = File::open(dir.path()).unwrap();
    let running = PrivateDir::new(&target).unwrap();
    let stale = dir.path().join(format!("{PREFIX}1111111111111111"));
    fs::create_dir_all(stale.join("tree/a/b")).unwrap();
    fs::write(stale.join(".sendshot-restore"), "").unwrap();
    fs::create_dir(dir.path().join(format!("{PREFIX}2222222222222222"))).unwrap();
    // The owner of the target gave the name to another directory.
    let other = dir.path().join(format!("{PREFIX}3333333333333333"));
    fs::create_dir_all(other.join("tree")).unwrap();
    let foreign = dir.path().join(format!("{PREFIX}4444444444444444"));
    fs::create_dir_all(&foreign).unwrap();
    std::os::unix::fs::chown(&foreign, Some(1000), None).unwrap();
    assert_eq!(private_dir::sweep(&target).unwrap(), 2);
    assert!(!stale.exists() && other.exists() && foreign.exists());
    assert!(dir.path().join(running.name()).exists());
    running.delete().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}
