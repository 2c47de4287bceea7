//! A TLS connection with the identity of its peer.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use crate::transport::connections::{Connections, Open, STRANGER_LIFE};
use crate::transport::peer::{PeerIdentity, PeerIdentityError};

/// Keepalive times: an unplugged peer is detected after a minute (30 s + 3 × 10 s), soon enough to resume,
/// late enough for a router to restart.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;

/// How long sent data may stay unacknowledged, or be held back because the peer does not read, in
/// milliseconds: the same minute. The kernel then closes the connection, even if it is already closed with
/// data left to send; by default it would try for a quarter of an hour, and without limit for a peer that
/// acknowledges but does not read. The daemons' HTTP/2 pings detect a lost peer sooner, as long as a ping can
/// be sent.
const UNTAKEN_MILLISECONDS: u32 = 60_000;

/// The peer of a connection; it is one of a request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Address of the peer.
    pub addr: SocketAddr,
    /// Identity in its certificate; none if it presented none. It identifies the peer, without any permission.
    pub identity: Option<PeerIdentity>,
}

/// A TLS connection, opened by either end.
#[derive(Debug)]
pub struct PeerStream {
    tls: TlsStream<TcpStream>,
    info: PeerInfo,
    life: Option<Life>,
    round_trip: Duration,
    open: Arc<()>,
}

/// The conditions that end an accepted connection, whatever the peer does.
#[derive(Debug)]
struct Life {
    _open: Open,
    reads: End,
    writes: End,
}

/// The end of a connection, for its reader or its writer. A future wakes only the task that polled it last,
/// and reader and writer may be different tasks: each has its own.
#[derive(Debug)]
struct End {
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Time limit for a peer without a certificate.
    limit: Option<Pin<Box<Sleep>>>,
}

impl Life {
    fn new(open: Open, limit: Option<Duration>) -> Self {
        // Both have the same deadline.
        let over = limit.map(|limit| Instant::now() + limit);
        let end = || End {
            ended: Box::pin(open.end.clone().cancelled_owned()),
            limit: over.map(|over| Box::pin(tokio::time::sleep_until(over))),
        };
        Self {
            reads: end(),
            writes: end(),
            _open: open,
        }
    }
}

impl End {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.ended.as_mut().poll(cx).is_ready() {
            let why = "the receiver has ended this connection";
            return Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, why));
        }
        let limit = self.limit.as_mut();
        let over = limit.is_some_and(|limit| limit.as_mut().poll(cx).is_ready());
        if over {
            let why = "a connection without a certificate has lasted too long";
            return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        Poll::Pending
    }
}

impl PeerStream {
    /// Takes a connection after its handshake, which took `round_trip`.
    pub(crate) fn new(
        tls: impl Into<TlsStream<TcpStream>>,
        addr: SocketAddr,
        round_trip: Duration,
    ) -> Result<Self, PeerIdentityError> {
        let tls = tls.into();
        let identity = match chain(&tls) {
            [] => None,
            chain => Some(PeerIdentity::from_certificates(chain)?),
        };
        Ok(Self {
            tls,
            info: PeerInfo { addr, identity },
            life: None,
            round_trip,
            open: Arc::default(),
        })
    }

    /// What can be upgraded as long as the connection is open.
    #[must_use]
    pub fn open(&self) -> Weak<()> {
        Arc::downgrade(&self.open)
    }

    /// How long the TLS handshake took: one round trip and a little more, at most half a one where a proxy connects to the
    /// receiver only then. (The kernel's measurement would end at a proxy.)
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        self.round_trip
    }

    /// Adds it to the open connections, which can end it.
    pub(crate) fn among(mut self, connections: &Connections) -> Self {
        let peer = self.info.identity.as_ref().map(|identity| identity.id);
        let open = connections.enter(peer);
        let stranger = peer.is_none();
        self.life = Some(Life::new(open, stranger.then_some(STRANGER_LIFE)));
        self
    }

    /// Whether it must end, for the reader. HTTP/2 always reads, unless it cannot write.
    fn poll_read_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match &mut self.life {
            Some(life) => life.reads.poll(cx),
            None => Poll::Pending,
        }
    }

    /// Whether it must end, for the writer. While a peer does not read, HTTP/2 only waits to write, and would
    /// not detect the end by reading.
    fn poll_write_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match &mut self.life {
            Some(life) => life.writes.poll(cx),
            None => Poll::Pending,
        }
    }

    /// Returns the peer of the connection.
    #[must_use]
    pub fn info(&self) -> &PeerInfo {
        &self.info
    }

    /// Returns the certificates that the peer presented, its own first.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        chain(&self.tls)
    }
}

fn chain(tls: &TlsStream<TcpStream>) -> &[CertificateDer<'static>] {
    tls.get_ref().1.peer_certificates().unwrap_or_default()
}

/// Sets the options of every connection before TLS begins. gRPC writes small control frames that must not
/// wait for more data, hence no delay.
pub(crate) fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(tcp, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_COUNT)?;
    Ok(sockopt::set_tcp_user_timeout(tcp, UNTAKEN_MILLISECONDS)?)
}

impl Connected for PeerStream {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(ended) = self.poll_read_end(cx) {
            return Poll::Ready(Err(ended));
        }
        Pin::new(&mut self.tls).poll_read(cx, buf).map_err(named)
    }
}

/// Says that the connection was closed in the place of the library, whose text for it is not for users.
fn named(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(error.kind(), "the other side closed the connection")
        }
        _ => error,
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(ended) = self.poll_write_end(cx) {
            return Poll::Ready(Err(ended));
        }
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    // Without these two methods, h2 would copy every payload into one buffer.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(ended) = self.poll_write_end(cx) {
            return Poll::Ready(Err(ended));
        }
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(ended) = self.poll_write_end(cx) {
            return Poll::Ready(Err(ended));
        }
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(ended) = self.poll_write_end(cx) {
            return Poll::Ready(Err(ended));
        }
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
