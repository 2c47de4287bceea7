//! A file system whose power can be cut: the disk then holds what it had taken at one instant.
//!
//! The image lies on an outer file system that can share extents (XFS in memory), and its loop
//! device bypasses the page cache: the image holds what a disk would hold that has taken all
//! writes in order. Sharing the image's extents with a copy waits for the writes in flight and
//! admits no others, so that the copy is the disk at one instant.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::disks::loopfs::{LoopFs, output, run, unmount};

/// 512 MiB: the XFS tools make none smaller than 300 MiB by default.
const OUTER_LEAST: u64 = 512 << 20;

/// Longest time that a just killed process may keep the file system in use. A process that this one
/// starts at the same time also holds all descriptors for a moment.
const DETACH_TIMEOUT: Duration = Duration::from_secs(10);

/// A mounted btrfs; unmounted and deleted on drop.
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

    /// Path of the mount point.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    fn image(&self) -> PathBuf {
        self.outer.path().join("image")
    }

    /// Mounts the image. Its loop device is freed at the unmount.
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
    /// Steps: 1. the current disk is set aside while everything runs; 2. `stop` ends what uses the
    /// file system; 3. it is unmounted, and everything written since step 1 is lost with its image;
    /// 4. the disk set aside is mounted in its place. By then the kernel must have forgotten the old
    /// one: both have the same file system UUID.
    ///
    /// # Errors
    /// If the file system stays in use.
    pub fn cut(&self, stop: impl FnOnce()) -> Result<()> {
        let aside = self.outer.path().join("aside");
        let copy = File::create(&aside)?;
        rustix::fs::ioctl_ficlone(&copy, File::open(self.image())?).context("share the image")?; // 1
        drop(copy);
        stop(); // 2
        self.unmount_and_detach()?; // 3
        fs::rename(&aside, self.image())?;
        self.switch_on() // 4
    }

    fn unmount_and_detach(&self) -> Result<()> {
        let end = Instant::now() + DETACH_TIMEOUT;
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

/// The disk of a host.
#[derive(Debug)]
pub(crate) enum Disk {
    /// A disk without power cuts.
    Plain(LoopFs),
    /// A disk whose power can be cut.
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

    /// Directory of the host's state: on the disk if the state is to suffer the same power cuts.
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

    /// Makes everything written so far survive a power cut.
    pub(crate) fn sync(&self) {
        rustix::fs::syncfs(File::open(self.path()).unwrap()).unwrap();
    }
}
