//! A receiver with copies of two senders, one of which turns hostile, and files that must not change.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

use sendshot_stream::Command;

use crate::hostile::pushes::{PushTrick, VOLUME, VOLUME_ID};
use crate::hostile::sender::{self, Answer, HostileSender, Then};
use crate::hostile::trick::{
    Expect, Held, SECRET, SECRET_LEN, Trick, World, mkdir, mkfile, symlink,
};
use crate::lying_peer::watch::Watch;
use sendshot_harness::compare::exact::assert_exact;
use sendshot_harness::compare::subvolumes;
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::binaries;
use sendshot_harness::hosts::command::{run, tool};
use sendshot_harness::hosts::pairing::Paired;
use sendshot_harness::hosts::sender_host::SenderHost;
use sendshot_harness::trees::fill;

/// Time limit for the receiver to remove what a transfer leaves in staging.
const CLEANING: Duration = Duration::from_secs(10);

/// Memory limit of the daemon and of `sendshotctl`, in bytes; the program runs under this limit.
const MEMORY: u64 = 128 << 20;

/// Time limit of the program for a stream, in seconds.
const DEADLINE: &str = "60";

/// The scene, deleted on drop.
#[derive(Debug)]
pub struct Scene {
    /// The honest hosts; the hostile sender has the key of the sending one.
    pub hosts: Paired,
    /// Another sender of the same receiver.
    pub other: SenderHost,
    /// The hostile sender.
    pub hostile: HostileSender,
    pipe: PathBuf,
    outside: TempDir,
    in_daemon: World,
    in_pipe: World,
    staging: BTreeSet<PathBuf>,
    number: u128,
    /// The problems found, one line each.
    pub problems: Vec<String>,
    before: Watch,
}

impl Scene {
    /// Makes the scene.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    #[expect(clippy::new_without_default, reason = "making one starts daemons")]
    pub fn new() -> Self {
        let hosts = Paired::new();
        let other = SenderHost::new();
        let token = hosts.receiver.invite(&["nas3"]);
        let address = hosts.receiver.address().to_string();
        other
            .ctl(&["pair", &address, "--name", "nas2", "--token", &token])
            .success();
        for (seed, honest) in [(1, &hosts.sender), (2, &other)] {
            fs::create_dir_all(honest.photos().join("dir")).unwrap();
            let len = usize::try_from(SECRET_LEN).unwrap();
            fill::file(honest.photos().join("secret"), seed, len);
        }
        let [other_volume, other_sender] = [&hosts.sender, &other].map(|honest| {
            let pushed = honest.push("nas2:photos");
            held(&hosts.receiver.copy(&pushed), &pushed)
        });

        let inside = hosts.receiver.fs().join("canary");
        let outside = tempfile::Builder::new()
            .prefix("sendshot-canary-")
            .tempdir_in("/dev/shm")
            .unwrap();
        for dir in [&inside, outside.path()] {
            fs::create_dir_all(dir.join("dir")).unwrap();
            fill::file(dir.join("victim"), 3, 8192);
        }
        let mut label = Program::new("setfattr");
        label.args(["-n", "user.canary", "-v", "sings"]);
        run(label.arg(inside.join("victim"))).success();
        let pipe = hosts.receiver.fs().join("pipe");
        fs::create_dir(&pipe).unwrap();

        let own = |uuid| Held {
            uuid: Uuid::from_u128(uuid),
            ctransid: 77,
        };
        let in_daemon = World {
            uuid: Uuid::nil(),
            ctransid: 78,
            inside,
            outside: outside.path().to_owned(),
            own: own(0xba5e_0001),
            other_volume,
            other_sender,
        };
        let in_pipe = World {
            own: own(0xba5e_0002),
            ..in_daemon.clone()
        };
        let hostile = HostileSender::connect(&hosts.sender, &hosts.receiver, "nas2");
        let before = Watch::of(&pipe, &[], &[]);
        let mut scene = Self {
            hosts,
            other,
            hostile,
            pipe,
            outside,
            in_daemon,
            in_pipe,
            staging: BTreeSet::new(),
            number: 0,
            problems: Vec::new(),
            before,
        };
        scene.seed();
        scene.staging = scene.in_staging();
        scene.before = scene.watch();
        scene
    }

    /// Gives the hostile sender an honest copy, by the daemon and by the pipe.
    #[track_caller]
    fn seed(&self) {
        let stream = |world: &World| {
            let Held { uuid, ctransid } = world.own;
            let world = World {
                uuid,
                ctransid,
                ..world.clone()
            };
            let way = [world.inside(""), world.inside("victim")];
            let data = fill::noise(4, usize::try_from(SECRET_LEN).unwrap());
            let secret = Command::Write {
                path: SECRET,
                offset: 0,
                data: &data,
            };
            let commands = [
                mkfile(SECRET),
                secret,
                mkdir(b"dir"),
                symlink(b"way", &way[0]),
                symlink(b"link", &way[1]),
            ];
            (world.clone(), world.whole(&commands))
        };
        let (world, bytes) = stream(&self.in_daemon);
        let begin = sender::begin(&world, VOLUME_ID, VOLUME);
        let answer = self.hostile.push(sender::whole(begin, &bytes), Then::Wait);
        assert!(matches!(answer, Answer::Committed(_)), "{answer:?}");
        let (code, said) = self.receive(&stream(&self.in_pipe).1);
        assert_eq!(code, 0, "{said}");
        fs::rename(self.pipe.join("hostile"), self.pipe.join("base")).unwrap_or_else(|e| {
            panic!("the honest copy is not where it should be: {e}");
        });
    }

    /// Makes a world for one more trick against the daemon.
    pub fn world(&mut self) -> World {
        self.number += 1;
        World {
            uuid: Uuid::from_u128(0x5e0d << 100 | self.number),
            ..self.in_daemon.clone()
        }
    }

    /// Plays a trick against the daemon and in the pipe, and checks the outcome.
    pub fn play(&mut self, trick: &Trick) {
        let started = Instant::now();
        let world = self.world();
        let bytes = (trick.stream)(&world);
        let begin = sender::begin(&world, VOLUME_ID, VOLUME);
        let answer = self.hostile.push(sender::whole(begin, &bytes), Then::Wait);
        let what = format!("{} (daemon)", trick.name);
        self.judge(&what, trick.expect == Expect::Harmless, &answer);
        self.look(&what);
        let (daemon, started) = (started.elapsed(), Instant::now());

        let uuid = self.world().uuid;
        let world = World {
            uuid,
            ..self.in_pipe.clone()
        };
        let (code, said) = self.receive(&(trick.stream)(&world));
        let what = format!("{} (pipe)", trick.name);
        let refused =
            matches!(code, 1 | 4) && !said.trim().is_empty() && !said.contains("panicked");
        let text = said.split('\n').filter(|l| !l.is_empty()).all(is_text);
        if !text {
            self.problems
                .push(format!("{what}: a terminal obeys {said:?}"));
        }
        let fine = match trick.expect {
            Expect::Refused => refused,
            Expect::Harmless | Expect::RefusedByDaemon => refused || code == 0,
        };
        if !fine {
            self.problems.push(format!("{what}: code {code}, {said}"));
        }
        println!("{what}: {code}, {}", said.trim());
        self.look(&what);
        println!("  {daemon:?} {:?}", started.elapsed());
    }

    /// Plays a hostile push against the daemon, and checks the outcome.
    pub fn play_push(&mut self, trick: &PushTrick) {
        let world = self.world();
        let answer = self.hostile.push((trick.messages)(&world), trick.then);
        if matches!(trick.then, Then::HangUp(_)) {
            let fine = matches!(answer, Answer::Silence | Answer::Status(_));
            println!("{}: {answer:?}", trick.name);
            if !fine {
                self.problems.push(format!("{}: {answer:?}", trick.name));
            }
        } else {
            self.judge(trick.name, trick.expect == Expect::Harmless, &answer);
        }
        // A new volume gets its own directory.
        let may_begin = trick.expect == Expect::Harmless;
        let own = self.root().join("nas1");
        let (itself, below) = (format!("{own:?} was"), own.join("").display().to_string());
        self.look_but(trick.name, |change| {
            let new = change.starts_with(&format!("\"{below}")) && change.contains(" is new");
            may_begin && (new || change.starts_with(&itself))
        });
    }

    /// Records a problem if an answer is not the expected one.
    pub fn judge(&mut self, what: &str, may_commit: bool, answer: &Answer) {
        let fine = match answer {
            Answer::Committed(_) => may_commit,
            Answer::Failure(failure) => is_typed(failure) && is_text(&failure.message),
            Answer::Status(status) => is_typed_status(status),
            Answer::Nothing | Answer::Silence => false,
        };
        println!("{what}: {answer:?}");
        if !fine {
            self.problems.push(format!("{what}: {answer:?}"));
        }
    }

    /// Removes what was rightly committed, and records anything else that changed.
    pub fn look(&mut self, what: &str) {
        self.look_but(what, |_| false);
    }

    /// As [`look`](Self::look), except for allowed changes.
    pub fn look_but(&mut self, what: &str, allowed: impl Fn(&str) -> bool) {
        for made in subvolumes::list(self.hosts.receiver.fs()) {
            let ours = made.received_uuid.starts_with("00000000-0000-0000-0000-")
                || made.received_uuid.starts_with("0005e0d0")
                || made.received_uuid.starts_with("0005e0c0");
            let path = self.hosts.receiver.fs().join(&made.path);
            let base = path.ends_with("base") || made.received_uuid.ends_with("ba5e0001");
            if ours && !base && !made.path.contains("-staging/") {
                println!("  {} was made", made.path);
                if let Err(e) = streams::delete(&path) {
                    self.problems
                        .push(format!("{what}: cannot be deleted: {e:#}"));
                }
            }
        }
        let end = Instant::now() + CLEANING;
        while self.in_staging() != self.staging && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        let left = self.in_staging();
        if left != self.staging {
            self.problems
                .push(format!("{what}: left in staging: {left:?}"));
            self.staging = left;
        }
        let now = self.watch();
        let mut changes = self.before.changes(&now);
        changes.retain(|change| !allowed(change));
        if !changes.is_empty() {
            self.problems.push(format!("{what}: TOUCHED {changes:#?}"));
        }
        self.before = now;
        if !self.hosts.receiver.daemon.runs() {
            self.problems.push(format!("{what}: the daemon is dead"));
            self.hosts.receiver.daemon.start();
        }
    }

    /// Pushes honest changes, whose copy must be exact.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn push_honestly(&mut self) {
        self.number += 1;
        let path = self
            .hosts
            .sender
            .photos()
            .join(format!("new-{}", self.number));
        fill::file(path, 9, 100_000);
        let pushed = self.hosts.sender.push("nas2:photos");
        assert_exact(&self.hosts.sender, &self.hosts.receiver, &pushed);
        self.before = self.watch();
    }

    /// Asserts that no problem was found, and that the daemon's peak memory stayed below the limit.
    ///
    /// # Panics
    /// If one was, or it did not.
    #[track_caller]
    pub fn end(&mut self) {
        self.push_honestly();
        let peak = self.hosts.receiver.daemon.peak_memory();
        println!("the daemon held {peak} bytes at most");
        assert!(peak < MEMORY, "the daemon held {peak} bytes");
        let undeclared = self.hosts.receiver.daemon.undeclared();
        self.problems.extend(undeclared);
        assert!(
            self.problems.is_empty(),
            "{} problems: {:#?}",
            self.problems.len(),
            self.problems
        );
    }

    /// Directory of the copies.
    pub fn root(&self) -> PathBuf {
        self.hosts.receiver.root()
    }

    /// Receives a stream in the directory of the pipe; returns the exit code and the messages.
    #[track_caller]
    fn receive(&self, stream: &[u8]) -> (i32, String) {
        let file = self.outside.path().with_extension("stream");
        fs::write(&file, stream).unwrap();
        let mut program = Program::new("prlimit");
        program
            .arg(format!("--data={MEMORY}"))
            .args(["timeout", DEADLINE])
            .arg(binaries::path("sendshotctl"))
            .args(["stream", "receive"])
            .arg(&self.pipe)
            .stdin(File::open(&file).unwrap());
        let output = program.output().unwrap();
        fs::remove_file(&file).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap_or(-1), said)
    }

    #[track_caller]
    fn watch(&self) -> Watch {
        let volume = self.root().join("nas1").join(VOLUME);
        let (usage, ledger) = (
            volume.join(".sendshot-usage"),
            volume.join(".sendshot-copies"),
        );
        let busy: [&Path; 4] = [&self.pipe, &volume, &usage, &ledger];
        Watch::of(self.hosts.receiver.fs(), &[self.outside.path()], &busy)
    }

    /// Lists two levels of the staging directory.
    fn in_staging(&self) -> BTreeSet<PathBuf> {
        let list = |dir: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(dir).into_iter().flatten();
            entries.flatten().map(|entry| entry.path()).collect()
        };
        let above = list(&self.root().join(".sendshot-staging"));
        let below: Vec<_> = above.iter().flat_map(|dir| list(dir)).collect();
        above.into_iter().chain(below).collect()
    }
}

fn is_typed(failure: &sendshot_proto::v1::Failure) -> bool {
    use sendshot_proto::v1::FailureCode::{
        AlreadyHeld, HashMismatch, InvalidStream, NoSpace, ParentGone, ParentUnusable,
        ResumeImpossible, Unsupported,
    };
    let typed = [
        AlreadyHeld,
        HashMismatch,
        InvalidStream,
        NoSpace,
        ParentGone,
        ParentUnusable,
        ResumeImpossible,
        Unsupported,
    ];
    typed.contains(&failure.code())
}

/// Whether a text is not empty and free of control characters, which a terminal or a log would obey.
fn is_text(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

fn is_typed_status(status: &tonic::Status) -> bool {
    use tonic::Code::{
        AlreadyExists, FailedPrecondition, InvalidArgument, OutOfRange, PermissionDenied,
        ResourceExhausted,
    };
    let typed = [
        AlreadyExists,
        FailedPrecondition,
        InvalidArgument,
        OutOfRange,
        PermissionDenied,
        ResourceExhausted,
    ];
    typed.contains(&status.code()) && !status.message().is_empty()
}

/// Returns the UUID and ctransid that a copy is a copy of.
#[track_caller]
fn held(copy: &Path, pushed: &Value) -> Held {
    let shown = tool(
        "btrfs",
        &["subvolume".as_ref(), "show".as_ref(), copy.as_os_str()],
    );
    let line = shown.lines().find(|l| l.contains("Send transid:")).unwrap();
    Held {
        uuid: pushed["uuid"].as_str().unwrap().parse().unwrap(),
        ctransid: line.split_whitespace().last().unwrap().parse().unwrap(),
    }
}
