//! Measures the peak memory of capture, diff and stream for very large volumes: a million files, and one
//! file of five million extents, each with one in a hundred changed: `growth [FILES] [EXTENTS]`. Fails
//! above 128 MiB.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use sendshot_engine::Sendshot;
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::binaries;
use sendshot_harness::trees::random::Random;
use sendshot_sys::clone::clone_range;

/// Memory limit of a process, in MiB.
const LIMIT: i64 = 128;
/// Bytes of the file system: room for a million blocks and their metadata.
const SIZE: u64 = 16 << 30;
const BLOCK: u64 = 4096;
/// Files in a directory.
const DIR: u64 = 1000;
/// Extents written one by one; the others are made by repeatedly cloning all before them.
const SCATTERED: u64 = 1 << 18;
/// One in this many is changed.
const CHANGED: usize = 100;

fn main() -> ExitCode {
    let argument = |at: usize, usual: u64| {
        let text = std::env::args().nth(at);
        text.and_then(|text| text.parse().ok()).unwrap_or(usual)
    };
    let (files, extents) = (argument(1, 1_000_000), argument(2, 5_000_000));
    let all = many_files(files).and_then(|()| many_extents(extents));
    match all.and_then(|()| within()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures a volume of many files with one extent each.
fn many_files(files: u64) -> Result<()> {
    let fs = LoopFs::new(SIZE, &["-m", "single"], "noatime")?;
    let volume = fs.path().join("volume");
    streams::create(&volume)?;
    for dir in 0..files.div_ceil(DIR) {
        let dir = volume.join(format!("directory {dir}"));
        fs::create_dir(&dir)?;
        for file in 0..DIR.min(files) {
            let bytes = [file as u8; BLOCK as usize];
            fs::write(dir.join(format!("file {file}.jpeg")), bytes)?;
        }
    }
    measure(&fs, &volume, &format!("{files} files"), || {
        let mut random = Random::new(1);
        for _ in 0..files / CHANGED as u64 {
            let (dir, file) = (
                random.below(files.div_ceil(DIR)),
                random.below(DIR.min(files)),
            );
            let path = volume.join(format!("directory {dir}/file {file}.jpeg"));
            OpenOptions::new()
                .write(true)
                .open(path)?
                .write_all_at(b"changed", 0)?;
        }
        Ok(())
    })
}

/// Measures a volume with one file whose extents are scattered.
fn many_extents(extents: u64) -> Result<()> {
    let fs = LoopFs::new(SIZE, &["-m", "single"], "noatime")?;
    let volume = fs.path().join("volume");
    streams::create(&volume)?;
    let scattered = SCATTERED.min(extents);
    let (base, large) = (fs.path().join("base"), volume.join("large"));
    // This process never holds large data, because a forked child also has it until its exec.
    let base = File::create_new(base)?;
    let mut random = Random::new(3);
    for at in 0..scattered {
        base.write_all_at(&random.bytes(BLOCK as usize), at * BLOCK)?;
    }
    base.sync_all()?;
    let base = File::open(fs.path().join("base"))?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(large)?;
    for at in 0..scattered {
        // An odd factor visits every block of a power of two once.
        let from = at * 7919 % scattered;
        clone_range(&file, &base, from * BLOCK, BLOCK, at * BLOCK)?;
    }
    let mut made = scattered;
    while made < extents {
        let more = made.min(extents - made);
        clone_range(&file, &file, 0, more * BLOCK, made * BLOCK)?;
        made += more;
    }
    measure(
        &fs,
        &volume,
        &format!("one file of {extents} extents"),
        || {
            let mut random = Random::new(2);
            for _ in 0..extents / CHANGED as u64 {
                file.write_all_at(b"changed", random.below(extents) * BLOCK)?;
            }
            Ok(())
        },
    )
}

fn measure(
    fs: &LoopFs,
    volume: &Path,
    what: &str,
    change: impl FnOnce() -> io::Result<()>,
) -> Result<()> {
    let at = |name: &str| fs.path().join(name);
    let (before, after) = (at("before"), at("after"));
    let (old, new) = (at("before.sendshot"), at("after.sendshot"));
    let snapshot = |name: &Path| -> Result<()> {
        File::open(fs.path()).map(rustix::fs::syncfs)??;
        streams::snapshot(volume, name)
    };
    snapshot(&before)?;
    let save = |path: &Path| vec!["--save-sendshot".into(), path.as_os_str().to_owned()];
    send(what, "full stream", save(&old), &before)?;
    change()?;
    snapshot(&after)?;
    let mut arguments = vec!["--sendshot".into(), old.as_os_str().to_owned()];
    arguments.extend(save(&new));
    send(what, "increment", arguments, &after)?;
    let counts = Sendshot::open(&new)?.counts();
    let len = fs::metadata(&new)?.len();
    println!(
        "{what}: {} inodes, {} extents, sendshot of {:.1} MiB",
        counts.inodes,
        counts.extents,
        len as f64 / f64::from(1 << 20)
    );
    Ok(())
}

fn send(what: &str, kind: &str, arguments: Vec<std::ffi::OsString>, snapshot: &Path) -> Result<()> {
    let start = Instant::now();
    let mut command = Command::new(binaries::path("sendshotctl"));
    command.args(["stream", "send", "--proto", "2"]);
    let command = command.args(arguments).arg(snapshot).stdout(Stdio::null());
    let status = command
        .status()
        .with_context(|| format!("run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed");
    println!(
        "{what}, {kind}: {:.1} s, peak so far {} MiB",
        start.elapsed().as_secs_f64(),
        peak()?
    );
    Ok(())
}

/// Peak memory of all child processes waited for so far, in MiB.
fn peak() -> Result<i64> {
    Ok(getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss() / 1024)
}

fn within() -> Result<bool> {
    let peak = peak()?;
    println!("peak memory: {peak} MiB, limit {LIMIT} MiB");
    Ok(peak <= LIMIT)
}
