//! Compares the inode flags of two directory trees. Uses none of the project's code, so as not to share
//! its mistakes.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{IFlags, OFlags};
use rustix::io::Errno;

/// Flags that a user can set, and their letters in `lsattr`.
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

/// Letter of the flag that accompanies the compression property.
const COMPRESS: char = 'c';

/// Compares the flags of all files and directories of the first tree, its root included, with those of the
/// second. Returns the differences, one line each.
///
/// Two differences are intended and not reported: a copy's root is never immutable or append-only, and a
/// compression flag without its property is not copied.
///
/// # Errors
/// If a tree cannot be read, or the second lacks an entry of the first.
pub fn compare(a: &Path, b: &Path) -> Result<Vec<String>> {
    compare_but(a, b, &[])
}

/// As [`compare`], ignoring the given flags (`lsattr` letters), which the second file system cannot keep.
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

/// Returns the flags of a file or directory as `lsattr` letters, the compression flag only if its property is
/// set too.
///
/// # Errors
/// I/O errors.
pub fn of(path: &Path) -> Result<String> {
    let flags = all(path)?;
    let mut property = [0; 64];
    match rustix::fs::lgetxattr(path, "btrfs.compression", &mut property[..]) {
        Ok(_) => Ok(flags),
        Err(Errno::NODATA) => Ok(flags.replace(COMPRESS, "")),
        Err(e) => Err(io::Error::from(e)).with_context(|| path.display().to_string()),
    }
}

/// Returns all flags of a file or directory as `lsattr` letters.
///
/// # Errors
/// I/O errors.
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
