//! A volume whose snapshots are sent one after the other from sendshots: to stock
//! `btrfs receive` and to our applier, which both must end up with what was snapshotted. Each
//! snapshot is gone before anything else happens, so that nothing pins its data.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sendshot_apply::parent::Trust;
use sendshot_apply::receive::Options;
use sendshot_apply::{Policies, Scope};
use sendshot_engine::capture::recapture::Effort;
use sendshot_engine::capture::save;
use sendshot_engine::diff::Version;
use sendshot_engine::format::hashes;
use sendshot_engine::stream::measure::measure;
use sendshot_engine::{
    Entry, Frozen, Sendshot, Source, WireNumber, capture, compare_hashes, recapture, stream,
    stream_from,
};

use crate::compare::inode_flags;
use crate::compare::tree::{self, Layout};
use crate::disks::loopfs::{LoopFs, run};
use crate::disks::streams::{self, Format};

/// Bytes of each file system.
const SIZE: u64 = 1 << 30;

/// The volume, and who receives it.
#[derive(Debug)]
pub struct Chain {
    source: LoopFs,
    receivers: Receivers,
    files: tempfile::TempDir,
    version: Version,
    rounds: Cell<u64>,
    keeps_last: bool,
}

/// A snapshot and the two copies made of it.
#[derive(Debug)]
pub struct Sent {
    /// Which round of the chain, from 0.
    pub round: u64,
    /// The snapshot; gone when [`Chain::send`] has returned.
    pub snapshot: PathBuf,
    /// The copy that stock `btrfs receive` made.
    pub stock: PathBuf,
    /// The copy that our applier made.
    pub ours: PathBuf,
    /// The stream.
    pub stream: Vec<u8>,
    /// Length of the kernel's stream of the same change, if the chain is beside the kernel.
    pub kernels_len: Option<u64>,
}

impl Sent {
    /// How many commands of each kind the stream has.
    ///
    /// # Panics
    /// If it does not parse.
    #[track_caller]
    pub fn commands(&self) -> BTreeMap<&'static str, u64> {
        streams::commands(&self.stream).unwrap()
    }
}

impl Chain {
    /// Makes the file systems and an empty volume.
    ///
    /// # Errors
    /// If the caller is not root, or a tool is missing or fails.
    pub fn new(version: Version) -> Result<Self> {
        Self::with(version, &[], "", "")
    }

    /// The same with options for making and mounting the volume's file system, and for mounting
    /// that of our applier.
    ///
    /// # Errors
    /// As [`Chain::new`].
    pub fn with(version: Version, mkfs: &[&str], mount: &str, receiver: &str) -> Result<Self> {
        let chain = Self {
            source: LoopFs::new(SIZE, mkfs, mount)?,
            receivers: Receivers::mounted(receiver)?,
            files: tempfile::tempdir()?,
            version,
            rounds: Cell::new(0),
            keeps_last: false,
        };
        streams::create(&chain.volume())?;
        Ok(chain)
    }

    /// The same chain, with each snapshot kept until the next one was sent, and the kernel's own
    /// stream made of both.
    #[must_use]
    pub fn beside_the_kernel(self) -> Self {
        Self {
            keeps_last: true,
            ..self
        }
    }

    /// The volume's file system.
    pub fn fs(&self) -> &Path {
        self.source.path()
    }

    /// The live volume.
    pub fn volume(&self) -> PathBuf {
        self.fs().join("volume")
    }

    /// The sendshot of a round.
    pub fn sendshot(&self, round: u64) -> PathBuf {
        self.files.path().join(format!("{round}.sendshot"))
    }

    /// Sends the volume as it is now and deletes the snapshot.
    ///
    /// # Errors
    /// The first difference between the snapshot and a copy, or whatever fails.
    pub fn send(&self) -> Result<Sent> {
        self.send_and(|_| Ok(()))
    }

    /// The same, with a look at snapshot and copies before the snapshot is deleted.
    ///
    /// # Errors
    /// As [`Chain::send`], and those of `look`.
    pub fn send_and(&self, look: impl FnOnce(&Sent) -> Result<()>) -> Result<Sent> {
        let round = self.rounds.get();
        let snapshot = self.snapshot(round);
        streams::snapshot(&self.volume(), &snapshot)?;
        let stream = self.stream(round, &snapshot)?;
        let sent = Sent {
            round,
            stock: self.receivers.stock.path().join(format!("s{round}")),
            ours: self.receivers.ours.path().join(format!("s{round}")),
            kernels_len: self.kernels_len(round, &snapshot)?,
            snapshot,
            stream,
        };
        self.receivers.receive(&sent.stream, &sent.snapshot)?;
        if self.version == Version::V2 {
            let differences = self.receivers.flag_differences(&sent)?;
            ensure!(differences.is_empty(), "ours: {}", differences.join("\n"));
        }
        look(&sent)?;
        if !self.keeps_last {
            streams::delete(&sent.snapshot)?;
        } else if round > 0 {
            streams::delete(&self.snapshot(round - 1))?;
        }
        self.rounds.set(round + 1);
        Ok(sent)
    }

    /// Sends on the copy that stock `btrfs receive` has just finished, from what was sent on before: our
    /// applier must end up with the same once more.
    ///
    /// # Errors
    /// The first difference, or whatever fails.
    pub fn relay(&self, sent: &Sent) -> Result<()> {
        let dir = self.receivers.ours.path().join("relayed");
        if !dir.exists() {
            std::fs::create_dir(&dir)?;
        }
        let sendshot = |round: u64| self.files.path().join(format!("relayed-{round}"));
        let (root, path) = (File::open(&sent.stock)?, sendshot(sent.round));
        let frozen = Frozen::write_back(&root)?;
        capture(frozen, WireNumber::Origin, File::create(&path)?)?;
        let old = sent.round.checked_sub(1).map(sendshot);
        let stream = make_stream(old.as_deref(), &path, &sent.stock, self.version)?;
        let options = Options {
            scope: Scope::default(),
            trust: Trust::Strict,
            policies: Policies::default(),
        };
        sendshot_apply::receive(&stream[..], &File::open(&dir)?, options, |_| {})
            .context("receive what was sent on")?;
        let name = sent.snapshot.file_name().context("a name")?;
        let differences = self
            .receivers
            .differences(&sent.snapshot, &dir.join(name))?;
        ensure!(
            differences.is_empty(),
            "sent on: {}",
            differences.join("\n")
        );
        Ok(())
    }

    fn snapshot(&self, round: u64) -> PathBuf {
        self.fs().join(format!("s{round}"))
    }

    fn kernels_len(&self, round: u64, snapshot: &Path) -> Result<Option<u64>> {
        if !self.keeps_last {
            return Ok(None);
        }
        let format = match self.version {
            Version::V1 => Format::V1,
            Version::V2 => Format::V2Compressed,
        };
        let parent = round.checked_sub(1).map(|before| self.snapshot(before));
        let stream = streams::send(format, parent.as_deref(), snapshot)?;
        Ok(Some(stream.len() as u64))
    }

    /// Captures and makes the stream, from the sendshot of the round before.
    fn stream(&self, round: u64, snapshot: &Path) -> Result<Vec<u8>> {
        let path = self.sendshot(round);
        let root = File::open(snapshot)?;
        capture(
            Frozen::snapshot(&root),
            WireNumber::Local,
            File::create(&path)?,
        )?;
        let old = round.checked_sub(1).map(|before| self.sendshot(before));
        if let Some(old) = &old {
            let (old, new) = (sendshot_engine::open(old)?, sendshot_engine::open(&path)?);
            same_when_captured_from(&old, &new, &root)?;
        }
        make_stream(old.as_deref(), &path, snapshot, self.version)
    }

    /// Unmounts the volume's file system and mounts it again.
    ///
    /// # Errors
    /// If something keeps it busy.
    pub fn remount(&self) -> Result<()> {
        self.source.remount()
    }

    /// The file systems that receive.
    pub fn receivers(&self) -> &Receivers {
        &self.receivers
    }

    /// Waits until nothing is left of deleted subvolumes.
    ///
    /// # Errors
    /// Those of `btrfs`.
    pub fn clean(&self) -> Result<()> {
        run(Command::new("btrfs")
            .args(["subvolume", "sync"])
            .arg(self.fs()))
    }
}

/// Makes the stream of a snapshot from its sendshot and perhaps another one, as the daemon does:
/// with hashes of blocks beside both. Its length must be the planned one, and it must be the same a
/// second time.
///
/// # Errors
/// The engine's, or the difference.
pub fn make_stream(
    old: Option<&Path>,
    new: &Path,
    snapshot: &Path,
    version: Version,
) -> Result<Vec<u8>> {
    let root = File::open(snapshot)?;
    let (dir, file) = save::place(new)?;
    let old = old.map(sendshot_engine::open).transpose()?;
    let mut new = sendshot_engine::open(new)?;
    if let Some(old) = &old {
        new = compare_hashes(old, new, &root, &dir, file)?;
    }
    let source = Source {
        parent: old.as_ref(),
        target: &new,
        snapshot: &root,
        name: snapshot.file_name().context("a name")?.as_encoded_bytes(),
        version,
    };
    let mut bytes = Vec::new();
    hashes::save(dir, file, new.head().uuid, |hashes| {
        stream(&source, Some(hashes), |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })
        .map_err(anyhow::Error::from)
    })??;
    same_again(&source, &bytes)?;
    Ok(bytes)
}

/// The same a second time, as long as planned, and the same from any place on.
fn same_again(source: &Source<'_, &File>, bytes: &[u8]) -> Result<()> {
    let mut again = Vec::new();
    let mut places = Vec::new();
    stream_from(source, None, None, |part| {
        again.extend_from_slice(&part.bytes);
        places.push(part.end);
        Ok(())
    })?;
    ensure!(again == bytes, "the stream is another one the second time");
    let size = measure(source.parent, source.target, source.name, source.version)?;
    ensure!(
        size.bytes == bytes.len() as u64,
        "{} bytes were planned, {} came",
        size.bytes,
        bytes.len()
    );
    let last = places.len() - 1;
    for at in BTreeSet::from([0, last / 2, last]) {
        let (place, mut rest) = (places[at], Vec::new());
        stream_from(source, Some(place), None, |part| {
            rest.extend_from_slice(&part.bytes);
            Ok(())
        })?;
        ensure!(
            rest == bytes[usize::try_from(place.offset)?..],
            "the stream is another one when it is taken up at {place:?}"
        );
    }
    Ok(())
}

/// Two file systems that receive the same streams: by stock `btrfs receive`, and by our applier.
#[derive(Debug)]
pub struct Receivers {
    /// Of the stock tool.
    pub stock: LoopFs,
    /// Of our applier.
    pub ours: LoopFs,
    /// How that is mounted.
    mount: String,
}

impl Receivers {
    /// Makes them.
    ///
    /// # Errors
    /// As [`LoopFs::new`].
    pub fn new() -> Result<Self> {
        Self::mounted("")
    }

    /// The same with options for mounting that of our applier.
    ///
    /// # Errors
    /// As [`LoopFs::new`].
    pub fn mounted(ours: &str) -> Result<Self> {
        Ok(Self {
            stock: LoopFs::new(SIZE, &[], "")?,
            ours: LoopFs::new(SIZE, &[], ours)?,
            mount: ours.to_owned(),
        })
    }

    /// Both receive the stream of a snapshot and must end up with what that has.
    ///
    /// # Errors
    /// If one cannot receive it, or the first difference.
    pub fn receive(&self, stream: &[u8], snapshot: &Path) -> Result<()> {
        streams::stock_receive(stream, self.stock.path()).context("stock receive")?;
        let options = Options {
            scope: Scope::default(),
            trust: Trust::Strict,
            policies: Policies::default(),
        };
        let target = File::open(self.ours.path())?;
        sendshot_apply::receive(stream, &target, options, |_| {}).context("our receive")?;
        let name = snapshot.file_name().context("a name")?;
        let differences = tree::compare(snapshot, &self.stock.path().join(name))?;
        ensure!(differences.is_empty(), "stock: {}", differences.join("\n"));
        let differences = self.differences(snapshot, &self.ours.path().join(name))?;
        ensure!(differences.is_empty(), "ours: {}", differences.join("\n"));
        Ok(())
    }

    /// Inode flags that the copy of our applier has otherwise than the snapshot. The stock tool keeps none.
    fn flag_differences(&self, sent: &Sent) -> Result<Vec<String>> {
        let left_out = match self.mount.as_str() {
            "nodatacow" => &['C', 'c', 'm'][..],
            "nodatasum" => &['c', 'm'],
            _ => &[],
        };
        inode_flags::compare_but(&sent.snapshot, &sent.ours, left_out)
    }

    /// What a copy that our applier made has otherwise than the snapshot.
    fn differences(&self, snapshot: &Path, copy: &Path) -> Result<Vec<String>> {
        // Without checksums nothing is compressed.
        let has_none = self.mount.contains("nodatasum") || self.mount.contains("nodatacow");
        let left_out = has_none.then_some(&b"btrfs.compression"[..]);
        tree::compare_but(snapshot, copy, Layout::Ignore, left_out)
    }
}

/// Capturing only what changed must give what capturing everything gives.
///
/// # Errors
/// The first difference.
pub fn same_when_captured_from(old: &Sendshot, new: &Sendshot, root: &File) -> Result<Effort> {
    let (file, _, _, effort) = recapture(
        old,
        Frozen::snapshot(root),
        WireNumber::Local,
        tempfile::tempfile()?,
    )?;
    let again = Sendshot::from_file(file, Path::new("recaptured"))?;
    let (mut a, mut b) = (new.reader()?, again.reader()?);
    loop {
        let (whole, changes) = (compared(a.next_entry()?), compared(b.next_entry()?));
        ensure!(
            whole == changes,
            "captured {whole:?}, recaptured {changes:?} ({effort:?})"
        );
        if whole.is_none() {
            return Ok(effort);
        }
    }
}

/// Whether an extent is shared is only asked when it is read, and may change without a trace.
fn compared(entry: Option<Entry>) -> Option<Entry> {
    match entry {
        Some(Entry::Extent(mut extent)) => {
            extent.is_shared = false;
            Some(Entry::Extent(extent))
        }
        other => other,
    }
}
