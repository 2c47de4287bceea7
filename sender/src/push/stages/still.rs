//! Whether a live volume has stood still while it was read: one on a file system that is read-only
//! everywhere, of which no snapshot can be made.

use std::io;
use std::os::fd::AsFd;

use sendshot_sys::{filesystem, subvolume};

/// What moves when anything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Still {
    /// Transaction of the subvolume's last change.
    ctransid: u64,
    /// Transaction that the file system has begun last.
    generation: u64,
}

impl Still {
    /// For a volume that is about to be read.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::ReadOnlyFilesystem`] is none of them: it has to be read-only.
    pub fn of(volume: impl AsFd) -> io::Result<Self> {
        if !filesystem::is_read_only_everywhere(&volume)? {
            return Err(moved("it is not read-only any more"));
        }
        // One that btrfs has stopped writing to after an error may show what is nowhere on the disk, and not
        // all of it: no transaction can be begun there.
        if let Err(e) = filesystem::sync(&volume) {
            return Err(match e.kind() {
                io::ErrorKind::ReadOnlyFilesystem => io::Error::other(Moved(
                    "btrfs has stopped writing to the file system after an error, so that what can be read may \
                     be no one state; unmount it, and mount it read-only anew"
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

    /// Now that all was read.
    ///
    /// # Errors
    /// If anything may have been written since, or the kernel does not tell.
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

/// It did not.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Moved(String);

fn moved(how: &str) -> io::Error {
    io::Error::other(Moved(format!(
        "the file system was remounted while the volume was read, and {how}, so that what was read may be no one state"
    )))
}
