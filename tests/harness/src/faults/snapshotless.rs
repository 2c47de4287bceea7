//! A volume that is sent from sendshots alone: every snapshot is deleted and cleaned before anything
//! else changes. For tests of conditions in which a plausible rule would send too little.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use sendshot_engine::capture::recapture::Effort;
use sendshot_engine::diff::Version;
use sendshot_engine::{Extent, ExtentKind, Frozen, InodeItem, Sendshot, WireNumber, capture};

use crate::compare::chain::{self, Receivers};
use crate::disks::loopfs::{self, LoopFs, run};
use crate::disks::mount;
use crate::disks::streams;

/// A source with a volume, and two file systems that receive its streams.
#[derive(Debug)]
pub struct Snapshotless {
    source: LoopFs,
    receivers: Receivers,
    /// Sendshots, stored outside the file system as on removable media.
    files: tempfile::TempDir,
}

/// A captured snapshot and the contents of its files.
#[derive(Debug)]
pub struct State {
    /// The sendshot captured from the snapshot.
    pub sendshot: Sendshot,
    /// Path of the snapshot; deleted by [`Snapshotless::forget`].
    pub snapshot: PathBuf,
    /// Contents of the regular files in its root.
    contents: BTreeMap<String, Vec<u8>>,
    inodes: BTreeMap<String, (u64, InodeItem, Vec<Extent>)>,
}

impl Snapshotless {
    /// Makes a source of this size with an empty volume.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn new(size: u64, mount_options: &str) -> Self {
        let made = Self {
            source: LoopFs::new(size, &[], mount_options).unwrap(),
            receivers: Receivers::new().unwrap(),
            files: tempfile::tempdir().unwrap(),
        };
        streams::create(&made.volume()).unwrap();
        made
    }

    /// Mount point of the source.
    pub fn fs(&self) -> &Path {
        self.source.path()
    }

    /// Path of the volume.
    pub fn volume(&self) -> PathBuf {
        self.fs().join("volume")
    }

    /// Takes and captures a snapshot.
    ///
    /// # Panics
    /// If either fails.
    #[track_caller]
    pub fn take(&self, name: &str) -> State {
        self.capture(self.snapshot(name))
    }

    /// Takes a snapshot.
    ///
    /// # Panics
    /// If `btrfs` fails.
    #[track_caller]
    pub fn snapshot(&self, name: &str) -> PathBuf {
        let snapshot = self.fs().join(name);
        streams::snapshot(&self.volume(), &snapshot).unwrap();
        snapshot
    }

    /// Captures a snapshot.
    ///
    /// # Panics
    /// If the capture fails.
    #[track_caller]
    pub fn capture(&self, snapshot: PathBuf) -> State {
        let name = snapshot.file_name().unwrap().to_str().unwrap();
        let path = self.files.path().join(format!("{name}.sendshot"));
        let root = File::open(&snapshot).unwrap();
        capture(
            Frozen::snapshot(&root),
            WireNumber::Local,
            File::create(&path).unwrap(),
        )
        .unwrap();
        let sendshot = Sendshot::open(&path).unwrap();
        State {
            contents: contents(&snapshot),
            inodes: inodes(&sendshot),
            sendshot,
            snapshot,
        }
    }

    /// Sends a state, from another or in full; both copies must equal the snapshot. Returns the
    /// length of the stream.
    ///
    /// # Panics
    /// If they differ.
    #[track_caller]
    pub fn send(&self, parent: Option<&State>, state: &State) -> usize {
        self.try_send(parent, state).unwrap()
    }

    /// As [`send`](Self::send), but returns an error.
    ///
    /// # Errors
    /// If the stream cannot be made or received, or a copy differs.
    pub fn try_send(&self, parent: Option<&State>, state: &State) -> Result<usize> {
        let bytes = self.stream(parent, state)?;
        self.receivers.receive(&bytes, &state.snapshot)?;
        Ok(bytes.len())
    }

    /// Makes the stream of a state, from another or in full.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn stream(&self, parent: Option<&State>, state: &State) -> Result<Vec<u8>> {
        let parent = parent.map(|parent| parent.sendshot.path());
        let path = state.sendshot.path();
        chain::make_stream(parent, path, &state.snapshot, Version::V2)
    }

    /// Deletes the snapshot of a state and waits until the cleaner has finished with it, so that nothing
    /// pins its data.
    ///
    /// # Panics
    /// If `btrfs` fails.
    #[track_caller]
    pub fn forget(&self, state: &State) {
        self.delete(&state.snapshot);
    }

    /// Deletes a subvolume and waits for the cleaner.
    ///
    /// # Panics
    /// If `btrfs` fails.
    #[track_caller]
    pub fn delete(&self, subvolume: &Path) {
        btrfs(&["subvolume", "delete", "--commit-after"], &[subvolume]);
        self.commit();
        btrfs(&["subvolume", "sync"], &[self.fs()]);
    }

    /// Ends the running transaction and waits for the kernel's work on it.
    ///
    /// # Panics
    /// If `btrfs` fails.
    #[track_caller]
    pub fn commit(&self) {
        btrfs(&["filesystem", "sync"], &[self.fs()]);
    }

    /// Takes, captures and sends a state, and deletes its snapshot.
    ///
    /// # Panics
    /// If a step fails.
    #[track_caller]
    pub fn push(&self, parent: Option<&State>, name: &str) -> State {
        let state = self.take(name);
        self.send(parent, &state);
        self.forget(&state);
        state
    }

    /// Unmounts the file system and mounts it again: from then on the kernel reuses the inode numbers
    /// that were deleted last.
    ///
    /// # Panics
    /// If the file system stays busy.
    #[track_caller]
    pub fn remount(&self) {
        self.unmounted(|_| {});
    }

    /// Unmounts the file system, changes its image and mounts it again.
    ///
    /// # Panics
    /// If the file system stays busy.
    #[track_caller]
    pub fn change_image(&self, change: impl FnOnce(&Path)) {
        self.unmounted(change);
    }

    /// Captures a state again from the sendshot of an earlier one, which must give the same sendshot.
    ///
    /// # Panics
    /// If it does not, or if everything was read again.
    #[track_caller]
    pub fn recapture(&self, before: &State, state: &State) {
        let root = File::open(&state.snapshot).unwrap();
        let effort = chain::same_when_captured_from(&before.sendshot, &state.sendshot, &root);
        let effort = effort.unwrap();
        assert!(matches!(effort, Effort::Changes(_)), "{effort:?}");
    }

    /// Saves the content of the disk for [`restore`](Self::restore).
    ///
    /// # Panics
    /// If the image cannot be read.
    #[track_caller]
    pub fn image(&self) -> PathBuf {
        let old = self.files.path().join("image");
        self.unmounted(|image| {
            fs::copy(image, &old).unwrap();
        });
        old
    }

    /// Restores a saved content of the disk.
    ///
    /// # Panics
    /// If the image cannot be written.
    #[track_caller]
    pub fn restore(&self, old: &Path) {
        self.unmounted(|image| {
            fs::copy(old, image).unwrap();
        });
    }

    #[track_caller]
    fn unmounted(&self, work: impl FnOnce(&Path)) {
        let image = mount::image(self.fs());
        loopfs::unmount_free(self.fs()).unwrap();
        work(&image);
        mount::mount(&image, self.fs(), "loop");
    }
}

impl State {
    /// Returns a file's inode number, inode item and extents.
    ///
    /// # Panics
    /// If there is no such file.
    #[track_caller]
    pub fn file(&self, name: &str) -> &(u64, InodeItem, Vec<Extent>) {
        &self.inodes[name]
    }

    /// Returns the content of a file.
    ///
    /// # Panics
    /// If there is no such file.
    #[track_caller]
    pub fn content(&self, name: &str) -> &[u8] {
        &self.contents[name]
    }

    /// Lists the extents of a file that two states map alike (address, offset, length, generation of the
    /// item, compression) although its bytes differ there: changes that the naive rule would miss.
    #[track_caller]
    pub fn collisions(&self, later: &State, name: &str) -> Vec<(Extent, Extent)> {
        let (_, _, before) = self.file(name);
        let (_, _, after) = later.file(name);
        let mut found = Vec::new();
        for (m, n) in before
            .iter()
            .flat_map(|m| after.iter().map(move |n| (m, n)))
        {
            let start = m.offset.max(n.offset);
            let end = m.end().min(n.end());
            if start >= end || !mapped_alike(m, n) {
                continue;
            }
            let part = |state: &State| {
                let content = state.content(name);
                let at = |offset: u64| usize::try_from(offset).unwrap().min(content.len());
                content[at(start)..at(end)].to_vec()
            };
            if part(self) != part(later) {
                found.push((*m, *n));
            }
        }
        found
    }
}

/// The naive rule: equal mapping means equal data.
fn mapped_alike(m: &Extent, n: &Extent) -> bool {
    let key = |e: &Extent| {
        (
            e.disk_bytenr,
            e.disk_len,
            e.disk_offset.wrapping_sub(e.offset),
            e.generation,
            e.compression,
        )
    };
    m.kind == ExtentKind::Regular && n.kind == ExtentKind::Regular && key(m) == key(n)
}

/// Runs `btrfs`.
///
/// # Panics
/// If it fails.
#[track_caller]
pub fn btrfs(arguments: &[&str], paths: &[&Path]) {
    run(Command::new("btrfs").args(arguments).args(paths)).unwrap();
}

fn contents(snapshot: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(snapshot).unwrap().map(Result::unwrap);
    entries
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn inodes(sendshot: &Sendshot) -> BTreeMap<String, (u64, InodeItem, Vec<Extent>)> {
    let mut reader = sendshot.reader().unwrap();
    let mut found = BTreeMap::new();
    while let Some(inode) = reader.next_inode().unwrap() {
        let mut extents = Vec::new();
        while let Some(extent) = reader.next_extent().unwrap() {
            extents.push(extent);
        }
        for name in inode
            .names
            .iter()
            .filter(|name| name.parent == sendshot_engine::format::entry::ROOT)
        {
            let name = String::from_utf8(name.name.clone()).unwrap();
            found.insert(name, (inode.ino, inode.item.clone(), extents.clone()));
        }
    }
    found
}
