//! Sends the snapshots of a volume one after the other from sendshots, to stock `btrfs receive` and to
//! `sendshot-apply`; both copies must equal the snapshot. Each snapshot is deleted before anything else
//! happens, so that nothing pins its data.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sendshot_apply::parent::Trust;
use sendshot_apply::receive::Options;
use sendshot_apply::{Policies, RunPolicy, Scope};
use sendshot_engine::capture::recapture::Effort;
use sendshot_engine::capture::save;
use sendshot_engine::diff::Version;
use sendshot_engine::format::hashes;
use sendshot_engine::stream::Pages;
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

/// The volume and the file systems that receive it.
#[derive(Debug)]
pub struct Chain {
    source: LoopFs,
    receivers: Receivers,
    files: tempfile::TempDir,
    version: Version,
    rounds: Cell<u64>,
    keeps_last: bool,
}

/// A snapshot and its two copies.
#[derive(Debug)]
pub struct Sent {
    /// The round of the chain, from 0.
    pub round: u64,
    /// The snapshot; deleted by the time [`Chain::send`] returns.
    pub snapshot: PathBuf,
    /// The copy made by stock `btrfs receive`.
    pub stock: PathBuf,
    /// The copy made by `sendshot-apply`.
    pub ours: PathBuf,
    /// The stream.
    pub stream: Vec<u8>,
    /// Length of the kernel's stream of the same change, if the chain runs beside the kernel.
    pub kernels_len: Option<u64>,
}

impl Sent {
    /// Counts the commands of the stream by kind.
    ///
    /// # Panics
    /// If the stream does not parse.
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

    /// As [`Chain::new`], with options for making and mounting the volume's file system, and for mounting the
    /// file system of `sendshot-apply`.
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

    /// Keeps each snapshot until the next one is sent, and also makes the kernel's own stream from
    /// the two.
    #[must_use]
    pub fn beside_the_kernel(self) -> Self {
        Self {
            keeps_last: true,
            ..self
        }
    }

    /// Mount point of the volume's file system.
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

    /// Sends the current state of the volume and deletes the snapshot.
    ///
    /// # Errors
    /// The first difference between the snapshot and a copy, or the step that fails.
    pub fn send(&self) -> Result<Sent> {
        self.send_and(|_| Ok(()))
    }

    /// As [`Chain::send`], but runs `look` on snapshot and copies before the snapshot is deleted.
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

    /// Sends the copy that stock `btrfs receive` has just finished, incrementally to the one relayed
    /// before it: `sendshot-apply` must make an equal copy again.
    ///
    /// # Errors
    /// The first difference, or the step that fails.
    pub fn relay(&self, sent: &Sent) -> Result<()> {
        let dir = self.receivers.ours.path().join("relayed");
        std::fs::create_dir_all(&dir)?;
        let sendshot = |round: u64| self.files.path().join(format!("relayed-{round}"));
        let (root, path) = (File::open(&sent.stock)?, sendshot(sent.round));
        let frozen = Frozen::write_back(&root)?;
        capture(frozen, WireNumber::Origin, File::create(&path)?)?;
        let old = sent.round.checked_sub(1).map(sendshot);
        let stream = make_stream(old.as_deref(), &path, &sent.stock, self.version)?;
        let runs = self.receivers.runs.get();
        receive_ours(&stream, &dir, Scope::Target, runs).context("receive what was sent on")?;
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

    /// Captures the snapshot and makes its stream, from the sendshot of the previous round.
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

    /// Waits until the cleaner has removed all deleted subvolumes.
    ///
    /// # Errors
    /// If `btrfs` fails.
    pub fn clean(&self) -> Result<()> {
        run(Command::new("btrfs")
            .args(["subvolume", "sync"])
            .arg(self.fs()))
    }
}

/// Makes the stream of a snapshot from its sendshot, and from an older one if given, as the daemon does:
/// with block hashes stored beside both. Checks that its length is the planned one and that a second run
/// gives the same bytes.
///
/// # Errors
/// Errors of the engine, or the difference.
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
        pages: Pages::Forget,
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

/// Checks that a second run, and one resumed from any position, gives the same bytes of the planned length.
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
            "the stream is another one when it is resumed at {place:?}"
        );
    }
    Ok(())
}

/// Two file systems that receive the same streams, by stock `btrfs receive` and by `sendshot-apply`.
#[derive(Debug)]
pub struct Receivers {
    /// Receives by the stock tool.
    pub stock: LoopFs,
    /// Receives by `sendshot-apply`.
    pub ours: LoopFs,
    /// Mount options of `ours`.
    mount: String,
    /// How `sendshot-apply` executes independent commands.
    runs: Cell<RunPolicy>,
    /// How it executes them besides, each time into a copy that is compared and deleted.
    other_runs: RefCell<Vec<RunPolicy>>,
}

impl Receivers {
    /// Makes both with default mount options.
    ///
    /// # Errors
    /// As [`LoopFs::new`].
    pub fn new() -> Result<Self> {
        Self::mounted("")
    }

    /// As [`Receivers::new`], with mount options for the file system of `sendshot-apply`.
    ///
    /// # Errors
    /// As [`LoopFs::new`].
    pub fn mounted(ours: &str) -> Result<Self> {
        Ok(Self {
            stock: LoopFs::new(SIZE, &[], "")?,
            ours: LoopFs::new(SIZE, &[], ours)?,
            mount: ours.to_owned(),
            runs: Cell::default(),
            other_runs: RefCell::default(),
        })
    }

    /// Sets how `sendshot-apply` executes independent commands: for the copies that stay, and for others.
    pub fn set_runs(&self, runs: RunPolicy, others: Vec<RunPolicy>) {
        self.runs.set(runs);
        self.other_runs.replace(others);
    }

    /// Receives the stream of a snapshot on both; both copies must equal the snapshot.
    ///
    /// # Errors
    /// If a stream cannot be received, or the first difference.
    pub fn receive(&self, stream: &[u8], snapshot: &Path) -> Result<()> {
        streams::stock_receive(stream, self.stock.path()).context("stock receive")?;
        receive_ours(stream, self.ours.path(), Scope::Target, self.runs.get())
            .context("our receive")?;
        let name = snapshot.file_name().context("a name")?;
        let differences = tree::compare(snapshot, &self.stock.path().join(name))?;
        ensure!(differences.is_empty(), "stock: {}", differences.join("\n"));
        let differences = self.differences(snapshot, &self.ours.path().join(name))?;
        ensure!(differences.is_empty(), "ours: {}", differences.join("\n"));
        for runs in self.other_runs.borrow().iter() {
            self.receive_aside(stream, snapshot, *runs)
                .with_context(|| format!("executed as {runs:?}"))?;
        }
        Ok(())
    }

    /// Receives the stream once more by `sendshot-apply`, into a copy that must equal the snapshot and is deleted then.
    fn receive_aside(&self, stream: &[u8], snapshot: &Path, runs: RunPolicy) -> Result<()> {
        let dir = self.ours.path().join("aside");
        std::fs::create_dir_all(&dir)?;
        receive_ours(stream, &dir, Scope::Anywhere, runs)?;
        let copy = dir.join(snapshot.file_name().context("a name")?);
        let differences = self.differences(snapshot, &copy)?;
        ensure!(differences.is_empty(), "{}", differences.join("\n"));
        streams::delete(&copy)
    }

    /// Lists the inode flags in which the copy by `sendshot-apply` differs. The stock tool keeps none.
    fn flag_differences(&self, sent: &Sent) -> Result<Vec<String>> {
        let left_out = match self.mount.as_str() {
            "nodatacow" => &['C', 'c', 'm'][..],
            "nodatasum" => &['c', 'm'],
            _ => &[],
        };
        inode_flags::compare_but(&sent.snapshot, &sent.ours, left_out)
    }

    /// Lists what differs between a snapshot and the copy by `sendshot-apply`.
    fn differences(&self, snapshot: &Path, copy: &Path) -> Result<Vec<String>> {
        // btrfs compresses only data that has checksums.
        let has_none = self.mount.contains("nodatasum") || self.mount.contains("nodatacow");
        let left_out = has_none.then_some(&b"btrfs.compression"[..]);
        tree::compare_but(snapshot, copy, Layout::Ignore, left_out)
    }
}

/// Receives a stream by `sendshot-apply`, with parents from `scope`.
fn receive_ours(stream: &[u8], dir: &Path, scope: Scope<'_>, runs: RunPolicy) -> Result<()> {
    let policies = Policies {
        runs,
        ..Policies::default()
    };
    let options = Options {
        scope,
        trust: Trust::Strict,
        policies,
    };
    sendshot_apply::receive(stream, &File::open(dir)?, options, |_| {})?;
    Ok(())
}

/// Checks that capturing only the changes gives the same sendshot as capturing everything.
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

/// Clears `is_shared`, which is current only when the extent is read and may change without a trace.
fn compared(entry: Option<Entry>) -> Option<Entry> {
    match entry {
        Some(Entry::Extent(mut extent)) => {
            extent.is_shared = false;
            Some(Entry::Extent(extent))
        }
        other => other,
    }
}
