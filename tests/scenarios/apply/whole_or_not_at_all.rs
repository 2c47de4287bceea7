//! A stream becomes a copy that is complete, durable and identified by its UUID, or nothing.
//! Needs root.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use sendshot_apply::commit::{CommitError, Taken, commit};
use sendshot_apply::parent::{FindError, Trust, Unusable};
use sendshot_apply::receive::{Event, HostError, Options, ReceiveError};
use sendshot_apply::staging::{Area, Staged};
use sendshot_apply::{
    Announced, Cause, CloneSources, Host, Policies, Scope, Session, SessionError, Subvolumes,
    WriteObstacle,
};
use sendshot_harness::compare::tree;
use sendshot_harness::disks::loopfs::{LoopFs, run};
use sendshot_harness::disks::streams::{self, Format};
use sendshot_stream::Fault;
use sendshot_sys::durable::Filled;
use uuid::Uuid;

const SIZE: u64 = 1 << 30;

fn btrfs() -> LoopFs {
    LoopFs::new(SIZE, &[], "").unwrap()
}

/// A source with three consecutive small snapshots, and a file system to receive into.
struct Boxes {
    source: LoopFs,
    target: LoopFs,
}

impl Boxes {
    fn new() -> Self {
        let (source, target) = (btrfs(), btrfs());
        let live = source.path().join("live");
        streams::create(&live).unwrap();
        for n in 1..=3 {
            fs::write(live.join(format!("file{n}")), vec![n; 10_000]).unwrap();
            fs::write(live.join("changing"), [n; 100]).unwrap();
            streams::snapshot(&live, &source.path().join(format!("s{n}"))).unwrap();
        }
        Self { source, target }
    }

    fn snapshot(&self, n: u32) -> PathBuf {
        self.source.path().join(format!("s{n}"))
    }

    fn full(&self, n: u32) -> Vec<u8> {
        streams::send(Format::V2, None, &self.snapshot(n)).unwrap()
    }

    fn increment(&self, from: u32, to: u32) -> Vec<u8> {
        streams::send(Format::V2, Some(&self.snapshot(from)), &self.snapshot(to)).unwrap()
    }

    fn dir(&self) -> &Path {
        self.target.path()
    }

    fn assert_copy(&self, n: u32) {
        let copy = self.dir().join(format!("s{n}"));
        let differences = tree::compare(&self.snapshot(n), &copy).unwrap();
        assert!(differences.is_empty(), "{differences:?}");
    }

    /// Lists the names in the target directory.
    fn left(&self) -> Vec<String> {
        names(self.dir())
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn receive_with(stream: &[u8], dir: &Path, trust: Trust) -> (Result<(), ReceiveError>, Vec<Event>) {
    let options = Options {
        scope: Scope::default(),
        trust,
        policies: Policies::default(),
    };
    let mut events = Vec::new();
    let dir = File::open(dir).unwrap();
    let result = sendshot_apply::receive(stream, &dir, options, |event| events.push(event));
    (result, events)
}

fn receive(stream: &[u8], dir: &Path) -> Result<(), ReceiveError> {
    receive_with(stream, dir, Trust::Strict).0
}

fn host_error(result: Result<(), ReceiveError>) -> HostError {
    match result.unwrap_err() {
        ReceiveError::Stream(SessionError::Host(e)) => e,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_copy_carries_the_identity_of_what_was_sent() {
    let hosts = Boxes::new();
    let (result, events) = receive_with(&hosts.full(1), hosts.dir(), Trust::Strict);
    result.unwrap();
    let [Event::Begun(begun), Event::Received(copy)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(copy.name, "s1");
    assert_eq!(copy.info.received_uuid, begun.identity.uuid);
    assert_eq!(copy.info.stransid, begun.identity.ctransid);
    assert!(copy.info.is_pristine());
    hosts.assert_copy(1);
    assert_eq!(hosts.left(), ["s1"]);
}

#[test]
fn stock_receive_takes_our_copies_as_parents_and_we_take_its() {
    let hosts = Boxes::new();
    receive(&hosts.full(1), hosts.dir()).unwrap();
    streams::stock_receive(&hosts.increment(1, 2), hosts.dir()).unwrap();
    hosts.assert_copy(2);

    let refused = host_error(receive(&hosts.increment(2, 3), hosts.dir()));
    let HostError::Parent(FindError::Unusable { name, why, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(name, "s2");
    assert!(matches!(why, Unusable::ReceivedByOtherTool { .. }));
    assert_eq!(hosts.left(), ["s1", "s2"]);

    let (result, events) = receive_with(&hosts.increment(2, 3), hosts.dir(), Trust::Lenient);
    result.unwrap();
    assert!(matches!(&events[0], Event::Doubtful { name, .. } if name == "s2"));
    hosts.assert_copy(3);
}

#[test]
fn the_original_is_a_parent_for_what_comes_back() {
    let hosts = Boxes::new();
    receive(&hosts.full(1), hosts.dir()).unwrap();
    let copy = hosts.dir().join("s1");
    let live = hosts.dir().join("work");
    run(Command::new("btrfs")
        .args(["subvolume", "snapshot"])
        .arg(&copy)
        .arg(&live))
    .unwrap();
    fs::write(live.join("done there"), "x").unwrap();
    let back = hosts.dir().join("back");
    streams::snapshot(&live, &back).unwrap();
    let stream = streams::send(Format::V2, Some(&copy), &back).unwrap();
    receive(&stream, hosts.source.path()).unwrap();
    let differences = tree::compare(&back, &hosts.source.path().join("back")).unwrap();
    assert!(differences.is_empty(), "{differences:?}");
}

#[test]
fn a_stream_that_ends_anywhere_leaves_nothing() {
    let hosts = Boxes::new();
    let stream = hosts.full(1);
    for len in [
        0,
        5,
        17,
        18,
        90,
        stream.len() / 2,
        stream.len() - 10,
        stream.len() - 1,
    ] {
        let error = receive(&stream[..len], hosts.dir()).unwrap_err();
        let ReceiveError::Stream(SessionError::Decode(e)) = &error else {
            panic!("{error:?}");
        };
        let expected = [Fault::Empty, Fault::Truncated, Fault::MissingEnd];
        assert!(expected.contains(&e.fault), "cut to {len}: {e}");
        assert_eq!(hosts.left(), [""; 0], "cut to {len}");
    }
    receive(&stream, hosts.dir()).unwrap();
    hosts.assert_copy(1);
}

#[test]
fn a_damaged_stream_leaves_nothing() {
    let hosts = Boxes::new();
    let stream = hosts.full(1);
    for at in (17..stream.len()).step_by(stream.len() / 40) {
        let mut damaged = stream.clone();
        damaged[at] ^= 0x10;
        let error = receive(&damaged, hosts.dir()).unwrap_err();
        assert!(matches!(error, ReceiveError::Stream(_)), "{error:?}");
        assert_eq!(hosts.left(), [""; 0], "damage at {at}");
    }
}

#[test]
fn a_taken_name_is_refused_before_any_data() {
    let hosts = Boxes::new();
    let stream = hosts.full(1);
    fs::create_dir(hosts.dir().join("s1")).unwrap();
    // The end is missing: without the early check the error would be about that.
    let error = host_error(receive(&stream[..stream.len() / 2], hosts.dir()));
    assert!(matches!(error, HostError::Exists(name) if name == "s1"));
    assert_eq!(names(&hosts.dir().join("s1")), [""; 0]);
}

#[test]
fn a_missing_parent_is_said_and_a_writable_one_not_taken() {
    let hosts = Boxes::new();
    let error = host_error(receive(&hosts.increment(1, 2), hosts.dir()));
    assert!(matches!(error, HostError::Parent(FindError::Missing(_))));

    receive(&hosts.full(1), hosts.dir()).unwrap();
    set_writable(&hosts.dir().join("s1"));
    let (result, _) = receive_with(&hosts.increment(1, 2), hosts.dir(), Trust::Lenient);
    let error = host_error(result);
    let HostError::Parent(FindError::Unusable { why, .. }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(why, Unusable::Writable);
    assert_eq!(hosts.left(), ["s1"]);
}

/// Uses the ioctl itself: `btrfs property set` would also clear the received UUID.
fn set_writable(subvolume: &Path) {
    use sendshot_sys::subvolume::{Access, set_access};
    set_access(File::open(subvolume).unwrap(), Access::ReadWrite).unwrap();
}

fn set_read_only(subvolume: &Path) {
    use sendshot_sys::subvolume::{Access, set_access};
    set_access(File::open(subvolume).unwrap(), Access::ReadOnly).unwrap();
}

/// Stock receive accepts such a parent, and makes a copy with wrong content.
#[test]
fn a_parent_that_was_changed_in_between_is_not_taken() {
    let hosts = Boxes::new();
    receive(&hosts.full(1), hosts.dir()).unwrap();
    let parent = hosts.dir().join("s1");
    set_writable(&parent);
    fs::write(parent.join("file1"), "tampered").unwrap();
    set_read_only(&parent);
    let error = host_error(receive(&hosts.increment(1, 2), hosts.dir()));
    let HostError::Parent(FindError::Unusable { why, .. }) = error else {
        panic!("{error:?}");
    };
    assert!(matches!(why, Unusable::Changed { .. }));
    assert_eq!(hosts.left(), ["s1"]);
}

#[test]
fn several_subvolumes_come_in_one_stream() {
    let hosts = Boxes::new();
    for flags in [&["--quiet"][..], &["--quiet", "-e"]] {
        let mut send = Command::new("btrfs");
        send.arg("send")
            .args(flags)
            .arg("-p")
            .arg(hosts.snapshot(1));
        send.arg(hosts.snapshot(2)).arg(hosts.snapshot(3));
        let both = sendshot_harness::disks::loopfs::output(&mut send).unwrap();
        let dir = hosts.dir().join(flags.last().unwrap());
        fs::create_dir(&dir).unwrap();
        receive(&hosts.full(1), &dir).unwrap();
        receive(&both, &dir).unwrap();
        assert_eq!(names(&dir), ["s1", "s2", "s3"]);
        for n in [2, 3] {
            let copy = dir.join(format!("s{n}"));
            assert_eq!(tree::compare(&hosts.snapshot(n), &copy).unwrap(), [""; 0]);
        }
    }
}

#[test]
fn targets_that_cannot_hold_copies_are_named() {
    let hosts = Boxes::new();
    let stream = hosts.full(1);
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let error = receive(&stream, elsewhere.path()).unwrap_err();
    assert!(matches!(error, ReceiveError::NotBtrfs));

    let error = receive(&stream, &hosts.snapshot(1)).unwrap_err();
    assert!(matches!(
        error,
        ReceiveError::ReadOnly(WriteObstacle::Subvolume)
    ));

    let remount = |how: &str| {
        run(Command::new("mount").args(["-o", how]).arg(hosts.dir())).unwrap();
    };
    remount("remount,ro");
    let error = receive(&stream, hosts.dir()).unwrap_err();
    assert!(matches!(
        error,
        ReceiveError::ReadOnly(WriteObstacle::FileSystem)
    ));
    remount("remount,rw");
}

#[test]
fn a_full_file_system_leaves_nothing_and_says_so() {
    let source = btrfs();
    let live = source.path().join("live");
    streams::create(&live).unwrap();
    fs::write(live.join("big"), vec![7; 300 << 20]).unwrap();
    let snapshot = source.path().join("s1");
    streams::snapshot(&live, &snapshot).unwrap();
    let stream = streams::send(Format::V2, None, &snapshot).unwrap();

    let target = LoopFs::new(150 << 20, &["--mixed"], "").unwrap();
    let error = receive(&stream, target.path()).unwrap_err();
    match &error {
        ReceiveError::Stream(e @ SessionError::Apply(_)) => {
            assert_eq!(e.errno(), Some(rustix::io::Errno::NOSPC));
        }
        ReceiveError::Stream(SessionError::Host(HostError::Commit(CommitError::Flush(e)))) => {
            assert_eq!(e.raw_os_error(), Some(28));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(names(target.path()), [""; 0]);
}

#[test]
fn only_leftovers_of_dead_runs_are_deleted() {
    let hosts = Boxes::new();
    let dir = File::open(hosts.dir()).unwrap();
    let area = Area::new(&dir).unwrap();
    let living = area.stage(OsStr::new("receive-living"), None).unwrap();
    let staging = hosts.dir().join(".sendshot-staging");
    streams::create(&staging.join("receive-dead")).unwrap();
    streams::create(&staging.join("stranger")).unwrap();

    receive(&hosts.full(1), hosts.dir()).unwrap();
    hosts.assert_copy(1);
    assert_eq!(names(&staging), ["receive-living", "stranger"]);

    living.destroy().unwrap();
    run(Command::new("btrfs")
        .args(["subvolume", "delete"])
        .arg(staging.join("stranger")))
    .unwrap();
    receive(&hosts.full(2), hosts.dir()).unwrap();
    assert_eq!(hosts.left(), ["s1", "s2"]);
}

#[test]
fn a_staging_directory_of_another_user_is_not_used() {
    let hosts = Boxes::new();
    let staging = hosts.dir().join(".sendshot-staging");
    fs::create_dir(&staging).unwrap();
    std::os::unix::fs::chown(&staging, Some(1000), None).unwrap();
    let error = receive(&hosts.full(1), hosts.dir()).unwrap_err();
    assert!(matches!(error, ReceiveError::Staging(_)), "{error:?}");
}

#[test]
fn many_receive_into_one_directory_at_once() {
    let hosts = Boxes::new();
    let streams: Vec<_> = (1..=3).map(|n| hosts.full(n)).collect();
    for _ in 0..5 {
        std::thread::scope(|scope| {
            for stream in &streams {
                scope.spawn(|| receive(stream, hosts.dir()).unwrap());
            }
        });
        assert_eq!(hosts.left(), ["s1", "s2", "s3"]);
        for n in 1..=3 {
            hosts.assert_copy(n);
            let copy = hosts.dir().join(format!("s{n}"));
            run(Command::new("btrfs")
                .args(["subvolume", "delete"])
                .arg(copy))
            .unwrap();
        }
    }
}

/// The host of a session as in a daemon, for a stream without parent.
struct Daemon {
    area: Area,
    staged: Option<Staged>,
}

impl CloneSources for Daemon {
    fn open(
        &mut self,
        uuid: Uuid,
        _: u64,
    ) -> Result<OwnedFd, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("no clones from {uuid} here").into())
    }
}

impl Host for Daemon {
    type Error = std::io::Error;

    fn begin(&mut self, _: &Announced) -> std::io::Result<OwnedFd> {
        let staged = self.area.stage(OsStr::new("transfer"), None).unwrap();
        let root = staged.root_for_applier()?;
        self.staged = Some(staged);
        Ok(root)
    }

    fn complete(&mut self, _: &Announced, _: Arc<OwnedFd>) -> std::io::Result<()> {
        Ok(())
    }
}

fn daemon(dir: &File) -> Daemon {
    Daemon {
        area: Area::new(dir).unwrap(),
        staged: None,
    }
}

#[test]
fn a_transfer_goes_on_from_a_checkpoint() {
    let hosts = Boxes::new();
    let dir = File::open(hosts.dir()).unwrap();
    let stream = hosts.full(3);
    let policies = Policies::default();
    let cut = stream.len() / 2;

    let mut session = Session::new(daemon(&dir), Subvolumes::One, policies);
    assert_eq!(session.checkpoint().unwrap(), None);
    session.feed(&stream[..cut]).unwrap();
    let position = session.checkpoint().unwrap().unwrap();
    assert!(position.offset <= cut as u64);
    let interrupted = session.into_host().staged.unwrap();
    let checkpoint = hosts.dir().join("checkpoint");
    let staged = hosts.dir().join(".sendshot-staging/transfer");
    streams::snapshot(&staged, &checkpoint).unwrap();
    fs::write(staged.join("newer than the checkpoint"), "x").unwrap();
    interrupted.destroy().unwrap();

    let mut host = daemon(&dir);
    let source = File::open(&checkpoint).unwrap();
    let staged = host
        .area
        .stage(OsStr::new("resumed"), Some(source.as_fd()))
        .unwrap();
    let root = staged.root_for_applier().unwrap();
    host.staged = Some(staged);
    let identity = position.subvolume.identity;
    let rest = &stream[usize::try_from(position.offset).unwrap()..];
    let mut session = Session::resume(host, position, root, Subvolumes::One, policies).unwrap();
    for byte in rest {
        session.feed(std::slice::from_ref(byte)).unwrap();
    }
    assert_eq!(session.checkpoint().unwrap(), None);
    let staged = session.finish().unwrap().staged.unwrap();
    let note = Filled::new(&dir, OsStr::new("note"), b"s3 comes", 0o600).unwrap();
    let (name, notes) = (OsStr::new("s3"), vec![note]);
    let copy = commit(staged, &dir, name, identity, Taken::Refuse, notes).unwrap();
    assert_eq!(copy.info.received_uuid, identity.uuid);
    assert_eq!(fs::read(hosts.dir().join("note")).unwrap(), b"s3 comes");
    hosts.assert_copy(3);
}

/// The flush would not have synced the notes there.
#[test]
fn nothing_is_committed_or_noted_on_another_file_system() {
    let hosts = Boxes::new();
    let dir = File::open(hosts.dir()).unwrap();
    let other = LoopFs::new(128 << 20, &[], "").unwrap();
    let target = File::open(other.path()).unwrap();
    let mut session = Session::new(daemon(&dir), Subvolumes::One, Policies::default());
    session.feed(&hosts.full(1)).unwrap();
    let staged = session.finish().unwrap().staged.unwrap();
    let identity = sendshot_apply::Identity {
        uuid: Uuid::from_u128(1),
        ctransid: 1,
    };
    fs::write(other.path().join("note"), "old").unwrap();
    let note = Filled::new(&target, OsStr::new("note"), b"it comes", 0o600).unwrap();
    let (name, notes) = (OsStr::new("copy"), vec![note]);
    let error = commit(staged, &target, name, identity, Taken::Refuse, notes).unwrap_err();
    let CommitError::Snapshot { source, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(source.kind(), std::io::ErrorKind::CrossesDevices);
    assert_eq!(fs::read(other.path().join("note")).unwrap(), b"old");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
}

#[test]
fn names_are_numbered_only_where_that_is_wanted() {
    let hosts = Boxes::new();
    let dir = File::open(hosts.dir()).unwrap();
    let commit_as = |taken| {
        let mut session = Session::new(daemon(&dir), Subvolumes::One, Policies::default());
        session.feed(&hosts.full(1)).unwrap();
        let staged = session.finish().unwrap().staged.unwrap();
        let identity = sendshot_apply::Identity {
            uuid: Uuid::from_u128(1),
            ctransid: 1,
        };
        commit(
            staged,
            &dir,
            OsStr::new("copy"),
            identity,
            taken,
            Vec::new(),
        )
    };
    assert_eq!(commit_as(Taken::Number).unwrap().name, "copy");
    assert_eq!(commit_as(Taken::Number).unwrap().name, "copy-2");
    assert_eq!(commit_as(Taken::Number).unwrap().name, "copy-3");
    assert!(matches!(
        commit_as(Taken::Refuse),
        Err(CommitError::Exists(_))
    ));
    assert_eq!(names(&hosts.dir().join(".sendshot-staging")), [""; 0]);
}

#[test]
fn a_second_subvolume_is_refused_where_one_is_allowed() {
    let hosts = Boxes::new();
    let dir = File::open(hosts.dir()).unwrap();
    let mut session = Session::new(daemon(&dir), Subvolumes::One, Policies::default());
    session.feed(&hosts.full(1)).unwrap();
    let error = session.feed(&hosts.full(2)).unwrap_err();
    assert!(matches!(error, SessionError::Sequence { .. }), "{error:?}");
    assert!(matches!(session.feed(b""), Err(SessionError::Failed)));
    assert!(matches!(session.finish(), Err(SessionError::Failed)));
}

/// The kernel reports a lack of space, which would mislead users into deleting copies.
#[test]
fn an_attribute_too_large_for_a_leaf_is_reported() {
    let larger = LoopFs::new(SIZE, &["--nodesize", "65536"], "").unwrap();
    let (volume, snapshot) = (larger.path().join("volume"), larger.path().join("s1"));
    streams::create(&volume).unwrap();
    let file = volume.join("file");
    fs::write(&file, "x").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&file, "user.large", &[7; 20_000], flags).unwrap();
    streams::snapshot(&volume, &snapshot).unwrap();
    let stream = streams::send(Format::V1, None, &snapshot).unwrap();
    let target = btrfs();
    let error = receive(&stream, target.path()).unwrap_err();
    let ReceiveError::Stream(SessionError::Apply(error)) = error else {
        panic!("{error:?}");
    };
    assert!(
        matches!(
            error.cause,
            Cause::AttributeTooLarge {
                len: 20_010,
                limit: 16_228
            }
        ),
        "{error:?}"
    );
    // The largest attribute that fits is kept.
    rustix::fs::setxattr(&file, "user.large", &[7; 16_228 - 10], flags).unwrap();
    let second = larger.path().join("s2");
    streams::snapshot(&volume, &second).unwrap();
    let stream = streams::send(Format::V1, None, &second).unwrap();
    receive(&stream, target.path()).unwrap();
}
