//! A connection that counts its bytes, and keeps the error with which it failed.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::connection::frames::Frames;

/// Counters of a connection.
#[derive(Debug, Clone, Default)]
pub struct WireBytes(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    bytes: AtomicU64,
    read: AtomicU64,
    /// Limit of `read`; 0 for none.
    most_read: AtomicU64,
    /// Bytes of the newest call's messages.
    written: AtomicU64,
    more_written: Notify,
    /// The first error of reading, as text.
    failure: OnceLock<String>,
}

impl WireBytes {
    /// Bytes in both directions.
    pub fn get(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of messages that this side has written since the newest call began.
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Acquire)
    }

    /// Waits until this side has written so many bytes of the newest call.
    pub async fn until_written(&self, bytes: u64) {
        loop {
            // Made before the check, so that later writes wake it up.
            let more = self.0.more_written.notified();
            if self.written() >= bytes {
                return;
            }
            more.await;
        }
    }

    /// Makes the connection fail after so many more bytes are read. A task that reads an endless answer may
    /// never get to check a deadline.
    pub fn read_at_most(&self, more: u64) {
        let most = self.0.read.load(Ordering::Relaxed).saturating_add(more);
        self.0.most_read.store(most, Ordering::Relaxed);
    }

    /// Removes the limit on reading.
    pub fn read_all(&self) {
        self.0.most_read.store(0, Ordering::Relaxed);
    }

    fn add_read(&self, bytes: usize) -> io::Result<()> {
        self.add(bytes);
        let read = self.0.read.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        match self.0.most_read.load(Ordering::Relaxed) {
            most if most > 0 && read > most => Err(io::Error::other(
                "its response is longer than any valid one",
            )),
            _ => Ok(()),
        }
    }

    fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn add_written(&self, bytes: usize, of_call: u64) {
        self.add(bytes);
        self.0.written.store(of_call, Ordering::Release);
        self.0.more_written.notify_waiters();
    }

    /// The error with which the connection failed. HTTP/2 does not always pass it on.
    pub fn failure(&self) -> Option<&str> {
        self.0.failure.get().map(String::as_str)
    }
}

/// A stream that carries HTTP/2, with this side as the client. Its bytes are counted.
#[derive(Debug)]
pub struct Counted<T> {
    inner: T,
    bytes: WireBytes,
    frames: Frames,
}

impl<T> Counted<T> {
    /// Counts the bytes through `inner` in `bytes`.
    pub fn new(inner: T, bytes: WireBytes) -> Self {
        Self {
            inner,
            bytes,
            frames: Frames::default(),
        }
    }

    fn count(&mut self, written: usize, bufs: &[IoSlice<'_>]) {
        let mut rest = written;
        for buf in bufs {
            let taken = rest.min(buf.len());
            self.frames.written(&buf[..taken]);
            rest -= taken;
        }
        self.bytes.add_written(written, self.frames.data());
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        let read = self.bytes.add_read(buf.filled().len() - before);
        let result = result.map(|done| done.and(read));
        if let Poll::Ready(Err(e)) = &result {
            let _ = self.bytes.0.failure.set(e.to_string());
        }
        result
    }
}

// Vectored writes are forwarded: without them HTTP/2 copies every payload once more.
impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.count(written, &[IoSlice::new(buf)]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs))?;
        self.count(written, bufs);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A call with so many bytes of message, as a client writes it.
    fn call(len: u8) -> Vec<u8> {
        let data = [&[0, 0, len, 0, 0, 0, 0, 0, 1][..], &vec![0; len.into()]].concat();
        let headers = [0, 0, 0, 1, 4, 0, 0, 0, 1];
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &headers[..], &data].concat()
    }

    #[tokio::test]
    async fn unread_bytes_are_not_counted_as_written() {
        let wire = WireBytes::default();
        let (near, mut far) = tokio::io::duplex(50);
        let mut near = Counted::new(near, wire.clone());
        let call = call(100); // 42 bytes come before the message
        let write = async { near.write_all(&call).await };
        let all = wire.until_written(100);
        let take = async {
            assert_eq!((wire.written(), wire.get()), (8, 50));
            far.read_exact(&mut [0; 95]).await
        };
        let (written, (), taken) = tokio::join!(write, all, take);
        assert!(written.is_ok() && taken.is_ok());
        assert_eq!((wire.written(), wire.get()), (100, 142));
    }
}
