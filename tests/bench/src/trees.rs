//! Real files for measurements.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use sendshot_harness::disks::loopfs::run;

/// Directories to copy files from, until there are enough.
const SOURCES: [&str; 5] = [
    "/usr/share",
    "/usr/lib/python3",
    "/usr/lib/python3.11",
    "/usr/include",
    "/usr/lib",
];
/// Least number of files in the tree.
const FILES: usize = 50_000;

/// Copies real files into a volume until there are 50,000; returns all of them.
///
/// # Errors
/// If this host has fewer, or they cannot be copied.
pub fn copy_real(volume: &Path) -> Result<Vec<PathBuf>> {
    for (number, source) in SOURCES.iter().enumerate() {
        if !Path::new(source).exists() {
            continue;
        }
        let target = volume.join(number.to_string());
        run(Command::new("cp").args(["-a", source]).arg(target))?;
        let files = files(volume)?;
        if files.len() >= FILES {
            run(&mut Command::new("sync"))?;
            return Ok(files);
        }
    }
    bail!("this host has fewer than {FILES} files in {SOURCES:?}")
}

/// All regular files below a directory.
///
/// # Errors
/// I/O errors.
pub fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    list(dir, &mut files)?;
    Ok(files)
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}
