//! Which subvolume `stream receive` takes as the parent of a stream, and which identity a chain of hosts
//! passes on. Needs root.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use sendshot_harness::compare::tree;
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams::{self, Format};
use sendshot_harness::hosts::binaries;
use sendshot_harness::hosts::command::{Output, run, tool};
use sendshot_harness::trees::fill;
use sendshot_sys::subvolume::{self, Info};
use tempfile::TempDir;

const SIZE: u64 = 1 << 30;
/// Bytes of the file in every snapshot, so that a full stream shows by its length.
const DATA: usize = 3_000_000;
/// More bytes than an increment of these tests has.
const INCREMENT: u64 = 300_000;

fn ctl(arguments: &[&str]) -> Output {
    run(Command::new(binaries::path("sendshotctl")).args(arguments))
}

fn info(subvolume: &Path) -> Info {
    subvolume::info(File::open(subvolume).unwrap()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[track_caller]
fn assert_same(of: &Path, copy: &Path) {
    assert_eq!(tree::compare(of, copy).unwrap(), Vec::<String>::new());
}

/// A host: a file system whose transaction numbers are about `age` ahead of a new one's.
struct Host {
    fs: LoopFs,
    /// Directory of streams and sendshots.
    files: TempDir,
}

impl Host {
    fn new(age: u32) -> Self {
        let fs = LoopFs::new(SIZE, &[], "").unwrap();
        for turn in 0..age {
            fs::write(fs.path().join("turn"), turn.to_string()).unwrap();
            tool("btrfs", &["filesystem", "sync", text(fs.path())]);
        }
        let files = tempfile::tempdir_in("/dev/shm").unwrap();
        Self { fs, files }
    }

    /// Makes the host on which a volume begins, with its first snapshot `s1`.
    fn origin() -> Self {
        let host = Self::new(0);
        streams::create(&host.path("live")).unwrap();
        fill::file(host.path("live/data"), 1, DATA);
        fill::file(host.path("live/changing"), 2, 5_000);
        streams::snapshot(&host.path("live"), &host.path("s1")).unwrap();
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.fs.path().join(path)
    }

    fn dir(&self, path: &str) -> PathBuf {
        fs::create_dir_all(self.path(path)).unwrap();
        self.path(path)
    }

    fn file(&self, name: &str) -> String {
        text(&self.files.path().join(name)).to_owned()
    }

    /// Writes the stream of a snapshot by the sendshot engine to a file.
    fn sent(&self, snapshot: &Path, arguments: &[&str]) -> String {
        let stream = self.file("stream");
        let send = ["stream", "send", "-f", &stream];
        ctl(&[&send, arguments, &[text(snapshot)]].concat()).success();
        stream
    }

    /// Writes the stream of the kernel's send to a file.
    fn kernels(&self, snapshot: &Path, parent: Option<&Path>) -> String {
        let stream = streams::send(Format::V2, parent, snapshot).unwrap();
        fs::write(self.file("stream"), stream).unwrap();
        self.file("stream")
    }

    /// Continues the volume from the received `copy`, and takes its next snapshot here.
    fn next_snapshot(&self, copy: &Path, snapshot: &str) -> PathBuf {
        let live = self.path("went-on");
        let arguments = ["subvolume", "snapshot", text(copy), text(&live)];
        tool("btrfs", &arguments);
        fs::write(live.join("changing"), "here").unwrap();
        streams::snapshot(&live, &self.path(snapshot)).unwrap();
        self.path(snapshot)
    }
}

#[track_caller]
fn assert_increment(stream: &str) {
    let len = fs::metadata(stream).unwrap().len();
    assert!(len < INCREMENT, "{len} bytes are no increment");
}

#[track_caller]
fn receive(stream: &str, dir: &Path, arguments: &[&str]) -> Output {
    ctl(&[
        &["stream", "receive", "-f", stream],
        arguments,
        &[text(dir)],
    ]
    .concat())
}

#[test]
fn a_snapshot_that_came_round_a_third_host_is_found_as_parent() {
    let [first, second, third] = [Host::origin(), Host::new(10), Host::new(30)];
    let stream = first.sent(&first.path("s1"), &[]);
    receive(&stream, &second.dir("in"), &["--strict"]).success();
    let stream = second.sent(&second.path("in/s1"), &[]);
    receive(&stream, &third.dir("in"), &["--strict"]).success();

    let sendshot = third.file("s1.sendshot");
    third.sent(&third.path("in/s1"), &["--save-sendshot", &sendshot]);
    let next = third.next_snapshot(&third.path("in/s1"), "s2");
    let stream = third.sent(&next, &["--sendshot", &sendshot]);
    assert_increment(&stream);
    let received = receive(&stream, &second.path("in"), &["--strict"]).success();
    assert!(!received.stderr.contains("warning"), "{received:?}");
    assert_same(&next, &second.path("in/s2"));
    // The origin has the state itself.
    receive(&stream, first.fs.path(), &["--strict"]).success();
    assert_same(&next, &first.path("s2"));
}

#[test]
fn a_stream_through_a_third_host_is_taken_with_a_warning() {
    let [first, second, third] = [Host::origin(), Host::new(10), Host::new(30)];
    let stream = first.kernels(&first.path("s1"), None);
    receive(&stream, &second.dir("in"), &[]).success();
    let stream = second.kernels(&second.path("in/s1"), None);
    receive(&stream, &third.dir("in"), &[]).success();
    let next = third.next_snapshot(&third.path("in/s1"), "s2");
    let stream = third.kernels(&next, Some(&third.path("in/s1")));

    let found = info(&second.path("in/s1")).stransid;
    let wanted = info(&third.path("in/s1")).ctransid;
    assert_ne!(found, wanted, "this would prove nothing");
    let (found, wanted) = (found.to_string(), wanted.to_string());
    receive(&stream, &second.path("in"), &["--strict"])
        .fails(1, &["s1 cannot be used", &found, &wanted]);
    assert!(!second.path("in/s2").exists());
    let received = receive(&stream, &second.path("in"), &[]).success();
    for word in ["warning: s1", &found, &wanted, "--strict"] {
        assert!(received.stderr.contains(word), "{word}: {received:?}");
    }
    assert_same(&next, &second.path("in/s2"));
}

#[test]
fn each_host_of_a_chain_knows_a_state_by_its_origins_identity() {
    let [first, second, third] = [Host::origin(), Host::new(10), Host::new(30)];
    let stream = first.sent(&first.path("s1"), &[]);
    receive(&stream, &second.dir("in"), &[]).success();
    let stream = second.sent(&second.path("in/s1"), &[]);
    receive(&stream, &third.dir("in"), &[]).success();
    let (origin, copy) = (info(&first.path("s1")), info(&third.path("in/s1")));
    let between = info(&second.path("in/s1"));
    assert_ne!(
        between.ctransid, origin.ctransid,
        "this would prove nothing"
    );
    assert_eq!(copy.received_uuid, origin.uuid);
    assert_eq!(copy.stransid, origin.ctransid);
    assert!(copy.is_pristine());
}

#[test]
fn a_changed_received_subvolume_is_announced_as_by_the_kernel() {
    let [first, second, third] = [Host::origin(), Host::new(10), Host::new(30)];
    let stream = fs::read(first.sent(&first.path("s1"), &[])).unwrap();
    streams::stock_receive(&stream, &second.dir("in")).unwrap();
    let stream = second.sent(&second.path("in/s1"), &[]);
    receive(&stream, &third.dir("in"), &[]).success();
    let between = info(&second.path("in/s1"));
    assert!(!between.is_pristine(), "this would prove nothing");
    let copy = info(&third.path("in/s1"));
    assert_eq!(copy.received_uuid, info(&first.path("s1")).uuid);
    assert_eq!(copy.stransid, between.ctransid);
}

#[test]
fn a_changed_copy_loses_its_origin() {
    let [first, second, third] = [Host::origin(), Host::new(10), Host::new(30)];
    let stream = first.sent(&first.path("s1"), &[]);
    receive(&stream, &second.dir("in"), &[]).success();
    let copy = second.path("in/s1");
    let root = File::open(&copy).unwrap();
    subvolume::set_access(&root, subvolume::Access::ReadWrite).unwrap();
    fs::write(copy.join("changing"), "something else").unwrap();
    streams::snapshot(&copy, &second.path("s1")).unwrap();
    // The snapshot inherits the received UUID of its source.
    let between = info(&second.path("s1"));
    assert_eq!(between.received_uuid, info(&first.path("s1")).uuid);
    assert!(between.is_pristine(), "this would prove nothing");
    let stream = second.sent(&second.path("s1"), &[]);
    receive(&stream, &third.dir("in"), &[]).success();
    assert_eq!(info(&third.path("in/s1")).stransid, between.ctransid);
}

/// A parent in one directory, and an increment to be received into another.
struct Layout {
    to: Host,
    stream: String,
    next: PathBuf,
    from: Host,
}

impl Layout {
    /// Calls both snapshots `name`, and receives the first into `parent`.
    fn new(name: &str, parent: &str) -> Self {
        let (from, to) = (Host::origin(), Host::new(0));
        let snapshot = from.dir("1").join(name);
        streams::snapshot(&from.path("live"), &snapshot).unwrap();
        let sendshot = from.file("sendshot");
        let stream = from.sent(&snapshot, &["--save-sendshot", &sendshot]);
        receive(&stream, &to.dir(parent), &[]).success();
        fs::write(from.path("live/changing"), "again").unwrap();
        let next = from.dir("2").join(name);
        streams::snapshot(&from.path("live"), &next).unwrap();
        let stream = from.sent(&next, &["--sendshot", &sendshot]);
        assert_increment(&stream);
        Self {
            to,
            stream,
            next,
            from,
        }
    }

    /// Asserts a refusal that names the parent's path and the remedy, and leaves nothing.
    #[track_caller]
    fn refused(&self, dir: &Path, arguments: &[&str], parent: &Path) {
        let above = format!("--parents {}", text(parent.parent().unwrap()));
        let words = [text(parent), &above, "--parents-anywhere"];
        receive(&self.stream, dir, arguments).fails(1, &words);
        assert_eq!(fs::read_dir(dir).unwrap().count(), 0, "something is left");
    }

    #[track_caller]
    fn taken(&self, dir: &Path, arguments: &[&str]) {
        receive(&self.stream, dir, arguments).success();
        let copy = dir.join(self.next.file_name().unwrap());
        assert_same(&self.next, &copy);
        streams::delete(&copy).unwrap();
    }
}

#[test]
fn a_parent_in_snappers_layout_needs_parents_dir() {
    let layout = Layout::new("snapshot", ".snapshots/1");
    let (dir, above) = (layout.to.dir(".snapshots/2"), layout.to.path(".snapshots"));
    layout.refused(&dir, &[], &layout.to.path(".snapshots/1/snapshot"));
    layout.taken(&dir, &["--strict", "--parents", text(&above)]);
    layout.taken(&dir, &["--strict", "--parents-anywhere"]);
}

#[test]
fn a_parent_in_a_dated_directory_needs_parents_dir() {
    let layout = Layout::new("photos", "backup/2026-01-01");
    let dir = layout.to.dir("backup/2026-01-02");
    let parent = layout.to.path("backup/2026-01-01/photos");
    layout.refused(&dir, &[], &parent);
    layout.taken(&dir, &["--parents", text(parent.parent().unwrap())]);
    layout.taken(&dir, &["--parents", text(&parent)]);
    layout.taken(&dir, &["--parents", text(layout.to.fs.path())]);
    layout.taken(&dir, &["--parents-anywhere"]);
}

#[test]
fn a_parent_outside_the_named_directories_is_not_taken() {
    let layout = Layout::new("photos", "backups/old");
    let dir = layout.to.dir("in");
    let [other, prefix] = ["other", "back"].map(|name| layout.to.dir(name));
    let parent = layout.to.path("backups/old/photos");
    let elsewhere = ["--parents", text(&other), "--parents", text(&prefix)];
    layout.refused(&dir, &elsewhere, &parent);
    let also = layout.to.path("backups");
    layout.taken(
        &dir,
        &[&elsewhere[..], &["--parents", text(&also)]].concat(),
    );
}

#[test]
fn a_directory_of_another_file_system_is_refused() {
    let layout = Layout::new("photos", "backup");
    let (dir, other) = (layout.to.dir("in"), layout.from.path("live"));
    for other in [text(&other), "/proc"] {
        receive(&layout.stream, &dir, &["--parents", other]).fails(2, &[other, text(&dir)]);
    }
}

#[test]
fn a_parent_that_no_mount_shows_is_taken_from_anywhere() {
    let layout = Layout::new("photos", "hidden/backup");
    let shown = layout.to.path("shown");
    streams::create(&shown).unwrap();
    tool("btrfs", &["subvolume", "set-default", text(&shown)]);
    layout.to.fs.remount().unwrap();
    let dir = layout.to.dir("in");
    assert!(
        !layout.to.path("hidden").exists(),
        "this would prove nothing"
    );
    receive(&layout.stream, &dir, &[]).fails(
        1,
        &[
            "hidden/backup/photos from the top level",
            "--parents-anywhere",
        ],
    );
    receive(&layout.stream, &dir, &["--parents", text(&dir)]).fails(1, &["hidden/backup/photos"]);
    layout.taken(&dir, &["--parents-anywhere"]);
}

#[test]
fn a_parent_that_is_nowhere_is_asked_for_in_words() {
    let layout = Layout::new("photos", "backup");
    streams::delete(&layout.to.path("backup/photos")).unwrap();
    let dir = layout.to.dir("in");
    for arguments in [&[][..], &["--parents-anywhere"]] {
        receive(&layout.stream, &dir, arguments).fails(1, &["is not here", "receive it first"]);
    }
}

#[test]
fn a_writable_parent_is_taken_from_nowhere() {
    let layout = Layout::new("photos", "backup");
    let parent = layout.to.path("backup/photos");
    let root = File::open(&parent).unwrap();
    subvolume::set_access(&root, subvolume::Access::ReadWrite).unwrap();
    let dir = layout.to.dir("in");
    receive(&layout.stream, &dir, &[]).fails(1, &["it is writable"]);
    receive(&layout.stream, &dir, &["--parents-anywhere"]).fails(1, &["it is writable"]);
}

/// Only root may look up subvolumes by UUID; a directory of the user's own needs no lookup.
#[test]
fn an_unprivileged_user_receives_into_an_own_directory() {
    let from = Host::origin();
    let live = from.path("live");
    for path in [&live, &live.join("data"), &live.join("changing")] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    streams::snapshot(&live, &from.path("one")).unwrap();
    fs::write(live.join("changing"), "again").unwrap();
    streams::snapshot(&live, &from.path("two")).unwrap();
    let to = LoopFs::new(SIZE, &[], "user_subvol_rm_allowed").unwrap();
    let dir = to.path().join("in");
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::chown(&dir, Some(65534), Some(65534)).unwrap();
    // The build directory and root's files are not readable for other users.
    let shared = tempfile::tempdir_in("/dev/shm").unwrap();
    tool("chmod", &["755", text(shared.path())]);
    tool("chmod", &["755", text(to.path().parent().unwrap())]);
    let program = shared.path().join("sendshotctl");
    tool(
        "cp",
        &[text(&binaries::path("sendshotctl")), text(&program)],
    );
    let sendshot = from.file("one.sendshot");
    let arguments = [["--save-sendshot"], ["--sendshot"]];
    for (name, argument) in ["one", "two"].into_iter().zip(arguments) {
        let more = ["--proto", "1", argument[0], &sendshot];
        let stream = from.sent(&from.path(name), &more);
        let shown = shared.path().join(name);
        tool("cp", &[stream.as_str(), text(&shown)]);
        tool("chmod", &["644", text(&shown)]);
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(&program).args(["stream", "receive", "-f"]);
        run(command.arg(&shown).arg(&dir)).success();
        assert_same(&from.path(name), &dir.join(name));
    }
}
