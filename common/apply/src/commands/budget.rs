//! What commands make beyond the bytes that they take in a stream. Who counted only those would be got
//! around by a few that say a lot: allocate a range, clone one, write a byte into a block.

use sendshot_stream::Command;

use crate::error::Cause;

/// What is allocated at least for data, in bytes: btrfs's sector on most systems.
const BLOCK: u64 = 4096;

/// Bytes that one byte of metadata stands for in a clone: an extent of one block takes some 80 bytes in
/// the file's tree and in that of the extents, at most.
const CLONED_A_BYTE: u64 = 50;

/// Modes of `fallocate` that give space back: FALLOC_FL_PUNCH_HOLE of linux/falloc.h.
const PUNCH_HOLE: u32 = 2;

/// How much was made, and how much may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    made: u64,
    most: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            made: 0,
            most: u64::MAX,
        }
    }
}

impl Budget {
    pub(crate) fn new(made: u64, most: u64) -> Self {
        Self { made, most }
    }

    pub(crate) fn made(&self) -> u64 {
        self.made
    }

    /// Counts what is about to be made.
    pub(crate) fn charge(&mut self, bytes: u64) -> Result<(), Cause> {
        self.made = self.made.saturating_add(bytes);
        match self.made > self.most {
            true => Err(Cause::TooMuch { most: self.most }),
            false => Ok(()),
        }
    }
}

/// What a command makes beyond its bytes in the stream, as far as it says so itself.
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
    fn what_says_a_lot_costs_a_lot() {
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
