//! The data that is replicated, and how it changes.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use sendshot_bench::trees;
use sendshot_harness::disks::loopfs::run;

/// One file in this many is changed.
const CHANGED: usize = 100;
/// Empty files.
const EMPTY: usize = 300_000;
/// Length of the image of a virtual machine, and of what is written to it.
const IMAGE: u64 = 8 << 30;
const IMAGE_DATA: u64 = 1 << 30;
const SCATTERED: u64 = 2000;

/// What a volume has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Real files.
    Tree,
    /// One file of so many random bytes.
    Random(u64),
    /// Empty files in directories of a thousand.
    Empty,
    /// A sparse image.
    Image,
    /// So many small files in directories of a thousand.
    Small(usize),
}

/// How it changes between two pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Nothing,
    /// One file in a hundred gets some bytes, spread evenly.
    Spread,
    /// As many files get some bytes, all in the same directories.
    Clustered,
    /// Pages all over the image are written.
    Scattered,
}

/// Fills a volume.
pub fn fill(volume: &Path, content: Content) -> Result<()> {
    match content {
        Content::Tree => drop(trees::copy_real(volume)?),
        Content::Random(bytes) => random(&volume.join("random"), bytes)?,
        Content::Empty => many(volume, EMPTY, b"")?,
        Content::Small(count) => many(
            volume,
            count,
            b"some bytes that are stored beside the inode",
        )?,
        Content::Image => {
            let path = volume.join("image");
            let file = File::create(&path)?;
            file.set_len(IMAGE)?;
            let mut source = File::open("/dev/urandom")?;
            let mut piece = vec![0; 1 << 20];
            for n in 0..IMAGE_DATA >> 20 {
                source.read_exact(&mut piece)?;
                file.write_all_at(&piece, n * (IMAGE / (IMAGE_DATA >> 20)))?;
            }
        }
    }
    run(&mut Command::new("sync"))
}

/// Changes a volume; `round` makes each change another one.
pub fn change(volume: &Path, change: Change, round: u64) -> Result<()> {
    match change {
        Change::Nothing => return Ok(()),
        Change::Spread => {
            for file in sorted(volume)?.iter().step_by(CHANGED) {
                OpenOptions::new()
                    .append(true)
                    .open(file)?
                    .write_all(b"changed")?;
            }
        }
        Change::Clustered => {
            let all = sorted(volume)?;
            for file in all.iter().take(all.len() / CHANGED) {
                OpenOptions::new()
                    .append(true)
                    .open(file)?
                    .write_all(b"changed")?;
            }
        }
        Change::Scattered => {
            let mut file = OpenOptions::new().write(true).open(volume.join("image"))?;
            let mut page = [0; 4096];
            File::open("/dev/urandom")?.read_exact(&mut page)?;
            for n in 0..SCATTERED {
                let at = (n.wrapping_mul(2_654_435_761).wrapping_add(round * 97)) % (IMAGE / 4096);
                file.seek(SeekFrom::Start(at * 4096))?;
                file.write_all(&page)?;
            }
        }
    }
    Ok(())
}

fn random(path: &Path, bytes: u64) -> Result<()> {
    let mut source = File::open("/dev/urandom")?.take(bytes);
    std::io::copy(&mut source, &mut File::create(path)?)?;
    Ok(())
}

fn many(volume: &Path, count: usize, content: &[u8]) -> Result<()> {
    for n in 0..count {
        let dir = volume.join(format!("{:04}", n / 1000));
        if n.is_multiple_of(1000) {
            fs::create_dir(&dir)?;
        }
        let mut file = File::create(dir.join(format!("{n:07}")))?;
        if !content.is_empty() {
            file.write_all(content)?;
        }
    }
    Ok(())
}

fn sorted(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = trees::files(dir)?;
    files.sort();
    Ok(files)
}
