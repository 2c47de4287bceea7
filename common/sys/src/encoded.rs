//! Reads and writes extents in compressed form.

use std::io;
use std::os::fd::AsFd;

use crate::raw::{self, Args};

/// Relation between the bytes of an encoded extent and those of the file; all lengths in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// Offset of the data in the file.
    pub file_offset: u64,
    /// Length of the data in the file.
    pub unencoded_file_len: u64,
    /// Length of the decoded extent.
    pub unencoded_len: u64,
    /// Offset in the decoded extent at which the file's bytes begin.
    pub unencoded_offset: u64,
    /// BTRFS_ENCODED_IO_COMPRESSION_*: 1 zlib, 2 zstd, 3 to 7 lzo with 4 to 64 KiB sectors.
    pub compression: u32,
}

/// Stores `data` unchanged, to be decoded when read. Needs CAP_SYS_ADMIN.
///
/// The kernel does not check whether `data` can be decoded.
///
/// # Errors
/// `EPERM`, `ENOTTY` before Linux 5.18, `EINVAL` for unsupported sizes or a file that cannot hold compressed
/// extents, `ENOSPC`, and other I/O errors.
pub fn encoded_write(file: impl AsFd, encoding: &Encoding, data: &[u8]) -> io::Result<()> {
    let mut args = Args::<128>::new();
    args.put_u64(16, encoding.file_offset);
    args.put_u64(32, encoding.unencoded_file_len);
    args.put_u64(40, encoding.unencoded_len);
    args.put_u64(48, encoding.unencoded_offset);
    args.put_u32(56, encoding.compression);
    raw::encoded_write(file, data, &mut args)
}

/// Result of an encoded read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodedRead {
    /// Length of the encoded data in the buffer, in bytes.
    pub len: usize,
    /// Relation of the encoded data to the file.
    pub encoding: Encoding,
}

/// Reads the extent at `offset` of a file as it is stored. Needs CAP_SYS_ADMIN.
///
/// # Errors
/// I/O errors; `ENOBUFS` if the extent does not fit the buffer, `ENOTTY` before Linux 5.18.
pub fn encoded_read(
    file: impl AsFd,
    offset: u64,
    len: u64,
    buffer: &mut [u8],
) -> io::Result<EncodedRead> {
    let mut args = Args::<128>::new();
    args.put_u64(16, offset);
    args.put_u64(32, len);
    let len = raw::encoded_read(file, buffer, &mut args)?;
    Ok(EncodedRead {
        len,
        encoding: Encoding {
            file_offset: offset,
            unencoded_file_len: args.u64(32),
            unencoded_len: args.u64(40),
            unencoded_offset: args.u64(48),
            compression: args.u32(56),
        },
    })
}
