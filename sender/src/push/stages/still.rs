//! Checks that a live volume did not change while it was read: a volume on a file system that is read-only
//! everywhere, where no snapshot can be made.

use std::io;
use std::os::fd::AsFd;

use sendshot_sys::{filesystem, subvolume};

/// What changes with every write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Still {
    /// Transaction of the last change of the subvolume.
    ctransid: u64,
    /// Transaction that the file system has begun last.
    generation: u64,
}

impl Still {
    /// Reads the values of a volume that is about to be read.
    ///
    /// # Errors
    /// I/O errors, never [`io::ErrorKind::ReadOnlyFilesystem`]; a file system that is not read-only, or that
    /// btrfs has stopped writing to.
    pub fn of(volume: impl AsFd) -> io::Result<Self> {
        if !filesystem::is_read_only_everywhere(&volume)? {
            return Err(moved("it is not read-only any more"));
        }
        // If btrfs has stopped writing after an error, reads may show a state that is not on the disk, or not
        // all of it. No transaction can be begun there.
        if let Err(e) = filesystem::sync(&volume) {
            return Err(match e.kind() {
                io::ErrorKind::ReadOnlyFilesystem => io::Error::other(Moved(
                    "btrfs has stopped writing to the file system after an error, so that its data may not be of one state; unmount it, and mount it read-only again"
                        .to_owned(),
                )),
                _ => e,
            });
        }
        Ok(Self {
            ctransid: subvolume::info(&volume)?.ctransid,
            generation: filesystem::generation(&volume)?,
        })
    }

    /// Checks that the values are the same, after everything was read.
    ///
    /// # Errors
    /// If anything may have been written since, or on I/O errors.
    pub fn check(&self, volume: impl AsFd) -> io::Result<()> {
        let now = Self::of(volume)?;
        if now == *self {
            return Ok(());
        }
        let (then, now) = (
            self.generation.max(self.ctransid),
            now.generation.max(now.ctransid),
        );
        Err(moved(&format!(
            "it was written to (transaction {now}, {then} before)"
        )))
    }
}

/// The volume may have changed while it was read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Moved(String);

fn moved(how: &str) -> io::Error {
    io::Error::other(Moved(format!(
        "the file system was remounted while the volume was read, and {how}, so that the data read may not be of one state"
    )))
}
