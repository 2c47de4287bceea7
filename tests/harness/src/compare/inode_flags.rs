//! Compares the inode flags of two directory trees. Independent of the project's code, so that it does not
//! share its mistakes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{IFlags, OFlags};
use rustix::io::Errno;

/// Flags that a user can set, and how `lsattr` shows them.
const SETTABLE: [(u32, char); 9] = [
    (0x8, 'S'),
    (0x10, 'i'),
    (0x20, 'a'),
    (0x40, 'd'),
    (0x80, 'A'),
    (0x4, COMPRESS),
    (0x400, 'm'),
    (0x1_0000, 'D'),
    (0x80_0000, 'C'),
];

/// The flag that goes with the property for compression.
const COMPRESS: char = 'c';

/// Compares the flags of all files and directories below two directories, themselves included, that are
/// in the first. Returns what differs, one line each.
///
/// Two things are as they are to be although they differ: a copy's root is never immutable or append-only,
/// and the flag for compression without its property is not in the copy.
///
/// # Errors
/// If a tree cannot be read, or the second lacks something of the first.
pub fn compare(a: &Path, b: &Path) -> Result<Vec<String>> {
    compare_but(a, b, &[])
}

/// The same without some flags, as `lsattr` shows them: those that the second file system cannot keep.
///
/// # Errors
/// As [`compare`].
pub fn compare_but(a: &Path, b: &Path, left_out: &[char]) -> Result<Vec<String>> {
    let mut comparison = Comparison {
        left_out,
        differences: Vec::new(),
    };
    let root = of(a)?.replace(['i', 'a'], "");
    comparison.one(Path::new("."), &root, &of(b)?);
    comparison.below(a, b, Path::new(""))?;
    Ok(comparison.differences)
}

/// The flags of a file or directory, as `lsattr` shows them, but that for compression only beside its
/// property.
///
/// # Errors
/// The kernel's.
pub fn of(path: &Path) -> Result<String> {
    let flags = all(path)?;
    let mut property = [0; 64];
    match rustix::fs::lgetxattr(path, "btrfs.compression", &mut property[..]) {
        Ok(_) => Ok(flags),
        Err(Errno::NODATA) => Ok(flags.replace(COMPRESS, "")),
        Err(e) => Err(io::Error::from(e)).with_context(|| path.display().to_string()),
    }
}

/// The flags of a file or directory, as `lsattr` shows them.
///
/// # Errors
/// The kernel's.
pub fn all(path: &Path) -> Result<String> {
    let careful = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOATIME;
    let mut options = OpenOptions::new();
    let options = options
        .read(true)
        .custom_flags(careful.bits().cast_signed());
    let file: File = options
        .open(path)
        .with_context(|| path.display().to_string())?;
    let flags: IFlags = rustix::fs::ioctl_getflags(file)?;
    let set = SETTABLE.iter().filter(|(bit, _)| flags.bits() & bit != 0);
    Ok(set.map(|(_, shown)| shown).collect())
}

struct Comparison<'a> {
    left_out: &'a [char],
    differences: Vec<String>,
}

impl Comparison<'_> {
    fn one(&mut self, path: &Path, a: &str, b: &str) {
        if a.replace(self.left_out, "") != b.replace(self.left_out, "") {
            let path = path.display();
            self.differences
                .push(format!("{path}: flags: `{a}` / `{b}`"));
        }
    }

    fn below(&mut self, a: &Path, b: &Path, dir: &Path) -> Result<()> {
        for entry in fs::read_dir(a.join(dir))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let path = dir.join(entry.file_name());
            if kind.is_dir() || kind.is_file() {
                let flags = [of(&a.join(&path))?, of(&b.join(&path))?];
                self.one(&path, &flags[0], &flags[1]);
            }
            if kind.is_dir() {
                self.below(a, b, &path)?;
            }
        }
        Ok(())
    }
}
