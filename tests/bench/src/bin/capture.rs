//! How long a capture takes of a million files, of which one in a hundred has changed: all of them in one subtree, or evenly
//! spread. `FILES` chooses another number. Fails above the limits.

#![allow(clippy::expect_used, reason = "a failure ends the measurement")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sendshot_bench::measure::{Took, measured, median};
use sendshot_engine::{Frozen, Sendshot, WireNumber, save_to};
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams;

/// Files in a directory.
const DIR: u64 = 1000;
/// One in this many is changed.
const CHANGED: u64 = 100;
/// Captures of which the median counts.
const ROUNDS: usize = 5;
/// Longest capture of changes in one subtree, in seconds.
const MOST_CLUSTERED: f64 = 0.3;
/// Longest capture of changes that are spread, as a multiple of a whole capture.
const MOST_SPREAD: f64 = 1.2;

fn file(volume: &Path, number: u64) -> PathBuf {
    volume.join(format!("directory {}/file {number}.jpeg", number / DIR))
}

fn captures(snapshot: &File, before: Option<&Sendshot>, to: &Path) -> (Sendshot, Took) {
    let capture = || {
        let frozen = Frozen::snapshot(snapshot);
        save_to(frozen, WireNumber::Local, before, to).expect("the snapshot is captured")
    };
    let mut all: Vec<_> = (0..ROUNDS).map(|_| measured(capture)).collect();
    let took: Vec<Took> = all.iter().map(|(_, took)| *took).collect();
    let ((sendshot, _), _) = all.pop().expect("a round");
    (sendshot, median(&took))
}

fn main() -> ExitCode {
    let files: u64 =
        std::env::var("FILES").map_or(1_000_000, |text| text.parse().expect("a number"));
    let fs = LoopFs::new(8 << 30, &["-m", "single"], "noatime").expect("a file system");
    let volume = fs.path().join("volume");
    streams::create(&volume).expect("a subvolume");
    for number in 0..files {
        let path = file(&volume, number);
        if number % DIR == 0 {
            fs::create_dir(path.parent().expect("a directory")).expect("it is made");
        }
        File::create(path).expect("it is made");
    }
    let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let snapshot = |name: &str| {
        let path = fs.path().join(name);
        streams::snapshot(&volume, &path).expect("a snapshot");
        File::open(path).expect("it is there")
    };
    let change = |numbers: &mut dyn Iterator<Item = u64>| {
        for number in numbers {
            fs::write(file(&volume, number), "changed").expect("it is written");
        }
    };
    let first = snapshot("first");
    let (base, whole) = captures(&first, None, &dir.path().join("first"));
    let (_, unchanged) = captures(&snapshot("same"), Some(&base), &dir.path().join("same"));
    change(&mut (files / 2..files / 2 + files / CHANGED));
    let second = snapshot("second");
    let (next, clustered) = captures(&second, Some(&base), &dir.path().join("second"));
    change(&mut (0..files).step_by(CHANGED as usize));
    let third = snapshot("third");
    let (_, spread) = captures(&third, Some(&next), &dir.path().join("third"));
    let share = spread.seconds / whole.seconds;
    println!(
        "{} inodes: whole {:.2} s; nothing changed {:.2} s; 1 % changed in one subtree {:.2} s, spread {:.2} s ({share:.2} of a whole one); busy {:.2}, {:.2}, {:.2}, {:.2} CPU-s",
        base.counts().inodes,
        whole.seconds,
        unchanged.seconds,
        clustered.seconds,
        spread.seconds,
        whole.busy,
        unchanged.busy,
        clustered.busy,
        spread.busy,
    );
    match clustered.seconds <= MOST_CLUSTERED && share <= MOST_SPREAD {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
