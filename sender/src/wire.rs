//! A connection that counts its bytes, and remembers what it said when it failed.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// Bytes that went over a connection in both directions.
#[derive(Debug, Clone, Default)]
pub struct WireBytes(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    bytes: AtomicU64,
    read: AtomicU64,
    /// No more than this is read; 0 if all is.
    most_read: AtomicU64,
    written: AtomicU64,
    more_written: Notify,
    /// The first failure of reading, as text.
    failure: OnceLock<String>,
}

impl WireBytes {
    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that this side wrote so far.
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Acquire)
    }

    /// Returns when this side has written so many in all.
    pub async fn until_written(&self, bytes: u64) {
        loop {
            // Made before the look: what is written from now on wakes it up.
            let more = self.0.more_written.notified();
            if self.written() >= bytes {
                return;
            }
            more.await;
        }
    }

    /// Has the connection fail when so many more bytes were read. Who takes what comes without end
    /// may never come to look at a clock.
    pub fn read_at_most(&self, more: u64) {
        let most = self.0.read.load(Ordering::Relaxed).saturating_add(more);
        self.0.most_read.store(most, Ordering::Relaxed);
    }

    /// Has it read whatever comes.
    pub fn read_all(&self) {
        self.0.most_read.store(0, Ordering::Relaxed);
    }

    fn add_read(&self, bytes: usize) -> io::Result<()> {
        self.add(bytes);
        let read = self.0.read.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        match self.0.most_read.load(Ordering::Relaxed) {
            most if most > 0 && read > most => {
                Err(io::Error::other("it says more than any answer can be"))
            }
            _ => Ok(()),
        }
    }

    fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn add_written(&self, bytes: usize) {
        self.add(bytes);
        self.0.written.fetch_add(bytes as u64, Ordering::Release);
        self.0.more_written.notify_waiters();
    }

    /// What the connection said when it failed. HTTP/2 does not always pass it on.
    pub fn failure(&self) -> Option<&str> {
        self.0.failure.get().map(String::as_str)
    }
}

/// An I/O object whose bytes are counted.
#[derive(Debug)]
pub struct Counted<T> {
    inner: T,
    bytes: WireBytes,
}

impl<T> Counted<T> {
    /// Counts what goes through `inner` into `bytes`.
    pub fn new(inner: T, bytes: WireBytes) -> Self {
        Self { inner, bytes }
    }

    fn count(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &result {
            self.bytes.add_written(*bytes);
        }
        result
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
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.count(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.count(result)
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

    #[tokio::test]
    async fn what_was_not_taken_was_not_written() {
        let wire = WireBytes::default();
        let (near, mut far) = tokio::io::duplex(10);
        let mut near = Counted::new(near, wire.clone());
        let write = async { near.write_all(&[0; 100]).await };
        let all = wire.until_written(100);
        let take = async {
            assert_eq!(wire.written(), 10);
            far.read_exact(&mut [0; 95]).await
        };
        let (written, (), taken) = tokio::join!(write, all, take);
        assert!(written.is_ok() && taken.is_ok());
        assert_eq!((wire.written(), wire.get()), (100, 100));
    }
}
