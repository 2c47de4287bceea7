//! The commands of a stream, with their operands borrowed from it.

use uuid::Uuid;

use crate::format::Kind;

/// A point in time, as stored in an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timespec {
    /// Seconds since 1970 UTC, negative before.
    pub sec: i64,
    /// Nanoseconds to add. The format lets a sender use any value here.
    pub nsec: u32,
}

/// One command. Paths are relative to the subvolume, as raw bytes without any checks; the empty path is the
/// subvolume's root. Offsets and lengths are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the operands are named as in the format; see the variants
pub enum Command<'a> {
    /// Begins a complete subvolume, named `path`.
    Subvol {
        path: &'a [u8],
        uuid: Uuid,
        ctransid: u64,
    },
    /// Begins a subvolume as changes to the parent with the identity `clone_uuid` and `clone_ctransid`.
    Snapshot {
        path: &'a [u8],
        uuid: Uuid,
        ctransid: u64,
        clone_uuid: Uuid,
        clone_ctransid: u64,
    },
    /// Makes an empty regular file.
    Mkfile { path: &'a [u8] },
    /// Makes a directory.
    Mkdir { path: &'a [u8] },
    /// Makes a device; `mode` contains its type, `rdev` its number in the stream's 32-bit encoding (see
    /// [`Command::device`]).
    Mknod {
        path: &'a [u8],
        mode: u64,
        rdev: u64,
    },
    /// Makes a named pipe.
    Mkfifo { path: &'a [u8] },
    /// Makes a socket.
    Mksock { path: &'a [u8] },
    /// Makes a symbolic link with the content `target`.
    Symlink { path: &'a [u8], target: &'a [u8] },
    /// Renames `path` to `to`, replacing an existing entry.
    Rename { path: &'a [u8], to: &'a [u8] },
    /// Makes `path` an additional name of `existing`.
    Link { path: &'a [u8], existing: &'a [u8] },
    /// Removes a name of an inode that is not a directory.
    Unlink { path: &'a [u8] },
    /// Removes an empty directory.
    Rmdir { path: &'a [u8] },
    /// Sets an extended attribute.
    SetXattr {
        path: &'a [u8],
        name: &'a [u8],
        data: &'a [u8],
    },
    /// Removes an extended attribute.
    RemoveXattr { path: &'a [u8], name: &'a [u8] },
    /// Writes data.
    Write {
        path: &'a [u8],
        offset: u64,
        data: &'a [u8],
    },
    /// Makes a range share the data of a range of `clone_path` in the subvolume `clone_uuid`.
    Clone {
        path: &'a [u8],
        offset: u64,
        len: u64,
        clone_uuid: Uuid,
        clone_ctransid: u64,
        clone_path: &'a [u8],
        clone_offset: u64,
    },
    /// Sets a file's size.
    Truncate { path: &'a [u8], size: u64 },
    /// Sets the permission bits.
    Chmod { path: &'a [u8], mode: u64 },
    /// Sets owner and group.
    Chown { path: &'a [u8], uid: u64, gid: u64 },
    /// Sets times.
    Utimes {
        path: &'a [u8],
        atime: Timespec,
        mtime: Timespec,
        ctime: Timespec,
        otime: Option<Timespec>,
    },
    /// Ends a subvolume.
    End,
    /// Reports that a range changed, in streams made without data.
    UpdateExtent {
        path: &'a [u8],
        offset: u64,
        len: u64,
    },
    /// Calls `fallocate(2)` with the mode's bits.
    Fallocate {
        path: &'a [u8],
        mode: u32,
        offset: u64,
        len: u64,
    },
    /// Sets btrfs inode flags.
    Fileattr { path: &'a [u8], flags: u64 },
    /// Writes an extent in compressed form: `data` decodes to `unencoded_len` bytes, of which those from
    /// `unencoded_offset` on are the `unencoded_file_len` bytes of the file at `offset`.
    EncodedWrite {
        path: &'a [u8],
        offset: u64,
        unencoded_file_len: u64,
        unencoded_len: u64,
        unencoded_offset: u64,
        compression: u32,
        encryption: u32,
        data: &'a [u8],
    },
}

impl<'a> Command<'a> {
    /// Returns the command's name, as `btrfs receive --dump` prints it.
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// Returns the path that it changes; empty for the subvolume's root and for [`Command::End`].
    pub fn path(&self) -> &'a [u8] {
        match *self {
            Self::Subvol { path, .. }
            | Self::Snapshot { path, .. }
            | Self::Mkfile { path }
            | Self::Mkdir { path }
            | Self::Mknod { path, .. }
            | Self::Mkfifo { path }
            | Self::Mksock { path }
            | Self::Symlink { path, .. }
            | Self::Rename { path, .. }
            | Self::Link { path, .. }
            | Self::Unlink { path }
            | Self::Rmdir { path }
            | Self::SetXattr { path, .. }
            | Self::RemoveXattr { path, .. }
            | Self::Write { path, .. }
            | Self::Clone { path, .. }
            | Self::Truncate { path, .. }
            | Self::Chmod { path, .. }
            | Self::Chown { path, .. }
            | Self::Utimes { path, .. }
            | Self::UpdateExtent { path, .. }
            | Self::Fallocate { path, .. }
            | Self::Fileattr { path, .. }
            | Self::EncodedWrite { path, .. } => path,
            Self::End => b"",
        }
    }

    /// Returns the command that makes the same entry under another path; any other command as it is.
    #[must_use]
    pub fn with_path(self, path: &'a [u8]) -> Self {
        match self {
            Self::Mkfile { .. } => Self::Mkfile { path },
            Self::Mkdir { .. } => Self::Mkdir { path },
            Self::Mknod { mode, rdev, .. } => Self::Mknod { path, mode, rdev },
            Self::Mkfifo { .. } => Self::Mkfifo { path },
            Self::Mksock { .. } => Self::Mksock { path },
            Self::Symlink { target, .. } => Self::Symlink { path, target },
            other => other,
        }
    }

    /// Encodes a device number for [`Command::Mknod`]; `None` if the format cannot hold it
    /// (12 bits of major, 20 of minor, as in the kernel).
    pub fn device(major: u32, minor: u32) -> Option<u64> {
        if major >= 1 << 12 || minor >= 1 << 20 {
            return None;
        }
        Some(u64::from(
            (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12),
        ))
    }

    /// Decodes major and minor number from an `rdev` of [`Command::Mknod`]; `None` if it has more than 32
    /// bits.
    pub fn device_numbers(rdev: u64) -> Option<(u32, u32)> {
        let rdev = u32::try_from(rdev).ok()?;
        Some((
            (rdev & 0xf_ff00) >> 8,
            (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00),
        ))
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Subvol { .. } => Kind::Subvol,
            Self::Snapshot { .. } => Kind::Snapshot,
            Self::Mkfile { .. } => Kind::Mkfile,
            Self::Mkdir { .. } => Kind::Mkdir,
            Self::Mknod { .. } => Kind::Mknod,
            Self::Mkfifo { .. } => Kind::Mkfifo,
            Self::Mksock { .. } => Kind::Mksock,
            Self::Symlink { .. } => Kind::Symlink,
            Self::Rename { .. } => Kind::Rename,
            Self::Link { .. } => Kind::Link,
            Self::Unlink { .. } => Kind::Unlink,
            Self::Rmdir { .. } => Kind::Rmdir,
            Self::SetXattr { .. } => Kind::SetXattr,
            Self::RemoveXattr { .. } => Kind::RemoveXattr,
            Self::Write { .. } => Kind::Write,
            Self::Clone { .. } => Kind::Clone,
            Self::Truncate { .. } => Kind::Truncate,
            Self::Chmod { .. } => Kind::Chmod,
            Self::Chown { .. } => Kind::Chown,
            Self::Utimes { .. } => Kind::Utimes,
            Self::End => Kind::End,
            Self::UpdateExtent { .. } => Kind::UpdateExtent,
            Self::Fallocate { .. } => Kind::Fallocate,
            Self::Fileattr { .. } => Kind::Fileattr,
            Self::EncodedWrite { .. } => Kind::EncodedWrite,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_their_encoding() {
        for (major, minor) in [(0, 0), (1, 3), (8, 255), (259, 256), (4095, 0xf_ffff)] {
            let rdev = Command::device(major, minor).unwrap();
            assert_eq!(Command::device_numbers(rdev), Some((major, minor)));
        }
    }

    #[test]
    fn device_numbers_beyond_the_format_are_refused() {
        assert_eq!(Command::device(4096, 0), None);
        assert_eq!(Command::device(0, 1 << 20), None);
        assert_eq!(Command::device_numbers(1 << 32), None);
    }
}
