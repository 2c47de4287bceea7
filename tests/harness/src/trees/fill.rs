//! Content for volumes.

use std::fs;
use std::path::Path;

/// Returns incompressible bytes, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Writes a file of noise.
///
/// # Panics
/// If it cannot be written.
#[track_caller]
pub fn file(path: impl AsRef<Path>, seed: u64, len: usize) {
    fs::write(path, noise(seed, len)).unwrap();
}

/// Writes directories with a few files each.
///
/// # Panics
/// If they cannot be written.
#[track_caller]
pub fn tree(dir: &Path, seed: u64) {
    for d in 0..5 {
        let sub = dir.join(format!("dir{d}/below"));
        fs::create_dir_all(&sub).unwrap();
        for f in 0..10 {
            let len = [0, 1, 100, 4096, 5000, 200_000][(d + f) % 6];
            file(
                sub.join(format!("file{f}")),
                seed + (d * 10 + f) as u64,
                len,
            );
        }
    }
}
