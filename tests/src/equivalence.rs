//! Random histories of a volume, sent round by round from sendshots whose snapshots are gone:
//! stock `btrfs receive` and our applier must both end up with the tree that was snapshotted.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sendshot_apply::Policies;
use sendshot_apply::parent::Trust;
use sendshot_apply::receive::Options;
use sendshot_engine::diff::Version;
use sendshot_engine::recapture::Effort;
use sendshot_engine::{Sendshot, capture, recapture, stream};

use crate::changes;
use crate::loopfs::{LoopFs, run};
use crate::random::Random;
use crate::streams;
use crate::tree;

/// Changes between two rounds.
const CHANGES: u64 = 160;
/// Bytes of each file system.
const SIZE: u64 = 1 << 30;

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
    source: LoopFs,
    /// Received by stock `btrfs receive`.
    stock: LoopFs,
    /// Received by our applier.
    ours: LoopFs,
    files: tempfile::TempDir,
    setting: Setting,
}

/// Runs the history of a seed.
///
/// # Errors
/// The first difference, with seed and round.
pub fn history(seed: u64, rounds: u64) -> Result<Outcome> {
    let mut random = Random::new(seed);
    let setting = Setting::of(&mut random);
    let history = History {
        source: LoopFs::new(SIZE, &["-n", setting.node_size], setting.mount)?,
        stock: LoopFs::new(SIZE, &[], "")?,
        ours: LoopFs::new(SIZE, &[], "")?,
        files: tempfile::tempdir()?,
        setting,
    };
    streams::create(&history.volume())?;
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
        self.source.path().join("volume")
    }

    fn snapshot(&self, round: u64) -> PathBuf {
        self.source.path().join(format!("s{round}"))
    }

    fn sendshot(&self, round: u64) -> PathBuf {
        self.files.path().join(format!("{round}.sendshot"))
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
        let snapshot = self.snapshot(round);
        streams::snapshot(&self.volume(), &snapshot)?;
        drop(unnamed);
        let bytes = self.send(round, &snapshot)?;
        for (who, received) in [("stock", &self.stock), ("ours", &self.ours)] {
            let copy = received.path().join(format!("s{round}"));
            let differences = tree::compare(&snapshot, &copy)?;
            ensure!(differences.is_empty(), "{who}: {}", differences.join("\n"));
        }
        self.forget(random, round)?;
        Ok(bytes)
    }

    /// Things that happen to a file system.
    fn between(&self, random: &mut Random, round: u64) -> Result<()> {
        if self.setting.balances && random.once_in(3) {
            let balance = ["balance", "start", "--full-balance"];
            run(Command::new("btrfs").args(balance).arg(self.source.path()))?;
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
                .arg(self.source.path()))?;
        }
        let past = self.source.path().join("past");
        if self.setting.rollbacks && random.once_in(3) && past.exists() {
            self.delete(&self.volume())?;
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

    /// Captures, sends and receives twice; returns the length of the stream.
    fn send(&self, round: u64, snapshot: &Path) -> Result<u64> {
        let root = File::open(snapshot)?;
        capture(&root, File::create(self.sendshot(round))?)?;
        let new = Sendshot::open(&self.sendshot(round))?;
        let old = match round {
            0 => None,
            n => Some(Sendshot::open(&self.sendshot(n - 1))?),
        };
        if let Some(old) = &old {
            same_when_captured_from(old, &new, &root)?;
        }
        let mut bytes = Vec::new();
        let name = format!("s{round}");
        stream(
            old.as_ref(),
            &new,
            &root,
            name.as_bytes(),
            self.setting.version,
            |part| {
                bytes.extend_from_slice(part);
                Ok(())
            },
        )?;
        streams::stock_receive(&bytes, self.stock.path()).context("stock receive")?;
        let options = Options {
            trust: Trust::Strict,
            policies: Policies::default(),
        };
        let target = File::open(self.ours.path())?;
        sendshot_apply::receive(bytes.as_slice(), &target, options, |_| {})
            .context("our receive")?;
        Ok(bytes.len() as u64)
    }

    /// Deletes the snapshot before anything else changes, so that nothing pins its data.
    fn forget(&self, random: &mut Random, round: u64) -> Result<()> {
        self.delete(&self.snapshot(round))?;
        if random.once_in(2) {
            run(Command::new("btrfs")
                .args(["subvolume", "sync"])
                .arg(self.source.path()))?;
        }
        Ok(())
    }

    fn delete(&self, subvolume: &Path) -> Result<()> {
        run(Command::new("btrfs")
            .args(["subvolume", "delete", "--commit-after"])
            .arg(subvolume))
    }
}

/// Capturing only what changed must give what capturing everything gives.
///
/// # Errors
/// The first difference.
pub fn same_when_captured_from(old: &Sendshot, new: &Sendshot, root: &File) -> Result<Effort> {
    let (file, _, _, effort) = recapture(old, root, tempfile::tempfile()?)?;
    let again = Sendshot::from_file(file, Path::new("recaptured"))?;
    let (mut a, mut b) = (new.reader()?, again.reader()?);
    loop {
        let (whole, changes) = (a.next_entry()?, b.next_entry()?);
        ensure!(
            whole == changes,
            "captured {whole:?}, recaptured {changes:?} ({effort:?})"
        );
        if whole.is_none() {
            return Ok(effort);
        }
    }
}
