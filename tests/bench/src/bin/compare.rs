//! Compares two builds: `compare OLD NEW [ROUNDS]`, each the directory of a build.
//!
//! Both make a full stream and an increment, and push everything, in turns, from the same tree on images in
//! memory. Compares medians. Fails if the new build takes more than 3 % longer than the old one, unless the
//! old one's odd rounds differ by more from its even ones.

#![allow(clippy::expect_used, reason = "a failure ends the measurement")]

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use sendshot_bench::measure::{Took, measured};
use sendshot_bench::trees;
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::binaries;
use sendshot_harness::hosts::pairing::pair;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;

/// The tree that is sent.
const SOURCE: &str = "/usr/share";
/// Size of the file systems in bytes, with room for the tree.
const DISK: u64 = 6 << 30;
/// One file in this many is changed for the increment.
const CHANGED: usize = 100;
/// Tolerated slowdown of the new build.
const TOLERANCE: f64 = 0.03;
/// The measured operations.
const MEASURED: [&str; 3] = ["full stream", "increment", "push of everything"];
/// Option that makes this program measure a single build.
const SINGLE: &str = "--single";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [single] if single == SINGLE => {
            single_build();
            ExitCode::SUCCESS
        }
        [old, new] => compare(old, new, 9),
        [old, new, rounds] => match rounds.parse() {
            Ok(rounds) if rounds >= 2 => compare(old, new, rounds),
            Ok(_) | Err(_) => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: compare OLD NEW [ROUNDS]: two directories of builds, and two rounds or more");
    ExitCode::from(2)
}

/// The measurements of a build: for each round, one of each operation.
struct Build {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
    rounds: Vec<[Took; MEASURED.len()]>,
}

impl Build {
    fn start(dir: &str) -> Self {
        let program = std::env::current_exe().expect("this program is somewhere");
        let dir = fs::canonicalize(dir).expect("the directory of a build is there");
        let mut child = Command::new(program)
            .arg(SINGLE)
            .env(binaries::BIN_DIR, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program runs");
        let answers = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        Self {
            child,
            answers,
            rounds: Vec::new(),
        }
    }

    fn round(&mut self) -> [Took; MEASURED.len()] {
        let stdin = self.child.stdin.as_mut().expect("its input is a pipe");
        writeln!(stdin).expect("it is still there");
        let mut line = String::new();
        let answered = self.answers.read_line(&mut line);
        assert!(answered.expect("it answers") > 0, "a build has failed");
        serde_json::from_str(&line).expect("it answers with measurements")
    }

    fn median(&self, what: usize, of: fn(&Took) -> f64, round: impl Fn(usize) -> bool) -> f64 {
        let rounds = self.rounds.iter().enumerate();
        let chosen = rounds.filter(|(n, _)| round(*n));
        let mut all: Vec<f64> = chosen.map(|(_, took)| of(&took[what])).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "a build has failed: {status}");
    }
}

fn compare(old: &str, new: &str, rounds: usize) -> ExitCode {
    let (mut old, mut new) = (Build::start(old), Build::start(new));
    for round in 0..=rounds {
        // The builds take turns in going first; the first round warms up.
        let took = match round % 2 {
            0 => {
                let first = old.round();
                (first, new.round())
            }
            _ => {
                let first = new.round();
                (old.round(), first)
            }
        };
        if round > 0 {
            old.rounds.push(took.0);
            new.rounds.push(took.1);
        }
    }
    let mut good = true;
    for (n, name) in MEASURED.iter().enumerate() {
        let seconds = |build: &Build| build.median(n, |took| took.seconds, |_| true);
        let busy = |build: &Build| build.median(n, |took| took.busy, |_| true);
        let even = old.median(n, |took| took.seconds, |round| round.is_multiple_of(2));
        let odd = old.median(n, |took| took.seconds, |round| !round.is_multiple_of(2));
        let (ratio, own) = (seconds(&new) / seconds(&old), odd / even);
        let allowed = TOLERANCE.max(own.max(1.0 / own) - 1.0);
        println!(
            "{name}: old {:.3} s ({:.2} s busy), new {:.3} s ({:.2} s busy): {ratio:.3}; the old one, odd \
             against even rounds: {own:.3}; {rounds} rounds",
            seconds(&old),
            busy(&old),
            seconds(&new),
            busy(&new),
        );
        good &= ratio <= 1.0 + allowed;
    }
    old.end();
    new.end();
    match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Measures the build named by the environment once for each line of standard input.
fn single_build() {
    let setup = SenderHost::setup().size(DISK);
    let sender = setup.volume("photos", "photos").start();
    let receiver = ReceiverHost::with_size(DISK);
    pair(&sender, &receiver, "nas2");
    let tree = sender.photos().join("tree");
    run(Command::new("cp").args(["-a", SOURCE]).arg(&tree));
    let (before, after) = (sender.fs().join("before"), sender.fs().join("after"));
    let sendshot = sender.fs().join("before.sendshot");
    streams::snapshot(&sender.photos(), &before).expect("a snapshot of the tree");
    let files = trees::files(&tree).expect("the files of the tree");
    for file in files.iter().step_by(CHANGED) {
        let opened = OpenOptions::new().append(true).open(file);
        let written = opened.and_then(|mut file| file.write_all(b"changed"));
        written.expect("the volume is writable");
    }
    streams::snapshot(&sender.photos(), &after).expect("a snapshot of the tree");
    to_nowhere(&["--save-sendshot".as_ref(), &sendshot, &before]);
    let next = sender.fs().join("after.sendshot");
    for line in io::stdin().lines() {
        line.expect("lines from the one who compares");
        // Data that an earlier round left unwritten must not count for this one.
        run(&mut Command::new("sync"));
        let (_, full) = measured(|| to_nowhere(&[&before]));
        let increment = [
            "--sendshot".as_ref(),
            sendshot.as_path(),
            "--save-sendshot".as_ref(),
            &next,
            &after,
        ];
        let (_, increment) = measured(|| to_nowhere(&increment));
        fs::remove_file(&next).expect("the sendshot of the increment");
        let mut copy = PathBuf::new();
        let (_, push) = measured(|| {
            let pushed = sender.push_with("nas2:photos", &["--parent", "none"]);
            copy = receiver.copy(&pushed);
        });
        sender.wait_until_released();
        streams::delete(&copy).expect("the copy can be deleted");
        run(Command::new("btrfs")
            .args(["subvolume", "sync"])
            .arg(receiver.fs()));
        let answer = serde_json::to_string(&[full, increment, push]);
        println!("{}", answer.expect("numbers"));
    }
}

fn to_nowhere(arguments: &[&Path]) {
    let mut command = Command::new(binaries::path("sendshotctl"));
    command.args(["stream", "send", "--quiet", "--proto", "2"]);
    run(command.args(arguments).stdout(Stdio::null()));
}

fn run(command: &mut Command) {
    command.stdout(Stdio::null());
    let status = command.status().expect("the command is there");
    assert!(status.success(), "{command:?}: {status}");
}
