//! What administrators and scripts use besides pushes: pairing again, permissions, lists, the
//! log, help, and streams without daemons.

#![allow(clippy::unwrap_used, reason = "a failure in a test ends it")]

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sendshot_harness::compare::exact::{Reference, assert_exact, assert_same};
use sendshot_harness::compare::subvolumes::{self, assert_no_leftovers};
use sendshot_harness::compare::tree::{self, Layout};
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::binaries;
use sendshot_harness::hosts::command::{Output, run};
use sendshot_harness::hosts::pairing::{Paired, pair};
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::trees::every_file_kind;
use sendshot_harness::trees::fill;
use serde_json::Value;

/// Pairs by an invitation that replaces the old pairing.
#[track_caller]
fn pair_again(sender: &SenderHost, hosts: &Paired) {
    let token = hosts.receiver.invite(&["nas1", "--replace"]);
    let address = hosts.receiver.address().to_string();
    let arguments = ["pair", &address, "--name", "nas2", "--token", &token];
    sender.ctl(&arguments).success();
}

#[test]
fn a_replaced_disk_continues_in_the_old_directory() {
    let hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    let old = hosts.sender.push("nas2:photos");
    let reference = Reference::of(hosts.sender.fs(), &hosts.sender.photos());

    let new = SenderHost::new();
    fill::tree(&new.photos(), 2);
    pair_again(&new, &hosts);
    let first = new.push("nas2:photos");
    let copy = first["copy"].as_str().unwrap();
    assert!(
        copy.starts_with("nas1/photos/"),
        "its copies are now in two places: {copy}"
    );
    assert_eq!(first["parent"], Value::Null);
    assert_exact(&new, &hosts.receiver, &first);
    assert_same(reference.path(), &hosts.receiver.copy(&old));
    assert_eq!(new.push("nas2:photos")["parent"], first["uuid"]);
    // The key on the dead disk must be worthless, should the disk turn up somewhere.
    let stolen = hosts.sender.ctl(&["push", "nas2:photos"]);
    stolen.fails(4, &["peer invite"]);
}

#[test]
fn a_sender_that_lost_its_state_keeps_its_volumes() {
    let mut hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    let old = hosts.sender.push("nas2:photos");
    hosts.sender.daemon.stop();
    fs::remove_dir_all(hosts.sender.daemon.state_dir()).unwrap();
    hosts.sender.daemon.start();
    hosts
        .sender
        .ctl(&["push", "nas2:photos"])
        .fails(2, &["pair"]);
    pair_again(&hosts.sender, &hosts);
    let next = hosts.sender.push("nas2:photos");
    assert_exact(&hosts.sender, &hosts.receiver, &next);
    let dir = |pushed: &Value| hosts.receiver.copy(pushed).parent().unwrap().to_owned();
    assert_eq!(dir(&next), dir(&old));
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn keys_and_copies_are_closed_to_other_users() {
    let hosts = Paired::new();
    let photos = hosts.sender.photos();
    fs::set_permissions(&photos, fs::Permissions::from_mode(0o777)).unwrap();
    let pushed = hosts.sender.push("nas2:photos");
    for daemon in [&hosts.sender.daemon, &hosts.receiver.daemon] {
        let state = daemon.state_dir();
        let is_key = |path: &&PathBuf| {
            let content = fs::read(path).unwrap();
            let named = path.to_string_lossy().contains("key");
            named || content.windows(11).any(|w| w == b"PRIVATE KEY")
        };
        let all = files(&state);
        let keys: Vec<_> = all.iter().filter(is_key).collect();
        assert!(!keys.is_empty(), "no key among {all:?}");
        for key in keys {
            assert_eq!(mode(key), 0o600, "{} can be read by others", key.display());
        }
    }
    let copy = hosts.receiver.copy(&pushed);
    for dir in [
        copy.parent().unwrap(),
        copy.parent().unwrap().parent().unwrap(),
    ] {
        assert_eq!(mode(dir), 0o700, "{} shows copies to others", dir.display());
    }
    // Permissions within a copy are those of the original.
    assert_eq!(mode(&copy), 0o777);
    for entry in fs::read_dir(hosts.receiver.root()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_eq!(mode(&path), 0o700, "{}", path.display());
        }
    }
}

#[test]
fn lists_tell_scripts_what_there_is() {
    let setup = SenderHost::setup().volume("photos", "photos");
    let hosts = Paired::of(setup.volume("music", "music").start());
    let Paired { sender, receiver } = &hosts;
    let photos = sender.push("nas2:photos");
    let music = sender.push("nas2:music");

    let copies = |arguments: &[&str]| {
        let arguments = [&["copy", "list", "--json"], arguments].concat();
        receiver.ctl(&arguments).success().jsons()
    };
    assert_eq!(copies(&[]).len(), 2);
    assert_eq!(copies(&["nas1"]).len(), 2);
    let only = copies(&["nas1/photos"]);
    assert_eq!(only.len(), 1);
    let copy = &only[0];
    assert_eq!(copy["uuid"], photos["uuid"]);
    let named = ["sender", "volume", "name"].map(|field| copy[field].as_str().unwrap());
    assert_eq!(photos["copy"], named.join("/"));
    assert_eq!(
        Path::new(copy["path"].as_str().unwrap()),
        receiver.copy(&photos)
    );
    assert_eq!(copy["unusable"], Value::Null);

    let kept = sender
        .ctl(&["list", "--json", "nas2:music"])
        .success()
        .jsons();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0]["uuid"], music["uuid"]);
    assert!(
        kept[0]["reason"].is_string(),
        "why it is kept is not said: {kept:?}"
    );

    let status = sender.ctl(&["status", "--json"]).success().json();
    assert_eq!(status["running"], serde_json::json!([]));
    assert_eq!(status["last"].as_array().unwrap().len(), 2);
    assert_eq!(status["receivers"][0]["name"], "nas2");
    assert_eq!(status["volumes"].as_array().unwrap().len(), 2);

    let peers = || receiver.ctl(&["peer", "list", "--json"]).success().jsons();
    assert_eq!(peers()[0]["name"], "nas1");
    assert_eq!(peers()[0]["sender_id"], status["sender_id"]);
    let before = peers()[0]["state"].clone();
    receiver.invite(&["nas9"]);
    assert_eq!(peers().len(), 2, "an open invitation is not shown");
    receiver.ctl(&["peer", "revoke", "nas1"]).success();
    let revoked = peers().into_iter().find(|p| p["name"] == "nas1").unwrap();
    assert_ne!(revoked["state"], before);
    for arguments in [&["peer", "list"][..], &["copy", "list"]] {
        let text = receiver.ctl(arguments).success().stdout;
        assert!(text.contains("nas1"), "{text}");
    }
}

#[test]
fn one_log_line_describes_a_push() {
    let hosts = Paired::new();
    let first = hosts.sender.push("nas2:photos");
    fs::write(hosts.sender.photos().join("new"), "new").unwrap();
    let second = hosts.sender.push("nas2:photos");
    let log = hosts.sender.daemon.log();
    let uuid = second["uuid"].as_str().unwrap();
    let about = format!("uuid={uuid}");
    let lines: Vec<_> = log.lines().filter(|l| l.contains(&about)).collect();
    let [line] = lines[..] else {
        panic!("not one line: {lines:#?}");
    };
    let parent = format!("parent={}", first["uuid"].as_str().unwrap());
    for field in [
        " INFO ",
        "volume=photos",
        "receiver=nas2",
        &parent,
        "parent_reason=",
        "stream_bytes=",
        "seconds=",
    ] {
        assert!(line.contains(field), "`{field}` is missing: {line}");
    }
}

#[test]
fn without_a_terminal_progress_is_plain_lines() {
    let hosts = Paired::new();
    fill::tree(&hosts.sender.photos(), 1);
    let output = hosts.sender.ctl(&["push", "nas2:photos"]).success();
    let all = output.stdout + &output.stderr;
    assert!(
        !all.contains(['\r', '\x1b']),
        "control characters in a log file: {all:?}"
    );
    let output = hosts
        .sender
        .ctl(&["push", "--quiet", "nas2:photos"])
        .success();
    assert_eq!(
        output.stdout + &output.stderr,
        "",
        "a cron job would mail this"
    );
    let output = hosts.sender.ctl(&["push", "--quiet", "nas2:nope"]);
    output.fails(2, &["nope"]);
}

fn ctl(arguments: &[&str]) -> Output {
    run(Command::new(binaries::path("sendshotctl")).args(arguments))
}

#[test]
fn every_command_explains_itself() {
    let commands: [&[&str]; 19] = [
        &[],
        &["push"],
        &["plan"],
        &["list"],
        &["prune"],
        &["forget"],
        &["status"],
        &["cancel"],
        &["pair"],
        &["copy"],
        &["copy", "list"],
        &["peer"],
        &["peer", "invite"],
        &["peer", "list"],
        &["peer", "revoke"],
        &["stream"],
        &["stream", "send"],
        &["stream", "receive"],
        &["completions"],
    ];
    for command in commands {
        let help = ctl(&[command, &["--help"]].concat()).success();
        assert!(
            help.stdout.contains("Usage:"),
            "{command:?}: {}",
            help.stdout
        );
        assert!(help.stdout.is_ascii(), "{command:?}: {}", help.stdout);
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = ctl(&["completions", shell]).success().stdout;
        assert!(
            script.contains("sendshotctl") && script.contains("push"),
            "{shell}"
        );
    }
    for daemon in ["sendshot-sender", "sendshot-receiver"] {
        for option in ["--help", "--version"] {
            run(Command::new(binaries::path(daemon)).arg(option)).success();
        }
    }
    ctl(&["--version"]).success();
    ctl(&["pusch"]).fails(2, &["push"]);
}

#[test]
fn two_daemons_never_share_a_state_directory() {
    let mut sender = SenderHost::setup().make();
    sender.daemon.start();
    let output = run(&mut sender.daemon.command());
    assert_ne!(
        output.code, 0,
        "a second daemon works on the same snapshots"
    );
    let state = sender.daemon.state_dir();
    let socket = sender.daemon.socket();
    let told = [state, socket];
    assert!(
        told.iter()
            .any(|path| output.stderr.contains(path.to_str().unwrap())),
        "{}",
        output.stderr
    );
    sender.ctl(&["status"]).success();
}

/// A file system with a full tree in three states, and one to receive on.
struct Streams {
    from: LoopFs,
    to: LoopFs,
}

impl Streams {
    fn new() -> Self {
        Self::with(every_file_kind::fill, every_file_kind::change)
    }

    fn with(fill: fn(&Path), change: fn(&Path)) -> Self {
        let from = LoopFs::new(1 << 30, &[], "").unwrap();
        let to = LoopFs::new(1 << 30, &[], "").unwrap();
        let live = from.path().join("live");
        streams::create(&live).unwrap();
        fill(&live);
        streams::snapshot(&live, &from.path().join("one")).unwrap();
        change(&live);
        streams::snapshot(&live, &from.path().join("two")).unwrap();
        Self { from, to }
    }

    fn source(&self, name: &str) -> String {
        self.from.path().join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str) -> String {
        let name = format!("{name}.stream");
        self.from.path().join(name).to_str().unwrap().to_owned()
    }

    /// Does not compare holes for the old protocol, which writes them as zeros.
    fn assert_received(&self, name: &str, layout: Layout) {
        let [from, to] = [&self.from, &self.to].map(|fs| fs.path().join(name));
        let found = tree::compare_with(&from, &to, layout).unwrap();
        assert_eq!(found, Vec::<String>::new(), "{name} did not arrive whole");
    }
}

#[test]
fn streams_work_without_daemons() {
    for (proto, layout) in [("1", Layout::Ignore), ("2", Layout::Holes)] {
        let streams = Streams::new();
        let (one, two) = (streams.file("one"), streams.file("two"));
        let to = streams.to.path().to_str().unwrap();
        let (from_one, from_two) = (streams.source("one"), streams.source("two"));
        ctl(&["stream", "send", "--proto", proto, "-f", &one, &from_one]).success();
        ctl(&[
            "stream", "send", "--proto", proto, "-p", &from_one, "-f", &two, &from_two,
        ])
        .success();
        ctl(&["stream", "receive", "-f", &one, to]).success();
        ctl(&["stream", "receive", "-f", &two, to]).success();
        streams.assert_received("one", layout);
        streams.assert_received("two", layout);
        let dump = ctl(&["stream", "dump", "-f", &two]).success().stdout;
        for command in ["snapshot", "rename", "unlink", "write", "utimes", "end"] {
            assert!(
                dump.contains(command),
                "{command} is missing in the dump of {two}"
            );
        }
        let again = ctl(&["stream", "receive", "-f", &one, to]);
        again.fails(1, &["one"]);
        streams.assert_received("one", layout);
    }
}

#[test]
fn streams_go_through_pipes_to_and_from_stock_tools() {
    // No default ACL in the root: stock receive would apply it to everything below.
    let change = |live: &Path| {
        fs::rename(live.join("dir0"), live.join("dir1/moved")).unwrap();
        fill::file(live.join("new"), 9, 300_000);
    };
    let streams = Streams::with(|live| fill::tree(live, 1), change);
    let pipe = |from: &mut Command, to: &mut Command| {
        let mut from = from.stdout(Stdio::piped()).spawn().unwrap();
        let status = to.stdin(from.stdout.take().unwrap()).status().unwrap();
        assert!(from.wait().unwrap().success() && status.success());
    };
    let ctl = || Command::new(binaries::path("sendshotctl"));
    let (one, two) = (streams.source("one"), streams.source("two"));
    let mut send = ctl();
    send.args(["stream", "send", "--proto", "1", &one]);
    let mut receive = Command::new("btrfs");
    pipe(&mut send, receive.arg("receive").arg(streams.to.path()));
    let mut send = Command::new("btrfs");
    send.args(["send", "-q", "-p", &one, &two]);
    let mut receive = ctl();
    pipe(
        &mut send,
        receive.args(["stream", "receive"]).arg(streams.to.path()),
    );
    streams.assert_received("one", Layout::Holes);
    streams.assert_received("two", Layout::Holes);
}

#[test]
fn a_broken_stream_leaves_nothing() {
    let streams = Streams::new();
    let to = streams.to.path().to_str().unwrap();
    let (one, two) = (streams.file("one"), streams.file("two"));
    let (from_one, from_two) = (streams.source("one"), streams.source("two"));
    ctl(&["stream", "send", "-f", &one, &from_one]).success();
    ctl(&["stream", "send", "-p", &from_one, "-f", &two, &from_two]).success();
    // The parent of the second stream is missing.
    ctl(&["stream", "receive", "-f", &two, to]).fails(1, &["parent"]);
    let len = fs::metadata(&one).unwrap().len();
    File::options()
        .write(true)
        .open(&one)
        .unwrap()
        .set_len(len / 2)
        .unwrap();
    ctl(&["stream", "receive", "-f", &one, to]).fails(1, &[]);
    let left: Vec<_> = subvolumes::list(streams.to.path());
    assert_eq!(left, [], "half a subvolume looks like a whole one");
    ctl(&["stream", "send", &streams.source("live")]).fails(2, &["read-only"]);
    ctl(&["stream", "send", "/proc"]).fails(2, &["/proc"]);
    fs::write(&one, "no stream at all").unwrap();
    ctl(&["stream", "receive", "-f", &one, to]).fails(1, &[]);
    ctl(&["stream", "dump", "-f", &one]).fails(1, &[]);
}

#[test]
fn a_full_receiver_says_so_and_takes_the_next_push() {
    let sender = SenderHost::new();
    let receiver = sendshot_harness::hosts::receiver_host::ReceiverHost::with_size(128 << 20);
    pair(&sender, &receiver, "nas2");
    let photos = sender.photos();
    fs::write(photos.join("small"), "small").unwrap();
    let first = sender.push("nas2:photos");
    fill::file(photos.join("too big"), 1, 150 << 20);
    sender.ctl(&["push", "nas2:photos"]).fails(1, &["space"]);
    assert_no_leftovers(&sender, &receiver);
    fs::remove_file(photos.join("too big")).unwrap();
    fill::file(photos.join("fits"), 2, 20 << 20);
    let next = sender.push("nas2:photos");
    assert_eq!(next["parent"], first["uuid"]);
    assert_exact(&sender, &receiver, &next);
}
