//! Decodes the data of encoded writes that the kernel does not accept encoded.

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use crate::compression::lzo;

/// Maximum length of an extent in bytes, encoded or decoded: the kernel's BTRFS_MAX_COMPRESSED and
/// BTRFS_MAX_UNCOMPRESSED.
pub(crate) const MAX_EXTENT: usize = 128 * 1024;

/// Maximum zstd window, as a power of two: the kernel's ZSTD_BTRFS_MAX_WINDOWLOG. It prevents a frame's
/// header from requesting more memory.
const ZSTD_WINDOW_LOG: u32 = 17;

/// Length in bytes of a length field inside LZO data.
const LZO_LEN: usize = 4;

/// Compression of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Zlib,
    Zstd,
    /// LZO in segments of one sector of this many bytes.
    Lzo(usize),
}

impl Compression {
    /// Returns the compression with this number (BTRFS_ENCODED_IO_COMPRESSION_*); `None` for 0, which an
    /// encoded write cannot have, and for unknown ones.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Zlib),
            2 => Some(Self::Zstd),
            3..=7 => Some(Self::Lzo(4096 << (number - 3))),
            _ => None,
        }
    }
}

/// Reason why data cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The zlib data is broken.
    #[error("broken zlib data")]
    Zlib(#[from] flate2::DecompressError),
    /// The zstd data is broken.
    #[error("broken zstd data")]
    Zstd(#[source] std::io::Error),
    /// The LZO data is broken.
    #[error(transparent)]
    Lzo(#[from] lzo::Broken),
    /// The data ends too early.
    #[error("the compressed data is cut off")]
    Truncated,
}

/// Decodes `data` into `out`. Bytes that it does not fill become zeros, as when the kernel reads such an
/// extent; excess bytes are dropped.
pub(crate) fn decode(
    compression: Compression,
    data: &[u8],
    out: &mut [u8],
) -> Result<(), DataError> {
    let written = match compression {
        Compression::Zlib => zlib(data, out)?,
        Compression::Zstd => zstd(data, out)?,
        Compression::Lzo(sector) => lzo_segments(data, out, sector)?,
    };
    out[written..].fill(0);
    Ok(())
}

fn zlib(data: &[u8], out: &mut [u8]) -> Result<usize, DataError> {
    let mut decoder = flate2::Decompress::new(true);
    loop {
        let (read, written) = (decoder.total_in() as usize, decoder.total_out() as usize);
        let status = decoder.decompress(
            &data[read..],
            &mut out[written..],
            flate2::FlushDecompress::None,
        )?;
        let now = decoder.total_out() as usize;
        if status == flate2::Status::StreamEnd || now == out.len() {
            return Ok(now);
        }
        if now == written && decoder.total_in() as usize == read {
            return Err(DataError::Truncated);
        }
    }
}

/// Decodes a single frame: the sender may have padded the data to a whole sector.
fn zstd(data: &[u8], out: &mut [u8]) -> Result<usize, DataError> {
    let mut decoder = Decoder::new().map_err(DataError::Zstd)?;
    decoder
        .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))
        .map_err(DataError::Zstd)?;
    let room = out.len();
    let mut input = InBuffer::around(data);
    let mut output = OutBuffer::around(out);
    loop {
        let before = (input.pos(), output.pos());
        let missing = decoder
            .run(&mut input, &mut output)
            .map_err(DataError::Zstd)?;
        if missing == 0 || output.pos() == room {
            return Ok(output.pos());
        }
        if before == (input.pos(), output.pos()) {
            return Err(DataError::Truncated);
        }
    }
}

/// Decodes the LZO framing of btrfs: the total length, then segments of at most one sector, each with its
/// length. A length never crosses a sector boundary, so there may be padding.
fn lzo_segments(data: &[u8], out: &mut [u8], sector: usize) -> Result<usize, DataError> {
    let total = length_at(data, 0)?;
    let data = data.get(..total).ok_or(DataError::Truncated)?;
    let (mut at, mut written) = (LZO_LEN, 0);
    while at < total && written < out.len() {
        let left_in_sector = sector - at % sector;
        if left_in_sector < LZO_LEN {
            at += left_in_sector;
            if at >= total {
                break;
            }
        }
        let len = length_at(data, at)?;
        at += LZO_LEN;
        let segment = data.get(at..at + len).ok_or(DataError::Truncated)?;
        let room = sector.min(out.len() - written);
        written += lzo::decompress(segment, &mut out[written..written + room])?;
        at += len;
    }
    Ok(written)
}

/// Parses the 32-bit little-endian length at `at`, which is at most that of an extent.
fn length_at(data: &[u8], at: usize) -> Result<usize, DataError> {
    let bytes = data
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .ok_or(DataError::Truncated)?;
    usize::try_from(u32::from_le_bytes(*bytes))
        .ok()
        .filter(|len| *len <= MAX_EXTENT)
        .ok_or(DataError::Truncated)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|n| b"sendshot "[n * n % 9]).collect()
    }

    fn zlib_of(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// Packs data like the kernel's fs/btrfs/lzo.c.
    fn lzo_of(data: &[u8], sector: usize) -> Vec<u8> {
        let mut out = vec![0; LZO_LEN];
        for part in data.chunks(sector) {
            if sector - out.len() % sector < LZO_LEN {
                out.resize(out.len().next_multiple_of(sector), 0);
            }
            let packed = lzokay_native::compress(part).unwrap();
            out.extend_from_slice(&(packed.len() as u32).to_le_bytes());
            out.extend_from_slice(&packed);
        }
        let total = (out.len() as u32).to_le_bytes();
        out[..LZO_LEN].copy_from_slice(&total);
        out
    }

    fn all(data: &[u8]) -> [(Compression, Vec<u8>); 4] {
        [
            (Compression::Zlib, zlib_of(data)),
            (Compression::Zstd, zstd::bulk::compress(data, 3).unwrap()),
            (Compression::Lzo(4096), lzo_of(data, 4096)),
            (Compression::Lzo(65536), lzo_of(data, 65536)),
        ]
    }

    fn decoded(compression: Compression, data: &[u8], len: usize) -> Result<Vec<u8>, DataError> {
        let mut out = vec![0xee; len];
        decode(compression, data, &mut out)?;
        Ok(out)
    }

    #[test]
    fn padding_behind_the_data_is_not_data() {
        let data = text(100_000);
        for (compression, mut packed) in all(&data) {
            packed.resize(packed.len().next_multiple_of(4096), 0);
            let out = decoded(compression, &packed, data.len()).unwrap();
            assert!(out == data, "{compression:?}");
        }
    }

    #[test]
    fn a_length_of_lzo_data_never_crosses_a_sector() {
        let mut padded = 0;
        for noisy in 4000..4096_u32 {
            // One sector that compresses to about `noisy` bytes, and a second one.
            let noise = |n: u32| (n.wrapping_mul(n).wrapping_mul(2_654_435_761) >> 24) as u8;
            let mut data: Vec<u8> = (0..noisy).map(noise).collect();
            data.resize(8192, 7);
            let packed = lzo_of(&data, 4096);
            let first = lzokay_native::compress(&data[..4096]).unwrap().len();
            padded += usize::from((4093..4096).contains(&(2 * LZO_LEN + first)));
            let out = decoded(Compression::Lzo(4096), &packed, 8192).unwrap();
            assert!(out == data, "{noisy}");
        }
        assert!(padded > 0, "no case had padding");
    }

    #[test]
    fn the_tail_is_zeros() {
        let data = text(5000);
        for (compression, packed) in all(&data) {
            let out = decoded(compression, &packed, 8192).unwrap();
            assert!(out[..5000] == data, "{compression:?}");
            assert!(out[5000..].iter().all(|b| *b == 0), "{compression:?}");
        }
    }

    #[test]
    fn data_that_is_cut_off_is_an_error() {
        let data = text(50_000);
        for (compression, packed) in all(&data) {
            for len in [0, 1, 3, packed.len() / 2, packed.len() - 8] {
                let result = decoded(compression, &packed[..len], data.len());
                assert!(result.is_err(), "{compression:?} cut to {len}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(data in vec(any::<u8>(), 0..600), number in 1..8_u32) {
            let compression = Compression::from_number(number).unwrap();
            let _ = decoded(compression, &data, 9000);
        }

        #[test]
        fn damaged_data_never_panics(
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            which in 0..4_usize,
        ) {
            let (compression, mut packed) = all(&text(9000))[which].clone();
            let at = at.index(packed.len());
            packed[at] = byte;
            let _ = decoded(compression, &packed, 9000);
        }
    }
}
