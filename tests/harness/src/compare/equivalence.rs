//! Random histories of a volume, sent round by round from sendshots whose snapshots are deleted: stock
//! `btrfs receive` and `sendshot-apply` must both make a copy equal to the snapshot.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use sendshot_engine::diff::Version;

use crate::compare::chain::{Chain, Sent};
use crate::compare::orders;
use crate::disks::loopfs::run;
use crate::disks::streams;
use crate::trees::changes;
use crate::trees::random::Random;

/// Changes between two rounds.
const CHANGES: u64 = 160;

/// The conditions under which a history runs.
#[derive(Debug, Clone, Copy)]
struct Setting {
    source: Source,
    /// Mount options of the file system of `sendshot-apply`.
    receiver: &'static str,
    version: Version,
    balances: bool,
    rollbacks: bool,
    /// Remounts with other options between rounds.
    remounts: bool,
    /// Unmounts and mounts in each round, after deletions.
    unmounts: bool,
    /// Never calls `sync`.
    never_syncs: bool,
    /// Sends on the copy that stock `btrfs receive` has just finished.
    relays: bool,
}

/// The file system of the volume.
#[derive(Debug, Clone, Copy)]
struct Source {
    mkfs: &'static [&'static str],
    checksum: &'static str,
    mount: &'static str,
    quotas: Quotas,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotas {
    Off,
    Full,
    /// Enabled by ioctl: the tools of Debian 12 do not know them.
    Simple,
}

impl Setting {
    fn of(random: &mut Random) -> Self {
        let source = Source {
            mkfs: random.pick(&[
                &["-n", "4096"][..],
                &["-n", "16384"],
                &["-n", "65536"],
                &["-n", "4096", "-M"],
                &["-n", "16384", "-O", "^no-holes"],
                &["-n", "4096", "-O", "^no-holes"],
            ]),
            checksum: random.pick(&["crc32c", "crc32c", "xxhash", "sha256", "blake2"]),
            mount: random.pick(&[
                "",
                "",
                "compress-force=zstd",
                "compress=lzo",
                "compress-force=zlib",
                "nodatasum",
                "nodatacow",
            ]),
            quotas: random.pick(&[Quotas::Off, Quotas::Off, Quotas::Full, Quotas::Simple]),
        };
        Self {
            source,
            receiver: random.pick(&["", "", "", "compress-force=zstd", "nodatasum", "nodatacow"]),
            version: random.pick(&[Version::V1, Version::V2, Version::V2]),
            balances: random.once_in(2),
            rollbacks: random.once_in(2),
            remounts: random.once_in(4),
            unmounts: random.once_in(2),
            never_syncs: random.once_in(3),
            relays: random.once_in(2),
        }
    }

    fn chain(&self) -> Result<Chain> {
        let Source {
            mkfs,
            checksum,
            mount,
            quotas,
        } = self.source;
        let mkfs = [mkfs, &["--csum", checksum]].concat();
        let chain = Chain::with(self.version, &mkfs, mount, self.receiver)?;
        match quotas {
            Quotas::Off => {}
            Quotas::Full => run(Command::new("btrfs")
                .args(["quota", "enable"])
                .arg(chain.fs()))?,
            Quotas::Simple => enable_simple_quotas(&chain)?,
        }
        Ok(chain)
    }
}

fn enable_simple_quotas(chain: &Chain) -> Result<()> {
    /// Calls `BTRFS_IOC_QUOTA_CTL` with `BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA`.
    const SCRIPT: &str = r#"
        open(my $dir, "<", $ARGV[0]) or opendir($dir, $ARGV[0]) or die $!;
        my $block = pack("QQ", 4, 0);
        ioctl($dir, 0xc0109428, $block) or die "enable simple quotas: $!";
    "#;
    run(Command::new("perl").args(["-e", SCRIPT]).arg(chain.fs()))
}

/// Totals of a history.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// Bytes of all its streams.
    pub stream_bytes: u64,
    /// Bytes of the kernel's streams of the same changes, if they were requested.
    pub kernels_bytes: u64,
    /// Rounds that were compared.
    pub rounds: u64,
}

/// A running history.
struct History {
    chain: Chain,
    setting: Setting,
}

/// Runs the history of a seed.
///
/// # Errors
/// The first difference, with seed and round.
pub fn history(seed: u64, rounds: u64) -> Result<Outcome> {
    let mut random = Random::new(seed);
    let setting = Setting::of(&mut random);
    let chain = setting.chain()?;
    run_history(History { chain, setting }, random, seed, rounds)
}

/// Runs a history without balances and rollbacks; the kernel, which keeps its parents, sends the same rounds.
///
/// # Errors
/// As [`history`].
pub fn history_beside_the_kernel(seed: u64, rounds: u64) -> Result<Outcome> {
    let mut random = Random::new(seed);
    let setting = Setting {
        balances: false,
        rollbacks: false,
        relays: false,
        ..Setting::of(&mut random)
    };
    let chain = setting.chain()?.beside_the_kernel();
    run_history(History { chain, setting }, random, seed, rounds)
}

fn run_history(history: History, mut random: Random, seed: u64, rounds: u64) -> Result<Outcome> {
    let setting = history.setting;
    let receivers = history.chain.receivers();
    receivers.set_runs(orders::by(seed), orders::others(seed));
    let mut outcome = Outcome::default();
    for round in 0..rounds {
        let sent = history
            .round(&mut random, round)
            .with_context(|| format!("seed {seed}, round {round}, {setting:?}"))?;
        outcome.stream_bytes += sent.stream.len() as u64;
        outcome.kernels_bytes += sent.kernels_len.unwrap_or(0);
        outcome.rounds += 1;
    }
    Ok(outcome)
}

impl History {
    fn volume(&self) -> PathBuf {
        self.chain.volume()
    }

    fn round(&self, random: &mut Random, round: u64) -> Result<Sent> {
        if self.setting.unmounts {
            changes::delete_latest(random, &self.volume());
            self.chain.remount()?;
            changes::use_numbers_again(random, &self.volume());
        }
        for _ in 0..CHANGES {
            changes::change(random, &self.volume());
            if random.once_in(40) && !self.setting.never_syncs {
                // Only this file system: other tests cut the power of theirs.
                run(Command::new("sync").arg("-f").arg(self.volume()))?;
            }
        }
        self.between(random, round)?;
        if self.setting.unmounts {
            changes::make_latest(random, &self.volume());
        }
        let unnamed = changes::unnamed(&self.volume())?;
        let sent = match self.setting.relays {
            true => self.chain.send_and(|sent| self.chain.relay(sent))?,
            false => self.chain.send()?,
        };
        drop(unnamed);
        if random.once_in(2) && !self.setting.never_syncs {
            self.chain.clean()?;
        }
        Ok(sent)
    }

    /// Balances, remounts or rolls back the file system between two rounds.
    fn between(&self, random: &mut Random, round: u64) -> Result<()> {
        if self.setting.balances && random.once_in(3) {
            let balance = ["balance", "start", "--full-balance"];
            run(Command::new("btrfs").args(balance).arg(self.chain.fs()))?;
        }
        if self.setting.remounts && random.once_in(3) {
            let options = random.pick(&[
                "remount,compress=zstd",
                "remount,compress-force=lzo",
                "remount,compress=no",
                "remount,noatime",
                "remount,max_inline=0",
            ]);
            run(Command::new("mount")
                .args(["-o", options])
                .arg(self.chain.fs()))?;
        }
        let past = self.chain.fs().join("past");
        if self.setting.rollbacks && random.once_in(3) && past.exists() {
            streams::delete(&self.volume())?;
            run(Command::new("btrfs")
                .args(["subvolume", "snapshot"])
                .arg(&past)
                .arg(self.volume()))?;
            for _ in 0..CHANGES / 4 {
                changes::change(random, &self.volume());
            }
        }
        if self.setting.rollbacks && round == 1 {
            streams::snapshot(&self.volume(), &past)?;
        }
        Ok(())
    }
}
