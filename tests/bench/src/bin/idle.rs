//! What schedules cost that find nothing to do: many unchanged volumes on one disk, and a few on another that change. Prints the
//! CPU time of both daemons and the writes to the disk of the unchanged ones; fails above the limits.

#![allow(clippy::expect_used, reason = "a failure ends the measurement")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams;
use sendshot_harness::hosts::daemon::Daemon;
use sendshot_harness::hosts::pairing::Paired;
use sendshot_harness::hosts::until;
use serde_json::Value;

/// Share of a core that both daemons may use together.
const MAX_CPU: f64 = 0.02;
/// Clock ticks a second in /proc/PID/stat.
const TICKS: f64 = 100.0;
/// Peak memory of each daemon in bytes.
const MAX_MEMORY: u64 = 64 << 20;

fn argument(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

fn main() -> ExitCode {
    let unchanged = argument("VOLUMES", 200);
    let changing = argument("CHANGING", 5);
    let minutes = argument("MINUTES", 15);
    let every = argument("EVERY_MINUTES", 5);
    let hosts = Paired::new();
    let other = LoopFs::new(512 << 20, &[], "noatime").expect("a file system");
    let mut volumes: BTreeMap<String, PathBuf> = BTreeMap::new();
    for number in 0..unchanged {
        let path = hosts.sender.fs().join(format!("volume-{number}"));
        streams::create(&path).expect("a subvolume");
        fs::write(path.join("file"), number.to_string()).expect("the volume is writable");
        volumes.insert(format!("volume-{number}"), path);
    }
    let mut changed = Vec::new();
    for number in 0..changing {
        let path = other.path().join(format!("changing-{number}"));
        streams::create(&path).expect("a subvolume");
        volumes.insert(format!("changing-{number}"), path.clone());
        changed.push((format!("changing-{number}"), path));
    }
    let mut text = String::from("max_parallel = 4\n");
    for (name, path) in &volumes {
        text += &format!(
            "[volumes.{name}]\npath = {path:?}\nreceivers = [\"nas2\"]\nschedule = \"every {every} min\"\njitter = \"{every} min\"\n"
        );
    }
    fs::write(hosts.sender.config(), text).expect("the configuration is written");
    hosts.sender.daemon.reload("configuration reloaded");
    let count = |hosts: &Paired| newest(hosts).len() as u64;
    let begin = Instant::now();
    while count(&hosts) < unchanged + changing {
        assert!(
            begin.elapsed() < Duration::from_secs(60 * (every + 10)),
            "the first pushes take too long"
        );
        std::thread::sleep(Duration::from_secs(1));
    }
    until::holds("no push runs", || running(&hosts) == 0);
    rustix::fs::sync();
    std::thread::sleep(Duration::from_secs(35));
    println!(
        "{} volumes were pushed once in {} s",
        unchanged + changing,
        begin.elapsed().as_secs()
    );

    let device = device_of(hosts.sender.fs());
    let (writes, cpu, began) = (writes_of(&device), cpu_of(&hosts), Instant::now());
    let limit = Duration::from_secs(60 * (2 * every + 1));
    let mut late = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(60 * minutes) {
        let before = newest(&hosts);
        for (_, path) in &changed {
            let now = format!("{:?}", began.elapsed());
            fs::write(path.join("file"), now).expect("the volume is writable");
        }
        if !changed.is_empty() {
            rustix::fs::syncfs(fs::File::open(other.path()).expect("it is mounted"))
                .expect("it is written");
        }
        let changed_at = Instant::now();
        let is_new = |(name, _): &&(String, PathBuf)| newest(&hosts).get(name) == before.get(name);
        while changed.iter().any(|of| is_new(&of)) {
            assert!(
                changed_at.elapsed() < limit,
                "a change did not arrive within its interval and jitter"
            );
            std::thread::sleep(Duration::from_secs(2));
        }
        if !changed.is_empty() {
            late = late.max(changed_at.elapsed());
        }
        std::thread::sleep(Duration::from_secs(5));
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu = (cpu_of(&hosts) - cpu) / TICKS;
    let written = writes_of(&device) - writes;
    let share = cpu / seconds;
    println!(
        "{unchanged} unchanged and {changing} changing volumes, every {every} min, for {seconds:.0} s: both daemons {cpu:.2} CPU-s, {:.2} % of a core; {written} writes to the disk of the unchanged ones; a change arrived after {} s at most",
        share * 100.0,
        late.as_secs()
    );
    let memory = [&hosts.sender.daemon, &hosts.receiver.daemon].map(Daemon::peak_memory);
    println!(
        "peak memory: sender {} MiB, receiver {} MiB",
        memory[0] >> 20,
        memory[1] >> 20
    );
    let is_cheap = changing > 0 || share < MAX_CPU;
    match written == 0 && is_cheap && memory.iter().all(|peak| *peak <= MAX_MEMORY) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The newest copy of each volume, by the receiver's directories: reading them costs the daemons nothing.
fn newest(hosts: &Paired) -> BTreeMap<String, String> {
    let root = hosts.receiver.root().join("nas1");
    let mut newest = BTreeMap::new();
    for volume in fs::read_dir(root).into_iter().flatten().flatten() {
        let copies = fs::read_dir(volume.path()).into_iter().flatten().flatten();
        let names = copies.filter_map(|copy| copy.file_name().into_string().ok());
        if let Some(last) = names.filter(|name| !name.starts_with('.')).max() {
            newest.insert(volume.file_name().to_string_lossy().into_owned(), last);
        }
    }
    newest
}

fn running(hosts: &Paired) -> usize {
    let status: Value = hosts.sender.ctl(&["--json", "status"]).success().json();
    status["running"].as_array().map_or(0, Vec::len)
}

/// User and system time of both daemons, in ticks.
fn cpu_of(hosts: &Paired) -> f64 {
    [&hosts.sender.daemon, &hosts.receiver.daemon]
        .into_iter()
        .map(|daemon| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("it runs");
            let after = stat.rsplit(')').next().unwrap_or_default();
            let fields: Vec<&str> = after.split_whitespace().collect();
            let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
            ticks(11) + ticks(12)
        })
        .sum()
}

fn device_of(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("it is readable");
    let path = path.to_string_lossy();
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(4) == Some(&path));
    let device = line.and_then(|line| line.rsplit(" - ").next()?.split(' ').nth(1));
    device
        .expect("a device")
        .trim_start_matches("/dev/")
        .to_owned()
}

/// Completed writes of a device.
fn writes_of(device: &str) -> u64 {
    let stats = fs::read_to_string("/proc/diskstats").expect("it is readable");
    let line = stats
        .lines()
        .find(|line| line.split_whitespace().nth(2) == Some(device));
    let writes = line.and_then(|line| line.split_whitespace().nth(7)?.parse().ok());
    writes.expect("the device has statistics")
}
