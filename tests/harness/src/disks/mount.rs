//! Further mounts of a test's file system.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::disks::loopfs;
use crate::hosts::command::tool;

/// A mount, undone when this is dropped.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    /// Holds the mount point, if it is not somebody else's.
    _dir: Option<TempDir>,
}

impl Mount {
    /// Mounts a device or a directory somewhere private.
    ///
    /// # Panics
    /// If that fails.
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

    /// Mounts a device or a directory on a directory.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn at(what: &Path, path: &Path, options: &str) -> Self {
        mount(what, path, options);
        Self {
            path: path.to_owned(),
            _dir: None,
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mount {
    /// What is still mounted would be removed with the mount point: a process that another test is just starting
    /// can keep it busy for a moment.
    fn drop(&mut self) {
        loopfs::unmount(&self.path);
    }
}

/// Mounts, for somebody else to unmount.
///
/// # Panics
/// If that fails.
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

/// The loop devices of the image of a file system mounted at `fs`; none if nothing uses it.
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

/// The image of a file system mounted at `fs`.
pub fn image(fs: &Path) -> PathBuf {
    fs.with_file_name("image")
}
