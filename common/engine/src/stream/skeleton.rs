//! The skeleton of a stream is the stream without its data: enough to prove, without reading any data, that a
//! regenerated stream is the same one.
//!
//! The snapshot is read-only, so its data is unchanged. What can differ is the result of the diff of two
//! sendshots (another version of this program, hashes of blocks that were not known before), and the form in
//! which an extent is read (a dedupe on the read-only snapshot can have rewritten it). Both change a command,
//! its position or its length, and with that the skeleton.

use std::fmt;

/// Tags of the contributions of a command's bytes, of a write and of an encoded write.
const COMMAND: u8 = 1;
const WRITE: u8 = 2;
const ENCODED: u8 = 3;

/// Hash of all commands up to a position, without their data.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct SkeletonHash(pub [u8; 32]);

impl fmt::Debug for SkeletonHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", blake3::Hash::from_bytes(self.0))
    }
}

/// A position between two commands of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamPosition {
    /// Bytes of the stream before it.
    pub offset: u64,
    /// Hash of the commands before it.
    pub skeleton: SkeletonHash,
}

/// The hash while commands are added.
#[derive(Debug, Default)]
pub(crate) struct Skeleton(blake3::Hasher);

impl Skeleton {
    /// Adds an encoded command without data.
    pub(crate) fn command(&mut self, bytes: &[u8]) {
        self.0.update(&[COMMAND]).update(bytes);
    }

    /// Adds a write of `len` bytes.
    pub(crate) fn write(&mut self, path: &[u8], offset: u64, len: u64) {
        self.data(WRITE, path, offset, len);
    }

    /// Adds an encoded write whose data takes `len` bytes in the stream.
    pub(crate) fn encoded(&mut self, path: &[u8], offset: u64, len: u64) {
        self.data(ENCODED, path, offset, len);
    }

    fn data(&mut self, kind: u8, path: &[u8], offset: u64, len: u64) {
        let mut head = [0; 25];
        head[0] = kind;
        head[1..9].copy_from_slice(&(path.len() as u64).to_le_bytes());
        head[9..17].copy_from_slice(&offset.to_le_bytes());
        head[17..].copy_from_slice(&len.to_le_bytes());
        self.0.update(&head).update(path);
    }

    pub(crate) fn value(&self) -> SkeletonHash {
        SkeletonHash(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_write_counts() {
        let of = |kind: u8, path: &[u8], offset, len| {
            let mut skeleton = Skeleton::default();
            skeleton.data(kind, path, offset, len);
            skeleton.value()
        };
        let all = [
            of(WRITE, b"a", 0, 1),
            of(ENCODED, b"a", 0, 1),
            of(WRITE, b"b", 0, 1),
            of(WRITE, b"a", 1, 1),
            of(WRITE, b"a", 0, 2),
            of(WRITE, b"", 0, 1),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|other| other != one));
        }
    }
}
