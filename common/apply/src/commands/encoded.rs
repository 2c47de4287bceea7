//! Encoded writes: extents that arrive compressed, and are stored so where the kernel can.

use std::os::fd::AsFd;

use rustix::io::Errno;
use sendshot_sys::encoded::{Encoding, encoded_write};

use crate::commands::budget::Budget;
use crate::commands::data;
use crate::compression::decompress::{self, Compression, MAX_EXTENT};
use crate::error::Cause;

/// Whether the kernel is asked to store compressed extents as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EncodedPolicy {
    /// Store as they are; decode and write if the kernel refuses.
    #[default]
    Store,
    /// Always decode and write.
    Decode,
}

/// How encoded data was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is stored as it came.
    Encoded,
    /// It was decoded.
    Decoded,
}

/// Stores encoded data.
#[derive(Debug, Default)]
pub(crate) struct EncodedWriter {
    policy: EncodedPolicy,
    /// Buffer for decoding, kept from one write to the next.
    decoded: Vec<u8>,
}

/// One encoded write with consistent sizes.
#[derive(Debug)]
pub(crate) struct Checked {
    encoding: Encoding,
    compression: Compression,
    unencoded_len: usize,
    /// Range of the decoded bytes that belongs to the file.
    used: std::ops::Range<usize>,
}

impl EncodedWriter {
    pub(crate) fn new(policy: EncodedPolicy) -> Self {
        Self {
            policy,
            decoded: Vec::new(),
        }
    }

    pub(crate) fn write(
        &mut self,
        file: impl AsFd,
        write: &Checked,
        bytes: &[u8],
        budget: &mut Budget,
    ) -> Result<Written, Cause> {
        if self.policy == EncodedPolicy::Store {
            match encoded_write(&file, &write.encoding, bytes) {
                Ok(()) => return Ok(Written::Encoded),
                Err(e) => self.refused(Errno::from_io_error(&e).unwrap_or(Errno::IO))?,
            }
        }
        budget.charge(write.used.len() as u64)?;
        self.decode_and_write(file, write, bytes)?;
        Ok(Written::Decoded)
    }

    /// Falls back to decoding if that can help, and for all further writes if the refusal is permanent.
    /// ENOSPC may concern the encoded write alone.
    fn refused(&mut self, e: Errno) -> Result<(), Cause> {
        match e {
            Errno::PERM | Errno::NOTTY => {
                tracing::info!(error = %e, "compressed extents are decoded before they are written");
                self.policy = EncodedPolicy::Decode;
                Ok(())
            }
            Errno::INVAL | Errno::NOSPC | Errno::OPNOTSUPP => Ok(()),
            other => Err(other.into()),
        }
    }

    fn decode_and_write(
        &mut self,
        file: impl AsFd,
        write: &Checked,
        bytes: &[u8],
    ) -> Result<(), Cause> {
        self.decoded.resize(write.unencoded_len, 0);
        decompress::decode(write.compression, bytes, &mut self.decoded)?;
        let used = &self.decoded[write.used.clone()];
        data::write(file, write.encoding.file_offset, used)
    }
}

impl Checked {
    /// Checks the sizes of an encoded write of `data_len` bytes against each other and the kernel's limits.
    pub(crate) fn new(encoding: Encoding, encryption: u32, data_len: usize) -> Result<Self, Cause> {
        let compression = Compression::from_number(encoding.compression)
            .filter(|_| encryption == 0)
            .ok_or(Cause::Encoding {
                compression: encoding.compression,
                encryption,
            })?;
        data::check_range(encoding.file_offset, encoding.unencoded_file_len)?;
        let (unencoded_len, used) = sizes(&encoding, data_len).ok_or(Cause::EncodedSizes)?;
        Ok(Self {
            encoding,
            compression,
            unencoded_len,
            used,
        })
    }
}

fn sizes(encoding: &Encoding, data_len: usize) -> Option<(usize, std::ops::Range<usize>)> {
    let unencoded_len = usize::try_from(encoding.unencoded_len).ok()?;
    let start = usize::try_from(encoding.unencoded_offset).ok()?;
    let len = usize::try_from(encoding.unencoded_file_len).ok()?;
    let end = start.checked_add(len)?;
    let fits = end <= unencoded_len && unencoded_len <= MAX_EXTENT;
    let some = len > 0 && (1..=MAX_EXTENT).contains(&data_len);
    (fits && some).then_some((unencoded_len, start..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(file_len: u64, len: u64, offset: u64) -> Encoding {
        Encoding {
            file_offset: 0,
            unencoded_file_len: file_len,
            unencoded_len: len,
            unencoded_offset: offset,
            compression: 2,
        }
    }

    #[test]
    fn sizes_must_fit_each_other() {
        let k = 1024;
        for (good, data_len) in [
            (encoding(128 * k, 128 * k, 0), 5000),
            (encoding(4 * k, 128 * k, 124 * k), 128 * 1024),
            (encoding(1, 1, 0), 1),
        ] {
            assert!(Checked::new(good, 0, data_len).is_ok(), "{good:?}");
        }
        for (bad, data_len) in [
            (encoding(4097, 4096, 0), 9),
            (encoding(4096, 4096, 1), 9),
            (encoding(1, 4096, u64::MAX), 9),
            (encoding(u64::MAX, 4096, 1), 9),
            (encoding(4096, 128 * k + 1, 0), 9),
            (encoding(0, 4096, 0), 9),
            (encoding(4096, 4096, 0), 0),
            (encoding(4096, 4096, 0), 128 * 1024 + 1),
        ] {
            assert!(
                Checked::new(bad, 0, data_len).is_err(),
                "{bad:?} {data_len}"
            );
        }
    }

    #[test]
    fn encodings_must_exist() {
        let with = |compression, encryption| {
            let encoding = Encoding {
                compression,
                ..encoding(4096, 4096, 0)
            };
            Checked::new(encoding, encryption, 100).is_ok()
        };
        assert!((1..=7).all(|compression| with(compression, 0)));
        assert!(!with(0, 0));
        assert!(!with(8, 0));
        assert!(!with(2, 1));
    }
}
