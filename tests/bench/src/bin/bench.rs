//! Compares the sendshot engine's stream with the kernel's, and a restore with a push, on a real tree on images in
//! memory: `bench [ROUNDS]`.
//!
//! Runs both in turns and compares medians, since timings vary on a busy machine. Fails beyond a limit.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sendshot_bench::measure::{measured, median};
use sendshot_bench::trees;
use sendshot_engine::{Frozen, Sendshot, WireNumber};
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::binaries;
use sendshot_harness::hosts::pairing::pair;
use sendshot_harness::hosts::receiver_host::ReceiverHost;
use sendshot_harness::hosts::sender_host::SenderHost;

/// Size of the file system in bytes.
const SIZE: u64 = 8 << 30;
/// One file in this many is changed.
const CHANGED: usize = 100;

/// Limit for the sendshot engine's full stream, as a part of the kernel's time.
const FULL: f64 = 0.35;
/// Limit for its increment, from the sendshot on disk to the last byte, as a part of the kernel's time.
const INCREMENT: f64 = 1.0;
/// Limit for a capture, as a part of the kernel's full send.
const CAPTURE: f64 = 0.1;
/// Limit for a restore, as a part of the time of a push of the same tree.
const RESTORE: f64 = 1.1;
/// Limit for the size of a sendshot, in bytes per inode.
const INODE: f64 = 40.0;

fn main() -> ExitCode {
    match bench() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<bool> {
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let rounds = rounds.unwrap_or(5);
    let fs = LoopFs::new(SIZE, &[], "")?;
    let volume = fs.path().join("volume");
    streams::create(&volume)?;
    let files = fill(&volume)?;
    let (before, after) = (fs.path().join("before"), fs.path().join("after"));
    streams::snapshot(&volume, &before)?;
    change(&files)?;
    streams::snapshot(&volume, &after)?;

    let dir = tempfile::tempdir_in(fs.path())?;
    let sendshot = dir.path().join("before.sendshot");
    let capture = || -> Result<()> {
        let file = File::create(&sendshot)?;
        let (file, ..) = sendshot_engine::capture(
            Frozen::snapshot(&File::open(&before)?),
            WireNumber::Local,
            file,
        )?;
        Ok(file.sync_all()?)
    };
    let next = dir.path().join("after.sendshot");
    let increment = [
        "--sendshot".as_ref(),
        sendshot.as_os_str(),
        "--save-sendshot".as_ref(),
        next.as_os_str(),
        after.as_os_str(),
    ];
    let mut good = true;
    let [kernel, full, capture] = medians(
        rounds,
        [
            &mut || kernel(&[before.as_os_str()]),
            &mut || ours(&[before.as_os_str()]),
            &mut || capture(),
        ],
    )?;
    good &= report("full stream", full, kernel, FULL);
    good &= report("capture, against the full stream", capture, kernel, CAPTURE);
    let parent = ["-p".as_ref(), before.as_os_str(), after.as_os_str()];
    let [kernel, ours] = medians(
        rounds,
        [&mut || self::kernel(&parent), &mut || ours(&increment)],
    )?;
    good &= report(
        "increment, 1 % of the files changed",
        ours,
        kernel,
        INCREMENT,
    );

    let counts = Sendshot::open(&sendshot)?.counts();
    let len = fs::metadata(&sendshot)?.len();
    let each = len as f64 / counts.inodes as f64;
    println!(
        "sendshot of {} inodes: {len} bytes, {each:.1} bytes an inode (limit {INODE})",
        counts.inodes
    );
    good &= each <= INODE;
    drop(dir);
    drop(fs);
    Ok(good & restore(rounds)?)
}

/// A push and a restore of the same tree over TLS, in turns, each with the processors' time of both hosts.
fn restore(rounds: usize) -> Result<bool> {
    let sender = SenderHost::setup().size(SIZE).volume("photos", "photos");
    let (sender, receiver) = (sender.start(), ReceiverHost::with_size(SIZE));
    pair(&sender, &receiver, "nas2");
    fill(&sender.photos())?;
    let grant = ["peer", "grant", "nas1", "--for", "24h"];
    receiver.ctl(&grant).success();
    let first = sender.push("nas2:photos");
    let copy = receiver.copy(&first);
    let name = copy.file_name().context("a copy has a name")?.to_owned();
    let target = sender.fs().join("restored");
    let (mut pushes, mut restores) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (pushed, push) = measured(|| sender.push_with("nas2:photos", &["--parent", "none"]));
        let source = "nas2:photos".as_ref();
        let at = ["--at".as_ref(), name.as_os_str()];
        let arguments = [source, at[0], at[1], target.as_os_str()];
        let (_, restore) = measured(|| sender.restore(&arguments).success());
        streams::delete(&receiver.copy(&pushed))?;
        streams::delete(&target)?;
        if round > 0 {
            pushes.push(push);
            restores.push(restore);
        }
    }
    let [push, restore] = [pushes, restores].map(|all| median(&all));
    println!(
        "busy processors: {:.2} s for a push, {:.2} s for a restore",
        push.busy, restore.busy
    );
    let ratio = restore.seconds / push.seconds;
    println!(
        "restore over TLS: {:.3} s, a push of the same tree {:.3} s: {ratio:.2} (limit {RESTORE})",
        restore.seconds, push.seconds
    );
    Ok(ratio <= RESTORE)
}

fn fill(volume: &Path) -> Result<Vec<PathBuf>> {
    let files = trees::copy_real(volume)?;
    println!("{} files", files.len());
    Ok(files)
}

fn change(files: &[PathBuf]) -> Result<()> {
    for file in files.iter().step_by(CHANGED) {
        let mut file = OpenOptions::new().append(true).open(file)?;
        file.write_all(b"changed")?;
    }
    Ok(())
}

fn kernel(arguments: &[&std::ffi::OsStr]) -> Result<()> {
    let mut command = Command::new("btrfs");
    command.args(["send", "--quiet", "--proto", "2"]);
    to_nowhere(command.args(arguments))
}

fn ours(arguments: &[&std::ffi::OsStr]) -> Result<()> {
    let mut command = Command::new(binaries::path("sendshotctl"));
    command.args(["stream", "send", "--proto", "2"]);
    to_nowhere(command.args(arguments))
}

fn to_nowhere(command: &mut Command) -> Result<()> {
    let status = command
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed");
    Ok(())
}

/// Runs all in turns, after one round that is not counted, so that all find the same caches.
fn medians<const N: usize>(
    rounds: usize,
    mut all: [&mut dyn FnMut() -> Result<()>; N],
) -> Result<[Duration; N]> {
    let mut times = [const { Vec::new() }; N];
    for round in 0..=rounds {
        for (run, times) in all.iter_mut().zip(&mut times) {
            let start = Instant::now();
            run()?;
            if round > 0 {
                times.push(start.elapsed());
            }
        }
    }
    Ok(times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    }))
}

fn report(what: &str, ours: Duration, kernels: Duration, limit: f64) -> bool {
    let ratio = ours.as_secs_f64() / kernels.as_secs_f64();
    println!(
        "{what}: {:.3} s, the kernel {:.3} s: {ratio:.2} (limit {limit})",
        ours.as_secs_f64(),
        kernels.as_secs_f64()
    );
    ratio <= limit
}
