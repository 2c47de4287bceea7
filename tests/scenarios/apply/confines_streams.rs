//! No stream, whatever its content, changes or reads anything outside its own staging subvolume.
//! Needs root.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rustix::io::Errno;
use sendshot_apply::parent::Trust;
use sendshot_apply::receive::{HostError, Options, ReceiveError};
use sendshot_apply::{Cause, PathError, Policies, Scope, SequenceError, SessionError};
use sendshot_harness::compare::tree;
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams;
use sendshot_stream::{Command, Encoder, Timespec, Version};
use uuid::Uuid;

const OURS: Uuid = Uuid::from_u128(0x1234);
const FOREIGN: Uuid = Uuid::from_u128(0x9999);

/// A file system with a directory to receive into, and files beside it that must not change.
struct Target {
    fs: LoopFs,
}

impl Target {
    fn new() -> Self {
        let fs = LoopFs::new(512 << 20, &[], "").unwrap();
        fs::create_dir(fs.path().join("in")).unwrap();
        let this = Self { fs };
        let outside = this.outside();
        streams::create(&outside).unwrap();
        fs::create_dir(outside.join("dir")).unwrap();
        fs::write(outside.join("victim"), "precious").unwrap();
        // A snapshot, because copying would read the files and so change their access times.
        streams::snapshot(&outside, &this.fs.path().join("before")).unwrap();
        this
    }

    fn outside(&self) -> PathBuf {
        self.fs.path().join("outside")
    }

    fn target(&self) -> PathBuf {
        self.fs.path().join("in")
    }

    fn receive(&self, commands: &[Command<'_>]) -> Result<(), ReceiveError> {
        let mut bytes = Vec::new();
        let encoder = Encoder::new(Version::V2);
        encoder.header(&mut bytes);
        for command in commands {
            encoder.command(command, &mut bytes).unwrap();
        }
        let options = Options {
            scope: Scope::default(),
            trust: Trust::Lenient,
            policies: Policies::default(),
        };
        sendshot_apply::receive(
            &bytes[..],
            File::open(self.target()).unwrap(),
            options,
            |_| {},
        )
    }

    /// Receives a subvolume of these commands, which must fail; returns the cause. Asserts that nothing
    /// is left and nothing outside has changed.
    fn refusal(&self, commands: &[Command<'_>]) -> Cause {
        let error = self.receive(&whole(commands)).unwrap_err();
        self.assert_untouched();
        match error {
            ReceiveError::Stream(SessionError::Apply(e)) => e.cause,
            other => panic!("{other:?}"),
        }
    }

    fn assert_untouched(&self) {
        let left: Vec<_> = fs::read_dir(self.target()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let changes = tree::compare(&self.fs.path().join("before"), &self.outside()).unwrap();
        assert!(changes.is_empty(), "{changes:?}");
    }
}

fn subvol(name: &[u8]) -> Command<'_> {
    Command::Subvol {
        path: name,
        uuid: OURS,
        ctransid: 5,
    }
}

fn whole<'a>(commands: &[Command<'a>]) -> Vec<Command<'a>> {
    let mut all = vec![subvol(b"s1")];
    all.extend_from_slice(commands);
    all.push(Command::End);
    all
}

fn now() -> Timespec {
    Timespec { sec: 7, nsec: 0 }
}

/// Returns every command that takes a path, with this path.
fn with_path(path: &[u8]) -> Vec<Command<'_>> {
    let (atime, mtime, ctime, otime) = (now(), now(), now(), None);
    let (offset, len, data) = (0, 4096, b"overwritten" as &[u8]);
    vec![
        Command::Mkfile { path },
        Command::Mkdir { path },
        Command::Mknod {
            path,
            mode: 0o20600,
            rdev: 0x103,
        },
        Command::Mkfifo { path },
        Command::Mksock { path },
        Command::Symlink {
            path,
            target: b"anything",
        },
        Command::Unlink { path },
        Command::Rmdir { path },
        Command::Write { path, offset, data },
        Command::Truncate { path, size: 0 },
        Command::Fallocate {
            path,
            mode: 3,
            offset,
            len,
        },
        Command::EncodedWrite {
            path,
            offset,
            unencoded_file_len: 4096,
            unencoded_len: 4096,
            unencoded_offset: 0,
            compression: 2,
            encryption: 0,
            data,
        },
        Command::Chmod { path, mode: 0o777 },
        Command::Chown {
            path,
            uid: 1,
            gid: 1,
        },
        Command::Utimes {
            path,
            atime,
            mtime,
            ctime,
            otime,
        },
        Command::SetXattr {
            path,
            name: b"user.a",
            data,
        },
        Command::RemoveXattr {
            path,
            name: b"user.a",
        },
    ]
}

/// Returns commands with two paths, with this path in each place.
fn with_other_path(path: &[u8]) -> Vec<Command<'_>> {
    vec![
        Command::Rename {
            path: b"mine",
            to: path,
        },
        Command::Rename {
            path,
            to: b"stolen",
        },
        Command::Link {
            path,
            existing: b"mine",
        },
        Command::Link {
            path: b"stolen",
            existing: path,
        },
        clone(OURS, path),
    ]
}

fn clone(clone_uuid: Uuid, clone_path: &[u8]) -> Command<'_> {
    Command::Clone {
        path: b"mine",
        offset: 0,
        len: 8,
        clone_uuid,
        clone_ctransid: 5,
        clone_path,
        clone_offset: 0,
    }
}

fn is_path_error(cause: &Cause) -> bool {
    match cause {
        Cause::Path(_) | Cause::OtherPath { .. } => true,
        Cause::CloneFile { source, .. } => is_path_error(source),
        _ => false,
    }
}

#[test]
fn paths_that_lead_outside_are_refused_by_every_command() {
    let b = Target::new();
    let mine = Command::Mkfile { path: b"mine" };
    let dir = Command::Mkdir { path: b"d" };
    let absolute = b
        .outside()
        .join("victim")
        .into_os_string()
        .into_encoded_bytes();
    let paths: [&[u8]; 8] = [
        b"../../outside/victim",
        b"../../../outside/victim",
        b"d/../../../../outside/victim",
        b"..",
        b".",
        b"d//x",
        b"d/",
        &absolute,
    ];
    for path in paths {
        for hostile in with_path(path).into_iter().chain(with_other_path(path)) {
            let cause = b.refusal(&[mine, dir, hostile]);
            assert!(is_path_error(&cause), "{hostile:?}: {cause:?}");
        }
    }
    let nul = [Command::Mkfile { path: b"a\0b" }];
    assert!(matches!(b.refusal(&nul), Cause::Path(PathError::Nul)));
}

#[test]
fn links_are_not_followed_on_the_way() {
    let b = Target::new();
    let outside = b.outside().into_os_string().into_encoded_bytes();
    let dir = Command::Mkdir { path: b"dir" };
    // The last target stays inside, but would give files several paths.
    for target in [
        &outside[..],
        b"../../../outside",
        b"..",
        b"/proc/self/cwd",
        b"dir",
    ] {
        let link = Command::Symlink {
            path: b"link",
            target,
        };
        let mine = Command::Mkfile { path: b"mine" };
        let through = [&b"link/victim"[..], b"link/new", b"link/dir"];
        for path in through {
            for hostile in with_path(path).into_iter().chain(with_other_path(path)) {
                let cause = b.refusal(&[mine, dir, link, hostile]);
                assert!(
                    matches!(
                        &cause,
                        Cause::System(Errno::LOOP | Errno::XDEV) | Cause::CloneFile { .. }
                    ),
                    "{hostile:?}: {cause:?}"
                );
            }
        }
    }
}

#[test]
fn links_are_not_followed_at_the_end() {
    let b = Target::new();
    let victim = b
        .outside()
        .join("victim")
        .into_os_string()
        .into_encoded_bytes();
    let link = Command::Symlink {
        path: b"link",
        target: &victim,
    };
    let mine = Command::Mkfile { path: b"mine" };
    let data: Vec<_> = with_path(b"link")
        .into_iter()
        .filter(|c| ["write", "truncate", "fallocate"].contains(&c.name()))
        .chain([clone(OURS, b"link")])
        .collect();
    for hostile in data {
        let cause = b.refusal(&[mine, link, hostile]);
        let cause = match cause {
            Cause::CloneFile { source, .. } => *source,
            other => other,
        };
        assert!(matches!(cause, Cause::NotRegular), "{hostile:?}: {cause:?}");
    }
    let chmod = Command::Chmod {
        path: b"link",
        mode: 0o777,
    };
    assert!(matches!(b.refusal(&[link, chmod]), Cause::ModeOfSymlink));

    // These commands work on the link itself.
    let own = Command::Chown {
        path: b"link",
        uid: 5,
        gid: 5,
    };
    let label = Command::SetXattr {
        path: b"link",
        name: b"trusted.a",
        data: b"x",
    };
    let times = Command::Utimes {
        path: b"link",
        atime: now(),
        mtime: now(),
        ctime: now(),
        otime: None,
    };
    b.receive(&whole(&[link, own, label, times])).unwrap();
    let changes = tree::compare(&b.fs.path().join("before"), &b.outside()).unwrap();
    assert!(changes.is_empty(), "{changes:?}");
}

#[test]
fn only_regular_files_have_data() {
    let b = Target::new();
    let null = 0x103; // would swallow any write
    let nodes = [
        Command::Mknod {
            path: b"node",
            mode: 0o20666,
            rdev: null,
        },
        Command::Mkfifo { path: b"node" },
        Command::Mksock { path: b"node" },
        Command::Mkdir { path: b"node" },
    ];
    for node in nodes {
        let write = Command::Write {
            path: b"node",
            offset: 0,
            data: b"x",
        };
        let cause = b.refusal(&[node, write]);
        assert!(matches!(cause, Cause::NotRegular), "{node:?}: {cause:?}");
        let truncate = Command::Truncate {
            path: b"node",
            size: 0,
        };
        assert!(matches!(b.refusal(&[node, truncate]), Cause::NotRegular));
    }
}

#[test]
fn clones_come_from_allowed_subvolumes_only() {
    let b = Target::new();
    let mine = Command::Mkfile { path: b"mine" };
    // A read-only subvolume of another owner, not directly in the target directory.
    let live = b.fs.path().join("theirs");
    streams::create(&live).unwrap();
    fs::write(live.join("secret"), "secret data").unwrap();
    streams::snapshot(&live, &b.fs.path().join("theirs-ro")).unwrap();
    let uuid = uuid_of(&b.fs.path().join("theirs-ro"));
    for foreign in [uuid, FOREIGN] {
        let cause = b.refusal(&[mine, clone(foreign, b"secret")]);
        assert!(matches!(cause, Cause::CloneSource { .. }), "{cause:?}");
    }
}

#[test]
fn clones_stay_in_the_subvolume_that_they_name() {
    let b = Target::new();
    let base = b.fs.path().join("base");
    streams::create(&base).unwrap();
    fs::write(base.join("file"), "eight by").unwrap();
    symlink(b.outside().join("victim"), base.join("link")).unwrap();
    symlink(b.outside(), base.join("dirlink")).unwrap();
    streams::snapshot(&base, &b.target().join("base")).unwrap();
    let uuid = uuid_of(&b.target().join("base"));
    let mine = Command::Mkfile { path: b"mine" };
    for path in [
        &b"link"[..],
        b"dirlink/victim",
        b"../../outside/victim",
        b"",
    ] {
        let error = b.receive(&whole(&[mine, clone(uuid, path)])).unwrap_err();
        let ReceiveError::Stream(SessionError::Apply(e)) = error else {
            panic!("{error:?}");
        };
        assert!(matches!(e.cause, Cause::CloneFile { .. }), "{e:?}");
    }
    let changes = tree::compare(&b.fs.path().join("before"), &b.outside()).unwrap();
    assert!(changes.is_empty(), "{changes:?}");
    b.receive(&whole(&[mine, clone(uuid, b"file")])).unwrap();
    assert_eq!(fs::read(b.target().join("s1/mine")).unwrap(), b"eight by");
}

#[test]
fn a_clone_beyond_the_end_of_its_source_is_refused() {
    let b = Target::new();
    let source = Command::Mkfile { path: b"mine" };
    let cause = b.refusal(&[source, Command::Mkfile { path: b"x" }, clone(OURS, b"x")]);
    assert!(
        matches!(cause, Cause::ClonePastEnd { end: 8, size: 0 }),
        "{cause:?}"
    );
}

#[test]
fn names_of_subvolumes_stay_in_the_directory() {
    let b = Target::new();
    for name in [&b"../escaped"[..], b"a/b", b"..", b".", b"", b"/abs"] {
        let error = b.receive(&[subvol(name), Command::End]).unwrap_err();
        assert!(
            matches!(
                &error,
                ReceiveError::Stream(SessionError::Host(HostError::Name(_)))
            ),
            "{error:?}"
        );
        b.assert_untouched();
    }
    assert!(!b.fs.path().join("escaped").exists());
    let error = b.receive(&[subvol(b".sendshot-staging"), Command::End]);
    assert!(error.is_err());
    b.assert_untouched();
}

#[test]
fn values_with_other_meanings_are_refused() {
    let b = Target::new();
    let file = Command::Mkfile { path: b"f" };
    let utimes = |nsec| Command::Utimes {
        path: b"f",
        atime: now(),
        mtime: Timespec { sec: 0, nsec },
        ctime: now(),
        otime: None,
    };
    for nsec in [1_000_000_000, 0x3fff_ffff, 0x3fff_fffe, u32::MAX] {
        assert!(matches!(
            b.refusal(&[file, utimes(nsec)]),
            Cause::Nanoseconds(_)
        ));
    }
    for id in [u64::from(u32::MAX), 1 << 32, u64::MAX] {
        let chown = Command::Chown {
            path: b"f",
            uid: 0,
            gid: id,
        };
        assert!(matches!(b.refusal(&[file, chown]), Cause::OwnerId(_)));
    }
    let mknod = |mode, rdev| Command::Mknod {
        path: b"n",
        mode,
        rdev,
    };
    assert!(matches!(
        b.refusal(&[mknod(0o100644, 0)]),
        Cause::NodeMode(_)
    ));
    assert!(matches!(
        b.refusal(&[mknod(0o20644, 1 << 40)]),
        Cause::DeviceNumber(_)
    ));
    let write = Command::Write {
        path: b"f",
        offset: u64::MAX - 1,
        data: b"abc",
    };
    assert!(matches!(b.refusal(&[file, write]), Cause::Range { .. }));
    let nothing = Command::UpdateExtent {
        path: b"f",
        offset: 0,
        len: 9,
    };
    assert!(matches!(b.refusal(&[file, nothing]), Cause::NoData));
    let collapse = Command::Fallocate {
        path: b"f",
        mode: 8,
        offset: 0,
        len: 4096,
    };
    assert!(matches!(
        b.refusal(&[file, collapse]),
        Cause::FallocateMode(8)
    ));
}

#[test]
fn the_root_itself_has_metadata_only() {
    let b = Target::new();
    for hostile in with_path(b"") {
        let metadata = ["chmod", "chown", "utimes", "set_xattr", "remove_xattr"];
        if !metadata.contains(&hostile.name()) {
            let cause = b.refusal(&[hostile]);
            assert!(
                matches!(cause, Cause::Path(PathError::Empty)),
                "{hostile:?}: {cause:?}"
            );
        }
    }
}

#[test]
fn commands_have_their_order() {
    let b = Target::new();
    let mkdir = Command::Mkdir { path: b"d" };
    let sequence = |commands: &[Command<'_>]| match b.receive(commands).unwrap_err() {
        ReceiveError::Stream(SessionError::Sequence { fault, .. }) => fault,
        other => panic!("{other:?}"),
    };
    assert_eq!(sequence(&[mkdir]), SequenceError::BeforeSubvolume("mkdir"));
    assert_eq!(
        sequence(&[Command::End]),
        SequenceError::BeforeSubvolume("end")
    );
    let nil = Command::Subvol {
        path: b"s1",
        uuid: Uuid::nil(),
        ctransid: 1,
    };
    assert_eq!(sequence(&[nil]), SequenceError::NilUuid);
    b.assert_untouched();
}

fn uuid_of(subvolume: &std::path::Path) -> Uuid {
    let mut show = std::process::Command::new("btrfs");
    show.args(["subvolume", "show"]).arg(subvolume);
    let text =
        String::from_utf8(sendshot_harness::disks::loopfs::output(&mut show).unwrap()).unwrap();
    let line = text
        .lines()
        .find(|l| l.trim().starts_with("UUID:"))
        .unwrap();
    line.split(':').nth(1).unwrap().trim().parse().unwrap()
}
