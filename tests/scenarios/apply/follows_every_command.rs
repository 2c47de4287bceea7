//! Commands that a stream may contain but the kernel's rarely or never do. Needs root.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;

use sendshot_apply::parent::Trust;
use sendshot_apply::receive::Options;
use sendshot_apply::{
    ClonePolicy, EncodedPolicy, Policies, Privileges, RunPolicy, Scope, Unsupported,
};
use sendshot_harness::disks::loopfs::{self, LoopFs};
use sendshot_stream::{Command, Encoder, Timespec, Version};
use uuid::Uuid;

const STORE: Policies = Policies {
    encoded: EncodedPolicy::Store,
    clone: ClonePolicy::Share,
    unsupported: Unsupported::Refuse,
    privileges: Privileges::Apply,
    runs: RunPolicy::USUAL,
};
const DECODE: Policies = Policies {
    encoded: EncodedPolicy::Decode,
    clone: ClonePolicy::Copy,
    unsupported: Unsupported::Refuse,
    privileges: Privileges::Apply,
    runs: RunPolicy::USUAL,
};

fn btrfs() -> LoopFs {
    LoopFs::new(512 << 20, &[], "").unwrap()
}

/// Receives a full stream of these commands as subvolume `name`; returns its path.
fn receive(fs: &LoopFs, name: &str, commands: &[Command<'_>], policies: Policies) -> PathBuf {
    let begin = Command::Subvol {
        path: name.as_bytes(),
        uuid: Uuid::from_u128(name.bytes().map(u128::from).sum()),
        ctransid: 5,
    };
    receive_after(fs, name, begin, commands, policies)
}

fn receive_after(
    fs: &LoopFs,
    name: &str,
    begin: Command<'_>,
    commands: &[Command<'_>],
    policies: Policies,
) -> PathBuf {
    let encoder = Encoder::new(Version::V2);
    let mut bytes = Vec::new();
    encoder.header(&mut bytes);
    for command in [&[begin], commands, &[Command::End]].concat() {
        encoder.command(&command, &mut bytes).unwrap();
    }
    let options = Options {
        scope: Scope::default(),
        trust: Trust::Strict,
        policies,
    };
    let dir = File::open(fs.path()).unwrap();
    sendshot_apply::receive(&bytes[..], &dir, options, |_| {}).unwrap();
    fs.path().join(name)
}

fn mkfile(path: &str) -> Command<'_> {
    let path = path.as_bytes();
    Command::Mkfile { path }
}

fn mkdir(path: &str) -> Command<'_> {
    let path = path.as_bytes();
    Command::Mkdir { path }
}

fn set<'a>(path: &'a str, name: &'a str, data: &'a [u8]) -> Command<'a> {
    Command::SetXattr {
        path: path.as_bytes(),
        name: name.as_bytes(),
        data,
    }
}

/// u::rwx u:7:rwx g::r-x m::rwx o::r-x
const ACL: &[u8] = b"\x02\0\0\0\
    \x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0\x07\0\0\0\x04\0\x05\0\xff\xff\xff\xff\
    \x10\0\x07\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff";
const DEFAULT_ACL: &str = "system.posix_acl_default";

/// Returns all attributes in a tree, as `getfattr` prints them.
fn attributes(path: &Path) -> String {
    let mut getfattr = process::Command::new("getfattr");
    getfattr
        .args(["-R", "-h", "-d", "-m", "-", "--absolute-names"])
        .arg(path);
    String::from_utf8(loopfs::output(&mut getfattr).unwrap()).unwrap()
}

#[test]
fn inodes_inherit_nothing_from_their_directory() {
    let fs = btrfs();
    let symlink = Command::Symlink {
        path: b"acl/link",
        target: b"x",
    };
    let copy = receive(
        &fs,
        "s1",
        &[
            mkdir("acl"),
            mkdir("zip"),
            mkfile("acl/before"),
            mkdir("other"),
            set("other", DEFAULT_ACL, ACL), // from here on the applier checks directories
            mkfile("acl/between"),
            mkfile("zip/between"),
            set("acl", DEFAULT_ACL, ACL),
            set("zip", "btrfs.compression", b"zstd"),
            mkfile("acl/file"),
            mkdir("acl/dir"),
            symlink,
            Command::Mkfifo { path: b"acl/pipe" },
            mkfile("zip/file"),
            mkdir("zip/dir"),
            Command::Rename {
                path: b"acl",
                to: b"moved",
            },
            mkfile("moved/file2"),
        ],
        STORE,
    );
    let text = attributes(&copy);
    let with: Vec<_> = text.lines().filter(|l| l.starts_with("# file")).collect();
    let expected: Vec<_> = ["moved", "other", "zip"]
        .iter()
        .map(|name| format!("# file: {}", copy.join(name).display()))
        .collect();
    let mut with_sorted = with.clone();
    with_sorted.sort_unstable();
    assert_eq!(with_sorted, expected, "{text}");
    assert!(!text.contains("posix_acl_access"), "{text}");
}

/// Bytes of an extent that compresses well and differs at every offset.
fn extent() -> Vec<u8> {
    (0..128 * 1024_u32)
        .map(|n| if n % 16 == 0 { (n / 500) as u8 } else { b'-' })
        .collect()
}

/// Returns an extent as the kernel compressed it, taken from a real stream.
fn compressed(algorithm: &str) -> (u32, u64, Vec<u8>) {
    use sendshot_stream::{Item, Parser};
    let source = LoopFs::new(512 << 20, &[], &format!("compress-force={algorithm}")).unwrap();
    let live = source.path().join("live");
    sendshot_harness::disks::streams::create(&live).unwrap();
    fs::write(live.join("f"), extent()).unwrap();
    let snapshot = source.path().join("s");
    sendshot_harness::disks::streams::snapshot(&live, &snapshot).unwrap();
    let format = sendshot_harness::disks::streams::Format::V2Compressed;
    let bytes = sendshot_harness::disks::streams::send(format, None, &snapshot).unwrap();
    let (mut parser, mut input) = (Parser::new(), &bytes[..]);
    while let Some(located) = parser.next(&mut input).unwrap() {
        if let Item::Command(Command::EncodedWrite {
            compression,
            unencoded_len,
            data,
            ..
        }) = located.item
        {
            return (compression, unencoded_len, data.to_vec());
        }
    }
    panic!("the kernel sent no compressed extent");
}

/// The kernel sends parts of extents after overwrites and partial reflinks.
#[test]
fn parts_of_compressed_extents_are_the_right_parts() {
    let fs = btrfs();
    for algorithm in ["zlib", "zstd", "lzo"] {
        let (compression, unencoded_len, data) = compressed(algorithm);
        assert_eq!(unencoded_len, 128 * 1024);
        for (start, len) in [
            (0, 131_072),
            (4096, 8192),
            (65_536, 65_536),
            (126_976, 4000),
        ] {
            let write = Command::EncodedWrite {
                path: b"f",
                offset: 8192,
                unencoded_file_len: len,
                unencoded_len,
                unencoded_offset: start,
                compression,
                encryption: 0,
                data: &data,
            };
            let commands = [mkfile("f"), write];
            for (policies, how) in [(STORE, "stored"), (DECODE, "decoded")] {
                let name = format!("{algorithm}-{start}-{how}");
                let copy = receive(&fs, &name, &commands, policies);
                let found = fs::read(copy.join("f")).unwrap();
                let wanted = &extent()[start as usize..(start + len) as usize];
                assert_eq!(found.len() as u64, 8192 + len, "{name}");
                assert!(found[..8192].iter().all(|b| *b == 0), "{name}");
                assert!(found[8192..] == *wanted, "{name}");
            }
        }
    }
}

#[test]
fn garbage_as_compressed_data_is_refused_where_it_is_decoded() {
    let fs = btrfs();
    for compression in 1..=7 {
        let bytes = {
            let encoder = Encoder::new(Version::V2);
            let mut bytes = Vec::new();
            encoder.header(&mut bytes);
            let subvol = Command::Subvol {
                path: b"s",
                uuid: Uuid::from_u128(1),
                ctransid: 1,
            };
            let write = Command::EncodedWrite {
                path: b"f",
                offset: 0,
                unencoded_file_len: 8192,
                unencoded_len: 8192,
                unencoded_offset: 0,
                compression,
                encryption: 0,
                data: &[0x5a; 4096],
            };
            for command in [subvol, mkfile("f"), write, Command::End] {
                encoder.command(&command, &mut bytes).unwrap();
            }
            bytes
        };
        let options = Options {
            scope: Scope::default(),
            trust: Trust::Strict,
            policies: DECODE,
        };
        let dir = File::open(fs.path()).unwrap();
        let result = sendshot_apply::receive(&bytes[..], &dir, options, |_| {});
        assert!(result.is_err(), "{compression}");
        assert_eq!(fs::read_dir(fs.path()).unwrap().count(), 0);
    }
}

#[test]
fn every_fallocate_of_a_stream_does_what_it_says() {
    let fs = btrfs();
    let data = vec![7; 40_000];
    let write = Command::Write {
        path: b"f",
        offset: 0,
        data: &data,
    };
    let fallocate = |mode, offset, len| Command::Fallocate {
        path: b"f",
        mode,
        offset,
        len,
    };
    let commands = [
        mkfile("f"),
        write,
        fallocate(3, 4096, 8192),      // punch
        fallocate(0x11, 16_384, 100),  // zero, keep size
        fallocate(1, 100_000, 50_000), // allocate beyond the end
        fallocate(0, 0, 50_000),       // allocate and grow
        fallocate(0x10, 50_000, 10),   // zero and grow
    ];
    let copy = receive(&fs, "s1", &commands, STORE);
    let mut expected = data.clone();
    expected[4096..4096 + 8192].fill(0);
    expected[16_384..16_484].fill(0);
    expected.resize(50_010, 0);
    assert!(fs::read(copy.join("f")).unwrap() == expected);
}

/// The kernel's stream makes new inodes in the root, but contains the root's times only if the
/// sender's root has changed too. `btrfs receive` gets this wrong.
#[test]
fn the_root_keeps_its_times_where_a_stream_does_not_say_them() {
    let fs = btrfs();
    let time = |sec| Timespec { sec, nsec: 9 };
    let times = |path| Command::Utimes {
        path,
        atime: time(-5),
        mtime: time(1_000_000),
        ctime: time(0),
        otime: None,
    };
    let s1 = receive(&fs, "s1", &[mkdir("d"), times(b"")], STORE);
    let parent = Command::Snapshot {
        path: b"s2",
        uuid: Uuid::from_u128(77),
        ctransid: 6,
        clone_uuid: Uuid::from_u128("s1".bytes().map(u128::from).sum()),
        clone_ctransid: 5,
    };
    let rename = Command::Rename {
        path: b"o300-6-0",
        to: b"d/new",
    };
    let changes = [mkfile("o300-6-0"), rename, times(b"d/new"), times(b"d")];
    let s2 = receive_after(&fs, "s2", parent, &changes, STORE);
    for path in [s1, s2] {
        let stat = fs::metadata(&path).unwrap();
        assert_eq!(
            (stat.mtime(), stat.mtime_nsec()),
            (1_000_000, 9),
            "{path:?}"
        );
        assert_eq!((stat.atime(), stat.atime_nsec()), (-5, 9), "{path:?}");
    }
}

/// The applier keeps files open; a path must never lead to the file that had it before.
#[test]
fn a_path_means_what_has_it_now() {
    let fs = btrfs();
    let write = |path, data| Command::Write {
        path,
        offset: 0,
        data,
    };
    let rename = |path, to| Command::Rename { path, to };
    let commands = [
        mkfile("f"),
        mkfile("g"),
        write(b"f", b"gone"),
        Command::Unlink { path: b"f" },
        Command::Link {
            path: b"f",
            existing: b"g",
        },
        write(b"f", b"to g"),
        mkdir("d1"),
        mkdir("d2"),
        mkfile("d1/x"),
        mkfile("d2/x"),
        write(b"d1/x", b"one"),
        write(b"d2/x", b"two"),
        rename(b"d1", b"tmp"),
        rename(b"d2", b"d1"),
        rename(b"tmp", b"d2"),
        write(b"d1/x", b"TW"),
        mkfile("d1/y"),
        write(b"d2/x", b"ON"),
        mkfile("a"),
        mkfile("b"),
        write(b"a", b"a"),
        write(b"b", b"b"),
        rename(b"a", b"b"),
        write(b"b", b"A"),
        mkfile("a"),
        write(b"a", b"new"),
    ];
    let copy = receive(&fs, "s1", &commands, STORE);
    let text = |path| fs::read_to_string(copy.join(path)).unwrap();
    assert_eq!(text("g"), "to g");
    assert_eq!(text("f"), "to g");
    assert_eq!(text("d1/x"), "TWo");
    assert_eq!(text("d2/x"), "ONe");
    assert!(copy.join("d1/y").exists() && !copy.join("d2/y").exists());
    assert_eq!((text("a"), text("b")), ("new".into(), "A".into()));
}

#[test]
fn an_immutable_flag_blocks_no_later_command() {
    let fs = btrfs();
    let flags = Command::Fileattr {
        path: b"f",
        flags: 0x40, // immutable
    };
    let chmod = Command::Chmod {
        path: b"f",
        mode: 0o4711,
    };
    let copy = receive(&fs, "s1", &[mkfile("f"), flags, chmod], STORE);
    assert_eq!(
        fs::metadata(copy.join("f")).unwrap().mode() & 0o7777,
        0o4711
    );
}

#[test]
fn the_root_of_a_copy_never_forbids_its_deletion() {
    let fs = btrfs();
    let flags = Command::Fileattr {
        path: b"",
        flags: 0x40, // immutable
    };
    let copy = receive(&fs, "s1", &[mkfile("f"), flags], STORE);
    sendshot_harness::disks::streams::delete(&copy).unwrap();
}
