//! The volume that is pushed, and its changes.

use std::fs;
use std::path::Path;

use sendshot_harness::trees::changes;
use sendshot_harness::trees::fill;
use sendshot_harness::trees::random::Random;

/// Number of large files, one of which is often rewritten.
const LARGE: u64 = 4;
/// Size of the largest of them, in bytes: a few segments of a stream.
const LARGEST: u64 = 3 << 20;

/// Fills a new volume.
pub(super) fn fill(random: &mut Random, volume: &Path) {
    for number in 0..LARGE {
        large(random, volume, number);
    }
    for _ in 0..100 {
        changes::change(random, volume);
    }
}

/// Changes the volume. Returns about how many bytes were written.
pub(super) fn change(random: &mut Random, volume: &Path) -> u64 {
    for _ in 0..random.below(12) {
        changes::change(random, volume);
    }
    let number = random.below(LARGE);
    match random.below(4) {
        0 => 0,
        1 => {
            // A small change, so that there is something to send.
            fs::write(volume.join("note"), random.bytes(3000)).unwrap();
            3000
        }
        _ => large(random, volume, number),
    }
}

fn large(random: &mut Random, volume: &Path, number: u64) -> u64 {
    let len = 50_000 + random.below(LARGEST - 50_000);
    let path = volume.join(format!("large{number}"));
    fill::file(path, random.number(), len as usize);
    len
}
