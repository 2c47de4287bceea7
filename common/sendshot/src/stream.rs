//! From the steps of a diff to the bytes of a send stream; data is read from the snapshot.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use sendshot_stream::{Command, EncodeError, Encoder, MAX_DATA_V1, MAX_DATA_V2};
use sendshot_sys::encoded::{self, Encoding};

use crate::diff::{self, Sink, Step, Version, diff};
use crate::entry::Extent;
use crate::file::Sendshot;

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
    /// A file of the snapshot cannot be read.
    #[error("read {} of the snapshot", sendshot_stream::dump::escaped(path))]
    Read {
        /// The file.
        path: Vec<u8>,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file of the snapshot is shorter than its sendshot says.
    #[error(
        "{} of the snapshot ends at byte {offset}, which its sendshot does not say",
        sendshot_stream::dump::escaped(path)
    )]
    Short {
        /// The file.
        path: Vec<u8>,
        /// Where.
        offset: u64,
    },
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

/// Writes the stream of `n`, based on `m` or in full, to `out`. `snapshot` is the root
/// directory of the snapshot that `n` was captured from.
///
/// # Errors
/// See [`Error`]; what was written is then of no use.
pub fn stream(
    m: Option<&Sendshot>,
    n: &Sendshot,
    snapshot: impl AsFd,
    name: &[u8],
    version: Version,
    out: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Error> {
    let mut writer = Stream::new(
        snapshot
            .as_fd()
            .try_clone_to_owned()
            .map_err(Error::Write)?,
        version,
        out,
    );
    diff(m, n, name, version, &mut writer)?;
    writer.flush()
}

/// Reads what steps need and encodes them.
struct Stream<F> {
    snapshot: OwnedFd,
    encoder: Encoder,
    chunk: usize,
    out: F,
    batch: Vec<u8>,
    /// The file that was read last: its steps follow each other.
    open: Option<(Vec<u8>, File)>,
    encoded: Vec<u8>,
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Stream<F> {
    fn new(snapshot: OwnedFd, stream: Version, out: F) -> Self {
        let encoder = Encoder::new(version(stream));
        let mut batch = Vec::with_capacity(BATCH + BATCH / 2);
        encoder.header(&mut batch);
        Self {
            snapshot,
            encoder,
            chunk: chunk(stream),
            out,
            batch,
            open: None,
            encoded: vec![0; MAX_ENCODED],
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        (self.out)(&self.batch).map_err(Error::Write)?;
        self.batch.clear();
        Ok(())
    }

    fn file(&mut self, path: &[u8]) -> Result<&File, Error> {
        if self.open.as_ref().is_none_or(|(open, _)| open != path) {
            let file = open(&self.snapshot, path).map_err(|source| Error::Read {
                path: path.to_vec(),
                source,
            })?;
            self.open = Some((path.to_vec(), file));
        }
        match &self.open {
            Some((_, file)) => Ok(file),
            None => Err(Error::Short {
                path: path.to_vec(),
                offset: 0,
            }),
        }
    }

    fn data(&mut self, path: &[u8], offset: u64, len: u64) -> Result<(), Error> {
        let (mut at, end) = (offset, offset + len);
        let (chunk, encoder) = (self.chunk, self.encoder);
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(chunk).min(chunk);
            let mut batch = std::mem::take(&mut self.batch);
            let file = self.file(path)?;
            let command = Command::Write {
                path,
                offset: at,
                data: b"",
            };
            encoder.command_with_data(&command, len, &mut batch, |buffer| {
                read_exact(file, buffer, path, at)
            })?;
            self.batch = batch;
            at += len as u64;
            self.pass_on()?;
        }
        Ok(())
    }

    /// The extent as it is stored, if the kernel gives just that; else its data.
    fn encoded(&mut self, path: &[u8], extent: &Extent, len: u64) -> Result<(), Error> {
        let mut buffer = std::mem::take(&mut self.encoded);
        let file = self.file(path)?;
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

fn open(snapshot: &OwnedFd, path: &[u8]) -> io::Result<File> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOATIME;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = rustix::fs::openat2(snapshot, path, flags, Mode::empty(), beneath)?;
    Ok(File::from(file))
}

fn read_exact(file: &File, buffer: &mut [u8], path: &[u8], offset: u64) -> Result<(), Error> {
    file.read_exact_at(buffer, offset).map_err(|source| {
        let path = path.to_vec();
        match source.kind() {
            io::ErrorKind::UnexpectedEof => Error::Short { path, offset },
            _ => Error::Read { path, source },
        }
    })
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Sink for Stream<F> {
    type Error = Error;

    fn step(&mut self, step: Step<'_>) -> Result<(), Error> {
        match step {
            Step::Command(command) => {
                self.encoder.command(&command, &mut self.batch)?;
                self.pass_on()
            }
            Step::Data { path, offset, len } => self.data(path, offset, len),
            Step::Encoded { path, extent, len } => self.encoded(path, &extent, len),
        }
    }
}
