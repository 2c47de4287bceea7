//! From the steps of a diff to the bytes of a send stream; data is read from the snapshot.

use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::AsFd;

use sendshot_stream::{Command, EncodeError, Encoder, MAX_DATA_V1, MAX_DATA_V2};
use sendshot_sys::encoded::{self, Encoding};

use crate::diff::{self, Sink, Step, Version, diff};
use crate::entry::Extent;
use crate::file::Sendshot;
use crate::hashes::{self, Hash};
use crate::snapshot::{self, Snapshot};

/// Most bytes an encoded extent has on disk.
const MAX_ENCODED: usize = 128 * 1024;

/// Bytes of stream that are gathered before they are handed on.
const BATCH: usize = 256 * 1024;

/// Why a stream broke off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sendshots cannot be compared.
    #[error(transparent)]
    Diff(#[from] diff::Error),
    /// A command cannot be told in the format.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Data cannot be read.
    #[error(transparent)]
    Read(#[from] snapshot::Error),
    /// The stream cannot be written.
    #[error("write the stream")]
    Write(#[source] io::Error),
}

pub(crate) fn version(version: Version) -> sendshot_stream::Version {
    match version {
        Version::V1 => sendshot_stream::Version::V1,
        Version::V2 => sendshot_stream::Version::V2,
    }
}

/// Most data bytes that one write carries.
pub(crate) fn chunk(version: Version) -> usize {
    match version {
        Version::V1 => MAX_DATA_V1,
        Version::V2 => MAX_DATA_V2,
    }
}

/// What a stream is made from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a, F> {
    /// What the receiver has; `None` for a full send.
    pub m: Option<&'a Sendshot>,
    /// What it will have.
    pub n: &'a Sendshot,
    /// Root directory of the snapshot that `n` was captured from.
    pub snapshot: F,
    /// What the stream calls the subvolume.
    pub name: &'a [u8],
    /// Version of the stream.
    pub version: Version,
}

/// Where hashes of blocks go.
pub type HashWriter = hashes::Writer<BufWriter<File>>;

/// Hands the stream to `out`, part by part, and the hashes that the next push will want to
/// `hashes`.
///
/// # Errors
/// See [`Error`]; what was written is then of no use.
pub fn stream<F: AsFd>(
    source: &Source<'_, F>,
    hashes: Option<&mut HashWriter>,
    out: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Error> {
    let snapshot = Snapshot::new(&source.snapshot).map_err(Error::Write)?;
    let mut writer = Stream::new(snapshot, source.version, hashes, out);
    let Source {
        m,
        n,
        name,
        version,
        ..
    } = *source;
    diff(m, n, name, version, &mut writer)?;
    writer.flush()
}

/// Reads what steps need and encodes them.
struct Stream<'h, F> {
    snapshot: Snapshot,
    encoder: Encoder,
    chunk: usize,
    out: F,
    batch: Vec<u8>,
    encoded: Vec<u8>,
    hashes: Option<&'h mut HashWriter>,
}

impl<'h, F: FnMut(&[u8]) -> io::Result<()>> Stream<'h, F> {
    fn new(
        snapshot: Snapshot,
        stream: Version,
        hashes: Option<&'h mut HashWriter>,
        out: F,
    ) -> Self {
        let encoder = Encoder::new(version(stream));
        let mut batch = Vec::with_capacity(BATCH + BATCH / 2);
        encoder.header(&mut batch);
        Self {
            snapshot,
            encoder,
            chunk: chunk(stream),
            out,
            batch,
            encoded: vec![0; MAX_ENCODED],
            hashes,
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        (self.out)(&self.batch).map_err(Error::Write)?;
        self.batch.clear();
        Ok(())
    }

    fn data(&mut self, path: &[u8], offset: u64, len: u64) -> Result<(), Error> {
        let (mut at, end) = (offset, offset + len);
        let (chunk, encoder) = (self.chunk, self.encoder);
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(chunk).min(chunk);
            let command = Command::Write {
                path,
                offset: at,
                data: b"",
            };
            let (batch, snapshot) = (&mut self.batch, &mut self.snapshot);
            encoder.command_with_data(&command, len, batch, |buffer| {
                snapshot.read(path, at, buffer).map_err(Error::Read)
            })?;
            at += len as u64;
            self.pass_on()?;
        }
        Ok(())
    }

    /// The extent as it is stored, if the kernel gives just that; else its data.
    fn encoded(&mut self, path: &[u8], extent: &Extent, len: u64) -> Result<(), Error> {
        let mut buffer = std::mem::take(&mut self.encoded);
        let file = self.snapshot.file(path)?;
        let read = encoded::encoded_read(file, extent.offset, len, &mut buffer);
        let result = match read {
            Ok(read) if fits(&read.encoding, extent, len) => {
                self.encoded_write(path, &read.encoding, &buffer[..read.len])
            }
            // Not encoded any more, or not as the sendshot says: its data is the same.
            Ok(_) | Err(_) => self.data(path, extent.offset, len),
        };
        self.encoded = buffer;
        result
    }

    fn encoded_write(
        &mut self,
        path: &[u8],
        encoding: &Encoding,
        data: &[u8],
    ) -> Result<(), Error> {
        let command = Command::EncodedWrite {
            path,
            offset: encoding.file_offset,
            unencoded_file_len: encoding.unencoded_file_len,
            unencoded_len: encoding.unencoded_len,
            unencoded_offset: encoding.unencoded_offset,
            compression: encoding.compression,
            encryption: 0,
            data,
        };
        self.encoder.command(&command, &mut self.batch)?;
        self.pass_on()
    }

    /// The block was read a moment ago, so that reading it once more costs little. One that cannot
    /// be read has no hash: what was sent of it has been read.
    fn hash(&mut self, ino: u64, path: &[u8], (block, len): (u64, u64), known: Option<Hash>) {
        let Some(hashes) = &mut self.hashes else {
            return;
        };
        let hash = known.or_else(|| self.snapshot.hash(path, block, len).ok());
        if let Some(hash) = hash {
            hashes.add(ino, block, &hash);
        }
    }

    fn pass_on(&mut self) -> Result<(), Error> {
        if self.batch.len() >= BATCH {
            self.flush()?;
        }
        Ok(())
    }
}

/// Whether an encoded read covers exactly what is wanted.
fn fits(encoding: &Encoding, extent: &Extent, len: u64) -> bool {
    encoding.compression != 0
        && encoding.file_offset == extent.offset
        && encoding.unencoded_file_len == len
        && encoding.unencoded_offset == extent.disk_offset
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Sink for Stream<'_, F> {
    type Error = Error;

    fn step(&mut self, step: Step<'_>) -> Result<(), Error> {
        match step {
            Step::Command(command) => {
                self.encoder.command(&command, &mut self.batch)?;
                self.pass_on()
            }
            Step::Data { path, offset, len } => self.data(path, offset, len),
            Step::Encoded { path, extent, len } => self.encoded(path, &extent, len),
            Step::Check { .. } => Ok(()),
            Step::Hash {
                ino,
                path,
                block,
                len,
                known,
            } => {
                self.hash(ino, path, (block, len), known);
                Ok(())
            }
        }
    }
}
