//! Independent commands may be executed in any order and at the same time; attributes that are as they should be are not
//! set again. Neither may be seen in the copy, in errors, or in how far a stream was applied.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command as Program;

use sendshot_apply::parent::Trust;
use sendshot_apply::receive::{Options, ReceiveError};
use sendshot_apply::{ApplyError, Policies, RunPolicy, Scope, SessionError};
use sendshot_engine::diff::Version as StreamVersion;
use sendshot_engine::{Frozen, WireNumber, capture};
use sendshot_harness::compare::{chain, inode_flags, orders, tree};
use sendshot_harness::disks::loopfs::{LoopFs, run};
use sendshot_harness::disks::streams::{self, Format};
use sendshot_stream::{Command, Encoder, Timespec, Version};
use uuid::Uuid;

/// All ways to execute them, several times.
const ORDERS: u64 = 24;

fn btrfs() -> LoopFs {
    LoopFs::new(1 << 30, &[], "").unwrap()
}

fn receive(stream: impl Read, dir: &Path, runs: RunPolicy) -> Result<(), ReceiveError> {
    let options = Options {
        scope: Scope::default(),
        trust: Trust::Strict,
        policies: Policies {
            runs,
            ..Policies::default()
        },
    };
    sendshot_apply::receive(stream, File::open(dir).unwrap(), options, |_| {})
}

/// Makes entries with every combination of mode, owner and attribute.
fn fill_dir(dir: &Path) {
    let modes = [
        0o644, 0o600, 0o755, 0o666, 0o4755, 0o2755, 0o6711, 0o1644, 0o444, 0,
    ];
    let owners = [(0, 0), (1000, 1000), (0, 100), (1000, 0)];
    for mode in modes {
        for (uid, gid) in owners {
            for attribute in ["none", "user", "capability", "acl"] {
                let path = dir.join(format!("{mode:o}-{uid}-{gid}-{attribute}"));
                fs::write(&path, format!("content of {}", path.display())).unwrap();
                chown(&path, Some(uid), Some(gid)).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                let tool = |program: &str, arguments: &[&str]| {
                    run(Program::new(program).args(arguments).arg(&path)).unwrap();
                };
                match attribute {
                    "user" => tool("setfattr", &["-n", "user.x", "-v", "1"]),
                    "capability" => tool("setcap", &["cap_net_raw+ep"]),
                    "acl" => tool("setfacl", &["-m", "u:1001:rwx,m::r"]),
                    _ => {}
                }
            }
        }
    }
    for (uid, gid) in owners {
        let link = dir.join(format!("link-{uid}-{gid}"));
        symlink("nowhere", &link).unwrap();
        lchown(&link, Some(uid), Some(gid)).unwrap();
        let pipe = dir.join(format!("pipe-{uid}-{gid}"));
        run(Program::new("mkfifo").arg("-m").arg("666").arg(&pipe)).unwrap();
        chown(&pipe, Some(uid), Some(gid)).unwrap();
    }
}

/// A subvolume with such entries in directories that pass something on to them.
fn special(fs: &LoopFs) -> PathBuf {
    let top = fs.path().join("volume");
    streams::create(&top).unwrap();
    for name in ["plain", "group", "list", "nocow", "compressed"] {
        let dir = top.join(name);
        fs::create_dir(&dir).unwrap();
        let tool = |program: &str, arguments: &[&str]| {
            run(Program::new(program).args(arguments).arg(&dir)).unwrap();
        };
        match name {
            "group" => {
                chown(&dir, None, Some(100)).unwrap();
                tool("chmod", &["2775"]);
            }
            "list" => tool("setfacl", &["-d", "-m", "u:1000:rwx,g::rx,o::-"]),
            "nocow" => tool("chattr", &["+C"]),
            "compressed" => tool("setfattr", &["-n", "btrfs.compression", "-v", "zstd"]),
            _ => {}
        }
        fill_dir(&dir);
    }
    fs::hard_link(top.join("plain/644-0-0-none"), top.join("group/other-name")).unwrap();
    top
}

#[test]
fn owners_modes_and_attributes_are_the_same_in_every_order() {
    let (origin, target) = (btrfs(), btrfs());
    let (volume, snapshot) = (special(&origin), origin.path().join("s"));
    streams::snapshot(&volume, &snapshot).unwrap();
    let sendshot = origin.path().join("sendshot");
    let root = File::open(&snapshot).unwrap();
    let file = File::create(&sendshot).unwrap();
    capture(Frozen::snapshot(&root), WireNumber::Local, file).unwrap();
    let ours = chain::make_stream(None, &sendshot, &snapshot, StreamVersion::V2).unwrap();
    let kernels = streams::send(Format::V2Compressed, None, &snapshot).unwrap();
    let stock = target.path().join("stock");
    fs::create_dir(&stock).unwrap();
    streams::stock_receive(&ours, &stock).unwrap();
    for number in 0..ORDERS {
        for (of, stream) in [("ours", &ours), ("kernels", &kernels)] {
            let dir = target.path().join(format!("{of}-{number}"));
            fs::create_dir(&dir).unwrap();
            receive(&stream[..], &dir, orders::by(number)).unwrap();
            for original in [&snapshot, &stock.join("s")] {
                let differences = tree::compare(original, &dir.join("s")).unwrap();
                assert_eq!(differences, [""; 0], "{of}, {number}");
            }
            // The kernel's stream has no flags.
            if of == "ours" {
                let flags = inode_flags::compare_but(&snapshot, &dir.join("s"), &[]).unwrap();
                assert_eq!(flags, [""; 0], "{number}");
            }
            streams::delete(&dir.join("s")).unwrap();
        }
    }
}

/// A stream under construction.
struct Stream {
    bytes: Vec<u8>,
    encoder: Encoder,
}

impl Stream {
    fn new() -> Self {
        let mut stream = Self {
            bytes: Vec::new(),
            encoder: Encoder::new(Version::V2),
        };
        stream.encoder.header(&mut stream.bytes);
        stream.add(&Command::Subvol {
            path: b"s",
            uuid: Uuid::from_u128(7),
            ctransid: 5,
        });
        stream
    }

    /// Adds a command; returns its offset.
    fn add(&mut self, command: &Command<'_>) -> u64 {
        let offset = self.bytes.len() as u64;
        self.encoder.command(command, &mut self.bytes).unwrap();
        offset
    }

    /// Adds a file.
    fn file(&mut self, path: &str, data: &[u8]) {
        let path = path.as_bytes();
        self.add(&Command::Mkfile { path });
        for (number, data) in data.chunks(100_000).enumerate() {
            let offset = number as u64 * 100_000;
            self.add(&Command::Write { path, offset, data });
        }
        let mode = 0o640;
        self.add(&Command::Chmod { path, mode });
        let time = Timespec { sec: 77, nsec: 7 };
        self.add(&Command::Utimes {
            path,
            atime: time,
            mtime: time,
            ctime: time,
            otime: None,
        });
    }
}

fn applied(error: ReceiveError) -> ApplyError {
    match error {
        ReceiveError::Stream(SessionError::Apply(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_error_is_that_of_the_first_command_in_the_stream_that_fails() {
    let target = btrfs();
    for number in 0..ORDERS {
        let mut stream = Stream::new();
        let mut failing = Vec::new();
        for at in 0..40 {
            stream.file(&format!("f{at}"), &[7; 5000]);
            if [11, 12, 25, 39].contains(&at) {
                let path = format!("missing{at}");
                let (path, size) = (path.as_bytes(), 0);
                failing.push(stream.add(&Command::Truncate { path, size }));
            }
        }
        stream.bytes.extend_from_slice(b"no command follows");
        let error =
            applied(receive(&stream.bytes[..], target.path(), orders::by(number)).unwrap_err());
        assert_eq!(error.offset, failing[0], "{number}: {error}");
        assert_eq!(error.path, b"missing11");
        let left = fs::read_dir(target.path()).unwrap().count();
        assert_eq!(left, 0, "something of the stream is left");
    }
}

#[test]
fn a_directory_that_is_made_early_does_not_hide_an_error_before_it() {
    let target = btrfs();
    let (missing, there) = (b"missing" as &[u8], b"there" as &[u8]);
    let chmod = |path| Command::Chmod { path, mode: 0o700 };
    let rename = |path, to| Command::Rename { path, to };
    // What fails comes first in each.
    let cases: [&[Command<'_>]; 7] = [
        // What it would succeed in if the directory were there already.
        &[
            Command::Mkfile { path: b"missing/f" },
            Command::Mkdir { path: missing },
        ],
        &[
            chmod(b"missing/f/g"),
            Command::Mkdir { path: b"o1" },
            rename(b"o1", missing),
        ],
        &[chmod(missing), Command::Mkdir { path: missing }],
        // Both fail.
        &[chmod(missing), Command::Mkdir { path: there }],
        &[
            chmod(missing),
            Command::Mkdir { path: there },
            chmod(b"none"),
        ],
        &[
            chmod(missing),
            Command::Mkdir { path: b"o1" },
            rename(b"o1", b"missing/x"),
        ],
        &[
            chmod(missing),
            Command::Mkdir { path: b"new" },
            Command::Truncate {
                path: b"new",
                size: 1,
            },
        ],
    ];
    for number in 0..ORDERS {
        for (case, commands) in cases.iter().enumerate() {
            let mut stream = Stream::new();
            stream.add(&Command::Mkdir { path: there });
            stream.file("a", b"1");
            let offsets: Vec<u64> = commands.iter().map(|c| stream.add(c)).collect();
            stream.file("b", b"2");
            let stream = &stream.bytes[..];
            let error = applied(receive(stream, target.path(), orders::by(number)).unwrap_err());
            assert_eq!(error.offset, offsets[0], "{number}, {case}: {error}");
        }
    }
}

#[test]
fn a_parent_with_an_immutable_root_needs_no_change_of_it() {
    let target = btrfs();
    let at = |name: &str| target.path().join(name);
    streams::create(&at("volume")).unwrap();
    fs::create_dir(at("volume/d")).unwrap();
    let set = |flag: &str| {
        run(Program::new("chattr").arg(flag).arg(at("volume"))).unwrap();
    };
    set("+i");
    streams::snapshot(&at("volume"), &at("before")).unwrap();
    fs::write(at("volume/d/f"), b"new").unwrap();
    streams::snapshot(&at("volume"), &at("s")).unwrap();
    let stream = streams::send(Format::V2Compressed, Some(&at("before")), &at("s")).unwrap();
    fs::rename(at("s"), at("expected")).unwrap_err();
    set("-i");
    let expected = at("expected");
    streams::snapshot(&at("volume"), &expected).unwrap();
    run(Program::new("btrfs")
        .args(["property", "set", "-f"])
        .arg(at("s"))
        .args(["ro", "false"]))
    .unwrap();
    run(Program::new("chattr").arg("-i").arg(at("s"))).unwrap();
    streams::delete(&at("s")).unwrap();
    for number in 0..8 {
        receive(&stream[..], target.path(), orders::by(number)).unwrap();
        let differences = tree::compare(&expected, &at("s")).unwrap();
        assert_eq!(differences, [""; 0], "{number}");
        streams::delete(&at("s")).unwrap();
    }
}

/// An access control list that new entries inherit: everything for the owner, nothing for others.
const DEFAULT_ACL: &[u8] = &[
    2, 0, 0, 0, 1, 0, 4, 0, 255, 255, 255, 255, 4, 0, 0, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255,
    255, 255, 255,
];

#[test]
fn what_is_renamed_into_a_directory_gets_nothing_from_it() {
    let target = btrfs();
    for number in 0..ORDERS {
        let mut stream = Stream::new();
        for (dir, kind) in ["group", "list", "compressed"].into_iter().zip(0..) {
            let path = dir.as_bytes();
            stream.add(&Command::Mkdir { path });
            stream.add(&Command::Mkdir { path: b"between" });
            stream.add(&Command::Rmdir { path: b"between" });
            let (uid, gid) = (0, 100);
            stream.add(&Command::Chown { path, uid, gid });
            let mode = if kind == 0 { 0o2775 } else { 0o755 };
            stream.add(&Command::Chmod { path, mode });
            let (name, data): (&[u8], &[u8]) = match kind {
                1 => (b"system.posix_acl_default", DEFAULT_ACL),
                _ => (b"btrfs.compression", b"zstd"),
            };
            if kind > 0 {
                stream.add(&Command::SetXattr { path, name, data });
            }
            for entry in 0..12 {
                let temporary = format!("o{kind}{entry}");
                let path = temporary.as_bytes();
                stream.add(&match entry % 4 {
                    0 => Command::Mkfile { path },
                    1 => Command::Mkdir { path },
                    2 => Command::Mkfifo { path },
                    _ => Command::Symlink { path, target: b"x" },
                });
                let to = format!("{dir}/{entry}");
                let to = to.as_bytes();
                stream.add(&Command::Rename { path, to });
                let path = to;
                if entry >= 8 {
                    let (uid, gid) = (3, 4);
                    stream.add(&Command::Chown { path, uid, gid });
                }
                if (4..8).contains(&entry) && entry % 4 < 3 {
                    stream.add(&Command::Chmod { path, mode: 0o711 });
                }
            }
        }
        // A directory that is made between the making of an entry and its rename.
        let (path, to) = (b"o" as &[u8], b"d/f" as &[u8]);
        stream.add(&Command::Mkfile { path });
        stream.add(&Command::Mkdir { path: b"d" });
        stream.add(&Command::Rename { path, to });
        let time = Timespec { sec: 77, nsec: 7 };
        stream.add(&Command::Utimes {
            path: b"d",
            atime: time,
            mtime: time,
            ctime: time,
            otime: None,
        });
        stream.add(&Command::End);
        let [stock, ours] = ["stock", "ours"].map(|name| {
            let dir = target.path().join(format!("{name}{number}"));
            fs::create_dir(&dir).unwrap();
            dir
        });
        streams::stock_receive(&stream.bytes, &stock).unwrap();
        receive(&stream.bytes[..], &ours, orders::by(number)).unwrap();
        let mut differences = tree::compare(&stock.join("s"), &ours.join("s")).unwrap();
        let is_time = |line: &String| line.contains(": mtime") || line.contains(": atime");
        // Stock receive makes files with another mode, which the kernel's stream always sets.
        let is_mode = |line: &String| line.contains(": mode");
        differences.retain(|line| !is_time(line) && !is_mode(line));
        assert_eq!(differences, [""; 0], "{number}");
        assert_eq!(
            fs::metadata(ours.join("s/d")).unwrap().mtime(),
            77,
            "{number}"
        );
        for entry in [0, 1, 2] {
            let modes = ["group", "list", "compressed"].map(|dir| {
                let path = ours.join("s").join(format!("{dir}/{entry}"));
                fs::metadata(path).unwrap().mode()
            });
            assert!(
                modes.iter().all(|mode| *mode == modes[0]),
                "{entry}: {modes:?}"
            );
        }
    }
}

#[test]
fn what_is_made_and_renamed_is_what_stock_receive_makes_whatever_is_there() {
    let target = btrfs();
    let fresh = |name: &str, number| {
        let dir = target.path().join(format!("{name}{number}"));
        fs::create_dir(&dir).unwrap();
        dir
    };
    for number in 0..ORDERS {
        let mut stream = Stream::new();
        for name in ["d", "full", "empty", "full/x"] {
            stream.add(&Command::Mkdir {
                path: name.as_bytes(),
            });
        }
        // So few that all stay open.
        let names: Vec<String> = (0..3).map(|at| format!("d/{at}")).collect();
        for name in &names {
            stream.file(name, b"before");
        }
        for round in 0..10_u8 {
            stream.add(&Command::Mkdir { path: b"between" });
            stream.add(&Command::Rmdir { path: b"between" });
            // One worker is busy with this, while another one does the rest.
            stream.file(&format!("long{round}"), &[7; 300_000]);
            for (at, name) in names.iter().enumerate() {
                let (path, to) = (format!("o{at}-{round}"), name.as_bytes());
                let path = path.as_bytes();
                stream.add(&Command::Mkfile { path });
                stream.add(&Command::Rename { path, to });
            }
            stream.add(&Command::Mkdir { path: b"between" });
            stream.add(&Command::Rmdir { path: b"between" });
            for name in &names {
                let (path, offset, data) = (name.as_bytes(), 3, &[round; 9] as &[u8]);
                stream.add(&Command::Write { path, offset, data });
            }
        }
        stream.add(&Command::Mkdir { path: b"o77" });
        let (path, to) = (b"o77" as &[u8], b"empty" as &[u8]);
        stream.add(&Command::Rename { path, to });
        // No name that is taken may be passed over, and nothing but an empty directory is replaced by one.
        let failing: [(Command<'_>, &[u8], usize); 4] = [
            (Command::Mkdir { path: b"o88" }, b"full", 1),
            (Command::Mkfile { path: b"o88" }, b"full", 1),
            (Command::Mkfile { path: b"o88" }, b"none/x", 1),
            (Command::Mkdir { path: b"empty" }, b"new", 0),
        ];
        for (case, (make, to, fails)) in failing.into_iter().enumerate() {
            let mut stream = Stream {
                bytes: stream.bytes.clone(),
                ..Stream::new()
            };
            let path = make.path();
            let offsets = [stream.add(&make), stream.add(&Command::Rename { path, to })];
            let dir = fresh(&format!("failed{case}-"), number);
            let result = receive(&stream.bytes[..], &dir, orders::by(number));
            assert_eq!(
                applied(result.unwrap_err()).offset,
                offsets[fails],
                "{case}"
            );
            assert!(
                streams::stock_receive(&stream.bytes, &dir).is_err(),
                "{case}"
            );
        }
        stream.add(&Command::End);
        let (stock, ours) = (fresh("stock", number), fresh("ours", number));
        streams::stock_receive(&stream.bytes, &stock).unwrap();
        receive(&stream.bytes[..], &ours, orders::by(number)).unwrap();
        let mut differences = tree::compare(&stock.join("s"), &ours.join("s")).unwrap();
        differences.retain(|difference| {
            !difference.contains(": mtime") && !difference.contains(": atime")
        });
        assert_eq!(differences, [""; 0], "{number}");
        let content = fs::read(ours.join("s/d/2")).unwrap();
        assert_eq!(content, [&[0; 3][..], &[9; 9]].concat(), "{number}");
        for dir in [&stock, &ours] {
            streams::delete(&dir.join("s")).unwrap();
        }
    }
}

#[test]
fn bytes_that_are_no_stream_do_not_hide_an_error_before_them() {
    let target = btrfs();
    let mut stream = Stream::new();
    stream.file("a", b"1");
    let path = b"missing";
    let offset = stream.add(&Command::Chmod { path, mode: 0o600 });
    stream.file("b", b"2");
    stream.bytes.extend_from_slice(&[0xff; 100]);
    let error = receive(&stream.bytes[..], target.path(), RunPolicy::USUAL).unwrap_err();
    assert_eq!(applied(error).offset, offset);
}

#[test]
fn what_depends_on_an_earlier_command_comes_after_it() {
    let target = btrfs();
    let time = |sec| Timespec { sec, nsec: 0 };
    let utimes = |path: &'static [u8], sec| Command::Utimes {
        path,
        atime: time(sec),
        mtime: time(sec),
        ctime: time(sec),
        otime: None,
    };
    for number in 0..ORDERS {
        let mut stream = Stream::new();
        stream.add(&Command::Mkdir { path: b"d" });
        for at in 0..20 {
            stream.file(&format!("d/{at}"), b"1");
            stream.file(&format!("{at}"), b"1");
        }
        // Entries that are made later would change it.
        stream.add(&utimes(b"d", 1000));
        stream.add(&utimes(b"", 2000));
        stream.file("d/19x", &[1; 300_000]);
        stream.file("after", b"1");
        stream.add(&utimes(b"d", 3000));
        stream.add(&utimes(b"", 4000));
        // An entry that is made later does change it.
        stream.add(&Command::Mkdir { path: b"late" });
        stream.file("before", b"1");
        stream.add(&utimes(b"late", 6000));
        stream.file("late/f", &[1; 300_000]);
        stream.file("g", b"1");
        stream.add(&utimes(b"", 4000));
        // One file under two paths.
        let (path, existing) = (b"second" as &[u8], b"d/1" as &[u8]);
        stream.add(&Command::Link { path, existing });
        for round in 0..20_u8 {
            for path in [path, existing] {
                let data = &[round; 1000];
                let offset = u64::from(round);
                stream.add(&Command::Write { path, offset, data });
            }
            let mode = 0o600 + u64::from(round % 8);
            stream.add(&Command::Chmod { path, mode });
            let path = existing;
            stream.add(&Command::Chmod { path, mode: 0o640 });
        }
        stream.add(&utimes(existing, 5000));
        stream.add(&Command::End);
        receive(&stream.bytes[..], target.path(), orders::by(number)).unwrap();
        let copy = target.path().join("s");
        let seconds = |name: &str| fs::metadata(copy.join(name)).unwrap().mtime();
        assert_eq!(
            (seconds("d"), seconds("second"), seconds("19")),
            (3000, 5000, 77),
            "{number}"
        );
        assert!(seconds("late") > 1_000_000, "{number}");
        let linked = fs::read(copy.join("second")).unwrap();
        let expected: Vec<u8> = (0..19).chain([19; 1000]).collect();
        assert_eq!(linked, expected, "{number}");
        let mode = fs::metadata(copy.join("d/1")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o640, "{number}");
        streams::delete(&copy).unwrap();
    }
}

#[test]
fn a_change_of_the_owner_to_the_same_one_removes_privileges() {
    let target = btrfs();
    for number in 0..8 {
        let mut stream = Stream::new();
        let (uid, gid) = (0, 0);
        for path in [b"mode" as &[u8], b"capability", b"later"] {
            stream.add(&Command::Mkfile { path });
            let chmod = Command::Chmod { path, mode: 0o4755 };
            let chown = Command::Chown { path, uid, gid };
            let set = Command::SetXattr {
                path,
                name: b"security.capability",
                data: &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            };
            let commands = match path {
                b"mode" => [chown, chmod, chown, chown],
                b"capability" => [chown, set, chown, chown],
                _ => [chown, chmod, set, set],
            };
            for command in &commands {
                stream.add(command);
            }
        }
        stream.add(&Command::End);
        let dirs = ["stock", "ours"].map(|name| target.path().join(format!("{name}{number}")));
        let [stock, ours] = &dirs;
        for dir in &dirs {
            fs::create_dir(dir).unwrap();
        }
        streams::stock_receive(&stream.bytes, stock).unwrap();
        receive(&stream.bytes[..], ours, orders::by(number)).unwrap();
        for (name, mode) in [("mode", 0o755), ("capability", 0o600), ("later", 0o4755)] {
            let found = |dir: &Path| {
                let path = dir.join("s").join(name);
                let list = Program::new("getfattr").args(["-dm-"]).arg(&path).output();
                let list = String::from_utf8(list.unwrap().stdout).unwrap();
                let has = list.contains("security.capability");
                (fs::metadata(&path).unwrap().mode() & 0o7777, has)
            };
            assert_eq!(found(ours), (mode, name == "later"), "{number}: {name}");
            assert_eq!(found(stock), found(ours), "{name}");
        }
    }
}

#[test]
fn a_path_always_means_the_file_that_has_it_then() {
    let target = btrfs();
    for number in 0..ORDERS {
        let mut stream = Stream::new();
        let names: Vec<String> = (0..20).map(|at| format!("{at}")).collect();
        for round in 0..3 {
            for life in 0..2 {
                for name in &names {
                    stream.file(name, b"before");
                }
                stream.add(&Command::Mkdir {
                    path: format!("d{round}-{life}").as_bytes(),
                });
                for name in &names {
                    let (path, data) = (name.as_bytes(), b"after!" as &[u8]);
                    let offset = 0;
                    stream.add(&Command::Write { path, offset, data });
                }
                if life == 0 {
                    for name in &names {
                        let path = name.as_bytes();
                        stream.add(&Command::Unlink { path });
                    }
                }
            }
            for name in &names {
                let (path, to) = (name.as_bytes(), format!("{round}-{name}"));
                let to = to.as_bytes();
                stream.add(&Command::Rename { path, to });
            }
        }
        stream.add(&Command::End);
        receive(&stream.bytes[..], target.path(), orders::by(number)).unwrap();
        let copy = target.path().join("s");
        for round in 0..3 {
            for name in &names {
                let content = fs::read(copy.join(format!("{round}-{name}"))).unwrap();
                assert_eq!(content, b"after!", "{number}: {round}-{name}");
            }
        }
        streams::delete(&copy).unwrap();
    }
}

/// Reads a stream in parts that end between two commands. Before each part, everything in the parts before must have been
/// applied.
struct InParts<'a> {
    bytes: &'a [u8],
    read: usize,
    /// Offsets at which parts end, and the files that are complete there.
    ends: Vec<(usize, Vec<(String, usize)>)>,
    staging: &'a Path,
    checked: usize,
}

impl InParts<'_> {
    fn check(&mut self) {
        let complete = self.ends.iter().take_while(|(end, _)| *end <= self.read);
        let files: Vec<_> = complete.flat_map(|(_, files)| files).collect();
        if files.is_empty() {
            return;
        }
        let staged = staged_in(self.staging).expect("a staging subvolume");
        for (name, len) in &files {
            let found = fs::metadata(staged.join(name)).unwrap();
            assert_eq!(
                (found.len(), found.mode() & 0o777, found.mtime()),
                (*len as u64, 0o640, 77),
                "{name} is not complete"
            );
            self.checked += 1;
        }
    }
}

/// The directory beneath `dir` in which the first file of the stream is.
fn staged_in(dir: &Path) -> Option<PathBuf> {
    if dir.join("0-0").exists() {
        return Some(dir.to_owned());
    }
    let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut dirs = entries.filter(|path| path.is_dir());
    dirs.find_map(|path| staged_in(&path))
}

impl Read for InParts<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check();
        let end = self.ends.iter().map(|(end, _)| *end);
        let end = end.into_iter().find(|end| *end > self.read);
        let end = end.unwrap_or(self.bytes.len());
        let len = (end - self.read).min(buffer.len());
        buffer[..len].copy_from_slice(&self.bytes[self.read..][..len]);
        self.read += len;
        Ok(len)
    }
}

#[test]
fn when_more_is_read_everything_before_has_been_applied() {
    let target = btrfs();
    for number in 0..ORDERS {
        let mut stream = Stream::new();
        let mut ends = Vec::new();
        for part in 0..6 {
            let mut files = Vec::new();
            for at in 0..12 {
                // The first keeps one of the workers busy for long, while the others are done with the rest.
                let len = if at == 0 { 500_000 } else { 10 };
                let name = format!("{part}-{at}");
                stream.file(&name, &vec![7; len]);
                files.push((name, len));
            }
            ends.push((stream.bytes.len(), files));
        }
        stream.add(&Command::End);
        let mut parts = InParts {
            bytes: &stream.bytes,
            read: 0,
            ends,
            staging: target.path(),
            checked: 0,
        };
        receive(&mut parts, target.path(), orders::by(number)).unwrap();
        assert!(parts.checked >= 5 * 12, "{}", parts.checked);
        streams::delete(&target.path().join("s")).unwrap();
    }
}
