//! A file system for one test, on a loop device over an image in memory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// Directory of the images: in memory, so that no test waits for a disk.
const IMAGES: &str = "/dev/shm";

/// Attempts to unmount while the mount is still in use, a tenth of a second apart.
const UNMOUNT_ATTEMPTS: u32 = 30;

/// A mounted file system; unmounted and deleted on drop.
#[derive(Debug)]
pub struct LoopFs {
    mount: PathBuf,
    options: String,
    /// Holds the image and the mount point; removed after the unmount.
    dir: TempDir,
}

impl LoopFs {
    /// Makes a btrfs of `size` bytes in a sparse image and mounts it.
    ///
    /// # Errors
    /// If the caller is not root, or a tool is missing or fails.
    pub fn new(size: u64, mkfs_args: &[&str], mount_options: &str) -> Result<Self> {
        Self::made_by(
            Command::new("mkfs.btrfs").args(mkfs_args),
            size,
            mount_options,
        )
    }

    /// Makes a file system with a `mkfs` that takes `-q` and the image, and mounts it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn made_by(mkfs: &mut Command, size: u64, mount_options: &str) -> Result<Self> {
        Self::made_in(Path::new(IMAGES), mkfs, size, mount_options)
    }

    /// As [`made_by`](Self::made_by), with the image in a given directory: on a failing disk, for example.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn made_in(dir: &Path, mkfs: &mut Command, size: u64, mount_options: &str) -> Result<Self> {
        require_root()?;
        let dir = tempfile::Builder::new()
            .prefix("sendshot-test-")
            .tempdir_in(dir)?;
        let image = dir.path().join("image");
        std::fs::File::create(&image)?.set_len(size)?;
        run(mkfs.arg("-q").arg(&image))?;
        let mount = dir.path().join("mnt");
        std::fs::create_dir(&mount)?;
        mount_loop(&image, &mount, mount_options)?;
        let options = mount_options.to_owned();
        Ok(Self {
            mount,
            options,
            dir,
        })
    }

    /// Path of the mount point.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Unmounts it and mounts it again with the same options.
    ///
    /// # Errors
    /// If the mount is in use, or mounting fails.
    pub fn remount(&self) -> Result<()> {
        unmount_free(&self.mount)?;
        mount_loop(&self.dir.path().join("image"), &self.mount, &self.options)
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        unmount(&self.mount);
    }
}

/// Unmounts what no file is open on any more. A program that another test is just starting has copies of this process's open
/// files for a moment, until it is executed: the mount is busy as long.
///
/// # Errors
/// If the mount stays in use, or cannot be unmounted.
pub fn unmount_free(mount: &Path) -> Result<()> {
    for _ in 1..UNMOUNT_ATTEMPTS {
        if run(Command::new("umount").arg(mount)).is_ok() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    run(Command::new("umount").arg(mount))
}

/// Unmounts; detaches the mount if it stays in use.
pub(crate) fn unmount(mount: &Path) {
    for _ in 0..UNMOUNT_ATTEMPTS {
        if run(Command::new("umount").arg(mount)).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    eprintln!("{} is still in use; detaching it", mount.display());
    if let Err(e) = run(Command::new("umount").arg("--lazy").arg(mount)) {
        eprintln!("{e:#}");
    }
}

/// Mounts with a loop device that the kernel frees at the unmount.
fn mount_loop(image: &Path, mount: &Path, options: &str) -> Result<()> {
    let options = match options {
        "" => "loop".to_owned(),
        more => format!("loop,{more}"),
    };
    run(Command::new("mount")
        .arg("-o")
        .arg(options)
        .arg(image)
        .arg(mount))
}

/// Fails with the reason why a test cannot run, instead of skipping the test.
///
/// # Errors
/// If the process is not root.
pub fn require_root() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "this test mounts file systems and needs root"
    );
    Ok(())
}

/// Runs a command and waits for it.
///
/// # Errors
/// If it cannot be started or fails, with its standard error.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs a command, waits for it, and returns its standard output.
///
/// # Errors
/// If it cannot be started or fails, with its standard error.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command
        .output()
        .with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed ({}): {}", output.status, errors.trim());
    }
    Ok(output.stdout)
}
