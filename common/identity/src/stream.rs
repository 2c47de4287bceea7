//! A TLS connection that knows who is at the other end.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use crate::connections::{Connections, Open, STRANGER_LIFE};
use crate::peer::{PeerIdentity, PeerIdentityError};

/// A peer that was unplugged is noticed after a minute (30 s + 3 × 10 s): soon enough to resume,
/// late enough for a router to restart.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;

/// Who is at the other end; found among a request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its address.
    pub addr: SocketAddr,
    /// Whom its certificate names; none if it showed none. This is who it is, not what it may do.
    pub identity: Option<PeerIdentity>,
}

/// A TLS connection, made by either end.
#[derive(Debug)]
pub struct PeerStream {
    tls: TlsStream<TcpStream>,
    info: PeerInfo,
    life: Option<Life>,
}

/// What ends a connection that was accepted, whatever the peer does.
#[derive(Debug)]
struct Life {
    _open: Open,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    /// For who showed no certificate.
    limit: Option<Pin<Box<Sleep>>>,
}

impl Life {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
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
    /// Takes over a connection whose handshake is done.
    pub(crate) fn new(
        tls: impl Into<TlsStream<TcpStream>>,
        addr: SocketAddr,
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
        })
    }

    /// Has it count among others, and end with them.
    pub(crate) fn among(mut self, connections: &Connections) -> Self {
        let peer = self.info.identity.as_ref().map(|identity| identity.id);
        let open = connections.enter(peer);
        let stranger = peer.is_none();
        self.life = Some(Life {
            ended: Box::pin(open.end.clone().cancelled_owned()),
            limit: stranger.then(|| Box::pin(tokio::time::sleep(STRANGER_LIFE))),
            _open: open,
        });
        self
    }

    /// Who is at the other end.
    #[must_use]
    pub fn info(&self) -> &PeerInfo {
        &self.info
    }

    /// The certificates the peer presented, its own first.
    #[must_use]
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        chain(&self.tls)
    }
}

fn chain(tls: &TlsStream<TcpStream>) -> &[CertificateDer<'static>] {
    tls.get_ref().1.peer_certificates().unwrap_or_default()
}

/// What every connection of ours is set to before TLS begins. gRPC writes small control frames
/// that must not wait for more, hence no delay.
pub(crate) fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(tcp, KEEPALIVE_INTERVAL)?;
    Ok(sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_COUNT)?)
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
        // Who reads is always there: HTTP/2 waits for the next frame.
        if let Some(life) = &mut self.life
            && let Poll::Ready(ended) = life.poll_end(cx)
        {
            return Poll::Ready(Err(ended));
        }
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    // Without these two, h2 would copy every payload into one buffer.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
