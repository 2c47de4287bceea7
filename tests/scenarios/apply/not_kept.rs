//! What `sendshot-apply` leaves out because a file system cannot keep it, and what it keeps. Needs root.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs::File;
use std::path::Path;

use sendshot_apply::parent::Trust;
use sendshot_apply::receive::{Event, Options, ReceiveError};
use sendshot_apply::{Policies, Scope};
use sendshot_harness::compare::inode_flags;
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_model::{NotKept, NotKeptEntry, NotKeptKind};
use sendshot_stream::{Command, Encoder, Version};
use uuid::Uuid;

const NOCOW: u64 = 2;
const NOCOMPRESS: u64 = 8;
const COMPRESS: u64 = 0x800;

fn btrfs(mount: &str) -> LoopFs {
    LoopFs::new(512 << 20, &[], mount).unwrap()
}

/// Receives a full stream as subvolume `s1`; returns what is not kept.
fn receive(fs: &LoopFs, commands: &[Command<'_>]) -> Result<Vec<NotKeptEntry>, ReceiveError> {
    let begin = Command::Subvol {
        path: b"s1",
        uuid: Uuid::from_u128(1),
        ctransid: 5,
    };
    let encoder = Encoder::new(Version::V2);
    let mut bytes = Vec::new();
    encoder.header(&mut bytes);
    for command in [&[begin], commands, &[Command::End]].concat() {
        encoder.command(&command, &mut bytes).unwrap();
    }
    let options = Options {
        scope: Scope::default(),
        trust: Trust::Strict,
        policies: Policies::default(),
    };
    let dir = File::open(fs.path()).unwrap();
    let mut lacks = NotKept::default();
    sendshot_apply::receive(&bytes[..], &dir, options, |event| {
        if let Event::NotKept(list) = event {
            lacks = list;
        }
    })?;
    Ok(lacks.entries())
}

fn mkfile(path: &str) -> Command<'_> {
    let path = path.as_bytes();
    Command::Mkfile { path }
}

fn compression<'a>(path: &'a str, value: &'a str) -> Command<'a> {
    Command::SetXattr {
        path: path.as_bytes(),
        name: b"btrfs.compression",
        data: value.as_bytes(),
    }
}

fn fileattr(path: &str, flags: u64) -> Command<'_> {
    let path = path.as_bytes();
    Command::Fileattr { path, flags }
}

fn write(path: &str) -> Command<'_> {
    Command::Write {
        path: path.as_bytes(),
        offset: 0,
        data: &[7; 8192],
    }
}

fn entry(kind: NotKeptKind, count: u64, example: &str) -> NotKeptEntry {
    NotKeptEntry {
        kind,
        count,
        example: example.to_owned(),
    }
}

fn property(path: &Path) -> Option<Vec<u8>> {
    let mut value = vec![0; 64];
    let len = rustix::fs::getxattr(path, "btrfs.compression", &mut value[..]).ok()?;
    value.truncate(len);
    Some(value)
}

#[test]
fn a_property_without_checksums_is_left_out() {
    for mount in ["nodatacow", "nodatasum"] {
        let fs = btrfs(mount);
        let lacks = receive(
            &fs,
            &[
                mkfile("a"),
                compression("a", "zstd:3"),
                write("a"),
                mkfile("b"),
                fileattr("b", COMPRESS),
                compression("b", "lzo"),
                fileattr("b", COMPRESS | 0x40),
                Command::Mkdir { path: b"dir" },
                compression("dir", "zlib"),
                mkfile("none"),
                compression("none", "none"),
            ],
        );
        let expected = entry(NotKeptKind::CompressionProperty, 3, "a");
        assert_eq!(lacks.unwrap(), [expected], "{mount}");
        let at = |name: &str| fs.path().join("s1").join(name);
        for name in ["a", "b", "none"] {
            assert_eq!(property(&at(name)), None, "{mount}: {name}");
        }
        assert_eq!(property(&at("dir")).unwrap(), b"zlib");
        let flags = inode_flags::all(&at("b")).unwrap();
        assert_eq!(flags.replace('C', ""), "i", "{mount}");
    }
}

#[test]
fn a_file_without_checksums_excuses_no_wrong_stream() {
    let fs = btrfs("nodatacow");
    for value in ["bogus", "none:1", "ZSTD"] {
        let error = receive(&fs, &[mkfile("a"), compression("a", value)]);
        assert!(error.is_err(), "{value}");
    }
    for (name, data) in [
        ("btrfs.bogus", &b"zstd"[..]),
        ("system.posix_acl_access", b"zstd"),
        ("security.capability", b"zstd"),
    ] {
        let set = Command::SetXattr {
            path: b"a",
            name: name.as_bytes(),
            data,
        };
        assert!(receive(&fs, &[mkfile("a"), set]).is_err(), "{name}");
    }
}

#[test]
fn nothing_is_left_out_where_everything_can_be_kept() {
    let fs = btrfs("");
    let lacks = receive(
        &fs,
        &[
            mkfile("a"),
            fileattr("a", NOCOW | NOCOMPRESS),
            mkfile("b"),
            fileattr("b", COMPRESS),
            compression("b", "zstd"),
            fileattr("b", COMPRESS | 0x40),
            // Changes one flag for the other.
            mkfile("c"),
            fileattr("c", NOCOW),
            fileattr("c", NOCOMPRESS),
            mkfile("d"),
            compression("d", "zstd"),
            fileattr("d", NOCOW),
        ],
    );
    assert_eq!(lacks.unwrap(), []);
    let at = |name: &str| fs.path().join("s1").join(name);
    let flags = ["a", "b", "c", "d"].map(|name| inode_flags::all(&at(name)).unwrap());
    assert_eq!(flags, ["mC", "ic", "m", "C"]);
    assert_eq!(property(&at("b")).unwrap(), b"zstd");
}

/// The kernel's streams make everything in the root, and send the root's flags first.
#[test]
fn new_files_take_no_flags_from_their_directory() {
    for flags in [NOCOW, NOCOMPRESS] {
        let fs = btrfs("");
        let dir = Command::Mkdir { path: b"dir" };
        let renamed = Command::Rename {
            path: b"o257",
            to: b"dir/renamed",
        };
        let commands = [
            fileattr("", flags),
            dir,
            mkfile("o257"),
            renamed,
            mkfile("dir/made"),
            mkfile("in-root"),
            write("in-root"),
        ];
        assert_eq!(receive(&fs, &commands).unwrap(), []);
        let at = |name: &str| fs.path().join("s1").join(name);
        for name in ["dir", "dir/renamed", "dir/made", "in-root"] {
            assert_eq!(inode_flags::all(&at(name)).unwrap(), "", "{name}");
        }
        assert_ne!(inode_flags::all(&at("")).unwrap(), "");
    }
}

/// The kernel refuses further flags beside both `C` and `m`, and `m` has no effect beside `C`.
#[test]
fn an_immutable_file_that_is_overwritten_in_place_is_both() {
    let fs = btrfs("");
    let lacks = receive(
        &fs,
        &[
            mkfile("a"),
            fileattr("a", NOCOW | NOCOMPRESS),
            write("a"),
            fileattr("a", NOCOW | NOCOMPRESS | 0x40),
        ],
    );
    let expected = entry(NotKeptKind::CompressionFlag, 1, "a");
    assert_eq!(lacks.unwrap(), [expected]);
    let flags = inode_flags::all(&fs.path().join("s1/a")).unwrap();
    assert_eq!(flags, "iC");
}

/// The kernel's streams have this order: flags come last.
#[test]
fn a_flag_that_only_an_empty_file_takes_is_counted() {
    let fs = btrfs("");
    let lacks = receive(
        &fs,
        &[
            mkfile("a"),
            write("a"),
            fileattr("a", NOCOW),
            mkfile("b"),
            write("b"),
            fileattr("b", NOCOW),
        ],
    );
    let expected = entry(NotKeptKind::NoCopyOnWrite, 2, "a");
    assert_eq!(lacks.unwrap(), [expected]);
}

#[test]
fn a_mount_option_wins_over_the_flags_of_a_file() {
    let fs = btrfs("nodatacow");
    let commands = [
        mkfile("a"),
        fileattr("a", NOCOMPRESS),
        mkfile("b"),
        fileattr("b", 0),
    ];
    assert_eq!(receive(&fs, &commands).unwrap(), []);
    let at = |name: &str| fs.path().join("s1").join(name);
    assert_eq!(inode_flags::all(&at("a")).unwrap(), "mC");
    assert_eq!(inode_flags::all(&at("b")).unwrap(), "C");
}
