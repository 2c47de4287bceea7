//! A read-only subvolume whose data is on disk.
//!
//! Capture reads items by tree search. Data that is not yet written back has no items, so its files would
//! look empty. This type makes each caller say why that cannot happen.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use sendshot_sys::filesystem;

/// A read-only subvolume that capture may read, given by its root directory.
#[derive(Debug, Clone, Copy)]
pub struct Frozen<'a> {
    root: BorrowedFd<'a>,
}

impl<'a> Frozen<'a> {
    /// Accepts a snapshot that the kernel made read-only and that was never writable. The kernel writes back
    /// the data of the source before it makes a snapshot.
    pub fn snapshot(root: &'a impl AsFd) -> Self {
        Self { root: root.as_fd() }
    }

    /// Accepts any other read-only subvolume, received or formerly writable. First writes back the data of
    /// its file system: transaction numbers do not show whether there is unwritten data.
    ///
    /// # Errors
    /// I/O errors, also for data that could not be written back.
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
