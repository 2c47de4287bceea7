//! The kernel engine: a second thread cuts the output of the kernel's pipe ([`send_pipe`]) into segments.
//!
//! When the receiving end of the queue is dropped, the second thread closes the pipe, upon which the ioctl returns
//! `EPIPE` at once.

use std::fs::File;
use std::io::{self, Read};

use bytes::Bytes;
use sendshot_proto::transfer::SEGMENT;
use sendshot_sys::send_pipe::{self, Sending, Source};
use sendshot_transfer::cutter;

use super::error::{Cutter, Error, Generator};

/// Starts the kernel engine.
///
/// # Errors
/// [`Error::Start`] or [`Error::Kernel`]; later ones come through the channel.
pub fn kernel(source: Source) -> Result<Generator, Error> {
    let (reader, sending) = send_pipe::start(source)?;
    cutter::start("segments", None, move |cutter| cut(reader, sending, cutter))
        .map_err(Error::Start)
}

fn cut(mut reader: File, sending: Sending, cutter: &mut Cutter) -> Result<(), Error> {
    loop {
        let wanted = match read_segment(&mut reader).map_err(Error::Read) {
            Ok(data) if data.is_empty() => return Ok(send_pipe::finish(sending)?),
            Ok(data) => cutter
                .segment(data, |segment, _| segment)
                .map_err(Error::from),
            Err(e) => Err(e),
        };
        if let Err(e) = wanted {
            abandon(reader, sending);
            return Err(e);
        }
    }
}

/// Closes the pipe, which ends the ioctl: its thread holds the snapshot as long as it lives.
fn abandon(reader: File, sending: Sending) {
    drop(reader);
    if send_pipe::finish(sending).is_ok() {
        tracing::debug!("a cancelled send had already ended");
    }
}

/// Reads as many bytes as a segment holds, fewer only at the end of the stream.
fn read_segment(reader: &mut File) -> io::Result<Bytes> {
    let mut data = Vec::with_capacity(SEGMENT);
    reader
        .by_ref()
        .take(SEGMENT as u64)
        .read_to_end(&mut data)?;
    Ok(data.into())
}
