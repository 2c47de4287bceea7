//! Many senders push at once to one receiver, each a first push of a random file from a subvolume of one file system.
//! Prints the rate against that of one sender alone, how long a push took from its turn, and the receiver's peak memory;
//! fails beyond the limits.

#![allow(clippy::expect_used, reason = "a failure ends the measurement")]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sendshot_bench::measure::{Took, measured, median};
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;

/// Least rate of all together, in hundredths of one sender's alone.
const LEAST_SHARE: u64 = 70;
/// Longest time from a sender's turn to its copy. (The first byte comes sooner.)
const MOST_FROM_TURN: Duration = Duration::from_secs(30);
/// Peak memory of the receiver in bytes.
const MAX_MEMORY: u64 = 256 << 20;
/// Pushes of one sender alone.
const ALONE: usize = 5;

fn argument(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

/// What was seen of a push.
struct Seen {
    succeeded: bool,
    /// Whether it had to wait for its turn.
    waited: bool,
    from_turn: Duration,
    total: Duration,
}

fn main() -> ExitCode {
    let count = argument("SENDERS", 200) as usize;
    let bytes = argument("MIB", 32) << 20;
    let least_share = argument("LEAST_SHARE", LEAST_SHARE);
    let source = LoopFs::new(
        (count + ALONE) as u64 * bytes * 2 + (2 << 30),
        &[],
        "noatime",
    )
    .expect("a file system");
    let receiver = ReceiverHost::setup()
        .size((count + ALONE) as u64 * bytes * 2 + (2 << 30))
        .start();
    let senders: Vec<SenderHost> = (0..count + ALONE)
        .map(|number| {
            let path = source.path().join(format!("volume-{number}"));
            streams::create(&path).expect("a subvolume");
            let random = File::open("/dev/urandom").expect("random bytes");
            let mut file = File::create(path.join("file")).expect("the volume is writable");
            io::copy(&mut random.take(bytes), &mut file).expect("the file is written");
            let sender = SenderHost::setup()
                .size(128 << 20)
                .configured("photos", &path)
                .start();
            let token = receiver.invite(&[&format!("host-{number}")]);
            let address = receiver.address().to_string();
            let pair = ["pair", &address, "--name", "nas2", "--token", &token];
            sender.ctl(&pair).success();
            sender
        })
        .collect();
    rustix::fs::sync();
    let (alone, together) = senders.split_at(ALONE);
    let alone: Vec<Took> = alone
        .iter()
        .map(|sender| {
            measured(|| {
                let seen = follow(start(sender));
                assert!(seen.succeeded, "a push of one sender alone failed");
            })
            .1
        })
        .collect();
    let alone = bytes as f64 / median(&alone).seconds;

    let (seen, took) = measured(|| {
        let pushes: Vec<Child> = together.iter().map(start).collect();
        thread::scope(|scope| {
            let pushes: Vec<_> = pushes
                .into_iter()
                .map(|push| scope.spawn(|| follow(push)))
                .collect();
            let seen = pushes.into_iter().map(|push| push.join());
            seen.map(|seen| seen.expect("a push is followed"))
                .collect::<Vec<Seen>>()
        })
    });
    let done = seen.iter().filter(|seen| seen.succeeded).count();
    let waited = seen.iter().filter(|seen| seen.waited).count();
    let longest = |of: fn(&Seen) -> Duration| seen.iter().map(of).max().unwrap_or_default();
    let from_turn = longest(|seen| seen.from_turn);
    let share = done as f64 * bytes as f64 / took.seconds / alone;
    let memory = receiver.daemon.peak_memory();
    println!(
        "{done} of {count} pushes of {} MiB done in {:.1} s, {waited} waited for their turn; at most {:.1} s from the turn to the copy, {:.1} s in all",
        bytes >> 20,
        took.seconds,
        from_turn.as_secs_f64(),
        longest(|seen| seen.total).as_secs_f64(),
    );
    println!(
        "rate: {:.0} MB/s together, {:.0} MB/s for one alone: {share:.2}; busy {:.1} CPU-s; peak memory of the receiver {} MiB",
        share * alone / 1e6,
        alone / 1e6,
        took.busy,
        memory >> 20,
    );
    let good = done == count
        && share * 100.0 >= least_share as f64
        && from_turn <= MOST_FROM_TURN
        && memory <= MAX_MEMORY;
    match good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn start(sender: &SenderHost) -> Child {
    let mut push = sender.ctl_command(&["push", "nas2:photos"]);
    push.stdout(Stdio::null()).stderr(Stdio::piped());
    push.spawn().expect("the command is started")
}

/// Reads the stages of a push as they come.
fn follow(mut push: Child) -> Seen {
    let began = Instant::now();
    let (mut turn, mut waited) = (began, false);
    let stages = push.stderr.take().expect("it is a pipe");
    let mut last = String::new();
    for line in BufReader::new(stages).lines().map_while(Result::ok) {
        waited |= line.contains(": wait");
        if line.contains(": transfer") {
            turn = Instant::now();
        }
        last = line;
    }
    let succeeded = push.wait().expect("it ends").success();
    if !succeeded {
        println!("a push failed: {last}");
    }
    Seen {
        succeeded,
        waited,
        from_turn: turn.elapsed(),
        total: began.elapsed(),
    }
}
