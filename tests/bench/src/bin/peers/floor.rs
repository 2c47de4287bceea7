//! The least that two threads need to copy a volume: each file is made in its place, filled and given its times by as few calls
//! as possible. Nothing is hashed, encrypted or sent, and no snapshot is taken, so that a push needs more than this. The loads
//! have neither attributes nor holes to keep.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, anyhow};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use sendshot_harness::disks::loopfs::run;
use sendshot_harness::disks::streams;

use crate::peers::Disks;

/// As many as the machine has cores, and the receiver has workers.
const THREADS: usize = 2;
const PIECE: usize = 1 << 20;
const OPEN: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// Copies the volume to a new subvolume `name` of the other file system, and syncs that.
pub fn copy(disks: &Disks, name: &str) -> Result<()> {
    let (from, to) = (disks.volume(), disks.to.path().join(name));
    streams::create(&to)?;
    let mut dirs = vec![PathBuf::new()];
    find_dirs(&from, Path::new(""), &mut dirs)?;
    let umask = rustix::process::umask(Mode::empty());
    for dir in &dirs[1..] {
        fs::create_dir(to.join(dir))?;
    }
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        let mut piece = vec![0; PIECE];
        while let Some(dir) = dirs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let dirs = (open_dir(&from.join(dir))?, open_dir(&to.join(dir))?);
            copy_files(&dirs.0, &dirs.1, &mut piece)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let mut ended = workers.into_iter().map(thread::ScopedJoinHandle::join);
        ended.try_for_each(|worker| worker.map_err(|_| anyhow!("a worker panicked"))?)
    })?;
    for dir in dirs.iter().rev() {
        let stat = rustix::fs::stat(from.join(dir))?;
        let made = open_dir(&to.join(dir))?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(stat.st_mode))?;
        rustix::fs::futimens(&made, &times(&stat))?;
    }
    rustix::process::umask(umask);
    run(Command::new("btrfs")
        .args(["filesystem", "sync"])
        .arg(disks.to.path()))
}

/// Adds the directories below `dir`, each before what is in it.
fn find_dirs(root: &Path, dir: &Path, dirs: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(root.join(dir))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let path = dir.join(entry.file_name());
            dirs.push(path.clone());
            find_dirs(root, &path, dirs)?;
        }
    }
    Ok(())
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OPEN | OFlags::DIRECTORY;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

fn copy_files(from: &OwnedFd, to: &OwnedFd, piece: &mut [u8]) -> Result<()> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == FileType::Directory {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        let is_foreign = !owner.0.is_root() || !owner.1.is_root();
        if entry.file_type() == FileType::Symlink {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target.as_c_str(), to, name)?;
            rustix::fs::utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?;
            continue;
        }
        let flags = OPEN | OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        let made = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(stat.st_mode))?;
        if stat.st_size > 0 {
            let source = rustix::fs::openat(from, name, OPEN | OFlags::RDONLY, Mode::empty())?;
            copy_data(&source, &made, piece)?;
        }
        if is_foreign {
            rustix::fs::fchown(&made, Some(owner.0), Some(owner.1))?;
        }
        rustix::fs::futimens(&made, &times(&stat))?;
    }
    Ok(())
}

fn copy_data(from: impl AsFd, to: impl AsFd, piece: &mut [u8]) -> Result<()> {
    loop {
        let len = rustix::io::read(&from, &mut *piece)?;
        if len == 0 {
            return Ok(());
        }
        let mut rest = &piece[..len];
        while !rest.is_empty() {
            let written = rustix::io::write(&to, rest)?;
            rest = &rest[written..];
        }
    }
}

fn times(stat: &Stat) -> Timestamps {
    let time = |tv_sec, tv_nsec: u64| Timespec {
        tv_sec,
        tv_nsec: tv_nsec.cast_signed(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
