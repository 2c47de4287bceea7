//! A file system whose power can be cut: from one instant on, the disk holds what it had taken.
//!
//! The image lies on an outer file system that can share extents (XFS in memory), and its loop
//! device writes past the page cache: what is in the image is what a disk would hold that has
//! taken everything in order. Sharing the image's extents with a copy waits for the writes under
//! way and takes no others, so that the copy is the disk at one instant.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::disks::loopfs::{LoopFs, output, run, unmount};

/// The smallest XFS that its tools make by themselves is 300 MiB.
const OUTER_LEAST: u64 = 512 << 20;

/// How long a file system may be in use by what has just been killed. A process that this one
/// starts at the same time holds all descriptors for a moment, too.
const LETTING_GO: Duration = Duration::from_secs(10);

/// A mounted btrfs, unmounted and gone when this is dropped.
#[derive(Debug)]
pub struct PowerFs {
    mount: PathBuf,
    options: String,
    /// Holds the image and the mount point.
    outer: LoopFs,
}

impl PowerFs {
    /// Makes a btrfs of `size` bytes and mounts it.
    ///
    /// # Errors
    /// If the caller is not root, or a tool is missing or fails.
    pub fn new(size: u64, options: &str) -> Result<Self> {
        let outer_size = (4 * size).max(OUTER_LEAST);
        let outer = LoopFs::made_by(&mut Command::new("mkfs.xfs"), outer_size, "")?;
        let power = Self {
            mount: outer.path().join("mnt"),
            options: options.to_owned(),
            outer,
        };
        File::create(power.image())?.set_len(size)?;
        run(Command::new("mkfs.btrfs").arg("-q").arg(power.image()))?;
        fs::create_dir(&power.mount)?;
        power.switch_on()?;
        Ok(power)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    fn image(&self) -> PathBuf {
        self.outer.path().join("image")
    }

    /// Mounts the image. Its loop device goes with the mount.
    fn switch_on(&self) -> Result<()> {
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show", "--direct-io=on"]);
        let device = String::from_utf8(output(losetup.arg(self.image()))?)?;
        let device = device.trim();
        let mut mount = Command::new("mount");
        if !self.options.is_empty() {
            mount.arg("-o").arg(&self.options);
        }
        let mounted = run(mount.arg(device).arg(&self.mount));
        run(Command::new("losetup").arg("--detach").arg(device))?;
        mounted
    }

    /// Cuts the power, and switches it on again.
    ///
    /// Steps: 1. the disk as it is now is set aside, while everything runs; 2. `stop` ends
    /// what uses the file system; 3. it is unmounted, and with its image all is lost that came
    /// later; 4. what was set aside is mounted in its place. The kernel must not know the old one
    /// any more by then: both have one id.
    ///
    /// # Errors
    /// If something keeps using it.
    pub fn cut(&self, stop: impl FnOnce()) -> Result<()> {
        let aside = self.outer.path().join("aside");
        let copy = File::create(&aside)?;
        rustix::fs::ioctl_ficlone(&copy, File::open(self.image())?).context("share the image")?; // 1
        drop(copy);
        stop(); // 2
        self.let_go()?; // 3
        fs::rename(&aside, self.image())?;
        self.switch_on() // 4
    }

    fn let_go(&self) -> Result<()> {
        let end = Instant::now() + LETTING_GO;
        loop {
            let Err(error) = run(Command::new("umount").arg(&self.mount)) else {
                break;
            };
            if Instant::now() > end {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        while !output(Command::new("losetup").arg("-j").arg(self.image()))?.is_empty() {
            if Instant::now() > end {
                bail!("a loop device keeps {}", self.image().display());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for PowerFs {
    fn drop(&mut self) {
        unmount(&self.mount);
    }
}

/// What a host has for a disk.
#[derive(Debug)]
pub(crate) enum Disk {
    /// One whose power nobody cuts.
    Plain(LoopFs),
    /// One whose power can be cut.
    Power(PowerFs),
}

impl Disk {
    pub(crate) fn new(size: u64, options: &str, power: bool) -> Result<Self> {
        match power {
            true => PowerFs::new(size, options).map(Self::Power),
            false => LoopFs::new(size, &[], options).map(Self::Plain),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Plain(fs) => fs.path(),
            Self::Power(fs) => fs.path(),
        }
    }

    /// Where its host keeps its state: on the disk, if that is to suffer what the disk does.
    pub(crate) fn home(&self, dir: &Path) -> PathBuf {
        match self {
            Self::Plain(_) => dir.to_owned(),
            Self::Power(fs) => fs.path().join("host"),
        }
    }

    /// Cuts its power; see [`PowerFs::cut`].
    #[track_caller]
    pub(crate) fn cut(&self, stop: impl FnOnce()) {
        match self {
            Self::Plain(_) => panic!("this host was not made for power cuts"),
            Self::Power(fs) => fs.cut(stop).unwrap(),
        }
    }

    /// Unmounts it and mounts it again.
    #[track_caller]
    pub(crate) fn replug(&self) {
        match self {
            Self::Plain(fs) => fs.remount().unwrap(),
            Self::Power(_) => panic!("this host is for power cuts"),
        }
    }

    /// Sees to it that what was written is there after a power cut.
    pub(crate) fn sync(&self) {
        rustix::fs::syncfs(File::open(self.path()).unwrap()).unwrap();
    }
}
