//! Random histories of a volume, sent round by round from sendshots whose snapshots are gone:
//! stock `btrfs receive` and our applier must both end up with the tree that was snapshotted.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use sendshot_engine::diff::Version;

use crate::chain::Chain;
use crate::changes;
use crate::loopfs::run;
use crate::random::Random;
use crate::streams;

/// Changes between two rounds.
const CHANGES: u64 = 160;

/// What happens around the changes of a history.
#[derive(Debug, Clone, Copy)]
struct Setting {
    node_size: &'static str,
    mount: &'static str,
    version: Version,
    balances: bool,
    rollbacks: bool,
    remounts: bool,
}

impl Setting {
    fn of(random: &mut Random) -> Self {
        Self {
            node_size: random.pick(&["4096", "16384"]),
            mount: random.pick(&[
                "",
                "compress-force=zstd",
                "compress=lzo",
                "compress-force=zlib",
            ]),
            version: random.pick(&[Version::V1, Version::V2, Version::V2]),
            balances: random.once_in(2),
            rollbacks: random.once_in(2),
            remounts: random.once_in(4),
        }
    }
}

/// What a history came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// Bytes of all its streams.
    pub stream_bytes: u64,
    /// Rounds that were compared.
    pub rounds: u64,
}

/// A history under way.
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
    let node_size = ["-n", setting.node_size];
    let history = History {
        chain: Chain::with(setting.version, &node_size, setting.mount)?,
        setting,
    };
    let mut outcome = Outcome::default();
    for round in 0..rounds {
        let bytes = history
            .round(&mut random, round)
            .with_context(|| format!("seed {seed}, round {round}, {setting:?}"))?;
        outcome.stream_bytes += bytes;
        outcome.rounds += 1;
    }
    Ok(outcome)
}

impl History {
    fn volume(&self) -> PathBuf {
        self.chain.volume()
    }

    fn round(&self, random: &mut Random, round: u64) -> Result<u64> {
        for _ in 0..CHANGES {
            changes::change(random, &self.volume());
            if random.once_in(40) {
                run(&mut Command::new("sync"))?;
            }
        }
        self.between(random, round)?;
        let unnamed = changes::unnamed(&self.volume())?;
        let sent = self.chain.send()?;
        drop(unnamed);
        if random.once_in(2) {
            self.chain.clean()?;
        }
        Ok(sent.stream.len() as u64)
    }

    /// Things that happen to a file system.
    fn between(&self, random: &mut Random, round: u64) -> Result<()> {
        if self.setting.balances && random.once_in(3) {
            let balance = ["balance", "start", "--full-balance"];
            run(Command::new("btrfs").args(balance).arg(self.chain.fs()))?;
        }
        if self.setting.remounts && random.once_in(3) {
            run(Command::new("mount")
                .args(["-o", "remount"])
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
