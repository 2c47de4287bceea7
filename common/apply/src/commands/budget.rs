//! Counts what commands allocate beyond their bytes in a stream. Counting only those bytes would let a few
//! short commands exceed any limit: allocate a range, clone one, write a byte into a block.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sendshot_stream::Command;

use crate::error::Cause;

/// Smallest allocation for data, in bytes: the btrfs sector size of most systems.
const BLOCK: u64 = 4096;

/// Bytes of a clone that cost one byte of metadata: an extent of one block takes at most some 80 bytes in the
/// file's tree and in the extent tree together.
const CLONED_A_BYTE: u64 = 50;

/// Mode of `fallocate` that frees space: FALLOC_FL_PUNCH_HOLE of linux/falloc.h.
const PUNCH_HOLE: u32 = 2;

/// Allocated bytes, and their limit.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    /// Shared by all clones.
    made: Arc<AtomicU64>,
    most: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            made: Arc::default(),
            most: u64::MAX,
        }
    }
}

impl Budget {
    pub(crate) fn new(made: u64, most: u64) -> Self {
        let made = Arc::new(AtomicU64::new(made));
        Self { made, most }
    }

    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Counts bytes that are about to be allocated.
    pub(crate) fn charge(&mut self, bytes: u64) -> Result<(), Cause> {
        let add = |made: u64| Some(made.saturating_add(bytes));
        let added = self
            .made
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        let (Ok(before) | Err(before)) = added;
        match before.saturating_add(bytes) > self.most {
            true => Err(Cause::TooMuch { most: self.most }),
            false => Ok(()),
        }
    }
}

/// Returns the bytes that a command allocates beyond its bytes in the stream, as far as its fields show.
pub(crate) fn beyond(command: &Command<'_>) -> u64 {
    match *command {
        Command::Write { data, .. } | Command::EncodedWrite { data, .. } => {
            let len = data.len() as u64;
            len.next_multiple_of(BLOCK) - len
        }
        Command::Fallocate { mode, len, .. } if mode & PUNCH_HOLE == 0 => len,
        Command::Clone { len, .. } => len / CLONED_A_BYTE,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_cost_their_length() {
        let fallocate = |mode| Command::Fallocate {
            path: b"f",
            mode,
            offset: 0,
            len: 1 << 40,
        };
        assert_eq!(beyond(&fallocate(0)), 1 << 40);
        assert_eq!(beyond(&fallocate(0x10)), 1 << 40);
        assert_eq!(beyond(&fallocate(3)), 0);
        let write = |data| Command::Write {
            path: b"f",
            offset: 0,
            data,
        };
        assert_eq!(beyond(&write(&[0; 1])), 4095);
        assert_eq!(beyond(&write(&[0; 8192])), 0);
        assert_eq!(beyond(&Command::Unlink { path: b"f" }), 0);
    }

    #[test]
    fn a_budget_ends() {
        let mut budget = Budget::new(0, 10);
        assert!(budget.charge(10).is_ok());
        assert!(matches!(budget.charge(1), Err(Cause::TooMuch { most: 10 })));
        assert!(budget.charge(u64::MAX).is_err());
        assert!(Budget::default().charge(u64::MAX).is_ok());
    }
}
