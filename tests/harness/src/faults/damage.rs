//! Damage to a disk below its file system.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::disks::mount;
use crate::hosts::command::tool;

/// Bytes of a data block.
const BLOCK: usize = 4096;
/// Bytes searched at a time.
const PIECE: usize = 1 << 20;

/// Damaged blocks of an image.
#[derive(Debug)]
pub struct Damage {
    image: PathBuf,
    /// Offset in the image and original bytes.
    blocks: Vec<(u64, Vec<u8>)>,
}

impl Damage {
    /// Overwrites the first block of a file with known content, in every place where the disk holds it.
    ///
    /// # Panics
    /// If the block is not found.
    #[track_caller]
    pub fn of(fs: &Path, file: &Path, content: &[u8]) -> Self {
        File::open(file).unwrap().sync_all().unwrap();
        let image = mount::image(fs);
        let disk = File::open(&image).unwrap();
        let first = &content[..BLOCK];
        let mut found = Vec::new();
        let mut piece = vec![0; PIECE];
        for at in (0..disk.metadata().unwrap().len()).step_by(PIECE) {
            disk.read_exact_at(&mut piece, at).unwrap();
            let blocks = piece.chunks_exact(BLOCK).zip((at..).step_by(BLOCK));
            found.extend(
                blocks
                    .filter(|(block, _)| *block == first)
                    .map(|(_, at)| at),
            );
        }
        assert!(!found.is_empty(), "{} is not on the disk", file.display());
        Self::at(image, &found, BLOCK)
    }

    /// Overwrites a tree node in all its mirrors in an unmounted image.
    ///
    /// # Panics
    /// If no node has this logical address.
    #[track_caller]
    pub fn of_node(image: &str, address: u64, len: usize) -> Self {
        let (address, bytes) = (address.to_string(), len.to_string());
        let places = tool("btrfs-map-logical", &["-l", &address, "-b", &bytes, image]);
        let places = places.lines().filter_map(|line| {
            let physical = line.split(" physical ").nth(1)?;
            physical.split(' ').next()?.parse().ok()
        });
        let places: Vec<u64> = places.collect();
        assert!(!places.is_empty(), "nothing is at {address}");
        Self::at(image.into(), &places, len)
    }

    fn at(image: PathBuf, places: &[u64], len: usize) -> Self {
        let disk = File::open(&image).unwrap();
        let read = |at: &u64| {
            let mut bytes = vec![0; len];
            disk.read_exact_at(&mut bytes, *at).unwrap();
            (*at, bytes)
        };
        let blocks = places.iter().map(read).collect();
        let damage = Self { image, blocks };
        damage.write(|bytes| vec![0x5a; bytes.len()]);
        damage
    }

    /// Restores the original bytes.
    ///
    /// # Panics
    /// If the write fails.
    pub fn restore(self) {
        self.write(<[u8]>::to_vec);
    }

    fn write(&self, what: impl Fn(&[u8]) -> Vec<u8>) {
        let disk = File::options().write(true).open(&self.image).unwrap();
        for (at, bytes) in &self.blocks {
            disk.write_all_at(&what(bytes), *at).unwrap();
        }
        disk.sync_all().unwrap();
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    }
}
