//! A read-only subvolume whose data is on disk.
//!
//! Capture reads items by tree search. What was written and not yet written back has no items, and
//! its files would look empty. The type makes each caller say why that cannot be so.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use sendshot_sys::filesystem;

/// A read-only subvolume that capture may read, by its root directory.
#[derive(Debug, Clone, Copy)]
pub struct Frozen<'a> {
    root: BorrowedFd<'a>,
}

impl<'a> Frozen<'a> {
    /// A read-only snapshot that was made by the kernel and was never writable. The kernel writes
    /// the data of the source back before it makes a snapshot.
    pub fn snapshot(root: &'a impl AsFd) -> Self {
        Self { root: root.as_fd() }
    }

    /// Any other read-only subvolume: one that was received, or was writable before. Writes the
    /// data of its file system back first. Its transaction numbers do not say whether there is
    /// such data.
    ///
    /// # Errors
    /// The kernel's, also for data that could not be written back.
    pub fn write_back(root: &'a impl AsFd) -> io::Result<Self> {
        filesystem::write_back(root)?;
        Ok(Self { root: root.as_fd() })
    }
}

impl AsFd for Frozen<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root
    }
}
