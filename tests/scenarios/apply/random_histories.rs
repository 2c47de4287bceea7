//! Random changes to a small tree, sent round by round: every copy equals its snapshot.
//! Needs root. `SENDSHOT_SEED` repeats a run, `SENDSHOT_ROUNDS` makes it longer.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sendshot_apply::parent::Trust;
use sendshot_apply::receive::Options;
use sendshot_apply::{ClonePolicy, EncodedPolicy, Policies, Scope};
use sendshot_harness::compare::{orders, tree};
use sendshot_harness::disks::loopfs::LoopFs;
use sendshot_harness::disks::streams::{self, Format};

/// Snapshots in one run.
const ROUNDS: u64 = 25;
/// Changes between two snapshots.
const CHANGES: u64 = 40;
/// Few names, so that they are used, freed and used again.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// xorshift64*: the same numbers for the same seed on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn path(&mut self, root: &Path) -> PathBuf {
        let depth = 1 + self.below(3);
        (0..depth).fold(root.to_owned(), |path, _| {
            let pick = self.below(NAMES.len() as u64) as usize;
            path.join(NAMES[pick])
        })
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = [10, 3000, 5000, 70_000, 300_000][self.below(5) as usize] + self.below(5000);
        let noisy = self.below(2) == 0;
        let mut value = self.next() as u8;
        (0..len)
            .map(|n| {
                if noisy || n % 97 == 0 {
                    value = self.next() as u8;
                }
                value
            })
            .collect()
    }

    fn time(&mut self) -> SystemTime {
        let offset = Duration::new(self.below(5_000_000_000), self.below(1_000_000_000) as u32);
        match self.below(4) {
            0 => UNIX_EPOCH - offset,
            _ => UNIX_EPOCH + offset,
        }
    }
}

/// Makes one change. An operation that the file system refuses (names that are in use or missing, a
/// directory into itself) changes nothing.
fn change(random: &mut Random, root: &Path) -> std::io::Result<()> {
    let path = random.path(root);
    match random.below(16) {
        0 | 1 => fs::create_dir(&path),
        2 | 3 => fs::write(&path, random.bytes()),
        4 | 5 => fs::rename(&path, random.path(root)),
        6 => fs::hard_link(&path, random.path(root)),
        7 => fs::remove_file(&path),
        8 => fs::remove_dir_all(&path),
        9 => symlink("some/target", &path),
        10 => {
            let file = File::options().write(true).open(&path)?;
            let at = random.below(400_000);
            file.write_all_at(&random.bytes(), at)
        }
        11 => File::options()
            .write(true)
            .open(&path)?
            .set_len(random.below(500_000)),
        12 => reflink(random, &path, root),
        13 => {
            fs::set_permissions(
                &path,
                PermissionsExt::from_mode(random.next() as u32 & 0o7777),
            )?;
            chown(&path, Some(random.below(9) as u32), None)
        }
        14 => attribute(random, &path),
        _ => {
            let (accessed, modified) = (random.time(), random.time());
            let times = fs::FileTimes::new()
                .set_accessed(accessed)
                .set_modified(modified);
            File::open(&path)?.set_times(times)
        }
    }
}

fn reflink(random: &mut Random, path: &Path, root: &Path) -> std::io::Result<()> {
    let to = random.path(root);
    if path.is_file() && !to.is_symlink() && !to.is_dir() {
        Command::new("cp")
            .arg("--reflink=always")
            .arg(path)
            .arg(&to)
            .output()?;
    }
    Ok(())
}

/// Sets or removes attributes, some of which are inherited or dropped by other changes.
fn attribute(random: &mut Random, path: &Path) -> std::io::Result<()> {
    let value = format!("value{}", random.below(100));
    let mut command = match random.below(7) {
        0 => tool("setfattr", &["-n", "user.a", "-v", &value]),
        1 => tool("setfattr", &["-x", "user.a"]),
        2 => tool("setfacl", &["-m", "u:7:rwx"]),
        3 => tool("setfacl", &["-d", "-m", "u:8:r"]),
        4 => tool("setfacl", &["-b"]),
        5 => tool("setfattr", &["-n", "btrfs.compression", "-v", "zstd"]),
        _ => tool("setcap", &["cap_kill+p"]),
    };
    command.arg(path).output().map(drop)
}

fn tool(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments);
    command
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn every_copy_equals_its_snapshot() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("SENDSHOT_SEED").unwrap_or(now.as_nanos() as u64);
    eprintln!("SENDSHOT_SEED={seed}");
    let mut random = Random(seed | 1);
    let source = LoopFs::new(4 << 30, &[], "compress=zstd").unwrap();
    let target = LoopFs::new(4 << 30, &[], "").unwrap();
    let live = source.path().join("live");
    streams::create(&live).unwrap();
    let mut previous: Option<PathBuf> = None;
    for round in 0..number("SENDSHOT_ROUNDS").unwrap_or(ROUNDS) {
        for _ in 0..CHANGES {
            let _ = change(&mut random, &live);
        }
        let name = format!("s{round}");
        let snapshot = source.path().join(&name);
        streams::snapshot(&live, &snapshot).unwrap();
        send_and_compare(&mut random, &snapshot, previous.as_deref(), target.path());
        previous = Some(snapshot);
    }
}

fn send_and_compare(random: &mut Random, snapshot: &Path, parent: Option<&Path>, target: &Path) {
    let format = [Format::V1, Format::V2, Format::V2Compressed][random.below(3) as usize];
    let policies = Policies {
        encoded: [EncodedPolicy::Store, EncodedPolicy::Decode][random.below(2) as usize],
        clone: [ClonePolicy::Share, ClonePolicy::Copy][random.below(2) as usize],
        runs: orders::by(random.next()),
        ..Policies::default()
    };
    let options = Options {
        scope: Scope::default(),
        trust: Trust::Strict,
        policies,
    };
    let stream = streams::send(format, parent, snapshot).unwrap();
    let dir = File::open(target).unwrap();
    sendshot_apply::receive(&stream[..], &dir, options, |_| {}).unwrap();
    let copy = target.join(snapshot.file_name().unwrap());
    let differences = tree::compare(snapshot, &copy).unwrap();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
