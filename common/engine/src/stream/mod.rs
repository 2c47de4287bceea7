//! Turns the steps of a diff into the bytes of a send stream; data is read from the snapshot.

pub mod compare_hashes;
pub mod measure;
pub mod skeleton;

use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::AsFd;

use sendshot_stream::{Command, EncodeError, Encoder, MAX_DATA_V1, MAX_DATA_V2};
use sendshot_sys::encoded::{self, Encoding};
use sendshot_sys::subvolume;

pub use crate::capture::snapshot::Pages;
use crate::capture::snapshot::{self, Snapshot};
use crate::diff::{self, Sink, Step, Version, diff};
use crate::format::entry::Extent;
use crate::format::file::Sendshot;
use crate::format::hashes::{self, Hash};
use crate::stream::skeleton::{Skeleton, StreamPosition};

/// Maximum length of an encoded extent on disk, in bytes.
const MAX_ENCODED: usize = 128 * 1024;

/// Bytes of stream that are collected before they are passed on.
const BATCH: usize = 256 * 1024;

/// Reason why a stream was interrupted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sendshots cannot be compared.
    #[error(transparent)]
    Diff(#[from] diff::Error),
    /// A command cannot be encoded in the format.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Data of the snapshot cannot be read.
    #[error(transparent)]
    Read(#[from] snapshot::Error),
    /// The snapshot no longer exists.
    #[error("the snapshot was deleted while it was being sent")]
    Deleted,
    /// The stream cannot be written.
    #[error("cannot write the stream")]
    Write(#[source] io::Error),
    /// A stream to be resumed in its middle is not the same up to that position.
    #[error("the stream up to byte {offset} differs from the earlier one")]
    Diverged {
        /// Offset in bytes at which it was to be resumed.
        offset: u64,
    },
}

pub(crate) fn version(version: Version) -> sendshot_stream::Version {
    match version {
        Version::V1 => sendshot_stream::Version::V1,
        Version::V2 => sendshot_stream::Version::V2,
    }
}

/// Maximum number of data bytes in one write.
pub(crate) fn chunk(version: Version) -> usize {
    match version {
        Version::V1 => MAX_DATA_V1,
        Version::V2 => MAX_DATA_V2,
    }
}

/// The input from which a stream is generated.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a, F> {
    /// Sendshot of the receiver's copy; `None` for a full send.
    pub parent: Option<&'a Sendshot>,
    /// Sendshot of the copy that the stream produces.
    pub target: &'a Sendshot,
    /// Root directory of the snapshot from which `target` was captured.
    pub snapshot: F,
    /// Name of the subvolume in the stream.
    pub name: &'a [u8],
    /// Version of the stream.
    pub version: Version,
    /// What becomes of the snapshot's data in memory.
    pub pages: Pages,
}

/// Writer for the hashes of blocks.
pub type HashWriter = hashes::Writer<BufWriter<File>>;

/// Whole consecutive commands of a stream.
#[derive(Debug)]
pub struct Part {
    /// The encoded commands.
    pub bytes: Vec<u8>,
    /// Position in the stream after them.
    pub end: StreamPosition,
}

/// Passes the stream to `out`, part by part, and the hashes that the next push will need to `hashes`.
///
/// # Errors
/// See [`Error`]; the incomplete output must not be used.
pub fn stream<F: AsFd>(
    source: &Source<'_, F>,
    hashes: Option<&mut HashWriter>,
    mut out: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Error> {
    stream_from(source, None, hashes, |part| out(&part.bytes))
}

/// Generates the same stream from a position on that an earlier run on the same source reported. Data before
/// it is not read; the skeleton proves that it would be the same.
///
/// # Errors
/// See [`Error`]; [`Error::Diverged`] comes before any output.
pub fn stream_from<F: AsFd>(
    source: &Source<'_, F>,
    from: Option<StreamPosition>,
    hashes: Option<&mut HashWriter>,
    out: impl FnMut(Part) -> io::Result<()>,
) -> Result<(), Error> {
    stream_existing(source, from, hashes, out).map_err(|error| match error {
        // The file no longer exists: perhaps the whole snapshot was deleted.
        Error::Read(_) if subvolume::is_deleted(&source.snapshot).is_ok_and(|is| is) => {
            Error::Deleted
        }
        _ => error,
    })
}

fn stream_existing<F: AsFd>(
    source: &Source<'_, F>,
    from: Option<StreamPosition>,
    hashes: Option<&mut HashWriter>,
    out: impl FnMut(Part) -> io::Result<()>,
) -> Result<(), Error> {
    let snapshot = Snapshot::new(&source.snapshot, source.pages).map_err(Error::Write)?;
    let mut writer = Stream::new(snapshot, source.version, from, hashes, out);
    let Source {
        parent,
        target,
        name,
        version,
        ..
    } = *source;
    diff(parent, target, name, version, &mut writer)?;
    writer.finish()
}

/// Reads the data of steps and encodes them.
struct Stream<'h, F> {
    snapshot: Snapshot,
    encoder: Encoder,
    chunk: usize,
    out: F,
    batch: Vec<u8>,
    encoded: Vec<u8>,
    hashes: Option<&'h mut HashWriter>,
    /// Bytes of the stream before the batch.
    offset: u64,
    skeleton: Skeleton,
    /// Position at which output begins; steps before it are only counted.
    from: Option<StreamPosition>,
}

impl<'h, F: FnMut(Part) -> io::Result<()>> Stream<'h, F> {
    fn new(
        snapshot: Snapshot,
        stream: Version,
        from: Option<StreamPosition>,
        hashes: Option<&'h mut HashWriter>,
        out: F,
    ) -> Self {
        let encoder = Encoder::new(version(stream));
        let mut writer = Self {
            snapshot,
            encoder,
            chunk: chunk(stream),
            out,
            batch: Self::empty_batch(),
            encoded: vec![0; MAX_ENCODED],
            hashes,
            offset: 0,
            skeleton: Skeleton::default(),
            from,
        };
        encoder.header(&mut writer.batch);
        if writer.from.is_some() {
            writer.pass_over(0);
        }
        writer
    }

    fn empty_batch() -> Vec<u8> {
        Vec::with_capacity(BATCH + BATCH / 2)
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::replace(&mut self.batch, Self::empty_batch());
        self.offset += bytes.len() as u64;
        let end = StreamPosition {
            offset: self.offset,
            skeleton: self.skeleton.value(),
        };
        (self.out)(Part { bytes, end }).map_err(Error::Write)
    }

    fn finish(mut self) -> Result<(), Error> {
        match self.from {
            Some(from) => Err(Error::Diverged {
                offset: from.offset,
            }),
            None => self.flush(),
        }
    }

    /// Discards the batch as if it and `data` more bytes had been passed on.
    fn pass_over(&mut self, data: u64) {
        self.offset += self.batch.len() as u64 + data;
        self.batch.clear();
    }

    /// Counts a command that an earlier run passed on; `data` bytes of data follow its encoding in the batch.
    fn passed(&mut self, from: StreamPosition, data: u64) -> Result<(), Error> {
        self.pass_over(data);
        if self.offset < from.offset {
            return Ok(());
        }
        let here = StreamPosition {
            offset: self.offset,
            skeleton: self.skeleton.value(),
        };
        if here != from {
            let offset = from.offset;
            return Err(Error::Diverged { offset });
        }
        self.from = None;
        Ok(())
    }

    fn command(&mut self, command: &Command<'_>) -> Result<(), Error> {
        let start = self.batch.len();
        self.encoder.command(command, &mut self.batch)?;
        self.skeleton.command(&self.batch[start..]);
        match self.from {
            Some(from) => self.passed(from, 0),
            None => self.pass_on(),
        }
    }

    fn data(&mut self, path: &[u8], offset: u64, len: u64) -> Result<(), Error> {
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let len = usize::try_from(end - at)
                .unwrap_or(self.chunk)
                .min(self.chunk);
            let command = Command::Write {
                path,
                offset: at,
                data: b"",
            };
            self.skeleton.write(path, at, len as u64);
            match self.from {
                Some(from) => self.pass_data(&command, from, len as u64)?,
                None => self.write(&command, path, at, len)?,
            }
            at += len as u64;
        }
        Ok(())
    }

    fn write(
        &mut self,
        command: &Command<'_>,
        path: &[u8],
        at: u64,
        len: usize,
    ) -> Result<(), Error> {
        let (batch, snapshot) = (&mut self.batch, &mut self.snapshot);
        self.encoder
            .command_with_data(command, len, batch, |buffer| {
                snapshot.read(path, at, buffer).map_err(Error::Read)
            })?;
        self.pass_on()
    }

    fn pass_data(
        &mut self,
        command: &Command<'_>,
        from: StreamPosition,
        data: u64,
    ) -> Result<(), Error> {
        self.encoder.command(command, &mut self.batch)?;
        self.passed(from, data)
    }

    /// Sends the extent as it is stored if the kernel returns exactly that; otherwise its data.
    fn encoded(&mut self, path: &[u8], extent: &Extent, len: u64) -> Result<(), Error> {
        if let Some(from) = self.from {
            let command = encoded_head(path, extent, len);
            self.skeleton.encoded(path, extent.offset, extent.disk_len);
            return self.pass_data(&command, from, extent.disk_len);
        }
        let mut buffer = std::mem::take(&mut self.encoded);
        let file = self.snapshot.file(path)?;
        let read = encoded::encoded_read(file, extent.offset, len, &mut buffer);
        let result = match read {
            Ok(read) if fits(&read.encoding, extent, len) => {
                self.encoded_write(path, &read.encoding, &buffer[..read.len])
            }
            // The extent is no longer encoded, or not as in the sendshot: its data is the same.
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
        self.skeleton
            .encoded(path, encoding.file_offset, data.len() as u64);
        self.encoder.command(&command, &mut self.batch)?;
        self.pass_on()
    }

    /// Adds the hash of a block. The block was just read, so reading it again costs little. A block that
    /// cannot be read gets no hash; the part that was sent has been read.
    fn hash(&mut self, ino: u64, path: &[u8], (block, len): (u64, u64), known: Option<Hash>) {
        let Some(hashes) = &mut self.hashes else {
            return;
        };
        let hash = match (known, self.from) {
            (Some(hash), _) => Some(hash),
            // An earlier run sent it: without a hash the next push sends it again.
            (None, Some(_)) => None,
            (None, None) => self.snapshot.hash(path, block, len).ok(),
        };
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

/// Builds an encoded write without its data; its encoding is as long as the real one's.
pub(crate) fn encoded_head<'a>(path: &'a [u8], extent: &Extent, len: u64) -> Command<'a> {
    Command::EncodedWrite {
        path,
        offset: extent.offset,
        unencoded_file_len: len,
        unencoded_len: extent.ram_bytes,
        unencoded_offset: extent.disk_offset,
        compression: 1,
        encryption: 0,
        data: b"",
    }
}

/// Whether an encoded read covers exactly the wanted range.
fn fits(encoding: &Encoding, extent: &Extent, len: u64) -> bool {
    encoding.compression != 0
        && encoding.file_offset == extent.offset
        && encoding.unencoded_file_len == len
        && encoding.unencoded_offset == extent.disk_offset
}

impl<F: FnMut(Part) -> io::Result<()>> Sink for Stream<'_, F> {
    type Error = Error;

    fn step(&mut self, step: Step<'_>) -> Result<(), Error> {
        match step {
            Step::Command(command) => self.command(&command),
            Step::Data {
                path,
                offset,
                len,
                reads,
            } => {
                self.snapshot.begin_run(reads);
                self.data(path, offset, len)
            }
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
