//! Additional mounts of a test's file system.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::disks::loopfs;
use crate::hosts::command::tool;

/// A mount; unmounted on drop.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    /// Holds the mount point if this mount made it.
    _dir: Option<TempDir>,
}

impl Mount {
    /// Mounts a device or a directory on a new private directory.
    ///
    /// # Panics
    /// If mounting fails.
    #[track_caller]
    pub fn private(what: &Path, options: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("sendshot-mount-")
            .tempdir_in("/dev/shm")
            .unwrap();
        let path = dir.path().join("mnt");
        fs::create_dir(&path).unwrap();
        let mut mount = Self::at(what, &path, options);
        mount._dir = Some(dir);
        mount
    }

    /// Mounts an empty file system in memory, `tmpfs` or `ramfs`, on a new private directory,
    /// with `noatime`.
    ///
    /// # Panics
    /// If mounting fails.
    #[track_caller]
    pub fn of_kind(kind: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("sendshot-mount-")
            .tempdir_in("/dev/shm")
            .unwrap();
        let path = dir.path().join("mnt");
        fs::create_dir(&path).unwrap();
        let arguments = [
            "-o".as_ref(),
            "noatime".as_ref(),
            "-t".as_ref(),
            kind.as_ref(),
            "none".as_ref(),
            path.as_os_str(),
        ];
        tool("mount", &arguments);
        Self {
            path,
            _dir: Some(dir),
        }
    }

    /// Mounts a device or a directory on an existing directory.
    ///
    /// # Panics
    /// If mounting fails.
    #[track_caller]
    pub fn at(what: &Path, path: &Path, options: &str) -> Self {
        mount(what, path, options);
        Self {
            path: path.to_owned(),
            _dir: None,
        }
    }

    /// Path of the mount point.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mount {
    /// Retries the unmount, because removing the mount point would delete what is still mounted there: a
    /// process that another test is just starting can keep the mount busy for a moment.
    fn drop(&mut self) {
        loopfs::unmount(&self.path);
    }
}

/// Mounts and leaves the unmount to the caller.
///
/// # Panics
/// If mounting fails.
#[track_caller]
pub fn mount(what: &Path, path: &Path, options: &str) {
    let arguments = [
        "-o".as_ref(),
        options.as_ref(),
        what.as_os_str(),
        path.as_os_str(),
    ];
    tool("mount", &arguments);
}

/// Lists the loop devices of the image of the file system mounted at `fs`; none if the image is unused.
///
/// # Panics
/// If `losetup` fails.
#[track_caller]
pub fn devices(fs: &Path) -> Vec<PathBuf> {
    let image = image(fs);
    let arguments = ["--noheadings", "--output", "NAME", "--associated"];
    let mut arguments = arguments.map(AsRef::as_ref).to_vec();
    arguments.push(image.as_os_str());
    tool("losetup", &arguments)
        .lines()
        .map(|name| PathBuf::from(name.trim()))
        .collect()
}

/// Path of the image of the file system mounted at `fs`.
pub fn image(fs: &Path) -> PathBuf {
    fs.with_file_name("image")
}
